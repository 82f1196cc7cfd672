"""What we write, the real tools read: a covering set of qcow2 layouts, made and filled by our code.

Judges: `qemu-img check` (not even leaks), `compare` with the model, `qemu-io read -P`, `map`, and `info` against an
image that the real tool made with the same options.
"""

from __future__ import annotations

import json
import os
import random
from pathlib import Path
from typing import Any

import pytest

import judges
from layouts import (
    FACTORS,
    Disk,
    allowed,
    assert_reads,
    assert_same_disk,
    assert_sound,
    chain,
    content,
    covering,
    disk_size,
    label,
    make,
    make_real,
    opened,
    options_of,
    our_map,
    qemu_io,
    real_map,
    story,
)

ROWS = covering(FACTORS, allowed)


def test_rows_cover_every_pair() -> None:
    """The rows hold each value of each factor beside each other value that may stand with it."""
    met = {(a, row[a], b, row[b]) for row in ROWS for a in FACTORS for b in FACTORS}
    for a in FACTORS:
        for b in FACTORS:
            if a == b:
                continue
            for x in FACTORS[a]:
                for y in FACTORS[b]:
                    if (a, x, b, y) not in met:
                        assert not any(
                            allowed({**row, a: x, b: y}) and row[a] == x for row in ROWS
                        ), f"no row has {a}={x} with {b}={y}, though one could"
    assert all(allowed(row) for row in ROWS)


@pytest.mark.parametrize("row", ROWS, ids=label)
def test_fresh_image_is_as_the_real_one(tmp_path: Path, row: dict[str, Any]) -> None:
    """Created by us and by the real tool with the same options: the same facts, the same map, the same space taken."""
    size, cluster = disk_size(row), row["cluster_size"]
    disk = Disk(tmp_path / "model.raw", size)
    below = chain(tmp_path, row, size, disk, make_real)
    facts: list[Any] = []
    files: list[list[os.stat_result]] = []
    for stem, create in (("real", make_real), ("ours", make)):
        path = tmp_path / stem
        create(path, options_of(row, tmp_path, "disk"), size, below)
        info = json.loads(judges.qemu_img("info", "-f", "qcow2", "--output=json", path))
        for name in ("filename", "actual-size"):
            info.pop(name)
        facts.append((info, allocation(path)))
        files.append([file.stat() for file in (path, tmp_path / "disk.data") if file.exists()])
    assert facts[1][0] == facts[0][0]
    if not (row["extended_l2"] and row["data_file"] == "raw"):
        # (qemu leaves those subclusters unallocated, so that what is in the raw file would not show)
        assert facts[1][1] == facts[0][1]
    for number, (ours, real) in enumerate(zip(files[1], files[0], strict=True)):
        assert abs(ours.st_size - real.st_size) < cluster, "another length of file"
        if number == 0 or row["preallocation"] in ("off", "metadata"):
            assert abs(ours.st_blocks - real.st_blocks) * 512 <= cluster + 8192, "another amount of space taken"
        else:  # (qemu takes no space for an external data file, whatever the preallocation)
            assert ours.st_blocks * 512 >= size // 4096 * 4096
    assert_sound(tmp_path / "ours")
    assert_same_disk(tmp_path / "ours", disk.path)


def allocation(path: Path) -> list[tuple[int, int, int, bool, bool]]:
    """The real tool's map without places and holes of the file: which layer has clusters where."""
    runs: list[tuple[int, int, int, bool, bool]] = []
    for shape in real_map(path):
        if runs and runs[-1][2:] == (shape.depth, shape.present, shape.data):
            runs[-1] = (runs[-1][0], runs[-1][1] + shape.length, *runs[-1][2:])
        else:
            runs.append((shape.start, shape.length, shape.depth, shape.present, shape.data))
    return runs


@pytest.mark.parametrize("row", ROWS, ids=label)
def test_ours_writes_real_reads(tmp_path: Path, figures: Any, row: dict[str, Any]) -> None:
    rng = random.Random(label(row))
    size = disk_size(row)
    path, disk = tmp_path / "disk.qcow2", Disk(tmp_path / "model.raw", size)
    below = chain(tmp_path, row, size, disk, make if rng.random() < 0.5 else make_real)
    make(path, options_of(row, tmp_path, "disk"), size, below)
    plan = story(row, size, rng, 14)
    patterns: dict[int, int] = {}
    with opened(path, writable=True) as image:
        for verb, offset, length, seed in plan:
            if verb == "write":
                data = content(seed, length)
                image.write(offset, data)
                disk.put(offset, data)
            elif verb == "packed":
                data = content(seed, length, packable=True)
                image.write_compressed(offset, data)
                disk.put(offset, data)
            elif verb == "discard":
                image.discard(offset, length)
                got, old = image.read(offset, length), disk.get(offset, length)
                assert all(byte in (0, before) for byte, before in zip(got, old, strict=True))
                disk.put(offset, got)
            else:
                image.write_zeroes(offset, length, unmap=verb == "unmap")
                disk.put(offset, bytes(length))
        # odd bytes at the beginning, in the middle and at the very end, for read -P
        for number, offset in enumerate((0, size // 2 + 1, size - 777)):
            image.write(offset, bytes([200 + number]) * 777)
            disk.put(offset, bytes([200 + number]) * 777)
            patterns[offset] = 200 + number
    assert_sound(path, plan)
    assert_same_disk(path, disk.path, plan)
    qemu_io(path, [f"read -q -P {byte} {offset} 777" for offset, byte in patterns.items()])
    with opened(path) as image:
        assert_reads(image, disk.path, plan)
        assert our_map(image) == real_map(path), plan
    if row["data_file"] == "raw":
        assert_same_raw(tmp_path / "disk.data", disk, row["cluster_size"])
    figures.add("matrix: layouts written by us")
    figures.add("matrix: judged bytes", size)


def assert_same_raw(data: Path, disk: Disk, cluster: int) -> None:
    """A raw data file alone is the disk; its last cluster may be whole."""
    assert disk.size <= data.stat().st_size < disk.size + cluster
    judges.run("qemu-img", "compare", "-f", "raw", "-F", "raw", data, disk.path)
