"""Trees of files between the host and a guest. What a guest calls its files never decides where the host writes.

Copying out goes through directory descriptors of the target only: every name is one component, nothing is followed,
nothing that exists is written through. Device nodes, FIFOs and sockets of a guest are left out, with a warning.
"""

from __future__ import annotations

import errno
import os
import stat as _stat

from ..errors import CorruptError, HostError, host_error
from ..ops.sparse import is_zero
from .filesystem.base import GuestError
from .mounts import STEP
from .place import escaped

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from .tree import Found, Place, Tree

    Warn = Callable[[str], None]


def copy_out(tree: Tree, path: bytes, target: str, warn: Warn) -> None:
    """Copy a guest's file or directory into the directory ``target`` of the host, under its own name.

    Modes (without set-id bits) and times are kept, owners when run as root are not. Raises GuestError, HostError.
    """
    place = tree.resolve(path, follow=False)
    name = place.name or b""
    try:
        folder = os.open(target, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        raise host_error(error, target, target) from error
    #: descriptors of the directories above what comes next, and what is still to be set on each when it is left
    stack: list[tuple[int, bytes, Found | None]] = [(folder, b"", None)]
    try:
        for found in tree.walk(place):
            # the whole of / has no name of its own: its contents go into the target
            if not name and not found.depth:
                continue
            level = found.depth + 1 if name else found.depth
            while len(stack) > level:
                _leave(stack)
            own = found.name or name
            _check_name(own)
            try:
                _put(tree, found, own, stack, warn)
            except OSError as error:
                raise host_error(error, os.path.join(target, escaped(own)), target) from error
    finally:
        while len(stack) > 1:
            _leave(stack)
        os.close(folder)


def _check_name(name: bytes) -> None:
    if name in (b"", b".", b"..") or b"/" in name or b"\0" in name:
        raise HostError(
            f"a file of the guest has the name '{escaped(name)}', which is not copied out", errno=errno.EINVAL
        )


def _leave(stack: list[tuple[int, bytes, Found | None]]) -> None:
    fd, _, found = stack.pop()
    try:
        if found is not None:
            os.fchmod(fd, found.stat.mode & 0o777)
            os.utime(fd, ns=(found.stat.atime, found.stat.mtime))
    except (OSError, OverflowError):
        pass
    finally:
        os.close(fd)


def _put(tree: Tree, found: Found, name: bytes, stack: list[tuple[int, bytes, Found | None]], warn: Warn) -> None:
    """Make one thing in the innermost directory of the host."""
    folder = stack[-1][0]
    mode = found.stat.mode
    if _stat.S_ISDIR(mode):
        try:
            os.mkdir(name, 0o700, dir_fd=folder)
        except FileExistsError:
            pass
        # a symbolic link that waits there under this name is refused, not followed
        fd = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=folder)
        stack.append((fd, name, found))
        return
    if not (_stat.S_ISREG(mode) or _stat.S_ISLNK(mode)):
        warn(f"{escaped(found.place.path)}: device nodes, FIFOs and sockets are not copied out")
        return
    try:
        os.unlink(name, dir_fd=folder)
    except FileNotFoundError:
        pass
    if _stat.S_ISLNK(mode):
        target = found.place.mount.fs.readlink(found.place.number)
        if not target or b"\0" in target:
            raise CorruptError(
                f"{escaped(found.place.path)}: a symbolic link that leads nowhere", layer=found.place.mount.fs.kind,
                field="target", value=escaped(target),
            )  # fmt: skip
        os.symlink(target, name, dir_fd=folder)
        try:
            os.utime(name, ns=(found.stat.atime, found.stat.mtime), dir_fd=folder, follow_symlinks=False)
        except (OSError, OverflowError):
            pass
        return
    fd = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600, dir_fd=folder)
    try:
        pour(tree, found.place, fd)
        os.fchmod(fd, mode & 0o777)
        try:
            os.utime(fd, ns=(found.stat.atime, found.stat.mtime))
        except (OSError, OverflowError):
            pass
    finally:
        os.close(fd)


def pour(tree: Tree, place: Place, fd: int, offset: int = 0, length: int | None = None) -> int:
    """Write a guest's file to a descriptor, leaving holes where it can have some; returns the bytes. Raises
    HostError."""
    try:
        sparse = _stat.S_ISREG(os.fstat(fd).st_mode) and not length and not offset
        if sparse:
            return _pour_sparse(tree, place, fd)
        total = 0
        for piece in tree.chunks(place, offset, length):
            total += len(piece)
            _write(fd, piece)
        return total
    except OSError as error:
        raise host_error(error, escaped(place.path)) from error


def _write(fd: int, piece: bytes) -> None:
    view = memoryview(piece)
    while view:
        view = view[os.write(fd, view) :]


def _pour_sparse(tree: Tree, place: Place, fd: int) -> int:
    """A file may say that it is larger than all disks and have no bytes: what it has none for is not read."""
    fs, ino = place.mount.fs, place.number
    start = os.lseek(fd, 0, os.SEEK_CUR)
    size = fs.stat(ino).size
    # refused by the host before, not after, hours of copying
    os.ftruncate(fd, start + size)
    done = 0
    for at, count, where in fs.extents(ino, 0, size) if size > STEP else ():
        if where is None and count > STEP and at >= done:
            for piece in tree.chunks(place, done, at - done + 1):
                _put_piece(fd, piece)
            done = at + count
            os.lseek(fd, start + done, os.SEEK_SET)
    for piece in tree.chunks(place, done):
        _put_piece(fd, piece)
    return size


def _put_piece(fd: int, piece: bytes) -> None:
    if not is_zero(memoryview(piece)):
        _write(fd, piece)
    else:
        os.lseek(fd, len(piece), os.SEEK_CUR)


def pieces_of(fd: int) -> Iterator[bytes]:
    """What can be read from a descriptor, in big pieces."""
    while True:
        data = os.read(fd, STEP)
        if not data:
            return
        yield data


def copy_in(tree: Tree, source: str, directory: bytes, warn: Warn) -> None:
    """Copy a file or directory of the host into a directory of the guest, under its own name, with mode, owner and
    times. Raises GuestError, HostError."""
    place = tree.resolve(directory)
    if not _stat.S_ISDIR(place.stat().mode):
        raise GuestError(errno.ENOTDIR, escaped(directory))
    base = directory.rstrip(b"/")
    name = os.fsencode(os.path.basename(os.path.normpath(source)))
    if name in (b"", b".", b".."):
        name = os.fsencode(os.path.basename(os.path.realpath(source)))
    todo = [(os.fsencode(source), base + b"/" + name if name else base)]
    folders: list[tuple[bytes, os.stat_result]] = []
    hard: dict[tuple[int, int], bytes] = {}
    while todo:
        here, there = todo.pop()
        try:
            facts = os.lstat(here)
            if _stat.S_ISDIR(facts.st_mode):
                target = tree.find(there, follow=False)
                if target.ino is None:
                    tree.mkdir(there, facts.st_mode & 0o7777)
                elif not _stat.S_ISDIR(target.stat().mode):
                    raise GuestError(errno.EEXIST, escaped(there))
                folders.append((there, facts))
                todo += [(os.path.join(here, each), there + b"/" + each) for each in sorted(os.listdir(here))[::-1]]
                continue
            _take_one(tree, here, there, facts, hard, warn)
        except OSError as error:
            raise host_error(error, escaped(here), escaped(here)) from error
    for there, facts in reversed(folders):
        _dress(tree, there, facts)


def _take_one(
    tree: Tree,
    here: bytes,
    there: bytes,
    facts: os.stat_result,
    hard: dict[tuple[int, int], bytes],
    warn: Warn,
) -> None:
    mode = facts.st_mode
    target = tree.find(there, follow=False)
    if target.ino is not None:
        tree.unlink(there)
    key = (facts.st_dev, facts.st_ino)
    if facts.st_nlink > 1 and key in hard:
        tree.link(hard[key], there)
        return
    if _stat.S_ISLNK(mode):
        tree.symlink(os.readlink(here), there)
    elif _stat.S_ISREG(mode):
        fd = os.open(here, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            tree.write(there, pieces_of(fd))
        finally:
            os.close(fd)
    elif _stat.S_ISSOCK(mode):
        warn(f"{escaped(here)}: sockets are not copied in")
        return
    else:
        tree.make(there, mode, rdev=facts.st_rdev)
    if facts.st_nlink > 1:
        hard[key] = there
    _dress(tree, there, facts)


def _dress(tree: Tree, path: bytes, facts: os.stat_result) -> None:
    tree.set_attributes(path, follow=False, uid=facts.st_uid, gid=facts.st_gid)
    tree.set_attributes(
        path,
        follow=False,
        mode=None if _stat.S_ISLNK(facts.st_mode) else facts.st_mode & 0o7777,
        atime=facts.st_atime_ns,
        mtime=facts.st_mtime_ns,
    )
