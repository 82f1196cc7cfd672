"""``qemu-img measure``: how large an image file will be."""

from __future__ import annotations

from ...errors import CowshedError
from ...ops.measure import measure
from ...ops.snapshot_source import Choice
from .checks import check_exclusive
from .opening import reference, warner

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ...block.graph import Ref
    from ..output import Output
    from .parsed import Parsed


def run(args: Parsed, out: Output) -> int:
    try:
        source: Ref | None = None
        if args.operands:
            check_exclusive(args, out)
            source = reference(args, args.filename)
        found = measure(
            args.out_fmt or "raw",
            args.options,
            size=args.size,
            source=source,
            snapshot=Choice(args.snapshot, args.snapshot_id, args.snapshot_name),
            source_fmt=args.fmt,
            force_share=args.force_share,
            trust="all",
            secrets=args.secrets,
            label=args.operands[0] if args.operands else None,
            warn=warner(out),
        )
    except CowshedError as error:
        out.report(error)
        for note in getattr(error, "__notes__", ()):
            out.error(note)
        return 1
    if args.output == "json":
        from ...wire.qdict import pretty

        facts = {"required": found.required, "fully-allocated": found.fully_allocated}
        if found.bitmaps is not None:
            facts["bitmaps"] = found.bitmaps
        out.write(pretty(facts) + "\n")
        return 0
    out.write(f"required size: {found.required}\nfully allocated size: {found.fully_allocated}\n")
    if found.bitmaps is not None:
        out.write(f"bitmaps size: {found.bitmaps}\n")
    return 0
