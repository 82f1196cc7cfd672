"""Opening and making files: what the ``file`` driver's row in the registry leads to."""

from __future__ import annotations

import errno
import fcntl
import os
import struct

from ...errors import CowshedError, OptionError, host_error
from ...progress import QUIET
from ..locking import FileLocks, available
from .file import CACHE_MODES, FileNode

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from ...progress import Progress
    from ..graph import OpenContext
    from ..node import Node

_PREALLOCATIONS = ("off", "metadata", "falloc", "full")
_EXTENT_SIZE_HINT = 1 << 20
# linux/fs.h: inode flags, and struct fsxattr with the requests that take it
_FS_IOC_GETFLAGS = 0x80086601
_FS_IOC_SETFLAGS = 0x40086602
_FS_NOCOW_FL = 0x00800000
_FSXATTR = struct.Struct("=IIIII8s")
_FS_IOC_FSGETXATTR = 0x801C581F
_FS_IOC_FSSETXATTR = 0x401C5820
_FS_XFLAG_EXTSIZE = 0x800


def check_options(options: dict[str, Any], cache: str) -> bool:
    """The open options that change nothing here but must be valid; True when locks are wanted. Raises OptionError."""
    aio = word(options.get("aio", "threads"))
    if aio not in ("threads", "native", "io_uring"):
        raise OptionError(f"invalid parameter value: {aio}", field="aio", value=aio)
    if aio == "native" and not CACHE_MODES[cache].direct:
        raise OptionError(
            "aio=native was specified, but it requires cache.direct=on, which was not specified.",
            field="aio",
            value=aio,
        )
    locking = word(options.get("locking", "auto"))
    if locking not in ("auto", "on", "off"):
        raise OptionError(f"invalid parameter value: {locking}", field="locking", value=locking)
    manager = options.get("pr-manager")
    if manager is not None:
        raise OptionError(f"No persistent reservation manager with id '{manager}'", field="pr-manager", value=manager)
    return locking == "on" or (locking == "auto" and available())


def word(value: object) -> str:
    """An option's value as text."""
    if isinstance(value, bool):
        return "on" if value else "off"
    return str(value)


def open_file(filename: str, options: dict[str, Any], context: OpenContext) -> Node:
    """A regular file. Raises OptionError, HostError. Locks are made here and taken by the graph."""
    flags = context.flags
    locking = check_options(options, flags.cache)
    node = FileNode(filename, writable=context.writable, cache=CACHE_MODES[flags.cache])
    if locking:
        node.locks = FileLocks(node.fd, filename)
    return node


def create_file(
    path: str,
    size: int,
    values: dict[str, Any],
    preallocation: str,
    perm: int,
    shared: int,
    progress: Progress = QUIET,
) -> FileNode:
    """Make ``path``, or empty it once the locks (see locking.py) are held, and give it ``size`` bytes.

    ``values``: creation options. ``progress``: see Node.resize.

    The caller closes the node. Raises OptionError, LockError, HostError; a file that
    was there before is unchanged unless it was emptied already.
    """
    check_preallocation(preallocation)
    hint = values.get("extent_size_hint")
    if hint is not None and hint >= 1 << 32:
        raise OptionError("Extent size hint is too large", field="extent_size_hint", value=hint, limit=(1 << 32) - 1)
    flags = os.O_RDWR | os.O_CREAT | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
    try:
        fd = os.open(path, flags, 0o644)
    except (OSError, ValueError) as error:
        if isinstance(error, ValueError):
            error = OSError(errno.EINVAL, "")
        raise host_error(error, f"Could not create '{path}'", path) from error
    # the name is what the user gave; what is behind it shows when it is emptied
    locks = FileLocks(fd, path)
    try:
        locks.apply(perm, shared)
        try:
            os.ftruncate(fd, 0)
        except OSError as error:
            raise host_error(error, "Could not resize file", path) from error
        if values.get("nocow"):
            _set_nocow(fd)
        if hint != 0:
            _set_extent_size_hint(fd, hint or _EXTENT_SIZE_HINT)
    except BaseException:
        os.close(fd)
        raise
    node = FileNode(path, writable=True, fd=fd)
    node.locks = locks
    try:
        if size:
            node.resize(size, preallocation, progress)
    except BaseException as error:
        node.close()
        if isinstance(error, Exception):  # Ctrl-C leaves what there is
            remove(path)
        raise
    return node


def remove(path: str) -> None:
    """Take away a file that could not be made whole; the error that led here is the one to tell."""
    try:
        os.unlink(path)
    except OSError:
        pass


def check_preallocation(mode: str) -> None:
    """Raises OptionError for a word that is no mode at all, CowshedError for one that files don't have."""
    if mode not in _PREALLOCATIONS:
        raise OptionError(f"invalid parameter value: {mode}", field="preallocation", value=mode)
    if mode == "metadata":
        raise CowshedError(f"Unsupported preallocation mode: {mode}", field="preallocation", errno=errno.ENOTSUP)


def _set_nocow(fd: int) -> None:
    """Best effort: only btrfs has it, and only for empty files."""
    try:
        attributes = struct.unpack("L", fcntl.ioctl(fd, _FS_IOC_GETFLAGS, struct.pack("L", 0)))[0]
        fcntl.ioctl(fd, _FS_IOC_SETFLAGS, struct.pack("L", attributes | _FS_NOCOW_FL))
    except OSError:
        pass


def _set_extent_size_hint(fd: int, hint: int) -> None:
    """Best effort: XFS allocates in pieces of this size, which keeps images from falling into fragments."""
    try:
        fields = list(_FSXATTR.unpack(fcntl.ioctl(fd, _FS_IOC_FSGETXATTR, bytes(_FSXATTR.size))))
        fields[0] |= _FS_XFLAG_EXTSIZE
        fields[1] = hint
        fcntl.ioctl(fd, _FS_IOC_FSSETXATTR, _FSXATTR.pack(*fields))
    except OSError:
        pass
