"""Options as GNU getopt_long takes them: short ones together, long ones abbreviated, values beside or behind."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator


class Misused(Exception):
    """An option that doesn't exist, or lacks its value; the text says which."""


class Option:
    """``value``: True when it must have one, None when it may (long form ``--name=value``), False without.

    An option without a long name is given under its letter. ``loose``: what it may have may also be the next word.
    """

    __slots__ = ("long", "loose", "short", "value")

    def __init__(self, long: str, short: str = "", value: bool | None = False, *, loose: bool = False) -> None:
        self.long = long
        self.loose = loose
        self.short = short
        self.value = value

    @property
    def name(self) -> str:
        return self.long or self.short

    def same(self, other: Option) -> bool:
        """getopt takes the first of several that an abbreviation fits where they look alike to it: where none has a
        letter, and all take values in the same way."""
        return not self.short and not other.short and self.value is other.value


def take(
    options: tuple[Option, ...], words: list[str], *, mixed: bool = False
) -> tuple[list[tuple[str, str | None]], list[str]]:
    """([(long name, value)…] in their order, the words that are left). With ``mixed`` options may stand behind words.

    Raises Misused.
    """
    rest: list[str] = []
    return list(walk(options, words, rest, mixed=mixed)), rest


def walk(
    options: tuple[Option, ...], words: list[str], rest: list[str], *, mixed: bool = False
) -> Iterator[tuple[str, str | None]]:
    """As `take`, one option at a time, for who acts on each before the next is looked at; ``rest`` is filled."""
    todo = list(words)
    while todo:
        word = todo.pop(0)
        if word == "--":
            rest += todo
            return
        if not word.startswith("-") or word == "-":
            rest.append(word)
            if not mixed:
                rest += todo
                return
            continue
        if word.startswith("--"):
            yield _long(options, word, todo)
            continue
        letters = word[1:]
        while letters:
            letter, letters = letters[0], letters[1:]
            short = next((one for one in options if one.short == letter), None)
            if short is None:
                raise Misused(f"invalid option -- '{letter}'")
            if short.value is False or (short.value is None and not letters):
                yield short.name, _loose(short, todo)
                continue
            if not letters and not todo:
                raise Misused(f"option requires an argument -- '{letter}'")
            yield short.name, letters or todo.pop(0)
            letters = ""


def _loose(option: Option, todo: list[str]) -> str | None:
    return todo.pop(0) if option.loose and todo and not todo[0].startswith("-") else None


def _long(options: tuple[Option, ...], word: str, todo: list[str]) -> tuple[str, str | None]:
    name, equals, value = word[2:].partition("=")
    fit = [one for one in options if one.long.startswith(name) and one.long]
    option = next((one for one in fit if one.long == name), None)
    if option is None:
        if not fit:
            raise Misused(f"unrecognized option '{word}'")
        option = fit[0]
        others = [one for one in fit[1:] if not one.same(option)]
        if others:
            shown = " ".join(f"'--{one.long}'" for one in (option, *others))
            raise Misused(f"option '{word}' is ambiguous; possibilities: {shown}")
    if option.value is False:
        if equals:
            raise Misused(f"option '--{option.long}' doesn't allow an argument")
        return option.long, None
    if equals:
        return option.long, value
    if option.value is None:
        return option.long, _loose(option, todo)
    if not todo:
        raise Misused(f"option '--{option.long}' requires an argument")
    return option.long, todo.pop(0)
