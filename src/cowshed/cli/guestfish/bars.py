"""Progress bars for commands that move many bytes: what they move in all, and the bar while they do."""

from __future__ import annotations

import os
import stat as _stat

from ...errors import CowshedError
from ...progress import QUIET, Progress
from ..progress import Bar

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from .fish import Fish
    from .table import Command


class Watched:
    """A context manager around a command: shows how far it is on a terminal's standard error."""

    def __init__(self, fish: Fish, known: Command, values: Sequence[object]) -> None:
        self.fish = fish
        self.known = known
        self.values = values

    def __enter__(self) -> None:
        fish = self.fish
        if not fish.out.watched or (fish.out.tty and "-" in self.values):
            return
        total = total_of(fish, self.known, self.values)
        if total:
            fish.bar = Bar(fish.out)
            fish.session.tree.progress = Progress(self.known.name, fish.bar.show)
            fish.session.tree.progress.start(total)

    def __exit__(self, *rest: object) -> None:
        bar, self.fish.bar = self.fish.bar, None
        self.fish.session.tree.progress = QUIET
        if bar is not None:
            bar.clear()


def total_of(fish: Fish, known: Command, values: Sequence[object]) -> int:
    """Bytes that a command will read from or write to files of the guest; 0 where nobody knows before."""
    name = known.name
    try:
        if name in ("upload", "upload-offset", "tar-in"):
            return _file(str(values[0]))
        if name in ("download", "checksum"):
            return _guest(fish, values[1 if name == "checksum" else 0])
        if name == "download-offset":
            return values[3] if isinstance(values[3], int) else 0
        if name in ("tar-out", "tgz-out", "txz-out", "checksums-out"):
            return _guest(fish, values[1 if name == "checksums-out" else 0])
        if name in ("cp", "cp-a", "cp-r"):
            # read here and written there
            return 2 * _guest(fish, values[0])
        words = values[0] if values else None
        if name == "copy-out" and isinstance(words, list):
            return sum(_guest(fish, os.fsencode(word)) for word in words[:-1])
        if name == "copy-in" and isinstance(words, list):
            return _host(words[:-1])
    except (CowshedError, OSError):
        # the command itself will say what is wrong
        pass
    return 0


def _file(name: str) -> int:
    facts = os.stat(name)
    return facts.st_size if _stat.S_ISREG(facts.st_mode) else 0


def _guest(fish: Fish, path: object) -> int:
    if not isinstance(path, bytes):
        return 0
    tree = fish.session.tree
    place = tree.resolve(path)
    if _stat.S_ISREG(place.stat().mode):
        return place.stat().size
    return sum(found.stat.size for found in tree.walk(place) if _stat.S_ISREG(found.stat.mode))


def _host(names: Iterable[str]) -> int:
    total = 0
    for name in names:
        if not os.path.isdir(name) or os.path.islink(name):
            total += os.lstat(name).st_size
            continue
        for folder, _, files in os.walk(name):
            for each in files:
                facts = os.lstat(os.path.join(folder, each))
                total += facts.st_size if _stat.S_ISREG(facts.st_mode) else 0
    return total
