"""The engine behind the fuzz targets of what reads guests' disks: images that change in memory, mutations, bounds.

    python tests/fuzz/guest_fuzz.py TARGET FIRST COUNT [FOLDER]

runs cases FIRST … FIRST + COUNT - 1 of a target (guest_targets.py) in this process, with bounded memory and CPU time,
and prints what happened as JSON. A case is its number: the same number is always the same mutant. FOLDER keeps the
sound images between runs.
"""

from __future__ import annotations

import faulthandler
import json
import os
import random
import resource
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parents[1]))

from cowshed.block.node import DATA, Extent, Node
from cowshed.errors import CowshedError, FormatError
from cowshed.guest.filesystem.base import GuestError

PAGE = 4096
#: CPU seconds that a case may take, and bytes that the address space may grow by while all run
LIMIT = 20.0
ROOM = 700 << 20


class TooLong(BaseException):
    """A case took more CPU time than `LIMIT`."""


class Image(Node):
    """A file with changed pages on top, which are all in memory; `reset` forgets them. ``reads`` notes (offset,
    length) of what is read while it is a list. Writing where ``read_only`` is a failure of the one who does it."""

    driver = "file"

    def __init__(self, path: Path) -> None:
        super().__init__(str(path))
        self.fd = os.open(path, os.O_RDONLY)
        self.whole = self.size = os.fstat(self.fd).st_size
        self.pages: dict[int, bytearray] = {}
        self.reads: list[tuple[int, int]] | None = None

    def reset(self) -> None:
        self.pages = {}
        self.size = self.whole
        self.read_only = True

    def read_into(self, offset: int, view: memoryview) -> None:
        self._check_range(offset, len(view))
        if self.reads is not None:
            self.reads.append((offset, len(view)))
        inside = max(0, min(len(view), self.whole - offset))
        if inside:
            os.preadv(self.fd, [view[:inside]], offset)
        if inside < len(view):
            view[inside:] = bytes(len(view) - inside)
        if not self.pages:
            return
        first, last = offset // PAGE, (offset + len(view) - 1) // PAGE
        numbers: Iterable[int] = range(first, last + 1)
        if last - first > len(self.pages):
            numbers = [number for number in self.pages if first <= number <= last]
        for number in numbers:
            page = self.pages.get(number)
            if page is not None:
                low, high = max(offset, number * PAGE), min(offset + len(view), (number + 1) * PAGE)
                view[low - offset : high - offset] = page[low - number * PAGE : high - number * PAGE]

    def layer_extents(self, offset: int, length: int) -> Iterator[Extent]:
        if length:
            yield Extent(offset, length, DATA, self, offset, 0, self)

    def put(self, offset: int, data: bytes | bytearray | memoryview) -> None:
        """Change bytes, whoever may write."""
        data = memoryview(data).cast("B")[: max(0, self.size - offset)]
        while len(data):
            number, skip = divmod(offset, PAGE)
            page = self.pages.get(number)
            if page is None:
                page = bytearray(PAGE)
                inside = max(0, min(PAGE, self.whole - number * PAGE))
                if inside:
                    os.preadv(self.fd, [memoryview(page)[:inside]], number * PAGE)
                self.pages[number] = page
            step = min(len(data), PAGE - skip)
            page[skip : skip + step] = data[:step]
            data = data[step:]
            offset += step

    def write(self, offset: int, data: Any) -> None:
        assert not self.read_only, "something wrote to what is only read"
        self._check_write(offset, len(data))
        self.put(offset, data)

    def write_zeroes(self, offset: int, length: int, unmap: bool = False) -> None:
        while length:
            step = min(length, 1 << 20)
            self.write(offset, bytes(step))
            offset, length = offset + step, length - step

    def discard(self, offset: int, length: int) -> None:
        self._check_write(offset, length)

    def flush(self) -> None:
        return None

    def resize(self, size: int, *_: Any, **__: Any) -> None:
        self.size = size

    def save(self, path: Path) -> Path:
        """A file of what it holds, sparse."""
        with open(path, "wb") as file:
            end = position = 0
            while position < self.whole:
                try:
                    position = os.lseek(self.fd, position, os.SEEK_DATA)
                except OSError:
                    break
                end = os.lseek(self.fd, position, os.SEEK_HOLE)
                while position < end:
                    data = os.pread(self.fd, min(1 << 20, end - position), position)
                    os.pwrite(file.fileno(), data, position)
                    position += len(data)
            for number, page in self.pages.items():
                os.pwrite(file.fileno(), page, number * PAGE)
            file.truncate(self.size)
        return path

    def close(self) -> None:
        """Of whoever opens it again and again; `end` closes the file."""

    def end(self) -> None:
        os.close(self.fd)


# -- mutations ---------------------------------------------------------------------------------------------------------


def number(rng: random.Random, bits: int, likely: list[int]) -> int:
    """A number that is likely to hurt."""
    top = (1 << bits) - 1
    kind = rng.randrange(8)
    if kind == 0:
        value = rng.choice((0, 1, 2, 3, 11, 511, 512, 4095, 4096))
    elif kind == 1:
        value = top - rng.choice((0, 0, 0, 1, 7, 511, 4095))
    elif kind == 2:
        value = 1 << rng.randrange(bits)
    elif kind == 3:
        value = (1 << rng.randrange(bits)) - 1
    elif kind < 7 and likely:
        value = rng.choice(likely) + rng.choice((0, 0, 0, 0, 1, -1))
    else:
        value = rng.getrandbits(bits)
    return value & top


def mutate(
    image: Image,
    rng: random.Random,
    places: list[tuple[int, int]],
    blocks: list[int],
    *,
    changes: tuple[int, ...] = (1, 1, 1, 2, 3, 10),
    unit: int = 1024,
) -> None:
    """Damage some of ``places``, (offset, length) of an image's metadata; ``blocks``: numbers that may stand in it."""
    for _ in range(rng.choice(changes)):
        offset, length = rng.choice(places)
        at = offset + min(rng.randrange(length), rng.choice((16, 64, 256, length, length)))
        kind = rng.randrange(10)
        if kind == 0:
            image.put(at, bytes((image.read(at, 1)[0] ^ 1 << rng.randrange(8),)))
        elif kind == 1:
            image.put(at, bytes((rng.choice((0, 1, 0x2E, 0x2F, 0x7F, 0x80, 0xFF)),)))
        elif kind < 7:
            size = rng.choice((1, 2, 2, 4, 4, 4, 8))
            at -= at % size
            image.put(at, number(rng, size * 8, blocks).to_bytes(size, rng.choice(("little", "big"))))
        elif kind == 7:
            # a piece from elsewhere: entries twice, records where others were
            other, there = rng.choice(places)
            count = rng.choice((8, 12, 16, 24, 32, 56, 128, 256, unit))
            source = other + rng.randrange(max(1, there // 4)) * 4
            count = max(0, min(count, image.size - source))
            image.put(at - at % 4, image.read(source, count))
        elif kind == 8:
            image.put(
                offset, rng.choice((bytes(length), rng.randbytes(min(length, 4096)), b"\xff" * min(length, 4096)))
            )
        else:
            other, there = rng.choice(places)
            image.put(offset, image.read(other, min(length, there)))


_NASTY = (
    b"\0", b"\xff", b"\xc3", b"..", b"/", b"../../../etc/passwd", b"\x1b[31m", b"\n", b"\r\n", b" " * 300, b"A" * 5000,
    b"0", b"-1", b"99999999999999999999", b"4294967296", b"1" * 5000, b"nan", b"inf", b"\xe2\x80\xa8", b"%s%n", b"=",
    b"#",
    b"\\", b'"', b"'", b"{", b"}", b"[", b"]", b":", b",", b"\t", b"\x85", b"/dev/sda" + b"9" * 5000, b"\xed\xa0\x80",
)  # fmt: skip


def mutate_text(text: bytes, rng: random.Random, words: tuple[bytes, ...] = ()) -> bytes:
    """A text with lines, words and bytes changed, doubled, lost and in other places."""
    data = bytearray(text)
    for _ in range(rng.choice((1, 1, 2, 4, 12))):
        kind = rng.randrange(9)
        at = rng.randrange(len(data) + 1)
        if kind < 3:
            data[at:at] = rng.choice(_NASTY + words + words)
        elif kind == 3:
            end = min(len(data), at + rng.choice((1, 1, 4, 40)))
            del data[at:end]
        elif kind == 4 and data:
            data[min(at, len(data) - 1)] = rng.randrange(256)
        elif kind == 5:
            rows = bytes(data).split(b"\n")
            row = rng.choice(rows)
            rows[rng.randrange(len(rows)) : 0] = [row] * rng.choice((1, 2, 300))
            data = bytearray(b"\n".join(rows))
        elif kind == 6:
            rows = bytes(data).split(b"\n")
            rng.shuffle(rows)
            data = bytearray(b"\n".join(rows[: rng.randrange(len(rows) + 1)] if rng.random() < 0.3 else rows))
        else:
            # another word in the place of one
            parts = bytes(data).split(b" ")
            parts[rng.randrange(len(parts))] = rng.choice(_NASTY + words + tuple(parts[:50]))
            data = bytearray(b" ".join(parts))
        if len(data) > 4 << 20:
            break
    return bytes(data)


# -- running -----------------------------------------------------------------------------------------------------------


class Case:
    """What a target notes while it runs: ``errors`` by class, ``figures`` by name."""

    def __init__(self) -> None:
        self.figures: dict[str, int] = {}
        self.errors: dict[str, int] = {}

    def count(self, name: str, value: int = 1) -> None:
        self.figures[name] = self.figures.get(name, 0) + value

    def attempt(self, job: Callable[[], object]) -> bool:
        """Did it work? A CowshedError is an answer too, if it says what is wrong and where."""
        try:
            job()
        except CowshedError as error:
            name = type(error).__name__
            self.errors[name] = self.errors.get(name, 0) + 1
            assert str(error), f"a {name} without words"
            # the kernel's words come with the path that was asked for, whatever is in it
            assert isinstance(error, GuestError) or "\n" not in str(error), f"a {name} of several lines: {error}"
            if isinstance(error, FormatError):
                assert error.detail, f"a {name} that names neither file nor field: {error}"
            return False
        return True


#: a target: made once with a folder for its sound images, then called with a number and a Case
Target = Callable[[int, Case], None]
TARGETS: dict[str, Callable[[Path], Target]] = {}


def target(name: str) -> Callable[[Callable[[Path], Target]], Callable[[Path], Target]]:
    def add(make: Callable[[Path], Target]) -> Callable[[Path], Target]:
        TARGETS[name] = make
        return make

    return add


def _too_long(signum: int, frame: Any) -> None:
    raise TooLong


def campaign(name: str, first: int, count: int, folder: Path, *, failures: int = 1) -> dict[str, Any]:
    """Run cases; ends after ``failures`` of them that failed, each by another way."""
    import guest_targets

    folder.mkdir(exist_ok=True)
    try:
        run = guest_targets.TARGETS[name](folder)
    except BaseException as error:
        # a judge that makes the sound image is not there: pytest's outcome, without pytest
        if type(error).__name__ in ("Skipped", "Failed"):
            return {"target": name, "skipped": str(error)}
        raise
    with open("/proc/self/statm") as file:
        size = int(file.read().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (size + ROOM, size + ROOM))
    signal.signal(signal.SIGPROF, _too_long)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    case = Case()
    worst = (0.0, first)
    failed: list[dict[str, Any]] = []
    ways: set[str] = set()
    begun = time.process_time()
    for seed in range(first, first + count):
        here = time.process_time()
        # when not even the signal is heard: where the time goes, and the end
        faulthandler.dump_traceback_later(20 * LIMIT, exit=True)
        signal.setitimer(signal.ITIMER_PROF, LIMIT)
        try:
            run(seed, case)
        except (Exception, TooLong):
            signal.setitimer(signal.ITIMER_PROF, 0)
            kind, error, trace = sys.exc_info()
            way = f"{kind} {error if isinstance(error, AssertionError) else ''} " + str(
                [(one.filename, one.lineno) for one in traceback.extract_tb(trace)[-2:]] if kind is not TooLong else ""
            )
            if way not in ways:
                ways.add(way)
                failed.append({"seed": seed, "traceback": traceback.format_exc()[-6000:]})
            if len(failed) >= failures:
                break
        finally:
            signal.setitimer(signal.ITIMER_PROF, 0)
        worst = max(worst, (time.process_time() - here, seed))
    faulthandler.cancel_dump_traceback_later()
    return {
        "target": name, "cases": seed - first + 1, "seconds": round(time.process_time() - begun, 2),
        "worst": [round(worst[0], 2), worst[1]], "figures": case.figures, "errors": case.errors, "failed": failed,
        "bytes": (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) << 10,
    }  # fmt: skip


if __name__ == "__main__":
    # targets register themselves with the module of that name, which is not this one
    sys.modules["guest_fuzz"] = sys.modules["__main__"]
    with tempfile.TemporaryDirectory() as scratch:
        where = Path(sys.argv[4]) if len(sys.argv) > 4 else Path(scratch)
        answer = campaign(
            sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), where, failures=int(os.environ.get("FAILURES", "1"))
        )
    print(json.dumps(answer))
