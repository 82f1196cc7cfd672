"""A file of a guest as a device, so that what is in it can be mounted too."""

from __future__ import annotations

import errno
import time

from ..block.node import DATA, Extent, Node, byte_view
from .filesystem.base import GuestError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from ..block.node import Buffer
    from .place import Mount, Place
    from .session import Session
    from .tree import Tree

_SECTOR = 512


class FileNode(Node):
    """The bytes of a regular file, in whole sectors. Writing changes the file, and `flush` brings it to the disk, so
    that what a file system inside writes first is there first."""

    driver = "guest-file"

    def __init__(self, tree: Tree, place: Place, path: bytes) -> None:
        self.below = place.mount
        super().__init__(
            path.decode("utf-8", "surrogateescape"), read_only=place.mount.readonly or not place.mount.fs.writable
        )
        self._tree = tree
        self._place = place
        self._path = path
        self.size = place.stat().size // _SECTOR * _SECTOR

    def holds(self, place: Place) -> bool:
        """Is it the file at a place?"""
        return self.below.fs is place.mount.fs and self._place.ino == place.ino

    def _check_mounted(self) -> None:
        if self.below not in self._tree.mounts:
            raise GuestError(errno.EIO, self.filename)

    def layer_extents(self, offset: int, length: int) -> Iterator[Extent]:
        yield Extent(offset, length, DATA, self, offset, 0, self)

    def read_into(self, offset: int, view: memoryview) -> None:
        view = byte_view(view)
        self._check_range(offset, len(view))
        self._check_mounted()
        step = 4 << 20
        for at in range(0, len(view), step):
            part = view[at : at + step]
            data = self.below.fs.read(self._place.number, offset + at, len(part))
            part[: len(data)] = data
            if len(data) < len(part):
                part[len(data) :] = bytes(len(part) - len(data))

    def write(self, offset: int, data: Buffer) -> None:
        view = byte_view(data)
        self._check_write(offset, len(view))
        self._check_mounted()
        if len(view):
            fs = self._tree.writing(self._place, self._path)
            fs.write(self._place.number, offset, view, time.time_ns())

    def shutdown(self) -> None:
        """The file belongs to the mount below."""

    def flush(self) -> None:
        if self.below in self._tree.changed:
            self.below.fs.sync()
            self.below.fs.node.flush()


def mount_loop(session: Session, path: bytes, at: bytes) -> Mount:
    """Mount what is in a file of the guest at a directory, as /dev/loopN.

    Raises GuestError for the file, and what `Session.mount` raises.
    """
    from .filesystem.table import open_filesystem

    tree = session.tree
    place = tree.regular(path)
    for mount in tree.mounts:
        there = mount.fs.node
        if isinstance(there, FileNode) and there.holds(place):
            # the same file system at another place: two drivers would each write over what the other has changed
            return tree.mount(mount.fs, mount.device, at, mount.readonly)
    node = FileNode(tree, place, path)
    used = {mount.device for mount in tree.mounts}
    name = next(name for number in range(len(used) + 1) if (name := f"/dev/loop{number}") not in used)
    fs = open_filesystem(node, writable=not node.read_only)
    try:
        made = tree.mount(fs, name, at, node.read_only)
    except BaseException:
        fs.close()
        raise
    session.devices.loops[name] = (node, node.below.device)
    return made
