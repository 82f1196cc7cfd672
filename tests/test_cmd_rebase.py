"""``qemu-img rebase``: the disk reads the same over its new backing file, and in the real tool's words."""

from __future__ import annotations

import itertools
import os
from pathlib import Path

import pytest

import judges
from cowshed.errors import CowshedError, NoSpaceError, OpenError, OptionError, UnsupportedError
from cowshed.ops.rebase import rebase
from cowshed.progress import Progress
from differential import Arena
from verbs import alike, arena, campaign, check_of, guest_of, info_of, layer_of, lines, small_disk

__all__ = ["arena", "small_disk"]  # fixtures

PROGRESS = (r"(?s) +\(0\.00/100%\)\r.*\(100\.00/100%\)\r\n", "PROGRESS\n")


def family(arena: Arena, over: str = "", size: str = "10M") -> Arena:
    return arena.setup(
        "create -q -f qcow2 base 10M",
        ["qemu-io", "base", "-c", "write -P 1 0 4M", "-c", "write -P 7 8M 100k"],
        "create -q -f qcow2 other 12M",
        ["qemu-io", "other", "-c", "write -P 1 0 2M", "-c", "write -P 2 2M 1M"],
        ["qemu-io", "other", "-c", "write -z 5M 64k", "-c", "write -P 7 8M 1k"],
        "create -q -f raw raw 5M",
        ["qemu-io", "-f", "raw", "raw", "-c", "write -P 1 0 1M", "-c", "write -P 9 4M 1M"],
        "convert -c -O qcow2 base packed",
        f"create -q -f qcow2 {over} -b base -F qcow2 mid {size}",
        ["qemu-io", "mid", "-c", "write -P 5 1M 100k", "-c", "write -z 2500k 70k"],
        f"create -q -f qcow2 {over} -b mid -F qcow2 over {size}",
        ["qemu-io", "over", "-c", "write -P 6 1100k 64k", "-c", "write -z 3M 64k"],
    )  # fmt: skip


def state(folder: Path, name: str) -> object:
    assert check_of(folder, name)[0] == 0
    return info_of(folder, name), guest_of(folder, name)


COMMANDS = """
rebase -b other -F qcow2 mid
rebase -b other -F qcow2 over
rebase -b base -F qcow2 over
rebase -b base -F qcow2 mid
rebase -b mid -F qcow2 over
rebase -b packed -F qcow2 over
rebase -b raw -F raw over
rebase -b raw -F raw mid
rebase -b other -F raw over
rebase -b '' over
rebase -b '' -F qcow2 over
rebase -q -b other -F qcow2 over
rebase -U -b other -F qcow2 over
rebase -f qcow2 -t none -T none -b other -F qcow2 over
rebase -t unsafe -T directsync -b other -F qcow2 over
rebase --image-opts -b other -F qcow2 driver=qcow2,file.filename=over
rebase -b file:other -F qcow2 over
rebase -b ./other -F qcow2 over
rebase -u -b base -F qcow2 over
rebase -u -b base -F raw over
rebase -u -b '' over
rebase -u over
rebase -u -F raw over
rebase -q -u -b base -F qcow2 over
"""


def test_commands(arena: Arena) -> None:
    family(arena)
    campaign(arena, lines(COMMANDS), (state, "over"), (state, "mid"), (layer_of, "over"), (layer_of, "mid"))
    for argv in lines("rebase -p -b other -F qcow2 over\nrebase -p -u -b base -F qcow2 over\nrebase -p -b '' mid"):
        alike(arena, argv, (state, "over"), (state, "mid"), mask=[PROGRESS])


@pytest.mark.parametrize(
    "over", ["compat=v2", "cluster_size=512", "cluster_size=2M", "extended_l2=on", "data_file=d", "lazy_refcounts=on"]
)
def test_kinds_of_overlay(arena: Arena, over: str) -> None:
    if "data_file" in over:
        arena.setup(
            "create -q -f qcow2 base 10M", ["qemu-io", "base", "-c", "write -P 1 0 4M"], "create -q -f qcow2 other 12M",
            f"create -q -f qcow2 -o {over} -b base -F qcow2 over", ["qemu-io", "over", "-c", "write -P 6 1100k 64k"],
        )  # fmt: skip
    else:
        family(arena, f"-o {over}")
    trials = ["rebase -b other -F qcow2 over", "rebase -b '' over", "rebase -u -b other -F qcow2 over"]
    campaign(arena, lines("\n".join(trials)), (state, "over"))


@pytest.mark.parametrize("size", ["2M", "9M", "11M", "15M", "9999k", "100k"])
def test_sizes(arena: Arena, size: str) -> None:
    """Overlays smaller and larger than the old and the new backing file."""
    family(arena, size="10M").setup("resize -q --shrink mid 9M")
    arena.setup(f"create -q -f qcow2 -b base -F qcow2 a {size}", f"create -q -f qcow2 -b mid -F qcow2 b {size}")
    news = ("other -F qcow2", "mid -F qcow2", "base -F qcow2", "raw -F raw", "''")
    trials = lines("\n".join(f"rebase -b {new} {name}" for new, name in itertools.product(news, "ab")))
    campaign(arena, trials, (state, "a"), (state, "b"))


def test_no_backing_file_before(arena: Arena) -> None:
    family(arena).setup("create -q -f qcow2 alone 10M", ["qemu-io", "alone", "-c", "write -P 3 1M 64k"])
    trials = """
    rebase -b base -F qcow2 alone
    rebase -b over -F qcow2 alone
    rebase -b '' alone
    rebase -u -b base -F qcow2 alone
    """
    campaign(arena, lines(trials), (state, "alone"))


def test_directories(arena: Arena) -> None:
    family(arena)
    (arena.dir / "sub").mkdir()
    arena.setup("create -q -f qcow2 -b ../base -F qcow2 sub/x", ["qemu-io", "sub/x", "-c", "write -P 3 1M 64k"])
    names = ["../other", "other", "sub/x", f"{arena.dir}/other", "./../other", "../nope", "x"]
    trials = [["rebase", *way, "-b", name, "-F", "qcow2", "sub/x"] for name in names for way in ([], ["-u"])]
    trials = [argv for argv in trials if argv != ["rebase", "-u", "-b", "x", "-F", "qcow2", "sub/x"]]
    campaign(arena, trials, (info_of, "sub/x"))


def test_long_names(arena: Arena) -> None:
    arena.setup(
        "create -q -f qcow2 a 1M", "create -q -f qcow2 -o cluster_size=512 b 1M", "create -q -f qcow2 -o compat=v2 c 1M"
    )
    trials = [
        ["rebase", "-u", "-b", "x" * length, "-F", "raw", name]
        for name, length in itertools.product("abc", (1, 100, 300, 500, 1000, 1023, 1024, 5000))
    ]
    for name in "abc":
        campaign(arena, [argv for argv in trials if argv[-1] == name], (info_of, name))


ARGUMENTS = """
rebase
rebase over
rebase -b other
rebase -b other -F qcow2 a b
rebase -b other over
rebase -u -b other over
rebase -b nope over
rebase -b nope -F qcow2 over
rebase -u -b nope over
rebase -b other -F nope over
rebase -u -b other -F nope over
rebase -b other -F nope nope
rebase -b other -F qcow2 nope
rebase -u -b other -F qcow2 nope
rebase -b other -F qcow2 gone
rebase -u -b other -F qcow2 gone
rebase -b over -F qcow2 over
rebase -b over -F qcow2 mid
rebase -t foo -b other over
rebase -T foo -b other over
rebase -f nope -b other -F qcow2 over
rebase -b x -F qcow2 raw
rebase -f raw -b x -F qcow2 raw
rebase -f raw -b other -F qcow2 raw
rebase -u -f raw -b x -F qcow2 raw
rebase -u -b "" raw
rebase -u -b x -F vmdk v
rebase -b '' v
rebase -u -b v -F raw v
rebase -b base -F qcow2 external
rebase -u -b base -F qcow2 external
rebase -p -b nope -F qcow2 over
rebase -p -u -b nope over
rebase -p -b x -F qcow2 nope
rebase --image-opts -f qcow2 -b other -F qcow2 over
rebase -c -b other -F qcow2 over
rebase -b . -F raw over
rebase -b nosuch:x -F raw over
rebase -b nosuch:x -F raw -u over
"""


def test_arguments(arena: Arena) -> None:
    family(arena).setup(
        "create -q -f vmdk v 1M", "create -q -f qcow2 -b base -F qcow2 gone", "rebase -u -b nope -F qcow2 gone",
        "create -q -f qcow2 -o data_file=d,data_file_raw=on external 10M",
    )  # fmt: skip
    campaign(arena, lines(ARGUMENTS), (info_of, "over"), (info_of, "gone"))


def test_as_a_process(arena: Arena) -> None:
    family(arena)
    for argv in lines("rebase -b other -F qcow2 over\nrebase -b nope -F qcow2 over"):
        arena.check(*argv, link=True, merged=True, changes=True)


def test_full_disk(small_disk: Path) -> None:
    """What must be copied does not fit: an error, the old backing file, and the old content."""
    base, over = small_disk.parent / "base", small_disk / "over"
    judges.run("qemu-img", "create", "-q", "-f", "qcow2", base, "10M")
    judges.qemu_io(base, "write -P 3 0 8M")
    judges.run("qemu-img", "create", "-q", "-f", "qcow2", "-b", base, "-F", "qcow2", over)
    before = guest_of(small_disk.parent, "small/over")
    with pytest.raises(NoSpaceError, match="Error while writing to COW image: No space left on device"):
        rebase(str(over), None)
    assert info_of(small_disk, "over").count("backing file: ") == 1
    assert check_of(small_disk, "over")[0] in (0, 3)
    assert guest_of(small_disk.parent, "small/over") == before


def test_api(arena: Arena) -> None:
    family(arena)
    path = str(arena.dir / "over")
    before = guest_of(arena.dir, "over")
    seen: list[float] = []
    rebase(path, "other", backing_fmt="qcow2", progress=Progress("rebase", lambda work: seen.append(work.fraction)))
    assert guest_of(arena.dir, "over") == before
    assert seen == sorted(seen) and seen[0] == 0.0 and seen[-1] == 1.0
    rebase(path, None)
    for name in ("base", "mid", "other"):
        os.unlink(arena.dir / name)
    assert guest_of(arena.dir, "over") == before
    with pytest.raises(OptionError, match="Invalid format name"):
        rebase(path, "x", backing_fmt="nope", unsafe=True)
    with pytest.raises(CowshedError, match="must be specified"):
        rebase(path, "x", unsafe=True)
    with pytest.raises(OpenError, match="new backing file 'x'"):
        rebase(path, "x", backing_fmt="raw")
    with pytest.raises(UnsupportedError):
        rebase(str(arena.dir / "raw"), "x", backing_fmt="raw", unsafe=True, fmt="raw")


def test_unchanged_data_is_not_read(arena: Arena) -> None:
    """From one overlay of a base to another, what both have from the base is known to be the same by its place."""
    from cowshed.block.graph import open_image
    from cowshed.ops.rebase import _Rebase

    family(arena).setup("create -q -f qcow2 -b base -F qcow2 sibling", ["qemu-io", "sibling", "-c", "write -P 8 0 64k"])
    with open_image(str(arena.dir / "over"), writable=True) as node, open_image(str(arena.dir / "sibling")) as new:
        work = _Rebase(node, new, Progress())
        settled: list[tuple[int, int]] = []
        work._settle = lambda low, high: settled.append((low, high))  # type: ignore[method-assign]
        work.run()
    assert sum(high - low for low, high in settled) < 1 << 20
