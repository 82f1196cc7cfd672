"""Directories: entries of 32 bytes, long names in entries before the short one (FAT specification, 6 and 7)."""

from __future__ import annotations

import struct

from ....errors import CorruptError
from . import name as names
from . import stamp

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

READ_ONLY, HIDDEN, SYSTEM, VOLUME, DIRECTORY, ARCHIVE, LONG = 1, 2, 4, 8, 16, 32, 15
DELETED = 0xE5
#: bytes of the longest directory
LIMIT = 65536 * 32

#: name, attributes, case flags, hundredths, time and date of creation, date of access, cluster's high half, time and
#: date of change, cluster's low half, size
ENTRY = struct.Struct("<11sBBBHHHHHHHI")

#: bytes of a short name
_LEGAL = frozenset(range(32, 256)).difference(b'"*+,./:;<=>?[\\]|')
DOT, DOTS = b".".ljust(11), b"..".ljust(11)


class Entry:
    """A short entry's fields."""

    __slots__ = (
        "accessed", "attributes", "changed_date", "changed_time", "created_date", "created_hundredths",
        "created_time", "flags", "short", "size", "start",
    )  # fmt: skip

    def __init__(self, raw: bytes | bytearray | memoryview, wide: bool = True) -> None:
        """``wide``: the cluster's high half counts (FAT32); elsewhere it belongs to others."""
        (
            self.short, self.attributes, self.flags, self.created_hundredths, self.created_time, self.created_date,
            self.accessed, high, self.changed_time, self.changed_date, low, self.size,
        ) = ENTRY.unpack(raw)  # fmt: skip
        self.start = low | high << 16 if wide else low

    def pack(self, raw: bytearray, at: int, wide: bool) -> None:
        """Write the fields over an entry; on FAT12 and 16 its high half stays what it was."""
        high = self.start >> 16 if wide else raw[at + 20] | raw[at + 21] << 8
        ENTRY.pack_into(
            raw, at, self.short, self.attributes, self.flags, self.created_hundredths, self.created_time,
            self.created_date, self.accessed, high, self.changed_time, self.changed_date, self.start & 0xFFFF,
            self.size,
        )  # fmt: skip

    @property
    def is_directory(self) -> bool:
        return bool(self.attributes & DIRECTORY)

    def set_changed(self, when: int) -> None:
        self.changed_date, self.changed_time, _ = stamp.encode(when)

    def set_accessed(self, when: int) -> None:
        self.accessed = stamp.encode(when)[0]

    def set_created(self, when: int) -> None:
        self.created_date, self.created_time, self.created_hundredths = stamp.encode(when)


class Record:
    """One name in a directory: ``text`` its name, ``first`` to ``slot`` its entries, the last of them the short one."""

    __slots__ = ("first", "short", "slot", "text")

    def __init__(self, text: str, first: int, slot: int, short: bytes) -> None:
        self.text = text
        self.first = first
        self.slot = slot
        self.short = short


def scan(data: bytes | bytearray) -> Iterator[Record]:
    """The names in a directory's bytes up to its end mark, without dots and volume labels. Long entries that belong
    to no short one, or to another, are passed over."""
    pieces: list[bytes] = []
    wanted = total = first = 0
    for slot in range(len(data) // 32):
        at = slot * 32
        mark = data[at]
        if not mark:
            return
        if mark == DELETED:
            pieces = []
            continue
        attributes = data[at + 11]
        if attributes & 0x3F == LONG:
            number = mark & 0x3F
            if mark & 0x40:
                pieces, wanted, total, first = [], number, data[at + 13], slot
                if not 0 < number <= 20:
                    wanted = 0
                    continue
            elif not pieces or number != wanted - 1 or data[at + 13] != total:
                pieces = []
                continue
            else:
                wanted = number
            pieces.append(b"".join(bytes(data[at + start : at + start + length]) for start, length in names.PIECES))
            continue
        short = bytes(data[at : at + 11])
        if attributes & VOLUME or short in (DOT, DOTS):
            pieces = []
            continue
        text = ""
        if pieces and wanted == 1 and names.checksum(short) == total:
            text = names.from_units(b"".join(reversed(pieces)))
            if not names.usable(text):
                text = ""
        if text:
            yield Record(text, first, slot, short)
        else:
            yield Record(names.from_short(short, data[at + 12]), slot, slot, short)
        pieces = []


def is_long(data: bytes | bytearray, slot: int) -> bool:
    """Is this entry a part of a long name?"""
    at = slot * 32
    return data[at] not in (0, DELETED) and data[at + 11] & 0x3F == LONG


def label_slot(data: bytes | bytearray) -> int | None:
    """The slot of the volume label in the root directory's bytes."""
    for at in range(0, len(data), 32):
        if not data[at]:
            return None
        if data[at] != DELETED and data[at + 11] & 0x3F != LONG and data[at + 11] & (VOLUME | DIRECTORY) == VOLUME:
            return at // 32
    return None


def _align(slot: int, count: int) -> int:
    """Where ``count`` slots from ``slot`` on do not cross a sector's end."""
    return slot if slot % 16 + count <= 16 else slot + 16 - slot % 16


class Directory:
    """A directory in memory: its bytes, where they lie, and its names.

    ``places``: (offset on the device, bytes) of its parts in order. ``before``: its bytes as they are on the device,
    None while nothing is changed. ``fresh``: short slots of names that are new. ``end``: the slot of the end mark.
    ``gaps``: (slot, how many) free ones before it. ``removed``: short name -> (first slot, last) of names taken away.
    ``successors``: short slots of names taken away -> that of the name in this directory that took over what was
    behind it.
    """

    __slots__ = (
        "before", "by_name", "by_short", "data", "end", "fresh", "gaps", "ino", "places", "records",
        "removed", "start", "successors",
    )  # fmt: skip

    def __init__(self, ino: int, start: int, places: list[tuple[int, int]], data: bytearray) -> None:
        self.ino = ino
        self.start = start
        self.places = places
        self.data = data
        self.before: bytes | None = None
        self.fresh: set[int] = set()
        self.removed: dict[bytes, tuple[int, int]] = {}
        self.successors: dict[int, int] = {}
        self.end = 0
        self.gaps: list[tuple[int, int]] = []
        self.records: dict[int, Record] = {}
        self.by_name: dict[str, Record] = {}
        self.by_short: dict[bytes, Record] = {}
        for record in scan(data):
            self.remember(record)

    def change(self) -> None:
        """It is about to be changed. Raises CorruptError where that would take names from others."""
        if self.before is None:
            self._refuse_hidden()
            self.before = bytes(self.data)
            self.find_gaps(True)

    def _refuse_hidden(self) -> None:
        """Names behind the end mark are none for the specification; Linux and fsck.vfat pass over the mark and show
        them. They would be lost with what is cleared there."""
        mark = next((slot for slot, byte in enumerate(self.data[::32]) if not byte), None)
        if mark is None or self.data.count(0, mark * 32) == len(self.data) - mark * 32:
            return
        for at in range(mark * 32, len(self.data), 32):
            short, attributes = self.data[at : at + 11], self.data[at + 11]
            if short[0] not in (0, DELETED) and not attributes & (0xC0 | VOLUME) and _LEGAL.issuperset(short[1:]):
                raise CorruptError(
                    "The directory has entries behind its end mark, which a change would lose",
                    layer="FAT directory", field="DIR_Name", offset=self.place(at // 32), value=bytes(short).hex(),
                    hint="Linux shows them: mount it there and move them elsewhere",
                )  # fmt: skip

    def find_gaps(self, keep: bool) -> None:
        """Look for free slots; with ``keep`` not those whose entry is still there on the device."""
        before = self.before or b""
        self.gaps = []
        self.end = len(self.data) // 32
        begin = -1
        for slot, mark in enumerate(self.data[::32]):
            if not mark:
                self.end = slot
                # what follows the mark counts for nothing, and must not come to count when the mark moves
                if any(self.data[slot * 32 :]):
                    self.data[slot * 32 :] = bytes(len(self.data) - slot * 32)
                break
            if mark == DELETED and not (keep and before[slot * 32 : slot * 32 + 1] not in (b"", b"\0", b"\xe5")):
                if begin < 0:
                    begin = slot
            elif begin >= 0:
                self.gaps.append((begin, slot - begin))
                begin = -1
        if begin >= 0:
            self.gaps.append((begin, self.end - begin))

    def room(self, count: int, aligned: bool) -> int | None:
        """The first of ``count`` free slots, which are taken; None without any. ``aligned``: all of them in one
        sector of 512 bytes, so that a name comes and goes as a whole."""
        aligned = aligned and count <= 16
        for number, (first, free) in enumerate(self.gaps):
            begin = _align(first, count) if aligned else first
            if begin + count <= first + free:
                rest = [(first, begin - first), (begin + count, first + free - begin - count)]
                self.gaps[number : number + 1] = [gap for gap in rest if gap[1]]
                return begin
        begin = _align(self.end, count) if aligned else self.end
        if (begin + count) * 32 > len(self.data):
            return None
        if begin > self.end:
            for slot in range(self.end, begin):
                self.data[slot * 32] = DELETED
            self.gaps.append((self.end, begin - self.end))
        self.end = begin + count
        return begin

    def take(self, first: int, count: int) -> None:
        """These slots are free no more."""
        end = first + count
        self.gaps = [
            (low, high - low)
            for begin, free in self.gaps
            for low, high in ((begin, min(begin + free, first)), (max(begin, end), begin + free))
            if low < high
        ]

    def remember(self, record: Record) -> None:
        """Where a damaged directory has a name twice the first one stays."""
        self.records[record.slot] = record
        self.by_name.setdefault(names.fold(record.text), record)
        self.by_short.setdefault(record.short, record)

    def forget(self, record: Record) -> None:
        del self.records[record.slot]
        key = names.fold(record.text)
        if self.by_name.get(key) is record:
            del self.by_name[key]
        if self.by_short.get(record.short) is record:
            del self.by_short[record.short]

    def find(self, text: str) -> Record | None:
        """By its long name or its short one, in any case."""
        key = names.fold(text)
        if not key:
            return None
        record = self.by_name.get(key)
        if record is None and len(key) <= 12:
            base, dot, extension = key.rpartition(".")
            if not dot:
                base, extension = key, ""
            if 0 < len(base) <= 8 and len(extension) <= 3:
                try:
                    short = base.encode("cp437").ljust(8) + extension.encode("cp437").ljust(3)
                except UnicodeEncodeError:
                    return None
                record = self.by_short.get(b"\x05" + short[1:] if short[0] == 0xE5 else short)
        return record

    def place(self, slot: int) -> int:
        """Where an entry lies on the device."""
        at = slot * 32
        for offset, length in self.places:
            if at < length:
                return offset + at
            at -= length
        raise IndexError(slot)
