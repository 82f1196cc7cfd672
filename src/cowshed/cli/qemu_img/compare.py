"""``qemu-img compare``: do two images show the same disk?"""

from __future__ import annotations

from ...errors import CowshedError
from ...ops.compare import UnreadableError, compare
from ..progress import Reporter
from .opening import access, reference

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ..output import Output
    from .parsed import Parsed

#: exit statuses beside 0 and 1
OPEN_FAILED = 2
READ_FAILED = 4


def run(args: Parsed, out: Output) -> int:
    reporter = Reporter(out, args.progress, quiet=args.quiet, name="compare", step=2.0)
    first, second = args.operands
    if args.image_opts and args.second_fmt is not None:
        out.error("--image-opts and --format are mutually exclusive")
        return OPEN_FAILED
    try:
        with reporter as progress:
            how = access(args, out, args.src_cache)
            found = compare(
                reference(args, first),
                reference(args, second),
                second_fmt=args.second_fmt,
                strict=args.strict,
                progress=progress,
                labels=(first, second),
                **how,
            )
            if not args.quiet:
                reporter.clear()
                if found.verdict == "size":
                    out.write("Strict mode: Image size mismatch!\n")
                elif found.verdict == "status":
                    out.write(f"Strict mode: Offset {found.offset} block status mismatch!\n")
                else:
                    if found.tail:
                        out.write("Warning: Image size mismatch!\n")
                    if found:
                        out.write("Images are identical.\n")
                    else:
                        out.write(f"Content mismatch at offset {found.offset}!\n")
    except UnreadableError as error:
        out.report(error)
        return READ_FAILED
    except CowshedError as error:
        out.report(error)
        return OPEN_FAILED
    return 0 if found else 1
