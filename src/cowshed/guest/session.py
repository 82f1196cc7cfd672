"""A session: disks are added, run, mounted, and then looked at and changed.

    with Session() as guest:
        guest.add("web1.qcow2", readonly=False)
        guest.run()
        guest.mount("/dev/sda1", b"/")
        with guest.change():
            guest.tree.write(b"/etc/hostname", [b"web1\\n"])

Everything written within one `change` reaches the disk when it ends, or not at all when it ends with an error.
"""

from __future__ import annotations

import errno
from _thread import RLock

from ..errors import UsageError
from .devices import Devices, Drive
from .filesystem.base import GuestError
from .tree import Mount, Place, Tree

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Any, Self

    from .file import Writing
    from .filesystem.base import FileSystem

#: errors that mean: this file system takes no new inodes
_NO_NEW = (errno.EOPNOTSUPP, errno.ENOSYS)


class Change:
    """What a ``with`` around a change does: sync at its end, or forget it. Other threads wait meanwhile.

    Within a `Group` the end of a change brings nothing to the disk yet, and one that fails after it has changed
    something ends the group.
    """

    __slots__ = ("_session", "_touches")

    def __init__(self, session: Session) -> None:
        self._session = session
        self._touches = 0

    def __enter__(self) -> None:
        session = self._session
        session.lock.acquire()
        if session.group is not None and session.group.failed:
            session.lock.release()
            raise UsageError("something in this group of changes has failed: all of them are forgotten")
        self._touches = session.tree.touches

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        session = self._session
        try:
            if session.group is None:
                if error is None:
                    session.tree.sync()
                else:
                    session.tree.discard()
            elif error is not None and session.tree.touches != self._touches:
                session.group.failed = True
                session.tree.discard()
        finally:
            session.lock.release()


class Group:
    """Many changes that are one: at its end all of them reach the disk, after an error none. ``failed``: none will."""

    __slots__ = ("_session", "failed")

    def __init__(self, session: Session) -> None:
        self._session = session
        self.failed = False

    def __enter__(self) -> Self:
        self._session.lock.acquire()
        if self._session.group is not None:
            self._session.lock.release()
            raise UsageError("changes are being gathered already")
        self._session.group = self
        return self

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        session = self._session
        session.group = None
        try:
            if error is not None:
                session.tree.discard()
            elif self.failed:
                raise UsageError("something in this group of changes has failed: all of them are forgotten")
            else:
                session.tree.sync()
        finally:
            session.lock.release()


class Session:
    """``readonly``: disks are added so that no change reaches them, unless said otherwise for one of them.

    ``devices``: what was added; ``tree``: what is mounted; ``running``: `run` was called; ``lock``: held by whoever
    reads or changes something, where several threads do; ``files``: those open for writing.
    """

    def __init__(self, *, readonly: bool = False) -> None:
        self.readonly = readonly
        self.devices = Devices()
        self.tree = Tree()
        self.running = False
        self.devices.renamed = self._follow
        self.lock = RLock()
        self.group: Group | None = None
        self.files: dict[int, Writing] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        self.close(discard=error is not None)

    # ---- disks

    def add(
        self,
        ref: str | Mapping[str, Any],
        *,
        readonly: bool | None = None,
        fmt: str | None = None,
        label: str | None = None,
        sector: int | None = None,
        secrets: Mapping[str, bytes] | None = None,
    ) -> str:
        """Add a disk, any image that the engine opens, and return its device name. Nothing is opened before `run`,
        or at once when that was before. Raises OpenError."""
        writable = not (self.readonly if readonly is None else readonly)
        drive = Drive(ref, fmt=fmt, writable=writable, label=label, sector=sector, secrets=secrets)
        name = self.devices.add(drive)
        if self.running:
            _ = drive.node
            self.devices.forget()
        return name

    def run(self) -> None:
        """Open the disks. Raises OpenError, UsageError when there is none."""
        if self.running:
            return
        if not self.devices.drives:
            raise UsageError("you must call guestfs_add_drive before guestfs_launch")
        for drive in self.devices.drives:
            _ = drive.node
        self.running = True

    # ---- mounting

    def mount(self, device: str, path: bytes = b"/", *, readonly: bool = False, kind: str | None = None) -> Mount:
        """Mount what is on a device; what is mounted already is the same file system at another place too. Raises
        GuestError ENOENT, EBUSY when one is to be read-only and the other not, FeatureError."""
        from .filesystem.table import open_filesystem

        name = self.devices.canonical(device)
        node = self.devices.open(name)
        for mount in self.tree.mounts:
            if mount.device == name:
                # two drivers on one device would each write over what the other has changed
                if mount.readonly != readonly:
                    raise GuestError(errno.EBUSY, name)
                return self.tree.mount(mount.fs, name, path, readonly)
        fs = open_filesystem(node, kind, writable=not readonly and not node.read_only)
        try:
            return self.tree.mount(fs, name, path, readonly)
        except BaseException:
            fs.close()
            raise

    def mounted(self, device: str) -> FileSystem | None:
        """The file system of a device that is mounted, for what is done to it as a whole."""
        name = self.devices.canonical(device)
        return next((mount.fs for mount in self.tree.mounts if mount.device == name), None)

    def user(self, device: str) -> str | None:
        """The device of a mounted file system, or one that was unlocked, whose bytes are on ``device``: itself when it
        is mounted, a partition of it, a volume in it. None when nothing would be lost of what is in use."""
        name = self.devices.canonical(device)
        users = [mount.device for mount in self.tree.mounts] + [one for one in self.devices.mapped if one != name]
        return next((user for user in users if name in self.devices.below(user)), None)

    def umount(self, what: str) -> None:
        """Unmount a device, or what is mounted at a path. Raises GuestError EINVAL, EBUSY; this also while changes of
        it are gathered."""
        name = self.devices.canonical(what)
        plain = "/" + what.strip("/")
        for mount in reversed(self.tree.mounts):
            at = mount.path.decode("utf-8", "surrogateescape")
            if mount.device == name or "/" + at.strip("/") == plain:
                self.tree.umount(mount)
                return
        raise GuestError(errno.EINVAL, f"{what}: not mounted")

    def _follow(self, names: Mapping[str, str]) -> None:
        """Devices have other names now."""
        for mount in self.tree.mounts:
            mount.device = names.get(mount.device, mount.device)

    def umount_all(self) -> None:
        """Raises GuestError EBUSY while changes are gathered."""
        if self.group is None:
            self.tree.sync()
        for mount in reversed(list(self.tree.mounts)):
            self.tree.umount(mount)

    # ---- changing

    def change(self) -> Change:
        """All writes inside of ``with`` are one change."""
        return Change(self)

    def gather(self) -> Group:
        """All changes inside of ``with`` are one. Raises UsageError within another.

        Of several file systems each is brought to its disk by itself, in the order in which they were changed first:
        where one refuses, or the power goes in between, those before it have their changes and the others have not.
        """
        return Group(self)

    def replace(self, path: bytes, data: bytes) -> None:
        """Give a file other bytes and keep all else: mode, owner, attributes. On file systems where nothing can be
        allocated the bytes are written over the old ones, when they fit there.

        A symbolic link stays and what it leads to is replaced. Raises GuestError.
        """
        place = self.tree.regular(path)
        try:
            with self.change():
                self._replace_by_name(place, data)
            return
        except GuestError as error:
            fits: Callable[[int, int], bool] | None = getattr(place.mount.fs, "fits", None)
            if error.errno not in _NO_NEW or fits is None:
                raise
            place = self.tree.regular(path)
            if not fits(place.number, len(data)):
                raise GuestError(
                    errno.EFBIG,
                    path.decode("utf-8", "surrogateescape"),
                    hint=f"{len(data)} bytes don't fit into the blocks that the file has, and no others can be "
                    f"allocated on {place.mount.fs.kind} yet",
                ) from error
        with self.change():
            self.tree.write(place.path, [data])

    def _replace_by_name(self, place: Place, data: bytes) -> None:
        """A new file beside the old one, with its attributes, renamed over it."""
        import time

        real = place.path
        facts = place.stat()
        fs = place.mount.fs
        if facts.nlink > 1:
            # the other names would keep the old bytes
            self.tree.write(real, [data])
            return
        folder = real.rpartition(b"/")[0]
        fresh = folder + b"/.guestfs-" + b"%x" % time.time_ns()
        self.tree.write(fresh, [data])
        self.tree.set_attributes(fresh, uid=facts.uid, gid=facts.gid)
        self.tree.set_attributes(fresh, mode=facts.mode & 0o7777)
        for name, value in fs.xattrs(place.number).items():
            self.tree.set_xattr(fresh, name, value)
        self.tree.rename(fresh, real)

    def close(self, *, discard: bool = False) -> None:
        """Close files that are open for writing, sync (or forget both: ``discard``), unmount and close everything."""
        failed: Exception | None = None
        try:
            for file in list(self.files.values()):
                try:
                    if discard:
                        file.abandon()
                    else:
                        file.close()
                except Exception as error:
                    # the others are written all the same
                    failed = failed or error
            if not discard:
                self.tree.sync()
            if failed is not None:
                raise failed
        finally:
            try:
                self.tree.close()
            finally:
                self.devices.close()
                self.running = False
