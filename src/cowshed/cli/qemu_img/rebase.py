"""``qemu-img rebase``: another backing file."""

from __future__ import annotations

from ...errors import CowshedError
from ...ops.rebase import rebase
from ..progress import Reporter
from .opening import access, reference

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ..output import Output
    from .parsed import Parsed


def run(args: Parsed, out: Output) -> int:
    # -U is accepted and of no consequence: the image is written to.
    args.force_share = False
    reporter = Reporter(out, args.progress, quiet=args.quiet, name="rebase")
    try:
        with reporter as progress:
            rebase(
                reference(args, args.filename),
                args.backing_file,
                backing_fmt=args.backing_fmt,
                unsafe=args.unsafe,
                backing_cache=args.src_cache or "writeback",
                progress=progress,
                **access(args, out, args.cache),
            )
            reporter.complete()
    except CowshedError as error:
        out.report(error)
        return 1
    return 0
