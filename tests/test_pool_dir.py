"""Directories as pools: which entries are volumes, and what is said of each, beside a real libvirtd."""

from __future__ import annotations

import os
import re
import socket
import struct
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import judges
from cowshed.errors import CowshedError, HostCallError
from cowshed.pool.host import Host
from cowshed.pool.pool import Pool
from libvirtd import Libvirtd

IMAGES = [
    ("f.qcow", "-f", "qcow"), ("f.qcow2", "-f", "qcow2"), ("f.qed", "-f", "qed"), ("f.vmdk", "-f", "vmdk"),
    ("f.vdi", "-f", "vdi"), ("f.vhdx", "-f", "vhdx"), ("f.vpc", "-f", "vpc"), ("f.hds", "-f", "parallels"),
    ("v2.qcow2", "-f", "qcow2", "-o", "compat=0.10"),
    ("lazy.qcow2", "-f", "qcow2", "-o", "lazy_refcounts=on,extended_l2=on"),
    ("big-clusters.qcow2", "-f", "qcow2", "-o", "cluster_size=2M"),
    ("overlay.qcow2", "-f", "qcow2", "-b", "f.qcow2", "-F", "qcow2"),
    ("missing.qcow2", "-f", "qcow2", "-u", "-b", "missing", "-F", "raw"),
    ("remote.qcow2", "-f", "qcow2", "-u", "-b", "nbd://host/x", "-F", "raw"),
    ("json.qcow2", "-f", "qcow2", "-u", "-b", 'json:{"driver":"nbd","host":"h"}', "-F", "raw"),
    ("percent.qcow2", "-f", "qcow2", "-u", "-b", "a%20b", "-F", "raw"),
    ("on-qed.qcow2", "-f", "qcow2", "-u", "-b", "f.qed", "-F", "qed"),
    ("overlay.vmdk", "-f", "vmdk", "-b", "f.vmdk", "-F", "vmdk"),
    ("overlay.qcow", "-f", "qcow", "-b", "f.qcow2", "-F", "qcow2"),
    ("flat.vmdk", "-f", "vmdk", "-o", "subformat=monolithicFlat"),
    ("data.qcow2", "-f", "qcow2", "-o", "data_file=data.raw,data_file_raw=on"),
]  # fmt: skip


@pytest.fixture
def pool(tmp_path: Path) -> Iterator[Pool]:
    host = Host(root=str(tmp_path / "root"))
    made = host.define(f"<pool type='dir'><name>p</name><target><path>{tmp_path}/p</path></target></pool>")
    made.build()
    made.start()
    yield made


def names(pool: Pool) -> list[str]:
    listed = sorted(name for name, _ in pool.volume_names())
    assert listed == sorted(volume.name for volume in pool.volumes()), "the cheap list is the same"
    return listed


def all_sorts(folder: Path) -> None:
    """Files of every format that is known, and what else may lie about in a directory."""
    tool = judges.need("qemu-img")
    secret = ["--object", "secret,id=s,data=x"]

    def make(name: str, *options: str, size: str = "10M") -> None:
        size_given = [] if "-b" in options and "-u" not in options else [size]
        subprocess.run([tool, "create", "-q", *options, name, *size_given], check=True, cwd=folder)

    for name, *options in IMAGES:
        make(name, *options)
    make("f.luks", *secret, "-f", "luks", "-o", "key-secret=s,iter-time=10")
    key = "encrypt.key-secret=s"
    make("luks.qcow2", *secret, "-f", "qcow2", "-o", f"encrypt.format=luks,{key},encrypt.iter-time=10")
    make("aes.qcow2", *secret, "-f", "qcow2", "-o", f"encrypt.format=aes,{key}")
    make("aes.qcow", *secret, "-f", "qcow", "-o", f"encrypt.format=aes,{key}")

    for name, below in (("unsaid.qcow2", "f.qcow2"), ("unsaid-missing.qcow2", "missing")):
        make(name, "-f", "qcow2", "-u", "-b", below, "-F", "raw")
        data = bytearray((folder / name).read_bytes())
        at = data.find(bytes.fromhex("e2792aca"))
        data[at : at + 4] = b"\x12\x34\x56\x78"  # an extension that nobody knows
        (folder / name).write_bytes(data)
    huge = bytearray((folder / "f.qcow2").read_bytes())
    huge[24:32] = struct.pack(">Q", 1 << 63 | 512)
    (folder / "huge.qcow2").write_bytes(huge)
    iso = bytearray(32768 + 2048 * 20)
    iso[32769:32774] = b"CD001"
    cow = bytearray(4096)
    cow[0:8] = b"OOOM\0\0\0\2"
    cow[1036:1044] = struct.pack(">Q", 5 << 20)
    bochs = bytearray(4096)
    bochs[0:22], bochs[32:39], bochs[48:55], bochs[64:68] = (
        b"Bochs Virtual HD Image", b"Redolog", b"Growing", struct.pack("<I", 0x20000),
    )  # fmt: skip
    for name, content in (
        ("empty", b""), ("r.raw", b"x" * 1000), ("cut.qcow2", b"QFI\xfb\0\0\0\3"),
        ("v4.qcow2", b"QFI\xfb\0\0\0\4" + bytes(200)),
        ("f.iso", bytes(iso)), ("f.cow", bytes(cow)), ("f.bochs", bytes(bochs)), ("x.dmg", bytes(5000)),
        (".hidden", b"x"),
        ("-dash", b"x"), ("sp ace", b"x"), ("<&>", b"x"), ("delete\x7f", b"x"), ("tab\t", b"x"), ("\N{SNOWMAN}", b"x"),
        ("luks2", b"LUKS\xba\xbe\0\2" + bytes(5000)), ("vmdk4", b"KDMV\4\0\0\0" + bytes(2000)),
        ("tail.vpc", bytes(2048) + b"conectix" + bytes(504)), ("bell\7", b"x"),
    ):  # fmt: skip
        (folder / name).write_bytes(content)
    (folder / "sub").mkdir()
    (folder / "lost+found").mkdir()
    ploop = folder / "ploop"
    ploop.mkdir()
    (ploop / "root.hds").write_bytes(b"WithouFreSpacExt" + struct.pack("<I", 2) + bytes(500))
    (ploop / "DiskDescriptor.xml").write_bytes(b"<x/>")
    os.mkfifo(folder / "fifo")
    with socket.socket(socket.AF_UNIX) as server:
        here = os.getcwd()
        os.chdir(folder)
        try:
            server.bind("socket")
        finally:
            os.chdir(here)
    for name, target in (
        ("link", "r.raw"), ("link-out", "/etc/hosts"), ("dangling", "nowhere"), ("loop", "loop"), ("link-dir", "sub"),
        ("link-fifo", "fifo"), ("link-out-dir", "/usr"),
    ):  # fmt: skip
        (folder / name).symlink_to(target)
    with open(folder / "sparse", "wb") as file:
        file.truncate(1 << 33)


def test_same_as_libvirt(tmp_path: Path, pool: Pool, figures: Any) -> None:
    folder = tmp_path / "p"
    all_sorts(folder)
    with Libvirtd(tmp_path / "libvirtd") as daemon:
        for argv in (["pool-define-as", "p", "dir", "--target", str(folder)], ["pool-start", "p"]):
            outcome = daemon.run(argv)
            assert outcome.code == 0, outcome.stderr
        listed = daemon.run(["vol-list", "p"]).stdout.splitlines()[2:]
        theirs = sorted(line[1:].split(f" {folder}/")[0].rstrip() for line in listed if line)
        # virsh writes what can't be printed as \\xNN
        assert [name for name in names(pool) if name.isprintable()] == [name for name in theirs if "\\x" not in name]
        assert len(names(pool)) == len(theirs)
        for volume in pool.volumes():
            if not volume.name.isprintable():
                continue  # virsh shows them in its own way
            real = daemon.run(["vol-dumpxml", "--vol", volume.name, "--pool", "p"])
            assert real.code == 0, (volume.name, real.stderr)
            # reading moves the one, and libvirt has the others as of its own scan
            mask = re.compile(r"<atime>[0-9.]+</atime>")
            assert mask.sub("", volume.xml()) == mask.sub("", real.stdout.rstrip("\n") + "\n"), volume.name
            figures.add("pool dir: volumes described as libvirt does")


def test_libvirt_would_stop(pool: Pool, tmp_path: Path) -> None:
    """What makes a real libvirtd give up the whole pool is left out, or shown as far as it can be told."""
    folder = tmp_path / "p"
    (folder / "null").symlink_to("/dev/null")
    (folder / "short.qcow2").write_bytes(b"QFI\xfb\0\0\0\3" + bytes(60))
    (folder / "good").write_bytes(b"x")
    assert names(pool) == ["good", "short.qcow2"]
    assert pool.volume("short.qcow2").definition.target.format == "qcow2"
    pool.refresh()
    assert pool.state == "running"


def test_nothing_is_opened_but_files(pool: Pool, tmp_path: Path) -> None:
    """Opening a FIFO waits for a writer; opening a device may do anything. Neither happens."""
    folder = tmp_path / "p"
    os.mkfifo(folder / "fifo")
    (folder / "fifo-link").symlink_to("fifo")
    opened: list[str] = []
    real = os.open

    def watched(path: Any, *args: Any, **options: Any) -> int:
        opened.append(str(path))
        return real(path, *args, **options)

    if os.geteuid() == 0:
        os.mknod(folder / "tape", 0o20600, os.makedev(9, 0))
        os.mknod(folder / "disk", 0o60600, os.makedev(7, 250))
    (folder / "a").write_bytes(b"x")
    os.open = watched
    try:
        found = names(pool)
        for name in ("fifo", "fifo-link", "tape"):
            assert pool.backend.volume(pool.live, name) is None
    finally:
        os.open = real
    assert found == (["a", "disk"] if os.geteuid() == 0 else ["a"])
    assert {path for path in opened if path.startswith(f"{folder}/")} == {f"{folder}/a"}


def test_parts_are_hidden(pool: Pool, tmp_path: Path) -> None:
    (tmp_path / "p" / ".cowshed-0-0-0-0.part").write_bytes(b"x")
    (tmp_path / "p" / ".cowshed-mine").write_bytes(b"x")
    assert names(pool) == [".cowshed-mine"]
    with pytest.raises(CowshedError, match="is reserved"):
        pool.create_volume("<volume><name>.cowshed-x.part</name><capacity>1</capacity></volume>")


def test_foreign_names(pool: Pool, tmp_path: Path) -> None:
    """A name that is no UTF-8 is listed, found, and deleted."""
    folder = os.fsencode(tmp_path / "p")
    with open(folder + b"/\xff\xfe", "wb") as file:
        file.write(b"x")
    (name,) = names(pool)
    assert os.fsencode(name) == b"\xff\xfe"
    names(pool)
    pool.volume(name).delete()
    assert names(pool) == []


def test_writing_through_links(pool: Pool, tmp_path: Path) -> None:
    """A link out of the pool can be read, and its name be deleted; what it leads to is never written."""
    outside = tmp_path / "outside"
    outside.write_bytes(b"precious" * 1000)
    (tmp_path / "p" / "out").symlink_to(outside)
    (tmp_path / "p" / "up").symlink_to("../outside")
    (tmp_path / "p" / "inner").write_bytes(b"i" * 1000)
    (tmp_path / "p" / "in").symlink_to("inner")
    source = tmp_path / "source"
    source.write_bytes(b"evil")
    for name in ("out", "up"):
        volume = pool.volume(name)
        for verb in (
            lambda: volume.wipe(), lambda: volume.resize(1 << 20), lambda: volume.upload(source),  # noqa: B023
            lambda: volume.resize(1, shrink=True),  # noqa: B023
        ):  # fmt: skip
            with pytest.raises(CowshedError, match=r"leads out of its pool|can't shrink"):
                verb()
            assert outside.read_bytes() == b"precious" * 1000
        volume.download(tmp_path / "copy")
        assert (tmp_path / "copy").read_bytes() == b"precious" * 1000
        volume.delete()
        assert outside.exists()
    pool.volume("in").upload(source)
    assert (tmp_path / "p" / "inner").read_bytes() == b"evil" + b"i" * 996


def test_building(tmp_path: Path) -> None:
    host = Host(root=str(tmp_path / "root"))
    target = tmp_path / "a" / "b" / "c"
    pool = host.define(f"<pool type='dir'><name>p</name><target><path>{target}</path></target></pool>")
    with pytest.raises(HostCallError, match=f"^cannot open directory '{target}': No such file or directory$"):
        pool.start()
    old = os.umask(0o077)
    try:
        pool.build()
    finally:
        os.umask(old)
    assert target.stat().st_mode & 0o777 == 0o711
    target.chmod(0o700)
    pool.build()
    assert target.stat().st_mode & 0o777 == 0o700, "one that is there is left as it is"
    (target / "x").touch()
    with pytest.raises(HostCallError, match=f"^failed to remove pool '{target}': Directory not empty$"):
        pool.delete()
    (target / "x").unlink()
    pool.delete()
    with pytest.raises(HostCallError, match=f"^failed to remove pool '{target}': No such file or directory$"):
        pool.delete()


def test_figures_are_those_of_the_file_system(pool: Pool, tmp_path: Path) -> None:
    # others write to it meanwhile
    for _ in range(1000):
        before = os.statvfs(tmp_path)
        info = pool.info()
        after = os.statvfs(tmp_path)
        assert info.capacity == after.f_blocks * after.f_frsize
        assert info.available + info.allocation == info.capacity
        if before.f_bfree == after.f_bfree == info.available // after.f_frsize:
            break
    else:
        raise AssertionError((before, info, after))


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
def test_unreadable_files_are_left_out(pool: Pool, tmp_path: Path) -> None:
    (tmp_path / "p" / "secret").touch(0)
    assert names(pool) == []
