"""What is free is given back, what is there is overwritten: trimming, discarding, scrubbing."""

from __future__ import annotations

import errno
import os
import stat as _stat

from ..errors import HostError
from .filesystem.base import GuestError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from ..block.node import Node
    from .filesystem.base import FileSystem
    from .tree import Tree

_STEP = 4 << 20
#: the mark that scrub(1) leaves at the begin of what it has been over
SIGNATURE = b"\1\2\3SCRUBBED!\0"


# ---- free space


def free_runs(fs: FileSystem) -> Iterator[tuple[int, int]]:
    """(offset, length) in bytes of the device that a file system does not use, in order.

    What is to be written must have been. GuestError EOPNOTSUPP for kinds whose free space is not read here.
    """
    if fs.kind in ("ext2", "ext3", "ext4"):
        from .filesystem.ext.filesystem import ExtFileSystem
        from .filesystem.ext.zero import free_runs as runs

        assert isinstance(fs, ExtFileSystem)
        size = fs.block_size
        return ((first * size, count * size) for first, count in runs(fs))
    if fs.kind == "vfat":
        return _fat_runs(fs)
    raise GuestError(errno.EOPNOTSUPP)


def _fat_runs(fs: FileSystem) -> Iterator[tuple[int, int]]:
    from .filesystem.fat.filesystem import FatFileSystem
    from .filesystem.fat.table import PAGE

    assert isinstance(fs, FatFileSystem)
    table = fs.table
    start = count = 0
    for number in range(-(-table.limit // PAGE)):
        page = table.page(number)
        for index in range(2 if not number else 0, min(PAGE, table.limit - number * PAGE)):
            if not page[index]:
                if not count:
                    start = number * PAGE + index
                count += 1
            elif count:
                yield fs.boot.cluster_at(start), count * fs.boot.cluster_size
                count = 0
    if count:
        yield fs.boot.cluster_at(start), count * fs.boot.cluster_size


def trim(fs: FileSystem, start: int = 0, length: int | None = None, least: int = 0) -> int:
    """Discard what is free within a range of the device, in pieces of ``least`` bytes or more; returns the bytes.

    Raises GuestError EOPNOTSUPP, EROFS, CorruptError when the map of what is free is damaged.
    """
    if not fs.writable:
        raise GuestError(errno.EROFS)
    fs.sync()
    if fs.kind in ("ext2", "ext3", "ext4"):
        from .filesystem.ext.commit import settle_replay
        from .filesystem.ext.filesystem import ExtFileSystem

        assert isinstance(fs, ExtFileSystem)
        # what a journal that is only replayed in memory has freed is in use on the disk
        settle_replay(fs)
    node = fs.node
    end = node.size if length is None else min(node.size, start + length)
    total = 0
    # damage is found before anything is given away
    runs = list(free_runs(fs))
    for offset, count in runs:
        first, last = max(offset, start), min(offset + count, end)
        if last - first >= max(1, least):
            node.discard(first, last - first)
            total += last - first
    node.flush()
    return total


# ---- scrubbing


def scrub(
    ranges: list[tuple[int, int]],
    write: Callable[[int, bytes], object],
    read: Callable[[int, int], bytes],
    flush: Callable[[], object],
) -> None:
    """The passes of NNSA NAP-14.1-C over (offset, length), each on the disk before the next: random, random, zeroes,
    which are read back. The mark at the begin tells that it was done. Raises HostError when zeroes don't come back."""
    steps = [
        (at, min(_STEP, start + length - at)) for start, length in ranges for at in range(start, start + length, _STEP)
    ]
    for random in (True, True, False):
        for at, count in steps:
            write(at, os.urandom(count) if random else bytes(count))
        flush()
    for at, count in steps:
        if read(at, count).count(0) != count:
            raise HostError("what was written is not what is read", errno=errno.EIO)
    if steps and not steps[0][0] and steps[0][1] >= 512:
        write(0, SIGNATURE)
        flush()


def scrub_device(node: Node) -> None:
    """Overwrite a device. Raises ReadOnlyError, HostError."""
    scrub([(0, node.size)], node.write, node.read, node.flush)


def scrub_file(tree: Tree, path: bytes) -> None:
    """Overwrite the blocks of a regular file where they are, to the end of the last one, and remove it.

    Each pass is brought to the disk, so this is no change that could be forgotten as a whole. Raises GuestError.
    """
    import time

    place = tree.resolve(path)
    if not _stat.S_ISREG(place.stat().mode):
        raise GuestError(errno.EINVAL, path.decode("utf-8", "surrogateescape"))
    fs = tree.writing(place, path)
    ino = place.number
    stat = place.stat()
    size = -(-stat.size // fs.block_size) * fs.block_size
    # holes hold nothing, and filling them would fill the disk; what has no place at all lies in the inode
    ranges = [(at, count) for at, count, there in fs.extents(ino, 0, stat.size) if there is not None]
    if ranges and sum(ranges[-1]) == stat.size:
        ranges[-1] = (ranges[-1][0], size - ranges[-1][0])
    if not ranges and stat.blocks == 0 and stat.size <= fs.block_size:
        ranges = [(0, stat.size)]

    def write(offset: int, data: bytes) -> None:
        tree.writing(place, path)
        fs.write(ino, offset, data, time.time_ns())
        if offset % (_STEP * 16) == 0 and offset:
            tree.sync()

    scrub(ranges, write, lambda offset, length: fs.read(ino, offset, length), tree.sync)
    tree.unlink(path)


def scrub_free(tree: Tree, path: bytes) -> None:
    """Fill a new directory with files until there is no more room, scrub them, and remove all of it again.

    Raises GuestError EEXIST, and what scrubbing a file raises.
    """
    tree.mkdir(path, 0o755)
    tree.sync()
    made: list[bytes] = []
    try:
        # big files first, then what is left by ever smaller ones
        size = 1 << 30
        least = tree.directory(path).mount.fs.block_size
        while size >= least:
            name = path.rstrip(b"/") + b"/scrub.%03d" % len(made)
            made.append(name)
            if not _fill(tree, name, size):
                size //= 2
        for name in list(made):
            if tree.exists(name):
                scrub_file(tree, name)
    finally:
        for name in made:
            if tree.exists(name):
                tree.unlink(name)
        tree.rmdir(path)
        tree.sync()


def _fill(tree: Tree, path: bytes, size: int) -> bool:
    """A file of that size; False when there is no room for it, with as much of it as there was."""
    try:
        for at in range(0, size, _STEP):
            tree.write(path, [os.urandom(min(_STEP, size - at))], append=True)
            if at % (_STEP * 16) == 0:
                tree.sync()
        tree.sync()
    except GuestError as error:
        if error.errno != errno.ENOSPC:
            raise
        tree.discard()
        return False
    return True
