"""Physical volumes and volume groups changed: pvcreate, pvresize, vgcreate, vgrename, vgmeta."""

from __future__ import annotations

from ..fish import Failed, Fish
from ..table import command
from .logical import told


@command("pvcreate", "device:device", help="create an LVM physical volume")
def pvcreate(fish: Fish, device: str) -> None:
    told(fish, "pvcreate", "", lambda volumes: volumes.create_physical(device))


@command("pvremove", "device:device", help="remove an LVM physical volume")
def pvremove(fish: Fish, device: str) -> None:
    told(fish, "pvremove", "", lambda volumes: volumes.remove_physical(device))


@command("pvresize", "device:device", help="resize an LVM physical volume")
def pvresize(fish: Fish, device: str) -> None:
    told(fish, "pvresize", "", lambda volumes: volumes.resize_physical(device), before=f"{device}: ")


@command("pvresize-size", "device:device size:int64", help="resize an LVM physical volume (with size)")
def pvresize_size(fish: Fish, device: str, size: int) -> None:
    rest = abs(size) % 512
    if rest or size < 0:
        low = abs(size) - rest
        why = (
            f"Size is not a multiple of 512. Try using {low} or {low + 512}."
            if rest
            else "Size may not be relative/signed."
        )
        raise Failed(
            f"{device}:   {why}\n  Invalid argument for --setphysicalvolumesize: {size}b\n"
            "  Error during parsing of command line."
        )
    told(
        fish, "pvresize_size", "", lambda volumes: volumes.resize_physical(device, size or None), before=f"{device}: "
    )  # fmt: skip


@command("pvchange-uuid", "device:device", help="generate a new random UUID for a physical volume")
def pvchange_uuid(fish: Fish, device: str) -> None:
    told(fish, "pvchange_uuid", "", lambda volumes: volumes.renew_physical(device), before=f"{device}: ")


@command("pvchange-uuid-all", help="generate new random UUIDs for all physical volumes")
def pvchange_uuid_all(fish: Fish) -> None:
    _each(fish, sorted(fish.session.devices.lvm().labels), "renew_physical")


def _each(fish: Fish, names: list[str], method: str) -> None:
    """Change all that can be changed, then tell of the others."""
    from ....guest.volumes import Volumes
    from ....layout.lvm.draft import Refusal

    refused = []
    for name in names:
        try:
            getattr(Volumes(fish.session), method)(name)
        except Refusal as refusal:
            refused.append(f"  {refusal}")
    if refused:
        raise Failed("\n".join(refused))


@command("vgcreate", "volgroup:string physvols:names", help="create an LVM volume group")
def vgcreate(fish: Fish, volgroup: str, physvols: list[str]) -> None:
    if volgroup.startswith("-"):
        letter = volgroup[1:2]
        raise Failed(f"vgcreate: invalid option -- '{letter}'\n  Error during parsing of command line.")
    if not physvols:
        raise Failed(
            "  No command with matching syntax recognised.  Run 'vgcreate --help' for more information.\n"
            "  Correct command syntax is:"
        )
    told(fish, "vgcreate", "vgcreate", lambda volumes: volumes.create_group(volgroup, physvols))


@command("vgremove", "vgname:string", help="remove an LVM volume group")
def vgremove(fish: Fish, vgname: str) -> None:
    told(fish, "vgremove", "", lambda volumes: volumes.remove_group(vgname))


@command("vgrename", "volgroup:string newvolgroup:string", help="rename an LVM volume group")
def vgrename(fish: Fish, volgroup: str, newvolgroup: str) -> None:
    told(
        fish, "vgrename", "", lambda volumes: volumes.rename_group(volgroup, newvolgroup),
        before=f"{volgroup} -> {newvolgroup}: ",
    )  # fmt: skip


@command("vgmeta", "vgname:string", "buffer", help="get volume group metadata")
def vgmeta(fish: Fish, vgname: str) -> bytes:
    found: list[bytes] = []
    told(fish, "vgmeta", "", lambda volumes: found.append(volumes.text(vgname)), before="vgcfgbackup: ")
    return found[0]


@command("vgchange-uuid", "vg:string", help="generate a new random UUID for a volume group")
def vgchange_uuid(fish: Fish, vg: str) -> None:
    told(fish, "vgchange_uuid", "", lambda volumes: volumes.renew_group(vg), before=f"{vg}: ")


@command("vgchange-uuid-all", help="generate new random UUIDs for all volume groups")
def vgchange_uuid_all(fish: Fish) -> None:
    _each(fish, sorted(group.name for group in fish.session.devices.lvm().groups), "renew_group")


@command("lvm-set-filter", "devices:names", help="set LVM device filter")
def lvm_set_filter(fish: Fish, devices: list[str]) -> None:
    from .device import opened

    for name in devices:
        opened(fish, name, "lvm_set_filter")
    _filter(fish, "lvm_set_filter", [fish.session.devices.canonical(name) for name in devices])


@command("lvm-clear-filter", help="clear LVM device filter")
def lvm_clear_filter(fish: Fish) -> None:
    _filter(fish, "lvm_clear_filter", None)


def _filter(fish: Fish, name: str, devices: list[str] | None) -> None:
    from ....layout.lvm.model import LogicalVolume

    def used(lv: LogicalVolume) -> bool:
        path = f"/dev/{lv.group.name}/{lv.name}"
        return any(mount.device == path for mount in fish.session.tree.mounts)

    for group in fish.session.devices.lvm().groups:
        for lv in group.volumes.values():
            if used(lv):
                raise Failed(f"vgchange -an:   Logical volume {group.name}/{lv.name} contains a filesystem in use.")
    fish.session.devices.filter = devices
    fish.session.devices.forget()
