"""FAT read and made: against mkfs.vfat, mtools, fsck.vfat and blkid."""

from __future__ import annotations

import errno
import os
import struct
from pathlib import Path

import pytest

import guest_fat as g
import judges
from cowshed.block.graph import open_image
from cowshed.errors import ForeignError, OptionError
from cowshed.guest.filesystem import fat
from cowshed.guest.filesystem.base import GuestError
from cowshed.guest.filesystem.fat import name as names
from cowshed.guest.filesystem.fat import stamp
from cowshed.guest.filesystem.fat.boot import Boot
from cowshed.guest.filesystem.fat.directory import scan
from cowshed.guest.filesystem.fat.table import pack12, unpack12


def blkid(path: Path) -> dict[str, str]:
    out = judges.run("blkid", "-p", "-o", "export", path).stdout
    return dict(line.split("=", 1) for line in out.splitlines() if "=" in line)


@pytest.mark.parametrize("variant", g.MTOOLS)
def test_reads_what_mtools_wrote(variant: str, tmp_path: Path, figures: object) -> None:
    image = g.mkfs(tmp_path / "x.img", variant)
    wanted = g.fill(image, tmp_path / "in")
    with g.opened(image) as fs:
        assert g.tree(fs) == wanted
        facts = blkid(image)
        assert fs.kind == facts["TYPE"]
        assert fs.uuid == facts["UUID"]
        assert fs.label == facts.get("LABEL", "").replace("\\ ", " ")
        assert f"FAT{fs.bits}" == facts["VERSION"]  # type: ignore[attr-defined]
        free = fs.statvfs().bfree * fs.statvfs().bsize
    out = g.mtools("mdir", image, "::/")
    said = next(line for line in out.splitlines() if line.endswith("bytes free"))
    assert int("".join(filter(str.isdigit, said))) == free
    figures.add("fat: files that mtools wrote, read", len(wanted))  # type: ignore[attr-defined]


def test_lookup_and_stat(tmp_path: Path) -> None:
    image = g.mkfs(tmp_path / "x.img", "16")
    g.fill(image, tmp_path / "in")
    g.mtools("mattrib", image, "+r", "::/UPPER.TXT")
    with g.opened(image) as fs:
        folder = fs.lookup(fs.root, b"ein LANGER ordner")
        assert folder is not None and folder == fs.lookup(fs.root, b"EINLAN~1")
        assert fs.lookup(folder, b"..") == fs.root and fs.lookup(folder, b".") == folder
        deep = fs.lookup(folder, b"TIEF")
        assert deep is not None and fs.lookup(deep, b"..") == folder
        assert fs.lookup(fs.root, b"nothing") is None and fs.lookup(fs.root, b"\xff") is None
        found = fs.stat(folder)
        assert (oct(found.mode), found.nlink, found.size) == ("0o40755", 3, 6144)
        file = fs.lookup(fs.root, b"upper.txt.")
        assert file is not None
        found = fs.stat(file)
        assert (oct(found.mode), found.size, found.nlink) == ("0o100555", 30_000, 1)
        assert found.blocks * 512 == -(-30_000 // 2048) * 2048
        when = (tmp_path / "in" / "UPPER.TXT").stat().st_mtime_ns
        assert abs(found.mtime - when) <= 2 * 10**9
        assert fs.stat(fs.root).nlink == 4
        with pytest.raises(GuestError) as caught:
            fs.lookup(file, b"x")
        assert caught.value.errno == errno.ENOTDIR
        with pytest.raises(GuestError) as caught:
            fs.create(fs.root, b"x", 0o100644, 0, 0, g.NOW)
        assert caught.value.errno == errno.EROFS


def test_large_file_in_few_reads(tmp_path: Path) -> None:
    image = g.mkfs(tmp_path / "x.img", "32")
    data = os.urandom(20 * g.MIB)
    (tmp_path / "big").write_bytes(data)
    g.mtools("mcopy", image, tmp_path / "big", "::/big")
    with g.opened(image) as fs:
        ino = fs.lookup(fs.root, b"big")
        assert ino is not None
        assert len(list(fs.extents(ino, 0, len(data)))) <= 2
        assert fs.read(ino, 0, 1 << 40) == data
        for offset, length in ((0, 1), (511, 2), (4095, 8194), (len(data) - 1, 10), (len(data), 5)):
            assert fs.read(ino, offset, length) == data[offset : offset + length]


def made(path: Path, size: int, **options: object) -> tuple[object, ...]:
    g.blank(path, size)
    with open_image(str(path), fmt="raw", writable=True) as node:
        fat.make(node, **options)
    return shape(path)


def shape(path: Path) -> tuple[object, ...]:
    """Everything of the layout that a boot sector says."""
    with open_image(str(path), fmt="raw") as node:
        boot = Boot(node)
        sector = node.read(0, 512)
        return (
            boot.bits, boot.sector_size, boot.cluster_size, boot.fat_start, boot.fat_size, boot.fats,
            boot.root_entries, boot.clusters, boot.media, boot.total, boot.fsinfo, boot.backup,
            struct.unpack_from("<HHI", sector, 24), sector[boot.record_at],
        )  # fmt: skip


SIZES = [
    64 * g.KIB, 360 * g.KIB, 720 * g.KIB, 1200 * g.KIB, 1440 * g.KIB, 2880 * g.KIB, 1000003, g.MIB, 4 * g.MIB,
    8 * g.MIB, 9 * g.MIB, 17 * g.MIB, 100 * g.MIB + 1536, 128 * g.MIB, 129 * g.MIB, 260 * g.MIB, 511 * g.MIB,
    512 * g.MIB, 1 << 30, 8 << 30, 9 << 30, 17 << 30, 33 << 30,
]  # fmt: skip


@pytest.mark.parametrize("size", SIZES)
def test_mkfs_lays_out_as_the_real_one(size: int, tmp_path: Path) -> None:
    judges.run("mkfs.vfat", g.blank(tmp_path / "real.img", size))
    assert made(tmp_path / "ours.img", size) == shape(tmp_path / "real.img")
    g.fsck(tmp_path / "ours.img")


OPTIONS = [
    (40 * g.MIB, {"-F": "bits"}, 32), (40 * g.MIB, {"-F": "bits"}, 12), (261 * g.MIB, {"-F": "bits"}, 32),
    (64 * g.MIB, {"-S": "sector_size"}, 4096), (64 * g.MIB, {"-S": "sector_size"}, 1024),
    (1 << 30, {"-S": "sector_size"}, 2048), (600 * g.MIB, {"-s": "cluster_sectors"}, 1),
    (100 * g.MIB, {"-s": "cluster_sectors"}, 64), (5 * g.MIB, {"-s": "cluster_sectors"}, 128),
    (100 * g.MIB, {"-f": "fats"}, 1), (100 * g.MIB, {"-r": "root_entries"}, 992),
    (600 * g.MIB, {"-R": "reserved"}, 8), (20 * g.MIB, {"-h": "hidden"}, 63),
]  # fmt: skip


@pytest.mark.parametrize(("size", "option", "value"), OPTIONS)
def test_mkfs_options(size: int, option: dict[str, str], value: int, tmp_path: Path) -> None:
    ((flag, keyword),) = option.items()
    judges.run("mkfs.vfat", flag, str(value), g.blank(tmp_path / "real.img", size))
    assert made(tmp_path / "ours.img", size, **{keyword: value}) == shape(tmp_path / "real.img")
    g.fsck(tmp_path / "ours.img")
    judges.run("mkfs.vfat", "-a", flag, str(value), g.blank(tmp_path / "real.img", size))
    assert made(tmp_path / "ours.img", size, align=False, **{keyword: value}) == shape(tmp_path / "real.img")
    g.fsck(tmp_path / "ours.img")


@pytest.mark.parametrize("bits", [12, 16, 32])
def test_mkfs_over_old_contents(bits: int, tmp_path: Path) -> None:
    """Whatever was on the device: what is made is empty, named, and mtools can write to it."""
    path = tmp_path / "x.img"
    path.write_bytes(os.urandom((36 if bits == 32 else 12) * g.MIB))
    with open_image(str(path), fmt="raw", writable=True) as node:
        fat.make(node, bits=bits, label="Etikett 1", volume_id=0x1234ABCD, now=g.NOW)
    g.fsck(path)
    facts = blkid(path)
    assert (facts["LABEL"].replace("\\ ", " "), facts["UUID"]) == ("Etikett 1", "1234-ABCD")
    wanted = g.fill(path, tmp_path / "in")
    g.fsck(path)
    with g.opened(path) as fs:
        assert g.tree(fs) == wanted


@pytest.mark.parametrize(
    "options",
    [{"bits": 16}, {"bits": 13}, {"sector_size": 8192}, {"cluster_sectors": 3}, {"label": "twelve chars"}, {"fats": 9},
     {"label": "a/b"}, {"reserved": 0x10000}, {"root_entries": 1}],
)  # fmt: skip
def test_mkfs_refuses(options: dict[str, object], tmp_path: Path) -> None:
    with pytest.raises(OptionError):
        made(tmp_path / "x.img", 3 * g.MIB, **options)


def test_foreign(tmp_path: Path) -> None:
    for content in (b"", bytes(100), bytes(g.MIB), b"\xeb\x58\x90NTFS    " + bytes(g.MIB)):
        path = tmp_path / "x.img"
        path.write_bytes(content)
        with open_image(str(path), fmt="raw") as node, pytest.raises(ForeignError):
            fat.open(node)


# ---- the parts


@pytest.mark.parametrize(
    ("text", "short", "flags", "long"),
    [
        ("README.TXT", b"README  TXT", 0, False),
        ("readme.txt", b"README  TXT", 0x18, False),
        ("readme.TXT", b"README  TXT", 0x08, False),
        ("README.txt", b"README  TXT", 0x10, False),
        ("Makefile", b"MAKEFILE   ", 0, True),
        ("makefile", b"MAKEFILE   ", 0x08, False),
        ("a.b.c", b"AB~1    C  ", 0, True),
        (".profile", b"PROFIL~1   ", 0, True),
        ("name with spaces.text", b"NAMEWI~1TEX", 0, True),
        ("a+b", b"A_B~1      ", 0, True),
        ("123", b"123        ", 0, False),
    ],
)
def test_short_names(text: str, short: bytes, flags: int, long: bool) -> None:
    assert names.shorten(text, lambda one: False) == (short, flags, long)


def test_short_name_collisions() -> None:
    taken: set[bytes] = set()
    for number in range(300):
        short, flags, long = names.shorten(f"a long name {number}.text", taken.__contains__)
        assert long and not flags and len(short) == 11 and short not in taken
        if number < 9:
            assert short == b"ALONGN~%dTEX" % (number + 1)
        taken.add(short)


@pytest.mark.parametrize("text", ["a b", "x" * 255, "ä" * 13, "ä" * 14, "😀" * 100, "\ud800x", "." + "q" * 12])
def test_long_names_come_back(text: str) -> None:
    short = b"SHORT~1 TXT"
    data = names.long_entries(text, short) + short + bytes(21)
    (record,) = scan(data + bytes(32))
    assert (record.text, record.short, record.slot) == (text, short, len(data) // 32 - 1)
    # with another checksum, a piece missing, or in disorder they are nobody's
    broken = bytearray(data)
    broken[-32] ^= 1
    assert next(scan(broken)).text == names.from_short(bytes(broken[-32:-21]), 0)
    if len(data) > 64:
        assert next(scan(data[:-64] + data[-32:])).text == "SHORT~1.TXT"
    assert next(scan(data[32:])).text == "SHORT~1.TXT"


@pytest.mark.parametrize(
    ("text", "number"),
    [("", errno.ENOENT), ("...", errno.ENOENT), ("a ", errno.EINVAL), ("a:b", errno.EINVAL), ("\x07", errno.EINVAL),
     ("x" * 256, errno.ENAMETOOLONG), ("😀" * 128, errno.ENAMETOOLONG)],
)  # fmt: skip
def test_names_that_cannot_be(text: str, number: int) -> None:
    with pytest.raises(GuestError) as caught:
        names.check(text)
    assert caught.value.errno == number


def test_times() -> None:
    for when in (315532800, 951782400, 1709164800, 1709251199, 4102444800, 4354819199):
        for extra in (0, 10_000_000, 990_000_000, 1_990_000_000):
            time = when // 2 * 2 * 10**9 + extra
            assert stamp.decode(*stamp.encode(time)) == time
    assert stamp.encode(0) == (0x21, 0, 0)
    assert stamp.decode(0) == 315532800 * 10**9
    assert stamp.encode(1 << 63)[0] == 0xFF9F


def test_twelve_bits() -> None:
    raw = bytes(range(1, 100))
    assert pack12(unpack12(raw)) == raw
    assert list(unpack12(b"\x23\x61\x45")) == [0x123, 0x456]
