"""What an image may name: the gate that every file name found *inside* an image passes before it is opened.

A backing file, a data file or an extent is named by the image, so by whoever made it. Three policies:

* ``"all"``: whatever can be opened by name (what qemu-img follows);
* ``"local"``: regular files only; no devices, no network, no ``json:`` descriptions (the API's default);
* ``"none"``: nothing but the file that was given.

Names that the user gives, as argument or option, don't pass here.
"""

from __future__ import annotations

import os
import stat

from ..errors import TrustError, UsageError

POLICIES = ("all", "local", "none")


def check_policy(policy: str) -> str:
    """``policy`` itself. Raises UsageError when there is no such."""
    if policy not in POLICIES:
        raise UsageError(f"trust must be one of {', '.join(POLICIES)}, not '{policy}'", field="trust", value=policy)
    return policy


def printable(name: str, limit: int = 200) -> str:
    """A text from inside an image for a message: control characters escaped, length bounded."""
    text = "".join(char if char.isprintable() else _escaped(char) for char in name[:limit])
    return text + "…" if len(name) > limit else text


def _escaped(char: str) -> str:
    return "".join(f"\\x{byte:02x}" for byte in char.encode("utf-8", "surrogateescape"))


def check_reference(policy: str, name: str, what: str, owner: str, *, literal: bool = False) -> None:
    """May the image ``owner`` have its ``what`` (as messages call it) opened by ``name``?

    ``literal``: the name is a path whatever it looks like. Raises TrustError.
    """
    if policy == "all":
        return
    if policy == "none":
        raise _refusal("names a file outside of it", name, what, owner)
    from .filename import is_device, local_path, protocol_prefix

    prefix = None if literal else protocol_prefix(name)
    if prefix is not None and prefix != "file":
        kind = "a description of its own" if prefix == "json" else f"a '{printable(prefix, 32)}' address"
        raise _refusal(f"names {kind}", name, what, owner)
    path = name if literal else local_path(name)
    try:
        mode = os.stat(path).st_mode
    except (OSError, ValueError):
        return  # opening says what is wrong
    if is_device(path) or not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
        raise _refusal("names something that is not a regular file", name, what, owner)


def _refusal(reason: str, name: str, what: str, owner: str) -> TrustError:
    return TrustError(
        f"Refusing to open the {what} '{printable(name)}' of '{printable(owner)}': the image {reason}",
        path=owner,
        field=what,
        value=name,
        hint='If you trust whoever made the image, open it with trust="all".',
    )
