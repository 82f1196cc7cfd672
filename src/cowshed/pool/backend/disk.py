"""``disk`` pools: a partition table, GPT or MBR, on a block device or in a plain file; its partitions are the volumes.

The table is read and written natively (layout/partition), so that a plain file needs neither root nor a kernel: its
volumes are slices of it, called as the kernel would call them and found beside it (``/srv/disk.img`` has
``/srv/disk.img1``, ``/srv/disk0`` has ``/srv/disk0p1``). On a block device the kernel is told of every change where
this process may.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import stat

from ...errors import (
    ArgumentError,
    BuiltError,
    ConfigError,
    DefinitionError,
    HostCallError,
    NoSupportError,
    ProbeError,
    StateError,
)
from ...layout.partition import EXTENDED, LOGICAL, PRIMARY, create_table, read_table
from ...progress import QUIET
from ...wire.libvirt.definition import VolumeDef, VolumeTarget
from . import disk_place
from . import kernel_partitions as kernel
from .base import Backend
from .devices import copy_disk, hand_over, must_be_idle, refused_flags, take_facts, translated

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from ...block.node import Node
    from ...layout.partition import Partition, Table
    from ...progress import Progress
    from ...wire.libvirt.definition import PoolDef

#: tables that are made and read here; what else libvirt's documents may name is recognised and refused
NATIVE = ("dos", "gpt")
#: what a build clears at both ends of the disk, so that nothing that was there is found again
_CLEARED = 1 << 20
#: format of a volume -> MBR type (parted's choice), GPT type
_TYPES: dict[str, tuple[int, int]] = {
    "none": (0x83, 0x83),
    "linux": (0x83, 0x83),
    "fat16": (0x0E, 0x0E),
    "fat32": (0x0C, 0x0C),
    "linux-swap": (0x82, 0x82),
    "linux-lvm": (0x8E, 0x8E),
    "linux-raid": (0xFD, 0xFD),
    "extended": (0x0F, 0),
}
_MBR_FORMATS = {
    0x83: "linux", 0x04: "fat16", 0x06: "fat16", 0x0E: "fat16", 0x0B: "fat32", 0x0C: "fat32", 0x82: "linux-swap",
    0x8E: "linux-lvm", 0xFD: "linux-raid",
}  # fmt: skip
_GPT_FORMATS = {
    "0657FD6D-A4AB-43C4-84E5-0933C84B4F4F": "linux-swap",
    "E6D6D379-F507-44C2-A23C-238F2A3DF928": "linux-lvm",
    "A19D880F-05FC-4D3B-A006-743F0F84911E": "linux-raid",
}


class DiskBackend(Backend):
    """A partitioned disk."""

    type = "disk"
    source_formats = ("unknown", ("unknown", "dos", "dvh", "gpt", "mac", "bsd", "pc98", "sun", "lvm2"))
    volume_formats = ("none", tuple(_TYPES))
    renumbers = True

    # ---- the pool

    def validate(self, pool: PoolDef) -> None:
        if not pool.source.devices:
            raise DefinitionError("missing storage pool source device name")
        if not pool.target:
            raise DefinitionError("missing storage pool target path")

    def source_key(self, pool: PoolDef) -> object:
        return "device", tuple(device.path for device in pool.source.devices)

    def check(self, pool: PoolDef) -> bool:
        return os.path.exists(_device(pool))

    def build(self, pool: PoolDef, *, overwrite: bool = False, no_overwrite: bool = False) -> None:
        """Make an empty table. Raises BuiltError where something is on the device and ``overwrite`` was not said,
        ConfigError for tables that are not made here, HostCallError while a partition is in use: all before anything
        changes."""
        path = _device(pool)
        label = _label(pool)
        if overwrite or os.path.exists(path):
            _must_exist(path)
        else:
            raise ProbeError(f"Failed to create filesystem probe for device {path}", path=path)
        with translated(path):
            if not overwrite:
                found = _whole(path)
                if found == label:
                    raise BuiltError(f"Device '{path}' already formatted using '{label}'", path=path)
                if found is not None:
                    raise BuiltError(
                        f"Format of device '{path}' does not match the expected format '{label}', forced overwrite is "
                        f"necessary",
                        path=path,
                    )
            _must_be_native(label)
            with _writing(path) as node:
                table = create_table(label, node, geometry=kernel.geometry_of(path))
                _release(path)
                if overwrite:
                    _clear(node)
                table = create_table(label, node, geometry=table.geometry, identifier=table.identifier)
                table.write(node)

    def start(self, pool: PoolDef) -> None:
        """The table must be there and of the kind that the definition says."""
        path = _existing(pool)
        label = _label(pool)
        with translated(path):
            found = _whole(path)
            if found is None:
                raise ProbeError(f"Device '{path}' is unrecognized, requires build", path=path)
            if found != label:
                raise StateError(f"Format of device '{path}' does not match the expected format '{label}'", path=path)
            _must_be_native(label)
            table = _read(path)
            if kernel.may_change(path):
                kernel.agree(path, table.partitions, table.sector_size)

    def delete(self, pool: PoolDef, *, zeroed: bool = False) -> None:
        """Clear both ends of the disk, where tables are; what the partitions hold is not touched otherwise."""
        if zeroed:
            raise refused_flags("virStorageBackendDiskDeletePool")
        path = _device(pool)
        _must_exist(path)
        with translated(path), _writing(path) as node:
            _release(path)
            _clear(node)

    def refresh(self, pool: PoolDef) -> None:
        """Capacity is where the last partition or free extent ends; allocation counts no extended partition."""
        path = _existing(pool)
        with translated(path):
            table = _read(path)
        free = table.free_extents()
        pool.available = sum(space.size for space in free)
        pool.allocation = sum(part.size for part in table.partitions if part.kind != EXTENDED)
        pool.capacity = max([0, *(space.end for space in free), *(part.end for part in table.partitions)])
        pool.source.format = table.label
        pool.source.devices[0].free_extents = [(space.start, space.end) for space in free]

    # ---- volumes: names and facts

    def names(self, pool: PoolDef) -> Iterable[tuple[str, str]]:
        path = _existing(pool)
        with translated(path):
            table = _read(path)
        paths = [_path_of(pool, part.number) for part in table.partitions]
        return [(os.path.basename(path), path) for path in paths]

    def scan(self, pool: PoolDef) -> list[VolumeDef]:
        path = _existing(pool)
        with translated(path):
            table = _read(path)
            return [_describe(pool, part) for part in sorted(table.partitions, key=lambda part: part.start)]

    # ---- volumes: verbs

    def prepare_volume(self, pool: PoolDef, volume: VolumeDef) -> None:
        """Raises ConfigError, NoSupportError, PoolError (no room), ArgumentError (not the name that the partition will
        have): unlike in libvirt before the partition is made."""
        if volume.target.encryption is not None:
            raise ConfigError("storage pool does not support encrypted volumes")
        if not volume.capacity:
            raise NoSupportError("volume capacity required for this storage pool")
        form = volume.target.format or "none"
        if form not in _TYPES:
            raise ConfigError(f"unknown volume format type {form}")
        path = _existing(pool)
        with translated(path):
            table = _read(path)
            plan = disk_place.plan(table, volume, path, lambda number: _path_of(pool, number))
        volume.type = "block"
        volume.target.format = form
        volume.key = volume.target.path = _path_of(pool, plan.number)
        volume.extents = [(path, plan.start, plan.end)]

    def create_volume(
        self, pool: PoolDef, volume: VolumeDef, *, prealloc_metadata: bool = False, progress: Progress = QUIET
    ) -> None:
        path = _existing(pool)
        if prealloc_metadata:
            raise refused_flags("virStorageBackendDiskCreateVol")
        with translated(path), _writing(path) as node:
            table = read_table(node, geometry=kernel.geometry_of(path))
            plan = disk_place.plan(table, volume, path, lambda number: _path_of(pool, number))
            if volume.extents and volume.extents[0][1:] != (plan.start, plan.end):
                # others were told another place, and would leave it there should this process die
                raise StateError(f"the partitions of '{path}' were changed meanwhile", path=path, hint="try again")
            form = volume.target.format or "none"
            part = table.add(
                plan.start,
                plan.end - plan.start,
                number=plan.number,
                kind=plan.kind,
                type=_TYPES[form][table.label == "gpt"],
                name="primary" if table.label == "gpt" else "",
            )
            table.write(node)
            if kernel.may_change(path):
                try:
                    kernel.agree(path, table.partitions, table.sector_size)
                except HostCallError:
                    table.delete(part.number)
                    table.write(node)
                    raise
        volume.capacity = part.size
        volume.allocation = 0 if part.kind == EXTENDED else part.size
        volume.extents = [(path, part.start, part.end)]
        if volume.target.permissions is not None and kernel.is_block(volume.target.path or ""):
            hand_over(volume)

    def clone_volume(
        self,
        pool: PoolDef,
        volume: VolumeDef,
        origin: VolumeDef,
        *,
        prealloc_metadata: bool = False,
        reflink: bool = False,
        progress: Progress = QUIET,
    ) -> None:
        if reflink:
            raise refused_flags("virStorageBackendDiskBuildVolFrom", 2)
        volume.capacity = max(volume.capacity, origin.capacity)
        with translated(_device(pool)), self._open_origin(pool, origin) as source:
            self.create_volume(pool, volume, prealloc_metadata=prealloc_metadata)
            try:
                with self.open_volume(pool, volume, writable=True) as target:
                    copy_disk(source, target, progress)
            except BaseException:
                self.delete_volume(pool, volume)
                raise

    def _open_origin(self, pool: PoolDef, origin: VolumeDef) -> Node:
        """The disk of a volume of this pool or another, wherever it is."""
        if origin.extents and origin.extents[0][0] == _device(pool):
            return self.open_volume(pool, origin)
        from ...block.graph import open_image

        if origin.extents and origin.type == "block" and not os.path.exists(origin.target.path or ""):
            device, start, end = origin.extents[0]
            return _slice(device, start, end - start, False)
        form = origin.target.format
        known = form in (None, "none", "raw", "iso") or origin.type == "block"
        return open_image(origin.target.path or "", fmt="raw" if known else form)

    def renamed(self, pool: PoolDef, volume: VolumeDef) -> list[str]:
        path = _existing(pool)
        with translated(path):
            table = _read(path)
            return [
                os.path.basename(_path_of(pool, number)) for number in _following(table, _find(table, pool, volume))
            ]

    def delete_volume(self, pool: PoolDef, volume: VolumeDef, *, zeroed: bool = False) -> None:
        """Remove the partition; with an extended one the logical ones in it. Those behind a logical partition move up
        in number. Raises HostCallError while one of them is in use."""
        if zeroed:
            raise refused_flags("virStorageBackendDiskDeleteVol")
        path = _existing(pool)
        with translated(path), _writing(path) as node:
            table = read_table(node, geometry=kernel.geometry_of(path))
            part = _find(table, pool, volume)
            if not kernel.is_block(path):
                must_be_idle(path)
            told = kernel.may_change(path)
            if told:
                kernel.remove(path, [part.number, *_following(table, part)])
            try:
                table.delete(part.number)
                table.write(node)
            finally:
                if told:
                    again = read_table(node, geometry=table.geometry)
                    kernel.agree(path, again.partitions, again.sector_size)

    def open_volume(self, pool: PoolDef, volume: VolumeDef, *, writable: bool = False) -> Node:
        """The partition's own device where the kernel has it just so, so that caches agree; else a slice of the disk.

        An extended partition has no contents of its own. Raises MissingVolumeError, NoSupportError, HostCallError.
        """
        path = _existing(pool)
        with translated(path):
            table = _read(path)
            part = _find(table, pool, volume)
            if part.kind == EXTENDED:
                raise NoSupportError("an extended partition has no contents of its own")
            node = kernel.known(path).get(part.number)
            if node is not None and (node.start, node.size) == (part.start, part.size) and os.path.exists(node.path):
                if writable:
                    must_be_idle(node.path)
                return _open(node.path, writable)
            if writable and not kernel.is_block(path):
                must_be_idle(path)
            return _slice(path, part.start, part.size, writable)


# -- the device -------------------------------------------------------------------------------------------------------


def _device(pool: PoolDef) -> str:
    return pool.source.devices[0].path if pool.source.devices else ""


def _existing(pool: PoolDef) -> str:
    path = _device(pool)
    if not os.path.exists(path):
        raise ArgumentError(f"device path '{path}' doesn't exist", path=path)
    return path


def _must_exist(path: str) -> None:
    if not os.path.exists(path):
        raise HostCallError(f"Failed to open storage volume with path '{path}'", errno.ENOENT, path=path)


def _label(pool: PoolDef) -> str:
    """The kind of table that a pool wants: libvirt's "unknown" means dos."""
    label = pool.source.format
    return "dos" if label in (None, "unknown") else label


def _must_be_native(label: str) -> None:
    if label not in NATIVE:
        raise ConfigError(f"partition tables of format '{label}' can only be recognised", value=label)


def _open(path: str, writable: bool) -> Node:
    """The bytes of a device or file, without the locks of an image: several volumes of a disk may be in use at once."""
    if stat.S_ISREG(os.stat(path).st_mode):
        from ...block.protocol.file import FileNode

        return FileNode(path, writable=writable)
    from ...block.protocol.host_device import HostDeviceNode

    return HostDeviceNode(path, writable=writable)


def _slice(path: str, start: int, size: int, writable: bool) -> Node:
    from ...block.filter.slice import SliceNode

    below = _open(path, writable)
    try:
        return SliceNode(below, start, size)
    except BaseException:
        below.close()
        raise


def _read(path: str) -> Table:
    with _open(path, False) as node:
        return read_table(node, geometry=kernel.geometry_of(path))


@contextlib.contextmanager
def _writing(path: str) -> Iterator[Node]:
    """The disk, to change its table: one process at a time, and none while a machine runs from a plain file.

    The flock is the one that udev and systemd honour on block devices.
    """
    from ...block.graph import open_image

    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        if stat.S_ISREG(os.fstat(fd).st_mode):
            with open_image(path, fmt="raw", writable=True) as node:
                yield node
        else:
            with _open(path, True) as node:
                yield node
    finally:
        os.close(fd)


def _release(path: str) -> None:
    """Take all partitions from the kernel. Raises HostCallError, StateError while one, or the disk, is in use."""
    if kernel.may_change(path):
        kernel.remove(path, kernel.known(path))
    must_be_idle(path)


def _whole(path: str) -> str | None:
    """What the device as a whole holds, in libvirt's words; None when nothing is recognised."""
    from ...layout.signature import whole

    with _open(path, False) as node:
        found = whole(node)
        if found is not None:
            return {"LVM2_member": "lvm2"}.get(found.name, found.name)
        if node.read(0, min(512, node.size))[510:] == b"\x55\xaa":
            return "dos"
    return None


def _clear(node: Node) -> None:
    """Zero both ends, where tables and most signatures are."""
    head = min(_CLEARED, node.size)
    node.write_zeroes(0, head)
    if node.size > head:
        tail = min(_CLEARED, node.size - head)
        node.write_zeroes(node.size - tail, tail)
    node.flush()


# -- volumes ----------------------------------------------------------------------------------------------------------


def _path_of(pool: PoolDef, number: int) -> str:
    """What partition ``number`` is called, the way the kernel, device-mapper and udev's by-… links do it."""
    given = _device(pool)
    mapped = given.startswith("/dev/mapper/") or os.path.basename(os.path.realpath(given)).startswith("dm-")
    base = given if mapped or not kernel.is_block(given) else os.path.realpath(given)
    separator = "p" if base[-1:].isdigit() else ""
    asked = pool.source.devices[0].part_separator
    if (mapped and asked is not False) or (asked and not kernel.is_block(given)):
        separator = "p"
    plain = f"{base}{separator}{number}"
    target = (pool.target or "/dev").rstrip("/")
    if mapped or target == "/dev" or not target.startswith("/dev/"):
        return plain
    return _stable(target, base, number) or plain


def _stable(folder: str, device: str, number: int) -> str | None:
    """The name that udev gives a partition in ``folder`` (such as /dev/disk/by-id); None when the disk has none."""
    try:
        links = sorted(os.listdir(folder))
    except OSError:
        return None
    for link in links:
        if os.path.realpath(os.path.join(folder, link)) == device:
            return os.path.join(folder, f"{link}-part{number}")
    return None


def _find(table: Table, pool: PoolDef, volume: VolumeDef) -> Partition:
    for part in table.partitions:
        if os.path.basename(_path_of(pool, part.number)) == volume.name:
            if volume.extents and volume.extents[0][1:] != (part.start, part.end):
                raise StateError(f"the partitions of '{_device(pool)}' were changed meanwhile", hint="try again")
            return part
    from ...errors import MissingVolumeError

    raise MissingVolumeError(f"no storage vol with matching name '{volume.name}'")


def _following(table: Table, part: Partition) -> list[int]:
    """The logical partitions that move up in number, or go, when one is deleted."""
    if part.kind == PRIMARY:
        return []
    return [
        other.number
        for other in table.partitions
        if other.kind == LOGICAL and (part.kind == EXTENDED or other.number > part.number)
    ]


def _describe(pool: PoolDef, part: Partition) -> VolumeDef:
    device = _device(pool)
    path = _path_of(pool, part.number)
    volume = VolumeDef(os.path.basename(path), "block", path)
    volume.capacity = volume.physical = part.size
    volume.allocation = 0 if part.kind == EXTENDED else part.size
    if part.kind == EXTENDED:
        # as large as the kernel lets it appear
        volume.physical = min(part.size, 1024)
    volume.has_allocation = True
    volume.extents = [(device, part.start, part.end)]
    volume.target = VolumeTarget(path, _format_of(part))
    try:
        status = os.stat(path)
    except OSError:
        try:
            status = os.stat(device)
        except OSError:
            return volume
    take_facts(volume.target, status, 0o7777)
    return volume


def _format_of(part: Partition) -> str:
    if part.kind == EXTENDED:
        return "extended"
    if isinstance(part.type, int):
        return _MBR_FORMATS.get(part.type, "none")
    return _GPT_FORMATS.get(part.type, "none")
