"""One system that was found: what it is and where its file systems belong."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .access import Files, Guest
    from .application import Application

UNKNOWN = "unknown"


class Root:
    """One operating system. Texts are "unknown" where nothing says.

    ``device``: its root file system; ``mounts``: (path, device) in the order of fstab, without what isn't there;
    ``swaps``: devices. ``version``: (major, minor).
    """

    __slots__ = (
        "arch", "build_id", "device", "distro", "guest", "hostname", "mounts", "product", "swaps", "type", "variant",
        "version",
    )  # fmt: skip

    def __init__(self, guest: Guest, device: str) -> None:
        self.guest = guest
        self.device = device
        self.type = UNKNOWN
        self.distro = UNKNOWN
        self.version = (0, 0)
        self.product = UNKNOWN
        self.variant = UNKNOWN
        self.arch = UNKNOWN
        self.hostname = UNKNOWN
        self.build_id = UNKNOWN
        self.mounts: list[tuple[str, str]] = [("/", device)]
        self.swaps: list[str] = []

    def __repr__(self) -> str:
        return f"<Root {self.device} {self.type} {self.distro} {self.version[0]}.{self.version[1]}>"

    @property
    def package_format(self) -> str:
        from .osinfo import package_format

        return package_format(self)

    @property
    def package_management(self) -> str:
        from .osinfo import package_management

        return package_management(self)

    @property
    def osinfo(self) -> str:
        from .osinfo import osinfo

        return osinfo(self)

    @property
    def mountpoints(self) -> list[tuple[str, str]]:
        """(path, device), the last line of fstab first."""
        return [(path, device) for path, device in reversed(self.mounts)]

    @property
    def filesystems(self) -> list[str]:
        """Devices of the system, swap too, the last line of fstab first."""
        found: list[str] = []
        for device in [*reversed(self.swaps), *(device for _, device in self.mountpoints)]:
            if device not in found:
                found.append(device)
        return found

    def files(self) -> Files | None:
        """The system's files with its file systems mounted where they belong."""
        order = sorted(self.mounts, key=lambda mount: (mount[0].count("/") if mount[0] != "/" else 0, mount[0]))
        return self.guest.files(order)

    def applications(self) -> list[Application]:
        """The packages that are installed, sorted by name."""
        from .packages import applications

        return applications(self)
