"""Repair beyond single counts and flags: refcount structures made anew, and the snapshot table.

Both are written into free space and switched to by one write of the header's first sector.
"""

from __future__ import annotations

import errno
import struct
from array import array

from ....errors import FormatError, NoSpaceError
from . import header as hd
from .census import Aborted, tell
from .ledger import Ledger
from .rebuild import typecode_for
from .refcounts import Refcounts, encode_block
from .snapshot import ENTRY, MAX_EXTRA, Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from .census import Census
    from .check import Checker
    from .node import Qcow2Map

_FORCE = "You can force-remove {} with qemu-img check -r all"


# -- refcount structures ----------------------------------------------------------------------------------------------


class NewLedger(Ledger):
    """Counts that are in memory alone until the rebuild is written."""

    def __init__(self, image: Qcow2Map, bits: int, offset: int, clusters: int) -> None:
        self.image = image
        self.bits = bits
        self.per_block = image.cluster_size * 8 // bits
        self.offset = offset
        self.table = array("Q", bytes(clusters * image.cluster_size))
        self.blocks = {}
        self.dirty = set()

    def block(self, index: int) -> array[int] | None:
        return self.blocks.get(index)

    def flush(self) -> None:
        """Nothing is written before the whole of it is."""


class NewRefcounts:
    """Refcount blocks and table for what a census counted, placed in clusters that nothing refers to.

    ``write`` writes them and switches the header to them.
    """

    def __init__(self, image: Qcow2Map, census: Census) -> None:
        self.image = image
        self.census = census
        self.per_block = image.cluster_size * 8 // census.bits
        places = self._place()
        self.ledger = NewLedger(image, census.bits, self.table_offset, self.table_clusters)
        #: where the file ends, at least, when all of it is written
        self.end = max(self.table_offset + (self.table_clusters << image.cluster_bits), image.file.size)
        for index, cluster in places.items():
            self.end = max(self.end, (cluster + 1) << image.cluster_bits)
            self.ledger.table[index] = cluster << image.cluster_bits
            self.ledger.blocks[index] = self._counts(index)

    def _place(self) -> dict[int, int]:
        """Find clusters for a block for every stretch with references, these clusters' own stretches included."""
        image, census = self.image, self.census
        per_table = image.cluster_size // 8
        places: dict[int, int] = {}
        pointer = 0
        self.table_offset = self.table_clusters = 0
        while True:
            missing = [index for index in self._used() if index not in places]
            while missing:
                index = missing[0]
                pointer = self._free(max(pointer, index * self.per_block))
                places[index] = pointer
                census.add(pointer, 1)
                own = pointer // self.per_block
                del missing[0]
                if own not in places and own not in missing:
                    missing.append(own)
                    missing.sort()
            need = max(1, -(-(max(places) + 1) // per_table))
            if need <= self.table_clusters:
                return places
            if need << image.cluster_bits > hd.MAX_REFCOUNT_TABLE_BYTES:
                raise NoSpaceError(
                    "File too large", path=image.filename, layer="qcow2", field="refcount table clusters", value=need,
                    errno=errno.EFBIG,
                )  # fmt: skip
            self._unmark()
            first = self._free_run(need)
            census.add(first, need)
            self.table_offset = first << image.cluster_bits
            self.table_clusters = need

    def _unmark(self) -> None:
        first = self.table_offset >> self.image.cluster_bits
        for cluster in range(first, first + self.table_clusters):
            self.census.counts[cluster] = 0

    def _used(self) -> list[int]:
        """The stretches with references."""
        census, per_block = self.census, self.per_block
        if census.bulk is not None:
            return sorted(
                index
                for index in census.bulk.touched
                if census.counts[index * per_block : (index + 1) * per_block].any()
            )
        stretches = range(-(-census.clusters // per_block))
        return [index for index in stretches if any(census.counts[index * per_block : (index + 1) * per_block])]

    def _free(self, cluster: int) -> int:
        """The first cluster from ``cluster`` on that nothing refers to."""
        counts = self.census.counts
        end = self.census.clusters
        while cluster < end:
            piece = counts[cluster : min(end, cluster + 65536)]
            try:
                return cluster + int(piece.tolist().index(0))
            except ValueError:
                cluster += len(piece)
        return cluster

    def _free_run(self, count: int) -> int:
        counts, end = self.census.counts, self.census.clusters
        cluster = self._free(0)
        while True:
            run = 1
            while run < count and (cluster + run >= end or not counts[cluster + run]):
                run += 1
            if run >= count:
                return cluster
            cluster = self._free(cluster + run)

    def _counts(self, index: int) -> array[int]:
        code = typecode_for(self.ledger.bits)
        low = index * self.per_block
        piece = self.census.counts[low : min(low + self.per_block, self.census.clusters)]
        block = array(code, piece.tobytes())
        block.frombytes(bytes((self.per_block - len(block)) * block.itemsize))
        return block

    def write(self) -> None:
        """Write the blocks and the table, then let the header point to them."""
        image: Any = self.image
        file = image.file
        for index in sorted(self.ledger.blocks):
            file.write(self.ledger.table[index], encode_block(self.ledger.blocks[index], self.ledger.bits))
        image.write_table(self.table_offset, self.ledger.table)
        file.flush()
        image.forget_tables()
        image.header.refcount_table_offset = self.table_offset
        image.header.refcount_table_clusters = self.table_clusters
        image.write_header_fixed()
        file.flush()
        self.ledger.dirty.clear()


# -- the snapshot table -----------------------------------------------------------------------------------------------


class _Reader:
    """Bytes of the file from ``offset`` on, zeroes past its end."""

    def __init__(self, image: Qcow2Map, offset: int) -> None:
        self.file = image.file
        self.offset = offset
        self._start = offset
        self._data = b""

    def get(self, length: int) -> bytes:
        at = self.offset - self._start
        if at < 0 or at + length > len(self._data):
            want = max(length, 1 << 16)
            inside = max(0, min(want, self.file.size - self.offset))
            self._data = (self.file.read(self.offset, inside) if inside else b"").ljust(want, b"\0")
            self._start, at = self.offset, 0
        self.offset += length
        return self._data[at : at + length]


def read_snapshot_table(checker: Checker) -> None:
    """Read the snapshot table into ``checker``, telling (and, when it repairs, leaving out) what is too much.

    Raises Aborted where the table can't be used at all.
    """
    image, result = checker.image, checker.result
    header = image.header
    repair = checker.fix_errors

    def abort(text: str, number: int, hint: str | None = None) -> Aborted:
        tell(result, f"ERROR {text}" + (f"\n{hint}" if hint else ""), "report")
        layer, offset = "qcow2 snapshot table", header.snapshots_offset
        return Aborted(FormatError(text, path=image.filename, layer=layer, offset=offset, errno=number))

    over = header.nb_snapshots - hd.MAX_SNAPSHOTS
    if over > 0:
        if not repair:
            raise abort("snapshot table too large", errno.EFBIG, _FORCE.format(f"all {over} overhanging snapshots"))
        tell(result, f"Discarding {over} overhanging snapshots")
        checker.snapshot_damage += over
        header.nb_snapshots = hd.MAX_SNAPSHOTS
    if header.snapshots_offset & (image.cluster_size - 1):
        raise abort("snapshot table offset invalid", errno.EINVAL)
    reader = _Reader(image, header.snapshots_offset)
    records: list[Record] = []
    failed = "failed to read the snapshot table: "
    for number in range(header.nb_snapshots):
        begin = reader.offset
        reader.offset = (reader.offset + 7) & ~7
        fields = ENTRY.unpack(reader.get(ENTRY.size))
        l1_offset, l1_size, id_size, name_size, sec, nsec, clock, state, extra_size = fields
        kept = extra_size
        if extra_size > MAX_EXTRA:
            if not repair:
                raise abort(
                    f"{failed}Too much extra metadata in snapshot table entry {number}", errno.EFBIG,
                    _FORCE.format("this extra metadata"),
                )  # fmt: skip
            tell(
                result,
                f"Discarding too much extra metadata in snapshot table entry {number} ({extra_size} > {MAX_EXTRA})",
            )
            checker.snapshot_damage += 1
            kept = MAX_EXTRA
        extra = reader.get(kept)
        reader.offset += extra_size - kept
        record = Record("", "", l1_offset, l1_size)
        record.date_sec, record.date_nsec, record.vm_clock_nsec, record.vm_state_size = sec, nsec, clock, state
        record.short_extra = kept
        if kept >= 8:
            record.vm_state_size = struct.unpack_from(">Q", extra)[0]
        record.disk_size = struct.unpack_from(">Q", extra, 8)[0] if kept >= 16 else image.size
        if kept >= 24:
            icount = struct.unpack_from(">Q", extra, 16)[0]
            record.icount = None if icount == (1 << 64) - 1 else icount
        record.extra_tail = extra[24:]
        record.id = reader.get(id_size).decode("utf-8", "surrogateescape")
        record.name = reader.get(name_size).decode("utf-8", "surrogateescape")
        if reader.offset - header.snapshots_offset > hd.MAX_SNAPSHOT_TABLE_BYTES:
            left = header.nb_snapshots - number
            if not repair:
                hint = _FORCE.format(f"all {left} overhanging snapshots")
                raise abort(f"{failed}Snapshot table is too big", errno.EFBIG, hint)
            tell(result, f"Discarding {left} overhanging snapshots (snapshot table is too big)")
            checker.snapshot_damage += left
            header.nb_snapshots = number
            reader.offset = begin
            break
        records.append(record)
    checker.snapshots = records
    checker.snapshots_size = reader.offset - header.snapshots_offset
    if header.version >= 3:
        word = "Repairing" if repair else "ERROR"
        for number, record in enumerate(records):
            if record.short_extra < 16:
                tell(result, f"{word} snapshot table entry {number} is incomplete")
                checker.snapshot_damage += 1


def write_snapshot_table(checker: Checker) -> None:
    """Write the snapshot table as ``checker`` has it to a new place, and give the old one back."""
    image: Any = checker.image
    header = image.header
    shift = image.cluster_bits
    old_offset, old_length = header.snapshots_offset, checker.snapshots_size
    data = b"".join(record.encode() for record in checker.snapshots)
    # the table that is on the disk can't be trusted for overlap checks: none are made here
    refcounts = image._refcounts = Refcounts(image)
    offset = 0
    if data:
        first, _ = refcounts.allocate(-(-len(data) // image.cluster_size), whole=True)
        offset = first << shift
        image.file.write(offset, data)
    image.commit()
    image.file.flush()
    header.snapshots_offset = offset
    header.nb_snapshots = len(checker.snapshots)
    image.write_header_fixed()
    image.file.flush()
    # a table that was cut off had no counts
    if old_length and old_offset + old_length - checker.census.file_size < image.cluster_size:
        first = old_offset >> shift
        refcounts.release(first, ((old_offset + old_length - 1) >> shift) - first + 1)
    image.commit()
    image.file.flush()
    checker.snapshots_size = len(data)
