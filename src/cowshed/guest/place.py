"""Where paths lead: a mounted file system, a place in one, a thing that a walk came by.

Paths are bytes and begin with a slash.
"""

from __future__ import annotations

import stat as _stat

from ..errors import CorruptError
from .filesystem.base import GuestError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from .filesystem.base import FileSystem, Stat


class Mount:
    """A file system on the tree: ``device`` it came from, ``path`` it was mounted at, ``place`` that it covers."""

    __slots__ = ("device", "fs", "path", "place", "readonly")

    def __init__(self, fs: FileSystem, device: str, path: bytes, place: Place | None, readonly: bool) -> None:
        self.fs = fs
        self.device = device
        self.path = path
        self.place = place
        self.readonly = readonly


class Place:
    """Where a path led: an inode of a mounted file system (``ino`` None: there is nothing of that name yet), its
    ``name`` and the directory it was found in (``parent``, None at the top)."""

    __slots__ = ("ino", "mount", "name", "parent")

    def __init__(self, mount: Mount, ino: int | None, parent: Place | None, name: bytes) -> None:
        self.mount = mount
        self.ino = ino
        self.parent = parent
        self.name = name

    @property
    def path(self) -> bytes:
        """The path without any symbolic link in it."""
        names = []
        at: Place | None = self
        while at is not None and at.parent is not None:
            names.append(at.name)
            at = at.parent
        return b"/" + b"/".join(reversed(names))

    @property
    def number(self) -> int:
        assert self.ino is not None
        return self.ino

    def stat(self) -> Stat:
        return self.mount.fs.stat(self.number)


class Found:
    """One thing that `Tree.walk` came by, ``depth`` steps below where it began."""

    __slots__ = ("depth", "place", "stat")

    def __init__(self, place: Place, stat: Stat, depth: int) -> None:
        self.place = place
        self.stat = stat
        self.depth = depth

    @property
    def name(self) -> bytes:
        """Its own name, b"" for where the walk began."""
        return self.place.name if self.depth else b""

    @property
    def path(self) -> bytes:
        """Relative to where the walk began (b"" for that itself). Made when asked for: all those of a deep tree
        together are long."""
        names = []
        at = self.place
        for _ in range(self.depth):
            names.append(at.name)
            assert at.parent is not None
            at = at.parent
        return b"/".join(reversed(names))

    @property
    def is_dir(self) -> bool:
        return _stat.S_ISDIR(self.stat.mode)


def checked_entries(place: Place) -> Iterator[tuple[bytes, int, str]]:
    """The entries of a directory as its driver has them. Raises CorruptError for names that no kernel lets through:
    what is put together of them would be a path that leads elsewhere."""
    for entry in place.mount.fs.entries(place.number):
        name = entry[0]
        if not name or b"/" in name or b"\0" in name:
            raise CorruptError(
                f"the directory {escaped(place.path)} holds an impossible name",
                layer=place.mount.fs.kind, field="name", value=escaped(name),
            )  # fmt: skip
        yield entry


class Named:
    """Errors of a driver, that knows inodes only, get the path that was asked for."""

    __slots__ = ("path",)

    def __init__(self, path: bytes) -> None:
        self.path = path

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        if isinstance(error, GuestError) and error.path is None and error.errno is not None:
            text = shown(self.path)
            if not error.message.startswith(text):
                raise GuestError(error.errno, text, hint=error.hint, path=text) from error


def shown(path: bytes) -> str:
    return path.decode("utf-8", "surrogateescape")


def escaped(path: bytes) -> str:
    """A guest's name in a message of ours: nothing in it is left that a terminal would act on."""
    text = path.decode("utf-8", "backslashreplace")
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in text)
