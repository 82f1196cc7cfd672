"""XFS behind the interface of file systems: inodes, files, names, attributes, symbolic links, free space."""

from __future__ import annotations

import errno
import os
import stat as _stat

from ....errors import CorruptError, FeatureError, ForeignError
from ..base import FileSystem, GuestError, Stat, StatVfs
from .attribute import attributes, kernel_names
from .directory import Directory
from .fork import Fork
from .inode import FLAG_REALTIME, FORMAT_BTREE, FORMAT_DEV, FORMAT_EXTENTS, FORMAT_LOCAL, Inode
from .log import Log
from .store import Store, damaged
from .superblock import RO_KNOWN, Superblock

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from ....block.node import Node
    from .edit import Edit
    from .journal import Journal
    from .replay import Intent, Replay

_INODES = 4096  # inodes kept in memory
_FORKS = 256
_EXTENTS_KEPT = 1 << 16  # forks with more extents than this are kept one at a time
MAX_LINK = 1024


class XfsFileSystem(FileSystem):
    """See base.FileSystem. ``allocates`` False: what needs other blocks than a file has is refused (`fits` tells)."""

    kind = "xfs"
    allocates = False

    def __init__(self, node: Node, *, writable: bool = False) -> None:
        super().__init__(node, writable=writable)
        if node.size < 512:
            raise ForeignError("not an XFS file system", layer="superblock", offset=0)
        self.store = Store(node)
        self._inodes: dict[int, Inode] = {}
        self._forks: dict[tuple[int, bool], Fork] = {}
        superblock = Superblock(node.read(0, min(node.size, 32768)))
        if superblock.size > node.size:
            raise CorruptError(
                f"XFS superblock: dblocks at offset 8 is {superblock.dblocks}, but the device ends after "
                f"{node.size // superblock.blocksize} blocks", layer="superblock", offset=8, field="dblocks",
                value=superblock.dblocks, limit=node.size // superblock.blocksize,
            )  # fmt: skip
        self._take(superblock)
        self._intents: dict[int, list[Intent]] = {}
        self._edit: Edit | None = None
        self._journal: Journal | None = None
        self.log = Log(node, superblock)
        self.dirty = not self.log.clean
        self.replay: Replay | None = None
        if self.dirty:
            self._replay()

    def _replay(self) -> None:
        """What the log holds is seen, and the device stays as it is."""
        from .replay import Replay

        self.replay = replay = Replay(self.store, self.log)
        replay.run()
        self._intents = replay.intents
        self._take(Superblock(self.store.read(0, self.superblock.sectsize), replayed=True))

    def _take(self, superblock: Superblock) -> None:
        self.superblock = self.store.superblock = superblock
        self.root = superblock.rootino
        self.label = superblock.label
        digits = superblock.uuid.hex()
        self.uuid = "-".join((digits[:8], digits[8:12], digits[12:16], digits[16:20], digits[20:]))
        self.block_size = superblock.blocksize

    # ---- inodes

    def inode(self, ino: int) -> Inode:
        """CorruptError for one that is damaged or free."""
        inode = self._inodes.get(ino)
        if inode is None:
            inode = Inode(self.store, ino)
            if len(self._inodes) >= _INODES:
                del self._inodes[next(iter(self._inodes))]
            self._inodes[ino] = inode
        return inode

    def fork(self, inode: Inode, *, attributes: bool = False) -> Fork | None:
        """The extents of a fork; None for one that is kept in the inode."""
        form = inode.aformat if attributes else inode.format
        if inode.flags & FLAG_REALTIME and inode.kind == _stat.S_IFREG and not attributes:
            raise FeatureError(
                f"XFS inode {inode.ino}: the file's bytes lie on a realtime device", layer=f"inode {inode.ino}",
                offset=inode.offset + 90, field="flags", value=hex(inode.flags),
            )  # fmt: skip
        if form not in (FORMAT_EXTENTS, FORMAT_BTREE):
            if form == FORMAT_LOCAL or (form == FORMAT_DEV and not attributes):
                return None
            name = "aformat" if attributes else "format"
            raise damaged(f"inode {inode.ino}", inode.offset, name, form, "0 to 3")
        key = (inode.ino, attributes)
        fork = self._forks.get(key)
        if fork is None:
            fork = Fork(self.store, inode, attributes=attributes)
            for intent in self._intents.get(inode.ino, ()):
                if intent.attributes == attributes:
                    intent.apply(fork)
            if len(self._forks) >= _FORKS or len(fork.starts) > _EXTENTS_KEPT:
                self._forks.clear()
            self._forks[key] = fork
        return fork

    def forget(self, ino: int) -> None:
        self._inodes.pop(ino, None)
        self._forks.pop((ino, False), None)
        self._forks.pop((ino, True), None)

    # ---- reading

    def stat(self, ino: int) -> Stat:
        inode = self.inode(ino)
        found = Stat(ino, inode.mode)
        found.nlink = inode.nlink
        found.uid = inode.uid
        found.gid = inode.gid
        found.size = inode.size
        found.blksize = max(4096, self.block_size)
        found.blocks = inode.nblocks << self.superblock.blocklog - 9
        found.atime, found.mtime, found.ctime, found.btime = inode.atime, inode.mtime, inode.ctime, inode.btime
        if inode.kind in (_stat.S_IFCHR, _stat.S_IFBLK):
            device = int.from_bytes(inode.data_fork[:4], "big")
            found.rdev = os.makedev(device >> 18, device & 0x3FFFF)
            found.blksize = 4096
        return found

    def _directory(self, ino: int) -> Directory:
        inode = self.inode(ino)
        if inode.kind != _stat.S_IFDIR:
            raise GuestError(errno.ENOTDIR)
        return Directory(self.store, inode, self.fork(inode))

    def lookup(self, directory: int, name: bytes) -> int | None:
        return self._directory(directory).lookup(name)

    def entries(self, directory: int) -> Iterator[tuple[bytes, int, str]]:
        return self._directory(directory).entries()

    def extents(self, ino: int, offset: int, length: int) -> Iterator[tuple[int, int, int | None]]:
        inode = self.inode(ino)
        if offset < 0 or length <= 0:
            return
        fork = self.fork(inode)
        if fork is None:
            raise damaged(f"inode {ino}", inode.offset, "format", inode.format, "one with extents")
        log = self.superblock.blocklog
        first, end = offset >> log, (offset + length + (1 << log) - 1) >> log
        at, stop = offset, offset + length
        held: tuple[int, int, int | None] | None = None
        for start, count, block, unwritten in fork.runs(first, end):
            until = min(stop, (start + count) << log)
            place = None
            if block is not None and not unwritten:
                place = self.superblock.block_offset(block) + at - (start << log)
            # neighbours are one request
            if held is not None and (
                held[2] + held[1] == place if held[2] is not None and place is not None else held[2] is place
            ):
                held = (held[0], held[1] + until - at, held[2])
            else:
                if held is not None:
                    yield held
                held = (at, until - at, place)
            at = until
        if held is not None:
            yield held

    def read(self, ino: int, offset: int, length: int) -> bytes:
        inode = self.inode(ino)
        if inode.kind == _stat.S_IFDIR:
            raise GuestError(errno.EISDIR)
        if inode.kind != _stat.S_IFREG:
            raise GuestError(errno.EINVAL)
        edit = self._edit
        sectors = self.store.file_sectors
        if (edit is None or not edit.data.runs) and not sectors:
            return super().read(ino, offset, length)
        length = max(0, min(length, inode.size - offset))
        buffer = bytearray(length)
        view = memoryview(buffer)
        for at, count, place in self.extents(ino, offset, length):
            if place is not None:
                part = view[at - offset : at - offset + count]
                self.node.read_into(place, part)
                if sectors:
                    self.store.lay_file_data(place, part)
                if edit is not None:
                    edit.data.lay_over(place, part)
        return bytes(buffer)

    def readlink(self, ino: int) -> bytes:
        inode = self.inode(ino)
        what = f"symbolic link {ino}"
        if inode.kind != _stat.S_IFLNK:
            raise GuestError(errno.EINVAL)
        if not 0 < inode.size <= MAX_LINK:
            raise damaged(what, inode.offset, "size", inode.size, f"1 to {MAX_LINK}")
        if inode.format == FORMAT_LOCAL:
            if inode.size > len(inode.data_fork):
                raise damaged(what, inode.offset, "size", inode.size, f"at most {len(inode.data_fork)}")
            return inode.data_fork[: inode.size]
        fork = self.fork(inode)
        assert fork is not None
        target = b""
        size = self.block_size
        for count, block in zip(fork.counts, fork.blocks, strict=True):
            left = inode.size - len(target)
            if left <= 0:
                break
            # one header a run of blocks, and no more blocks than the link can need
            count = min(count, (MAX_LINK + 56 + size - 1) // size + 1)
            offset = self.store.block_offset(block, count, what, inode.offset)
            raw = self.store.read(offset, count * size)
            if not self.superblock.v5:
                target += raw[:left]
                continue
            if raw[:4] != b"XSLM":
                raise damaged(what, offset, "magic", raw[:4].hex(), "XSLM")
            self.store.verify(raw, offset, 12, what)
            self.store.check_identity(raw, offset, 40, 16, what)
            self.store.check_owner(raw, offset, 32, ino, what)
            at, length = int.from_bytes(raw[4:8], "big"), int.from_bytes(raw[8:12], "big")
            if at != len(target) or length != min(left, len(raw) - 56):
                raise damaged(what, offset, "offset and bytes", f"{at}+{length}", f"{len(target)}+{left}")
            target += raw[56 : 56 + length]
        if len(target) != inode.size:
            raise damaged(what, inode.offset, "size", inode.size, f"{len(target)} as stored")
        return target

    def xattrs(self, ino: int) -> dict[bytes, bytes]:
        inode = self.inode(ino)
        if not inode.attr_fork:
            return {}
        found: dict[bytes, bytes] = {}
        for attribute in attributes(self.store, inode, self.fork(inode, attributes=True)):
            found.update(kernel_names(attribute))
        return found

    def statvfs(self) -> StatVfs:
        from .space import statvfs

        return statvfs(self.store, recount=self.dirty)

    # ---- writing, within the blocks that a file has

    def _change(self, verb: str) -> Edit:
        """What collects changes. GuestError EROFS."""
        if not self.writable:
            raise self._refusal(verb)
        if self._edit is None:
            unknown = self.superblock.features_ro_compat & ~RO_KNOWN
            if unknown:
                raise GuestError(
                    errno.EROFS, hint=f"the file system has features that are not known here: {unknown:#x}"
                )
            self.journal()
            from .edit import Edit

            self._edit = Edit(self)
        return self._edit

    def journal(self) -> Journal:
        """The log to write to. GuestError EROFS when it can't be gone on with."""
        if self._journal is None:
            from .journal import Journal

            self._journal = Journal(self.log)
        return self._journal

    def refuse_unfinished(self, ino: int) -> None:
        """GuestError EROFS for an inode whose mappings the log has promised to change."""
        if ino in self._intents:
            raise GuestError(
                errno.EROFS, "the log holds mappings of the file's blocks that are not made yet",
                hint="start the guest or mount the file system once before changing this file",
            )  # fmt: skip

    def settled(self) -> None:
        """The log is clean, and everything that it held is on the device."""
        self.store.settle()
        if self.dirty:
            self._take(Superblock(self.store.read(0, self.superblock.sectsize)))
        self.dirty = False
        self.replay = None

    def fits(self, ino: int, size: int) -> bool:
        """Can a regular file's bytes be replaced by ``size`` others in the blocks that it has?"""
        return self._change("write").fits(ino, size)

    def write(self, ino: int, offset: int, data: bytes | memoryview, now: int) -> None:
        self._change("write").write(ino, offset, memoryview(data).cast("B"), now)

    def truncate(self, ino: int, size: int, now: int) -> None:
        self._change("truncate").truncate(ino, size, now)

    def set_attributes(
        self,
        ino: int,
        now: int,
        *,
        mode: int | None = None,
        uid: int | None = None,
        gid: int | None = None,
        atime: int | None = None,
        mtime: int | None = None,
    ) -> None:
        self._change("set_attributes").set_attributes(ino, now, mode, uid, gid, atime, mtime)

    def set_xattr(self, ino: int, name: bytes, value: bytes, now: int) -> None:
        edit = self._change("set_xattr")
        from .attribute_edit import set_xattr

        set_xattr(edit, ino, name, value, now)

    def remove_xattr(self, ino: int, name: bytes, now: int) -> None:
        edit = self._change("remove_xattr")
        from .attribute_edit import remove_xattr

        remove_xattr(edit, ino, name, now)

    def set_label(self, label: str) -> None:
        edit = self._change("set_label")
        from .label import set_label

        set_label(edit, label)
        self.label = label

    def sync(self) -> None:
        if self._edit is not None:
            self._edit.sync()

    def discard_changes(self) -> None:
        if self._edit is not None:
            self._edit.discard()
            self._take(self.superblock)

    def close(self) -> None:
        self.discard_changes()
        self._inodes.clear()
        self._forks.clear()
