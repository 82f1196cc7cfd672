"""Block devices and file systems that are files: loop devices, each given back by its own name.

Both need root; without it, the test that asks is skipped loudly, or fails on CI (see judges.py).
"""

from __future__ import annotations

import contextlib
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import judges


def released(path: Path, *options: str) -> None:
    """Wait until no loop device has the file (``options``: that part of it).

    A name space that another test made at the wrong moment may hold a mount of it a little longer, and with it what
    the kernel has not written yet.
    """
    deadline = time.monotonic() + 120
    while subprocess.run([judges.need("losetup"), "-j", path, *options], capture_output=True, check=True).stdout:
        assert time.monotonic() < deadline, f"{path} stays mounted elsewhere"
        time.sleep(0.02)


@contextlib.contextmanager
def loop_device(path: Path, size: int, *, sector: int = 512) -> Iterator[Path]:
    """A block device of SIZE bytes whose content is the file PATH, which is made."""
    losetup = judges.need("losetup")
    with open(path, "wb") as file:
        file.truncate(size)
    argv = [losetup, "--find", "--show", "--sector-size", str(sector), str(path)]
    done = subprocess.run(argv, capture_output=True, text=True)
    if done.returncode:
        judges.absent(f"loop devices, which need root ({done.stderr.strip()})")
    device = Path(done.stdout.strip())
    try:
        yield device
    finally:
        # nodes of partitions outlive a detached device, and would be found on the next file it is given
        partx = judges.find("partx")
        if partx is not None:
            subprocess.run([partx, "--delete", device], capture_output=True)
        subprocess.run([losetup, "--detach", device], check=True)


@contextlib.contextmanager
def file_system(kind: str, folder: Path, size: int, *options: str) -> Iterator[Path]:
    """A file system of KIND ("xfs") and SIZE bytes, mounted on a directory below FOLDER."""
    judges.need(f"mkfs.{kind}")
    mount, umount = judges.need("mount"), judges.need("umount")
    with loop_device(folder / f"{kind}.img", size) as device:
        judges.run(f"mkfs.{kind}", "-q", *options, device)
        directory = folder / kind
        directory.mkdir()
        done = subprocess.run([mount, "-t", kind, device, directory], capture_output=True, text=True)
        if done.returncode:
            judges.absent(f"the file system {kind} in this kernel ({done.stderr.strip()})")
        try:
            yield directory
        finally:
            subprocess.run([umount, directory], check=True)
