"""Mounting and unmounting, and what is mounted where: what ``fs`` and ``netfs`` pools have in common.

The mount table is read from /proc, which never waits for a server; everything that may wait runs as a child with a
time limit.
"""

from __future__ import annotations

import errno
import os

from ...errors import HostCallError, PoolError, StateError
from . import tools

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from ...wire.libvirt.definition import PoolDef

#: options of every mount that a pool makes
SAFE = "nodev,nosuid,noexec"


def mounted(target: str) -> str | None:
    """What is mounted on a directory (the uppermost of several); None when nothing is. Never touches the directory."""
    found = None
    wanted = os.path.normpath(target)
    try:
        with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as file:
            for line in file:
                # proc(5): … mount point is the fifth field; after " - " type and source
                fields, _, rest = line.partition(" - ")
                if _plain(fields.split(" ")[4]) == wanted:
                    found = _plain(rest.split(" ")[1])
    except (OSError, IndexError):
        return None
    return found


def is_mounted(device: str) -> bool:
    """Is a block device, or a partition of it, mounted anywhere that can be seen from here?"""
    try:
        with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as file:
            sources = [_plain(line.partition(" - ")[2].split(" ")[1]) for line in file]
    except (OSError, IndexError):
        return False
    return any(source == device or source.rstrip("0123456789") in (device, device + "p") for source in sources)


def is_source(source: str, device: str) -> bool:
    """Is what is mounted the pool's: the same name, the same device, or a loop device of that file?"""
    if source == device:
        return True
    try:
        if os.path.realpath(source) == os.path.realpath(device):
            return True
        with open(f"/sys/class/block/{os.path.basename(source)}/loop/backing_file", encoding="utf-8") as file:
            return file.read().rstrip("\n") == os.path.realpath(device)
    except OSError:
        return False


def mount(source: str, target: str, kind: str | None, options: Sequence[str], timeout: float) -> None:
    """Mount ``source`` on ``target``. ``kind``: the file system, None to have it found out; ``options``: after those
    that every pool gets.

    Raises PoolError with what mount said; nothing is mounted then, not later either.
    """
    program = _program("mount")
    joined = ",".join([SAFE, *options])
    argv = [program, "-o", joined, *(["-t", kind] if kind else []), source, target]
    run_mount(argv, target, timeout)


def run_mount(argv: Sequence[str], target: str, timeout: float) -> None:
    """Run a mount with all its arguments; what is half done when time is up is undone."""
    before = mounted(target)
    try:
        tools.run(argv, timeout=timeout)
    except PoolError as error:
        if error.errno == errno.ETIMEDOUT and mounted(target) != before:
            unmount(target, lazy=True)
        raise


def unmount(target: str, *, lazy: bool = False) -> None:
    """Unmount what is on ``target``; nothing happens when nothing is. ``lazy``: without waiting for whoever uses it.

    Raises PoolError with what umount said.
    """
    if mounted(target) is None:
        return
    tools.run([_program("umount"), *(["-l"] if lazy else []), target], timeout=60)


def alive(target: str, timeout: float) -> bool:
    """Does the file system on ``target`` answer within ``timeout`` seconds?"""
    stat = tools.find("stat")
    if stat is None:
        return True
    try:
        tools.run([stat, "-f", target], timeout=timeout, ok=None)
    except PoolError as error:
        return error.errno != errno.ETIMEDOUT
    return True


def must_answer(pool: PoolDef, timeout: float) -> None:
    """Raises StateError when nothing is mounted for the pool, or what is there does not answer."""
    must_be_mounted(pool)
    target = pool.target or ""
    if not alive(target, timeout):
        raise StateError(
            f"storage pool '{pool.name}' does not answer: '{target}' gave nothing within {timeout:g} seconds",
            path=target,
            hint="see to its server, or take the pool down with pool-destroy",
        )


def must_be_mounted(pool: PoolDef) -> None:
    """Raises StateError when nothing is mounted for the pool: what is there then is not the pool's, and what is put
    there would be hidden by the next mount, and fill another file system meanwhile."""
    target = pool.target or ""
    if mounted(target) is None:
        raise StateError(
            f"nothing is mounted on '{target}' of storage pool '{pool.name}'", path=target,
            hint="somebody unmounted it: stop the pool and start it again",
        )  # fmt: skip


def need_directory(target: str) -> None:
    """Raises HostCallError when there is nothing to mount on."""
    if not os.path.isdir(target):
        raise HostCallError(f"cannot open directory '{target}'", errno.ENOENT, path=target)


def _program(name: str) -> str:
    """The tool's path, where libvirt looks for it when it is there."""
    path = f"/bin/{name}"
    return path if os.access(path, os.X_OK) else tools.need(name)[name]


def _plain(field: str) -> str:
    """A field of the mount table without its octal escapes (proc(5): space, tab, newline and backslash)."""
    if "\\" not in field:
        return field
    for escape, char in (("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")):
        field = field.replace(escape, char)
    return field
