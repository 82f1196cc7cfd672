"""The words of a command line become what a command's function takes."""

from __future__ import annotations

import os

from ...errors import UsageError
from .table import Argument, Command

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from .fish import Fish

TRUE = ("1", "true", "t", "yes", "y", "on")
FALSE = ("0", "false", "f", "no", "n", "off")
_SUFFIXES = {"b": 512, "k": 10, "K": 10, "M": 20, "m": 20, "G": 30, "g": 30, "T": 40, "t": 40, "P": 50, "E": 60}


class Refused(Exception):
    """A command line that is not understood; the text is printed as it is."""


def bind(fish: Fish, command: Command, words: list[str], called: str = "") -> tuple[list[Any], dict[str, Any]]:
    """(positional, keyword) arguments for the command's function; messages name it as it was ``called``.

    Raises Refused.
    """
    called = called or command.name
    fixed = [one for one in command.arguments if not one.optional]
    options = {one.name: one for one in command.arguments if one.optional}
    endless = bool(fixed) and fixed[-1].type == "words"
    least = len(fixed) - endless
    if len(words) < least or (len(words) > len(fixed) + len(options) and not endless):
        raise Refused(wrong_number(command, called))
    values: list[Any] = []
    for argument, word in zip(fixed[:least], words, strict=False):
        values.append(convert(fish, command, argument, word, called))
    rest = words[least:]
    if endless:
        values.append(rest)
        return values, {}
    given: dict[str, Any] = {}
    for word in rest:
        name, colon, text = word.partition(":")
        option = options.get(name.replace("_", "-")) or options.get(name)
        if not colon or option is None:
            raise Refused(f'{called}: unknown optional argument "{word}"')
        if option.keyword in given:
            raise Refused(f'{called}: optional argument "{name}" given more than once')
        given[option.keyword] = convert(fish, command, option, text, called)
    return values, given


def wrong_number(command: Command, called: str = "") -> str:
    called = called or command.name
    if command.misuse:
        return command.misuse.format(called)
    return (
        f"error: incorrect number of arguments\nusage: {command.usage}\ntype 'help {called}' for more help on {called}"
    )


def convert(fish: Fish, command: Command, argument: Argument, word: str, called: str = "") -> Any:
    """One word by its argument's type:

    ``path``: bytes, of a file in the guest; ``device``, ``mountable``, ``place`` (a device or a path), ``string``,
    ``key``: text; ``in`` and ``out``: a file on the host (- for standard input or output); ``int`` and ``int64``:
    as C writes numbers of 32 and 64 bits, with sizes' suffixes; ``bool``; ``list``: words separated by blanks, quoted
    where they hold some;
    ``names``: the same as text; ``guid``; ``bytes``. Raises Refused, UsageError.
    """
    kind = argument.type
    if kind == "path":
        return os.fsencode(windows_path(fish, word))
    if kind in ("bytes",):
        return os.fsencode(word)
    if kind in ("int", "int64"):
        value = number(command, argument, word, called)
        if kind == "int" and not -(1 << 31) <= value < 1 << 31:
            raise Refused(f"{_named(command, argument, called)}: integer out of range")
        return value
    if kind == "bool":
        lowered = word.lower()
        if lowered in TRUE:
            return True
        if lowered in FALSE:
            return False
        raise Refused(f"guestfish: '{word}': invalid boolean value, use 'true' or 'false'")
    if kind == "list":
        return [os.fsencode(one) for one in split_list(word)]
    if kind == "names":
        return split_list(word)
    if kind == "guid" and not _is_guid(word):
        raise UsageError(f"{argument.name}: parameter is not a valid GUID")
    return word


def _is_guid(text: str) -> bool:
    """Five groups of hexadecimal digits, in braces or not."""
    if text[:1] == "{" and text[-1:] == "}":
        text = text[1:-1]
    groups = text.split("-")
    return [len(group) for group in groups] == [8, 4, 4, 4, 12] and not "".join(groups).strip("0123456789abcdefABCDEF")


def windows_path(fish: Fish, word: str) -> str:
    """``win:\\name`` has slashes and is spelled as the guest has it; drive letters need a guest that was inspected."""
    if word[:4].lower() != "win:":
        return word
    body = word[4:]
    above = ""
    if body[1:2] == ":" and body[0].isascii() and body[0].isalpha():
        fish.need_running("inspect_get_roots")
        above, body = fish.drive_letter(body[0]), body[2:]
    fish.need_running("case_sensitive_path")
    return fish.spelled(above + body.replace("\\", "/") or "/")


def number(command: Command, argument: Argument, word: str, called: str = "") -> int:
    """An integer as xstrtoll reads it: 10, 0x1f, 017, with a suffix of size."""
    text = word
    sign = 1
    if text[:1] in ("-", "+"):
        sign = -1 if text[0] == "-" else 1
        text = text[1:]
    digits = 0
    base = 10
    if text[:2].lower() == "0x" and text[2:3] in tuple("0123456789abcdefABCDEF"):
        base, text = 16, text[2:]
    elif text[:1] == "0" and text[1:2].isdigit():
        base = 8
    allowed = "0123456789abcdef"[:base]
    while digits < len(text) and text[digits].lower() in allowed:
        digits += 1
    suffix = text[digits:]
    if not digits:
        raise _bad(command, argument, called, 4)
    value = int(text[:digits], base)
    if suffix:
        unit, rest = suffix[0], suffix[1:]
        if unit not in _SUFFIXES or rest not in ("", "iB", "B", "D"):
            raise _bad(command, argument, called, 2)
        if unit == "b":
            value *= 512
        elif rest in ("B", "D"):
            value *= 1000 ** (_SUFFIXES[unit] // 10)
        else:
            value <<= _SUFFIXES[unit]
    value *= sign
    if not -(1 << 63) <= value < 1 << 63:
        raise _bad(command, argument, called, 1)
    return value


def _bad(command: Command, argument: Argument, called: str, code: int) -> Refused:
    return Refused(f"{_named(command, argument, called)}: invalid integer parameter (xstrtoll returned {code})")


def _named(command: Command, argument: Argument, called: str) -> str:
    """An argument of a command as messages about numbers call it."""
    return f"{called or command.name}: {'optargs_s.' if argument.optional else ''}{argument.name}"


def split_list(text: str) -> list[str]:
    """Words separated by blanks; ``'…'`` and ``"…"`` hold blanks."""
    found: list[str] = []
    at, end = 0, len(text)
    while True:
        while at < end and text[at] in " \t\n":
            at += 1
        if at >= end:
            return found
        if text[at] in "'\"":
            stop = text.find(text[at], at + 1)
            if stop < 0:
                raise Refused(f'Runaway quote in string "{text}"')
            found.append(text[at + 1 : stop])
            at = stop + 1
            continue
        start = at
        while at < end and text[at] not in " \t\n":
            at += 1
        found.append(text[start:at])
