"""Tables and figures as virsh prints them."""

from __future__ import annotations

import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

_UNITS = ("B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB")


def size(count: int) -> str:
    """A number of bytes for people: ``10.00 MiB``."""
    step = 0
    while step < 6 and count >= 1 << 10 * (step + 1):
        step += 1
    return f"{count / (1 << 10 * step):.2f} {_UNITS[step]}"


def table(header: Sequence[str], rows: Iterable[Sequence[str]], *, quiet: bool = False) -> str:
    """Columns as wide as what stands in them; ``quiet`` leaves out the header, though it still counts for the width."""
    cells = [[_cell(cell) for cell in row] for row in (header, *rows)]
    widths = [max(width for _, width in column) for column in zip(*cells, strict=True)]
    lines = []
    for row in cells:
        parts = [f" {text}{' ' * (full - width + 2)}" for (text, width), full in zip(row, widths, strict=True)]
        parts[-1] = f" {row[-1][0]}"
        lines.append("".join(parts) + "\n")
    if quiet:
        return "".join(lines[1:])
    lines.insert(1, "-" * sum(width + 3 for width in widths) + "\n")
    return "".join(lines)


def _cell(text: str) -> tuple[str, int]:
    """What a terminal can show of it, and how many columns that takes."""
    if text.isascii() and text.isprintable() and "\\x" not in text:
        return text, len(text)
    from unicodedata import category, east_asian_width

    wide = unicode()
    shown: list[str] = []
    width = 0
    for at, char in enumerate(text):
        kind = category(char)
        hidden = char < " " or char == "\x7f" or text.startswith("\\x", at)
        if char > "\x7f" and (not wide or kind in ("Cc", "Cs", "Cn", "Zl", "Zp")):
            hidden = True
        if hidden:
            escaped = "".join(f"\\x{byte:02x}" for byte in char.encode("utf-8", "surrogateescape"))
            shown.append(escaped)
            width += len(escaped)
            continue
        shown.append(char)
        if kind in ("Mn", "Me") or (kind == "Cf" and char != "\xad"):
            continue
        width += 2 if east_asian_width(char) in ("W", "F") else 1
    return "".join(shown), width


def unicode() -> bool:
    """Does the locale have more than ASCII? Asked of the environment, for the interpreter has its own idea."""
    for name in ("LC_ALL", "LC_CTYPE", "LANG"):
        value = os.environ.get(name)
        if value:
            return "utf" in value.lower()
    return False
