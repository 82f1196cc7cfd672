"""What systems are on a guest's disks: roots, release, host name, mount points, packages.

    from cowshed.guest.inspect import inspect, SessionGuest
    for root in inspect(SessionGuest(session)):
        root.distro, root.version, root.mountpoints

Everything comes from the guest and may be a lie or a trap: every read is bounded, nothing is executed, no symbolic link
leads out.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .access import Files, Guest, SessionGuest
    from .application import Application
    from .packages import applications
    from .root import Root
    from .roots import inspect

__all__ = ["Application", "Files", "Guest", "Root", "SessionGuest", "applications", "inspect"]

_HOMES = {
    "Files": "access",
    "Guest": "access",
    "SessionGuest": "access",
    "Application": "application",
    "applications": "packages",
    "Root": "root",
    "inspect": "roots",
}


def __getattr__(name: str) -> object:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f".{home}", __name__), name)
