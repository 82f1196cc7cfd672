"""Compressed grains: zlib streams (RFC 1950), one a grain, each on a sector's boundary, most often behind a marker.

Specification: VMware "Virtual Disk Format 5.0", "Stream-Optimized Compressed Sparse Extents".
"""

from __future__ import annotations

import errno

from ....errors import CorruptError
from ...codec import Codec, CodecError, codec
from .header import GRAIN_MARKER, SECTOR, SparseHeader

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ...codec import Bytes
    from ...node import Node

#: bytes of the file that a reader fetches at once, at most
WINDOW = 1 << 20


class GrainReader:
    """Reads compressed grains of one request; grains that are neighbours in the file are fetched together."""

    __slots__ = ("_ahead", "_start", "_window", "codec", "file", "header")

    def __init__(self, file: Node, header: SparseHeader, length: int) -> None:
        """``length``: guest bytes that are going to be read."""
        self.file = file
        self._ahead = min(WINDOW, length + SECTOR)
        self.header = header
        self.codec = codec("zlib-wrapped")
        self._start = 0
        self._window = memoryview(b"")

    def read_into(self, sector: int, skip: int, view: memoryview) -> None:
        """Fill ``view`` from byte ``skip`` of the grain whose entry is ``sector``. Raises CorruptError, HostError."""
        grain = self.header.grain * SECTOR
        at = sector * SECTOR
        most = 2 * grain
        if self.header.markers:
            _, length = GRAIN_MARKER.unpack(self._fetch(at, GRAIN_MARKER.size).ljust(GRAIN_MARKER.size, b"\0"))
            if not length or length > most:
                raise self._damaged(at, "size", length, f"1 to {most}")
            packed = self._fetch(at + GRAIN_MARKER.size, length)
        else:
            packed = self._fetch(at, most)
        end = skip + len(view)
        try:
            # the disk's last grain may be short, but not shorter than the disk
            plain = self.codec.decompress(packed, grain, end)
        except CodecError as error:
            raise self._damaged(at, "data", str(error), f"a zlib stream of {end} bytes at least") from error
        view[:] = memoryview(plain)[skip:end]

    def _fetch(self, offset: int, length: int) -> bytes:
        """Up to ``length`` bytes from ``offset``; fewer at the end of the file."""
        low = offset - self._start
        if low < 0 or low + length > len(self._window):
            size = max(0, min(max(length, self._ahead), self.file.size - offset))
            self._window = memoryview(self.file.read(offset, size))
            self._start = offset
            low = 0
        return bytes(self._window[low : low + length])

    def _damaged(self, offset: int, field: str, value: object, limit: object) -> CorruptError:
        return CorruptError(
            "Invalid argument", path=self.file.filename, layer="vmdk compressed grain", offset=offset, field=field,
            value=value, limit=limit, errno=errno.EINVAL,
        )  # fmt: skip


class GrainPacker(Codec):
    """The codec of a disk whose grains are compressed: a grain is stored so even where it gets larger."""

    __slots__ = ("_codec",)

    def __init__(self) -> None:
        self._codec = codec("zlib-wrapped")
        super().__init__(self._codec.name, self._codec.level)

    def compress(self, view: Bytes, limit: int) -> bytes | None:
        """The stream of one grain, however long it is: there is no other form."""
        return self._codec.compress(view, 2 * limit + SECTOR)

    def decompress(self, data: Bytes, out_length: int, at_least: int | None = None) -> bytes:
        return self._codec.decompress(data, out_length, at_least)


class NoPacker(Codec):
    """The codec of a disk whose grains are stored plain: nothing is worth compressing."""

    __slots__ = ()

    def __init__(self) -> None:
        super().__init__("none", None)

    def compress(self, view: Bytes, limit: int) -> bytes | None:
        return None


def lay_out(run: list[tuple[int, bytes]], sector: int, header: SparseHeader) -> tuple[list[int], bytes]:
    """Compressed grains, (guest offset, bytes), as they follow each other in the file from ``sector`` on.

    Returns the sectors where each came to lie, and the file's bytes, in whole sectors.
    """
    sectors = []
    parts: list[bytes] = []
    for offset, packed in run:
        head = GRAIN_MARKER.pack(offset // SECTOR, len(packed)) if header.markers else b""
        length = len(head) + len(packed)
        pad = -length % SECTOR
        parts += (head, packed, bytes(pad))
        sectors.append(sector)
        sector += (length + pad) // SECTOR
    return sectors, b"".join(parts)
