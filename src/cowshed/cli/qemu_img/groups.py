"""Option groups that the command line itself takes: ``-l snapshot.id=…,snapshot.name=…`` and ``-T enable=…``."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

    from ..output import Output

_LETTERS = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
_IDENTIFIER = _LETTERS + "0123456789-._"
_ID_HINT = "Identifiers consist of letters, digits, '-', '.', '_', starting with a letter.\n"


def parse(
    text: str, group: str, names: Mapping[str, str], out: Output, implied: str | None = None
) -> dict[str, str] | None:
    """The options of one group by name (a name given twice has its last value).

    ``names``: the known names with what they mean, ``implied``: the name of a first value that has none. None when the
    text is wrong, which has been told on stderr, or asks for help, which has been printed.
    """
    from ...block.options import items

    given = list(items(text, implied))
    for name, value, _ in given:
        if name == "id":
            if not (value and value[0] in _LETTERS and not value.strip(_IDENTIFIER)):
                out.error("Parameter 'id' expects an identifier", _ID_HINT)
                return None
            break
    values: dict[str, str] = {}
    for name, value, alone in given:
        if alone in ("help", "?"):
            out.write(f"{group} options:\n")
            for known in sorted(names):
                out.write(f"{f'  {known}=<str>':<24} - {names[known]}\n")
            return None
        if alone is not None:
            out.warning(f"short-form boolean option '{alone}' deprecated", f"Please use {name}={value} instead\n")
        if name == "id":
            continue
        if name not in names:
            out.error(f"Invalid parameter '{name}'")
            return None
        values[name] = value
    return values
