"""Zeroing and discarding by metadata alone."""

from __future__ import annotations

from array import array

from ...node import DATA, HOLE, ZERO
from .l2 import ALL_ZERO, COMPRESSED_FLAG, COPIED, L1_OFFSET_MASK, OFFSET_MASK, ZERO_FLAG, L2Table, bits, runs
from .place import Qcow2Placing

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


class Qcow2Zeroing(Qcow2Placing):
    """The hooks ``zero_range`` and ``discard_range`` of Node."""

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
                self.commit_when_large()
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
            drop = (unmap or packed) and not self.data_file_raw
            # both words in one step: readers hold no lock
            entries[at : at + 2] = array("Q", [0 if drop else entry, ALL_ZERO])
            if drop:
                self._free_entry(entry, discard=unmap)
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
            entries[at : at + 2] = array("Q", [entry if self.data_file_raw else 0, ALL_ZERO])
        elif self.backing is None and not allocated:
            return
        elif self.data_file_raw:
            entries[at] = entry | ZERO_FLAG
        else:
            entries[at] = ZERO_FLAG if self.header.version >= 3 else 0
        if not self.data_file_raw:
            self._free_entry(entry, discard=True)

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
