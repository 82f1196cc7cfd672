"""The handle's settings. Most speak of an appliance that isn't there: they are kept and given back."""

from __future__ import annotations

from ..fish import Failed, Fish
from ..table import command
from .read import HostFailure

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

#: name -> (kind of result, value at first, is there also a command to set it, the word of its alias)
_SETTINGS: dict[str, tuple[str, object, bool, str]] = {
    "append": ("string", "", True, "append"),
    "autosync": ("bool", True, True, "autosync"),
    "backend": ("string", "direct", True, "backend"),
    "cachedir": ("string", "/var/tmp", True, "cachedir"),
    "direct": ("bool", False, True, "direct"),
    "hv": ("string", "", True, "hv"),
    "identifier": ("string", "", True, "identifier"),
    "memsize": ("int", 1280, True, "memsize"),
    "network": ("bool", False, True, "network"),
    "path": ("string", "", True, "path"),
    "pgroup": ("bool", False, True, "pgroup"),
    "program": ("string", "guestfish", True, "program"),
    "qemu": ("string", "", True, "qemu"),
    "recovery-proc": ("bool", True, True, "recovery-proc"),
    "selinux": ("bool", False, True, "selinux"),
    "smp": ("int", 1, True, "smp"),
    "tmpdir": ("string", "/tmp", True, "tmpdir"),
    "trace": ("bool", False, True, "trace"),
    "verbose": ("bool", False, True, "verbose"),
}


#: what the value is called where that isn't the setting's own name
_VALUES = {"path": "searchpath", "qemu": "hv"}


def _declare(name: str) -> None:
    kind, first, settable, alias = _SETTINGS[name]

    def get(fish: Fish) -> object:
        return fish.facts.get(name, first)

    get.__qualname__ = f"get-{name}"
    getter: Callable[[Fish], object] = get
    command(f"get-{name}", "", kind, help=f"get the setting {name}", local=True)(getter)
    if not settable:
        return

    def put(fish: Fish, value: object) -> None:
        fish.facts[name] = value

    put.__qualname__ = f"set-{name}"
    setter: Callable[[Fish, object], None] = put
    value = _VALUES.get(name, name.replace("-", ""))
    command(f"set-{name} {alias}", f"{value}:{kind}", help=f"set the setting {name}", local=True)(setter)


for _name in _SETTINGS:
    _declare(_name)


@command("get-pid", "", "int", help="get PID of hypervisor", local=True)
def get_pid(fish: Fish) -> int:
    raise Failed("no hypervisor process is running")


@command("is-config", "", "bool", help="is the handle in the configuration state", local=True)
def is_config(fish: Fish) -> bool:
    return not fish.session.running


@command("is-ready", "", "bool", help="is the handle ready to accept commands", local=True)
def is_ready(fish: Fish) -> bool:
    return fish.session.running


@command("is-launching", "", "bool", help="is the handle launching", local=True)
def is_launching(fish: Fish) -> bool:
    return False


@command("ping-daemon", help="ping the guest daemon")
def ping_daemon(fish: Fish) -> None:
    return None


@command("drop-caches", "whattodrop:int", help="drop the caches of the kernel")
def drop_caches(fish: Fish, whattodrop: int) -> None:
    fish.session.tree.sync()


#: groups of libguestfs' optional commands -> are they here
GROUPS = {
    name: name in ("gdisk", "linuxxattrs", "luks", "lvm2")
    for name in (
        "acl", "augeas", "blkdiscard", "blkdiscardzeroes", "btrfs", "extlinux", "f2fs", "fstrim", "gdisk", "grub",
        "hivex", "inotify", "journal", "ldm", "libtsk", "libyara", "linuxcaps", "linuxfsuuid", "linuxmodules",
        "linuxxattrs", "luks", "lvm2", "mdadm", "mknod", "ntfs3g", "ntfsprogs", "rsync", "scrub", "selinux",
        "selinuxrelabel", "sleuthkit", "squashfs", "syslinux", "wipefs", "xfs", "xz", "zerofree", "zstd",
    )
}  # fmt: skip
for _group in ("mknod", "wipefs", "xz", "xfs", "acl", "linuxcaps", "journal"):
    GROUPS[_group] = True


@command("available", "groups:names", help="test availability of some parts of the API")
def available(fish: Fish, groups: list[str]) -> None:
    for group in groups:
        if group not in GROUPS:
            raise HostFailure(f"{group}: unknown group")
        if not GROUPS[group]:
            raise HostFailure(f"{group}: group not available")


@command("feature-available", "groups:names", "bool", help="test availability of some parts of the API")
def feature_available(fish: Fish, groups: list[str]) -> bool:
    for group in groups:
        if group not in GROUPS:
            raise HostFailure(f"{group}: unknown group")
    return all(GROUPS[group] for group in groups)


@command("available-all-groups", "", "list", help="return a list of all optional groups")
def available_all_groups(fish: Fish) -> list[str]:
    return sorted(GROUPS)


@command("supported", help="list supported groups of commands")
def supported(fish: Fish) -> None:
    wide = max(len(name) for name in GROUPS)
    for name, here in GROUPS.items():
        fish.out.write(f"{name:>{wide}} {'yes' if here else 'no'}\n")
