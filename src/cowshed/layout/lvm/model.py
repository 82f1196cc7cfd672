"""Volume groups as their metadata describe them, checked: physical volumes, logical volumes, segments.

Extents are counted; one extent is ``VolumeGroup.extent_size`` bytes. An area is a run of extents of a physical volume
(`PhysicalVolume`) or of another logical volume (`LogicalVolume`).
"""

from __future__ import annotations

from ...errors import CorruptError
from .names import group_trouble
from .text import Section

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ...block.node import Node

SECTOR = 512
#: more extents than this no volume of lvm2 has (its counters are 32 bits wide)
MAX_EXTENTS = (1 << 32) - 1
#: logical volumes that stand on one another: lvm2's own stacks are less than ten deep
MAX_STACK = 32

#: segment types whose bytes can be found from the metadata alone
STRIPED = ("striped", "linear")
MIRRORED = ("mirror", "raid1")


class PhysicalVolume:
    """``name`` in the metadata ("pv0"), ``uuid``, ``device`` as it was called when the text was written, ``size`` in
    bytes, ``pe_start`` bytes to the first extent, ``extents``, ``flags``. ``node`` is None when it is missing, and
    ``path`` what the caller of `scan` calls it."""

    __slots__ = ("allocatable", "device", "extents", "flags", "name", "node", "path", "pe_start", "size", "uuid")

    def __init__(self, name: str, uuid: str) -> None:
        self.name = name
        self.uuid = uuid
        self.device = ""
        self.size = 0
        self.pe_start = 0
        self.extents = 0
        self.flags: list[str] = []
        self.allocatable = True
        self.node: Node | None = None
        self.path: str | None = None

    @property
    def missing(self) -> bool:
        return self.node is None

    def __repr__(self) -> str:
        return f"<PhysicalVolume {self.name} {self.path or self.device}>"


class Area:
    """Extents from ``start`` of a physical or a logical volume."""

    __slots__ = ("start", "volume")

    def __init__(self, volume: PhysicalVolume | LogicalVolume, start: int) -> None:
        self.volume = volume
        self.start = start

    def __repr__(self) -> str:
        return f"<Area {self.volume.name} {self.start}>"


class Segment:
    """``count`` extents from ``start`` of a logical volume. ``type`` is lvm2's word ("striped", "raid1", "thin", …).

    ``areas``: where its data are, each ``area_count`` extents long; ``metadata_areas``: what RAID keeps beside each;
    ``stripe_size`` in bytes (0 where it has no meaning); ``origin``, ``cow``, ``pool``: names of other volumes, by
    type; ``chunk_size`` in bytes of a snapshot or pool.
    """

    __slots__ = (
        "area_count", "areas", "chunk_size", "count", "cow", "merging", "metadata_areas", "origin", "pool",
        "region_size", "start", "stripe_size", "type",
    )  # fmt: skip

    def __init__(self, start: int, count: int, type: str) -> None:
        self.start = start
        self.count = count
        self.type = type
        self.areas: list[Area] = []
        self.metadata_areas: list[Area] = []
        self.area_count = count
        self.stripe_size = 0
        self.region_size = 0
        self.chunk_size = 0
        self.origin: str | None = None
        self.cow: str | None = None
        #: a snapshot on its way back into its origin
        self.merging = False
        self.pool: str | None = None

    def __repr__(self) -> str:
        return f"<Segment {self.type} {self.start}+{self.count}>"


class LogicalVolume:
    """``flags`` are the words of its status. ``snapshot``: the segment that makes this volume the store of a classic
    snapshot; ``size`` is that of its own extents, also then (`virtual_size` is what a snapshot's user sees)."""

    __slots__ = ("creation_time", "extents", "flags", "group", "name", "segments", "snapshot", "tags", "uuid")

    def __init__(self, group: VolumeGroup, name: str, uuid: str) -> None:
        self.group = group
        self.name = name
        self.uuid = uuid
        self.flags: list[str] = []
        self.tags: list[str] = []
        self.creation_time: int | None = None
        self.extents = 0
        self.segments: list[Segment] = []
        self.snapshot: Segment | None = None

    @property
    def size(self) -> int:
        """Bytes of its own extents."""
        return self.extents * self.group.extent_size

    @property
    def virtual_size(self) -> int:
        """Bytes that whoever opens it sees: a snapshot is as large as its origin was when it was taken."""
        return self.size if self.snapshot is None else self.snapshot.count * self.group.extent_size

    @property
    def visible(self) -> bool:
        """Is it somebody's disk, not a part of one? A snapshot is seen where its origin is."""
        if self.snapshot is None:
            return "VISIBLE" in self.flags
        origin = self.group.volumes[self.snapshot.origin or ""]
        return not self.snapshot.merging and (origin.visible or origin.name.endswith("_vorigin"))

    @property
    def type(self) -> str:
        """The word ``lvs -o segtype`` has for its first segment."""
        first = self.segments[0] if self.segments else None
        return "" if first is None else "linear" if first.type == "striped" and len(first.areas) == 1 else first.type

    @property
    def origin(self) -> str | None:
        """The volume that this one is a snapshot of."""
        if self.snapshot is not None:
            return self.snapshot.origin
        return self.segments[0].origin if self.segments and self.type == "thin" else None

    @property
    def snapshots(self) -> list[LogicalVolume]:
        """The classic snapshots of this volume."""
        return [
            other
            for other in self.group.volumes.values()
            if other.snapshot is not None and other.snapshot.origin == self.name
        ]

    def __repr__(self) -> str:
        return f"<LogicalVolume {self.group.name}/{self.name} {self.size}>"


class VolumeGroup:
    """``extent_size`` in bytes; ``physical`` and ``volumes`` by name, hidden volumes too (not the bookkeeping ones
    that only tie a snapshot to its origin); ``warnings``: what is odd but no reason to refuse; ``section``: the text
    that all this was read from."""

    __slots__ = (
        "extent_size", "flags", "name", "physical", "section", "seqno", "tags", "uuid", "volumes", "warnings",
    )  # fmt: skip

    def __init__(self, name: str, uuid: str, extent_size: int, seqno: int) -> None:
        self.name = name
        self.uuid = uuid
        self.extent_size = extent_size
        self.seqno = seqno
        self.flags: list[str] = []
        self.tags: list[str] = []
        self.physical: dict[str, PhysicalVolume] = {}
        self.volumes: dict[str, LogicalVolume] = {}
        self.warnings: list[str] = []
        self.section = Section(name)

    @property
    def extents(self) -> int:
        return sum(pv.extents for pv in self.physical.values())

    @property
    def size(self) -> int:
        """Bytes in all its extents."""
        return self.extents * self.extent_size

    @property
    def free(self) -> int:
        """Bytes in extents that no volume owns."""
        used = sum(count for runs in self.used().values() for _, count, _ in runs)
        return (self.extents - used) * self.extent_size

    @property
    def missing(self) -> list[PhysicalVolume]:
        return [pv for pv in self.physical.values() if pv.missing]

    def used(self) -> dict[str, list[tuple[int, int, LogicalVolume]]]:
        """For each physical volume by name: (first extent, count, owner), in order."""
        runs: dict[str, list[tuple[int, int, LogicalVolume]]] = {name: [] for name in self.physical}
        for lv in self.volumes.values():
            for segment in lv.segments:
                for areas in (segment.areas, segment.metadata_areas):
                    for area in areas:
                        if isinstance(area.volume, PhysicalVolume):
                            runs[area.volume.name].append((area.start, segment.area_count, lv))
        for each in runs.values():
            each.sort(key=lambda run: run[:2])
        return runs

    def __repr__(self) -> str:
        return f"<VolumeGroup {self.name} seqno {self.seqno}>"


def corrupt(why: str, field: str | None = None, value: object = None) -> CorruptError:
    return CorruptError(f"LVM2 metadata: {why}", layer="lvm2", field=field, value=value)


def read_groups(root: Section) -> list[VolumeGroup]:
    """The volume groups (one, as a rule) that a metadata text describes. Raises CorruptError."""
    return [_group(name, section) for name, section in root.sections() if "id" in section and "seqno" in section]


def _group(name: str, section: Section) -> VolumeGroup:
    _check_name(name, "volume group")
    extent_size = section.integer("extent_size", least=1, most=(1 << 32) - 1) * SECTOR
    group = VolumeGroup(name, section.string("id"), extent_size, section.integer("seqno"))
    group.section = section
    group.flags = section.strings("status") + section.strings("flags")
    group.tags = section.strings("tags")
    for key, inner in section.section("physical_volumes").sections():
        pv = PhysicalVolume(key, inner.string("id"))
        pv.device = inner.string("device", "")
        pv.size = inner.integer("dev_size", 0, most=(1 << 55) - 1) * SECTOR
        pv.pe_start = inner.integer("pe_start", most=(1 << 54) - 1) * SECTOR
        pv.extents = inner.integer("pe_count", most=MAX_EXTENTS)
        pv.flags = inner.strings("status") + inner.strings("flags")
        pv.allocatable = "ALLOCATABLE" in pv.flags
        group.physical[key] = pv
    uuids = {pv.uuid for pv in group.physical.values()}
    if len(uuids) != len(group.physical):
        raise corrupt(f"two physical volumes of '{name}' have one uuid")
    pending: list[tuple[LogicalVolume, Section]] = []
    for key, inner in section.section("logical_volumes").sections():
        _check_name(key, "logical volume")
        lv = LogicalVolume(group, key, inner.string("id"))
        lv.flags = inner.strings("status") + inner.strings("flags")
        lv.tags = inner.strings("tags")
        if "creation_time" in inner:
            lv.creation_time = inner.integer("creation_time")
        group.volumes[key] = lv
        pending.append((lv, inner))
    for lv, inner in pending:
        _segments(group, lv, inner)
    _tie_snapshots(group)
    _check_stack(group)
    _check_extents(group)
    return group


def _check_name(name: str, what: str) -> None:
    """Names become paths below /dev: with one that lvm2 itself would never give, a group leads to any device."""
    if group_trouble(name):
        raise corrupt(f"a {what} can't be called {name[:128]!r}", "name", name)


def _segments(group: VolumeGroup, lv: LogicalVolume, section: Section) -> None:
    given = section.integer("segment_count", most=MAX_EXTENTS)
    found = [inner for key, inner in section.sections() if key.startswith("segment")]
    if len(found) != given:
        raise corrupt(f"'{lv.name}' has {len(found)} segments and says {given}", "segment_count", given)
    for inner in found:
        start = inner.integer("start_extent", most=MAX_EXTENTS)
        count = inner.integer("extent_count", least=1, most=MAX_EXTENTS)
        kind = inner.string("type").split("+", 1)[0]  # what follows a plus are flags
        lv.segments.append(_segment(group, lv, inner, Segment(start, count, kind)))
    lv.segments.sort(key=lambda segment: segment.start)
    end = 0
    for segment in lv.segments:
        if segment.start != end:
            raise corrupt(f"the segments of '{lv.name}' do not join at extent {end}", "start_extent", segment.start)
        end += segment.count
    if end > MAX_EXTENTS:
        raise corrupt(f"'{lv.name}' is too large", "extent_count", end)
    lv.extents = end


def _segment(group: VolumeGroup, lv: LogicalVolume, inner: Section, segment: Segment) -> Segment:
    kind = segment.type
    if kind in ("striped", "linear"):
        segment.areas = _pairs(group, inner, "stripes")
        _stripes(segment, inner, inner.integer("stripe_count", len(segment.areas), least=1), len(segment.areas))
    elif kind == "mirror":
        segment.areas = _pairs(group, inner, "mirrors")
        segment.region_size = inner.integer("region_size", 0, most=1 << 40) * SECTOR
        count = inner.integer("mirror_count", len(segment.areas))
        if count != len(segment.areas):
            raise corrupt(f"'{lv.name}' has {len(segment.areas)} mirrors and says {count}", "mirror_count", count)
    elif kind.startswith("raid"):
        _raid(group, inner, segment)
    elif kind == "snapshot":
        segment.chunk_size = inner.integer("chunk_size", most=1 << 30) * SECTOR
        segment.origin = inner.string("origin")
        segment.merging = "merging_store" in inner
        segment.cow = inner.string("merging_store" if segment.merging else "cow_store")
    elif kind == "thin":
        segment.pool = inner.string("thin_pool")
        segment.origin = inner.string("origin", "") or None
    elif kind == "thin-pool":
        segment.chunk_size = inner.integer("chunk_size", 0, most=1 << 30) * SECTOR
        segment.areas = [Area(_volume(group, inner.string("pool")), 0)]
        segment.metadata_areas = [Area(_volume(group, inner.string("metadata")), 0)]
    return segment


def _stripes(segment: Segment, inner: Section, given: int, count: int) -> None:
    if given != count or not count:
        raise corrupt(f"a segment has {count} stripes and says {given}", "stripe_count", given)
    if count > 1:
        segment.stripe_size = inner.integer("stripe_size", least=1, most=(1 << 32) - 1) * SECTOR
        if segment.count % count:
            raise corrupt("extents can't be shared among the stripes", "extent_count", segment.count)
    segment.area_count = segment.count // count


def _raid(group: VolumeGroup, inner: Section, segment: Segment) -> None:
    """RAID: names of (metadata, data) pairs, or of data alone for raid0; each begins at its volume's first extent."""
    segment.region_size = inner.integer("region_size", 0, most=1 << 40) * SECTOR
    if "raid0_lvs" in inner:
        names = [item for item in inner.values_of("raid0_lvs") if isinstance(item, str)]
        segment.areas = [Area(_volume(group, name), 0) for name in names]
    else:
        names = [item for item in inner.values_of("raids") if isinstance(item, str)]
        if len(names) % 2:
            raise corrupt("RAID volumes do not come in pairs", "raids", len(names))
        segment.metadata_areas = [Area(_volume(group, name), 0) for name in names[::2]]
        segment.areas = [Area(_volume(group, name), 0) for name in names[1::2]]
    count = len(segment.areas)
    given = inner.integer("device_count", count)
    if given != count or not count:
        raise corrupt(f"a segment has {count} RAID devices and says {given}", "device_count", given)
    if segment.type != "raid1":
        segment.stripe_size = inner.integer("stripe_size", 0, most=(1 << 32) - 1) * SECTOR
    parity = {"raid4": 1, "raid5": 1, "raid6": 2}.get(segment.type[:5], 0)
    data = 1 if segment.type == "raid1" else count // 2 if segment.type.startswith("raid10") else count - parity
    if data < 1 or segment.count % data:
        raise corrupt("extents can't be shared among the RAID devices", "extent_count", segment.count)
    segment.area_count = segment.count // data


def _pairs(group: VolumeGroup, inner: Section, key: str) -> list[Area]:
    items = inner.values_of(key)
    if len(items) % 2:
        raise corrupt(f"'{key}' does not hold pairs", key, len(items))
    areas: list[Area] = []
    for name, start in zip(items[::2], items[1::2], strict=True):
        if not isinstance(name, str) or not isinstance(start, int) or not 0 <= start <= MAX_EXTENTS:
            raise corrupt(f"'{key}' does not hold a name and an extent", key, f"{name}, {start}")
        areas.append(Area(group.physical.get(name) or _volume(group, name), start))
    return areas


def _volume(group: VolumeGroup, name: str) -> LogicalVolume:
    volume = group.volumes.get(name)
    if volume is None:
        raise corrupt(f"there is no volume '{name[:128]}'", value=name)
    return volume


def _tie_snapshots(group: VolumeGroup) -> None:
    """A classic snapshot is a hidden volume that names origin and store: give the store its segment, drop the tie."""
    for name, lv in list(group.volumes.items()):
        if len(lv.segments) != 1 or lv.segments[0].type != "snapshot":
            continue
        segment = lv.segments[0]
        assert segment.cow is not None and segment.origin is not None
        store = _volume(group, segment.cow)
        _volume(group, segment.origin)
        if store.snapshot is not None or store is lv:
            raise corrupt(f"'{store.name}' is the store of two snapshots")
        store.snapshot = segment
        del group.volumes[name]
    for lv in group.volumes.values():
        origin = lv.snapshot.origin if lv.snapshot is not None else None
        if origin is not None and (origin not in group.volumes or group.volumes[origin].snapshot is not None):
            raise corrupt(f"the origin of the snapshot '{lv.name}' is no plain volume", "origin", origin)


def _check_stack(group: VolumeGroup) -> None:
    """No volume stands on itself, none on more than MAX_STACK others, and areas lie within what they name."""
    depth: dict[str, int] = {}
    for root in group.volumes.values():
        stack = [(root, iter(_below(root)))]
        path = {root.name}
        while stack:
            lv, below = stack[-1]
            child = next((each for each in below if each.name not in depth), None)
            if child is None:
                stack.pop()
                path.discard(lv.name)
                depth[lv.name] = 1 + max((depth[each.name] for each in _below(lv)), default=0)
            elif child.name in path:
                raise corrupt(f"the volume '{child.name}' stands on itself")
            else:
                path.add(child.name)
                stack.append((child, iter(_below(child))))
        if depth[root.name] > MAX_STACK:
            raise corrupt(f"the volume '{root.name}' stands on too many others", value=depth[root.name])


def _below(lv: LogicalVolume) -> list[LogicalVolume]:
    found = [
        area.volume
        for segment in lv.segments
        for area in (*segment.areas, *segment.metadata_areas)
        if isinstance(area.volume, LogicalVolume)
    ]
    if lv.snapshot is not None and lv.snapshot.origin is not None:
        found.append(lv.group.volumes[lv.snapshot.origin])
    return found


def _check_extents(group: VolumeGroup) -> None:
    for lv in group.volumes.values():
        for segment in lv.segments:
            for area in segment.areas:
                if segment.type != "thin-pool" and area.start + segment.area_count > area.volume.extents:
                    raise corrupt(f"'{lv.name}' leaves '{area.volume.name}'", "extent_count", segment.area_count)
    for name, runs in group.used().items():
        end, owner = 0, ""
        for start, count, lv in runs:
            if start < end:
                raise corrupt(f"'{owner}' and '{lv.name}' share extent {start} of '{name}'")
            end, owner = start + count, lv.name
        if end > group.physical[name].extents:
            raise corrupt(f"'{owner}' leaves '{name}'")
