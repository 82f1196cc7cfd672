"""The file system's label: in the superblock of every allocation group."""

from __future__ import annotations

import errno

from ..base import GuestError
from .edit import Edit

MAX_LABEL = 12
_AT = 108
_CRC_AT = 224


def set_label(edit: Edit, label: str) -> None:
    """GuestError EINVAL for one of more than 12 bytes."""
    raw = label.encode("utf-8", "surrogateescape")
    if len(raw) > MAX_LABEL or b"\0" in raw:
        raise GuestError(errno.EINVAL, hint=f"a label of XFS has at most {MAX_LABEL} bytes")
    superblock = edit.superblock
    for group in range(superblock.agcount):
        offset = group * superblock.agblocks << superblock.blocklog
        sector = bytearray(edit.store.read(offset, superblock.sectsize))
        if sector[:4] == b"XFSB":
            sector[_AT : _AT + MAX_LABEL] = raw.ljust(MAX_LABEL, b"\0")
            edit.change_block(offset, sector, _CRC_AT)
