"""Adding disks, running, mounting, and which devices there are."""

from __future__ import annotations

import errno
import os
import stat as _stat

from ....errors import CowshedError, UsageError
from ....guest.filesystem.base import GuestError
from ..fish import Failed, Fish
from ..table import command
from .read import HostFailure

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

#: what add-drive's protocol: may say
_PROTOCOLS = (
    "file", "ftp", "ftps", "gluster", "http", "https", "iscsi", "nbd", "rbd", "sheepdog", "ssh", "tftp",
)  # fmt: skip


@command(
    "add-drive add add-drive-opts",
    "filename:string [readonly:bool] [format:string] [iface:string] [name:string] [label:string] [protocol:string] "
    "[server:names] [username:string] [secret:string] [cachemode:string] [discard:string] [copyonread:bool] "
    "[blocksize:int]",
    help="add an image to examine or modify",
    local=True,
)
def add_drive(
    fish: Fish,
    filename: str,
    readonly: bool | None = None,
    format: str | None = None,
    iface: str = "",
    name: str = "",
    label: str | None = None,
    protocol: str = "file",
    server: Iterable[str] = (),
    username: str = "",
    secret: str = "",
    cachemode: str = "",
    discard: str = "",
    copyonread: bool = False,
    blocksize: int | None = None,
) -> None:
    from ..start import add_disk

    if protocol == "file":
        for word, given in (("username", username), ("secret", secret)):
            if given:
                raise HostFailure(f"you cannot specify a {word} with file-backed disks")
    if label is not None and (not label.isascii() or not label.isalpha() or len(label) > 20):
        raise HostFailure("label parameter is empty, too long, or contains disallowed characters")
    for word, name_given in (("format", format), ("iface", iface or None)):
        if name_given is not None and not name_given.replace("-", "").replace("_", "").isalnum():
            raise HostFailure(f"{word} parameter is empty or contains disallowed characters")
    if cachemode not in ("", "writeback", "unsafe"):
        raise HostFailure("cachemode parameter must be ‘writeback’ (default) or ‘unsafe’")
    if discard not in ("", "disable", "enable", "besteffort"):
        raise HostFailure("discard parameter must be ‘disable’, ‘enable’ or ‘besteffort’")
    if discard in ("enable", "besteffort") and readonly:
        raise HostFailure("discard support cannot be enabled on read-only drives")
    if blocksize not in (None, 512, 4096):
        raise HostFailure("blocksize parameter is invalid")
    if protocol not in _PROTOCOLS:
        raise HostFailure(f"unknown protocol ‘{protocol}’")
    if protocol != "file":
        raise HostFailure(f"the protocol ‘{protocol}’ is given as a URI instead: add {protocol}://…")
    try:
        add_disk(fish, filename, fmt=format, sector=blocksize, readonly=readonly, label=label)
    except GuestError as error:
        raise HostFailure(f"{filename}: {os.strerror(error.errno or errno.EIO)}") from error


@command("add-drive-ro add-ro", "filename:string", help="add a drive in snapshot mode (read-only)", local=True)
def add_drive_ro(fish: Fish, filename: str) -> None:
    add_drive(fish, filename, readonly=True)


@command("add-cdrom", "filename:string", help="add a CD-ROM disk image to examine", local=True)
def add_cdrom(fish: Fish, filename: str) -> None:
    add_drive(fish, filename, readonly=True)


_WITH_IF = "filename:string iface:string"


@command("add-drive-with-if", _WITH_IF, help="add a drive specifying the QEMU block emulation to use", local=True)
def add_drive_with_if(fish: Fish, filename: str, iface: str) -> None:
    add_drive(fish, filename, iface=iface)


@command(
    "add-drive-ro-with-if",
    _WITH_IF,
    help="add a drive read-only specifying the QEMU block emulation to use",
    local=True,
)
def add_drive_ro_with_if(fish: Fish, filename: str, iface: str) -> None:
    add_drive(fish, filename, readonly=True, iface=iface)


@command(
    "add-domain domain",
    "dom:string [libvirturi:string] [readonly:bool] [iface:string] [live:bool] [allowuuid:bool] [readonlydisk:string] "
    "[cachemode:string] [discard:string] [copyonread:bool]",
    "int",
    help="add the disk(s) from a named libvirt domain",
    local=True,
)
def add_domain(
    fish: Fish,
    dom: str,
    libvirturi: str | None = None,
    readonly: bool = False,
    iface: str = "",
    live: bool = False,
    allowuuid: bool = False,
    readonlydisk: str = "write",
    cachemode: str = "",
    discard: str = "",
    copyonread: bool = False,
) -> int:
    """All of its disks or none."""
    from ..domain import disks_of

    if readonlydisk not in ("error", "read", "write", "ignore"):
        raise HostFailure("unknown readonly_disk parameter")
    if live:
        raise HostFailure("libguestfs live support was removed in libguestfs 1.48")
    try:
        found = disks_of(dom, libvirturi, writable=not (readonly or fish.readonly), uuid=allowuuid)
    except UsageError as error:
        raise HostFailure(str(error)) from error
    if readonlydisk == "error" and not readonly and any(disk.readonly for disk in found):
        disk = next(disk for disk in found if disk.readonly)
        raise HostFailure(f"{disk.file}: disk is marked <readonly/> in libvirt XML, and readonly_disk was set to error")
    if readonlydisk == "ignore":
        found = [disk for disk in found if not disk.readonly]
    for disk in found:
        kept = readonly or (disk.readonly and readonlydisk != "write")
        add_drive(fish, disk.file, readonly=kept or None, format=disk.fmt, iface=iface, cachemode=cachemode,
                  discard=discard)  # fmt: skip
    return len(found)


@command("launch run", help="launch the backend", local=True)
def launch(fish: Fish) -> None:
    try:
        fish.session.run()
    except CowshedError as error:
        if not fish.session.devices.drives:
            raise HostFailure("you must call guestfs_add_drive before guestfs_launch") from error
        raise


@command("list-devices", "", "list", help="list the block devices")
def list_devices(fish: Fish) -> list[str]:
    return fish.session.devices.disks()


@command("list-partitions", "", "list", help="list the partitions")
def list_partitions(fish: Fish) -> list[str]:
    return fish.session.devices.partitions()


@command("list-filesystems", "", "hash", help="list filesystems")
def list_filesystems(fish: Fish) -> list[tuple[str, str]]:
    return fish.session.devices.list_filesystems()


def _mount(fish: Fish, device: str, path: str, options: str = "", kind: str | None = None) -> None:
    words = options.split(",")
    readonly = "ro" in words and "rw" not in words
    fish.session.mount(device, os.fsencode(path), readonly=readonly, kind=kind)


def check_device(fish: Fish, name: str, function: str) -> None:
    """Commands want a device's name before they look for it. Raises Failed."""
    if not name.startswith("/dev/"):
        raise Failed(f"{function}: {name}: No such file or directory")
    try:
        fish.session.devices.open(name)
    except GuestError as error:
        raise Failed(f"{function}: {error}") from error


def mount_with(fish: Fish, options: str, kind: str | None, mountable: str, mountpoint: str, function: str) -> None:
    from ....errors import FeatureError
    from ....guest.filesystem.table import DRIVERS, kind_of

    check_device(fish, mountable, f"{function}_stub")
    tree = fish.session.tree
    if tree.mounts or mountpoint.strip("/"):
        raw = os.fsencode(mountpoint)
        if not tree.mounts or not tree.exists(raw) or not _stat.S_ISDIR(tree.stat(raw).mode):
            raise Failed(f"mount: {mountpoint}: mount point is not a directory")
    name = fish.session.devices.canonical(mountable)
    status = f"mount exited with status 32: mount: /sysroot{mountpoint if mountpoint != '/' else ''}"
    tail = "\n       dmesg(1) may have more information after failed mount system call."
    if any(each.device == name and each.path.decode("utf-8", "surrogateescape") == mountpoint for each in tree.mounts):
        raise Failed(f"{status}: {name} already mounted on /sysroot{mountpoint}.{tail}")
    found = kind or kind_of(fish.session.devices.open(mountable))
    if not found:
        raise Failed(
            f"{status}: wrong fs type, bad option, bad superblock on {name}, missing codepage or helper program, or "
            f"other error.{tail}"
        )
    if found not in DRIVERS:
        raise Failed(f"{status}: unknown filesystem type '{found}'.{tail}")
    try:
        _mount(fish, mountable, mountpoint, options, kind)
    except FeatureError as error:
        raise Failed(f"{mountable} on {mountpoint} (options: '{options}'): {error}") from error
    except GuestError as error:
        raise Failed(f"{mountable} on {mountpoint} (options: '{options}'): {error}") from error


@command("mount", "mountable:mountable mountpoint:string", help="mount a guest disk at a position in the filesystem")
def mount(fish: Fish, mountable: str, mountpoint: str) -> None:
    mount_with(fish, "", None, mountable, mountpoint, "mount")


@command("mount-ro", "mountable:mountable mountpoint:string", help="mount a guest disk, read-only")
def mount_ro(fish: Fish, mountable: str, mountpoint: str) -> None:
    mount_with(fish, "ro", None, mountable, mountpoint, "mount_ro")


@command(
    "mount-options",
    "options:string mountable:mountable mountpoint:string",
    help="mount a guest disk with mount options",
)
def mount_options(fish: Fish, options: str, mountable: str, mountpoint: str) -> None:
    mount_with(fish, options, None, mountable, mountpoint, "mount_options")


@command(
    "mount-vfs",
    "options:string vfstype:string mountable:mountable mountpoint:string",
    help="mount a guest disk with mount options and vfstype",
)
def mount_vfs(fish: Fish, options: str, vfstype: str, mountable: str, mountpoint: str) -> None:
    mount_with(fish, options, vfstype, mountable, mountpoint, "mount_vfs")


@command(
    "umount unmount umount-opts", "pathordevice:place [force:bool] [lazyunmount:bool]", help="unmount a filesystem"
)
def umount(fish: Fish, pathordevice: str, force: bool = False, lazyunmount: bool = False) -> None:
    if pathordevice.startswith("/dev/"):
        check_device(fish, pathordevice, "umount_stub")
    try:
        fish.session.umount(pathordevice)
    except GuestError as error:
        if error.errno == errno.EBUSY:
            raise Failed(f"{pathordevice}: umount: /sysroot{pathordevice}: target is busy.") from error
        why = "not mounted" if fish.session.tree.mounts and _there(fish, pathordevice) else "no mount point specified"
        raise Failed(f"{pathordevice}: umount: /sysroot{pathordevice}: {why}.") from error


def _there(fish: Fish, path: str) -> bool:
    return fish.session.tree.exists(os.fsencode(path))


@command("umount-all unmount-all", help="unmount all filesystems")
def umount_all(fish: Fish) -> None:
    fish.session.umount_all()


@command("mounts", "", "list", help="show mounted filesystems")
def mounts(fish: Fish) -> list[str]:
    return [mount.device for mount in fish.session.tree.mounts]


@command("mountpoints", "", "hash", help="show mountpoints")
def mountpoints(fish: Fish) -> list[tuple[str, bytes]]:
    return [(mount.device, mount.path) for mount in fish.session.tree.mounts]


@command("sync", help="sync disks, writes are flushed through to the disk image")
def sync(fish: Fish) -> None:
    fish.session.tree.sync()


@command("shutdown", help="shutdown the hypervisor", local=True)
def shutdown(fish: Fish) -> None:
    session = fish.session
    session.tree.sync()
    session.tree.close()
    session.devices.close()
    session.devices.drives = []
    session.running = False


@command("kill-subprocess", help="kill the hypervisor", local=True)
def kill_subprocess(fish: Fish) -> None:
    shutdown(fish)


@command("max-disks", "", "int", help="maximum number of disks that may be added", local=True)
def max_disks(fish: Fish) -> int:
    return 255


@command("version", "", "struct", help="get the library version number", local=True)
def version(fish: Fish) -> list[tuple[str, str | int]]:
    from ..help import RELEASE

    major, minor, release = RELEASE.split(".")
    return [("major", major), ("minor", minor), ("release", release), ("extra", "")]
