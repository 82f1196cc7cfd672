"""Devices as a whole: their sizes, their bytes, what blkid says."""

from __future__ import annotations

import os

from ....errors import CowshedError
from ....guest.filesystem.base import GuestError
from ..fish import Failed, Fish
from ..table import command
from .facts import check_sum, device_number
from .read import HostFailure

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from ....block.node import Node

_STEP = 4 << 20


def opened(fish: Fish, name: str, command_name: str) -> Node:
    """A device's node; its absence is told in the stub's words. Raises Failed."""
    if not name.startswith("/dev/"):
        raise Failed(f"{command_name}_stub: {name}: No such file or directory")
    try:
        return fish.session.devices.open(name)
    except GuestError as error:
        raise Failed(f"{command_name}_stub: {error}") from error


def device_pieces(fish: Fish, name: str) -> Iterator[bytes]:
    node = opened(fish, name, "device")
    for at in range(0, node.size, _STEP):
        yield node.read(at, min(_STEP, node.size - at))


@command("device-index", "device:device", "int", help="convert device to index", local=True)
def device_index(fish: Fish, device: str) -> int:
    stem, _, letters = fish.session.devices.canonical(device).partition("/dev/sd")
    index = 0
    for letter in letters:
        if not "a" <= letter <= "z":
            break
        index = index * 26 + ord(letter) - ord("a") + 1
    else:
        # a name is enough: nobody looks whether a disk of that name was added
        if letters and not stem:
            return index - 1
    raise HostFailure(f"{device}: device not found")


@command("nr-devices", "", "int", help="return number of whole block devices (disks) added")
def nr_devices(fish: Fish) -> int:
    return len(fish.session.devices.drives)


@command("list-disk-labels", "", "hash", help="mapping of disk labels to devices")
def list_disk_labels(fish: Fish) -> list[tuple[str, str]]:
    rows = []
    for drive in fish.session.devices.drives:
        if drive.label:
            rows.append((drive.label, drive.path))
            rows += [(f"{drive.label}{part.number}", f"{drive.path}{part.number}") for part in drive.partitions()]
    return rows


@command("canonical-device-name", "device:string", "string", help="return canonical device name", local=True)
def canonical_device_name(fish: Fish, device: str) -> str:
    return fish.session.devices.canonical(device)


@command("is-whole-device", "device:device", "bool", help="test if a device is a whole device")
def is_whole_device(fish: Fish, device: str) -> bool:
    opened(fish, device, "is_whole_device")
    return fish.session.devices.canonical(device) in fish.session.devices.disks()


@command("blockdev-getsize64", "device:device", "int", help="get total size of device in bytes")
def blockdev_getsize64(fish: Fish, device: str) -> int:
    return opened(fish, device, "blockdev_getsize64").size


@command("blockdev-getsz", "device:device", "int", help="get total size of device in 512-byte sectors")
def blockdev_getsz(fish: Fish, device: str) -> int:
    return opened(fish, device, "blockdev_getsz").size // 512


def _sector(fish: Fish, device: str) -> int:
    drives = fish.session.devices.parents(device)
    return max((drive.sector_size for drive in drives), default=512)


@command("blockdev-getss", "device:device", "int", help="get sectorsize of block device")
def blockdev_getss(fish: Fish, device: str) -> int:
    opened(fish, device, "blockdev_getss")
    return _sector(fish, device)


@command("blockdev-getbsz", "device:device", "int", help="get blocksize of block device")
def blockdev_getbsz(fish: Fish, device: str) -> int:
    node = opened(fish, device, "blockdev_getbsz")
    mounted = fish.session.mounted(device)
    if mounted is not None:
        return mounted.block_size
    return 4096 if node.size % 4096 == 0 else 2048 if node.size % 2048 == 0 else 1024 if node.size % 1024 == 0 else 512


@command("blockdev-setbsz", "device:device blocksize:int", help="set blocksize of block device")
def blockdev_setbsz(fish: Fish, device: str, blocksize: int) -> None:
    """Does nothing there either, and never did."""
    opened(fish, device, "blockdev_setbsz")


@command("blockdev-getro", "device:device", "bool", help="is block device set to read-only")
def blockdev_getro(fish: Fish, device: str) -> bool:
    return opened(fish, device, "blockdev_getro").read_only


@command("blockdev-flushbufs", "device:device", help="flush device buffers")
def blockdev_flushbufs(fish: Fish, device: str) -> None:
    node = opened(fish, device, "blockdev_flushbufs")
    if not node.read_only:
        node.flush()


@command("blockdev-rereadpt", "device:device", help="reread partition table")
def blockdev_rereadpt(fish: Fish, device: str) -> None:
    opened(fish, device, "blockdev_rereadpt")
    fish.session.devices.forget()


@command("pread-device", "device:device count:int offset:int64", "buffer", help="read part of a device")
def pread_device(fish: Fish, device: str, count: int, offset: int) -> bytes:
    node = opened(fish, device, "pread_device")
    if count < 0 or offset < 0:
        raise Failed(f"{'count' if count < 0 else 'offset'} is negative")
    return node.read(offset, max(0, min(count, node.size - offset, 1 << 30)))


@command("pwrite-device", "device:device content:bytes offset:int64", "int", help="write to part of a device")
def pwrite_device(fish: Fish, device: str, content: bytes, offset: int) -> int:
    node = opened(fish, device, "pwrite_device")
    if offset < 0:
        raise Failed("offset is negative")
    count = max(0, min(len(content), node.size - offset))
    node.write(offset, content[:count])
    node.flush()
    fish.session.devices.forget()
    return count


@command("is-zero-device", "device:device", "bool", help="test if a device contains all zero bytes")
def is_zero_device(fish: Fish, device: str) -> bool:
    from ....block.node import HOLE, ZERO

    node = opened(fish, device, "is_zero_device")
    for extent in node.extents():
        if extent.kind in (ZERO, HOLE):
            continue
        for at in range(extent.offset, extent.offset + extent.length, _STEP):
            data = node.read(at, min(_STEP, extent.offset + extent.length - at))
            if data.count(0) != len(data):
                return False
    return True


@command("checksum-device", "csumtype:string device:device", "string", help="compute checksum of a device")
def checksum_device(fish: Fish, csumtype: str, device: str) -> str:
    from ....guest.search import checksum

    check_sum(csumtype)
    opened(fish, device, "checksum_device")
    return checksum(csumtype, device_pieces(fish, device))


def zero(fish: Fish, device: str, name: str, length: int | None = None) -> None:
    node = opened(fish, device, name)
    node.write_zeroes(0, node.size if length is None else min(length, node.size))
    node.flush()
    fish.session.devices.forget()


@command("zero", "device:device", help="write zeroes to the device")
def zero_start(fish: Fish, device: str) -> None:
    zero(fish, device, "zero", 128 * 4096)


@command("zero-device", "device:device", help="write zeroes to an entire device")
def zero_device(fish: Fish, device: str) -> None:
    zero(fish, device, "zero_device")


@command("wipefs", "device:device", help="wipe a filesystem signature from a device")
def wipefs(fish: Fish, device: str) -> None:
    from ....layout.signature import signatures

    node = opened(fish, device, "wipefs")
    if fish.session.user(device) is not None:
        raise Failed(f"wipefs: error: {device}: probing initialization failed: Device or resource busy")
    last: set[tuple[str, int]] = set()
    while True:
        found = signatures(node)
        marks = {(one.name, one.offset) for one in found}
        if not found or marks == last:
            break
        last = marks
        for one in found:
            # the longest magic there is has 16 bytes; what is wiped is no more than one
            node.write(one.offset, bytes(min(8, node.size - one.offset)))
    node.flush()
    fish.session.devices.forget()


@command("vfs-type", "mountable:mountable", "string", help="get the Linux VFS type corresponding to a mounted device")
def vfs_type(fish: Fish, mountable: str) -> str:
    from ....guest.filesystem.table import kind_of

    return kind_of(opened(fish, mountable, "vfs_type"))


def _identity(fish: Fish, device: str, name: str, command_name: str) -> str:
    from ....guest.identity import identify

    return identify(opened(fish, device, command_name)).get(name, "")


@command("vfs-label", "mountable:mountable", "string", help="get the filesystem label")
def vfs_label(fish: Fish, mountable: str) -> str:
    return _identity(fish, mountable, "LABEL", "vfs_label")


@command("vfs-uuid get-uuid", "mountable:mountable", "string", help="get the filesystem UUID")
def vfs_uuid(fish: Fish, mountable: str) -> str:
    return _identity(fish, mountable, "UUID", "vfs_uuid")


@command("get-e2label", "device:device", "string", help="get the ext2/3/4 filesystem label")
def get_e2label(fish: Fish, device: str) -> str:
    return _identity(fish, device, "LABEL", "get_e2label")


@command("get-e2uuid", "device:device", "string", help="get the ext2/3/4 filesystem UUID")
def get_e2uuid(fish: Fish, device: str) -> str:
    return _identity(fish, device, "UUID", "get_e2uuid")


def _find(fish: Fish, name: str, value: str, internal: str) -> str:
    from ....guest.identity import identify

    devices = fish.session.devices
    for device in (*devices.bare(), *devices.volumes()):
        if identify(devices.open(device)).get(name) == value:
            return device
    raise Failed(f"findfs exited with status 1: findfs: unable to resolve '{name}={value}'")


@command("findfs-label", "label:string", "string", help="find a filesystem by label")
def findfs_label(fish: Fish, label: str) -> str:
    return _find(fish, "LABEL", label, "findfs_label")


@command("findfs-uuid", "uuid:string", "string", help="find a filesystem by UUID")
def findfs_uuid(fish: Fish, uuid: str) -> str:
    return _find(fish, "UUID", uuid, "findfs_uuid")


@command("blkid", "device:device", "hash", help="print block device attributes")
def blkid(fish: Fish, device: str) -> list[tuple[str, str]]:
    from ....guest.identity import identify

    devices = fish.session.devices
    node = opened(fish, device, "blkid")
    name = devices.canonical(device)
    found = identify(node)
    rows = [("DEVNAME", name)]
    rows += [
        (key, found[key].replace(" ", "\\ "))
        for key in ("LABEL", "UUID", "VERSION", "BLOCK_SIZE", "TYPE", "USAGE")
        if key in found
    ]
    sector = str(_sector(fish, device))
    rows += [("MINIMUM_IO_SIZE", sector), ("PHYSICAL_SECTOR_SIZE", sector), ("LOGICAL_SECTOR_SIZE", sector)]
    stem = name.rstrip("0123456789")
    if name in devices.disks():
        try:
            whole = devices.drive(name).table()
        except CowshedError:
            return rows
        rows += [("PTUUID", whole.identifier.lower()), ("PTTYPE", whole.label)]
    if stem != name and stem in devices.disks():
        drive, number = devices.part(name)
        table, part = drive.table(), drive.table().partition(number)
        if table.label == "gpt":
            uuid, kind = (part.guid or "").lower(), str(part.type).lower()
        else:
            uuid, kind = f"{table.identifier.lower()}-{number:02x}", f"{part.type:#x}"
        rows += [("PART_ENTRY_SCHEME", table.label)]
        if part.name:
            rows.append(("PART_ENTRY_NAME", part.name.replace(" ", "\\ ")))
        rows += [("PART_ENTRY_UUID", uuid), ("PART_ENTRY_TYPE", kind)]
        if part.active and table.label != "gpt":
            rows.append(("PART_ENTRY_FLAGS", "0x80"))
        if table.label == "gpt" and part.attributes:
            rows.append(("PART_ENTRY_FLAGS", f"{part.attributes:#x}"))
        disk = device_number(fish, stem)
        rows += [
            ("PART_ENTRY_NUMBER", str(number)),
            ("PART_ENTRY_OFFSET", str(part.start // 512)),
            ("PART_ENTRY_SIZE", str(part.size // 512)),
            ("PART_ENTRY_DISK", f"{os.major(disk)}:{os.minor(disk)}"),
        ]
    return rows
