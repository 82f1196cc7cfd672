"""Where a new partition of a ``disk`` pool goes, what number it gets, and whether that is what was asked for."""

from __future__ import annotations

import os

from ...errors import ArgumentError, ConfigError, PoolError, UsageError
from ...layout.partition import EXTENDED, LOGICAL, PRIMARY
from . import kernel_partitions as kernel

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from ...layout.partition import Space, Table
    from ...wire.libvirt.definition import VolumeDef


class Plan:
    """A partition to be made: [``start``, ``end``) in bytes."""

    __slots__ = ("end", "kind", "number", "start")

    def __init__(self, number: int, kind: str, start: int, end: int) -> None:
        self.number = number
        self.kind = kind
        self.start = start
        self.end = end


def plan(table: Table, volume: VolumeDef, path: str, path_of: Callable[[int], str]) -> Plan:
    """Where libvirt would put a volume: in the smallest free extent that is larger than it; with MBR up to the end of
    a cylinder. (An extent of exactly its size, that libvirt passes over, is taken when there is no other.)

    Raises PoolError (no room, no number, a second extended partition), ArgumentError (another name than the
    partition will have). ``path``: the disk; ``path_of``: a partition's path by its number.
    """
    kind = PRIMARY
    form = volume.target.format or "none"
    if form == "extended":
        if table.label == "gpt":
            raise ConfigError("a GUID partition table has no extended partitions")
        if table.extended is not None:
            raise PoolError("extended partition already exists")
        kind = EXTENDED
    elif table.label == "dos" and sum(part.kind != LOGICAL for part in table.partitions) >= 4:
        if table.extended is None:
            raise PoolError("no extended partition found and no primary partition available")
        kind = LOGICAL
    spaces = [space for space in table.free_extents() if space.logical == (kind == LOGICAL)]
    spaces.sort(key=lambda space: space.size)
    sector = table.sector_size
    cylinder = kernel.geometry_of(path).cylinder * 512 if table.label == "dos" else 0
    found = None
    for exact in (False, True):
        for space in spaces:
            found = found or _fit(space, volume.capacity, sector, cylinder, exact)
    if found is None:
        raise PoolError("no large enough free extent")
    try:
        number = table.next_number(kind)
    except UsageError as error:
        raise PoolError(str(error)) from error
    expected = os.path.basename(path_of(number))
    if volume.name != expected:
        raise ArgumentError(f"invalid partition name '{volume.name}', expected '{expected}'")
    return Plan(number, kind, *found)


def _fit(space: Space, size: int, sector: int, cylinder: int, exact: bool) -> tuple[int, int] | None:
    """(start, end) of ``size`` bytes in a space; None when they don't fit. ``cylinder``: its bytes, 0 without."""
    start = space.start + sector if space.logical else space.start
    if not cylinder:
        end = -(-(start + size) // sector) * sector
        return (start, end) if end < space.end or (exact and end == space.end) else None
    # up to a border of cylinders; a whole one is added to what fills its cylinders exactly
    spare = cylinder - size % cylinder
    needed = size + spare
    over = start % cylinder
    if over > spare:
        needed += cylinder
    end = (start + needed - over) // sector * sector
    if space.size > needed or (exact and end <= space.end):
        return (start, end) if end <= space.end else None
    if exact and start + size <= space.end:
        return start, -(-(start + size) // sector) * sector
    return None
