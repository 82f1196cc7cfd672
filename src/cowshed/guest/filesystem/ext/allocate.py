"""Finding and giving back blocks and inodes: bitmaps, their groups' counts, groups that were never initialised.

What is freed is not given out again before it is on the device: until then the old state may be what is left.
"""

from __future__ import annotations

import errno

from ....errors import CorruptError
from ..base import GuestError
from .crc import crc32c
from .groups import BLOCK_UNINIT, INODE_UNINIT, Group

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .filesystem import ExtFileSystem

#: states of a block or inode: freed and fresh ones are of the change that is being made
FREE, USED, FREED, FRESH = range(4)

_TO_STATE = bytes(1 if value == 0x31 else 0 for value in range(256))
_TO_TEXT = bytes(0x31 if value in (USED, FRESH) else 0x30 for value in range(256))
_SETTLE = bytes({FREED: FREE, FRESH: USED}.get(value, value) for value in range(256))


def unpack(bitmap: bytes | bytearray, bits: int) -> bytearray:
    """One byte a bit, the lowest bit first."""
    value = int.from_bytes(bitmap[: bits + 7 >> 3], "little")
    text = format(value | 1 << bits, "b").encode()[:0:-1] if bits else b""
    return bytearray(text[:bits].translate(_TO_STATE))


def pack(states: bytearray, size: int) -> bytearray:
    """The bitmap of ``size`` bytes; bits past the end are set."""
    value = int(states.translate(_TO_TEXT)[::-1], 2)
    value |= (1 << size * 8) - (1 << len(states))
    return bytearray(value.to_bytes(size, "little"))


class Allocator:
    """Blocks and inodes of one file system. ``free_blocks`` and ``free_inodes``: how the totals changed."""

    def __init__(self, fs: ExtFileSystem) -> None:
        self.fs = fs
        self.sb = fs.sb
        self.block_states: dict[int, bytearray] = {}
        self.inode_states: dict[int, bytearray] = {}
        self.changed_blocks: set[int] = set()
        self.changed_inodes: set[int] = set()
        self.changed_groups: set[int] = set()
        self.free_blocks = 0
        self.free_inodes = 0
        #: blocks of inode tables that were beyond what is in use (bg_itable_unused), until the last sync
        self.unborn: set[int] = set()

    def forget(self) -> None:
        """Nothing of it happened."""
        self.block_states.clear()
        self.inode_states.clear()
        self._clean()

    def settle(self) -> None:
        """All of it is on the device."""
        for number in self.changed_blocks:
            self.block_states[number] = self.block_states[number].translate(_SETTLE)
        for number in self.changed_inodes:
            self.inode_states[number] = self.inode_states[number].translate(_SETTLE)
        if len(self.block_states) > 256:
            self.block_states.clear()
        self._clean()

    def _clean(self) -> None:
        self.changed_blocks.clear()
        self.changed_inodes.clear()
        self.changed_groups.clear()
        self.unborn.clear()
        self.free_blocks = self.free_inodes = 0

    # ---- bitmaps

    def _check(self, group: Group, what: str, bitmap: bytes | bytearray, size: int, stored: int) -> None:
        if self.sb.metadata_csum:
            summed = crc32c(self.sb.seed, bitmap[:size])
            if self.sb.desc_size < 64:
                summed &= 0xFFFF
            if summed != stored:
                raise CorruptError(
                    f"ext {what} bitmap of group {group.number}: the checksum is {stored:#010x}, its bytes have "
                    f"{summed:#010x}", layer=f"{what} bitmap {group.number}", field=f"bg_{what}_bitmap_csum",
                    value=f"{stored:#010x}", limit=f"{summed:#010x}", hint="e2fsck can repair it",
                )  # fmt: skip

    def blocks_of(self, number: int) -> bytearray:
        """The states of a group's blocks."""
        states = self.block_states.get(number)
        if states is not None:
            return states
        sb = self.sb
        group = self.fs.groups[number]
        count = sb.group_blocks(number)
        if group.flags & BLOCK_UNINIT and sb.gdt_csum:
            states = self._initial(number, count)
        else:
            bitmap = self.fs.volume.block(group.block_bitmap, "block bitmap")
            self._check(group, "block", bitmap, sb.clusters_per_group // 8, group.block_bitmap_csum)
            states = unpack(bitmap, count)
        self.block_states[number] = states
        return states

    def _initial(self, number: int, count: int) -> bytearray:
        """The blocks of a group whose bitmap was never written: only those of the file system itself are used."""
        sb = self.sb
        first = sb.group_first_block(number)
        states = bytearray(count)
        own = sb.has_super(number) + sb.group_desc_blocks(number)
        states[: min(own, count)] = b"\1" * min(own, count)
        group = self.fs.groups[number]
        for place, length in (
            (group.block_bitmap, 1), (group.inode_bitmap, 1), (group.inode_table, sb.inode_table_blocks)
        ):  # fmt: skip
            for block in range(max(place, first), min(place + length, first + count)):
                states[block - first] = USED
        return states

    def inodes_of(self, number: int) -> bytearray:
        """The states of a group's inodes."""
        states = self.inode_states.get(number)
        if states is not None:
            return states
        sb = self.sb
        group = self.fs.groups[number]
        if group.flags & INODE_UNINIT and sb.gdt_csum:
            states = bytearray(sb.inodes_per_group)
        else:
            bitmap = self.fs.volume.block(group.inode_bitmap, "inode bitmap")
            self._check(group, "inode", bitmap, sb.inodes_per_group // 8, group.inode_bitmap_csum)
            states = unpack(bitmap, sb.inodes_per_group)
        self.inode_states[number] = states
        return states

    # ---- blocks

    def allocate(self, goal: int, count: int, least: int = 1) -> tuple[int, int]:
        """(first, count) of free blocks that lie together, as many as there are of ``count``, near ``goal``.
        GuestError ENOSPC."""
        sb = self.sb
        if not sb.first_data_block <= goal < sb.blocks:
            goal = sb.first_data_block
        home, within = divmod(goal - sb.first_data_block, sb.blocks_per_group)
        states = self.blocks_of(home)
        if states[within] == FREE and self.fs.groups[home].free_blocks:
            # going on where the file ends is better than anything else
            end = within + 1
            top = min(within + count, len(states))
            if not any(states[end:top]):
                end = top
            else:
                while end < top and states[end] == FREE:
                    end += 1
            if end - within >= min(count, 16):
                return self._take(home, within, end - within)
        count = min(count, sb.blocks_per_group)
        while count:
            for step in range(sb.groups):
                number = (home + step) % sb.groups
                if self.fs.groups[number].free_blocks < count:
                    continue
                states = self.blocks_of(number)
                pattern = bytes(count)
                at = states.find(pattern, within) if not step else -1
                if at < 0:
                    at = states.find(pattern)
                if at >= 0:
                    return self._take(number, at, count)
            count //= 2
        raise GuestError(errno.ENOSPC)

    def _take(self, number: int, at: int, count: int) -> tuple[int, int]:
        states = self.blocks_of(number)
        states[at : at + count] = bytes((FRESH,)) * count
        group = self.fs.groups[number]
        if group.free_blocks < count:
            raise CorruptError(
                f"ext group {number}: {group.free_blocks} blocks are free, its bitmap has more",
                layer=f"group descriptor {number}", field="bg_free_blocks_count", value=group.free_blocks,
                hint="e2fsck can repair it",
            )  # fmt: skip
        group.free_blocks -= count
        group.flags &= ~BLOCK_UNINIT
        self.free_blocks -= count
        self.changed_blocks.add(number)
        self.changed_groups.add(number)
        return self.sb.group_first_block(number) + at, count

    def take(self, place: int, count: int) -> None:
        """Take these blocks, which are free, within one group."""
        self._take(*divmod(place - self.sb.first_data_block, self.sb.blocks_per_group), count)

    def is_fresh(self, block: int) -> bool:
        """Was the block taken since the last sync?"""
        number, at = divmod(block - self.sb.first_data_block, self.sb.blocks_per_group)
        states = self.block_states.get(number)
        return states is not None and states[at] == FRESH

    def free(self, place: int, count: int) -> None:
        """Give blocks back. Raises CorruptError when they are free already."""
        sb = self.sb
        fs = self.fs
        fs.volume.check(place, count, "freeing")
        if fs.volume.spool is not None:
            fs.volume.spool.drop(place * sb.block_size, count * sb.block_size)
        if count < 64:
            for block in range(place, place + count):
                fs.volume.forget(block)
        else:
            for block in [n for n in fs.volume.dirty if place <= n < place + count]:
                fs.volume.forget(block)
        while count:
            number, at = divmod(place - sb.first_data_block, sb.blocks_per_group)
            states = self.blocks_of(number)
            step = min(count, len(states) - at)
            part = states[at : at + step]
            if FREE in part or FREED in part:
                raise CorruptError(
                    f"ext block bitmap of group {number}: blocks of a file are free in it",
                    layer=f"block bitmap {number}", value=place, hint="e2fsck can repair it",
                )  # fmt: skip
            states[at : at + step] = part.translate(_FREEING)
            group = fs.groups[number]
            group.free_blocks += step
            group.flags &= ~BLOCK_UNINIT
            self.free_blocks += step
            self.changed_blocks.add(number)
            self.changed_groups.add(number)
            place += step
            count -= step

    # ---- inodes

    def allocate_inode(self, parent: int, directory: bool) -> int:
        """A free inode near the directory ``parent`` (an inode number). GuestError ENOSPC."""
        sb = self.sb
        home = (parent - 1) // sb.inodes_per_group
        groups = self.fs.groups
        order = [(home + step) % sb.groups for step in range(sb.groups)]
        if directory and sb.groups > 1:
            # directories are spread, so that each has room for its files: below the root where most is free,
            # elsewhere beside the parent while that is not fuller than the average
            average = sum(groups[number].free_blocks for number in order) // sb.groups
            if parent == 2:
                order.sort(key=lambda number: -min(groups[number].free_blocks, average))
            else:
                order.sort(key=lambda number: groups[number].free_blocks * 2 < average)
        for number in order:
            group = groups[number]
            if not group.free_inodes:
                continue
            states = self.inodes_of(number)
            at = states.find(FREE, max(0, sb.first_inode - 1) if number == 0 else 0)
            if at < 0:
                continue
            inode = number * sb.inodes_per_group + at + 1
            states[at] = FRESH
            group.free_inodes -= 1
            self.free_inodes -= 1
            if directory:
                group.directories += 1
            if sb.gdt_csum:
                self._mark_used(group, at)
            self.changed_inodes.add(number)
            self.changed_groups.add(number)
            return inode
        raise GuestError(errno.ENOSPC, hint="no inode is free")

    def _mark_used(self, group: Group, at: int) -> None:
        """Inode ``at`` of a group is in use: what of the table was never initialised gets smaller."""
        sb = self.sb
        volume = self.fs.volume
        used = 0 if group.flags & INODE_UNINIT else sb.inodes_per_group - group.unused
        per_block = sb.block_size // sb.inode_size
        begin = -(-used // per_block)
        for index in range(begin, at // per_block + 1):
            volume.fresh(group.inode_table + index)
            self.unborn.add(group.inode_table + index)
        group.flags &= ~INODE_UNINIT
        group.unused = min(sb.inodes_per_group - max(used, at + 1), group.unused or sb.inodes_per_group)
        if used >= at + 1:
            group.unused = sb.inodes_per_group - used
        if group.flags & BLOCK_UNINIT:
            self.blocks_of(group.number)
            group.flags &= ~BLOCK_UNINIT
            self.changed_blocks.add(group.number)

    def free_inode(self, inode: int, directory: bool) -> None:
        number, at = divmod(inode - 1, self.sb.inodes_per_group)
        states = self.inodes_of(number)
        if states[at] in (FREE, FREED):
            raise CorruptError(
                f"ext inode bitmap of group {number}: inode {inode} is free in it", layer=f"inode bitmap {number}",
                value=inode, hint="e2fsck can repair it",
            )  # fmt: skip
        states[at] = FREED
        group = self.fs.groups[number]
        group.free_inodes += 1
        if directory:
            group.directories = max(0, group.directories - 1)
        self.free_inodes += 1
        self.changed_inodes.add(number)
        self.changed_groups.add(number)

    # ---- flushing

    def store(self) -> None:
        """Bring changed bitmaps and descriptors into their blocks."""
        sb = self.sb
        volume = self.fs.volume
        for changed, states_of, what in (
            (self.changed_blocks, self.block_states, "block"), (self.changed_inodes, self.inode_states, "inode")
        ):  # fmt: skip
            for number in sorted(changed):
                group = self.fs.groups[number]
                bitmap = pack(states_of[number], sb.block_size)
                place = group.block_bitmap if what == "block" else group.inode_bitmap
                volume.fresh(place)[:] = bitmap
                if sb.metadata_csum:
                    size = sb.clusters_per_group // 8 if what == "block" else sb.inodes_per_group // 8
                    summed = crc32c(sb.seed, bitmap[:size])
                    if sb.desc_size < 64:
                        summed &= 0xFFFF
                    if what == "block":
                        group.block_bitmap_csum = summed
                    else:
                        group.inode_bitmap_csum = summed
        for number in sorted(self.changed_groups):
            self.fs.groups.store(self.fs.groups[number])


_FREEING = bytes({USED: FREED, FRESH: FREED}.get(value, value) for value in range(256))
