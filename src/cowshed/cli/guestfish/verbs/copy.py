"""Copies within the guest: cp, mv, dd, copy-size and what is like them."""

from __future__ import annotations

import errno
import os
import stat as _stat

from ....guest.filesystem.base import GuestError
from ..fish import Failed, Fish
from ..table import command
from .device import opened
from .read import regular, shown

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from ....block.node import Node
    from ....guest.tree import Found, Place, Tree


def _source(fish: Fish, name: bytes, program: str) -> Place:
    try:
        return fish.session.tree.resolve(name, follow=False)
    except GuestError as error:
        reason = os.strerror(error.errno or errno.EIO)
        raise Failed(f"{program}: cannot stat '/sysroot{shown(name)}': {reason}") from error


def _target(fish: Fish, source: Place, dest: bytes) -> bytes:
    """Where something called as the source goes: into a directory that is there, else under the name given."""
    tree = fish.session.tree
    place = tree.find(dest)
    if place.ino is not None and _stat.S_ISDIR(place.stat().mode):
        return place.path.rstrip(b"/") + b"/" + source.name
    return dest


def _same(one: Place, tree: Tree, path: bytes, *, follow: bool = True) -> bool:
    """Is the file of that path the same one? What is written is emptied first, so that it can't be read then."""
    other = tree.find(path, follow=follow)
    return other.ino is not None and other.mount.fs is one.mount.fs and other.ino == one.ino


def _refuse_same(source: Place, tree: Tree, path: bytes, program: str, src: bytes, *, follow: bool = True) -> None:
    if _same(source, tree, path, follow=follow):
        raise Failed(f"{program}: '/sysroot{shown(src)}' and '/sysroot{shown(path)}' are the same file")


@command("mv", "src:path dest:path", help="move a file")
def mv(fish: Fish, src: bytes, dest: bytes) -> None:
    tree = fish.session.tree
    source = _source(fish, src, "mv")
    target = _target(fish, source, dest)
    _refuse_same(source, tree, target, "mv", src, follow=False)
    try:
        tree.rename(src, target)
    except GuestError as error:
        if error.errno == errno.EINVAL:
            raise Failed(
                f"mv: cannot move '/sysroot{shown(src)}' to a subdirectory of itself, '/sysroot{shown(target)}'"
            ) from error
        if error.errno != errno.EXDEV:
            raise Failed(
                f"mv: cannot move '/sysroot{shown(src)}' to '/sysroot{shown(target)}': "
                f"{os.strerror(error.errno or errno.EIO)}"
            ) from error
        _copy(fish, source, target, archive=True)
        tree.remove(source.path)


@command("cp", "src:path dest:path", help="copy a file")
def cp(fish: Fish, src: bytes, dest: bytes) -> None:
    _source(fish, src, "cp")
    source = fish.session.tree.resolve(src)
    if _stat.S_ISDIR(source.stat().mode):
        raise Failed(f"cp: -r not specified; omitting directory '/sysroot{shown(src)}'")
    named = fish.session.tree.resolve(src, follow=False)
    try:
        target = _target(fish, named, dest)
    except GuestError as error:
        reason = os.strerror(error.errno or errno.EIO)
        raise Failed(f"cp: cannot create regular file '/sysroot{shown(dest)}': {reason}") from error
    _refuse_same(source, fish.session.tree, target, "cp", src)
    _one(fish, source, target, archive=False)


@command("cp-a", "src:path dest:path", help="copy a file or directory recursively")
def cp_a(fish: Fish, src: bytes, dest: bytes) -> None:
    source = _source(fish, src, "cp")
    _copy(fish, source, _target(fish, source, dest), archive=True)


@command("cp-r", "src:path dest:path", help="copy a file or directory recursively")
def cp_r(fish: Fish, src: bytes, dest: bytes) -> None:
    source = _source(fish, src, "cp")
    _copy(fish, source, _target(fish, source, dest), archive=False)


def _copy(fish: Fish, source: Place, target: bytes, *, archive: bool) -> None:
    """A file or tree under another name; ``archive`` keeps owners, times, attributes and hard links."""
    tree = fish.session.tree
    if not _stat.S_ISDIR(source.stat().mode):
        _refuse_same(source, tree, target, "cp", source.path)
    else:
        there = tree.find(target)
        if there.ino is not None and not _stat.S_ISDIR(there.stat().mode):
            raise Failed(
                f"cp: cannot overwrite non-directory '/sysroot{shown(target)}' with directory "
                f"'/sysroot{shown(source.path)}'"
            )
    found = list(tree.walk(source))
    above = tree.find(target).parent
    while above is not None:
        if above.mount.fs is source.mount.fs and above.ino == source.ino:
            raise Failed(f"cp: cannot copy a directory, '/sysroot{shown(source.path)}', into itself")
        above = above.parent
    linked: dict[tuple[int, int], bytes] = {}
    folders: list[tuple[Found, bytes]] = []
    for item in found:
        path = target + b"/" + item.path if item.path else target
        if item.is_dir:
            if tree.find(path).ino is None:
                tree.mkdir(path, item.stat.mode & 0o7777)
            folders.append((item, path))
            continue
        key = (id(item.place.mount), item.stat.ino)
        if archive and item.stat.nlink > 1 and key in linked:
            tree.link(linked[key], path)
            continue
        _one(fish, item.place, path, archive=archive)
        linked[key] = path
    if archive:
        for item, path in reversed(folders):
            attributes(fish, item.place, path)


def _one(fish: Fish, source: Place, path: bytes, *, archive: bool) -> None:
    tree = fish.session.tree
    stat = source.stat()
    mode = stat.mode
    _refuse_same(source, tree, path, "cp", source.path)
    if _stat.S_ISREG(mode):
        if tree.find(path).ino is None:
            tree.open_file(path, mode & 0o777)
        tree.write(path, tree.chunks(source))
    elif _stat.S_ISLNK(mode):
        if tree.find(path, follow=False).ino is not None:
            tree.unlink(path)
        tree.symlink(source.mount.fs.readlink(source.number), path)
    else:
        tree.make(path, mode & ~tree.umask, rdev=stat.rdev)
    if archive:
        attributes(fish, source, path)


def attributes(
    fish: Fish,
    source: Place,
    path: bytes,
    *,
    mode: bool = True,
    owner: bool = True,
    times: bool = True,
    xattrs: bool = True,
) -> None:
    """Give a file what another one has."""
    tree = fish.session.tree
    stat = source.stat()
    if owner:
        tree.set_attributes(path, follow=False, uid=stat.uid, gid=stat.gid)
    if xattrs:
        for name, value in source.mount.fs.xattrs(source.number).items():
            tree.set_xattr(path, name, value, follow=False)
    keep = mode and not _stat.S_ISLNK(stat.mode)
    if keep or times:
        tree.set_attributes(
            path,
            follow=False,
            mode=stat.mode & 0o7777 if keep else None,
            atime=stat.atime if times else None,
            mtime=stat.mtime if times else None,
        )


@command(
    "copy-attributes",
    "src:path dest:path [all:bool] [mode:bool] [xattributes:bool] [ownership:bool]",
    help="copy the attributes of a path (file/directory) to another",
)
def copy_attributes(
    fish: Fish,
    src: bytes,
    dest: bytes,
    all: bool = False,
    mode: bool = False,
    xattributes: bool = False,
    ownership: bool = False,
) -> None:
    tree = fish.session.tree
    try:
        source = tree.resolve(src)
        real = tree.resolve(dest).path
    except GuestError as error:
        raise Failed(f"stat: {error}") from error
    attributes(fish, source, real, mode=all or mode, owner=all or ownership, times=False, xattrs=all or xattributes)


class _End:
    """A file or a device, read or written at an offset."""

    def __init__(self, fish: Fish, name: str, device: bool, command_name: str) -> None:
        self.fish = fish
        self.name = name
        self.node: Node | None = opened(fish, name, command_name) if device else None
        self.path = os.fsencode(name)

    def size(self) -> int:
        if self.node is not None:
            return self.node.size
        return self.fish.session.tree.stat(self.path).size

    def pieces(self, offset: int, length: int) -> Iterator[bytes]:
        if self.node is None:
            yield from self.fish.session.tree.chunks(regular(self.fish, self.path), offset, length)
            return
        while length > 0:
            count = min(length, 4 << 20)
            yield self.node.read(offset, count)
            offset += count
            length -= count

    def write(self, offset: int, data: bytes) -> None:
        if self.node is None:
            self.fish.session.tree.write_at(self.path, offset, data)
            return
        if offset + len(data) > self.node.size:
            raise Failed(f"{self.name}: No space left on device")
        self.node.write(offset, data)


def _between(
    fish: Fish, source: _End, target: _End, srcoffset: int, destoffset: int, size: int | None, append: bool
) -> None:
    for word, value in (("srcoffset", srcoffset), ("destoffset", destoffset)):
        if value < 0:
            raise Failed(f"{word} is negative")
    if size is None:
        size = max(0, source.size() - srcoffset)
        exact = False
    else:
        exact = True
        if size < 0:
            raise Failed("size is negative")
    if source.size() - srcoffset < size and exact:
        raise Failed(f"{source.name}: input too short")
    if target.node is None:
        tree = fish.session.tree
        if source.node is None and not append and _same(tree.resolve(source.path), tree, target.path):
            raise Failed(f"{source.name} and {target.name} are the same file")
        if append and destoffset == 0 and tree.exists(target.path):
            destoffset = target.size()
        tree.open_file(target.path)
        if not append:
            tree.truncate(target.path, 0)
    for piece in source.pieces(srcoffset, size):
        target.write(destoffset, piece)
        destoffset += len(piece)
    if target.node is not None:
        target.node.flush()
        fish.session.devices.forget()


_OFFSETS = "[srcoffset:int64] [destoffset:int64] [size:int64] [sparse:bool] [append:bool]"


def _copying(name: str, from_device: bool, to_device: bool, help: str) -> None:
    internal = name.replace("-", "_")

    def run(
        fish: Fish,
        src: bytes | str,
        dest: bytes | str,
        srcoffset: int = 0,
        destoffset: int = 0,
        size: int | None = None,
        sparse: bool = False,
        append: bool = False,
    ) -> None:
        source = _End(fish, src if isinstance(src, str) else os.fsdecode(src), from_device, internal)
        target = _End(fish, dest if isinstance(dest, str) else os.fsdecode(dest), to_device, internal)
        _between(fish, source, target, srcoffset, destoffset, size, append)

    run.__qualname__ = name
    kinds = ("device" if from_device else "path", "device" if to_device else "path")
    command(name, f"src:{kinds[0]} dest:{kinds[1]} {_OFFSETS}", help=help)(run)


_copying("copy-file-to-file", False, False, "copy from source file to destination file")
_copying("copy-file-to-device", False, True, "copy from source file to destination device")
_copying("copy-device-to-file", True, False, "copy from source device to destination file")
_copying("copy-device-to-device", True, True, "copy from source device to destination device")


@command("copy-size", "src:path dest:path size:int64", help="copy size bytes from source to destination")
def copy_size(fish: Fish, src: bytes, dest: bytes, size: int) -> None:
    source = regular(fish, src)
    if source.stat().size < size or size < 0:
        raise Failed(f"{shown(src)}: input file too short")
    if _same(source, fish.session.tree, dest):
        raise Failed(f"{shown(src)} and {shown(dest)} are the same file")
    fish.session.tree.write(dest, fish.session.tree.chunks(source, 0, size))


@command("dd", "src:place dest:place", help="copy from source to destination using dd")
def dd(fish: Fish, src: str, dest: str) -> None:
    source = _End(fish, src, src.startswith("/dev/"), "dd")
    target = _End(fish, dest, dest.startswith("/dev/"), "dd")
    try:
        _between(fish, source, target, 0, 0, None, False)
    except GuestError as error:
        what = f"failed to open '{'' if target.node is not None else '/sysroot'}{str(error).rpartition(': ')[0]}'"
        raise Failed(f"{src}: {dest}: dd: {what}: {os.strerror(error.errno or errno.EIO)}") from error
