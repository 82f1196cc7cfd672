"""What stands in a pool's directory: which entries are volumes, and what is known of each.

Nothing is opened but regular files, and of those only what the index doesn't know.
"""

from __future__ import annotations

import errno
import os
import stat
import time

from ...errors import HostCallError
from ...wire.libvirt.definition import Element, Encryption, Permissions, Timestamps, VolumeDef, VolumeTarget
from ..jobs import is_part

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ..index import Index
    from .probe import Facts

CONTROL = frozenset(map(chr, (*range(1, 9), 11, 12, *range(14, 32))))
#: what libvirt writes for an image that could have features and has none
_NO_FEATURES = Element("features")
_NO_NAMES = ("", ".", "..")
_KIND_MASK = 0o170000
_OPEN = os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC


def number(error: BaseException) -> int:
    """The errno of an OSError, and of the errors that Python has for names and sizes that no system call takes."""
    found = getattr(error, "errno", None)
    if isinstance(found, int):
        return found
    return errno.EFBIG if isinstance(error, OverflowError) else errno.EINVAL


def listed_name(name: str) -> bool:
    """May an entry of that name be a volume?"""
    if not name.isprintable() and not CONTROL.isdisjoint(name):
        return False
    return name not in _NO_NAMES and "/" not in name and not (name[0] == "." and is_part(name))


def entries(path: str) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(path) as entries:
            return [entry for entry in entries if listed_name(entry.name)]
    except (OSError, ValueError) as error:
        raise HostCallError(f"cannot open directory '{path}'", number(error), path=path) from error


def kind_of(entry: os.DirEntry[str]) -> os.stat_result | bool | None:
    """None when it is no volume; its status where that had to be asked for."""
    try:
        if entry.is_file(follow_symlinks=False) or entry.is_dir(follow_symlinks=False):
            return True
        status = entry.stat()  # a link, or something special
    except OSError:
        return None
    return status if is_volume(status.st_mode) else None


def is_volume(mode: int) -> bool | None:
    return True if stat.S_ISREG(mode) or stat.S_ISDIR(mode) or stat.S_ISBLK(mode) else None


def facts_of(path: str, name: str, status: os.stat_result, index: Index | None) -> tuple[os.stat_result, Facts] | None:
    """The facts of an entry and the status that goes with them; None for what can't be read."""
    mode = status.st_mode & _KIND_MASK
    if mode != stat.S_IFREG:
        from .probe import DIRECTORY, PLOOP, Facts

        if mode == stat.S_IFDIR:
            return status, PLOOP if _is_ploop(path) else DIRECTORY
        return status, Facts(capacity=_device_size(status.st_rdev))
    facts = None if index is None else index.get(name, status)
    if facts is not None:
        return status, facts
    from .probe import RAW, probe

    for _ in range(3):
        now = time.time_ns()
        try:
            fd = os.open(path, _OPEN)
        except OSError:
            return None
        try:
            status = os.fstat(fd)
            if not stat.S_ISREG(status.st_mode):
                return None
            facts = probe(fd, status.st_size)
            after = os.fstat(fd)
        except OSError:
            return status, RAW  # a bad sector: there is a volume, whatever is in it
        finally:
            os.close(fd)
        if after.st_ctime_ns == status.st_ctime_ns and after.st_size == status.st_size:
            if index is not None:
                index.put(name, status, facts, now)
            return after, facts  # with the time of our own reading
        status = after
    return status, facts or RAW  # it is being written


def _is_ploop(path: str) -> bool:
    return os.path.exists(f"{path}/root.hds") and os.path.exists(f"{path}/DiskDescriptor.xml")


def _device_size(device: int) -> int:
    """A block device's size without opening it."""
    try:
        with open(f"/sys/dev/block/{os.major(device)}:{os.minor(device)}/size", "rb") as file:
            return int(file.read(32)) * 512
    except (OSError, ValueError):
        return 0


def format_of(known: tuple[os.stat_result, Facts] | None) -> str | None:
    return None if known is None else known[1].format


def sibling_format(path: str, name: str) -> str | None:
    """The format of another entry of the same directory, which is a volume by itself."""
    if not listed_name(name):
        return None
    full = f"{path}/{name}"
    try:
        status = os.stat(full)
    except (OSError, ValueError):
        return None
    return format_of(facts_of(full, name, status, None)) if is_volume(status.st_mode) else None


def describe(path: str, name: str, status: os.stat_result, facts: Facts, label: bool = False) -> VolumeDef:
    """The volume that an entry is. ``label``: ask for its security label too."""
    volume = VolumeDef(name, "file", path)
    volume.target = target = VolumeTarget(path, facts.format)
    mode = status.st_mode
    volume.has_allocation = True
    if mode & _KIND_MASK == stat.S_IFREG:
        volume.allocation = status.st_blocks * 512
        size = status.st_size
        volume.physical = size or None
        capacity = facts.capacity
        volume.capacity = max(0, size - facts.payload) if capacity is None else capacity
        if facts.format == "ploop":
            volume.type = "ploop"
    elif stat.S_ISDIR(mode):
        volume.type = facts.format
    else:
        volume.capacity = volume.allocation = facts.capacity or 0
        volume.physical = volume.capacity or None
    target.permissions = Permissions(mode & 0o777, status.st_uid, status.st_gid)
    target.timestamps = Timestamps(status.st_atime_ns, status.st_mtime_ns, status.st_ctime_ns)
    if facts.format != "raw" or facts.encryption is not None:
        target.compat = facts.compat
        target.features = list(facts.features)
        target.cluster_size = facts.cluster_size
        volume.data = facts.data
        if facts.encryption is not None:
            target.encryption = Encryption(facts.encryption)
        if facts.compat is not None and not facts.features:
            volume.extra = [("target", _NO_FEATURES)]
    if label:
        target.permissions.label = _label(path)
    return volume


def set_permissions(permissions: Permissions, status: os.stat_result) -> Permissions:
    permissions.mode = status.st_mode & 0o777
    permissions.owner = status.st_uid
    permissions.group = status.st_gid
    return permissions


def timestamps_of(status: os.stat_result) -> Timestamps:
    return Timestamps(status.st_atime_ns, status.st_mtime_ns, status.st_ctime_ns)


def has_labels() -> bool:
    return os.path.isdir("/sys/fs/selinux/class")


def _label(path: str) -> str | None:
    try:
        return os.getxattr(path, "security.selinux").rstrip(b"\0").decode("utf-8", "surrogateescape") or None
    except OSError:
        return None
