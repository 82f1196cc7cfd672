"""Placing and linking: guest bytes get host clusters, first invisibly, then in the L2 tables."""

from __future__ import annotations

from array import array

from ...node import HOLE, ZERO, Placement
from . import header as hd
from .l2 import ALL_ZERO, COMPRESSED_FLAG, COPIED, L1_OFFSET_MASK, OFFSET_MASK, ZERO_FLAG, bits
from .metadata import Qcow2Metadata

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


class Qcow2Placing(Qcow2Metadata):
    """The hooks ``place``, ``link`` and ``unplace`` of Node."""

    def before_write(self, offset: int, length: int) -> None:
        if self.failed is not None:
            raise self.failed
        self.commit_when_large()
        if not self.tracker_ready:
            self._start_tracking()
        if self.tracker is not None:
            self.tracker.mark(offset, length)

    def _start_tracking(self) -> None:
        self.tracker_ready = True
        if self.header.extension(hd.EXT_BITMAPS) is not None and self.header.autoclear_features & hd.AUTOCLEAR_BITMAPS:
            from .bitmap_store import Tracker

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
                if upto < end and not self.l1[index] & L1_OFFSET_MASK:
                    self.l2_ahead(index, (end - 1) // self.l2_span)
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
                    if not any(entries[stop : last + 1]):
                        stop = last + 1
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
                self.check_data_offset(host + (got << shift))
            else:
                cluster, got = self.refcounts.allocate(stop - slot)
                host = cluster << shift
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
                placement.token = None  # what may be linked is never given back, even if the rest fails
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
        self.touch(table)  # first: whatever fails below, what was changed is written
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
                # both words in one step: readers hold no lock
                entries[at : at + 2] = array("Q", [(host + number * size) | COPIED, (kept & ~(mask << 32)) | mask])
                self._free_entry(old, host + number * size)
        else:
            replaced = entries[slot : slot + clusters]
            first = host | COPIED
            entries[slot : slot + clusters] = array("Q", range(first, first + clusters * size, size))
            if any(replaced):
                for number, entry in enumerate(replaced):
                    if entry:
                        self._free_entry(entry, host + number * size)
