"""FAT that is damaged on purpose or by chance: walks end, memory is bounded, and the error is one of ours."""

from __future__ import annotations

import random
import resource
import struct
from pathlib import Path
from typing import Any

import pytest

import guest_fat as g
import judges
from cowshed.errors import CorruptError, CowshedError
from cowshed.guest.filesystem.base import FileSystem
from cowshed.guest.filesystem.fat.boot import Boot
from cowshed.guest.filesystem.fat.directory import Entry


class Victim:
    """A FAT16 file system with /dir/inner, /file of several clusters and /other, and ways to damage it."""

    def __init__(self, path: Path, *options: str) -> None:
        self.path = path
        judges.run("mkfs.vfat", *(options or ("-F", "16", "-s", "1")), g.blank(path, 5 * g.MIB))
        with g.opened(path, True) as fs:
            for name, size in ((b"file", 5000), (b"other", 3000)):
                fs.write(fs.create(fs.root, name, 0o100644, 0, 0, g.NOW), 0, bytes(size), g.NOW)
            self.dir = fs.create(fs.root, b"dir", 0o40755, 0, 0, g.NOW)
            self.inner = fs.create(self.dir, b"inner", 0o40755, 0, 0, g.NOW)
            for number in range(40):
                fs.create(self.inner, b"some longer name %d" % number, 0o100644, 0, 0, g.NOW)
            fs.sync()
            self.numbers = {name: fs.lookup(fs.root, name) for name in (b"file", b"other", b"dir")}
            self.boot: Boot = fs.boot  # type: ignore[attr-defined]
        self.data = bytearray(path.read_bytes())

    def at(self, name: bytes) -> int:
        """Where an entry lies."""
        number = self.numbers[name]
        assert number is not None
        return number * 32

    def start(self, at: int) -> int:
        return Entry(self.data[at : at + 32], False).start

    def set_start(self, at: int, cluster: int) -> None:
        struct.pack_into("<H", self.data, at + 26, cluster)

    def set_fat(self, cluster: int, value: int) -> None:
        for copy in self.boot.fat_copies():
            struct.pack_into("<H", self.data, copy + 2 * cluster, value)

    def save(self) -> Path:
        self.path.write_bytes(self.data)
        return self.path


@pytest.fixture
def victim(tmp_path: Path) -> Victim:
    return Victim(tmp_path / "x.img")


def walk(fs: FileSystem, limit: int = 100_000) -> None:
    """As a careless walker would: it must come to an end by itself."""
    todo = [fs.root]
    while todo:
        for name, ino, kind in fs.entries(todo.pop()):
            limit -= 1
            assert limit, "a walk without end"
            if name in (b".", b".."):
                continue
            fs.stat(ino)
            if kind == "d":
                todo.append(ino)
            else:
                fs.read(ino, 0, 1 << 20)


def refused(path: Path, text: str) -> CorruptError:
    with g.opened(path) as fs, pytest.raises(CorruptError, match=text) as caught:
        walk(fs)
    assert caught.value.offset is not None and caught.value.detail
    return caught.value


def test_chain_that_leads_back(victim: Victim) -> None:
    start = victim.start(victim.at(b"file"))
    victim.set_fat(start + 3, start)
    refused(victim.save(), "leads back into itself")


def test_directory_chain_that_leads_back(victim: Victim) -> None:
    start = victim.start(victim.at(b"dir"))
    victim.set_fat(start, start)
    refused(victim.save(), "leads back into itself")


@pytest.mark.parametrize(("value", "text"), [(0, "free"), (0xFFF7, "bad"), (0xFFF0, "impossible"), (1, "impossible")])
def test_chain_to_nowhere(victim: Victim, value: int, text: str) -> None:
    victim.set_fat(victim.start(victim.at(b"file")) + 2, value)
    refused(victim.save(), f"leads to an? {text}|leads to a {text}")


def test_chain_too_short(victim: Victim) -> None:
    victim.set_fat(victim.start(victim.at(b"file")) + 2, 0xFFFF)
    refused(victim.save(), "too short")


@pytest.mark.parametrize("start", [0, 1, 0xFFFF])
def test_start_that_cannot_be(victim: Victim, start: int) -> None:
    victim.set_start(victim.at(b"file"), start)
    refused(victim.save(), "without a cluster")
    victim.set_start(victim.at(b"dir"), start)
    refused(victim.save(), "without a cluster")


def test_directory_in_itself(victim: Victim) -> None:
    victim.set_start(victim.inner * 32, victim.start(victim.at(b"dir")))
    refused(victim.save(), "linked twice")


def test_directory_with_its_own_entry(victim: Victim) -> None:
    """The entry's own cluster is what it leads to: each level has the same number."""
    second = victim.boot.clusters
    start = victim.start(victim.at(b"dir"))
    victim.set_fat(start, second)
    victim.set_fat(second, 0xFFFF)
    at = victim.boot.cluster_at(second)
    victim.data[at : at + 32] = victim.data[victim.inner * 32 : victim.inner * 32 + 32]
    victim.set_start(at, second)
    victim.data[victim.inner * 32] = 0xE5
    # the slots between must not end the directory
    for slot in range(victim.boot.cluster_at(start), victim.boot.cluster_at(start) + 512, 32):
        if not victim.data[slot]:
            victim.data[slot] = 0xE5
    refused(victim.save(), "linked twice|share a cluster")


def test_directories_that_share_clusters(victim: Victim) -> None:
    """Twice the same directory at each level would be a tree of 2 ** depth."""
    other = victim.at(b"other")
    victim.data[other + 11] = 0x10
    victim.set_start(other, victim.start(victim.at(b"dir")))
    refused(victim.save(), "linked twice")


def test_directory_without_end(tmp_path: Path) -> None:
    """More than 65536 entries: nothing of it is taken for a directory."""
    path = tmp_path / "x.img"
    judges.run("mkfs.vfat", "-F", "32", "-s", "1", g.blank(path, 40 * g.MIB))
    with g.opened(path, True) as fs:
        big = fs.create(fs.root, b"big", 0o100644, 0, 0, g.NOW)
        fs.write(big, 0, b"\xe5" * (3 << 20), g.NOW)
        fs.sync()
    data = bytearray(path.read_bytes())
    data[big * 32 + 11] = 0x10
    path.write_bytes(data)
    refused(path, "longer than 65536 entries")


def test_writing_beside_damage(victim: Victim) -> None:
    """What can't be freed is not half freed, and the rest can be written to."""
    victim.set_fat(victim.start(victim.at(b"file")) + 2, 0)
    path = victim.save()
    before = path.read_bytes()
    with g.opened(path, True) as fs:
        with pytest.raises(CorruptError):
            fs.unlink(fs.root, b"file", g.NOW)
        fs.discard_changes()
        fs.sync()
        assert path.read_bytes() == before
        ino = fs.lookup(fs.root, b"other")
        assert ino is not None
        fs.write(ino, 0, b"changed", g.NOW)
        fs.sync()
        assert fs.read(ino, 0, 7) == b"changed"


@pytest.mark.parametrize(
    ("offset", "fmt", "value"),
    [(11, "<H", 513), (13, "B", 3), (14, "<H", 0), (16, "B", 0), (17, "<H", 3), (19, "<H", 3), (21, "B", 1)],
)
def test_boot_sector_that_makes_no_sense(victim: Victim, offset: int, fmt: str, value: int) -> None:
    struct.pack_into(fmt, victim.data, offset, value)
    with pytest.raises(CowshedError), g.opened(victim.save()):
        pass


def test_huge_numbers_take_no_memory(tmp_path: Path) -> None:
    """A file system that says it has 2 ** 28 clusters: nothing of that size is allocated to open and walk it."""
    path = tmp_path / "x.img"
    judges.run("mkfs.vfat", "-F", "32", g.blank(path, 40 * g.MIB))
    with open(path, "r+b") as file:
        file.seek(32)
        file.write(struct.pack("<II", 0x10300000, 0x200000))
        file.truncate(2 << 40)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with g.opened(path) as fs:
        assert fs.boot.clusters == 0x10300000 - 0x400000 - 32  # type: ignore[attr-defined]
        walk(fs)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100 << 10


def test_truncated_device(victim: Victim) -> None:
    path = victim.save()
    with open(path, "r+b") as file:
        file.truncate(2 * g.MIB)
    with pytest.raises(CorruptError, match="longer than its device"), g.opened(path, True):
        pass
    with g.opened(path) as fs:
        walk(fs)


@pytest.mark.parametrize("options", [("-F", "12", "-s", "8"), ("-F", "16", "-s", "1"), ("-F", "32", "-s", "1")])
def test_mutants(options: tuple[str, ...], tmp_path: Path, figures: Any) -> None:
    """Random damage to boot sector, tables and directories: reading, and writing where reading goes."""
    path = tmp_path / "x.img"
    size = 5 * g.MIB
    judges.run("mkfs.vfat", *options, g.blank(path, size))
    with g.opened(path, True) as fs:
        folder = fs.create(fs.root, b"a directory", 0o40755, 0, 0, g.NOW)
        for number in range(60):
            where = (fs.root, folder)[number % 2]
            ino = fs.create(where, b"a file with a name %d" % number, 0o100644, 0, 0, g.NOW)
            fs.write(ino, 0, bytes(number * 100), g.NOW)
        fs.sync()
    whole = path.read_bytes()
    used = [at for at in range(0, len(whole), 512) if any(whole[at : at + 512])]
    rng = random.Random(11)
    for _ in range(60):
        data = bytearray(whole)
        for _ in range(rng.choice([1, 1, 3, 20])):
            at = (rng.choice([0, rng.choice(used)])) + rng.randrange(512)
            length = rng.choice([1, 2, 4])
            data[at : at + length] = rng.choice([rng.randbytes(length), bytes(length), b"\xff" * length])
        path.write_bytes(data)
        try:
            with g.opened(path) as fs:
                walk(fs)
        except CowshedError:
            pass
        try:
            with g.opened(path, True) as fs:
                ino = fs.create(fs.root, b"one more", 0o100644, 0, 0, g.NOW)
                fs.write(ino, 0, bytes(3000), g.NOW)
                fs.rename(fs.root, b"a file with a name 2", fs.root, b"b", g.NOW)
                fs.unlink(fs.root, b"a file with a name 4", g.NOW)
                fs.sync()
                assert fs.read(ino, 0, 5000) == bytes(3000)
        except CowshedError:
            pass
        figures.add("fat: mutants walked")
