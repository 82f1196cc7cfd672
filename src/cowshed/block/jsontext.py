"""JSON as QEMU reads it in ``json:`` names: strings in single quotes too, duplicate keys refused, its own messages.

Numbers beyond 64 bits become floats. The grammar otherwise is RFC 8259. A text is read as one value.
"""

from __future__ import annotations

from ..errors import OptionError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_SPACE = " \t\r\n"
_LOWER = "abcdefghijklmnopqrstuvwxyz"
_DIGITS = "0123456789"
_HEX = "0123456789abcdefABCDEF"
_ESCAPES = {
    '"': '"', "'": "'", "\\": "\\", "/": "/", "b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t",
}  # fmt: skip
#: deeper nesting is refused; the deepest description of an image needs a few levels for each layer
_MAX_DEPTH = 1024
#: how a NUL stands in a string: in two bytes that are no UTF-8, which keeps it apart from the end of a C string
_NUL = "\udcc0\udc80"

# a token is (kind, text): one of the six punctuation marks, "word", "number" or "string" (with its quotes)
_Token = tuple[str, str]


def parse_json(text: str) -> Any:
    """The value of a JSON text. Raises OptionError whose message says what is wrong with it."""
    tokens, at = _first_value(text)
    if not tokens:
        raise OptionError("Expecting a JSON value")
    value = _value(tokens)
    while at < len(text):
        if text[at] not in _SPACE:
            raise OptionError("Expecting at most one JSON value")
        at += 1
    return value


def _bad(text: str) -> OptionError:
    return OptionError(f"JSON parse error, {text}")


def _first_value(text: str) -> tuple[list[_Token], int]:
    """The tokens up to where brackets are balanced or the text ends, and the index behind them."""
    tokens: list[_Token] = []
    at, braces, brackets = 0, 0, 0
    while True:
        while at < len(text) and text[at] in _SPACE:
            at += 1
        if at == len(text):
            return tokens, at
        token, at = _token(text, at)
        tokens.append(token)
        braces += (token[0] == "{") - (token[0] == "}")
        brackets += (token[0] == "[") - (token[0] == "]")
        if braces + brackets > _MAX_DEPTH:
            raise OptionError("JSON nesting depth limit exceeded")
        if (braces <= 0 and brackets <= 0) or braces < 0 or brackets < 0:
            return tokens, at


def _token(text: str, at: int) -> tuple[_Token, int]:
    char = text[at]
    if char in "{}[]:,":
        return (char, char), at + 1
    start = at
    if char in "\"'":
        at += 1
        while at < len(text):
            if text[at] == char:
                return ("string", text[start : at + 1]), at + 1
            if text[at] < " " or text[at] in "\udcfe\udcff":
                break
            at += 2 if text[at] == "\\" else 1
        raise _stray(text, start, at)
    if char in _LOWER:
        while at < len(text) and text[at] in _LOWER:
            at += 1
        return ("word", text[start:at]), at
    if char == "-" or char in _DIGITS:
        return _number(text, start)
    raise _stray(text, start, at)


def _number(text: str, start: int) -> tuple[_Token, int]:
    at = start + (text[start] == "-")
    zero = text[at : at + 1] == "0"
    at = _digits(text, start, at)
    if zero and (at - start > 1 + (text[start] == "-")):
        raise _stray(text, start, start + 1 + (text[start] == "-"))
    if text[at : at + 1] == ".":
        at = _digits(text, start, at + 1)
    elif zero:
        return ("number", text[start:at]), at
    if text[at : at + 1] in ("e", "E"):
        at += 1
        if text[at : at + 1] in ("+", "-"):
            at += 1
        at = _digits(text, start, at)
    return ("number", text[start:at]), at


def _digits(text: str, start: int, at: int) -> int:
    """The index after one digit or more."""
    first = at
    while at < len(text) and text[at] in _DIGITS:
        at += 1
    if at == first:
        raise _stray(text, start, at)
    return at


def _stray(text: str, start: int, at: int) -> OptionError:
    """What was read of a token so far, up to and with the byte that can't be."""
    byte = text[at : at + 1].encode("utf-8", "surrogateescape")[:1].decode("utf-8", "surrogateescape")
    return _bad(f"stray '{text[start:at]}{byte}'")


def _value(tokens: list[_Token]) -> Any:
    """The value that the tokens spell; what encloses it waits on a stack, as nesting may go deep."""
    source = iter(tokens)
    end: _Token = ("", "")
    outer: list[tuple[dict[str, Any] | list[Any], str | None]] = []  # containers, and the key whose value is awaited
    pending = next(source, end)
    while True:
        kind, text = pending
        value: Any
        if kind in ("{", "["):
            pending = next(source, end)
            value = {} if kind == "{" else []
            if pending[0] != ("}" if kind == "{" else "]"):
                outer.append((value, None))
                continue
        else:
            value = _scalar(kind, text)
        # the value is whole: what it belongs to may be so too
        while True:
            if not outer:
                return value
            container, key = outer[-1]
            mark = next(source, end)[0]
            if isinstance(container, list):
                container.append(value)
                what = "list"
            elif key is None:
                if not isinstance(value, str):
                    raise _bad("key is not a string in object")
                if not mark:
                    raise _bad("premature EOI")
                if mark != ":":
                    raise _bad("missing : in object pair")
                outer[-1] = container, value
                break
            else:
                if key in container:
                    raise _bad("duplicate key")
                container[key] = value
                outer[-1] = container, None
                what = "dict"
            if mark == ",":
                break
            if not mark:
                raise _bad("premature EOI")
            if mark != ("}" if what == "dict" else "]"):
                raise _bad(f"expected separator in {what}")
            value = outer.pop()[0]
        pending = next(source, end)


def _scalar(kind: str, text: str) -> Any:
    """The value of a token that opens nothing."""
    if not kind:
        raise _bad("premature EOI")
    if kind == "string":
        return _string(text)
    if kind == "number":
        return _number_value(text)
    if kind != "word":
        raise _bad("expecting value")
    if text not in ("true", "false", "null"):
        raise _bad(f"invalid keyword '{text}'")
    return {"true": True, "false": False, "null": None}[text]


def _number_value(text: str) -> int | float:
    if any(char in ".eE" for char in text):
        return float(text)
    # the digits are bounded before they are converted: a long run of them would take quadratic time
    if len(text) > 20 or not -(1 << 63) <= int(text) < 1 << 64:
        return float(text[:400])
    return int(text)


def _string(token: str) -> str:
    parts: list[str] = []
    at, end = 1, len(token) - 1
    while at < end:
        char = token[at]
        if token.startswith(_NUL, at):
            parts.append(_NUL)
            at += 2
            continue
        if "\ud800" <= char <= "\udfff" or _no_character(ord(char)):
            # surrogates stand for bytes that are not UTF-8 (PEP 383)
            raise _bad("invalid UTF-8 sequence in string")
        if char != "\\":
            parts.append(char)
            at += 1
            continue
        code = token[at + 1]
        if code == "u":
            point = _four(token, at)
            width = 6
            if 0xD800 <= point <= 0xDBFF and token[at + 6 : at + 8] == "\\u":
                low = _four(token, at + 6)
                if 0xDC00 <= low <= 0xDFFF:
                    point = 0x10000 + ((point - 0xD800) << 10) + low - 0xDC00
                    width = 12
            if 0xD800 <= point <= 0xDFFF or _no_character(point):
                raise _bad(f"{token[at : at + width]} is not a valid Unicode character")
            parts.append(chr(point) if point else _NUL)
            at += width
        elif code in _ESCAPES:
            parts.append(_ESCAPES[code])
            at += 2
        else:
            raise _bad("invalid escape sequence in string")
    return "".join(parts)


def _no_character(point: int) -> bool:
    """Code points that Unicode sets apart for no character ever."""
    return point & 0xFFFE == 0xFFFE or 0xFDD0 <= point <= 0xFDEF


def _four(token: str, at: int) -> int:
    digits = token[at + 2 : at + 6]
    if len(digits) < 4 or any(digit not in _HEX for digit in digits):
        raise _bad(f"{token[at : at + 6]} is not a valid Unicode character")
    return int(digits, 16)
