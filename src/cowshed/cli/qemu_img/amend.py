"""``qemu-img amend``: other options for an image that exists."""

from __future__ import annotations

from ...block.options import wants_help
from ...errors import CowshedError
from ...ops.access import Opened
from ...ops.amend import amend, amendment
from ..progress import Reporter
from .opening import access, reference
from .option_help import amendment as show

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ..output import Output
    from .parsed import Parsed


def run(args: Parsed, out: Output) -> int:
    begun = False
    try:
        how = access(args, out, args.cache)
        with Opened(reference(args, args.filename), how, writable=True, resize=True) as node:
            if wants_help(args.options):
                code = show(node.driver, out)
                if args.progress:
                    out.write("\n")
                return code
            values = amendment(node, args.options or "")
            reporter = Reporter(out, args.progress, quiet=args.quiet, name="amend")
            begun = True
            with reporter as progress:
                try:
                    amend(node, values, force=args.force, progress=progress)
                finally:
                    reporter.complete()
    except CowshedError as error:
        if args.progress and not begun:
            out.write("\n")  # the tool ends a line that it did not begin
        out.report(error)
        return 1
    return 0
