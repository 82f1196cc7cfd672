"""XFS, versions 4 and 5 (XFS Algorithms & Data Structures, 3rd edition): read whole, edited within allocated blocks."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ....block.node import Node
    from .filesystem import XfsFileSystem


def open(node: Node, writable: bool = False) -> XfsFileSystem:
    """The file system on ``node``. ForeignError when it is no XFS, FeatureError for what is not known here,
    CorruptError for damage. A dirty log is replayed in memory, nothing is written."""
    from .filesystem import XfsFileSystem

    return XfsFileSystem(node, writable=writable)
