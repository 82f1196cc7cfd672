"""The next description of a volume group: changed as text is, section by section, and checked like one that was read.

Nothing is written here. What a section holds that is not known stays in it; volumes of types that are not known are
neither resized nor removed, and their extents are nobody else's.
"""

from __future__ import annotations

import os

from ...errors import UsageError
from .allocate import Run, free_runs, grow_linear, grow_striped
from .model import MAX_EXTENTS, SECTOR, LogicalVolume, PhysicalVolume, VolumeGroup, read_groups
from .text import Section

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .text import Value

#: bytes of an extent where nothing else is asked for
EXTENT = 4 << 20
#: status words of volumes that another operation holds
_HELD = ("LOCKED", "PVMOVE")
#: what a group's status may say; lvm2, too, takes no group with other words there
_STATUS = {"EXPORTED", "RESIZEABLE", "READ", "WRITE", "CLUSTERED", "SHARED", "PARTIAL", "PVMOVE", "PARTIAL_VG"}
_PLAIN = ("striped", "linear")
_LETTERS = "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"


class Refusal(UsageError):
    """What is asked for can't be done to this volume group; the text is lvm2's, without its indent."""


def new_uuid() -> str:
    """A random one as LVM2 writes them: 32 letters and digits in groups."""
    found = ""
    while len(found) < 32:
        found += "".join(_LETTERS[byte % 62] for byte in os.urandom(48) if byte < 248)
    parts, at = [], 0
    for length in (6, 4, 4, 4, 4, 4, 6):
        parts.append(found[at : at + length])
        at += length
    return "-".join(parts)


def copied(section: Section) -> Section:
    """The section and all below it anew."""
    made = Section(section.name)
    for key, value in section.items():
        made[key] = copied(value) if isinstance(value, Section) else list(value) if isinstance(value, list) else value
    return made


def check_changeable(group: VolumeGroup) -> None:
    """Raises Refusal for groups that are somebody else's, or not whole."""
    if "EXPORTED" in group.flags:
        raise Refusal(f"Volume group {group.name} is exported")
    if "CLUSTERED" in group.flags or group.section.get("lock_type", "none") not in ("none", ""):
        raise Refusal(f"Cannot access VG {group.name}: it is shared with other machines.")
    owner = group.section.get("system_id", "")
    if owner:
        raise Refusal(f"Cannot access VG {group.name} with system ID {owner} with unknown local system ID.")
    if group.missing:
        raise Refusal(f"Cannot change VG {group.name} while PVs are missing.")
    unknown = sorted(set(group.section.strings("status")) - _STATUS)
    if unknown:
        raise Refusal(f"Volume group {group.name} has the unknown status {unknown[0]}")
    if "WRITE" not in group.flags:
        raise Refusal(f"Volume group {group.name} is read-only")


class Draft:
    """``group``: the group as it will be, read anew after each change; ``name``, ``section``: its text. Raises
    CorruptError when a change would break the rules that metadata are read by."""

    def __init__(self, name: str, section: Section, nodes: VolumeGroup | None = None) -> None:
        self.name = name
        self.section = section
        self._nodes = nodes
        self.group = self._read()

    @classmethod
    def of(cls, group: VolumeGroup) -> Draft:
        """A change of a group that is there. Raises Refusal when it may not be changed."""
        check_changeable(group)
        section = copied(group.section)
        section["seqno"] = group.seqno + 1
        return cls(group.name, section, group)

    @classmethod
    def new(cls, name: str, members: list[PhysicalVolume], extent_size: int = EXTENT) -> Draft:
        """A new group of physical volumes: ``uuid``, ``device``, ``size``, ``pe_start`` and ``node`` are taken."""
        section = Section(name)
        section["id"] = new_uuid()
        section["seqno"] = 1
        section["format"] = "lvm2"
        section["status"] = ["RESIZEABLE", "READ", "WRITE"]
        section["flags"] = []
        section["extent_size"] = extent_size // SECTOR
        section["max_lv"] = 0
        section["max_pv"] = 0
        section["metadata_copies"] = 0
        physical = section["physical_volumes"] = Section(f"{name}/physical_volumes")
        known = VolumeGroup(name, "", extent_size, 0)
        for number, pv in enumerate(members):
            known.physical[f"pv{number}"] = pv
            inner = physical[f"pv{number}"] = Section(f"{physical.name}/pv{number}")
            inner["id"] = pv.uuid
            inner["device"] = pv.device
            inner["status"] = ["ALLOCATABLE"]
            inner["flags"] = []
            inner["dev_size"] = pv.size // SECTOR
            inner["pe_start"] = pv.pe_start // SECTOR
            inner["pe_count"] = min((pv.size - pv.pe_start) // extent_size, MAX_EXTENTS)
        return cls(name, section, known)

    def _read(self) -> VolumeGroup:
        root = Section("")
        root[self.name] = self.section
        (group,) = read_groups(root)
        if self._nodes is not None:
            known = {pv.uuid: pv for pv in self._nodes.physical.values()}
            known.update(zip_names(self._nodes, group))
            for pv in group.physical.values():
                if pv.uuid in known:
                    pv.node, pv.path = known[pv.uuid].node, known[pv.uuid].path
        return group

    # ---- sections

    def _volumes(self) -> Section:
        found = self.section.get("logical_volumes")
        if not isinstance(found, Section):
            # the volumes stand behind the devices, before whatever else there is
            found = Section(f"{self.section.name}/logical_volumes")
            rest = list(self.section.items())
            self.section.clear()
            for key, value in rest:
                self.section[key] = value
                if key == "physical_volumes":
                    self.section["logical_volumes"] = found
        return found

    def _physical(self, name: str) -> Section:
        return self.section.section("physical_volumes").section(name)

    def volume(self, name: str) -> LogicalVolume:
        """Raises Refusal when there is none of that name."""
        found = self.group.volumes.get(name)
        if found is None:
            raise Refusal(f'Failed to find logical volume "{self.name}/{name}"')
        return found

    def extents(self, size: int) -> int:
        """Extents that hold ``size`` bytes."""
        return -(-size // self.group.extent_size)

    def share(self, percent: int, *, up: bool) -> int:
        """That part of the free extents, rounded ``up`` or down, and no more than may be allocated."""
        free = self.group.free // self.group.extent_size * percent
        return min(-(-free // 100) if up else free // 100, sum(run.count for run in free_runs(self.group)))

    # ---- logical volumes

    def create(self, name: str, extents: int, now: int) -> None:
        """A linear volume. Raises Refusal for a name that is taken and for lack of space."""
        if name in self._volumes():
            raise Refusal(f'Logical Volume "{name}" already exists in volume group "{self.name}"')
        most = self.section.integer("max_lv", 0)
        if most and sum(lv.visible for lv in self.group.volumes.values()) >= most:
            raise Refusal(f"Maximum number of logical volumes ({most}) reached in volume group {self.name}")
        free = self.group.free // self.group.extent_size
        if extents > free:
            raise Refusal(
                f'Volume group "{self.name}" has insufficient free space ({free} extents): {extents} required.'
            )
        runs = self._found(name, grow_linear(self.group, None, extents), extents)
        inner = Section(f"{self._volumes().name}/{name}")
        inner["id"] = new_uuid()
        inner["status"] = ["READ", "WRITE", "VISIBLE"]
        inner["flags"] = []
        inner["creation_time"] = now
        inner["creation_host"] = "(none)"
        inner["segment_count"] = 0
        self._volumes()[name] = inner
        for run in runs:
            _append(inner, [run], 0)
        self.group = self._read()

    def _found(self, name: str, runs: list[Run] | None, extents: int) -> list[Run]:
        if runs is None:
            raise Refusal(
                f"Insufficient suitable allocatable extents for logical volume {name}: {extents} more required"
            )
        return runs

    def resize(self, name: str, extents: int) -> bool:
        """Give a linear or striped volume that many extents (more where stripes need it); False when it has them.

        Raises Refusal for others, for lack of space.
        """
        lv = self.volume(name)
        self._check_plain(lv, "resized")
        inner = self._volumes().section(name)
        last = lv.segments[-1]
        if extents > lv.extents:
            width = len(last.areas)
            more = -(-(extents - lv.extents) // width) * width
            free = self.group.free // self.group.extent_size
            if more > free:
                raise Refusal(f"Insufficient free space: {more} extents needed, but only {free} available")
            if width == 1:
                for run in self._found(name, grow_linear(self.group, last, more), more):
                    _append(inner, [run], 0)
            else:
                found = grow_striped(self.group, last, more // width)
                if found is None:
                    raise Refusal(
                        f"Insufficient suitable allocatable extents for logical volume {name}: {more} more required"
                    )
                for row in found:
                    _append(inner, row, last.stripe_size // SECTOR)
        else:
            for segment in lv.segments:
                if segment.start < extents < segment.start + segment.count:
                    width = len(segment.areas)
                    extents = segment.start + -(-(extents - segment.start) // width) * width
            if extents >= lv.extents:
                return False
            _cut(inner, extents)
        self.group = self._read()
        return True

    def _check_plain(self, lv: LogicalVolume, what: str) -> None:
        full = f"{self.name}/{lv.name}"
        self._check_free(lv)
        if lv.snapshot is not None:
            raise Refusal(f"The snapshot {full} can't be {what} here")
        if lv.snapshots:
            raise Refusal("Snapshot origin volumes can be resized only while inactive: try lvchange -an.")
        for segment in lv.segments:
            if segment.type not in _PLAIN or any(not isinstance(area.volume, PhysicalVolume) for area in segment.areas):
                raise Refusal(f"The logical volume {full} of type {segment.type} can't be {what} here")
        if self._mentioned(lv.name, {lv.name}):
            raise Refusal(f"The logical volume {full} is a part of another and can't be {what}")

    def _check_free(self, lv: LogicalVolume) -> None:
        for word in _HELD:
            if word in lv.flags:
                raise Refusal(f"Can't change locked LV {self.name}/{lv.name}")

    def remove(self, name: str) -> None:
        """Take away a volume: linear, striped, a mirror or RAID with its parts, a snapshot, an origin with its
        snapshots. Raises Refusal for other types, and for what others stand on."""
        gone = self._closure(self.volume(name))
        if self._mentioned_any(gone):
            raise Refusal(f"The logical volume {self.name}/{name} is a part of another and can't be removed")
        volumes = self._volumes()
        for each in gone:
            del volumes[each]
        if not volumes:
            del self.section["logical_volumes"]
        self.group = self._read()

    def _closure(self, lv: LogicalVolume) -> set[str]:
        """Names of what goes with a volume: itself, snapshots, their ties, parts of mirrors and RAID."""
        gone = {lv.name}
        for snapshot in lv.snapshots:
            gone |= self._closure(snapshot)
        if lv.snapshot is not None:
            if lv.snapshot.merging:
                raise Refusal(f"The snapshot {self.name}/{lv.name} is being merged and can't be removed")
            gone |= {key for key, inner in self._volumes().sections() if _tie_of(inner) == lv.name}
        pending = [lv]
        while pending:
            one = pending.pop()
            self._check_free(one)
            for segment in one.segments:
                kind = segment.type
                if kind not in ("striped", "linear", "zero", "error", "mirror") and not kind.startswith("raid"):
                    raise Refusal(f"The logical volume {self.name}/{one.name} of type {kind} can't be removed here")
                for area in (*segment.areas, *segment.metadata_areas):
                    if isinstance(area.volume, LogicalVolume) and area.volume.name not in gone:
                        gone.add(area.volume.name)
                        pending.append(area.volume)
            log = self._volumes().section(one.name)
            for _, inner in log.sections():
                name = inner.get("mirror_log")
                if isinstance(name, str) and name in self.group.volumes and name not in gone:
                    gone.add(name)
                    pending.append(self.group.volumes[name])
        return gone

    def _mentioned(self, name: str, gone: set[str]) -> bool:
        return any(key not in gone and _mentions(inner, name) for key, inner in self._volumes().sections())

    def _mentioned_any(self, gone: set[str]) -> bool:
        return any(self._mentioned(name, gone) for name in gone)

    def rename_volume(self, old: str, new: str) -> None:
        """Raises Refusal when it is missing, the name is taken, or others stand on it or it on others."""
        volumes = self._volumes()
        lv = self.group.volumes.get(old)
        if lv is None:
            raise Refusal(f'Existing logical volume "{old}" not found in volume group "{self.name}"')
        if new in volumes:
            raise Refusal(f'Logical Volume "{new}" already exists in volume group "{self.name}"')
        self._check_free(lv)
        ties = {key for key, inner in volumes.sections() if _tie_of(inner) == old or _origin_of(inner) == old}
        if any(isinstance(area.volume, LogicalVolume) for segment in lv.segments for area in segment.areas) or any(
            segment.type not in _PLAIN for segment in lv.segments
        ):
            # the names of its parts are made of its own
            raise Refusal(f"The logical volume {self.name}/{old} of type {lv.type} can't be renamed here")
        if self._mentioned(old, ties | {old}):
            raise Refusal(f"The logical volume {self.name}/{old} is a part of another and can't be renamed")
        rows = list(volumes.items())
        volumes.clear()
        for key, value in rows:
            volumes[new if key == old else key] = value
        for key in ties:
            for _, inner in volumes.section(key).sections():
                for word in ("origin", "cow_store"):
                    if inner.get(word) == old:
                        inner[word] = new
        self.group = self._read()

    # ---- the group

    def rename(self, new: str) -> None:
        self.name = new
        self.group = self._read()

    def renew_uuid(self) -> None:
        """Another random uuid for the group."""
        self.section["id"] = new_uuid()
        self.group = self._read()

    def renew_physical(self, name: str) -> str:
        """Another random uuid for a physical volume, which is returned: its label must get it too."""
        fresh = new_uuid()
        self._physical(name)["id"] = fresh
        self.group = self._read()
        return fresh

    def resize_physical(self, name: str, size: int) -> None:
        """A device has ``size`` bytes now. Raises Refusal when extents that are used would be gone."""
        pv = self.group.physical[name]
        count = min(max(0, size - pv.pe_start) // self.group.extent_size, MAX_EXTENTS)
        runs = self.group.used()[name]
        if runs and runs[-1][0] + runs[-1][1] > count:
            taken = sum(length for _, length, _ in runs)
            if taken > count:
                raise Refusal(f"{pv.path}: cannot resize to {count} extents as {taken} are allocated.")
            raise Refusal(f"{pv.path}: cannot resize to {count} extents as later ones are allocated.")
        if not count:
            raise Refusal(f"{pv.path}: cannot resize to 0 extents.")
        inner = self._physical(name)
        inner["dev_size"] = size // SECTOR
        inner["pe_count"] = count
        self.group = self._read()


def zip_names(old: VolumeGroup, new: VolumeGroup) -> dict[str, PhysicalVolume]:
    """By the new uuid: physical volumes that kept their name in the metadata."""
    return {pv.uuid: old.physical[name] for name, pv in new.physical.items() if name in old.physical}


def _tie_of(inner: Section) -> str | None:
    """The store that a snapshot's bookkeeping volume ties to its origin."""
    for _, segment in inner.sections():
        if segment.get("type") == "snapshot":
            store = segment.get("cow_store", segment.get("merging_store"))
            return store if isinstance(store, str) else None
    return None


def _origin_of(inner: Section) -> str | None:
    for _, segment in inner.sections():
        if segment.get("type") == "snapshot":
            origin = segment.get("origin")
            return origin if isinstance(origin, str) else None
    return None


def _mentions(section: Section, name: str) -> bool:
    """Does a segment name that volume, whatever for?"""

    def says(value: Value) -> bool:
        if isinstance(value, Section):
            return any(says(inner) for inner in value.values())
        return name in value if isinstance(value, list) else value == name

    return any(says(inner) for _, inner in section.sections())


def _segments(inner: Section) -> list[tuple[str, Section]]:
    found = [(key, one) for key, one in inner.sections() if key.startswith("segment")]
    return sorted(found, key=lambda row: row[1].integer("start_extent"))


def _append(inner: Section, row: list[Run], stripe_size: int) -> None:
    """One more segment of a volume, a run for each stripe; it lengthens the last one where all runs follow on."""
    segments = _segments(inner)
    start = 0
    count = row[0].count * len(row)
    if segments:
        last = segments[-1][1]
        length = last.integer("extent_count")
        start = last.integer("start_extent") + length
        stripes = last.values_of("stripes") if "stripes" in last else []
        plain = set(last) <= {"start_extent", "extent_count", "type", "stripe_count", "stripe_size", "stripes"}
        follows = len(stripes) == 2 * len(row) and all(
            name == run.pv.name and isinstance(at, int) and at + length // len(row) == run.start
            for name, at, run in zip(stripes[::2], stripes[1::2], row, strict=False)
        )
        if plain and follows and last.get("type") == "striped" and last.get("stripe_size", 0) == stripe_size:
            last["extent_count"] = length + count
            return
    number = len(segments) + 1
    made = Section(f"{inner.name}/segment{number}")
    made["start_extent"] = start
    made["extent_count"] = count
    made["type"] = "striped"
    made["stripe_count"] = len(row)
    if len(row) > 1:
        made["stripe_size"] = stripe_size
    made["stripes"] = [item for run in row for item in (run.pv.name, run.start)]
    inner[f"segment{number}"] = made
    inner["segment_count"] = number


def _cut(inner: Section, extents: int) -> None:
    """Only the first ``extents`` of a volume stay."""
    for key, segment in _segments(inner):
        start = segment.integer("start_extent")
        if start >= extents:
            del inner[key]
        elif start + segment.integer("extent_count") > extents:
            segment["extent_count"] = extents - start
    inner["segment_count"] = len(_segments(inner))
