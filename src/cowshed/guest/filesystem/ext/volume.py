"""Blocks: a bounded cache of metadata, and what is not on the device (replayed from the journal, or changed)."""

from __future__ import annotations

from bisect import bisect_left

from ....errors import CorruptError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ....block.node import Node
    from ...spool import Spool
    from .superblock import Superblock

#: bytes of clean metadata that are kept
CACHE = 32 << 20


class Volume:
    """The blocks of one file system.

    ``replayed``: blocks that the journal has newer. ``dirty``: metadata blocks that changed since the last sync.
    ``spool``: file data that was written since, None without any.
    """

    def __init__(self, node: Node, sb: Superblock) -> None:
        self.node = node
        self.sb = sb
        self.block_size = sb.block_size
        self.blocks = sb.blocks
        self.replayed: dict[int, bytes] = {}
        self._order: list[int] | None = None
        self.dirty: dict[int, bytearray] = {}
        self.spool: Spool | None = None
        self._clean: dict[int, bytes] = {}
        self._limit = max(16, CACHE // sb.block_size)

    def check(self, block: int, count: int, what: str) -> None:
        """Raises CorruptError when blocks that metadata names are not of this file system."""
        if not self.sb.first_data_block <= block or block + count > self.blocks:
            raise CorruptError(
                f"ext: {what} names blocks {block} to {block + count - 1} of {self.blocks}", layer=what, value=block,
                limit=self.blocks, hint="e2fsck can repair it",
            )  # fmt: skip

    def block(self, number: int, what: str = "metadata", ahead: int = 1) -> bytes | bytearray:
        """One block of metadata, not to be changed. ``ahead``: blocks from it on that will be wanted too."""
        found = self.dirty.get(number)
        if found is not None:
            return found
        clean = self._clean.get(number)
        if clean is not None:
            return clean
        self.check(number, 1, what)
        size = self.block_size
        ahead = max(1, min(ahead, self.blocks - number, self.node.size // size - number, (1 << 18) // size or 1))
        if (number + 1) * size > self.node.size:
            raise CorruptError(
                f"ext: block {number} of {what} lies past the end of the device", layer=what, offset=number * size,
                value=self.blocks, limit=self.node.size // size,
            )  # fmt: skip
        data = self.node.read(number * size, ahead * size)
        if len(self._clean) + ahead > self._limit:
            self._clean.clear()
        for at in range(ahead):
            newer = self.replayed.get(number + at)
            self._clean[number + at] = data[at * size : at * size + size] if newer is None else newer
        return self._clean[number]

    def change(self, number: int, what: str = "metadata") -> bytearray:
        """One block of metadata, to be changed in place."""
        found = self.dirty.get(number)
        if found is None:
            found = self.dirty[number] = bytearray(self.block(number, what))
        return found

    def fresh(self, number: int) -> bytearray:
        """A block of metadata that is new: zeroes, to be filled."""
        found = self.dirty[number] = bytearray(self.block_size)
        return found

    def forget(self, number: int) -> None:
        """A block is no longer metadata."""
        self.dirty.pop(number, None)
        self._clean.pop(number, None)

    def drop_cache(self) -> None:
        self._clean.clear()

    def settle(self) -> None:
        """What changed is on the device now."""
        for number, data in self.dirty.items():
            self._clean.pop(number, None)
            self.replayed.pop(number, None)
            if len(self._clean) < self._limit:
                self._clean[number] = bytes(data)
        self.dirty.clear()
        self._order = None

    def add_replayed(self, blocks: dict[int, bytes]) -> None:
        self.replayed.update(blocks)
        self._order = None
        self._clean.clear()

    def read_into(self, offset: int, view: memoryview) -> None:
        """Fill ``view`` with file data from a byte offset of the device, as it will be."""
        end = offset + len(view)
        inside = max(0, min(len(view), self.node.size - offset))
        if inside != len(view):
            raise CorruptError(
                "ext: file data lies past the end of the device", layer="file data", offset=offset, value=end,
                limit=self.node.size,
            )  # fmt: skip
        self.node.read_into(offset, view)
        if self.replayed:
            if self._order is None:
                self._order = sorted(self.replayed)
            size = self.block_size
            at = bisect_left(self._order, offset // size)
            while at < len(self._order) and self._order[at] * size < end:
                self._overlay(self._order[at] * size, self.replayed[self._order[at]], offset, view)
                at += 1
        if self.spool is not None:
            self.spool.patch(offset, view)

    @staticmethod
    def _overlay(start: int, data: bytes, offset: int, view: memoryview) -> None:
        low = max(start, offset)
        high = min(start + len(data), offset + len(view))
        view[low - offset : high - offset] = data[low - start : high - start]
