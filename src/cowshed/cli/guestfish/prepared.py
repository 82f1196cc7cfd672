"""``-N TYPE``: disks made for the session, from an empty one to boot and root on LVM."""

from __future__ import annotations

import os

from .start import Start

_SIZE = ("size", "1G", "of the disk")
_PARTITION = ("partition", "mbr", "the kind of its partition table")
_NAME = ("name", "/dev/VG/LV", "of the volume group and the logical volume")
_BOOT = (
    ("bootfs", "ext2", "the file system for /boot"),
    ("rootfs", "ext2", "the file system for /"),
    _SIZE,
    ("bootsize", "128M", "of the partition for /boot"),
    _PARTITION,
)
_FILESYSTEM = ("filesystem", "ext2", "its kind")
#: type -> what it is, and its options: name, value when none is given, what it says
TYPES: dict[str, tuple[str, tuple[tuple[str, str, str], ...]]] = {
    "disk": ("an empty disk", (_SIZE,)),
    "part": ("a disk with one partition", (_SIZE, _PARTITION)),
    "fs": ("a disk with one partition that holds a file system", (_FILESYSTEM, _SIZE, _PARTITION)),
    "lv": ("a disk with one partition that holds a logical volume", (_NAME, _SIZE, _PARTITION)),
    "lvfs": ("the same, with a file system on the logical volume", (_NAME, _FILESYSTEM, _SIZE, _PARTITION)),
    "bootroot": ("a disk with two partitions that hold file systems, the first a small one for /boot", _BOOT),
    "bootrootlv": ("the same, with the root file system on a logical volume", (_NAME, *_BOOT)),
}
#: sectors that stay free at both ends of a disk with two partitions
_EDGE = 64
_SECTOR = 512


def help_text() -> str:
    """What ``-N help`` prints."""
    lines = ["List of available prepared disk images:", ""]
    for kind, (what, options) in TYPES.items():
        lines += [
            f"guestfish -N {kind:8} - {what}",
            "",
            f"    -N {kind}:{':'.join(f'<{name}>' for name, _, _ in options)}",
        ]
        lines += [f"      <{name}> {text} (default: {value})" for name, value, text in options]
        lines.append("")
    lines += [
        'Each option may be left out, with all behind it. The disk becomes the file "test1.img" here',
        '("test2.img" where -N is given again, and so on), or the file that is named before the type:',
        "",
        "  guestfish -N web.img=fs:ext4:10G",
    ]
    return "\n".join(lines) + "\n"


def prepare(start: Start, text: str, index: int) -> None:
    """Make ``[FILE=]TYPE[:OPTION…]`` and add it. Raises Stop, CowshedError."""
    from ... import create

    name, equals, rest = text.partition("=")
    if not equals:
        name, rest = f"test{index}.img", text
    kind, *options = rest.split(":")
    if kind not in TYPES:
        raise start.fail(
            f"-N parameter ‘{rest}’: no such prepared disk image known.\n"
            "Use 'guestfish -N help' to list possible values for the -N parameter."
        )
    rows = TYPES[kind][1]
    if len(options) > len(rows):
        raise start.fail(f"-N parameter ‘{rest}’: too many parameters")
    values = {row[0]: given or row[1] for row, given in zip(rows, [*options, *[""] * len(rows)], strict=False)}
    group, volume = _names(start, name, rest, values.get("name", "/dev/VG/LV"))
    size = _size(start, values["size"])
    boot = _size(start, values["bootsize"]) if "bootsize" in values else 0
    if os.path.exists(name):
        os.unlink(name)
    create(name, "raw", size=size)
    session = start.fish.session
    session.add(name, fmt="raw", readonly=False)
    if kind == "disk":
        return
    session.run()
    device = session.devices.disks()[-1]

    def run(*words: str) -> None:
        if not start.fish.run([*words]):
            raise start.fail(f"error creating prepared disk image ‘{rest}’ on ‘{name}’: {words[0]} failed")

    root = f"{device}1"
    if boot:
        end = _EDGE + boot // _SECTOR
        run("part-init", device, values["partition"])
        run("part-add", device, "p", str(_EDGE), str(end - 1))
        run("part-add", device, "p", str(end), str(-_EDGE))
        run("mkfs", values["bootfs"], f"{device}1")
        root = f"{device}2"
    else:
        run("part-disk", device, values["partition"])
    if "name" in values:
        run("pvcreate", root)
        run("vgcreate", group, root)
        run("lvcreate-free", volume, group, "100")
        root = f"/dev/{group}/{volume}"
    kind_of_root = values.get("rootfs", values.get("filesystem"))
    if kind_of_root is not None:
        run("mkfs", kind_of_root, root)


def _names(start: Start, name: str, rest: str, text: str) -> tuple[str, str]:
    group, slash, volume = text.removeprefix("/dev/").partition("/")
    if not text.startswith("/dev/") or not slash:
        raise start.fail(
            f"error creating prepared disk image ‘{rest}’ on ‘{name}’: incorrect format for LV name, use '/dev/VG/LV'"
        )
    return group, volume


def _size(start: Start, text: str) -> int:
    from .arguments import Refused, number
    from .table import Argument, find

    known = find("disk-create")
    assert known is not None
    try:
        return number(known, Argument("size:int"), text)
    except Refused as refused:
        raise start.fail(str(refused)) from refused
