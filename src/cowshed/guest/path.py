"""Paths in a guest, in pathlib's shape.

    with cowshed.guest.open("web1.qcow2", write=True) as guest:
        (guest.root / "etc/hostname").write_text("web1\\n")

Each method that changes something is one change: on the disk when it returns, or not at all when it raises. Errors are
`GuestError`, with the errno that the kernel would give.
"""

from __future__ import annotations

import errno
import io
import os
import stat as _stat

from .filesystem.base import GuestError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import IO, Any

    from .filesystem.base import Stat
    from .session import Session


class GuestPath:
    """An absolute path of a session's tree. Nothing is looked up until it is asked for."""

    __slots__ = ("_raw", "session")

    def __init__(self, session: Session, path: str | bytes = b"/") -> None:
        raw = os.fsencode(path)
        self.session = session
        self._raw = b"/" + b"/".join(part for part in raw.split(b"/") if part not in (b"", b"."))

    # ---- names

    def __bytes__(self) -> bytes:
        return self._raw

    def __str__(self) -> str:
        return os.fsdecode(self._raw)

    def __fspath__(self) -> str:
        # a host's open() of a guest's path would be another file
        raise TypeError("this path is in a guest: open it with its own methods")

    def __repr__(self) -> str:
        return f"GuestPath({str(self)!r})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, GuestPath) and other.session is self.session and other._raw == self._raw

    def __lt__(self, other: GuestPath) -> bool:
        return self._raw < other._raw

    def __hash__(self) -> int:
        return hash((id(self.session), self._raw))

    def __truediv__(self, other: str | bytes | GuestPath) -> GuestPath:
        """What follows is always below: a leading slash starts no new path."""
        raw = other._raw if isinstance(other, GuestPath) else os.fsencode(other)
        return GuestPath(self.session, self._raw + b"/" + raw)

    def joinpath(self, *others: str | bytes) -> GuestPath:
        path = self
        for other in others:
            path = path / other
        return path

    @property
    def parts(self) -> tuple[str, ...]:
        return ("/", *(os.fsdecode(part) for part in self._raw.split(b"/") if part))

    @property
    def name(self) -> str:
        return os.fsdecode(self._raw.rpartition(b"/")[2])

    @property
    def suffix(self) -> str:
        stem, dot, rest = self.name.rpartition(".")
        return dot + rest if stem and rest else ""

    @property
    def stem(self) -> str:
        return self.name.removesuffix(self.suffix) if self.suffix else self.name

    @property
    def parent(self) -> GuestPath:
        return GuestPath(self.session, self._raw.rpartition(b"/")[0] or b"/")

    @property
    def parents(self) -> tuple[GuestPath, ...]:
        found: list[GuestPath] = []
        at = self
        while at._raw != b"/":
            at = at.parent
            found.append(at)
        return tuple(found)

    def with_name(self, name: str) -> GuestPath:
        return self.parent / name

    def relative_to(self, other: GuestPath) -> str:
        """The text from there to here. Raises ValueError when this is not below."""
        lead = other._raw.rstrip(b"/") + b"/"
        if self._raw == other._raw:
            return "."
        if not self._raw.startswith(lead):
            raise ValueError(f"{str(self)!r} is not below {str(other)!r}")
        return os.fsdecode(self._raw[len(lead) :])

    # ---- looking

    def stat(self, *, follow_symlinks: bool = True) -> Stat:
        return self.session.tree.stat(self._raw, follow_symlinks)

    def lstat(self) -> Stat:
        return self.session.tree.stat(self._raw, False)

    def exists(self) -> bool:
        return self.session.tree.exists(self._raw)

    def _is(self, kind: int, follow: bool = True) -> bool:
        try:
            return _stat.S_IFMT(self.session.tree.stat(self._raw, follow).mode) == kind
        except GuestError as error:
            if error.errno in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP):
                return False
            raise

    def is_file(self) -> bool:
        return self._is(_stat.S_IFREG)

    def is_dir(self) -> bool:
        return self._is(_stat.S_IFDIR)

    def is_symlink(self) -> bool:
        return self._is(_stat.S_IFLNK, False)

    def is_fifo(self) -> bool:
        return self._is(_stat.S_IFIFO)

    def is_block_device(self) -> bool:
        return self._is(_stat.S_IFBLK)

    def is_char_device(self) -> bool:
        return self._is(_stat.S_IFCHR)

    def is_socket(self) -> bool:
        return self._is(_stat.S_IFSOCK)

    def resolve(self) -> GuestPath:
        """Without symbolic links. Raises GuestError when it isn't there."""
        return GuestPath(self.session, self.session.tree.resolve(self._raw).path)

    def readlink(self) -> str:
        return os.fsdecode(self.session.tree.readlink(self._raw))

    def iterdir(self) -> Iterator[GuestPath]:
        for name in self.session.tree.names(self._raw):
            yield self / name

    def walk(self) -> Iterator[GuestPath]:
        """Everything below, symbolic links as themselves, sorted; ends on directories that contain themselves."""
        tree = self.session.tree
        for found in tree.walk(tree.resolve(self._raw)):
            if found.path:
                yield self / found.path

    def glob(self, pattern: str) -> Iterator[GuestPath]:
        """Paths below that match; ``**`` is any number of directories."""
        if "**" in pattern:
            head, _, rest = pattern.partition("**")
            rest = rest.strip("/")
            bases = list(self.glob(head.strip("/"))) if head.strip("/") else [self]
            seen: set[bytes] = set()
            for base in bases:
                if not base.is_dir():
                    continue
                for folder in [base, *(path for path in base.walk() if path._is(_stat.S_IFDIR, False))]:
                    for path in folder.glob(rest) if rest else (folder,):
                        if path._raw not in seen:
                            seen.add(path._raw)
                            yield path
            return
        from .search import glob

        lead = b"".join(b"\\" + bytes((byte,)) if byte in b"*?[]{}\\" else bytes((byte,)) for byte in self._raw)
        for found in glob(self.session.tree, lead.rstrip(b"/") + b"/" + os.fsencode(pattern)):
            yield GuestPath(self.session, found)

    def rglob(self, pattern: str) -> Iterator[GuestPath]:
        return self.glob(f"**/{pattern}")

    def read_bytes(self) -> bytes:
        return self.session.tree.read(self._raw)

    def read_text(self, encoding: str = "utf-8", errors: str = "strict") -> str:
        return self.read_bytes().decode(encoding, errors)

    def xattrs(self) -> dict[str, bytes]:
        found = self.session.tree.xattrs(self._raw, False)
        return {os.fsdecode(name): value for name, value in found.items()}

    # ---- changing

    def write_bytes(self, data: bytes | bytearray | memoryview) -> int:
        view = memoryview(data).cast("B")
        with self.session.change():
            return self.session.tree.write(self._raw, [view])

    def write_text(self, data: str, encoding: str = "utf-8", errors: str = "strict") -> int:
        self.write_bytes(data.encode(encoding, errors))
        return len(data)

    def touch(self, mode: int = 0o666, exist_ok: bool = True) -> None:
        import time

        if not exist_ok and self.exists():
            raise GuestError(errno.EEXIST, str(self))
        with self.session.change():
            self.session.tree.open_file(self._raw, mode)
            now = time.time_ns()
            self.session.tree.set_attributes(self._raw, atime=now, mtime=now)

    def mkdir(self, mode: int = 0o777, parents: bool = False, exist_ok: bool = False) -> None:
        tree = self.session.tree
        if exist_ok and self.is_dir():
            return
        with self.session.change():
            if parents and self._raw != b"/":
                tree.mkdirs(self.parent._raw)
            tree.mkdir(self._raw, mode)

    def unlink(self, missing_ok: bool = False) -> None:
        try:
            with self.session.change():
                self.session.tree.unlink(self._raw)
        except GuestError as error:
            if not (missing_ok and error.errno == errno.ENOENT):
                raise

    def rmdir(self) -> None:
        with self.session.change():
            self.session.tree.rmdir(self._raw)

    def rmtree(self) -> None:
        """Take away this and everything below it, as one change."""
        with self.session.change():
            self.session.tree.remove(self._raw)

    def rename(self, target: GuestPath | str) -> GuestPath:
        there = target if isinstance(target, GuestPath) else GuestPath(self.session, target)
        with self.session.change():
            self.session.tree.rename(self._raw, there._raw)
        return there

    replace = rename

    def symlink_to(self, target: str | bytes | GuestPath) -> None:
        raw = target._raw if isinstance(target, GuestPath) else os.fsencode(target)
        with self.session.change():
            self.session.tree.symlink(raw, self._raw)

    def hardlink_to(self, target: GuestPath | str) -> None:
        there = target if isinstance(target, GuestPath) else GuestPath(self.session, target)
        with self.session.change():
            self.session.tree.link(there._raw, self._raw)

    def chmod(self, mode: int) -> None:
        with self.session.change():
            self.session.tree.set_attributes(self._raw, mode=mode & 0o7777)

    def chown(self, uid: int, gid: int, *, follow_symlinks: bool = True) -> None:
        with self.session.change():
            self.session.tree.set_attributes(self._raw, follow=follow_symlinks, uid=uid, gid=gid)

    def set_xattr(self, name: str, value: bytes) -> None:
        with self.session.change():
            self.session.tree.set_xattr(self._raw, os.fsencode(name), value, False)

    def open(
        self, mode: str = "r", buffering: int = -1, encoding: str | None = None, errors: str | None = None,
        newline: str | None = None,
    ) -> IO[Any]:  # fmt: skip
        """A file object. What is written reaches the disk when it is closed, as one change."""
        kind = mode.replace("b", "").replace("t", "")
        if kind.replace("+", "") not in ("r", "w", "a", "x") or ("b" in mode and "t" in mode):
            raise ValueError(f"invalid mode: {mode!r}")
        if "b" in mode and encoding is not None:
            raise ValueError("binary mode doesn't take an encoding argument")
        raw: io.BufferedIOBase
        if kind == "r":
            raw = io.BufferedReader(_Reader(self), 1 << 18)
        else:
            raw = _Writer(self, kind)
        if "b" in mode:
            return raw
        return io.TextIOWrapper(raw, encoding or "utf-8", errors, newline)


class _Reader(io.RawIOBase):
    """A regular file of the guest, read where it is asked."""

    def __init__(self, path: GuestPath) -> None:
        self._place = path.session.tree.regular(bytes(path))
        self._at = 0
        self._size = self._place.stat().size

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = 0) -> int:
        self._at = max(0, offset + (0, self._at, self._size)[whence])
        return self._at

    def readinto(self, buffer: Any) -> int:
        view = memoryview(buffer).cast("B")
        data = self._place.mount.fs.read(self._place.number, self._at, len(view))
        view[: len(data)] = data
        self._at += len(data)
        return len(data)


class _Writer(io.BytesIO):
    """What is written is kept, and given to the guest at the end as one change."""

    def __init__(self, path: GuestPath, mode: str) -> None:
        tree = path.session.tree
        if mode.startswith("x") and tree.exists(bytes(path)):
            raise GuestError(errno.EEXIST, str(path))
        if mode == "r+" and not path.is_file():
            raise GuestError(errno.ENOENT, str(path))
        old = path.read_bytes() if mode[0] in "ar" and path.exists() else b""
        super().__init__(old)
        if mode[0] == "a":
            self.seek(0, 2)
        self._path = path
        # refused now rather than at the end
        place = tree.find(bytes(path))
        tree.writing(place.parent or place, bytes(path))

    def close(self) -> None:
        if not self.closed:
            try:
                self._path.write_bytes(self.getbuffer().tobytes())
            finally:
                super().close()

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        if error is None:
            self.close()
        else:
            # a block that ended with an error leaves the file as it was
            super().close()
