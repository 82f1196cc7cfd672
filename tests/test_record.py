"""The record filter: transparent, complete, bounded."""

from __future__ import annotations

import os
import random
from pathlib import Path

import pytest

from cowshed.block.filter.record import DISCARD, FLUSH, RESIZE, WRITE, ZERO, Log, RecordNode
from cowshed.block.graph import open_image
from cowshed.block.node import DATA, Node
from cowshed.block.protocol.file import CACHE_MODES, FileNode
from cowshed.errors import CowshedError, HostError
from crash_states import Disk

KIB, MIB = 1 << 10, 1 << 20


def recorded(path: Path, log: Log) -> Node:
    return RecordNode(FileNode(str(path), writable=True), log)


def test_replaying_a_log_gives_the_file(tmp_path: Path) -> None:
    rng = random.Random(3)
    path = tmp_path / "x"
    path.write_bytes(rng.randbytes(300_000))
    disk = Disk(tmp_path / "copy", path.read_bytes())
    with Log() as log:
        with recorded(path, log) as node:
            for _ in range(80):
                offset, length = rng.randrange(400_000), rng.randrange(1, 50_000)
                kind = rng.randrange(6)
                if kind < 3:
                    node.write(offset, rng.randbytes(length))
                elif kind == 3:
                    node.write_zeroes(offset, length, unmap=rng.random() < 0.5)
                elif kind == 4 and offset + length <= node.size:
                    node.discard(offset, length)
                else:
                    node.resize(offset)
                assert node.size == path.stat().st_size
                assert node.read(0, node.size) == path.read_bytes()
        for event in log.events:
            disk.apply(event, log)
    assert disk.content() == path.read_bytes()
    disk.close()


def test_a_replayed_event_can_be_taken_back(tmp_path: Path) -> None:
    rng = random.Random(4)
    path = tmp_path / "x"
    path.write_bytes(rng.randbytes(100_000))
    disk = Disk(tmp_path / "copy", path.read_bytes())
    with Log() as log:
        with recorded(path, log) as node:
            node.write(50_000, rng.randbytes(80_000))
            node.resize(60_000)
            node.write_zeroes(10_000, 90_000)
            node.write(99_999, b"x" * 3000)
            node.discard(0, 4096)
        before = disk.content()
        for chosen in range(1 << len(log.events)):
            disk.begin()
            for number, event in enumerate(log.events):
                if chosen >> number & 1:
                    sectors = (event.offset + event.length - 1) // 512 - event.offset // 512 + 1
                    torn = event.kind == WRITE and rng.random() < 0.5
                    disk.apply(event, log, frozenset(range(0, sectors, 2)) if torn else None)
            disk.rollback()
            assert disk.content() == before
            assert os.path.getsize(tmp_path / "copy") == len(before)
    disk.close()


def test_the_log_has_everything_in_order(tmp_path: Path) -> None:
    path = tmp_path / "x"
    path.write_bytes(bytes(MIB))
    with Log() as log:
        with recorded(path, log) as node:
            node.write(5, b"abc")
            node.write(0, b"")
            node.flush()
            node.write_zeroes(4096, 8192, unmap=True)
            node.discard(65536, 4096)
            node.resize(2 * MIB)
        kinds = [(event.kind, event.offset, event.length) for event in log.events]
        assert kinds == [
            (WRITE, 5, 3), (FLUSH, 0, 0), (ZERO, 4096, 8192), (DISCARD, 65536, 4096), (RESIZE, MIB, 2 * MIB),
        ]  # fmt: skip
        assert log.events[2].unmap
        assert log.data(log.events[0]) == b"abc"


def test_the_store_is_bounded_and_keeps_equal_data_once(tmp_path: Path) -> None:
    path = tmp_path / "x"
    path.write_bytes(b"")
    with Log(limit=3 * MIB) as log, recorded(path, log) as node:
        data = os.urandom(2 * MIB)
        for at in range(8):
            node.write(at * MIB, data)
        assert log.stored == 2 * MIB
        with pytest.raises(HostError, match="store is full"):
            node.write(0, os.urandom(2 * MIB))


def test_what_fails_is_not_logged(tmp_path: Path) -> None:
    path = tmp_path / "x"
    path.write_bytes(bytes(4096))
    with Log() as log, RecordNode(FileNode(str(path)), log) as node:
        for action in (lambda: node.write(0, b"x"), lambda: node.write_zeroes(0, 5), lambda: node.discard(0, 5)):
            with pytest.raises(CowshedError):
                action()
        node.flush()
        assert log.events == []
    with Log() as log, RecordNode(FileNode(str(path), writable=True, cache=CACHE_MODES["unsafe"]), log) as node:
        node.write(0, b"x")
        node.flush()
        assert [event.kind for event in log.events] == [WRITE]  # nothing was flushed


def test_formats_stand_on_it_as_on_a_file(tmp_path: Path) -> None:
    from cowshed.block.format.vmdk.node import VmdkNode
    from cowshed.block.graph import create_image

    path = tmp_path / "x"
    create_image(path, "vmdk", size=MIB)
    with Log() as log:
        with VmdkNode(recorded(path, log), read_only=False) as node:
            node.write(70_000, b"data")
            extents = list(node.extents())
            assert [extent.kind for extent in extents if extent.kind == DATA] == [DATA]
            # reading in bulk goes to the file itself
            assert isinstance(next(extent.node for extent in extents if extent.kind == DATA), FileNode)
        assert {event.kind for event in log.events} == {WRITE, FLUSH}
    with open_image(path) as node:
        assert node.read(70_000, 4) == b"data"
