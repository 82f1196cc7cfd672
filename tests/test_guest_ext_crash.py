"""A cut at any point of a sync leaves the old tree or the new one, or what e2fsck -p mends to one of them."""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import judges
from cowshed.block.filter.record import FLUSH, WRITE, Log
from cowshed.guest.filesystem.base import GuestError
from crash import workspace
from crash_states import Disk, State, states
from test_guest_ext import Tree, clean, image, opened, our_tree

NOW = 1_900_000_000 * 10**9


def _seed(path: Path) -> None:
    with opened(path, writable=True) as fs:
        folder = fs.create(2, b"folder", 0o40755, 0, 0, NOW)
        for number in range(40):
            ino = fs.create(folder, b"a-name-of-some-length-%d" % number, 0o100644, 0, 0, NOW)
            fs.write(ino, 0, os.urandom(2500), NOW)
            fs.set_xattr(ino, b"user.big", b"v" * 300, NOW)
        fs.sync()


def _change(path: Path, log: Log) -> None:
    with opened(path, writable=True, log=log) as fs:
        folder = fs.lookup(2, b"folder")
        assert folder
        for number in range(0, 40, 4):
            fs.unlink(folder, b"a-name-of-some-length-%d" % number, NOW)
        for number in range(30):
            ino = fs.create(folder, b"another-name-of-some-length-%d" % number, 0o100644, 0, 0, NOW)
            fs.write(ino, 0, b"new" * 1000, NOW)
        ino = fs.lookup(folder, b"a-name-of-some-length-1")
        assert ino
        fs.write(ino, 1000, b"in place" * 20, NOW)
        fs.rename(folder, b"a-name-of-some-length-2", 2, b"moved", NOW)
        fs.create(folder, b"below", 0o40755, 0, 0, NOW)
        fs.set_attributes(ino, NOW, mode=0o600, uid=5)
        fs.sync()


def _tree(path: Path) -> Tree:
    with opened(path) as fs:
        return our_tree(fs)


def _states(folder: Path, before: bytes, log: Log, budget: int) -> Iterator[tuple[State, Path]]:
    """The distinct contents of the disk that a cut may leave, each as a file that may be changed."""
    seen = set()
    disk = Disk(folder / "state.img", before)
    copy = folder / "copy.img"
    durable = 0
    for state in states(log.events, budget, 7):
        while durable < state.durable:
            event = log.events[durable]
            if event.kind != FLUSH:
                disk.apply(event, log, None)
            durable += 1
        disk.begin()
        for number in sorted(state.part):
            disk.apply(log.events[number], log, state.part[number])
        content = (folder / "state.img").read_bytes()
        digest = hashlib.sha256(content).digest()
        if digest not in seen:
            seen.add(digest)
            copy.write_bytes(content)
            yield state, copy
        disk.rollback()


def _fsck(path: Path, how: str, state: object) -> None:
    done = subprocess.run([judges.need("e2fsck"), how, path], capture_output=True, text=True)
    assert done.returncode in (0, 1), (state, done.stdout, done.stderr)
    judges.run("e2fsck", "-fn", path)


@pytest.mark.parametrize("options", [("-t", "ext4"), ("-t", "ext3"), ("-t", "ext4", "-O", "^64bit,inline_data")])
def test_old_or_new_with_a_journal(options: tuple[str, ...], tmp_path: Path) -> None:
    """Sectors of one write in any mix, the superblock's two too."""
    folder = workspace()
    try:
        path = image(folder / "disk.img", 10 << 20, "-b", "1024", *options)
        _seed(path)
        before = path.read_bytes()
        old = _tree(path)
        log = Log(1 << 30)
        _change(path, log)
        new = _tree(path)
        assert old != new
        judged = 0
        for state, copy in _states(folder, before, log, 120):
            judged += 1
            # the journal is replayed in memory
            assert _tree(copy) in (old, new), state
            _fsck(copy, "-p", state)
            assert _tree(copy) in (old, new), state
        assert judged > 15
    finally:
        shutil.rmtree(folder)


def _names(tree: Tree) -> dict[bytes, object]:
    """What of a tree a change must leave whole: kinds and bytes, by path."""
    return {path: (facts[1] & 0o170000, facts[11]) for path, facts in tree.items()}


@pytest.mark.parametrize(
    ("options", "how"),
    [
        (("-t", "ext4", "-J", "size=1"), "-p"),
        (("-t", "ext4", "-O", "^has_journal"), "-fy"),
        (("-t", "ext2"), "-fy"),
    ],
    ids=["more than the journal takes", "ext4 without a journal", "ext2"],
)
def test_many_files_at_once(options: tuple[str, ...], how: str, tmp_path: Path) -> None:
    """Whatever part of a change is there: old files are as they were or gone, new ones are whole or not there."""
    folder = workspace()
    try:
        count = 2100 if how == "-p" else 700
        path = image(folder / "disk.img", 24 << 20, "-b", "1024", "-N", "2500", "-I", "1024", *options)
        with opened(path, writable=True) as fs:
            for number in range(count):
                if number % 150 == 0:
                    into = fs.create(2, b"old-%d" % number, 0o40755, 0, 0, NOW)
                ino = fs.create(into, b"file-%d-%s" % (number, b"n" * 60), 0o100644, 0, 0, NOW)
                fs.set_xattr(ino, b"user.a", b"a" * 60, NOW)
                if number % 50 == 0:
                    fs.write(ino, 0, b"old %d" % number * 300, NOW)
            fs.sync()
        before = path.read_bytes()
        old = _names(_tree(path))
        log = Log(1 << 30)
        with opened(path, writable=True, log=log) as fs:
            for number in range(count):
                if number % 150 == 0:
                    into = fs.lookup(2, b"old-%d" % number) or 0
                    fresh = fs.create(2, b"new-%d" % number, 0o40755, 0, 0, NOW)
                if number % 3:
                    fs.unlink(into, b"file-%d-%s" % (number, b"n" * 60), NOW)
                elif number % 50 == 0:
                    fs.write(fs.create(fresh, b"new-%d" % number, 0o100644, 0, 0, NOW), 0, b"new" * 1000, NOW)
            fs.sync()
        new = _names(_tree(path))
        clean(path)
        if how == "-p":
            # more blocks than the journal has are in the transaction, and the journal is as short as before
            assert any(event.kind == WRITE and event.length > 1000 << 10 for event in log.events)
            with opened(path) as fs:
                assert fs.inodes[8].size == 1 << 20
        kept = old.keys() & new.keys()
        judged = 0
        for state, copy in _states(folder, before, log, 14):
            judged += 1
            if how == "-p":
                assert _names(_tree(copy)) in (old, new), state
            _fsck(copy, how, state)
            found = _names(_tree(copy))
            assert kept <= found.keys(), state
            for name, facts in found.items():
                if not name.startswith(b"/lost+found"):
                    assert facts in (old.get(name), new.get(name)), (state, name)
        assert judged > 5
    finally:
        shutil.rmtree(folder)


@pytest.mark.parametrize("options", [("-t", "ext2"), ("-t", "ext2", "-O", "^dir_index")])
def test_mended_without_a_journal(options: tuple[str, ...], tmp_path: Path) -> None:
    """Whole writes in the order in which they are made: e2fsck -p mends every prefix."""
    folder = workspace()
    try:
        path = image(folder / "disk.img", 10 << 20, "-b", "1024", *options)
        _seed(path)
        before = bytearray(path.read_bytes())
        log = Log(1 << 30)
        _change(path, log)
        new = _tree(path)
        copy = folder / "copy.img"
        for event in log.events:
            if event.kind == FLUSH:
                continue
            before[event.offset : event.offset + event.length] = log.data(event)
            copy.write_bytes(before)
            done = subprocess.run([judges.need("e2fsck"), "-p", copy], capture_output=True, text=True)
            assert done.returncode in (0, 1), done.stdout
            judges.run("e2fsck", "-fn", copy)
        assert _tree(copy) == new
    finally:
        shutil.rmtree(folder)


def test_without_a_journal_nothing_follows_a_write_that_failed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Blocks that are free in a bitmap and not yet in the inode that had them are given to nobody else."""
    path = image(tmp_path / "disk.img", 4 << 20, "-b", "1024", "-t", "ext2")
    with opened(path, writable=True) as fs:
        ino = fs.create(2, b"a", 0o100644, 0, 0, NOW)
        fs.write(ino, 0, b"A" * 900_000, NOW)
        fs.sync()
    before = path.read_bytes()
    for last in range(100):
        path.write_bytes(before)
        with opened(path, writable=True) as fs:
            writes = 0
            real = fs.node.write

            def full(offset: int, data: bytes, real: Callable[[int, bytes], object] = real, last: int = last) -> None:
                nonlocal writes
                if writes == last:
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
                writes += 1
                real(offset, data)

            fs.truncate(ino, 0, NOW)
            with monkeypatch.context() as patch:
                patch.setattr(fs.node, "write", full)
                try:
                    fs.sync()
                    break
                except OSError:
                    fs.discard_changes()
            with pytest.raises(GuestError) as caught:
                fs.create(2, b"b", 0o100644, 0, 0, NOW)
            assert caught.value.errno == errno.EROFS
        done = subprocess.run([judges.need("e2fsck"), "-fn", path], capture_output=True, text=True)
        assert "Multiply-claimed" not in done.stdout
    assert last > 3
    clean(path)
