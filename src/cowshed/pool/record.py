"""The small JSON records that processes leave for each other, and short digests: without what takes long to load.

The standard library's json brings `re` along, a third of what a short command costs. So plain records go through the
house's own reader and writer of JSON; only text outside of ASCII takes the library's, which keeps undecodable bytes.
"""

from __future__ import annotations

from ..block.jsontext import parse_json
from ..errors import CowshedError
from ..wire.qdict import compact

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


def dump(record: Any) -> bytes:
    """One line of JSON, newline and all."""
    text = repr(record)
    if text.isascii() and "\\u" not in text and "\\x" not in text:
        return compact(record).encode("ascii") + b"\n"
    import json

    return json.dumps(record).encode("ascii") + b"\n"


def load(data: bytes) -> Any:
    """What a line says. Raises ValueError when it is no JSON."""
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
