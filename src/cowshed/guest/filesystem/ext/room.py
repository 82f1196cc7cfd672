"""A journal that is too short for a change is made longer for it, and short again.

Three transactions: the journal's inode takes free blocks (this is of the old state, and fits), the change itself, the
blocks are given back. A cut between them leaves a file system with a longer journal, and nothing else.
"""

from __future__ import annotations

import struct

from ..base import GuestError
from . import journal
from .extents import Run
from .journal import Journal

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .filesystem import ExtFileSystem
    from .inode import Inode
    from .write import Writer


class Room:
    """Blocks that the journal has for one change. ``size`` and ``length``: its bytes and its blocks before."""

    def __init__(self, fs: ExtFileSystem, writer: Writer) -> None:
        self.fs = fs
        self.writer = writer
        self.size = 0
        self.length = 0

    def take(self, blocks: int) -> bool:
        """Make the journal ``blocks`` longer, on the device too; False where there is not the room. The change itself
        is flushed again as far as it follows from that."""
        from .filesystem import ExtFileSystem

        fs, writer = self.fs, self.writer
        log = fs.journal
        assert log is not None
        inode = fs.inodes[fs.sb.journal_inode]
        # the end of the ring would move into what fast commits wrote
        if log.fast or journal.HEADER.unpack_from(log.raw)[1] != journal.SUPER_V2 or log.total >= 1 << 31:
            return False
        mapping = writer.mapping(inode)
        trees = set(mapping.tree)
        taken: list[tuple[int, int]] = []
        self.size, self.length = inode.size, log.end
        at, left = inode.size // fs.block_size, blocks
        try:
            while left:
                place, count = writer.allocator.allocate(mapping.goal(at) or 0, left)
                mapping.insert(Run(at, count, place))
                taken.append((place, count))
                at += count
                left -= count
            inode.sectors += blocks * (fs.block_size // 512)
            inode.size += blocks * fs.block_size
            writer.touch(inode)
            writer.flush_inode(inode)
        except GuestError:
            for place, count in taken:
                writer.allocator.free(place, count)
            writer.mappings.pop(inode.number, None)
            fs.inodes.changed.pop(inode.number, None)
            fs.inodes.forget()
            writer.allocator.store()
            return False
        writer.allocator.store()
        self._back_up(fs, inode)
        # the same of the old state, as the device has it
        old = ExtFileSystem(fs.node, writable=True)
        try:
            same = old.inodes[inode.number]
            same.block, same.size, same.sectors = inode.block, inode.size, inode.sectors
            for place, count in (*taken, *((place, 1) for place in mapping.tree if place not in trees)):
                old.writer.allocator.take(place, count)
            for place in mapping.tree:
                old.volume.change(place)[:] = fs.volume.block(place)
            old.writer.touch(same)
            old.writer.now = writer.now
            self._back_up(old, same)
            old.sync()
        finally:
            old.close()
        log = fs.journal = Journal(fs)
        self._limit(log, log.total)
        return True

    def give_back(self) -> None:
        """The change is on the device and the journal is empty: it is as long as it was."""
        fs, writer = self.fs, self.writer
        log = fs.journal
        assert log is not None
        self._limit(log, self.length)
        inode = fs.inodes[fs.sb.journal_inode]
        for place, count in writer.mapping(inode).remove(self.size // fs.block_size, 1 << 62):
            writer.allocator.free(place, count)
            inode.sectors -= count * (fs.block_size // 512)
        inode.size = self.size
        writer.touch(inode)
        writer.flush_inode(inode)
        self._back_up(fs, inode)
        fs.journal = None

    @staticmethod
    def _limit(log: Journal, length: int) -> None:
        """s_maxlen, while the journal is empty."""
        log.end = length
        struct.pack_into(">I", log.raw, 0x10, length)
        log.store()
        log.fs.node.flush()

    @staticmethod
    def _back_up(fs: ExtFileSystem, inode: Inode) -> None:
        """The superblock's copy of where the journal is (s_jnl_blocks)."""
        if fs.sb.raw[0xFD] == 1:
            fs.sb.raw[0x10C:0x148] = inode.block
            struct.pack_into("<II", fs.sb.raw, 0x148, inode.size >> 32, inode.size & 0xFFFFFFFF)
