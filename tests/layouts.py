"""qcow2 layouts for tests: a covering set of creation options, and what tests do with images of them.

`covering(FACTORS, allowed)` gives rows such that every pair of values of two factors that the rules allow stands in
one row at least. `make` and `make_real` create the same layout with our code and with the real qemu-img.
"""

from __future__ import annotations

import itertools
import json
import os
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import judges
from cowshed.block.graph import create_image, open_image
from cowshed.block.node import COMPRESSED, DATA, HOLE, ZERO, Node
from cowshed.ops.map import map_image

Row = dict[str, Any]

CLUSTER_SIZES = (512, 1024, 4096, 16384, 65536, 262144, 2 << 20)

#: what an image can be
FACTORS: dict[str, tuple[Any, ...]] = {
    "cluster_size": CLUSTER_SIZES,
    "refcount_bits": (1, 2, 4, 8, 16, 32, 64),
    "preallocation": ("off", "metadata", "falloc", "full"),
    "depth": (0, 1, 2, 3),
    "below": ("raw", "qcow2"),  # the format at the bottom of the chain
    "below_size": ("same", "shorter", "longer"),
    "data_file": ("none", "plain", "raw"),
    "compression": ("none", "zlib", "zstd"),
    "compat": ("v3", "v2"),
    "extended_l2": (False, True),
    "lazy_refcounts": (False, True),
    "size": ("round", "ragged", "wide"),
}


def allowed(row: Mapping[str, Any]) -> bool:
    """May these values stand together? ``row`` may be incomplete: only what it has is judged."""
    get = row.get
    if get("compat") == "v2":
        if get("refcount_bits", 16) != 16 or get("extended_l2") or get("lazy_refcounts"):
            return False
        if get("compression") == "zstd" or get("data_file", "none") != "none":
            return False
    if get("extended_l2") and get("cluster_size", 65536) < 16384:
        return False
    depth = get("depth")
    if depth and get("preallocation", "off") != "off" and get("extended_l2") is False:
        return False
    if depth == 0 and (get("below", "raw") != "raw" or get("below_size", "same") != "same"):
        return False  # nothing below: one pair of values says so
    if get("data_file", "none") != "none" and get("compression", "none") != "none":
        return False
    if get("data_file") == "raw" and depth:
        return False
    # a wide disk of big clusters, or one that is allocated wholly, would take gigabytes
    heavy = get("preallocation", "off") in ("falloc", "full") or get("cluster_size", 65536) > 65536
    return get("size") != "wide" or not heavy


def covering(
    factors: Mapping[str, Sequence[Any]], rule: Callable[[Mapping[str, Any]], bool], seed: int = 1
) -> list[Row]:
    """Rows that hold every allowed pair of values of two factors; the same ones for the same arguments."""
    rng = random.Random(seed)
    names = list(factors)
    wanted = {
        (a, x, b, y)
        for a, b in itertools.combinations(names, 2)
        for x in factors[a]
        for y in factors[b]
        if completed({a: x, b: y}, factors, rule, rng) is not None
    }
    missing = dict.fromkeys(sorted(wanted, key=repr))
    rows: list[Row] = []
    while missing:
        a, x, b, y = next(iter(missing))
        best: Row | None = None
        gain = -1
        for _ in range(40):
            row = completed({a: x, b: y}, factors, rule, rng)
            assert row is not None
            got = sum(1 for p in pairs(row, names) if p in missing)
            if got > gain:
                best, gain = row, got
        assert best is not None
        for pair in pairs(best, names):
            missing.pop(pair, None)
        rows.append({name: best[name] for name in names})
    return rows


def pairs(row: Row, names: Sequence[str]) -> Iterator[tuple[str, Any, str, Any]]:
    for a, b in itertools.combinations(names, 2):
        yield a, row[a], b, row[b]


def completed(
    part: Row, factors: Mapping[str, Sequence[Any]], rule: Callable[[Mapping[str, Any]], bool], rng: random.Random
) -> Row | None:
    """``part`` with a random allowed value for every other factor; None when there is no such row."""
    if not rule(part):
        return None
    rest = [name for name in factors if name not in part]
    if not rest:
        return dict(part)
    name = rng.choice(rest)
    for value in rng.sample(list(factors[name]), len(factors[name])):
        full = completed({**part, name: value}, factors, rule, rng)
        if full is not None:
            return full
    return None


def label(row: Mapping[str, Any]) -> str:
    """A short name of a row for pytest."""
    words = [row["compat"], f"{row['cluster_size']}", f"rc{row['refcount_bits']}"]
    words += [f"depth{row['depth']}-{row['below']}-{row['below_size']}"] if row["depth"] else []
    words += [f"data_{row['data_file']}"] if row["data_file"] != "none" else []
    words += [row[name] for name in ("preallocation", "compression") if row[name] not in ("off", "none")]
    words += [name for name in ("extended_l2", "lazy_refcounts") if row[name]]
    return "-".join([*words, row["size"]])


def options_of(row: Mapping[str, Any], directory: Path, stem: str) -> dict[str, Any]:
    """The creation options of a row, by their names on qemu-img's command line, without size and backing file."""
    options: dict[str, Any] = {"compat": row["compat"], "cluster_size": row["cluster_size"]}
    if row["refcount_bits"] != 16:
        options["refcount_bits"] = row["refcount_bits"]
    for name in ("extended_l2", "lazy_refcounts"):
        if row[name]:
            options[name] = "on"
    if row["preallocation"] != "off":
        options["preallocation"] = row["preallocation"]
    if row["compression"] == "zstd":
        options["compression_type"] = "zstd"
    if row["data_file"] != "none":
        options["data_file"] = os.fspath(directory / f"{stem}.data")
        if row["data_file"] == "raw":
            options["data_file_raw"] = "on"
    return options


def disk_size(row: Mapping[str, Any]) -> int:
    """Bytes: several L2 tables where that is cheap, an end inside a cluster for "ragged", two tables for "wide"."""
    cluster = row["cluster_size"]
    span = cluster * (cluster // (16 if row["extended_l2"] else 8))
    if row["size"] == "wide":
        return span + (5 << 20) // 512 * 512 + 512
    size = max(6 * cluster, min(4 << 20, 40 * cluster))
    return size + (0 if row["size"] == "round" else 3 * 512)


Below = tuple[Path, str]  # a backing file and its format


def make(path: Path, options: Mapping[str, Any], size: int | None, backing: Below | None = None) -> None:
    """Our create."""
    create_image(
        path, "qcow2", {key: str(value) for key, value in options.items()}, size=size,
        backing=os.fspath(backing[0]) if backing else None, backing_fmt=backing[1] if backing else None,
    )  # fmt: skip


def make_real(path: Path, options: Mapping[str, Any], size: int | None, backing: Below | None = None) -> None:
    """The real tool's create."""
    argv: list[str | Path] = ["create", "-q", "-f", "qcow2"]
    text = ",".join(f"{key}={str(value).replace(',', ',,')}" for key, value in options.items())
    argv += ["-o", text] if text else []
    argv += ["-b", backing[0], "-F", backing[1]] if backing else []
    judges.qemu_img(*argv, path, *([str(size)] if size is not None else []))


# -- judging -----------------------------------------------------------------------------------------------------------


def assert_sound(path: Path, story: object = "") -> None:
    """The real qemu-img check finds nothing wrong, not even leaked clusters."""
    done = judges.run("qemu-img", "check", "-f", "qcow2", path, ok=range(256))
    assert done.returncode == 0, f"qemu-img check: exit {done.returncode}\n{done.stdout}{done.stderr}{story}"


def assert_same_disk(path: Path, raw: Path, story: object = "") -> None:
    """The real qemu-img compare finds the image's disk and the raw file equal, their sizes too."""
    done = judges.run("qemu-img", "compare", "-f", "qcow2", "-F", "raw", path, raw, ok=range(256), timeout=120)
    assert done.returncode == 0, f"qemu-img compare: exit {done.returncode}\n{done.stdout}{done.stderr}{story}"
    info = json.loads(judges.qemu_img("info", "-f", "qcow2", "--output=json", path))
    assert info["virtual-size"] == raw.stat().st_size


class Shape:
    """One line of a map, comparable: what `qemu-img map --output=json` says about a run of bytes."""

    __slots__ = ("data", "depth", "length", "offset", "present", "start", "zero")

    def __init__(
        self, start: int, length: int, depth: int, present: bool, zero: bool, data: bool, offset: int | None
    ) -> None:
        self.start, self.length, self.depth = start, length, depth
        self.present, self.zero, self.data, self.offset = present, zero, data, offset

    def key(self) -> tuple[Any, ...]:
        return (self.start, self.length, self.depth, self.present, self.zero, self.data, self.offset)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Shape) and self.key() == other.key()

    def __hash__(self) -> int:
        return hash(self.key())

    def __repr__(self) -> str:
        flags = "".join(name[0] for name in ("present", "zero", "data") if getattr(self, name))
        at = "" if self.offset is None else f" at {self.offset:#x}"
        return f"<{self.start:#x}+{self.length:#x} depth {self.depth} {flags}{at}>"


def real_map(path: Path, fmt: str = "qcow2") -> list[Shape]:
    rows = json.loads(judges.qemu_img("map", "-f", fmt, "--output=json", path))
    return [
        Shape(r["start"], r["length"], r["depth"], r["present"], r["zero"], r["data"], r.get("offset")) for r in rows
    ]


def our_map(node: Node) -> list[Shape]:
    """The same from ours."""
    return [
        Shape(entry.start, entry.length, entry.depth, entry.present, entry.zero, entry.data, entry.offset)
        for entry in map_image(node)
    ]


def data_ranges(path: Path) -> list[tuple[int, int]]:
    """Runs (offset, length) of a raw file that are not holes."""
    found = []
    with open(path, "rb") as file:
        end = file.seek(0, os.SEEK_END)
        at = 0
        while at < end:
            try:
                start = os.lseek(file.fileno(), at, os.SEEK_DATA)
            except OSError:
                break
            at = os.lseek(file.fileno(), start, os.SEEK_HOLE)
            found.append((start, at - start))
    return found


def assert_reads(node: Node, raw: Path, story: object = "") -> None:
    """Every way of reading ``node`` gives the bytes of the raw file: read, and the extents followed by hand."""
    assert node.size == raw.stat().st_size, story
    step = 1 << 20
    position = 0
    for extent in node.extents():
        assert extent.offset == position and extent.length > 0, f"gap or overlap before {extent} {story}"
        position += extent.length
    assert position == node.size
    with open(raw, "rb") as file:

        def want(offset: int, length: int) -> bytes:
            file.seek(offset)
            return file.read(length)

        for extent in node.extents():
            if extent.kind == DATA:
                assert extent.node is not None
                for at in range(0, extent.length, step):
                    length = min(step, extent.length - at)
                    got = bytearray(length)
                    extent.node.read_into(extent.host_offset + at, memoryview(got))
                    assert got == want(extent.offset + at, length), f"{extent} +{at:#x} {story}"
            elif extent.kind == COMPRESSED:
                for at in range(0, extent.length, step):
                    length = min(step, extent.length - at)
                    start = extent.offset + at
                    assert node.read(start, length) == want(start, length), f"{extent} +{at:#x} {story}"
        # what the model has as data must not be a hole for us
        for start, length in data_ranges(raw):
            for at in range(start, start + length, step):
                size = min(step, start + length - at)
                got_bytes, wanted = node.read(at, size), want(at, size)
                if got_bytes != wanted:
                    bad = next(number for number in range(size) if got_bytes[number] != wanted[number])
                    raise AssertionError(f"byte {at + bad:#x} is {got_bytes[bad]:#x}, not {wanted[bad]:#x} {story}")
        # zero and hole extents: the model has nothing but zeroes there
        for extent in node.extents():
            if extent.kind in (ZERO, HOLE):
                end = extent.offset + extent.length
                for start, length in data_ranges(raw):
                    low, high = max(start, extent.offset), min(start + length, end)
                    for at in range(low, high, step):
                        assert not any(want(at, min(step, high - at))), f"{extent} {story}"


def real_raw(path: Path, raw: Path, *extra: str) -> Path:
    """The disk of an image as the real convert writes it into a raw file."""
    judges.qemu_img("convert", "-f", "qcow2", "-O", "raw", *extra, path, raw)
    return raw


def opened(path: Path, *, writable: bool = False, **kw: Any) -> Node:
    return open_image(path, fmt="qcow2", writable=writable, **kw)


def qemu_io(path: Path, commands: Sequence[str], fmt: str = "qcow2") -> None:
    """Let the real qemu-io work on an image; discards reach the format."""
    if commands:
        judges.qemu_io(path, *commands, fmt=fmt, options=("-d", "unmap"))


# -- content -----------------------------------------------------------------------------------------------------------


class Disk:
    """A raw file that says what a disk should hold: the model where a bytearray would be too big."""

    def __init__(self, path: Path, size: int) -> None:
        self.path = path
        with open(path, "wb") as file:
            file.truncate(size)

    @property
    def size(self) -> int:
        return self.path.stat().st_size

    def put(self, offset: int, data: bytes) -> None:
        with open(self.path, "r+b") as file:
            file.seek(offset)
            file.write(data)

    def get(self, offset: int, length: int) -> bytes:
        with open(self.path, "rb") as file:
            file.seek(offset)
            return file.read(length)

    def cut(self, size: int) -> None:
        """Make it ``size`` bytes long; what is new reads as zeroes."""
        with open(self.path, "r+b") as file:
            file.truncate(size)


def content(seed: int, length: int, *, packable: bool = False) -> bytes:
    """Bytes that differ from place to place; ``packable``: that deflate makes smaller."""
    rng = random.Random(seed)
    if packable:
        piece = rng.randbytes(97 + seed)
        return (piece * (length // len(piece) + 1))[:length]
    return rng.randbytes(length)


def story(row: Mapping[str, Any], size: int, rng: random.Random, steps: int) -> list[tuple[str, int, int, int]]:
    """What happens to a disk: (verb, offset, length, seed), all in whole sectors as far as the real tool wants them.

    Places are the beginning, the border between two L2 tables, the end, and anywhere.
    """
    cluster = row["cluster_size"]
    span = cluster * (cluster // (16 if row["extended_l2"] else 8))
    verbs = ["write"] * 4 + ["zero", "unmap", "discard"]
    if row["compression"] != "none":
        verbs += ["packed"] * 3
    plan = []
    for _ in range(steps):
        verb = rng.choice(verbs)
        length = rng.choice([512, 4096, cluster, cluster // 2, 3 * cluster, 70_000]) // 512 * 512 or 512
        length = min(length, 1 << 20 if row["size"] == "wide" else 5 << 20, size)
        place = rng.choice([0, span - length // 2, size - length, rng.randrange(size)])
        place = max(0, min(place, size - 512)) // 512 * 512
        if verb == "packed":
            place, length = place // cluster * cluster, cluster
        plan.append((verb, place, min(length, size - place), rng.randrange(1, 256)))
    return plan


def chain(directory: Path, row: Mapping[str, Any], size: int, disk: Disk, create: Callable[..., None]) -> Below | None:
    """The backing files of a row, made with ``create`` (`make` or `make_real`); ``disk`` gets what they show."""
    depth = row["depth"]
    if not depth:
        return None
    rng = random.Random(label(row))
    length = {"same": size, "shorter": size * 5 // 8 // 512 * 512, "longer": size + (300 << 10)}[row["below_size"]]
    model = Disk(directory / "below.raw", length)
    for _ in range(5):
        at = rng.choice([0, length - 40_000, rng.randrange(length)]) // 512 * 512
        at = max(0, at)
        model.put(at, rng.randbytes(min(40_000, length - at)))
    bottom: Below = (directory / "bottom.img", "raw")
    if row["below"] == "raw":
        judges.qemu_img("convert", "-f", "raw", "-O", "raw", model.path, bottom[0])
    else:
        bottom = (directory / "bottom.qcow2", "qcow2")
        judges.qemu_img("convert", "-f", "raw", "-O", "qcow2", *(["-c"] if depth == 2 else []), model.path, bottom[0])
    for level in range(1, depth):
        above = directory / f"middle{level}.qcow2"
        options = {"cluster_size": 4096 << (4 * level - 4), "extended_l2": "on" if level == 2 else "off"}
        create(above, options, None, bottom)
        commands = []
        for number in range(3):
            at = rng.randrange(length) // 512 * 512
            count = min(length - at, 24 << 10)
            if number == 2:
                commands.append(f"write -q -z -u {at} {count}")
                model.put(at, bytes(count))
            else:
                commands.append(f"write -q -P {16 * level + number} {at} {count}")
                model.put(at, bytes([16 * level + number]) * count)
        qemu_io(above, commands)
        bottom = (above, "qcow2")
    for start, count in data_ranges(model.path):
        if start < size:
            disk.put(start, model.get(start, min(count, size - start)))
    return bottom
