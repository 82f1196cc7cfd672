"""Changes in place: what needs no other blocks than a file has.

File data waits in `Pending`, changed inodes and attribute blocks in the store's overlay. `Edit.sync` checks the
changed inodes and hands everything to checkpoint.py, which brings it to the device through the log.
"""

from __future__ import annotations

import errno
import stat
import struct

from ....errors import RangeError
from ...crc32c import crc32c
from ..base import GuestError
from .fork import Fork
from .inode import BIGTIME_EPOCH, FLAG2_BIGTIME, FLAG2_REFLINK, FLAG_REALTIME, FORMAT_EXTENTS, Inode
from .pending import Pending
from .store import SECTOR
from .superblock import RO_RMAPBT

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .filesystem import XfsFileSystem

FLAG_IMMUTABLE, FLAG_APPEND = 0x8, 0x10
MAX_EXTENT = (1 << 21) - 1  # blocks of one extent
QUOTA_ACCOUNTING = 0x1 | 0x8 | 0x40
MOUNT_HINT = "mount the file system in a guest to do this"


def not_possible(what: str, hint: str = MOUNT_HINT) -> GuestError:
    return GuestError(errno.EOPNOTSUPP, what, hint=hint)


class Edit:
    """The changes of one file system that are not on the device yet."""

    def __init__(self, fs: XfsFileSystem) -> None:
        self.fs = fs
        self.store = fs.store
        self.superblock = fs.superblock
        self.data = Pending()
        self.inodes: set[int] = set()
        self.structures: dict[int, int] = {}  # offset -> length of metadata that changed
        self._before: dict[int, bytes | None] = {}  # sector -> what was laid over the device before

    @property
    def empty(self) -> bool:
        return not self.structures and not self.data.runs

    # ---- metadata

    def change_block(self, offset: int, raw: bytes | bytearray, crc_at: int) -> None:
        """A changed metadata structure; its checksum is made anew in version 5."""
        block = bytearray(raw)
        if self.superblock.v5:
            block[crc_at : crc_at + 4] = bytes(4)
            block[crc_at : crc_at + 4] = crc32c(block).to_bytes(4, "little")
        first = offset // SECTOR * SECTOR
        end = (offset + len(block) + SECTOR - 1) // SECTOR * SECTOR
        whole = bytearray(self.store.read(first, end - first))
        whole[offset - first : offset - first + len(block)] = block
        for sector in range(first // SECTOR, end // SECTOR):
            self._before.setdefault(sector, self.store.overlay.get(sector))
        self.store.lay(first, whole)
        self.structures[offset] = len(block)

    def change_inode(self, inode: Inode, raw: bytearray, now: int, *, modified: bool = False) -> None:
        """A changed inode; ctime, and mtime when its contents were ``modified``, become ``now``. GuestError EROFS
        for one that the log still has to finish something of."""
        self.fs.refuse_unfinished(inode.ino)
        if modified:
            raw[40:48] = self.time(inode, now)
        raw[48:56] = self.time(inode, now)
        if inode.version == 3:
            count = int.from_bytes(raw[104:112], "big")
            raw[104:112] = (count + 1 & (1 << 64) - 1).to_bytes(8, "big")
        self.change_block(inode.offset, raw, 100)
        self.inodes.add(inode.ino)
        self.fs.forget(inode.ino)

    def time(self, inode: Inode, value: int) -> bytes:
        """A time as the inode keeps it; what is beyond its range becomes the range's end, as the kernel does it."""
        if inode.flags2 & FLAG2_BIGTIME:
            # the kernel's last second is 2486-07-02 20:20:24
            return min(max(value + BIGTIME_EPOCH, 0), (1 << 64) - 1).to_bytes(8, "big")
        seconds, rest = divmod(value, 1_000_000_000)
        if not -(1 << 31) <= seconds < 1 << 31:
            seconds, rest = (-(1 << 31) if seconds < 0 else (1 << 31) - 1), 0
        return struct.pack(">iI", seconds, rest)

    # ---- file data

    def regular(self, ino: int) -> tuple[Inode, Fork]:
        """A regular file whose bytes may be written over. GuestError EISDIR, EINVAL, EPERM, EOPNOTSUPP."""
        inode = self.fs.inode(ino)
        if inode.kind == stat.S_IFDIR:
            raise GuestError(errno.EISDIR)
        if inode.kind != stat.S_IFREG:
            raise GuestError(errno.EINVAL)
        if inode.flags & (FLAG_IMMUTABLE | FLAG_APPEND):
            raise GuestError(errno.EPERM, hint="the file is immutable or append-only")
        self.fs.refuse_unfinished(ino)
        if inode.flags & FLAG_REALTIME:
            raise not_possible("the file's bytes lie on a realtime device")
        if inode.flags2 & FLAG2_REFLINK:
            raise not_possible("the file shares its blocks with a clone")
        fork = self.fs.fork(inode)
        if fork is None:
            raise not_possible("the file has no blocks")
        return inode, fork

    def fits(self, ino: int, size: int) -> bool:
        """Can the file's bytes be replaced by ``size`` others without other blocks than it has?"""
        try:
            inode, fork = self.regular(ino)
            end = size + (1 << self.superblock.blocklog) - 1 >> self.superblock.blocklog
            if any(block is None for _, _, block, _ in fork.runs(0, end)):
                return False
            return self._written_fork(inode, fork, 0, end) is not None
        except GuestError:
            return False

    def write(self, ino: int, offset: int, data: memoryview, now: int) -> None:
        inode, fork = self.regular(ino)
        if not len(data):
            return
        log = self.superblock.blocklog
        end = offset + len(data)
        if offset < 0 or end >= 1 << 63:
            raise GuestError(errno.EFBIG)
        first, stop = offset >> log, end + (1 << log) - 1 >> log
        runs = list(fork.runs(first, stop))
        if any(block is None for _, _, block, _ in runs):
            raise not_possible(f"{len(data)} bytes at {offset} need blocks that the file does not have")
        records = self._written_fork(inode, fork, first, stop)
        if records is None:
            raise not_possible("the file's blocks are reserved but not written yet, and marking them takes others")
        raw = bytearray(inode.raw)
        if offset > inode.size:
            self._zero_written(fork, inode.size, offset)
        self._complete(runs, fork, inode, offset, end)
        for start, count, block, _ in runs:
            assert block is not None
            at = max(offset, start << log)
            until = min(end, start + count << log)
            place = self.superblock.block_offset(block) + at - (start << log)
            self.data.add(place, data[at - offset : until - offset])
        if records:
            raw[inode.core : inode.core + len(records)] = records
            _set_extents(raw, inode, len(records) // 16)
        if end > inode.size:
            raw[56:64] = end.to_bytes(8, "big")
        self.change_inode(inode, raw, now, modified=True)

    def _complete(
        self, runs: list[tuple[int, int, int | None, bool]], fork: Fork, inode: Inode, offset: int, end: int
    ) -> None:
        """Zero what lies around the bytes in blocks that become readable: never written ones, and past the end."""
        log = self.superblock.blocklog
        start, count, block, unwritten = runs[0]
        assert block is not None
        if unwritten and offset > start << log:
            self.data.zero(self.superblock.block_offset(block), offset - (start << log))
        start, count, block, unwritten = runs[-1]
        assert block is not None
        rest = (start + count << log) - end
        if rest and (unwritten or end > inode.size):
            self.data.zero(self.superblock.block_offset(block) + end - (start << log), rest)

    def _zero_written(self, fork: Fork, begin: int, end: int) -> None:
        """Zero the bytes from the old end of a file on: blocks past it may hold anything."""
        log = self.superblock.blocklog
        for start, count, block, unwritten in fork.runs(begin >> log, end + (1 << log) - 1 >> log):
            if block is None or unwritten:
                continue
            at, until = max(begin, start << log), min(end, start + count << log)
            self.data.zero(self.superblock.block_offset(block) + at - (start << log), until - at)

    def _written_fork(self, inode: Inode, fork: Fork, first: int, stop: int) -> bytes | None:
        """The extent list with [first, stop) marked as written; empty when it is so, None when it is not possible."""
        if not any(unwritten for _, _, _, unwritten in fork.runs(first, stop)):
            return b""
        if inode.format != FORMAT_EXTENTS or self.superblock.features_ro_compat & RO_RMAPBT:
            return None
        rows: list[tuple[int, int, int, int]] = []
        for start, block, count, flag in zip(fork.starts, fork.blocks, fork.counts, fork.unwritten, strict=True):
            for low, high, state in (
                (start, min(start + count, first), flag),
                (max(start, first), min(start + count, stop), 0),
                (max(start, stop), start + count, flag),
            ):
                if low >= high:
                    continue
                piece = (low, block + low - start, high - low, state)
                if rows:
                    before = rows[-1]
                    if (
                        before[0] + before[2] == low
                        and before[1] + before[2] == piece[1]
                        and before[3] == state
                        and before[2] + piece[2] <= MAX_EXTENT
                    ):
                        piece = (before[0], before[1], before[2] + piece[2], state)
                        rows.pop()
                rows.append(piece)
        if len(rows) * 16 > len(inode.data_fork):
            return None
        return b"".join(
            (flag << 127 | start << 73 | block << 21 | count).to_bytes(16, "big") for start, block, count, flag in rows
        )

    def truncate(self, ino: int, size: int, now: int) -> None:
        inode, fork = self.regular(ino)
        if size < 0:
            raise GuestError(errno.EINVAL)
        if size >= 1 << 63:
            raise GuestError(errno.EFBIG)
        block = 1 << self.superblock.blocklog
        if size < inode.size:
            # the rest of the last block reads as zeroes when the file grows again
            self._zero_written(fork, size, min(inode.size, (size + block - 1) // block * block))
        else:
            self._zero_written(fork, inode.size, size)
        raw = bytearray(inode.raw)
        raw[56:64] = size.to_bytes(8, "big")
        self.change_inode(inode, raw, now, modified=True)

    # ---- attributes of the inode

    def set_attributes(
        self,
        ino: int,
        now: int,
        mode: int | None,
        uid: int | None,
        gid: int | None,
        atime: int | None,
        mtime: int | None,
    ) -> None:
        inode = self.fs.inode(ino)
        if inode.flags & (FLAG_IMMUTABLE | FLAG_APPEND):
            raise GuestError(errno.EPERM, hint="the file is immutable or append-only")
        changes_owner = (uid is not None and uid != inode.uid) or (gid is not None and gid != inode.gid)
        if changes_owner and self.superblock.qflags & QUOTA_ACCOUNTING:
            raise not_possible("the file system counts blocks by owner (quotas)")
        new_mode = inode.mode
        if (uid is not None or gid is not None) and inode.kind != stat.S_IFDIR:
            # the kernel takes these from whom a file is given to
            new_mode &= ~stat.S_ISUID
            if new_mode & stat.S_IXGRP:
                new_mode &= ~stat.S_ISGID
        if mode is not None:
            from .attribute_edit import follow_mode

            new_mode = new_mode & ~0o7777 | mode & 0o7777
            follow_mode(self, ino, new_mode)
            inode = self.fs.inode(ino)
        raw = bytearray(inode.raw)
        raw[2:4] = new_mode.to_bytes(2, "big")
        if uid is not None:
            raw[8:12] = (uid & 0xFFFFFFFF).to_bytes(4, "big")
        if gid is not None:
            raw[12:16] = (gid & 0xFFFFFFFF).to_bytes(4, "big")
        if atime is not None:
            raw[32:40] = self.time(inode, atime)
        if mtime is not None:
            raw[40:48] = self.time(inode, mtime)
        self.change_inode(inode, raw, now)

    # ---- the end

    def sync(self) -> None:
        if self.empty:
            return
        # what can't be read back must not be written
        for ino in self.inodes:
            self.fs.forget(ino)
            inode = self.fs.inode(ino)
            self.fs.fork(inode)
            self.fs.fork(inode, attributes=True) if inode.attr_fork else None
        for start, length, _ in self.data.runs:
            if start < 0 or start + length > self.superblock.size:
                raise RangeError("file data outside the file system", offset=start, value=length)
        from .checkpoint import Checkpoint

        Checkpoint(self).run()
        self._forget()

    def discard(self) -> None:
        for sector, before in self._before.items():
            self.store.drop(sector * SECTOR, SECTOR)
            if before is not None:
                self.store.lay(sector * SECTOR, before)
        for ino in self.inodes:
            self.fs.forget(ino)
        self._forget()

    def _forget(self) -> None:
        self.data.clear()
        self.inodes.clear()
        self.structures.clear()
        self._before.clear()


def _set_extents(raw: bytearray, inode: Inode, count: int) -> None:
    """The number of the data fork's extents, where the inode keeps it."""
    if inode.flags2 & 0x10:
        raw[24:32] = count.to_bytes(8, "big")
    else:
        raw[76:80] = count.to_bytes(4, "big")
