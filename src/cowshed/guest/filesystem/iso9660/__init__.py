"""ISO 9660 with Rock Ridge or Joliet: reading."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ....block.node import Node
    from ..base import FileSystem


def open(node: Node, writable: bool = False) -> FileSystem:
    """The file system on ``node``, read-only whatever ``writable`` says, as Linux mounts it. Raises ForeignError
    where there is none, FeatureError for UDF and High Sierra, CorruptError, HostError."""
    from .filesystem import IsoFileSystem

    return IsoFileSystem(node)
