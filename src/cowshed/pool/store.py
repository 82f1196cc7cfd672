"""State on disk, in libvirt's layout: definitions that persist, what is active, what starts by itself; and the locks.

    CONFIG/storage/NAME.xml             a persistent pool
    CONFIG/storage/autostart/NAME.xml   symbolic link to it
    STATE/NAME.xml                      an active pool, inside <poolstate>
    STATE/autostarted                   autostart has been run since the machine came up
    STATE/cowshed/                      ours alone: lock/, jobs/, index/, events, boot

STATE is RUN/storage for root and RUN/storage/run for a user, as libvirt has it. Every file is replaced whole. Reading
takes no lock: a reader sees the file before a change or after it.
"""

from __future__ import annotations

import errno
import os

from ..errors import CowshedError, HostCallError, StateError
from . import locks
from .machine import boot
from .record import digest, dump, load

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ..wire.libvirt.definition import PoolDef

#: libvirt's own limit of a configuration file
_LARGEST = 10 << 20
#: seconds to wait for another process's verb on the same pool, and for one that may take long
_PATIENCE = 15.0
_SHORT_PATIENCE = 1.0
_LONG_VERBS = ("build", "start", "create")
_TEMPORARY = ".cowshed-"
_TEMPORARY_END = ".new"


def replace(path: str, data: bytes, mode: int = 0o600) -> None:
    """Write a file whole or not at all, and have it on the disk. Raises OSError."""
    folder = os.path.dirname(path)
    while True:
        # of one length whatever the name is: a name may be as long as file systems allow
        temporary = os.path.join(folder, f"{_TEMPORARY}{os.urandom(8).hex()}{_TEMPORARY_END}")
        fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
        try:
            locks.take(fd)
            view = memoryview(data)
            while view:
                view = view[os.write(fd, view) :]
            os.fsync(fd)
            os.rename(temporary, path)
        except FileNotFoundError:
            continue  # taken for the leftover of a dead process before we had locked it
        except BaseException:
            try:
                os.unlink(temporary)
            except OSError:
                pass
            raise
        finally:
            os.close(fd)
        break
    sync(folder)
    _sweep(folder)


def save(path: str, text: str) -> None:
    """Write a definition whole, its directory made if need be. Raises HostCallError."""
    try:
        os.makedirs(os.path.dirname(path), 0o755, exist_ok=True)
        replace(path, text.encode("utf-8", "surrogateescape"))
    except OSError as error:
        raise call_error("Failed to create file", path, error) from error


def sync(folder: str) -> None:
    """Have a directory's entries on the disk."""
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.EBADF, errno.EROFS):
            raise
    finally:
        os.close(fd)


def _sweep(folder: str) -> None:
    """Remove temporary files whose writers died."""
    for name in os.listdir(folder):
        if name.startswith(_TEMPORARY) and name.endswith(_TEMPORARY_END):
            path = os.path.join(folder, name)
            try:
                fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
            except OSError as error:
                if error.errno == errno.ELOOP:
                    os.unlink(path)  # a link on its way to its name
                continue
            try:
                if not locks.is_locked(fd):
                    os.unlink(path)
            except OSError:
                pass
            finally:
                os.close(fd)


def remove(path: str) -> bool:
    """Remove a file for good; False when it was not there. Raises OSError."""
    try:
        os.unlink(path)
    except FileNotFoundError:
        return False
    sync(os.path.dirname(path))
    return True


def read(path: str) -> bytes | None:
    """A small file's contents; None when it isn't there. Raises OSError, CowshedError for one that is too large."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except (FileNotFoundError, NotADirectoryError):
        return None
    try:
        pieces = []
        size = 0
        while piece := os.read(fd, 65536):
            pieces.append(piece)
            size += len(piece)
            if size > _LARGEST:
                raise CowshedError(f"larger than {_LARGEST} bytes")
        return b"".join(pieces)
    finally:
        os.close(fd)


def names(folder: str) -> list[str]:
    """NAME of each NAME.xml there, sorted."""
    try:
        entries = os.listdir(folder)
    except OSError:
        return []
    return sorted(entry[:-4] for entry in entries if entry.endswith(".xml") and len(entry) > 4)


class Store:
    """One tree of state. ``config``, ``run``: libvirt's directories; ``session``: a user's, not the system's."""

    def __init__(self, config: str, run: str, session: bool = False) -> None:
        self.config = os.path.join(config, "storage")
        self.links = os.path.join(self.config, "autostart")
        self.state = os.path.join(run, "storage", "run") if session else os.path.join(run, "storage")
        self.own = os.path.join(self.state, "cowshed")
        self.lock_folder = os.path.join(self.own, "lock")
        #: files that were skipped, and why; one line each
        self.warnings: list[str] = []
        #: path -> what `peek_state` read there last, and what it means
        self._peeked: dict[str, tuple[bytes, PoolDef]] = {}

    # ---- definitions

    def names(self) -> list[str]:
        """Of all pools, persistent or active; sorted."""
        # What is active first: a transient pool that is defined and stopped meanwhile is found as a persistent one,
        # and no persistent one can become anything else before it is stopped.
        active = names(self.state)
        return sorted({*active, *names(self.config)})

    def load(self, name: str) -> tuple[PoolDef | None, PoolDef | None]:
        """(the persistent definition, the active one); None for what there isn't."""
        active = self.load_state(name)  # first, as in `names`
        return self.load_config(name), active

    def load_config(self, name: str) -> PoolDef | None:
        return self._load(os.path.join(self.config, name + ".xml"), name)

    def load_state(self, name: str) -> PoolDef | None:
        return self._load(os.path.join(self.state, name + ".xml"), name, active=True)

    def peek_state(self, name: str) -> PoolDef | None:
        """As `load_state`, for who only looks: while the file says the same, it is the same object again."""
        path = os.path.join(self.state, name + ".xml")
        try:
            data = read(path)
        except (CowshedError, OSError):
            data = None
        if data is None:
            return self.load_state(name)  # which tells what is wrong
        known = self._peeked.get(path)
        if known is not None and known[0] == data:
            return known[1]
        found = self._load(path, name, active=True, data=data)
        if found is not None:
            self._peeked[path] = data, found
        return found

    def _load(self, path: str, name: str, *, active: bool = False, data: bytes | None = None) -> PoolDef | None:
        """``data``: what was read at ``path`` already."""
        from ..wire.libvirt.pool import parse_pool, parse_pool_state

        try:
            if data is None:
                data = read(path)
            if data is None:
                return None
            pool = parse_pool_state(data) if active else parse_pool(data)
        except (CowshedError, OSError, UnicodeError) as error:
            self.warn(path, str(error))
            return None
        if pool.name != name:
            self.warn(path, f"Storage pool config filename '{path}' does not match pool name '{pool.name}'")
            return None
        if pool.uuid is None:  # written by hand: one that stays the same, and is kept from the next definition on
            digits = digest(os.fsencode(name), 16)
            pool.uuid = f"{digits[:8]}-{digits[8:12]}-4{digits[13:16]}-8{digits[17:20]}-{digits[20:]}"
        return pool

    def warn(self, path: str, why: str) -> None:
        """A file is skipped."""
        line = f"'{path}' is skipped: {why}"
        if line not in self.warnings:
            self.warnings.append(line)

    def save_config(self, pool: PoolDef) -> None:
        """Raises HostCallError."""
        from ..wire.libvirt.pool import format_pool_file

        save(os.path.join(self.config, pool.name + ".xml"), format_pool_file(pool))

    def save_state(self, pool: PoolDef) -> None:
        """Raises HostCallError."""
        from ..wire.libvirt.pool import format_pool_state

        save(os.path.join(self.state, pool.name + ".xml"), format_pool_state(pool))

    def remove_config(self, name: str) -> None:
        """With the autostart link, which goes first: left over, it would start the next pool of that name."""
        for path, what in (
            (os.path.join(self.links, name + ".xml"), "Failed to delete autostart link"),
            (os.path.join(self.config, name + ".xml"), "cannot remove config"),
        ):
            try:
                remove(path)
            except OSError as error:
                raise call_error(what, path, error) from error

    def remove_state(self, name: str) -> None:
        path = os.path.join(self.state, name + ".xml")
        try:
            remove(path)
        except OSError as error:
            raise call_error("Failed to unlink state file", path, error) from error

    # ---- autostart

    def autostart(self, name: str) -> bool:
        """Does the link lead to the pool's definition?"""
        try:
            there = os.stat(os.path.join(self.links, name + ".xml"))
            mine = os.stat(os.path.join(self.config, name + ".xml"))
        except OSError:
            return False
        return (there.st_dev, there.st_ino) == (mine.st_dev, mine.st_ino)

    def set_autostart(self, name: str, wanted: bool) -> None:
        """Raises HostCallError."""
        link = os.path.join(self.links, name + ".xml")
        target = os.path.abspath(os.path.join(self.config, name + ".xml"))
        try:
            if not wanted:
                remove(link)
                return
            os.makedirs(self.links, 0o755, exist_ok=True)
            temporary = os.path.join(self.links, f"{_TEMPORARY}{os.urandom(8).hex()}{_TEMPORARY_END}")
            os.symlink(target, temporary)
            os.rename(temporary, link)
            sync(self.links)
            _sweep(self.links)
        except OSError as error:
            what = (
                f"Failed to create symlink '{link}' to '{target}'" if wanted else f"Failed to delete symlink '{link}'"
            )
            raise HostCallError(what, error.errno or errno.EIO, path=link) from error

    @property
    def stamp(self) -> str:
        return os.path.join(self.state, "autostarted")

    # ---- libvirt's daemon

    def owner(self) -> int | None:
        """The process id of a libvirt daemon that keeps this state (0: it can't be told); None when there is none."""
        return locks.pid_file_holder(os.path.join(self.state, "driver.pid"))

    def check_owner(self) -> None:
        """Raises StateError when the state is a live daemon's to change."""
        pid = self.owner()
        if pid is not None:
            whose = f"libvirtd (process {pid})" if pid else "libvirtd"
            raise StateError(
                f"the storage pools are managed by {whose}",
                hint="stop it (libvirtd or virtstoraged) to change pools without it, or change them through it",
            )

    # ---- locks

    def prepare(self) -> None:
        """Make the directories of our own. Raises HostCallError."""
        if os.path.isdir(self.lock_folder):
            return
        try:
            os.makedirs(self.state, 0o755, exist_ok=True)
            os.makedirs(self.lock_folder, 0o755, exist_ok=True)
        except OSError as error:
            raise call_error("cannot create directory", self.lock_folder, error) from error

    def definitions_lock(self) -> Lock:
        """Whoever checks names, uuids and sources against all other pools holds it until its own is written."""
        self.prepare()
        return Lock(os.path.join(self.own, "definitions.lock"), None, "define", None)

    def pool_lock(self, name: str, verb: str, pool: PoolDef | None = None) -> Lock:
        """The pool's lock, exclusively, for a lifecycle ``verb``; ``pool`` is a definition that others must heed
        already. Raises StateError when another process holds it too long."""
        self.prepare()
        return Lock(self._lock_path(name), name, verb, pool, self._homes(name))

    def claim_lock(self, name: str) -> Lock:
        """The pool's lock, shared: while it is held the pool's state stays."""
        self.prepare()
        return Lock(self._lock_path(name), name, "", None, self._homes(name))

    def _homes(self, name: str) -> tuple[str, str]:
        """Where the pool's definitions are while there is a pool."""
        return os.path.join(self.state, name + ".xml"), os.path.join(self.config, name + ".xml")

    def _lock_path(self, name: str) -> str:
        return os.path.join(self.lock_folder, name + ".lock")

    def activity(self, name: str) -> str:
        """The verb that a live process is at with that pool ("start", "build" …), or "" (nobody, or a quick one)."""
        try:
            fd = os.open(self._lock_path(name), os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            return ""
        try:
            return str(_record(fd).get("verb", "")) if locks.is_locked(fd, locks.SHARED) else ""
        except OSError:
            return ""
        finally:
            os.close(fd)

    def reserved(self) -> list[PoolDef]:
        """Definitions of pools that are being created right now, by live processes."""
        from ..wire.libvirt.pool import parse_pool

        found = []
        try:
            entries = os.listdir(self.lock_folder)
        except OSError:
            return []
        for entry in entries:
            try:
                fd = os.open(os.path.join(self.lock_folder, entry), os.O_RDONLY | os.O_CLOEXEC)
            except OSError:
                continue
            try:
                text = _record(fd).get("pool") if locks.is_locked(fd, locks.SHARED) else None
                if text:
                    found.append(parse_pool(str(text)))
            except (OSError, CowshedError):
                continue
            finally:
                os.close(fd)
        return found

    # ---- since when

    def same_boot(self) -> bool:
        """Has the active pools' state been looked at since the machine came up?"""
        try:
            return read(os.path.join(self.own, "boot")) == boot().encode()
        except (OSError, CowshedError):
            return False

    def mark_boot(self) -> None:
        self.prepare()
        try:
            replace(os.path.join(self.own, "boot"), boot().encode())
        except OSError as error:
            raise call_error("cannot create", os.path.join(self.own, "boot"), error) from error


class Lock:
    """A lock that is held while the context lasts. ``stale`` is what the last holder was at when it died, {} if it did
    not: that verb is to be finished or undone, and the own one noted, before anything else.

    The file of a lock goes when none of ``homes`` is there as the lock is given back: the pool is gone, or it went
    between the moment when it was looked up and the moment when its lock was had.
    """

    __slots__ = ("_fd", "_homes", "name", "path", "pool", "stale", "undo", "verb")

    def __init__(
        self, path: str, name: str | None, verb: str, pool: PoolDef | None, homes: tuple[str, ...] = ()
    ) -> None:
        self.path = path
        self._homes = homes
        self.name = name
        self.verb = verb
        self.pool = pool
        self.stale: dict[str, object] = {}
        #: is what a dead process brought up to be taken down again?
        self.undo = False
        self._fd = -1

    def __enter__(self) -> Lock:
        kind = locks.EXCLUSIVE if self.verb else locks.SHARED
        try:
            fd = locks.open_locked(self.path, kind, timeout=_SHORT_PATIENCE)
            if fd is None:
                self._refuse(_LONG_VERBS)
                fd = locks.open_locked(self.path, kind, timeout=_PATIENCE)
        except OSError as error:
            raise call_error("cannot lock", self.path, error) from error
        if fd is None:
            self._refuse(None)
        assert fd is not None
        self._fd = fd
        if self.name is not None:
            self.stale = _record(fd)
            if self.verb and not self.stale:
                self.note(self.verb)
        return self

    def note(self, verb: str) -> None:
        """Say what is going on, for others to see, and to be found should this process die."""
        from ..wire.libvirt.pool import format_pool

        text = None if self.pool is None else format_pool(self.pool, inactive=True)
        record = dump({"verb": verb, "pid": os.getpid(), "pool": text, "undo": self.undo})
        try:
            os.ftruncate(self._fd, 0)
            os.pwrite(self._fd, record, 0)
            if os.fstat(self._fd).st_size != len(record):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        except OSError as error:
            fd, self._fd = self._fd, -1
            os.close(fd)
            raise call_error("cannot write", self.path, error) from error

    def __exit__(self, *args: object) -> None:
        if self._fd < 0:
            return
        fd, self._fd = self._fd, -1
        try:
            if self.name is not None and self.verb:
                os.ftruncate(fd, 0)
            if self._homes and not any(map(os.path.lexists, self._homes)):
                # Who unlinks it has it alone, and what a dead holder left to be finished is not thrown away.
                if self.verb or (not self.stale and locks.take(fd)):
                    os.unlink(self.path)
        except OSError:
            pass
        os.close(fd)

    def _refuse(self, verbs: tuple[str, ...] | None) -> None:
        """Raises StateError when the holder is at one of ``verbs`` (None: whatever it is at)."""
        record: dict[str, object] = {}
        try:
            fd = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC)
            try:
                record = _record(fd)
            finally:
                os.close(fd)
        except OSError:
            pass
        verb = str(record.get("verb", ""))
        if verbs is not None and verb not in verbs:
            return
        hint = f"process {record['pid']}: {verb}" if "pid" in record else None
        if self.name is None:
            raise StateError("another process is changing the storage pools", hint=hint)
        if verb in _LONG_VERBS:
            raise StateError(f"storage pool '{self.name}' is starting up", hint=hint)
        raise StateError(f"storage pool '{self.name}' is being changed by another process", hint=hint)


def _record(fd: int) -> dict[str, object]:
    data = os.pread(fd, _LARGEST, 0)
    if not data:
        return {}
    try:
        found = load(data)
    except ValueError:
        return {"verb": "?"}  # cut off while it was written: nothing had been done yet
    return found if isinstance(found, dict) else {}


def copied(pool: PoolDef) -> PoolDef:
    """A definition that shares nothing with ``pool``."""
    from copy import deepcopy

    return deepcopy(pool)


def call_error(doing: str, path: str, error: OSError) -> HostCallError:
    """A HostCallError that names the file: "DOING 'PATH': Permission denied"."""
    return HostCallError(f"{doing} '{path}'", error.errno or errno.EIO, path=path)
