"""The files of a guest through fsspec: its own conformance tests, and what is ours beyond them."""

from __future__ import annotations

import errno
import importlib.metadata
import os
import pickle
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import fsspec
import pytest
from fsspec.tests import abstract

import cowshed
import cowshed.guest
import judges
from cowshed.errors import CowshedError, UsageError
from cowshed.guest.fsspec import GuestFileSystem


@pytest.fixture(scope="module")
def blank(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("blank")
    (folder / "source/etc").mkdir(parents=True)
    (folder / "source/etc/hostname").write_text("web1\n")
    (folder / "source/link").symlink_to("etc/hostname")
    (folder / "source/folder").symlink_to("etc")
    (folder / "source/dangling").symlink_to("nowhere")
    path = folder / "disk.img"
    with path.open("wb") as file:
        file.truncate(8 << 20)
    # without sums, which are most of the time of small changes
    judges.run("mkfs.ext4", "-q", "-F", "-N", "512", "-O", "^metadata_csum", "-d", folder / "source", path)
    return path


@pytest.fixture
def image(blank: Path, tmp_path: Path) -> Path:
    return shutil.copy(blank, tmp_path / "disk.img")


def clean(path: Path) -> None:
    judges.run("e2fsck", "-fn", path)


class GuestFixtures(abstract.AbstractFixtures):
    @pytest.fixture(scope="class")
    @classmethod
    def fs(cls, blank: Path) -> Iterator[GuestFileSystem]:
        memory = "/dev/shm" if os.path.isdir("/dev/shm") else None
        with tempfile.TemporaryDirectory(dir=memory) as folder:
            image = shutil.copy(blank, folder)
            made = GuestFileSystem(image, write=True, auto_mkdir=True)
            yield made
            made.close()
            clean(image)

    @pytest.fixture
    def fs_path(self) -> str:
        return "/"


class TestCopy(abstract.AbstractCopyTests, GuestFixtures):
    pass


class TestGet(abstract.AbstractGetTests, GuestFixtures):
    pass


class TestPut(abstract.AbstractPutTests, GuestFixtures):
    pass


class TestOpen(abstract.AbstractOpenTests, GuestFixtures):
    pass


class TestPipe(abstract.AbstractPipeTests, GuestFixtures):
    pass


# ---- names


def test_urls(image: Path) -> None:
    assert "guest" in {entry.name for entry in importlib.metadata.entry_points(group="fsspec.specs")}
    with fsspec.open("guest:///etc/hostname", "rt", disk=image) as file:
        assert file.read() == "web1\n"
    for url in (f"guest://etc/hostname::file://{image}", f"guest:///link::{image}"):
        with fsspec.open(url) as file:
            assert file.read() == b"web1\n"
    with fsspec.open_files(["guest:///etc/hostname", "guest:///link"], disk=str(image))[1] as file:
        assert file.read() == b"web1\n"
    # a file keeps what it is on
    assert fsspec.open("guest:///etc/hostname", disk=str(image)).open().read() == b"web1\n"
    with pytest.raises(UsageError, match="http"):
        fsspec.filesystem("guest", fo="http://x/disk.img", target_protocol="http")
    with pytest.raises(UsageError, match="which disk"):
        fsspec.filesystem("guest")
    assert GuestFileSystem._strip_protocol(["guest://etc", "/etc/", "etc", "guest://"]) == ["/etc"] * 3 + ["/"]


def test_reading(image: Path) -> None:
    fs = fsspec.filesystem("guest", disk=str(image))
    assert fs.ls("/", detail=False) == ["/dangling", "/etc", "/folder", "/link", "/lost+found"]
    kinds = {row["name"]: row["type"] for row in fs.ls("/")}
    assert kinds == {"/dangling": "link", "/etc": "directory", "/folder": "link", "/link": "file",
                     "/lost+found": "directory"}  # fmt: skip
    assert fs.find("/") == ["/dangling", "/etc/hostname", "/folder", "/link"]
    assert fs.glob("/**/host*") == ["/etc/hostname"] and fs.du("/etc") == 5
    assert fs.info("/link")["size"] == 5 and fs.info("/link")["destination"] == "etc/hostname"
    assert fs.isdir("/folder") and fs.isfile("/link") and fs.islink("/link") and not fs.exists("/dangling")
    assert fs.cat_file("/etc/hostname", 1, -1) == b"eb1" and fs.cat_file("/etc/hostname", -3) == b"b1\n"
    assert fs.cat_ranges(["/link"] * 2, [0, 2], [2, 99]) == [b"we", b"b1\n"]
    assert fs.cat(["/link", "/etc/hostname"]) == {"/link": b"web1\n", "/etc/hostname": b"web1\n"}
    assert dict(fs.get_mapper("/etc")) == {"hostname": b"web1\n"}
    assert fs.modified("/link").tzinfo is not None and fs.created("/link") <= fs.modified("/link")
    assert pickle.loads(pickle.dumps(fs)).cat("/link") == b"web1\n" and fs.unstrip_protocol("/a") == "guest:///a"
    for verb, cls in (
        (lambda: fs.info("/nope"), FileNotFoundError),
        (lambda: fs.cat("/etc"), IsADirectoryError),
        (lambda: fs.ls("/nope"), FileNotFoundError),
        (lambda: fs.open("/nope"), FileNotFoundError),
    ):
        with pytest.raises(cls) as caught:
            verb()
        assert isinstance(caught.value, CowshedError) and caught.value.filename.startswith("/")
    with pytest.raises(OSError) as read_only:
        fs.pipe("/new", b"x")
    assert read_only.value.errno == errno.EROFS
    fs.close()
    with pytest.raises(ValueError, match="closed"):
        fs.ls("/")


def test_writing(image: Path, tmp_path: Path) -> None:
    fs = fsspec.filesystem("guest", disk=str(image), write=True)
    with pytest.raises(FileNotFoundError):
        fs.pipe("/a/b", b"x")
    fs.makedirs("/a/dir")
    with pytest.raises(FileExistsError):
        fs.makedirs("/a/dir")
    fs.pipe("/a/dir/f", b"text")
    fs.mv("/a/dir/f", "/a")
    fs.cp("/a/f", "/a/g")
    fs.touch("/a/g", truncate=False)
    fs.link("/a/f", "/a/h")
    fs.symlink("f", "/a/s")
    assert fs.cat("/a/?") == {"/a/f": b"text", "/a/g": b"text", "/a/h": b"text", "/a/s": b"text"}
    (tmp_path / "put").mkdir()
    (tmp_path / "put/one").write_bytes(b"1" * 100000)
    fs.put(str(tmp_path / "put"), "/", recursive=True)
    fs.get("/put", str(tmp_path / "got"), recursive=True)
    assert (tmp_path / "got/one").read_bytes() == b"1" * 100000
    with pytest.raises(IsADirectoryError):
        fs.rm("/a")
    fs.symlink("/put", "/a/out")
    fs.rm(["/a"], recursive=True)
    assert not fs.exists("/a") and fs.exists("/put/one"), "what a link leads to is not removed with it"
    mapper = fs.get_mapper("/map", create=True)
    mapper["key"] = b"value"
    assert fs.cat("/map/key") == b"value"
    guest = fs.guest
    fs.close()
    clean(image)
    assert not guest.session.running
    with cowshed.guest.open(image) as opened:
        assert GuestFileSystem(guest=opened).cat("/map/key") == b"value"
        assert opened.root.exists(), "a guest that was open stays open"


def test_transactions_are_one_change(image: Path) -> None:
    fs = fsspec.filesystem("guest", disk=str(image), write=True)
    _ = fs.guest
    before = image.read_bytes()
    with fs.transaction:
        fs.pipe("/one", b"1")
        file = fs.open("/two", "wb")
        file.write(b"2")
        assert not fs.exists("/one") and image.read_bytes() == before
    assert fs.cat(["/one", "/two"]) == {"/one": b"1", "/two": b"2"} and file.closed
    with pytest.raises(RuntimeError), fs.transaction:
        fs.pipe("/one", b"changed")
        fs.pipe("/three", b"3")
        raise RuntimeError
    assert fs.cat("/one") == b"1" and not fs.exists("/three")
    # the last one does not fit: none is written
    with pytest.raises(OSError) as caught, fs.transaction:
        fs.pipe("/one", b"changed")
        fs.pipe("/huge", bytes(range(256)) * (40 << 10))
    assert caught.value.errno == errno.ENOSPC and fs.cat("/one") == b"1" and not fs.exists("/huge")
    fs.pipe("/after", b"x")
    fs.close()
    clean(image)
