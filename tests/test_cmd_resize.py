"""``qemu-img resize``: growing, shrinking, refusing; the image judged by the real tool afterwards."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

import judges
from cowshed.errors import CowshedError, NoSpaceError
from cowshed.ops.resize import ShrinkError, resize
from differential import Arena
from verbs import arena, campaign, check_of, guest_of, info_of, lines, small_disk

__all__ = ["arena", "small_disk"]  # fixtures


def state(folder: Path, name: str) -> object:
    """Facts, soundness and content of a qcow2 image."""
    return info_of(folder, name), check_of(folder, name)[0], guest_of(folder, name)


def raw_state(folder: Path, name: str) -> object:
    data = (folder / name).read_bytes()
    return len(data), data


SIZES = [
    "1M",
    "+1M",
    "+512",
    "2M",
    "+0",
    "512k",
    "-512k",
    "-1M",
    "-2M",
    "0",
    "+0k",
    "1",
    "1000",
    "1.5M",
    "+1.5k",
    "65537",
]
ODD = ["x", "", "+", "-", "9E", "+8E", "7.9E", "99999999999999999999", "1e3", "++1M", "+-1M", "- 1M", "0x100000", "1M "]


def test_qcow2(arena: Arena) -> None:
    arena.setup("create -q -f qcow2 a 1M", ["qemu-io", "a", "-c", "write -P 7 0 1M", "-c", "write -z 300k 100k"])
    trials = [["resize", *shrink, "a", size] for size in SIZES for shrink in ([], ["--shrink"])]
    campaign(arena, trials, (state, "a"))


def test_odd_sizes(arena: Arena) -> None:
    arena.setup("create -q -f qcow2 a 1M")
    campaign(arena, [["resize", "a", size] for size in [*ODD, "64P", "100P"]], (state, "a"))


def test_raw(arena: Arena) -> None:
    (arena.dir / "r").write_bytes(os.urandom(1000))
    trials = [
        ["resize", "-f", "raw", *shrink, "r", size] for size in [*SIZES, "1024", "999"] for shrink in ([], ["--shrink"])
    ]
    trials += [["resize", "-f", "raw", "r", size] for size in ODD if size not in ("7.9E",)]
    trials += [
        ["resize", "r", "2k"],
        ["resize", "-q", "r", "2k"],
        ["resize", "-q", "-f", "raw", "r", "2k"],
        ["resize", "r", "-512"],
    ]
    trials += [
        ["resize", "-f", "raw", f"--preallocation={mode}", *shrink, "r", size]
        for mode in ("off", "metadata", "falloc", "full", "bogus")
        for size, shrink in (("1M", []), ("512", []), ("512", ["--shrink"]), ("1000", []))
    ]
    campaign(arena, trials, (raw_state, "r"))


def test_preallocation(arena: Arena) -> None:
    """The space that is added, in every mode, on images of several kinds."""
    kinds = {"plain": "", "v2": "-o compat=v2", "small": "-o cluster_size=512", "extended": "-o extended_l2=on",
             "external": "-o data_file=d"}  # fmt: skip
    for kind, options in kinds.items():
        arena.setup(f"create -q -f qcow2 {options} {kind} 1M", ["qemu-io", kind, "-c", "write -P 7 0 1M"])
    for kind in kinds:
        trials = [
            ["resize", f"--preallocation={mode}", kind, size]
            for mode in ("off", "metadata", "falloc", "full")
            for size in ("5M", "+100k")
        ]
        trials += [
            ["resize", f"--preallocation={mode}", *way, kind, "512k"]
            for mode in ("full", "off")
            for way in ([], ["--shrink"])
        ]
        campaign(arena, trials, (state, kind))


def test_with_backing_file(arena: Arena) -> None:
    """What a longer backing file holds must not show in space that is added."""
    arena.setup(
        "create -q -f qcow2 base 5M",
        ["qemu-io", "base", "-c", "write -P 7 0 5M"],
        "create -q -f qcow2 -b base -F qcow2 over 1M",
        ["qemu-io", "over", "-c", "write -P 8 64k 64k"],
        "create -q -f qcow2 -b base -F qcow2 odd 100k",
        "create -q -f qcow2 -o extended_l2=on -b base -F qcow2 extended 1000k",
    )
    for name in ("over", "odd", "extended"):
        trials = [["resize", "--shrink", name, size] for size in ("3M", "5M", "7M", "+512", "64k", "1000k", "512")]
        trials += [
            ["resize", f"--preallocation={mode}", name, size]
            for mode in ("metadata", "falloc", "full")
            for size in ("3M", "7M")
        ]
        campaign(arena, trials, (state, name))
    arena.setup("rebase -u -b nope -F qcow2 over")
    campaign(arena, [["resize", "over", "3M"]])


def test_v2_over_a_longer_backing_file(arena: Arena) -> None:
    """Version 2 has no zero clusters, so the real tool refuses; ours writes the zeroes."""
    arena.setup(
        "create -q -f qcow2 base 5M",
        ["qemu-io", "base", "-c", "write -P 7 0 5M"],
        "create -q -f qcow2 -o compat=v2 -b base -F qcow2 v2 1M",
    )
    resize(str(arena.dir / "v2"), "7M")
    assert check_of(arena.dir, "v2")[0] == 0
    assert guest_of(arena.dir, "v2") == b"\7" * (1 << 20) + bytes(6 << 20)


def test_with_snapshots(arena: Arena) -> None:
    for kind, options in (("v3", ""), ("v2", "-o compat=v2")):
        arena.setup(
            f"create -q -f qcow2 {options} {kind} 1M",
            ["qemu-io", kind, "-c", "write -P 7 0 1M"],
            f"snapshot -c s {kind}",
            ["qemu-io", kind, "-c", "write -P 8 0 300k"],
        )
        sizes = ("2M", "512k", "100M", "512")
        trials = [["resize", *shrink, kind, size] for size in sizes for shrink in ([], ["--shrink"])]
        campaign(
            arena, trials, (lambda folder, name: (info_of(folder, name), check_of(folder, name)[0]), kind)
        )


def test_with_bitmaps(arena: Arena) -> None:
    arena.setup("create -q -f qcow2 a 1M", "bitmap --add a b", ["qemu-io", "a", "-c", "write -P 7 0 1M"])
    campaign(arena, [["resize", "--shrink", "a", size] for size in ("2M", "512k")], (state, "a"))


def test_arguments(arena: Arena) -> None:
    arena.setup("create -q -f qcow2 a 1M", "create -q -f vmdk v 1M", "create -q -f raw r 1M")
    trials = lines(
        """
        resize
        resize a
        resize a b c
        resize nope 1M
        resize 5M a
        resize a -q
        resize -q
        resize v 10M
        resize -f nope a 2M
        resize --size 5 a
        resize -- r -512k
        resize a --shrink 512k
        resize --image-opts driver=qcow2,file.filename=a 2M
        resize --image-opts -f qcow2 driver=qcow2,file.filename=a 2M
        resize -f raw a 2M
        resize -p a 2M
        resize --object secret,id=a,data=b a 2M
        resize --image-opts driver=qcow2,file.filename=nope 2M
        resize --image-opts driver=raw,size=512k,file.filename=r 1M
        resize --image-opts driver=file,filename=r 2M
        """
    )
    campaign(arena, trials)


def test_as_a_process(arena: Arena) -> None:
    arena.setup("create -q -f qcow2 a 1M")
    for argv in (["resize", "a", "2M"], ["resize", "a", "-512k"]):
        arena.check(*argv, link=True, merged=True, changes=True)


def test_full_disk(small_disk: Path) -> None:
    """Where the space does not suffice nothing changes: size, content and soundness stay."""
    for fmt in ("qcow2", "raw"):
        image = small_disk / fmt
        judges.run("qemu-img", "create", "-q", "-f", fmt, image, "1M")
        judges.qemu_io(image, "write -P 7 0 1M", fmt=fmt)
        before = guest_of(small_disk.parent, f"small/{fmt}", fmt)
        for mode in ("full", "falloc"):
            with pytest.raises(NoSpaceError):
                resize(str(image), "40M", fmt=fmt, preallocation=mode)
            if fmt == "qcow2":
                judges.run("qemu-img", "check", image)
            assert guest_of(small_disk.parent, f"small/{fmt}", fmt) == before
        image.unlink()


def test_api(tmp_path: Path) -> None:
    path = str(tmp_path / "a")
    judges.run("qemu-img", "create", "-q", "-f", "qcow2", path, "1M")
    assert resize(path, 2 << 20) == 2 << 20
    assert resize(path, "+1M") == 3 << 20
    assert resize(path, 1 << 20, relative=1) == 4 << 20
    with pytest.raises(ShrinkError, match="--shrink") as caught:
        resize(path, "-1M")
    assert caught.value.hint is not None and "delete all data" in caught.value.hint
    assert resize(path, "-1M", shrink=True) == 3 << 20
    with pytest.raises(CowshedError, match="positive"):
        resize(path, 0)
