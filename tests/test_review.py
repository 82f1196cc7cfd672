"""What a hostile reading of the code found: each was wrong once, and must not come back."""

from __future__ import annotations

import os
import resource
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from array import array
from pathlib import Path
from typing import Any

import pytest

from cowshed.block.graph import create_image, open_image, reopen
from cowshed.block.protocol.file import FileNode
from cowshed.errors import CowshedError, HostError
from judges import need
from layouts import assert_sound, qemu_io

K64 = 65536
MIB = 1 << 20


def fresh(path: Path, size: int, **options: object) -> Path:
    """A new qcow2 image."""
    create_image(str(path), "qcow2", {"size": size, **options})
    return path


def assert_only_leaks(path: Path) -> None:
    """The real check finds nothing worse than leaked clusters."""
    run = subprocess.run(
        [need("qemu-img"), "check", "-f", "qcow2", str(path)], capture_output=True, text=True, timeout=60
    )
    assert run.returncode in (0, 3), run.stdout + run.stderr


# -- preallocation of a disk that grows --------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["metadata", "falloc", "full"])
def test_growing_with_preallocation_keeps_the_backing_file_below_the_old_end(tmp_path: Path, mode: str) -> None:
    """The cluster around the old end is the backing file's: a new place for it must have its bytes."""
    (tmp_path / "base").write_bytes(b"B" * (K64 + 4096))
    top = fresh(tmp_path / "top", K64 + 4096, backing_file=str(tmp_path / "base"), backing_fmt="raw")
    with open_image(str(top), writable=True) as node:
        node.resize(MIB, mode)
    qemu_io(top, [f"read -P 0x42 0 {K64 + 4096}", f"read -P 0 {K64 + 4096} {MIB - K64 - 4096}"])
    assert_sound(top)


def test_growing_with_preallocation_keeps_zero_subclusters(tmp_path: Path) -> None:
    """Zeroes that hide a longer backing file must hide it when the clusters get a place, too."""
    (tmp_path / "base").write_bytes(b"B" * MIB)
    top = fresh(tmp_path / "top", 2 * K64, backing_file=str(tmp_path / "base"), backing_fmt="raw", extended_l2=True)
    with open_image(str(top), writable=True) as node:
        node.resize(MIB, "metadata")
    qemu_io(top, [f"read -P 0x42 0 {2 * K64}", f"read -P 0 {2 * K64} {MIB - 2 * K64}"])
    assert_sound(top)


@pytest.mark.parametrize("mode", ["metadata", "falloc", "full"])
def test_preallocation_shows_nothing_of_freed_clusters(tmp_path: Path, mode: str) -> None:
    """Clusters that had another use before, on a file system that punches no holes."""
    path = fresh(tmp_path / "disk", MIB)
    with open_image(str(path), writable=True) as node:
        node.write(0, b"S" * MIB)
        node.snapshot_create("s")
        for at in range(0, MIB, K64):
            node.write_compressed(at, b"x" * K64)
        node.flush()
        node.file._no_punch = True  # type: ignore[attr-defined]
        node.snapshot_delete("s")
        node.file._no_punch = False  # type: ignore[attr-defined]
        node.resize(2 * MIB, mode)
    qemu_io(path, [f"read -P 0x78 0 {MIB}", f"read -P 0 {MIB} {MIB}"])
    assert_sound(path)


# -- tables in memory --------------------------------------------------------------------------------------------------


def test_a_reader_that_waits_for_a_snapshot_keeps_no_old_table(tmp_path: Path) -> None:
    """What the L1 table said before the lock was taken may be over afterwards."""
    path = fresh(tmp_path / "disk", MIB)
    with open_image(str(path), writable=True) as node:
        node.write(0, b"1" * K64)
        node.flush()
        with node.lock:
            node.l2.clear()  # type: ignore[attr-defined]
            reader = threading.Thread(target=node.read, args=(0, 512))
            reader.start()
            time.sleep(0.3)  # it has seen that there is a table, and wants the lock to load it
            node.snapshot_create("s")
        reader.join()
        node.write(0, b"2" * 512)
        node.write(K64, b"3" * 512)
    qemu_io(path, ["read -P 0x32 0 512", "read -P 0x31 512 65024", f"read -P 0x33 {K64} 512"])
    assert_sound(path)


def test_a_write_that_fails_while_it_is_linked_frees_nothing_that_is_linked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = fresh(tmp_path / "disk", MIB)
    with open_image(str(path), writable=True) as node:
        for at in range(0, 4 * K64, K64):
            node.write_compressed(at, b"x" * K64)
        node.flush()

        def fail(*args: object, **more: object) -> None:
            raise HostError("Input/output error", errno=5)

        with monkeypatch.context() as patch:
            patch.setattr(node, "_free_entry", fail)
            with pytest.raises(HostError):
                node.write(0, b"y" * (4 * K64))
        node.flush()
        node.write(8 * K64, b"z" * (4 * K64))
    assert_only_leaks(path)
    with open_image(str(path)) as node:
        assert set(node.read(0, 4 * K64)) <= set(b"xy")


def test_compressed_clusters_are_not_written_over_after_a_failure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The bytes of those that were linked before the failure are taken."""
    far = 512 * MIB  # another L2 table
    path = fresh(tmp_path / "disk", 2 * far)
    with open_image(str(path), writable=True) as node:
        node.write_compressed(0, b"a" * K64)
        pack = node.codec.compress  # type: ignore[attr-defined]
        pieces = [(at, pack(memoryview(letter * K64), K64)) for at, letter in ((K64, b"b"), (far, b"c"))]
        real = node.l2_for_write  # type: ignore[attr-defined]

        def fail(index: int) -> object:
            if index:
                raise HostError("Input/output error", errno=5)
            return real(index)

        with monkeypatch.context() as patch:
            patch.setattr(node, "l2_for_write", fail)
            with pytest.raises(HostError):
                node.write_packed(pieces)  # type: ignore[attr-defined]
        node.write_compressed(2 * K64, b"d" * K64)
        assert node.read(K64, K64) == b"b" * K64
    qemu_io(path, [f"read -P 0x61 0 {K64}", f"read -P 0x62 {K64} {K64}", f"read -P 0x64 {2 * K64} {K64}"])


def test_the_header_never_points_to_a_refcount_table_that_is_not_written(tmp_path: Path) -> None:
    """The table has moved in memory when something else makes the header be written; then the power goes."""
    path = fresh(tmp_path / "disk", 16 * MIB, cluster_size=512, refcount_bits=64)
    with open_image(str(path), writable=True) as node:
        node.write(0, b"x" * (4 * MIB))
        assert node.refcounts.table_moved  # type: ignore[attr-defined]
        node.amend({"lazy_refcounts": True})
        shutil.copyfile(path, tmp_path / "cut")
    assert_only_leaks(tmp_path / "cut")
    assert_sound(path)


# -- reference counts that lie -----------------------------------------------------------------------------------------


def lie(path: Path, cluster: int) -> None:
    """Say that nothing refers to this cluster (16-bit counts)."""
    data = bytearray(path.read_bytes())
    table = int.from_bytes(data[48:56], "big")
    block = int.from_bytes(data[table : table + 8], "big")
    data[block + 2 * cluster : block + 2 * cluster + 2] = bytes(2)
    path.write_bytes(data)


@pytest.mark.parametrize("cluster", [0, 1, 2, 3, 4])
def test_live_metadata_is_not_taken_for_free_space(tmp_path: Path, cluster: int) -> None:
    """Header, refcount table, refcount block, L1 and L2 table, each with a count of 0."""
    path = fresh(tmp_path / "disk", 1024 * MIB)
    qemu_io(path, [f"write -P 1 0 {K64}"])
    before = path.read_bytes()
    for change in (
        lambda node: node.write(512 * MIB, b"x" * 512),
        lambda node: node.write(K64, b"x" * 512),
        lambda node: node.write_compressed(K64, b"x" * K64),
        lambda node: node.snapshot_create("s"),
    ):
        path.write_bytes(before)
        lie(path, cluster)
        try:
            with open_image(str(path), writable=True) as node:
                change(node)
        except CowshedError:
            pass
        with open_image(str(path)) as node:
            assert node.read(0, K64) == b"\x01" * K64
        run = subprocess.run([need("qemu-img"), "check", str(path)], capture_output=True, text=True, timeout=60)
        assert run.stderr.count("ERROR") <= 2, run.stderr  # the lie, and what was counted up from it


def test_a_failed_switch_leaves_the_image_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """When the header's write fails nobody knows which state the file is in: no more of it is written."""
    path = fresh(tmp_path / "disk", MIB)
    node = open_image(str(path), writable=True)
    node.write(0, b"1" * K64)
    node.flush()

    real = node.file.write

    def fail(offset: int, data: Any) -> None:
        if not offset:
            raise HostError("Input/output error", errno=5)
        real(offset, data)

    with monkeypatch.context() as patch:
        patch.setattr(node.file, "write", fail)
        with pytest.raises(HostError):
            node.snapshot_create("s")
    with pytest.raises(HostError):
        node.write(0, b"2" * K64)
    with pytest.raises(HostError):
        node.snapshot_create("t")
    with pytest.raises(HostError):
        node.flush()
    node.close()
    qemu_io(path, [f"read -P 0x31 0 {K64}"])
    assert_sound(path)


# -- files -------------------------------------------------------------------------------------------------------------


def test_what_a_failed_write_left_behind_the_end_never_shows(tmp_path: Path) -> None:
    """Half a cluster is written, then the file may grow no more; later the same cluster is taken for fewer bytes."""
    path = fresh(tmp_path / "disk", MIB)
    with open_image(str(path), writable=True) as node:
        node.write(0, b"1" * K64)
        node.flush()
        soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (node.file.size + K64 // 2, hard))
        try:
            with pytest.raises(CowshedError):
                node.write(K64, b"S" * K64)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        node.flush()
        node.write(2 * K64, b"2" * 512)
    qemu_io(path, [f"read -P 0 {K64} {K64}", f"read -P 0x32 {2 * K64} 512", f"read -P 0 {2 * K64 + 512} {K64 - 512}"])


def test_a_flush_that_failed_is_not_forgotten(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernel reports lost pages once; the next flush must not call them safe."""
    (tmp_path / "f").write_bytes(bytes(4096))
    node = FileNode(str(tmp_path / "f"), writable=True)
    node.write(0, b"x")

    def fail(fd: int) -> None:
        raise OSError(5, "Input/output error")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fdatasync", fail)
        with pytest.raises(HostError):
            node.flush()
    with pytest.raises(HostError):
        node.flush()
    node.close()


def test_zeroing_never_cuts_a_file_that_grew_meanwhile(tmp_path: Path) -> None:
    for unmap in (False, True):
        path = tmp_path / f"f{unmap}"
        path.write_bytes(b"")
        node = FileNode(str(path), writable=True)
        path.write_bytes(b"x" * 16384)  # somebody else
        node.write_zeroes(4096, 4096, unmap)
        node.close()
        assert path.read_bytes() == b"x" * 4096 + bytes(4096) + b"x" * 8192


def test_zeroing_behind_the_end_makes_the_file_longer_everywhere(tmp_path: Path) -> None:
    """Where zeroing is punching and reserving (tmpfs), which both keep the length."""
    with tempfile.TemporaryDirectory(dir="/dev/shm" if Path("/dev/shm").is_dir() else None) as name:
        for where in (tmp_path, Path(name)):
            path = where / "f"
            path.write_bytes(b"x")
            node = FileNode(str(path), writable=True)
            node.write_zeroes(4096, 4096)
            assert node.size == 8192
            node.close()
            assert path.stat().st_size == 8192


def test_direct_reads_that_come_in_pieces(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = bytes(range(256)) * 65
    (tmp_path / "f").write_bytes(data)
    node = FileNode(str(tmp_path / "f"))
    node.align = 4096  # as with cache=none, whatever this file system makes of O_DIRECT
    real = os.preadv
    monkeypatch.setattr(os, "preadv", lambda fd, views, at: real(fd, [views[0][:4096]], at))
    assert node.read(100, len(data) - 100) == data[100:]
    view = memoryview(bytearray(b"?" * 20000))
    node.read_into(4096, view)
    assert bytes(view) == data[4096:] + bytes(20000 - len(data) + 4096)
    node.close()


def test_a_direct_write_cuts_nothing_of_another(tmp_path: Path) -> None:
    """The length that a ragged write restores is the one it found when it had the lock."""
    (tmp_path / "f").write_bytes(b"")
    node = FileNode(str(tmp_path / "f"), writable=True)
    node.align = 4096
    with node.lock:
        other = threading.Thread(target=node.write, args=(0, b"a" * 100))
        other.start()
        time.sleep(0.3)
        node.write(0, b"b" * 8192)
    other.join()
    node.close()
    assert (tmp_path / "f").read_bytes() == b"a" * 100 + b"b" * 8092


def test_buffers_of_larger_items_are_bytes_all_the_same(tmp_path: Path) -> None:
    numbers = array("Q", range(512, 1024))
    for fmt in ("raw", "qcow2"):
        path = tmp_path / fmt
        create_image(str(path), fmt, {"size": 8192})
        with open_image(str(path), fmt=fmt, writable=True) as node:
            node.write(0, memoryview(numbers))
            assert node.read(0, 8192) == numbers.tobytes() + bytes(4096)
            with pytest.raises(CowshedError):
                node.write(8192 - 512, memoryview(numbers))
            back = array("Q", bytes(4096))
            node.read_into(0, memoryview(back))
            assert back == numbers


# -- metadata that asks for everything there is ------------------------------------------------------------------------


def word(path: Path, at: int) -> int:
    """A big-endian 64-bit word of the file."""
    with open(path, "rb") as file:
        file.seek(at)
        return int.from_bytes(file.read(8), "big")


def poke(path: Path, at: int, data: bytes) -> None:
    with open(path, "r+b") as file:
        file.seek(at)
        file.write(data)


def bounded(path: Path, change: str) -> str:
    """Run ``change`` on ``node``, in 1 GiB of memory and two minutes; the name of the error, or "fine"."""
    code = f"""
import resource
resource.setrlimit(resource.RLIMIT_AS, (1 << 30, 1 << 30))
from cowshed.block.graph import open_image
from cowshed.errors import CowshedError
try:
    with open_image({str(path)!r}, writable=True) as node:
        {change}
    print("fine")
except CowshedError as error:
    print(type(error).__name__)
"""
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert not run.stderr, run.stderr
    return run.stdout.strip()


def test_a_host_offset_behind_everything_is_no_reason_to_count_up_to_it(tmp_path: Path) -> None:
    path = fresh(tmp_path / "disk", MIB)
    qemu_io(path, [f"write -P 1 0 {K64}"])
    l2 = word(path, word(path, 40)) & 0x00FFFFFFFFFFFE00
    poke(path, l2 + 8, (0x00FFFFFFFFFF0000).to_bytes(8, "big"))
    assert bounded(path, "node.snapshot_create('s')") == "CorruptError"


@pytest.mark.parametrize("times", [1, MIB])
def test_refcount_blocks_far_behind_the_end_take_no_memory(tmp_path: Path, times: int) -> None:
    """One block at both ends of the largest table, or in all of it."""
    path = fresh(tmp_path / "disk", MIB)
    block = word(path, word(path, 48)).to_bytes(8, "big")
    table = 4 * MIB
    os.truncate(path, table + 8 * MIB)
    poke(path, table, block)
    poke(path, table + 8 * MIB - 8 * times, block * times)
    poke(path, 48, table.to_bytes(8, "big") + (128).to_bytes(4, "big"))
    assert bounded(path, "node.snapshot_create('s')").endswith("Error")


def test_a_snapshot_with_a_giant_l1_table_takes_no_memory(tmp_path: Path) -> None:
    path = fresh(tmp_path / "disk", MIB, cluster_size=512)
    with open_image(str(path), writable=True) as node:
        node.snapshot_create("s")
    poke(path, word(path, 64) + 8, b"\xff" * 4)
    assert bounded(path, "node.write(0, b'x')") == "fine"


def test_names_and_ids_of_any_length(tmp_path: Path) -> None:
    path = fresh(tmp_path / "disk", MIB)
    with open_image(str(path), writable=True) as node:
        node.snapshot_create("n" * 70_000)
        assert [item.name for item in node.snapshots()] == ["n" * 255]  # as the real tool cuts them
        node.snapshot_create("x" * 255)
    table = word(path, 64)
    # the first becomes an id of many digits: its name's bytes and the second entry's belong to it then
    poke(path, 60, (1).to_bytes(4, "big"))
    os.truncate(path, max(path.stat().st_size, table + 65536))
    poke(path, table + 12, (5000).to_bytes(2, "big") + bytes(2))
    poke(path, table + 64, b"9" * 5000)
    with open_image(str(path), writable=True) as node:
        assert node.snapshot_create("t").id == "1"


@pytest.mark.parametrize("compat", ["0.10", "1.1"])
def test_after_corruption_is_met_nothing_more_is_written(tmp_path: Path, compat: str) -> None:
    """Half of what a write replaced was to be freed when the bad entry came: none of it may be."""
    path = fresh(tmp_path / "disk", MIB, compat=compat)
    qemu_io(path, [f"write -P 1 0 {4 * K64}"])
    subprocess.run([need("qemu-img"), "snapshot", "-c", "s", str(path)], check=True, timeout=60)
    l2 = word(path, word(path, 40)) & 0x00FFFFFFFFFFFE00
    for at, tail in ((0, 0), (8, 0), (16, 0x200)):  # the third is not aligned, and all are the snapshot's too
        poke(path, l2 + at, ((word(path, l2 + at) & ~(1 << 63)) | tail).to_bytes(8, "big"))
    node = open_image(str(path), writable=True)
    with pytest.raises(CowshedError):
        node.write(0, b"2" * (4 * K64))
    with pytest.raises(CowshedError):
        node.write(512 * 1024, b"3" * 512)
    with pytest.raises(CowshedError):
        node.resize(2 * MIB)
    with pytest.raises(CowshedError):
        node.flush()
    node.close()
    with open_image(str(path)) as node:
        assert node.read(0, 2 * K64) == b"\x01" * (2 * K64)
    run = subprocess.run([need("qemu-img"), "check", str(path)], capture_output=True, text=True, timeout=60)
    assert "refcount=0 reference" not in run.stdout + run.stderr


# -- reopening --------------------------------------------------------------------------------------------------------


def test_a_base_that_can_not_be_reopened_stays_as_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its data file is not the failed node's to close."""
    path = fresh(tmp_path / "disk", MIB, data_file=str(tmp_path / "data"))
    qemu_io(path, [f"write -P 1 0 {K64}"])
    with open_image(str(path)) as node:

        def fail(image: object) -> None:
            raise HostError("Input/output error", errno=5)

        with monkeypatch.context() as patch:
            patch.setattr("cowshed.block.format.qcow2.open._make_ready", fail)
            with pytest.raises(HostError):
                reopen(node, writable=True)
        assert node.read(0, K64) == b"\x01" * K64
