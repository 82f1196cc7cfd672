"""From a command's arguments to the arguments with which an operation opens its image."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from ...block.graph import Ref
    from ...block.secret import Secrets
    from ...ops.access import Access
    from ..output import Output
    from .parsed import Parsed


def reference(args: Parsed, name: str) -> Ref:
    """What to open for the operand ``name``: itself, or with --image-opts the options that it spells."""
    if not args.image_opts:
        return name
    from ...block.filename import parse_image_opts

    return parse_image_opts(name)


def access(args: Parsed, out: Output, cache: str | None = None) -> Access:
    """How the first operand is opened: as qemu-img does it, which follows whatever images name."""
    found: Access = {
        "fmt": args.fmt,
        "trust": "all",
        "label": args.filename,
        "warn": warner(out),
        "secrets": secrets(args),
        "force_share": args.force_share,
    }
    if cache is not None:
        found["cache"] = cache
    return found


def secrets(args: Parsed) -> Secrets | None:
    """What --object secret,… gave; None when there was none."""
    if not args.secrets:
        return None
    from ...block.secret import Secrets

    return Secrets(args.secrets)


def warner(out: Output) -> Callable[[str], None]:
    """Prints what an operation warns of."""

    def warn(text: str) -> None:
        if text.startswith(("WARNING", "qcow2: ")):
            out.raw(text + "\n")
        else:
            line, _, hint = text.partition("\n")
            out.warning(line, hint)

    return warn
