"""All journal files of a directory in one order: forwards and backwards, entry by entry.

Two entries of one series are ordered by their numbers, of one boot by the monotonic clock, others by the wall clock;
what two files both have comes once.
"""

from __future__ import annotations

import errno

from ...errors import CowshedError
from ..filesystem.base import GuestError
from .file import Entry, JournalFile

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from ..tree import Place, Tree

#: journald keeps 100 files of each kind; hosts that collect have more
_MOST_FILES = 1024
#: pages of all files together that stay in memory
_PAGES = 2048


def open_directory(tree: Tree, path: bytes) -> Journal:
    """The journal in a directory: its files, and those in directories below it that are named after machines.

    Raises GuestError ENOENT, ENOTDIR.
    """
    files: list[JournalFile] = []
    skipped: list[str] = []
    place = tree.directory(path)
    for name in tree.names(path):
        child = tree.child(place, name)
        if child is None:
            continue
        if _is_machine(name) and child.stat().mode & 0o170000 == 0o040000:
            below = path.rstrip(b"/") + b"/" + name
            for inner in tree.names(below):
                found = tree.child(child, inner)
                if found is not None:
                    _add(files, skipped, found, inner)
        else:
            _add(files, skipped, child, name)
    return Journal(files, skipped)


def _is_machine(name: bytes) -> bool:
    head, _, _ = name.partition(b".")
    return len(head) == 32 and all(byte in b"0123456789abcdefABCDEF" for byte in head)


def _add(files: list[JournalFile], skipped: list[str], place: Place, name: bytes) -> None:
    """Open a file that is one by its name. One that can't be read is passed over, as journals are cut by crashes."""
    if not name.endswith((b".journal", b".journal~")):
        return
    if len(files) + len(skipped) >= _MOST_FILES:
        if len(skipped) < _MOST_FILES:
            skipped.append(f"{name.decode('utf-8', 'backslashreplace')}: there are more than {_MOST_FILES} files")
        return
    stat = place.stat()
    if stat.mode & 0o170000 != 0o100000:
        return
    fs, ino = place.mount.fs, place.number
    try:
        files.append(
            JournalFile(
                lambda offset, length: fs.read(ino, offset, length), stat.size, name.decode("utf-8", "surrogateescape")
            )
        )
    except CowshedError as error:
        skipped.append(str(error))


class _Cursor:
    """Where one file is: ``index`` of its next entry."""

    __slots__ = ("file", "index", "kept")

    def __init__(self, file: JournalFile) -> None:
        self.file = file
        self.index = 0
        self.kept: tuple[int, Entry] | None = None

    def entry(self, index: int) -> Entry | None:
        if not 0 <= index < self.file.count:
            return None
        if self.kept is None or self.kept[0] != index:
            self.kept = (index, self.file.entry(index))
        return self.kept[1]


class Journal:
    """``threshold``: bytes of a field that are wanted, a hint that is kept; ``skipped``: why files were passed over."""

    def __init__(self, files: list[JournalFile], skipped: list[str] | None = None) -> None:
        self._cursors = [_Cursor(file) for file in files]
        for file in files:
            file.keep = max(2, min(128, _PAGES // len(files)))
        self._here: tuple[_Cursor, Entry] | None = None
        self.threshold = 65536
        self.skipped = skipped or []

    def next(self) -> bool:
        """Go to the next entry; False at the end, where it stays at the last one."""
        best: tuple[_Cursor, Entry] | None = None
        for cursor, entry in self._look(0):
            if best is None or _before(cursor, entry, *best):
                best = (cursor, entry)
        if best is None:
            return False
        # others that have it too are past it as well
        for cursor, entry in self._look(0):
            if cursor is best[0] or _same(cursor, entry, *best):
                cursor.index += 1
        self._here = best
        return True

    def previous(self) -> bool:
        """Go to the entry before; False at the first one, where it stays."""
        if self._here is None:
            return False
        here = self._here
        back: list[_Cursor] = []
        for cursor, entry in self._look(-1):
            if cursor is here[0] or _same(cursor, entry, *here):
                cursor.index -= 1
                back.append(cursor)
        best: tuple[_Cursor, Entry] | None = None
        for cursor, entry in self._look(-1):
            if best is None or _before(*best, cursor, entry):
                best = (cursor, entry)
        if best is None:
            for cursor in back:
                cursor.index += 1
            return False
        self._here = best
        return True

    def skip(self, count: int) -> int:
        """Go ``count`` entries forwards, backwards when it is negative; returns how many it went."""
        step: Callable[[], bool] = self.next if count > 0 else self.previous
        done = 0
        while done < abs(count) and step():
            done += 1
        return done

    def _look(self, by: int) -> Iterator[tuple[_Cursor, Entry]]:
        """Each file's entry at its place. A file that is damaged there is left from then on."""
        for cursor in list(self._cursors):
            try:
                entry = cursor.entry(cursor.index + by)
            except CowshedError as error:
                self.skipped.append(str(error))
                self._cursors.remove(cursor)
                continue
            if entry is not None:
                yield cursor, entry

    # ---- the entry that it is at

    def _at(self) -> tuple[_Cursor, Entry]:
        if self._here is None:
            raise GuestError(errno.EADDRNOTAVAIL)
        return self._here

    @property
    def realtime(self) -> int:
        """Microseconds since the epoch. Raises GuestError EADDRNOTAVAIL before the first entry."""
        return self._at()[1].realtime

    def fields(self) -> Iterator[tuple[bytes, bytes]]:
        """(name, value) of each field in its order; damaged ones are passed over. Raises GuestError EADDRNOTAVAIL."""
        cursor, entry = self._at()
        for offset in entry.items:
            try:
                yield cursor.file.field(offset)
            except CowshedError as error:
                if len(self.skipped) < 1000:
                    self.skipped.append(str(error))


def _before(one: _Cursor, first: Entry, other: _Cursor, second: Entry) -> bool:
    """Does the first come before the second?"""
    if one.file.series == other.file.series and first.seqnum != second.seqnum:
        return first.seqnum < second.seqnum
    if first.boot == second.boot and first.monotonic != second.monotonic:
        return first.monotonic < second.monotonic
    if first.realtime != second.realtime:
        return first.realtime < second.realtime
    return first.xor < second.xor


def _same(one: _Cursor, first: Entry, other: _Cursor, second: Entry) -> bool:
    if one.file.series == other.file.series:
        return first.seqnum == second.seqnum
    return (
        first.boot == second.boot
        and first.monotonic == second.monotonic
        and first.realtime == second.realtime
        and first.xor == second.xor
    )
