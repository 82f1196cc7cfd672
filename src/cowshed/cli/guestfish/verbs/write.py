"""Changing files: write, mkdir, rm, chmod and what is like them."""

from __future__ import annotations

import errno
import os
import stat as _stat

from ....guest.filesystem.base import GuestError
from ..fish import Failed, Fish
from ..table import command
from .read import HostFailure, shown

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator


@command("write", "path:path content:bytes", help="create a new file", internal="internal_write", step="open: ")
def write(fish: Fish, path: bytes, content: bytes) -> None:
    fish.session.tree.write(path, [content])


@command(
    "write-append", "path:path content:bytes", help="append content to end of file",
    internal="internal_write_append", step="open: ",
)  # fmt: skip
def write_append(fish: Fish, path: bytes, content: bytes) -> None:
    fish.session.tree.write(path, [content], append=True)


@command("write-file", "path:path content:bytes size:int", help="create a file", step="open: ")
def write_file(fish: Fish, path: bytes, content: bytes, size: int) -> None:
    fish.session.tree.write(path, [content[:size] if size else content])


def host_pieces(fish: Fish, name: str) -> Iterator[bytes]:
    """The bytes of a host's file, of standard input for "-" or of lines that follow for "-<<END". Raises Failed."""
    from ....guest.transfer import pieces_of

    if name.startswith("-<<"):
        yield fish.heredoc(name[3:])
        return
    if name == "-":
        yield from pieces_of(0)
        return
    try:
        fd = os.open(name, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        raise HostFailure(f"open: {name}: {error.strerror}") from error
    try:
        yield from pieces_of(fd)
    except OSError as error:
        raise HostFailure(f"read: {name}: {error.strerror}") from error
    finally:
        os.close(fd)


def opened(source: Iterator[bytes]) -> Iterator[bytes]:
    """The same, with the first piece read: what can't be opened is told before anything changes."""
    import itertools

    first = next(source, b"")
    return itertools.chain((first,), source)


@command("upload", "filename:in remotefilename:path", help="upload a file from the local machine")
def upload(fish: Fish, filename: str, remotefilename: bytes) -> None:
    fish.session.tree.write(remotefilename, opened(host_pieces(fish, filename)))


@command(
    "upload-offset",
    "filename:in remotefilename:path offset:int64",
    help="upload a file from the local machine with offset",
)
def upload_offset(fish: Fish, filename: str, remotefilename: bytes, offset: int) -> None:
    if offset < 0:
        raise Failed("offset in file is negative")
    for piece in opened(host_pieces(fish, filename)):
        offset += fish.session.tree.write_at(remotefilename, offset, piece)


@command("pwrite", "path:path content:bytes offset:int64", "int", help="write to part of a file", step="open: ")
def pwrite(fish: Fish, path: bytes, content: bytes, offset: int) -> int:
    if offset < 0:
        raise Failed("offset is negative")
    fish.session.tree.regular(path)
    return fish.session.tree.write_at(path, offset, content)


@command("touch", "path:path", help="update file timestamps or create a new file")
def touch(fish: Fish, path: bytes) -> None:
    import time

    tree = fish.session.tree
    try:
        place = tree.find(path)
        if place.ino is not None and not _stat.S_ISREG(place.stat().mode):
            raise Failed(f"{shown(path)}: touch can only be used on a regular files")
        tree.open_file(path)
        now = time.time_ns()
        tree.set_attributes(path, atime=now, mtime=now)
    except GuestError as error:
        raise Failed(f"open: {error}") from error


@command("truncate", "path:path", help="truncate a file to zero size", step="open: ")
def truncate(fish: Fish, path: bytes) -> None:
    fish.session.tree.truncate(path, 0)


@command("truncate-size", "path:path size:int64", help="truncate a file to a particular size", step="open: ")
def truncate_size(fish: Fish, path: bytes, size: int) -> None:
    if size < 0:
        raise Failed(f"ftruncate: {shown(path)}: Invalid argument")
    fish.session.tree.truncate(path, size)


@command("mkdir", "path:path", help="create a directory")
def mkdir(fish: Fish, path: bytes) -> None:
    fish.session.tree.mkdir(path)


@command("mkdir-p", "path:path", help="create a directory and parents")
def mkdir_p(fish: Fish, path: bytes) -> None:
    fish.session.tree.mkdirs(path)


def check_mode(path: bytes, mode: int) -> None:
    if mode < 0:
        raise Failed(f"{shown(path)}: mode is negative")


@command("mkdir-mode", "path:path mode:int", help="create a directory with a particular mode")
def mkdir_mode(fish: Fish, path: bytes, mode: int) -> None:
    check_mode(path, mode)
    fish.session.tree.mkdir(path, mode)


@command("rm", "path:path", help="remove a file")
def rm(fish: Fish, path: bytes) -> None:
    fish.session.tree.unlink(path)


@command("rm-f", "path:path", help="remove a file ignoring errors")
def rm_f(fish: Fish, path: bytes) -> None:
    try:
        fish.session.tree.unlink(path)
    except GuestError as error:
        if error.errno != errno.ENOENT:
            raise


@command("rm-rf", "path:path", help="remove a file or directory recursively")
def rm_rf(fish: Fish, path: bytes) -> None:
    if not path.strip(b"/"):
        raise Failed("cannot remove root directory")
    fish.session.tree.remove(path)


@command("rmdir", "path:path", help="remove a directory")
def rmdir(fish: Fish, path: bytes) -> None:
    fish.session.tree.rmdir(path)


@command("chmod", "mode:int path:path", help="change file mode")
def chmod(fish: Fish, mode: int, path: bytes) -> None:
    check_mode(path, mode)
    try:
        fish.session.tree.set_attributes(path, mode=mode & 0o7777)
    except GuestError as error:
        shape = f"0{mode:o}" if mode else "0"
        raise Failed(f"{shown(path)}: {shape}: {os.strerror(error.errno or errno.EIO)}") from error


def _chown(fish: Fish, owner: int, group: int, path: bytes, follow: bool) -> None:
    try:
        fish.session.tree.set_attributes(
            path, follow=follow, uid=None if owner == -1 else owner, gid=None if group == -1 else group
        )
    except GuestError as error:
        raise Failed(f"{shown(path)}: {owner}.{group}: {os.strerror(error.errno or errno.EIO)}") from error


@command("chown", "owner:int group:int path:path", help="change file owner and group")
def chown(fish: Fish, owner: int, group: int, path: bytes) -> None:
    _chown(fish, owner, group, path, True)


@command("lchown", "owner:int group:int path:path", help="change file owner and group")
def lchown(fish: Fish, owner: int, group: int, path: bytes) -> None:
    _chown(fish, owner, group, path, False)


@command(
    "utimens",
    "path:path atsecs:int64 atnsecs:int64 mtsecs:int64 mtnsecs:int64",
    help="set timestamp of a file with nanosecond precision",
)
def utimens(fish: Fish, path: bytes, atsecs: int, atnsecs: int, mtsecs: int, mtnsecs: int) -> None:
    import time

    if not all(-2 <= rest < 10**9 for rest in (atnsecs, mtnsecs)):
        raise Failed(f"utimensat: {shown(path)}: Invalid argument")

    def when(seconds: int, rest: int) -> int | None:
        # -1: now; -2: as it is
        return time.time_ns() if rest == -1 else None if rest == -2 else seconds * 10**9 + rest

    fish.session.tree.set_attributes(path, follow=False, atime=when(atsecs, atnsecs), mtime=when(mtsecs, mtnsecs))


@command("umask", "mask:int", "octal", help="set file mode creation mask (umask)")
def umask(fish: Fish, mask: int) -> int:
    if not 0 <= mask <= 0o777:
        raise Failed(f"0{mask & 0xFFFFFFFF:o}: mask negative or out of range")
    tree = fish.session.tree
    old, tree.umask = tree.umask, mask
    return old


@command("get-umask", "", "octal", help="get the current umask")
def get_umask(fish: Fish) -> int:
    return fish.session.tree.umask


def _pair(error: GuestError, step: str, target: bytes, name: bytes) -> Failed:
    return Failed(f"{step}{shown(target)}: {shown(name)}: {os.strerror(error.errno or errno.EIO)}")


def _within(fish: Fish, target: bytes, linkname: bytes) -> bytes:
    """Where ln makes a link: in a directory that is there, else under the name given."""
    try:
        place = fish.session.tree.find(linkname)
    except GuestError:
        # a link that leads nowhere, or a way that doesn't: told when the link is made
        return linkname
    if place.ino is not None and _stat.S_ISDIR(place.stat().mode):
        return place.path.rstrip(b"/") + b"/" + target.rstrip(b"/").rpartition(b"/")[2]
    return linkname


@command("ln", "target:bytes linkname:path", help="create a hard link")
def ln(fish: Fish, target: bytes, linkname: bytes) -> None:
    try:
        fish.session.tree.link(target, linkname)
    except GuestError as error:
        raise _pair(error, "link: ", target, linkname) from error


@command("ln-f", "target:bytes linkname:path", help="create a hard link")
def ln_f(fish: Fish, target: bytes, linkname: bytes) -> None:
    tree = fish.session.tree
    linkname = _within(fish, target, linkname)
    try:
        source, place = tree.resolve(target, follow=False), tree.find(linkname, follow=False)
        if place.ino is not None:
            if place.mount.fs is source.mount.fs and place.ino == source.ino:
                return
            tree.unlink(linkname)
        tree.link(target, linkname)
    except GuestError as error:
        raise _pair(error, "ln -f: ", target, linkname) from error


@command("ln-s", "target:bytes linkname:path", help="create a symbolic link")
def ln_s(fish: Fish, target: bytes, linkname: bytes) -> None:
    linkname = _within(fish, target, linkname)
    try:
        fish.session.tree.symlink(target, linkname)
    except GuestError as error:
        raise Failed(
            f"ln -s: {shown(target)}: {shown(linkname)}: ln: failed to create symbolic link "
            f"'/sysroot{shown(linkname)}'{'' if target else ' -> ' + chr(39) * 2}: "
            f"{os.strerror(error.errno or errno.EIO)}"
        ) from error


@command("ln-sf", "target:bytes linkname:path", help="create a symbolic link")
def ln_sf(fish: Fish, target: bytes, linkname: bytes) -> None:
    tree = fish.session.tree
    linkname = _within(fish, target, linkname)
    try:
        if tree.find(linkname, follow=False).ino is not None:
            tree.unlink(linkname)
        tree.symlink(target, linkname)
    except GuestError as error:
        raise _pair(error, "ln -sf: ", target, linkname) from error


@command("rename", "oldpath:path newpath:path", help="rename a file on the same filesystem")
def rename(fish: Fish, oldpath: bytes, newpath: bytes) -> None:
    try:
        fish.session.tree.rename(oldpath, newpath)
    except GuestError as error:
        raise _pair(error, "rename: ", oldpath, newpath) from error


@command("mknod", "mode:int devmajor:int devminor:int path:path", help="make block, character or FIFO devices")
def mknod(fish: Fish, mode: int, devmajor: int, devminor: int, path: bytes) -> None:
    check_mode(path, mode)
    kind = _stat.S_IFMT(mode) or _stat.S_IFREG
    fish.session.tree.make(path, kind | (mode & 0o7777 & ~fish.session.tree.umask), rdev=os.makedev(devmajor, devminor))


@command("mknod-b", "mode:int devmajor:int devminor:int path:path", help="make block device node")
def mknod_b(fish: Fish, mode: int, devmajor: int, devminor: int, path: bytes) -> None:
    mknod(fish, mode & 0o7777 | _stat.S_IFBLK, devmajor, devminor, path)


@command("mknod-c", "mode:int devmajor:int devminor:int path:path", help="make char device node")
def mknod_c(fish: Fish, mode: int, devmajor: int, devminor: int, path: bytes) -> None:
    mknod(fish, mode & 0o7777 | _stat.S_IFCHR, devmajor, devminor, path)


@command("mkfifo", "mode:int path:path", help="make FIFO (named pipe)")
def mkfifo(fish: Fish, mode: int, path: bytes) -> None:
    mknod(fish, mode & 0o7777 | _stat.S_IFIFO, 0, 0, path)


def _random_name(template: bytes, suffix: bytes = b"") -> bytes:
    if not template.endswith(b"XXXXXX"):
        raise Failed(f"{shown(template)}: Invalid argument")
    import secrets

    letters = b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"
    return template[:-6] + bytes(secrets.choice(letters) for _ in range(6)) + suffix


@command("mkdtemp", "tmpl:path", "string", help="create a temporary directory")
def mkdtemp(fish: Fish, tmpl: bytes) -> bytes:
    name = _random_name(tmpl)
    try:
        fish.session.tree.mkdir(name, 0o700)
    except GuestError as error:
        raise Failed(f"{shown(tmpl)}: {os.strerror(error.errno or errno.EIO)}") from error
    return name


@command("mktemp", "tmpl:path [suffix:string]", "string", help="create a temporary file")
def mktemp(fish: Fish, tmpl: bytes, suffix: str = "") -> bytes:
    name = _random_name(tmpl, os.fsencode(suffix))
    fish.session.tree.make(name, _stat.S_IFREG | 0o600)
    return name


def _set_xattr(fish: Fish, name: str, value: bytes, size: int, path: bytes, follow: bool) -> None:
    if size > len(value):
        raise Failed("size of value is larger than the buffer")
    try:
        fish.session.tree.set_xattr(path, os.fsencode(name), value[:size], follow)
    except GuestError as error:
        raise Failed(f"setxattr: {os.strerror(error.errno or errno.EIO)}") from error


@command(
    "setxattr",
    "xattr:string val:bytes vallen:int path:path",
    help="set extended attribute of a file or directory",
    step="setxattr: ",
)
def setxattr(fish: Fish, xattr: str, val: bytes, vallen: int, path: bytes) -> None:
    _set_xattr(fish, xattr, val, vallen, path, True)


@command(
    "lsetxattr",
    "xattr:string val:bytes vallen:int path:path",
    help="set extended attribute of a file or directory",
    step="lsetxattr: ",
)
def lsetxattr(fish: Fish, xattr: str, val: bytes, vallen: int, path: bytes) -> None:
    _set_xattr(fish, xattr, val, vallen, path, False)


def _remove_xattr(fish: Fish, name: str, path: bytes, follow: bool) -> None:
    try:
        fish.session.tree.remove_xattr(path, os.fsencode(name), follow)
    except GuestError as error:
        raise Failed(f"removexattr: {os.strerror(error.errno or errno.EIO)}") from error


@command(
    "removexattr",
    "xattr:string path:path",
    help="remove extended attribute of a file or directory",
    step="removexattr: ",
)
def removexattr(fish: Fish, xattr: str, path: bytes) -> None:
    _remove_xattr(fish, xattr, path, True)


@command(
    "lremovexattr",
    "xattr:string path:path",
    help="remove extended attribute of a file or directory",
    step="lremovexattr: ",
)
def lremovexattr(fish: Fish, xattr: str, path: bytes) -> None:
    _remove_xattr(fish, xattr, path, False)


@command("fill", "c:int len:int path:path", help="fill a file with octets")
def fill(fish: Fish, c: int, len: int, path: bytes) -> None:
    if not 0 <= c <= 255:
        raise Failed(f"{c}: byte number must be in range 0..255")
    _fill(fish, bytes((c,)), len, path)


@command("fill-pattern", "pattern:bytes len:int path:path", help="fill a file with a repeating pattern of bytes")
def fill_pattern(fish: Fish, pattern: bytes, len: int, path: bytes) -> None:
    if not pattern:
        raise Failed("pattern string must be non-empty")
    _fill(fish, pattern, len, path)


def _fill(fish: Fish, pattern: bytes, total: int, path: bytes) -> None:
    if total < 0:
        raise Failed(f"{total}: length is < 0")

    def parts() -> Iterator[bytes]:
        block = pattern * max(1, (1 << 20) // len(pattern))
        left = total
        while left > 0:
            yield block[:left]
            left -= min(left, len(block))

    fish.session.tree.write(path, parts())


@command("fallocate64", "path:path len:int64", help="preallocate a file in the guest filesystem", step="open: ")
def fallocate64(fish: Fish, path: bytes, len: int) -> None:
    if len < 0:
        raise Failed(f"{len}: invalid length")
    fish.session.tree.open_file(path)
    fish.session.tree.truncate(path, len)


@command("fallocate", "path:path len:int", help="preallocate a file in the guest filesystem", step="open: ")
def fallocate(fish: Fish, path: bytes, len: int) -> None:
    fallocate64(fish, path, len)


@command("fill-dir", "dir:path nr:int", help="fill a directory with empty files", step="create: ")
def fill_dir(fish: Fish, dir: bytes, nr: int) -> None:
    for number in range(nr):
        fish.session.tree.open_file(dir.rstrip(b"/") + b"/%08d" % number)
