"""Trees in and out: copy-in, copy-out, tar, base64, compressed."""

from __future__ import annotations

import os
import stat as _stat

from ....errors import UsageError
from ....guest.filesystem.base import GuestError
from ..arguments import Refused
from ..fish import Failed, Fish
from ..table import command
from .read import HostFailure, pieces, put, shown
from .write import host_pieces

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from typing import IO, Any


def _warn(fish: Fish) -> Callable[[str], None]:
    return lambda text: fish.say(f"guestfish: warning: {text}")


@command("copy-out", "remote:words", help="copy remote files or directories out of an image", local=True)
def copy_out(fish: Fish, words: list[str]) -> None:
    from ....guest.transfer import copy_out as copy

    if len(words) < 2:
        raise Refused("use 'copy-out <remote> [<remote>...] <localdir>' to copy files out of the image")
    *sources, target = words
    if not os.path.isdir(target):
        raise HostFailure(f"target ‘{target}’ is not a directory")
    fish.need_running("is_file")
    from ....guest.search import glob

    for source in sources:
        for path in glob(fish.session.tree, os.fsencode(source)) or [os.fsencode(source)]:
            fish.need_root("is_file")
            try:
                copy(fish.session.tree, path, target, _warn(fish))
            except GuestError as error:
                if not fish.session.tree.exists(path):
                    raise HostFailure(f"‘{shown(path)}’ is not a file or directory") from error
                raise


@command("copy-in", "local:words", help="copy local files or directories into an image", local=True)
def copy_in(fish: Fish, words: list[str]) -> None:
    from ....guest.transfer import copy_in as copy

    if len(words) < 2:
        raise Refused("use 'copy-in <local> [<local>...] <remotedir>' to copy files into the image")
    *sources, target = words
    tree = fish.session.tree
    for source in sources:
        if not os.path.lexists(source):
            raise HostFailure(f"source ‘{source}’ does not exist (or cannot be read)")
    fish.need_running("is_dir")
    fish.need_root("is_dir")
    raw = os.fsencode(target)
    if not tree.exists(raw) or not _stat.S_ISDIR(tree.stat(raw).mode):
        raise HostFailure(f"target ‘{target}’ is not a directory")
    for source in sources:
        copy(tree, source, raw, _warn(fish))


class _Sink:
    """A host's file, or the output, as something tarfile writes to."""

    def __init__(self, fish: Fish, name: str) -> None:
        self._fish = fish
        self._file: IO[bytes] | None = None
        if name != "-":
            try:
                fd = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o666)
                self._file = os.fdopen(fd, "wb")
            except OSError as error:
                raise HostFailure(f"{name}: {error.strerror}") from error

    def write(self, data: bytes) -> int:
        if self._file is not None:
            return self._file.write(data)
        self._fish.out.write(data.decode("utf-8", "surrogateescape"))
        return len(data)

    def close(self) -> None:
        if self._file is not None:
            self._file.close()


class _Source:
    """What tarfile reads: a host's file, standard input, or lines that follow."""

    def __init__(self, parts: Iterator[bytes]) -> None:
        self._parts = parts
        self._kept = b""

    def read(self, count: int) -> bytes:
        while len(self._kept) < count:
            part = next(self._parts, b"")
            if not part:
                break
            self._kept += part
        data, self._kept = self._kept[:count], self._kept[count:]
        return data


def _tar_out(fish: Fish, directory: bytes, name: str, compression: str, **options: object) -> None:
    from ....guest.archive import tar_out as pack

    try:
        place = fish.session.tree.resolve(directory)
    except GuestError as error:
        raise Failed(f"stat: {error}") from error
    if not _stat.S_ISDIR(place.stat().mode):
        raise Failed(f"{shown(directory)}: not a directory")
    sink = _Sink(fish, name)
    try:
        pack(fish.session.tree, directory, sink, compression=compression, **options)  # type: ignore[arg-type]
    except UsageError as error:
        raise Failed(str(error)) from error
    finally:
        sink.close()


def _tar_in(fish: Fish, name: str, directory: bytes, compression: str, xattrs: bool = False) -> None:
    from ....guest.archive import tar_in as unpack
    from .write import opened

    try:
        source = _Source(opened(host_pieces(fish, name)))
        unpack(fish.session.tree, source, directory, compression=compression, xattrs=xattrs)  # type: ignore[arg-type]
    except UsageError as error:
        raise Failed(str(error)) from error


_TAR_OUT = (
    "directory:path tarfile:out [compress:string] [numericowner:bool] [excludes:names] [xattrs:bool] [selinux:bool] "
    "[acls:bool]"
)


@command("tar-out tar-out-opts", _TAR_OUT, help="pack directory into tarfile")
def tar_out(
    fish: Fish,
    directory: bytes,
    tarfile: str,
    compress: str = "",
    numericowner: bool = False,
    excludes: Iterable[str] = (),
    xattrs: bool = False,
    selinux: bool = False,
    acls: bool = False,
) -> None:
    _tar_out(fish, directory, tarfile, compress, excludes=excludes, xattrs=xattrs or selinux or acls)


@command("tgz-out", "directory:path tarball:out", help="pack directory into compressed tarball")
def tgz_out(fish: Fish, directory: bytes, tarball: str) -> None:
    _tar_out(fish, directory, tarball, "gzip")


@command("txz-out", "directory:path tarball:out", help="pack directory into compressed tarball")
def txz_out(fish: Fish, directory: bytes, tarball: str) -> None:
    _tar_out(fish, directory, tarball, "xz")


@command(
    "tar-in tar-in-opts",
    "tarfile:in directory:path [compress:string] [xattrs:bool] [selinux:bool] [acls:bool]",
    help="unpack tarfile to directory",
)
def tar_in(
    fish: Fish,
    tarfile: str,
    directory: bytes,
    compress: str = "",
    xattrs: bool = False,
    selinux: bool = False,
    acls: bool = False,
) -> None:
    _tar_in(fish, tarfile, directory, compress, xattrs or selinux or acls)


@command("tgz-in", "tarball:in directory:path", help="unpack compressed tarball to directory")
def tgz_in(fish: Fish, tarball: str, directory: bytes) -> None:
    _tar_in(fish, tarball, directory, "gzip")


@command("txz-in", "tarball:in directory:path", help="unpack compressed tarball to directory")
def txz_in(fish: Fish, tarball: str, directory: bytes) -> None:
    _tar_in(fish, tarball, directory, "xz")


@command("base64-out", "filename:path base64file:out", help="download file and encode as base64")
def base64_out(fish: Fish, filename: bytes, base64file: str) -> None:
    import binascii

    def lines() -> Iterator[bytes]:
        kept = b""
        for piece in pieces(fish, filename, "stat: "):
            data = kept + piece
            whole = len(data) - len(data) % 57
            for at in range(0, whole, 57):
                yield binascii.b2a_base64(data[at : at + 57])
            kept = data[whole:]
        if kept:
            yield binascii.b2a_base64(kept)

    put(fish, base64file, lines())


@command("base64-in", "base64file:in filename:path", help="upload base64-encoded data to file")
def base64_in(fish: Fish, base64file: str, filename: bytes) -> None:
    import binascii

    def decoded() -> Iterator[bytes]:
        kept = b""
        for piece in host_pieces(fish, base64file):
            data = kept + bytes(piece).translate(None, b" \t\r\n")
            whole = len(data) - len(data) % 4
            try:
                yield binascii.a2b_base64(data[:whole], strict_mode=True)
            except binascii.Error as error:
                raise Failed("base64 subcommand failed: base64: invalid input") from error
            kept = data[whole:]
        if kept:
            raise Failed("base64 subcommand failed: base64: invalid input")

    fish.session.tree.write(filename, decoded())


def _compressed(kind: str, level: int | None, parts: Iterable[bytes]) -> Iterator[bytes]:
    import bz2
    import lzma
    import zlib

    if level is not None and not 1 <= level <= 9:
        raise Failed(f"{kind}: incorrect value for level parameter")
    packer: Any
    if kind == "gzip":
        packer = zlib.compressobj(6 if level is None else level, zlib.DEFLATED, 31)
    elif kind == "bzip2":
        packer = bz2.BZ2Compressor(9 if level is None else level)
    elif kind == "xz":
        packer = lzma.LZMACompressor(preset=6 if level is None else level)
    else:
        raise Failed("unknown compression type")
    for part in parts:
        yield packer.compress(part)
    yield packer.flush()


@command("compress-out", "ctype:string file:path zfile:out [level:int]", help="output compressed file")
def compress_out(fish: Fish, ctype: str, file: bytes, zfile: str, level: int | None = None) -> None:
    put(fish, zfile, _compressed(ctype, level, pieces(fish, file)))


@command("compress-device-out", "ctype:string device:device zdevice:out [level:int]", help="output compressed device")
def compress_device_out(fish: Fish, ctype: str, device: str, zdevice: str, level: int | None = None) -> None:
    from .device import device_pieces

    put(fish, zdevice, _compressed(ctype, level, device_pieces(fish, device)))


@command("cpio-out", "directory:path cpiofile:out [format:string]", help="pack directory into cpio file")
def cpio_out(fish: Fish, directory: bytes, cpiofile: str, format: str = "newc") -> None:
    if format not in ("newc", "crc"):
        raise Failed(f"{format}: format must be 'newc' or 'crc'")
    tree = fish.session.tree
    try:
        place = tree.directory(directory)
    except GuestError as error:
        raise Failed(f"stat: {error}") from error

    def parts() -> Iterator[bytes]:
        written = 0
        for found in tree.walk(place):
            stat = found.stat
            mode = stat.mode
            body: Iterable[bytes] = ()
            size = 0
            total = 0
            if _stat.S_ISLNK(mode):
                target = found.place.mount.fs.readlink(found.place.number)
                body, size = (target,), len(target)
            elif _stat.S_ISREG(mode):
                if stat.size >> 32:
                    raise Failed(f"{shown(found.place.path)}: too large for a cpio archive")
                size = stat.size
                body = tree.chunks(found.place)
                if format == "crc":
                    total = sum(sum(piece) for piece in tree.chunks(found.place)) & 0xFFFFFFFF
            head = _cpio_head(found.path or b".", stat.ino, mode, stat.uid, stat.gid, stat.nlink, stat.mtime // 10**9,
                              size, stat.rdev, total, format == "crc")  # fmt: skip
            yield head
            yield from body
            yield bytes(-size % 4)
            written += len(head) + size + -size % 4
        tail = _cpio_head(b"TRAILER!!!", 0, 0, 0, 0, 1, 0, 0, 0, 0, format == "crc")
        yield tail
        yield bytes(-(written + len(tail)) % 512)

    put(fish, cpiofile, parts())


def _cpio_head(
    name: bytes, ino: int, mode: int, uid: int, gid: int, nlink: int, mtime: int, size: int, rdev: int, total: int,
    crc: bool,
) -> bytes:  # fmt: skip
    fields = (ino, mode, uid, gid, nlink, mtime, size, 0, 0, os.major(rdev), os.minor(rdev), len(name) + 1, total)
    head = (b"070702" if crc else b"070701") + b"".join(b"%08X" % (field & 0xFFFFFFFF) for field in fields)
    text = head + name + b"\0"
    return text + bytes(-len(text) % 4)
