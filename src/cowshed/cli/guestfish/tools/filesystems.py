"""``virt-filesystems``: file systems, partitions, volumes and disks of a guest."""

from __future__ import annotations

from ....errors import CowshedError
from ....guest.filesystem.table import DRIVERS, open_filesystem
from ....guest.identity import identify
from ..getopt import Option
from .common import KEYS, Tool
from .df import human

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ....block.node import Node
    from ...output import Output

_OPTIONS = (
    Option("all"),
    Option("blkdevs"),
    Option("block-devices"),
    Option("csv"),
    Option("extra"),
    Option("filesystems"),
    Option("human-readable", "h"),
    Option("logical-volumes"),
    Option("logvols"),
    Option("long", "l"),
    Option("lvs"),
    Option("no-title"),
    Option("parts"),
    Option("partitions"),
    Option("physical-volumes"),
    Option("physvols"),
    Option("pvs"),
    Option("uuid"),
    Option("uuids"),
    Option("vgs"),
    Option("volgroups"),
    Option("volume-groups"),
)
#: no --key
_KEYS = tuple(one for one in KEYS if one.long != "key")
_COLUMNS = ("Name", "Type", "VFS", "Label", "MBR", "Size", "Parent", "UUID")


def main(argv: list[str], out: Output) -> int:
    usage = "list filesystems, partitions, block devices, LVM in a VM: virt-filesystems -a disk.img"
    return Tool("virt-filesystems", usage, out, options=_OPTIONS, inspect=False, keys=_KEYS, bare=True).run(
        argv, work, check
    )


def check(tool: Tool) -> None:
    """Raises Stop for options that do not go together."""
    if "human-readable" in tool.own and "csv" in tool.own:
        raise tool.fail("you cannot use -h and --csv options together.")


def work(tool: Tool) -> int:
    own = set(tool.own)
    every = "all" in own
    wants = {
        "filesystem": every or "filesystems" in own,
        "partition": every or bool(own & {"parts", "partitions"}),
        "pv": every or bool(own & {"pvs", "physvols", "physical-volumes"}),
        "vg": every or bool(own & {"vgs", "volgroups", "volume-groups"}),
        "lv": every or bool(own & {"lvs", "logvols", "logical-volumes"}),
        "device": every or bool(own & {"blkdevs", "block-devices"}),
    }
    if not any(wants.values()):
        wants["filesystem"] = True
    rows: list[dict[str, str]] = []
    for kind in ("filesystem", "lv", "vg", "pv", "partition", "device"):
        if wants[kind]:
            rows += _rows(tool, kind, every or "extra" in own)
    columns = ["Name", "Type"] if "long" in own else ["Name"]
    if "long" in own:
        if wants["filesystem"]:
            columns += ["VFS", "Label"]
        if wants["partition"]:
            columns.append("MBR")
        columns += ["Size", "Parent"]
        if own & {"uuid", "uuids"}:
            columns.append("UUID")
    table = [[row.get(column, "-") or "-" for column in columns] for row in rows]
    if "long" in own and "no-title" not in own:
        table.insert(0, columns)
    _print(tool, table)
    return 0


def _print(tool: Tool, table: list[list[str]]) -> None:
    if "csv" in tool.own:
        for row in table:
            tool.out.write(",".join("" if cell == "-" else cell for cell in row) + "\n")
        return
    if not table:
        return
    widths = [max(len(cell) for cell in column) for column in zip(*table, strict=True)]
    # columns stand wider apart where that fits on a line
    between = "  " if sum(widths) + 2 * len(widths) <= 80 else " "
    for row in table:
        cells = [f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True)]
        cells[-1] = row[-1]
        tool.out.write(between.join(cells) + "\n")


def _capacity(node: Node, kind: str) -> int:
    """What a file system has room for; the device's size where it can't be opened."""
    if kind in DRIVERS:
        try:
            fs = open_filesystem(node, kind)
        except CowshedError:
            return node.size
        found = fs.statvfs()
        fs.close()
        return found.blocks * found.frsize
    return node.size


def _rows(tool: Tool, kind: str, extra: bool) -> list[dict[str, str]]:
    session = tool.fish.session
    devices = session.devices
    found: list[dict[str, str]] = []

    def size(count: int) -> str:
        return human(count) if "human-readable" in tool.own else str(count)

    if kind == "filesystem":
        for name, vfs in devices.list_filesystems():
            if vfs in ("swap", "unknown") and not extra:
                continue
            node = devices.open(name)
            facts = identify(node)
            found.append(
                {"Name": name, "Type": "filesystem", "VFS": vfs, "Label": facts.get("LABEL", ""),
                 "Size": size(_capacity(node, vfs)), "UUID": facts.get("UUID", "")}
            )  # fmt: skip
    elif kind == "partition":
        for drive in devices.drives:
            for part in drive.partitions():
                mbr = f"{part.type:02x}" if isinstance(part.type, int) else ""
                found.append(
                    {"Name": f"{drive.path}{part.number}", "Type": "partition", "MBR": mbr, "Size": size(part.size),
                     "Parent": drive.path}
                )  # fmt: skip
    elif kind == "device":
        for drive in devices.drives:
            found.append({"Name": drive.path, "Type": "device", "Size": size(drive.node.size)})
    elif kind == "lv":
        for name in devices.volumes():
            lv = devices.volume(name)
            found.append(
                {"Name": name, "Type": "lv", "Size": size(lv.virtual_size), "Parent": f"/dev/{lv.group.name}",
                 "UUID": lv.uuid}
            )  # fmt: skip
    elif kind == "vg":
        for group in devices.lvm().groups:
            parents = ",".join(pv.path or pv.device for pv in group.physical.values())
            found.append(
                {"Name": f"/dev/{group.name}", "Type": "vg", "Size": size(group.size), "Parent": parents,
                 "UUID": group.uuid.replace("-", "")}
            )  # fmt: skip
    elif kind == "pv":
        for group in devices.lvm().groups:
            for pv in group.physical.values():
                found.append(
                    {"Name": pv.path or pv.device, "Type": "pv", "Size": size(pv.extents * group.extent_size),
                     "UUID": pv.uuid.replace("-", "")}
                )  # fmt: skip
    return found
