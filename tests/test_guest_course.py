"""The course's session: a disk as CentOS 7 makes it, looked into and edited, judged by xfs_repair and the kernel."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import judges
from guest_images import CONFIG as OLD
from guest_images import Centos

CONFIG = "/etc/sysconfig/network-scripts/ifcfg-ens3"


@pytest.fixture(scope="module")
def guest(tmp_path_factory: pytest.TempPathFactory) -> Centos:
    return Centos(tmp_path_factory.mktemp("centos")).fill()


@pytest.fixture(scope="module")
def guestfish(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bin")
    subprocess.run([sys.executable, "-m", "cowshed", "links", folder], check=True, capture_output=True)
    return folder / "guestfish"


@pytest.fixture
def image(guest: Centos) -> Iterator[Path]:
    path = guest.converted()
    yield path
    path.unlink()


def fish(guestfish: Path, *argv: str, **environment: str) -> str:
    done = subprocess.run(
        [guestfish, *argv], capture_output=True, text=True, timeout=60, env={**os.environ, **environment}
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    return done.stdout


def test_what_is_on_it(guestfish: Path, image: Path) -> None:
    assert fish(guestfish, "--ro", "-a", str(image), "run", ":", "list-filesystems") == (
        "/dev/sda1: xfs\n/dev/centos/root: xfs\n/dev/centos/swap: swap\n"
    )
    assert fish(guestfish, "--ro", "-a", str(image), "-i", "cat", "/etc/hostname") == "web1.example\n\n"
    shown = fish(
        guestfish, "--ro", "-a", str(image), "-i",
        "inspect-get-roots", ":", "inspect-get-distro", "/dev/centos/root", ":",
        "inspect-get-major-version", "/dev/centos/root", ":", "inspect-get-mountpoints", "/dev/centos/root", ":",
        "ls", "/boot/grub2",
    )  # fmt: skip
    lines = shown.splitlines()
    assert lines[:3] == ["/dev/centos/root", "centos", "7"]
    assert sorted(lines[3:5]) == ["/: /dev/centos/root", "/boot: /dev/sda1"]
    assert lines[5:] == ["grub.cfg"]


def _edited(guest: Centos, image: Path, wanted: str) -> None:
    """The kernel shows the edit, with the old mode, owner and attributes, and xfs_repair finds nothing."""
    copy = guest.disk.with_suffix(".kept")
    os.rename(guest.disk, copy)
    try:
        guest.back(image)
        guest.check()
        with guest.mount() as root:
            path = Path(f"{root}{CONFIG}")
            assert path.read_text() == wanted
            status = path.stat()
            assert (status.st_mode & 0o7777, status.st_uid, status.st_gid) == (0o640, 0, 10)
            assert os.getxattr(path, "security.selinux").rstrip(b"\0") == b"system_u:object_r:net_conf_t:s0"
            assert os.getxattr(path, "user.note") == b"kept"
        guest.check()
    finally:
        os.rename(copy, guest.disk)


def test_edit_by_an_editor(guestfish: Path, guest: Centos, image: Path, tmp_path: Path) -> None:
    editor = tmp_path / "editor"
    editor.write_text("#!/bin/sh\nsed -i -e 's/^ONBOOT=.*/ONBOOT=yes/' -e '$ a IPADDR=192.0.2.7' \"$1\"\n")
    editor.chmod(0o755)
    fish(guestfish, "-a", str(image), "-i", "edit", CONFIG, EDITOR=str(editor))
    _edited(guest, image, OLD.replace("ONBOOT=no", "ONBOOT=yes") + "IPADDR=192.0.2.7\n")


def test_vi_itself(guestfish: Path, guest: Centos, image: Path, tmp_path: Path) -> None:
    tmux, vi = judges.need("tmux"), judges.need("vi")
    socket = tmp_path / "tmux"
    command = f"{guestfish} -a {image} -i; echo done > {tmp_path}/done; sleep 100"

    def keys(*words: str) -> None:
        subprocess.run([tmux, "-S", socket, "send-keys", *words], check=True)

    def wait(what: Any) -> None:
        deadline = time.monotonic() + 240
        while not what():
            assert time.monotonic() < deadline, screen()
            time.sleep(0.05)

    def screen() -> str:
        return subprocess.run([tmux, "-S", socket, "capture-pane", "-p"], capture_output=True, text=True).stdout

    environment = {**os.environ, "TERM": "xterm", "LC_ALL": "C.UTF-8", "HOME": str(tmp_path)}
    environment.pop("EDITOR", None)
    subprocess.run(
        [tmux, "-S", socket, "-f", "/dev/null", "new-session", "-d", "-x", "100", "-y", "40", command],
        check=True, env=environment,
    )  # fmt: skip
    try:
        wait(lambda: "><fs>" in screen())
        assert "Welcome to guestfish" in screen()
        keys("-l", f"vi {shlex.quote(CONFIG)}")
        keys("Enter")
        wait(lambda: "BOOTPROTO=dhcp" in screen())
        keys("-l", ":%s/dhcp/static/")
        keys("Enter")
        wait(lambda: "BOOTPROTO=static" in screen())
        keys("-l", ":wq")
        keys("Enter")
        wait(lambda: screen().rstrip().endswith("><fs>"))
        keys("-l", "quit")
        keys("Enter")
        wait((tmp_path / "done").exists)
    finally:
        subprocess.run([tmux, "-S", socket, "kill-server"], capture_output=True)
    assert vi
    _edited(guest, image, OLD.replace("dhcp", "static"))


def test_python(guest: Centos, image: Path) -> None:
    import cowshed

    with cowshed.guest.open(str(image), write=True) as g:
        path = g.root / CONFIG.lstrip("/")
        assert path.read_text() == OLD
        path.write_text(OLD.replace("no", "yes"))
    _edited(guest, image, OLD.replace("no", "yes"))
