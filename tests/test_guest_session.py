"""A guest's tree: paths, links, mounts; changes that happen whole or not at all; copies that stay where they belong."""

from __future__ import annotations

import errno
import io
import os
import shutil
import stat
import subprocess
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest

import cowshed
import cowshed.guest
import judges
from cowshed.errors import CorruptError, CowshedError, UsageError
from cowshed.guest.archive import tar_in, tar_out
from cowshed.guest.devices import letters
from cowshed.guest.filesystem.base import FileSystem, GuestError, Stat
from cowshed.guest.lines import hexdump, lines_of, pattern, strings
from cowshed.guest.scratch import ScratchNode
from cowshed.guest.search import braces, case_sensitive_path, checksum, disk_usage, glob
from cowshed.guest.session import Session
from cowshed.guest.transfer import copy_in, copy_out
from cowshed.guest.tree import Tree


class Hostile(FileSystem):
    """A file system in memory that may say anything: directories are lists of (name, inode)."""

    kind = "hostile"
    root = 2

    def __init__(self, nodes: dict[int, tuple[int, object]]) -> None:
        self.nodes = nodes
        self.writable = False
        self.block_size = 4096

    def stat(self, ino: int) -> Stat:
        found = Stat(ino, self.nodes[ino][0])
        body = self.nodes[ino][1]
        found.size = len(body) if isinstance(body, bytes) else 0
        return found

    def lookup(self, directory: int, name: bytes) -> int | None:
        mode, body = self.nodes[directory]
        if not stat.S_ISDIR(mode):
            raise GuestError(errno.ENOTDIR)
        return dict(body).get(name)  # type: ignore[call-overload]

    def entries(self, directory: int) -> Iterator[tuple[bytes, int, str]]:
        for name, ino in self.nodes[directory][1]:  # type: ignore[attr-defined]
            yield name, ino, "u"

    def read(self, ino: int, offset: int, length: int) -> bytes:
        return self.nodes[ino][1][offset : offset + length]  # type: ignore[index]

    def readlink(self, ino: int) -> bytes:
        return self.nodes[ino][1]  # type: ignore[return-value]


D, F, L = stat.S_IFDIR | 0o755, stat.S_IFREG | 0o644, stat.S_IFLNK | 0o777


def tree_of(nodes: dict[int, tuple[int, object]]) -> Tree:
    tree = Tree()
    tree.mount(Hostile(nodes), "/dev/sda", b"/", True)
    return tree


# ---- paths


def test_links_stay_in_the_guest_and_loops_end() -> None:
    tree = tree_of(
        {
            2: (D, [(b"a", 3), (b"up", 4), (b"abs", 5), (b"loop", 6), (b"self", 7), (b"f", 8), (b"dangling", 9)]),
            3: (D, [(b"f", 8)]),
            4: (L, b"../../../../../f"),
            5: (L, b"/a/f"),
            6: (L, b"/self"),
            7: (L, b"loop"),
            8: (F, b"text"),
            9: (L, b"/a/new"),
        }
    )
    assert tree.read(b"/up") == tree.read(b"/abs") == tree.read(b"/a/../f") == tree.read(b"/../../f") == b"text"
    for path, number in [
        (b"/loop", errno.ELOOP), (b"/f/x", errno.ENOTDIR), (b"/nope", errno.ENOENT), (b"/f/..", errno.ENOTDIR),
        (b"/" + b"x" * 256, errno.ENAMETOOLONG), (b"/x" * 2048, errno.ENAMETOOLONG), (b"/dangling", errno.ENOENT),
        (b"relative", errno.EINVAL), (b"/a\0b", errno.EINVAL),
    ]:  # fmt: skip
        with pytest.raises(GuestError) as caught:
            tree.resolve(path)
        assert caught.value.errno == number, path
    assert tree.find(b"/dangling").path == b"/a/new"
    assert tree.resolve(b"/loop", follow=False).stat().mode == L


def test_a_walk_ends_on_directories_that_contain_themselves() -> None:
    tree = tree_of({2: (D, [(b"a", 3)]), 3: (D, [(b"b", 4)]), 4: (D, [(b"again", 3)])})
    with pytest.raises(CorruptError, match="more than once"):
        list(tree.walk(tree.resolve(b"/")))


def test_a_tree_of_directories_that_doubles_at_each_step_ends() -> None:
    nodes: dict[int, tuple[int, object]] = {ino: (D, [(b"a", ino + 1), (b"b", ino + 1)]) for ino in range(2, 60)}
    nodes[60] = (D, [])
    with pytest.raises(CorruptError, match="more than once"):
        list(tree_of(nodes).walk(tree_of(nodes).resolve(b"/")))


# ---- copies to the host


@pytest.mark.parametrize("name", [b"..", b"../escape", b"a/b", b"", b"a\0b"])
def test_a_name_that_leads_out_is_not_copied_out(tmp_path: Path, name: bytes) -> None:
    tree = tree_of({2: (D, [(b"d", 3)]), 3: (D, [(name, 4)]), 4: (F, b"evil")})
    target = tmp_path / "target"
    target.mkdir()
    try:
        copy_out(tree, b"/d", str(target), lambda text: None)
    except CowshedError:
        pass
    assert not (tmp_path / "escape").exists()
    assert all(path.name == "d" for path in target.rglob("*"))
    assert [path.name for path in tmp_path.iterdir()] == ["target"]


def test_links_and_devices_are_copied_as_what_they_are(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    tree = tree_of(
        {
            2: (D, [(b"d", 3)]),
            3: (D, [(b"out", 4), (b"dev", 5), (b"fifo", 6), (b"f", 7)]),
            4: (L, os.fsencode(outside)),
            5: (stat.S_IFBLK | 0o666, b""),
            6: (stat.S_IFIFO | 0o666, b""),
            7: (stat.S_IFREG | 0o6755, b"text"),
        }
    )
    target = tmp_path / "t"
    target.mkdir()
    warnings: list[str] = []
    copy_out(tree, b"/d", str(target), warnings.append)
    assert sorted(os.listdir(target / "d")) == ["f", "out"] and len(warnings) == 2
    assert (target / "d/out").is_symlink() and not list(outside.iterdir())
    assert stat.S_IMODE((target / "d/f").stat().st_mode) == 0o755, "set-id bits of a guest don't reach the host"


def test_what_waits_in_the_target_is_not_followed(tmp_path: Path) -> None:
    """A first copy may have left a link under the name that the second has as a directory."""
    outside = tmp_path / "outside"
    outside.mkdir()
    target = tmp_path / "t"
    target.mkdir()
    (target / "d").symlink_to(outside)
    tree = tree_of({2: (D, [(b"d", 3)]), 3: (D, [(b"f", 4)]), 4: (F, b"x")})
    with pytest.raises(CowshedError):
        copy_out(tree, b"/d", str(target), lambda text: None)
    assert not list(outside.iterdir())
    (target / "d").unlink()
    (target / "d").mkdir()
    (target / "d/f").symlink_to(outside / "f")
    copy_out(tree, b"/d", str(target), lambda text: None)
    assert not list(outside.iterdir()) and (target / "d/f").read_bytes() == b"x"


# ---- real file systems


@pytest.fixture
def image(tmp_path: Path) -> Path:
    """An ext4 file system over a whole disk."""
    source = tmp_path / "source"
    (source / "etc").mkdir(parents=True)
    (source / "etc/hostname").write_text("old\n")
    (source / "etc/link").symlink_to("hostname")
    (source / "dir/sub").mkdir(parents=True)
    (source / "dir/big").write_bytes(os.urandom(300000))
    path = tmp_path / "disk.img"
    with path.open("wb") as file:
        file.truncate(32 << 20)
    judges.run("mkfs.ext4", "-q", "-F", "-d", source, path)
    return path


def clean(path: Path) -> None:
    judges.run("e2fsck", "-fn", path)


def test_a_guest_opened_by_name_has_paths_as_pathlib_has(image: Path) -> None:
    with cowshed.guest.open(str(image), write=True) as guest:
        root = guest.root
        host = root / "etc/hostname"
        assert host.read_text() == "old\n" and host.name == "hostname" and host.parent == root / "etc"
        host.write_text("web1\n")
        assert (root / "etc/link").read_text() == "web1\n" and str((root / "etc/link").readlink()) == "hostname"
        (root / "a/b/c").mkdir(parents=True)
        (root / "a/b/c").mkdir(exist_ok=True)
        with (root / "a/f.txt").open("w") as file:
            file.write("one\ntwo\n")
        with (root / "a/f.txt").open("a") as file:
            file.write("three\n")
        with (root / "a/f.txt").open() as file:
            assert file.readlines() == ["one\n", "two\n", "three\n"]
        with (root / "dir/big").open("rb") as file:
            file.seek(1000)
            assert file.read(5) == (root / "dir/big").read_bytes()[1000:1005]
        (root / "a/f.txt").rename(root / "a/g.txt")
        (root / "a/g.txt").chmod(0o600)
        (root / "a/s").symlink_to("/etc")
        (root / "a/h").hardlink_to(root / "a/g.txt")
        assert [str(path) for path in (root / "a").iterdir()] == ["/a/b", "/a/g.txt", "/a/h", "/a/s"]
        assert [str(path) for path in root.glob("*/h*")] == ["/a/h", "/etc/hostname"]
        assert [str(path) for path in root.rglob("host*")] == ["/etc/hostname"]
        assert (root / "a/g.txt").suffix == ".txt" and (root / "a/g.txt").stat().st_nlink == 2
        with pytest.raises(GuestError) as caught:
            (root / "a").rmdir()
        assert caught.value.errno == errno.ENOTEMPTY
        with pytest.raises(TypeError):
            os.stat(root / "etc/hostname")  # type: ignore[call-overload]
        (root / "dir").rmtree()
        assert not (root / "dir").exists()
    clean(image)
    with cowshed.guest.open(str(image)) as guest:
        assert (guest.root / "etc/hostname").read_bytes() == b"web1\n"
        with pytest.raises(GuestError) as caught:
            (guest.root / "new").write_text("x")
        assert caught.value.errno == errno.EROFS


def test_a_change_that_fails_leaves_nothing(image: Path) -> None:
    before = image.read_bytes()
    with Session() as session:
        session.add(str(image), fmt="raw")
        session.run()
        session.mount("/dev/sda")
        with pytest.raises(RuntimeError), session.change():
            session.tree.write(b"/one", [b"x" * 5000])
            session.tree.unlink(b"/etc/hostname")
            raise RuntimeError
        assert session.tree.read(b"/etc/hostname") == b"old\n" and not session.tree.exists(b"/one")

        def broken() -> Iterator[bytes]:
            yield b"x" * 100000
            raise OSError(errno.EIO, "gone")

        with pytest.raises(OSError), session.change():
            session.tree.write(b"/etc/hostname", broken())
        assert session.tree.read(b"/etc/hostname") == b"old\n"
    after = image.read_bytes()
    clean(image)
    assert len(before) == len(after)
    with cowshed.guest.open(str(image)) as guest:
        assert [path.name for path in guest.root.iterdir()] == ["dir", "etc", "lost+found"]


def test_a_read_only_session_takes_changes_and_forgets_them(image: Path) -> None:
    before = image.read_bytes()
    with Session(readonly=True) as session:
        session.add(str(image), fmt="raw")
        session.run()
        session.mount("/dev/sda")
        with session.change():
            session.tree.write(b"/new", [b"text"])
            session.tree.remove(b"/dir")
        assert session.tree.read(b"/new") == b"text" and not session.tree.exists(b"/dir")
    assert image.read_bytes() == before


def test_replacing_keeps_what_a_file_has(image: Path) -> None:
    with Session() as session:
        session.add(str(image), fmt="raw")
        session.run()
        session.mount("/dev/sda")
        tree = session.tree
        with session.change():
            tree.set_attributes(b"/etc/hostname", uid=10, gid=20)
            tree.set_attributes(b"/etc/hostname", mode=0o4751)
            tree.set_xattr(b"/etc/hostname", b"security.selinux", b"system_u:object_r:hostname_etc_t:s0\0")
            tree.set_xattr(b"/etc/hostname", b"user.x", b"y")
        session.replace(b"/etc/link", b"fresh\n")
        facts = tree.stat(b"/etc/hostname")
        assert tree.read(b"/etc/hostname") == b"fresh\n" and tree.readlink(b"/etc/link") == b"hostname"
        assert (facts.mode & 0o7777, facts.uid, facts.gid) == (0o4751, 10, 20)
        assert tree.xattrs(b"/etc/hostname")[b"user.x"] == b"y" and len(tree.xattrs(b"/etc/hostname")) == 2
        assert tree.names(b"/etc") == [b"hostname", b"link"]
    clean(image)


def test_copies_in_and_out_are_the_same(image: Path, tmp_path: Path) -> None:
    source = tmp_path / "in"
    (source / "sub").mkdir(parents=True)
    (source / "sub/data").write_bytes(bytes(200000) + os.urandom(100000) + bytes(70000))
    (source / "empty").touch()
    (source / "link").symlink_to("/nowhere")
    os.link(source / "empty", source / "other")
    os.chmod(source / "sub/data", 0o640)
    os.utime(source / "sub/data", ns=(10**18, 11 * 10**17 + 7))
    with Session() as session:
        session.add(str(image), fmt="raw")
        session.run()
        session.mount("/dev/sda")
        with session.change():
            copy_in(session.tree, str(source), b"/dir", lambda text: None)
        assert session.tree.stat(b"/dir/in/empty").nlink == 2
        assert session.tree.stat(b"/dir/in/sub/data").mtime == 11 * 10**17 + 7
        out = tmp_path / "out"
        out.mkdir()
        copy_out(session.tree, b"/dir/in", str(out), lambda text: None)
    clean(image)
    assert subprocess.run(["diff", "-r", "--no-dereference", source, out / "in"], check=False).returncode == 0
    assert stat.S_IMODE((out / "in/sub/data").stat().st_mode) == 0o640
    assert (out / "in/sub/data").stat().st_mtime_ns == 11 * 10**17 + 7


def test_archives_go_round_and_hostile_ones_stay_inside(image: Path) -> None:
    with Session() as session:
        session.add(str(image), fmt="raw")
        session.run()
        session.mount("/dev/sda")
        tree = session.tree
        for compression in ("", "gzip", "bzip2", "xz"):
            stream = io.BytesIO()
            tar_out(tree, b"/dir", stream, compression=compression)
            stream.seek(0)
            with session.change():
                tree.mkdir(b"/copy")
                tar_in(tree, stream, b"/copy", compression=compression)
            assert tree.read(b"/copy/big") == tree.read(b"/dir/big") and tree.names(b"/copy") == tree.names(b"/dir")
            with session.change():
                tree.remove(b"/copy")
        stream = io.BytesIO()
        with tarfile.open(fileobj=stream, mode="w") as tar:
            link = tarfile.TarInfo("way")
            link.type, link.linkname = tarfile.SYMTYPE, "/etc"
            tar.addfile(link)
            for name in ("../../etc/hostname", "/etc/absolute", "way/planted"):
                entry = tarfile.TarInfo(name)
                entry.size = 4
                tar.addfile(entry, io.BytesIO(b"evil"))
        stream.seek(0)
        with session.change():
            tree.mkdir(b"/jail")
        with pytest.raises(GuestError), session.change():
            tar_in(tree, stream, b"/jail")
        assert tree.names(b"/etc") == [b"hostname", b"link"] and tree.read(b"/etc/hostname") == b"old\n"
        for damage in (b"no archive at all" * 100, stream.getvalue()[:700]):
            with pytest.raises((UsageError, GuestError)), session.change():
                tar_in(tree, io.BytesIO(damage), b"/jail")
        assert tree.names(b"/jail") == []
    clean(image)


def test_a_mount_inside_a_mount(image: Path, tmp_path: Path) -> None:
    fat = tmp_path / "fat.img"
    with fat.open("wb") as file:
        file.truncate(8 << 20)
    judges.run("mkfs.vfat", fat)
    with Session() as session:
        session.add(str(image), fmt="raw")
        session.add(str(fat), fmt="raw")
        session.run()
        session.mount("/dev/sda")
        session.mount("/dev/sdb", b"/dir/sub")
        tree = session.tree
        with session.change():
            tree.write(b"/dir/sub/file.txt", [b"on fat"])
        assert tree.read(b"/dir/sub/../sub/file.txt") == b"on fat"
        for verb, number in (
            (lambda: tree.rename(b"/dir/sub/file.txt", b"/x"), errno.EXDEV),
            (lambda: tree.link(b"/dir/sub/file.txt", b"/x"), errno.EXDEV),
            (lambda: tree.rmdir(b"/dir/sub"), errno.EBUSY),
            (lambda: tree.remove(b"/dir"), errno.EBUSY),
            (lambda: session.umount("/dev/sda"), errno.EBUSY),
        ):
            with pytest.raises(GuestError) as caught:
                verb()
            assert caught.value.errno == number
        assert session.devices.list_filesystems() == [("/dev/sda", "ext4"), ("/dev/sdb", "vfat")]
        session.umount_all()
    clean(image)


def test_a_device_mounted_twice_is_one_file_system(image: Path) -> None:
    with Session() as session:
        session.add(str(image), fmt="raw")
        session.run()
        session.mount("/dev/sda")
        session.mount("/dev/sda", b"/dir/sub")
        tree = session.tree
        for name in (b"/one", b"/dir/sub/two", b"/three", b"/dir/sub/four"):
            with session.change():
                tree.write(name, [name * 20000])
        with pytest.raises(GuestError) as caught:
            session.mount("/dev/sda", b"/dir", readonly=True)
        assert caught.value.errno == errno.EBUSY
        session.umount("/dir/sub")
        for name in (b"one", b"two", b"three", b"four"):
            assert tree.read(b"/" + name).startswith(b"/")
        with session.change():
            tree.write(b"/five", [b"5"])
    clean(image)
    with Session(readonly=True) as session:
        session.add(str(image), fmt="raw")
        session.run()
        session.mount("/dev/sda")
        assert {b"one", b"two", b"three", b"four", b"five"} <= set(session.tree.names(b"/"))


def test_what_has_gathered_changes_is_not_unmounted(image: Path) -> None:
    with Session() as session:
        session.add(str(image), fmt="raw")
        session.run()
        session.mount("/dev/sda")
        with session.gather():
            with session.change():
                session.tree.write(b"/kept", [b"kept"])
            with pytest.raises(GuestError) as caught:
                session.umount("/")
            assert caught.value.errno == errno.EBUSY
        session.umount("/")
        session.mount("/dev/sda")
        assert session.tree.read(b"/kept") == b"kept"
    clean(image)


def test_nothing_of_a_change_is_left_when_the_device_can_not_be_read_again(
    image: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = shutil.copy(image, tmp_path / "other.img")

    def gone(*_: object) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    with Session() as session:
        session.add(str(image), fmt="raw")
        session.add(str(other), fmt="raw")
        session.run()
        session.mount("/dev/sda")
        session.mount("/dev/sdb", b"/dir/sub")
        tree = session.tree
        with monkeypatch.context() as patch, pytest.raises(OSError), session.change():
            tree.write(b"/half", [b"x" * 100000])
            tree.write(b"/dir/sub/half", [b"x" * 100000])
            node = tree.mounts[1].fs.node
            patch.setattr(node, "read", gone)
            patch.setattr(node, "read_into", gone)
            raise RuntimeError
        with session.change():
            tree.write(b"/whole", [b"y" * 100000])
        with pytest.raises(GuestError) as caught, session.change():
            tree.write(b"/dir/sub/whole", [b"y" * 100000])
        assert caught.value.errno == errno.EROFS
        session.umount("/dir/sub")
        session.mount("/dev/sdb", b"/dir/sub")
        assert {b"half", b"whole"} & set(tree.names(b"/dir/sub")) == set()
        assert {b"half", b"whole"} & set(tree.names(b"/")) == {b"whole"}
    clean(image)
    clean(other)


def test_a_scratch_disk_reads_what_was_written_and_what_lies_below(tmp_path: Path) -> None:
    import random

    path = tmp_path / "x.raw"
    model = bytearray(os.urandom(3 << 20))
    path.write_bytes(model)
    before = bytes(model)
    rng = random.Random(7)
    with ScratchNode(cowshed.open(str(path), fmt="raw")) as node:
        for _ in range(200):
            at = rng.randrange(len(model))
            data = os.urandom(min(len(model) - at, rng.choice([1, 100, 4096, 5000, 70000])))
            if rng.random() < 0.2:
                node.write_zeroes(at, len(data))
                data = bytes(len(data))
            else:
                node.write(at, data)
            model[at : at + len(data)] = data
            start = rng.randrange(len(model))
            length = rng.randrange(len(model) - start)
            assert node.read(start, length) == model[start : start + length]
        assert b"".join(
            extent.node.read(extent.host_offset, extent.length) if extent.node else bytes(extent.length)
            for extent in node.extents()
        ) == bytes(model)
    assert path.read_bytes() == before


# ---- small parts


def test_disks_are_counted_as_the_kernel_counts() -> None:
    assert [letters(index) for index in (0, 25, 26, 27, 701, 702)] == ["a", "z", "aa", "ab", "zz", "aaa"]


def test_patterns_of_paths(image: Path) -> None:
    with cowshed.guest.open(str(image)) as guest:
        tree = guest.session.tree
        assert glob(tree, b"/e*/h[a-p]stname") == [b"/etc/hostname"]
        assert glob(tree, b"/{etc,dir}") == [b"/etc", b"/dir"] and glob(tree, b"/zz*") == []
        assert glob(tree, b"/*", slash=True) == [b"/dir/", b"/etc/", b"/lost+found/"]
        assert case_sensitive_path(tree, b"/ETC/HostName") == b"/etc/hostname"
        assert disk_usage(tree, tree.resolve(b"/dir")) >= 300000
    assert sorted(braces(b"a{b,c{d,e}}f{}")) == [b"abf{}", b"acdf{}", b"acef{}"]


def test_sums_are_those_of_the_tools() -> None:
    data = [b"hello", b" world" * 1000, b"\n"]
    for kind, tool in (("md5", "md5sum"), ("sha256", "sha256sum"), ("crc", "cksum")):
        told = subprocess.run([tool], input=b"".join(data), capture_output=True, check=True).stdout.split()[0].decode()
        assert checksum(kind, data) == told


@pytest.mark.parametrize(
    ("expression", "flags"),
    [("h.*o", ""), ("^a*b$", ""), ("a\\{2\\}", ""), ("a{2}", "-E"), ("(x|y)+", "-E"), ("x|y", ""), ("[[:digit:]]", ""),
     ("[]a]", ""), ("*a", ""), ("\\(a\\)\\1", ""), ("a+", ""), ("a\\+b", ""), ("$x", ""), ("a.c", "-F")],
)  # fmt: skip
def test_regular_expressions_are_posix(expression: str, flags: str) -> None:
    lines = [
        b"hello",
        b"aab",
        b"b",
        b"aa",
        b"a{2}",
        b"xy",
        b"x|y",
        b"7",
        b"]",
        b"*a",
        b"a+",
        b"$x",
        b"abc",
        b"a.c",
        b"",
    ]
    text = b"\n".join(lines) + b"\n"
    done = subprocess.run(["grep", *flags.split(), "-e", expression], input=text, capture_output=True, check=False)
    found = pattern(expression.encode(), extended="-E" in flags, fixed="-F" in flags)
    assert [line for line in lines_of([text]) if found.search(line)] == done.stdout.splitlines()


def test_dumps_and_strings_are_those_of_the_tools() -> None:
    data = bytes(range(256)) + bytes(100) + b"some text here\n" + bytes(64) + b"x"
    dumped = subprocess.run(["hexdump", "-C"], input=data, capture_output=True, check=False)
    if dumped.returncode == 0:
        assert b"".join(hexdump([data[:7], data[7:300], data[300:]])) == dumped.stdout
    assert list(strings([b"ab\0some", b" text\0abc\0", b"last"])) == [b"some text", b"last"]
