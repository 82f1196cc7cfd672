"""The ``raw`` driver's rows in the registry: open, create and measure."""

from __future__ import annotations

from ..facts import Measure
from ..options import Option, OptionTable
from .raw import RawNode

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from ..creation import CreateContext
    from ..graph import OpenContext
    from ..node import Node

SECTOR = 512

CREATE = OptionTable("raw", (Option("size", "size", "Virtual disk size"),))


def open_raw(file: Node, options: dict[str, Any], context: OpenContext) -> Node:
    """The disk in ``file``: all of it, or what ``offset`` and ``size`` (bytes) choose. Raises OptionError."""
    node = RawNode(
        file,
        offset=options.get("offset", 0),
        size=options.get("size"),
        read_only=not context.writable,
    )
    node.guard_first_sector = context.probed
    return node


def create(filename: str, values: dict[str, Any], context: CreateContext) -> None:
    """A file of ``size`` bytes, up to whole sectors. ``preallocation``: off, falloc or full. Raises HostError."""
    size = (values.get("size", 0) + SECTOR - 1) // SECTOR * SECTOR
    context.create_file(filename, size, values.get("preallocation", "off"))


def measure(values: dict[str, Any], size: int | None, source: Node | None) -> Measure:
    """A raw image takes its disk's size, whatever is on it: ``size``, or else that of ``source``."""
    if size is None and source is not None:
        size = source.size
    size = ((size or 0) + SECTOR - 1) // SECTOR * SECTOR
    return Measure(size, size)
