"""Fuzz targets of what divides and wraps disks: signatures, partition tables, LVM2, LUKS."""

from __future__ import annotations

import copy
import hashlib
import json
import random
import struct
import zlib
from collections.abc import Callable, Iterable
from itertools import pairwise
from pathlib import Path
from typing import Any

from guest_fuzz import Case, Image, Target, mutate, mutate_text, number, target
from guest_walks import places_of, walk

import judges
from cowshed.guest.filesystem.table import kind_of, open_filesystem

MIB = 1 << 20

# -- whatever is on a device -------------------------------------------------------------------------------------------


@target("signatures")
def _signatures(folder: Path) -> Target:
    """Noise with magic numbers where they belong, and what then is believed of it."""
    from cowshed.guest.identity import identify
    from cowshed.layout.signature import _CONTAINERS, _FILESYSTEMS, signatures

    path = folder / "noise"
    path.write_bytes(random.Random(1).randbytes(3 * MIB))
    image = Image(path)
    marks = [spot for table in (_FILESYSTEMS, _CONTAINERS) for spots in table.values() for spot in spots]
    marks += [(0x438, b"\x53\xef"), (510, b"\x55\xaa"), (512, b"LABELONE"), (536, b"LVM2 001"), (512, b"EFI PART")]
    marks += [(82, b"FAT32   "), (54, b"FAT16   "), (11, b"\0\2\1\1\0\2")]

    def run(seed: int, case: Case) -> None:
        rng = random.Random(seed)
        image.reset()
        image.size = rng.choice((0, 1, 511, 512, 1023, 1024, 1080, 4096, 0x8801, 0x10000, 0x10040, 70_000, 3 * MIB))
        if rng.random() < 0.5:
            image.put(0, bytes(rng.choice((512, 4096, 0x12000))))
        for _ in range(rng.randrange(1, 5)):
            image.put(*rng.choice(marks))
            at = rng.randrange(0, 2048) if rng.random() < 0.7 else rng.choice(marks)[0] + rng.randrange(64)
            image.put(at, number(rng, 32, []).to_bytes(4, rng.choice(("little", "big"))))
        case.attempt(lambda: signatures(image))
        case.attempt(lambda: identify(image))

        def work() -> None:
            fs = open_filesystem(image)
            case.count("opened")
            walk(fs, case)

        if kind_of(image) != "xfs" or image.size < 1 << 20:
            case.attempt(work)

    return run


# -- partition tables --------------------------------------------------------------------------------------------------


def _summed(image: Image, sector: int = 512) -> None:
    """GPT's checksums made right again, in both copies."""
    for at in (sector, image.size - sector):
        head = bytearray(image.read(at, sector))
        length = int.from_bytes(head[12:16], "little")
        lba, count, size = struct.unpack_from("<QII", head, 72)
        if count * size <= 1 << 20 and lba * sector + count * size <= image.size:
            struct.pack_into("<I", head, 88, zlib.crc32(image.read(lba * sector, count * size)))
        if 92 <= length <= sector:
            head[16:20] = bytes(4)
            struct.pack_into("<I", head, 16, zlib.crc32(head[:length]))
            image.put(at, head)


def _partitions(label: str) -> Callable[[Path], Target]:
    def make(folder: Path) -> Target:
        from cowshed.layout.partition import EXTENDED, LOGICAL, create_table, read_table

        path = folder / f"{label}.disk"
        with open(path, "wb") as file:
            file.truncate(40 * MIB)
        image = Image(path)
        image.read_only = False
        table = create_table(label, image)
        for index in range(3):
            table.add(table.place(3 * MIB), 3 * MIB, **({"name": f"part {index}"} if label == "gpt" else {}))
        if label == "dos":
            table.add(table.place(20 * MIB), 20 * MIB, kind=EXTENDED)
            for _ in range(4):
                table.add(table.place(2 * MIB, logical=True), 2 * MIB, kind=LOGICAL)
        table.write(image)
        image = Image(image.save(folder / f"{label}.img"))
        image.read_only = True
        places = places_of(image, lambda: read_table(image), 512)
        places += [(446, 64)] * 10 if label == "dos" else []
        blocks = sorted({offset // 512 for offset, _ in places} | {part.start // 512 for part in table.partitions})

        def run(seed: int, case: Case) -> None:
            rng = random.Random(seed)
            image.reset()
            mutate(image, rng, places, blocks, unit=512)
            if label == "gpt" and rng.random() < 0.8:
                _summed(image)
            if rng.random() < 0.05:
                image.size = rng.choice((512, 1024, 5 * MIB, 39 * MIB + 512))

            def work() -> None:
                found = read_table(image)
                case.count("read")
                found.free_extents()
                found.spaces()
                found.largest_free()
                image.read_only = False
                number = rng.choice([part.number for part in found.partitions] or [1])
                size = rng.choice((512, MIB, 7 * MIB, 1 << 50))
                case.attempt(lambda: found.delete(number))
                case.attempt(lambda: found.add(found.place(size), size))
                case.attempt(lambda: found.resize(number, size))
                case.attempt(found.grow)
                if case.attempt(lambda: found.write(image)):
                    case.count("written")
                    again = read_table(image)
                    assert [(p.number, p.start, p.size) for p in again.partitions] == [
                        (p.number, p.start, p.size) for p in found.partitions
                    ]

            case.attempt(work)

        return run

    return make


target("mbr")(_partitions("dos"))
target("gpt")(_partitions("gpt"))


# -- LVM2 --------------------------------------------------------------------------------------------------------------

_LVM = """contents = "Text Format Volume Group"
version = 1
vg0 {
id = "VolGrp-0000-0000-0000-0000-0000-000001"
seqno = 3
format = "lvm2"
status = ["RESIZEABLE", "READ", "WRITE"]
flags = []
extent_size = 128
max_lv = 0
max_pv = 0
metadata_copies = 0
physical_volumes {
pv0 { id = "%s" device = "/dev/sda1" status = ["ALLOCATABLE"] flags = [] dev_size = 8192 pe_start = 2048 pe_count = 48 }
}
logical_volumes {
root { id = "a" status = ["READ", "WRITE", "VISIBLE"] flags = [] creation_time = 1700000000 creation_host = "h"
 segment_count = 2
 segment1 { start_extent = 0 extent_count = 4 type = "striped" stripe_count = 1 stripes = [ "pv0", 0 ] }
 segment2 { start_extent = 4 extent_count = 4 type = "striped" stripe_count = 2 stripe_size = 16
  stripes = [ "pv0", 6, "pv0", 10 ] } }
swap { id = "b" status = ["VISIBLE"] segment_count = 1
 segment1 { start_extent = 0 extent_count = 2 type = "striped" stripe_count = 1 stripes = [ "pv0", 4 ] } }
m { id = "m" status = ["VISIBLE"] segment_count = 1
 segment1 { start_extent = 0 extent_count = 2 type = "raid1" device_count = 1 raids = [ "r", "d" ] } }
r { id = "r" status = [] segment_count = 1
 segment1 { start_extent = 0 extent_count = 1 type = "striped" stripe_count = 1 stripes = [ "pv0", 20 ] } }
d { id = "d" status = [] segment_count = 1
 segment1 { start_extent = 0 extent_count = 2 type = "striped" stripe_count = 1 stripes = [ "pv0", 21 ] } }
s { id = "s" status = [] segment_count = 1
 segment1 { start_extent = 0 extent_count = 3 type = "striped" stripe_count = 1 stripes = [ "pv0", 30 ] } }
snapshot0 { id = "t" status = ["VISIBLE"] segment_count = 1
 segment1 { start_extent = 0 extent_count = 8 type = "snapshot" chunk_size = 8 origin = "root" cow_store = "s" } }
}
}
"""


def _area(image: Image, text: bytes, rng: random.Random | None) -> None:
    """Write a metadata area of 512 KiB at 4096 with this text, sums right."""
    from cowshed.layout.lvm.label import crc

    start = 512 if rng is None else rng.choice((512, 512, (508 << 10) + 512))
    start = start if len(text) < 500_000 else 512
    location = struct.pack("<QQII", start, len(text), crc(text), 0)
    if rng is not None and rng.random() < 0.1:
        fields = [start, len(text), crc(text), 0]
        which = rng.randrange(4)
        fields[which] = number(rng, 64 if which < 2 else 32, [512, 4096, 1 << 19])
        location = struct.pack("<QQII", *fields)
    head = struct.pack("<16sIQQ", b" LVM2 x[5A%r0N*>", 1, 4096, 512 << 10) + location
    head = head.ljust(508, b"\0")
    image.put(4096, struct.pack("<I", crc(head)) + head)
    first = text[: (512 << 10) - start]
    image.put(4096 + start, first)
    image.put(4096 + 512, text[len(first) :]) if len(first) < len(text) else None


@target("lvm")
def _lvm(folder: Path) -> Target:
    from cowshed.layout.lvm import scan
    from cowshed.layout.lvm.label import crc
    from cowshed.layout.lvm.node import LogicalNode

    path = folder / "pv"
    with open(path, "wb") as file:
        file.truncate(4 * MIB)
    image = Image(path)
    uuid = b"Pv0000000000000000000000000000aa"
    cuts = (0, 6, 10, 14, 18, 22, 26, 32)
    spelled = "-".join(uuid[a:b].decode() for a, b in pairwise(cuts))
    text = (_LVM % spelled).encode() + b"\0"
    areas = struct.pack("<QQQQQQQQ", 1 * MIB, 0, 0, 0, 4096, 512 << 10, 0, 0)
    inner = struct.pack("<I8s", 32, b"LVM2 001") + uuid + struct.pack("<Q", 4 * MIB) + areas
    words = (b"99999999999", b'"root"', b'"pv0"', b"raid1", b"segment1", b"18446744073709551616", b"1e308", b'"\\"')

    def run(seed: int, case: Case) -> None:
        rng = random.Random(seed)
        image.reset()
        body = bytearray(inner.ljust(492, b"\0"))
        if rng.random() < 0.3:
            at = rng.randrange(0, 120)
            size = rng.choice((1, 4, 8))
            body[at : at + size] = number(rng, size * 8, [4096, 512, MIB]).to_bytes(size, "little")
        image.put(512, b"LABELONE" + struct.pack("<QI", 1, crc(bytes(body[:492]))) + bytes(body[:492]))
        mutant = text if seed % 5 == 0 else mutate_text(text, rng, words)
        if seed % 50 == 0:
            mutant = b"a {" * rng.choice((10, 60, 5000)) + mutant
        _area(image, mutant, rng)
        image.put(1 * MIB + 30 * 65536, struct.pack("<IIII", 0x70416E53, 1, 1, rng.choice((8, 0, 1 << 31))))

        def work() -> None:
            found = scan({"/dev/sda1": image}, strict=rng.random() < 0.5)
            for group in found.groups:
                case.count("groups")
                case.attempt(lambda group=group: (group.used(), group.free, group.missing))  # type: ignore[misc]
                for lv in group.volumes.values():
                    case.attempt(lambda lv=lv: look(lv))  # type: ignore[misc]

        def look(lv: Any) -> None:
            _ = lv.visible, lv.type, lv.origin, lv.snapshots, lv.virtual_size
            node = LogicalNode(lv)
            for at in (0, max(0, node.size - 4096)):
                node.read(at, min(4096, node.size - at))

        case.attempt(work)

    return run


# -- LUKS --------------------------------------------------------------------------------------------------------------


def _luks_work(image: Image, case: Case) -> None:
    from cowshed.block.format.luks.header import read_header
    from cowshed.block.format.luks.node import LuksNode

    def work() -> None:
        header = read_header(image)
        case.count("read")
        node = LuksNode(image, header, read_only=True)
        node.format_specific()
        node.check_names(facts=True)
        work = sum(slot.kdf.iterations * max(1, slot.kdf.memory) for slot in header.slots if slot.active)
        work += sum(digest.iterations for digest in header.digests) * max(1, len(header.slots))
        if work < 200_000:
            node.unlock([b"wrong"])

    case.attempt(work)


@target("luks1")
def _luks1(folder: Path) -> Target:
    path = folder / "luks1.img"
    if not path.exists():
        with open(path, "wb") as file:
            file.truncate(4 * MIB)
        (folder / "key").write_bytes(b"key")
        judges.run(
            "cryptsetup", "luksFormat", "--type", "luks1", "-q", "--pbkdf-force-iterations", "1000", path,
            folder / "key"
        )  # fmt: skip
    image = Image(path)

    def run(seed: int, case: Case) -> None:
        rng = random.Random(seed)
        image.reset()
        for _ in range(rng.choice((1, 1, 2, 5))):
            size = rng.choice((1, 2, 4, 4))
            at = rng.randrange(6, 592) // size * size
            image.put(at, number(rng, 8 * size, [8, 512, 4000, 0xAC71F3, 0xDEAD]).to_bytes(size, "big"))
        if rng.random() < 0.1:
            image.size = rng.choice((6, 100, 591, 592, 4096, MIB))
        _luks_work(image, case)

    return run


def _leaves(top: Any, path: tuple[Any, ...] = ()) -> Iterable[tuple[Any, Any]]:
    """(container, key) of everything in a JSON document."""
    items = top.items() if isinstance(top, dict) else enumerate(top) if isinstance(top, list) else ()
    for key, value in items:
        yield top, key
        yield from _leaves(value, (*path, key))


@target("luks2")
def _luks2(folder: Path) -> Target:
    path = folder / "luks2.img"
    if not path.exists():
        with open(path, "wb") as file:
            file.truncate(18 * MIB)
        (folder / "key").write_bytes(b"key")
        judges.run(
            "cryptsetup", "luksFormat", "--type", "luks2", "-q", "--pbkdf", "pbkdf2", "--pbkdf-force-iterations",
            "1000",
            path, folder / "key",
        )  # fmt: skip
    image = Image(path)
    head = image.read(0, 4096)
    text = image.read(4096, 0x3000).split(b"\0")[0]
    values = (
        None, True, False, 0, -1, 1, 1.5, 1e308, 1 << 31, 1 << 63, 1 << 64, 10**400, "", "0", "-1", "1" * 5000, "\0",
        "dynamic",
        "18446744073709551616", "9223372036854775807", "aes-xts-plain64", "sha256", "\ud800", "argon2id", [], {},
        ["0"] * 70,
        {"0": {}}, {str(index): {} for index in range(70)}, [[[]]], "²", "٣",
    )  # fmt: skip

    def run(seed: int, case: Case) -> None:
        rng = random.Random(seed)
        image.reset()
        top = json.loads(text)
        for _ in range(rng.choice((1, 1, 1, 2, 4))):
            found = list(_leaves(top))
            leaves = [one for one in found if not isinstance(one[0][one[1]], dict | list)]
            container, key = rng.choice(leaves if rng.random() < 0.8 else found)
            kind = rng.randrange(8)
            if kind == 0:
                del container[key]
            elif kind == 1 and isinstance(container, dict):
                container[rng.choice(("1", "00", "999", "-1", "x", key + "x", "²"))] = container.pop(key)
            else:
                container[key] = copy.deepcopy(rng.choice(values))
        data = json.dumps(top).encode()
        if seed % 10 == 0:
            data = mutate_text(text, rng)
        if seed % 100 == 0:
            data = b"[" * rng.choice((1000, 5000)) + text
        data = data[: 0x3000 - 1].ljust(0x3000, b"\0")
        for place in (0, 0x4000):
            fresh = bytearray(head)
            fresh[:6] = b"SKUL\xba\xbe" if place else head[:6]
            struct.pack_into(">Q", fresh, 0x100, place)
            if rng.random() < 0.1:
                struct.pack_into(">Q", fresh, 8, number(rng, 64, [0x4000, 0x8000]))
            fresh[0x1C0:0x200] = bytes(64)
            fresh[0x1C0:0x1E0] = hashlib.sha256(bytes(fresh) + data).digest()
            image.put(place, bytes(fresh) + data)
        _luks_work(image, case)

    return run
