"""Pools and volumes beside the real virsh on a libvirtd of its own: what is measured, and how.

Both sides have a pool of a directory on the same file system. `{new}` is a volume that is not there yet, deleted
after each run; `{down}` a file to write; `{sync}`: the new volume is synced, and that counts.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import measure
from cases import Case, Target

sys.path.append(str(Path(__file__).resolve().parent.parent / "tests"))

AHEAD = (Target("wall", 1.0),)


def _case(name: str, title: str, line: str, *, judge: str = "output", bound: str = "") -> Case:
    return Case(name, title, AHEAD, tuple(line.split()), kind="virsh", judge=judge, bound=bound)


_START = "Most of it is Python's start-up and the loading of modules."
_SYNC = (
    "The copy is written to the disk before it gets its name, so that a power cut leaves no volume that looks whole. "
    "libvirt does so for raw copies; for qcow2 it leaves the writing to the kernel."
)


POOL_CASES = [
    _case("vol-create-raw", "virsh vol-create-as, raw", "vol-create-as p {new} 1G --allocation 0", bound=_START),
    _case("vol-create-qcow2", "virsh vol-create-as, qcow2", "vol-create-as p {new} 1G --format qcow2", bound=_START),
    _case("vol-clone-raw", "virsh vol-clone of 1 GiB, raw", "vol-clone data {new} p", judge="content"),
    _case(
        "vol-clone-qcow2",
        "virsh vol-clone of 1 GiB, qcow2",
        "vol-clone data.qcow2 {new} p",
        judge="content",
        bound=_SYNC,
    ),
    _case(
        "vol-clone-qcow2-synced",
        "the same until it is on the disk (`sync FILE` after both)",
        "vol-clone data.qcow2 {new} p {sync}",
        judge="content",
    ),
    _case("vol-list", "virsh vol-list of 1000 volumes", "vol-list many"),
    _case("vol-list-details", "the same with --details", "vol-list many --details"),
    _case("vol-upload", "virsh vol-upload of 1 GiB", "vol-upload up {source} p", judge="content"),
    _case("vol-download", "virsh vol-download of 1 GiB", "vol-download data {down} p", judge="content"),
    _case("pool-list", "virsh pool-list", "pool-list --all"),
]


class Pools:
    """A libvirtd and our own pools below ``scratch``; use as a context manager."""

    def __init__(self, scratch: Path, runs: int, links: Path, source: Callable[[], Path]) -> None:
        from libvirtd import Libvirtd

        self.folder = scratch / "pools"
        shutil.rmtree(self.folder, ignore_errors=True)
        self.folder.mkdir(parents=True)
        self.runs = runs
        self.daemon = Libvirtd(self.folder / "libvirtd")
        self.source = self.folder / "source.raw"
        # a disk of 1 GiB that is full of somebody's files
        with open(source(), "rb") as file, open(self.source, "wb") as out:
            for _ in range(1024):
                out.write(file.read(1 << 20))
        self.log = self.folder / "output"
        self.sides: dict[str, list[str]] = {}
        self.places: dict[str, Path] = {}
        self.links = links

    def __enter__(self) -> Pools:
        self.daemon.__enter__()
        (self.folder / "root").mkdir()
        self.sides = {
            "ours": [str(self.links / "virsh"), "-c", f"cowshed:///?root={self.folder}/root"],
            "theirs": [self.daemon.virsh, "-c", self.daemon.uri],
        }
        for side in self.sides:
            self.places[side] = self.folder / side
            for pool in ("p", "many"):
                target = self.places[side] / pool
                target.mkdir(parents=True)
                self.virsh(side, "pool-define-as", pool, "dir", "--target", str(target))
                if pool == "many":
                    for number in range(1000):
                        with open(target / f"volume-{number:04}.raw", "wb") as file:
                            file.truncate(1 << 20)
                self.virsh(side, "pool-start", pool)
            for name, form in (("data", "raw"), ("data.qcow2", "qcow2"), ("up", "raw")):
                path = self.places[side] / "p" / name
                if name == "up":
                    with open(path, "wb") as file:
                        file.truncate(1 << 30)
                else:
                    subprocess.run(
                        ["qemu-img", "convert", "-S", "0", "-f", "raw", "-O", form, self.source, path], check=True
                    )
            self.virsh(side, "pool-refresh", "p")
        return self

    def __exit__(self, *args: object) -> None:
        self.daemon.__exit__()
        shutil.rmtree(self.folder, ignore_errors=True)

    def version(self) -> str:
        """The real virsh and its libvirtd."""
        done = subprocess.run([self.daemon.virsh, "--version"], capture_output=True, text=True)
        return f"virsh {done.stdout.strip()}, on a libvirtd of its own"

    def virsh(self, side: str, *argv: str) -> None:
        done = subprocess.run([*self.sides[side], *argv], capture_output=True, text=True)
        if done.returncode:
            raise measure.Failed(f"{side}: {' '.join(argv)}: {done.stdout}{done.stderr}")

    def once(self, case: Case, side: str) -> measure.Run:
        down = self.folder / f"down.{side}"
        down.unlink(missing_ok=True)
        words = {"{new}": "new", "{source}": str(self.source), "{down}": str(down)}
        argv = [*self.sides[side], *(words.get(word, word) for word in case.argv if word != "{sync}")]
        if "{sync}" in case.argv:
            argv = ["/bin/sh", "-c", '"$@" && exec sync "$0"', str(self.places[side] / "p" / "new"), *argv]
        os.sync()
        return measure.run(argv, self.log, case.expect)

    def tidy(self, case: Case, side: str) -> None:
        if "{new}" in case.argv:
            self.virsh(side, "vol-delete", "new", "p")

    def judge(self, case: Case, side: str) -> str:
        """What must be equal for both sides (or Failed): what was printed, or what was copied."""
        if case.judge != "content":
            return self.log.read_text(errors="replace").replace(str(self.places[side]), "@").replace(" ", "")
        pool = self.places[side] / "p"
        copy = pool / ("new" if "{new}" in case.argv else "up")
        if "{down}" in case.argv:
            copy = self.folder / f"down.{side}"
        form = "qcow2" if "qcow2" in case.name else "raw"
        argv = ["qemu-img", "compare", "-f", "raw", "-F", form, str(self.source), str(copy)]
        done = subprocess.run(argv, capture_output=True, text=True)
        if done.returncode:
            raise measure.Failed(f"{case.name}: {' '.join(argv)}: {done.stdout}{done.stderr}")
        return ""

    def pair(self, case: Case) -> tuple[list[measure.Run], list[measure.Run]]:
        """Runs of ours and of theirs, after one of each that is judged."""
        verdicts = []
        for side in self.sides:
            self.once(case, side)
            verdicts.append(self.judge(case, side))
            self.tidy(case, side)
        if verdicts[0].replace("-", "") != verdicts[1].replace("-", ""):
            raise measure.Failed(f"{case.name}: ours prints something else than virsh:\n{verdicts[0]}\n{verdicts[1]}")
        runs: dict[str, list[Any]] = {side: [] for side in self.sides}
        for _ in range(self.runs * case.repeat):
            for side, done in runs.items():
                done.append(self.once(case, side))
                self.tidy(case, side)
        return runs["ours"], runs["theirs"]
