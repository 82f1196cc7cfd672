"""What is given back or overwritten: blkdiscard, fstrim, scrub; and drives that are not taken away."""

from __future__ import annotations

import os
import stat as _stat

from ....guest.filesystem.base import GuestError
from ..fish import Failed, Fish
from ..table import command
from .device import opened
from .read import HostFailure, shown


@command("remove-drive", "label:string", help="remove a disk image", local=True)
def remove_drive(fish: Fish, label: str) -> None:
    raise HostFailure("hotplugging support was removed in libguestfs 1.48")


def _unmounted(fish: Fish, device: str, tool: str) -> None:
    user = fish.session.user(device)
    if user is not None:
        raise Failed(f"{device}: {tool}: {device}: {user} is mounted")


@command("blkdiscard", "device:device", help="discard all blocks on a device")
def blkdiscard(fish: Fish, device: str) -> None:
    node = opened(fish, device, "blkdiscard")
    _unmounted(fish, device, "blkdiscard")
    node.discard(0, node.size)
    node.flush()
    fish.session.devices.forget()


@command("blkdiscardzeroes", "device:device", "bool", help="return true if discarded blocks are read as zeroes")
def blkdiscardzeroes(fish: Fish, device: str) -> bool:
    opened(fish, device, "blkdiscardzeroes")
    # what lies in a backing file may be seen again, and partial clusters are kept
    return False


@command(
    "fstrim",
    "mountpoint:path [offset:int64] [length:int64] [minimumfreeextent:int64]",
    help="trim free space in a filesystem",
)
def fstrim(
    fish: Fish,
    mountpoint: bytes,
    offset: int = 0,
    length: int | None = None,
    minimumfreeextent: int | None = None,
) -> None:
    from ....guest.erase import trim

    if offset < 0:
        raise Failed("offset < 0")
    if length is not None and length <= 0:
        raise Failed("length <= 0")
    if minimumfreeextent is not None and minimumfreeextent <= 0:
        raise Failed("minimumfreeextent <= 0")
    tree = fish.session.tree
    place = tree.directory(mountpoint)
    trim(tree.writing(place, mountpoint), offset, length, minimumfreeextent or 0)


@command("scrub-device", "device:device", help="scrub (securely wipe) a device")
def scrub_device(fish: Fish, device: str) -> None:
    from ....guest.erase import scrub_device as scrub

    node = opened(fish, device, "scrub_device")
    _unmounted(fish, device, "scrub")
    scrub(node)
    fish.session.devices.forget()


@command("scrub-file", "file:path", help="scrub (securely wipe) a file")
def scrub_file(fish: Fish, file: bytes) -> None:
    from ....guest.erase import scrub_file as scrub

    tree = fish.session.tree
    mode = tree.stat(file).mode
    if not _stat.S_ISREG(mode):
        raise Failed(f"{shown(file)}: scrub: /sysroot{shown(file)} is wrong type of file")
    scrub(tree, file)


@command("scrub-freespace", "dir:path", help="scrub (securely wipe) free space")
def scrub_freespace(fish: Fish, dir: bytes) -> None:
    from ....guest.erase import scrub_free

    tree = fish.session.tree
    if tree.exists(dir):
        raise Failed(f"{shown(dir)}: scrub: -X directory already exists")
    scrub_free(tree, dir)


@command("mount-loop", "file:path mountpoint:path", help="mount a file using the loop device")
def mount_loop(fish: Fish, file: bytes, mountpoint: bytes) -> None:
    from ....guest.loop import mount_loop as mount

    tree = fish.session.tree
    where = f"{shown(file)} on {shown(mountpoint)}: mount: /sysroot{shown(mountpoint)}"
    tail = "\n       dmesg(1) may have more information after failed mount system call."
    if not tree.exists(file) or not _stat.S_ISREG(tree.stat(file).mode):
        raise Failed(f"{where}: failed to setup loop device for /sysroot{shown(file)}.")
    if not tree.exists(mountpoint):
        raise Failed(f"{where}: mount point does not exist.{tail}")
    try:
        mount(fish.session, file, mountpoint)
    except GuestError as error:
        raise Failed(
            f"{where}: can't read superblock on /dev/loop0.{tail} ({os.strerror(error.errno or 0)})"
        ) from error
