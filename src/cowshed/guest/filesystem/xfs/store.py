"""Metadata of the device: read through a bounded cache, with what the log replay changed laid over it, and verified.

Offsets are bytes into the device. File data does not pass here, see fork.py.
"""

from __future__ import annotations

import errno

from ....errors import CorruptError
from ...crc32c import crc32c

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ....block.node import Node
    from .superblock import Superblock

SECTOR = 512
_PAGE = 1 << 14  # what one request of the cache reads
_PAGES = 1024


class Store:
    """The device's metadata. ``overlay``: sectors by number that were replayed or changed and stand in for the
    device's; ``replayed`` of them came from the log, whose records vouch for them: they carry stale checksums.
    ``file_sectors``: those of the overlay that hold file data."""

    def __init__(self, node: Node) -> None:
        self.node = node
        self.superblock: Superblock
        self.overlay: dict[int, bytes] = {}
        self.replayed: set[int] = set()
        self.file_sectors: set[int] = set()
        self._pages: dict[int, bytearray] = {}
        self._verified: dict[int, int] = {}  # offset -> length of structures whose checksum was found right

    # ---- bytes

    def read(self, offset: int, length: int) -> bytes:
        """``length`` bytes; CorruptError past the end of the device."""
        page, inside = divmod(offset, _PAGE)
        if inside + length <= _PAGE:
            return bytes(self._page(page)[inside : inside + length])
        if offset + length > self.node.size:
            raise CorruptError(
                f"XFS: {length} bytes at offset {offset} lie past the end of the device", offset=offset,
                limit=self.node.size, value=length,
            )  # fmt: skip
        return self._laid_over(offset, self.node.read(offset, length))

    def _page(self, number: int) -> bytearray:
        pages = self._pages
        page = pages.pop(number, None)
        if page is None:
            offset = number * _PAGE
            length = min(_PAGE, self.node.size - offset)
            if length <= 0:
                raise CorruptError(
                    f"XFS: offset {offset} lies past the end of the device", offset=offset, limit=self.node.size
                )
            page = bytearray(self._laid_over(offset, self.node.read(offset, length)))
            if len(pages) >= _PAGES:
                del pages[next(iter(pages))]
        pages[number] = page
        return page

    def _laid_over(self, offset: int, raw: bytes) -> bytes:
        overlay = self.overlay
        if not overlay:
            return raw
        first = offset // SECTOR
        last = (offset + len(raw) + SECTOR - 1) // SECTOR
        found = [number for number in range(first, last) if number in overlay]
        if not found:
            return raw
        changed = bytearray(raw)
        for number in found:
            at = number * SECTOR - offset
            piece = overlay[number]
            if at < 0:
                piece, at = piece[-at:], 0
            piece = piece[: len(changed) - at]
            changed[at : at + len(piece)] = piece
        return bytes(changed)

    def lay(self, offset: int, data: bytes | bytearray | memoryview, *, replayed: bool = False) -> None:
        """Whole sectors that stand in for the device's from now on."""
        if offset % SECTOR or len(data) % SECTOR:
            raise ValueError("whole sectors only")
        first = offset // SECTOR
        overlay, pages = self.overlay, self._pages
        for index in range(len(data) // SECTOR):
            overlay[first + index] = bytes(data[index * SECTOR : (index + 1) * SECTOR])
            if replayed:
                self.replayed.add(first + index)
        for number in range(offset // _PAGE, (offset + len(data) - 1) // _PAGE + 1):
            page = pages.get(number)
            if page is not None:
                at = max(offset, number * _PAGE)
                end = min(offset + len(data), number * _PAGE + len(page))
                page[at - number * _PAGE : end - number * _PAGE] = data[at - offset : end - offset]
        self._verified.clear()

    def drop(self, offset: int, length: int) -> None:
        """Forget what was laid over a range: the device is read again there."""
        for number in range(offset // SECTOR, (offset + length) // SECTOR):
            self.overlay.pop(number, None)
            self._pages.pop(number * SECTOR // _PAGE, None)

    def lay_file_data(self, offset: int, view: memoryview) -> None:
        """Put the file data that was replayed into ``view``, which holds the device's bytes."""
        end = offset + len(view)
        first, last = offset // SECTOR, (end + SECTOR - 1) // SECTOR
        sectors = self.file_sectors
        for number in range(first, last) if last - first < len(sectors) else sectors:
            piece = self.overlay.get(number)
            if piece is not None and number in sectors and first <= number < last:
                at = max(offset, number * SECTOR)
                until = min(end, (number + 1) * SECTOR)
                view[at - offset : until - offset] = piece[at - number * SECTOR : until - number * SECTOR]

    def settle(self) -> None:
        """Everything that was laid over the device has been written to it."""
        self.overlay.clear()
        self.replayed.clear()
        self.file_sectors.clear()

    def is_replayed(self, offset: int, length: int) -> bool:
        replayed = self.replayed
        if not replayed:
            return False
        return any(n in replayed for n in range(offset // SECTOR, (offset + length + SECTOR - 1) // SECTOR))

    # ---- verified structures

    def block_offset(self, block: int, count: int, what: str, at: int) -> int:
        """Bytes into the device of blocks that ``what`` at offset ``at`` names; CorruptError when they don't exist."""
        offset = self.superblock.block_offset(block, count)
        if offset < 0:
            raise damaged(what, at, "block", f"{block:#x}+{count}", "blocks that exist")
        return offset

    def verify(self, raw: bytes, offset: int, crc_at: int, what: str) -> None:
        """The checksum of a version 5 structure that lies whole in ``raw``."""
        if self._verified.get(offset) == len(raw):
            return
        found = int.from_bytes(raw[crc_at : crc_at + 4], "little")
        wanted = crc32c(b"".join((raw[:crc_at], b"\0\0\0\0", raw[crc_at + 4 :])))
        if found != wanted and not self.is_replayed(offset, len(raw)):
            raise CorruptError(
                f"XFS {what} at offset {offset}: checksum is {found:#010x} and not {wanted:#010x}",
                layer=what, offset=offset + crc_at, field="crc", value=hex(found), limit=hex(wanted),
            )  # fmt: skip
        if len(self._verified) >= 1 << 14:
            self._verified.clear()
        self._verified[offset] = len(raw)

    def check_identity(self, raw: bytes, offset: int, blkno_at: int, uuid_at: int, what: str) -> None:
        """A version 5 block says where it lies and to which file system it belongs."""
        found = int.from_bytes(raw[blkno_at : blkno_at + 8], "big")
        if found != offset >> 9:
            raise damaged(what, offset, "blkno", found, offset >> 9)
        if raw[uuid_at : uuid_at + 16] != self.superblock.metadata_uuid:
            raise damaged(what, offset, "uuid", raw[uuid_at : uuid_at + 16].hex(), self.superblock.metadata_uuid.hex())

    def check_owner(self, raw: bytes, offset: int, owner_at: int, owner: int, what: str) -> None:
        found = int.from_bytes(raw[owner_at : owner_at + 8], "big")
        # an exchange of extents changes owners without logging the blocks
        if found != owner and not self.replayed:
            raise damaged(what, offset, "owner", found, owner)


def damaged(what: str, offset: int, field: str, value: object, limit: object = None) -> CorruptError:
    """The error of a structure whose field can't be what it is."""
    text = f"XFS {what} at offset {offset}: {field} is {value}"
    if limit is not None:
        text += f" and not {limit}"
    return CorruptError(text, layer=what, offset=offset, field=field, value=value, limit=limit, errno=errno.EIO)
