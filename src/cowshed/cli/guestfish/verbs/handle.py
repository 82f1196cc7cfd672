"""The handle itself: its disks, its environment, and what is only there to be tried."""

from __future__ import annotations

from ....guest.filesystem.base import GuestError
from ..fish import Failed, Fish, Foreign
from ..table import command, find
from .device import opened
from .read import HostFailure

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable


@command("debug-drives", "", "list", help="debug the drives (internal use only)", local=True)
def debug_drives(fish: Fish) -> list[str]:
    rows = []
    for drive in fish.session.devices.drives:
        words = [str(drive.ref)]
        words += ["readonly"] * (not drive.writable)
        words += [f"format={drive.fmt}"] * (drive.fmt is not None) + ["protocol=file"]
        words += [f"label={drive.label}"] * (drive.label is not None)
        words += [f"blocksize={drive.sector}"] * (drive.sector is not None)
        rows.append(" ".join(words))
    return rows


@command("echo-daemon", "words:names", "string", help="echo arguments back to the client")
def echo_daemon(fish: Fish, words: list[str]) -> str:
    return " ".join(words)


@command("sleep", "secs:int", help="sleep for some seconds")
def sleep(fish: Fish, secs: int) -> None:
    import time

    if secs < 0:
        raise HostFailure("sleep: a number of seconds can't be negative")
    time.sleep(secs)


@command("user-cancel", help="cancel the current upload or download operation", local=True)
def user_cancel(fish: Fish) -> None:
    """There is none: commands come one after the other."""


# ---- mountables: a device, or btrfsvol:DEVICE/SUBVOLUME


def _parts(fish: Fish, mountable: str) -> tuple[str, str | None]:
    """The device and the subvolume. Raises Failed, HostFailure."""
    internal = "internal_parse_mountable"
    fish.need_running(internal)
    if not mountable.startswith("btrfsvol:"):
        try:
            opened(fish, mountable, internal)
        except Failed as error:
            raise Foreign(internal, str(error)) from error
        return mountable, None
    rest = mountable[9:]
    at = rest.find("/", 5)
    while at >= 0:
        try:
            fish.session.devices.open(rest[:at])
            return rest[:at], rest[at + 1 :]
        except GuestError:
            at = rest.find("/", at + 1)
    raise Foreign(internal, f"{internal}_stub: {mountable}: expecting a btrfs volume")


@command("mountable-device", "mountable:mountable", "string", help="extract the device part of a mountable",
         local=True)  # fmt: skip
def mountable_device(fish: Fish, mountable: str) -> str:
    return _parts(fish, mountable)[0]


@command("mountable-subvolume", "mountable:mountable", "string", help="extract the subvolume part of a mountable",
         local=True)  # fmt: skip
def mountable_subvolume(fish: Fish, mountable: str) -> str:
    try:
        volume = _parts(fish, mountable)[1]
    except Failed as error:
        # two messages there
        fish.error(str(error))
        volume = None
    if volume is None:
        raise HostFailure("not a btrfs subvolume identifier")
    return volume


# ---- the environment

#: variable -> the setting that it is
_VARIABLES = {
    "LIBGUESTFS_DEBUG": "verbose", "LIBGUESTFS_TRACE": "trace", "LIBGUESTFS_TMPDIR": "tmpdir",
    "LIBGUESTFS_CACHEDIR": "cachedir", "LIBGUESTFS_PATH": "path", "LIBGUESTFS_HV": "hv", "LIBGUESTFS_QEMU": "hv",
    "LIBGUESTFS_APPEND": "append", "LIBGUESTFS_MEMSIZE": "memsize", "LIBGUESTFS_BACKEND": "backend",
    "LIBGUESTFS_BACKEND_SETTINGS": "backend-settings",
}  # fmt: skip


def _parse(fish: Fish, environment: Iterable[tuple[str, str]]) -> None:
    given = dict(environment)
    for name, setting in _VARIABLES.items():
        text = given.get(name)
        if not text:
            continue
        value: object = text
        if setting in ("verbose", "trace"):
            from ..arguments import FALSE, TRUE

            if text.lower() not in (*TRUE, *FALSE):
                raise HostFailure(f"{name}={text}: non-boolean value")
            value = text.lower() in TRUE
        elif setting == "memsize":
            if not text.isdigit():
                raise HostFailure(f"non-numeric value for {name}")
            value = int(text)
        elif setting == "backend-settings":
            value = text.split(":")
        known = find(f"set-{setting}")
        assert known is not None
        try:
            known.handler(fish, value)
        except Failed as failed:
            if setting != "path":
                raise
            # told, and gone on after, as there
            fish.error(str(failed))


@command("parse-environment", help="parse the environment and set handle flags accordingly", local=True)
def parse_environment(fish: Fish) -> None:
    import os

    _parse(fish, os.environ.items())


@command("parse-environment-list", "environment:names",
         help="parse the environment and set handle flags accordingly", local=True)  # fmt: skip
def parse_environment_list(fish: Fish, environment: list[str]) -> None:
    parts = [one.partition("=") for one in environment]
    _parse(fish, [(name, value) for name, equals, value in parts if equals])
