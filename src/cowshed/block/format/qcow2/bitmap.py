"""Persistent dirty bitmaps: the bitmap directory in the image, bounded and rewritten.

Specification: qcow2.txt, "Bitmaps extension" and "Bitmaps".
"""

from __future__ import annotations

import errno
import struct
from bisect import bisect_left

from ....errors import FormatError
from ...node import HOLE, ZERO
from . import header as hd
from .l2 import OFFSET_MASK

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from ...facts import Bitmap
    from .node import Qcow2Map

EXTENSION = struct.Struct(">IIQQ")
ENTRY = struct.Struct(">QIIBBHI")

IN_USE = 1
AUTO = 2
KNOWN_FLAGS = IN_USE | AUTO

MAX_BITMAPS = 65535
#: bytes: of a name, of the directory (1 KiB for each that there may be)
MAX_NAME = 1023
MAX_DIRECTORY = MAX_BITMAPS * 1024
#: entries of one bitmap's table; bytes of one bitmap's bits
MAX_TABLE = 0x8000000
MAX_BYTES = 0x20000000
MIN_GRANULARITY_BITS = 9
MAX_GRANULARITY_BITS = 31

#: a table entry for a cluster full of ones, which takes no space
TABLE_ONES = 1
TABLE_RESERVED = 0xFF000000000001FE


class Entry:
    """One bitmap: where its table is, its flags, its granularity (as a power of two) and name."""

    __slots__ = ("flags", "granularity_bits", "name", "table_offset", "table_size")

    def __init__(
        self, name: str, granularity_bits: int, flags: int, table_offset: int = 0, table_size: int = 0
    ) -> None:
        self.name = name
        self.granularity_bits = granularity_bits
        self.flags = flags
        self.table_offset = table_offset
        self.table_size = table_size

    @property
    def in_use(self) -> bool:
        return bool(self.flags & IN_USE)

    @property
    def enabled(self) -> bool:
        return bool(self.flags & AUTO)

    def encode(self) -> bytes:
        """The directory entry, padded to 8 bytes."""
        name = _bytes(self.name)
        data = ENTRY.pack(self.table_offset, self.table_size, self.flags, 1, self.granularity_bits, len(name), 0) + name
        return data + bytes(-len(data) % 8)

    def facts(self) -> Bitmap:
        from ...facts import Bitmap

        flags = [word for bit, word in ((IN_USE, "in-use"), (AUTO, "auto")) if self.flags & bit]
        return Bitmap(self.name, 1 << self.granularity_bits, flags)

    def bytes_for(self, size: int) -> int:
        """Bytes of bits for a disk of ``size`` bytes."""
        bits = (size + (1 << self.granularity_bits) - 1) >> self.granularity_bits
        return (bits + 7) // 8

    @staticmethod
    def bad_table_entry(item: int, cluster_size: int) -> bool:
        """Does a table entry break its rules?"""
        offset = item & OFFSET_MASK
        return bool(item & TABLE_RESERVED) or bool(offset & (cluster_size - 1)) or bool(offset and item & TABLE_ONES)


class Directory:
    """The bitmap directory: ``entries`` in order; its ``offset`` and ``length`` (bytes) in the file, 0 without any."""

    __slots__ = ("entries", "length", "offset")

    def __init__(self, offset: int = 0, length: int = 0) -> None:
        self.offset = offset
        self.length = length
        self.entries: list[Entry] = []

    @classmethod
    def head(cls, image: Qcow2Map) -> tuple[int, int, int]:
        """The bitmaps extension: (number of bitmaps, bytes of the directory, its offset). Raises FormatError."""
        data = image.header.extension(hd.EXT_BITMAPS) or b""
        if len(data) != EXTENSION.size:
            raise _damaged(image, "bitmaps_ext: Invalid extension length", "length", len(data), EXTENSION.size)
        count, reserved, length, offset = EXTENSION.unpack(data)
        if reserved:
            raise _damaged(image, "bitmaps_ext: Reserved field is not zero", "reserved", reserved, 0)
        if count > MAX_BITMAPS:
            raise _damaged(
                image, f"bitmaps_ext: Image has {count} bitmaps, exceeding the QEMU supported maximum of {MAX_BITMAPS}",
                "nb_bitmaps", count, MAX_BITMAPS,
            )  # fmt: skip
        if not count:
            raise _damaged(image, "found bitmaps extension with zero bitmaps", "nb_bitmaps", 0, "at least 1")
        if offset & (image.cluster_size - 1):
            limit = f"a multiple of {image.cluster_size}"
            raise _damaged(image, "bitmaps_ext: invalid bitmap directory offset", "offset", hex(offset), limit)
        if length > MAX_DIRECTORY:
            raise _damaged(
                image,
                f"bitmaps_ext: bitmap directory size ({length}) exceeds the maximum supported size ({MAX_DIRECTORY})",
                "size", length, MAX_DIRECTORY,
            )  # fmt: skip
        return count, length, offset

    @classmethod
    def load(cls, image: Qcow2Map) -> Directory:
        """The directory of ``image``. Raises FormatError where a field is out of its bounds."""
        if image.header.extension(hd.EXT_BITMAPS) is None:
            return cls()
        count, length, offset = cls.head(image)

        def bad(text: str, field: str, value: object, limit: object = None) -> FormatError:
            return _damaged(image, text, field, value, limit, offset)

        directory = cls(offset, length)
        if not length:
            raise bad("Requested bitmap directory size is zero", "size", 0)
        inside = max(0, min(length, image.file.size - offset))
        raw = (image.file.read(offset, inside) if inside else b"").ljust(length, b"\0")
        at = 0
        while at < length:
            if len(directory.entries) == count:
                raise bad("More bitmaps found than specified in header extension", "nb_bitmaps", count)
            if at + ENTRY.size > length:
                raise bad("Broken bitmap directory", "entry", at, length)
            table_offset, table_size, flags, kind, bits, name_size, extra_size = ENTRY.unpack_from(raw, at)
            if extra_size:
                raise bad("Bitmap extra data is not supported", "extra_data_size", extra_size, 0)
            end = at + ((ENTRY.size + name_size + 7) & ~7)
            if end > length:
                raise bad("Broken bitmap directory", "entry size", end - at, length - at)
            name = raw[at + ENTRY.size : at + ENTRY.size + name_size].decode("utf-8", "surrogateescape")
            entry = Entry(name, bits, flags, table_offset, table_size)
            if kind != 1 or name_size > MAX_NAME or not _sound(entry, image):
                raise bad(
                    f"Bitmap '{name}' doesn't satisfy the constraints",
                    "directory entry",
                    raw[at : at + ENTRY.size].hex(),
                )
            directory.entries.append(entry)
            at = end
        if len(directory.entries) != count:
            raise bad(
                "Less bitmaps found than specified in header extension", "nb_bitmaps", len(directory.entries), count
            )
        return directory


def open_bitmaps(image: Qcow2Map, *, writable: bool) -> None:
    """What opening an image does about its bitmaps: bound everything that will be read of them.

    Bitmaps that a program without support for them has left behind are no longer believed; opening for writing drops
    them. Raises FormatError.
    """
    header = image.header
    if header.extension(hd.EXT_BITMAPS) is None:
        return
    if not header.autoclear_features & hd.AUTOCLEAR_BITMAPS:
        Directory.head(image)
        if header.version < 3:
            image.warn(
                "This qcow2 v2 image contains bitmaps, but they may have been modified by a program without "
                "persistent bitmap support; so now they must all be considered inconsistent"
            )
        else:
            image.warn(
                "a program lacking bitmap support modified this file, so all bitmaps are now considered inconsistent\n"
                "Some clusters may be leaked, run 'qemu-img check -r' on the image file to fix."
            )
        if writable:
            node: Any = image
            header.set_extension(hd.EXT_BITMAPS, None)
            node.rewrite_header()
        return
    names: set[str] = set()
    seen = TableScan(image)
    for entry in Directory.load(image).entries:
        if entry.name in names:
            raise _damaged(image, f"Bitmap already exists: {entry.name}", "name", entry.name)
        names.add(entry.name)
        if entry.in_use:
            continue
        bad = seen.first_bad(entry)
        if bad is not None:
            raise _damaged(
                image, f"Could not read bitmap_table table from image for bitmap '{entry.name}': Invalid argument",
                f"bitmap table entry {bad[0]}", hex(bad[1]),
            )  # fmt: skip
        needed = max(1, -(-entry.bytes_for(image.size) >> image.cluster_bits))
        if entry.table_size != needed:
            raise _damaged(
                image, f"Could not read bitmap '{entry.name}' from image: Invalid argument", "bitmap_table_size",
                entry.table_size, needed,
            )  # fmt: skip


class TableScan:
    """Looks for table entries that break their rules. Each byte of the file is read once, whatever tables share it.

    So the work is bounded by what the file takes on its storage, not by what a directory of 65535 bitmaps claims.
    """

    #: bytes looked at together
    STEP = 1 << 20

    def __init__(self, image: Qcow2Map) -> None:
        self.image = image
        #: areas that are known to be sound, (begin, end), ascending and apart
        self.sound: list[tuple[int, int]] = []

    def first_bad(self, entry: Entry) -> tuple[int, int] | None:
        """(index, value) of the first bad entry of a bitmap's table, None when all are sound."""
        begin = entry.table_offset
        end = min(begin + entry.table_size * 8, self.image.file.size)
        for low, high in self._unseen(begin, end):
            for extent in self.image.file.extents(low, high - low):
                if extent.kind in (ZERO, HOLE):
                    continue
                found = self._scan(extent.offset, extent.offset + extent.length)
                if found is not None:
                    return (found[0] - begin) // 8, found[1]
        return None

    def _unseen(self, begin: int, end: int) -> list[tuple[int, int]]:
        """The parts of [begin, end) that were not looked at yet; they count as looked at from now on."""
        if begin >= end:
            return []
        # the areas that touch this one become one with it
        first = bisect_left(self.sound, begin, key=_end_of)
        last = first
        parts = []
        at = begin
        while last < len(self.sound) and self.sound[last][0] <= end:
            low, high = self.sound[last]
            if at < low:
                parts.append((at, low))
            at = max(at, high)
            last += 1
        if at < end:
            parts.append((at, end))
        whole = self.sound[first:last]
        merged = (min(begin, whole[0][0]), max(end, whole[-1][1])) if whole else (begin, end)
        self.sound[first:last] = [merged]
        return parts

    def _scan(self, low: int, high: int) -> tuple[int, int] | None:
        """(offset, value) of the first bad entry in the file's bytes [low, high)."""
        cluster = self.image.cluster_size
        while low < high:
            step = min(self.STEP, high - low)
            words = self.image.read_table(low, -(-step // 8))
            for index, item in enumerate(words) if any(words) else ():
                if item and Entry.bad_table_entry(item, cluster):
                    return low + index * 8, item
            low += step
        return None


def _end_of(area: tuple[int, int]) -> int:
    return area[1]


def _damaged(
    image: Qcow2Map, text: str, field: str, value: object, limit: object = None, offset: int | None = None
) -> FormatError:
    return FormatError(
        text, path=image.filename, layer="qcow2 bitmaps", field=field, value=value, limit=limit, offset=offset,
        errno=errno.EINVAL,
    )  # fmt: skip


def _sound(entry: Entry, image: Qcow2Map) -> bool:
    """Are the fields of a directory entry possible?"""
    if (
        not 0 < entry.table_size <= MAX_TABLE
        or not entry.table_offset
        or entry.table_offset & (image.cluster_size - 1)
        or entry.flags & ~KNOWN_FLAGS
        or not MIN_GRANULARITY_BITS <= entry.granularity_bits <= MAX_GRANULARITY_BITS
        or entry.table_size << image.cluster_bits > MAX_BYTES
    ):
        return False
    # a bitmap in use may be of any size: the disk was perhaps being resized
    return entry.in_use or entry.bytes_for(image.size) <= entry.table_size << image.cluster_bits


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")
