"""Names: the short ones of eleven bytes, the long ones in entries before them, and how one is made of the other.

Long names are UTF-16 in pieces of 13 units, tied to their short entry by a checksum of it (Microsoft, "Long File
Name Specification"). Short names are in code page 437, which Linux takes too. Outside they are UTF-8; lone surrogates
are kept by encoding them as they are.
"""

from __future__ import annotations

import errno
import zlib

from ..base import GuestError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

#: lower-case bits of a short entry's reserved byte: the name, the extension
LOWER_BASE, LOWER_EXTENSION = 0x08, 0x10
#: characters that no name may have, and those that no short one may have
_FORBIDDEN = frozenset('*?<>|":/\\' + "".join(map(chr, range(32))))
_REPLACED = frozenset("+,;=[]")
#: units of a long name in one entry: three fields at these offsets
PIECES = ((1, 10), (14, 12), (28, 4))
UNITS = 13


def checksum(short: bytes) -> int:
    """What ties long entries to the short name that follows them."""
    total = 0
    for byte in short:
        total = ((total & 1) << 7 | total >> 1) + byte & 0xFF
    return total


def fold(name: str) -> str:
    """What two names have in common that differ in case alone; trailing dots count for nothing."""
    name = name.rstrip(".")
    if name.isascii():
        return name.upper()
    return "".join(one if len(one) == 1 else char for char in name for one in (char.upper(),))


def decode(name: bytes) -> str:
    """A caller's name as text. Raises GuestError EINVAL where it is not UTF-8."""
    try:
        return name.decode("utf-8", "surrogatepass")
    except UnicodeDecodeError:
        raise GuestError(errno.EINVAL) from None


def encode(name: str) -> bytes:
    return name.encode("utf-8", "surrogatepass")


def from_units(units: bytes) -> str:
    """Text of a long name's UTF-16 units up to the first 0."""
    for at in range(0, len(units), 2):
        if not units[at] and not units[at + 1]:
            units = units[:at]
            break
    return units.decode("utf-16-le", "surrogatepass")


def from_short(short: bytes, flags: int) -> str:
    """Text of a short name, lower case where the flags say so."""
    base, extension = short[:8], short[8:]
    if base[0] == 0x05:  # stands for the byte that marks deleted entries
        base = b"\xe5" + base[1:]
    first, second = (
        (part.decode("ascii") if part.isascii() else part.decode("cp437")).rstrip(" ") for part in (base, extension)
    )
    if flags & LOWER_BASE:
        first = _lower(first)
    if flags & LOWER_EXTENSION:
        second = _lower(second)
    text = f"{first}.{second}" if second else first
    # a slash or a null would be no name at all outside
    return text.replace("/", "_").replace("\0", "_") or "_"


def _lower(text: str) -> str:
    return "".join(one if len(one) == 1 else char for char in text for one in (char.lower(),))


def usable(name: str) -> bool:
    """May a long name found on a disk be given out?"""
    return bool(name) and "/" not in name and name not in (".", "..")


def check(name: str) -> str:
    """A new name without its trailing dots. Raises GuestError ENOENT, EINVAL, ENAMETOOLONG as Linux does."""
    name = name.rstrip(".")
    if not name:
        raise GuestError(errno.ENOENT)
    if len(name.encode("utf-16-le", "surrogatepass")) > 510:
        raise GuestError(errno.ENAMETOOLONG)
    if name[-1] == " " or not _FORBIDDEN.isdisjoint(name):
        raise GuestError(errno.EINVAL)
    return name


class _Part:
    """One half of a short name: ``text`` its bytes, ``exact`` whether nothing was left out or replaced, ``whole``
    whether it all fitted, ``lower``/``upper`` whether letters of one case alone stand in it."""

    __slots__ = ("exact", "lower", "text", "upper", "whole")

    def __init__(self, source: str, room: int) -> None:
        self.exact = self.whole = self.lower = self.upper = True
        text = bytearray()
        for char in source:
            if char in " .":
                self.exact = False
                continue
            if char in _REPLACED:
                self.exact = False
                piece = b"_"
            else:
                piece = self._piece(char)
            if len(text) + len(piece) > room:
                self.whole = False
                break
            text += piece
        self.text = bytes(text)

    def _piece(self, char: str) -> bytes:
        upper, lower = char.upper(), char.lower()
        if upper != lower:
            self.upper &= char == upper
            self.lower &= char == lower
        try:
            piece = (upper if len(upper) == 1 else char).encode("ascii" if upper.isascii() else "cp437")
        except UnicodeEncodeError:
            self.exact = False
            return b"_"
        # a letter that code page 437 has in one case alone does not come back as it was
        if char not in (upper, lower) or not (char.isascii() or _representable(lower)):
            self.exact = False
        return piece


def _representable(char: str) -> bool:
    try:
        char.encode("cp437")
    except UnicodeEncodeError:
        return False
    return True


def shorten(name: str, taken: Callable[[bytes], bool]) -> tuple[bytes, int, bool]:
    """(short name, its case flags, is a long name needed too) for a checked ``name``, as Linux' vfat and Windows NT.

    ``taken`` says whether a short name is in use in the directory. Raises GuestError EEXIST, EINVAL.
    """
    stem, dot, extension = name.rpartition(".")
    if not dot or not stem.strip(" ."):
        # only dots before it: then what follows them is the name and no extension
        stem, extension = name, ""
    first, second = _Part(stem, 8), _Part(extension, 3)
    exact = first.exact and second.exact and first.whole and second.whole
    if not first.text:
        raise GuestError(errno.EINVAL)
    if exact:
        short = _join(first.text, second.text)
        if taken(short):
            raise GuestError(errno.EEXIST)
        if (first.upper or first.lower) and (second.upper or second.lower):
            flags = LOWER_BASE * (not first.upper) | LOWER_EXTENSION * (not second.upper)
            return short, flags, False
        return short, 0, True
    base = first.text
    for number in range(1, 10):
        short = _join(base[:6] + b"~%d" % number, second.text)
        if not taken(short):
            return short, 0, True
    # Windows and Linux go on with four hexadecimal digits; of the name, so that the same tree gives the same names
    digest = zlib.crc32(encode(name))
    for step in range(1 << 16):
        digits = (digest - 11 * step) & 0xFFFF
        short = _join(base[:2] + b"%04X~%d" % (digits, 1 + (digest >> 16) % 8), second.text)
        if not taken(short):
            return short, 0, True
    raise GuestError(errno.EEXIST)


def _join(base: bytes, extension: bytes) -> bytes:
    short = base.ljust(8) + extension.ljust(3)
    return b"\x05" + short[1:] if short[0] == 0xE5 else short


def long_entries(name: str, short: bytes) -> bytes:
    """The entries of a long name as they stand before their short entry: the last piece first."""
    units = name.encode("utf-16-le", "surrogatepass")
    count = -(-len(units) // (2 * UNITS))
    if len(units) % (2 * UNITS):
        units = (units + b"\0\0").ljust(count * 2 * UNITS, b"\xff")
    total = checksum(short)
    out = bytearray()
    for number in range(count, 0, -1):
        piece = units[(number - 1) * 2 * UNITS : number * 2 * UNITS]
        entry = bytearray(32)
        entry[0] = number | 0x40 * (number == count)
        entry[11] = 0x0F
        entry[13] = total
        at = 0
        for offset, length in PIECES:
            entry[offset : offset + length] = piece[at : at + length]
            at += length
        out += entry
    return bytes(out)
