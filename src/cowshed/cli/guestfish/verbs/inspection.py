"""What system is on the disks: inspect-os and what is asked after it."""

from __future__ import annotations

from ..fish import Failed, Fish, Foreign
from ..table import command

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from ....guest.inspect.root import Root


def roots(fish: Fish) -> list[Root]:
    """Look for systems; what was found is kept for the commands that ask of one."""
    from ....guest.inspect import SessionGuest, inspect

    if fish.guest is not None:
        fish.guest.close()
    fish.guest = SessionGuest(fish.session)
    fish.roots = inspect(fish.guest)
    return fish.roots


def _root(fish: Fish, name: str, internal: str) -> Root:
    if fish.roots is None:
        raise Failed("no inspection data: call guestfs_inspect_os first")
    for root in fish.roots:
        if root.device == name:
            return root
    from .device import opened

    opened(fish, name, internal)
    raise Failed(
        f"{name}: root device not found: only call this function with a root device previously returned by "
        "guestfs_inspect_os"
    )


@command("inspect-os", "", "list", help="inspect disk and return list of operating systems found")
def inspect_os(fish: Fish) -> list[str]:
    fish.session.tree.sync()
    # as the original, which begins with umount-all
    fish.session.umount_all()
    return [root.device for root in roots(fish)]


@command("inspect-get-roots", "", "list", help="return list of operating systems found by last inspection")
def inspect_get_roots(fish: Fish) -> list[str]:
    return [root.device for root in fish.roots or ()]


def _fact(name: str, result: str, help: str, what: Callable[[Root], object], internal: str | None = None) -> None:
    def get(fish: Fish, root: str) -> object:
        return what(_root(fish, root, internal or name.replace("-", "_")))

    get.__qualname__ = name
    getter: Callable[[Fish, str], object] = get
    command(name, "root:mountable", result, help=help, internal=internal)(getter)


_fact("inspect-get-type", "string", "get type of inspected operating system", lambda root: root.type)
_fact("inspect-get-distro", "string", "get distro of inspected operating system", lambda root: root.distro)
_fact("inspect-get-arch", "string", "get architecture of inspected operating system", lambda root: root.arch)
_fact("inspect-get-hostname", "string", "get hostname of the operating system", lambda root: root.hostname)
_fact(
    "inspect-get-major-version", "int", "get major version of inspected operating system", lambda root: root.version[0]
)
_fact(
    "inspect-get-minor-version", "int", "get minor version of inspected operating system", lambda root: root.version[1]
)
_fact("inspect-get-product-name", "string", "get product name of inspected operating system", lambda root: root.product)
_fact(
    "inspect-get-product-variant",
    "string",
    "get product variant of inspected operating system",
    lambda root: root.variant,
)
_fact("inspect-get-build-id", "string", "get the system build ID", lambda root: root.build_id)
_fact(
    "inspect-get-package-format", "string", "get package format used by the operating system",
    lambda root: root.package_format,
)  # fmt: skip
_fact(
    "inspect-get-package-management", "string", "get package management tool used by the operating system",
    lambda root: root.package_management,
)  # fmt: skip
_fact(
    "inspect-get-osinfo", "string", "get a possible osinfo short ID for the guest", lambda root: root.osinfo,
    internal="inspect_get_type",
)  # fmt: skip
_fact("inspect-get-mountpoints", "hash", "get mountpoints of inspected operating system", lambda root: root.mountpoints)
_fact(
    "inspect-get-filesystems", "list", "get filesystems associated with inspected operating system",
    lambda root: root.filesystems,
)  # fmt: skip
_fact("inspect-get-drive-mappings", "hash", "get drive letter mappings", lambda root: [])
_fact("inspect-get-format", "string", "get format of inspected operating system", lambda root: "installed")
for _name in ("live", "netinst", "multipart"):
    _fact(f"inspect-is-{_name}", "bool", f"get {_name} flag for install disk", lambda root: False)


def _windows(name: str, what: str, lacking: str = "could not be determined") -> None:
    def get(fish: Fish, root: str) -> str:
        _root(fish, root, name.replace("-", "_"))
        raise Failed(f"not a Windows guest, or {what} {lacking}")

    get.__qualname__ = name
    command(name, "root:mountable", "string", help=f"get {what} of the inspected operating system")(get)


_windows("inspect-get-windows-systemroot", "systemroot")
_windows("inspect-get-windows-current-control-set", "CurrentControlSet")
_windows("inspect-get-windows-software-hive", "software hive", "not found")
_windows("inspect-get-windows-system-hive", "system hive", "not found")


def _applications(fish: Fish, name: str, version: int) -> Iterator[list[tuple[str, str]]]:
    for application in _root(fish, name, "inspect_get_type").applications():
        yield application.fields(version)


@command(
    "inspect-list-applications", "root:mountable", "structs", help="get list of applications installed",
    internal="inspect_get_type",
)  # fmt: skip
def inspect_list_applications(fish: Fish, root: str) -> Iterator[list[tuple[str, str]]]:
    return _applications(fish, root, 1)


@command(
    "inspect-list-applications2", "root:mountable", "structs", help="get list of applications installed",
    internal="inspect_get_type",
)  # fmt: skip
def inspect_list_applications2(fish: Fish, root: str) -> Iterator[list[tuple[str, str]]]:
    return _applications(fish, root, 2)


@command(
    "inspect-get-icon",
    "root:mountable [favicon:bool] [highquality:bool]",
    "buffer",
    help="get the icon corresponding to this operating system",
    # the first question of several
    internal="inspect_get_type",
)
def inspect_get_icon(fish: Fish, root: str, favicon: bool = True, highquality: bool = False) -> bytes:
    from ....guest.inspect.icon import icon

    found = _root(fish, root, "inspect_get_type")
    try:
        fish.need_root("is_file")
    except Failed as failed:
        raise Foreign("is_file", str(failed)) from failed
    return icon(fish.session.tree, found, favicon=favicon, high=highquality)
