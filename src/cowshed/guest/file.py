"""Open files of a guest: read where they are asked, written as one change when they are closed.

What is written is kept in memory while it is little and in a file without a name beyond, so that a file may be larger
than memory. Nobody sees it before `close`; a ``with`` that ends with an error, and a guest that is closed after one,
leave the file as it was.
"""

from __future__ import annotations

import errno
import io
import os
import stat as _stat

from .filesystem.base import GuestError
from .mounts import STEP
from .oserror import os_error

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import IO, Any, Protocol

    from .path import GuestPath
    from .place import Place
    from .spool import Spool

    class Writing(Protocol):
        """A file that is open for writing, as the session keeps it."""

        def close(self) -> None: ...

        def abandon(self) -> None: ...


#: bytes that are read ahead, and gathered before they are written
BUFFER = 1 << 18
#: bytes of an open file that are kept in memory
IN_MEMORY = 4 << 20


def open_file(
    path: GuestPath,
    mode: str = "r",
    buffering: int = -1,
    encoding: str | None = None,
    errors: str | None = None,
    newline: str | None = None,
) -> IO[Any]:
    """As the built-in open. Raises ValueError for a mode that it would refuse too, and what `GuestPath.open` raises."""
    kind = _kind(mode, buffering, encoding, errors, newline)
    raw = Raw(path, kind)
    binary = "b" in mode
    line = buffering == 1
    if buffering == 0:
        return _kept(raw, raw)
    size = buffering if buffering > 1 else BUFFER
    stream: _Reader | _Writer | _Random
    if "+" in mode:
        stream = _Random(raw, size)
    elif kind == "r":
        stream = _Reader(raw, size)
    else:
        stream = _Writer(raw, size)
    if binary:
        return _kept(raw, stream)
    return _kept(raw, _Text(raw, stream, encoding or "utf-8", errors, newline, line))


def _kind(mode: str, buffering: int, encoding: str | None, errors: str | None, newline: str | None) -> str:
    """The mode without b and t. Raises ValueError."""
    if not isinstance(mode, str):
        raise TypeError(f"open() argument 'mode' must be str, not {type(mode).__name__}")
    if set(mode) - set("rwxabt+") or len(mode) > len(set(mode)):
        raise ValueError(f"invalid mode: {mode!r}")
    binary = "b" in mode
    if binary and "t" in mode:
        raise ValueError("can't have text and binary mode at once")
    if sum(letter in mode for letter in "rwxa") != 1:
        raise ValueError("must have exactly one of create/read/write/append mode")
    for name, value in (("encoding", encoding), ("errors", errors), ("newline", newline)):
        if binary and value is not None:
            raise ValueError(f"binary mode doesn't take {'an' if name[0] == 'e' else 'a'} {name} argument")
    if not buffering and not binary:
        raise ValueError("can't have unbuffered text I/O")
    return "".join(letter for letter in "rwxa+" if letter in mode)


def _kept(raw: Raw, stream: Any) -> IO[Any]:
    """A stream that the session knows while it is open for writing: one that nobody closes is closed with the guest."""
    if raw.writable():
        raw.keep(stream)
    return stream  # type: ignore[no-any-return]


class Raw(io.RawIOBase):
    """A file of a guest. ``base``: the file as it was when it was opened, of which ``limit`` bytes are left; over them
    lies what was written. ``deferred``: it is written by `commit`, that may come after `close`."""

    def __init__(self, path: GuestPath, kind: str) -> None:
        self.path = path
        self.name = str(path)
        self.mode = kind[0] + "b" + kind[1:]
        self._kind = kind[0]
        self._plus = kind.endswith("+")
        self._session = path.session
        self._base: Place | None = None
        self._spool: Spool | None = None
        self._cut = False
        self._at = 0
        self._size = self._limit = self._first = 0
        self._abandoned = False
        #: what went wrong when something was to be kept: then nothing is written
        self._broken: BaseException | None = None
        self._key = 0
        self.deferred = False
        with self._session.lock:
            self._open()
        self._touches = self._session.tree.touches
        if self._kind == "a":
            self._at = self._size
        if self.writable():
            from .spool import Spool

            self._spool = Spool(IN_MEMORY)

    def _open(self) -> None:
        tree, raw = self._session.tree, bytes(self.path)
        if self._kind == "r":
            place = tree.regular(raw)
        else:
            place = tree.find(raw, follow=self._kind != "x")
            if place.ino is not None and self._kind == "x":
                raise GuestError(errno.EEXIST, self.name)
        if self.writable():
            tree.check_writable(place if place.ino is not None or place.parent is None else place.parent, raw)
        if place.ino is None:
            return
        facts = place.stat()
        if not _stat.S_ISREG(facts.mode):
            raise GuestError(errno.EISDIR if _stat.S_ISDIR(facts.mode) else errno.EINVAL, self.name)
        if self._kind != "w":
            self._base = place
            self._size = self._limit = self._first = facts.size

    def keep(self, stream: Writing) -> None:
        self._key = id(stream)
        self._session.files[self._key] = stream

    # ---- what a file object tells

    def readable(self) -> bool:
        return self._kind == "r" or self._plus

    def writable(self) -> bool:
        return self._kind != "r" or self._plus

    def seekable(self) -> bool:
        return True

    def _check(self) -> None:
        if self.closed:
            raise ValueError("I/O operation on closed file.")
        if not self._session.running:
            raise ValueError("the guest of this file is closed")

    def seek(self, offset: int, whence: int = 0) -> int:
        self._check()
        if whence not in (0, 1, 2):
            raise ValueError(f"invalid whence: {whence}")
        if whence == 2 and not self.writable():
            with self._session.lock:
                self._same()
        at = offset + (0, self._at, self._size)[whence]
        if at < 0:
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
        self._at = at
        return at

    def tell(self) -> int:
        self._check()
        return self._at

    # ---- bytes

    def _same(self) -> Place:
        """The file that was opened. Raises OSError ESTALE when another one has its name by now, or nothing has."""
        place = self._base
        assert place is not None
        tree = self._session.tree
        if tree.touches != self._touches:
            try:
                now = tree.resolve(bytes(self.path))
            except GuestError:
                now = None
            if now is None or now.mount is not place.mount or now.ino != place.ino:
                raise os_error(GuestError(errno.ESTALE, self.name, hint="it was replaced while it was open"), self.name)
            self._base = place = now
            self._touches = tree.touches
            if not self.writable():
                self._size = self._limit = place.stat().size
        return place

    def readinto(self, buffer: Any) -> int:
        self._check()
        if not self.readable():
            raise io.UnsupportedOperation("not readable")
        view = memoryview(buffer).cast("B")
        with self._session.lock:
            if self._base is not None and not self.writable():
                self._same()
            count = max(0, min(len(view), self._size - self._at))
            if not count:
                return 0
            view = view[:count]
            below = min(count, self._limit - self._at)
            if below > 0:
                place = self._same()
                data = place.mount.fs.read(place.number, self._at, below)
                view[: len(data)] = data
                below = len(data)
            below = max(below, 0)
            if below < count:
                view[below:] = bytes(count - below)
            if self._spool is not None:
                self._spool.patch(self._at, view)
        self._at += count
        return count

    def write(self, data: Any) -> int:
        self._check()
        if self._spool is None:
            raise io.UnsupportedOperation("not writable")
        view = memoryview(data).cast("B")
        if self._abandoned:
            return len(view)
        if self._kind == "a":
            self._at = self._size
        if self._broken is not None:
            raise self._broken
        try:
            for start in range(0, len(view), STEP):
                self._spool.write(self._at + start, view[start : start + STEP])
        except BaseException as error:
            # a stream above goes on to close this one: a file without these bytes must not look whole
            self._broken = error
            raise
        self._at += len(view)
        self._size = max(self._size, self._at)
        return len(view)

    def truncate(self, size: int | None = None) -> int:
        self._check()
        if self._spool is None:
            raise io.UnsupportedOperation("truncate")
        if size is None:
            size = self._at
        if size < 0:
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
        if size < self._size:
            self._spool.drop(size, self._size - size)
        if size < self._limit:
            self._limit = size
            self._cut = True
        self._size = size
        return size

    # ---- the end

    def forget(self) -> None:
        """Let `close` leave the file as it was."""
        self._abandoned = True

    def abandon(self) -> None:
        self.forget()
        self.close()

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        if error is not None:
            self.forget()
        self.close()

    def close(self) -> None:
        if self.closed:
            return
        try:
            if not self.deferred:
                self.commit()
        finally:
            self._session.files.pop(self._key, None)
            super().close()

    def commit(self) -> None:
        """Write the file. Raises OSError."""
        spool = self._spool
        if spool is None:
            return
        self.deferred = False
        try:
            if not self._abandoned:
                if not self._session.running:
                    raise ValueError("the guest of this file is closed: nothing was written")
                if self._broken is not None:
                    raise self._broken
                self._commit(spool)
        except GuestError as error:
            raise os_error(error, self.name) from error
        finally:
            self._spool = None
            spool.close()

    def _commit(self, spool: Spool) -> None:
        changed = bool(spool) or self._size != self._first or self._cut
        if self._kind == "r" and not changed:
            return
        session, raw = self._session, bytes(self.path)
        tree = session.tree
        with session.change():
            if self._kind == "x" and tree.find(raw, follow=False).ino is not None:
                raise GuestError(errno.EEXIST, self.name)
            if self._kind == "r":
                self._same()
            dense = self._kind in "wx" and self._dense(spool)
            if dense:
                tree.write(raw, (data for _, data in spool.data(STEP)))
                return
            place = tree.open_file(raw)
            if self._kind == "a" and not self._cut:
                # others may have made it longer meanwhile
                shift = place.stat().size - self._first
                end = self._size + shift
            else:
                shift, end = 0, self._size
                if self._kind in "wx" or self._cut:
                    tree.truncate(raw, 0 if self._kind in "wx" else self._limit)
            for offset, data in spool.data(STEP):
                tree.write_at(raw, offset + shift, data)
            if tree.stat(raw).size != end:
                tree.truncate(raw, end)

    def _dense(self, spool: Spool) -> bool:
        """Was every byte of a new file written?"""
        at = 0
        for offset, length, _ in spool.pieces():
            if offset != at:
                return False
            at += length
        return at == self._size


class _Ends:
    """A stream that leaves the file as it was when its ``with`` ends with an error."""

    file: Raw

    def abandon(self) -> None:
        self.file.forget()
        self.close()

    def close(self) -> None:
        raise NotImplementedError

    def commit(self) -> None:
        """Close it, and write it if that was deferred."""
        self.close()
        self.file.commit()

    def discard(self) -> None:
        self.file.forget()
        self.commit()

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        if error is not None:
            self.file.forget()
        self.close()


class _Reader(io.BufferedReader):
    """Has room for attributes: who opens a file for somebody may have to live as long as it."""


class _Writer(_Ends, io.BufferedWriter):
    def __init__(self, raw: Raw, size: int) -> None:
        self.file = raw
        io.BufferedWriter.__init__(self, raw, size)

    def close(self) -> None:
        io.BufferedWriter.close(self)


class _Random(_Ends, io.BufferedRandom):
    def __init__(self, raw: Raw, size: int) -> None:
        self.file = raw
        io.BufferedRandom.__init__(self, raw, size)

    def close(self) -> None:
        io.BufferedRandom.close(self)


class _Text(_Ends, io.TextIOWrapper):
    def __init__(
        self, raw: Raw, stream: Any, encoding: str, errors: str | None, newline: str | None, line: bool
    ) -> None:
        self.file = raw
        io.TextIOWrapper.__init__(self, stream, encoding, errors, newline, line)

    def close(self) -> None:
        io.TextIOWrapper.close(self)
