"""The open options that every node has: cache.*, read-only, force-share, discard, detect-zeroes, node-name."""

from __future__ import annotations

from ..errors import OptionError
from .filename import check_node_name
from .options import parse_bool

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from .graph import OpenFlags

#: (direct, no-flush) -> cache mode; the mode of the whole image says whether writes go through
_CACHE = {
    (False, False): "writeback",
    (True, False): "none",
    (False, True): "unsafe",
    (True, True): "unsafe",
}


def apply(options: dict[str, Any], flags: OpenFlags) -> OpenFlags:
    """Take the common options out of ``options``; the flags changed as they say. Raises OptionError."""
    changes: dict[str, Any] = {}
    if "node-name" in options:
        check_node_name(str(options.pop("node-name")), flags.node_names)
    direct = _flag(options, "cache.direct")
    no_flush = _flag(options, "cache.no-flush")
    if direct is not None or no_flush is not None:
        changes["cache"] = _cache(flags.cache, direct, no_flush)
    if _flag(options, "read-only"):
        changes["writable"] = False
    _flag(options, "auto-read-only")
    shared = _flag(options, "force-share")
    if shared is not None:
        changes["force_share"] = shared
    if changes.get("force_share", flags.force_share) and changes.get("writable", flags.writable):
        raise OptionError("force-share=on can only be used with read-only images", field="force-share")
    discard = _word(options, "discard")
    if discard not in (None, "off", "ignore", "on", "unmap"):
        raise OptionError("Invalid discard option", field="discard", value=discard)
    detect = _word(options, "detect-zeroes")
    if detect not in (None, "off", "on", "unmap"):
        raise OptionError(f"invalid parameter value: {detect}", field="detect-zeroes", value=detect)
    if detect == "unmap" and discard not in ("on", "unmap"):
        raise OptionError(
            "setting detect-zeroes to unmap is not allowed without setting discard operation to unmap",
            field="detect-zeroes",
            value=detect,
        )
    return flags.derive(**changes) if changes else flags


def _flag(options: dict[str, Any], name: str) -> bool | None:
    value = options.pop(name, None)
    if value is None or isinstance(value, bool):
        return value
    return parse_bool(name, str(value))


def _word(options: dict[str, Any], name: str) -> str | None:
    value = options.pop(name, None)
    if isinstance(value, bool):
        return "on" if value else "off"
    return None if value is None else str(value)


def _cache(mode: str, direct: bool | None, no_flush: bool | None) -> str:
    through = mode in ("writethrough", "directsync")
    was_direct = mode in ("none", "off", "directsync")
    direct = was_direct if direct is None else direct
    no_flush = (mode == "unsafe") if no_flush is None else no_flush
    if through and not no_flush:
        return "directsync" if direct else "writethrough"
    return _CACHE[direct, no_flush]
