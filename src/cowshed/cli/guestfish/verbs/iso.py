"""What an ISO 9660 image says of itself."""

from __future__ import annotations

import os

from ....errors import CowshedError
from ....guest.filesystem.base import GuestError
from ..fish import Failed, Fish
from ..table import command
from .device import opened

TYPE_CHECKING = False
if TYPE_CHECKING:
    Fields = list[tuple[str, str | int]]


def _fields(sector: bytes, name: str) -> Fields:
    from ....guest.filesystem.iso9660.volume import primary_facts

    try:
        return [(f"iso_{key}", value) for key, value in primary_facts(sector)]
    except CowshedError as error:
        raise Failed(f"{name}: not an ISO file or CD-ROM") from error


@command(
    "isoinfo-device", "device:device", "struct", help="get ISO information from primary volume descriptor of device"
)
def isoinfo_device(fish: Fish, device: str) -> Fields:
    from ....guest.filesystem.iso9660.volume import FIRST, SECTOR

    node = opened(fish, device, "isoinfo_device")
    whole = node.size >= (FIRST + 1) * SECTOR
    return _fields(node.read(FIRST * SECTOR, SECTOR) if whole else b"", device)


@command("isoinfo", "isofile:path", "struct", help="get ISO information from primary volume descriptor of ISO file")
def isoinfo(fish: Fish, isofile: bytes) -> Fields:
    from ....guest.filesystem.iso9660.volume import FIRST, SECTOR

    tree = fish.session.tree
    try:
        place = tree.regular(isofile)
    except GuestError as error:
        name = os.fsdecode(isofile)
        step = "read: " if error.errno == 21 else f"open: {name}"
        raise Failed(f"{step}: {os.strerror(error.errno or 5)}") from error
    return _fields(b"".join(tree.chunks(place, FIRST * SECTOR, SECTOR)), os.fsdecode(isofile))
