"""File systems as a whole: made, labelled, checked for."""

from __future__ import annotations

from ....guest.filesystem.base import FileSystem
from ....guest.filesystem.table import DRIVERS, kind_of, open_filesystem
from ..fish import Failed, Fish
from ..table import command
from .device import opened

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from ....block.node import Node


def _with(fish: Fish, device: str, name: str, what: Callable[[FileSystem], None]) -> None:
    """Do something to a device's file system, mounted or not, and bring it to the disk."""
    node = opened(fish, device, name)
    mounted = fish.session.mounted(device)
    fs = mounted or open_filesystem(node, writable=not node.read_only)
    try:
        what(fs)
        fs.sync()
        node.flush()
    except BaseException:
        fs.discard_changes()
        raise
    finally:
        if mounted is None:
            fs.close()


def _swap(fish: Fish, device: str, node: Node, offset: int, field: bytes) -> None:
    """Change what the header of a swap device says of it."""
    node.write(offset, field)
    node.flush()
    fish.session.devices.forget()


@command("set-label", "mountable:mountable label:string", help="set filesystem label")
def set_label(fish: Fish, mountable: str, label: str) -> None:
    node = opened(fish, mountable, "set_label")
    kind = kind_of(node)
    if kind == "swap":
        if len(label.encode()) > 16:
            raise Failed(f"{label}: Linux swap labels are limited to 16 bytes")
        _swap(fish, mountable, node, 1052, label.encode().ljust(16, b"\0"))
        return
    if kind in ("ext2", "ext3", "ext4") and len(label.encode()) > 16:
        raise Failed(f"{label}: ext2/3/4 labels are limited to 16 bytes")
    if kind == "xfs" and len(label.encode()) > 12:
        raise Failed(f"{label}: xfs labels are limited to 12 bytes")
    if kind == "vfat" and len(label) > 11:
        raise Failed("fatlabel: labels can be no longer than 11 characters")
    if kind not in DRIVERS:
        raise Failed(f"don't know how to set the label for '{kind}' filesystems")
    _with(fish, mountable, "set_label", lambda fs: fs.set_label(label))


@command("set-e2label", "device:device label:string", help="set the ext2/3/4 filesystem label")
def set_e2label(fish: Fish, device: str, label: str) -> None:
    _with(fish, device, "set_e2label", lambda fs: fs.set_label(label))


@command("set-uuid", "device:device uuid:string", help="set the filesystem UUID")
def set_uuid(fish: Fish, device: str, uuid: str) -> None:
    node = opened(fish, device, "set_uuid")
    if kind_of(node) == "swap":
        from uuid import UUID

        try:
            identity = UUID(uuid)
        except ValueError as error:
            raise Failed(f"{uuid}: not a UUID") from error
        _swap(fish, device, node, 1036, identity.bytes)
        return
    _with(fish, device, "set_uuid", lambda fs: fs.set_uuid(uuid))


@command("set-uuid-random", "device:device", help="set a random UUID for the filesystem")
def set_uuid_random(fish: Fish, device: str) -> None:
    import uuid

    made = str(uuid.uuid4())
    if kind_of(opened(fish, device, "set_uuid_random")) == "vfat":
        # what FAT has is a number of the volume, of 32 bits
        made = f"{made[:4]}-{made[4:8]}".upper()
    set_uuid(fish, device, made)


@command("set-e2uuid", "device:device uuid:string", help="set the ext2/3/4 filesystem UUID")
def set_e2uuid(fish: Fish, device: str, uuid: str) -> None:
    set_uuid(fish, device, uuid)


@command("filesystem-available", "filesystem:string", "bool", help="check if filesystem is available")
def filesystem_available(fish: Fish, filesystem: str) -> bool:
    return filesystem in DRIVERS or filesystem == "msdos"


@command(
    "mkfs mkfs-opts",
    "fstype:string device:device [blocksize:int] [features:string] [inode:int] [sectorsize:int] [label:string]",
    help="make a filesystem",
)
def mkfs(
    fish: Fish,
    fstype: str,
    device: str,
    blocksize: int | None = None,
    features: str | None = None,
    inode: int | None = None,
    sectorsize: int | None = None,
    label: str | None = None,
) -> None:
    node = opened(fish, device, "mkfs")
    if blocksize is not None and (blocksize <= 0 or blocksize & (blocksize - 1)):
        raise Failed("block size must be > 0 and a power of 2")
    if inode is not None and fstype not in ("ext2", "ext3", "ext4"):
        raise Failed("inode size (-I) can only be set on ext2/3/4 filesystems")
    if fish.session.mounted(device) is not None:
        raise Failed(f"{fstype}: {device}: {device} is mounted; will not make a filesystem here!")
    if fish.session.user(device) is not None:
        text = "is apparently in use by the system; will not make a filesystem here!"
        raise Failed(f"{fstype}: {device}: {device} {text}")
    kind = {"msdos": "vfat", "fat": "vfat"}.get(fstype, fstype)
    module = DRIVERS.get(kind)
    if module is None:
        raise Failed(f"{fstype}: {device}: file systems of the kind {fstype} can't be made here")
    driver = __import__(f"cowshed.guest.filesystem.{module}", fromlist=("make",))
    make = getattr(driver, "make", None)
    if make is None:
        raise Failed(f"{fstype}: {device}: file systems of the kind {fstype} can't be made here yet")
    given: dict[str, object] = {}
    if kind == "vfat":
        if features is not None or inode is not None:
            raise Failed("features and inode are no options of FAT")
        given = {"sector_size": sectorsize, "label": label}
        if blocksize is not None:
            given["cluster_sectors"] = blocksize // (sectorsize or 512)
    else:
        given = {"kind": kind, "block_size": blocksize, "features": features, "inode_size": inode, "label": label}
    make(node, **{name: value for name, value in given.items() if value is not None})
    node.flush()
    fish.session.devices.forget()


@command("mkfs-b", "fstype:string blocksize:int device:device", help="make a filesystem with block size")
def mkfs_b(fish: Fish, fstype: str, blocksize: int, device: str) -> None:
    mkfs(fish, fstype, device, blocksize)


@command("xfs-info", "pathordevice:place", "hash", help="get geometry of XFS filesystem")
def xfs_info(fish: Fish, pathordevice: str) -> list[tuple[str, str]]:
    import struct

    if pathordevice.startswith("/dev/"):
        device = pathordevice
    else:
        device = fish.session.tree.resolve(pathordevice.encode("utf-8", "surrogateescape")).mount.device
    node = opened(fish, device, "xfs_info")
    if kind_of(node) != "xfs":
        raise Failed(f"{pathordevice}: is not a valid XFS filesystem")
    block = node.read(0, 512)
    size, blocks = struct.unpack_from(">IQ", block, 4)
    (log_start,) = struct.unpack_from(">Q", block, 48)
    agblocks, agcount, _bitmaps, log = struct.unpack_from(">IIII", block, 84)
    version, sector, inode = struct.unpack_from(">HHH", block, 100)
    (imax,) = struct.unpack_from(">B", block, 127)
    unit, width = struct.unpack_from(">II", block, 184)
    fields = {
        "xfs_mntpoint": fish.session.devices.canonical(device),
        "xfs_inodesize": inode,
        "xfs_agcount": agcount,
        "xfs_agsize": agblocks,
        "xfs_sectsize": sector,
        "xfs_attr": 2,
        "xfs_blocksize": size,
        "xfs_datablocks": blocks,
        "xfs_imaxpct": imax,
        "xfs_sunit": unit,
        "xfs_swidth": width,
        "xfs_dirversion": 2,
        "xfs_dirblocksize": size << block[192],
        "xfs_cimode": 1 if version & 0x4000 and struct.unpack_from(">I", block, 200)[0] & 1 else 0,
        "xfs_logname": "internal log" if log_start else "external",
        "xfs_logblocksize": size,
        "xfs_logblocks": log,
        "xfs_logversion": 2,
        "xfs_logsectsize": struct.unpack_from(">H", block, 194)[0] or sector,
        "xfs_logsunit": struct.unpack_from(">I", block, 196)[0] // size,
        "xfs_lazycount": 1 if version & 0x8000 and struct.unpack_from(">I", block, 200)[0] & 2 else 0,
        "xfs_rtname": "none",
        "xfs_rtextsize": struct.unpack_from(">I", block, 80)[0] * size,
        "xfs_rtblocks": struct.unpack_from(">Q", block, 16)[0],
        "xfs_rtextents": struct.unpack_from(">Q", block, 24)[0],
    }
    return [(name, str(value)) for name, value in fields.items()]


@command(
    "xfs-admin",
    "device:device [extunwritten:bool] [imgfile:bool] [v2log:bool] [projid32bit:bool] [lazycounter:bool] "
    "[label:string] [uuid:string]",
    help="change parameters of an XFS filesystem",
)
def xfs_admin(
    fish: Fish,
    device: str,
    extunwritten: bool = False,
    imgfile: bool = False,
    v2log: bool = False,
    projid32bit: bool = False,
    lazycounter: bool | None = None,
    label: str | None = None,
    uuid: str | None = None,
) -> None:
    """The label is changed; of the other parameters only what is so already is taken."""
    node = opened(fish, device, "xfs_admin")
    if fish.session.user(device) is not None:
        raise Failed(f"{device}: xfs_admin: {device} contains a mounted filesystem")
    if kind_of(node) != "xfs":
        raise Failed(f"{device}: xfs_admin: not a valid XFS filesystem")
    lazy = dict(xfs_info(fish, device))["xfs_lazycount"] == "1"
    version = int.from_bytes(node.read(100, 2), "big")
    wide = bool(version & 0xF == 5 or (version & 0x8000 and int.from_bytes(node.read(200, 4), "big") & 0x80))
    asked = {
        "extunwritten": (extunwritten, True),
        "v2log": (v2log, bool(version & 0x400)),
        "projid32bit": (projid32bit, wide),
        # without effect since version 5
        "lazycounter": (lazycounter is not None, version & 0xF == 5 or lazy == lazycounter),
    }
    for name, (given, so) in asked.items():
        if given and not so:
            raise Failed(f"{device}: {name}: how XFS keeps its metadata is not changed here; instead: xfs_admin on it")
    if uuid is not None:
        raise Failed(
            f"{device}: uuid: the log carries it too, and is not made anew here; instead: download the device, and use "
            "xfs_admin -U on it"
        )
    if label is not None:
        # what xfs_admin takes for none
        set_label(fish, device, "" if label == "--" else label)


#: kinds whose smallest size the original finds, with programs of theirs
_SHRINKING = ("ext2", "ext3", "ext4", "btrfs", "ntfs")


@command("vfs-minimum-size", "mountable:mountable", "int", help="get minimum filesystem size")
def vfs_minimum_size(fish: Fish, mountable: str) -> int:
    node = opened(fish, mountable, "vfs_minimum_size")
    kind = kind_of(node)
    if kind in _SHRINKING:
        raise Failed(f"{mountable}: how small {kind} could become is not found out here: nothing of it is shrunk")
    if kind != "xfs":
        raise Failed(f"don't know how to get minimum size of '{kind}' filesystems")
    if fish.session.mounted(mountable) is None:
        raise Failed(f"device not mounted: {mountable}")
    # XFS does not shrink
    facts = dict(xfs_info(fish, mountable))
    return int(facts["xfs_datablocks"]) * int(facts["xfs_blocksize"])


@command("mkmountpoint", "exemptpath:string", help="create a mountpoint")
def mkmountpoint(fish: Fish, exemptpath: str) -> None:
    if not exemptpath.startswith("/"):
        raise Failed("mkmountpoint_stub: path must start with a / character")
    if not fish.session.tree.mounts:
        raise Failed("mountpoints of their own need something mounted on / first")
    fish.session.tree.mkdir(exemptpath.encode("utf-8", "surrogateescape"))


@command("rmmountpoint", "exemptpath:string", help="remove a mountpoint")
def rmmountpoint(fish: Fish, exemptpath: str) -> None:
    fish.need_root("rmmountpoint")
    fish.session.tree.rmdir(exemptpath.encode("utf-8", "surrogateescape"))


@command("remount", "mountpoint:path [rw:bool]", help="remount a filesystem with different options")
def remount(fish: Fish, mountpoint: bytes, rw: bool | None = None) -> None:
    if rw is None:
        raise Failed("parameter 'rw' must be specified")
    place = fish.session.tree.resolve(mountpoint)
    fish.session.tree.sync()
    if rw and not place.mount.fs.writable:
        raise Failed("it was mounted read-only: umount it, and mount it for writing")
    place.mount.readonly = not rw
