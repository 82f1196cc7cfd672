"""Damaged and hostile images: every walk ends, with an error of ours, and takes a bounded amount of memory."""

from __future__ import annotations

import random
import struct
import tracemalloc
from pathlib import Path

import pytest

from cowshed.errors import CorruptError, CowshedError
from cowshed.guest.filesystem.ext.filesystem import ExtFileSystem
from test_guest_ext import image, opened

NOW = 1_900_000_000 * 10**9


def _fill(path: Path) -> None:
    with opened(path, writable=True) as fs:
        folder = fs.create(2, b"folder", 0o40755, 0, 0, NOW)
        for number in range(120):
            ino = fs.create(folder, b"a-name-of-some-length-%d" % number, 0o100644, 0, 0, NOW)
            fs.write(ino, 0, b"content" * 50, NOW)
            fs.set_xattr(ino, b"user.a", b"v" * 200, NOW)
        fs.create(2, b"link", 0o120777, 0, 0, NOW, target=b"t" * 200)
        ino = fs.create(2, b"sparse", 0o100644, 0, 0, NOW)
        for number in range(500):
            fs.write(ino, number * 4096, b"x" * 1024, NOW)
        fs.sync()


def _walk(fs: ExtFileSystem, most: int = 3000) -> None:
    """Touch everything, each part for itself as one error ends only that part."""
    seen = {2}
    todo = [2]
    count = 0
    while todo and count < most:
        folder = todo.pop()
        try:
            for name, number, _ in fs.entries(folder):
                count += 1
                if count > most:
                    break
                try:
                    fs.lookup(folder, name)
                    facts = fs.stat(number)
                    fs.xattrs(number)
                    if facts.mode & 0xF000 == 0x4000 and number not in seen:
                        seen.add(number)
                        todo.append(number)
                    elif facts.mode & 0xF000 == 0x8000:
                        fs.read(number, 0, min(facts.size, 1 << 20))
                        for _ in zip(range(10_000), fs.extents(number, 0, facts.size), strict=False):
                            pass
                    elif facts.mode & 0xF000 == 0xA000:
                        fs.readlink(number)
                except CowshedError:
                    pass
        except CowshedError:
            pass
    fs.statvfs()


@pytest.mark.parametrize("options", [("-t", "ext4", "-O", "^metadata_csum,^64bit"), ("-t", "ext2"), ("-t", "ext4")])
def test_random_damage(options: tuple[str, ...], tmp_path: Path) -> None:
    # the same image each time, and the same damage
    same = ("-U", "01234567-89ab-4def-8123-456789abcdef", "-E", "hash_seed=01234567-89ab-4def-8123-456789abcdef")
    path = image(tmp_path / "disk.img", 8 << 20, "-b", "1024", *same, *options)
    _fill(path)
    whole = path.read_bytes()
    used = [at for at in range(0, len(whole), 1024) if any(whole[at : at + 1024])]
    rng = random.Random(5)
    tracemalloc.start()
    try:
        for _ in range(12):
            data = bytearray(whole)
            for _ in range(rng.choice((1, 4, 30))):
                at = rng.choice(used) + rng.randrange(1024)
                data[at : at + 4] = rng.choice((b"\xff\xff\xff\xff", b"\0\0\0\0", rng.randbytes(4), b"\1\0\0\0"))
                if len(data) > len(whole):
                    del data[len(whole) :]
            path.write_bytes(data)
            try:
                with opened(path) as fs:
                    _walk(fs)
            except CowshedError:
                pass
        assert tracemalloc.get_traced_memory()[1] < 256 << 20
    finally:
        tracemalloc.stop()


def _image_without_checksums(tmp_path: Path) -> Path:
    path = image(tmp_path / "disk.img", 8 << 20, "-b", "1024", "-t", "ext4", "-O", "^metadata_csum")
    _fill(path)
    return path


def test_extent_tree_that_leads_to_itself(tmp_path: Path) -> None:
    path = _image_without_checksums(tmp_path)
    with opened(path) as fs:
        ino = fs.lookup(2, b"sparse")
        assert ino
        leaf = struct.unpack_from("<I", fs.inodes[ino].block, 16)[0]
    with open(path, "r+b") as file:
        # two entries of the root's child lead to that child
        file.seek(leaf * 1024)
        file.write(struct.pack("<HHHHI", 0xF30A, 2, 84, 1, 0))
        file.write(struct.pack("<IIHH", 0, leaf, 0, 0) + struct.pack("<IIHH", 4, leaf, 0, 0))
    with (
        opened(path) as fs,
        pytest.raises(CorruptError, match=f"block {leaf}: ei_leaf is {leaf}"),
    ):
        fs.read(ino, 0, 1 << 20)


def test_indirect_block_that_names_itself(tmp_path: Path) -> None:
    path = image(tmp_path / "disk.img", 8 << 20, "-b", "1024", "-t", "ext2")
    _fill(path)
    with opened(path) as fs:
        ino = fs.lookup(2, b"sparse")
        assert ino
        double = struct.unpack_from("<I", fs.inodes[ino].block, 13 * 4)[0]
    assert double
    with open(path, "r+b") as file:
        file.seek(double * 1024)
        file.write(struct.pack("<I", double) * 256)
    with opened(path) as fs, pytest.raises(CorruptError, match="is there twice"):
        fs.read(ino, 0, 4 << 20)


def test_directory_entry_without_length(tmp_path: Path) -> None:
    path = _image_without_checksums(tmp_path)
    with opened(path) as fs:
        place = fs.place(fs.inodes[2], 0)
        assert place
    with open(path, "r+b") as file:
        file.seek(place * 1024 + 12 + 4)
        file.write(b"\0\0")
    with opened(path) as fs, pytest.raises(CorruptError, match="rec_len is 0 at offset 12"):
        list(fs.entries(2))
