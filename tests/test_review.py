"""What a hostile reading of the code found: each was wrong once, and must not come back."""

from __future__ import annotations

from pathlib import Path

import pytest

from cowshed.block.graph import create_image, open_image
from layouts import assert_sound, qemu_io

K64 = 65536
MIB = 1 << 20


def fresh(path: Path, size: int, **options: object) -> Path:
    """A new qcow2 image."""
    create_image(str(path), "qcow2", {"size": size, **options})
    return path


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
