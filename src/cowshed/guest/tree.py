"""What can be changed in a guest's tree, with the kernel's errors. How paths lead there, and reading, are in mounts.py.

What is changed stays with the file systems until `Tree.sync`; `Tree.discard` forgets it.
"""

from __future__ import annotations

import errno
import stat as _stat
import time

from .filesystem.base import GuestError
from .mounts import STEP, Mounts
from .place import Found, Mount, Named, Place, shown

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from .filesystem.base import FileSystem

__all__ = ["STEP", "Found", "Mount", "Place", "Tree"]


class Tree(Mounts):
    """``changed``: mounts with changes that `sync` has not written; ``touches``: how often something was about to be
    changed, or was forgotten: who keeps a `Place` looks again when the number is another. ``settling``: changes are
    just being written or forgotten, which nothing should interrupt."""

    def __init__(self) -> None:
        super().__init__()
        self.changed: list[Mount] = []
        self.touches = 0
        self.umask = 0o022
        self.settling = 0

    def umount(self, mount: Mount) -> None:
        """Take a mount away. Raises GuestError EBUSY when others stand on it, or while it has changes that `sync` has
        not written: they would be lost."""
        if any(other.fs is mount.fs for other in self.changed):
            raise GuestError(errno.EBUSY, shown(mount.path))
        super().umount(mount)

    def writing(self, place: Place, path: bytes) -> FileSystem:
        """The file system of a place, to be changed. Raises GuestError EROFS."""
        self.check_writable(place, path)
        mount = place.mount
        if mount not in self.changed:
            self.changed.append(mount)
        self.touches += 1
        return mount.fs

    @staticmethod
    def check_writable(place: Place, path: bytes) -> None:
        """Raises GuestError EROFS."""
        if place.mount.readonly or not place.mount.fs.writable:
            raise GuestError(errno.EROFS, shown(path))

    def sync(self) -> None:
        """Bring all changes to the disks. When one file system refuses, its changes are forgotten."""
        self.settling += 1
        try:
            while self.changed:
                mount = self.changed[0]
                try:
                    mount.fs.sync()
                    mount.fs.node.flush()
                except BaseException:
                    self.discard()
                    raise
                self.changed.pop(0)
        finally:
            self.settling -= 1

    def discard(self) -> None:
        """Forget all changes that were not synced. A file system whose device can't be read again takes no more."""
        self.touches += bool(self.changed)
        self.settling += 1
        failed: BaseException | None = None
        try:
            while self.changed:
                fs = self.changed.pop().fs
                try:
                    fs.discard_changes()
                except BaseException as error:
                    # what it has in memory is neither old nor new: nothing of it may get to the device any more
                    fs.writable = False
                    failed = error
        finally:
            self.settling -= 1
        if failed is not None:
            raise failed

    def make(self, path: bytes, mode: int, *, rdev: int = 0, target: bytes = b"", uid: int = 0, gid: int = 0) -> Place:
        """A new inode under a name. ``mode`` with its type, without the umask. Raises GuestError EEXIST, ENOENT …"""
        place = self.find(path, follow=False)
        if place.ino is not None or place.parent is None:
            raise GuestError(errno.EEXIST, shown(path))
        if path.endswith(b"/") and not _stat.S_ISDIR(mode):
            raise GuestError(errno.ENOENT, shown(path))
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
        with Named(path):
            place.ino = fs.create(parent.number, place.name, mode, uid, gid, time.time_ns(), rdev=rdev, target=target)
        return place

    def open_file(self, path: bytes, mode: int = 0o666) -> Place:
        """The regular file behind a path, made when it isn't there (a dangling link's target too)."""
        place = self.find(path)
        if place.ino is None:
            if path.endswith(b"/"):
                raise GuestError(errno.EISDIR, shown(path))
            return self._create(place, path, _stat.S_IFREG | (mode & ~self.umask))
        return self._as_file(place, path)

    def write(self, path: bytes, pieces: Iterable[bytes | memoryview], *, append: bool = False) -> int:
        """Write a file anew (or at its end), made when it isn't there; returns the bytes written.

        What is there is written over before the file is cut to its new length: so a file whose bytes fit where the old
        ones are needs no room.
        """
        place = self.open_file(path)
        fs = self.writing(place, path)
        size = place.stat().size
        at = start = size if append else 0
        with Named(path):
            for piece in pieces:
                if len(piece):
                    fs.write(place.number, at, piece, time.time_ns())
                    at += len(piece)
                    self.progress.advance(len(piece))
            if not append and (at < size or not at):
                fs.truncate(place.number, at, time.time_ns())
        return at - start

    def write_at(self, path: bytes, offset: int, data: bytes | memoryview) -> int:
        if offset < 0:
            raise GuestError(errno.EINVAL, shown(path))
        place = self.open_file(path)
        fs = self.writing(place, path)
        with Named(path):
            if len(data):
                fs.write(place.number, offset, data, time.time_ns())
                self.progress.advance(len(data))
        return len(data)

    def truncate(self, path: bytes, size: int) -> None:
        if size < 0:
            raise GuestError(errno.EINVAL, shown(path))
        place = self.regular(path)
        fs = self.writing(place, path)
        with Named(path):
            fs.truncate(place.number, size, time.time_ns())

    def mkdir(self, path: bytes, mode: int = 0o777) -> Place:
        # set-id bits are not for mkdir, says the kernel
        return self.make(path, _stat.S_IFDIR | (mode & 0o1777 & ~self.umask))

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
                raise GuestError(errno.ENOTDIR if count < len(parts) else errno.EEXIST, shown(path))
        return place

    def unlink(self, path: bytes) -> None:
        place = self.resolve(path, follow=False)
        if place.parent is None or _stat.S_ISDIR(place.stat().mode):
            raise GuestError(errno.EISDIR, shown(path))
        fs = self.writing(place, path)
        with Named(path):
            fs.unlink(place.parent.number, place.name, time.time_ns())

    def rmdir(self, path: bytes) -> None:
        place = self.resolve(path, follow=False)
        if not _stat.S_ISDIR(place.stat().mode):
            raise GuestError(errno.ENOTDIR, shown(path))
        dots = _dots(path)
        if dots:
            raise GuestError(errno.EINVAL if dots == b"." else errno.ENOTEMPTY, shown(path))
        if place.parent is None or self._busy(place):
            raise GuestError(errno.EBUSY, shown(path))
        fs = self.writing(place, path)
        with Named(path):
            fs.rmdir(place.parent.number, place.name, time.time_ns())

    def _busy(self, place: Place) -> bool:
        """Is it where something is mounted?"""
        return place.number == place.mount.fs.root or any(
            mount.place is not None and mount.place.mount.fs is place.mount.fs and mount.place.ino == place.ino
            for mount in self.mounts
        )

    def remove(self, path: bytes) -> None:
        """Take a file or a whole directory away; nothing behind a symbolic link. What isn't there is gone already."""
        place = self.find(path, follow=False)
        if place.ino is None:
            return
        if place.parent is None:
            raise GuestError(errno.EBUSY, shown(path))
        found = list(self.walk(place, deep_first=True))
        for item in found:
            if item.place.mount is not place.mount or (item.is_dir and self._busy(item.place)):
                raise GuestError(errno.EBUSY, shown(item.place.path))
        fs = self.writing(place, path)
        now = time.time_ns()
        with Named(path):
            for item in found:
                above = item.place.parent
                assert above is not None
                (fs.rmdir if item.is_dir else fs.unlink)(above.number, item.place.name, now)

    def link(self, target: bytes, path: bytes) -> None:
        source = self.resolve(target, follow=False)
        place = self.find(path, follow=False)
        if place.ino is not None or place.parent is None:
            raise GuestError(errno.EEXIST, shown(path))
        if _stat.S_ISDIR(source.stat().mode):
            raise GuestError(errno.EPERM, shown(path))
        if source.mount is not place.parent.mount:
            raise GuestError(errno.EXDEV, shown(path))
        fs = self.writing(place.parent, path)
        with Named(path):
            fs.link(source.number, place.parent.number, place.name, time.time_ns())

    def symlink(self, target: bytes, path: bytes) -> None:
        if not target:
            raise GuestError(errno.ENOENT, shown(path))
        self.make(path, _stat.S_IFLNK | 0o777, target=target)

    def rename(self, old: bytes, new: bytes) -> None:
        if _dots(old) or _dots(new):
            for path in (old, new):
                self.directory(_above(path))
            raise GuestError(errno.EBUSY, shown(new))
        source = self.find(old, follow=False)
        place = self.find(new, follow=False)
        if source.ino is None:
            raise GuestError(errno.ENOENT, shown(old))
        if source.parent is None or place.parent is None or self._busy(source) or (place.ino and self._busy(place)):
            raise GuestError(errno.EBUSY, shown(new))
        if source.parent.mount is not place.parent.mount:
            raise GuestError(errno.EXDEV, shown(new))
        above: Place | None = place.parent
        while above is not None:
            if above.mount is source.mount and above.ino == source.ino:
                raise GuestError(errno.EINVAL, shown(new))
            above = above.parent
        fs = self.writing(source, old)
        with Named(new):
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
        with Named(path):
            fs.set_attributes(place.number, time.time_ns(), mode=mode, uid=uid, gid=gid, atime=atime, mtime=mtime)

    def xattrs(self, path: bytes, follow: bool = True) -> dict[bytes, bytes]:
        place = self.resolve(path, follow)
        return place.mount.fs.xattrs(place.number)

    def set_xattr(self, path: bytes, name: bytes, value: bytes, follow: bool = True) -> None:
        place = self.resolve(path, follow)
        fs = self.writing(place, path)
        with Named(path):
            fs.set_xattr(place.number, name, value, time.time_ns())

    def remove_xattr(self, path: bytes, name: bytes, follow: bool = True) -> None:
        place = self.resolve(path, follow)
        fs = self.writing(place, path)
        with Named(path):
            fs.remove_xattr(place.number, name, time.time_ns())

    def close(self) -> None:
        """Unmount everything, without what was not synced."""
        self.discard()
        while self.mounts:
            mount = self.mounts.pop()
            if not any(other.fs is mount.fs for other in self.mounts):
                mount.fs.close()


def _dots(path: bytes) -> bytes:
    """The last name when it is ``.`` or ``..``, by which nothing is renamed or taken away; b"" otherwise."""
    name = path.rstrip(b"/").rpartition(b"/")[2]
    return name if name in (b".", b"..") else b""


def _above(path: bytes) -> bytes:
    """The path without its last name."""
    return path.rstrip(b"/").rpartition(b"/")[0] + b"/"
