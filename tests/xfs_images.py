"""XFS images made by mkfs.xfs and filled by the kernel, and what kernel and cowshed see of them as comparable facts."""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import hashlib
import os
import random
import stat
import struct
import subprocess
from collections.abc import Iterator
from pathlib import Path

import judges
from cowshed.block.graph import open_image
from cowshed.block.node import Node
from cowshed.guest.filesystem import xfs
from cowshed.guest.filesystem.base import FileSystem
from loops import released

Facts = dict[bytes, tuple[object, ...]]


def make(path: Path, size: int, *options: str) -> Path:
    with open(path, "wb") as file:
        file.truncate(size)
    judges.run("mkfs.xfs", "-q", *options, path)
    return path


def copied(image: Path, target: Path) -> Path:
    """A copy that keeps the holes."""
    subprocess.run(["cp", "--sparse=auto", image, target], check=True)
    return target


def flip(image: Path, at: int) -> None:
    """Other bits in one byte."""
    with open(image, "r+b") as file:
        file.seek(at)
        byte = file.read(1)[0]
        file.seek(at)
        file.write(bytes([byte ^ 0xFF]))


@contextlib.contextmanager
def mounted(image: Path, folder: Path, *options: str) -> Iterator[Path]:
    """The image mounted by the kernel; what it refuses (no root, no XFS v4) skips the test loudly."""
    folder.mkdir(exist_ok=True)
    argv = [judges.need("mount"), "-t", "xfs", "-o", ",".join(["loop", *options]), image, folder]
    done = subprocess.run(argv, capture_output=True, text=True)
    if done.returncode:
        judges.absent(f"mounting this XFS, which needs root and the kernel's consent ({done.stderr.strip()})")
    try:
        yield folder
    finally:
        subprocess.run([judges.need("umount"), folder], check=True)
        released(image)


def settle(root: Path) -> None:
    """Removed files are freed: the kernel does that later, unless it is asked for the space of what is not needed."""
    os.statvfs(root)
    handle = os.open(root, os.O_RDONLY)
    try:
        # struct xfs_fs_eofblocks of version 1: all of them
        fcntl.ioctl(handle, FREE_EOFBLOCKS, struct.pack("I", 1).ljust(128, b"\0"))
    finally:
        os.close(handle)
    os.sync()


@contextlib.contextmanager
def opened(image: Path, *, writable: bool = False) -> Iterator[FileSystem]:
    node: Node = open_image(str(image), fmt="raw", writable=writable)
    with node:
        system = xfs.open(node, writable)
        try:
            yield system
        finally:
            system.close()


def kernel_facts(root: Path) -> Facts:
    """Everything that the kernel shows of each file below ``root``, by relative path."""
    facts: Facts = {}
    todo = [b""]
    top = os.fsencode(root)
    while todo:
        relative = todo.pop()
        path = os.path.join(top, relative) if relative else top
        info = os.lstat(path)
        facts[relative] = kernel_fact(path, info)
        if stat.S_ISDIR(info.st_mode):
            todo += [os.path.join(relative, name) for name in os.listdir(path)]
    return facts


def kernel_fact(path: bytes, info: os.stat_result) -> tuple[object, ...]:
    content: object = None
    if stat.S_ISREG(info.st_mode):
        with open(path, "rb") as file:
            content = hashlib.sha1(file.read()).hexdigest()
    elif stat.S_ISLNK(info.st_mode):
        content = os.readlink(path)
    names = os.listxattr(path, follow_symlinks=False)
    xattrs = {os.fsencode(name): os.getxattr(path, name, follow_symlinks=False) for name in names}
    rdev = info.st_rdev if stat.S_ISCHR(info.st_mode) or stat.S_ISBLK(info.st_mode) else 0
    return (
        info.st_ino, info.st_mode, info.st_nlink, info.st_uid, info.st_gid, rdev, info.st_size, info.st_blksize,
        info.st_blocks, info.st_mtime_ns, info.st_ctime_ns, content, xattrs,
    )  # fmt: skip


def our_facts(system: FileSystem) -> Facts:
    facts: Facts = {}
    todo: list[tuple[bytes, int]] = [(b"", system.root)]
    while todo:
        relative, ino = todo.pop()
        info = system.stat(ino)
        content: object = None
        if stat.S_ISREG(info.mode):
            content = hashlib.sha1(system.read(ino, 0, info.size)).hexdigest()
        elif stat.S_ISLNK(info.mode):
            content = system.readlink(ino)
        facts[relative] = (
            info.ino, info.mode, info.nlink, info.uid, info.gid, info.rdev, info.size, info.blksize, info.blocks,
            info.mtime, info.ctime, content, system.xattrs(ino),
        )  # fmt: skip
        if stat.S_ISDIR(info.mode):
            for name, child, kind in system.entries(ino):
                if name in (b".", b".."):
                    continue
                found = system.lookup(ino, name)
                assert found == child, f"{name!r} is {child} in the list and {found} when looked up"
                if kind != "u":
                    letters = {"d": 0o04, "r": 0o10, "l": 0o12, "c": 0o02, "b": 0o06, "f": 0o01, "s": 0o14}
                    assert system.stat(child).mode >> 12 == letters[kind]
                todo.append((os.path.join(relative, name), child))
    return facts


def compare(system: FileSystem, wanted: Facts) -> int:
    """Assert that ours are the kernel's facts; returns their number."""
    found = our_facts(system)
    assert sorted(found) == sorted(wanted)
    for path, facts in wanted.items():
        assert found[path] == facts, path
    return len(wanted)


# ---- filling

FALLOC_KEEP_SIZE, FALLOC_PUNCH_HOLE, FALLOC_UNSHARE = 1, 2, 0x40
_libc = ctypes.CDLL(None, use_errno=True)
FICLONE = 0x40049409
GOINGDOWN = 0x8004587D
FREE_EOFBLOCKS = 0x8080583A


def fallocate(file: int, mode: int, offset: int, length: int) -> None:
    done = _libc.fallocate(file, mode, ctypes.c_long(offset), ctypes.c_long(length))
    if done:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


def fill(root: Path, *, names: int = 2000, seed: int = 1) -> None:
    """Files, directories, attributes and links of every shape below ``root``."""
    chance = random.Random(seed)
    for count in (0, 1, 10, 100, names):
        folder = root / f"dir{count}"
        folder.mkdir()
        first = ""
        for index in range(count):
            name = f"file-{index}-{'x' * chance.randrange(0, 60)}"
            if index % 7 == 3:
                os.symlink("target", folder / name)
            elif index % 5 == 1 and index > 1:
                os.link(folder / first, folder / name)
            else:
                (folder / name).touch()
                first = name
        for index, name in enumerate(sorted(os.listdir(folder))):
            if index % 3 == 1 and count > 10:
                os.unlink(folder / name)
    files = root / "files"
    files.mkdir()
    (files / "empty").touch()
    (files / "small").write_bytes(b"hello\n")
    (files / "block").write_bytes(chance.randbytes(4096))
    (files / "odd").write_bytes(chance.randbytes(123_457))
    (files / "n\xe4me \xff".encode("utf-8", "surrogateescape").decode("utf-8", "replace")).write_bytes(b"x")
    with open(os.fsencode(files) + b"/raw\xff\xfe\x01", "wb") as file:
        file.write(b"name of bytes")
    with open(files / "sparse", "wb") as file:
        for index in range(40):
            file.seek(index * 300_000)
            file.write(chance.randbytes(5000))
        file.truncate(20_000_000)
    with open(files / "far", "wb") as file:
        file.truncate(50_000_000)
        file.write(b"start")
    with open(files / "preallocated", "wb") as file:
        file.write(chance.randbytes(10_000))
        file.flush()
        fallocate(file.fileno(), 0, 0, 1_000_000)
        fallocate(file.fileno(), FALLOC_KEEP_SIZE, 1_000_000, 1_000_000)
        file.seek(500_000)
        file.write(chance.randbytes(20_000))
    with open(files / "fragmented", "wb") as file:
        fallocate(file.fileno(), 0, 0, 6_000_000)
        for index in range(700):
            file.seek(index * 8192)
            file.write(chance.randbytes(4096))
    with open(files / "punched", "wb") as file:
        file.write(chance.randbytes(4_000_000))
        file.flush()
        for index in range(300):
            fallocate(file.fileno(), 3, index * 12288, 4096)
    with contextlib.suppress(OSError), open(files / "cloned", "wb") as copy, open(files / "odd", "rb") as original:
        fcntl.ioctl(copy.fileno(), FICLONE, original.fileno())
        copy.seek(5000)
        copy.write(b"changed")
    links = root / "links"
    links.mkdir()
    for length in (1, 20, 100, 156, 157, 200, 300, 336, 337, 500, 800, 967, 968, 969, 1023):
        os.symlink("t" * length, links / f"link{length}")
    os.link(files / "small", links / "hard")
    devices = root / "devices"
    devices.mkdir()
    os.mknod(devices / "char", stat.S_IFCHR | 0o640, os.makedev(5, 1))
    os.mknod(devices / "block", stat.S_IFBLK | 0o600, os.makedev(259, 70_000))
    os.mkfifo(devices / "fifo", 0o666)
    os.mknod(devices / "socket", stat.S_IFSOCK | 0o755)
    os.chmod(files / "odd", 0o6755)
    os.chown(files / "odd", 1000, 4_000_000_000)
    os.utime(files / "odd", ns=(1_234_567_890_123_456_789, 2_000_000_000_987_654_321))
    os.utime(files / "small", ns=(-1_000_000_001, -5))
    attribute_fill(root / "attributes", chance)


def attribute_fill(folder: Path, chance: random.Random) -> None:
    folder.mkdir()
    for name in ("short", "leaf", "remote", "node", "many", "acl"):
        (folder / name).write_bytes(name.encode())
    os.setxattr(folder / "short", "security.selinux", b"system_u:object_r:etc_t:s0\0")
    os.setxattr(folder / "short", "user.empty", b"")
    os.setxattr(folder / "short", "trusted.x", b"\0\1\2")
    for index in range(10):
        os.setxattr(folder / "leaf", f"user.name{index}", chance.randbytes(200))
    for size in (3000, 5000, 20_000, 65_536):
        os.setxattr(folder / "remote", f"user.big{size}", chance.randbytes(size))
    for index in range(400):
        os.setxattr(folder / "node", f"trusted.attribute-{index:04d}", chance.randbytes(chance.randrange(0, 120)))
    for index in range(3000):
        os.setxattr(folder / "many", f"user.{index}", b"v%d" % index)
    entries = [(1, 7, -1), (2, 6, 1000), (4, 5, -1), (8, 4, 1001), (16, 7, -1), (32, 0, -1)]
    value = struct.pack("<I", 2) + b"".join(struct.pack("<HHI", t, p, i & 0xFFFFFFFF) for t, p, i in entries)
    os.setxattr(folder / "acl", "system.posix_acl_access", value)
    (folder / "dir").mkdir()
    os.setxattr(folder / "dir", "system.posix_acl_default", value)
