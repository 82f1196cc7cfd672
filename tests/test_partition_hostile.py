"""Partition tables that are damaged, hostile, or cut off while they were written."""

from __future__ import annotations

import random
import struct
import zlib
from pathlib import Path

import pytest

import judges
from cowshed.block.filter.record import Log, RecordNode
from cowshed.block.graph import open_image
from cowshed.block.node import Node
from cowshed.errors import CorruptError, CowshedError, ForeignError, FormatError, UsageError
from cowshed.layout.partition import EXTENDED, LOGICAL, Table, create_table, read_table
from cowshed.layout.partition.gpt import GptTable
from cowshed.layout.partition.types import guid_bytes, guid_text
from crash_states import Disk, states
from test_partition_tables import disk, facts_of, sfdisk

MIB = 1 << 20


def gpt(node: Node, count: int = 3) -> Table:
    table = create_table("gpt", node)
    for number in range(count):
        table.add(table.place(3 * MIB), 3 * MIB, name=f"part {number}")
    table.write(node)
    return table


def dos(node: Node, count: int = 3) -> Table:
    table = create_table("dos", node)
    table.add(table.place(MIB), MIB)
    table.write(node)
    table.add(table.place(20 * MIB), 20 * MIB, kind=EXTENDED)
    table.write(node)
    for _ in range(count):
        table.add(table.place(2 * MIB, logical=True), 2 * MIB, kind=LOGICAL)
        table.write(node)
    return table


# -- one of the two copies ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("place", [512, 512 + 90, 1024 + 40])
def test_damaged_primary_is_mended(tmp_path: Path, place: int) -> None:
    judges.need("sgdisk")
    path = tmp_path / "disk"
    with disk(path, 40 * MIB) as node:
        before = facts_of(gpt(node))
        node.write(place, b"\xde\xad")
        table = read_table(node)
        assert facts_of(table) == before
        assert "primary" in table.problems[0]
        table.write(node)
        assert read_table(node).problems == []
    assert "No problems found" in judges.run("sgdisk", "-v", path).stdout


def test_damaged_backup_is_mended(tmp_path: Path) -> None:
    path = tmp_path / "disk"
    with disk(path, 40 * MIB) as node:
        before = facts_of(gpt(node))
        node.write(node.size - 512, bytes(512))
        table = read_table(node)
        assert facts_of(table) == before and "backup" in table.problems[0]
        table.write(node)
    assert "No problems found" in judges.run("sgdisk", "-v", path).stdout


def test_lost_protective_mbr_is_mended(tmp_path: Path) -> None:
    path = tmp_path / "disk"
    with disk(path, 40 * MIB) as node:
        before = facts_of(gpt(node))
        node.write(0, bytes(512))
        table = read_table(node)
        assert facts_of(table) == before and "MBR" in table.problems[0]
        table.write(node)
    assert "No problems found" in judges.run("sgdisk", "-v", path).stdout


def test_both_copies_damaged(tmp_path: Path) -> None:
    with disk(tmp_path / "disk", 40 * MIB) as node:
        gpt(node)
        for at in (512 + 60, node.size - 512 + 60):
            node.write(at, bytes([node.read(at, 1)[0] ^ 0xFF]))
        with pytest.raises(CorruptError) as caught:
            read_table(node)
        assert caught.value.field == "HeaderCRC32" and caught.value.offset == 512 + 16


def test_grown_disk(tmp_path: Path) -> None:
    """The backup follows the end of the disk, and the old one is gone."""
    path = tmp_path / "disk"
    with disk(path, 40 * MIB) as node:
        before = facts_of(gpt(node))
    with open(path, "r+b") as file:
        file.truncate(100 * MIB)
    with open_image(str(path), fmt="raw", writable=True) as node:
        table = read_table(node)
        assert facts_of(table) == before and "end of the disk" in table.problems[0]
        table.grow()
        table.write(node)
        assert node.read(40 * MIB - 512, 8) == bytes(8)
        number = table.add(table.place(60 * MIB), 60 * MIB).number
        table.write(node)
        assert number == 4
    assert "No problems found" in judges.run("sgdisk", "-v", path).stdout


@pytest.mark.parametrize(("entries", "sector"), [(4, 512), (128, 512), (256, 512), (1000, 512), (128, 4096)])
def test_sizes_of_the_array(tmp_path: Path, entries: int, sector: int) -> None:
    path = tmp_path / "disk"
    with disk(path, 60 * MIB) as node:
        table = create_table("gpt", node, entries=entries, sector_size=sector)
        for _ in range(min(entries, 5)):
            if len(table.partitions) < entries:
                table.add(table.place(MIB), MIB)
        if entries == 4:
            with pytest.raises(UsageError, match="no room for more than 4"):
                table.add(table.place(MIB), MIB)
        table.write(node)
        again = read_table(node)
        assert again.sector_size == sector and facts_of(again) == facts_of(table) and again.problems == []
    if sector == 512:
        assert "No problems found" in judges.run("sgdisk", "-v", path).stdout
        assert len(sfdisk(path)["partitions"]) == len(table.partitions)  # type: ignore[arg-type]


def test_any_format(tmp_path: Path) -> None:
    """A table inside of a qcow2 image."""
    judges.run("qemu-img", "create", "-q", "-f", "qcow2", tmp_path / "disk.qcow2", "100M")
    with open_image(str(tmp_path / "disk.qcow2"), writable=True) as node:
        before = facts_of(dos(node))
    judges.run("qemu-img", "convert", "-O", "raw", tmp_path / "disk.qcow2", tmp_path / "raw")
    listed = sfdisk(tmp_path / "raw")["partitions"]
    assert isinstance(listed, list) and len(listed) == len(before)


def test_guids() -> None:
    text = "C12A7328-F81F-11D2-BA4B-00A0C93EC93B"
    assert guid_text(guid_bytes(text.lower())) == text
    assert guid_bytes(text)[:4] == bytes.fromhex("28732ac1")
    for wrong in ("", "C12A7328", text + "0", "G" + text[1:]):
        with pytest.raises(UsageError):
            guid_bytes(wrong)


# -- hostile ----------------------------------------------------------------------------------------------------------


def entry(kind: int, start: int, length: int, flag: int = 0) -> bytes:
    return struct.pack("<B3sB3sII", flag, b"\0\2\0", kind, b"\xfe\xff\xff", start, length)


def link(*entries: bytes) -> bytes:
    return bytes(446) + b"".join(entries).ljust(64, b"\0") + b"\x55\xaa"


HOSTILE_DOS = {
    "loop": ([(0, link(entry(5, 100, 1000))), (100, link(entry(0x83, 1, 5), entry(5, 200, 9))),
              (300, link(entry(0x83, 1, 5), entry(5, 200, 9)))], "next EBR"),
    "to itself": ([(0, link(entry(5, 100, 1000))), (100, link(entry(0x83, 1, 5), entry(5, 0, 9)))], "next EBR"),
    "out of the extended": ([(0, link(entry(5, 100, 1000))), (100, link(entry(0x83, 1, 5), entry(5, 1000, 9)))],
                            "next EBR"),
    "logical outside": ([(0, link(entry(5, 100, 1000))), (100, link(entry(0x83, 1, 5000)))], "start LBA"),
    "logical overlap": ([(0, link(entry(5, 100, 1000))), (100, link(entry(0x83, 1, 50), entry(5, 60, 9))),
                         (160, link(entry(0x83, -40 & 0xFFFFFFFF, 5)))], "start LBA"),
    "no signature": ([(0, link(entry(5, 100, 1000))), (100, b"\x01" * 512)], "signature"),
    "two extended": ([(0, link(entry(5, 100, 1000), entry(15, 2000, 10)))], "type"),
    "overlap": ([(0, link(entry(0x83, 100, 1000), entry(0x83, 500, 10)))], "start"),
    "beyond": ([(0, link(entry(0x83, 100, 0xFFFFFFFF)))], "start LBA"),
    "over sector 0": ([(0, link(entry(0x83, 0, 10)))], "start LBA"),
    "two links": ([(0, link(entry(5, 100, 1000))), (100, link(entry(5, 10, 5), entry(5, 20, 5)))], "type"),
}  # fmt: skip


@pytest.mark.parametrize("name", HOSTILE_DOS)
def test_hostile_mbr(tmp_path: Path, name: str) -> None:
    sectors, field = HOSTILE_DOS[name]
    with disk(tmp_path / "disk", 4 * MIB) as node:
        for place, data in sectors:
            node.write(place * 512, data)
        with pytest.raises(CorruptError) as caught:
            read_table(node)
        assert caught.value.field == field
        assert caught.value.offset is not None


def test_endless_chain(tmp_path: Path) -> None:
    with disk(tmp_path / "disk", 64 * MIB) as node:
        node.write(0, link(entry(5, 100, 100000)))
        for number in range(1000):
            node.write((100 + 10 * number) * 512, link(entry(0x83, 1, 5), entry(5, 10 * number + 10, 9)))
        with pytest.raises(CorruptError, match="more than 256"):
            read_table(node)


@pytest.mark.parametrize(
    ("at", "form", "value", "field"),
    [(80, "<I", 0xFFFFFFFF, "NumberOfPartitionEntries"), (84, "<I", 64, "SizeOfPartitionEntry"),
     (84, "<I", 129, "SizeOfPartitionEntry"), (12, "<I", 5000, "HeaderSize"), (12, "<I", 1, "HeaderSize"),
     (24, "<Q", 7, "MyLBA"), (40, "<Q", 1 << 40, "FirstUsableLBA"), (48, "<Q", 1 << 60, "FirstUsableLBA"),
     (72, "<Q", 1 << 63, "PartitionEntryLBA"), (72, "<Q", 1, "PartitionEntryLBA"),
     (72, "<Q", 100, "PartitionEntryLBA"), (32, "<Q", 1 << 62, "AlternateLBA")],
)  # fmt: skip
def test_hostile_gpt_header(tmp_path: Path, at: int, form: str, value: int, field: str) -> None:
    """Fields that lie under a right checksum, where there is no second copy."""
    with disk(tmp_path / "disk", 40 * MIB) as node:
        gpt(node)
        raw = bytearray(node.read(512, 512))
        struct.pack_into(form, raw, at, value)
        raw[16:20] = bytes(4)
        size = min(512, max(92, struct.unpack_from("<I", raw, 12)[0]))
        struct.pack_into("<I", raw, 16, zlib.crc32(raw[:size]))
        node.write(512, raw)
        node.write(node.size - 512, bytes(512))
        with pytest.raises(CorruptError) as caught:
            read_table(node)
        assert (caught.value.field == field and caught.value.offset is not None) or field == "AlternateLBA"


def test_hostile_gpt_entries(tmp_path: Path) -> None:
    with disk(tmp_path / "disk", 40 * MIB) as node:
        table = gpt(node)
        assert isinstance(table, GptTable)
        table.partitions[1].start = table.partitions[0].start + MIB
        table.write(node)
        with pytest.raises(CorruptError, match="overlap"):
            read_table(node)
        table.partitions[1].start = 1 << 50
        table.write(node)
        with pytest.raises(CorruptError, match="outside"):
            read_table(node)


@pytest.mark.parametrize("make", [gpt, dos])
def test_fuzz(tmp_path: Path, make: object) -> None:
    """Whatever a few bytes become: a table that can be written again, or one clear error."""
    rng = random.Random(7)
    with disk(tmp_path / "disk", 40 * MIB) as node:
        table = make(node)  # type: ignore[operator]
        places = [0, 512, 1024, node.size - 512, node.size - 33 * 512]
        places += [part.start - 512 for part in table.partitions if part.kind == LOGICAL]
        places += [part.start for part in table.partitions if part.kind == EXTENDED]
        whole = {place: node.read(place, 512) for place in places}
        read = refused = 0
        for _ in range(1500):
            for _ in range(rng.randrange(1, 4)):
                place = rng.choice(places)
                low = 440 if make is dos else 0
                spot = rng.randrange(low, 512)
                node.write(place + spot, rng.choice((b"\0", b"\xff", bytes([rng.randrange(256)]))))
            try:
                found = read_table(node)
                found.free_extents()
                found.spaces()
                if rng.random() < 0.1:
                    found.write(node)
                    assert facts_of(read_table(node)) == facts_of(found)
                read += 1
            except FormatError as error:
                assert str(error) and (error.offset is not None or isinstance(error, ForeignError))
                refused += 1
            for place, data in whole.items():
                node.write(place, data)
        assert read > 100 and refused > 100


def test_noise(tmp_path: Path) -> None:
    rng = random.Random(3)
    with disk(tmp_path / "disk", MIB) as node:
        for _ in range(300):
            node.write(0, rng.randbytes(510) + b"\x55\xaa" + rng.randbytes(2048))
            try:
                read_table(node)
            except CowshedError as error:
                assert isinstance(error, FormatError)


# -- a cut at any moment -----------------------------------------------------------------------------------------------


def after_cuts(path: Path, node: Node, change: object) -> list[object]:
    """The facts of the table (or the complaint) in every state that a cut during ``change`` may leave."""
    before = path.read_bytes()
    with Log() as log:
        change(RecordNode(node, log, "disk"))  # type: ignore[operator]
        copy = Disk(path.with_name("state"), before)
        made: list[object] = []
        durable = 0
        for state in states(log.events, 250, 1):
            while durable < state.durable:
                if log.events[durable].kind != "flush":
                    copy.apply(log.events[durable], log)
                durable += 1
            copy.begin()
            for number in sorted(state.part):
                copy.apply(log.events[number], log, state.part[number])
            with open_image(str(path.with_name("state")), fmt="raw") as seen:
                try:
                    made.append(facts_of(read_table(seen)))
                except CowshedError as error:
                    made.append(str(error))
            copy.rollback()
        copy.close()
    return made


@pytest.mark.parametrize("make", [gpt, dos])
def test_cuts(tmp_path: Path, make: object) -> None:
    """Adding, deleting, resizing, cut anywhere: the old table or the new one."""
    rng = random.Random(5)
    path = tmp_path / "disk"
    judged = 0
    with disk(path, 40 * MIB) as node:
        table = make(node)  # type: ignore[operator]
        for _ in range(14 if make is gpt else 40):
            old = facts_of(table)
            numbers = [part.number for part in table.partitions if part.kind != EXTENDED]
            verb = rng.choice(("add", "add", "delete", "resize"))
            logical = make is dos and rng.random() < 0.7
            if verb == "add":
                try:
                    table.add(table.place(MIB, logical=logical), MIB, kind=LOGICAL if logical else "primary")
                except UsageError:
                    continue
            elif verb == "delete" and numbers:
                table.delete(rng.choice(numbers))
            elif numbers:
                number = rng.choice(numbers)
                table.resize(number, table.partition(number).size // 2 // 512 * 512)
            node.flush()
            new = facts_of(table)
            for found in after_cuts(path, node, table.write):
                assert found in (old, new)
                judged += 1
    assert judged > 100


def test_cut_while_mending(tmp_path: Path) -> None:
    """Where only the backup is good it is not touched before the primary copy is."""
    path = tmp_path / "disk"
    with disk(path, 40 * MIB) as node:
        before = facts_of(gpt(node))
        node.write(512, bytes(512))
        table = read_table(node)
        new = table.add(table.place(MIB), MIB)
        after = facts_of(table)
        assert new.number == 4
        for found in after_cuts(path, node, table.write):
            assert found in (before, after)


@pytest.mark.parametrize(("old", "label"), [(dos, "gpt"), (gpt, "dos"), (gpt, "gpt"), (dos, "dos")])
def test_cut_while_relabelling(tmp_path: Path, old: object, label: str) -> None:
    path = tmp_path / "disk"
    with disk(path, 40 * MIB) as node:
        before = facts_of(old(node))  # type: ignore[operator]
        table = create_table(label, node)
        for found in after_cuts(path, node, table.write):
            assert found in (before, [])


def test_relabelling_leaves_nothing(tmp_path: Path) -> None:
    """Of the table that was there before no header is found again."""
    path = tmp_path / "disk"
    with disk(path, 40 * MIB) as node:
        gpt(node)
        create_table("dos", node).write(node)
        assert node.read(512, 8) == node.read(node.size - 512, 8) == bytes(8)
        assert sfdisk(path)["label"] == "dos" and read_table(node).label == "dos"
        gpt(node)
        table = create_table("gpt", node, sector_size=4096)
        table.write(node)
        assert read_table(node).sector_size == 4096 and read_table(node).problems == []
        table.write(node)
        assert read_table(node).sector_size == 4096
        create_table("gpt", node).write(node)
        assert read_table(node).sector_size == 512
    assert "No problems found" in judges.run("sgdisk", "-v", path).stdout
