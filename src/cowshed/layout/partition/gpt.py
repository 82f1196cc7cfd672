"""GUID partition tables, read and written: UEFI 2.10, chapter 5.3.

    sector 0      protective MBR        last sector   backup header
    sector 1      header                before it     backup entries
    sector 2 …    entries (128 of 128 bytes as a rule; any legal size and number are read and kept)
"""

from __future__ import annotations

import struct
import zlib

from ...errors import CorruptError, ForeignError, UsageError
from .geometry import Geometry
from .table import PRIMARY, Partition, Table, check_overlaps
from .types import LINUX_GUID, PROTECTIVE_TYPE, UNUSED_GUID, guid_bytes, guid_text, new_guid

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ...block.node import Node

SIGNATURE = b"EFI PART"
#: signature, revision, header size, crc, reserved, own lba, other lba, first usable, last usable, disk guid,
#: entries lba, number of entries, size of an entry, crc of the entries
_HEADER = struct.Struct("<8sIIIIQQQQ16sQIII")
_ENTRY = struct.Struct("<16s16sQQQ72s")
_REVISION = 0x00010000
#: more than any tool makes: 128 KiB of entries is 1024 of them
_ARRAY_LIMIT = 16 << 20
_LAYER = "gpt"


class Header:
    """One of the two headers. LBAs count sectors; ``tail``: what follows the known fields up to ``size``."""

    __slots__ = (
        "count", "disk_guid", "entries_crc", "entries_lba", "entry_size", "first_usable", "last_usable", "lba", "other",
        "revision", "size", "tail",
    )  # fmt: skip

    def __init__(self) -> None:
        self.revision = _REVISION
        self.size = _HEADER.size
        self.lba = 1
        self.other = 0
        self.first_usable = 0
        self.last_usable = 0
        self.disk_guid = ""
        self.entries_lba = 2
        self.count = 128
        self.entry_size = 128
        self.entries_crc = 0
        self.tail = b""

    @property
    def array_bytes(self) -> int:
        return self.count * self.entry_size

    def array_sectors(self, sector: int) -> int:
        return -(-self.array_bytes // sector)

    def encode(self, sector: int) -> bytes:
        """The header's sector."""
        def fields(crc: int) -> bytes:
            return _HEADER.pack(
                SIGNATURE, self.revision, self.size, crc, 0, self.lba, self.other, self.first_usable, self.last_usable,
                guid_bytes(self.disk_guid), self.entries_lba, self.count, self.entry_size, self.entries_crc,
            )  # fmt: skip

        tail = self.tail[: self.size - _HEADER.size]
        return (fields(zlib.crc32(fields(0) + tail)) + tail).ljust(sector, b"\0")


def read_header(node: Node, lba: int, sector: int) -> Header:
    """The header in sector ``lba``, checked. Raises ForeignError (none there), CorruptError."""
    total = node.size // sector
    at = lba * sector
    if not 0 < lba < total:
        raise CorruptError("the header lies outside the disk", layer=_LAYER, field="AlternateLBA", value=lba)
    raw = node.read(at, sector)
    values = _HEADER.unpack_from(raw)
    if values[0] != SIGNATURE:
        raise ForeignError("no GPT header", layer=_LAYER, field="Signature", offset=at)

    def bad(field: str, offset: int, value: object, why: str) -> CorruptError:
        return CorruptError(f"GPT header: {why}", layer=_LAYER, field=field, offset=at + offset, value=value)

    header = Header()
    header.revision, header.size, crc = values[1:4]
    if not _HEADER.size <= header.size <= sector:
        raise bad("HeaderSize", 12, header.size, f"a size of {header.size} bytes is not possible")
    if zlib.crc32(raw[:16] + bytes(4) + raw[20 : header.size]) != crc:
        raise bad("HeaderCRC32", 16, f"{crc:#010x}", "the checksum is wrong")
    header.lba, header.other, header.first_usable, header.last_usable = values[5:9]
    header.disk_guid = guid_text(values[9])
    header.entries_lba, header.count, header.entry_size, header.entries_crc = values[10:]
    header.tail = raw[_HEADER.size : header.size]
    if header.lba != lba:
        raise bad("MyLBA", 24, header.lba, f"it says that it is in sector {header.lba}, and is in {lba}")
    if header.entry_size < _ENTRY.size or header.entry_size % 8 or header.entry_size > 1 << 16:
        raise bad("SizeOfPartitionEntry", 84, header.entry_size, f"entries of {header.entry_size} bytes")
    if not header.count or header.array_bytes > _ARRAY_LIMIT:
        raise bad("NumberOfPartitionEntries", 80, header.count, f"{header.count} entries")
    first, last = header.first_usable, header.last_usable
    if first > last + 1 or first < 2 or last >= total:
        raise bad("FirstUsableLBA", 40, first, f"sectors {first} to {last} of {total} are said to be usable")
    end = header.entries_lba + header.array_sectors(sector)
    if header.entries_lba < 2 or end > total or (header.entries_lba <= last and end > first):
        raise bad("PartitionEntryLBA", 72, header.entries_lba, f"the entries can't be in sector {header.entries_lba}")
    if header.entries_lba <= lba < end or first <= lba <= last:
        raise bad("MyLBA", 24, lba, "the header lies among the entries or partitions")
    return header


def read_entries(node: Node, header: Header, sector: int) -> list[Partition]:
    """The partitions of a header, checked. Raises CorruptError."""
    at = header.entries_lba * sector
    raw = node.read(at, header.array_bytes)
    if zlib.crc32(raw) != header.entries_crc:
        raise CorruptError(
            "GPT entries: the checksum is wrong", layer=_LAYER, field="PartitionEntryArrayCRC32",
            offset=header.lba * sector + 88, value=f"{header.entries_crc:#010x}",
        )
    parts: list[Partition] = []
    offsets: dict[int, int] = {}
    step = header.entry_size
    unused = bytes(16)
    for index in range(header.count):
        base = index * step
        if raw[base : base + 16] == unused:
            continue
        type, guid, first, last, attributes, name = _ENTRY.unpack_from(raw, base)
        number = index + 1
        if first > last or first < header.first_usable or last > header.last_usable:
            raise CorruptError(
                f"GPT partition {number} goes from sector {first} to {last}, outside of "
                f"{header.first_usable} to {header.last_usable}",
                layer=_LAYER, field="StartingLBA", offset=at + base + 32, value=first,
            )
        offsets[number] = at + base + 32
        parts.append(
            Partition(
                number, first * sector, (last - first + 1) * sector, guid_text(type), guid=guid_text(guid),
                name=name.decode("utf-16-le", "replace").split("\0", 1)[0], attributes=attributes,
                tail=raw[base + _ENTRY.size : base + step],
            )
        )
    check_overlaps(parts, offsets, _LAYER)
    return parts


class GptTable(Table):
    """A GUID partition table. ``header``: of the primary copy (what the backup's says is derived from it)."""

    label = "gpt"

    def __init__(self, disk_size: int, sector_size: int, geometry: Geometry | None = None) -> None:
        super().__init__(disk_size, sector_size, geometry or Geometry(255, 63))
        self.header = Header()
        self.sector0 = bytes(sector_size)
        #: where a backup header stood that is not in the place of the one that `write` makes
        self.stale: int | None = None
        #: where the backup keeps its entries, when it is not directly before its header
        self.backup_at: int | None = None
        #: only the backup on the disk is good: it must not be touched before there is a good primary copy
        self.primary_damaged = False

    @property
    def limit(self) -> int:  # type: ignore[override]
        return self.header.count

    @property
    def backup_entries(self) -> int:
        """The sector where the backup's entries begin."""
        if self.backup_at is not None:
            return self.backup_at
        return self.header.other - self.header.array_sectors(self.sector_size)

    def usable(self) -> tuple[int, int]:
        return self.header.first_usable * self.sector_size, (self.header.last_usable + 1) * self.sector_size

    # ---- making

    @classmethod
    def create(
        cls, disk_size: int, sector_size: int, *, entries: int = 128, geometry: Geometry | None = None,
        guid: str | None = None,
    ) -> GptTable:  # fmt: skip
        """An empty table. Raises UsageError when the disk is too small, or the number of entries not possible."""
        table = cls(disk_size, sector_size, geometry)
        header = table.header
        header.count = entries
        if not 1 <= entries <= _ARRAY_LIMIT // header.entry_size:
            raise UsageError(f"a GPT can't have {entries} entries", field="entries", value=entries)
        # at least 16 KiB are kept for entries whatever their number (UEFI 5.3.2)
        room = max(header.array_sectors(sector_size), -(-16384 // sector_size))
        total = table.disk_size // sector_size
        header.first_usable = 2 + room
        header.last_usable = total - 2 - room
        header.other = total - 1
        if header.last_usable < header.first_usable:
            raise UsageError(f"a disk of {disk_size} bytes is too small for a GPT", field="size", value=disk_size)
        header.disk_guid = table.identifier = guid_text(guid_bytes(guid)) if guid else new_guid()
        table.sector0 = table.protective_mbr(bytes(sector_size))
        return table

    def protective_mbr(self, old: bytes) -> bytes:
        """Sector 0 with the one entry that keeps other tools away; boot code of ``old`` stays."""
        total = self.disk_size // self.sector_size
        last = self.geometry.encode(total - 1)
        entry = struct.pack("<B3sB3sII", 0, b"\0\2\0", PROTECTIVE_TYPE, last, 1, min(total - 1, 0xFFFFFFFF))
        return old[:440] + bytes(6) + entry + bytes(48) + b"\x55\xaa" + old[512:]

    # ---- changing

    def add(
        self, start: int, size: int, *, number: int | None = None, kind: str = PRIMARY, type: str | int | None = None,
        name: str = "", guid: str | None = None, attributes: int = 0, active: bool = False,
    ) -> Partition:  # fmt: skip
        if kind != PRIMARY:
            raise UsageError(f"a GPT has no {kind} partitions", field="kind", value=kind)
        if number is None:
            number = self.next_number()
        elif not 1 <= number <= self.limit or self.find(number):
            raise UsageError(f"partition number {number} can't be had", field="number", value=number)
        self.check_room(start, size, kind)
        part = Partition(
            number, start, size, _type_guid(type), guid=guid_text(guid_bytes(guid)) if guid else new_guid(),
            name=_name(name), attributes=attributes, active=active,
        )
        self.partitions.append(part)
        self.partitions.sort(key=lambda item: item.number)
        return part

    def set_type(self, number: int, type: str | int) -> None:
        """``type``: a GUID, or an MBR type byte that has a GUID of its own."""
        part = self.partition(number)
        part.type = _type_guid(type)

    def set_name(self, number: int, name: str) -> None:
        """Raises UsageError for more than 36 UTF-16 units."""
        part = self.partition(number)
        part.name = _name(name)

    def set_guid(self, number: int, guid: str | None) -> None:
        """The partition's own GUID; None: a new one."""
        part = self.partition(number)
        part.guid = guid_text(guid_bytes(guid)) if guid else new_guid()

    def set_attributes(self, number: int, attributes: int) -> None:
        if not 0 <= attributes < 1 << 64:
            raise UsageError("attributes are 64 bits", field="attributes", value=attributes)
        self.partition(number).attributes = attributes

    def set_identifier(self, identifier: str | None) -> None:
        """The disk's GUID; None: a new one."""
        self.identifier = guid_text(guid_bytes(identifier)) if identifier else new_guid()

    def grow(self) -> None:
        """Move the backup to the disk's end, and let partitions reach up to it. Raises UsageError on a shrunk disk
        whose partitions no longer fit."""
        sector = self.sector_size
        total = self.disk_size // sector
        header = self.header
        if header.other == total - 1:
            return
        room = max(header.array_sectors(sector), -(-16384 // sector))
        last = total - 2 - room
        needed = max((part.end for part in self.partitions), default=header.first_usable * sector)
        if (last + 1) * sector < needed:
            raise UsageError(f"the disk is too small for its partitions, which end at {needed}", field="size")
        self.stale = header.other if header.other < total else None
        header.other, header.last_usable = total - 1, last
        self.backup_at = None
        if self.sector0[446 + 4] == PROTECTIVE_TYPE and not any(self.sector0[462:510]):
            self.sector0 = self.protective_mbr(self.sector0)

    # ---- storing

    def entries(self) -> bytes:
        header = self.header
        raw = bytearray(header.array_bytes)
        for part in self.partitions:
            at = (part.number - 1) * header.entry_size
            assert isinstance(part.type, str) and part.guid is not None
            sector = self.sector_size
            packed = _ENTRY.pack(
                guid_bytes(part.type), guid_bytes(part.guid), part.start // sector, part.end // sector - 1,
                part.attributes, part.name.encode("utf-16-le", "surrogatepass"),
            )  # fmt: skip
            tail = part.tail[: header.entry_size - _ENTRY.size]
            raw[at : at + len(packed) + len(tail)] = packed + tail
        return bytes(raw)

    def write(self, node: Node) -> None:
        """The backup copy first; when it is durable the primary one; the protective MBR last, when it changes.

        A cut leaves the old primary whole, or else the new backup. (Where only the backup was good it is the other way
        round.) Raises CorruptError when there is no place for the backup.
        """
        sector = self.sector_size
        header = self.header
        header.disk_guid = self.identifier
        raw = self.entries()
        header.entries_crc = zlib.crc32(raw)
        raw = raw.ljust(header.array_sectors(sector) * sector, b"\0")
        backup = Header()
        for name in Header.__slots__:
            setattr(backup, name, getattr(header, name))
        backup.lba, backup.other, backup.entries_lba = header.other, header.lba, self.backup_entries
        if backup.entries_lba <= header.last_usable:
            raise CorruptError(
                f"GPT header: no room for the backup's entries behind sector {header.last_usable}", layer=_LAYER,
                field="LastUsableLBA", offset=header.lba * sector + 48, value=header.last_usable,
            )
        for copy in (header, backup) if self.primary_damaged else (backup, header):
            node.write(copy.entries_lba * sector, raw)
            node.write(copy.lba * sector, copy.encode(sector))
            node.flush()
        self.primary_damaged = False
        if node.read(0, sector) != self.sector0:
            node.write(0, self.sector0)
            node.flush()
        if self.stale is not None:
            self._forget(node, self.stale)
            self.stale = None
        self.forget_others(node)
        self.problems = []

    def _forget(self, node: Node, lba: int) -> None:
        """Take an old backup header away, unless its place has become part of something else."""
        at = lba * self.sector_size
        taken = any(part.start <= at < part.end for part in self.partitions)
        if not taken and lba not in (self.header.other, self.header.lba) and node.read(at, 8) == SIGNATURE:
            node.write(at, bytes(self.sector_size))
            node.flush()


def _type_guid(type: str | int | None) -> str:
    from .types import MBR_TO_GUID

    if type is None:
        return LINUX_GUID
    if isinstance(type, int):
        if type not in MBR_TO_GUID:
            raise UsageError(f"MBR type {type:#04x} has no GUID", field="type", value=type)
        return MBR_TO_GUID[type]
    text = guid_text(guid_bytes(type))
    if text == UNUSED_GUID:
        raise UsageError("a partition can't be of the type that means unused", field="type", value=type)
    return text


def _name(text: str) -> str:
    if len(text.encode("utf-16-le", "surrogatepass")) > 72 or "\0" in text:
        raise UsageError("a partition's name has at most 36 UTF-16 units and no NUL", field="name", value=text)
    return text


def read_gpt(node: Node, sector: int, geometry: Geometry | None = None, sector0: bytes | None = None) -> GptTable:
    """The table on ``node``: the primary copy, or the backup where that is damaged (``problems`` says so).

    Raises ForeignError when neither header is there, CorruptError naming the primary's fault when none is whole.
    """
    total = node.size // sector
    if total < 6:
        raise ForeignError("the disk is too small for a GPT", layer=_LAYER)
    fault: CorruptError | ForeignError | None = None
    header: Header | None = None
    parts: list[Partition] = []
    try:
        header = read_header(node, 1, sector)
        parts = read_entries(node, header, sector)
        if not 1 < header.other < total or header.other <= header.last_usable:
            # the disk shrank, or nobody has said where the backup is: it goes to the end
            raise CorruptError(
                f"GPT header: the backup can't be in sector {header.other} of {total}", layer=_LAYER,
                field="AlternateLBA", offset=sector + 32, value=header.other,
            )
    except (CorruptError, ForeignError) as error:
        fault = error
    table = GptTable(node.size, sector, geometry)
    table.sector0 = sector0 if sector0 is not None else node.read(0, sector)
    if fault is None:
        assert header is not None
        table.header = header
        table.partitions = parts
        _compare_backup(node, table, sector)
        if header.other != total - 1:
            table.problems.append("the backup header is not at the end of the disk")
    else:
        backup, found = _read_backup(node, sector, total, fault)
        table.partitions = found
        table.header = _primary_of(backup, sector)
        table.backup_at = backup.entries_lba
        table.primary_damaged = True
        table.problems.append(f"the primary header or its entries are damaged ({fault}); the backup is used")
    table.identifier = table.header.disk_guid
    if table.sector0[510:512] != b"\x55\xaa" or not _has_protective(table.sector0):
        table.problems.append("there is no protective MBR")
        table.sector0 = table.protective_mbr(table.sector0)
    return table


def _read_backup(
    node: Node, sector: int, total: int, fault: CorruptError | ForeignError
) -> tuple[Header, list[Partition]]:
    """The backup where the primary has ``fault``: at the disk's end, or where a primary header that can be read says
    that it is. Raises ``fault`` when there is none, or CorruptError when it is damaged as well."""
    places = [total - 1]
    other = int.from_bytes(node.read(sector + 32, 8), "little")
    if node.read(sector, 8) == SIGNATURE and 1 < other < total - 1:
        places.append(other)
    for place in places:
        try:
            header = read_header(node, place, sector)
            return header, read_entries(node, header, sector)
        except ForeignError:
            continue
        except CorruptError as error:
            if isinstance(fault, ForeignError):
                raise error from fault
    raise fault


def _primary_of(backup: Header, sector: int) -> Header:
    """The primary header that belongs to a backup."""
    header = Header()
    for name in Header.__slots__:
        setattr(header, name, getattr(backup, name))
    header.lba, header.other = 1, backup.lba
    header.entries_lba = 2
    if 2 + header.array_sectors(sector) > header.first_usable:
        raise CorruptError(
            f"GPT header: {header.count} entries don't fit before sector {header.first_usable}", layer=_LAYER,
            field="FirstUsableLBA", offset=backup.lba * sector + 40, value=header.first_usable,
        )
    return header


def _compare_backup(node: Node, table: GptTable, sector: int) -> None:
    header = table.header
    try:
        backup = read_header(node, header.other, sector)
        same = backup.disk_guid == header.disk_guid and backup.entries_crc == header.entries_crc
        read_entries(node, backup, sector)
        if backup.array_bytes == header.array_bytes and backup.last_usable == header.last_usable:
            table.backup_at = backup.entries_lba
        if not same:
            table.problems.append("the backup differs from the primary table")
    except (CorruptError, ForeignError) as error:
        table.problems.append(f"the backup is damaged ({error})")


def _has_protective(sector0: bytes) -> bool:
    return any(sector0[at] == PROTECTIVE_TYPE for at in range(450, 514 - 16 + 1, 16) if at < 510)
