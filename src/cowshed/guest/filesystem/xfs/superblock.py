"""The superblock: geometry, features, and the arithmetic of block and inode numbers (specification, ch. 11 and 14)."""

from __future__ import annotations

import struct

from ....errors import CorruptError, FeatureError, ForeignError
from ...crc32c import crc32c

MAGIC = b"XFSB"

# sb_versionnum
VERSION_ATTR = 0x10
VERSION_QUOTA = 0x40
VERSION_ALIGN = 0x80
VERSION_LOGV2 = 0x400
VERSION_EXTFLG = 0x1000
VERSION_DIRV2 = 0x2000
VERSION_BORG = 0x4000
VERSION_MORE = 0x8000
# sb_features2
FEATURE2_LAZY_COUNT = 0x2
FEATURE2_ATTR2 = 0x8
FEATURE2_PROJID32 = 0x80
FEATURE2_CRC = 0x100
FEATURE2_FTYPE = 0x200
# sb_features_ro_compat
RO_FINOBT = 0x1
RO_RMAPBT = 0x2
RO_REFLINK = 0x4
RO_INOBTCNT = 0x8
RO_KNOWN = RO_FINOBT | RO_RMAPBT | RO_REFLINK | RO_INOBTCNT
# sb_features_incompat
INCOMPAT_FTYPE = 0x1
INCOMPAT_SPINODES = 0x2
INCOMPAT_META_UUID = 0x4
INCOMPAT_BIGTIME = 0x8
INCOMPAT_NEEDSREPAIR = 0x10
INCOMPAT_NREXT64 = 0x20
INCOMPAT_EXCHRANGE = 0x40
INCOMPAT_PARENT = 0x80
INCOMPAT_KNOWN = (
    INCOMPAT_FTYPE
    | INCOMPAT_SPINODES
    | INCOMPAT_META_UUID
    | INCOMPAT_BIGTIME
    | INCOMPAT_NREXT64
    | INCOMPAT_EXCHRANGE
    | INCOMPAT_PARENT
)
INCOMPAT_NAMES = {0x100: "metadir", 0x200: "zoned", 0x400: "zone_gaps"}

MIN_GROUP = 1 << 24  # bytes
MAX_LOG_BLOCKS, MAX_LOG_BYTES = 1 << 20, 1 << 31

_FIELDS = struct.Struct(">4sI QQQ16sQ QQQ I IIII HHHH 12s 8B QQQQ QQ HBB III BBH I II IIII 4x I Q Q 16s")


class Superblock:
    """The fields that reading needs, under the names of the specification without their ``sb_``.

    Raises ForeignError, CorruptError, FeatureError.
    """

    agblklog: int
    agblocks: int
    agcount: int
    blocklog: int
    blocksize: int
    dblocks: int
    inodelog: int
    inopblock: int
    inodesize: int
    inopblog: int
    logblocks: int
    logstart: int
    rootino: int
    sectsize: int
    uuid: bytes
    meta_uuid: bytes
    features_ro_compat: int
    features_incompat: int
    features_log_incompat: int
    fdblocks: int
    icount: int
    ifree: int
    imax_pct: int
    qflags: int
    dirblklog: int

    def __init__(self, raw: bytes, *, replayed: bool = False) -> None:
        if raw[:4] != MAGIC:
            raise ForeignError("not an XFS file system", layer="superblock", offset=0, value=raw[:4].hex())
        (
            _,
            self.blocksize,
            self.dblocks,
            self.rblocks,
            _,
            self.uuid,
            self.logstart,
            self.rootino,
            self.rbmino,
            self.rsumino,
            _,
            self.agblocks,
            self.agcount,
            _,
            self.logblocks,
            self.versionnum,
            self.sectsize,
            self.inodesize,
            self.inopblock,
            fname,
            self.blocklog,
            self.sectlog,
            self.inodelog,
            self.inopblog,
            self.agblklog,
            _,
            self.inprogress,
            self.imax_pct,
            self.icount,
            self.ifree,
            self.fdblocks,
            _,
            self.uquotino,
            self.gquotino,
            self.qflags,
            _,
            _,
            self.inoalignmt,
            _,
            _,
            self.dirblklog,
            self.logsectlog,
            self.logsectsize,
            self.logsunit,
            self.features2,
            _,
            _,
            self.features_ro_compat,
            self.features_incompat,
            self.features_log_incompat,
            self.spino_align,
            self.pquotino,
            self.lsn,
            self.meta_uuid,
        ) = _FIELDS.unpack_from(raw)
        self.label = fname.split(b"\0")[0].decode("utf-8", "replace")
        self.version = self.versionnum & 15
        if self.version not in (4, 5):
            raise FeatureError(
                f"XFS version {self.version} is not known here", layer="superblock", offset=100, field="versionnum",
                value=hex(self.versionnum), limit="4, 5",
            )  # fmt: skip
        self.v5 = self.version == 5
        self._check_geometry()
        if self.v5:
            self._check_v5(raw, replayed)
        else:
            self.features_ro_compat = self.features_incompat = self.features_log_incompat = 0
        if not self.versionnum & VERSION_DIRV2:
            raise FeatureError(
                "XFS directories of version 1 are not known here", layer="superblock", offset=100, field="versionnum",
                value=hex(self.versionnum),
            )  # fmt: skip
        if self.inprogress:
            raise CorruptError(
                "XFS superblock: mkfs.xfs has not finished this file system", layer="superblock", offset=126,
                field="inprogress", value=self.inprogress,
            )  # fmt: skip
        if not self.logstart:
            raise FeatureError(
                "XFS with an external log is not possible here", layer="superblock", offset=48, field="logstart",
                value=0,
            )  # fmt: skip
        more = self.features2 if self.v5 or self.versionnum & VERSION_MORE else 0
        self.ftype = bool(self.features_incompat & INCOMPAT_FTYPE if self.v5 else more & FEATURE2_FTYPE)
        self.lazy_count = self.v5 or bool(more & FEATURE2_LAZY_COUNT)
        self.ascii_ci = bool(self.versionnum & VERSION_BORG)
        self.dirblock = self.blocksize << self.dirblklog
        #: uuid that metadata blocks carry
        self.metadata_uuid = self.meta_uuid if self.features_incompat & INCOMPAT_META_UUID else self.uuid
        self.size = self.dblocks * self.blocksize

    def _check_geometry(self) -> None:
        def bad(field: str, offset: int, value: int, limit: object) -> CorruptError:
            return CorruptError(
                f"XFS superblock: {field} at offset {offset} is {value}, which can't be",
                layer="superblock", offset=offset, field=field, value=value, limit=limit,
            )  # fmt: skip

        if not 9 <= self.blocklog <= 16 or self.blocksize != 1 << self.blocklog:
            raise bad("blocksize", 4, self.blocksize, "a power of two from 512 to 65536")
        if not 9 <= self.sectlog <= 15 or self.sectsize != 1 << self.sectlog:
            raise bad("sectsize", 102, self.sectsize, "a power of two from 512 to 32768")
        if not 8 <= self.inodelog <= 11 or self.inodesize != 1 << self.inodelog or self.inodelog > self.blocklog:
            raise bad("inodesize", 104, self.inodesize, "a power of two from 256 to 2048")
        if self.inopblog != self.blocklog - self.inodelog or self.inopblock != 1 << self.inopblog:
            raise bad("inopblock", 106, self.inopblock, 1 << self.blocklog - self.inodelog)
        if not 0 < self.agblocks <= 1 << 31 or self.agblklog != (self.agblocks - 1).bit_length():
            raise bad("agblocks", 84, self.agblocks, f"of agblklog {self.agblklog}")
        if not self.agcount or not (self.agcount - 1) * self.agblocks < self.dblocks <= self.agcount * self.agblocks:
            raise bad("dblocks", 8, self.dblocks, f"{self.agcount} groups of {self.agblocks}")
        if (self.agcount > 1 and self.agblocks << self.blocklog < MIN_GROUP) or self.agblocks < 64:
            raise bad("agblocks", 84, self.agblocks, f"{MIN_GROUP >> self.blocklog} or more")
        if self.blocklog + self.dirblklog > 16:
            raise bad("dirblklog", 192, self.dirblklog, 16 - self.blocklog)
        if self.logstart and not 0 < self.logblocks <= min(MAX_LOG_BLOCKS, MAX_LOG_BYTES >> self.blocklog):
            raise bad("logblocks", 96, self.logblocks, f"1 to {min(MAX_LOG_BLOCKS, MAX_LOG_BYTES >> self.blocklog)}")

    def _check_v5(self, raw: bytes, replayed: bool) -> None:
        if len(raw) < self.sectsize:
            raise CorruptError("XFS superblock is cut off", layer="superblock", offset=len(raw))
        raw = raw[: self.sectsize]
        found = int.from_bytes(raw[224:228], "little")
        wanted = crc32c(raw[:224] + bytes(4) + raw[228:])
        if found != wanted and not replayed:
            raise CorruptError(
                f"XFS superblock: checksum at offset 224 is {found:#010x} and not {wanted:#010x}",
                layer="superblock", offset=224, field="crc", value=hex(found), limit=hex(wanted),
            )  # fmt: skip
        unknown = self.features_incompat & ~(INCOMPAT_KNOWN | INCOMPAT_NEEDSREPAIR)
        if unknown:
            names = [INCOMPAT_NAMES.get(1 << i, hex(1 << i)) for i in range(32) if unknown >> i & 1]
            raise FeatureError(
                f"XFS needs features that are not known here: {', '.join(names)}", layer="superblock", offset=216,
                field="features_incompat", value=hex(self.features_incompat), limit=hex(INCOMPAT_KNOWN),
            )  # fmt: skip
        if self.features_incompat & INCOMPAT_NEEDSREPAIR:
            raise CorruptError(
                "XFS superblock says that the file system needs repair", layer="superblock", offset=216,
                field="features_incompat", value=hex(self.features_incompat), hint="run xfs_repair on it",
            )  # fmt: skip

    # ---- numbers: a file system block is (group, block in the group), an inode (group, block, index in the block)

    def ag_blocks(self, group: int) -> int:
        """Blocks of an allocation group; the last one may be short."""
        return min(self.agblocks, self.dblocks - group * self.agblocks)

    def block_offset(self, block: int, count: int = 1) -> int:
        """Bytes into the device of a file system block; -1 when it, or the last of ``count``, does not exist."""
        group, inside = block >> self.agblklog, block & (1 << self.agblklog) - 1
        if group >= self.agcount or inside + count > self.ag_blocks(group):
            return -1
        return group * self.agblocks + inside << self.blocklog

    def inode_cluster(self, ino: int) -> tuple[int, int]:
        """(offset, length) in bytes of the buffer that the kernel keeps an inode in; ValueError when the inodes are
        not aligned and only the tree of inodes could tell."""
        size = 8192
        if self.v5:
            larger = size * self.inodesize // 256
            if self.inoalignmt >= larger >> self.blocklog:
                size = larger
        blocks = max(1, size >> self.blocklog)
        block = ino >> self.inopblog
        group, inside = block >> self.agblklog, block & (1 << self.agblklog) - 1
        if blocks > 1:
            if not self.versionnum & VERSION_ALIGN or self.inoalignmt < blocks:
                raise ValueError("inodes are not aligned")
            # chunks of inodes begin at multiples of the alignment, clusters count from there
            chunk = inside - inside % self.inoalignmt
            inside = chunk + (inside - chunk) // blocks * blocks
            if inside + blocks > self.ag_blocks(group):
                raise ValueError("inodes are not aligned")
        return group * self.agblocks + inside << self.blocklog, blocks << self.blocklog

    def inode_offset(self, ino: int) -> int:
        """Bytes into the device of an inode; -1 when it can't exist."""
        start = self.block_offset(ino >> self.inopblog)
        return start if start < 0 else start + ((ino & self.inopblock - 1) << self.inodelog)
