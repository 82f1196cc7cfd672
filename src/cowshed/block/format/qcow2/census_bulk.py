"""The vectorised part of ``check``, for images with very many clusters: counts in a numpy array, L2 tables in batches.

Only tables in which every entry is in order are counted here; the others go to `Census`, entry by entry. The counts lie
in lazily zeroed memory, so that a sparse file of any length costs what it refers to.
"""

from __future__ import annotations

import mmap
import sys
from array import array

from ....arrays import load_numpy
from ....errors import CowshedError
from .l2 import COMPRESSED_FLAG, COPIED, L1_OFFSET_MASK, OFFSET_MASK, ZERO_FLAG

load_numpy()
import numpy  # noqa: E402

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from .census import Census

_SWAP = sys.byteorder == "little"
_DTYPES = {16: numpy.uint16, 32: numpy.uint32, 64: numpy.uint64}

#: bytes of L2 tables looked at together: small enough for a processor's cache
BATCH = 1 << 20

#: bytes of address space that counts may take
MOST = 1 << 40

# distinct L2 tables of snapshots whose references are added up before they are walked
SHARED = 1 << 20

U64 = numpy.uint64

_NORESERVE = getattr(mmap, "MAP_NORESERVE", 0x4000 if sys.platform == "linux" else 0)


def sparse_zeroes(census: Census, count: int, dtype: Any) -> Any:
    """An array of zeroes in memory that is taken when it is written to. Raises HostError where there is none."""
    from .census import no_memory

    length = max(1, count * numpy.dtype(dtype).itemsize)
    if length > MOST:
        raise no_memory(census.image)
    # not numpy.zeros: that asks for huge pages, and the kernel would want room for all of it
    flags = getattr(mmap, "MAP_PRIVATE", 2) | getattr(mmap, "MAP_ANONYMOUS", 32) | _NORESERVE
    try:
        return numpy.frombuffer(mmap.mmap(-1, length, flags=flags), dtype, count)
    except (OSError, MemoryError, ValueError) as error:
        raise no_memory(census.image) from error


class Bulk:
    """The counts of one census and the fast way to raise them."""

    def __init__(self, census: Census, clusters: int) -> None:
        self.census = census
        image = census.image
        self.dtype = _DTYPES.get(census.bits, numpy.uint8)
        #: the stretch of clusters whose references are noted as one
        self.stretch_bits = (image.cluster_size * 8 // census.bits).bit_length() - 1
        self.counts = self._zeroes(clusters)
        self.touched: set[int] = set()
        self.words = image.entry_words

    def _zeroes(self, clusters: int) -> Any:
        return sparse_zeroes(self.census, clusters, self.dtype)

    def grow(self, clusters: int) -> Any:
        counts = self._zeroes(clusters)
        for stretch in self.touched:
            low = stretch << self.stretch_bits
            piece = self.counts[low : low + (1 << self.stretch_bits)]
            counts[low : low + len(piece)] = piece
        self.counts = counts
        return counts

    # -- counting -------------------------------------------------------------------------------------------------

    def touch(self, first: int, last: int) -> None:
        """Note that clusters first..last may have references now."""
        low, high = first >> self.stretch_bits, last >> self.stretch_bits
        if low == high:
            self.touched.add(low)
        else:
            self.touched.update(range(low, high + 1))

    def add_run(self, first: int, count: int, amount: int) -> bool:
        """Raise the counts of a run; False (and nothing done) when one of them would overflow."""
        piece = self.counts[first : first + count]
        most = self.census.maximum - amount
        if most < 0 or (int(piece.max()) > most):
            return False
        piece += self.dtype(amount)
        self.touch(first, first + count - 1)
        return True

    def add_many(self, clusters: Any, amount: int) -> bool:
        """Raise the counts of many clusters (some perhaps several times); False when one would overflow."""
        if not len(clusters):
            return True
        most = self.census.maximum
        counts = self.counts
        rising = bool((clusters[1:] > clusters[:-1]).all())
        if rising:
            if amount > most or int(counts[clusters].max()) > most - amount:
                return False
            counts[clusters] += self.dtype(amount)
            self.touch(int(clusters[0]), int(clusters[-1])) if self._dense(clusters) else self._touch_each(clusters)
            return True
        unique, times = numpy.unique(clusters, return_counts=True)
        rise = times.astype(U64) * U64(amount)
        if int(rise.max()) > most or bool((counts[unique].astype(U64) > U64(most) - rise).any()):
            return False
        counts[unique] += rise.astype(self.dtype)
        self._touch_each(unique)
        return True

    def _dense(self, clusters: Any) -> bool:
        return int(clusters[-1]) - int(clusters[0]) <= 4 * len(clusters) + (1 << self.stretch_bits)

    def _touch_each(self, clusters: Any) -> None:
        self.touched.update(numpy.unique(clusters >> self.stretch_bits).tolist())

    # -- the walk -------------------------------------------------------------------------------------------------

    def walk_l1(self, l1: array[int], active: bool, amounts: dict[int, int] | None = None) -> None:
        """Walk the tables of an L1 table.

        ``amounts``: how often snapshots' L1 tables name each L2 table, by its offset. Such a table is counted so many
        times when it is first met (0 stands then), unless something in it must be told every time (-1).
        """
        census = self.census
        census.progress.start(max(1, len(l1)))
        batch: list[int] = []
        amount = 1
        most = max(1, BATCH >> census.shift)
        odd = ~(COPIED | (OFFSET_MASK & ~(census.size - 1))) & ((1 << 64) - 1)
        last = census.file_size - census.size
        for index, entry in enumerate(l1):
            if not entry:
                continue
            offset = entry & L1_OFFSET_MASK
            times = 1 if amounts is None else amounts.get(offset, 1)
            if not times:
                continue
            if entry & odd or not offset or offset > last or times < 0:
                self._flush(batch, active, amount, amounts)
                census.l1_entry(entry, active)
                continue
            if times != amount:
                self._flush(batch, active, amount, amounts)
                amount = times
            if amounts is not None and offset in amounts:
                amounts[offset] = 0
            batch.append(offset)
            if len(batch) >= most:
                self._flush(batch, active, amount, amounts)
                census.progress.at(index + 1)
        self._flush(batch, active, amount, amounts)

    def references(self, l1: array[int], amounts: dict[int, int]) -> None:
        """Add to ``amounts`` how often an L1 table names each L2 table."""
        for entry in l1:
            offset = entry & L1_OFFSET_MASK
            if offset and (offset in amounts or len(amounts) < SHARED):
                amounts[offset] = amounts.get(offset, 0) + 1

    def read(self, offsets: list[int]) -> Any:
        """The L2 tables at ``offsets`` as one array of native words, a row a table."""
        census = self.census
        size = census.size
        buffer = bytearray(len(offsets) * size)
        view = memoryview(buffer)
        start = 0
        while start < len(offsets):
            stop = start + 1
            while stop < len(offsets) and offsets[stop] == offsets[stop - 1] + size:
                stop += 1
            inside = min((stop - start) * size, census.file_size - offsets[start])
            try:
                census.file.read_into(offsets[start], view[start * size : start * size + inside])
            except CowshedError:
                for offset in offsets[start:stop]:
                    census.read_l2(offset)  # tells which
                raise
            start = stop
        words = numpy.frombuffer(buffer, U64).reshape(len(offsets), size // 8)
        return words.byteswap(inplace=True) if _SWAP else words

    def _flush(self, batch: list[int], active: bool, amount: int, amounts: dict[int, int] | None) -> None:
        """Walk the tables gathered in ``batch`` and empty it."""
        if not batch:
            return
        census = self.census
        offsets = batch[:]
        batch.clear()
        words = self.read(offsets)
        odd = self._count(words, active, amount)
        clean = numpy.array(offsets, U64) >> U64(census.shift)
        if odd:
            clean = numpy.delete(clean, odd)
        if not self.add_many(clean, amount):
            for cluster in clean.tolist():
                for _ in range(amount):
                    census.region(cluster << census.shift, census.size)
        for row in odd:
            census.region(offsets[row], census.size)
            census.l2_table(offsets[row], array("Q", words[row].tobytes()), active)
            if amounts is not None and amount > 1:
                amounts[offsets[row]] = -1

    def _count(self, words: Any, active: bool, amount: int) -> list[int]:
        """Count the rows that are in order; returns, in order, the rows that must be looked at entry by entry."""
        census = self.census
        size, shift = census.size, census.shift
        rows, width = words.shape
        result = census.result
        if self.words == 1 and not census.image.has_data_file and width >= 512:
            # the usual table of a preallocated image: one run of clusters
            step = words[:, 1:] - words[:, :-1] == U64(size)
            whole = step.all(axis=1)
            rest = []
            for row in range(rows):
                first = int(words[row, 0])
                host = first & OFFSET_MASK
                if (
                    whole[row]
                    and first & ~(COPIED | ZERO_FLAG) == host
                    and host
                    and not host & (size - 1)
                    and host + width * size <= census.file_size
                    and self.add_run(host >> shift, width, amount)
                ):
                    if active:
                        result.allocated_clusters += width
                else:
                    rest.append(row)
            if not rest:
                return []
        else:
            rest = list(range(rows))
        part = words if len(rest) == rows else words[rest]
        return [rest[number] for number in self._count_mixed(part, active, amount)]

    def _count_mixed(self, words: Any, active: bool, amount: int) -> list[int]:
        """As ``_count`` for rows of any kind."""
        from .census import L2_RESERVED

        census = self.census
        image = census.image
        size, shift = census.size, census.shift
        entries = words[:, :: self.words]
        packed = (entries & U64(COMPRESSED_FLAG)) != 0
        host = entries & U64(OFFSET_MASK)
        there = host != 0
        limit = (1 << 62) if image.has_data_file else census.file_size
        odd = (entries & U64(L2_RESERVED)) != 0
        odd |= (host & U64(size - 1)) != 0
        odd |= host > U64(max(0, limit - size))
        if limit < size:
            odd |= there
        if image.has_data_file:
            copied = (entries & U64(COPIED)) != 0
            if self.words == 1:
                copied &= (entries & U64(ZERO_FLAG)) == 0
            there |= copied
        if self.words == 2:
            bitmaps = words[:, 1::2]
            allocated = bitmaps & U64(0xFFFFFFFF)
            odd |= (allocated & (bitmaps >> U64(32))) != 0
            odd |= ~there & (allocated != 0)
        if packed.any():
            there &= ~packed
            odd &= ~packed
            bits = 62 - (shift - 8)
            where = entries & U64((1 << bits) - 1)
            length = (((entries >> U64(bits)) & U64((1 << (shift - 8)) - 1)) + U64(1)) * U64(512) - (where & U64(511))
            last = where + length - U64(1)
            bad = (entries & U64(COPIED)) != 0
            if image.has_data_file:
                bad |= True
            if self.words == 2:
                bad |= bitmaps != 0
            bad |= last >= U64(census.file_size + size - 1)
            odd |= packed & bad
        else:
            packed = None
        bad_rows = odd.any(axis=1)
        good = numpy.flatnonzero(~bad_rows)
        if len(good) < len(words):
            host, there = host[good], there[good]
            if packed is not None:
                packed, where, last = packed[good], where[good], last[good]
        hosts = host[there]
        pieces = []
        if not image.has_data_file:
            pieces.append(hosts >> U64(shift))
            if packed is not None and packed.any():
                low, high = where[packed] >> U64(shift), last[packed] >> U64(shift)
                pieces.append(low)
                while True:
                    low = low + U64(1)
                    more = low <= high
                    if not more.any():
                        break
                    low, high = low[more], high[more]
                    pieces.append(low)
            clusters = numpy.concatenate(pieces) if len(pieces) > 1 else pieces[0]
            if len(clusters):
                top = int(clusters.max()) + 1
                if top > census.clusters:
                    census.clusters = top
                if not self.add_many(clusters, amount):
                    return list(range(len(words)))
        if active:
            result = census.result
            result.allocated_clusters += len(hosts)
            if packed is not None:
                number = int(packed.sum())
                result.allocated_clusters += number
                result.compressed_clusters += number
                result.fragmented_clusters += number
            if len(hosts) > 1:
                rows = numpy.repeat(numpy.arange(len(good)), there.sum(axis=1))
                broken = (hosts[1:] != hosts[:-1] + U64(size)) & (rows[1:] == rows[:-1])
                if image.has_data_file:
                    # the cluster behind guest offset 0 of the data file: "0 follows" can't be told from "nothing yet"
                    broken &= hosts[:-1] + U64(size) != 0
                result.fragmented_clusters += int(broken.sum())
        return numpy.flatnonzero(bad_rows).tolist()

    # -- COPIED flags ---------------------------------------------------------------------------------------------

    def wrong_flags(self, words: Any, single: Any) -> list[int]:
        """The rows with a cluster whose COPIED flag does not say whether ``single[cluster]`` (its count is 1)."""
        census = self.census
        size, shift = census.size, census.shift
        image = census.image
        rows, width = words.shape
        if self.words == 1 and not image.has_data_file and width >= 512:
            whole = (words[:, 1:] - words[:, :-1] == U64(size)).all(axis=1)
            wrong = []
            for row in range(rows):
                first = int(words[row, 0])
                host = first & OFFSET_MASK
                low = host >> shift
                if whole[row] and host and not first & COMPRESSED_FLAG and low + width <= len(single):
                    piece = single[low : low + width]
                    if not (piece.all() if first & COPIED else not piece.any()):
                        wrong.append(row)
                else:
                    wrong.append(row)
            if not wrong:
                return []
        else:
            wrong = list(range(rows))
        part = words if len(wrong) == rows else words[wrong]
        entries = part[:, :: self.words]
        host = entries & U64(OFFSET_MASK)
        there = host != 0
        copied = (entries & U64(COPIED)) != 0
        if image.has_data_file:
            there |= copied if self.words == 2 else copied & ((entries & U64(ZERO_FLAG)) == 0)
            bad = there & ~copied
        else:
            there &= (entries & U64(COMPRESSED_FLAG)) == 0
            clusters = host[there] >> U64(shift)
            inside = clusters < U64(len(single))
            one = numpy.zeros(len(clusters), bool)
            one[inside] = single[clusters[inside]]
            bad = numpy.zeros(there.shape, bool)
            bad[there] = one != copied[there]
        rows_bad: list[int] = numpy.flatnonzero(bad.any(axis=1)).tolist()
        return [wrong[row] for row in rows_bad]
