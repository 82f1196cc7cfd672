"""What is on a device, judged by blkid on what the real tools made."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

import cowshed
import judges
from cowshed.layout import signature

MAKERS = {
    "ext2": ["mkfs.ext2", "-q", "-F"],
    "ext3": ["mkfs.ext3", "-q", "-F"],
    "ext4": ["mkfs.ext4", "-q", "-F"],
    "xfs": ["mkfs.xfs", "-q", "-f"],
    "btrfs": ["mkfs.btrfs", "-q", "-f"],
    "fat12": ["mkfs.vfat", "-F", "12"],
    "fat16": ["mkfs.vfat", "-F", "16"],
    "fat32": ["mkfs.vfat", "-F", "32"],
    "swap": ["mkswap"],
    "gpt": ["parted", "-s", None, "mklabel", "gpt"],
    "msdos": ["parted", "-s", None, "mklabel", "msdos", "mkpart", "primary", "1MiB", "9MiB"],
    "sun": ["parted", "-s", None, "mklabel", "sun"],
    "bsd": ["parted", "-s", None, "mklabel", "bsd"],
    "mac": ["parted", "-s", None, "mklabel", "mac"],
    "dvh": ["parted", "-s", None, "mklabel", "dvh"],
    "nothing": [],
}


@pytest.mark.parametrize("name", MAKERS)
def test_as_blkid_says(tmp_path: Path, name: str) -> None:
    path = tmp_path / "disk"
    with open(path, "wb") as file:
        file.truncate((4 if name == "fat12" else 400) << 20)
    argv = MAKERS[name]
    if argv:
        line = [str(path) if word is None else word for word in argv]
        judges.run(*line, *([] if None in argv else [path]))
    found = {}
    done = subprocess.run([judges.need("blkid"), "-p", "-o", "export", path], capture_output=True, text=True)
    for row in done.stdout.splitlines():
        key, _, value = row.partition("=")
        found[key] = value
    with cowshed.open(path, fmt="raw") as node:
        what = signature.whole(node)
        table = signature.table(node)
    assert (what.name if what and what.kind != signature.TABLE else None) == found.get("TYPE")
    # libblkid knows the disklabel of BSD only inside a partition, and calls SGI's after its maker
    assert table == {"sgi": "dvh", None: "bsd" if name == "bsd" else None}.get(found.get("PTTYPE"), found.get("PTTYPE"))
    _wipe(path)
    done = subprocess.run([judges.need("blkid"), "-p", path], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (2, "")


def _wipe(path: Path) -> None:
    """Zeroes over the marks take all of them away, as whoever wipes a device relies on."""
    with cowshed.open(path, fmt="raw", writable=True) as node:
        for _ in range(4):
            for one in signature.signatures(node):
                node.write(one.offset, bytes(8))
        assert signature.signatures(node) == []


@pytest.mark.parametrize(("at", "mark"), [(0x24000, b"\x0c\xb1\xba\0\0\0\0\0"), (512, b"\x57\x45\x56\x82")])
def test_marks_that_stand_in_one_of_several_places(tmp_path: Path, at: int, mark: bytes) -> None:
    path = tmp_path / "disk"
    path.write_bytes(bytes(at) + mark + bytes(1 << 20))
    with cowshed.open(path, fmt="raw") as node:
        assert [one.offset for one in signature.signatures(node)] == [at]
    _wipe(path)


def test_a_tiny_or_empty_device(tmp_path: Path) -> None:
    for size in (0, 512, 1024, 4096):
        path = tmp_path / f"d{size}"
        path.write_bytes(bytes(size))
        with cowshed.open(path, fmt="raw") as node:
            assert signature.signatures(node) == []
