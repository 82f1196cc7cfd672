"""Completion: commands, devices, and the guest's paths."""

from __future__ import annotations

import os
import stat as _stat

from ...errors import CowshedError
from .fish import Fish
from .table import names

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable


def candidates(fish: Fish, before: str, word: str) -> list[str]:
    """What ``word`` can become, where ``before`` stands in front of it on the line."""
    if not before.strip(" \t-"):
        lead = "-" if word.startswith("-") else ""
        return [f"{lead}{name} " for name in names() if name.startswith(word[len(lead) :])]
    session = fish.session
    if not session.running or not word.startswith("/"):
        return []
    found: list[str] = []
    try:
        if word.startswith("/dev"):
            devices = session.devices
            known = (*devices.disks(), *devices.partitions(), *devices.volumes(), *devices.mapped)
            found += [f"{name} " for name in known if name.startswith(word)]
        if session.tree.mounts:
            folder, _, start = os.fsencode(word).rpartition(b"/")
            for name in session.tree.names(folder or b"/"):
                if name.startswith(start) and (start or not name.startswith(b".")):
                    path = folder + b"/" + name
                    directory = session.tree.exists(path) and _stat.S_ISDIR(session.tree.stat(path).mode)
                    found.append(os.fsdecode(path) + ("/" if directory else " "))
    except CowshedError:
        pass
    return sorted(set(found))


def completer(fish: Fish) -> Callable[[str, int], str | None]:
    """A function for readline."""
    found: list[str] = []

    def complete(word: str, state: int) -> str | None:
        nonlocal found
        if not state:
            import readline

            found = candidates(fish, readline.get_line_buffer()[: readline.get_begidx()], word)
        return found[state] if state < len(found) else None

    return complete
