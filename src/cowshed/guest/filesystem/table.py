"""Which driver opens which kind of file system; kinds are called as libblkid calls them."""

from __future__ import annotations

import errno

from ...errors import FeatureError
from .base import FileSystem, GuestError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ...block.node import Node

#: kind -> the module below this package whose ``open(node, writable=…)`` makes a `FileSystem`
DRIVERS = {
    "ext2": "ext",
    "ext3": "ext",
    "ext4": "ext",
    "xfs": "xfs",
    "vfat": "fat",
    "iso9660": "iso9660",
}


def kind_of(node: Node) -> str:
    """What the whole of a device is, "" when nothing is recognised. Partition tables don't count."""
    from ...layout.signature import TABLE, whole

    found = whole(node)
    return "" if found is None or found.kind == TABLE else found.name


def open_filesystem(node: Node, kind: str | None = None, *, writable: bool = False) -> FileSystem:
    """The file system on ``node``, recognised when ``kind`` is None.

    Raises GuestError EINVAL when there is none, FeatureError when there is one that no driver here opens, CorruptError.
    """
    if kind is None:
        kind = kind_of(node)
    module = DRIVERS.get(kind)
    if module is None:
        if kind:
            raise FeatureError(f"file systems of the kind {kind} can't be opened yet", path=node.filename, layer=kind)
        raise GuestError(errno.EINVAL, "no file system is recognised", path=node.filename)
    driver = __import__(f"{__package__}.{module}", fromlist=("open",))
    opened: FileSystem = driver.open(node, writable=writable)
    return opened
