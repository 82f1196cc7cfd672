"""Sizes and numbers as the tools read them: ``10G``, ``1.5k``, ``0x200``.

The grammar of a size is a decimal integer, optionally with a decimal fraction, and one suffix letter of
``b k m g t p e`` in either case (powers of 1024), or a hexadecimal integer. White space and a plus sign may lead;
nothing may follow. A size is below 2**64.
"""

from __future__ import annotations

from .errors import UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Literal

    Reason = Literal["invalid", "range"]

_SUFFIXES = "bkmgtpe"
_SPACE = " \t\n\v\f\r"
_DIGITS = "0123456789"
_HEX = "0123456789abcdefABCDEF"
_OCTAL = "01234567"
_LIMIT = 1 << 64


class UnitsError(UsageError):
    """A text is no size or number. ``reason``: "invalid" (malformed) or "range" (does not fit); ``value``: the text."""

    def __init__(self, reason: Reason, text: str) -> None:
        what = "is not a size" if reason == "invalid" else "is out of range"
        super().__init__(f"'{text}' {what}", value=text)
        self.reason: Reason = reason


def _run(text: str, start: int, alphabet: str) -> int:
    """The index after the characters of ``alphabet`` that begin at ``start``."""
    end = start
    while end < len(text) and text[end] in alphabet:
        end += 1
    return end


def _lead(text: str) -> tuple[int, bool]:
    """Skip white space and a sign: (index of what follows, whether the sign was a minus)."""
    at = _run(text, 0, _SPACE)
    if at < len(text) and text[at] in "+-":
        return at + 1, text[at] == "-"
    return at, False


def _exponent(text: str, at: int) -> bool:
    """Whether a decimal exponent stands at ``at``."""
    if text[at : at + 1] not in ("e", "E"):
        return False
    if text[at + 1 : at + 2] in ("+", "-"):
        at += 1
    return _run(text, at + 1, _DIGITS) > at + 1


def parse_size(text: str, warn: Callable[[str], None] | None = None) -> int:
    """A size in bytes, 0 <= size < 2**64. ``warn`` is called with a text where a deprecated spelling is used.

    Raises UnitsError.
    """
    first, negative = _lead(text)
    at = _run(text, first, _DIGITS)
    if at == first:
        raise UnitsError("invalid", text)
    whole = int(text[first:at].lstrip("0")[:21] or "0")  # 21 digits are beyond 2**64 already
    fraction = 0  # in units of 2**-64
    hexadecimal = False
    if whole >= _LIMIT:
        # What follows an overflow is not looked at, except that something follows.
        raise UnitsError("range" if at == len(text) else "invalid", text)
    if negative:
        raise UnitsError("invalid", text)
    if at == first + 1 and text[first] == "0" and text[at : at + 1] in ("x", "X"):
        hexadecimal = True
        first = at + 1
        at = _run(text, first, _HEX)
        if at == first:
            raise UnitsError("invalid", text)
        whole = int(text[first:at].lstrip("0")[:17] or "0", 16)
        if whole >= _LIMIT:
            raise UnitsError("range" if at == len(text) else "invalid", text)
    elif text[at : at + 1] == ".":
        first = at
        at = _run(text, first + 1, _DIGITS)
        if at > first + 1:
            if _exponent(text, at):
                raise UnitsError("invalid", text)  # 1.5e3 is refused rather than taken for exabytes
            # A fraction that rounds to 1 (1.99999999999999999999k) wraps to 0, as it does in qemu.
            fraction = int(float("0" + text[first:at]) * float(_LIMIT)) % _LIMIT
    power = _SUFFIXES.find(text[at].lower()) if at < len(text) and text[at].isascii() else -1
    if power >= 0:
        if hexadecimal and warn is not None:
            warn(f"Using a multiplier suffix on hex numbers is deprecated: {text}")
        at += 1
    if at != len(text):
        raise UnitsError("invalid", text)
    if power <= 0:
        if fraction:
            raise UnitsError("invalid", text)  # a fraction of a byte
        return whole
    size = (((whole << 64 | fraction) << (10 * power)) + (1 << 63)) >> 64
    if size >= _LIMIT:
        raise UnitsError("range", text)
    return size


def parse_integer(text: str) -> int:
    """A whole number as C reads it with base 0: decimal, 0x hexadecimal or 0 octal, signed, any magnitude.

    Raises UnitsError("invalid").
    """
    at, negative = _lead(text)
    base, alphabet = 10, _DIGITS
    if text[at : at + 1] == "0":
        if text[at + 1 : at + 2] in ("x", "X") and text[at + 2 : at + 3] in tuple(_HEX):
            base, alphabet = 16, _HEX
            at += 2
        else:
            base, alphabet = 8, _OCTAL
    end = _run(text, at, alphabet)
    if end == at or end != len(text):
        raise UnitsError("invalid", text)
    number = int(text[at:end].lstrip("0")[:80] or "0", base)  # 80 digits are beyond every range asked for
    return -number if negative else number


def parse_unsigned(text: str) -> int:
    """As parse_integer, but read as C reads an unsigned long: below 2**64, and a minus sign wraps around.

    Raises UnitsError.
    """
    number = parse_integer(text)
    if not -_LIMIT < number < _LIMIT:
        raise UnitsError("range", text)
    return number % _LIMIT
