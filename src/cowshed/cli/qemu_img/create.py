"""``qemu-img create``: make a new image."""

from __future__ import annotations

from ...errors import CowshedError
from ...ops.create import create
from ..progress import Reporter
from .opening import secrets, warner

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ..output import Output
    from .parsed import Parsed


def run(args: Parsed, out: Output) -> int:
    def announce(line: str) -> None:
        out.write(line + "\n")
        out.flush()  # before anything can fail

    try:
        with Reporter(out, False, quiet=args.quiet, name="create", silent=True) as progress:
            create(
                args.filename,
                args.fmt or "raw",
                args.options,
                size=args.size,
                backing=args.backing_file,
                backing_fmt=args.backing_fmt,
                unsafe=args.unsafe,
                announce=None if args.quiet else announce,
                secrets=secrets(args),
                trust="all",
                warn=warner(out),
                progress=progress,
            )
    except CowshedError as error:
        out.report(error)
        return 1
    return 0
