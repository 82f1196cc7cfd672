"""``qemu-img info``: the facts of an image, in the real tool's words."""

from __future__ import annotations

import itertools
import os
import struct
from pathlib import Path
from typing import Any

import pytest

import cowshed.ops.info as ops
from cowshed.errors import CowshedError, OpenError, TrustError
from differential import Arena

MASK = ["disk size"]


@pytest.fixture
def arena(tmp_path: Path, figures: Any) -> Arena:
    return Arena(tmp_path, figures)


def patch(path: Path, offset: int, data: bytes) -> None:
    with open(path, "r+b") as file:
        file.seek(offset)
        file.write(data)


def chain(arena: Arena) -> Arena:
    return arena.setup(
        "create -q -f qcow2 base.qcow2 10M",
        ["qemu-io", "base.qcow2", "-c", "write -P 1 0 1M", "-c", "write -P 2 3M 70k"],
        "create -q -f qcow2 -b base.qcow2 -F qcow2 mid.qcow2",
        "create -q -f qcow2 -b mid.qcow2 -F qcow2 top.qcow2 20M",
        "snapshot -c s1 mid.qcow2",
        ["snapshot", "-c", "a name that is wider than its column", "mid.qcow2"],
        ["snapshot", "-c", "ünïcödé", "mid.qcow2"],
    )


OUTPUTS = ([], ["--output=json"], ["--output", "human"])


def test_every_kind_of_image(arena: Arena) -> None:
    """Each variant of qcow2, vmdk and raw, in both forms of output."""
    variants = {
        "plain": "-f qcow2",
        "v2": "-f qcow2 -o compat=0.10",
        "small": "-f qcow2 -o cluster_size=512",
        "large": "-f qcow2 -o cluster_size=2M",
        "lazy": "-f qcow2 -o lazy_refcounts=on",
        "refcount1": "-f qcow2 -o refcount_bits=1",
        "refcount64": "-f qcow2 -o refcount_bits=64",
        "extended": "-f qcow2 -o extended_l2=on",
        "zstd": "-f qcow2 -o compression_type=zstd",
        "datafile": "-f qcow2 -o data_file=data.raw",
        "rawdatafile": "-f qcow2 -o data_file=raw.raw,data_file_raw=on",
        "full": "-f qcow2 -o preallocation=full",
        "raw": "-f raw",
        "vmdk": "-f vmdk",
    }
    for name, options in variants.items():
        arena.setup(f"create -q {options} {name} 5M")
    names = [*variants, "data.raw"]
    trials = [["info", *output, name] for name in names for output in OUTPUTS]
    trials += [["info", "-f", fmt, "plain"] for fmt in ("qcow2", "raw", "vmdk", "nope")]
    arena.check_all(trials, mask=MASK)


def test_sizes(arena: Arena) -> None:
    """Sizes are rounded to sectors and written with three digits."""
    sizes = [0, 1, 511, 512, 513, 1023, 1024, 1025, 10239, 102399, 999424, 1023999, 1048575, 1072693248, 10 << 30]
    sizes += [(1 << 40) - 1, 1 << 40, 1 << 50, 123456789012345]
    for size in sizes:
        arena.setup(f"create -q -f qcow2 -o cluster_size=2M q{size} {size}")
        if size <= 1 << 40:
            arena.setup(
                lambda folder, size=size: (folder / f"r{size}").touch() or os.truncate(folder / f"r{size}", size)
            )
    names = sorted(path.name for path in arena.dir.iterdir())
    arena.check_all((["info", "-f", "raw" if name[0] == "r" else "qcow2", name] for name in names), mask=MASK)


def test_disk_size(arena: Arena) -> None:
    """The space taken, not masked: whole files, so that no file system disagrees."""
    for kib in (0, 4, 8, 36, 100, 1000, 1004, 1024, 5000):
        (arena.dir / f"k{kib}").write_bytes(os.urandom(kib << 10))
    os.sync()
    names = sorted(path.name for path in arena.dir.iterdir())
    arena.check_all([["info", *output, name] for name in names for output in ([], ["--output=json"])])


def test_backing_chain(arena: Arena) -> None:
    chain(arena)
    trials = [
        ["info", *output, *flag, name]
        for output, flag, name in itertools.product(
            OUTPUTS, ([], ["--backing-chain"], ["-U"]), ("base.qcow2", "mid.qcow2", "top.qcow2", "./top.qcow2")
        )
    ]
    assert arena.check_all(trials, mask=MASK) == 36


def test_where_the_backing_file_is(arena: Arena) -> None:
    """Names seen from another directory, absolute, with a protocol, as json:, gone, or in a circle."""
    chain(arena)
    (arena.dir / "sub").mkdir()
    arena.setup(
        "create -q -f qcow2 -b ../base.qcow2 -F qcow2 sub/over.qcow2",
        f"create -q -f qcow2 -b {arena.dir}/base.qcow2 -F qcow2 absolute.qcow2",
        "create -q -f qcow2 -b base.qcow2 -F qcow2 gone.qcow2",
        "rebase -u -b nope.qcow2 -F qcow2 gone.qcow2",
        "create -q -f qcow2 -b base.qcow2 -F qcow2 json.qcow2",
        [
            "rebase",
            "-u",
            "-b",
            'json:{"driver":"qcow2","file":{"driver":"file","filename":"base.qcow2"}}',
            "-F",
            "qcow2",
            "json.qcow2",
        ],
        "create -q -f qcow2 one.qcow2 1M",
        "create -q -f qcow2 -b one.qcow2 -F qcow2 two.qcow2",
        "rebase -u -b two.qcow2 -F qcow2 one.qcow2",
        "create -q -f qcow2 self.qcow2 1M",
        "rebase -u -b self.qcow2 -F qcow2 self.qcow2",
        "create -q -f qcow2 wrong.qcow2 1M",
        "rebase -u -b base.qcow2 -F raw wrong.qcow2",
        "create -q -f qcow2 file.qcow2 1M",
        "rebase -u -b file:base.qcow2 -F qcow2 file.qcow2",
    )
    names = ["sub/over.qcow2", "absolute.qcow2", "gone.qcow2", "json.qcow2", "one.qcow2", "two.qcow2", "self.qcow2"]
    names += ["wrong.qcow2", "file.qcow2", "file:file.qcow2", "file:sub/over.qcow2"]
    trials = [
        ["info", *output, *flag, name] for name in names for output in OUTPUTS[:2] for flag in ([], ["--backing-chain"])
    ]
    arena.check_all(trials, mask=MASK)
    arena.check_all((["info", *flag, f"{arena.dir}/top.qcow2"] for flag in ([], ["--backing-chain"])), mask=MASK)


def test_described_images(arena: Arena) -> None:
    chain(arena)
    trials = [
        ["info", *output, *argv]
        for output in OUTPUTS[:2]
        for argv in (
            ["--image-opts", "driver=qcow2,file.filename=top.qcow2"],
            ["--image-opts", "--backing-chain", "driver=qcow2,file.filename=top.qcow2"],
            ["--image-opts", "file.filename=top.qcow2"],
            ["--image-opts", "driver=qcow2,file.driver=file,file.filename=top.qcow2,lazy-refcounts=on"],
            ["--image-opts", "driver=raw,file.filename=top.qcow2"],
            ["--image-opts", "driver=raw,file.filename=top.qcow2,offset=512"],
            ["--image-opts", "driver=raw,file.filename=top.qcow2,offset=512,size=1k"],
            ["--image-opts", "driver=file,filename=top.qcow2"],
            ["--image-opts", "driver=qcow2,file.filename=nope"],
            ["--image-opts", "driver=nope,file.filename=top.qcow2"],
            ["--image-opts", "driver=qcow2,file.filename=top.qcow2,nonsense=1"],
            ["--image-opts", "driver=qcow2,file.filename=top.qcow2,backing.driver=qcow2,backing.file.filename=x"],
            ["--image-opts", "top.qcow2"],
            ["--image-opts", "-f", "qcow2", "top.qcow2"],
            ['json:{"driver":"qcow2","file":{"driver":"file","filename":"top.qcow2"}}'],
            ['json:{"driver":"qcow2","file.filename":"top.qcow2","backing":null}'],
            ['json:{"driver":"raw","offset":1024,"file":{"driver":"file","filename":"top.qcow2"}}'],
            ['json:{"driver":"qcow2","file":{"driver":"raw","file":{"driver":"file","filename":"top.qcow2"}}}'],
            ["json:{"],
            ["json:[]"],
            ["file:top.qcow2"],
            ["nosuch:top.qcow2"],
        )
    ]
    arena.check_all(trials, mask=MASK)


def test_arguments(arena: Arena) -> None:
    chain(arena)
    trials = [
        ["info"],
        ["info", "base.qcow2", "mid.qcow2"],
        ["info", "nope"],
        ["info", "."],
        ["info", ""],
        ["info", "/dev/null"],
        ["info", "/dev/zero"],
        ["info", "--output=xml", "base.qcow2"],
        ["info", "--output=JSON", "base.qcow2"],
        ["info", "--out=json", "base.qcow2"],
        ["info", "--backing", "base.qcow2"],
        ["info", "--nope", "base.qcow2"],
        ["info", "-f"],
        ["info", "-q", "base.qcow2"],
        ["info", "base.qcow2", "--output=json"],
        ["info", "--object", "secret,id=a,data=b", "base.qcow2"],
    ]
    arena.check_all(trials, mask=MASK)


def test_states(arena: Arena) -> None:
    """Dirty, corrupt, with bitmaps of every kind, with a VM state; and headers that are damaged or from the future."""
    arena.setup("create -q -f qcow2 plain 1G", "create -q -f qcow2 bitmaps 1G")
    plain = (arena.dir / "plain").read_bytes()
    for name, field, value in (
        ("dirty", 72, 1),
        ("corrupt", 72, 2),
        ("both", 72, 3),
        ("future", 72, 0x100),
        ("far_future", 72, 1 << 63),
        ("compatible", 80, 0xFF00),
        ("autoclear", 88, 0xFF00),
    ):
        (arena.dir / name).write_bytes(plain)
        patch(arena.dir / name, field, struct.pack(">Q", value))
    for length in (0, 4, 50, 72, 100, 104, 112, 512):
        (arena.dir / f"cut{length}").write_bytes(plain[:length])
    for name, field, value in (
        ("version", 4, 4),
        ("cluster_bits", 20, 8),
        ("cluster_bits_high", 20, 22),
        ("crypt", 32, 3),
        ("refcount_order", 96, 7),
        ("header_length", 100, 103),
        ("header_long", 100, 70000),
    ):
        (arena.dir / name).write_bytes(plain)
        patch(arena.dir / name, field, struct.pack(">I", value))
    arena.setup(
        "bitmap --add -g 1M bitmaps one",
        "bitmap --add --disable bitmaps two",
        "bitmap --add -g 512 bitmaps three",
    )
    names = sorted(path.name for path in arena.dir.iterdir())
    arena.check_all([["info", *output, name] for name in names for output in OUTPUTS[:2]], mask=MASK)


def test_bitmap_in_use(arena: Arena) -> None:
    """A bitmap that nobody closed properly is shown so."""
    arena.setup("create -q -f qcow2 a 1G", "bitmap --add a one")
    data = (arena.dir / "a").read_bytes()
    at = data.index(struct.pack(">I", 0x23852875))
    directory = struct.unpack_from(">Q", data, at + 8 + 16)[0]
    flags = struct.unpack_from(">I", data, directory + 12)[0]
    patch(arena.dir / "a", directory + 12, struct.pack(">I", flags | 1))
    arena.check_all([["info", *output, "a"] for output in OUTPUTS[:2]], mask=MASK)


def test_as_a_process(arena: Arena) -> None:
    """The launcher, with both streams in one file."""
    chain(arena)
    for argv in (["info", "top.qcow2"], ["info", "--backing-chain", "top.qcow2"], ["info", "nope"], ["info"]):
        arena.check(*argv, mask=MASK, link=True, merged=True)


def test_api(arena: Arena) -> None:
    chain(arena)
    found = ops.info(str(arena.dir / "top.qcow2"), backing_chain=True)
    assert [Path(item.filename).name for item in found.chain] == ["top.qcow2", "mid.qcow2", "base.qcow2"]
    assert found.virtual_size == 20 << 20
    assert found.backing_filename == "mid.qcow2"
    assert found.full_backing_filename == str(arena.dir / "mid.qcow2")
    assert found.chain[1].snapshots[0].name == "s1"
    assert found.to_dict()["format-specific"]["data"]["compat"] == "1.1"
    with pytest.raises(OpenError, match="No such file"):
        ops.info(str(arena.dir / "nope"))


def test_trust(arena: Arena) -> None:
    """The chain is followed only as far as policy lets images name files; the image alone is always shown."""
    chain(arena)
    path = str(arena.dir / "top.qcow2")
    assert ops.info(path, trust="none").backing_filename == "mid.qcow2"
    with pytest.raises(TrustError):
        ops.info(path, backing_chain=True, trust="none")
    arena.setup("rebase -u -b nbd://localhost/x -F raw top.qcow2")
    with pytest.raises(TrustError):
        ops.info(path, backing_chain=True)


def test_long_chain_is_refused(arena: Arena) -> None:
    """A chain that never ends, though no name comes twice."""
    arena.setup("create -q -f qcow2 -u -b image000 -F qcow2 template 1M")
    template = (arena.dir / "template").read_bytes()
    for number in range(250):
        (arena.dir / f"image{number:03}").write_bytes(template.replace(b"image000", b"image%03d" % (number + 1)))
    with pytest.raises(CowshedError, match="chain is longer than 200"):
        ops.info(str(arena.dir / "image000"), backing_chain=True)
