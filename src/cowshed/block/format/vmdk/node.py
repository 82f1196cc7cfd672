"""The vmdk driver: a hosted sparse extent with its descriptor inside (monolithicSparse, streamOptimized) as a Node.

Specification: VMware "Virtual Disk Format 5.0". Other files that a descriptor may name as extents are not opened.
"""

from __future__ import annotations

import errno

from ....errors import CorruptError, HostError, UnsupportedError
from ....progress import QUIET
from ...node import COMPRESSED, DATA, HOLE, ZERO, Extent, Node, Placement, space_reused
from . import header as hd
from .descriptor import NO_PARENT, Descriptor, read_descriptor
from .header import SECTOR, SparseHeader, read_header
from .tables import MAX_DIRTY, GrainTables, runs

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

    from ....progress import Progress
    from ...codec import Codec
    from ...facts import CheckResult
    from ...node import Buffer


def open_vmdk(file: Node, options: dict[str, Any], context: Any) -> Node:
    """Open the sparse extent in ``file``. Raises FormatError and its kinds, HostError."""
    node = VmdkNode(file, read_only=not context.writable)
    context.open_backing(node.backing_name, node.backing_format, node)
    return node


class VmdkNode(Node):
    """A disk in one sparse extent.

    ``header``, ``descriptor``: as read. ``tables``: the grain tables. ``cid``: the content ID, which an overlay keeps
    as its parent's. ``cluster_size``: bytes a grain.
    """

    driver = "vmdk"
    is_format = True

    def __init__(self, file: Node, *, read_only: bool) -> None:
        super().__init__(file.filename, read_only)
        self.children["file"] = file
        if not read_only:
            file.extensible = True
        self.header: SparseHeader = read_header(file, writable=not read_only)
        self.descriptor: Descriptor = read_descriptor(file, self.header)
        self.tables = GrainTables(file, self.header)
        self.size = self.header.capacity * SECTOR
        self.cluster_size = self.zero_align = self.header.grain * SECTOR
        self.backing_name = self.descriptor.parent
        self.backing_format = "vmdk" if self.backing_name is not None else None
        #: sector from which the file is free, 0 before the first allocation
        self._next = 0
        #: (sector, grains) that are free inside the file
        self._free: list[tuple[int, int]] = []
        #: (sector, grains, punch) that are free once the grain tables are durable
        self._freed: list[tuple[int, int, bool]] = []
        self._writing = False
        self._parent_known = False
        self._codec: Codec | None = None

    # -- identity -------------------------------------------------------------------------------------------------

    @property
    def cid(self) -> int:
        return self.descriptor.cid

    @property
    def has_zero_init(self) -> bool:  # type: ignore[override]
        return self.backing is None

    @property
    def supports_compressed(self) -> bool:  # type: ignore[override]
        return True

    @property
    def needs_compressed(self) -> bool:  # type: ignore[override]
        return self.header.compressed

    def parent_matches(self) -> bool:
        """Is the backing file what it was when this overlay was made? Asked once, as its own writes will change it."""
        if not self._parent_known:
            backing = self.backing
            if backing is None:
                return True
            self._parent_known = getattr(backing, "cid", None) == self.descriptor.parent_cid
        return self._parent_known

    def _stale_parent(self) -> CorruptError:
        backing = self.backing
        return CorruptError(
            "Invalid argument", path=self.filename, layer="vmdk descriptor", field="parentCID",
            value=f"{self.descriptor.parent_cid:08x}", limit=f"{getattr(backing, 'cid', NO_PARENT):08x}",
            hint=f"'{backing.filename if backing else ''}' was changed after this overlay was made", errno=errno.EINVAL,
        )  # fmt: skip

    # -- mapping --------------------------------------------------------------------------------------------------

    def layer_extents(self, offset: int, length: int) -> Iterator[Extent]:
        end = offset + length
        lost = self.backing is not None and not self.parent_matches()
        for grain, count, kind, sector in self._grain_runs(offset, end):
            low = grain * self.cluster_size
            high = min(end, low + count * self.cluster_size)
            at = max(low, offset)
            if kind == DATA:
                host = sector * SECTOR
                inside = self._grains_inside(host, count)
                if inside < count:
                    # the end of the file is missing: reading must say so, and not make zeroes of it
                    upto = min(high, low + inside * self.cluster_size)
                    if at < upto:
                        yield Extent(at, upto - at, DATA, self.file, host + at - low, 0, self)
                        at = upto
                    if at < high:
                        yield Extent(at, high - at, COMPRESSED, self, at, 0, self)
                else:
                    yield Extent(at, high - at, DATA, self.file, host + at - low, 0, self)
            elif kind == COMPRESSED or (kind == HOLE and lost):
                yield Extent(at, high - at, COMPRESSED, self, at, 0, self)
            else:
                yield Extent(at, high - at, kind, None, -1, 0, self)

    def _grains_inside(self, host: int, count: int) -> int:
        """How many of ``count`` grains from ``host`` on begin before the end of the file."""
        room = self.file.size - host
        return count if room > (count - 1) * self.cluster_size else max(0, -(-room // self.cluster_size))

    def _grain_runs(self, offset: int, end: int) -> Iterator[tuple[int, int, int, int]]:
        """(first grain, how many, kind, sector) of all grains that [offset, end) touches, in order."""
        if offset >= end:
            return
        width = self.tables.width
        first, last = offset // self.cluster_size, (end - 1) // self.cluster_size
        for index, many, table in self.tables.walk(first // width, last // width):
            base = index * width
            low = max(first, base)
            high = min(last + 1, base + many * width)
            if table is None:
                yield low, high - low, HOLE, 0
            else:
                for slot, count, kind, sector in runs(table, low - base, high - base, self.header):
                    yield base + slot, count, kind, sector

    # -- compressed grains ----------------------------------------------------------------------------------------

    def unpack(self, offset: int, view: memoryview) -> None:
        """Inflate guest bytes; also where reads end whose grain or parent is not what it should be."""
        from .stream import GrainReader

        end = offset + len(view)
        reader: GrainReader | None = None
        at = offset
        while at < end:
            grain, skip = divmod(at, self.cluster_size)
            step = min(end - at, self.cluster_size - skip)
            index, slot = divmod(grain, self.tables.width)
            table = self.tables.table(index)
            sector = table[slot] if table is not None else 0
            part = view[at - offset : at - offset + step]
            if not sector and self.backing is not None and not self.parent_matches():
                raise self._stale_parent()
            if not sector or (sector == hd.GTE_ZEROED and self.header.zeroed_grain):
                self.read_into(at, part)
            elif sector * SECTOR >= self.file.size:
                raise self._past_end(at // SECTOR, sector)
            elif not self.header.compressed:
                self.file.read_into(sector * SECTOR + skip, part)
            else:
                if reader is None:
                    reader = GrainReader(self.file, self.header, end - at)
                reader.read_into(sector, skip, part)
            at += step

    def _past_end(self, guest_sector: int, sector: int) -> CorruptError:
        return CorruptError(
            f"ERROR: cluster offset for sector {guest_sector} points after EOF", path=self.filename,
            layer="vmdk grain table", offset=sector * SECTOR, field=f"entry of sector {guest_sector}", value=sector,
            limit=f"{self.file.size // SECTOR} sectors", errno=errno.EIO,
        )  # fmt: skip

    # -- writing --------------------------------------------------------------------------------------------------

    def before_write(self, offset: int, length: int) -> None:
        if self._writing:
            return
        if self.header.from_footer:
            raise UnsupportedError(
                "Cannot write to a stream that is complete", path=self.filename, layer="vmdk", errno=errno.ENOTSUP
            )
        self.tables.prepare_writing()
        # overlays of this disk must see that it changed, before it does
        where, text = self.descriptor.fresh_cid()
        self.file.write(where, text)
        self.file.flush()
        self._writing = True

    def place(self, offset: int, length: int) -> list[Placement]:
        end = offset + length
        result: list[Placement] = []
        new = count_new = 0
        try:
            for grain, count, kind, sector in self._grain_runs(offset, end):
                if kind == DATA:
                    if count_new:
                        self._place_new(result, new, count_new, offset, end)
                        count_new = 0
                    low = grain * self.cluster_size
                    at = max(offset, low)
                    upto = min(end, low + count * self.cluster_size)
                    result.append(Placement(at, upto - at, self.file, sector * SECTOR + at - low))
                else:
                    if not count_new:
                        new = grain
                    count_new += count
            if count_new:
                self._place_new(result, new, count_new, offset, end)
        except BaseException:
            self.unplace(result)
            raise
        return result

    def _place_new(self, result: list[Placement], grain: int, count: int, offset: int, end: int) -> None:
        """Add placements for ``count`` new grains, of which [offset, end) is going to be written."""
        if self.backing is not None and not self.parent_matches():
            raise self._stale_parent()
        while count:
            sector, many = self._take(count)
            low = grain * self.cluster_size
            high = low + many * self.cluster_size
            at, upto = max(offset, low), min(end, high)
            result.append(
                Placement(
                    at, upto - at, self.file, sector * SECTOR + at - low,
                    head=at - low, tail=high - upto, fresh=True, token=(grain, many, sector),
                )
            )  # fmt: skip
            grain += many
            count -= many

    def _take(self, count: int) -> tuple[int, int]:
        """Room for up to ``count`` grains: (sector, how many)."""
        if self._free:
            sector, many = self._free.pop()
            if many > count:
                self._free.append((sector + count * self.header.grain, many - count))
                many = count
            return sector, many
        sector = self._free_sector()
        self._advance(sector + count * self.header.grain)
        return sector, count

    def _free_sector(self) -> int:
        """The first sector of the file that is free to its end, on a grain's boundary."""
        if not self._next:
            used = max(self.header.overhead, -(-self.file.size // SECTOR))
            self._next = self._round(used)
        return self._next

    def _round(self, sector: int) -> int:
        grain = self.header.grain
        return -(-sector // grain) * grain

    def _advance(self, sector: int) -> None:
        if sector > 1 << 32:
            # entries of grain tables have 32 bits
            raise HostError(
                "File too large", path=self.filename, layer="vmdk", field="grain table entry", value=sector,
                limit=0xFFFFFFFF, errno=errno.EFBIG,
            )  # fmt: skip
        self._next = sector

    def link(self, placements: list[Placement]) -> None:
        for placement in placements:
            if placement.fresh:
                grain, many, sector = self._token(placement)
                self.tables.set_run(grain, many, sector, self.header.grain)
        if self.tables.dirty > MAX_DIRTY:
            self._commit()

    @staticmethod
    def _token(placement: Placement) -> tuple[int, int, int]:
        """(first grain, how many, sector) of a placement of new grains."""
        token = placement.token
        assert isinstance(token, tuple)
        return token

    def unplace(self, placements: list[Placement]) -> None:
        for placement in placements:
            if placement.fresh:
                _, many, sector = self._token(placement)
                self._free.append((sector, many))

    def zero_range(self, offset: int, length: int, unmap: bool) -> bool:
        if self.header.zeroed_grain:
            if self.backing is not None and not self.parent_matches():
                raise self._stale_parent()
            self._drop(offset, offset + length, hd.GTE_ZEROED, unmap)
            return True
        if unmap and self.backing is None and not self.header.compressed:
            self._drop(offset, offset + length, 0, True)
            return True
        return False

    def discard_range(self, offset: int, length: int) -> None:
        if self.header.compressed:
            return
        if self.backing is None:
            self._drop(offset, offset + length, 0, True)
        elif self.header.zeroed_grain and self.parent_matches():
            self._drop(offset, offset + length, hd.GTE_ZEROED, True)

    def _drop(self, offset: int, end: int, value: int, punch: bool) -> None:
        """Give all grains of [offset, end) the entry ``value`` (0 or GTE_ZEROED) and their room back."""
        for grain, count, kind, sector in list(self._grain_runs(offset, end)):
            if (kind == HOLE and not value) or (kind == ZERO and value):
                continue
            if kind == DATA:
                self._freed.append((sector, self._grains_inside(sector * SECTOR, count), punch))
            self.tables.set_run(grain, count, value, 0)
        if self.tables.dirty > MAX_DIRTY:
            self._commit()

    def write(self, offset: int, data: Buffer) -> None:
        if not self.header.compressed:
            super().write(offset, data)
            return
        self._check_write(offset, len(data))
        view = memoryview(data).cast("B")
        size = self.cluster_size
        end = offset + len(view)
        if offset % size or (end % size and end != self.size):
            raise UnsupportedError(
                "Only whole clusters can be written to streamOptimized", path=self.filename, layer="vmdk",
                offset=offset, errno=errno.EINVAL,
            )  # fmt: skip
        step = max(1, (1 << 20) // size) * size
        for start in range(0, len(view), step):
            stop = min(len(view), start + step)
            pack = self.codec.compress
            run = [(offset + at, pack(view[at : at + size], size) or b"") for at in range(start, stop, size)]
            self.write_packed(run)

    def write_compressed(self, offset: int, data: Buffer, packed: bytes | None = None) -> None:
        """As `write`: grains are compressed in the subformat that has it so, and never in others."""
        if packed is not None and self.header.compressed:
            self.write_packed([(offset, packed)])
        else:
            self.write(offset, data)

    @property
    def codec(self) -> Codec:
        """Packs whole grains for `write_packed`."""
        if self._codec is None:
            from .stream import GrainPacker, NoPacker

            self._codec = GrainPacker() if self.header.compressed else NoPacker()
        return self._codec

    def write_packed(self, run: list[tuple[int, bytes]]) -> None:
        """Append grains that `codec` has compressed: (guest offset, bytes). Each grain can be written once."""
        from .stream import lay_out

        size = self.cluster_size
        for offset, _ in run:
            self._check_write(offset, min(size, self.size - offset))
        with self.lock:
            self.before_write(run[0][0], size)
            for offset, _ in run:
                for _, _, kind, _ in self._grain_runs(offset, offset + 1):
                    if kind == COMPRESSED:
                        raise UnsupportedError(
                            "Could not write to allocated cluster for streamOptimized", path=self.filename,
                            layer="vmdk", offset=offset, errno=errno.EIO,
                        )  # fmt: skip
            sector = -(-max(self.header.overhead * SECTOR, self.file.size) // SECTOR)
            sectors, raw = lay_out(run, sector, self.header)
            self._advance(sector + len(raw) // SECTOR)
            self.file.write(sector * SECTOR, raw)
            for (offset, _), where in zip(run, sectors, strict=True):
                self.tables.set_run(offset // size, 1, where, 0)
            if self.tables.dirty > MAX_DIRTY:
                self._commit()

    # -- durability -----------------------------------------------------------------------------------------------

    def _commit(self) -> None:
        """Write the grain tables in an order that survives a power cut: data, new tables, entries, reuse of room."""
        tables = self.tables
        if not tables.dirty and not self._freed:
            return
        self.file.flush()
        if tables.missing():
            self._advance(self._round(tables.write_missing(self._free_sector())))
            self.file.flush()
            tables.write_directories()
        tables.write_dirty()
        if self._freed:
            self.file.flush()
            space_reused()
            for sector, count, punch in self._freed:
                if punch and count:
                    self.file.discard(sector * SECTOR, count * self.cluster_size)
                if count:
                    self._free.append((sector, count))
            self._freed.clear()

    def flush(self) -> None:
        if self.read_only:
            return
        with self.lock:
            self._commit()
            self.file.flush()

    def shutdown(self) -> None:
        self.flush()

    # -- facts ----------------------------------------------------------------------------------------------------

    def check(self, fix: frozenset[str] = frozenset(), progress: Progress = QUIET) -> CheckResult:
        """Look for grains that lie outside the file; the first ends the check (``error`` of the result)."""
        from ...facts import CheckResult

        if fix:
            raise self._cannot("This image format does not support checks")
        tables, width, end = self.tables, self.tables.width, self.file.size
        grains = -(-self.size // self.cluster_size)
        result = CheckResult()
        progress.start(grains)
        index = 0
        try:
            for index, many, table in tables.walk(0, len(tables.directory) - 1):
                base = index * width
                if table is not None:
                    used = min(width, grains - base)
                    if max(table[:used]) * SECTOR >= end:
                        self._check_table(table, base, used)
                progress.at(min(grains, base + many * width))
        except CorruptError as error:
            if error.layer != "vmdk grain table":
                number = index * self.header.table_span
                error.message = f"ERROR: could not get cluster_offset for sector {number}"
                error.errno = errno.EPERM
            result.tell(error.message)
            result.error = error
        return result

    def _check_table(self, table: Any, base: int, used: int) -> None:
        for slot in range(used):
            sector = table[slot]
            if sector * SECTOR >= self.file.size and not (sector == hd.GTE_ZEROED and self.header.zeroed_grain):
                error = self._past_end((base + slot) * self.header.grain, sector)
                error.errno = errno.EINVAL
                raise error

    def format_specific(self) -> dict[str, Any] | None:
        extent: dict[str, Any] = {
            "filename": self.file.filename,
            "format": "",
            "virtual-size": self.size,
            "cluster-size": self.cluster_size,
        }
        if self.header.compressed:
            extent["compressed"] = True
        return {
            "type": "vmdk",
            "data": {
                "create-type": self.descriptor.create_type,
                "cid": self.descriptor.cid,
                "parent-cid": self.descriptor.parent_cid,
                "extents": [extent],
            },
        }
