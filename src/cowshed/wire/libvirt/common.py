"""What all documents have in common: numbers, paths, uuids, permissions, and the keeping of what is unknown."""

from __future__ import annotations

from ...errors import ArgumentError, ConfigError, DefinitionError, TooLargeError
from .definition import Element, Permissions
from .reader import string

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .definition import Extra
    from .writer import Writer

    #: attributes that are known, and the children that are
    Known = tuple[tuple[str, ...], dict[str, "Known"]]

PERMISSIONS: Known = ((), {"mode": ((), {}), "owner": ((), {}), "group": ((), {}), "label": ((), {})})
SIZE: Known = (("unit",), {})
#: an element that its reader keeps whole
WHOLE: Known = ((), {})

_HEX = frozenset("0123456789abcdefABCDEF")
_SPACE = " \t\n\v\f\r"
_LARGEST = (1 << 63) - 1
_NOBODY = (1 << 32) - 1


def number(text: str, base: int = 10, signed: bool = False) -> int | None:
    """A whole number as the C library's strtol takes it, with nothing behind it; None when it is none."""
    body = text.lstrip(_SPACE)
    sign = body[:1]
    digits = body[1:] if sign in ("+", "-") else body
    if base == 8:
        good = digits and not digits.strip("01234567")
    elif base == 16 and digits[:2] in ("0x", "0X"):
        digits = digits[2:]
        good = digits and _HEX.issuperset(digits)
    elif base == 16:
        good = digits and _HEX.issuperset(digits)
    else:
        good = digits and not digits.strip("0123456789")
    # the longest number of any of these bases that can be in range; int() of a longer text takes quadratic time
    if not good or len(digits.lstrip("0")) > 64 or (sign == "-" and not signed):
        return None
    return -int(digits, base) if sign == "-" else int(digits, base)


def unsigned(text: str) -> int | None:
    """An unsigned 64-bit number, decimal."""
    value = number(text)
    return value if value is not None and value < 1 << 64 else None


def scaled(text: str, unit: str | None, malformed: str) -> int:
    """``<capacity unit='K'>`` and its like in bytes: K and KiB are 1024 bytes, KB 1000, and so on to E; b, bytes 1.

    DefinitionError(``malformed``) for what is no number, ArgumentError for an unknown unit, TooLargeError from
    2^63 on.
    """
    value = unsigned(text)
    if value is None:
        raise DefinitionError(malformed, value=text)
    scale = 1
    lower = (unit or "").lower()
    if lower not in ("", "b", "byte", "bytes"):
        power = "kmgtpe".find(lower[0]) + 1
        if not power or lower[1:] not in ("", "ib", "b"):
            raise ArgumentError(f"unknown suffix '{unit}'", value=unit)
        scale = 1000**power if lower[1:] == "b" else 1024**power
    if value > _LARGEST // scale:
        raise TooLargeError(f"value too large: {value}{unit or ''}", value=text)
    return value * scale


def read_uuid(text: str) -> str | None:
    """A uuid in its usual form, whichever dashes and spaces stood between its bytes; None when it is none."""
    digits = ""
    body = text.strip(_SPACE)
    while body and len(digits) < 32:
        if body[0] == "-" or body[0] in _SPACE:
            body = body[1:]
            continue
        if len(body) < 2 or not _HEX.issuperset(body[:2]):
            return None
        digits += body[:2].lower()
        body = body[2:]
    if body or len(digits) != 32:
        return None
    return f"{digits[:8]}-{digits[8:12]}-{digits[12:16]}-{digits[16:20]}-{digits[20:]}"


def sanitize(path: str) -> str:
    """A path without doubled and trailing slashes; two leading ones (and only two) mean something and stay."""
    lead = "//" if path.startswith("//") and not path.startswith("///") else "/" if path.startswith("/") else ""
    return lead + "/".join(part for part in path.split("/") if part)


def choice(element: Element, name: str, allowed: tuple[str, ...], required: bool = False) -> str | None:
    """An attribute that is one of a few words; DefinitionError in libvirt's words otherwise."""
    value = element.attributes.get(name)
    if value is None:
        if required:
            raise DefinitionError(f"Missing required attribute '{name}' in element '{element.name}'")
        return None
    if value not in allowed:
        raise DefinitionError(f"Invalid value for attribute '{name}' in element '{element.name}': '{value}'.")
    return value


def read_permissions(element: Element | None) -> Permissions | None:
    """``<permissions>``; None when it says nothing."""
    if element is None:
        return None
    found = Permissions()
    text = string(element, "mode")
    if text is not None:
        found.mode = number(text, 8, signed=True)
        if found.mode is None or not 0 <= found.mode <= 0o777:
            raise DefinitionError("malformed octal mode", field="mode", value=text)
    found.owner = _owner(element, "owner")
    found.group = _owner(element, "group")
    found.label = string(element, "label")
    return found if found != Permissions() else None


def _owner(element: Element, name: str) -> int:
    if element.find(name) is None:
        return -1
    text = string(element, name) or ""
    value = number(text, signed=True)
    if value is None or not -1 <= value <= _NOBODY:
        raise DefinitionError(f"malformed {name} element", field=name, value=text)
    return -1 if value == _NOBODY else value


def write_permissions(writer: Writer, permissions: Permissions | None, path: str) -> None:
    """``<permissions>``, if it says anything (or something is kept for it)."""
    given = permissions is not None and permissions != Permissions()
    if not given and not writer.wanted(path):
        return
    writer.open("permissions")
    if permissions is not None and given:
        if permissions.mode is not None:
            writer.leaf("mode", f"0{permissions.mode:o}")
        if permissions.owner != -1:
            writer.leaf("owner", permissions.owner)
        if permissions.group != -1:
            writer.leaf("group", permissions.group)
        if permissions.label is not None:
            writer.leaf("label", permissions.label)
    writer.close()


def unknown(element: Element, known: Known, path: str = "") -> Extra:
    """What stands in ``element`` and is not ``known``, as ``definition.extra`` keeps it (see writer.Writer)."""
    attributes, children = known
    found: Extra = []
    for name, value in element.attributes.items():
        if name not in attributes:
            found.append((path, Element("@" + name, text=value)))
    counts: dict[str, int] = {}
    for child in element.children:
        inside = children.get(child.name)
        if inside is None:
            found.append((path, child))
            continue
        if inside is WHOLE:
            continue
        count = counts[child.name] = counts.get(child.name, 0) + 1
        step = child.name if count == 1 else f"{child.name}[{count}]"
        found += unknown(child, inside, f"{path}/{step}" if path else step)
    return found


def unknown_format(what: str, text: str) -> ConfigError:
    return ConfigError(f"unknown {what} format type {text}", field="format", value=text)
