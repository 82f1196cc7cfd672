"""The handle's settings. Most speak of an appliance that isn't there: they are kept and given back."""

from __future__ import annotations

from ..fish import Failed, Fish, Foreign
from ..table import command
from .read import HostFailure

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

#: name -> (kind of result, value at first, is there also a command to set it, the word of its alias)
_SETTINGS: dict[str, tuple[str, object, bool, str]] = {
    "append": ("string", "(null)", True, "append"),
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


#: those that may be set after `run` too
_ANY_TIME = ("autosync", "identifier", "program", "trace", "verbose")

#: what the value is called where that isn't the setting's own name
_VALUES = {"path": "searchpath", "qemu": "hv"}


def need_config(fish: Fish, internal: str) -> None:
    """What is said of the machine is said before it runs, as there. Raises Foreign."""
    if fish.session.running:
        raise Foreign(internal, "this function can only be called in the config state")


def _checked(name: str, value: object, first: object) -> object:
    """A setting's value as it is kept. Raises HostFailure."""
    if name == "memsize" and isinstance(value, int) and value < 256:
        raise HostFailure("too small value for memsize (must be at least 256)")
    if name == "smp" and isinstance(value, int) and value < 1:
        raise HostFailure(f"invalid smp parameter: {value}")
    if name == "smp" and isinstance(value, int) and value > 255:
        raise HostFailure(f"unsupported number of smp vcpus: {value}")
    if name == "backend" and isinstance(value, str):
        if value not in ("appliance", "direct", "libvirt") and not value.startswith("libvirt:"):
            raise HostFailure(f"invalid backend: {value}")
        return "direct" if value == "appliance" else value
    if name == "append":
        return value or "(null)"
    if name in ("cachedir", "tmpdir") and isinstance(value, str):
        return _folder(name, value) if value else first
    return value


def _folder(name: str, value: str) -> str:
    import os

    try:
        return os.path.realpath(value, strict=True)
    except OSError as error:
        text = f"set_{name}: {value}: realpath: {error.strerror}"
        raise HostFailure(f"converting path to absolute path: {text}") from error


def _declare(name: str) -> None:
    kind, first, settable, alias = _SETTINGS[name]

    fact = "hv" if name == "qemu" else name

    def get(fish: Fish) -> object:
        return fish.facts.get(fact, first)

    get.__qualname__ = f"get-{name}"
    getter: Callable[[Fish], object] = get
    command(f"get-{name}", "", kind, help=f"get the setting {name}", local=True)(getter)
    if not settable:
        return

    def put(fish: Fish, value: object) -> None:
        if name not in _ANY_TIME:
            need_config(fish, f"set_{name.replace('-', '_')}")
        fish.facts[fact] = _checked(name, value, first)

    put.__qualname__ = f"set-{name}"
    setter: Callable[[Fish, object], None] = put
    value = _VALUES.get(name, name.replace("-", ""))
    command(f"set-{name} {alias}", f"{value}:{kind}", help=f"set the setting {name}", local=True)(setter)


for _name in _SETTINGS:
    _declare(_name)


@command("get-attach-method", "", "string", help="get the backend", local=True)
def get_attach_method(fish: Fish) -> object:
    found = fish.facts.get("backend", "direct")
    # what the backend was called of old
    return "appliance" if found == "direct" else found


@command("set-attach-method attach-method", "backend:string", help="set the backend", local=True)
def set_attach_method(fish: Fish, backend: str) -> None:
    need_config(fish, "set_attach_method")
    fish.facts["backend"] = _checked("backend", backend, "direct")


def _backend_settings(fish: Fish) -> list[str]:
    """NAME or NAME=VALUE each, at first those of the environment."""
    import os

    found = fish.facts.get("backend-settings")
    if not isinstance(found, list):
        given = os.environ.get("LIBGUESTFS_BACKEND_SETTINGS", "")
        fish.facts["backend-settings"] = found = [one for one in given.split(":") if one]
    return found


@command("get-backend-settings", "", "list", help="get per-backend settings", local=True)
def get_backend_settings(fish: Fish) -> list[str]:
    return _backend_settings(fish)


@command("set-backend-settings", "settings:names", help="replace per-backend settings strings", local=True)
def set_backend_settings(fish: Fish, settings: list[str]) -> None:
    need_config(fish, "set_backend_settings")
    fish.facts["backend-settings"] = settings


@command("get-backend-setting", "name:string", "string", help="get a single per-backend settings string", local=True)
def get_backend_setting(fish: Fish, name: str) -> str:
    for one in _backend_settings(fish):
        word, equals, value = one.partition("=")
        if word == name:
            return value if equals else "1"
    raise HostFailure("setting not found")


@command("set-backend-setting", "name:string val:string", help="set a single per-backend settings string", local=True)
def set_backend_setting(fish: Fish, name: str, val: str) -> None:
    need_config(fish, "set_backend_setting")
    clear_backend_setting(fish, name)
    _backend_settings(fish).append(f"{name}={val}")


@command("clear-backend-setting", "name:string", "int", help="remove a single per-backend settings string", local=True)
def clear_backend_setting(fish: Fish, name: str) -> int:
    need_config(fish, "clear_backend_setting")
    found = _backend_settings(fish)
    rest = [one for one in found if one.partition("=")[0] != name]
    fish.facts["backend-settings"] = rest
    return len(found) - len(rest)


@command("get-sockdir", "", "string", help="get the temporary directory for sockets", local=True)
def get_sockdir(fish: Fish) -> str:
    import os

    return os.environ.get("XDG_RUNTIME_DIR") or "/tmp"


@command("get-pid pid", "", "int", help="get PID of hypervisor", local=True)
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


#: those of libguestfs' groups of optional commands that are here
_HERE = (
    "acl", "blkdiscard", "blkdiscardzeroes", "fstrim", "gdisk", "hivex", "journal", "libtsk", "linuxcaps",
    "linuxxattrs", "luks", "lvm2", "mknod", "scrub", "sleuthkit", "wipefs", "xfs", "xz", "zerofree",
)  # fmt: skip

#: all of them -> are they here
GROUPS = {
    name: name in _HERE
    for name in (
        "acl", "augeas", "blkdiscard", "blkdiscardzeroes", "btrfs", "extlinux", "f2fs", "fstrim", "gdisk", "grub",
        "hivex", "inotify", "journal", "ldm", "libtsk", "libyara", "linuxcaps", "linuxfsuuid", "linuxmodules",
        "linuxxattrs", "luks", "lvm2", "mdadm", "mknod", "ntfs3g", "ntfsprogs", "rsync", "scrub", "selinux",
        "selinuxrelabel", "sleuthkit", "squashfs", "syslinux", "wipefs", "xfs", "xz", "zerofree", "zstd",
    )
}  # fmt: skip


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


@command("supported", "groups:words", help="list supported groups of commands", internal="available_all_groups")
def supported(fish: Fish, words: list[str]) -> None:
    wide = max(len(name) for name in GROUPS)
    for name, here in GROUPS.items():
        fish.out.write(f"{name:>{wide}} {'yes' if here else 'no'}\n")
