"""Damaged and odd vmdk images: told in the real tool's words where it tells them, and never read as something else."""

from __future__ import annotations

import json
import os
import struct
from pathlib import Path

import pytest

import judges
from cowshed.block.format.vmdk.header import SparseHeader
from cowshed.block.graph import open_image
from cowshed.errors import CorruptError, CowshedError, FormatError, UnsupportedError
from judges import qemu_img, qemu_io
from test_vmdk import GRAIN, MIB, as_map, real, same, written

pytestmark = pytest.mark.usefixtures("judged")


@pytest.fixture(scope="module")
def judged() -> None:
    judges.need("qemu-img")


def image_with_data(path: Path) -> bytearray:
    real(path, 3 * MIB)
    qemu_io(path, "write -P 5 0 200000")
    return bytearray(path.read_bytes())


def p32(value: int) -> bytes:
    return struct.pack("<I", value)


def p64(value: int) -> bytes:
    return struct.pack("<Q", value)


#: name -> (offset, bytes)
DAMAGE = {
    "version": (4, p32(4)),
    "no grains": (12, p64(0)),
    "endless": (12, p64((1 << 64) - 1)),
    "grain 0": (20, p64(0)),
    "grain huge": (20, p64(0x400000)),
    "grain overflow": (20, p64(1 << 40)),
    "table entries 0": (44, p32(0)),
    "table entries 513": (44, p32(513)),
    "table entries huge": (44, p32(0xFFFFFFFF)),
    "no footer": (56, p64((1 << 64) - 1)),
    "overhead": (64, p64(1_000_000)),
    "descriptor": (512, bytes(10240)),
    "no CID": (512, b"# Disk DescriptorFile\nversion=1\nxxx=1".ljust(10240, b"\0")),
}


@pytest.mark.parametrize("name", DAMAGE)
def test_damaged_headers_are_refused_in_the_real_tools_words(tmp_path: Path, name: str) -> None:
    path = tmp_path / "x.vmdk"
    content = image_with_data(path)
    offset, data = DAMAGE[name]
    content[offset : offset + len(data)] = data
    path.write_bytes(content)
    with pytest.raises(CowshedError) as caught:
        open_image(path)
    done = judges.run("qemu-img", "info", path, ok=(1,))
    assert done.stderr == f"qemu-img: {caught.value}\n"
    assert isinstance(caught.value.__cause__, FormatError) and caught.value.detail
    assert path.read_bytes() == content


def test_truncated_images_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.vmdk"
    content = image_with_data(path)
    for length in (0, 3, 4, 300, 512, 3000, 30_000, 65_024):
        path.write_bytes(content[:length])
        with pytest.raises(CowshedError) as caught:
            open_image(path, fmt="vmdk")
        done = judges.run("qemu-img", "info", "-f", "vmdk", path, ok=(1,))
        assert done.stderr == f"qemu-img: {caught.value}\n"


@pytest.mark.parametrize(("field", "offset"), [("gdOffset", 56), ("rgdOffset", 48)])
def test_directories_outside_the_file_are_not_taken_for_empty_ones(tmp_path: Path, field: str, offset: int) -> None:
    path = tmp_path / "x.vmdk"
    content = image_with_data(path)
    content[offset : offset + 8] = p64(1 << 40)
    path.write_bytes(content)
    if field == "gdOffset":
        with pytest.raises(CowshedError, match="grain directory"):
            open_image(path)
    else:
        with open_image(path, writable=True) as node:
            assert node.read(0, 200_000) == b"\5" * 200_000
            with pytest.raises(CorruptError, match="grain directory"):
                node.write(0, b"x")
    assert path.read_bytes() == content


def table_offset(content: bytes | bytearray) -> int:
    directory = struct.unpack_from("<Q", content, 56)[0] * 512
    return int(struct.unpack_from("<I", content, directory)[0] * 512)


def test_grains_past_the_end_are_found_and_not_read_as_zeroes(tmp_path: Path) -> None:
    path = tmp_path / "x.vmdk"
    content = image_with_data(path)
    table = table_offset(content)
    content[table + 4 : table + 8] = p32(0x7FFFFFFF)
    path.write_bytes(content)
    done = judges.run("qemu-img", "check", path, ok=(1,))
    with open_image(path) as node:
        found = node.check()
        text = "".join(line + "\n" for _, line in found.messages)
        assert found.error is not None
        assert done.stderr == f"{text}qemu-img: Check failed: {os.strerror(found.error.errno or 0)}\n"
        assert node.read(0, GRAIN) == b"\5" * GRAIN
        with pytest.raises(CorruptError, match="points after EOF"):
            node.read(0, 2 * GRAIN)
    with open_image(path) as node, pytest.raises(UnsupportedError, match="This image format does not support checks"):
        node.check(frozenset(["leaks"]))


def test_missing_grain_tables_are_made_when_written_to(tmp_path: Path) -> None:
    path = real(tmp_path / "x.vmdk", 100 * MIB)
    content = bytearray(path.read_bytes())
    header = SparseHeader.unpack(content[:512])
    for directory in (header.directory, header.redundant):
        content[directory * 512 + 4 : directory * 512 + 12] = bytes(8)
    path.write_bytes(content)
    model = bytearray(100 * MIB)
    with open_image(path, writable=True) as node:
        written(node, model, 31 * MIB, os.urandom(2 * MIB))
        node.flush()
        written(node, model, 70 * MIB, os.urandom(2 * MIB))
    raw = tmp_path / "model"
    raw.write_bytes(model)
    qemu_img("compare", path, raw)
    qemu_img("check", path)
    with open_image(path, writable=True) as node:
        written(node, model, 33 * MIB, b"again")
        assert node.read(0, node.size) == model
    raw.write_bytes(model)
    qemu_img("compare", path, raw)


def test_the_second_copy_is_mended_where_it_is_written(tmp_path: Path) -> None:
    path = real(tmp_path / "x.vmdk", 3 * MIB)
    qemu_io(path, "write -P 5 0 200000")
    content = bytearray(path.read_bytes())
    header = SparseHeader.unpack(content[:512])
    copy = (header.redundant + header.directory_sectors) * 512
    content[copy : copy + 8] = bytes(8)  # as a power cut between the two may leave it
    path.write_bytes(content)
    model = bytearray(b"\5" * 200_000 + bytes(3 * MIB - 200_000))
    with open_image(path, writable=True) as node:
        written(node, model, 2 * MIB, b"x")
    same(path, model)


def test_odd_grain_sizes_are_read_as_the_real_tool_reads_them(tmp_path: Path) -> None:
    path = tmp_path / "x.vmdk"
    content = image_with_data(path)
    for grain in (1, 3, 64, 256):
        content[20:28] = p64(grain)
        path.write_bytes(content)
        raw = tmp_path / "x.raw"
        qemu_img("convert", "-O", "raw", path, raw)
        with open_image(path) as node:
            assert node.read(0, node.size) == raw.read_bytes(), grain
        assert json.loads(qemu_img("map", "--output=json", path)) == as_map(path)


def test_version_3_is_read_only(tmp_path: Path) -> None:
    path = tmp_path / "x.vmdk"
    content = image_with_data(path)
    content[4:8] = p32(3)
    path.write_bytes(content)
    with open_image(path) as node:
        assert node.read(0, 200_000) == b"\5" * 200_000
    with pytest.raises(CowshedError, match="VMDK version 3 must be read only"):
        open_image(path, writable=True)


def test_other_files_are_never_opened_as_extents(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_bytes(b"s" * MIB)
    path = tmp_path / "x.vmdk"
    path.write_text(
        "# Disk DescriptorFile\nversion=1\nCID=12345678\nparentCID=ffffffff\n"
        f'createType="monolithicFlat"\nRW 2048 FLAT "{secret}" 0\n'
    )
    with pytest.raises(CowshedError, match="vmdk"):
        open_image(path)
