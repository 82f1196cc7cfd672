"""``virt-df``: free space on a guest's file systems."""

from __future__ import annotations

import os

from ....errors import CowshedError
from ....guest.filesystem.table import DRIVERS, open_filesystem
from ..getopt import Option
from .common import Tool

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ...output import Output

_OPTIONS = (
    Option("csv"),
    Option("human-readable", "h"),
    Option("inodes", "i"),
    Option("one-per-guest"),
    # how many guests at a time: here is one
    Option("", "P", True),
    Option("uuid"),
)


def main(argv: list[str], out: Output) -> int:
    usage = "display free space on virtual filesystems: virt-df -a disk.img"
    return Tool("virt-df", usage, out, options=_OPTIONS, inspect=False, keys=()).run(argv, work, check)


def check(tool: Tool) -> None:
    """Raises Stop for options that do not go together."""
    if "human-readable" in tool.own and "csv" in tool.own:
        raise tool.fail("you cannot use -h and --csv options together.")


def work(tool: Tool) -> int:
    own = tool.own
    inodes = "inodes" in own
    if "csv" in own:
        heads = ("Inodes", "IUsed", "IFree", "IUse%") if inodes else ("1K-blocks", "Used", "Available", "Use%")
        tool.out.write(",".join(("VirtualMachine", "Filesystem", *heads)) + "\n")
    else:
        first = "Size" if "human-readable" in own else "1K-blocks"
        heads = ("Inodes", "IUsed", "IFree", "IUse%") if inodes else (first, "Used", "Available", "Use%")
        tool.out.write(f"{'Filesystem':<36}{heads[0]:>10} {heads[1]:>10} {heads[2]:>10} {heads[3]:>5}\n")
    session = tool.fish.session
    disks = tool.start.disks
    guest = tool.start.domains[0] if tool.start.domains else os.path.basename(disks[0].ref)
    if len(disks) > 1:
        guest += f"+{len(disks) - 1}"
    for device, kind in session.devices.list_filesystems():
        if kind not in DRIVERS:
            continue
        try:
            fs = open_filesystem(session.devices.open(device), kind)
        except CowshedError as error:
            tool.out.raw(f"{tool.name}: {device}: {error}\n")
            continue
        found = fs.statvfs()
        fs.close()
        if inodes:
            total, free, room = found.files, found.ffree, found.favail
            scale = 1
        else:
            total, free, room = found.blocks, found.bfree, found.bavail
            scale = found.frsize
        used = total - free
        share = used * 100 / (used + room) if used + room else 0.0
        numbers = [total * scale, used * scale, room * scale]
        if inodes:
            cells = [str(number) for number in numbers]
        elif "human-readable" in own:
            cells = [human(number) for number in numbers]
        else:
            cells = [str(number // 1024) for number in numbers]
        if "csv" in own:
            tool.out.write(",".join((guest, device, *cells, f"{share:.1f}")) + "\n")
            continue
        name = f"{guest}:{device}"
        if len(name) > 36:
            name += "\n" + " " * 36
        percent = f"{-(-int(share * 1000) // 1000)}%" if share else "0%"
        tool.out.write(f"{name:<36}{cells[0]:>10} {cells[1]:>10} {cells[2]:>10} {percent:>5}\n")
    return 0


def human(count: int) -> str:
    """To the nearest, one digit behind the point below ten."""
    if count < 1024:
        return str(count)
    power = 0
    while count >= 1024 ** (power + 1) and power < 6:
        power += 1
    value = count / 1024**power
    return f"{value:.1f}{'KMGTPE'[power - 1]}" if value < 9.95 else f"{value:.0f}{'KMGTPE'[power - 1]}"
