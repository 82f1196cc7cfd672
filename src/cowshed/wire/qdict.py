"""qemu's JSON text: members in the order of its dictionaries, its indentation and its string escapes.

A qemu dictionary is a hash table of 512 buckets which is printed bucket by bucket, so the order of members is a
property of their names. Objects are plain Python values: dict (in the order of insertion), list, tuple, str, int, bool,
float and None. Text that is not UTF-8 stands in str as surrogates (PEP 383), as everywhere in cowshed.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_BUCKETS = 512
_WORD = 0xFFFFFFFF

_ESCAPES = {
    ord('"'): '\\"',
    ord("\\"): "\\\\",
    8: "\\b",
    9: "\\t",
    10: "\\n",
    12: "\\f",
    13: "\\r",
    127: "\\u007F",
}
for _code in range(32):
    _ESCAPES.setdefault(_code, f"\\u{_code:04X}")

# The smallest code point that needs a UTF-8 sequence of (index + 2) bytes; less is an overlong form.
_SMALLEST = (0x80, 0x800, 0x10000, 0x200000, 0x4000000)
_REPLACEMENT = 0xFFFD


def bucket(key: str) -> int:
    """The bucket of a name: members print in ascending order of it."""
    name = key.encode("utf-8", "surrogateescape")
    value = 0x238F13AF * len(name)
    for at, byte in enumerate(name):
        value += byte << (at * 5 % 24)
    return ((1103515243 * value + 12345) & _WORD) % _BUCKETS


def ordered(members: dict[str, Any]) -> list[tuple[str, Any]]:
    """The members of a dictionary in the order in which qemu prints them (in one bucket the newest comes first)."""
    if len(members) < 2:
        return list(members.items())
    items = list(members.items())
    items.reverse()
    items.sort(key=_key)
    return items


def _key(item: tuple[str, Any]) -> int:
    return bucket(item[0])


def _scalars(name: bytes) -> list[int]:
    """Code points of modified UTF-8: each broken sequence, and each point that is no character, is U+FFFD."""
    points = []
    at = 0
    while at < len(name):
        lead = name[at]
        at += 1
        if lead < 0x80:
            points.append(lead)
            continue
        if lead < 0xC0 or lead >= 0xFE:
            points.append(_REPLACEMENT)
            continue
        more = 1
        while lead & (0x40 >> more):
            more += 1
        point = lead & ((0x40 >> more) - 1)
        got = 0
        while got < more and at < len(name) and name[at] & 0xC0 == 0x80:
            point = point << 6 | name[at] & 0x3F
            at += 1
            got += 1
        whole = got == more and (point >= _SMALLEST[more - 1] or (point == 0 and more == 1))
        valid = point <= 0x10FFFF and not 0xD800 <= point <= 0xDFFF
        character = not 0xFDD0 <= point <= 0xFDEF and point & 0xFFFE != 0xFFFE
        points.append(point if whole and valid and character else _REPLACEMENT)
    return points


def quoted(text: str) -> str:
    """A JSON string literal in ASCII."""
    if text.isascii():
        return f'"{text.translate(_ESCAPES)}"'
    parts = ['"']
    for point in _scalars(text.encode("utf-8", "surrogateescape")):
        if point < 0x80:
            parts.append(_ESCAPES.get(point) or chr(point))
        elif point <= 0xFFFF:
            parts.append(f"\\u{point:04X}")
        else:
            point -= 0x10000
            parts.append(f"\\u{0xD800 + (point >> 10):04X}\\u{0xDC00 + (point & 0x3FF):04X}")
    parts.append('"')
    return "".join(parts)


def _scalar(value: Any) -> str:
    if isinstance(value, str):
        return quoted(value)
    if value is True:
        return "true"
    if value is False:
        return "false"
    if value is None:
        return "null"
    if isinstance(value, int):
        return str(int(value))
    if isinstance(value, float):
        return f"{value:.17g}"
    raise TypeError(f"no JSON for {type(value).__name__}")


def _pretty(value: Any, margin: str, parts: list[str]) -> None:
    inner = margin + "    "
    if isinstance(value, dict):
        lead = "{\n" + inner
        for name, member in ordered(value):
            parts.append(f"{lead}{quoted(name)}: ")
            _pretty(member, inner, parts)
            lead = ",\n" + inner
        parts.append(f"\n{margin}}}" if value else f"{{\n{margin}}}")
    elif isinstance(value, (list, tuple)):
        lead = "[\n" + inner
        for member in value:
            parts.append(lead)
            _pretty(member, inner, parts)
            lead = ",\n" + inner
        parts.append(f"\n{margin}]" if value else f"[\n{margin}]")
    else:
        parts.append(_scalar(value))


def pretty(value: Any) -> str:
    """JSON over several lines, indented by four spaces, as ``--output=json`` prints it (without a final newline)."""
    parts: list[str] = []
    _pretty(value, "", parts)
    return "".join(parts)


def compact(value: Any) -> str:
    """JSON on one line, as in ``json:{…}`` file names."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{quoted(name)}: {compact(member)}" for name, member in ordered(value)) + "}"
    if isinstance(value, (list, tuple)):
        return "[" + ", ".join(map(compact, value)) + "]"
    return _scalar(value)
