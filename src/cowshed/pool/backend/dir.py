"""``dir`` pools: a directory that is there, or is made by building the pool."""

from __future__ import annotations

from ...errors import StateError
from .files import FilesBackend, folder

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ...wire.libvirt.definition import PoolDef


class DirBackend(FilesBackend):
    """A plain directory."""

    type = "dir"

    def source_key(self, pool: PoolDef) -> object:
        return "dir", folder(pool)

    def build(self, pool: PoolDef, *, overwrite: bool = False, no_overwrite: bool = False) -> None:
        """As for all pools of files; StateError when asked about overwriting: there is no device to format."""
        if overwrite or no_overwrite:
            raise StateError(f"No source device specified when formatting pool '{pool.name}'")
        super().build(pool)
