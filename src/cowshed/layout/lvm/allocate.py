"""Which free extents a volume gets: in one piece where that is possible, behind what it has where it can.

As LVM2's policy "normal" does it: first one run that is long enough; then, since a volume had better stay on few
devices, the longest runs of the devices that it is on, then of any other.
"""

from __future__ import annotations

from .model import PhysicalVolume, Segment, VolumeGroup


class Run:
    """``count`` extents from ``start`` of a physical volume."""

    __slots__ = ("count", "pv", "start")

    def __init__(self, pv: PhysicalVolume, start: int, count: int) -> None:
        self.pv = pv
        self.start = start
        self.count = count

    def __repr__(self) -> str:
        return f"<Run {self.pv.name} {self.start}+{self.count}>"


def free_runs(group: VolumeGroup) -> list[Run]:
    """Free extents of the devices that may be allocated from, in order."""
    found = []
    for name, runs in group.used().items():
        pv = group.physical[name]
        if not pv.allocatable or pv.missing:
            continue
        end = 0
        for start, count, _ in [*runs, (pv.extents, 0, None)]:
            if start > end:
                found.append(Run(pv, end, start - end))
            end = start + count
    return found


def grow_linear(group: VolumeGroup, last: Segment | None, extents: int) -> list[Run] | None:
    """Runs for so many more extents behind the segment ``last`` (None: a new volume); None when there aren't enough."""
    free = free_runs(group)
    if sum(run.count for run in free) < extents:
        return None
    pv, end = None, -1
    if last is not None and isinstance(last.areas[0].volume, PhysicalVolume):
        pv, end = last.areas[0].volume, last.areas[0].start + last.area_count
        behind = next((run for run in free if run.pv is pv and run.start == end), None)
        if behind is not None and behind.count >= extents:
            return [Run(pv, end, extents)]
    else:
        fitting = [run for run in free if run.count >= extents]
        if fitting:
            # of the first device that has room, the smallest that fits: long runs stay long
            best = min((run for run in fitting if run.pv is fitting[0].pv), key=lambda run: (run.count, run.start))
            return [Run(best.pv, best.start, extents)]
    found: list[Run] = []
    on = {pv.name} if pv is not None else set()
    while extents:
        # what follows on lengthens a segment; then devices that it is on already; then long runs
        best = max(free, key=lambda run: (run.pv.name in on, run.pv is pv and run.start == end, run.count, -run.start))
        free.remove(best)
        count = min(best.count, extents)
        found.append(Run(best.pv, best.start, count))
        on.add(best.pv.name)
        pv, end = best.pv, best.start + count
        extents -= count
    return found


def grow_striped(group: VolumeGroup, last: Segment, extents: int) -> list[list[Run]] | None:
    """Rows of runs of equal length, one for each stripe and each on a device of its own, that give every stripe so
    many more extents; None when there aren't enough."""
    free = free_runs(group)
    width = len(last.areas)
    ends = [(area.volume, area.start + last.area_count) for area in last.areas]
    rows: list[list[Run]] = []
    while extents:
        row: list[Run | None] = [None] * width
        for at, (volume, end) in enumerate(ends):
            row[at] = next((run for run in free if run.pv is volume and run.start == end), None)
        if not all(row):
            longest: dict[str, Run] = {}
            for run in free:
                if run.pv.name not in longest or run.count > longest[run.pv.name].count:
                    longest[run.pv.name] = run
            row = [longest.pop(volume.name, None) for volume, _ in ends]
            rest = sorted(longest.values(), key=lambda run: -run.count)
            row = [run if run is not None else rest.pop(0) if rest else None for run in row]
        whole = [run for run in row if run is not None]
        if len(whole) < width:
            return None
        count = min(extents, *(run.count for run in whole))
        rows.append([Run(run.pv, run.start, count) for run in whole])
        for run in whole:
            run.start += count
            run.count -= count
        free = [run for run in free if run.count]
        ends = [(run.pv, run.start) for run in whole]
        extents -= count
    return rows
