"""The kernel's idea of a disk's partitions: made to agree with the table by BLKPG (linux/blkpg.h), one by one.

Nothing here rereads a whole table (BLKRRPART), which fails as soon as one partition is in use.
"""

from __future__ import annotations

import array
import errno
import fcntl
import os
import stat
import struct
import time

from ...errors import HostCallError
from ...layout.partition.geometry import Geometry

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from ...layout.partition import Partition

_BLKPG = 0x1269
_ADD, _DELETE = 1, 2
_HDIO_GETGEO = 0x0301
_LOOP_GET_STATUS64, _LOOP_SET_STATUS64 = 0x4C05, 0x4C04
_LOOP_FLAGS_AT = 52
_LO_FLAGS_PARTSCAN = 8
#: what sysfs counts in, whatever the device's sectors are
_UNIT = 512
#: seconds to wait for devtmpfs or udev to make a node
_PATIENCE = 2.0


def is_block(path: str) -> bool:
    try:
        return stat.S_ISBLK(os.stat(path).st_mode)
    except OSError:
        return False


def geometry_of(path: str) -> Geometry:
    """The cylinders that libparted takes a disk to have, and libvirt aligns MBR partitions to: what the driver says,
    255 heads of 2 sectors for a device whose driver says nothing, 4 of 32 for a file."""
    if not is_block(path):
        return Geometry(4, 32)
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            heads, sectors = struct.unpack_from("BB", fcntl.ioctl(fd, _HDIO_GETGEO, bytes(32)))
        finally:
            os.close(fd)
    except OSError:
        heads = sectors = 0
    return Geometry(heads, sectors) if heads and 0 < sectors < 64 else Geometry(255, 2)


class Node:
    """A partition as the kernel has it: ``number``, its device ``path``, ``start`` and ``size`` in bytes."""

    __slots__ = ("number", "path", "size", "start")

    def __init__(self, number: int, path: str, start: int, size: int) -> None:
        self.number = number
        self.path = path
        self.start = start
        self.size = size


def known(path: str) -> dict[int, Node]:
    """The partitions of block device ``path`` that the kernel knows, by number. Empty for anything else."""
    if not is_block(path):
        return {}
    device = os.stat(path).st_rdev
    base = f"/sys/dev/block/{os.major(device)}:{os.minor(device)}"
    found = {}
    try:
        names = os.listdir(base)
    except OSError:
        return {}
    for name in names:
        try:
            number, start, size = (_figure(f"{base}/{name}/{what}") for what in ("partition", "start", "size"))
        except (OSError, ValueError):
            continue
        found[number] = Node(number, f"/dev/{name.replace('!', '/')}", start * _UNIT, size * _UNIT)
    return found


def _figure(path: str) -> int:
    with open(path, encoding="ascii") as file:
        return int(file.read())


def _wanted(part: Partition, sector: int) -> tuple[int, int]:
    """Where the kernel has a partition: of an extended one only the boot sector, that nobody may write over."""
    return part.start, min(part.size, max(sector, 1024)) if part.kind == "extended" else part.size


def _agrees(node: Node, part: Partition, sector: int) -> bool:
    # some tools show an extended partition larger than the kernel would
    return node.start == part.start and (part.kind == "extended" or node.size == part.size)


def may_change(path: str) -> bool:
    """Can this process tell the kernel about partitions of ``path``? Device-mapper's devices have none of their own."""
    mapped = os.path.basename(os.path.realpath(path)).startswith("dm-")
    return os.geteuid() == 0 and is_block(path) and not mapped


def remove(path: str, numbers: Iterable[int]) -> None:
    """Make the kernel forget partitions, the last first. Raises HostCallError when one is in use; the others are
    known as before then."""
    now = known(path)
    gone: list[Node] = []
    with _Device(path) as fd:
        for number in sorted(set(numbers) & set(now), reverse=True):
            try:
                _ask(fd, _DELETE, number, 0, 0)
            except OSError as error:
                if error.errno == errno.ENXIO:
                    continue
                for node in reversed(gone):
                    _ask(fd, _ADD, node.number, node.start, node.size)
                raise HostCallError(
                    f"cannot take partition '{now[number].path}' from the kernel", error.errno or errno.EIO,
                    path=now[number].path, hint="unmount it, or stop what uses it",
                ) from error  # fmt: skip
            gone.append(now[number])


def agree(path: str, parts: Iterable[Partition], sector: int) -> None:
    """Make the kernel know exactly ``parts`` of ``path``. Raises HostCallError when one that must change is in use."""
    wanted = {part.number: part for part in parts}
    now = known(path)
    wrong = [number for number, node in now.items()
             if number not in wanted or not _agrees(node, wanted[number], sector)]  # fmt: skip
    if wrong:
        remove(path, wrong)
    missing = [part for number, part in sorted(wanted.items()) if number not in now or number in wrong]
    if not missing:
        return
    with _Device(path) as fd:
        for part in missing:
            start, size = _wanted(part, sector)
            try:
                _add(fd, part.number, start, size)
            except OSError as error:
                raise HostCallError(
                    f"cannot tell the kernel of partition {part.number} of '{path}'", error.errno or errno.EIO,
                    path=path,
                ) from error  # fmt: skip
    deadline = time.monotonic() + _PATIENCE
    while time.monotonic() < deadline:
        if all(os.path.exists(node.path) for node in known(path).values()):
            break
        time.sleep(0.01)


class _Device:
    """The whole disk, open for questions to its driver."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.fd = -1

    def __enter__(self) -> int:
        try:
            self.fd = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC)
        except OSError as error:
            raise HostCallError(f"cannot open '{self.path}'", error.errno or errno.EIO, path=self.path) from error
        return self.fd

    def __exit__(self, *exc: object) -> None:
        os.close(self.fd)


def _add(fd: int, number: int, start: int, size: int) -> None:
    try:
        _ask(fd, _ADD, number, start, size)
    except OSError as error:
        # a loop device takes partitions only once it was told that it may have some
        if error.errno != errno.EINVAL or not _allow_on_loop(fd):
            raise
        _ask(fd, _ADD, number, start, size)


def _allow_on_loop(fd: int) -> bool:
    try:
        status = bytearray(fcntl.ioctl(fd, _LOOP_GET_STATUS64, bytes(232)))
        (flags,) = struct.unpack_from("=I", status, _LOOP_FLAGS_AT)
        if flags & _LO_FLAGS_PARTSCAN:
            return False
        struct.pack_into("=I", status, _LOOP_FLAGS_AT, flags | _LO_FLAGS_PARTSCAN)
        fcntl.ioctl(fd, _LOOP_SET_STATUS64, bytes(status))
    except OSError:
        return False
    return True


def _ask(fd: int, operation: int, number: int, start: int, size: int) -> None:
    partition = array.array("B", struct.pack("=qqi64s64s4x", start, size, number, b"", b""))
    address, length = partition.buffer_info()
    fcntl.ioctl(fd, _BLKPG, struct.pack("@iiiP", operation, 0, length, address))
