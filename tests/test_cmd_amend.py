"""``qemu-img amend``: other options for an image that exists; versions, refcount widths, sizes, refusals."""

from __future__ import annotations

import itertools
import re
import subprocess
from pathlib import Path

import pytest

import judges
from cowshed.errors import CowshedError, OptionError, UnsupportedError
from cowshed.ops.amend import amend
from cowshed.progress import Progress
from differential import Arena
from verbs import alike, arena, campaign, check_of, guest_of, info_of, lines

__all__ = ["arena"]  # a fixture

PROGRESS = (r"(?s) +\(0\.00/100%\)\r.*\(100\.00/100%\)\r\n", "PROGRESS\n")


def state(folder: Path, name: str) -> object:
    code, text = check_of(folder, name)
    assert code == 0, text
    return info_of(folder, name), guest_of(folder, name)


KINDS = {
    "v3": "",
    "v2": "-o compat=v2",
    "lazy": "-o lazy_refcounts=on",
    "narrow": "-o refcount_bits=2,cluster_size=4k",
    "wide": "-o refcount_bits=64",
    "extended": "-o extended_l2=on",
    "small": "-o cluster_size=512",
}
#: kinds that can't become version 2
CURTAILED = ("narrow", "wide", "extended")
OPTIONS = [
    "compat=v2", "compat=v3", "compat=0.10", "compat=1.1", "compat=v5", "compat=",
    "lazy_refcounts=on", "lazy_refcounts=off",
    "lazy_refcounts", "refcount_bits=1", "refcount_bits=16", "refcount_bits=64", "refcount_bits=7", "refcount_bits=0",
    "refcount_bits=128", "compat=v2,refcount_bits=16,lazy_refcounts=off", "compat=v3,lazy_refcounts=on,refcount_bits=8",
    "size=20M", "size=5M", "size=1000", "size=512", "size=1k,compat=v2", "compat=v3,compat=v2",
]  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
def test_kinds(arena: Arena, kind: str) -> None:
    arena.setup(
        f"create -q -f qcow2 {KINDS[kind]} a 10M", ["qemu-io", "a", "-c", "write -P 1 0 1M", "-c", "write -P 2 9M 100k"]
    )
    if kind != "v2":
        arena.setup(["qemu-io", "a", "-c", "write -z 2M 1M", "-c", "write -zu 0 64k"])
    # where the downgrade is refused the real tool has cut the disk off by then; see test_refused_changes_nothing
    options = [option for option in OPTIONS if kind not in CURTAILED or option != "size=1k,compat=v2"]
    campaign(arena, [["amend", "-o", option, "a"] for option in options], (state, "a"))


REFUSED_LATE = (
    ("-o refcount_bits=2", "size=1k,compat=v2", "compat=0.10 requires refcount_bits=16"),
    ("-o compat=v2", "compat=v3,refcount_bits=1", "Cannot decrease refcount entry width to 1 bits"),
    ("-o compat=v2", "compat=v3,size=8P", "Failed to grow the L1 table: File too large"),
    ("", "lazy_refcounts=on,size=8P", "Failed to grow the L1 table: File too large"),
    ("", "refcount_bits=64,size=8P", "Failed to grow the L1 table: File too large"),
    ("", "compat=v2,size=20M", "Internal snapshots prevent downgrade of image"),
    ("", "refcount_bits=8,compat=v2", "Refcount widths other than 16 bits require compatibility level 1.1"),
)


@pytest.mark.parametrize(("made", "option", "text"), REFUSED_LATE)
def test_refused_changes_nothing(arena: Arena, made: str, option: str, text: str) -> None:
    """An option that can't be had is refused in the real tool's words, and before any other is applied.

    The real tool applies some first: it may have cut the disk off when it refuses the rest.
    """
    arena.setup(f"create -q -f qcow2 {made} a 10M", ["qemu-io", "a", "-c", "write -P 1 0 10M"], "snapshot -c one a")
    path = arena.dir / "a"
    before = path.read_bytes()
    with pytest.raises(CowshedError, match=re.escape(text)):
        amend(str(path), option)
    assert path.read_bytes() == before
    real = subprocess.run(
        [judges.need("qemu-img"), "amend", "-o", option, str(path)], capture_output=True, text=True, timeout=60
    )
    assert real.returncode == 1
    assert text in real.stderr


def test_with_snapshots(arena: Arena) -> None:
    arena.setup(
        "create -q -f qcow2 a 10M", ["qemu-io", "a", "-c", "write -P 1 0 1M"], "snapshot -c one a", "snapshot -c two a",
        ["qemu-io", "a", "-c", "write -P 2 512k 1M"], "snapshot -c three a",
    )  # fmt: skip
    options = [
        "compat=v2",
        "refcount_bits=1",
        "refcount_bits=2",
        "refcount_bits=4",
        "refcount_bits=64",
        "size=20M",
        "size=5M",
    ]
    campaign(arena, [["amend", "-o", option, "a"] for option in options], (state, "a"))


def test_with_backing_file(arena: Arena) -> None:
    arena.setup(
        "create -q -f qcow2 base 10M", ["qemu-io", "base", "-c", "write -P 9 0 10M"],
        "create -q -f qcow2 -b base -F qcow2 a 5M", ["qemu-io", "a", "-c", "write -P 1 0 1M", "-c", "write -z 2M 1M"],
    )  # fmt: skip
    options = [
        "compat=v2", "refcount_bits=64", "size=7M", "size=1M", "backing_file=base", "backing_file=", "backing_fmt=raw",
        "backing_file=base,backing_fmt=qcow2", "backing_file=,backing_fmt=",
    ]  # fmt: skip
    campaign(arena, [["amend", "-o", option, "a"] for option in options], (state, "a"))


def test_with_data_file(arena: Arena) -> None:
    for name, options in (("a", "data_file=d"), ("b", "data_file=e,data_file_raw=on")):
        arena.setup(f"create -q -f qcow2 -o {options} {name} 1M", ["qemu-io", name, "-c", "write -P 1 0 100k"])
        (arena.dir / "other").write_bytes((arena.dir / "d").read_bytes())
        trials = [
            "data_file=other",
            "data_file=",
            "data_file_raw=on",
            "data_file_raw=off",
            "data_file=other,data_file_raw=on",
            "compat=v2",
            "size=2M",
        ]
        campaign(arena, [["amend", "-o", option, name] for option in trials], (info_of, name), (check_of, name))


def test_with_bitmaps(arena: Arena) -> None:
    arena.setup("create -q -f qcow2 a 1M", "bitmap --add a b", ["qemu-io", "a", "-c", "write -P 1 0 100k"])
    campaign(
        arena,
        [["amend", "-o", option, "a"] for option in ("refcount_bits=64", "size=2M", "lazy_refcounts=on")],
        (state, "a"),
    )


REFUSED = """
amend
amend a
amend -o compat=v2
amend -o help
amend -f qcow2 -o help
amend -f qcow2 -o help nope
amend -o help a
amend -o ? a
amend -p -o help a
amend -f raw -o help
amend -o help r
amend -f vmdk -o help
amend -f nope -o help
amend -o size=1M -f raw r
amend -o foo=1 r
amend -o foo=bar a
amend -o cluster_size=512 a
amend -o preallocation=full a
amend -o compression_type=zstd a
amend -o encryption=on a
amend -o extended_l2=on a
amend -o encrypt.format=luks a
amend -o foo=1,cluster_size=1 a
amend -o cluster_size=1,foo=1 a
amend -o data_file=x a
amend -o data_file_raw=on a
amend -o data_file_raw=off a
amend -o size=1x a
amend -o refcount_bits=x a
amend -o lazy_refcounts=maybe a
amend -o ,size=1 a
amend -o size=1, a
amend -o '' a
amend -o size=1 a
amend -o encrypt.new-secret=x a
amend -o encrypt.state=active a
amend -o size=8E a
amend -o size=0 a
amend -q -o size=40M a
amend -t foo -o size=40M a
amend -t none -o size=40M a
amend --force -o size=40M a
amend -o compat=v3 -o size=30M a
amend -o size=40M nope
amend -o size=1M a b
amend -f nope -o size=1 a
amend --image-opts -o size=20M driver=qcow2,file.filename=a
amend --image-opts -f qcow2 -o size=20M a
amend -p -o foo=1 a
amend -p -o size=1 nope
amend -U -o size=20M a
amend -o size=20M gone
amend -o size=20M v
"""


def test_arguments(arena: Arena) -> None:
    arena.setup(
        "create -q -f qcow2 a 10M", "create -q -f raw r 1M", "create -q -f vmdk v 1M",
        "create -q -f qcow2 -b a -F qcow2 gone", "rebase -u -b nope -F qcow2 gone",
    )  # fmt: skip
    campaign(arena, lines(REFUSED), (state, "a"))


def test_progress(arena: Arena) -> None:
    arena.setup("create -q -f qcow2 a 10M", ["qemu-io", "a", "-c", "write -P 1 0 1M"])
    for option in (
        "compat=v2",
        "size=20M",
        "refcount_bits=64",
        "compat=v3,lazy_refcounts=on",
        "refcount_bits=7",
        "size=1",
    ):
        alike(arena, ["amend", "-p", "-o", option, "a"], (state, "a"), mask=[PROGRESS])


def test_as_a_process(arena: Arena) -> None:
    arena.setup("create -q -f qcow2 a 10M")
    for option in ("compat=v2", "cluster_size=512", "help"):
        arena.check("amend", "-o", option, "a", link=True, merged=True, changes=True)


def test_every_pair_of_widths(arena: Arena) -> None:
    """From every refcount width to every other and back: sound, and the same content."""
    widths = (1, 2, 4, 8, 16, 32, 64)
    path = arena.dir / "a"
    judges.run("qemu-img", "create", "-q", "-f", "qcow2", "-o", "cluster_size=4k,refcount_bits=1", path, "3M")
    judges.qemu_io(path, "write -P 1 0 1M", "write -P 2 2M 100k")
    before = guest_of(arena.dir, "a")
    for one, other in itertools.permutations(widths, 2):
        for width in (one, other):
            amend(str(path), {"refcount_bits": width})
            assert f"refcount bits: {width}" in info_of(arena.dir, "a")
        assert check_of(arena.dir, "a")[0] == 0
    assert guest_of(arena.dir, "a") == before


def test_api(arena: Arena) -> None:
    arena.setup("create -q -f qcow2 a 10M", "create -q -f raw r 1M")
    path = str(arena.dir / "a")
    seen: list[float] = []
    amend(
        path,
        {"compat": "v3", "refcount_bits": 64, "size": 20 << 20},
        progress=Progress("amend", lambda work: seen.append(work.fraction)),
    )
    assert "virtual size: 20 MiB" in info_of(arena.dir, "a") and seen[-1] == 1.0
    with pytest.raises(OptionError, match="Invalid parameter 'cluster_size'") as caught:
        amend(path, "cluster_size=4k")
    assert caught.value.hint == "This option is only supported for image creation"
    with pytest.raises(UnsupportedError, match="does not support option amendment"):
        amend(str(arena.dir / "r"), "size=2M", fmt="raw")
