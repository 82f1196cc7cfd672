"""Making an empty ext2, ext3 or ext4 file system, laid out and with the features as mke2fs 1.47 makes it."""

from __future__ import annotations

import os
import struct
import time

from ....errors import OptionError
from . import journal, superblock
from .allocate import USED, pack
from .crc import crc32c
from .extents import ENTRY, HEADER, MAGIC
from .groups import BLOCK_UNINIT, INODE_UNINIT, INODE_ZEROED, Group, Groups
from .inode import EXTENTS, Inode, Inodes
from .superblock import Superblock
from .volume import Volume

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ....block.node import Node

_BASE = ("ext_attr", "resize_inode", "dir_index", "filetype", "sparse_super", "large_file")
FEATURES = {
    "ext2": _BASE,
    "ext3": (*_BASE, "has_journal"),
    "ext4": (
        *_BASE, "has_journal", "extent", "huge_file", "flex_bg", "metadata_csum", "64bit", "dir_nlink", "extra_isize",
    ),
}  # fmt: skip
_POSSIBLE = {
    *FEATURES["ext4"], "uninit_bg", "inline_data", "ea_inode", "metadata_csum_seed", "large_dir",
}  # fmt: skip
_FLEX = 4  # groups of a flex group, as a power of two
_ROOT, _RESIZE, _JOURNAL, _FIRST = 2, 7, 8, 11


def _bits(features: set[str]) -> tuple[int, int, int]:
    found = []
    for names in (superblock.COMPAT_NAMES, superblock.INCOMPAT_NAMES, superblock.RO_COMPAT_NAMES):
        bits = 0
        for bit, name in names.items():
            if name in features:
                bits |= bit
        found.append(bits)
    return found[0], found[1], found[2]


def _journal_blocks(blocks: int, size: int) -> int:
    """How long mke2fs makes the journal of a file system of so many blocks; 0 when it is too small for one."""
    if blocks < 2048:
        return 0
    for limit, length in (
        (32768, 1024), (256 * 1024, 4096), (512 * 1024, 8192), (4096 * 1024, 16384), (8192 * 1024, 32768),
        (16384 * 1024, 65536), (32768 * 1024, 131072),
    ):  # fmt: skip
        if blocks < limit:
            return length
    return 262144


def make(
    node: Node,
    kind: str,
    *,
    block_size: int | None = None,
    size: int | None = None,
    label: str = "",
    uuid: str | None = None,
    features: str = "",
    inode_size: int | None = None,
    inode_ratio: int | None = None,
    inodes: int | None = None,
    reserved_percent: float = 5.0,
    journal_blocks: int | None = None,
    now: int | None = None,
) -> None:
    """Make an empty file system of ``kind`` ("ext2", "ext3", "ext4").

    ``size`` in bytes (all of the node), ``features`` as mke2fs -O takes them ("^has_journal,inline_data"; "none"
    first takes all away), ``inode_ratio`` bytes for which there is an inode, ``now`` in nanoseconds.
    Raises OptionError. What was on the device is not looked at; superblocks of others at its begin are wiped.
    """
    _Maker(
        node, kind, block_size, node.size if size is None else size, label, uuid, features, inode_size, inode_ratio,
        inodes, reserved_percent, journal_blocks, time.time_ns() if now is None else now,
    ).run()  # fmt: skip


def _option(name: str, value: object, why: str) -> OptionError:
    return OptionError(f"{name} {value}: {why}", field=name, value=value)


class _Maker:
    def __init__(
        self,
        node: Node,
        kind: str,
        block_size: int | None,
        size: int,
        label: str,
        uuid: str | None,
        features: str,
        inode_size: int | None,
        inode_ratio: int | None,
        inodes: int | None,
        reserved: float,
        journal_blocks: int | None,
        now: int,
    ) -> None:
        if kind not in FEATURES:
            raise _option("kind", kind, "it is none of ext2, ext3, ext4")
        self.node = node
        self.kind = kind
        self.now = now
        wanted = set(FEATURES[kind])
        for item in filter(None, features.replace(" ", ",").split(",")):
            name = {"extents": "extent", "gdt_csum": "uninit_bg"}.get(item.lstrip("^+-"), item.lstrip("^+-"))
            if name == "none":
                wanted.clear()
            elif name not in _POSSIBLE:
                raise _option("features", name, "this feature can't be made")
            elif item[0] in "^-":
                wanted.discard(name)
            else:
                wanted.add(name)
        if "metadata_csum" in wanted:
            wanted.discard("uninit_bg")
        if "64bit" in wanted and "extent" not in wanted:
            wanted.discard("64bit")
        self.features = wanted
        small = size < 512 << 20
        self.size = block_size or (1024 if small else 4096)
        if self.size not in (1024, 2048, 4096, 8192, 16384, 32768, 65536):
            raise _option("block_size", self.size, "it is a power of two from 1024 to 65536")
        if size > node.size:
            raise _option("size", size, "the device is smaller")
        self.blocks = size // self.size
        if self.blocks < 64:
            raise _option("size", size, "it is too small for a file system")
        if self.blocks >> 32 and "64bit" not in wanted:
            raise _option("size", size, "it is too big without the feature 64bit")
        self.inode_size = inode_size or 256
        if self.inode_size < 128 or self.inode_size > self.size or self.inode_size & (self.inode_size - 1):
            raise _option("inode_size", self.inode_size, "it is a power of two from 128 to the block size")
        ratio = inode_ratio or (8192 if size < 3 << 20 else 4096 if small else 16384)
        ratio = max(ratio, self.size)
        if ratio < 1024:
            raise _option("inode_ratio", ratio, "it is at least 1024")
        if not 0 <= reserved <= 50:
            raise _option("reserved_percent", reserved, "it is 0 to 50")
        self.label = label.encode("utf-8", "surrogateescape")
        if len(self.label) > 16:
            raise _option("label", label, "it has at most 16 bytes")
        if uuid is None:
            identity = bytearray(os.urandom(16))
            identity[6] = identity[6] & 0x0F | 0x40
            identity[8] = identity[8] & 0x3F | 0x80
            self.uuid = bytes(identity)
        else:
            try:
                self.uuid = bytes.fromhex(uuid.replace("-", ""))
            except ValueError:
                self.uuid = b""
            if len(self.uuid) != 16:
                raise _option("uuid", uuid, "it is no uuid")
        self.reserved = reserved
        self.inode_count = inodes or size // ratio
        self.journal_wanted = journal_blocks
        self.sb = self._super()

    # ---- the superblock

    def _super(self) -> Superblock:
        size = self.size
        first = 1 if size == 1024 else 0
        # a count of 16 bits holds a group's free blocks
        per_group = min(size * 8, 65528)
        desc = 64 if "64bit" in self.features else 32
        while True:
            groups = -(-(self.blocks - first) // per_group)
            each = -(-self.inode_count // groups)
            per_block = size // self.inode_size
            each = max(per_block, -(-each // per_block) * per_block, 16)
            each = min(-(-each // 8) * 8, min(size * 8, 65528))
            table = -(-each * self.inode_size // size)
            desc_blocks = -(-groups * desc // size)
            spare = self._spare(desc_blocks, first, per_group, desc)
            # the last group must have room for what belongs into it, and a little more
            rest = (self.blocks - first) % per_group
            own = 2 + table + 1 + desc_blocks + spare
            if rest and rest < own + 50 and groups > 1:
                self.blocks -= rest
                continue
            if own + 16 > min(per_group, self.blocks - first):
                raise _option("size", self.blocks * size, "there is no room for the inodes")
            break
        raw = bytearray(1024)
        seconds = self.now // 10**9
        compat, incompat, ro_compat = _bits(self.features)
        count = self.blocks
        reserved = int(count * self.reserved / 100)
        struct.pack_into("<5I", raw, 0, groups * each, count & 0xFFFFFFFF, reserved & 0xFFFFFFFF, 0, 0)
        log = size.bit_length() - 11
        struct.pack_into("<6I", raw, 0x14, first, log, log, per_group, per_group, each)
        struct.pack_into("<II", raw, 0x2C, 0, seconds & 0xFFFFFFFF)
        struct.pack_into("<HhHHHH", raw, 0x34, 0, -1, superblock.MAGIC, 1, 1, 0)
        struct.pack_into("<4I", raw, 0x40, seconds & 0xFFFFFFFF, 0, 0, 1)
        struct.pack_into("<HHIHH", raw, 0x50, 0, 0, _FIRST, self.inode_size, 0)
        struct.pack_into("<3I", raw, 0x5C, compat, incompat, ro_compat)
        raw[0x68:0x78] = self.uuid
        raw[0x78:0x88] = self.label.ljust(16, b"\0")
        raw[0xCE:0xD0] = spare.to_bytes(2, "little")
        raw[0xEC:0xFC] = os.urandom(16)
        raw[0xFC] = 1
        if desc == 64:
            raw[0xFE:0x100] = (64).to_bytes(2, "little")
            struct.pack_into("<II", raw, 0x150, count >> 32, reserved >> 32)
        struct.pack_into("<II", raw, 0x100, 0x0C, 0)
        raw[0x108:0x10C] = (seconds & 0xFFFFFFFF).to_bytes(4, "little")
        if self.inode_size > 128:
            struct.pack_into("<HH", raw, 0x15C, 32, 32)
        raw[0x160] = 1
        if "flex_bg" in self.features:
            raw[0x174] = _FLEX
        if "metadata_csum" in self.features:
            raw[0x175] = 1
            if "metadata_csum_seed" in self.features:
                raw[0x270:0x274] = crc32c(0xFFFFFFFF, self.uuid).to_bytes(4, "little")
        return Superblock(bytes(raw))

    def _spare(self, desc_blocks: int, first: int, per_group: int, desc: int) -> int:
        """Blocks kept for descriptors of a file system grown a thousandfold."""
        if "resize_inode" not in self.features:
            return 0
        most = min(self.blocks * 1024, 0xFFFFFFFF)
        groups = -(-(most - first) // per_group)
        return max(0, min(-(-groups * desc // self.size) - desc_blocks, self.size // 4))

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
        uses = "extent" in self.features
        groups[0].free_inodes -= _FIRST
        self._directory(_ROOT, _ROOT, 0o40755, 3, [(_ROOT, b"."), (_ROOT, b".."), (_FIRST, b"lost+found")], 1)
        # lost+found has room before it is needed
        self._directory(_FIRST, _ROOT, 0o40700, 2, [(_FIRST, b"."), (_ROOT, b"..")], max(1, min(12, 16384 // size)))
        if sb.reserved_gdt_blocks:
            self._resize_inode()
        length = 0
        if "has_journal" in self.features:
            length = self.journal_wanted or _journal_blocks(self.blocks, size)
            if not length:
                sb.compat &= ~superblock.HAS_JOURNAL
                sb.set_features()
            else:
                self._journal(length, uses)
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
        flex = 1 << _FLEX if "flex_bg" in self.features else 1
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

    def _journal(self, length: int, uses: bool) -> None:
        sb = self.sb
        size = self.size
        if length < 1024 or length > self.blocks // 2:
            raise _option("journal_blocks", length, "it is from 1024 blocks to half of the file system")
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
