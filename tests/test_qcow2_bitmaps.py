"""Persistent bitmaps know every write: random sequences, the bits decoded here from the specification.

A granule that has changed must be dirty; one that no request touched must not be. The real tools write to the same
images in between, and `qemu-img check` and `info` judge what is left.
"""

from __future__ import annotations

import json
import random
import struct
from pathlib import Path
from typing import Any

import pytest

import judges
from conftest import TORTURE
from cowshed.errors import CowshedError
from layouts import assert_sound, label, opened
from test_qcow2_model import ROWS, Pair

MARKED = [row for row in ROWS if row["compat"] == "v3"]


def dirty(path: Path, size: int) -> dict[str, tuple[int, set[int]]]:
    """Name -> (granularity, dirty granules) of every bitmap in a qcow2 file (qcow2.txt, "Bitmaps")."""
    raw = path.read_bytes()
    cluster = 1 << struct.unpack_from(">I", raw, 20)[0]
    at = struct.unpack_from(">I", raw, 100)[0]
    found: dict[str, tuple[int, set[int]]] = {}
    while True:
        kind, length = struct.unpack_from(">II", raw, at)
        if kind == 0:
            return found
        if kind == 0x23852875:
            break
        at += 8 + (length + 7) // 8 * 8
    count, _, bytes_, offset = struct.unpack_from(">IIQQ", raw, at + 8)
    end = offset + bytes_
    while offset < end:
        table, entries, flags, type_, bits, name_size, extra = struct.unpack_from(">QIIBBHI", raw, offset)
        assert type_ == 1 and extra == 0 and not flags & ~3
        name = raw[offset + 24 : offset + 24 + name_size].decode()
        granules = (size + (1 << bits) - 1) >> bits
        assert entries == ((granules + 7) // 8 + cluster - 1) // cluster, f"bitmap {name}: {entries} entries"
        marks: set[int] = set()
        for number, (entry,) in enumerate(struct.iter_unpack(">Q", raw[table : table + entries * 8])):
            first = number * cluster * 8
            place = entry & 0x00FFFFFFFFFFFE00
            assert not entry & ~0x00FFFFFFFFFFFE01
            if place:
                data = raw[place : place + cluster]
                for index, byte in enumerate(data):
                    marks.update(first + index * 8 + bit for bit in range(8) if byte >> bit & 1)
            elif entry & 1:
                marks.update(range(first, first + cluster * 8))
        marks = {mark for mark in marks if mark < granules}  # a run of ones may reach past the end
        found[name] = (1 << bits, marks)
        offset += (24 + name_size + 7) // 8 * 8
    assert len(found) == count
    return found


class Marked(Pair):
    """An image, its model, and for each bitmap the granules that must and those that may be dirty."""

    def __init__(self, directory: Path, row: dict[str, Any], seed: int) -> None:
        self.marks: dict[str, tuple[int, set[int], set[int], bool]] = {}
        super().__init__(directory, row, seed)

    def touched(self, before: bytes, requested: tuple[int, int]) -> None:
        start, end = requested
        for granularity, must, may, enabled in self.marks.values():
            if not enabled or end <= start:
                continue
            for granule in range(start // granularity, (end - 1) // granularity + 1):
                low, high = granule * granularity, (granule + 1) * granularity
                may.add(granule)
                if before[low:high] != self.model[low:high]:
                    must.add(granule)

    def own_io(self, verb: str, where: float, length: int, rounding: str, seed: int) -> None:
        before = bytes(self.model)
        at = len(self.story)
        super().own_io(verb, where, length, rounding, seed)
        self.told(before, at)

    def real_io(self, verb: str, where: float, length: int, rounding: str, seed: int) -> None:
        before = bytes(self.model)
        at = len(self.story)
        super().real_io(verb, where, length, rounding, seed)
        self.told(before, at)

    def told(self, before: bytes, at: int) -> None:
        """The request stands in the story."""
        if len(self.story) > at:
            offset, length = self.story[at].rsplit(" ", 1)[1].split("+")
            self.touched(before, (int(offset, 16), int(offset, 16) + int(length, 16)))

    def bitmap(self, verb: str, real: bool, rng: random.Random) -> None:
        names = sorted(self.marks)
        if verb == "add":
            name, granularity = f"b{len(self.story)}", 1 << rng.choice([9, 9, 12, 16, 20])
            if len(names) > 3 or self.row["data_file"] == "raw":
                return
        elif not names:
            return
        else:
            name = rng.choice(names)
            granularity = self.marks[name][0]
        self.story.append(f"{'real ' if real else ''}bitmap {verb} {name}")
        if real:
            self.closed()
            options = ["-g", str(granularity)] if verb == "add" else []
            judges.qemu_img("bitmap", f"--{verb}", *options, self.path, name)
            self.image = opened(self.path, writable=True)
        else:
            assert self.image is not None
            method = getattr(self.image, f"bitmap_{verb}")
            method(name, granularity) if verb == "add" else method(name)
        if verb == "add":
            self.marks[name] = (granularity, set(), set(), True)
        elif verb == "remove":
            del self.marks[name]
        elif verb == "clear":
            self.marks[name][1].clear()
            self.marks[name][2].clear()
        else:
            self.marks[name] = (*self.marks[name][:3], verb == "enable")

    def judge_bitmaps(self) -> None:
        self.closed()
        assert_sound(self.path, self.story)
        info = json.loads(judges.qemu_img("info", "--output=json", self.path))
        listed = info["format-specific"]["data"].get("bitmaps", [])
        assert sorted(item["name"] for item in listed) == sorted(self.marks), self.story
        for item in listed:
            enabled = self.marks[item["name"]][3]
            assert item["flags"] == (["auto"] if enabled else []), (item, self.story)
        found = dirty(self.path, len(self.model))
        for name, (granularity, must, may, _) in self.marks.items():
            assert found[name][0] == granularity
            got = found[name][1]
            assert must <= got, f"{name} misses {sorted(must - got)[:5]}: {self.story}"
            assert got <= may, f"{name} has {sorted(got - may)[:5]} without a write: {self.story}"


@pytest.mark.parametrize("row", MARKED, ids=label)
def test_bitmaps_know_every_write(tmp_path: Path, figures: Any, row: dict[str, Any]) -> None:
    rng = random.Random("bitmaps " + label(row))
    verbs = ["write"] * 5 + ["zero", "unmap", "discard"] + ["packed"] * 2
    verbs += ["real write", "real zero", "real unmap", "real discard", "flush", "reopen"]
    for _ in range(10 if TORTURE else 1):
        pair = Marked(tmp_path, row, rng.randrange(1 << 16))
        try:
            for number in range(20):
                if number in (0, 3) or rng.random() < 0.25:
                    verb = "add" if number in (0, 3) else rng.choice(["add", "remove", "clear", "enable", "disable"])
                    pair.bitmap(verb, rng.random() < 0.3, rng)
                else:
                    length = rng.choice([1, 512, 5000, 65536, 300_000])
                    where, rounding = rng.random(), rng.choice(["byte", "cluster", "end"])
                    pair.do(rng.choice(verbs), where, length, rounding, rng.randrange(1, 256))
            pair.same()
            pair.judge_bitmaps()
        finally:
            if pair.image is not None:
                pair.image.read_only = True
                pair.image.close()
        for file in tmp_path.iterdir():
            file.unlink()
    figures.add("bitmaps: sequences judged")


def test_a_bitmap_left_in_use_is_not_believed(tmp_path: Path) -> None:
    """Killed while it wrote: the bitmap says so itself, and nobody may use it again but to remove it."""
    judges.need("qemu-img")
    row = next(row for row in MARKED if row["data_file"] == "none" and not row["depth"])
    pair = Marked(tmp_path, row, 1)
    pair.bitmap("add", False, random.Random(1))
    (name,) = pair.marks
    pair.reopened()
    assert pair.image is not None
    pair.image.write(0, b"x" * 512)
    # what the file says at this moment is what a crash would leave
    left = tmp_path / "left.qcow2"
    left.write_bytes(pair.path.read_bytes())
    pair.image.close()
    info = json.loads(judges.qemu_img("info", "--output=json", left))
    (item,) = info["format-specific"]["data"]["bitmaps"]
    assert "in-use" in item["flags"]
    with opened(left, writable=True) as node:
        for verb in ("clear", "enable", "disable"):
            with pytest.raises(CowshedError):
                getattr(node, f"bitmap_{verb}")(name)
        node.bitmap_remove(name)
    assert_sound(left)
