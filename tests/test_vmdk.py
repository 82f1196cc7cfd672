"""vmdk against the real qemu-img: what we write it reads, what it writes we read, damage is told and not hidden."""

from __future__ import annotations

import json
import os
import random
import re
import struct
import zlib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import judges
from cowshed.block.format.vmdk.header import FOOTER_BYTES, SparseHeader
from cowshed.block.format.vmdk.tables import runs
from cowshed.block.graph import create_image, open_image
from cowshed.block.node import DATA, HOLE, ZERO, Node
from cowshed.errors import CorruptError, CowshedError, OptionError, UnsupportedError
from cowshed.ops.convert import convert
from judges import qemu_img, qemu_io

KIB, MIB = 1 << 10, 1 << 20
GRAIN = 64 * KIB

pytestmark = pytest.mark.usefixtures("judged")


@pytest.fixture(scope="module")
def judged() -> None:
    judges.need("qemu-img")


def make(path: Path, size: int, options: str = "", backing: str | None = None) -> Path:
    create_image(path, "vmdk", options, size=size, backing=backing, backing_fmt="vmdk" if backing else None)
    return path


def real(path: Path, size: int | None, options: str = "", backing: str | None = None) -> Path:
    argv: list[Any] = ["create", "-q", "-f", "vmdk"]
    if options:
        argv += ["-o", options]
    if backing:
        argv += ["-b", backing, "-F", "vmdk"]
    qemu_img(*argv, path, *([str(size)] if size is not None else []))
    return path


def written(node: Node, model: bytearray, offset: int, data: bytes) -> None:
    node.write(offset, data)
    model[offset : offset + len(data)] = data


def same(image: Path, model: bytes | bytearray) -> None:
    """The real tool reads MODEL in IMAGE and finds nothing wrong with it; the two copies of the tables agree."""
    raw = image.with_suffix(".model")
    raw.write_bytes(model)
    qemu_img("compare", "-F", "raw", "-f", "vmdk", image, raw)
    raw.unlink()
    qemu_img("check", image)
    content = image.read_bytes()
    header = SparseHeader.unpack(content[:512])
    step = header.directory_entries * header.table_sectors * 512
    first, second = (
        content[(at + header.directory_sectors) * 512 :][:step] for at in (header.redundant, header.directory)
    )
    assert first == second


# -- creation ---------------------------------------------------------------------------------------------------------

OPTIONS = (
    "", "zeroed_grain=on", "subformat=streamOptimized", "subformat=streamOptimized,zeroed_grain=on", "compat6=on",
    "adapter_type=lsilogic", "adapter_type=buslogic,hwversion=11", "adapter_type=legacyESX", "hwversion=",
    "adapter_type=ide", "toolsversion=1234", "toolsversion=", "compat6=on,hwversion=undefined",
    "subformat=monolithicSparse",
)  # fmt: skip


@pytest.mark.parametrize("options", OPTIONS)
def test_created_files_are_the_real_tools_byte_for_byte(tmp_path: Path, options: str) -> None:
    def normal(content: bytes) -> bytes:
        text, rest = content[512:1536], content[1536:]
        text = re.sub(rb"\nCID=[0-9a-f]{1,8}\n", b"\nCID=\n", text).rstrip(b"\0")
        return content[:512] + b"|" + text + b"|" + rest

    for size in (1, 512, 65537, 3_000_001, 32 * MIB, 32 * MIB + 1, 9 << 30):
        ours, theirs = tmp_path / "a" / "n.vmdk", tmp_path / "b" / "n.vmdk"
        for path in (ours, theirs):
            path.parent.mkdir(exist_ok=True)
        make(ours, size, options)
        real(theirs, size, options)
        assert ours.stat().st_size == theirs.stat().st_size
        assert normal(ours.read_bytes()) == normal(theirs.read_bytes()), size


def test_64_tib_disk_is_made_as_the_real_tool_makes_it(tmp_path: Path) -> None:
    path = make(tmp_path / "big.vmdk", 64 << 40)
    assert json.loads(qemu_img("info", "--output=json", path))["virtual-size"] == 64 << 40
    with open_image(path, writable=True) as node:
        node.write(node.size - 100_000, b"end" * 1000)
        assert [extent.kind for extent in node.extents(0, node.size - MIB)] == [HOLE]
    qemu_io(path, f"read -P 0 {1 << 40} 4k")
    with open_image(path) as node:
        assert node.read(node.size - 100_000, 3000) == b"end" * 1000


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ("adapter_type=foo", "invalid parameter value: foo"),
        ("adapter_type=IDE", "invalid parameter value: IDE"),
        ("adapter_type=", "invalid parameter value: "),
        ("subformat=foo", "invalid parameter value: foo"),
        ("compat6=on,hwversion=5", "compat6 cannot be enabled with hwversion set"),
        ("subformat=monolithicFlat,zeroed_grain=on", "Flat image can't enable zeroed grain"),
    ],
)
def test_refused_options_say_what_the_real_tool_says(tmp_path: Path, options: str, text: str) -> None:
    path = tmp_path / "x.vmdk"
    with pytest.raises(OptionError) as caught:
        make(path, MIB, options)
    done = judges.run("qemu-img", "create", "-f", "vmdk", "-o", options, path, "1M", ok=(1,))
    assert done.stderr == f"qemu-img: {caught.value}\n" == f"qemu-img: {path}: {text}\n"
    assert not path.exists()


@pytest.mark.parametrize("subformat", ["monolithicFlat", "twoGbMaxExtentSparse", "twoGbMaxExtentFlat"])
def test_subformats_of_several_files_are_refused_clearly(tmp_path: Path, subformat: str) -> None:
    with pytest.raises(UnsupportedError, match=f"Subformat '{subformat}' cannot be created yet"):
        make(tmp_path / "x.vmdk", MIB, f"subformat={subformat}")
    assert list(tmp_path.iterdir()) == []


def test_what_a_descriptor_cannot_write_down_is_refused(tmp_path: Path) -> None:
    with pytest.raises(OptionError, match="invalid parameter value"):
        make(tmp_path / "x.vmdk", MIB, 'toolsversion=1"\nparentFileNameHint="/etc/passwd')
    with pytest.raises(OptionError, match="too long"):
        make(tmp_path / "x.vmdk", MIB, "toolsversion=" + "9" * 20000)
    with pytest.raises(CowshedError, match="The image size is too large for file format 'vmdk'"):
        make(tmp_path / "x.vmdk", 1 << 51)
    assert list(tmp_path.iterdir()) == []


def test_formatting_line_and_help_are_the_real_tools(tmp_path: Path) -> None:
    from cowshed.block.format.vmdk.options import CREATE

    lines: list[str] = []
    options = "toolsversion=3,subformat=streamOptimized,zeroed_grain=off,hwversion=7,adapter_type=ide"
    create_image(tmp_path / "x.vmdk", "vmdk", options, size=MIB, announce=lines.append)
    assert qemu_img("create", "-f", "vmdk", "-o", options, tmp_path / "x.vmdk", "1M") == lines[0] + "\n"
    theirs = qemu_img("create", "-f", "vmdk", "-o", "help")
    assert theirs.startswith(CREATE.help_text("Supported vmdk options:"))


# -- reading and writing ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("options", ["", "zeroed_grain=on"])
def test_the_real_tool_reads_what_we_write(tmp_path: Path, options: str) -> None:
    size = 70 * MIB + 512
    path = make(tmp_path / "x.vmdk", size, options)
    model = bytearray(size)
    with open_image(path, writable=True) as node:
        written(node, model, 0, b"first")
        written(node, model, GRAIN - 3, b"across a boundary")
        written(node, model, 31 * MIB, os.urandom(3 * MIB))  # across grain tables
        written(node, model, size - 1, b"!")
        node.write_zeroes(GRAIN, 10 * GRAIN, unmap=True)
        model[GRAIN : 11 * GRAIN] = bytes(10 * GRAIN)
        node.flush()
        written(node, model, 33 * MIB + 1, b"again")
        node.write_zeroes(32 * MIB - 5, 20 * GRAIN + 7)
        model[32 * MIB - 5 : 32 * MIB + 20 * GRAIN + 2] = bytes(20 * GRAIN + 7)
    same(path, model)
    assert json.loads(qemu_img("map", "--output=json", path)) == as_map(path)


def as_map(path: Path) -> list[dict[str, Any]]:
    """Our extents as ``map`` shows them."""
    result = []
    with open_image(path) as node:
        for extent in node.extents():
            item: dict[str, Any] = {
                "start": extent.offset, "length": extent.length, "depth": extent.depth,
                "present": extent.kind != HOLE, "zero": extent.kind in (HOLE, ZERO),
                "data": extent.kind not in (HOLE, ZERO),
            }  # fmt: skip
            if extent.kind == DATA:
                item["offset"] = extent.host_offset
            result.append(item)
    return result


@pytest.mark.parametrize("options", ["", "zeroed_grain=on"])
def test_we_read_what_the_real_tool_writes(tmp_path: Path, options: str) -> None:
    path = real(tmp_path / "x.vmdk", 40 * MIB + 1536, options)
    qemu_io(
        path, "write -P 1 1000000 700000", "write -P 2 33500000 100000", "write -z 1048576 131072",
        "write -P 9 41943040 1536",
    )  # fmt: skip
    raw = tmp_path / "x.raw"
    qemu_img("convert", "-O", "raw", path, raw)
    with open_image(path) as node:
        assert node.read(0, node.size) == raw.read_bytes()
    assert json.loads(qemu_img("map", "--output=json", path)) == as_map(path)


OPERATION = st.tuples(
    st.sampled_from(["write", "zero", "unmap", "discard", "flush", "reopen"]),
    st.integers(0, 5 * MIB + 511),
    st.sampled_from([1, 511, 512, 4096, GRAIN, 100_000, 5 * GRAIN]),
    st.booleans(),
)


@pytest.mark.parametrize("options", ["", "zeroed_grain=on"])
@pytest.mark.parametrize("chained", [False, True])
@settings(max_examples=12)
@given(operations=st.lists(OPERATION, max_size=25))
def test_any_sequence_agrees_with_a_plain_buffer(
    tmp_path_factory: pytest.TempPathFactory, options: str, chained: bool, operations: list[tuple[str, int, int, bool]]
) -> None:
    folder = tmp_path_factory.mktemp("vmdk")
    size = 5 * MIB + 512
    model = bytearray(size)
    path = folder / "x.vmdk"
    if chained:
        base = make(folder / "base.vmdk", size)
        with open_image(base, writable=True) as node:
            written(node, model, GRAIN + 77, os.urandom(2 * MIB))
        make(path, size, options, backing="base.vmdk")
    else:
        make(path, size, options)
    node = open_image(path, writable=True)
    for number, (what, offset, length, aligned) in enumerate(operations):
        offset = offset // GRAIN * GRAIN if aligned else offset
        length = min(length, size - offset)
        if what == "write":
            written(node, model, offset, random.Random(number).randbytes(length))
        elif what in ("zero", "unmap"):
            node.write_zeroes(offset, length, unmap=what == "unmap")
            model[offset : offset + length] = bytes(length)
        elif what == "discard":
            node.discard(offset, length)
            # what is discarded may read as anything, but only there
            model[offset : offset + length] = node.read(offset, length)
        elif what == "flush":
            node.flush()
        else:
            node.close()
            node = open_image(path, writable=True)
        assert node.read(0, size) == model
    node.close()
    same(path, model)


def test_zeroing_gives_room_back_and_uses_it_again(tmp_path: Path) -> None:
    path = make(tmp_path / "x.vmdk", 16 * MIB, "zeroed_grain=on")
    with open_image(path, writable=True) as node:
        for _ in range(5):
            node.write(0, os.urandom(8 * MIB))
            node.flush()
            node.write_zeroes(0, 8 * MIB, unmap=True)
            node.flush()
        assert path.stat().st_blocks * 512 < 2 * MIB
    assert path.stat().st_size < 10 * MIB
    same(path, bytes(16 * MIB))


def test_failed_data_write_links_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = make(tmp_path / "x.vmdk", 4 * MIB)
    with open_image(path, writable=True) as node:
        node.write(0, b"x" * 10)

        def fail(offset: int, data: object) -> None:
            raise CowshedError("No space left on device", errno=28)

        with monkeypatch.context() as patch:
            patch.setattr(node.file, "write", fail)
            with pytest.raises(CowshedError, match="No space"):
                node.write(MIB, b"y" * MIB)
        assert node.read(MIB, MIB) == bytes(MIB)
        node.write(2 * MIB, b"z" * MIB)
    same(path, b"x" * 10 + bytes(2 * MIB - 10) + b"z" * MIB + bytes(MIB))


# -- compressed -------------------------------------------------------------------------------------------------------


def stream_content() -> bytes:
    return os.urandom(GRAIN) + bytes(GRAIN) + b"A" * GRAIN + bytes(3 * GRAIN) + b"xyz" * 40_000 + bytes(MIB) + b"end"


def test_streams_of_the_real_tool_are_read(tmp_path: Path) -> None:
    raw, path = tmp_path / "x.raw", tmp_path / "x.vmdk"
    raw.write_bytes(stream_content().ljust(3_000_320, b"\0"))
    qemu_img("convert", "-O", "vmdk", "-o", "subformat=streamOptimized", raw, path)
    with open_image(path) as node:
        assert node.read(0, node.size) == raw.read_bytes()
        assert node.read(100_000, 77) == raw.read_bytes()[100_000:100_077]
    assert json.loads(qemu_img("map", "--output=json", path)) == as_map(path)


def test_the_real_tool_reads_our_streams(tmp_path: Path) -> None:
    content = stream_content().ljust(3_000_320, b"\0")
    path = make(tmp_path / "x.vmdk", len(content), "subformat=streamOptimized")
    with open_image(path, writable=True) as node:
        for at in range(0, len(content), 5 * GRAIN):
            node.write(at, content[at : at + 5 * GRAIN])
        with pytest.raises(UnsupportedError, match="Could not write to allocated cluster for streamOptimized"):
            node.write(0, bytes(GRAIN))
        with pytest.raises(UnsupportedError, match="whole clusters"):
            node.write(5, b"x")
    same(path, content)
    assert path.stat().st_size % 512 == 0


def finished_stream(source: Path, target: Path) -> None:
    """A stream as VMware writes it: the grain directory at the end, found through the footer."""
    content = bytearray(source.read_bytes())
    content += bytes(-len(content) % 512)
    header = SparseHeader.unpack(content[:512])
    tables = content[(header.directory + header.directory_sectors) * 512 :][: 2048 * header.directory_entries]
    table_at = len(content) // 512 + 1
    content += struct.pack("<QII", 4, 0, 1).ljust(512, b"\0") + tables
    directory_at = len(content) // 512 + 1
    entries = struct.pack(
        f"<{header.directory_entries}I", *range(table_at, table_at + 4 * header.directory_entries, 4)
    )
    content += struct.pack("<QII", 1, 0, 2).ljust(512, b"\0") + entries.ljust(512, b"\0")
    header.flags &= ~2
    header.redundant = 0
    header.directory = directory_at
    footer = header.pack()
    header.directory = (1 << 64) - 1
    content[:512] = header.pack()
    content += struct.pack("<QII", 1, 0, 3).ljust(512, b"\0") + footer + bytes(512)
    target.write_bytes(content)


def test_finished_streams_are_read_through_their_footer(tmp_path: Path) -> None:
    raw, path, stream = tmp_path / "x.raw", tmp_path / "x.vmdk", tmp_path / "s.vmdk"
    raw.write_bytes(stream_content().ljust(3_000_320, b"\0"))
    qemu_img("convert", "-O", "vmdk", "-o", "subformat=streamOptimized", raw, path)
    finished_stream(path, stream)
    qemu_img("compare", stream, raw)
    with open_image(stream) as node:
        assert node.read(0, node.size) == raw.read_bytes()
        node.check()
    before = stream.read_bytes()
    node = open_image(stream, writable=True)
    with node, pytest.raises(UnsupportedError, match="stream that is complete"):
        node.write(MIB + 7 * GRAIN, bytes(GRAIN))
    assert stream.read_bytes() == before
    stream.write_bytes(before[:-1])
    qemu_img("compare", stream, raw)
    with open_image(stream) as node:
        assert node.read(0, node.size) == raw.read_bytes()
    for cut in (512, FOOTER_BYTES):
        stream.write_bytes(before[:-cut])
        with pytest.raises(CowshedError, match=r": Invalid footer$"):
            open_image(stream)
        assert "Invalid footer" in judges.run("qemu-img", "info", stream, ok=(1,)).stderr


@pytest.mark.parametrize("options", ["", "zeroed_grain=on", "subformat=streamOptimized"])
@pytest.mark.parametrize("compress", [False, True])
def test_conversions_lay_out_what_the_real_tool_lays_out(tmp_path: Path, options: str, compress: bool) -> None:
    raw, ours, theirs = tmp_path / "x.raw", tmp_path / "ours.vmdk", tmp_path / "theirs.vmdk"
    raw.write_bytes(stream_content().ljust(3_000_320, b"\0"))
    convert(str(raw), str(ours), "vmdk", options, source_fmt="raw", compress=compress)
    qemu_img("convert", "-O", "vmdk", *(["-c"] if compress else []), *(["-o", options] if options else []), raw, theirs)
    same(ours, raw.read_bytes())

    def kinds(path: Path) -> list[tuple[int, int, bool, bool]]:
        found = json.loads(qemu_img("map", "--output=json", path))
        return [(item["start"], item["length"], item["present"], item["data"]) for item in found]

    assert kinds(ours) == kinds(theirs)


def test_damaged_compressed_grain_is_an_error_there_only(tmp_path: Path) -> None:
    content = b"".join(bytes([number]) * GRAIN for number in range(1, 6))
    path = make(tmp_path / "x.vmdk", len(content), "subformat=streamOptimized")
    with open_image(path, writable=True) as node:
        node.write(0, content)
    raw = bytearray(path.read_bytes())
    start = SparseHeader.unpack(raw[:512]).overhead * 512
    raw[start + 512 + 12 : start + 512 + 40] = b"\xff" * 28
    path.write_bytes(raw)
    with open_image(path) as node:
        assert node.read(0, GRAIN) == content[:GRAIN]
        assert node.read(2 * GRAIN, GRAIN) == content[2 * GRAIN : 3 * GRAIN]
        with pytest.raises(CorruptError, match="Invalid argument") as caught:
            node.read(GRAIN + 5, 10)
        assert f"at offset {start + 512}" in caught.value.detail
    assert "Invalid argument" in judges.run("qemu-io", "-c", "read 64k 64k", path, ok=(1,)).stdout


# -- parents ----------------------------------------------------------------------------------------------------------


def test_overlays_both_ways(tmp_path: Path) -> None:
    size = 3 * MIB
    model = bytearray(size)
    base = make(tmp_path / "base.vmdk", size)
    with open_image(base, writable=True) as node:
        written(node, model, 0, os.urandom(MIB))
    ours = make(tmp_path / "ours.vmdk", size, backing="base.vmdk")
    theirs = real(tmp_path / "theirs.vmdk", None, backing="base.vmdk")
    patch = b"p" * 100
    with open_image(ours, writable=True) as node:
        node.write(GRAIN - 50, patch)
    qemu_io(theirs, f"write -P {ord('p')} {GRAIN - 50} 100")
    model[GRAIN - 50 : GRAIN + 50] = patch
    same(ours, model)
    with open_image(theirs) as node:
        assert node.read(0, size) == model
        assert node.backing is not None and node.backing.filename == str(base)
    assert json.loads(qemu_img("map", "--output=json", ours)) == as_map(ours) == as_map(theirs)
    info = json.loads(qemu_img("info", "--output=json", ours))
    assert (info["backing-filename"], info["backing-filename-format"]) == ("base.vmdk", "vmdk")
    with open_image(base) as node:
        assert info["format-specific"]["data"]["parent-cid"] == node.format_specific()["data"]["cid"]


def test_a_longer_overlay_reads_zeroes_past_its_parent(tmp_path: Path) -> None:
    base = make(tmp_path / "base.vmdk", MIB + 512)
    with open_image(base, writable=True) as node:
        node.write(0, b"b" * node.size)
    path = make(tmp_path / "x.vmdk", 3 * MIB, backing="base.vmdk")
    with open_image(path, writable=True) as node:
        node.write(2 * MIB, b"x")
        node.write(MIB + 1024, b"y")
    same(path, b"b" * (MIB + 512) + bytes(512) + b"y" + bytes(MIB - 1025) + b"x" + bytes(MIB - 1))


def test_a_changed_parent_is_not_read_through(tmp_path: Path) -> None:
    base = make(tmp_path / "base.vmdk", 3 * MIB)
    path = make(tmp_path / "x.vmdk", 3 * MIB, backing="base.vmdk")
    with open_image(path, writable=True) as node:
        node.write(0, b"x" * GRAIN)
    with open_image(base, writable=True) as node:
        node.write(MIB, b"changed")
    for command in ("read 64k 64k", "write 64k 64k", "write 2M 512"):
        assert "Invalid argument" in judges.run("qemu-io", "-c", command, path, ok=(1,)).stdout
    with open_image(path, writable=True) as node:
        assert node.read(0, GRAIN) == b"x" * GRAIN
        node.write(10, b"y")
        for action in (lambda: node.read(GRAIN, 1), lambda: node.write(GRAIN, bytes(GRAIN))):
            with pytest.raises(CorruptError, match="Invalid argument") as caught:
                action()
            assert "parentCID" in caught.value.detail and "changed after" in (caught.value.hint or "")
        assert node.read(0, GRAIN) == b"x" * 10 + b"y" + b"x" * (GRAIN - 11)


def test_the_content_id_changes_with_the_first_write_of_each_opening(tmp_path: Path) -> None:
    path = make(tmp_path / "x.vmdk", MIB)

    def cid() -> int:
        ours = json.loads(qemu_img("info", "-U", "--output=json", path))["format-specific"]["data"]["cid"]
        with open_image(path, force_share=True) as node:
            assert node.format_specific()["data"]["cid"] == ours
        return int(ours)

    seen = [cid()]
    with open_image(path, writable=True) as node:
        node.flush()
        node.read(0, 512)
    assert cid() == seen[0]
    for _ in range(3):
        length = path.read_bytes().index(b"\0", 512)
        with open_image(path, writable=True) as node:
            node.write(0, b"1")
            seen.append(cid())
            node.write(GRAIN, b"2")
        assert cid() == seen[-1]
        # the text keeps its length, so that nothing in it moves over a sector's end
        assert path.read_bytes().index(b"\0", 512) == length
    assert len(set(seen)) == 4


def test_parents_of_other_formats_are_refused(tmp_path: Path) -> None:
    qemu_img("create", "-q", "-f", "raw", tmp_path / "r.raw", "1M")
    with pytest.raises(OptionError) as caught:
        create_image(tmp_path / "x.vmdk", "vmdk", backing="r.raw", backing_fmt="raw")
    argv = ("create", "-f", "vmdk", "-b", "r.raw", "-F", "raw", tmp_path / "x.vmdk")
    done = judges.run("qemu-img", *argv, ok=(1,))
    assert done.stderr == f"qemu-img: {caught.value}\n"
    assert not (tmp_path / "x.vmdk").exists()


# -- facts ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("options", ["", "subformat=streamOptimized"])
def test_info_is_the_real_tools(tmp_path: Path, options: str) -> None:
    path = make(tmp_path / "x.vmdk", 3_000_001, options)
    info = json.loads(qemu_img("info", "--output=json", path))
    with open_image(path, no_io=True, backing=False) as node:
        assert node.format_specific() == info["format-specific"]
        assert (node.size, node.cluster_size) == (info["virtual-size"], info["cluster-size"])


@settings(max_examples=200)
@given(
    st.lists(st.tuples(st.sampled_from([0, 1, 128, 4096, 0xFFFFFF00]), st.integers(1, 70), st.booleans()), max_size=8),
    st.booleans(),
)
def test_runs_are_maximal_and_exact(parts: list[tuple[int, int, bool]], zeroed: bool) -> None:
    from array import array

    header = SparseHeader()
    header.flags |= 4 if zeroed else 0
    entries: list[int] = []
    for start, count, rising in parts:
        entries += [min(start + number * 128, 0xFFFFFFFF) if rising and start > 1 else start for number in range(count)]
    table = array("I", entries)
    back: list[int] = []
    last: tuple[int, int] | None = None
    for at, count, kind, sector in runs(table, 0, len(table), header):
        assert at == len(back) and count > 0
        if kind == DATA:
            back += range(sector, sector + 128 * count, 128)
            assert last is None or last != (DATA, sector)
            last = (DATA, sector + 128 * count)
        else:
            back += [0 if kind == HOLE else 1] * count
            assert last is None or last[0] != kind
            last = (kind, 0)
    assert back == entries


def test_a_grain_with_a_false_checksum_is_refused(tmp_path: Path) -> None:
    """The bytes may unpack, but the stream's own checksum (RFC 1950) says that they are others."""
    raw, path = tmp_path / "x.raw", tmp_path / "x.vmdk"
    raw.write_bytes(b"A" * GRAIN)
    qemu_img("convert", "-O", "vmdk", "-o", "subformat=streamOptimized", raw, path)
    data = bytearray(path.read_bytes())
    stream = zlib.compress(b"A" * GRAIN)
    at = data.index(stream[-4:])  # Adler-32
    data[at] ^= 0xFF
    path.write_bytes(data)
    assert judges.run("qemu-img", "convert", "-O", "raw", path, tmp_path / "real", ok=(1,)).stderr
    with open_image(path) as node, pytest.raises(CorruptError) as caught:
        node.read(0, 512)
    assert caught.value.layer == "vmdk compressed grain"
