"""``qemu-img bitmap``: the directory of bitmaps and their bits, compared after every sequence of actions."""

from __future__ import annotations

import itertools
import json
import struct
from pathlib import Path

import pytest

import judges
from cowshed.errors import CowshedError, OpenError, UsageError
from cowshed.ops.bitmap import bitmap, bitmap_list
from differential import Arena
from verbs import arena, campaign, check_of, info_of, lines

__all__ = ["arena"]  # a fixture


def state(folder: Path, name: str) -> object:
    return info_of(folder, name), check_of(folder, name)[0]


def _dirty(path: Path, which: str) -> list[tuple[int, int]] | str:
    """Read a bitmap by the specification: bitmaps extension, directory, table, clusters of bits."""
    data = path.read_bytes()
    cluster = 1 << struct.unpack_from(">I", data, 20)[0]
    size = struct.unpack_from(">Q", data, 24)[0]
    at = struct.unpack_from(">I", data, 100)[0]
    while True:
        kind, length = struct.unpack_from(">II", data, at)
        if kind == 0x23852875:
            break
        if kind == 0:
            return "no bitmaps"
        at += 8 + (length + 7) // 8 * 8
    count, _, _, place = struct.unpack_from(">IIQQ", data, at + 8)
    for _ in range(count):
        table, entries, _flags, _kind, shift, name_size, extra = struct.unpack_from(">QIIBBHI", data, place)
        name = data[place + 24 + extra : place + 24 + extra + name_size].decode()
        if name == which:
            raw = b""
            for index in range(entries):
                entry = struct.unpack_from(">Q", data, table + 8 * index)[0]
                host = entry & 0x00FFFFFFFFFFFE00
                raw += (
                    data[host : host + cluster].ljust(cluster, b"\0")
                    if host
                    else (b"\xff" if entry & 1 else b"\0") * cluster
                )
            found: list[tuple[int, int]] = []
            for bit in range((size + (1 << shift) - 1) >> shift):
                if raw[bit >> 3] >> (bit & 7) & 1:
                    low, high = bit << shift, min(size, (bit + 1) << shift)
                    if found and found[-1][1] == low:
                        found[-1] = (found[-1][0], high)
                    else:
                        found.append((low, high))
            return found
        place += (24 + extra + name_size + 7) // 8 * 8
    return "not there"


def dirty(which: str) -> object:
    return lambda folder, name: _dirty(folder / name, which)


def image(arena: Arena, options: str = "") -> Arena:
    return arena.setup(
        f"create -q -f qcow2 {options} a 10M",
        "bitmap --add -g 64k a one",
        ["qemu-io", "a", "-c", "write -P 1 0 100k", "-c", "write -P 2 5M 1M"],
        "bitmap --add -g 512 a two",
        ["qemu-io", "a", "-c", "write -P 3 1M 1k", "-c", "write -z 7M 64k"],
        "bitmap --add --disable -g 1M a three",
        ["qemu-io", "a", "-c", "write -P 3 9M 1k"],
    )


LOOKS = [(state, "a"), *((dirty(which), "a") for which in ("one", "two", "three", "new"))]


def test_single_actions(arena: Arena) -> None:
    image(arena)
    names = ("one", "two", "three", "new", "")
    actions = ("--add", "--remove", "--clear", "--enable", "--disable", "--merge one", "--merge three", "--merge nope")
    trials = [["bitmap", *action.split(), "a", name] for action, name in itertools.product(actions, names)]
    campaign(arena, trials, *LOOKS)


SEQUENCES = """
bitmap --add --disable a new
bitmap --disable --add a new
bitmap --add --merge one a new
bitmap --add --merge one --merge two --disable a new
bitmap --add -g 2M --merge two a new
bitmap --add -g 4k --merge three --merge one a new
bitmap --add --merge one --clear a new
bitmap --remove --add a one
bitmap --remove --add --merge two --clear --enable a one
bitmap --add --remove a new
bitmap --add --add a new
bitmap --remove --remove a one
bitmap --enable --enable a three
bitmap --disable --enable --disable a one
bitmap --merge one --merge one a two
bitmap --clear --merge nope --disable a one
bitmap --merge two a one
bitmap --merge one a three
"""


def test_sequences(arena: Arena) -> None:
    """Actions run in the order given, and stop at the first that fails."""
    image(arena)
    campaign(arena, lines(SEQUENCES), *LOOKS)


def test_granularities(arena: Arena) -> None:
    image(arena)
    sizes = (
        "512",
        "1k",
        "4k",
        "64k",
        "1M",
        "2G",
        "4G",
        "256",
        "1000",
        "1",
        "0",
        "x",
        "-1",
        "",
        "64K",
        "0x10000",
        "1.5k",
        "8E",
    )
    campaign(arena, [["bitmap", "--add", "-g", size, "a", "new"] for size in sizes], *LOOKS)


@pytest.mark.parametrize(
    "options",
    ["-o cluster_size=512", "-o cluster_size=2M", "-o extended_l2=on", "-o data_file=d", "-o refcount_bits=1"],
)
def test_kinds(arena: Arena, options: str) -> None:
    """The default granularity goes by the cluster size; and writes keep bitmaps true."""
    image(arena, options)
    campaign(
        arena,
        lines("bitmap --add a new\nbitmap --add --merge one a new\nbitmap --clear a two\nbitmap --remove a one"),
        *LOOKS,
    )


def test_merge_from_another_file(arena: Arena) -> None:
    image(arena).setup(
        "create -q -f qcow2 s 10M", "bitmap --add s src", ["qemu-io", "s", "-c", "write -P 1 2M 1M"],
        "create -q -f qcow2 larger 20M", "bitmap --add larger src",
        "create -q -f qcow2 -b a -F qcow2 over", "bitmap --add over x", "create -q -f raw r 10M",
        "create -q -f qcow2 -o compat=v2 v2 10M",
    )  # fmt: skip
    trials = """
    bitmap -b s -F qcow2 --merge src a one
    bitmap -b s --merge src a one
    bitmap --source-file s --source-format qcow2 --merge src a three
    bitmap -b s -F qcow2 --add --merge src a new
    bitmap -b s -F qcow2 --merge nope a one
    bitmap -b s -F qcow2 --merge src --merge nope a one
    bitmap -b larger -F qcow2 --merge src a one
    bitmap -b nope -F qcow2 --merge src a one
    bitmap -b s -F nope --merge src a one
    bitmap -b s -F raw --merge src a one
    bitmap -b r -F raw --merge src a one
    bitmap -b v2 -F qcow2 --merge src a one
    bitmap -b a -F qcow2 --merge one over x
    bitmap -b a -F qcow2 --merge one a two
    bitmap --merge one over x
    """
    campaign(arena, lines(trials), *LOOKS, (state, "over"), mask=["block"])


def test_names(arena: Arena) -> None:
    arena.setup("create -q -f qcow2 a 1M")
    names = ["x", "x" * 1023, "x" * 1024, "ünï", "a b", "a,b", "-x", ""]
    campaign(arena, [["bitmap", "--add", "--", "a", name] for name in names], (state, "a"), mask=["block"])


def test_in_use(arena: Arena) -> None:
    """A bitmap that was not stored properly can only be removed."""
    image(arena)
    data = (arena.dir / "a").read_bytes()
    at = data.index(struct.pack(">I", 0x23852875), 104)
    place = struct.unpack_from(">Q", data, at + 8 + 16)[0]
    changed = bytearray(data)
    struct.pack_into(">I", changed, place + 12, struct.unpack_from(">I", data, place + 12)[0] | 1)
    (arena.dir / "a").write_bytes(changed)
    trials = [["bitmap", f"--{action}", "a", "one"] for action in ("add", "clear", "enable", "disable", "remove")]
    trials += lines("bitmap --merge one a two\nbitmap --merge two a one\nbitmap --add a new")
    campaign(arena, trials, *LOOKS)


ARGUMENTS = """
bitmap
bitmap a
bitmap a one
bitmap --add a
bitmap --add a one two
bitmap --add nope one
bitmap -g 1M --clear a one
bitmap --granularity=1M --remove a one
bitmap -b a --clear a one
bitmap -F qcow2 --merge x a one
bitmap --add -f nope a new
bitmap --add --image-opts -f qcow2 a new
bitmap --add --image-opts driver=qcow2,file.filename=a new
bitmap --add --image-opts driver=qcow2,file.filename=nope new
bitmap --add -q a new
bitmap --merge
bitmap --bogus a one
bitmap --add r b
bitmap --add -f raw r b
bitmap --clear -f raw r b
bitmap --remove -f raw r b
bitmap --merge x -f raw r b
bitmap --add v2 b
bitmap --remove v2 b
bitmap --add v b
bitmap --add gone x
"""


def test_arguments(arena: Arena) -> None:
    image(arena).setup(
        "create -q -f raw r 1M", "create -q -f qcow2 -o compat=v2 v2 1M", "create -q -f vmdk v 1M",
        "create -q -f qcow2 -b a -F qcow2 gone", "rebase -u -b nope -F qcow2 gone",
    )  # fmt: skip
    campaign(arena, lines(ARGUMENTS), *LOOKS, (state, "v2"), (info_of, "gone"), mask=["block"])


def test_api(arena: Arena) -> None:
    image(arena)
    path = str(arena.dir / "a")
    bitmap(path, "new", ["add", ("merge", "one"), "disable"], granularity=4096)
    assert [(item.name, item.granularity, item.flags) for item in bitmap_list(path)] == [
        ("one", 65536, ["auto"]), ("two", 512, ["auto"]), ("three", 1 << 20, []), ("new", 4096, []),
    ]  # fmt: skip
    facts = json.loads(judges.qemu_img("info", "--output=json", path))["format-specific"]["data"]["bitmaps"]
    assert [item["name"] for item in facts] == ["one", "two", "three", "new"]
    assert _dirty(arena.dir / "a", "new") == _dirty(arena.dir / "a", "one")
    with pytest.raises(CowshedError, match="Operation clear on bitmap nope failed: Dirty bitmap 'nope' not found"):
        bitmap(path, "nope", ["clear"])
    with pytest.raises(UsageError, match="no bitmap action 'explode'"):
        bitmap(path, "one", ["explode"])
    with pytest.raises(OpenError):
        bitmap(path, "one", [("merge", "x")], source=str(arena.dir / "nope"))
