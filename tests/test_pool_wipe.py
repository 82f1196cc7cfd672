"""Wiping: the passes of each algorithm, in order and over all data; sparse volumes; progress and cancelling."""

from __future__ import annotations

import ctypes
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from cowshed.block.graph import open_image
from cowshed.errors import ArgumentError, ArgumentSupportError, CancelledError, HostCallError, PoolError
from cowshed.pool import wipe as wiping
from cowshed.pool.host import Host
from cowshed.pool.pool import Pool
from cowshed.progress import Progress
from loops import file_system

SIZE = (7 << 20) + 12345
R = None

# as scrub(1) has them; "zero" is libvirt's own
EXPECTED: dict[str, list[bytes | None]] = {
    "zero": [b"\0"],
    "nnsa": [R, R, b"\0"],
    "dod": [R, b"\0", b"\xff"],
    "bsi": [b"\xff", b"\xfe", b"\xfd", b"\xfb", b"\xf7", b"\xef", b"\xdf", b"\xbf", b"\x7f"],
    "gutmann": [
        R, R, R, R, b"\x55", b"\xaa", b"\x92\x49\x24", b"\x49\x24\x92", b"\x24\x92\x49", b"\x00", b"\x11", b"\x22",
        b"\x33", b"\x44", b"\x55", b"\x66", b"\x77", b"\x88", b"\x99", b"\xaa", b"\xbb", b"\xcc", b"\xdd", b"\xee",
        b"\xff", b"\x92\x49\x24", b"\x49\x24\x92", b"\x24\x92\x49", b"\x6d\xb6\xdb", b"\xb6\xdb\x6d", b"\xdb\x6d\xb6",
        R, R, R, R,
    ],
    "schneier": [b"\0", b"\xff", R, R, R, R, R],
    "pfitzner7": [R] * 7,
    "pfitzner33": [R] * 33,
    "random": [R],
}  # fmt: skip


@pytest.fixture
def pool(tmp_path: Path) -> Iterator[Pool]:
    host = Host(root=str(tmp_path / "root"))
    made = host.define(f"<pool type='dir'><name>p</name><target><path>{tmp_path}/p</path></target></pool>")
    made.build()
    made.start()
    yield made
    assert host.jobs() == []


class Watched:
    """What a file held after each pass, seen when the pass was flushed."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.node = open_image(str(path), fmt="raw", writable=True)
        self.states: list[bytes] = []
        real = self.node.flush

        def flush() -> None:
            real()
            self.states.append(path.read_bytes())

        self.node.flush = flush  # type: ignore[method-assign]


@pytest.mark.parametrize("algorithm", sorted(EXPECTED))
def test_passes(tmp_path: Path, algorithm: str) -> None:
    path = tmp_path / "v"
    secret = os.urandom(4096)
    path.write_bytes((secret * (SIZE // 4096 + 1))[:SIZE])
    watched = Watched(path)
    with watched.node:
        wiping.wipe(watched.node, algorithm)
    states = watched.states
    if algorithm == "zero":
        states = states[:1]
    assert len(states) == len(EXPECTED[algorithm])
    before: list[bytes] = []
    for state, pattern in zip(states, EXPECTED[algorithm], strict=True):
        assert len(state) == SIZE
        if pattern is not None:
            assert state == (pattern * (SIZE // len(pattern) + 1))[:SIZE]
        else:
            assert state not in before
            assert secret not in state
            assert max(state.count(bytes([value])) for value in (0, 255, 128)) < SIZE // 200
        before.append(state)


def test_the_table_is_complete() -> None:
    assert set(EXPECTED) == set(wiping.ALGORITHMS)


@pytest.mark.parametrize("algorithm", ["nnsa", "dod", "bsi"])
def test_like_scrub(tmp_path: Path, algorithm: str) -> None:
    """The real scrub leaves the same bytes, but for the signature at its beginning that says so."""
    tool = shutil.which("scrub")
    if tool is None:
        pytest.skip("scrub is not installed")
    ours, theirs = tmp_path / "ours", tmp_path / "theirs"
    for path in (ours, theirs):
        path.write_bytes(b"secret!!" * 65536)
    subprocess.run([tool, "-f", "-p", algorithm, str(theirs)], check=True, capture_output=True)
    with open_image(str(ours), fmt="raw", writable=True) as node:
        wiping.wipe(node, algorithm)
    assert ours.read_bytes()[512:] == theirs.read_bytes()[512:]


@pytest.mark.parametrize("algorithm", sorted(EXPECTED))
def test_sparse(pool: Pool, tmp_path: Path, algorithm: str) -> None:
    volume = pool.create_volume(
        "<volume><name>v</name><capacity unit='G'>8</capacity><allocation>0</allocation></volume>"
    )
    with open(volume.path, "r+b") as file:
        for at in (0, 4096 * 1001, (8 << 30) - 4096):
            file.seek(at)
            file.write(b"secret!!" * 512)
    held = volume.info().allocation
    volume.wipe(algorithm)
    info = volume.info()
    assert info.capacity == 8 << 30
    assert info.allocation == (0 if algorithm == "zero" else held), "holes stay holes"
    with open(volume.path, "rb") as file:
        for at in (0, 4096 * 1001, (8 << 30) - 4096):
            file.seek(at)
            assert b"secret" not in file.read(4096)
        file.seek(1 << 30)
        assert not any(file.read(4096))


def test_zero_keeps_what_was_allocated(pool: Pool) -> None:
    volume = pool.create_volume("<volume><name>v</name><capacity unit='M'>3</capacity></volume>")
    Path(volume.path).write_bytes(b"x" * (3 << 20))
    volume.wipe()
    assert (volume.info().capacity, volume.info().allocation) == (3 << 20, 3 << 20)
    assert not any(Path(volume.path).read_bytes())


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting needs root")
@pytest.mark.parametrize("allocation", ["", "<allocation>0</allocation>"])
def test_what_a_file_still_has_on_the_disk(tmp_path: Path, allocation: str) -> None:
    """What was zeroed by the file system alone reads as zeroes, and is on the disk: wiping takes it off."""
    with file_system("ext4", tmp_path, 32 << 20) as folder:
        pool = Host(root=str(tmp_path / "root")).create(
            f"<pool type='dir'><name>p</name><target><path>{folder}/p</path></target></pool>", build=True
        )
        volume = pool.create_volume(f"<volume><name>v</name><capacity unit='M'>8</capacity>{allocation}</volume>")
        with open(volume.path, "r+b") as file:
            file.write(b"a secret" * (1 << 18))
            file.flush()
            os.fsync(file.fileno())
            zero_range = 0x10
            assert ctypes.CDLL(None).fallocate(file.fileno(), zero_range, ctypes.c_long(0), ctypes.c_long(1 << 20)) == 0
            os.fsync(file.fileno())
        before = volume.info().allocation
        os.sync()
        assert (tmp_path / "ext4.img").read_bytes().count(b"a secret") > 1 << 17
        volume.wipe("random")
        assert volume.info().allocation == before
        os.sync()
        assert b"a secret" not in (tmp_path / "ext4.img").read_bytes()


def test_refusals(pool: Pool) -> None:
    volume = pool.create_volume("<volume><name>v</name><capacity>4096</capacity></volume>")
    with pytest.raises(ArgumentSupportError) as caught:
        volume.wipe("trim")
    assert str(caught.value) == "argument unsupported: 'trim' algorithm not supported"
    with pytest.raises(ArgumentError, match="unknown wiping algorithm 'bogus'"):
        volume.wipe("bogus")
    folder = pool.create_volume(
        "<volume><name>d</name><capacity>0</capacity><target><format type='dir'/></target></volume>"
    )
    with pytest.raises(HostCallError) as failed:
        folder.wipe()
    assert str(failed.value) == f"Failed to open storage volume with path '{folder.path}': Is a directory"


def test_format_goes_with_the_data(pool: Pool) -> None:
    volume = pool.create_volume(
        "<volume><name>q</name><capacity unit='M'>10</capacity><target><format type='qcow2'/></target></volume>"
    )
    size = os.stat(volume.path).st_size
    volume.wipe("random")
    assert (volume.definition.target.format, volume.info().capacity) == ("raw", size)


def test_progress_and_cancelling(pool: Pool) -> None:
    volume = pool.create_volume("<volume><name>v</name><capacity unit='M'>12</capacity></volume>")
    Path(volume.path).write_bytes(b"x" * (12 << 20))
    seen: list[tuple[int, int]] = []
    volume.wipe("nnsa", progress=Progress(listener=lambda work: seen.append((work.done, work.total))))
    assert seen[-1] == (48 << 20, 48 << 20), "three passes and the comparison"
    assert seen == sorted(seen)

    def listener(work: Progress) -> None:
        if work.done > 6 << 20:
            raise CancelledError("canceled by client")

    with pytest.raises(CancelledError):
        volume.wipe("pfitzner33", progress=Progress(listener=listener))
    assert volume.info().capacity == 12 << 20


def test_what_does_not_read_back(tmp_path: Path) -> None:
    """Storage that lies is found out by the algorithms that look again."""
    path = tmp_path / "v"
    path.write_bytes(b"x" * 100_000)
    node: Any
    with open_image(str(path), fmt="raw", writable=True) as node:
        real = node.read
        node.read = lambda offset, length: b"?" + real(offset, length)[1:]
        for algorithm in ("nnsa", "dod"):
            with pytest.raises(PoolError, match="does not read back"):
                wiping.wipe(node, algorithm)
        wiping.wipe(node, "bsi")
