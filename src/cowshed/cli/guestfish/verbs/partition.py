"""Partition tables: part-list, part-add, part-disk and the rest."""

from __future__ import annotations

from ....errors import CowshedError, ForeignError, UsageError
from ....guest.filesystem.base import GuestError
from ..fish import Failed, Fish
from ..table import command

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from ....guest.devices import Drive
    from ....layout.partition import Partition, Table

    Fields = list[tuple[str, str | bytes | int]]

#: guestfish's names for kinds of tables that can be made
_LABELS = {"efi": "gpt", "gpt": "gpt", "mbr": "dos", "msdos": "dos"}
_OTHERS = ("aix", "amiga", "rdb", "bsd", "dasd", "dvh", "mac", "pc98", "sun")


def _drive(fish: Fish, device: str, name: str) -> Drive:
    devices = fish.session.devices
    try:
        devices.open(device)
    except GuestError as error:
        raise Failed(f"{name}_stub: {device}: No such file or directory") from error
    try:
        return devices.drive(device)
    except GuestError as error:
        raise Failed(f"{devices.canonical(device)}: not a partitioned device") from error


def _table(fish: Fish, device: str, name: str) -> tuple[Drive, Table]:
    drive = _drive(fish, device, name)
    try:
        return drive, drive.table()
    except ForeignError as error:
        raise Failed(f"{device}: unrecognised disk label") from error


def _part(table: Table, number: int) -> Partition:
    if number <= 0:
        raise Failed("partition number must be >= 1")
    found = table.find(number)
    if found is None:
        raise Failed(f"partition number {number} not found")
    return found


def _gpt(table: Table, name: str) -> None:
    if table.label != "gpt":
        raise Failed(f"{name.replace('_', '-')} can only be used on GUID Partition Tables")


def _change(fish: Fish, device: str, name: str, what: Callable[[Table], object]) -> None:
    """Change the table, write it, and look anew at what the disk divides into."""
    drive, table = _table(fish, device, name)
    for mount in fish.session.tree.mounts:
        if drive in fish.session.devices.parents(mount.device) and name in ("part_init", "part_disk"):
            raise Failed(f"{device}: device is in use: {mount.device} is mounted")
    used = {part.number: part.start for part in table.partitions if fish.session.user(f"{drive.path}{part.number}")}
    try:
        what(table)
        for number, start in used.items():
            # logical partitions go with the extended one, and get other numbers when one before them goes
            after = table.find(number)
            if after is None or after.start != start:
                raise Failed(f"{drive.path}{number}: device is in use")
        table.write(drive.node)
    except UsageError as error:
        raise Failed(f"parted: {device}: Error: {error}") from error
    finally:
        fish.session.devices.forget()


@command("part-list", "device:device", "structs", help="list partitions on a device")
def part_list(fish: Fish, device: str) -> list[Fields]:
    _, table = _table(fish, device, "part_list")
    return [
        [
            ("part_num", part.number),
            ("part_start", part.start),
            ("part_end", part.end - 1),
            ("part_size", part.size),
        ]
        for part in table.partitions
    ]


@command("part-get-parttype", "device:device", "string", help="get the partition table type")
def part_get_parttype(fish: Fish, device: str) -> str:
    _, table = _table(fish, device, "part_get_parttype")
    return "gpt" if table.label == "gpt" else "msdos"


@command("part-init", "device:device parttype:string", help="create an empty partition table")
def part_init(fish: Fish, device: str, parttype: str) -> None:
    from ....layout.partition import create_table

    drive = _drive(fish, device, "part_init")
    label = _LABELS.get(parttype)
    if label is None:
        if parttype in _OTHERS:
            raise Failed(f"partition tables of the type ‘{parttype}’ can't be made here: use gpt or mbr")
        raise Failed("unknown partition type: common choices are \"gpt\" and \"msdos\"")
    _busy(fish, drive, device)
    create_table(label, drive.node, sector_size=drive.sector).write(drive.node)
    fish.session.devices.forget()


def _busy(fish: Fish, drive: Drive, device: str) -> None:
    for mount in fish.session.tree.mounts:
        if drive in fish.session.devices.parents(mount.device):
            raise Failed(f"{device}: device is in use: {mount.device} is mounted")


@command("part-disk", "device:device parttype:string", help="partition whole disk with a single primary partition")
def part_disk(fish: Fish, device: str, parttype: str) -> None:
    part_init(fish, device, parttype)
    drive, table = _table(fish, device, "part_disk")
    # 64 KiB of alignment, as libguestfs, and room for GPT's second copy
    sector = table.sector_size
    start = 128 * 512
    end = (drive.node.size // sector - 128 * 512 // sector + 1) * sector
    _, high = table.usable()
    _change(fish, device, "part_disk_", lambda table: table.add(start, min(end, high) - start))


_KINDS = {
    "p": "primary",
    "primary": "primary",
    "l": "logical",
    "logical": "logical",
    "e": "extended",
    "extended": "extended",
}


@command(
    "part-add", "device:device prlogex:string startsect:int64 endsect:int64", help="add a partition to the device"
)
def part_add(fish: Fish, device: str, prlogex: str, startsect: int, endsect: int) -> None:
    kind = _KINDS.get(prlogex)
    if kind is None:
        raise Failed(f'unknown partition type: {prlogex}: this should be "primary", "logical" or "extended"')
    drive, _ = _table(fish, device, "part_add")
    if startsect < 0:
        raise Failed("startsect cannot be negative")

    def add(table: Table) -> None:
        sector = table.sector_size
        last = endsect if endsect >= 0 else drive.node.size // sector + endsect
        table.add(startsect * sector, (last + 1 - startsect) * sector, kind=kind)

    _change(fish, device, "part_add", add)


@command("part-del", "device:device partnum:int", help="delete a partition")
def part_del(fish: Fish, device: str, partnum: int) -> None:
    if partnum <= 0:
        raise Failed("partition number must be >= 1")
    name = fish.session.devices.canonical(device) + str(partnum)
    _, table = _table(fish, device, "part_del")
    if table.find(partnum) is None:
        raise Failed(f"parted: {device}: Error: Partition doesn't exist.")
    if fish.session.user(name) is not None:
        raise Failed(f"{name}: device is in use")
    _change(fish, device, "part_del", lambda table: table.delete(partnum))


@command("part-resize", "device:device partnum:int endsect:int64", help="resize a partition")
def part_resize(fish: Fish, device: str, partnum: int, endsect: int) -> None:
    drive, table = _table(fish, device, "part_resize")
    part = table.find(partnum) if partnum > 0 else None
    if part is None:
        raise Failed(f"parted: {device}: Error: Partition doesn't exist.:")
    sector = table.sector_size
    last = endsect if endsect >= 0 else drive.node.size // sector + endsect
    if (last + 1) * sector < part.end:
        raise Failed(
            f"parted: {device}: Warning: Shrinking a partition can cause data loss, are you sure you want to continue?:"
        )
    _change(fish, device, "part_resize", lambda table: table.resize(partnum, (last + 1) * sector - part.start))


@command("part-expand-gpt", "device:device", help="move backup GPT header to the end of the disk")
def part_expand_gpt(fish: Fish, device: str) -> None:
    _, table = _table(fish, device, "part_expand_gpt")
    _gpt(table, "part_expand_gpt")
    _change(fish, device, "part_expand_gpt", lambda table: table.grow())


@command("part-get-bootable", "device:device partnum:int", "bool", help="return true if a partition is bootable")
def part_get_bootable(fish: Fish, device: str, partnum: int) -> bool:
    _, table = _table(fish, device, "part_get_bootable")
    return _part(table, partnum).active


@command("part-set-bootable", "device:device partnum:int bootable:bool", help="make a partition bootable")
def part_set_bootable(fish: Fish, device: str, partnum: int, bootable: bool) -> None:
    _change(fish, device, "part_set_bootable", lambda table: table.set_active(_part(table, partnum).number, bootable))


@command("part-get-mbr-id", "device:device partnum:int", "hex", help="get the MBR type byte (ID byte) from a partition")
def part_get_mbr_id(fish: Fish, device: str, partnum: int) -> int:
    _, table = _table(fish, device, "part_get_mbr_id")
    kind = _part(table, partnum).type
    if not isinstance(kind, int):
        raise Failed("part-get-mbr-id can only be used on MBR Partition Tables")
    return kind


@command(
    "part-set-mbr-id", "device:device partnum:int idbyte:int", help="set the MBR type byte (ID byte) of a partition"
)
def part_set_mbr_id(fish: Fish, device: str, partnum: int, idbyte: int) -> None:
    if not 0 <= idbyte <= 255:
        raise Failed(f"{idbyte}: the type is a byte")
    _, table = _table(fish, device, "part_set_mbr_id")
    if table.label == "gpt":
        raise Failed(
            f"sfdisk --part-type: sfdisk: {device}: partition {partnum}: failed to set partition type"
        )
    _change(fish, device, "part_set_mbr_id", lambda table: table.set_type(_part(table, partnum).number, idbyte))


@command("part-get-mbr-part-type", "device:device partnum:int", "string", help="get the MBR partition type")
def part_get_mbr_part_type(fish: Fish, device: str, partnum: int) -> str:
    _, table = _table(fish, device, "part_get_mbr_part_type")
    return _part(table, partnum).kind


@command("part-get-gpt-type", "device:device partnum:int", "string", help="get the type GUID of a GPT partition")
def part_get_gpt_type(fish: Fish, device: str, partnum: int) -> str:
    from ....layout.partition.types import MBR_TO_GUID

    _, table = _table(fish, device, "part_get_gpt_type")
    kind = _part(table, partnum).type
    if isinstance(kind, int):
        guid = MBR_TO_GUID.get(kind)
        if guid is None:
            _gpt(table, "part_get_gpt_type")
            return ""
        return guid
    return kind


@command("part-set-gpt-type", "device:device partnum:int guid:guid", help="set the type GUID of a GPT partition")
def part_set_gpt_type(fish: Fish, device: str, partnum: int, guid: str) -> None:
    _, table = _table(fish, device, "part_set_gpt_type")
    _gpt(table, "part_set_gpt_type")
    _change(fish, device, "part_set_gpt_type", lambda table: table.set_type(_part(table, partnum).number, guid))


@command("part-get-gpt-guid", "device:device partnum:int", "string", help="get the GUID of a GPT partition")
def part_get_gpt_guid(fish: Fish, device: str, partnum: int) -> str:
    _, table = _table(fish, device, "part_get_gpt_guid")
    _gpt(table, "part_get_gpt_guid")
    return _part(table, partnum).guid or ""


@command("part-set-gpt-guid", "device:device partnum:int guid:guid", help="set the GUID of a GPT partition")
def part_set_gpt_guid(fish: Fish, device: str, partnum: int, guid: str) -> None:
    _, table = _table(fish, device, "part_set_gpt_guid")
    _gpt(table, "part_set_gpt_guid")
    _change(fish, device, "part_set_gpt_guid", lambda table: table.set_guid(_part(table, partnum).number, guid))


@command(
    "part-get-gpt-attributes", "device:device partnum:int", "int", help="get the attribute flags of a GPT partition"
)
def part_get_gpt_attributes(fish: Fish, device: str, partnum: int) -> int:
    _, table = _table(fish, device, "part_get_gpt_attributes")
    _gpt(table, "part_get_gpt_attributes")
    value = _part(table, partnum).attributes
    return value - (1 << 64) if value >> 63 else value


@command(
    "part-set-gpt-attributes",
    "device:device partnum:int attributes:int64",
    help="set the attribute flags of a GPT partition",
)
def part_set_gpt_attributes(fish: Fish, device: str, partnum: int, attributes: int) -> None:
    _, table = _table(fish, device, "part_set_gpt_attributes")
    _gpt(table, "part_set_gpt_attributes")
    value = attributes & ((1 << 64) - 1)
    _change(
        fish, device, "part_set_gpt_attributes", lambda table: table.set_attributes(_part(table, partnum).number, value)
    )


@command("part-get-name", "device:device partnum:int", "string", help="get partition name")
def part_get_name(fish: Fish, device: str, partnum: int) -> str:
    _, table = _table(fish, device, "part_get_name")
    _gpt(table, "part_get_name")
    return _part(table, partnum).name


@command("part-set-name", "device:device partnum:int name:string", help="set partition name")
def part_set_name(fish: Fish, device: str, partnum: int, name: str) -> None:
    _, table = _table(fish, device, "part_set_name")
    if table.label != "gpt":
        raise Failed(f"parted: {device}: Error: msdos disk labels do not support partition name.")
    if table.find(partnum) is None:
        raise Failed(f"parted: {device}: Error: Partition doesn't exist.")
    _change(fish, device, "part_set_name", lambda table: table.set_name(_part(table, partnum).number, name))


@command("part-get-disk-guid", "device:device", "string", help="get the GUID of a GPT-partitioned disk")
def part_get_disk_guid(fish: Fish, device: str) -> str:
    _, table = _table(fish, device, "part_get_disk_guid")
    _gpt(table, "part_get_disk_guid")
    return table.identifier


@command("part-set-disk-guid", "device:device guid:guid", help="set the GUID of a GPT-partitioned disk")
def part_set_disk_guid(fish: Fish, device: str, guid: str) -> None:
    _, table = _table(fish, device, "part_set_disk_guid")
    _gpt(table, "part_set_disk_guid")
    _change(fish, device, "part_set_disk_guid", lambda table: table.set_identifier(guid))


@command("part-set-disk-guid-random", "device:device", help="set the GUID of a GPT-partitioned disk to random value")
def part_set_disk_guid_random(fish: Fish, device: str) -> None:
    _, table = _table(fish, device, "part_set_disk_guid_random")
    _gpt(table, "part_set_disk_guid_random")
    _change(fish, device, "part_set_disk_guid_random", lambda table: table.set_identifier(None))


def _split(fish: Fish, partition: str, name: str) -> tuple[Drive, int]:
    try:
        fish.session.devices.open(partition)
    except GuestError as error:
        raise Failed(f"{name}_stub: {partition}: No such file or directory") from error
    try:
        return fish.session.devices.part(partition)
    except (GuestError, CowshedError) as error:
        raise Failed("device name is not a partition") from error


@command("part-to-dev", "partition:device", "string", help="convert partition name to device name")
def part_to_dev(fish: Fish, partition: str) -> str:
    return _split(fish, partition, "part_to_dev")[0].path


@command("part-to-partnum", "partition:device", "int", help="convert partition name to partition number")
def part_to_partnum(fish: Fish, partition: str) -> int:
    return _split(fish, partition, "part_to_partnum")[1]
