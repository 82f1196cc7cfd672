"""The blocks of a file that is being changed: a list of runs in memory, brought back as a tree or a map at the end.

A tree that is built anew is as small and as flat as it can be, which is what splits and merges strive for; blocks of
it that come out as they were are not written.
"""

from __future__ import annotations

import errno
import struct
import sys
from array import array
from bisect import bisect_right

from ..base import GuestError
from . import blockmap, extents
from .crc import crc32c
from .extents import ENTRY, HEADER, INDEX, MAGIC, UNWRITTEN, Run
from .inode import EXTENTS

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from .filesystem import ExtFileSystem
    from .inode import Inode
    from .write import Writer


class Mapping:
    """The runs of one inode, in order; ``tree``: blocks that the tree or map takes itself."""

    def __init__(self, fs: ExtFileSystem, inode: Inode) -> None:
        self.fs = fs
        self.inode = inode
        self.tree: list[int] = []
        self.changed = False
        walk = extents.runs if inode.flags & EXTENTS else blockmap.runs
        self.runs = list(walk(fs.volume, inode, seen=self.tree)) if inode.mapped else []
        self.firsts = [run.first for run in self.runs]

    def _index(self, block: int) -> int:
        """The first run that ends after a block."""
        index = bisect_right(self.firsts, block) - 1
        if index >= 0 and self.runs[index].first + self.runs[index].count > block:
            return index
        return index + 1

    def within(self, first: int, end: int) -> Iterator[Run]:
        index = self._index(first)
        while index < len(self.runs) and self.runs[index].first < end:
            yield self.runs[index]
            index += 1

    def goal(self, block: int) -> int | None:
        """Where a block had best be: behind the one before it."""
        index = bisect_right(self.firsts, block) - 1
        if index < 0:
            return None
        run = self.runs[index]
        return run.place + run.count

    def insert(self, run: Run) -> None:
        """Map blocks that are not mapped."""
        self.changed = True
        index = bisect_right(self.firsts, run.first)
        if index:
            before = self.runs[index - 1]
            if (
                before.first + before.count == run.first
                and before.place + before.count == run.place
                and before.unwritten == run.unwritten
            ):
                before.count += run.count
                return
        self.runs.insert(index, run)
        self.firsts.insert(index, run.first)

    def remove(self, first: int, end: int) -> list[tuple[int, int]]:
        """Take blocks out; (place, count) of what they were."""
        low = high = self._index(first)
        keep: list[Run] = []
        freed: list[tuple[int, int]] = []
        while high < len(self.runs) and self.runs[high].first < end:
            run = self.runs[high]
            start, stop = max(run.first, first), min(run.first + run.count, end)
            if run.first < start:
                keep.append(Run(run.first, start - run.first, run.place, run.unwritten))
            if stop < run.first + run.count:
                keep.append(Run(stop, run.first + run.count - stop, run.place + stop - run.first, run.unwritten))
            freed.append((run.place + start - run.first, stop - start))
            high += 1
        if freed:
            self.changed = True
            self.runs[low:high] = keep
            self.firsts[low:high] = [run.first for run in keep]
        return freed

    # ---- back to the inode

    def store(self, writer: Writer) -> None:
        """Bring the runs into i_block and the blocks of the tree or map."""
        if not self.changed:
            return
        before = len(self.tree)
        if self.inode.flags & EXTENTS:
            self._store_extents(writer)
        else:
            self._store_map(writer)
        self.inode.sectors += (len(self.tree) - before) * (self.fs.block_size // 512)
        self.changed = False

    def _blocks(self, writer: Writer, count: int) -> None:
        """Have ``count`` blocks for the tree, those of before first."""
        while len(self.tree) > count:
            writer.allocator.free(self.tree.pop(), 1)
        while len(self.tree) < count:
            goal = self.tree[-1] + 1 if self.tree else (self.runs[0].place if self.runs else 0)
            self.tree.append(writer.allocator.allocate(goal, 1)[0])

    def _put(self, number: int, data: bytes | bytearray, fresh: bool) -> None:
        volume = self.fs.volume
        if fresh or volume.block(number) != data:
            volume.fresh(number)[:] = data

    def _entries(self) -> list[bytes]:
        out = []
        for run in self.runs:
            most = UNWRITTEN - 1 if run.unwritten else UNWRITTEN
            for at in range(0, run.count, most):
                count = min(most, run.count - at)
                place = run.place + at
                length = count + UNWRITTEN if run.unwritten else count
                out.append(ENTRY.pack(run.first + at, length, place >> 32, place & 0xFFFFFFFF))
        return out

    def _store_extents(self, writer: Writer) -> None:
        size = self.fs.block_size
        room = (size - 12) // 12
        levels = [self._entries()]
        counts = []
        while len(levels[-1]) > 4:
            count = -(-len(levels[-1]) // room)
            counts.append(count)
            levels.append([b""] * count)
            if len(counts) > extents.MAX_DEPTH:
                raise GuestError(errno.EFBIG)
        known = len(self.tree)
        self._blocks(writer, sum(counts))
        at = 0
        entries = levels[0]
        for depth, count in enumerate(counts):
            above = []
            for index in range(count):
                part = entries[index * room : (index + 1) * room]
                number = self.tree[at]
                data = bytearray(size)
                HEADER.pack_into(data, 0, MAGIC, len(part), room, depth, 0)
                body = b"".join(part)
                data[12 : 12 + len(body)] = body
                if self.fs.sb.metadata_csum:
                    tail = 12 + 12 * room
                    data[tail : tail + 4] = crc32c(self.inode.seed, data[:tail]).to_bytes(4, "little")
                self._put(number, data, at >= known)
                above.append(INDEX.pack(int.from_bytes(part[0][:4], "little"), number & 0xFFFFFFFF, number >> 32, 0))
                at += 1
            entries = above
        root = HEADER.pack(MAGIC, len(entries), 4, len(counts), 0) + b"".join(entries)
        self.inode.block = root.ljust(60, b"\0")

    def _store_map(self, writer: Writer) -> None:
        size = self.fs.block_size
        each = size // 4
        direct = blockmap.DIRECT
        root = array("I", bytes(60))
        leaves: dict[int, array[int]] = {}
        for run in self.runs:
            for at in range(run.count):
                block, place = run.first + at, run.place + at
                if block < direct:
                    root[block] = place
                else:
                    number, within = divmod(block - direct, each)
                    leaf = leaves.get(number)
                    if leaf is None:
                        leaf = leaves[number] = array("I", bytes(size))
                    leaf[within] = place
        # what is needed of each level, in the order in which a walk finds it
        plan: dict[tuple[int, int], None] = {}  # (level, number of the leaf it begins with)
        wanted = sorted(leaves)
        for number in wanted:
            rest = number
            if rest < 1:
                level, top = 1, 0
            elif rest < 1 + each:
                level, top = 2, 1
            else:
                level, top = 3, 1 + each
            for step in range(level, 0, -1):
                span = each ** (step - 1)
                begin = top + (number - top) // span * span
                plan[step, begin] = None
        known = len(self.tree)
        self._blocks(writer, len(plan))
        place_of = {item: self.tree[index] for index, item in enumerate(plan)}
        blocks: dict[tuple[int, int], array[int]] = {}
        for level, begin in plan:
            if level == 1:
                blocks[level, begin] = leaves[begin]
            else:
                blocks[level, begin] = array("I", bytes(size))
            top_level, top = (1, 0) if begin < 1 else (2, 1) if begin < 1 + each else (3, 1 + each)
            if level == top_level:
                root[direct + level - 1] = place_of[level, begin]
            else:
                span = each**level
                above = top + (begin - top) // span * span
                blocks[level + 1, above][(begin - above) // each ** (level - 1)] = place_of[level, begin]
        for index, item in enumerate(plan):
            self._put(self.tree[index], _little(blocks[item]), index >= known)
        self.inode.block = _little(root)


def _little(numbers: array[int]) -> bytes:
    if sys.byteorder == "big":
        numbers = array("I", numbers)
        numbers.byteswap()
    return numbers.tobytes()


def empty(uses_extents: bool) -> bytes:
    """i_block of a file without blocks."""
    if not uses_extents:
        return bytes(60)
    return struct.pack("<HHHHI", MAGIC, 0, 4, 0, 0).ljust(60, b"\0")
