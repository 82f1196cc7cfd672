"""``guestfish``: from the command line to the commands."""

from __future__ import annotations

import os
import sys
from _signal import SIGINT, default_int_handler, getsignal, signal  # type: ignore[import-not-found]

from ..output import Stop
from .fish import Fish, Left
from .getopt import Misused, Option, walk

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import BinaryIO

    from ..output import Output
    from .start import Start

#: as getopt knows them, in the order that its messages have
OPTIONS = (
    Option("add", "a", True),
    Option("blocksize", "", None),
    Option("cmd-help", "h", None, loose=True),
    Option("connect", "c", True),
    Option("csh"),
    Option("domain", "d", True),
    Option("echo-keys"),
    Option("file", "f", True),
    Option("format", "", None),
    Option("help"),
    Option("inspector", "i"),
    Option("key", "", True),
    Option("keys-from-stdin"),
    Option("listen"),
    Option("live"),
    Option("long-options"),
    Option("mount", "m", True),
    Option("network"),
    Option("new", "N", True),
    Option("no-dest-paths"),
    Option("no-sync", "n"),
    Option("pipe-error"),
    Option("progress-bars"),
    Option("no-progress-bars"),
    Option("remote", "", None),
    Option("ro", "r"),
    Option("rw", "w"),
    Option("selinux"),
    Option("short-options"),
    Option("verbose", "v"),
    Option("version", "V"),
    Option("", "D"),
    Option("", "x"),
)


def main(argv: list[str], out: Output, prog: str = "guestfish", given: tuple[str, ...] = ()) -> int:
    """``argv``: the program's name and what follows it. ``prog``: what messages call it; ``given``: the words that a
    tool puts before those of its user. Returns the exit status."""
    from .start import Start

    start = Start(out, prog=prog)
    fish = start.fish
    words: list[str] = []
    try:
        _configure(start)
        try:
            start.prepare(walk(OPTIONS, [*given, *argv[1:]], words, mixed="POSIXLY_CORRECT" not in os.environ))
        except Misused as misused:
            out.raw(f"{prog}: {misused}\nTry ‘{prog} --help’ for more information.\n")
            return 1
        if start.done is not None:
            return start.done
        if start.inspector and not start.disks and not start.domains and not start.new:
            if given:
                text = "you must specify at least one -a DISK or -d DOMAIN option"
                out.raw(f"{prog}: {text}\nTry ‘{prog} --help’ for more information.\n")
                return 1
            # before -a and -d there were only names of disks and domains
            start.legacy(words)
            words = []
        _interruptible(fish)
        if start.listens:
            return _listen(start, words)
        start.open()
        good = _run(fish, start.file, words)
        fish.settle()
        return 0 if good else 1
    except Left:
        return 0
    except Stop as stop:
        return stop.code
    finally:
        fish.close()


def _configure(start: Start) -> None:
    from .config import Malformed, files, read_only

    if not any(map(os.path.exists, files())):
        return
    try:
        start.readonly = read_only()
    except Malformed as error:
        raise start.fail(str(error)) from error


def _interruptible(fish: Fish) -> None:
    """Ctrl-C leaves changes whole that are just being written."""
    if getsignal(SIGINT) is default_int_handler:
        signal(SIGINT, lambda number, frame: fish.interrupted(KeyboardInterrupt()))


def _listen(start: Start, words: list[str]) -> int:
    if start.fish.remote is not None:
        raise start.fail("cannot use --listen and --remote options at the same time")
    if words:
        raise start.fail("extra parameters on the command line with --listen flag")
    if start.file is not None:
        raise start.fail("cannot use --listen and --file options at the same time")
    from .server import listen

    return listen(start.fish, start.open, csh=start.csh)


def _run(fish: Fish, file: str | None, words: list[str]) -> bool:
    lines: Iterator[str] | None = None
    if file is not None and file != "-":
        try:
            lines = _lines(open(file, "rb"))  # noqa: SIM115 - read to its end, or the process ends
        except OSError as error:
            fish.say(f"guestfish: open: {file}: {error.strerror}")
            return False
    if words:
        if file is not None or not os.isatty(0):
            fish.where = f"{file or '*stdin*'}:0: "
        return _argv(fish, words)
    if lines is not None and file is not None:
        return fish.script(lines, file)
    fish.from_stdin = True
    if file is None and os.isatty(0):
        from .interactive import loop

        return loop(fish)
    return fish.script(_lines(sys.stdin.buffer), "*stdin*")


def _lines(stream: BinaryIO) -> Iterator[str]:
    """The lines of a stream, each when it is there."""
    while True:
        data = stream.readline()
        if not data:
            return
        yield os.fsdecode(data)


def _argv(fish: Fish, words: list[str]) -> bool:
    """Commands on the command line, ``:`` between them; a hyphen before a command ignores its error."""
    command: list[str] = []
    commands = []
    for word in words:
        if word == ":":
            commands.append(command)
            command = []
        else:
            command.append(word)
    if command:
        commands.append(command)
    for command in commands:
        if not command:
            fish.say("guestfish: empty command on command line")
            return False
        ignore = command[0].startswith("-")
        if ignore:
            command = [command[0][1:], *command[1:]]
        fish.ignore = ignore
        if not fish.run(command) and not ignore:
            return False
    return True
