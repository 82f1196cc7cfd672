"""``qemu-img snapshot``: list, create, apply and delete internal snapshots."""

from __future__ import annotations

from ...errors import CowshedError, OpenError, UnsupportedError, UsageError, error_number, strerror
from ...ops import snapshot as ops
from ...ops.access import Opened
from .opening import access, reference

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from ..output import Output
    from .parsed import Parsed


def run(args: Parsed, out: Output) -> int:
    image = reference(args, args.filename)
    how = access(args, out)
    name = args.snapshot_argument
    warned: list[str] = []
    if args.action == "apply":
        how["warn"] = _remembering(how["warn"], warned)
    try:
        if args.action == "list":
            found = ops.snapshot_list(image, **how)
            if found:
                from .snapshot_table import table

                out.write(table(found))
        elif args.action == "create":
            ops.snapshot_create(image, name, **how)
        elif args.action == "apply":
            ops.snapshot_apply(image, name, **how)
        elif args.action == "delete":
            ops.snapshot_delete(image, name, **how)
        else:
            # Without an action the image is opened for writing, and nothing done.
            with Opened(image, how, writable=True):
                pass
    except OpenError as error:
        out.report(error)
        return 1
    except CowshedError as error:
        number = error_number(error)
        if args.action == "create":
            out.error(f"Could not create snapshot '{name}': {-number} ({strerror(number)})")
            return 1
        for text in warned:
            # The tool looks for snapshots below the image as well, and is warned once more.
            out.raw(text + "\n")
        reason = str(error)
        if args.action == "apply" and not isinstance(error, UsageError):
            reason = f"Failed to load snapshot: {strerror(number)}"
            if isinstance(error, UnsupportedError) and error.field is None:
                reason = "Block driver does not support snapshots"
        out.error(f"Could not {args.action} snapshot '{name}': {reason}")
        return 1
    return 0


def _remembering(warn: Callable[[str], None] | None, told: list[str]) -> Callable[[str], None]:
    def remember(text: str) -> None:
        told.append(text)
        if warn is not None:
            warn(text)

    return remember
