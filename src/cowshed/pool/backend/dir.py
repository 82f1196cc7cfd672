"""``dir`` pools: a directory that is there, or is made by building the pool."""

from __future__ import annotations

from .files import FilesBackend, folder

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ...wire.libvirt.definition import PoolDef


class DirBackend(FilesBackend):
    """A plain directory."""

    type = "dir"

    def source_key(self, pool: PoolDef) -> object:
        return "dir", folder(pool)
