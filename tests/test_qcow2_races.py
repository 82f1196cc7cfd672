"""Reads that race with writes, zeroes and discards of the same bytes by another thread."""

from __future__ import annotations

import random
import threading
import time
from array import array
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cowshed.block import node as core
from cowshed.block.graph import create_image, open_image
from cowshed.block.node import Node
from cowshed.errors import CorruptError, RangeError
from layouts import assert_sound

K64 = 65536
MIB = 1 << 20


def fresh(path: Path, fmt: str = "qcow2", size: int = 4 * MIB, **options: object) -> Path:
    create_image(str(path), fmt, {"size": size, **options})
    return path


def place(node: Node, offset: int) -> int:
    """Where the cluster at guest ``offset`` lies in the file. (Asked for now, so that all tables are in memory.)"""
    extent = next(iter(node.extents(offset, K64)))
    if extent.kind == core.COMPRESSED:
        return int(node.compressed_location(node.l2_table(0).entries[0])[0])  # type: ignore[attr-defined]
    assert extent.kind == core.DATA
    return extent.host_offset


def meanwhile(monkeypatch: pytest.MonkeyPatch, node: Node, offset: int, change: Callable[[], None]) -> list[int]:
    """Let ``change`` happen once, between the mapping of the cluster at ``offset`` and its reading."""
    done: list[int] = []
    file = node.file
    real = file.read_into
    where = place(node, offset)

    def late(offset: int, view: memoryview) -> None:
        if not done and offset == where:
            done.append(offset)
            thread = threading.Thread(target=change)  # as another thread: the reader must hold no lock here
            thread.start()
            thread.join(20)
            assert not thread.is_alive()
        real(offset, view)

    monkeypatch.setattr(file, "read_into", late)
    return done


def reuse(node: Node, free: Callable[[], None], letter: bytes = b"F") -> Callable[[], None]:
    """Free what lies at 0, and give its space to another place."""

    def change() -> None:
        free()
        node.flush()
        node.write(2 * MIB, letter * K64)
        node.flush()

    return change


@pytest.mark.parametrize("how", ["discard", "write_zeroes", "write_compressed"])
def test_a_plain_cluster_that_others_got(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: str) -> None:
    with open_image(str(fresh(tmp_path / "disk")), writable=True) as node:
        node.write(0, b"A" * K64)
        node.flush()
        ways: dict[str, Callable[[], None]] = {
            "discard": lambda: node.discard(0, K64),
            "write_zeroes": lambda: node.write_zeroes(0, K64, True),
            "write_compressed": lambda: node.write_compressed(0, b"C" * K64),
        }
        done = meanwhile(monkeypatch, node, 0, reuse(node, ways[how]))
        after = (b"C" if how == "write_compressed" else b"\0") * K64
        assert node.read(0, K64) == after
        assert done
        file = node.file
        assert file.read(done[0], K64) == b"F" * K64  # the space was reused indeed
    assert_sound(tmp_path / "disk")


@pytest.mark.parametrize("call", ["read_into", "unpack_into"])
def test_a_compressed_cluster_that_others_got(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str) -> None:
    """What is there now is no compressed data: no error may come of it."""
    rng = random.Random(1)
    noise = bytes(rng.randrange(16) for _ in range(K64))  # about half a cluster
    with open_image(str(fresh(tmp_path / "disk")), writable=True) as node:
        node.write_compressed(0, noise)
        node.flush()
        done = meanwhile(monkeypatch, node, 0, reuse(node, lambda: node.discard(0, K64), b"\xff"))
        buffer = bytearray(K64)
        getattr(node, call)(0, memoryview(buffer))
        assert done
        assert not any(buffer)


def test_a_cluster_of_the_backing_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is the backing file's space that is reused, by somebody who writes to it."""
    base = fresh(tmp_path / "base")
    top = fresh(tmp_path / "top", backing_file=str(base), backing_fmt="qcow2")
    with open_image(str(base), writable=True) as below, open_image(str(top), backing=False) as node:
        node.children["backing"] = below
        try:
            below.write(0, b"A" * K64)
            below.flush()
            done = meanwhile(monkeypatch, below, 0, reuse(below, lambda: below.discard(0, K64)))
            assert node.read(0, K64) == bytes(K64)
            assert done
        finally:
            del node.children["backing"]


def test_grains_of_a_vmdk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with open_image(str(fresh(tmp_path / "disk", "vmdk")), writable=True) as node:
        node.write(0, b"A" * K64)
        node.flush()
        done = meanwhile(monkeypatch, node, 0, reuse(node, lambda: node.discard(0, K64)))
        assert node.read(0, K64) == bytes(K64)
        assert done
        assert node.file.read(done[0], K64) == b"F" * K64


def test_an_applied_snapshot(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with open_image(str(fresh(tmp_path / "disk")), writable=True) as node:
        node.snapshot_create("empty")
        node.write(0, b"A" * K64)
        node.flush()
        done = meanwhile(monkeypatch, node, 0, reuse(node, lambda: node.snapshot_apply("empty")))
        assert node.read(0, K64) == bytes(K64)
        assert done
    assert_sound(tmp_path / "disk")


def test_a_file_cut_off(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Shrinking gives space back; who reads what is gone hears of it."""
    with open_image(str(fresh(tmp_path / "disk")), writable=True) as node:
        node.write(3 * MIB, b"A" * K64)
        node.flush()
        done = meanwhile(monkeypatch, node, 3 * MIB, lambda: node.resize(MIB))
        with pytest.raises(RangeError):
            node.read(3 * MIB, K64)
        assert done


def test_space_that_is_freed_all_the_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A reader comes to an end however often others free space, with few reads."""
    with open_image(str(fresh(tmp_path / "disk")), writable=True) as node:
        node.write(0, b"A" * K64)
        node.flush()
        assert place(node, 0)
        real, calls = node.file.read_into, []

        def restless(offset: int, view: memoryview) -> None:
            calls.append(offset)
            core.space_reused()
            real(offset, view)

        monkeypatch.setattr(node.file, "read_into", restless)
        assert node.read(0, K64) == b"A" * K64
        assert len(calls) == core.REREADS + 2


def test_real_damage_is_still_told(tmp_path: Path) -> None:
    """An error that no reuse explains is raised, and at once."""
    path = fresh(tmp_path / "disk")
    with open_image(str(path), writable=True) as node:
        node.write_compressed(0, b"A" * K64)
        node.flush()
        where, length = node.compressed_location(node.l2_table(0).entries[0])  # type: ignore[attr-defined]
    with open(path, "r+b") as file:
        file.seek(where)
        file.write(b"\xff" * length)
    with open_image(str(path)) as node, pytest.raises(CorruptError):
        node.read(0, K64)


class Watched(array):  # type: ignore[type-arg]
    """L2 entries that look, after each change, at what a reader would see then."""

    look: Callable[[], None]

    def __setitem__(self, key: Any, value: Any) -> None:
        super().__setitem__(key, value)
        self.look()


def test_extended_entries_change_in_one_step(tmp_path: Path) -> None:
    """Both words of an entry at once: half a change would show a hole, or mark the image corrupt."""
    with open_image(str(fresh(tmp_path / "disk", extended_l2=True)), writable=True) as node:
        seen: set[int] = set()

        def look() -> None:
            seen.update(node.read(0, K64))

        node.write(0, b"A" * K64)
        table = node.l2_table(0)  # type: ignore[attr-defined]
        table.entries = Watched("Q", table.entries)
        table.entries.look = look
        steps: list[tuple[Callable[[], None], bytes]] = [
            (lambda: node.write_compressed(0, b"B" * K64), b"AB"),
            (lambda: node.write(0, b"C" * K64), b"BC"),
            (lambda: node.write_zeroes(0, K64, True), b"C\0"),
            (lambda: node.write(0, b"D" * K64), b"D\0"),
            (lambda: node.discard(0, K64), b"D\0"),
            (lambda: node.write_compressed(0, b"E" * K64), b"E\0"),
            (lambda: node.write_zeroes(0, K64), b"E\0"),
        ]
        for step, allowed in steps:
            seen.clear()
            step()
            assert seen
            assert seen <= set(allowed)
    assert_sound(tmp_path / "disk")


@pytest.mark.parametrize("options", [{}, {"extended_l2": True}, {"cluster_size": 4096}], ids=str)
def test_threads(tmp_path: Path, options: dict[str, Any], figures: Any) -> None:
    """Readers see a cluster's own bytes or zeroes, whatever writers and discarders do to it."""
    path = fresh(tmp_path / "disk", size=MIB, **options)
    unit = 16384
    stop = time.monotonic() + 1.5
    wrong: list[object] = []
    counted = [0, 0]

    def letter(at: int) -> int:
        return at // unit + 1

    def write(node: Node, seed: int) -> None:
        rng = random.Random(seed)
        try:
            while time.monotonic() < stop and not wrong:
                at = rng.randrange(MIB // unit) * unit
                verb = rng.randrange(6)
                if verb == 0:
                    node.discard(at // K64 * K64, K64)
                elif verb == 1:
                    node.write_zeroes(at, unit, True)
                elif verb == 2 and node.cluster_size <= unit:
                    node.write_compressed(at, bytes([letter(at)]) * node.cluster_size)
                else:
                    node.write(at, bytes([letter(at)]) * unit)
                if rng.randrange(3) == 0:
                    node.flush()
                counted[0] += 1
        except Exception as error:
            wrong.append(error)

    def read(node: Node, seed: int) -> None:
        rng = random.Random(seed)
        try:
            while time.monotonic() < stop and not wrong:
                at = rng.randrange(MIB // unit) * unit
                data = node.read(at, unit)
                if set(data) - {0, letter(at)}:
                    wrong.append((at, set(data)))
                counted[1] += 1
        except Exception as error:
            wrong.append(error)

    with open_image(str(path), writable=True) as node:
        threads = [threading.Thread(target=write, args=(node, seed)) for seed in (1, 2)]
        threads += [threading.Thread(target=read, args=(node, seed)) for seed in (3, 4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
    assert not wrong, wrong
    assert all(counted)
    figures.add("reads while others wrote", counted[1])
    assert_sound(path)
