"""Mutated images: whatever is in a file, reading, checking, writing and repairing it raise CowshedErrors only.

Each mutant is a seed, so a failure says all that is needed: `python tests/fuzz/mutate.py BASE SEED OUT` makes it again.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from mutate import all_bases, mutant

import judges
from conftest import TORTURE
from damage import BASES
from exercise import Prober

NAMES = [*BASES, "vmdk"]
#: mutants of each base
READ = 20_000 if TORTURE else 110
WRITE = 5_000 if TORTURE else 40


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Path, str]]:
    return all_bases(tmp_path_factory.mktemp("sound"))


@pytest.fixture(scope="module")
def prober() -> Iterator[Prober]:
    with Prober() as process:
        yield process


@pytest.mark.timeout(0 if TORTURE else 120)
@pytest.mark.parametrize("base", NAMES)
def test_reading(tmp_path: Path, figures: Any, sound: dict[str, tuple[Path, str]], prober: Prober, base: str) -> None:
    source, fmt = sound[base]
    path = tmp_path / "x"
    opened = 0
    for seed in range(READ):
        raw = mutant(source, fmt, seed)
        path.write_bytes(raw)
        try:
            errors = prober.ask(path, fmt)
        except AssertionError as error:
            raise AssertionError(f"mutant {seed} of {base}: {error}") from None
        opened += "open" not in errors
        if seed % 10 == 0:
            assert path.read_bytes() == raw, f"mutant {seed} of {base}"
        for name, told in errors.items():
            assert told["detail"] and "\n" not in told["text"], f"mutant {seed} of {base}, {name}: {told}"
    # mutants that nobody opens would prove nothing about what comes after
    assert opened > READ // 10
    assert prober.worst_bytes < 300 << 20
    figures.add("fuzz: mutants read", READ)


@pytest.mark.timeout(0 if TORTURE else 120)
@pytest.mark.parametrize("base", NAMES)
def test_writing_and_repairing(
    tmp_path: Path, figures: Any, sound: dict[str, tuple[Path, str]], prober: Prober, base: str
) -> None:
    """A repair that says it is done is judged by the real tool."""
    source, fmt = sound[base]
    path = tmp_path / "x"
    repaired = 0
    for seed in range(10_000_000, 10_000_000 + WRITE):
        path.write_bytes(mutant(source, fmt, seed))
        try:
            prober.ask(path, fmt, job="write")
        except AssertionError as error:
            raise AssertionError(f"mutant {seed} of {base}, written: {error}") from None
        path.write_bytes(mutant(source, fmt, seed))
        try:
            answer = prober.ask(path, fmt, job="repair")
        except AssertionError as error:
            raise AssertionError(f"mutant {seed} of {base}, repaired: {error}") from None
        if not answer and fmt == "qcow2" and path.stat().st_size < 1 << 30:
            repaired += 1
            done = judges.run("qemu-img", "check", "-f", fmt, path, ok=range(256))
            assert done.returncode == 0, f"mutant {seed} of {base}, after repair: {done.stdout}{done.stderr}"
    assert fmt != "qcow2" or repaired > WRITE // 10
    figures.add("fuzz: mutants written and repaired", WRITE)
    figures.add("fuzz: repairs judged", repaired)
