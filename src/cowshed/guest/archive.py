"""Archives of a guest's files: tar with what compresses it, through the standard library's tarfile.

An archive's names and links lead nowhere but into the directory of the guest that was asked for.
"""

from __future__ import annotations

import errno
import os
import stat as _stat

from ..errors import CorruptError, UsageError
from .filesystem.base import GuestError
from .place import escaped
from .tree import STEP

TYPE_CHECKING = False
if TYPE_CHECKING:
    import tarfile
    from collections.abc import Callable, Iterable, Iterator
    from typing import IO, Self

    from .tree import Found, Place, Tree

#: numbers of devices that Linux has
MAX_MAJOR, MAX_MINOR = 0xFFF, 0xFFFFF
#: bytes of an extended header
MAX_EXTENSION = 16 << 20
#: name of a compression -> tarfile's, None for what the standard library lacks
COMPRESSIONS = {
    "": "",
    "compress": None,
    "gzip": "gz",
    "bzip2": "bz2",
    "xz": "xz",
    "lzop": None,
    "lzma": None,
    "zstd": None,
}


def _mode(compression: str) -> str:
    mode = COMPRESSIONS.get(compression)
    if mode is None:
        raise UsageError(f"unknown compression type: {compression}")
    return mode


class _Reader:
    """A guest's file as tarfile reads it."""

    def __init__(self, path: bytes, pieces: Iterator[bytes]) -> None:
        self._path = path
        self._pieces = pieces
        self._kept = b""

    def read(self, count: int) -> bytes:
        while len(self._kept) < count:
            piece = next(self._pieces, b"")
            if not piece:
                raise CorruptError(f"{escaped(self._path)}: the file is shorter than its size", layer="file")
            self._kept += piece
        data, self._kept = self._kept[:count], self._kept[count:]
        return data


class _Source:
    """The archive as tarfile reads it, which goes on reading behind the end for as long as an entry says that it is."""

    def __init__(self, stream: IO[bytes]) -> None:
        self._stream = stream
        self._empty = 0

    def read(self, count: int) -> bytes:
        data = self._stream.read(count)
        self._empty = 0 if data else self._empty + 1
        if self._empty > 1000:
            raise EOFError("unexpected end of data")
        return data


def tar_out(
    tree: Tree,
    directory: bytes,
    stream: IO[bytes],
    *,
    compression: str = "",
    numeric: bool = False,
    excludes: Iterable[str] = (),
    xattrs: bool = False,
) -> None:
    """Write an archive of a directory, names beginning with ``./``. Raises GuestError ENOTDIR, UsageError."""
    import tarfile

    from .search import matcher

    place = tree.directory(directory)
    kind = _mode(compression)
    patterns = [matcher(os.fsencode(one)) for one in excludes]
    linked: dict[tuple[int, int], str] = {}
    dropped: bytes | None = None
    with tarfile.open(
        fileobj=stream, mode=f"w|{kind}", format=tarfile.GNU_FORMAT if not xattrs else tarfile.PAX_FORMAT
    ) as tar:  # type: ignore[call-overload]
        for found in tree.walk(place):
            path = found.path
            # what is below of a directory comes right after it
            if dropped is not None and path.startswith(dropped):
                continue
            parts = path.split(b"/")
            if patterns and any(matches(b"/".join(parts[at:])) for matches in patterns for at in range(len(parts))):
                dropped = path + b"/"
                continue
            entry = _entry(found, path, linked, xattrs)
            if entry is None:
                continue
            if entry.isreg():
                tar.addfile(entry, _Reader(path, tree.chunks(found.place)))
            else:
                tar.addfile(entry)


def _entry(found: Found, path: bytes, linked: dict[tuple[int, int], str], xattrs: bool) -> tarfile.TarInfo | None:
    import tarfile

    stat = found.stat
    name = "./" + path.decode("utf-8", "surrogateescape")
    entry = tarfile.TarInfo(name)
    entry.mode = stat.mode & 0o7777
    entry.uid, entry.gid = stat.uid, stat.gid
    entry.mtime = stat.mtime // 10**9
    kind = _stat.S_IFMT(stat.mode)
    key = (id(found.place.mount), stat.ino)
    if kind == _stat.S_IFDIR:
        entry.type = tarfile.DIRTYPE
    elif stat.nlink > 1 and key in linked:
        entry.type, entry.linkname = tarfile.LNKTYPE, linked[key]
    elif kind == _stat.S_IFLNK:
        entry.type = tarfile.SYMTYPE
        entry.linkname = os.fsdecode(found.place.mount.fs.readlink(found.place.number))
    elif kind == _stat.S_IFREG:
        entry.size = stat.size
    elif kind in (_stat.S_IFCHR, _stat.S_IFBLK):
        entry.type = tarfile.CHRTYPE if kind == _stat.S_IFCHR else tarfile.BLKTYPE
        entry.devmajor, entry.devminor = os.major(stat.rdev), os.minor(stat.rdev)
    elif kind == _stat.S_IFIFO:
        entry.type = tarfile.FIFOTYPE
    else:
        return None  # sockets are in no archive
    if stat.nlink > 1 and kind != _stat.S_IFDIR:
        linked.setdefault(key, name)
    if xattrs:
        headers: dict[str, str] = {}
        for key_name, value in found.place.mount.fs.xattrs(found.place.number).items():
            text = key_name.decode("utf-8", "surrogateescape")
            headers[f"SCHILY.xattr.{text}"] = value.decode("utf-8", "surrogateescape")
        entry.pax_headers = headers
    return entry


def tar_in(
    tree: Tree, stream: IO[bytes], directory: bytes, *, compression: str | None = "", xattrs: bool = False
) -> None:
    """Unpack an archive into a directory of the guest, with owners, modes and times. ``compression`` None: look what
    it is. Raises GuestError, UsageError when it is no archive or cut short."""
    import tarfile
    from tarfile import InvalidHeaderError, TruncatedHeaderError  # type: ignore[attr-defined]

    kind = "*" if compression is None else _mode(compression)
    place = tree.directory(directory)
    base = place.path.rstrip(b"/")
    folders: list[tuple[bytes, tarfile.TarInfo]] = []
    damage: list[str] = []

    class Entry(tarfile.TarInfo):
        """tarfile takes a header that is cut short or damaged for the end, unless it is the first."""

        @classmethod
        def fromtarfile(cls, archive: tarfile.TarFile) -> Self:
            try:
                return super().fromtarfile(archive)
            except (TruncatedHeaderError, InvalidHeaderError) as error:
                damage.append(str(error))
                raise
            except (ValueError, LookupError, OverflowError, TypeError) as error:
                raise tarfile.ReadError("bad header") from error

        def _proc_member(self, archive: tarfile.TarFile) -> Self:
            # these are read as a whole
            if self.size > MAX_EXTENSION and self.type in b"xgXLK":
                raise tarfile.ReadError("an extended header is too long")
            return super()._proc_member(archive)  # type: ignore[misc, no-any-return]

    try:
        with tarfile.open(
            fileobj=_Source(stream),
            mode=f"r|{kind}",
            bufsize=1 << 18,
            tarinfo=Entry,
            encoding="utf-8",
            errors="surrogateescape",
        ) as tar:  # type: ignore[call-overload]
            for entry in tar:
                _unpack(tree, tar, entry, base, folders, xattrs)
        if damage:
            raise tarfile.ReadError(damage[0])
    except (tarfile.TarError, EOFError) as error:
        raise UsageError(f"tar subcommand failed on directory: {os.fsdecode(directory)}: {error}") from error
    for path, entry in reversed(folders):
        _dress(tree, path, entry, xattrs)


def _inside(tree: Tree, base: bytes, name: bytes) -> tuple[bytes, Place]:
    """The path of an entry below ``base``: ``..`` is dropped, and what is there already and is a symbolic link is not
    followed, except for directories that lead to no place outside."""
    parts = [part for part in name.split(b"/") if part not in (b"", b".", b"..")]
    path = base
    for part in parts[:-1]:
        path += b"/" + part
        place = tree.find(path, follow=False)
        if place.ino is None:
            tree.mkdir(path, 0o755)
        elif _stat.S_ISLNK(place.stat().mode):
            # as in usrmerge: lib -> usr/lib is one of the guest's own ways
            real = tree.resolve(path).path
            if base and real != base and not real.startswith(base + b"/"):
                raise GuestError(errno.ELOOP, os.fsdecode(path))
    path = path + b"/" + parts[-1] if parts else base or b"/"
    return path, tree.find(path, follow=False)


def _unpack(
    tree: Tree,
    tar: tarfile.TarFile,
    entry: tarfile.TarInfo,
    base: bytes,
    folders: list[tuple[bytes, tarfile.TarInfo]],
    xattrs: bool,
) -> None:
    name = entry.name.encode("utf-8", "surrogateescape")
    path, place = _inside(tree, base, name)
    if entry.isdir():
        if place.ino is None:
            tree.mkdir(path, entry.mode)
        elif _stat.S_ISLNK(place.stat().mode):
            if not _stat.S_ISDIR(tree.stat(path).mode):
                raise GuestError(errno.EEXIST, os.fsdecode(path))
            return
        folders.append((path, entry))
        return
    if place.ino is not None:
        if place.parent is None:
            return
        if _stat.S_ISDIR(place.stat().mode):
            tree.rmdir(path)
        else:
            tree.unlink(path)
    if entry.islnk():
        target, _ = _inside(tree, base, entry.linkname.encode("utf-8", "surrogateescape"))
        tree.link(target, path)
        return
    if entry.issym():
        tree.symlink(entry.linkname.encode("utf-8", "surrogateescape"), path)
    elif entry.isreg():
        source = tar.extractfile(entry)
        assert source is not None
        tree.write(path, _pieces(source.read))
    elif entry.ischr() or entry.isblk():
        kind = _stat.S_IFCHR if entry.ischr() else _stat.S_IFBLK
        if not (0 <= entry.devmajor <= MAX_MAJOR and 0 <= entry.devminor <= MAX_MINOR):
            raise GuestError(errno.EINVAL, os.fsdecode(path))
        tree.make(path, kind | (entry.mode & 0o7777), rdev=os.makedev(entry.devmajor, entry.devminor))
    elif entry.isfifo():
        tree.make(path, _stat.S_IFIFO | (entry.mode & 0o7777))
    else:
        return
    _dress(tree, path, entry, xattrs)


def _pieces(read: Callable[[int], bytes]) -> Iterator[bytes]:
    while True:
        data = read(STEP)
        if not data:
            return
        yield data


def _dress(tree: Tree, path: bytes, entry: tarfile.TarInfo, xattrs: bool) -> None:
    try:
        when = int(float(entry.mtime) * 10**9)
    except (OverflowError, ValueError):  # "inf" and "nan" are numbers for some
        when = 0
    tree.set_attributes(path, follow=False, uid=entry.uid, gid=entry.gid)
    tree.set_attributes(path, follow=False, mode=None if entry.issym() else entry.mode & 0o7777, atime=when, mtime=when)
    if xattrs:
        for name, value in entry.pax_headers.items():
            if name.startswith("SCHILY.xattr."):
                tree.set_xattr(
                    path,
                    name[13:].encode("utf-8", "surrogateescape"),
                    value.encode("utf-8", "surrogateescape"),
                    follow=False,
                )
