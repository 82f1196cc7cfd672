"""The ``record`` filter: passes everything through, and keeps a log of every change in the order in which it was made.

The log is what a disk saw: writes, zeroed and discarded ranges, changes of length, flushes. From it the states that
a power cut may leave can be rebuilt (`replay`-ing a part of it onto a copy of the file as it was before).

Data is not kept in memory: each block goes once into a store file, which has no name and a bounded length, and the
log refers to it.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
from _thread import allocate_lock

from ...errors import HostError, host_error
from ...progress import QUIET
from ..node import DATA, Extent, Node

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

    from ...progress import Progress
    from ..node import Buffer

WRITE = "write"
ZERO = "zero"
DISCARD = "discard"
RESIZE = "resize"
FLUSH = "flush"

#: bytes of different data that a log may hold unless it is given another bound
STORE_LIMIT = 4 << 30
#: data is stored, and compared with what is stored, in blocks of up to this size
_BLOCK = 1 << 20


class Event:
    """One change. ``kind``: WRITE, ZERO, DISCARD, RESIZE or FLUSH. ``offset``, ``length``: bytes of the file.

    RESIZE: ``length`` is the new length and ``offset`` the old one. ``places``: where a WRITE's data is in the store,
    (offset, length) in order. ``unmap``: a ZERO that may give the space back. ``name``: which of the files that share
    the log.
    """

    __slots__ = ("kind", "length", "name", "offset", "places", "unmap")

    def __init__(
        self,
        kind: str,
        offset: int = 0,
        length: int = 0,
        places: tuple[tuple[int, int], ...] = (),
        unmap: bool = False,
        name: str = "",
    ) -> None:
        self.kind = kind
        self.name = name
        self.offset = offset
        self.length = length
        self.places = places
        self.unmap = unmap

    def __repr__(self) -> str:
        what = f"{self.kind} {self.name}".rstrip()
        if self.kind == FLUSH:
            return f"<{what}>"
        if self.kind == RESIZE:
            return f"<{what} {self.offset:#x} to {self.length:#x}>"
        return f"<{what} {self.offset:#x}+{self.length:#x}>"


class Log:
    """What was done to one file, or to several, in order: ``events``."""

    def __init__(self, limit: int = STORE_LIMIT) -> None:
        """``limit``: bytes of different data that may be kept; beyond it a recorded write raises HostError."""
        self.events: list[Event] = []
        self._lock = allocate_lock()
        self.limit = limit
        self.stored = 0
        self._known: dict[bytes, tuple[int, int]] = {}
        self._store = tempfile.TemporaryFile(buffering=0)  # noqa: SIM115 (closed with the log)

    def __enter__(self) -> Log:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def close(self) -> None:
        """Forget the data; the events stay."""
        self._store.close()
        self._known.clear()

    def add_write(self, offset: int, data: memoryview, name: str = "") -> None:
        """Log a write. Raises HostError when the store is full."""
        with self._lock:
            self.events.append(Event(WRITE, offset, len(data), self._keep(data), name=name))

    def _keep(self, data: memoryview) -> tuple[tuple[int, int], ...]:
        """Put what is new of ``data`` into the store."""
        places = []
        for start in range(0, len(data), _BLOCK):
            block = data[start : start + _BLOCK]
            key = hashlib.blake2b(block, digest_size=16).digest()
            place = self._known.get(key)
            if place is None:
                if self.stored + len(block) > self.limit:
                    raise HostError(
                        "The log's store is full", layer="record", value=self.stored, limit=self.limit, errno=28
                    )
                place = self._known[key] = (self.stored, len(block))
                try:
                    view = block
                    while view:
                        done = os.pwrite(self._store.fileno(), view, self.stored)
                        self.stored += done
                        view = view[done:]
                except OSError as error:
                    raise host_error(error, "Could not log a write") from error
            places.append(place)
        return tuple(places)

    def add(self, kind: str, offset: int = 0, length: int = 0, unmap: bool = False, name: str = "") -> None:
        with self._lock:
            self.events.append(Event(kind, offset, length, (), unmap, name))

    def data(self, event: Event) -> bytes:
        """The bytes of a WRITE."""
        return b"".join(os.pread(self._store.fileno(), length, place) for place, length in event.places)


class RecordNode(Node):
    """``file`` with a log of its changes, under ``name``. Only what succeeded is logged."""

    driver = "record"
    is_filter = True
    slack = 64 << 20

    def __init__(self, file: Node, log: Log, name: str = "") -> None:
        super().__init__(file.filename, file.read_only)
        self.children["file"] = file
        self.log = log
        self.name = name

    # the wrapped node's facts are this one's

    @property
    def size(self) -> int:
        return self.children["file"].size

    @size.setter
    def size(self, value: int) -> None:
        # a Node begins with a size of its own, before it has children
        if "file" in self.children:
            self.children["file"].size = value

    @property
    def zero_align(self) -> int:  # type: ignore[override]
        return self.file.zero_align

    @property
    def cluster_size(self) -> int:  # type: ignore[override]
        return self.file.cluster_size

    @property
    def has_zero_init(self) -> bool:  # type: ignore[override]
        return self.file.has_zero_init

    def __getattr__(self, name: str) -> Any:
        """What a protocol has beyond the interface (``refresh``, ``locks`` …), except its file descriptor."""
        if name.startswith("_") or name in ("children", "fd"):
            raise AttributeError(name)
        return getattr(self.children["file"], name)

    def layer_extents(self, offset: int, length: int) -> Iterator[Extent]:
        if length:
            yield Extent(offset, length, DATA, self.file, offset, 0, self)

    def read_into(self, offset: int, view: memoryview) -> None:
        self.file.read_into(offset, view)

    # changes

    def write(self, offset: int, data: Buffer) -> None:
        view = memoryview(data).cast("B")
        with self.lock:
            self.file.write(offset, view)
            if len(view):
                self.log.add_write(offset, view, self.name)

    def write_zeroes(self, offset: int, length: int, unmap: bool = False) -> None:
        with self.lock:
            self.file.write_zeroes(offset, length, unmap)
            if length:
                self.log.add(ZERO, offset, length, unmap, self.name)

    def zero_range(self, offset: int, length: int, unmap: bool) -> bool:
        with self.lock:
            done = self.file.zero_range(offset, length, unmap)
            if done:
                self.log.add(ZERO, offset, length, unmap, self.name)
            return done

    def discard(self, offset: int, length: int) -> None:
        with self.lock:
            self.file.discard(offset, length)
            if length:
                self.log.add(DISCARD, offset, length, name=self.name)

    def resize(self, size: int, preallocation: str = "off", progress: Progress = QUIET) -> None:
        with self.lock:
            old = self.size
            self.file.resize(size, preallocation, progress)
            self.log.add(RESIZE, old, size, name=self.name)

    def preallocate(self, offset: int, length: int) -> None:
        """Space is reserved; what is read stays as it is, and so there is nothing to log."""
        self.file.preallocate(offset, length)  # type: ignore[attr-defined]

    def flush(self) -> None:
        with self.lock:
            self.file.flush()
            cache = getattr(self.file, "cache", None)
            # with cache mode "unsafe" nothing was flushed
            if not self.file.read_only and not (cache is not None and cache.no_flush):
                self.log.add(FLUSH, name=self.name)

    def allocated_bytes(self) -> int | None:
        return self.file.allocated_bytes()
