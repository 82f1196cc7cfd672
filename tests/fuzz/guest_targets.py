"""The fuzz targets of what reads guests' disks: one for each parser. See guest_fuzz.py for how they are run.

What a checksum would stop is met anyway: sums are made right again after a mutation (GPT, LVM2, LUKS2, tar), or agree
with everything (ext, XFS). Here are the file systems; tables and containers are in guest_targets_disks.py, what is
inside of file systems in guest_targets_inside.py.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import guest_targets_disks  # noqa: F401 (they register themselves)
import guest_targets_inside  # noqa: F401
from guest_fuzz import TARGETS as TARGETS
from guest_fuzz import Image, Target, target
from guest_images_small import EXT, FAT, ext_image, fat_image
from guest_walks import Agree, agree, filesystem, judged, places_of

import judges
from cowshed.guest.filesystem.table import open_filesystem

MIB = 1 << 20


def _ext(name: str, *, dirty: bool = False) -> Callable[[Path], Target]:
    def make(folder: Path) -> Target:
        path = ext_image(folder, name, dirty=dirty)
        import cowshed.guest.filesystem.ext.commit
        import cowshed.guest.filesystem.ext.write  # noqa: F401

        agree("cowshed.guest.filesystem.ext", "crc32c", "crc16")
        image = Image(path)
        unit = 4096 if name == "ext4-inline" else 1024
        places = None
        if dirty:
            image.read_only = True
            places = places_of(image, lambda: open_filesystem(image, "ext4").close(), unit)
            data = path.read_bytes()
            places += [(at, unit) for at in range(0, len(data), unit) if data[at : at + 4] == b"\xc0\x3b\x39\x98"] * 5
        return filesystem(image, "ext4", unit, writable=True, places=places)

    return make


for _name in EXT:
    target(f"{_name}")(_ext(_name))
for _name in ("ext4", "ext4-plain"):
    target(f"{_name}-journal")(_ext(_name, dirty=True))


def _ext_judged(name: str) -> Callable[[Path], Target]:
    def make(folder: Path) -> Target:
        image = Image(ext_image(folder, name))
        return judged(image, "ext4", 1024, ("e2fsck", "-fy"), ("e2fsck", "-fn"), folder / f"{name}.judged")

    return make


for _name in ("ext4", "ext4-inline", "ext3", "ext2"):
    target(f"{_name}-judged")(_ext_judged(_name))


def _fat(name: str) -> Callable[[Path], Target]:
    return lambda folder: filesystem(Image(fat_image(folder, name)), "vfat", 512, writable=True)


def _fat_judged(name: str) -> Callable[[Path], Target]:
    def make(folder: Path) -> Target:
        image = Image(fat_image(folder, name))
        return judged(image, "vfat", 512, ("fsck.vfat", "-a", "-w"), ("fsck.vfat", "-n"), folder / f"{name}.judged")

    return make


for _name in FAT:
    target(_name)(_fat(_name))
    target(f"{_name}-judged")(_fat_judged(_name))


# -- XFS ---------------------------------------------------------------------------------------------------------------


def xfs_image(folder: Path, version: str) -> Path:
    import xfs_images as images

    path = folder / f"xfs-{version}.img"
    if path.exists():
        return path
    making = folder / f"xfs-{version}.making"
    if version == "4":
        from test_guest_xfs_read import v4_tree

        proto, _ = v4_tree(folder, 250)
        images.make(making, 300 << 20, "-m", "crc=0", "-b", "size=1024", "-p", str(proto))
    else:
        images.make(making, 300 << 20, "-b", "size=1024")
        with images.mounted(making, folder / "mnt") as root:
            images.fill(root, names=150)
        if version == "dirty":
            from test_guest_xfs_log import LOG_FLUSH, Work, shut_down

            with images.mounted(making, folder / "mnt") as root:
                Work(3)(root, 400)
                shut_down(root, LOG_FLUSH)
    os.rename(making, path)
    return path


def _xfs(version: str) -> Callable[[Path], Target]:
    def make(folder: Path) -> Target:
        image = Image(xfs_image(folder, version))
        from cowshed.guest.filesystem.xfs import log, store, superblock

        places: list[tuple[int, int]] | None = None
        if version == "dirty":
            fs = open_filesystem(image, "xfs")
            journal = log.Log(image, fs.superblock)  # type: ignore[attr-defined]
            places = [(journal.where(r.position), min(r.blocks * 512, 40_000)) for r in journal.headers()]
            assert places
        store.Store.verify = lambda *_: None  # type: ignore[method-assign, assignment]
        log.Log._whole = lambda *_: True  # type: ignore[method-assign, assignment]
        superblock.crc32c = lambda *_: Agree(0)  # type: ignore[assignment]
        return filesystem(image, "xfs", 1024, writable=False, places=places)

    return make


for _name in ("4", "5", "dirty"):
    target(f"xfs-{_name}")(_xfs(_name))


# -- ISO 9660 ----------------------------------------------------------------------------------------------------------


def _iso(*options: str) -> Callable[[Path], Target]:
    def make(folder: Path) -> Target:
        from test_guest_iso import source

        path = folder / f"iso{''.join(options)}.iso"
        if not path.exists():
            judges.run("genisoimage", "-quiet", *options, "-o", path, source(folder / f"in{''.join(options)}"))
        return filesystem(Image(path), "iso9660", 2048, writable=False)

    return make


target("iso-rock")(_iso("-R"))
target("iso-joliet")(_iso("-J"))
