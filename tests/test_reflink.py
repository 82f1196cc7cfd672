"""File systems whose files can share blocks: what convert shares, what it copies, and that neither harms the source."""

from __future__ import annotations

import fcntl
import hashlib
import os
import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import judges
from cowshed.block.graph import open_image
from cowshed.block.protocol.file import FileNode
from cowshed.errors import CowshedError
from cowshed.ops import copy
from cowshed.ops.convert import convert
from cowshed.ops.plan import Part, Policy
from layouts import content
from loops import file_system

MIB = 1 << 20
_FIEMAP = struct.Struct("=QQIIII")
_FIEMAP_EXTENT = struct.Struct("=QQQQQIIII")
_FS_IOC_FIEMAP = 0xC020660B
_SHARED = 0x2000


@pytest.fixture(scope="module", params=["xfs", "btrfs"])
def place(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    options = {"xfs": ("-m", "reflink=1"), "btrfs": ()}[request.param]
    with file_system(request.param, tmp_path_factory.mktemp("reflink"), 400 * MIB, *options) as directory:
        yield directory


def extents(path: Path) -> list[tuple[int, int, bool]]:
    """(offset, length, shared) of a file's extents as the file system tells them (FIEMAP)."""
    most = 4096
    buffer = bytearray(_FIEMAP.pack(0, (1 << 64) - 1, 1, 0, most, 0) + bytes(most * _FIEMAP_EXTENT.size))
    with open(path, "rb") as file:
        fcntl.ioctl(file, _FS_IOC_FIEMAP, buffer, True)
    count = _FIEMAP.unpack_from(buffer)[3]
    assert count < most
    found = []
    for number in range(count):
        fields = _FIEMAP_EXTENT.unpack_from(buffer, _FIEMAP.size + number * _FIEMAP_EXTENT.size)
        found.append((fields[0], fields[2], bool(fields[5] & _SHARED)))
    return found


def shared_bytes(path: Path) -> int:
    return sum(length for _, length, shared in extents(path) if shared)


def source_raw(path: Path) -> int:
    """A sparse disk that ends in the middle of a block; returns how many bytes of data it has."""
    data = content(5, 6 * MIB)
    with open(path, "wb") as file:
        file.write(data[: 4 * MIB])
        file.seek(11 * MIB)
        file.write(data[4 * MIB : 5 * MIB + 512])
        file.truncate(19 * MIB + 1536)
        file.flush()
        os.fsync(file.fileno())
    return 5 * MIB + 512


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


#: (arguments, target format, are the blocks shared where file systems can)
CASES: list[tuple[dict[str, Any], str, bool]] = [
    ({}, "raw", True),
    ({"in_order": False, "threads": 4}, "raw", True),
    ({"offload": True}, "raw", True),
    ({"sparse_size": 4096, "share": False}, "raw", False),
    ({"sparse_size": 0, "share": False}, "raw", False),
    ({}, "qcow2", True),
    ({"in_order": False, "threads": 4}, "qcow2", True),
    ({"offload": True}, "qcow2", True),
    ({"offload": True, "in_order": False}, "qcow2", True),
    ({"options": "cluster_size=4k"}, "qcow2", True),
    ({"options": "cluster_size=512"}, "qcow2", False),
    ({"options": "extended_l2=on"}, "qcow2", True),
    ({"compress": True}, "qcow2", False),
    ({"options": "preallocation=full"}, "qcow2", True),
    ({"options": "data_file=DATA,data_file_raw=on"}, "qcow2", True),
    ({}, "vmdk", True),
]


@pytest.mark.parametrize(("how", "fmt", "shares"), CASES, ids=lambda item: str(item).replace("/", " "))
@pytest.mark.parametrize("source_fmt", ["raw", "qcow2"])
def test_copies(place: Path, source_fmt: str, how: dict[str, Any], fmt: str, shares: bool, figures: Any) -> None:
    how = dict(how)
    plain = place / "plain.raw"
    data = source_raw(plain)
    source = plain
    if source_fmt == "qcow2":
        source = place / "source.qcow2"
        judges.qemu_img("convert", "-f", "raw", "-O", "qcow2", plain, source)
    before = digest(source)
    target = place / "target"
    if "DATA" in how.get("options", ""):
        how["options"] = how["options"].replace("DATA", str(place / "data"))
    convert(source, target, fmt, source_fmt=source_fmt, **how)
    judges.run("qemu-img", "compare", "-f", source_fmt, "-F", fmt, source, target)
    if fmt == "qcow2":
        judges.qemu_img("check", "-f", fmt, target)
    filled = place / "data" if "data_file" in how.get("options", "") else target
    found = shared_bytes(filled)
    if shares:
        # what can't be shared is the last, odd sectors and the beginnings of clusters there
        assert found >= data - MIB, f"{found} of {data} bytes are shared"
    elif "cluster_size=512" not in how.get("options", ""):
        assert found == 0
    # a sparse source stays sparse
    if fmt == "raw" and how.get("sparse_size") != 0:
        assert target.stat().st_blocks * 512 <= data + MIB
    # what is written to the copy is not seen in the source, and the other way round
    with open_image(target, fmt=fmt, writable=True) as node:
        node.write(MIB + 512, b"\xaa" * 70_000)
    assert digest(source) == before
    copied = judges_raw(target, fmt, place / "copied.raw")
    assert copied[MIB + 512 : MIB + 512 + 70_000] == b"\xaa" * 70_000
    with open_image(source, fmt=source_fmt, writable=True) as node:
        node.write(2 * MIB, b"\xbb" * 100_000)
        node.write(10 * MIB, b"\xbb" * 100_000)
    assert judges_raw(target, fmt, place / "copied.raw") == copied
    for path in place.iterdir():
        path.unlink()
    figures.add("reflink: copies judged")


def judges_raw(path: Path, fmt: str, out: Path) -> bytes:
    """The disk as the real tool reads it."""
    judges.qemu_img("convert", "-f", fmt, "-O", "raw", path, out)
    found = out.read_bytes()
    out.unlink()
    return found


def test_into_what_is_there(place: Path) -> None:
    """-n: the old content of the target goes, also where the source has holes."""
    source, target = place / "source.raw", place / "target.raw"
    source_raw(source)
    target.write_bytes(b"\xee" * source.stat().st_size)
    convert(source, target, "raw", source_fmt="raw", create=False)
    assert target.read_bytes() == source.read_bytes()
    assert shared_bytes(target) >= 4 * MIB
    for path in place.iterdir():
        path.unlink()


def test_several_sources(place: Path) -> None:
    """One behind the other; what does not lie on blocks of the file system is copied."""
    for lengths in ((2 * MIB, 3 * MIB), (2 * MIB + 512, 3 * MIB), (512, 4096, 5 * MIB)):
        names, whole = [], b""
        for number, length in enumerate(lengths):
            path = place / f"part{number}"
            path.write_bytes(content(number + 1, length))
            whole += path.read_bytes()
            names.append(path)
        convert(names, place / "target", "raw", source_fmt="raw")
        assert (place / "target").read_bytes() == whole
        for path in place.iterdir():
            path.unlink()


# -- what goes wrong half way ------------------------------------------------------------------------------------------


def half(function: Callable[..., None], number: int, calls: list[int]) -> Callable[..., None]:
    """Like FUNCTION, but from the second call on half of a request is done and then error NUMBER raised."""

    def failing(source: int, at: int, sink: int, to: int, length: int) -> None:
        calls.append(length)
        if len(calls) == 1:
            function(source, at, sink, to, length)
            return
        part = length // 2 // 4096 * 4096
        if part:
            function(source, at, sink, to, part)
        raise OSError(number, os.strerror(number))

    return failing


@pytest.mark.parametrize("number", [5, 28, 95, 18], ids=["EIO", "ENOSPC", "EOPNOTSUPP", "EXDEV"])
@pytest.mark.parametrize("fmt", ["raw", "qcow2"])
def test_the_kernel_stops_half_way(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fmt: str, number: int) -> None:
    """The ordinary way does the rest, from the request that failed on."""
    source, target = tmp_path / "source.raw", tmp_path / "target"
    source.write_bytes(content(9, 7 * MIB + 512))
    calls: list[int] = []
    monkeypatch.setattr(copy, "_copy_range", half(copy._copy_range, number, calls))
    convert(source, target, fmt, source_fmt="raw", offload=True, threads=1)
    assert len(calls) == 2
    judges.run("qemu-img", "compare", "-f", "raw", "-F", fmt, source, target)


def test_what_was_copied_in_vain_is_never_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernel fills half of new clusters and fails, and so does the ordinary way: the clusters are free again.

    The file is longer than it was. Whoever gets one of them next must not take its bytes for zeroes.
    """
    source, target = tmp_path / "source.raw", tmp_path / "target.qcow2"
    source.write_bytes(b"\xdd" * 8 * MIB)
    judges.qemu_img("create", "-q", "-f", "qcow2", target, "16M")
    calls = [0]  # as if one request had been made: the first fails
    monkeypatch.setattr(copy, "_copy_range", half(copy._copy_range, 5, calls))
    with open_image(source, fmt="raw") as reader, open_image(target, fmt="qcow2", writable=True) as writer:
        read_into = FileNode.read_into

        def unreadable(self: FileNode, offset: int, view: memoryview) -> None:
            if self.path == str(source):
                raise CowshedError("Input/output error", errno=5)
            read_into(self, offset, view)

        with monkeypatch.context() as patch:
            patch.setattr(FileNode, "read_into", unreadable)
            with pytest.raises(CowshedError, match="Input/output error"):
                copy.Copier([Part(reader, 0, 8 * MIB)], writer, Policy(offload=True, threads=1)).run()
        assert len(calls) == 2
        assert writer.file.size == target.stat().st_size
        writer.flush()  # now the clusters may be used again
        for number in range(40):
            writer.write(number * 65536 * 3 + 1000, b"\x01" * 24)
        for number in range(40):
            whole = writer.read(number * 65536 * 3, 65536)
            assert whole == bytes(1000) + b"\x01" * 24 + bytes(65536 - 1024), number
    judges.qemu_img("check", "-f", "qcow2", target)
