"""``-N TYPE``: disks made for the session: disk, part, fs."""

from __future__ import annotations

import os

from .start import Start

_SIZE = "1G"
#: type -> its options' names and what they are when not given
_TYPES = {
    "disk": (("size", _SIZE),),
    "part": (("size", _SIZE), ("partition", "mbr")),
    "fs": (("filesystem", "ext2"), ("size", _SIZE), ("partition", "mbr")),
}


def prepare(start: Start, text: str, index: int) -> None:
    """Make ``[FILE=]TYPE[:OPTION…]`` and add it. Raises Stop, CowshedError."""
    from ... import create
    from .arguments import Refused
    from .table import Argument, find

    name, equals, rest = text.partition("=")
    if not equals:
        name, rest = f"test{index}.img", text
    kind, *options = rest.split(":")
    rows = _TYPES.get(kind)
    if rows is None:
        raise start.fail(f"-N parameter ‘{rest}’: no such prepared disk image known")
    if len(options) > len(rows):
        raise start.fail(f"-N parameter ‘{rest}’: too many parameters")
    values = {row[0]: given or row[1] for row, given in zip(rows, [*options, *[""] * len(rows)], strict=False)}
    from .arguments import number

    known = find("disk-create")
    assert known is not None
    try:
        size = number(known, Argument("size:int"), values["size"])
    except Refused as refused:
        raise start.fail(str(refused)) from refused
    if os.path.exists(name):
        os.unlink(name)
    create(name, "raw", size=size)
    fish = start.fish
    fish.session.add(name, fmt="raw", readonly=False)
    if kind == "disk":
        return
    fish.session.run()
    device = fish.session.devices.disks()[-1]
    if not fish.run(["part-disk", device, values["partition"]]):
        raise start.fail("the prepared disk could not be partitioned")
    if kind == "fs" and not fish.run(["mkfs", values["filesystem"], f"{device}1"]):
        raise start.fail("the prepared disk could not be formatted")
