"""File systems mounted on one tree: how a path leads to an inode, and what can be done there, with the kernel's errors.

Paths are bytes and begin with a slash. Symbolic links are followed within the tree only: their targets are the guest's
business, and ``..`` at the top stays at the top. Errors are `GuestError` whose text is ``PATH: REASON``.
"""

from __future__ import annotations

import errno
import stat as _stat
import time

from ..errors import CorruptError
from .filesystem.base import GuestError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from .filesystem.base import FileSystem, Stat, StatVfs

#: as Linux has them
MAX_LINKS = 40
PATH_MAX = 4096
NAME_MAX = 255
#: bytes read or written in one step of something long
STEP = 4 << 20


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


class Tree:
    """``mounts`` in the order of mounting; ``changed``: mounts with changes that `sync` has not written."""

    def __init__(self) -> None:
        self.mounts: list[Mount] = []
        self.changed: list[Mount] = []
        self.umask = 0o022

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
                raise GuestError(errno.ENOTDIR, _shown(path))
            if place.parent is None:
                place = None
        elif path.strip(b"/"):
            raise GuestError(errno.ENOENT, _shown(path))
        made = Mount(fs, device, path, place, readonly)
        self.mounts.append(made)
        return made

    def umount(self, mount: Mount) -> None:
        """Take a mount away. Raises GuestError EBUSY when others stand on it."""
        if any(self._stands_on(other, mount) for other in self.mounts):
            raise GuestError(errno.EBUSY, _shown(mount.path))
        self.mounts.remove(mount)
        if mount in self.changed:
            self.changed.remove(mount)
        mount.fs.close()

    @staticmethod
    def _stands_on(other: Mount, mount: Mount) -> bool:
        return other.place is not None and other.place.mount is mount

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
            raise GuestError(errno.EINVAL, f"{_shown(path)}: path must start with a / character")
        if len(path) >= PATH_MAX:
            raise GuestError(errno.ENAMETOOLONG, _shown(path))
        if b"\0" in path:
            raise GuestError(errno.EINVAL, _shown(path))
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
                raise GuestError(errno.ENOENT, _shown(path))
            if not name or name == b".":
                continue
            fs = here.mount.fs
            if name == b"..":
                if not _stat.S_ISDIR(fs.stat(here.ino).mode):
                    raise GuestError(errno.ENOTDIR, _shown(path))
                here = here.parent or root
                continue
            if len(name) > NAME_MAX:
                raise GuestError(errno.ENAMETOOLONG, _shown(path))
            try:
                ino = fs.lookup(here.number, name)
            except GuestError as error:
                raise GuestError(error.errno or errno.EIO, _shown(path)) from error
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
                    raise GuestError(errno.ELOOP, _shown(path))
                target = child.mount.fs.readlink(child.number)
                if not target or len(target) >= PATH_MAX:
                    raise GuestError(errno.ENOENT if not target else errno.ENAMETOOLONG, _shown(path))
                if target.startswith(b"/"):
                    here = root
                todo += reversed(target.split(b"/"))
                if len(todo) > PATH_MAX * 2:
                    raise GuestError(errno.ENAMETOOLONG, _shown(path))
                continue
            if todo and not _stat.S_ISDIR(mode):
                raise GuestError(errno.ENOTDIR, _shown(path))
            here = child
        return here

    def resolve(self, path: bytes, follow: bool = True) -> Place:
        """The inode that a path leads to. Raises GuestError ENOENT, ENOTDIR, ELOOP, ENAMETOOLONG."""
        place = self.find(path, follow)
        if place.ino is None:
            raise GuestError(errno.ENOENT, _shown(path))
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
            raise GuestError(errno.EINVAL, _shown(path))
        return place.mount.fs.readlink(place.number)

    def directory(self, path: bytes, follow: bool = True) -> Place:
        """A place that is a directory. Raises GuestError ENOTDIR."""
        place = self.resolve(path, follow)
        if not _stat.S_ISDIR(place.stat().mode):
            raise GuestError(errno.ENOTDIR, _shown(path))
        return place

    def names(self, path: bytes) -> list[bytes]:
        """The names in a directory, sorted, without . and .."""
        place = self.directory(path)
        return sorted(name for name, _, _ in place.mount.fs.entries(place.number) if name not in (b".", b".."))

    def entries(self, path: bytes) -> Iterator[tuple[bytes, int, str]]:
        place = self.directory(path)
        return place.mount.fs.entries(place.number)

    def child(self, place: Place, name: bytes) -> Place | None:
        """What a name in a directory is, without following it."""
        ino = place.mount.fs.lookup(place.number, name)
        return None if ino is None else self._over(Place(place.mount, ino, place, name))

    def walk(self, place: Place, *, deep_first: bool = False) -> Iterator[Found]:
        """Everything below a place and itself first, names sorted, symbolic links as themselves. A directory is
        entered once, so that the walk ends whatever the directories say; raises CorruptError when one comes again.

        ``deep_first``: a directory comes after what is in it.
        """
        seen = {(id(place.mount), place.number)}
        first = Found(b"", place, place.stat())
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
            found = Found(above.path + b"/" + name if above.path else name, child, child.stat())
            if not found.is_dir:
                yield found
                continue
            key = (id(child.mount), child.number)
            if key in seen:
                raise CorruptError(
                    f"the directory {_shown(child.path)} appears more than once in its file system",
                    layer=child.mount.fs.kind, field="inode", value=ino,
                )  # fmt: skip
            seen.add(key)
            if not deep_first:
                yield found
            stack.append((found, self._listing(child)))

    @staticmethod
    def _listing(place: Place) -> Iterator[tuple[bytes, int]]:
        """Names and inodes in a directory, sorted. Names that no kernel lets through are damage."""
        rows = []
        for name, ino, _ in place.mount.fs.entries(place.number):
            if name in (b".", b".."):
                continue
            if not name or b"/" in name or b"\0" in name:
                raise CorruptError(
                    f"the directory {_shown(place.path)} holds an impossible name",
                    layer=place.mount.fs.kind, field="name", value=_shown(name),
                )  # fmt: skip
            rows.append((name, ino))
        rows.sort()
        return iter(rows)

    # ---- reading

    def regular(self, path: bytes) -> Place:
        """A place that is a regular file. Raises GuestError EISDIR, EINVAL."""
        place = self.resolve(path)
        mode = place.stat().mode
        if _stat.S_ISDIR(mode):
            raise GuestError(errno.EISDIR, _shown(path))
        if not _stat.S_ISREG(mode):
            raise GuestError(errno.EINVAL, f"{_shown(path)}: not a regular file")
        return place

    def chunks(self, place: Place, offset: int = 0, length: int | None = None) -> Iterator[bytes]:
        """The bytes of a regular file in big pieces."""
        fs, ino = place.mount.fs, place.number
        left = fs.stat(ino).size - offset
        if length is not None:
            left = min(left, length)
        while left > 0:
            data = fs.read(ino, offset, min(left, STEP))
            if not data:
                return
            yield data
            offset += len(data)
            left -= len(data)

    def read(self, path: bytes, offset: int = 0, length: int | None = None) -> bytes:
        return b"".join(self.chunks(self.regular(path), offset, length))

    # ---- changing

    def writing(self, place: Place, path: bytes) -> FileSystem:
        """The file system of a place, to be changed. Raises GuestError EROFS."""
        mount = place.mount
        if mount.readonly or not mount.fs.writable:
            raise GuestError(errno.EROFS, _shown(path))
        if mount not in self.changed:
            self.changed.append(mount)
        return mount.fs

    def sync(self) -> None:
        """Bring all changes to the disks. When one file system refuses, its changes are forgotten."""
        while self.changed:
            mount = self.changed[0]
            try:
                mount.fs.sync()
                mount.fs.node.flush()
            except BaseException:
                self.discard()
                raise
            self.changed.pop(0)

    def discard(self) -> None:
        """Forget all changes that were not synced."""
        while self.changed:
            self.changed.pop().fs.discard_changes()

    def make(self, path: bytes, mode: int, *, rdev: int = 0, target: bytes = b"", uid: int = 0, gid: int = 0) -> Place:
        """A new inode under a name. ``mode`` with its type, without the umask. Raises GuestError EEXIST, ENOENT …"""
        place = self.find(path, follow=False)
        if place.ino is not None or place.parent is None:
            raise GuestError(errno.EEXIST, _shown(path))
        if path.endswith(b"/") and not _stat.S_ISDIR(mode):
            raise GuestError(errno.ENOENT, _shown(path))
        return self._create(place, path, mode, rdev, target, uid, gid)

    def _create(
        self, place: Place, path: bytes, mode: int, rdev: int = 0, target: bytes = b"", uid: int = 0, gid: int = 0
    ) -> Place:
        parent = place.parent
        assert parent is not None
        fs = self.writing(parent, path)
        above = parent.stat()
        if above.mode & _stat.S_ISGID:
            gid = above.gid
            if _stat.S_ISDIR(mode):
                mode |= _stat.S_ISGID
        with _Named(path):
            place.ino = fs.create(parent.number, place.name, mode, uid, gid, time.time_ns(), rdev=rdev, target=target)
        return place

    def open_file(self, path: bytes, mode: int = 0o666) -> Place:
        """The regular file behind a path, made when it isn't there (a dangling link's target too)."""
        place = self.find(path)
        if place.ino is None:
            if path.endswith(b"/"):
                raise GuestError(errno.EISDIR, _shown(path))
            return self._create(place, path, _stat.S_IFREG | (mode & ~self.umask))
        mode = place.stat().mode
        if _stat.S_ISDIR(mode):
            raise GuestError(errno.EISDIR, _shown(path))
        if not _stat.S_ISREG(mode):
            raise GuestError(errno.EINVAL, f"{_shown(path)}: not a regular file")
        return place

    def write(self, path: bytes, pieces: Iterable[bytes | memoryview], *, append: bool = False) -> int:
        """Write a file anew (or at its end), made when it isn't there; returns the bytes written.

        What is there is written over before the file is cut to its new length: so a file whose bytes fit where the old
        ones are needs no room.
        """
        place = self.open_file(path)
        fs = self.writing(place, path)
        size = place.stat().size
        at = start = size if append else 0
        with _Named(path):
            for piece in pieces:
                if len(piece):
                    fs.write(place.number, at, piece, time.time_ns())
                    at += len(piece)
            if not append and (at < size or not at):
                fs.truncate(place.number, at, time.time_ns())
        return at - start

    def write_at(self, path: bytes, offset: int, data: bytes | memoryview) -> int:
        place = self.open_file(path)
        fs = self.writing(place, path)
        with _Named(path):
            if len(data):
                fs.write(place.number, offset, data, time.time_ns())
        return len(data)

    def truncate(self, path: bytes, size: int) -> None:
        place = self.regular(path)
        fs = self.writing(place, path)
        with _Named(path):
            fs.truncate(place.number, size, time.time_ns())

    def mkdir(self, path: bytes, mode: int = 0o777) -> Place:
        return self.make(path, _stat.S_IFDIR | (mode & 0o7777 & ~self.umask))

    def mkdirs(self, path: bytes, mode: int = 0o777) -> Place:
        """A directory and those above it that aren't there. Raises GuestError ENOTDIR, EEXIST."""
        parts = [part for part in path.split(b"/") if part]
        place = self.resolve(b"/")
        for count in range(1, len(parts) + 1):
            part = b"/" + b"/".join(parts[:count])
            place = self.find(part)
            if place.ino is None:
                place = self.make(part, _stat.S_IFDIR | (mode & ~self.umask))
            elif not _stat.S_ISDIR(place.stat().mode):
                raise GuestError(errno.ENOTDIR if count < len(parts) else errno.EEXIST, _shown(path))
        return place

    def unlink(self, path: bytes) -> None:
        place = self.resolve(path, follow=False)
        if place.parent is None or _stat.S_ISDIR(place.stat().mode):
            raise GuestError(errno.EISDIR, _shown(path))
        fs = self.writing(place, path)
        with _Named(path):
            fs.unlink(place.parent.number, place.name, time.time_ns())

    def rmdir(self, path: bytes) -> None:
        place = self.resolve(path, follow=False)
        if not _stat.S_ISDIR(place.stat().mode):
            raise GuestError(errno.ENOTDIR, _shown(path))
        if place.parent is None or self._busy(place):
            raise GuestError(errno.EBUSY, _shown(path))
        fs = self.writing(place, path)
        with _Named(path):
            fs.rmdir(place.parent.number, place.name, time.time_ns())

    def _busy(self, place: Place) -> bool:
        """Is it where something is mounted?"""
        return place.number == place.mount.fs.root or any(
            mount.place is not None and mount.place.mount is place.mount and mount.place.ino == place.ino
            for mount in self.mounts
        )

    def remove(self, path: bytes) -> None:
        """Take a file or a whole directory away; nothing behind a symbolic link. What isn't there is gone already."""
        place = self.find(path, follow=False)
        if place.ino is None:
            return
        if place.parent is None:
            raise GuestError(errno.EBUSY, _shown(path))
        found = list(self.walk(place, deep_first=True))
        for item in found:
            if item.place.mount is not place.mount or (item.is_dir and self._busy(item.place)):
                raise GuestError(errno.EBUSY, _shown(item.place.path))
        fs = self.writing(place, path)
        now = time.time_ns()
        with _Named(path):
            for item in found:
                above = item.place.parent
                assert above is not None
                (fs.rmdir if item.is_dir else fs.unlink)(above.number, item.place.name, now)

    def link(self, target: bytes, path: bytes) -> None:
        source = self.resolve(target, follow=False)
        place = self.find(path, follow=False)
        if place.ino is not None or place.parent is None:
            raise GuestError(errno.EEXIST, _shown(path))
        if _stat.S_ISDIR(source.stat().mode):
            raise GuestError(errno.EPERM, _shown(path))
        if source.mount is not place.parent.mount:
            raise GuestError(errno.EXDEV, _shown(path))
        fs = self.writing(place.parent, path)
        with _Named(path):
            fs.link(source.number, place.parent.number, place.name, time.time_ns())

    def symlink(self, target: bytes, path: bytes) -> None:
        if not target:
            raise GuestError(errno.ENOENT, _shown(path))
        self.make(path, _stat.S_IFLNK | 0o777, target=target)

    def rename(self, old: bytes, new: bytes) -> None:
        source = self.resolve(old, follow=False)
        place = self.find(new, follow=False)
        if source.parent is None or place.parent is None or self._busy(source) or (place.ino and self._busy(place)):
            raise GuestError(errno.EBUSY, _shown(new))
        if source.parent.mount is not place.parent.mount:
            raise GuestError(errno.EXDEV, _shown(new))
        above: Place | None = place.parent
        while above is not None:
            if above.mount is source.mount and above.ino == source.ino:
                raise GuestError(errno.EINVAL, _shown(new))
            above = above.parent
        fs = self.writing(source, old)
        with _Named(new):
            fs.rename(source.parent.number, source.name, place.parent.number, place.name, time.time_ns())

    def set_attributes(
        self,
        path: bytes,
        *,
        follow: bool = True,
        mode: int | None = None,
        uid: int | None = None,
        gid: int | None = None,
        atime: int | None = None,
        mtime: int | None = None,
    ) -> None:
        place = self.resolve(path, follow)
        fs = self.writing(place, path)
        if (uid is not None or gid is not None) and mode is None:
            # a change of owner takes these bits from executables
            now = place.stat().mode
            if _stat.S_ISREG(now) and now & 0o111:
                kept = now & 0o7777 & ~_stat.S_ISUID
                if now & 0o010:
                    kept &= ~_stat.S_ISGID
                mode = kept if kept != now & 0o7777 else None
        with _Named(path):
            fs.set_attributes(place.number, time.time_ns(), mode=mode, uid=uid, gid=gid, atime=atime, mtime=mtime)

    def xattrs(self, path: bytes, follow: bool = True) -> dict[bytes, bytes]:
        place = self.resolve(path, follow)
        return place.mount.fs.xattrs(place.number)

    def set_xattr(self, path: bytes, name: bytes, value: bytes, follow: bool = True) -> None:
        place = self.resolve(path, follow)
        fs = self.writing(place, path)
        with _Named(path):
            fs.set_xattr(place.number, name, value, time.time_ns())

    def remove_xattr(self, path: bytes, name: bytes, follow: bool = True) -> None:
        place = self.resolve(path, follow)
        fs = self.writing(place, path)
        with _Named(path):
            fs.remove_xattr(place.number, name, time.time_ns())

    def close(self) -> None:
        """Unmount everything, without what was not synced."""
        self.discard()
        while self.mounts:
            self.mounts.pop().fs.close()


class _Named:
    """Errors of a driver, that knows inodes only, get the path that was asked for."""

    __slots__ = ("path",)

    def __init__(self, path: bytes) -> None:
        self.path = path

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        if isinstance(error, GuestError) and error.path is None and error.errno is not None:
            text = _shown(self.path)
            if not error.message.startswith(text):
                raise GuestError(error.errno, text, hint=error.hint, path=text) from error


def _shown(path: bytes) -> str:
    return path.decode("utf-8", "surrogateescape")
