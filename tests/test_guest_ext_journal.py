"""Journals that the kernel left behind when it was stopped: read before any replay, ours shows what the kernel's own
replay gives; writing replays them on the disk."""

from __future__ import annotations

import fcntl
import os
import shutil
import struct
from pathlib import Path

import pytest

import judges
from cowshed.errors import FeatureError
from cowshed.guest.filesystem.ext.journal import Journal
from test_guest_ext import clean, image, mounted, opened, our_tree

NOW = 1_900_000_000 * 10**9
#: _IOR('X', 125, __u32)
EXT4_IOC_SHUTDOWN = 0x8004587D
WITH_FLUSH, WITH_LOG_FLUSH, WITHOUT_FLUSH = range(3)

LAYOUTS = {
    "checksums": ("-t", "ext4"),
    "4k": ("-t", "ext4", "-b", "4096"),
    "no checksums": ("-t", "ext4", "-O", "^metadata_csum"),
    "32bit": ("-t", "ext4", "-O", "^64bit"),
    "neither": ("-t", "ext4", "-O", "^64bit,^metadata_csum"),
    "ext3": ("-t", "ext3"),
}


def _stop(top: Path, how: int) -> None:
    """Cut the file system off, as a power failure would."""
    fd = os.open(top, os.O_RDONLY)
    try:
        fcntl.ioctl(fd, EXT4_IOC_SHUTDOWN, struct.pack("I", how))
    except OSError as error:
        judges.absent(f"a kernel that stops ext4 on request ({error})")
    finally:
        os.close(fd)


def _sync(path: Path) -> None:
    fd = os.open(path, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def _work(top: Path, rounds: int) -> None:
    """Many transactions: names come and go, directories that were give their blocks to files (revoke records), blocks
    that look like the journal's own (escaped)."""
    for number in range(rounds):
        folder = top / f"folder-{number}"
        folder.mkdir()
        for each in range(60):
            (folder / f"{'n' * 60}-{each}").write_bytes(b"x" * each * 7)
        os.symlink("t" * 200, folder / "link")
        _sync(top)
        if number:
            shutil.rmtree(top / f"folder-{number - 1}")
            _sync(top)
            (top / f"big-{number}").write_bytes(b"\xc0\x3b\x39\x98" + os.urandom(150_000))
            os.setxattr(top / f"big-{number}", b"user.a", b"v" * 500)
            _sync(top / f"big-{number}")
        if number > 2:
            os.rename(top / f"big-{number - 1}", top / f"renamed-{number}")
            os.truncate(top / f"renamed-{number}", 1000)


def _compare(path: Path) -> None:
    """Ours before replay, the kernel's after its own on a copy; then ours writes, which replays on the disk."""
    copy = path.with_name("copy.img")
    shutil.copy(path, copy)
    with opened(path) as fs:
        ours = our_tree(fs)
        assert fs.journal is not None
        start = fs.journal.start
    with mounted(copy):
        pass
    clean(copy)
    with opened(copy) as fs:
        assert fs.journal is None
        assert our_tree(fs) == ours
    with opened(path, writable=True) as fs:
        fs.create(2, b"of ours", 0o100644, 0, 0, NOW)
        fs.sync()
    clean(path)
    with opened(path) as fs:
        after = our_tree(fs)
    assert after.pop(b"/of ours")
    assert after == ours
    assert start


@pytest.mark.parametrize("how", [WITH_LOG_FLUSH, WITHOUT_FLUSH], ids=["flushed", "cut"])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_journals_of_the_kernel(layout: str, how: int, tmp_path: Path) -> None:
    path = image(tmp_path / "disk.img", 48 << 20, *LAYOUTS[layout])
    with mounted(path) as top:
        _work(top, 5)
        _stop(top, how)
    _compare(path)


@pytest.mark.parametrize("options", ["data=journal", "journal_async_commit,data=writeback", "journal_checksum"])
def test_ways_of_journalling(options: str, tmp_path: Path) -> None:
    path = image(tmp_path / "disk.img", 48 << 20, "-t", "ext4", "-O", "^metadata_csum")
    with mounted(path, options) as top:
        _work(top, 4)
        _stop(top, WITH_LOG_FLUSH)
    _compare(path)


def test_a_transaction_that_lacks_a_block(tmp_path: Path) -> None:
    """With checksums of version 1 the last transaction is left out when one of its blocks was not written."""
    path = image(tmp_path / "disk.img", 48 << 20, "-t", "ext4", "-O", "^metadata_csum,^64bit")
    with mounted(path, "journal_async_commit,data=writeback") as top:
        _work(top, 4)
        _stop(top, WITH_LOG_FLUSH)
    with opened(path) as fs:
        log = Journal(fs)
        assert log.compat & 1
        transactions, _ = log._scan()
        places = [log.place(at) * log.block_size for _, _, _, at in transactions[-1][1]]
        before = our_tree(fs)
    with open(path, "r+b") as file:
        for place in places:
            file.seek(place)
            file.write(bytes(1024))
    _compare(path)
    with opened(path) as fs:
        after = our_tree(fs)
        after.pop(b"/of ours")
    assert before != after


def test_a_ring_that_went_round(tmp_path: Path) -> None:
    """The shortest journal, with more in it than it has blocks: the log goes on at its begin."""
    path = image(tmp_path / "disk.img", 48 << 20, "-t", "ext4", "-b", "1024", "-J", "size=1")
    with mounted(path) as top:
        _work(top, 9)
        _stop(top, WITH_LOG_FLUSH)
    _compare(path)


def test_a_file_system_that_was_frozen_first(tmp_path: Path) -> None:
    """With all flushed there is nothing to replay."""
    path = image(tmp_path / "disk.img", 48 << 20, "-t", "ext4")
    with mounted(path) as top:
        _work(top, 2)
        _stop(top, WITH_FLUSH)
    copy = tmp_path / "copy.img"
    shutil.copy(path, copy)
    with opened(path) as fs:
        ours = our_tree(fs)
    with mounted(copy):
        pass
    with opened(copy) as fs:
        assert our_tree(fs) == ours


def test_fast_commits_are_replayed_or_refused(tmp_path: Path) -> None:
    path = image(tmp_path / "disk.img", 48 << 20, "-t", "ext4", "-O", "fast_commit")
    with mounted(path) as top:
        _work(top, 2)
        os.sync()
        for number in range(5):
            (top / f"fast-{number}").write_bytes(b"fast" * 1000)
            _sync(top / f"fast-{number}")
        _stop(top, WITHOUT_FLUSH)
    try:
        with opened(path) as fs:
            ours = our_tree(fs)
    except FeatureError as error:
        assert "fast commits" in str(error)
        with pytest.raises(FeatureError, match="fast commits"), opened(path, writable=True) as fs:
            pass
        return
    assert b"/fast-4" in ours
    _compare(path)


def test_fast_commits_that_are_over(tmp_path: Path) -> None:
    """The feature alone, with everything in full commits, is no hindrance."""
    path = image(tmp_path / "disk.img", 48 << 20, "-t", "ext4", "-O", "fast_commit")
    with mounted(path) as top:
        _work(top, 3)
        _stop(top, WITH_LOG_FLUSH)
    _compare(path)


def test_external_journal_is_refused(tmp_path: Path) -> None:
    path = image(tmp_path / "disk.img", 48 << 20, "-t", "ext4")
    judges.run("debugfs", "-w", "-R", "ssv journal_inum 0", path)
    judges.run("debugfs", "-w", "-R", "feature needs_recovery", path)
    with pytest.raises(FeatureError, match="external journal"), opened(path):
        pass
