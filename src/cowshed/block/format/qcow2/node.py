"""The qcow2 driver: an open image as a Node. Mapping and reading; the write side is in ``write.py``.

Specification: QEMU docs/interop/qcow2.txt.
"""

from __future__ import annotations

import sys
from array import array

from ....errors import CorruptError, CowshedError
from ....progress import QUIET
from ...node import COMPRESSED, DATA, HOLE, ZERO, Extent, Node
from . import header as hd
from .l2 import COMPRESSED_FLAG, L1_OFFSET_MASK, L2Table, runs, runs_of_table, subcluster_runs

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Any

    from ....progress import Progress
    from ...codec import Codec
    from ...facts import Bitmap, CheckResult, Snapshot

_SWAP = sys.byteorder == "little"

#: no file is longer than this
MAX_OFFSET = 0x7FFFFFFFC0000000
#: bytes of clean L2 tables kept in memory
CACHE_BYTES = 32 << 20
#: requests that cover this many L2 tables walk them without caching, vectorised
BULK_TABLES = 32


class Qcow2Map(Node):
    """The read side of a qcow2 disk: L1 and L2 tables, extents, compressed clusters.

    ``header``: the parsed header. ``data``: the node that holds guest clusters (the file, or the external data
    file). ``l1``: the active L1 table in host byte order.
    """

    driver = "qcow2"
    is_format = True
    has_zero_init = True

    def __init__(self, file: Node, header: hd.Header, *, read_only: bool) -> None:
        super().__init__(file.filename, read_only)
        self.children["file"] = file
        self.header = header
        self.cluster_bits = header.cluster_bits
        self.cluster_size = 1 << header.cluster_bits
        self.extended = header.extended_l2
        self.entry_words = 2 if self.extended else 1
        self.l2_bits = self.cluster_bits - (4 if self.extended else 3)
        self.l2_entries = 1 << self.l2_bits
        #: guest bytes that one L2 table maps
        self.l2_span = self.cluster_size << self.l2_bits
        self.sub_bits = self.cluster_bits - 5 if self.extended else self.cluster_bits
        self.zero_align = 1 << self.sub_bits
        self.zeroes_hide_backing = header.version >= 3
        self.max_clusters = 1 << (56 - self.cluster_bits)
        self.size = header.size // 512 * 512  # guests see whole sectors
        self.has_data_file = bool(header.incompatible_features & hd.INCOMPAT_DATA_FILE)
        self.data_file_raw = self.has_data_file and bool(header.autoclear_features & hd.AUTOCLEAR_DATA_FILE_RAW)
        self.l1: array[int] = array("Q")
        self.l2: dict[int, L2Table] = {}
        self.l2_keep = max(4, CACHE_BYTES >> self.cluster_bits)
        #: host clusters that hold metadata, filled when the write side first needs it
        self.metadata_clusters: set[int] = set()
        self._codec: Codec | None = None
        self._sparse: bool | None = None
        self.signalled_corruption = False
        #: hears of corruption, in the words that people look for
        self.warn: Callable[[str], None] = _silent

    @property
    def data(self) -> Node:
        return self.children.get("data-file") or self.children["file"]

    @property
    def supports_compressed(self) -> bool:  # type: ignore[override]
        return not self.has_data_file

    @property
    def supports_bitmaps(self) -> bool:  # type: ignore[override]
        return self.header.version >= 3

    # -- tables ---------------------------------------------------------------------------------------------------

    def read_table(self, offset: int, entries: int) -> array[int]:
        """``entries`` big-endian 64-bit words from ``offset`` of the file; zeroes past its end."""
        file = self.file
        inside = max(0, min(entries * 8, file.size - offset))
        table = array("Q", (file.read(offset, inside) if inside else b"").ljust(entries * 8, b"\0"))
        if _SWAP:
            table.byteswap()
        return table

    def write_table(self, offset: int, table: array[int]) -> None:
        """Write big-endian 64-bit words at ``offset`` of the file."""
        if _SWAP:
            table = table[:]
            table.byteswap()
        self.file.write(offset, table.tobytes())

    def write_table_entries(self, offset: int, table: array[int], indexes: set[int]) -> None:
        """Write the 512-byte sectors of a table that hold the entries ``indexes``."""
        sectors = sorted({index // 64 for index in indexes})
        while sectors:
            first = last = sectors[0]
            taken = 1
            while taken < len(sectors) and sectors[taken] == last + 1:
                last += 1
                taken += 1
            del sectors[:taken]
            self.write_table(offset + first * 512, table[first * 64 : (last + 1) * 64])

    def l2_offset(self, index: int) -> int:
        """Where L1 entry ``index`` points to; 0 for no table. Raises CorruptError when unaligned."""
        offset = self.l1[index] & L1_OFFSET_MASK if index < len(self.l1) else 0
        if offset & (self.cluster_size - 1):
            raise self.corruption(
                f"L2 table offset {offset:#x} unaligned (L1 index: {hd.c_hex(index)})",
                field=f"l1_table[{index}]",
                value=hex(offset),
            )
        return offset

    def l2_table(self, index: int) -> L2Table | None:
        """The L2 table that L1 entry ``index`` points to, from the cache or the file."""
        table = self.l2.get(index)
        if table is not None:
            return table
        with self.lock:  # what the L1 table says may be over when the lock is had
            table = self.l2.get(index)
            if table is None:
                offset = self.l2_offset(index)
                if offset == 0:
                    return None
                if len(self.l2) >= self.l2_keep:
                    self.evict_l2()
                table = L2Table(offset, self.read_table(offset, self.cluster_size // 8))
                self.l2[index] = table
        return table

    def evict_l2(self) -> None:
        """Forget the older half of the clean tables."""
        clean = [index for index, table in self.l2.items() if not table.dirty]
        for index in clean[: len(clean) // 2 + 1]:
            del self.l2[index]

    def corruption(self, text: str, **facts: Any) -> CorruptError:
        """The error for metadata that contradicts itself; says so once (the write side also marks the image)."""
        if not self.signalled_corruption:
            self.signalled_corruption = True
            self.warn(f"qcow2: Image is corrupt: {text}; further non-fatal corruption events will be suppressed")
        return hd.corrupt(self.filename, "Input/output error", hint=text, **facts)

    # -- mapping --------------------------------------------------------------------------------------------------

    def layer_extents(self, offset: int, length: int) -> Iterator[Extent]:
        end = offset + length
        bulk = length >= BULK_TABLES * self.l2_span and not self.extended
        while offset < end:
            index = offset // self.l2_span
            l1 = self.l1  # another may take its place
            if index >= len(l1) or not l1[index] & L1_OFFSET_MASK:
                stop = index + 1
                last = min((end - 1) // self.l2_span, len(l1) - 1)
                while stop <= last and not l1[stop] & L1_OFFSET_MASK:
                    stop += 1
                upto = end if stop >= len(l1) else min(end, stop * self.l2_span)
                yield Extent(offset, upto - offset, HOLE, None, -1, 0, self)
                offset = upto
                continue
            upto = min(end, (index + 1) * self.l2_span)
            if self.extended:
                yield from self._extended_extents(index, offset, upto)
            else:
                yield from self._standard_extents(index, offset, upto, bulk)
            offset = upto

    def _standard_extents(self, index: int, offset: int, end: int, bulk: bool) -> Iterator[Extent]:
        """Extents of [offset, end), all mapped by L2 table ``index``."""
        size, cluster_bits = self.cluster_size, self.cluster_bits
        base = index * self.l2_span
        first = (offset - base) >> cluster_bits
        if bulk and offset == base and end - offset == self.l2_span and index not in self.l2:
            with self.lock:  # the table may move
                where = self.l2_offset(index)
                inside = max(0, min(size, self.file.size - where)) if where else 0
                raw = self.file.read(where, inside).ljust(size, b"\0")
            pieces = runs_of_table(raw, size, self.has_data_file)
        else:
            table = self.l2_table(index)
            if table is None:  # gone meanwhile
                yield Extent(offset, end - offset, HOLE, None, -1, 0, self)
                return
            last = (end - 1 - base) >> cluster_bits
            pieces = runs(table.entries[first : last + 1], size, self.has_data_file)
        data = self.data
        start = base + (first << cluster_bits)
        for at, count, kind, host in pieces:
            low = start + (at << cluster_bits)
            high = low + (count << cluster_bits)
            if kind == COMPRESSED:
                node: Node | None = self
                host = low
            elif host >= 0:
                node = data
                if host & (size - 1):
                    raise self._unaligned(host, index, first + at, kind)
            else:
                node = None
            if kind == ZERO and self.header.version < 3:
                raise self.corruption(
                    f"Zero cluster entry found in pre-v3 image (L2 offset: {self.l2_offset(index):#x}, "
                    f"L2 index: {hd.c_hex(first + at)})",
                    field=f"l2_table[{first + at}]",
                    value="zero flag set",
                )
            if low < offset:
                if host >= 0:
                    host += offset - low
                low = offset
            if high > end:
                high = end
            yield Extent(low, high - low, kind, node, host, 0, self)

    def _extended_extents(self, index: int, offset: int, end: int) -> Iterator[Extent]:
        size, cluster_bits, sub_bits = self.cluster_size, self.cluster_bits, self.sub_bits
        base = index * self.l2_span
        first = (offset - base) >> cluster_bits
        last = (end - 1 - base) >> cluster_bits
        table = self.l2_table(index)
        if table is None:  # gone meanwhile
            yield Extent(offset, end - offset, HOLE, None, -1, 0, self)
            return
        entries = table.entries[2 * first : 2 * (last + 1)]
        data = self.data
        if not any(entries):
            yield Extent(offset, end - offset, HOLE, None, -1, 0, self)
            return
        for number in range(last - first + 1):
            entry, bitmap = entries[2 * number], entries[2 * number + 1]
            cluster = base + ((first + number) << cluster_bits)
            try:
                pieces = list(subcluster_runs(entry, bitmap, self.has_data_file))
            except ValueError:
                raise self.corruption(
                    f"Invalid cluster entry found  (L2 offset: {table.offset:#x}, "
                    f"L2 index: {hd.c_hex(first + number)})",
                    field=f"l2_table[{first + number}]",
                    value=f"{entry:#x}, {bitmap:#x}",
                ) from None
            for at, count, kind, host in pieces:
                low = cluster + (at << sub_bits)
                high = low + (count << sub_bits)
                node: Node | None = None
                if kind == COMPRESSED:
                    node, host = self, low
                elif host >= 0:
                    if host & (size - 1):
                        raise self._unaligned(host, index, first + number, kind)
                    node = data
                    host += at << sub_bits
                if high <= offset or low >= end:
                    continue
                if low < offset:
                    if host >= 0:
                        host += offset - low
                    low = offset
                high = min(high, end)
                yield Extent(low, high - low, kind, node, host, 0, self)

    def _unaligned(self, host: int, l1_index: int, l2_index: int, kind: int) -> CorruptError:
        return self.corruption(
            f"Cluster allocation offset {host:#x} unaligned (L2 offset: {self.l1[l1_index] & L1_OFFSET_MASK:#x}, "
            f"L2 index: {hd.c_hex(l2_index)})",
            field=f"l2_table[{l2_index}]",
            value=hex(host),
            limit=f"a multiple of {self.cluster_size}",
        )

    def _chain_extents(self, offset: int, length: int) -> Iterator[Extent]:
        """As for every node; data of an image with preallocated metadata is looked up in its file, which has holes."""
        if not self.sparse_data():
            yield from super()._chain_extents(offset, length)
            return
        for extent in super()._chain_extents(offset, length):
            node = extent.node
            if extent.kind != DATA or node is None or extent.depth:
                yield extent
                continue
            shift = extent.offset - extent.host_offset
            inside = max(0, min(extent.length, node.size - extent.host_offset))
            if inside:
                for below in node.layer_extents(extent.host_offset, inside):
                    sparse = below.kind == ZERO
                    yield Extent(below.offset + shift, below.length, below.kind, node, below.offset, 0, self, sparse)
            if inside < extent.length:
                at = extent.offset + inside
                yield Extent(at, extent.length - inside, ZERO, node, extent.host_offset + inside, 0, self, True)

    def sparse_data(self) -> bool:
        """Does the file take much less space than its clusters would, as after preallocation=metadata?

        It does when more clusters have references than 10/9 of those that the file has space for.
        """
        if self._sparse is None:
            node = self.data
            taken = node.allocated_bytes()
            self._sparse = False
            if taken is not None and not node.is_format and not self.has_data_file:
                room = taken >> self.cluster_bits
                self._sparse = self._has_references(max(room * 10 // 9, room + 2))
        return self._sparse

    def _has_references(self, wanted: int) -> bool:
        """Have at least ``wanted`` host clusters references? Looks at no more refcount blocks than it must."""
        if self.file.size >> self.cluster_bits < wanted - 1:
            return False
        from .refcounts import OFFSET_MASK, decode_block

        header = self.header
        bits = header.refcount_bits
        entries = header.refcount_table_clusters * self.cluster_size // 8
        # what has counts lies in the file, and no block serves twice
        per_block = self.cluster_size * 8 // bits
        entries = min(entries, (self.file.size >> self.cluster_bits) // per_block + 1)
        for offset in dict.fromkeys(
            entry & OFFSET_MASK for entry in self.read_table(header.refcount_table_offset, entries)
        ):
            if offset and not offset & (self.cluster_size - 1) and offset < self.file.size:
                data = self.file.read(offset, min(self.cluster_size, self.file.size - offset))
                counts = decode_block(data[: len(data) // 8 * 8], bits)
                wanted -= len(counts) - counts.count(0)
                if wanted <= 0:
                    return True
        return False

    # -- compressed clusters --------------------------------------------------------------------------------------

    @property
    def codec(self) -> Codec:
        """Packs and unpacks this image's compressed clusters."""
        if self._codec is None:
            from ...codec import codec

            self._codec = codec(hd.COMPRESSION_TYPES[self.header.compression_type])
        return self._codec

    def compressed_location(self, entry: int) -> tuple[int, int]:
        """(host offset, bytes at most) of the compressed data that an L2 entry points to."""
        shift = 62 - (self.cluster_bits - 8)
        offset = entry & ((1 << shift) - 1)
        sectors = ((entry >> shift) & ((1 << (self.cluster_bits - 8)) - 1)) + 1
        return offset, sectors * 512 - (offset & 511)

    def unpack(self, offset: int, view: memoryview) -> None:
        """Decompress guest bytes from ``offset``; neighbours on disk are fetched together."""
        size = self.cluster_size
        end = offset + len(view)
        todo: list[tuple[int, int, int]] = []
        for cluster in range(offset // size, (end - 1) // size + 1):
            index, slot = divmod(cluster, self.l2_entries)
            table = self.l2_table(index)
            entry = table.entries[slot * self.entry_words] if table is not None else 0
            if not entry & COMPRESSED_FLAG:  # rewritten meanwhile
                low, high = max(offset, cluster * size), min(end, (cluster + 1) * size)
                self.read_into(low, view[low - offset : high - offset])
                continue
            where, length = self.compressed_location(entry)
            todo.append((cluster, where, length))
        from ...codec import CodecError

        start = 0
        while start < len(todo):
            low = todo[start][1]
            high = low + todo[start][2]
            stop = start + 1
            while (
                stop < len(todo)
                and low <= todo[stop][1] <= high + 4096
                and todo[stop][1] + todo[stop][2] - low <= 4 << 20
            ):
                high = max(high, todo[stop][1] + todo[stop][2])
                stop += 1
            buffer = memoryview(bytearray(high - low))
            self.file.read_into(low, buffer)
            for cluster, where, length in todo[start:stop]:
                try:
                    plain = self.codec.decompress(buffer[where - low : where - low + length], size)
                except CodecError as error:
                    raise hd.corrupt(
                        self.filename,
                        "Input/output error",
                        offset=where,
                        field=f"compressed cluster for guest offset {cluster * size}",
                        value=str(error),
                    ) from error
                begin = cluster * size
                if begin >= offset and begin + size <= end:
                    view[begin - offset : begin - offset + size] = plain
                else:
                    a, b = max(begin, offset), min(begin + size, end)
                    view[a - offset : b - offset] = memoryview(plain)[a - begin : b - begin]
            start = stop

    # -- snapshots ------------------------------------------------------------------------------------------------

    def check(self, fix: frozenset[str] = frozenset(), progress: Progress = QUIET) -> CheckResult:
        """Check all metadata (see ``check.py``)."""
        from .check import check_image

        return check_image(self, fix, progress)

    def snapshots(self) -> list[Snapshot]:
        if not self.header.nb_snapshots:
            return []
        from .snapshot import load

        return list(load(self))

    def snapshot_view(self, ref: str) -> Node:
        from .snapshot import view

        return view(self, ref)

    def bitmaps(self) -> list[Bitmap]:
        if self.header.extension(hd.EXT_BITMAPS) is None or not self.header.autoclear_features & hd.AUTOCLEAR_BITMAPS:
            return []
        from .bitmap import Directory

        return [entry.facts() for entry in Directory.load(self).entries]

    # -- facts ----------------------------------------------------------------------------------------------------

    def format_specific(self) -> dict[str, Any]:
        """``info``'s format-specific data under qemu's JSON names."""
        header = self.header
        data: dict[str, Any] = {}
        if header.version < 3:
            data["compat"] = "0.10"
            data["compression-type"] = "zlib"
            data["refcount-bits"] = header.refcount_bits
        else:
            data["compat"] = "1.1"
            data["compression-type"] = hd.COMPRESSION_TYPES[header.compression_type]
            data["lazy-refcounts"] = bool(header.compatible_features & hd.COMPAT_LAZY_REFCOUNTS)
            data["refcount-bits"] = header.refcount_bits
            bitmaps = self.bitmaps()
            if bitmaps:
                data["bitmaps"] = [
                    {"flags": list(item.flags), "name": item.name, "granularity": item.granularity} for item in bitmaps
                ]
            data["corrupt"] = bool(header.incompatible_features & hd.INCOMPAT_CORRUPT)
            data["extended-l2"] = self.extended
            if header.data_file is not None:
                data["data-file"] = header.data_file
            if self.has_data_file:
                data["data-file-raw"] = self.data_file_raw
        if header.crypt_method:
            data["encrypt"] = {"format": "aes" if header.crypt_method == 1 else "luks"}
        return {"type": "qcow2", "data": data}

    @property
    def encrypted(self) -> bool:
        return bool(self.header.crypt_method)

    @property
    def dirty_flag(self) -> bool:
        return bool(self.header.incompatible_features & hd.INCOMPAT_DIRTY)

    def load_l1(self) -> None:
        """Read the active L1 table. Raises HostError."""
        header = self.header
        if header.l1_table_offset + header.l1_size * 8 > MAX_OFFSET:
            raise hd.corrupt(
                self.filename, "Could not read L1 table: Input/output error", field="l1_table_offset",
                value=hex(header.l1_table_offset), limit=hex(MAX_OFFSET), offset=40,
            )  # fmt: skip
        try:
            self.l1 = self.read_table(self.header.l1_table_offset, self.header.l1_size)
        except CowshedError as error:
            raise hd.corrupt(self.filename, "Could not read L1 table", offset=self.header.l1_table_offset) from error


def _silent(text: str) -> None:
    """Nobody listens."""
