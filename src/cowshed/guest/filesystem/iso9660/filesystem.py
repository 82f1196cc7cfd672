"""Reading ISO 9660 as Linux' isofs driver shows it: Rock Ridge where there is any, else Joliet, else plain names
in lower case without versions (its ``map=normal``)."""

from __future__ import annotations

import errno
import stat as _stat
import struct
import zlib
from itertools import pairwise

from ....errors import CorruptError, FeatureError
from ..base import FileSystem, GuestError, Stat, StatVfs
from . import rockridge
from .rockridge import Facts
from .volume import SECTOR, Volume

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from ....block.node import Node

#: flags of a directory record (ECMA-119, 9.1.6)
_DIRECTORY, _ASSOCIATED, _MORE = 2, 4, 128
_RECORD = struct.Struct("<BBI4xI4x7sBBBH2xB")
_CHUNK = 1 << 20
#: names that are remembered of directories read before
_KEPT = 200_000
_ZISOFS = b"\x37\xe4\x53\x96\xc9\xdb\xd6\x07"


class Record:
    """A directory record, or those of one file in several extents: ``place`` its offset on the device, ``parts``
    (offset on the device, bytes) of its data, ``area`` its system use field."""

    __slots__ = ("area", "date", "flags", "interleaved", "more", "name", "parts", "place", "size")

    def __init__(self, place: int, raw: bytes, block_size: int) -> None:
        _, attributes, extent, size, self.date, self.flags, unit, gap, _, length = _RECORD.unpack_from(raw)
        self.place = place
        self.name = raw[33 : 33 + length]
        self.area = raw[33 + length + (not length & 1) :]
        self.interleaved = bool(unit or gap)
        self.parts = [((extent + attributes) * block_size, size)]
        self.size = size
        self.more = bool(self.flags & _MORE)

    @property
    def is_directory(self) -> bool:
        return bool(self.flags & _DIRECTORY)


class IsoFileSystem(FileSystem):
    """An ISO 9660 volume. An inode's number is the place of its directory record on the device, a directory's that
    of its first block."""

    kind = "iso9660"

    def __init__(self, node: Node) -> None:
        """Raises ForeignError, FeatureError, CorruptError, HostError."""
        super().__init__(node)
        self.volume = Volume(node)
        self.block_size = self.volume.block_size
        self.label = self.volume.label
        self.uuid = self.volume.uuid
        self._skip = 0
        self._names: dict[int, dict[bytes, tuple[int, str]]] = {}
        self._remembered = 0
        #: names: "rock ridge", "joliet" or "plain"
        self.names = "plain"
        root = self._root(self.volume.primary)
        facts = rockridge.parse(node, self.block_size, self._dot(root).area)
        if facts.sharing is not None and (facts.known or facts.mode is not None):
            self.names = "rock ridge"
            self._skip = facts.sharing
        elif self.volume.joliet is not None:
            self.names = "joliet"
            root = self._root(self.volume.joliet)
        self.root = root
        #: directory -> the one that it was found in
        self._parents: dict[int, int] = {root: root}

    def _root(self, descriptor: bytes) -> int:
        record = Record(0, descriptor[156:190], self.block_size)
        self._check_part(record, 0)
        start: int = record.parts[0][0]
        return start

    # ---- records

    def _damage(self, place: int, field: str, value: object, why: str) -> CorruptError:
        return CorruptError(
            f"Damaged ISO 9660 directory: {why}",
            path=self.node.filename, layer="directory record", field=field, offset=place, value=value,
        )  # fmt: skip

    def _check_part(self, record: Record, place: int) -> None:
        start, size = record.parts[0]
        if start + size > self.node.size:
            raise self._damage(place, "extent", start, "data beyond the end of the device")

    def _record(self, place: int) -> Record:
        """The record that stands somewhere. Raises GuestError ENOENT, CorruptError."""
        if not 0 < place < self.node.size - 34:
            raise GuestError(errno.ENOENT)
        raw = self.node.read(place, min(255, self.node.size - place))
        if not 34 <= raw[0] <= len(raw) or 33 + raw[32] > raw[0]:
            raise self._damage(place, "length", raw[0], "a record of impossible length")
        return Record(place, raw[: raw[0]], self.block_size)

    def _dot(self, directory: int) -> Record:
        """The record of itself that a directory begins with. Raises GuestError ENOTDIR."""
        record = self._record(directory)
        if record.name != b"\0" or not record.is_directory or record.parts[0][0] != directory:
            raise GuestError(errno.ENOTDIR)
        self._check_part(record, directory)
        return record

    def _file(self, ino: int) -> Record:
        """A record with all its extents."""
        record = self._record(ino)
        if record.more:
            place = ino
            end = record.place - record.place % SECTOR + (64 << 20)
            while record.more:
                place += self.node.read(place, 1)[0]
                if place >= end:
                    raise self._damage(ino, "file flags", record.flags, "a file with too many extents")
                if place % SECTOR and not self.node.read(place, 1)[0]:
                    place += -place % SECTOR
                self._join(record, self._record(place))
        return record

    def _join(self, record: Record, following: Record) -> None:
        if following.name != record.name:
            raise self._damage(following.place, "file flags", record.flags, "a file whose last extent is missing")
        record.parts += following.parts
        record.size += following.size
        record.more = following.more

    def _records(self, directory: int) -> Iterator[Record]:
        """The records of a directory, without itself and its parent; those of one file as one."""
        start, size = self._dot(directory).parts[0]
        pending: Record | None = None
        position = 0
        buffer, base = b"", 0
        while position < size:
            if position + 256 > base + len(buffer) and base + len(buffer) < size:
                base = position
                buffer = self.node.read(start + base, min(_CHUNK, size - base))
            at = position - base
            length = buffer[at]
            if not length:
                position += SECTOR - (start + position) % SECTOR
                continue
            if length < 34 or at + length > len(buffer) or 33 + buffer[at + 32] > length:
                raise self._damage(start + position, "length", length, "a record of impossible length")
            record = Record(start + position, buffer[at : at + length], self.block_size)
            position += length
            if record.name in (b"\0", b"\1"):
                continue
            if pending is not None:
                self._join(pending, record)
                record = pending
            pending = record if record.more else None
            if pending is None:
                yield record
        if pending is not None:
            raise self._damage(pending.place, "file flags", pending.flags, "a file whose last extent is missing")

    def _facts(self, record: Record) -> Facts:
        if self.names != "rock ridge":
            return Facts()
        return rockridge.parse(self.node, self.block_size, record.area[self._skip :])

    def _name(self, record: Record, facts: Facts) -> bytes:
        if self.names == "joliet":
            text = record.name.decode("utf-16-be", "surrogatepass") if not len(record.name) % 2 else ""
            if len(text) > 2 and text.endswith(";1"):
                text = text[:-2]
            text = text[:1] + text[1:].rstrip(".")
            name = text.encode("utf-8", "surrogatepass")
        else:
            name = facts.name if facts.name is not None else b""
            if not name:
                name = plain_name(record.name)
        name = name.replace(b"/", b"_").replace(b"\0", b"_")
        # such a name would lead elsewhere
        return b"_" * len(name) if name in (b".", b"..") else name

    def _scan(self, directory: int) -> Iterator[tuple[bytes, int, str]]:
        """(name, inode, kind) of a directory's entries but the dots."""
        for record in self._records(directory):
            facts = self._facts(record)
            if facts.moved or (record.flags & _ASSOCIATED):
                continue
            name = self._name(record, facts)
            if not name:
                continue
            if facts.child is not None:
                child = facts.child * self.block_size
            elif record.is_directory:
                child = record.parts[0][0]
                self._check_part(record, record.place)
            else:
                kind = "r"
                if facts.mode is not None:
                    kind = _KINDS.get(_stat.S_IFMT(facts.mode), "u")
                yield name, record.place, "u" if kind == "d" else kind
                continue
            if self._parents.setdefault(child, directory) != directory or child == directory:
                raise self._damage(record.place, "extent", child, "a directory that is linked twice")
            yield name, child, "d"

    # ---- the interface

    def entries(self, directory: int) -> Iterator[tuple[bytes, int, str]]:
        yield b".", directory, "d"
        self._dot(directory)
        yield b"..", self._parents.get(directory, self.root), "d"
        yield from self._scan(directory)

    def lookup(self, directory: int, name: bytes) -> int | None:
        if name in (b".", b".."):
            self._dot(directory)
            return directory if name == b"." else self._parents.get(directory, self.root)
        known = self._names.get(directory)
        if known is None:
            known = {}
            for entry, ino, kind in self._scan(directory):
                known.setdefault(entry, (ino, kind))
                if len(known) > _KEPT:
                    # too many to remember: look on without
                    return known[name][0] if name in known else self._search(directory, name)
            if self._remembered + len(known) > _KEPT:
                self._names.clear()
                self._remembered = 0
            self._names[directory] = known
            self._remembered += len(known)
        found = known.get(name)
        return None if found is None else found[0]

    def _search(self, directory: int, name: bytes) -> int | None:
        return next((ino for entry, ino, _ in self._scan(directory) if entry == name), None)

    def stat(self, ino: int) -> Stat:
        record = self._file(ino)
        facts = self._facts(record)
        found = Stat(ino, (_stat.S_IFDIR if record.is_directory else _stat.S_IFREG) | 0o555)
        found.mtime = found.atime = found.ctime = rockridge.short_date(record.date)
        found.size = record.size
        if facts.mode is not None:
            found.mode, found.nlink, found.uid, found.gid = facts.mode & 0xFFFF, facts.nlink, facts.uid, facts.gid
            if record.is_directory != _stat.S_ISDIR(found.mode):
                found.mode = (_stat.S_IFDIR if record.is_directory else _stat.S_IFREG) | found.mode & 0o7777
        if _stat.S_ISCHR(found.mode) or _stat.S_ISBLK(found.mode):
            found.rdev = facts.rdev
            found.size = 0
        found.mtime = facts.mtime if facts.mtime is not None else found.mtime
        found.atime = facts.atime if facts.atime is not None else found.atime
        found.ctime = facts.ctime if facts.ctime is not None else found.ctime
        if _stat.S_ISLNK(found.mode):
            found.size = len(facts.target or b"")
        elif facts.packed is not None:
            found.size = facts.packed[3]
        found.blksize = self.block_size
        found.blocks = -(-found.size // 512)
        return found

    def _regular(self, ino: int) -> tuple[Record, Facts]:
        record = self._file(ino)
        facts = self._facts(record)
        if record.is_directory:
            raise GuestError(errno.EISDIR)
        if record.interleaved or facts.sparse:
            raise FeatureError(
                "Interleaved and sparse files are not possible yet", path=self.node.filename, layer="directory record",
                field="SF" if facts.sparse else "file unit size", offset=ino,
            )  # fmt: skip
        return record, facts

    def extents(self, ino: int, offset: int, length: int) -> Iterator[tuple[int, int, int | None]]:
        record, _ = self._regular(ino)
        before = 0
        end = min(offset + length, record.size)
        for start, size in record.parts:
            low, high = max(offset, before), min(end, before + size)
            if low < high:
                place = start + low - before
                if place + high - low > self.node.size:
                    raise self._damage(ino, "extent", start, "data beyond the end of the device")
                yield low, high - low, place
            before += size

    def read(self, ino: int, offset: int, length: int) -> bytes:
        record, facts = self._regular(ino)
        if facts.packed is None:
            return super().read(ino, offset, length)
        return self._unpack(record, facts.packed, offset, length)

    def _unpack(self, record: Record, packed: tuple[bytes, int, int, int], offset: int, length: int) -> bytes:
        """Read from a zisofs file: a header, pointers to its blocks, each a zlib stream; empty ones are zeroes."""
        algorithm, header, log, size = packed
        start, stored = record.parts[0]
        if algorithm != b"pz" or not 15 <= log <= 17:
            raise FeatureError(
                f"Unknown compression of a file: {algorithm!r}", path=self.node.filename, layer="zisofs", field="ZF",
                offset=record.place, value=log,
            )  # fmt: skip
        self._check_part(record, record.place)
        length = max(0, min(length, size - offset))
        if not length:
            return b""
        unit = 1 << log
        first, last = offset // unit, (offset + length - 1) // unit
        table = header + 4 * first
        if stored < table + 4 * (last - first + 2) or self.node.read(start, 8) != _ZISOFS:
            raise self._damage(record.place, "ZF", header, "a compressed file without its pointers")
        pointers = struct.unpack(f"<{last - first + 2}I", self.node.read(start + table, 4 * (last - first + 2)))
        out = bytearray()
        for number, (low, high) in enumerate(pairwise(pointers), first):
            want = min(unit, size - number * unit)
            if low == high:
                out += bytes(want)
                continue
            if not header <= low < high <= stored or high - low > 2 * unit + 1024:
                raise self._damage(record.place, "ZF", low, "a compressed file whose pointers make no sense")
            try:
                piece = zlib.decompressobj().decompress(self.node.read(start + low, high - low), want)
            except zlib.error:
                piece = b""
            if len(piece) != want:
                raise self._damage(record.place, "ZF", low, "a compressed block that can't be unpacked")
            out += piece
        skip = offset - first * unit
        return bytes(out[skip : skip + length])

    def readlink(self, ino: int) -> bytes:
        facts = self._facts(self._file(ino))
        if facts.target is None or facts.mode is None or not _stat.S_ISLNK(facts.mode):
            raise GuestError(errno.EINVAL)
        return facts.target

    def statvfs(self) -> StatVfs:
        found = StatVfs()
        found.bsize = found.frsize = self.block_size
        found.blocks = self.volume.blocks
        return found


_KINDS = {
    _stat.S_IFREG: "r", _stat.S_IFDIR: "d", _stat.S_IFLNK: "l", _stat.S_IFCHR: "c", _stat.S_IFBLK: "b",
    _stat.S_IFIFO: "f", _stat.S_IFSOCK: "s",
}  # fmt: skip


def plain_name(raw: bytes) -> bytes:
    """A name without extensions: lower case, without version 1 and the dot before it, other versions after a dot."""
    raw = raw.split(b"\0")[0]
    if raw.endswith(b".;1"):
        raw = raw[:-3]
    elif raw.endswith(b";1"):
        raw = raw[:-2]
    return raw.lower().replace(b";", b".").replace(b"/", b".")
