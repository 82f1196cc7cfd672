"""A full disk in the middle of every writing command, beside the real tool on the same full disk.

Ours says so and exits with 1; sources and backing files are as before; an image that was there before still has its
old disk and is not corrupt; a new target is left behind or gone as the real tool does it.
"""

from __future__ import annotations

import hashlib
import os
import shlex
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import judges
from cowshed.errors import CowshedError, NoSpaceError
from differential import Arena
from layouts import content, make, opened

SIZE = 4 << 20
FULL = "No space left on device"


class Tiny:
    """A file system of SIZE bytes at ``dir``; ``big``: a directory beside it with room."""

    def __init__(self, directory: Path, big: Path) -> None:
        self.dir = directory
        self.big = big

    def clear(self) -> None:
        for path in self.dir.iterdir():
            path.unlink()

    def squeeze(self, free: int | None) -> None:
        """Fill it up to ``free`` bytes; None: the filler goes away."""
        filler = self.dir / "filler"
        filler.unlink(missing_ok=True)
        if free is None:
            return
        facts = os.statvfs(self.dir)
        taken = facts.f_bavail * facts.f_bsize - free
        if taken > 0:
            with open(filler, "wb") as file:
                os.posix_fallocate(file.fileno(), 0, taken)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Tiny]:
    directory, big = tmp_path_factory.mktemp("tiny"), tmp_path_factory.mktemp("big")
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={SIZE}", "none", directory], capture_output=True)
    if mounted.returncode:
        pytest.skip("mounting a small tmpfs needs root")
    try:
        judges.need("qemu-img")
        (big / "source.raw").write_bytes(content(1, 8 << 20))
        judges.qemu_img("convert", "-f", "raw", "-O", "qcow2", big / "source.raw", big / "source.qcow2")
        yield Tiny(directory, big)
    finally:
        subprocess.run(["umount", "-l", directory], check=True)
        shutil.rmtree(big)


# -- what is there before ----------------------------------------------------------------------------------------------


def nothing(tiny: Tiny) -> None:
    pass


def image(options: str = "", size: str = "16M", *commands: str) -> Callable[[Tiny], None]:
    def prepare(tiny: Tiny) -> None:
        judges.qemu_img("create", "-q", "-f", "qcow2", *(["-o", options] if options else []), tiny.dir / "x", size)
        judges.qemu_io(tiny.dir / "x", *(commands or ("write -q -P 3 0 300k", "write -q -z 1M 64k")), fmt="qcow2")

    return prepare


def overlay(tiny: Tiny) -> None:
    backing = tiny.big / "source.raw"
    judges.qemu_img("create", "-q", "-f", "qcow2", "-b", backing, "-F", "raw", tiny.dir / "x")
    judges.qemu_io(tiny.dir / "x", "write -q -P 3 0 300k", fmt="qcow2")


def below(tiny: Tiny) -> None:
    image()(tiny)
    top = tiny.big / "top.qcow2"
    judges.qemu_img("create", "-q", "-f", "qcow2", "-b", tiny.dir / "x", "-F", "qcow2", top)
    judges.qemu_io(top, "write -q -P 4 100k 8M", fmt="qcow2")


def snapshotted(tiny: Tiny) -> None:
    image()(tiny)
    judges.qemu_img("snapshot", "-c", "old", tiny.dir / "x")
    judges.qemu_io(tiny.dir / "x", "write -q -P 5 100k 1M", fmt="qcow2")


def marked(tiny: Tiny) -> None:
    image()(tiny)
    judges.qemu_img("bitmap", "--add", tiny.dir / "x", "b")
    judges.qemu_io(tiny.dir / "x", "write -q -P 5 100k 64k", fmt="qcow2")


def leaky(tiny: Tiny) -> None:
    """Refcounts gone: a repair must write new ones."""
    image("cluster_size=4k")(tiny)
    with open(tiny.dir / "x", "r+b") as file:
        file.seek(48)
        table = int.from_bytes(file.read(8), "big")
        file.seek(table)
        file.write(bytes(8))


class Scenario:
    """``argv``: a command line in which {tiny} and {big} stand for the directories, the target being {tiny}/x.

    ``free``: how many bytes are left when it starts, one trial each. ``text``: the real tool's words are expected (it
    has others for its own steps where ours are different ones, and says of each failed request what -W made of it).
    ``partial``: the image that was there may be half changed (its clusters are the target of the copy).
    """

    def __init__(
        self, argv: str, prepare: Callable[[Tiny], None], *free: int, text: bool = True, partial: bool = False
    ) -> None:
        self.argv = argv
        self.prepare = prepare
        self.free = free
        self.text = text
        self.partial = partial


HALF = 2 << 20
SCENARIOS = [
    Scenario("convert -f raw -O raw {big}/source.raw {tiny}/x", nothing, HALF, 0),
    Scenario("convert -f raw -O qcow2 {big}/source.raw {tiny}/x", nothing, HALF, 0, 65536, 200_000),
    Scenario("convert -f raw -c -O qcow2 {big}/source.raw {tiny}/x", nothing, HALF, 0),
    Scenario("convert -f raw -W -m 4 -O qcow2 {big}/source.raw {tiny}/x", nothing, HALF, text=False),
    Scenario("convert -f raw -O vmdk {big}/source.raw {tiny}/x", nothing, HALF),
    Scenario("convert -n -f raw -O qcow2 {big}/source.raw {tiny}/x", image(), 1 << 20, 0, partial=True),
    Scenario("create -f raw -o preallocation=full {tiny}/x 8M", nothing, HALF, 0),
    Scenario("create -f raw -o preallocation=falloc {tiny}/x 8M", nothing, HALF, 0),
    Scenario("create -f qcow2 -o preallocation=full {tiny}/x 8M", nothing, HALF),
    Scenario("create -f qcow2 -o preallocation=falloc {tiny}/x 8M", nothing, HALF),
    Scenario("create -f qcow2 -o preallocation=metadata,cluster_size=512 {tiny}/x 200M", nothing, HALF),
    Scenario("create -f qcow2 {tiny}/x 8M", nothing, 0, 4096, 65536, 70_000, 140_000),
    Scenario("commit -f qcow2 {big}/top.qcow2", below, 0, 1 << 20, partial=True),
    Scenario("rebase -f qcow2 -b '' {tiny}/x", overlay, 0, 1 << 20),
    Scenario("snapshot -c new {tiny}/x", image(), 0, 4096, 65536, 131072, 200_000, 1 << 19),
    Scenario("snapshot -a old {tiny}/x", snapshotted, 0, 4096, 65536, 131072, 200_000, 1 << 19),
    Scenario("snapshot -d old {tiny}/x", snapshotted, 0, 4096, 65536, 131072, 200_000, 1 << 19),
    Scenario("resize -f qcow2 --preallocation=full {tiny}/x +8M", image(), 0, 1 << 20, text=False),
    Scenario("resize -f qcow2 --preallocation=falloc {tiny}/x +8M", image(), 0, 1 << 20, text=False),
    Scenario("resize -f qcow2 {tiny}/x +2G", image("cluster_size=512"), 0, 1 << 15, 100_000, 200_000, text=False),
    Scenario("resize -f qcow2 --shrink {tiny}/x 100k", image(), 0),
    Scenario("amend -f qcow2 -o refcount_bits=64 {tiny}/x", image(), 0, 65536, 200_000, text=False),
    Scenario("amend -f qcow2 -o compat=0.10 {tiny}/x", image(), 0, 65536, 1 << 19),
    Scenario("bitmap --add {tiny}/x b", image(), 0, 4096, 65536, 200_000, text=False),
    Scenario("bitmap --add --merge b {tiny}/x c", marked, 0, 4096, 65536, 200_000, text=False),
    Scenario("bitmap --clear {tiny}/x b", marked, 0),
    Scenario("dd if={big}/source.raw of={tiny}/x bs=64k", nothing, 1 << 20),
    Scenario("dd -O qcow2 if={big}/source.raw of={tiny}/x bs=64k", nothing, 1 << 20, 0),
    Scenario("check -f qcow2 -r all {tiny}/x", leaky, 0, 4096, 8192, text=False),
]


def trace(path: Path) -> object:
    """What tells whether a file was written to."""
    facts = path.stat()
    if path.name == "top.qcow2":  # opened for writing
        return hashlib.sha256(path.read_bytes()).digest()
    return facts.st_size, facts.st_mtime_ns, facts.st_ino


def disk(tiny: Tiny, out: str) -> Path:
    judges.qemu_img("convert", "-U", "-f", "qcow2", "-O", "raw", tiny.dir / "x", tiny.big / out)
    return tiny.big / out


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: scenario.argv.replace("/", " ").replace("{", ""))
def test_full_disk(tmp_path: Path, figures: Any, tiny: Tiny, scenario: Scenario) -> None:
    arena = Arena(tmp_path, figures)
    argv = shlex.split(scenario.argv.format(tiny=tiny.dir, big=tiny.big))
    target = tiny.dir / "x"
    refused = 0
    for free in scenario.free:
        left: list[bool] = []
        checks: list[int | None] = []
        outcomes = []
        for real in (True, False):
            tiny.clear()
            scenario.prepare(tiny)
            there = target.exists()
            before = disk(tiny, "before.raw") if there else None
            others = {path: trace(path) for path in tiny.big.iterdir() if path.is_file()}
            tiny.squeeze(free)
            if real:
                outcome = arena._process([arena.qemu_img], argv, tiny.big, False, [], dict(os.environ))
            else:
                outcome = arena._in_process(argv, tiny.big, False, [], {})
            tiny.squeeze(None)
            outcomes.append(outcome)
            left.append(target.exists())
            checks.append(judges.run("qemu-img", "check", target, ok=range(256)).returncode if left[-1] else None)
            if real:
                continue
            said = f"{free} bytes free: {outcome.text()}"
            for path, old in others.items():
                if path.name != "top.qcow2" or outcome.code:
                    assert trace(path) == old, f"{path.name} has changed; {said}"
            assert "internal error" not in outcome.stderr and "Traceback" not in outcome.stderr, said
            if outcome.code:
                refused += 1
                assert outcome.code == 1, said
                assert FULL in outcome.stderr, said
                assert outcome.stdout.startswith("Formatting") or not outcome.stdout, said
            if before is not None:
                assert target.exists(), said
                done = judges.run("qemu-img", "check", "-f", "qcow2", target, ok=range(256))
                # a repair that failed leaves what was broken
                assert done.returncode in (0, 3) or "check -f" in scenario.argv, f"{said}{done.stdout}{done.stderr}"
                if outcome.code and not scenario.partial:
                    judges.run("qemu-img", "compare", "-f", "qcow2", "-F", "raw", target, before)
                elif outcome.code == 0:
                    assert done.returncode == 0, f"{said}{done.stdout}{done.stderr}"
        real_outcome, our_outcome = outcomes
        if real_outcome.code == 0 and "Lost persistent bitmaps" not in real_outcome.stderr:
            continue  # (ours may need room for a moment where the real tool changes things in place)
        if our_outcome.code == 0:
            assert FULL not in our_outcome.stderr
            continue
        if scenario.text:
            assert our_outcome.stderr == real_outcome.stderr
        if checks[0] in (0, 3) and left[1]:  # a new image is as sound as the real tool's
            assert checks[1] is not None and checks[1] <= checks[0], f"{free} bytes free: check says {checks}"
        # a raw file that could not be made is gone with us, and empty with the real tool
        assert left[0] == left[1] or "create -f raw" in scenario.argv, f"{free} bytes free: left behind {left}"
    tiny.clear()
    assert refused or "--shrink" in scenario.argv or "--clear" in scenario.argv, "never too full"
    figures.add("full disk: commands judged", len(scenario.free))


# -- below the commands ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("options", ["", "cluster_size=4k", "extended_l2=on", "lazy_refcounts=on", "compat=0.10"])
def test_writing_until_it_is_full(tiny: Tiny, options: str) -> None:
    """A failed write says so and changes nothing; what was flushed is there; with room again everything goes on."""
    tiny.clear()
    path = tiny.dir / "x"
    make(path, dict(item.split("=") for item in options.split(",") if item), 16 << 20)
    model = bytearray(16 << 20)
    step = 48_000
    tiny.squeeze(1 << 20)
    with opened(path, writable=True) as node:
        with pytest.raises(NoSpaceError):
            for offset in range(0, 16 << 20, 3 * step):
                data = content(offset, step)
                node.write(offset, data)
                node.flush()
                model[offset : offset + step] = data
        assert node.read(0, 4 << 20) == model[: 4 << 20]
        # still full: nothing of what was there is harmed by trying again
        for _ in range(3):
            with pytest.raises(NoSpaceError):
                node.write(8 << 20, content(7, 1 << 20))
                node.flush()
        assert node.read(0, 4 << 20) == model[: 4 << 20]
        tiny.squeeze(None)
        data = content(8, 1 << 20)
        node.write(8 << 20, data)
        model[8 << 20 : 9 << 20] = data
        node.flush()
    done = judges.run("qemu-img", "check", "-f", "qcow2", path, ok=range(256))
    assert done.returncode in (0, 3), done.stdout + done.stderr
    with opened(path) as node:
        got = node.read(0, node.size)
    assert got == model
    tiny.clear()


@pytest.mark.parametrize("free", [0, 4096, 12288, 40960, 100_000])
def test_closing_on_a_full_disk(tiny: Tiny, free: int) -> None:
    """Metadata that can't be written when the image is closed: an error, and the image is as at the last flush."""
    tiny.clear()
    path = tiny.dir / "x"
    make(path, {"cluster_size": 4096}, 16 << 20)
    with opened(path, writable=True) as node:
        node.write(0, b"\x11" * 100_000)
    node = opened(path, writable=True)
    tiny.squeeze(free)
    failed = False
    try:
        for offset in range(1 << 20, 16 << 20, 3 << 20):
            node.write(offset, b"\x22" * 4096)
        node.close()
    except CowshedError as error:
        failed = True
        assert isinstance(error, NoSpaceError), error
        try:
            node.close()
        except NoSpaceError:
            pass
    assert failed or free >= 40960
    tiny.squeeze(None)
    done = judges.run("qemu-img", "check", "-f", "qcow2", path, ok=range(256))
    assert done.returncode in (0, 3), done.stdout + done.stderr
    judges.qemu_io(path, "read -q -P 17 0 100000", fmt="qcow2")
    tiny.clear()
