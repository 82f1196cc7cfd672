"""Volume groups changed by us and by lvm2 in turn: each takes what the other wrote, and both say the same of it.

lvm2 works on loop devices without device-mapper (test_lvm.py); a session of ours on the files behind these. What the
volumes hold is told extent by extent, and must stay through everything that is done around it.
"""

from __future__ import annotations

import contextlib
import random
import re
import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from cowshed.block.filter.record import FLUSH, Log, RecordNode
from cowshed.block.node import Node
from cowshed.block.protocol.file import FileNode
from cowshed.errors import CowshedError
from cowshed.guest.session import Session
from cowshed.guest.volumes import Volumes
from cowshed.layout.lvm.draft import Draft, Refusal, new_uuid
from cowshed.layout.lvm.label import read_area, read_label
from cowshed.layout.lvm.mapping import mapping
from cowshed.layout.lvm.model import Area, read_groups
from cowshed.layout.lvm.text import parse
from cowshed.layout.lvm.write import wipe_signatures
from cowshed.layout.lvm.writer import shown, stored
from cowshed.layout.signature import signatures
from crash_states import Disk, states
from test_lvm import DEVICES, LAYOUTS, MIB, SIZE, Judged, Lvm, lvm, mirror, one, plain, raid, snapshot

__all__ = ["lvm"]

UNIT = 512 << 10


@contextlib.contextmanager
def volumes_of(lvm: Lvm, count: int = DEVICES, log: Log | None = None) -> Iterator[Volumes]:
    """Our session on the files behind lvm2's devices: /dev/sda is its first one."""
    with Session() as session:
        for path in lvm.files[:count]:
            session.add(str(path), fmt="raw", readonly=False)
        session.run()
        if log is not None:
            for drive in session.devices.drives:
                drive._node = RecordNode(drive.node, log, drive.path)
        yield Volumes(session)


def agree(lvm: Lvm) -> None:
    """lvm2 finds nothing wrong, and what we read is what it reads."""
    judged = Judged(lvm)
    with lvm.open() as found:
        plain(found, judged)
        sectors = {device: label.sector for device, label in found.labels.items()}
    if judged.groups:
        assert not complaints(lvm("vgck").stderr)
    for row in judged.pvs:
        lvm("pvck", "--labelsector", sectors[row["pv_name"]], row["pv_name"])


def complaints(text: str) -> list[str]:
    """What lvm2 warns of, but for what it says of its own surroundings here."""
    return [line for line in text.splitlines() if "Activation disabled" not in line and "NOT backed up" not in line]


# ---- text


@pytest.mark.parametrize("layout", ["tagged", "aligned", "striped extended", "mirror", "raid10", "snapshots"])
def test_text_is_lvm2s(layout: str, lvm: Lvm, figures: Any) -> None:
    """Stored and shown, our text of what lvm2 wrote is byte for byte lvm2's, head and tail aside."""
    LAYOUTS[layout](lvm)
    with FileNode(str(lvm.files[0])) as node:
        label = read_label(node)
        assert label is not None
        text = read_area(node, label.metadata[0]).text
    assert text is not None
    ((name, section),) = parse(text).sections()
    ours = stored(name, section, "x", 0, "y").decode()
    assert ours[: ours.index("\n# Generated")] == text[: text.index("\n# Generated")]
    backup = lvm.folder / "backup"
    lvm("vgcfgbackup", "-f", backup, name)
    theirs = backup.read_text()
    ours = shown(name, section, "x", 0, "y").decode()
    assert ours[ours.index(f"\n{name} {{") :] == theirs[theirs.index(f"\n{name} {{") :]
    tail = re.compile(r'".*"|\d+|# .*')
    assert (
        tail.sub("", theirs[: theirs.index(f"\n{name} {{")]).split()
        == tail.sub("", ours[: ours.index(f"\n{name} {{")]).split()
    )
    figures.add("lvm: texts compared with lvm2's", 2)


def test_stored_text_has_its_nul(lvm: Lvm) -> None:
    """lvm2 counts the NUL behind a text, and so do we."""
    with volumes_of(lvm, 1) as volumes:
        volumes.create_group("vg", ["/dev/sda"])
    ours = _size_and_end(lvm.files[0])
    lvm("vgchange", "--addtag", "x", "vg")
    assert ours == _size_and_end(lvm.files[0]) == b"\n\n\0"


def _size_and_end(path: Path) -> bytes:
    with FileNode(str(path)) as node:
        label = read_label(node)
        assert label is not None
        area = label.metadata[0]
        copy = read_area(node, area)
        return node.read(area.offset + copy.offset + copy.size - 3, 3)


def test_labels_are_lvm2s(lvm: Lvm) -> None:
    """Label and empty metadata area are those that pvcreate and vgcreate write, but for the uuid and checksum."""
    lvm("pvcreate", lvm.devices[0])
    with volumes_of(lvm) as volumes:
        volumes.create_physical("/dev/sdb")
    assert _blank(lvm.files[0], 8192) == _blank(lvm.files[1], 8192)
    lvm("vgcreate", "a", lvm.devices[0])
    with volumes_of(lvm) as volumes:
        volumes.create_group("b", ["/dev/sdb"])
    assert _blank(lvm.files[0], 2048) == _blank(lvm.files[1], 2048)
    lvm("vgremove", "a")
    with volumes_of(lvm) as volumes:
        volumes.remove_group("b")
    assert _blank(lvm.files[0], 4608) == _blank(lvm.files[1], 4608)
    agree(lvm)


def _blank(path: Path, size: int) -> bytes:
    head = bytearray(path.read_bytes()[:size])
    head[528:532] = bytes(4)
    head[544:576] = bytes(32)
    head[2048:4096] = bytes(max(0, min(size, 4096) - 2048))  # nobody's: what was there stays
    return bytes(head)


# ---- in turn


class Turns:
    """Random changes by lvm2 and by us; what each volume holds by extents."""

    def __init__(self, lvm: Lvm, seed: int) -> None:
        self.lvm = lvm
        self.random = random.Random(seed)
        self.content: dict[str, list[int]] = {}
        self.count = 0
        self.group = "vg"
        self.done: list[str] = []

    def names(self) -> list[str]:
        return sorted(self.content)

    def fresh(self) -> str:
        self.count += 1
        return f"v{self.count}"

    def stamp(self, name: str) -> None:
        """Fill a volume's new extents with numbers of their own."""
        with self.lvm.open(writable=True) as found:
            group = found.group(self.group)
            assert group is not None
            lv = group.volumes[name]
            have = self.content.setdefault(name, [])
            del have[lv.extents :]
            for extent in range(len(have), lv.extents):
                mark = self.random.getrandbits(60)
                have.append(mark)
                for _, count, pv, where in mapping(lv, extent * UNIT, UNIT):
                    assert pv is not None and pv.node is not None
                    pv.node.write(where, struct.pack("<Q", mark) * (count // 8))

    def check(self) -> None:
        agree(self.lvm)
        with self.lvm.open() as found:
            group = found.group(self.group)
            assert group is not None
            assert sorted(group.volumes) == self.names()
            for name, marks in self.content.items():
                lv = group.volumes[name]
                assert lv.extents == len(marks)
                for extent, mark in enumerate(marks):
                    for _, count, pv, where in mapping(lv, extent * UNIT, UNIT):
                        assert pv is not None and pv.node is not None
                        # both ends of each run
                        assert pv.node.read(where, 8) == pv.node.read(where + count - 8, 8) == struct.pack("<Q", mark)

    def start(self) -> None:
        if self.random.random() < 0.5:
            one(self.lvm)
        else:
            with volumes_of(self.lvm) as volumes:
                names = [f"/dev/sd{letter}" for letter in "abcd"]
                volumes.create_group("first", names)
                volumes.remove_group("first")
            self.lvm("vgcreate", "-s", "512k", "vg", *self.lvm.devices)

    def step(self) -> None:
        ours = self.random.random() < 0.6
        kind = self.random.choice(
            ("create", "create", "grow", "grow", "shrink", "rename", "remove", "group", "stripes")
        )
        name = self.random.choice(self.names()) if self.content else ""
        if not name:
            kind = "create"
        extents = self.random.randint(1, 60)
        self.done.append(f"{'we' if ours else 'lvm2'} {kind} {name} {extents}")
        if kind == "stripes":
            with contextlib.suppress(AssertionError):
                new = self.fresh()
                self.lvm.lvcreate("-n", new, "-i", self.random.randint(2, 3), "-I", "8k", "-l", extents, self.group)
                self.stamp(new)
        elif ours:
            self.we(kind, name, extents)
        else:
            self.they(kind, name, extents)

    def we(self, kind: str, name: str, extents: int) -> None:
        device = f"/dev/{self.group}/{name}"
        with volumes_of(self.lvm) as volumes, contextlib.suppress(Refusal):
            if kind == "create":
                new = self.fresh()
                volumes.create(new, self.group, size=extents * UNIT - self.random.randrange(UNIT))
                self.stamp(new)
            elif kind == "grow":
                volumes.resize(device, size=(len(self.content[name]) + extents) * UNIT)
                self.stamp(name)
            elif kind == "shrink":
                volumes.resize(device, size=max(1, len(self.content[name]) - extents) * UNIT)
                self.stamp(name)
            elif kind == "rename":
                new = self.fresh()
                volumes.rename(device, new)
                self.content[new] = self.content.pop(name)
            elif kind == "remove":
                volumes.remove(device)
                del self.content[name]
            else:
                new = "vg" if self.group != "vg" else "other-group"
                volumes.rename_group(self.group, new)
                self.group = new

    def they(self, kind: str, name: str, extents: int) -> None:
        full = f"{self.group}/{name}"
        ok = (0, 5)
        if kind == "create":
            new = self.fresh()
            if (
                self.lvm("lvcreate", "-an", "-y", "-Zn", "-Wn", "-n", new, "-l", extents, self.group, ok=ok).returncode
                == 0
            ):
                self.stamp(new)
        elif kind in ("grow", "shrink"):
            sign = "+" if kind == "grow" else "-"
            self.lvm("lvresize", "-f", "-l", f"{sign}{extents}", full, ok=ok)
            self.stamp(name)
        elif kind == "rename":
            new = self.fresh()
            self.lvm("lvrename", self.group, name, new)
            self.content[new] = self.content.pop(name)
        elif kind == "remove":
            self.lvm("lvremove", "-y", full)
            del self.content[name]
        else:
            new = "vg" if self.group != "vg" else "other-group"
            self.lvm("vgrename", self.group, new)
            self.group = new


def turns(lvm: Lvm, seed: int, steps: int, every: int, figures: Any) -> None:
    run = Turns(lvm, seed)
    try:
        run.start()
        for number in range(1, steps + 1):
            run.step()
            if number % every == 0:
                run.check()
        run.check()
    except BaseException:
        print(f"seed {seed}:", *run.done, sep="\n  ")
        raise
    figures.add("lvm: changes in turn with lvm2", steps)


@pytest.mark.parametrize("seed", range(1))
def test_in_turn(seed: int, lvm: Lvm, figures: Any) -> None:
    turns(lvm, seed, 16, 5, figures)


@pytest.mark.torture
@pytest.mark.parametrize("seed", range(100, 160))
def test_in_turn_for_long(seed: int, lvm: Lvm, figures: Any) -> None:
    turns(lvm, seed, 60, 6, figures)


# ---- single changes


def test_a_group_is_made_as_lvm2_makes_it(lvm: Lvm) -> None:
    """The whole life of a group, without lvm2; then it looks, and goes on."""
    with volumes_of(lvm) as volumes:
        volumes.create_physical("/dev/sda")
        volumes.create_group("VG", ["/dev/sda", "/dev/sdb"])
        volumes.create("LV", "VG", size=10 * MIB)
        volumes.create("rest", "VG", percent=100)
        group = volumes.group("VG")
        assert (group.extents, group.free, group.seqno) == (10, 0, 3)
        assert [lv.extents for lv in group.volumes.values()] == [3, 7]
        volumes.resize("/dev/VG/rest", size=4 * MIB)
        volumes.resize("/dev/VG/LV", percent=50)
        assert volumes.devices.open("/dev/VG/LV").size == 24 * MIB
        assert [len(lv.segments) for lv in volumes.group("VG").volumes.values()] == [2, 1]
    agree(lvm)
    lvm("vgextend", "VG", lvm.devices[2])
    lvm("lvextend", "-l", "+2", "VG/LV", lvm.devices[2])
    lvm("lvremove", "-y", "VG/rest")
    with volumes_of(lvm) as volumes:
        volumes.resize("/dev/VG/LV", less=9 * MIB)
        assert volumes.group("VG").volumes["LV"].extents == 6
        volumes.remove("/dev/VG/LV")
        assert volumes.group("VG").free == volumes.group("VG").size == 60 * MIB
        volumes.remove_all()
        assert not volumes.devices.lvm().labels
    agree(lvm)
    assert not lvm.report("pvs", "pv_name")


def test_a_ring_that_goes_round(lvm: Lvm) -> None:
    """Texts of growing length in a small ring: each is whole; what does not fit is refused, and nothing changes."""
    lvm("pvcreate", "--metadatasize", "32k", "--dataalignment", "4k", lvm.devices[0])
    lvm("vgcreate", "-s", "64k", "vg", lvm.devices[0])
    names: list[str] = []
    count = 0
    with volumes_of(lvm, 1) as volumes:
        with pytest.raises(Refusal, match="too large for circular buffer"):
            while True:
                count += 1
                name = f"volume-with-a-long-name-{count}"
                volumes.create(name, "vg", size=1)
                names.append(name)
                if count % 7 == 0:
                    volumes.remove(f"/dev/vg/{names.pop(0)}")
        assert len(names) > 30
        assert sorted(volumes.group("vg").volumes) == sorted(names)
        for _ in range(12):
            volumes.remove(f"/dev/vg/{names.pop(0)}")
        for _ in range(60):
            volumes.rename(f"/dev/vg/{names[-1]}", "x")
            volumes.rename("/dev/vg/x", names[-1])
    agree(lvm)


def test_areas_that_are_ignored_or_damaged(lvm: Lvm) -> None:
    """lvm2's own rules: an area that is to be ignored keeps what it has, a damaged one too; the others are written."""
    one(lvm)
    lvm("pvchange", "--metadataignore", "y", lvm.devices[1])
    before = lvm.files[1].read_bytes()[4096:MIB]
    with open(lvm.files[2], "r+b") as file:
        file.seek(4096 + 20)
        file.write(b"\xff")
    damaged = lvm.files[2].read_bytes()[4096:MIB]
    with volumes_of(lvm) as volumes:
        volumes.create("a", "vg", size=MIB)
    assert lvm.files[1].read_bytes()[4096:MIB] == before
    assert lvm.files[2].read_bytes()[4096:MIB] == damaged
    assert [row["lv_name"] for row in lvm.report("lvs", "lv_name")] == ["a"]
    lvm("vgck", "--updatemetadata", "vg")
    lvm("vgchange", "-y", "--metadatacopies", "all", "vg")
    agree(lvm)


def test_physical_volumes_resized(lvm: Lvm) -> None:
    with volumes_of(lvm) as volumes:
        volumes.create_physical("/dev/sda")
        volumes.resize_physical("/dev/sda", 9 * MIB)
        assert volumes.devices.lvm().labels["/dev/sda"].device_size == 9 * MIB
        volumes.create_group("vg", ["/dev/sda", "/dev/sdb"])
        assert [pv.extents for pv in volumes.group("vg").physical.values()] == [2, 5]
        volumes.resize_physical("/dev/sda")
        volumes.create("a", "vg", size=30 * MIB)
        with pytest.raises(Refusal, match="cannot resize to 2 extents as 5 are allocated"):
            volumes.resize_physical("/dev/sda", 9 * MIB)
        volumes.resize_physical("/dev/sdb", 13 * MIB + 512)
        with pytest.raises(Refusal, match="the device has no more than 49152 sectors"):
            volumes.resize_physical("/dev/sdb", SIZE + 512)
        with pytest.raises(Refusal, match="Size must exceed minimum of 4096 sectors"):
            volumes.resize_physical("/dev/sdb", MIB)
        with pytest.raises(Refusal, match='Failed to find physical volume "/dev/sdc"'):
            volumes.resize_physical("/dev/sdc")
    agree(lvm)
    assert [row["pv_pe_count"] for row in lvm.report("pvs", "pv_pe_count")] == ["5", "3"]


def test_new_uuids(lvm: Lvm) -> None:
    one(lvm)
    with volumes_of(lvm) as volumes:
        volumes.create("a", "vg", size=MIB)
        with pytest.raises(Refusal, match="active logical volumes"):
            volumes.renew_group("vg")
        volumes.devices.active = lambda name: False
        old = volumes.group("vg").uuid, volumes.devices.lvm().labels["/dev/sdb"].uuid
        volumes.renew_group("vg")
        volumes.renew_physical("/dev/sdb")
        new = volumes.group("vg").uuid, volumes.devices.lvm().labels["/dev/sdb"].uuid
        assert old[0] != new[0] and old[1] != new[1] and not volumes.group("vg").missing
    agree(lvm)
    assert re.fullmatch(r"(\w{6}-)(\w{4}-){5}\w{6}", new_uuid(), re.ASCII)


# ---- what others made


def test_parts_of_others_are_let_be(lvm: Lvm) -> None:
    """RAID, mirrors and snapshots: not resized; removed with all their parts, the others still whole."""
    one(lvm)
    lvm.lvcreate("-n", "base", "-L", "4M", "vg", lvm.devices[3])
    lvm.edit("vg", mirror("m", 2) + snapshot("s1", "base", 0, 2, 20, 3, 8) + snapshot("s2", "base", 1, 3, 20, 4, 8))
    lvm.edit("vg", raid("r", "raid1", (0, 1), 7, 7))
    with volumes_of(lvm) as volumes:
        for name in ("m", "r", "base", "s1"):
            with pytest.raises(Refusal):
                volumes.resize(f"/dev/vg/{name}", size=20 * MIB)
        for name in ("m", "r"):
            with pytest.raises(Refusal, match="can't be renamed here"):
                volumes.rename(f"/dev/vg/{name}", "other")
        volumes.create("beside", "vg", percent=100)
        agree(lvm)
        volumes.rename("/dev/vg/base", "ground")
        volumes.rename("/dev/vg/s2", "later")
        volumes.remove("/dev/vg/s1")
        agree(lvm)
        assert [lv.name for lv in volumes.group("vg").volumes["ground"].snapshots] == ["later"]
        volumes.remove("/dev/vg/ground")
        volumes.remove("/dev/vg/r")
        agree(lvm)
        volumes.remove("/dev/vg/m")
        assert sorted(volumes.group("vg").volumes) == ["beside"]
    agree(lvm)


def places(areas: list[Area]) -> list[tuple[str, int]]:
    return [(area.volume.name, area.start) for area in areas]


@pytest.mark.parametrize("layout", ["two areas", "aligned", "wrapped", "tagged", "raid0"])
def test_groups_that_lvm2_made(layout: str, lvm: Lvm) -> None:
    """Two areas on a device or none, labels and extents elsewhere, tags, rings that went round: changed as they are."""
    LAYOUTS[layout](lvm)
    with lvm.open() as found:
        group = found.groups[0]
        kept = {lv.uuid: [places(segment.areas) for segment in lv.segments] for lv in group.volumes.values()}
    with volumes_of(lvm) as volumes:
        volumes.create("new", group.name, size=1)
        volumes.resize(f"/dev/{group.name}/new", percent=100)
        volumes.rename_group(group.name, "renamed")
        for pv in volumes.group("renamed").physical.values():
            assert pv.path is not None
            volumes.resize_physical(pv.path)
    agree(lvm)
    with volumes_of(lvm) as volumes:
        volumes.remove("/dev/renamed/new")
        after = volumes.group("renamed")
        assert after.tags == group.tags
        assert kept == {lv.uuid: [places(segment.areas) for segment in lv.segments] for lv in after.volumes.values()}
    agree(lvm)


UNKNOWN = """
vg { id = "x" seqno = 7 format = "lvm2" status = ["READ", "WRITE", "RESIZEABLE"] flags = [] extent_size = 8
 new_key = [1, "two"] physical_volumes { pv0 { id = "u0" device = "/dev/a" status = ["ALLOCATABLE"] dev_size = 3000
   pe_start = 2048 pe_count = 100 odd = "kept" } }
 logical_volumes {
  pool { id = "p" status = ["READ", "WRITE", "VISIBLE"] segment_count = 1 segment1 { start_extent = 0 extent_count = 4
     type = "thin-pool" metadata = "pool_tmeta" pool = "pool_tdata" chunk_size = 128 discards = "passdown" } }
  pool_tmeta { id = "pm" status = ["READ"] segment_count = 1 segment1 { start_extent = 0 extent_count = 1
     type = "striped" stripe_count = 1 stripes = ["pv0", 0] } }
  pool_tdata { id = "pd" status = ["READ"] segment_count = 1 segment1 { start_extent = 0 extent_count = 4
     type = "striped" stripe_count = 1 stripes = ["pv0", 10] } }
  plain { id = "l" status = ["READ", "WRITE", "VISIBLE"] segment_count = 1 segment1 { start_extent = 0 extent_count = 4
     type = "striped" stripe_count = 1 stripes = ["pv0", 20] } }
  strange { id = "s" status = ["READ", "WRITE", "VISIBLE"] segment_count = 1 segment1 { start_extent = 0
     extent_count = 9 type = "vdo" vdo_offset = 3 vdo_pool = "plain" } }
  held { id = "h" status = ["READ", "WRITE", "VISIBLE", "LOCKED"] segment_count = 1 segment1 { start_extent = 0
     extent_count = 4 type = "striped" stripe_count = 1 stripes = ["pv0", 30] } }
 }
 historical_logical_volumes { } }
"""


def unknown(text: str = UNKNOWN) -> Draft:
    (group,) = read_groups(parse(text))
    for pv in group.physical.values():
        pv.node = Node("there")
    return Draft.of(group)


def test_unknown_keys_and_types_are_kept() -> None:
    draft = unknown()
    before = parse(UNKNOWN)["vg"]
    assert isinstance(before, dict)
    for change in (
        lambda: draft.remove("pool"),
        lambda: draft.remove("strange"),
        lambda: draft.remove("plain"),
        lambda: draft.resize("pool", 8),
        lambda: draft.resize("strange", 20),
        lambda: draft.resize("plain", 2),
        lambda: draft.rename_volume("pool", "q"),
        lambda: draft.rename_volume("plain", "q"),
        lambda: draft.remove("held"),
        lambda: draft.resize("held", 2),
        lambda: draft.remove("nowhere"),
        lambda: draft.create("pool", 1, 0),
        lambda: draft.create("x", 88, 0),
    ):
        with pytest.raises(Refusal):
            change()
    draft.create("x", 87, 5)
    after = parse(stored("vg", draft.section, "", 0, "").rstrip(b"\0").decode())["vg"]
    assert isinstance(after, dict)
    assert after.pop("seqno") == 8
    assert isinstance(after["logical_volumes"], dict)
    assert [lv.extents for lv in draft.group.volumes.values()] == [4, 1, 4, 4, 9, 4, 87]
    del after["logical_volumes"]["x"]
    before.pop("seqno")
    assert after == before and list(after) == list(before)


@pytest.mark.parametrize(
    ("old", "new", "match"),
    [
        ('"RESIZEABLE"]', '"EXPORTED"]', "is exported"),
        ('"RESIZEABLE"]', '"CLUSTERED"]', "shared"),
        ('"RESIZEABLE"]', '"FUTURE"]', "unknown status FUTURE"),
        ('"WRITE", "RESIZEABLE"]', '"RESIZEABLE"]', "read-only"),
        ("new_key", 'system_id = "other" new_key', "system ID other"),
        ("new_key", 'lock_type = "sanlock" new_key', "shared"),
        ("new_key", "max_lv = 4 new_key", "Maximum number"),
    ],
)
def test_groups_of_others(old: str, new: str, match: str) -> None:
    with pytest.raises(Refusal, match=match):
        unknown(UNKNOWN.replace(old, new, 1)).create("x", 1, 0)


def test_missing_devices_and_twins(lvm: Lvm) -> None:
    one(lvm)
    with volumes_of(lvm, 3) as volumes, pytest.raises(Refusal, match="while PVs are missing"):
        volumes.create("a", "vg", size=MIB)
    with volumes_of(lvm) as volumes:
        volumes.session.add(str(lvm.files[0]), fmt="raw", readonly=True)
        with pytest.raises(Refusal, match="duplicate PV devices"):
            volumes.create("a", "vg", size=MIB)


def test_signatures_are_wiped(lvm: Lvm, tmp_path: Path) -> None:
    """A device that held something else holds nothing but a physical volume; a new volume shows nothing of before."""
    path = lvm.files[0]
    with open(path, "r+b") as file:
        for at, magic in (
            (0x10040, b"_BHRfS_M"),
            (0x8001, b"CD001"),
            (512, b"EFI PART"),
            (0x438, b"\x53\xef"),
            (4086, b"SWAPSPACE2"),
        ):
            file.seek(at)
            file.write(magic)
        file.seek(SIZE - 512)
        file.write(b"EFI PART")
        for at in (MIB + 0x10040, MIB + 4 * MIB + 0x10040):
            file.seek(at)
            file.write(b"_BHRfS_M")
    with FileNode(str(path), writable=True) as node:
        assert len(signatures(node)) > 3
        wipe_signatures(node)
        assert signatures(node) == []
    with open(path, "r+b") as file:
        file.seek(SIZE - 512)
        file.write(b"EFI PART")
    with volumes_of(lvm, 1) as volumes:
        volumes.create_group("vg", ["/dev/sda"])
        with FileNode(str(path)) as node:
            assert [one.name for one in signatures(node)] == ["LVM2_member"]
        volumes.create("a", "vg", size=4 * MIB)
        volumes.create("b", "vg", size=4 * MIB)
        for name in "ab":
            assert signatures(volumes.devices.open(f"/dev/vg/{name}")) == []
            assert volumes.devices.open(f"/dev/vg/{name}").read(0, 4096) == bytes(4096)
    agree(lvm)


def test_nothing_is_written_where_it_is_refused(lvm: Lvm) -> None:
    one(lvm)
    lvm.lvcreate("-n", "a", "-L", "3M", "vg")
    before = [path.read_bytes() for path in lvm.files]
    with volumes_of(lvm) as volumes:
        for change in (
            lambda: volumes.create_physical("/dev/sda"),
            lambda: volumes.remove_physical("/dev/sda"),
            lambda: volumes.create_group("vg", ["/dev/sda"]),
            lambda: volumes.create_group("new", ["/dev/sda"]),
            lambda: volumes.create_group("sdb", ["/dev/sda"]),
            lambda: volumes.rename_group("vg", "vg"),
            lambda: volumes.create("a", "vg", size=1),
            lambda: volumes.create("b", "vg", size=100 * MIB),
            lambda: volumes.create("b", "nowhere", size=1),
            lambda: volumes.resize("/dev/vg/a", size=100 * MIB),
            lambda: volumes.resize("/dev/vg/a", less=3 * MIB),
            lambda: volumes.rename("/dev/vg/a", "a"),
            lambda: volumes.remove("/dev/vg/b"),
            lambda: volumes.remove_group("nowhere"),
        ):
            with pytest.raises(CowshedError):
                change()
        volumes.resize("/dev/vg/a", size=3 * MIB)
    assert [path.read_bytes() for path in lvm.files] == before


# ---- cuts


def seen(lvm: Lvm) -> list[dict[str, str]]:
    """All that lvm2 says of groups, volumes and where these are."""
    return lvm.report(
        "pvs", "pv_name,pv_uuid,vg_name,vg_uuid,vg_seqno,pv_pe_count,lv_name,pvseg_start,pvseg_size", "--segments"
    )


def _made(volumes: Volumes) -> None:
    volumes.create_group("vg", ["/dev/sda", "/dev/sdb"])
    volumes.create("a", "vg", size=8 * MIB)
    volumes.create("b", "vg", size=8 * MIB)


CUTS: dict[str, tuple[Callable[[Volumes], object], Callable[[Volumes], object]]] = {
    "pvcreate": (lambda v: None, lambda v: v.create_physical("/dev/sda")),
    "pvcreate again": (lambda v: v.create_physical("/dev/sda"), lambda v: v.create_physical("/dev/sda")),
    "pvremove": (lambda v: v.create_physical("/dev/sda"), lambda v: v.remove_physical("/dev/sda")),
    "vgcreate": (
        lambda v: (v.create_physical("/dev/sda"), v.create_physical("/dev/sdb")),
        lambda v: v.create_group("vg", ["/dev/sda", "/dev/sdb"]),
    ),
    "lvcreate": (_made, lambda v: v.create("c", "vg", size=12 * MIB)),
    "lvresize": (_made, lambda v: v.resize("/dev/vg/a", size=20 * MIB)),
    "lvremove": (_made, lambda v: v.remove("/dev/vg")),
    "lvrename": (_made, lambda v: v.rename("/dev/vg/a", "other")),
    "vgrename": (_made, lambda v: v.rename_group("vg", "other")),
    "pvresize": (_made, lambda v: v.resize_physical("/dev/sdb", 20 * MIB)),
    "vgremove": (_made, lambda v: v.remove_group("vg")),
}


def cut(lvm: Lvm, change: str, budget: int, figures: Any) -> None:
    """Each state that a cut may leave is the old or the new one for lvm2 and for us."""
    prepare, act = CUTS[change]
    with volumes_of(lvm, 2) as volumes:
        prepare(volumes)
    before = [path.read_bytes() for path in lvm.files[:2]]
    allowed = [seen(lvm)]
    log = Log(1 << 28)
    with volumes_of(lvm, 2, log) as volumes:
        act(volumes)
    allowed.append(seen(lvm))
    assert allowed[0] != allowed[1]
    assert any(event.kind == FLUSH for event in log.events)
    disks = {f"/dev/sd{'ab'[number]}": Disk(lvm.files[number], data) for number, data in enumerate(before)}
    durable = judged = 0
    met = set()
    known: dict[int, bool] = {}
    for state in states(log.events, budget, 5):
        while durable < state.durable:
            event = log.events[durable]
            if event.kind != FLUSH:
                disks[event.name].apply(event, log, None)
            durable += 1
        for disk in disks.values():
            disk.begin()
        for number in sorted(state.part):
            disks[log.events[number].name].apply(log.events[number], log, state.part[number])
        content = hash(tuple(disk.content()[:MIB] for disk in disks.values()))
        if content not in known:
            known[content] = True
            report = seen(lvm)
            assert report in allowed, (change, state, report)
            met.add(allowed.index(report))
            with lvm.open() as found:
                for group in found.groups:
                    assert not group.missing
            judged += 1
        for disk in disks.values():
            disk.rollback()
    for disk in disks.values():
        disk.close()
    assert met == {0, 1}
    figures.add("lvm: cut states judged by lvm2", judged)


@pytest.mark.parametrize("change", CUTS)
def test_cut(change: str, lvm: Lvm, figures: Any) -> None:
    cut(lvm, change, 9, figures)


@pytest.mark.torture
@pytest.mark.parametrize("change", CUTS)
def test_cut_for_long(change: str, lvm: Lvm, figures: Any) -> None:
    cut(lvm, change, 400, figures)
