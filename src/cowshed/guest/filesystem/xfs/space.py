"""Free space as statvfs shows it: the counters, less what a mounted file system keeps for its own trees.

A kernel that mounts for writing sets blocks aside: a pool for changes on a full disk (5 %, at most 8192 blocks), eight
blocks a group for its free lists, and room for the largest trees of free inodes, of shared blocks and of reverse
mappings that a group can need.
"""

from __future__ import annotations

from ..base import StatVfs
from .store import damaged
from .superblock import RO_FINOBT, RO_INOBTCNT, RO_REFLINK, RO_RMAPBT

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .store import Store

_POOL = 8192
_SET_ASIDE = 8
MAX_INODES = (1 << 56) - 1


class Group:
    """The headers of an allocation group: free space (AGF) and inodes (AGI)."""

    __slots__ = (
        "btree_blocks", "finobt_blocks", "finobt_level", "finobt_root", "free", "free_inodes", "inodes", "listed",
        "number", "refcount_blocks", "rmap_blocks",
    )  # fmt: skip

    def __init__(self, store: Store, number: int) -> None:
        superblock = store.superblock
        base = number * superblock.agblocks << superblock.blocklog
        size = superblock.sectsize
        self.number = number
        agf = self._sector(store, base + size, b"XAGF", 216, f"free space header of group {number}", number)
        agi = self._sector(store, base + 2 * size, b"XAGI", 312, f"inode header of group {number}", number)
        self.listed, self.free = _word(agf, 48), _word(agf, 52)
        self.btree_blocks = _word(agf, 60)
        self.rmap_blocks, self.refcount_blocks = _word(agf, 80), _word(agf, 84)
        self.inodes, self.free_inodes = _word(agi, 16), _word(agi, 28)
        self.finobt_root, self.finobt_level = _word(agi, 328), _word(agi, 332)
        self.finobt_blocks = _word(agi, 340)

    @staticmethod
    def _sector(store: Store, offset: int, magic: bytes, crc_at: int, what: str, number: int) -> bytes:
        raw = store.read(offset, store.superblock.sectsize)
        if raw[:4] != magic:
            raise damaged(what, offset, "magic", raw[:4].hex(), magic.decode())
        if store.superblock.v5:
            store.verify(raw, offset, crc_at, what)
        if _word(raw, 8) != number:
            raise damaged(what, offset, "seqno", _word(raw, 8), number)
        return raw


def _word(raw: bytes, at: int) -> int:
    return int.from_bytes(raw[at : at + 4], "big")


def statvfs(store: Store, *, recount: bool = False) -> StatVfs:
    """``recount``: the superblock's counters are old, as after a replay; the groups' are added up."""
    superblock = store.superblock
    reserved = superblock.features_ro_compat
    free, inodes, free_inodes = superblock.fdblocks, superblock.icount, superblock.ifree
    kept = min(superblock.dblocks // 20, _POOL) + _SET_ASIDE * superblock.agcount
    recount = recount and superblock.lazy_count
    if recount:
        free = inodes = free_inodes = 0
    for number in range(superblock.agcount):
        group = Group(store, number)
        kept += group.btree_blocks
        if reserved & RO_RMAPBT:
            kept -= group.rmap_blocks - 1  # counted below
        if reserved & (RO_FINOBT | RO_REFLINK | RO_RMAPBT):
            kept += _reserved(store, group)
        if recount:
            free += group.free + group.listed + group.btree_blocks
            inodes += group.inodes
            free_inodes += group.free_inodes
    found = StatVfs()
    found.bsize = found.frsize = superblock.blocksize
    found.blocks = superblock.dblocks - superblock.logblocks
    found.bfree = found.bavail = max(0, free - kept)
    files = min(inodes + (found.bfree << superblock.inopblog), MAX_INODES)
    if superblock.imax_pct:
        chunk = max(64, superblock.inopblock) >> superblock.inopblog
        limit = superblock.dblocks * superblock.imax_pct // 100 // chunk * chunk << superblock.inopblog
        files = min(files, limit)
    found.files = max(files, inodes)
    found.ffree = found.favail = max(0, found.files - (inodes - free_inodes))
    found.fsid = int.from_bytes(superblock.uuid[:8], "little") ^ int.from_bytes(superblock.uuid[8:], "little")
    return found


def _reserved(store: Store, group: Group) -> int:
    superblock = store.superblock
    blocks = superblock.ag_blocks(group.number)
    if superblock.logstart >> superblock.agblklog == group.number:
        blocks = max(0, blocks - superblock.logblocks)  # the log never becomes free
    features = superblock.features_ro_compat
    room = superblock.blocksize - 56
    ask = used = total = 0
    if features & RO_REFLINK:
        ask += _tree_size(room // 12 // 2, room // 8 // 2, blocks)
        used += group.refcount_blocks
    if features & RO_FINOBT:
        ask += _tree_size(room // 16 // 2, room // 8 // 2, blocks * superblock.inopblock // 64)
        used += group.finobt_blocks if features & RO_INOBTCNT else _count_finobt(store, group)
    total += max(ask, used) - used
    if features & RO_RMAPBT:
        # these blocks count as free, so the whole of it is kept
        total += max(blocks // 100, _tree_size(room // 24 // 2, room // 44 // 2, blocks), group.rmap_blocks)
    return total


def has_copies(store: Store) -> bool:
    """Are blocks set aside for copies on write, in any group? Their records have the highest bit set, so the last
    record of the tree of shared blocks tells."""
    superblock = store.superblock
    if not superblock.features_ro_compat & RO_REFLINK:
        return False
    size = superblock.blocksize
    for number in range(superblock.agcount):
        base = number * superblock.agblocks << superblock.blocklog
        agf = store.read(base + superblock.sectsize, 96)
        block, level = _word(agf, 88), _word(agf, 92)
        what = f"tree of shared blocks of group {number}"
        if not 1 <= level <= 12:
            raise damaged(what, base + superblock.sectsize + 92, "level", level, "1 to 12")
        while level:
            level -= 1
            offset = base + (block << superblock.blocklog)
            raw = store.read(offset, size) if block < superblock.ag_blocks(number) else b""
            if raw[:4] != b"R3FC" or raw[4] << 8 | raw[5] != level:
                raise damaged(what, offset, "magic and level", raw[:6].hex(), f"R3FC and {level}")
            count = raw[6] << 8 | raw[7]
            room = (size - 56) // (8 if level else 12)
            if count > room or (level and not count):
                raise damaged(what, offset, "number of records", count, f"at most {room}")
            if level:
                block = _word(raw, 56 + room * 4 + (count - 1) * 4)
            elif count and raw[56 + (count - 1) * 12] & 0x80:
                return True
    return False


def _tree_size(leaf: int, node: int, records: int) -> int:
    """Blocks of a tree whose blocks are but half full."""
    blocks = -(-records // leaf)
    total = blocks
    while blocks > 1:
        blocks = -(-blocks // node)
        total += blocks
    return total


def _count_finobt(store: Store, group: Group) -> int:
    """The blocks of a tree that keeps no count: along each level from its left end."""
    superblock = store.superblock
    what = f"free inode tree of group {group.number}"
    size = superblock.blocksize
    total = 0
    left = group.finobt_root
    limit = superblock.ag_blocks(group.number)
    header = 56 if superblock.v5 else 16
    for level in range(min(group.finobt_level, 12) - 1, -1, -1):
        block, below = left, 0
        while block != 0xFFFFFFFF:
            total += 1
            if block >= limit or total > limit:
                raise damaged(what, 0, "block", block, f"below {limit}, and no ring")
            offset = group.number * superblock.agblocks + block << superblock.blocklog
            raw = store.read(offset, size)
            if raw[:4] not in (b"FIB3", b"FIBT") or raw[4] << 8 | raw[5] != level:
                raise damaged(what, offset, "magic and level", raw[:6].hex(), f"FIB3 and {level}")
            if block == left and level:
                below = _word(raw, header + (size - header) // 8 * 4)
            block = _word(raw, 12)
        left = below
    return total
