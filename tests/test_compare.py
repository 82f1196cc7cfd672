"""qemu-img compare: the same verdicts, in the same words, as the real tool."""

from __future__ import annotations

import itertools
import random
import struct
from pathlib import Path
from typing import Any

import pytest

import judges
from differential import Arena


def _noise(
    name: str, size: int, seed: int = 1, holes: tuple[tuple[int, int], ...] = (), flip: int | None = None
) -> Any:
    """A callable that writes a file of noise: with zeroes at ``holes``, and with one byte changed at ``flip``."""

    def make(folder: Path) -> None:
        data = bytearray(random.Random(seed).randbytes(size))
        for offset, length in holes:
            data[offset : offset + length] = bytes(length)
        if flip is not None:
            data[flip] ^= 0x5A
        with open(folder / name, "wb") as file:
            file.truncate(size)
            for at in range(0, size, 4096):
                block = data[at : at + 4096]
                if any(block):
                    file.seek(at)
                    file.write(block)

    return make


def _longer(name: str, source: str, size: int, tail: bytes = b"") -> Any:
    def make(folder: Path) -> None:
        data = (folder / source).read_bytes()
        with open(folder / name, "wb") as file:
            file.write(data)
            file.truncate(size)
            if tail:
                file.seek(size - len(tail))
                file.write(tail)

    return make


def _spoil(name: str, slot: int) -> Any:
    """Damage the compressed data of one cluster of a small image."""

    def make(folder: Path) -> None:
        with open(folder / name, "r+b") as file:
            data = file.read()
            l1 = struct.unpack_from(">Q", data, 40)[0]
            l2 = struct.unpack_from(">Q", data, l1)[0] & 0x00FFFFFFFFFFFE00
            file.seek((struct.unpack_from(">Q", data, l2 + 8 * slot)[0] & ((1 << 54) - 1)) + 5)
            file.write(b"\xff" * 60)

    return make


MIB = 1 << 20
HOLES = ((0, 200_704), (303_104, 393_216))


@pytest.fixture
def arena(tmp_path: Path, figures: Any) -> Arena:
    return Arena(tmp_path, figures).setup(
        _noise("a.raw", MIB),
        _noise("flip.raw", MIB, flip=300_000),
        _noise("flip2.raw", MIB, flip=299_008),
        _noise("sparse.raw", MIB, holes=HOLES),
        _noise("sparse2.raw", MIB, holes=(*HOLES, (720_896, 4096))),
        _noise("odd.raw", 700_000),
        _noise("other.raw", MIB, 2),
        lambda folder: (folder / "abc.raw").write_bytes(b"abc"),
        lambda folder: (folder / "empty.raw").write_bytes(b""),
        _longer("zeroes.raw", "empty.raw", MIB),
        _longer("long.raw", "a.raw", 2 * MIB),
        _longer("tail.raw", "a.raw", 2 * MIB, b"x" * 1000),
        "convert -f raw -O qcow2 a.raw a.qcow2",
        "convert -f raw -O qcow2 sparse.raw sparse.qcow2",
        "create -q -f qcow2 empty.qcow2 1M",
        "create -q -f qcow2 zero.qcow2 1M",
        "qemu-io -c 'write -z 0 1M' zero.qcow2",
        "create -q -f qcow2 zeroed.qcow2 1M",
        "qemu-io -c 'write -P 1 0 1M' -c 'write -z 0 1M' zeroed.qcow2",
        "create -q -f qcow2 -o preallocation=metadata meta.qcow2 1M",
        "create -q -f qcow2 -b a.raw -F raw over.qcow2",
        "create -q -f qcow2 -b over.qcow2 -F qcow2 over2.qcow2 2M",
        "qemu-io -c 'write -P 9 64k 64k' over2.qcow2",
        "create -q -f qcow2 shuffled.qcow2 1M",
        "qemu-io -c 'write -P 1 512k 512k' -c 'write -P 1 0 512k' shuffled.qcow2",
        "create -q -f qcow2 straight.qcow2 1M",
        "qemu-io -c 'write -P 1 0 1M' straight.qcow2",
        "convert -c -O qcow2 straight.qcow2 packed.qcow2",
        "convert -c -O qcow2 straight.qcow2 broken.qcow2",
        _spoil("broken.qcow2", 3),
    )


IMAGES = (
    *("a.raw", "flip.raw", "sparse.raw", "sparse2.raw", "zeroes.raw", "long.raw", "empty.raw"),
    *("a.qcow2", "sparse.qcow2", "empty.qcow2", "zero.qcow2", "zeroed.qcow2", "meta.qcow2", "over.qcow2"),
    *("over2.qcow2", "shuffled.qcow2", "straight.qcow2", "packed.qcow2", "broken.qcow2"),
)


def test_every_pair(arena: Arena) -> None:
    arena.check_all(["compare", *pair] for pair in itertools.combinations_with_replacement(IMAGES, 2))


def test_every_pair_strictly(arena: Arena) -> None:
    arena.check_all(["compare", "-s", *pair] for pair in itertools.combinations_with_replacement(IMAGES, 2))


def test_switches(arena: Arena) -> None:
    campaign = [
        ["-p", "a.raw", "a.qcow2"],
        ["-p", "a.raw", "flip.raw"],
        ["-p", "sparse.raw", "sparse.qcow2"],
        ["-p", "-s", "sparse.raw", "sparse.qcow2"],
        ["-p", "-q", "a.raw", "a.qcow2"],
        ["-p", "straight.qcow2", "broken.qcow2"],
        ["-p", "empty.raw", "empty.raw"],
        ["-q", "a.raw", "flip.raw"],
        ["-q", "a.raw", "long.raw"],
        ["-q", "-s", "a.raw", "long.raw"],
        ["-q", "straight.qcow2", "broken.qcow2"],
        ["-s", "a.raw", "long.raw"],
        ["a.raw", "tail.raw"],
        ["tail.raw", "a.raw"],
        ["long.raw", "tail.raw"],
        ["flip.raw", "flip2.raw"],
        ["flip.raw", "tail.raw"],
        ["-f", "raw", "-F", "raw", "odd.raw", "a.raw"],
        ["-f", "raw", "-F", "raw", "a.raw", "odd.raw"],
        ["-f", "raw", "-F", "raw", "abc.raw", "empty.raw"],
        ["-f", "raw", "-F", "raw", "abc.raw", "abc.raw"],
        ["-f", "raw", "-F", "raw", "a.qcow2", "a.qcow2"],
        ["-f", "raw", "-F", "qcow2", "a.raw", "a.qcow2"],
        ["-f", "qcow2", "-F", "raw", "a.qcow2", "a.raw"],
        ["-U", "a.raw", "a.qcow2"],
        ["-T", "none", "a.raw", "a.qcow2"],
        ["-T", "unsafe", "a.raw", "a.qcow2"],
        ["--image-opts", "driver=raw,file.filename=a.raw", "driver=qcow2,file.filename=a.qcow2"],
        ["--image-opts", "driver=raw,offset=4096,file.filename=a.raw", "driver=raw,file.filename=a.raw"],
        ['json:{"driver":"qcow2","file":{"driver":"file","filename":"a.qcow2"}}', "a.raw"],
        ["--object", "secret,id=s,data=x", "a.raw", "a.qcow2"],
    ]
    arena.check_all(["compare", *tail] for tail in campaign)


def test_mistakes(arena: Arena) -> None:
    campaign = [
        [],
        ["a.raw"],
        ["a.raw", "a.raw", "a.raw"],
        ["a.raw", "nofile"],
        ["nofile", "a.raw"],
        ["nofile", "nofile2"],
        ["", "a.raw"],
        ["-f", "foo", "a.raw", "a.raw"],
        ["-F", "foo", "a.raw", "a.raw"],
        ["-f", "qcow2", "a.raw", "a.raw"],
        ["-F", "qcow2", "a.raw", "a.raw"],
        ["-T", "foo", "a.raw", "a.raw"],
        ["--image-opts", "a.raw", "a.raw"],
        ["--image-opts", "-f", "raw", "a.raw", "a.raw"],
        ["--image-opts", "-F", "raw", "driver=raw,file.filename=a.raw", "driver=raw,file.filename=a.raw"],
        ["--object", "foo", "a.raw", "a.raw"],
        ["-x", "a.raw", "a.raw"],
        ["-f"],
        ["foo:bar", "a.raw"],
    ]
    arena.check_all(["compare", *tail] for tail in campaign)


@pytest.mark.parametrize("seed", range(12))
def test_random_pairs(arena: Arena, seed: int) -> None:
    """Two images of one pattern, changed here and there, in two formats with two cluster sizes."""
    rng = random.Random(seed)
    size = rng.choice((MIB, 3 * MIB, 40 * MIB))
    for name, fmt in (("x", rng.choice(("raw", "qcow2"))), ("y", "qcow2")):
        # progress goes in steps of an L2 table's slice where that is less than 2 MiB
        sizes = (4096, 65536, MIB) if name == "x" else (512, 4096, 65536, MIB)
        option = ["-o", f"cluster_size={rng.choice(sizes)}"] if fmt == "qcow2" else []
        judges.qemu_img("create", "-q", "-f", fmt, *option, arena.dir / name, str(size))
        state = random.Random(seed + 100)
        commands = []
        for _ in range(20):
            offset = state.randrange(0, size, 4096)
            length = min(size - offset, 4096 * state.randint(1, 60))
            verb = state.choice(("write -P 1", "write -P 2", "write -P 0", "write -z", "discard"))
            if rng.random() > 0.03:
                commands += ["-c", f"{verb} {offset} {length}"]
        judges.run("qemu-io", "-f", fmt, *commands, arena.dir / name)
    arena.check_all([["compare", "x", "y"], ["compare", "-s", "y", "x"], ["compare", "-p", "x", "x"]])


def test_many_threads_find_the_first_difference(arena: Arena) -> None:
    from cowshed.ops.compare import compare

    size = 48 * MIB
    data = bytearray(random.Random(5).randbytes(size))
    (arena.dir / "one").write_bytes(data)
    for at in (size - 1, 40 * MIB, 33 * MIB + 511, 33 * MIB):
        data[at] ^= 1
        (arena.dir / "two").write_bytes(data)
        found = compare(arena.dir / "one", arena.dir / "two", fmt="raw", second_fmt="raw")
        assert not found and found.verdict == "content" and found.offset == at // 512 * 512


def test_shared_bytes_are_not_read(arena: Arena, monkeypatch: pytest.MonkeyPatch) -> None:
    """An overlay against its own backing file: only what the overlay holds has to be looked at."""
    from cowshed.block.protocol.file import FileNode
    from cowshed.ops.compare import compare

    read = 0
    original = FileNode.read_into

    def counting(node: FileNode, offset: int, view: memoryview) -> None:
        nonlocal read
        read += len(view)
        original(node, offset, view)

    arena.setup("create -q -f qcow2 -b a.raw -F raw same.qcow2", "qemu-io -c 'write -P 0 64k 64k' same.qcow2")
    monkeypatch.setattr(FileNode, "read_into", counting)
    found = compare(arena.dir / "same.qcow2", arena.dir / "a.raw", second_fmt="raw")
    assert found.offset == 65536
    assert read < MIB // 2
