"""``-T``: tracing is accepted as qemu-img accepts it. cowshed has no trace events, so a pattern enables nothing."""

from __future__ import annotations

import os

from ..output import Stop

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ..output import Output

_NAMES = {
    "enable": "pattern of the trace events to enable",
    "events": "file with such patterns, one a line",
    "file": "file that trace output is written to",
}


def enable(text: str, out: Output) -> None:
    """Obey one ``-T``: complain about what is wrong or unknown, as qemu-img does. Raises Stop."""
    from .groups import parse

    if not text:
        return
    values = parse(text, "trace", _NAMES, out, implied="enable")
    if values is None:
        raise Stop(1)
    pattern = values.get("enable")
    if pattern is not None:
        if pattern in ("help", "?"):
            raise Stop(0)  # lists the events, of which there are none
        _one(pattern, out, "")
    events = values.get("events")
    if events is not None:
        _file(events, out)
    log = values.get("file")
    if log is not None:
        try:
            os.close(os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o666))
        except OSError as error:
            out.error(f"Error opening logfile {log}: {error.strerror}")
            raise Stop(1) from None


def _one(pattern: str, out: Output, where: str) -> None:
    name = pattern.removeprefix("-")
    if "*" not in name:
        out.raw(f"{out.prog}:{where} warning: trace event '{name}' does not exist\n")


def _file(path: str, out: Output) -> None:
    try:
        with open(path, errors="surrogateescape") as file:
            lines = file.read().split("\n")
    except IsADirectoryError:
        return
    except OSError as error:
        out.raw(f"{out.prog}:{path}: {error.strerror}\n")
        raise Stop(1) from None
    for number, line in enumerate(lines, 1):
        if line and not line.startswith("#"):
            _one(line, out, f"{path}:{number}:")
