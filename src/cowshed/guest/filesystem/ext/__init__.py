"""ext2, ext3 and ext4, from the kernel's documentation "ext4 Data Structures and Algorithms".

`open` gives a `FileSystem`; `make` makes one. Reading loads only what reading needs.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from ....block.node import Node
    from .filesystem import ExtFileSystem


def open(node: Node, writable: bool = False) -> ExtFileSystem:
    """The file system on ``node``; its ``kind`` is "ext2", "ext3" or "ext4".

    A dirty journal is replayed in memory. Raises ForeignError, FeatureError (features by name), CorruptError.
    """
    from .filesystem import ExtFileSystem

    return ExtFileSystem(node, writable=writable)


def make(node: Node, kind: str, **options: Any) -> None:
    """Make an empty file system of ``kind`` ("ext2", "ext3", "ext4") on all of ``node``; see mkfs.make."""
    from .mkfs import make as make_file_system

    make_file_system(node, kind, **options)
