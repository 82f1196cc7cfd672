"""File systems mounted on one tree: how a path leads to an inode, and what can be read there, with the kernel's errors.

Paths are bytes and begin with a slash. Symbolic links are followed within the tree only: their targets are the guest's
business, and ``..`` at the top stays at the top. Errors are `GuestError` whose text is ``PATH: REASON``.
"""

from __future__ import annotations

import errno
import stat as _stat

from ..errors import CorruptError
from ..progress import QUIET
from .filesystem.base import GuestError
from .place import Found, Mount, Place, checked_entries, escaped, shown

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from ..progress import Progress
    from .filesystem.base import FileSystem, Stat, StatVfs


#: as Linux has them
MAX_LINKS = 40
PATH_MAX = 4096
NAME_MAX = 255
#: bytes read or written in one step of something long
STEP = 4 << 20
#: directories in one another that a walk goes down
MAX_DEPTH = 1 << 16


class Mounts:
    """``mounts`` in the order of mounting."""

    def __init__(self) -> None:
        self.mounts: list[Mount] = []
        #: hears of every byte of files that is read in pieces or written
        self.progress: Progress = QUIET

    # ---- mounting

    @property
    def top(self) -> Mount:
        """What is mounted on /. Raises GuestError without one."""
        for mount in reversed(self.mounts):
            if mount.place is None:
                return mount
        raise GuestError(errno.EINVAL, "nothing is mounted on /")

    def mount(self, fs: FileSystem, device: str, path: bytes, readonly: bool) -> Mount:
        """Mount a file system on a directory. Raises GuestError ENOENT, ENOTDIR."""
        place: Place | None = None
        if any(mount.place is None for mount in self.mounts):
            place = self.resolve(path)
            if not _stat.S_ISDIR(place.stat().mode):
                raise GuestError(errno.ENOTDIR, shown(path))
            if place.parent is None:
                place = None
        elif path.strip(b"/"):
            raise GuestError(errno.ENOENT, shown(path))
        made = Mount(fs, device, path, place, readonly)
        self.mounts.append(made)
        return made

    def umount(self, mount: Mount) -> None:
        """Take a mount away. Raises GuestError EBUSY when others stand on it."""
        if any(self._stands_on(other, mount) for other in self.mounts):
            raise GuestError(errno.EBUSY, shown(mount.path))
        self.mounts.remove(mount)
        if not any(other.fs is mount.fs for other in self.mounts):
            mount.fs.close()

    @staticmethod
    def _stands_on(other: Mount, mount: Mount) -> bool:
        if other.place is not None and other.place.mount is mount:
            return True
        # a file of it is mounted
        return getattr(other.fs.node, "below", None) is mount

    def _over(self, place: Place) -> Place:
        """The root of what is mounted there, or the place itself."""
        for mount in reversed(self.mounts):
            covered = mount.place
            if covered is not None and covered.mount is place.mount and covered.ino == place.ino:
                return Place(mount, mount.fs.root, place.parent, place.name)
        return place

    # ---- names to places

    def find(self, path: bytes, follow: bool = True) -> Place:
        """As `resolve`, but a last name that isn't there gives a place without an inode."""
        if not path.startswith(b"/"):
            raise GuestError(errno.EINVAL, f"{shown(path)}: path must start with a / character")
        if len(path) >= PATH_MAX:
            raise GuestError(errno.ENAMETOOLONG, shown(path))
        if b"\0" in path:
            raise GuestError(errno.EINVAL, shown(path))
        top = self.top
        root = here = Place(top, top.fs.root, None, b"")
        todo = path.split(b"/")
        todo.reverse()
        links = 0
        simple = len(self.mounts) == 1
        while todo:
            name = todo.pop()
            if here.ino is None:
                if not name and not any(todo):
                    # mkdir("/new/") is fine
                    return here
                raise GuestError(errno.ENOENT, shown(path))
            if not name or name == b".":
                continue
            fs = here.mount.fs
            if name == b"..":
                if not _stat.S_ISDIR(fs.stat(here.ino).mode):
                    raise GuestError(errno.ENOTDIR, shown(path))
                here = here.parent or root
                continue
            if len(name) > NAME_MAX:
                raise GuestError(errno.ENAMETOOLONG, shown(path))
            try:
                ino = fs.lookup(here.number, name)
            except GuestError as error:
                raise GuestError(error.errno or errno.EIO, shown(path)) from error
            child = Place(here.mount, ino, here, name)
            if ino is None:
                here = child
                continue
            if not simple:
                child = self._over(child)
            mode = child.mount.fs.stat(child.number).mode
            if _stat.S_ISLNK(mode) and (follow or todo):
                links += 1
                if links > MAX_LINKS:
                    raise GuestError(errno.ELOOP, shown(path))
                target = child.mount.fs.readlink(child.number)
                if not target or len(target) >= PATH_MAX:
                    raise GuestError(errno.ENOENT if not target else errno.ENAMETOOLONG, shown(path))
                if target.startswith(b"/"):
                    here = root
                todo += reversed(target.split(b"/"))
                if len(todo) > PATH_MAX * 2:
                    raise GuestError(errno.ENAMETOOLONG, shown(path))
                continue
            if todo and not _stat.S_ISDIR(mode):
                raise GuestError(errno.ENOTDIR, shown(path))
            here = child
        return here

    def resolve(self, path: bytes, follow: bool = True) -> Place:
        """The inode that a path leads to. Raises GuestError ENOENT, ENOTDIR, ELOOP, ENAMETOOLONG."""
        place = self.find(path, follow)
        if place.ino is None:
            raise GuestError(errno.ENOENT, shown(path))
        return place

    # ---- looking

    def stat(self, path: bytes, follow: bool = True) -> Stat:
        return self.resolve(path, follow).stat()

    def statvfs(self, path: bytes) -> StatVfs:
        place = self.resolve(path)
        found = place.mount.fs.statvfs()
        # ST_RELATIME, as Linux mounts
        found.flag |= 4096
        if place.mount.readonly:
            found.flag |= 1
        return found

    def exists(self, path: bytes) -> bool:
        try:
            return self.find(path).ino is not None
        except GuestError:
            return False

    def readlink(self, path: bytes) -> bytes:
        place = self.resolve(path, follow=False)
        if not _stat.S_ISLNK(place.stat().mode):
            raise GuestError(errno.EINVAL, shown(path))
        return place.mount.fs.readlink(place.number)

    def directory(self, path: bytes, follow: bool = True) -> Place:
        """A place that is a directory. Raises GuestError ENOTDIR."""
        place = self.resolve(path, follow)
        if not _stat.S_ISDIR(place.stat().mode):
            raise GuestError(errno.ENOTDIR, shown(path))
        return place

    def names(self, path: bytes) -> list[bytes]:
        """The names in a directory, sorted, without . and .."""
        place = self.directory(path)
        return sorted(name for name, _, _ in checked_entries(place) if name not in (b".", b".."))

    def entries(self, path: bytes) -> Iterator[tuple[bytes, int, str]]:
        return checked_entries(self.directory(path))

    def child(self, place: Place, name: bytes) -> Place | None:
        """What a name in a directory is, without following it."""
        ino = place.mount.fs.lookup(place.number, name)
        return None if ino is None else self._over(Place(place.mount, ino, place, name))

    def walk(self, place: Place, *, deep_first: bool = False) -> Iterator[Found]:
        """Everything below a place and itself first, names sorted, symbolic links as themselves. A directory is
        entered once, so that the walk ends whatever the directories say; raises CorruptError when one comes again or
        a name is impossible, GuestError ENAMETOOLONG deeper than MAX_DEPTH.

        ``deep_first``: a directory comes after what is in it.
        """
        seen = {place.mount: {place.number}}
        first = Found(place, place.stat(), 0)
        if not first.is_dir:
            yield first
            return
        if not deep_first:
            yield first
        stack = [(first, self._listing(place))]
        while stack:
            above, listing = stack[-1]
            entry = next(listing, None)
            if entry is None:
                stack.pop()
                if deep_first:
                    yield above
                continue
            name, ino = entry
            child = self._over(Place(above.place.mount, ino, above.place, name))
            found = Found(child, child.stat(), above.depth + 1)
            if not found.is_dir:
                yield found
                continue
            known = seen.setdefault(child.mount, set())
            if child.number in known:
                raise CorruptError(
                    f"the directory {escaped(child.path)} appears more than once in its file system",
                    layer=child.mount.fs.kind, field="inode", value=ino,
                )  # fmt: skip
            known.add(child.number)
            if len(stack) >= MAX_DEPTH:
                raise GuestError(errno.ENAMETOOLONG, f"{MAX_DEPTH} directories in one another")
            if not deep_first:
                yield found
            stack.append((found, self._listing(child)))

    @staticmethod
    def _listing(place: Place) -> Iterator[tuple[bytes, int]]:
        """Names and inodes in a directory, sorted."""
        # one string a name, as there may be millions
        rows = sorted(b"%b\0%d" % (name, ino) for name, ino, _ in checked_entries(place) if name not in (b".", b".."))
        rows.reverse()
        while rows:
            name, _, number = rows.pop().partition(b"\0")
            yield name, int(number)

    # ---- reading

    def regular(self, path: bytes) -> Place:
        """A place that is a regular file. Raises GuestError EISDIR, EINVAL."""
        return self._as_file(self.resolve(path), path)

    @staticmethod
    def _as_file(place: Place, path: bytes) -> Place:
        """``place``, which is there, when it is a regular file. Raises GuestError EISDIR, EINVAL."""
        mode = place.stat().mode
        if _stat.S_ISDIR(mode):
            raise GuestError(errno.EISDIR, shown(path))
        if not _stat.S_ISREG(mode):
            raise GuestError(errno.EINVAL, f"{shown(path)}: not a regular file")
        return place

    def chunks(self, place: Place, offset: int = 0, length: int | None = None) -> Iterator[bytes]:
        """The bytes of a regular file in big pieces. Raises GuestError EINVAL for what is before its beginning."""
        if offset < 0 or (length is not None and length < 0):
            raise GuestError(errno.EINVAL, shown(place.path))
        fs, ino = place.mount.fs, place.number
        left = fs.stat(ino).size - offset
        if length is not None:
            left = min(left, length)
        while left > 0:
            data = fs.read(ino, offset, min(left, STEP))
            if not data:
                return
            self.progress.advance(len(data))
            yield data
            offset += len(data)
            left -= len(data)

    def read(self, path: bytes, offset: int = 0, length: int | None = None) -> bytes:
        return b"".join(self.chunks(self.regular(path), offset, length))
