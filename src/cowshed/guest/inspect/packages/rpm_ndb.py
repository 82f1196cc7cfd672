"""rpm's own database format "ndb" (Packages.db): pages of slots, each leading to a blob.

All numbers are little endian. The file begins with a header of 32 bytes, "RpmP"; the rest of its first pages, as many
as the header says, are slots of 16 bytes, "Slot", package number, place and length in blocks of 16 bytes; a blob
begins with "BlbS", package number, generation and length.
"""

from __future__ import annotations

import struct

from . import PackageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

_HEADER = struct.Struct("<4sIIII")
_SLOT = struct.Struct("<4sIII")
_BLOB = struct.Struct("<4sIII")
_PAGE = 4096
_BLOCK = 16
MAX_SLOT_PAGES = 4096


def blobs(data: bytes, path: str) -> Iterator[memoryview]:
    """The headers. Raises PackageError."""

    def bad(what: str, offset: int) -> PackageError:
        return PackageError(f"The rpm database is damaged: {what}", path=path, layer="ndb", offset=offset)

    if len(data) < _PAGE:
        raise bad("no header", 0)
    magic, version, _, pages, _ = _HEADER.unpack_from(data)
    if magic != b"RpmP" or version:
        raise bad("no header of a known version", 0)
    if not 0 < pages <= MAX_SLOT_PAGES or pages * _PAGE > len(data):
        raise bad(f"{pages} pages of slots", 12)
    view = memoryview(data)
    total = 0
    for at in range(2 * _SLOT.size, pages * _PAGE, _SLOT.size):
        mark, number, block, count = _SLOT.unpack_from(data, at)
        if mark != b"Slot":
            raise bad("a slot without its mark", at)
        if not number:
            continue
        place = block * _BLOCK
        if place < pages * _PAGE or place + count * _BLOCK > len(data) or count * _BLOCK < _BLOB.size:
            raise bad(f"package {number} lies outside of it", at)
        start, same, _, length = _BLOB.unpack_from(data, place)
        if start != b"BlbS" or same != number or length > count * _BLOCK - _BLOB.size:
            raise bad(f"the blob of package {number}", place)
        # slots that share a blob would make much out of little
        total += count * _BLOCK
        if total > len(data):
            raise bad("packages overlap", at)
        yield view[place + _BLOB.size : place + _BLOB.size + length]
