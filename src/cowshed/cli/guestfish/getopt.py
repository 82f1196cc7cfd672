"""Options as GNU getopt_long takes them: short ones together, long ones abbreviated, values beside or behind."""

from __future__ import annotations


class Misused(Exception):
    """An option that doesn't exist, or lacks its value; the text says which."""


class Option:
    """``value``: True when it must have one, None when it may (long form ``--name=value``), False without."""

    __slots__ = ("long", "short", "value")

    def __init__(self, long: str, short: str = "", value: bool | None = False) -> None:
        self.long = long
        self.short = short
        self.value = value


def take(
    options: tuple[Option, ...], words: list[str], *, mixed: bool = False
) -> tuple[list[tuple[str, str | None]], list[str]]:
    """([(long name, value)…] in their order, the words that are left). With ``mixed`` options may stand behind words.

    Raises Misused.
    """
    given: list[tuple[str, str | None]] = []
    rest: list[str] = []
    todo = list(words)
    while todo:
        word = todo.pop(0)
        if word == "--":
            rest += todo
            break
        if not word.startswith("-") or word == "-":
            rest.append(word)
            if not mixed:
                rest += todo
                break
            continue
        if word.startswith("--"):
            name, equals, value = word[2:].partition("=")
            found = [one for one in options if one.long == name] or [
                one for one in options if one.long.startswith(name)
            ]
            if len(found) != 1:
                if found:
                    shown = " ".join(f"'--{one.long}'" for one in found)
                    raise Misused(f"option '{word}' is ambiguous; possibilities: {shown}")
                raise Misused(f"unrecognized option '{word}'")
            option = found[0]
            if option.value is False:
                if equals:
                    raise Misused(f"option '--{option.long}' doesn't allow an argument")
                given.append((option.long, None))
            elif equals:
                given.append((option.long, value))
            elif option.value is None:
                given.append((option.long, None))
            else:
                if not todo:
                    raise Misused(f"option '--{option.long}' requires an argument")
                given.append((option.long, todo.pop(0)))
            continue
        letters = word[1:]
        while letters:
            letter, letters = letters[0], letters[1:]
            short = next((one for one in options if one.short == letter), None)
            if short is None:
                raise Misused(f"invalid option -- '{letter}'")
            if short.value is True:
                if not letters and not todo:
                    raise Misused(f"option requires an argument -- '{letter}'")
                given.append((short.long, letters or todo.pop(0)))
                letters = ""
            else:
                given.append((short.long, None))
    return given, rest
