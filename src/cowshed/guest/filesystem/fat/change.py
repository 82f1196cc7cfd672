"""Changing a FAT file system: everything in memory until `sync`."""

from __future__ import annotations

import errno
import stat as _stat

from ....errors import CorruptError
from ..base import GuestError
from . import directory as dirs
from . import name as names
from .boot import Boot
from .commit import commit
from .directory import Directory, Entry, Record
from .filesystem import ROOT, FatFileSystem
from .overlay import Overlay
from .table import Runs

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ....block.node import Node

#: one more than the longest file
_MOST = 1 << 32
_UMASK = 0o022
_LABEL_FORBIDDEN = frozenset('*?.,;:/\\|+=<>[]"')


class WritableFat(FatFileSystem):
    """A FAT file system that is open for writing."""

    def __init__(self, node: Node) -> None:
        super().__init__(node, writable=True)
        info = self.boot.read_fsinfo(node)
        if info is not None:
            self.table.after = info[1]

    def _reset(self) -> None:
        super()._reset()
        self.overlay = Overlay(self.node, self.boot)
        self.touched: set[int] = set()
        #: the boot sector's volume id and label, where they are to change
        self.new_id: int | None = None
        self.new_label: bytes | None = None
        #: numbers for inodes whose entry's place is the number of another, which was moved away
        self._next = self.node.size // 32 + 1

    # ---- entries

    def _holder(self, ino: int) -> tuple[Directory, int]:
        """The directory that an inode's entry stands in, and its slot there."""
        place = self._place(ino)
        owner = self._owners.get(self._block(place))
        if owner is None:
            self._survey()
            owner = self._owners.get(self._block(place))
        if owner is None:
            raise GuestError(errno.ENOENT)
        holder = self._directory(owner)
        return holder, self._slot(holder, place)

    def _store(self, ino: int, entry: Entry) -> None:
        holder, slot = self._holder(ino)
        holder.change()
        entry.pack(holder.data, slot * 32, self.wide)
        self.touched.add(ino)

    def _touch_directory(self, holder: Directory, now: int) -> None:
        """A directory's own times; the root directory has none."""
        if holder.ino != ROOT:
            entry = self._entry(holder.ino)
            entry.set_changed(now)
            self._store(holder.ino, entry)

    def _room(self, holder: Directory, count: int) -> int:
        """Free slots in a directory, which grows where need be. Raises GuestError ENOSPC."""
        holder.change()
        slot = holder.room(count, True)
        if slot is None and self._grow(holder):
            slot = holder.room(count, True)
            while slot is None and self._grow(holder):
                slot = holder.room(count, True)
        if slot is None:
            slot = holder.room(count, False)
        if slot is None:
            holder.find_gaps(False)
            slot = holder.room(count, False)
        if slot is None:
            raise GuestError(errno.ENOSPC)
        return slot

    def _grow(self, holder: Directory) -> bool:
        size = self.boot.cluster_size
        if not holder.start or len(holder.data) + size > dirs.LIMIT:
            return False
        last = (holder.places[-1][0] - self.boot.data_start) // size + 2
        found = self.table.allocate(1, last + 1)
        if found is None:
            return False
        cluster = found[0][0]
        self.table.link(cluster, 1)
        self.table.set(last, cluster)
        holder.places.append((self.boot.cluster_at(cluster), size))
        self._owners[self.boot.cluster_at(cluster)] = holder.ino
        holder.data += bytes(size)
        self._loaded += size // 32
        return True

    def _add(self, holder: Directory, text: str, entry: Entry) -> int:
        """Put an entry under a new name; returns the place of it on the device. Raises GuestError."""
        short, flags, long = names.shorten(text, holder.by_short.__contains__)
        parts = names.long_entries(text, short) if long else b""
        count = len(parts) // 32
        first, slot = holder.removed.pop(short, (-1, -1))
        if (
            first < 0
            or slot - first != count
            or any(holder.data[at * 32] != dirs.DELETED for at in range(first, slot + 1))
        ):
            first = self._room(holder, count + 1)
            slot = first + count
        else:
            # a name that comes again takes its old entries: one sector says the old or the new
            holder.take(first, count + 1)
        if any(holder.data[at * 32] not in (0, dirs.DELETED) for at in range(first, slot + 1)):
            raise CorruptError(
                f"Entries {first} to {slot} of the directory {holder.ino} are not free. Nothing was written",
                path=self.node.filename, layer="FAT directory", field="DIR_Name", offset=holder.place(first),
            )  # fmt: skip
        holder.data[first * 32 : slot * 32] = parts
        holder.data[slot * 32 : slot * 32 + 32] = bytes(32)
        entry.short, entry.flags = short, flags
        entry.pack(holder.data, slot * 32, self.wide)
        holder.remember(Record(text if long else names.from_short(short, flags), first, slot, short))
        holder.fresh.add(slot)
        return holder.place(slot)

    def _remove(self, holder: Directory, record: Record) -> None:
        holder.change()
        first = record.first
        # parts of long names that belong to nobody, which fsck.vfat overlooks as long as a name follows them
        while first and dirs.is_long(holder.data, first - 1):
            first -= 1
        for slot in range(first, record.slot + 1):
            holder.data[slot * 32] = dirs.DELETED
        holder.removed[record.short] = (record.first, record.slot)
        holder.forget(record)
        holder.fresh.discard(record.slot)

    def _settle(self, ino: int, place: int) -> None:
        """An inode's entry stands at ``place`` now."""
        old = self._moved.pop(ino, None)
        if old is not None:
            self._numbers.pop(old, None)
        if place // 32 != ino:
            self._moved[ino] = place // 32
            self._numbers[place // 32] = ino

    def _new_number(self, place: int) -> int:
        number = place // 32
        if number in self._moved:
            number = self._next
            self._next += 1
            self._settle(number, place)
        return number

    def _find(self, directory: int, name: bytes) -> tuple[Directory, Record, int]:
        holder = self._directory(directory)
        if name in (b".", b".."):
            raise GuestError(errno.EINVAL)
        record = holder.find(names.decode(name))
        if record is None:
            raise GuestError(errno.ENOENT)
        return holder, record, self._child(holder, record.slot)

    # ---- names

    def create(
        self,
        directory: int,
        name: bytes,
        mode: int,
        uid: int,
        gid: int,
        now: int,
        *,
        rdev: int = 0,
        target: bytes = b"",
    ) -> int:
        holder = self._directory(directory)
        if name in (b".", b".."):
            raise GuestError(errno.EEXIST)
        text = names.check(names.decode(name))
        if holder.find(text) is not None:
            raise GuestError(errno.EEXIST)
        kind = _stat.S_IFMT(mode)
        if kind not in (0, _stat.S_IFREG, _stat.S_IFDIR):
            raise GuestError(errno.EPERM)
        entry = Entry(bytes(32))
        entry.attributes = dirs.ARCHIVE
        entry.set_created(now)
        entry.set_changed(now)
        entry.set_accessed(now)
        if kind != _stat.S_IFDIR:
            ino = self._new_number(self._add(holder, text, entry))
            self._touch_directory(holder, now)
            self.touched.add(ino)
            return ino
        entry.attributes = dirs.DIRECTORY
        found = self.table.allocate(1)
        if found is None:
            raise GuestError(errno.ENOSPC)
        cluster = found[0][0]
        self.table.link(cluster, 1)
        entry.start = cluster
        try:
            ino = self._new_number(self._add(holder, text, entry))
        except GuestError:
            self.table.release(cluster, 1)
            raise
        size = self.boot.cluster_size
        data = bytearray(size)
        entry.short, entry.flags = dirs.DOT, 0
        entry.pack(data, 0, self.wide)
        entry.short, entry.start = dirs.DOTS, self._start_of(holder)
        entry.pack(data, 32, self.wide)
        self._homes[cluster] = (ino, directory)
        self._owners.pop(self.boot.cluster_at(cluster), None)
        made = self._keep(Directory(ino, cluster, [(self.boot.cluster_at(cluster), size)], data))
        made.before = b""
        made.find_gaps(True)
        self._touch_directory(holder, now)
        self.touched.add(ino)
        return ino

    @staticmethod
    def _start_of(holder: Directory) -> int:
        """What ".." of its children says: 0 for the root directory."""
        return 0 if holder.ino == ROOT else holder.start

    def link(self, ino: int, directory: int, name: bytes, now: int) -> None:
        raise GuestError(errno.EPERM)

    def unlink(self, directory: int, name: bytes, now: int) -> None:
        holder, record, ino = self._find(directory, name)
        entry = self._file(ino)
        runs = self._all(entry)
        self._remove(holder, record)
        self._touch_directory(holder, now)
        self._forget(ino, entry, runs)

    def _all(self, entry: Entry) -> Runs:
        """A file's whole chain. Raises CorruptError."""
        return self._chain(entry.start) if entry.start else Runs()

    def _forget(self, ino: int, entry: Entry, runs: Runs) -> None:
        """An inode is gone; its clusters are free."""
        self._free(list(zip(runs.starts, runs.counts, strict=True)))
        self._chains.pop(entry.start, None)
        self.touched.discard(ino)
        old = self._moved.pop(ino, None)
        if old is not None:
            self._numbers.pop(old, None)

    def _free(self, runs: list[tuple[int, int]]) -> None:
        for start, count in runs:
            self.table.release(start, count)
            self.overlay.drop(start, count)

    def rmdir(self, directory: int, name: bytes, now: int) -> None:
        if name == b".":
            raise GuestError(errno.EINVAL)
        if name == b"..":
            raise GuestError(errno.ENOTEMPTY)
        holder, record, ino = self._find(directory, name)
        gone = self._directory(ino)
        if gone.records:
            raise GuestError(errno.ENOTEMPTY)
        self._remove(holder, record)
        self._touch_directory(holder, now)
        self._forget_directory(gone)

    def _forget_directory(self, gone: Directory) -> None:
        runs = self.table.chain(gone.start)
        del self._directories[gone.ino]
        self._loaded -= len(gone.data) // 32
        for offset, _ in gone.places:
            self._owners.pop(offset, None)
        self._homes.pop(gone.start, None)
        entry = Entry(bytes(32))
        entry.start = gone.start
        self._forget(gone.ino, entry, runs)

    def rename(self, old: int, old_name: bytes, new: int, new_name: bytes, now: int) -> None:
        """A name that differs in case alone is changed too, where Linux would do nothing."""
        if old_name in (b".", b"..") or new_name in (b".", b".."):
            raise GuestError(errno.EBUSY)
        source, record, ino = self._find(old, old_name)
        target = self._directory(new)
        text = names.check(names.decode(new_name))
        there = target.find(text)
        entry = self._entry(ino)
        if there is record and (record.text == text or names.fold(record.text) != names.fold(text)):
            return
        if there is record or (there is None and old == new):
            self._rename_within(source, record, ino, entry, text)
            self.touched.add(ino)
            self._touch_directory(source, now)
            return
        at = new
        while entry.is_directory and at != ROOT:
            if at == ino:
                raise GuestError(errno.EINVAL)
            at = self._parent(at)
        if there is None:
            place = self._add(target, text, entry)
        else:
            place = self._replace(target, there, entry)
            if source is target and not entry.is_directory:
                source.successors[record.slot] = there.slot
        self._remove(source, record)
        self._settle(ino, place)
        if entry.is_directory and old != new:
            moved = self._directory(ino)
            moved.change()
            dots = Entry(moved.data[32:64], self.wide)
            if dots.short == dirs.DOTS:
                dots.start = self._start_of(target)
                dots.pack(moved.data, 32, self.wide)
        if entry.is_directory:
            self._homes[entry.start] = (ino, new)
        self.touched.add(ino)
        self._touch_directory(source, now)
        self._touch_directory(target, now)

    def _replace(self, target: Directory, there: Record, entry: Entry) -> int:
        """Put an entry in the place of another, which keeps its name; the other inode goes."""
        ino = self._child(target, there.slot)
        replaced = self._entry(ino)
        if replaced.is_directory:
            if not entry.is_directory:
                raise GuestError(errno.EISDIR)
            gone = self._directory(ino)
            if gone.records:
                raise GuestError(errno.ENOTEMPTY)
            self._forget_directory(gone)
        else:
            if entry.is_directory:
                raise GuestError(errno.ENOTDIR)
            self._forget(ino, replaced, self._all(replaced))
        target.change()
        entry.short, entry.flags = replaced.short, replaced.flags
        entry.pack(target.data, there.slot * 32, self.wide)
        return target.place(there.slot)

    def _rename_within(self, holder: Directory, record: Record, ino: int, entry: Entry, text: str) -> None:
        """Another name in the same directory: in the same entries where they are enough, so that one sector says
        the old or the new."""
        short, flags, long = names.shorten(text, lambda one: one != record.short and one in holder.by_short)
        parts = names.long_entries(text, short) if long else b""
        count = len(parts) // 32
        holder.change()
        if count <= record.slot - record.first:
            slot = record.slot
            for at in range(record.first, slot - count):
                holder.data[at * 32] = dirs.DELETED
            holder.forget(record)
        else:
            slot = self._room(holder, count + 1) + count
            self._remove(holder, record)
            holder.successors[record.slot] = slot
            holder.fresh.add(slot)
            self._settle(ino, holder.place(slot))
        holder.data[(slot - count) * 32 : slot * 32] = parts
        if slot != record.slot:
            holder.data[slot * 32 : slot * 32 + 32] = bytes(32)
        entry.short, entry.flags = short, flags
        entry.pack(holder.data, slot * 32, self.wide)
        holder.remember(Record(text if long else names.from_short(short, flags), slot - count, slot, short))

    # ---- contents

    def read(self, ino: int, offset: int, length: int) -> bytes:
        entry = self._file(ino)
        length = max(0, min(length, entry.size - offset))
        buffer = bytearray(length)
        view = memoryview(buffer)
        boot = self.boot
        for at, count, place in self.extents(ino, offset, length):
            assert place is not None
            cluster, skip = divmod(place - boot.data_start, boot.cluster_size)
            self.overlay.read_into(cluster + 2, skip, view[at - offset : at - offset + count])
        return bytes(buffer)

    def write(self, ino: int, offset: int, data: bytes | memoryview, now: int) -> None:
        view = memoryview(data).cast("B")
        entry = self._file(ino)
        end = offset + len(view)
        if not len(view):
            return
        if end >= _MOST:
            raise GuestError(errno.EFBIG)
        runs = self._extend(entry, max(end, entry.size))
        if offset > entry.size:
            self._zero(runs, entry.size, offset)
        self._put(runs, offset, view)
        entry.size = max(entry.size, end)
        entry.attributes |= dirs.ARCHIVE
        entry.set_changed(now)
        self._store(ino, entry)

    def truncate(self, ino: int, size: int, now: int) -> None:
        if size >= _MOST:
            raise GuestError(errno.EFBIG)
        entry = self._file(ino)
        if size > entry.size:
            runs = self._extend(entry, size)
            self._zero(runs, entry.size, size)
        else:
            runs = self._all(entry)
            keep = -(-size // self.boot.cluster_size)
            if runs.length > keep:
                self._free(runs.keep(keep))
                if keep:
                    self.table.set(runs.last, 0x0FFFFFFF)
                else:
                    self._chains.pop(entry.start, None)
                    entry.start = 0
        entry.size = size
        entry.attributes |= dirs.ARCHIVE
        entry.set_changed(now)
        self._store(ino, entry)

    def _extend(self, entry: Entry, size: int) -> Runs:
        """A file's chain, made long enough for ``size`` bytes. Raises GuestError ENOSPC with nothing changed."""
        runs = self._all(entry)
        have = -(-entry.size // self.boot.cluster_size)
        if runs.length < have:
            raise self._damage(0, "DIR_FileSize", entry.size, "a file whose cluster chain is too short")
        need = -(-size // self.boot.cluster_size) - runs.length
        if need <= 0:
            return runs
        found = self.table.allocate(need, runs.last + 1 if runs.length else 0)
        if found is None:
            raise GuestError(errno.ENOSPC)
        after = 0x0FFFFFFF
        for start, count in reversed(found):
            self.table.link(start, count, after)
            self.overlay.zero(start, count)
            after = start
        if runs.length:
            self.table.set(runs.last, after)
        else:
            entry.start = after
            if len(self._chains) > 1000:
                self._chains.clear()
            self._chains[after] = runs
        for start, count in found:
            runs.append(start, count)
        return runs

    def _zero(self, runs: Runs, begin: int, end: int) -> None:
        """Bytes of a file that no one wrote read as zeroes, whatever its clusters held."""
        size = self.boot.cluster_size
        step = min(end, -(-begin // size) * size)
        if begin < step:
            self._put(runs, begin, memoryview(bytes(step - begin)))
        if step < end:
            for start, count in runs.clip(step // size, -(-end // size) - step // size):
                self.overlay.zero(start, count)

    def _put(self, runs: Runs, offset: int, view: memoryview) -> None:
        """Bytes into clusters; those written in part keep the rest."""
        size = self.boot.cluster_size
        first, skip = divmod(offset, size)
        count = -(-(skip + len(view)) // size)
        for start, number in runs.clip(first, count):
            while number and len(view):
                if skip or len(view) < size:
                    whole = bytearray(size)
                    self.overlay.read_into(start, 0, memoryview(whole))
                    step = min(size - skip, len(view))
                    whole[skip : skip + step] = view[:step]
                    self.overlay.write(start, memoryview(whole))
                    taken = 1
                else:
                    taken = min(number, len(view) // size)
                    step = taken * size
                    self.overlay.write(start, view[:step])
                view = view[step:]
                start, number, skip = start + taken, number - taken, 0

    # ---- attributes

    def set_attributes(
        self,
        ino: int,
        now: int,
        *,
        mode: int | None = None,
        uid: int | None = None,
        gid: int | None = None,
        atime: int | None = None,
        mtime: int | None = None,
    ) -> None:
        """As Linux: owners other than root and special bits are EPERM; permissions that FAT can't keep are not kept,
        silently. Only whether a file may be written to is."""
        if uid not in (None, 0, -1) or gid not in (None, 0, -1) or (mode is not None and mode & 0o7000):
            raise GuestError(errno.EPERM)
        if ino == ROOT:
            return
        entry = self._entry(ino)
        if mode is not None and not entry.is_directory:
            wanted = mode & 0o777 & ~_UMASK
            if wanted == 0o755:
                entry.attributes &= ~dirs.READ_ONLY
            elif wanted == 0o555:
                entry.attributes |= dirs.READ_ONLY
        if atime is not None:
            entry.set_accessed(atime)
        if mtime is not None:
            entry.set_changed(mtime)
        self._store(ino, entry)

    def set_label(self, label: str) -> None:
        """The label in the root directory and in the boot sector. Raises GuestError EINVAL for what can't be one."""
        try:
            # fsck.fat takes labels with other characters away
            raw = label.encode("ascii")
        except UnicodeEncodeError:
            raise GuestError(errno.EINVAL) from None
        if len(raw) > 11 or not _LABEL_FORBIDDEN.isdisjoint(label) or any(byte < 32 for byte in raw) or raw[:1] == b" ":
            raise GuestError(errno.EINVAL, hint='a label has up to 11 characters, and none of *?.,;:/\\|+=<>[]"')
        root = self._directory(ROOT)
        slot = dirs.label_slot(root.data)
        if not raw:
            if slot is not None:
                root.change()
                root.data[slot * 32] = dirs.DELETED
            self.new_label = b"NO NAME    "
        else:
            raw = raw.ljust(11)
            root.change()
            if slot is None:
                slot = self._room(root, 1)
                root.data[slot * 32 : slot * 32 + 32] = bytes(32)
                root.data[slot * 32 + 11] = dirs.VOLUME
            root.data[slot * 32 : slot * 32 + 11] = raw
            self.new_label = raw
        self.label = label.rstrip(" ")

    def set_uuid(self, uuid: str) -> None:
        """The volume id, eight hexadecimal digits with or without a dash. Raises GuestError EINVAL."""
        digits = uuid.replace("-", "")
        if len(digits) != 8 or not set(digits) <= set("0123456789abcdefABCDEF"):
            raise GuestError(errno.EINVAL)
        self.new_id = int(digits, 16)
        self.uuid = f"{digits[:4]}-{digits[4:]}".upper()

    # ---- the device

    def sync(self) -> None:
        commit(self)

    def discard_changes(self) -> None:
        self.overlay.close()
        self.boot = Boot(self.node)
        self._reset()
        self._read_names()
        info = self.boot.read_fsinfo(self.node)
        if info is not None:
            self.table.after = info[1]

    def close(self) -> None:
        self.overlay.close()
