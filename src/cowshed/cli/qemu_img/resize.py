"""``qemu-img resize``: a disk of another size."""

from __future__ import annotations

from ...errors import CowshedError
from ...ops.resize import ShrinkError, resize
from ..progress import Reporter
from .opening import access, reference

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ..output import Output
    from .parsed import Parsed


def run(args: Parsed, out: Output) -> int:
    assert args.size is not None
    try:
        with Reporter(out, False, quiet=args.quiet, name="resize", silent=True) as progress:
            resize(
                reference(args, args.filename),
                args.size,
                relative=args.relative,
                shrink=args.shrink,
                preallocation=args.preallocation,
                progress=progress,
                **access(args, out),
            )
    except ShrinkError as error:
        out.error(str(error))
        out.warning(str(error.hint))
        return 1
    except CowshedError as error:
        out.report(error)
        return 1
    if not args.quiet:
        out.write("Image resized.\n")
    return 0
