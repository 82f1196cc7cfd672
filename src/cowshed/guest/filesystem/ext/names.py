"""Files come and go by their names: created, linked, renamed, taken away."""

from __future__ import annotations

import errno
import os
import stat as _stat

from ....errors import CorruptError
from ..base import GuestError
from . import xattr
from .content import store_content
from .inode import APPEND, EXTENTS, IMMUTABLE, INDEX, Inode
from .mapping import empty
from .superblock import DIR_NLINK
from .superblock import EXTENTS as FEATURE_EXTENTS
from .xattr_write import acl_stored, acl_with_mode

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .write import Writer

LINK_MAX = 65000
_LINK_MAX_SMALL = 32000
#: flags that a new inode takes over from its directory: all kinds, and those that are neither file nor directory
_INHERITED = 0x1 | 0x2 | 0x4 | 0x8 | 0x40 | 0x80 | 0x400 | 0x4000 | 0x8000 | 0x10000
_INHERITED_OTHER = 0x40 | 0x80

_KINDS = {
    _stat.S_IFREG: 1, _stat.S_IFDIR: 2, _stat.S_IFCHR: 3, _stat.S_IFBLK: 4, _stat.S_IFIFO: 5, _stat.S_IFSOCK: 6,
    _stat.S_IFLNK: 7,
}  # fmt: skip


def file_kind(mode: int) -> int:
    """The file type in a directory's entry."""
    return _KINDS.get(_stat.S_IFMT(mode), 0)


def create(
    writer: Writer, directory: int, name: bytes, mode: int, uid: int, gid: int, now: int, rdev: int, target: bytes
) -> int:
    parent = writer.directory(directory)
    writer.check_name(name)
    if not parent.nlink:
        raise GuestError(errno.ENOENT)
    if name in (b".", b"..") or writer.fs.directories.lookup(parent, name) is not None:
        raise GuestError(errno.EEXIST)
    kind = _stat.S_IFMT(mode)
    if kind not in _KINDS:
        raise GuestError(errno.EINVAL)
    is_dir = kind == _stat.S_IFDIR
    if is_dir:
        _check_links(writer, parent)
    if kind == _stat.S_IFLNK:
        if not target:
            raise GuestError(errno.ENOENT)
        if len(target) + 1 > min(writer.size, 4096):
            raise GuestError(errno.ENAMETOOLONG)
        if b"\0" in target:
            raise GuestError(errno.EINVAL)
        mode = _stat.S_IFLNK | 0o777
    if parent.mode & _stat.S_ISGID:
        gid = parent.gid
        if is_dir:
            mode |= _stat.S_ISGID
    number = writer.allocator.allocate_inode(directory, is_dir)
    inode = writer.fresh_inode(number, mode, uid, gid, writer.noted(now))
    mask = _INHERITED if kind in (_stat.S_IFREG, _stat.S_IFDIR) else _INHERITED_OTHER
    inode.flags = parent.flags & mask & ~(0 if is_dir else 0x10000)
    inode.nlink = 2 if is_dir else 1
    writer.touch(inode)
    uses = bool(writer.sb.incompat & FEATURE_EXTENTS)
    if kind in (_stat.S_IFREG, _stat.S_IFDIR) or (kind == _stat.S_IFLNK and len(target) >= 60):
        inode.flags |= EXTENTS if uses else 0
        inode.block = empty(uses)
    if is_dir:
        writer.directories.begin(inode, directory)
    elif kind == _stat.S_IFLNK:
        inode.size = len(target)
        if len(target) < 60:
            inode.block = target.ljust(60, b"\0")
        else:
            # the block is mapped as a file's is; the kind of mapping goes by the flag
            store_content(writer, inode, target)
    elif kind in (_stat.S_IFCHR, _stat.S_IFBLK):
        inode.block = _device(rdev)
    if kind != _stat.S_IFLNK:
        _inherit_acl(writer, parent, inode)
    writer.directories.add(parent, name, number, file_kind(mode))
    if is_dir:
        _more_links(writer, parent)
    writer.modified(parent, now)
    return number


def _inherit_acl(writer: Writer, parent: Inode, inode: Inode) -> None:
    """A directory's default ACL is what new files in it get."""
    if not parent.acl and len(parent.raw) == 128:
        return
    found = [
        entry for entry in (*xattr.in_inode(parent), *xattr.in_block(writer.fs.volume, parent)) if entry.index == 3
    ]
    if not found:
        return
    stored = found[0].value
    own, bits = acl_with_mode(stored, inode.mode, mask=True)
    inode.mode = inode.mode & ~0o777 | bits
    if inode.is_dir:
        writer.attributes.set(inode, 3, b"", stored)
    shown = xattr.acl_shown(own)
    trimmed, _ = acl_stored(shown)
    if trimmed is not None:
        writer.attributes.set(inode, 2, b"", trimmed)


def _check_links(writer: Writer, inode: Inode) -> None:
    most = LINK_MAX if writer.sb.kind == "ext4" else _LINK_MAX_SMALL
    if inode.nlink >= most and not (inode.is_dir and writer.sb.ro_compat & DIR_NLINK and inode.flags & INDEX):
        raise GuestError(errno.EMLINK)


def _more_links(writer: Writer, inode: Inode) -> None:
    if inode.nlink != 1:
        inode.nlink += 1
        if inode.nlink > LINK_MAX:
            inode.nlink = 1


def _fewer_links(writer: Writer, inode: Inode) -> None:
    if inode.nlink > 2:
        inode.nlink -= 1


def link(writer: Writer, number: int, directory: int, name: bytes, now: int) -> None:
    parent = writer.directory(directory)
    inode = writer.fs.inodes.live(number)
    writer.check_name(name)
    if inode.is_dir or inode.flags & (IMMUTABLE | APPEND):
        raise GuestError(errno.EPERM)
    if name in (b".", b"..") or writer.fs.directories.lookup(parent, name) is not None:
        raise GuestError(errno.EEXIST)
    _check_links(writer, inode)
    writer.directories.add(parent, name, number, file_kind(inode.mode))
    inode.nlink += 1
    inode.ctime = writer.noted(now)
    writer.touch(inode)
    writer.modified(parent, now)


def _found(writer: Writer, parent: Inode, name: bytes) -> Inode:
    writer.check_name(name)
    found = writer.fs.directories.lookup(parent, name)
    if found is None:
        raise GuestError(errno.ENOENT)
    inode = writer.fs.inodes.live(found[0])
    if inode.flags & (IMMUTABLE | APPEND) or parent.flags & APPEND:
        raise GuestError(errno.EPERM)
    return inode


def unlink(writer: Writer, directory: int, name: bytes, now: int) -> None:
    parent = writer.directory(directory)
    if name in (b".", b".."):
        raise GuestError(errno.EISDIR)
    inode = _found(writer, parent, name)
    if inode.is_dir:
        raise GuestError(errno.EISDIR)
    writer.directories.remove(parent, name)
    writer.modified(parent, now)
    _unlinked(writer, inode, now)


def _unlinked(writer: Writer, inode: Inode, now: int) -> None:
    inode.ctime = writer.noted(now)
    inode.nlink -= 1
    writer.touch(inode)
    if not inode.nlink:
        writer.release(inode, now)


def _empty(writer: Writer, inode: Inode) -> bool:
    return all(name in (b".", b"..") for name, _, _ in writer.fs.directories.entries(inode))


def rmdir(writer: Writer, directory: int, name: bytes, now: int) -> None:
    parent = writer.directory(directory)
    if name == b".":
        raise GuestError(errno.EINVAL)
    if name == b"..":
        raise GuestError(errno.ENOTEMPTY)
    inode = _found(writer, parent, name)
    if not inode.is_dir:
        raise GuestError(errno.ENOTDIR)
    if not _empty(writer, inode):
        raise GuestError(errno.ENOTEMPTY)
    writer.directories.remove(parent, name)
    _fewer_links(writer, parent)
    writer.modified(parent, now)
    inode.ctime = now
    writer.release(inode, now)


def _is_below(writer: Writer, directory: Inode, ancestor: int) -> bool:
    """Is a directory this one, or somewhere below it?"""
    seen: set[int] = set()
    number = directory.number
    while number not in seen:
        if number == ancestor:
            return True
        if number == writer.fs.root:
            return False
        seen.add(number)
        found = writer.fs.directories.lookup(writer.directory(number, change=False), b"..")
        if found is None:
            break
        number = found[0]
    raise CorruptError(f"ext directory {directory.number}: its parents lead nowhere", layer="directory")


def rename(writer: Writer, old: int, old_name: bytes, new: int, new_name: bytes, now: int) -> None:
    source, target = writer.directory(old), writer.directory(new)
    writer.check_name(new_name)
    if {old_name, new_name} & {b".", b".."}:
        raise GuestError(errno.EBUSY)
    inode = _found(writer, source, old_name)
    known = writer.fs.directories.lookup(target, new_name)
    if known is not None and known[0] == inode.number:
        return
    if inode.is_dir and _is_below(writer, target, inode.number):
        raise GuestError(errno.EINVAL)
    replaced: Inode | None = None
    if known is not None:
        replaced = _found(writer, target, new_name)
        if inode.is_dir and not replaced.is_dir:
            raise GuestError(errno.ENOTDIR)
        if replaced.is_dir and not inode.is_dir:
            raise GuestError(errno.EISDIR)
        if replaced.is_dir and not _empty(writer, replaced):
            raise GuestError(errno.ENOTEMPTY)
    elif inode.is_dir and old != new:
        _check_links(writer, target)
    kind = file_kind(inode.mode)
    if replaced is not None:
        writer.directories.lead(target, new_name, inode.number, kind)
    else:
        writer.directories.add(target, new_name, inode.number, kind)
    writer.directories.remove(source, old_name)
    if inode.is_dir and old != new:
        writer.directories.lead(inode, b"..", new, 2)
        _fewer_links(writer, source)
        _more_links(writer, target)
    if replaced is not None:
        if replaced.is_dir:
            _fewer_links(writer, target)
            writer.release(replaced, now)
        else:
            _unlinked(writer, replaced, now)
    inode.ctime = writer.noted(now)
    writer.touch(inode)
    writer.modified(source, now)
    writer.modified(target, now)


def _device(rdev: int) -> bytes:
    """i_block of a device node: the old encoding while it is enough. GuestError EINVAL for numbers that Linux lacks."""
    if not 0 <= rdev < 1 << 64 or os.major(rdev) > 0xFFF or os.minor(rdev) > 0xFFFFF:
        raise GuestError(errno.EINVAL)
    major, minor = os.major(rdev), os.minor(rdev)
    if major < 256 and minor < 256:
        return (major << 8 | minor).to_bytes(4, "little").ljust(60, b"\0")
    return bytes(4) + (minor & 0xFF | major << 8 | (minor & ~0xFF) << 12).to_bytes(4, "little").ljust(56, b"\0")
