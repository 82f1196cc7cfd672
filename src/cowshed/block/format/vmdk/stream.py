"""Compressed grains: zlib streams (RFC 1950), one a grain, each on a sector's boundary, most often behind a marker.

Specification: VMware "Virtual Disk Format 5.0", "Stream-Optimized Compressed Sparse Extents".
"""

from __future__ import annotations

import errno
import zlib

from ....errors import CorruptError
from .header import GRAIN_MARKER, SECTOR, SparseHeader

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ...node import Node

#: bytes of the file that a reader fetches at once, at most
WINDOW = 1 << 20


class GrainReader:
    """Reads compressed grains of one request; grains that are neighbours in the file are fetched together."""

    __slots__ = ("_ahead", "_start", "_window", "file", "header")

    def __init__(self, file: Node, header: SparseHeader, length: int) -> None:
        """``length``: guest bytes that are going to be read."""
        self.file = file
        self._ahead = min(WINDOW, length + SECTOR)
        self.header = header
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
        unpack = zlib.decompressobj()
        try:
            plain = unpack.decompress(packed, grain)
        except zlib.error as error:
            raise self._damaged(at, "data", str(error), "a zlib stream") from error
        if skip + len(view) > len(plain):
            # the disk's last grain may be short, but not shorter than the disk
            raise self._damaged(at, "length", len(plain), f"at least {skip + len(view)}")
        view[:] = memoryview(plain)[skip : skip + len(view)]

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


class GrainPacker:
    """The codec of a disk whose grains are compressed. Safe to use from several threads."""

    name = "zlib"

    def compress(self, plain: memoryview | bytes, cluster_size: int) -> bytes | None:
        """The compressed form of one grain; it is stored even where it is larger, as there is no other form."""
        return zlib.compress(plain)


class NoPacker(GrainPacker):
    """The codec of a disk whose grains are stored plain: nothing is worth compressing."""

    name = "none"

    def compress(self, plain: memoryview | bytes, cluster_size: int) -> bytes | None:
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
