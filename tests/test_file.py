"""Bytes at a place: files and devices of the host, against plain bytes and the real tools."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import judges
from cowshed.block.format.raw import RawNode
from cowshed.block.graph import create_image, open_image
from cowshed.block.node import DATA, HOLE, ZERO
from cowshed.block.protocol.file import CACHE_MODES, FileNode
from cowshed.block.protocol.host_device import HostDeviceNode, device_driver
from cowshed.errors import CowshedError, HostError, NoSpaceError, OpenError, RangeError, ReadOnlyError

MIB = 1 << 20


def direct_works(directory: Path) -> bool:
    path = directory / "probe"
    path.write_bytes(bytes(4096))
    try:
        os.close(os.open(path, os.O_RDWR | os.O_DIRECT))
    except OSError:
        return False
    return True


@pytest.fixture(params=["writeback", "none", "writethrough", "directsync", "unsafe"])
def cache(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    mode: str = request.param
    if CACHE_MODES[mode].direct and not direct_works(tmp_path):
        pytest.skip("the file system here has no O_DIRECT")
    return mode


def make(path: Path, size: int) -> Path:
    with open(path, "wb") as file:
        file.truncate(size)
    return path


# -- files ------------------------------------------------------------------------------------------------------------


def test_reads_and_writes_of_any_alignment(tmp_path: Path, cache: str) -> None:
    path = make(tmp_path / "x", 100_000)
    model = bytearray(100_000)
    with FileNode(str(path), writable=True, cache=CACHE_MODES[cache]) as node:
        assert node.size == 100_000
        ranges = [(0, 1), (511, 2), (4095, 4098), (8192, 4096), (50_001, 30_000), (99_999, 1), (0, 100_000)]
        for offset, length in ranges:
            data = os.urandom(length)
            model[offset : offset + length] = data
            node.write(offset, memoryview(data))
            assert node.read(offset, length) == data
            assert path.stat().st_size == 100_000
        node.write(100_000, b"more")
        model += b"more"
        assert node.size == 100_004
        node.flush()
        # past the end there are zeroes, for formats that map there
        view = memoryview(bytearray(b"\1" * 10))
        node.read_into(99_999, view)
        assert bytes(view) == bytes(model[99_999:]) + bytes(5)
    assert path.read_bytes() == bytes(model)


@settings(max_examples=25)
@given(data=st.data())
def test_any_sequence_is_as_plain_bytes(data: st.DataObject, tmp_path_factory: pytest.TempPathFactory) -> None:
    path = make(tmp_path_factory.mktemp("seq") / "x", 200_000)
    model = bytearray(200_000)
    with FileNode(str(path), writable=True) as node:
        for _ in range(data.draw(st.integers(1, 12))):
            verb = data.draw(st.sampled_from(["write", "zero", "unmap", "discard", "resize"]))
            offset = data.draw(st.integers(0, max(0, len(model) - 1)))
            length = data.draw(st.integers(0, len(model) - offset))
            if verb == "write":
                piece = bytes([data.draw(st.integers(0, 255))]) * length
                node.write(offset, piece)
                model[offset : offset + length] = piece
            elif verb == "discard":
                before = bytes(model[offset : offset + length])
                node.discard(offset, length)
                assert node.read(offset, length) in (before, bytes(length))
                model[offset : offset + length] = node.read(offset, length)
            elif verb == "resize":
                size = data.draw(st.integers(0, 300_000))
                node.resize(size)
                model = model[:size].ljust(size, b"\0")
            else:
                node.write_zeroes(offset, length, unmap=verb == "unmap")
                model[offset : offset + length] = bytes(length)
            assert node.size == len(model) == path.stat().st_size
            assert node.read(0, len(model)) == bytes(model)
            position = 0
            for extent in node.extents() if model else ():
                assert extent.offset == position and extent.kind in (DATA, ZERO)
                if extent.kind == ZERO:
                    assert not any(model[position : position + extent.length])
                position += extent.length
            assert position == len(model)


def test_holes_are_seen_and_made(tmp_path: Path) -> None:
    path = make(tmp_path / "x", 4 * MIB)
    with FileNode(str(path), writable=True) as node:
        node.write(MIB, b"x" * MIB)
        kinds = [(extent.offset, extent.length, extent.kind) for extent in node.extents()]
        if len(kinds) == 1:
            pytest.skip("the file system here tells no holes")
        assert kinds == [(0, MIB, ZERO), (MIB, MIB, DATA), (2 * MIB, 2 * MIB, ZERO)]
        assert node.allocated_bytes() == path.stat().st_blocks * 512 >= MIB
        node.discard(MIB, MIB)
        assert [extent.kind for extent in node.extents()] == [ZERO]
        assert (node.allocated_bytes() or 0) < MIB // 2
        # zeroes without unmap keep their space
        node.write_zeroes(0, MIB)
        assert (node.allocated_bytes() or 0) >= MIB
        node.write_zeroes(0, MIB, unmap=True)
        assert (node.allocated_bytes() or 0) < MIB // 2
        assert node.read(0, MIB) == bytes(MIB)
        # zeroing past the end makes the file longer
        node.write_zeroes(5 * MIB, 100, unmap=True)
        assert node.size == path.stat().st_size == 5 * MIB + 100
        node.write_zeroes(6 * MIB, 100)
        assert node.size == path.stat().st_size == 6 * MIB + 100


def test_requests_outside_are_refused(tmp_path: Path) -> None:
    path = make(tmp_path / "x", 4096)
    with open_image(path, fmt="raw", writable=True) as node:
        for offset, length in [(4096, 1), (-1, 1), (0, 4097), (1 << 70, 0)]:
            with pytest.raises(RangeError):
                node.read(offset, length)
            with pytest.raises(RangeError):
                node.write_zeroes(offset, length)
        with pytest.raises(RangeError):
            node.write(4095, b"xy")
    with open_image(path, fmt="raw") as node:
        for change in (
            lambda: node.write(0, b"x"),
            lambda: node.write_zeroes(0, 1),
            lambda: node.discard(0, 1),
        ):
            with pytest.raises(ReadOnlyError, match="Block node is read-only"):
                change()
    assert path.read_bytes() == bytes(4096)


@pytest.mark.parametrize("mode", ["off", "falloc", "full"])
def test_preallocation(mode: str, tmp_path: Path) -> None:
    path = make(tmp_path / "x", MIB)
    with FileNode(str(path), writable=True) as node:
        node.write(MIB - 4, b"tail")
        node.resize(3 * MIB, mode)
        assert node.size == path.stat().st_size == 3 * MIB
        allocated = node.allocated_bytes() or 0
        assert allocated >= 2 * MIB if mode != "off" else allocated < MIB
        assert node.read(MIB - 4, 8) == b"tail\0\0\0\0"
        node.resize(MIB)
        assert node.size == path.stat().st_size == MIB
        if mode != "off":
            with pytest.raises(CowshedError, match="shrinking"):
                node.resize(4096, mode)
    with (
        pytest.raises(CowshedError, match="Unsupported preallocation mode: metadata"),
        FileNode(str(path), writable=True) as node,
    ):
        node.resize(2 * MIB, "metadata")
    assert path.stat().st_size == MIB


def test_sizes_that_no_host_has(tmp_path: Path) -> None:
    path = make(tmp_path / "x", MIB)
    with FileNode(str(path), writable=True) as node:
        for size in (7 << 60, 9 << 60):
            for mode in ("off", "falloc", "full"):
                with pytest.raises(HostError) as caught:
                    node.resize(size, mode)
                assert caught.value.errno in (22, 27)
                assert node.size == path.stat().st_size == MIB


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Path]:
    """A file system of 1 MiB."""
    directory = tmp_path / "small"
    directory.mkdir()
    mount = shutil.which("mount", path=judges.SEARCH)
    argv = [str(mount), "-t", "tmpfs", "-o", "size=1m", "none", str(directory)]
    if mount is None or os.geteuid() or subprocess.run(argv, capture_output=True).returncode:
        pytest.skip("no small file system can be mounted here (needs root)")
    yield directory
    subprocess.run(["umount", str(directory)], check=True)


def test_full_disk(small: Path) -> None:
    path = make(small / "x", MIB // 2)
    with FileNode(str(path), writable=True) as node:
        node.write(0, b"kept")
        for mode, text in (("falloc", "Could not preallocate new data"), ("full", "Could not write zeros")):
            with pytest.raises(NoSpaceError, match=f"{text}.*: No space left on device"):
                node.resize(4 * MIB, mode)
            assert node.size == path.stat().st_size == MIB // 2
        with pytest.raises(NoSpaceError):
            node.write(0, b"x" * (2 * MIB))
        assert node.read(0, 1) == b"x"
    os.unlink(path)
    path = make(small / "y", 4 * MIB)
    with open_image(path, fmt="raw", writable=True) as image:
        with pytest.raises(NoSpaceError):
            image.write_zeroes(0, 4 * MIB)
        with pytest.raises(NoSpaceError):
            image.write(0, b"x" * (4 * MIB))


def test_opening_errors(tmp_path: Path) -> None:
    (tmp_path / "d").mkdir()
    os.mkfifo(tmp_path / "fifo")
    for name, writable, text in (
        ("none", False, "Could not open '.*none': No such file or directory"),
        ("d", False, "'file' driver requires '.*d' to be a regular file"),
        ("d", True, "Could not open '.*d': Is a directory"),
        ("fifo", False, "'file' driver requires"),
        ("a\0b", False, "Invalid argument"),
        ("x" * 300, False, "File name too long"),
    ):
        with pytest.raises(HostError, match=text):
            FileNode(str(tmp_path / name), writable=writable)


def test_closing_twice_and_after_errors(tmp_path: Path) -> None:
    before = set(os.listdir("/proc/self/fd"))
    node = FileNode(str(make(tmp_path / "x", 10)), writable=True)
    node.close()
    node.close()
    with pytest.raises(HostError):
        FileNode(str(tmp_path))
    assert set(os.listdir("/proc/self/fd")) == before


def test_cache_options(tmp_path: Path) -> None:
    path = make(tmp_path / "x", 4096)
    if not direct_works(tmp_path):
        pytest.skip("the file system here has no O_DIRECT")
    for cache, options, found in (
        ("writeback", {}, "writeback"),
        ("writeback", {"cache.direct": True}, "none"),
        ("none", {"cache": {"direct": False}}, "writeback"),
        ("writeback", {"cache.no-flush": "on"}, "unsafe"),
        ("writethrough", {"cache.direct": "on"}, "directsync"),
        ("directsync", {"file.cache.direct": "off"}, "writethrough"),
    ):
        with open_image(path, fmt="raw", cache=cache, options=options) as node:
            file = node.file
            assert isinstance(file, FileNode) and file.cache.name == found, (cache, options)


# -- raw: a window of a file -------------------------------------------------------------------------------------------


def test_window(tmp_path: Path) -> None:
    path = tmp_path / "x"
    path.write_bytes(b"a" * 4096 + b"b" * 4096 + b"c" * 4096)
    with open_image({"driver": "raw", "offset": 4096, "size": 4096, "file.filename": str(path)}, writable=True) as node:
        assert isinstance(node, RawNode) and node.size == 4096
        assert node.read(0, 4096) == b"b" * 4096
        node.write(100, b"x")
        node.write_zeroes(0, 10)
        with pytest.raises(RangeError):
            node.write(4095, b"xy")
        with pytest.raises(CowshedError, match="Cannot resize fixed-size raw disks"):
            node.resize(8192)
        [extent] = node.extents()
        assert (extent.host_offset, extent.length, extent.node) == (4096, 4096, node.file)
    data = path.read_bytes()
    assert data[:4096] == b"a" * 4096 and data[8192:] == b"c" * 4096
    assert data[4096 : 4096 + 101] == bytes(10) + b"b" * 90 + b"x"


def test_odd_tail_reads_as_zeroes(tmp_path: Path) -> None:
    path = tmp_path / "x"
    path.write_bytes(b"x" * 700)
    with open_image(path, fmt="raw", writable=True) as node:
        assert node.size == 1024
        assert node.read(600, 424) == b"x" * 100 + bytes(324)
        assert all(extent.kind != HOLE for extent in node.extents())
        node.write(1000, b"y")
    assert path.stat().st_size == 1001
    assert path.read_bytes() == b"x" * 700 + bytes(300) + b"y"


# -- devices ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def device(tmp_path: Path) -> Iterator[tuple[str, Path]]:
    """A block device of 8 MiB and the file behind it."""
    path = make(tmp_path / "behind", 8 * MIB)
    losetup = shutil.which("losetup", path=judges.SEARCH)
    if losetup is None or os.geteuid():
        pytest.skip("no loop devices here (needs root)")
    done = subprocess.run([losetup, "--find", "--show", str(path)], capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"no loop devices here: {done.stderr}")
    name = done.stdout.strip()
    yield name, path
    subprocess.run([losetup, "--detach", name], check=True)


def test_device_as_a_disk(device: tuple[str, Path]) -> None:
    name, path = device
    said: list[str] = []
    with open_image(name, fmt="raw", writable=True, warn=said.append) as node:
        assert node.file.driver == "host_device" and node.size == 8 * MIB
        node.write(1000, b"hello" * 1000)
        assert node.read(1000, 5000) == b"hello" * 1000
        node.write(2 * MIB, b"\xff" * MIB)
        node.write_zeroes(2 * MIB, MIB // 2)
        node.write_zeroes(2 * MIB + MIB // 2 + 7, 1000)
        node.flush()
        node.write(5 * MIB, b"\xee" * MIB)
        node.discard(5 * MIB + 100, MIB - 200)
        node.flush()
        assert node.file.size == 8 * MIB
        with pytest.raises(RangeError):
            node.write(8 * MIB - 1, b"xy")
        with pytest.raises(CowshedError, match="Cannot resize device files"):
            node.resize(4 * MIB)
        with pytest.raises(CowshedError, match="Preallocation mode 'full' unsupported for this non-regular file"):
            node.resize(9 * MIB, "full")
        node.resize(8 * MIB)
    data = path.read_bytes()
    assert data[1000:6000] == b"hello" * 1000
    assert data[2 * MIB : 2 * MIB + MIB // 2] == bytes(MIB // 2)
    middle = data[2 * MIB + MIB // 2 : 3 * MIB]
    assert middle == b"\xff" * 7 + bytes(1000) + b"\xff" * (MIB // 2 - 1007)
    edge = data[5 * MIB : 5 * MIB + 512]
    assert edge == b"\xee" * 512 and data[6 * MIB - 512 : 6 * MIB] == b"\xee" * 512
    assert path.stat().st_blocks * 512 < 6 * MIB


def test_device_past_the_cache(device: tuple[str, Path]) -> None:
    name, path = device
    with open_image(name, fmt="raw", writable=True, cache="none") as node:
        node.write(12345, b"direct" * 100)
        assert node.read(12340, 611) == bytes(5) + b"direct" * 100 + bytes(6)
        node.flush()
    assert path.read_bytes()[12345 : 12345 + 600] == b"direct" * 100


def test_device_is_judged_alike(device: tuple[str, Path]) -> None:
    name, _ = device
    judges.need_series("qemu-img")
    judges.qemu_img("info", name)
    for argv, refused in (
        (["resize", "-f", "raw", name, "9M"], "Cannot resize device files"),
        (["create", "-f", "raw", name, "9M"], "Cannot grow device files"),
    ):
        assert refused in judges.run("qemu-img", *argv, ok=[1]).stderr
    with pytest.raises(CowshedError, match=f"{name}: Cannot grow device files"):
        create_image(name, "raw", size=9 * MIB)
    create_image(name, "raw", size=4 * MIB)
    with pytest.raises(OpenError, match=r"'file' driver requires '/dev/loop\d+' to be a regular file"):
        open_image(name, fmt="file")
    told = judges.run("qemu-img", "info", "-f", "file", name, ok=[1]).stderr
    assert told == f"qemu-img: Could not open '{name}': 'file' driver requires '{name}' to be a regular file\n"


def test_image_on_a_device(device: tuple[str, Path]) -> None:
    name, path = device
    create_image(name, "qcow2", size=64 * MIB)
    with open_image(name, writable=True) as node:
        assert node.driver == "qcow2"
        node.write(10 * MIB, b"on a device")
    judges.qemu_img("check", name)
    with open_image(name) as node:
        assert node.read(10 * MIB, 11) == b"on a device"
    # what was there before is not taken for the new image
    create_image(name, "raw", size=4 * MIB)
    with open_image(name) as node:
        assert node.driver == "raw"
    assert path.stat().st_size == 8 * MIB


def test_device_locks(device: tuple[str, Path]) -> None:
    name, _ = device
    create_image(name, "qcow2", size=64 * MIB)
    with open_image(name, writable=True), pytest.raises(OpenError, match='Failed to get shared "write" lock'):
        open_image(name)


def test_character_devices() -> None:
    assert device_driver("/dev/null") == "host_device"
    with HostDeviceNode("/dev/zero") as node:
        assert node.size == 0
    for driver in ("host_device", "host_cdrom", "host_floppy"):
        with open_image("/dev/null", fmt="raw", options={"file.driver": driver}) as node:
            assert node.file.driver == driver and node.size == 0
        with pytest.raises(OpenError, match=f"'{driver}' driver requires '.*' to be either a character or block"):
            open_image(__file__, fmt=driver)
