"""Bad input: one clear error each, the real tool's words and exit status, bounded time and memory, files untouched."""

from __future__ import annotations

import hashlib
import os
import random
import shutil
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import judges
from conftest import TORTURE
from cowshed.block.graph import MAX_CHAIN, open_image
from cowshed.errors import CowshedError, FormatError, HostError, OpenError, UnsupportedError
from damage import BASES, CASES, Case, bases, u32, u64
from differential import Arena
from exercise import Prober, exercise
from layouts import content

QUICK = [case for case in CASES if TORTURE or not case.heavy]

COMMANDS = (
    ["info", "-f", "qcow2", "x"],
    ["info", "-f", "qcow2", "--output=json", "x"],
    ["map", "-f", "qcow2", "--output=json", "x"],
    ["check", "-f", "qcow2", "x"],
    ["check", "-f", "qcow2", "--output=json", "x"],
    ["snapshot", "-l", "x"],
)


#: the real tool asks for more than one entry at a time, and loses a sound one before the damage
COARSE = ("plain incompatible_features=0x10",)


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return bases(tmp_path_factory.mktemp("sound"))


@pytest.fixture(scope="module")
def prober() -> Iterator[Prober]:
    with Prober() as process:
        yield process


def digest(path: Path) -> bytes:
    return hashlib.sha256(path.read_bytes()).digest()


def short(answer: dict[str, Any]) -> dict[str, str]:
    return {name: error["text"] for name, error in answer.items()}


# -- one thing wrong ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("case", QUICK, ids=lambda case: case.name)
def test_same_words_as_the_real_tool(tmp_path: Path, figures: Any, sound: dict[str, Path], case: Case) -> None:
    arena = Arena(tmp_path, figures)
    path = case.make(sound[case.base], arena.dir / "x")
    before = digest(path)
    differences = []
    # (the real tool looks at refcounts for map, and says what it meets there; ours has no need to)
    mask = ["disk size", (r"qcow2: Image is corrupt: Refblock offset .* unaligned .*\n", "")]
    for argv in COMMANDS:
        both = arena.run(*argv, mask=mask)
        if both.real.code < 0:
            continue  # (some of these kill the real tool)
        if case.name in COARSE and argv[0] == "map" and both.real.stderr == both.ours.stderr:
            assert both.ours.stdout.startswith(both.real.stdout) and both.ours.code == both.real.code
            continue
        differences.append(both.difference())
        assert "internal error: " not in both.ours.text() and "Traceback" not in both.ours.text(), both.ours.text()
    assert digest(path) == before
    assert not any(differences), "\n\n".join(filter(None, differences))
    figures.add("bad images: damages compared with qemu-img")


@pytest.mark.parametrize("base", list(BASES))
def test_errors_name_file_field_and_value(
    tmp_path: Path, figures: Any, sound: dict[str, Path], prober: Prober, base: str
) -> None:
    """In a process with bounded memory: no traceback, no hang; what is told says where, what and how much."""
    path = tmp_path / "x"
    assert prober.ask(sound[base]) == {}
    for case in QUICK:
        if case.base != base:
            continue
        case.make(sound[base], path)
        before = digest(path)
        errors = prober.ask(path)
        assert digest(path) == before, case.name
        if case.field:
            told = errors.get("open")
            assert told is not None, f"{case.name}: opened without an error"
            assert (told["path"], told["field"]) == (os.fspath(path), case.field), f"{case.name}: {told}"
            assert told["value"] not in (None, ""), f"{case.name}: {told}"
        for name, told in errors.items():
            assert told["path"], f"{case.name}, {name}: {told}"
            assert told["detail"].startswith("file '"), f"{case.name}, {name}: {told}"
            assert "\n" not in told["text"] or "control" in case.name, f"{case.name}, {name}: {told}"
            if told["class"] in ("CorruptError", "FormatError", "FeatureError", "ForeignError"):
                assert told["field"] and told["value"] is not None, f"{case.name}, {name}: {told}"
    figures.add("bad images: damages read in bounded memory", sum(case.base == base for case in QUICK))
    assert prober.worst_bytes < 300 << 20


CONVERTED = (
    "plain magic=0x0", "plain incompatible_features=0x20", "L2 entry unaligned, plain", "L2 entry far, plain",
    "L2 packed, garbage", "L2 packed, garbage, zstd", "L2 packed, far", "L1 entry unaligned, plain",
    "L1 entry far, plain", "subclusters both", "data file gone", "refcount block noise",
    "plain incompatible_features=0x2",
)  # fmt: skip


@pytest.mark.parametrize("case", [case for case in CASES if case.name in CONVERTED], ids=lambda case: case.name)
def test_convert_stops_as_the_real_tool_does(tmp_path: Path, figures: Any, sound: dict[str, Path], case: Case) -> None:
    """The same words, the same exit status, and the same left of the target."""
    arena = Arena(tmp_path, figures)
    case.make(sound[case.base], arena.dir / "x")
    (arena.dir / "there").write_bytes(b"an earlier target" * 100)
    for target in ("new", "there"):
        for fmt in ("raw", "qcow2"):
            both = arena.run("convert", "-f", "qcow2", "-O", fmt, "x", target, changes=True)
            assert not both.difference(), both.difference()
            left = [outcome.cwd / target for outcome in (both.real, both.ours)]
            assert left[0].exists() == left[1].exists()
            if left[0].exists() and fmt == "raw":
                assert left[0].stat().st_size == left[1].stat().st_size
            if both.real.code == 0:
                judges.qemu_img("compare", "-f", fmt, "-F", fmt, *left)
            assert digest(both.ours.cwd / "x") == digest(arena.dir / "x")
            arena.forget(both)


# -- cut off -----------------------------------------------------------------------------------------------------------


def lengths(path: Path) -> list[int]:
    """Where to cut: around every field of the header, and around every cluster of a small image."""
    size = path.stat().st_size
    cluster = 1 << struct.unpack_from(">I", path.read_bytes(), 20)[0]
    found = {0, 1, 3, 4, 7, 8, 19, 20, 24, 71, 72, 73, 99, 100, 103, 104, 105, 111, 112, 120, 300, 511, 512, 513}
    found.add(size - 1)
    for start in range(cluster, size, max(cluster, size // 24 // cluster * cluster)):
        found |= {start - 1, start, start + 1, start + cluster // 2}
    return sorted(length for length in found if 0 <= length < size)


@pytest.mark.parametrize("base", list(BASES))
def test_truncated(tmp_path: Path, figures: Any, sound: dict[str, Path], prober: Prober, base: str) -> None:
    """Cut anywhere: read in bounds and without a traceback; the real tool's verdict at some of the places."""
    arena = Arena(tmp_path, figures)
    path = arena.dir / "x"
    shutil.copyfile(sound[base], path)
    places = lengths(path)
    compared = {length for length in places if length <= 120} if base in ("plain", "v2") else set()
    compared |= set(random.Random(base).sample(places, 4))
    for length in reversed(places):
        os.truncate(path, length)
        before = digest(path)
        errors = prober.ask(path)
        assert digest(path) == before
        if length < 32:
            assert errors["open"]["class"] == "OpenError" and errors["open"]["field"], short(errors)
        if length in compared:
            for argv in (["info", "-f", "qcow2", "x"], ["map", "-f", "qcow2", "--output=json", "x"], ["check", "x"]):
                both = arena.run(*argv, mask=["disk size"])
                if both.real.code or length >= 112:  # (it takes a header that is cut for one with zeroes behind)
                    assert not both.difference(), f"{length} bytes: {both.difference()}"
    figures.add("bad images: truncations", len(places))


# -- something else ----------------------------------------------------------------------------------------------------


def foreign(directory: Path) -> dict[str, bytes]:
    return {
        "empty": b"",
        "zeroes": bytes(1 << 16),
        "noise": content(9, 1 << 16),
        "text": b"once upon a time\n" * 1000,
        "program": Path("/proc/self/exe").read_bytes()[: 1 << 16],
        "magic alone": b"QFI\xfb",
        "magic and noise": b"QFI\xfb" + content(10, 1 << 16),
        "version 2 and noise": b"QFI\xfb" + u32(2) + content(11, 1 << 16),
        "version 3 and noise": b"QFI\xfb" + u32(3) + content(12, 1 << 16),
        "version 3, noise": b"QFI\xfb" + u32(3) + u64(0) + u32(0) + u32(16) + u64(1 << 20) + content(13, 1 << 16),
        "all ones": b"\xff" * 65536,
        "gzip": b"\x1f\x8b\x08" + content(14, 5000),
        "qcow2 magic, swapped": b"\xfbIFQ" + bytes(1000),
    }


@pytest.mark.parametrize("name", list(foreign(Path("."))))
def test_foreign(tmp_path: Path, figures: Any, name: str) -> None:
    arena = Arena(tmp_path, figures)
    path = arena.dir / "x"
    path.write_bytes(foreign(tmp_path)[name])
    for argv in (["info", "x"], *COMMANDS[:4]):
        arena.check(*argv, mask=["disk size"])
    with pytest.raises(OpenError) as caught:
        open_image(path, fmt="qcow2")
    cause = caught.value.__cause__
    assert isinstance(cause, (FormatError, UnsupportedError))
    assert (cause.path, bool(cause.field), cause.value is None) == (os.fspath(path), True, False)


def test_not_a_file_at_all(tmp_path: Path, figures: Any) -> None:
    """A directory, a FIFO (which must not block), a dangling link, a loop of links, nothing."""
    arena = Arena(tmp_path, figures)
    here = arena.dir
    (here / "directory").mkdir()
    os.mkfifo(here / "fifo")
    (here / "dangling").symlink_to("nowhere")
    (here / "loop").symlink_to("loop")
    for name in ("directory", "fifo", "dangling", "loop", "missing", "", "missing/x"):
        for command in ("info", "map", "check"):
            if name == "fifo" and command:
                continue  # the real tool waits for a writer, for ever
            arena.check(command, "-f", "qcow2", name)
        with pytest.raises(OpenError) as caught:
            open_image(os.fspath(here / name) if name else "", fmt="qcow2")
        assert isinstance(caught.value.__cause__, CowshedError)
    if os.geteuid() != 0:
        (here / "locked").write_bytes(b"QFI\xfb")
        (here / "locked").chmod(0)
        with pytest.raises(OpenError) as caught:
            open_image(here / "locked", fmt="qcow2")
        assert isinstance(caught.value.__cause__, HostError)


# -- chains ------------------------------------------------------------------------------------------------------------


def test_loops_are_refused(tmp_path: Path, figures: Any) -> None:
    """An image on itself, a ring of two and of three, by relative and absolute names."""
    arena = Arena(tmp_path, figures)
    names = ("self", "a", "b", "p", "q", "r")
    arena.setup(*(f"create -q -f qcow2 {name} 1M" for name in names))
    for top, below in (("self", "self"), ("a", "b"), ("b", "a"), ("p", "q"), ("q", "r"), ("r", "p")):
        arena.setup(["rebase", "-u", "-f", "qcow2", "-F", "qcow2", "-b", below, top])
    for name in names:
        before = digest(arena.dir / name)
        # (all else makes the real tool go round until its memory ends)
        for argv in (["info", name], ["info", "--backing-chain", name]):
            arena.check(*argv, mask=["disk size"])
        with pytest.raises(OpenError, match="creates an infinite loop"):
            open_image(arena.dir / name)
        assert digest(arena.dir / name) == before


def test_chain_too_long(tmp_path: Path) -> None:
    """A chain longer than the bound gives an error, not the end of memory or of the stack."""
    below: Path | None = None
    for number in range(MAX_CHAIN + 2):
        path = tmp_path / f"{number}"
        if below is None:
            judges.qemu_img("create", "-q", "-f", "qcow2", "-o", "cluster_size=512", path, "64k")
            raw = path.read_bytes()
        else:
            # the header with a name, by hand: the real tool would open the whole chain each time
            name = below.name.encode()
            header = bytearray(raw)
            struct.pack_into(">QI", header, 8, 480, len(name))
            header[480 : 480 + len(name)] = name
            path.write_bytes(header)
        below = path
    assert below is not None
    with open_image(tmp_path / str(MAX_CHAIN - 1)) as node:
        assert node.read(0, 65536) == bytes(65536)
    with pytest.raises(OpenError, match=f"longer than {MAX_CHAIN} images") as caught:
        open_image(below)
    assert caught.value.detail


def test_bad_backing_files(tmp_path: Path, figures: Any, sound: dict[str, Path]) -> None:
    """Damage below the top: the message says through which image it was met."""
    arena = Arena(tmp_path, figures)
    create = "create -q -f qcow2"
    arena.setup(f"{create} base 1M", f"{create} -b base -F qcow2 mid", f"{create} -b mid -F qcow2 top")
    damages = ("magic=0x0", "incompatible_features=0x20", "cluster_bits=0x8", "l1_size=0x0")
    commands = (["info", "top"], ["info", "--backing-chain", "top"], ["map", "--output=json", "top"], ["check", "top"])
    for case in CASES:
        if case.name.removeprefix("plain ") in damages or case.name == "L2 entry unaligned, plain":
            case.make(sound["plain"], arena.dir / "base")
            for argv in commands:
                arena.check(*argv, mask=["disk size"])
    (arena.dir / "base").unlink()
    for argv in commands:
        arena.check(*argv, mask=["disk size"])
    errors = exercise(os.fspath(arena.dir / "top"))
    assert "base" in str(errors["open"])


# -- opened for writing ------------------------------------------------------------------------------------------------


def test_corrupt_images_are_not_opened_for_writing(tmp_path: Path, sound: dict[str, Path]) -> None:
    path = tmp_path / "x"
    case = next(case for case in CASES if case.name == "plain incompatible_features=0x2")
    case.make(sound["plain"], path)
    before = digest(path)
    with pytest.raises(OpenError, match="Image is corrupt; cannot be opened read/write"):
        open_image(path, fmt="qcow2", writable=True)
    with open_image(path, fmt="qcow2") as node:
        node.read(0, 65536)
    assert digest(path) == before


@pytest.mark.parametrize("case", QUICK, ids=lambda case: case.name)
def test_writing_through_damage(tmp_path: Path, figures: Any, sound: dict[str, Path], case: Case) -> None:
    """Opened for writing and written over and over: errors at most, and metadata is never overwritten by guest data.

    Every byte of guest data written here is 0xA5: no structure may hold a run of them afterwards.
    """
    path = case.make(sound[case.base], tmp_path / "x")
    header = path.read_bytes()[:72]
    try:
        with open_image(path, fmt="qcow2", writable=True) as node:
            step = max(512, min(node.size, 1 << 20) // 8 // 512 * 512)
            for offset in range(0, min(node.size, 1 << 20), step):
                node.write(offset, b"\xa5" * min(step, node.size - offset))
            node.write_zeroes(0, min(node.size, 1 << 17), unmap=True)
            node.discard(0, min(node.size, 1 << 18))
            node.flush()
    except CowshedError as error:
        assert error.path or isinstance(error, OpenError), repr(error)
    with open(path, "rb") as file:
        raw = file.read(max(512, 1 << struct.unpack_from(">I", header, 20)[0] % 22))
    assert raw[:8] == header[:8] and raw[20:24] == header[20:24], "the header is gone"
    assert b"\xa5" * 16 not in raw, "guest data in the header"
    figures.add("bad images: damages written through")
