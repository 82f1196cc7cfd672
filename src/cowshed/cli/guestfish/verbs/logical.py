"""Logical volumes changed: lvcreate, lvresize, lvrename, lvremove."""

from __future__ import annotations

from ....guest.filesystem.base import GuestError
from ..fish import Failed, Fish
from ..table import command

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from ....guest.volumes import Volumes

_MIB = 1 << 20
#: refusals that lvm2 takes for a wrong command line
_MISUSE = (
    "is invalid", "are reserved.", "Inconsistent volume group", "may not be zero.", "Invalid path for", "must differ",
    "must have the same volume group", "may not exceed", "valid volume group name", "already exists in filesystem",
)  # fmt: skip


def told(fish: Fish, name: str, tool: str, what: Callable[[Volumes], object], *, before: str = "") -> None:
    """Carry out a change; what is refused is told as lvm2's TOOL does. ``before``: what stands before its text."""
    from ....guest.volumes import Volumes
    from ....layout.lvm.draft import Refusal

    try:
        what(Volumes(fish.session))
    except Refusal as refusal:
        text = str(refusal)
        if tool and any(word in text for word in _MISUSE):
            text += f"\n  Run `{tool} --help' for more information."
        # lines of lvm2 are indented, but for those of its readers of options and its questions
        indent = "" if text.startswith(f"{tool}:") else "  "
        raise Failed(before + indent + text) from refusal
    except GuestError as error:
        raise Failed(f"{name}_stub: {error}") from error


def _percent(value: int) -> None:
    if not 0 <= value <= 100:
        raise Failed(f"percentage must be [0..100] (was {value})")


def _not_zero(value: int, option: str, tool: str) -> None:
    if not value:
        raise Failed(f"  {option} may not be zero.\n  Run `{tool} --help' for more information.")


@command("lvcreate", "logvol:string volgroup:string mbytes:int", help="create an LVM logical volume")
def lvcreate(fish: Fish, logvol: str, volgroup: str, mbytes: int) -> None:
    if mbytes < 0:
        raise Failed(
            f"  Size may not be negative.\n  Invalid argument for --size: {mbytes}\n"
            "  Error during parsing of command line."
        )
    _not_zero(mbytes, "--size", "lvcreate")
    told(fish, "lvcreate", "lvcreate", lambda volumes: volumes.create(logvol, volgroup, size=mbytes * _MIB))


@command(
    "lvcreate-free",
    "logvol:string volgroup:string percent:int",
    help="create an LVM logical volume in % remaining free space",
)
def lvcreate_free(fish: Fish, logvol: str, volgroup: str, percent: int) -> None:
    _percent(percent)
    _not_zero(percent, "--extents", "lvcreate")
    told(fish, "lvcreate_free", "lvcreate", lambda volumes: volumes.create(logvol, volgroup, percent=percent))


@command("lvresize", "device:device mbytes:int", help="resize an LVM logical volume")
def lvresize(fish: Fish, device: str, mbytes: int) -> None:
    _not_zero(mbytes, "--size", "lvresize")

    def resize(volumes: Volumes) -> None:
        # a sign makes it a difference for lvm2
        if mbytes < 0:
            volumes.resize(device, less=-mbytes * _MIB)
        else:
            volumes.resize(device, size=mbytes * _MIB)

    told(fish, "lvresize", "lvresize", resize)


@command("lvresize-free", "lv:device percent:int", help="expand an LV to fill free space")
def lvresize_free(fish: Fish, lv: str, percent: int) -> None:
    _percent(percent)
    _not_zero(percent, "--extents", "lvresize")
    told(fish, "lvresize_free", "lvresize", lambda volumes: volumes.resize(lv, percent=percent))


@command("lvrename", "logvol:string newlogvol:string", help="rename an LVM logical volume")
def lvrename(fish: Fish, logvol: str, newlogvol: str) -> None:
    told(
        fish, "lvrename", "lvrename", lambda volumes: volumes.rename(logvol, newlogvol),
        before=f"{logvol} -> {newlogvol}: ",
    )  # fmt: skip


@command("lvremove", "device:device", help="remove an LVM logical volume")
def lvremove(fish: Fish, device: str) -> None:
    told(fish, "lvremove", "lvremove", lambda volumes: volumes.remove(device))


@command("lvm-remove-all", help="remove all LVM LVs, VGs and PVs")
def lvm_remove_all(fish: Fish) -> None:
    from ....guest.volumes import Volumes
    from ....layout.lvm.draft import Refusal

    try:
        Volumes(fish.session).remove_all()
    except Refusal as refusal:
        raise Failed(str(refusal)) from refusal
