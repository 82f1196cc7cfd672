"""Random sequences of writes, zeroes, discards, snapshots and resizes against a plain bytearray.

Every sequence ends with the real `qemu-img check` (not even leaked clusters), `compare` with the model, and a `convert`
of every snapshot. In between the real tools may work on the same image: what they write we must read, and go on from.
"""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import judges
from conftest import TORTURE
from cowshed.block.node import Node
from cowshed.errors import CowshedError
from layouts import FACTORS, allowed, assert_same_disk, assert_sound, covering, label, make, opened, options_of, qemu_io

MODEL_FACTORS = {
    **FACTORS,
    "depth": (0, 1, 2),
    "size": ("round", "ragged"),
    "preallocation": ("off", "metadata", "full"),
}
ROWS = covering(MODEL_FACTORS, allowed, seed=7)

ours = st.sampled_from(["write"] * 6 + ["zero", "unmap"] * 2 + ["discard", "packed", "packed"])
theirs = st.sampled_from(["real write", "real zero", "real unmap", "real discard", "real packed"])
changes = ["create", "create", "apply", "delete", "resize"]
whole = st.sampled_from(["flush", "reopen", *changes, *(f"real {verb}" for verb in changes)])
step = st.tuples(
    st.one_of(ours, ours, ours, theirs, whole),
    st.floats(0, 1, exclude_max=True),  # where, as a part of the disk
    st.sampled_from([1, 100, 512, 4096, 0x3000, 65536, 200_000, 1 << 20]),  # how much
    st.sampled_from(["byte", "cluster", "end"]),  # what offset and length are rounded to
    st.integers(1, 255),  # the content's seed
)


def content(seed: int, length: int, *, packable: bool = False) -> bytes:
    """Bytes that differ from place to place; ``packable``: that deflate makes smaller."""
    rng = random.Random(seed)
    if packable:
        piece = rng.randbytes(97 + seed)
        return (piece * (length // len(piece) + 1))[:length]
    return rng.randbytes(length)


class Pair:
    """An image and its model, changed together."""

    def __init__(self, directory: Path, row: dict[str, Any], seed: int) -> None:
        self.row = row
        self.dir = directory
        self.path = directory / "disk.qcow2"
        self.cluster = row["cluster_size"]
        self.story: list[str] = [label(row)]
        size = min(max(5 * self.cluster, 1 << 18), 3 << 20) // 512 * 512
        size = max(size, 2 * self.cluster if self.cluster > 1 << 20 else 0)
        if row["size"] == "ragged":
            size += 3 * 512
        options = options_of(row, directory, "disk")
        backing = self._chain(size, seed) if row["depth"] else None
        make(self.path, options, size, backing)
        self.model = bytearray(size)
        if backing is not None:
            part = self.below[:size]
            self.model[: len(part)] = part
        self.snapshots: dict[str, bytes] = {}
        self.named = 0
        #: compressed clusters may share a host cluster as often as its count can say
        self.narrow = row["refcount_bits"] <= 4 and row["compression"] != "none"
        self.image: Node | None = opened(self.path, writable=True)

    def _chain(self, size: int, seed: int) -> tuple[Path, str]:
        """Backing files with content; ``below``: the bytes that they show."""
        row, rng = self.row, random.Random(seed)
        length = {"same": size, "shorter": size * 5 // 8 // 512 * 512, "longer": size + (300 << 10)}[row["below_size"]]
        bottom = self.dir / "bottom"
        raw = bytearray(length)
        for _ in range(6):
            at = rng.randrange(length)
            raw[at : at + 100_000] = rng.randbytes(min(100_000, length - at))
        bottom.write_bytes(raw)
        fmt = "raw"
        if row["below"] == "qcow2":
            judges.qemu_img("convert", "-f", "raw", "-O", "qcow2", bottom, self.dir / "bottom.qcow2")
            bottom, fmt = self.dir / "bottom.qcow2", "qcow2"
        for level in range(1, row["depth"]):
            above = self.dir / f"middle{level}.qcow2"
            judges.qemu_img("create", "-q", "-f", "qcow2", "-b", bottom, "-F", fmt, above)
            at = rng.randrange(length // 512) * 512
            n = min(70_000, length - at)
            qemu_io(above, [f"write -q -P {level} {at} {n}"])
            raw[at : at + n] = bytes([level]) * n
            bottom, fmt = above, "qcow2"
        self.below = bytes(raw)
        return bottom, fmt

    # -- steps --------------------------------------------------------------------------------------------------------

    def range(self, where: float, length: int, rounding: str, unit: int) -> tuple[int, int]:
        """An offset and a length inside the disk."""
        size = len(self.model)
        offset = int(where * size)
        if rounding == "cluster":
            offset = offset // unit * unit
            length = max(unit, length // unit * unit)
        length = min(length, size - offset)
        if rounding == "end":
            offset = size - length
        return offset, length

    def do(self, name: str, where: float, length: int, rounding: str, seed: int) -> None:
        real = name.startswith("real ")
        verb = name.removeprefix("real ")
        if verb in ("create", "apply", "delete"):
            self.snapshot(verb, real, seed)
        elif verb == "resize":
            self.resize(real, where, rounding)
        elif verb in ("flush", "reopen"):
            assert self.image is not None
            self.story.append(verb)
            self.image.flush()
            if verb == "reopen":
                self.reopened()
        elif real:
            self.real_io(verb, where, length, rounding, seed)
        else:
            self.own_io(verb, where, length, rounding, seed)

    def own_io(self, verb: str, where: float, length: int, rounding: str, seed: int) -> None:
        image, model = self.image, self.model
        assert image is not None
        offset, length = self.range(where, length, "cluster" if verb == "packed" else rounding, self.cluster)
        if verb == "packed" and self.row["compression"] == "none":
            verb = "write"
        self.story.append(f"{verb} {offset:#x}+{length:#x}")
        end = offset + length
        if verb == "write":
            data = content(seed, length)
            image.write(offset, data)
            model[offset:end] = data
        elif verb in ("zero", "unmap"):
            image.write_zeroes(offset, length, unmap=verb == "unmap")
            model[offset:end] = bytes(length)
        elif verb == "discard":
            image.discard(offset, length)
            got = image.read(offset, length)
            self.forgotten(offset, got)
        else:
            data = content(seed, length, packable=seed % 5 != 0)
            for at in range(offset, end, self.cluster):
                image.write_compressed(at, data[at - offset : at - offset + self.cluster])
            model[offset:end] = data

    def forgotten(self, offset: int, got: bytes) -> None:
        """After a discard bytes are what they were, or zero; nothing else."""
        old = self.model[offset : offset + len(got)]
        if got != old:
            for number, byte in enumerate(got):
                assert byte in (0, old[number]), f"discard shows other bytes at {offset + number:#x}: {self.story}"
            self.model[offset : offset + len(got)] = got

    def real_io(self, verb: str, where: float, length: int, rounding: str, seed: int) -> None:
        offset, length = self.range(where, length, rounding, self.cluster)
        if verb == "packed":
            if self.row["compression"] == "none":
                verb = "write"
            else:
                offset = offset // self.cluster * self.cluster
                length = min(self.cluster, len(self.model) - offset)
                assert self.image is not None
                placed = self.row["extended_l2"] and self.row["preallocation"] != "off"
                if placed or any(e.host_offset >= 0 for e in self.image.layer_extents(offset, length)):
                    return  # qemu doesn't compress over a cluster that has its place
        offset = offset // 512 * 512
        length = min((length + 511) // 512 * 512, len(self.model) - offset)
        self.story.append(f"real {verb} {offset:#x}+{length:#x}")
        self.closed()
        end = offset + length
        if verb == "discard":
            before = bytes(self.model)
            qemu_io(self.path, [f"discard -q {offset} {length}"])
            self.image = opened(self.path, writable=True)
            got = self.image.read(offset, length)
            self.forgotten(offset, got)
            assert len(before) == len(self.model)
            return
        if verb in ("write", "packed"):
            source = self.dir / "content"
            data = content(seed, length, packable=verb == "packed")
            source.write_bytes(data)
            qemu_io(self.path, [f"write -q {'-c ' if verb == 'packed' else ''}-s {source} {offset} {length}"])
            self.model[offset:end] = data
        else:
            qemu_io(self.path, [f"write -q -z {'-u ' if verb == 'unmap' else ''}{offset} {length}"])
            self.model[offset:end] = bytes(length)
        self.image = opened(self.path, writable=True)

    def snapshot(self, verb: str, real: bool, seed: int) -> None:
        names = sorted(self.snapshots)
        if verb == "create":
            # every snapshot may share every cluster once more
            most = min(6, (1 << self.row["refcount_bits"]) - 2)
            if self.row["data_file"] != "none" or len(names) >= most:
                return
            self.named += 1
            name = f"s{self.named}"
        elif not names:
            return
        else:
            name = names[seed % len(names)]
        if verb == "apply" and len(self.snapshots[name]) != len(self.model):
            if self.row["compat"] == "v2":
                return
            real = False  # qemu-img can't zero what it grows by over a backing file
        if self.narrow:
            real = False  # qemu-img's way of applying needs one more reference for a moment
        self.story.append(f"{'real ' if real else ''}{verb} {name}")
        if real:
            self.closed()
            judges.qemu_img("snapshot", {"create": "-c", "apply": "-a", "delete": "-d"}[verb], name, self.path)
            self.image = opened(self.path, writable=True)
        else:
            assert self.image is not None
            try:
                getattr(self.image, f"snapshot_{verb}")(name)
            except CowshedError as error:
                if verb == "delete" or not self.narrow:
                    raise
                assert "Invalid argument" in str(error), self.story
                self.story.append("(refused)")
                return
        if verb == "create":
            self.snapshots[name] = bytes(self.model)
        elif verb == "apply":
            self.model = bytearray(self.snapshots[name])
        else:
            del self.snapshots[name]

    def resize(self, real: bool, where: float, rounding: str) -> None:
        if self.row["compat"] == "v2" and self.snapshots:
            return
        now = len(self.model)
        size = max(512, int(now * (0.4 + 1.2 * where)) // 512 * 512)
        if rounding == "cluster":
            size = max(1, size // self.cluster) * self.cluster
        if size > 6 << 20:
            return
        if size < now and self.snapshots:
            real = False  # qemu-img wants no snapshots when it shrinks
        if size > now and self.row["compat"] == "v2" and self.row["below_size"] == "longer":
            real = False  # qemu-img can't hide the longer backing file's bytes in version 2
        self.story.append(f"{'real ' if real else ''}resize {size:#x}")
        if real:
            self.closed()
            judges.qemu_img("resize", "-q", "--shrink", self.path, str(size))
            self.image = opened(self.path, writable=True)
        else:
            assert self.image is not None
            self.image.resize(size)
        if size < now:
            del self.model[size:]
        else:
            self.model.extend(bytes(size - now))

    # -- judging ------------------------------------------------------------------------------------------------------

    def closed(self) -> None:
        assert self.image is not None
        self.image.close()
        self.image = None

    def reopened(self) -> None:
        self.closed()
        self.image = opened(self.path, writable=True)

    def same(self) -> None:
        """What we read now is what the model has, the snapshots' disks too."""
        image, model = self.image, self.model
        assert image is not None and image.size == len(model), self.story
        got = image.read(0, len(model))
        if got != model:
            bad = next(number for number in range(len(model)) if got[number] != model[number])
            raise AssertionError(f"byte {bad:#x} is {got[bad]:#x}, not {model[bad]:#x}: {self.story}")
        for name, wanted in self.snapshots.items():
            with image.snapshot_view(name) as view:
                assert view.read(0, view.size) == wanted, (name, self.story)

    def judged(self) -> None:
        """Closed, and judged by the real tools."""
        self.closed()
        assert_sound(self.path, self.story)
        raw = self.dir / "model.raw"
        raw.write_bytes(self.model)
        assert_same_disk(self.path, raw, self.story)
        for name, wanted in self.snapshots.items():
            out = self.dir / "snapshot.raw"
            judges.qemu_img("convert", "-f", "qcow2", "-l", f"snapshot.name={name}", "-O", "raw", self.path, out)
            # qemu-img gives a snapshot the disk's size of today; what lies beyond its own is not part of it
            got = out.read_bytes()
            common = min(len(got), len(wanted))
            assert got[:common] == wanted[:common], (name, self.story)
        if self.row["data_file"] == "raw":
            data = (self.dir / "disk.data").read_bytes()[: len(self.model)].ljust(len(self.model), b"\0")
            assert data == self.model, f"the raw data file shows another disk: {self.story}"


@given(st.sampled_from(ROWS), st.lists(step, min_size=1, max_size=25), st.integers(0, 1 << 16))
def test_sequences(
    tmp_path_factory: pytest.TempPathFactory, figures: Any, row: dict[str, Any], steps: Any, seed: int
) -> None:
    judges.need("qemu-img")
    run(tmp_path_factory.mktemp("model"), figures, row, steps, seed)


def run(directory: Path, figures: Any, row: dict[str, Any], steps: Any, seed: int) -> None:
    pair = Pair(directory, row, seed)
    try:
        for name, where, length, rounding, content_seed in steps:
            pair.do(name, where, length, rounding, content_seed)
            if content_seed % 4 == 0:
                pair.same()
        pair.same()
        pair.judged()
        # what others read, we read after opening again
        pair.image = opened(pair.path)
        pair.same()
    finally:
        if pair.image is not None:
            pair.image.read_only = pair.image.read_only or pair.image.closed
            pair.image.close()
    figures.add("model: sequences judged")
    figures.add("model: steps", len(steps))
    for file in directory.iterdir():
        file.unlink()


@pytest.mark.parametrize("row", ROWS, ids=label)
def test_each_layout(tmp_path: Path, figures: Any, row: dict[str, Any]) -> None:
    rng = random.Random(label(row))
    verbs = ["write"] * 7 + ["zero", "unmap", "discard"] * 2 + ["packed"] * 4
    verbs += ["real write", "real zero", "real unmap", "real discard", "real packed"]
    verbs += ["flush", "reopen", "create", "create", "apply", "delete", "resize"]
    verbs += ["real create", "real apply", "real delete", "real resize"]
    for _ in range(12 if TORTURE else 1):
        steps = [
            (
                rng.choice(verbs), rng.random(), rng.choice([1, 100, 512, 4096, 0x3000, 65536, 200_000, 1 << 20]),
                rng.choice(["byte", "cluster", "end"]), rng.randrange(1, 256),
            )
            for _ in range(30)
        ]  # fmt: skip
        run(tmp_path, figures, row, steps, rng.randrange(1 << 16))
