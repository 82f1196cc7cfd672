"""``qemu-img bitmap``: add, remove, clear, enable, disable and merge persistent bitmaps."""

from __future__ import annotations

from ...errors import CowshedError
from ...ops.bitmap import bitmap
from .opening import access, reference

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ..output import Output
    from .parsed import Parsed


def run(args: Parsed, out: Output) -> int:
    name = args.operands[1]
    try:
        bitmap(
            reference(args, args.filename),
            name,
            args.actions,
            granularity=args.granularity,
            source=args.source_file,
            source_fmt=args.source_fmt,
            **access(args, out),
        )
    except CowshedError as error:
        out.report(error)
        return 1
    return 0
