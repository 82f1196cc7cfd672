"""Locks on files of our own state: open-file-description locks (fcntl(2), F_OFD_SETLK) over the whole file.

They go with the last descriptor of their open file, however its process ends, so a lock that can't be had is the one
proof that somebody lives; process ids prove nothing. Asking (`is_locked`) takes nothing, so any number of processes may
look, and it needs no more than the right to read.
"""

from __future__ import annotations

import errno
import fcntl
import os
import struct
import time

# struct flock: type, whence, start, len, pid
_FLOCK = struct.Struct("hhqqi")

#: the byte that `mark` locks
_MARK = (1 << 63) - 2

SHARED = fcntl.F_RDLCK
EXCLUSIVE = fcntl.F_WRLCK


def take(fd: int, kind: int = EXCLUSIVE, *, wait: bool = False) -> bool:
    """Lock the file of ``fd`` (open for writing when ``kind`` is EXCLUSIVE). False when somebody has it and we don't
    ``wait``. Turns a lock that ``fd`` has already into the other kind."""
    command = fcntl.F_OFD_SETLKW if wait else fcntl.F_OFD_SETLK
    try:
        fcntl.fcntl(fd, command, _FLOCK.pack(kind, os.SEEK_SET, 0, 0, 0))
    except OSError as error:
        if not wait and error.errno in (errno.EAGAIN, errno.EACCES):
            return False
        raise
    return True


def is_locked(fd: int, kind: int = EXCLUSIVE) -> bool:
    """Does somebody else hold a lock that ``kind`` would have to wait for?"""
    answer = fcntl.fcntl(fd, fcntl.F_OFD_GETLK, _FLOCK.pack(kind, os.SEEK_SET, 0, 0, 0))
    return bool(_FLOCK.unpack(answer)[0] != fcntl.F_UNLCK)


def mark(fd: int) -> None:
    """Show that somebody works on this file, for as long as ``fd``'s open file lives: a lock far behind every file's
    end and every lock of an image, which hinders nobody. Where there are no locks nothing is shown."""
    try:
        fcntl.fcntl(fd, fcntl.F_OFD_SETLK, _FLOCK.pack(EXCLUSIVE, os.SEEK_SET, _MARK, 1, 0))
    except OSError:
        pass


def is_marked(fd: int) -> bool:
    """Does another open file of it have the mark?"""
    try:
        answer = fcntl.fcntl(fd, fcntl.F_OFD_GETLK, _FLOCK.pack(EXCLUSIVE, os.SEEK_SET, _MARK, 1, 0))
    except OSError:
        return False
    return bool(_FLOCK.unpack(answer)[0] != fcntl.F_UNLCK)


def pid_file_holder(path: str) -> int | None:
    """The process that holds a lock on a daemon's pid file; None when nobody does, 0 when it can't be seen from here.

    Daemons take classic POSIX locks, which the kernel names an owner for.
    """
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError:
        return None
    try:
        # a daemon's is a write lock; a read lock anybody may have who may read the file
        answer = fcntl.fcntl(fd, fcntl.F_OFD_GETLK, _FLOCK.pack(SHARED, os.SEEK_SET, 0, 0, 0))
        found = _FLOCK.unpack(answer)
        if found[0] == fcntl.F_UNLCK:
            return None
        pid: int = found[4]
        return max(pid, 0)
    except OSError:
        return None
    finally:
        os.close(fd)


def open_locked(path: str, kind: int = EXCLUSIVE, *, timeout: float | None = None, mode: int = 0o600) -> int | None:
    """A descriptor of ``path``, made if need be, with its lock; None when ``timeout`` seconds were not enough.

    The holder of an exclusive lock may unlink the file: what we waited for is then no longer what others lock, and we
    begin again.
    """
    deadline = None if timeout is None else time.monotonic() + timeout
    pause = 0.0005
    while True:
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, mode)
        try:
            while not take(fd, kind, wait=deadline is None):
                assert deadline is not None
                left = deadline - time.monotonic()
                if left <= 0:
                    os.close(fd)
                    return None
                time.sleep(min(pause, left))
                pause = min(pause * 2, 0.05)
            mine = os.fstat(fd)
            try:
                there = os.stat(path, follow_symlinks=False)
            except FileNotFoundError:
                there = None
        except BaseException:
            os.close(fd)
            raise
        if there is not None and (there.st_dev, there.st_ino) == (mine.st_dev, mine.st_ino):
            return fd
        os.close(fd)
