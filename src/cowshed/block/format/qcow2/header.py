"""The qcow2 header cluster: fixed fields, header extensions, backing file name (QEMU docs/interop/qcow2.txt, "Header").

Everything read here is bounded before anything is allocated from it.
"""

from __future__ import annotations

import struct

from ....errors import CorruptError, FeatureError, ForeignError, FormatError, UnsupportedError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from ...node import Node

MAGIC = b"QFI\xfb"
V2 = struct.Struct(">4sIQIIQIIQQIIQ")  # 72 bytes
V3 = struct.Struct(">QQQII")  # 32 bytes more, in version 3

INCOMPAT_DIRTY = 1 << 0
INCOMPAT_CORRUPT = 1 << 1
INCOMPAT_DATA_FILE = 1 << 2
INCOMPAT_COMPRESSION = 1 << 3
INCOMPAT_EXTENDED_L2 = 1 << 4
INCOMPAT_KNOWN = 0x1F
COMPAT_LAZY_REFCOUNTS = 1 << 0
AUTOCLEAR_BITMAPS = 1 << 0
AUTOCLEAR_DATA_FILE_RAW = 1 << 1
AUTOCLEAR_KNOWN = 0x3

EXT_END = 0
EXT_BACKING_FORMAT = 0xE2792ACA
EXT_FEATURE_NAMES = 0x6803F857
EXT_BITMAPS = 0x23852875
EXT_CRYPTO = 0x0537BE77
EXT_DATA_FILE = 0x44415441

COMPRESSION_TYPES = ("zlib", "zstd")

#: (kind, bit, name): kind 0 incompatible, 1 compatible, 2 autoclear
FEATURES = (
    (0, 0, b"dirty bit"),
    (0, 1, b"corrupt bit"),
    (0, 2, b"external data file"),
    (0, 3, b"compression type"),
    (0, 4, b"extended L2 entries"),
    (1, 0, b"lazy refcounts"),
    (2, 0, b"bitmaps"),
    (2, 1, b"raw external data"),
)

MAX_L1_BYTES = 32 << 20
MAX_REFCOUNT_TABLE_BYTES = 8 << 20
MAX_SNAPSHOTS = 65536
MAX_SNAPSHOT_TABLE_BYTES = 1024 * MAX_SNAPSHOTS
MIN_SNAPSHOT_ENTRY = 40
MAX_BACKING_NAME = 1023


class Header:
    """The fields of the header, by their names in the specification; sizes and offsets in bytes.

    ``extensions``: (type, data) in file order, without the end marker. ``backing_file``: None without one.
    ``tail``: header fields past those known here, kept as they are.
    """

    __slots__ = (
        "autoclear_features", "backing_file", "backing_file_offset", "cluster_bits", "compatible_features",
        "compression_type", "crypt_method", "extensions", "header_length", "incompatible_features", "l1_size",
        "l1_table_offset", "nb_snapshots", "refcount_order", "refcount_table_clusters", "refcount_table_offset",
        "size", "snapshots_offset", "tail", "version",
    )  # fmt: skip

    def __init__(self) -> None:
        self.version = 3
        self.backing_file: str | None = None
        self.backing_file_offset = 0
        self.cluster_bits = 16
        self.size = 0
        self.crypt_method = 0
        self.l1_size = 0
        self.l1_table_offset = 0
        self.refcount_table_offset = 0
        self.refcount_table_clusters = 0
        self.nb_snapshots = 0
        self.snapshots_offset = 0
        self.incompatible_features = 0
        self.compatible_features = 0
        self.autoclear_features = 0
        self.refcount_order = 4
        self.header_length = 112
        self.compression_type = 0
        self.extensions: list[tuple[int, bytes]] = []
        self.tail = b""

    # -- views ----------------------------------------------------------------------------------------------------

    @property
    def cluster_size(self) -> int:
        return 1 << self.cluster_bits

    @property
    def refcount_bits(self) -> int:
        return 1 << self.refcount_order

    @property
    def extended_l2(self) -> bool:
        return bool(self.incompatible_features & INCOMPAT_EXTENDED_L2)

    def extension(self, kind: int) -> bytes | None:
        for number, data in self.extensions:
            if number == kind:
                return data
        return None

    def set_extension(self, kind: int, data: bytes | None) -> None:
        self.extensions = [item for item in self.extensions if item[0] != kind]
        if data is not None:
            self.extensions.append((kind, data))

    @property
    def backing_format(self) -> str | None:
        data = self.extension(EXT_BACKING_FORMAT)
        return None if data is None else data.split(b"\0")[0].decode("utf-8", "surrogateescape")

    @property
    def data_file(self) -> str | None:
        data = self.extension(EXT_DATA_FILE)
        return None if data is None else data.split(b"\0")[0].decode("utf-8", "surrogateescape")

    # -- writing --------------------------------------------------------------------------------------------------

    def encode_fixed(self) -> bytes:
        """The fixed fields (72 bytes in version 2; header_length in version 3)."""
        name = b"" if self.backing_file is None else _encode(self.backing_file)
        fixed = V2.pack(
            MAGIC, self.version, self.backing_file_offset if name else 0, len(name), self.cluster_bits, self.size,
            self.crypt_method, self.l1_size, self.l1_table_offset, self.refcount_table_offset,
            self.refcount_table_clusters, self.nb_snapshots, self.snapshots_offset,
        )  # fmt: skip
        if self.version >= 3:
            fixed += V3.pack(
                self.incompatible_features, self.compatible_features, self.autoclear_features,
                self.refcount_order, self.header_length,
            )  # fmt: skip
            if self.header_length > 104:
                fixed += bytes([self.compression_type]) + bytes(7)
            fixed = (fixed + self.tail)[: self.header_length].ljust(self.header_length, b"\0")
        return fixed

    def encode(self, keep: tuple[tuple[int, int], ...] = ()) -> bytes:
        """The whole header up to the end of the extensions, and after it the backing file's name.

        Chooses ``backing_file_offset``. Everything but the name goes into the first sector where it can, with as many
        entries of the feature name table as there is room for: so one sector switches from an old header to this one.
        The name is put where, behind the first sector, it touches none of the ranges ``keep`` (of the old header), if
        there is room. Raises FormatError when it all doesn't fit into the cluster.
        """
        if self.version >= 3:
            self.header_length = 112 + len(self.tail)
        name = b"" if self.backing_file is None else _encode(self.backing_file)
        start = self.header_length if self.version >= 3 else 72
        body = b""
        for kind, data in sorted(self.extensions, key=lambda item: _ORDER.get(item[0], 9)):
            if kind != EXT_FEATURE_NAMES:
                body += _extension(kind, data)
        if self.version >= 3:
            room = min(512, self.cluster_size - len(name)) - start - len(body) - 16
            entries = min(room // 48, len(FEATURES))
            if entries > 0:
                body += _extension(EXT_FEATURE_NAMES, feature_table()[: entries * 48])
        body += bytes(8)
        end = start + len(body)
        last = max([end, *(high for _, high in keep)])
        for offset in (end, last, end):
            if offset + len(name) > self.cluster_size:
                continue
            low, high = max(offset, 512), offset + len(name)
            if offset == end < last and any(low < upto and at < high for at, upto in keep) and high > 512:
                if last + len(name) <= self.cluster_size:
                    continue
            self.backing_file_offset = offset if name else 0
            return (self.encode_fixed() + body).ljust(offset if name else end, b"\0") + name
        raise FormatError("Header does not fit into the first cluster", layer="qcow2 header", errno=28)


_ORDER = {EXT_BACKING_FORMAT: 0, EXT_DATA_FILE: 1, EXT_CRYPTO: 2, EXT_BITMAPS: 3}


def _encode(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")


def _extension(kind: int, data: bytes) -> bytes:
    return struct.pack(">II", kind, len(data)) + data + bytes(-len(data) % 8)


def feature_table() -> bytes:
    """The feature name table extension's data: kind, bit and a 46-byte name for every feature known here."""
    return b"".join(bytes([kind, bit]) + name.ljust(46, b"\0") for kind, bit, name in FEATURES)


def read_header(file: Node, *, check: bool = False) -> Header:
    """Parse and bound the header in ``file``.

    Raises ForeignError (not qcow2), FeatureError (unknown incompatible features), FormatError (a field out of
    bounds), each naming field, offset, value and limit.
    """
    path = file.filename
    # what a short file lacks reads as zeroes, up to the end of its sector
    data = file.read(0, min(max(file.size, 0), 104)).ljust(104, b"\0")

    def bad(text: str, field: str, offset: int, value: object, limit: object = None) -> FormatError:
        return FormatError(text, path=path, layer="qcow2 header", field=field, offset=offset, value=value, limit=limit)

    if data[:4] != MAGIC:
        raise ForeignError(
            "Image is not in qcow2 format", path=path, layer="qcow2 header", field="magic", offset=0,
            value=data[: min(4, file.size)].hex() or "(empty)", limit=MAGIC.hex(),
        )  # fmt: skip
    h = Header()
    (
        _, h.version, h.backing_file_offset, name_size, h.cluster_bits, h.size, h.crypt_method, h.l1_size,
        h.l1_table_offset, h.refcount_table_offset, h.refcount_table_clusters, h.nb_snapshots, h.snapshots_offset,
    ) = V2.unpack_from(data)  # fmt: skip
    if h.version not in (2, 3):
        raise UnsupportedError(
            f"Unsupported qcow2 version {h.version}", path=path, layer="qcow2 header", field="version", offset=4,
            value=h.version, limit="2, 3",
        )  # fmt: skip
    if not 9 <= h.cluster_bits <= 21:
        raise bad(f"Unsupported cluster size: 2^{h.cluster_bits}", "cluster_bits", 20, h.cluster_bits, "9 to 21")
    cluster_size = h.cluster_size
    if h.version == 2:
        h.header_length = 72
    else:
        (
            h.incompatible_features, h.compatible_features, h.autoclear_features, h.refcount_order, h.header_length,
        ) = V3.unpack_from(data, 72)  # fmt: skip
        if h.header_length < 104:
            raise bad("qcow2 header too short", "header_length", 100, h.header_length, "at least 104")
    if h.header_length > cluster_size:
        raise bad("qcow2 header exceeds cluster size", "header_length", 100, h.header_length, cluster_size)
    if h.header_length > 104:
        more = file.read(104, min(h.header_length, file.size) - 104) if file.size > 104 else b""
        more = more.ljust(h.header_length - 104, b"\0")
        h.compression_type = more[0]
        h.tail = more[8:]
    if h.backing_file_offset > cluster_size:
        raise bad("Invalid backing file offset", "backing_file_offset", 8, h.backing_file_offset, cluster_size)
    _read_extensions(file, h)
    _check_compression(h, bad)
    unknown = h.incompatible_features & ~INCOMPAT_KNOWN
    if unknown:
        raise FeatureError(
            "Unsupported qcow2 feature(s): " + ", ".join(_feature_names(h, unknown)), path=path, verbatim=True,
            layer="qcow2 header", field="incompatible_features", offset=72, value=hex(h.incompatible_features),
            limit=hex(INCOMPAT_KNOWN), hint="open it with the program that made it, or a newer one",
        )  # fmt: skip
    if h.refcount_order > 6:
        raise bad(
            "Reference count entry width too large; may not exceed 64 bits", "refcount_order", 96, h.refcount_order, 6
        )
    if h.crypt_method > 2:
        signed = h.crypt_method - (1 << 32) if h.crypt_method >> 31 else h.crypt_method  # as the tools print it
        raise bad(f"Unsupported encryption method {signed}", "crypt_method", 32, h.crypt_method, "0, 1, 2")
    if h.extended_l2 and h.cluster_bits < 14:
        raise bad(
            f"Unsupported subcluster size: {cluster_size // 32}", "cluster_bits", 20, h.cluster_bits, "at least 14"
        )
    if h.refcount_table_clusters == 0 and not check:
        raise bad("Image does not contain a reference count table", "refcount_table_clusters", 56, 0, "at least 1")
    check_table(
        path, cluster_size, h.refcount_table_offset, h.refcount_table_clusters * cluster_size // 8, 8,
        MAX_REFCOUNT_TABLE_BYTES, "Reference count table", "refcount_table", 48,
    )  # fmt: skip
    if not check:  # which looks at it by itself, and tells what is wrong
        check_table(
            path, cluster_size, h.snapshots_offset, h.nb_snapshots, MIN_SNAPSHOT_ENTRY,
            MIN_SNAPSHOT_ENTRY * MAX_SNAPSHOTS, "Snapshot table", "snapshots", 60,
        )  # fmt: skip
    check_table(
        path,
        cluster_size,
        h.l1_table_offset,
        h.l1_size,
        8,
        MAX_L1_BYTES,
        "Active L1 table",
        "l1_table",
        36,
    )
    needed = l1_entries_for(h.size, h.cluster_bits, h.extended_l2)
    span_bits = 2 * h.cluster_bits - (4 if h.extended_l2 else 3)
    if h.size >> 63 and (needed <= 0x7FFFFFFF or h.size + (1 << span_bits) > 1 << 64):
        raise bad("Could not refresh total sector count: File too large", "size", 24, h.size, (1 << 63) - 1)
    if needed > 0x7FFFFFFF:
        raise bad("Image is too big", "size", 24, h.size)
    if h.l1_size < needed:
        raise bad("L1 table is too small", "l1_size", 36, h.l1_size, f"at least {needed} for {h.size} bytes")
    if h.backing_file_offset and name_size:
        limit = min(MAX_BACKING_NAME, cluster_size - h.backing_file_offset)
        if name_size > limit:
            raise bad("Backing file name too long", "backing_file_size", 16, name_size, limit)
        name = _read_padded(file, h.backing_file_offset, name_size)
        h.backing_file = name.split(b"\0")[0].decode("utf-8", "surrogateescape")
    return h


def _check_compression(h: Header, bad: Callable[..., FormatError]) -> None:
    """The compression type and its feature bit must agree."""
    kind, bit = h.compression_type, h.incompatible_features & INCOMPAT_COMPRESSION
    if kind >= len(COMPRESSION_TYPES):
        raise bad(f"qcow2: unknown compression type: {kind}", "compression_type", 104, kind)
    if kind == 0 and bit:
        raise bad("qcow2: Compression type incompatible feature bit must not be set", "compression_type", 104, 0)
    if kind and not bit:
        raise bad("qcow2: Compression type incompatible feature bit must be set", "compression_type", 104, kind)


def l1_entries_for(size: int, cluster_bits: int, extended_l2: bool) -> int:
    """How many L1 entries a disk of ``size`` bytes needs."""
    shift = cluster_bits + cluster_bits - (4 if extended_l2 else 3)
    return (size + (1 << shift) - 1) >> shift


def check_table(
    path: str, cluster_size: int, offset: int, entries: int, entry_size: int, limit: int, name: str, field: str, at: int
) -> None:
    """Bound a table of the image: at most ``limit`` bytes, cluster-aligned, inside 63 bits."""
    if entries > limit // entry_size:
        raise FormatError(
            f"{name} too large", path=path, layer="qcow2 header", field=f"{field} size", offset=at,
            value=f"{entries} entries", limit=f"{limit // entry_size} entries", errno=27,
        )  # fmt: skip
    if (1 << 63) - 1 - entries * entry_size < offset or offset % cluster_size:
        raise FormatError(
            f"{name} offset invalid", path=path, layer="qcow2 header", field=f"{field} offset", offset=at,
            value=hex(offset), limit=f"a multiple of {cluster_size}",
        )  # fmt: skip


def _read_padded(file: Node, offset: int, length: int) -> bytes:
    inside = max(0, min(length, file.size - offset))
    return (file.read(offset, inside) if inside else b"").ljust(length, b"\0")


def _read_extensions(file: Node, h: Header) -> None:
    offset = h.header_length
    end = h.backing_file_offset or h.cluster_size
    area = _read_padded(file, offset, max(0, end - offset))
    position = 0
    while position + 8 <= len(area):
        kind, length = struct.unpack_from(">II", area, position)
        position += 8
        if length > len(area) - position:
            raise FormatError(
                "Header extension too large", path=file.filename, layer="qcow2 header",
                field=f"extension {kind:#x} length", offset=offset + position - 4, value=length,
                limit=len(area) - position,
            )  # fmt: skip
        if kind == EXT_END:
            return
        if kind == EXT_CRYPTO and h.crypt_method != 2:
            raise FormatError(
                "CRYPTO header extension only expected with LUKS encryption method", path=file.filename,
                layer="qcow2 header", field="crypt_method", offset=32, value=h.crypt_method, limit=2,
            )  # fmt: skip
        if kind == EXT_BACKING_FORMAT and length >= 16:
            raise FormatError(
                f"ERROR: ext_backing_format: len={length} too large (>=16)", path=file.filename,
                layer="qcow2 header", field="backing format length", offset=offset + position - 4, value=length,
                limit=15, errno=27,
            )  # fmt: skip
        h.extensions.append((kind, area[position : position + length]))
        position += (length + 7) & ~7


def _feature_names(h: Header, mask: int) -> list[str]:
    table = h.extension(EXT_FEATURE_NAMES) or b""
    names = []
    for start in range(0, len(table) - 47, 48):
        kind, bit = table[start], table[start + 1]
        if kind == 0 and bit < 64 and mask >> bit & 1:
            name = table[start + 2 : start + 48].split(b"\0")[0]
            mask &= ~(1 << bit)
            names.append(name.decode("utf-8", "surrogateescape"))
    if mask:
        names.append(f"Unknown incompatible feature: {mask:x}")
    return names


def c_hex(value: int) -> str:
    """A number as C's ``%#x`` prints it: zero has no prefix."""
    return f"{value:#x}" if value else "0"


def corrupt(path: str, text: str, **facts: Any) -> CorruptError:
    """A CorruptError of the qcow2 layer."""
    return CorruptError(text, path=path, layer="qcow2", **facts)
