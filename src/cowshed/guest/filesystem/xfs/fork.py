"""Forks: the extents of a file's data or attributes, listed in the inode or in a B+tree (specification, ch. 17)."""

from __future__ import annotations

import struct
from array import array
from bisect import bisect_right

from .inode import FORMAT_BTREE, FORMAT_EXTENTS
from .store import damaged

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from .inode import Inode
    from .store import Store

_RECORD = struct.Struct(">QQ")
_NONE = (1 << 64) - 1
MAX_LEVEL = 12


class Fork:
    """The extents of one fork, in file order, in blocks: ``starts``, ``blocks`` (file system block numbers),
    ``counts``; ``unwritten`` has 1 where allocated blocks read as zeroes. CorruptError when they make no sense."""

    __slots__ = ("blocks", "counts", "starts", "tree_blocks", "unwritten")

    def __init__(self, store: Store, inode: Inode, *, attributes: bool = False) -> None:
        self.starts = array("Q")
        self.blocks = array("Q")
        self.counts = array("Q")
        self.unwritten = bytearray()
        self.tree_blocks = 0
        raw = inode.attr_fork if attributes else inode.data_fork
        form = inode.aformat if attributes else inode.format
        wanted = inode.anextents if attributes else inode.nextents
        what = f"inode {inode.ino}"
        if form == FORMAT_EXTENTS:
            if wanted * 16 > len(raw):
                raise damaged(
                    what, inode.offset, "anextents" if attributes else "nextents", wanted, f"at most {len(raw) // 16}"
                )
            self._records(store, raw[: wanted * 16], what, inode.offset)
        elif form == FORMAT_BTREE:
            self._tree(store, inode, raw, wanted)
            if len(self.starts) != wanted:
                raise damaged(what, inode.offset, "number of extents", wanted, f"{len(self.starts)} as in its tree")
        else:
            raise damaged(what, inode.offset, "aformat" if attributes else "format", form, "2 or 3")
        total = sum(self.counts) + self.tree_blocks
        if total > inode.nblocks:
            raise damaged(what, inode.offset, "nblocks", inode.nblocks, f"at least {total}")

    def _records(self, store: Store, raw: bytes, what: str, at: int) -> None:
        starts, blocks, counts, unwritten = self.starts, self.blocks, self.counts, self.unwritten
        block_offset = store.superblock.block_offset
        end = starts[-1] + counts[-1] if starts else 0
        for high, low in _RECORD.iter_unpack(raw):
            start = high >> 9 & 0x3FFFFFFFFFFFFF
            block = (high & 0x1FF) << 43 | low >> 21
            count = low & 0x1FFFFF
            if start < end or not count:
                raise damaged(what, at, "extent", f"{start}+{count}", f"at {end} or later")
            if block_offset(block, count) < 0:
                raise damaged(what, at, "extent's block", f"{block:#x}+{count}", "blocks that exist")
            end = start + count
            starts.append(start)
            blocks.append(block)
            counts.append(count)
            unwritten.append(high >> 63)

    def _tree(self, store: Store, inode: Inode, root: bytes, limit: int) -> None:
        what = f"extent tree of inode {inode.ino}"
        level = int.from_bytes(root[0:2], "big")
        records = int.from_bytes(root[2:4], "big")
        room = (len(root) - 4) // 16
        if not 1 <= level <= MAX_LEVEL:
            raise damaged(what, inode.offset, "level", level, f"1 to {MAX_LEVEL}")
        if not 1 <= records <= room:
            raise damaged(what, inode.offset, "number of records", records, f"1 to {room}")
        first = 4 + room * 8
        pointers = struct.unpack_from(f">{records}Q", root, first)
        seen: set[int] = set()
        self._children(store, inode, pointers, level - 1, seen, limit, what, inode.offset)
        self.tree_blocks = len(seen)

    def _children(
        self,
        store: Store,
        inode: Inode,
        pointers: tuple[int, ...],
        level: int,
        seen: set[int],
        limit: int,
        what: str,
        at: int,
    ) -> None:
        superblock = store.superblock
        header, magic = (72, b"BMA3") if superblock.v5 else (24, b"BMAP")
        room = (superblock.blocksize - header) // 16
        for pointer in pointers:
            offset = store.block_offset(pointer, 1, what, at)
            if pointer in seen:
                raise damaged(what, at, "pointer", hex(pointer), "a block not met before")
            seen.add(pointer)
            raw = store.read(offset, superblock.blocksize)
            if raw[:4] != magic:
                raise damaged(what, offset, "magic", raw[:4].hex(), magic.decode())
            if superblock.v5:
                store.verify(raw, offset, 64, what)
                store.check_identity(raw, offset, 24, 40, what)
                store.check_owner(raw, offset, 56, inode.ino, what)
            found, records = struct.unpack_from(">HH", raw, 4)
            if found != level:
                raise damaged(what, offset, "level", found, level)
            if not 1 <= records <= room:
                raise damaged(what, offset, "number of records", records, f"1 to {room}")
            if level:
                below = struct.unpack_from(f">{records}Q", raw, header + room * 8)
                self._children(store, inode, below, level - 1, seen, limit, what, offset)
            else:
                if len(self.starts) + records > limit:
                    raise damaged(what, offset, "number of records", len(self.starts) + records, f"at most {limit}")
                self._records(store, raw[header : header + records * 16], what, offset)

    # ---- questions

    def at(self, block: int) -> tuple[int, int, bool] | None:
        """(file system block, blocks that follow it, unwritten) of a block of the file, None in a hole."""
        index = bisect_right(self.starts, block) - 1
        if index < 0:
            return None
        inside = block - self.starts[index]
        if inside >= self.counts[index]:
            return None
        return self.blocks[index] + inside, self.counts[index] - inside, bool(self.unwritten[index])

    def runs(self, first: int, end: int) -> Iterator[tuple[int, int, int | None, bool]]:
        """(block of the file, count, file system block or None, unwritten) from ``first`` to ``end`` without gaps."""
        index = max(0, bisect_right(self.starts, first) - 1)
        while first < end and index < len(self.starts):
            start, count = self.starts[index], self.counts[index]
            if start + count > first:
                if start > first:
                    stop = min(start, end)
                    yield first, stop - first, None, False
                    first = stop
                    if first >= end:
                        return
                inside = first - start
                length = min(count - inside, end - first)
                yield first, length, self.blocks[index] + inside, bool(self.unwritten[index])
                first += length
            index += 1
        if first < end:
            yield first, end - first, None, False

    def insert_runs(self, first: int, end: int, block: int | None, unwritten: bool) -> None:
        """Unmap [first, end) (``block`` None) or map it: what an unfinished intent of the log asks for."""
        rows = []
        for start, from_block, count, flag in zip(self.starts, self.blocks, self.counts, self.unwritten, strict=True):
            stop = start + count
            if start < first:
                rows.append((start, from_block, min(stop, first) - start, flag))
            if stop > end:
                skip = max(0, end - start)
                rows.append((start + skip, from_block + skip, count - skip, flag))
        if block is not None:
            rows.append((first, block, end - first, int(unwritten)))
        rows.sort()
        self.starts = array("Q", [row[0] for row in rows])
        self.blocks = array("Q", [row[1] for row in rows])
        self.counts = array("Q", [row[2] for row in rows])
        self.unwritten = bytearray(row[3] for row in rows)
