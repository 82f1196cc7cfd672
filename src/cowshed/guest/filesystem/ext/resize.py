"""A file system is made larger: its last group gets longer, new ones come behind it.

What lies in the new space is written first, since nothing refers to it; then one transaction changes the superblock,
the descriptors and what reserves blocks for them; copies follow. Descriptors go into blocks kept for them (the resize
inode's) while there are some, and into the new groups themselves (meta_bg) beyond.
"""

from __future__ import annotations

import struct

from ....errors import FeatureError, OptionError
from .allocate import USED, pack
from .commit import commit, settle_replay
from .crc import crc32c
from .groups import BLOCK_UNINIT, INODE_UNINIT, INODE_ZEROED, Group
from .superblock import BIT64, META_BG, RECOVER, RESIZE_INODE, SPARSE_SUPER2, STATE_VALID, Superblock

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .filesystem import ExtFileSystem

_RESIZE = 7
#: blocks that must be left of a group behind its own metadata
_LEAST = 50


def resize(fs: ExtFileSystem, blocks: int | None = None) -> int:
    """Make a file system of ``blocks`` blocks (None: all that its device has); returns how many there are then, which
    may be a few less, where a last group would have no room for itself. The change is on the device at the return.

    Raises OptionError for what does not fit or would be smaller, FeatureError, CorruptError.
    """
    sb = fs.sb
    room = fs.node.size // sb.block_size
    wanted = room if blocks is None else blocks
    if wanted > room:
        raise OptionError(
            f"The containing partition (or device) is only {room} ({sb.block_size // 1024}k) blocks.\n"
            f"You requested a new size of {wanted} blocks.", field="size", value=wanted,
        )  # fmt: skip
    if sb.compat & SPARSE_SUPER2:
        raise FeatureError("A file system with the feature sparse_super2 is not resized", layer="ext superblock")
    if wanted >> 32 and not sb.incompat & BIT64:
        raise OptionError(
            f"a file system without the feature 64bit can't have {wanted} blocks", field="size", value=wanted
        )
    settle_replay(fs)
    _ = fs.writer
    if fs.writer.changed:
        fs.sync()
    wanted = _whole(sb, wanted)
    if wanted < sb.blocks:
        raise OptionError(
            f"a file system of {sb.blocks} blocks is not made smaller ({wanted} blocks)", field="size", value=wanted,
            hint="shrinking is not possible yet",
        )  # fmt: skip
    if wanted == sb.blocks:
        return wanted
    try:
        _Growth(fs, wanted).run()
    except BaseException:
        fs.writer.super_changed = True
        fs.discard_changes()
        raise
    return wanted


def _planned(sb: Superblock, blocks: int) -> Superblock:
    """The superblock of a file system of so many blocks."""
    new = Superblock(bytes(sb.raw))
    groups = -(-(blocks - sb.first_data_block) // sb.blocks_per_group)
    if groups * sb.inodes_per_group >> 32:
        raise OptionError(f"{groups} groups have too many inodes", field="size", value=blocks)
    need = -(-groups // sb.descs_per_block)
    new.set(0, groups * sb.inodes_per_group)
    new.set(4, blocks & 0xFFFFFFFF)
    reserved = sb.u32(8) | (sb.u32(0x154) << 32 if sb.incompat & BIT64 else 0)
    reserved = reserved * blocks // sb.blocks
    new.set(8, reserved & 0xFFFFFFFF)
    if sb.incompat & BIT64:
        new.set(0x150, blocks >> 32)
        new.set(0x154, reserved >> 32)
    # the kernel finds it out itself
    new.set(0x248, 0)
    if not sb.incompat & META_BG:
        take = min(need - sb.desc_blocks, sb.reserved_gdt_blocks)
        new.set(0xCE, sb.reserved_gdt_blocks - take, 2)
        if need > sb.desc_blocks + take:
            new.set(0x104, sb.desc_blocks + take)
            new.set(0x60, new.incompat | META_BG)
            new.set(0x5C, new.compat & ~RESIZE_INODE)
    return Superblock(bytes(new.raw))


def _whole(sb: Superblock, blocks: int) -> int:
    """Without a last group that has no room for its own metadata."""
    rest = (blocks - sb.first_data_block) % sb.blocks_per_group
    if not rest or blocks <= sb.blocks:
        return blocks
    new = _planned(sb, blocks)
    last = new.groups - 1
    own = new.has_super(last) + new.group_desc_blocks(last) + 2 + new.inode_table_blocks
    if last >= sb.groups and rest < own + _LEAST:
        return blocks - rest
    return blocks


class _Growth:
    def __init__(self, fs: ExtFileSystem, blocks: int) -> None:
        self.fs = fs
        self.old = Superblock(bytes(fs.sb.raw))
        self.new = _planned(fs.sb, blocks)

    def run(self) -> None:
        fs, old, new = self.fs, self.old, self.new
        writer = fs.writer
        writer.super_changed = True
        allocator = writer.allocator
        # the last group gets longer
        last = fs.groups[old.groups - 1]
        added = new.group_blocks(last.number) - old.group_blocks(last.number)
        if added:
            states = allocator.blocks_of(last.number)
            states += bytes(added)
            last.free_blocks += added
            last.flags &= ~BLOCK_UNINIT
            allocator.changed_blocks.add(last.number)
            allocator.changed_groups.add(last.number)
        for number in range(old.groups - 1 if added else old.groups, old.groups):
            fs.groups[number]
        fs.sb.read(bytes(new.raw))
        fs.volume.blocks = new.blocks
        free = self._new_groups()
        allocator.free_blocks += added + free
        allocator.free_inodes += (new.groups - old.groups) * new.inodes_per_group
        self._reserve()
        self._write_behind()
        fs.node.flush()
        commit(fs, writer)
        write_copies(fs)
        fs.node.flush()

    def _new_groups(self) -> int:
        """Descriptors and bitmaps of the new groups; the blocks that are free in them."""
        fs, old, new = self.fs, self.old, self.new
        size = new.block_size
        for index in range(new.desc_blocks):
            block = fs.groups.desc_block(index)
            if index >= old.desc_blocks:
                fs.volume.fresh(block)
        total = 0
        for number in range(old.groups, new.groups):
            first = new.group_first_block(number)
            own = new.has_super(number) + new.group_desc_blocks(number)
            group = Group(number, bytes(new.desc_size))
            group.block_bitmap = first + own
            group.inode_bitmap = first + own + 1
            group.inode_table = first + own + 2
            used = own + 2 + new.inode_table_blocks
            states = bytearray(new.group_blocks(number))
            states[:used] = bytes((USED,)) * used
            group.free_blocks = len(states) - used
            group.free_inodes = new.inodes_per_group
            total += group.free_blocks
            bitmap = pack(states, size)
            inodes = pack(bytearray(new.inodes_per_group), size)
            if new.gdt_csum:
                group.flags = INODE_ZEROED | INODE_UNINIT | (BLOCK_UNINIT if number != new.groups - 1 else 0)
                group.unused = new.inodes_per_group
            if new.metadata_csum:
                mask = 0xFFFFFFFF if new.desc_size >= 64 else 0xFFFF
                group.block_bitmap_csum = crc32c(new.seed, bitmap[: new.blocks_per_group // 8]) & mask
                group.inode_bitmap_csum = crc32c(new.seed, inodes[: new.inodes_per_group // 8]) & mask
            if own:
                fs.node.write_zeroes(first * size, own * size)
            fs.node.write(group.block_bitmap * size, bytes(bitmap) + bytes(inodes))
            fs.node.write_zeroes(group.inode_table * size, new.inode_table_blocks * size)
            fs.groups.add(group)
            fs.groups.store(group)
        return total

    def _reserve(self) -> None:
        """The resize inode has the blocks that are still kept for descriptors, in the new groups as well."""
        fs, old, new = self.fs, self.old, self.new
        if not old.compat & RESIZE_INODE:
            return
        inode = fs.inodes[_RESIZE]
        top = struct.unpack_from("<I", inode.block, 13 * 4)[0]
        size = new.block_size
        each = size // 4
        if not new.compat & RESIZE_INODE:
            if top:
                fs.writer.allocator.free(top, 1)
            inode.raw[:] = bytes(len(inode.raw))
            inode.mode = inode.nlink = inode.size = inode.sectors = inode.flags = 0
            inode.atime = inode.mtime = inode.ctime = inode.extra = 0
            inode.btime = None
            inode.block = bytes(60)
            fs.writer.touch(inode)
            return
        fs.volume.check(top, 1, "resize inode")
        table = fs.volume.change(top, "resize inode")
        copies = [number for number in range(1, new.groups) if new.has_super(number)]
        if len(copies) > each:
            raise FeatureError("The resize inode has no room for so many copies", layer="ext resize inode")
        for index in range(old.desc_blocks, new.desc_blocks):
            struct.pack_into("<I", table, 4 * (index % each), 0)
        for index in range(new.desc_blocks, new.desc_blocks + new.reserved_gdt_blocks):
            place = new.first_data_block + 1 + index
            inner = fs.volume.change(place, "resize inode")
            wanted = struct.pack(f"<{len(copies)}I", *(place + number * new.blocks_per_group for number in copies))
            inner[: len(wanted)] = wanted
        inode.sectors = (1 + new.reserved_gdt_blocks * (1 + len(copies))) * (size // 512)
        fs.writer.touch(inode)

    def _write_behind(self) -> None:
        """Changed blocks in the new space are there before anything leads to them."""
        fs = self.fs
        size = fs.block_size
        for number in sorted(fs.volume.dirty):
            if number >= self.old.blocks:
                fs.node.write(number * size, fs.volume.dirty[number])
        for number in [number for number in fs.volume.dirty if number >= self.old.blocks]:
            fs.volume.forget(number)


def write_copies(fs: ExtFileSystem) -> None:
    """The copies of the superblock and of the descriptors in other groups become what the first ones are."""
    sb = fs.sb
    size = sb.block_size
    gathered = min(sb.desc_blocks, sb.first_meta_bg) if sb.incompat & META_BG else sb.desc_blocks
    descriptors = b"".join(bytes(fs.volume.block(fs.groups.desc_block(index))) for index in range(gathered))
    for number in range(1, sb.groups):
        if not sb.has_super(number):
            continue
        copy = Superblock(bytes(sb.raw))
        copy.set(0x5A, number, 2)
        copy.set(0x60, copy.incompat & ~RECOVER)
        copy.set(0x3A, copy.u16(0x3A) | STATE_VALID, 2)
        place = sb.group_first_block(number)
        fs.node.write(place * size, copy.pack().ljust(size, b"\0"))
        if not sb.incompat & META_BG or number < sb.first_meta_bg * sb.descs_per_block:
            fs.node.write((place + 1) * size, descriptors)
    if sb.incompat & META_BG:
        for index in range(sb.first_meta_bg, sb.desc_blocks):
            data = bytes(fs.volume.block(fs.groups.desc_block(index)))
            for number in (index * sb.descs_per_block + 1, (index + 1) * sb.descs_per_block - 1):
                if number < sb.groups:
                    fs.node.write((sb.group_first_block(number) + sb.has_super(number)) * size, data)
