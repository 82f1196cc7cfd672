"""``qemu-img convert``: copy disks into a new image or an existing one."""

from __future__ import annotations

from ...errors import CowshedError
from ...ops.convert import convert
from ...ops.snapshot_source import Choice
from ..output import Stop
from ..progress import Reporter
from .checks import check_exclusive
from .opening import reference, warner

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from ...block.graph import Ref
    from ..output import Output
    from .parsed import Parsed

BLOCK = 4096


def run(args: Parsed, out: Output) -> int:
    *names, target = args.operands
    reporter = Reporter(out, args.progress, quiet=args.quiet, name="convert")
    try:
        with reporter as progress:
            check_exclusive(args, out)
            convert(
                [reference(args, name) for name in names],
                _target(args, target, out),
                args.out_fmt or "",
                args.options,
                source_fmt=args.fmt,
                source_cache=args.src_cache or "writeback",
                snapshot=Choice(args.snapshot, args.snapshot_id, args.snapshot_name),
                backing=args.backing_file,
                backing_fmt=args.backing_fmt,
                create=not args.no_create,
                target_is_zero=args.target_is_zero,
                cache=args.cache or "unsafe",
                sparse_size=BLOCK if args.sparse_size is None else args.sparse_size,
                share=args.sparse_size is None,
                compress=args.compress,
                offload=args.copy_offload,
                threads=args.coroutines,
                in_order=args.in_order,
                rate_limit=args.rate_limit or 0,
                salvage=args.salvage,
                bitmaps=args.bitmaps,
                skip_broken_bitmaps=args.skip_broken_bitmaps,
                force_share=args.force_share,
                trust="all",
                secrets=args.secrets,
                labels=args.operands,
                progress=progress,
                warn=_warner(args, out),
            )
            reporter.complete()
    except CowshedError as error:
        out.report(error)
        return 1
    return 0


def _warner(args: Parsed, out: Output) -> Callable[[str], None]:
    """Prints warnings; with -q all but those of sectors that could not be salvaged."""
    warn = warner(out)
    if not args.quiet:
        return warn
    return lambda text: None if text.startswith("error while reading offset") else warn(text)


def _target(args: Parsed, name: str, out: Output) -> Ref:
    """What to write to: a file name, or with --target-image-opts the options that it spells."""
    if not args.target_image_opts:
        return name
    if args.out_fmt is not None:
        out.error("--image-opts and --format are mutually exclusive")
        raise Stop(1)
    from ...block.filename import parse_image_opts

    return parse_image_opts(name)
