"""rpm's Berkeley DB database (Packages): a hash table whose values are headers, most of them on overflow pages.

Berkeley DB 4 to 5 file format: a metadata page (magic 0x061561, page size, last page), then pages of the type in byte
25. Of a hash page the items' offsets follow its 26 bytes of header, keys and values by turns; an item begins with its
kind. Either byte order, as the machine that made it.
"""

from __future__ import annotations

import struct

from . import PackageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

_MAGIC = 0x061561
_PAGE_HEADER = 26
_HASH_UNSORTED, _OVERFLOW, _HASH = 2, 7, 13
_KEYDATA, _OFFPAGE = 1, 3
_SIZES = (512, 1024, 2048, 4096, 8192, 16384, 32768, 65536)


def blobs(data: bytes, path: str) -> Iterator[bytes]:
    """The headers. Raises PackageError."""

    def bad(what: str, offset: int) -> PackageError:
        return PackageError(f"The rpm database is damaged: {what}", path=path, layer="Berkeley DB", offset=offset)

    if len(data) < 512:
        raise bad("no metadata page", 0)
    order = next((order for order in "<>" if struct.unpack_from(order + "I", data, 12)[0] == _MAGIC), None)
    if order is None:
        raise bad("no hash table", 12)
    (size,) = struct.unpack_from(order + "I", data, 20)
    if size not in _SIZES:
        raise bad(f"pages of {size} bytes", 20)
    if data[24]:
        raise bad("it is encrypted", 24)
    (last,) = struct.unpack_from(order + "I", data, 32)
    count = min(last + 1, len(data) // size)
    used = bytearray(count)
    for page in range(1, count):
        at = page * size
        if data[at + 25] not in (_HASH, _HASH_UNSORTED):
            continue
        (items,) = struct.unpack_from(order + "H", data, at + 20)
        if _PAGE_HEADER + items * 2 > size or items % 2:
            raise bad(f"page {page} has {items} items", at + 20)
        offsets = struct.unpack_from(f"{order}{items}H", data, at + _PAGE_HEADER)
        end = size
        spans = []
        for offset in offsets:
            # items grow down from the page's end
            if not _PAGE_HEADER + items * 2 <= offset < end:
                raise bad(f"page {page} has an item at {offset}", at + _PAGE_HEADER)
            spans.append((at + offset, at + end))
            end = offset
        for (key, key_end), (value, value_end) in zip(spans[::2], spans[1::2], strict=True):
            if data[key] == _KEYDATA and not any(data[key + 1 : key_end]):
                continue  # number 0: how many there were
            if data[value] == _KEYDATA:
                yield data[value + 1 : value_end]
            elif data[value] == _OFFPAGE and value_end - value >= 12:
                first, length = struct.unpack_from(order + "II", data, value + 4)
                yield _overflow(data, size, order, first, length, used, bad)
            else:
                raise bad(f"an item of kind {data[value]}", value)


def _overflow(data: bytes, size: int, order: str, page: int, length: int, used: bytearray, bad: _Bad) -> bytes:
    """A value that fills a chain of pages, no page of which is anyone else's."""
    parts: list[bytes] = []
    have = 0
    while page:
        if page >= len(used) or used[page] or data[page * size + 25] != _OVERFLOW:
            raise bad(f"a chain leads to page {page}", page * size)
        used[page] = 1
        at = page * size
        (fill,) = struct.unpack_from(order + "H", data, at + 22)
        if fill > size - _PAGE_HEADER:
            raise bad(f"page {page} holds {fill} bytes", at + 22)
        parts.append(data[at + _PAGE_HEADER : at + _PAGE_HEADER + fill])
        have += fill
        (page,) = struct.unpack_from(order + "I", data, at + 16)
    if have != length:
        raise bad(f"a value of {length} bytes has {have}", 0)
    return b"".join(parts)


if TYPE_CHECKING:
    from collections.abc import Callable

    _Bad = Callable[[str, int], PackageError]
