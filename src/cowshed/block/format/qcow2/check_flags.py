"""The judgement of a check over COPIED flags: they must say whether their cluster's count is 1."""

from __future__ import annotations

from ....arrays import load_numpy
from ....errors import CowshedError
from .census import Aborted, tell
from .check_walk import Walk
from .l2 import COMPRESSED_FLAG, COPIED, L1_OFFSET_MASK, OFFSET_MASK, ZERO_FLAG
from .ledger import Unreadable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from array import array
    from collections.abc import Iterator
    from typing import Any


class Flags(Walk):
    """Flags against reference counts."""

    def _copied_flags(self) -> None:
        """Tell, and mend, flags of the active tables that don't say whether their cluster's count is 1."""
        image, result, census = self.image, self.result, self.census
        repair = self.fix_errors or (self.fix_leaks and not (result.check_errors or result.corruptions or result.leaks))
        l1 = image.read_table(image.header.l1_table_offset, image.header.l1_size)
        wrong: dict[int, int] = {}
        # L1 entries with a table to look at, and whether the entry's own flag is wrong
        todo: list[int] = []
        for index, entry in enumerate(l1):
            offset = entry & L1_OFFSET_MASK
            if not offset:
                continue
            try:
                count = self.ledger.get(offset >> image.cluster_bits)
            except Unreadable:
                continue
            if (count == 1) != bool(entry & COPIED):
                wrong[index] = count
            todo.append(index)
        fixed = set()
        for index in self._doubtful(l1, todo, wrong):
            entry = l1[index]
            if index in wrong:
                word = "Repairing" if repair else "ERROR"
                tell(
                    result,
                    f"{word} OFLAG_COPIED L2 cluster: l1_index={index} l1_entry={entry:x} refcount={wrong[index]}",
                )
                if repair:
                    l1[index] = entry | COPIED if wrong[index] == 1 else entry & ~COPIED
                    fixed.add(index)
                    result.corruptions_fixed += 1
                else:
                    result.corruptions += 1
            self._copied_in(entry & L1_OFFSET_MASK, repair)
        if fixed:
            writable: Any = image
            writable.write_table_entries(image.header.l1_table_offset, l1, fixed)
        if fixed or census.changed:
            image.file.flush()
            self.changed = True

    def _doubtful(self, l1: array[int], todo: list[int], wrong: dict[int, int]) -> Iterator[int]:
        """The L1 entries of ``todo`` that have something to tell, as far as a quick look can say."""
        bulk = self.census.bulk
        if bulk is None:
            yield from todo
            return
        load_numpy()
        import numpy

        from .census_bulk import BATCH, sparse_zeroes

        single = sparse_zeroes(self.census, self.census.clusters, bool)
        per_block = self.ledger.per_block
        for number in self.ledger.described():
            low = number * per_block
            if low < len(single):
                try:
                    block = self.ledger.block(number)
                except Unreadable:
                    yield from todo
                    return
                if block is not None:
                    part = single[low : low + per_block]
                    part[:] = numpy.frombuffer(block, dtype=f"u{block.itemsize}")[: len(part)] == 1
        size = self.image.cluster_size
        last = self.census.file_size - size
        step = max(1, BATCH // size)
        for start in range(0, len(todo), step):
            indexes = todo[start : start + step]
            plain = [index for index in indexes if not l1[index] & L1_OFFSET_MASK & (size - 1)]
            plain = [index for index in plain if l1[index] & L1_OFFSET_MASK <= last]
            doubtful = set(indexes) - set(plain) | wrong.keys() & set(indexes)
            if plain:
                words = bulk.read([l1[index] & L1_OFFSET_MASK for index in plain])
                doubtful.update(plain[row] for row in bulk.wrong_flags(words, single))
            yield from sorted(doubtful)

    def _copied_in(self, offset: int, repair: bool) -> None:
        """The flags of one L2 table."""
        image, result, ledger = self.image, self.result, self.ledger
        try:
            table = image.read_table(offset, image.cluster_size // 8)
        except CowshedError as error:
            tell(result, f"ERROR: Could not read L2 table: {error}")
            result.check_errors += 1
            raise Aborted(error) from error
        if not any(table):
            return
        words, size, shift = image.entry_words, image.cluster_size, image.cluster_bits
        entries = table[::words] if words > 1 else table
        dirty: set[int] = set()
        slot, end = 0, len(entries)
        while slot < end:
            entry = entries[slot]
            start = slot
            slot += 1
            if not entry or entry & COMPRESSED_FLAG:
                continue
            host = entry & OFFSET_MASK
            if image.has_data_file:
                there = bool(host) or (bool(entry & COPIED) and (image.extended or not entry & ZERO_FLAG))
                if there and not entry & COPIED:
                    self._wrong_flag(table, start * words, 1, repair, dirty)
                continue
            if not host:
                continue
            expected = entry + size
            while slot < end and entries[slot] == expected:
                expected += size
                slot += 1
            first = host >> shift
            flag = bool(entry & COPIED)
            at = 0
            while at < slot - start:
                index, inner = divmod(first + at, ledger.per_block)
                take = min(slot - start - at, ledger.per_block - inner)
                try:
                    block = ledger.block(index)
                except Unreadable:
                    at += take
                    continue
                piece = None if block is None else block[inner : inner + take]
                ones = 0 if piece is None else piece.count(1)
                if ones != (take if flag else 0):
                    for number in range(take):
                        count = 0 if piece is None else piece[number]
                        if (count == 1) != flag:
                            self._wrong_flag(table, (start + at + number) * words, count, repair, dirty)
                at += take
        if dirty:
            self._write_l2(offset, table, dirty)

    def _wrong_flag(self, table: array[int], at: int, count: int, repair: bool, dirty: set[int]) -> None:
        result = self.result
        word = "Repairing" if repair else "ERROR"
        tell(result, f"{word} OFLAG_COPIED data cluster: l2_entry={table[at]:x} refcount={count}")
        if repair:
            table[at] = table[at] | COPIED if count == 1 else table[at] & ~COPIED
            dirty.add(at)
            result.corruptions_fixed += 1
        else:
            result.corruptions += 1

    def _write_l2(self, offset: int, table: array[int], dirty: set[int]) -> None:
        """Write the changed sectors of an L2 table, unless what is there is other metadata too."""
        image: Any = self.image
        self._guard(offset, "ERROR: Could not write L2 table; metadata overlap check failed: Input/output error")
        image.write_table_entries(offset, table, dirty)
        self.changed = True
        self.census.changed = True
