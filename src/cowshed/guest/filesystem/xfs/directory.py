"""Directories of all shapes: in the inode, one block, and data blocks with a hash index (specification, ch. 18)."""

from __future__ import annotations

import errno
import stat
import struct

from ..base import GuestError
from .fork import Fork
from .inode import FORMAT_LOCAL
from .store import damaged

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from .inode import Inode
    from .store import Store

LEAF_OFFSET = 1 << 35  # bytes into the directory at which its hash index begins
FREE_OFFSET = 1 << 36
_KINDS_BY_TYPE = {0: "u", 1: "r", 2: "d", 3: "c", 4: "b", 5: "f", 6: "s", 7: "l"}
MAX_DEPTH = 5


def name_hash(name: bytes) -> int:
    """The hash of names of directories and attributes: each byte into a register that turns by seven bits."""
    value = 0
    for byte in name:
        value = byte ^ (value << 7 & 0xFFFFFFFF | value >> 25)
    return value


def lowered(name: bytes) -> bytes:
    """What an ASCII-case-insensitive directory compares: only A to Z are folded."""
    return name.lower() if name.isascii() else bytes(b + 32 if 65 <= b <= 90 else b for b in name)


class Directory:
    """The entries of one directory inode. GuestError ENOTDIR for other inodes."""

    __slots__ = ("fork", "inode", "parent", "store", "what")

    def __init__(self, store: Store, inode: Inode, fork: Fork | None) -> None:
        if inode.kind != stat.S_IFDIR:
            raise GuestError(errno.ENOTDIR)
        self.store = store
        self.inode = inode
        self.what = f"directory {inode.ino}"
        self.fork = fork
        if fork is not None and inode.nblocks > store.superblock.dblocks:
            raise damaged(self.what, inode.offset, "nblocks", inode.nblocks, f"at most {store.superblock.dblocks}")

    # ---- walking

    def entries(self) -> Iterator[tuple[bytes, int, str]]:
        if self.inode.format == FORMAT_LOCAL:
            yield from self._short_entries()
            return
        seen = False
        for number in self._data_blocks():
            raw, offset, _ = self._data_block(number)
            for _, name, ino, kind in self._block_entries(raw, offset):
                seen = True
                yield name, ino, kind
        if not seen:
            raise damaged(self.what, self.inode.offset, "number of entries", 0, "two or more")

    def _short_entries(self) -> Iterator[tuple[bytes, int, str]]:
        inode = self.inode
        raw = inode.data_fork
        if not 6 <= inode.size <= len(raw):
            raise damaged(self.what, inode.offset, "size", inode.size, f"6 to {len(raw)}")
        raw = raw[: inode.size]
        count, wide = raw[0], raw[1]
        width = 8 if wide else 4
        if len(raw) < 2 + width:
            raise damaged(self.what, inode.offset, "size", inode.size, f"at least {2 + width}")
        yield b".", inode.ino, "d"
        yield b"..", int.from_bytes(raw[2 : 2 + width], "big"), "d"
        at = 2 + width
        typed = 1 if self.store.superblock.ftype else 0
        for _ in range(count):
            length = raw[at] if at < len(raw) else 0
            end = at + 3 + length + typed + width
            if not length or end > len(raw):
                raise damaged(self.what, inode.offset + inode.core + at, "namelen", length, "a name that fits")
            name = raw[at + 3 : at + 3 + length]
            kind = _KINDS_BY_TYPE.get(raw[at + 3 + length], "u") if typed else "u"
            yield self._name(name, inode.offset), int.from_bytes(raw[end - width : end], "big"), kind
            at = end

    def _name(self, name: bytes, offset: int) -> bytes:
        if b"/" in name or b"\0" in name:
            raise damaged(self.what, offset, "name", name, "one without slash or NUL")
        return name

    def _data_blocks(self) -> Iterator[int]:
        """Numbers (in directory blocks) of the data blocks, each once, in order."""
        superblock = self.store.superblock
        per = 1 << superblock.dirblklog
        assert self.fork is not None
        end = LEAF_OFFSET // superblock.blocksize
        following = 0
        for start, count in zip(self.fork.starts, self.fork.counts, strict=True):
            if start >= end:
                return
            first = max(following, start // per)
            following = max(first, min(end, start + count + per - 1) // per)
            yield from range(first, following)

    def block(self, number: int) -> tuple[bytes, int]:
        """(bytes, offset on the device) of a directory block; its parts may lie apart."""
        superblock = self.store.superblock
        count = 1 << superblock.dirblklog
        assert self.fork is not None
        first = number << superblock.dirblklog
        pieces = []
        place = -1
        for start, length, block, _ in self.fork.runs(first, first + count):
            if block is None:
                raise damaged(self.what, self.inode.offset, "block", start, "one that is mapped")
            offset = superblock.block_offset(block, length)
            pieces.append(self.store.read(offset, length << superblock.blocklog))
            if place < 0:
                place = offset
        return b"".join(pieces) if len(pieces) > 1 else pieces[0], place

    def _data_block(self, number: int) -> tuple[bytes, int, bool]:
        """(bytes up to the last entry's end, offset, whether it is the only block, with its index inside)."""
        raw, offset = self.block(number)
        magic = raw[:4]
        what = f"data block of directory {self.inode.ino}"
        if self.store.superblock.v5:
            single = magic == b"XDB3"
            if not single and magic != b"XDD3":
                raise damaged(what, offset, "magic", magic.hex(), "XDD3")
            self.store.verify(raw, offset, 4, what)
            self.store.check_identity(raw, offset, 8, 24, what)
            self.store.check_owner(raw, offset, 40, self.inode.ino, what)
        else:
            single = magic == b"XD2B"
            if not single and magic != b"XD2D":
                raise damaged(what, offset, "magic", magic.hex(), "XD2D")
        if single:
            count = int.from_bytes(raw[-8:-4], "big")
            end = len(raw) - 8 - count * 8
            if end < self._header or number:
                raise damaged(what, offset, "number of entries", count, "what fits into the first block")
            return raw[:end], offset, True
        return raw, offset, False

    @property
    def _header(self) -> int:
        return 64 if self.store.superblock.v5 else 16

    def _block_entries(self, raw: bytes, offset: int) -> Iterator[tuple[int, bytes, int, str]]:
        """(offset in the block, name, inode, kind) of each entry of a data block."""
        typed = self.store.superblock.ftype
        at, end = self._header, len(raw)
        extra = 12 if typed else 11  # inode, length of the name, kind, tag
        kinds = _KINDS_BY_TYPE
        unpack = struct.Struct(">QB").unpack_from
        what = f"data block of directory {self.inode.ino}"
        while at < end:
            if end - at < 8:
                raise damaged(what, offset + at, "entry", f"{end - at} bytes", "a whole one")
            if raw[at] == 0xFF and raw[at + 1] == 0xFF:
                length = raw[at + 2] << 8 | raw[at + 3]
                if not length or length & 7 or at + length > end:
                    raise damaged(what, offset + at, "length of free space", length, f"at most {end - at}")
                at += length
                continue
            if end - at < 16:
                raise damaged(what, offset + at, "entry", f"{end - at} bytes", "a whole one")
            ino, length = unpack(raw, at)
            step = (length + extra + 7) & ~7
            if not length or at + step > end:
                raise damaged(what, offset + at, "namelen", length, "a name that fits")
            name = raw[at + 9 : at + 9 + length]
            if b"/" in name or b"\0" in name:
                raise damaged(what, offset + at, "name", name, "one without slash or NUL")
            yield at, name, ino, kinds.get(raw[at + 9 + length], "u") if typed else "u"
            at += step

    # ---- looking up

    def lookup(self, name: bytes) -> int | None:
        folded = self.store.superblock.ascii_ci
        wanted = lowered(name) if folded else name
        if name == b".":
            return self.inode.ino
        if self.inode.format == FORMAT_LOCAL:
            for found, ino, _ in self._short_entries():
                if found == wanted or (folded and lowered(found) == wanted):
                    return ino
            return None
        raw, offset, single = self._data_block(0)
        if single:
            # the name's bytes are sought first: most blocks do not hold them
            if not folded and bytes([len(name) & 255]) + name not in raw:
                return None
            for _, found, ino, _ in self._block_entries(raw, offset):
                if found == wanted or (folded and lowered(found) == wanted):
                    return ino
            return None
        return self._indexed(wanted, folded)

    def _indexed(self, name: bytes, folded: bool) -> int | None:
        wanted = name_hash(name)
        superblock = self.store.superblock
        size = superblock.dirblock
        extra = 9 + (1 if superblock.ftype else 0)
        for address in self._addresses(wanted):
            number, inside = divmod(address << 3, size)
            if address << 3 >= LEAF_OFFSET:
                raise damaged(self.what, self.inode.offset, "address of an entry", hex(address), "one of a data block")
            raw, offset, _ = self._data_block(number)
            length = raw[inside + 8] if self._header <= inside <= len(raw) - 16 else 0
            if not length or inside + extra + length > len(raw) or raw[inside : inside + 2] == b"\xff\xff":
                raise damaged(self.what, offset + inside, "address of an entry", hex(address), "an entry")
            found = raw[inside + 9 : inside + 9 + length]
            if found == name or (folded and lowered(found) == name):
                return int.from_bytes(raw[inside : inside + 8], "big")
        return None

    def _addresses(self, wanted: int) -> Iterator[int]:
        """Addresses (in eight bytes) of the entries whose names have a hash, through the index."""
        superblock = self.store.superblock
        number = LEAF_OFFSET // superblock.dirblock
        limit = FREE_OFFSET // superblock.dirblock
        level = -1
        at = self.inode.offset
        what = f"index of directory {self.inode.ino}"
        v5 = superblock.v5
        for _ in range(MAX_DEPTH + 1):
            raw, at = self._index_block(number, what)
            magic = raw[8] << 8 | raw[9]
            if magic not in (0x3EBE, 0xFEBE):
                break
            count, found = struct.unpack_from(">HH", raw, 56 if v5 else 12)
            header = 64 if v5 else 16
            if not 1 <= found <= MAX_DEPTH or (level >= 0 and found != level - 1):
                raise damaged(what, at, "level", found, level - 1 if level >= 0 else f"1 to {MAX_DEPTH}")
            level = found
            if not 1 <= count <= (len(raw) - header) // 8:
                raise damaged(what, at, "count", count, f"1 to {(len(raw) - header) // 8}")
            row = struct.unpack_from(f">{count * 2}I", raw, header)
            following = next((i for i in range(0, count * 2, 2) if row[i] >= wanted), None)
            if following is None:
                return
            number = (row[following + 1] << superblock.blocklog) // superblock.dirblock
            if not LEAF_OFFSET // superblock.dirblock <= number < limit:
                raise damaged(what, at, "block", row[following + 1], "one of the index")
        else:
            raise damaged(what, at, "level", level, "one less than above")
        seen = set()
        while True:
            if number in seen:
                raise damaged(what, at, "forw", number, "a block not met before")
            seen.add(number)
            row, following = self._leaf(raw, at, what)
            index = _first(row, wanted)
            while index < len(row) and row[index] == wanted:
                if row[index + 1]:
                    yield row[index + 1]
                index += 2
            if index < len(row) or not following:
                return
            number = (following << superblock.blocklog) // superblock.dirblock
            if not LEAF_OFFSET // superblock.dirblock <= number < limit:
                raise damaged(what, at, "forw", following, "one of the index")
            raw, at = self._index_block(number, what)

    def _index_block(self, number: int, what: str) -> tuple[bytes, int]:
        raw, offset = self.block(number)
        if self.store.superblock.v5:
            if raw[8:10] not in (b"\x3d\xf1", b"\x3d\xff", b"\x3e\xbe"):
                raise damaged(what, offset, "magic", raw[8:10].hex(), "3df1, 3dff or 3ebe")
            self.store.verify(raw, offset, 12, what)
            self.store.check_identity(raw, offset, 16, 32, what)
            self.store.check_owner(raw, offset, 48, self.inode.ino, what)
        elif raw[8:10] not in (b"\xd2\xf1", b"\xd2\xff", b"\xfe\xbe"):
            raise damaged(what, offset, "magic", raw[8:10].hex(), "d2f1, d2ff or febe")
        return raw, offset

    def _leaf(self, raw: bytes, offset: int, what: str) -> tuple[tuple[int, ...], int]:
        """(hash, address, hash, address …; the next leaf or 0)."""
        v5 = self.store.superblock.v5
        header = 64 if v5 else 16
        if raw[8:10] in (b"\x3e\xbe", b"\xfe\xbe"):
            raise damaged(what, offset, "magic", raw[8:10].hex(), "that of a leaf")
        count = int.from_bytes(raw[header - 8 : header - 6] if v5 else raw[12:14], "big")
        if count > (len(raw) - header) // 8:
            raise damaged(what, offset, "count", count, f"at most {(len(raw) - header) // 8}")
        return struct.unpack_from(f">{count * 2}I", raw, header), int.from_bytes(raw[0:4], "big")


def _first(row: tuple[int, ...], wanted: int) -> int:
    """Index of the first hash that is not below ``wanted`` in (hash, address, …)."""
    low, high = 0, len(row) // 2
    while low < high:
        middle = (low + high) // 2
        if row[middle * 2] < wanted:
            low = middle + 1
        else:
            high = middle
    return low * 2
