"""Changes of a whole image, judged by what the real tools do in the same place."""

from __future__ import annotations

import json
import shutil
import struct
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from cowshed.block.graph import create_image, open_image
from cowshed.errors import CowshedError, NoSpaceError
from judges import need
from layouts import assert_sound, qemu_io

K64 = 65536
MIB = 1 << 20


def fresh(path: Path, size: int = 4 * MIB, **options: object) -> Path:
    create_image(str(path), "qcow2", {"size": size, **options})
    return path


def tool(*argv: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [need(str(argv[0])), *map(str, argv[1:])], capture_output=True, text=True, timeout=120, check=False
    )


# -- qcow2 on a raw node -----------------------------------------------------------------------------------------------


def on_raw(path: Path, **window: int) -> str:
    raw = {"driver": "raw", **window, "file": {"driver": "file", "filename": str(path)}}
    return "json:" + json.dumps({"driver": "qcow2", "file": raw})


@pytest.mark.parametrize("start", [0, K64])
def test_an_image_on_a_raw_node_grows(tmp_path: Path, start: int) -> None:
    """What the real tool writes there we can write, and each reads what the other wrote."""
    plain = fresh(tmp_path / "plain", 64 * MIB)
    path = tmp_path / "disk"
    path.write_bytes(bytes(start) + plain.read_bytes())
    name = on_raw(path, offset=start) if start else on_raw(path)
    with open_image(name, writable=True) as node:
        node.write(0, b"A" * (2 * MIB))
        node.write_zeroes(MIB, K64, True)
        node.snapshot_create("s")
        node.write_compressed(8 * MIB, b"B" * K64)
        node.flush()
        node.discard(0, MIB)
        node.resize(1 << 40)
        node.write((1 << 40) - K64, b"C" * K64)
        assert node.read(8 * MIB, K64) == b"B" * K64
    assert (
        tool("qemu-io", "-c", f"read -P 0x42 {8 * MIB} {K64}", "-c", f"write -P 0x44 {32 * MIB} {MIB}", name).returncode
        == 0
    )
    reads = [
        f"read -P 0 {0} {MIB + K64}",
        f"read -P 0x41 {MIB + K64} {MIB - K64}",
        f"read -P 0x43 {(1 << 40) - K64} {K64}",
    ]
    run = tool("qemu-io", *(word for read in reads for word in ("-c", read)), name)
    assert run.returncode == 0
    assert "failed" not in run.stdout
    with open_image(name) as node:
        assert node.read(32 * MIB, MIB) == b"D" * MIB
    assert tool("qemu-img", "check", name).returncode == 0


def test_an_image_on_a_raw_node_of_fixed_size_does_not(tmp_path: Path) -> None:
    path = fresh(tmp_path / "disk", 64 * MIB)
    size = path.stat().st_size // 512 * 512
    shutil.copy(path, tmp_path / "real")
    run = tool("qemu-io", "-c", f"write 0 {MIB}", on_raw(tmp_path / "real", size=size))
    assert "No space left on device" in run.stdout + run.stderr
    with open_image(on_raw(path, size=size), writable=True) as node:
        with pytest.raises(NoSpaceError, match="No space left on device"):
            node.write(0, b"A" * MIB)
        node.failed = NoSpaceError("seen")  # type: ignore[attr-defined]
    assert path.stat().st_size // 512 * 512 == size
    assert tool("qemu-img", "check", path).returncode == 0


def test_a_raw_disk_itself_keeps_its_end(tmp_path: Path) -> None:
    """Only a format above makes the file longer; a guest stays inside."""
    path = tmp_path / "disk"
    path.write_bytes(bytes(MIB))
    with open_image(str(path), fmt="raw", writable=True) as node:
        changes: list[Callable[[], None]] = [
            lambda: node.write(MIB, b"x"),
            lambda: node.write_zeroes(MIB, 512),
            lambda: node.discard(MIB, 512),
        ]
        for change in changes:
            with pytest.raises(CowshedError, match="outside the disk"):
                change()
    assert path.stat().st_size == MIB


# -- snapshots ---------------------------------------------------------------------------------------------------------


def test_a_snapshot_of_a_ragged_size_is_not_applied(tmp_path: Path) -> None:
    """The real tool refuses it: disks have whole sectors."""
    path = fresh(tmp_path / "disk")
    with open_image(str(path), writable=True) as node:
        node.write(0, b"A" * K64)
        node.snapshot_create("s")
        table = node.header.snapshots_offset  # type: ignore[attr-defined]
        node.write(0, b"B" * K64)
    with open(path, "r+b") as file:
        file.seek(table + 48)
        assert struct.unpack(">Q", file.read(8)) == (4 * MIB,)
        file.seek(table + 48)
        file.write(struct.pack(">Q", 4 * MIB - 100))
    before = path.read_bytes()
    run = tool("qemu-img", "snapshot", "-a", "s", path)
    assert run.returncode == 1
    assert "The new size must be a multiple of 512" in run.stderr
    assert path.read_bytes() == before
    with open_image(str(path), writable=True) as node:
        with pytest.raises(CowshedError, match="The new size must be a multiple of 512"):
            node.snapshot_apply("s")
        assert node.size == 4 * MIB
        assert node.read(0, K64) == b"B" * K64
    assert_sound(path)


# -- external data files -----------------------------------------------------------------------------------------------


def both(tmp_path: Path, size: int, raw: str, length: int) -> tuple[Path, Path]:
    """An image made by the real tool, twice, with data files that somebody made ``length`` bytes long."""
    found = []
    for name in ("real", "ours"):
        folder = tmp_path / name
        folder.mkdir()
        options = f"data_file={folder}/d,data_file_raw={raw}"
        assert tool("qemu-img", "create", "-q", "-f", "qcow2", "-o", options, folder / "a", size).returncode == 0
        with open(folder / "d", "r+b") as file:
            file.truncate(length)
            for at in range(0, length, 1024):
                file.seek(at)
                file.write(b"OLD!" * 64)
        found.append(folder)
    return found[0], found[1]


@pytest.mark.parametrize("raw", ["on", "off"])
@pytest.mark.parametrize("size", [MIB, MIB + 512])
@pytest.mark.parametrize("to", [2 * MIB, 8 * MIB, MIB // 2, MIB + 512])
@pytest.mark.parametrize("length", [4 * MIB, MIB // 4])
def test_resizing_over_a_data_file_of_another_length(tmp_path: Path, raw: str, size: int, to: int, length: int) -> None:
    """Length and bytes of the data file, and what the guest sees, are as the real tool has them.

    Behind the end of the disk, up to the end of its last cluster, the real tool writes zeroes into a raw data file that
    others share; ours leaves alone what is nobody's.
    """
    real, ours = both(tmp_path, size, raw, length)
    assert tool("qemu-img", "resize", "--shrink", real / "a", to).returncode == 0
    with open_image(str(ours / "a"), writable=True) as node:
        node.resize(to)
    lengths = [(folder / "d").stat().st_size for folder in (real, ours)]
    if raw == "on" and length < size < to:
        lengths[0] = min(lengths[0], to)
    assert lengths[0] == lengths[1]
    guests = []
    for folder in (real, ours):
        target = folder / "guest"
        assert tool("qemu-img", "convert", "-O", "raw", folder / "a", target).returncode == 0
        guests.append(target.read_bytes())
    if raw == "on":
        assert (ours / "d").read_bytes()[:to] == (real / "d").read_bytes()[:to]
    assert guests[0] == guests[1]
    assert tool("qemu-img", "check", ours / "a").returncode == 0


# -- headers -----------------------------------------------------------------------------------------------------------


def test_a_header_that_could_not_be_rewritten_keeps_its_length(tmp_path: Path) -> None:
    """Headers of 104 bytes grow when they are written anew; if that fails, their first extension stays where it is."""
    path = fresh(tmp_path / "disk")
    data = bytearray(path.read_bytes())
    (length,) = struct.unpack_from(">I", data, 100)
    assert length == 112
    extensions = bytes(data[112 : 112 + 512])
    data[104 : 104 + 512] = extensions
    struct.pack_into(">I", data, 100, 104)
    path.write_bytes(data)
    with open_image(str(path), writable=True) as node:
        fixed = path.read_bytes()[:2048]
        node.file.write, real = _fails, node.file.write  # type: ignore[method-assign,assignment]
        with pytest.raises(CowshedError):
            node.change_backing("x" * 1000, "raw")
        node.file.write = real  # type: ignore[method-assign]
        node.failed = None  # type: ignore[attr-defined]
        node.write_header_fixed()  # type: ignore[attr-defined]
        assert path.read_bytes()[104:2048] == fixed[104:]
    assert_sound(path)
    qemu_io(path, ["read -P 0 0 4M"])


def _fails(offset: int, data: bytes) -> None:
    raise NoSpaceError("No space left on device", errno=28)
