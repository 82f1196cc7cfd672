"""A pool: its lifecycle, and its volumes by name.

A `Pool` keeps nothing but its name and uuid; everything is read when it is asked for, so what another process did
is seen at once.
"""

from __future__ import annotations

import os
from errno import EACCES, EPERM, EROFS

from ..errors import (
    ArgumentError,
    CowshedError,
    HostCallError,
    MissingPoolError,
    MissingVolumeError,
    PoolError,
    StateError,
    VolumeExistsError,
)
from ..progress import QUIET
from .jobs import BUILD, READ, Claim
from .store import Lock, copied

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from ..progress import Progress
    from ..wire.libvirt.definition import PoolDef, VolumeDef
    from .backend.base import Backend
    from .host import Host
    from .jobs import Job
    from .volume import Volume


class PoolInfo:
    """``state``; ``capacity``, ``allocation`` and ``available`` in bytes; ``promised``: the sum of the volumes'
    capacities, counted when it is asked for."""

    __slots__ = ("_pool", "_promised", "allocation", "available", "capacity", "state")

    def __init__(self, state: str, capacity: int, allocation: int, available: int, pool: Pool | None = None) -> None:
        self.state = state
        self.capacity = capacity
        self.allocation = allocation
        self.available = available
        self._pool = pool
        self._promised: int | None = None

    @property
    def promised(self) -> int:
        if self._promised is None:
            live = None if self._pool is None else self._pool.live
            volumes = [] if self._pool is None or live is None else self._pool.backend.scan(live)
            self._promised = sum(volume.capacity for volume in volumes)
        return self._promised

    def __repr__(self) -> str:
        return f"PoolInfo({self.state}, {self.capacity}, {self.allocation}, {self.available})"


class Pool:
    """One pool of a `Host`. ``name``, ``uuid`` and ``type`` don't change as long as it exists."""

    def __init__(self, host: Host, definition: PoolDef) -> None:
        self.host = host
        self.name = definition.name
        self.uuid = definition.uuid
        self.type = definition.type

    def __repr__(self) -> str:
        return f"Pool({self.name!r}, {self.uuid})"

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Pool):
            return NotImplemented
        return (self.name, self.uuid, self.host.store.config) == (other.name, other.uuid, other.host.store.config)

    def __hash__(self) -> int:
        return hash((self.name, self.uuid))

    # ---- what it is

    def _load(self) -> tuple[PoolDef | None, PoolDef | None]:
        """(persistent, active) of now. Raises MissingPoolError when it isn't there any more, or is another pool."""
        config, state = self.host.store.load(self.name)
        there = state or config
        if there is None or there.uuid != self.uuid:
            raise MissingPoolError(f"no storage pool with matching uuid '{self.uuid}' ({self.name})")
        return config, state

    @property
    def backend(self) -> Backend:
        return self.host.backend(self.type)

    @property
    def active(self) -> bool:
        return self._load()[1] is not None

    @property
    def persistent(self) -> bool:
        return self._load()[0] is not None

    @property
    def autostart(self) -> bool:
        return self.host.store.autostart(self.name)

    @property
    def state(self) -> str:
        """ "inactive", "building", "running"; "inaccessible" when it should be there and its storage says otherwise
        (that costs a look at the storage)."""
        state = self._load()[1]
        if state is None:
            return "building" if self.host.store.activity(self.name) == "build" else "inactive"
        try:
            self.backend.refresh(state)
        except (CowshedError, OSError):
            return "inaccessible"
        return "running"

    @property
    def live(self) -> PoolDef:
        """The active definition, without fresh figures; not to be changed. Raises StateError when the pool isn't
        active."""
        state = self.host.store.peek_state(self.name)
        if state is None or state.uuid != self.uuid:
            state = self._load()[1]  # which tells a pool that is gone from one that isn't active
        if state is None:
            raise StateError(f"storage pool '{self.name}' is not active")
        return state

    @property
    def definition(self) -> PoolDef:
        """What it is now: active, with fresh figures; inactive, as it is defined."""
        config, state = self._load()
        if state is None:
            assert config is not None
            return config
        return self._fresh(state)

    @property
    def inactive_definition(self) -> PoolDef:
        """What it will be when it is started next. Of an active pool that wasn't defined anew since, the same as what
        it is now, figures and all, as libvirt shows it."""
        config, state = self._load()
        if state is None or (config is not None and config != state):
            assert config is not None
            return config
        return self._fresh(state)

    def _fresh(self, state: PoolDef) -> PoolDef:
        try:
            self.backend.refresh(state)
        except (CowshedError, OSError):
            pass  # the document doesn't depend on the storage being in order; `state` tells
        return state

    def info(self) -> PoolInfo:
        state = self._load()[1]
        if state is None:
            return PoolInfo(self.state, 0, 0, 0)
        try:
            self.backend.refresh(state)
        except (CowshedError, OSError):
            return PoolInfo("inaccessible", 0, 0, 0)
        return PoolInfo("running", state.capacity, state.allocation, state.available, self)

    def xml(self, inactive: bool = False) -> str:
        """The document; ``inactive``: of `inactive_definition`."""
        from ..wire.libvirt.pool import format_pool

        return format_pool(self.inactive_definition if inactive else self.definition)

    def jobs(self) -> list[Job]:
        """What runs now on its volumes, of all processes."""
        return self.host.claims.running(self.name)

    # ---- lifecycle

    def build(self, overwrite: bool = False, no_overwrite: bool = False) -> None:
        """Make its storage. Raises StateError when the pool is active."""
        self.host.check_change("virStoragePoolBuild")
        options = build_options(True, overwrite, no_overwrite)
        assert options is not None
        with self._changing("build"):
            self.backend.build(self._stopped("already active"), **options)
        self.host.emit(self, "Created")

    def start(self, build: bool = False, overwrite: bool = False, no_overwrite: bool = False) -> None:
        """Make it active, after it was built if asked for. Raises StateError when it is active already."""
        self.host.check_change("virStoragePoolCreate")
        options = build_options(build, overwrite, no_overwrite)
        with self._changing("start") as lock:
            definition = self._stopped("already active")
            if options is not None:
                self.backend.build(copied(definition), **options)
            self.bring_up(definition, lock)
        self.host.emit(self, "Started")

    def bring_up(self, definition: PoolDef, lock: Lock) -> None:
        """Start the storage and record that it is active. ``lock``: the pool's, that the caller holds."""
        backend = self.host.backend(definition.type)
        if not self.host.is_up(definition):
            lock.undo = True
            lock.note(lock.verb)
        backend.start(copied(definition))
        try:
            backend.refresh(copied(definition))
            self.host.store.save_state(definition)
        except BaseException:
            try:
                backend.stop(copied(definition))
            except (CowshedError, OSError):
                pass  # what went wrong first is what counts
            raise
        self._sweep(definition)

    def destroy(self) -> None:
        """Stop it; a transient one is gone then. Raises StateError when it isn't active, PoolError while jobs run."""
        self.host.check_change("virStoragePoolDestroy")
        with self._changing("destroy"):
            definition = self.live
            self._check_idle()
            self._take_down(definition)
        self.host.emit(self, "Stopped")

    def _take_down(self, definition: PoolDef) -> None:
        self.backend.stop(copied(definition))
        self.host.store.remove_state(self.name)
        if self.host.store.load_config(self.name) is None:
            self._forget()

    def refresh(self) -> None:
        """Look whether the storage is in order; if it isn't, the pool is stopped, unless jobs run in it.

        The lists of volumes are true without this. Raises StateError when the pool isn't active.
        """
        self.host.check_change("virStoragePoolRefresh")
        failed: BaseException | None = None
        with self._changing("refresh"):
            definition = self.live
            self._sweep(definition)
            try:
                self.backend.refresh(copied(definition))
                for _ in self.backend.names(definition):
                    pass
            except (CowshedError, OSError) as error:
                if self.jobs():
                    raise
                failed = error
                try:
                    self._take_down(definition)
                except (CowshedError, OSError):
                    self.host.store.remove_state(self.name)
        if failed is not None:
            self.host.emit(self, "Stopped")
            raise failed
        self.host.log.add("refresh", pool=self.name, uuid=self.uuid)

    def delete(self, zeroed: bool = False) -> None:
        """Destroy its storage. Raises StateError when the pool is active."""
        self.host.check_change("virStoragePoolDelete")
        with self._changing("delete"):
            definition = self._stopped("still active")
            self._check_idle()
            self.backend.delete(definition, zeroed=zeroed)
        self.host.emit(self, "Deleted")

    def undefine(self) -> None:
        """Forget it; its storage stays. Raises StateError when the pool is active."""
        self.host.check_change("virStoragePoolUndefine")
        with self._changing("undefine"):
            self._stopped("still active")
            self._check_idle()
            self.host.store.remove_config(self.name)
            self._forget()
        self.host.emit(self, "Undefined")

    def set_autostart(self, wanted: bool) -> None:
        """Raises PoolError when the pool is transient."""
        self.host.check_change("virStoragePoolSetAutostart")
        with self._changing("autostart"):
            if self._load()[0] is None:
                raise PoolError("pool has no config file")
            if self.host.store.autostart(self.name) != wanted or not wanted:
                self.host.store.set_autostart(self.name, wanted)

    def _changing(self, verb: str) -> _Changing:
        return _Changing(self, verb)

    def _stopped(self, complaint: str) -> PoolDef:
        config, state = self._load()
        if state is not None:
            raise StateError(f"storage pool '{self.name}' is {complaint}")
        assert config is not None
        return config

    def _check_idle(self) -> None:
        jobs = self.jobs()
        if jobs:
            hint = ", ".join(job.describe() for job in jobs[:5])
            raise PoolError(f"pool '{self.name}' has asynchronous jobs running.", hint=hint)

    def _forget(self) -> None:
        """Nothing is left of the pool: neither is of what is known about it."""
        try:
            os.unlink(os.path.join(self.host.index_folder, self.name))
        except OSError:
            pass

    def _sweep(self, definition: PoolDef, everything: bool = True) -> None:
        """Remove what jobs that died left in the pool; with ``everything``, files without a record too."""
        claims = self.host.claims
        backend = self.host.backend(definition.type)

        def undo(job: Job) -> bool:
            volume = backend.volume(definition, job.volume)
            if volume is None:
                return False
            if job.extent is not None and job.extent not in [(start, end) for _, start, end in volume.extents]:
                return False  # it has that name, and is another: somebody who knows nothing of us made it since
            if backend.marks and not backend.is_marked(definition, volume, job.id):
                return False
            backend.delete_volume(definition, volume)
            return True

        notes = claims.sweep(self.name, undo)
        if everything and backend.files and definition.target:
            notes += claims.sweep_parts(definition.target, self.name)
        if everything and backend.marks:
            notes += self._sweep_marked(definition)
        for note in notes:
            self.host.note(note)

    def _sweep_marked(self, definition: PoolDef) -> list[str]:
        """Remove the unfinished volumes of dead jobs that no record tells of: the machine was restarted meanwhile, or
        what the dead had begun came to its end after them."""
        claims = self.host.claims
        notes = []
        try:
            found = self.backend.unfinished(definition)
            known = claims.known() if found else set()
            for volume, mark, made in found:
                # looked at again: its maker takes the mark off before the record
                if claims.is_orphan(mark, made, known) and self.backend.is_marked(definition, volume, mark):
                    self.backend.delete_volume(definition, volume)
                    notes.append(f"the unfinished volume '{volume.name}' was removed from pool '{self.name}'")
        except (CowshedError, OSError):
            pass  # whoever comes next tries again
        return notes

    # ---- volumes

    def claim(
        self,
        kind: str,
        volume: str,
        how: str,
        *,
        beside: str | None = None,
        also: tuple[Pool, str, str] | None = None,
        others: Sequence[str] = (),
        extents: Sequence[tuple[str, int, int]] = (),
        function: str = "virStorageVolCreateXML",
    ) -> Claim:
        """Claim a volume for a job (see jobs.py), after what dead jobs left was removed. ``also`` is another one,
        as (pool, volume, how); ``others`` are more volumes of this pool, claimed as this one. ``extents``: where the
        volume will be, when that is known beforehand. ``function``: libvirt's name of what was asked, for read-only
        hosts.

        Raises ReadOnlyAccessError, StateError when a pool isn't active or a volume is taken.
        """
        self.host.check_change(function)
        wants = [(self.name, volume, how)]
        wants += [(self.name, other, how) for other in others]
        pools = [self]
        if also is not None:
            wants.append((also[0].name, also[1], also[2]))
            if also[0] != self:
                pools.append(also[0])
        pools.sort(key=lambda pool: pool.name)  # in one order everywhere: nobody waits in a circle
        held: list[Lock] = []
        try:
            for pool in pools:
                try:
                    held.append(pool._claiming())
                except HostCallError as error:
                    # who only reads may do so where nothing can be written, not even a lock (see Jobs.claim)
                    if how != READ or error.errno not in (EACCES, EROFS, EPERM):
                        raise
            places = {}
            for pool in pools:
                live = pool.live
                pool._sweep(live, everything=False)
                places[pool.name] = pool.backend.place(live)
            extent = extents[0][1:] if extents else None
            claim = self.host.claims.claim(
                kind, wants, beside=beside, extent=extent,  # type: ignore[arg-type]
                places=[places[name] for name, _, _ in wants],
            )  # fmt: skip
            if how == BUILD and not self.backend.files:
                self._arm(claim, volume)
            return claim
        finally:
            for lock in held:
                lock.__exit__()

    def _arm(self, claim: Claim, volume: str) -> None:
        """The volume has its name from the start: should we die while it is made, it is deleted. Only now, with the
        claim, is it certain that nobody of ours made one of that name meanwhile."""
        try:
            if self.backend.volume(self.live, volume) is not None:
                raise VolumeExistsError(f"storage volume '{volume}' exists already")
            claim.arm()
        except BaseException:
            claim.release()
            raise

    def _claiming(self) -> Lock:
        """The pool's lock, shared, after what its last holder died at was finished."""
        while True:
            lock = self.host.store.claim_lock(self.name)
            lock.__enter__()
            if not lock.stale:
                return lock
            lock.__exit__()
            with self._changing("recover"):
                pass

    def volumes(self) -> list[Volume]:
        """All of them, by name, true now. Raises StateError when the pool isn't active."""
        from .volume import Volume

        found = sorted(self.backend.scan(self.live), key=lambda volume: volume.name)
        return [Volume(self, volume) for volume in found]

    def _file_volumes(self) -> list[VolumeDef]:
        """The volumes that are files: also of a pool that isn't active, where its storage is there all the same."""
        backend = self.backend
        if not backend.files:
            return []
        definition = self.host.store.peek_state(self.name)
        if definition is None or definition.uuid != self.uuid:
            config, state = self._load()
            definition = state or config
            if definition is None or (state is None and not backend.check(definition)):
                return []
        return backend.scan(definition)

    def volume_names(self) -> list[tuple[str, str]]:
        """(name, path) of each volume, by name: cheaper than `volumes`."""
        return sorted(self.backend.names(self.live))

    def volume(self, name: str) -> Volume:
        """Raises MissingVolumeError; StateError when the pool isn't active."""
        from .volume import Volume

        found = self.backend.volume(self.live, name)
        if found is None:
            raise MissingVolumeError(f"no storage vol with matching name '{name}'")
        return Volume(self, found)

    def create_volume(
        self, xml: str | VolumeDef, prealloc_metadata: bool = False, progress: Progress = QUIET
    ) -> Volume:
        """A new volume, listed when it is whole. See volume.py."""
        from .volume import create_volume

        return create_volume(self, xml, prealloc_metadata=prealloc_metadata, progress=progress)

    def clone_volume(
        self,
        xml: str | VolumeDef,
        origin: Volume,
        prealloc_metadata: bool = False,
        reflink: bool = False,
        progress: Progress = QUIET,
    ) -> Volume:
        """A new volume with the contents of ``origin``, which may be of another pool. See volume.py."""
        from .volume import clone_volume

        return clone_volume(self, xml, origin, prealloc_metadata=prealloc_metadata, reflink=reflink, progress=progress)


class _Changing:
    """The pool's lock, exclusively, after what its last holder died at was finished."""

    __slots__ = ("lock", "pool")

    def __init__(self, pool: Pool, verb: str) -> None:
        self.pool = pool
        self.lock = pool.host.store.pool_lock(pool.name, verb)

    def __enter__(self) -> Lock:
        pool = self.pool
        pool._load()  # a pool that isn't there gets no lock file
        self.lock.__enter__()
        try:
            pool.host._recover(pool.name, self.lock)
            pool._load()
        except BaseException:
            self.lock.__exit__()
            raise
        return self.lock

    def __exit__(self, *args: object) -> None:
        self.lock.__exit__()


def build_options(build: bool, overwrite: bool, no_overwrite: bool) -> dict[str, bool] | None:
    """The options for a backend's build; None when nothing is to be built."""
    if overwrite and no_overwrite:
        raise ArgumentError("a pool can't be built with overwrite and no-overwrite at once")
    if not (build or overwrite or no_overwrite):
        return None
    return {"overwrite": overwrite, "no_overwrite": no_overwrite}
