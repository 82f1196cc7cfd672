"""Changes of ext2, ext3 and ext4: the verbs, kept in memory until commit.py brings them to the device."""

from __future__ import annotations

import errno
import os
import stat as _stat

from ....errors import CorruptError
from ..base import GuestError
from . import blockmap, xattr
from .allocate import Allocator
from .directory_write import DirectoryWriter
from .extents import Run
from .inode import APPEND, EXTENTS, IMMUTABLE, INDEX, INLINE_DATA, Inode
from .mapping import Mapping, empty
from .spool import Spool
from .superblock import DIR_NLINK, EXTRA_ISIZE, LARGE_FILE
from .superblock import EXTENTS as FEATURE_EXTENTS
from .xattr_write import ACLS, AttributeWriter, acl_stored, acl_with_mode
from .xattr_write import split as split_name

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .filesystem import ExtFileSystem

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


class Writer:
    """All changes since the last sync."""

    def __init__(self, fs: ExtFileSystem) -> None:
        self.fs = fs
        self.sb = fs.sb
        self.size = fs.sb.block_size
        self.mappings: dict[int, Mapping] = {}
        self.allocator = Allocator(fs)
        self.attributes = AttributeWriter(self)
        self.directories = DirectoryWriter(self)
        self.super_changed = False
        self.now = 0
        self.spool = fs.volume.spool = Spool()

    @property
    def changed(self) -> bool:
        return bool(self.fs.inodes.changed or self.super_changed or self.fs.volume.dirty or self.spool)

    def prepare(self) -> None:
        """What the kernel does when it mounts for writing: files that were being deleted or shortened are finished."""
        number = self.sb.u32(0xE8)
        seen: set[int] = set()
        while number:
            if number in seen or not self.sb.first_inode <= number <= self.sb.inodes:
                raise CorruptError(
                    f"ext: the list of orphans leads to inode {number}", layer="ext superblock", field="s_last_orphan",
                    value=number, hint="e2fsck can repair it",
                )  # fmt: skip
            seen.add(number)
            inode = self.fs.inodes[number]
            number = inode.dtime
            inode.dtime = 0
            self.touch(inode)
            if inode.nlink:
                if inode.is_file and inode.mapped:
                    self._cut(inode, inode.size)
            else:
                self.release(inode, max(inode.ctime, 10**9))
        if seen:
            self.sb.set(0xE8, 0)
            self.super_changed = True

    # ---- inodes

    def touch(self, inode: Inode) -> None:
        self.fs.inodes.changed[inode.number] = inode

    def _noted(self, now: int) -> int:
        self.now = max(self.now, now)
        return now

    def _directory(self, number: int, *, change: bool = True) -> Inode:
        inode = self.fs.inodes.live(number)
        if not inode.is_dir:
            raise GuestError(errno.ENOTDIR)
        if change and inode.flags & IMMUTABLE:
            raise GuestError(errno.EPERM)
        return inode

    def _name(self, name: bytes) -> None:
        if not name:
            raise GuestError(errno.ENOENT)
        if len(name) > 255:
            raise GuestError(errno.ENAMETOOLONG)
        if b"/" in name or b"\0" in name:
            raise GuestError(errno.EINVAL)

    def fresh_inode(self, number: int, mode: int, uid: int, gid: int, now: int) -> Inode:
        """A new inode with its times; `touch` it when it is whole."""
        raw = bytearray(self.sb.inode_size)
        if self.sb.inode_size > 128:
            wanted = 32
            if self.sb.ro_compat & EXTRA_ISIZE:
                wanted = max(self.sb.u16(0x15E), self.sb.u16(0x15C)) or 32
            raw[0x80:0x82] = min(wanted & ~3, self.sb.inode_size - 128).to_bytes(2, "little")
        raw[0x64:0x68] = os.urandom(4)
        inode = Inode(number, raw, self.size)
        inode.mode = mode
        inode.uid = uid
        inode.gid = gid
        inode.atime = inode.mtime = inode.ctime = now
        if inode.extra >= 24:
            inode.btime = now
        if self.sb.metadata_csum:
            self.fs.inodes.store_seed(inode)
        return inode

    def goal(self, inode: Inode) -> int:
        """Where an inode's blocks had best begin."""
        return self.sb.group_first_block((inode.number - 1) // self.sb.inodes_per_group)

    def mapping(self, inode: Inode) -> Mapping:
        mapping = self.mappings.get(inode.number)
        if mapping is None:
            mapping = self.mappings[inode.number] = Mapping(self.fs, inode)
        return mapping

    def map_block(self, inode: Inode, logical: int) -> int:
        """A new block for one that is not mapped."""
        mapping = self.mapping(inode)
        goal = mapping.goal(logical)
        place, _ = self.allocator.allocate(self.goal(inode) if goal is None else goal, 1)
        mapping.insert(Run(logical, 1, place))
        inode.sectors += self.size // 512
        self.touch(inode)
        return place

    def flush_inode(self, inode: Inode) -> None:
        """Bring one inode and its mapping into blocks."""
        mapping = self.mappings.get(inode.number)
        if mapping is not None:
            mapping.store(self)
        if inode.is_file and inode.size >= 1 << 31 and not self.sb.ro_compat & LARGE_FILE:
            if not self.sb.revision:
                raise GuestError(errno.EFBIG)
            self.sb.set_features(ro_compat=LARGE_FILE)
            self.super_changed = True
        self.fs.inodes.store(inode)

    def flush(self) -> None:
        """Bring everything into blocks; they are verified and written after that."""
        self.directories.flush()
        for inode in list(self.fs.inodes.changed.values()):
            self.flush_inode(inode)
        self.allocator.store()

    def release(self, inode: Inode, now: int) -> None:
        """The last name of an inode is gone: so is it."""
        if inode.mapped and not inode.flags & INLINE_DATA:
            mapping = self.mapping(inode)
            for place, count in mapping.remove(0, 1 << 62):
                self.allocator.free(place, count)
            for place in mapping.tree:
                self.allocator.free(place, 1)
            self.mappings.pop(inode.number, None)
            inode.block = empty(bool(inode.flags & EXTENTS))
        directory = inode.is_dir
        self.attributes.drop_all(inode)
        inode.sectors = 0
        inode.size = 0
        inode.nlink = 0
        # small numbers are links of the orphans' list to e2fsck, and so are times before the file system's own
        earliest = max(self.sb.inodes + 1, self.sb.u32(0x108), self.sb.u32(0x30))
        inode.dtime = min(max(earliest, now // 1_000_000_000), 0xFFFFFFFF)
        self.allocator.free_inode(inode.number, directory)
        self.fs.directories.names.pop(inode.number, None)
        self.touch(inode)

    # ---- content

    def drop_inline(self, inode: Inode) -> None:
        """Inline data is taken out; the inode is empty and has blocks from now on."""
        entries = xattr.in_inode(inode)
        self.attributes.put_inode(inode, [e for e in entries if (e.index, e.name) != (7, b"data")])
        uses = bool(self.sb.incompat & FEATURE_EXTENTS)
        inode.flags = inode.flags & ~INLINE_DATA | (EXTENTS if uses else 0)
        inode.block = empty(uses)
        inode.size = 0
        self.mappings.pop(inode.number, None)
        self.touch(inode)

    def _set_inline(self, inode: Inode, content: bytes) -> bool:
        """Keep a short content inline; False when it does not fit into i_block."""
        if len(content) > 60:
            return False
        entries = xattr.in_inode(inode)
        for entry in entries:
            if (entry.index, entry.name) == (7, b"data"):
                entry.value = b""
                entry.size = 0
        self.attributes.put_inode(inode, entries)
        inode.block = content.ljust(60, b"\0")
        inode.size = len(content)
        self.touch(inode)
        return True

    def _unfold(self, inode: Inode) -> None:
        """Inline content goes to blocks."""
        content = self.fs.content(inode, 0, inode.size)
        self.drop_inline(inode)
        inode.size = len(content)
        self.store_content(inode, content)

    def _limit(self, inode: Inode) -> int:
        """Bytes that a file can have."""
        if inode.flags & EXTENTS:
            return ((1 << 32) - 1) * self.size
        return min(blockmap.limit(self.size) * self.size, 1 << 41)

    def store_content(self, inode: Inode, data: bytes | memoryview, offset: int = 0) -> None:
        """Map a range and keep its data; i_size is the caller's business."""
        view = memoryview(data).cast("B")
        size = self.size
        first, end = offset // size, -(-(offset + len(view)) // size)
        mapping = self.mapping(inode)
        at = first
        for run in [*mapping.within(first, end), None]:
            start = end if run is None else max(run.first, first)
            while at < start:
                goal = mapping.goal(at)
                place, count = self.allocator.allocate(self.goal(inode) if goal is None else goal, start - at)
                mapping.insert(Run(at, count, place))
                inode.sectors += count * (size // 512)
                self._pad(at, count, place, offset, offset + len(view))
                at += count
            if run is None:
                break
            stop = min(run.first + run.count, end)
            if run.unwritten:
                for place, count in mapping.remove(at, stop):
                    mapping.insert(Run(at, count, place))
                    self._pad(at, count, place, offset, offset + len(view))
                    at += count
            at = stop
        for begin, count, where in self.fs.extents(inode.number, offset, len(view)):
            assert where is not None
            self.spool.write(where, view[begin - offset : begin - offset + count])
        self.touch(inode)

    def _pad(self, first: int, count: int, place: int, begin: int, end: int) -> None:
        """Zeroes around the data in blocks that are new."""
        size = self.size
        low, high = first * size, (first + count) * size
        if low < begin:
            self.spool.write(place * size, bytes(min(begin, high) - low))
        if end < high:
            start = max(end, low)
            self.spool.write(place * size + start - low, bytes(high - start))

    def _clean_tail(self, inode: Inode) -> None:
        """What lies behind the end of a file in its last block is zeroes before the file grows over it."""
        within = inode.size % self.size
        if not within:
            return
        place = self.fs.place(inode, inode.size // self.size)
        if place is None:
            return
        tail = bytearray(self.size - within)
        self.fs.volume.read_into(place * self.size + within, memoryview(tail))
        if any(tail):
            self.spool.write(place * self.size + within, bytes(len(tail)))

    def _cut(self, inode: Inode, size: int) -> None:
        """Give back the blocks behind ``size`` bytes."""
        for place, count in self.mapping(inode).remove(-(-size // self.size), 1 << 62):
            self.allocator.free(place, count)
            inode.sectors -= count * (self.size // 512)
        self.touch(inode)

    def _file(self, number: int) -> Inode:
        inode = self.fs.inodes.live(number)
        if inode.is_dir:
            raise GuestError(errno.EISDIR)
        if not inode.is_file:
            raise GuestError(errno.EINVAL)
        if inode.flags & (IMMUTABLE | APPEND):
            raise GuestError(errno.EPERM)
        return inode

    def _modified(self, inode: Inode, now: int) -> None:
        inode.mtime = inode.ctime = self._noted(now)
        self.touch(inode)

    def write(self, number: int, offset: int, data: bytes | memoryview, now: int) -> None:
        inode = self._file(number)
        length = memoryview(data).nbytes
        if not length:
            return
        end = offset + length
        if end > self._limit(inode):
            raise GuestError(errno.EFBIG)
        if inode.flags & INLINE_DATA:
            old = self.fs.content(inode, 0, inode.size)
            if end <= 60:
                self._set_inline(inode, old[:offset].ljust(offset, b"\0") + bytes(data) + old[end:])
                self._modified(inode, now)
                return
            self._unfold(inode)
        if end > inode.size:
            self._clean_tail(inode)
        self.store_content(inode, data, offset)
        inode.size = max(inode.size, end)
        self._modified(inode, now)

    def truncate(self, number: int, size: int, now: int) -> None:
        inode = self._file(number)
        if size < 0:
            raise GuestError(errno.EINVAL)
        if size > self._limit(inode):
            raise GuestError(errno.EFBIG)
        if inode.flags & INLINE_DATA:
            content = self.fs.content(inode, 0, inode.size)[:size]
            if size <= 60 and self._set_inline(inode, content.ljust(size, b"\0")):
                self._modified(inode, now)
                return
            self._unfold(inode)
        if size < inode.size:
            self._cut(inode, size)
            inode.size = size
            self._clean_tail(inode)
        elif size > inode.size:
            self._clean_tail(inode)
            inode.size = size
        self._modified(inode, now)

    # ---- names

    def create(
        self, directory: int, name: bytes, mode: int, uid: int, gid: int, now: int, rdev: int, target: bytes
    ) -> int:
        parent = self._directory(directory)
        self._name(name)
        if not parent.nlink:
            raise GuestError(errno.ENOENT)
        if name in (b".", b"..") or self.fs.directories.lookup(parent, name) is not None:
            raise GuestError(errno.EEXIST)
        kind = _stat.S_IFMT(mode)
        if kind not in _KINDS:
            raise GuestError(errno.EINVAL)
        is_dir = kind == _stat.S_IFDIR
        if is_dir:
            self._check_links(parent)
        if kind == _stat.S_IFLNK:
            if not target:
                raise GuestError(errno.ENOENT)
            if len(target) + 1 > min(self.size, 4096):
                raise GuestError(errno.ENAMETOOLONG)
            if b"\0" in target:
                raise GuestError(errno.EINVAL)
            mode = _stat.S_IFLNK | 0o777
        if parent.mode & _stat.S_ISGID:
            gid = parent.gid
            if is_dir:
                mode |= _stat.S_ISGID
        number = self.allocator.allocate_inode(directory, is_dir)
        inode = self.fresh_inode(number, mode, uid, gid, self._noted(now))
        mask = _INHERITED if kind in (_stat.S_IFREG, _stat.S_IFDIR) else _INHERITED_OTHER
        inode.flags = parent.flags & mask & ~(0 if is_dir else 0x10000)
        inode.nlink = 2 if is_dir else 1
        self.touch(inode)
        uses = bool(self.sb.incompat & FEATURE_EXTENTS)
        if kind in (_stat.S_IFREG, _stat.S_IFDIR) or (kind == _stat.S_IFLNK and len(target) >= 60):
            inode.flags |= EXTENTS if uses else 0
            inode.block = empty(uses)
        if is_dir:
            self.directories.begin(inode, directory)
        elif kind == _stat.S_IFLNK:
            inode.size = len(target)
            if len(target) < 60:
                inode.block = target.ljust(60, b"\0")
            else:
                # the block is mapped as a file's is; the kind of mapping goes by the flag
                self.store_content(inode, target)
        elif kind in (_stat.S_IFCHR, _stat.S_IFBLK):
            inode.block = _device(rdev)
        if kind != _stat.S_IFLNK:
            self._inherit_acl(parent, inode)
        self.directories.add(parent, name, number, file_kind(mode))
        if is_dir:
            self._more_links(parent)
        self._modified(parent, now)
        return number

    def _inherit_acl(self, parent: Inode, inode: Inode) -> None:
        """A directory's default ACL is what new files in it get."""
        if not parent.acl and len(parent.raw) == 128:
            return
        found = [
            entry for entry in (*xattr.in_inode(parent), *xattr.in_block(self.fs.volume, parent)) if entry.index == 3
        ]
        if not found:
            return
        stored = found[0].value
        own, bits = acl_with_mode(stored, inode.mode, mask=True)
        inode.mode = inode.mode & ~0o777 | bits
        if inode.is_dir:
            self.attributes.set(inode, 3, b"", stored)
        shown = xattr.acl_shown(own)
        trimmed, _ = acl_stored(shown)
        if trimmed is not None:
            self.attributes.set(inode, 2, b"", trimmed)

    def _check_links(self, inode: Inode) -> None:
        most = LINK_MAX if self.sb.kind == "ext4" else _LINK_MAX_SMALL
        if inode.nlink >= most and not (inode.is_dir and self.sb.ro_compat & DIR_NLINK and inode.flags & INDEX):
            raise GuestError(errno.EMLINK)

    def _more_links(self, inode: Inode) -> None:
        if inode.nlink != 1:
            inode.nlink += 1
            if inode.nlink > LINK_MAX:
                inode.nlink = 1

    def _fewer_links(self, inode: Inode) -> None:
        if inode.nlink > 2:
            inode.nlink -= 1

    def link(self, number: int, directory: int, name: bytes, now: int) -> None:
        parent = self._directory(directory)
        inode = self.fs.inodes.live(number)
        self._name(name)
        if inode.is_dir or inode.flags & (IMMUTABLE | APPEND):
            raise GuestError(errno.EPERM)
        if name in (b".", b"..") or self.fs.directories.lookup(parent, name) is not None:
            raise GuestError(errno.EEXIST)
        self._check_links(inode)
        self.directories.add(parent, name, number, file_kind(inode.mode))
        inode.nlink += 1
        inode.ctime = self._noted(now)
        self.touch(inode)
        self._modified(parent, now)

    def _found(self, parent: Inode, name: bytes) -> Inode:
        self._name(name)
        found = self.fs.directories.lookup(parent, name)
        if found is None:
            raise GuestError(errno.ENOENT)
        inode = self.fs.inodes.live(found[0])
        if inode.flags & (IMMUTABLE | APPEND) or parent.flags & APPEND:
            raise GuestError(errno.EPERM)
        return inode

    def unlink(self, directory: int, name: bytes, now: int) -> None:
        parent = self._directory(directory)
        if name in (b".", b".."):
            raise GuestError(errno.EISDIR)
        inode = self._found(parent, name)
        if inode.is_dir:
            raise GuestError(errno.EISDIR)
        self.directories.remove(parent, name)
        self._modified(parent, now)
        self._unlinked(inode, now)

    def _unlinked(self, inode: Inode, now: int) -> None:
        inode.ctime = self._noted(now)
        inode.nlink -= 1
        self.touch(inode)
        if not inode.nlink:
            self.release(inode, now)

    def _empty(self, inode: Inode) -> bool:
        return all(name in (b".", b"..") for name, _, _ in self.fs.directories.entries(inode))

    def rmdir(self, directory: int, name: bytes, now: int) -> None:
        parent = self._directory(directory)
        if name == b".":
            raise GuestError(errno.EINVAL)
        if name == b"..":
            raise GuestError(errno.ENOTEMPTY)
        inode = self._found(parent, name)
        if not inode.is_dir:
            raise GuestError(errno.ENOTDIR)
        if not self._empty(inode):
            raise GuestError(errno.ENOTEMPTY)
        self.directories.remove(parent, name)
        self._fewer_links(parent)
        self._modified(parent, now)
        inode.ctime = now
        self.release(inode, now)

    def _is_below(self, directory: Inode, ancestor: int) -> bool:
        """Is a directory this one, or somewhere below it?"""
        seen: set[int] = set()
        number = directory.number
        while number not in seen:
            if number == ancestor:
                return True
            if number == self.fs.root:
                return False
            seen.add(number)
            found = self.fs.directories.lookup(self._directory(number, change=False), b"..")
            if found is None:
                break
            number = found[0]
        raise CorruptError(f"ext directory {directory.number}: its parents lead nowhere", layer="directory")

    def rename(self, old: int, old_name: bytes, new: int, new_name: bytes, now: int) -> None:
        source, target = self._directory(old), self._directory(new)
        self._name(new_name)
        if {old_name, new_name} & {b".", b".."}:
            raise GuestError(errno.EBUSY)
        inode = self._found(source, old_name)
        known = self.fs.directories.lookup(target, new_name)
        if known is not None and known[0] == inode.number:
            return
        if inode.is_dir and self._is_below(target, inode.number):
            raise GuestError(errno.EINVAL)
        replaced: Inode | None = None
        if known is not None:
            replaced = self._found(target, new_name)
            if inode.is_dir and not replaced.is_dir:
                raise GuestError(errno.ENOTDIR)
            if replaced.is_dir and not inode.is_dir:
                raise GuestError(errno.EISDIR)
            if replaced.is_dir and not self._empty(replaced):
                raise GuestError(errno.ENOTEMPTY)
        elif inode.is_dir and old != new:
            self._check_links(target)
        kind = file_kind(inode.mode)
        if replaced is not None:
            self.directories.lead(target, new_name, inode.number, kind)
        else:
            self.directories.add(target, new_name, inode.number, kind)
        self.directories.remove(source, old_name)
        if inode.is_dir and old != new:
            self.directories.lead(inode, b"..", new, 2)
            self._fewer_links(source)
            self._more_links(target)
        if replaced is not None:
            if replaced.is_dir:
                self._fewer_links(target)
                self.release(replaced, now)
            else:
                self._unlinked(replaced, now)
        inode.ctime = self._noted(now)
        self.touch(inode)
        self._modified(source, now)
        self._modified(target, now)

    # ---- attributes

    def set_attributes(
        self,
        number: int,
        now: int,
        mode: int | None,
        uid: int | None,
        gid: int | None,
        atime: int | None,
        mtime: int | None,
    ) -> None:
        inode = self.fs.inodes.live(number)
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
            for entry in (*xattr.in_inode(inode), *xattr.in_block(self.fs.volume, inode)):
                if entry.index == 2:
                    self.attributes.set(inode, 2, b"", acl_with_mode(entry.value, mode)[0])
                    break
        if atime is not None:
            inode.atime = atime
        if mtime is not None:
            inode.mtime = mtime
        inode.ctime = self._noted(now)
        self.touch(inode)

    def set_xattr(self, number: int, name: bytes, value: bytes, now: int) -> None:
        inode = self.fs.inodes.live(number)
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
            self.attributes.set(inode, index, b"", stored)
        else:
            self.attributes.set(inode, index, rest, value)
        inode.ctime = self._noted(now)
        self.touch(inode)

    def remove_xattr(self, number: int, name: bytes, now: int) -> None:
        inode = self.fs.inodes.live(number)
        if inode.flags & (IMMUTABLE | APPEND):
            raise GuestError(errno.EPERM)
        index, rest = split_name(name)
        if not self.attributes.set(inode, index, rest, None) and name not in ACLS:
            raise GuestError(errno.ENODATA)
        inode.ctime = self._noted(now)
        self.touch(inode)


def _short(value: bytes) -> bytes:
    """A default ACL as it is stored, even when it says no more than a mode."""
    out = []
    for at in range(4, len(value), 8):
        tag = int.from_bytes(value[at : at + 2], "little")
        out.append(value[at : at + (8 if tag in (2, 8) else 4)])
    return b"".join(out)


def _device(rdev: int) -> bytes:
    """i_block of a device node: the old encoding while it is enough."""
    major, minor = os.major(rdev), os.minor(rdev)
    if major < 256 and minor < 256:
        return (major << 8 | minor).to_bytes(4, "little").ljust(60, b"\0")
    return bytes(4) + (minor & 0xFF | major << 8 | (minor & ~0xFF) << 12).to_bytes(4, "little").ljust(56, b"\0")
