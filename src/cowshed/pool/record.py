"""The small JSON records that processes leave for each other, and short digests: without what takes long to load.

The standard library's json brings `re` along, a third of what a short command costs. So plain records are written here
and read by the house's own reader of JSON; text with anything but plain characters takes the library's, which keeps
undecodable bytes.
"""

from __future__ import annotations

from ..errors import CowshedError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


def dump(record: Any) -> bytes:
    """One line of JSON, newline and all."""
    text = repr(record)
    if text.isascii() and "\\" not in text and '"' not in text:
        return _plain(record).encode("ascii") + b"\n"
    import json

    return json.dumps(record).encode("ascii") + b"\n"


def _plain(value: Any) -> str:
    """JSON of a value whose strings have nothing that needs escaping."""
    if isinstance(value, str):
        return f'"{value}"'
    if isinstance(value, dict):
        return "{" + ", ".join(f'"{name}": {_plain(item)}' for name, item in value.items()) + "}"
    if isinstance(value, (list, tuple)):
        return "[" + ", ".join(map(_plain, value)) + "]"
    if value is None or isinstance(value, bool):
        return "null" if value is None else "true" if value else "false"
    return repr(value)


def load(data: bytes) -> Any:
    """What a line says. Raises ValueError when it is no JSON."""
    from ..block.jsontext import parse_json

    text = data.decode("utf-8", "surrogateescape")
    if "\\u" in text:
        import json

        return json.loads(text)
    try:
        return parse_json(text)
    except CowshedError as error:
        raise ValueError(str(error)) from error


def digest(data: bytes, size: int) -> str:
    """``size`` bytes of BLAKE2b, in hexadecimal."""
    try:
        from _blake2 import blake2b  # the hashlib of every CPython has it from here; hashlib itself loads OpenSSL
    except ImportError:
        from hashlib import blake2b

    return str(blake2b(data, digest_size=size).hexdigest())
