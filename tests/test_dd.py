"""qemu-img dd: the same blocks, text and files as the real tool's."""

from __future__ import annotations

import os
import random
import struct
from pathlib import Path
from typing import Any

import pytest

import judges
from differential import Arena


def _spoil(folder: Path) -> None:
    with open(folder / "broken.qcow2", "r+b") as file:
        data = file.read()
        l1 = struct.unpack_from(">Q", data, 40)[0]
        l2 = struct.unpack_from(">Q", data, l1)[0] & 0x00FFFFFFFFFFFE00
        file.seek((struct.unpack_from(">Q", data, l2 + 16)[0] & ((1 << 54) - 1)) + 5)
        file.write(b"\xff" * 60)


@pytest.fixture
def arena(tmp_path: Path, figures: Any) -> Arena:
    rng = random.Random(3)
    noise = rng.randbytes(300_000) + bytes(200_000) + rng.randbytes(548_576)
    return Arena(tmp_path, figures).setup(
        lambda folder: (folder / "a.raw").write_bytes(noise),
        lambda folder: (folder / "odd.raw").write_bytes(rng.randbytes(100_000)),
        lambda folder: (folder / "empty.raw").write_bytes(b""),
        "convert -f raw -O qcow2 a.raw a.qcow2",
        "create -q -f qcow2 -b a.qcow2 -F qcow2 over.qcow2",
        "qemu-io -c 'write -P 3 100k 64k' -c 'write -z 300k 64k' over.qcow2",
        "convert -c -O qcow2 over.qcow2 broken.qcow2",
        _spoil,
    )


COPIES = [
    *(f"if={name} of=o" for name in ("a.raw", "odd.raw", "empty.raw", "a.qcow2", "over.qcow2")),
    *(f"bs={bs} if=odd.raw of=o" for bs in ("1", "3", "512", "1000", "4k", "64k", "1M", "2047M")),
    *(f"bs=1000 count={count} if=odd.raw of=o" for count in ("0", "1", "3", "100", "101", "1k")),
    *(f"bs=4k skip={skip} if=odd.raw of=o" for skip in ("0", "1", "24", "25", "26", "1M")),
    *(f"bs=4k skip={skip} count={count} if=a.qcow2 of=o" for skip, count in ((1, 3), (3, 1), (3, 3), (5, 1000))),
    "-O qcow2 if=a.raw of=o bs=64k",
    "-O qcow2 -f raw if=odd.raw of=o bs=64k skip=1",
    "-O vmdk if=a.raw of=o bs=1M",
    "-O raw -f qcow2 if=over.qcow2 of=o bs=1M",
    "-U if=a.qcow2 of=o bs=1M",
    "--image-opts if=driver=qcow2,file.filename=a.qcow2 of=o bs=64k",
    "if=nofile if=a.raw of=o",
    "count=2 count=3 if=a.raw of=o",
    "of=o if=a.raw bs=0x1000",
]


def held(path: Path) -> list[int]:
    """Where data and holes begin."""
    places = [0]
    with open(path, "rb") as file:
        size = file.seek(0, os.SEEK_END)
        while places[-1] < size:
            try:
                places.append(os.lseek(file.fileno(), places[-1], os.SEEK_DATA))
            except OSError:  # a hole to the end
                break
            places.append(os.lseek(file.fileno(), places[-1], os.SEEK_HOLE))
    return places


@pytest.mark.parametrize("line", COPIES)
def test_copies(arena: Arena, line: str) -> None:
    argv = ["dd", *line.split()]
    both = arena.run(*argv, changes=True)
    assert not both.difference(), both.difference()
    fmt = argv[argv.index("-O") + 1] if "-O" in argv else "raw"
    real, ours = both.real.cwd / "o", both.ours.cwd / "o"
    if fmt == "raw":
        assert ours.read_bytes() == real.read_bytes()
        assert held(ours) == held(real)
    else:
        judges.qemu_img("compare", real, ours)
        judges.qemu_img("check", ours)


def test_mistakes(arena: Arena) -> None:
    lines = [
        "",
        "if=a.raw",
        "of=o",
        "if=a.raw of=o foo=1",
        "a.raw of=o",
        "if=a.raw of=o isize=3",
        *(f"bs={bs} if=a.raw of=o" for bs in ("0", "x", "-1", "4G", "1.5", "")),
        *(f"{name}={text} if=a.raw of=o" for name in ("count", "skip") for text in ("x", "-1", "8E", "")),
        "if=nofile of=o",
        "if= of=o",
        "if=a.raw of=",
        "if=a.raw of=nowhere/o",
        "-f foo if=a.raw of=o",
        "-f qcow2 if=a.raw of=o",
        "-O foo if=a.raw of=o",
        "-O foo if=nofile of=o",
        "-O bochs if=a.raw of=o",
        "if=a.raw of=foo:bar",
        "if=foo:bar of=o",
        "--image-opts if=a.raw of=o",
        "--image-opts -f raw if=driver=raw,file.filename=a.raw of=o",
        "--object foo if=a.raw of=o",
        "-o x if=a.raw of=o",
        "-n if=a.raw of=o",
        "if=broken.qcow2 of=o",
        "bs=64k if=broken.qcow2 of=o",
        "bs=64k -O qcow2 if=broken.qcow2 of=o",
    ]
    arena.check_all((["dd", *line.split()] for line in lines), changes=True)


def test_its_own_input_is_not_destroyed(arena: Arena) -> None:
    """The real tool empties the file before it reads it; nobody can want that."""
    before = (arena.dir / "a.raw").read_bytes()
    backing = (arena.dir / "a.qcow2").read_bytes()
    for line, name in (("if=a.raw of=a.raw", "a.raw"), ("if=over.qcow2 of=a.qcow2", "a.qcow2")):
        both = arena.run("dd", *line.split(), changes=True)
        assert both.ours.code == 1
        assert both.ours.stderr == f"qemu-img: '{name}' is part of the input and would be destroyed\n"
        assert (both.ours.cwd / "a.raw").read_bytes() == before
        assert (both.ours.cwd / "a.qcow2").read_bytes() == backing
