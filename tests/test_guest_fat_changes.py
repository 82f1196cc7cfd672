"""FAT written to: random changes against a model, judged by fsck.vfat and mtools; single verbs; power cuts."""

from __future__ import annotations

import errno
import os
import random
import shutil
import struct
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import guest_fat as g
import judges
from cowshed.block.filter.record import FLUSH, Log, RecordNode
from cowshed.block.graph import open_image
from cowshed.errors import CorruptError
from cowshed.guest.filesystem import fat
from cowshed.guest.filesystem.base import FileSystem, GuestError
from crash import workspace
from crash_states import Disk, states

NAMES = [
    "a", "B.TXT", "lower.txt", "Mixed Case Name.txt", "ä ö ü.dat", "x" * 100, ".profile", "a.b.c", "foo+bar.[x]",
    "LONGFILENAME1.TXT", "longfilename2.txt", "longfilename3.txt", "Ünïcödé", "n" * 255, "d1", "Directory Two", "sub",
]  # fmt: skip
SMALL = {
    "floppy": (1440 * g.KIB, ()),
    "16": (5 * g.MIB, ("-F", "16", "-s", "2")),
    "32": (34 * g.MIB, ("-F", "32", "-s", "1")),
    "32 few": (g.MIB, ("-F", "32", "-s", "1", "-f", "1")),
    "12 large clusters": (4 * g.MIB, ("-F", "12", "-s", "32", "-n", "LABEL")),
}  # fmt: skip

Tree = dict[str, Any]


class Model:
    """What the files should be: path -> content, None for directories; names differ in more than case."""

    def __init__(self) -> None:
        self.items: dict[str, bytes | None] = {}

    def directories(self) -> list[str]:
        return ["", *(path for path, content in self.items.items() if content is None)]

    def find(self, directory: str, name: str) -> str | None:
        wanted = f"{directory}/{name}".upper()
        return next((path for path in self.items if path.upper() == wanted), None)

    def below(self, path: str) -> list[str]:
        return [one for one in self.items if one.startswith(path + "/")]


def inode(fs: FileSystem, path: str) -> int:
    ino = fs.root
    for part in filter(None, path.split("/")):
        found = fs.lookup(ino, part.encode())
        assert found is not None, path
        ino = found
    return ino


def expect(number: int | None, call: Any, *args: Any, **kw: Any) -> bool:
    """Did it work? It may fail with ENOSPC, and must fail with ``number`` where there is one."""
    try:
        call(*args, **kw)
    except GuestError as error:
        if number is None and error.errno == errno.ENOSPC:
            return False
        assert error.errno == number, (error, number)
        return False
    assert number is None, number
    return True


def step(fs: FileSystem, model: Model, rng: random.Random, now: int) -> None:
    """One random verb on both."""
    verb = rng.choice(
        ["create", "create", "mkdir", "write", "write", "truncate", "unlink", "rmdir", "rename", "rename", "times"]
    )
    where = rng.choice(model.directories())
    name = rng.choice(NAMES)
    if rng.random() < 0.2:
        name = name.swapcase()
        if name.upper() not in {one.upper() for one in NAMES}:
            return
    there = model.find(where, name)
    parent = inode(fs, where)
    raw = name.encode()
    files = [path for path, content in model.items.items() if content is not None]
    if verb in ("create", "mkdir"):
        mode = 0o100644 if verb == "create" else 0o40755
        if expect(errno.EEXIST if there else None, fs.create, parent, raw, mode, 0, 0, now):
            model.items[f"{where}/{name}"] = b"" if verb == "create" else None
    elif verb in ("write", "truncate", "times") and files:
        path = rng.choice(files)
        ino = inode(fs, path)
        content = model.items[path]
        assert content is not None
        if verb == "times":
            fs.set_attributes(ino, now, mtime=now, mode=rng.choice([0o755, 0o555]))
        elif verb == "write":
            offset = rng.choice([0, len(content), rng.randrange(len(content) + 3000)])
            data = rng.randbytes(rng.choice([1, 100, 512, 4096, rng.randrange(40_000)]))
            if expect(None, fs.write, ino, offset, data, now) and data:
                base = content.ljust(offset, b"\0")
                model.items[path] = base[:offset] + data + base[offset + len(data) :]
        else:
            size = rng.choice([0, 1, len(content) // 2, len(content) + 5000, 2048])
            if expect(None, fs.truncate, ino, size, now):
                model.items[path] = content[:size].ljust(size, b"\0")
    elif verb == "unlink":
        number = errno.ENOENT if there is None else errno.EISDIR if model.items[there] is None else None
        if expect(number, fs.unlink, parent, raw, now):
            assert there is not None
            del model.items[there]
    elif verb == "rmdir":
        number = None
        if there is None:
            number = errno.ENOENT
        elif model.items[there] is not None:
            number = errno.ENOTDIR
        elif model.below(there):
            number = errno.ENOTEMPTY
        if expect(number, fs.rmdir, parent, raw, now):
            assert there is not None
            del model.items[there]
    elif verb == "rename":
        rename(fs, model, rng, now, where, name, there)


def rename(
    fs: FileSystem, model: Model, rng: random.Random, now: int, where: str, name: str, there: str | None
) -> None:
    target, new = rng.choice(model.directories()), rng.choice(NAMES)
    other = model.find(target, new)
    number = None
    if there is None:
        number = errno.ENOENT
    elif other == there:
        pass
    elif model.items[there] is None and (target + "/").startswith(there + "/"):
        number = errno.EINVAL
    elif other is not None and model.items[other] is None:
        number = errno.EISDIR if model.items[there] is not None else errno.ENOTEMPTY if model.below(other) else None
    elif other is not None and model.items[there] is None:
        number = errno.ENOTDIR
    done = expect(number, fs.rename, inode(fs, where), name.encode(), inode(fs, target), new.encode(), now)
    if done and there is not None:
        # one that is replaced keeps its name's case
        path = f"{target}/{new}" if other in (None, there) else str(other)
        if other not in (None, there):
            del model.items[str(other)]
        moved = {path + one[len(there) :]: model.items.pop(one) for one in [there, *model.below(there)]}
        model.items |= moved


@settings(max_examples=60)
@given(variant=st.sampled_from(sorted(SMALL)), seed=st.integers(0, 1 << 32), steps=st.integers(1, 80))
def test_random_changes(variant: str, seed: int, steps: int) -> None:
    folder = Path(tempfile.mkdtemp(prefix="fat", dir="/dev/shm" if os.access("/dev/shm", os.W_OK) else None))
    try:
        changes(folder, variant, seed, steps)
    finally:
        shutil.rmtree(folder)


def changes(folder: Path, variant: str, seed: int, steps: int) -> None:
    rng = random.Random(seed)
    size, options = SMALL[variant]
    image = folder / "x.img"
    judges.run("mkfs.vfat", *options, g.blank(image, size))
    model, saved = Model(), {}
    with g.opened(image, True) as fs:
        for number in range(steps):
            step(fs, model, rng, g.NOW + number * 2 * 10**9)
            kind = rng.random()
            if kind < 0.15:
                fs.sync()
                saved = dict(model.items)
            elif kind < 0.18:
                fs.discard_changes()
                model.items = dict(saved)
        assert g.tree(fs) == model.items
        fs.sync()
        assert g.tree(fs) == model.items
    g.fsck(image)
    with g.opened(image) as fs:
        assert g.tree(fs) == model.items
    if variant != "32 few":
        assert g.mtools_tree(image, folder / "out") == model.items


# ---- verbs


@pytest.fixture(params=["16", "32"])
def image(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    size, options = SMALL[request.param]
    judges.run("mkfs.vfat", *options, g.blank(tmp_path / "x.img", size))
    return tmp_path / "x.img"


def test_many_files_and_a_large_one(image: Path, tmp_path: Path) -> None:
    data = os.urandom(2 * g.MIB + 1)
    with g.opened(image, True) as fs:
        folder = fs.create(fs.root, b"many", 0o40755, 0, 0, g.NOW)
        for number in range(600):
            ino = fs.create(folder, b"a file with the number %d.text" % number, 0o100644, 0, 0, g.NOW)
            fs.write(ino, 0, b"%d" % number, g.NOW)
        big = fs.create(fs.root, b"big", 0o100644, 0, 0, g.NOW)
        for at in range(0, len(data), 300_000):
            fs.write(big, at, data[at : at + 300_000], g.NOW)
        fs.sync()
        assert len(list(fs.extents(big, 0, len(data)))) == 1
    g.fsck(image)
    out = g.mtools_tree(image, tmp_path / "out")
    assert out["/big"] == data and len(out) == 602 and out["/many/a file with the number 599.text"] == b"599"


def test_nothing_is_written_before_sync(image: Path) -> None:
    before = image.read_bytes()
    with g.opened(image, True) as fs:
        ino = fs.create(fs.root, b"x", 0o100644, 0, 0, g.NOW)
        fs.write(ino, 0, bytes(100_000), g.NOW)
        fs.set_label("other")
        fs.discard_changes()
        assert g.tree(fs) == {} and fs.label == ""
        fs.sync()
    assert image.read_bytes() == before


def test_numbers_outlive_forgotten_changes(image: Path) -> None:
    with g.opened(image, True) as fs:
        outer = fs.create(fs.root, b"outer", 0o40755, 0, 0, g.NOW)
        inner = fs.create(outer, b"inner", 0o40755, 0, 0, g.NOW)
        file = fs.create(inner, b"file", 0o100644, 0, 0, g.NOW)
        fs.sync()
        for _ in range(2):
            fs.discard_changes()
            fs.write(file, 0, b"data", g.NOW)
            assert fs.read(file, 0, 9) == b"data"
        fs.discard_changes()
        assert fs.lookup(inner, b"..") == outer and fs.read(file, 0, 9) == b""


def test_a_renamed_file_keeps_its_inode(image: Path) -> None:
    with g.opened(image, True) as fs:
        one = fs.create(fs.root, b"one", 0o100644, 0, 0, g.NOW)
        fs.write(one, 0, b"first", g.NOW)
        folder = fs.create(fs.root, b"folder", 0o40755, 0, 0, g.NOW)
        fs.rename(fs.root, b"one", folder, b"two", g.NOW)
        fs.sync()
        three = fs.create(fs.root, b"three", 0o100644, 0, 0, g.NOW)
        assert three != one and fs.lookup(folder, b"two") == one
        fs.write(one, 5, b" and more", g.NOW)
        fs.write(three, 0, b"third", g.NOW)
        assert fs.read(one, 0, 99) == b"first and more" and fs.read(three, 0, 99) == b"third"
        fs.rename(fs.root, b"folder", fs.root, b"FOLDER", g.NOW)
        assert {name for name, _, _ in fs.entries(fs.root)} == {b".", b"..", b"FOLDER", b"three"}
        fs.sync()
    g.fsck(image)


def test_label_and_volume_id(image: Path) -> None:
    for label in ("first", "Zweites x", "", "THIRD"):
        with g.opened(image, True) as fs:
            fs.set_label(label)
            fs.set_uuid("CAFE-0001")
            fs.sync()
        g.fsck(image)
        with g.opened(image) as fs:
            assert (fs.label, fs.uuid) == (label, "CAFE-0001")
        assert ("Volume in drive : is " + label if label else "has no label") in g.mtools("mdir", image, "::/")
    with g.opened(image, True) as fs:
        for bad in ("twelve chars", "a/b", "\x01", "Ä"):
            expect(errno.EINVAL, fs.set_label, bad)
        expect(errno.EINVAL, fs.set_uuid, "12345")


def test_what_fat_cannot_keep(image: Path) -> None:
    with g.opened(image, True) as fs:
        root = fs.root
        ino = fs.create(root, b"x", 0o100600, 0, 0, g.NOW)
        for mode in (0o120777, 0o20600, 0o60600, 0o10600, 0o140600):
            expect(errno.EPERM, fs.create, root, b"y", mode, 0, 0, g.NOW, target=b"x")
        expect(errno.EPERM, fs.link, ino, root, b"z", g.NOW)
        expect(errno.EPERM, fs.set_attributes, ino, g.NOW, uid=1000)
        expect(errno.EPERM, fs.set_attributes, ino, g.NOW, mode=0o4755)
        for mode, kept in ((0o444, 0o755), (0o555, 0o555), (0o644, 0o555), (0o777, 0o755)):
            fs.set_attributes(ino, g.NOW, mode=mode)
            assert fs.stat(ino).mode == 0o100000 | kept
        when = 1_600_000_001 * 10**9
        fs.set_attributes(ino, g.NOW, atime=when, mtime=when)
        found = fs.stat(ino)
        assert (found.mtime, found.atime) == (when - 10**9, when // (86400 * 10**9) * 86400 * 10**9)
        assert found.btime == g.NOW
        expect(errno.EFBIG, fs.truncate, ino, 1 << 32, g.NOW)
        expect(errno.ENOSPC, fs.truncate, ino, (1 << 32) - 1, g.NOW)
        for name, number in ((b"a:b", errno.EINVAL), (b"x" * 256, errno.ENAMETOOLONG), (b"\xff", errno.EINVAL)):
            expect(number, fs.create, root, name, 0o100644, 0, 0, g.NOW)
        expect(errno.EEXIST, fs.create, root, b"X", 0o100644, 0, 0, g.NOW)


def test_new_clusters_read_as_zeroes(tmp_path: Path) -> None:
    """Whatever lay in them before: in holes, after the end, and after another file."""
    path = tmp_path / "x.img"
    path.write_bytes(b"\xaa" * 3 * g.MIB)
    with open_image(str(path), fmt="raw", writable=True) as node:
        fat.make(node)
    with g.opened(path, True) as fs:
        ino = fs.create(fs.root, b"x", 0o100644, 0, 0, g.NOW)
        fs.write(ino, 10, b"ten", g.NOW)
        fs.write(ino, 9000, b"nine", g.NOW)
        fs.truncate(ino, 20_000, g.NOW)
        fs.sync()
        fs.truncate(ino, 5, g.NOW)
        fs.truncate(ino, 12_000, g.NOW)
        assert fs.read(ino, 0, 1 << 20) == bytes(12_000)
        fs.truncate(ino, 0, g.NOW)
        fs.write(ino, 100_000, b"end", g.NOW)
        fs.sync()
        assert fs.read(ino, 0, 1 << 20) == bytes(100_000) + b"end"
    g.fsck(path)


def test_full(image: Path) -> None:
    """ENOSPC changes nothing, and what is freed can be taken again, in the same change too."""
    with g.opened(image, True) as fs:
        ino = fs.create(fs.root, b"x", 0o100644, 0, 0, g.NOW)
        free = fs.statvfs()
        size = free.bfree * free.bsize
        fs.write(ino, 0, b"x" * size, g.NOW)
        expect(errno.ENOSPC, fs.create, fs.root, b"d", 0o40755, 0, 0, g.NOW)
        expect(errno.ENOSPC, fs.write, ino, size, b"y", g.NOW)
        fs.sync()
        assert fs.statvfs().bfree == 0
        fs.truncate(ino, 0, g.NOW)
        fs.write(ino, 0, b"y" * size, g.NOW)
        fs.sync()
    g.fsck(image)


def test_the_first_entry_is_given_away_once(image: Path) -> None:
    """Several names in one change, where the directory's first entry is free."""
    with g.opened(image, True) as fs:
        fs.create(fs.root, b"FIRST", 0o100644, 0, 0, g.NOW)
        fs.create(fs.root, b"LAST", 0o100644, 0, 0, g.NOW)
        fs.sync()
        fs.unlink(fs.root, b"FIRST", g.NOW)
        fs.sync()
        for name in (b"A", b"B", b"C"):
            fs.write(fs.create(fs.root, name, 0o100644, 0, 0, g.NOW), 0, name, g.NOW)
        fs.unlink(fs.root, b"LAST", g.NOW)
        fs.write(fs.create(fs.root, b"LAST", 0o100644, 0, 0, g.NOW), 0, b"last", g.NOW)
        fs.sync()
        assert g.tree(fs) == {"/A": b"A", "/B": b"B", "/C": b"C", "/LAST": b"last"}
    g.fsck(image)


def test_full_root_directory(tmp_path: Path) -> None:
    path = tmp_path / "x.img"
    judges.run("mkfs.vfat", "-r", "32", "-F", "12", g.blank(path, g.MIB))
    with g.opened(path, True) as fs:
        for number in range(32):
            fs.create(fs.root, b"FILE%d" % number, 0o100644, 0, 0, g.NOW)
        expect(errno.ENOSPC, fs.create, fs.root, b"MORE", 0o100644, 0, 0, g.NOW)
        fs.unlink(fs.root, b"FILE3", g.NOW)
        fs.create(fs.root, b"MORE", 0o100644, 0, 0, g.NOW)
        fs.sync()
    g.fsck(path)


def test_fsinfo_and_second_table(tmp_path: Path) -> None:
    path = tmp_path / "x.img"
    judges.run("mkfs.vfat", "-F", "32", "-s", "1", g.blank(path, 34 * g.MIB))
    with g.opened(path, True) as fs:
        ino = fs.create(fs.root, b"x", 0o100644, 0, 0, g.NOW)
        fs.write(ino, 0, bytes(range(256)) * 1000, g.NOW)
        fs.sync()
        boot = fs.boot  # type: ignore[attr-defined]
        free = fs.statvfs().bfree
    raw = path.read_bytes()
    assert struct.unpack_from("<I", raw, boot.fsinfo + 488)[0] == free
    first, second = (raw[at : at + boot.fat_size] for at in boot.fat_copies())
    assert first == second
    assert not raw[boot.record_at + 1] & 1


# ---- power cuts


def before_the_cut(fs: FileSystem, rng: random.Random) -> None:
    for number in range(25):
        ino = fs.create(fs.root, b"file with a long name %d" % number, 0o100644, 0, 0, g.NOW)
        fs.write(ino, 0, rng.randbytes(rng.randrange(1, 9000)), g.NOW)
    folder = fs.create(fs.root, b"folder", 0o40755, 0, 0, g.NOW)
    for number in range(20):
        ino = fs.create(folder, b"inner %d" % number, 0o100644, 0, 0, g.NOW)
        fs.write(ino, 0, rng.randbytes(rng.randrange(1, 9000)), g.NOW)
    fs.sync()


def scene_create(fs: FileSystem) -> None:
    folder = fs.create(fs.root, b"a new directory", 0o40755, 0, 0, g.NOW)
    for number in range(30):
        ino = fs.create(folder if number % 2 else fs.root, b"something new %d" % number, 0o100644, 0, 0, g.NOW)
        fs.write(ino, 0, b"%d" % number * 3000, g.NOW)


def scene_remove(fs: FileSystem) -> None:
    for number in range(0, 25, 2):
        fs.unlink(fs.root, b"file with a long name %d" % number, g.NOW)


def scene_rename(fs: FileSystem) -> None:
    folder = inode(fs, "/folder")
    fs.rename(fs.root, b"file with a long name 1", folder, b"moved", g.NOW)
    fs.rename(fs.root, b"file with a long name 2", fs.root, b"file with a long name 3", g.NOW)
    fs.rename(folder, b"inner 7", fs.root, b"outer", g.NOW)


def scene_rename_over(fs: FileSystem) -> None:
    """Over names in other sectors and directories: what is renamed is not lost."""
    folder = inode(fs, "/folder")
    fs.rename(fs.root, b"file with a long name 2", fs.root, b"file with a long name 23", g.NOW)
    fs.rename(fs.root, b"file with a long name 5", folder, b"inner 9", g.NOW)
    fs.rename(folder, b"inner 11", fs.root, b"file with a long name 8", g.NOW)


def scene_append(fs: FileSystem) -> None:
    for number in range(0, 25, 3):
        ino = inode(fs, f"/file with a long name {number}")
        fs.write(ino, fs.stat(ino).size, b"appended" * 1000, g.NOW)


def scene_replace(fs: FileSystem) -> None:
    """As an editor does: a new file takes the place of the old one; and as a shell does: emptied and written."""
    ino = fs.create(fs.root, b"file.tmp", 0o100644, 0, 0, g.NOW)
    fs.write(ino, 0, b"edited" * 2000, g.NOW)
    fs.rename(fs.root, b"file.tmp", fs.root, b"file with a long name 4", g.NOW)
    ino = inode(fs, "/folder/inner 3")
    fs.truncate(ino, 0, g.NOW)
    fs.write(ino, 0, b"written anew" * 999, g.NOW)
    fs.unlink(fs.root, b"file with a long name 9", g.NOW)
    ino = fs.create(fs.root, b"file with a long name 9", 0o100644, 0, 0, g.NOW)
    fs.write(ino, 0, b"again" * 2000, g.NOW)


SCENES = {
    one.__name__[6:]: one
    for one in (scene_create, scene_remove, scene_rename, scene_rename_over, scene_append, scene_replace)
}
CUT = {"12": ("-F", "12"), "16": ("-F", "16", "-s", "1"), "32": ("-F", "32", "-s", "1")}


@pytest.mark.parametrize("variant", CUT)
@pytest.mark.parametrize("scene", SCENES)
def test_power_cut(scene: str, variant: str, figures: Any) -> None:
    folder = workspace()
    try:
        number = cut(folder, SCENES[scene], CUT[variant])
    finally:
        shutil.rmtree(folder)
    figures.add("fat: cut states judged", number)


def cut(folder: Path, scene: Any, options: tuple[str, ...]) -> int:
    path = folder / "x.img"
    judges.run("mkfs.vfat", *options, g.blank(path, 3 * g.MIB))
    with g.opened(path, True) as fs:
        before_the_cut(fs, random.Random(7))
        old = g.tree(fs)
    content = path.read_bytes()
    log = Log()
    with log, open_image(str(path), fmt="raw", writable=True) as node:
        fs = fat.open(RecordNode(node, log), True)
        scene(fs)
        fs.sync()
        new = g.tree(fs)
        count = 0
        for image in materialised(folder / "cut.img", content, log, 60):
            count += 1
            judge_cut(image, old, new)
        g.fsck(path)
    return count


def materialised(path: Path, content: bytes, log: Log, budget: int) -> Iterator[Path]:
    disk = Disk(path, content)
    made = 0
    try:
        for state in states(log.events, budget, 1):
            while made < state.durable:
                if log.events[made].kind != FLUSH:
                    disk.apply(log.events[made], log)
                made += 1
            disk.begin()
            for number in sorted(state.part):
                disk.apply(log.events[number], log, state.part[number])
            shutil.copyfile(path, path.with_name("judged.img"))
            yield path.with_name("judged.img")
            disk.rollback()
    finally:
        disk.close()


def judge_cut(image: Path, old: dict[str, bytes | None], new: dict[str, bytes | None]) -> None:
    """fsck.vfat mends it; nothing that should be there is lost; nothing has contents that it never had."""
    said = g.repair(image)
    g.fsck(image)
    with g.opened(image) as fs:
        found = g.tree(fs)
    contents = {content for tree in (old, new) for content in tree.values()}
    for path, content in old.items():
        if new.get(path, 0) == content:
            assert found.get(path, 0) == content, (path, said)
    for path, content in found.items():
        if path.upper().startswith("/FSCK"):
            continue
        wanted = {old.get(path, b""), new.get(path, b"")}
        if "share clusters" in said and path in new and old.get(path) != new[path]:
            # of two names for one file fsck leaves one empty
            wanted.add(b"")
        assert content in wanted or content in contents, (path, said, content and len(content))
    everything = set(found.values())
    for path, content in old.items():
        if content and path not in new:
            # a name that goes: renamed to where the same content is, or gone for good
            assert content in everything or content not in new.values(), (path, said)


def test_nothing_is_written_when_memory_is_wrong(image: Path) -> None:
    """sync verifies first: a chain that was damaged in memory never gets to the disk."""
    with g.opened(image, True) as fs:
        ino = fs.create(fs.root, b"x", 0o100644, 0, 0, g.NOW)
        fs.write(ino, 0, bytes(50_000), g.NOW)
        before = image.read_bytes()
        fs.table.set(fs._entry(ino).start, 0x0FFFFFFF)  # type: ignore[attr-defined]
        with pytest.raises(CorruptError, match="Nothing was written"):
            fs.sync()
    assert image.read_bytes() == before
