"""Volumes that are files in a directory: what ``dir``, ``fs`` and ``netfs`` pools have in common.

Every entry of the directory that is a regular file, a directory or a block device is a volume, hidden ones too, and
so is a symbolic link to one; names with control characters, FIFOs, sockets, character devices, unreadable files and
our own ``.cowshed-ID.part`` are not. Nothing is opened for a listing but regular files, and of those only what changed
since the index was written.

A symbolic link that leads out of the pool's directory is a volume that can be read; writing to it is refused.
"""

from __future__ import annotations

import os
import stat

from ...errors import CowshedError, DefinitionError, HostCallError, StateError
from ...wire.libvirt.definition import Permissions, VolumeDef, VolumeTarget
from ..jobs import PART_PREFIX, PART_SUFFIX, is_part
from .base import Backend
from .entries import (
    CONTROL,
    describe,
    entries,
    facts_of,
    format_of,
    has_labels,
    is_volume,
    kind_of,
    listed_name,
    number,
    set_permissions,
    sibling_format,
    timestamps_of,
)  # fmt: skip

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from ...block.node import Node
    from ...progress import Progress
    from ...wire.libvirt.definition import PoolDef
    from ..index import Index
    from .probe import Facts

#: of directories that are built, and of volumes, where nobody says another
DIRECTORY_MODE = 0o711
VOLUME_MODE = 0o600

_FORBIDDEN = CONTROL | {"\0", "\t", "\n", "\r", "\x7f"}


class FilesBackend(Backend):
    """Base of the kinds of pool whose volumes are files. Subclasses say how the directory comes to be there."""

    files = True
    volume_formats = (
        "raw",
        ("none", "raw", "dir", "bochs", "cloop", "dmg", "iso", "vpc", "vdi", "fat", "vhd", "ploop", "cow", "qcow",
         "qcow2", "qed", "vmdk"),
    )  # fmt: skip
    #: are the file system's times another machine's?
    foreign_clock = False

    # ---- the pool

    def validate(self, pool: PoolDef) -> None:
        if not pool.target:
            raise DefinitionError("missing storage pool target path")

    def check(self, pool: PoolDef) -> bool:
        return os.path.isdir(folder(pool))

    def start(self, pool: PoolDef) -> None:
        os.close(_open_folder(folder(pool)))

    def build(self, pool: PoolDef, *, overwrite: bool = False, no_overwrite: bool = False) -> None:
        """Make the directory, and its parents; one that is there stays as it is but for what the pool says of it."""
        path = folder(pool)
        parent = os.path.dirname(path.rstrip("/"))
        try:
            if parent:
                os.makedirs(parent, 0o777, exist_ok=True)
        except (OSError, ValueError) as error:
            raise HostCallError(f"cannot create path '{path}'", number(error), path=path) from error
        wanted = pool.permissions or Permissions()
        mode = wanted.mode
        try:
            try:
                os.mkdir(path, DIRECTORY_MODE if mode is None else mode)
                mode = DIRECTORY_MODE if mode is None else mode  # whatever the umask is
            except FileExistsError:
                if not os.path.isdir(path):
                    raise
        except (OSError, ValueError) as error:
            raise HostCallError(f"failed to create directory '{path}'", number(error), path=path) from error
        fd = _open_folder(path)
        try:
            _own(fd, path, wanted)
            if mode is not None:
                try:
                    os.fchmod(fd, mode)
                except OSError as error:
                    text = f"cannot set mode of '{path}' to {mode:04o}"
                    raise HostCallError(text, number(error), path=path) from error
            if pool.cow is not True:
                from .making import disable_cow

                disable_cow(fd, path, demanded=pool.cow is False)
        finally:
            os.close(fd)

    def delete(self, pool: PoolDef, *, zeroed: bool = False) -> None:
        path = folder(pool)
        try:
            os.rmdir(path)
        except (OSError, ValueError) as error:
            raise HostCallError(f"failed to remove pool '{path}'", number(error), path=path) from error

    def refresh(self, pool: PoolDef) -> None:
        path = folder(pool)
        fd = _open_folder(path)
        try:
            figures = os.fstatvfs(fd)
            status = os.fstat(fd)
        except OSError as error:
            raise HostCallError(f"cannot statvfs path '{path}'", number(error), path=path) from error
        finally:
            os.close(fd)
        pool.capacity = figures.f_frsize * figures.f_blocks
        pool.available = figures.f_frsize * figures.f_bfree
        pool.allocation = pool.capacity - pool.available
        if pool.permissions is None:
            pool.permissions = Permissions()
        set_permissions(pool.permissions, status)

    # ---- volumes: names and facts

    def names(self, pool: PoolDef) -> Iterator[tuple[str, str]]:
        path = folder(pool)
        prefix = path + "/"
        me = os.geteuid()
        for entry in entries(path):
            name = entry.name
            if kind_of(entry) is not None and (me == 0 or not entry.is_file() or os.access(entry.path, os.R_OK)):
                yield name, prefix + name

    def scan(self, pool: PoolDef) -> list[VolumeDef]:
        import gc

        # thousands of small objects that all stay: looking through them for garbage again and again finds none
        was = gc.isenabled()
        gc.disable()
        try:
            return self._scan(pool)
        finally:
            if was:
                gc.enable()

    def _scan(self, pool: PoolDef) -> list[VolumeDef]:
        path = folder(pool)
        index = self.index(pool)
        index.load()
        known: dict[str, tuple[os.stat_result, Facts]] = {}
        for entry in entries(path):
            status = kind_of(entry)
            if status is None:
                continue
            if isinstance(status, bool):
                try:
                    status = entry.stat()
                except OSError:  # it went away, or the link's end did
                    continue
            there = facts_of(entry.path, entry.name, status, index)
            if there is not None:
                known[entry.name] = there
        index.keep(known)
        index.save()
        label = has_labels()
        found = []
        prefix = path + "/"
        for name, (status, facts) in known.items():
            volume = describe(prefix + name, name, status, facts, label)
            if facts.backing is not None:
                volume.backing = self._backing(path, facts, lambda sibling: format_of(known.get(sibling)))
            if volume.target.encryption is not None:
                self._add_secret(volume)
            found.append(volume)
        return found

    def volume(self, pool: PoolDef, name: str) -> VolumeDef | None:
        if not listed_name(name):
            return None
        path = folder(pool)
        full = f"{path}/{name}"
        try:
            status = os.stat(full)
        except (OSError, ValueError):
            return None
        if is_volume(status.st_mode) is None:
            return None
        found = facts_of(full, name, status, None)
        if found is None:
            return None
        status, facts = found
        volume = describe(full, name, status, facts, has_labels())
        if facts.backing is not None:
            volume.backing = self._backing(path, facts, lambda sibling: sibling_format(path, sibling))
        if volume.target.encryption is not None:
            self._add_secret(volume)
        return volume

    def place(self, pool: PoolDef) -> str:
        if self.foreign_clock:
            return ""  # a server need not answer
        try:
            status = os.stat(folder(pool))
        except (OSError, ValueError):
            return ""
        return f"{status.st_dev:x}.{status.st_ino:x}"

    def index(self, pool: PoolDef) -> Index:
        """What is known of the pool's files."""
        from ..index import Index

        return Index(os.path.join(self.host.index_folder, pool.name), patient=self.foreign_clock)

    def _add_secret(self, volume: VolumeDef) -> None:
        """The secret whose usage is the volume, as libvirt looks for it at each refresh."""
        encryption = volume.target.encryption
        if encryption is None or encryption.format != "luks":
            return
        try:
            secret = self.host.secrets.by_usage("volume", volume.target.path or "")
        except CowshedError:
            return
        encryption.secrets = [("passphrase", secret.uuid, None)]

    def _backing(self, path: str, facts: Facts, sibling: Callable[[str], str | None]) -> VolumeTarget:
        """The backing file as far as it can be told without opening it.

        Its format, where the image doesn't say it, is known only of another volume of the same pool.
        """
        name = facts.backing or ""
        head, colon, _ = name.partition(":")
        if colon and "/" not in head:  # an address, not a path
            return VolumeTarget(name, "raw")
        full = name if name.startswith("/") else f"{path}/{name}"
        below = VolumeTarget(full, facts.backing_format)
        if below.format is None:
            folder_of, _, last = full.rpartition("/")
            found = sibling(last) if folder_of == path and last else None
            below.format = found or "raw"
        try:
            status = os.stat(full)
        except (OSError, ValueError):
            return below
        below.permissions = set_permissions(Permissions(), status)
        below.timestamps = timestamps_of(status)
        return below

    # ---- volumes: verbs

    def prepare_volume(self, pool: PoolDef, volume: VolumeDef) -> None:
        """Raises StateError for a name that can't be, or is taken by a file; see making.check for the rest."""
        from .making import check

        check_name(volume.name)
        volume.target.path = path = f"{folder(pool)}/{volume.name}"
        volume.key = path
        check(volume)
        try:
            os.lstat(path)
        except FileNotFoundError:
            return
        except OSError as error:
            raise HostCallError(f"cannot create volume '{path}'", number(error), path=path) from error
        raise StateError(f"volume target path '{path}' already exists", path=path)

    def part_path(self, pool: PoolDef, token: str) -> str:
        """Where a volume that is being made stands until it is whole; ``token`` belongs to the job."""
        return f"{folder(pool)}/{PART_PREFIX}{token}{PART_SUFFIX}"

    def create_volume(
        self,
        pool: PoolDef,
        volume: VolumeDef,
        *,
        prealloc_metadata: bool = False,
        progress: Progress,
        part: str | None = None,
    ) -> None:
        from .making import make

        make(volume, part or self._own_part(pool), prealloc_metadata=prealloc_metadata, progress=progress)

    def clone_volume(
        self,
        pool: PoolDef,
        volume: VolumeDef,
        origin: VolumeDef,
        *,
        prealloc_metadata: bool = False,
        reflink: bool = False,
        progress: Progress,
        part: str | None = None,
    ) -> None:
        from .making import make

        make(
            volume, part or self._own_part(pool), prealloc_metadata=prealloc_metadata, progress=progress,
            origin=origin, reflink=reflink,
        )  # fmt: skip

    def _own_part(self, pool: PoolDef) -> str:
        return self.part_path(pool, f"{os.getpid()}-{os.urandom(8).hex()}")

    def delete_volume(self, pool: PoolDef, volume: VolumeDef, *, zeroed: bool = False) -> None:
        """Unlink it (a link itself, not what it leads to); a directory must be empty."""
        path = volume.target.path or ""
        try:
            mode = os.lstat(path).st_mode
            if stat.S_ISDIR(mode):
                if volume.type == "ploop":
                    _remove_ploop(path)
                os.rmdir(path)
                return
        except OSError as error:
            raise HostCallError(f"cannot remove directory '{path}'", number(error), path=path) from error
        if zeroed and stat.S_ISREG(mode):
            from ...progress import QUIET
            from ..wipe import wipe

            with self.open_volume(pool, volume, writable=True) as node:
                wipe(node, "zero", QUIET)
        try:
            os.unlink(path)
        except OSError as error:
            raise HostCallError(f"cannot unlink file '{path}'", number(error), path=path) from error

    def resize_volume(
        self, pool: PoolDef, volume: VolumeDef, capacity: int, *, allocate: bool = False, shrink: bool = False
    ) -> None:
        from .making import resize

        self._check_writable(pool, volume)
        resize(volume, capacity, allocate=allocate, shrink=shrink, home=folder(pool))

    def open_volume(self, pool: PoolDef, volume: VolumeDef, *, writable: bool = False) -> Node:
        """The bytes of the file, whatever format is in it. A file whose disk a machine has open is refused."""
        from .making import must_be_inside, open_bytes

        if writable:
            self._check_writable(pool, volume)
        node = open_bytes(volume, writable)
        if writable:
            try:
                must_be_inside(getattr(node, "fd", -1), folder(pool), volume)
            except BaseException:
                node.close()
                raise
        return node

    def _check_writable(self, pool: PoolDef, volume: VolumeDef) -> None:
        """Raises StateError for a symbolic link that leads out of the pool."""
        path = volume.target.path or ""
        if not os.path.islink(path):
            return
        home = os.path.realpath(folder(pool))
        if not os.path.realpath(path).startswith(home.rstrip("/") + "/"):
            from .making import leads_out

            raise leads_out(volume)


def folder(pool: PoolDef) -> str:
    """The directory of a pool, without a slash at its end."""
    path = pool.target or ""
    return path.rstrip("/") or "/"


def _open_folder(path: str) -> int:
    try:
        return os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except (OSError, ValueError) as error:
        raise HostCallError(f"cannot open directory '{path}'", number(error), path=path) from error


def _own(fd: int, path: str, wanted: Permissions) -> None:
    if wanted.owner != -1 or wanted.group != -1:
        try:
            os.fchown(fd, wanted.owner, wanted.group)
        except (OSError, OverflowError) as error:
            text = f"cannot chown '{path}' to ({wanted.owner}, {wanted.group})"
            raise HostCallError(text, number(error), path=path) from error


# -- names -------------------------------------------------------------------------------------------------------------


def check_name(name: str) -> None:
    """Raises StateError for a name that no new volume can have."""
    if not name:
        raise StateError("volume name cannot be empty")
    if "/" in name:
        raise _bad_name(name, "cannot contain '/'")
    if not _FORBIDDEN.isdisjoint(name):
        raise _bad_name(name, "cannot contain control characters")
    try:
        name.encode("utf-8")
    except UnicodeEncodeError:
        raise _bad_name(name, "is not valid UTF-8") from None
    if is_part(name):
        raise _bad_name(name, "is reserved for volumes that are being made")


def _bad_name(name: str, why: str) -> StateError:
    from ...block.trust import printable

    return StateError(f"volume name '{printable(name)}' {why}", field="name", value=name)


def _remove_ploop(path: str) -> None:
    """Empty the directory of a ploop image, whose parts are files in it."""
    for entry in os.scandir(path):
        if not entry.is_dir(follow_symlinks=False):
            os.unlink(entry.path)
