"""Option groups that the command line itself takes: ``-l snapshot.id=…,snapshot.name=…`` and ``-T enable=…``."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from ..output import Output

_LETTERS = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
_IDENTIFIER = _LETTERS + "0123456789-._"
_ID_HINT = "Identifiers consist of letters, digits, '-', '.', '_', starting with a letter.\n"


def parse(
    text: str, group: str, names: Mapping[str, str], out: Output, implied: str = ""
) -> dict[str, str] | None:
    """The options of one group by name (a name given twice has its last value).

    ``names``: the known names with what they mean, ``implied``: the name of a first value that has none. None when the
    text is wrong, which has been told on stderr, or asks for help, which has been printed.
    """
    given = list(_items(text, implied))
    for name, value, _ in given:
        if name == "id":
            if not (value and value[0] in _LETTERS and not value.strip(_IDENTIFIER)):
                out.error("Parameter 'id' expects an identifier", _ID_HINT)
                return None
            break
    values: dict[str, str] = {}
    for name, value, short in given:
        if short in ("help", "?"):
            out.write(f"{group} options:\n")
            for known in sorted(names):
                out.write(f"{f'  {known}=<str>':<24} - {names[known]}\n")
            return None
        if short:
            out.warning(f"short-form boolean option '{short}' deprecated", f"Please use {name}={value} instead\n")
        if name == "id":
            continue
        if name not in names:
            out.error(f"Invalid parameter '{name}'")
            return None
        values[name] = value
    return values


def _items(text: str, implied: str) -> Iterator[tuple[str, str, str]]:
    """(name, value, the text of an option that has no value) of each item of a comma-separated list."""
    at = 0
    while at < len(text):
        name_end = min(index for index in (text.find("=", at), text.find(",", at), len(text)) if index >= 0)
        short = ""
        if text[name_end : name_end + 1] == "=":
            name = text[at:name_end]
            value, at = _value(text, name_end + 1)
        elif implied and at == 0:
            name = implied
            value, at = _value(text, at)
        else:
            name = short = text[at:name_end]
            value = "on"
            if name.startswith("no"):
                name, value = name[2:], "off"
            at = name_end
            short = short or "\0"
        yield name, value, short
        at += 1


def _value(text: str, at: int) -> tuple[str, int]:
    """A value in which ``,,`` stands for a comma, and the index of the comma or end behind it."""
    value = ""
    while True:
        comma = text.find(",", at)
        if comma < 0:
            return value + text[at:], len(text)
        if text[comma + 1 : comma + 2] != ",":
            return value + text[at:comma], comma
        value += text[at : comma + 1]
        at = comma + 2
