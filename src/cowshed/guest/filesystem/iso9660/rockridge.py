"""Rock Ridge (RRIP 1.12) in the system use fields of directory records, by the System Use Sharing Protocol (1.12)."""

from __future__ import annotations

import os
import struct

from ....errors import CorruptError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from ....block.node import Node

SECOND = 1_000_000_000
#: continuation areas of one record, and bytes of one
_AREAS, _AREA = 64, 65536
#: components of a symbolic link
_CURRENT, _PARENT, _ROOT = 2, 4, 8
_MONTHS = (0, 31, 59, 90, 120, 151, 181, 212, 243, 273, 304, 334)


def seconds(year: int, month: int, day: int, hour: int, minute: int, second: int, zone: int) -> int:
    """Seconds since the epoch; ``zone``: quarters of an hour east of Greenwich, 0 where it makes no sense."""
    month = min(max(month, 1), 12)
    earlier = year - 1
    days = (year - 1970) * 365 + earlier // 4 - earlier // 100 + earlier // 400 - 477
    days += _MONTHS[month - 1] + day - 1
    days += month > 2 and year % 4 == 0 and (year % 100 != 0 or year % 400 == 0)
    zone = zone - 256 if zone > 127 else zone
    if not -52 <= zone <= 52:
        zone = 0
    return days * 86400 + hour * 3600 + minute * 60 + second - zone * 900


def short_date(raw: bytes) -> int:
    """Nanoseconds of a date in 7 bytes (ECMA-119, 9.1.5)."""
    if len(raw) < 7 or not raw[1]:
        return 0
    return seconds(1900 + raw[0], *raw[1:7]) * SECOND


def long_date(raw: bytes) -> int:
    """Nanoseconds of a date in 17 bytes, digits (ECMA-119, 8.4.26.1)."""
    if len(raw) < 17 or not raw[:16].isdigit() or not raw[:4].strip(b"0"):
        return 0
    fields = [int(raw[at : at + 2]) for at in range(4, 16, 2)]
    return (
        seconds(int(raw[:4]), fields[0], fields[1], fields[2], fields[3], fields[4], raw[16]) * SECOND
        + fields[5] * 10_000_000
    )


class Facts:
    """What Rock Ridge says of one file; None where it says nothing. ``child``: the block of a directory that was
    moved elsewhere, ``moved``: this is the place that it was moved to, ``sharing``: bytes to skip (SP), ``known``: an
    ER entry names extensions, ``packed``: zisofs' (algorithm, header size, log2 of the block, size), ``sparse``."""

    __slots__ = (
        "atime", "child", "ctime", "gid", "known", "mode", "moved", "mtime", "name", "nlink", "packed", "rdev",
        "sharing", "sparse", "target", "uid",
    )  # fmt: skip

    def __init__(self) -> None:
        self.name: bytes | None = None
        self.mode: int | None = None
        self.nlink = self.uid = self.gid = self.rdev = 0
        self.target: bytes | None = None
        self.mtime: int | None = None
        self.atime: int | None = None
        self.ctime: int | None = None
        self.child: int | None = None
        self.moved = False
        self.sharing: int | None = None
        self.known = False
        self.packed: tuple[bytes, int, int, int] | None = None
        self.sparse = False


def fields(node: Node, block_size: int, area: bytes) -> Iterator[tuple[bytes, bytes]]:
    """(signature, data) of the entries of a system use field and of its continuations. Raises CorruptError where
    continuations go in circles or out of the disk."""
    seen: set[tuple[int, int]] = set()
    while True:
        after: tuple[int, int, int] | None = None
        at = 0
        while at + 4 <= len(area):
            mark, length = area[at : at + 2], area[at + 2]
            if length < 4 or at + length > len(area):
                break
            data = area[at + 4 : at + length]
            if mark == b"CE" and len(data) >= 24:
                after = struct.unpack_from("<I4xI4xI", data)
            elif mark == b"ST":
                break
            else:
                yield mark, data
            at += length
        if after is None:
            return
        block, offset, length = after
        place = block * block_size + offset
        if (block, offset) in seen or len(seen) >= _AREAS or length > _AREA or place + length > node.size:
            raise CorruptError(
                "Damaged Rock Ridge entry: its continuation leads nowhere", path=node.filename, layer="Rock Ridge",
                field="CE", offset=place, value=length,
            )  # fmt: skip
        seen.add((block, offset))
        area = node.read(place, length)


def parse(node: Node, block_size: int, area: bytes) -> Facts:
    """Everything that one record's system use field says."""
    facts = Facts()
    name = bytearray()
    link = _Link()
    named = linked = False
    for mark, data in fields(node, block_size, area):
        if mark == b"NM" and data:
            named = True
            if not data[0] & (_CURRENT | _PARENT) and len(name) < 1024:
                name += data[1:]
        elif mark == b"PX" and len(data) >= 32:
            facts.mode, facts.nlink, facts.uid, facts.gid = struct.unpack_from("<I4xI4xI4xI", data)
        elif mark == b"PN" and len(data) >= 16:
            high, low = struct.unpack_from("<I4xI", data)
            # some writers put the whole number into the low half
            facts.rdev = os.makedev(high, low) if high else os.makedev(low >> 8, low & 0xFF)
        elif mark == b"SL" and data:
            linked = True
            link.add(data[1:])
        elif mark == b"TF" and data:
            _times(facts, data)
        elif mark == b"CL" and len(data) >= 8:
            (facts.child,) = struct.unpack_from("<I", data)
        elif mark == b"RE":
            facts.moved = True
        elif mark == b"SP" and len(data) >= 3 and data[:2] == b"\xbe\xef":
            facts.sharing = data[2]
        elif mark in (b"ER", b"RR"):
            facts.known = True
        elif mark == b"ZF" and len(data) >= 12:
            facts.packed = (data[:2], data[2] * 4, data[3], struct.unpack_from("<I", data, 4)[0])
        elif mark == b"SF":
            facts.sparse = True
    if named:
        facts.name = bytes(name)
    if linked:
        facts.target = link.text()
    return facts


class _Link:
    """A symbolic link's target, put together of components that may go on from one entry into the next."""

    def __init__(self) -> None:
        self.parts: list[bytes] = []
        self.absolute = self.open = False
        self.size = 0

    def add(self, data: bytes) -> None:
        at = 0
        while at + 2 <= len(data):
            flags, length = data[at], data[at + 1]
            text = data[at + 2 : at + 2 + length]
            at += 2 + length
            self.size += len(text) + 1
            if self.size > 4096:
                return
            if flags & _ROOT:
                self.absolute = True
                self.parts.clear()
                continue
            if flags & _CURRENT:
                text = b"."
            elif flags & _PARENT:
                text = b".."
            if self.open and self.parts:
                self.parts[-1] += text
            else:
                self.parts.append(text)
            self.open = bool(flags & 1)

    def text(self) -> bytes:
        return b"/" * self.absolute + b"/".join(self.parts)


def _times(facts: Facts, data: bytes) -> None:
    flags = data[0]
    size, decode = (17, long_date) if flags & 0x80 else (7, short_date)
    at = 1
    for bit, field in ((1, "ctime"), (2, "mtime"), (4, "atime"), (8, "ctime")):
        if flags & bit:
            if at + size <= len(data):
                setattr(facts, field, decode(data[at : at + size]))
            at += size
