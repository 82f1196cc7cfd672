"""ISO 9660 read: images of genisoimage and xorriso, judged by what went in, bsdtar, isoinfo and blkid; damaged ones."""

from __future__ import annotations

import os
import random
import stat
import struct
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

import judges
from cowshed.block.graph import open_image
from cowshed.errors import CorruptError, CowshedError, FeatureError, ForeignError
from cowshed.guest.filesystem import iso9660
from cowshed.guest.filesystem.base import FileSystem, GuestError
from cowshed.guest.filesystem.iso9660.filesystem import plain_name
from cowshed.guest.filesystem.iso9660.rockridge import long_date, short_date

Tree = dict[bytes, tuple[int, bytes]]


def source(folder: Path) -> Path:
    """A tree with everything that Rock Ridge can say."""
    deep = folder.joinpath("one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
    deep.mkdir(parents=True)
    (deep / "deep.txt").write_bytes(b"deep")
    (folder / "Ärger und ein langer Name.tar.gz").write_bytes(os.urandom(5000))
    (folder / ("n" * 240)).write_bytes(b"long")
    (folder / "UPPER.TXT").write_bytes(b"upper")
    (folder / "UPPER.TXT").chmod(0o4711)
    (folder / "empty").write_bytes(b"")
    (folder / "noext").write_bytes(b"x" * 2048)
    os.symlink("../x/./y", folder / "link")
    os.symlink("/abs/" + "l" * 100 + "/z", folder / "absolute")
    os.symlink("one/two/three", folder / "inside")
    os.mkfifo(folder / "fifo")
    many = folder / "many"
    many.mkdir(mode=0o700)
    for number in range(300):
        (many / f"file number {number}.text").write_bytes(b"%d" % number)
    for where, directories, files in os.walk(folder):
        for name in directories + files:
            os.utime(os.path.join(where, name), (1_600_000_000, 1_600_000_000), follow_symlinks=False)
    return folder


def host_tree(folder: Path) -> Tree:
    found: Tree = {}
    base = os.fsencode(folder)
    for where, directories, files in os.walk(base):
        for name in directories + files:
            path = os.path.join(where, name)
            mode = os.lstat(path).st_mode
            content = b""
            if stat.S_ISLNK(mode):
                content = os.readlink(path)
            elif stat.S_ISREG(mode):
                content = Path(os.fsdecode(path)).read_bytes()
            found[path[len(base) :]] = (mode, content)
    return found


def tree(fs: FileSystem, directory: int | None = None, path: bytes = b"") -> Tree:
    found: Tree = {}
    here = fs.root if directory is None else directory
    for name, ino, kind in fs.entries(here):
        if name in (b".", b".."):
            continue
        assert fs.lookup(here, name) == ino
        facts = fs.stat(ino)
        content = b""
        if kind == "l":
            content = fs.readlink(ino)
            assert facts.size == len(content)
        elif kind == "r":
            content = fs.read(ino, 0, 1 << 40)
            assert facts.size == len(content)
        found[path + b"/" + name] = (facts.mode, content)
        if kind == "d":
            assert fs.lookup(ino, b"..") == here and fs.lookup(ino, b".") == ino
            found |= tree(fs, ino, path + b"/" + name)
    return found


def make(folder: Path, tool: str, *options: str, name: str = "in") -> Path:
    path = folder / "x.iso"
    path.unlink(missing_ok=True)
    if tool == "xorriso":
        judges.run("xorriso", "-as", "mkisofs", *options, "-o", path, folder / name, env={"LC_ALL": "C.UTF-8"})
    else:
        judges.run("genisoimage", "-quiet", *options, "-input-charset", "utf-8", "-o", path, folder / name)
    return path


class Opened:
    def __init__(self, path: Path) -> None:
        self.node = open_image(str(path), fmt="raw")

    def __enter__(self) -> Any:
        try:
            return iso9660.open(self.node)
        except BaseException:
            self.node.close()
            raise

    def __exit__(self, *exc: object) -> None:
        self.node.close()


def blkid(path: Path) -> dict[str, str]:
    out = judges.run("blkid", "-p", "-o", "export", path).stdout
    return dict(line.replace("\\", "").split("=", 1) for line in out.splitlines() if "=" in line)


def bsdtar_names(path: Path) -> set[bytes]:
    out = judges.run("bsdtar", "-tf", path, env={"LC_ALL": "C.UTF-8"}).stdout
    return {b"/" + os.fsencode(line).removesuffix(b"/") for line in out.splitlines() if line != "."}


ROCK = [
    ("genisoimage", "-R"), ("genisoimage", "-R", "-J", "-joliet-long"), ("genisoimage", "-R", "-hide-rr-moved"),
    ("genisoimage", "-R", "-D"), ("genisoimage", "-R", "-l", "-iso-level", "3"), ("xorriso", "-R"),
    ("xorriso", "-R", "-J"), ("xorriso", "-R", "-partition_offset", "16"),
    ("xorriso", "-R", "-iso-level", "3", "-V", "VOL_1"),
]  # fmt: skip


@pytest.mark.parametrize("options", ROCK)
def test_rock_ridge(options: tuple[str, ...], tmp_path: Path, figures: Any) -> None:
    wanted = host_tree(source(tmp_path / "in"))
    path = make(tmp_path, *options)
    with Opened(path) as fs:
        assert fs.names == "rock ridge"
        found = tree(fs)
        ino = fs.lookup(fs.root, b"UPPER.TXT")
        assert fs.stat(ino).mtime == 1_600_000_000 * 10**9
        facts = blkid(path)
        assert (fs.kind, fs.label, fs.uuid) == (facts["TYPE"], facts.get("LABEL", ""), facts["UUID"])
        assert fs.statvfs().blocks * 2048 <= path.stat().st_size
    for name in (b"/rr_moved", b"/.rr_moved"):
        found.pop(name, None)
    assert found == wanted
    figures.add("iso: files compared", len(found))


@pytest.mark.parametrize("tool", ["genisoimage", "xorriso"])
def test_owners_and_nodes(tool: str, tmp_path: Path) -> None:
    if os.getuid():
        pytest.skip("only root makes device nodes")
    folder = tmp_path / "in"
    folder.mkdir()
    (folder / "file").write_bytes(b"x")
    os.chown(folder / "file", 1234, 70_000)
    os.mknod(folder / "disk", stat.S_IFBLK | 0o660, os.makedev(8, 17))
    os.mknod(folder / "tty", stat.S_IFCHR | 0o620, os.makedev(4, 64))
    with Opened(make(tmp_path, tool, "-R")) as fs:
        for name in ("file", "disk", "tty"):
            mine, real = fs.stat(fs.lookup(fs.root, name.encode())), os.lstat(folder / name)
            assert (mine.mode, mine.uid, mine.gid, mine.rdev) == (real.st_mode, real.st_uid, real.st_gid, real.st_rdev)
        assert [kind for _, _, kind in fs.entries(fs.root)][2:] == ["b", "r", "c"]


@pytest.mark.parametrize("tool", ["genisoimage", "xorriso"])
def test_joliet(tool: str, tmp_path: Path) -> None:
    folder = tmp_path / "in"
    wanted = {}
    for name in ("Ärger und mehr.text", "README", "a.b.c", "漢字", "sub/inner file", "x" * 60):
        (folder / name).parent.mkdir(exist_ok=True, parents=True)
        content = os.urandom(3000)
        (folder / name).write_bytes(content)
        wanted[b"/" + name.encode()] = content
    path = make(
        tmp_path, tool, "-J", "-V", "Ein Etikett lang und laenger", *(["--norock"] if tool == "xorriso" else [])
    )
    with Opened(path) as fs:
        assert fs.names == "joliet"
        assert fs.label == blkid(path)["LABEL"]
        found = tree(fs)
        assert {name: content for name, (mode, content) in found.items() if stat.S_ISREG(mode)} == wanted
        assert found[b"/README"][0] == 0o100555 and found[b"/sub"][0] == 0o40555
        assert set(found) == bsdtar_names(path)


@pytest.mark.parametrize("options", [(), ("-l",), ("-iso-level", "3"), ("-N",), ("-d",)])
def test_plain_names(options: tuple[str, ...], tmp_path: Path) -> None:
    source(tmp_path / "in")
    path = make(tmp_path, "genisoimage", *options)
    out = judges.run("isoinfo", "-f", "-i", path).stdout
    with Opened(path) as fs:
        assert fs.names == "plain"
        found = tree(fs)
        assert len(found) == len(out.splitlines()) > 300
        assert {os.fsencode(one) for one in map(listed, out.splitlines())} == set(found)
        for name in list(found)[::37]:
            if stat.S_ISREG(found[name][0]):
                raw = next(one for one in out.splitlines() if os.fsencode(listed(one)) == name)
                argv = [judges.need("isoinfo"), "-i", str(path), "-x", raw]
                assert subprocess.run(argv, capture_output=True, timeout=60).stdout == found[name][1]


def listed(line: str) -> str:
    """A path of isoinfo -f as Linux shows it."""
    parts = []
    for part in line.split("/"):
        part = part.removesuffix(";1")
        parts.append((part.removesuffix(".") if part + ";1" in line else part).lower())
    return "/".join(parts)


def test_several_extents(tmp_path: Path) -> None:
    """Two records of one name, as files of more than 4 GiB have; between them may be the end of a block."""
    folder = tmp_path / "in"
    folder.mkdir()
    pieces = [os.urandom(4096), os.urandom(5000)]
    for name, content in zip(("AAAA", "AAAB"), pieces, strict=True):
        (folder / name).write_bytes(content)
    (folder / "AAAC").write_bytes(b"after")
    path = make(tmp_path, "genisoimage")
    data = bytearray(path.read_bytes())
    data[record_of(data, b"AAAA.;1") + 25] |= 0x80
    at = record_of(data, b"AAAB.;1")
    data[at + 33 : at + 37] = b"AAAA"
    path.write_bytes(data)
    with Opened(path) as fs:
        assert tree(fs) == {b"/aaaa": (0o100555, b"".join(pieces)), b"/aaac": (0o100555, b"after")}
        ino = fs.lookup(fs.root, b"aaaa")
        assert fs.read(ino, 4000, 200) == b"".join(pieces)[4000:4200]
    data[at + 33 : at + 37] = b"AAAB"
    path.write_bytes(data)
    with Opened(path) as fs, pytest.raises(CorruptError, match="last extent"):
        tree(fs)


@pytest.mark.torture
def test_large_files(tmp_path: Path) -> None:
    """More than 4 GiB is several extents; what is read of them is made of few requests."""
    folder = tmp_path / "in"
    folder.mkdir()
    size = (4 << 30) + 5_000_000
    with open(folder / "big", "wb") as file:
        file.truncate(size)
        for at in (0, (4 << 30) - 5000, (4 << 30) + 1_000_000, size - 10):
            file.seek(at)
            file.write(b"mark %d" % (at % 1000))
    path = tmp_path / "x.iso"
    usage = os.statvfs(tmp_path)
    if usage.f_bavail * usage.f_frsize < 6 << 30:
        pytest.skip("too little room for a file of 4 GiB")
    try:
        judges.run("xorriso", "-as", "mkisofs", "-R", "-iso-level", "3", "-o", path, folder)
        with Opened(path) as fs:
            ino = fs.lookup(fs.root, b"big")
            assert fs.stat(ino).size == size
            assert len(list(fs.extents(ino, 0, size))) == 2
            with open(folder / "big", "rb") as file:
                for at in (0, (4 << 30) - 6000, (4 << 30) - 100_000, (4 << 30) + 999_990, size - 20):
                    file.seek(at)
                    assert fs.read(ino, at, 200_000) == file.read(200_000)
    finally:
        path.unlink(missing_ok=True)


def test_zisofs(tmp_path: Path) -> None:
    source(tmp_path / "plain")
    (tmp_path / "plain" / "big").write_bytes(b"compressible " * 30_000 + bytes(200_000) + os.urandom(40_000))
    judges.run("mkzftree", tmp_path / "plain", tmp_path / "in")
    (tmp_path / "x.iso").unlink(missing_ok=True)
    judges.run("genisoimage", "-quiet", "-R", "-z", "-o", tmp_path / "x.iso", tmp_path / "in")
    with Opened(tmp_path / "x.iso") as fs:
        found = tree(fs)
        ino = fs.lookup(fs.root, b"big")
        content = (tmp_path / "plain" / "big").read_bytes()
        assert found[b"/big"][1] == content
        for offset, length in ((5, 10), (32_760, 20), (390_000, 100_000), (len(content) - 3, 10)):
            assert fs.read(ino, offset, length) == content[offset : offset + length]


def test_bootable_and_hybrid(tmp_path: Path) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    (folder / "boot.img").write_bytes(bytes(2048))
    path = make(tmp_path, "genisoimage", "-R", "-b", "boot.img", "-no-emul-boot", "-boot-load-size", "4")
    with Opened(path) as fs:
        assert fs.volume.bootable and not fs.volume.hybrid
    with open(path, "r+b") as file:
        file.seek(446)
        file.write(struct.pack("<BBBBBBBBII", 0x80, 0, 2, 0, 0x17, 0, 0, 0, 0, 1000))
        file.seek(510)
        file.write(b"\x55\xaa")
    with Opened(path) as fs:
        assert fs.volume.bootable and fs.volume.hybrid and b"/boot.img" in tree(fs)


def test_udf_is_refused_by_name(tmp_path: Path) -> None:
    source(tmp_path / "in")
    path = make(tmp_path, "genisoimage", "-udf")
    assert blkid(path)["TYPE"] == "udf"
    with pytest.raises(FeatureError, match="UDF"), Opened(path):
        pass


def test_read_only(tmp_path: Path) -> None:
    source(tmp_path / "in")
    path = make(tmp_path, "genisoimage", "-R")
    with open_image(str(path), fmt="raw", writable=True) as node:
        fs = iso9660.open(node, writable=True)
        assert not fs.writable
        with pytest.raises(GuestError, match="Read-only file system"):
            fs.create(fs.root, b"x", 0o100644, 0, 0, 0)


def test_plain_name() -> None:
    for raw, wanted in (
        (b"A.TXT;1", b"a.txt"), (b"A.;1", b"a"), (b"A;1", b"a"), (b"A.TXT;2", b"a.txt.2"), (b"A/B.C", b"a.b.c"),
        (b"DIR", b"dir"), (b"A.", b"a."), (b"A.TXT\0;1", b"a.txt"),
    ):  # fmt: skip
        assert plain_name(raw) == wanted


def test_dates() -> None:
    when = 1_709_210_096
    fields = time.gmtime(when)
    raw = bytes((fields.tm_year - 1900, *fields[1:6], 0))
    assert short_date(raw) == when * 10**9
    assert short_date(raw[:6] + bytes((4,))) == (when - 3600) * 10**9
    assert short_date(raw[:6] + bytes((252,))) == (when + 3600) * 10**9
    assert long_date(time.strftime("%Y%m%d%H%M%S50", fields).encode() + b"\0") == when * 10**9 + 500_000_000
    assert long_date(b"0" * 16 + b"\0") == short_date(bytes(7)) == 0


# ---- damage


def walk(fs: FileSystem, limit: int = 20_000) -> None:
    """Everything, as a careless walker would: it must come to an end by itself."""
    todo = [fs.root]
    while todo:
        for name, ino, kind in fs.entries(todo.pop()):
            limit -= 1
            assert limit, "a walk without end"
            if name in (b".", b".."):
                continue
            fs.stat(ino)
            if kind == "d":
                todo.append(ino)
            elif kind == "l":
                fs.readlink(ino)
            elif kind == "r":
                fs.read(ino, 0, 1 << 20)


def record_of(data: bytearray, name: bytes) -> int:
    return data.index(bytes((len(name),)) + name) - 32


def test_directory_in_itself(tmp_path: Path) -> None:
    (tmp_path / "in" / "sub").mkdir(parents=True)
    path = make(tmp_path, "genisoimage")
    data = bytearray(path.read_bytes())
    at = record_of(data, b"SUB")
    data[at + 2 : at + 10] = data[16 * 2048 + 156 + 2 : 16 * 2048 + 156 + 10]
    path.write_bytes(data)
    with Opened(path) as fs, pytest.raises(CorruptError, match="linked twice"):
        walk(fs)


def test_cyclic_continuation(tmp_path: Path) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    (folder / ("n" * 250)).write_bytes(b"x")
    path = make(tmp_path, "genisoimage", "-R")
    data = bytearray(path.read_bytes())
    at = data.index(b"CE\x1c\x01", data.index(b"NM", 20 * 2048))
    block, offset = struct.unpack_from("<I4xI", data, at + 4)
    place = block * 2048 + offset
    data[place : place + 28] = data[at : at + 28]
    path.write_bytes(data)
    with Opened(path) as fs, pytest.raises(CorruptError, match="continuation"):
        walk(fs)


def test_huge_sizes(tmp_path: Path) -> None:
    folder = tmp_path / "in"
    (folder / "sub").mkdir(parents=True)
    (folder / "file").write_bytes(b"x")
    path = make(tmp_path, "genisoimage")
    whole = bytearray(path.read_bytes())
    for name in (b"SUB", b"FILE.;1"):
        data = bytearray(whole)
        at = record_of(data, name)
        struct.pack_into("<I", data, at + 10, 0xFFFFFFFF)
        path.write_bytes(data)
        with Opened(path) as fs, pytest.raises(CorruptError, match="beyond the end"):
            walk(fs)
    struct.pack_into("<I", whole, 16 * 2048 + 156 + 2, 0xFFFFFF)
    path.write_bytes(whole)
    with pytest.raises(CorruptError), Opened(path):
        pass


def test_foreign(tmp_path: Path) -> None:
    path = tmp_path / "x.iso"
    for content in (bytes(100), bytes(100_000)):
        path.write_bytes(content)
        with pytest.raises(ForeignError), Opened(path):
            pass


@pytest.mark.parametrize("options", [("genisoimage", "-R"), ("genisoimage", "-J"), ("xorriso", "-R", "-J")])
def test_mutants(options: tuple[str, ...], tmp_path: Path, figures: Any) -> None:
    source(tmp_path / "in")
    path = make(tmp_path, *options)
    whole = path.read_bytes()
    mutant = tmp_path / "mutant.iso"
    rng = random.Random(5)
    metadata = [at for at in range(16 * 2048, len(whole), 2048) if any(whole[at : at + 2048])]
    for _ in range(80):
        data = bytearray(whole)
        for _ in range(rng.choice([1, 1, 3, 20])):
            at = rng.choice(metadata) + rng.randrange(2048)
            size = rng.choice([1, 1, 4, 8])
            data[at : at + size] = rng.choice([rng.randbytes(size), bytes(size), b"\xff" * size])
        mutant.write_bytes(data[: rng.choice([len(data), len(data), rng.randrange(len(data))])])
        try:
            with Opened(mutant) as fs:
                walk(fs)
        except CowshedError:
            pass
        figures.add("iso: mutants walked", 1)


def test_what_the_primary_descriptor_says_of_its_image() -> None:
    from cowshed.errors import ForeignError
    from cowshed.guest.filesystem.iso9660.volume import primary_facts

    sector = bytearray(b"\1CD001\1".ljust(2048, b"\0"))
    sector[8:40] = b"LINUX".ljust(32)
    sector[40:72] = "Größe".encode().ljust(32)
    sector[80:84] = (1234).to_bytes(4, "little")
    sector[128:130] = (2048).to_bytes(2, "little")
    sector[813:830] = b"2020010203040599" + bytes([8])
    sector[830:847] = b"2020010203040500" + (-20).to_bytes(1, "little", signed=True)
    sector[847:864] = b"0" * 16 + b"\0"
    sector[864:881] = b"2020139903040500\0"
    facts = dict(primary_facts(bytes(sector)))
    assert (facts["system_id"], facts["volume_id"], facts["volume_space_size"]) == ("LINUX", "Größe", 1234)
    assert facts["logical_block_size"] == 2048 and facts["publisher_id"] == ""
    assert facts["volume_creation_t"] == 1577934245 - 2 * 3600
    assert facts["volume_modification_t"] == 1577934245 + 5 * 3600
    assert facts["volume_expiration_t"] == -1
    for damaged in (b"", bytes(2048), bytes(sector[:100]), b"\2" + bytes(sector[1:])):
        with pytest.raises(ForeignError):
            primary_facts(damaged)
