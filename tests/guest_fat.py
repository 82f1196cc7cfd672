"""What the tests of FAT share: images by the real mkfs.vfat, trees as our driver and as mtools show them."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import judges
from cowshed.block.graph import open_image
from cowshed.guest.filesystem import fat
from cowshed.guest.filesystem.base import FileSystem

KIB, MIB = 1 << 10, 1 << 20
NOW = 1_700_000_000 * 10**9
#: mtools takes names in the locale's encoding
UTF8 = {"LC_ALL": "C.UTF-8", "MTOOLS_SKIP_CHECK": "1", "TZ": "UTC"}

#: name -> size and mkfs.vfat's options
VARIANTS: dict[str, tuple[int, tuple[str, ...]]] = {
    "floppy": (1440 * KIB, ()),
    "12": (4 * MIB, ("-F", "12")),
    "12 big sectors": (16 * MIB, ("-F", "12", "-S", "4096", "-a")),
    "16": (20 * MIB, ("-F", "16")),
    "16 one table": (6 * MIB, ("-F", "16", "-s", "2", "-f", "1")),
    "16 odd": (9 * MIB + 1536 + 7, ("-F", "16", "-s", "1", "-r", "112", "-a")),
    "16 big clusters": (200 * MIB, ("-F", "16", "-s", "16", "-S", "1024")),
    "32": (40 * MIB, ("-F", "32")),
    "32 small": (1 * MIB, ("-F", "32", "-s", "1", "-n", "SMALL")),
    "32 big sectors": (300 * MIB, ("-F", "32", "-S", "4096", "-s", "1")),
    "32 backup elsewhere": (64 * MIB, ("-F", "32", "-R", "9", "-b", "7", "-a", "-s", "1")),
}
#: mtools tells the kind by the number of clusters alone, and takes a FAT32 with few of them for something else
MTOOLS = [name for name in VARIANTS if name != "32 small"]


def blank(path: Path, size: int) -> Path:
    with open(path, "wb") as file:
        file.truncate(size)
    return path


def mkfs(path: Path, variant: str) -> Path:
    size, options = VARIANTS[variant]
    judges.run("mkfs.vfat", *options, blank(path, size))
    return path


def fsck(path: Path) -> None:
    judges.run("fsck.vfat", "-n", path)


def mtools(tool: str, image: Path, *args: str | Path) -> str:
    return judges.run(tool, "-i", image, *args, env=UTF8).stdout


@contextmanager
def opened(path: Path, writable: bool = False) -> Iterator[FileSystem]:
    with open_image(str(path), fmt="raw", writable=writable) as node:
        fs = fat.open(node, writable)
        try:
            yield fs
        finally:
            fs.close()


def tree(fs: FileSystem, directory: int | None = None, path: str = "") -> dict[str, bytes | None]:
    """path -> content, None for directories."""
    found: dict[str, bytes | None] = {}
    for name, ino, kind in fs.entries(fs.root if directory is None else directory):
        if name in (b".", b".."):
            continue
        here = f"{path}/{name.decode()}"
        if kind == "d":
            found[here] = None
            found |= tree(fs, ino, here)
        else:
            found[here] = fs.read(ino, 0, 1 << 33)
    return found


def mtools_tree(image: Path, folder: Path) -> dict[str, bytes | None]:
    """The same as mtools shows it."""
    folder.mkdir()
    if not mtools("mdir", image, "-b", "-a", "::/").strip():
        return {}
    mtools("mcopy", image, "-s", "-n", "-b", "::/*", folder)
    return host_tree(folder)


def host_tree(folder: Path) -> dict[str, bytes | None]:
    found: dict[str, bytes | None] = {}
    for where, directories, files in os.walk(folder):
        base = "" if where == str(folder) else "/" + os.path.relpath(where, folder)
        for name in directories:
            found[f"{base}/{name}"] = None
        for name in files:
            found[f"{base}/{name}"] = Path(where, name).read_bytes()
    return found


def fill(image: Path, folder: Path) -> dict[str, bytes | None]:
    """Files and directories put in by mtools."""
    folder.mkdir()
    deep = folder / "Ein langer Ordner" / "tief"
    deep.mkdir(parents=True)
    (folder / "EMPTY").mkdir()
    (folder / "leer.txt").write_bytes(b"")
    (folder / "Makefile").write_bytes(b"all:\n")
    (folder / "lower.c").write_bytes(os.urandom(1000))
    (folder / "UPPER.TXT").write_bytes(os.urandom(30_000))
    (folder / "Ärger im Großen+Ganzen [1].tar.gz").write_bytes(os.urandom(70_001))
    (deep / ("n" * 200)).write_bytes(b"n")
    for number in range(60):
        (folder / "Ein langer Ordner" / f"Datei Nummer {number:03}.text").write_bytes(b"%d" % number * number)
    mtools("mcopy", image, "-s", "-n", "-m", *sorted(folder.iterdir()), "::/")
    return host_tree(folder)


def repair(path: Path) -> str:
    """fsck.vfat -a: what it said. Whatever it mends must be well afterwards."""
    done = subprocess.run([judges.need("fsck.vfat"), "-a", str(path)], capture_output=True, text=True, timeout=60)
    assert done.returncode in (0, 1), done.stdout + done.stderr
    return done.stdout
