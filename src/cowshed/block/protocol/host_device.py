"""``host_device``, ``host_cdrom`` and ``host_floppy``: block and character devices of the host.

Their size and how to zero and discard come from the block layer's ioctls (linux/fs.h: BLKGETSIZE64, BLKSSZGET,
BLKDISCARD, BLKZEROOUT); everything else is as for a file.
"""

from __future__ import annotations

import errno
import fcntl
import os
import stat
import struct

from ...errors import CowshedError, HostError, LockError, OptionError, UnsupportedError, host_error
from ...progress import QUIET
from ..locking import FileLocks
from ..options import Option, OptionTable
from .file import CACHE_MODES, CacheMode, FileNode
from .file_open import check_options

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from ...progress import Progress
    from ..graph import OpenContext
    from ..node import Node

CREATE = OptionTable(
    "host_device",
    (
        Option("size", "size", "Virtual disk size"),
        Option("preallocation", "str", "Preallocation mode (allowed values: off)", choices=("off",)),
    ),
)

_BLKGETSIZE64 = 0x80081272
_BLKSSZGET = 0x1268
_BLKDISCARD = 0x1277
_BLKZEROOUT = 0x127F
_CDROM_DRIVE_STATUS = 0x5326
_CDSL_CURRENT = 0x7FFFFFFF
_CDS_DISC_OK = 4
_UNSUPPORTED = (errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOTTY, errno.EINVAL, errno.ENOSYS)


class HostDeviceNode(FileNode):
    """A block or character device. ``size`` is the device's own and does not change by writing."""

    driver = "host_device"
    resizable = False

    def __init__(
        self, path: str, *, writable: bool = False, cache: CacheMode | None = None, nonblock: bool = False
    ) -> None:
        self.block = False
        self.sector = 512
        super().__init__(path, writable=writable, cache=cache, nonblock=nonblock)

    def _check_kind(self, mode: int) -> None:
        if not (stat.S_ISBLK(mode) or stat.S_ISCHR(mode)):
            raise HostError(
                f"'{self.driver}' driver requires '{self.path}' to be either a character or block device",
                path=self.path,
                errno=errno.EINVAL,
            )
        self.block = stat.S_ISBLK(mode)
        if self.block:
            self.sector = self._ask(_BLKSSZGET, "i", 512)

    def _direct_align(self) -> int:
        return max(self.sector, 4096) if self.size % 4096 == 0 else self.sector

    def _ask(self, request: int, form: str, otherwise: int) -> int:
        try:
            answer = fcntl.ioctl(self.fd, request, bytes(struct.calcsize(form)))
        except OSError:
            return otherwise
        return int(struct.unpack(form, answer)[0])

    def refresh(self) -> int:
        """Ask the device for its size again, and return it."""
        size = self._ask(_BLKGETSIZE64, "Q", -1) if self.block else -1
        if size < 0:
            try:
                size = os.lseek(self.fd, 0, os.SEEK_END)
            except OSError:
                size = 0
        self.size = size
        return size

    def write(self, offset: int, data: bytes | bytearray | memoryview) -> None:
        size = self.size
        super().write(offset, data)
        self.size = size

    def _range(self, request: int, offset: int, length: int) -> bool:
        """BLKDISCARD or BLKZEROOUT; False when the device can't. Both work in whole sectors."""
        try:
            fcntl.ioctl(self.fd, request, struct.pack("QQ", offset, length))
            return True
        except OSError as error:
            if error.errno not in _UNSUPPORTED:
                raise host_error(error, "", self.path, offset) from error
            return False

    def _inner(self, offset: int, length: int) -> tuple[int, int]:
        """The whole sectors within a range."""
        start = -(-offset // self.sector) * self.sector
        return start, max(0, (offset + length) // self.sector * self.sector - start)

    def zero_range(self, offset: int, length: int, unmap: bool) -> bool:
        if not self.block or self._no_zero_range or offset % self.sector or length % self.sector:
            return False
        if self._range(_BLKZEROOUT, offset, length):
            return True
        self._no_zero_range = True
        return False

    def discard(self, offset: int, length: int) -> None:
        """Give whole sectors back; devices that can't are left as they are."""
        if self.read_only:
            self._check_write(offset, 0)
        start, count = self._inner(offset, min(length, self.size - offset))
        if self.block and not self._no_punch and count:
            self._no_punch = not self._range(_BLKDISCARD, start, count)

    def preallocate(self, offset: int, length: int) -> None:
        raise UnsupportedError("Operation not supported", path=self.path, layer=self.driver)

    def resize(self, size: int, preallocation: str = "off", progress: Progress = QUIET) -> None:
        """A device keeps its size: a format is content when it has room enough there, else it is an error."""
        if preallocation != "off":
            raise CowshedError(
                f"Preallocation mode '{preallocation}' unsupported for this non-regular file",
                path=self.path,
                errno=errno.ENOTSUP,
            )
        if size > self.refresh():
            raise CowshedError(
                "Cannot grow device files", path=self.path, value=size, limit=self.size, errno=errno.ENOTSUP
            )


class HostCdromNode(HostDeviceNode):
    """An optical drive: read only, opened without waiting for a medium."""

    driver = "host_cdrom"

    def refresh(self) -> int:
        if not self._has_medium():
            self.size = 0
            return 0
        return super().refresh()

    def _has_medium(self) -> bool:
        try:
            return fcntl.ioctl(self.fd, _CDROM_DRIVE_STATUS, _CDSL_CURRENT) == _CDS_DISC_OK
        except OSError:
            return True  # not an optical drive: the size says it


class HostFloppyNode(HostDeviceNode):
    """A floppy drive."""

    driver = "host_floppy"


def device_driver(path: str) -> str:
    """The driver for the device ``path``: an optical drive answers as one."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    except OSError:
        return "host_cdrom" if path.startswith("/dev/cdrom") else "host_device"
    try:
        if stat.S_ISBLK(os.fstat(fd).st_mode):
            fcntl.ioctl(fd, _CDROM_DRIVE_STATUS, _CDSL_CURRENT)
            return "host_cdrom"
    except OSError:
        pass
    finally:
        os.close(fd)
    return "host_device"


def _open(cls: type[HostDeviceNode], filename: str, options: dict[str, Any], context: OpenContext) -> Node:
    flags = context.flags
    locking = check_options(options, flags.cache)
    node = cls(
        filename,
        writable=context.writable,
        cache=CACHE_MODES[flags.cache],
        nonblock=cls is not HostDeviceNode,
    )
    if locking:
        node.locks = FileLocks(node.fd, filename)
    return node


def open_host_device(filename: str, options: dict[str, Any], context: OpenContext) -> Node:
    """Raises OptionError, HostError."""
    return _open(HostDeviceNode, filename, options, context)


def open_host_cdrom(filename: str, options: dict[str, Any], context: OpenContext) -> Node:
    """Raises OptionError, HostError."""
    return _open(HostCdromNode, filename, options, context)


def open_host_floppy(filename: str, options: dict[str, Any], context: OpenContext) -> Node:
    """Raises OptionError, HostError."""
    return _open(HostFloppyNode, filename, options, context)


def create_on_device(
    path: str,
    size: int,
    values: dict[str, Any],
    preallocation: str,
    perm: int,
    shared: int,
    progress: Progress = QUIET,
) -> HostDeviceNode:
    """Prepare an existing device for a new image: it must be large enough, and its first sector is cleared.

    Raises OptionError, LockError, HostError.
    """
    if preallocation != "off":
        message = f"Unsupported preallocation mode '{preallocation}'"
        raise OptionError(message, field="preallocation", value=preallocation)
    try:
        node = HostDeviceNode(path, writable=True)
        try:
            node.locks = FileLocks(node.fd, path)
            node.locks.apply(perm, shared)
        except BaseException:
            node.close()
            raise
    except (HostError, LockError) as error:
        raise type(error)(
            f"Protocol driver 'host_device' does not support image creation, and opening the image failed: {error}",
            path=path,
            hint=error.hint,
            errno=error.errno,
        ) from error
    try:
        node.resize(size)
        if node.size:
            # an old header must not be taken for the new image's
            node.write_zeroes(0, min(512, node.size))
    except BaseException:
        node.close()
        raise
    return node
