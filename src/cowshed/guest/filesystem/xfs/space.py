"""Free space as statvfs shows it: the superblock's counters less what the kernel keeps for itself."""

from __future__ import annotations

from ..base import StatVfs

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .store import Store


def statvfs(store: Store) -> StatVfs:
    superblock = store.superblock
    found = StatVfs()
    found.bsize = found.frsize = superblock.blocksize
    found.blocks = superblock.dblocks - superblock.logblocks
    found.bfree = found.bavail = superblock.fdblocks
    found.files = superblock.icount
    found.ffree = found.favail = superblock.ifree
    return found
