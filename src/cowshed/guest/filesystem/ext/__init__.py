"""ext2, ext3 and ext4, from the kernel's documentation "ext4 Data Structures and Algorithms".

`open` gives a `FileSystem`. Reading loads only what reading needs.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ....block.node import Node
    from .filesystem import ExtFileSystem


def open(node: Node, writable: bool = False) -> ExtFileSystem:
    """The file system on ``node``; its ``kind`` is "ext2", "ext3" or "ext4".

    A dirty journal is replayed in memory. Raises ForeignError, FeatureError (features by name), CorruptError.
    """
    from .filesystem import ExtFileSystem

    return ExtFileSystem(node, writable=writable)
