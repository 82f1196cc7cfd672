"""Walks and patterns of a guest's paths, as pathlib has them. What is damaged is told (CorruptError), never left out.

A walk looks again when the tree has changed while it was under way. A directory is entered once, so that each ends.
"""

from __future__ import annotations

import fnmatch
import re
import stat as _stat

from ..errors import CorruptError
from .filesystem.base import GuestError
from .oserror import os_error
from .place import shown

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from .path import GuestPath
    from .place import Place

_MAGIC = re.compile(rb"[*?\[]")
_LETTERS = {_stat.S_IFDIR: "d", _stat.S_IFLNK: "l"}


class Folder:
    """A directory that a walk has come to."""

    __slots__ = ("_above", "_place", "_touches", "path")

    def __init__(self, path: GuestPath, above: Folder | None = None) -> None:
        self.path = path
        self._above = above
        self._place: Place | None = None
        self._touches = -1

    def place(self) -> Place:
        """Raises GuestError ENOENT, ENOTDIR when it is a directory no more."""
        tree = self.path.session.tree
        if self._place is None or tree.touches != self._touches:
            found: Place | None = None
            if self._above is not None and self._above._place is not None and tree.touches == self._above._touches:
                found = tree.child(self._above._place, self.path._raw.rpartition(b"/")[2])
            if found is None or not _stat.S_ISDIR(found.stat().mode):
                found = tree.directory(self.path._raw)
            self._place = found
            self._touches = tree.touches
        return self._place

    def key(self) -> tuple[int, int]:
        with self.path.session.lock:
            place = self.place()
            return id(place.mount), place.number

    def rows(self) -> list[tuple[bytes, str]]:
        """(name, letter) of what is in it, sorted: d directory, l symbolic link, others as readdir has them."""
        with self.path.session.lock:
            place = self.place()
            found = []
            for name, _, kind in place.mount.fs.entries(place.number):
                if name in (b".", b".."):
                    continue
                if not name or b"/" in name or b"\0" in name:
                    raise CorruptError(
                        f"the directory {self.path} holds an impossible name",
                        layer=place.mount.fs.kind, field="name", value=shown(name),
                    )  # fmt: skip
                if kind == "u":
                    child = self.path.session.tree.child(place, name)
                    kind = _LETTERS.get(_stat.S_IFMT(child.stat().mode), "r") if child is not None else "r"
                found.append((name, kind))
        found.sort()
        return found


def again(path: GuestPath) -> CorruptError:
    return CorruptError(f"the directory {path} appears more than once in its file system", field="inode")


# ---- walk


def walk(
    top: GuestPath, top_down: bool, on_error: Callable[[OSError], object] | None, follow: bool
) -> Iterator[tuple[GuestPath, list[str], list[str]]]:
    seen: set[tuple[int, int]] = set()
    todo: list[Folder | tuple[GuestPath, list[str], list[str]]] = [Folder(top)]
    while todo:
        folder = todo.pop()
        if isinstance(folder, tuple):
            yield folder
            continue
        try:
            key = folder.key()
            if key in seen:
                # a second way to it: by a link it is nothing new, by a name it is damage
                if follow:
                    continue
                raise again(folder.path)
            seen.add(key)
            rows = folder.rows()
        except GuestError as error:
            if on_error is not None:
                on_error(os_error(error, str(folder.path)))  # type: ignore[arg-type]
            continue
        folders: list[str] = []
        files: list[str] = []
        for raw, letter in rows:
            name = shown(raw)
            inside = letter == "d" or (follow and letter == "l" and (folder.path / raw).is_dir())
            (folders if inside else files).append(name)
        if top_down:
            yield folder.path, folders, files
        else:
            todo.append((folder.path, folders, files))
        todo += [Folder(folder.path / name, folder) for name in reversed(folders)]


# ---- glob


def _matcher(part: bytes, case: bool) -> Callable[[bytes], bool]:
    """Does a name match a shell pattern? Names that begin with a dot are names like others."""
    found = re.compile(fnmatch.translate(part.decode("latin-1")), 0 if case else re.IGNORECASE)
    return lambda name: found.match(name.decode("latin-1")) is not None


def glob(path: GuestPath, pattern: bytes, case: bool, follow: bool) -> Iterator[GuestPath]:
    """Raises ValueError for an empty pattern, NotImplementedError for an absolute one."""
    if pattern.startswith(b"/"):
        raise NotImplementedError("Non-relative patterns are unsupported")
    parts = [part for part in pattern.split(b"/") if part not in (b"", b".")]
    if not parts:
        raise ValueError(f"Unacceptable pattern: {shown(pattern)!r}")
    selector = _Selector(parts, pattern.endswith(b"/"), case, follow)
    return selector.select(Folder(path), 0)


class _Selector:
    """The parts of a pattern: None is any number of directories, bytes are a name, a function says what matches."""

    def __init__(self, parts: list[bytes], folders_only: bool, case: bool, follow: bool) -> None:
        self.parts: list[bytes | Callable[[bytes], bool] | None] = []
        for part in parts:
            if part == b"**":
                if not self.parts or self.parts[-1] is not None:
                    self.parts.append(None)
            elif part == b".." or (case and not _MAGIC.search(part)):
                self.parts.append(part)
            else:
                self.parts.append(_matcher(part, case))
        self.folders_only = folders_only
        self.follow = follow
        #: two ways may lead to one path where more than one part is any number of directories
        self.seen: set[bytes] | None = set() if self.parts.count(None) > 1 else None

    def select(self, folder: Folder, index: int) -> Iterator[GuestPath]:
        part = self.parts[index]
        last = index == len(self.parts) - 1
        if part is None:
            yield from self._below(folder, index, last)
        elif isinstance(part, bytes):
            path = folder.path / part
            if not last:
                yield from self.select(Folder(path), index + 1)
            elif path.is_dir() if self.folders_only else path.exists(follow_symlinks=False):
                yield from self._found(path)
        else:
            for name, letter in self._rows(folder):
                if not part(name):
                    continue
                path = folder.path / name
                if last and not self.folders_only:
                    yield from self._found(path)
                elif letter == "d" or (letter == "l" and path.is_dir()):
                    if last:
                        yield from self._found(path)
                    else:
                        yield from self.select(Folder(path, folder if letter == "d" else None), index + 1)

    def _below(self, top: Folder, index: int, last: bool) -> Iterator[GuestPath]:
        """What is matched in a directory and in those below it."""
        entered: set[tuple[int, int]] = set()
        todo = [top]
        if last and top.path.is_dir():
            yield from self._found(top.path)
        while todo:
            folder = todo.pop()
            try:
                key = folder.key()
            except GuestError:
                continue
            if key in entered:
                if self.follow:
                    continue
                raise again(folder.path)
            entered.add(key)
            if not last:
                yield from self.select(folder, index + 1)
            inside = []
            for name, letter in self._rows(folder):
                path = folder.path / name
                enter = letter == "d" or (self.follow and letter == "l" and path.is_dir())
                if enter:
                    inside.append(Folder(path, folder if letter == "d" else None))
                if last and (enter or not self.folders_only or (letter == "l" and path.is_dir())):
                    yield from self._found(path)
            todo += reversed(inside)

    def _found(self, path: GuestPath) -> Iterator[GuestPath]:
        if self.seen is not None:
            if path._raw in self.seen:
                return
            self.seen.add(path._raw)
        yield path

    @staticmethod
    def _rows(folder: Folder) -> list[tuple[bytes, str]]:
        try:
            return folder.rows()
        except GuestError:
            return []


def full_match(raw: bytes, pattern: bytes, case: bool) -> bool:
    """Does a whole path match? ``**`` is any number of names, at the end at least one."""
    names = raw.split(b"/") if raw != b"/" else [b""]
    parts = [part for part in pattern.split(b"/") if part not in (b"", b".")]
    if pattern.startswith(b"/"):
        parts.insert(0, b"")
    #: how many of the names the parts so far can have matched
    reached = {0}
    for index, part in enumerate(parts):
        if part == b"**":
            least = min(reached, default=len(names) + 1) + (index == len(parts) - 1)
            reached = set(range(least, len(names) + 1))
            continue
        matches = _matcher(part, case)
        reached = {
            count + 1
            for count in reached
            if count < len(names) and bool(names[count]) == bool(part) and (not part or matches(names[count]))
        }
    return len(names) in reached
