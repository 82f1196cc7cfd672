"""What inspection needs of a guest: its devices by name and by tag, and the files of file systems, read only.

`Guest` and `Files` are all that the rest of this package uses; `SessionGuest` gives them for a session's disks.
"""

from __future__ import annotations

import stat as _stat

from ...errors import CowshedError
from ..filesystem.base import GuestError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Protocol

    from ..filesystem.base import FileSystem
    from ..session import Session
    from ..tree import Tree

    class Files(Protocol):
        """Files by absolute path. Symbolic links are followed within the tree; what can't be read isn't there."""

        def kind(self, path: str) -> str:
            """ "f" file, "d" directory, "" anything else or nothing."""

        def read(self, path: str, limit: int = ...) -> bytes | None:
            """The first ``limit`` bytes of a regular file, None without one."""

        def size(self, path: str) -> int:
            """Bytes of a regular file, 0 without one."""

        def names(self, path: str) -> list[str]:
            """Names in a directory, sorted; empty without one."""

    class Guest(Protocol):
        """Devices and what is on them."""

        def filesystems(self) -> list[tuple[str, str]]:
            """(device, kind) as list-filesystems has them."""

        def canonical(self, device: str) -> str:
            """The name that a device is listed by."""

        def exists(self, device: str) -> bool: ...

        def disks(self) -> list[str]: ...

        def tagged(self, tag: str, value: str) -> str | None:
            """The device with UUID, LABEL, PARTUUID or PARTLABEL ``value``."""

        def tags(self, device: str) -> dict[str, str]:
            """LABEL and UUID of a device, where it has them."""

        def files(self, mounts: list[tuple[str, str]]) -> Files | None:
            """The files of (path, device) mounted, "/" first; None when the first can't be mounted, others that can't
            are left out."""


#: bytes of a small file: release files, fstab
SMALL = 1 << 20
#: names of one directory
MAX_NAMES = 200_000


class TreeFiles:
    """Files of a mounted tree."""

    def __init__(self, tree: Tree) -> None:
        self.tree = tree

    def _mode(self, path: str) -> int:
        try:
            return self.tree.stat(_raw(path)).mode
        except CowshedError:
            return 0

    def kind(self, path: str) -> str:
        mode = self._mode(path)
        return "f" if _stat.S_ISREG(mode) else "d" if _stat.S_ISDIR(mode) else ""

    def read(self, path: str, limit: int = SMALL) -> bytes | None:
        if not _stat.S_ISREG(self._mode(path)):
            return None
        try:
            return self.tree.read(_raw(path), 0, limit)
        except CowshedError:
            return None

    def size(self, path: str) -> int:
        try:
            facts = self.tree.stat(_raw(path))
        except CowshedError:
            return 0
        return facts.size if _stat.S_ISREG(facts.mode) else 0

    def names(self, path: str) -> list[str]:
        found: list[str] = []
        try:
            for name, _, _ in self.tree.entries(_raw(path)):
                if name not in (b".", b".."):
                    found.append(name.decode("utf-8", "surrogateescape"))
                if len(found) >= MAX_NAMES:
                    break
        except CowshedError:
            pass
        return sorted(found)


def _raw(path: str) -> bytes:
    return path.encode("utf-8", "surrogateescape")


class SessionGuest:
    """The disks of a running session. File systems are opened apart from what the session has mounted, read only; ask
    after a change has been synced. ``close`` when done; nothing of the session is closed by it."""

    def __init__(self, session: Session) -> None:
        self.session = session
        self._trees: list[Tree] = []
        self._tags: dict[str, dict[str, str]] = {}
        self._listed: list[tuple[str, str]] | None = None

    def __enter__(self) -> SessionGuest:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def close(self) -> None:
        for tree in self._trees:
            tree.close()
        self._trees = []

    def filesystems(self) -> list[tuple[str, str]]:
        if self._listed is None:
            self._listed = self.session.devices.list_filesystems()
        return self._listed

    def canonical(self, device: str) -> str:
        try:
            return self.session.devices.canonical(device)
        except CowshedError:
            return device

    def exists(self, device: str) -> bool:
        try:
            return self.session.devices.exists(device)
        except CowshedError:
            return False

    def disks(self) -> list[str]:
        return self.session.devices.disks()

    def tags(self, device: str) -> dict[str, str]:
        found = self._tags.get(device)
        if found is None:
            from ..identity import identify

            try:
                found = identify(self.session.devices.open(device))
            except CowshedError:
                found = {}
            self._tags[device] = found
        return found

    def tagged(self, tag: str, value: str) -> str | None:
        if tag in ("PARTUUID", "PARTLABEL"):
            return self._partition(tag, value)
        for device, _ in self.filesystems():
            if self.tags(device).get(tag) == value:
                return device
        return None

    def _partition(self, tag: str, value: str) -> str | None:
        for drive in self.session.devices.drives:
            try:
                parts = drive.partitions()
                disk_id = getattr(drive.table(), "disk_id", None) if parts else None
            except CowshedError:
                continue
            for part in parts:
                if tag == "PARTLABEL":
                    same = part.name == value
                elif part.guid is not None:
                    same = part.guid.lower() == value.lower()
                else:
                    same = isinstance(disk_id, int) and f"{disk_id:08x}-{part.number:02x}" == value.lower()
                if same:
                    return f"{drive.path}{part.number}"
        return None

    def files(self, mounts: list[tuple[str, str]]) -> TreeFiles | None:
        from ..tree import Tree

        tree = Tree()
        for index, (path, device) in enumerate(mounts):
            fs: FileSystem | None = None
            try:
                fs = self._open(device)
                tree.mount(fs, device, _raw(path), True)
            except CowshedError:
                if fs is not None:
                    fs.close()
                if not index:
                    return None
        self._trees.append(tree)
        return TreeFiles(tree)

    def _open(self, device: str) -> FileSystem:
        from ..filesystem.table import kind_of, open_filesystem

        node = self.session.devices.open(device)
        kind = kind_of(node)
        if not kind or kind == "swap":
            raise GuestError(22, device)
        return open_filesystem(node, kind, writable=False)
