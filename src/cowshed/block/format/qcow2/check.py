"""Checking a qcow2 image, and mending what can be mended: references against reference counts, flags against counts.

Specification: qcow2.txt, all of it. What is told, and in which words, is what the field's scripts read.

How a repair survives a power cut: counts are raised and lowered in place only where no cluster that is in use can lose
protection by it; then comes a barrier, then flags. Refcount structures that are broken are made anew in free space and
switched to by one write of the header's first sector (``repair.py``).
"""

from __future__ import annotations

import errno
import os
from array import array

from ....errors import CowshedError, FormatError, HostError
from ....progress import QUIET
from ...facts import CheckResult
from . import header as hd
from .census import MESSAGES, Aborted, Census, tell
from .l2 import COMPRESSED_FLAG, COPIED, L1_OFFSET_MASK, OFFSET_MASK, ZERO_FLAG
from .refcounts import OFFSET_MASK as BLOCK_MASK
from .refcounts import decode_block, encode_block

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

    from ....progress import Progress
    from .node import Qcow2Map
    from .snapshot import Record

#: bytes of decoded refcount blocks kept
KEEP = 64 << 20


def check_image(image: Qcow2Map, fix: frozenset[str] = frozenset(), progress: Progress = QUIET) -> CheckResult:
    """Check ``image``; ``fix`` ⊆ {"leaks", "errors"} repairs (the image must be open for writing then).

    A check that can't be finished gives its result with ``error`` set; it doesn't raise for what is on the disk.
    """
    with image.lock:
        if not image.read_only:
            image.flush()
        return Checker(image, fix, progress).run()


class Unreadable(Exception):
    """A refcount block that can't be had; ``text`` is the reason for people."""

    def __init__(self, index: int, offset: int, text: str) -> None:
        super().__init__(text)
        self.index = index
        self.offset = offset
        self.text = text


class Ledger:
    """The counts as they are stored, and changes to them until ``flush``."""

    def __init__(self, image: Qcow2Map) -> None:
        header = image.header
        self.image = image
        self.bits = header.refcount_bits
        self.per_block = image.cluster_size * 8 // self.bits
        self.offset = header.refcount_table_offset
        self.table = image.read_table(self.offset, header.refcount_table_clusters * image.cluster_size // 8)
        self.blocks: dict[int, array[int]] = {}
        self.dirty: set[int] = set()
        self.keep = max(64, KEEP // (self.per_block * max(1, self.bits // 8)))

    def block(self, index: int) -> array[int] | None:
        """Refcount block ``index``; None where there is none. Raises Unreadable."""
        found = self.blocks.get(index)
        if found is not None:
            return found
        offset = self.table[index] & BLOCK_MASK if index < len(self.table) else 0
        if not offset:
            return None
        size = self.image.cluster_size
        if offset >> 63:
            raise Unreadable(index, -1, os.strerror(errno.EIO))
        if offset & (size - 1):
            raise Unreadable(index, offset, os.strerror(errno.EIO))
        try:
            inside = max(0, min(size, self.image.file.size - offset))
            data = self.image.file.read(offset, inside) if inside else b""
        except CowshedError as error:
            raise Unreadable(index, -1, os.strerror(error.errno or errno.EIO)) from error
        if len(self.blocks) >= self.keep:
            for old in [number for number in self.blocks if number not in self.dirty][: self.keep // 2]:
                del self.blocks[old]
        found = decode_block(data.ljust(size, b"\0"), self.bits)
        self.blocks[index] = found
        return found

    def get(self, cluster: int) -> int:
        """The count of a cluster. Raises Unreadable."""
        index, slot = divmod(cluster, self.per_block)
        block = self.block(index)
        return 0 if block is None else block[slot]

    def described(self) -> list[int]:
        """The blocks that there are."""
        return [index for index, entry in enumerate(self.table) if entry & BLOCK_MASK]

    def set(self, cluster: int, value: int) -> None:
        """Change the count of a cluster that a block describes."""
        index, slot = divmod(cluster, self.per_block)
        block = self.block(index)
        assert block is not None
        block[slot] = value
        self.dirty.add(index)

    def flush(self) -> None:
        """Write what was changed; durable when this returns."""
        if self.dirty:
            for index in sorted(self.dirty):
                self.image.file.write(self.table[index] & BLOCK_MASK, encode_block(self.blocks[index], self.bits))
            self.dirty.clear()
            self.image.file.flush()


class Checker:
    """One run of the check."""

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

    def run(self) -> CheckResult:
        result = self.result
        try:
            self._snapshot_table()
            self._refcounts()
            self._mend_snapshot_table()
        except Aborted as aborted:
            result.error = aborted.error
        except CowshedError as error:
            result.error = error
        finally:
            if self.changed:
                self._reload()
        result.corruptions += self.snapshot_damage
        if not result.error and (self.fix_leaks or self.fix_errors):
            self._clear_marks()
        return result

    def _reload(self) -> None:
        """What the node remembers of tables may be wrong now."""
        image: Any = self.image
        image.l2.clear()
        image.load_l1()
        if not image.read_only:
            image.forget_tables()
            image.load_l1()

    def _clear_marks(self) -> None:
        """The counts are right now, so the image is clean; without corruptions left it is not corrupt either."""
        result, header = self.result, self.image.header
        marks = header.incompatible_features & (hd.INCOMPAT_DIRTY | hd.INCOMPAT_CORRUPT)
        if not marks or result.check_errors or header.version < 3:
            return
        if result.corruptions:
            marks &= ~hd.INCOMPAT_CORRUPT
            if not self.fix_errors:
                return
        header.incompatible_features &= ~marks
        image: Any = self.image
        image.file.flush()
        image.write_header_fixed()
        image.file.flush()
        if marks & hd.INCOMPAT_CORRUPT:
            image.signalled_corruption = False
            image.failed = None

    # -- references -----------------------------------------------------------------------------------------------

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

    # -- counts against references --------------------------------------------------------------------------------

    def _refcounts(self) -> None:
        result = self.result
        self._count(self.fix_errors)
        before = result.corruptions, result.leaks, result.check_errors
        self._compare(False, False)
        if self.rebuild and self.fix_errors:
            self._rebuild(before[2])
        elif self.fix_leaks or self.fix_errors:
            if self.rebuild:
                tell(result, "ERROR need to rebuild refcount structures")
                raise Aborted(HostError("Input/output error", path=self.image.filename, errno=errno.EIO))
            if result.corruptions or result.leaks:
                result.corruptions, result.leaks, result.check_errors = before
                self._compare(self.fix_leaks, self.fix_errors)
                self.changed |= bool(self.ledger.dirty)
                self.ledger.flush()
                self._give_back()
        self._copied_flags()

    def _rebuild(self, check_errors: int) -> None:
        """Make the refcount structures anew and check them."""
        from .repair import NewRefcounts

        result = self.result
        corruptions, leaks = result.corruptions, result.leaks
        tell(result, "Rebuilding refcount structure")
        new = NewRefcounts(self.image, self.census)
        horizon = new.end
        while self.census.beyond < new.end:
            # the file will grow over clusters that entries refer to already: count these too, then place anew
            horizon *= 2
            self.result = CheckResult()
            self._count(False, horizon)
            self.result = result
            new = NewRefcounts(self.image, self.census)
        old, self.ledger = self.ledger, new.ledger
        header: Any = self.image.header
        kept = header.refcount_table_offset, header.refcount_table_clusters
        header.refcount_table_offset, header.refcount_table_clusters = new.table_offset, new.table_clusters
        try:
            result.corruptions = result.leaks = 0
            result.check_errors = check_errors
            self.rebuild = False
            self._count(False, new.end)
            if self.rebuild:
                tell(result, "ERROR rebuilt refcount structure is still broken")
            self._compare(True, False, counted=False)
        except BaseException:
            header.refcount_table_offset, header.refcount_table_clusters = kept
            self.ledger = old
            raise
        self.changed = True
        new.write()
        self._give_back()
        result.leaks_fixed += leaks
        result.corruptions_fixed += corruptions - result.corruptions

    def _compare(self, fix_leaks: bool, fix_errors: bool, counted: bool = True) -> None:
        """Tell every difference between counts and references, and mend it where asked to.

        ``counted``: leaks that are mended count as such (those of a rebuild's old structures don't).
        """
        result, census, ledger = self.result, self.census, self.ledger
        per_block = ledger.per_block
        clusters = census.clusters
        last = (-1, None, None)  # type: tuple[int, Any, Any]
        for index in self._stretches():
            low = index * per_block
            high = min(low + per_block, clusters)
            found = census.counts[low:high]
            try:
                block = ledger.block(index)
            except Unreadable as problem:
                self._unreadable(problem, low, high)
                continue
            stored: Any = None if block is None else block[: high - low]
            if census.bulk is not None:
                from numpy import flatnonzero, frombuffer

                if stored is None:
                    different = flatnonzero(found)
                    busy = len(different) > 0
                else:
                    stored = frombuffer(stored, dtype=f"u{stored.itemsize}")
                    different = flatnonzero(stored != found)
                    busy = bool(found.any()) or bool(stored.any())
                places = different.tolist()
            else:
                busy = any(found) or (stored is not None and any(stored))
                if stored is None:
                    places = [at for at, count in enumerate(found) if count] if busy else []
                elif stored == found:
                    places = []
                else:
                    places = [at for at, count in enumerate(found) if count != stored[at]]
            if busy:
                last = (low, found, stored)
            for at in places:
                have = 0 if stored is None else int(stored[at])
                self._difference(low + at, have, int(found[at]), fix_leaks, fix_errors, counted)
        low, found, stored = last
        end = 0
        if low >= 0:
            at = len(found) - 1
            while at > 0 and not found[at] and (stored is None or not stored[at]):
                at -= 1
            end = low + at
        result.image_end_offset = (end + 1) << self.image.cluster_bits

    def _stretches(self) -> Iterator[int]:
        """The refcount blocks (those that are missing too) in which something can differ, ascending."""
        census = self.census
        count = (census.clusters + self.ledger.per_block - 1) // self.ledger.per_block
        if census.bulk is None:
            yield from range(count)
        else:
            both = census.bulk.touched.union(self.ledger.described())
            yield from sorted(index for index in both if index < count)

    def _unreadable(self, problem: Unreadable, low: int, high: int) -> None:
        result = self.result
        if problem.offset >= 0 and not self._signalled and not self.fix_errors:
            self._signalled = True
            where = f"Refblock offset {problem.offset:#x} unaligned (reftable index: {_c_hex(problem.index)})"
            if self.fix_leaks:
                # open for writing, which must not go on like this
                self._mark_corrupt()
                text = f"Marking image as corrupt: {where}; further corruption events will be suppressed"
            else:
                text = f"Image is corrupt: {where}; further non-fatal corruption events will be suppressed"
            tell(result, f"qcow2: {text}")
        if len(result.messages) > MESSAGES:
            result.check_errors += high - low
            return
        for cluster in range(low, high):
            tell(result, f"Can't get refcount for cluster {cluster}: {problem.text}")
            result.check_errors += 1

    def _difference(self, cluster: int, have: int, need: int, fix_leaks: bool, fix_errors: bool, counted: bool) -> None:
        result = self.result
        if not have:
            self.rebuild = True
        leak = have > need
        mend = bool(have) and (fix_leaks if leak else fix_errors)
        word = "Repairing" if mend else "Leaked" if leak else "ERROR"
        tell(result, f"{word} cluster {cluster} refcount={have} reference={need}")
        if mend:
            self.ledger.set(cluster, need)
            if not need:
                if self.freed and sum(self.freed[-1]) == cluster:
                    self.freed[-1][1] += 1
                else:
                    self.freed.append([cluster, 1])
            if not counted:
                return
            if leak:
                result.leaks_fixed += 1
            else:
                result.corruptions_fixed += 1
        elif leak:
            result.leaks += 1
        else:
            result.corruptions += 1

    def _give_back(self) -> None:
        """Punch clusters out of the file that were leaked, now that no count holds them.

        Not where the walk met errors: what seems leaked may be what a damaged entry pointed to, and worth saving.
        """
        shift = self.image.cluster_bits
        if not self.walk_errors and not self.census.cut:
            for first, count in self.freed:
                self.image.file.discard(first << shift, count << shift)
        self.freed.clear()

    # -- COPIED flags ---------------------------------------------------------------------------------------------

    def _copied_flags(self) -> None:
        """Tell, and mend, flags of the active tables that don't say whether their cluster's count is 1."""
        image, result, census = self.image, self.result, self.census
        repair = self.fix_errors or (self.fix_leaks and not (result.check_errors or result.corruptions or result.leaks))
        l1 = image.read_table(image.header.l1_table_offset, image.header.l1_size)
        wrong: dict[int, int] = {}
        # L1 entries with a table to look at, and whether the entry's own flag is wrong
        todo: list[int] = []
        for index, entry in enumerate(l1):
            offset = entry & L1_OFFSET_MASK
            if not offset:
                continue
            try:
                count = self.ledger.get(offset >> image.cluster_bits)
            except Unreadable:
                continue
            if (count == 1) != bool(entry & COPIED):
                wrong[index] = count
            todo.append(index)
        fixed = set()
        for index in self._doubtful(l1, todo, wrong):
            entry = l1[index]
            if index in wrong:
                word = "Repairing" if repair else "ERROR"
                tell(
                    result,
                    f"{word} OFLAG_COPIED L2 cluster: l1_index={index} l1_entry={entry:x} refcount={wrong[index]}",
                )
                if repair:
                    l1[index] = entry | COPIED if wrong[index] == 1 else entry & ~COPIED
                    fixed.add(index)
                    result.corruptions_fixed += 1
                else:
                    result.corruptions += 1
            self._copied_in(entry & L1_OFFSET_MASK, repair)
        if fixed:
            writable: Any = image
            writable.write_table_entries(image.header.l1_table_offset, l1, fixed)
        if fixed or census.changed:
            image.file.flush()
            self.changed = True

    def _doubtful(self, l1: array[int], todo: list[int], wrong: dict[int, int]) -> Iterator[int]:
        """The L1 entries of ``todo`` that have something to tell, as far as a quick look can say."""
        bulk = self.census.bulk
        if bulk is None:
            yield from todo
            return
        import numpy

        from .census_bulk import BATCH, sparse_zeroes

        single = sparse_zeroes(self.census, self.census.clusters, bool)
        per_block = self.ledger.per_block
        for number in self.ledger.described():
            low = number * per_block
            if low < len(single):
                try:
                    block = self.ledger.block(number)
                except Unreadable:
                    yield from todo
                    return
                if block is not None:
                    part = single[low : low + per_block]
                    part[:] = numpy.frombuffer(block, dtype=f"u{block.itemsize}")[: len(part)] == 1
        size = self.image.cluster_size
        last = self.census.file_size - size
        step = max(1, BATCH // size)
        for start in range(0, len(todo), step):
            indexes = todo[start : start + step]
            plain = [index for index in indexes if not l1[index] & L1_OFFSET_MASK & (size - 1)]
            plain = [index for index in plain if l1[index] & L1_OFFSET_MASK <= last]
            doubtful = set(indexes) - set(plain) | wrong.keys() & set(indexes)
            if plain:
                words = bulk.read([l1[index] & L1_OFFSET_MASK for index in plain])
                doubtful.update(plain[row] for row in bulk.wrong_flags(words, single))
            yield from sorted(doubtful)

    def _copied_in(self, offset: int, repair: bool) -> None:
        """The flags of one L2 table."""
        image, result, ledger = self.image, self.result, self.ledger
        try:
            table = image.read_table(offset, image.cluster_size // 8)
        except CowshedError as error:
            tell(result, f"ERROR: Could not read L2 table: {error}")
            result.check_errors += 1
            raise Aborted(error) from error
        if not any(table):
            return
        words, size, shift = image.entry_words, image.cluster_size, image.cluster_bits
        entries = table[::words] if words > 1 else table
        dirty: set[int] = set()
        slot, end = 0, len(entries)
        while slot < end:
            entry = entries[slot]
            start = slot
            slot += 1
            if not entry or entry & COMPRESSED_FLAG:
                continue
            host = entry & OFFSET_MASK
            if image.has_data_file:
                there = bool(host) or (bool(entry & COPIED) and (image.extended or not entry & ZERO_FLAG))
                if there and not entry & COPIED:
                    self._wrong_flag(table, start * words, 1, repair, dirty)
                continue
            if not host:
                continue
            expected = entry + size
            while slot < end and entries[slot] == expected:
                expected += size
                slot += 1
            first = host >> shift
            flag = bool(entry & COPIED)
            at = 0
            while at < slot - start:
                index, inner = divmod(first + at, ledger.per_block)
                take = min(slot - start - at, ledger.per_block - inner)
                try:
                    block = ledger.block(index)
                except Unreadable:
                    at += take
                    continue
                piece = None if block is None else block[inner : inner + take]
                ones = 0 if piece is None else piece.count(1)
                if ones != (take if flag else 0):
                    for number in range(take):
                        count = 0 if piece is None else piece[number]
                        if (count == 1) != flag:
                            self._wrong_flag(table, (start + at + number) * words, count, repair, dirty)
                at += take
        if dirty:
            self._write_l2(offset, table, dirty)

    def _wrong_flag(self, table: array[int], at: int, count: int, repair: bool, dirty: set[int]) -> None:
        result = self.result
        word = "Repairing" if repair else "ERROR"
        tell(result, f"{word} OFLAG_COPIED data cluster: l2_entry={table[at]:x} refcount={count}")
        if repair:
            table[at] = table[at] | COPIED if count == 1 else table[at] & ~COPIED
            dirty.add(at)
            result.corruptions_fixed += 1
        else:
            result.corruptions += 1

    def _write_l2(self, offset: int, table: array[int], dirty: set[int]) -> None:
        """Write the changed sectors of an L2 table, unless what is there is other metadata too."""
        image: Any = self.image
        self._guard(offset, "ERROR: Could not write L2 table; metadata overlap check failed: Input/output error")
        image.write_table_entries(offset, table, dirty)
        self.changed = True
        self.census.changed = True

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

    # -- the snapshot table ---------------------------------------------------------------------------------------

    def _snapshot_table(self) -> None:
        from .repair import read_snapshot_table

        if self.image.header.nb_snapshots or self.image.header.snapshots_offset & (self.image.cluster_size - 1):
            read_snapshot_table(self)

    def _mend_snapshot_table(self) -> None:
        from .repair import write_snapshot_table

        if self.snapshot_damage and self.fix_errors:
            if self.changed:
                self._reload()
            write_snapshot_table(self)
            self.changed = True
            self.result.corruptions_fixed += self.snapshot_damage
            self.snapshot_damage = 0


def _c_hex(value: int) -> str:
    """A number as C's ``%#x`` has it."""
    return f"{value:#x}" if value else "0"
