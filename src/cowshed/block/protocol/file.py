"""The ``file`` protocol: a regular file on the host, and how it is opened and made.

Holes are found with SEEK_DATA/SEEK_HOLE (lseek(2)); zeroing and discarding go through the space-reservation ioctls
(FS_IOC_ZERO_RANGE, FS_IOC_UNRESVSP64), which are fallocate(2) by another door: Python offers no fallocate with a mode.
"""

from __future__ import annotations

import errno
import fcntl
import os
import stat
import struct
import sys

from ...errors import CowshedError, HostError, host_error
from ...progress import QUIET
from ..node import DATA, ZERO, Extent, Node, byte_view, fill_zero

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from ...progress import Progress
    from ..locking import FileLocks
    from ..node import Buffer
    from .ahead import Ahead

# linux/falloc.h: struct space_resv and the requests that take it
_SPACE_RESV = struct.Struct("=hhxxxxqqiIiiii")
_FS_IOC_RESVSP64 = 0x4030582A
_FS_IOC_UNRESVSP64 = 0x4030582B
_FS_IOC_ZERO_RANGE = 0x40305839
_UNSUPPORTED = (errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOTTY, errno.EINVAL, errno.ENOSYS, errno.EPERM, errno.EBADF)
_FULL = (errno.ENOSPC, errno.EDQUOT)

_SEEK_DATA = getattr(os, "SEEK_DATA", 3)
_SEEK_HOLE = getattr(os, "SEEK_HOLE", 4)


class CacheMode:
    """One of qemu's cache modes: ``none writeback writethrough directsync unsafe``."""

    __slots__ = ("direct", "name", "no_flush", "writethrough")

    def __init__(self, name: str, direct: bool, writethrough: bool, no_flush: bool) -> None:
        self.name = name
        self.direct = direct
        self.writethrough = writethrough
        self.no_flush = no_flush


CACHE_MODES = {
    mode.name: mode
    for mode in (
        CacheMode("none", True, False, False),
        CacheMode("off", True, False, False),
        CacheMode("directsync", True, True, False),
        CacheMode("writeback", False, False, False),
        CacheMode("unsafe", False, False, True),
        CacheMode("writethrough", False, True, False),
    )
}


class FileNode(Node):
    """Bytes of a regular file. ``size`` is the file's length when last asked (``refresh``)."""

    driver = "file"
    #: a disk of another size can be had here
    resizable = True
    extensible = True
    slack = 64 << 20

    def __init__(
        self,
        path: str,
        *,
        writable: bool = False,
        cache: CacheMode | None = None,
        nonblock: bool = True,
        fd: int = -1,
    ) -> None:
        """Open ``path``, or take over ``fd``. Raises HostError with the text ``Could not open 'PATH': REASON``."""
        super().__init__(path, read_only=not writable)
        self.path = path
        self.cache = cache or CACHE_MODES["writeback"]
        self.locks: FileLocks | None = None
        self.fd = -1
        self.align = 1
        self.nonblock = nonblock
        self._no_punch = False
        self._no_zero_range = False
        self._lost: HostError | None = None
        self._ahead: Ahead | None = None
        self.fd = fd if fd >= 0 else self._open(writable)
        try:
            self._check_kind(os.fstat(self.fd).st_mode)
            if self.cache.direct:
                self.align = self._direct_align()
            self.refresh()
        except BaseException:
            os.close(self.fd)
            self.fd = -1
            raise

    def _open(self, writable: bool) -> int:
        flags = (os.O_RDWR if writable else os.O_RDONLY) | getattr(os, "O_BINARY", 0)
        if self.nonblock:
            # a FIFO named as an image must give an error, not wait for a writer
            flags |= getattr(os, "O_NONBLOCK", 0)
        if self.cache.direct:
            flags |= getattr(os, "O_DIRECT", 0)
        if self.cache.writethrough:
            flags |= getattr(os, "O_DSYNC", 0)
        path = self.path
        try:
            return os.open(path, flags)
        except OSError as error:
            if error.errno == errno.EINVAL and self.cache.direct:
                raise HostError(
                    f"Could not open '{path}': file system may not support O_DIRECT", path=path, errno=errno.EINVAL
                ) from error
            raise host_error(error, f"Could not open '{path}'", path) from error
        except ValueError as error:  # embedded NUL
            raise HostError(f"Could not open '{path}': Invalid argument", path=path, errno=errno.EINVAL) from error

    def _direct_align(self) -> int:
        return 4096

    def _check_kind(self, mode: int) -> None:
        if not stat.S_ISREG(mode):
            raise HostError(
                f"'file' driver requires '{self.path}' to be a regular file", path=self.path, errno=errno.EINVAL
            )

    def reopen(self, writable: bool, perm: int, shared: int) -> None:
        """Open the same file with another access mode; its locks (see locking.py) are held without a gap.

        Raises HostError or LockError; everything is then as it was.
        """
        locks = self.locks
        held = (locks.perm, locks.shared) if locks is not None else (0, 0)
        if locks is not None:
            locks.apply(perm, shared)
        fd = -1
        try:
            fd = self._open(writable)
            if not os.path.samestat(os.fstat(fd), os.fstat(self.fd)):
                raise HostError(
                    f"Could not open '{self.path}': another file has taken its place",
                    path=self.path,
                    errno=errno.ESTALE,
                )
            if locks is not None:
                self.locks = locks.transfer(fd)
        except BaseException:
            if fd >= 0:
                os.close(fd)
            if locks is not None:
                locks.apply(*held)
            raise
        old, self.fd = self.fd, fd
        os.close(old)
        self.read_only = not writable

    def refresh(self) -> int:
        """Ask the host for the size again, and return it."""
        self.size = self._length()
        return self.size

    def _length(self) -> int:
        return os.fstat(self.fd).st_size

    # -- mapping --------------------------------------------------------------------------------------------------

    def layer_extents(self, offset: int, length: int) -> Iterator[Extent]:
        end = offset + length
        fd = self.fd
        while offset < end:
            try:
                data = os.lseek(fd, offset, _SEEK_DATA)
            except OSError as error:
                if error.errno == errno.ENXIO:  # only a hole up to the end of the file
                    yield Extent(offset, end - offset, ZERO, self, offset, 0, self)
                    return
                yield Extent(offset, end - offset, DATA, self, offset, 0, self)
                return
            if data > offset:
                stop = min(data, end)
                yield Extent(offset, stop - offset, ZERO, self, offset, 0, self)
                offset = stop
                continue
            try:
                stop = min(os.lseek(fd, offset, _SEEK_HOLE), end)
            except OSError:
                stop = end
            if stop <= offset:  # the file shrank under us
                stop = end
            yield Extent(offset, stop - offset, DATA, self, offset, 0, self)
            offset = stop

    # -- I/O ------------------------------------------------------------------------------------------------------

    def read_into(self, offset: int, view: memoryview) -> None:
        """Fill ``view``; bytes past the end of the file read as zeroes (formats may map beyond it)."""
        if self.align > 1:
            self._direct_read(offset, view)
            return
        done = 0
        length = len(view)
        while done < length:
            try:
                count = os.preadv(self.fd, [view[done:] if done else view], offset + done)
            except InterruptedError:
                continue
            except OSError as error:
                raise host_error(error, "", self.path, offset + done) from error
            if count == 0:
                fill_zero(view[done:])
                return
            done += count

    def _direct_read(self, offset: int, view: memoryview) -> None:
        """O_DIRECT wants aligned offsets, lengths and memory: go through an aligned buffer."""
        import mmap

        align = self.align
        limit = 1 << 20
        done = 0
        with mmap.mmap(-1, limit + 2 * align) as buffer, memoryview(buffer) as whole:
            while done < len(view):
                start = (offset + done) // align * align
                skip = offset + done - start
                want = min(limit, len(view) - done)
                span = (skip + want + align - 1) // align * align
                with whole[:span] as part:
                    try:
                        count = os.preadv(self.fd, [part], start)
                    except OSError as error:
                        raise host_error(error, "", self.path, start) from error
                    got = max(0, min(want, count - skip))
                    view[done : done + got] = part[skip : skip + got]
                if not got:  # the end of the file; fewer bytes than asked for need not be that
                    fill_zero(view[done:])
                    return
                done += got

    def write(self, offset: int, data: Buffer) -> None:
        view = byte_view(data)
        if self.read_only:
            self._check_write(offset, 0)
        try:
            if self.align > 1:
                self._direct_write(offset, view)
            else:
                if self._ahead is not None:
                    self._ahead.before(offset, len(view), self.size)
                self._pwrite(offset, view)
        except BaseException:
            # part of it may be there: what lies behind the end must be known to read as zeroes
            with self.lock:
                self.size = max(self.size, self._length())
            raise
        end = offset + len(view)
        if end > self.size:
            with self.lock:
                self.size = max(self.size, end)

    def _pwrite(self, offset: int, view: memoryview) -> None:
        done = 0
        length = len(view)
        while done < length:
            try:
                done += os.pwrite(self.fd, view[done:] if done else view, offset + done)
            except InterruptedError:
                continue
            except OSError as error:
                if self._ahead is not None and error.errno in _FULL and self._ahead.give_back():
                    continue  # that may be the room that this needs
                raise host_error(error, "", self.path, offset + done) from error

    def _direct_write(self, offset: int, view: memoryview) -> None:
        import mmap

        align = self.align
        limit = 1 << 20
        done = 0
        end = offset + len(view)
        with self.lock, mmap.mmap(-1, limit + 2 * align) as buffer, memoryview(buffer) as whole:
            old_size = self.refresh()
            while done < len(view):
                start = (offset + done) // align * align
                skip = offset + done - start
                want = min(limit, len(view) - done)
                span = (skip + want + align - 1) // align * align
                with whole[:span] as part:
                    if skip:
                        self._direct_read(start, part[:align])
                    if (skip + want) % align:
                        self._direct_read(start + span - align, part[span - align :])
                        if skip:  # both edges may be the same block
                            self._direct_read(start, part[:align])
                    part[skip : skip + want] = view[done : done + want]
                    self._pwrite(start, part)
                done += want
            if max(old_size, end) < os.fstat(self.fd).st_size:
                os.ftruncate(self.fd, max(old_size, end))

    def _space(self, request: int, offset: int, length: int) -> None:
        fcntl.ioctl(self.fd, request, _SPACE_RESV.pack(0, 0, offset, length, 0, 0, 0, 0, 0, 0))

    def zero_range(self, offset: int, length: int, unmap: bool) -> bool:
        end = offset + length
        if end > self.size:
            self.refresh()  # somebody may have made it longer
        if unmap and self._punch(offset, min(length, max(0, self.size - offset))):
            self._extend(end)
            return True
        if not self._no_zero_range:
            try:
                self._space(_FS_IOC_ZERO_RANGE, offset, length)
                self._extend(end)
                return True
            except OSError as error:
                if error.errno not in _UNSUPPORTED:
                    raise host_error(error, "", self.path, offset) from error
                self._no_zero_range = True
        if self._punch(offset, min(length, max(0, self.size - offset))):
            # punched space reads as zeroes but is not reserved any more: reserve it again as was asked for
            try:
                self.preallocate(offset, length)
            except HostError as error:
                if error.errno not in _UNSUPPORTED:
                    raise
            self._extend(end)
            return True
        return False

    def _extend(self, end: int) -> None:
        """Make the file at least ``end`` bytes long."""
        if end > self.size:
            with self.lock:
                if end > self.refresh():
                    self._set_length(end)

    def write_zeroes(self, offset: int, length: int, unmap: bool = False) -> None:
        """Zero bytes of the file; may extend it. Falls back to writing zeroes."""
        if self.read_only:
            self._check_write(offset, 0)
        if length and not self.zero_range(offset, length, unmap):
            zeroes = memoryview(bytes(min(length, 1 << 20)))
            end = offset + length
            while offset < end:
                step = min(end - offset, len(zeroes))
                self.write(offset, zeroes[:step])
                offset += step

    def _punch(self, offset: int, length: int) -> bool:
        if self._no_punch:
            return False
        if length <= 0:
            return True
        try:
            self._space(_FS_IOC_UNRESVSP64, offset, length)
            return True
        except OSError as error:
            if error.errno not in _UNSUPPORTED:
                raise host_error(error, "", self.path, offset) from error
            self._no_punch = True
            return False

    def discard(self, offset: int, length: int) -> None:
        """Punch a hole; file systems that can't are left as they are."""
        if self.read_only:
            self._check_write(offset, 0)
        length = min(length, self.size - offset)
        if length > 0:
            self._punch(offset, length)

    def preallocate(self, offset: int, length: int) -> None:
        """Reserve space without changing what is read. Raises HostError (ENOTSUP when the file system can't)."""
        try:
            self._space(_FS_IOC_RESVSP64, offset, length)
        except OSError as error:
            if error.errno == errno.ENOTTY:
                error.errno = errno.EOPNOTSUPP
            raise host_error(error, "", self.path, offset) from error

    def reserve_ahead(self, on: bool) -> None:
        """The file is being written front to back, by one thread at a time; or that is over (``on`` False).

        Nothing that is read, and nothing that is allocated in the end, depends on it.
        """
        ahead, self._ahead = self._ahead, None
        if ahead is not None:
            ahead.give_back()
        if on and self.align == 1 and not self.cache.writethrough and stat.S_ISREG(os.fstat(self.fd).st_mode):
            from .ahead import Ahead, is_all_data

            if not is_all_data(self.fd):
                return  # room that somebody else reserved is not ours to give back

            def reserve(offset: int, length: int) -> None:
                self._space(_FS_IOC_RESVSP64, offset, length)

            def punch(offset: int, length: int) -> None:
                self._space(_FS_IOC_UNRESVSP64, offset, length)

            self._ahead = Ahead(self.fd, reserve, punch)

    def flush(self) -> None:
        if self.cache.no_flush or self.read_only or self.fd < 0:
            return
        if self._lost is not None:
            raise self._lost
        try:
            (os.fdatasync if sys.platform != "darwin" else os.fsync)(self.fd)
        except OSError as error:
            # the kernel may have dropped what it could not write, and would call the next flush a success
            self._lost = host_error(error, "", self.path)
            raise self._lost from error

    def _set_length(self, size: int) -> None:
        try:
            if size >> 63:  # negative where the host keeps it
                raise OSError(errno.EINVAL, "")
            os.ftruncate(self.fd, size)
        except OSError as error:
            raise host_error(error, "Could not resize file", self.path) from error
        self.size = size

    def resize(self, size: int, preallocation: str = "off", progress: Progress = QUIET) -> None:
        """Set the file's length. ``preallocation``: ``off``, ``falloc`` (reserve) or ``full`` (write zeroes).

        On failure the file has its old length again.
        """
        old = self.refresh()
        if preallocation == "off" or size <= old:
            if preallocation != "off" and size < old:
                raise CowshedError(
                    "Preallocation can't be used for shrinking files", path=self.path, errno=errno.ENOTSUP
                )
            self._set_length(size)
            if not old:
                self._first_block(size)
            return
        try:
            if preallocation == "falloc":
                try:
                    if size >> 63:
                        raise OSError(errno.EINVAL, "")
                    os.posix_fallocate(self.fd, old, size - old)
                except OSError as error:
                    raise host_error(error, "Could not preallocate new data", self.path) from error
                self.size = size
                if not old:
                    self._first_block(size)
            elif preallocation == "full":
                self._set_length(size)
                zeroes = memoryview(bytes(1 << 20))
                offset = old
                try:
                    while offset < size:
                        step = min(size - offset, len(zeroes))
                        self.write(offset, zeroes[:step])
                        offset += step
                        progress.advance(step)
                except HostError as error:
                    raise type(error)(
                        f"Could not write zeros for preallocation: {error}", path=self.path, errno=error.errno
                    ) from error
            else:
                raise CowshedError(
                    f"Unsupported preallocation mode: {preallocation}", path=self.path, errno=errno.ENOTSUP
                )
        except Exception:  # Ctrl-C leaves what there is, as everywhere
            os.ftruncate(self.fd, old)
            self.size = old
            raise

    def _first_block(self, size: int) -> None:
        """Write the first zeroes: a file without any data can't be asked which alignment its file system wants.

        QEMU does so too, and ``info`` shows the 4 KiB.
        """
        try:
            self.write(0, bytes(min(size, 4096 if size >= 4096 else 512)))
        except HostError:
            pass  # the length is what was asked for

    # -- facts ----------------------------------------------------------------------------------------------------

    def allocated_bytes(self) -> int | None:
        return os.fstat(self.fd).st_blocks * 512

    def shutdown(self) -> None:
        if self.fd >= 0:
            fd, self.fd = self.fd, -1
            if self.locks is not None:
                self.locks.release()
                self.locks = None
            os.close(fd)
