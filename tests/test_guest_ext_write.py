"""What is written to ext2, ext3 and ext4 is what e2fsck finds clean and the kernel shows; making them, too."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import judges
from cowshed.block.graph import open_image
from cowshed.guest.filesystem import ext
from cowshed.guest.filesystem.base import GuestError
from cowshed.guest.filesystem.ext.filesystem import ExtFileSystem
from test_guest_ext import clean, image, kernel_tree, mounted, opened, same_as_kernel

NOW = 1_900_000_000 * 10**9

LAYOUTS = {
    "ext2": ("-t", "ext2", "-b", "1024"),
    "ext3": ("-t", "ext3", "-b", "4096"),
    "ext4": ("-t", "ext4", "-b", "1024"),
    "ext4-4k": ("-t", "ext4", "-b", "4096"),
    "inline": ("-t", "ext4", "-O", "inline_data"),
    "maps": ("-t", "ext4", "-O", "^extent,^64bit"),
    "uninit_bg": ("-t", "ext4", "-O", "^metadata_csum,uninit_bg"),
    "ea_inode": ("-t", "ext4", "-O", "ea_inode"),
    "meta_bg": ("-t", "ext4", "-O", "meta_bg,^resize_inode"),
    "no journal": ("-t", "ext4", "-O", "^has_journal"),
    "small inodes": ("-t", "ext4", "-I", "128"),
}

NAMES = st.sampled_from([b"a", b"b", b"c" * 100, b"d" * 255, b"\xff\x80", b"e", b"f", "ž".encode()])
STEP = st.one_of(
    st.tuples(st.just("file"), st.integers(0, 9), NAMES),
    st.tuples(st.just("folder"), st.integers(0, 9), NAMES),
    st.tuples(st.just("link"), st.integers(0, 9), NAMES, st.sampled_from([1, 59, 60, 300])),
    st.tuples(st.just("node"), st.integers(0, 9), NAMES, st.integers(0, 400), st.integers(0, 70000)),
    st.tuples(
        st.just("write"), st.integers(0, 99), st.integers(0, 300_000), st.sampled_from([1, 50, 1024, 5000, 99999])
    ),
    st.tuples(st.just("truncate"), st.integers(0, 99), st.sampled_from([0, 1, 60, 1024, 3000, 5000, 300_000])),
    st.tuples(st.just("remove"), st.integers(0, 9), NAMES),
    st.tuples(st.just("rename"), st.integers(0, 9), NAMES, st.integers(0, 9), NAMES),
    st.tuples(st.just("hard"), st.integers(0, 99), st.integers(0, 9), NAMES),
    st.tuples(st.just("mode"), st.integers(0, 99), st.integers(0, 0o7777), st.integers(0, 200_000)),
    st.tuples(st.just("xattr"), st.integers(0, 99), st.integers(0, 6), st.sampled_from([0, 3, 60, 300, 700])),
    st.tuples(st.just("unxattr"), st.integers(0, 99), st.integers(0, 6)),
    st.tuples(st.just("sync")),
    st.tuples(st.just("discard")),
)


class Model:
    """What the tree must be: directories as {name: node}; a node has its content and its attributes."""

    def __init__(self) -> None:
        self.kind = "d"
        self.names: dict[bytes, Model] = {}
        self.content = b""
        self.mode = 0o755
        self.uid = 0
        self.attributes: dict[bytes, bytes] = {}


def _folders(top: Model) -> list[tuple[Model, bytes]]:
    out, todo = [(top, b"")], [(top, b"")]
    while todo:
        node, path = todo.pop()
        for name in sorted(node.names):
            if node.names[name].kind == "d":
                item = (node.names[name], path + b"/" + name)
                out.append(item)
                todo.append(item)
    return out


def _all(top: Model) -> dict[bytes, Model]:
    return {path + b"/" + name: node for folder, path in _folders(top) for name, node in folder.names.items()}


def _find(fs: ExtFileSystem, path: bytes) -> int:
    ino = fs.root
    for name in filter(None, path.split(b"/")):
        found = fs.lookup(ino, name)
        assert found is not None
        ino = found
    return ino


def _step(fs: ExtFileSystem, top: Model, step: tuple[Any, ...], now: int) -> None:
    """One step on the file system and on the model; both refuse alike."""
    verb = step[0]
    folders = _folders(top)
    if verb in ("file", "folder", "link", "node"):
        folder, path = folders[step[1] % len(folders)]
        name = step[2]
        node = Model()
        node.kind = {"file": "r", "folder": "d", "link": "l", "node": "c"}[verb]
        mode = {"file": 0o100644, "folder": 0o40755, "link": 0o120777, "node": 0o20644}[verb]
        target = b"t" * step[3] if verb == "link" else b""
        rdev = os.makedev(step[3], step[4]) if verb == "node" else 0
        node.content = target
        node.mode = mode & 0o7777
        if name in folder.names:
            with pytest.raises(GuestError):
                fs.create(_find(fs, path), name, mode, 0, 0, now, rdev=rdev, target=target)
            return
        fs.create(_find(fs, path), name, mode, 0, 0, now, rdev=rdev, target=target)
        folder.names[name] = node
        return
    everything = _all(top)
    if verb == "remove":
        folder, path = folders[step[1] % len(folders)]
        node = folder.names.get(step[2])  # type: ignore[assignment]
        ino = _find(fs, path)
        if node is None or (node.kind == "d" and node.names):
            with pytest.raises(GuestError):
                (fs.unlink if node is None else fs.rmdir)(ino, step[2], now)
            return
        (fs.rmdir if node.kind == "d" else fs.unlink)(ino, step[2], now)
        del folder.names[step[2]]
        return
    if verb == "rename":
        (old, old_path), (new, new_path) = folders[step[1] % len(folders)], folders[step[3] % len(folders)]
        moved, there = old.names.get(step[2]), new.names.get(step[4])
        below = (
            moved is not None and moved.kind == "d" and (new_path + b"/").startswith(old_path + b"/" + step[2] + b"/")
        )
        wrong = (
            there is not None
            and moved is not None
            and there is not moved
            and ((there.kind == "d") != (moved.kind == "d") or bool(there.names))
        )
        if moved is None or below or wrong:
            with pytest.raises(GuestError):
                fs.rename(_find(fs, old_path), step[2], _find(fs, new_path), step[4], now)
            return
        fs.rename(_find(fs, old_path), step[2], _find(fs, new_path), step[4], now)
        if there is not moved:
            del old.names[step[2]]
            new.names[step[4]] = moved
        return
    if not everything:
        return
    path = sorted(everything)[step[1] % len(everything)]
    node = everything[path]
    ino = _find(fs, path)
    if verb == "write" and node.kind == "r":
        data = bytes((step[2] % 251,)) * step[3]
        fs.write(ino, step[2], data, now)
        node.content = node.content[: step[2]].ljust(step[2], b"\0") + data + node.content[step[2] + len(data) :]
    elif verb == "truncate" and node.kind == "r":
        fs.truncate(ino, step[2], now)
        node.content = node.content[: step[2]].ljust(step[2], b"\0")
    elif verb == "hard" and node.kind != "d":
        folder, into = folders[step[2] % len(folders)]
        if step[3] in folder.names:
            with pytest.raises(GuestError):
                fs.link(ino, _find(fs, into), step[3], now)
            return
        fs.link(ino, _find(fs, into), step[3], now)
        folder.names[step[3]] = node
    elif verb == "mode" and node.kind != "l":
        fs.set_attributes(ino, now, mode=step[2], uid=step[3])
        node.mode, node.uid = step[2], step[3]
    elif verb == "xattr" and node.kind in "rd":
        name, value = b"user.name%d" % step[2], bytes((step[3] % 251,)) * step[3]
        try:
            fs.set_xattr(ino, name, value, now)
        except GuestError as error:
            assert error.errno == 28
            return
        node.attributes[name] = value
    elif verb == "unxattr" and node.kind in "rd":
        name = b"user.name%d" % step[2]
        if name not in node.attributes:
            with pytest.raises(GuestError):
                fs.remove_xattr(ino, name, now)
            return
        fs.remove_xattr(ino, name, now)
        del node.attributes[name]


def _copy(node: Model, seen: dict[int, Model]) -> Model:
    if id(node) in seen:
        return seen[id(node)]
    new = seen[id(node)] = Model()
    new.__dict__.update(node.__dict__)
    new.attributes = dict(node.attributes)
    new.names = {name: _copy(child, seen) for name, child in node.names.items()}
    return new


@pytest.mark.parametrize("layout", LAYOUTS)
def test_random_changes(layout: str, tmp_path: Path) -> None:
    path = tmp_path / "disk.img"

    @settings(max_examples=5, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True)
    @given(st.lists(STEP, min_size=30, max_size=90))
    def check(steps: list[tuple[Any, ...]]) -> None:
        path.unlink(missing_ok=True)
        image(path, 40 << 20, *LAYOUTS[layout])
        top = Model()
        synced = _copy(top, {})
        with opened(path, writable=True) as fs:
            fs.rmdir(2, b"lost+found", NOW)
            fs.sync()
            for number, step in enumerate(steps):
                if step[0] == "sync":
                    fs.sync()
                    synced = _copy(top, {})
                elif step[0] == "discard":
                    fs.discard_changes()
                    top = _copy(synced, {})
                else:
                    _step(fs, top, step, NOW + number * 10**9)
            fs.sync()
        clean(path)
        shown = same_as_kernel(path)
        wanted = _all(top)
        assert shown.keys() == wanted.keys()
        for name, node in wanted.items():
            found = shown[name]
            if node.kind in "rl":
                assert found[11] == node.content
            if node.kind != "l":
                assert (found[1] & 0o7777, found[3]) == (node.mode, node.uid)
            assert found[12] == node.attributes

    check()


@pytest.mark.parametrize("layout", ["ext4", "ext3", "ext4-4k", "ext2"])
def test_big_indexed_directories(layout: str, tmp_path: Path) -> None:
    """Names are added to, and taken from, an index that grows levels; the kernel finds and adds names in it."""
    path = image(tmp_path / "disk.img", 64 << 20, *LAYOUTS[layout])
    names = [b"name-%d-%s" % (number, b"y" * (number % 90)) for number in range(5000)]
    with opened(path, writable=True) as fs:
        folder = fs.create(2, b"many", 0o40755, 0, 0, NOW)
        file = fs.create(2, b"file", 0o100644, 0, 0, NOW)
        for name in names:
            fs.link(file, folder, name, NOW)
        fs.sync()
        assert bool(fs.inodes[folder].flags & 0x1000) == (layout != "ext2")
    clean(path)
    same_as_kernel(path)
    with opened(path, writable=True) as fs:
        for name in names[::3]:
            fs.unlink(folder, name, NOW)
        fs.sync()
    clean(path)
    with mounted(path) as top:
        for name in names[1::3]:
            assert os.path.exists(os.fsencode(top) + b"/many/" + name)
        for number in range(500):
            (top / "many" / f"of-the-kernel-{number}").touch()
    clean(path)
    same_as_kernel(path)


def test_fragmented_files_have_deep_trees(tmp_path: Path) -> None:
    path = image(tmp_path / "disk.img", 64 << 20, "-t", "ext4", "-b", "1024")
    with opened(path, writable=True) as fs:
        ino = fs.create(2, b"fragmented", 0o100644, 0, 0, NOW)
        for number in range(9000):
            fs.write(ino, number * 2048, bytes((number % 251 + 1,)) * 700, NOW)
        fs.sync()
        assert fs.inodes[ino].block[6] == 2
    clean(path)
    assert same_as_kernel(path)[b"/fragmented"][11][2048 * 77 : 2048 * 77 + 700] == bytes((78,)) * 700
    with opened(path, writable=True) as fs:
        fs.truncate(ino, 2048 * 3 + 10, NOW)
        fs.sync()
        assert fs.inodes[ino].block[6] == 0
    clean(path)
    same_as_kernel(path)


def test_acls_and_set_group_id_are_inherited(tmp_path: Path) -> None:
    path = image(tmp_path / "disk.img", 64 << 20, "-t", "ext4")
    acl = bytes.fromhex("02000000 01000700ffffffff 02000700d2040000 04000500ffffffff 10000700ffffffff 20000500ffffffff")
    with opened(path, writable=True) as fs:
        for folder in (b"ours", b"theirs"):
            ino = fs.create(2, folder, 0o42755, 0, 77, NOW)
            fs.set_xattr(ino, b"system.posix_acl_default", acl, NOW)
            if folder == b"ours":
                fs.create(ino, b"file", 0o100640, 0, 0, NOW)
                fs.create(ino, b"folder", 0o40750, 0, 0, NOW)
        fs.sync()
    clean(path)
    with mounted(path) as top:
        os.close(os.open(top / "theirs/file", os.O_CREAT | os.O_WRONLY, 0o640))
        os.mkdir(top / "theirs/folder", 0o750)
        for name in ("file", "folder"):
            ours, theirs = top / "ours" / name, top / "theirs" / name
            assert (ours.stat().st_mode, ours.stat().st_gid) == (theirs.stat().st_mode, theirs.stat().st_gid)
            assert sorted(os.listxattr(ours)) == sorted(os.listxattr(theirs))
            for attribute in os.listxattr(ours):
                assert os.getxattr(ours, attribute) == os.getxattr(theirs, attribute)


def test_full_file_system(tmp_path: Path) -> None:
    path = image(tmp_path / "disk.img", 8 << 20, "-t", "ext4")
    with opened(path, writable=True) as fs:
        ino = fs.create(2, b"file", 0o100644, 0, 0, NOW)
        fs.write(ino, 0, b"kept", NOW)
        fs.sync()
        with pytest.raises(GuestError) as caught:
            fs.write(ino, 0, bytes(10 << 20), NOW)
        assert caught.value.errno == 28
        fs.discard_changes()
        assert fs.read(ino, 0, 10) == b"kept"
        fs.unlink(2, b"file", NOW)
        fs.sync()
    clean(path)


@pytest.mark.parametrize("layout", ["ext2", "ext4", "uninit_bg"])
def test_label_and_uuid(layout: str, tmp_path: Path) -> None:
    path = image(tmp_path / "disk.img", 64 << 20, *LAYOUTS[layout])
    with opened(path, writable=True) as fs:
        fs.create(2, b"file", 0o100644, 0, 0, NOW)
        fs.set_label("new label")
        fs.set_uuid("11111111-2222-3333-4444-555555555555")
        fs.sync()
    clean(path)
    same_as_kernel(path)
    with opened(path) as fs:
        assert (fs.label, fs.uuid) == ("new label", "11111111-2222-3333-4444-555555555555")


@pytest.mark.parametrize(
    ("kind", "size", "options"),
    [
        ("ext2", 1 << 20, {}),
        ("ext2", 64 << 20, {}),
        ("ext3", 64 << 20, {}),
        ("ext3", 3 << 30, {"block_size": 4096, "inode_size": 128}),
        ("ext4", (8 << 20) + 1536, {}),
        ("ext4", 64 << 20, {"label": "a label", "uuid": "11111111-2222-3333-4444-555555555555"}),
        ("ext4", 1 << 30, {}),
        ("ext4", 20 << 30, {}),
        ("ext4", 300 << 20, {"block_size": 4096, "features": "^has_journal"}),
        ("ext4", 200 << 20, {"block_size": 2048, "features": "inline_data,^64bit,^flex_bg"}),
        ("ext4", 100 << 20, {"features": "^metadata_csum,uninit_bg"}),
        ("ext4", 100 << 20, {"features": "ea_inode,^resize_inode,large_dir,metadata_csum_seed"}),
        ("ext4", 100 << 20, {"features": "^extent"}),
    ],
)
def test_made_file_systems(kind: str, size: int, options: dict[str, Any], tmp_path: Path) -> None:
    path = tmp_path / "disk.img"
    with open(path, "wb") as file:
        file.truncate(size)
    with open_image(str(path), fmt="raw", writable=True) as node:
        ext.make(node, kind, **options)
    clean(path)
    assert same_as_kernel(path).keys() == {b"/lost+found"}
    with mounted(path) as top:
        (top / "file").write_bytes(os.urandom(300_000))
    with opened(path, writable=True) as fs:
        assert fs.kind == kind
        if "label" in options:
            assert (fs.label, fs.uuid) == (options["label"], options["uuid"])
        folder = fs.create(2, b"folder", stat.S_IFDIR | 0o755, 0, 0, NOW)
        for number in range(200):
            fs.write(fs.create(folder, b"file%d" % number, 0o100644, 0, 0, NOW), 0, b"x" * 100, NOW)
            if size == 1 << 20 and number > 20:
                break
        fs.sync()
    clean(path)
    same_as_kernel(path)


def test_like_mke2fs(tmp_path: Path) -> None:
    """The features and the layout are those that mke2fs gives."""
    theirs, ours = image(tmp_path / "theirs.img", 600 << 20, "-t", "ext4"), tmp_path / "ours.img"
    with open(ours, "wb") as file:
        file.truncate(600 << 20)
    with open_image(str(ours), fmt="raw", writable=True) as node:
        ext.make(node, "ext4")
    with opened(theirs) as a, opened(ours) as b:
        for name in ("compat", "incompat", "ro_compat", "blocks", "inodes", "inode_size", "blocks_per_group",
                     "inodes_per_group", "reserved_gdt_blocks", "desc_size", "first_data_block"):  # fmt: skip
            assert getattr(a.sb, name) == getattr(b.sb, name), name
        assert a.inodes[8].size == b.inodes[8].size


def test_kernel_and_debugfs_see_the_same(tmp_path: Path) -> None:
    path = image(tmp_path / "disk.img", 64 << 20, "-t", "ext4")
    with opened(path, writable=True) as fs:
        ino = fs.create(2, b"file", 0o100644, 3, 4, NOW)
        fs.write(ino, 0, b"content\n", NOW)
        fs.sync()
    assert judges.run("debugfs", "-R", "cat /file", path).stdout == "content\n"
    with mounted(path, "ro") as top:
        assert kernel_tree(top)[b"/file"][11] == b"content\n"


@pytest.mark.torture
@pytest.mark.parametrize("features", ["large_dir", "^large_dir"])
def test_indexes_of_all_levels(features: str, tmp_path: Path) -> None:
    """Long names in small blocks: three levels with large_dir; without it full where the kernel finds it full."""
    path = image(tmp_path / "disk.img", 64 << 20, "-t", "ext4", "-b", "1024", "-O", features)
    with opened(path, writable=True) as fs:
        folder = fs.create(2, b"many", 0o40755, 0, 0, NOW)
        file = fs.create(2, b"file", 0o100644, 0, 0, NOW)
        count = 0
        try:
            while count < 34000:
                fs.link(file, folder, b"%06d-%s" % (count, b"n" * 240), NOW)
                count += 1
        except GuestError as error:
            assert error.errno == 28
        root = fs.place(fs.inodes[folder], 0)
        assert root
        assert fs.volume.block(root)[0x1E] == (2 if features == "large_dir" else 1)
        fs.sync()
    assert (count == 34000) == (features == "large_dir")
    clean(path)
    with mounted(path) as top:
        many = os.fsencode(top / "many")
        assert len(os.listdir(many)) == count
        for number in range(0, count, 5000):
            assert os.stat(many + b"/%06d-%s" % (number, b"n" * 240)).st_nlink == count + 1
        refused = 0
        for number in range(2000):
            try:
                os.link(many + b"/000000-" + b"n" * 240, many + b"/of-the-kernel-%d-%s" % (number, b"n" * 230))
            except OSError:
                refused += 1
        assert bool(refused) == (features == "^large_dir")
    clean(path)
    with opened(path, writable=True) as fs:
        for number in range(0, count, 3):
            fs.unlink(folder, b"%06d-%s" % (number, b"n" * 240), NOW)
        for number in range(1, count, 30):
            fs.rename(folder, b"%06d-%s" % (number, b"n" * 240), 2, b"moved-%d" % number, NOW)
        fs.sync()
    clean(path)
