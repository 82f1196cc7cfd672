"""Damaged XFS: every walk ends, takes bounded memory, and what is wrong is named with its place and value."""

from __future__ import annotations

import errno
import os
import random
import resource
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import xfs_images as images
from conftest import Figures
from cowshed.block.node import Node
from cowshed.errors import CorruptError, CowshedError
from cowshed.guest.filesystem import xfs
from cowshed.guest.filesystem.base import FileSystem, GuestError
from cowshed.guest.filesystem.xfs.store import Store

ROUNDS = 50


class Flipped(Node):
    """An image with other bytes in some places."""

    driver = "flipped"

    def __init__(self, image: Path) -> None:
        super().__init__(str(image))
        self.fd = os.open(image, os.O_RDONLY)
        self.size = os.fstat(self.fd).st_size
        self.changes: dict[int, bytes] = {}
        self.seen: list[tuple[int, int]] | None = None

    def read_into(self, offset: int, view: memoryview) -> None:
        self._check_range(offset, len(view))
        os.preadv(self.fd, [view], offset)
        for at, data in self.changes.items():
            for index in range(len(data)):
                if offset <= at + index < offset + len(view):
                    view[at + index - offset] = data[index]

    def shutdown(self) -> None:
        os.close(self.fd)


def walk(system: FileSystem) -> None:
    """All that a reader may ask of each file; damage is met file by file. CowshedError at most."""
    seen = {system.root}
    todo = [system.root]
    while todo:
        ino = todo.pop()
        try:
            facts = system.stat(ino)
            kind = facts.mode >> 12
            if kind == 0o04:
                for index, (name, child, _) in enumerate(system.entries(ino)):
                    if index % 50 == 0:
                        system.lookup(ino, name)
                    if child not in seen:
                        seen.add(child)
                        todo.append(child)
            elif kind == 0o10:
                system.read(ino, 0, 1 << 16)
                system.read(ino, max(0, facts.size - 5000), 5000)
            elif kind == 0o12:
                assert len(system.readlink(ino)) <= 1024
            system.xattrs(ino)
        except CowshedError as error:
            assert str(error)


@pytest.fixture(scope="module", params=["5", "4", "dirty"])
def places(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """An image and where its metadata is."""
    folder = tmp_path_factory.mktemp("xfs")
    if request.param == "4":
        from test_guest_xfs_read import v4_tree

        proto, _ = v4_tree(folder, 250)
        image = images.make(folder / "disk", 300 << 20, "-m", "crc=0", "-b", "size=1024", "-p", str(proto))
    else:
        image = images.make(folder / "disk", 300 << 20, "-b", "size=1024")
        with images.mounted(image, folder / "mnt") as root:
            images.fill(root, names=150)
        if request.param == "dirty":
            from test_guest_xfs_log import LOG_FLUSH, Work, shut_down

            with images.mounted(image, folder / "mnt") as root:
                Work(3)(root, 400)
                shut_down(root, LOG_FLUSH)
    node = Flipped(image)
    found: set[tuple[int, int]] = set()
    read = Store.read

    def noting(self: Store, offset: int, length: int) -> bytes:
        found.add((offset, length))
        return read(self, offset, length)

    Store.read = noting  # type: ignore[method-assign]
    try:
        system = xfs.open(node)
        walk(system)
        system.statvfs()
    finally:
        Store.read = read  # type: ignore[method-assign]
    where = sorted(found) + [(0, 512)] * 20
    if request.param == "dirty":
        from cowshed.guest.filesystem.xfs.log import Log

        log = Log(node, system.superblock)
        where = [(log.where(r.position), min(r.blocks * 512, 40_000)) for r in log.headers()]
        assert where
    yield request.param, node, where
    node.close()


@pytest.mark.parametrize("checksums", [True, False], ids=["checked", "unchecked"])
def test_flipped_bytes(places: Any, checksums: bool, monkeypatch: pytest.MonkeyPatch, figures: Figures) -> None:
    kind, node, where = places
    if not checksums:
        # behind the checksums the parsers meet what nobody vouches for
        from cowshed.guest.filesystem.xfs import log, superblock

        monkeypatch.setattr(Store, "verify", lambda *_: None)
        monkeypatch.setattr(log.Log, "_whole", lambda *_: True)
        monkeypatch.setattr(superblock, "crc32c", lambda data, crc=0: int.from_bytes(node.read(224, 4), "little"))
    elif kind == "4":
        pytest.skip("version 4 has no checksums")
    chance = random.Random(kind)
    slowest = 0.0
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    try:
        for _ in range(ROUNDS):
            node.changes = {}
            for _ in range(chance.choice((1, 2, 8, 30))):
                offset, length = chance.choice(where)
                at = offset + min(chance.randrange(length), chance.choice((15, 63, 200, length)))
                value = chance.choice((b"\0", b"\xff", b"\1", b"\x7f\xff\xff\xff", bytes([chance.randrange(256)])))
                node.changes[at] = value[: max(1, min(len(value), node.size - at))]
            begun = time.process_time()
            try:
                system = xfs.open(node)
                system.statvfs()
            except CowshedError as error:
                assert str(error)
            else:
                walk(system)
            slowest = max(slowest, time.process_time() - begun)
        grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    finally:
        node.changes = {}
    assert grown < 256 << 10  # KiB
    assert slowest < 60
    figures.add("xfs: damaged images read", ROUNDS)


def ino_of(system: FileSystem, *path: bytes) -> int:
    ino: int | None = system.root
    for name in path:
        assert ino is not None
        ino = system.lookup(ino, name)
    assert ino is not None
    return ino


def test_errors_name_the_place(places: Any) -> None:
    kind, node, _ = places
    if kind != "5":
        pytest.skip("once is enough")
    system = xfs.open(node)
    ino = ino_of(system, b"files", b"odd")
    offset = system.superblock.inode_offset(ino)
    for at, word in ((0, "magic"), (60, "checksum"), (100, "checksum")):
        node.changes = {offset + at: b"\x77"}
        with pytest.raises(CorruptError) as found:
            xfs.open(node).stat(ino)
        assert f"inode {ino} at offset {offset}" in str(found.value) and word in str(found.value)
        assert found.value.offset is not None and found.value.value and found.value.errno == errno.EIO
    node.changes = {}


def test_a_tree_that_leads_to_itself(places: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    kind, node, _ = places
    if kind != "5":
        pytest.skip("once is enough")
    monkeypatch.setattr(Store, "verify", lambda *_: None)
    system = xfs.open(node)
    inode = system.inode(ino_of(system, b"files", b"fragmented"))
    assert inode.format == 3
    room = (len(inode.data_fork) - 4) // 16
    pointers = inode.offset + inode.core + 4 + room * 8
    first = node.read(pointers, 8)
    node.changes = {pointers + 8: first, inode.offset + inode.core + 2: b"\0\2"}
    with pytest.raises(CorruptError, match="pointer"):
        xfs.open(node).read(inode.ino, 0, 100)
    # a leaf of an index whose neighbour is itself
    node.changes = {}
    folder = system.inode(ino_of(system, b"attributes", b"many"))
    fork = system.fork(folder, attributes=True)
    assert fork is not None
    for start, block, count in zip(fork.starts, fork.blocks, fork.counts, strict=True):
        for index in range(count):
            place = system.superblock.block_offset(block + index)
            if node.read(place + 8, 2) == b"\x3b\xee":
                node.changes[place] = (start + index).to_bytes(4, "big")
    with pytest.raises(CorruptError, match="forw"):
        xfs.open(node).xattrs(folder.ino)
    node.changes = {}


class Memory(Node):
    """An image in memory that may be written."""

    driver = "memory"

    def __init__(self, raw: bytes) -> None:
        super().__init__("memory")
        self.raw = bytearray(raw)
        self.size = len(raw)

    def read_into(self, offset: int, view: memoryview) -> None:
        self._check_range(offset, len(view))
        view[:] = self.raw[offset : offset + len(view)]

    def write(self, offset: int, data: Any) -> None:
        self._check_range(offset, len(data))
        self.raw[offset : offset + len(data)] = data

    def write_zeroes(self, offset: int, length: int, unmap: bool = False) -> None:
        self.write(offset, bytes(length))

    def flush(self) -> None:
        pass

    def shutdown(self) -> None:
        pass


@pytest.mark.parametrize("dirty", [False, True], ids=["clean", "dirty"])
def test_changes_of_damaged_images(dirty: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is changed on a damaged image is changed or refused; nothing else is raised, and nothing runs away."""
    from cowshed.guest.filesystem.xfs import log as logs
    from cowshed.guest.filesystem.xfs import superblock
    from test_guest_xfs_log import LOG_FLUSH, calm, shut_down

    image = images.make(tmp_path / "disk", 32 << 20, "--unsupported", "-f")
    with images.mounted(image, tmp_path / "mnt") as root:
        (root / "file").write_bytes(b"x" * 5000)
        os.setxattr(root / "file", "user.long", b"l" * 2000)
    if dirty:
        with images.mounted(image, tmp_path / "mnt") as root:
            calm(root, random.Random(1), 40)
            shut_down(root, LOG_FLUSH)
    raw = image.read_bytes()
    healthy = xfs.open(Memory(raw))
    ino = ino_of(healthy, b"file")
    log = healthy.log
    places = [(log.where(log.head - 3 + at), 512) for at in range(6)] + [(log.start, 4096), (0, 512), (0, 200)]
    places += [(healthy.superblock.inode_offset(ino), 512), (512, 512), (1024, 512)]
    places += [(log.where(log.tail + at), 512) for at in range(4)]
    monkeypatch.setattr(Store, "verify", lambda *_: None)
    monkeypatch.setattr(logs.Log, "_whole", lambda *_: True)
    monkeypatch.setattr(superblock, "crc32c", lambda data, crc=0: int.from_bytes(raw[224:228], "little"))
    chance = random.Random(dirty)
    changed = refused = 0
    # one for all: what was opened on it goes with the next collection of garbage only
    node = Memory(raw)
    begun = time.process_time()
    for _ in range(60):
        node.raw[:] = raw
        for _ in range(chance.choice((1, 2, 5))):
            offset, length = chance.choice(places)
            at = offset + chance.randrange(length)
            if not 224 <= at < 228:
                value = chance.choice((b"\0", b"\xff", b"\1", b"\x7f\xff\xff\xff", bytes([chance.randrange(256)])))
                node.raw[at : at + len(value)] = value
        try:
            system = xfs.open(node, True)
            system.set_attributes(ino, 0, mode=0o600)
            system.set_xattr(ino, b"user.long", b"m" * 2000, 0)
            system.write(ino, 0, b"y", 0)
            system.set_label("damaged")
            system.sync()
            changed += 1
        except CowshedError as error:
            assert str(error)
            refused += 1
    assert changed and refused
    assert time.process_time() - begun < 120


def test_short_devices(tmp_path: Path) -> None:
    image = images.make(tmp_path / "disk", 300 << 20)
    os.truncate(image, 200 << 20)
    with pytest.raises(CorruptError, match="dblocks"), images.opened(image):
        pass
    for size in (0, 511, 512, 70_000):
        with open(image, "wb") as file:
            file.truncate(size)
        with pytest.raises(CowshedError), images.opened(image):
            pass


def test_numbers_that_do_not_exist(places: Any) -> None:
    kind, node, _ = places
    if kind == "dirty":
        pytest.skip("once is enough")
    system = xfs.open(node)
    for ino in (0, 1, 1 << 32, (1 << 64) - 1, 1 << 70):
        with pytest.raises(CorruptError):
            system.stat(ino)
    with pytest.raises(GuestError) as refused:
        system.lookup(
            ino_of(system, b"dir1", next(n for n, _, k in system.entries(ino_of(system, b"dir1")) if k != "d")), b"x"
        )
    assert refused.value.errno == errno.ENOTDIR
