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


def test_a_tiny_or_empty_device(tmp_path: Path) -> None:
    for size in (0, 512, 1024, 4096):
        path = tmp_path / f"d{size}"
        path.write_bytes(bytes(size))
        with cowshed.open(path, fmt="raw") as node:
            assert signature.signatures(node) == []
