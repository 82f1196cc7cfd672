"""Extent trees, for reading (kernel documentation, 4.4 "Extent Tree")."""

from __future__ import annotations

import struct

from ....errors import CorruptError
from .crc import crc32c

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from .inode import Inode
    from .volume import Volume

MAGIC = 0xF30A
HEADER = struct.Struct("<HHHHI")
ENTRY = struct.Struct("<IHHI")  # leaf: block, length, start high, start low
INDEX = struct.Struct("<IIHH")  # index: block, leaf low, leaf high
#: a leaf's length above this is of an unwritten extent
UNWRITTEN = 32768
MAX_DEPTH = 5
#: block numbers of files end here
END = 1 << 32


class Run:
    """Blocks of a file that lie together: ``first`` in the file, ``count``, ``place`` on the device."""

    __slots__ = ("count", "first", "place", "unwritten")

    def __init__(self, first: int, count: int, place: int, unwritten: bool = False) -> None:
        self.first = first
        self.count = count
        self.place = place
        self.unwritten = unwritten

    def __repr__(self) -> str:
        return f"<Run {self.first}+{self.count} at {self.place}{' unwritten' if self.unwritten else ''}>"


def runs(volume: Volume, inode: Inode, first: int = 0, end: int = END, seen: list[int] | None = None) -> Iterator[Run]:
    """The runs that reach into blocks [first, end) of a file, whole, in order; holes are left out.

    ``seen`` takes the numbers of the tree's own blocks. Raises CorruptError for trees that break their rules: every
    walk ends, since depths fall, blocks of the tree are distinct and blocks of the file grow.
    """
    blocks: set[int] = set()
    yield from _walk(volume, inode, inode.block, None, -1, first, end, 0, END, blocks, seen)


def _walk(
    volume: Volume,
    inode: Inode,
    node: bytes | bytearray,
    number: int | None,
    depth: int,
    first: int,
    end: int,
    low: int,
    high: int,
    blocks: set[int],
    seen: list[int] | None,
) -> Iterator[Run]:
    magic, count, room, level, _ = HEADER.unpack_from(node)
    where = f"extent tree of inode {inode.number}"
    if magic != MAGIC:
        raise _wrong(where, number, "eh_magic", f"{magic:#06x}")
    if count > room or 12 + 12 * room > len(node):
        raise _wrong(where, number, "eh_entries", count)
    if level > MAX_DEPTH or (depth >= 0 and level != depth):
        raise _wrong(where, number, "eh_depth", level)
    if number is not None and volume.sb.metadata_csum:
        tail = 12 + 12 * room
        if tail + 4 <= len(node):
            stored = int.from_bytes(node[tail : tail + 4], "little")
            summed = crc32c(inode.seed, node[:tail])
            if stored != summed:
                raise _wrong(where, number, "eb_checksum", f"{stored:#010x} instead of {summed:#010x}")
    at = low
    if not level:
        for block, length, place_high, place in ENTRY.iter_unpack(node[12 : 12 + 12 * count]):
            unwritten = length > UNWRITTEN
            if unwritten:
                length -= UNWRITTEN
            if block < at or not length or block + length > high:
                raise _wrong(where, number, "ee_block", block)
            at = block + length
            place |= place_high << 32
            volume.check(place, length, where)
            if at > first and block < end:
                yield Run(block, length, place, unwritten)
        return
    if not count:
        raise _wrong(where, number, "eh_entries", 0)
    entries = [(block, leaf | leaf_high << 32) for block, leaf, leaf_high, _ in
               INDEX.iter_unpack(node[12 : 12 + 12 * count])]  # fmt: skip
    for position, (block, leaf) in enumerate(entries):
        after = entries[position + 1][0] if position + 1 < count else high
        if block < at or after <= block or after > high:
            raise _wrong(where, number, "ei_block", block)
        at = after
        if seen is None and (after <= first or block >= end):
            continue
        if leaf in blocks:
            raise _wrong(where, number, "ei_leaf", leaf)
        blocks.add(leaf)
        if seen is not None:
            seen.append(leaf)
        child = volume.block(leaf, where)
        yield from _walk(volume, inode, child, leaf, level - 1, first, end, block, after, blocks, seen)


def _wrong(where: str, number: int | None, field: str, value: object) -> CorruptError:
    place = "its root" if number is None else f"block {number}"
    return CorruptError(
        f"ext {where}, {place}: {field} is {value}", layer=where, field=field, value=value,
        hint="e2fsck can repair it",
    )  # fmt: skip
