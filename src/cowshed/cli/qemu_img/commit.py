"""``qemu-img commit``: write an overlay's changes into its backing file."""

from __future__ import annotations

from ...errors import CowshedError
from ...ops.access import Opened
from ...ops.commit import commit
from ..progress import Reporter
from .opening import access, reference

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ..output import Output
    from .parsed import Parsed


def run(args: Parsed, out: Output) -> int:
    try:
        image = Opened(reference(args, args.filename), access(args, out, args.cache), writable=True)
        with image as node, Reporter(out, args.progress, quiet=args.quiet, name="commit") as progress:
            commit(
                node,
                args.base,
                drop=args.drop,
                rate_limit=args.rate_limit or 0,
                progress=progress,
                label=args.filename,
            )
    except CowshedError as error:
        out.report(error)
        return 1
    if not args.quiet:
        out.write("Image committed.\n")
    return 0
