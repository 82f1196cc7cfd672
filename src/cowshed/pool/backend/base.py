"""What a kind of pool supplies: the one interface between pools and their storage.

A backend holds no state: everything is in the `PoolDef` that it is given, and on the storage itself. It raises
`PoolError`s in libvirt's words, and changes nothing before it knows that the tools and privileges it needs are there
(`tools.need`). It takes no locks and writes no state files: pool.py does that around it.
"""

from __future__ import annotations

from ...errors import NoSupportError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import ClassVar

    from ...block.node import Node
    from ...progress import Progress
    from ...wire.libvirt.definition import PoolDef, PoolSource, VolumeDef
    from ..host import Host


class Backend:
    """Base of all kinds. One instance serves one `Host`."""

    #: the ``type`` attribute of the pool's document
    type: ClassVar[str]
    #: formats for <source><format>: (default, all of them); empty where the element has no meaning
    source_formats: ClassVar[tuple[str, tuple[str, ...]]] = ("", ())
    #: formats of volumes: (default, all of them)
    volume_formats: ClassVar[tuple[str, tuple[str, ...]]] = ("", ())
    #: are volumes files that qemu-img formats may be in? Decides which verbs volume.py does itself
    files: ClassVar[bool] = False
    #: can a volume be marked as that of the job that is making it? Making one takes ``mark`` then
    marks: ClassVar[bool] = False
    #: may the name of a volume become another one's when others are deleted (see `renamed`)?
    renumbers: ClassVar[bool] = False

    def __init__(self, host: Host) -> None:
        self.host = host

    # ---- the pool

    def validate(self, pool: PoolDef) -> None:
        """Complete and check a definition when it is defined or created (defaults, required elements)."""

    def source_key(self, pool: PoolDef) -> object:
        """What two pools must not share: equal, not None, means "Storage source conflict"."""
        return None

    def check(self, pool: PoolDef) -> bool:
        """Is the pool's storage up already, without our doing (a mounted file system, an existing directory)?"""
        return False

    def build(self, pool: PoolDef, *, overwrite: bool = False, no_overwrite: bool = False) -> None:
        """Make what the pool needs: directory, file system, partition table, volume group."""
        raise NoSupportError("storage pool does not support building")

    def start(self, pool: PoolDef) -> None:
        """Bring the storage up."""

    def stop(self, pool: PoolDef) -> None:
        """Take it down; the data stay."""

    def delete(self, pool: PoolDef, *, zeroed: bool = False) -> None:
        """Destroy the data."""
        raise NoSupportError("storage pool does not support pool deletion")

    def refresh(self, pool: PoolDef) -> None:
        """Put capacity, allocation, available (bytes), permissions and free extents of now into ``pool``."""

    def find_sources(self, source: PoolSource | None) -> list[PoolSource]:
        """What could become a pool of this kind."""
        raise NoSupportError(f"pool type '{self.type}' does not support source discovery")

    # ---- volumes: names and facts

    def names(self, pool: PoolDef) -> Iterable[tuple[str, str]]:
        """(name, path) of each volume, cheaply, in any order: what ``vol-list`` needs."""
        return ((volume.name, volume.target.path or "") for volume in self.scan(pool))

    def scan(self, pool: PoolDef) -> list[VolumeDef]:
        """Every volume with all that is known of it, true now."""
        raise NotImplementedError

    def volume(self, pool: PoolDef, name: str) -> VolumeDef | None:
        """One volume, true now; None when there is none of that name."""
        return next((volume for volume in self.scan(pool) if volume.name == name), None)

    # ---- volumes: verbs. ``volume`` is completed in place (key, path, sizes)

    def prepare_volume(self, pool: PoolDef, volume: VolumeDef) -> None:
        """Check a definition and fill in type, key, path and format, before anything is made."""
        raise NoSupportError("storage pool does not support volume creation")

    def create_volume(
        self, pool: PoolDef, volume: VolumeDef, *, prealloc_metadata: bool = False, progress: Progress
    ) -> None:
        """Make it; under its own name only when it is whole."""
        raise NoSupportError("storage pool does not support volume creation")

    def clone_volume(
        self,
        pool: PoolDef,
        volume: VolumeDef,
        origin: VolumeDef,
        *,
        prealloc_metadata: bool = False,
        reflink: bool = False,
        progress: Progress,
    ) -> None:
        """Make ``volume`` with the contents of ``origin`` (a volume of any pool); as `create_volume`."""
        raise NoSupportError("storage pool does not support volume creation from an existing volume")

    def place(self, pool: PoolDef) -> str:
        """What tells the directory that volumes are files of from all others, whatever it is called; "" without one.
        Another pool's may be the same."""
        return ""

    def is_marked(self, pool: PoolDef, volume: VolumeDef, mark: str) -> bool:
        """Is an unfinished volume the one that the job ``mark`` was making, and nobody else's of that name? Of kinds
        that have `marks`."""
        return False

    def unfinished(self, pool: PoolDef) -> list[tuple[VolumeDef, str, float]]:
        """The volumes that have any job's mark: (volume, mark, when it was made). Of kinds that have `marks`."""
        return []

    def dependents(self, pool: PoolDef, volume: VolumeDef) -> list[str]:
        """The other volumes of the pool that can't be without this one, where no file's name says it."""
        return []

    def renamed(self, pool: PoolDef, volume: VolumeDef) -> list[str]:
        """The other volumes that go with a volume when it is deleted, or are called something else from then on. Of
        kinds that have `renumbers`."""
        return []

    def delete_volume(self, pool: PoolDef, volume: VolumeDef, *, zeroed: bool = False) -> None:
        raise NoSupportError("storage pool does not support vol deletion")

    def resize_volume(
        self, pool: PoolDef, volume: VolumeDef, capacity: int, *, allocate: bool = False, shrink: bool = False
    ) -> None:
        raise NoSupportError("storage pool does not support changing of volume capacity")

    def open_volume(self, pool: PoolDef, volume: VolumeDef, *, writable: bool = False) -> Node:
        """The volume's raw bytes as a node of the block engine: for upload, download and wipe."""
        raise NoSupportError("storage pool does not support volume upload or download")
