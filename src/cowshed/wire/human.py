"""Sizes as qemu's tools print them for people: ``3 MiB``, ``196 KiB``, ``1.21 MiB``."""

from __future__ import annotations

_UNITS = ("B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB")


def size(count: int) -> str:
    """``count`` bytes (>= 0) with three significant digits and the unit in which the number stays below 1000."""
    unit = 0
    # 1000 of a unit, not 1024, is where the next one begins; in doubles, as the text comes from doubles.
    while unit < 6 and count / 0.9765625 >= 1 << (10 * unit + 10):
        unit += 1
    return f"{count / (1 << (10 * unit)):.3g} {_UNITS[unit]}"


def size_and_bytes(count: int) -> str:
    """``3 MiB (3145728 bytes)``."""
    return f"{size(count)} ({count} bytes)"
