"""Labels, metadata areas and texts written, so that a cut leaves the old or the new.

The text goes to the ring of each area behind the newest one there, on a sector of its own and never over it; then a
flush; then the area's header, one sector, that leads to it. The mark that a device belongs to a group follows its
text, and goes before it: a mark that is missing is set right by lvm2, one too many would keep a device from use.
"""

from __future__ import annotations

import struct

from ...errors import CorruptError
from .. import signature
from .draft import Refusal
from .label import LABEL_SECTORS, MDA_HEADER, SECTOR, Area, Label, crc, read_area, read_label

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from ...block.node import Node

#: where a new physical volume keeps its metadata, and where its extents begin
MDA_START = 4096
DATA_START = 1 << 20
#: bytes of the smallest device
LEAST = 2 << 20
_LABEL = struct.Struct("<8sQII8s")
_USED = 1
_MAGIC = b" LVM2 x[5A%r0N*>"
#: zeroes written over a signature
_WIPED = 16
#: signatures that one device may have; ZFS alone writes some hundred
_MOST = 1024


def flush(nodes: Iterable[Node]) -> None:
    """Each of them once."""
    for node in {id(node): node for node in nodes}.values():
        node.flush()


def wipe_signatures(node: Node) -> None:
    """Zeroes over all that `signature.signatures` recognises, a physical volume's label excepted."""
    last: set[tuple[str, int]] = set()
    for _ in range(_MOST):
        found = {(one.name, one.offset) for one in signature.signatures(node) if one.name != "LVM2_member"}
        if not found or found == last:
            return
        for _, offset in found:
            node.write(offset, bytes(min(_WIPED, node.size - offset)))
        last = found


def initialise(node: Node, uuid: str) -> None:
    """Make a physical volume of the device: its area empty, its label before it, other signatures gone."""
    size = node.size // SECTOR * SECTOR
    area = Area(MDA_START, DATA_START - MDA_START)
    node.write(area.offset, _header(area, 0, b"").ljust(MDA_START, b"\0"))
    node.flush()
    body = uuid.replace("-", "").encode() + struct.pack("<Q", size)
    body += struct.pack("<QQQQ", DATA_START, 0, 0, 0) + struct.pack("<QQQQ", area.offset, area.size, 0, 0)
    body += struct.pack("<II", 2, 0)
    head = bytearray(LABEL_SECTORS * SECTOR)
    head[SECTOR : 2 * SECTOR] = _labelled(1, body)
    node.write(0, head)
    node.flush()
    wipe_signatures(node)
    node.flush()


def erase(node: Node) -> None:
    """The device is no physical volume any more; what its areas hold stays, and nothing leads there."""
    head = node.read(0, LABEL_SECTORS * SECTOR)
    for number in range(LABEL_SECTORS):
        if head[number * SECTOR : number * SECTOR + 8] == b"LABELONE":
            node.write(number * SECTOR, bytes(SECTOR))
    node.flush()


def _labelled(number: int, body: bytes) -> bytes:
    sector = bytearray(SECTOR)
    _LABEL.pack_into(sector, 0, b"LABELONE", number, 0, _LABEL.size, b"LVM2 001")
    sector[_LABEL.size : _LABEL.size + len(body)] = body
    struct.pack_into("<I", sector, 16, crc(bytes(sector[20:])))
    return bytes(sector)


def relabel(node: Node, *, used: bool | None = None, size: int | None = None, uuid: str | None = None) -> None:
    """Change what a label says, one sector: whether a group uses the device, its bytes, its uuid. No flush."""
    label = read_label(node)
    if label is None:
        raise CorruptError("LVM2 label: it is gone", path=node.filename, layer="lvm2")
    sector = bytearray(node.read(label.sector * SECTOR, SECTOR))
    (start,) = struct.unpack_from("<I", sector, 20)
    if uuid is not None:
        sector[start : start + 32] = uuid.replace("-", "").encode()
    if size is not None:
        struct.pack_into("<Q", sector, start + 32, size)
    at = start + 40 + 16 * (len(label.data) + len(label.metadata) + 2)
    if used is not None and label.version >= 2 and at + 8 <= SECTOR:
        struct.pack_into("<I", sector, at + 4, label.flags & ~_USED | (_USED if used else 0))
    struct.pack_into("<I", sector, 16, crc(bytes(sector[20:])))
    node.write(label.sector * SECTOR, sector)


def _header(area: Area, offset: int, text: bytes) -> bytes:
    """The header of an area whose text lies at ``offset``; empty: there is none."""
    header = bytearray(MDA_HEADER)
    struct.pack_into("<16sIQQ", header, 4, _MAGIC, 1, area.offset, area.size)
    if text:
        struct.pack_into("<QQII", header, 40, offset, len(text), crc(text), 0)
    struct.pack_into("<I", header, 0, crc(bytes(header[4:])))
    return bytes(header)


class _Write:
    """One area: where its text goes, and the header that will lead to it."""

    __slots__ = ("area", "header", "node", "pieces")

    def __init__(self, node: Node, area: Area, header: bytes, pieces: list[tuple[int, bytes]]) -> None:
        self.node = node
        self.area = area
        self.header = header
        self.pieces = pieces


def _up(value: int) -> int:
    return -(-value // SECTOR) * SECTOR


def _plan(node: Node, area: Area, text: bytes) -> _Write | None:
    """None where lvm2 would write nothing either: the area is to be ignored, or damaged while others are not."""
    try:
        copy = read_area(node, area)
    except CorruptError:
        return None
    if copy.ignored:
        return None
    ring = area.size - MDA_HEADER
    start, used = MDA_HEADER, 0
    if copy.text is not None:
        used = _up(copy.size)
        start = _up(copy.offset + copy.size)
        if start >= area.size:
            start = MDA_HEADER if copy.offset + copy.size <= area.size else _up(start - area.size + MDA_HEADER)
    padded = text.ljust(_up(len(text)), b"\0")
    if len(padded) + used > ring // SECTOR * SECTOR:
        raise Refusal(
            f"VG metadata on {node.filename} ({len(text)} bytes) too large for circular buffer "
            f"({ring} bytes with {used} used)"
        )
    first = padded[: area.size - start]
    pieces = [(area.offset + start, first)]
    if len(first) < len(padded):
        pieces.append((area.offset + MDA_HEADER, padded[len(first) :]))
    return _Write(node, area, _header(area, start, text), pieces)


def commit(members: Sequence[tuple[Node, Label]], text: bytes) -> None:
    """Bring the text of a group to the areas of its devices. Raises Refusal before anything is written when it does
    not fit, or when there is no area that could take it."""
    plans = [plan for node, label in members for area in label.metadata if (plan := _plan(node, area, text))]
    if not plans:
        raise Refusal("No metadata areas that can be written in the volume group.")
    for plan in plans:
        for offset, piece in plan.pieces:
            plan.node.write(offset, piece)
    flush(plan.node for plan in plans)
    for plan in plans:
        plan.node.write(plan.area.offset, plan.header)
    flush(plan.node for plan in plans)


def clear(members: Sequence[tuple[Node, Label]]) -> None:
    """The devices hold no group any more."""
    nodes = [node for node, _ in members]
    for node in nodes:
        relabel(node, used=False)
    flush(nodes)
    for node, label in members:
        for area in label.metadata:
            if area.size >= 2 * MDA_HEADER and area.offset + area.size <= node.size:
                node.write(area.offset, _header(area, 0, b""))
    flush(nodes)


def mark(nodes: Sequence[Node]) -> None:
    """Labels say that the devices are used, where they don't yet."""
    changed = []
    for node in nodes:
        label = read_label(node)
        if label is not None and not label.flags & _USED:
            relabel(node, used=True)
            changed.append(node)
    flush(changed)
