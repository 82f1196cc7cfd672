"""Making a FAT file system, laid out as mkfs.fat does by the same options."""

from __future__ import annotations

import struct
import time

from ....errors import OptionError
from . import stamp
from .boot import BPB, BPB32, FSINFO_LEAD, FSINFO_STRUCT, FSINFO_TRAIL, LIMITS, RECORD, RECORD_AT
from .directory import VOLUME, Entry

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ....block.node import Node

MIB = 1 << 20
#: KiB of a floppy -> sectors a track, media, root entries, sectors a cluster
_FLOPPIES = {
    360: (9, 0xFD, 112, 2),
    720: (9, 0xF9, 112, 2),
    1200: (15, 0xF9, 224, 1),
    1440: (18, 0xF0, 224, 1),
    2880: (36, 0xF0, 224, 2),
}
#: up to so many sectors -> (sectors a track, heads), as LBA translation has them
_GEOMETRIES = (
    (8191, 16, 2), (32768, 32, 2), (65536, 32, 4), (262144, 32, 8), (524288, 32, 16), (1032192, 63, 16),
    (2064384, 63, 32), (4128768, 63, 64), (8257536, 63, 128),
)  # fmt: skip
#: up to so many sectors -> sectors a cluster on FAT32
_CLUSTERS32 = ((260 << 11, 1), (8 << 21, 8), (16 << 21, 16), (32 << 21, 32))
#: FAT16 with fewer clusters would be taken for FAT12 by some
_LEAST16 = 4087
_LEAST32 = 65525
#: below so many sectors nothing is aligned to clusters
_ALIGNED = 8192
#: boot code: "no system here", then wait
_CODE = b"\xcd\x18\xf4\xeb\xfd"


class _Plan:
    """How it is laid out; all in sectors but ``root`` (entries) and ``clusters``."""

    __slots__ = ("bits", "clusters", "fat", "per_cluster", "reserved", "root", "total")

    def __init__(self, bits: int, per_cluster: int) -> None:
        self.bits = bits
        self.per_cluster = per_cluster
        self.reserved = self.fat = self.root = self.total = self.clusters = 0


def _round(value: int, unit: int) -> int:
    return -(-value // unit) * unit


def _layout(
    bits: int, per_cluster: int, total: int, sector: int, fats: int, reserved: int | None, root: int, align: bool
) -> _Plan:
    plan = _Plan(bits, per_cluster)
    plan.total = total
    unit = per_cluster if align else 1
    plan.reserved = _round(reserved or (32 if bits == 32 else 1), unit)
    if bits != 32:
        plan.root = _round(root, sector // 32 * unit)
    room = total - plan.reserved - plan.root * 32 // sector
    # each cluster takes its sectors and an entry in every table; two entries are nobody's
    clusters = max(0, room * sector * 8 - fats * 2 * bits) // (per_cluster * sector * 8 + fats * bits)
    plan.fat = _round(-(-(clusters + 2) * bits // (8 * sector)), unit)
    plan.clusters = max(0, (room - fats * plan.fat) // per_cluster)
    # what the table can hold
    plan.clusters = min(plan.clusters, plan.fat * sector * 8 // bits - 2)
    return plan


def _fits(plan: _Plan, strict: bool) -> bool:
    least = {12: 1, 16: _LEAST16, 32: _LEAST32 if strict else 1}[plan.bits]
    return least <= plan.clusters <= LIMITS[plan.bits]


def _geometry(sectors: int) -> tuple[int, int]:
    for most, track, heads in _GEOMETRIES:
        if sectors <= most:
            return track, heads
    return 63, 255


def make(
    node: Node,
    *,
    bits: int | None = None,
    label: str = "",
    cluster_sectors: int | None = None,
    sector_size: int = 512,
    volume_id: int | None = None,
    fats: int = 2,
    root_entries: int | None = None,
    reserved: int | None = None,
    align: bool = True,
    hidden: int = 0,
    media: int | None = None,
    now: int | None = None,
) -> None:
    """Make an empty FAT file system of the whole of ``node``.

    ``bits``: 12, 16, 32, or None for what mkfs.fat takes: FAT32 from 512 MiB on, below it FAT12 where the clusters
    are few enough. ``cluster_sectors``: a power of two, None by the size. ``sector_size``: 512 to 4096.
    ``volume_id``: 32 bits, None for one made of the time. ``fats``: tables, 1 to 4. ``root_entries``: of FAT12 and
    FAT16. ``reserved``: sectors before the first table. ``align``: reserved sectors, tables and root directory in
    whole clusters. ``now``: nanoseconds. Raises OptionError, and what the node raises.
    """
    if bits not in (None, 12, 16, 32):
        raise OptionError(f"FAT can have 12, 16 or 32 bits, not {bits}", field="bits", value=bits)
    if sector_size not in (512, 1024, 2048, 4096):
        raise OptionError(f"Not a sector size: {sector_size}", field="sector_size", value=sector_size)
    if cluster_sectors is not None and (cluster_sectors not in (1, 2, 4, 8, 16, 32, 64, 128)):
        raise OptionError(f"Not a number of sectors: {cluster_sectors}", field="cluster_sectors", value=cluster_sectors)
    if not 1 <= fats <= 4 or not (root_entries is None or 16 <= root_entries <= 32767):
        raise OptionError("FAT needs 1 to 4 tables, and 16 to 32767 root entries", field="fats", value=fats)
    if reserved is not None and not 1 <= reserved <= 65535:
        raise OptionError(f"Not a number of sectors: {reserved}", field="reserved", value=reserved)
    name = _label(label)
    sectors = node.size // sector_size
    if sectors > 0xFFFFFFFF:
        raise OptionError("The device has too many sectors for FAT", field="size", value=node.size)
    track, heads = _geometry(sectors)
    drive, root, first = 0x80, 512, 4
    floppy = _FLOPPIES.get(node.size // 1024) if node.size % 1024 == 0 and sector_size == 512 and bits != 32 else None
    kind = 0xF8
    if floppy is not None:
        (track, kind, root, first), heads, drive = floppy, 2, 0
    elif align:
        sectors -= sectors % track
    align = align and sectors > _ALIGNED
    root = root_entries or root
    plan = _choose(node, bits, cluster_sectors, first, sectors, sector_size, fats, reserved, root, align)
    if plan.bits == 32 and plan.reserved < 2:
        raise OptionError("FAT32 needs two reserved sectors or more", field="reserved", value=reserved)
    if now is None:
        now = time.time_ns()
    if volume_id is None:
        volume_id = (now // 1_000_000_000 << 20 | now // 1000 % 1_000_000) & 0xFFFFFFFF
    _write(
        node, plan, sector_size, fats, media or kind, (track, heads, hidden, drive), name, volume_id & 0xFFFFFFFF, now
    )


def _label(label: str) -> bytes:
    try:
        raw = label.encode("ascii")
    except UnicodeEncodeError:
        raw = bytes(12)
    if len(raw) > 11 or any(byte < 32 for byte in raw) or not set('*?.,;:/\\|+=<>[]"').isdisjoint(label):
        raise OptionError(f"Not a FAT label: {label!r}", field="label", value=label)
    return raw.ljust(11) if raw else b""


def _choose(
    node: Node,
    bits: int | None,
    per_cluster: int | None,
    first: int,
    sectors: int,
    sector: int,
    fats: int,
    reserved: int | None,
    root: int,
    align: bool,
) -> _Plan:
    """Kind and cluster size. Raises OptionError where nothing fits."""
    strict = bits is None
    if bits is None and node.size >= 512 * MIB:
        bits = 32
    kinds = (bits,) if bits else (12, 16)
    if bits == 32:
        first = next((size for most, size in _CLUSTERS32 if sectors <= most), 64)
    if per_cluster is not None:
        sizes = [per_cluster]
    else:
        sizes = [size for size in (1, 2, 4, 8, 16, 32, 64, 128) if size >= first]
    for size in sizes:
        for kind in kinds:
            plan = _layout(kind, size, sectors, sector, fats, reserved, root, align)
            if plan.reserved <= 65535 and (plan.fat <= 65535 or kind == 32) and _fits(plan, strict):
                return plan
    raise OptionError(
        "The device is too small or too large for this kind of FAT and this cluster size", field="size", value=node.size
    )


def _write(
    node: Node,
    plan: _Plan,
    sector: int,
    fats: int,
    media: int,
    geometry: tuple[int, int, int, int],
    name: bytes,
    volume_id: int,
    now: int,
) -> None:
    track, heads, hidden, drive = geometry
    wide = plan.bits == 32
    small = plan.total if plan.total < 65536 and not wide else 0
    boot = bytearray(sector)
    at = RECORD_AT[plan.bits]
    boot[0:11] = bytes((0xEB, at + RECORD.size - 2, 0x90)) + b"MSWIN4.1"
    BPB.pack_into(
        boot, 11, sector, plan.per_cluster, plan.reserved, fats, plan.root, small, media, 0 if wide else plan.fat,
        track, heads, hidden, 0 if small else plan.total,
    )  # fmt: skip
    backup = 6 if plan.reserved > 7 else 0
    if wide:
        BPB32.pack_into(boot, 36, plan.fat, 0, 0, 2, 1, backup)
    kind = f"FAT{plan.bits}".encode().ljust(8)
    RECORD.pack_into(boot, at, drive, 0, 0x29, volume_id, name or b"NO NAME    ", kind)
    boot[at + RECORD.size : at + RECORD.size + len(_CODE)] = _CODE
    boot[510:512] = b"\x55\xaa"
    fat_start = plan.reserved * sector
    data_start = fat_start + fats * plan.fat * sector + plan.root * 32
    # whatever was here before is gone first, so that a cut leaves nothing that looks like the old file system
    node.write_zeroes(0, data_start)
    node.flush()
    head = bytearray(12)
    if plan.bits == 12:
        head[:3] = bytes((media, 0xFF, 0xFF))
    elif plan.bits == 16:
        struct.pack_into("<HH", head, 0, 0xFF00 | media, 0xFFFF)
    else:
        struct.pack_into("<III", head, 0, 0x0FFFFF00 | media, 0x0FFFFFFF, 0x0FFFFFF8)
        node.write_zeroes(data_start, plan.per_cluster * sector)
    for number in range(fats):
        node.write(fat_start + number * plan.fat * sector, head)
    if name:
        entry = Entry(bytes(32))
        entry.short, entry.attributes = name, VOLUME
        entry.changed_date, entry.changed_time, _ = stamp.encode(now)
        entry.created_date, entry.created_time, entry.accessed = (
            entry.changed_date,
            entry.changed_time,
            entry.changed_date,
        )
        raw = bytearray(32)
        entry.pack(raw, 0, wide)
        node.write(data_start if wide else data_start - plan.root * 32, raw)
    if wide:
        info = bytearray(sector)
        struct.pack_into("<I", info, 0, FSINFO_LEAD)
        struct.pack_into("<III", info, 484, FSINFO_STRUCT, plan.clusters - 1, 2)
        struct.pack_into("<I", info, 508, FSINFO_TRAIL)
        node.write(sector, info)
        if backup:
            node.write((backup + 1) * sector, info)
            node.write(backup * sector, boot)
    node.flush()
    node.write(0, boot)
    node.flush()
