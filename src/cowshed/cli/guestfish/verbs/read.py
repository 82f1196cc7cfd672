"""Looking at files: ls, cat, find and what is like them."""

from __future__ import annotations

import errno
import os
import stat as _stat

from ....guest.filesystem.base import GuestError
from ..fish import Failed, Fish
from ..table import command

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from ....guest.tree import Place

#: what a command that returns bytes may return
LARGEST = 1 << 30


def shown(path: bytes) -> str:
    return path.decode("utf-8", "surrogateescape")


def regular(fish: Fish, path: bytes, verb: str = "") -> Place:
    """A regular file that is to be read. Raises Failed."""
    try:
        place = fish.session.tree.resolve(path)
    except GuestError as error:
        raise Failed(f"{verb}{error}") from error
    mode = place.stat().mode
    if _stat.S_ISDIR(mode):
        raise Failed(f"{verb}{shown(path)}: Is a directory")
    if not _stat.S_ISREG(mode):
        raise Failed(f"{verb}{shown(path)}: not a regular file")
    return place


def pieces(fish: Fish, path: bytes, verb: str = "") -> Iterator[bytes]:
    return fish.session.tree.chunks(regular(fish, path, verb))


def whole(fish: Fish, path: bytes, verb: str = "") -> bytes:
    """All bytes of a file, for commands that return them."""
    place = regular(fish, path, verb)
    if place.stat().size > LARGEST:
        raise Failed(f"{shown(path)}: file is too large to be returned whole; use download")
    return b"".join(fish.session.tree.chunks(place))


def put(fish: Fish, name: str, parts: Iterable[bytes]) -> None:
    """Write to a file of the host, "-" for standard output (or what it is piped to). Raises Failed."""
    if name == "-":
        for part in parts:
            fish.out.write(part.decode("utf-8", "surrogateescape"))
        return
    try:
        with open(name, "wb") as file:
            for part in parts:
                file.write(part)
    except OSError as error:
        raise Failed(f"{name}: {error.strerror}") from error


@command("ls", "directory:path", "list", help="list the files in a directory", internal="ls0", step="opendir: ")
def ls(fish: Fish, directory: bytes) -> list[bytes]:
    return fish.session.tree.names(directory)


@command("ls0", "dir:path filenames:out", help="get list of files in a directory", step="opendir: ")
def ls0(fish: Fish, dir: bytes, filenames: str) -> None:
    place = fish.session.tree.directory(dir)
    names = (name for name, _, _ in place.mount.fs.entries(place.number) if name not in (b".", b".."))
    put(fish, filenames, (name + b"\0" for name in names))


@command("ll", "directory:path", "string", help="list the files in a directory (long format)")
def ll(fish: Fish, directory: bytes) -> bytes:
    from ..listing import listing

    return listing(fish.session.tree, directory)


@command("llz", "directory:path", "string", help="list the files in a directory (long format with SELinux contexts)")
def llz(fish: Fish, directory: bytes) -> bytes:
    from ..listing import listing

    return listing(fish.session.tree, directory, context=True)


@command("cat", "path:path", "string", help="list the contents of a file", internal="download")
def cat(fish: Fish, path: bytes) -> bytes:
    _not_a_directory(fish, path)
    return whole(fish, path)


def _not_a_directory(fish: Fish, path: bytes) -> None:
    """download has words of its own."""
    if fish.session.tree.exists(path) and _stat.S_ISDIR(fish.session.tree.stat(path).mode):
        raise Failed(f"{shown(path)}: is a directory")


@command("read-file", "path:path", "buffer", help="read a file", internal="download")
def read_file(fish: Fish, path: bytes) -> bytes:
    _not_a_directory(fish, path)
    return whole(fish, path)


@command("read-lines", "path:path", "list", help="read file as lines", internal="download")
def read_lines(fish: Fish, path: bytes) -> list[bytes]:
    _not_a_directory(fish, path)
    data = whole(fish, path)
    lines = data.split(b"\n")
    if not lines[-1]:
        lines.pop()
    return [line.removesuffix(b"\r") for line in lines]


@command("download", "remotefilename:path filename:out", help="download a file to the local machine")
def download(fish: Fish, remotefilename: bytes, filename: str) -> None:
    tree = fish.session.tree
    _not_a_directory(fish, remotefilename)
    place = regular(fish, remotefilename)
    if filename == "-":
        put(fish, filename, tree.chunks(place))
        return
    from ....guest.transfer import pour

    try:
        fd = os.open(filename, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o666)
    except OSError as error:
        raise HostFailure(f"{filename}: {error.strerror}") from error
    try:
        pour(tree, place, fd)
    finally:
        os.close(fd)


class HostFailure(Failed):
    """The host's side failed; nothing in the message names a command."""

    named = False


@command(
    "download-offset",
    "remotefilename:path filename:out offset:int64 size:int64",
    help="download a file to the local machine with offset and size",
)
def download_offset(fish: Fish, remotefilename: bytes, filename: str, offset: int, size: int) -> None:
    if offset < 0:
        raise Failed("offset in file is negative")
    if size < 0:
        raise Failed("size is negative")
    place = regular(fish, remotefilename)
    put(fish, filename, fish.session.tree.chunks(place, offset, size))


@command("pread", "path:path count:int offset:int64", "buffer", help="read part of a file")
def pread(fish: Fish, path: bytes, count: int, offset: int) -> bytes:
    if count < 0:
        raise Failed("count is negative")
    if offset < 0:
        raise Failed("offset is negative")
    if fish.session.tree.exists(path) and _stat.S_ISDIR(fish.session.tree.stat(path).mode):
        raise Failed(f"pread: {shown(path)}: Is a directory")
    place = regular(fish, path, "open: ")
    return b"".join(fish.session.tree.chunks(place, offset, min(count, LARGEST)))


@command("find", "directory:path", "list", help="find all files and directories", internal="find0")
def find(fish: Fish, directory: bytes) -> list[bytes]:
    return sorted(_below(fish, directory))


def _below(fish: Fish, directory: bytes) -> Iterator[bytes]:
    tree = fish.session.tree
    place = tree.resolve(directory)
    if not _stat.S_ISDIR(place.stat().mode):
        raise Failed(f"{shown(directory)}: not a directory")
    lead = b"" if directory.endswith(b"/") else b"/"
    for found in tree.walk(place):
        if found.path:
            yield lead + found.path


@command("find0", "directory:path files:out", help="find all files and directories, returning NUL-separated list")
def find0(fish: Fish, directory: bytes, files: str) -> None:
    put(fish, files, (name + b"\0" for name in _below(fish, directory)))


@command("readdir", "dir:path", "structs", help="read directories entries", step="opendir: ")
def readdir(fish: Fish, dir: bytes) -> Iterator[list[tuple[str, str | bytes | int]]]:
    for name, ino, kind in fish.session.tree.entries(dir):
        yield [("ino", ino), ("ftyp", kind), ("name", name)]


@command("readlink", "path:path", "string", help="read the target of a symbolic link", step="readlink: ")
def readlink(fish: Fish, path: bytes) -> bytes:
    return fish.session.tree.readlink(path)


@command(
    "readlinklist", "path:path names:list", "list", help="readlink on multiple files", internal="internal_readlinklist",
    step="open: ",
)  # fmt: skip
def readlinklist(fish: Fish, path: bytes, names: list[bytes]) -> list[bytes]:
    tree = fish.session.tree
    tree.directory(path)
    found = []
    for name in names:
        try:
            found.append(tree.readlink(path.rstrip(b"/") + b"/" + name))
        except GuestError:
            found.append(b"")
    return found


@command("realpath", "path:path", "string", help="canonicalized absolute pathname", step="realpath: ")
def realpath(fish: Fish, path: bytes) -> bytes:
    return fish.session.tree.resolve(path).path


@command("case-sensitive-path", "path:path", "string", help="return true path on case-insensitive filesystem")
def case_sensitive_path(fish: Fish, path: bytes) -> bytes:
    from ....guest.search import case_sensitive_path as spelled

    try:
        return spelled(fish.session.tree, path)
    except GuestError as error:
        if error.errno == errno.ENOENT:
            name = str(error).rpartition(": ")[0].rpartition("/")[2]
            raise Failed(f"{name}: not found") from error
        raise


@command("glob-expand glob-expand-opts", "pattern:path [directoryslash:bool]", "list", help="expand a wildcard path")
def glob_expand(fish: Fish, pattern: bytes, directoryslash: bool = True) -> list[bytes]:
    from ....guest.search import glob

    return glob(fish.session.tree, pattern, slash=directoryslash)


@command("du", "path:path", "int", help="estimate file space usage")
def du(fish: Fish, path: bytes) -> int:
    from ....guest.search import disk_usage

    tree = fish.session.tree
    try:
        place = tree.resolve(path, follow=False)
    except GuestError as error:
        reason = os.strerror(error.errno or errno.EIO)
        raise Failed(f"{shown(path)}: du: cannot access '/sysroot{shown(path)}': {reason}") from error
    return (disk_usage(tree, place) + 1023) // 1024
