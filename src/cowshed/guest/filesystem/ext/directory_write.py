"""Names in directories are added, taken away and led elsewhere; indexes stay valid, and are begun where the kernel
would begin one."""

from __future__ import annotations

import errno
import struct

from ....errors import CorruptError
from ..base import GuestError
from . import htree
from .content import drop_inline
from .crc import crc32c
from .directory import HEADER, TAIL, TAIL_TYPE, is_node, pack_length, parse, record_length
from .inode import INDEX, INLINE_DATA
from .superblock import DIR_INDEX

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from .inode import Inode
    from .write import Writer

Path = list[tuple[int, int, int]]
#: the last block taken may go up to here
_MOST = (1 << 28) - 1


class DirectoryWriter:
    """Changes of directories' blocks."""

    def __init__(self, writer: Writer) -> None:
        self.writer = writer
        self.fs = writer.fs
        self.sb = writer.sb
        self.size = writer.sb.block_size
        self.end = self.size - (TAIL if writer.sb.metadata_csum else 0)
        self.directories = writer.fs.directories
        # without a journal names are not moved between blocks, since a cut would lose or double them: an index is
        # given up when a name is added, as the kernel's ext2 gives it up
        self._plain = not writer.sb.journal_inode and not writer.sb.metadata_csum
        #: where in a linear directory room was found last
        self._hints: dict[int, int] = {}
        #: blocks that get their checksums at the end: (inode, block, where limit and count of an index are)
        self._unsummed: dict[int, tuple[Inode, bytearray, int]] = {}

    def flush(self) -> None:
        """Changed blocks get their checksums."""
        for inode, block, at in self._unsummed.values():
            if at:
                self._sum_index(inode, block, at)
            else:
                block[self.size - 4 :] = crc32c(inode.seed, block[: self.end]).to_bytes(4, "little")
        self._unsummed.clear()

    # ---- blocks

    def _change(self, inode: Inode, logical: int) -> bytearray:
        return self.fs.volume.change(self.directories.block_of(inode, logical), "directory")

    def _append(self, inode: Inode) -> tuple[int, bytearray]:
        """A new block at the directory's end."""
        logical = inode.size // self.size
        if logical > _MOST:
            raise GuestError(errno.ENOSPC)
        place = self.writer.map_block(inode, logical)
        inode.size += self.size
        self.writer.touch(inode)
        return logical, self.fs.volume.fresh(place)

    def _finish(self, inode: Inode, block: bytearray) -> None:
        """The checksum of a block of entries."""
        if self.sb.metadata_csum:
            HEADER.pack_into(block, self.end, 0, TAIL, 0, TAIL_TYPE)
            self._unsummed[id(block)] = (inode, block, 0)

    def _finish_index(self, inode: Inode, block: bytearray, at: int) -> None:
        """The checksum of a block of the index."""
        if self.sb.metadata_csum:
            self._unsummed[id(block)] = (inode, block, at)

    @staticmethod
    def _sum_index(inode: Inode, block: bytearray, at: int) -> None:
        if at:
            limit, count = struct.unpack_from("<HH", block, at)
            tail = at + 8 * limit
            crc = crc32c(crc32c(inode.seed, block[: at + 8 * count]), bytes(block[tail : tail + 4]) + b"\0\0\0\0")
            block[tail + 4 : tail + 8] = crc.to_bytes(4, "little")

    def _entry(self, block: bytearray, at: int, length: int, number: int, kind: int, name: bytes) -> None:
        kind = kind if self.directories.filetype else 0
        HEADER.pack_into(block, at, number, pack_length(length, self.size), len(name), kind)
        block[at + 8 : at + 8 + len(name)] = name

    def _pack(self, inode: Inode, block: bytearray, entries: list[tuple[int, int, bytes]]) -> None:
        """A block of just these entries: (inode, type, name)."""
        block[:] = bytes(self.size)
        at = 0
        for index, (number, kind, name) in enumerate(entries):
            length = need(name) if index + 1 < len(entries) else self.end - at
            self._entry(block, at, length, number, kind, name)
            at += length
        if not entries:
            self._entry(block, 0, self.end, 0, 0, b"")
        self._finish(inode, block)

    def begin(self, inode: Inode, parent: int) -> None:
        """The first block of a new directory."""
        _, block = self._append(inode)
        self._pack(inode, block, [(inode.number, 2, b"."), (parent, 2, b"..")])

    # ---- inline

    def unfold(self, inode: Inode) -> None:
        """An inline directory gets blocks."""
        if not inode.flags & INLINE_DATA:
            return
        entries = [(number, kind, name) for name, number, kind in self.directories.entries(inode)]
        drop_inline(self.writer, inode)
        _, block = self._append(inode)
        part: list[tuple[int, int, bytes]] = []
        room = self.end
        for entry in entries:
            if need(entry[2]) > room:
                self._pack(inode, block, part)
                _, block = self._append(inode)
                part, room = [], self.end
            part.append(entry)
            room -= need(entry[2])
        self._pack(inode, block, part)

    # ---- adding

    def add(self, inode: Inode, name: bytes, number: int, kind: int) -> None:
        """A name that is not there yet. GuestError ENOSPC."""
        self.unfold(inode)
        if self._plain and inode.flags & INDEX:
            inode.flags &= ~INDEX
            self.writer.touch(inode)
        if self.directories.indexed(inode):
            self._add_indexed(inode, name, number, kind)
        else:
            self._add_linear(inode, name, number, kind)
        names = self.directories.names.get(inode.number)
        if names is not None:
            names[name] = (number, kind)

    def _insert(self, block: bytearray, name: bytes, number: int, kind: int) -> bool:
        """Put an entry into the room that is left in a block."""
        wanted = need(name)
        end = self.end
        at = 0
        unpack = HEADER.unpack_from
        big = self.size >= 65536
        while at < end:
            # as `parse` verifies entries; this is where adding names spends its time
            inode, length, size, _ = unpack(block, at) if at + 8 <= end else (0, 0, 0, 0)
            if big:
                length = record_length(length, self.size)
            if length < 8 or length & 3 or at + length > end or size + 8 > length:
                raise CorruptError(
                    f"ext directory: rec_len is {length} at offset {at}", layer="directory", field="rec_len",
                    value=length, hint="e2fsck can repair it",
                )  # fmt: skip
            used = size + 11 & ~3 if inode else 0
            if length - used < wanted:
                at += length
                continue
            if inode:
                block[at + 4 : at + 6] = pack_length(used, self.size).to_bytes(2, "little")
                at += used
                length -= used
            self._entry(block, at, length, number, kind, name)
            return True
        return False

    def _add_linear(self, inode: Inode, name: bytes, number: int, kind: int) -> None:
        count = inode.size // self.size
        start = self._hints.get(inode.number, 0) if count > 8 else 0
        volume = self.fs.volume
        for logical in range(start, count):
            place = self.fs.place(inode, logical)
            if place is None:
                continue
            if place not in volume.dirty:
                self.directories.verify(inode, logical * self.size, volume.block(place, "directory"), False)
            if self._insert(volume.change(place, "directory"), name, number, kind):
                self._finish(inode, volume.dirty[place])
                self._hints[inode.number] = logical
                return
        if count == 1 and not self._plain and self.sb.compat & DIR_INDEX and self._begin_index(inode):
            self._add_indexed(inode, name, number, kind)
            return
        logical, block = self._append(inode)
        self._pack(inode, block, [(number, kind, name)])
        self._hints[inode.number] = logical

    # ---- the index

    def _begin_index(self, inode: Inode) -> bool:
        """A directory of one full block becomes an indexed one of two."""
        first = self._change(inode, 0)
        where = f"directory {inode.number}"
        entries = [
            (number, kind, name)
            for _, number, _, kind, name in parse(first, 0, self.end, self.size, where, self.directories.filetype)
            if number
        ]
        if [name for _, _, name in entries[:2]] != [b".", b".."]:
            return False
        parent = entries[1][0]
        _, leaf = self._append(inode)
        self._pack(inode, leaf, entries[2:])
        first[:] = bytes(self.size)
        self._entry(first, 0, 12, inode.number, 2, b".")
        self._entry(first, 12, self.size - 12, parent, 2, b"..")
        version = self.sb.raw[0xFC]
        first[0x1C] = version if version <= htree.TEA else htree.HALF_MD4
        first[0x1D] = 8
        limit = (self.size - 0x20) // 8 - (1 if self.sb.metadata_csum else 0)
        struct.pack_into("<HHI", first, 0x20, limit, 1, 1)
        self._finish_index(inode, first, 0x20)
        inode.flags |= INDEX
        self.writer.touch(inode)
        return True

    def _add_indexed(self, inode: Inode, name: bytes, number: int, kind: int) -> None:
        hashed, _ = self.directories.hash(inode, name)
        path = self.directories.path(inode, hashed)
        logical, at, position = path[-1]
        index = self.fs.volume.block(self.directories.block_of(inode, logical), "directory")
        leaf = int.from_bytes(index[at + 8 * position + 4 : at + 8 * position + 8], "little") & 0x0FFFFFFF
        place = self.directories.block_of(inode, leaf)
        self.directories.block(inode, leaf, True)
        block = self.fs.volume.change(place, "directory")
        if is_node(block, self.size) and self.sb.metadata_csum:
            raise CorruptError(f"ext index of directory {inode.number}: block {leaf} is no leaf", layer="directory")
        if not self._insert(block, name, number, kind):
            block = self._split(inode, path, leaf, block, hashed)
            if not self._insert(block, name, number, kind):
                raise GuestError(errno.ENOSPC)
        self._finish(inode, block)

    def _split(self, inode: Inode, path: Path, leaf: int, block: bytearray, hashed: int) -> bytearray:
        """Half of a leaf moves to a new one; the half that ``hashed`` belongs to."""
        where = f"directory {inode.number}"
        entries = []
        for _, number, _, kind, name in parse(block, 0, self.end, self.size, where, self.directories.filetype):
            if number:
                entries.append((self.directories.hash(inode, name)[0], number, kind, name))
        entries.sort(key=lambda entry: entry[0])
        total = sum(need(entry[3]) for entry in entries)
        half = 0
        middle = 0
        for index, entry in enumerate(entries):
            if half + need(entry[3]) / 2 > total / 2:
                middle = index
                break
            half += need(entry[3])
        middle = max(1, min(middle, len(entries) - 1))
        # room in the index first: nothing of the leaves has changed when there is none
        self._make_room(inode, path, len(path) - 1)
        new, upper = self._append(inode)
        boundary = entries[middle][0]
        goes_on = int(entries[middle - 1][0] == boundary)
        self._pack(inode, block, [entry[1:] for entry in entries[:middle]])
        self._pack(inode, upper, [entry[1:] for entry in entries[middle:]])
        self._index_entry(inode, path[-1], boundary | goes_on, new)
        return upper if hashed >= boundary else block

    def _index_entry(self, inode: Inode, item: tuple[int, int, int], hashed: int, child: int) -> None:
        """A new entry of the index behind the one at ``item``, where there is room."""
        logical, at, position = item
        block = self._change(inode, logical)
        limit, count = struct.unpack_from("<HH", block, at)
        begin = at + 8 * (position + 1)
        block[begin + 8 : at + 8 * (count + 1)] = block[begin : at + 8 * count]
        struct.pack_into("<II", block, begin, hashed, child)
        struct.pack_into("<HH", block, at, limit, count + 1)
        self._finish_index(inode, block, at)

    def _node(self, inode: Inode, entries: bytes) -> tuple[int, bytearray]:
        """A new node of the index. ``entries``: of 8 bytes each, the first one's hash is not kept."""
        logical, block = self._append(inode)
        HEADER.pack_into(block, 0, 0, pack_length(self.size, self.size), 0, 0)
        block[8 : 8 + len(entries)] = entries
        limit = (self.size - 8) // 8 - (1 if self.sb.metadata_csum else 0)
        struct.pack_into("<HH", block, 8, limit, len(entries) // 8)
        self._finish_index(inode, block, 8)
        return logical, block

    def _make_room(self, inode: Inode, path: Path, level: int) -> None:
        """Split what must be so that the node at ``level`` of the path takes another entry; ``path`` follows."""
        logical, at, position = path[level]
        block = self._change(inode, logical)
        limit, count = struct.unpack_from("<HH", block, at)
        if count < limit:
            return
        if level == 0:
            if len(path) >= self.directories.levels:
                raise GuestError(errno.ENOSPC, hint="the directory's index is full")
            # the root's entries go one level down
            new, _ = self._node(inode, bytes(block[at : at + 8 * count]))
            block = self._change(inode, logical)
            block[at : at + 8 * count] = bytes(8 * count)
            struct.pack_into("<HHI", block, at, limit, 1, new)
            block[0x1E] += 1
            self._finish_index(inode, block, at)
            path[0] = (logical, at, 0)
            path.insert(1, (new, 8, position))
            level = 1
            self._fit(inode, path, level)
            return
        self._make_room(inode, path, level - 1)
        level = next(number for number, item in enumerate(path) if item[0] == logical)
        middle = count // 2
        begin = at + 8 * middle
        hashed = int.from_bytes(block[begin : begin + 4], "little")
        new, _ = self._node(inode, bytes(block[begin : at + 8 * count]))
        block = self._change(inode, logical)
        block[begin : at + 8 * count] = bytes(8 * (count - middle))
        struct.pack_into("<HH", block, at, limit, middle)
        self._finish_index(inode, block, at)
        self._index_entry(inode, path[level - 1], hashed, new)
        if position >= middle:
            above = path[level - 1]
            path[level - 1] = (above[0], above[1], above[2] + 1)
            path[level] = (new, 8, position - middle)

    def _fit(self, inode: Inode, path: Path, level: int) -> None:
        """The node that took over the root's entries has room; where it has not (tiny blocks), split it."""
        logical, at, _ = path[level]
        limit, count = struct.unpack_from("<HH", self._change(inode, logical), at)
        if count >= limit:
            self._make_room(inode, path, level)

    # ---- taking away, leading elsewhere

    def _blocks(self, inode: Inode) -> Iterator[int]:
        """The blocks that a directory has, of however many its size speaks."""
        for at, count, place in self.fs.extents(inode.number, 0, inode.size):
            if place is not None:
                yield from range(at // self.size, (at + count) // self.size)

    def _find(self, inode: Inode, name: bytes) -> tuple[int, bytearray, int, int]:
        """(block in the directory, its bytes, offset of the entry before in it or -1, offset of the entry)."""
        where = f"directory {inode.number}"
        volume = self.fs.volume
        indexed = self.directories.indexed(inode)
        candidates: Iterable[int]
        if indexed and name not in (b".", b".."):
            candidates = self.directories.leaves(inode, name)
        elif name in (b".", b".."):
            candidates = (0,)
        else:
            candidates = self._blocks(inode)
        for logical in candidates:
            place = self.fs.place(inode, logical)
            if place is None:
                continue
            block = volume.block(place, where)
            if name not in bytes(block):
                continue
            if place not in volume.dirty:
                self.directories.verify(inode, logical * self.size, block, indexed)
            before = -1
            for at, number, _, _, found in parse(block, 0, self.size, self.size, where, self.directories.filetype):
                if number and found == name:
                    return logical, volume.change(place, where), before, at
                before = at
        raise CorruptError(
            f"ext {where}: an entry that was listed is not found", layer=where, hint="e2fsck can repair it"
        )

    def remove(self, inode: Inode, name: bytes) -> None:
        """Take a name that is there away."""
        self.unfold(inode)
        logical, block, before, at = self._find(inode, name)
        length = record_length(int.from_bytes(block[at + 4 : at + 6], "little"), self.size)
        if before >= 0:
            grown = record_length(int.from_bytes(block[before + 4 : before + 6], "little"), self.size) + length
            block[before + 4 : before + 6] = pack_length(grown, self.size).to_bytes(2, "little")
            block[at : at + 8 + len(name)] = bytes(8 + len(name))
        else:
            HEADER.pack_into(block, at, 0, pack_length(length, self.size), 0, 0)
            block[at + 8 : at + 8 + len(name)] = bytes(len(name))
        self._finish(inode, block)
        if logical < self._hints.get(inode.number, 0):
            self._hints[inode.number] = logical
        names = self.directories.names.get(inode.number)
        if names is not None:
            names.pop(name, None)

    def lead(self, inode: Inode, name: bytes, number: int, kind: int) -> None:
        """A name that is there leads to another inode from now on."""
        self.unfold(inode)
        logical, block, _, at = self._find(inode, name)
        block[at : at + 4] = number.to_bytes(4, "little")
        if self.directories.filetype:
            block[at + 7] = kind
        if logical == 0 and self.directories.indexed(inode):
            self._finish_index(inode, block, 0x20)
        else:
            self._finish(inode, block)
        names = self.directories.names.get(inode.number)
        if names is not None:
            names[name] = (number, kind)


def need(name: bytes) -> int:
    """Bytes that an entry takes."""
    return 8 + len(name) + 3 & ~3
