"""Image locks that QEMU honours, and that honour QEMU's.

A user of an image says two things about it: which *permissions* it uses, and which it lets others have at
the same time (*shared*). Both are kept as open-file-description locks (fcntl(2), F_OFD_SETLK) on single
bytes of the file:

    byte 100 + i   locked while permission i is in use
    byte 200 + i   locked while permission i is not shared

    i = 0 consistent read, 1 write, 2 write unchanged, 3 resize

All locks are read locks, so that any number of users hold the same byte, and a conflict is found by asking
(F_OFD_GETLK) whether a write lock on the opposite byte would be refused. Taking first and asking afterwards
means that of two users who come at the same moment both may be refused, but never both let in. The bytes
need not exist: an empty file can be locked.

Locks belong to the open file description: they go with its last descriptor, however the process ends, and two
opens of one file within one process lock each other out as two processes would.

`image_locks` says which permissions each kind of use takes; docs/locking.md has the table by command. Where
the host has no such locks (kernels before 3.15, systems other than Linux) `available()` is False and images
are used without locking, as QEMU's locking=auto does there. A file system that refuses a lock (ENOLCK on
some network mounts) is an error, not a licence to go on unprotected: open with locking=off to take the
risk.
"""

from __future__ import annotations

import errno
import fcntl
import os
import struct
import sys

from ..errors import LockError

PERM_CONSISTENT_READ = 1
PERM_WRITE = 2
PERM_WRITE_UNCHANGED = 4
PERM_RESIZE = 8
PERM_ALL = 15

# What the file of a metadata-keeping format never shares: a second writer, or anyone moving its end.
_SHARED_BY_METADATA = PERM_ALL & ~(PERM_WRITE | PERM_RESIZE)

ROLE_METADATA = 0
"""The file that holds a format's metadata (qcow2, vmdk …)."""
ROLE_RAW = 1
"""The file of a raw image: whoever may use the disk may use the file."""
ROLE_DATA = 2
"""A file of guest data beside the metadata: qcow2's data file, a flat extent."""
ROLE_SLICE = 3
"""The file of a raw image with an offset or size: where the disk lies in it must not move."""
ROLE_CREATE = 4
"""A file being created, before its format is on it."""

_PERM_BASE = 100
_SHARED_BASE = 200
# In the order of their numbers; the words are part of the messages.
_NAMES = ("consistent read", "write", "write unchanged", "resize")

# struct flock: type, whence, start, len, pid. Native alignment gives struct flock64 wherever off_t is 64
# bits wide.
_FLOCK = struct.Struct("hhqqi")
# Elsewhere the name may exist for something else, and struct flock has another layout.
_GETLK: int | None = getattr(fcntl, "F_OFD_GETLK", None) if sys.platform == "linux" else None
_SETLK: int | None = getattr(fcntl, "F_OFD_SETLK", None) if sys.platform == "linux" else None

_available: bool | None = None


def available() -> bool:
    """Whether this host has open-file-description locks. Asked of the kernel once."""
    global _available
    if _available is None:
        _available = _GETLK is not None and _SETLK is not None and _probe()
    return _available


def _probe() -> bool:
    assert _GETLK is not None
    try:
        fd = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        fcntl.fcntl(fd, _GETLK, _FLOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0))
        return True
    except OSError:
        return False
    finally:
        os.close(fd)


def image_locks(
    role: int,
    *,
    write: bool = False,
    resize: bool = False,
    exclusive: bool = False,
    no_io: bool = False,
    force_share: bool = False,
) -> tuple[int, int]:
    """The (perm, shared) that one use of an image takes on one of its files.

    ``role`` is what the file is to the image (ROLE_*). ``write``: this file will be written. ``resize``: a
    raw disk may change its size (a format's own file always may). ``exclusive``: nobody else may write the
    disk meanwhile (the source of a convert). ``no_io``: only the metadata is looked at (info).
    ``force_share``: -U, for readers only.
    """
    if role == ROLE_CREATE:
        return PERM_WRITE | PERM_RESIZE, PERM_ALL & ~PERM_RESIZE
    perm = 0 if no_io else PERM_CONSISTENT_READ
    shared = PERM_ALL
    if write:
        perm |= PERM_WRITE
        if resize or role in (ROLE_METADATA, ROLE_DATA):
            perm |= PERM_RESIZE
    if exclusive or role == ROLE_METADATA:
        shared &= _SHARED_BY_METADATA
    if role in (ROLE_DATA, ROLE_SLICE):
        shared &= ~PERM_RESIZE
    if force_share and not write:
        shared = PERM_ALL
    return perm, shared


class FileLocks:
    """The locks held through one open file description.

    ``perm`` and ``shared`` are what is in force. Not for use from several threads at once.
    """

    __slots__ = ("_fd", "filename", "perm", "shared")

    def __init__(self, fd: int, filename: str) -> None:
        """``fd`` must stay open as long as the locks are wanted; ``filename`` is named in the messages."""
        self._fd = fd
        self.filename = filename
        self.perm = 0
        self.shared = PERM_ALL

    def apply(self, perm: int, shared: int) -> None:
        """Use permissions ``perm``, and let others use ``shared``.

        New locks are taken first, then conflicts are looked for, then locks no longer wanted are dropped:
        at no time is less held than the old and the new state have in common. On failure the old state is
        in force. Raises LockError when somebody else's use conflicts, or when the file system refuses the
        lock.
        """
        if perm == self.perm and shared == self.shared:
            return
        if available():
            old = _wanted(self.perm, self.shared)
            new = _wanted(perm, shared)
            taken: list[int] = []
            try:
                for byte in new:
                    if byte not in old:
                        self._lock(byte)
                        taken.append(byte)
                self._check(perm, shared)
            except BaseException:
                for byte in taken:
                    self._unlock(byte)
                raise
            for byte in old:
                if byte not in new:
                    self._unlock(byte)
        self.perm = perm
        self.shared = shared

    def release(self) -> None:
        """Drop everything. Never fails: a descriptor closed already has given its locks up."""
        if available():
            for byte in _wanted(self.perm, self.shared):
                self._unlock(byte)
        self.perm = 0
        self.shared = PERM_ALL

    def transfer(self, fd: int) -> FileLocks:
        """Locks like these on ``fd``, another open of the same file, without a moment in which the file is
        free.

        For reopening an image with another access mode: `apply` what the new open needs here first, then
        transfer, then close the old descriptor. No conflict is looked for, since these very locks would be
        one. Raises LockError when the file system refuses; nothing is held on ``fd`` then.
        """
        other = FileLocks(fd, self.filename)
        if available():
            taken: list[int] = []
            try:
                for byte in _wanted(self.perm, self.shared):
                    other._lock(byte)
                    taken.append(byte)
            except BaseException:
                for byte in taken:
                    other._unlock(byte)
                raise
        other.perm = self.perm
        other.shared = self.shared
        return other

    def _lock(self, byte: int) -> None:
        assert _SETLK is not None
        try:
            fcntl.fcntl(self._fd, _SETLK, _FLOCK.pack(fcntl.F_RDLCK, os.SEEK_SET, byte, 1, 0))
        except OSError as error:
            raise LockError(
                f"Failed to lock byte {byte}" + _reason(error.errno), path=self.filename, errno=error.errno
            ) from error

    def _unlock(self, byte: int) -> None:
        assert _SETLK is not None
        try:
            fcntl.fcntl(self._fd, _SETLK, _FLOCK.pack(fcntl.F_UNLCK, os.SEEK_SET, byte, 1, 0))
        except OSError:
            # Nothing can be done about it, and the lock ends with the descriptor at the latest.
            pass

    def _check(self, perm: int, shared: int) -> None:
        """Raise LockError if another user's locks speak against ``perm`` and ``shared``."""
        for i, name in enumerate(_NAMES):
            if perm & (1 << i):
                self._check_byte(_SHARED_BASE + i, f'Failed to get "{name}" lock')
        for i, name in enumerate(_NAMES):
            if not shared & (1 << i):
                self._check_byte(_PERM_BASE + i, f'Failed to get shared "{name}" lock')

    def _check_byte(self, byte: int, message: str) -> None:
        assert _GETLK is not None
        number: int | None = errno.EAGAIN
        try:
            answer = fcntl.fcntl(self._fd, _GETLK, _FLOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, byte, 1, 0))
            if _FLOCK.unpack(answer)[0] == fcntl.F_UNLCK:
                return
        except OSError as error:
            number = error.errno
        raise LockError(
            message + _reason(number),
            path=self.filename,
            errno=number,
            hint=f"Is another process using the image [{self.filename}]?",
        )


def _wanted(perm: int, shared: int) -> list[int]:
    """The bytes to hold, in the order in which they are taken."""
    bits = range(len(_NAMES))
    return [_PERM_BASE + i for i in bits if perm & (1 << i)] + [
        _SHARED_BASE + i for i in bits if not shared & (1 << i)
    ]


def _reason(number: int | None) -> str:
    """A conflict needs no more words; anything else is the host's reason."""
    if number is None or number in (errno.EAGAIN, errno.EACCES):
        return ""
    return ": " + os.strerror(number)
