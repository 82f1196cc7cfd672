"""qemu-img convert: the same text as the real tool's, and targets that it finds right."""

from __future__ import annotations

import itertools
import json
import os
import random
import shutil
import signal
import struct
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import judges
from differential import Arena
from terminal import until

# -- images -----------------------------------------------------------------------------------------------------------


def _bytes(name: str, size: int, seed: int = 1, zeroes: tuple[tuple[int, int], ...] = ()) -> Any:
    """A callable that writes a file of noise with zeroes in it (offset, length), as holes where it can."""

    def make(folder: Path) -> None:
        data = bytearray(random.Random(seed).randbytes(size))
        for offset, length in zeroes:
            data[offset : offset + length] = bytes(len(data[offset : offset + length]))
        (folder / name).write_bytes(data)

    return make


def _truncated(name: str, size: int) -> Any:
    def make(folder: Path) -> None:
        with open(folder / name, "ab") as file:
            file.truncate(size)

    return make


def _spoil_clusters(name: str, slots: tuple[int, ...]) -> Any:
    """Damage the compressed data of some clusters of a small qcow2 image with 64 KiB clusters."""

    def make(folder: Path) -> None:
        with open(folder / name, "r+b") as file:
            data = file.read()
            l1 = struct.unpack_from(">Q", data, 40)[0]
            l2 = struct.unpack_from(">Q", data, l1)[0] & 0x00FFFFFFFFFFFE00
            for slot in slots:
                where = struct.unpack_from(">Q", data, l2 + 8 * slot)[0] & ((1 << 54) - 1)
                file.seek(where + 5)
                file.write(b"\xff" * 60)

    return make


@pytest.fixture
def arena(tmp_path: Path, figures: Any) -> Arena:
    arena = Arena(tmp_path, figures)
    arena.setup(
        _bytes("a.raw", 1 << 20),
        _bytes("odd.raw", 700_000, 2),
        _bytes("sparse.raw", 1 << 20, 3, ((0, 200_704), (300_000, 400_000))),
        _truncated("hole.raw", 1 << 20),
        _truncated("empty.raw", 0),
        "convert -f raw -O qcow2 sparse.raw s.qcow2",
        "create -q -f qcow2 base.qcow2 1M",
        "qemu-io -c 'write -P 1 0 256k' -c 'write -P 1 960k 64k' base.qcow2",
        "create -q -f qcow2 -b base.qcow2 -F qcow2 mid.qcow2 2M",
        "qemu-io -c 'write -P 2 128k 256k' -c 'write -z 512k 64k' -c 'write -P 2 1920k 64k' mid.qcow2",
        "create -q -f qcow2 -b mid.qcow2 -F qcow2 top.qcow2 2M",
        "qemu-io -c 'write -P 3 256k 256k' -c 'write -z 960k 64k' -c 'write -P 0 640k 64k' top.qcow2",
        "create -q -f qcow2 big.qcow2 3M",
        "create -q -f qcow2 -o compat=0.10 v2.qcow2 1M",
    )
    return arena


@pytest.fixture
def snapped(arena: Arena) -> Arena:
    return arena.setup(
        "create -q -f qcow2 snap.qcow2 1M",
        "qemu-io -c 'write -P 5 0 1M' snap.qcow2",
        "snapshot -c one snap.qcow2",
        "qemu-io -c 'write -P 6 0 512k' snap.qcow2",
        "snapshot -c 1 snap.qcow2",
        "qemu-io -c 'write -P 7 0 64k' snap.qcow2",
    )


def extents(path: Path, fmt: str) -> list[tuple[int, bool, bool, bool]]:
    """What the real map says, without host offsets: (end, present, zero, data), neighbours merged.

    Where the file below an allocated cluster has holes is the host's business.
    """
    found: list[tuple[int, bool, bool, bool]] = []
    for item in json.loads(judges.qemu_img("map", "-f", fmt, "--output=json", path.name, cwd=path.parent)):
        kind = (item["present"], item["zero"] and not (item["data"] and fmt != "raw"), item["data"])
        if found and found[-1][1:] == kind:
            found.pop()
        found.append((item["start"] + item["length"], *kind))
    return found


def same_target(arena: Arena, *argv: str, fmt: str, target: str = "t", layout: bool = True, **how: Any) -> None:
    """Run both; their targets must show the same disk, be sound, and be allocated alike."""
    both = arena.run("convert", *argv, changes=True, **how)
    assert not both.difference(), both.difference()
    real, ours = both.real.cwd / target, both.ours.cwd / target
    flat = []
    for path in (real, ours):  # each in its directory, for the sake of data files
        judges.qemu_img("convert", "-f", fmt, "-O", "raw", path.name, "flat", cwd=path.parent)
        flat.append(path.parent / "flat")
    judges.qemu_img("compare", "-f", "raw", "-F", "raw", *flat)
    if fmt == "qcow2":
        judges.qemu_img("check", "-f", fmt, ours.name, cwd=ours.parent)
    if layout:
        assert extents(ours, fmt) == extents(real, fmt), argv
    arena.forget(both)


# -- what is wrong ----------------------------------------------------------------------------------------------------

WRONG: dict[str, list[str]] = {
    "coroutines": ["-m", "0"],
    "sparse text": ["-S", "foo"],
    "sparse size": ["-S", "100"],
    "rate": ["-r", "bogus"],
    "snapshot parameter": ["-l", "snapshot.foo=1"],
    "option list": ["-o", ",,foo"],
    "object": ["--object", "foo"],
    "target is zero": ["--target-is-zero"],
    "target options": ["--target-image-opts"],
    "skip broken": ["--skip-broken-bitmaps"],
    "offload sparse": ["-C", "-S", "4k"],
    "offload compress": ["-C", "-c"],
    "offload salvage": ["-C", "--salvage"],
    "no create": ["-n", "-o", "compat=1.1"],
    "target format": ["-O", "foo"],
    "target without creation": ["-O", "bochs"],
    "source format": ["-f", "foo"],
    "foreign source": ["-f", "qcow2"],
    "target cache": ["-t", "bogus"],
    "source cache": ["-T", "bogus"],
    "image opts": ["--image-opts", "-f", "raw"],
    "snapshot of raw": ["-l", "x"],
    "compress raw": ["-c"],
    "backing raw": ["-B", "base.qcow2"],
    "backing format": ["-F", "raw"],
    "unknown option": ["-o", "foo=bar"],
    "option value": ["-o", "size=1x"],
    "bitmaps": ["--bitmaps"],
    "switch": ["--bogus"],
    "missing argument": ["-B"],
}


def test_each_mistake(arena: Arena) -> None:
    arena.check_all((["convert", *words, "a.raw", "t"] for words in WRONG.values()), changes=True)


def test_mistakes_in_pairs_are_found_in_the_same_order(arena: Arena) -> None:
    shutil.copy(arena.dir / "a.raw", arena.dir / "t")  # so that no target is made anew
    names = sorted(WRONG)
    pairs = list(itertools.combinations(names, 2))
    chosen = random.Random(7).sample(pairs, 160)
    arena.check_all(
        (["convert", *WRONG[one], *WRONG[two], "a.raw", "t"] for one, two in chosen), changes=True
    )


def test_mistakes_with_a_qcow2_target(arena: Arena) -> None:
    tails = [
        ["-c", "-o", "preallocation=full"],
        ["-c", "-o", "preallocation=metadata"],
        ["-c", "-o", "preallocation=foo"],
        ["-o", "preallocation=foo"],
        ["-o", "cluster_size=3"],
        ["-o", "cluster_size=3", "-c"],
        ["-o", "compat=3"],
        ["-B", "mid.qcow2"],
        ["-B", ""],
        ["-o", "backing_file="],
        ["-o", "backing_file=mid.qcow2"],
        ["-B", "nofile"],
        ["-B", "nofile", "-F", "raw"],
        ["-B", "a.raw", "-F", "foo"],
        ["-B", "a.raw", "-F", "qcow2"],
        ["-F", "raw"],
        ["-B", "mid.qcow2", "-F", "qcow2", "-o", "preallocation=full"],
        ["-o", "data_file=df,data_file_raw=on", "-B", "mid.qcow2", "-F", "qcow2"],
        ["-o", "encrypt.format=luks", "-c"],
        ["-o", "encryption=on"],
        ["--bitmaps"],
        ["--skip-broken-bitmaps"],
        ["-l", "x"],
        ["-t", "bogus"],
        ["-t", "bogus", "-c"],
        ["-O", "foo"],
        ["-m", "17"],
    ]
    arena.check_all((["convert", "-f", "raw", "-O", "qcow2", *tail, "a.raw", "t"] for tail in tails), changes=True)


def test_mistakes_with_names(arena: Arena) -> None:
    campaign = [
        [],
        ["a.raw"],
        ["nofile", "t"],
        ["-f", "raw", "nofile", "t"],
        ["", "t"],
        ["a.raw", ""],
        ["a.raw", "nowhere/t"],
        ["-O", "qcow2", "a.raw", "nowhere/t"],
        ["a.raw", "foo:bar"],
        ["foo:bar", "t"],
        ["-n", "a.raw", "nofile"],
        ["-n", "a.raw", "foo:bar"],
        ["-n", "-O", "foo", "a.raw", "odd.raw"],
        ["-n", "-O", "qcow2", "a.raw", "odd.raw"],
        ["-n", "-O", "raw", "a.raw", "odd.raw"],
        ["-n", "-O", "qcow2", "big.qcow2", "s.qcow2"],
        ["a.raw", "nofile", "t"],
        ["-B", "base.qcow2", "-F", "qcow2", "-O", "qcow2", "a.raw", "a.raw", "t"],
        ["-l", "x", "-O", "qcow2", "a.raw", "a.raw", "t"],
        ["-l", "x", "-O", "qcow2", "s.qcow2", "s.qcow2", "t"],
        ["--bitmaps", "-O", "qcow2", "s.qcow2", "s.qcow2", "t"],
        ["--bitmaps", "-O", "qcow2", "v2.qcow2", "t"],
        ["--bitmaps", "-O", "qcow2", "-o", "compat=0.10", "s.qcow2", "t"],
        ["--bitmaps", "-O", "raw", "s.qcow2", "t"],
        ["--image-opts", "a.raw", "t"],
        ["--image-opts", "driver=raw,file.filename=nofile", "t"],
        ["--image-opts", "driver=foo,file.filename=a.raw", "t"],
        ["--target-image-opts", "-n", "a.raw", "driver=raw,file.filename=nofile"],
        ["--target-image-opts", "-n", "-O", "raw", "a.raw", "driver=raw,file.filename=hole.raw"],
        ["json:{", "t"],
        ['json:{"driver":"raw","file":{"driver":"file","filename":"nofile"}}', "t"],
        ["--object", "secret,id=s", "a.raw", "t"],
        ["--object", "secret,id=s,data=x", "--object", "secret,id=s,data=x", "a.raw", "t"],
        ["-C", "--salvage", "-n", "-o", "a=b", "a.raw", "t"],
        ["a.raw", "a.raw"],
        ["-U", "-f", "raw", "a.raw", "odd.raw"],
    ]
    arena.check_all((["convert", *tail] for tail in campaign), changes=True)


def test_help_on_options(arena: Arena) -> None:
    arena.check_all(
        ["convert", "-O", fmt, "-o", "help", *tail]
        for fmt in ("raw", "qcow2", "bochs", "foo")
        for tail in ([], ["t"], ["a.raw", "t"], ["a.raw", "foo:bar"])
    )


# -- what comes out ---------------------------------------------------------------------------------------------------

PLAIN: list[tuple[str, list[str]]] = [
    ("raw", ["-f", "raw", "a.raw"]),
    ("raw", ["a.raw"]),
    ("raw", ["-f", "raw", "odd.raw"]),
    ("raw", ["-f", "raw", "-S", "0", "sparse.raw"]),
    ("raw", ["-f", "raw", "-S", "64k", "sparse.raw"]),
    ("raw", ["-C", "sparse.raw"]),
    ("raw", ["-W", "-m", "2", "sparse.raw"]),
    ("raw", ["-o", "preallocation=falloc", "sparse.raw"]),
    ("raw", ["-o", "preallocation=full", "sparse.raw"]),
    ("raw", ["-o", "size=7", "sparse.raw"]),
    ("raw", ["hole.raw"]),
    ("raw", ["-f", "raw", "empty.raw"]),
    ("raw", ["top.qcow2"]),
    ("raw", ["s.qcow2", "a.raw", "big.qcow2"]),
    ("raw", ["odd.raw", "odd.raw"]),
    ("raw", ["-T", "none", "s.qcow2"]),
    ("raw", ["-t", "none", "s.qcow2"]),
    ("raw", ["-t", "directsync", "-T", "directsync", "s.qcow2"]),
    ("raw", ["-t", "writethrough", "odd.raw"]),
    ("raw", ["-r", "100M", "s.qcow2"]),
    ("raw", ["-U", "s.qcow2"]),
    ("raw", ["--image-opts", "driver=qcow2,file.filename=s.qcow2"]),
    ("raw", ["--image-opts", "driver=raw,offset=4096,size=512000,file.filename=a.raw"]),
    ("raw", ['json:{"driver":"qcow2","file":{"driver":"file","filename":"top.qcow2"}}']),
    ("qcow2", ["-f", "raw", "a.raw"]),
    ("qcow2", ["odd.raw"]),
    ("qcow2", ["-S", "0", "sparse.raw"]),
    ("qcow2", ["-S", "512", "sparse.raw"]),
    ("qcow2", ["-S", "128k", "-o", "cluster_size=4k", "sparse.raw"]),
    ("qcow2", ["-o", "cluster_size=512", "sparse.raw"]),
    ("qcow2", ["-o", "cluster_size=2M", "sparse.raw"]),
    ("qcow2", ["-o", "extended_l2=on,cluster_size=128k", "sparse.raw"]),
    ("qcow2", ["-o", "compat=0.10", "sparse.raw"]),
    ("qcow2", ["-o", "refcount_bits=1", "sparse.raw"]),
    ("qcow2", ["-o", "preallocation=metadata", "sparse.raw"]),
    ("qcow2", ["-o", "preallocation=falloc", "sparse.raw"]),
    ("qcow2", ["-o", "preallocation=full", "sparse.raw"]),
    ("qcow2", ["-o", "lazy_refcounts=on", "sparse.raw"]),
    ("qcow2", ["-o", "data_file=d.raw", "sparse.raw"]),
    ("qcow2", ["-o", "data_file=d.raw,data_file_raw=on", "sparse.raw"]),
    ("qcow2", ["-c", "sparse.raw"]),
    ("qcow2", ["-c", "odd.raw"]),
    ("qcow2", ["-c", "-S", "0", "sparse.raw"]),
    ("qcow2", ["-c", "-W", "-m", "4", "a.raw"]),
    ("qcow2", ["-c", "-o", "cluster_size=4k", "sparse.raw"]),
    ("qcow2", ["-c", "-o", "cluster_size=2M", "sparse.raw"]),
    ("qcow2", ["-c", "-o", "compression_type=zstd", "top.qcow2"]),
    ("qcow2", ["-c", "-o", "extended_l2=on", "sparse.raw"]),
    ("qcow2", ["-c", "s.qcow2", "odd.raw", "a.raw"]),
    ("qcow2", ["top.qcow2"]),
    ("qcow2", ["-C", "s.qcow2"]),
    ("qcow2", ["-B", "mid.qcow2", "-F", "qcow2", "top.qcow2"]),
    ("qcow2", ["-B", "mid.qcow2", "-F", "qcow2", "-S", "0", "top.qcow2"]),
    ("qcow2", ["-B", "mid.qcow2", "-F", "qcow2", "-c", "top.qcow2"]),
    ("qcow2", ["-B", "base.qcow2", "-F", "qcow2", "top.qcow2"]),
    ("qcow2", ["-o", "backing_file=mid.qcow2,backing_fmt=qcow2", "top.qcow2"]),
    ("qcow2", ["-o", "backing_file=mid.qcow2", "-F", "qcow2", "top.qcow2"]),
    ("qcow2", ["-o", "backing_file=mid.qcow2", "-B", "base.qcow2", "-F", "qcow2", "mid.qcow2"]),
    ("qcow2", ["-B", "a.raw", "-F", "raw", "sparse.raw"]),
    ("qcow2", ["-B", "mid.qcow2", "-F", "qcow2", "a.raw"]),
    ("qcow2", ["-B", "base.qcow2", "-F", "qcow2", "-o", "extended_l2=on", "mid.qcow2"]),
    ("qcow2", ["-q", "-p", "a.raw"]),
    ("vmdk", ["sparse.raw"]),
    ("vmdk", ["-c", "sparse.raw"]),
]


@pytest.mark.parametrize("fmt, tail", PLAIN, ids=[" ".join([fmt, *tail])[:60] for fmt, tail in PLAIN])
def test_targets(arena: Arena, fmt: str, tail: list[str]) -> None:
    # incompressible noise is stored plain by one library and packed by another; the files of vmdk aren't shown alike
    same_target(arena, "-O", fmt, *tail, "t", fmt=fmt, layout=fmt != "vmdk" and "-c" not in tail)


EXISTING: list[tuple[str, list[str]]] = [
    ("raw", ["sparse.raw"]),
    ("raw", ["-S", "0", "sparse.raw"]),
    ("raw", ["odd.raw"]),
    ("raw", ["-C", "sparse.raw"]),
    ("qcow2", ["sparse.raw"]),
    ("qcow2", ["odd.raw"]),
    ("qcow2", ["-S", "64k", "sparse.raw"]),
    ("qcow2", ["top.qcow2"]),
    ("qcow2", ["-B", "nofile", "sparse.raw"]),
]


@pytest.mark.parametrize("fmt, tail", EXISTING, ids=[" ".join([fmt, *tail]) for fmt, tail in EXISTING])
@pytest.mark.parametrize("size", ["2M", "3M"])
def test_into_an_existing_image(arena: Arena, fmt: str, tail: list[str], size: str) -> None:
    """-n: what was there before the source's zeroes is gone, what lies behind the source's end stays."""
    arena.setup(
        f"create -q -f {fmt} t {size}", f"qemu-io -f {fmt} -c 'write -P 77 0 {size}' -c 'discard 512k 128k' t"
    )
    same_target(arena, "-n", "-O", fmt, *tail, "t", fmt=fmt)


def test_into_an_existing_overlay(arena: Arena) -> None:
    arena.setup("create -q -f qcow2 -b mid.qcow2 -F qcow2 t 2M")
    same_target(arena, "-n", "-O", "qcow2", "sparse.raw", "t", fmt="qcow2")
    same_target(arena, "-n", "-O", "qcow2", "top.qcow2", "t", fmt="qcow2")
    same_target(arena, "-n", "-B", "mid.qcow2", "-O", "qcow2", "top.qcow2", "t", fmt="qcow2")
    # qemu-img says what is wrong here and succeeds; nothing was copied, so ours fails
    both = arena.run("convert", "-n", "--target-is-zero", "-B", "mid.qcow2", "-O", "qcow2", "a.raw", "t", changes=True)
    assert both.ours.stderr == both.real.stderr != ""
    assert both.ours.code == 1


@pytest.mark.parametrize("fmt", ["raw", "qcow2"])
def test_into_an_existing_image_of_zeroes(arena: Arena, fmt: str) -> None:
    arena.setup(f"create -q -f {fmt} t 1M")
    same_target(arena, "-n", "--target-image-opts", "sparse.raw", f"driver={fmt},file.filename=t", fmt=fmt)
    same_target(arena, "-n", "--target-is-zero", "-O", fmt, "sparse.raw", "t", fmt=fmt)


@pytest.mark.parametrize(
    "which",
    [
        *("one", "1", "2", "snapshot.id=1", "snapshot.name=1", "snapshot.id=2,snapshot.name=1"),
        *("snapshot.id=1,snapshot.name=1", "snapshot.id=9", "nosuch", ""),
    ],
)
def test_snapshots_as_source(snapped: Arena, which: str) -> None:
    if which in ("snapshot.id=1,snapshot.name=1", "snapshot.id=9", "nosuch", ""):
        snapped.check("convert", "-l", which, "snap.qcow2", "t", changes=True, code=1)
    else:
        same_target(snapped, "-l", which, "snap.qcow2", "t", fmt="raw")
        same_target(snapped, "-l", which, "-O", "qcow2", "snap.qcow2", "t", fmt="qcow2")


def test_a_snapshot_of_a_disk_that_changed_its_size(arena: Arena) -> None:
    arena.setup(
        "create -q -f qcow2 snap.qcow2 1M",
        "qemu-io -c 'write -P 5 0 1M' snap.qcow2",
        "snapshot -c one snap.qcow2",
        "resize -q snap.qcow2 2M",
    )
    same_target(arena, "-l", "one", "snap.qcow2", "t", fmt="raw")
    # the real tool cuts the snapshot off where the disk ends now; nothing of it may be lost
    arena.setup("resize -q --shrink snap.qcow2 512k")
    both = arena.run("convert", "-l", "one", "snap.qcow2", "t", changes=True)
    assert (both.ours.cwd / "t").read_bytes() == bytes([5]) * (1 << 20)


def test_progress(arena: Arena) -> None:
    arena.setup(_bytes("big.raw", 23 << 20, 9), _truncated("big.raw", 60 << 20))
    arena.check_all(
        [
            ["convert", "-p", "big.raw", "t"],
            ["convert", "-p", "-O", "qcow2", "big.raw", "t"],
            ["convert", "-p", "-S", "0", "big.raw", "t"],
            ["convert", "-p", "hole.raw", "t"],
            ["convert", "-p", "empty.raw", "t"],
            ["convert", "-p", "nofile", "t"],
            ["convert", "-p", "a.raw", "nowhere/t"],
            ["convert", "-p", "a.raw", "hole.raw", "a.raw", "t"],
            ["convert", "-p", "-n", "sparse.raw", "a.raw"],
        ],
        changes=True,
    )


# -- bitmaps ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def marked(arena: Arena) -> Arena:
    return arena.setup(
        "create -q -f qcow2 bits.qcow2 8M",
        "bitmap --add bits.qcow2 one",
        "bitmap --add -g 4k bits.qcow2 two",
        "qemu-io -c 'write 64k 64k' -c 'write 1M 8k' bits.qcow2",
        "bitmap --disable bits.qcow2 two",
        "bitmap --add -g 512 bits.qcow2 three",
    )


def _bitmaps(path: Path) -> Any:
    facts = json.loads(judges.qemu_img("info", "--output=json", path))["format-specific"]["data"].get("bitmaps", [])
    return [(item["name"], item["granularity"], sorted(item["flags"])) for item in facts]


def test_bitmaps(marked: Arena) -> None:
    both = marked.run("convert", "--bitmaps", "-O", "qcow2", "bits.qcow2", "t", changes=True)
    assert not both.difference(), both.difference()
    assert _bitmaps(both.ours.cwd / "t") == _bitmaps(both.real.cwd / "t") != []
    judges.qemu_img("check", both.ours.cwd / "t")
    for name in ("one", "two", "three"):
        # the real tool's view of which bits are set
        real, ours = (_dirty(folder / "t", name) for folder in (both.real.cwd, both.ours.cwd))
        assert ours == real != [], name


def _dirty(image: Path, bitmap: str) -> list[tuple[int, int, bool]]:
    """The ranges of a bitmap as the real tools see them through NBD: (start, length, clean)."""
    options = f"driver=nbd,server.type=unix,server.path={_serve(image, bitmap)}"
    options += f",x-dirty-bitmap=qemu:dirty-bitmap:{bitmap}"
    found = json.loads(judges.qemu_img("map", "--output=json", "--image-opts", options))
    return [(item["start"], item["length"], item["data"]) for item in found]


def _serve(image: Path, bitmap: str) -> Path:
    """The real qemu-nbd serving one image with one bitmap to one client; it ends with the client."""
    socket = image.with_suffix(f".{bitmap}.sock")
    socket.unlink(missing_ok=True)
    argv = ["--fork", "-r", "--persistent", f"--socket={socket}", f"--pid-file={socket}.pid"]
    judges.run("qemu-nbd", *argv, "--format=qcow2", f"--bitmap={bitmap}", image)
    _servers.append(int(Path(f"{socket}.pid").read_text()))
    return socket


_servers: list[int] = []


@pytest.fixture(autouse=True)
def _stop_servers() -> Any:
    yield
    while _servers:
        try:
            os.kill(_servers.pop(), signal.SIGTERM)
        except ProcessLookupError:
            pass


def test_bitmaps_that_can_not_be_copied(marked: Arena) -> None:
    marked.setup("convert --bitmaps -O qcow2 bits.qcow2 t")
    marked.check("convert", "--bitmaps", "-n", "-O", "qcow2", "bits.qcow2", "t", changes=True, code=1)
    marked.check("convert", "--bitmaps", "-O", "raw", "bits.qcow2", "t", changes=True, code=1)
    marked.check("convert", "--bitmaps", "-O", "raw", "-c", "bits.qcow2", "t", changes=True, code=1)

    # a writer that dies leaves its bitmaps in use
    with subprocess.Popen(
        [judges.need("qemu-io"), marked.dir / "bits.qcow2"], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as writer:
        assert writer.stdin is not None and writer.stdout is not None
        writer.stdin.write(b"write 2M 64k\n")
        writer.stdin.flush()
        while b"wrote" not in writer.stdout.readline():
            pass
        writer.kill()
    marked.check("convert", "--bitmaps", "-O", "qcow2", "bits.qcow2", "t", changes=True, code=1)
    skip = ("--bitmaps", "--skip-broken-bitmaps")
    marked.check("convert", *skip, "-O", "qcow2", "bits.qcow2", "t", changes=True, code=0)


# -- damage, full disks, signals --------------------------------------------------------------------------------------


@pytest.fixture
def broken(arena: Arena) -> Arena:
    def text(folder: Path) -> None:
        (folder / "text.raw").write_bytes((b"The quick brown fox. " * 60_000)[: 1 << 20])

    return arena.setup(text, "convert -c -O qcow2 text.raw broken.qcow2", _spoil_clusters("broken.qcow2", (5,)))


def test_unreadable_sources(broken: Arena) -> None:
    broken.check("convert", "broken.qcow2", "t", changes=True, code=1)
    broken.check("convert", "-O", "qcow2", "broken.qcow2", "t", changes=True, code=1)
    broken.check("convert", "-c", "-O", "qcow2", "broken.qcow2", "t", changes=True, code=1)
    broken.check("convert", "-p", "-m", "1", "broken.qcow2", "t", changes=True, code=1)
    same_target(broken, "--salvage", "broken.qcow2", "t", fmt="raw")
    same_target(broken, "-q", "--salvage", "broken.qcow2", "t", fmt="raw")
    same_target(broken, "--salvage", "-O", "qcow2", "broken.qcow2", "t", fmt="qcow2")


def test_a_target_that_can_not_be_compressed(arena: Arena) -> None:
    arena.check("convert", "-c", "-O", "qcow2", "-o", "data_file=d", "a.raw", "t", changes=True, code=1)


@pytest.fixture
def small(tmp_path: Path) -> Any:
    """A file system of a few MiB."""
    place = tmp_path / "small"
    place.mkdir()
    argv = ["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", place]
    if os.geteuid() or subprocess.run(argv, capture_output=True).returncode:
        judges.absent("a small tmpfs (needs root)")
    yield place
    subprocess.run(["umount", place], check=True)


@pytest.mark.parametrize("extra", [[], ["-O", "qcow2"], ["-c", "-O", "qcow2"], ["-S", "0"], ["-W"]], ids=" ".join)
def test_a_full_disk(arena: Arena, small: Path, extra: list[str]) -> None:
    arena.setup(_bytes("big.raw", 8 << 20, 11))
    before = (arena.dir / "big.raw").read_bytes()
    both = []
    for program in ([arena.qemu_img], [str(arena.link())]):
        both.append(
            subprocess.run(
                [*program, "convert", "-f", "raw", *extra, "big.raw", small / "t"],
                cwd=arena.dir,
                capture_output=True,
                text=True,
                timeout=60,
            )
        )
        if (small / "t").exists():
            (small / "t").unlink()
    real, ours = both
    assert ours.returncode == real.returncode == 1
    assert "No space left on device" in ours.stderr
    assert ours.stderr.startswith("qemu-img: error while writing at byte ") and ours.stderr.count("\n") == 1
    assert (arena.dir / "big.raw").read_bytes() == before
    # and there is nothing left open: the space came back
    assert os.statvfs(small).f_bavail * os.statvfs(small).f_frsize > 3 << 20


def _running(arena: Arena, *argv: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [str(arena.link()), *argv], cwd=arena.dir, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def _written(arena: Arena) -> int:
    """Bytes that the target has on the disk by now."""
    path = arena.dir / "t"
    return path.stat().st_blocks << 9 if path.exists() else 0


def test_progress_on_a_signal(arena: Arena) -> None:
    arena.setup(_bytes("big.raw", 32 << 20, 12))
    with _running(arena, "convert", "-r", "16M", "-f", "raw", "big.raw", "t") as process:
        until(lambda: _written(arena) > 1 << 17, process)
        process.send_signal(signal.SIGUSR1)
        out, err = process.communicate(timeout=120)
    assert process.returncode == 0 and out == ""
    assert err.startswith("    (") and err.endswith("/100%)\n") and err.count("\n") == 1


@pytest.mark.parametrize("extra", [[], ["-c"], ["-W", "-c"]], ids=["plain", "threads", "unordered"])
def test_interrupted(arena: Arena, extra: list[str]) -> None:
    """Ctrl-C ends the process by the signal, before it is done, and what is left of the target is a sound image."""
    arena.setup(_bytes("big.raw", 32 << 20, 13))
    # the whole of it would take a quarter of a minute
    with _running(arena, "convert", "-r", "2M", "-f", "raw", "-O", "qcow2", *extra, "big.raw", "t") as process:
        until(lambda: _written(arena) > 1 << 19, process)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=60)
    assert process.returncode == -signal.SIGINT
    assert out == err == ""
    judges.qemu_img("check", arena.dir / "t")


def test_locked_images(arena: Arena) -> None:
    with subprocess.Popen(
        [judges.need("qemu-io"), arena.dir / "s.qcow2"], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as writer:
        assert writer.stdin is not None and writer.stdout is not None
        writer.stdin.write(b"read 0 512\n")
        writer.stdin.flush()
        while b"read 512" not in writer.stdout.readline():
            pass
        arena.check("convert", "s.qcow2", "t", changes=False, code=1)
        arena.check("convert", "a.raw", "s.qcow2", changes=False, code=1)
        arena.check("convert", "-n", "-O", "qcow2", "hole.raw", "s.qcow2", changes=False, code=1)
        writer.stdin.close()
        writer.wait()


# -- at random --------------------------------------------------------------------------------------------------------


def _random_image(rng: random.Random, folder: Path, name: str, fmt: str, size: int, cluster: int) -> None:
    (folder / name).unlink(missing_ok=True)
    if fmt == "raw":
        _truncated(name, size)(folder)
    else:
        judges.qemu_img("create", "-q", "-f", "qcow2", "-o", f"cluster_size={cluster}", folder / name, str(size))
    commands = []
    for _ in range(rng.randint(0, 25)):
        unit = rng.choice((512, 4096, 65536))
        offset = rng.randrange(0, size, unit)
        length = min(size - offset, unit * rng.randint(1, 40))
        pick = rng.random()
        if pick < 0.6:
            commands += ["-c", f"write -P {rng.choice((0, 0, 1, 255))} {offset} {length}"]
        elif pick < 0.8:
            commands += ["-c", f"write -z {offset} {length}"]
        else:
            commands += ["-c", f"discard {offset} {length}"]
    judges.run("qemu-io", "-f", fmt, *commands, "-c", "flush", folder / name)


@pytest.mark.parametrize("seed", range(30))
def test_random_images(arena: Arena, seed: int) -> None:
    """Any pattern of data, zeroes and holes: same bytes, sound, and the very same ranges left out."""
    rng = random.Random(seed)
    cluster = rng.choice((512, 4096, 65536, 65536, 1 << 20))
    source, target = rng.choice(("raw", "qcow2")), rng.choice(("raw", "qcow2", "qcow2"))
    size = rng.choice((1 << 20, 3 << 20, (5 << 20) + 1536))
    _random_image(rng, arena.dir, "src", source, size, cluster)
    options = ["-o", f"cluster_size={rng.choice((512, 4096, 65536, 1 << 20))}"] if target == "qcow2" else []
    sparse = rng.choice((None, None, "0", "512", "1024", "1536", "4k", "6k", "64k", "256k"))
    if sparse:
        options += ["-S", sparse]
    if target == "qcow2" and rng.random() < 0.3:
        options += ["-c"]
    elif rng.random() < 0.1 and not sparse:
        options += ["-C"]
    options += rng.choice(([], ["-m", "1"], ["-W"]))
    same_target(arena, "-f", source, "-O", target, *options, "src", "t", fmt=target, layout="-C" not in options)


# -- in process -------------------------------------------------------------------------------------------------------


def test_api(arena: Arena) -> None:
    from cowshed.errors import HostError, UsageError
    from cowshed.ops.convert import convert
    from cowshed.progress import Progress

    source, target = arena.dir / "top.qcow2", arena.dir / "out"
    seen: list[float] = []
    convert(source, target, "qcow2", {"cluster_size": 4096}, progress=Progress("", lambda p: seen.append(p.fraction)))
    assert seen == sorted(seen) and seen[-1] == 1.0
    judges.qemu_img("compare", source, target)
    with pytest.raises(UsageError, match="smaller"):
        convert(arena.dir / "big.qcow2", target, "qcow2", create=False)
    with pytest.raises(HostError, match="while converting"):
        convert(source, arena.dir / "nowhere" / "t")


def test_a_listener_that_raises_cancels(arena: Arena) -> None:
    from cowshed.ops.convert import convert
    from cowshed.progress import Progress

    class Enough(Exception):
        pass

    def listen(progress: Progress) -> None:
        if progress.fraction > 0.4:
            raise Enough

    arena.setup(_bytes("big.raw", 16 << 20, 14))
    extra: dict[str, Any]
    for extra in ({}, {"compress": True}):
        with pytest.raises(Enough):
            convert(arena.dir / "big.raw", arena.dir / "t", "qcow2", progress=Progress("", listen), **extra)
        judges.qemu_img("check", arena.dir / "t")


if sys.platform != "linux":
    pytest.skip("the judges run on Linux", allow_module_level=True)


def test_grains_that_must_be_packed_are(arena: Arena, monkeypatch: pytest.MonkeyPatch) -> None:
    """A format that has only compressed clusters gets them from the copy's threads, with or without -c."""
    from cowshed.block.format.vmdk.node import VmdkNode
    from cowshed.ops.convert import convert

    def plain(self: VmdkNode, offset: int, data: object) -> None:
        raise AssertionError("a grain was written plain")

    arena.setup(_bytes("odd.raw", (5 << 20) + 1536, 21))
    monkeypatch.setattr(VmdkNode, "write", plain)
    target = arena.dir / "stream.vmdk"
    for how in ({}, {"sparse_size": 0}, {"in_order": False, "threads": 4}):
        convert(arena.dir / "odd.raw", target, "vmdk", "subformat=streamOptimized", source_fmt="raw", **how)
        judges.qemu_img("compare", "-f", "raw", "-F", "vmdk", arena.dir / "odd.raw", target)
        target.unlink()
