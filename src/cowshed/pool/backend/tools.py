"""The host's own tools: found before anything changes, run with a timeout and a fixed locale, failures told whole.

Whoever needs a tool says so first (`need`), so that what is missing is known while everything is still as it was.
"""

from __future__ import annotations

import errno
import os
import shlex
import shutil
import signal
import subprocess

from ...errors import HostCallError, PoolError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

#: tool -> the Debian package that has it
PACKAGES = {
    "blkid": "util-linux",
    "blockdev": "util-linux",
    "findmnt": "util-linux",
    "glusterfs": "glusterfs-client",
    "iscsiadm": "open-iscsi",
    "losetup": "mount",
    "lvchange": "lvm2",
    "lvcreate": "lvm2",
    "lvremove": "lvm2",
    "mkfs.btrfs": "btrfs-progs",
    "mkfs.ext2": "e2fsprogs",
    "mkfs.ext3": "e2fsprogs",
    "mkfs.ext4": "e2fsprogs",
    "mkfs.fat": "dosfstools",
    "mkfs.ocfs2": "ocfs2-tools",
    "mkfs.vfat": "dosfstools",
    "mkfs.xfs": "xfsprogs",
    "mkfs": "util-linux",
    "mount": "mount",
    "mount.cifs": "cifs-utils",
    "mount.glusterfs": "glusterfs-client",
    "mount.nfs": "nfs-common",
    "parted": "parted",
    "partx": "util-linux",
    "pvcreate": "lvm2",
    "pvremove": "lvm2",
    "scrub": "scrub",
    "showmount": "nfs-common",
    "udevadm": "udev",
    "umount": "mount",
    "vgchange": "lvm2",
    "vgcreate": "lvm2",
    "vgremove": "lvm2",
}

#: administrators' directories, which are not on everyone's PATH
SBIN = ("/usr/local/sbin", "/usr/sbin", "/sbin")

#: seconds that a tool may take unless its caller knows better
TIMEOUT = 600.0


class Done:
    """How a tool ended: ``status`` (0 to 255, or minus the signal that killed it), its output ``out`` and ``err``."""

    __slots__ = ("err", "out", "status")

    def __init__(self, status: int, out: str, err: str) -> None:
        self.status = status
        self.out = out
        self.err = err


def find(name: str) -> str | None:
    """The path of a tool on PATH or in the administrators' directories, None without it."""
    return shutil.which(name, path=os.pathsep.join([os.environ.get("PATH") or os.defpath, *SBIN]))


def need(*names: str) -> dict[str, str]:
    """The path of each tool, by name.

    Raises HostCallError, which names all those that are missing and their Debian packages.
    """
    paths = {name: find(name) for name in names}
    missing = [name for name, path in paths.items() if path is None]
    if missing:
        packages = sorted({PACKAGES[name] for name in missing if name in PACKAGES})
        where = f" (Debian package {', '.join(packages)})" if packages else ""
        tools = ", ".join(f"'{name}'" for name in missing)
        raise HostCallError(
            f"Cannot find {tools} in path{where}",
            errno.ENOENT,
            hint=f"install {' '.join(packages)}" if packages else None,
        )
    return {name: path for name, path in paths.items() if path is not None}


def run(
    argv: Sequence[str],
    *,
    ok: Iterable[int] | None = (0,),
    input: str | None = None,
    timeout: float = TIMEOUT,
    env: Mapping[str, str] | None = None,
) -> Done:
    """Run a tool to its end. ``argv[0]``: a path, or a name that `need` finds. ``ok``: exit codes that are no
    failure, None for all. ``input``: what it reads, nothing by default. ``env``: set besides ``LC_ALL=C``.

    Raises HostCallError when it is not there or can't be run, PoolError with what it wrote when it fails, was killed,
    or took longer than ``timeout`` seconds (it and its children are killed then).
    """
    argv = list(argv)
    if "/" not in argv[0]:
        argv[0] = need(argv[0])[argv[0]]
    environment = {**os.environ, "LC_ALL": "C", "LVM_SUPPRESS_FD_WARNINGS": "1", **(env or {})}
    try:
        child = subprocess.Popen(
            argv,
            stdin=subprocess.DEVNULL if input is None else subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=environment,
            process_group=0,  # so that a timeout takes along whatever it started
        )
    except OSError as error:
        raise HostCallError(f"cannot execute binary {argv[0]}", error.errno or errno.EIO) from error
    try:
        out, err = child.communicate(None if input is None else input.encode(), timeout=timeout)
    except subprocess.TimeoutExpired:
        _kill(child)
        raise PoolError(
            f"Child process ({shlex.join(argv)}) did not end within {timeout:g} seconds", errno=errno.ETIMEDOUT
        ) from None
    except BaseException:
        _kill(child)
        raise
    done = Done(child.returncode, _text(out), _text(err))
    if ok is not None and done.status not in tuple(ok):
        raise failure(argv, done)
    return done


def failure(argv: Sequence[str], done: Done) -> PoolError:
    """The error that says how a tool failed, in libvirt's words."""
    status = f"exit status {done.status}" if done.status >= 0 else f"fatal signal {-done.status}"
    return PoolError(f"Child process ({shlex.join(argv)}) unexpected {status}{': ' if done.err else ''}{done.err}")


def _kill(child: subprocess.Popen[bytes]) -> None:
    try:
        os.killpg(child.pid, signal.SIGKILL)
    except ProcessLookupError:
        pass
    for pipe in (child.stdin, child.stdout, child.stderr):
        if pipe is not None:
            try:
                pipe.close()
            except OSError:
                pass
    child.wait()


def _text(data: bytes) -> str:
    return data.decode("utf-8", "surrogateescape")
