"""The walk of a check over everything that refers to host clusters, and what guards that which it may not write over.

``census`` counts; here is what it is shown, in which order, and what is damaged beyond counting.
"""

from __future__ import annotations

import errno
import os

from ....errors import CowshedError, FormatError, HostError
from ...facts import CheckResult
from . import header as hd
from .census import Aborted, Census, tell
from .l2 import OFFSET_MASK
from .ledger import Ledger
from .refcounts import OFFSET_MASK as BLOCK_MASK

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from ....progress import Progress
    from .node import Qcow2Map
    from .snapshot import Record


class Walk:
    """What a check knows, and how it finds out what refers to the clusters."""

    def __init__(self, image: Qcow2Map, fix: frozenset[str], progress: Progress) -> None:
        self.image = image
        self.result = CheckResult()
        self.fix_leaks = "leaks" in fix
        self.fix_errors = "errors" in fix
        self.progress = progress
        self.snapshots: list[Record] = []
        self.snapshots_size = 0
        #: damage of the snapshot table, counted apart until it is mended
        self.snapshot_damage = 0
        self.ledger = Ledger(image)
        self.census: Census
        self.rebuild = False
        self.changed = False
        #: what the last walk found amiss, besides counts
        self.walk_errors = 0
        #: runs (first, count) of clusters that lost their last count
        self.freed: list[list[int]] = []
        self._signalled = False

    def _count(self, repair: bool, end: int = 0) -> None:
        """Walk everything; sets ``census`` and, where refcount structures are beyond use, ``rebuild``."""
        image, header, result = self.image, self.image.header, self.result
        result.allocated_clusters = result.fragmented_clusters = result.compressed_clusters = 0
        census = self.census = Census(image, result, repair=repair, progress=self.progress, end=end)
        census.guard = self._guard
        try:
            census.walk()
            self._count_snapshots()
            crypto = header.extension(hd.EXT_CRYPTO)
            if crypto is not None and len(crypto) >= 16:
                census.region(int.from_bytes(crypto[:8], "big"), int.from_bytes(crypto[8:16], "big"))
            self._count_bitmaps()
            table_bytes = header.refcount_table_clusters * image.cluster_size
            census.region(self.ledger.offset, table_bytes)
            self._count_blocks(repair)
            self.walk_errors = result.corruptions + self.snapshot_damage
        finally:
            self.changed |= census.changed
            result.image_end_offset = None

    def _count_snapshots(self) -> None:
        image, result, census = self.image, self.result, self.census
        if not self.image.header.snapshots_offset and not self.snapshots:
            return
        if image.has_data_file and self.snapshots:
            tell(result, f"ERROR {len(self.snapshots)} snapshots in image with data file")
            result.corruptions += 1
        amounts: dict[int, int] | None = None
        if census.bulk is not None:
            amounts = {}
            for record in self.snapshots:
                if not record.l1_offset & (image.cluster_size - 1) and record.l1_size <= hd.MAX_L1_BYTES // 8:
                    census.bulk.references(image.read_table(record.l1_offset, record.l1_size), amounts)
        for record in self.snapshots:
            name = f"ERROR snapshot {record.id} ({record.name})"
            if record.l1_offset & (image.cluster_size - 1):
                tell(
                    result,
                    f"{name} l1_offset={record.l1_offset:#x}: L1 table is not cluster aligned; "
                    "snapshot table entry corrupted",
                )
                result.corruptions += 1
            elif record.l1_size > hd.MAX_L1_BYTES // 8:
                tell(
                    result, f"{name} l1_size={record.l1_size:#x}: L1 table is too large; snapshot table entry corrupted"
                )
                result.corruptions += 1
            else:
                table = census.read_l1(record.l1_offset, record.l1_size)
                if census.bulk is not None:
                    census.bulk.walk_l1(table, False, amounts)
                else:
                    census.walk_l1(table, False)
        census.region(self.image.header.snapshots_offset, self.snapshots_size)

    def _count_bitmaps(self) -> None:
        header = self.image.header
        if header.extension(hd.EXT_BITMAPS) is None or not header.autoclear_features & hd.AUTOCLEAR_BITMAPS:
            return
        from .bitmap import Directory

        census, result = self.census, self.result
        try:
            directory = Directory.load(self.image)
        except FormatError as error:
            tell(result, f"ERROR {error}")
            result.corruptions += 1
            raise Aborted(error) from error
        census.region(directory.offset, directory.length)
        for entry in directory.entries:
            census.region(entry.table_offset, entry.table_size * 8)
            table = self.image.read_table(entry.table_offset, entry.table_size)
            if any(entry.bad_table_entry(item, self.image.cluster_size) for item in table if item):
                result.corruptions += 1
                field, where = f"table of bitmap '{entry.name}'", self.image.filename
                raise Aborted(
                    FormatError("Invalid argument", path=where, layer="qcow2 bitmaps", field=field, errno=errno.EINVAL)
                )
            for item in table:
                if item & OFFSET_MASK:
                    census.region(item & OFFSET_MASK, self.image.cluster_size)

    def _count_blocks(self, repair: bool) -> None:
        """Count the refcount blocks, each of which must be a cluster of its own."""
        census, result, image = self.census, self.result, self.image
        size, shift = image.cluster_size, image.cluster_bits
        for index in (number for number, entry in enumerate(self.ledger.table) if entry):
            entry = self.ledger.table[index]
            offset = entry & BLOCK_MASK
            if entry & 0x1FF:
                tell(result, f"ERROR refcount table entry {index} has reserved bits set")
                result.corruptions += 1
                self.rebuild = True
                continue
            if offset & (size - 1):
                tell(result, f"ERROR refcount block {index} is not cluster aligned; refcount table entry corrupted")
                result.corruptions += 1
                self.rebuild = True
                continue
            if offset >> shift >= census.clusters:
                word = "Repairing" if repair else "ERROR"
                tell(result, f"{word} refcount block {index} is outside image")
                result.corruptions += 1
                if not repair:
                    continue
                if offset >> 63:
                    tell(result, f"ERROR could not resize image: {os.strerror(errno.EINVAL)}")
                    self.rebuild = True
                    continue
                # a file that reaches so far has the block, all zeroes; but a wild offset must not make a wild file
                try:
                    if offset >> shift > 4 * census.clusters + 65536:
                        raise HostError(os.strerror(errno.EFBIG), path=image.filename, errno=errno.EFBIG)
                    census.grow((offset >> shift) + 1)
                    image.file.resize(offset + size)
                except CowshedError as error:
                    tell(result, f"Could not resize file: {error}", "report")
                    tell(result, f"ERROR could not resize image: {error}")
                    self.rebuild = True
                    continue
                result.corruptions -= 1
                result.corruptions_fixed += 1
                census.file_size = max(census.file_size, offset + size)
                census.changed = True
            census.region(offset, size)
            count = int(census.counts[offset >> shift])
            if count != 1:
                tell(result, f"ERROR refcount block {index} refcount={count}")
                result.corruptions += 1
                self.rebuild = True

    # -- what may be written over -------------------------------------------------------------------------------------

    def _guard(self, offset: int, text: str) -> None:
        """Refuse to write an L2 table where the cluster at ``offset`` holds other metadata too. Raises Aborted."""
        image, result = self.image, self.result
        other = self._other_metadata(offset)
        if other is None:
            return
        what = f"Preventing invalid write on metadata (overlaps with {other})"
        tell(result, f"qcow2: Marking image as corrupt: {what}; further corruption events will be suppressed")
        self._mark_corrupt()
        tell(result, text)
        result.check_errors += 1
        raise Aborted(HostError(os.strerror(errno.EIO), path=image.filename, offset=offset, errno=errno.EIO))

    def _mark_corrupt(self) -> None:
        """Say in the header that the image must not be written to before it is repaired."""
        image: Any = self.image
        if image.header.version >= 3 and not image.header.incompatible_features & hd.INCOMPAT_CORRUPT:
            image.header.incompatible_features |= hd.INCOMPAT_CORRUPT
            image.write_header_fixed()
            image.file.flush()

    def _other_metadata(self, offset: int) -> str | None:
        """The name of the metadata, other than L2 tables, that touches the clusters of a table at ``offset``."""
        image, header, ledger = self.image, self.image.header, self.ledger
        size = image.cluster_size
        low = offset & -size
        high = (offset + 2 * size - 1) & -size

        def touches(start: int, length: int) -> bool:
            return bool(length) and start < high and low < start + length

        if low == 0:
            return "qcow2_header"
        if touches(header.l1_table_offset, header.l1_size * 8):
            return "active L1 table"
        if any(entry & BLOCK_MASK and touches(entry & BLOCK_MASK, size) for entry in ledger.table):
            return "refcount block"
        if touches(ledger.offset, header.refcount_table_clusters * size):
            return "refcount table"
        if touches(header.snapshots_offset, self.snapshots_size):
            return "snapshot table"
        most = hd.MAX_L1_BYTES // 8
        if any(touches(record.l1_offset, min(record.l1_size, most) * 8) for record in self.snapshots):
            return "inactive L1 table"
        return None
