"""Inodes (kernel documentation, 4.1 "Index Nodes"): fields, times, checksum, and the table they are in."""

from __future__ import annotations

import stat as _stat
import struct

from ....errors import CorruptError, FeatureError
from ..base import Stat
from .crc import crc32c
from .superblock import EXTENTS as FEATURE_EXTENTS
from .superblock import HUGE_FILE as FEATURE_HUGE_FILE

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .groups import Groups
    from .volume import Volume

IMMUTABLE = 0x10
APPEND = 0x20
ENCRYPT = 0x800
INDEX = 0x1000
JOURNAL_DATA = 0x4000
HUGE_FILE = 0x40000
EXTENTS = 0x80000
VERITY = 0x100000
EA_INODE = 0x200000
INLINE_DATA = 0x10000000
CASEFOLD = 0x40000000

_BASE = struct.Struct("<HHIiiiIHHIII60sIIII")
_OSD2 = struct.Struct("<HHHHH2x")
_EXTRA = struct.Struct("<HH")
#: inodes kept parsed
_CACHE = 16384


class Inode:
    """One inode: its number, its bytes (``raw``) and their fields; `Inodes.store` brings fields back into bytes.

    ``size`` bytes, ``sectors`` of 512 bytes that it takes, ``block`` the 60 bytes of i_block, ``extra`` is
    i_extra_isize (0 for small inodes), ``acl`` the block of extended attributes.
    """

    __slots__ = (
        "acl", "atime", "block", "btime", "ctime", "dtime", "extra", "flags", "generation", "gid", "mode", "mtime",
        "nlink", "number", "raw", "sectors", "seed", "size", "uid",
    )  # fmt: skip

    def __init__(self, number: int, raw: bytes | bytearray, block_size: int = 4096) -> None:
        self.number = number
        self.raw = bytearray(raw)
        self.mode: int
        self.dtime: int
        self.nlink: int
        self.flags: int
        self.generation: int
        self.block: bytes
        (
            self.mode, uid, size, atime, ctime, mtime, self.dtime, gid, self.nlink, sectors, self.flags, _, self.block,
            self.generation, acl, high, _,
        ) = _BASE.unpack_from(raw)  # fmt: skip
        sectors_high, acl_high, uid_high, gid_high, _ = _OSD2.unpack_from(raw, 0x74)
        self.uid = uid | uid_high << 16
        self.gid = gid | gid_high << 16
        self.acl = acl | acl_high << 32
        self.size = size | high << 32
        self.sectors = sectors | sectors_high << 32
        if self.flags & HUGE_FILE:
            self.sectors *= block_size // 512
        self.extra = 0
        extra = (0, 0, 0)
        self.btime: int | None = None
        if len(raw) > 128:
            self.extra = int.from_bytes(raw[0x80:0x82], "little")
            if self.extra & 3 or 128 + self.extra > len(raw):
                raise CorruptError(
                    f"ext inode {number}: i_extra_isize is {self.extra}", layer=f"inode {number}",
                    field="i_extra_isize", value=self.extra, limit=len(raw) - 128,
                )  # fmt: skip
            if self.extra >= 16:
                extra = struct.unpack_from("<3I", raw, 0x84)
            elif self.extra >= 8:
                extra = (int.from_bytes(raw[0x84:0x88], "little"), 0, 0)
                if self.extra >= 12:
                    extra = (*struct.unpack_from("<2I", raw, 0x84), 0)
            if self.extra >= 24:
                self.btime = _time(*struct.unpack_from("<iI", raw, 0x90))
            elif self.extra >= 20:
                self.btime = _time(struct.unpack_from("<i", raw, 0x90)[0], 0)
        self.ctime = _time(ctime, extra[0])
        self.mtime = _time(mtime, extra[1])
        self.atime = _time(atime, extra[2])
        self.seed = 0

    @property
    def is_dir(self) -> bool:
        return self.mode & 0xF000 == 0x4000

    @property
    def is_file(self) -> bool:
        return self.mode & 0xF000 == 0x8000

    @property
    def is_link(self) -> bool:
        return self.mode & 0xF000 == 0xA000

    @property
    def fast_link(self) -> bool:
        """Is this a symbolic link whose target is in i_block?"""
        return self.is_link and self.size < 60 and not self.flags & (EXTENTS | INLINE_DATA)

    @property
    def mapped(self) -> bool:
        """Does i_block lead to blocks?"""
        if self.flags & INLINE_DATA or self.fast_link:
            return False
        return self.mode & 0xF000 in (0x4000, 0x8000, 0xA000)

    def rdev(self) -> int:
        """The device number of a device node, as makedev(3) encodes it."""
        if self.mode & 0xF000 not in (0x2000, 0x6000):
            return 0
        old, new = struct.unpack_from("<II", self.block)
        import os

        if old:
            return os.makedev(old >> 8 & 0xFF, old & 0xFF)
        return os.makedev(new >> 8 & 0xFFF, new & 0xFF | new >> 12 & 0xFFF00)

    def stat(self, block_size: int) -> Stat:
        found = Stat(self.number, self.mode)
        found.nlink = self.nlink
        found.uid = self.uid
        found.gid = self.gid
        found.rdev = self.rdev()
        found.size = self.size
        found.blksize = block_size
        found.blocks = self.sectors
        if self.flags & INLINE_DATA and self.is_file:
            # as the kernel shows it, so that nobody takes the file for one hole
            found.blocks += self.size + 511 >> 9
        found.atime = self.atime
        found.mtime = self.mtime
        found.ctime = self.ctime
        found.btime = self.btime
        return found

    def pack(self, block_size: int, huge: bool) -> bytearray:
        """Fields back into ``raw``; the checksum is `Inodes`' business."""
        sectors = self.sectors
        self.flags &= ~HUGE_FILE
        if sectors >> (48 if huge else 32):
            if not huge:
                raise FeatureError(
                    "ext: the file takes more space than the file system can count (huge_file)",
                    layer=f"inode {self.number}", field="i_blocks",
                )  # fmt: skip
            sectors //= block_size // 512
            self.flags |= HUGE_FILE
        if self.extra < 16:
            # whole seconds are all that there is room for
            self.ctime, self.mtime, self.atime = (t // 10**9 * 10**9 for t in (self.ctime, self.mtime, self.atime))
        extra = [_pack_time(value) for value in (self.ctime, self.mtime, self.atime)]
        _BASE.pack_into(
            self.raw, 0, self.mode, self.uid & 0xFFFF, self.size & 0xFFFFFFFF, extra[2][0], extra[0][0], extra[1][0],
            self.dtime, self.gid & 0xFFFF, self.nlink, sectors & 0xFFFFFFFF, self.flags,
            int.from_bytes(self.raw[0x24:0x28], "little"), self.block, self.generation,
            self.acl & 0xFFFFFFFF, self.size >> 32, 0,
        )  # fmt: skip
        struct.pack_into(
            "<4H", self.raw, 0x74, sectors >> 32, self.acl >> 32, self.uid >> 16, self.gid >> 16
        )  # fmt: skip
        if self.extra:
            self.raw[0x80:0x82] = self.extra.to_bytes(2, "little")
            for index in range(min(3, (self.extra - 4) // 4)):
                struct.pack_into("<I", self.raw, 0x84 + 4 * index, extra[index][1])
            if self.extra >= 24 and self.btime is not None:
                struct.pack_into("<iI", self.raw, 0x90, *_pack_time(self.btime))
        return self.raw


def _time(seconds: int, extra: int) -> int:
    """Nanoseconds since the epoch of a field and its extra one (two bits of epoch, 30 of nanoseconds)."""
    return (seconds + ((extra & 3) << 32)) * 1_000_000_000 + (extra >> 2)


def _pack_time(value: int) -> tuple[int, int]:
    seconds, nanoseconds = divmod(value, 1_000_000_000)
    seconds = max(-(1 << 31), min(seconds, (1 << 34) - (1 << 31) - 1))
    low = (seconds + (1 << 31) & 0xFFFFFFFF) - (1 << 31)
    return low, (seconds - low >> 32 & 3) | nanoseconds << 2


class Inodes:
    """The inode tables of all groups."""

    def __init__(self, volume: Volume, groups: Groups) -> None:
        self.volume = volume
        self.sb = volume.sb
        self.groups = groups
        self._cache: dict[int, Inode] = {}
        #: inodes that changed since the last sync
        self.changed: dict[int, Inode] = {}

    def forget(self) -> None:
        self._cache.clear()

    def place(self, number: int) -> tuple[int, int]:
        """(block, offset in it) of an inode."""
        sb = self.sb
        if not 1 <= number <= sb.inodes:
            raise CorruptError(
                f"ext: there is no inode {number}", layer="inode", value=number, limit=sb.inodes,
                hint="e2fsck can repair what refers to it",
            )  # fmt: skip
        group, index = divmod(number - 1, sb.inodes_per_group)
        block, offset = divmod(index * sb.inode_size, sb.block_size)
        return self.groups[group].inode_table + block, offset

    def __getitem__(self, number: int) -> Inode:
        found = self.changed.get(number) or self._cache.get(number)
        if found is not None:
            return found
        block, offset = self.place(number)
        sb = self.sb
        within = (number - 1) % sb.inodes_per_group * sb.inode_size // sb.block_size
        data = self.volume.block(block, "inode table", min(16, sb.inode_table_blocks - within))
        raw = data[offset : offset + sb.inode_size]
        inode = Inode(number, raw, sb.block_size)
        if sb.metadata_csum:
            stored, summed = self._sums(inode, raw)
            if stored != summed and any(raw):
                raise CorruptError(
                    f"ext inode {number}: the checksum is {stored:#010x}, its bytes have {summed:#010x}",
                    layer=f"inode {number}", offset=block * sb.block_size + offset, field="i_checksum",
                    value=f"{stored:#010x}", limit=f"{summed:#010x}", hint="e2fsck can repair it",
                )  # fmt: skip
        if len(self._cache) >= _CACHE:
            self._cache.clear()
        self._cache[number] = inode
        return inode

    def live(self, number: int) -> Inode:
        """An inode that is in use. Raises CorruptError for a free one."""
        inode = self[number]
        if not inode.mode or (not inode.nlink and not inode.flags & EA_INODE):
            raise CorruptError(
                f"ext inode {number} is referred to, but it is free", layer=f"inode {number}", field="i_links_count",
                value=inode.nlink, hint="e2fsck can repair it",
            )  # fmt: skip
        return inode

    def _sums(self, inode: Inode, raw: bytes | bytearray) -> tuple[int, int]:
        """The checksum that is stored, and the one that the bytes have."""
        seed = crc32c(self.sb.seed, inode.number.to_bytes(4, "little"))
        inode.seed = seed = crc32c(seed, bytes(raw[0x64:0x68]))
        stored = int.from_bytes(raw[0x7C:0x7E], "little")
        copy = bytearray(raw)
        copy[0x7C:0x7E] = b"\0\0"
        high = inode.extra >= 4
        if high:
            stored |= int.from_bytes(raw[0x82:0x84], "little") << 16
            copy[0x82:0x84] = b"\0\0"
        summed = crc32c(seed, copy)
        return stored, summed if high else summed & 0xFFFF

    def store_seed(self, inode: Inode) -> None:
        """The begin of all checksums of what belongs to a new inode."""
        seed = crc32c(self.sb.seed, inode.number.to_bytes(4, "little"))
        inode.seed = crc32c(seed, bytes(inode.raw[0x64:0x68]))

    def store(self, inode: Inode) -> None:
        """Bring a changed inode into its block, with its checksum."""
        sb = self.sb
        raw = inode.pack(sb.block_size, bool(sb.ro_compat & FEATURE_HUGE_FILE))
        if sb.metadata_csum:
            _, summed = self._sums(inode, raw)
            raw[0x7C:0x7E] = (summed & 0xFFFF).to_bytes(2, "little")
            if inode.extra >= 4:
                raw[0x82:0x84] = (summed >> 16).to_bytes(2, "little")
        block, offset = self.place(inode.number)
        self.volume.change(block, "inode table")[offset : offset + sb.inode_size] = raw
        self._cache[inode.number] = inode

    def extents_by_default(self) -> bool:
        return bool(self.sb.incompat & FEATURE_EXTENTS)


def kind_letter(mode: int) -> str:
    """readdir's letter of a mode."""
    return {
        _stat.S_IFREG: "r", _stat.S_IFDIR: "d", _stat.S_IFLNK: "l", _stat.S_IFBLK: "b", _stat.S_IFCHR: "c",
        _stat.S_IFIFO: "f", _stat.S_IFSOCK: "s",
    }.get(_stat.S_IFMT(mode), "u")  # fmt: skip
