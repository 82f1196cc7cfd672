"""The metadata of a writable qcow2 image: tables for writing, reference counts, header writes, commit.

Durability (also drawn in ARCHITECTURE.md): tables change in memory only; ``commit`` writes them in an order in which a
cut at any point leaves leaked clusters at most. Operations that must change counts and COPIED flags together go
through ``rebuild.py`` instead.
"""

from __future__ import annotations

from array import array

from ....errors import CorruptError, CowshedError, FormatError, NoSpaceError
from . import header as hd
from .l2 import COMPRESSED_FLAG, COPIED, L1_OFFSET_MASK, OFFSET_MASK, L2Table
from .node import Qcow2Map
from .refcounts import Refcounts

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from .bitmap_store import Tracker

#: dirty metadata that is written out before more is gathered
DIRTY_BYTES = 32 << 20
#: runs of clusters waiting to be freed, likewise
MAX_PENDING = 1 << 16
#: clusters of all snapshots' L1 tables together that are guarded against writes
MAX_SNAPSHOT_CLUSTERS = 1 << 22
#: L2 tables that are made together
_AHEAD = 64


class Qcow2Metadata(Qcow2Map):
    """Tables that can change. All of it runs with ``lock`` held."""

    def __init__(self, file: Any, header: hd.Header, *, read_only: bool) -> None:
        super().__init__(file, header, read_only=read_only)
        if not read_only:
            file.extensible = True
        self._refcounts: Refcounts | None = None
        self.l1_dirty: set[int] = set()
        self.l2_dirty = 0
        #: where the next compressed cluster's bytes go: inside the last cluster that compressed data took
        self.packed_end = 0
        #: keeps persistent bitmaps true; set up at the first write of an image that has enabled ones
        self.tracker: Tracker | None = None
        self.tracker_ready = False
        self.failed: CowshedError | None = None

    @property
    def refcounts(self) -> Refcounts:
        """The reference counts, loaded at first use."""
        if self._refcounts is None:
            self._refcounts = Refcounts(self)
            self._collect_metadata(self._refcounts)
        return self._refcounts

    def _collect_metadata(self, refcounts: Refcounts) -> None:
        """Remember which host clusters hold metadata, for the overlap checks."""
        shift = self.cluster_bits
        header = self.header
        taken = self.metadata_clusters
        taken.clear()

        def area(offset: int, length: int) -> None:
            if offset and length:
                taken.update(range(offset >> shift, (offset + length - 1 >> shift) + 1))

        taken.add(0)
        area(header.l1_table_offset, header.l1_size * 8)
        area(refcounts.table_offset, refcounts.table_clusters << shift)
        taken.update((entry & OFFSET_MASK) >> shift for entry in refcounts.table if entry)
        taken.update((entry & L1_OFFSET_MASK) >> shift for entry in self.l1 if entry)
        if header.snapshots_offset and header.nb_snapshots:
            from .snapshot import table_area

            total = 0
            for offset, length in table_area(self):
                length = min(length, self.file.size - offset)
                total += length >> shift
                if total > MAX_SNAPSHOT_CLUSTERS:
                    raise FormatError(
                        "Snapshot L1 tables too large", path=self.filename, layer="qcow2 snapshot table",
                        field="l1_size", value=f"{total} clusters", limit=MAX_SNAPSHOT_CLUSTERS, errno=27,
                    )  # fmt: skip
                if length > 0:
                    area(offset, length)
        if header.extension(hd.EXT_BITMAPS) is not None:
            from .bitmap_store import areas

            for offset, length in areas(self):
                area(offset, length)

    def settle_tracker(self) -> None:
        """Store the bits gathered so far: bitmaps are about to be changed or read. The next write tracks anew."""
        if self.tracker is not None:
            self.tracker.store()
            self.tracker = None
        self.tracker_ready = False

    # -- corruption -----------------------------------------------------------------------------------------------

    def corruption(self, text: str, **facts: Any) -> CorruptError:
        """Mark the image corrupt (when it is open for writing) and give the error to raise."""
        if self.read_only:
            return super().corruption(text, **facts)
        if self.header.version < 3:  # which has no mark for it; nothing more is written all the same
            self.failed = super().corruption(text, **facts)
            return self.failed
        error = hd.corrupt(self.filename, "Input/output error", hint=text, **facts)
        if not self.signalled_corruption:
            self.signalled_corruption = True
            self.warn(f"qcow2: Marking image as corrupt: {text}; further corruption events will be suppressed")
            self.header.incompatible_features |= hd.INCOMPAT_CORRUPT
            self.write_header_fixed()
            self.file.flush()
        self.failed = error
        return error

    def check_overlap(self, offset: int, length: int, what: str = "metadata") -> None:
        """Refuse to write over metadata of this image. Raises CorruptError after marking the image corrupt."""
        if self.has_data_file and what == "data":
            return
        first, last = offset >> self.cluster_bits, (offset + length - 1) >> self.cluster_bits
        refcounts = self.refcounts  # which collects the metadata clusters
        if what == "data" and refcounts.block(first // refcounts.per_block) is None:
            # an entry that points where no count was ever kept: a write there would blow the file up
            raise self.corruption(
                f"Preventing write to a cluster without references at offset {offset:#x}",
                offset=offset,
                field="host offset",
                value=hex(offset),
            )
        taken = self.metadata_clusters
        if last - first < len(taken):
            hit = any(cluster in taken for cluster in range(first, last + 1))
        else:
            hit = any(first <= cluster <= last for cluster in taken)
        if hit:
            raise self.corruption(
                f"Preventing invalid write on metadata (overlaps with {self._what_is_at(first, last)})",
                offset=offset,
                field="host offset",
                value=hex(offset),
            )

    def check_data_offset(self, end: int) -> None:
        """Can entries point to clusters that end at ``end`` of the data file? Raises NoSpaceError."""
        if end - 1 >> 56:
            raise NoSpaceError(
                "File too large", path=self.filename, layer="qcow2", field="host offset", value=hex(end),
                limit=hex(1 << 56), errno=27, hint="entries of L2 tables have 56 bits for a place in the data file",
            )  # fmt: skip

    def _what_is_at(self, first: int, last: int) -> str:
        """The name of the metadata in clusters first..last, in the order in which the checks are made."""
        shift, header = self.cluster_bits, self.header

        def inside(offset: int, length: int) -> bool:
            return bool(length) and offset >> shift <= last and (offset + length - 1) >> shift >= first

        if first == 0:
            return "qcow2_header"
        if inside(header.l1_table_offset, header.l1_size * 8):
            return "active L1 table"
        if any(entry and first <= (entry & L1_OFFSET_MASK) >> shift <= last for entry in self.l1):
            return "active L2 table"
        if inside(self.refcounts.table_offset, self.refcounts.table_clusters << shift):
            return "refcount table"
        if any(entry and first <= (entry & OFFSET_MASK) >> shift <= last for entry in self.refcounts.table):
            return "refcount block"
        if header.nb_snapshots and first <= header.snapshots_offset >> shift <= last:
            return "snapshot table"
        return "inactive L1 table"

    def forget_tables(self) -> None:
        """Drop every cached table: a rebuild has put others in their place."""
        self.l2.clear()
        self.l2_dirty = 0
        self.l1_dirty.clear()
        self._refcounts = None
        self.metadata_clusters.clear()
        self.packed_end = 0

    # -- headers --------------------------------------------------------------------------------------------------

    def write_header_fixed(self) -> None:
        """Write the fixed header fields: one write inside the first sector."""
        self._write_first_sector(self.header.encode_fixed()[:512])

    def _write_first_sector(self, data: bytes) -> None:
        try:
            self.file.write(0, data)
        except CowshedError as error:
            self.failed = error  # nobody knows which of the two states the file is in
            raise

    def rewrite_header(self) -> None:
        """Write the whole header after a change of extensions or backing name.

        The backing name moves beside the old one where there is room, so that the old header stays whole until the
        first sector, written last, switches to the new one.
        """
        with self.lock:
            if self.failed is not None:
                raise self.failed
            header = self.header
            before = header.header_length, header.backing_file_offset
            try:
                self._rewrite_header()
            except BaseException:
                # the header on the disk is the old one, and its fixed fields may be written again
                header.header_length, header.backing_file_offset = before
                raise

    def _rewrite_header(self) -> None:
        old = hd.read_header(self.file, check=True)
        extensions = old.header_length + sum(8 + (len(data) + 7 & ~7) for _, data in old.extensions) + 8
        name = len((old.backing_file or "").encode("utf-8", "surrogateescape"))
        keep = ((512, extensions), (old.backing_file_offset, old.backing_file_offset + name))
        new = self.header.encode(tuple(area for area in keep if area[1] > max(area[0], 512)))
        at = self.header.backing_file_offset
        if len(new) > 512:
            # what lies between extensions and name may be the old name: it is left alone
            body = len(new) if not at else max(512, len(new[:at].rstrip(b"\0")))
            if body > 512:
                self.file.write(512, new[512:body])
            if at:
                self.file.write(max(at, 512), new[max(at, 512) :])
            self.file.flush()
        self._write_first_sector(new[:512])
        self.file.flush()

    # -- L2 tables for writing ------------------------------------------------------------------------------------

    def l2_for_write(self, index: int) -> L2Table:
        """The L2 table of L1 entry ``index``, owned by the active L1 alone; made or copied when it is not."""
        entry = self.l1[index]
        if entry & COPIED and entry & L1_OFFSET_MASK:
            table = self.l2_table(index)
            assert table is not None
            return table
        old = entry & L1_OFFSET_MASK
        if old:
            shared = self.l2_table(index)
            assert shared is not None
            entries = shared.entries[:]
        else:
            entries = array("Q", bytes(self.cluster_size))
        cluster, _ = self.refcounts.allocate(1)
        try:
            # room on the host is taken now: on a disk that becomes full, data without its table would be lost
            self.file.write(cluster << self.cluster_bits, bytes(self.cluster_size))
        except BaseException:
            self.refcounts.release(cluster)
            raise
        table = self._put_l2(index, cluster, entries)
        if old:
            self.refcounts.release(old >> self.cluster_bits)
        return table

    def l2_ahead(self, index: int, last: int) -> None:
        """Make the tables of L1 entries from ``index`` to at most ``last`` that have none, beside one another.

        All of them are going to be written to. With small clusters one request of the guest needs many, and so their
        room is taken by one write; when there is none, nothing happens, and `l2_for_write` tells.
        """
        l1 = self.l1
        stop = index
        last = min(last, index + min(_AHEAD, self.l2_keep // 4) - 1)
        while stop <= last and not l1[stop] & L1_OFFSET_MASK:
            stop += 1
        if stop - index < 2:
            return
        first, got = self.refcounts.allocate(stop - index)
        try:
            self.file.write(first << self.cluster_bits, bytes(got << self.cluster_bits))
        except BaseException as error:
            self.refcounts.release(first, got)
            if isinstance(error, NoSpaceError):
                return
            raise
        for number in range(got):
            self._put_l2(index + number, first + number, array("Q", bytes(self.cluster_size)))

    def _put_l2(self, index: int, cluster: int, entries: array[int]) -> L2Table:
        """A new table of L1 entry ``index``."""
        table = L2Table(cluster << self.cluster_bits, entries, False)
        if len(self.l2) >= self.l2_keep:
            self.evict_l2()
        self.l2[index] = table
        self.metadata_clusters.add(cluster)
        self.l1[index] = table.offset | COPIED
        self.l1_dirty.add(index)
        self.touch(table)
        return table

    def touch(self, table: L2Table) -> None:
        if not table.dirty:
            table.dirty = True
            self.l2_dirty += 1

    def _free_entry(self, entry: int, keep: int = -1, *, discard: bool = False) -> None:
        """Drop an L2 entry's reference to its host clusters, unless it is to cluster ``keep``."""
        if entry & COMPRESSED_FLAG:
            offset, length = self.compressed_location(entry)
            first = offset >> self.cluster_bits
            last = (offset + length - 1) >> self.cluster_bits
            self.refcounts.release(first, last - first + 1, discard=discard)
            return
        host = entry & OFFSET_MASK
        if self.has_data_file:
            if discard and not self.data_file_raw and (host or entry & COPIED):
                self.data.discard(host, min(self.cluster_size, max(0, self.data.size - host)))
            return
        if not host or host == keep:
            return
        if host & (self.cluster_size - 1):
            raise self.corruption(f"Cannot free unaligned cluster {host:#x}", field="l2 entry", value=hex(entry))
        self.refcounts.release(host >> self.cluster_bits, 1, discard=discard)

    def clusters_freed(self, first: int, count: int) -> None:
        """Host clusters lost their last reference: they are neither metadata nor a place for compressed data now."""
        if self.metadata_clusters:
            self.metadata_clusters.difference_update(range(first, first + count))
        if first <= self.packed_end >> self.cluster_bits < first + count:
            self.packed_end = 0

    # -- commit ---------------------------------------------------------------------------------------------------

    def is_dirty(self) -> bool:
        refcounts = self._refcounts
        return bool(self.l2_dirty or self.l1_dirty) or (
            refcounts is not None and (refcounts.is_dirty() or bool(refcounts.pending))
        )

    def commit_when_large(self) -> None:
        """Commit when much has gathered. Never in the middle of a change."""
        waiting = self._refcounts.pending if self._refcounts is not None else ()
        if self.l2_dirty << self.cluster_bits > DIRTY_BYTES or len(waiting) > MAX_PENDING:
            self.commit()

    def commit(self) -> None:
        """Write all changed metadata, in the order described at the top; durable up to the last decrements."""
        with self.lock:
            if not self.is_dirty():
                return
            file, refcounts = self.file, self.refcounts
            self.data.flush()
            if self.has_data_file:
                file.flush()
            if refcounts.write_blocks():
                file.flush()
            if refcounts.write_table():
                file.flush()
            if refcounts.table_moved:
                # not before: the header may be written for other reasons while the new table is in memory only
                self.header.refcount_table_offset = refcounts.table_offset
                self.header.refcount_table_clusters = refcounts.table_clusters
                self.write_header_fixed()
                refcounts.table_moved = False
                file.flush()
            wrote = False
            if self.l2_dirty:
                for table in sorted((t for t in self.l2.values() if t.dirty), key=lambda t: t.offset):
                    self.write_table(table.offset, table.entries)
                    table.dirty = False
                self.l2_dirty = 0
                wrote = True
            if self.l1_dirty:
                if wrote:
                    file.flush()
                self.write_table_entries(self.header.l1_table_offset, self.l1, self.l1_dirty)
                self.l1_dirty.clear()
                wrote = True
            if refcounts.pending:
                if wrote:
                    file.flush()
                holes = refcounts.apply_pending()
                refcounts.write_blocks()
                for first, count in holes:
                    file.discard(first << self.cluster_bits, count << self.cluster_bits)
