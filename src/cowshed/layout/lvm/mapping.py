"""Where a logical volume's bytes lie: from volumes through stripes, mirrors and stacks down to physical volumes."""

from __future__ import annotations

import errno
import struct
from bisect import bisect_right

from ...errors import FeatureError, HostError
from .model import LogicalVolume, PhysicalVolume, Segment

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    #: (offset in the logical volume, length, physical volume or None where zeroes are read, offset on its device)
    Run = tuple[int, int, PhysicalVolume | None, int]

_STRIPED = ("striped", "linear", "raid0", "raid0_meta")
_RAID_MAGIC = 0x64526D44
#: dm-raid's superblock: magic, features, devices, position, events, failed devices as bits, sectors recovered
_RAID_SUPER = struct.Struct("<IIIIQQQ")


def mapping(lv: LogicalVolume, offset: int = 0, length: int | None = None) -> Iterator[Run]:
    """The runs of bytes that make up ``lv``'s own extents (a snapshot's: its store), in order, neighbours merged.

    Mirrors and RAID 1 and 10 give their first leg that is whole. Raises FeatureError for types whose bytes can't be
    found from metadata alone, HostError when every leg needs a device that is missing.
    """
    last: Run | None = None
    for run in _runs(lv, offset, lv.size - offset if length is None else length):
        if (
            last is not None
            and last[2] is run[2]
            and last[0] + last[1] == run[0]
            and (run[2] is None or last[3] + last[1] == run[3])
        ):
            last = (last[0], last[1] + run[1], last[2], last[3])
            continue
        if last is not None:
            yield last
        last = run
    if last is not None:
        yield last


def _runs(lv: LogicalVolume, offset: int, length: int) -> Iterator[Run]:
    unit = lv.group.extent_size
    end = offset + length
    at = bisect_right(lv.segments, offset // unit, key=lambda segment: segment.start) - 1
    while offset < end:
        segment = lv.segments[at]
        start = segment.start * unit
        stop = min(end, start + segment.count * unit)
        for inner, count, pv, where in _segment_runs(lv, segment, offset - start, stop - offset):
            yield start + inner, count, pv, where
        offset = stop
        at += 1


def _segment_runs(lv: LogicalVolume, segment: Segment, offset: int, length: int) -> Iterator[Run]:
    """Runs of a segment; offsets count from its beginning."""
    kind = segment.type
    if kind in _STRIPED:
        if len(segment.areas) == 1:
            yield from _area_runs(lv, segment, 0, offset, length)
        else:
            yield from _stripe_runs(lv, segment, 1, offset, length)
    elif kind in ("mirror", "raid1"):
        yield from _area_runs(lv, segment, _leg(lv, segment, range(len(segment.areas))), offset, length)
    elif kind in ("raid10", "raid10_near") and len(segment.areas) % 2 == 0:
        yield from _stripe_runs(lv, segment, 2, offset, length)
    elif kind == "zero":
        yield offset, length, None, 0
    else:
        raise FeatureError(
            f"The logical volume '{lv.group.name}/{lv.name}' is of type '{kind}', which can't be read here",
            layer="lvm2",
            field="type",
            value=kind,
        )


def _stripe_runs(lv: LogicalVolume, segment: Segment, copies: int, offset: int, length: int) -> Iterator[Run]:
    size = segment.stripe_size
    if not size:
        raise FeatureError(f"'{lv.name}' has stripes without a size", layer="lvm2", field="stripe_size", value=0)
    if any(word.startswith("RESHAPE") for word in (*lv.flags, *_below_flags(segment))):
        raise FeatureError(f"The logical volume '{lv.group.name}/{lv.name}' is being reshaped", layer="lvm2")
    columns = len(segment.areas) // copies
    legs = [
        column if copies == 1 else _leg(lv, segment, range(column * copies, (column + 1) * copies))
        for column in range(columns)
    ]
    end = offset + length
    while offset < end:
        chunk, skip = divmod(offset, size)
        count = min(size - skip, end - offset)
        for inner, step, pv, where in _area_runs(
            lv, segment, legs[chunk % columns], chunk // columns * size + skip, count
        ):
            yield offset + inner - (chunk // columns * size + skip), step, pv, where
        offset += count


def _area_runs(lv: LogicalVolume, segment: Segment, index: int, offset: int, length: int) -> Iterator[Run]:
    """Runs of an area's bytes; offsets count from its beginning."""
    area = segment.areas[index]
    unit = lv.group.extent_size
    base = area.start * unit
    if isinstance(area.volume, PhysicalVolume):
        pv = area.volume
        if pv.node is None:
            raise HostError(
                f"The logical volume '{lv.group.name}/{lv.name}' needs the device with uuid {pv.uuid} "
                f"(last seen as '{pv.device}'), which is missing",
                path=pv.device,
                layer="lvm2",
                errno=errno.EIO,
            )
        yield offset, length, pv, pv.pe_start + base + offset
        return
    for inner, count, run, where in _runs(area.volume, base + offset, length):
        yield inner - base, count, run, where


def _below_flags(segment: Segment) -> list[str]:
    return [word for area in segment.areas if isinstance(area.volume, LogicalVolume) for word in area.volume.flags]


def whole(lv: LogicalVolume) -> bool:
    """Can every byte be read: no device missing, or another leg for what it held?"""
    return all(_segment_whole(lv, segment) for segment in lv.segments)


def _segment_whole(lv: LogicalVolume, segment: Segment) -> bool:
    states = [not v.missing if isinstance(v, PhysicalVolume) else whole(v) for v in (a.volume for a in segment.areas)]
    if segment.type in ("mirror", "raid1"):
        return any(states)
    if segment.type.startswith("raid10"):
        return all(any(states[at : at + 2]) for at in range(0, len(states), 2))
    return all(states)


def _leg(lv: LogicalVolume, segment: Segment, legs: range) -> int:
    """The first leg that can be read and that RAID's own superblocks do not call failed or left behind."""
    stale, recovered = _supers(segment)
    usable = []
    for leg in legs:
        volume = segment.areas[leg].volume
        if not volume.missing if isinstance(volume, PhysicalVolume) else whole(volume):
            usable.append(leg)
    good = [leg for leg in usable if leg not in stale]
    if good:
        # one that is still being rebuilt only where there is no other
        return max(good, key=lambda leg: (recovered.get(leg, 0), -leg))
    if usable:
        raise HostError(
            f"The legs that are left of the logical volume '{lv.group.name}/{lv.name}' are out of date",
            layer="lvm2",
            errno=errno.EIO,
        )
    return legs[0]  # all are missing: reading it says which device


def _supers(segment: Segment) -> tuple[set[int], dict[int, int]]:
    """From dm-raid's superblocks (there are none before the volume was first active): legs that must not be read, and
    how much of each leg is recovered (all of it: the highest number)."""
    supers: dict[int, tuple[int, int, int]] = {}
    for leg, area in enumerate(segment.metadata_areas):
        if not isinstance(area.volume, LogicalVolume) or not area.volume.extents or not whole(area.volume):
            continue
        _, _, pv, where = next(_runs(area.volume, 0, _RAID_SUPER.size))
        if pv is None or pv.node is None:
            continue
        magic, _, _, _, events, failed, sectors = _RAID_SUPER.unpack(pv.node.read(where, _RAID_SUPER.size))
        if magic == _RAID_MAGIC:
            supers[leg] = events, failed, sectors
    stale = {
        leg
        for leg, area in enumerate(segment.areas)
        if isinstance(area.volume, LogicalVolume) and "REBUILD" in area.volume.flags
    }
    if not supers:
        return stale, {}
    newest = max(events for events, _, _ in supers.values())
    for leg, (events, failed, _) in supers.items():
        if events < newest:
            stale.add(leg)
        else:
            stale |= {number for number in range(min(64, len(segment.areas))) if failed >> number & 1}
    return stale, {leg: sectors for leg, (_, _, sectors) in supers.items()}
