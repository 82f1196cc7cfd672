"""A guest opened by the name of its image: the system on it found and mounted, or its one file system."""

from __future__ import annotations

import os

from ..errors import CowshedError, UsageError
from .path import GuestPath
from .session import Session

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any, Self

    from .inspect import Root, SessionGuest
    from .name import Segment
    from .session import Group


class Device:
    """A disk, a partition, a logical volume or what was unlocked: ``name`` under /dev, ``size`` in bytes, ``kind`` of
    what is on it as libblkid calls it ("" for nothing, or a partition table), its ``label`` and ``uuid``."""

    __slots__ = ("kind", "label", "name", "size", "uuid")

    def __init__(self, name: str, size: int, kind: str, label: str, uuid: str) -> None:
        self.name = name
        self.size = size
        self.kind = kind
        self.label = label
        self.uuid = uuid

    def __repr__(self) -> str:
        return f"<Device {self.name} {self.size} {self.kind}>"


class Guest:
    """Disks of a guest, and the tree of what is mounted of them. ``session``: all that lies below. ``skipped``:
    (device, path, error) of what the system that was found would mount too, but which can't be."""

    def __init__(self, session: Session) -> None:
        self.session = session
        self.skipped: list[tuple[str, str, CowshedError]] = []
        self._inspections: list[SessionGuest] = []

    # ---- files

    @property
    def root(self) -> GuestPath:
        """The top of the tree."""
        return GuestPath(self.session)

    def path(self, *segments: Segment) -> GuestPath:
        return GuestPath(self.session, *segments)

    def __truediv__(self, other: Segment) -> GuestPath:
        return self.root / other

    def change(self) -> Group:
        """All changes in a ``with`` are one: on the disk at its end, or none of them after an error. Raises UsageError
        within another, and at the end when an error within, that came after something was changed, was caught. What
        several file systems share is one change on each of them: see `Session.gather`."""
        return self.session.gather()

    # ---- devices

    @property
    def devices(self) -> list[Device]:
        """Disks, partitions, what was unlocked, logical volumes."""
        with self.session.lock:
            devices = self.session.devices
            names = [*devices.disks(), *devices.partitions(), *devices.mapped, *devices.volumes()]
            return [self._device(name) for name in names]

    def filesystems(self) -> list[Device]:
        """The devices that hold a file system or could ("unknown"): not those that were divided, nor swap's likes that
        are part of something bigger."""
        with self.session.lock:
            return [self._device(name, kind) for name, kind in self.session.devices.list_filesystems()]

    def _device(self, name: str, kind: str | None = None) -> Device:
        from .identity import identify

        node = self.session.devices.open(name)
        try:
            facts = identify(node)
        except CowshedError:
            # damaged, but there
            facts = {}
        found = facts.get("TYPE", "") if kind is None else kind
        return Device(name, node.size, found, facts.get("LABEL", ""), facts.get("UUID", ""))

    def unlock(self, device: str, key: str | bytes, name: str | None = None) -> str:
        """Open a LUKS volume as /dev/mapper/NAME (luks-UUID), which is returned; what is on it is found from then on.

        Raises GuestError EEXIST, EBUSY when it is open under another name, ForeignError when it is not LUKS,
        CowshedError EPERM for a wrong key.
        """
        with self.session.lock:
            if name is None:
                name = f"luks-{self._device(device).uuid}"
            return self.session.devices.unlock(device, name, [_key(key)])

    def inspect(self) -> list[Root]:
        """The operating systems on the disks: ``device``, ``type``, ``distro``, ``version``, ``product``, ``hostname``,
        ``arch``, ``mounts``, and ``applications()``. They are read apart from what is mounted, by one thread at a
        time, and can be asked until the guest is closed."""
        from .inspect import SessionGuest, inspect

        with self.session.lock:
            view = SessionGuest(self.session)
            self._inspections.append(view)
            return inspect(view)

    # ---- mounting

    @property
    def mounts(self) -> list[tuple[str, str]]:
        """(device, path) of what is mounted, in that order."""
        with self.session.lock:
            return [(mount.device, os.fsdecode(mount.path)) for mount in self.session.tree.mounts]

    def mount(self, device: str, path: str | bytes = "/", *, readonly: bool = False, kind: str | None = None) -> None:
        """Mount a device on a directory; what comes first goes on /. Raises GuestError ENOENT, ENOTDIR, FeatureError
        for a file system that can't be opened, CorruptError."""
        with self.session.lock:
            self.session.mount(device, os.fsencode(path), readonly=readonly or self.session.readonly, kind=kind)

    def umount(self, what: str) -> None:
        """Unmount a device, or what is mounted at a path. Raises GuestError EINVAL, EBUSY when others stand on it."""
        with self.session.lock:
            self.session.umount(what)

    # ---- the end

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        self._close(discard=error is not None)

    def close(self) -> None:
        """Close what is open for writing, then everything."""
        self._close(discard=False)

    def _close(self, discard: bool) -> None:
        with self.session.lock:
            for view in self._inspections:
                view.close()
            self._inspections = []
            self.session.close(discard=discard)


def open(
    *images: str | os.PathLike[str] | Mapping[str, Any],
    write: bool = False,
    fmt: str | None = None,
    mounts: Sequence[tuple[str, str]] | None = None,
    root: str | None = None,
    keys: Mapping[str, str | bytes] | str | bytes | None = None,
) -> Guest:
    """Open the disks of a guest and mount what is on them.

    ``images``: as `cowshed.open` takes them (chains of overlays, block devices, ``json:`` texts), /dev/sda first.
    ``write``: changes go to the disks, which are locked as QEMU locks them; without, there can be none. ``fmt``: their
    format, where it shall not be probed. ``mounts``: (device, path) to mount, instead of looking for a system; () for
    nothing. ``root``: which system, by its device, where there are several. ``keys``: of LUKS volumes by device, UUID
    or "all"; a single one is for all of them.

    Where a system is looked for, what its fstab names beside / and can't be mounted (a file system that isn't read
    here, a damaged one) is left out, with a RuntimeWarning for each: it stands in `Guest.skipped`, and the directory
    is that of the file system above. What ``mounts`` names has to be there.

    Raises OpenError, LockError, UsageError when nothing, or more than one thing, could be mounted, CowshedError EPERM
    for a key that opens nothing.
    """
    if not images:
        raise UsageError("which image?")
    session = Session(readonly=not write)
    try:
        for image in images:
            session.add(os.fspath(image) if isinstance(image, os.PathLike) else image, fmt=fmt)
        session.run()
        if keys:
            _unlock(session, keys if not isinstance(keys, str | bytes) else {"all": keys})
        guest = Guest(session)
        for device, path in mounts if mounts is not None else _found(session, root):
            try:
                session.mount(device, os.fsencode(path), readonly=not write)
            except CowshedError as error:
                if mounts is not None or path == "/":
                    raise
                guest.skipped.append((device, path, error))
    except BaseException:
        session.close(discard=True)
        raise
    for device, path, why in guest.skipped:
        import warnings

        warnings.warn(f"{device} could not be mounted on {path}: {why}", RuntimeWarning, stacklevel=2)
    return guest


def _key(key: str | bytes) -> bytes:
    return key if isinstance(key, bytes) else key.encode("utf-8", "surrogateescape")


def _unlock(session: Session, keys: Mapping[str, str | bytes]) -> None:
    """Open the LUKS volumes that there are keys for, on disks and partitions, then on logical volumes."""
    from .filesystem.table import kind_of
    from .identity import identify

    devices = session.devices
    for names in (devices.bare, devices.volumes):
        for device in names():
            node = devices.open(device)
            if kind_of(node) != "crypto_LUKS":
                continue
            uuid = identify(node).get("UUID", "")
            words = [_key(key) for selector, key in keys.items() if selector in (device, uuid, "all")]
            if words:
                devices.unlock(device, f"luks-{uuid}", words)


def _found(session: Session, wanted: str | None) -> list[tuple[str, str]]:
    from .filesystem.table import DRIVERS
    from .inspect import SessionGuest, inspect

    with SessionGuest(session) as guest:
        roots = [one for one in inspect(guest) if wanted in (None, one.device)]
    if len(roots) == 1:
        order = sorted(roots[0].mounts, key=lambda mount: (len(mount[0]), mount[0]))
        return [(device, path) for path, device in order]
    if len(roots) > 1:
        names = ", ".join(one.device for one in roots)
        raise UsageError(f"there are several systems: give root= one of {names}", field="root")
    if wanted is not None:
        return [(wanted, "/")]
    devices = [device for device, kind in session.devices.list_filesystems() if kind in DRIVERS]
    if len(devices) != 1:
        raise UsageError(
            f"no operating system was found, and {len(devices) or 'no'} file systems that can be mounted: give mounts=",
            field="mounts",
        )
    return [(devices[0], "/")]
