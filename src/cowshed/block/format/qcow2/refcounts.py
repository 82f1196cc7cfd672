"""Reference counts of host clusters: refcount table, refcount blocks, and the allocator that stands on them.

Specification: qcow2.txt, "Host cluster management". Blocks are cached decoded (one array item an entry). Increments
take effect at once; decrements wait in ``pending`` until the metadata that pointed to the cluster is durable, so a
freed cluster is never reused before nothing can refer to it any more.
"""

from __future__ import annotations

import sys
from array import array

from ....errors import FormatError, NoSpaceError
from ...node import space_reused
from .header import MAX_REFCOUNT_TABLE_BYTES

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .metadata import Qcow2Metadata

OFFSET_MASK = 0xFFFFFFFFFFFFFE00
_TYPECODES = {8: "B", 16: "H", 32: "I", 64: "Q"}
_SWAP = sys.byteorder == "little"


def decode_block(data: bytes, bits: int) -> array[int]:
    """A refcount block's bytes as an array of counts (specification: entries below 8 bits, lowest bits first)."""
    if bits < 8:
        per = 8 // bits
        out = bytearray(len(data) * per)
        mask = int.from_bytes(bytes([(1 << bits) - 1]) * len(data), "little")
        number = int.from_bytes(data, "little")
        for index in range(per):
            out[index::per] = (number >> (index * bits) & mask).to_bytes(len(data), "little")
        return array("B", out)
    values = array(_TYPECODES[bits], data)
    if _SWAP and bits > 8:
        values.byteswap()
    return values


def encode_block(values: array[int], bits: int) -> bytes:
    """The inverse of decode_block."""
    if bits < 8:
        per = 8 // bits
        raw = values.tobytes()
        number = 0
        for index in range(per):
            number |= int.from_bytes(raw[index::per], "little") << (index * bits)
        return number.to_bytes(len(raw) // per, "little")
    if _SWAP and bits > 8:
        values = values[:]
        values.byteswap()
    return values.tobytes()


class Block:
    """One refcount block in memory."""

    __slots__ = ("dirty", "offset", "values")

    def __init__(self, offset: int, values: array[int], dirty: bool = False) -> None:
        self.offset = offset
        self.values = values
        self.dirty = dirty


class Refcounts:
    """The reference counts of one image; the owner's lock guards every call."""

    def __init__(self, image: Qcow2Metadata) -> None:
        header = image.header
        self.image = image
        self.bits = header.refcount_bits
        self.maximum = (1 << self.bits) - 1
        self.typecode = _TYPECODES.get(self.bits, "B")
        self.per_block = image.cluster_size * 8 // self.bits
        self.table_offset = header.refcount_table_offset
        self.table_clusters = header.refcount_table_clusters
        self.table = image.read_table(self.table_offset, self.table_clusters * image.cluster_size // 8)
        self.table_dirty: set[int] = set()
        self.table_moved = False
        self.blocks: dict[int, Block] = {}
        self.pending: list[tuple[int, int, bool]] = []
        self.hint = 0
        #: blocks kept at most; more are dropped when clean
        self.keep = max(64, (64 << 20) // (self.per_block * array(self.typecode).itemsize))

    # -- looking --------------------------------------------------------------------------------------------------

    def block(self, index: int) -> Block | None:
        """Refcount block ``index``, None when there is none. Raises CorruptError for an invalid offset."""
        found = self.blocks.get(index)
        if found is not None:
            return found
        if index >= len(self.table):
            return None
        offset = self.table[index] & OFFSET_MASK
        if offset == 0:
            return None
        if offset % self.image.cluster_size or offset >> 63:
            raise self.image.corruption(
                f"Refblock offset {offset:#x} unaligned (reftable index: {index:#x})",
                field=f"refcount_table[{index}]",
                value=hex(offset),
            )
        if len(self.blocks) >= self.keep:
            self._evict()
        data = self.image.file.read(offset, min(self.image.cluster_size, max(0, self.image.file.size - offset)))
        values = decode_block(data.ljust(self.image.cluster_size, b"\0"), self.bits)
        found = Block(offset, values)
        self.blocks[index] = found
        return found

    def _evict(self) -> None:
        clean = [index for index, block in self.blocks.items() if not block.dirty]
        for index in clean[: len(clean) // 2 + 1]:
            del self.blocks[index]

    def dirty_bytes(self) -> int:
        return sum(1 for block in self.blocks.values() if block.dirty) * self.image.cluster_size

    def get(self, cluster: int) -> int:
        """The count of one host cluster as the table has it (pending decrements not yet taken off)."""
        index, slot = divmod(cluster, self.per_block)
        block = self.block(index)
        return 0 if block is None else block.values[slot]

    # -- changing -------------------------------------------------------------------------------------------------

    def add(self, first: int, count: int = 1, amount: int = 1) -> None:
        """Raise the counts of ``count`` clusters from ``first`` by ``amount``. Raises FormatError at the maximum."""
        while count:
            index, slot = divmod(first, self.per_block)
            block = self.block(index)
            if block is None:
                block = self._new_block(index)
            take = min(count, self.per_block - slot)
            values = block.values
            piece = values[slot : slot + take]
            if piece.count(0) == take:
                values[slot : slot + take] = array(self.typecode, [amount]) * take
            else:
                for at in range(slot, slot + take):
                    value = values[at] + amount
                    if value > self.maximum:
                        raise FormatError(
                            "Invalid argument",
                            path=self.image.filename,
                            layer="qcow2 refcounts",
                            field=f"refcount of cluster {first + at - slot}",
                            value=value,
                            limit=self.maximum,
                        )
                    values[at] = value
            block.dirty = True
            first += take
            count -= take

    def release(self, first: int, count: int = 1, *, discard: bool = False) -> None:
        """Lower the counts of ``count`` clusters by one once nothing durable points to them any more.

        ``discard``: give the space back to the host when a count reaches zero.
        """
        self.pending.append((first, count, discard))

    def apply_pending(self) -> list[tuple[int, int]]:
        """Take the waiting decrements off; returns (first, count) of clusters to be punched out of the file."""
        pending, self.pending = self.pending, []
        space_reused()
        holes: list[tuple[int, int]] = []
        for first, count, discard in pending:
            while count:
                index, slot = divmod(first, self.per_block)
                take = min(count, self.per_block - slot)
                block = self.block(index)
                piece = block.values[slot : slot + take] if block is not None else array("B")
                if block is None or piece.count(0):
                    raise self.image.corruption(
                        f"Refcount of a cluster in {first:#x}..{first + take - 1:#x} is already zero",
                        field="refcount",
                        value=0,
                    )
                block.dirty = True
                if piece.count(1) == take:
                    block.values[slot : slot + take] = array(self.typecode, bytes(take * block.values.itemsize))
                    self._freed(first, take, discard, holes)
                else:
                    for at in range(take):
                        value = block.values[slot + at] = block.values[slot + at] - 1
                        if value == 0:
                            self._freed(first + at, 1, discard, holes)
                first += take
                count -= take
        return holes

    def _freed(self, first: int, count: int, discard: bool, holes: list[tuple[int, int]]) -> None:
        """These clusters have no references any more."""
        self.image.clusters_freed(first, count)
        self.hint = min(self.hint, first)
        if discard:
            if holes and holes[-1][0] + holes[-1][1] == first:
                holes[-1] = (holes[-1][0], holes[-1][1] + count)
            else:
                holes.append((first, count))

    # -- allocating -----------------------------------------------------------------------------------------------

    def find(self, count: int, *, whole: bool = False) -> tuple[int, int]:
        """Free clusters: (first, n) with n <= count contiguous clusters; ``whole``: exactly ``count`` of them."""
        cluster = self.hint
        limit = self.image.max_clusters
        first_free = -1
        while True:
            if cluster >= limit:
                raise NoSpaceError(
                    "File too large",
                    path=self.image.filename,
                    layer="qcow2",
                    field="host cluster",
                    value=cluster,
                    errno=27,
                )
            index, slot = divmod(cluster, self.per_block)
            block = self.block(index)
            if block is None:  # nothing is described here, so all of it is free
                run_start, run = cluster, self._run_at(cluster, count)
            else:
                try:
                    run_start = block.values.index(0, slot) + index * self.per_block
                except ValueError:
                    cluster = (index + 1) * self.per_block
                    continue
                run = self._run_at(run_start, count)
            # entries have 56 bits for an offset
            run = min(run, limit - run_start)
            if first_free < 0:
                first_free = run_start
            if run >= count or not whole:
                if not whole or first_free == run_start:
                    self.hint = max(self.hint, first_free)
                return run_start, min(run, count)
            cluster = run_start + run + 1

    def _run_at(self, start: int, count: int) -> int:
        """How many clusters from ``start`` are free, at most ``count``."""
        done = 0
        while done < count:
            index, slot = divmod(start + done, self.per_block)
            block = self.block(index)
            take = min(count - done, self.per_block - slot)
            if block is not None:
                piece = block.values[slot : slot + take]
                if piece.count(0) != take:
                    for value in piece:
                        if value:
                            return done
                        done += 1
            done += take
        return min(done, count)

    def allocate(self, count: int, *, whole: bool = False) -> tuple[int, int]:
        """Take free clusters (count 1 each): (first, n), contiguous; n == count when ``whole``."""
        if whole:
            return self._allocate_whole(count), count
        first = self.hint
        index, slot = divmod(first, self.per_block)
        block = self.blocks.get(index)
        if block is not None and slot + count <= self.per_block and first + count <= self.image.max_clusters:
            # nearly always, and without many steps: behind all that is taken, in a block that is there
            values = block.values
            if not any(values[slot : slot + count]):
                if not self.image.metadata_clusters.isdisjoint(range(first, first + count)):
                    self._refuse(first, count)
                values[slot : slot + count] = array(self.typecode, (1,)) * count
                block.dirty = True
                self.hint = first + count
                return first, count
        while True:
            first, got = self.find(count)
            if not self._covers(first, got):
                # new blocks may have been placed right there: look again
                continue
            if not self.image.metadata_clusters.isdisjoint(range(first, first + got)):
                self._refuse(first, got)
            self.add(first, got)
            if first == self.hint:
                self.hint = first + got
            return first, got

    def _allocate_whole(self, count: int) -> int:
        """``count`` contiguous clusters; the blocks that they need are put in front of them, out of the way."""
        room = 0  # clusters in front for new blocks
        while True:
            first, _ = self.find(count + room, whole=True)
            indexes = range(first // self.per_block, (first + count + room - 1) // self.per_block + 1)
            missing = [index for index in indexes if self.block(index) is None]
            if missing and missing[-1] >= len(self.table):
                self._grow_table(missing[-1])
                continue
            if len(missing) > room:
                room = len(missing)
                continue
            if not self.image.metadata_clusters.isdisjoint(range(first, first + count + room)):
                self._refuse(first, count + room)
            for number, index in enumerate(missing):
                self._place_block(index, first + number)
            first += len(missing)
            self.add(first, count)
            return first

    def _refuse(self, first: int, count: int) -> None:
        """Counts of zero for live metadata: whoever took them at their word would destroy it. Raises CorruptError."""
        offset = first << self.image.cluster_bits
        if not offset:
            raise self.image.corruption(
                "Preventing invalid allocation of data cluster at offset 0", field="refcount", offset=0, value=0
            )
        self.image.check_overlap(offset, count << self.image.cluster_bits)

    def _covers(self, first: int, count: int) -> bool:
        """Make sure that blocks describe these clusters; False when blocks had to be made (and took clusters)."""
        made = True
        for index in range(first // self.per_block, (first + count - 1) // self.per_block + 1):
            if self.block(index) is None:
                self._new_block(index)
                made = False
        return made

    def _new_block(self, index: int) -> Block:
        """A refcount block for a part of the file that none describes; it lives there and counts itself."""
        if index >= len(self.table):
            self._grow_table(index)
            found = self.blocks.get(index)
            if found is not None:
                return found
        return self._place_block(index, index * self.per_block)

    def _place_block(self, index: int, cluster: int) -> Block:
        if cluster in self.image.metadata_clusters:
            self._refuse(cluster, 1)
        block = Block(cluster << self.image.cluster_bits, array(self.typecode, [0]) * self.per_block, True)
        # room on the host is taken now: a count that can't be written would stop every other change
        self.image.file.write(block.offset, bytes(self.image.cluster_size))
        self.blocks[index] = block
        self.table[index] = block.offset
        self.table_dirty.add(index)
        home = self.blocks.get(cluster // self.per_block) or self.block(cluster // self.per_block)
        assert home is not None
        home.values[cluster % self.per_block] = 1
        home.dirty = True
        self.image.metadata_clusters.add(cluster)
        return block

    def _grow_table(self, index: int) -> None:
        """Move the refcount table to a bigger place behind everything that is described so far."""
        cluster_bits = self.image.cluster_bits
        per_cluster = self.image.cluster_size // 8
        start_block = max(index, len(self.table))
        start = start_block * self.per_block
        clusters = 1
        blocks = 1
        most = MAX_REFCOUNT_TABLE_BYTES >> cluster_bits
        while True:
            needed = start_block + blocks
            exact = -(-needed // per_cluster)
            # grow by half, so that growth stays rare, but not beyond the bound while what is needed fits
            new_clusters = max(-(-(needed + needed // 2) // per_cluster), self.table_clusters + 1)
            new_clusters = max(exact, min(new_clusters, most))
            new_blocks = (blocks + new_clusters + self.per_block - 1) // self.per_block
            if new_clusters == clusters and new_blocks <= blocks:
                break
            clusters, blocks = new_clusters, max(blocks, new_blocks)
        if clusters > most or start + blocks + clusters > self.image.max_clusters:
            raise NoSpaceError(
                "File too large", path=self.image.filename, layer="qcow2", field="refcount table clusters",
                value=clusters, limit=most, errno=27,
            )  # fmt: skip
        if not self.image.metadata_clusters.isdisjoint(range(start, start + blocks + clusters)):
            self._refuse(start, blocks + clusters)
        table = array("Q", self.table)
        table.extend([0] * (clusters * per_cluster - len(table)))
        old_offset, old_clusters = self.table_offset, self.table_clusters
        self.table = table
        for number in range(blocks):
            self._place_block_at_start(start_block + number, start + number)
        first = start + blocks
        self.add(first, clusters)
        self.image.metadata_clusters.update(range(first, first + clusters))
        self.table_offset = first << cluster_bits
        self.table_clusters = clusters
        self.table_moved = True
        self.release(old_offset >> cluster_bits, old_clusters)

    def _place_block_at_start(self, index: int, cluster: int) -> None:
        block = Block(cluster << self.image.cluster_bits, array(self.typecode, [0]) * self.per_block, True)
        self.blocks[index] = block
        self.table[index] = block.offset
        self.table_dirty.add(index)
        self.image.metadata_clusters.add(cluster)
        home = self.blocks[cluster // self.per_block]
        home.values[cluster % self.per_block] = 1
        home.dirty = True

    # -- writing --------------------------------------------------------------------------------------------------

    def is_dirty(self) -> bool:
        return bool(self.table_dirty) or self.table_moved or any(block.dirty for block in self.blocks.values())

    def write_blocks(self) -> bool:
        """Write every dirty block; True when there was one."""
        wrote = False
        file = self.image.file
        for index in sorted(self.blocks):
            block = self.blocks[index]
            if block.dirty:
                file.write(block.offset, encode_block(block.values, self.bits))
                block.dirty = False
                wrote = True
        return wrote

    def write_table(self) -> bool:
        """Write the table's changed entries, or all of it at its new place; True when anything was written."""
        image = self.image
        if self.table_moved:
            image.write_table(self.table_offset, self.table)
            self.table_dirty.clear()
            return True
        if not self.table_dirty:
            return False
        image.write_table_entries(self.table_offset, self.table, self.table_dirty)
        self.table_dirty.clear()
        return True
