"""Cylinders, heads and sectors: the old way to name a place on a disk, which MBR entries still carry.

Nothing here finds data by it. But partitioners keep areas free that begin and end at its borders, and to leave the
same areas free is to be able to share a disk with them.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    #: (start sector, end sector inclusive, the 3 CHS bytes of each)
    Hint = tuple[int, int, bytes, bytes]

#: the last cylinder that 10 bits can name without being one of the marks for "beyond"
MAX_CYLINDER = 1021


class Geometry:
    """``heads`` per cylinder (1 to 255) and ``sectors`` per track (1 to 63)."""

    __slots__ = ("heads", "sectors")

    def __init__(self, heads: int, sectors: int) -> None:
        self.heads = heads
        self.sectors = sectors

    def __repr__(self) -> str:
        return f"Geometry({self.heads}, {self.sectors})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Geometry) and (self.heads, self.sectors) == (other.heads, other.sectors)

    __hash__ = None  # type: ignore[assignment]

    @property
    def cylinder(self) -> int:
        """Sectors in a cylinder."""
        return self.heads * self.sectors

    def encode(self, sector: int) -> bytes:
        """The three bytes of an MBR entry for ``sector``; the last cylinder's last place for what lies beyond."""
        cylinder, rest = divmod(sector, self.cylinder)
        if cylinder > 1023:
            return b"\xfe\xff\xff"
        head, track = divmod(rest, self.sectors)
        return bytes((head, track + 1 | cylinder >> 2 & 0xC0, cylinder & 0xFF))

    def decode(self, chs: bytes) -> int | None:
        """The sector that three bytes name; None when they name none."""
        cylinder, head, sector = split(chs)
        if cylinder > MAX_CYLINDER or not sector:
            return None
        return (cylinder * self.heads + head) * self.sectors + sector - 1


def split(chs: bytes) -> tuple[int, int, int]:
    """(cylinder, head, sector from 1) of the three bytes."""
    return chs[2] | (chs[1] & 0xC0) << 2, chs[0], chs[1] & 0x3F


def settle(given: Geometry, hints: Sequence[Hint]) -> Geometry:
    """The geometry in which a disk's partitions were made: ``given`` when they agree with it, or what they tell.

    ``hints``: those of an active partition first. When they tell nothing ``given`` stands.
    """
    if all(given.decode(first) == start and given.decode(last) == end for start, end, first, last in hints):
        return given
    for hint in hints:
        found = solve(*hint)
        if found is not None:
            return found
    return given


def solve(start: int, end: int, first: bytes, last: bytes) -> Geometry | None:
    """The only geometry in which ``first`` is sector ``start`` and ``last`` is ``end``; None if there is none.

    Two equations in two unknowns, the sectors of a cylinder and of a track:
    ``cylinder * c + head * t + sector - 1 = place``.
    """
    c1, h1, s1 = split(first)
    c2, h2, s2 = split(last)
    if not s1 or not s2 or h1 > 254 or h2 > 254 or c1 > c2 or c2 > MAX_CYLINDER or not c2:
        return None
    place1, place2 = start - (s1 - 1), end - (s2 - 1)
    determinant = c1 * h2 - c2 * h1
    if not determinant:
        return None
    cylinder, rest = divmod(place1 * h2 - place2 * h1, determinant)
    if rest or not 0 < cylinder <= 255 * 63:
        return None
    if h1:
        track, rest = divmod(place1 - c1 * cylinder, h1)
    elif h2:
        track, rest = divmod(place2 - c2 * cylinder, h2)
    else:
        return None
    if rest or not 0 < track <= 63 or cylinder % track or not 0 < cylinder // track < 256:
        return None
    found = Geometry(cylinder // track, track)
    return found if (found.decode(first), found.decode(last)) == (start, end) else None
