"""Mutated guests: whatever is on a disk, a parser answers or raises a CowshedError that says what is wrong, and where.

A target's cases run in a process of their own with bounded memory and CPU time. A case is a number, so a failure says
all that is needed: `python tests/fuzz/guest_fuzz.py TARGET NUMBER 1` runs it again.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import judges
from conftest import TORTURE

#: target -> cases in `make test`; a campaign has `LONG` times as many
QUICK = {
    "ext4": 60, "ext4-plain": 60, "ext4-inline": 40, "ext3": 40, "ext2": 40, "ext4-journal": 40,
    "ext4-plain-journal": 40,
    "fat12": 40, "fat16": 40, "fat32": 40, "iso-rock": 12, "iso-joliet": 12, "signatures": 300, "mbr": 300, "gpt": 200,
    "lvm": 300, "luks1": 20, "luks2": 60, "rpm-sqlite": 100, "rpm-bdb": 300, "rpm-ndb": 300, "rpm-header": 500,
    "inspection": 40, "tar-in": 40, "paths": 30,
}  # fmt: skip
#: what takes a judge for each case, or a large image
SLOW = {
    "ext4-judged": 12, "ext4-inline-judged": 6, "ext3-judged": 6, "ext2-judged": 6, "fat12-judged": 6,
    "fat16-judged": 6,    "fat32-judged": 6, "xfs-4": 20, "xfs-5": 20, "xfs-dirty": 20,
}  # fmt: skip
LONG = 150
#: bytes that a process may take beyond what it had when it began
MEMORY = 400 << 20


def run(name: str, count: int, folder: Path, first: int = 0) -> dict[str, Any]:
    program = Path(__file__).with_name("guest_fuzz.py")
    argv = [sys.executable, program, name, str(first), str(count), folder]
    done = subprocess.run(argv, capture_output=True, text=True)
    assert done.returncode == 0, f"{done.stdout[-2000:]}{done.stderr[-6000:]}"
    answer: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    if "skipped" in answer:
        judges.absent(str(answer["skipped"]).partition(judges.MISSING)[2] or str(answer["skipped"]))
    assert not answer["failed"], "python {} {} {} 1\n{}".format(
        os.path.relpath(program), name, answer["failed"][0]["seed"], answer["failed"][0]["traceback"]
    )
    assert answer["cases"] == count
    assert answer["bytes"] < MEMORY
    return answer


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("sound")


@pytest.mark.timeout(0 if TORTURE else 300)
@pytest.mark.parametrize("name", QUICK)
def test_mutants(name: str, folder: Path, figures: Any) -> None:
    count = QUICK[name] * (LONG if TORTURE else 1)
    answer = run(name, count, folder)
    # mutants that are all refused at the door would prove nothing about what lies behind it
    noted = answer["figures"]
    reached = max(noted.values(), default=0)
    assert reached > count // 20 or name in ("signatures", "rpm-header", "luks2"), noted
    figures.add("guest fuzz: mutants", count)
    figures.add("guest fuzz: refusals", sum(answer["errors"].values()))


@pytest.mark.torture
@pytest.mark.timeout(0)
@pytest.mark.parametrize("name", SLOW)
def test_slow_mutants(name: str, folder: Path, figures: Any) -> None:
    count = SLOW[name] * (LONG // 3 if TORTURE else 1)
    answer = run(name, count, folder)
    assert not name.endswith("judged") or answer["figures"]["mended"] > count // 4
    figures.add("guest fuzz: mutants", count)
    figures.add("guest fuzz: mended mutants that were written to", answer["figures"].get("mended", 0))
