"""Counting what refers to each host cluster: the walk of ``check`` over everything that an image's metadata names.

Small images are walked in plain Python. Big ones go through ``census_bulk`` (numpy), which hands every table with
something odd in it back to the walk here, so that findings are told in the same words and order.
"""

from __future__ import annotations

import sys
from array import array

from ....errors import CowshedError, HostError
from .l2 import ALL_ZERO, COMPRESSED_FLAG, COPIED, L1_OFFSET_MASK, OFFSET_MASK, ZERO_FLAG

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from ....progress import Progress
    from ...facts import CheckResult
    from .census_bulk import Bulk
    from .node import Qcow2Map

_SWAP = sys.byteorder == "little"

#: bits that must be zero in L1 entries and in the entries of standard clusters
L1_RESERVED = 0x7F000000000001FF
L2_RESERVED = 0x3F000000000001FE

#: lines told at most; an image that is broken all over must not fill the memory with words
MESSAGES = 1_000_000

#: L2 entries, and host clusters, from which on numpy (0.1 s to load) pays
BULK_ENTRIES = 400_000
BULK_CLUSTERS = 2_000_000

_TYPECODES = {8: "B", 16: "H", 32: "I", 64: "Q"}


class Aborted(Exception):
    """The check can't go on; ``error`` says why."""

    def __init__(self, error: CowshedError) -> None:
        super().__init__(str(error))
        self.error = error


def tell(result: CheckResult, text: str, stream: str = "err") -> None:
    """Add a line to the result, unless there are far too many already."""
    if len(result.messages) < MESSAGES:
        result.tell(text, stream)
    elif len(result.messages) == MESSAGES:
        result.tell(f"(more than {MESSAGES} lines; the rest is not told)", stream)


class Census:
    """One walk. ``counts[cluster]``: the references found; ``clusters``: how many clusters are compared afterwards.

    ``repair``: zero entries with an impossible host offset lose that offset at once (one sector is written).
    ``end``: bytes that the file will have at least, once what is to be written is there.
    Findings go to ``result``, its counts of allocated, fragmented and compressed clusters too.
    """

    def __init__(
        self, image: Qcow2Map, result: CheckResult, *, repair: bool = False, progress: Progress, end: int = 0
    ) -> None:
        self.image = image
        self.result = result
        self.repair = repair
        self.progress = progress
        self.file = image.file
        self.shift = image.cluster_bits
        self.size = image.cluster_size
        # whole sectors, as the field's tool sees files
        self.file_size = max(end, (image.file.size + 511) // 512 * 512)
        self.clusters = (self.file_size + self.size - 1) >> self.shift
        self.bits = image.header.refcount_bits
        self.maximum = (1 << self.bits) - 1
        self.changed = False
        #: asked before an L2 table is written: raises Aborted, telling a text, where that is no L2 table alone
        self.guard: Callable[[int, str], None] | None = None
        #: a file longer than this would have room for something that is behind its end now
        self.beyond = 1 << 64
        #: something begins inside the file and ends behind it: its clusters look unused, but are not
        self.cut = False
        self.bulk: Bulk | None = None
        # every snapshot has tables of its own to walk
        tables = sum(1 for entry in image.l1 if entry & L1_OFFSET_MASK)
        entries = tables * image.l2_entries * (1 + min(image.header.nb_snapshots, 65536))
        # references reach one cluster past the end of the file at most
        room = self.clusters + 4
        self.counts: Any
        if entries > BULK_ENTRIES or self.clusters > BULK_CLUSTERS:
            from .census_bulk import Bulk

            self.bulk = Bulk(self, room)
            self.counts = self.bulk.counts
        else:
            code = _TYPECODES.get(self.bits, "B")
            self.counts = array(code, bytes(room * array(code).itemsize))

    # -- counting -------------------------------------------------------------------------------------------------

    def region(self, offset: int, length: int) -> None:
        """A reference to every cluster of [offset, offset+length)."""
        if length <= 0:
            return
        if offset + length - self.file_size >= self.size:
            tell(
                self.result,
                "ERROR: counting reference for region exceeding the end of the file by one cluster or more: "
                f"offset {offset:#x} size {length:#x}",
            )
            self.result.corruptions += 1
            self.beyond = min(self.beyond, offset + length - self.size)
            self.cut |= offset < self.file_size
            return
        first = offset >> self.shift
        self.add(first, ((offset + length - 1) >> self.shift) - first + 1)

    def add(self, first: int, count: int) -> None:
        """One reference more for ``count`` clusters from ``first``."""
        end = first + count
        if end > self.clusters:
            self.clusters = end
            if end > len(self.counts):
                self.grow(end)
        counts = self.counts
        if self.bulk is not None:
            if self.bulk.add_run(first, count, 1):
                return
        else:
            piece = counts[first:end]
            if piece.count(0) == count:
                counts[first:end] = array(piece.typecode, [1]) * count
                return
        for cluster in range(first, end):
            value = int(counts[cluster])
            if value >= self.maximum:
                tell(
                    self.result,
                    f"ERROR: overflow cluster offset=0x{cluster << self.shift:x}\n"
                    "Use qemu-img amend to increase the refcount entry width or qemu-img convert to create a clean "
                    "copy if the image cannot be opened for writing",
                )
                self.result.corruptions += 1
                continue
            counts[cluster] = value + 1

    def grow(self, clusters: int) -> None:
        """Make room for counts of more clusters. Raises HostError when there is no memory for them."""
        more = clusters + 4 - len(self.counts)
        if self.bulk is not None:
            self.counts = self.bulk.grow(clusters + 4)
            return
        if more * self.counts.itemsize > 1 << 28:
            raise no_memory(self.image)
        self.counts.frombytes(bytes(more * self.counts.itemsize))

    # -- the walk -------------------------------------------------------------------------------------------------

    def walk(self) -> None:
        """Count everything but the refcount structures (those are ``check``'s). Raises Aborted."""
        image, header, result = self.image, self.image.header, self.result
        result.total_clusters = (image.size + self.size - 1) >> self.shift
        self.region(0, self.size)
        active = self.read_l1(header.l1_table_offset, header.l1_size)
        self.walk_l1(active, True)

    def read_l1(self, offset: int, entries: int) -> array[int]:
        """Count an L1 table's own clusters and read it."""
        self.region(offset, entries * 8)
        try:
            return self.image.read_table(offset, entries)
        except CowshedError as error:
            tell(self.result, "ERROR: I/O error in check_refcounts_l1")
            self.result.check_errors += 1
            raise Aborted(error) from error

    def walk_l1(self, l1: array[int], active: bool) -> None:
        """Count what an L1 table reaches. Fragmentation is looked at for the ``active`` one only."""
        if self.bulk is not None:
            self.bulk.walk_l1(l1, active)
            return
        self.progress.start(max(1, len(l1)))
        for index, entry in enumerate(l1):
            if entry:
                self.l1_entry(entry, active)
                self.progress.at(index + 1)

    def l1_entry(self, entry: int, active: bool) -> None:
        result = self.result
        if entry & L1_RESERVED:
            tell(result, f"ERROR found L1 entry with reserved bits set: {entry:x}")
            result.corruptions += 1
        offset = entry & L1_OFFSET_MASK
        self.region(offset, self.size)
        if offset & (self.size - 1):
            tell(result, f"ERROR l2_offset={offset:x}: Table is not cluster aligned; L1 entry corrupted")
            result.corruptions += 1
        self.l2_table(offset, self.read_l2(offset), active)

    def read_l2(self, offset: int) -> array[int]:
        if offset >= self.file_size:
            return array("Q")
        try:
            return self.image.read_table(offset, self.size // 8)
        except CowshedError as error:
            tell(self.result, "ERROR: I/O error in check_refcounts_l2")
            self.result.check_errors += 1
            raise Aborted(error) from error

    def l2_table(self, offset: int, table: array[int], active: bool) -> None:
        """Count what one L2 table's entries reach."""
        image = self.image
        if not any(table):
            return
        bitmaps = table[1::2] if image.extended else None
        entries = table[::2] if image.extended else table
        size, shift = self.size, self.shift
        data_file = image.has_data_file
        limit = 1 << 62 if data_file else self.file_size
        result = self.result
        following = 0  # where the next cluster would be without fragmentation
        slot, count = 0, len(entries)
        odd_bits = L2_RESERVED | COMPRESSED_FLAG | (size - 1 & ~0x1FF)
        while slot < count:
            entry = entries[slot]
            if not entry and bitmaps is None:
                slot += 1
                continue
            host = entry & OFFSET_MASK
            if entry & odd_bits or bitmaps is not None or not host:
                following = self.l2_entry(
                    offset, slot, entry, 0 if bitmaps is None else bitmaps[slot], following, active
                )
                slot += 1
                continue
            expected = entry + size
            start = slot
            slot += 1
            while slot < count and entries[slot] == expected:
                expected += size
                slot += 1
            run = slot - start
            if host + run * size > limit:
                # some of them lie behind the end of the file: each is told by itself
                for at in range(start, slot):
                    following = self.l2_entry(offset, at, entries[at], 0, following, active)
                continue
            if active:
                result.allocated_clusters += run
                if following and host != following:
                    result.fragmented_clusters += 1
                following = host + run * size
            if not data_file:
                self.add(host >> shift, run)

    def l2_entry(self, table: int, slot: int, entry: int, bitmap: int, following: int, active: bool) -> int:
        """Count and judge one entry; returns where the next cluster would be without fragmentation."""
        image, result, size = self.image, self.result, self.size
        if entry & COMPRESSED_FLAG:
            where, length = image.compressed_location(entry)
            bad = False
            if entry & COPIED:
                tell(result, f"ERROR: coffset=0x{where:x}: copied flag must never be set for compressed clusters")
                result.corruptions += 1
                entry &= ~COPIED
            if image.has_data_file:
                tell(result, f"ERROR compressed cluster {slot} with data file, entry=0x{entry:x}")
                bad = True
            elif bitmap:
                tell(
                    result,
                    f"ERROR compressed cluster {slot} with non-zero subcluster allocation bitmap, entry=0x{entry:x}",
                )
                bad = True
            if bad:
                result.corruptions += 1
                return following
            self.region(where, length)
            if active:
                result.allocated_clusters += 1
                result.compressed_clusters += 1
                result.fragmented_clusters += 1
            return following
        if entry & L2_RESERVED:
            tell(result, f"ERROR found l2 entry with reserved bits set: {entry:x}")
            result.corruptions += 1
        host = entry & OFFSET_MASK
        allocated = bitmap & 0xFFFFFFFF
        there = bool(host)
        if not host and image.has_data_file and entry & COPIED:
            there = image.extended or not entry & ZERO_FLAG
        if not there:
            if allocated:
                tell(result, "ERROR: Unallocated cluster has non-zero subcluster allocation map")
                result.corruptions += 1
            return following
        if image.extended and allocated & bitmap >> 32:
            tell(result, f"ERROR offset={host:x}: Allocated cluster has corrupted subcluster allocation bitmap")
            result.corruptions += 1
        if host & (size - 1):
            has_data = bool(allocated) if image.extended else not entry & ZERO_FLAG
            if has_data:
                tell(result, f"ERROR offset={host:x}: Data cluster is not properly aligned; L2 entry corrupted.")
                result.corruptions += 1
            else:
                word = "Repairing" if self.repair else "ERROR"
                tell(
                    result, f"{word} offset={host:x}: Preallocated cluster is not properly aligned; L2 entry corrupted."
                )
                if self.repair:
                    self._drop_host(table, slot)
                    result.corruptions_fixed += 1
                    return following
                result.corruptions += 1
        if active:
            result.allocated_clusters += 1
            if following and host != following:
                result.fragmented_clusters += 1
            following = host + size
        if not image.has_data_file:
            self.region(host, size)
        return following

    def _drop_host(self, table: int, slot: int) -> None:
        """Turn a zero entry whose host offset is impossible into one without a host cluster."""
        if self.guard is not None:
            self.guard(table, "ERROR: Overlap check failed")
        if self.image.extended:
            self.file.write(table + slot * 16, bytes(8) + ALL_ZERO.to_bytes(8, "big"))
        else:
            self.file.write(table + slot * 8, ZERO_FLAG.to_bytes(8, "big"))
        self.changed = True


def no_memory(image: Qcow2Map) -> HostError:
    return HostError(
        "Cannot allocate memory", path=image.filename, layer="qcow2", field="host clusters", errno=12,
        hint="the file is far bigger than what it holds",
    )  # fmt: skip
