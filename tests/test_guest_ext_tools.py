"""File systems as a whole: grown, described, tuned, their free space zeroed; judged by e2fsck, dumpe2fs, tune2fs,
lsattr and the kernel."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

import judges
from cowshed.block.filter.record import FLUSH, Log
from cowshed.block.graph import open_image
from cowshed.errors import CowshedError, OptionError
from cowshed.guest.filesystem import ext
from cowshed.guest.filesystem.base import GuestError
from cowshed.guest.filesystem.ext.describe import describe
from cowshed.guest.filesystem.ext.resize import resize
from cowshed.guest.filesystem.ext.tune import attributes, set_attributes, tune
from cowshed.guest.filesystem.ext.zero import zero_free
from test_guest_ext import clean, image, mounted, opened, our_tree, same_as_kernel

NOW = 1_900_000_000 * 10**9
MiB = 1 << 20


def _files(path: Path, prefix: bytes, count: int) -> None:
    with opened(path, writable=True) as fs:
        folder = fs.create(2, prefix, 0o40755, 0, 0, NOW)
        for number in range(count):
            ino = fs.create(folder, b"file%d" % number, 0o100644, 0, 0, NOW)
            fs.write(ino, 0, os.urandom(5000), NOW)
        fs.sync()


@pytest.mark.parametrize(
    ("before", "after", "options"),
    [
        (20 * MiB, 61 * MiB, ("-t", "ext4")),
        (20 * MiB, 2100 * MiB, ("-t", "ext4", "-E", "resize=60000")),
        (64 * MiB, 700 * MiB, ("-t", "ext4", "-O", "^flex_bg,^resize_inode")),
        (64 * MiB, 400 * MiB, ("-t", "ext4", "-O", "^metadata_csum,uninit_bg")),
        (64 * MiB, 4000 * MiB, ("-t", "ext4", "-O", "meta_bg,^resize_inode", "-b", "1024")),
        (
            64 * MiB,
            500 * MiB,
            (
                "-t",
                "ext3",
            ),
        ),
        (
            64 * MiB,
            3000 * MiB,
            (
                "-t",
                "ext2",
            ),
        ),
        (150 * MiB, 3000 * MiB, ("-t", "ext4", "-b", "4096")),
        (64 * MiB, 64 * MiB + 4096, ("-t", "ext4", "-b", "1024")),
        (64 * MiB, 72 * MiB + 150_000, ("-t", "ext4", "-O", "^has_journal", "-b", "1024")),
    ],
)
def test_grown(before: int, after: int, options: tuple[str, ...], tmp_path: Path) -> None:
    path = image(tmp_path / "disk.img", before, *options)
    _files(path, b"before", 30)
    os.truncate(path, after)
    with opened(path, writable=True) as fs:
        count = resize(fs)
        assert count == fs.sb.blocks
        assert 0 <= after // fs.block_size - count < 1200
        where = fs.sb.group_first_block(1)
        size = fs.block_size
    clean(path)
    # the copies tell the same (dumpe2fs ignores what they say of bitmaps that were never written, and warns)
    first = judges.run("dumpe2fs", path).stdout
    argv = [judges.need("dumpe2fs"), "-o", f"superblock={where}", "-o", f"blocksize={size}", path]
    copy = subprocess.run(argv, capture_output=True, text=True).stdout
    stable = ("Block count", "Inode count", "Reserved GDT", "First meta", "Filesystem features")
    for word in stable:
        assert [x for x in first.splitlines() if x.startswith(word)] == [
            x for x in copy.splitlines() if x.startswith(word)
        ]
    assert _places(first) == _places(copy)
    same_as_kernel(path)
    _files(path, b"after", 300)
    clean(path)
    with mounted(path) as top:
        (top / "of the kernel").write_bytes(os.urandom(min(after // 2, 60 * MiB)))
    clean(path)
    same_as_kernel(path)


def _places(text: str) -> list[str]:
    found = [line.strip() for line in text.splitlines() if "itmap at" in line or "table at" in line]
    return [line.partition(", csum")[0] for line in found]


def test_not_grown(tmp_path: Path) -> None:
    path = image(tmp_path / "disk.img", 64 * MiB, "-t", "ext4")
    with opened(path, writable=True) as fs:
        assert resize(fs) == fs.sb.blocks
        with pytest.raises(OptionError, match="is only 65536 \\(1k\\) blocks"):
            resize(fs, 70000)
        with pytest.raises(OptionError, match="not made smaller"):
            resize(fs, 30000)
    clean(path)


@pytest.mark.parametrize("options", [("-t", "ext4"), ("-t", "ext4", "-O", "^resize_inode")])
def test_cuts_while_growing(options: tuple[str, ...], tmp_path: Path) -> None:
    """Every prefix of the writes is the old size or the new one."""
    path = image(tmp_path / "disk.img", 12 * MiB, "-b", "1024", *options)
    _files(path, b"before", 20)
    with opened(path) as fs:
        tree = our_tree(fs)
    os.truncate(path, 300 * MiB)
    copy = tmp_path / "copy.img"
    subprocess.run(["cp", "--sparse=always", path, copy], check=True)
    log = Log(1 << 30)
    with opened(path, writable=True, log=log) as fs:
        new = resize(fs)
    clean(path)
    last = len(log.events) - 1
    judged = tmp_path / "judged.img"
    with open(copy, "r+b") as file:
        for number, event in enumerate(log.events):
            if event.kind == FLUSH:
                continue
            file.seek(event.offset)
            data = log.data(event)
            if event.length == len(data):
                file.write(data)
            else:
                file.write(bytes(event.length))
            file.flush()
            if number % 7 and number < last - 40:
                continue
            subprocess.run(["cp", "--sparse=always", copy, judged], check=True)
            done = subprocess.run([judges.need("e2fsck"), "-p", judged], capture_output=True, text=True)
            assert done.returncode in (0, 1), (number, done.stdout)
            clean(judged)
            with opened(judged) as fs:
                assert fs.sb.blocks in (12288, new)
                assert our_tree(fs) == tree


@pytest.mark.parametrize(
    "options",
    [
        {"kind": "ext4", "blocks_per_group": 4096, "inodes": 1000, "journal_megabytes": 4, "last_mounted": "/bar"},
        {"kind": "ext4", "inode_size": 128},
        {"kind": "ext4", "journal_megabytes": 1, "flex_groups": 32, "stride": 16, "stripe_width": 64},
        {"kind": "ext4", "features": "^extent,^filetype,^flex_bg,^large_file,^resize_inode,^sparse_super"},
        {"kind": "ext4", "most_blocks": 1_000_000, "block_size": 1024},
        {"kind": "ext3", "block_size": 4096, "size": 80 << 20, "inode_ratio": 65536, "uuid": "clear"},
        {"kind": "ext2", "creator": "freebsd"},
    ],
)
def test_made_over_another_one(options: dict[str, Any], tmp_path: Path) -> None:
    """Options of mke2fs; what the device held before is nowhere to be seen."""
    path = image(tmp_path / "disk.img", 100 * MiB, "-t", "ext4", "-I", "128", "-N", "4000")
    for prefix in (b"a", b"b"):
        _files(path, prefix, 900)
    with open_image(str(path), fmt="raw", writable=True) as node:
        ext.make(node, **options)
    clean(path)
    assert same_as_kernel(path).keys() == {b"/lost+found"}
    _files(path, b"after", 100)
    clean(path)
    same_as_kernel(path)
    told = dict(line.split(":", 1) for line in judges.run("dumpe2fs", "-h", path).stdout.splitlines() if ":" in line)
    for field, name, value in (
        ("Blocks per group", "blocks_per_group", None), ("Inode size", "inode_size", None),
        ("RAID stride", "stride", None), ("RAID stripe width", "stripe_width", None),
        ("Flex block group size", "flex_groups", None),
        ("Filesystem OS type", "creator", "FreeBSD"), ("Last mounted on", "last_mounted", None),
        ("Total journal size", "journal_megabytes", f"{options.get('journal_megabytes', 0) * 1024}k"),
        ("Filesystem UUID", "uuid", "<none>"), ("Reserved GDT blocks", "most_blocks", "7"),
    ):  # fmt: skip
        if name in options:
            assert told[field].strip() == (str(options[name]) if value is None else value)


def _described(path: Path) -> dict[str, str]:
    with opened(path) as fs:
        return dict(describe(fs.sb))


@pytest.mark.parametrize(
    "options",
    [
        ("-t", "ext4", "-L", "label"),
        ("-t", "ext2"),
        ("-t", "ext3", "-O", "^dir_index"),
        ("-t", "ext4", "-O", "metadata_csum_seed,mmp,orphan_file", "-E", "stride=16,stripe_width=64"),
        ("-t", "ext4", "-O", "bigalloc,quota,project", "-C", "16384"),
        ("-t", "ext4", "-O", "meta_bg,^resize_inode,fast_commit"),
    ],
)
def test_described_as_tune2fs_does(options: tuple[str, ...], tmp_path: Path) -> None:
    path = image(tmp_path / "disk.img", 96 * MiB, *options)
    told = subprocess.run(
        [judges.need("tune2fs"), "-l", path],
        capture_output=True,
        text=True,
        env={**os.environ, "TZ": "UTC", "LC_ALL": "C"},
    )
    assert told.returncode == 0
    wanted = []
    for line in told.stdout.splitlines()[1:]:
        name, _, value = line.partition(":")
        wanted.append(
            (name, value.lstrip().replace("(user root)", "(user unknown)").replace("group root", "group unknown"))
        )
    with opened(path) as fs:
        assert describe(fs.sb) == wanted


def test_tuned(tmp_path: Path) -> None:
    path = image(tmp_path / "disk.img", 64 * MiB, "-t", "ext4")
    with opened(path, writable=True) as fs:
        tune(
            fs, NOW, max_mounts=20, mounts=3, errors="panic", gid=5, uid=6, interval=90000, reserved_blocks=777,
            last_mounted="/foo",
        )  # fmt: skip
        fs.sync()
    clean(path)
    told = judges.run("tune2fs", "-l", path).stdout
    for words in ("Maximum mount count:      20", "Mount count:              3", "Errors behavior:          Panic",
                  "Check interval:           90000 (1 day, 1:00:00)", "Reserved block count:     777",
                  "Last mounted on:          /foo", "uid:      6", "gid:      5"):  # fmt: skip
        assert words in told
    with opened(path, writable=True) as fs:
        for wrong in (
            {"reserved_percent": 51.0}, {"reserved_blocks": 40000}, {"mounts": 16001}, {"errors": "none"},
            {"uid": 1 << 16}, {"interval": 1 << 32}, {"last_mounted": "x" * 65},
        ):  # fmt: skip
            with pytest.raises(OptionError):
                tune(fs, NOW, **wrong)  # type: ignore[arg-type]
        tune(fs, NOW, max_mounts=0, reserved_percent=7)
        fs.sync()
    found = _described(path)
    assert (found["Maximum mount count"], found["Reserved block count"]) == ("-1", "4587")


def test_attributes_of_files(tmp_path: Path) -> None:
    path = image(tmp_path / "disk.img", 64 * MiB, "-t", "ext4")
    with opened(path, writable=True) as fs:
        file = fs.create(2, b"file", 0o100644, 0, 0, NOW)
        folder = fs.create(2, b"folder", 0o40755, 0, 0, NOW)
        link = fs.create(2, b"link", 0o120777, 0, 0, NOW, target=b"t")
        set_attributes(fs, file, "aiud", NOW)
        with pytest.raises(GuestError) as caught:
            set_attributes(fs, file, "a", NOW, clear=True)
        assert caught.value.errno == 1
        set_attributes(fs, folder, "AcdDsSTj", NOW)
        for number, letters in ((link, "d"), (file, "E"), (file, "F")):
            with pytest.raises(GuestError):
                set_attributes(fs, number, letters, NOW)
        fs.sync()
        assert (attributes(fs, file), attributes(fs, folder)) == ("adeiu", "ADSTcdejs")
    clean(path)
    with mounted(path) as top:
        told = judges.run("lsattr", "-d", top / "file", top / "folder").stdout.split()
        assert sorted(told[0].replace("-", "")) == list("adeiu")
        assert sorted(told[2].replace("-", "")) == list("ADSTcdejs")
        with pytest.raises(PermissionError):
            (top / "file").write_bytes(b"")


@pytest.mark.parametrize("options", [("-t", "ext4"), ("-t", "ext2"), ("-t", "ext4", "-O", "^metadata_csum,uninit_bg")])
def test_free_space_is_zeroed(options: tuple[str, ...], tmp_path: Path) -> None:
    path = image(tmp_path / "disk.img", 64 * MiB, *options)
    with mounted(path) as top:
        for number in range(40):
            (top / f"file{number}").write_bytes(os.urandom(300_000))
        os.sync()
        for number in range(0, 40, 2):
            (top / f"file{number}").unlink()
    with opened(path, writable=True) as fs:
        before = our_tree(fs)
        free = fs.statvfs().bfree
        assert zero_free(fs) == free
        assert our_tree(fs) == before
    clean(path)
    content = path.read_bytes()
    told = judges.run("dumpe2fs", path).stdout
    ranges = [
        part for line in told.splitlines() if line.startswith("  Free blocks: ") for part in line[15:].split(", ")
    ]
    total = 0
    for part in filter(None, ranges):
        first, _, last = part.partition("-")
        size = 1024
        at, end = int(first) * size, (int(last or first) + 1) * size
        assert not any(content[at:end])
        total += (end - at) // size
    assert total == free


def test_damaged_bitmap_zeroes_nothing(tmp_path: Path) -> None:
    path = image(tmp_path / "disk.img", 64 * MiB, "-t", "ext4")
    with opened(path) as fs:
        place = fs.groups[0].block_bitmap * 1024
    with open(path, "r+b") as file:
        file.seek(place)
        file.write(bytes(900))
    before = path.read_bytes()
    with opened(path, writable=True) as fs, pytest.raises(CowshedError, match="checksum"):
        zero_free(fs)
    assert path.read_bytes() == before
