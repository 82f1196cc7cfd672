"""Internal snapshots: states of a disk kept in the image itself."""

from __future__ import annotations

from errno import EBUSY, ENOENT

from ..errors import CowshedError, UsageError
from .access import Opened

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Unpack

    from ..block.facts import Snapshot
    from .access import Access, Image


def snapshot_list(image: Image, **access: Unpack[Access]) -> list[Snapshot]:
    """The snapshots of ``image`` (a name to open, see graph.open_image, or an open node), in table order."""
    with Opened(image, access) as node:
        return node.snapshots()


def snapshot_create(image: Image, name: str, **access: Unpack[Access]) -> Snapshot:
    """Keep the present state of the disk as ``name``; names need not differ.

    Raises OpenError, UnsupportedError for formats without snapshots, NoSpaceError.
    """
    with Opened(image, access, writable=True) as node:
        return node.snapshot_create(name)


def snapshot_apply(image: Image, ref: str, **access: Unpack[Access]) -> None:
    """Make the disk what it was in snapshot ``ref``: an id, or else a name. The present state is lost.

    Raises OpenError, UnsupportedError, UsageError for an image with dirty bitmaps (which would not know of the change),
    and CowshedError (errno ENOENT) when there is no such snapshot.
    """
    with Opened(image, access, writable=True) as node:
        if node.bitmaps():
            raise UsageError("Device has active dirty bitmaps", path=node.filename, layer=node.driver, errno=EBUSY)
        node.snapshot_apply(ref)


def snapshot_delete(image: Image, name: str, *, by_id: bool = False, **access: Unpack[Access]) -> None:
    """Forget the first snapshot called ``name``, or with ``by_id`` the one with that id.

    Raises OpenError, UnsupportedError, and CowshedError (errno ENOENT) when there is no such snapshot.
    """
    with Opened(image, access, writable=True) as node:
        for item in node.snapshots():
            if name == (item.id if by_id else item.name):
                node.snapshot_delete(item.id)
                return
        raise CowshedError("snapshot not found", path=node.filename, layer=node.driver, value=name, errno=ENOENT)
