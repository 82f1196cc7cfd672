"""What GPT and MBR have in common: a table of partitions on a disk, the room between them, and rules for change.

All places and lengths are bytes, multiples of the table's ``sector_size``; ends are exclusive. A table is in memory
until `Table.write`. Written after each single change it survives a cut at any moment: the disk then holds the table
before the change or the one after it (with GPT perhaps only in one of its two copies, which `read_table` finds).
"""

from __future__ import annotations

from ...errors import CorruptError, UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from ...block.node import Node
    from .geometry import Geometry

MIB = 1 << 20

PRIMARY = "primary"
EXTENDED = "extended"
LOGICAL = "logical"


class Partition:
    """One partition.

    ``number`` from 1; ``start``, ``size``: bytes; ``kind``: "primary", "extended" or "logical" (GPT knows only
    "primary"); ``type``: a GUID in upper case (GPT) or a byte (MBR). ``guid``, ``name`` (up to 36 UTF-16 units) and
    ``attributes`` (64 bits) are GPT's. ``active``: MBR's boot flag, GPT's "legacy BIOS bootable" attribute.
    """

    __slots__ = ("_active", "attributes", "guid", "kind", "name", "number", "size", "start", "tail", "type")

    def __init__(
        self,
        number: int,
        start: int,
        size: int,
        type: str | int,
        *,
        kind: str = PRIMARY,
        guid: str | None = None,
        name: str = "",
        attributes: int = 0,
        active: bool = False,
        tail: bytes = b"",
    ) -> None:
        self.number = number
        self.start = start
        self.size = size
        self.type = type
        self.kind = kind
        self.guid = guid
        self.name = name
        self.attributes = attributes
        self._active = active
        #: what stands in an entry behind the fields that are known; kept
        self.tail = tail
        if active:
            self.active = True

    @property
    def end(self) -> int:
        """The first byte behind the partition."""
        return self.start + self.size

    @property
    def active(self) -> bool:
        return bool(self.attributes & 4) if isinstance(self.type, str) else self._active

    @active.setter
    def active(self, value: bool) -> None:
        if isinstance(self.type, str):
            self.attributes = self.attributes | 4 if value else self.attributes & ~4
        else:
            self._active = value

    def __repr__(self) -> str:
        return f"<Partition {self.number} {self.kind} [{self.start}, {self.end}) {self.type}>"


class Space:
    """A run of bytes of the disk: ``start``, ``end``; ``logical``: inside the extended partition."""

    __slots__ = ("end", "logical", "start")

    def __init__(self, start: int, end: int, logical: bool = False) -> None:
        self.start = start
        self.end = end
        self.logical = logical

    @property
    def size(self) -> int:
        return self.end - self.start

    def __repr__(self) -> str:
        return f"<Space [{self.start}, {self.end}){' logical' if self.logical else ''}>"

    def __eq__(self, other: object) -> bool:
        mine = self.start, self.end, self.logical
        return isinstance(other, Space) and mine == (other.start, other.end, other.logical)

    __hash__ = None  # type: ignore[assignment]


class Table:
    """A partition table in memory. ``partitions`` are in the order of their numbers.

    ``label``: "gpt" or "dos". ``disk_size``: of the disk, in bytes. ``identifier``: the disk's GUID, or its 32-bit
    signature as eight hexadecimal digits. ``problems``: what was found wrong and is put right by `write`, in words.
    ``geometry``: what the MBR's cylinders are.
    """

    label = ""
    #: how many partitions there can be (of those that need an entry of the first table)
    limit = 0

    def __init__(self, disk_size: int, sector_size: int, geometry: Geometry) -> None:
        self.disk_size = disk_size // sector_size * sector_size
        self.sector_size = sector_size
        self.geometry = geometry
        self.identifier = ""
        self.partitions: list[Partition] = []
        self.problems: list[str] = []
        #: not written yet: what the disk held before is still to be taken away
        self.fresh = False

    def __repr__(self) -> str:
        return f"<{self.label} table of {len(self.partitions)} partitions>"

    # ---- looking

    def find(self, number: int) -> Partition | None:
        """The partition of that number."""
        return next((part for part in self.partitions if part.number == number), None)

    def partition(self, number: int) -> Partition:
        """The partition of that number. Raises UsageError when there is none."""
        part = self.find(number)
        if part is None:
            raise UsageError(f"there is no partition {number}", field="partition", value=number)
        return part

    @property
    def extended(self) -> Partition | None:
        """The MBR's extended partition."""
        return next((part for part in self.partitions if part.kind == EXTENDED), None)

    def usable(self) -> tuple[int, int]:
        """(start, end) of where partitions may be."""
        raise NotImplementedError

    def spaces(self) -> list[Space]:
        """Free space to the sector, as the format allows it, in the order of the disk."""
        start, end = self.usable()
        tops = sorted((part.start, part.end) for part in self.partitions if part.kind != LOGICAL)
        found = [Space(low, high) for low, high in gaps(start, end, tops)]
        extended = self.extended
        if extended is not None:
            inner = sorted((part.start, part.end) for part in self.partitions if part.kind == LOGICAL)
            # each logical partition has a sector of its own before it
            sector = self.sector_size
            for low, high in gaps(extended.start, extended.end, inner):
                if high - low > sector:
                    reserve = sector if high < extended.end else 0
                    if high - reserve > low + sector:
                        found.append(Space(low + sector, high - reserve, True))
            found.sort(key=lambda space: space.start)
        return found

    def free_extents(self, *, cylinders: bool = True) -> list[Space]:
        """Free space as libparted sees it, in the order of the disk: what libvirt lists as free extents. ``cylinders``:
        see `MbrTable`."""
        return self.spaces()

    def largest_free(self) -> Space | None:
        return max(self.spaces(), key=lambda space: space.size, default=None)

    def place(self, size: int, *, align: int = MIB, logical: bool = False, largest: bool = False) -> int:
        """Where a partition of ``size`` bytes can begin: at a multiple of ``align``, in the first space that is large
        enough (or the ``largest``). Raises UsageError when there is none."""
        sector = self.sector_size
        align = max(align, sector)
        size = -(-size // sector) * sector
        found = [space for space in self.spaces() if space.logical == logical]
        if largest:
            found.sort(key=lambda space: -space.size)
        for space in found:
            start = -(-space.start // align) * align
            if start + size <= space.end:
                return start
        raise UsageError("no free space is large enough", field="size", value=size)

    # ---- changing

    def add(
        self,
        start: int,
        size: int,
        *,
        number: int | None = None,
        kind: str = PRIMARY,
        type: str | int | None = None,
        name: str = "",
        guid: str | None = None,
        attributes: int = 0,
        active: bool = False,
    ) -> Partition:
        """Add a partition at exactly ``start``; its number is the lowest free one unless given.

        Raises UsageError: not whole sectors, outside, overlapping, no number left, a kind the format lacks.
        """
        raise NotImplementedError

    def next_number(self, kind: str = PRIMARY) -> int:
        """The number that the next partition of that kind gets. Raises UsageError when all are taken."""
        taken = {part.number for part in self.partitions}
        for number in range(1, self.limit + 1):
            if number not in taken:
                return number
        raise UsageError(f"the table has no room for more than {self.limit} partitions", limit=self.limit)

    def delete(self, number: int) -> None:
        """Remove a partition from the table; with an extended one the logical ones in it. Raises UsageError."""
        self.partitions.remove(self.partition(number))

    def resize(self, number: int, size: int) -> None:
        """Give a partition another length; its start stays. Raises UsageError when something is in the way."""
        part = self.partition(number)
        self.check_room(part.start, size, part.kind, part)
        part.size = size

    def set_type(self, number: int, type: str | int) -> None:
        raise NotImplementedError

    def set_identifier(self, identifier: str | None) -> None:
        raise NotImplementedError

    def set_name(self, number: int, name: str) -> None:
        raise self._only_gpt("names")

    def set_guid(self, number: int, guid: str | None) -> None:
        raise self._only_gpt("GUIDs of partitions")

    def set_attributes(self, number: int, attributes: int) -> None:
        raise self._only_gpt("attributes")

    def _only_gpt(self, what: str) -> UsageError:
        return UsageError(f"{what} can only be used on GUID Partition Tables", field="label", value=self.label)

    def set_active(self, number: int, active: bool) -> None:
        """The boot flag; with MBR only one partition has it."""
        self.partition(number).active = active

    def grow(self) -> None:
        """Take the disk's end into use after it has grown (`write` moves GPT's second copy there)."""

    # ---- storing

    def write(self, node: Node) -> None:
        """Write the table, durably. Raises ReadOnlyError, HostError."""
        raise NotImplementedError

    def forget_others(self, node: Node) -> None:
        """Take the headers of a GPT away that was there before a fresh table, once that is durable."""
        if not self.fresh:
            return
        self.fresh = False
        changed = False
        for size in (512, 4096):
            total = node.size // size
            if total < 3 or (self.label == "gpt" and self.sector_size == size):
                continue
            for lba in (1, total - 1):
                if node.read(lba * size, 8) == b"EFI PART":
                    node.write(lba * size, bytes(8))
                    changed = True
        if changed:
            node.flush()

    # ---- checks

    def check_room(self, start: int, size: int, kind: str, but: Partition | None = None) -> None:
        """Raise UsageError unless a partition of that ``kind`` may be at [start, start+size)."""
        sector = self.sector_size
        if start % sector or size % sector:
            raise UsageError(
                f"a partition from {start} of {size} bytes is not made of whole sectors of {sector} bytes",
                field="start" if start % sector else "size", value=start if start % sector else size,
            )
        end = start + size
        low, high = self.bounds(kind)
        if size <= 0 or start < low or end > high:
            raise UsageError(
                f"a partition at [{start}, {end}) lies outside of [{low}, {high})", field="start", value=start
            )
        for other in self.partitions:
            if other is but or (other.kind == LOGICAL) != (kind == LOGICAL):
                continue
            if start < other.end and other.start < end:
                raise UsageError(
                    f"a partition at [{start}, {end}) overlaps partition {other.number} at "
                    f"[{other.start}, {other.end})",
                    field="start", value=start,
                )

    def bounds(self, kind: str) -> tuple[int, int]:
        """Where a partition of that kind may be."""
        return self.usable()


def gaps(start: int, end: int, taken: Iterable[tuple[int, int]]) -> Iterable[tuple[int, int]]:
    """What is left of [start, end) between the sorted ranges ``taken``."""
    for low, high in taken:
        if low > start:
            yield start, min(low, end)
        start = max(start, high)
    if start < end:
        yield start, end


def check_overlaps(parts: Iterable[Partition], offsets: dict[int, int], layer: str) -> None:
    """Raise CorruptError when two of ``parts`` overlap; ``offsets``: where the entry of each number is."""
    last: Partition | None = None
    for part in sorted(parts, key=lambda item: item.start):
        if last is not None and part.start < last.end:
            raise CorruptError(
                f"partitions {last.number} and {part.number} overlap: [{last.start}, {last.end}) and "
                f"[{part.start}, {part.end})",
                layer=layer, field="start", offset=offsets.get(part.number), value=part.start,
            )
        last = part
