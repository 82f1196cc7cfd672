"""Completion: commands, devices, the guest's paths, the host's files, and the options of a command."""

from __future__ import annotations

import os
import stat as _stat

from ...errors import CowshedError
from .arguments import Refused
from .fish import Fish
from .line import parse
from .table import Argument, Command, find, names

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

#: what readline ends words at; quotes are seen to here
DELIMITERS = " \t\n"
#: kinds of arguments that are paths of the guest, and those that are files of the host
_GUEST = ("path", "place")
_HOST = ("in", "out")
#: arguments that are texts, but name files of the host
_HOST_NAMES = ("filename", "backingfile", "directory")
#: commands whose words are commands again
_OUTER = ("glob", "time")
#: no more is offered: a person could not read it
_MOST = 10_000


def candidates(fish: Fish, before: str, word: str) -> list[str]:
    """What ``word``, as typed, with its quote if it has one, can become, where ``before`` stands in front of it on the
    line. Each is quoted where it has to be, and ends with a blank where nothing more can follow."""
    quote = word[:1] if word[:1] in ("'", '"') else ""
    plain = word[len(quote) :]
    try:
        words = parse(before.lstrip(" \t-")).words
    except Refused:
        return []
    while words and words[0] in _OUTER:
        words = words[1:]
    if not words:
        lead = "-" if word.startswith("-") and not before.strip() else ""
        start = word[len(lead) :].replace("_", "-").lower()
        return [f"{lead}{name} " for name in names() if name.startswith(start)]
    if words[0] == "help":
        return [f"{name} " for name in names() if name.startswith(plain)] if len(words) == 1 else []
    known = find(words[0])
    found: list[str] = []
    if known is not None:
        argument = _argument(known, len(words) - 1)
        for text, ended in _values(fish, known, argument, len(words) - 1, plain):
            found.append(_quoted(text, quote, ended))
            if len(found) >= _MOST:
                break
        if not quote and (argument is None or argument.optional):
            found += _options(known, words, plain)
    return sorted(set(found))


def _argument(known: Command, at: int) -> Argument | None:
    """The argument that word number ``at`` behind the command is; None behind all fixed ones."""
    fixed = [one for one in known.arguments if not one.optional]
    if fixed and fixed[-1].type == "words" and at >= len(fixed) - 1:
        return fixed[-1]
    return fixed[at] if at < len(fixed) else None


def _values(fish: Fish, known: Command, argument: Argument | None, at: int, start: str) -> Iterator[tuple[str, bool]]:
    """(text, whether it is complete) of what an argument can be."""
    if argument is None:
        return
    kind = argument.type
    if kind == "bool":
        yield from ((word, True) for word in ("true", "false") if word.startswith(start))
        return
    words = kind == "words"
    if known.name in ("copy-in", "copy-out"):
        # which word is the last one nobody knows yet
        if at or known.name == "copy-in":
            yield from _host(start)
        if at or known.name == "copy-out":
            yield from _paths(fish, start)
        return
    if kind in _HOST or (kind == "string" and argument.name in _HOST_NAMES):
        yield from _host(start)
    if known.local and not words:
        return
    if kind in ("device", "mountable", "place", "names", "string") or words or start.startswith("/dev"):
        yield from _devices(fish, start)
    if kind in _GUEST or words or (kind == "string" and start.startswith("/")):
        yield from _paths(fish, start)


def _devices(fish: Fish, start: str) -> Iterator[tuple[str, bool]]:
    if not fish.session.running or not start.startswith("/"):
        return
    try:
        devices = fish.session.devices
        for name in (*devices.disks(), *devices.partitions(), *devices.volumes(), *devices.mapped):
            if name.startswith(start):
                yield name, True
    except CowshedError:
        return


def _paths(fish: Fish, start: str) -> Iterator[tuple[str, bool]]:
    """Paths of the guest that begin so, in whichever case."""
    if not fish.guest_paths or not fish.session.tree.mounts or not start.startswith("/"):
        return
    tree = fish.session.tree
    folder, _, head = os.fsencode(start).rpartition(b"/")
    wanted = os.fsdecode(head).casefold()
    try:
        for name in tree.names(folder or b"/"):
            text = os.fsdecode(name)
            if not text.casefold().startswith(wanted) or (name.startswith(b".") and not head) or not text.isprintable():
                continue
            path = folder + b"/" + name
            directory = tree.exists(path) and _stat.S_ISDIR(tree.stat(path).mode)
            yield os.fsdecode(path) + ("/" if directory else ""), not directory
    except CowshedError:
        return


def _host(start: str) -> Iterator[tuple[str, bool]]:
    """Files of the host that begin so."""
    folder, slash, head = start.rpartition("/")
    try:
        with os.scandir(os.path.expanduser(folder + slash) or ".") as entries:
            for entry in entries:
                if not entry.name.startswith(head) or (entry.name.startswith(".") and not head):
                    continue
                if entry.name.isprintable():
                    directory = entry.is_dir()
                    yield folder + slash + entry.name + ("/" if directory else ""), not directory
    except OSError:
        return


def _options(known: Command, words: list[str], start: str) -> list[str]:
    """The command's options that were not given, and the values of those that are true or false."""
    given = {word.partition(":")[0] for word in words[1:]}
    found = []
    for option in known.arguments:
        if not option.optional or option.name in given:
            continue
        texts = (
            [f"{option.name}:{word} " for word in ("true", "false")] if option.type == "bool" else [f"{option.name}:"]
        )
        found += [text for text in texts if text.startswith(start)]
    return found


def _quoted(text: str, quote: str, ended: bool) -> str:
    """As it is typed on a line, in ``quote`` if the person began with one; open where more can follow."""
    if not quote:
        if not any(char in " \t'\"\\|#~" for char in text):
            return text + " " * ended
        quote = '"' if "'" in text else "'"
    if quote == '"':
        text = text.replace("\\", "\\\\").replace('"', '\\"')
    elif "'" in text:
        # single quotes can't hold one
        return quote + text
    return quote + text + (quote + " ") * ended


def split(line: str) -> tuple[str, str]:
    """(what stands before the last word of a line, the last word as typed)."""
    at, start, quote = 0, 0, ""
    while at < len(line):
        char = line[at]
        if quote:
            if char == "\\" and quote == '"':
                at += 1
            elif char == quote:
                quote = ""
        elif char in DELIMITERS:
            start = at + 1
        elif char in "'\"":
            quote = char
        at += 1
    return line[:start], line[start:]


def completer(fish: Fish) -> Callable[[str, int], str | None]:
    """A function for readline."""
    found: list[str] = []

    def complete(word: str, state: int) -> str | None:
        nonlocal found
        if not state:
            import readline

            line = readline.get_line_buffer()[: readline.get_endidx()]
            before, last = split(line)
            # readline replaces what stands behind the last blank, also of a word in quotes
            cut = readline.get_begidx() - len(before)
            found = [text[cut:] for text in candidates(fish, before, last) if text[:cut] == last[:cut]]
        return found[state] if state < len(found) else None

    return complete
