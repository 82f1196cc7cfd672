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
    runs: list[tuple[int, int, bool]] = []
    edge = 0  # end of what has been decided on
    if first and _STARTSWITH(view[:first]):
        runs.append((0, first, False))
        edge = first
    # A block can only be zero when its first bytes are: those are seen without touching the rest.
    words = (length - first) // 8
    probe = view[first : first + words * 8].cast("Q")[:: grain // 8].tolist()
    if not words * 8 % grain and first + words * 8 < length:
        probe.append(0)  # the last block is shorter than that
    count = len(probe)
    probe.append(0)  # one is found in the end
    at = probe.index(0)
    while at < count:
        start = first + at * grain
        at += 1
        if not _STARTSWITH(view[start : start + grain]):
            at = probe.index(0, at)
            continue
        # a long run is looked at in ever longer steps
        step = 1
        while at < count and not probe[at]:
            step = min(step * 2, count - at)
            low = first + at * grain
            if not _STARTSWITH(view[low : low + step * grain]):
                if step == 1:
                    break
                step = 1
                if not _STARTSWITH(view[low : low + grain]):
                    break
            at += step
        edge = _zero(runs, edge, start, min(first + at * grain, length))
        at = probe.index(0, at)
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
