"""``cowshed inspect FILE``: what a file is and what it names, opening nothing but the file given."""

from __future__ import annotations

import os

from ..block.trust import printable
from ..errors import CowshedError
from ..ops.inspect import inspect
from ..wire.human import size, size_and_bytes

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ..ops.inspect import Inspection
    from .output import Output

_USAGE = "usage: cowshed inspect [--output=human|json] FILE..."
_HELP = f"""{_USAGE}

Says which signatures a file has, what its header says, which other files it names, and what is dubious about it.
Nothing but the file is opened: neither backing file nor data file, no device, no network address.
The exit status is 1 when a file cannot be read.
"""


def run(argv: list[str], out: Output) -> int:
    """``argv``: what follows ``inspect``. Returns the exit status."""
    form = "human"
    names: list[str] = []
    rest = list(argv)
    while rest:
        word = rest.pop(0)
        if word == "--":
            names += rest
            break
        if word in ("-h", "--help"):
            out.write(_HELP)
            return 0
        if word == "--output" and rest:
            form = rest.pop(0)
        elif word.startswith("--output="):
            form = word.partition("=")[2]
        elif word.startswith("-") and word != "-":
            out.error(f"there is no option '{word}'", _USAGE + "\n")
            return 1
        else:
            names.append(word)
    if form not in ("human", "json") or not names:
        out.error("--output is human or json" if names else "which file?", _USAGE + "\n")
        return 1
    code = 0
    found = []
    for name in names:
        try:
            found.append(inspect(name))
        except CowshedError as error:
            out.report(error)
            code = 1
    if form == "json":
        import json

        facts = [item.to_dict() for item in found]
        text = json.dumps(facts[0] if len(names) == 1 and facts else facts, indent=4)
        out.write(text + "\n")
    else:
        out.write("\n".join(_text(item, out.tty and "NO_COLOR" not in os.environ) for item in found))
    return code


def _text(item: Inspection, colour: bool) -> str:
    taken = "" if item.allocated is None else f", {size(item.allocated)} on disk"
    rows = [
        ("file", f"{printable(item.filename)}"),
        ("size", f"{size_and_bytes(item.size)}{taken}"),
        ("format", item.format),
        ("signatures", ", ".join(item.signatures) or "none"),
    ]
    info = item.info
    if info is not None:
        rows.append(("virtual size", size_and_bytes(info.virtual_size)))
        if info.cluster_size:
            rows.append(("cluster size", size(info.cluster_size)))
        data = info.format_specific["data"] if info.format_specific is not None else {}
        plain = [(name, value) for name, value in data.items() if isinstance(value, (str, int)) and name != "data-file"]
        rows += [(name.replace("-", " "), _value(value)) for name, value in plain]
        if info.encrypted:
            rows.append(("encrypted", "yes"))
        if info.snapshots:
            rows.append(("snapshots", ", ".join(printable(found.name, 40) for found in info.snapshots[:20])))
        names = [str(found["name"]) for found in data.get("bitmaps") or ()]
        if names:
            rows.append(("bitmaps", ", ".join(printable(name, 40) for name in names[:20])))
    for reference in item.references:
        form = f" ({reference.format})" if reference.format else ""
        rows.append((reference.role, f"{printable(reference.name)}{form}"))
    if not item.references:
        rows.append(("names", "no other file"))
    wide = max(len(name) for name, _ in rows)
    lines = [f"{name + ':':<{wide + 1}} {text}" for name, text in rows]
    bold, plain_text = ("\x1b[1;33m", "\x1b[0m") if colour else ("", "")
    lines += [f"{bold}warning:{plain_text} {printable(text, 400)}" for text in item.warnings]
    return "\n".join(lines) + "\n"


def _value(value: str | int) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return printable(value) if isinstance(value, str) else str(value)
