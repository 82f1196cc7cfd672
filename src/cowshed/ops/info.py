"""The facts of an image and of its backing chain, read from its metadata alone."""

from __future__ import annotations

from errno import ELOOP

from ..block.graph import MAX_CHAIN, backing_path
from ..block.trust import check_reference
from ..errors import CowshedError
from .access import Opened

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Unpack

    from ..block.facts import Snapshot
    from ..block.node import Node
    from .access import Access, Image

SECTOR = 512
_NANO = 1_000_000_000


class ImageInfo:
    """What ``info`` says of one image.

    ``filename`` as it is reported; ``format`` the driver's name; ``virtual_size`` bytes of the disk, in whole sectors
    of 512; ``actual_size`` bytes that the image takes on its storage, None when unknown; ``cluster_size`` bytes, 0
    for formats without clusters; ``dirty``: not cleanly closed. ``backing_filename`` and ``backing_format`` as they
    stand in the image, ``full_backing_filename`` as it would be opened, each None without one. ``snapshots`` in
    table order. ``format_specific``: ``{"type": …, "data": {…}}`` with qemu's key names, or None. ``backing``: the
    backing file's own ImageInfo when the chain was asked for.
    """

    __slots__ = (
        "actual_size",
        "backing",
        "backing_filename",
        "backing_format",
        "cluster_size",
        "dirty",
        "encrypted",
        "filename",
        "format",
        "format_specific",
        "full_backing_filename",
        "snapshots",
        "virtual_size",
    )

    def __init__(self, node: Node) -> None:
        self.filename = node.filename
        self.format = node.driver
        self.virtual_size = (node.size + SECTOR - 1) // SECTOR * SECTOR
        self.actual_size = node.allocated_bytes()
        self.cluster_size = _cluster_size(node)
        self.encrypted = bool(getattr(node, "encrypted", False))
        self.dirty = bool(getattr(node, "dirty_flag", False))
        self.backing_filename = node.backing_name or None
        self.full_backing_filename = backing_path(node)
        self.backing_format = node.backing_format or None
        self.snapshots: list[Snapshot] = node.snapshots()
        self.format_specific: dict[str, Any] | None = node.format_specific()
        self.backing: ImageInfo | None = None

    @property
    def chain(self) -> list[ImageInfo]:
        """This image and, as far as they were asked for, the images behind it."""
        found = [self]
        while found[-1].backing is not None:
            found.append(found[-1].backing)
        return found

    def to_dict(self) -> dict[str, Any]:
        """qemu's ImageInfo: its key names, without the keys that it leaves out."""
        found: dict[str, Any] = {
            "filename": self.filename,
            "format": self.format,
            "virtual-size": self.virtual_size,
            "dirty-flag": self.dirty,
        }
        if self.actual_size is not None:
            found["actual-size"] = self.actual_size
        if self.cluster_size:
            found["cluster-size"] = self.cluster_size
        if self.encrypted:
            found["encrypted"] = True
        if self.backing_filename is not None:
            found["backing-filename"] = self.backing_filename
            if self.full_backing_filename is not None:
                found["full-backing-filename"] = self.full_backing_filename
            if self.backing_format is not None:
                found["backing-filename-format"] = self.backing_format
        if self.snapshots:
            found["snapshots"] = [snapshot_dict(item) for item in self.snapshots]
        if self.format_specific is not None:
            found["format-specific"] = self.format_specific
        return found

    def __repr__(self) -> str:
        return f"<ImageInfo {self.filename!r} {self.format} {self.virtual_size}>"


def _cluster_size(node: Node) -> int:
    """A window on an image (raw over qcow2) has the clusters of what it shows."""
    while node.is_format and not node.cluster_size and node.file.is_format:
        node = node.file
    return node.cluster_size


def snapshot_dict(item: Snapshot) -> dict[str, Any]:
    """qemu's SnapshotInfo."""
    found: dict[str, Any] = {
        "id": item.id,
        "name": item.name,
        "vm-state-size": item.vm_state_size,
        "date-sec": item.date_sec,
        "date-nsec": item.date_nsec,
        "vm-clock-sec": item.vm_clock_nsec // _NANO,
        "vm-clock-nsec": item.vm_clock_nsec % _NANO,
    }
    if item.icount is not None:
        found["icount"] = item.icount
    return found


def info(image: Image, *, backing_chain: bool = False, **access: Unpack[Access]) -> ImageInfo:
    """The facts of ``image``: a name to open (see graph.open_image) or an open node.

    No guest data is read, no key needed, and nothing but the image itself opened, unless ``backing_chain``: then
    every image behind it is opened in turn, and hangs on the one before as ``backing``.

    Raises OpenError, TrustError where policy forbids to follow a backing file, and CowshedError for a chain that
    bites its tail.
    """
    with Opened(image, access, no_io=True, backing=False) as node:
        top = last = ImageInfo(node)
    if not backing_chain:
        return top
    name = image if isinstance(image, str) else access.get("label") or top.filename
    seen = {name}
    rest: Access = {**access, "open_options": None, "label": None}
    while last.full_backing_filename is not None:
        owner, name = last.filename, last.full_backing_filename
        if name in seen:
            raise CowshedError(f"Backing file '{name}' creates an infinite loop.", path=owner, errno=ELOOP)
        if len(seen) >= MAX_CHAIN:
            raise CowshedError(f"The backing chain is longer than {MAX_CHAIN} images", path=top.filename, errno=ELOOP)
        seen.add(name)
        check_reference(access.get("trust") or "local", name, "backing file", owner)
        rest["fmt"] = last.backing_format
        with Opened(name, rest, no_io=True, backing=False) as node:
            below = ImageInfo(node)
        last.backing = below
        last = below
    return top
