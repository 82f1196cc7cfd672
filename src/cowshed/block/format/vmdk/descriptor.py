"""The descriptor: the text that names the disk's content, its parent and its extents.

Specification: VMware "Virtual Disk Format 5.0", "The Descriptor File". Lines of ``name=value``; extent lines; a disk
data base of ``ddb.name = "value"`` lines.
"""

from __future__ import annotations

import os

from .header import (
    DESCRIPTOR_SECTOR,
    DESCRIPTOR_SECTORS,
    MAX_DESCRIPTOR_BYTES,
    SECTOR,
    SparseHeader,
    corrupt_text,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ...node import Node

#: the content ID that stands for "no parent"
NO_PARENT = 0xFFFFFFFF
MAX_PARENT_NAME = 1023
_HEX = b"0123456789abcdefABCDEF"


class Descriptor:
    """What an embedded descriptor says.

    ``cid``, ``parent_cid``: 32-bit content IDs. ``create_type``: "monolithicSparse" … ``parent``: the name of the
    parent disk, None without one. ``raw``: the text's bytes, without the padding; ``offset``: bytes into the file;
    ``room``: bytes that the file has for it. ``cid_at``, ``cid_width``: where in ``raw`` the content ID's digits are.
    """

    __slots__ = ("cid", "cid_at", "cid_width", "create_type", "offset", "parent", "parent_cid", "raw", "room")

    def __init__(self) -> None:
        self.cid = NO_PARENT
        self.parent_cid = NO_PARENT
        self.create_type = "monolithicSparse"
        self.parent: str | None = None
        self.raw = b""
        self.offset = 0
        self.room = 0
        self.cid_at = 0
        self.cid_width = 0

    def fresh_cid(self) -> tuple[int, bytes]:
        """Give the disk a new content ID: (offset in the file, bytes) of what has to be written for it.

        The digits keep their number, since a text that shifted over a sector's end could be torn by a power cut.
        """
        width = self.cid_width
        limit = min(1 << (4 * width), NO_PARENT)
        old = cid = self.cid
        while cid == old:
            cid = int.from_bytes(os.urandom(4), "little") % limit
        self.cid = cid
        text = f"{cid:0{width}x}".encode()
        self.raw = self.raw[: self.cid_at] + text + self.raw[self.cid_at + width :]
        return self.offset + self.cid_at, text


def read_descriptor(file: Node, header: SparseHeader) -> Descriptor:
    """The descriptor embedded in a sparse extent. Raises FormatError, HostError."""
    start, sectors = header.descriptor, header.descriptor_size
    if not start or not sectors or sectors * SECTOR > MAX_DESCRIPTOR_BYTES or start * SECTOR >= file.size:
        start, sectors = DESCRIPTOR_SECTOR, DESCRIPTOR_SECTORS
    room = sectors * SECTOR
    raw = file.read(start * SECTOR, max(0, min(room, file.size - start * SECTOR)))
    descriptor = parse(raw.split(b"\0", 1)[0], file.filename)
    descriptor.offset = start * SECTOR
    descriptor.room = room
    return descriptor


def parse(raw: bytes, name: str) -> Descriptor:
    """Read the text ``raw`` of the descriptor of image ``name``. Raises FormatError."""
    descriptor = Descriptor()
    descriptor.raw = raw
    at = 0
    seen = set()
    for line in raw.split(b"\n"):
        start = at
        at += len(line) + 1
        key, equals, value = line.partition(b"=")
        word = key.strip()
        if not equals or word in seen:
            continue
        seen.add(word)
        if word in (b"CID", b"parentCID"):
            skipped, width = _hex_run(value)
            if not 0 < width <= 8:
                raise corrupt_text(name, word.decode())
            number = int(value[skipped : skipped + width], 16)
            if word == b"parentCID":
                descriptor.parent_cid = number
            else:
                descriptor.cid = number
                descriptor.cid_at = start + len(key) + 1 + skipped
                descriptor.cid_width = width
        elif word == b"createType":
            text = _quoted(value)
            if text:
                descriptor.create_type = text
        elif word == b"parentFileNameHint":
            text = _quoted(value)
            if text and len(os.fsencode(text)) <= MAX_PARENT_NAME:
                descriptor.parent = text
            elif text:
                raise corrupt_text(name, "parentFileNameHint")
    for word, field in ((b"CID", "CID"), (b"parentCID", "parentCID")):
        if word not in seen:
            raise corrupt_text(name, field)
    return descriptor


def _hex_run(text: bytes) -> tuple[int, int]:
    """Where the hexadecimal digits that begin ``text`` are, after blanks and ``0x``: (index, number of digits)."""
    start = len(text) - len(text.lstrip(b" \t"))
    if text[start : start + 2] in (b"0x", b"0X"):
        start += 2
    end = start
    while end < len(text) and text[end] in _HEX:
        end += 1
    return start, end - start


def _quoted(value: bytes) -> str | None:
    """The text between the first two double quotes; None when there are none."""
    parts = value.split(b'"', 2)
    return os.fsdecode(parts[1]) if len(parts) == 3 else None


def build(
    *,
    name: str,
    size: int,
    create_type: str,
    cid: int,
    parent_cid: int = NO_PARENT,
    parent: str | None = None,
    adapter: str = "ide",
    hardware: str = "4",
    tools: str = "2147483647",
) -> bytes:
    """The text of a descriptor with one sparse extent, the file ``name`` itself; ``size`` in bytes.

    The geometry is what a BIOS would make of the disk: 16 heads of 63 sectors on IDE, 255 elsewhere.
    """
    heads = 16 if adapter == "ide" else 255
    lines = [
        "# Disk DescriptorFile",
        "version=1",
        f"CID={cid:08x}",
        f"parentCID={parent_cid:08x}",
        f'createType="{create_type}"',
        "" if parent is None else f'parentFileNameHint="{parent}"',
        "# Extent description",
        f'RW {-(-size // SECTOR)} SPARSE "{name}"',
        "",
        "# The Disk Data Base",
        "#DDB",
        "",
        f'ddb.virtualHWVersion = "{hardware}"',
        f'ddb.geometry.cylinders = "{size // (63 * heads * SECTOR)}"',
        f'ddb.geometry.heads = "{heads}"',
        'ddb.geometry.sectors = "63"',
        f'ddb.adapterType = "{adapter}"',
        f'ddb.toolsVersion = "{tools}"',
        "",
    ]
    return os.fsencode("\n".join(lines))
