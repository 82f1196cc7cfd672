"""The reference counts of a qcow2 image as its refcount blocks have them, for a check: any of them may be damaged.

Specification: qcow2.txt, "Host cluster management".
"""

from __future__ import annotations

import errno
import os

from ....errors import CowshedError
from .refcounts import OFFSET_MASK as BLOCK_MASK
from .refcounts import decode_block, encode_block

TYPE_CHECKING = False
if TYPE_CHECKING:
    from array import array

    from .node import Qcow2Map

#: bytes of decoded refcount blocks kept
KEEP = 64 << 20


class Unreadable(Exception):
    """A refcount block that can't be had; ``text`` is the reason for people."""

    def __init__(self, index: int, offset: int, text: str) -> None:
        super().__init__(text)
        self.index = index
        self.offset = offset
        self.text = text


class Ledger:
    """The counts as they are stored, and changes to them until ``flush``."""

    def __init__(self, image: Qcow2Map) -> None:
        header = image.header
        self.image = image
        self.bits = header.refcount_bits
        self.per_block = image.cluster_size * 8 // self.bits
        self.offset = header.refcount_table_offset
        self.table = image.read_table(self.offset, header.refcount_table_clusters * image.cluster_size // 8)
        self.blocks: dict[int, array[int]] = {}
        self.dirty: set[int] = set()
        self.keep = max(64, KEEP // (self.per_block * max(1, self.bits // 8)))

    def block(self, index: int) -> array[int] | None:
        """Refcount block ``index``; None where there is none. Raises Unreadable."""
        found = self.blocks.get(index)
        if found is not None:
            return found
        offset = self.table[index] & BLOCK_MASK if index < len(self.table) else 0
        if not offset:
            return None
        size = self.image.cluster_size
        if offset >> 63:
            raise Unreadable(index, -1, os.strerror(errno.EIO))
        if offset & (size - 1):
            raise Unreadable(index, offset, os.strerror(errno.EIO))
        try:
            inside = max(0, min(size, self.image.file.size - offset))
            data = self.image.file.read(offset, inside) if inside else b""
        except CowshedError as error:
            raise Unreadable(index, -1, os.strerror(error.errno or errno.EIO)) from error
        if len(self.blocks) >= self.keep:
            for old in [number for number in self.blocks if number not in self.dirty][: self.keep // 2]:
                del self.blocks[old]
        found = decode_block(data.ljust(size, b"\0"), self.bits)
        self.blocks[index] = found
        return found

    def get(self, cluster: int) -> int:
        """The count of a cluster. Raises Unreadable."""
        index, slot = divmod(cluster, self.per_block)
        block = self.block(index)
        return 0 if block is None else block[slot]

    def described(self) -> list[int]:
        """The blocks that there are."""
        return [index for index, entry in enumerate(self.table) if entry & BLOCK_MASK]

    def set(self, cluster: int, value: int) -> None:
        """Change the count of a cluster that a block describes."""
        index, slot = divmod(cluster, self.per_block)
        block = self.block(index)
        assert block is not None
        block[slot] = value
        self.dirty.add(index)

    def flush(self) -> None:
        """Write what was changed; durable when this returns."""
        if self.dirty:
            for index in sorted(self.dirty):
                self.image.file.write(self.table[index] & BLOCK_MASK, encode_block(self.blocks[index], self.bits))
            self.dirty.clear()
            self.image.file.flush()
