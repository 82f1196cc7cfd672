"""``qemu-img commit``: what goes down the chain, what stays, judged by the real tool layer by layer."""

from __future__ import annotations

from pathlib import Path

import pytest

import judges
from cowshed.errors import CowshedError, NoSpaceError, UsageError
from cowshed.ops.commit import commit
from differential import Arena
from verbs import alike, arena, campaign, check_of, guest_of, info_of, layer_of, lines, small_disk

__all__ = ["arena", "small_disk"]  # fixtures

PROGRESS = (r"(?s) +\(0\.00/100%\)\r.*\(100\.00/100%\)\r\n", "PROGRESS\n")


def chain(arena: Arena, base: str = "-f qcow2", top: str = "", sizes: tuple[str, ...] = ("10M", "10M", "10M")) -> Arena:
    fmt = "raw" if "raw" in base else "qcow2"
    return arena.setup(
        f"create -q {base} base {sizes[0]}",
        ["qemu-io", "-f", fmt, "base", "-c", "write -P 1 0 4M"],
        f"create -q -f qcow2 {top} -b base -F {fmt} mid {sizes[1]}",
        ["qemu-io", "mid", "-c", "write -P 2 1M 100k", "-c", "write -z 2M 1M", "-c", "write -P 3 6M 1M"],
        f"create -q -f qcow2 {top} -b mid -F qcow2 top {sizes[2]}",
        ["qemu-io", "top", "-c", "write -P 4 1M 64k", "-c", "write -P 5 7M 300k", "-c", "write -z 3M 64k"],
    )


def state(folder: Path, name: str) -> object:
    fmt = "raw" if name == "base" and info_of(folder, name).splitlines()[1] == "file format: raw" else "qcow2"
    sound = check_of(folder, name)[0]
    assert sound in (0, 63), (name, sound)
    return info_of(folder, name), guest_of(folder, name, fmt)


LOOKS = [(state, "base"), (state, "mid"), (state, "top")]
LAYERS = [(layer_of, "base"), (layer_of, "mid"), (layer_of, "top")]


def test_commands(arena: Arena) -> None:
    chain(arena)
    trials = lines(
        """
        commit mid
        commit top
        commit -d top
        commit -q top
        commit -b base top
        commit -b mid top
        commit -b mid -d top
        commit -b ./base top
        commit -b nope top
        commit -b top top
        commit -b '' top
        commit -f qcow2 top
        commit -t none top
        commit -t unsafe top
        commit -r 1G top
        commit -r 0 top
        commit base
        commit -b base base
        commit --image-opts driver=qcow2,file.filename=top
        commit -b base -b mid top
        """
    )
    campaign(arena, trials, *LOOKS, *LAYERS)
    for argv in (["-p", "top"], ["-p", "-b", "base", "top"], ["-p", "-d", "mid"]):
        alike(arena, ["commit", *argv], *LOOKS, mask=[PROGRESS])


@pytest.mark.parametrize(
    "base",
    [
        "-f raw",
        "-f qcow2 -o compat=v2",
        "-f qcow2 -o cluster_size=512",
        "-f qcow2 -o extended_l2=on",
        "-f qcow2 -o data_file=d",
        "-f qcow2 -o cluster_size=2M",
    ],
)
def test_bases(arena: Arena, base: str) -> None:
    chain(arena, base)
    campaign(arena, [["commit", "mid"], ["commit", "-b", "base", "top"]], *LOOKS)


@pytest.mark.parametrize(
    "top",
    [
        "-o compat=v2",
        "-o cluster_size=512",
        "-o extended_l2=on",
        "-o data_file=e",
        "-o refcount_bits=1",
        "-o lazy_refcounts=on",
    ],
)
def test_overlays(arena: Arena, top: str) -> None:
    if "data_file" in top:
        arena.setup(
            "create -q -f qcow2 base 10M",
            f"create -q -f qcow2 {top} -b base -F qcow2 mid",
            ["qemu-io", "mid", "-c", "write -P 2 1M 100k"],
        )
        campaign(arena, [["commit", "mid"]], *LOOKS[:2])
        return
    chain(arena, top=top)
    campaign(arena, [["commit", "mid"], ["commit", "top"], ["commit", "-b", "base", "top"]], *LOOKS)


@pytest.mark.parametrize(
    "sizes",
    [
        ("8M", "10M", "12M"),
        ("12M", "10M", "8M"),
        ("10M", "8M", "10M"),
        ("8M", "12M", "10M"),
        ("9999k", "10001k", "11111k"),
    ],
)
def test_sizes(arena: Arena, sizes: tuple[str, ...]) -> None:
    """Bases that grow, and layers whose end hides or shows what is below."""
    chain(arena, sizes=sizes)
    campaign(arena, [["commit", "mid"], ["commit", "top"], ["commit", "-b", "base", "top"]], *LOOKS)


def test_snapshots_and_bitmaps(arena: Arena) -> None:
    chain(arena).setup("snapshot -c s mid", "bitmap --add top b", "bitmap --add base c")
    looks = [
        ((lambda folder, name: (guest_of(folder, name), check_of(folder, name)[0])), name)
        for name in ("base", "mid", "top")
    ]
    campaign(arena, [["commit", "mid"], ["commit", "top"], ["commit", "-b", "base", "top"]], *looks)


def test_directories(arena: Arena) -> None:
    """The base's name is looked for as the chain sees it, from the directory of each layer."""
    chain(arena)
    (arena.dir / "sub").mkdir()
    arena.setup("create -q -f qcow2 -b ../top -F qcow2 sub/over", ["qemu-io", "sub/over", "-c", "write -P 9 0 1M"])
    (arena.dir / "link").symlink_to("base")
    bases = ["../top", "top", "../mid", "mid", "../base", "base", "sub/../top", "../link", "link", "../sub/../base"]
    campaign(
        arena,
        [["commit", *(["-b", base] if base else []), "sub/over"] for base in [*bases, ""]],
        *LOOKS,
        (state, "sub/over"),
    )


def test_json_backing_file(arena: Arena) -> None:
    chain(arena)
    name = 'json:{"driver":"qcow2","file":{"driver":"file","filename":"base"}}'
    arena.setup(["rebase", "-u", "-b", name, "-F", "qcow2", "mid"])
    campaign(arena, [["commit", *argv] for argv in (["mid"], ["-b", name, "top"], ["-b", "base", "top"])], *LOOKS)


def test_arguments(arena: Arena) -> None:
    chain(arena).setup(
        "create -q -f raw r 1M", "create -q -f qcow2 -b base -F qcow2 gone", "rebase -u -b nope -F qcow2 gone"
    )
    trials = lines(
        """
        commit
        commit a b
        commit nope
        commit gone
        commit -r x top
        commit -r -1 top
        commit -t foo top
        commit -f raw r
        commit r
        commit -f nope top
        commit -p nope
        commit -p base
        commit -p -b nope top
        commit --image-opts -f qcow2 top
        commit -U top
        commit --image-opts driver=qcow2,file.filename=nope
        commit -o x top
        """
    )
    campaign(arena, trials)


def test_as_a_process(arena: Arena) -> None:
    chain(arena)
    for argv in (["commit", "top"], ["commit", "base"]):
        arena.check(*argv, link=True, merged=True, changes=True)


def test_read_only_base(arena: Arena) -> None:
    chain(arena).setup("create -q -f raw data 1M")
    campaign(arena, [["commit", "--image-opts", "driver=qcow2,file.filename=mid,read-only=on"]], *LOOKS)


def test_locked_base(arena: Arena) -> None:
    """Another process that uses the base keeps it from being written."""
    import subprocess

    chain(arena)
    other = subprocess.Popen(
        [judges.need("qemu-io"), "-r", "base"], cwd=arena.dir, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    try:
        assert other.stdout is not None
        other.stdout.read(1)
        arena.check("commit", "mid", code=1)
    finally:
        other.communicate()


def test_full_disk(arena: Arena, small_disk: Path) -> None:
    """The base does not fit: an error, and the overlay is whole."""
    base = small_disk / "base"
    over = small_disk.parent / "over"
    judges.run("qemu-img", "create", "-q", "-f", "qcow2", base, "10M")
    judges.run("qemu-img", "create", "-q", "-f", "qcow2", "-b", base, "-F", "qcow2", over)
    judges.qemu_io(over, "write -P 3 0 8M")
    before = guest_of(over.parent, "over")
    with pytest.raises(NoSpaceError, match="Block job failed: No space left on device"):
        commit(str(over))
    assert guest_of(over.parent, "over") == before
    assert check_of(over.parent, "over")[0] == 0
    assert check_of(small_disk, "base")[0] in (0, 3)


def test_api(arena: Arena) -> None:
    chain(arena)
    seen = []

    from cowshed.progress import Progress

    before = guest_of(arena.dir, "top")
    commit(str(arena.dir / "top"), "base", progress=Progress("commit", lambda progress: seen.append(progress.fraction)))
    assert guest_of(arena.dir, "top") == before == guest_of(arena.dir, "base")
    assert seen == sorted(seen) and seen[-1] == 1.0
    with pytest.raises(UsageError, match="does not have a backing file"):
        commit(str(arena.dir / "base"))
    with pytest.raises(CowshedError, match="Did not find 'x'"):
        commit(str(arena.dir / "top"), "x")
