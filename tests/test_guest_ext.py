"""ext2, ext3 and ext4 are read as the kernel reads them: every file, attribute and byte, of every kind of layout."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import stat
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import judges
from cowshed.block.filter.record import Log, RecordNode
from cowshed.block.graph import open_image
from cowshed.errors import CorruptError, FeatureError
from cowshed.guest.filesystem import ext
from cowshed.guest.filesystem.ext.filesystem import ExtFileSystem
from loops import released

STATVFS = ("bsize", "frsize", "blocks", "bfree", "bavail", "files", "ffree", "favail", "namemax", "fsid")


# -- helpers, of the other tests of ext as well ------------------------------------------------------------------------


def image(path: Path, size: int, *options: str) -> Path:
    with open(path, "wb") as file:
        file.truncate(size)
    judges.run("mkfs.ext4", "-q", "-F", *options, path)
    return path


@contextlib.contextmanager
def opened(path: Path, *, writable: bool = False, log: Log | None = None) -> Iterator[ExtFileSystem]:
    with open_image(str(path), fmt="raw", writable=writable) as node:
        fs = ext.open(node if log is None else RecordNode(node, log), writable)
        try:
            yield fs
        finally:
            fs.close()


@contextlib.contextmanager
def mounted(path: Path, *options: str) -> Iterator[Path]:
    """IMAGE mounted by the kernel; needs root."""
    mount, umount = judges.need("mount"), judges.need("umount")
    directory = path.with_suffix(".mnt")
    directory.mkdir(exist_ok=True)
    argv = [mount, "-o", ",".join(("loop", "noatime", *options)), str(path), str(directory)]
    done = subprocess.run(argv, capture_output=True, text=True)
    if done.returncode:
        if "must be superuser" in done.stderr or "permission" in done.stderr.lower():
            judges.absent(f"loop mounts, which need root ({done.stderr.strip()})")
        raise AssertionError(done.stderr)
    try:
        yield directory
    finally:
        subprocess.run([umount, directory], check=True)
        released(path)


Tree = dict[bytes, tuple[Any, ...]]


def our_tree(fs: ExtFileSystem) -> Tree:
    found: Tree = {}

    def walk(ino: int, path: bytes) -> None:
        for name, number, kind in fs.entries(ino):
            if name in (b".", b".."):
                continue
            assert fs.lookup(ino, name) == number
            facts = fs.stat(number)
            content: bytes | None = None
            if kind == "r":
                content = fs.read(number, 0, facts.size)
            elif kind == "l":
                content = fs.readlink(number)
            found[path + b"/" + name] = (
                number, facts.mode, facts.nlink, facts.uid, facts.gid, facts.rdev, facts.size, facts.blocks,
                facts.atime, facts.mtime, facts.ctime, content, fs.xattrs(number),
            )  # fmt: skip
            if kind == "d":
                walk(number, path + b"/" + name)

    walk(fs.root, b"")
    return found


def kernel_tree(top: Path) -> Tree:
    found: Tree = {}
    root = os.fsencode(top)
    for directory, folders, files in os.walk(root):
        for name in folders + files:
            path = os.path.join(directory, name)
            facts = os.lstat(path)
            content: bytes | None = None
            if stat.S_ISREG(facts.st_mode):
                content = Path(os.fsdecode(path)).read_bytes()
            elif stat.S_ISLNK(facts.st_mode):
                content = os.readlink(path)
            attributes = {
                os.fsencode(name): os.getxattr(path, name, follow_symlinks=False)
                for name in os.listxattr(path, follow_symlinks=False)
            }
            device = stat.S_ISCHR(facts.st_mode) or stat.S_ISBLK(facts.st_mode)
            found[path[len(root) :]] = (
                facts.st_ino, facts.st_mode, facts.st_nlink, facts.st_uid, facts.st_gid,
                facts.st_rdev if device else 0, facts.st_size, facts.st_blocks, facts.st_atime_ns, facts.st_mtime_ns,
                facts.st_ctime_ns, content, attributes,
            )  # fmt: skip
    return found


def differing(ours: Tree, theirs: Tree) -> list[str]:
    out = []
    for name in sorted(ours.keys() | theirs.keys()):
        if ours.get(name) != theirs.get(name):
            pairs = zip(ours.get(name, ()), theirs.get(name, ()), strict=False)
            out.append(f"{name!r}: " + ", ".join(f"{str(a)[:60]} != {str(b)[:60]}" for a, b in pairs if a != b))
    return out[:5]


def same_as_kernel(path: Path, *options: str) -> Tree:
    """Our tree of an image, after it was compared with the kernel's."""
    with opened(path) as fs:
        ours, usage = our_tree(fs), fs.statvfs()
    with mounted(path, *(options or ("ro",))) as top:
        theirs, kernel = kernel_tree(top), os.statvfs(top)
    assert not differing(ours, theirs)
    for name in STATVFS:
        assert getattr(usage, name) == getattr(kernel, f"f_{name}"), name
    return ours


def clean(path: Path) -> None:
    judges.run("e2fsck", "-fn", path)


def populate(top: Path, names: int) -> None:
    """All kinds of files, attributes and times."""
    for folder in ("a/b/c", "many", "attributes"):
        (top / folder).mkdir(parents=True)
    for number in range(names):
        (top / "many" / f"name-of-a-file-{number}").write_bytes(b"%d" % number)
    for size in (0, 1, 50, 59, 60, 61, 150, 300, 5000, 3_000_000):
        (top / f"file{size}").write_bytes(os.urandom(size))
    for length in (1, 55, 59, 60, 61, 200, 900):
        os.symlink("t" * length, top / f"link{length}")
    os.mknod(top / "character", stat.S_IFCHR | 0o600, os.makedev(5, 1))
    os.mknod(top / "block", stat.S_IFBLK | 0o640, os.makedev(300, 70000))
    os.mkfifo(top / "fifo")
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(str(top / "socket"))
    os.link(top / "file50", top / "hard")
    os.chown(top / "file60", 100000, 70000)
    os.chmod(top / "file60", 0o4755)
    for name, seconds in (("file61", -500_000_000), ("file150", 7_258_118_400)):
        os.utime(top / name, ns=(seconds * 10**9 + 5, seconds * 10**9 + 123_456_789))
    with open(top / "sparse", "wb") as file:
        file.truncate(60 << 20)
        file.seek(40 << 20)
        file.write(b"in the middle")
    with open(top / "fragmented", "wb") as file:
        for number in range(700):
            file.seek(number * 16384)
            file.write(bytes((number % 256,)) * 5000)
    with open(top / "unwritten", "wb") as file, contextlib.suppress(OSError):
        os.posix_fallocate(file.fileno(), 0, 1 << 20)
        os.pwrite(file.fileno(), b"x" * 5000, 300_000)
    for name in (b"a\xff\xfe\x80name", "žluťoučký".encode(), b"x" * 255):
        Path(os.fsdecode(os.fsencode(top) + b"/" + name)).touch()
    os.setxattr(top / "file1", "user.a", b"hello")
    os.setxattr(top / "file1", "user.empty", b"")
    os.setxattr(top / "file1", "trusted.t", b"t" * 300)
    os.setxattr(top / "link1", "security.x", b"label", follow_symlinks=False)
    for number in range(12):
        os.setxattr(top / "attributes", f"user.number{number}", b"z" * number * 5)
    acl = bytes.fromhex("02000000 01000600ffffffff 02000700d2040000 04000400ffffffff 10000700ffffffff 20000400ffffffff")
    os.setxattr(top / "file300", "system.posix_acl_access", acl)
    os.setxattr(top / "a", "system.posix_acl_default", acl)
    with contextlib.suppress(OSError):  # only with ea_inode
        os.setxattr(top / "file5000", "user.huge", os.urandom(20_000))


VARIANTS = {
    "ext2": ("-t", "ext2", "-b", "4096"),
    "ext2-1k": ("-t", "ext2", "-b", "1024"),
    "ext3": ("-t", "ext3", "-b", "4096"),
    "ext3-1k": ("-t", "ext3", "-b", "1024"),
    "ext4": ("-t", "ext4", "-b", "4096"),
    "ext4-1k": ("-t", "ext4", "-b", "1024"),
    "ext4-2k": ("-t", "ext4", "-b", "2048"),
    "no journal": ("-t", "ext4", "-O", "^has_journal"),
    "block maps": ("-t", "ext4", "-O", "^extent,^64bit"),
    "inline": ("-t", "ext4", "-O", "inline_data"),
    "inline, big inodes": ("-t", "ext4", "-O", "inline_data", "-I", "1024"),
    "uninit_bg": ("-t", "ext4", "-O", "^metadata_csum,uninit_bg"),
    "32-bit": ("-t", "ext4", "-O", "^64bit"),
    "no flex_bg": ("-t", "ext4", "-O", "^flex_bg", "-b", "1024"),
    "meta_bg": ("-t", "ext4", "-O", "meta_bg,^resize_inode", "-b", "1024"),
    "ea_inode": ("-t", "ext4", "-O", "ea_inode"),
    "small inodes": ("-t", "ext4", "-I", "128"),
    "bigalloc": ("-t", "ext4", "-O", "bigalloc"),
    "sparse_super2": ("-t", "ext4", "-O", "sparse_super2", "-b", "1024"),
    "orphan_file": ("-t", "ext4", "-O", "orphan_file"),
    "seed": ("-t", "ext4", "-O", "metadata_csum_seed,large_dir,fast_commit"),
}


@pytest.mark.parametrize("name", VARIANTS)
def test_reads_what_the_kernel_shows(name: str, tmp_path: Path) -> None:
    path = image(tmp_path / "disk.img", 80 << 20, *VARIANTS[name])
    with mounted(path) as top:
        populate(top, 1500 if "1k" in name else 300)
    assert len(same_as_kernel(path)) > 300


def test_big_blocks_without_the_kernel(tmp_path: Path) -> None:
    """Blocks of 64 KiB, which this kernel may not mount, judged by what was put there."""
    tree = tmp_path / "tree"
    (tree / "many").mkdir(parents=True)
    for number in range(3000):
        (tree / "many" / f"a-rather-long-name-for-a-file-{number}").write_bytes(b"%d" % number)
    (tree / "big").write_bytes(os.urandom(1_000_000))
    path = image(tmp_path / "disk.img", 600 << 20, "-t", "ext4", "-b", "65536", "-d", str(tree))
    with opened(path) as fs:
        found = our_tree(fs)
    assert found[b"/big"][11] == (tree / "big").read_bytes()
    for number in range(3000):
        assert found[b"/many/a-rather-long-name-for-a-file-%d" % number][11] == b"%d" % number


@pytest.mark.parametrize("options", [("-t", "ext4"), ("-t", "ext3", "-b", "1024"), ("-t", "ext4", "-O", "^64bit")])
def test_dirty_journals_are_replayed(options: tuple[str, ...], tmp_path: Path) -> None:
    """An image copied while it is mounted: what e2fsck's replay shows is what is read, and nothing is written."""
    path = image(tmp_path / "disk.img", 64 << 20, *options)
    copy, judged = tmp_path / "copy.img", tmp_path / "judged.img"
    with mounted(path) as top:
        for number in range(200):
            (top / f"file{number}").write_bytes(os.urandom(3000))
        os.sync()
        for number in range(0, 200, 2):
            (top / f"file{number}").unlink()
        (top / "folder").mkdir()
        for number in range(400):
            with open(top / "folder" / f"new{number}", "wb") as file:
                file.write(os.urandom(100))
        # the journal is written with it, what it is for is not yet
        with open(top / "last", "wb") as file:
            file.write(b"magic\xc0\x3b\x39\x98" * 1000)
            os.fsync(file.fileno())
        shutil.copyfile(path, copy)
    shutil.copyfile(copy, judged)
    before = copy.read_bytes()
    with opened(copy) as fs:
        assert fs.sb.incompat & 4
        assert fs.volume.replayed
        ours = our_tree(fs)
    assert copy.read_bytes() == before
    judges.run("e2fsck", "-fy", judged, ok=(0, 1))
    with mounted(judged, "ro") as top:
        assert not differing(ours, kernel_tree(top))
    # and for writing it is replayed on the disk
    with opened(copy, writable=True) as fs:
        fs.create(2, b"after", 0o100644, 0, 0, 1_800_000_000 * 10**9)
        fs.sync()
    clean(copy)
    assert b"/after" in same_as_kernel(copy)


def test_damaged_superblock(tmp_path: Path) -> None:
    path = image(tmp_path / "disk.img", 64 << 20, "-t", "ext4")
    for damage in (bytes(1024), b"\x05"):
        with open(path, "r+b") as file:
            file.seek(1024)
            file.write(damage)
        with opened(path) as fs:
            assert "its copy at block 8193 is used, run e2fsck" in fs.notes[0]
            assert fs.lookup(2, b"lost+found") == 11
        with pytest.raises(CorruptError, match="copy at block"), opened(path, writable=True):
            pass


@pytest.mark.parametrize(
    ("options", "name"),
    [(("-O", "casefold"), "casefold"), (("-O", "encrypt"), "encrypt"), (("-O", "bigalloc"), "bigalloc"),
     (("-O", "quota"), "quota"), (("-O", "project,quota"), "project"), (("-O", "verity"), "verity"),
     (("-O", "mmp"), "mmp")],
)  # fmt: skip
def test_features_that_cannot_be_kept_up_are_refused_for_writing(
    options: tuple[str, ...], name: str, tmp_path: Path
) -> None:
    path = image(tmp_path / "disk.img", 64 << 20, "-t", "ext4", *options)
    with opened(path) as fs:
        assert fs.lookup(2, b"lost+found") == 11
    with pytest.raises(FeatureError, match=name), opened(path, writable=True):
        pass


def test_external_journal(tmp_path: Path) -> None:
    path = image(tmp_path / "journal.img", 64 << 20, "-O", "journal_dev", "-b", "4096")
    with pytest.raises(FeatureError, match="external journal"), opened(path):
        pass
