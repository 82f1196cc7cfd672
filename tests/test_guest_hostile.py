"""Guests that lie: what they call their files, where their links lead and how large they are never matters to the host.

A sandbox holds the target of a copy and what must not change beside it; after each copy everything in the sandbox but
the target is as it was: inodes, times, modes, contents.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import io
import itertools
import os
import resource
import stat
import struct
import subprocess
import tarfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import cowshed.guest
import guest_fat as fats
import judges
from cowshed.block.protocol.file import FileNode
from cowshed.cli.guestfish.tools import copy_out as virt_copy_out
from cowshed.errors import CorruptError, CowshedError, FormatError, HostError
from cowshed.guest.archive import tar_in, tar_out
from cowshed.guest.filesystem import ext
from cowshed.guest.filesystem.base import GuestError, Stat
from cowshed.guest.inspect import SessionGuest, inspect
from cowshed.guest.inspect.packages import PackageError
from cowshed.guest.search import glob
from cowshed.guest.session import Session
from cowshed.guest.transfer import copy_in, copy_out, pour
from cowshed.guest.tree import Tree
from cowshed.layout.partition import create_table
from test_guest_session import Hostile, tree_of
from test_guestfish import fish

D, F, L = stat.S_IFDIR | 0o755, stat.S_IFREG | 0o644, stat.S_IFLNK | 0o777
NOW = 1_700_000_000 * 10**9

Facts = dict[str, tuple[object, ...]]


class Sandbox:
    """``target`` to copy to; beside it files, a directory and a program that nothing may touch."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.target = folder / "target"
        self.target.mkdir()
        self.outside = folder / "outside"
        self.outside.mkdir()
        (self.outside / "file").write_bytes(b"precious")
        (self.outside / "program").write_bytes(b"#!/bin/sh\n")
        (self.outside / "program").chmod(0o755)
        os.symlink("file", self.outside / "link")
        self.before = self.facts()

    def facts(self) -> Facts:
        found: Facts = {}
        for where, directories, files in os.walk(self.folder):
            if where == str(self.folder):
                directories.remove("target")
            for name in [*directories, *files, "."]:
                path = os.path.join(where, name)
                if name == "." and where == str(self.folder):
                    # what is made in the target changes no time of the directory above
                    found[path] = tuple(sorted(os.listdir(where)))
                    continue
                info = os.lstat(path)
                content = b""
                if stat.S_ISREG(info.st_mode):
                    content = hashlib.sha1(Path(path).read_bytes()).digest()
                elif stat.S_ISLNK(info.st_mode):
                    content = os.fsencode(os.readlink(path))
                found[path] = (info.st_ino, info.st_mode, info.st_uid, info.st_mtime_ns, info.st_ctime_ns, content)
        return found

    def check(self) -> None:
        assert self.facts() == self.before
        for where, directories, files in os.walk(self.target):
            for name in directories + files:
                mode = os.lstat(os.path.join(where, name)).st_mode
                assert stat.S_IFMT(mode) in (stat.S_IFDIR, stat.S_IFREG, stat.S_IFLNK)
                assert not mode & 0o7000 or stat.S_ISLNK(mode)


@pytest.fixture
def sandbox(tmp_path: Path) -> Iterator[Sandbox]:
    box = Sandbox(tmp_path)
    yield box
    box.check()


def quiet(text: str) -> None:
    assert "\n" not in text and text.isprintable(), "a warning is one line that no terminal acts on"


# ---- copies out


@pytest.mark.parametrize("order", list(itertools.permutations(("link", "directory", "file"))))
def test_one_name_many_times_in_a_directory(sandbox: Sandbox, order: tuple[str, ...]) -> None:
    """First a link that leads out, then a directory or a file of the same name: nothing is written through the link."""
    nodes: dict[int, tuple[int, object]] = {
        2: (D, [(b"d", 3)]),
        4: (L, os.fsencode(sandbox.outside)),
        5: (D, [(b"file", 6), (b"new", 6)]),
        6: (F, b"evil"),
    }
    numbers = {"link": 4, "directory": 5, "file": 6}
    nodes[3] = (D, [(b"x", numbers[one]) for one in order])
    with contextlib.suppress(CowshedError):
        copy_out(tree_of(nodes), b"/d", str(sandbox.target), quiet)
    nodes[3] = (D, [(b"file", 4), *[(b"x", numbers[one]) for one in order], (b"X", 4), (b"program", 6)])
    with contextlib.suppress(CowshedError):
        copy_out(tree_of(nodes), b"/d", str(sandbox.target), quiet)


@pytest.mark.parametrize("name", [b"..", b"../outside/file", b"/etc/passwd", b"x/../../outside/file", b"", b"a\0b"])
def test_impossible_names_end_everything_that_lists(sandbox: Sandbox, name: bytes) -> None:
    tree = tree_of({2: (D, [(b"d", 3), (b"ok", 4)]), 3: (D, [(b"a", 4), (name, 4)]), 4: (F, b"evil")})
    verbs: list[Callable[[], object]] = [
        lambda: copy_out(tree, b"/d", str(sandbox.target), quiet),
        lambda: tar_out(tree, b"/d", io.BytesIO()),
        lambda: tree.names(b"/d"),
        lambda: list(tree.entries(b"/d")),
        lambda: list(tree.walk(tree.resolve(b"/"))),
    ]
    for verb in verbs:
        if name == b"..":
            # that is what every directory has, and nobody follows
            verb()
            continue
        with pytest.raises(CorruptError, match="impossible name") as caught:
            verb()
        assert caught.value.field == "name" and caught.value.detail.isprintable()
    # a pattern of the caller's never turns into another path
    assert all(path in (b"/d/a",) for path in _tolerant(lambda: glob(tree, b"/d/*")))


def _tolerant(job: Callable[[], list[bytes]]) -> list[bytes]:
    try:
        return job()
    except CorruptError:
        return []


class Swapping(Hostile):
    """A link that leads elsewhere each time it is asked, and a thing that changes what it is between two looks."""

    def __init__(self, nodes: dict[int, tuple[int, object]], targets: list[bytes]) -> None:
        super().__init__(nodes)
        self.targets = itertools.cycle(targets)
        self.modes = itertools.cycle([D, L, F, stat.S_IFCHR | 0o666])

    def stat(self, ino: int) -> Stat:
        found = super().stat(ino)
        if ino == 9:
            found.mode = next(self.modes)
        return found

    def readlink(self, ino: int) -> bytes:
        return next(self.targets)

    def entries(self, directory: int) -> Iterator[tuple[bytes, int, str]]:
        if directory == 9:
            yield b"file", 6, "r"
            return
        yield from super().entries(directory)

    def read(self, ino: int, offset: int, length: int) -> bytes:
        return b"evil"[offset : offset + length]


def test_things_that_change_while_they_are_looked_at(sandbox: Sandbox) -> None:
    nodes: dict[int, tuple[int, object]] = {
        2: (D, [(b"d", 3)]),
        3: (D, [(b"a", 5), (b"b", 5), (b"c", 9), (b"c", 9), (b"c", 9), (b"c", 9), (b"e", 7)]),
        5: (L, b""),
        6: (F, b"evil"),
        7: (D, [(b"c", 5), (b"c", 9), (b"c", 9), (b"c", 9)]),
        9: (F, b"evil"),
    }
    outside = os.fsencode(sandbox.outside)
    for targets in ([outside, b"../../outside"], [b".."], [b"/"], [b"a", b"b"]):
        tree = Tree()
        tree.mount(Swapping(nodes, targets), "/dev/sda", b"/", True)
        for _ in range(4):
            with contextlib.suppress(CowshedError):
                copy_out(tree, b"/d", str(sandbox.target), quiet)
            with contextlib.suppress(CowshedError):
                tar_out(tree, b"/d", io.BytesIO())
            with contextlib.suppress(CowshedError):
                tree.read(b"/d/a")


def test_links_that_are_none(sandbox: Sandbox) -> None:
    for target in (b"", b"a\0b"):
        tree = tree_of({2: (D, [(b"d", 3)]), 3: (D, [(b"l", 4)]), 4: (L, target)})
        with pytest.raises(CorruptError, match="leads nowhere"):
            copy_out(tree, b"/d", str(sandbox.target), quiet)


def test_strange_names_are_copied_as_they_are(sandbox: Sandbox) -> None:
    names = [
        b"-rf",
        b"new\nline",
        b"\x1b[31mred\x07",
        b"\xff" * 255,
        b"~",
        b"$(touch x)",
        b" ",
        b"*",
        b"\\",
        b"...",
        b"a" * 255,
    ]
    nodes: dict[int, tuple[int, object]] = {
        2: (D, [(b"d", 3)]),
        3: (D, [(name, 4) for name in names] + [(b"\x1b[2Jdevice", 5), (b"fifo\n", 6), (b"socket", 7)]),
        4: (stat.S_IFREG | 0o7777, b"text"),
        5: (stat.S_IFBLK | 0o7666, b""),
        6: (stat.S_IFIFO | 0o666, b""),
        7: (stat.S_IFSOCK | 0o666, b""),
    }
    said: list[str] = []

    def warn(text: str) -> None:
        quiet(text)
        said.append(text)

    copy_out(tree_of(nodes), b"/d", str(sandbox.target), warn)
    assert sorted(os.listdir(os.fsencode(sandbox.target / "d"))) == sorted(names) and len(said) == 3
    out = io.BytesIO()
    tar_out(tree_of(nodes), b"/d", out)
    with tarfile.open(fileobj=io.BytesIO(out.getvalue())) as tar:
        found = [os.fsencode(entry.name) for entry in tar]
    assert sorted(found)[1:] == sorted([b"./" + name for name in [*names, b"\x1b[2Jdevice", b"fifo\n"]])


def test_what_waits_in_the_target(sandbox: Sandbox) -> None:
    """Links, FIFOs and directories of the host under a guest's names: replaced or refused, never written through."""
    tree = tree_of(
        {2: (D, [(b"d", 3)]), 3: (D, [(b"f", 4), (b"g", 4), (b"s", 5)]), 4: (F, b"x"), 5: (D, [(b"file", 4)])}
    )
    (sandbox.target / "d").mkdir()
    os.symlink(sandbox.outside / "file", sandbox.target / "d/f")
    os.mkfifo(sandbox.target / "d/g")
    os.symlink(sandbox.outside, sandbox.target / "d/s")
    with pytest.raises(HostError):
        copy_out(tree, b"/d", str(sandbox.target), quiet)
    assert (sandbox.target / "d/f").read_bytes() == (sandbox.target / "d/g").read_bytes() == b"x"
    os.link(sandbox.outside / "file", sandbox.target / "hard")
    sandbox.before = sandbox.facts()
    tree = tree_of({2: (D, [(b"hard", 4)]), 4: (F, b"changed")})
    copy_out(tree, b"/hard", str(sandbox.target), quiet)
    assert (sandbox.target / "hard").read_bytes() == b"changed"
    # the name is another file now: the one outside lost a link and nothing else
    assert (sandbox.outside / "file").read_bytes() == b"precious"
    sandbox.before = sandbox.facts()


class Endless(Hostile):
    """One file of 2 ** 63 - 1 bytes, of which a few are there."""

    SIZE = (1 << 63) - 1

    def stat(self, ino: int) -> Stat:
        found = super().stat(ino)
        if stat.S_ISREG(found.mode):
            found.size = self.SIZE
        return found

    def extents(self, ino: int, offset: int, length: int) -> Iterator[tuple[int, int, int | None]]:
        for start, end, place in (
            (0, 4096, 0),
            (4096, 1 << 40, None),
            ((1 << 40), (1 << 40) + 5, 9),
            ((1 << 40) + 5, self.SIZE, None),
        ):
            low, high = max(start, offset), min(end, offset + length)
            if low < high:
                yield low, high - low, place

    def read(self, ino: int, offset: int, length: int) -> bytes:
        length = min(length, self.SIZE - offset)
        out = bytearray(length)
        for at, count, place in self.extents(ino, offset, length):
            if place is not None:
                out[at - offset : at - offset + count] = b"x" * count
        return bytes(out)


def test_a_file_larger_than_all_disks(sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is refused by the host, or sparse there; nothing of it fills the host, and it takes no time."""
    tree = Tree()
    tree.mount(Endless({2: (D, [(b"f", 3)]), 3: (F, b"")}), "/dev/sda", b"/", True)
    begun = time.process_time()
    try:
        copy_out(tree, b"/f", str(sandbox.target), quiet)
    except HostError as error:
        assert error.errno == errno.EFBIG
    assert (sandbox.target / "f").stat().st_blocks <= 64
    monkeypatch.setattr(Endless, "SIZE", 1 << 43)
    copy_out(tree, b"/f", str(sandbox.target), quiet)
    assert time.process_time() - begun < 10
    copy = sandbox.target / "f"
    assert copy.stat().st_size == 1 << 43 and copy.stat().st_blocks <= 64
    with open(copy, "rb") as file:
        assert file.read(4097) == b"x" * 4096 + b"\0"
        file.seek(1 << 40)
        assert file.read(6) == b"xxxxx\0"


def test_a_full_host_is_an_error(sandbox: Sandbox) -> None:
    tree = tree_of({2: (D, [(b"f", 3)]), 3: (F, b"x" * 100)})
    fd = os.open("/dev/full", os.O_WRONLY)
    try:
        with pytest.raises(HostError) as caught:
            pour(tree, tree.resolve(b"/f"), fd)
        assert caught.value.errno == errno.ENOSPC
    finally:
        os.close(fd)


def test_directories_in_one_another_without_end(sandbox: Sandbox) -> None:
    """A hundred thousand directories, each in the last: bounded memory, and one error at last."""
    nodes: dict[int, tuple[int, object]] = {ino: (D, [(b"n" * 255, ino + 1)]) for ino in range(2, 100_000)}
    nodes[100_000] = (D, [])
    tree = tree_of(nodes)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(GuestError) as caught:
        for _ in tree.walk(tree.resolve(b"/")):
            pass
    assert caught.value.errno == errno.ENAMETOOLONG
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200 << 10
    try:
        with pytest.raises(CowshedError):
            copy_out(tree, b"/" + b"n" * 255, str(sandbox.target), quiet)
    finally:
        # paths in it are too long for one call, and too many steps for os.walk
        subprocess.run(["rm", "-rf", sandbox.target / ("n" * 255)], check=True)


class Crowded(Hostile):
    """A directory of a million names."""

    def entries(self, directory: int) -> Iterator[tuple[bytes, int, str]]:
        for number in range(1_000_000):
            yield b"a name of some length %d" % number, 3, "r"


def test_a_directory_of_a_million_names() -> None:
    tree = Tree()
    tree.mount(Crowded({2: (D, []), 3: (F, b"")}), "/dev/sda", b"/", True)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    begun = time.process_time()
    walked = iter(tree.walk(tree.resolve(b"/")))
    assert [next(walked).path for _ in range(3)] == [b"", b"a name of some length 0", b"a name of some length 1"]
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 250 << 10
    assert time.process_time() - begun < 20


# ---- a real file system with crafted entries, through the commands


@pytest.fixture
def crafted(tmp_path: Path) -> Path:
    """An ext2 whose directory /d holds entries that no kernel would make: `..` twice, a slash, a loop, a link twice."""
    path = tmp_path / "crafted.img"
    with open(path, "wb") as file:
        file.truncate(8 << 20)
    judges.run("mkfs.ext4", "-q", "-F", "-t", "ext2", "-b", "1024", path)
    with FileNode(str(path), writable=True) as node:
        fs = ext.open(node, True)
        folder = fs.create(2, b"d", 0o40755, 0, 0, NOW)
        for name in (b"AAAA", b"BBBBBBBB", b"CCCC", b"DDDD"):
            ino = fs.create(folder, name, 0o100644, 0, 0, NOW)
            fs.write(ino, 0, b"evil", NOW)
        fs.create(folder, b"EEEE", 0o120777, 0, 0, NOW, target=os.fsencode(tmp_path / "box" / "outside"))
        below = fs.create(folder, b"below", 0o40755, 0, 0, NOW)
        fs.create(below, b"file", 0o100644, 0, 0, NOW)
        fs.sync()
        fs.close()
    return path


def craft(path: Path, *changes: tuple[bytes, bytes]) -> None:
    data = path.read_bytes()
    for old, new in changes:
        # a directory entry: inode, length, length of the name, kind
        at = data.index(bytes([len(old)]), data.index(b"AAAA") - 200)
        at = next(at for at in range(len(data)) if data[at : at + len(old)] == old and data[at - 2] == len(old))
        data = (
            data[: at - 2] + bytes([len(new)]) + data[at - 1 : at] + new.ljust(len(old), b"\0") + data[at + len(old) :]
        )
    path.write_bytes(data)


CRAFTED: dict[str, tuple[tuple[bytes, bytes], ...]] = {
    "dots": ((b"AAAA", b".."),),
    "slash": ((b"BBBBBBBB", b"../../x1"),),
    "absolute": ((b"BBBBBBBB", b"/tmp/x12"),),
    "nothing": ((b"CCCC", b""),),
    "link and directory": ((b"EEEE", b"same"), (b"below", b"same")),
    "link and file": ((b"EEEE", b"file"), (b"DDDD", b"file")),
    "control": ((b"BBBBBBBB", b"\x1b[2J\nx\xff\xfe"),),
}


@pytest.mark.parametrize("name", CRAFTED)
def test_the_commands_on_crafted_directories(tmp_path: Path, crafted: Path, name: str) -> None:
    (tmp_path / "box").mkdir()
    box = Sandbox(tmp_path / "box")
    craft(crafted, *CRAFTED[name])
    script = tmp_path / "script"
    script.write_text(
        f"-copy-out /d {box.target}\n-tar-out /d {box.target}/t.tar\n-download /d/DDDD {box.target}/download\n"
        f"-checksums-out md5 /d {box.target}/sums\n-find0 /d {box.target}/found\n-ll /d\n-ls /d\n-glob-expand /d/*\n"
    )
    code, _, err = fish("--ro", "-a", crafted, "-m", "/dev/sda", "-f", script)
    assert code == 0, err
    box.check()
    for one in box.target.rglob("*"):
        assert one.parent.resolve().is_relative_to(box.target)
    (box.target / "second").mkdir()
    from cowshed.cli.output import Output

    argv = ["-a", str(crafted), "-m", "/dev/sda", "/d", str(box.target / "second")]
    virt_copy_out.main(argv, Output("virt-copy-out"))
    box.check()
    # and back: what was copied out goes into the guest, and nowhere else
    with (
        cowshed.guest.open(crafted, write=True, mounts=[("/dev/sda", "/")]) as guest,
        contextlib.suppress(FormatError),
        guest.session.change(),
    ):
        copy_in(guest.session.tree, str(box.target / "second"), b"/", quiet)
    box.check()


def test_an_archive_that_wants_out_stays_in_the_guest(tmp_path: Path, crafted: Path) -> None:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for name, kind, link in (
            ("l", tarfile.SYMTYPE, "/"), ("l/escaped", tarfile.REGTYPE, ""), ("../up", tarfile.REGTYPE, ""),
            ("m", tarfile.SYMTYPE, "../.."), ("m/escaped", tarfile.REGTYPE, ""), ("h", tarfile.LNKTYPE, "../../AAAA"),
        ):  # fmt: skip
            entry = tarfile.TarInfo(name)
            entry.type, entry.linkname, entry.size = kind, link, 1 if kind == tarfile.REGTYPE else 0
            tar.addfile(entry, io.BytesIO(b"x" * entry.size))
    with cowshed.guest.open(crafted, write=True, mounts=[("/dev/sda", "/")]) as guest:
        tree = guest.session.tree
        before = tree.names(b"/")
        with pytest.raises(GuestError), guest.session.change():
            tar_in(tree, io.BytesIO(out.getvalue()), b"/d/below")
        assert tree.names(b"/") == before and tree.names(b"/d/below") == [b"file"]


def test_a_directory_that_is_linked_twice_is_copied_once(tmp_path: Path, crafted: Path) -> None:
    with FileNode(str(crafted)) as node:
        fs = ext.open(node)
        folder = fs.lookup(2, b"d")
        assert folder
        fs.close()
    data = bytearray(crafted.read_bytes())
    at = data.index(b"CCCC")
    struct.pack_into("<I", data, at - 8, folder)
    data[at - 1] = 2
    crafted.write_bytes(data)
    (tmp_path / "box").mkdir()
    box = Sandbox(tmp_path / "box")
    with cowshed.guest.open(crafted, mounts=[("/dev/sda", "/")]) as guest:
        with pytest.raises(CorruptError, match="more than once"):
            copy_out(guest.session.tree, b"/d", str(box.target), quiet)
        with pytest.raises(CorruptError, match="more than once"):
            tar_out(guest.session.tree, b"/", io.BytesIO())
    box.check()


# ---- inspection


@pytest.fixture
def guest(tmp_path: Path) -> Path:
    """A Debian on the first partition of a disk."""
    path = tmp_path / "guest.img"
    with open(path, "wb") as file:
        file.truncate(40 << 20)
    with FileNode(str(path), writable=True) as node:
        table = create_table("dos", node)
        table.add(table.place(30 << 20), 30 << 20)
        table.write(node)
        start = table.partitions[0].start
    judges.run("mkfs.ext4", "-q", "-F", "-E", f"offset={start}", path, "30M")
    with Session() as session:
        session.add(str(path), readonly=False, fmt="raw")
        session.run()
        session.mount("/dev/sda1")
        tree = session.tree
        for folder in (b"/etc", b"/bin", b"/var/lib/rpm", b"/var/lib/dpkg"):
            tree.mkdirs(folder)
        tree.write(b"/etc/fstab", [b"/dev/sda1 / ext4 defaults 0 0\n"])
        tree.write(b"/etc/os-release", [b'ID=debian\nVERSION_ID="12"\nPRETTY_NAME="Debian"\n'])
        tree.write(b"/etc/hostname", [b"host\n"])
        session.tree.sync()
    return path


@contextlib.contextmanager
def bounded(seconds: float = 8, megabytes: int = 150) -> Iterator[None]:
    before, begun = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.process_time()
    yield
    assert time.process_time() - begun < seconds
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < megabytes << 10


def look(path: Path) -> list[cowshed.guest.inspect.Root]:
    with Session(readonly=True) as session:
        session.add(str(path), fmt="raw")
        session.run()
        with SessionGuest(session) as guest:
            roots = inspect(guest)
            for root in roots:
                with contextlib.suppress(PackageError):
                    root.applications()
            return roots


def change(path: Path, job: Callable[[Tree], object]) -> None:
    with cowshed.guest.open(path, write=True, mounts=[("/dev/sda1", "/")]) as guest, guest.session.change():
        job(guest.session.tree)


def test_an_fstab_of_a_million_lines(guest: Path) -> None:
    rows = b"".join(b"/dev/sda%d /m%d ext4 defaults 0 0\n" % (n, n) for n in range(1_000_000 // 4))
    change(guest, lambda tree: tree.write(b"/etc/fstab", [rows[: 12 << 20]]))
    with bounded():
        (root,) = look(guest)
    assert root.distro == "debian" and len(root.mounts) <= 1001


def test_an_fstab_that_names_what_cannot_be(guest: Path) -> None:
    text = b"/dev/sda" + b"9" * 5000 + b" /a ext4\n/dev/disk/by-id/x-part" + b"9" * 5000 + b" /b ext4\n"
    text += (
        b"/dev/sda1 /../.. ext4\n/dev/sda1 /c/../d ext4\n/dev/mapper/" + b"-" * 9000 + b" /e ext4\nLABEL=\x1b[2J /f x\n"
    )
    text += b"/dev/" + b"../" * 50 + b"etc/passwd /g ext4\nUUID= /h ext4\n/dev/sda01 /i ext4\n/dev/sda0 /j ext4\n"
    change(guest, lambda tree: tree.write(b"/etc/fstab", [text]))
    with bounded():
        (root,) = look(guest)
        assert root.files() is not None


def test_release_files_without_end_and_of_every_kind(guest: Path) -> None:
    def sparse(tree: Tree) -> None:
        tree.write(b"/etc/os-release", [b"ID=debian\n"])
        tree.truncate(b"/etc/os-release", 1 << 30)
        tree.unlink(b"/etc/hostname")
        tree.make(b"/etc/hostname", stat.S_IFIFO | 0o644)
        tree.symlink(b"HOSTNAME", b"/etc/loop")
        tree.symlink(b"loop", b"/etc/HOSTNAME")
        tree.make(b"/bin/sh", stat.S_IFCHR | 0o644, rdev=os.makedev(1, 5))
        tree.mkdir(b"/bin/bash")

    change(guest, sparse)
    with bounded():
        (root,) = look(guest)
    assert (root.distro, root.hostname, root.arch) == ("debian", "unknown", "unknown")
    change(guest, lambda tree: (tree.unlink(b"/etc/hostname"), tree.mkdir(b"/etc/hostname")))
    with bounded():
        (root,) = look(guest)
    assert root.hostname == "unknown"


def test_package_databases_without_end(guest: Path) -> None:
    def grow(tree: Tree) -> None:
        tree.write(b"/etc/os-release", [b'ID="fedora"\nVERSION_ID=43\n'])
        tree.write(b"/var/lib/rpm/rpmdb.sqlite", [b"SQLite format 3\0"])
        tree.truncate(b"/var/lib/rpm/rpmdb.sqlite", 1 << 40)

    change(guest, grow)
    with bounded():
        (root,) = look(guest)
    assert root.distro == "fedora"
    with Session(readonly=True) as session:
        session.add(str(guest), fmt="raw")
        session.run()
        with SessionGuest(session) as one:
            (root,) = inspect(one)
            with pytest.raises(PackageError, match="too many"):
                root.applications()


# ---- FAT


def test_names_behind_the_end_mark_are_not_lost(tmp_path: Path) -> None:
    """Linux and fsck.vfat pass over a mark that others take for the end: such a directory is not changed."""
    path = tmp_path / "fat.img"
    judges.run("mkfs.vfat", "-F", "16", fats.blank(path, 20 * fats.MIB))
    with fats.opened(path, True) as fs:
        for name in (b"A", b"B", b"C"):
            fs.write(fs.create(fs.root, name, 0o100644, 0, 0, NOW), 0, b"text", NOW)
        fs.sync()
        place = fs.lookup(fs.root, b"B")
        assert place is not None
    data = bytearray(path.read_bytes())
    data[place * 32] = 0
    path.write_bytes(data)
    with fats.opened(path, True) as fs:
        assert [name for name, _, _ in fs.entries(fs.root) if name not in (b".", b"..")] == [b"A"]
        for verb in (
            lambda: fs.create(fs.root, b"D", 0o100644, 0, 0, NOW),
            lambda: fs.unlink(fs.root, b"A", NOW),
            lambda: fs.rename(fs.root, b"A", fs.root, b"E", NOW),
        ):
            with pytest.raises(CorruptError, match="behind its end mark") as caught:
                verb()
            assert caught.value.hint and caught.value.offset == (place + 1) * 32
            fs.discard_changes()
        fs.sync()
    assert path.read_bytes() == data


# ---- words


def test_what_errors_quote_of_a_disk_is_harmless() -> None:
    error = CorruptError("a name \x1b[2J\nx\x9b", layer="l", value="\x1b]0;x\x07", path="p")
    assert str(error).isprintable() and error.detail.isprintable()
    assert str(error) == "a name \\x1b[2J\\x0ax\\x9b"
    str(FormatError("half a pair \ud800")).encode("utf-8", "surrogateescape")
