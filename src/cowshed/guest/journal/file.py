"""One file of systemd's journal (JOURNAL_FILE_FORMAT): its header, its entries by number, their fields.

The file is a heap of objects, each with a type, flags and a size; entries are found through a chain of arrays of
offsets. Everything is bounded by the file's size before it is believed, and chains only lead forwards, so that reading
ends whatever the file says. Keyed hashes need no key here, as nothing is looked up by a hash.
"""

from __future__ import annotations

import struct

from ...errors import CorruptError, FeatureError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

SIGNATURE = b"LPKSHHRH"
DATA, ENTRY, ENTRY_ARRAY = 1, 3, 6
_COMPACT = 16
#: XZ, LZ4, keyed hash, ZSTD, compact
_KNOWN = 1 | 2 | 4 | 8 | _COMPACT
_XZ, _LZ4, _ZSTD = 1, 2, 4
_HEADER = struct.Struct("<8sII8x16s16s16s16sQQ")
_OBJECT = struct.Struct("<BB6xQ")
_ENTRY = struct.Struct("<QQQ16sQ")
#: what the format lets a field have at most
DATA_MAX = 768 << 20
#: arrays in a chain: each doubles the one before it
_MOST_ARRAYS = 1 << 16
_PAGE = 1 << 16
#: of them, as long as nobody sets another `JournalFile.keep`
_PAGES = 128


class Entry:
    """``seqnum`` of the entry in its series, ``realtime`` and ``monotonic`` in microseconds, ``boot`` of its system,
    ``xor`` of its fields' hashes, ``items``: where its fields lie."""

    __slots__ = ("boot", "items", "monotonic", "offset", "realtime", "seqnum", "xor")

    def __init__(self, offset: int, head: tuple[int, int, int, bytes, int], items: list[int]) -> None:
        self.offset = offset
        self.seqnum, self.realtime, self.monotonic, self.boot, self.xor = head
        self.items = items


class JournalFile:
    """``read(offset, length)`` gives bytes of the file, ``size`` is its length.

    ``count``: its entries; ``series``: the series that their numbers belong to; ``keep``: how many pages of 64 KiB stay
    in memory. Raises CorruptError, FeatureError.
    """

    def __init__(self, read: Callable[[int, int], bytes], size: int, name: str = "journal") -> None:
        self.name = name
        self.size = size
        self._read = read
        self._pages: dict[int, bytes] = {}
        self.keep = _PAGES
        if size < 208:
            raise self._wrong("size", size, "too short for a header")
        head = read(0, 256)
        signature, _, incompatible, _, _, _, series, header, arena = _HEADER.unpack_from(head)
        if signature != SIGNATURE:
            raise self._wrong("signature", signature, "no journal")
        if incompatible & ~_KNOWN:
            raise FeatureError(
                f"{name}: the journal uses features that are not known: {incompatible & ~_KNOWN:#x}", layer="journal"
            )
        self.compact = bool(incompatible & _COMPACT)
        self.series: bytes = series
        if not 208 <= header <= size or header % 8:
            raise self._wrong("header_size", header, "beyond the file")
        self.start = header
        self.end = min(size, header + arena)
        (self.count,) = struct.unpack_from("<Q", head, 152)
        (first,) = struct.unpack_from("<Q", head, 176)
        self._item = 4 if self.compact else 8
        #: (index of its first entry, where its items begin, how many) of each array
        self._arrays: list[tuple[int, int, int]] = []
        self._find_arrays(first)

    def _wrong(self, field: str, value: object, why: str) -> CorruptError:
        return CorruptError(
            f"{self.name}: {field} is {value}: {why}", layer="journal", field=field, value=str(value), path=self.name
        )

    # ---- bytes

    def _bytes(self, offset: int, length: int) -> bytes:
        """Bytes of the file; small reads come from pages that are kept."""
        if offset < 0 or offset + length > self.size:
            raise self._wrong("offset", offset, f"{length} bytes from there are beyond the file")
        if length > _PAGE:
            return self._read(offset, length)
        first, last = offset // _PAGE, (offset + length - 1) // _PAGE
        data = self._page(first)
        if last != first:
            data += self._page(last)
        start = offset - first * _PAGE
        return data[start : start + length]

    def _page(self, number: int) -> bytes:
        page = self._pages.pop(number, None)
        if page is None:
            page = self._read(number * _PAGE, min(_PAGE, self.size - number * _PAGE))
            while len(self._pages) >= self.keep:
                del self._pages[next(iter(self._pages))]
        self._pages[number] = page
        return page

    def _object(self, offset: int, kind: int, least: int) -> tuple[int, int]:
        """(flags, size) of an object of that kind. Raises CorruptError."""
        if offset % 8 or not self.start <= offset <= self.size - 16:
            raise self._wrong("offset", offset, "no object can be there")
        found, flags, size = _OBJECT.unpack(self._bytes(offset, 16))
        if found != kind:
            raise self._wrong("type", found, f"an object of type {kind} is wanted at {offset}")
        if size < least or offset + size > self.size:
            raise self._wrong("size", size, f"of the object at {offset}")
        return flags, size

    # ---- entries

    def _find_arrays(self, offset: int) -> None:
        known = 0
        while offset and known < self.count:
            _, size = self._object(offset, ENTRY_ARRAY, 24)
            items = (size - 24) // self._item
            if not items or len(self._arrays) >= _MOST_ARRAYS:
                raise self._wrong("entry_array", offset, "empty, or one of too many")
            self._arrays.append((known, offset + 24, items))
            known += items
            (following,) = struct.unpack("<Q", self._bytes(offset + 16, 8))
            if following and following <= offset:
                raise self._wrong("next_entry_array_offset", following, "it leads back")
            offset = following
        # what the header counts and no array has is not there
        self.count = min(self.count, known)
        # the rest of an array is zeros while its file is written
        low, high = 0, self.count
        while low < high:
            middle = (low + high) // 2
            if self._place(middle):
                low = middle + 1
            else:
                high = middle
        self.count = low

    def _place(self, index: int) -> int:
        low, high = 0, len(self._arrays) - 1
        while low < high:
            middle = (low + high + 1) // 2
            if self._arrays[middle][0] <= index:
                low = middle
            else:
                high = middle - 1
        first, start, _ = self._arrays[low]
        return int.from_bytes(self._bytes(start + (index - first) * self._item, self._item), "little")

    def entry(self, index: int) -> Entry:
        """The entry of that number, from 0. Raises CorruptError."""
        offset = self._place(index)
        _, size = self._object(offset, ENTRY, 64)
        head = _ENTRY.unpack(self._bytes(offset + 16, 48))
        # no entry has more fields than journald takes in
        count = min((size - 64) // (4 if self.compact else 16), 1 << 16)
        raw = self._bytes(offset + 64, count * (4 if self.compact else 16))
        items = [one for (one,) in struct.iter_unpack("<I" if self.compact else "<Q8x", raw)]
        return Entry(offset, head, items)

    def field(self, offset: int) -> tuple[bytes, bytes]:
        """(name, value) of a field. Raises CorruptError."""
        start = 72 if self.compact else 64
        flags, size = self._object(offset, DATA, start)
        length = size - start
        if length > DATA_MAX:
            raise self._wrong("size", size, f"of the field at {offset}")
        raw = self._bytes(offset + start, length)
        packed = flags & (_XZ | _LZ4 | _ZSTD)
        if packed:
            try:
                raw = _unpack(packed, raw)
            except Exception as error:  # each library has an error of its own
                raise self._wrong("data", offset, f"it does not unpack: {error}") from error
        name, mark, value = raw.partition(b"=")
        if not mark or not name:
            raise self._wrong("data", offset, "a field without a name")
        return name, value


def _unpack(packed: int, raw: bytes) -> bytes:
    if packed == _ZSTD:
        import zstandard

        reader = zstandard.ZstdDecompressor(max_window_size=1 << 27).stream_reader(raw)
        parts = []
        left = DATA_MAX + 1
        # in steps: a read allocates all that it asks for
        while left > 0 and (part := reader.read(min(left, 1 << 18))):
            parts.append(part)
            left -= len(part)
        data = b"".join(parts)
    elif packed == _LZ4:
        from ..lz4 import unpack

        length = int.from_bytes(raw[:8], "little")
        data = unpack(raw[8:], min(length, DATA_MAX))
        if len(data) != length:
            raise ValueError(f"{len(data)} bytes instead of {length}")
    elif packed == _XZ:
        import lzma

        data = lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=512 << 20).decompress(raw, DATA_MAX + 1)
    else:
        raise ValueError(f"it is packed in more than one way ({packed:#x})")
    if len(data) > DATA_MAX:
        raise ValueError("it is too long")
    return data
