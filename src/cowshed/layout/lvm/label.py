"""Labels and metadata areas: how a device says that it is an LVM2 physical volume, and where its text lies.

A label stands in one of the first four sectors (label_header: "LABELONE", its sector, a CRC, the offset of what it
holds, the type "LVM2 001"). It holds a pv_header: uuid, size, areas for data, areas for metadata. Each metadata area
begins with an mda_header of one sector, whose raw_locn says where in the rest, a ring, the newest text lies.
"""

from __future__ import annotations

import itertools
import struct
import zlib

from ...errors import CorruptError
from .text import MAX_TEXT

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ...block.node import Node

SECTOR = 512
#: sectors in which a label may stand
LABEL_SECTORS = 4
MDA_HEADER = 512
_MAGIC = b" LVM2 x[5A%r0N*>"
_LABEL = struct.Struct("<8sQII8s")
_PV_HEADER = struct.Struct("<32sQ")
_AREA = struct.Struct("<QQ")
_MDA = struct.Struct("<I16sIQQ")
_LOCATION = struct.Struct("<QQII")
_IGNORED = 1


def crc(data: bytes | memoryview) -> int:
    """LVM2's checksum: CRC-32 that starts at 0xf597a6cf and is not inverted at the end."""
    return zlib.crc32(data, 0xF597A6CF ^ 0xFFFFFFFF) ^ 0xFFFFFFFF


def spelled(raw: bytes) -> str:
    """A uuid of 32 characters as people write it: groups of 6, 4, 4, 4, 4, 4, 6. Raises CorruptError."""
    text = raw.decode("ascii", "replace")
    if not all(char.isascii() and (char.isalnum() or char in "!#") for char in text):
        raise CorruptError("LVM2 label: the uuid holds foreign characters", layer="lvm2", field="pv_uuid", value=text)
    cuts = (0, 6, 10, 14, 18, 22, 26, 32)
    return "-".join(text[start:end] for start, end in itertools.pairwise(cuts))


class Area:
    """``size`` bytes from ``offset`` of the device; a data area's size of 0 reaches to the end."""

    __slots__ = ("offset", "size")

    def __init__(self, offset: int, size: int) -> None:
        self.offset = offset
        self.size = size

    def __repr__(self) -> str:
        return f"<Area {self.offset}+{self.size}>"


class Label:
    """What a device says of itself: ``uuid``, ``device_size`` (bytes when it was made), ``data`` and ``metadata``
    areas, ``sector`` of the label, ``version`` and ``flags`` of the header's extension (0 without one)."""

    __slots__ = ("data", "device_size", "flags", "metadata", "sector", "uuid", "version")

    def __init__(self, sector: int, uuid: str, device_size: int) -> None:
        self.sector = sector
        self.uuid = uuid
        self.device_size = device_size
        self.data: list[Area] = []
        self.metadata: list[Area] = []
        self.version = 0
        self.flags = 0


def read_label(node: Node) -> Label | None:
    """The label of a physical volume; None when the device has none (or only damaged ones: its CRC decides)."""
    head = node.read(0, min(node.size, LABEL_SECTORS * SECTOR))
    for number in range(len(head) // SECTOR):
        sector = head[number * SECTOR : (number + 1) * SECTOR]
        name, own, checksum, offset, kind = _LABEL.unpack_from(sector)
        if name != b"LABELONE" or kind != b"LVM2 001" or own != number or crc(sector[20:]) != checksum:
            continue
        return _header(sector, offset, number)
    return None


def _header(sector: bytes, offset: int, number: int) -> Label:
    if not _LABEL.size <= offset <= SECTOR - _PV_HEADER.size:
        raise CorruptError("LVM2 label: its contents lie outside its sector", layer="lvm2", value=offset)
    uuid, size = _PV_HEADER.unpack_from(sector, offset)
    label = Label(number, spelled(uuid), size)
    at = offset + _PV_HEADER.size
    for areas in (label.data, label.metadata):
        while True:
            if at + _AREA.size > SECTOR:
                raise CorruptError("LVM2 label: a list of areas does not end", layer="lvm2", offset=at)
            start, length = _AREA.unpack_from(sector, at)
            at += _AREA.size
            if not start:
                break
            areas.append(Area(start, length))
    if at + 8 <= SECTOR:
        label.version, label.flags = struct.unpack_from("<II", sector, at)
    return label


class Copy:
    """The text in one metadata area: ``text`` (None when the area holds no volume group yet), ``ignored``: lvm2 was
    told not to keep this area up to date; ``offset`` in the area and ``size`` of the text, in bytes."""

    __slots__ = ("ignored", "offset", "size", "text")

    def __init__(self, text: str | None, ignored: bool, offset: int = 0, size: int = 0) -> None:
        self.text = text
        self.ignored = ignored
        self.offset = offset
        self.size = size


def read_area(node: Node, area: Area) -> Copy:
    """The newest committed text of a metadata area. Raises CorruptError when header or text are damaged."""
    if area.size < MDA_HEADER * 2 or area.offset + area.size > node.size:
        raise CorruptError(
            "LVM2 metadata area: it lies outside its device", path=node.filename, layer="lvm2",
            offset=area.offset, value=area.size, limit=node.size,
        )  # fmt: skip
    header = node.read(area.offset, MDA_HEADER)
    checksum, magic, version, start, size = _MDA.unpack_from(header)

    def bad(why: str, field: str, value: object) -> CorruptError:
        return CorruptError(
            f"LVM2 metadata area: {why}", path=node.filename, layer="lvm2", offset=area.offset,
            field=field, value=value,
        )  # fmt: skip

    if magic != _MAGIC:
        raise bad("no metadata header", "magic", magic)
    if crc(header[4:]) != checksum:
        raise bad("the header's checksum is wrong", "checksum", checksum)
    if version != 1:
        raise bad("unknown version", "version", version)
    if start != area.offset or size != area.size:
        raise bad("the header belongs elsewhere", "start", start)
    offset, length, checksum, flags = _LOCATION.unpack_from(header, _MDA.size)
    ignored = bool(flags & _IGNORED)
    if not offset or not length:
        return Copy(None, ignored)
    if not MDA_HEADER <= offset < size:
        raise bad("the text begins outside the area", "offset", offset)
    if length > min(size - MDA_HEADER, MAX_TEXT):
        raise bad("the text is longer than the area", "size", length)
    first = min(length, size - offset)
    text = node.read(area.offset + offset, first)
    if first < length:
        text += node.read(area.offset + MDA_HEADER, length - first)
    if crc(text) != checksum:
        raise bad("the text's checksum is wrong", "checksum", checksum)
    return Copy(text.rstrip(b"\0").decode("utf-8", "surrogateescape"), ignored, offset, length)
