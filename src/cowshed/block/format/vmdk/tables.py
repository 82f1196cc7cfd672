"""The grain directory and the grain tables: where each grain is, in memory and in the file, twice.

Specification: VMware "Virtual Disk Format 5.0", "Grain Directory and Grain Tables". Entries are 32-bit sector numbers,
little-endian, 0 for none. The redundant directory and its tables are a full second copy.
"""

from __future__ import annotations

import sys
from array import array

from ....errors import CorruptError
from ...node import COMPRESSED, DATA, HOLE, ZERO
from .header import FLAG_REDUNDANT, GTE_ZEROED, SECTOR, SparseHeader

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from ...node import Node

_SWAP = sys.byteorder == "big"
_SECTOR_ENTRIES = SECTOR // 4

#: clean grain tables kept in memory (2 KiB each)
KEEP_TABLES = 4096
#: changed grain tables after which they are written without waiting for a flush
MAX_DIRTY = 1024
#: bytes of neighbouring tables that a walk over a large range reads at once
BULK_BYTES = 1 << 20


class GrainTables:
    """All grain tables of one sparse extent.

    ``directory``: sector numbers of the tables; ``redundant``: of their copies, None without any. Tables are arrays
    of 32-bit entries; changed ones stay in memory until `write_dirty`.
    """

    __slots__ = ("_dirty", "_tables", "directory", "file", "header", "redundant", "width")

    def __init__(self, file: Node, header: SparseHeader) -> None:
        """Read the directories. Raises CorruptError where they lie outside the file, HostError."""
        self.file = file
        self.header = header
        self.width = header.table_entries
        self.directory = self._read_directory(header.directory, "gdOffset")
        self.redundant: array[int] | None = None
        self._tables: dict[int, array[int]] = {}
        #: table index -> the sectors of it that changed
        self._dirty: dict[int, set[int]] = {}

    def _read_directory(self, sector: int, field: str) -> array[int]:
        count = self.header.directory_entries
        if (sector * SECTOR + count * 4) > self.file.size:
            raise CorruptError(
                f"Could not read the grain directory of '{self.file.filename}': it lies outside the file",
                path=self.file.filename, layer="vmdk header", field=field, value=sector,
                limit=f"{self.file.size // SECTOR} sectors",
            )  # fmt: skip
        return _words(self.file.read(sector * SECTOR, count * 4))

    def prepare_writing(self) -> None:
        """Read the second directory, and make sure that every table has a place of its own: it will be written to.

        Raises CorruptError, HostError.
        """
        header = self.header
        copies = [("grain directory's entries", self.directory)]
        if header.flags & FLAG_REDUNDANT:
            self.redundant = self._read_directory(header.redundant, "rgdOffset")
            copies.append(("redundant grain directory's entries", self.redundant))
        last = self.file.size // SECTOR - header.table_sectors
        places: list[int] = []
        for name, directory in copies:
            for sector in sorted(directory):
                if sector > last:
                    raise self._damaged(name, directory, sector, f"up to {last}")
            places += directory
        places.sort()
        step = header.table_sectors
        for number in range(1, len(places)):
            low, high = places[number - 1], places[number]
            if low and high - low < step:
                raise self._damaged("grain directories", places, high, f"not within {step} of another")

    def _damaged(self, name: str, entries: list[int] | array[int], sector: int, limit: str) -> CorruptError:
        return CorruptError(
            f"Refusing to write to '{self.file.filename}': its {name} are damaged",
            path=self.file.filename, layer=f"vmdk {name}", field=f"entry {entries.index(sector)}", value=sector,
            limit=limit,
        )  # fmt: skip

    # -- tables ---------------------------------------------------------------------------------------------------

    def table(self, index: int) -> array[int] | None:
        """Grain table ``index``; None where the directory has none. Raises CorruptError, HostError."""
        table = self._tables.get(index)
        if table is None:
            sector = self.directory[index]
            if not sector:
                return None
            table = self._load(index, 1)[0]
            if len(self._tables) >= KEEP_TABLES:
                self._evict()
            self._tables[index] = table
        return table

    def _load(self, index: int, count: int) -> list[array[int]]:
        """``count`` tables that are neighbours in the file, from number ``index``."""
        start = self.directory[index] * SECTOR
        step = self.header.table_sectors * SECTOR
        length = (count - 1) * step + self.width * 4
        if start + length > self.file.size:
            raise CorruptError(
                f"Could not read a grain table of '{self.file.filename}': it lies outside the file",
                path=self.file.filename, layer="vmdk grain directory", field=f"entry {index}", offset=start,
                limit=f"{self.file.size} bytes",
            )  # fmt: skip
        raw = memoryview(self.file.read(start, length))
        return [_words(raw[at : at + self.width * 4]) for at in range(0, count * step, step)]

    def _evict(self) -> None:
        """Forget the older half of the tables that have not changed."""
        clean = [index for index in self._tables if index not in self._dirty]
        for index in clean[: len(clean) // 2 + 1]:
            del self._tables[index]

    def walk(self, first: int, last: int) -> Iterator[tuple[int, int, array[int] | None]]:
        """Tables ``first`` to ``last`` (included), in order: (number, how many, table); None for runs of empty ones."""
        directory = self.directory
        step = self.header.table_sectors
        index = first
        while index <= last:
            stop = index + 1
            if not directory[index] and index not in self._tables:
                while stop <= last and not directory[stop] and stop not in self._tables:
                    stop += 1
                yield index, stop - index, None
            elif last - first < 4 or index in self._tables:
                yield index, 1, self.table(index)
            else:
                stop = self._neighbours(index, last + 1)
                empty = self._in_hole(index, stop)
                if empty:
                    stop = index + empty
                    yield index, empty, None
                else:
                    stop = min(stop, index + max(1, BULK_BYTES // (step * SECTOR)))
                    for number, table in enumerate(self._load(index, stop - index), index):
                        # a writer may have changed it since; what it holds is newer
                        yield number, 1, self._tables.get(number, table)
            index = stop

    def _neighbours(self, index: int, stop: int) -> int:
        """The end of the tables from number ``index`` on that follow each other in the file and are not in memory."""
        directory, step = self.directory, self.header.table_sectors
        sector = directory[index]
        count, part = 1, 64
        while index + count < stop:
            low = index + count
            part = min(part * 2, stop - low, (0xFFFFFFFF - sector) // step - count + 1)
            if part <= 0:
                break
            start = sector + count * step
            if directory[low : low + part] == array("I", range(start, start + part * step, step)):
                count += part
                continue
            while directory[index + count] == sector + count * step:
                count += 1
            break
        stop = index + count
        inside = [number for number in self._tables if index < number < stop]
        return min(inside) if inside else stop

    def _in_hole(self, index: int, stop: int) -> int:
        """How many of the neighbouring tables ``index`` to ``stop`` lie in a hole of the file, and so are empty."""
        start = self.directory[index] * SECTOR
        step = self.header.table_sectors * SECTOR
        length = min((stop - index) * step, self.file.size - start)
        if length <= 0 or self.file.is_format:
            return 0
        for extent in self.file.layer_extents(start, length):
            if extent.kind == DATA:
                return min((extent.offset - start) // step, stop - index)
        return stop - index if length == (stop - index) * step else length // step

    # -- changing -------------------------------------------------------------------------------------------------

    def set_run(self, grain: int, count: int, sector: int, stride: int) -> None:
        """Point ``count`` grains from number ``grain`` on to ``sector``, each ``stride`` sectors further."""
        while count:
            index, slot = divmod(grain, self.width)
            step = min(count, self.width - slot)
            table = self.table(index)
            if table is None:
                table = self._tables[index] = array("I", bytes(4 * self.width))
            if stride:
                table[slot : slot + step] = array("I", range(sector, sector + step * stride, stride))
            else:
                table[slot : slot + step] = array("I", [sector]) * step
            dirty = self._dirty.get(index)
            if dirty is None:
                dirty = self._dirty[index] = set()
                self._compare(index, table, dirty)
            dirty.update(range(slot // _SECTOR_ENTRIES, (slot + step - 1) // _SECTOR_ENTRIES + 1))
            grain += step
            count -= step
            sector += step * stride

    def _compare(self, index: int, table: array[int], dirty: set[int]) -> None:
        """Add to ``dirty`` the sectors in which the second copy differs from the first, as after a power cut."""
        if self.redundant is None or not self.redundant[index] or not self.directory[index]:
            return
        copy = _words(self.file.read(self.redundant[index] * SECTOR, self.width * 4))
        if copy == table:
            return
        for sector in range(self.header.table_sectors):
            part = slice(sector * _SECTOR_ENTRIES, (sector + 1) * _SECTOR_ENTRIES)
            if copy[part] != table[part]:
                dirty.add(sector)

    @property
    def dirty(self) -> int:
        """How many tables have changed."""
        return len(self._dirty)

    def missing(self) -> list[int]:
        """The changed tables that have no place in the file yet."""
        return [index for index in sorted(self._dirty) if not self.directory[index]]

    def write_missing(self, start: int) -> int:
        """Write the tables that have no place yet, from sector ``start`` on; returns the sector after them.

        They become part of the image when `write_directories` has run, which must wait until these are durable.
        """
        step = self.header.table_sectors
        for index in self.missing():
            raw = words_to_bytes(self._tables[index]).ljust(step * SECTOR, b"\0")
            for directory in (self.directory, self.redundant):
                if directory is not None and not directory[index]:
                    self.file.write(start * SECTOR, raw)
                    directory[index] = start
                    start += step
        return start

    def write_directories(self) -> None:
        """Write both grain directories whole."""
        header = self.header
        self.file.write(header.directory * SECTOR, words_to_bytes(self.directory))
        if self.redundant is not None:
            self.file.write(header.redundant * SECTOR, words_to_bytes(self.redundant))

    def write_dirty(self) -> None:
        """Write what changed: the redundant tables, then the tables themselves. What they point to is durable."""
        dirty = sorted(self._dirty)
        for directory in (self.redundant, self.directory):
            if directory is None:
                continue
            for index in dirty:
                if directory[index]:
                    self._write_sectors(directory[index], self._tables[index], self._dirty[index])
        self._dirty.clear()

    def _write_sectors(self, place: int, table: array[int], sectors: set[int]) -> None:
        todo = sorted(sectors)
        at = 0
        while at < len(todo):
            first = last = todo[at]
            at += 1
            while at < len(todo) and todo[at] == last + 1:
                last = todo[at]
                at += 1
            part = table[first * _SECTOR_ENTRIES : (last + 1) * _SECTOR_ENTRIES]
            self.file.write((place + first) * SECTOR, words_to_bytes(part))


def _words(raw: bytes | memoryview) -> array[int]:
    """Little-endian 32-bit words as an array in host order."""
    words = array("I", raw if isinstance(raw, bytes) else bytes(raw))
    if _SWAP:
        words.byteswap()
    return words


def words_to_bytes(words: array[int]) -> bytes:
    """An array in host order as little-endian 32-bit words."""
    if _SWAP:
        words = words[:]
        words.byteswap()
    return words.tobytes()


def runs(
    table: array[int], first: int, stop: int, header: SparseHeader
) -> Iterator[tuple[int, int, int, int]]:
    """Runs of entries ``first`` to ``stop`` (excluded) of one kind: (entry, how many, kind, sector of the first or 0).

    Grains in a DATA run follow each other in the file. COMPRESSED runs have no sector, since each grain has its own.
    """
    zeroed = header.zeroed_grain
    compressed = header.compressed
    at = first
    while at < stop:
        value = table[at]
        if not value:
            kind, stride = HOLE, 0
        elif zeroed and value == GTE_ZEROED:
            kind, stride = ZERO, 0
        elif compressed:
            count = 1
            while at + count < stop and table[at + count] > (GTE_ZEROED if zeroed else 0):
                count += 1
            yield at, count, COMPRESSED, 0
            at += count
            continue
        else:
            kind, stride = DATA, header.grain
        count = 1
        if at + 1 < stop and table[at + 1] == value + stride:
            count = _run_length(table, at, stop, value, stride)
        yield at, count, kind, value if kind == DATA else 0
        at += count


def _run_length(table: array[int], at: int, stop: int, value: int, stride: int) -> int:
    """How many entries from ``at`` on go on as ``value``, ``value + stride`` …: in doubling, then halving steps."""
    count = 2
    step = 2
    growing = True
    while True:
        low = at + count
        part = min(step, stop - low)
        if stride:
            part = min(part, (0xFFFFFFFF - value) // stride - count + 1)
        if part <= 0:
            break
        start = value + count * stride
        want = array("I", range(start, start + part * stride, stride)) if stride else array("I", [value]) * part
        if table[low : low + part] == want:
            count += part
            step = step * 2 if growing else max(1, step // 2)
        elif part == 1:
            break
        else:
            growing = False
            step = (part + 1) // 2
    return count
