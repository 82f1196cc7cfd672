"""File systems by inodes and blocks, without paths: what a device holds, whoever has which inode, raw blocks."""

from __future__ import annotations

import errno
import stat as _stat

from ..errors import CorruptError
from .erase import free_runs
from .filesystem.base import GuestError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from .filesystem.base import FileSystem, Stat

_STEP = 4 << 20
#: directories below directories
_DEEPEST = 4096


class Found:
    """An entry: ``name`` from the root without a slash before it ("." for the root), ``stat``, ``target`` of a link."""

    __slots__ = ("name", "stat", "target")

    def __init__(self, name: bytes, stat: Stat, target: bytes) -> None:
        self.name = name
        self.stat = stat
        self.target = target


def walk(fs: FileSystem) -> Iterator[Found]:
    """All that the directories of a file system name, in their order, each directory before what is in it.

    Raises CorruptError when a directory comes twice.
    """
    root = fs.stat(fs.root)
    yield Found(b".", root, b"")
    seen = {fs.root}
    stack = [(b"", fs.entries(fs.root))]
    while stack:
        above, listing = stack[-1]
        entry = next(listing, None)
        if entry is None:
            stack.pop()
            continue
        name, ino, _ = entry
        if name in (b".", b".."):
            continue
        stat = fs.stat(ino)
        path = above + name
        yield Found(path, stat, fs.readlink(ino) if _stat.S_ISLNK(stat.mode) else b"")
        if not _stat.S_ISDIR(stat.mode):
            continue
        if ino in seen or len(stack) > _DEEPEST:
            raise CorruptError(
                f"the directory with the inode {ino} appears more than once in its file system",
                layer=fs.kind, field="inode", value=ino,
            )  # fmt: skip
        seen.add(ino)
        stack.append((path + b"/", fs.entries(ino)))


def content(fs: FileSystem, ino: int) -> Iterator[bytes]:
    """The bytes of an inode, a directory's blocks too. Raises GuestError ENOENT, EINVAL for what has none."""
    if ino <= 0:
        raise GuestError(errno.ENOENT)
    stat = fs.stat(ino)
    if _stat.S_ISREG(stat.mode):
        for at in range(0, stat.size, _STEP):
            yield fs.read(ino, at, min(_STEP, stat.size - at))
    elif _stat.S_ISLNK(stat.mode):
        yield fs.readlink(ino)
    elif _stat.S_ISDIR(stat.mode):
        for _, count, place in fs.extents(ino, 0, stat.size):
            for at in range(0, count, _STEP):
                part = min(_STEP, count - at)
                yield bytes(part) if place is None else fs.node.read(place + at, part)
    else:
        raise GuestError(errno.EINVAL)


def blocks(fs: FileSystem, start: int, stop: int, *, unallocated: bool = False) -> Iterator[bytes]:
    """The bytes of blocks ``start`` to ``stop``, that one too, ``unallocated`` those alone that nobody uses.

    Raises GuestError EINVAL for blocks beyond the file system.
    """
    size = fs.block_size
    end = min((stop + 1) * size, fs.node.size)
    if start < 0 or start * size >= fs.node.size:
        raise GuestError(errno.EINVAL)
    ranges: Iterator[tuple[int, int]] = iter([(start * size, end - start * size)])
    if unallocated:
        ranges = (
            (max(at, start * size), min(at + count, end) - max(at, start * size))
            for at, count in free_runs(fs)
            if at < end and at + count > start * size
        )
    for first, count in ranges:
        for at in range(first, first + count, _STEP):
            yield fs.node.read(at, min(_STEP, first + count - at))
