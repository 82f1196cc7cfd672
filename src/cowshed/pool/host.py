"""One set of pools: libvirt's "connection", without the daemon at its other end."""

from __future__ import annotations

import errno
import os

from ..errors import (
    CowshedError,
    DocumentError,
    HostCallError,
    MissingPoolError,
    MissingVolumeError,
    OperationError,
    PoolError,
    ReadOnlyAccessError,
    StateError,
)
from .jobs import Jobs
from .store import Store, copied

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ..wire.libvirt.definition import PoolDef, PoolSource
    from .backend.base import Backend
    from .events import Events, Follower
    from .jobs import Job
    from .pool import Pool
    from .secrets import Secrets
    from .volume import Volume


class Host:
    """The pools and secrets of this machine, or of this user, or below ``root`` (a directory).

    Root's are in /etc/libvirt and /run/libvirt, anybody else's in $XDG_CONFIG_HOME/libvirt and
    $XDG_RUNTIME_DIR/libvirt; ``session`` chooses. Below ``root`` it is root's layout. ``readonly`` refuses every
    change, in libvirt's words.
    ``recovered`` are lines for people: what a process that died had left unfinished, and what was done about it.
    ``warnings`` are files of the state that were skipped.
    """

    def __init__(self, root: str | None = None, *, readonly: bool = False, session: bool | None = None) -> None:
        self.readonly = readonly
        self.root = root
        if session is None:
            session = root is None and os.geteuid() != 0
        self.session = session
        config, run = _user_directories() if session and root is None else ("/etc/libvirt", "/run/libvirt")
        if root is not None:
            config, run = os.path.join(root, "etc/libvirt"), os.path.join(root, "run/libvirt")
        self.config = config
        self.run = run
        self.store = Store(config, run, session and root is None)
        self.claims = Jobs(self.store.own)
        self.recovered: list[str] = []
        self._backends: dict[str, Backend] = {}
        self._secrets: Secrets | None = None
        self._settled = False

    def __repr__(self) -> str:
        return f"Host(root={self.root!r}, readonly={self.readonly})"

    # ---- what it is made of

    @property
    def warnings(self) -> list[str]:
        return self.store.warnings

    @property
    def secrets(self) -> Secrets:
        if self._secrets is None:
            from .secrets import Secrets

            self._secrets = Secrets(self)
        return self._secrets

    @property
    def log(self) -> Events:
        """The events' file."""
        from .events import Events

        return Events(self.store.own)

    @property
    def index_folder(self) -> str:
        """Where what is known of pools' files is kept."""
        return os.path.join(self.store.own, "index")

    def backend(self, type: str) -> Backend:
        """What serves pools of that type. Raises PoolError when nothing does."""
        found = self._backends.get(type)
        if found is None:
            from .backend.table import make

            found = self._backends[type] = make(self, type)
        return found

    def check_access(self, function: str) -> None:
        """Raises ReadOnlyAccessError when this host is read-only; ``function`` is libvirt's name of what was asked."""
        if self.readonly:
            raise ReadOnlyAccessError(f"read only access prevents {function}")

    def check_change(self, function: str) -> None:
        """As `check_access`, and StateError when a live libvirt daemon keeps the pools."""
        self.check_access(function)
        self.store.check_owner()
        self.store.prepare()
        self.settle()

    def note(self, line: str) -> None:
        """Tell that something was recovered."""
        self.recovered.append(line)
        self.log.add("recovered", text=line)

    # ---- finding pools

    def pools(self) -> list[Pool]:
        """All of them, by name. Files that can't be read as a pool are left out, and told in ``warnings``."""
        from .pool import Pool

        self._try_to_settle()
        found = []
        for name in self.store.names():
            definition = self.store.peek_state(name) or self.store.load_config(name)
            if definition is not None:
                found.append(Pool(self, definition))
        return found

    def pool(self, name: str) -> Pool:
        """Raises MissingPoolError."""
        from .pool import Pool

        self._try_to_settle()
        definition = None
        if name and "/" not in name and "\0" not in name:
            definition = self.store.peek_state(name) or self.store.load_config(name)
        if definition is None:
            raise MissingPoolError(f"no storage pool with matching name '{name}'")
        return Pool(self, definition)

    def pool_by_uuid(self, uuid: str) -> Pool:
        """Raises MissingPoolError."""
        wanted = uuid.strip().lower().replace("-", "")
        for pool in self.pools():
            if (pool.uuid or "").replace("-", "") == wanted:
                return pool
        raise MissingPoolError(f"no storage pool with matching uuid '{uuid}'")

    def pool_by_target(self, path: str) -> Pool:
        """The active pool whose volumes appear under that directory. Raises MissingPoolError."""
        from ..wire.libvirt.common import sanitize

        clean = sanitize(path)
        for pool in self.pools():
            try:
                if pool.live.target == clean:
                    return pool
            except PoolError:
                continue  # it isn't active, or is gone by now
        also = f" ({clean})" if clean != path else ""
        raise MissingPoolError(f"no storage pool with matching target path '{path}'{also}")

    # ---- finding volumes

    def volume_by_path(self, path: str) -> Volume:
        """Of any active pool. Raises MissingVolumeError."""
        from ..wire.libvirt.common import sanitize

        clean = sanitize(path)
        found = self._find_volume(clean, by_key=False)
        if found is None:
            also = f" ({clean})" if clean != path else ""
            raise MissingVolumeError(f"no storage vol with matching path '{path}'{also}")
        return found

    def volume_by_key(self, key: str) -> Volume:
        """Of any active pool. Raises MissingVolumeError."""
        found = self._find_volume(key, by_key=True)
        if found is None:
            raise MissingVolumeError(f"no storage vol with matching key {key}")
        return found

    def _find_volume(self, text: str, *, by_key: bool) -> Volume | None:
        from .volume import Volume

        for pool in self.pools():
            try:
                live = pool.live
                backend = pool.backend
                if backend.files:  # path and key are one, and say the directory: no need to look through it
                    folder, _, name = text.rpartition("/")
                    if not name or folder != (live.target or "").rstrip("/"):
                        continue
                    volume = backend.volume(live, name)
                    if volume is not None:
                        return Volume(pool, volume)
                    continue
                for volume in backend.scan(live):
                    if (volume.key if by_key else volume.target.path) == text:
                        return Volume(pool, volume)
            except PoolError:
                continue  # a pool that isn't active, or is out of order, hides nobody else's volumes
        return None

    # ---- making pools

    def define(self, xml: str | PoolDef) -> Pool:
        """A persistent pool. One that is there by that name and uuid gets the new definition; while it is active, from
        the time when it is stopped.

        Without a uuid, a definition that is otherwise equal to what is there changes nothing (libvirt refuses it).
        Raises OperationError when name, uuid or source is taken; what parsing raises.
        """
        from .pool import Pool

        self.check_change("virStoragePoolDefineXML")
        new = self._parsed(xml)
        with self.store.pool_lock(new.name, "define") as lock:
            self._recover(new.name, lock)
            with self.store.definitions_lock():
                config, state = self.store.load(new.name)
                there = config or state
                if new.uuid is None and there is not None:
                    new.uuid = there.uuid
                    if config != new:
                        new.uuid = new_uuid()
                self._check_free(new, there)
                if config == new:
                    return Pool(self, new)
                self.store.save_config(new)
        pool = Pool(self, new)
        self.emit(pool, "Defined")
        return pool

    def create(
        self, xml: str | PoolDef, build: bool = False, overwrite: bool = False, no_overwrite: bool = False
    ) -> Pool:
        """A transient pool, started, after it was built if asked for (``overwrite`` and ``no_overwrite`` build too).

        Raises as `define`; StateError when that pool is active; and what the storage raises: nothing is left then.
        """
        from .pool import Pool, build_options

        options = build_options(build, overwrite, no_overwrite)
        self.check_change("virStoragePoolCreateXML")
        new = self._parsed(xml)
        backend = self.backend(new.type)
        if new.uuid is None:
            new.uuid = new_uuid()
        with self.store.pool_lock(new.name, "create", new) as lock:
            self._recover(new.name, lock)
            with self.store.definitions_lock():
                config, state = self.store.load(new.name)
                there = config or state
                self._check_free(new, there)
                if state is not None:
                    raise StateError(f"pool is already active as '{new.name}'")
            pool = Pool(self, new)
            if options is not None:
                backend.build(copied(new), **options)
            pool.bring_up(new, lock)
        self.emit(pool, "Started")
        return pool

    def _parsed(self, xml: str | PoolDef) -> PoolDef:
        """A definition of our own, complete, without figures."""
        from ..wire.libvirt.pool import format_pool, parse_pool

        # A PoolDef that somebody made goes the same way as text: what is stored must be what can be read again.
        new = parse_pool(xml if isinstance(xml, str | bytes) else format_pool(xml, inactive=True))
        if "\n" in new.name:
            raise DocumentError("invalid char in name: \n")
        if len(os.fsencode(new.name)) > 250:  # its files' names are longer by up to five
            path = os.path.join(self.store.config, new.name + ".xml")
            raise HostCallError(f"Failed to create file '{path}'", errno.ENAMETOOLONG, path=path)
        self.backend(new.type).validate(new)
        return new

    def _check_free(self, new: PoolDef, there: PoolDef | None) -> None:
        """Raises OperationError when name, uuid or source belong to another pool. Gives a uuid where there is none."""
        # first what is being created: it may be done, and no longer reserved, by the time when the others were read
        reserved = [pool for pool in self.store.reserved() if pool.name != new.name]
        others: list[PoolDef] = []
        for name in self.store.names():
            if name != new.name:
                others += [pool for pool in self.store.load(name) if pool is not None]
        others += reserved
        # in this order, as libvirt does
        key = self.backend(new.type).source_key(new)
        for pool in others if key is not None else ():
            try:
                if self.backend(pool.type).source_key(pool) != key:
                    continue
            except CowshedError:
                continue  # of a kind that is unknown here
            raise OperationError(f"Storage source conflict with pool: '{pool.name}'")
        if new.uuid is None:
            new.uuid = new_uuid()
        for pool in others:
            if pool.uuid == new.uuid:
                raise OperationError(f"pool '{pool.name}' is already defined with uuid {new.uuid}")
        if there is not None and there.uuid != new.uuid:
            raise _taken(there)

    def _recover(self, name: str, lock: object) -> None:
        """Finish what the last holder of the pool's lock died at. Callers hold it exclusively."""
        from .store import Lock

        assert isinstance(lock, Lock)
        stale = lock.stale
        if not stale:
            return
        if stale.get("verb") in ("destroy", "refresh", "?"):
            state = self.store.load_state(name)
            if state is not None and not self.is_up(state):
                self.store.remove_state(name)
                self.note(f"pool '{name}' was being stopped when its process died: it is stopped now")
        elif stale.get("undo") is True and self.store.load_state(name) is None:
            self._undo_start(name, stale)
        lock.stale = {}
        lock.note(lock.verb)

    def _undo_start(self, name: str, stale: dict[str, object]) -> None:
        """Take down again what was not up before a start that was cut off."""
        from ..wire.libvirt.pool import parse_pool

        try:
            text = stale.get("pool")
            pool = parse_pool(str(text)) if text else self.store.load_config(name)
            if pool is None or not self.is_up(pool):
                return
            self.backend(pool.type).stop(pool)
        except (CowshedError, OSError):
            return  # in use: whoever starts the pool takes it as it is
        self.note(f"pool '{name}' was being started when its process died: it was stopped again")

    def is_up(self, pool: PoolDef) -> bool:
        """Is the storage of a pool there, whoever brought it up?"""
        try:
            return self.backend(pool.type).check(pool)
        except (CowshedError, OSError):
            return False

    # ---- the rest

    def find_sources(self, type: str, srcspec_xml: str | None = None) -> list[PoolSource]:
        """What could become a pool of that type; ``srcspec_xml`` is a <source> that says where to look."""
        self.check_access("virConnectFindStoragePoolSources")
        backend = self.backend(type)
        source = None
        if srcspec_xml is not None:
            from ..wire.libvirt.sources import parse_source

            source = parse_source(srcspec_xml, type)
        return backend.find_sources(source)

    def capabilities(self) -> str:
        """libvirt's document of what each type of pool can do."""
        from ..wire.libvirt.capabilities import format_capabilities
        from .backend.table import KINDS, supported

        return format_capabilities([type for type in KINDS if supported(type)])

    def events(self, since: float | None = None, timeout: float | None = None) -> Follower:
        """What happens to pools and secrets, in any process, from now on or from a time ``since``; see events.py."""
        return self.log.follow(since, timeout)

    def jobs(self) -> list[Job]:
        """What runs now, of all processes."""
        return self.claims.running()

    def autostart(self, force: bool = False) -> list[tuple[str, PoolError | None]]:
        """Start the pools that are marked so and not active: (name, what went wrong) of each. Once after the machine
        came up, unless ``force``."""
        self.check_change("virStoragePoolCreate")
        from . import locks
        from .store import call_error, replace

        self.store.prepare()
        gate = locks.open_locked(os.path.join(self.store.own, "autostart.lock"))
        assert gate is not None
        try:
            if os.path.exists(self.store.stamp) and not force:
                return []
            done: list[tuple[str, PoolError | None]] = []
            for pool in self.pools():
                if not pool.autostart or pool.active:
                    continue
                try:
                    pool.start()
                    done.append((pool.name, None))
                except PoolError as error:
                    done.append((pool.name, error))
                except CowshedError as error:
                    done.append((pool.name, PoolError(str(error))))
            try:
                replace(self.store.stamp, b"")
            except OSError as error:
                raise call_error("cannot create", self.store.stamp, error) from error
            return done
        finally:
            os.close(gate)

    def emit(self, pool: Pool, event: str) -> None:
        self.log.add("lifecycle", pool=pool.name, uuid=pool.uuid, event=event)

    def _try_to_settle(self) -> None:
        """For those who only look: what can't be written down now is for the next to find."""
        if not self._settled:
            try:
                self.settle()
            except (PoolError, OSError):
                pass

    def settle(self) -> None:
        """Look once whether what is said to be active still is, when the machine was restarted since (and the state,
        unlike /run, was not), or another program left it."""
        if self._settled:
            return
        store = self.store
        if self.readonly or not os.path.isdir(store.state) or store.owner() is not None:
            return
        if store.same_boot():
            self._settled = True
            return
        if not os.access(store.state, os.W_OK):
            return
        self._settled = True
        from .backend.table import supported
        from .store import names, read, remove

        with store.definitions_lock():
            if store.same_boot():
                return
            for name in names(store.state):
                state = store.load_state(name)
                # of a kind that is unknown here it can't be told: another program's, it stays
                if state is not None and supported(state.type) and not self.is_up(state):
                    store.remove_state(name)
                    self.note(f"pool '{name}' is not active any more")
            if read(os.path.join(store.own, "boot")) is not None:
                remove(store.stamp)
            store.mark_boot()


def _taken(there: PoolDef) -> OperationError:
    return OperationError(f"pool '{there.name}' already exists with uuid {there.uuid}")


def new_uuid() -> str:
    """A random uuid (RFC 4122, version 4)."""
    raw = bytearray(os.urandom(16))
    raw[6] = raw[6] & 0x0F | 0x40
    raw[8] = raw[8] & 0x3F | 0x80
    text = raw.hex()
    return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"


def _user_directories() -> tuple[str, str]:
    """(configuration, run) of a user, where libvirt looks."""
    home = os.path.expanduser("~")
    config = os.environ.get("XDG_CONFIG_HOME") or os.path.join(home, ".config")
    run = os.environ.get("XDG_RUNTIME_DIR") or os.environ.get("XDG_CACHE_HOME") or os.path.join(home, ".cache")
    return os.path.join(config, "libvirt"), os.path.join(run, "libvirt")
