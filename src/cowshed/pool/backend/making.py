"""Making, filling and resizing the file of a volume.

A volume is made under its part's name beside the final one, made durable, and then given its name by a link that
never replaces. Whatever ends the work before that leaves nothing that is listed.
"""

from __future__ import annotations

import errno
import os
import stat
import struct

from ...errors import (
    ConfigError,
    CowshedError,
    FlagsError,
    HostCallError,
    NoSupportError,
    OperationUnsupportedError,
    PoolError,
    StateError,
    error_number,
)
from ...progress import QUIET, Progress
from ...wire.libvirt.definition import Permissions
from .. import locks

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ...block.node import Node
    from ...wire.libvirt.definition import VolumeDef

VOLUME_MODE = 0o600
#: volume formats whose file is nothing but the disk's bytes
PLAIN = ("raw", "iso")
#: formats that the engine makes
_MADE = ("raw", "iso", "dir", "qcow2", "vmdk")
_KNOWN = (
    "raw", "dir", "bochs", "cloop", "dmg", "iso", "vpc", "vdi", "fat", "vhd", "ploop", "cow", "qcow", "qcow2",
    "qed", "vmdk",
)  # fmt: skip
_FEATURES = ("lazy_refcounts", "extended_l2")
_STEP = 1 << 20
_SHARE_STEP = 1 << 30

_FS_IOC_GETFLAGS = 0x80086601
_FS_IOC_SETFLAGS = 0x40086602
_FS_NOCOW_FL = 0x00800000
_FICLONE = 0x40049409
_BTRFS_IOC_FS_INFO = 0x8400941F
_NO_LINKS = (errno.EPERM, errno.EOPNOTSUPP, errno.ENOTSUP, errno.ENOSYS, errno.EMLINK)


def number(error: BaseException) -> int:
    """The errno of an error, also of those that Python has for sizes that no system call takes."""
    return errno.EFBIG if isinstance(error, OverflowError) else error_number(error)


def check(volume: VolumeDef) -> None:
    """Fill in type and format, and refuse what can't be made. Raises ConfigError, OperationUnsupportedError."""
    target = volume.target
    if target.format is None:
        target.format = "raw"
    fmt = target.format
    if fmt not in _KNOWN:
        raise ConfigError(f"unknown volume format type {fmt}", field="format", value=fmt)
    volume.type = "dir" if fmt == "dir" else "file"
    if fmt not in _MADE:
        raise ConfigError(
            f"creating volumes of format '{fmt}' is not supported", field="format", value=fmt,
            hint="raw, qcow2 and vmdk volumes can be made",
        )  # fmt: skip
    if target.encryption is not None:
        raise ConfigError("creating encrypted volumes is not supported by this version of cowshed", field="encryption")
    if fmt == "qcow2":
        if target.compat == "0.10":
            for feature in target.features:
                raise ConfigError(f"{feature} not supported with compat level {target.compat}", field="features")
    elif target.features and fmt not in (*PLAIN, "dir"):
        raise ConfigError("format features only available with qcow2", field="features")
    if volume.backing is not None and volume.backing.format is not None and volume.backing.format not in _KNOWN:
        raise ConfigError(f"unknown volume format type {volume.backing.format}", field="backingStore")


def make(
    volume: VolumeDef,
    part: str,
    *,
    prealloc_metadata: bool = False,
    progress: Progress = QUIET,
    origin: VolumeDef | None = None,
    reflink: bool = False,
) -> None:
    """Make the file of a prepared ``volume``, with the contents of ``origin`` where there is one.

    ``part``: the path that it has meanwhile, in the same directory. ``volume`` is completed with what it has become.
    Raises PoolErrors; nothing is left then.
    """
    path = volume.target.path or ""
    if volume.type == "dir":
        if origin is not None:
            raise ConfigError("cannot make a directory from a volume", field="format")
        _make_folder(volume, path)
        return
    plain = volume.target.format in PLAIN
    backing = None if volume.backing is None else volume.backing.path
    if origin is not None and backing is not None:
        # the copy stands by itself; what the definition says of a backing file is only compared
        below = None if origin.backing is None else origin.backing.path
        if below is not None and backing != below:
            raise PoolError("a different backing store cannot be specified.", field="backingStore")
        backing = None
    if plain and (origin is None or origin.target.format in PLAIN):
        if prealloc_metadata:
            raise ConfigError("metadata preallocation is not supported for raw volumes")
        if backing is not None:
            raise NoSupportError("backing storage not supported for raw volumes")
    elif prealloc_metadata and volume.target.format != "qcow2":
        raise ConfigError("metadata preallocation only available with qcow2")
    elif prealloc_metadata and backing is not None:
        raise ConfigError("metadata preallocation conflicts with backing store")
    if reflink and not (plain and origin is not None and origin.target.format in PLAIN):
        raise FlagsError("unsupported flags (0x2) in function storageBackendCreateQemuImg", field="reflink")
    done = False
    try:
        fd = os.open(part, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, VOLUME_MODE)
    except (OSError, ValueError) as error:
        raise HostCallError(f"Failed to create file '{path}'", number(error), path=path) from error
    try:
        locks.mark(fd)
        if plain:
            _make_raw(volume, part, fd, progress, origin, reflink)
        else:
            _make_image(volume, part, fd, prealloc_metadata, progress, origin, backing)
        # Of a file that nothing was written to a power cut leaves the whole or nothing, whatever name it has: it is
        # synced with its name, in one go.
        empty = plain and origin is None and volume.has_allocation and not volume.allocation
        _finish(volume, fd)
        if not empty:
            _sync(fd, path)
        publish(part, path)
        done = True
        if empty:
            try:
                _sync(fd, path)
            except HostCallError:
                _remove(path)
                raise
    except CowshedError as error:
        if isinstance(error, PoolError):
            raise
        raise told(error, part, path) from error
    finally:
        os.close(fd)
        if not done:
            _remove(part)


def told(error: CowshedError, part: str, path: str) -> PoolError:
    """The engine's error as libvirt passes on what its tools say; the part's name is nobody's business."""
    return PoolError(
        error.message.replace(part, path), path=path, field=error.field, value=error.value, hint=error.hint,
        errno=error_number(error),
    )  # fmt: skip


def _remove(part: str) -> None:
    try:
        os.unlink(part)
    except OSError:
        pass


def _make_folder(volume: VolumeDef, path: str) -> None:
    wanted = volume.target.permissions or Permissions()
    try:
        os.mkdir(path, 0o700)
    except FileExistsError:
        raise StateError(f"volume target path '{path}' already exists", path=path) from None
    except (OSError, ValueError) as error:
        raise HostCallError(f"failed to create directory '{path}'", number(error), path=path) from error
    try:
        fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            if wanted.owner != -1 or wanted.group != -1:
                os.fchown(fd, wanted.owner, wanted.group)
            os.fchmod(fd, VOLUME_MODE if wanted.mode is None else wanted.mode)
        finally:
            os.close(fd)
        _sync_folder(path)
    except (OSError, OverflowError) as error:
        try:
            os.rmdir(path)
        except OSError:
            pass
        raise HostCallError(f"failed to create directory '{path}'", number(error), path=path) from error


# -- raw ---------------------------------------------------------------------------------------------------------------


def _make_raw(
    volume: VolumeDef, part: str, fd: int, progress: Progress, origin: VolumeDef | None, reflink: bool
) -> None:
    path = volume.target.path
    if volume.target.nocow:
        disable_cow(fd, path or "", demanded=True)
    shared = False
    if origin is not None and origin.target.format in PLAIN:
        shared = _reflink(origin, fd, demanded=reflink)
    _set_length(fd, volume.capacity, path or "")
    allocation = volume.allocation if volume.has_allocation else volume.capacity
    if origin is not None and allocation < origin.capacity:
        allocation = 0  # a copy that need not be whole is as sparse as it can be
    if allocation and volume.target.format != "iso":
        # more of it than of capacity makes the volume larger, as in libvirt
        if allocation > volume.capacity:
            volume.capacity = allocation
            _set_length(fd, allocation, path or "")
        _allocate(fd, allocation, path or "", QUIET if origin is not None else progress, filled=shared)
    if origin is not None and not shared:
        from .filling import fill

        fill(origin, part, fd, "raw", progress)


def _set_length(fd: int, length: int, path: str) -> None:
    try:
        os.ftruncate(fd, length)
    except (OSError, OverflowError) as error:
        raise HostCallError(f"cannot extend file '{path}'", number(error), path=path) from error


def _allocate(fd: int, length: int, path: str, progress: Progress, *, filled: bool = False, begin: int = 0) -> None:
    """Reserve space from the file's beginning, by writing zeroes where the file system can do nothing better: from
    ``begin`` on, where the file ends that was there before; and not at all into one that is ``filled`` already. What
    holds data stays as sparse as it is there."""
    from ...block.protocol.file import FileNode
    from ...errors import HostError

    doing = f"cannot allocate {length} bytes in file '{path}'"
    node = FileNode(path, writable=True, fd=os.dup(fd))
    try:
        try:
            node.preallocate(0, length)
            return
        except HostError as error:
            if error.errno not in (errno.EOPNOTSUPP, errno.ENOTSUP, errno.ENOSYS, errno.EINVAL, errno.ENOTTY):
                raise HostCallError(doing, number(error), path=path) from error
        if filled or begin >= length:
            return
        progress.start(length)
        zeroes = memoryview(bytes(min(length - begin, _STEP)))
        for at in range(begin, length, _STEP):
            try:
                node.write(at, zeroes[: min(_STEP, length - at)])
            except HostError as error:
                raise HostCallError(f"cannot fill file '{path}'", number(error), path=path) from error
            progress.at(min(at + _STEP, length))
    finally:
        node.close()


def _reflink(origin: VolumeDef, fd: int, *, demanded: bool) -> bool:
    """Let the file share all blocks of ``origin``'s. False where that can't be; HostCallError when it must be."""
    import fcntl

    path = origin.target.path or ""
    try:
        source = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
        try:
            if not stat.S_ISREG(os.fstat(source).st_mode):
                raise OSError(errno.EOPNOTSUPP, "")
            fcntl.ioctl(fd, _FICLONE, source)
            return True
        finally:
            os.close(source)
    except (OSError, ValueError) as error:
        if demanded:
            raise HostCallError(f"failed to clone files from '{path}'", number(error), path=path) from error
        return False


# -- formats -----------------------------------------------------------------------------------------------------------


def _make_image(
    volume: VolumeDef,
    part: str,
    fd: int,
    prealloc_metadata: bool,
    progress: Progress,
    origin: VolumeDef | None,
    backing: str | None,
) -> None:
    from ...ops.create import create

    target = volume.target
    fmt = target.format or ""
    options: dict[str, object] = {}
    if fmt == "qcow2":
        options["compat"] = target.compat or ("1.1" if target.features else "0.10")
        if target.cluster_size:
            options["cluster_size"] = target.cluster_size
        for feature in target.features:
            if feature in _FEATURES:
                options[feature] = True
        if prealloc_metadata:
            allocation = volume.allocation if volume.has_allocation else volume.capacity
            options["preallocation"] = "metadata" if volume.capacity > allocation else "falloc"
    if target.nocow:
        options["nocow"] = True
    size: int | None = _whole_sectors(volume.capacity)
    if backing is not None:
        assert volume.backing is not None
        _check_backing(backing, volume.target.path or "")
        size = size or None  # as large as the backing file
    made = create(
        part, fmt, options, size=size, backing=backing,
        backing_fmt=None if backing is None or volume.backing is None else volume.backing.format or "raw",
        unsafe=size is not None, progress=progress if origin is None else QUIET,
    )  # fmt: skip
    volume.capacity = made["size"]
    if os.fstat(fd).st_ino != os.stat(part, follow_symlinks=False).st_ino:
        raise StateError(f"volume '{volume.name}' was replaced while it was being made", path=part)
    if origin is not None:
        from .filling import fill

        fill(origin, part, fd, fmt, progress)


def _whole_sectors(size: int) -> int:
    return (size + 511) // 512 * 512


def _check_backing(name: str, path: str) -> None:
    """The backing file must be readable. Raises HostCallError."""
    full = os.path.join(os.path.dirname(path), name)
    try:
        if not os.access(full, os.R_OK):
            os.stat(full)
            raise PermissionError(errno.EACCES, "")
    except (OSError, ValueError) as error:
        raise HostCallError(f"inaccessible backing store volume {name}", number(error), path=full) from error


# -- finishing ---------------------------------------------------------------------------------------------------------


def _finish(volume: VolumeDef, fd: int) -> None:
    """Owner and mode."""
    path = volume.target.path or ""
    wanted = volume.target.permissions or Permissions()
    try:
        if wanted.owner != -1 or wanted.group != -1:
            os.fchown(fd, wanted.owner, wanted.group)
    except (OSError, OverflowError) as error:
        text = f"unable to set owner of '{path}' to ({wanted.owner}, {wanted.group})"
        raise HostCallError(text, number(error), path=path) from error
    try:
        os.fchmod(fd, VOLUME_MODE if wanted.mode is None else wanted.mode)
    except OSError as error:
        raise HostCallError(f"cannot set file mode '{path}'", number(error), path=path) from error


def _sync(fd: int, path: str) -> None:
    try:
        os.fsync(fd)
    except OSError as error:
        raise HostCallError(f"cannot sync data to file '{path}'", number(error), path=path) from error


def publish(part: str, path: str) -> None:
    """Give ``part`` its name for good, unless somebody has taken it meanwhile. Raises StateError, HostCallError."""
    try:
        try:
            os.link(part, path, follow_symlinks=False)
        except OSError as error:
            if error.errno not in _NO_LINKS:
                raise
            _rename_no_replace(part, path)
        else:
            os.unlink(part)
        _sync_folder(path)
    except FileExistsError:
        raise StateError(f"volume target path '{path}' already exists", path=path) from None
    except (OSError, ValueError) as error:
        raise HostCallError(f"cannot create path '{path}'", number(error), path=path) from error


def _rename_no_replace(part: str, path: str) -> None:
    """renameat2(2) with RENAME_NOREPLACE, for file systems without hard links."""
    import ctypes

    library = ctypes.CDLL(None, use_errno=True)
    here = -100  # AT_FDCWD
    if library.renameat2(here, os.fsencode(part), here, os.fsencode(path), 1):
        failed = ctypes.get_errno()
        if failed not in (errno.EINVAL, errno.ENOSYS):
            raise OSError(failed, os.strerror(failed))
        # Neither: take the name first, then replace what is ours. A cut in between leaves an empty file.
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, VOLUME_MODE)
        try:
            os.rename(part, path)
        except BaseException:
            ours, there = os.fstat(fd), os.lstat(path)
            if (ours.st_dev, ours.st_ino, 0) == (there.st_dev, there.st_ino, there.st_size):
                os.unlink(path)
            raise
        finally:
            os.close(fd)


def _sync_folder(path: str) -> None:
    fd = os.open(os.path.dirname(path) or "/", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    except OSError as error:
        if error.errno != errno.EINVAL:  # file systems that have nothing to sync there
            raise
    finally:
        os.close(fd)


def disable_cow(fd: int, path: str, *, demanded: bool) -> None:
    """Take copy-on-write away from an empty file or a directory on btrfs, the one file system that has the switch.

    Raises HostCallError when it was ``demanded`` and can't be.
    """
    import fcntl

    try:
        fcntl.ioctl(fd, _BTRFS_IOC_FS_INFO, bytes(1024))
        flags = struct.unpack("l", fcntl.ioctl(fd, _FS_IOC_GETFLAGS, struct.pack("l", 0)))[0]
        fcntl.ioctl(fd, _FS_IOC_SETFLAGS, struct.pack("l", flags | _FS_NOCOW_FL))
    except OSError as error:
        if demanded:
            text = f"unable to control COW flag on '{path}', not btrfs"
            raise HostCallError(text, errno.ENOSYS, path=path) from error


# -- resizing and raw access -------------------------------------------------------------------------------------------


def resize(volume: VolumeDef, capacity: int, *, allocate: bool, shrink: bool, home: str = "") -> None:
    """Another size for the disk: of a plain file, or of the image in it. ``home``: the pool's directory, see
    `must_be_inside`. Raises PoolErrors in libvirt's words."""
    path = volume.target.path or ""
    if volume.type in ("dir", "ploop"):
        raise PoolError(f"Could not open '{path}': {os.strerror(errno.EISDIR)}", path=path, errno=errno.EISDIR)
    if volume.target.encryption is not None:
        raise ConfigError(
            "changing the capacity of encrypted volumes is not supported by this version of cowshed", path=path
        )
    if volume.target.format in PLAIN:
        _resize_raw(volume, capacity, allocate, home)
        return
    if allocate:
        raise OperationUnsupportedError("preallocate is only supported for raw type volume", field="allocate")
    from ...block.graph import open_image
    from ...ops.resize import resize as resize_image

    try:
        with open_image(path, fmt=volume.target.format, writable=True, resize=True) as node:
            must_be_inside(getattr(node.children.get("file"), "fd", -1), home, volume)
            resize_image(node, _whole_sectors(capacity), shrink=shrink)
    except PoolError:
        raise
    except CowshedError as error:
        raise told(error, path, path) from error


def must_be_inside(fd: int, home: str, volume: VolumeDef) -> None:
    """Raises StateError when the file that was opened to be written is not below the directory ``home``: a symbolic
    link led to it. Of the file itself nobody can make another any more."""
    try:
        there = os.readlink(f"/proc/self/fd/{fd}")
    except OSError:
        return
    if home and not there.startswith(os.path.realpath(home).rstrip("/") + "/"):
        raise leads_out(volume)


def leads_out(volume: VolumeDef) -> StateError:
    return StateError(
        f"volume '{volume.name}' is a symbolic link that leads out of its pool", path=volume.target.path,
        hint="work on the file that it leads to, through the pool that it is in",
    )  # fmt: skip


def _resize_raw(volume: VolumeDef, capacity: int, allocate: bool, home: str) -> None:
    from ...block.graph import open_image

    path = volume.target.path or ""
    try:
        node = open_image(path, fmt="raw", writable=True, resize=True)
    except CowshedError as error:
        raise told(error, path, path) from error
    with node:
        fd: int = node.file.fd  # type: ignore[attr-defined]
        must_be_inside(fd, home, volume)
        before = os.fstat(fd).st_size
        try:
            if allocate:
                _allocate(fd, capacity, path, QUIET, begin=before)
            try:
                os.ftruncate(fd, capacity)
                os.fsync(fd)
            except (OSError, OverflowError) as error:
                raise HostCallError(f"Failed to truncate file '{path}'", number(error), path=path) from error
        except BaseException:
            if before < capacity:  # what was added goes again; nothing is ever cut off that was there
                try:
                    os.ftruncate(fd, before)
                except OSError:
                    pass
            raise


def open_bytes(volume: VolumeDef, writable: bool) -> Node:
    """The bytes of a volume's file or device, as they are. Raises HostCallError, PoolError (in use by a machine)."""
    from ...block.graph import open_image

    path = volume.target.path or ""
    try:
        mode = os.stat(path).st_mode
        if stat.S_ISDIR(mode):
            raise IsADirectoryError(errno.EISDIR, "")
        if not stat.S_ISREG(mode):
            raise OSError(errno.EINVAL, "")
    except (OSError, ValueError) as error:
        raise HostCallError(f"Unable to open stream for '{path}'", number(error), path=path) from error
    try:
        # the file itself: a raw disk would end with a whole sector
        return open_image(path, fmt="file", writable=writable, resize=writable)
    except CowshedError as error:
        raise told(error, path, path) from error
