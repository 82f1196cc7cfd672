"""What the real tools write, we read: the same bytes, and the same extents as `qemu-img map --output=json`."""

from __future__ import annotations

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
    chain,
    content,
    covering,
    disk_size,
    label,
    make_real,
    opened,
    options_of,
    our_map,
    qemu_io,
    real_map,
    real_raw,
    story,
)

ROWS = covering(FACTORS, allowed, seed=3)


@pytest.mark.parametrize("row", ROWS, ids=label)
def test_real_writes_ours_reads(tmp_path: Path, figures: Any, row: dict[str, Any]) -> None:
    rng = random.Random(label(row))
    size = disk_size(row)
    path, disk = tmp_path / "disk.qcow2", Disk(tmp_path / "model.raw", size)
    below = chain(tmp_path, row, size, disk, make_real)
    make_real(path, options_of(row, tmp_path, "disk"), size, below)
    can_snapshot = row["data_file"] == "none" and row["refcount_bits"] > 2
    packed: set[int] = set()
    first = story(row, size, rng, 8)
    second = story(row, size, rng, 5)
    for plan in (first, second):
        commands = []
        for number, (verb, offset, length, seed) in enumerate(plan):
            if verb == "packed" and (packed or row["preallocation"] != "off"):
                verb = "write"  # qemu compresses into fresh clusters only
            if verb in ("write", "packed"):
                data = content(seed, length, packable=verb == "packed")
                source = tmp_path / f"content{number}"
                source.write_bytes(data)
                commands.append(f"write -q {'-c ' if verb == 'packed' else ''}-s {source} {offset} {length}")
                disk.put(offset, data)
            elif verb == "discard":
                commands.append(f"discard -q {offset} {length}")
                disk.put(offset, bytes(length))
            else:
                commands.append(f"write -q -z {'-u ' if verb == 'unmap' else ''}{offset} {length}")
                disk.put(offset, bytes(length))
            packed.add(offset)
        qemu_io(path, commands)
        if plan is first and can_snapshot:
            judges.qemu_img("snapshot", "-c", "before", path)
            real_raw(path, tmp_path / "before.raw")
    # what a discard leaves is for the real tool to say
    real_raw(path, disk.path)
    with opened(path) as image:
        assert_reads(image, disk.path, plan)
        assert our_map(image) == real_map(path), (first, second)
        if can_snapshot:
            (snapshot,) = image.snapshots()
            assert (snapshot.name, snapshot.id, snapshot.disk_size) == ("before", "1", size)
            with image.snapshot_view("before") as view:
                assert_reads(view, tmp_path / "before.raw")
    figures.add("matrix: layouts written by qemu")
