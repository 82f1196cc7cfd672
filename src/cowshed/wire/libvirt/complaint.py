"""libxml2's words about a document that is not well-formed. Loaded only when there is one."""

from __future__ import annotations

from lxml import etree

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


def complaint(data: bytes, label: str, encoding: str | None) -> str | None:
    """``LABEL:LINE: TEXT``, the line of the document, and a caret under the place; None if libxml2 has no complaint."""
    parser = etree.XMLParser(
        encoding=encoding, resolve_entities=False, load_dtd=False, no_network=True, huge_tree=False, recover=False
    )
    try:
        etree.fromstring(data, parser)
    except etree.XMLSyntaxError as error:
        # (the type stubs of lxml know nothing of its log)
        log: Any = error.error_log
        first = next((entry for entry in log if entry.level == etree.ErrorLevels.FATAL), None)
        if first is None:
            return f"{label}: {error.msg}"
        line, caret = _context(data, first.line, first.column)
        return f"{label}:{first.line}: {first.message.rstrip()}\n{line}\n{caret}"
    except (ValueError, LookupError) as error:
        return f"{label}: {error}"
    return None


def _context(data: bytes, line: int, column: int) -> tuple[str, str]:
    """The line that the parser stood in, and the caret under its place."""
    start = 0
    for _ in range(line - 1):
        start = data.find(b"\n", start) + 1
        if not start:
            start = len(data)
            break
    here = min(start + max(column - 1, 0), len(data))
    # at the end of a line, what matters stands before it
    stop = here
    while stop > 0 and data[stop : stop + 1] in (b"\n", b"\r"):
        stop -= 1
    begin = stop
    while begin > 0 and data[begin : begin + 1] not in (b"\n", b"\r"):
        begin -= 1
    if data[begin : begin + 1] in (b"\n", b"\r"):
        begin += 1
    end = begin
    while end < len(data) and data[end : end + 1] not in (b"\n", b"\r"):
        end += 1
    shown = data[begin:end]
    pointer = bytes(9 if byte == 9 else 32 for byte in shown[: here - begin]).ljust(here - begin) + b"^"
    # the C library's print of no text at all
    return shown.decode("utf-8", "surrogateescape") or "(null)", pointer.decode()
