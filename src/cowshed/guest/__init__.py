"""Files inside a disk, without an appliance: partitions, volumes and file systems read and edited in this process.

    import cowshed.guest

    with cowshed.guest.open("web1.qcow2", write=True) as guest:
        (guest.root / "etc/hostname").write_text("web1\\n")

Names are loaded when they are first used. See docs/guest-design.md.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .filesystem.base import GuestError
    from .opened import Device, Guest, open
    from .path import GuestPath
    from .session import Session

__all__ = ["Device", "Guest", "GuestError", "GuestPath", "Session", "open"]

_HOMES = {
    "Device": "opened",
    "Guest": "opened",
    "GuestError": "filesystem.base",
    "GuestPath": "path",
    "Session": "session",
    "open": "opened",
}


def __getattr__(name: str) -> object:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module = __import__(f"{__name__}.{home}", fromlist=(name,))
    value: object = getattr(module, name)
    globals()[name] = value
    return value
