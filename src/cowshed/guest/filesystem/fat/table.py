"""The file allocation table in memory: pages of it that were needed, what was changed in them, and runs of clusters.

An entry is a number of 28 bits whatever the width on disk: 0 free, `END` and above the end of a chain, `BAD` a bad
cluster, all else the next cluster. Chains are handled as runs, found by comparing slices and not entry by entry.
"""

from __future__ import annotations

import sys
from array import array

from ....errors import CorruptError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from ....block.node import Node
    from .boot import Boot

PAGE = 1 << 14
BAD, END, MASK = 0x0FFFFFF7, 0x0FFFFFF8, 0x0FFFFFFF
#: unchanged pages that stay in memory
_KEPT = 256


def unpack12(raw: bytes) -> array[int]:
    """FAT12's entries, two in three bytes; ``raw`` is a multiple of three long."""
    out = array("I", bytes(4 * (len(raw) // 3 * 2)))
    out[0::2] = array("I", [low | (mid & 15) << 8 for low, mid in zip(raw[0::3], raw[1::3], strict=True)])
    out[1::2] = array("I", [mid >> 4 | high << 4 for mid, high in zip(raw[1::3], raw[2::3], strict=True)])
    return out


def pack12(entries: array[int]) -> bytes:
    out = bytearray(len(entries) // 2 * 3)
    out[0::3] = bytes([one & 255 for one in entries[0::2]])
    out[1::3] = bytes([one >> 8 & 15 | (two & 15) << 4 for one, two in zip(entries[0::2], entries[1::2], strict=True)])
    out[2::3] = bytes([two >> 4 & 255 for two in entries[1::2]])
    return bytes(out)


class Runs:
    """A chain: ``starts`` and ``counts`` of its runs of neighbouring clusters, ``ends`` the clusters up to each
    run's end, ``length`` clusters in all; ``whole`` False where the walk stopped before the chain's end."""

    __slots__ = ("counts", "ends", "starts", "whole")

    def __init__(self) -> None:
        self.starts = array("I")
        self.counts = array("I")
        self.ends = array("Q")
        self.whole = True

    @property
    def length(self) -> int:
        return self.ends[-1] if self.ends else 0

    @property
    def last(self) -> int:
        """The last cluster's number."""
        return self.starts[-1] + self.counts[-1] - 1

    def append(self, start: int, count: int) -> None:
        if self.starts and self.starts[-1] + self.counts[-1] == start:
            self.counts[-1] += count
            self.ends[-1] += count
        else:
            self.ends.append(self.length + count)
            self.starts.append(start)
            self.counts.append(count)

    def keep(self, length: int) -> list[tuple[int, int]]:
        """Cut the chain to ``length`` clusters; gives the runs that are left over."""
        gone = []
        while self.length > length:
            extra = min(self.counts[-1], self.length - length)
            gone.append((self.starts[-1] + self.counts[-1] - extra, extra))
            if extra == self.counts[-1]:
                self.starts.pop()
                self.counts.pop()
                self.ends.pop()
            else:
                self.counts[-1] -= extra
                self.ends[-1] -= extra
        return gone[::-1]

    def clip(self, first: int, count: int) -> Iterator[tuple[int, int]]:
        """(start, count) of the runs that make up ``count`` clusters from the ``first`` of the chain on."""
        from bisect import bisect_right

        at = bisect_right(self.ends, first)
        while count > 0 and at < len(self.starts):
            skip = first - (self.ends[at] - self.counts[at])
            step = min(self.counts[at] - skip, count)
            yield self.starts[at] + skip, step
            first += step
            count -= step
            at += 1

    def overlap(self) -> int | None:
        """A cluster that stands in the chain twice."""
        before = 0
        for start, count in sorted(zip(self.starts, self.counts, strict=True)):
            if start < before:
                return start
            before = start + count
        return None


class Table:
    """The FAT of one file system; ``limit`` is one more than the highest cluster."""

    def __init__(self, node: Node, boot: Boot) -> None:
        self.node = node
        self.boot = boot
        self.bits = boot.bits
        self.limit: int = boot.clusters + 2
        self.page_bytes = PAGE * boot.bits // 8
        size = boot.sector_size
        #: bytes of the table that are of use, in whole sectors
        self.used = min(boot.fat_size, -(-self.limit * boot.bits // (8 * size)) * size)
        self.pages: dict[int, array[int]] = {}
        self.before: dict[int, array[int]] = {}
        self.high: dict[int, array[int]] = {}
        #: free clusters where they were counted; where to look next; pages with clusters freed since the last commit,
        #: and those known to have no free ones
        self.free: int | None = None
        self.after = 2
        self.freed: set[int] = set()
        self.full: set[int] = set()

    def page(self, number: int) -> array[int]:
        page = self.pages.get(number)
        if page is None:
            page = self._load(number)
            if len(self.pages) - len(self.before) > _KEPT:
                for old in [one for one in self.pages if one not in self.before][: _KEPT // 2]:
                    del self.pages[old]
                    self.high.pop(old, None)
            self.pages[number] = page
        return page

    def _load(self, number: int) -> array[int]:
        at = number * self.page_bytes
        raw = self.node.read(self.boot.fat_copies()[0] + at, min(self.page_bytes, self.used - at))
        if self.bits == 12:
            page = unpack12(raw + bytes(-len(raw) % 3))
            top = 0xFF7
        elif self.bits == 16:
            small = array("H", raw)
            if sys.byteorder == "big":
                small.byteswap()
            page = array("I", small)
            top = 0xFFF7
        else:
            page = array("I", raw)
            if sys.byteorder == "big":
                page.byteswap()
            if max(page) > MASK:  # the upper four bits belong to nobody and stay as they are
                self.high[number] = array("I", [one & 0xF0000000 for one in page])
                page = array("I", [one & MASK for one in page])
            return page
        # the ends and bad clusters of all widths are one set of numbers here
        if max(page) >= top:
            fill = MASK & ~(0xFFF if self.bits == 12 else 0xFFFF)
            page = array("I", [one | fill if one >= top else one for one in page])
        return page

    def pack(self, number: int, page: array[int]) -> bytes:
        """A page's bytes as they stand on the disk."""
        if self.bits == 12:
            return pack12(page)[: self.used]
        if self.bits == 16:
            small = array("H", [one & 0xFFFF for one in page])
            if sys.byteorder == "big":
                small.byteswap()
            return small.tobytes()
        high = self.high.get(number)
        whole = page if high is None else array("I", [one | two for one, two in zip(page, high, strict=True)])
        if sys.byteorder == "big":
            whole = array("I", whole)
            whole.byteswap()
        return whole.tobytes()

    def get(self, cluster: int) -> int:
        return self.page(cluster // PAGE)[cluster % PAGE]

    def valid(self, cluster: int) -> bool:
        return 2 <= cluster < self.limit

    def damaged(self, cluster: int, value: int, why: str) -> CorruptError:
        at = self.boot.fat_copies()[0] + cluster * self.bits // 8
        return CorruptError(
            f"Damaged FAT: {why} at cluster {cluster}",
            path=self.node.filename, layer="FAT", field=f"entry {cluster}", offset=at, value=f"{value:#x}",
        )  # fmt: skip

    def chain(self, first: int, most: int | None = None) -> Runs:
        """The chain from ``first``, at most ``most`` clusters of it. Raises CorruptError where it leads to a free,
        bad or impossible cluster, or comes back to where it was."""
        runs = Runs()
        if most is None:
            most = self.limit
        cluster = first
        previous = first
        checked = 64
        while cluster < END:
            if not 2 <= cluster < self.limit:
                why = "a bad cluster" if cluster == BAD else "a free cluster" if not cluster else "an impossible one"
                raise self.damaged(previous, cluster, f"the chain leads to {why}")
            if runs.length >= most:
                runs.whole = False
                break
            count, after = self._run(cluster, most - runs.length)
            runs.append(cluster, count)
            if len(runs.starts) >= checked:
                self._check_loop(runs)
                checked *= 2
            previous = cluster + count - 1
            cluster = after
        self._check_loop(runs)
        return runs

    def _check_loop(self, runs: Runs) -> None:
        again = runs.overlap()
        if again is not None:
            raise self.damaged(again, again, "the chain leads back into itself")

    def _run(self, cluster: int, most: int) -> tuple[int, int]:
        """(clusters of a run in one page that follow each other, what the last of them leads to)."""
        page = self.page(cluster // PAGE)
        at = cluster % PAGE
        room = min(len(page) - at, most, self.limit - cluster)
        count = 1
        step = 1
        while count < room:
            # doubling while they follow each other, then halving down to where they cease to
            step = min(step, room - count)
            begin = at + count - 1
            if page[begin : begin + step] == array("I", range(cluster + count, cluster + count + step)):
                count += step
                step *= 2
            elif step == 1:
                break
            else:
                step = 1 if step < 4 else step // 4
        return count, page[at + count - 1]

    # ---- free space

    def count_free(self) -> int:
        """All free clusters, counted once and kept up to date."""
        if self.free is not None:
            return self.free
        total = 0
        for number in range((self.limit + PAGE - 1) // PAGE):
            page = self.page(number)
            end = min(PAGE, self.limit - number * PAGE)
            total += page.count(0) if end == len(page) else page[:end].count(0)
            if not number:
                total -= page[:2].count(0)
        self.free = total
        return total

    # ---- changing

    def _change(self, number: int) -> array[int]:
        """A page that is about to be changed."""
        page = self.page(number)
        if number not in self.before:
            self.before[number] = page[:]
        return page

    def set(self, cluster: int, value: int) -> None:
        self._change(cluster // PAGE)[cluster % PAGE] = value

    def link(self, start: int, count: int, after: int = END | 7) -> None:
        """Make a run a chain that goes on to ``after``."""
        end = start + count
        while start < end:
            number, at = divmod(start, PAGE)
            step = min(end - start, PAGE - at)
            page = self._change(number)
            page[at : at + step] = array("I", range(start + 1, start + 1 + step))
            start += step
        self.set(end - 1, after)

    def release(self, start: int, count: int) -> None:
        """Make a run free."""
        if self.free is not None:
            self.free += count
        while count:
            number, at = divmod(start, PAGE)
            step = min(count, PAGE - at)
            self._change(number)[at : at + step] = array("I", bytes(4 * step))
            self.freed.add(number)
            self.full.discard(number)
            start, count = start + step, count - step

    def allocate(self, count: int, goal: int = 0) -> list[tuple[int, int]] | None:
        """Runs of ``count`` free clusters, from ``goal`` on where it is free; None where there are not so many.

        What was freed since the last commit is taken only when there is nothing else: after a cut the old files are
        still there. The runs are not marked as taken: `link` does that.
        """
        found = self._search(count, goal, False)
        if found is None and self.freed:
            self.full.clear()
            found = self._search(count, goal, True)
        if found is not None:
            self.after = found[-1][0] + found[-1][1]
            if self.free is not None:
                self.free -= count
        return found

    def _search(self, count: int, goal: int, reuse: bool) -> list[tuple[int, int]] | None:
        if not 2 <= goal < self.limit:
            goal = self.after if 2 <= self.after < self.limit else 2
        found: list[tuple[int, int]] = []
        pages = -(-self.limit // PAGE)
        first = goal // PAGE
        # the page of the goal is looked at twice: from there on, and in the end what is before it
        for step in range(pages + 1):
            number = (first + step) % pages
            if number in self.full:
                continue
            low = goal % PAGE if not step else 2 if not number else 0
            high = min(PAGE, self.limit - number * PAGE)
            if step == pages:
                high = min(high, goal % PAGE)
            before = len(found)
            count = self._search_page(number, low, high, count, reuse, found)
            if not count:
                return found
            if len(found) == before and low <= 2 * (not number) and high == min(PAGE, self.limit - number * PAGE):
                self.full.add(number)
        return None

    def _search_page(
        self, number: int, low: int, high: int, count: int, reuse: bool, found: list[tuple[int, int]]
    ) -> int:
        page = self.page(number)
        if number in self.freed and not reuse:
            page = array("I", map(int.__or__, page, self.before[number]))
        while count and low < high:
            try:
                low = page.index(0, low, high)
            except ValueError:
                break
            room = min(high - low, count)
            run = 1
            step = 16
            while run < room:
                step = min(step, room - run)
                if page[low + run : low + run + step] == array("I", bytes(4 * step)):
                    run += step
                    step *= 2
                elif step == 1:
                    break
                else:
                    step = 1 if step < 4 else step // 4
            found.append((number * PAGE + low, run))
            count -= run
            low += run
        return count

    def stages(self) -> list[dict[int, array[int]]]:
        """What is changed, as pages of three steps: new chains and nothing else; then old chains that go on into
        them; then all, with what became free or shorter."""
        first: dict[int, array[int]] = {}
        second: dict[int, array[int]] = {}
        last: dict[int, array[int]] = {}
        for number, before in self.before.items():
            now = self.pages[number]
            pairs = list(zip(before, now, strict=True))
            first[number] = array("I", [old or new for old, new in pairs])
            second[number] = array("I", [old if old and (not new or new >= END) else new for old, new in pairs])
            last[number] = now
        return [first, second, last]

    def committed(self) -> None:
        """The device has what is here."""
        self.before.clear()
        self.freed.clear()
        self.full.clear()
