"""Changes of ext2, ext3 and ext4, kept in memory until commit.py brings them to the device: what the verbs share.

The verbs are in names.py, content.py and attributes.py.
"""

from __future__ import annotations

import errno
import os

from ....errors import CorruptError
from ...spool import Spool
from ..base import GuestError
from .allocate import Allocator
from .content import cut
from .directory_write import DirectoryWriter
from .extents import Run
from .inode import EXTENTS, IMMUTABLE, INLINE_DATA, Inode
from .mapping import Mapping, empty
from .superblock import EXTRA_ISIZE, LARGE_FILE
from .xattr_write import AttributeWriter

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .filesystem import ExtFileSystem


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
                    cut(self, inode, inode.size)
            else:
                self.release(inode, max(inode.ctime, 10**9))
        if seen:
            self.sb.set(0xE8, 0)
            self.super_changed = True

    # ---- inodes

    def touch(self, inode: Inode) -> None:
        self.fs.inodes.changed[inode.number] = inode

    def noted(self, now: int) -> int:
        self.now = max(self.now, now)
        return now

    def modified(self, inode: Inode, now: int) -> None:
        """The content of an inode changed."""
        inode.mtime = inode.ctime = self.noted(now)
        self.touch(inode)

    def directory(self, number: int, *, change: bool = True) -> Inode:
        inode = self.fs.inodes.live(number)
        if not inode.is_dir:
            raise GuestError(errno.ENOTDIR)
        if change and inode.flags & IMMUTABLE:
            raise GuestError(errno.EPERM)
        return inode

    def check_name(self, name: bytes) -> None:
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
