"""Names and strings of the registry: Latin-1 or UTF-16 as they are stored, and the hashes that lists of keys have."""

from __future__ import annotations


def stored(name: str) -> tuple[bytes, bool]:
    """(bytes, are they Latin-1?) of a name; what Latin-1 lacks is stored as UTF-16."""
    try:
        return name.encode("latin-1"), True
    except UnicodeEncodeError:
        return name.encode("utf-16-le", "surrogatepass"), False


def shown(raw: bytes, latin: bool) -> str:
    """A stored name; a lone half of a surrogate pair is shown as a mark of what is missing."""
    return raw.decode("latin-1") if latin else raw.decode("utf-16-le", "replace")


def folded(name: str) -> str:
    """Names are the same when this is the same: capitals as Windows has them, letter by letter."""
    return "".join(upper if len(upper := letter.upper()) == 1 else letter for letter in name)


def units(name: str) -> list[int]:
    raw = name.encode("utf-16-le", "surrogatepass")
    return [raw[at] | raw[at + 1] << 8 for at in range(0, len(raw), 2)]


def order(name: str) -> list[int]:
    """What keys are sorted by in their lists."""
    return units(folded(name))


def hashed(name: str) -> bytes:
    """The hash of a name in a list of the kind lh."""
    value = 0
    for unit in order(name):
        value = value * 37 + unit & 0xFFFFFFFF
    return value.to_bytes(4, "little")


def hint(name: str) -> bytes:
    """The first four letters of a name in a list of the kind lf, zeros where they are no bytes."""
    first = name[:4]
    return first.encode("latin-1").ljust(4, b"\0") if all(ord(one) < 256 for one in first) else bytes(4)
