"""Where paths lead: a mounted file system, a place in one, a thing that a walk came by.

Paths are bytes and begin with a slash.
"""

from __future__ import annotations

import stat as _stat

from .filesystem.base import GuestError

TYPE_CHECKING = False
if TYPE_CHECKING:
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
    """One thing that `Tree.walk` came by: ``path`` relative to where it began (b"" for that itself)."""

    __slots__ = ("path", "place", "stat")

    def __init__(self, path: bytes, place: Place, stat: Stat) -> None:
        self.path = path
        self.place = place
        self.stat = stat

    @property
    def is_dir(self) -> bool:
        return _stat.S_ISDIR(self.stat.mode)


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
