"""What the kinds of pool have in common whose volumes are devices, or parts of one."""

from __future__ import annotations

import contextlib
import errno
import os
import stat

from ...errors import CowshedError, FlagsError, HostCallError, PoolError, StateError
from ...wire.libvirt.definition import Permissions, Timestamps

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from ...block.node import Node
    from ...progress import Progress
    from ...wire.libvirt.definition import VolumeDef, VolumeTarget

_STEP = 4 << 20


@contextlib.contextmanager
def translated(path: str | None = None) -> Iterator[None]:
    """Errors of the layers below as errors of pools; ``path``: the device, where they name none."""
    try:
        yield
    except PoolError:
        raise
    except CowshedError as error:
        raise PoolError(
            str(error), path=path or error.path, field=error.field, value=error.value, hint=error.hint,
            errno=error.errno,
        ) from error  # fmt: skip
    except OSError as error:
        name = error.filename or path
        raise HostCallError(f"cannot open '{name}'", error.errno or errno.EIO, path=path or name) from error


def refused_flags(function: str, value: int = 1) -> FlagsError:
    """libvirt's refusal of options that its ``function`` doesn't take."""
    return FlagsError(f"unsupported flags (0x{value:x}) in function {function}")


def must_be_idle(path: str) -> None:
    """Raises StateError while the kernel uses a block device, or a loop device of a file: it is mounted, swapped to,
    or a part of something. What the kernel has open it would write over what we write, and the other way round."""
    try:
        status = os.stat(path)
    except (OSError, ValueError):
        return  # whoever opens it says so
    if stat.S_ISBLK(status.st_mode):
        devices = [path]
    elif stat.S_ISREG(status.st_mode):
        devices = _loops(status)
    else:
        devices = []
    for device in devices:
        if _is_held(device):
            by = f" (as '{device}')" if device != path else ""
            raise StateError(
                f"'{path}' is in use by the kernel{by}", path=path, hint="unmount it, or stop what stands on it"
            )


def must_be_unused(path: str) -> None:
    """As `must_be_idle`; PoolError too while a machine has its disk in it."""
    from ...block.graph import open_image

    must_be_idle(path)
    if not os.path.exists(path):
        return
    with translated(path):
        open_image(path, fmt="raw", exclusive=True).close()


def _loops(status: os.stat_result) -> list[str]:
    """The loop devices of a file."""
    found = []
    try:
        names = [name for name in os.listdir("/sys/block") if name.startswith("loop")]
    except OSError:
        return []
    for name in names:
        try:
            with open(f"/sys/block/{name}/loop/backing_file", "rb") as file:
                below = os.stat(file.read().rstrip(b"\n"))
        except (OSError, ValueError):
            continue
        if (below.st_dev, below.st_ino) == (status.st_dev, status.st_ino):
            found.append(f"/dev/{name}")
    return found


def _is_held(device: str) -> bool:
    """Has the kernel the device, or a partition of it, for itself? Opening it exclusively is how that is asked."""
    try:
        os.close(os.open(device, os.O_RDONLY | os.O_EXCL | os.O_NONBLOCK | os.O_CLOEXEC))
        return False
    except OSError as error:
        if error.errno not in (errno.EACCES, errno.EPERM):
            return error.errno == errno.EBUSY
    # who may not open it can read what is mounted
    from .mounts import is_mounted

    return is_mounted(os.path.realpath(device))


def copy_disk(source: Node, target: Node, progress: Progress) -> None:
    """All of one disk to the beginning of another; what lies behind reads as it did."""
    from ...block.node import HOLE, ZERO

    progress.start(source.size)
    for extent in source.extents():
        at, end = extent.offset, extent.offset + extent.length
        while at < end:
            step = min(_STEP, end - at)
            if extent.kind in (HOLE, ZERO):
                target.write_zeroes(at, step)
            else:
                target.write(at, source.read(at, step))
            at += step
            progress.advance(step)
    target.flush()
    progress.finish()


def take_facts(target: VolumeTarget, status: os.stat_result, mask: int = 0o777) -> None:
    """Permissions and times of a device that is there."""
    target.permissions = Permissions(status.st_mode & mask, status.st_uid, status.st_gid)
    target.timestamps = Timestamps(status.st_atime_ns, status.st_mtime_ns, status.st_ctime_ns)


def hand_over(volume: VolumeDef, mode: int | None = None) -> None:
    """Give a new device the owner and mode of its definition; ``mode`` where that says none. Raises HostCallError."""
    path = volume.target.path or ""
    wanted = volume.target.permissions or Permissions()
    mode = mode if wanted.mode is None else wanted.mode
    try:
        if wanted.owner != -1 or wanted.group != -1:
            os.chown(path, wanted.owner, wanted.group)
        if mode is not None:
            os.chmod(path, mode)
    except (OSError, OverflowError) as error:
        number = getattr(error, "errno", None) or errno.EINVAL
        raise HostCallError(f"cannot set owner and mode of '{path}'", number, path=path) from error


def first_line(path: str) -> str:
    """Of a file in sysfs; "" where there is none."""
    try:
        with open(path, encoding="ascii", errors="replace") as file:
            return file.readline().strip()
    except OSError:
        return ""
