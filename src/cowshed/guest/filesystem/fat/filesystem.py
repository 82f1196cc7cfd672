"""Reading a FAT file system as Linux' vfat driver shows it to root: names, modes, sizes, links and times."""

from __future__ import annotations

import errno
import stat as _stat

from ....errors import CorruptError
from ..base import FileSystem, GuestError, Stat, StatVfs
from . import directory as dirs
from . import name as names
from . import stamp
from .boot import Boot
from .directory import Directory, Entry
from .table import Runs, Table

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from ....block.node import Node

ROOT = 1
#: entries of unchanged directories that stay in memory
_KEPT = 200_000
_WRITE = 0o222


class FatFileSystem(FileSystem):
    """A FAT12, FAT16 or FAT32 file system.

    An inode's number is the place of its short entry on the device in units of 32 bytes; one that was renamed keeps
    the number that it had. The root directory is 1.
    """

    kind = "vfat"
    root = ROOT

    def __init__(self, node: Node, *, writable: bool = False) -> None:
        """Raises ForeignError, CorruptError, HostError."""
        super().__init__(node, writable=writable)
        self.boot = Boot(node)
        if writable and self.boot.total > node.size:
            raise CorruptError(
                f"The FAT file system is longer than its device: {self.boot.total} of {node.size} bytes",
                path=node.filename, layer="FAT boot sector", field="BPB_TotSec", value=self.boot.total, limit=node.size,
            )  # fmt: skip
        self.bits = self.boot.bits
        self.wide = self.bits == 32
        self.block_size = self.boot.cluster_size
        self._reset()
        self._read_names()

    def _reset(self) -> None:
        """Forget everything that was read."""
        self.table = Table(self.node, self.boot)
        self._directories: dict[int, Directory] = {}
        #: where each part of a directory that was seen begins -> the directory
        self._owners: dict[int, int] = {}
        self._loaded = 0
        #: first cluster of each directory seen -> its inode, and the parent's
        self._homes: dict[int, tuple[int, int]] = {self.boot.root_cluster: (ROOT, ROOT)}
        self._chains: dict[int, Runs] = {}
        #: of files that were renamed: number -> place now, and back
        self._moved: dict[int, int] = {}
        self._numbers: dict[int, int] = {}

    def _read_names(self) -> None:
        root = self._directory(ROOT)
        slot = dirs.label_slot(root.data)
        self.label = self._label_text(bytes(root.data[slot * 32 : slot * 32 + 11])) if slot is not None else ""
        number = self.boot.volume_id
        self.uuid = f"{number >> 16:04X}-{number & 0xFFFF:04X}" if number else ""

    @staticmethod
    def _label_text(raw: bytes) -> str:
        if raw[0] == 0x05:
            raw = b"\xe5" + raw[1:]
        return raw.decode("cp437").rstrip(" ").rstrip("\0")

    # ---- from numbers to entries

    def _place(self, ino: int) -> int:
        """Where an inode's entry lies on the device."""
        return self._moved.get(ino, ino) * 32

    def _number(self, place: int) -> int:
        return self._numbers.get(place // 32, place // 32)

    def _block(self, place: int) -> int:
        """Where the part of a directory begins that ``place`` lies in."""
        boot = self.boot
        if place < boot.data_start:
            return boot.root_start
        return place - (place - boot.data_start) % boot.cluster_size

    def _entry(self, ino: int) -> Entry:
        """Raises GuestError ENOENT for numbers behind which there is no entry (any more)."""
        place = self._place(ino)
        boot = self.boot
        low = boot.data_start if self.wide else boot.root_start
        if not low <= place < boot.data_start + boot.clusters * boot.cluster_size:
            raise GuestError(errno.ENOENT)
        holder = self._directories.get(self._owners.get(self._block(place), 0))
        if holder is not None:
            at = self._slot(holder, place) * 32
            raw = bytes(holder.data[at : at + 32])
        else:
            raw = self.node.read(place, 32)
        if raw[0] in (0, dirs.DELETED) or raw[11] & dirs.VOLUME:
            raise GuestError(errno.ENOENT)
        return Entry(raw, self.wide)

    def _slot(self, holder: Directory, place: int) -> int:
        before = 0
        for offset, length in holder.places:
            if offset <= place < offset + length:
                return (before + place - offset) // 32
            before += length
        raise GuestError(errno.ENOENT)

    def _chain(self, start: int, most: int | None = None) -> Runs:
        """A file's or directory's clusters, at least ``most`` of them if there are so many."""
        runs = self._chains.get(start)
        if runs is None or (not runs.whole and (most is None or runs.length < most)):
            runs = self.table.chain(start, most)
            if len(self._chains) > 1000:
                self._chains.clear()
            self._chains[start] = runs
        return runs

    def _directory(self, ino: int) -> Directory:
        """Raises GuestError ENOTDIR, CorruptError."""
        found = self._directories.get(ino)
        if found is not None:
            return found
        boot = self.boot
        if ino == ROOT:
            start = boot.root_cluster
        else:
            entry = self._entry(ino)
            if not entry.is_directory:
                raise GuestError(errno.ENOTDIR)
            start = entry.start
            if not self.table.valid(start):
                raise self._damage(ino, "DIR_FstClus", start, "a directory without a cluster")
        places: list[tuple[int, int]] = []
        if start:
            runs = self.table.chain(start, dirs.LIMIT // boot.cluster_size + 1)
            if runs.length * boot.cluster_size > max(dirs.LIMIT, boot.cluster_size):
                raise self._damage(ino, "directory", runs.length, "a directory longer than 65536 entries")
            places = [
                (boot.cluster_at(cluster), boot.cluster_size)
                for first, count in zip(runs.starts, runs.counts, strict=True)
                for cluster in range(first, first + count)
            ]
            pieces = [
                self.node.read(boot.cluster_at(first), count * boot.cluster_size)
                for first, count in zip(runs.starts, runs.counts, strict=True)
            ]
            data = bytearray(b"".join(pieces))
        else:
            places = [(boot.root_start, boot.root_entries * 32)]
            data = bytearray(self.node.read(boot.root_start, boot.root_entries * 32))
        if self._loaded > _KEPT:
            self._evict()
        return self._keep(Directory(ino, start, places, data))

    def _keep(self, found: Directory) -> Directory:
        for offset, _ in found.places:
            if self._owners.get(offset, found.ino) != found.ino:
                raise self._damage(found.ino, "cluster chain", found.start, "two directories share a cluster")
        self._directories[found.ino] = found
        for offset, _ in found.places:
            self._owners[offset] = found.ino
        self._loaded += len(found.data) // 32
        return found

    def _evict(self) -> None:
        for ino, found in list(self._directories.items()):
            if found.before is None:
                del self._directories[ino]
                self._loaded -= len(found.data) // 32

    def _damage(self, ino: int, field: str, value: object, why: str) -> CorruptError:
        return CorruptError(
            f"Damaged FAT directory: {why}",
            path=self.node.filename, layer="FAT directory entry", field=field, offset=self._place(ino), value=value,
        )  # fmt: skip

    def _child(self, parent: Directory, slot: int) -> int:
        """The number of the inode in a slot. A directory may be found in one place only: what is linked twice, or
        contains itself, would be a tree without end."""
        place = parent.place(slot)
        ino = self._number(place)
        if parent.data[slot * 32 + 11] & dirs.DIRECTORY:
            start = Entry(parent.data[slot * 32 : slot * 32 + 32], self.wide).start
            if not self.table.valid(start):
                raise self._damage(ino, "DIR_FstClus", start, "a directory without a cluster")
            if self._homes.setdefault(start, (ino, parent.ino)) != (ino, parent.ino):
                raise self._damage(ino, "DIR_FstClus", start, "a directory that is linked twice")
        return ino

    def _parent(self, ino: int) -> int:
        if ino == ROOT:
            return ROOT
        start = self._directory(ino).start
        home = self._homes.get(start)
        if home is None:
            self._survey()
            home = self._homes.get(start)
        if home is not None and home[0] == ino:
            return home[1]
        raise GuestError(errno.ENOENT)

    def _survey(self) -> None:
        """Look at all directories, so that it is known where each is: for numbers from before changes were
        forgotten."""
        todo = [ROOT]
        while todo:
            holder = self._directory(todo.pop())
            for record in list(holder.records.values()):
                if holder.data[record.slot * 32 + 11] & dirs.DIRECTORY:
                    todo.append(self._child(holder, record.slot))

    # ---- the interface

    def lookup(self, directory: int, name: bytes) -> int | None:
        holder = self._directory(directory)
        if name == b".":
            return directory
        if name == b"..":
            return self._parent(directory)
        try:
            record = holder.find(names.decode(name))
        except GuestError:
            return None
        return None if record is None else self._child(holder, record.slot)

    def entries(self, directory: int) -> Iterator[tuple[bytes, int, str]]:
        holder = self._directory(directory)
        yield b".", directory, "d"
        yield b"..", self._parent(directory), "d"
        for record in list(holder.records.values()):
            kind = "d" if holder.data[record.slot * 32 + 11] & dirs.DIRECTORY else "r"
            yield names.encode(record.text), self._child(holder, record.slot), kind

    def stat(self, ino: int) -> Stat:
        size = self.boot.cluster_size
        if ino == ROOT:
            found = Stat(ROOT, _stat.S_IFDIR | 0o755)
        else:
            entry = self._entry(ino)
            found = Stat(ino, self._mode(entry))
            found.mtime = found.ctime = stamp.decode(entry.changed_date, entry.changed_time)
            found.atime = stamp.decode(entry.accessed)
            found.btime = stamp.decode(entry.created_date, entry.created_time, entry.created_hundredths)
            found.size = entry.size
        found.blksize = size
        if _stat.S_ISDIR(found.mode):
            holder = self._directory(ino)
            found.size = len(holder.data)
            found.nlink = 2 + sum(holder.data[slot * 32 + 11] & dirs.DIRECTORY != 0 for slot in holder.records)
        found.blocks = -(-found.size // size) * size // 512
        return found

    @staticmethod
    def _mode(entry: Entry) -> int:
        if entry.is_directory:
            return _stat.S_IFDIR | 0o755
        return _stat.S_IFREG | 0o755 & ~(_WRITE if entry.attributes & dirs.READ_ONLY else 0)

    def _file(self, ino: int) -> Entry:
        if ino == ROOT:
            raise GuestError(errno.EISDIR)
        entry = self._entry(ino)
        if entry.is_directory:
            raise GuestError(errno.EISDIR)
        return entry

    def extents(self, ino: int, offset: int, length: int) -> Iterator[tuple[int, int, int | None]]:
        entry = self._file(ino)
        length = min(length, entry.size - offset)
        if length <= 0:
            return
        size = self.boot.cluster_size
        first, last = offset // size, (offset + length - 1) // size
        total = -(-entry.size // size)
        if not self.table.valid(entry.start):
            raise self._damage(ino, "DIR_FstClus", entry.start, "a file without a cluster")
        runs = self._chain(entry.start, total)
        if runs.length < total:
            raise self._damage(ino, "DIR_FileSize", entry.size, "a file whose cluster chain is too short")
        skip = offset - first * size
        for cluster, count in runs.clip(first, last - first + 1):
            step = min(count * size - skip, length)
            yield offset, step, self.boot.cluster_at(cluster) + skip
            offset += step
            length -= step
            skip = 0

    def readlink(self, ino: int) -> bytes:
        self._entry(ino)
        raise GuestError(errno.EINVAL)

    def statvfs(self) -> StatVfs:
        found = StatVfs()
        found.bsize = found.frsize = self.boot.cluster_size
        found.blocks = self.boot.clusters
        found.bfree = found.bavail = self.table.count_free()
        found.namemax = 255
        return found
