"""``qemu-img map``: where the bytes are, compared with the real tool over images of every kind."""

from __future__ import annotations

import itertools
import os
import resource
import shutil
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import cowshed
import cowshed.ops.map as ops
import judges
from cowshed.errors import OpenError, RangeError
from differential import Arena

OUTPUTS = ([], ["--output=json"])


@pytest.fixture
def arena(tmp_path: Path, figures: Any) -> Arena:
    return Arena(tmp_path, figures)


def both(names: list[str], *options: list[str]) -> list[list[str]]:
    ways = options or ([],)
    return [["map", *output, *way, name] for name in names for way in ways for output in OUTPUTS]


WRITES = ["-c", "write -P 1 0 1M", "-c", "write -P 2 3M 70k", "-c", "write -z 5M 1M", "-c", "write -zu 7M 64k"]


def chain(arena: Arena) -> Arena:
    return arena.setup(
        "create -q -f qcow2 base.qcow2 10M",
        ["qemu-io", "base.qcow2", *WRITES],
        "create -q -f qcow2 -b base.qcow2 -F qcow2 over.qcow2 12M",
        ["qemu-io", "over.qcow2", "-c", "write -P 5 512k 64k", "-c", "write -P 2 11M 1M", "-c", "discard 0 64k"],
    )


def test_formats(arena: Arena) -> None:
    chain(arena)
    arena.setup(
        "convert -O raw base.qcow2 sparse.raw",
        "convert -c -O qcow2 base.qcow2 packed.qcow2",
        "convert -c -O qcow2 -o compression_type=zstd base.qcow2 zstd.qcow2",
        "convert -O qcow2 -o compat=v2 base.qcow2 v2.qcow2",
        "convert -O qcow2 -o cluster_size=512 base.qcow2 small.qcow2",
        "convert -O qcow2 -o cluster_size=2M base.qcow2 large.qcow2",
        "convert -O qcow2 -o extended_l2=on base.qcow2 extended.qcow2",
        "convert -O vmdk base.qcow2 sparse.vmdk",
        "create -q -f qcow2 -o data_file=data.raw external.qcow2 10M",
        ["qemu-io", "external.qcow2", *WRITES],
        "create -q -f qcow2 -o data_file=raw.raw,data_file_raw=on external_raw.qcow2 10M",
        ["qemu-io", "external_raw.qcow2", *WRITES],
        "create -q -f qcow2 -b sparse.raw -F raw onraw.qcow2",
        ["qemu-io", "onraw.qcow2", "-c", "write -P 5 512k 64k"],
        "create -q -f qcow2 -b packed.qcow2 -F qcow2 onpacked.qcow2",
        "create -q -f qcow2 -o extended_l2=on sub.qcow2 1M",
        ["qemu-io", "sub.qcow2", "-c", "write 4k 4k", "-c", "write -z 10k 4k", "-c", "discard 4k 2k"],
    )
    names = sorted(path.name for path in arena.dir.iterdir())
    arena.check_all([*both(names), *both(["base.qcow2"], ["-f", "raw"])])


def test_preallocated(arena: Arena) -> None:
    """Clusters without data under them: allocated, and zero where the file has holes."""
    for mode in ("off", "metadata", "falloc", "full"):
        arena.setup(f"create -q -f qcow2 -o preallocation={mode} {mode}.qcow2 10M")
        arena.setup(["qemu-io", f"{mode}.qcow2", "-c", "write -P 1 1M 4k", "-c", "write -P 2 3M 1M"])
    for mode in ("off", "falloc", "full"):
        arena.setup(f"create -q -f raw -o preallocation={mode} {mode}.raw 10M")
    arena.setup("create -q -f qcow2 -o preallocation=metadata,data_file=d.raw external.qcow2 10M")
    arena.setup("create -q -f qcow2 -o preallocation=metadata,extended_l2=on extended.qcow2 10M")
    arena.check_all(both(sorted(path.name for path in arena.dir.iterdir())))


def test_chain_and_ranges(arena: Arena) -> None:
    chain(arena)
    ways = [
        [],
        ["-s", "1M"],
        ["-s", "1M", "-l", "3M"],
        ["--start-offset=1", "--max-length=3"],
        ["-s", "10M"],
        ["-s", "12M"],
        ["-s", "20M"],
        ["-l", "0"],
        ["-l", "100G"],
        ["-s", "11.5M", "-l", "5M"],
        ["-U"],
        ["-f", "qcow2"],
        ["-f", "raw"],
    ]
    assert arena.check_all(both(["over.qcow2"], *ways)) == 2 * len(ways)


def test_backing_sizes(arena: Arena) -> None:
    """Backing files shorter and longer than what stands on them, two deep."""
    sizes = ("1M", "3M", "5M")
    for size in sizes:
        arena.setup(f"create -q -f qcow2 b{size} {size}", ["qemu-io", f"b{size}", "-c", "write -P 1 512k 256k"])
    names = []
    for base, middle, top in itertools.product(sizes, repeat=3):
        name = f"t{base}{middle}{top}"
        arena.setup(
            f"create -q -f qcow2 -b b{base} -F qcow2 m{name} {middle}",
            ["qemu-io", f"m{name}", "-c", "write -P 2 640k 64k", "-c", "write -z 768k 64k"],
            f"create -q -f qcow2 -b m{name} -F qcow2 {name} {top}",
        )
        names.append(name)
    arena.check_all(both(names))


def test_odd_files(arena: Arena) -> None:
    for size in (0, 1, 511, 512, 1000, 1023, 1024):
        (arena.dir / f"n{size}").write_bytes(b"x" * size)
        (arena.dir / f"z{size}").touch()
        os.truncate(arena.dir / f"z{size}", size)
    (arena.dir / "tail").write_bytes(bytes(1000) + b"abc")
    arena.check_all(both(sorted(path.name for path in arena.dir.iterdir())))


def test_described_images(arena: Arena) -> None:
    chain(arena)
    arena.setup("convert -O raw base.qcow2 sparse.raw")
    described = [
        "driver=qcow2,file.filename=over.qcow2",
        "driver=qcow2,file.filename=over.qcow2,backing.driver=qcow2,backing.file.filename=base.qcow2",
        "driver=raw,file.filename=sparse.raw,offset=1M,size=4M",
        "driver=raw,file.filename=sparse.raw,offset=3M",
        "driver=file,filename=sparse.raw",
        "driver=qcow2,file.filename=nope",
    ]
    arena.check_all(both(described, ["--image-opts"]))
    arena.check_all(
        both(
            [
                'json:{"driver":"qcow2","file":{"driver":"file","filename":"over.qcow2"}}',
                'json:{"driver":"qcow2","file.filename":"over.qcow2","backing":null}',
                'json:{"driver":"qcow2","file":{"driver":"raw","file":{"driver":"file","filename":"base.qcow2"}}}',
                "file:over.qcow2",
            ]
        )
    )


def test_arguments(arena: Arena) -> None:
    chain(arena)
    arena.setup("create -q -f qcow2 -b base.qcow2 -F qcow2 gone.qcow2", "rebase -u -b nope -F qcow2 gone.qcow2")
    trials = [
        ["map"],
        ["map", "base.qcow2", "over.qcow2"],
        ["map", "nope"],
        ["map", "gone.qcow2"],
        ["map", "-s", "-1", "over.qcow2"],
        ["map", "--start-offset=x", "over.qcow2"],
        ["map", "--max-length=x", "over.qcow2"],
        ["map", "-l", "5x", "over.qcow2"],
        ["map", "-s", "8E", "over.qcow2"],
        ["map", "-l", "1000E", "over.qcow2"],
        ["map", "-l", "", "over.qcow2"],
        ["map", "--output=xml", "over.qcow2"],
        ["map", "--image-opts", "-f", "qcow2", "over.qcow2"],
        ["map", "-f", "nope", "over.qcow2"],
        ["map", "-f", "vmdk", "over.qcow2"],
        ["map", "--object", "secret,id=a,data=b", "over.qcow2"],
    ]
    arena.check_all(trials)


def test_as_a_process(arena: Arena) -> None:
    """The order of the streams: what was printed before the error, and the error."""
    chain(arena)
    arena.setup("convert -c -O qcow2 base.qcow2 packed.qcow2")
    for output in OUTPUTS:
        for name in ("packed.qcow2", "over.qcow2", "nope"):
            arena.check("map", *output, name, link=True, merged=True)


def test_api(arena: Arena) -> None:
    chain(arena)
    path = str(arena.dir / "over.qcow2")
    entries = list(ops.map_image(path))
    assert entries[0].start == 0
    assert all(one.start + one.length == other.start for one, other in itertools.pairwise(entries))
    assert entries[-1].start + entries[-1].length == 12 << 20
    data = next(entry for entry in entries if entry.data and entry.depth == 0)
    assert data.filename == path and data.offset is not None
    with open(path, "rb") as file:
        file.seek(data.offset)
        assert file.read(512) == b"\5" * 512
    with pytest.raises(RangeError):
        list(ops.map_image(path, start=-1))
    with pytest.raises(OpenError):
        list(ops.map_image(str(arena.dir / "nope")))


def test_large_map_in_little_memory(tmp_path: Path, figures: Any) -> None:
    """A fully mapped TiB: in no more than the real tool's time and a bounded part of memory."""
    image = tmp_path / "tib.qcow2"
    judges.run("qemu-img", "create", "-q", "-f", "qcow2", "-o", "preallocation=metadata", image, "1T")
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    began = time.monotonic()
    count = sum(1 for _ in ops.map_image(str(image)))
    spent = time.monotonic() - began
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200 << 10
    began = time.monotonic()
    real = judges.qemu_img("map", "--output=json", image)
    figures.add("map: seconds for 1 TiB in this process", round(spent, 2))
    figures.add("map: seconds for 1 TiB by the real tool", round(time.monotonic() - began, 2))
    assert count == real.count('"start"')


@given(
    writes=st.lists(
        st.tuples(st.integers(0, 2047), st.integers(1, 400), st.sampled_from("wzd")), min_size=1, max_size=12
    ),
    cluster=st.sampled_from(["512", "4k", "64k", "2M"]),
    extended=st.booleans(),
    backed=st.booleans(),
)
@settings(max_examples=60)
def test_written_by_us(
    tmp_path_factory: pytest.TempPathFactory,
    writes: list[tuple[int, int, str]],
    cluster: str,
    extended: bool,
    backed: bool,
) -> None:
    """Both tools map images alike that our writer made, with holes in their clusters and in their files."""
    folder = tmp_path_factory.mktemp("map")
    arena = Arena(folder)
    options = f"cluster_size={cluster}" + (",extended_l2=on" if extended and cluster in ("64k", "2M") else "")
    if backed:
        arena.setup("create -q -f qcow2 base 2M", ["qemu-io", "base", "-c", "write -P 1 300k 500k"])
    base = " -b base -F qcow2" if backed else ""
    arena.setup(f"create -q -f qcow2 -o {options}{base} a 1M")
    with cowshed.open(str(arena.dir / "a"), writable=True, trust="all") as disk:
        for sector, count, kind in writes:
            offset = sector * 512
            length = min(count * 512, disk.size - offset)
            if kind == "w":
                disk.write(offset, b"x" * length)
            elif kind == "z":
                disk.write_zeroes(offset, length, True)
            else:
                disk.discard(offset, length)
    arena.check_all([*both(["a"]), *both(["a"], ["-f", "raw"])])
    shutil.rmtree(folder)
