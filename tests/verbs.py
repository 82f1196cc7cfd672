"""What the tests of single commands share: the images that both tools left are compared, not only what they said."""

from __future__ import annotations

import difflib
import filecmp
import json
import os
import shlex
import subprocess
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

import judges
from differential import Arena, Both

#: looks at an image in a directory, and returns what must be the same for both tools
Look = Callable[[Path, str], object]


@pytest.fixture
def arena(tmp_path: Path, figures: Any) -> Arena:
    return Arena(tmp_path, figures)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 4 MiB, for running out of space on."""
    place = tmp_path / "small"
    place.mkdir()
    if (
        os.geteuid()
        or subprocess.run(
            ["mount", "-t", "tmpfs", "-o", "size=4m", "none", place], stderr=subprocess.DEVNULL
        ).returncode
    ):
        judges.absent("a small file system (needs root for mounting a tmpfs)")
    try:
        yield place
    finally:
        subprocess.run(["umount", "-l", place], check=False)


def lines(text: str) -> list[list[str]]:
    """A command line from each line of ``text``, quoted as for a shell."""
    return [shlex.split(line) for line in text.splitlines() if line.strip()]


def info_of(folder: Path, name: str, *hidden: str) -> str:
    """``info`` by the real tool, without the space taken and the lines that begin with ``hidden``."""
    text = judges.run("qemu-img", "info", "-U", name, cwd=folder, ok=(0, 1)).stdout
    return "\n".join(line for line in text.splitlines() if not line.strip().startswith(("disk size", *hidden)))


def check_of(folder: Path, name: str) -> tuple[int, str]:
    """What the real ``check`` finds."""
    done = judges.run("qemu-img", "check", "-U", name, cwd=folder, ok=(0, 1, 2, 3, 63))
    return done.returncode, done.stdout


def guest_of(folder: Path, name: str, fmt: str = "qcow2") -> bytes:
    """All bytes that a guest would read, by the real tool."""
    target = folder / f".{name.replace('/', '_')}.guest"
    judges.run("qemu-img", "convert", "-U", "-f", fmt, "-O", "raw", name, target, cwd=folder)
    data = target.read_bytes()
    target.unlink()
    return data


def layer_of(folder: Path, name: str) -> list[tuple[int, int]]:
    """The ranges (start, end) that the image itself decides on, as data or as zeroes, by the real tool."""
    entries = json.loads(judges.run("qemu-img", "map", "-U", "--output=json", name, cwd=folder).stdout)
    found: list[tuple[int, int]] = []
    for entry in entries:
        if entry["depth"] or not entry["present"]:
            continue
        start, end = entry["start"], entry["start"] + entry["length"]
        if found and found[-1][1] == start:
            found[-1] = (found[-1][0], end)
        else:
            found.append((start, end))
    return found


def alike(arena: Arena, argv: Sequence[str], *looks: tuple[Look, str], **how: Any) -> Both:
    """Both tools run in copies of the arena: the same text, and the same afterwards in the eyes of each look."""
    both = arena.run(*argv, changes=True, **how)
    difference = both.difference()
    assert not difference, difference
    if _identical(both.real.cwd, both.ours.cwd):
        looks = ()  # whatever is asked, the answers are the same
    for look, name in looks:
        real, ours = look(both.real.cwd, name), look(both.ours.cwd, name)
        assert real == ours, f"$ qemu-img {' '.join(argv)}\nafterwards, {name}:\n" + "\n".join(_unlike(real, ours))
    arena.forget(both)
    return both


def _identical(one: Path, other: Path) -> bool:
    """Do two directories hold the same files, byte for byte?"""
    names = sorted(str(path.relative_to(one)) for path in one.rglob("*") if path.is_file())
    if names != sorted(str(path.relative_to(other)) for path in other.rglob("*") if path.is_file()):
        return False
    sizes = [((one / name).stat().st_size, (other / name).stat().st_size) for name in names]
    if any(mine != yours or mine > 64 << 20 for mine, yours in sizes):
        return False  # or so large that it is quicker to look
    return all(filecmp.cmp(one / name, other / name, shallow=False) for name in names)


def _unlike(real: object, ours: object) -> Iterator[str]:
    """What differs, in few lines."""
    if isinstance(real, (tuple, list)) and isinstance(ours, (tuple, list)) and len(real) == len(ours):
        for one, other in zip(real, ours, strict=True):
            if one != other:
                yield from _unlike(one, other)
    elif isinstance(real, str) and isinstance(ours, str):
        yield from difflib.unified_diff(real.splitlines(), ours.splitlines(), "real", "ours", lineterm="", n=1)
    elif isinstance(real, bytes) and isinstance(ours, bytes) and len(real) == len(ours):
        at = next(index for index in range(len(real)) if real[index] != ours[index])
        yield f"content differs from byte {at}: real {real[at : at + 8].hex()}, ours {ours[at : at + 8].hex()}"
    else:
        yield f"real {real!r:.200}"
        yield f"ours {ours!r:.200}"


def campaign(arena: Arena, trials: Sequence[Sequence[str]], *looks: tuple[Look, str], **how: Any) -> int:
    """`alike` for every command line; all failures are told at the end."""
    differences = []
    for argv in trials:
        try:
            alike(arena, argv, *looks, **how)
        except AssertionError as error:
            differences.append(str(error))
    assert not differences, f"{len(differences)} of {len(trials)} differ\n\n" + "\n\n".join(differences[:10])
    return len(trials)
