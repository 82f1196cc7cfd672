"""MBR ("dos", "msdos") partition tables with their chain of logical partitions, read and written.

    sector 0, byte 446    four entries of 16 bytes; byte 440 the disk's signature; byte 510 0x55 0xAA
    an extended entry     an area that begins with the first link of a chain. Each link is a sector like sector 0: its
                          first entry is a logical partition, relative to the link; its second the next link,
                          relative to the extended partition
"""

from __future__ import annotations

import os
import struct

from ...errors import CorruptError, ForeignError, UsageError
from .geometry import Geometry, settle
from .table import EXTENDED, LOGICAL, PRIMARY, Partition, Space, Table, check_overlaps, gaps
from .types import EXTENDED_TYPES

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ...block.node import Node
    from .geometry import Hint

_ENTRY = struct.Struct("<B3sB3sII")
_TABLE = 446
_MAGIC = b"\x55\xaa"
_LAYER = "mbr"
#: no kernel has names for more
_LOGICAL_LIMIT = 256
_LAST = 0xFFFFFFFF


class _Link:
    """One sector of the chain: where it is (in sectors) and the logical partition it describes, if any."""

    __slots__ = ("part", "sector")

    def __init__(self, sector: int, part: Partition | None) -> None:
        self.sector = sector
        self.part = part


class MbrTable(Table):
    """An MBR partition table; logical partitions are numbered from 5 in the order of the chain.

    Deleting a logical partition moves the numbers of those behind it down, as every kernel counts them.
    """

    label = "dos"
    limit = 4

    def __init__(self, disk_size: int, sector_size: int, geometry: Geometry | None = None) -> None:
        super().__init__(disk_size, sector_size, geometry or Geometry(255, 63))
        self.sector0 = bytes(sector_size)
        self._links: list[_Link] = []
        #: the sectors of the links that are on the disk, and are part of a chain there
        self._linked: set[int] = set()

    # ---- making

    @classmethod
    def create(
        cls, disk_size: int, sector_size: int, *, geometry: Geometry | None = None, identifier: str | None = None
    ) -> MbrTable:
        """An empty table; ``identifier``: eight hexadecimal digits, random unless given. Raises UsageError."""
        table = cls(disk_size, sector_size, geometry)
        if table.disk_size < 2 * sector_size:
            raise UsageError(f"a disk of {disk_size} bytes is too small for a partition table", field="size")
        table.set_identifier(identifier)
        return table

    def set_identifier(self, identifier: str | None) -> None:
        """The disk's signature; None: a random one. Raises UsageError."""
        if identifier is None:
            identifier = f"{int.from_bytes(os.urandom(4), 'little') or 1:08x}"
        try:
            value = int(identifier, 16)
        except ValueError:
            value = -1
        if not 0 <= value <= _LAST:
            raise UsageError(f"'{identifier}' is not a disk signature", field="identifier", value=identifier)
        self.identifier = f"{value:08x}"

    def usable(self) -> tuple[int, int]:
        sector = self.sector_size
        return sector, min(self.disk_size, (_LAST + 1) * sector)

    def bounds(self, kind: str) -> tuple[int, int]:
        if kind != LOGICAL:
            return self.usable()
        extended = self.extended
        if extended is None:
            raise UsageError("there is no extended partition", field="kind", value=kind)
        return extended.start + self.sector_size, extended.end

    # ---- free space as libparted has it

    def free_extents(self, *, cylinders: bool = True) -> list[Space]:
        """Free space without what libparted keeps for itself: the first track, with ``cylinders`` (as libvirt asks it,
        and parted doesn't) the last, partial cylinder, and before each logical partition what is left of its cylinder.
        """
        sector = self.sector_size
        track = self.geometry.sectors * sector
        cylinder = self.geometry.cylinder * sector
        tops = sorted((part.start, part.end) for part in self.partitions if part.kind != LOGICAL)
        end = self.disk_size
        if cylinders:
            end = max(end // cylinder * cylinder, max((last for _, last in tops), default=0))
        low = min(track, tops[0][0]) if tops else track
        found = [Space(a, b) for a, b in gaps(max(low, sector), min(end, self.usable()[1]), tops)]
        extended = self.extended
        if extended is not None:
            taken: list[tuple[int, int]] = []
            before = extended.start + sector
            for part in sorted((item for item in self.partitions if item.kind == LOGICAL), key=lambda item: item.start):
                # the link's cylinder up to the partition; the first one's link is at the front of the extended one
                low = max(before, (part.start - sector) // cylinder * cylinder)
                if part.number != 5 or part.start - low >= track:
                    taken.append((low, part.start))
                taken.append((part.start, part.end))
                before = part.end
            first = min((start for start, _ in taken), default=extended.end)
            head = (extended.start, min(extended.start + track, first))
            found += [Space(a, b, True) for a, b in gaps(extended.start, extended.end, [head, *taken])]
        found.sort(key=lambda space: space.start)
        return found

    # ---- changing

    def next_number(self, kind: str = PRIMARY) -> int:
        if kind != LOGICAL:
            return super().next_number(kind)
        count = sum(1 for link in self._links if link.part is not None)
        if count >= _LOGICAL_LIMIT:
            raise UsageError(f"there can't be more than {_LOGICAL_LIMIT} logical partitions", limit=_LOGICAL_LIMIT)
        return 5 + count

    def add(
        self, start: int, size: int, *, number: int | None = None, kind: str = PRIMARY, type: str | int | None = None,
        name: str = "", guid: str | None = None, attributes: int = 0, active: bool = False,
    ) -> Partition:  # fmt: skip
        """As `Table.add`; a logical partition gets the last number and needs the sector before it for its link."""
        if name or guid or attributes:
            raise UsageError("an MBR partition has neither name, GUID nor attributes", field="name")
        if kind not in (PRIMARY, EXTENDED, LOGICAL):
            raise UsageError(f"there are no {kind} partitions", field="kind", value=kind)
        if type is None:
            type = 0x0F if kind == EXTENDED else 0x83
        _check_type(type, kind)
        if kind == EXTENDED and self.extended is not None:
            raise UsageError("there is an extended partition already", field="kind", value=kind)
        self.check_room(start, size, kind)
        following = self.next_number(kind)
        if number is None:
            number = following
        elif number != following if kind == LOGICAL else not 1 <= number <= 4 or self.find(number) is not None:
            raise UsageError(f"partition number {number} can't be had", field="number", value=number)
        part = Partition(number, start, size, type, kind=kind)
        if kind == LOGICAL:
            self._link(part)
        elif kind == EXTENDED:
            self._links = [_Link(start // self.sector_size, None)]
        self.partitions.append(part)
        self.partitions.sort(key=lambda item: item.number)
        if active:
            self.set_active(number, True)
        return part

    def _link(self, part: Partition) -> None:
        """Give a new logical partition a link: the first of all when it is empty, else the sector before it."""
        last = self._links[-1]
        if last.part is None:
            last.part = part
            return
        sector = part.start // self.sector_size - 1
        place = sector * self.sector_size
        for other in self.partitions:
            if other.kind == LOGICAL and other.start <= place < other.end:
                raise UsageError(
                    f"a logical partition at {part.start} has no free sector before it", field="start", value=part.start
                )
        if any(link.sector == sector for link in self._links):
            raise UsageError(
                f"the sector before {part.start} is another partition's link", field="start", value=part.start
            )
        self._links.append(_Link(sector, part))

    def check_room(self, start: int, size: int, kind: str, but: Partition | None = None) -> None:
        super().check_room(start, size, kind, but)
        sector = self.sector_size
        if kind == LOGICAL:
            for link in self._links:
                if start <= link.sector * sector < start + size:
                    raise UsageError(
                        f"a partition at [{start}, {start + size}) covers the link at {link.sector * sector}",
                        field="start", value=start,
                    )  # fmt: skip
        if kind == EXTENDED and but is not None:
            inner = max((part.end for part in self.partitions if part.kind == LOGICAL), default=start)
            if start + size < inner or start != but.start:
                raise UsageError(f"the logical partitions reach up to {inner}", field="size", value=size)

    def delete(self, number: int) -> None:
        part = self.partition(number)
        if part.kind == EXTENDED:
            self.partitions = [item for item in self.partitions if item.kind == PRIMARY]
            self._links = []
        elif part.kind == LOGICAL:
            self.partitions.remove(part)
            at = next(index for index, link in enumerate(self._links) if link.part is part)
            if at:
                del self._links[at]
            else:
                # the chain begins at the start of the extended partition whatever happens
                self._links[0].part = self._links.pop(1).part if len(self._links) > 1 else None
            self._renumber()
        else:
            self.partitions.remove(part)

    def _renumber(self) -> None:
        number = 5
        for link in self._links:
            if link.part is not None:
                link.part.number = number
                number += 1
        self.partitions.sort(key=lambda item: item.number)

    def set_type(self, number: int, type: str | int) -> None:
        """``type``: a byte. A container can't become a plain partition, nor the other way round. Raises UsageError."""
        part = self.partition(number)
        _check_type(type, part.kind)
        part.type = type

    def set_active(self, number: int, active: bool) -> None:
        part = self.partition(number)
        if active:
            for other in self.partitions:
                if (other.kind == LOGICAL) == (part.kind == LOGICAL):
                    other.active = False
        part.active = active

    def grow(self) -> None:
        pass

    # ---- storing

    def _entry(self, part: Partition, base: int = 0) -> bytes:
        sector = self.sector_size
        first, last = part.start // sector, part.end // sector - 1
        assert isinstance(part.type, int)
        flag = 0x80 if part.active else 0
        encode = self.geometry.encode
        # an entry whose place did not change keeps what it says about cylinders
        known = part.tail
        if len(known) == 14 and known[6:] == struct.pack("<II", first, last):
            begin, end = known[:3], known[3:6]
        else:
            begin, end = encode(first), encode(last)
        return _ENTRY.pack(flag, begin, part.type, end, first - base, last - first + 1)

    def _first_sector(self) -> bytes:
        raw = bytearray(self.sector0)
        raw[440:444] = int(self.identifier or "0", 16).to_bytes(4, "little")
        raw[_TABLE : _TABLE + 64] = bytes(64)
        for part in self.partitions:
            if part.kind != LOGICAL:
                at = _TABLE + 16 * (part.number - 1)
                raw[at : at + 16] = self._entry(part)
        raw[510:512] = _MAGIC
        return bytes(raw)

    def _link_sector(self, index: int, old: bytes) -> bytes:
        link = self._links[index]
        raw = bytearray(old if old[510:512] == _MAGIC and link.sector in self._linked else bytes(self.sector_size))
        raw[_TABLE : _TABLE + 64] = bytes(64)
        if link.part is not None:
            raw[_TABLE : _TABLE + 16] = self._entry(link.part, link.sector)
        if index + 1 < len(self._links):
            extended = self.extended
            assert extended is not None
            after = self._links[index + 1]
            sector = self.sector_size
            end = after.part.end // sector if after.part is not None else after.sector + 1
            if end <= after.sector:
                end = after.sector + 1
            first, length = after.sector, end - after.sector
            encode = self.geometry.encode
            raw[_TABLE + 16 : _TABLE + 32] = _ENTRY.pack(
                0, encode(first), 0x05, encode(end - 1), first - extended.start // sector, length
            )
        raw[510:512] = _MAGIC
        return bytes(raw)

    def write(self, node: Node) -> None:
        """New links first; when they are durable, those sectors that put them to use.

        A single `add`, `delete` or `resize` puts itself to use by one sector, so that a cut leaves the old table or the
        new. (Only a length that the link before a resized logical partition repeats may be out of date; nothing
        relies on it.)
        """
        sector = self.sector_size
        fresh: list[tuple[int, bytes]] = []
        used: list[tuple[int, bytes]] = []
        for index, link in enumerate(self._links):
            old = node.read(link.sector * sector, sector)
            raw = self._link_sector(index, old)
            if link.sector not in self._linked:
                fresh.append((link.sector, raw))
            elif raw != old:
                used.append((link.sector, raw))
        first = self._first_sector()
        for place, raw in fresh:
            node.write(place * sector, raw)
        if fresh:
            node.flush()
        for place, raw in used:
            node.write(place * sector, raw)
            node.flush()
        if node.read(0, sector) != first:
            node.write(0, first)
        node.flush()
        self.sector0 = first
        self._linked = {link.sector for link in self._links}
        self.forget_others(node)
        self.problems = []


def _check_type(type: str | int, kind: str) -> None:
    if not isinstance(type, int) or not 0 < type <= 0xFF:
        raise UsageError(f"'{type}' is not a partition type of an MBR (1 to 255)", field="type", value=type)
    if (type in EXTENDED_TYPES) != (kind == EXTENDED):
        raise UsageError(f"type {type:#04x} does not go with a {kind} partition", field="type", value=type)


def plausible(sector0: bytes) -> bool:
    """May this be a partition table? The magic is there, the flags are possible, and it is no file system's boot
    sector."""
    if sector0[510:512] != _MAGIC or any(sector0[at] & 0x7F for at in range(_TABLE, 510, 16)):
        return False
    empty = not any(sector0[_TABLE:510])
    if sector0[3:11] == b"NTFS    " or sector0[3:11] == b"EXFAT   ":
        return False
    if sector0[0] in (0xEB, 0xE9) and (sector0[54:57] == b"FAT" or sector0[82:87] == b"FAT32"):
        # boot code may look like FAT's; then there are partitions
        return not empty and any(sector0[at + 4] for at in range(_TABLE, 510, 16))
    return True


def read_mbr(
    node: Node, sector: int, geometry: Geometry | None = None, sector0: bytes | None = None
) -> MbrTable:
    """The table on ``node``, checked. Raises ForeignError when there is none, CorruptError naming what is wrong.

    ``geometry``: what the disk says of itself; the partitions are asked first.
    """
    table = MbrTable(node.size, sector, geometry)
    if node.size < 2 * sector:
        raise ForeignError("the disk is too small for a partition table", layer=_LAYER)
    raw = sector0 if sector0 is not None else node.read(0, sector)
    if not plausible(raw):
        raise ForeignError("no MBR partition table", layer=_LAYER, field="signature", offset=510)
    table.sector0 = raw
    table.identifier = f"{int.from_bytes(raw[440:444], 'little'):08x}"
    total = node.size // sector
    hints: list[tuple[bool, Hint]] = []
    offsets: dict[int, int] = {}
    for index in range(4):
        at = _TABLE + 16 * index
        part = _read_entry(raw, at, 0, 0, index + 1, sector, hints)
        if part is None:
            continue
        if not part.start or part.end > total * sector:
            raise CorruptError(
                f"partition {part.number} at [{part.start}, {part.end}) lies outside the disk of {node.size} bytes",
                layer=_LAYER, field="start LBA", offset=at + 8, value=part.start // sector,
            )
        if part.kind == EXTENDED and table.extended is not None:
            raise CorruptError(
                f"partition {part.number} is a second extended partition", layer=_LAYER, field="type", offset=at + 4,
                value=f"{part.type:#04x}",
            )
        offsets[part.number] = at + 8
        table.partitions.append(part)
    check_overlaps(table.partitions, offsets, _LAYER)
    extended = table.extended
    if extended is not None:
        _read_chain(node, table, extended, hints)
    hints.sort(key=lambda item: not item[0])
    table.geometry = settle(table.geometry, [hint for _, hint in hints])
    return table


def _read_entry(
    raw: bytes, at: int, place: int, base: int, number: int, sector: int, hints: list[tuple[bool, Hint]]
) -> Partition | None:
    """The partition of the entry at ``at`` of a sector; ``base``: sector that its start counts from."""
    flag, begin, type, end, start, length = _ENTRY.unpack_from(raw, at)
    if not type or not length:
        return None
    start += base
    kind = LOGICAL if place else EXTENDED if type in EXTENDED_TYPES else PRIMARY
    part = Partition(
        number, start * sector, length * sector, type, kind=kind, active=flag == 0x80,
        tail=begin + end + struct.pack("<II", start & _LAST, start + length - 1 & _LAST),
    )
    hints.append((part.active, (start, start + length - 1, begin, end)))
    return part


def _read_chain(node: Node, table: MbrTable, extended: Partition, hints: list[tuple[bool, Hint]]) -> None:
    """Follow the links of the logical partitions. Raises CorruptError: a loop, a link or partition outside, no magic,
    too many, overlapping."""
    sector = table.sector_size
    origin = place = extended.start // sector
    limit = extended.end // sector
    seen: set[int] = set()
    offsets: dict[int, int] = {}
    logical: list[Partition] = []
    while True:
        at = place * sector
        if place in seen:
            raise CorruptError(
                "the chain of logical partitions is a loop", layer=_LAYER, field="next EBR", offset=at, value=place
            )
        if len(seen) >= _LOGICAL_LIMIT:
            raise CorruptError(
                f"the chain of logical partitions has more than {_LOGICAL_LIMIT} links", layer=_LAYER,
                field="next EBR", offset=at, value=place, limit=_LOGICAL_LIMIT,
            )
        seen.add(place)
        raw = node.read(at, sector)
        if raw[510:512] != _MAGIC:
            if place == origin and not any(raw[_TABLE:512]):
                # made by a tool that writes the first link together with the first logical partition
                table._links.append(_Link(place, None))
                break
            raise CorruptError(
                "a link of the logical partitions has no signature", layer=_LAYER, field="signature", offset=at + 510,
                value=raw[510:512].hex(),
            )
        part: Partition | None = None
        following: int | None = None
        for index in range(2):
            offset = _TABLE + 16 * index
            type = raw[offset + 4]
            start, length = struct.unpack_from("<II", raw, offset + 8)
            if not type or not length:
                continue
            if type in EXTENDED_TYPES:
                if following is not None or (index == 0 and raw[_TABLE + 20] in EXTENDED_TYPES):
                    raise CorruptError(
                        "a link of the logical partitions names two others", layer=_LAYER, field="type",
                        offset=at + offset + 4, value=f"{type:#04x}",
                    )
                following = origin + start
                if not origin < following < limit:
                    raise CorruptError(
                        f"a link of the logical partitions points to sector {following}, outside of the extended "
                        f"partition", layer=_LAYER, field="next EBR", offset=at + offset + 8, value=start,
                    )
            elif part is None:
                number = 5 + len(logical)
                part = _read_entry(raw, offset, place, place, number, sector, hints)
                assert part is not None
                if (part.start <= at and part.end > at) or part.start <= extended.start or part.end > extended.end:
                    raise CorruptError(
                        f"partition {number} at [{part.start}, {part.end}) lies outside of the extended partition or "
                        f"over its own link", layer=_LAYER, field="start LBA", offset=at + offset + 8, value=start,
                    )
                offsets[number] = at + offset + 8
                logical.append(part)
            else:
                raise CorruptError(
                    "a link describes two logical partitions", layer=_LAYER, field="type", offset=at + offset + 4,
                    value=f"{type:#04x}",
                )
        table._links.append(_Link(place, part))
        if following is None:
            break
        place = following
    check_overlaps(logical, offsets, _LAYER)
    for link in table._links:
        for part in logical:
            if part.start <= link.sector * sector < part.end:
                raise CorruptError(
                    f"partition {part.number} covers a link of the chain", layer=_LAYER, field="start LBA",
                    offset=offsets[part.number], value=part.start // sector,
                )
    # the first link may not have been written yet
    table._linked = {link.sector for link in table._links}
    table.partitions += logical
