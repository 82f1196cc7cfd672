"""What qemu-img checks of a command's arguments when all options are read and no image is touched yet.

One function for each name in the ``checks`` of tables.py, called in the table's order with the Parsed, the Output
and the rest of the row. A mistake is told on stderr and raises Stop.
"""

from __future__ import annotations

from ..output import Stop
from .converters import CACHE_MODES, failure, size

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NoReturn

    from ..output import Output
    from .parsed import Parsed


def _fail(args: Parsed, out: Output, text: str) -> NoReturn:
    line = args.progress_line if args.progress else None
    if line:
        out.write(line)
        out.flush()
    out.error(text)
    if line is not None:
        out.write("\n")
    raise Stop(failure(args.command))


def _wants_help(args: Parsed) -> bool:
    if args.options is None:
        return False
    from ...block.options import wants_help

    return wants_help(args.options)


def check_one_file(args: Parsed, out: Output) -> None:
    if len(args.operands) != 1:
        out.usage("Expecting one image file name")


def check_one_file_plain(args: Parsed, out: Output) -> None:
    if len(args.operands) != 1:
        _fail(args, out, "Expecting one image file name")


def check_two_files(args: Parsed, out: Output) -> None:
    if len(args.operands) != 2:
        out.usage("Expecting two image file names")


def check_exclusive(args: Parsed, out: Output) -> None:
    if args.image_opts and args.fmt is not None:
        _fail(args, out, "--image-opts and --format are mutually exclusive")


def check_output(args: Parsed, out: Output) -> None:
    if args.output not in ("human", "json"):
        _fail(args, out, "--output must be used with human or json as argument.")


def check_cache(args: Parsed, out: Output, dest: str, text: str) -> None:
    mode = getattr(args, dest)
    if mode is not None and mode not in CACHE_MODES:
        _fail(args, out, f"{text}: {mode}")


def check_quiet_progress(args: Parsed, out: Output) -> None:
    if args.quiet:
        args.progress = False


def check_progress_begins(args: Parsed, out: Output, line: str = "") -> None:
    """From here on a mistake ends the progress line, which begins with ``line``."""
    args.progress_line = line


def check_options_given(args: Parsed, out: Output) -> None:
    if args.options is None:
        out.usage("Must specify options (-o)")


def check_amend_help(args: Parsed, out: Output) -> None:
    # Without -f the format is known only when the image is open; the command asks again then.
    if args.fmt is not None and _wants_help(args):
        from .option_help import amendment

        code = amendment(args.fmt, out)
        if args.progress:
            out.write("\n")
        raise Stop(code)


def check_bench_flush(args: Parsed, out: Output) -> None:
    if not args.write and args.flush_interval:
        _fail(args, out, "--flush-interval is only available in write tests")
    if args.flush_interval and args.flush_interval < args.depth:
        _fail(args, out, "Flush interval can't be smaller than depth")


def check_bitmap_actions(args: Parsed, out: Output) -> None:
    kinds = [kind for kind, _ in args.actions]
    if not kinds:
        _fail(args, out, "Need at least one of --add, --remove, --clear, --enable, --disable, or --merge")
    if args.granularity and "add" not in kinds:
        _fail(args, out, "granularity only supported with --add")
    if args.source_fmt is not None and args.source_file is None:
        _fail(args, out, "-F only supported with -b")
    if args.source_file is not None and "merge" not in kinds:
        _fail(args, out, "Merge bitmap source file only supported with --merge")
    if len(args.operands) != 2:
        _fail(args, out, "Expecting filename and bitmap name")


def check_convert_modes(args: Parsed, out: Output) -> None:
    if args.out_fmt is None and not args.target_image_opts:
        args.out_fmt = "raw"
    if args.skip_broken_bitmaps and not args.bitmaps:
        _fail(args, out, "Use of --skip-broken-bitmaps requires --bitmaps")
    if args.copy_offload and args.compress:
        _fail(args, out, "Cannot enable copy offloading when -c is used")
    if args.copy_offload and args.sparse_size is not None:
        _fail(args, out, "Cannot enable copy offloading when -S is used")
    if args.copy_offload and args.salvage:
        _fail(args, out, "Cannot use copy offloading in salvaging mode")
    if args.target_image_opts and not args.no_create:
        _fail(args, out, "--target-image-opts requires use of -n flag")
    if args.no_create and args.options is not None:
        _fail(args, out, "-o has no effect when skipping image creation")
    if args.target_is_zero and not args.no_create:
        _fail(args, out, "--target-is-zero requires use of -n flag")


def check_convert_files(args: Parsed, out: Output) -> None:
    if args.out_fmt is not None and _wants_help(args):
        from .option_help import creation

        raise Stop(creation(args.out_fmt, args.operands[-1] if len(args.operands) > 1 else None, out))
    if len(args.operands) < 2:
        _fail(args, out, "Must specify image file name")


def check_create_operands(args: Parsed, out: Output) -> None:
    if args.fmt is None:
        args.fmt = "raw"
    if _wants_help(args):
        from .option_help import creation

        raise Stop(creation(args.fmt, args.operands[0] if args.operands else None, out))
    if not args.operands:
        out.usage("Expecting image file name")
    if len(args.operands) > 1:
        args.size = size(args.operands[1], "image size", out)
    if len(args.operands) > 2:
        out.usage(f"Unexpected argument: {args.operands[2]}")


def check_dd_operands(args: Parsed, out: Output) -> None:
    given = set()
    for operand in args.operands:
        name, equals, text = operand.partition("=")
        if not equals or name not in ("bs", "count", "skip", "if", "of"):
            _fail(args, out, f"unrecognized operand {name}")
        if name == "bs":
            args.block_size = size(text, name, out, 1, 0x7FFFFFFF)
        elif name == "count":
            args.blocks = size(text, name, out)
        elif name == "skip":
            args.skip = size(text, name, out)
        elif name == "if":
            args.input = text
        else:
            args.target = text
        given.add(name)
    if "if" not in given or "of" not in given:
        _fail(args, out, "Must specify both input and output files")


def check_measure_source(args: Parsed, out: Output) -> None:
    if len(args.operands) > 1:
        _fail(args, out, "At most one filename argument is allowed.")
    named = len(args.operands) == 1
    chosen = (args.fmt, args.snapshot, args.snapshot_id, args.snapshot_name)
    if not named and (args.image_opts or any(item is not None for item in chosen)):
        _fail(args, out, "--image-opts, -f, and -l require a filename argument.")
    if named and args.size is not None:
        _fail(args, out, "--size N cannot be used together with a filename.")
    if not named and args.size is None:
        _fail(args, out, "Either --size N or one filename must be specified.")


def check_rebase_backing(args: Parsed, out: Output) -> None:
    if not args.unsafe and args.backing_file is None:
        out.usage("Must specify backing file (-b) or use unsafe mode (-u)")


def check_resize_size(args: Parsed, out: Output) -> None:
    from ...block.options import parse_size_option
    from ...errors import OptionError

    # The size was taken off the end before options were read, so that -5G is no option.
    text = args.operands.pop()
    if len(args.operands) != 1:
        out.usage("Expecting image file name and size")
    if text[:1] in ("+", "-"):
        args.relative = 1 if text[0] == "+" else -1
        text = text[1:]
    try:
        args.size = parse_size_option("size", text, out.warning)
    except OptionError as error:
        out.report(error)
        raise Stop(1) from None
