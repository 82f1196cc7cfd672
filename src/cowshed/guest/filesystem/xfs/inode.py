"""Inodes: the core of versions 1 to 3, and where its forks lie (specification, ch. 16)."""

from __future__ import annotations

import stat
import struct

from .store import damaged

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .store import Store

MAGIC = 0x494E
FORMAT_DEV, FORMAT_LOCAL, FORMAT_EXTENTS, FORMAT_BTREE = 0, 1, 2, 3
FLAG_REALTIME = 0x1
FLAG2_REFLINK = 0x2
FLAG2_BIGTIME = 0x8
FLAG2_NREXT64 = 0x10
CORE_V2 = 100
CORE_V3 = 176
#: nanoseconds before the epoch at which the 64-bit times of v5 begin
BIGTIME_EPOCH = (1 << 31) * 1_000_000_000
_TYPES = (stat.S_IFREG, stat.S_IFDIR, stat.S_IFLNK, stat.S_IFCHR, stat.S_IFBLK, stat.S_IFIFO, stat.S_IFSOCK)

_CORE = struct.Struct(">HHBBHIIIHHQQQQQQIIHBBIHHI")


class Inode:
    """One inode. ``raw`` is the whole inode, ``offset`` where it lies on the device; times in nanoseconds.

    ``data_fork`` and ``attr_fork`` are slices of ``raw``.
    """

    __slots__ = (
        "aformat", "anextents", "atime", "attr_fork", "btime", "ctime", "data_fork", "flags", "flags2", "forkoff",
        "format", "gid", "ino", "mode", "mtime", "nblocks", "nextents", "nlink", "offset", "raw", "size", "uid",
        "version",
    )  # fmt: skip

    def __init__(self, store: Store, ino: int) -> None:
        superblock = store.superblock
        offset = superblock.inode_offset(ino)
        if offset < 0:
            raise damaged("inode number", 0, "inode", ino, "an inode that can exist")
        what = f"inode {ino}"
        raw = store.read(offset, superblock.inodesize)
        (
            magic,
            self.mode,
            self.version,
            self.format,
            onlink,
            self.uid,
            self.gid,
            nlink,
            _,
            _,
            big_nextents,
            atime,
            mtime,
            ctime,
            self.size,
            self.nblocks,
            _,
            self.nextents,
            self.anextents,
            self.forkoff,
            self.aformat,
            _,
            _,
            self.flags,
            _,
        ) = _CORE.unpack_from(raw)
        if magic != MAGIC:
            raise damaged(what, offset, "magic", hex(magic), hex(MAGIC))
        self.ino = ino
        self.offset = offset
        self.raw = raw
        self.nlink = onlink if self.version == 1 else nlink
        self.flags2 = 0
        self.btime: int | None = None
        if superblock.v5:
            if self.version != 3:
                raise damaged(what, offset, "version", self.version, 3)
            store.verify(raw, offset, 100, what)
            if int.from_bytes(raw[152:160], "big") != ino:
                raise damaged(what, offset, "ino", int.from_bytes(raw[152:160], "big"), ino)
            if raw[160:176] != superblock.metadata_uuid:
                raise damaged(what, offset, "uuid", raw[160:176].hex(), superblock.metadata_uuid.hex())
            self.flags2 = int.from_bytes(raw[120:128], "big")
            if self.flags2 & FLAG2_NREXT64:
                self.anextents = self.nextents
                self.nextents = big_nextents
            self.btime = self._time(int.from_bytes(raw[144:152], "big"))
        elif self.version not in (1, 2):
            raise damaged(what, offset, "version", self.version, "1 or 2")
        self.atime = self._time(atime)
        self.mtime = self._time(mtime)
        self.ctime = self._time(ctime)
        if not self.mode:
            raise damaged(what, offset, "mode", 0, "an inode in use")
        if stat.S_IFMT(self.mode) not in _TYPES:
            raise damaged(what, offset, "mode", oct(self.mode), "a known type")
        if self.size >> 63:
            raise damaged(what, offset, "size", self.size, "below 2^63")
        core = CORE_V3 if self.version == 3 else CORE_V2
        room = superblock.inodesize - core
        split = self.forkoff << 3
        if split >= room:
            raise damaged(what, offset + 82, "forkoff", self.forkoff, f"below {room >> 3}")
        self.data_fork = raw[core : core + split] if split else raw[core:]
        self.attr_fork = raw[core + split :] if split else b""

    def _time(self, value: int) -> int:
        if self.flags2 & FLAG2_BIGTIME:
            return value - BIGTIME_EPOCH
        seconds, nanoseconds = value >> 32, value & 0xFFFFFFFF
        if seconds >> 31:
            seconds -= 1 << 32
        return seconds * 1_000_000_000 + nanoseconds

    @property
    def core(self) -> int:
        """Bytes before the data fork."""
        return CORE_V3 if self.version == 3 else CORE_V2

    @property
    def kind(self) -> int:
        return stat.S_IFMT(self.mode)
