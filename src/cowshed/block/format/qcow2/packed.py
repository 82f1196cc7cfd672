"""Compressed clusters, packed one behind the other (qcow2.txt, "Compressed Clusters Descriptor")."""

from __future__ import annotations

from array import array

from ....errors import FormatError
from ...node import byte_view
from .l2 import COMPRESSED_FLAG
from .zero import Qcow2Zeroing

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


class Qcow2Packing(Qcow2Zeroing):
    """Writing of compressed clusters."""

    def write_compressed(self, offset: int, data: Any, packed: bytes | None = None) -> None:
        """Store the cluster at ``offset`` (aligned; shorter only at the end of the disk) compressed.

        ``packed``: its compressed form when the caller made it (with ``codec``). A cluster that doesn't shrink is
        stored plain. Raises UnsupportedError with an external data file.
        """
        view = byte_view(data)
        self._check_write(offset, len(view))
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
            for offset, packed in clusters:
                if offset & (self.cluster_size - 1):
                    raise FormatError("Invalid argument", path=self.filename, layer="qcow2", offset=offset)
                if not 0 < len(packed) <= self.cluster_size:
                    raise FormatError(
                        "Invalid argument", path=self.filename, layer="qcow2", offset=offset,
                        field="compressed length", value=len(packed), limit=f"1 to {self.cluster_size}",
                    )  # fmt: skip
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
        if position - 1 >> 62 - (shift - 8):
            # an entry has fewer bits for the place of compressed bytes than for that of a plain cluster
            if fresh_count:
                refcounts.release(fresh_first, fresh_count)
            self._write_unpacked(clusters[start : start + len(taken)])
            return start + len(taken)
        try:
            self.file.write(begin, b"".join(item[2] for item in taken))
        except BaseException:
            if fresh_count:
                refcounts.release(fresh_first, fresh_count)
            raise
        self.packed_end = position  # taken, whatever fails from here on
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
            new = COMPRESSED_FLAG | (sectors << csize_shift) | where
            table.entries[at : at + self.entry_words] = array("Q", [new, 0][: self.entry_words])
            self.touch(table)
            if old:
                self._free_entry(old)
        if used:
            for cluster in used:
                refcounts.release(cluster)
        return start + len(taken)

    def _write_unpacked(self, clusters: list[tuple[int, bytes]]) -> None:
        """Store compressed clusters plain."""
        for offset, packed in clusters:
            plain = self.codec.decompress(packed, self.cluster_size)
            self.write(offset, memoryview(plain)[: self.size - offset])

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
