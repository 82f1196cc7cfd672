"""``qemu-img snapshot``: the table, and the state of the image after every action."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import cowshed.ops.snapshot as ops
import judges
from cowshed.errors import CowshedError, UnsupportedError
from differential import MASKS, Arena
from verbs import arena, campaign, check_of, guest_of, info_of, lines

__all__ = ["arena"]  # a fixture


def state(folder: Path, name: str) -> object:
    """Facts without dates, content, and content of the snapshots; nobody may leave more than leaks."""
    text = re.sub(*MASKS["date"], info_of(folder, name))
    assert check_of(folder, name)[0] in (0, 3)
    return text, guest_of(folder, name), [_snapshot(folder, name, tag) for tag in ("one", "two")]


def _snapshot(folder: Path, name: str, tag: str) -> bytes | None:
    """What a guest would have read when the snapshot was made."""
    done = judges.run(
        "qemu-img", "convert", "-U", "-l", f"snapshot.name={tag}", "-O", "raw", name, ".snap", cwd=folder, ok=(0, 1)
    )
    return (folder / ".snap").read_bytes() if not done.returncode else None


MAKE = [
    "create -q -f qcow2 a 1M",
    ["qemu-io", "a", "-c", "write -P 1 0 512k"],
    "snapshot -c one a",
    ["qemu-io", "a", "-c", "write -P 2 256k 512k", "-c", "write -z 0 64k"],
    "snapshot -c two a",
    "snapshot -c 1 a",
    ["qemu-io", "a", "-c", "write -P 3 0 128k", "-c", "discard 512k 128k"],
]


def test_actions(arena: Arena) -> None:
    arena.setup(*MAKE)
    trials = [
        ["snapshot", flag, name, "a"]
        for flag in ("-a", "-d", "-c")
        for name in ("one", "two", "1", "2", "3", "nope", "")
    ]
    trials += [["snapshot", "-c", name, "a"] for name in ("x" * 300, "ünï cödé", "a,b", "one")]
    trials += [
        ["snapshot", "-l", "a"],
        ["snapshot", "a"],
        ["snapshot", "-q", "-l", "a"],
        ["snapshot", "-U", "-l", "a"],
        ["snapshot", "-q", "-c", "x", "a"],
    ]
    campaign(arena, trials, (state, "a"), mask=["date"])


@pytest.mark.parametrize(
    "options",
    [
        "compat=v2",
        "cluster_size=512",
        "cluster_size=2M",
        "extended_l2=on",
        "refcount_bits=1",
        "refcount_bits=64",
        "lazy_refcounts=on",
    ],
)
def test_kinds(arena: Arena, options: str) -> None:
    arena.setup(f"create -q -f qcow2 -o {options} a 1M", ["qemu-io", "a", "-c", "write -P 1 0 512k"])
    trials = [["snapshot", flag, name, "a"] for flag in ("-a", "-d", "-c") for name in ("one", "1")]
    if "refcount_bits=1" not in options.split(","):
        arena.setup("snapshot -c one a", ["qemu-io", "a", "-c", "write -P 2 256k 512k", "-c", "write -z 0 64k"])
    campaign(arena, trials, (state, "a"), mask=["date"])


def test_refused_snapshot_leaves_nothing(arena: Arena) -> None:
    """Where a cluster can't be shared, or the format of the image forbids it, the image stays as it was."""
    arena.setup("create -q -f qcow2 -o refcount_bits=1 a 1M", ["qemu-io", "a", "-c", "write -P 1 0 512k"])
    arena.setup("create -q -f qcow2 -o data_file=d external 1M")
    before = guest_of(arena.dir, "a")
    with pytest.raises(CowshedError):
        ops.snapshot_create(str(arena.dir / "a"), "x")
    assert check_of(arena.dir, "a")[0] == 0 and guest_of(arena.dir, "a") == before
    campaign(arena, [["snapshot", flag, "x", "external"] for flag in ("-c", "-a", "-d")], (info_of, "external"))


def test_tables(arena: Arena) -> None:
    """The table's columns, through names of every width."""
    arena.setup("create -q -f qcow2 a 1M")
    for name in ("", "s", "sixteen letters.", "seventeen letters", "ü" * 8, "ü" * 9, "tab\tin it", "日本語", "x" * 200):
        arena.setup(["snapshot", "-c", name, "a"])
    arena.check_all([["snapshot", "-l", "a"], ["snapshot", "a"], ["info", "a"]], mask=["disk size"])


def test_overlay_and_resized(arena: Arena) -> None:
    arena.setup(
        "create -q -f qcow2 base 1M",
        ["qemu-io", "base", "-c", "write -P 9 0 1M"],
        "create -q -f qcow2 -b base -F qcow2 a",
        ["qemu-io", "a", "-c", "write -P 1 0 128k"],
        "snapshot -c one a",
        "resize -q a 2M",
        ["qemu-io", "a", "-c", "write -P 2 1M 1M"],
        "snapshot -c two a",
        "resize -q --shrink a 512k",
    )
    trials = [["snapshot", flag, name, "a"] for flag in ("-a", "-d", "-c") for name in ("one", "two")]
    campaign(arena, trials, (state, "a"), mask=["date"])


def test_bitmaps_are_kept(arena: Arena) -> None:
    arena.setup(*MAKE, "bitmap --add a b")
    campaign(
        arena,
        [["snapshot", "-c", "x", "a"], ["snapshot", "-d", "one", "a"], ["snapshot", "-a", "one", "a"]],
        (state, "a"),
    )


def test_arguments(arena: Arena) -> None:
    arena.setup(*MAKE, "create -q -f raw r 1M", "create -q -f vmdk v 1M", "create -q -f qcow2 -b a -F qcow2 gone")
    arena.setup("rebase -u -b nope -F qcow2 gone")
    trials = lines(
        """
        snapshot
        snapshot a b
        snapshot -c
        snapshot -c x
        snapshot nope
        snapshot -c x nope
        snapshot -l -c x a
        snapshot -c x -d x a
        snapshot -l -l a
        snapshot -c x -f raw r
        snapshot r
        snapshot -l r
        snapshot -c x r
        snapshot -a x r
        snapshot -d x r
        snapshot v
        snapshot -c x v
        snapshot -a x v
        snapshot -d x v
        snapshot -U -c x a
        snapshot --image-opts -c x a
        snapshot --image-opts -c x driver=qcow2,file.filename=a
        snapshot --image-opts -l driver=qcow2,file.filename=a
        snapshot --image-opts -c x driver=qcow2,file.filename=nope
        snapshot -l gone
        snapshot -c x gone
        snapshot --bogus a
        snapshot --object secret,id=a,data=b a
        """
    )
    campaign(arena, trials)


def test_api(arena: Arena) -> None:
    arena.setup(*MAKE)
    path = str(arena.dir / "a")
    assert [(item.id, item.name) for item in ops.snapshot_list(path)] == [("1", "one"), ("2", "two"), ("3", "1")]
    made = ops.snapshot_create(path, "api")
    assert made.name == "api" and made.disk_size == 1 << 20
    ops.snapshot_apply(path, "1")  # an id comes before a name
    assert guest_of(arena.dir, "a") == _snapshot(arena.dir, "a", "one")
    ops.snapshot_delete(path, "1")  # a name
    ops.snapshot_delete(path, "1", by_id=True)
    assert [item.name for item in ops.snapshot_list(path)] == ["two", "api"]
    with pytest.raises(CowshedError, match="not found"):
        ops.snapshot_delete(path, "one")
    arena.setup("create -q -f raw r 1M")
    with pytest.raises(UnsupportedError):
        ops.snapshot_create(str(arena.dir / "r"), "x", fmt="raw")
