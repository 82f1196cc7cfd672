"""The files of a guest for whoever speaks fsspec: pandas, dask, xarray, zarr and their like.

    import fsspec

    with fsspec.open("guest:///etc/hostname", "rt", disk="web1.qcow2") as file:
        print(file.read())
    with fsspec.open("guest://etc/hostname::file://web1.qcow2") as file:
        ...

fsspec is not needed by anything else here: ``pip install 'cowshed[fsspec]'``.
"""

from __future__ import annotations

import errno
import os
import stat as _stat

try:
    from fsspec import AbstractFileSystem
    from fsspec.transaction import Transaction
    from fsspec.utils import stringify_path
except ImportError as error:
    raise ImportError("this needs the package fsspec: pip install 'cowshed[fsspec]'") from error

from ..errors import UsageError
from .mounts import STEP
from .oserror import Turn
from .path import GuestPath
from .place import Place, shown

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import datetime
    from typing import Any

    from .opened import Guest
    from .session import Session


class GuestTransaction(Transaction):  # type: ignore[misc]
    """The files that are written within it are written at its end, as one change."""

    def complete(self, commit: bool = True) -> None:
        with self.fs.guest.change():
            super().complete(commit)


class GuestFileSystem(AbstractFileSystem):  # type: ignore[misc]
    """The files of a guest. ``disk``: an image, or several in order; ``write``, ``fmt``, ``mounts``, ``root`` and
    ``keys`` as for `cowshed.guest.open`; ``guest``: one that is open already, instead of them. ``auto_mkdir``: what is
    written brings its directories with it.

    The disk is opened with the first use of an instance and closed by `close`, or with the instance: instances are not
    kept by fsspec. Symbolic links to files are files; links to directories are of the type "link", so that no walk
    enters them. Raises what `cowshed.guest.open` does, and OSError as pathlib does.
    """

    protocol = "guest"
    root_marker = "/"
    cachable = False
    transaction_type = GuestTransaction

    def __init__(
        self,
        disk: str | os.PathLike[str] | Sequence[str] | None = None,
        *,
        guest: Guest | None = None,
        write: bool = False,
        fmt: str | None = None,
        mounts: Sequence[tuple[str, str]] | None = None,
        root: str | None = None,
        keys: Mapping[str, str | bytes] | str | bytes | None = None,
        auto_mkdir: bool = False,
        fo: str | None = None,
        target_protocol: str | None = None,
        target_options: Mapping[str, Any] | None = None,
        **options: Any,
    ) -> None:
        super().__init__(**options)
        self._own = guest is None
        self._guest = guest
        self.auto_mkdir = auto_mkdir
        if fo is not None:
            # the second part of guest://path::file://disk
            if target_protocol not in (None, "file", "local"):
                raise UsageError(f"a guest's disk is opened by its name, not by {target_protocol}://", field="disk")
            disk = fo
        if guest is None and not disk:
            raise UsageError("which disk? give disk= or ::file://NAME", field="disk")
        disks = [disk] if isinstance(disk, str | os.PathLike) else list(disk or ())
        self._disks = [os.fspath(one) for one in disks]
        self._options = {"write": write, "fmt": fmt, "mounts": mounts, "root": root, "keys": keys}

    # ---- the guest

    @property
    def guest(self) -> Guest:
        """Opened when it is first asked for. Raises ValueError when it was closed."""
        if self._guest is None:
            if not self._own:
                raise ValueError("this file system is closed")
            from .opened import open

            self._guest = open(*self._disks, **self._options)  # type: ignore[arg-type]
        return self._guest

    @property
    def session(self) -> Session:
        return self.guest.session

    def close(self) -> None:
        """Close the guest, unless it was open before; files that are open for writing are written."""
        guest, self._guest = self._guest, None
        if guest is not None and self._own:
            guest.close()
        self._own = False

    def __del__(self) -> None:
        if getattr(self, "_own", False):
            self.close()

    @classmethod
    def _strip_protocol(cls, path: Any) -> Any:
        if isinstance(path, list):
            return [cls._strip_protocol(one) for one in path]
        text = stringify_path(path)
        if isinstance(text, GuestPath):
            return str(text)
        for lead in ("guest://", "guest:"):
            if text.startswith(lead):
                text = text[len(lead) :]
                break
        return "/" + text.strip("/")

    def unstrip_protocol(self, name: str) -> str:
        return f"guest://{self._strip_protocol(name)}"

    def __str__(self) -> str:
        return f"<GuestFileSystem {self._disks}>"

    def path(self, path: Any) -> GuestPath:
        return self.guest.path(self._strip_protocol(path))

    # ---- looking

    def info(self, path: Any, **kwargs: Any) -> dict[str, Any]:
        """``name``, ``size``, ``type`` ("file", "directory", "link", "other"), ``mode``, ``uid``, ``gid``, ``ino``,
        ``nlink``, ``mtime`` and ``created`` (of the inode, where it is kept) in seconds, ``islink``,
        ``destination``."""
        name = self._strip_protocol(path)
        with Turn(self.session, name):
            return self._info(name, self.session.tree.resolve(os.fsencode(name), follow=False))

    def _info(self, name: str, place: Place) -> dict[str, Any]:
        facts = place.stat()
        found: dict[str, Any] = {"name": name}
        link = _stat.S_ISLNK(facts.mode)
        if link:
            found["destination"] = os.fsdecode(place.mount.fs.readlink(place.number))
            followed = self.session.tree.find(os.fsencode(name)) if GuestPath(self.session, name).exists() else None
            if followed is not None and not _stat.S_ISDIR(followed.stat().mode):
                facts = followed.stat()
        kind = {_stat.S_IFDIR: "directory", _stat.S_IFREG: "file", _stat.S_IFLNK: "link"}
        found["type"] = kind.get(_stat.S_IFMT(facts.mode), "other")
        found["size"] = facts.size if found["type"] == "file" else 0
        for field in ("mode", "uid", "gid", "ino", "nlink"):
            found[field] = getattr(facts, field)
        found["mtime"] = facts.mtime / 10**9
        found["created"] = (facts.ctime if facts.btime is None else facts.btime) / 10**9
        found["islink"] = link
        return found

    def ls(self, path: Any, detail: bool = True, **kwargs: Any) -> list[Any]:
        """Sorted. Raises FileNotFoundError."""
        from .pathwalk import Folder

        name = self._strip_protocol(path)
        top = self.guest.path(name)
        if not top.is_dir():
            found = self.info(name)
            return [found] if detail else [found["name"]]
        lead = name.rstrip("/") + "/"
        with Turn(self.session, name):
            folder = Folder(top)
            rows = [shown(raw) for raw, _ in folder.rows()]
            if not detail:
                return [lead + row for row in rows]
            infos = []
            for row in rows:
                child = self.session.tree.child(folder.place(), os.fsencode(row))
                if child is not None:
                    infos.append(self._info(lead + row, child))
            return infos

    def exists(self, path: Any, **kwargs: Any) -> bool:
        return self.path(path).exists()

    def lexists(self, path: Any, **kwargs: Any) -> bool:
        return self.path(path).exists(follow_symlinks=False)

    def isdir(self, path: Any) -> bool:
        return self.path(path).is_dir()

    def isfile(self, path: Any) -> bool:
        return self.path(path).is_file()

    def islink(self, path: Any) -> bool:
        return self.path(path).is_symlink()

    def _time(self, path: Any, field: str) -> datetime:
        from datetime import UTC, datetime

        return datetime.fromtimestamp(self.info(path)[field], tz=UTC)

    def created(self, path: Any) -> datetime:
        return self._time(path, "created")

    def modified(self, path: Any) -> datetime:
        return self._time(path, "mtime")

    def cat_file(self, path: Any, start: int | None = None, end: int | None = None, **kwargs: Any) -> bytes:
        """A range of a file; numbers below zero count from its end."""
        name = self._strip_protocol(path)
        raw = os.fsencode(name)
        with Turn(self.session, name):
            size = self.session.tree.regular(raw).stat().size
            first = 0 if start is None else max(0, size + start) if start < 0 else start
            last = size if end is None else size + end if end < 0 else min(end, size)
            return self.session.tree.read(raw, first, max(0, last - first))

    # ---- changing

    def _open(
        self,
        path: Any,
        mode: str = "rb",
        block_size: int | None = None,
        autocommit: bool = True,
        cache_options: Any = None,
        **kwargs: Any,
    ) -> Any:
        there = self.path(path)
        if self.auto_mkdir and "r" not in mode:
            there.parent.mkdir(parents=True, exist_ok=True)
        stream: Any = there.open(mode, block_size if block_size and block_size > 1 else -1)
        # who asks for a file only must not lose what it is on
        stream.filesystem = self
        if not autocommit and "r" not in mode:
            stream.file.deferred = True
        return stream

    def mkdir(self, path: Any, create_parents: bool = True, **kwargs: Any) -> None:
        self.path(path).mkdir(parents=create_parents)

    def makedirs(self, path: Any, exist_ok: bool = False) -> None:
        self.path(path).mkdir(parents=True, exist_ok=exist_ok)

    def rmdir(self, path: Any) -> None:
        self.path(path).rmdir()

    def rm_file(self, path: Any) -> None:
        self.path(path).unlink()

    def _rm(self, path: Any) -> None:
        self.rm_file(path)

    def rm(self, path: Any, recursive: bool = False, maxdepth: int | None = None) -> None:
        """Each path is one change. Raises IsADirectoryError for directories without ``recursive``."""
        if maxdepth is not None or (isinstance(path, str) and any(letter in path for letter in "*?[")):
            super().rm(path, recursive=recursive, maxdepth=maxdepth)
            return
        for one in [path] if isinstance(path, str | os.PathLike | GuestPath) else path:
            there = self.path(one)
            if recursive and there.is_dir() and not there.is_symlink():
                there.rmtree()
            else:
                there.unlink()

    def cp_file(self, path1: Any, path2: Any, **kwargs: Any) -> None:
        one, other = self.path(path1), self.path(path2)
        if self.auto_mkdir:
            other.parent.mkdir(parents=True, exist_ok=True)
        if one.is_dir():
            other.mkdir(parents=True, exist_ok=True)
            return
        with one.open("rb") as source, other.open("wb") as target:
            while piece := source.read(STEP):
                target.write(piece)

    def mv(self, path1: Any, path2: Any, recursive: bool = False, maxdepth: int | None = None, **kwargs: Any) -> None:
        """One change, within a file system; into ``path2`` where that is a directory."""
        if not isinstance(path1, str | os.PathLike | GuestPath) or maxdepth is not None or "*" in str(path1):
            super().mv(path1, path2, recursive=recursive, maxdepth=maxdepth, **kwargs)
            return
        one, other = self.path(path1), self.path(path2)
        if other.is_dir():
            other = other / one.name
        try:
            one.rename(other)
        except OSError as error:
            if error.errno != errno.EXDEV:
                raise
            super().mv(str(one), str(other), recursive=recursive, **kwargs)

    def touch(self, path: Any, truncate: bool = True, **kwargs: Any) -> None:
        there = self.path(path)
        if self.auto_mkdir:
            there.parent.mkdir(parents=True, exist_ok=True)
        if truncate:
            there.write_bytes(b"")
        else:
            there.touch()

    def pipe_file(self, path: Any, value: bytes, mode: str = "overwrite", **kwargs: Any) -> None:
        with self.open(path, "xb" if mode == "create" else "wb") as file:
            file.write(value)

    def link(self, src: Any, dst: Any, **kwargs: Any) -> None:
        """``dst`` becomes another name of ``src``."""
        self.path(dst).hardlink_to(self.path(src))

    def symlink(self, src: str, dst: Any, **kwargs: Any) -> None:
        """``dst`` becomes a symbolic link with the text ``src``."""
        self.path(dst).symlink_to(src)

    def chmod(self, path: Any, mode: int) -> None:
        self.path(path).chmod(mode)
