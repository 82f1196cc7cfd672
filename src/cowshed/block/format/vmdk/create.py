"""Making a vmdk image: header, empty grain directories and tables, descriptor.

Specification: VMware "Virtual Disk Format 5.0". The layout is header, descriptor, redundant directory and tables,
directory and tables, and the first grain on a grain's boundary.
"""

from __future__ import annotations

import os
from array import array

from ....errors import OptionError, UnsupportedError
from . import descriptor as text
from . import header as hd
from .header import SECTOR, SparseHeader
from .options import ADAPTERS, SUBFORMATS
from .tables import words_to_bytes

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from ...node import Node

#: subformats whose data lie in the file itself
SPARSE = ("monolithicSparse", "streamOptimized")


class Layout:
    """The checked creation options of an image (``size`` in bytes)."""

    __slots__ = ("adapter", "backing_file", "hardware", "size", "subformat", "tools", "zeroed_grain")

    def __init__(self, values: dict[str, Any], size: int) -> None:
        """Check ``values`` (vmdk creation options by name). Raises OptionError, UnsupportedError."""

        def refuse(message: str, field: str) -> OptionError:
            return OptionError(message, layer="vmdk", field=field, value=values.get(field))

        def choice(field: str, among: tuple[str, ...]) -> str:
            value: str | None = values.get(field)
            if value is None:
                return among[0]
            if value not in among:
                raise refuse(f"invalid parameter value: {value}", field)
            return value

        self.size = -(-size // SECTOR) * SECTOR
        self.adapter = choice("adapter_type", ADAPTERS)
        hardware = values.get("hwversion")
        if hardware is None:
            hardware = "undefined"
        if values.get("compat6"):
            if hardware != "undefined":
                raise refuse("compat6 cannot be enabled with hwversion set", "hwversion")
            hardware = "6"
        self.hardware: str = "4" if hardware == "undefined" else hardware
        tools = values.get("toolsversion")
        self.tools: str = "2147483647" if tools is None else tools
        self.subformat = choice("subformat", SUBFORMATS)
        self.backing_file: str | None = values.get("backing_file") or None
        self.zeroed_grain = bool(values.get("zeroed_grain"))
        flat = self.subformat in ("monolithicFlat", "twoGbMaxExtentFlat")
        if flat and self.backing_file is not None:
            raise refuse("Flat image can't have backing file", "backing_file")
        if flat and self.zeroed_grain:
            raise refuse("Flat image can't enable zeroed grain", "zeroed_grain")
        if self.subformat not in SPARSE:
            raise UnsupportedError(
                f"Subformat '{self.subformat}' cannot be created yet", layer="vmdk", field="subformat",
                value=self.subformat, limit=", ".join(SPARSE),
            )  # fmt: skip
        for field in ("backing_file", "hwversion", "toolsversion"):
            # the descriptor has no way of writing these down
            if any(letter in (values.get(field) or "") for letter in '"\n\0'):
                raise refuse(f"invalid parameter value: {values[field]}", field)

    def header(self) -> SparseHeader:
        """The header, its directories placed. Raises OptionError when the disk is too large."""
        header = SparseHeader()
        header.capacity = self.size // SECTOR
        if self.subformat == "streamOptimized":
            header.version = 3
            header.flags |= hd.FLAG_COMPRESSED | hd.FLAG_MARKERS
            header.compression = hd.COMPRESS_DEFLATE
        elif self.zeroed_grain:
            header.version = 2
        if self.zeroed_grain:
            header.flags |= hd.FLAG_ZEROED_GRAIN
        if header.directory_entries > hd.MAX_DIRECTORY_ENTRIES:
            raise OptionError(
                "The image size is too large for file format 'vmdk'", layer="vmdk", field="size", value=self.size,
                limit=hd.MAX_DIRECTORY_ENTRIES * header.table_span * SECTOR, errno=27,
            )  # fmt: skip
        tables = header.directory_sectors + header.directory_entries * header.table_sectors
        header.redundant = header.descriptor + header.descriptor_size
        header.directory = header.redundant + tables
        header.overhead = -(-(header.directory + tables) // header.grain) * header.grain
        return header


def create(filename: str, values: dict[str, Any], context: Any) -> None:
    """Make a vmdk image in ``filename`` from creation options. Raises CowshedError."""
    layout = Layout(values, values.get("size") or 0)
    parent_cid = text.NO_PARENT
    header = layout.header()
    if layout.backing_file is not None:
        parent_cid = _parent_cid(filename, layout.backing_file)
    raw = _descriptor(os.path.basename(filename), layout, parent_cid, header)
    file: Node = context.create_file(filename)
    try:
        format_image(file, header, raw)
        file.flush()
    except Exception:
        file.close()
        context.discard_file(filename)
        raise
    file.close()


def _descriptor(name: str, layout: Layout, parent_cid: int, header: SparseHeader) -> bytes:
    """The descriptor's text. Raises OptionError when there is no room for it."""
    raw = text.build(
        name=name,
        size=layout.size,
        create_type=layout.subformat,
        cid=_new_cid(),
        parent_cid=parent_cid,
        parent=layout.backing_file,
        adapter=layout.adapter,
        hardware=layout.hardware,
        tools=layout.tools,
    )
    if len(raw) > header.descriptor_size * SECTOR:
        raise OptionError(
            "The descriptor of the image is too long", layer="vmdk descriptor", value=len(raw),
            limit=header.descriptor_size * SECTOR,
        )  # fmt: skip
    return raw


def _new_cid() -> int:
    return int.from_bytes(os.urandom(4), "little") % text.NO_PARENT


def _parent_cid(filename: str, backing_file: str) -> int:
    """The content ID of the backing file, a vmdk image; its name is seen from ``filename``. Raises CowshedError."""
    from ...filename import combine
    from ...graph import open_layer
    from ...opening import OpenFlags
    from .node import VmdkNode

    name = combine(filename, backing_file)
    with open_layer(name, {}, OpenFlags(backing=False, no_io=True, force_share=True)) as parent:
        if not isinstance(parent, VmdkNode):
            raise OptionError(
                "backing_file must be a vmdk image", layer="vmdk", field="backing_file", value=name, limit="vmdk"
            )
        return parent.cid


def format_image(file: Node, header: SparseHeader, raw: bytes) -> None:
    """Write an empty image with the descriptor ``raw`` into the empty ``file``."""
    file.resize(header.overhead * SECTOR)
    file.write(0, header.pack())
    count = header.directory_entries
    step = header.table_sectors
    for directory in (header.redundant, header.directory):
        first = directory + header.directory_sectors
        if count:
            file.write(directory * SECTOR, words_to_bytes(array("I", range(first, first + count * step, step))))
    file.write(header.descriptor * SECTOR, raw)
