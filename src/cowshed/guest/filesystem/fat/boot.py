"""The boot sector: BIOS parameter block, the extended boot record, FSInfo (Microsoft, "FAT32 File System
Specification" 1.03; the sector sizes and cluster counts that Linux and dosfstools allow beyond it)."""

from __future__ import annotations

import struct

from ....errors import CorruptError, ForeignError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ....block.node import Node

#: BPB fields from offset 11: bytes a sector, sectors a cluster, reserved sectors, FATs, root entries, sectors (16 bit),
#: media, sectors a FAT (16 bit), sectors a track, heads, hidden sectors, sectors (32 bit)
BPB = struct.Struct("<HBHBHHBHHHII")
#: from offset 36 on FAT32: sectors a FAT, flags, version, root cluster, FSInfo sector, backup boot sector
BPB32 = struct.Struct("<IHHIHH")
#: the extended boot record: drive, state, signature, volume id, label, kind
RECORD = struct.Struct("<BBBI11s8s")
RECORD_AT = {12: 36, 16: 36, 32: 64}

FSINFO_LEAD, FSINFO_STRUCT, FSINFO_TRAIL = 0x41615252, 0x61417272, 0xAA550000
UNKNOWN = 0xFFFFFFFF

#: the most clusters of each kind; below 4085 it is FAT12, below 65525 FAT16
LIMITS = {12: 4084, 16: 65524, 32: 0x0FFFFFF5}

STATE_DIRTY = 1


class Boot:
    """Where everything is: ``bits`` 12, 16 or 32, ``clusters`` (numbered from 2), sizes and offsets in bytes."""

    __slots__ = (
        "active", "backup", "bits", "cluster_size", "clusters", "data_start", "fat_size", "fat_start", "fats",
        "fsinfo", "label", "media", "mirrored", "record_at", "root_cluster", "root_entries", "root_start",
        "sector_size", "signed", "state", "total", "volume_id",
    )  # fmt: skip
    cluster_size: int
    data_start: int
    root_entries: int
    root_start: int

    def __init__(self, node: Node) -> None:
        """Raises ForeignError where this is no FAT, CorruptError where its fields contradict each other."""
        if node.size < 512:
            raise ForeignError("Not a FAT file system: too short for a boot sector", path=node.filename)
        sector = node.read(0, 512)
        (
            self.sector_size, per_cluster, reserved, self.fats, self.root_entries, small, self.media, fat_sectors,
            _, _, _, large,
        ) = BPB.unpack_from(sector, 11)  # fmt: skip
        size = self.sector_size
        if (
            size not in (512, 1024, 2048, 4096)
            or not per_cluster
            or per_cluster & (per_cluster - 1)
            or not reserved
            or not self.fats
            or not (self.media == 0xF0 or self.media >= 0xF8)
            or sector[3:11] in (b"NTFS    ", b"EXFAT   ")
        ):
            raise ForeignError("Not a FAT file system: the boot sector makes no sense", path=node.filename)
        self.cluster_size = size * per_cluster
        self.fsinfo = self.backup = 0
        self.root_cluster = 0
        self.mirrored = True
        self.active = 0
        self.bits = 16
        if not fat_sectors:
            # the 16-bit field is empty on FAT32 alone, however few clusters there are
            self.bits = 32
            fat_sectors, flags, version, self.root_cluster, info, backup = BPB32.unpack_from(sector, 36)
            if version:
                self._bad(node, "BPB_FSVer", 42, f"{version:#06x}")
            self.mirrored = not flags & 0x80
            self.active = 0 if self.mirrored else flags & 15
            if self.active >= self.fats:
                self._bad(node, "BPB_ExtFlags", 40, f"{flags:#06x}")
            self.fsinfo = info * size if 0 < info < reserved else 0
            self.backup = backup * size if 0 < backup < reserved else 0
        if not fat_sectors:
            self._bad(node, "BPB_FATSz32", 36, 0)
        self.total = (small or large) * size
        self.fat_start = reserved * size
        self.fat_size = fat_sectors * size
        self.root_start = self.fat_start + self.fats * self.fat_size
        root_size = self.root_entries * 32
        if root_size % size:
            self._bad(node, "BPB_RootEntCnt", 17, self.root_entries)
        self.data_start = self.root_start + root_size
        if self.data_start > self.total:
            self._bad(node, "BPB_TotSec", 32, small or large)
        self.clusters = (self.total - self.data_start) // self.cluster_size
        if self.bits != 32:
            self.bits = 12 if self.clusters <= LIMITS[12] else 16
            if not self.root_entries:
                self._bad(node, "BPB_RootEntCnt", 17, 0)
        held = self.fat_size * 8 // self.bits - 2
        self.clusters = min(self.clusters, held)
        if not 0 < self.clusters <= LIMITS[self.bits]:
            self._bad(node, "clusters", 32, self.clusters, LIMITS[self.bits])
        if self.bits == 32 and not 2 <= self.root_cluster < self.clusters + 2:
            self._bad(node, "BPB_RootClus", 44, self.root_cluster)
        self.record_at = RECORD_AT[self.bits]
        _, self.state, mark, self.volume_id, self.label, _ = RECORD.unpack_from(sector, self.record_at)
        self.signed = mark == 0x29
        if mark not in (0x28, 0x29):
            self.volume_id = 0
        if not self.signed:
            self.label = b""

    @staticmethod
    def _bad(node: Node, field: str, offset: int, value: object, limit: object = None) -> None:
        raise CorruptError(
            f"Damaged FAT boot sector: {field} is {value}",
            path=node.filename, layer="FAT boot sector", field=field, offset=offset, value=value, limit=limit,
        )  # fmt: skip

    def cluster_at(self, cluster: int) -> int:
        """Where a cluster lies on the device."""
        return self.data_start + (cluster - 2) * self.cluster_size

    def fat_copies(self) -> list[int]:
        """Where the FATs lie that are kept up to date; the first is the one to read."""
        if not self.mirrored:
            return [self.fat_start + self.active * self.fat_size]
        return [self.fat_start + number * self.fat_size for number in range(self.fats)]

    def read_fsinfo(self, node: Node) -> tuple[int, int] | None:
        """(free clusters, where to look next for free ones), UNKNOWN where it says so; None without a valid sector."""
        if not self.fsinfo or self.fsinfo + 512 > node.size:
            return None
        data = node.read(self.fsinfo, 512)
        (lead,) = struct.unpack_from("<I", data)
        mark, free, after = struct.unpack_from("<III", data, 484)
        if lead != FSINFO_LEAD or mark != FSINFO_STRUCT:
            return None
        return (free if free <= self.clusters else UNKNOWN), after
