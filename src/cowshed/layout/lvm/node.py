"""A logical volume as a node: its bytes are found on the nodes of its physical volumes, without device-mapper."""

from __future__ import annotations

from ...block.node import ZERO, Extent, Node, Placement
from ...errors import FeatureError, UnsupportedError
from .cow import Exceptions, read_exceptions
from .mapping import mapping
from .model import LogicalVolume

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_WRITABLE = ("striped", "linear", "raid0", "raid0_meta")


class LogicalNode(Node):
    """The disk that a logical volume is: linear, striped, RAID 0 for reading and writing; mirrors, RAID 1 and 10 and
    classic snapshots for reading.

    ``on_close`` is called when the node is closed (to close the physical volumes, for one). Raises UnsupportedError
    when it is to be written and can't be (writing the origin of snapshots would change these), FeatureError for types
    that are not known here, CorruptError for a snapshot's damaged store.
    """

    driver = "lvm2"
    is_format = True

    def __init__(
        self, lv: LogicalVolume, *, writable: bool = False, on_close: Callable[[], object] | None = None
    ) -> None:
        super().__init__(f"{lv.group.name}/{lv.name}", read_only=not writable)
        self.lv = lv
        self.exceptions: Exceptions | None = None
        self.origin: LogicalVolume | None = None
        if writable:
            self._check_writable(lv)
        if lv.snapshot is not None:
            assert lv.snapshot.origin is not None
            self.origin = lv.group.volumes[lv.snapshot.origin]
            if lv.snapshot.merging:
                raise FeatureError(f"The snapshot '{self.filename}' is being merged", layer="lvm2")
            self.exceptions = read_exceptions(lv)
        elif any(other.snapshot is not None and other.snapshot.merging for other in lv.snapshots):
            raise FeatureError(f"A snapshot is being merged into '{self.filename}'", layer="lvm2")
        self.size = lv.virtual_size
        self.on_close = on_close

    def _check_writable(self, lv: LogicalVolume) -> None:
        why = ""
        if lv.snapshot is not None:
            why = "it is a snapshot"
        elif lv.snapshots:
            why = f"the snapshot '{lv.snapshots[0].name}' stands on it"
        else:
            kind = _first_unwritable(lv)
            if kind:
                why = f"it is of type '{kind}'"
        if why:
            raise UnsupportedError(
                f"The logical volume '{self.filename}' can't be written without device-mapper: {why}",
                path=self.filename,
                layer=self.driver,
            )

    def follow(self, lv: LogicalVolume) -> None:
        """The volume is described anew: it may have another name, size and place for its extents."""
        self.lv = lv
        self.filename = f"{lv.group.name}/{lv.name}"
        self.size = lv.virtual_size

    # -- mapping --------------------------------------------------------------------------------------------------

    def _own(self, lv: LogicalVolume, offset: int, length: int, shift: int) -> Iterator[Extent]:
        """Extents of a volume's own bytes; ``shift``: what to add to get this node's offsets."""
        for start, count, pv, where in mapping(lv, offset, length):
            node = pv.node if pv is not None else None
            if node is None:
                yield Extent(start + shift, count, ZERO, None, -1, 0, self)
                continue
            source = node._chain_extents if node.is_format or node.is_filter else node.layer_extents
            for extent in source(where, count):
                extent.offset += start + shift - where
                extent.owner = self
                extent.depth = 0
                yield extent

    def layer_extents(self, offset: int, length: int) -> Iterator[Extent]:
        if self.exceptions is None or self.origin is None:
            yield from self._own(self.lv, offset, length, 0)
            return
        for start, count, stored in self.exceptions.runs(offset, length):
            if stored >= 0:
                yield from self._own(self.lv, stored, count, start - stored)
                continue
            inside = max(0, min(count, self.origin.size - start))
            if inside:
                yield from self._own(self.origin, start, inside, 0)
            if inside < count:
                yield Extent(start + inside, count - inside, ZERO, None, -1, 0, self)

    def read_into(self, offset: int, view: memoryview) -> None:
        """As Node.read_into, without asking the devices for their holes."""
        self._check_range(offset, len(view))
        if self.exceptions is not None:
            super().read_into(offset, view)
            return
        for start, count, pv, where in mapping(self.lv, offset, len(view)):
            part = view[start - offset : start - offset + count]
            if pv is None or pv.node is None:
                part[:] = bytes(count)
            else:
                pv.node.read_into(where, part)

    # -- writing --------------------------------------------------------------------------------------------------

    def place(self, offset: int, length: int) -> list[Placement]:
        placements = []
        for start, count, pv, where in mapping(self.lv, offset, length):
            assert pv is not None and pv.node is not None
            placements.append(Placement(start, count, pv.node, where))
        return placements

    def zero_range(self, offset: int, length: int, unmap: bool) -> bool:
        for placement in self.place(offset, length):
            placement.node.write_zeroes(placement.host_offset, placement.length, unmap)
        return True

    def discard_range(self, offset: int, length: int) -> None:
        for placement in self.place(offset, length):
            placement.node.discard(placement.host_offset, placement.length)

    def flush(self) -> None:
        if not self.read_only:
            for pv in self.lv.group.physical.values():
                if pv.node is not None and not pv.node.read_only:
                    pv.node.flush()

    def shutdown(self) -> None:
        try:
            self.flush()
        finally:
            if self.on_close is not None:
                self.on_close()

    def allocated_bytes(self) -> int | None:
        return self.lv.size


def _first_unwritable(lv: LogicalVolume) -> str:
    for segment in lv.segments:
        if segment.type not in _WRITABLE:
            return segment.type
        for area in segment.areas:
            if isinstance(area.volume, LogicalVolume):
                kind = _first_unwritable(area.volume)
                if kind:
                    return kind
    return ""
