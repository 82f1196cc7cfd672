"""``qemu-img info``: what an image says of itself."""

from __future__ import annotations

from ...errors import CowshedError
from ...ops.info import info
from ...wire.human import size, size_and_bytes
from .opening import access, reference

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from ...ops.info import ImageInfo
    from ..output import Output
    from .parsed import Parsed


def run(args: Parsed, out: Output) -> int:
    try:
        top = info(reference(args, args.filename), backing_chain=args.backing_chain, **access(args, out))
    except CowshedError as error:
        out.report(error)
        return 1
    if args.output == "json":
        from ...wire.qdict import pretty

        facts = [item.to_dict() for item in top.chain]
        out.write(pretty(facts if args.backing_chain else facts[0]) + "\n")
    else:
        out.write("\n".join([human(item) for item in top.chain]))
    return 0


def human(item: ImageInfo) -> str:
    """The facts of one image, a line each."""
    taken = "unavailable" if item.actual_size is None else size(item.actual_size)
    lines = [
        f"image: {item.filename}",
        f"file format: {item.format}",
        f"virtual size: {size_and_bytes(item.virtual_size)}",
        f"disk size: {taken}",
    ]
    if item.encrypted:
        lines.append("encrypted: yes")
    if item.cluster_size:
        lines.append(f"cluster_size: {item.cluster_size}")
    if item.dirty:
        lines.append("cleanly shut down: no")
    if item.backing_filename is not None:
        line = f"backing file: {item.backing_filename}"
        if item.full_backing_filename is None:
            line += " (cannot determine actual path)"
        elif item.full_backing_filename != item.backing_filename:
            line += f" (actual path: {item.full_backing_filename})"
        lines.append(line)
        if item.backing_format is not None:
            lines.append(f"backing file format: {item.backing_format}")
    text = "\n".join(lines) + "\n"
    if item.snapshots:
        from .snapshot_table import table

        text += table(item.snapshots)
    if item.format_specific is not None:
        text += "Format specific information:\n"
        parts: list[str] = []
        _members(item.format_specific["data"], 1, parts)
        text += "".join(parts)
    return text


def _members(value: dict[str, Any], depth: int, parts: list[str]) -> None:
    from ...wire.qdict import ordered

    for name, member in ordered(value):
        _member(name.replace("-", " "), member, depth, parts)


def _member(name: str, value: Any, depth: int, parts: list[str]) -> None:
    parts.append(f"{'    ' * depth}{name}:")
    if isinstance(value, dict):
        parts.append("\n")
        _members(value, depth + 1, parts)
    elif isinstance(value, (list, tuple)):
        parts.append("\n")
        for index, item in enumerate(value):
            _member(f"[{index}]", item, depth + 1, parts)
    else:
        text = ("true" if value else "false") if isinstance(value, bool) else value
        parts.append(f" {text}\n")
