"""The ``slice`` filter: a range of another node as a disk of its own, such as a partition of a whole disk."""

from __future__ import annotations

from ...errors import RangeError
from ..node import Extent, Node, byte_view

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from ..node import Buffer


class SliceNode(Node):
    """[``offset``, ``offset`` + ``size``) of ``file``. Neither end moves: nothing outside of it is ever touched.

    ``owned``: closing the slice closes ``file`` too. Raises RangeError when the range leaves ``file``.
    """

    driver = "slice"
    is_filter = True

    def __init__(self, file: Node, offset: int, size: int, *, owned: bool = True) -> None:
        if offset < 0 or size < 0 or offset + size > file.size:
            raise RangeError(
                f"Slice [{offset}, {offset + size}) is outside the disk of {file.size} bytes",
                path=file.filename, layer=self.driver, offset=offset, value=size,
            )  # fmt: skip
        super().__init__(file.filename, file.read_only)
        self.start = offset
        self.size = size
        self.below = file
        if owned:
            self.children["file"] = file
        # what the parent does by metadata alone it may do here where the borders agree
        self.zero_align = file.zero_align if offset % max(1, file.zero_align) == 0 else 1
        self.cluster_size = file.cluster_size

    def layer_extents(self, offset: int, length: int) -> Iterator[Extent]:
        for extent in self.below.extents(offset + self.start, length):
            extent.offset -= self.start
            extent.owner = self
            yield extent

    def read_into(self, offset: int, view: memoryview) -> None:
        view = byte_view(view)
        self._check_range(offset, len(view))
        self.below.read_into(offset + self.start, view)

    def write(self, offset: int, data: Buffer) -> None:
        view = byte_view(data)
        self._check_write(offset, len(view))
        self.below.write(offset + self.start, view)

    def write_zeroes(self, offset: int, length: int, unmap: bool = False) -> None:
        self._check_write(offset, length)
        self.below.write_zeroes(offset + self.start, length, unmap)

    def discard(self, offset: int, length: int) -> None:
        self._check_write(offset, length)
        self.below.discard(offset + self.start, length)

    def flush(self) -> None:
        self.below.flush()
