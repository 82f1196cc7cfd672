"""What one option does to Parsed while the command line is read: a function for each ``kind`` of tables.py.

A converter is called with the Parsed, the Output, its Option and the text given ("" for a flag). A value that is
wrong is told on stderr and raises Stop; what qemu-img checks later, when all options are read, is in checks.py.
"""

from __future__ import annotations

from ..output import Stop
from .tables import INT64_MAX, MAX_COROUTINES, SECTOR

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Literal

    from ..output import Output
    from .parsed import Parsed
    from .tables import Option

_MAX_SPARSE = 16 << 20
_SNAPSHOT_NAMES = {"snapshot.id": "snapshot id", "snapshot.name": "snapshot name"}
AIO_MODES = ("threads", "native", "io_uring")
PREALLOCATION = ("off", "metadata", "falloc", "full")
CACHE_MODES = ("none", "off", "directsync", "writeback", "unsafe", "writethrough")


def failure(command: str) -> int:
    """The exit status of a command whose arguments are wrong: compare keeps 1 for images that differ."""
    return 2 if command == "compare" else 1


def size(text: str, what: str, out: Output, least: int = 0, most: int = INT64_MAX) -> int:
    """A size in bytes between ``least`` and ``most``; ``what`` names it in messages. Raises Stop(1)."""
    from ...units import UnitsError, parse_size

    try:
        number = parse_size(text, out.warning)
    except UnitsError as error:
        if error.reason == "invalid":
            out.error(f"Invalid {what} specified. You may use k, M, G, T, P or E suffixes for")
            out.error("kilobytes, megabytes, gigabytes, terabytes, petabytes and exabytes.")
            raise Stop(1) from None
        number = -1
    if not least <= number <= most:
        out.error(f"Invalid {what} specified. Must be between {least} and {most}.")
        raise Stop(1)
    return number


def convert_text(args: Parsed, out: Output, option: Option, text: str) -> None:
    setattr(args, option.dest, text)


def convert_flag(args: Parsed, out: Output, option: Option, text: str) -> None:
    setattr(args, option.dest, True)


def convert_off(args: Parsed, out: Output, option: Option, text: str) -> None:
    setattr(args, option.dest, False)


def convert_help(args: Parsed, out: Output, option: Option, text: str) -> None:
    from .usage import help_text

    out.write(help_text())
    raise Stop(0)


def convert_object(args: Parsed, out: Output, option: Option, text: str) -> None:
    from .objects import define

    args.objects.append(text)
    define(text, args, out, failure(args.command))


def convert_options(args: Parsed, out: Output, option: Option, text: str) -> None:
    from ...block.options import accumulate
    from ...errors import OptionError

    try:
        args.options = accumulate(args.options, text)
    except OptionError as error:
        out.report(error)
        raise Stop(1) from None


def convert_size(args: Parsed, out: Output, option: Option, text: str) -> None:
    what, *most = option.arguments
    setattr(args, option.dest, size(text, what, out, 0, most[0] if most else INT64_MAX))


def convert_unsigned(args: Parsed, out: Output, option: Option, text: str) -> None:
    from ...units import UnitsError, parse_unsigned

    what, most = option.arguments
    try:
        number = parse_unsigned(text)
    except UnitsError:
        number = -1
    if not 0 <= number <= most:
        out.error(f"Invalid {what} specified")
        raise Stop(1)
    setattr(args, option.dest, number)


def convert_coroutines(args: Parsed, out: Output, option: Option, text: str) -> None:
    from ...units import UnitsError, parse_integer

    try:
        number = parse_integer(text)
    except UnitsError:
        number = 0
    if not 1 <= number <= MAX_COROUTINES:
        out.error(f"Invalid number of coroutines. Allowed number of coroutines is between 1 and {MAX_COROUTINES}")
        raise Stop(1)
    args.coroutines = number


def convert_sparse(args: Parsed, out: Output, option: Option, text: str) -> None:
    number = size(text, "buffer size for sparse output", out)
    if number % SECTOR or number > _MAX_SPARSE:
        out.error(
            "Invalid buffer size for sparse output specified. Valid sizes are multiples of"
            f" {SECTOR} up to {_MAX_SPARSE}. Select 0 to disable sparse detection (fully allocates output)."
        )
        raise Stop(1)
    args.sparse_size = number


def convert_snapshot(args: Parsed, out: Output, option: Option, text: str) -> None:
    if not text.startswith("snapshot."):
        args.snapshot = text
        return
    from .groups import parse

    values = parse(text, "snapshot", _SNAPSHOT_NAMES, out)
    if values is None:
        out.error(f"Failed in parsing snapshot param '{text}'")
        raise Stop(1)
    args.snapshot_id = values.get("snapshot.id")
    args.snapshot_name = values.get("snapshot.name")


def convert_snapshot_action(args: Parsed, out: Output, option: Option, text: str) -> None:
    if args.action:
        out.usage("Cannot mix '-l', '-a', '-c', '-d'")
    dest: Literal["list", "apply", "create", "delete"] = option.dest  # type: ignore[assignment]
    args.action = dest
    args.snapshot_argument = text


def convert_action(args: Parsed, out: Output, option: Option, text: str) -> None:
    args.actions.append((option.dest, text))


def convert_repair(args: Parsed, out: Output, option: Option, text: str) -> None:
    if text not in ("leaks", "all"):
        out.usage(f"Unknown option value for -r (expecting 'leaks' or 'all'): {text}")
    setattr(args, option.dest, text)


def convert_output(args: Parsed, out: Output, option: Option, text: str) -> None:
    if text not in ("human", "json"):
        out.error("--output must be used with human or json as argument.")
        raise Stop(1)
    setattr(args, option.dest, text)


def convert_aio(args: Parsed, out: Output, option: Option, text: str) -> None:
    if text not in AIO_MODES:
        out.error(f"Invalid aio option: {text}")
        raise Stop(1)
    setattr(args, option.dest, text)


def convert_bench_cache(args: Parsed, out: Output, option: Option, text: str) -> None:
    if text not in CACHE_MODES:
        out.error("Invalid cache mode")
        raise Stop(1)
    args.cache = text


def convert_preallocation(args: Parsed, out: Output, option: Option, text: str) -> None:
    if text not in PREALLOCATION:
        out.error(f"Invalid preallocation mode '{text}'")
        raise Stop(1)
    setattr(args, option.dest, text)
