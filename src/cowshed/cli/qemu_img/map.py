"""``qemu-img map``: where the bytes of a disk are."""

from __future__ import annotations

from ...errors import CowshedError
from ...ops.access import Opened
from ...ops.map import map_image
from .opening import access, reference

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from ...ops.map import MapEntry
    from ..output import Output
    from .parsed import Parsed

_WORDS = ("false", "true")


def run(args: Parsed, out: Output) -> int:
    try:
        opened = Opened(reference(args, args.filename), access(args, out))
    except CowshedError as error:
        out.report(error)
        return 1
    with opened as node:
        try:
            entries = map_image(node, start=args.start_offset, length=args.max_length)
            if args.output == "json":
                return _json(entries, args, out)
            return _human(entries, out)
        except CowshedError as error:
            out.report(error, "Could not read file metadata: ")
            return 1


def _json(entries: Iterable[MapEntry], args: Parsed, out: Output) -> int:
    out.write("[")
    lead = ""
    for entry in entries:
        out.write(lead + _object(entry) + "}")
        lead = ",\n"
    if not lead:
        start = args.start_offset
        out.write(f'{{ "start": {start}, "length": 0, "depth": 0, "present": false, "zero": false, "data": false}}')
    out.write("]\n")
    return 0


def _object(entry: MapEntry) -> str:
    text = (
        f'{{ "start": {entry.start}, "length": {entry.length}, "depth": {entry.depth}, "present": '
        f'{_WORDS[entry.present]}, "zero": {_WORDS[entry.zero]}, "data": {_WORDS[entry.data]}'
    )
    return text if entry.offset is None else f'{text}, "offset": {entry.offset}'


def _human(entries: Iterable[MapEntry], out: Output) -> int:
    out.write(f"{'Offset':<16}{'Length':<16}{'Mapped to':<16}File\n")
    for entry in entries:
        if not entry.data:
            continue
        if entry.offset is None:
            out.error("File contains external, encrypted or compressed clusters.")
            return 1
        if not entry.zero:
            out.write(
                f"{_hex(entry.start):<16}{_hex(entry.length):<16}{_hex(entry.offset):<16}{entry.filename or ''}\n"
            )
    return 0


def _hex(number: int) -> str:
    """C's %#x: no prefix for zero."""
    return f"{number:#x}" if number else "0"
