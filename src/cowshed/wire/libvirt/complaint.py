"""libxml2's words about a document that is not well-formed. Loaded only when there is one."""

from __future__ import annotations

from lxml import etree

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

#: bytes of the document's line that a complaint shows
_LONGEST_LINE = 2048


def complaint(data: bytes, label: str, encoding: str | None) -> str | None:
    """``LABEL:LINE: TEXT``, the line of the document, and a caret under the place; None if libxml2 has no complaint."""
    parser = etree.XMLParser(
        encoding=encoding, resolve_entities=False, load_dtd=False, no_network=True, huge_tree=False, recover=False
    )
    try:
        etree.fromstring(data, parser)
    except etree.XMLSyntaxError as error:
        # (the type stubs of lxml know nothing of its log)
        log: Any = parser.error_log
        first = next((entry for entry in log if entry.level == etree.ErrorLevels.FATAL), None)
        if first is None:
            return f"{label}: {error.msg}"
        here = _offset(data, first.line, first.column)
        line, caret = _context(data, here)
        return f"{label}:{first.line}: {_words(first.message, data, here)}\n{line}\n{caret}"
    except (ValueError, LookupError) as error:
        return f"{label}: {error}"
    return None


def _words(message: str, data: bytes, here: int) -> str:
    """The message as libxml2 2.9 has it, the library that virsh 9.0 is built with."""
    if message.startswith("Excessive depth"):
        return message.replace(", use", " use")
    if message.startswith("PCDATA invalid Char value 6553"):
        return f"Char 0x{int(message.split()[-1]):X} out of allowed range"
    if not message.startswith("Invalid bytes in character encoding"):
        return message.rstrip()
    four = data[here : here + 4].ljust(4, b"\0")
    for length, lead, mask in ((3, 0xE0, 0x0F), (4, 0xF0, 0x07)):
        tail = four[1:length]
        if four[0] & ~mask & 0xFF == lead and all(byte & 0xC0 == 0x80 for byte in tail):
            code = four[0] & mask
            for byte in tail:
                code = code << 6 | byte & 0x3F
            return f"Char 0x{code:X} out of allowed range"
    return "Input is not proper UTF-8, indicate encoding !\nBytes: " + " ".join(f"0x{byte:02X}" for byte in four)


def _offset(data: bytes, line: int, column: int) -> int:
    """The byte at ``column`` (in characters, from 1) of ``line`` (from 1)."""
    here = 3 if data.startswith(b"\xef\xbb\xbf") and line == 1 else 0
    for _ in range(line - 1):
        here = data.find(b"\n", here) + 1
        if not here:
            return len(data)
    for _ in range(column - 1):
        here += 1
        while data[here : here + 1] and data[here] & 0xC0 == 0x80:
            here += 1
    return min(here, len(data))


def _context(data: bytes, here: int) -> tuple[str, str]:
    """The line that the parser stood in, and the caret under its place."""
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
    if end - begin > _LONGEST_LINE:  # libvirt repeats it whole, however many megabytes that is
        begin, end = max(begin, here - _LONGEST_LINE // 2), min(end, here + _LONGEST_LINE // 2)
    shown = data[begin:end]
    pointer = bytes(9 if byte == 9 else 45 for byte in shown[: here - begin]).ljust(here - begin, b"-") + b"^"
    # the C library's print of no text at all
    return shown.decode("utf-8", "surrogateescape") or "(null)", pointer.decode()
