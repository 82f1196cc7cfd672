"""Extended attributes changed in place: in the inode as long as they fit there, elsewhere with values of equal size."""

from __future__ import annotations

import errno
import stat
import struct

from ..base import GuestError
from .attribute import PARENT, ROOT, SECURE, Attribute, attributes
from .edit import not_possible
from .inode import FORMAT_BTREE, FORMAT_LOCAL

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .edit import Edit
    from .inode import Inode

_PREFIXES = ((b"user.", 0), (b"trusted.", ROOT), (b"security.", SECURE))
_ACLS = {b"system.posix_acl_access": b"SGI_ACL_FILE", b"system.posix_acl_default": b"SGI_ACL_DEFAULT"}
_SPACES = ROOT | SECURE | PARENT
MAX_NAME = 255
MAX_VALUE = 65536
USER_OBJ, USER, GROUP_OBJ, GROUP, MASK, OTHER = 1, 2, 4, 8, 16, 32


def stored_name(name: bytes) -> tuple[bytes, int]:
    """(name without its prefix, name space). GuestError EOPNOTSUPP, EINVAL, ERANGE."""
    if name in _ACLS:
        return _ACLS[name], ROOT
    for prefix, flags in _PREFIXES:
        if name.startswith(prefix):
            rest = name[len(prefix) :]
            if not rest:
                raise GuestError(errno.EINVAL)
            if len(rest) > MAX_NAME:
                raise GuestError(errno.ERANGE)
            return rest, flags
    raise GuestError(errno.EOPNOTSUPP)


def stored_acl(value: bytes) -> bytes:
    """A kernel's access control list as XFS stores it. GuestError EINVAL."""
    if len(value) < 4 or (len(value) - 4) % 8 or value[:4] != b"\2\0\0\0":
        raise GuestError(errno.EINVAL)
    rows = list(struct.iter_unpack("<HHI", value[4:]))
    if any(tag not in (USER_OBJ, USER, GROUP_OBJ, GROUP, MASK, OTHER) or perm & ~7 for tag, perm, _ in rows):
        raise GuestError(errno.EINVAL)
    return struct.pack(">I", len(rows)) + b"".join(
        struct.pack(">IIHH", tag, ident if tag in (USER, GROUP) else 0xFFFFFFFF, perm, 0) for tag, perm, ident in rows
    )


def _find(edit: Edit, inode: Inode, name: bytes, space: int) -> Attribute | None:
    fork = edit.fs.fork(inode, attributes=True) if inode.attr_fork else None
    for attribute in attributes(edit.store, inode, fork):
        if attribute.name == name and attribute.flags & _SPACES == space:
            return attribute
    return None


def set_xattr(edit: Edit, ino: int, name: bytes, value: bytes, now: int) -> None:
    inode = edit.fs.inode(ino)
    if len(value) > MAX_VALUE:
        raise GuestError(errno.E2BIG)
    short, space = stored_name(name)
    mode = None
    if name in _ACLS:
        if name.endswith(b"default") and inode.kind != stat.S_IFDIR:
            raise GuestError(errno.EACCES)
        if name.endswith(b"access"):
            mode = _mode_of(value, inode.mode)
        value = stored_acl(value)
    _store(edit, inode, short, space, value)
    inode = edit.fs.inode(ino)
    raw = bytearray(inode.raw)
    if mode is not None:
        raw[2:4] = mode.to_bytes(2, "big")
    edit.change_inode(inode, raw, now)


def _store(edit: Edit, inode: Inode, name: bytes, space: int, value: bytes) -> None:
    edit.fs.refuse_unfinished(inode.ino)
    found = _find(edit, inode, name, space)
    if inode.attr_fork and inode.aformat == FORMAT_LOCAL:
        rows = [
            row
            for row in attributes(edit.store, inode, None)
            if not (row.name == name and row.flags & _SPACES == space)
        ]
        rows.append(Attribute(name, space, value, [], "inode"))
        _store_short(edit, inode, rows)
        return
    if found is None or len(found.value) != len(value):
        raise not_possible("the attribute needs space that has to be allocated")
    done = 0
    size = edit.superblock.blocksize
    for offset, length in found.value_at:
        start = offset // size * size
        block = bytearray(edit.store.read(start, size))
        block[offset - start : offset - start + length] = value[done : done + length]
        done += length
        edit.change_block(start, block, 12)


def _store_short(edit: Edit, inode: Inode, rows: list[Attribute]) -> None:
    """The inode's own list of attributes anew. EOPNOTSUPP when it does not fit."""
    parts = []
    for row in rows:
        if len(row.value) > 255:
            raise not_possible("the attribute needs space that has to be allocated")
        parts.append(bytes((len(row.name), len(row.value), row.flags & _SPACES)) + row.name + row.value)
    body = b"".join(parts)
    room = len(inode.attr_fork)
    if 4 + len(body) > room or len(rows) > 255:
        raise not_possible("the attribute needs space that has to be allocated")
    raw = bytearray(inode.raw)
    start = inode.core + (inode.forkoff << 3)
    if not rows and inode.format != FORMAT_BTREE:
        # the kernel gives the room back to the data
        raw[start:] = bytes(room)
        raw[82] = 0
        raw[83] = 2
    else:
        raw[start : start + 4 + len(body)] = struct.pack(">HBB", 4 + len(body), len(rows), 0) + body
        raw[start + 4 + len(body) :] = bytes(room - 4 - len(body))
    edit.change_block(inode.offset, raw, 100)
    edit.inodes.add(inode.ino)
    edit.fs.forget(inode.ino)


def remove_xattr(edit: Edit, ino: int, name: bytes, now: int) -> None:
    inode = edit.fs.inode(ino)
    edit.fs.refuse_unfinished(ino)
    short, space = stored_name(name)
    if _find(edit, inode, short, space) is None:
        raise GuestError(errno.ENODATA)
    if inode.aformat != FORMAT_LOCAL:
        raise not_possible("the attribute lies in blocks of its own, which would have to be freed")
    rows = [
        row for row in attributes(edit.store, inode, None) if not (row.name == short and row.flags & _SPACES == space)
    ]
    _store_short(edit, inode, rows)
    inode = edit.fs.inode(ino)
    edit.change_inode(inode, bytearray(inode.raw), now)


def _mode_of(acl: bytes, mode: int) -> int:
    """The permission bits that an access control list brings with it."""
    rows = {tag: perm for tag, perm, _ in struct.iter_unpack("<HHI", acl[4:])} if not (len(acl) - 4) % 8 else {}
    group = rows.get(MASK, rows.get(GROUP_OBJ, 0))
    return int(mode & ~0o777 | rows.get(USER_OBJ, 0) << 6 | group << 3 | rows.get(OTHER, 0))


def follow_mode(edit: Edit, ino: int, mode: int) -> None:
    """An access control list follows the permission bits, as chmod(2) makes it."""
    inode = edit.fs.inode(ino)
    if inode.kind == stat.S_IFLNK:
        return
    found = _find(edit, inode, b"SGI_ACL_FILE", ROOT)
    if found is None or (len(found.value) - 4) % 12:
        return
    rows = [list(row) for row in struct.iter_unpack(">IIHH", found.value[4:])]
    masked = any(row[0] == MASK for row in rows)
    for row in rows:
        if row[0] == USER_OBJ:
            row[2] = mode >> 6 & 7
        elif row[0] == OTHER:
            row[2] = mode & 7
        elif row[0] == MASK or (row[0] == GROUP_OBJ and not masked):
            row[2] = mode >> 3 & 7
    value = found.value[:4] + b"".join(struct.pack(">IIHH", *row) for row in rows)
    _store(edit, inode, b"SGI_ACL_FILE", ROOT, value)
