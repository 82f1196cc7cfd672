"""How much of a file system is used, as the kernel's statvfs counts it."""

from __future__ import annotations

from ..base import StatVfs
from .superblock import BIGALLOC, EXTENTS, HAS_JOURNAL

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .filesystem import ExtFileSystem


def overhead(fs: ExtFileSystem) -> int:
    """Blocks that hold the file system itself: superblocks, descriptors, bitmaps, inode tables, the journal."""
    sb = fs.sb
    stored = sb.u32(0x248) * sb.cluster_ratio
    if stored and stored <= sb.blocks and sb.kind != "ext2":
        return stored
    total = sb.first_data_block
    for number in range(sb.groups):
        total += sb.has_super(number) + sb.group_desc_blocks(number)
    total += sb.groups * (2 + sb.inode_table_blocks)
    if sb.compat & HAS_JOURNAL and sb.journal_inode:
        total += fs.inodes[sb.journal_inode].size // sb.block_size
    return total


def statvfs(fs: ExtFileSystem) -> StatVfs:
    sb = fs.sb
    found = StatVfs()
    found.bsize = found.frsize = sb.block_size
    free = inodes = 0
    for number in range(sb.groups):
        group = fs.groups[number]
        free += group.free_blocks
        inodes += group.free_inodes
    found.blocks = sb.blocks - overhead(fs)
    found.bfree = free * sb.cluster_ratio
    reserved = sb.u32(8) | (sb.u32(0x154) << 32 if sb.incompat & 0x80 else 0)
    if sb.incompat & EXTENTS:
        # the kernel keeps room for metadata of delayed allocation: 2 %, at most 4096 clusters
        reserved += min(sb.blocks // sb.cluster_ratio // 50, 4096) * (
            sb.cluster_ratio if sb.ro_compat & BIGALLOC else 1
        )
    found.bavail = max(0, found.bfree - reserved)
    found.files = sb.inodes
    found.ffree = found.favail = inodes
    low, high = (int.from_bytes(sb.uuid[at : at + 8], "little") for at in (0, 8))
    found.fsid = low ^ high
    found.namemax = 255
    return found
