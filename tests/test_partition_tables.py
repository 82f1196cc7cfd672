"""Partition tables against the tools that everybody has: sgdisk, sfdisk, parted."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest

import judges
from cowshed.block.graph import open_image
from cowshed.block.node import Node
from cowshed.errors import UsageError
from cowshed.layout.partition import EXTENDED, LOGICAL, PRIMARY, Space, Table, create_table, read_table
from cowshed.layout.partition.geometry import Geometry
from cowshed.layout.partition.gpt import GptTable
from cowshed.layout.partition.mbr import MbrTable

MIB = 1 << 20
PARTHELPER = "/usr/lib/libvirt/libvirt_parthelper"
#: what parted takes a plain file for
OF_FILES = Geometry(4, 32)


def disk(path: Path, size: int) -> Node:
    with open(path, "wb") as file:
        file.truncate(size)
    return open_image(str(path), fmt="raw", writable=True)


def sfdisk(path: Path) -> dict[str, object]:
    out: dict[str, dict[str, object]] = json.loads(judges.run("sfdisk", "-J", path).stdout)
    return out["partitiontable"]


def facts_of_sfdisk(path: Path) -> list[tuple[int, int, int, str]]:
    found = []
    listed = sfdisk(path).get("partitions", [])
    assert isinstance(listed, list)
    for part in listed:
        number = int(part["node"].removeprefix(str(path)).lstrip("p"))
        found.append((number, part["start"] * 512, part["size"] * 512, part["type"].upper()))
    return sorted(found)


def facts_of(table: Table) -> list[tuple[int, int, int, str]]:
    return [
        (part.number, part.start, part.size, part.type if isinstance(part.type, str) else f"{part.type:X}")
        for part in table.partitions
    ]


def parted(path: Path, *extra: str) -> list[list[str]]:
    out = judges.run("parted", "-s", "-m", path, "unit", "B", "print", *extra).stdout
    return [line.rstrip(";").split(":") for line in out.splitlines()[2:]]


def bytes_of(text: str) -> int:
    return int(text.rstrip("B"))


def judge(path: Path, table: Table) -> None:
    """sgdisk, sfdisk and parted see what the table says, and find nothing wrong."""
    assert facts_of_sfdisk(path) == facts_of(table)
    if table.label == "gpt":
        out = judges.run("sgdisk", "-v", path).stdout
        assert "No problems found" in out, out
    rows = parted(path)
    assert [(int(row[0]), bytes_of(row[1]), bytes_of(row[2]) + 1) for row in rows if row[0].isdigit()] == [
        (part.number, part.start, part.end) for part in sorted(table.partitions, key=lambda part: part.start)
    ]
    judge_free(path, table)


def judge_free(path: Path, table: Table) -> None:
    """parted sees the same free space; and libvirt, which asks libparted for whole cylinders."""
    free = [Space(bytes_of(row[1]), bytes_of(row[2]) + 1) for row in parted(path, "free") if row[-1] == "free"]
    # it calls even sector 0 free when a partition begins in sector 1
    free = [space for space in free if space.start]
    ours = [Space(space.start, space.end) for space in table.free_extents(cylinders=False)]
    assert ours == free
    if judges.find(PARTHELPER) is not None:
        fields = judges.run(PARTHELPER, path).stdout.split("\0")
        rows = [fields[at : at + 6] for at in range(0, len(fields) - 5, 6)]
        told = [Space(int(row[3]), int(row[4]), row[1] == "logical") for row in rows if row[2] == "free"]
        assert table.free_extents() == [space for space in told if space.start]


# -- property: any sequence of changes ---------------------------------------------------------------------------------


def change(rng: random.Random, table: Table) -> None:
    """One random change, or the attempt at one."""
    numbers = [part.number for part in table.partitions]
    kind = rng.choice(("add", "add", "add", "delete", "resize", "type", "other"))
    if kind == "add":
        what = PRIMARY
        if isinstance(table, MbrTable):
            what = rng.choice((PRIMARY, EXTENDED, LOGICAL, LOGICAL))
        size = rng.choice((1, 3, 100, 2048, 5000, 40960)) * 512
        if what == EXTENDED:
            size = 60000 * 512
        start = table.place(
            size, align=rng.choice((512, 4096, MIB)), logical=what == LOGICAL, largest=rng.random() < 0.3
        )
        name = rng.choice(("", "data", "Ünïcode 🐄")) if table.label == "gpt" else ""
        table.add(start, size, kind=what, name=name)
    elif kind == "delete" and numbers and rng.random() < 0.8:
        number = rng.choice(numbers)
        if table.partition(number).kind != EXTENDED or rng.random() < 0.1:
            table.delete(number)
    elif kind == "resize" and numbers:
        part = table.partition(rng.choice(numbers))
        table.resize(part.number, rng.choice((1, 77, 2048, part.size // 1024 + 1, part.size // 512 + 100)) * 512)
    elif kind == "type" and numbers:
        part = table.partition(rng.choice(numbers))
        if part.kind != EXTENDED:
            table.set_type(part.number, rng.choice((0x82, 0x83, 0x0C, 0x8E)))
    elif numbers:
        number = rng.choice(numbers)
        if isinstance(table, GptTable):
            table.set_attributes(number, rng.choice((0, 1, 4, 1 << 60 | 5)))
            table.set_guid(number, None)
        else:
            table.set_active(number, rng.random() < 0.7)


@pytest.mark.parametrize("seed", range(12))
@pytest.mark.parametrize("label", ["gpt", "dos"])
def test_random_changes(tmp_path: Path, label: str, seed: int) -> None:
    for tool in ("sgdisk", "sfdisk", "parted"):
        judges.need(tool)
    rng = random.Random(f"{label}{seed}")
    path = tmp_path / "disk"
    size = rng.choice((64, 100, 211)) * MIB + rng.choice((0, 512 * 7))
    with disk(path, size) as node:
        table = create_table(label, node, geometry=OF_FILES)
        table.write(node)
        judge(path, table)
        done = refused = 0
        for step in range(30):
            try:
                change(rng, table)
            except UsageError:
                refused += 1
                continue
            done += 1
            table.write(node)
            again = read_table(node, geometry=OF_FILES)
            assert facts_of(again) == facts_of(table)
            assert again.identifier == table.identifier and not again.problems
            for mine, theirs in zip(table.partitions, again.partitions, strict=True):
                for field in ("kind", "name", "guid", "attributes", "active"):
                    assert getattr(mine, field) == getattr(theirs, field)
            if step % 5 == 4:
                judge(path, again)
        judge(path, table)
        assert done > 8
