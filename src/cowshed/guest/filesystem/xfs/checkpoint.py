"""How changes reach the device: through the log, and from there to their places.

1. File data of more than a little is written where it belongs, and flushed.
2. What is left, metadata and a little file data, becomes one transaction of the log. With its flush the change has
   happened: a cut before leaves the old state, a cut after leaves a log whose replay gives the new one.
3. The same is written to its places. A recovery skips a block that carries the transaction's sequence number or a
   later one, and the number is in the first sector: so that goes last, after a flush.
4. A record says that the log is empty.

A log that was dirty before is written on, and its contents go to their places with the change. Where it holds what only
the kernel can finish (space to free, files without a name, quotas), 3. and 4. are left to it: the log stays dirty, and
the change waits in it like the rest.
"""

from __future__ import annotations

import errno

from ..base import GuestError
from .stamps import KIND_ATTR_LEAF, KIND_DINODE, KIND_PLAIN, KIND_SUPERBLOCK, stamp_of, stamped
from .store import SECTOR

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .edit import Edit

#: file data that goes through the log
_LITTLE = 1 << 20
_PLAIN_BUFFER = 65536


class Checkpoint:
    """One `Edit` on its way to the device."""

    def __init__(self, edit: Edit) -> None:
        self.edit = edit
        self.fs = edit.fs
        self.store = edit.store
        self.superblock = edit.superblock
        self.journal = edit.fs.journal()
        self.node = edit.fs.node

    def run(self) -> None:
        """GuestError EROFS when the log has no room, before anything was written."""
        journal, edit, fs = self.journal, self.edit, self.fs
        keep_dirty = fs.dirty and (fs.replay is None or bool(fs.replay.remains()))
        if fs.dirty and not keep_dirty:
            self._count()
        logged, direct = self._parted()
        # kernels without realtime devices recover file data as well, and complain: not where they surely will
        whole = not keep_dirty and edit.data.length <= min(_LITTLE, journal.log.length * SECTOR // 16)
        pieces = self._file_data(whole)
        batches = self._batches(logged, pieces)
        if fs.dirty:
            left = journal.free - journal.needed(self._items(logged, pieces))
            if len(batches) > 1 or left < journal.log.length // 8:
                raise GuestError(
                    errno.EROFS, "the log of the XFS file system is too full for this",
                    hint="start the guest or mount the file system once before changing it",
                )  # fmt: skip
        try:
            self._write_all(batches, direct, whole=whole, keep_dirty=keep_dirty)
        except BaseException:
            # nobody knows how far it came: the next one to open the log sees
            fs.writable = False
            raise

    def _write_all(
        self,
        batches: list[tuple[list[tuple[int, int]], list[tuple[int, bytes]]]],
        direct: list[tuple[int, int]],
        *,
        whole: bool,
        keep_dirty: bool,
    ) -> None:
        journal, fs = self.journal, self.fs
        if not whole:
            self.edit.data.write(self.node)
            self.node.flush()
        for number, (group, some) in enumerate(batches):
            if number:
                journal.tail = 0  # the transaction before is in its place
            lsn = journal.lsn
            for offset, length in group:
                self._lay(offset, stamped(self.store.read(offset, length), self.superblock, lsn))
            journal.commit(self._items(group, some))
            structures = dict(group)
            if not number:
                structures.update(direct)
            if fs.dirty:
                self._lay_file_data(some)
            if keep_dirty:
                self._keep(direct, some)
            else:
                self._place(structures, [] if fs.dirty else some, lsn)
        if not keep_dirty:
            journal.unmount()
            fs.settled()

    # ---- what goes where

    def _parted(self) -> tuple[list[tuple[int, int]], list[tuple[int, int]]]:
        """(structures for the log, copies of the superblock, which nobody reads while the first one is well)."""
        logged, direct = [], []
        for offset, length in sorted(self.edit.structures.items()):
            if offset and self.store.read(offset, 4) == b"XFSB":
                direct.append((offset, length))
            else:
                logged.append((offset, length))
        return logged, direct

    def _file_data(self, whole: bool) -> list[tuple[int, bytes]]:
        """File data for the log, in whole sectors of the file system, ascending: all of it, or what the log speaks of
        already and a replay would bring back."""
        data, size = self.edit.data, self.superblock.sectsize
        found: list[tuple[int, bytes]] = []
        if whole:
            spans = data.spans(size)
        elif self.store.file_sectors:
            step = size // SECTOR
            spans = [(n * size, size) for n in sorted({n // step for n in self.store.file_sectors})]
            spans = [(start, length) for start, length in spans if data.touches(start, length)]
        else:
            return []
        for start, length in spans:
            buffer = bytearray(length)
            view = memoryview(buffer)
            self.node.read_into(start, view)
            self.store.lay_file_data(start, view)
            data.lay_over(start, view)
            found.append((start, bytes(buffer)))
        return found

    def _batches(
        self, logged: list[tuple[int, int]], pieces: list[tuple[int, bytes]]
    ) -> list[tuple[list[tuple[int, int]], list[tuple[int, bytes]]]]:
        """Transactions that the log has room for: one, unless very much has changed."""
        limit = self.journal.log.length * SECTOR // 4
        batches = []
        group: list[tuple[int, int]] = []
        size = sum(len(data) for _, data in pieces)
        for offset, length in logged:
            if group and size + length > limit:
                batches.append((group, pieces))
                group, pieces, size = [], [], 0
            group.append((offset, length))
            size += length + 64
        batches.append((group, pieces))
        return batches

    def _items(self, group: list[tuple[int, int]], pieces: list[tuple[int, bytes]]) -> list[list[bytes]]:
        """Each structure in the buffer that the kernel would keep it in."""
        superblock, store = self.superblock, self.store
        buffers: dict[tuple[int, int, int], list[tuple[int, bytes]]] = {}
        for offset, length in group:
            raw = store.read(offset, length)
            if raw[:2] == b"IN" and length == superblock.inodesize:
                start, size = self._cluster(offset)
                kind = KIND_DINODE
            else:
                start, size, kind = offset, length, self._kind(raw)
            buffers.setdefault((start, size, kind), []).append((offset - start, raw))
        for at, data in pieces:
            for begin in range(at, at + len(data), _PLAIN_BUFFER):
                part = data[begin - at : begin - at + _PLAIN_BUFFER]
                buffers[begin, len(part), KIND_PLAIN] = [(0, part)]
        return [self.journal.buffer(*key, sorted(parts)) for key, parts in sorted(buffers.items())]

    def _kind(self, raw: bytes) -> int:
        if self.superblock.v5:
            stamp = stamp_of(raw)
            return stamp.kind if stamp is not None else KIND_PLAIN
        if raw[:4] == b"XFSB":
            return KIND_SUPERBLOCK
        return KIND_ATTR_LEAF if raw[8:10] == b"\xfb\xee" else KIND_PLAIN

    def _cluster(self, offset: int) -> tuple[int, int]:
        superblock = self.superblock
        block, inside = divmod(offset, superblock.blocksize)
        group, at = divmod(block, superblock.agblocks)
        ino = (group << superblock.agblklog | at) << superblock.inopblog | inside >> superblock.inodelog
        try:
            return superblock.inode_cluster(ino)
        except ValueError:
            if self.fs.dirty:
                raise GuestError(
                    errno.EROFS, "the log of the XFS file system is dirty, and its inodes are not aligned",
                    hint="start the guest or mount the file system once before changing it",
                ) from None  # fmt: skip
            return block << superblock.blocklog, superblock.blocksize

    def _count(self) -> None:
        """The superblock's counters, which the groups' replace after a replay."""
        superblock = self.superblock
        if not superblock.lazy_count:
            return
        from .space import Group

        free = inodes = free_inodes = 0
        for number in range(superblock.agcount):
            group = Group(self.store, number)
            free += group.free + group.listed + group.btree_blocks
            inodes += group.inodes
            free_inodes += group.free_inodes
        raw = bytearray(self.store.read(0, superblock.sectsize))
        raw[128:152] = b"".join(value.to_bytes(8, "big") for value in (inodes, free_inodes, free))
        self.edit.change_block(0, raw, 224)

    # ---- writing

    def _lay(self, offset: int, raw: bytes) -> None:
        first = offset // SECTOR * SECTOR
        end = (offset + len(raw) + SECTOR - 1) // SECTOR * SECTOR
        whole = bytearray(self.store.read(first, end - first))
        whole[offset - first : offset - first + len(raw)] = raw
        self.store.lay(first, whole)

    def _lay_file_data(self, pieces: list[tuple[int, bytes]]) -> None:
        """File data that a dirty log holds stands in for the device's, whether it is there too or not."""
        for offset, data in pieces:
            first = offset // SECTOR
            self.store.file_sectors.update(range(first, first + len(data) // SECTOR))
            self.store.lay(offset, data, replayed=True)

    def _place(self, structures: dict[int, int], pieces: list[tuple[int, bytes]], lsn: int) -> None:
        """Write what the log holds to where it belongs, and flush. ``lsn``: the newest transaction's."""
        store, superblock = self.store, self.superblock
        sectors: set[int] = set()
        for offset, length in structures.items():
            sectors.update(range(offset // SECTOR, (offset + length + SECTOR - 1) // SECTOR))
        if self.fs.dirty:
            assert self.fs.replay is not None
            for offset, length in self.fs.replay.structures.items():
                if offset not in structures and store.is_replayed(offset, length):
                    self._lay(offset, stamped(store.read(offset, length), superblock, lsn))
                    structures[offset] = length
            sectors.update(store.overlay)
        last: set[int] = set()
        if superblock.v5:
            last = {offset // SECTOR for offset, length in structures.items() if length > SECTOR}
        for offset, data in pieces:
            self.node.write(offset, data)
        self._write(sorted(sectors - last))
        if last:
            self.node.flush()
            self._write(sorted(last))
        self.node.flush()

    def _write(self, sectors: list[int]) -> None:
        index = 0
        while index < len(sectors):
            stop = index + 1
            while stop < len(sectors) and sectors[stop] == sectors[stop - 1] + 1 and stop - index < 2048:
                stop += 1
            offset = sectors[index] * SECTOR
            self.node.write(offset, self.store.read(offset, (stop - index) * SECTOR))
            index = stop

    def _keep(self, direct: list[tuple[int, int]], pieces: list[tuple[int, bytes]]) -> None:
        """The log stays as it is; what is no metadata can go to its place already."""
        for offset, data in pieces:
            self.node.write(offset, data)
        self._write(
            sorted(n for offset, length in direct for n in range(offset // SECTOR, (offset + length) // SECTOR))
        )
        self.node.flush()
