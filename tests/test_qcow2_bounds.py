"""What must be refused, or done otherwise, where a number doesn't fit: ranges, fields, tables, memory."""

from __future__ import annotations

import os
import struct
import subprocess
import sys
from pathlib import Path

import pytest

from cowshed.block.graph import create_image, open_image
from cowshed.errors import FormatError, NoSpaceError, OpenError, RangeError
from judges import need
from layouts import assert_sound, qemu_io

K64 = 65536
MIB = 1 << 20
GIB = 1 << 30


def fresh(path: Path, fmt: str = "qcow2", size: int = 4 * MIB, **options: object) -> Path:
    create_image(str(path), fmt, {"size": size, **options})
    return path


# -- ranges ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("fmt", ["raw", "qcow2", "vmdk"])
@pytest.mark.parametrize(("offset", "length"), [(0, 1 << 60), (0, -1), (-1, 1), (1 << 60, 1), (4 * MIB - 1, 2)])
def test_ranges_are_checked_before_memory_is_taken(tmp_path: Path, fmt: str, offset: int, length: int) -> None:
    with open_image(str(fresh(tmp_path / "disk", fmt)), fmt=fmt) as node, pytest.raises(RangeError):
        node.read(offset, length)


def test_a_file_is_no_endless_source_of_zeroes(tmp_path: Path) -> None:
    """Formats may map a little beyond the end of their file; that is no reason to take any amount of memory."""
    with open_image(str(fresh(tmp_path / "disk"))) as node:
        end = node.file.size
        assert node.file.read(end, 4096) == bytes(4096)
        with pytest.raises(RangeError):
            node.file.read(0, 1 << 60)


# -- fields of entries -------------------------------------------------------------------------------------------------


def test_compressed_clusters_beyond_their_field_are_stored_plain(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With 2 MiB clusters an entry has 49 bits for the place of compressed bytes, and 56 for that of plain ones."""
    size = 2 << 20
    path = fresh(tmp_path / "disk", size=16 * MIB, cluster_size=size)
    data = os.urandom(1000) + bytes(size - 1000)
    with open_image(str(path), writable=True) as node:
        node.write_compressed(0, data)
        node.flush()
        limit = 1 << 49
        real = node.file.write
        far: list[tuple[int, bytes]] = []

        def write(offset: int, piece: bytes) -> None:
            # no file system here has files as long as that: what goes there is looked at only
            if offset < GIB:
                real(offset, piece)
            else:
                far.append((offset, bytes(piece)))

        monkeypatch.setattr(node.file, "write", write)
        for slot, cluster in ((1, limit // size - 1), (2, limit // size)):
            node.refcounts.hint = cluster  # type: ignore[attr-defined]
            node.packed_end = 0  # type: ignore[attr-defined]
            node.write_compressed(slot * size, data)
        entries = node.l2_table(0).entries  # type: ignore[attr-defined]
        assert [entry >> 62 & 1 for entry in entries[:3]] == [1, 1, 0]
        assert node.compressed_location(entries[1])[0] == limit - size  # type: ignore[attr-defined]
        host = entries[2] & (1 << 56) - 1
        assert host >= limit
        assert (host, data) in far
        node.failed = NoSpaceError("nothing of this is written")  # type: ignore[attr-defined]


def test_compressed_bytes_must_be_of_a_possible_length(tmp_path: Path) -> None:
    with open_image(str(fresh(tmp_path / "disk")), writable=True) as node:
        for piece in (b"", bytes(K64 + 1)):
            with pytest.raises(FormatError):
                node.write_packed([(0, piece)])  # type: ignore[attr-defined]
    assert_sound(tmp_path / "disk")


def test_allocation_ends_where_the_field_does(tmp_path: Path) -> None:
    """56 bits for a cluster's place: a run that begins inside must not end outside."""
    with open_image(str(fresh(tmp_path / "disk", cluster_size=2 << 20)), writable=True) as node:
        refcounts = node.refcounts  # type: ignore[attr-defined]
        limit = node.max_clusters  # type: ignore[attr-defined]
        refcounts.hint = limit - 2
        assert refcounts.find(5) == (limit - 2, 2)
        with pytest.raises(NoSpaceError, match="File too large"):
            refcounts.find(5, whole=True)
        node.failed = NoSpaceError("nothing of this is written")  # type: ignore[attr-defined]


def test_a_data_file_longer_than_entries_can_say(tmp_path: Path) -> None:
    """With an external data file a cluster's place is its guest offset, and disks can be larger than 56 bits say."""
    path = fresh(tmp_path / "disk", size=MIB, cluster_size=2 << 20, data_file=str(tmp_path / "data"))
    with open_image(str(path), writable=True) as node:
        node.size = 1 << 57
        node.l1.extend([0] * ((1 << 57) // node.l2_span - len(node.l1)))  # type: ignore[attr-defined]
        with pytest.raises(NoSpaceError, match="File too large") as caught:
            node.write(1 << 56, b"x" * 4096)
        assert caught.value.field == "host offset"
        node.failed = caught.value  # type: ignore[attr-defined]


# -- the refcount table ------------------------------------------------------------------------------------------------


def test_the_refcount_table_grows_as_far_as_its_bound(tmp_path: Path) -> None:
    """512-byte clusters: what lies between 85 and 128 GiB fits into 8 MiB of table, but not with half as much spare."""
    path = fresh(tmp_path / "disk", size=64 * MIB, cluster_size=512)
    with open_image(str(path), writable=True) as node:
        node.write(0, b"A" * K64)
        node.flush()
        node.refcounts.hint = 100 * GIB // 512  # type: ignore[attr-defined]
        node.write(MIB, b"B" * K64)
        node.flush()
        assert node.header.refcount_table_clusters * 512 <= 8 * MIB  # type: ignore[attr-defined]
        node.refcounts.hint = 128 * GIB // 512  # type: ignore[attr-defined]
        with pytest.raises(NoSpaceError, match="File too large"):
            node.write(2 * MIB, b"C" * K64)
        assert node.read(2 * MIB, K64) == bytes(K64)
        assert node.read(MIB, K64) == b"B" * K64
    assert path.stat().st_size > 100 * GIB
    qemu_io(path, [f"read -P 0x41 0 {K64}", f"read -P 0x42 {MIB} {K64}", f"write -P 0x44 {3 * MIB} {K64}"])
    with open_image(str(path)) as node:
        result = node.check()
        assert not result.corruptions and not result.check_errors
        assert node.read(3 * MIB, K64) == b"D" * K64


# -- bitmaps -----------------------------------------------------------------------------------------------------------


def many_bitmaps(path: Path, count: int, *, apart: int) -> Path:
    """An image whose ``count`` bitmaps have tables of 1 MiB each, ``apart`` bytes from one to the next (0: one)."""
    table = 131072  # the most for clusters of 4 KiB: 512 MiB of bits
    fresh(path, size=table * 4096 * 8 * 512, cluster_size=4096)
    with open_image(str(path), writable=True) as node:
        node.bitmap_add("b", 1 << 31)
    with open(path, "r+b") as file:
        end = os.fstat(file.fileno()).st_size + 4095 & ~4095
        offset = end + (4 << 20)
        file.truncate(offset + count * apart + table * 8)
        directory = b""
        for number in range(count):
            name = b"%08d" % number
            directory += struct.pack(">QIIBBHI", offset + number * apart, table, 2, 1, 9, len(name), 0) + name
        file.seek(end)
        file.write(directory)
        file.seek(0)
        at = file.read(4096).index(struct.pack(">I", 0x23852875) + struct.pack(">I", 24)) + 8
        file.seek(at)
        file.write(struct.pack(">IIQQ", count, 0, len(directory), end))
    return path


@pytest.mark.parametrize("apart", [0, 4096], ids=["shared", "overlapping"])
@pytest.mark.parametrize("work", ["open", "write"])
def test_65535_bitmaps_with_huge_tables_take_bounded_time_and_memory(tmp_path: Path, apart: int, work: str) -> None:
    path = many_bitmaps(tmp_path / "disk", 65535, apart=apart)
    code = f"""if 1:
        import resource, time
        resource.setrlimit(resource.RLIMIT_AS, (1 << 30, 1 << 30))
        begin = time.process_time()
        from cowshed.block.graph import open_image
        from cowshed.errors import CowshedError
        try:
            with open_image({str(path)!r}, writable={work == "write"}) as node:
                if {work == "write"}:
                    node.write(0, b"x" * 4096)
                else:
                    assert len(node.bitmaps()) == 65535
            print("done")
        except CowshedError as error:
            print("refused:", error)
        assert time.process_time() - begin < 60
    """
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=280)
    assert run.returncode == 0, run.stderr[-2000:]
    # 65535 times 512 MiB of bits, all to be kept true by a write, are refused; looking is not
    assert run.stdout.startswith("refused: Cannot allocate memory" if work == "write" else "done"), run.stdout


def test_a_bad_entry_is_found_in_whichever_table_it_lies(tmp_path: Path) -> None:
    """The real tool refuses it too, and names the first bitmap whose table has it."""
    for bad in (0, 1, 3000, 131071):
        path = many_bitmaps(tmp_path / f"disk{bad}", 3, apart=8192)
        with open(path, "r+b") as file:
            with open_image(str(path)) as node:
                from cowshed.block.format.qcow2.bitmap import Directory

                first = Directory.load(node).entries[0].table_offset  # type: ignore[arg-type]
            file.seek(first + 8192 + bad * 8)
            file.write(struct.pack(">Q", 1 << 60))
        name = "00000000" if bad < 131072 - 1024 else "00000001"
        with pytest.raises(OpenError, match=f"for bitmap '{name}': Invalid argument"):
            open_image(str(path))
        if bad == 0:
            run = subprocess.run([need("qemu-img"), "info", str(path)], capture_output=True, text=True, timeout=60)
            assert run.returncode == 1
            assert f"for bitmap '{name}': Invalid argument" in run.stderr
