"""The bulk mover's parts: where zeroes are, when threads help, and room that is reserved before the data comes."""

from __future__ import annotations

import errno
import os
import random
import resource
import threading
import time
from itertools import pairwise
from pathlib import Path

import pytest

import cowshed
from cowshed.block.protocol import ahead as ahead_module
from cowshed.block.protocol.ahead import LEAST, MOST, Ahead, file_system
from cowshed.block.protocol.file import FileNode
from cowshed.ops import copy, crew
from cowshed.ops.plan import COPY, Job
from cowshed.ops.sparse import split

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

MIB = 1 << 20


def naive(data: bytes, phase: int, grain: int, least: int) -> list[tuple[int, int, bool]]:
    """What `split` promises, block by block."""
    first = -phase % grain
    if first >= len(data):
        return [(0, len(data), any(data))]
    edges = sorted({0, *range(first, len(data), grain), len(data)})
    runs: list[tuple[int, int, bool]] = []
    for low, high in pairwise(edges):
        found = any(data[low:high])
        if runs and runs[-1][2] == found:
            runs[-1] = (runs[-1][0], high, found)
        else:
            runs.append((low, high, found))
    joined: list[tuple[int, int, bool]] = []
    for low, high, found in runs:
        found = found or (high - low < least and low > 0 and high < len(data))
        if joined and joined[-1][2] and found:
            joined[-1] = (joined[-1][0], high, True)
        else:
            joined.append((low, high, found))
    return joined


def test_split_finds_what_a_look_at_every_block_finds() -> None:
    rng = random.Random(7)
    seen = 0
    for _ in range(3000):
        grain = 1 << rng.choice((9, 9, 10, 12, 12, 13))
        length = rng.choice((rng.randrange(1, 4 * grain), grain * rng.randrange(1, 12), rng.randrange(1, 70_000)))
        data = bytearray(length)
        for _ in range(rng.choice((0, 1, 2, 8, 30))):
            at = rng.randrange(length)
            stop = min(length, at + rng.choice((1, 7, grain, 3 * grain)))
            data[at:stop] = bytes([rng.choice((0, 7))]) * (stop - at)
        phase = rng.choice((0, 0, grain, 512, rng.randrange(MIB)))
        least = rng.choice((0, 512, grain, 2 * grain, 5 * grain))
        runs = split(memoryview(data), phase, grain, least)
        assert runs == naive(bytes(data), phase, grain, least), (length, phase, grain, least)
        seen += len(runs)
    assert seen > 6000


def _asks_for_help(monkeypatch: pytest.MonkeyPatch, source: Path) -> bool:
    """Does a copy of ``source`` whose reads take 3 ms longer ask other threads for help?"""
    asked: list[int] = []
    share_out, preadv = crew.share_out, os.preadv

    def slow(*args: object) -> int:
        time.sleep(0.003)
        return preadv(*args)  # type: ignore[arg-type]

    def counted(*args: object, **how: object) -> None:
        asked.append(1)
        share_out(*args, **how)  # type: ignore[arg-type]

    target = source.with_name("copy.raw")
    with monkeypatch.context() as patch:
        patch.setattr(copy, "ALONE", 8 * MIB)
        patch.setattr(copy, "processors", lambda: 2)
        patch.setattr(os, "preadv", slow)
        patch.setattr(crew, "share_out", counted)
        cowshed.convert(source, target, "raw", source_fmt="raw", share=False)
    assert target.read_bytes() == source.read_bytes()
    return bool(asked)


def test_threads_help_where_storage_is_waited_for(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    source = tmp_path / "source.raw"
    source.write_bytes(os.urandom(MIB) * 32)
    assert _asks_for_help(monkeypatch, source)
    with monkeypatch.context() as patch:  # all the time is the processor's
        patch.setattr(copy, "perf_counter", time.thread_time)
        assert not _asks_for_help(monkeypatch, source)
    usage = resource.getrusage(resource.RUSAGE_THREAD)
    with monkeypatch.context() as patch:  # it is others', this thread never gave it away
        patch.setattr(resource, "getrusage", lambda who: usage)
        patch.setattr(copy, "WAITS", usage.ru_nvcsw + 1)
        assert not _asks_for_help(monkeypatch, source)


def _kind(path: Path) -> str:
    fd = os.open(path, os.O_RDONLY)
    try:
        return file_system(fd)
    finally:
        os.close(fd)


class Room:
    """Counts what an Ahead reserves of a file and gives back."""

    def __init__(self, path: Path, monkeypatch: pytest.MonkeyPatch, fail: int = 0) -> None:
        monkeypatch.setattr(ahead_module, "file_system", lambda fd: "ext4")
        monkeypatch.setattr(ahead_module, "PLENTY", 0)
        self.fd = os.open(path, os.O_RDWR | os.O_CREAT)
        self.fail = fail
        self.held: set[int] = set()
        self.calls = 0
        self.ahead = Ahead(self.fd, self.reserve, self.punch)

    def reserve(self, offset: int, length: int) -> None:
        assert length <= MOST
        self.calls += 1
        blocks = range(offset // 4096, (offset + length) // 4096)
        if self.fail:
            self.held.update(blocks[: len(blocks) // 2])
            raise OSError(self.fail, os.strerror(self.fail))
        self.held.update(blocks)

    def punch(self, offset: int, length: int) -> None:
        self.held.difference_update(range(offset // 4096, (offset + length) // 4096))

    def write(self, offset: int, length: int) -> None:
        self.ahead.before(offset, length, os.fstat(self.fd).st_size)
        self.held.update(range(offset // 4096, (offset + length) // 4096))


def test_what_is_reserved_and_not_written_is_given_back(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    room = Room(tmp_path / "file", monkeypatch)
    os.ftruncate(room.fd, 256 * MIB)
    written: set[int] = set()

    def write(offset: int, length: int) -> None:
        room.write(offset, length)
        written.update(range(offset // 4096, (offset + length) // 4096))

    for at in range(0, 40 * MIB, MIB // 2):
        write(at, MIB // 2)
    assert 3 < room.calls < 10 and room.held > written  # in steps that grow
    write(50 * MIB, 8192)
    assert room.held == written
    calls = room.calls
    for at in range(51 * MIB, 60 * MIB, 8192):  # every other block
        write(at, 4096)
    assert room.calls == calls and room.held == written
    for at in range(250 * MIB, 256 * MIB, MIB):
        write(at, MIB)
    assert room.calls > calls and room.held == written  # never past the end of a file that doesn't grow
    write(4096, 65536)  # a format's metadata is no end of the run
    room.ahead.give_back()
    assert room.held == written
    os.close(room.fd)


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EOPNOTSUPP])
def test_room_that_can_not_be_had(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, number: int) -> None:
    room = Room(tmp_path / "file", monkeypatch, fail=number)
    os.ftruncate(room.fd, 64 * MIB)
    for at in range(0, 8 * MIB, MIB):
        room.write(at, MIB)
    assert room.calls == 1 and room.held == set(range(8 * MIB // 4096))
    os.close(room.fd)


def test_room_is_reserved_only_where_there_is_plenty(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name, value in (("PLENTY", 1 << 50), ("FILE_SYSTEMS", frozenset())):
        with monkeypatch.context() as patch:
            room = Room(tmp_path / "file", patch)
            patch.setattr(ahead_module, name, value)
            for at in range(0, 8 * MIB, MIB):
                room.write(at, MIB)
            assert room.calls == 0
            os.close(room.fd)


@pytest.mark.parametrize("grows", [False, True], ids=["inside", "growing"])
def test_a_file_takes_in_the_end_what_its_data_takes(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, grows: bool
) -> None:
    """The real calls, on whatever file system the tests run."""
    monkeypatch.setattr(ahead_module, "FILE_SYSTEMS", {_kind(tmp_path)})
    monkeypatch.setattr(ahead_module, "PLENTY", 0)
    data = os.urandom(MIB // 2)
    blocks: list[int] = []
    for on in (False, True):
        path = tmp_path / f"file-{on}"
        path.write_bytes(b"")
        if not grows:
            os.truncate(path, 96 * MIB)
        with FileNode(str(path), writable=True) as node:
            assert isinstance(node, FileNode)
            node.reserve_ahead(on)
            for start, stop in ((0, 9), (20, 26)):
                for at in range(start * MIB, stop * MIB, len(data)):
                    node.write(at, data)
            if on and (held := node.allocated_bytes() or 0) > blocks[0]:
                assert held - blocks[0] <= MOST
            node.reserve_ahead(False)
            os.fsync(node.fd)
            blocks.append(node.allocated_bytes() or 0)
            assert node.refresh() == (26 if grows else 96) * MIB
            kinds = [(extent.offset, extent.length) for extent in node.extents() if extent.kind == cowshed.DATA]
            assert kinds == [(0, 9 * MIB), (20 * MIB, 6 * MIB)]
    # ext4 may have needed a block of its own for the list of extents meanwhile
    assert 0 <= blocks[1] - blocks[0] <= 8192
    assert (tmp_path / "file-False").read_bytes() == (tmp_path / "file-True").read_bytes()
    assert LEAST <= 6 * MIB  # else nothing was reserved


@pytest.mark.parametrize("told", [512, 4096, 70_000])
def test_all_that_is_only_reserved_is_given_back(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, told: int) -> None:
    """Data ends within a block, and more of it lies further on that nobody was told of."""
    monkeypatch.setattr(ahead_module, "FILE_SYSTEMS", {_kind(tmp_path)})
    monkeypatch.setattr(ahead_module, "PLENTY", 0)
    data = os.urandom(MIB)
    held: list[int] = []
    for on in (False, True):
        path = tmp_path / f"file-{on}"
        path.write_bytes(b"")
        os.truncate(path, 64 * MIB)
        with FileNode(str(path), writable=True) as node:
            assert isinstance(node, FileNode)
            node.reserve_ahead(on)
            for at in range(0, 9 * MIB, MIB):
                node.write(at, data)
            node.write(9 * MIB, data[:told])
            if on and _kind(tmp_path) in ("ext4", "tmpfs"):
                assert (node.allocated_bytes() or 0) > held[0] + MIB
            os.pwrite(node.fd, data, 12 * MIB)
            node.reserve_ahead(False)
            os.fsync(node.fd)
            held.append(node.allocated_bytes() or 0)
    # ext4 may have needed a block of its own for the list of extents meanwhile
    assert 0 <= held[1] - held[0] <= 8192
    assert (tmp_path / "file-False").read_bytes() == (tmp_path / "file-True").read_bytes()


def test_what_nobody_told_is_not_given_back(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Data that came by another way than `FileNode.write` lies where room was reserved: it stays."""
    monkeypatch.setattr(ahead_module, "FILE_SYSTEMS", {_kind(tmp_path)})
    monkeypatch.setattr(ahead_module, "PLENTY", 0)
    path = tmp_path / "file"
    path.write_bytes(b"")
    data = os.urandom(MIB)
    with FileNode(str(path), writable=True) as node:
        assert isinstance(node, FileNode)
        node.reserve_ahead(True)
        for at in range(0, 8 * MIB, MIB):
            node.write(at, data)
        os.pwrite(node.fd, data, 10 * MIB)
        node.refresh()
        node.write(32 * MIB, data)
        node.reserve_ahead(False)
    assert path.read_bytes() == data * 8 + bytes(2 * MIB) + data + bytes(21 * MIB) + data


@pytest.mark.parametrize("fmt", ["raw", "qcow2"])
def test_the_kernel_fills_what_was_reserved(tmp_path: Path, fmt: str) -> None:
    """Compressed clusters are written, the others copied by the kernel, in turns."""
    plain, source, target = (tmp_path / name for name in ("plain", "source.qcow2", "target"))
    data = bytearray()
    for _ in range(6):
        data += os.urandom(64) * (8 * MIB // 64)
    plain.write_bytes(data)
    cowshed.convert(plain, source, "qcow2", source_fmt="raw", compress=True)
    with cowshed.open(source, writable=True) as disk:
        for at in range(4 * MIB, 48 * MIB, 8 * MIB):
            data[at : at + 4 * MIB] = block = os.urandom(4 * MIB)
            disk.write(at, block)
    cowshed.convert(source, target, fmt, offload=True)
    with cowshed.open(target, fmt=fmt) as disk:
        assert disk.read(0, 48 * MIB) == data


@pytest.mark.parametrize("fmt", ["raw", "qcow2"])
def test_room_that_somebody_else_reserved_stays(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, fmt: str) -> None:
    """A target that was there before, all its room taken, is copied into."""
    monkeypatch.setattr(ahead_module, "FILE_SYSTEMS", {_kind(tmp_path)})
    monkeypatch.setattr(ahead_module, "PLENTY", 0)
    source, target = tmp_path / "source.raw", tmp_path / "target"
    for at in (0, 8, 16):
        with open(source, "r+b" if at else "wb") as file:
            file.seek(at * MIB)
            file.write(os.urandom(3 * MIB))
    os.truncate(source, 24 * MIB)
    cowshed.create(target, fmt, {"preallocation": "falloc"}, size=24 * MIB)
    held = os.stat(target).st_blocks
    assert held * 512 >= 24 * MIB
    cowshed.convert(source, target, fmt, source_fmt="raw", create=False, target_is_zero=True, share=False)
    assert os.stat(target).st_blocks >= held
    with cowshed.open(target, fmt=fmt) as disk:
        assert disk.read(0, 24 * MIB) == source.read_bytes()


@pytest.mark.parametrize("least", [256 << 10, 512 << 10, MIB, 3 * MIB // 2, 2 * MIB])
def test_short_runs_of_zeroes_stay_data(tmp_path: Path, least: int) -> None:
    """However small the steps are in which data moves: the runs fill some of those."""
    source, target = tmp_path / "source.raw", tmp_path / "target.raw"
    data = bytearray(b"x" * (8 * MIB))
    for at in range(1, 8, 2):
        data[at * MIB : at * MIB + least // 2] = bytes(least // 2)
    source.write_bytes(data)
    cowshed.convert(source, target, "raw", source_fmt="raw", sparse_size=least)
    assert target.read_bytes() == data
    assert os.stat(target).st_blocks * 512 >= 8 * MIB


class _Worker:
    """Notes which jobs were done."""

    def __init__(self) -> None:
        self.done: list[int] = []

    def buffer(self) -> bytearray:
        return bytearray(1)

    def throttle(self, length: int) -> float:
        return 0.0

    def prepare(self, job: Job, buffer: bytearray) -> int:
        return job.start

    def store(self, job: Job, prepared: int) -> None:
        time.sleep(0.001)
        self.done.append(prepared)


def _jobs() -> Iterator[Job]:
    return (Job(COPY, at, at + 1) for at in range(40))


@pytest.mark.parametrize("room", [0, 1])
def test_threads_without_memory_are_no_success(room: int) -> None:
    class Poor(_Worker):
        def buffer(self) -> bytearray:
            nonlocal room
            room -= 1
            if room < 0:
                raise MemoryError
            return super().buffer()

    with pytest.raises(MemoryError):
        crew.share_out(_jobs(), Poor(), 2)


@pytest.mark.parametrize("most", [0, 1, 2])
def test_fewer_threads_than_wanted_do_it_all(monkeypatch: pytest.MonkeyPatch, most: int) -> None:
    begin, begun = threading.Thread.start, 0

    def start(self: threading.Thread) -> None:
        nonlocal begun
        begun += 1
        if begun > most:
            raise RuntimeError("can't start new thread")
        begin(self)

    monkeypatch.setattr(threading.Thread, "start", start)
    worker = _Worker()
    crew.share_out(_jobs(), worker, 4)
    assert worker.done == list(range(40))  # when it returns, not some time later


def test_interrupted_while_threads_begin(monkeypatch: pytest.MonkeyPatch) -> None:
    begin, begun = threading.Thread.start, 0

    def start(self: threading.Thread) -> None:
        nonlocal begun
        begun += 1
        begin(self)
        if begun == 2:
            raise KeyboardInterrupt

    monkeypatch.setattr(threading.Thread, "start", start)
    worker = _Worker()
    with pytest.raises(KeyboardInterrupt):
        crew.share_out(_jobs(), worker, 4)
    done = list(worker.done)
    time.sleep(0.05)
    assert worker.done == done and len(done) < 40  # nobody writes any more


def test_nobody_waits_for_a_rate_when_all_is_over() -> None:
    class Slow(_Worker):
        asked = 0

        def throttle(self, length: int) -> float:
            self.asked += 1
            return 0.0 if self.asked == 1 else 60.0

        def store(self, job: Job, prepared: int) -> None:
            time.sleep(0.1)
            raise OSError

    began = time.monotonic()
    with pytest.raises(OSError):
        crew.share_out(_jobs(), Slow(), 2)
    assert time.monotonic() - began < 20
