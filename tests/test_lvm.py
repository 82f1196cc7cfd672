"""LVM2 metadata and logical volumes as nodes, judged by lvm2 itself on loop devices, without device-mapper.

What lvm2 says of each layout (vgs, pvs, lvs) must be what we say. The bytes are judged without it: the physical
volumes are filled with a pattern that tells every 8 bytes their device and place, and where each byte of a logical
volume lies is computed here from lvs' own report of segments and devices.
"""

from __future__ import annotations

import contextlib
import json
import os
import struct
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy
import pytest

import judges
import loops
from cowshed.block.protocol.file import FileNode
from cowshed.errors import CorruptError, CowshedError, FeatureError, HostError, UnsupportedError
from cowshed.guest.session import Session
from cowshed.layout.lvm import Found, LogicalVolume, VolumeGroup, scan
from cowshed.layout.lvm.label import crc, read_label
from cowshed.layout.lvm.mapping import mapping
from cowshed.layout.lvm.model import PhysicalVolume, read_groups
from cowshed.layout.lvm.node import LogicalNode
from cowshed.layout.lvm.text import Section, parse

MIB = 1 << 20
DEVICES = 4
SIZE = 24 * MIB

CONF = """
global {{ activation=0 use_lvmpolld=0 locking_dir="{dir}" etc="{dir}" }}
activation {{ udev_sync=0 udev_rules=0 monitoring=0 }}
devices {{ global_filter=[{filter}"r|.*|"] use_devicesfile=0 obtain_device_list_from_udev=0
 external_device_info_source="none" scan=["/dev"] }}
backup {{ backup=0 archive=0 }}
"""


def pattern(device: int, size: int = SIZE) -> bytes:
    """Every 8 bytes say which device they are on and where."""
    return (numpy.arange(size // 8, dtype="<u8") | (device + 1) << 48).tobytes()


class Lvm:
    """lvm2 with a system directory of its own, which sees nothing but its loop devices."""

    def __init__(self, folder: Path, devices: list[str], files: list[Path]) -> None:
        self.folder = folder
        self.devices = devices
        self.files = files
        self.env = {"LVM_SYSTEM_DIR": str(folder / "lvm"), "LVM_SUPPRESS_FD_WARNINGS": "1", "LC_ALL": "C"}
        accepted = "".join(f'"a|^{device}$|",' for device in devices)
        (folder / "lvm").mkdir()
        (folder / "lvm" / "lvm.conf").write_text(CONF.format(dir=folder / "lvm", filter=accepted))

    def __call__(self, *argv: object, ok: tuple[int, ...] = (0,)) -> subprocess.CompletedProcess[str]:
        return judges.run("lvm", *(str(word) for word in argv), ok=ok, env=self.env)

    def lvcreate(self, *argv: object) -> None:
        self("lvcreate", "-an", "-y", "-Zn", "-Wn", *argv)

    def report(self, verb: str, columns: str, *argv: str) -> list[dict[str, str]]:
        out = self(verb, "--reportformat", "json", "--units", "b", "--nosuffix", "-o", columns, *argv).stdout
        return [row for part in json.loads(out)["report"] for rows in part.values() for row in rows]

    def edit(self, group: str, volumes: str) -> None:
        """Give the group more logical volumes: text is added to its metadata, which lvm2 takes back."""
        path = self.folder / "backup"
        self("vgcfgbackup", "-f", path, group)
        text = path.read_text()
        if "logical_volumes {" not in text:
            end = text.index("\n}\n")
            text = text[:end] + "\n\tlogical_volumes {\n\t}\n" + text[end:]
        at = text.rindex("\t}\n", 0, text.index("\n}\n") + 1)
        path.write_text(text[:at] + volumes + text[at:])
        self("vgcfgrestore", "-f", path, group)

    @contextlib.contextmanager
    def open(self, *, writable: bool = False, without: tuple[int, ...] = ()) -> Iterator[Found]:
        nodes = {
            device: FileNode(str(path), writable=writable)
            for number, (device, path) in enumerate(zip(self.devices, self.files, strict=True))
            if number not in without
        }
        try:
            yield scan(nodes)
        finally:
            for node in nodes.values():
                node.close()


@pytest.fixture
def lvm(tmp_path: Path) -> Iterator[Lvm]:
    judges.need("lvm")
    with contextlib.ExitStack() as stack:
        files = [tmp_path / f"pv{number}" for number in range(DEVICES)]
        devices = [str(stack.enter_context(loops.loop_device(path, SIZE))) for path in files]
        for number, path in enumerate(files):
            with open(path, "r+b") as file:
                file.write(pattern(number))
                file.seek(0)
                file.write(bytes(4096))
        yield Lvm(tmp_path, devices, files)


# -- layouts --------------------------------------------------------------------------------------------------------

_IDS = iter(range(1, 1 << 30))


def volume(name: str, segment: str, *, visible: bool = False, count: int = 1) -> str:
    words = '"READ", "WRITE"' + (', "VISIBLE"' if visible else "")
    return f"""
        {name} {{ id = "cowshd-test-0000-0000-0000-0000-{next(_IDS):06d}"
            status = [{words}]
            flags = []
            segment_count = {count}
            {segment} }}
    """


def linear(name: str, pv: int, start: int, count: int, *, visible: bool = False) -> str:
    return volume(
        name,
        f'segment1 {{ start_extent = 0 extent_count = {count} type = "striped" stripe_count = 1 '
        f'stripes = [ "pv{pv}", {start} ] }}',
        visible=visible,
    )


def mirror(name: str, count: int, *, log: str = "") -> str:
    log_text = f'mirror_log = "{name}_mlog"' if log else ""
    return (
        volume(
            name,
            f'segment1 {{ start_extent = 0 extent_count = {count} type = "mirror" mirror_count = 2 {log_text} '
            f'region_size = 1024 mirrors = [ "{name}_mimage_0", 0, "{name}_mimage_1", 0 ] }}',
            visible=True,
        )
        + linear(f"{name}_mimage_0", 1, 0, count)
        + linear(f"{name}_mimage_1", 2, 3, count)
        + log
    )


def raid(name: str, kind: str, pvs: tuple[int, ...], count: int, each: int, extra: str = "") -> str:
    names = ", ".join(f'"{name}_rmeta_{leg}", "{name}_rimage_{leg}"' for leg in range(len(pvs)))
    text = volume(
        name,
        f'segment1 {{ start_extent = 0 extent_count = {count} type = "{kind}" device_count = {len(pvs)} {extra} '
        + ("" if kind == "raid0_meta" else "region_size = 1024 ")
        + f"raids = [ {names} ] }}",
        visible=True,
    )
    for leg, pv in enumerate(pvs):
        text += linear(f"{name}_rmeta_{leg}", pv, 2, 1) + linear(f"{name}_rimage_{leg}", pv, 4, each)
    return text


def snapshot(name: str, origin: str, number: int, pv: int, start: int, count: int, size: int) -> str:
    tie = (
        f'segment1 {{ start_extent = 0 extent_count = {size} type = "snapshot" chunk_size = 8 origin = "{origin}" '
        f'cow_store = "{name}" }}'
    )
    return volume(f"snapshot{number}", tie, visible=True) + linear(name, pv, start, count, visible=True)


def one(lvm: Lvm, *argv: object) -> None:
    lvm("vgcreate", "-s", "512k", *argv, "vg", *lvm.devices)


def _empty(lvm: Lvm) -> None:
    one(lvm)


def _linear(lvm: Lvm) -> None:
    one(lvm)
    lvm.lvcreate("-n", "a", "-L", "3M", "vg")
    lvm.lvcreate("-n", "b-with.odd+name", "-l", "1", "vg")


def _across(lvm: Lvm) -> None:
    one(lvm)
    lvm.lvcreate("-n", "a", "-L", "60M", "vg")


def _striped(stripes: int, size: str) -> Callable[[Lvm], None]:
    def build(lvm: Lvm) -> None:
        one(lvm)
        lvm.lvcreate("-n", "a", "-L", "512k", "vg")
        lvm.lvcreate("-n", "s", "-i", stripes, "-I", size, "-L", "6M", "vg")

    return build


def _raid0(lvm: Lvm) -> None:
    one(lvm)
    lvm.lvcreate("-n", "r", "--type", "raid0", "-i", "3", "-I", "16k", "-L", "6M", "vg")


def _raid0_meta(lvm: Lvm) -> None:
    one(lvm)
    lvm.edit("vg", raid("r", "raid0_meta", (2, 0, 3), 9, 3, "stripe_size = 32"))


def _zero(lvm: Lvm) -> None:
    one(lvm)
    lvm.lvcreate("-n", "a", "-L", "2M", "vg")
    lvm("lvcreate", "-an", "-y", "-n", "z", "--type", "zero", "-L", "2M", "vg")


def _extended(lvm: Lvm) -> None:
    _linear(lvm)
    lvm("lvextend", "-L", "+5M", "vg/a")
    lvm.lvcreate("-n", "c", "-L", "2M", "vg", lvm.devices[0])
    lvm("lvextend", "-l", "+3", "vg/a", lvm.devices[0])
    lvm("lvextend", "-l", "+3", "vg/a", lvm.devices[3])


def _striped_extended(lvm: Lvm) -> None:
    one(lvm)
    lvm.lvcreate("-n", "s", "-i", "2", "-I", "32k", "-L", "4M", "vg")
    lvm.lvcreate("-n", "x", "-l", "3", "vg")
    lvm("lvextend", "-l", "+6", "-i", "3", "-I", "8k", "vg/s")
    lvm("lvextend", "-l", "+2", "-i", "1", "vg/s", lvm.devices[3])


def _reduced(lvm: Lvm) -> None:
    _striped_extended(lvm)
    lvm("lvreduce", "-f", "-l", "-4", "vg/s")


def _holes(lvm: Lvm) -> None:
    one(lvm)
    for name in "abcdef":
        lvm.lvcreate("-n", name, "-L", "2M", "vg", lvm.devices[0])
    for name in "ace":
        lvm("lvremove", "-y", f"vg/{name}")
    lvm.lvcreate("-n", "filler", "-L", "5M", "vg", lvm.devices[0])


def _renamed(lvm: Lvm) -> None:
    _linear(lvm)
    lvm("lvrename", "vg", "a", "other")
    lvm("vgrename", "vg", "1st.group")


def _grown(lvm: Lvm) -> None:
    lvm("vgcreate", "-s", "1M", "vg", lvm.devices[0])
    lvm.lvcreate("-n", "a", "-l", "100%FREE", "vg")
    lvm("vgextend", "vg", *lvm.devices[1:3])
    lvm("lvextend", "-L", "+7M", "vg/a")


def _shrunk(lvm: Lvm) -> None:
    _linear(lvm)
    lvm("vgreduce", "vg", lvm.devices[3])
    lvm("vgreduce", "vg", lvm.devices[2])


def _two(lvm: Lvm) -> None:
    lvm("vgcreate", "-s", "512k", "one", *lvm.devices[:2])
    lvm("vgcreate", "-s", "3M", "two", *lvm.devices[2:])
    lvm.lvcreate("-n", "a", "-L", "3M", "one")
    lvm.lvcreate("-n", "a", "-L", "30M", "two")


def _split(lvm: Lvm) -> None:
    one(lvm)
    lvm.lvcreate("-n", "a", "-L", "3M", "vg", lvm.devices[0])
    lvm.lvcreate("-n", "b", "-L", "4M", "vg", lvm.devices[1])
    lvm("vgsplit", "vg", "new", lvm.devices[1])


def _merged(lvm: Lvm) -> None:
    _split(lvm)
    lvm("vgmerge", "vg", "new")


def _tagged(lvm: Lvm) -> None:
    one(lvm, "--addtag", "t1", "--addtag", "t2/x=y")
    lvm.lvcreate("-n", "a", "-L", "3M", "--addtag", "quick", "-pr", "vg")
    lvm("pvchange", "-x", "n", lvm.devices[2])


def _two_areas(lvm: Lvm) -> None:
    lvm("pvcreate", "--metadatacopies", "2", "--metadatasize", "256k", *lvm.devices[:2])
    lvm("pvcreate", "--metadatacopies", "0", *lvm.devices[2:])
    one(lvm)
    lvm.lvcreate("-n", "s", "-i", "4", "-I", "4k", "-L", "6M", "vg")


def _aligned(lvm: Lvm) -> None:
    lvm("pvcreate", "--labelsector", "3", "--dataalignment", "1536k", "--dataalignmentoffset", "7k", lvm.devices[0])
    lvm("pvcreate", "--bootloaderareasize", "1m", lvm.devices[1])
    lvm("vgcreate", "-s", "384k", "vg", *lvm.devices[:2])
    lvm.lvcreate("-n", "a", "-l", "40", "vg")
    lvm.lvcreate("-n", "s", "-i", "2", "-I", "4k", "-l", "16", "vg")


def _wrapped(lvm: Lvm) -> None:
    """A ring so small that its text goes round several times."""
    lvm("pvcreate", "--metadatasize", "32k", *lvm.devices[:1])
    lvm("vgcreate", "-s", "512k", "vg", lvm.devices[0])
    for number in range(14):
        lvm.lvcreate("-n", f"volume_with_a_rather_long_name_{number}", "-l", "1", "vg")
    for number in range(0, 14, 3):
        lvm("lvremove", "-y", f"vg/volume_with_a_rather_long_name_{number}")


def _mirror(log: bool) -> Callable[[Lvm], None]:
    def build(lvm: Lvm) -> None:
        one(lvm)
        lvm.edit("vg", mirror("m", 9, log=linear("m_mlog", 3, 0, 1) if log else ""))

    return build


def _raid1(lvm: Lvm) -> None:
    one(lvm)
    lvm.edit("vg", raid("r", "raid1", (3, 1, 2), 7, 7))


def _raid10(lvm: Lvm) -> None:
    one(lvm)
    lvm.edit("vg", raid("r", "raid10", (0, 1, 2, 3), 10, 5, "stripe_size = 32"))


def _raid5(lvm: Lvm) -> None:
    one(lvm)
    lvm.edit("vg", raid("r", "raid5_ls", (0, 1, 2), 10, 5, "stripe_size = 128"))


def _snapshots(lvm: Lvm) -> None:
    one(lvm)
    lvm.lvcreate("-n", "base", "-L", "4M", "vg")
    lvm.edit("vg", snapshot("s1", "base", 0, 2, 5, 3, 8) + snapshot("s2", "base", 1, 3, 1, 4, 8))


LAYOUTS: dict[str, Callable[[Lvm], None]] = {
    "empty": _empty,
    "linear": _linear,
    "across": _across,
    "striped 2": _striped(2, "8k"),
    "striped 3": _striped(3, "64k"),
    "striped 4": _striped(4, "4k"),
    "raid0": _raid0,
    "raid0_meta": _raid0_meta,
    "zero": _zero,
    "extended": _extended,
    "striped extended": _striped_extended,
    "reduced": _reduced,
    "holes": _holes,
    "renamed": _renamed,
    "grown": _grown,
    "shrunk": _shrunk,
    "two groups": _two,
    "split": _split,
    "merged": _merged,
    "tagged": _tagged,
    "two areas": _two_areas,
    "aligned": _aligned,
    "wrapped": _wrapped,
    "mirror": _mirror(True),
    "mirror core": _mirror(False),
    "raid1": _raid1,
    "raid10": _raid10,
    "raid5": _raid5,
    "snapshots": _snapshots,
}


# -- what lvm2 says -------------------------------------------------------------------------------------------------


def areas(text: str) -> list[tuple[str, int]]:
    """lvs' devices: "/dev/loop2(0),/dev/loop3(7)"."""
    found = []
    for item in text.split(","):
        name, _, start = item.rstrip(")").rpartition("(")
        if name:
            found.append((name, int(start)))
    return found


class Judged:
    """lvm2's report of everything."""

    def __init__(self, lvm: Lvm) -> None:
        self.groups = lvm.report("vgs", "vg_name,vg_uuid,vg_extent_size,vg_size,vg_free,vg_seqno,pv_count,vg_tags")
        self.pvs = lvm.report(
            "pvs", "pv_name,pv_uuid,vg_name,pe_start,pv_pe_count,pv_pe_alloc_count,pv_size,pv_allocatable"
        )
        self.lvs = lvm.report("lvs", "vg_name,lv_name,lv_uuid,lv_size,origin,lv_tags", "-a")
        self.segments = lvm.report(
            "lvs", "vg_name,lv_name,segtype,seg_start,seg_size,stripes,stripe_size,devices", "-a", "--segments"
        )
        self.index = {device: number for number, device in enumerate(lvm.devices)}

    def group(self, name: str) -> dict[str, str]:
        return next(row for row in self.groups if row["vg_name"] == name)

    def content(self, group: str, name: str) -> bytes:
        """What the volume holds, from the patterns."""
        size = next(
            int(row["lv_size"]) for row in self.lvs if row["vg_name"] == group and row["lv_name"].strip("[]") == name
        )
        return b"".join(self.piece(group, name, at, 4096) for at in range(0, size, 4096))

    def piece(self, group: str, name: str, offset: int, length: int) -> bytes:
        """Bytes that do not cross a stripe."""
        row = next(
            row
            for row in self.segments
            if row["vg_name"] == group
            and row["lv_name"].strip("[]") == name
            and int(row["seg_start"]) <= offset < int(row["seg_start"]) + int(row["seg_size"])
        )
        inside = offset - int(row["seg_start"])
        devices = areas(row["devices"])
        kind = row["segtype"]
        if kind == "zero":
            return bytes(length)
        if kind in ("mirror", "raid1"):
            device, start = devices[0]
        elif kind in ("striped", "raid0", "raid0_meta", "raid10"):
            step = int(row["stripe_size"])
            columns = devices[::2] if kind == "raid10" else devices
            chunk = inside // step
            device, start = columns[chunk % len(columns)]
            inside = chunk // len(columns) * step + inside % step
        else:
            assert kind == "linear", kind
            device, start = devices[0]
        inside += start * int(self.group(group)["vg_extent_size"])
        if not device.startswith("/dev/"):
            return self.piece(group, device, inside, length)
        base = next(int(row["pe_start"]) for row in self.pvs if row["pv_name"] == device)
        where = base + inside
        return PATTERNS[self.index[device]][where : where + length]


PATTERNS = [pattern(number) for number in range(DEVICES)]


def plain(found: Found, judged: Judged) -> None:
    """Every figure that lvm2 and we both have."""
    assert sorted(group.name for group in found.groups) == sorted(row["vg_name"] for row in judged.groups)
    for row in judged.groups:
        group = found.group(row["vg_name"])
        assert group is not None
        assert (group.uuid, group.extent_size, group.size, group.free, group.seqno, len(group.physical)) == (
            row["vg_uuid"], int(row["vg_extent_size"]), int(row["vg_size"]), int(row["vg_free"]),
            int(row["vg_seqno"]), int(row["pv_count"]),
        )  # fmt: skip
        assert sorted(group.tags) == sorted(filter(None, row["vg_tags"].split(",")))
        assert group.warnings == []
    for row in judged.pvs:
        if not row["vg_name"]:
            assert row["pv_name"] in found.orphans
            continue
        group = found.group(row["vg_name"])
        assert group is not None
        pv = next(pv for pv in group.physical.values() if pv.path == row["pv_name"])
        used = sum(count for _, count, _ in group.used()[pv.name])
        assert (pv.uuid, pv.pe_start, pv.extents, used, pv.allocatable) == (
            row["pv_uuid"], int(row["pe_start"]), int(row["pv_pe_count"]), int(row["pv_pe_alloc_count"]),
            row["pv_allocatable"] == "allocatable",
        )  # fmt: skip
    seen = {
        (group.name, lv.name): (lv.uuid, lv.size, lv.origin or "", sorted(lv.tags), not lv.visible)
        for group in found.groups
        for lv in group.volumes.values()
    }
    assert seen == {
        (row["vg_name"], row["lv_name"].strip("[]")): (
            row["lv_uuid"], int(row["lv_size"]), row["origin"], sorted(filter(None, row["lv_tags"].split(","))),
            row["lv_name"].startswith("["),
        )
        for row in judged.lvs
    }  # fmt: skip
    ours = []
    for group in found.groups:
        for lv in group.volumes.values():
            for segment in lv.segments:
                devices = [
                    (area.volume.path if isinstance(area.volume, PhysicalVolume) else area.volume.name, area.start)
                    for area in segment.areas
                ]
                kind = "linear" if segment.type == "striped" and len(devices) == 1 else segment.type
                unit = group.extent_size
                ours.append(
                    (
                        group.name,
                        lv.name,
                        kind,
                        segment.start * unit,
                        segment.count * unit,
                        segment.stripe_size,
                        devices,
                    )
                )
    assert sorted(ours, key=str) == sorted(
        (
            (
                row["vg_name"], row["lv_name"].strip("[]"), row["segtype"], int(row["seg_start"]), int(row["seg_size"]),
                int(row["stripe_size"]), areas(row["devices"]),
            )
            for row in judged.segments
        ),
        key=str,
    )  # fmt: skip


@pytest.mark.parametrize("layout", LAYOUTS)
def test_layout(layout: str, lvm: Lvm, figures: Any) -> None:
    """Figures, segments and bytes are what lvm2's report says; lvm2 finds nothing wrong with its metadata."""
    LAYOUTS[layout](lvm)
    judged = Judged(lvm)
    for row in judged.groups:
        lvm("vgck", row["vg_name"])
    compared = 0
    with lvm.open() as found:
        assert found.warnings == []
        plain(found, judged)
        for group in found.groups:
            for lv in group.volumes.values():
                if lv.snapshot is not None:
                    continue
                with LogicalNode(lv) as node:
                    if lv.type.startswith("raid5"):
                        with pytest.raises(FeatureError, match="raid5_ls"):
                            node.read(0, 512)
                        continue
                    content = node.read(0, node.size)
                    assert content == judged.content(group.name, lv.name)
                    # odd ranges, and the public walk over extents
                    assert node.read(513, 5000) == content[513:5513]
                    assert (
                        b"".join(
                            bytes(extent.length)
                            if extent.node is None
                            else extent.node.read(extent.host_offset, extent.length)
                            for extent in node.extents()
                        )
                        == content
                    )
                    compared += len(content)
    figures.add("lvm: layouts judged")
    figures.add("lvm: bytes compared", compared)


@pytest.mark.parametrize("layout", ["linear", "striped 3", "striped extended", "raid0", "aligned"])
def test_write(layout: str, lvm: Lvm) -> None:
    """What is written lands where lvm2 says, and nowhere else."""
    LAYOUTS[layout](lvm)
    judged = Judged(lvm)
    before = [path.read_bytes() for path in lvm.files]
    with lvm.open(writable=True) as found:
        lv = [lv for lv in found.groups[0].volumes.values() if lv.visible and lv.size >= MIB][-1]
        with LogicalNode(lv, writable=True) as node:
            content = bytearray(node.read(0, node.size))
            for offset, length in ((0, 100), (4095, 70000), (node.size - 3, 3), (513 << 10, 300 << 10)):
                length = min(length, node.size - offset)
                data = os.urandom(length)
                node.write(offset, data)
                content[offset : offset + length] = data
            node.write_zeroes(12345, 98765)
            content[12345 : 12345 + 98765] = bytes(98765)
            node.flush()
            assert node.read(0, node.size) == content
    # each piece is where the judge says; all else is as it was
    after = [bytearray(path.read_bytes()) for path in lvm.files]
    for at in range(0, len(content), 4096):
        old = judged.piece("vg", lv.name, at, 4096)
        number = old[6] - 1
        where = (struct.unpack("<Q", old[:8])[0] & (1 << 48) - 1) * 8
        assert after[number][where : where + 4096] == content[at : at + 4096]
        after[number][where : where + 4096] = before[number][where : where + 4096]
    assert after == [bytearray(data) for data in before]
    lvm("vgck", "vg")


def test_missing_device(lvm: Lvm) -> None:
    """A group that lacks a device is still read; only volumes on it say so; mirrors take their other leg."""
    one(lvm)
    lvm.lvcreate("-n", "first", "-L", "2M", "vg", lvm.devices[0])
    lvm.lvcreate("-n", "gone", "-L", "2M", "vg", lvm.devices[1])
    lvm.edit("vg", raid("r", "raid1", (1, 2), 7, 7).replace('"pv1", 2', '"pv1", 20').replace('"pv1", 4', '"pv1", 30'))
    judged = Judged(lvm)
    with lvm.open(without=(1,)) as found:
        group = found.group("vg")
        assert group is not None
        assert [pv.device for pv in group.missing] == [lvm.devices[1]]
        assert len(group.warnings) == 1
        assert LogicalNode(group.volumes["first"]).read(0, 2 * MIB) == judged.content("vg", "first")
        assert LogicalNode(group.volumes["r"]).read(0, MIB) == judged.content("vg", "r_rimage_1")[:MIB]
        with pytest.raises(HostError, match="is missing"):
            LogicalNode(group.volumes["gone"]).read(0, 1)
    with Session(readonly=True) as session:
        session.add(lvm.devices[0], fmt="raw")
        session.run()
        listed = session.devices.list_filesystems()
    assert listed[:2] == [("/dev/vg/first", "unknown"), ("/dev/vg/gone", "unknown")]


@pytest.mark.parametrize(
    "supers, leg",
    [
        (((9, 0, -1), (9, 0, -1), (9, 0, -1)), 0),
        (((5, 0, -1), (9, 1, -1), (9, 1, -1)), 1),  # leg 0 fell behind
        (((9, 3, -1), (9, 3, -1), (9, 3, -1)), 2),  # two have failed
        (((9, 0, 4096), (9, 0, -1), (9, 0, -1)), 1),  # leg 0 is being rebuilt
        (((9, 7, -1), (9, 7, -1), (9, 7, -1)), None),
    ],
)
def test_raid1_reads_a_leg_that_is_whole(supers: Any, leg: int | None, lvm: Lvm) -> None:
    """dm-raid's superblocks say which legs may be read."""
    _raid1(lvm)
    judged = Judged(lvm)
    with lvm.open(writable=True) as found:
        group = found.groups[0]
        lv = group.volumes["r"]
        for number, (events, failed, recovered) in enumerate(supers):
            with LogicalNode(group.volumes[f"r_rmeta_{number}"], writable=True) as node:
                node.write(0, struct.pack("<IIIIQQq", 0x64526D44, 0, 3, number, events, failed, recovered))
        if leg is None:
            with pytest.raises(HostError, match="out of date"):
                LogicalNode(lv).read(0, 1)
        else:
            assert LogicalNode(lv).read(0, lv.size) == judged.content("vg", f"r_rimage_{leg}")


def cow_store(exceptions: list[tuple[int, int]], chunk: int, chunks: dict[int, bytes], *, valid: int = 1) -> bytes:
    """An exception store as dm-snap-persistent describes it."""
    store = bytearray(chunk * (1 + max([0, *chunks])))
    store[:16] = struct.pack("<IIII", 0x70416E53, valid, 1, chunk // 512)
    per_area = chunk // 16
    for number, (old, new) in enumerate(exceptions):
        area, index = divmod(number, per_area)
        at = (1 + area * (per_area + 1)) * chunk + index * 16
        store[at : at + 16] = struct.pack("<QQ", old, new)
    for new, data in chunks.items():
        store[new * chunk : (new + 1) * chunk] = data
    return bytes(store)


def test_snapshot_contents(lvm: Lvm) -> None:
    """A snapshot shows its store's chunks where it has any, the origin's elsewhere; over two areas of the table."""
    _snapshots(lvm)
    chunk = 4096
    per_area = chunk // 16
    base_chunks = 4 * MIB // chunk
    # more exceptions than one area holds; new chunks skip the second area's own place
    slots = [number for number in range(2, 2 + per_area + 40) if number != 1 + per_area + 1][: per_area + 20]
    olds = [(number * 7 + 3) % base_chunks for number in range(len(slots))]
    assert len(set(olds)) == len(olds)
    chunks = {new: bytes([number % 251 + 1]) * chunk for number, new in enumerate(slots)}
    with lvm.open(writable=True) as found:
        group = found.groups[0]
        with pytest.raises(UnsupportedError, match="snapshot"):
            LogicalNode(group.volumes["base"], writable=True)
        origin = LogicalNode(group.volumes["base"]).read(0, 4 * MIB)
        store = group.volumes["s1"]
        written = cow_store(list(zip(olds, slots, strict=True)), chunk, chunks)
        for at, count, pv, where in mapping(store, 0, len(written)):
            assert pv is not None and pv.node is not None
            pv.node.write(where, written[at : at + count])
        expected = bytearray(origin)
        for old, new in zip(olds, slots, strict=True):
            expected[old * chunk : (old + 1) * chunk] = chunks[new]
        with LogicalNode(store) as node:
            assert node.size == 4 * MIB
            assert node.read(0, node.size) == expected
            assert node.read(5000, 100001) == expected[5000:105001]
        # an invalid store, and one that is damaged
        for bad, text in (
            (cow_store([], chunk, {}, valid=0), "not valid any more"),
            (cow_store([(1, 1 << 40)], chunk, {2: bytes(chunk)}), "outside the store"),
            (cow_store([(1, 2), (1, 3)], chunk, {3: bytes(chunk)}), "two exceptions"),
        ):
            for at, count, pv, where in mapping(store, 0, len(bad)):
                assert pv is not None and pv.node is not None
                pv.node.write(where, bad[at : at + count])
            with pytest.raises(CorruptError, match=text):
                LogicalNode(store)


# -- damaged and hostile metadata -------------------------------------------------------------------------------------


def _area_of(path: Path) -> tuple[int, int]:
    with FileNode(str(path)) as node:
        label = read_label(node)
        assert label is not None
        return label.metadata[0].offset, label.metadata[0].size


def test_newest_valid_copy_wins(lvm: Lvm) -> None:
    """Copies that are old or damaged are passed over while another is whole."""
    one(lvm)
    lvm.lvcreate("-n", "a", "-L", "2M", "vg")
    old = lvm.files[0].read_bytes()[:MIB]
    lvm.lvcreate("-n", "b", "-L", "2M", "vg")
    with open(lvm.files[0], "r+b") as file:
        file.write(old)
    with open(lvm.files[1], "r+b") as file:  # a flipped byte in the text
        offset, _ = _area_of(lvm.files[1])
        file.seek(offset + 512 + 30)
        data = file.read(4000)
        file.seek(offset + 512 + 30)
        file.write(bytes(byte ^ 1 for byte in data))
    with lvm.open() as found:
        assert found.groups[0].seqno == 3
        assert sorted(found.groups[0].volumes) == ["a", "b"]
        assert any("checksum" in warning for warning in found.warnings)


def test_all_copies_damaged(lvm: Lvm) -> None:
    lvm("vgcreate", "vg", lvm.devices[0])
    offset, _ = _area_of(lvm.files[0])
    with open(lvm.files[0], "r+b") as file:
        file.seek(offset + 100)
        file.write(b"\xff")
    with pytest.raises(CorruptError, match="checksum is wrong"), lvm.open():
        pass


GROUP = """
vg {{ id = "x" seqno = 1 status = ["READ"] extent_size = 8
 physical_volumes {{ pv0 {{ id = "u0" device = "/dev/a" dev_size = 1000 pe_start = 2048 pe_count = 100 }}
   pv1 {{ id = "u1" pe_start = 2048 pe_count = 10 }} }}
 logical_volumes {{ {volumes} }} }}
"""


def lv_text(name: str, segments: str, count: int = 1) -> str:
    return f'{name} {{ id = "{name}" status = ["VISIBLE"] segment_count = {count} {segments} }}\n'


def segment_text(rest: str, start: int = 0, count: int = 5, number: int = 1) -> str:
    return f"segment{number} {{ start_extent = {start} extent_count = {count} {rest} }}\n"


STRIPE = 'type = "striped" stripe_count = 1 stripes = [ "pv0", %s ]'


@pytest.mark.parametrize(
    "volumes, match",
    [
        (lv_text("a", segment_text(STRIPE % 98)), "leaves 'pv0'"),
        (lv_text("a", segment_text(STRIPE % 0)) + lv_text("b", segment_text(STRIPE % 4)), "share extent 4"),
        (lv_text("a", segment_text(STRIPE % 0, start=1)), "do not join"),
        (lv_text("a", segment_text(STRIPE % 0), 2), "has 1 segments"),
        (lv_text("a", segment_text(STRIPE % -1)), "does not hold a name"),
        (lv_text("a", segment_text(STRIPE % 0, count=1 << 40)), "not between"),
        (lv_text("a", segment_text('type = "striped" stripe_count = 1 stripes = [ "nope", 0 ]')), "no volume 'nope'"),
        (lv_text("a", segment_text('type = "striped" stripe_count = 1 stripes = [ "a", 0 ]')), "stands on itself"),
        (
            lv_text("a", segment_text('type = "striped" stripe_count = 1 stripes = [ "b", 0 ]'))
            + lv_text("b", segment_text('type = "striped" stripe_count = 1 stripes = [ "a", 0 ]')),
            "stands on itself",
        ),
        (
            "".join(
                lv_text(f"v{n}", segment_text(f'type = "striped" stripe_count = 1 stripes = [ "v{n + 1}", 0 ]'))
                for n in range(40)
            )
            + lv_text("v40", segment_text(STRIPE % 0)),
            "too many others",
        ),
        (
            lv_text("a", segment_text(STRIPE % 0))
            + lv_text("t", segment_text('type = "snapshot" chunk_size = 8 origin = "a" cow_store = "a"')),
            "no plain volume",
        ),
        (
            lv_text(
                "a", segment_text('type = "striped" stripe_count = 2 stripe_size = 8 stripes = [ "pv0", 0, "pv1", 0 ]')
            ),
            "can't be shared",
        ),
        (
            lv_text(
                "a", segment_text('type = "striped" stripe_count = 2 stripe_size = 0 stripes = [ "pv0", 0, "pv1", 0 ]')
            ),
            "stripe_size",
        ),
        (lv_text("a", segment_text('type = "raid1" device_count = 2 raids = [ "a" ]')), "pairs"),
        (lv_text("a", segment_text("type = 7")), "'type'"),
        ('a { id = "a" status = 3 segment_count = 0 }', "list of strings"),
        (lv_text("../sda", segment_text(STRIPE % 0)), r"can't be called '\.\./sda'"),
        (lv_text("..", segment_text(STRIPE % 0)), "can't be called"),
    ],
)
def test_hostile_groups(volumes: str, match: str) -> None:
    """Metadata that contradict themselves give one clear error."""
    with pytest.raises(CorruptError, match=match):
        read_groups(parse(GROUP.format(volumes=volumes)))


def test_unknown_types_are_listed_and_refused() -> None:
    group = read_groups(
        parse(
            GROUP.format(
                volumes=lv_text("p_d", segment_text(STRIPE % 0))
                + lv_text("p_m", segment_text(STRIPE % 10))
                + lv_text(
                    "p",
                    segment_text(
                        'type = "thin-pool" metadata = "p_m" pool = "p_d" chunk_size = 128 transaction_id = 1'
                    ),
                )
                + lv_text(
                    "t", segment_text('type = "thin" thin_pool = "p" device_id = 1 transaction_id = 0', count=900)
                )
                + lv_text("c", segment_text('type = "cache" cache_pool = "p" origin = "p_d"'))
            )
        )
    )[0]
    assert [lv.type for lv in group.volumes.values()] == [
        "striped" if 0 else "linear",
        "linear",
        "thin-pool",
        "thin",
        "cache",
    ]
    assert group.volumes["t"].size == 900 * 4096
    for name in ("p", "t", "c"):
        with pytest.raises(FeatureError, match="can't be read here"):
            LogicalNode(group.volumes[name]).read(0, 1)


@pytest.mark.parametrize(
    "text",
    [
        "a {", "a }", "}", "a = ", "a = [", "a = [1", "a = [1 2]", "a = [[1]]", "a { b = 1 b = 2 }", 'a = "x', "= 3",
        "[", "a", "a b", "a { " * 20 + "}" * 20, "a = {", '"', "#" * 100000 + "\na",
    ],
)  # fmt: skip
def test_bad_text(text: str) -> None:
    with pytest.raises(CorruptError):
        parse(text)


def test_text() -> None:
    """The grammar: comments, escapes, lists, numbers, empty lists, names with odd characters."""
    root = parse(
        '# c\na = 1 b=-2 c = 1.5 # x\n d = "q\\"\\\\w # no" e = [] f = [\'x\', 3,\n"y"]\n 0-g.h+ { i = "" j { } }#end'
    )
    assert dict(root) == {
        "a": 1, "b": -2, "c": 1.5, "d": 'q"\\w # no', "e": [], "f": ["x", 3, "y"], "0-g.h+": {"i": "", "j": {}},
    }  # fmt: skip
    inner = root["0-g.h+"]
    assert isinstance(inner, Section) and inner.name == "0-g.h+"
    assert parse("") == {} and parse(" # only") == {}


def test_flipped_bytes(lvm: Lvm) -> None:
    """Whatever byte of the label or the metadata is wrong: an answer or one of our errors, never another exception."""
    _striped_extended(lvm)
    offset, _ = _area_of(lvm.files[0])
    size = 64 << 10
    original = lvm.files[0].read_bytes()[:size]
    path = lvm.folder / "mutant"
    seen = 0
    spots = [*range(512, 1024, 3), *range(offset, offset + 600, 7), *range(offset + 600, offset + 8000, 131)]
    for spot in spots:
        data = bytearray(original)
        data[spot] ^= 0x41
        # checksums made right again, so that what they guard is met
        data[512 + 16 : 512 + 20] = struct.pack("<I", crc(data[512 + 20 : 1024]))
        data[offset : offset + 4] = struct.pack("<I", crc(data[offset + 4 : offset + 512]))
        path.write_bytes(data)
        os.truncate(path, SIZE)
        with FileNode(str(path)) as node:
            try:
                found = scan({"x": node})
                for group in found.groups:
                    for lv in group.volumes.values():
                        LogicalNode(lv).read(0, 1)
            except CowshedError:
                pass
        seen += 1
    assert seen == len(spots)


def test_mutated_text() -> None:
    """A few hundred edits of a sound text: an answer or CorruptError."""
    import random

    sound = GROUP.format(
        volumes=lv_text("a", segment_text(STRIPE % 0) + segment_text(STRIPE % 7, 5, 3, 2), 2)
        + lv_text("m", segment_text('type = "raid1" device_count = 1 raids = [ "r", "d" ]', count=2))
        + lv_text("r", segment_text(STRIPE % 20, count=1))
        + lv_text("d", segment_text(STRIPE % 30, count=2))
        + lv_text("s", segment_text(STRIPE % 40))
        + lv_text("tie", segment_text('type = "snapshot" chunk_size = 8 origin = "a" cow_store = "s"', count=8))
    )
    assert len(read_groups(parse(sound))[0].volumes) == 5
    rng = random.Random(7)
    words = [
        "0",
        "-1",
        "99999999999",
        '"a"',
        "[",
        "]",
        "{",
        "}",
        "=",
        "m",
        "s",
        "raid1",
        "#",
        '"',
        "18446744073709551616",
    ]
    outcomes = {"sound": 0, "refused": 0}
    for _ in range(600):
        parts = sound.split(" ")
        for _ in range(rng.randint(1, 3)):
            parts[rng.randrange(len(parts))] = rng.choice(words)
        try:
            for group in read_groups(parse(" ".join(parts))):
                group.used()
                for lv in group.volumes.values():
                    walk(lv)
            outcomes["sound"] += 1
        except CorruptError:
            outcomes["refused"] += 1
    assert outcomes["refused"] > 300


def walk(lv: LogicalVolume) -> None:
    with contextlib.suppress(FeatureError, HostError):
        for _ in mapping(lv, 0, min(lv.size, MIB)):
            pass


def test_group_by_name(tmp_path: Path) -> None:
    found = Found()
    found.groups = [VolumeGroup("vg", "u1", 4096, 1), VolumeGroup("vg", "u2", 4096, 1)]
    assert found.group("u2") is found.groups[1]
    assert found.group("other") is None
    with pytest.raises(CorruptError, match="2 volume groups"):
        found.group("vg")


class Broken(FileNode):
    """A device whose first sectors can't be read."""

    def read_into(self, offset: int, view: memoryview) -> None:
        raise HostError("Input/output error", errno=5)


def test_unreadable_device(lvm: Lvm) -> None:
    """A device that can't be read does not hide the others, where nobody named it."""
    _linear(lvm)
    nodes = {str(path): (Broken if number == 3 else FileNode)(str(path)) for number, path in enumerate(lvm.files)}
    with pytest.raises(HostError):
        scan(nodes)
    found = scan(nodes, strict=False)
    assert found.groups[0].name == "vg" and len(found.groups[0].missing) == 1
    assert any("Input/output error" in warning for warning in found.warnings)
    for node in nodes.values():
        node.close()


def test_no_label(tmp_path: Path) -> None:
    for size in (0, 100, 512, 5000):
        path = tmp_path / f"f{size}"
        path.write_bytes(os.urandom(size))
        with FileNode(str(path)) as node:
            assert read_label(node) is None
            assert scan({"x": node}).groups == []
