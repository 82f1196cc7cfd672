"""Command lines: words, quotes, ``;`` and comments, and how words become the options of a command."""

from __future__ import annotations

from .table import Command, Option, find

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    #: a word, or None at the end of a command
    Word = str | None


class Refused(Exception):
    """A command line that is not understood; the arguments are lines for people."""


class Failed(Exception):
    """A command could not be carried out: ``text`` says which, ``cause`` is the error below it, if there is one."""

    def __init__(self, text: str = "", cause: BaseException | None = None) -> None:
        super().__init__(text)
        self.text = text
        self.cause = cause


class Call:
    """One command with its options: name -> the values given, in their order."""

    __slots__ = ("command", "values")

    def __init__(self, command: Command, values: dict[str, list[str]]) -> None:
        self.command = command
        self.values = values

    def flag(self, name: str) -> bool:
        return name in self.values

    def words(self, name: str) -> list[str]:
        """All values of an option that takes many."""
        return self.values.get(name, [])

    def text(self, name: str) -> str | None:
        """The value of an option, None when it was not given. Failed: it is empty."""
        given = self.values.get(name)
        if given is None:
            return None
        if not given[0]:
            raise Failed(f"Failed to get option '{name}': Option argument is empty")
        return given[0]

    def need(self, name: str) -> str:
        """The value of an option that must be there."""
        value = self.text(name)
        if value is None:
            raise Failed(f"Failed to get option '{name}': Mandatory option not present")
        return value

    def number(self, name: str, *, largest: int = (1 << 64) - 1, wrap: bool = False) -> int | None:
        """An unsigned number; with ``wrap`` a negative one counts down from the largest. Failed: it is none."""
        text = self.text(name)
        if text is None:
            return None
        body = text.lstrip(" \t\n\v\f\r")
        digits = body[1:] if body[:1] in ("+", "-") else body
        if digits.isascii() and digits.isdigit() and len(digits.lstrip("0")) < 21:
            value = int(digits)
            if body[0] != "-" and value <= largest:
                return value
            if wrap and value <= largest:
                return (largest + 1 - value) & largest
        raise Failed(f"Numeric value '{text}' for <{name}> option is malformed or out of range")

    def exclusive(self, *names: str) -> None:
        """Failed when more than one of these was given."""
        given = [name for name in names if name in self.values]
        if len(given) > 1:
            raise Failed(f"Options --{given[0]} and --{given[1]} are mutually exclusive")


def split(line: str) -> Iterator[Word]:
    """The words of a line; None where a command ends (``;``, a newline, a comment). Raises Refused."""
    at, end = 0, len(line)
    while True:
        while at < end and (line[at] in " \t" or line.startswith("\\\n", at)):
            at += 1 + (line[at] == "\\")
        if at >= end:
            return
        if line[at] in ";\n":
            at += 1
            yield None
            continue
        if line[at] == "#":
            stop = line.find("\n", at)
            at = end if stop < 0 else stop + 1
            yield None
            continue
        word: list[str] = []
        single = double = False
        while at < end:
            char = line[at]
            if not single and not double and char in " \t;\n":
                break
            at += 1
            if char == "'" and not double:
                single = not single
            elif char == "\\" and not single:
                if at >= end:
                    raise Refused("dangling \\")
                if line[at] != "\n":
                    word.append(line[at])
                at += 1
            elif char == '"' and not single:
                double = not double
            else:
                word.append(char)
        if double:
            raise Refused('missing "')
        yield "".join(word)


def parse(words: Iterator[Word], *, argv: bool = False) -> list[Call]:
    """The commands that these words are. Raises Refused.

    ``argv``: the words are those of one command, where a first word that begins with # makes a comment of them all.
    """
    calls = []
    for word in words:
        if word is None:
            continue
        if argv and word.startswith("#"):
            break
        command = find(word)
        if command is None:
            raise Refused(_unknown(word))
        calls.append(_command(command, words))
    return calls


def _unknown(name: str) -> str:
    from .foreign import NAMES

    if name in NAMES.split():
        return f"command '{name}' is not part of cowshed, whose virsh has storage pools, volumes and secrets only"
    return f"unknown command: '{name}'"


def _command(command: Command, words: Iterator[Word]) -> Call:
    values: dict[str, list[str]] = {}
    waiting = [option for option in command.options if option.positional]
    lenient = command.name == "help"
    asked = only_data = False
    for word in words:
        if word is None:
            break
        if not only_data and word == "--":
            only_data = True
        elif not only_data and word.startswith("--") and word[2:3].isascii() and word[2:3].isalnum():
            name, equals, given = word[2:].partition("=")
            if name == "help":
                if equals:
                    raise Refused("invalid '=' after option --help")
                asked = True
                continue
            option, value = _option(command, name, given if equals else None, values)
            if option is None:
                continue
            if option.kind == "bool":
                if value is not None:
                    raise Refused(f"invalid '=' after option --{option.name}")
                values[option.name] = []
                continue
            if value is None:
                value = next(words, None)
                if value is None:
                    kind = "number" if option.kind == "int" else "string"
                    raise Refused(f"expected syntax: --{option.name} <{kind}>")
            values.setdefault(option.name, []).append(value)
            if option.kind != "argv":
                waiting = [other for other in waiting if other is not option]
        elif waiting:
            option = waiting[0]
            values.setdefault(option.name, []).append(word)
            if option.kind != "argv":
                del waiting[0]
        elif not lenient:
            raise Refused(f"unexpected data '{word}'")
    if asked:
        help_command = find("help")
        assert help_command is not None
        return Call(help_command, {"command": [command.name]})
    missing = [option for option in command.options if option.required and option.name not in values]
    if missing:
        raise Refused(
            *(
                f"command '{command.name}' requires "
                + (f"<{option.name}>" if option.kind in ("data", "argv") else f"--{option.name}")
                + " option"
                for option in missing
            )
        )
    return Call(command, values)


def _option(
    command: Command, name: str, value: str | None, values: dict[str, list[str]]
) -> tuple[Option | None, str | None]:
    """The option of that name, or what it is an alias of, and its value if that is known by now."""
    for option in command.options:
        if option.name != name:
            continue
        if option.kind == "alias":
            name, equals, given = option.help.partition("=")
            if equals:
                if value is not None:
                    raise Refused(f"invalid '=' after option --{option.name}")
                value = given
            continue
        if name in values and option.kind != "argv":
            raise Refused(f"option --{name} already seen")
        return option, value
    if command.name == "help":
        return None, None
    raise Refused(f"command '{command.name}' doesn't support option --{name}")
