"""``fs`` pools: a file system on a block device, or in a file, mounted on a directory."""

from __future__ import annotations

import errno
import os
import stat

from ...errors import (
    BuiltError,
    CowshedError,
    DefinitionError,
    HostCallError,
    PoolError,
    ProbeError,
    StateError,
    error_number,
)
from . import mounts, tools
from .devices import must_be_idle, translated
from .files import FilesBackend

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from ...wire.libvirt.definition import PoolDef, VolumeDef

#: seconds that mounting a local file system may take: a log may have to be replayed
MOUNT_TIMEOUT = 600.0

#: file systems whose mkfs refuses to overwrite another unless it is told to
_FORCED = ("xfs", "btrfs")


class FsBackend(FilesBackend):
    """A mounted file system."""

    type = "fs"
    source_formats = (
        "auto",
        (
            "auto",
            "ext2",
            "ext3",
            "ext4",
            "ufs",
            "iso9660",
            "udf",
            "gfs",
            "gfs2",
            "vfat",
            "hfs+",
            "xfs",
            "ocfs2",
            "vmfs",
        ),
    )

    def validate(self, pool: PoolDef) -> None:
        super().validate(pool)
        if not pool.source.devices:
            raise DefinitionError("missing storage pool source device name")

    def source_key(self, pool: PoolDef) -> object:
        return "device", tuple(device.path for device in pool.source.devices)

    def check(self, pool: PoolDef) -> bool:
        source = mounts.mounted(pool.target or "")
        return source is not None and mounts.is_source(source, _device(pool))

    def build(self, pool: PoolDef, *, overwrite: bool = False, no_overwrite: bool = False) -> None:
        """Make the mount point and, when asked to overwrite or not to, the file system.

        Raises StateError without a device, BuiltError when ``no_overwrite`` and something is on it, HostCallError
        when there is no mkfs for the format: before anything has changed.
        """
        if not (overwrite or no_overwrite):
            super().build(pool)
            return
        device = _device(pool)
        if not device:
            raise StateError(f"No source device specified when formatting pool '{pool.name}'")
        if not os.path.exists(device):
            raise StateError(f"Source device does not exist when formatting pool '{pool.name}'", path=device)
        kind = pool.source.format or "auto"
        if no_overwrite:
            with translated(device):
                must_be_empty(device, kind)
        program = tools.need("mkfs", f"mkfs.{kind}")["mkfs"]
        _must_be_idle(device)
        super().build(pool)
        tools.run([program, "-t", kind, *(["-f"] if kind in _FORCED else []), device])

    def start(self, pool: PoolDef) -> None:
        if self.check(pool):
            return
        kind = pool.source.format
        target = pool.target or ""
        mounts.mount(
            _device(pool), target, None if kind in (None, "auto") else kind, mount_options(pool), MOUNT_TIMEOUT
        )

    def refresh(self, pool: PoolDef) -> None:
        mounts.must_be_mounted(pool)
        super().refresh(pool)

    def names(self, pool: PoolDef) -> Iterator[tuple[str, str]]:
        mounts.must_be_mounted(pool)
        return super().names(pool)

    def scan(self, pool: PoolDef) -> list[VolumeDef]:
        mounts.must_be_mounted(pool)
        return super().scan(pool)

    def volume(self, pool: PoolDef, name: str) -> VolumeDef | None:
        mounts.must_be_mounted(pool)
        return super().volume(pool, name)

    def stop(self, pool: PoolDef) -> None:
        mounts.unmount(pool.target or "")


def _device(pool: PoolDef) -> str:
    return pool.source.devices[0].path if pool.source.devices else ""


def _must_be_idle(device: str) -> None:
    """Raises PoolError when the device is mounted, or a machine has its disk in that file: mkfs may not ask."""
    from ...block.graph import open_image

    mode = os.stat(device).st_mode
    if stat.S_ISBLK(mode):
        return  # of devices mkfs knows by itself
    if not stat.S_ISREG(mode):
        # of a FIFO mkfs would wait for somebody at its other end
        raise HostCallError(f"cannot format '{device}'", errno.ENOTBLK, path=device)
    must_be_idle(device)
    try:
        open_image(device, fmt="raw", writable=True).close()
    except CowshedError as error:
        raise PoolError(str(error), path=device, hint=error.hint, errno=error_number(error)) from error


def mount_options(pool: PoolDef) -> list[str]:
    """The ``<fs:mount_opts>`` (or ``<netfs:mount_opts>``) of a pool."""
    found = []
    for _, element in pool.extra:
        if element.name.partition(":")[2] == "mount_opts":
            found += [
                option.attributes.get("name", "")
                for option in element.find_all(f"{element.name.partition(':')[0]}:option")
            ]
    return [option for option in found if option]


def must_be_empty(device: str, wanted: str, *, for_start: bool = False) -> None:
    """Raises BuiltError when there is something on a device already (ProbeError for what is there when ``for_start``
    and it is not ``wanted``)."""
    from ...block.graph import open_image
    from ...layout.signature import whole

    with open_image(device, fmt="raw", force_share=True) as node:
        found = whole(node)
    if found is None:
        return
    if found.name == wanted:
        raise BuiltError(f"Device '{device}' already formatted using '{wanted}'", path=device)
    if for_start:
        raise ProbeError(f"Format of device '{device}' does not match the expected format '{wanted}'", path=device)
    raise BuiltError(
        f"Format of device '{device}' does not match the expected format '{wanted}', forced overwrite is necessary",
        path=device,
    )
