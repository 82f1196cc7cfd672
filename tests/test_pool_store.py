"""State on disk: libvirt's files read as they are and written as libvirt reads them, whole or not at all."""

from __future__ import annotations

import fcntl
import os
import struct
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

import judges
from cowshed.errors import OperationError, PoolError, StateError
from cowshed.pool import store as store_module
from cowshed.pool.host import Host
from cowshed.pool.pool import Pool
from libvirtd import Libvirtd

UUID = "16182fc3-65ac-4a24-90d4-a8819df3b1d9"
WARNING = """<!--
WARNING: THIS IS AN AUTO-GENERATED FILE. CHANGES TO IT ARE LIKELY TO BE
OVERWRITTEN AND LOST. Changes to this xml configuration should be made using:
  virsh pool-edit p1
or other application using the libvirt API.
-->

"""
POOL = f"""<pool type='dir'>
  <name>p1</name>
  <uuid>{UUID}</uuid>
  <capacity unit='bytes'>0</capacity>
  <allocation unit='bytes'>0</allocation>
  <available unit='bytes'>0</available>
  <source>
  </source>
  <target>
    <path>DIR</path>
  </target>
</pool>
"""


def mode(path: Path) -> int:
    return path.stat().st_mode & 0o777


def define(host: Host, folder: Path, name: str = "p1") -> Pool:
    return host.define(POOL.replace("DIR", str(folder / "images")).replace("p1", name))


def test_files_are_libvirts(tmp_path: Path) -> None:
    """As a real libvirtd was seen to write them, byte for byte."""
    host = Host(str(tmp_path))
    pool = define(host, tmp_path)
    pool.start(build=True)
    pool.set_autostart(True)
    host.autostart()
    etc, run = tmp_path / "etc/libvirt/storage", tmp_path / "run/libvirt/storage"
    text = POOL.replace("DIR", str(tmp_path / "images"))
    assert (etc / "p1.xml").read_text() == WARNING + text
    inner = "".join(f"  {line}\n" for line in text.splitlines())
    assert (run / "p1.xml").read_text() == f"{WARNING}<poolstate>\n{inner}</poolstate>\n"
    assert os.readlink(etc / "autostart/p1.xml") == str(etc / "p1.xml")
    assert (run / "autostarted").read_bytes() == b""
    assert [mode(path) for path in (etc / "p1.xml", run / "p1.xml", run / "autostarted")] == [0o600] * 3
    assert [mode(path) for path in (etc, etc / "autostart", run)] == [0o755] * 3


def test_what_does_not_fit_is_skipped_and_told(tmp_path: Path) -> None:
    host = Host(str(tmp_path))
    good = define(host, tmp_path)
    etc, run = tmp_path / "etc/libvirt/storage", tmp_path / "run/libvirt/storage"
    (etc / "broken.xml").write_text("<pool type='dir'><name>broken</name>")
    (etc / "other.xml").write_text(POOL)
    (etc / "empty.xml").touch()
    (etc / "folder.xml").mkdir()
    (etc / "big.xml").write_bytes(b" " * (11 << 20))
    (etc / "pool.xml.new").write_text(POOL)
    (etc / ".xml").write_text(POOL)
    (run / "state.xml").write_text(POOL)  # not in <poolstate>
    os.mkfifo(etc / "fifo.xml")
    host = Host(str(tmp_path))
    assert host.pools() == [good]
    assert host.pool_by_uuid(UUID) == good
    told = {line.split("'")[1].rpartition("/")[2] for line in host.warnings}
    assert told == {"broken.xml", "other.xml", "empty.xml", "folder.xml", "big.xml", "state.xml", "fifo.xml"}
    assert len(host.warnings) == len(set(host.warnings)) == 7
    mismatch = f"Storage pool config filename '{etc}/other.xml' does not match pool name 'p1'"
    assert any(line.endswith(mismatch) for line in host.warnings)


def test_a_file_without_a_uuid(tmp_path: Path) -> None:
    """Somebody wrote it by hand."""
    folder = tmp_path / "etc/libvirt/storage"
    folder.mkdir(parents=True)
    (folder / "x.xml").write_text(f"<pool type='dir'><name>x</name><target><path>{tmp_path}/x</path></target></pool>")
    pool = Host(str(tmp_path)).pool("x")
    assert pool.uuid and Host(str(tmp_path)).pool_by_uuid(pool.uuid) == pool
    pool.start(build=True)
    assert pool.active and f"<uuid>{pool.uuid}</uuid>" in pool.xml() and pool.xml(True) == pool.xml()
    pool.destroy()
    Host(str(tmp_path)).define((folder / "x.xml").read_text())
    assert pool.persistent


def test_what_libvirt_does_not_know_is_kept(tmp_path: Path) -> None:
    host = Host(str(tmp_path))
    pool = host.define(POOL.replace("DIR", f"{tmp_path}/images").replace("</source>", "</source><mine a='1'>x</mine>"))
    pool.start(build=True)
    assert "<mine a='1'>x</mine>" in pool.xml() and "<mine a='1'>x</mine>" in pool.xml(inactive=True)
    pool.destroy()
    assert "<mine a='1'>x</mine>" in Host(str(tmp_path)).pool("p1").xml()


def test_text_with_line_breaks_comes_back_as_it_was(tmp_path: Path) -> None:
    host = Host(str(tmp_path))
    target = f"{tmp_path}/two\nlines"
    pool = host.define(f"<pool type='dir'><name>x</name><target><path>{target}</path></target></pool>")
    pool.start(build=True)
    assert pool.definition.target == pool.inactive_definition.target == target and os.path.isdir(target)


@pytest.mark.parametrize("leftover", ["file", "link", "used"])
def test_temporary_files_of_the_dead_are_removed(tmp_path: Path, leftover: str) -> None:
    name = tmp_path / ".cowshed-0123456789abcdef.new"
    if leftover == "link":
        name.symlink_to("nowhere")
    else:
        name.write_text("half")
    with open(tmp_path / "held" if leftover != "used" else name, "ab") as file:
        fcntl.fcntl(file, fcntl.F_OFD_SETLK, struct.pack("hhqqi", fcntl.F_WRLCK, 0, 0, 0, 0))
        store_module.replace(str(tmp_path / "x"), b"text")
        assert os.path.lexists(name) == (leftover == "used")
    assert (tmp_path / "x").read_bytes() == b"text"


def test_writers_at_once(tmp_path: Path) -> None:
    """Sweeping never hurts another writer, and a reader sees one text or another, whole."""
    path = tmp_path / "x"
    texts = [bytes([65 + number]) * 100_000 for number in range(6)]
    path.write_bytes(texts[0])
    pids = []
    for text in texts:
        pid = os.fork()
        if pid == 0:
            try:
                deadline = time.monotonic() + 2
                while time.monotonic() < deadline:
                    store_module.replace(str(path), text)
                    assert store_module.read(str(path)) in texts
                os._exit(0)
            except BaseException as error:
                os.write(2, repr(error).encode())
                os._exit(1)
        pids.append(pid)
    assert [os.waitpid(pid, 0)[1] for pid in pids] == [0] * len(pids)
    assert os.listdir(tmp_path) == ["x"]


def test_an_autostart_link_counts_only_when_it_leads_to_the_pool(tmp_path: Path) -> None:
    host = Host(str(tmp_path))
    pool = define(host, tmp_path)
    links = tmp_path / "etc/libvirt/storage/autostart"
    links.mkdir()
    link = links / "p1.xml"
    link.symlink_to("/nowhere")
    assert not pool.autostart
    pool.set_autostart(True)
    assert pool.autostart and os.readlink(link) == str(tmp_path / "etc/libvirt/storage/p1.xml")
    pool.set_autostart(True)
    pool.set_autostart(False)
    pool.set_autostart(False)
    assert not pool.autostart and not os.path.lexists(link)


def test_a_live_daemon_owns_its_state(tmp_path: Path) -> None:
    host = Host(str(tmp_path))
    pool = define(host, tmp_path)
    path = tmp_path / "run/libvirt/storage/driver.pid"
    path.write_text("1\n")
    pool.build()  # a pid file alone says nothing
    script = (
        "import fcntl, sys, time; file = open(sys.argv[1], 'r+'); fcntl.lockf(file, fcntl.LOCK_EX, 1);"
        "print(flush=True); time.sleep(60)"
    )
    process = subprocess.Popen([sys.executable, "-c", script, str(path)], stdout=subprocess.PIPE)
    try:
        assert process.stdout is not None and process.stdout.readline()
        said = f"Requested operation is not valid: the storage pools are managed by libvirtd (process {process.pid})"
        for act in (pool.start, pool.undefine, host.autostart, lambda: define(host, tmp_path, "p2")):
            with pytest.raises(StateError) as caught:
                act()
            assert str(caught.value) == said and caught.value.hint
        assert Host(str(tmp_path)).pools() == [pool] and pool.xml()
    finally:
        process.kill()
        process.wait()
        if process.stdout is not None:
            process.stdout.close()
    pool.start()


def test_importing_is_light() -> None:
    """What `virsh pool-list` needs, and no more."""
    script = (
        "import sys; before = set(sys.modules); from cowshed.pool.host import Host; "
        "print(*sorted(set(sys.modules) - before))"
    )
    env = {**os.environ, "PYTHONPATH": str(Path(__file__).parent.parent / "src")}
    done = subprocess.run([sys.executable, "-S", "-c", script], capture_output=True, text=True, check=True, env=env)
    heavy = {
        "json", "re", "enum", "typing", "dataclasses", "logging", "subprocess", "hashlib", "copy", "uuid", "shutil",
        "tempfile", "contextlib", "functools", "collections", "pathlib", "threading", "xml",
    }  # fmt: skip
    assert not heavy & set(done.stdout.split())


# -- a real libvirtd on the same tree ----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def libvirtd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Libvirtd]:
    judges.need("libvirtd")
    with Libvirtd(tmp_path_factory.mktemp("libvirtd")) as daemon:
        yield daemon


def ours(daemon: Libvirtd) -> Host:
    """A host on the daemon's tree: the directories that it sees as /etc/libvirt and /run/libvirt."""
    root = daemon.folder / "root"
    for name in ("etc", "run"):
        (root / name).mkdir(parents=True, exist_ok=True)
        link = root / name / "libvirt"
        if not link.exists():
            link.symlink_to(daemon.folder / name)
    return Host(str(root))


def relink(daemon: Libvirtd) -> None:
    """Autostart links are absolute, and say where we saw the tree; the daemon sees it elsewhere."""
    for link in (daemon.folder / "etc/storage/autostart").iterdir():
        link.unlink()
        link.symlink_to(f"/etc/libvirt/storage/{link.name}")


def shown(daemon: Libvirtd, *names: str) -> dict[str, str]:
    return {name: daemon.run(["pool-dumpxml", "--inactive", name]).stdout.strip() for name in names}


def table(daemon: Libvirtd) -> list[list[str]]:
    return [line.split() for line in daemon.run(["pool-list", "--all"]).stdout.splitlines()[2:] if line.strip()]


def test_libvirtd_reads_what_we_wrote(libvirtd: Libvirtd) -> None:
    daemon = libvirtd
    daemon.stop()
    host = ours(daemon)
    folder = daemon.folder / "first"
    folder.mkdir()
    documents = {
        "a-dir": f"<pool type='dir'><name>a-dir</name><target><path>{folder}/a</path><permissions><mode>0750</mode>"
        "<owner>1</owner><group>2</group></permissions></target></pool>",
        "a-fs": "<pool type='fs'><name>a-fs</name><source><device path='/dev/nosuch'/><format type='ext4'/></source>"
        f"<target><path>{folder}/fs</path></target></pool>",
        "a-net": "<pool type='netfs'><name>a-net</name><source><host name='h'/><dir path='/x'/><format type='nfs'/>"
        f"</source><target><path>{folder}/net</path></target></pool>",
        "a-vg": "<pool type='logical'><name>a-vg</name><source><name>nosuchvg</name></source></pool>",
        "a-disk": "<pool type='disk'><name>a-disk</name><source><device path='/dev/nosuch2'/><format type='gpt'/>"
        "</source><target><path>/dev</path></target></pool>",
        "a&b é": f"<pool type='dir'><name>a&amp;b é</name><target><path>{folder}/odd</path></target></pool>",
    }
    for name, document in documents.items():
        try:
            host.define(document)
        except PoolError as error:
            assert "missing backend" in str(error), name
    names = [pool.name for pool in host.pools()]
    assert "a-dir" in names and "a-fs" in names
    host.pool("a-dir").start(build=True)
    host.pool("a-dir").set_autostart(True)
    transient = host.create(
        f"<pool type='dir'><name>passing</name><target><path>{folder}/t</path></target></pool>", build=True
    )
    relink(daemon)
    daemon.start()
    assert sorted(row for row in table(daemon) if row[0] in ("a-dir", "passing")) == [
        ["a-dir", "active", "yes"], ["passing", "active", "no"],
    ]  # fmt: skip
    assert "Persistent:     no" in daemon.run(["pool-info", "passing"]).stdout
    said = shown(daemon, *names)
    host = ours(daemon)
    for name in names:
        lines = [line for line in host.pool(name).xml(inactive=True).splitlines() if "unit='bytes'" not in line]
        theirs = [line for line in said[name].splitlines() if "unit='bytes'" not in line]
        if name not in ("a&b é",):  # its directory isn't there, and nothing of it is known to either
            assert lines == theirs, name
    assert not host.warnings
    with pytest.raises(StateError, match="libvirtd"):
        host.pool("a-dir").destroy()
    # a change of theirs is seen at once
    assert daemon.run(["pool-destroy", "passing"]).code == 0
    assert [pool.name for pool in host.pools()] == names
    assert daemon.run(["pool-autostart", "a-dir", "--disable"]).code == 0
    assert not host.pool("a-dir").autostart
    assert transient.name == "passing"


def test_we_read_what_libvirtd_wrote(libvirtd: Libvirtd) -> None:
    daemon = libvirtd
    if daemon.process is None:
        daemon.start()
    folder = daemon.folder / "second"
    folder.mkdir()
    for command in (
        f"pool-define-as b-dir dir --target {folder}/b", "pool-build b-dir", "pool-start b-dir", "pool-autostart b-dir",
        f"pool-define-as b-fs fs --source-dev /dev/nosuch3 --source-format xfs --target {folder}/fs",
        f"pool-define-as b-netfs netfs --source-host h --source-path /y --target {folder}/n",
        "pool-define-as b-disk disk --source-dev /dev/nosuch4 --source-format dos --target /dev",
        "pool-define-as b-logical logical --source-name vg7 --source-dev /dev/nosuch5",
        "pool-define-as b-iscsi iscsi --source-host h --source-dev iqn.2013-06.org.example:x "
        "--target /dev/disk/by-path",
        "pool-define-as b-rbd rbd --source-host h --source-name pool --auth-type ceph --auth-username admin "
        "--secret-usage client.admin",
        f"pool-create-as b-passing dir --target {folder}/p --build",
    ):  # fmt: skip
        done = daemon.run(command.split())
        assert done.code == 0, (command, done.text())
    names = ["b-dir", "b-fs", "b-netfs", "b-disk", "b-logical", "b-iscsi", "b-rbd", "b-passing"]
    said = shown(daemon, *names)
    daemon.stop()
    host = ours(daemon)
    assert not host.warnings
    for name in names:
        pool = host.pool(name)
        lines = [line for line in pool.xml(inactive=True).strip().splitlines() if "unit='bytes'" not in line]
        assert lines == [line for line in said[name].splitlines() if "unit='bytes'" not in line], name
        assert pool.active == (name in ("b-dir", "b-passing")) and pool.persistent == (name != "b-passing")
    assert host.recovered == []
    with pytest.raises(OperationError):
        host.define("<pool type='dir'><name>b-fs</name><target><path>/x</path></target></pool>")
    host.pool("b-passing").destroy()
    host.pool("b-dir").destroy()
    host.pool("b-fs").undefine()
    daemon.start()
    left = {row[0]: row[1:] for row in table(daemon) if row[0].startswith("b-")}
    assert sorted(left) == sorted(set(names) - {"b-fs", "b-passing"})
