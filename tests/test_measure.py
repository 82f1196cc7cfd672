"""qemu-img measure: the same figures and words as the real tool's, and figures that hold."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest

from differential import Arena


@pytest.fixture
def arena(tmp_path: Path, figures: Any) -> Arena:
    noise = random.Random(6).randbytes(300_000)
    return Arena(tmp_path, figures).setup(
        lambda folder: (folder / "a.raw").write_bytes(noise + bytes(748_576)),
        lambda folder: (folder / "odd.raw").write_bytes(noise[:100_000]),
        lambda folder: (folder / "empty.raw").write_bytes(b""),
        "convert -f raw -O qcow2 a.raw a.qcow2",
        "convert -c -f raw -O qcow2 a.raw packed.qcow2",
        "create -q -f qcow2 -b a.qcow2 -F qcow2 over.qcow2 4M",
        "qemu-io -c 'write -P 3 100k 64k' -c 'write -z 0 64k' -c 'write -P 0 2M 64k' over.qcow2",
        "create -q -f qcow2 bits.qcow2 16M",
        "bitmap --add bits.qcow2 one",
        "bitmap --add -g 512 bits.qcow2 two",
        "create -q -f qcow2 snap.qcow2 1M",
        "qemu-io -c 'write -P 5 0 300k' snap.qcow2",
        "snapshot -c one snap.qcow2",
        "qemu-io -c 'write -P 6 512k 300k' snap.qcow2",
        "create -q -f qcow2 huge.qcow2 3T",
        "qemu-io -c 'write -P 5 1T 300k' -c 'write -P 5 2T 3M' huge.qcow2",
        "create -q -f qcow2 -o compat=0.10 v2.qcow2 1M",
    )


SOURCES = ("a.raw", "odd.raw", "empty.raw", "a.qcow2", "packed.qcow2", "over.qcow2", "bits.qcow2", "snap.qcow2",
           "huge.qcow2", "v2.qcow2")  # fmt: skip


def test_sources(arena: Arena) -> None:
    arena.check_all(
        ["measure", *json, "-O", fmt, name]
        for name in SOURCES
        for fmt in ("raw", "qcow2")
        for json in ([], ["--output=json"])
    )


def test_sizes(arena: Arena) -> None:
    sizes = ("0", "1", "1000", "64k", "1M", "1G", "100G", "8T", "7E", "0x1000", "1.5M")
    arena.check_all(["measure", "-O", fmt, "--size", size] for fmt in ("raw", "qcow2") for size in sizes)


def test_options(arena: Arena) -> None:
    options = [
        *(f"cluster_size={size}" for size in ("512", "4k", "2M", "1234", "4M", "x")),
        *(f"refcount_bits={bits}" for bits in ("1", "8", "64", "3")),
        *(f"preallocation={mode}" for mode in ("off", "metadata", "falloc", "full", "foo")),
        *("compat=0.10", "compat=1.1", "compat=3", "compat=0.10,refcount_bits=8", "lazy_refcounts=on"),
        *("extended_l2=on", "extended_l2=on,cluster_size=4k", "compression_type=zstd", "compression_type=lzo"),
        *("data_file=x", "data_file=x,data_file_raw=on", "data_file_raw=on"),
        *("backing_file=foo,backing_fmt=raw", "backing_file=foo", "size=5", "size=3G", "foo=1", "help"),
    ]
    arena.check_all(
        ["measure", "-O", "qcow2", "-o", option, *tail]
        for option in options
        for tail in (["--size", "10G"], ["over.qcow2"])
    )


def test_snapshots_and_other_ways_to_a_source(arena: Arena) -> None:
    campaign = [
        ["-l", "one", "snap.qcow2"],
        ["-l", "1", "-O", "qcow2", "snap.qcow2"],
        ["-l", "snapshot.name=one", "-O", "qcow2", "snap.qcow2"],
        ["-l", "snapshot.id=7", "snap.qcow2"],
        ["-l", "x", "a.raw"],
        ["-l", "snapshot.foo=7", "snap.qcow2"],
        ["-U", "-O", "qcow2", "a.qcow2"],
        ["-f", "raw", "-O", "qcow2", "a.qcow2"],
        ["--image-opts", "driver=raw,offset=4096,file.filename=a.raw"],
        ["--object", "secret,id=s,data=x", "a.raw"],
        ["-O", "raw", "-o", "preallocation=full", "a.raw"],
        ["-O", "raw", "-o", "size=2G", "a.raw"],
    ]
    arena.check_all(["measure", *tail] for tail in campaign)


def test_mistakes(arena: Arena) -> None:
    campaign = [
        [],
        ["a.raw", "a.raw"],
        ["nofile"],
        ["-f", "foo", "a.raw"],
        ["-f", "qcow2", "a.raw"],
        ["-O", "foo", "--size", "1G"],
        ["-O", "foo", "nofile"],
        ["-O", "vmdk", "--size", "1G"],
        ["-O", "bochs", "--size", "1G"],
        ["-O", "vmdk", "a.raw"],
        ["-O", "vmdk", "-o", "foo=1", "a.raw"],
        ["-O", "raw", "-o", "foo=1", "a.raw"],
        ["-O", "qcow2", "-o", "help"],
        ["-O", "qcow2", "-o", ",,x", "a.raw"],
        ["--size", "x"],
        ["--size", "-1"],
        ["--size", "8E"],
        ["--size", "1G", "a.raw"],
        ["-f", "raw"],
        ["-f", "raw", "--size", "1"],
        ["-l", "x"],
        ["--image-opts"],
        ["--image-opts", "a.raw"],
        ["--image-opts", "-f", "raw", "a.raw"],
        ["--output=xml", "a.raw"],
        ["--output", "json"],
        ["--object", "foo", "a.raw"],
        ["", ],
    ]  # fmt: skip
    arena.check_all(["measure", *tail] for tail in campaign)


@pytest.mark.parametrize("option", ["cluster_size=64k", "cluster_size=512", "cluster_size=2M", "preallocation=falloc"])
def test_the_figure_is_the_size_of_the_file(arena: Arena, option: str) -> None:
    from cowshed.ops.convert import convert
    from cowshed.ops.measure import measure

    for name in ("a.raw", "over.qcow2"):
        needed = measure("qcow2", option, source=arena.dir / name)
        convert(arena.dir / name, arena.dir / "o.qcow2", "qcow2", option)
        assert (arena.dir / "o.qcow2").stat().st_size <= needed.required <= needed.fully_allocated
