"""Making an empty ext2, ext3 or ext4 file system, laid out and with the features as mke2fs 1.47 makes it."""

from __future__ import annotations

import struct
import time

from ....errors import OptionError
from . import journal, superblock
from .allocate import USED, pack
from .crc import crc32c
from .extents import ENTRY, HEADER, MAGIC
from .geometry import Geometry, Options
from .groups import BLOCK_UNINIT, INODE_UNINIT, INODE_ZEROED, Group, Groups
from .inode import EXTENTS, Inode, Inodes
from .superblock import Superblock
from .volume import Volume

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from ....block.node import Node

_ROOT, _RESIZE, _JOURNAL, _FIRST = 2, 7, 8, 11


def make(node: Node, kind: str, **wanted: Any) -> None:
    """Make an empty file system of ``kind`` ("ext2", "ext3", "ext4").

    ``wanted``: attributes of `geometry.Options`: ``block_size``, ``size`` in bytes (all of the node), ``label``,
    ``uuid`` (also "clear", "random"), ``features`` as mke2fs -O takes them ("^has_journal,inline_data"; "none" first
    takes all away), ``inode_size``, ``inode_ratio`` bytes for which there is an inode, ``inodes``,
    ``reserved_percent``, ``journal_blocks`` or ``journal_megabytes``, ``blocks_per_group``, ``flex_groups``,
    ``stride`` and ``stripe_width`` in blocks, ``most_blocks`` to which it is to grow, ``last_mounted``, ``creator``,
    ``test``, ``now`` in nanoseconds. Raises OptionError. What was on the device is not looked at; superblocks of others
    at its begin are wiped.
    """
    options = Options()
    options.kind = kind
    options.size = node.size
    options.now = time.time_ns()
    for name, value in wanted.items():
        if value is None:
            continue
        if name not in options.__dict__:
            raise OptionError(f"{name} is no option of a file system", field=name, value=value)
        setattr(options, name, value)
    _Maker(node, Geometry(options, node.size)).run()


def _option(name: str, value: object, why: str) -> OptionError:
    return OptionError(f"{name} {value}: {why}", field=name, value=value)


class _Maker:
    def __init__(self, node: Node, geometry: Geometry) -> None:
        self.node = node
        self.sb = geometry.sb
        self.size = geometry.size
        self.blocks = geometry.blocks
        self.features = geometry.features
        self.inode_size = geometry.inode_size
        self.flex = geometry.flex
        self.uuid = geometry.uuid
        self.now = geometry.now
        self.journal_blocks = geometry.journal_blocks

    # ---- layout

    def run(self) -> None:
        sb = self.sb
        node = self.node
        size = self.size
        self.volume = volume = Volume(node, sb)
        self.groups = groups = Groups(volume, [])
        self.inodes = Inodes(volume, groups)
        self.states: dict[int, bytearray] = {}
        self._wipe()
        self._place_groups()
        groups[0].free_inodes -= _FIRST
        # nothing of what was there before may stand beside the first inodes
        for index in range(-(-_FIRST * self.inode_size // size)):
            volume.fresh(groups[0].inode_table + index)
        self._directory(_ROOT, _ROOT, 0o40755, 3, [(_ROOT, b"."), (_ROOT, b".."), (_FIRST, b"lost+found")], 1)
        # lost+found has room before it is needed
        self._directory(_FIRST, _ROOT, 0o40700, 2, [(_FIRST, b"."), (_ROOT, b"..")], max(1, min(12, 16384 // size)))
        if sb.reserved_gdt_blocks:
            self._resize_inode()
        if "has_journal" in self.features:
            if not self.journal_blocks:
                sb.compat &= ~superblock.HAS_JOURNAL
                sb.set_features()
            else:
                self._journal(self.journal_blocks)
        # the list of bad blocks is empty
        blank = Inode(1, bytes(self.inode_size), size)
        blank.mtime = blank.ctime = blank.atime = self.now // 10**9 * 10**9
        self.inodes.changed[1] = blank
        for inode in list(self.inodes.changed.values()):
            self.inodes.store(inode)
        self.inodes.changed.clear()
        self._finish()

    def _wipe(self) -> None:
        """Superblocks of others, and what stands where ours has nothing."""
        node = self.node
        node.write(0, bytes(min(node.size, 128 << 10)))
        tail = min(node.size - (128 << 10), 64 << 10) if node.size > 128 << 10 else 0
        if tail > 0:
            node.write_zeroes(node.size - tail, tail)

    def _states(self, number: int) -> bytearray:
        found = self.states.get(number)
        if found is None:
            found = self.states[number] = bytearray(self.sb.group_blocks(number))
        return found

    def _mark(self, place: int, count: int) -> None:
        sb = self.sb
        while count:
            number, at = divmod(place - sb.first_data_block, sb.blocks_per_group)
            states = self._states(number)
            step = min(count, len(states) - at)
            states[at : at + step] = bytes((USED,)) * step
            place += step
            count -= step

    def _find(self, goal: int, count: int) -> int:
        """``count`` free blocks that lie together in one group, from ``goal`` on; they are taken."""
        sb = self.sb
        home = (goal - sb.first_data_block) // sb.blocks_per_group
        pattern = bytes(count)
        for step in range(sb.groups):
            number = (home + step) % sb.groups
            begin = (goal - sb.first_data_block) % sb.blocks_per_group if not step else 0
            at = self._states(number).find(pattern, begin)
            if at < 0 and begin:
                at = self._states(number).find(pattern)
            if at >= 0:
                place = sb.group_first_block(number) + at
                self._mark(place, count)
                return place
        raise _option("size", self.blocks * self.size, "there is not enough room")

    def _place_groups(self) -> None:
        sb = self.sb
        table = sb.inode_table_blocks
        for number in range(sb.groups):
            own = sb.has_super(number) + sb.group_desc_blocks(number)
            if own:
                self._mark(sb.group_first_block(number), own)
        flex = 1 << self.flex if "flex_bg" in self.features else 1
        for start in range(0, sb.groups, flex):
            members = range(start, min(start + flex, sb.groups))
            first = sb.group_first_block(start)
            made = {number: Group(number, bytes(sb.desc_size)) for number in members}
            for attribute, count in (("block_bitmap", 1), ("inode_bitmap", 1), ("inode_table", table)):
                for number in members:
                    goal = first if flex > 1 else sb.group_first_block(number)
                    setattr(made[number], attribute, self._find(goal, count))
            for group in made.values():
                group.free_inodes = sb.inodes_per_group
                self.groups.add(group)

    # ---- inodes

    def _inode(self, number: int, mode: int, nlink: int) -> Inode:
        raw = bytearray(self.inode_size)
        if self.inode_size > 128:
            raw[0x80] = 32
        inode = Inode(number, raw, self.size)
        inode.mode = mode
        inode.nlink = nlink
        inode.atime = inode.mtime = inode.ctime = self.now // 10**9 * 10**9
        if inode.extra >= 24:
            inode.btime = inode.ctime
        self.inodes.store_seed(inode)
        self.inodes.changed[number] = inode
        return inode

    def _map(self, inode: Inode, first: int, count: int) -> None:
        """Blocks that lie together become the whole of a file."""
        inode.sectors = count * (self.size // 512)
        inode.size = count * self.size
        if "extent" in self.features:
            inode.flags |= EXTENTS
            entries = b""
            amount = 0
            for at in range(0, count, 32768):
                entries += ENTRY.pack(at, min(32768, count - at), first + at >> 32, first + at & 0xFFFFFFFF)
                amount += 1
            inode.block = (HEADER.pack(MAGIC, amount, 4, 0, 0) + entries).ljust(60, b"\0")
            return
        places = list(range(first, first + count))
        root = places[:12] + [0] * (15 - len(places[:12]))
        rest = places[12:]
        each = self.size // 4
        if rest:
            root[12] = self._indirect(inode, rest[:each], first)
            rest = rest[each:]
        if rest:
            root[13] = self._double(inode, rest[: each * each], first)
            rest = rest[each * each :]
        if rest:
            tops = [self._double(inode, rest[at : at + each * each], first) for at in range(0, len(rest), each * each)]
            root[14] = self._indirect(inode, tops, first)
        inode.block = struct.pack("<15I", *root)

    def _double(self, inode: Inode, places: list[int], goal: int) -> int:
        each = self.size // 4
        return self._indirect(
            inode, [self._indirect(inode, places[at : at + each], goal) for at in range(0, len(places), each)], goal
        )

    def _indirect(self, inode: Inode, places: list[int], goal: int) -> int:
        block = self._find(goal, 1)
        inode.sectors += self.size // 512
        self.volume.fresh(block)[: 4 * len(places)] = struct.pack(f"<{len(places)}I", *places)
        return block

    def _directory(
        self, number: int, parent: int, mode: int, nlink: int, entries: list[tuple[int, bytes]], blocks: int
    ) -> None:
        from .directory import HEADER as ENTRY_HEADER
        from .directory import TAIL, TAIL_TYPE, pack_length
        from .directory_write import need

        size = self.size
        inode = self._inode(number, mode, nlink)
        place = self._find(self.sb.group_first_block(0), blocks)
        self._map(inode, place, blocks)
        end = size - (TAIL if self.sb.metadata_csum else 0)
        for index in range(blocks):
            block = self.volume.fresh(place + index)
            at = 0
            part = entries if not index else []
            for position, (child, name) in enumerate(part):
                length = need(name) if position + 1 < len(part) else end - at
                kind = 2 if "filetype" in self.features else 0
                ENTRY_HEADER.pack_into(block, at, child, pack_length(length, size), len(name), kind)
                block[at + 8 : at + 8 + len(name)] = name
                at += length
            if not part:
                ENTRY_HEADER.pack_into(block, 0, 0, pack_length(end, size), 0, 0)
            if self.sb.metadata_csum:
                ENTRY_HEADER.pack_into(block, end, 0, TAIL, 0, TAIL_TYPE)
                block[size - 4 :] = crc32c(inode.seed, block[:end]).to_bytes(4, "little")
        self.groups[0].directories += 1

    def _resize_inode(self) -> None:
        """Inode 7 holds the blocks that are kept for descriptors: through a double indirect block, each of them is an
        indirect block of its copies in the other groups."""
        sb = self.sb
        size = self.size
        each = size // 4
        inode = self._inode(_RESIZE, 0o100600, 1)
        top = self._find(sb.group_first_block(0), 1)
        data = self.volume.fresh(top)
        copies = [number for number in range(1, sb.groups) if sb.has_super(number)]
        count = 1
        for index in range(sb.reserved_gdt_blocks):
            place = sb.first_data_block + 1 + sb.desc_blocks + index
            struct.pack_into("<I", data, 4 * ((sb.desc_blocks + index) % each), place)
            inner = self.volume.fresh(place)
            count += 1
            for position, number in enumerate(copies):
                struct.pack_into("<I", inner, 4 * position, place + number * sb.blocks_per_group)
                count += 1
        inode.block = struct.pack("<15I", *([0] * 13), top, 0)
        inode.sectors = count * (size // 512)
        inode.size = (12 + each + each * each) * size

    def _journal(self, length: int) -> None:
        sb = self.sb
        size = self.size
        inode = self._inode(_JOURNAL, 0o100600, 1)
        middle = sb.group_first_block(sb.groups // 2 if sb.groups > 2 else 0)
        place = self._stretch(middle, length)
        self._map(inode, place, length)
        raw = bytearray(size)
        struct.pack_into(
            ">8I", raw, 0, journal.MAGIC, journal.SUPER_V2, 0, size, length, 1, 1, 0
        )  # fmt: skip
        raw[0x30:0x40] = self.uuid
        raw[0x40:0x44] = (1).to_bytes(4, "big")
        self.volume.fresh(place)[:] = raw
        # what is in the log from before must not look like a transaction
        self.node.write_zeroes((place + 1) * size, (length - 1) * size)
        sb.set(0xE0, _JOURNAL)
        sb.raw[0xFD] = 1
        # a copy of where the journal is: i_block, then the halves of its size
        sb.raw[0x10C:0x148] = inode.block
        struct.pack_into("<II", sb.raw, 0x148, inode.size >> 32, inode.size & 0xFFFFFFFF)

    def _stretch(self, goal: int, count: int) -> int:
        """Free blocks that lie together, over groups where need be; they are taken."""
        sb = self.sb
        for start in (goal, sb.first_data_block):
            run = 0
            begin = start
            number, at = divmod(start - sb.first_data_block, sb.blocks_per_group)
            while number < sb.groups:
                states = self._states(number)
                while at < len(states):
                    used = states.find(1, at)
                    end = len(states) if used < 0 else used
                    run += end - at
                    if run >= count:
                        self._mark(begin, count)
                        return begin
                    if used < 0:
                        break
                    free = states.find(0, used)
                    at = len(states) if free < 0 else free
                    begin = sb.group_first_block(number) + at
                    run = 0
                number, at = number + 1, 0
        raise _option("journal_blocks", count, "there is not enough room in one piece")

    # ---- writing

    def _finish(self) -> None:
        sb = self.sb
        node = self.node
        size = self.size
        volume = self.volume
        lazy = sb.gdt_csum
        free = 0
        for number in range(sb.groups):
            group = self.groups[number]
            states = self._states(number)
            group.free_blocks = states.count(0)
            free += group.free_blocks
            inodes = bytearray(sb.inodes_per_group)
            used = _FIRST if not number else 0
            inodes[:used] = b"\1" * used
            group.unused = sb.inodes_per_group - used if lazy else 0
            if lazy:
                group.flags = INODE_ZEROED | (0 if used else INODE_UNINIT)
                if not used and self._is_initial(group, states) and number != sb.groups - 1:
                    group.flags |= BLOCK_UNINIT
            bitmap = pack(states, size)
            inode_bitmap = pack(inodes, size)
            if not group.flags & BLOCK_UNINIT:
                volume.fresh(group.block_bitmap)[:] = bitmap
            if not group.flags & INODE_UNINIT:
                volume.fresh(group.inode_bitmap)[:] = inode_bitmap
            if sb.metadata_csum:
                mask = 0xFFFFFFFF if sb.desc_size >= 64 else 0xFFFF
                if not group.flags & BLOCK_UNINIT:
                    group.block_bitmap_csum = crc32c(sb.seed, bitmap[: sb.blocks_per_group // 8]) & mask
                if not group.flags & INODE_UNINIT:
                    group.inode_bitmap_csum = crc32c(sb.seed, inode_bitmap[: sb.inodes_per_group // 8]) & mask
            node.write_zeroes(group.inode_table * size, sb.inode_table_blocks * size)
        for index in range(sb.desc_blocks):
            volume.fresh(self.groups.desc_block(index))
        for number in range(sb.groups):
            self.groups.store(self.groups[number])
        sb.set(0x0C, free & 0xFFFFFFFF)
        if "64bit" in self.features:
            sb.set(0x158, free >> 32)
        sb.set(0x10, sb.inodes - _FIRST)
        overhead = sb.first_data_block + sum(
            sb.has_super(number) + sb.group_desc_blocks(number) for number in range(sb.groups)
        )
        overhead += sb.groups * (2 + sb.inode_table_blocks)
        if sb.journal_inode or sb.u32(0xE0):
            overhead += self.inodes[_JOURNAL].size // size
        if overhead < 1 << 32:
            sb.set(0x248, overhead)
        descriptors = b"".join(bytes(volume.block(self.groups.desc_block(index))) for index in range(sb.desc_blocks))
        for number in sorted(volume.dirty):
            node.write(number * size, volume.dirty[number])
        for number in range(1, sb.groups):
            if sb.has_super(number):
                copy = Superblock(bytes(sb.raw))
                copy.set(0x5A, number, 2)
                place = sb.group_first_block(number)
                node.write(place * size, copy.pack().ljust(size, b"\0"))
                node.write((place + 1) * size, descriptors)
        node.flush()
        node.write(superblock.OFFSET, sb.pack())
        node.flush()

    def _is_initial(self, group: Group, states: bytearray) -> bool:
        """Are only the blocks used that a kernel takes as used when the bitmap was never written?"""
        sb = self.sb
        number = group.number
        first = sb.group_first_block(number)
        own = sb.has_super(number) + sb.group_desc_blocks(number)
        expected = bytearray(len(states))
        expected[:own] = b"\1" * own
        for place, count in (
            (group.block_bitmap, 1), (group.inode_bitmap, 1), (group.inode_table, sb.inode_table_blocks)
        ):  # fmt: skip
            low, high = max(place, first), min(place + count, first + len(states))
            if low < high:
                expected[low - first : high - first] = b"\1" * (high - low)
        return expected == states
