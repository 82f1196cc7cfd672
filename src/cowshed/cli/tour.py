"""``cowshed tour``: what cowshed does, on real files, as a terminal session of some seconds.

Everything happens in a temporary directory that is gone afterwards. What the commands did is verified by content: a
plain copy of every disk is kept in memory, and the disks are read back and compared with it by hash.
"""

from __future__ import annotations

import hashlib
import os
import random
import shlex
import shutil
import stat
import tempfile
from time import monotonic

from ..block.graph import open_image
from ..errors import CowshedError
from ..ops.info import info
from ..wire.human import size
from .output import Output, Stop

TYPE_CHECKING = False
if TYPE_CHECKING:
    pass

_HELP = """usage: cowshed tour

Makes, converts, snapshots, resizes, checks, maps and commits disk images in a temporary directory, shows the commands
and what they print, verifies the disks by content hash, and leaves nothing behind.
"""

MODES = ("off", "metadata", "falloc", "full")
#: bytes of the disks that show the preallocation modes, and the smaller ones where time or space is short
LARGE = 10 << 30
SMALLER = (4 << 30, 2 << 30, 1 << 30, 256 << 20)
#: seconds that writing a fully allocated disk may take, and bytes written to find out how many it will
PATIENCE = 8.0
SAMPLE = 64 << 20
#: bytes of the disk on which the rest is shown
DISK = 64 << 20
CHUNK = 4 << 20


class Tour:
    """One run: prints, runs commands, and counts what was verified."""

    def __init__(self, out: Output) -> None:
        self.out = out
        colour = out.tty and "NO_COLOR" not in os.environ and os.environ.get("TERM") != "dumb"
        self.note_style, self.prompt_style, self.plain = ("\x1b[36m", "\x1b[1m", "\x1b[0m") if colour else ("", "", "")
        self.verified = 0
        self.bytes = 0

    # -- the session --------------------------------------------------------------------------------------------------

    def say(self, text: str) -> None:
        self.out.write(f"\n{self.note_style}# {text}{self.plain}\n")
        self.out.flush()

    def show(self, line: str) -> None:
        """A line as if somebody had typed it."""
        self.out.write(f"{self.prompt_style}{line}{self.plain}\n")
        self.out.flush()

    def do(self, command: str, *, status: int = 0) -> None:
        """Run a qemu-img command in this process and show it. Any other exit status than ``status`` ends the tour."""
        from .main import call

        self.show(f"$ cowshed qemu-img {command}")
        out = Output("qemu-img")
        code = call("qemu-img", ["qemu-img", *shlex.split(command)], out, within=True)
        out.flush()
        if code != status:
            self.out.error(f"'qemu-img {command}' ended with status {code} and not {status}")
            raise Stop(1)

    # -- proof --------------------------------------------------------------------------------------------------------

    def prove(self, name: str, model: bytes | bytearray) -> None:
        """The disk ``name`` reads as ``model``, byte for byte, or the tour ends."""
        if _digest_of(name) != hashlib.sha256(model).digest():
            self.out.error(f"{name} does not read as it should")
            raise Stop(1)
        self.verified += 1
        self.bytes += len(model)


def run(argv: list[str], out: Output) -> int:
    """``argv``: what follows ``tour``. Returns the exit status."""
    if argv:
        if argv in (["-h"], ["--help"]):
            out.write(_HELP)
            return 0
        out.error("the tour takes no arguments", _HELP)
        return 1
    tour = Tour(out)
    began = monotonic()
    here = os.getcwd()
    try:
        with tempfile.TemporaryDirectory(prefix="cowshed-tour-") as folder:
            os.chdir(folder)
            try:
                for scene in (_preallocation, _base_and_overlays, _convert, _snapshots, _resize, _commit):
                    scene(tour)
            finally:
                os.chdir(here)
    except CowshedError as error:
        out.report(error)
        return 1
    except BrokenPipeError:
        raise
    except OSError as error:
        out.error(f"the tour needs a place to work in: {error.strerror}: {error.filename}")
        return 1
    tour.say(
        f"Verified: {tour.verified} disks ({size(tour.bytes)} of content) read back and found right by SHA-256, in "
        f"{monotonic() - began:.1f} s; nothing was left behind."
    )
    return 0


# -- scenes -----------------------------------------------------------------------------------------------------------


def _preallocation(tour: Tour) -> None:
    tour.say("A new disk takes next to nothing, or all of its space at once: four ways of preallocation")
    rows = []
    for mode in MODES:
        length = _affordable(mode)
        text = size(length).replace(" GiB", "G").replace(" MiB", "M")
        if length < LARGE:
            tour.say(f"{mode} takes the space for good, so here it is a disk of {size(length)}")
        tour.do(f"create -q -f qcow2 -o preallocation={mode} {mode}.qcow2 {text}")
        facts = info(f"{mode}.qcow2")
        rows.append((mode, size(facts.virtual_size), size(facts.actual_size or 0)))
        os.unlink(f"{mode}.qcow2")
    tour.out.write(f"\n{'preallocation':<16}{'virtual size':<16}real size\n")
    for row in rows:
        tour.out.write("{:<16}{:<16}{}\n".format(*row))


def _affordable(mode: str) -> int:
    """How large the disk for a mode may be, so that it neither fills this file system nor takes long."""
    if mode in ("off", "metadata"):
        return LARGE
    free = shutil.disk_usage(".").free
    speed = _speed() if mode == "full" or not _can_reserve() else float("inf")
    for length in (LARGE, *SMALLER):
        if length * 2 <= free and length / speed <= PATIENCE:
            return length
    return SAMPLE


def _can_reserve() -> bool:
    """Does the file system reserve space without writing it?"""
    began = monotonic()
    with tempfile.TemporaryFile(dir=".") as file:
        try:
            os.posix_fallocate(file.fileno(), 0, 1 << 30)
        except OSError:
            return False
    return monotonic() - began < 0.25


def _speed() -> float:
    """Bytes a second that this file system takes."""
    block = bytes(1 << 20)
    with tempfile.TemporaryFile(dir=".") as file:
        began = monotonic()
        for _ in range(SAMPLE >> 20):
            file.write(block)
        os.fdatasync(file.fileno())
        return SAMPLE / max(monotonic() - began, 1e-6)


#: what every disk of the tour should read as, by name
_models: dict[str, bytearray] = {}


def _base_and_overlays(tour: Tour) -> None:
    tour.say("A base that nobody writes to any more, and two overlays that keep only what is different")
    tour.do(f"create -f qcow2 base.qcow2 {DISK >> 20}M")
    model = bytearray(DISK)
    _models["base"] = model
    noise = random.Random(1)
    _write(
        tour,
        "base.qcow2",
        model,
        (0, "random.randbytes(3 << 20)", noise.randbytes(3 << 20)),
        (20 << 20, 'b"cowshed " * 100_000', b"cowshed " * 100_000),
    )
    tour.show("$ chmod a-w base.qcow2")
    os.chmod("base.qcow2", stat.S_IRUSR | stat.S_IRGRP | stat.S_IROTH)
    for name in ("monday", "tuesday"):
        tour.do(f"create -f qcow2 -b base.qcow2 -F qcow2 {name}.qcow2")
        _models[name] = bytearray(model)
    _write(
        tour,
        "monday.qcow2",
        _models["monday"],
        (1 << 20, 'b"monday" * 50_000', b"monday" * 50_000),
        (40 << 20, "random.randbytes(300 << 10)", noise.randbytes(300 << 10)),
    )
    tour.do("info --backing-chain monday.qcow2")
    tour.do("map monday.qcow2")
    for name, content in _models.items():
        tour.prove(f"{name}.qcow2", content)


def _write(tour: Tour, name: str, model: bytearray, *pieces: tuple[int, str, bytes]) -> None:
    """Write ``(offset, how it is shown, data)`` into a disk through the Python API, and into its model."""
    tour.show(f'>>> with cowshed.open("{name}", writable=True) as disk:')
    with open_image(name, writable=True) as disk:
        for offset, shown, data in pieces:
            place = f"{offset >> 20} << 20" if offset else "0"
            tour.show(f"...     disk.write({place}, {shown})")
            disk.write(offset, data)
            model[offset : offset + len(data)] = data


def _convert(tour: Tour) -> None:
    tour.say("Convert: out of the chain into one file, raw, VMware's, or compressed")
    content = _models["monday"]
    for how, name in (("-O raw", "monday.raw"), ("-O vmdk", "monday.vmdk"), ("-c -O qcow2", "monday-small.qcow2")):
        tour.do(f"convert -f qcow2 {how} monday.qcow2 {name}")
        tour.prove(name, content)
    tour.do("compare monday.qcow2 monday-small.qcow2")


def _snapshots(tour: Tour) -> None:
    tour.say("Internal snapshots: go on, regret it, and go back")
    model = _models["tuesday"]
    before = bytearray(model)
    tour.do("snapshot -c before tuesday.qcow2")
    _write(tour, "tuesday.qcow2", model, (0, 'b"a mistake " * 100_000', b"a mistake " * 100_000))
    tour.prove("tuesday.qcow2", model)
    tour.do("snapshot -l tuesday.qcow2")
    tour.do("snapshot -a before tuesday.qcow2")
    tour.do("snapshot -d before tuesday.qcow2")
    _models["tuesday"] = before
    tour.prove("tuesday.qcow2", before)


def _resize(tour: Tour) -> None:
    tour.say("Growing is harmless; shrinking has to be asked for twice")
    model = _models["tuesday"]
    tour.do("resize tuesday.qcow2 +16M")
    tour.prove("tuesday.qcow2", model + bytes(16 << 20))
    tour.do("resize tuesday.qcow2 32M", status=1)
    tour.do("resize --shrink tuesday.qcow2 32M")
    tour.prove("tuesday.qcow2", model[: 32 << 20])
    tour.do("check tuesday.qcow2")


def _commit(tour: Tour) -> None:
    tour.say("Commit: what Monday changed becomes the base")
    tour.show("$ chmod u+w base.qcow2")
    os.chmod("base.qcow2", stat.S_IRUSR | stat.S_IWUSR)
    tour.do("commit monday.qcow2")
    tour.do("map --output=json monday.qcow2")
    for name in ("base.qcow2", "monday.qcow2"):
        tour.prove(name, _models["monday"])
        tour.do(f"check {name}")


def _digest_of(name: str) -> bytes:
    """The SHA-256 of everything that a guest would read from an image; of a raw one, of the file."""
    digest = hashlib.sha256()
    view = memoryview(bytearray(CHUNK))
    with open_image(name, fmt="raw" if name.endswith(".raw") else None) as disk:
        for offset in range(0, disk.size, CHUNK):
            part = view[: min(CHUNK, disk.size - offset)]
            disk.read_into(offset, part)
            digest.update(part)
    return digest.digest()
