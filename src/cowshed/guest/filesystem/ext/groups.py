"""Block group descriptors (kernel documentation, 3.4): 32 or 64 bytes, gathered or spread (meta_bg), checksummed."""

from __future__ import annotations

import struct

from ....errors import CorruptError
from .crc import crc16, crc32c
from .superblock import BIT64, META_BG

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .volume import Volume

INODE_UNINIT = 1
BLOCK_UNINIT = 2
INODE_ZEROED = 4

_BASE = struct.Struct("<IIIHHHHIHHHH")
_HIGH = struct.Struct("<IIIHHHHIHH")


class Group:
    """One descriptor. Counts are of blocks (clusters with bigalloc), inodes and directories; checksums as stored."""

    __slots__ = (
        "block_bitmap", "block_bitmap_csum", "checksum", "directories", "exclude", "exclude_high", "flags",
        "free_blocks", "free_inodes", "inode_bitmap", "inode_bitmap_csum", "inode_table", "number", "tail", "unused",
    )  # fmt: skip

    def __init__(self, number: int, raw: bytes | bytearray) -> None:
        self.number = number
        (
            self.block_bitmap, self.inode_bitmap, self.inode_table, self.free_blocks, self.free_inodes,
            self.directories, self.flags, self.exclude, self.block_bitmap_csum, self.inode_bitmap_csum, self.unused,
            self.checksum,
        ) = _BASE.unpack_from(raw)  # fmt: skip
        self.exclude_high = 0
        self.tail = bytes(raw[60:])
        if len(raw) >= 64:
            high = _HIGH.unpack_from(raw, 32)
            self.block_bitmap |= high[0] << 32
            self.inode_bitmap |= high[1] << 32
            self.inode_table |= high[2] << 32
            self.free_blocks |= high[3] << 16
            self.free_inodes |= high[4] << 16
            self.directories |= high[5] << 16
            self.unused |= high[6] << 16
            self.exclude_high = high[7]
            self.block_bitmap_csum |= high[8] << 16
            self.inode_bitmap_csum |= high[9] << 16

    def pack(self, size: int) -> bytearray:
        """The descriptor's bytes with its checksum field as it is."""
        raw = bytearray(size)
        _BASE.pack_into(
            raw, 0, self.block_bitmap & 0xFFFFFFFF, self.inode_bitmap & 0xFFFFFFFF, self.inode_table & 0xFFFFFFFF,
            self.free_blocks & 0xFFFF, self.free_inodes & 0xFFFF, self.directories & 0xFFFF, self.flags, self.exclude,
            self.block_bitmap_csum & 0xFFFF, self.inode_bitmap_csum & 0xFFFF, self.unused & 0xFFFF, self.checksum,
        )  # fmt: skip
        if size >= 64:
            _HIGH.pack_into(
                raw, 32, self.block_bitmap >> 32, self.inode_bitmap >> 32, self.inode_table >> 32,
                self.free_blocks >> 16, self.free_inodes >> 16, self.directories >> 16, self.unused >> 16,
                self.exclude_high, self.block_bitmap_csum >> 16, self.inode_bitmap_csum >> 16,
            )  # fmt: skip
            raw[60:] = self.tail
        return raw


class Groups:
    """All descriptors, read when they are needed."""

    def __init__(self, volume: Volume, notes: list[str]) -> None:
        self.volume = volume
        self.sb = volume.sb
        self.notes = notes
        self._loaded: dict[int, Group] = {}

    def forget(self) -> None:
        self._loaded.clear()

    def add(self, group: Group) -> None:
        """A new group."""
        self._loaded[group.number] = group

    def desc_block(self, index: int, copy: bool = False) -> int:
        """The block that holds descriptors ``index`` * descs_per_block on; ``copy``: the first backup of it."""
        sb = self.sb
        if sb.incompat & META_BG and index >= sb.first_meta_bg:
            group = index * sb.descs_per_block + copy
            return sb.group_first_block(group) + sb.has_super(group)
        if copy or sb.where:
            group = next((n for n in range(1, min(sb.groups, 10)) if sb.has_super(n)), 0)
            return sb.group_first_block(group) + 1 + index
        # with bigalloc and blocks of 1 KiB the superblock is in block 1, though the first data block is 0
        return max(sb.first_data_block, 1024 // sb.block_size) + 1 + index

    def __getitem__(self, number: int) -> Group:
        group = self._loaded.get(number)
        if group is not None:
            return group
        sb = self.sb
        if not 0 <= number < sb.groups:
            raise CorruptError(f"ext: there is no group {number}", layer="group", value=number, limit=sb.groups - 1)
        index, within = divmod(number, sb.descs_per_block)
        try:
            found = self._read(number, self.desc_block(index), within)
        except CorruptError as error:
            try:
                found = self._read(number, self.desc_block(index, True), within)
            except CorruptError:
                raise error from None
            note = f"{error}: the copy of the group descriptors is used, run e2fsck"
            if not any("group descriptor" in known for known in self.notes):
                self.notes.append(note)
        self._loaded[number] = found
        return found

    def _read(self, number: int, block: int, within: int) -> Group:
        size = self.sb.desc_size
        raw = self.volume.block(block, "group descriptors")[within * size : within * size + size]
        group = Group(number, raw)
        if self.sb.gdt_csum and self.sum(group, raw) != group.checksum:
            raise self._wrong(group, "bg_checksum", f"{group.checksum:#06x}")
        for field, value, count in (
            ("bg_block_bitmap", group.block_bitmap, 1),
            ("bg_inode_bitmap", group.inode_bitmap, 1),
            ("bg_inode_table", group.inode_table, self.sb.inode_table_blocks),
        ):
            if value < self.sb.first_data_block or value + count > self.sb.blocks:
                raise self._wrong(group, field, value)
        return group

    def _wrong(self, group: Group, field: str, value: object) -> CorruptError:
        return CorruptError(
            f"ext group descriptor {group.number}: {field} is {value}", layer=f"group descriptor {group.number}",
            field=field, value=value, hint="e2fsck can repair it",
        )  # fmt: skip

    def sum(self, group: Group, raw: bytes | bytearray) -> int:
        """The checksum of a descriptor's bytes."""
        sb = self.sb
        number = group.number.to_bytes(4, "little")
        if sb.metadata_csum:
            return crc32c(crc32c(sb.seed, number), bytes(raw[:30]) + b"\0\0" + bytes(raw[32:])) & 0xFFFF
        crc = crc16(crc16(crc16(0xFFFF, sb.uuid), number), raw[:30])
        if sb.incompat & BIT64 and len(raw) > 32:
            crc = crc16(crc, raw[32:])
        return crc

    def store(self, group: Group) -> None:
        """Bring a changed descriptor into its block."""
        sb = self.sb
        raw = group.pack(sb.desc_size)
        if sb.gdt_csum:
            group.checksum = self.sum(group, raw)
            raw[30:32] = group.checksum.to_bytes(2, "little")
        index, within = divmod(group.number, sb.descs_per_block)
        block = self.volume.change(self.desc_block(index), "group descriptors")
        block[within * sb.desc_size : (within + 1) * sb.desc_size] = raw
