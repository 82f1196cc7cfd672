"""A guest opened by the name of its image: the system on it found and mounted, or its one file system."""

from __future__ import annotations

import os

from ..errors import UsageError
from .path import GuestPath
from .session import Session

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any, Self


class Guest:
    """``session``: below it; ``root``: the top of the tree."""

    def __init__(self, session: Session) -> None:
        self.session = session

    @property
    def root(self) -> GuestPath:
        return GuestPath(self.session)

    def path(self, path: str | bytes) -> GuestPath:
        return GuestPath(self.session, path)

    def __truediv__(self, other: str | bytes) -> GuestPath:
        return self.root / other

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        self.session.close(discard=error is not None)

    def close(self) -> None:
        self.session.close()


def open(
    *images: str | os.PathLike[str] | Mapping[str, Any],
    write: bool = False,
    fmt: str | None = None,
    mounts: Sequence[tuple[str, str]] | None = None,
    root: str | None = None,
) -> Guest:
    """Open the disks of a guest and mount what is on them.

    ``images``: as `open_image` takes them, /dev/sda first. ``write``: changes go to the disks; without, there can be
    none. ``mounts``: (device, path) to mount, instead of looking for a system. ``root``: which one, by its device,
    where there are several. Raises OpenError, UsageError when nothing, or more than one thing, could be mounted.
    """
    if not images:
        raise UsageError("which image?")
    session = Session(readonly=not write)
    try:
        for image in images:
            session.add(os.fspath(image) if isinstance(image, os.PathLike) else image, fmt=fmt)
        session.run()
        for device, path in mounts if mounts is not None else _found(session, root):
            session.mount(device, os.fsencode(path), readonly=not write)
    except BaseException:
        session.close(discard=True)
        raise
    return Guest(session)


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
