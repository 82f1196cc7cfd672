"""Directories, for reading (kernel documentation, 4.5): linear, indexed by hash, and inline ones."""

from __future__ import annotations

import struct

from ....errors import CorruptError, FeatureError
from . import htree, xattr
from .crc import crc32c
from .inode import CASEFOLD, ENCRYPT, INDEX, INLINE_DATA, kind_letter
from .superblock import DIR_INDEX, FILETYPE, LARGE_DIR

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from .filesystem import ExtFileSystem
    from .inode import Inode

HEADER = struct.Struct("<IHBB")
KINDS = "urdcbfsl"
TAIL = 12
TAIL_TYPE = 0xDE
#: directories up to this many bytes are kept as names when something is looked up
SMALL = 1 << 20
#: bytes of a directory that are read at once
STEP = 1 << 20


def record_length(raw: int, block_size: int) -> int:
    """rec_len as it is meant (64 KiB does not fit into 16 bits)."""
    if block_size < 65536:
        return raw
    if raw in (65535, 0):
        return block_size
    return raw & 65532 | (raw & 3) << 16


def pack_length(length: int, block_size: int) -> int:
    if length < 65536:
        return length
    return 65535 if length == block_size else length & 65532 | length >> 16 & 3


def is_node(data: bytes | bytearray | memoryview, block_size: int) -> bool:
    """Is this block of an indexed directory a node of the index below the root: one empty entry over all of it?"""
    return not any(data[:4]) and record_length(int.from_bytes(data[4:6], "little"), block_size) == block_size


def parse(
    data: bytes | bytearray, start: int, end: int, block_size: int, where: str, filetype: bool = True
) -> Iterator[tuple[int, int, int, int, bytes]]:
    """(offset, inode, rec_len, file type, name) of each entry within [start, end), the empty ones too."""
    at = start
    unpack = HEADER.unpack_from
    big = block_size >= 65536
    while at < end:
        if at + 8 > end:
            raise _wrong(where, "rec_len", end - at, at)
        inode, length, size, kind = unpack(data, at)
        if big:
            length = record_length(length, block_size)
        if not filetype:
            # the byte was the upper half of the name's length once, and is that of a checksum's entry now
            kind = 0
        if length < 8 or length & 3 or at + length > end or size + 8 > length:
            raise _wrong(where, "rec_len", length, at)
        yield at, inode, length, kind, bytes(data[at + 8 : at + 8 + size])
        at += length


def _wrong(where: str, field: str, value: object, offset: int | None = None) -> CorruptError:
    place = "" if offset is None else f" at offset {offset}"
    return CorruptError(
        f"ext {where}: {field} is {value}{place}", layer=where, field=field, value=value,
        hint="e2fsck can repair it",
    )  # fmt: skip


def dx_sum(data: bytes | bytearray, seed: int, at: int) -> tuple[int, int]:
    """(stored, summed) checksum of an index block, whose limit and count are at offset ``at``."""
    limit, count = struct.unpack_from("<HH", data, at)
    tail = at + 8 * limit
    if tail + 8 > len(data) or count > limit:
        return 0, -1
    stored = int.from_bytes(data[tail + 4 : tail + 8], "little")
    return stored, crc32c(crc32c(seed, data[: at + 8 * count]), bytes(data[tail : tail + 4]) + b"\0\0\0\0")


class Directories:
    """What is in directories."""

    def __init__(self, fs: ExtFileSystem) -> None:
        self.fs = fs
        self.sb = fs.sb
        self.filetype = bool(self.sb.incompat & FILETYPE)
        #: names of small directories: inode -> name -> (inode, type)
        self.names: dict[int, dict[bytes, tuple[int, int]]] = {}
        #: the last hash: what is looked up is often added then
        self._hashed: tuple[bytes, int, tuple[int, int]] = (b"", 0, (0, 0))
        #: blocks whose checksums were right
        self._verified: set[int] = set()

    def forget(self) -> None:
        self.names.clear()
        self._verified.clear()
        self._hashed = (b"", 0, (0, 0))

    def block(self, inode: Inode, logical: int, indexed: bool) -> bytes | bytearray:
        """One block of a directory, verified when it is read for the first time."""
        place = self.block_of(inode, logical)
        volume = self.fs.volume
        data = volume.block(place, "directory")
        if place not in self._verified and place not in volume.dirty:
            self.verify(inode, logical * self.sb.block_size, data, indexed)
            if len(self._verified) > 1 << 16:
                self._verified.clear()
            self._verified.add(place)
        return data

    def hash_version(self, version: int) -> int:
        """With the signedness that the superblock says."""
        if version <= htree.TEA and self.sb.u32(0x160) & 2:
            return version + 3
        return version

    def seed(self) -> tuple[int, ...]:
        return struct.unpack_from("<4I", self.sb.raw, 0xEC)

    def indexed(self, inode: Inode) -> bool:
        return bool(inode.flags & INDEX and self.sb.compat & DIR_INDEX and not inode.flags & INLINE_DATA)

    def blocks(self, inode: Inode) -> Iterator[tuple[int, bytes]]:
        """(offset in the directory, bytes of one block), each verified; few large reads."""
        fs = self.fs
        size = self.sb.block_size
        if inode.size % size or inode.size > (1 << 40):
            raise _wrong(f"directory {inode.number}", "i_size", inode.size)
        indexed = self.indexed(inode)
        seen: set[int] = set()
        for offset, length, place in fs.extents(inode.number, 0, inode.size):
            if place is None:
                # the kernel says so in its log and goes on
                continue
            if place in seen:
                raise _wrong(f"directory {inode.number}", "block", place // size)
            for start in range(0, length, STEP):
                step = min(STEP, length - start)
                data = self._read(place + start, step)
                for at in range(0, step, size):
                    if place + start + at in seen:
                        raise _wrong(f"directory {inode.number}", "block", (place + start + at) // size)
                    seen.add(place + start + at)
                    block = data[at : at + size]
                    # what changed gets its checksum when it is written
                    if (place + start + at) // size not in fs.volume.dirty:
                        self.verify(inode, offset + start + at, block, indexed)
                    yield offset + start + at, block

    def _read(self, place: int, length: int) -> bytes:
        """Blocks of a directory, with what changed of them."""
        volume = self.fs.volume
        size = self.sb.block_size
        if length == size:
            return bytes(volume.block(place // size, "directory"))
        buffer = bytearray(length)
        volume.read_into(place, memoryview(buffer))
        if volume.dirty:
            for at in range(0, length, size):
                newer = volume.dirty.get((place + at) // size)
                if newer is not None:
                    buffer[at : at + size] = newer
        return bytes(buffer)

    def verify(self, inode: Inode, offset: int, block: bytes | bytearray, indexed: bool) -> None:
        """Raises CorruptError when a block's checksum is wrong."""
        if not self.sb.metadata_csum:
            return
        size = self.sb.block_size
        if indexed and (not offset or is_node(block, size)):
            stored, summed = dx_sum(block, inode.seed, 0x20 if not offset else 8)
        else:
            tail = size - TAIL
            _, length, name, kind = HEADER.unpack_from(block, tail)
            if length != TAIL or name or kind != TAIL_TYPE:
                raise _wrong(f"directory {inode.number}", "checksum's entry", "missing", offset + tail)
            stored = int.from_bytes(block[size - 4 :], "little")
            summed = crc32c(inode.seed, block[:tail])
        if stored != summed:
            raise _wrong(f"directory {inode.number}", "checksum", f"{stored:#010x} instead of {summed:#010x}", offset)

    def entries(self, inode: Inode) -> Iterator[tuple[bytes, int, int]]:
        """(name, inode, file type) of all entries; "." and ".." too."""
        where = f"directory {inode.number}"
        size = self.sb.block_size
        if inode.flags & ENCRYPT:
            raise FeatureError(f"Directory {inode.number} is encrypted (feature encrypt)", layer="ext")
        if inode.flags & INLINE_DATA:
            parent = int.from_bytes(inode.block[:4], "little")
            yield b".", inode.number, 2
            yield b"..", parent, 2
            more = xattr.inline_data(inode)
            for data, start in ((inode.block, 4), (more, 0)):
                if inode.size <= 60 and data is more:
                    break
                for _, number, _, kind, name in parse(data, start, len(data), size, where, self.filetype):
                    if number:
                        yield name, number, kind
            return
        indexed = self.indexed(inode)
        for offset, block in self.blocks(inode):
            if indexed and offset and is_node(block, size):
                continue
            for _, number, _, kind, name in parse(block, 0, size, size, where, self.filetype):
                if number:
                    yield name, number, kind

    def listing(self, inode: Inode) -> Iterator[tuple[bytes, int, str]]:
        for name, number, kind in self.entries(inode):
            if self.filetype and kind < 8:
                yield name, number, KINDS[kind]
            else:
                yield name, number, self._letter(number)

    def _letter(self, number: int) -> str:
        try:
            return kind_letter(self.fs.inodes[number].mode)
        except CorruptError:
            return "u"

    def lookup(self, inode: Inode, name: bytes) -> tuple[int, int] | None:
        """(inode, file type) behind a name."""
        found = self._lookup(inode, name)
        if found is None and inode.flags & CASEFOLD and any(byte > 64 for byte in name):
            raise FeatureError(
                f"Directory {inode.number} ignores case (feature casefold): names are found only as they are written",
                layer="ext",
            )  # fmt: skip
        return found

    def _lookup(self, inode: Inode, name: bytes) -> tuple[int, int] | None:
        names = self.names.get(inode.number)
        if names is not None:
            return names.get(name)
        if inode.size > SMALL:
            if self.indexed(inode) and not inode.flags & (CASEFOLD | ENCRYPT):
                return self._search(inode, name)
            for found, number, kind in self.entries(inode):
                if found == name:
                    return number, kind
            return None
        if sum(map(len, self.names.values())) > 100_000:
            self.names.clear()
        names = self.names[inode.number] = {}
        for found, number, kind in self.entries(inode):
            names.setdefault(found, (number, kind))
        return names.get(name)

    # -- the index

    @property
    def levels(self) -> int:
        """Levels that an index may have, its root among them."""
        return 3 if self.sb.incompat & LARGE_DIR else 2

    def block_of(self, inode: Inode, logical: int, lookup: Callable[[Inode, int], int | None] | None = None) -> int:
        """The block on the device that holds a directory's block."""
        place = self.fs.place(inode, logical)
        if place is None:
            raise _wrong(f"index of directory {inode.number}", "block", logical)
        return place

    def path(self, inode: Inode, hashed: int) -> list[tuple[int, int, int]]:
        """From the root of the index down to the leaf for a hash: (block in the directory, offset of limit and count,
        position of the entry taken)."""
        where = f"index of directory {inode.number}"
        size = self.sb.block_size
        limit = self.levels
        logical, at = 0, 0x20
        found: list[tuple[int, int, int]] = []
        block = self.block(inode, 0, True)
        levels = block[0x1E]
        if block[0x1D] != 8 or levels >= limit or int.from_bytes(block[0x18:0x1C], "little"):
            raise _wrong(where, "dx_root_info", bytes(block[0x18:0x20]).hex())
        while True:
            room, count = struct.unpack_from("<HH", block, at)
            if not count or count > room or at + 8 * room > size:
                raise _wrong(where, "count", count, logical * size)
            low, high = 1, count
            while low < high:
                middle = low + high >> 1
                if int.from_bytes(block[at + 8 * middle : at + 8 * middle + 4], "little") > hashed:
                    high = middle
                else:
                    low = middle + 1
            found.append((logical, at, low - 1))
            if len(found) > levels:
                return found
            logical = int.from_bytes(block[at + 8 * low - 4 : at + 8 * low], "little") & 0x0FFFFFFF
            if any(logical == item[0] for item in found):
                raise _wrong(where, "block", logical)
            at = 8
            block = self.block(inode, logical, True)
            if not is_node(block, size):
                raise _wrong(where, "block", logical)

    def _search(self, inode: Inode, name: bytes) -> tuple[int, int] | None:
        if name in (b".", b".."):
            block = self.fs.volume.block(self.block_of(inode, 0), "directory")
            for _, number, _, kind, found in parse(block, 0, 24, self.sb.block_size, f"directory {inode.number}"):
                if found == name:
                    return number, kind
        for logical in self.leaves(inode, name):
            block = self.block(inode, logical, True)
            where = f"directory {inode.number}"
            size = self.sb.block_size
            for _, number, _, kind, found in parse(block, 0, size, size, where, self.filetype):
                if number and found == name:
                    return number, kind
        return None

    def hash(self, inode: Inode, name: bytes) -> tuple[int, int]:
        """The hash of a name in an indexed directory."""
        last = self._hashed
        if last[0] == name and last[1] == inode.number:
            return last[2]
        root = self.fs.volume.block(self.block_of(inode, 0), "directory")
        version = self.hash_version(root[0x1C])
        if version > htree.TEA_UNSIGNED:
            raise FeatureError(f"Directory {inode.number} is indexed by an unknown hash ({version})", layer="ext")
        found = htree.hash_name(name, version, self.seed())
        self._hashed = (name, inode.number, found)
        return found

    def leaves(self, inode: Inode, name: bytes) -> Iterator[int]:
        """The directory's blocks that may hold a name: one, and those after it that go on with the same hash."""
        hashed = self.hash(inode, name)[0]
        path = self.path(inode, hashed)
        volume = self.fs.volume
        steps = 0
        while True:
            logical, at, position = path[-1]
            block = volume.block(self.block_of(inode, logical), "directory")
            entry = at + 8 * position
            yield int.from_bytes(block[entry + 4 : entry + 8], "little") & 0x0FFFFFFF
            # the next leaf is of interest when its hash is marked as going on with this one
            follow = self.next_hash(inode, path)
            steps += 1
            if follow is None or follow != hashed | 1 or steps > 4096:
                return

    def next_hash(self, inode: Inode, path: list[tuple[int, int, int]]) -> int | None:
        """Go on to the next leaf in ``path``; its hash, None at the end."""
        volume = self.fs.volume
        level = len(path) - 1
        while level >= 0:
            logical, at, position = path[level]
            block = volume.block(self.block_of(inode, logical), "directory")
            count = int.from_bytes(block[at + 2 : at + 4], "little")
            if position + 1 < count:
                break
            level -= 1
        else:
            return None
        path[level] = (logical, at, position + 1)
        entry = at + 8 * (position + 1)
        hashed = int.from_bytes(block[entry : entry + 4], "little")
        child = int.from_bytes(block[entry + 4 : entry + 8], "little") & 0x0FFFFFFF
        for below in range(level + 1, len(path)):
            path[below] = (child, 8, 0)
            data = volume.block(self.block_of(inode, child), "directory")
            child = int.from_bytes(data[12:16], "little") & 0x0FFFFFFF
        return hashed
