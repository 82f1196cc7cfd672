"""Which file systems hold an operating system, and what it is."""

from __future__ import annotations

from . import elf, osinfo, release
from .fstab import read_fstab
from .root import Root

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .access import Files, Guest

#: kinds that hold no files that could be read
_CLOSED = ("swap", "unknown", "crypto_LUKS", "")
#: programs that every system has one of
_PROGRAMS = ("/bin/bash", "/bin/ls", "/bin/echo", "/bin/rm", "/bin/sh", "/bin/busybox", "/usr/bin/bash", "/usr/bin/ls")
_WINDOWS = ("/windows/system32", "/Windows/System32", "/WINDOWS/system32", "/WINNT/system32", "/winnt/system32")


def inspect(guest: Guest) -> list[Root]:
    """The systems on a guest's disks, sorted by device. Raises nothing that damage in one file system could cause."""
    found = []
    for device, kind in guest.filesystems():
        if kind in _CLOSED:
            continue
        files = guest.files([("/", device)])
        if files is None:
            continue
        root = _root(guest, device, files)
        if root is not None:
            found.append(root)
    return sorted(found, key=lambda root: root.device)


def _root(guest: Guest, device: str, files: Files) -> Root | None:
    """What the file system holds, None when it is no root."""
    root = Root(guest, device)
    bsd = release.identify_bsd(files)
    if bsd is not None:
        root.type = root.distro = bsd[0]
        _, root.product, root.version = bsd
    elif _linux(files):
        root.type = "linux"
        release.identify(files, root)
    elif any(files.kind(path) == "d" for path in _WINDOWS):
        root.type = root.distro = "windows"
        return root
    elif files.kind("/hurd/console") == "f" and files.kind("/etc/fstab") == "f":
        root.type = "hurd"
        release.identify(files, root)
    elif files.kind("/autoexec.bat") == "f" or files.kind("/AUTOEXEC.BAT") == "f":
        root.type, root.distro = "dos", "msdos"
        return root
    else:
        return None
    root.mounts, root.swaps = read_fstab(files, guest, device)
    # /usr may be elsewhere, and with it what says more
    whole = root.files() if len(root.mounts) > 1 else files
    if whole is None:
        whole = files
    if root.distro == "unknown":
        release.identify(whole, root)
    root.arch = _architecture(whole) or root.arch
    root.hostname = osinfo.hostname(whole, root)
    return root


def _linux(files: Files) -> bool:
    """/etc with fstab or hosts, and /bin: a directory, or a link into a /usr that may be another file system."""
    if files.kind("/etc") != "d" or not (files.kind("/etc/fstab") == "f" or files.kind("/etc/hosts") == "f"):
        return False
    return files.kind("/bin") == "d" or "bin" in files.names("/")


def _architecture(files: Files) -> str | None:
    for path in _PROGRAMS:
        head = files.read(path, 64)
        if head:
            name = elf.architecture(head)
            if name is not None:
                return name
    return None
