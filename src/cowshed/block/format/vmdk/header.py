"""The header of a sparse extent, its markers and footer.

Specification: VMware "Virtual Disk Format 5.0", "Hosted Sparse Extent Header" and "Stream-Optimized Compressed Sparse
Extents". All numbers are little-endian; sectors are 512 bytes. Every bound is checked before anything is allocated.
"""

from __future__ import annotations

import struct

from ....errors import CorruptError, FeatureError, ForeignError, FormatError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ...node import Node

SECTOR = 512
MAGIC = b"KDMV"
MAGIC_ESX = b"COWD"
#: magic, version, flags, capacity, grainSize, descriptorOffset, descriptorSize, numGTEsPerGT, rgdOffset, gdOffset,
#: overHead, uncleanShutdown, four bytes that a transfer in text mode would change, compressAlgorithm
FIELDS = struct.Struct("<4sIIQQQQIQQQB4sH")
LINE_ENDS = b"\n \r\n"
#: val, size, type of a marker's sector
MARKER = struct.Struct("<QII")
#: lba, size before a compressed grain
GRAIN_MARKER = struct.Struct("<QI")

FLAG_LINE_ENDS = 1 << 0
FLAG_REDUNDANT = 1 << 1
FLAG_ZEROED_GRAIN = 1 << 2
FLAG_COMPRESSED = 1 << 16
FLAG_MARKERS = 1 << 17

COMPRESS_NONE = 0
COMPRESS_DEFLATE = 1

#: gdOffset of a stream whose grain directory came last: the footer has the real one
GD_AT_END = (1 << 64) - 1
MARKER_END_OF_STREAM = 0
MARKER_FOOTER = 3
#: footer marker, footer, end-of-stream marker, a sector each
FOOTER_BYTES = 3 * SECTOR

#: a grain-table entry of this value is a grain of zeroes where FLAG_ZEROED_GRAIN is set
GTE_ZEROED = 1

MAX_VERSION = 3
MAX_GRAIN_SECTORS = 0x200000
MAX_TABLE_ENTRIES = 512
MAX_DIRECTORY_ENTRIES = 32 << 20
MAX_DESCRIPTOR_BYTES = 1 << 20
#: where a descriptor is looked for when the header doesn't say
DESCRIPTOR_SECTOR = 1
DESCRIPTOR_SECTORS = 20


class SparseHeader:
    """A sparse extent's header under the specification's meanings; offsets and sizes in sectors.

    ``grain``: sectors a grain. ``table_entries``: entries a grain table. ``directory``, ``redundant``: where the
    grain directory and its copy are. ``overhead``: sectors before the first grain.
    """

    __slots__ = (
        "capacity", "compression", "descriptor", "descriptor_size", "directory", "flags", "from_footer", "grain",
        "overhead", "redundant", "table_entries", "unclean", "version",
    )  # fmt: skip

    def __init__(self) -> None:
        self.version = 1
        self.flags = FLAG_LINE_ENDS | FLAG_REDUNDANT
        self.capacity = 0
        self.grain = 128
        self.descriptor = DESCRIPTOR_SECTOR
        self.descriptor_size = DESCRIPTOR_SECTORS
        self.table_entries = 512
        self.redundant = 0
        self.directory = 0
        self.overhead = 0
        self.unclean = 0
        self.compression = COMPRESS_NONE
        #: the grain directory lies at the end of a finished stream
        self.from_footer = False

    def pack(self) -> bytes:
        """The header as its sector of 512 bytes."""
        return FIELDS.pack(
            MAGIC, self.version, self.flags, self.capacity, self.grain, self.descriptor, self.descriptor_size,
            self.table_entries, self.redundant, self.directory, self.overhead, self.unclean, LINE_ENDS,
            self.compression,
        ).ljust(SECTOR, b"\0")  # fmt: skip

    @classmethod
    def unpack(cls, sector: bytes) -> SparseHeader:
        """The header in ``sector`` (512 bytes that begin with the magic); nothing is checked yet."""
        header = cls()
        (
            _, header.version, header.flags, header.capacity, header.grain, header.descriptor, header.descriptor_size,
            header.table_entries, header.redundant, header.directory, header.overhead, header.unclean, _,
            header.compression,
        ) = FIELDS.unpack_from(sector)  # fmt: skip
        return header

    # -- derived --------------------------------------------------------------------------------------------------

    @property
    def compressed(self) -> bool:
        """Are the grains compressed? (Decided by the algorithm, as readers in the field do.)"""
        return self.compression == COMPRESS_DEFLATE

    @property
    def markers(self) -> bool:
        return bool(self.flags & FLAG_MARKERS)

    @property
    def zeroed_grain(self) -> bool:
        return bool(self.flags & FLAG_ZEROED_GRAIN)

    @property
    def table_span(self) -> int:
        """Sectors of the disk that one grain table maps."""
        return self.grain * self.table_entries

    @property
    def table_sectors(self) -> int:
        """Sectors that one grain table takes in the file."""
        return (self.table_entries * 4 + SECTOR - 1) // SECTOR

    @property
    def directory_entries(self) -> int:
        return -(-self.capacity // self.table_span)

    @property
    def directory_sectors(self) -> int:
        return (self.directory_entries * 4 + SECTOR - 1) // SECTOR


def read_header(file: Node, *, writable: bool) -> SparseHeader:
    """Read and check the header (and the footer where it counts). Raises FormatError and its kinds, HostError.

    ForeignError: not a sparse extent. FeatureError: a version or kind of extent that is not known here.
    """
    name = file.filename
    if not file.size:
        raise ForeignError("File is too small, not a valid image", path=name, layer="vmdk", value=0, limit=SECTOR)
    head = file.read(0, min(SECTOR, file.size)).ljust(SECTOR, b"\0")
    if head[:4] == MAGIC_ESX:
        raise FeatureError(
            "Unsupported image type 'vmfsSparse'", path=name, layer="vmdk header", field="magicNumber", value="COWD",
            limit="a hosted sparse extent (KDMV)",
        )
    if head[:4] != MAGIC:
        raise ForeignError(
            "invalid VMDK image descriptor", path=name, layer="vmdk header", field="magicNumber", value=head[:4].hex(),
            limit="KDMV",
        )
    header = SparseHeader.unpack(head)
    if header.capacity == 0 and header.descriptor:
        # the header says that it describes no grains, so the descriptor would have to name other files
        raise FeatureError(
            "Unsupported image type 'monolithicSparse'", path=name, layer="vmdk header", field="capacity", value=0,
            limit="more than 0 sectors",
        )
    if header.directory == GD_AT_END:
        header = _read_footer(file)
    _check(file, header, writable)
    return header


def _read_footer(file: Node) -> SparseHeader:
    """The copy of the header at the end of a stream, which knows where the grain directory came to lie."""
    name = file.filename
    start = -(-file.size // SECTOR) * SECTOR - FOOTER_BYTES
    if start >= 0:
        tail = file.read(start, file.size - start).ljust(FOOTER_BYTES, b"\0")
        _, size, kind = MARKER.unpack_from(tail)
        end = MARKER.unpack_from(tail, 2 * SECTOR)
        if size == 0 and kind == MARKER_FOOTER and end == (0, 0, MARKER_END_OF_STREAM) and tail[SECTOR:][:4] == MAGIC:
            header = SparseHeader.unpack(tail[SECTOR : 2 * SECTOR])
            if header.directory != GD_AT_END:
                header.from_footer = True
                return header
    raise CorruptError(
        "Invalid footer", path=name, layer="vmdk footer", offset=max(0, start), field="gdOffset",
        hint="the file may have been cut off: its last three sectors are not a footer", errno=22,
    )


def _check(file: Node, header: SparseHeader, writable: bool) -> None:
    name = file.filename

    def corrupt(text: str, field: str, value: object, limit: object, number: int = 22) -> CorruptError:
        return CorruptError(text, path=name, layer="vmdk header", field=field, value=value, limit=limit, errno=number)

    if header.version > MAX_VERSION:
        raise FeatureError(
            f"Unsupported VMDK version {header.version}", path=name, layer="vmdk header", field="version",
            value=header.version, limit=MAX_VERSION,
        )
    if header.version == 3 and not header.compressed and writable:
        # version 3 adds change tracking, which a writer would have to keep true
        raise FeatureError(
            "VMDK version 3 must be read only", path=name, layer="vmdk header", field="version", value=3, errno=22
        )
    if header.table_entries > MAX_TABLE_ENTRIES:
        raise corrupt("L2 table size too big", "numGTEsPerGT", header.table_entries, MAX_TABLE_ENTRIES)
    if not header.table_entries or not header.grain or header.grain >= 1 << 32:
        field, value = ("numGTEsPerGT", 0) if not header.table_entries else ("grainSize", header.grain)
        raise corrupt("L1 entry size is invalid", field, value, "more than 0")
    if header.grain > MAX_GRAIN_SECTORS:
        raise corrupt("Invalid granularity, image may be corrupt", "grainSize", header.grain, MAX_GRAIN_SECTORS, 27)
    if header.capacity >= 1 << 54:
        text = "Could not refresh total sector count: File too large"
        raise corrupt(text, "capacity", header.capacity, (1 << 54) - 1, 27)
    if header.directory_entries > MAX_DIRECTORY_ENTRIES:
        raise corrupt("L1 size too big", "capacity", header.capacity, MAX_DIRECTORY_ENTRIES * header.table_span, 27)
    if -(-file.size // SECTOR) < header.overhead:
        raise corrupt(
            f"File truncated, expecting at least {header.overhead * SECTOR} bytes", "overHead", file.size,
            f"at least {header.overhead * SECTOR}",
        )


def corrupt_text(name: str, what: str) -> FormatError:
    """The error for a descriptor that can't be understood; the text names no more than the tools of the field do."""
    return FormatError(
        f"Could not open '{name}': Invalid argument", path=name, layer="vmdk descriptor", field=what
    )
