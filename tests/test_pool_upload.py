"""Upload and download: offsets, lengths, holes, bounds, pipes and file objects; a model says what must be there."""

from __future__ import annotations

import io
import os
import subprocess
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import judges
from cowshed.errors import ArgumentError, CancelledError, HostCallError
from cowshed.pool.host import Host
from cowshed.pool.pool import Pool
from cowshed.progress import Progress

SIZE = 1 << 20


@pytest.fixture
def pool(tmp_path: Path) -> Iterator[Pool]:
    # every verb syncs, which a file system in memory does at once
    memory = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    with tempfile.TemporaryDirectory(dir=memory) as folder:
        host = Host(root=f"{folder}/root")
        made = host.define(f"<pool type='dir'><name>p</name><target><path>{folder}/p</path></target></pool>")
        made.build()
        made.start()
        yield made
        assert host.jobs() == []


def volume(pool: Pool, size: int = SIZE, name: str = "v") -> Any:
    return pool.create_volume(
        f"<volume><name>{name}</name><capacity>{size}</capacity><allocation>0</allocation></volume>"
    )


class Slow(io.RawIOBase):
    """A stream that gives and takes little at a time, has no descriptor, and can't seek."""

    def __init__(self, data: bytes = b"") -> None:
        self.data = bytearray(data)

    def readable(self) -> bool:
        return True

    def writable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        part = bytes(self.data[: min(size, 777)])
        del self.data[: len(part)]
        return part

    def write(self, data: Any) -> int:
        part = bytes(data[:333])
        self.data += part
        return len(part)


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_against_a_model(pool: Pool, tmp_path: Path, data: st.DataObject) -> None:
    size = data.draw(st.integers(0, 20000))
    target = volume(pool, size)
    try:
        model = bytearray(size)
        for _ in range(data.draw(st.integers(1, 4))):
            offset = data.draw(st.integers(0, 21000))
            content = data.draw(st.binary(max_size=64)) * data.draw(st.integers(1, 300))
            length = data.draw(st.sampled_from([0, len(content), len(content) + 5, max(0, len(content) - 1)]))
            grow, sparse = data.draw(st.booleans()), data.draw(st.booleans())
            how = data.draw(st.sampled_from(["path", "bytes", "slow", "file"]))
            path = tmp_path / "source"
            path.write_bytes(content)
            source: Any = {"path": path, "bytes": io.BytesIO(content), "slow": Slow(content)}.get(how)
            known = how in ("path", "file")
            fits = grow or not content or offset + len(content) <= len(model)
            long = bool(length) and len(content) > length
            try:
                if how == "file":
                    with open(path, "rb") as source:
                        target.upload(source, offset=offset, length=length, sparse=sparse, resize=grow)
                else:
                    target.upload(source, offset=offset, length=length, sparse=sparse, resize=grow)
            except HostCallError as error:
                assert long
                assert str(error) == "cannot write to stream: No space left on device"
            except ArgumentError:
                assert not fits
            else:
                assert not long
                assert fits
            if known and (long or not fits):
                content = b""
            if offset > len(model) and not grow:
                content = b""
            if length:
                content = content[:length]
            if not grow:
                content = content[: max(0, len(model) - offset)]
            if content:
                model += bytes(max(0, offset + len(content) - len(model)))
                model[offset : offset + len(content)] = content
            assert Path(target.path).read_bytes() == model
        offset, length = data.draw(st.integers(0, 30000)), data.draw(st.integers(0, 30000))
        expected = bytes(model[offset : offset + length] if length else model[offset:])
        sparse = data.draw(st.booleans())
        buffer, slow, path = io.BytesIO(), Slow(), tmp_path / "copy"
        for sink in (buffer, slow, path):
            target.download(sink, offset=offset, length=length, sparse=sparse)
        assert (buffer.getvalue(), bytes(slow.data), path.read_bytes()) == (expected,) * 3
    finally:
        target.delete()


#: what a file in many pieces may need to tell where they are
MORE = 65536


def test_holes(pool: Pool, tmp_path: Path) -> None:
    source = tmp_path / "source"
    with open(source, "wb") as file:
        file.truncate(64 << 20)
        for at in (0, 33 << 20):
            file.seek(at)
            file.write(b"data" * 1024)
    target = volume(pool, 64 << 20)
    target.upload(source, sparse=True)
    assert 8192 <= target.info().allocation < 8192 + MORE
    assert Path(target.path).read_bytes() == source.read_bytes()
    for name, sparse, held in (("a", True, 8192), ("b", False, 64 << 20)):
        target.download(tmp_path / name, sparse=sparse)
        assert (tmp_path / name).read_bytes() == source.read_bytes()
        assert held <= os.stat(tmp_path / name).st_blocks * 512 < held + MORE
    # what was there where the source has a hole is gone
    Path(target.path).write_bytes(b"x" * (64 << 20))
    target.upload(source, sparse=True)
    assert Path(target.path).read_bytes() == source.read_bytes()
    assert 8192 <= target.info().allocation < 8192 + MORE
    target.upload(source)
    assert 0 <= target.info().allocation - (64 << 20) < MORE
    # behind what a file object has been read so far
    with open(source, "rb") as file:
        file.seek(33 << 20)
        target.upload(file, sparse=True)
        assert file.tell() == 64 << 20
    assert Path(target.path).read_bytes()[: 31 << 20] == source.read_bytes()[33 << 20 :]


def test_a_sparse_download_into_a_file_that_has_more(pool: Pool, tmp_path: Path) -> None:
    target = volume(pool, SIZE)
    with open(tmp_path / "out", "w+b") as file:
        file.write(b"head")
        target.download(file, sparse=True)
        file.flush()
        assert file.tell() == SIZE + 4
    assert (tmp_path / "out").read_bytes() == b"head" + bytes(SIZE)


def test_bounds(pool: Pool, tmp_path: Path) -> None:
    target = volume(pool, SIZE)
    Path(target.path).write_bytes(b"o" * SIZE)
    source = tmp_path / "source"
    source.write_bytes(b"n" * (SIZE + 1))
    with pytest.raises(ArgumentError) as caught:
        target.upload(source)
    assert str(caught.value) == (
        f"invalid argument: {SIZE + 1} bytes to upload at offset 0, "
        f"but volume 'v' of {SIZE} bytes has room for {SIZE} there"
    )
    with pytest.raises(HostCallError) as failed:
        target.upload(source, length=10)
    assert str(failed.value) == "cannot write to stream: No space left on device"
    assert Path(target.path).read_bytes() == b"o" * SIZE, "nothing is written when it is known beforehand"
    for offset, length in ((-1, 0), (0, -1), (1 << 63, 0), (0, 1 << 64)):
        with pytest.raises(ArgumentError, match="is out of range"):
            target.upload(source, offset=offset, length=length)
        with pytest.raises(ArgumentError, match="is out of range"):
            target.download(tmp_path / "x", offset=offset, length=length)
    target.upload(source, resize=True)
    assert target.info().capacity == SIZE + 1
    with pytest.raises(HostCallError, match=r"^cannot read /nosuch/x: No such file or directory"):
        target.upload("/nosuch/x")
    with pytest.raises(HostCallError, match=r"^cannot create /nosuch/x: No such file or directory"):
        target.download("/nosuch/x")


def test_directories(pool: Pool, tmp_path: Path) -> None:
    folder = pool.create_volume(
        "<volume><name>d</name><capacity>0</capacity><target><format type='dir'/></target></volume>"
    )
    for verb in (lambda: folder.upload("/dev/null"), lambda: folder.download(tmp_path / "x")):
        with pytest.raises(HostCallError) as caught:
            verb()
        assert str(caught.value) == f"Unable to open stream for '{folder.path}': Is a directory"
    assert not (tmp_path / "x").exists()


def test_pipes(pool: Pool) -> None:
    target = volume(pool, SIZE)
    reader, writer = os.pipe()
    content = os.urandom(SIZE)

    def feed() -> None:
        with open(writer, "wb") as file:
            file.write(content)

    thread = threading.Thread(target=feed, daemon=True)
    thread.start()
    with open(reader, "rb") as file:
        target.upload(file, sparse=True)
    thread.join()
    reader, writer = os.pipe()
    got: list[bytes] = []

    def take() -> None:
        with open(reader, "rb") as file:
            got.append(file.read())

    thread = threading.Thread(target=take, daemon=True)
    thread.start()
    with open(writer, "wb") as file:
        target.download(file, sparse=True)
    thread.join()
    assert got == [content]


def test_progress_and_cancelling(pool: Pool, tmp_path: Path) -> None:
    target = volume(pool, 16 << 20)
    source = tmp_path / "source"
    source.write_bytes(os.urandom(16 << 20))
    for verb in (
        lambda work: target.upload(source, progress=work), lambda work: target.download(tmp_path / "x", progress=work),
    ):  # fmt: skip
        seen: list[int] = []
        verb(Progress(listener=lambda work, seen=seen: seen.append(work.done)))
        assert seen == sorted(seen)
        assert seen[-1] == 16 << 20

        def listener(work: Progress) -> None:
            if work.done > 4 << 20:
                raise CancelledError("canceled by client")

        with pytest.raises(CancelledError):
            verb(Progress(listener=listener))


def test_an_image_takes_an_image(pool: Pool, tmp_path: Path) -> None:
    """The file of a qcow2 volume grows to what its capacity may need, without being asked to."""
    judge = judges.need("qemu-img")
    made = pool.create_volume(
        "<volume><name>q</name><capacity>4194304</capacity><target><format type='qcow2'/></target></volume>"
    )
    raw, image = tmp_path / "raw", tmp_path / "image"
    raw.write_bytes(os.urandom(4 << 20))
    subprocess.run([judge, "convert", "-O", "qcow2", raw, image], check=True)
    assert image.stat().st_size > os.stat(made.path).st_size
    made.upload(image)
    subprocess.run([judge, "compare", "-f", "raw", "-F", "qcow2", raw, made.path], check=True)
    with open(image, "ab") as file:
        file.truncate(64 << 20)
    with pytest.raises(ArgumentError, match="has room for"):
        made.upload(image)
    subprocess.run([judge, "compare", "-f", "raw", "-F", "qcow2", raw, made.path], check=True)
