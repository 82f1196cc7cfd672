"""``logical`` pools: an LVM2 volume group. What there is, is read from its metadata natively, without root and also
where the physical volumes are plain files; what changes it goes through lvm2's own tools.

Without device-mapper in the kernel no logical volume can be active: plain ones are then made inactive, and all are
read and written through their physical volumes (layout/lvm). Snapshots need device-mapper to be made.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat

from ...errors import ConfigError, CowshedError, HostCallError, PoolError, StateError
from ...wire.libvirt.definition import Device, PoolSource, VolumeDef, VolumeTarget
from . import tools
from .base import Backend
from .devices import copy_disk, first_line, hand_over, must_be_idle, refused_flags, take_facts, translated

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from ...block.node import Node
    from ...layout.lvm.model import LogicalVolume, VolumeGroup
    from ...layout.lvm.scan import Found
    from ...progress import Progress
    from ...wire.libvirt.definition import PoolDef

#: what is cleared at the beginning of a volume that lvm2 could not reach itself
CLEARED = 4 << 20
_STEP = 4 << 20
#: lvm2, told to keep away from a device-mapper that is not there
_NO_MAPPER = ("--config", "global/activation=0")


class LogicalBackend(Backend):
    """A volume group."""

    type = "logical"
    source_formats = ("lvm2", ("unknown", "lvm2"))
    marks = True

    # ---- the pool

    def validate(self, pool: PoolDef) -> None:
        """The group is called as the pool where nobody says otherwise, and its volumes are in /dev/GROUP."""
        if not pool.source.name:
            pool.source.name = pool.name
        if pool.source.format is None:
            pool.source.format = "lvm2"
        pool.target = f"/dev/{pool.source.name}"

    def source_key(self, pool: PoolDef) -> object:
        devices = tuple(device.path for device in pool.source.devices)
        return ("device", devices) if devices else None

    def check(self, pool: PoolDef) -> bool:
        with translated():
            try:
                with _group(pool):
                    return True
            except ConfigError:
                return False

    def build(self, pool: PoolDef, *, overwrite: bool = False, no_overwrite: bool = False) -> None:
        """Make physical volumes of the devices, and the group of them. Raises BuiltError when a device holds
        something, HostCallError when a tool or a device is missing: before anything has changed."""
        from .fs import must_be_empty

        paths = [device.path for device in pool.source.devices]
        programs = tools.need("pvcreate", "vgcreate", "pvremove")
        if not paths:
            raise ConfigError(f"no source devices to make the volume group '{pool.source.name}' of")
        for path in paths:
            _must_be_device(path)
            must_be_idle(path)
        _must_be_root("make physical volumes")
        if not overwrite:
            with translated():
                for path in paths:
                    must_be_empty(path, "LVM2_member")
        made: list[str] = []
        try:
            for path in paths:
                _blank(path)
                tools.run([programs["pvcreate"], *(["--yes"] if overwrite else []), path])
                made.append(path)
            tools.run([programs["vgcreate"], pool.source.name or "", *paths])
        except BaseException:
            for path in made:
                tools.run([programs["pvremove"], path], ok=None)
            raise

    def start(self, pool: PoolDef) -> None:
        """The group must be there; its volumes are made active where the kernel can."""
        with translated(), _group(pool) as group:
            devices = _on_devices(group)
        if devices and has_mapper() and tools.find("vgchange") is not None and os.geteuid() == 0:
            tools.run(["vgchange", "-aly", pool.source.name or ""])

    def stop(self, pool: PoolDef) -> None:
        if os.path.isdir(pool.target or "") and has_mapper():
            tools.run(["vgchange", "-aln", pool.source.name or ""])

    def delete(self, pool: PoolDef, *, zeroed: bool = False) -> None:
        if zeroed:
            raise refused_flags("virStorageBackendLogicalDeletePool")
        programs = tools.need("vgremove", "pvremove")
        _must_be_root("remove a volume group")
        for device in pool.source.devices:
            _must_be_device(device.path)
        with translated(), _group(pool):
            pass  # on the devices that were named, not another group of that name
        extra = () if has_mapper() else _NO_MAPPER
        tools.run([programs["vgremove"], "-f", pool.source.name or "", *extra])
        for device in pool.source.devices:
            tools.run([programs["pvremove"], device.path], ok=None)

    def refresh(self, pool: PoolDef) -> None:
        with translated(), _group(pool) as group:
            pool.capacity = group.size
            pool.available = group.free
            pool.allocation = pool.capacity - pool.available

    def find_sources(self, source: PoolSource | None) -> list[PoolSource]:
        """The volume groups on all block devices that may be read, or on the devices that ``source`` names."""
        paths = [device.path for device in source.devices] if source is not None else []
        sources = []
        with translated(), _scanned(paths or block_devices(), strict=bool(paths)) as found:
            for group in found.groups:
                one = PoolSource()
                one.name = group.name
                one.format = "lvm2"
                one.devices = [Device(pv.path or pv.device) for pv in group.physical.values()]
                sources.append(one)
        return sources

    # ---- volumes

    def scan(self, pool: PoolDef) -> list[VolumeDef]:
        with translated(), _group(pool) as group:
            return [_describe(pool, lv) for lv in _listed(group)]

    def names(self, pool: PoolDef) -> Iterable[tuple[str, str]]:
        with translated(), _group(pool) as group:
            return [(lv.name, f"{pool.target}/{lv.name}") for lv in _listed(group)]

    def prepare_volume(self, pool: PoolDef, volume: VolumeDef) -> None:
        volume.type = "block"
        volume.key = None
        volume.target.path = f"{pool.target}/{volume.name}"
        volume.target.format = None
        if not volume.has_allocation:
            volume.allocation = volume.capacity
        if volume.target.encryption is not None:
            raise ConfigError("creating encrypted volumes is not supported by this version of cowshed")

    def create_volume(
        self,
        pool: PoolDef,
        volume: VolumeDef,
        *,
        prealloc_metadata: bool = False,
        progress: Progress,
        mark: str = "",
    ) -> None:
        """``mark``: the volume has it as a tag until it is whole."""
        with self._marked(pool, volume, mark) as mark:
            self._create(pool, volume, prealloc_metadata, progress, mark)

    def _create(self, pool: PoolDef, volume: VolumeDef, prealloc_metadata: bool, progress: Progress, mark: str) -> None:
        if prealloc_metadata:
            raise refused_flags("virStorageBackendLogicalCreateVol")
        program = tools.need("lvcreate", "lvremove", "lvchange")["lvcreate"]
        with translated(), _group(pool) as group:
            _must_be_changeable(group, "create")
            if volume.name in group.volumes:
                raise StateError(f"the volume group '{group.name}' has a volume '{volume.name}' already")
        mapper = has_mapper()
        snapshot = volume.backing is not None and volume.backing.path is not None
        sparse = volume.allocation != volume.capacity
        if not mapper and (snapshot or sparse):
            raise HostCallError(
                f"cannot create the snapshot '{volume.name}': device-mapper is not available in the kernel "
                "(module dm_snapshot)",
                errno.ENODEV,
            )
        argv = [program, "--name", volume.name, "-L"]
        if sparse:
            argv += [f"{-(-(volume.allocation or 1) // 1024)}K", "--type", "snapshot", "--virtualsize"]
        argv.append(f"{-(-volume.capacity // 1024)}K")
        if snapshot and volume.backing is not None:
            argv += ["-s", volume.backing.path or ""]
        else:
            argv.append(pool.source.name or "")
        argv.append("--yes")
        if mark:
            argv += ["--addtag", _tag(mark)]
        if not mapper:
            argv += ["-an", "-Zn", "-Wn", *_NO_MAPPER]
        progress.start(0)
        tools.run(argv)
        if mapper:
            hand_over(volume, 0o600)
        else:
            with self.open_volume(pool, volume, writable=True) as node:
                node.write_zeroes(0, min(node.size, CLEARED))
                node.flush()
        made = self.volume(pool, volume.name)
        if made is None:
            raise PoolError(f"the logical volume '{volume.name}' was made, and is not there")
        volume.key = made.key
        volume.capacity, volume.allocation = made.capacity, made.allocation
        volume.physical, volume.extents = made.physical, made.extents
        volume.backing = made.backing
        progress.finish()

    @contextlib.contextmanager
    def _marked(self, pool: PoolDef, volume: VolumeDef, mark: str) -> Iterator[str]:
        """While a volume is made it has the ``mark``; should that fail, what has it is removed: lvm2 may have made it
        although we were interrupted, and a volume of that name without it is somebody else's."""
        mark = mark or os.urandom(8).hex()
        try:
            yield mark
            # only now is it anybody's
            extra = () if has_mapper() else _NO_MAPPER
            tools.run(["lvchange", "--deltag", _tag(mark), f"{pool.source.name}/{volume.name}", *extra])
        except BaseException:
            with contextlib.suppress(CowshedError, OSError):
                if self.is_marked(pool, volume, mark):
                    self._remove(pool, volume, check=False)
            raise

    def is_marked(self, pool: PoolDef, volume: VolumeDef, mark: str) -> bool:
        with translated(), _group(pool) as group:
            lv = group.volumes.get(volume.name)
            return lv is not None and _tag(mark) in lv.tags

    def clone_volume(
        self,
        pool: PoolDef,
        volume: VolumeDef,
        origin: VolumeDef,
        *,
        prealloc_metadata: bool = False,
        reflink: bool = False,
        progress: Progress,
        mark: str = "",
    ) -> None:
        if reflink:
            raise refused_flags("virStorageBackendLogicalBuildVolFrom", 2)
        volume.capacity = max(volume.capacity, origin.capacity)
        if volume.allocation < volume.capacity:
            volume.allocation = volume.capacity
        from ...progress import QUIET

        with translated(), self._open_origin(pool, origin) as source, self._marked(pool, volume, mark) as mark:
            self._create(pool, volume, prealloc_metadata, QUIET, mark)
            with self.open_volume(pool, volume, writable=True) as target:
                copy_disk(source, target, progress)

    def _open_origin(self, pool: PoolDef, origin: VolumeDef) -> Node:
        path = origin.target.path or ""
        if os.path.exists(path) or os.path.dirname(path) != pool.target:
            from ...block.graph import open_image

            fmt = origin.target.format
            return open_image(path, fmt="raw" if fmt in (None, "none", "raw", "iso") else fmt)
        return self.open_volume(pool, origin)

    def unfinished(self, pool: PoolDef) -> list[tuple[VolumeDef, str, float]]:
        with translated(), _group(pool) as group:
            return [
                (_describe(pool, lv), tag.removeprefix(_tag("")), float(lv.creation_time))
                for lv in _listed(group)
                for tag in lv.tags
                if tag.startswith(_tag("")) and lv.creation_time is not None
            ]

    def dependents(self, pool: PoolDef, volume: VolumeDef) -> list[str]:
        """Its classic snapshots: lvm2 takes them along without a word when it is told to remove their origin."""
        with translated(), _group(pool) as group:
            lv = group.volumes.get(volume.name)
            return [] if lv is None else [other.name for other in lv.snapshots]

    def delete_volume(self, pool: PoolDef, volume: VolumeDef, *, zeroed: bool = False) -> None:
        if zeroed:
            raise refused_flags("virStorageBackendLogicalDeleteVol")
        tools.need("lvremove", "lvchange")
        with translated(), _group(pool) as group:
            _must_be_changeable(group, "remove")
        self._remove(pool, volume)

    def _remove(self, pool: PoolDef, volume: VolumeDef, *, check: bool = True) -> None:
        path = volume.target.path or ""
        remove = ["lvremove", "-f", path]
        if not has_mapper():
            tools.run([*remove, *_NO_MAPPER], ok=(0,) if check else None)
            return
        if tools.run(remove, ok=None).status:
            tools.run(["lvchange", "-aln", path], ok=(0,) if check else None)
            tools.run(remove, ok=(0,) if check else None)

    def open_volume(self, pool: PoolDef, volume: VolumeDef, *, writable: bool = False) -> Node:
        """An active volume's device; an inactive one's bytes on its physical volumes."""
        from ...layout.lvm.node import LogicalNode

        with translated():
            path = volume.target.path or ""
            if _is_device(path):
                if writable:
                    must_be_idle(path)
                return _open(path, writable)
            with contextlib.ExitStack() as stack:
                group = stack.enter_context(_group(pool, writable=writable))
                lv = group.volumes.get(volume.name)
                if lv is None or not lv.visible:
                    raise PoolError(f"the volume group '{group.name}' has no volume '{volume.name}'")
                active = active_device(lv)
                if active is not None:
                    if writable:
                        must_be_idle(active)
                    return _open(active, writable)
                held = contextlib.ExitStack()
                node = LogicalNode(lv, writable=writable, on_close=held.close)
                held.push(stack.pop_all())
                return node


# -- devices -----------------------------------------------------------------------------------------------------------


def block_devices() -> list[str]:
    """Block devices that physical volumes may be on: not empty ones, nor logical volumes. Those that stand on others
    (RAID, multipath) come first, for their parts show the same label."""
    base = "/sys/class/block"
    found = []
    try:
        names = sorted(os.listdir(base))
    except OSError:
        return []
    for name in names:
        folder = f"{base}/{name}"
        if first_line(f"{folder}/size") in ("", "0") or first_line(f"{folder}/dm/uuid").startswith("LVM-"):
            continue
        path = f"/dev/{name.replace('!', '/')}"
        if os.access(path, os.R_OK):
            try:
                stacked = bool(os.listdir(f"{folder}/slaves"))
            except OSError:
                stacked = False
            found.append((not stacked, path))
    return [path for _, path in sorted(found)]


def has_mapper() -> bool:
    """Is there a device-mapper in the kernel that answers?"""
    try:
        os.close(os.open("/dev/mapper/control", os.O_RDWR | os.O_CLOEXEC))
    except PermissionError:
        return True
    except OSError:
        return False
    return True


def active_device(lv: LogicalVolume) -> str | None:
    """The device of a logical volume that is active, whatever it is called; None when it is not."""
    wanted = "LVM-" + (lv.group.uuid + lv.uuid).replace("-", "")
    try:
        names = os.listdir("/sys/class/block")
    except OSError:
        return None
    for name in names:
        if name.startswith("dm-") and first_line(f"/sys/class/block/{name}/dm/uuid").startswith(wanted):
            return f"/dev/{name}"
    return None


def _tag(mark: str) -> str:
    """What lvm2 knows a volume by that the job ``mark`` is making."""
    return f"cowshed-{mark}"


def _is_device(path: str) -> bool:
    try:
        return stat.S_ISBLK(os.stat(path).st_mode)
    except (OSError, ValueError):
        return False


def _must_be_device(path: str) -> None:
    try:
        mode = os.stat(path).st_mode
    except (OSError, ValueError) as error:
        number = error.errno if isinstance(error, OSError) and error.errno else errno.EINVAL
        raise HostCallError(f"cannot open device '{path}'", number, path=path) from error
    if not stat.S_ISBLK(mode):
        raise HostCallError(f"cannot change physical volumes on '{path}'", errno.ENOTBLK, path=path)


def _must_be_root(doing: str) -> None:
    if os.geteuid():
        raise HostCallError(f"cannot {doing}", errno.EPERM, hint="this needs root")


def _must_be_changeable(group: VolumeGroup, doing: str) -> None:
    for pv in group.physical.values():
        if pv.path is not None:
            _must_be_device(pv.path)
    _must_be_root(f"{doing} a logical volume")


def _on_devices(group: VolumeGroup) -> bool:
    return all(_is_device(pv.path or "") for pv in group.physical.values())


def _blank(path: str) -> None:
    """lvm2 wants a whole disk's first sector to be blank."""
    try:
        fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
        try:
            os.pwrite(fd, bytes(512), 0)
            os.fsync(fd)
        finally:
            os.close(fd)
    except OSError as error:
        raise HostCallError(f"cannot clear device header of '{path}'", error.errno or errno.EIO, path=path) from error


def _open(path: str, writable: bool = False) -> Node:
    if stat.S_ISREG(os.stat(path).st_mode):
        from ...block.protocol.file import FileNode

        return FileNode(path, writable=writable)
    from ...block.protocol.host_device import HostDeviceNode

    return HostDeviceNode(path, writable=writable, nonblock=True)


# -- the group ---------------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def _scanned(paths: Iterable[str], *, strict: bool, writable: bool = False) -> Iterator[Found]:
    """What is on devices; ``strict``: all of them must be readable, else those that aren't are passed over."""
    from ...layout.lvm.scan import scan

    nodes: dict[str, Node] = {}
    try:
        for path in paths:
            try:
                nodes[path] = _open(path, writable)
            except (CowshedError, OSError):
                if strict:
                    raise
        yield scan(nodes, strict=strict)
    finally:
        for node in nodes.values():
            node.close()


@contextlib.contextmanager
def _group(pool: PoolDef, *, writable: bool = False) -> Iterator[VolumeGroup]:
    """The pool's group: on its devices where it names them (others may join them), else wherever it is found.

    Raises ConfigError in libvirt's words when it is not there.
    """
    name = pool.source.name or pool.name
    named = [device.path for device in pool.source.devices]
    present = [path for path in named if os.path.exists(path)]
    with contextlib.ExitStack() as stack:
        group = None
        if present:
            group = stack.enter_context(_scanned(present, strict=True, writable=writable)).group(name)
        if group is None or group.missing:
            seen = {os.path.realpath(path) for path in present}
            paths = present + [path for path in block_devices() if os.path.realpath(path) not in seen]
            stack.close()
            with _scanned(paths, strict=False) as found:
                other = found.group(name)
                needed = [pv.path for pv in other.physical.values() if pv.path] if other is not None else []
            if other is None:
                raise ConfigError(f"cannot find logical volume group name '{name}'", value=name)
            if named and not {os.path.realpath(path) for path in needed} & {os.path.realpath(path) for path in named}:
                raise ConfigError(f"cannot find any matching source devices for logical volume group '{name}'")
            group = stack.enter_context(_scanned(needed, strict=True, writable=writable)).group(name)
            if group is None:
                raise ConfigError(f"cannot find logical volume group name '{name}'", value=name)
        yield group


def _listed(group: VolumeGroup) -> list[LogicalVolume]:
    """What is a volume of the pool: whatever can be a disk, so no thin pools and no parts of others."""
    pools = ("thin-pool", "cache-pool", "vdo-pool")
    return [lv for lv in group.volumes.values() if lv.visible and lv.type not in pools]


def _describe(pool: PoolDef, lv: LogicalVolume) -> VolumeDef:
    from ...layout.lvm.model import PhysicalVolume

    volume = VolumeDef(lv.name, "block", lv.uuid)
    volume.capacity = lv.virtual_size
    volume.allocation = lv.size
    volume.has_allocation = True
    unit = lv.group.extent_size
    for segment in lv.segments:
        for area in segment.areas:
            if isinstance(area.volume, PhysicalVolume):
                start = area.start * unit
                device = area.volume.path or area.volume.device
                volume.extents.append((device, start, start + segment.area_count * unit))
            elif segment.type not in ("thin", "thin-pool"):
                volume.extents.append((area.volume.name, area.start * unit, (area.start + segment.area_count) * unit))
    target = volume.target
    target.path = f"{pool.target}/{lv.name}"
    origin = lv.origin
    if origin is not None and not origin.endswith("_vorigin"):
        volume.backing = VolumeTarget(f"{pool.target}/{origin}")
    try:
        status = os.stat(target.path)
    except (OSError, ValueError):
        volume.physical = volume.capacity
        return volume
    if stat.S_ISBLK(status.st_mode):
        volume.physical = volume.capacity
        take_facts(target, status)
    return volume
