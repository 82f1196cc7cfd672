"""A volume, and the verbs on it; `create_volume` and `clone_volume`, which make one.

Every verb that takes long or changes something claims its volumes first (jobs.py), and looks at them again when it has
the claim: what was there a moment ago may be gone.
"""

from __future__ import annotations

import os
import stat
from time import monotonic

from ..errors import (
    ArgumentError,
    CowshedError,
    FlagsError,
    HostCallError,
    HostError,
    MissingVolumeError,
    NoSupportError,
    OperationError,
    PoolError,
    StateError,
    VolumeExistsError,
    error_number,
)
from ..progress import QUIET
from .jobs import BUILD, READ, WRITE
from .store import copied

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, BinaryIO

    from ..progress import Progress
    from ..wire.libvirt.definition import VolumeDef
    from .backend.base import Backend
    from .jobs import Claim
    from .pool import Pool

_LIMIT = (1 << 63) - 1
#: what the tables of an image may take besides a sixteenth of its capacity (512 byte clusters need that)
_TABLES = 16 << 20
#: seconds for which the facts of a volume that is no file are taken as those of now
_BELIEVED = 1.0


class VolumeInfo:
    """``type`` (file, block, dir …), ``capacity`` and ``allocation`` in bytes; the file's length stands for the
    allocation where `Volume.info` was asked for the physical size."""

    __slots__ = ("allocation", "capacity", "type")

    def __init__(self, type: str, capacity: int, allocation: int) -> None:
        self.type = type
        self.capacity = capacity
        self.allocation = allocation

    def __repr__(self) -> str:
        return f"VolumeInfo({self.type!r}, capacity={self.capacity}, allocation={self.allocation})"


class Volume:
    """A volume of ``pool``, by name. Its facts are those of the moment: nothing is kept but where it is.

    ``name``, ``key`` and ``path`` stay; `definition` is read anew each time.
    """

    def __init__(self, pool: Pool, definition: VolumeDef) -> None:
        self.pool = pool
        self.name = definition.name
        self.path = definition.target.path or ""
        self.key = definition.key or self.path
        self.type = definition.type
        self._devices = [device for device, _, _ in definition.extents]
        self._begin = definition.extents[0][1] if definition.extents else None
        self._first: VolumeDef | None = definition
        self._made = monotonic()

    def __repr__(self) -> str:
        return f"<Volume {self.name!r} of pool {self.pool.name!r}>"

    # ---- facts

    @property
    def definition(self) -> VolumeDef:
        """All that is known, true now. Raises MissingVolumeError when it is gone, StateError when its pool is."""
        first, self._first = self._first, None
        if first is not None and self._is_fresh(first):
            return first  # it was read to make this object
        return self._now()

    def _is_fresh(self, first: VolumeDef) -> bool:
        """Is what was read when this object was made still so? A file is asked, others are believed for a moment."""
        if not self.pool.backend.files:
            return monotonic() - self._made < _BELIEVED
        times = first.target.timestamps
        try:
            status = os.stat(self.path)
        except OSError:
            return False
        return (
            times is not None
            and status.st_ctime_ns == times.ctime
            and status.st_mtime_ns == times.mtime
            and status.st_atime_ns == times.atime
            and (status.st_size == (first.physical or 0) or not stat.S_ISREG(status.st_mode))
            and (status.st_blocks * 512 == first.allocation or not stat.S_ISREG(status.st_mode))
        )

    def _now(self) -> VolumeDef:
        found = self.pool.backend.volume(self.pool.live, self.name)
        if found is None:
            raise MissingVolumeError(f"no storage vol with matching name '{self.name}'", field="volume")
        backend = self.pool.backend
        begin = found.extents[0][1] if found.extents else None
        if (backend.renumbers and begin != self._begin) or (not backend.files and found.key not in (self.key, None)):
            raise StateError(
                f"volume '{self.name}' is another one now", field="volume",
                hint="the one that was meant was deleted, or its name was given to another by that",
            )  # fmt: skip
        self.type = found.type
        return found

    def xml(self) -> str:
        """The document that libvirt would show."""
        from ..wire.libvirt.volume import format_volume

        return format_volume(self.definition)

    def info(self, *, physical: bool = False) -> VolumeInfo:
        """Type and sizes; with ``physical`` the size of the file stands for the allocation."""
        now = self.definition
        return VolumeInfo(now.type, now.capacity, (now.physical or 0) if physical else now.allocation)

    def children(self) -> list[Volume]:
        """The volumes that have this one as their backing file, or are snapshots of it, by pool and name: of all pools
        that are active, or whose storage is there all the same."""
        mine = _identity(self.path)
        found = []
        backend = self.pool.backend
        if not backend.files:
            found += [self.pool.volume(name) for name in backend.dependents(self.pool.live, self._now())]
        for pool in self.pool.host.pools():
            try:
                volumes = pool._file_volumes()
            except PoolError:
                continue  # of another program's kind, or its storage is gone: nothing can be known of it
            for volume in volumes:
                below = _below(volume)
                if self.path in below or (mine is not None and mine in map(_identity, below)):
                    if not (pool.name == self.pool.name and volume.name == self.name):
                        found.append(Volume(pool, volume))
        return sorted(found, key=lambda volume: (volume.pool.name, volume.name))

    # ---- verbs

    def delete(self, *, zeroed: bool = False, delete_snapshots: bool = False, force: bool = False) -> None:
        """Remove it and its data. ``zeroed``: overwrite them first. ``force``: also when other volumes stand on it.

        Raises StateError while it is in use, or has overlays in known pools; HostCallError.
        """
        self.pool.host.check_change("virStorageVolDelete")
        if delete_snapshots:
            raise FlagsError(
                "unsupported flags (0x2) in function virStorageBackendVolDeleteLocal", field="delete_snapshots"
            )
        backend = self.pool.backend
        others = backend.renamed(self.pool.live, self._now()) if backend.renumbers else []
        with self.pool.claim("delete", self.name, WRITE, others=others, function="virStorageVolDelete"):
            now = self._now()
            if backend.renumbers and backend.renamed(self.pool.live, now) != others:
                raise StateError(f"the volumes of pool '{self.pool.name}' were changed meanwhile", hint="try again")
            if not force:
                self._refuse_with_overlays()
            backend.delete_volume(self.pool.live, now, zeroed=zeroed)

    def _refuse_with_overlays(self) -> None:
        overlays = self.children()
        if not overlays:
            return
        shown = ", ".join(f"'{volume.name}' of pool '{volume.pool.name}'" for volume in overlays[:5])
        if len(overlays) > 5:
            shown += f" and {len(overlays) - 5} more"
        raise StateError(
            f"volume '{self.name}' is the backing file of {shown}", path=self.path,
            hint="without it they can't be read; delete it all the same with force",
        )  # fmt: skip

    def resize(self, capacity: int, *, allocate: bool = False, delta: bool = False, shrink: bool = False) -> None:
        """Another capacity, in bytes; with ``delta`` a change of the present one, downwards where ``shrink`` is given.

        ``allocate``: all of it at once (raw only). Raises ArgumentError, OperationError, StateError, HostCallError.
        """
        self.pool.host.check_change("virStorageVolResize")
        if not capacity and not (delta or shrink):
            raise FlagsError(
                "capacity in virStorageVolResize cannot be zero without 'delta' or 'shrink' flags set", field="capacity"
            )
        if capacity < 0 and not (delta and shrink):
            raise ArgumentError(f"capacity {capacity} is negative", field="capacity", value=capacity)
        with self.pool.claim("resize", self.name, WRITE, function="virStorageVolResize"):
            now = self._now()
            size = now.capacity + (-abs(capacity) if shrink else capacity) if delta else capacity
            if size < 0:
                raise ArgumentError("can't shrink capacity below existing allocation", field="capacity", value=size)
            if size > _LIMIT:
                raise ArgumentError(
                    f"capacity {size} is too large", field="capacity", value=size, hint=f"at most {_LIMIT}"
                )
            if size < now.allocation:
                raise ArgumentError("can't shrink capacity below existing allocation", field="capacity", value=size)
            if size < now.capacity and not shrink:
                raise ArgumentError(
                    "Can't shrink capacity below current capacity unless shrink flag explicitly specified",
                    field="capacity", value=size,
                )  # fmt: skip
            live = copied(self.pool.live)
            if allocate:
                self.pool.backend.refresh(live)
                if size - now.allocation > live.available:
                    raise OperationError("Not enough space left in storage pool", field="capacity", value=size)
            self.pool.backend.resize_volume(live, now, size, allocate=allocate, shrink=shrink)

    def wipe(self, algorithm: str = "zero", *, progress: Progress = QUIET) -> None:
        """Overwrite all data of the volume (see wipe.py); a format in it is gone then, its file keeps its size."""
        from .wipe import check_algorithm, wipe

        self.pool.host.check_change("virStorageVolWipePattern")
        check_algorithm(algorithm)
        with (
            self.pool.claim("wipe", self.name, WRITE, function="virStorageVolWipePattern") as claim,
            _Words("cannot wipe", self.path),
            self._open("open storage volume with path", writable=True) as node,
        ):
            wipe(node, algorithm, claim.watch(progress))
            node.flush()

    def upload(
        self,
        source: BinaryIO | str | os.PathLike[str],
        *,
        offset: int = 0,
        length: int = 0,
        sparse: bool = False,
        resize: bool = False,
        progress: Progress = QUIET,
    ) -> None:
        """Write bytes into the volume's file from ``offset`` on. ``source``: a path, or a file object to read.

        ``length``: how many bytes there may be, 0 for as many as fit; more is an error. What fits: up to the end of a
        raw volume; into an image file of another format its whole disk, tables and all. ``sparse``: holes of the source
        (where it is a real file) become holes. ``resize``: whatever it takes, as libvirt always does.

        Raises ArgumentError, HostCallError, StateError.
        """
        from .transfer import file_of, upload
        from .writeback import write_behind

        self.pool.host.check_change("virStorageVolUpload")
        _check_range(offset, length)
        with (
            self.pool.claim("upload", self.name, WRITE, function="virStorageVolUpload") as claim,
            _Words("cannot write", self.path),
            self._open("open stream for", writable=True) as node,
        ):
            limit = None if resize else self._most()
            watched = write_behind(file_of(node), claim.watch(progress), offset)
            upload(node, source, self.name, offset=offset, length=length, sparse=sparse, limit=limit, progress=watched)
            node.flush()

    def download(
        self,
        target: BinaryIO | str | os.PathLike[str],
        *,
        offset: int = 0,
        length: int = 0,
        sparse: bool = False,
        progress: Progress = QUIET,
    ) -> None:
        """Read the bytes of the volume's file from ``offset`` on, ``length`` of them or all there are.

        ``target``: a path, of which a new file is made or an old one replaced, or a file object to write to.
        ``sparse``: holes are left out where the target can have holes.
        """
        from .transfer import download

        _check_range(offset, length)
        with (
            self.pool.claim("download", self.name, READ, function="virStorageVolDownload") as claim,
            _Words("cannot read", self.path),
            self._open("open stream for", writable=False) as node,
        ):
            download(
                node, target, *self.places, offset=offset, length=length, sparse=sparse,
                progress=claim.watch(progress),
            )  # fmt: skip

    # ---- helpers

    def _most(self) -> int:
        """How long its file may become by an upload: the file of an image grows, to its capacity and its tables."""
        now = self._now()
        if now.type != "file" or now.target.format in ("raw", "iso"):
            return 0  # no longer than it is
        return now.capacity + now.capacity // 16 + _TABLES

    @property
    def places(self) -> list[str]:
        """The files and devices that hold its bytes, as far as they are known without a look: its own path, and the
        devices that it is a part of."""
        return [self.path, *self._devices]

    def _open(self, doing: str, *, writable: bool) -> Any:
        try:
            return self.pool.backend.open_volume(self.pool.live, self._now(), writable=writable)
        except HostCallError as error:
            if error.errno is None or not str(error).startswith("Unable to open stream for"):
                raise
            text = (
                f"Failed to {doing} '{self.path}'" if "storage volume" in doing else f"Unable to {doing} '{self.path}'"
            )
            raise HostCallError(text, error.errno, path=self.path) from error


class _Words:
    """A context in which the engine's errors become PoolErrors: ``doing`` says what was tried."""

    __slots__ = ("doing", "path")

    def __init__(self, doing: str, path: str) -> None:
        self.doing = doing
        self.path = path

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, HostError):
            raise HostCallError(f"{self.doing} '{self.path}'", error_number(error), path=self.path) from error
        if isinstance(error, CowshedError) and not isinstance(error, PoolError):
            raise PoolError(
                f"'{self.path}': {error.message}", path=self.path, hint=error.hint, errno=error_number(error)
            ) from error


def _check_range(offset: int, length: int) -> None:
    for name, value in (("offset", offset), ("length", length)):
        if not 0 <= value <= _LIMIT:
            raise ArgumentError(f"{name} {value} is out of range", field=name, value=value)


def _below(volume: VolumeDef) -> list[str]:
    """The files that a volume stands on, as far as their names say it: its backing file's, and that of its data."""
    names = []
    for name in (volume.backing.path if volume.backing is not None else None, volume.data):
        if name is None:
            continue
        if name.startswith("file:"):
            names.append(name[5:])
        elif name.startswith("json:"):
            from ..block.filename import parse_json_name

            try:
                options = parse_json_name(name)
            except CowshedError:
                continue
            names += [str(value) for key, value in options.items() if key.rpartition(".")[2] == "filename"]
        else:
            names.append(name)
    folder = os.path.dirname(volume.target.path or "")
    return [os.path.join(folder, name) for name in names]


def _identity(path: str) -> tuple[int, int] | None:
    try:
        status = os.stat(path)
    except (OSError, ValueError):
        return None
    return status.st_dev, status.st_ino


# -- making volumes ----------------------------------------------------------------------------------------------------


def create_volume(
    pool: Pool, xml: str | VolumeDef, *, prealloc_metadata: bool = False, progress: Progress = QUIET
) -> Volume:
    """Make a volume in an active pool as a document or a definition says.

    Raises what parsing raises, VolumeExistsError, StateError (a bad name, a claim), ConfigError, HostCallError.
    """
    pool.host.check_change("virStorageVolCreateXML")
    live = pool.live
    backend = pool.backend
    definition = _definition(pool, xml, cloning=False)
    if backend.volume(live, definition.name) is not None:
        raise VolumeExistsError(f"storage volume '{definition.name}' exists already")
    backend.prepare_volume(live, definition)
    beside = definition.target.path if backend.files else None
    below = _backing_volume(pool, definition)
    # nobody deletes what the new volume will stand on
    also = None if below is None else (below.pool, below.name, READ)
    with pool.claim("create", definition.name, BUILD, beside=beside, also=also, extents=definition.extents) as claim:
        watched = claim.watch(progress)
        options = _made_under(backend, claim)
        backend.create_volume(live, definition, prealloc_metadata=prealloc_metadata, progress=watched, **options)
    return _made(pool, definition)


def clone_volume(
    pool: Pool,
    xml: str | VolumeDef,
    origin: Volume,
    *,
    prealloc_metadata: bool = False,
    reflink: bool = False,
    progress: Progress = QUIET,
) -> Volume:
    """Make a volume with the contents of ``origin``, of this pool or another one; it is at least as large.

    ``reflink``: share the blocks with it or fail (raw only); where the file system can, raw copies do so anyway. The
    copy has no backing file. Raises what `create_volume` raises.
    """
    pool.host.check_change("virStorageVolCreateXMLFrom")
    live = pool.live
    backend = pool.backend
    source = origin.definition
    definition = _definition(pool, xml, cloning=True)
    if backend.volume(live, definition.name) is not None:
        raise PoolError(f"storage volume name '{definition.name}' already in use.")
    if source.type in ("dir", "netdir", "ploop"):
        raise NoSupportError("storage pool does not support volume creation from an existing volume")
    _at_least(definition, source)
    backend.prepare_volume(live, definition)
    beside = definition.target.path if backend.files else None
    with pool.claim(
        "clone", definition.name, BUILD, beside=beside, also=(origin.pool, origin.name, READ),
        extents=definition.extents, function="virStorageVolCreateXMLFrom",
    ) as claim:  # fmt: skip
        source = origin._now()  # as it is now that nobody changes it
        _at_least(definition, source)
        watched = claim.watch(progress)
        options = _made_under(backend, claim)
        backend.clone_volume(
            live, definition, source, prealloc_metadata=prealloc_metadata, reflink=reflink, progress=watched, **options
        )
    return _made(pool, definition)


def _made_under(backend: Backend, claim: Claim) -> Any:
    """What tells the unfinished volume from all others: its file's name meanwhile, or a mark on it."""
    if backend.files:
        return {"part": claim.part}
    return {"mark": claim.job.id} if backend.marks else {}


def _made(pool: Pool, definition: VolumeDef) -> Volume:
    """The new volume. Of a file no more is known than where it is; whoever wants its facts has them read."""
    return Volume(pool, definition) if pool.backend.files else pool.volume(definition.name)


def _backing_volume(pool: Pool, definition: VolumeDef) -> Volume | None:
    """The volume of a known pool that is to be the backing file of ``definition``, which knows its own path."""
    path = None if definition.backing is None else definition.backing.path
    if path is None:
        return None
    try:
        return pool.host.volume_by_path(os.path.join(os.path.dirname(definition.target.path or ""), path))
    except PoolError:
        return None


def _definition(pool: Pool, xml: str | VolumeDef, *, cloning: bool) -> VolumeDef:
    """A definition of our own."""
    if isinstance(xml, (str, bytes)):
        from ..wire.libvirt.volume import parse_volume

        definition = parse_volume(xml, pool.type, cloning)
    else:
        from copy import deepcopy

        definition = deepcopy(xml)
        definition.extents = []  # another volume's
    _check_capacity(definition)
    if not definition.has_allocation:
        definition.allocation = definition.capacity
    return definition


def _at_least(definition: VolumeDef, source: VolumeDef) -> None:
    definition.capacity = max(definition.capacity, source.capacity)
    if not definition.has_allocation:
        definition.allocation = definition.capacity


def _check_capacity(definition: VolumeDef) -> None:
    for field in ("capacity", "allocation"):
        value = getattr(definition, field)
        if value < 0 or value >= 1 << 64:
            raise ArgumentError(f"{field} {value} is out of range", field=field, value=value)
