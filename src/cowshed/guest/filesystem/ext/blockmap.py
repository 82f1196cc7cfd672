"""Block maps of ext2 and ext3, for reading: 12 direct blocks, then one, two and three levels of indirect ones."""

from __future__ import annotations

import sys
from array import array

from ....errors import CorruptError
from .extents import Run

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from .inode import Inode
    from .volume import Volume

DIRECT = 12


def numbers(data: bytes | bytearray) -> array[int]:
    """Block numbers of an indirect block."""
    found = array("I")
    found.frombytes(data)
    if sys.byteorder == "big":
        found.byteswap()
    return found


def limit(block_size: int) -> int:
    """Blocks that a map can name."""
    each = block_size // 4
    return DIRECT + each + each**2 + each**3


def runs(
    volume: Volume, inode: Inode, first: int = 0, end: int = 1 << 40, seen: list[int] | None = None
) -> Iterator[Run]:
    """The runs that reach into blocks [first, end) of a file, cut to that range, in order; holes are left out.

    ``seen`` takes the numbers of the map's own blocks. Raises CorruptError; ends, since blocks of the map are distinct.
    """
    where = f"block map of inode {inode.number}"
    total = volume.blocks
    low = volume.sb.first_data_block
    last: Run | None = None
    for at, places in _leaves(volume, inode, first, end, where, seen):
        for place in places:
            if place:
                if not low <= place < total:
                    volume.check(place, 1, where)
                if last is not None and last.place + last.count == place and last.first + last.count == at:
                    last.count += 1
                else:
                    if last is not None:
                        yield last
                    last = Run(at, 1, place)
            at += 1
    if last is not None:
        yield last


def _leaves(
    volume: Volume, inode: Inode, first: int, end: int, where: str, seen: list[int] | None
) -> Iterator[tuple[int, array[int]]]:
    """(first block of the file, block numbers) of each stretch of the map within the range."""
    root = numbers(inode.block)
    if first < DIRECT:
        yield first, root[first : min(end, DIRECT)]
    each = volume.block_size // 4
    at = DIRECT
    blocks: set[int] = set()
    for level in (1, 2, 3):
        span = each**level
        number = root[DIRECT + level - 1]
        if number and at < end and at + span > first:
            yield from _indirect(volume, number, level, at, first, end, where, blocks, seen)
        at += span


def _indirect(
    volume: Volume,
    number: int,
    level: int,
    at: int,
    first: int,
    end: int,
    where: str,
    blocks: set[int],
    seen: list[int] | None,
) -> Iterator[tuple[int, array[int]]]:
    if number in blocks:
        raise CorruptError(
            f"ext {where}: indirect block {number} is there twice", layer=where, value=number,
            hint="e2fsck can repair it",
        )  # fmt: skip
    blocks.add(number)
    if seen is not None:
        seen.append(number)
    entries = numbers(volume.block(number, where))
    if level == 1:
        low = max(0, first - at)
        high = min(len(entries), end - at)
        if low < high:
            yield at + low, entries[low:high]
        return
    span = len(entries) ** (level - 1)
    for position in range(max(0, (first - at) // span), len(entries)):
        start = at + position * span
        if start >= end:
            break
        if entries[position]:
            yield from _indirect(volume, entries[position], level - 1, start, first, end, where, blocks, seen)
