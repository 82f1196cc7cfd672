"""The ``raw`` format: the disk is the file, or a window (``offset``, ``size``) of it."""

from __future__ import annotations

from ...errors import CowshedError, NoSpaceError, OptionError
from ...progress import QUIET
from ..node import Extent, Node, Placement, byte_view

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from ...progress import Progress

SECTOR = 512
#: so many bytes are read without asking for holes first: they read as zeroes, and asking may cost more than reading
_DIRECT = 64 << 10


def _sectors(size: int) -> int:
    return (size + SECTOR - 1) // SECTOR * SECTOR


class RawNode(Node):
    """A plain disk over ``file``. ``offset``/``size`` (bytes) choose a window; size None = to the end."""

    driver = "raw"
    is_format = True
    has_zero_init = True

    def __init__(self, file: Node, *, offset: int = 0, size: int | None = None, read_only: bool = True) -> None:
        super().__init__(file.filename, read_only)
        self.children["file"] = file
        self.start = offset
        self.fixed = size
        #: sector 0 of a disk whose raw format was only guessed must not become another format's header
        self.guard_first_sector = False
        whole = _sectors(file.size)
        if offset > whole:
            raise OptionError(
                f"Offset ({offset}) cannot be greater than size of the containing file ({whole})",
                path=file.filename, field="offset", value=offset, limit=whole,
            )
        if size is not None:
            if size > whole - offset:
                raise OptionError(
                    f"The sum of offset ({offset}) and size ({size}) has to be smaller or equal to the "
                    f" actual size of the containing file ({whole})",
                    path=file.filename, field="size", value=size, limit=whole - offset,
                )
            if size % SECTOR:
                raise OptionError("Specified size is not multiple of 512", path=file.filename, field="size", value=size)
        self._measure()

    def _measure(self) -> None:
        size = self.file.size - self.start if self.fixed is None else self.fixed
        # guests see whole sectors; the bytes that fill the last one read as zeroes
        self.size = _sectors(size)

    def layer_extents(self, offset: int, length: int) -> Iterator[Extent]:
        start = self.start
        source = self.file._chain_extents if self.file.is_filter or self.file.is_format else self.file.layer_extents
        for extent in source(offset + start, length):
            extent.offset -= start
            extent.owner = self
            yield extent

    def _read_mapped(self, offset: int, view: memoryview) -> None:
        start, end = self.start + offset, self.start + offset + len(view)
        if offset >= 0 and len(view) <= _DIRECT and end <= self.start + self.size and end <= self.file.size:
            self.file.read_into(start, view)
        else:
            super()._read_mapped(offset, view)

    def place(self, offset: int, length: int) -> list[Placement]:
        return [Placement(offset, length, self.file, offset + self.start)]

    def before_write(self, offset: int, length: int) -> None:
        pass

    def write(self, offset: int, data: bytes | bytearray | memoryview) -> None:
        data = byte_view(data)
        if self.guard_first_sector and offset < SECTOR and len(data):
            self._guard(offset, data)
        grows = self._check_room(offset, len(data))
        self.file.write(offset + self.start, data)
        if grows:
            self._measure()

    def _check_room(self, offset: int, length: int) -> bool:
        """May these bytes be written? True when they lie behind the end and a format above makes the file longer."""
        if not self.extensible or offset < 0 or length < 0 or offset + length <= self.size:
            self._check_write(offset, length)
            return False
        self._check_write(0, 0)
        if self.fixed is not None:
            raise NoSpaceError(
                "No space left on device", path=self.filename, layer="raw", field="size", value=offset + length,
                limit=self.fixed, errno=28,
            )  # fmt: skip
        return True

    def _guard(self, offset: int, data: bytes | bytearray | memoryview) -> None:
        """Refuse a first sector that would make the next open probe another format (CVE-2008-2004)."""
        from ..registry import probe_bytes

        sector = bytearray(self.read(0, min(SECTOR, self.size)))
        piece = bytes(data[: SECTOR - offset])
        sector[offset : offset + len(piece)] = piece
        if probe_bytes(bytes(sector), "") not in ("raw", ""):
            raise CowshedError("Operation not permitted", path=self.filename, layer="raw", offset=offset, errno=1)

    def write_zeroes(self, offset: int, length: int, unmap: bool = False) -> None:
        grows = self._check_room(offset, length)
        self.file.write_zeroes(offset + self.start, length, unmap)
        if grows:
            self._measure()

    def discard(self, offset: int, length: int) -> None:
        if self.extensible and offset < self.size:
            length = min(length, self.size - offset)  # the last cluster of a format may reach behind the end
        self._check_write(offset, length)
        self.file.discard(offset + self.start, length)

    def flush(self) -> None:
        self.file.flush()

    def resize(self, size: int, preallocation: str = "off", progress: Progress = QUIET) -> None:
        if self.fixed is not None:
            raise CowshedError("Cannot resize fixed-size raw disks", path=self.filename, layer="raw", errno=95)
        if not getattr(self.file, "resizable", True) and preallocation == "off" and size + self.start != self.file.size:
            raise CowshedError("Cannot resize device files", path=self.filename, layer="raw", errno=95)
        self.file.resize(size + self.start, preallocation, progress)
        self._measure()
