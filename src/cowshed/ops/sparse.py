"""Zeroes in buffers: where they are, at the granularity at which a target can leave them out."""

from __future__ import annotations

SECTOR = 512

#: more than the largest buffer that is looked at in one piece (a cluster of 2 MiB)
ZEROES = bytes(2 << 20)
_STARTSWITH = ZEROES.startswith  # compares any buffer, of any length, without a copy


def is_zero(view: memoryview) -> bool:
    """Does a buffer hold nothing but zeroes?"""
    if len(view) <= len(ZEROES):
        return _STARTSWITH(view)
    return all(_STARTSWITH(view[at : at + len(ZEROES)]) for at in range(0, len(view), len(ZEROES)))


def power_below(number: int) -> int:
    """The largest power of two that is not above ``number`` (>= 1)."""
    return 1 << (number.bit_length() - 1)


def split(view: memoryview, phase: int, grain: int, least: int) -> list[tuple[int, int, bool]]:
    """Split a buffer into runs ``(start, stop, is_data)``.

    ``phase``: the place of the buffer's first byte, of which only the remainder by ``grain`` matters. Blocks of
    ``grain`` bytes (a power of two) are looked at as they lie in the disk; runs of zeroes shorter than ``least``
    between data count as data. At most 2 MiB at a time.
    """
    length = len(view)
    first = -phase % grain
    if first >= length:
        return [(0, length, not _STARTSWITH(view))]
    # A block can only be zero when its first byte is: that much is seen without touching the rest.
    probe = bytes(view[first::grain])
    runs: list[tuple[int, int, bool]] = []
    edge = 0  # end of what has been decided on
    if first and _STARTSWITH(view[:first]):
        runs.append((0, first, False))
        edge = first
    at = probe.find(0)
    while at >= 0:
        rest = probe[at:]
        count = len(rest) - len(rest.lstrip(b"\0"))
        start = first + at * grain
        stop = min(start + count * grain, length)
        if _STARTSWITH(view[start:stop]):
            edge = _zero(runs, edge, start, stop)
        else:
            for low in range(start, stop, grain):
                high = low + grain
                if _STARTSWITH(view[low : high if high < length else length]):
                    edge = _zero(runs, edge, low, min(high, length))
        at = probe.find(0, at + count)
    if edge < length:
        runs.append((edge, length, True))
    if least > grain or first or length % grain:
        return _without_short(runs, least)
    return runs


def _zero(runs: list[tuple[int, int, bool]], edge: int, start: int, stop: int) -> int:
    """Note zeroes at [start, stop), and data from ``edge`` up to there; neighbouring zeroes are joined."""
    if start > edge:
        runs.append((edge, start, True))
    elif runs:
        start = runs.pop()[0]
    runs.append((start, stop, False))
    return stop


def _without_short(runs: list[tuple[int, int, bool]], least: int) -> list[tuple[int, int, bool]]:
    """Runs of zeroes of less than ``least`` bytes with data on both sides become data."""
    joined: list[tuple[int, int, bool]] = []
    last = len(runs) - 1
    for index, (start, stop, data) in enumerate(runs):
        data = data or (stop - start < least and 0 < index < last)
        if data and joined and joined[-1][2]:
            joined[-1] = (joined[-1][0], stop, True)
        else:
            joined.append((start, stop, data))
    return joined
