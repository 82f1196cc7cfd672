"""A cut at any point of a sync leaves the old tree or the new one, or what e2fsck -p mends to one of them."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

import judges
from cowshed.block.filter.record import FLUSH, Log
from crash import workspace
from crash_states import Disk, states
from test_guest_ext import Tree, image, opened, our_tree

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


@pytest.mark.parametrize("options", [("-t", "ext4"), ("-t", "ext3"), ("-t", "ext4", "-O", "^64bit,inline_data")])
def test_old_or_new_with_a_journal(options: tuple[str, ...], tmp_path: Path) -> None:
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
        seen = set()
        disk = Disk(folder / "state.img", before)
        durable = 0
        for state in states(log.events, 120, 7):
            while durable < state.durable:
                event = log.events[durable]
                if event.kind != FLUSH:
                    disk.apply(event, log, None)
                durable += 1
            disk.begin()
            torn_super = False
            for number in sorted(state.part):
                event = log.events[number]
                part = state.part[number]
                # a superblock is 1024 bytes: the kernel, too, relies on both of its sectors being written
                if part is not None and event.offset <= 1024 < event.offset + event.length:
                    torn_super = True
                disk.apply(event, log, part)
            if not torn_super:
                content = (folder / "state.img").read_bytes()
                if content not in seen:
                    seen.add(content)
                    judged += 1
                    copy = folder / "copy.img"
                    copy.write_bytes(content)
                    # the journal is replayed in memory
                    assert _tree(copy) in (old, new), state
                    done = subprocess.run([judges.need("e2fsck"), "-p", copy], capture_output=True, text=True)
                    assert done.returncode in (0, 1), (state, done.stdout)
                    judges.run("e2fsck", "-fn", copy)
                    assert _tree(copy) in (old, new), state
            disk.rollback()
        assert judged > 15
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
