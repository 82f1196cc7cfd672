"""``qemu-img dd``: copy a range of a disk into a new image."""

from __future__ import annotations

from ...errors import CowshedError
from ...ops.dd import dd
from ..progress import Reporter
from .opening import reference, warner

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ..output import Output
    from .parsed import Parsed


def run(args: Parsed, out: Output) -> int:
    try:
        with Reporter(out, False, name="dd") as progress:
            reached = dd(
                reference(args, args.input),
                args.target,
                args.out_fmt or "raw",
                block_size=args.block_size,
                blocks=args.blocks,
                skip=args.skip,
                source_fmt=args.fmt,
                force_share=args.force_share,
                trust="all",
                secrets=args.secrets,
                label=args.input,
                progress=progress,
                warn=warner(out),
            )
    except CowshedError as error:
        out.report(error)
        return 1
    if not reached:
        out.error(f"{args.input}: cannot skip to specified offset")
    return 0
