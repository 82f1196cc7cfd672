"""``-i``: the system on the disks is found and its file systems are mounted where they belong."""

from __future__ import annotations

import os

from ...errors import CowshedError, HostError
from ..output import Stop
from .arguments import Refused
from .fish import Failed, Fish

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ...guest.inspect.root import Root

_NONE = """: no operating system was found on this disk

If using guestfish ‘-i’ option, remove this option and instead
use the commands ‘run’ followed by ‘list-filesystems’.
You can then mount filesystems you want by hand using the
‘mount’ or ‘mount-ro’ command.

If using guestmount ‘-i’, remove this option and choose the
filesystem(s) you want to see by manually adding ‘-m’ option(s).
Use ‘virt-filesystems’ to see what filesystems are available.

If using other virt tools, this disk image won’t work
with these tools.  Use the guestfish equivalent commands
(see the virt tool manual page).
"""
_MANY = """: multi-boot operating systems are not supported

If using guestfish ‘-i’ option, remove this option and instead
use the commands ‘run’ followed by ‘list-filesystems’.
You can then mount filesystems you want by hand using the
‘mount’ or ‘mount-ro’ command.

If using guestmount ‘-i’, remove this option and choose the
filesystem(s) you want to see by manually adding ‘-m’ option(s).
Use ‘virt-filesystems’ to see what filesystems are available.

If using other virt tools, multi-boot operating systems won’t work
with these tools.  Use the guestfish equivalent commands
(see the virt tool manual page).
"""


def mount_all(fish: Fish, prog: str = "guestfish") -> Root:
    """Inspect and mount. Raises Stop when there is no system, or more than one."""
    from .verbs.disk import mount_with
    from .verbs.inspection import roots

    _unlock_all(fish, prog)
    found = roots(fish)
    if len(found) != 1:
        fish.out.raw(prog + (_MANY if found else _NONE))
        raise Stop(1)
    root = found[0]
    missed = False
    verb = "mount_ro" if fish.readonly else "mount"
    for path, device in sorted(root.mounts, key=lambda mount: (len(mount[0]), mount[0])):
        try:
            mount_with(fish, "ro" if fish.readonly else "", None, device, path, verb)
        except (Failed, CowshedError) as error:
            fish.error(f"{verb}: {error}")
            if path == "/":
                raise Stop(1) from error
            missed = True
    if missed:
        fish.say(f"{prog}: some filesystems could not be mounted (ignored)")
    return root


def _unlock_all(fish: Fish, prog: str) -> None:
    """Open every LUKS volume that there is a key for, as libguestfs: under luks-UUID. Without a key a person is asked
    once for each. Raises Stop."""
    devices = fish.session.devices
    for device in devices.bare():
        _unlock_one(fish, prog, device)
    # what was just unlocked may hold volumes
    for device in devices.volumes():
        _unlock_one(fish, prog, device)


def _unlock_one(fish: Fish, prog: str, device: str) -> None:
    from ...guest.filesystem.table import kind_of
    from ...guest.identity import identify
    from .verbs.volume import ask_key, key_error

    devices = fish.session.devices
    if kind_of(devices.open(device)) != "crypto_LUKS":
        return
    uuid = identify(devices.open(device)).get("UUID", "")
    try:
        words = fish.keys(device, uuid)
        if not words and (fish.keys_from_stdin or os.isatty(0)):
            words = [ask_key(fish, f'Enter key or passphrase ("{device}"): ')]
            # nobody is asked twice, where disks are opened again
            fish.selectors.append((device, "key", os.fsdecode(words[0])))
    except HostError as error:
        fish.say(f"{prog}: fopen: {error}")
        raise Stop(1) from error
    except Refused as refused:
        fish.say(str(refused))
        raise Stop(1) from refused
    if not words:
        # others may be open, or need no key
        return
    try:
        devices.unlock(device, f"luks-{uuid}", words)
    except CowshedError as error:
        fish.out.raw(
            f"{prog}: could not find key to open LUKS encrypted {device}.\n\n"
            f"Try using --key on the command line.\n\nOriginal error: cryptsetup_open: {key_error(error)} (0)\n"
        )
        raise Stop(1) from error


def summary(fish: Fish, root: Root) -> str:
    """What an interactive shell says first."""
    lines = [f"Operating system: {root.product}\n"]
    lines += [f"{mount.device} mounted on {os.fsdecode(mount.path)}\n" for mount in fish.session.tree.mounts]
    return "".join(lines)
