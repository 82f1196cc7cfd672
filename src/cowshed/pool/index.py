"""What is known of each file of a pool, so that a listing opens only what changed.

A cache and nothing else: an entry counts only for a file with the same device, inode, size, modification and change
time, and is made only when the change time is safely in the past, because a file can change twice within one tick of
its file system's clock. A file that is missing, damaged, or of another version is an empty index.

    header   magic and version (16 bytes), number of entries, bytes of names, bytes of facts, CRC-32 of all that follows
    rows     per entry: inode, size, mtime, ctime, device (the status that the facts belong to), when it was first seen
    facts    per entry: number of its facts in the table of facts, 32 bits
    names    of the entries, each ending with a NUL
    table    JSON: the distinct facts
"""

from __future__ import annotations

import os
import struct

from .backend.probe import RAW, Facts
from .record import dump, load

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Container, Sequence
    from typing import Any

#: facts that are not worth loading a library for
_SMALL = 100
_MAGIC = b"cowshed index 1\n"
_HEADER = struct.Struct("<16sIIII")
_STATUS = struct.Struct("<QQqqQ")
_ROW = struct.Struct("<QQqqQq")
_ROW_SIZE = _ROW.size
_STATUS_SIZE = _STATUS.size

_SECOND = 1_000_000_000
#: longest tick of a file system's clock that counts nanoseconds, with room to spare
_TICK = 50_000_000
#: the same for one that counts seconds, or two
_COARSE_TICK = 2_100_000_000
#: "first seen" of what has looked the same for long enough
_SETTLED = -1
#: a bigger file isn't read: 10 000 entries take half a megabyte
_LIMIT = 256 << 20


class Index:
    """The known facts of one directory, by name. ``path``: where they are kept, None to keep them nowhere.

    ``patient``: the times are another machine's, whose clock need not agree with ours: a file must look the same for
    two seconds of our own time before it is believed.
    """

    def __init__(self, path: str | None, *, patient: bool = False) -> None:
        self.path = path
        self.patient = patient
        self._rows = b""
        self._numbers: Sequence[int] = ()
        self._places: dict[str, int] = {}
        self._table: list[Facts] = []
        #: what was learned since: (row, facts)
        self._new: dict[str, tuple[bytes, Facts]] = {}
        self._dropped = 0

    def load(self) -> None:
        """Read what is there; a bad file is as good as none."""
        if self.path is None:
            return
        try:
            with open(self.path, "rb") as file:
                data = file.read(_LIMIT)
            self._parse(data)
        except (OSError, ValueError, TypeError, RecursionError, struct.error):
            self._rows, self._numbers, self._places, self._table = b"", (), {}, []

    def _parse(self, data: bytes) -> None:
        from zlib import crc32

        magic, count, names_size, facts_size, check = _HEADER.unpack_from(data)
        rows_end = _HEADER.size + count * _ROW_SIZE
        names_at = rows_end + count * 4
        facts_at = names_at + names_size
        view = memoryview(data)
        if magic != _MAGIC or len(data) != facts_at + facts_size or crc32(view[_HEADER.size :]) != check:
            raise ValueError
        names = data[names_at:facts_at].decode("utf-8", "surrogateescape").split("\0")
        table = [Facts.unpack(packed) for packed in _reader(facts_size)(data[facts_at:])]
        numbers = view[rows_end:names_at].cast("I")
        if names.pop() or len(names) != count or (count and max(numbers) >= len(table)):
            raise ValueError
        self._rows = data[_HEADER.size : rows_end]
        self._numbers = numbers
        self._places = dict(zip(names, range(count), strict=True))
        self._table = table

    def get(self, name: str, status: os.stat_result) -> Facts | None:
        """The facts of ``name``, which has ``status`` now; None when they are not known for certain."""
        place = self._places.get(name)
        if place is None or name in self._new:
            return None
        at = place * _ROW_SIZE
        known = self._rows[at : at + _STATUS_SIZE]
        if known != _STATUS.pack(status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_dev):
            return None
        if self.patient and _ROW.unpack_from(self._rows, at)[5] != _SETTLED:
            return None
        return self._table[self._numbers[place]]

    def put(self, name: str, status: os.stat_result, facts: Facts, now: int) -> None:
        """Remember ``facts``, read from the file with ``status`` (its status was the same after reading as before).

        ``now``: nanoseconds since the epoch, from before the file was read.
        """
        row = _STATUS.pack(status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_dev)
        seen = _SETTLED
        if self.patient:
            seen = now
            place = self._places.get(name)
            if place is not None:
                at = place * _ROW_SIZE
                before = _ROW.unpack_from(self._rows, at)[5]
                if self._rows[at : at + _STATUS_SIZE] == row and 0 <= before <= now:
                    seen = _SETTLED if now - before > _COARSE_TICK else before
        else:
            age = now - status.st_ctime_ns
            if age < _TICK or (age < _COARSE_TICK and not status.st_ctime_ns % _SECOND):
                return  # what is known of it is about another status, and never matches again
        self._new[name] = row + struct.pack("<q", seen), facts

    def keep(self, names: Container[str]) -> None:
        """Drop the entries of files that are gone."""
        places = {name: place for name, place in self._places.items() if name in names}
        self._dropped += len(self._places) - len(places)
        self._places = places

    def save(self) -> None:
        """Write it down where that saves more than it costs. Never raises: it is only a cache."""
        if self.path is None or len(self._new) + (self._dropped >> 2) <= len(self._places) >> 6:
            return
        temporary = f"{self.path}.{os.getpid()}.{os.urandom(4).hex()}"
        try:
            data = self._packed()
            os.makedirs(os.path.dirname(self.path), mode=0o700, exist_ok=True)
            fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
            try:
                view = memoryview(data)
                while view:
                    view = view[os.write(fd, view) :]
                os.close(fd)
                os.rename(temporary, self.path)
            except BaseException:
                os.unlink(temporary)
                raise
        except OSError:
            pass

    def _packed(self) -> bytes:
        from zlib import crc32

        dumps = _writer(len(self._table) + len(self._new))
        table: dict[str, int] = {}
        numbers: list[int] = []
        rows = []
        names = []
        texts = [dumps(facts.pack()) for facts in self._table]
        for name, place in self._places.items():
            if name not in self._new:
                names.append(name)
                rows.append(self._rows[place * _ROW_SIZE : (place + 1) * _ROW_SIZE])
                numbers.append(table.setdefault(texts[self._numbers[place]], len(table)))
        raw = dumps(RAW.pack())
        for name, (row, facts) in self._new.items():
            names.append(name)
            rows.append(row)
            numbers.append(table.setdefault(raw if facts is RAW else dumps(facts.pack()), len(table)))
        joined = "".join(f"{name}\0" for name in names).encode("utf-8", "surrogateescape")
        facts_text = ("[" + ",".join(table) + "]").encode("ascii")
        body = b"".join((*rows, struct.pack(f"={len(numbers)}I", *numbers), joined, facts_text))
        return _HEADER.pack(_MAGIC, len(names), len(joined), len(facts_text), crc32(body)) + body


def _reader(size: int) -> Callable[[bytes], Any]:
    """What reads so many bytes of JSON soonest: the library's takes as long to load as thousands of facts to read."""
    if size < _SMALL * 64:
        return load
    from json import loads

    return loads


def _writer(count: int) -> Callable[[Any], str]:
    if count < _SMALL:
        return lambda facts: dump(facts)[:-1].decode("ascii")
    from json import dumps

    return dumps
