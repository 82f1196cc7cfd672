"""``qemu-img rebase``: another backing file."""

from __future__ import annotations

from ...errors import CowshedError
from ...ops.rebase import rebase
from ..progress import Reporter
from .opening import access, reference

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ...progress import Progress
    from ..output import Output
    from .parsed import Parsed


def run(args: Parsed, out: Output) -> int:
    # -U is accepted and of no consequence: the image is written to.
    args.force_share = False
    reporter = Reporter(out, args.progress, quiet=args.quiet, name="rebase")
    try:
        with reporter as progress:
            _rebase(args, out, reporter, progress)
    except CowshedError as error:
        out.report(error)
        return 1
    return 0


def _rebase(args: Parsed, out: Output, reporter: Reporter, progress: Progress) -> None:
    try:
        rebase(
            reference(args, args.filename),
            args.backing_file,
            backing_fmt=args.backing_fmt,
            unsafe=args.unsafe,
            backing_cache=args.src_cache or "writeback",
            progress=progress,
            **access(args, out, args.cache),
        )
    except CowshedError as error:
        if error.field == "backing file":
            reporter.complete()  # only the last step failed
        raise
    reporter.complete()
