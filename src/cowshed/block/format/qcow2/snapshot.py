"""Internal snapshots: the snapshot table, and creating, applying, deleting and viewing snapshots.

Specification: qcow2.txt, "Snapshots". Changes go through `Rebuild`: one header write switches to the new state.
"""

from __future__ import annotations

import struct
import time
from array import array

from ....errors import CowshedError, FormatError, UnsupportedError
from ...facts import Snapshot
from . import header as hd
from .l2 import L1_OFFSET_MASK
from .node import Qcow2Map
from .rebuild import Rebuild

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .write import Qcow2Node

ENTRY = struct.Struct(">QIHHIIQII")
MAX_EXTRA = 1024
#: bytes of a new snapshot's name; the field's tools cut it there
MAX_NAME = 255


class Record(Snapshot):
    """A snapshot with what its table entry holds besides: its L1 table and extra data."""

    __slots__ = ("extra_tail", "l1_offset", "l1_size", "short_extra")

    def __init__(self, id: str, name: str, l1_offset: int, l1_size: int) -> None:
        super().__init__(id, name)
        self.l1_offset = l1_offset
        self.l1_size = l1_size
        #: extra data past the fields known here
        self.extra_tail = b""
        #: bytes of known extra data that the entry had (16 are required in version 3)
        self.short_extra = 24

    def encode(self) -> bytes:
        """The table entry, padded to 8 bytes."""
        id_bytes = self.id.encode("utf-8", "surrogateescape")
        name_bytes = self.name.encode("utf-8", "surrogateescape")
        extra = struct.pack(">QQ", self.vm_state_size, self.disk_size)
        extra += struct.pack(">Q", (1 << 64) - 1 if self.icount is None else self.icount)
        extra += self.extra_tail
        entry = ENTRY.pack(
            self.l1_offset, self.l1_size, len(id_bytes), len(name_bytes), self.date_sec, self.date_nsec,
            self.vm_clock_nsec, self.vm_state_size if self.vm_state_size <= 0xFFFFFFFF else 0, len(extra),
        )  # fmt: skip
        data = entry + extra + id_bytes + name_bytes
        return data + bytes(-len(data) % 8)


def load(image: Qcow2Map) -> list[Record]:
    """The snapshot table. Raises FormatError for an entry that breaks its bounds."""
    return _load(image)[0]


def _load(image: Qcow2Map) -> tuple[list[Record], int]:
    """The records, and the table's length in bytes."""
    header = image.header
    file = image.file
    records: list[Record] = []
    offset = start = header.snapshots_offset

    def get(length: int) -> bytes:
        nonlocal offset
        inside = max(0, min(length, file.size - offset))
        data = (file.read(offset, inside) if inside else b"").ljust(length, b"\0")
        offset += length
        return data

    def bad(text: str, field: str, value: object, limit: object = None) -> FormatError:
        return FormatError(
            text, path=image.filename, layer="qcow2 snapshot table", field=field, offset=offset, value=value,
            limit=limit, errno=27,
        )  # fmt: skip

    for number in range(header.nb_snapshots):
        offset = (offset + 7) & ~7
        l1_offset, l1_size, id_size, name_size, sec, nsec, clock, state, extra_size = ENTRY.unpack(get(ENTRY.size))
        record = Record("", "", l1_offset, l1_size)
        record.date_sec, record.date_nsec, record.vm_clock_nsec = sec, nsec, clock
        record.vm_state_size = state
        if extra_size > MAX_EXTRA:
            error = bad(
                f"Too much extra metadata in snapshot table entry {number}", "extra_data_size", extra_size, MAX_EXTRA
            )
            error.hint = "You can force-remove this extra metadata with qemu-img check -r all\n"
            raise error
        extra = get(extra_size)
        record.short_extra = extra_size
        record.vm_state_size = struct.unpack_from(">Q", extra)[0] if extra_size >= 8 else state
        record.disk_size = struct.unpack_from(">Q", extra, 8)[0] if extra_size >= 16 else image.header.size
        if extra_size >= 24:
            icount = struct.unpack_from(">Q", extra, 16)[0]
            record.icount = None if icount == (1 << 64) - 1 else icount
        record.extra_tail = extra[24:]
        # names are C strings to everybody who prints them
        record.id = get(id_size).split(b"\0")[0].decode("utf-8", "surrogateescape")
        record.name = get(name_size).split(b"\0")[0].decode("utf-8", "surrogateescape")
        if offset - start > hd.MAX_SNAPSHOT_TABLE_BYTES:
            raise bad("Snapshot table is too big", "snapshot table", offset - start, hd.MAX_SNAPSHOT_TABLE_BYTES)
        records.append(record)
    return records, offset - start


def table_area(image: Qcow2Map) -> list[tuple[int, int]]:
    """(offset, length) of the snapshot table and of every snapshot's L1 table: metadata that writes must not touch."""
    records, length = _load(image)
    areas = [(image.header.snapshots_offset, length)]
    areas += [(record.l1_offset, record.l1_size * 8) for record in records]
    return areas


def find(records: list[Record], ref: str) -> Record | None:
    """The snapshot with the id ``ref``, else the first with that name."""
    for record in records:
        if record.id == ref:
            return record
    for record in records:
        if record.name == ref:
            return record
    return None


def find_or_raise(image: Qcow2Map, records: list[Record], ref: str) -> Record:
    record = find(records, ref)
    if record is None:
        raise CowshedError(
            f"Can't find the snapshot '{ref}'", path=image.filename, layer="qcow2", field="snapshot",
            value=ref, errno=2, hint="list the snapshots with snapshot -l",
        )  # fmt: skip
    return record


def l1_of(image: Qcow2Map, record: Record) -> array[int]:
    """A snapshot's L1 table. Raises FormatError when its place or size is impossible."""
    hd.check_table(
        image.filename, image.cluster_size, record.l1_offset, record.l1_size, 8, hd.MAX_L1_BYTES,
        "Snapshot L1 table", "snapshot l1_table", image.header.snapshots_offset,
    )  # fmt: skip
    return image.read_table(record.l1_offset, record.l1_size)


def _refuse_data_file(image: Qcow2Map) -> None:
    if image.has_data_file:
        raise UnsupportedError("Operation not supported", path=image.filename, layer="qcow2", field="data file")


def _is_number(id: str) -> bool:
    """Is it an id as the tools give them? Longer ones count for nothing (and take long to read)."""
    return id.isascii() and id.isdigit() and len(id) < 20


def _stripped(l1: array[int]) -> array[int]:
    """An L1 table without COPIED flags, as snapshots keep theirs."""
    return array("Q", [entry & L1_OFFSET_MASK for entry in l1])


def _put_snapshot_table(rebuild: Rebuild, records: list[Record]) -> int:
    data = b"".join(record.encode() for record in records)
    return rebuild.put_bytes(data) if data else 0


def create(image: Qcow2Node, name: str, *, now: float | None = None) -> Record:
    """Take a snapshot of the disk as it is. Raises FormatError when a cluster can't be shared once more."""
    _refuse_data_file(image)
    records, table_length = _load(image)
    if len(records) >= hd.MAX_SNAPSHOTS:
        raise CowshedError("File too large", path=image.filename, layer="qcow2", errno=27)
    number = max((int(record.id) for record in records if _is_number(record.id)), default=0)
    stamp = time.time() if now is None else now
    rebuild = Rebuild(image)
    header = image.header
    name = name.encode("utf-8", "surrogateescape")[:MAX_NAME].decode("utf-8", "surrogateescape")
    record = Record(str(number + 1), name, 0, len(image.l1))
    record.date_sec = int(stamp)
    record.date_nsec = int((stamp - int(stamp)) * 1e9)
    record.disk_size = image.size
    record.icount = 0  # as the field's tools write it for a machine that was not running
    rebuild.add_tree(image.l1, 1)
    frozen = _stripped(image.l1)
    active = rebuild.fix_flags(image.l1, (frozen,))
    record.l1_offset = rebuild.put_table(frozen)
    rebuild.free_area(header.l1_table_offset, header.l1_size * 8)
    active_offset = rebuild.put_table(active)
    rebuild.free_area(header.snapshots_offset, table_length)
    table_offset = _put_snapshot_table(rebuild, [*records, record])

    def switch() -> None:
        header.l1_table_offset = active_offset
        header.snapshots_offset = table_offset
        header.nb_snapshots = len(records) + 1

    rebuild.finish(switch)
    return record


def delete(image: Qcow2Node, ref: str) -> None:
    """Forget a snapshot and give back what only it used. Raises CowshedError when there is none of that id or name."""
    records, table_length = _load(image)
    record = find_or_raise(image, records, ref)
    left = [other for other in records if other is not record]
    rebuild = Rebuild(image)
    header = image.header
    rebuild.add_tree(l1_of(image, record), -1)
    rebuild.free_area(record.l1_offset, record.l1_size * 8)
    active = rebuild.fix_flags(image.l1)
    rebuild.free_area(header.l1_table_offset, header.l1_size * 8)
    active_offset = rebuild.put_table(active)
    rebuild.free_area(header.snapshots_offset, table_length)
    table_offset = _put_snapshot_table(rebuild, left)

    def switch() -> None:
        header.l1_table_offset = active_offset
        header.snapshots_offset = table_offset
        header.nb_snapshots = len(left)

    rebuild.finish(switch)


def apply(image: Qcow2Node, ref: str) -> None:
    """Make the disk what it was in a snapshot, its size included (version 2 images can't change size here).

    Raises CowshedError when there is no such snapshot, or when its size differs and there are reasons not to resize
    (sizes are whole sectors).
    """
    _refuse_data_file(image)
    records = load(image)
    record = find_or_raise(image, records, ref)
    header = image.header
    size = record.disk_size
    if size != image.size:
        if size % 512:
            raise CowshedError(
                "The new size must be a multiple of 512", path=image.filename, layer="qcow2 snapshot table",
                field="disk_size", value=size, errno=22,
            )  # fmt: skip
        if header.version < 3:
            raise CowshedError(
                "Can't resize a v2 image which has snapshots", path=image.filename, layer="qcow2", errno=95
            )
        if image.bitmaps():
            raise CowshedError("Can't resize an image which has bitmaps", path=image.filename, layer="qcow2", errno=95)
    rebuild = Rebuild(image)
    target = l1_of(image, record)
    needed = hd.l1_entries_for(size, image.cluster_bits, image.extended)
    if needed * 8 > hd.MAX_L1_BYTES:
        raise FormatError(
            "File too large", path=image.filename, layer="qcow2 snapshot table", field="disk_size", value=size, errno=27
        )
    if len(target) < needed:
        target.extend([0] * (needed - len(target)))
    # down before up: a count at its maximum must not pass it on the way
    rebuild.add_tree(image.l1, -1)
    rebuild.add_tree(target, 1)
    active = rebuild.fix_flags(target)
    rebuild.free_area(header.l1_table_offset, header.l1_size * 8)
    active_offset = rebuild.put_table(active)

    def switch() -> None:
        header.l1_table_offset = active_offset
        header.l1_size = len(active)
        header.size = size

    rebuild.finish(switch)
    image.size = size


def view(image: Qcow2Map, ref: str) -> Qcow2Map:
    """A read-only node of the disk in a snapshot. It shares the image's children and must be closed before it."""
    records = load(image)
    record = find_or_raise(image, records, ref)
    node = SnapshotView(image, record)
    node.l1 = l1_of(image, record)
    return node


class SnapshotView(Qcow2Map):
    """The disk as it was: the image's tables are left alone, its files shared."""

    def __init__(self, image: Qcow2Map, record: Record) -> None:
        super().__init__(image.file, image.header, read_only=True)
        self.children.update(image.children)
        self.size = record.disk_size

    def shutdown(self) -> None:
        self.children.clear()
