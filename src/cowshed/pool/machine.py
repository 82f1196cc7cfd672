"""Which machine this is, which run of it, which of its directories: what tells whether somebody may be alive yet."""

from __future__ import annotations

import os
import time

from .record import digest

_machine = ""
_boot = ""


def machine() -> str:
    """Twelve digits that are this machine's, and don't give its id away."""
    global _machine
    if not _machine:
        _machine = digest((_line("/etc/machine-id") or os.uname().nodename).encode(), 6)
    return _machine


def boot() -> str:
    """The kernel's id of this run of the machine."""
    global _boot
    if not _boot:
        _boot = _line("/proc/sys/kernel/random/boot_id").replace("-", "") or "0" * 32
    return _boot


def booted() -> float:
    """When the machine was started, in seconds since the epoch."""
    return time.time() - time.clock_gettime(time.CLOCK_BOOTTIME)


def place(state: str) -> str:
    """Which state directory, seen from which mount namespace: in another one the same path is another directory."""
    try:
        space = os.readlink("/proc/self/ns/mnt")
    except OSError:
        space = ""
    return digest(f"{os.path.realpath(state)}\0{space}".encode(errors="surrogateescape"), 4)


def _line(path: str) -> str:
    try:
        with open(path, "rb") as file:
            return file.readline(256).decode("ascii", "replace").strip()
    except OSError:
        return ""
