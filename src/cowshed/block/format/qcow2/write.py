"""The write side of a qcow2 image: placing guest clusters, linking them, zeroing, discarding, committing metadata.

Durability (also drawn in ARCHITECTURE.md): tables change in memory only; ``commit`` writes them in an order in which a
cut at any point leaves leaked clusters at most. Operations that must change counts and COPIED flags together go
through ``rebuild.py`` instead.
"""

from __future__ import annotations

from array import array

from ....errors import CorruptError, CowshedError, FormatError
from ....progress import QUIET
from ...node import DATA, HOLE, ZERO, Placement
from . import header as hd
from .l2 import (
    ALL_ZERO,
    COMPRESSED_FLAG,
    COPIED,
    L1_OFFSET_MASK,
    OFFSET_MASK,
    ZERO_FLAG,
    L2Table,
    bits,
    runs,
)
from .node import Qcow2Map
from .refcounts import Refcounts

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from ....progress import Progress
    from ...facts import Snapshot
    from .bitmap import Tracker

#: dirty metadata that is written out before more is gathered
DIRTY_BYTES = 32 << 20


class Qcow2Node(Qcow2Map):
    """A qcow2 image that can be written. All write hooks run with ``lock`` held."""

    def __init__(self, file: Any, header: hd.Header, *, read_only: bool) -> None:
        super().__init__(file, header, read_only=read_only)
        self._refcounts: Refcounts | None = None
        self.l1_dirty: set[int] = set()
        self.l1_moved = False
        self.l2_dirty = 0
        #: where the next compressed cluster's bytes go: inside the last cluster that compressed data took
        self.packed_end = 0
        #: keeps persistent bitmaps true; set up at the first write of an image that has enabled ones
        self.tracker: Tracker | None = None
        self.tracker_ready = False
        self.failed: CowshedError | None = None

    @property
    def refcounts(self) -> Refcounts:
        """The reference counts, loaded at first use."""
        if self._refcounts is None:
            self._refcounts = Refcounts(self)
            self._collect_metadata(self._refcounts)
        return self._refcounts

    def _collect_metadata(self, refcounts: Refcounts) -> None:
        """Remember which host clusters hold metadata, for the overlap checks."""
        shift = self.cluster_bits
        header = self.header
        taken = self.metadata_clusters
        taken.clear()

        def area(offset: int, length: int) -> None:
            if offset and length:
                taken.update(range(offset >> shift, (offset + length - 1 >> shift) + 1))

        taken.add(0)
        area(header.l1_table_offset, header.l1_size * 8)
        area(refcounts.table_offset, refcounts.table_clusters << shift)
        taken.update((entry & OFFSET_MASK) >> shift for entry in refcounts.table if entry)
        taken.update((entry & L1_OFFSET_MASK) >> shift for entry in self.l1 if entry)
        if header.snapshots_offset and header.nb_snapshots:
            from .snapshot import table_area

            for offset, length in table_area(self):
                area(offset, length)
        taken.discard(-1)

    # -- corruption -----------------------------------------------------------------------------------------------

    def corruption(self, text: str, **facts: Any) -> CorruptError:
        """Mark the image corrupt (when it is open for writing) and give the error to raise."""
        if self.read_only or self.header.version < 3:
            return super().corruption(text, **facts)
        message = f"Marking image as corrupt: {text}; further corruption events will be suppressed"
        error = hd.corrupt(self.filename, "Input/output error", **facts)
        if not self.signalled_corruption:
            self.signalled_corruption = True
            error.hint = None
            error.notes = f"qcow2: {message}"  # type: ignore[attr-defined]
            self.header.incompatible_features |= hd.INCOMPAT_CORRUPT
            self.write_header_fixed()
            self.file.flush()
        self.failed = error
        return error

    def check_overlap(self, offset: int, length: int, what: str = "metadata") -> None:
        """Refuse to write over metadata of this image. Raises CorruptError after marking the image corrupt."""
        if self.has_data_file and what == "data":
            return
        first, last = offset >> self.cluster_bits, (offset + length - 1) >> self.cluster_bits
        self.refcounts  # noqa: B018 (collects the metadata clusters)
        taken = self.metadata_clusters
        if last - first < len(taken):
            hit = any(cluster in taken for cluster in range(first, last + 1))
        else:
            hit = any(first <= cluster <= last for cluster in taken)
        if hit:
            raise self.corruption(
                f"Preventing invalid write on metadata (overlaps with {self._what_is_at(first, last)})",
                offset=offset,
                field="host offset",
                value=hex(offset),
            )

    def _what_is_at(self, first: int, last: int) -> str:
        """The name of the metadata in clusters first..last, in the order in which the checks are made."""
        shift, header = self.cluster_bits, self.header

        def inside(offset: int, length: int) -> bool:
            return bool(length) and offset >> shift <= last and (offset + length - 1) >> shift >= first

        if first == 0:
            return "qcow2_header"
        if inside(header.l1_table_offset, header.l1_size * 8):
            return "active L1 table"
        if any(entry and first <= (entry & L1_OFFSET_MASK) >> shift <= last for entry in self.l1):
            return "active L2 table"
        if inside(self.refcounts.table_offset, self.refcounts.table_clusters << shift):
            return "refcount table"
        if any(entry and first <= (entry & OFFSET_MASK) >> shift <= last for entry in self.refcounts.table):
            return "refcount block"
        if header.nb_snapshots and first <= header.snapshots_offset >> shift <= last:
            return "snapshot table"
        return "inactive L1 table"

    def forget_tables(self) -> None:
        """Drop every cached table: a rebuild has put others in their place."""
        self.l2.clear()
        self.l2_dirty = 0
        self.l1_dirty.clear()
        self._refcounts = None
        self.metadata_clusters.clear()
        self.packed_end = 0

    # -- headers --------------------------------------------------------------------------------------------------

    def write_header_fixed(self) -> None:
        """Write the fixed header fields: one write inside the first sector."""
        header = self.header
        if self._refcounts is not None:
            header.refcount_table_offset = self._refcounts.table_offset
            header.refcount_table_clusters = self._refcounts.table_clusters
        fixed = header.encode_fixed()
        self.file.write(0, fixed[:512])

    def rewrite_header(self) -> None:
        """Write the whole header after a change of extensions or backing name.

        The backing name moves beside the old one where there is room, so that the old header stays whole until the
        first sector, written last, switches to the new one.
        """
        with self.lock:
            stored = self.file.read(0, min(20, self.file.size))
            old_offset = int.from_bytes(stored[8:16], "big")
            old_length = int.from_bytes(stored[16:20], "big")
            new = self.header.encode(old_offset, old_offset + old_length)
            if len(new) > 512:
                end = self.header.backing_file_offset or len(new)
                name = len(new) - end
                # the gap between extensions and name may hold the old name: leave it
                body_end = min(end, max(512, len(new[:end].rstrip(b"\0")) + 8))
                if body_end > 512:
                    self.file.write(512, new[512:body_end])
                if name:
                    self.file.write(max(end, 512), new[max(end, 512) :])
                self.file.flush()
            self.file.write(0, new[:512])
            self.file.flush()

    # -- L2 tables for writing ------------------------------------------------------------------------------------

    def l2_for_write(self, index: int) -> L2Table:
        """The L2 table of L1 entry ``index``, owned by the active L1 alone; made or copied when it is not."""
        entry = self.l1[index]
        if entry & COPIED:
            table = self.l2_table(index)
            assert table is not None
            return table
        old = entry & L1_OFFSET_MASK
        if old:
            shared = self.l2_table(index)
            assert shared is not None
            entries = shared.entries[:]
        else:
            entries = array("Q", bytes(self.cluster_size))
        cluster, _ = self.refcounts.allocate(1)
        table = L2Table(cluster << self.cluster_bits, entries, False)
        if len(self.l2) >= self.l2_keep:
            self.evict_l2()
        self.l2[index] = table
        self.metadata_clusters.add(cluster)
        self.l1[index] = table.offset | COPIED
        self.l1_dirty.add(index)
        self.touch(table)
        if old:
            self.refcounts.release(old >> self.cluster_bits)
        return table

    def touch(self, table: L2Table) -> None:
        if not table.dirty:
            table.dirty = True
            self.l2_dirty += 1

    # -- placing --------------------------------------------------------------------------------------------------

    def before_write(self, offset: int, length: int) -> None:
        if self.failed is not None:
            raise self.failed
        if self.l2_dirty << self.cluster_bits > DIRTY_BYTES:
            self.commit()
        if not self.tracker_ready:
            self._start_tracking()
        if self.tracker is not None:
            self.tracker.mark(offset, length)

    def _start_tracking(self) -> None:
        self.tracker_ready = True
        if self.header.extension(hd.EXT_BITMAPS) is not None and self.header.autoclear_features & hd.AUTOCLEAR_BITMAPS:
            from .bitmap import Tracker

            tracker = Tracker(self)
            if tracker.active:
                self.tracker = tracker

    def place(self, offset: int, length: int) -> list[Placement]:
        placements: list[Placement] = []
        try:
            end = offset + length
            while offset < end:
                index = offset // self.l2_span
                upto = min(end, (index + 1) * self.l2_span)
                self._place_in_table(index, offset, upto, placements)
                offset = upto
        except BaseException:
            self.unplace(placements)
            raise
        return placements

    def _place_in_table(self, index: int, offset: int, end: int, out: list[Placement]) -> None:
        """Place [offset, end), which one L2 table maps."""
        bits_, size = self.cluster_bits, self.cluster_size
        base = index * self.l2_span
        table = self.l2_for_write(index)
        slot = (offset - base) >> bits_
        last = (end - 1 - base) >> bits_
        words = self.entry_words
        entries = table.entries
        while slot <= last:
            entry = entries[slot * words]
            low = max(offset, base + (slot << bits_))
            if self._in_place(entries, slot):
                stop = slot + 1
                if not self.extended:
                    following = entry + size
                    while stop <= last and entries[stop] == following:
                        following += size
                        stop += 1
                high = min(end, base + (stop << bits_))
                host = entry & OFFSET_MASK
                if host & (size - 1):
                    raise self._unaligned(host, index, slot, 1)
                inner = low - (base + (slot << bits_))
                self.check_overlap(host, (stop - slot) << bits_, "data")
                if self.extended and not self._subclusters_there(entries[slot * 2 + 1], inner, high - low):
                    out.append(self._subcluster_placement(low, high, host, inner, entries[slot * 2 + 1]))
                else:
                    out.append(Placement(low, high - low, self.data, host + inner))
            elif self._reusable(entry):
                # a zero entry with a host cluster of its own: write there, the rest of the cluster as zeroes
                host = entry & OFFSET_MASK
                stop = slot + 1
                following = entry + size
                while stop <= last and not self.extended and entries[stop] == following:
                    following += size
                    stop += 1
                high = min(end, base + (stop << bits_))
                self.check_overlap(host, (stop - slot) << bits_, "data")
                out.append(self._fresh(low, high, base + (slot << bits_), stop - slot, host, None))
            else:
                stop = slot + 1
                if not self.extended:
                    while stop <= last and not self._in_place(entries, stop) and not self._reusable(entries[stop]):
                        stop += 1
                self._place_new(base, slot, stop, offset, end, entries, out)
            slot = stop

    def _in_place(self, entries: array[int], slot: int) -> bool:
        """May guest data be written to the host cluster of this entry as it is?"""
        entry = entries[slot * self.entry_words]
        if not entry & COPIED or entry & COMPRESSED_FLAG:
            return False
        if not entry & OFFSET_MASK and not self.has_data_file:
            return False
        return self.extended or not entry & ZERO_FLAG

    def _reusable(self, entry: int) -> bool:
        return (
            not self.extended
            and bool(entry & ZERO_FLAG)
            and bool(entry & COPIED)
            and not entry & COMPRESSED_FLAG
            and bool(entry & OFFSET_MASK)
        )

    def _subclusters_there(self, bitmap: int, inner: int, length: int) -> bool:
        first = inner >> self.sub_bits
        mask = bits(first, ((inner + length - 1) >> self.sub_bits) - first + 1)
        return bitmap & mask == mask

    def _subcluster_placement(self, low: int, high: int, host: int, inner: int, bitmap: int) -> Placement:
        """Some of these subclusters are not allocated yet: their ragged ends are copied up, then linked."""
        sub = self.sub_bits
        first = inner >> sub
        last = (inner + high - low - 1) >> sub
        head = 0 if bitmap >> first & 1 else inner - (first << sub)
        tail = 0 if bitmap >> last & 1 else ((last + 1) << sub) - (inner + high - low)
        return Placement(low, high - low, self.data, host + inner, head=head, tail=tail, fresh=True, token=None)

    def _place_new(
        self, base: int, slot: int, stop: int, offset: int, end: int, entries: array[int], out: list[Placement]
    ) -> None:
        """Allocate host clusters for slots [slot, stop), in as few contiguous pieces as there are."""
        shift = self.cluster_bits
        while slot < stop:
            start = base + (slot << shift)
            if self.has_data_file:
                host, got = start, stop - slot
            else:
                cluster, got = self.refcounts.allocate(stop - slot)
                host = cluster << shift
                if host == 0 or cluster in self.metadata_clusters:
                    raise self.corruption(
                        f"Preventing invalid allocation of data cluster at offset {host:#x}",
                        field="refcount",
                        offset=host,
                        value=0,
                    )
            low, high = max(offset, start), min(end, start + (got << shift))
            entry = entries[slot * 2 : slot * 2 + 2] if self.extended else None
            out.append(self._fresh(low, high, start, got, host, entry, new=not self.has_data_file))
            slot += got

    def _fresh(
        self, low: int, high: int, start: int, clusters: int, host: int, entry: array[int] | None, new: bool = False
    ) -> Placement:
        """A placement into clusters whose content is not valid yet; head and tail are what must be copied up."""
        stop = start + (clusters << self.cluster_bits)
        head, tail = low - start, stop - high
        if entry is not None and (head or tail):
            old, bitmap = entry[0], entry[1]
            if not old & COMPRESSED_FLAG and not bitmap & 0xFFFFFFFF:
                # nothing of the old cluster is allocated: only whole subclusters around the data are filled
                sub = (1 << self.sub_bits) - 1
                head, tail = head & sub, -high & sub
        covered = (low - head, high + tail)
        # untouched space behind the end of the file reads as zeroes: no need to write zeroes there
        if new and (head or tail) and host >= self.data.size:
            if head and self._reads_zero(low - head, head):
                head = 0
            if tail and self._reads_zero(high, tail):
                tail = 0
        token = (start, clusters, host, new, covered)
        return Placement(
            low, high - low, self.data, host + (low - start), head=head, tail=tail, fresh=True, token=token
        )

    def _reads_zero(self, offset: int, length: int) -> bool:
        length = min(length, self.size - offset)
        return length <= 0 or all(extent.kind in (ZERO, HOLE) for extent in self._chain_extents(offset, length))

    def unplace(self, placements: list[Placement]) -> None:
        for placement in placements:
            if isinstance(placement.token, tuple) and placement.token[3]:
                _, clusters, host, _, _ = placement.token
                self.refcounts.release(host >> self.cluster_bits, clusters)

    # -- linking --------------------------------------------------------------------------------------------------

    def link(self, placements: list[Placement]) -> None:
        for placement in placements:
            if not placement.fresh:
                continue
            token: Any = placement.token
            if token is None:
                self._link_subclusters(placement)
            else:
                self._link_clusters(token[0], token[1], token[2], token[4])

    def _link_subclusters(self, placement: Placement) -> None:
        low = placement.offset - placement.head
        high = placement.offset + placement.length + placement.tail
        index, rest = divmod(low, self.l2_span)
        table = self.l2_for_write(index)
        slot = rest >> self.cluster_bits
        inner = rest & (self.cluster_size - 1)
        first = inner >> self.sub_bits
        mask = bits(first, ((inner + high - low - 1) >> self.sub_bits) - first + 1)
        table.entries[slot * 2 + 1] = (table.entries[slot * 2 + 1] | mask) & ~(mask << 32)
        self.touch(table)

    def _link_clusters(self, start: int, clusters: int, host: int, covered: tuple[int, int]) -> None:
        """Point ``clusters`` entries from guest offset ``start`` to ``host``; ``covered``: guest bytes valid there."""
        index, rest = divmod(start, self.l2_span)
        table = self.l2_for_write(index)
        slot = rest >> self.cluster_bits
        entries = table.entries
        size = self.cluster_size
        if self.extended:
            low, high = covered
            for number in range(clusters):
                at = (slot + number) * 2
                cluster = start + number * size
                old, bitmap = entries[at], entries[at + 1]
                first = max(0, low - cluster) >> self.sub_bits
                last = min(size, high - cluster) - 1 >> self.sub_bits
                mask = bits(first, last - first + 1)
                kept = 0 if old & COMPRESSED_FLAG or bitmap & 0xFFFFFFFF else bitmap & ALL_ZERO
                entries[at] = (host + number * size) | COPIED
                entries[at + 1] = (kept & ~(mask << 32)) | mask
                self._free_entry(old, host + number * size)
        else:
            replaced = entries[slot : slot + clusters]
            first = host | COPIED
            entries[slot : slot + clusters] = array("Q", range(first, first + clusters * size, size))
            if any(replaced):
                for number, entry in enumerate(replaced):
                    if entry:
                        self._free_entry(entry, host + number * size)
        self.touch(table)

    def _free_entry(self, entry: int, keep: int = -1, *, discard: bool = False) -> None:
        """Drop an L2 entry's reference to its host clusters, unless it is to cluster ``keep``."""
        if entry & COMPRESSED_FLAG:
            offset, length = self.compressed_location(entry)
            first = offset >> self.cluster_bits
            last = (offset + length - 1) >> self.cluster_bits
            self.refcounts.release(first, last - first + 1, discard=discard)
            return
        host = entry & OFFSET_MASK
        if self.has_data_file:
            if discard and not self.data_file_raw and (host or entry & COPIED):
                self.data.discard(host, min(self.cluster_size, max(0, self.data.size - host)))
            return
        if not host or host == keep:
            return
        if host & (self.cluster_size - 1):
            raise self.corruption(f"Cannot free unaligned cluster {host:#x}", field="l2 entry", value=hex(entry))
        self.refcounts.release(host >> self.cluster_bits, 1, discard=discard)

    # -- zeroing and discarding -----------------------------------------------------------------------------------

    def _uncovers_backing(self) -> bool:
        """Would an unallocated cluster show a backing file's bytes where version 2 has no zero flag to hide them?"""
        return self.header.version < 3 and (self.backing is not None or self.header.backing_file is not None)

    def zero_range(self, offset: int, length: int, unmap: bool) -> bool:
        if self._uncovers_backing():
            return False
        if self.data_file_raw:
            # the data file alone must show the zeroes too
            self.data.write_zeroes(offset, min(length, self.size - offset), unmap)
        fill = ZERO_FLAG if self.header.version >= 3 else 0
        self._each_slot(
            offset, length, lambda table, slot, mask: self._zero_slot(table, slot, mask, unmap), fill, unmap
        )
        return True

    def discard_range(self, offset: int, length: int) -> None:
        if self._uncovers_backing():
            return
        if self.data_file_raw:
            self.data.discard(offset, min(length, self.size - offset))
        fill = ZERO_FLAG if self.backing is not None else 0
        self._each_slot(offset, length, self._discard_slot, fill, True)

    def _each_slot(self, offset: int, length: int, change: Any, fill: int, drop: bool) -> None:
        """Change every L2 entry of [offset, offset+length), run by run where that is possible.

        ``fill``: what an entry without clusters becomes (0: it stays). ``drop``: plain clusters are given up.
        ``change(table, slot, subcluster mask)`` does all others.
        """
        end = offset + length
        while offset < end:
            index = offset // self.l2_span
            base = index * self.l2_span
            upto = min(end, base + self.l2_span)
            if fill or self.l1[index] & L1_OFFSET_MASK:
                table = self.l2_for_write(index)
                self.touch(table)  # first: a dirty table stays in the cache while entries are unpacked
                first = (offset - base) >> self.cluster_bits
                last = (upto - 1 - base) >> self.cluster_bits
                if self.extended:
                    for slot in range(first, last + 1):
                        cluster = base + (slot << self.cluster_bits)
                        low = max(0, offset - cluster) >> self.sub_bits
                        high = (min(self.cluster_size, upto - cluster) - 1) >> self.sub_bits
                        change(table, slot, bits(low, high - low + 1))
                else:
                    self._change_runs(table, first, last, change, fill, drop)
                if self.l2_dirty << self.cluster_bits > DIRTY_BYTES:
                    self.commit()
            offset = upto

    def _change_runs(self, table: L2Table, first: int, last: int, change: Any, fill: int, drop: bool) -> None:
        """The part of _each_slot for the standard entries first..last of one table."""
        entries = table.entries
        empty = ZERO_FLAG if self.header.version >= 3 else 0
        for at, count, kind, host in list(runs(entries[first : last + 1], self.cluster_size, self.has_data_file)):
            start = first + at
            if kind == HOLE:
                if fill:
                    entries[start : start + count] = array("Q", [fill]) * count
            elif kind == ZERO and host < 0:
                continue
            elif kind in (DATA, ZERO) and drop and not self.has_data_file:
                if host & (self.cluster_size - 1):
                    raise self.corruption(f"Cannot free unaligned cluster {host:#x}", field="l2 entry", value=hex(host))
                entries[start : start + count] = array("Q", [empty]) * count
                self.refcounts.release(host >> self.cluster_bits, count, discard=True)
            else:
                for slot in range(start, start + count):
                    change(table, slot, 0xFFFFFFFF)

    def _zero_slot(self, table: L2Table, slot: int, mask: int, unmap: bool) -> None:
        entries = table.entries
        at = slot * self.entry_words
        entry = entries[at]
        if self.header.version < 3:
            entries[at] = 0
            self._free_entry(entry, discard=True)
            return
        packed = bool(entry & COMPRESSED_FLAG)
        if not self.extended:
            if unmap or packed:
                if entry & (OFFSET_MASK | COMPRESSED_FLAG) and not (self.data_file_raw and not packed):
                    entries[at] = ZERO_FLAG
                    self._free_entry(entry, discard=unmap)
                    return
            entries[at] = entry | ZERO_FLAG
            return
        bitmap = entries[at + 1]
        if mask == 0xFFFFFFFF:
            if (unmap or packed) and not self.data_file_raw:
                entries[at] = 0
                self._free_entry(entry, discard=unmap)
            entries[at + 1] = ALL_ZERO
            return
        if packed:
            # a compressed cluster has no subclusters: unpack it first, then zero the part
            self._unpack_slot(table, slot)
            bitmap = entries[at + 1]
        entries[at + 1] = (bitmap & ~mask) | (mask << 32)

    def _discard_slot(self, table: L2Table, slot: int, mask: int) -> None:
        entries = table.entries
        at = slot * self.entry_words
        entry = entries[at]
        if self.extended and mask != 0xFFFFFFFF:
            # part of a cluster: its subclusters read as zeroes from now on, the space stays
            if entry & COMPRESSED_FLAG:
                return
            entries[at + 1] = (entries[at + 1] & ~mask) | (mask << 32)
            return
        allocated = entry & (OFFSET_MASK | COMPRESSED_FLAG) or (self.has_data_file and entry & COPIED)
        if self.extended:
            if self.backing is None and not allocated:
                return
            entries[at], entries[at + 1] = (0, ALL_ZERO) if not self.data_file_raw else (entry, ALL_ZERO)
        elif self.backing is None and not allocated:
            return
        elif self.data_file_raw:
            entries[at] = entry | ZERO_FLAG
        else:
            entries[at] = ZERO_FLAG if self.header.version >= 3 else 0
        if not self.data_file_raw:
            self._free_entry(entry, discard=True)

    def clusters_freed(self, first: int, count: int) -> None:
        """Host clusters lost their last reference: they are neither metadata nor a place for compressed data now."""
        if self.metadata_clusters:
            self.metadata_clusters.difference_update(range(first, first + count))
        if first <= self.packed_end >> self.cluster_bits < first + count:
            self.packed_end = 0

    def _unpack_slot(self, table: L2Table, slot: int) -> None:
        """Turn a compressed cluster into a plain one."""
        index = next(number for number, item in self.l2.items() if item is table)
        start = index * self.l2_span + (slot << self.cluster_bits)
        length = min(self.cluster_size, self.size - start)
        data = self.read(start, length)
        placements = self.place(start, length)
        for placement in placements:
            self._fill(placement, memoryview(data)[placement.offset - start :][: placement.length])
        self.link(placements)

    # -- compressed data ------------------------------------------------------------------------------------------

    def write_compressed(self, offset: int, data: Any, packed: bytes | None = None) -> None:
        """Store the cluster at ``offset`` (aligned; shorter only at the end of the disk) compressed.

        ``packed``: its compressed form when the caller made it (with ``codec``). A cluster that doesn't shrink is
        stored plain. Raises UnsupportedError with an external data file.
        """
        self._check_write(offset, len(data))
        view = memoryview(data)
        if packed is None:
            whole = view
            if len(view) < self.cluster_size:
                whole = memoryview(bytes(view) + bytes(self.cluster_size - len(view)))
            packed = self.codec.compress(whole, self.cluster_size)
        if packed is None:
            self.write(offset, view)
            return
        self.write_packed([(offset, packed)])

    def write_packed(self, clusters: list[tuple[int, bytes]]) -> None:
        """Store clusters that are compressed already, ``(guest offset, compressed bytes)``, as one run of bytes.

        Neighbouring clusters' data share host clusters, whose counts say how many of them they serve.
        """
        if self.has_data_file:
            raise self._cannot("Compression not supported for this file format")
        with self.lock:
            for offset, _ in clusters:
                if offset & (self.cluster_size - 1):
                    raise FormatError("Invalid argument", path=self.filename, layer="qcow2", offset=offset)
                self.before_write(offset, min(self.cluster_size, self.size - offset))
            start = 0
            while start < len(clusters):
                start = self._write_packed_run(clusters, start)

    def _write_packed_run(self, clusters: list[tuple[int, bytes]], start: int) -> int:
        """Place as many of the clusters from ``start`` as one contiguous host area holds; returns the next index."""
        size, shift = self.cluster_size, self.cluster_bits
        refcounts = self.refcounts
        total = 0
        stop = start
        while stop < len(clusters) and total < 4 << 20:
            total += len(clusters[stop][1])
            stop += 1
        begin = self.packed_end
        room = -begin & (size - 1)
        if room and not 0 < refcounts.get(begin >> shift) < refcounts.maximum:
            room = 0
        fresh_first = fresh_count = 0
        if room < total:
            need = (total - room + size - 1) >> shift
            fresh_first, fresh_count = refcounts.allocate(need)
            if not room or fresh_first << shift != begin + room:
                begin, room = fresh_first << shift, 0
        capacity = room + (fresh_count << shift)
        # how many whole pieces fit, and which host clusters each of them uses
        position = begin
        taken: list[tuple[int, int, bytes]] = []
        while start + len(taken) < stop:
            offset, packed = clusters[start + len(taken)]
            if position + len(packed) > begin + capacity:
                break
            if refcounts.maximum < 0xFFFF and not self._can_share(
                position, len(packed), fresh_first, fresh_count, taken
            ):
                break
            taken.append((offset, position, packed))
            position += len(packed)
        if not taken:
            # the area is too small for even one piece (fragmented space): take a whole area for it
            if fresh_count:
                refcounts.release(fresh_first, fresh_count)
            need = (len(clusters[start][1]) + size - 1) >> shift
            fresh_first, fresh_count = refcounts.allocate(need, whole=True)
            position = begin = fresh_first << shift
            taken = [(clusters[start][0], begin, clusters[start][1])]
            position += len(clusters[start][1])
        try:
            self.file.write(begin, b"".join(item[2] for item in taken))
        except BaseException:
            if fresh_count:
                refcounts.release(fresh_first, fresh_count)
            raise
        used: set[int] = set(range(fresh_first, fresh_first + fresh_count))
        csize_shift = 62 - (shift - 8)
        for offset, where, packed in taken:
            first, last = where >> shift, (where + len(packed) - 1) >> shift
            for cluster in range(first, last + 1):
                if cluster in used:  # allocated with count 1, which the first user takes over
                    used.discard(cluster)
                else:
                    refcounts.add(cluster)
            sectors = ((where + len(packed) - 1) >> 9) - (where >> 9)
            index, rest = divmod(offset, self.l2_span)
            table = self.l2_for_write(index)
            at = (rest >> shift) * self.entry_words
            old = table.entries[at]
            table.entries[at] = COMPRESSED_FLAG | (sectors << csize_shift) | where
            if self.extended:
                table.entries[at + 1] = 0
            self.touch(table)
            if old:
                self._free_entry(old)
        if used:
            for cluster in used:
                refcounts.release(cluster)
        self.packed_end = position
        return start + len(taken)

    def _can_share(
        self, position: int, length: int, fresh: int, count: int, taken: list[tuple[int, int, bytes]]
    ) -> bool:
        """Narrow refcounts (below 16 bits) bound how many compressed clusters may share a host cluster."""
        shift = self.cluster_bits
        for cluster in range(position >> shift, ((position + length - 1) >> shift) + 1):
            users = sum(1 for _, at, data in taken if at >> shift <= cluster <= (at + len(data) - 1) >> shift)
            base = 0 if fresh <= cluster < fresh + count else self.refcounts.get(cluster)
            if base + users + 1 > self.refcounts.maximum:
                return False
        return True

    # -- whole-image changes --------------------------------------------------------------------------------------

    def snapshot_create(self, name: str) -> Snapshot:
        from .snapshot import create

        with self.lock:
            return create(self, name)

    def snapshot_apply(self, ref: str) -> None:
        from .snapshot import apply

        with self.lock:
            apply(self, ref)

    def snapshot_delete(self, ref: str) -> None:
        from .snapshot import delete

        with self.lock:
            delete(self, ref)

    def resize(self, size: int, preallocation: str = "off") -> None:
        from .resize import resize

        with self.lock:
            resize(self, size, preallocation)

    def change_backing(self, name: str | None, fmt: str | None) -> None:
        from .amend import change_backing

        with self.lock:
            change_backing(self, name, fmt)

    def amend(self, options: dict[str, Any], *, force: bool = False, progress: Progress = QUIET) -> None:
        from .amend import amend

        with self.lock:
            amend(self, options, progress)

    def make_empty(self) -> bool:
        from .resize import make_empty

        with self.lock:
            return make_empty(self)

    # -- commit ---------------------------------------------------------------------------------------------------

    def is_dirty(self) -> bool:
        refcounts = self._refcounts
        return bool(self.l2_dirty or self.l1_dirty or self.l1_moved) or (
            refcounts is not None and (refcounts.is_dirty() or bool(refcounts.pending))
        )

    def commit(self) -> None:
        """Write all changed metadata, in the order described at the top; durable up to the last decrements."""
        with self.lock:
            if not self.is_dirty():
                return
            file, refcounts = self.file, self.refcounts
            self.data.flush()
            if self.has_data_file:
                file.flush()
            if refcounts.write_blocks():
                file.flush()
            if refcounts.write_table():
                file.flush()
            if refcounts.table_moved:
                self.write_header_fixed()
                refcounts.table_moved = False
                file.flush()
            wrote = False
            if self.l2_dirty:
                for table in sorted((t for t in self.l2.values() if t.dirty), key=lambda t: t.offset):
                    self.write_table(table.offset, table.entries)
                    table.dirty = False
                self.l2_dirty = 0
                wrote = True
            if self.l1_dirty:
                if wrote:
                    file.flush()
                self.write_table_entries(self.header.l1_table_offset, self.l1, self.l1_dirty)
                self.l1_dirty.clear()
                wrote = True
            if refcounts.pending:
                if wrote:
                    file.flush()
                holes = refcounts.apply_pending()
                refcounts.write_blocks()
                for first, count in holes:
                    file.discard(first << self.cluster_bits, count << self.cluster_bits)

    def flush(self) -> None:
        """Metadata and data are durable when this returns. Raises HostError, NoSpaceError."""
        if self.read_only:
            return
        with self.lock:
            self.commit()
            if self.has_data_file:
                self.data.flush()
            self.file.flush()

    def shutdown(self) -> None:
        if self.read_only or self.failed is not None:
            return
        if self.tracker is not None:
            self.tracker.store()
        self.flush()
