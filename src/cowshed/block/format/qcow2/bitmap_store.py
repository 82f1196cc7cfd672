"""The bits of persistent bitmaps: read, written, and the directory switched to what was written.

Specification: qcow2.txt, "Bitmaps". A change never touches what is valid: tables, bits and directory are written into
free clusters, one header write makes them valid, and only then the old clusters are given back.
"""

from __future__ import annotations

from ....errors import CowshedError, FormatError
from . import header as hd
from .bitmap import (
    AUTO,
    ENTRY,
    EXTENSION,
    IN_USE,
    MAX_BITMAPS,
    MAX_BYTES,
    MAX_GRANULARITY_BITS,
    MAX_NAME,
    MIN_GRANULARITY_BITS,
    TABLE_ONES,
    Directory,
    Entry,
)
from .l2 import OFFSET_MASK

TYPE_CHECKING = False
if TYPE_CHECKING:
    from array import array

    from ...node import Node
    from .metadata import Qcow2Metadata
    from .node import Qcow2Map


#: bytes of directory and tables of all bitmaps together that are guarded against writes
MAX_METADATA = 1 << 30
#: bytes of the bits of all bitmaps together that are kept in memory while an image is written
MAX_TRACKED = 2 << 30


def current(image: Qcow2Map) -> Directory:
    """The directory that is valid: none after a program that knows no bitmaps has written to the image."""
    return Directory.load(image) if image.header.autoclear_features & hd.AUTOCLEAR_BITMAPS else Directory()


def areas(image: Qcow2Map) -> list[tuple[int, int]]:
    """(offset, length) of the directory and of every table: metadata that writes must not touch.

    What lies inside the file, ascending, without overlaps. Raises FormatError when it is far too much of it.
    """
    directory = current(image)
    found = [(entry.table_offset, entry.table_size * 8) for entry in directory.entries]
    merged: list[tuple[int, int]] = []
    total = at = 0
    for offset, length in sorted([(directory.offset, directory.length), *found]):
        end = min(offset + length, image.file.size)
        offset = max(offset, at)
        if offset < end:
            merged.append((offset, end - offset))
            total += end - offset
            at = end
    if total > MAX_METADATA:
        raise FormatError(
            "Bitmap tables too large", path=image.filename, layer="qcow2 bitmaps", field="bitmap_table_size",
            value=total, limit=MAX_METADATA, errno=27,
        )  # fmt: skip
    return merged


def load_bits(image: Qcow2Map, entry: Entry, size: int | None = None) -> bytearray:
    """A bitmap's bits, lowest first, for a disk of ``size`` bytes (the image's). Raises FormatError."""
    length = entry.bytes_for(image.size if size is None else size)
    bits = bytearray(length)
    cluster = image.cluster_size
    for index, item in enumerate(_table(image, entry)):
        start = index * cluster
        if start >= length:
            break
        if entry.bad_table_entry(item, cluster):
            raise FormatError(
                "Invalid argument", path=image.filename, layer="qcow2 bitmaps", value=hex(item),
                field=f"table of bitmap '{entry.name}', entry {index}",
            )  # fmt: skip
        want = min(cluster, length - start)
        offset = item & OFFSET_MASK
        if offset:
            inside = max(0, min(want, image.file.size - offset))
            if inside:
                image.file.read_into(offset, memoryview(bits)[start : start + inside])
        elif item & TABLE_ONES:
            bits[start : start + want] = b"\xff" * want
    _trim(bits, entry, image.size if size is None else size)
    return bits


def _trim(bits: bytearray, entry: Entry, size: int) -> None:
    """Clear the bits behind the end of the disk in the last byte."""
    count = (size + (1 << entry.granularity_bits) - 1) >> entry.granularity_bits
    if count % 8 and bits:
        bits[-1] &= (1 << count % 8) - 1


def _table(image: Qcow2Map, entry: Entry) -> array[int]:
    return image.read_table(entry.table_offset, entry.table_size)


def _areas(image: Qcow2Map, entry: Entry) -> list[tuple[int, int]]:
    """Runs (first, count) of the host clusters of a bitmap: its data and its table."""
    shift = image.cluster_bits
    runs = [((item & OFFSET_MASK) >> shift, 1) for item in _table(image, entry) if item & OFFSET_MASK]
    runs.append((entry.table_offset >> shift, -(-entry.table_size * 8 >> shift)))
    return runs


def rewrite(image: Qcow2Metadata, entries: list[Entry], bits: dict[str, bytearray]) -> None:
    """Make ``entries`` the image's bitmaps; those named in ``bits`` get new bits, the others keep theirs.

    Raises NoSpaceError, HostError; the bitmaps are the old ones then.
    """
    old = current(image)
    shift, cluster = image.cluster_bits, image.cluster_size
    refcounts = image.refcounts
    taken: list[tuple[int, int]] = []

    def allocate(length: int) -> int:
        first, count = refcounts.allocate(max(1, -(-length >> shift)), whole=True)
        taken.append((first, count))
        return first << shift

    image.commit()
    extension = None
    before = (image.header.extensions, image.header.autoclear_features)
    switched = False
    try:
        writes: list[tuple[int, bytes]] = []
        fresh: list[Entry] = []
        for entry in entries:
            if entry.name not in bits:
                fresh.append(entry)
                continue
            data = bits[entry.name]
            count = max(1, -(-len(data) // cluster))
            table = []
            for index in range(count):
                piece = bytes(data[index * cluster : (index + 1) * cluster])
                if not piece.strip(b"\0"):
                    table.append(0)
                    continue
                offset = allocate(cluster)
                table.append(offset)
                writes.append((offset, piece.ljust(cluster, b"\0")))
            where = allocate(count * 8)
            writes.append((where, b"".join(item.to_bytes(8, "big") for item in table)))
            fresh.append(Entry(entry.name, entry.granularity_bits, entry.flags, where, count))
        if fresh:
            raw = b"".join(entry.encode() for entry in fresh)
            where = allocate(len(raw))
            writes.append((where, raw))
            extension = EXTENSION.pack(len(fresh), 0, len(raw), where)
        image.commit()
        for first, count in taken:
            image.metadata_clusters.update(range(first, first + count))
        for offset, piece in writes:
            image.file.write(offset, piece)
        image.file.flush()
        image.header.extensions = list(image.header.extensions)
        image.header.set_extension(hd.EXT_BITMAPS, extension)
        if extension is None:
            image.header.autoclear_features &= ~hd.AUTOCLEAR_BITMAPS
        else:
            image.header.autoclear_features |= hd.AUTOCLEAR_BITMAPS
        image.rewrite_header()
        switched = True
    finally:
        if not switched:
            image.header.extensions, image.header.autoclear_features = before
            for first, count in taken:
                refcounts.release(first, count)
    kept = {entry.table_offset for entry in entries if entry.name not in bits}
    for entry in old.entries:
        if entry.table_offset not in kept:
            for first, count in _areas(image, entry):
                # a damaged table may name clusters that nobody counts: there is nothing to give back then
                for cluster in range(first, first + count):
                    if cluster < image.max_clusters and refcounts.get(cluster):
                        refcounts.release(cluster, discard=True)
    if old.length:
        refcounts.release(old.offset >> shift, -(-old.length >> shift))
    image.commit()


# -- what people do with bitmaps ---------------------------------------------------------------------------------------


def _find(directory: Directory, name: str) -> Entry | None:
    for entry in directory.entries:
        if entry.name == name:
            return entry
    return None


def _named(image: Qcow2Map, directory: Directory, name: str) -> Entry:
    entry = _find(directory, name)
    if entry is None:
        raise CowshedError(
            f"Dirty bitmap '{name}' not found", path=image.filename, layer="qcow2", field="bitmap", errno=2
        )
    return entry


def _usable(image: Qcow2Map, directory: Directory, name: str) -> Entry:
    entry = _named(image, directory, name)
    if entry.in_use:
        raise CowshedError(
            f"Bitmap '{name}' is inconsistent and cannot be used", path=image.filename, layer="qcow2", field="bitmap",
            value=name, errno=22, hint="Try block-dirty-bitmap-remove to delete this bitmap from disk\n",
        )  # fmt: skip
    return entry


def add(image: Qcow2Metadata, name: str, granularity: int | None, enabled: bool) -> None:
    """A new, clean bitmap of ``granularity`` bytes a bit, a power of two (None: the cluster size in 4 KiB..64 KiB)."""

    def refuse(text: str, field: str, value: object) -> CowshedError:
        return CowshedError(text, path=image.filename, layer="qcow2", field=field, value=value, errno=22)

    if not name:
        raise refuse("Bitmap name cannot be empty", "name", name)
    if granularity is None:
        granularity = max(4096, min(65536, image.cluster_size))
    if granularity < 512 or granularity & (granularity - 1) or granularity >> 32:
        raise refuse("Granularity must be power of 2 and at least 512", "granularity", granularity)
    directory = current(image)
    if _find(directory, name) is not None:
        raise refuse(f"Bitmap already exists: {name}", "name", name)
    reason = None
    power = granularity.bit_length() - 1
    entry = Entry(name, power, AUTO if enabled else 0)
    used = sum(len(other.encode()) for other in directory.entries) + len(entry.encode())
    if image.header.version < 3:
        reason = "Cannot store dirty bitmaps in qcow2 v2 files"
    elif not MIN_GRANULARITY_BITS <= power <= MAX_GRANULARITY_BITS:
        reason = f"Granularity exceeds maximum ({1 << MAX_GRANULARITY_BITS} bytes)"
    elif len(name.encode("utf-8", "surrogateescape")) > MAX_NAME:
        reason = f"Name length exceeds maximum ({MAX_NAME} characters)"
    elif entry.bytes_for(image.size) > MAX_BYTES:
        reason = "Too much space will be occupied by the bitmap. Use larger granularity"
    elif len(directory.entries) >= MAX_BITMAPS:
        reason = "Maximum number of persistent bitmaps is already reached"
    elif used > MAX_BITMAPS * (ENTRY.size + MAX_NAME + 7 & ~7):
        reason = "Not enough space in the bitmap directory"
    if reason is not None:
        raise refuse(f"Can't make bitmap '{name}' persistent in '#block001': {reason}", "bitmap", name)
    rewrite(image, [*directory.entries, entry], {name: bytearray(entry.bytes_for(image.size))})


def remove(image: Qcow2Metadata, name: str) -> None:
    """Forget a bitmap, an inconsistent one too."""
    directory = current(image)
    entry = _named(image, directory, name)
    rewrite(image, [other for other in directory.entries if other is not entry], {})


def clear(image: Qcow2Metadata, name: str) -> None:
    """Make a bitmap clean."""
    directory = current(image)
    entry = _usable(image, directory, name)
    rewrite(image, directory.entries, {name: bytearray(entry.bytes_for(image.size))})


def switch(image: Qcow2Metadata, name: str, enabled: bool) -> None:
    """Let a bitmap record writes, or stop it."""
    directory = current(image)
    entry = _usable(image, directory, name)
    entry.flags = (entry.flags & ~AUTO) | (AUTO if enabled else 0)
    rewrite(image, directory.entries, {})


def merge(image: Qcow2Metadata, target: str, source: Node, name: str) -> None:
    """Add the dirty bits of ``source``'s bitmap ``name`` (another image, or this one) to ``target``."""
    directory = current(image)
    entry = _usable(image, directory, target)
    other = source
    from .node import Qcow2Map

    if not isinstance(other, Qcow2Map):
        raise CowshedError(
            f"Dirty bitmap '{name}' not found", path=source.filename, field="bitmap", value=name, errno=2
        )
    found = _usable(other, current(other), name)
    if other.size != image.size:
        raise CowshedError(
            f"Bitmaps are of different sizes (destination size is {image.size}, source size is {other.size}) "
            "and can't be merged",
            path=image.filename, layer="qcow2", field="bitmap", value=name, errno=22,
        )  # fmt: skip
    bits = load_bits(image, entry)
    added = load_bits(other, found)
    _merge_into(bits, entry.granularity_bits, added, found.granularity_bits)
    _trim(bits, entry, image.size)
    rewrite(image, directory.entries, {target: bits})


def _merge_into(bits: bytearray, power: int, added: bytearray, added_power: int) -> None:
    """Or ``added`` into ``bits``; where granularities differ, a dirty bit makes all that it covers dirty."""
    if power == added_power:
        merged = int.from_bytes(bits, "little") | int.from_bytes(added, "little")
        bits[:] = merged.to_bytes(len(bits), "little")
        return
    for first, last in dirty_runs(added):
        mark(bits, power, first << added_power, (last + 1 - first) << added_power)


def dirty_runs(bits: bytearray) -> list[tuple[int, int]]:
    """Runs (first, last) of set bits."""
    runs: list[tuple[int, int]] = []
    at = 0
    length = len(bits)
    while at < length:
        byte = bits[at]
        if byte == 0:
            # skip clean stretches at the speed of bytes.lstrip
            rest = bits[at : at + 65536]
            at += len(rest) - len(rest.lstrip(b"\0")) or 1
            continue
        for bit in range(8):
            if byte >> bit & 1:
                number = at * 8 + bit
                if runs and runs[-1][1] + 1 == number:
                    runs[-1] = (runs[-1][0], number)
                else:
                    runs.append((number, number))
        at += 1
    return runs


def mark(bits: bytearray, power: int, offset: int, length: int) -> None:
    """Set the bits for guest bytes [offset, offset+length)."""
    if length <= 0:
        return
    first = offset >> power
    last = min((offset + length - 1) >> power, len(bits) * 8 - 1)
    if last < first:
        return
    low, high = first >> 3, last >> 3
    head, tail = 0xFF << (first & 7) & 0xFF, 0xFF >> (7 - (last & 7))
    if low == high:
        bits[low] |= head & tail
        return
    bits[low] |= head
    bits[high] |= tail
    if high - low > 1:
        bits[low + 1 : high] = b"\xff" * (high - low - 1)


# -- kept true by writes -----------------------------------------------------------------------------------------------


class Tracker:
    """The enabled bitmaps of an image that is being written: in use on disk, their bits in memory until `store`."""

    __slots__ = ("active", "bits", "entries", "image")

    def __init__(self, image: Qcow2Metadata) -> None:
        self.image = image
        self.entries = [e for e in current(image).entries if e.enabled and not e.in_use]
        self.active = bool(self.entries)
        total = sum(entry.bytes_for(image.size) for entry in self.entries)
        if total > MAX_TRACKED:
            raise FormatError(
                "Cannot allocate memory", path=image.filename, layer="qcow2 bitmaps", field="bits of all bitmaps",
                value=total, limit=MAX_TRACKED, errno=12,
            )  # fmt: skip
        self.bits = {entry.name: load_bits(image, entry) for entry in self.entries}
        if self.active:
            self._flag(True)

    def _flag(self, in_use: bool) -> None:
        """Say on disk, durably, that the tracked bitmaps are (not) in use."""
        directory = current(self.image)
        for entry in directory.entries:
            if entry.name in self.bits:
                entry.flags = (entry.flags | IN_USE) if in_use else (entry.flags & ~IN_USE)
        rewrite(self.image, directory.entries, {})

    def mark(self, offset: int, length: int) -> None:
        """Guest bytes [offset, offset+length) are about to change."""
        for entry in self.entries:
            mark(self.bits[entry.name], entry.granularity_bits, offset, length)

    def resize(self, size: int) -> None:
        """The disk's size changes: new bytes are clean, bits behind the end are dropped."""
        for entry in self.entries:
            bits = self.bits[entry.name]
            length = entry.bytes_for(size)
            del bits[length:]
            bits.extend(bytes(length - len(bits)))
            _trim(bits, entry, size)

    def store(self) -> None:
        """Write the bits and take the in-use flags away; the tracker ends here."""
        if not self.active:
            return
        self.active = False
        directory = current(self.image)
        for entry in directory.entries:
            if entry.name in self.bits:
                entry.flags &= ~IN_USE
        rewrite(self.image, directory.entries, self.bits)


def refuse_inconsistent(image: Qcow2Metadata) -> None:
    """Raise CowshedError when there is a bitmap whose bits can't be trusted, and so not be fitted to another size."""
    directory = current(image)
    for entry in directory.entries:
        _usable(image, directory, entry.name)


def resize_bitmaps(image: Qcow2Metadata, size: int) -> None:
    """Fit all usable bitmaps that nobody tracks (disabled ones) to a disk of ``size`` bytes."""
    directory = current(image)
    bits = {}
    tracked = image.tracker.bits if image.tracker is not None else {}
    for entry in directory.entries:
        if entry.in_use or entry.name in tracked:
            continue
        data = load_bits(image, entry, min(size, image.size))
        data.extend(bytes(max(0, entry.bytes_for(size) - len(data))))
        bits[entry.name] = data
    if bits:
        rewrite(image, directory.entries, bits)
