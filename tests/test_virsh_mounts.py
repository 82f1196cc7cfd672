# ruff: noqa: E501 - command lines are easier to read unbroken
"""netfs and fs pools: what is run to mount them is what the real libvirtd runs, and real mounts where the kernel has them."""

from __future__ import annotations

import contextlib
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

import judges
from libvirtd import Ranch

COMMANDS = """
pool-create-as n netfs --source-host h --source-path /exp --target {dir}/m
pool-create-as n netfs --source-host h --source-path /exp --source-format auto --target {dir}/m --build
pool-create-as n netfs --source-host h --source-path /exp --source-format nfs --target {dir}/m
pool-create-as n netfs --source-host h --source-path /exp --source-format nfs --source-protocol-ver 4.1 --target {dir}/m
pool-create-as n netfs --source-host h --source-path exp/x --source-format nfs --target {dir}/m
pool-create-as n netfs --source-host h --source-path /exp --source-format glusterfs --target {dir}/m
pool-create-as n netfs --source-host h --source-path exp --source-format glusterfs --target {dir}/m
pool-create-as n netfs --source-host h --source-path exp --source-format glusterfs --source-protocol-ver 3 --target {dir}/m
pool-create-as n netfs --source-host h --source-path /exp --source-format cifs --target {dir}/m
pool-create-as n netfs --source-host h --source-path share --source-format cifs --target {dir}/m
pool-create-as n netfs --source-host h --source-path share --source-format nosuch --target {dir}/m
pool-create-as n netfs --source-host h --target {dir}/m
pool-create-as n netfs --source-path /exp --target {dir}/m
pool-create-as n netfs --source-host h --source-path /exp
pool-create nfs-options.xml
pool-create gluster-options.xml
pool-define-as f fs --source-dev {dir}/disk --source-format ext4 --target {dir}/m
pool-start f
pool-define-as n netfs --source-host h --source-path /exp --target {dir}/m
pool-define-as n2 netfs --source-host h --source-path /exp --target {dir}/m2
pool-dumpxml n
pool-start n
pool-list --all
find-storage-pool-sources-as netfs
find-storage-pool-sources netfs
find-storage-pool-sources fs
"""

OPTIONS = """<pool type='netfs' xmlns:fs='http://libvirt.org/schemas/storagepool/fs/1.0'><name>o</name>
<source><host name='h'/><dir path='/e'/><format type='{kind}'/></source><target><path>{{dir}}/m</path></target>
<fs:mount_opts><fs:option name='sync'/><fs:option name='lazytime'/></fs:mount_opts></pool>"""


def test_mounts_are_asked_for_alike(ranch: Ranch, tmp_path: Path) -> None:
    fake = tmp_path / "mount"
    log = tmp_path / "log"
    fake.write_text(f'#!/bin/sh\necho "$@" >> {log}\nexit 32\n')
    fake.chmod(0o755)
    for kind in ("nfs", "gluster"):
        ranch.file(f"{kind}-options.xml", OPTIONS.format(kind=kind.replace("gluster", "glusterfs")))
    ranch.setup(lambda folder: (folder / "m").mkdir())
    ranch.file("disk", bytes(1 << 20))
    # helpers of mount that may be missing here: ours asks for them before it tries
    helpers = tmp_path / "sbin"
    helpers.mkdir()
    for kind in ("nfs", "cifs", "glusterfs"):
        shutil.copy(fake, helpers / f"mount.{kind}")
    path = {"PATH": f"{helpers}:{judges.SEARCH}"}
    assert ranch.daemon.inside(["mount", "--bind", str(fake), "/usr/bin/mount"]).code == 0
    asked = []
    for command in COMMANDS.strip().splitlines():
        log.unlink(missing_ok=True)
        ranch.check(*command.split(), env=path)
        if log.exists():
            lines = log.read_text()
            for words in ranch.words.values():
                lines = lines.replace(words["{dir}"], "@")
            asked.append(lines.splitlines())
    assert len(asked) >= 10
    assert [pair for pair in asked if len(pair) != 2 or pair[0] != pair[1]] == []


@contextlib.contextmanager
def gluster_volume(folder: Path) -> Iterator[str]:
    """A GlusterFS volume of one brick on this machine alone: HOST."""
    glusterd, gluster = judges.need("glusterd"), judges.need("gluster")
    judges.need("mount.glusterfs")
    host = socket.gethostname()
    for name in ("work", "brick", "log", "run"):
        (folder / name).mkdir()
    (folder / "glusterd.vol").write_text(
        "volume management\n type mgmt/glusterd\n"
        f" option working-directory {folder}/work\n option run-directory {folder}/run\n"
        " option transport-type socket\n option transport.socket.bind-address 127.0.0.1\n"
        " option transport.address-family inet\nend-volume\n"
    )
    argv = [glusterd, "-N", "-f", f"{folder}/glusterd.vol", "-l", f"{folder}/log/d", "-p", f"{folder}/pid"]
    with open(folder / "output", "wb") as output:
        daemon = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=output, stderr=output)
    try:
        for words in (
            ["volume", "create", "v", "transport", "tcp", f"{host}:{folder}/brick", "force"],
            ["volume", "start", "v"],
        ):
            deadline = time.monotonic() + 120
            while True:
                done = subprocess.run([gluster, "--mode=script", *words], capture_output=True, text=True, timeout=120)
                if done.returncode == 0 or daemon.poll() is not None or time.monotonic() > deadline:
                    break
                time.sleep(0.1)
            if done.returncode:
                judges.absent(f"a GlusterFS volume here: {done.stdout}{done.stderr}")
        yield host
        subprocess.run([gluster, "--mode=script", "volume", "stop", "v"], capture_output=True, timeout=120)
    finally:
        daemon.terminate()
        try:
            daemon.wait(60)
        except subprocess.TimeoutExpired:
            daemon.kill()
            daemon.wait()


def test_a_real_glusterfs_pool(ranch: Ranch, tmp_path: Path) -> None:
    if shutil.which("glusterd", path=judges.SEARCH) is None:
        judges.absent("glusterd (Debian package glusterfs-server)")
    folder = tmp_path / "gluster"
    folder.mkdir()
    with gluster_volume(folder) as host:
        ranch.setup(lambda directory: (directory / "m").mkdir())
        for words in ranch.words.values():
            words["{host}"] = host
        course = """
            pool-define-as g netfs --source-host {host} --source-path /v --source-format glusterfs --target {dir}/m
            pool-start g
            vol-create-as g one 1M
            vol-create-as g two.qcow2 1M --format qcow2
            vol-list g
            vol-clone one three g
            vol-delete one g
            vol-list g
            vol-delete three g
            vol-delete two.qcow2 g
            pool-refresh g
            pool-destroy g
            pool-undefine g
        """
        # one after the other: both see the same directory
        lists: dict[str, list[str]] = {"real": [], "ours": []}
        for side, seen in lists.items():
            for line in course.strip().splitlines():
                argv = [ranch._filled(word, side) for word in line.split()]
                tool = [ranch.daemon.virsh, "-c", ranch.daemon.uri] if side == "real" else ranch.ours.command
                done = ranch.daemon.inside([*tool, *argv], cwd=ranch.folders[side])
                assert done.code == 0, (side, line, done.text())
                if argv[0] == "vol-list":
                    seen.append(ranch._masked(done.stdout, side, []))
        assert len(lists["ours"]) == 2 and lists["ours"] == lists["real"]


@pytest.mark.parametrize("fmt", ["vfat", "ext4"])
def test_what_is_missing_is_named_before_anything_changes(ranch: Ranch, tmp_path: Path, fmt: str) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    ranch.file("disk", bytes(1 << 20))
    argv = f"pool-create-as f fs --source-dev {{dir}}/disk --source-format {fmt} --target {{dir}}/m --build --overwrite"
    here = [ranch._filled(word, "ours") for word in argv.split()]
    # no mkfs of that kind: neither directory nor pool comes to be
    name = judges.find(f"mkfs.{fmt}") or f"/sbin/mkfs.{fmt}"
    hide = f'mount --bind {empty} {Path(name).parent} 2>/dev/null; exec "$@"'
    hidden = ["unshare", "-m", "/bin/sh", "-c", hide, "sh", *ranch.ours.command, *here]
    done = ranch.daemon.inside(hidden, cwd=ranch.folders["ours"])
    assert done.code == 1
    assert f"mkfs.{fmt}" in done.stderr and "Debian package" in done.stderr
    assert not (ranch.folders["ours"] / "m").exists()
    ranch.check("pool-list", "--all")
