"""Paths in a guest, in the shape of `pathlib.Path`.

    with cowshed.guest.open("web1.qcow2", write=True) as guest:
        (guest.root / "etc/hostname").write_text("web1\\n")

Each method that changes something is one change: on the disk when it returns, or not at all when it raises. Errors are
the subclasses of OSError that pathlib raises, and `GuestError` too; damage is `CorruptError`. Methods may be called
from several threads: those of one guest take turns.
"""

from __future__ import annotations

import errno
import os
import stat as _stat

from .filesystem.base import GuestError
from .name import GuestName, raw_of
from .oserror import asked

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import PurePosixPath
    from typing import IO, Any, Self

    from .filesystem.base import Stat
    from .name import Segment
    from .place import Place

#: what says that there is nothing there, rather than that it can't be told
_NOTHING = (errno.ENOENT, errno.ENOTDIR, errno.ELOOP)
#: the most that is read of /etc/passwd and /etc/group
_ACCOUNTS = 4 << 20


class GuestPath(GuestName):
    """A file, a directory or what else has a name in a guest. Nothing is looked up until it is asked for."""

    __slots__ = ()

    # ---- what is there

    @asked
    def stat(self, *, follow_symlinks: bool = True) -> os.stat_result:
        """``st_dev`` tells the guest's mounted file systems apart; times have their nanoseconds in ``st_mtime_ns``."""
        place = self.session.tree.resolve(self._raw, follow_symlinks)
        return _result(place.stat(), self.session.tree.mounts.index(place.mount) + 1)

    def lstat(self) -> os.stat_result:
        return self.stat(follow_symlinks=False)

    def _mode(self, follow: bool) -> int:
        """0 for what isn't there."""
        with self.session.lock:
            try:
                return self.session.tree.resolve(self._raw, follow).stat().mode
            except GuestError as error:
                if error.errno in _NOTHING or b"\0" in self._raw:
                    return 0
                raise

    @asked
    def exists(self, *, follow_symlinks: bool = True) -> bool:
        return self._mode(follow_symlinks) != 0

    @asked
    def is_file(self, *, follow_symlinks: bool = True) -> bool:
        return _stat.S_ISREG(self._mode(follow_symlinks))

    @asked
    def is_dir(self, *, follow_symlinks: bool = True) -> bool:
        return _stat.S_ISDIR(self._mode(follow_symlinks))

    @asked
    def is_symlink(self) -> bool:
        return _stat.S_ISLNK(self._mode(False))

    @asked
    def is_fifo(self) -> bool:
        return _stat.S_ISFIFO(self._mode(True))

    @asked
    def is_block_device(self) -> bool:
        return _stat.S_ISBLK(self._mode(True))

    @asked
    def is_char_device(self) -> bool:
        return _stat.S_ISCHR(self._mode(True))

    @asked
    def is_socket(self) -> bool:
        return _stat.S_ISSOCK(self._mode(True))

    @asked
    def is_mount(self) -> bool:
        """Is it the top of a file system that is mounted?"""
        if not _stat.S_ISDIR(self._mode(False)):
            return False
        place = self.session.tree.resolve(self._raw)
        return place.ino == place.mount.fs.root

    def is_junction(self) -> bool:
        return False

    @asked
    def samefile(self, other_path: Segment) -> bool:
        """Do both lead to one inode? Raises OSError when one of them leads nowhere."""
        one, other = self._there(self), self._there(self.with_segments(other_path))
        return one.mount.fs is other.mount.fs and one.ino == other.ino

    def _there(self, path: GuestPath) -> Place:
        return self.session.tree.resolve(path._raw)

    @asked
    def owner(self, *, follow_symlinks: bool = True) -> str:
        """The name in the guest's /etc/passwd. Raises KeyError without one."""
        return self._account(b"/etc/passwd", self.session.tree.stat(self._raw, follow_symlinks).uid, "uid")

    @asked
    def group(self, *, follow_symlinks: bool = True) -> str:
        """The name in the guest's /etc/group. Raises KeyError without one."""
        return self._account(b"/etc/group", self.session.tree.stat(self._raw, follow_symlinks).gid, "gid")

    def _account(self, file: bytes, number: int, kind: str) -> str:
        try:
            text = self.session.tree.read(file, 0, _ACCOUNTS)
        except GuestError:
            text = b""
        for line in text.split(b"\n"):
            fields = line.split(b":")
            if len(fields) > 2 and fields[2] == b"%d" % number:
                return os.fsdecode(fields[0])
        raise KeyError(f"{kind} not found in the guest: {number}")

    @asked
    def resolve(self, strict: bool = False) -> Self:
        """Without symbolic links and ``..``. What isn't there stays as written, or raises OSError (``strict``)."""
        if strict:
            return self.with_segments(self.session.tree.resolve(self._raw).path)
        done = self.with_segments("/")
        todo = self._raw.split(b"/")[::-1]
        links = 0
        while todo:
            name = todo.pop()
            if name in (b"", b"."):
                continue
            if name == b"..":
                done = done.parent
                continue
            child = done.with_segments(done, name)
            if _stat.S_ISLNK(child._mode(False)):
                links += 1
                if links > 40:
                    return child.with_segments(child, *todo[::-1])
                target = self.session.tree.readlink(child._raw)
                todo += target.split(b"/")[::-1]
                if target.startswith(b"/"):
                    done = done.with_segments("/")
                continue
            done = child
        return done

    @asked
    def readlink(self) -> PurePosixPath:
        """The text of a symbolic link; ``path.parent / path.readlink()`` is where it leads. Raises OSError EINVAL for
        what is none."""
        from pathlib import PurePosixPath

        return PurePosixPath(os.fsdecode(self.session.tree.readlink(self._raw)))

    # ---- directories

    def iterdir(self) -> Iterator[Self]:
        """What is in a directory, sorted by name. Raises NotADirectoryError, at once."""
        return iter([self / name for name in self._names()])

    @asked
    def _names(self) -> list[bytes]:
        from .pathwalk import Folder

        return [name for name, _ in Folder(self).rows()]

    def walk(
        self,
        top_down: bool = True,
        on_error: Callable[[OSError], object] | None = None,
        follow_symlinks: bool = False,
    ) -> Iterator[tuple[GuestPath, list[str], list[str]]]:
        """(directory, names of directories in it, names of all else) for this and each directory below, sorted. Names
        taken out of the first list are not entered. A symbolic link to a directory is in the second list, unless
        ``follow_symlinks``: then it is entered, each directory once. Errors of directories go to ``on_error``."""
        from .pathwalk import walk

        return walk(self, top_down, on_error, follow_symlinks)

    def glob(
        self, pattern: str, *, case_sensitive: bool | None = None, recurse_symlinks: bool = False
    ) -> Iterator[GuestPath]:
        """What matches below, in order of the walk. ``**`` is any number of directories, at the end files too (as in
        Python 3.13); a slash at the end means directories only. Raises ValueError, NotImplementedError for patterns
        that are empty or absolute."""
        from .pathwalk import glob

        return glob(self, os.fsencode(pattern), case_sensitive is not False, recurse_symlinks)

    def rglob(
        self, pattern: str, *, case_sensitive: bool | None = None, recurse_symlinks: bool = False
    ) -> Iterator[GuestPath]:
        return self.glob(f"**/{pattern}", case_sensitive=case_sensitive, recurse_symlinks=recurse_symlinks)

    @asked
    def mkdir(self, mode: int = 0o777, parents: bool = False, exist_ok: bool = False) -> None:
        """``parents``: those that aren't there too, in the same change. Raises FileExistsError, FileNotFoundError."""
        tree = self.session.tree
        if exist_ok and self.is_dir():
            return
        with self.session.change():
            if parents and self._raw != b"/":
                try:
                    tree.mkdirs(self.parent._raw)
                except GuestError as error:
                    raise GuestError(errno.ENOTDIR, str(self)) if error.errno == errno.EEXIST else error from None
                if exist_ok and self.is_dir():
                    # ``new/..``
                    return
            tree.mkdir(self._raw, mode)

    @asked
    def rmdir(self) -> None:
        with self.session.change():
            self.session.tree.rmdir(self._raw)

    @asked
    def rmtree(self) -> None:
        """Take this and everything below it away, as one change; nothing behind a symbolic link."""
        with self.session.change():
            self.session.tree.resolve(self._raw, follow=False)
            self.session.tree.remove(self._raw)

    # ---- what is in a file

    @asked
    def open(
        self,
        mode: str = "r",
        buffering: int = -1,
        encoding: str | None = None,
        errors: str | None = None,
        newline: str | None = None,
    ) -> IO[Any]:
        """As the built-in open; text is UTF-8 when ``encoding`` is not given. What is written appears when the file is
        closed, as one change, and not at all when a ``with`` around it ends with an error."""
        from .file import open_file

        return open_file(self, mode, buffering, encoding, errors, newline)

    @asked
    def read_bytes(self) -> bytes:
        return self.session.tree.read(self._raw)

    def read_text(self, encoding: str | None = None, errors: str | None = None, newline: str | None = None) -> str:
        """Line ends become ``\\n`` unless ``newline`` says otherwise."""
        with self.open("r", -1, encoding, errors, newline) as file:
            return file.read()  # type: ignore[no-any-return]

    @asked
    def write_bytes(self, data: bytes | bytearray | memoryview) -> int:
        view = memoryview(data).cast("B")
        with self.session.change():
            return self.session.tree.write(self._raw, [view])

    def write_text(
        self, data: str, encoding: str | None = None, errors: str | None = None, newline: str | None = None
    ) -> int:
        if not isinstance(data, str):
            raise TypeError(f"data must be str, not {type(data).__name__}")
        with self.open("w", -1, encoding, errors, newline) as file:
            return file.write(data)

    @asked
    def touch(self, mode: int = 0o666, exist_ok: bool = True) -> None:
        """Make an empty file, or set the times of what is there to now. Raises FileExistsError."""
        import time

        tree = self.session.tree
        place = tree.find(self._raw)
        if place.ino is not None and not exist_ok:
            raise GuestError(errno.EEXIST, str(self))
        with self.session.change():
            if place.ino is None:
                tree.open_file(self._raw, mode)
            else:
                now = time.time_ns()
                tree.set_attributes(self._raw, atime=now, mtime=now)

    # ---- names

    @asked
    def unlink(self, missing_ok: bool = False) -> None:
        try:
            with self.session.change():
                self.session.tree.unlink(self._raw)
        except GuestError as error:
            if not (missing_ok and error.errno == errno.ENOENT):
                raise

    @asked
    def rename(self, target: Segment) -> Self:
        """Give it another name on the same file system; what has that name is replaced. A relative ``target`` begins
        at /. Raises OSError EXDEV between file systems."""
        there = self.with_segments(target)
        with self.session.change():
            self.session.tree.rename(self._raw, there._raw)
        return there

    def replace(self, target: Segment) -> Self:
        return self.rename(target)

    @asked
    def symlink_to(self, target: Segment, target_is_directory: bool = False) -> None:
        """Make this a symbolic link whose text is ``target``."""
        with self.session.change():
            self.session.tree.symlink(raw_of(target), self._raw)

    @asked
    def hardlink_to(self, target: Segment) -> None:
        """Make this another name of ``target``."""
        with self.session.change():
            self.session.tree.link(self.with_segments(target)._raw, self._raw)

    # ---- attributes

    @asked
    def chmod(self, mode: int, *, follow_symlinks: bool = True) -> None:
        with self.session.change():
            self.session.tree.set_attributes(self._raw, follow=follow_symlinks, mode=mode & 0o7777)

    def lchmod(self, mode: int) -> None:
        self.chmod(mode, follow_symlinks=False)

    @asked
    def chown(self, uid: int, gid: int, *, follow_symlinks: bool = True) -> None:
        """Numbers of the guest's accounts; -1 leaves one as it is."""
        with self.session.change():
            self.session.tree.set_attributes(
                self._raw, follow=follow_symlinks, uid=None if uid == -1 else uid, gid=None if gid == -1 else gid
            )

    @asked
    def utime(self, atime_ns: int, mtime_ns: int, *, follow_symlinks: bool = True) -> None:
        """Nanoseconds since the epoch."""
        with self.session.change():
            self.session.tree.set_attributes(self._raw, follow=follow_symlinks, atime=atime_ns, mtime=mtime_ns)

    @asked
    def xattrs(self, *, follow_symlinks: bool = False) -> dict[str, bytes]:
        """Extended attributes by their full names (``security.selinux``)."""
        found = self.session.tree.xattrs(self._raw, follow_symlinks)
        return {os.fsdecode(name): value for name, value in found.items()}

    @asked
    def set_xattr(self, name: str, value: bytes, *, follow_symlinks: bool = False) -> None:
        with self.session.change():
            self.session.tree.set_xattr(self._raw, os.fsencode(name), value, follow_symlinks)

    @asked
    def remove_xattr(self, name: str, *, follow_symlinks: bool = False) -> None:
        """Raises OSError ENODATA without one."""
        with self.session.change():
            self.session.tree.remove_xattr(self._raw, os.fsencode(name), follow_symlinks)

    # ---- between the host and the guest

    @asked
    def copy_in(self, source: str | os.PathLike[str]) -> list[str]:
        """Copy a file or a tree of the host into this directory, under its own name, with modes, owners and times, as
        one change. Returns a line for each thing that was left out (sockets). Raises OSError, HostError."""
        from .transfer import copy_in

        left: list[str] = []
        with self.session.change():
            copy_in(self.session.tree, os.fspath(source), self._raw, left.append)
        return left

    @asked
    def copy_out(self, target: str | os.PathLike[str]) -> list[str]:
        """Copy this, a file or a tree, into the directory ``target`` of the host, under its own name. What the guest
        calls its files leads nowhere else. Returns a line for each thing that was left out (device nodes, FIFOs,
        sockets). Raises OSError, HostError."""
        from .transfer import copy_out

        left: list[str] = []
        copy_out(self.session.tree, self._raw, os.fspath(target), left.append)
        return left

    @asked
    def tar_in(self, archive: str | os.PathLike[str] | IO[bytes], *, xattrs: bool = True) -> None:
        """Unpack a tar archive of the host, packed with gzip, bzip2, xz or not at all, into this directory, as one
        change. Raises OSError, UsageError when it is no archive or cut short."""
        from .archive import tar_in

        if isinstance(archive, str | os.PathLike):
            with open(archive, "rb") as stream:
                self.tar_in(stream, xattrs=xattrs)
            return
        with self.session.change():
            tar_in(self.session.tree, archive, self._raw, compression=None, xattrs=xattrs)

    @asked
    def tar_out(
        self, archive: str | os.PathLike[str] | IO[bytes], *, compression: str = "", xattrs: bool = True
    ) -> None:
        """Write a tar archive of this directory; ``compression``: gzip, bzip2, xz or "". Raises OSError, UsageError."""
        from .archive import tar_out

        if isinstance(archive, str | os.PathLike):
            with open(archive, "wb") as stream:
                self.tar_out(stream, compression=compression, xattrs=xattrs)
            return
        tar_out(self.session.tree, self._raw, archive, compression=compression, xattrs=xattrs)

    @asked
    def disk_usage(self) -> int:
        """Bytes allocated to this and everything below it, each inode once."""
        from .search import disk_usage

        return disk_usage(self.session.tree, self.session.tree.resolve(self._raw, follow=False))


def _result(facts: Stat, device: int) -> os.stat_result:
    seconds = [time // 10**9 for time in (facts.atime, facts.mtime, facts.ctime)]
    head = (facts.mode, facts.ino, device, facts.nlink, facts.uid, facts.gid, facts.size, *seconds)
    return os.stat_result(
        head,
        {
            "st_atime": facts.atime / 10**9,
            "st_mtime": facts.mtime / 10**9,
            "st_ctime": facts.ctime / 10**9,
            "st_atime_ns": facts.atime,
            "st_mtime_ns": facts.mtime,
            "st_ctime_ns": facts.ctime,
            "st_blksize": facts.blksize,
            "st_blocks": facts.blocks,
            "st_rdev": facts.rdev,
        },
    )
