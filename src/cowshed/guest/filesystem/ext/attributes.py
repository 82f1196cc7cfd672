"""Owners, modes, times and extended attributes of files are set."""

from __future__ import annotations

import errno
import stat as _stat

from ..base import GuestError
from . import xattr
from .inode import APPEND, IMMUTABLE
from .xattr_write import ACLS, acl_stored, acl_with_mode
from .xattr_write import split as split_name

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .write import Writer


def set_attributes(
    writer: Writer,
    number: int,
    now: int,
    mode: int | None,
    uid: int | None,
    gid: int | None,
    atime: int | None,
    mtime: int | None,
) -> None:
    inode = writer.fs.inodes.live(number)
    if inode.flags & (IMMUTABLE | APPEND):
        raise GuestError(errno.EPERM)
    if uid is not None or gid is not None:
        if uid is not None:
            inode.uid = uid & 0xFFFFFFFF
        if gid is not None:
            inode.gid = gid & 0xFFFFFFFF
        if not inode.is_dir and not inode.is_link:
            inode.mode &= ~_stat.S_ISUID
            if inode.mode & _stat.S_IXGRP:
                inode.mode &= ~_stat.S_ISGID
    if mode is not None:
        inode.mode = inode.mode & ~0o7777 | mode & 0o7777
        for entry in (*xattr.in_inode(inode), *xattr.in_block(writer.fs.volume, inode)):
            if entry.index == 2:
                writer.attributes.set(inode, 2, b"", acl_with_mode(entry.value, mode)[0])
                break
    if atime is not None:
        inode.atime = atime
    if mtime is not None:
        inode.mtime = mtime
    inode.ctime = writer.noted(now)
    writer.touch(inode)


def set_xattr(writer: Writer, number: int, name: bytes, value: bytes, now: int) -> None:
    inode = writer.fs.inodes.live(number)
    if inode.flags & (IMMUTABLE | APPEND):
        raise GuestError(errno.EPERM)
    index, rest = split_name(name)
    if index == 1 and not (inode.is_file or inode.is_dir):
        raise GuestError(errno.EPERM)
    if index in (2, 3):
        if inode.is_link:
            raise GuestError(errno.EOPNOTSUPP)
        if index == 3 and not inode.is_dir:
            raise GuestError(errno.EACCES)
        stored, bits = acl_stored(value)
        if index == 2 and bits is not None:
            inode.mode = inode.mode & ~0o777 | bits
        elif index == 3 and bits is not None:
            stored = b"\1\0\0\0" + _short(value)
        writer.attributes.set(inode, index, b"", stored)
    else:
        writer.attributes.set(inode, index, rest, value)
    inode.ctime = writer.noted(now)
    writer.touch(inode)


def remove_xattr(writer: Writer, number: int, name: bytes, now: int) -> None:
    inode = writer.fs.inodes.live(number)
    if inode.flags & (IMMUTABLE | APPEND):
        raise GuestError(errno.EPERM)
    index, rest = split_name(name)
    if not writer.attributes.set(inode, index, rest, None) and name not in ACLS:
        raise GuestError(errno.ENODATA)
    inode.ctime = writer.noted(now)
    writer.touch(inode)


def _short(value: bytes) -> bytes:
    """A default ACL as it is stored, even when it says no more than a mode."""
    out = []
    for at in range(4, len(value), 8):
        tag = int.from_bytes(value[at : at + 2], "little")
        out.append(value[at : at + (8 if tag in (2, 8) else 4)])
    return b"".join(out)
