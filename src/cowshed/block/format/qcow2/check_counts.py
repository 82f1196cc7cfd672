"""The judgement of a check over counts: what the walk counted against what the refcount blocks say."""

from __future__ import annotations

from .census import MESSAGES, tell
from .check_walk import Walk
from .ledger import Unreadable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any


class Counts(Walk):
    """References against reference counts."""

    def _compare(self, fix_leaks: bool, fix_errors: bool, counted: bool = True) -> None:
        """Tell every difference between counts and references, and mend it where asked to.

        ``counted``: leaks that are mended count as such (those of a rebuild's old structures don't).
        """
        result, census, ledger = self.result, self.census, self.ledger
        per_block = ledger.per_block
        clusters = census.clusters
        last = (-1, None, None)  # type: tuple[int, Any, Any]
        for index in self._stretches():
            low = index * per_block
            high = min(low + per_block, clusters)
            found = census.counts[low:high]
            try:
                block = ledger.block(index)
            except Unreadable as problem:
                self._unreadable(problem, low, high)
                continue
            stored: Any = None if block is None else block[: high - low]
            if census.bulk is not None:
                from numpy import flatnonzero, frombuffer

                if stored is None:
                    different = flatnonzero(found)
                    busy = len(different) > 0
                else:
                    stored = frombuffer(stored, dtype=f"u{stored.itemsize}")
                    different = flatnonzero(stored != found)
                    busy = bool(found.any()) or bool(stored.any())
                places = different.tolist()
            else:
                busy = any(found) or (stored is not None and any(stored))
                if stored is None:
                    places = [at for at, count in enumerate(found) if count] if busy else []
                elif stored == found:
                    places = []
                else:
                    places = [at for at, count in enumerate(found) if count != stored[at]]
            if busy:
                last = (low, found, stored)
            for at in places:
                have = 0 if stored is None else int(stored[at])
                self._difference(low + at, have, int(found[at]), fix_leaks, fix_errors, counted)
        low, found, stored = last
        end = 0
        if low >= 0:
            at = len(found) - 1
            while at > 0 and not found[at] and (stored is None or not stored[at]):
                at -= 1
            end = low + at
        result.image_end_offset = (end + 1) << self.image.cluster_bits

    def _stretches(self) -> Iterator[int]:
        """The refcount blocks (those that are missing too) in which something can differ, ascending."""
        census = self.census
        count = (census.clusters + self.ledger.per_block - 1) // self.ledger.per_block
        if census.bulk is None:
            yield from range(count)
        else:
            both = census.bulk.touched.union(self.ledger.described())
            yield from sorted(index for index in both if index < count)

    def _unreadable(self, problem: Unreadable, low: int, high: int) -> None:
        result = self.result
        if problem.offset >= 0 and not self._signalled and not self.fix_errors:
            self._signalled = True
            where = f"Refblock offset {problem.offset:#x} unaligned (reftable index: {_c_hex(problem.index)})"
            if self.fix_leaks:
                # open for writing, which must not go on like this
                self._mark_corrupt()
                text = f"Marking image as corrupt: {where}; further corruption events will be suppressed"
            else:
                text = f"Image is corrupt: {where}; further non-fatal corruption events will be suppressed"
            tell(result, f"qcow2: {text}")
        if len(result.messages) > MESSAGES:
            result.check_errors += high - low
            return
        for cluster in range(low, high):
            tell(result, f"Can't get refcount for cluster {cluster}: {problem.text}")
            result.check_errors += 1

    def _difference(self, cluster: int, have: int, need: int, fix_leaks: bool, fix_errors: bool, counted: bool) -> None:
        result = self.result
        if not have:
            self.rebuild = True
        leak = have > need
        mend = bool(have) and (fix_leaks if leak else fix_errors)
        word = "Repairing" if mend else "Leaked" if leak else "ERROR"
        tell(result, f"{word} cluster {cluster} refcount={have} reference={need}")
        if mend:
            self.ledger.set(cluster, need)
            if not need:
                if self.freed and sum(self.freed[-1]) == cluster:
                    self.freed[-1][1] += 1
                else:
                    self.freed.append([cluster, 1])
            if not counted:
                return
            if leak:
                result.leaks_fixed += 1
            else:
                result.corruptions_fixed += 1
        elif leak:
            result.leaks += 1
        else:
            result.corruptions += 1

    def _give_back(self) -> None:
        """Punch clusters out of the file that were leaked, now that no count holds them.

        Not where the walk met errors: what seems leaked may be what a damaged entry pointed to, and worth saving.
        """
        shift = self.image.cluster_bits
        if not self.walk_errors and not self.census.cut:
            for first, count in self.freed:
                self.image.file.discard(first << shift, count << shift)
        self.freed.clear()


def _c_hex(value: int) -> str:
    """A number as C's ``%#x`` has it."""
    return f"{value:#x}" if value else "0"
