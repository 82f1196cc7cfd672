"""L2 tables: what their entries mean, and how a slice of them splits into runs of one kind.

Specification: qcow2.txt, "Cluster mapping" and "Extended L2 entries".
"""

from __future__ import annotations

from array import array

from ...node import COMPRESSED, DATA, HOLE, ZERO

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

COPIED = 1 << 63
COMPRESSED_FLAG = 1 << 62
ZERO_FLAG = 1
OFFSET_MASK = 0x00FFFFFFFFFFFE00
L1_OFFSET_MASK = 0x00FFFFFFFFFFFE00

SUBCLUSTERS = 32
ALL_ALLOCATED = 0xFFFFFFFF
ALL_ZERO = 0xFFFFFFFF00000000


class L2Table:
    """One L2 table in memory: ``entries`` in host byte order (two items an entry when extended), at ``offset``."""

    __slots__ = ("dirty", "entries", "offset")

    def __init__(self, offset: int, entries: array[int], dirty: bool = False) -> None:
        self.offset = offset
        self.entries = entries
        self.dirty = dirty


def runs(entries: array[int], cluster_size: int, data_file: bool) -> Iterator[tuple[int, int, int, int]]:
    """Split standard entries into runs ``(index, count, kind, host_offset)``.

    ``host_offset`` is -1 for HOLE, plain ZERO and COMPRESSED runs. Host offsets are not checked here.
    """
    count = len(entries)
    if not any(entries):
        if count:
            yield 0, count, HOLE, -1
        return
    start = 0
    while start < count:
        entry = entries[start]
        stop = start + 1
        if entry & COMPRESSED_FLAG:
            while stop < count and entries[stop] & COMPRESSED_FLAG:
                stop += 1
            yield start, stop - start, COMPRESSED, -1
        else:
            host = entry & OFFSET_MASK
            if host or (data_file and entry & COPIED and not entry & ZERO_FLAG):
                # one number to compare with: flags and offset of the neighbour must follow on
                following = entry + cluster_size
                while stop < count and entries[stop] == following:
                    following += cluster_size
                    stop += 1
                yield start, stop - start, ZERO if entry & ZERO_FLAG else DATA, host
            else:
                zero = entry & ZERO_FLAG
                if count - start > 16 and entries[start + 15] == entry:
                    # long runs are mostly one value: let the array count instead of looking at each
                    for step in (4096, 256, 16):
                        while stop + step <= count and entries[stop : stop + step].count(entry) == step:
                            stop += step
                while stop < count:
                    other = entries[stop]
                    if other & (OFFSET_MASK | COMPRESSED_FLAG) or other & ZERO_FLAG != zero:
                        break
                    if data_file and other & COPIED and not other & ZERO_FLAG:
                        break
                    stop += 1
                yield start, stop - start, ZERO if zero else HOLE, -1
        start = stop


def runs_of_table(
    raw: bytes, cluster_size: int, data_file: bool, words: int = 1
) -> Iterator[tuple[int, int, int, int]]:
    """The same from a table's bytes as they are on disk; vectorised, for walks over very many tables.

    ``words``: 64-bit words an entry; only the first of each is looked at.
    """
    from ....arrays import load_numpy

    load_numpy()
    import numpy

    entries = numpy.frombuffer(raw, dtype=">u8")[::words].astype("=u8")
    previous, following = entries[:-1], entries[1:]
    step = following - previous  # wraps; only equality matters
    joined = (step == cluster_size) & ((previous & (OFFSET_MASK | COMPRESSED_FLAG)) != 0)
    joined &= (previous & COMPRESSED_FLAG) == 0
    joined |= (step == 0) & (previous <= ZERO_FLAG)
    breaks = numpy.flatnonzero(~joined)
    if len(breaks) > len(entries) // 8:
        yield from runs(array("Q", entries.tobytes()), cluster_size, data_file)
        return
    starts = [0, *(breaks + 1).tolist()]
    starts.append(len(entries))
    for index in range(len(starts) - 1):
        start = starts[index]
        entry = int(entries[start])
        count = starts[index + 1] - start
        if entry & COMPRESSED_FLAG:
            yield start, count, COMPRESSED, -1
            continue
        host = entry & OFFSET_MASK
        if host or (data_file and entry & COPIED and not entry & ZERO_FLAG):
            yield start, count, ZERO if entry & ZERO_FLAG else DATA, host
        else:
            yield start, count, ZERO if entry & ZERO_FLAG else HOLE, -1


def subcluster_runs(entry: int, bitmap: int, data_file: bool) -> Iterator[tuple[int, int, int, int]]:
    """Split one extended entry into runs of subclusters ``(first, count, kind, host_offset of the cluster)``.

    A cluster that is allocated for other subclusters has its host offset in a HOLE too.

    Raises ValueError when a subcluster is both allocated and zero, or allocated without a host cluster.
    """
    if entry & COMPRESSED_FLAG:
        yield 0, SUBCLUSTERS, COMPRESSED, -1
        return
    host = entry & OFFSET_MASK
    has_host = bool(host) or (data_file and bool(entry & COPIED))
    allocated, zero = bitmap & 0xFFFFFFFF, bitmap >> 32
    if allocated & zero or (allocated and not has_host):
        raise ValueError("invalid subcluster bitmap")
    where = host if has_host else -1
    if allocated == ALL_ALLOCATED:
        yield 0, SUBCLUSTERS, DATA, where
        return
    if bitmap == ALL_ZERO:
        yield 0, SUBCLUSTERS, ZERO, where
        return
    if bitmap == 0:
        yield 0, SUBCLUSTERS, HOLE, where
        return
    start = 0
    while start < SUBCLUSTERS:
        kind = DATA if allocated >> start & 1 else ZERO if zero >> start & 1 else HOLE
        stop = start + 1
        while stop < SUBCLUSTERS:
            other = DATA if allocated >> stop & 1 else ZERO if zero >> stop & 1 else HOLE
            if other != kind:
                break
            stop += 1
        yield start, stop - start, kind, where
        start = stop


def bits(first: int, count: int) -> int:
    """``count`` one bits from bit ``first``."""
    return ((1 << count) - 1) << first
