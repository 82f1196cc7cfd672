"""What is known of each file of a pool, so that a listing opens only what changed.

A cache and nothing else: an entry counts only for a file with the same device, inode, size, modification and change
time, and is made only when the change time is safely in the past, because a file can change twice within one tick of
its file system's clock. A file that is missing, damaged, or of another version is an empty index.
"""

from __future__ import annotations

import os

from .backend.probe import RAW, Facts

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

VERSION = 1
_SECOND = 1_000_000_000
#: longest tick of a file system's clock that counts nanoseconds, with room to spare
_TICK = 50_000_000
#: the same for one that counts seconds, or two
_COARSE_TICK = 2_100_000_000
#: a bigger file isn't read: 10 000 entries take about a megabyte
_LIMIT = 256 << 20


class Index:
    """The known facts of one directory, by name. ``path``: where they are kept, None to keep them nowhere.

    ``patient``: the times are another machine's, whose clock need not agree with ours: a file must look the same for
    two seconds of our own time before it is believed.
    """

    def __init__(self, path: str | None, *, patient: bool = False) -> None:
        self.path = path
        self.patient = patient
        self.entries: dict[str, list[Any]] = {}
        self._changes = 0
        self._loaded = False

    def load(self) -> None:
        """Read what is there; a bad file is as good as none."""
        if self._loaded:
            return
        self._loaded = True
        if self.path is None:
            return
        from json import loads

        try:
            with open(self.path, "rb") as file:
                data = loads(file.read(_LIMIT))
        except (OSError, ValueError, RecursionError):
            return
        if isinstance(data, dict) and data.get("version") == VERSION and isinstance(data.get("entries"), dict):
            self.entries = data["entries"]

    def get(self, name: str, status: os.stat_result) -> Facts | None:
        """The facts of ``name``, which has ``status`` now; None when they are not known for certain."""
        entry = self.entries.get(name)
        try:
            if (
                entry is None
                or entry[2] != status.st_mtime_ns
                or entry[3] != status.st_ctime_ns
                or entry[1] != status.st_size
                or entry[0] != status.st_ino
                or entry[4] != status.st_dev
            ):
                return None
            if self.patient and entry[6] is not True:
                return None
            facts = entry[5]
            if facts == 0 and type(facts) is int:
                return RAW
            return Facts.unpack(facts)
        except (TypeError, IndexError, KeyError, ValueError):
            return None

    def put(self, name: str, status: os.stat_result, facts: Facts, now: int) -> None:
        """Remember ``facts``, read from the file with ``status`` (its status was the same after reading as before).

        ``now``: nanoseconds since the epoch, from before the file was read.
        """
        entry: list[Any] = [
            status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_dev, facts.pack(),
        ]  # fmt: skip
        if self.patient:
            old = self.entries.get(name)
            seen = now
            if isinstance(old, list) and len(old) == 7 and old[:5] == entry[:5] and type(old[6]) is int:
                seen = min(old[6], now)
            entry.append(True if now - seen > _COARSE_TICK else seen)
        else:
            age = now - status.st_ctime_ns
            if age < _TICK or (age < _COARSE_TICK and not status.st_ctime_ns % _SECOND):
                if self.entries.pop(name, None) is not None:
                    self._changes += 1
                return
        self.entries[name] = entry
        self._changes += 1

    def forget_all_but(self, names: dict[str, Any] | set[str]) -> None:
        """Drop the entries of files that are gone."""
        if len(self.entries) > len(names) + 16:
            self.entries = {name: entry for name, entry in self.entries.items() if name in names}
            self._changes += 1

    def save(self) -> None:
        """Write it down where that saves more than it costs. Never raises: it is only a cache."""
        if self.path is None or self._changes <= len(self.entries) >> 6:
            return
        from json import dumps

        temporary = f"{self.path}.{os.getpid()}.tmp"
        try:
            os.makedirs(os.path.dirname(self.path), mode=0o700, exist_ok=True)
            fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
            try:
                text = dumps({"version": VERSION, "entries": self.entries}, separators=(",", ":")).encode("ascii")
                view = memoryview(text)
                while view:
                    view = view[os.write(fd, view) :]
            finally:
                os.close(fd)
            os.rename(temporary, self.path)
            self._changes = 0
        except OSError:
            try:
                os.unlink(temporary)
            except OSError:
                pass
