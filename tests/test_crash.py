"""Power cuts: every operation on every format, cut anywhere, must leave leaks at most and lose nothing promised.

The method is in crash.py. A format joins by a line in FORMATS, an operation by a function in OPERATIONS.
"""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import zlib
from collections.abc import Callable
from typing import Any

import pytest

import judges
from cowshed.block.filter.record import FLUSH, RecordNode
from cowshed.block.graph import create_image, open_image
from cowshed.block.node import Node
from crash import Guest, Held, Judge, Run, workspace

KIB, MIB = 1 << 10, 1 << 20

#: states made of one operation on one format: in an ordinary run, and three times under torture
BUDGET, TORTURE_BUDGET = 100, 300


class Format:
    """A row of the table: driver, creation options, disk size, and what the format can do."""

    def __init__(self, driver: str, options: str, size: int, *can: str) -> None:
        self.driver = driver
        self.options = options
        self.size = size
        self.can = can


QCOW2 = ("backing", "snapshot", "resize", "amend", "rebase", "compress", "bitmap")
FORMATS = {
    "v2": Format("qcow2", "compat=0.10,cluster_size=4k", MIB, *QCOW2[:-1]),
    "v3": Format("qcow2", "compat=1.1,cluster_size=4k", MIB, *QCOW2),
    "v3 64k": Format("qcow2", "cluster_size=64k", 4 * MIB, *QCOW2),
    "v3 512": Format("qcow2", "cluster_size=512", 256 * KIB, *QCOW2),
    "lazy": Format("qcow2", "lazy_refcounts=on,cluster_size=4k", MIB, *QCOW2),
    "extended l2": Format("qcow2", "extended_l2=on,cluster_size=16k", 2 * MIB, *QCOW2),
    "refcount 1": Format("qcow2", "refcount_bits=1,cluster_size=4k", MIB, "backing", "resize", "rebase"),
    "refcount 64": Format("qcow2", "refcount_bits=64,cluster_size=4k", MIB, *QCOW2),
    "data file": Format("qcow2", "data_file=DATA,cluster_size=4k", MIB, "backing", "resize", "rebase"),
    "raw data file": Format("qcow2", "data_file=DATA,data_file_raw=on,cluster_size=64k", 2 * MIB, "resize"),
    "vmdk": Format("vmdk", "", 4 * MIB, "backing"),
    "vmdk zeroed": Format("vmdk", "zeroed_grain=on", 4 * MIB, "backing"),
}  # fmt: skip


class Scene:
    """The images of one case: `image` makes them, ``run`` records what is done to them."""

    def __init__(self, form: Format, seed: int) -> None:
        self.form = form
        self.rng = random.Random(seed)
        self.folder = workspace()
        self.run = Run(self.folder)

    def path(self, name: str) -> str:
        return str(self.folder / name)

    def image(self, name: str, *, backing: str | None = None, fill: float = 0.5, size: int | None = None) -> bytes:
        """A new image, closed, with about ``fill`` of its clusters written; returns what it shows."""
        form = self.form
        size = size or form.size
        create_image(
            self.path(name), form.driver, form.options.replace("DATA", name + ".data"), size=size, backing=backing,
            backing_fmt=form.driver if backing else None,
        )  # fmt: skip
        with self.open(name) as node:
            unit = node.cluster_size
            at = 0
            while at < size:
                length = min(size - at, unit * self.rng.randrange(1, 6))
                if self.rng.random() < fill:
                    node.write(at, self.rng.randbytes(length))
                at += length
            return node.read(0, size)

    def open(self, name: str) -> Node:
        return open_image(self.path(name), fmt=self.form.driver, writable=True)

    def follow(self, name: str, content: bytes) -> Guest:
        return self.run.guest(name, self.form.driver, content)

    def record(self, *names: str) -> None:
        """The changes of these images count, and those of their data files."""
        self.run.record(*names)
        self.run.record(*(name + ".data" for name in names if "DATA" in self.form.options), part=True)

    def recorded(self, name: str = "x", *, fill: float = 0.5) -> Guest:
        """One image whose changes count, and its guest."""
        content = self.image(name, fill=fill)
        self.record(name)
        return self.follow(name, content)

    def span(self, node: Node) -> tuple[int, int]:
        """A random range: whole clusters, or ragged, or small."""
        unit = node.cluster_size
        kind = self.rng.randrange(3)
        length = (unit * self.rng.randrange(1, 9), self.rng.randrange(1, 5 * unit), 512)[kind]
        offset = self.rng.randrange(node.size)
        if kind != 1:
            offset -= offset % (unit if kind == 0 else 512)
        return offset, min(length, node.size - offset)


# -- operations -----------------------------------------------------------------------------------------------------


def write(scene: Scene) -> None:
    guest = scene.recorded()
    run = scene.run
    with run.recording(), scene.open("x") as node:
        for number in range(6):
            offset, length = scene.span(node)
            run.write(guest, node, offset, scene.rng.randbytes(length))
            if number in (1, 3):
                run.flush(guest, node)
        run.flush(guest, node)


def write_into_nothing(scene: Scene) -> None:
    """First writes into an empty image: every table is new."""
    guest = scene.recorded(fill=0)
    run = scene.run
    with run.recording(), scene.open("x") as node:
        for offset in (0, node.size // 2, node.size - 1000):
            run.write(guest, node, offset, scene.rng.randbytes(1000))
            run.flush(guest, node)


def write_over_backing(scene: Scene) -> None:
    scene.image("base")
    content = scene.image("x", backing="base", fill=0.2)
    scene.record("x")
    guest = scene.follow("x", content)
    run = scene.run
    with run.recording(), scene.open("x") as node:
        for number in range(5):
            offset, length = scene.span(node)
            if number == 3:
                run.zero(guest, node, offset, length)
            else:
                run.write(guest, node, offset, scene.rng.randbytes(length))
            if number == 1:
                run.flush(guest, node)
        run.flush(guest, node)


def zero(scene: Scene) -> None:
    guest = scene.recorded(fill=0.8)
    run = scene.run
    with run.recording(), scene.open("x") as node:
        for number in range(5):
            offset, length = scene.span(node)
            run.zero(guest, node, offset, length, unmap=number % 2 == 1)
            if number == 2:
                run.flush(guest, node)
        run.flush(guest, node)


def discard(scene: Scene) -> None:
    guest = scene.recorded(fill=0.8)
    run = scene.run
    with run.recording(), scene.open("x") as node:
        for number in range(4):
            offset, _ = scene.span(node)
            run.discard(guest, node, offset, min(node.size - offset, node.size // 5))
            if number == 1:
                run.flush(guest, node)
                # what was given back is used again
                run.write(guest, node, offset, scene.rng.randbytes(min(node.size - offset, node.size // 6)))
        run.flush(guest, node)


def churn(scene: Scene) -> None:
    """A longer mixture, in which clusters are freed and used again, over two openings."""
    guest = scene.recorded()
    run, rng = scene.run, scene.rng
    for _ in range(2):
        with run.recording(), scene.open("x") as node:
            for _ in range(14):
                offset, length = scene.span(node)
                kind = rng.randrange(8)
                if kind < 4:
                    run.write(guest, node, offset, rng.randbytes(length))
                elif kind < 6:
                    run.zero(guest, node, offset, length, unmap=kind == 4)
                elif kind == 6:
                    run.discard(guest, node, offset, length)
                else:
                    run.flush(guest, node)
            run.flush(guest, node)


def compress(scene: Scene) -> None:
    guest = scene.recorded()
    run, rng = scene.run, scene.rng
    with run.recording(), scene.open("x") as node:
        unit = node.cluster_size
        for number in range(10):
            cluster = rng.randrange(node.size // unit)
            if number % 3 == 2:
                run.write(guest, node, cluster * unit + unit // 4, rng.randbytes(unit // 2))
            else:
                data = rng.randbytes(unit // 4) * 4
                guest.actions.append((len(run.log.events), cluster * unit, data))
                node.write_compressed(cluster * unit, data)
                guest.content = guest.content[: cluster * unit] + data + guest.content[(cluster + 1) * unit :]
            if number == 5:
                run.flush(guest, node)
        run.flush(guest, node)


def _snapshotted(scene: Scene) -> tuple[Guest, bytes]:
    """An image with two snapshots, "one" and "two", and changes since; (guest, content of "one")."""
    from cowshed.ops.snapshot import snapshot_create

    first = scene.image("x")
    snapshot_create(scene.path("x"), "one", fmt=scene.form.driver)
    with scene.open("x") as node:
        for _ in range(4):
            offset, length = scene.span(node)
            node.write(offset, scene.rng.randbytes(length))
        second = node.read(0, node.size)
    snapshot_create(scene.path("x"), "two", fmt=scene.form.driver)
    with scene.open("x") as node:
        for _ in range(3):
            offset, length = scene.span(node)
            node.write(offset, scene.rng.randbytes(length))
        content = node.read(0, node.size)
    scene.record("x")
    guest = scene.follow("x", content)
    guest.snapshots["one"] = Held(first, 0, 0)
    guest.snapshots["two"] = Held(second, 0, 0)
    return guest, first


def create_snapshot(scene: Scene) -> None:
    guest, _ = _snapshotted(scene)
    run = scene.run
    with run.recording(), scene.open("x") as node:
        for name in ("three", "four"):
            offset, length = scene.span(node)
            run.write(guest, node, offset, scene.rng.randbytes(length))
            run.flush(guest, node)
            held = guest.snapshots[name] = Held(guest.content, len(run.log.events), 1 << 60)
            node.snapshot_create(name)
            run.flush(guest, node)
            held.since = len(run.log.events)
        # the first writes after it copy what is shared now
        for _ in range(3):
            offset, length = scene.span(node)
            run.write(guest, node, offset, scene.rng.randbytes(length))
        run.flush(guest, node)


def apply_snapshot(scene: Scene) -> None:
    from cowshed.ops.snapshot import snapshot_apply

    guest, first = _snapshotted(scene)
    run = scene.run
    with run.recording():
        run.replace(guest, first)
        snapshot_apply(scene.path("x"), "one", fmt=scene.form.driver)
        run.promise(guest)
        with scene.open("x") as node:
            offset, length = scene.span(node)
            run.write(guest, node, offset, scene.rng.randbytes(length))
            run.flush(guest, node)


def delete_snapshot(scene: Scene) -> None:
    from cowshed.ops.snapshot import snapshot_delete

    guest, _ = _snapshotted(scene)
    run = scene.run
    with run.recording():
        for name in ("one", "two"):
            held = guest.snapshots[name]
            held.leaving = len(run.log.events)
            snapshot_delete(scene.path("x"), name, fmt=scene.form.driver)
            run.promise(guest)
            held.gone = len(run.log.events)
        with scene.open("x") as node:
            for _ in range(3):
                offset, length = scene.span(node)
                run.write(guest, node, offset, scene.rng.randbytes(length))
            run.flush(guest, node)


def grow(scene: Scene) -> None:
    from cowshed.ops.resize import resize

    guest = scene.recorded()
    run = scene.run
    with run.recording():
        for size in (scene.form.size * 2, scene.form.size * 2 + 9 * MIB):
            run.replace(guest, guest.content + bytes(size - len(guest.content)))
            resize(scene.path("x"), size, fmt=scene.form.driver)
            run.promise(guest)
        with scene.open("x") as node:
            run.write(guest, node, node.size - 5000, scene.rng.randbytes(5000))
            run.flush(guest, node)


def shrink(scene: Scene) -> None:
    from cowshed.ops.resize import resize

    guest = scene.recorded(fill=0.9)
    run = scene.run
    with run.recording():
        for size in (scene.form.size * 3 // 4 + 512, scene.form.size // 4):
            run.replace(guest, guest.content[:size])
            resize(scene.path("x"), size, shrink=True, fmt=scene.form.driver)
            run.promise(guest)


def commit_down(scene: Scene) -> None:
    """Into the backing file; the overlay's disk must show the same throughout."""
    from cowshed.ops.commit import commit

    scene.image("base")
    content = scene.image("x", backing="base", fill=0.3)
    if scene.form.driver == "qcow2":
        with scene.open("x") as node:
            node.write_zeroes(0, node.cluster_size * 3)
            content = node.read(0, node.size)
    scene.record("x", "base")
    # once its parent has changed, a vmdk overlay may not be read any more: the base has it all by then
    if scene.form.driver == "qcow2":
        guest = scene.follow("x", content)
    else:
        with open_image(scene.path("base"), fmt=scene.form.driver) as node:
            guest = scene.follow("base", node.read(0, node.size))
        guest.actions.append((0, 0, content))
        guest.content = content
    with scene.run.recording():
        commit(scene.path("x"), fmt=scene.form.driver)
        scene.run.promise(guest)


def rebase_safely(scene: Scene) -> None:
    from cowshed.ops.rebase import rebase

    scene.image("base")
    scene.image("other")
    content = scene.image("x", backing="base", fill=0.3)
    scene.record("x")
    guest = scene.follow("x", content)
    run = scene.run
    with run.recording():
        rebase(scene.path("x"), "other", backing_fmt=scene.form.driver, fmt=scene.form.driver)
        run.promise(guest)
        rebase(scene.path("x"), None, fmt=scene.form.driver)
        run.promise(guest)


def rename_backing(scene: Scene) -> None:
    from cowshed.ops.rebase import rebase

    scene.image("base")
    content = scene.image("x", backing="base", fill=0.3)
    long = "a-much-longer-name-" + "n" * 200
    for name in ("b", long):
        shutil.copy(scene.path("base"), scene.path(name))
    scene.record("x")
    guest = scene.follow("x", content)
    with scene.run.recording():
        for name in ("b", long, "base"):
            rebase(scene.path("x"), name, backing_fmt=scene.form.driver, unsafe=True, fmt=scene.form.driver)
            scene.run.promise(guest)


def amend_options(scene: Scene) -> None:
    from cowshed.ops.amend import amend

    guest = scene.recorded()
    run = scene.run
    with run.recording():
        for options in AMENDMENTS[scene.form.options.split(",")[0]]:
            amend(scene.path("x"), options, fmt=scene.form.driver)
            run.promise(guest)


AMENDMENTS = {
    "compat=0.10": ("compat=1.1", "refcount_bits=64", "lazy_refcounts=on"),
    "compat=1.1": ("lazy_refcounts=on", "refcount_bits=64", "refcount_bits=1", "refcount_bits=16", "compat=0.10"),
    "cluster_size=64k": ("refcount_bits=8", "lazy_refcounts=on"),
    "cluster_size=512": ("refcount_bits=64", "refcount_bits=2"),
    "lazy_refcounts=on": ("lazy_refcounts=off", "compat=0.10"),
    "extended_l2=on": ("lazy_refcounts=on", "refcount_bits=4"),
    "refcount_bits=64": ("refcount_bits=32", "refcount_bits=16", "compat=0.10"),
}


def convert_into(scene: Scene) -> None:
    """A conversion into an image that is there: cut in the middle, what was not reached is still zero."""
    from cowshed.ops.convert import convert

    size = scene.form.size
    source = bytearray(scene.rng.randbytes(size))
    for _ in range(6):
        at = scene.rng.randrange(size) // 4096 * 4096
        source[at : at + size // 8] = bytes(min(size // 8, size - at))
    (scene.folder / "source.raw").write_bytes(source)
    scene.image("x", fill=0)
    scene.record("x")
    guest = scene.follow("x", bytes(size))
    guest.actions.append((0, 0, bytes(source)))
    with scene.run.recording():
        convert(
            scene.path("source.raw"), scene.path("x"), scene.form.driver, source_fmt="raw", create=False,
            target_is_zero=True, cache="writeback",
        )  # fmt: skip
        guest.content = bytes(source)
        scene.run.promise(guest)


def bitmaps(scene: Scene) -> None:
    from cowshed.ops.bitmap import bitmap

    guest = scene.recorded()
    run = scene.run
    with run.recording():
        guest.tracked["b1"] = (guest.content, 1 << 60)
        bitmap(scene.path("x"), "b1", ["add"], granularity=4096, fmt=scene.form.driver)
        for _ in range(2):
            with scene.open("x") as node:
                for number in range(4):
                    offset, length = scene.span(node)
                    if number == 2:
                        run.zero(guest, node, offset, length)
                        run.flush(guest, node)
                    else:
                        run.write(guest, node, offset, scene.rng.randbytes(length))
                run.flush(guest, node)
        bitmap(scene.path("x"), "b2", ["add", ("merge", "b1"), "disable"], fmt=scene.form.driver)
        run.promise(guest)
        guest.tracked["b1"] = (guest.tracked["b1"][0], len(run.log.events))
        bitmap(scene.path("x"), "b1", ["clear", "remove"], fmt=scene.form.driver)
        run.promise(guest)


#: operation -> (function, what the format must be able to do)
OPERATIONS: dict[str, tuple[Callable[[Scene], None], tuple[str, ...]]] = {
    "write": (write, ()),
    "write into an empty image": (write_into_nothing, ()),
    "write over a backing file": (write_over_backing, ("backing",)),
    "zero": (zero, ()),
    "discard": (discard, ()),
    "churn": (churn, ()),
    "compressed write": (compress, ("compress",)),
    "snapshot create": (create_snapshot, ("snapshot",)),
    "snapshot apply": (apply_snapshot, ("snapshot",)),
    "snapshot delete": (delete_snapshot, ("snapshot",)),
    "grow": (grow, ("resize",)),
    "shrink": (shrink, ("resize",)),
    "commit": (commit_down, ("backing",)),
    "rebase": (rebase_safely, ("rebase",)),
    "rebase -u": (rename_backing, ("rebase",)),
    "amend": (amend_options, ("amend",)),
    "convert": (convert_into, ()),
    "bitmap": (bitmaps, ("bitmap",)),
}

CASES = [
    pytest.param(operation, name, id=f"{operation}, {name}")
    for operation, (_, needs) in OPERATIONS.items()
    for name, form in FORMATS.items()
    if all(need in form.can for need in needs)
]


def judge(operation: str, name: str, budget: int, seed: int) -> Any:
    """Record the operation, judge its states; returns the verdicts."""
    form = FORMATS[name]
    scene = Scene(form, seed)
    try:
        with contextlib.chdir(scene.folder):
            OPERATIONS[operation][0](scene)
        with Judge(scene.run, form.driver, budget=budget, seed=seed) as jury:
            return jury.judge()
    finally:
        scene.run.log.close()
        shutil.rmtree(scene.folder)


def report(figures: Any, verdicts: Any, what: str = "crash") -> None:
    figures.add(f"{what}: cut states judged", verdicts.states)
    figures.add(f"{what}: cut states like one before", verdicts.same)
    figures.add(f"{what}: judged states with leaks", verdicts.leaks)
    figures.add(f"{what}: judged states read by the real tool too", verdicts.read)


@pytest.mark.parametrize(("operation", "name"), CASES)
def test_power_cut(operation: str, name: str, figures: Any) -> None:
    judges.need("qemu-img")
    judges.need("qemu-io")
    verdicts = judge(operation, name, BUDGET, zlib.crc32(f"{operation} {name}".encode()))
    report(figures, verdicts)
    assert not verdicts.faults, "\n".join(verdicts.faults)
    assert verdicts.states > 1


def test_missing_barriers_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """The harness can fail: without flushes between them, metadata writes in any order must end in corruption."""
    judges.need("qemu-img")
    def flush(run: Run, guest: Guest, node: Node) -> None:
        node.flush()
        run.log.add(FLUSH, name="x")
        run.promise(guest)

    monkeypatch.setattr(RecordNode, "flush", lambda node: None)
    monkeypatch.setattr(Run, "flush", flush)
    verdicts = judge("write into an empty image", "v3", 200, 1)
    assert any("exit 2" in fault for fault in verdicts.faults), verdicts.faults


def test_lost_flushes_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """The harness can fail: a promise without a flush behind it is seen through."""
    judges.need("qemu-img")
    monkeypatch.setattr(Run, "flush", lambda run, guest, node: run.promise(guest))
    verdicts = judge("write", "v3", 200, 1)
    assert any("guest sector" in fault for fault in verdicts.faults), verdicts.faults


def test_bitmaps_that_miss_a_write_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """The harness can fail: a dirty bitmap that does not follow the writes is seen through."""
    from cowshed.block.format.qcow2.bitmap_store import Tracker

    judges.need("qemu-img")
    monkeypatch.setattr(Tracker, "mark", lambda tracker, offset, length: None)
    verdicts = judge("bitmap", "v3", 200, 1)
    assert any("knows nothing of the change" in fault for fault in verdicts.faults), verdicts.faults


@pytest.mark.torture
@pytest.mark.parametrize(("operation", "name"), CASES)
def test_power_cut_at_length(operation: str, name: str, figures: Any) -> None:
    judges.need("qemu-img")
    for _ in range(3):
        seed = int.from_bytes(os.urandom(4), "little")
        verdicts = judge(operation, name, TORTURE_BUDGET, seed)
        report(figures, verdicts, "crash torture")
        assert not verdicts.faults, f"seed {seed}\n" + "\n".join(verdicts.faults)
