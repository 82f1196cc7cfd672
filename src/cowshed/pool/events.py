"""What happened to pools and secrets, told to other processes: lines of JSON in a file that is never long.

Writers append under a lock; a file that has grown to its limit is set aside (one is kept) and a new one begun. Readers
follow the file they have open to its end before they go to the next, so nothing is lost between the two.
"""

from __future__ import annotations

import os
import time

from . import locks
from .record import dump, load

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

_LIMIT = 256 << 10
#: seconds between two looks at the file
_POLL = 0.2


class Event:
    """``kind``: "lifecycle" (``event`` is Defined, Undefined, Created, Started, Stopped or Deleted), "refresh",
    "recovered" (``text`` says what), "secret" (``event`` is Defined or Undefined) or "secret-value"; ``name`` and
    ``uuid`` of the pool, or the secret; ``time`` in seconds since the epoch."""

    __slots__ = ("event", "kind", "name", "text", "time", "uuid")

    def __init__(self, kind: str, name: str, uuid: str, event: str, text: str, time: float) -> None:
        self.kind = kind
        self.name = name
        self.uuid = uuid
        self.event = event
        self.text = text
        self.time = time

    def __repr__(self) -> str:
        return f"Event({self.kind!r}, {self.name!r}, {self.event or self.text!r})"


class Events:
    """The events of one state directory."""

    def __init__(self, directory: str) -> None:
        self.path = os.path.join(directory, "events")

    def add(self, kind: str, *, pool: str = "", uuid: str | None = None, event: str = "", text: str = "") -> None:
        """Tell others. What was done stays done when that can't be told: nothing is raised."""
        record = {"time": time.time(), "kind": kind, "name": pool, "uuid": uuid or "", "event": event, "text": text}
        line = dump(record)
        try:
            # nobody else's to open: whoever may read a file may lock it, and everybody would wait
            fd = locks.open_locked(self.path, timeout=5.0)
            if fd is None:
                return
            try:
                size = os.fstat(fd).st_size
                if size and os.pread(fd, 1, size - 1) != b"\n":
                    line = b"\n" + line  # the last writer died in the middle of its line
                os.pwrite(fd, line, size)
                if size > _LIMIT:
                    os.rename(self.path, self.path + ".old")
            finally:
                os.close(fd)
        except OSError:
            pass

    def follow(self, since: float | None = None, timeout: float | None = None) -> Follower:
        """Events from now on, or from the time ``since`` (as far as they are kept); for ``timeout`` seconds, or on and
        on. From now means from this call."""
        return Follower(self.path, since, timeout)


class Follower:
    """An iterator over events; waits for the next one until ``timeout`` is over."""

    def __init__(self, path: str, since: float | None, timeout: float | None) -> None:
        self.path = path
        self.since = since
        self.deadline = None if timeout is None else time.monotonic() + timeout
        self._fd = -1
        self._offset = 0
        self._rest = b""
        self._ready: list[Event] = []
        if since is None:
            self._open(at_end=True)
        else:
            try:
                with open(path + ".old", "rb") as file:
                    self._take(file.read())
            except OSError:
                pass
            self._rest = b""

    def _open(self, at_end: bool = False) -> None:
        try:
            self._fd = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            return
        self._offset = os.fstat(self._fd).st_size if at_end else 0
        self._rest = b""

    def _take(self, data: bytes) -> None:
        lines = (self._rest + data).split(b"\n")
        self._rest = lines.pop()
        for line in lines:
            try:
                found = load(line)
                event = Event(
                    str(found["kind"]), str(found["name"]), str(found["uuid"]), str(found["event"]),
                    str(found["text"]), float(found["time"]),
                )  # fmt: skip
            except (ValueError, KeyError, TypeError):
                continue
            if self.since is None or event.time >= self.since:
                self._ready.append(event)

    def _look(self) -> None:
        while True:
            if self._fd < 0:
                self._open()
                if self._fd < 0:
                    return
            # asked before reading: what the old file gets until it is set aside is read below
            try:
                there = os.stat(self.path)
                mine = os.fstat(self._fd)
                moved = (there.st_dev, there.st_ino) != (mine.st_dev, mine.st_ino)
            except FileNotFoundError:
                moved = True
            while data := os.pread(self._fd, 65536, self._offset):
                self._offset += len(data)
                self._take(data)
            if not moved:
                return
            self.close()
            if not os.path.exists(self.path):
                return

    def __iter__(self) -> Iterator[Event]:
        return self

    def __next__(self) -> Event:
        while not self._ready:
            self._look()
            if self._ready:
                break
            wait = _POLL
            if self.deadline is not None:
                wait = min(wait, self.deadline - time.monotonic())
                if wait <= 0:
                    self.close()
                    raise StopIteration
            time.sleep(wait)
        return self._ready.pop(0)

    def close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def __del__(self) -> None:
        self.close()
