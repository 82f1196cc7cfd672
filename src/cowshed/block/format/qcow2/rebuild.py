"""Changing counts and COPIED flags together: a new set of metadata, switched in by one write of the header's sector.

Snapshots, amendment and repair change the reference counts of many clusters and, with them, the COPIED flags in the
active L1 and L2 tables. No order of in-place writes keeps both true at every moment. So a `Rebuild` writes what changes
(refcount blocks, refcount table, L2 tables, L1 tables, snapshot table) into space that is free in the old state;
the old state stays whole until the header's first sector, which holds every pointer, is written.

Memory: two counts a host cluster (2 bytes each at 16 refcount bits: 64 MiB for a full 1 TiB image of 64 KiB clusters).
"""

from __future__ import annotations

import sys
from array import array

from ....arrays import load_numpy
from ....errors import CowshedError, FormatError, NoSpaceError
from ...node import COMPRESSED, space_reused
from .header import MAX_REFCOUNT_TABLE_BYTES
from .l2 import COPIED, L1_OFFSET_MASK, OFFSET_MASK, runs, runs_of_table
from .refcounts import decode_block, encode_block

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Any

    from .write import Qcow2Node

_SWAP = sys.byteorder == "little"
_TYPECODES = {8: "B", 16: "H", 32: "I", 64: "Q"}
_CLEAR_COPIED = bytes(value & 0x7F for value in range(256))
_SET_COPIED = bytes(value | 0x80 for value in range(256))

#: clusters behind the end of the file that may have counts
BEYOND = 1 << 24


def typecode_for(bits: int) -> str:
    """The array typecode that holds a count of ``bits`` bits."""
    return _TYPECODES.get(bits, "B")


class Rebuild:
    """One transaction. ``old``/``new``: counts by host cluster before and after; change ``new`` through the methods.

    ``fresh``: start from no references at all (repair) instead of from the old counts.
    """

    def __init__(self, image: Qcow2Node, *, fresh: bool = False, bits: int | None = None) -> None:
        if image.failed is not None:
            raise image.failed
        image.commit()
        self.image = image
        image.refcounts  # noqa: B018 (collects the metadata clusters)
        #: clusters of the old state's metadata, whatever their counts say
        self.taken = image.metadata_clusters
        self.bits = bits or image.header.refcount_bits
        self.old_bits = image.header.refcount_bits
        self.maximum = (1 << self.bits) - 1
        # one typecode for both sides: the wider
        self.typecode = typecode_for(max(self.bits, self.old_bits))
        self.per_block = image.cluster_size * 8 // self.bits
        self.old_table = image.read_table(
            image.header.refcount_table_offset, image.header.refcount_table_clusters * image.cluster_size // 8
        )
        self.file_clusters = (image.file.size + image.cluster_size - 1) >> image.cluster_bits
        self.old = self._load_counts()
        self.new = array(self.typecode, bytes(len(self.old) * self.old.itemsize)) if fresh else self.old[:]
        #: many tables: walk them vectorised (numpy takes a tenth of a second to load)
        self.bulk = len(self.old) > 1 << 19
        self.next = 0
        #: clusters that were written but have no references yet
        self.held: set[int] = set()

    def _load_counts(self) -> array[int]:
        image = self.image
        per_block = image.cluster_size * 8 // self.old_bits
        counts = array(self.typecode)
        # counts far behind the end of the file are of no use to anybody: what refers to such clusters is refused
        near = (self.file_clusters + BEYOND) // per_block + 1
        last = max((index for index, entry in enumerate(self.old_table[:near]) if entry & OFFSET_MASK), default=-1)
        zero = array(self.typecode, bytes(per_block * counts.itemsize))
        for index in range(last + 1):
            offset = self.old_table[index] & OFFSET_MASK
            if not offset or offset & (image.cluster_size - 1) or offset >= image.file.size:
                counts.extend(zero)
                continue
            size = image.cluster_size
            data = image.file.read(offset, max(0, min(size, image.file.size - offset))).ljust(size, b"\0")
            values = decode_block(data, self.old_bits)
            counts.extend(values if values.typecode == self.typecode else array(self.typecode, values))
        return counts

    # -- counts ---------------------------------------------------------------------------------------------------

    def _reach(self, cluster: int) -> None:
        """Make both count arrays long enough to index ``cluster``."""
        missing = cluster + 1 - len(self.new)
        if missing > 0:
            pad = bytes(max(missing, 1024) * self.new.itemsize)
            self.new.frombytes(pad)
            self.old.frombytes(pad)

    def _inside(self, first: int, count: int) -> None:
        """Make the counts of these clusters, which the image refers to, indexable. Raises CorruptError."""
        if first + count > max(len(self.new), self.file_clusters):
            raise self.image.corruption(
                f"Cluster {first + count - 1:#x} is in use, but lies behind the end of the file and has no refcount",
                field="host cluster", value=first + count - 1, limit=self.file_clusters,
            )  # fmt: skip
        self._reach(first + count - 1)

    def add(self, first: int, count: int, amount: int) -> None:
        """Change the new counts of ``count`` clusters from ``first``. Raises FormatError beyond 0..maximum."""
        if not count:
            return
        self._inside(first, count)
        if self.bulk and count >= 256 and self._add_uniform(first, count, amount):
            return
        piece = self.new[first : first + count]
        value = piece[0]
        if piece.count(value) == count:
            self._bound(value + amount, first)
            self.new[first : first + count] = array(self.typecode, [value + amount]) * count
            return
        for number, value in enumerate(piece):
            self._bound(value + amount, first + number)
            self.new[first + number] = value + amount

    def _view(self, counts: array[int]) -> Any:
        """A numpy view of a count array; drop it before the array grows."""
        load_numpy()
        import numpy

        return numpy.frombuffer(counts, dtype=f"=u{counts.itemsize}")

    def _add_uniform(self, first: int, count: int, amount: int) -> bool:
        """`add` for a long run whose counts are all the same; False when they are not."""
        piece = self._view(self.new)[first : first + count]
        value = int(piece[0])
        if not bool((piece == value).all()):
            return False
        self._bound(value + amount, first)
        piece[:] = value + amount
        return True

    def _ones(self, first: int, count: int) -> bool | None:
        """Are all new counts of these clusters 1 (True), none of them (False), or some (None)?"""
        self._inside(first, count)
        if self.bulk and count >= 256:
            ones = int((self._view(self.new)[first : first + count] == 1).sum())
        else:
            ones = self.new[first : first + count].count(1)
        return True if ones == count else False if ones == 0 else None

    def _bound(self, value: int, cluster: int) -> None:
        if not 0 <= value <= self.maximum:
            raise FormatError(
                "Invalid argument", path=self.image.filename, layer="qcow2 refcounts",
                field=f"refcount of cluster {cluster}", value=value, limit=f"0 to {self.maximum}",
                hint="an image with wider refcounts (amend -o refcount_bits=…) can share a cluster more often"
                if value > self.maximum else None,
            )  # fmt: skip

    def l2_bytes(self, offset: int) -> bytes:
        """The raw bytes of the L2 table at ``offset``."""
        image = self.image
        size = image.cluster_size
        return image.file.read(offset, max(0, min(size, image.file.size - offset))).ljust(size, b"\0")

    def add_tree(self, l1: array[int], amount: int) -> None:
        """Change the counts of everything that an L1 table reaches: L2 tables, data and compressed clusters."""
        shift = self.image.cluster_bits
        for entry in l1:
            offset = entry & L1_OFFSET_MASK
            if not offset:
                continue
            if offset & (self.image.cluster_size - 1):
                raise self.image.corruption(
                    f"L2 table offset {offset:#x} unaligned", field="l1 entry", value=hex(entry)
                )
            self.add(offset >> shift, 1, amount)
            for first, count in self.host_runs(self.l2_bytes(offset)):
                self.add(first, count, amount)

    def host_runs(self, raw: bytes) -> Iterator[tuple[int, int]]:
        """Runs (first, count) of host clusters that an L2 table's entries use, one for each reference."""
        image = self.image
        if image.has_data_file:
            return
        size, shift = image.cluster_size, image.cluster_bits
        for index, count, kind, host in self._runs(raw):
            if kind == COMPRESSED:
                step = 8 * image.entry_words
                for at in range(index * step, (index + count) * step, step):
                    where, length = image.compressed_location(int.from_bytes(raw[at : at + 8], "big"))
                    first = where >> shift
                    yield first, ((where + length - 1) >> shift) - first + 1
            elif host >= 0:
                if host & (size - 1):
                    raise image.corruption(
                        f"Cluster allocation offset {host:#x} unaligned", field="l2 entry", value=hex(host)
                    )
                yield host >> shift, count

    def _runs(self, raw: bytes) -> Iterator[tuple[int, int, int, int]]:
        """The runs of a raw L2 table, see l2.runs."""
        image = self.image
        if self.bulk:
            return runs_of_table(raw, image.cluster_size, image.has_data_file, image.entry_words)
        entries = array("Q", raw)
        if _SWAP:
            entries.byteswap()
        if image.extended:
            entries = entries[::2]
        return runs(entries, image.cluster_size, image.has_data_file)

    # -- space ----------------------------------------------------------------------------------------------------

    def allocate(self, count: int, references: int = 1) -> int:
        """``count`` contiguous clusters, free before and after, counted ``references`` times. Returns the first."""
        cluster = self.next
        old, new, taken = self.old, self.new, self.taken
        while True:
            run = 0
            while run < count:
                at = cluster + run
                if (at < len(old) and (old[at] or new[at])) or at in self.held or at in taken:
                    break
                run += 1
            if run == count:
                break
            cluster += run + 1
            if cluster < len(old) and old[cluster]:
                try:
                    cluster = old.index(0, cluster)
                except ValueError:
                    cluster = len(old)
        if count == 1:
            self.next = cluster + 1
        if cluster + count > self.image.max_clusters:
            raise NoSpaceError("File too large", path=self.image.filename, layer="qcow2", errno=27)
        self._reach(cluster + count - 1)
        self.new[cluster : cluster + count] = array(self.typecode, [references]) * count
        return cluster

    def hold(self, cluster: int) -> None:
        """Keep an allocated cluster from being handed out again until its references are counted."""
        self.held.add(cluster)

    # -- tables ---------------------------------------------------------------------------------------------------

    def fix_flags(self, l1: array[int], also: tuple[array[int], ...] = ()) -> array[int]:
        """The active L1 table with COPIED flags true to the new counts; L2 tables that must change are copied.

        ``also``: L1 tables made in this transaction (a new snapshot's), which are pointed to the copies too.
        Returns the new L1 table; ``also`` is changed in place. Call it when all counts of guest clusters are final.
        """
        image = self.image
        shift = image.cluster_bits
        result = array("Q", bytes(len(l1) * 8))
        for index, entry in enumerate(l1):
            offset = entry & L1_OFFSET_MASK
            if not offset:
                continue
            cluster = offset >> shift
            raw = self.l2_bytes(offset)
            fixed = self._flags(raw)
            if fixed is not None:
                shared = [table for table in also if index < len(table) and table[index] & L1_OFFSET_MASK == offset]
                moved = self.allocate(1, 1 + len(shared))
                image.file.write(moved << shift, fixed)
                self.add(cluster, 1, -1 - len(shared))
                for table in shared:
                    table[index] = moved << shift
                cluster = moved
            result[index] = (cluster << shift) | (COPIED if self.new[cluster] == 1 else 0)
        return result

    def _flags(self, raw: bytes) -> bytes | None:
        """The L2 table's bytes with true COPIED flags, None when they are true already."""
        image = self.image
        if image.has_data_file:
            return None
        stride = 8 * image.entry_words
        shift = image.cluster_bits
        top = bytearray(raw[0::stride])  # the byte with the flag, of every entry
        before = bytes(top)
        for begin, count, kind, host in self._runs(raw):
            if kind == COMPRESSED or host < 0:
                continue
            ones = self._ones(host >> shift, count)
            if ones is True:
                top[begin : begin + count] = top[begin : begin + count].translate(_SET_COPIED)
            elif ones is False:
                top[begin : begin + count] = top[begin : begin + count].translate(_CLEAR_COPIED)
            else:
                for number, value in enumerate(self.new[host >> shift : (host >> shift) + count]):
                    if value == 1:
                        top[begin + number] |= 0x80
                    else:
                        top[begin + number] &= 0x7F
        if bytes(top) == before:
            return None
        fixed = bytearray(raw)
        fixed[0::stride] = top
        return bytes(fixed)

    def put_table(self, table: array[int], references: int = 1) -> int:
        """Write an L1-like table into free space; returns its offset (0 for an empty one)."""
        if not len(table):
            return 0
        return self.put_bytes(self._big_endian(table), references)

    def put_bytes(self, data: bytes, references: int = 1) -> int:
        """Write ``data`` into free contiguous clusters; returns the offset."""
        image = self.image
        first = self.allocate((len(data) + image.cluster_size - 1) >> image.cluster_bits, references)
        image.file.write(first << image.cluster_bits, data)
        return first << image.cluster_bits

    def free_area(self, offset: int, length: int) -> None:
        """Drop one reference of the clusters that hold metadata at [offset, offset+length)."""
        if offset and length:
            shift = self.image.cluster_bits
            first = offset >> shift
            self.add(first, ((offset + length - 1) >> shift) - first + 1, -1)

    @staticmethod
    def _big_endian(table: array[int]) -> bytes:
        if _SWAP:
            table = table[:]
            table.byteswap()
        return table.tobytes()

    # -- the end --------------------------------------------------------------------------------------------------

    def finish(self, change_header: Callable[[], None], *, discard: bool = True, fresh: bool = False) -> None:
        """Write the refcount structures, then switch: ``change_header`` sets the header's other fields.

        ``fresh``: the old refcount structures have no references in ``new`` (repair) and are simply left behind.
        Afterwards the image's caches are empty and the old metadata's space is given back.
        """
        image = self.image
        header = image.header
        shift, size = image.cluster_bits, image.cluster_size
        per_cluster = size // 8
        # the old table and the blocks that change go away
        if not fresh:
            self.free_area(header.refcount_table_offset, header.refcount_table_clusters << shift)
        same_shape = self.bits == self.old_bits and not fresh
        kept: dict[int, int] = {}
        if same_shape:
            for index, entry in enumerate(self.old_table):
                if entry & OFFSET_MASK:
                    kept[index] = entry & OFFSET_MASK
        elif not fresh:
            for entry in self.old_table:
                if entry & OFFSET_MASK:
                    self.free_area(entry & OFFSET_MASK, size)
        placed: dict[int, int] = {}
        table_clusters = 0
        table_first = 0
        while True:
            used = self._highest() + 1
            blocks = (used + self.per_block - 1) // self.per_block
            need = max(1, (blocks + per_cluster - 1) // per_cluster)
            if need > table_clusters:
                if need << shift > MAX_REFCOUNT_TABLE_BYTES:
                    raise NoSpaceError("File too large", path=image.filename, layer="qcow2", errno=27)
                if table_clusters:
                    self.add(table_first, table_clusters, -1)
                table_clusters = need
                table_first = self.allocate(need)
                continue
            again = False
            # blocks that describe nothing any more
            for index in [number for number in kept if number >= blocks]:
                self.free_area(kept.pop(index), size)
                again = True
            for index in range(blocks):
                low = index * self.per_block
                if index in placed:
                    continue
                if index in kept and self.old[low : low + self.per_block] == self.new[low : low + self.per_block]:
                    continue
                if index not in kept and not _any(self.new[low : low + self.per_block]):
                    continue
                if index in kept:
                    self.free_area(kept.pop(index), size)
                placed[index] = self.allocate(1)
                again = True
            if not again:
                break
        table = array("Q", bytes(table_clusters << shift))
        for index, offset in kept.items():
            table[index] = offset
        code = typecode_for(self.bits)
        for index in sorted(placed):
            low = index * self.per_block
            values = self.new[low : low + self.per_block]
            if len(values) < self.per_block:
                values.frombytes(bytes((self.per_block - len(values)) * values.itemsize))
            if values.typecode != code:
                values = array(code, values)
            image.file.write(placed[index] << shift, encode_block(values, self.bits))
            table[index] = placed[index] << shift
        image.file.write(table_first << shift, self._big_endian(table))
        image.file.flush()
        header.refcount_table_offset = table_first << shift
        header.refcount_table_clusters = table_clusters
        header.refcount_order = self.bits.bit_length() - 1
        change_header()
        image.forget_tables()
        try:
            image.write_header_fixed()
            image.file.flush()
            image.load_l1()
        except CowshedError as error:
            image.failed = error  # the file is in the new state, or in the old one, and memory perhaps in neither
            raise
        space_reused()
        if discard:
            self._punch()

    def _highest(self) -> int:
        """The highest host cluster with a reference in the new state."""
        new = self.new
        step = 65536
        end = len(new)
        while end > 0:
            begin = max(0, end - step)
            piece = new[begin:end]
            if _any(piece):
                for number in range(len(piece) - 1, -1, -1):
                    if piece[number]:
                        return begin + number
            end = begin
        return 0

    def _punch(self) -> None:
        """Give the space of clusters back that were used before and are not now."""
        image = self.image
        shift = image.cluster_bits
        for first, count in self._gone():
            image.file.discard(first << shift, count << shift)

    def _gone(self) -> Iterator[tuple[int, int]]:
        """Runs of clusters that had references before and have none now."""
        old, new = self.old, self.new
        if self.bulk:
            load_numpy()
            import numpy

            pending = (0, 0)
            step = 1 << 20
            for base in range(0, len(new), step):
                gone = (self._view(old)[base : base + step] != 0) & (self._view(new)[base : base + step] == 0)
                edges = numpy.flatnonzero(numpy.diff(numpy.concatenate(([0], gone.view("i1"), [0])))).tolist()
                for index in range(0, len(edges), 2):
                    first, count = base + edges[index], edges[index + 1] - edges[index]
                    if pending[0] + pending[1] == first:
                        pending = (pending[0], pending[1] + count)
                        continue
                    if pending[1]:
                        yield pending
                    pending = (first, count)
            if pending[1]:
                yield pending
            return
        start = -1
        for number in range(len(new)):
            if old[number] and not new[number]:
                if start < 0:
                    start = number
            elif start >= 0:
                yield start, number - start
                start = -1
        if start >= 0:
            yield start, len(new) - start


def _any(counts: array[int]) -> bool:
    """Is any of the counts not zero?"""
    return bool(counts.tobytes().lstrip(b"\0"))
