"""LVM and what is unlocked: pvs, vgs, lvs, luks-open."""

from __future__ import annotations

import errno

from ....errors import CowshedError, error_number
from ....guest.filesystem.base import GuestError
from ..arguments import Refused
from ..fish import Failed, Fish
from ..table import command

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from ....layout.lvm.model import LogicalVolume, PhysicalVolume, VolumeGroup

    Fields = list[tuple[str, str | bytes | int]]


def _groups(fish: Fish) -> list[VolumeGroup]:
    return sorted(fish.session.devices.lvm().groups, key=lambda group: group.name)


def _group(fish: Fish, name: str) -> VolumeGroup:
    found = fish.session.devices.lvm().group(name)
    if found is None:
        raise Failed(f'{name}:   Volume group "{name}" not found\n  Cannot process volume group {name}')
    return found


@command("pvs", "", "list", help="list the LVM physical volumes (PVs)")
def pvs(fish: Fish) -> list[str]:
    return sorted(fish.session.devices.lvm().labels)


@command("vgs", "", "list", help="list the LVM volume groups (VGs)")
def vgs(fish: Fish) -> list[str]:
    return [group.name for group in _groups(fish)]


@command("lvs", "", "list", help="list the LVM logical volumes (LVs)")
def lvs(fish: Fish) -> list[str]:
    # also those that are not active
    devices = fish.session.devices
    active, devices.active = devices.active, lambda name: True
    try:
        return devices.volumes()
    finally:
        devices.active = active


def _plain(uuid: str) -> str:
    return uuid.replace("-", "")


@command("pvs-full", "", "structs", help="list the LVM physical volumes (PVs)")
def pvs_full(fish: Fish) -> Iterator[Fields]:
    found = fish.session.devices.lvm()
    owners: dict[str, tuple[VolumeGroup, PhysicalVolume]] = {
        pv.path: (group, pv) for group in found.groups for pv in group.physical.values() if pv.path is not None
    }
    for path in sorted(found.labels):
        label = found.labels[path]
        owner = owners.get(path)
        size = fish.session.devices.open(path).size
        said = label.device_size or size
        total = used = start = 0
        group_size = 0
        if owner is not None:
            group, pv = owner
            group_size = group.extent_size
            total, start = pv.extents, pv.pe_start
            used = sum(count for _, count, _ in group.used().get(pv.name, []))
        areas = label.metadata
        yield [
            ("pv_name", path),
            ("pv_uuid", _plain(label.uuid)),
            ("pv_fmt", "lvm2"),
            ("pv_size", total * group_size if owner else said),
            ("dev_size", size),
            ("pv_free", (total - used) * group_size if owner else said),
            ("pv_used", used * group_size),
            ("pv_attr", "a--" if owner else "---"),
            ("pv_pe_count", total),
            ("pv_pe_alloc_count", used),
            ("pv_tags", ""),
            ("pe_start", start or (label.data[0].offset if label.data else 0)),
            ("pv_mda_count", len(areas)),
            ("pv_mda_free", _mda_free(fish, path)),
        ]


def _mda_free(fish: Fish, path: str) -> int:
    """Of the smallest ring on a device: half of it, without the text that is there and a sector, in whole sectors."""
    from ....layout.lvm.label import MDA_HEADER, SECTOR, read_area

    free = []
    for area in fish.session.devices.lvm().labels[path].metadata:
        used = read_area(fish.session.devices.open(path), area).size
        free.append(max(0, (area.size - MDA_HEADER) // 2 - used - SECTOR) // SECTOR * SECTOR)
    return min(free, default=0)


@command("vgs-full", "", "structs", help="list the LVM volume groups (VGs)")
def vgs_full(fish: Fish) -> Iterator[Fields]:
    labels = fish.session.devices.lvm().labels
    for group in _groups(fish):
        paths = [pv.path for pv in group.physical.values() if pv.path is not None and pv.path in labels]
        areas = [area for path in paths for area in labels[path].metadata]
        visible = [lv for lv in group.volumes.values() if lv.visible]
        attr = "w" if "WRITE" in group.flags else "r"
        attr += "z" if "RESIZEABLE" in group.flags else "-"
        attr += "x" if "EXPORTED" in group.flags else "-"
        attr += "p" if group.missing else "-"
        yield [
            ("vg_name", group.name),
            ("vg_uuid", _plain(group.uuid)),
            ("vg_fmt", "lvm2"),
            ("vg_attr", attr + "n-"),
            ("vg_size", group.size),
            ("vg_free", group.free),
            ("vg_sysid", ""),
            ("vg_extent_size", group.extent_size),
            ("vg_extent_count", group.extents),
            ("vg_free_count", group.free // group.extent_size),
            ("max_lv", 0),
            ("max_pv", 0),
            ("pv_count", len(group.physical)),
            ("lv_count", len(visible)),
            ("snap_count", sum(lv.snapshot is not None for lv in visible)),
            ("vg_seqno", group.seqno),
            ("vg_tags", ",".join(group.tags)),
            ("vg_mda_count", len(areas)),
            ("vg_mda_free", min((_mda_free(fish, path) for path in paths), default=0)),
        ]


def _attr(fish: Fish, lv: LogicalVolume, device: str) -> str:
    kind = lv.type
    first = "-"
    if lv.snapshot is not None:
        first = "s"
    elif lv.snapshots:
        first = "o"
    elif kind in ("mirror",):
        first = "m"
    elif kind.startswith("raid"):
        first = "r"
    elif kind == "thin":
        first = "V"
    mounted = any(mount.device == device for mount in fish.session.tree.mounts)
    health = "p" if any(pv.missing for pv in lv.group.physical.values()) else "-"
    target = {"s": "s", "o": "s", "m": "m", "r": "r", "V": "t"}.get(first, "-")
    writable = "w" if "WRITE" in lv.flags else "r"
    return f"{first}{writable}i-a{'o' if mounted else '-'}{target}-{health}-"


@command("lvs-full", "", "structs", help="list the LVM logical volumes (LVs)")
def lvs_full(fish: Fish) -> Iterator[Fields]:
    devices = fish.session.devices
    for minor, device in enumerate(devices.volumes()):
        lv = devices.volume(device)
        yield [
            ("lv_name", lv.name),
            ("lv_uuid", _plain(lv.uuid)),
            ("lv_attr", _attr(fish, lv, device)),
            ("lv_major", -1),
            ("lv_minor", -1),
            ("lv_kernel_major", 253),
            ("lv_kernel_minor", minor),
            ("lv_size", lv.virtual_size if lv.snapshot is not None else lv.size),
            ("seg_count", len(lv.segments)),
            ("origin", lv.origin or ""),
            ("snap_percent", ""),
            ("copy_percent", ""),
            ("move_pv", ""),
            ("lv_tags", ",".join(lv.tags)),
            ("mirror_log", ""),
            ("modules", "snapshot" if lv.snapshot is not None else ""),
        ]


@command("pvuuid", "device:device", "string", help="get the UUID of a physical volume")
def pvuuid(fish: Fish, device: str) -> str:
    name = fish.session.devices.canonical(device)
    label = fish.session.devices.lvm().labels.get(name)
    if label is None:
        raise Failed(f"{device}:   No physical volume label read from {device}.")
    return label.uuid


@command("vguuid", "vgname:string", "string", help="get the UUID of a volume group")
def vguuid(fish: Fish, vgname: str) -> str:
    return _group(fish, vgname).uuid


@command("lvuuid", "device:device", "string", help="get the UUID of a logical volume")
def lvuuid(fish: Fish, device: str) -> str:
    try:
        return fish.session.devices.volume(device).uuid
    except GuestError as error:
        name = fish.session.devices.canonical(device)
        try:
            fish.session.devices.open(name)
        except GuestError as missing:
            raise Failed(f"lvuuid_stub: {device}: No such file or directory") from missing
        stem = name.removeprefix("/dev/")
        raise Failed(f'{name}:   Volume group "{stem}" not found\n  Cannot process volume group {stem}') from error


@command("vgpvuuids", "vgname:string", "list", help="get the PV UUIDs containing the volume group")
def vgpvuuids(fish: Fish, vgname: str) -> list[str]:
    return [pv.uuid for pv in _group(fish, vgname).physical.values()]


@command("vglvuuids", "vgname:string", "list", help="get the LV UUIDs of all LVs in the volume group")
def vglvuuids(fish: Fish, vgname: str) -> list[str]:
    return [lv.uuid for lv in _group(fish, vgname).volumes.values() if lv.visible]


@command("is-lv", "mountable:mountable", "bool", help="test if mountable is a logical volume")
def is_lv(fish: Fish, mountable: str) -> bool:
    from .device import opened

    opened(fish, mountable, "is_lv")
    return fish.session.devices.canonical(mountable) in fish.session.devices.volumes()


@command("lvm-canonical-lv-name", "lvname:device", "string", help="get canonical name of an LV")
def lvm_canonical_lv_name(fish: Fish, lvname: str) -> str:
    name = fish.session.devices.canonical(lvname)
    if name not in fish.session.devices.volumes():
        try:
            fish.session.devices.open(name)
        except GuestError as error:
            raise Failed(f"stat: {lvname}: No such file or directory") from error
        raise Failed(f"{lvname}: not a logical volume")
    return name


@command("vgscan", help="scan for LVM physical volumes, volume groups and logical volumes")
def vgscan(fish: Fish) -> None:
    fish.session.devices.forget()


@command("lvm-scan", "activate:bool", help="scan for LVM physical volumes, volume groups and logical volumes")
def lvm_scan(fish: Fish, activate: bool) -> None:
    fish.session.devices.forget()
    if activate:
        _set_active(fish, True, [])


@command("vg-activate", "activate:bool volgroups:names", help="activate or deactivate some volume groups")
def vg_activate(fish: Fish, activate: bool, volgroups: list[str]) -> None:
    _set_active(fish, activate, volgroups)


@command("vg-activate-all", "activate:bool", help="activate or deactivate all volume groups")
def vg_activate_all(fish: Fish, activate: bool) -> None:
    _set_active(fish, activate, [])


def _set_active(fish: Fish, activate: bool, names: list[str]) -> None:
    devices = fish.session.devices
    names = names or [group.name for group in devices.lvm().groups]
    for name in names:
        if fish.session.devices.lvm().group(name) is None:
            raise Failed(f'vgchange:   Volume group "{name}" not found\n  Cannot process volume group {name}')
        used = [mount.device for mount in fish.session.tree.mounts if mount.device.startswith(f"/dev/{name}/")]
        if not activate and used:
            raise Failed(
                f"vgchange:   Logical volume {used[0].removeprefix('/dev/')} contains a filesystem in use.\n"
                f'  Can\'t deactivate volume group "{name}" with {len(used)} open logical volume(s)'
            )
    off = fish.inactive
    off.difference_update(names) if activate else off.update(names)
    devices.active = lambda name: name not in off


@command("list-md-devices", "", "list", help="list Linux md (RAID) devices")
def list_md_devices(fish: Fish) -> list[str]:
    return []


@command("list-dm-devices", "", "list", help="list device mapper devices")
def list_dm_devices(fish: Fish) -> list[str]:
    return sorted(fish.session.devices.mapped)


@command("list-ldm-volumes", "", "list", help="list all Windows dynamic disk volumes")
def list_ldm_volumes(fish: Fish) -> list[str]:
    return []


@command("list-ldm-partitions", "", "list", help="list all Windows dynamic disk partitions")
def list_ldm_partitions(fish: Fish) -> list[str]:
    return []


def ask_key(fish: Fish, prompt: str) -> bytes:
    """A passphrase: a line of standard input with --keys-from-stdin, else typed at the terminal, where it is shown with
    --echo-keys only. Raises Refused."""
    import sys

    told = "guestfish: could not read key from user"
    if fish.keys_from_stdin:
        line = sys.stdin.buffer.readline()
        if not line:
            raise Refused(told)
        return line.removesuffix(b"\n")
    fish.out.flush()
    try:
        if not fish.echo_keys:
            from getpass import getpass

            return getpass(prompt).encode("utf-8", "surrogateescape")
        with open("/dev/tty", "r+b", buffering=0) as terminal:
            terminal.write(prompt.encode())
            line = b""
            while not line.endswith(b"\n"):
                byte = terminal.read(1)
                if not byte:
                    raise Refused(told)
                line += byte
        return line.removesuffix(b"\n")
    except (OSError, EOFError) as error:
        raise Refused(told) from error


def key_error(error: CowshedError) -> str:
    """Why a volume stays locked: for keys that don't fit in cryptsetup's words, which scripts know."""
    if error_number(error) == errno.EPERM:
        return "cryptsetup exited with status 2: No key available with this passphrase."
    return str(error)


def _unlock(fish: Fish, device: str, mapname: str, readonly: bool) -> None:
    from ....guest.identity import identify
    from .device import opened

    node = opened(fish, device, "cryptsetup_open")
    found = identify(node)
    uuid = found.get("UUID", "")
    words = fish.keys(device, uuid)
    if found.get("TYPE") != "crypto_LUKS":
        raise Failed(f"{device}: Device {device} is not a valid LUKS device.")
    words = words or [ask_key(fish, 'Enter key or passphrase ("key"): ')]
    try:
        fish.session.devices.unlock(device, mapname, words, readonly=readonly)
    except CowshedError as error:
        raise Failed(key_error(error)) from error


@command(
    "cryptsetup-open",
    "device:device mapname:string [readonly:bool] [crypttype:string] [cipher:string]",
    help="open an encrypted block device",
)
def cryptsetup_open(
    fish: Fish, device: str, mapname: str, readonly: bool = False, crypttype: str = "luks", cipher: str = ""
) -> None:
    if crypttype not in ("luks", "luks1", "luks2"):
        raise Failed(f"encrypted devices of the type ‘{crypttype}’ can't be opened yet")
    _unlock(fish, device, mapname, readonly)


@command("luks-open", "device:device mapname:string", help="open a LUKS-encrypted block device")
def luks_open(fish: Fish, device: str, mapname: str) -> None:
    _unlock(fish, device, mapname, False)


@command("luks-open-ro", "device:device mapname:string", help="open a LUKS-encrypted block device read-only")
def luks_open_ro(fish: Fish, device: str, mapname: str) -> None:
    _unlock(fish, device, mapname, True)


@command("luks-close", "device:device", help="close an encrypted device")
def luks_close(fish: Fish, device: str) -> None:
    _close(fish, device, "luks_close")


@command("cryptsetup-close", "device:device", help="close an encrypted device")
def cryptsetup_close(fish: Fish, device: str) -> None:
    _close(fish, device, "cryptsetup_close")


def _close(fish: Fish, device: str, internal: str) -> None:
    from .device import opened

    opened(fish, device, internal)
    # a volume in a group inside of it counts too
    if fish.session.user(device) is not None:
        raise Failed(f"Device {device.rpartition('/')[2]} is still in use.")
    fish.session.devices.lock(device)


@command("luks-uuid", "device:device", "string", help="get the UUID of a LUKS encrypted device")
def luks_uuid(fish: Fish, device: str) -> str:
    from ....guest.identity import identify
    from .device import opened

    found = identify(opened(fish, device, "luks_uuid"))
    if found.get("TYPE") != "crypto_LUKS":
        raise Failed(f"{device}: cryptsetup: Device {device} is not a valid LUKS device.")
    return found.get("UUID", "")
