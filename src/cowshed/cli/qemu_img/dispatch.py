"""qemu-img's command line from argv to a command's ``run``."""

from __future__ import annotations

from ..output import Stop
from . import checks, converters, tables
from .getopt import BadOption, Scanner
from .parsed import Parsed

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import NoReturn

    from ..output import Output

    Run = Callable[[Parsed, Output], int]


def main(argv: list[str], out: Output) -> int:
    """Run ``argv`` (its first item is the program's name) and return the exit status."""
    try:
        if len(argv) < 2:
            out.usage("Not enough arguments")
        rest = _global_options(argv, out)
        if not rest:
            return 0
        name = rest[0]
        if name not in tables.COMMANDS:
            out.usage(f"Command not found: {name}")
        args = parse(name, rest, out)
        return load(name)(args, out)
    except Stop as stop:
        return stop.code


def load(command: str) -> Run:
    """The ``run`` function of a command's module."""
    # importlib itself would be another half millisecond.
    run: Run = __import__(tables.COMMANDS[command][0], fromlist=("run",)).run
    return run


def _global_options(argv: list[str], out: Output) -> list[str]:
    """Obey the options before the command; returns the command and what follows it. Raises Stop."""
    if argv[1][:1] != "-":
        return argv[1:]
    scanner = Scanner(argv, tables.options(""), in_order=True)
    while True:
        try:
            option = scanner.next()
        except BadOption as bad:
            _bad_option(bad, out)
        if option is None:
            return scanner.operands
        if option.kind == "trace":
            from .trace import enable

            enable(scanner.value, out)
        else:
            from .usage import help_text, version_text

            out.write(help_text() if option.kind == "help" else version_text())
            raise Stop(0)


def parse(command: str, argv: list[str], out: Output) -> Parsed:
    """Read and check the arguments of a command; ``argv[0]`` is its name. Raises Stop, the mistake being told."""
    args = Parsed(command)
    last: list[str] = []
    complain = None
    if command == "resize":
        # The size comes off the end first: -5G is a size, not options.
        if len(argv) < 3:
            out.usage("Not enough arguments")
        argv, last = argv[:-1], argv[-1:]
    elif command == "measure":
        # The one command that lets the C library complain, and then shows the help and succeeds.
        def complain(message: str) -> None:
            out.raw(f"{command}: {message}\n")

    scanner = Scanner(argv, tables.options(command), complain=complain)
    while True:
        try:
            option = scanner.next()
        except BadOption as bad:
            if complain is not None:
                converters.convert_help(args, out, scanner.options[0], "")
            _bad_option(bad, out)
        if option is None:
            break
        convert: Callable[..., None] = getattr(converters, f"convert_{option.kind}")
        convert(args, out, option, scanner.value)
    args.operands = scanner.operands + last
    for name, *rest in tables.COMMANDS[command][3]:
        check: Callable[..., None] = getattr(checks, f"check_{name}")
        check(args, out, *rest)
    return args


def _bad_option(bad: BadOption, out: Output) -> NoReturn:
    what = "missing argument for option" if bad.kind == "missing" else "unrecognized option"
    out.usage(f"{what} '{bad.culprit}'")
