"""The content of files is changed: written, cut, grown; inline content goes to blocks and back."""

from __future__ import annotations

import errno

from ..base import GuestError
from . import blockmap, xattr
from .extents import Run
from .inode import APPEND, EXTENTS, IMMUTABLE, INLINE_DATA, Inode
from .mapping import empty
from .superblock import EXTENTS as FEATURE_EXTENTS

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .write import Writer


def drop_inline(writer: Writer, inode: Inode) -> None:
    """Inline data is taken out; the inode is empty and has blocks from now on."""
    entries = xattr.in_inode(inode)
    writer.attributes.put_inode(inode, [e for e in entries if (e.index, e.name) != (7, b"data")])
    uses = bool(writer.sb.incompat & FEATURE_EXTENTS)
    inode.flags = inode.flags & ~INLINE_DATA | (EXTENTS if uses else 0)
    inode.block = empty(uses)
    inode.size = 0
    writer.mappings.pop(inode.number, None)
    writer.touch(inode)


def _set_inline(writer: Writer, inode: Inode, content: bytes) -> bool:
    """Keep a short content inline; False when it does not fit into i_block."""
    if len(content) > 60:
        return False
    entries = xattr.in_inode(inode)
    for entry in entries:
        if (entry.index, entry.name) == (7, b"data"):
            entry.value = b""
            entry.size = 0
    writer.attributes.put_inode(inode, entries)
    inode.block = content.ljust(60, b"\0")
    inode.size = len(content)
    writer.touch(inode)
    return True


def _unfold(writer: Writer, inode: Inode) -> None:
    """Inline content goes to blocks."""
    content = writer.fs.content(inode, 0, inode.size)
    drop_inline(writer, inode)
    inode.size = len(content)
    store_content(writer, inode, content)


def _limit(writer: Writer, inode: Inode) -> int:
    """Bytes that a file can have."""
    if inode.flags & EXTENTS:
        return ((1 << 32) - 1) * writer.size
    return min(blockmap.limit(writer.size) * writer.size, 1 << 41)


def store_content(writer: Writer, inode: Inode, data: bytes | memoryview, offset: int = 0) -> None:
    """Map a range and keep its data; i_size is the caller's business."""
    view = memoryview(data).cast("B")
    size = writer.size
    first, end = offset // size, -(-(offset + len(view)) // size)
    mapping = writer.mapping(inode)
    at = first
    for run in [*mapping.within(first, end), None]:
        start = end if run is None else max(run.first, first)
        while at < start:
            goal = mapping.goal(at)
            place, count = writer.allocator.allocate(writer.goal(inode) if goal is None else goal, start - at)
            mapping.insert(Run(at, count, place))
            inode.sectors += count * (size // 512)
            _pad(writer, at, count, place, offset, offset + len(view))
            at += count
        if run is None:
            break
        stop = min(run.first + run.count, end)
        if run.unwritten:
            for place, count in mapping.remove(at, stop):
                mapping.insert(Run(at, count, place))
                _pad(writer, at, count, place, offset, offset + len(view))
                at += count
        at = stop
    for begin, count, where in writer.fs.extents(inode.number, offset, len(view)):
        assert where is not None
        writer.spool.write(where, view[begin - offset : begin - offset + count])
    writer.touch(inode)


def _pad(writer: Writer, first: int, count: int, place: int, begin: int, end: int) -> None:
    """Zeroes around the data in blocks that are new."""
    size = writer.size
    low, high = first * size, (first + count) * size
    if low < begin:
        writer.spool.write(place * size, bytes(min(begin, high) - low))
    if end < high:
        start = max(end, low)
        writer.spool.write(place * size + start - low, bytes(high - start))


def _clean_tail(writer: Writer, inode: Inode) -> None:
    """What lies behind the end of a file in its last block is zeroes before the file grows over it."""
    within = inode.size % writer.size
    if not within:
        return
    place = writer.fs.place(inode, inode.size // writer.size)
    if place is None:
        return
    tail = bytearray(writer.size - within)
    writer.fs.volume.read_into(place * writer.size + within, memoryview(tail))
    if any(tail):
        writer.spool.write(place * writer.size + within, bytes(len(tail)))


def cut(writer: Writer, inode: Inode, size: int) -> None:
    """Give back the blocks behind ``size`` bytes."""
    for place, count in writer.mapping(inode).remove(-(-size // writer.size), 1 << 62):
        writer.allocator.free(place, count)
        inode.sectors -= count * (writer.size // 512)
    writer.touch(inode)


def _file(writer: Writer, number: int) -> Inode:
    inode = writer.fs.inodes.live(number)
    if inode.is_dir:
        raise GuestError(errno.EISDIR)
    if not inode.is_file:
        raise GuestError(errno.EINVAL)
    if inode.flags & (IMMUTABLE | APPEND):
        raise GuestError(errno.EPERM)
    return inode


def write(writer: Writer, number: int, offset: int, data: bytes | memoryview, now: int) -> None:
    inode = _file(writer, number)
    length = memoryview(data).nbytes
    if not length:
        return
    end = offset + length
    if end > _limit(writer, inode):
        raise GuestError(errno.EFBIG)
    if inode.flags & INLINE_DATA:
        old = writer.fs.content(inode, 0, inode.size)
        if end <= 60:
            _set_inline(writer, inode, old[:offset].ljust(offset, b"\0") + bytes(data) + old[end:])
            writer.modified(inode, now)
            return
        _unfold(writer, inode)
    if end > inode.size:
        _clean_tail(writer, inode)
    store_content(writer, inode, data, offset)
    inode.size = max(inode.size, end)
    writer.modified(inode, now)


def truncate(writer: Writer, number: int, size: int, now: int) -> None:
    inode = _file(writer, number)
    if size < 0:
        raise GuestError(errno.EINVAL)
    if size > _limit(writer, inode):
        raise GuestError(errno.EFBIG)
    if inode.flags & INLINE_DATA:
        content = writer.fs.content(inode, 0, inode.size)[:size]
        if size <= 60 and _set_inline(writer, inode, content.ljust(size, b"\0")):
            writer.modified(inode, now)
            return
        _unfold(writer, inode)
    if size < inode.size:
        cut(writer, inode, size)
        inode.size = size
        _clean_tail(writer, inode)
    elif size > inode.size:
        _clean_tail(writer, inode)
        inode.size = size
    writer.modified(inode, now)
