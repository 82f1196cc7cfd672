"""FAT12, FAT16 and FAT32 with long names: reading and writing."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from ....block.node import Node
    from ..base import FileSystem


def open(node: Node, writable: bool = False) -> FileSystem:
    """The file system on ``node``. Raises ForeignError where there is none, CorruptError, HostError."""
    if writable:
        from .change import WritableFat

        return WritableFat(node)
    from .filesystem import FatFileSystem

    return FatFileSystem(node)


def make(node: Node, **options: Any) -> None:
    """An empty file system of the whole node; the options are `fat.mkfs.make`'s: bits, label, cluster_sectors,
    sector_size, volume_id, fats, root_entries, reserved, align, hidden, media, now. Raises OptionError."""
    from .mkfs import make as implementation

    implementation(node, **options)
