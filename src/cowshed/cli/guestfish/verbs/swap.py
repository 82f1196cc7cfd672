"""Swap areas: the header that makes one of a device or of a file."""

from __future__ import annotations

import os

from ....guest.filesystem.base import GuestError
from ..fish import Failed, Fish
from ..table import command
from .device import opened

#: what version 1 of the header counts in
_PAGE = 4096
_SMALLEST = 10 * _PAGE


def _page(size: int, name: str = "", label: str = "", uuid: str | None = None) -> bytes:
    """The first page of an area of ``size`` bytes: from byte 1024 version, last page, bad pages, uuid, label; the mark
    at its end. Raises Failed, where ``name`` is what messages call the area."""
    import struct
    from uuid import UUID, uuid4

    if size < _SMALLEST:
        raise Failed(f"{name}: mkswap: error: swap area needs to be at least 40 KiB")
    try:
        identity = UUID(uuid) if uuid is not None else uuid4()
    except ValueError as error:
        raise Failed(f"{name}: mkswap: error: parsing UUID failed") from error
    raw = os.fsencode(label)
    if len(raw) > 16:
        raise Failed(f"{label}: Linux swap labels are limited to 16 bytes")
    head = struct.pack("<III", 1, size // _PAGE - 1, 0) + identity.bytes + raw.ljust(16, b"\0")
    return bytes(1024) + head.ljust(_PAGE - 1024 - 10, b"\0") + b"SWAPSPACE2"


@command("mkswap mkswap-opts", "device:device [label:string] [uuid:string]", help="create a swap partition")
def mkswap(fish: Fish, device: str, label: str = "", uuid: str | None = None) -> None:
    node = opened(fish, device, "mkswap")
    if fish.session.user(device) is not None:
        raise Failed(f"{device}: mkswap: error: {device} is mounted; will not make swapspace")
    page = _page(node.size, device, label, uuid)
    # what was there before must not be found beside the new mark
    node.write(0x10000, bytes(max(0, min(_PAGE, node.size - 0x10000))))
    node.write(0, page)
    node.flush()
    fish.session.devices.forget()


@command("mkswap-L", "label:string device:device", help="create a swap partition with a label", internal="mkswap_L")
def mkswap_l(fish: Fish, label: str, device: str) -> None:
    mkswap(fish, device, label)


@command("mkswap-U", "uuid:string device:device", help="create a swap partition with an explicit UUID",
         internal="mkswap_U")  # fmt: skip
def mkswap_u(fish: Fish, uuid: str, device: str) -> None:
    mkswap(fish, device, uuid=uuid)


@command("mkswap-file", "path:path", help="create a swap file")
def mkswap_file(fish: Fish, path: bytes) -> None:
    shown = os.fsdecode(path)
    tree = fish.session.tree
    try:
        place = tree.regular(path)
    except GuestError as error:
        reason = os.strerror(error.errno or 5)
        raise Failed(f"{shown}: mkswap: cannot open /sysroot{shown}: {reason}") from error
    tree.write_at(place.path, 0, _page(place.stat().size, shown))
