"""The exception store of a classic snapshot: which chunks of the origin were changed since, and where they are.

Linux' persistent store (dm-snap-persistent): chunk 0 holds magic, validity, version and chunk size; then areas of one
chunk of exceptions (old chunk, new chunk), each followed by the chunks it speaks of; new chunk 0 ends the table.
"""

from __future__ import annotations

import struct
import sys
from array import array
from bisect import bisect_right

from ...errors import CorruptError, FeatureError
from .mapping import mapping

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from .model import LogicalVolume

_HEADER = struct.Struct("<IIII")
_MAGIC = 0x70416E53
_VERSION = 1
_SECTOR = 512
#: bytes of a chunk: lvm2 allows 4 KiB to 512 KiB; the kernel any power of two
_CHUNKS = (_SECTOR, 16 << 20)
#: runs of neighbouring exceptions that are held in memory
MAX_RUNS = 1 << 23


class Exceptions:
    """Runs of changed chunks in order: ``old[i]`` and the ``count[i]`` chunks after it lie at ``new[i]`` of the
    store. ``chunk``: bytes."""

    __slots__ = ("chunk", "count", "new", "old")

    def __init__(self, chunk: int) -> None:
        self.chunk = chunk
        self.old = array("Q")
        self.new = array("Q")
        self.count = array("Q")

    def runs(self, offset: int, length: int) -> Iterator[tuple[int, int, int]]:
        """(offset, length, offset in the store or -1 for the origin's bytes) over a range of the snapshot."""
        end = offset + length
        chunk = self.chunk
        at = max(0, bisect_right(self.old, offset // chunk) - 1)
        while offset < end:
            while at < len(self.old) and (self.old[at] + self.count[at]) * chunk <= offset:
                at += 1
            if at == len(self.old) or self.old[at] * chunk >= end:
                yield offset, end - offset, -1
                return
            start = self.old[at] * chunk
            if start > offset:
                yield offset, start - offset, -1
                offset = start
            stop = min(end, (self.old[at] + self.count[at]) * chunk)
            yield offset, stop - offset, self.new[at] * chunk + offset - start
            offset = stop


def read_store(store: LogicalVolume, offset: int, length: int) -> bytes:
    """Bytes of a volume's own extents."""
    parts = []
    for _, count, pv, where in mapping(store, offset, length):
        node = pv.node if pv is not None else None
        parts.append(bytes(count) if node is None else node.read(where, count))
    return b"".join(parts)


def read_exceptions(store: LogicalVolume) -> Exceptions:
    """The table in ``store``. Raises CorruptError when it makes no sense or the snapshot is not valid any more."""

    def bad(why: str, field: str, value: object) -> CorruptError:
        return CorruptError(
            f"The snapshot '{store.group.name}/{store.name}': {why}", layer="lvm2", field=field, value=value
        )

    magic, valid, version, sectors = _HEADER.unpack(read_store(store, 0, _HEADER.size))
    segment = store.snapshot
    if magic == 0:  # never active yet: nothing has changed
        return Exceptions(segment.chunk_size if segment is not None and segment.chunk_size else 4096)
    if magic != _MAGIC:
        raise bad("no exception store", "magic", magic)
    if version != _VERSION:
        raise bad("unknown version of the exception store", "version", version)
    if not valid:
        raise bad("its store ran full, it is not valid any more", "valid", valid)
    chunk = sectors * _SECTOR
    if chunk & (chunk - 1) or not _CHUNKS[0] <= chunk <= _CHUNKS[1]:
        raise bad("the chunk size makes no sense", "chunk_size", sectors)
    found = Exceptions(chunk)
    chunks = store.size // chunk
    per_area = chunk // 16
    pieces: list[tuple[int, int, int]] = []
    run = (0, 0, 0)  # old, new, count
    area = 1
    ended = False
    while not ended and area < chunks:
        table = array("Q", read_store(store, area * chunk, chunk))
        if sys.byteorder == "big":
            table.byteswap()
        for at in range(0, per_area * 2, 2):
            old, new = table[at], table[at + 1]
            if new == 0:
                ended = True
                break
            if new >= chunks:
                raise bad("an exception lies outside the store", "new_chunk", new)
            if run[2] and old == run[0] + run[2] and new == run[1] + run[2]:
                run = (run[0], run[1], run[2] + 1)
                continue
            if run[2]:
                pieces.append(run)
                if len(pieces) > MAX_RUNS:
                    raise FeatureError(f"The snapshot '{store.name}' has too many exceptions", layer="lvm2")
            run = (old, new, 1)
        area += per_area + 1
    if run[2]:
        pieces.append(run)
    pieces.sort()
    end = 0
    for old, new, count in pieces:
        if old < end:
            raise bad("a chunk has two exceptions", "old_chunk", old)
        if old + count > 1 << 55:
            raise bad("an exception lies outside the disk", "old_chunk", old)
        end = old + count
        found.old.append(old)
        found.new.append(new)
        found.count.append(count)
    return found
