"""What is measured: the images, the commands, and what each must reach.

A case is one argv, run by the real qemu-img and by ours. `{out}` in it is the file to write, deleted before
each run; `{work}` is a fresh copy of the image named by `copy`, for commands that change it.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

GIB = 1 << 30


@dataclass(frozen=True)
class Target:
    """A figure that must be reached: `what` is wall, cpu, seconds (of wall clock, ours), rss (bytes, ours) or size (of
    the file written)."""

    what: str
    limit: float

    def text(self) -> str:
        if self.what == "rss":
            return f"memory ≤ {self.limit / (1 << 20):.0f} MiB"
        if self.what == "seconds":
            return f"≤ {self.limit:g} s"
        return f"{self.what} ≤ {self.limit:g}"


@dataclass(frozen=True)
class Case:
    """One line of the report.

    `kind`: "command", the argv for both; "floor", against the bare interpreter; "call", seconds a call from
    Python.
    """

    name: str
    title: str
    targets: tuple[Target, ...]
    argv: tuple[str, ...] = ()
    kind: str = "command"
    copy: str | None = None
    expect: tuple[int, ...] = (0,)
    #: how the result is judged once, before it is measured: "compare" (with `source`), "check", "output"
    judge: str = "output"
    source: str | None = None
    fmt: str = "qcow2"
    repeat: int = 1
    #: said in RESULTS.md where a target is missed
    bound: str = ""


def _both(wall: float, cpu: float) -> tuple[Target, ...]:
    return Target("wall", wall), Target("cpu", cpu)


#: what keeps a plain copy's CPU where it is
_KERNEL = (
    "Two copies that the kernel makes, out of the page cache and into it, are most of the CPU of both tools. Mapping "
    "the source would save the first; but then a bad sector, or a file that shrinks meanwhile, would kill the process "
    "with SIGBUS where it now gives an error, so it isn't done. The rest is Python's start (0.03 s) and what it does "
    "for every request of 512 KiB."
)


def _convert(name: str, title: str, source: str, fmt: str, targets: tuple[Target, ...], *extra: str) -> Case:
    origin = Images.formats[source]
    argv = ("convert", *extra, "-f", origin, "-O", fmt, f"{{{source}}}", "{out}")
    bound = _KERNEL if targets is PLAIN else ""
    return Case(name, title, targets, argv, judge="compare", source=source, fmt=fmt, bound=bound)


class Images:
    """The images, made once with the real tools and kept in the scratch directory."""

    formats = {
        "raw": "raw",
        "qcow2": "qcow2",
        "zlib": "qcow2",
        "zstd": "qcow2",
        "empty": "qcow2",
        "mapped": "qcow2",
        "snapped": "qcow2",
    }

    def __init__(self, scratch: Path, qemu_img: str, quick: bool) -> None:
        self.scratch = scratch
        self.qemu_img = qemu_img
        self.disk = GIB // 4 if quick else 2 * GIB
        self.empty = 64 * GIB if quick else 8192 * GIB
        self.mapped = 16 * GIB if quick else 1024 * GIB

    def path(self, name: str) -> Path:
        """The image called NAME, made now if it is not there yet."""
        path = self.scratch / f"{name}.img"
        if not path.exists():
            part = path.with_suffix(".part")
            part.unlink(missing_ok=True)
            print(f"making {path}", file=sys.stderr, flush=True)
            getattr(self, f"_make_{name}")(part)
            part.rename(path)
        return path

    def _qemu(self, *args: str | Path) -> None:
        subprocess.run([self.qemu_img, *map(str, args)], check=True, stdout=subprocess.DEVNULL)

    def _make_raw(self, path: Path) -> None:
        """An ext4 file system with real files in half of it; the other half is a hole."""
        tree = self.scratch / "tree"
        shutil.rmtree(tree, ignore_errors=True)
        _gather(Path("/usr"), tree, self.disk // 2)
        try:
            with open(path, "wb") as file:
                file.truncate(self.disk)
            mkfs = shutil.which("mkfs.ext4", path=os.environ.get("PATH", "") + ":/usr/sbin:/sbin")
            if mkfs is None:
                raise SystemExit("bench: no mkfs.ext4 here to make the test disk (Debian package e2fsprogs)")
            subprocess.run([mkfs, "-q", "-F", "-d", str(tree), str(path)], check=True)
        finally:
            shutil.rmtree(tree, ignore_errors=True)

    def _make_qcow2(self, path: Path) -> None:
        self._qemu("convert", "-f", "raw", "-O", "qcow2", self.path("raw"), path)

    def _make_zlib(self, path: Path) -> None:
        self._qemu("convert", "-c", "-f", "raw", "-O", "qcow2", self.path("raw"), path)

    def _make_zstd(self, path: Path) -> None:
        option = "compression_type=zstd"
        self._qemu("convert", "-c", "-f", "raw", "-O", "qcow2", "-o", option, self.path("raw"), path)

    def _make_empty(self, path: Path) -> None:
        self._qemu("create", "-f", "qcow2", path, str(self.empty))

    def _make_mapped(self, path: Path) -> None:
        self._qemu("create", "-f", "qcow2", "-o", "preallocation=metadata", path, str(self.mapped))

    def _make_snapped(self, path: Path) -> None:
        self.copy("mapped", path)
        self._qemu("snapshot", "-c", "bench", path)

    def copy(self, name: str, target: Path) -> None:
        """A sparse copy."""
        subprocess.run(["cp", "--sparse=always", str(self.path(name)), str(target)], check=True)


def _gather(source: Path, target: Path, limit: int) -> None:
    """Copy LIMIT bytes of files from SOURCE: programs, libraries, documents, as a machine's disk holds them.

    Every fourth file is taken, then the rest as far as needed: large systems give a mixture, small ones
    enough.
    """
    files = []
    for directory, names, leaves in os.walk(source):
        names.sort()
        files += [Path(directory, leaf) for leaf in sorted(leaves)]
    total = 0
    for path in [*files[::4], *(path for i, path in enumerate(files) if i % 4)]:
        try:
            if path.is_symlink() or not path.is_file():
                continue
            size = path.stat().st_size
            if total + size > limit:
                continue
            place = target / path.relative_to(source)
            place.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, place)
            total += size
        except PermissionError:
            continue
        if total > limit - (1 << 16):
            break


PLAIN = _both(1.0, 0.75)
WALL_07 = (Target("wall", 0.7),)
EMPTY = (Target("wall", 1.5),)
BIG = (Target("wall", 0.7), Target("rss", 300 << 20))
ZLIB = (Target("wall", 0.35), Target("size", 1.02))
ZSTD = (Target("wall", 0.8),)
HALF = (Target("wall", 0.5),)

CASES = [
    _convert("raw-raw", "convert raw to raw", "raw", "raw", PLAIN),
    _convert("raw-qcow2", "convert raw to qcow2", "raw", "qcow2", PLAIN),
    _convert("qcow2-raw", "convert qcow2 to raw", "qcow2", "raw", PLAIN),
    _convert("qcow2-qcow2", "convert qcow2 to qcow2", "qcow2", "qcow2", PLAIN),
    _convert("zlib-raw", "convert zlib-compressed qcow2 to raw", "zlib", "raw", WALL_07),
    _convert("zlib-qcow2", "convert zlib-compressed qcow2 to qcow2", "zlib", "qcow2", WALL_07),
    _convert("zstd-raw", "convert zstd-compressed qcow2 to raw", "zstd", "raw", WALL_07),
    _convert("zstd-qcow2", "convert zstd-compressed qcow2 to qcow2", "zstd", "qcow2", WALL_07),
    _convert("empty-raw", "convert an empty 8 TiB qcow2 to raw", "empty", "raw", EMPTY),
    _convert("empty-qcow2", "convert an empty 8 TiB qcow2 to qcow2", "empty", "qcow2", EMPTY),
    _convert("compress-zlib", "convert -c, zlib", "raw", "qcow2", ZLIB, "-c"),
    _convert("compress-zstd", "convert -c, zstd", "raw", "qcow2", ZSTD, "-c", "-o", "compression_type=zstd"),
    Case(
        "compare",
        "compare raw with qcow2, equal",
        (Target("wall", 0.8),),
        ("compare", "-f", "raw", "-F", "qcow2", "{raw}", "{qcow2}"),
    ),
    Case("check", "check a fully mapped 1 TiB qcow2", BIG, ("check", "{mapped}")),
    Case("map", "map a fully mapped 1 TiB qcow2", BIG, ("map", "{mapped}")),
    Case("map-json", "the same as JSON", BIG, ("map", "--output=json", "{mapped}")),
    Case(
        "snapshot-create",
        "snapshot -c on it",
        HALF,
        ("snapshot", "-c", "bench", "{work}"),
        copy="mapped",
        judge="check",
    ),
    Case(
        "snapshot-apply",
        "snapshot -a on it",
        HALF,
        ("snapshot", "-a", "bench", "{work}"),
        copy="snapped",
        judge="check",
    ),
    Case(
        "info",
        "info, against `python3 -I -c pass`",
        (Target("cpu", 2.5),),
        ("info", "{qcow2}"),
        kind="floor",
        repeat=3,
    ),
    Case(
        "info-api",
        "cowshed.info() in process, against running qemu-img info from Python",
        (Target("wall", 0.2),),
        kind="call",
    ),
]
