"""What volume groups and logical volumes may be called, in lvm2's words."""

from __future__ import annotations

import re

_VALID = re.compile(r"[A-Za-z0-9.+_-]+")
_LONGEST = 127
#: names that lvm2 makes up for parts of volumes
_BEGINNINGS = ("pvmove", "snapshot")
_PARTS = (
    "_cdata", "_cmeta", "_corig", "_cpool", "_cvol", "_wcorig", "_iorig", "_imeta", "_mimage", "_mlog", "_rimage",
    "_rmeta", "_tdata", "_tmeta", "_vdata", "_vorigin", "_pmspare",
)  # fmt: skip


def group_trouble(name: str) -> str:
    """What is wrong with a volume group's name; empty when nothing is."""
    if not name:
        return "Name is zero length."
    if len(name) > _LONGEST:
        return f"Name length exceeds maximum limit of {_LONGEST}."
    if name.startswith("-"):
        return "Name starts with hyphen."
    if name in (".", ".."):
        return "Name starts with . or .. and has no following character(s)."
    if not _VALID.fullmatch(name):
        return "Name contains invalid character, valid set includes: [a-zA-Z0-9.-_+]."
    return ""


def volume_trouble(name: str) -> str:
    """The same for a logical volume: "" or "invalid", or the whole text about a name that is reserved."""
    if group_trouble(name):
        return "invalid"
    for beginning in _BEGINNINGS:
        if name.startswith(beginning):
            return f'Names starting "{beginning}" are reserved. Please choose a different LV name.'
    for part in _PARTS:
        if part in name:
            return f'Names including "{part}" are reserved. Please choose a different LV name.'
    return ""
