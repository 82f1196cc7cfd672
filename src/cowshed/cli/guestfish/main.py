"""``guestfish``: from the command line to the commands."""

from __future__ import annotations

import os
import sys

from ..output import Stop
from .fish import Fish, Left
from .getopt import Misused, Option, take

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from ..output import Output

#: the release of guestfish whose commands, texts and exit codes are kept
RELEASE = "1.48.6"

OPTIONS = (
    Option("add", "a", True),
    Option("blocksize", "", None),
    Option("cmd-help", "h", None),
    Option("connect", "c", True),
    Option("csh", "", False),
    Option("domain", "d", True),
    Option("echo-keys", "", False),
    Option("file", "f", True),
    Option("format", "", None),
    Option("help", "", False),
    Option("inspector", "i", False),
    Option("key", "", True),
    Option("keys-from-stdin", "", False),
    Option("listen", "", False),
    Option("live", "", False),
    Option("long-options", "", False),
    Option("mount", "m", True),
    Option("network", "", False),
    Option("new", "N", True),
    Option("no-dest-paths", "D", False),
    Option("no-progress-bars", "", False),
    Option("no-sync", "n", False),
    Option("pipe-error", "", False),
    Option("progress-bars", "", False),
    Option("remote", "", None),
    Option("ro", "r", False),
    Option("rw", "w", False),
    Option("selinux", "", False),
    Option("short-options", "", False),
    Option("trace", "x", False),
    Option("verbose", "v", False),
    Option("version", "V", False),
)


def main(argv: list[str], out: Output) -> int:
    """``argv``: the program's name and what follows it. Returns the exit status."""
    try:
        given, words = take(OPTIONS, argv[1:])
    except Misused as misused:
        out.raw(f"guestfish: {misused}\nTry `guestfish --help' for more information.\n")
        return 1
    from .start import Start

    start = Start(out)
    fish = start.fish
    try:
        start.prepare(given)
        if start.done is not None:
            return start.done
        start.open()
        good = _run(fish, start.file, words)
        if not fish.no_sync:
            fish.session.tree.sync()
        return 0 if good else 1
    except Left:
        return 0
    except Stop as stop:
        return stop.code
    finally:
        fish.close()


def _run(fish: Fish, file: str | None, words: list[str]) -> bool:
    if words:
        return _argv(fish, words)
    if file is not None and file != "-":
        try:
            with open(file, encoding="utf-8", errors="surrogateescape", newline="\n") as handle:
                return fish.script(iter(handle), file)
        except OSError as error:
            fish.say(f"{file}: {error.strerror}")
            return False
    if file is None and os.isatty(0):
        from .interactive import loop

        return loop(fish)
    return fish.script(_stdin(), "*stdin*")


def _stdin() -> Iterator[str]:
    while True:
        data = sys.stdin.buffer.readline()
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
    commands.append(command)
    for command in commands:
        if not command:
            continue
        ignore = command[0].startswith("-") and len(command[0]) > 1
        if ignore:
            command = [command[0][1:], *command[1:]]
        try:
            if not fish.run(command) and not ignore:
                return False
        except Left:
            return True
    return True
