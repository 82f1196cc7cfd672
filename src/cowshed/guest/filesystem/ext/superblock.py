"""The superblock (kernel documentation "ext4 Data Structures and Algorithms", 4.1), and which features are known."""

from __future__ import annotations

import struct

from ....errors import CorruptError, FeatureError, ForeignError
from .crc import crc32c, patch

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ....block.node import Node

OFFSET = 1024
SIZE = 1024
MAGIC = 0xEF53

# compatible
HAS_JOURNAL = 0x4
EXT_ATTR = 0x8
RESIZE_INODE = 0x10
DIR_INDEX = 0x20
SPARSE_SUPER2 = 0x200
FAST_COMMIT = 0x400
ORPHAN_FILE = 0x1000
# incompatible
FILETYPE = 0x2
RECOVER = 0x4
JOURNAL_DEV = 0x8
META_BG = 0x10
EXTENTS = 0x40
BIT64 = 0x80
MMP = 0x100
FLEX_BG = 0x200
EA_INODE = 0x400
CSUM_SEED = 0x2000
LARGE_DIR = 0x4000
INLINE_DATA = 0x8000
ENCRYPT = 0x10000
CASEFOLD = 0x20000
# compatible for reading
SPARSE_SUPER = 0x1
LARGE_FILE = 0x2
HUGE_FILE = 0x8
GDT_CSUM = 0x10
DIR_NLINK = 0x20
EXTRA_ISIZE = 0x40
QUOTA = 0x100
BIGALLOC = 0x200
METADATA_CSUM = 0x400
READONLY = 0x1000
PROJECT = 0x2000
VERITY = 0x8000
ORPHAN_PRESENT = 0x10000

COMPAT_NAMES = {
    0x1: "dir_prealloc", 0x2: "imagic_inodes", 0x4: "has_journal", 0x8: "ext_attr", 0x10: "resize_inode",
    0x20: "dir_index", 0x40: "lazy_bg", 0x80: "exclude_inode", 0x100: "exclude_bitmap", 0x200: "sparse_super2",
    0x400: "fast_commit", 0x800: "stable_inodes", 0x1000: "orphan_file",
}  # fmt: skip
INCOMPAT_NAMES = {
    0x1: "compression", 0x2: "filetype", 0x4: "needs_recovery", 0x8: "journal_dev", 0x10: "meta_bg", 0x40: "extent",
    0x80: "64bit", 0x100: "mmp", 0x200: "flex_bg", 0x400: "ea_inode", 0x1000: "dirdata",
    0x2000: "metadata_csum_seed", 0x4000: "large_dir", 0x8000: "inline_data", 0x10000: "encrypt", 0x20000: "casefold",
}  # fmt: skip
RO_COMPAT_NAMES = {
    0x1: "sparse_super", 0x2: "large_file", 0x4: "btree_dir", 0x8: "huge_file", 0x10: "uninit_bg", 0x20: "dir_nlink",
    0x40: "extra_isize", 0x80: "snapshot", 0x100: "quota", 0x200: "bigalloc", 0x400: "metadata_csum",
    0x800: "replica", 0x1000: "read-only", 0x2000: "project", 0x4000: "shared_blocks", 0x8000: "verity",
    0x10000: "orphan_present",
}  # fmt: skip

READ_INCOMPAT = (
    FILETYPE | RECOVER | META_BG | EXTENTS | BIT64 | MMP | FLEX_BG | EA_INODE | CSUM_SEED | LARGE_DIR | INLINE_DATA
    | ENCRYPT | CASEFOLD
)  # fmt: skip
#: what writing keeps up; quota, project ids, verity, encryption, casefolding, bigalloc and MMP are refused
WRITE_INCOMPAT = READ_INCOMPAT & ~(ENCRYPT | CASEFOLD | MMP)
WRITE_RO_COMPAT = (
    SPARSE_SUPER | LARGE_FILE | 0x4 | HUGE_FILE | GDT_CSUM | DIR_NLINK | EXTRA_ISIZE | METADATA_CSUM
)  # fmt: skip

STATE_VALID = 0x1
STATE_ERROR = 0x2
STATE_ORPHAN = 0x4


def feature_names(bits: int, names: dict[int, str]) -> str:
    """The features of a mask by name, for messages."""
    return ", ".join(names.get(1 << n, f"{1 << n:#x}") for n in range(32) if bits >> n & 1)


class Superblock:
    """The 1024 bytes as they are (``raw``, changed by `set`) and what they say.

    ``where``: the block it was read from (0 for the first one), ``block_size`` and ``cluster_size`` in bytes,
    ``blocks`` of the file system, ``groups`` of blocks, ``seed`` of all metadata checksums.
    """

    def __init__(self, raw: bytes, where: int = 0) -> None:
        self.where = where
        self.read(raw)

    def read(self, raw: bytes) -> None:
        """Become what these bytes say."""
        self.raw = bytearray(raw)
        if self.u16(0x38) != MAGIC:
            raise ForeignError("No ext2, ext3 or ext4 superblock", layer="ext", field="s_magic", value=self.u16(0x38))
        self.revision = self.u32(0x4C)
        self.compat, self.incompat, self.ro_compat = struct.unpack_from("<3I", raw, 0x5C) if self.revision else (0,) * 3
        if self.incompat & JOURNAL_DEV:
            raise FeatureError(
                "This is an external journal of an ext3 or ext4 file system, not a file system", layer="ext superblock",
                field="s_feature_incompat", value=f"{self.incompat:#x}",
            )  # fmt: skip
        self.log_block_size = self._bounded(0x18, "s_log_block_size", 0, 6)
        self.block_size = 1024 << self.log_block_size
        self.inodes = self.u32(0)
        self.first_data_block = self._bounded(0x14, "s_first_data_block", 0, 1)
        high = self.incompat & BIT64
        self.blocks = self.u32(4) | (self.u32(0x150) << 32 if high else 0)
        self.blocks_per_group = self._bounded(0x20, "s_blocks_per_group", 8, self.block_size * 8 << 16)
        self.inodes_per_group = self._bounded(0x28, "s_inodes_per_group", 1, self.block_size * 8)
        self.cluster_ratio = 1
        self.clusters_per_group = self.blocks_per_group
        if self.ro_compat & BIGALLOC:
            log_cluster = self._bounded(0x1C, "s_log_cluster_size", self.log_block_size, 28)
            self.cluster_ratio = 1 << (log_cluster - self.log_block_size)
            self.clusters_per_group = self._bounded(0x24, "s_clusters_per_group", 8, self.block_size * 8)
            if self.clusters_per_group * self.cluster_ratio != self.blocks_per_group:
                raise self._wrong("s_clusters_per_group", self.clusters_per_group)
        elif self.blocks_per_group > self.block_size * 8:
            raise self._wrong("s_blocks_per_group", self.blocks_per_group, self.block_size * 8)
        self.inode_size = self.u16(0x58) if self.revision else 128
        if not 128 <= self.inode_size <= self.block_size or self.inode_size & (self.inode_size - 1):
            raise self._wrong("s_inode_size", self.inode_size)
        self.first_inode = self.u32(0x54) if self.revision else 11
        self.desc_size = 32
        if high:
            self.desc_size = self.u16(0xFE)
            if not 64 <= self.desc_size <= 1024 or self.desc_size & (self.desc_size - 1):
                raise self._wrong("s_desc_size", self.desc_size)
        self.uuid = bytes(raw[0x68:0x78])
        self.metadata_csum = bool(self.ro_compat & METADATA_CSUM)
        self.gdt_csum = bool(self.ro_compat & (GDT_CSUM | METADATA_CSUM))
        if self.incompat & CSUM_SEED:
            self.seed = self.u32(0x270)
        else:
            self.seed = crc32c(0xFFFFFFFF, self.uuid) if self.metadata_csum else 0
        if self.blocks <= self.first_data_block:
            raise self._wrong("s_blocks_count", self.blocks)
        self.groups = -(-(self.blocks - self.first_data_block) // self.blocks_per_group)
        if self.inodes != self.groups * self.inodes_per_group and self.inodes > self.groups * self.inodes_per_group:
            raise self._wrong("s_inodes_count", self.inodes, self.groups * self.inodes_per_group)
        self.inode_table_blocks = -(-self.inodes_per_group * self.inode_size // self.block_size)
        self.descs_per_block = self.block_size // self.desc_size
        self.desc_blocks = -(-self.groups // self.descs_per_block)
        self.first_meta_bg = self.u32(0x104) if self.incompat & META_BG else self.desc_blocks
        self.reserved_gdt_blocks = self.u16(0xCE) if self.compat & RESIZE_INODE else 0
        self.journal_inode = self.u32(0xE0) if self.compat & HAS_JOURNAL else 0

    def u16(self, offset: int) -> int:
        return int.from_bytes(self.raw[offset : offset + 2], "little")

    def u32(self, offset: int) -> int:
        return int.from_bytes(self.raw[offset : offset + 4], "little")

    def set(self, offset: int, value: int, size: int = 4) -> None:
        self.raw[offset : offset + size] = value.to_bytes(size, "little")

    def set_features(self, compat: int = 0, incompat: int = 0, ro_compat: int = 0) -> None:
        """Add feature bits."""
        self.compat |= compat
        self.incompat |= incompat
        self.ro_compat |= ro_compat
        struct.pack_into("<3I", self.raw, 0x5C, self.compat, self.incompat, self.ro_compat)

    def set_recover(self, on: bool) -> None:
        self.incompat = self.incompat | RECOVER if on else self.incompat & ~RECOVER
        self.set(0x60, self.incompat)

    def _bounded(self, offset: int, field: str, low: int, high: int) -> int:
        value = self.u32(offset)
        if not low <= value <= high:
            raise self._wrong(field, value, f"{low} to {high}")
        return value

    def _wrong(self, field: str, value: object, limit: object = None) -> CorruptError:
        return CorruptError(
            f"ext superblock: {field} is {value}", layer="ext superblock", offset=OFFSET, field=field, value=value,
            limit=limit, hint="e2fsck can repair it",
        )  # fmt: skip

    def checksum(self) -> int:
        return crc32c(0xFFFFFFFF, self.raw[:0x3FC])

    def verify(self) -> None:
        """Raises CorruptError when the checksum is not the one of the bytes."""
        if self.metadata_csum:
            if self.raw[0x175] != 1:
                raise self._wrong("s_checksum_type", self.raw[0x175], 1)
            if self.checksum() != self.u32(0x3FC):
                raise self._wrong("s_checksum", f"{self.u32(0x3FC):#010x}", f"{self.checksum():#010x}")

    def pack(self) -> bytes:
        """The bytes with their checksum."""
        if self.metadata_csum:
            self.set(0x3FC, self.checksum())
        return bytes(self.raw)

    def steps(self, stored: bytes | bytearray) -> list[tuple[int, bytes]]:
        """How the superblock ``stored`` on the device becomes this one: (offset, 512 bytes) of each write.

        Of the two sectors a cut may leave one old and one new, and the checksum at the end of the second covers both: a
        superblock torn so is one that neither the kernel nor e2fsck -p takes. So the checksum stays the one that is
        stored, and a word that nobody uses (s_algorithm_usage_bitmap in the first sector, the last reserved one in the
        second) makes up for what changed; each sector for itself is a whole step. What was made up is in ``raw``, too.
        """
        made: list[tuple[int, bytes]] = []
        new = self.raw
        if self.metadata_csum:
            wanted = int.from_bytes(stored[0x3FC:0x400], "little")
            new[0x3FC:0x400] = stored[0x3FC:0x400]
            new[0x3F8:0x3FC] = stored[0x3F8:0x3FC]
            new[0xC8:0xCC] = stored[0xC8:0xCC]
            if new[512:] != stored[512:]:
                new[0x3F8:0x3FC] = patch(bytes(stored[:512]) + new[512:0x3FC], 0x3F8, wanted)
            if new[:512] != stored[:512]:
                new[0xC8:0xCC] = patch(new[:0x3FC], 0xC8, wanted)
        for at in (512, 0):
            if new[at : at + 512] != stored[at : at + 512]:
                made.append((OFFSET + at, bytes(new[at : at + 512])))
        return made

    def has_super(self, group: int) -> bool:
        """Does a group begin with a copy of the superblock and of the descriptors?"""
        if group == 0:
            return True
        if self.compat & SPARSE_SUPER2:
            return group in (self.u32(0x24C), self.u32(0x250))
        if group == 1 or not self.ro_compat & SPARSE_SUPER:
            return True
        if not group & 1:
            return False
        for base in (3, 5, 7):
            power = base
            while power < group:
                power *= base
            if power == group:
                return True
        return False

    def group_first_block(self, group: int) -> int:
        return self.first_data_block + group * self.blocks_per_group

    def group_blocks(self, group: int) -> int:
        """Blocks in a group; the last may be shorter."""
        return min(self.blocks_per_group, self.blocks - self.group_first_block(group))

    def group_desc_blocks(self, group: int) -> int:
        """Blocks of group descriptors in a group, with those reserved for growth."""
        if self.incompat & META_BG and group >= self.first_meta_bg * self.descs_per_block:
            within = group % self.descs_per_block
            return 1 if within in (0, 1, self.descs_per_block - 1) else 0
        if not self.has_super(group):
            return 0
        if self.incompat & META_BG:
            return self.first_meta_bg + self.reserved_gdt_blocks
        return self.desc_blocks + self.reserved_gdt_blocks

    @property
    def kind(self) -> str:
        """ext2, ext3 or ext4, as libblkid tells them apart."""
        old_incompat = FILETYPE | META_BG
        old_ro = SPARSE_SUPER | LARGE_FILE | 0x4
        if self.incompat & ~(old_incompat | RECOVER) or self.ro_compat & ~old_ro:
            return "ext4"
        return "ext3" if self.compat & HAS_JOURNAL else "ext2"

    def refuse_unknown(self) -> None:
        """Raises FeatureError, naming them, for features without which nothing can be read rightly."""
        unknown = self.incompat & ~READ_INCOMPAT
        if unknown:
            names = feature_names(unknown, INCOMPAT_NAMES)
            raise FeatureError(
                f"The file system needs features that are not known: {names}", layer="ext superblock",
                field="s_feature_incompat", value=f"{self.incompat:#x}",
            )  # fmt: skip

    def refuse_writing(self) -> None:
        """Raises FeatureError, naming them, for features that writing can't keep up."""
        names = [
            feature_names(bits, table)
            for bits, table in (
                (self.incompat & ~WRITE_INCOMPAT, INCOMPAT_NAMES),
                (self.ro_compat & ~WRITE_RO_COMPAT, RO_COMPAT_NAMES),
                (self.compat & 0x142, COMPAT_NAMES),
            )
            if bits
        ]
        if names:
            raise FeatureError(
                f"Writing is not possible with the file system's features: {', '.join(names)}",
                layer="ext superblock", hint="open it read-only",
            )  # fmt: skip


def load(node: Node) -> tuple[Superblock, list[str]]:
    """The first superblock; when it is damaged, the first good copy, and a note that says so.

    Raises ForeignError where there is neither, CorruptError when only damaged ones are there.
    """
    if node.size < OFFSET + SIZE:
        raise ForeignError("No ext2, ext3 or ext4 superblock: the device is too small", layer="ext", value=node.size)
    try:
        first = Superblock(node.read(OFFSET, SIZE))
        first.verify()
        return first, []
    except (CorruptError, ForeignError) as error:
        copy = _backup(node)
        if copy is None:
            raise
        note = f"{error}: the superblock is damaged; its copy at block {copy.where} is used, run e2fsck"
        return copy, [note]


def _backup(node: Node) -> Superblock | None:
    """A sound copy, at the begin of group 1 or 3 with the usual group size."""
    for group in (1, 3, 5):
        for log in range(7):
            size = 1024 << log
            block = (log == 0) + group * min(size * 8, 65528 if log > 3 else size * 8)
            if (block + 1) * size > node.size:
                continue
            try:
                found = Superblock(node.read(block * size, SIZE), block)
                found.verify()
            except (CorruptError, ForeignError):
                continue
            if found.block_size == size and found.u16(0x5A) == group:
                return found
    return None
