"""A guest's paths beside `pathlib.Path`: the same operations on a directory of the host and in an ext4 image."""

from __future__ import annotations

import errno
import gc
import io
import os
import pickle
import shutil
import stat
import subprocess
import sys
import tarfile
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

import cowshed
import cowshed.guest
import judges
from cowshed.errors import CorruptError, CowshedError, OpenError, UsageError
from cowshed.guest import Guest, GuestError, GuestPath
from test_guest_session import D, F, L, tree_of

#: depth of the directory that all happens in: a few ".." lead nowhere else
TOP = "one/two/three/four"
NAMES = ["a", "b", "c", "a.txt", ".h", "ü", ".."]
#: stands for a name that is too long
LONG = "LONG"


@pytest.fixture(scope="module")
def blank(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An ext4 file system over a whole disk, with TOP in it."""
    folder = tmp_path_factory.mktemp("blank")
    (folder / "source" / TOP).mkdir(parents=True)
    path = folder / "disk.img"
    with path.open("wb") as file:
        file.truncate(8 << 20)
    judges.run("mkfs.ext4", "-q", "-F", "-N", "512", "-d", folder / "source", path)
    return path


@pytest.fixture
def image(blank: Path, tmp_path: Path) -> Path:
    return shutil.copy(blank, tmp_path / "disk.img")


@pytest.fixture
def guest(image: Path) -> Iterator[Guest]:
    with cowshed.guest.open(image, write=True) as opened:
        yield opened
    clean(image)


def clean(path: Path) -> None:
    judges.run("e2fsck", "-fn", path)


# ---- the same operations


SHORT = st.lists(st.sampled_from(NAMES), min_size=1, max_size=3).map("/".join)
PATHS = SHORT | st.just(LONG) | st.just("a/" + LONG)
DATA = st.sampled_from([b"", b"one\n", b"two\r\nlines\n", bytes(range(256)), b"x" * 5000])
PATTERNS = st.sampled_from(
    ["*", "*.txt", "?", "[ab]", ".*", "*/*", "a/*", "**/a", "**/*.txt", "*/", "**/*", "a/**/b", "**/**/a", "[!a]*",
     "a/..", "../*", "**/", "*/../*", "a.txt", "ü*"]
)  # fmt: skip
FILE = st.sampled_from(
    [
        [("write", b"text")], [("read", 3), ("seek", 1, 0), ("write", b"ZZ"), ("read", -1)],
        [("seek", 9, 0), ("write", b"end")], [("truncate", 2), ("seek", 0, 2), ("write", b"after")],
        [("seek", 0, 2), ("tell",), ("write", b"tail"), ("tell",)],
        [("readline",), ("tell",), ("readlines",)], [("truncate", 7000)], [("seek", 0, 0), ("read", -1)],
        [("write", b"q" * 300000), ("seek", 100, 0), ("read", 5)], [("seek", -1, 0)], [("readable",), ("writable",)],
        [],
        [("write", b"a"), ("truncate", 0), ("write", b"b")],
    ]
)  # fmt: skip
MODES = ["rb", "wb", "xb", "ab", "r+b", "w+b", "x+b", "a+b", "bb", "rw", "r", "", "rbt", "U"]
BUFFERING = st.sampled_from([-1, -1, 0, 1, 16])
STEPS = st.one_of(
    st.tuples(st.just("ask"), PATHS),
    st.tuples(st.just("write_bytes"), PATHS, DATA),
    st.tuples(st.just("read_bytes"), PATHS),
    st.tuples(st.just("text"), PATHS, st.sampled_from(["ä\n", "x\r\ny\n", ""]), st.sampled_from([None, "latin-1"]),
              st.sampled_from([None, "\r\n"])),
    st.tuples(st.just("open"), PATHS, st.sampled_from(MODES), BUFFERING, FILE),
    st.tuples(st.just("iterdir"), PATHS),
    st.tuples(st.just("glob"), PATHS, PATTERNS),
    st.tuples(st.just("walk"), PATHS, st.booleans()),
    st.tuples(st.just("mkdir"), PATHS, st.sampled_from([0o777, 0o700, 0o2775]), st.booleans(), st.booleans()),
    st.tuples(st.just("rmdir"), PATHS),
    st.tuples(st.just("unlink"), PATHS, st.booleans()),
    st.tuples(st.just("rename"), SHORT, SHORT),
    st.tuples(st.just("touch"), PATHS, st.booleans()),
    st.tuples(st.just("symlink_to"), SHORT, SHORT | st.just("a") | st.just("b")),
    st.tuples(st.just("hardlink_to"), SHORT, SHORT),
    st.tuples(st.just("readlink"), PATHS),
    st.tuples(st.just("resolve"), PATHS),
    st.tuples(st.just("samefile"), SHORT, SHORT),
    st.tuples(st.just("chmod"), PATHS, st.sampled_from([0o644, 0o4755, 0o600, 0o777])),
)  # fmt: skip


class Side:
    """The operations on one of the two: ``top`` is a `Path` or a `GuestPath`."""

    def __init__(self, top: Any) -> None:
        self.top = top
        self.ours = isinstance(top, GuestPath)

    def shown(self, path: Any) -> str:
        """A path as it is seen from the top."""
        text = str(path)
        above = str(self.top).removesuffix(TOP).rstrip("/")
        return text.removeprefix(above)

    def do(self, step: tuple[Any, ...]) -> Any:
        """What came of it: a result, or the error's class, number and path."""
        name, path, *rest = (part.replace(LONG, "x" * 256) if isinstance(part, str) else part for part in step)
        try:
            return getattr(self, name)(self.top / path, *rest)
        except OSError as error:
            builtin = next(cls for cls in type(error).__mro__ if cls.__module__ == "builtins")
            where = self.shown(error.filename) if error.filename is not None and name not in self.ELSEWHERE else ""
            assert not self.ours or (isinstance(error, GuestError | io.UnsupportedOperation) or error.filename is None)
            return builtin.__name__, error.errno, where
        except (ValueError, NotImplementedError) as error:
            return type(error).__name__

    #: operations that may complain of another path than the first
    ELSEWHERE = ("mkdir", "resolve", "samefile", "walk", "open")

    def ask(self, path: Any) -> Any:
        facts = path.lstat() if path.is_symlink() or path.exists() else None
        told = [path.exists(), path.is_file(), path.is_dir(), path.is_symlink(), path.is_fifo(), path.is_socket(),
                path.is_block_device(), path.is_char_device(), path.is_mount()]  # fmt: skip
        if facts is None:
            return told
        kind = stat.S_IFMT(facts.st_mode)
        told += [facts.st_mode, facts.st_uid, facts.st_gid]
        if kind != stat.S_IFDIR:
            told += [facts.st_size, facts.st_nlink]
        return [*told, stat.S_IFMT(path.stat().st_mode)]

    def write_bytes(self, path: Any, data: bytes) -> Any:
        return path.write_bytes(data)

    def read_bytes(self, path: Any) -> Any:
        return path.read_bytes()

    def text(self, path: Any, text: str, encoding: str | None, newline: str | None) -> Any:
        count = path.write_text(text, encoding or "utf-8", newline=newline)
        return count, path.read_bytes(), path.read_text(encoding or "utf-8")

    def open(self, path: Any, mode: str, buffering: int, steps: list[tuple[Any, ...]]) -> Any:
        """What a file object answers; on the host nobody sees what is written before it is closed either."""
        if buffering == (1 if "b" in mode else 0):
            # the one is of no use, the other an error that comes too late on the host
            buffering = -1
        found: list[Any] = []
        with path.open(mode, buffering, None if "b" in mode else "latin-1") as file:
            for verb, *words in steps:
                if "b" not in mode:
                    words = [word.decode("latin-1") if isinstance(word, bytes) else word for word in words]
                try:
                    found.append(getattr(file, verb)(*words))
                except (OSError, ValueError) as error:
                    found.append((type(error).__name__, getattr(error, "errno", None)))
        return found, path.read_bytes()

    def iterdir(self, path: Any) -> Any:
        return sorted(self.shown(one) for one in path.iterdir())

    def glob(self, path: Any, pattern: str) -> Any:
        if not path.is_dir():
            # Python 3.13 looks beside a file by "..", earlier ones do not
            return None
        found = sorted(self.shown(one) for one in path.glob(pattern))
        assert not self.ours or len(set(found)) == len(found)
        return sorted(set(found))

    def walk(self, path: Any, top_down: bool) -> Any:
        if self.ours:
            return [(self.shown(at), list(dirs), files) for at, dirs, files in path.walk(top_down)]
        found = []
        for at, dirs, files in os.walk(path):
            links = [name for name in dirs if os.path.islink(os.path.join(at, name))]
            dirs[:] = sorted(name for name in dirs if name not in links)
            found.append((self.shown(at), list(dirs), sorted(files + links)))
        return found if top_down else self._bottom_up(found)

    @staticmethod
    def _bottom_up(found: list[tuple[str, list[str], list[str]]]) -> list[tuple[str, list[str], list[str]]]:
        """The same directories, each after those in it."""
        done: list[tuple[str, list[str], list[str]]] = []

        def visit(index: int) -> int:
            own = found[index]
            index += 1
            for _ in own[1]:
                index = visit(index)
            done.append(own)
            return index

        if found:
            visit(0)
        return done

    def mkdir(self, path: Any, mode: int, parents: bool, exist_ok: bool) -> Any:
        # a change of ours that fails leaves none of the parents; pathlib leaves those that it has made
        parents = parents and path.name != "x" * 256 and (exist_ok or ".." not in path.relative_to(self.top).parts)
        path.mkdir(mode, parents, exist_ok)
        return stat.S_IMODE(path.stat().st_mode)

    def rmdir(self, path: Any) -> Any:
        path.rmdir()

    def unlink(self, path: Any, missing_ok: bool) -> Any:
        path.unlink(missing_ok)

    def rename(self, path: Any, target: str) -> Any:
        return self.shown(path.rename(self.top / target))

    def touch(self, path: Any, exist_ok: bool) -> Any:
        path.touch(exist_ok=exist_ok)

    def symlink_to(self, path: Any, target: str) -> Any:
        path.symlink_to(target)

    def hardlink_to(self, path: Any, target: str) -> Any:
        path.hardlink_to(self.top / target)

    def readlink(self, path: Any) -> Any:
        return str(path.readlink())

    def resolve(self, path: Any) -> Any:
        strict = self.shown(path.resolve(strict=True))
        assert self.shown(path.resolve()) == strict
        return strict

    def samefile(self, path: Any, other: str) -> Any:
        return path.samefile(self.top / other)

    def chmod(self, path: Any, mode: int) -> Any:
        path.chmod(mode)

    def everything(self) -> Any:
        """All that there is, for comparison."""
        found = {}
        for path in [self.top, *self.top.rglob("*")]:
            facts = path.lstat()
            body: Any = None
            if path.is_symlink():
                body = str(path.readlink())
            elif path.is_file():
                body = path.read_bytes(), facts.st_nlink
            found[self.shown(path)] = facts.st_mode, body
        return found


def loops(outcome: Any) -> Any:
    """Python 3.11 and 3.12 say RuntimeError where later ones say ELOOP."""
    return ("OSError", errno.ELOOP, "") if outcome == "RuntimeError" else outcome


@pytest.fixture
def quick(tmp_path: Path) -> Iterator[Path]:
    """A directory in memory, where there is one: each operation is brought to the disk."""
    memory = "/dev/shm" if os.path.isdir("/dev/shm") else tmp_path
    with tempfile.TemporaryDirectory(dir=memory) as folder:
        yield Path(folder)


@pytest.fixture
def umask() -> Iterator[None]:
    before = os.umask(0o022)
    yield
    os.umask(before)


@pytest.mark.skipif(os.geteuid() != 0, reason="who isn't root is refused what nobody is refused in a guest")
@settings(
    max_examples=1000 if os.environ.get("COWSHED_TORTURE") == "1" else 40,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(steps=st.lists(STEPS, min_size=5, max_size=30))
def test_paths_do_what_pathlib_does(
    blank: Path, quick: Path, umask: None, figures: Any, steps: list[tuple[Any, ...]]
) -> None:
    folder = quick / "model"
    shutil.rmtree(folder, ignore_errors=True)
    (folder / "host" / TOP).mkdir(parents=True)
    image = shutil.copy(blank, folder / "disk.img")
    with cowshed.guest.open(image, write=True) as opened:
        host, ours = Side(folder / "host" / TOP), Side(opened.root / TOP)
        for number, step in enumerate(steps):
            try:
                expected = host.do(step)
            except RuntimeError:
                expected = "RuntimeError"
            assert ours.do(step) == loops(expected), (number, step)
        assert ours.everything() == host.everything()
    clean(image)
    figures.add("guest paths: operations compared with pathlib", len(steps))


# ---- names


@given(st.lists(st.sampled_from(["a", "b.txt", "..", ".", ".h", "x.tar.gz", "/", "a/b", ""]), max_size=5))
@example([])
def test_names_are_those_of_a_pure_path(segments: list[str]) -> None:
    with cowshed.guest.Session() as session:
        ours, pure = GuestPath(session, *segments), PurePosixPath("/", *segments)
        assert str(ours) == str(pure) and ours.parts == pure.parts and ours.name == pure.name
        assert (ours.suffix, ours.suffixes, ours.stem) == (pure.suffix, pure.suffixes, pure.stem)
        assert [str(one) for one in ours.parents] == [str(one) for one in pure.parents]
        assert (ours.root, ours.drive, ours.anchor, ours.is_absolute()) == ("/", "", "/", True)
        for verb, *words in (
            ("with_name", "new"), ("with_suffix", ".x"), ("with_suffix", "x"), ("with_stem", "s"), ("match", "*.txt"),
            ("match", "/a/*"), ("with_name", "a/b"), ("relative_to", "/a"), ("is_relative_to", "/a"), ("match", ""),
            ("relative_to", "a"), ("is_relative_to", "a"), ("joinpath", "/x", "y"), ("__truediv__", "c"),
        ):  # fmt: skip
            outcomes = []
            for path in (ours, pure):
                words = [f"/{word}" if word == "a" and verb.endswith("relative_to") else word for word in words]
                try:
                    outcomes.append(str(getattr(path, verb)(*words)))
                except ValueError:
                    outcomes.append("ValueError")
            assert outcomes[0] == outcomes[1], (verb, words)


def test_other_names() -> None:
    with cowshed.guest.Session() as session:
        path = GuestPath(session, b"/etc/\xff")
        assert bytes(path / "x") == b"/etc/\xff/x" and path.name == "\udcff"
        assert str(GuestPath(session, "/a/b").relative_to("/a/c", walk_up=True)) == "../b"
        with pytest.raises(ValueError):
            GuestPath(session, "/a").relative_to("/a/..", walk_up=True)
        assert GuestPath(session, "/a/B.txt").match("b.TXT", case_sensitive=False)
        for pattern, matches in (("/a/*.txt", True), ("**/*.txt", True), ("/**", True), ("/a", False),
                                 ("/**/a/**/*", True),
                                 ("*.txt", False), ("/a/**/b.txt", True), ("/a/b.txt/**", False)):  # fmt: skip
            assert GuestPath(session, "/a/b.txt").full_match(pattern) is matches, pattern
        assert sorted([GuestPath(session, "/a-b"), GuestPath(session, "/a/b")])[0] == GuestPath(session, "/a/b")
        assert GuestPath(session, "/a") in {GuestPath(session, "a")} and GuestPath(session, "/a") != Path("/a")
        with pytest.raises(TypeError):
            GuestPath(session, "/a") / 3  # type: ignore[operator]
        with pytest.raises(TypeError):
            os.stat(path)  # type: ignore[call-overload]
        assert not isinstance(path, os.PathLike)


# ---- files


def test_a_file_appears_when_it_is_closed(guest: Guest) -> None:
    path = guest.root / "f"
    with path.open("w") as file:
        file.write("one\n")
        assert not path.exists()
    with pytest.raises(RuntimeError), path.open("a") as file:
        file.write("two\n")
        raise RuntimeError
    assert path.read_text() == "one\n"
    with path.open("a") as first, path.open("a") as second:
        first.write("first\n")
        second.write("second\n")
    assert path.read_text() == "one\nsecond\nfirst\n"
    exclusive = (guest.root / "x").open("xb")
    (guest.root / "x").write_bytes(b"sooner")
    with pytest.raises(FileExistsError):
        exclusive.close()
    for mode, buffering, words in (
        ("rb", -1, ("utf-8",)),
        ("w", 0, ()),
        ("wr", -1, ()),
        ("wb", -1, (None, None, "\n")),
    ):
        with pytest.raises(ValueError):
            path.open(mode, buffering, *words)
    assert path.read_text() == "one\nsecond\nfirst\n"


def test_a_file_that_nobody_closes_is_closed_with_its_guest(image: Path) -> None:
    with cowshed.guest.open(image, write=True) as guest:
        (guest.root / "kept").open("w").write("text")
        gc.collect()
    with pytest.raises(RuntimeError), cowshed.guest.open(image, write=True) as guest:
        (guest.root / "forgotten").open("w").write("text")
        raise RuntimeError
    late = None
    with cowshed.guest.open(image, write=True) as guest:
        assert (guest.root / "kept").read_text() == "text" and not (guest.root / "forgotten").exists()
        late = (guest.root / "kept").open("rb", 0)
    with pytest.raises(ValueError, match="closed"):
        late.read()
    clean(image)


def test_files_that_nobody_closes_are_written_though_one_of_them_can_not_be(image: Path) -> None:
    guest = cowshed.guest.open(image, write=True)
    exclusive = (guest.root / "first").open("xb")
    (guest.root / "second").open("wb").write(b"text")
    (guest.root / "first").write_bytes(b"sooner")
    exclusive.write(b"later")
    with pytest.raises(FileExistsError):
        guest.close()
    clean(image)
    with cowshed.guest.open(image) as guest:
        assert (guest.root / "first").read_bytes() == b"sooner"
        assert (guest.root / "second").read_bytes() == b"text"


def test_a_file_that_could_not_be_kept_whole_is_not_written(guest: Guest, monkeypatch: pytest.MonkeyPatch) -> None:
    from cowshed.guest.spool import Spool

    def full(self: Spool, at: int, view: memoryview) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    path = guest.root / "half"
    path.write_bytes(b"old")
    with monkeypatch.context() as patch:
        patch.setattr(Spool, "_put", full)
        patch.setattr("cowshed.guest.file.IN_MEMORY", 1 << 20)
        file = path.open("wb")
        file.write(b"x" * (1 << 20))
        # the last bytes are kept when it is closed
        file.write(b"y")
        with pytest.raises(OSError) as caught:
            file.close()
        assert caught.value.errno == errno.ENOSPC and file.closed
        with path.open("wb", buffering=0) as raw:
            raw.write(b"x" * (1 << 20))
            for _ in range(2):
                with pytest.raises(OSError):
                    raw.write(b"y")
            with pytest.raises(OSError):
                raw.close()
    assert path.read_bytes() == b"old"


def test_a_file_that_was_replaced_is_not_mistaken_for_another(guest: Guest) -> None:
    path = guest.root / "f"
    path.write_bytes(b"old" * 1000)
    with path.open("rb", 0) as file:
        assert file.read(3) == b"old"
        path.write_bytes(b"new" * 900)
        assert file.read(3) == b"new" and file.seek(0, 2) == 2700
        path.unlink()
        (guest.root / "g").write_bytes(b"other")
        with pytest.raises(OSError) as caught:
            file.read(3)
        assert caught.value.errno == errno.ESTALE and caught.value.filename == "/f"


def test_holes_are_kept(guest: Guest) -> None:
    with (guest.root / "sparse").open("wb") as file:
        file.write(b"head")
        file.seek(5 << 20)
        file.write(b"tail")
    facts = (guest.root / "sparse").stat()
    assert facts.st_size == (5 << 20) + 4 and facts.st_blocks * 512 < 65536
    with (guest.root / "sparse").open("r+b") as file:
        file.truncate(100)
        file.truncate(8192)
    assert (guest.root / "sparse").read_bytes() == b"head" + bytes(8188)


MEMORY = """
import os, resource, sys
import cowshed.guest
size, image, folder = int(sys.argv[1]) << 20, sys.argv[2], sys.argv[3]
block = os.urandom(1 << 20)
with cowshed.guest.open(image, write=True) as guest:
    import hashlib, cryptography, tempfile
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    if len(sys.argv) > 4:
        guest.root.copy_in(sys.argv[4])
    else:
        with (guest.root / "big").open("wb") as file:
            for _ in range(size >> 20):
                file.write(block)
    path = guest.root / "big"
    assert path.stat().st_size == size
    with path.open("rb") as file:
        while file.read(1 << 20):
            pass
    path.copy_out(folder)
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before >> 10)
"""


def streamed(folder: Path, size: int, figures: Any) -> None:
    """Write, read, copy out and copy in ``size`` MiB: the memory that each takes beyond the start's is bounded."""
    (folder / "out").mkdir()
    for number, more in enumerate(([], [folder / "out/big"])):
        image = folder / f"{number}.img"
        with image.open("wb") as file:
            file.truncate(size + (size >> 3) + 64 << 20)
        judges.run("mkfs.ext4", "-q", "-F", image)
        argv = [sys.executable, "-c", MEMORY, str(size), image, folder / "out", *more]
        env = {**os.environ, "TMPDIR": str(folder)}
        done = subprocess.run(argv, capture_output=True, text=True, env=env, check=False)
        assert done.returncode == 0, done.stderr
        assert int(done.stdout) < 160, f"{done.stdout} MiB for a file of {size} MiB"
        figures.add(f"guest paths: MiB of memory for a file of {size} MiB", int(done.stdout))
        clean(image)


def test_memory_is_bounded(quick: Path, figures: Any) -> None:
    streamed(quick, 200, figures)


@pytest.mark.torture
def test_memory_is_bounded_for_a_file_of_a_gibibyte(tmp_path: Path, figures: Any) -> None:
    streamed(tmp_path, 1024, figures)


# ---- changes


def test_changes_are_gathered(guest: Guest, image: Path) -> None:
    before = image.read_bytes()
    with guest.change():
        (guest.root / "a").mkdir()
        (guest.root / "a/f").write_text("text")
        (guest.root / "nope").unlink(missing_ok=True)
        with pytest.raises(UsageError), guest.change():
            pass
        assert image.read_bytes() == before
    assert image.read_bytes() != before and (guest.root / "a/f").read_text() == "text"
    with pytest.raises(RuntimeError), guest.change():
        (guest.root / "a/f").unlink()
        raise RuntimeError
    assert (guest.root / "a/f").read_text() == "text"
    # one that fails half-way takes all of them with it, whoever catches the error
    with pytest.raises(UsageError, match="failed"), guest.change():
        (guest.root / "b").mkdir()
        with pytest.raises(OSError):
            (guest.root / "a").rmdir()
        with pytest.raises(UsageError, match="failed"):
            (guest.root / "c").mkdir()
    assert not (guest.root / "b").exists()


def test_each_finished_call_is_one_change(image: Path) -> None:
    with pytest.raises(RuntimeError), cowshed.guest.open(image, write=True) as guest:
        (guest.root / "done").write_text("x")
        raise RuntimeError
    with cowshed.guest.open(image) as guest:
        assert (guest.root / "done").read_text() == "x"
        for verb in (lambda: (guest.root / "new").write_text("x"), lambda: (guest.root / "done").unlink(),
                     lambda: (guest.root / "new").open("w"), lambda: (guest.root / "new").mkdir()):  # fmt: skip
            with pytest.raises(OSError) as caught:
                verb()
            assert caught.value.errno == errno.EROFS
    clean(image)


def test_errors_are_both_kinds(guest: Guest) -> None:
    for verb, cls in (
        (lambda: (guest.root / "nope").stat(), FileNotFoundError),
        (guest.root.read_bytes, IsADirectoryError),
        (guest.root.mkdir, FileExistsError),
    ):
        with pytest.raises(cls) as caught:
            verb()
        error = caught.value
        assert isinstance(error, GuestError) and isinstance(error, CowshedError) and error.filename
        again = pickle.loads(pickle.dumps(error))
        assert isinstance(again, cls) and (str(again), again.errno, again.filename) == (
            str(error), error.errno, error.filename,
        )  # fmt: skip
    with pytest.raises(ValueError, match="null"):
        (guest.root / "a\0b").read_bytes()
    assert not (guest.root / "a\0b").exists()


def test_a_writer_has_the_disk_for_itself(image: Path) -> None:
    program = (
        "import cowshed.guest, sys\nwith cowshed.guest.open(sys.argv[1], write=len(sys.argv) > 2) as g: g.root.stat()"
    )
    with cowshed.guest.open(image, write=True) as guest:
        done = subprocess.run([sys.executable, "-c", program, image, "w"], capture_output=True, text=True, check=False)
        assert done.returncode == 1 and "LockError" in done.stderr
        with pytest.raises(OpenError):
            cowshed.guest.open(image, write=True)
        # who only looks is let in, and sees what is on the disk
        subprocess.run([sys.executable, "-c", program, image], check=True)
        (guest.root / "x").touch()
    subprocess.run([sys.executable, "-c", program, image, "w"], check=True)


# ---- more than pathlib has


def test_accounts_attributes_and_copies(guest: Guest, tmp_path: Path) -> None:
    root = guest.root
    (root / "etc").mkdir()
    (root / "etc/passwd").write_text("root:x:0:0::/:/bin/sh\nweb:x:33:33::/:/bin/sh\n")
    (root / "etc/group").write_text("root:x:0:\nwww:x:44:\n")
    (root / "f").write_bytes(b"x")
    (root / "f").chown(33, 44)
    assert ((root / "f").owner(), (root / "f").group(), (root / "etc").owner()) == ("web", "www", "root")
    (root / "f").chown(-1, 45)
    assert (root / "f").stat().st_uid == 33
    with pytest.raises(KeyError):
        (root / "f").group()
    (root / "f").utime(1, 10**18 + 5)
    assert (root / "f").stat().st_mtime_ns == 10**18 + 5 and (root / "f").stat().st_atime_ns == 1
    (root / "f").set_xattr("user.note", b"kept")
    assert (root / "f").xattrs() == {"user.note": b"kept"}
    packed = io.BytesIO()
    root.tar_out(packed, compression="gzip")
    packed.seek(0)
    with tarfile.open(fileobj=packed) as archive:
        assert "./f" in archive.getnames()
    (root / "again").mkdir()
    packed.seek(0)
    (root / "again").tar_in(packed)
    assert (root / "again/f").xattrs() == {"user.note": b"kept"} and (root / "again/f").owner() == "web"
    (root / "f").remove_xattr("user.note")
    assert (root / "f").xattrs() == {} and (root / "again").disk_usage() >= 4096
    assert (root / "etc").copy_out(tmp_path) == [] and (tmp_path / "etc/group").is_file()
    assert (root / "again").copy_in(tmp_path / "etc") == [] and (root / "again/etc/group").is_file()
    (root / "again").rmtree()
    with pytest.raises(FileNotFoundError):
        (root / "again").rmtree()


def test_walks_can_be_steered(guest: Guest) -> None:
    root = guest.root
    for name in ("a/b", "a/c", "d"):
        (root / name).mkdir(parents=True)
        (root / name / "file").touch()
    (root / "link").symlink_to("a")
    (root / "a/b/up").symlink_to("../..")
    entered = []
    for path, folders, _ in root.walk():
        entered.append(str(path))
        folders[:] = [name for name in folders if name not in ("b", "lost+found", "one")]
    assert entered == ["/", "/a", "/a/c", "/d"]
    followed = [str(path) for path, _, _ in (root / "a").walk(follow_symlinks=True)]
    assert followed[:2] == ["/a", "/a/b"] and len(followed) == len(set(followed)) and "/a/b/up" in followed
    assert [str(path) for path in (root / "a").glob("**")] == [
        "/a",
        "/a/b",
        "/a/c",
        "/a/b/file",
        "/a/b/up",
        "/a/c/file",
    ]
    assert [str(path) for path in root.glob("A/*/FILE", case_sensitive=False)] == ["/a/b/file", "/a/c/file"]
    told: list[OSError] = []
    assert list((root / "nope").walk(on_error=told.append)) == [] and isinstance(told[0], FileNotFoundError)
    # what goes away meanwhile isn't there, and nothing else is taken for it
    seen = []
    for path in root.rglob("file"):
        seen.append(str(path))
        if (root / "a/c").exists():
            (root / "a/c").rmtree()
    assert seen == ["/a/b/file", "/d/file"]


def test_walks_of_damage_end() -> None:
    for nodes in (
        {2: (D, [(b"a", 3)]), 3: (D, [(b"b", 4)]), 4: (D, [(b"again", 3)])},
        {2: (D, [(b"a/b", 3)]), 3: (F, b"")},
    ):
        session = cowshed.guest.Session()
        session.tree = tree_of(nodes)
        session.running = True
        for walk in (
            GuestPath(session).walk(),
            GuestPath(session).rglob("*"),
            GuestPath(session).glob("*/**/x"),
        ):
            with pytest.raises(CorruptError):
                list(walk)
    loop = cowshed.guest.Session()
    loop.tree = tree_of({2: (D, [(b"l", 3)]), 3: (L, b"l")})
    assert not (GuestPath(loop) / "l").exists() and (GuestPath(loop) / "l").resolve() == GuestPath(loop) / "l"


def test_threads_take_turns(guest: Guest, figures: Any) -> None:
    """Two read, one writes: every read is of one state."""
    (guest.root / "d").mkdir()
    for name in ("a", "b"):
        (guest.root / "d" / name).write_bytes(b"0" * 50000)
    (guest.root / "still").write_bytes(bytes(range(256)) * 1000)
    failures: list[BaseException] = []
    stop = threading.Event()
    counts = [0, 0]

    def reader(number: int) -> None:
        try:
            while not counts[number] or not stop.is_set():
                assert (guest.root / "still").read_bytes() == bytes(range(256)) * 1000
                data = (guest.root / "d" / "ab"[number]).read_bytes()
                assert len(data) == 50000 and len(set(data)) == 1
                assert {path.name for path in (guest.root / "d").iterdir()} >= {"a", "b"}
                with (guest.root / "still").open("rb") as file:
                    file.seek(256 * (counts[number] % 1000))
                    assert file.read(256) == bytes(range(256))
                counts[number] += 1
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=reader, args=(number,)) for number in range(2)]
    for thread in threads:
        thread.start()
    for turn in range(12):
        for name in ("a", "b"):
            (guest.root / "d" / name).write_bytes(b"%d" % (turn % 10) * 50000)
        (guest.root / "d" / f"n{turn % 3}").touch()
        (guest.root / "d" / f"n{turn % 3}").unlink()
    stop.set()
    for thread in threads:
        thread.join()
    assert not failures and min(counts) > 0
    figures.add("guest paths: reads beside a writer", sum(counts))


def test_devices_mounts_and_chains(image: Path, tmp_path: Path) -> None:
    top = tmp_path / "top.qcow2"
    cowshed.create(str(top), "qcow2", backing=str(image), backing_fmt="raw")
    base = image.read_bytes()
    with cowshed.guest.open(top, write=True) as guest:
        (guest.root / "new").write_text("in the overlay")
        assert guest.mounts == [("/dev/sda", "/")]
        found = guest.filesystems()
        assert [(one.name, one.kind, one.size) for one in found] == [("/dev/sda", "ext4", 8 << 20)] and found[0].uuid
        assert [one.name for one in guest.devices] == ["/dev/sda"]
        guest.umount("/")
        guest.mount("/dev/sda", readonly=True)
        with pytest.raises(OSError):
            (guest.root / "x").touch()
    assert image.read_bytes() == base
    with cowshed.guest.open(top, mounts=()) as guest:
        assert guest.mounts == []
        guest.mount("/dev/sda")
        assert (guest.root / "new").read_text() == "in the overlay"


@pytest.mark.skipif(os.geteuid() != 0, reason="loop devices are root's")
def test_a_block_device(image: Path) -> None:
    losetup = judges.need("losetup")
    done = subprocess.run([losetup, "--find", "--show", image], capture_output=True, text=True)
    if done.returncode:
        judges.absent(f"loop devices ({done.stderr.strip()})")
    device = done.stdout.strip()
    try:
        with cowshed.guest.open(device, write=True) as guest:
            (guest.root / "on a device").write_text("x")
    finally:
        subprocess.run([losetup, "--detach", device], check=True)
    clean(image)
    with cowshed.guest.open(image) as guest:
        assert (guest.root / "on a device").read_text() == "x"


@pytest.fixture(scope="module")
def encrypted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A LUKS2 volume over a whole disk, with ext4 in it."""
    path = tmp_path_factory.mktemp("luks") / "luks.img"
    with path.open("wb") as file:
        file.truncate(32 << 20)
    cheap = ["--pbkdf", "pbkdf2", "--pbkdf-force-iterations", "1000", "--luks2-keyslots-size", "256k"]
    judges.run("cryptsetup", "-q", "luksFormat", *cheap, path, "-", input="open sesame")
    script = "run\ncryptsetup-open /dev/sda x\nopen sesame\nmkfs ext4 /dev/mapper/x\n"
    argv = [sys.executable, "-m", "cowshed", "guestfish", "--keys-from-stdin", "-a", path]
    subprocess.run(argv, input=script, text=True, check=True, capture_output=True)
    return path


def test_encrypted_disks_open_with_their_keys(encrypted: Path, tmp_path: Path) -> None:
    image = shutil.copy(encrypted, tmp_path / "luks.img")
    with cowshed.guest.open(image, write=True, keys="open sesame") as guest:
        (guest.root / "f").write_text("secret text")
        name, uuid = guest.mounts[0][0], guest.devices[0].uuid
        assert name == f"/dev/mapper/luks-{uuid}" and guest.devices[0].kind == "crypto_LUKS"
        assert [device.kind for device in guest.filesystems()] == ["ext4"]
    assert b"secret text" not in image.read_bytes()
    for keys in ({uuid: "open sesame"}, {"/dev/sda": b"open sesame"}, {"all": "open sesame", "/dev/sdb": "x"}):
        with cowshed.guest.open(image, keys=keys) as guest:
            assert (guest.root / "f").read_text() == "secret text"
    with cowshed.guest.open(image, mounts=()) as guest:
        assert guest.unlock("/dev/sda", "open sesame", "name") == "/dev/mapper/name"
        guest.mount("/dev/mapper/name")
        assert (guest.root / "f").exists()
        for device, name in (("/dev/sda", "name"), ("/dev/vda", "other")):
            # two drivers on the same bytes would each write over what the other has changed
            with pytest.raises(GuestError):
                guest.unlock(device, "open sesame", name)
    with pytest.raises(CowshedError) as caught:
        cowshed.guest.open(image, keys="wrong")
    assert caught.value.errno == errno.EPERM
    with pytest.raises(UsageError, match="no file systems"):
        cowshed.guest.open(image)


def test_what_a_system_mounts_and_can_not_be_is_left_out_with_a_warning(tmp_path: Path) -> None:
    source = tmp_path / "source"
    for name, text in {
        "etc/fstab": "/dev/sda1 / ext4 defaults 0 1\n/dev/sda2 /home btrfs defaults 0 0\n",
        "etc/os-release": 'ID=debian\nVERSION_ID="12"\n', "etc/debian_version": "12\n", "home/below": "",
        "bin/sh": "", "boot/x": "", "lib/x": "", "usr/x": "", "root/x": "", "var/lib/dpkg/status": "",
    }.items():  # fmt: skip
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        (source / name).write_text(text)
    disk = tmp_path / "disk.img"
    with disk.open("wb") as file:
        file.truncate(24 << 20)
    judges.run("sfdisk", "-q", disk, input="label: dos\nstart=2048,size=16384,type=83\nstart=20480,type=83\n")
    judges.run("mkfs.ext4", "-q", "-F", "-E", "offset=1048576", "-d", source, disk, "8M")
    # its magic, and nothing behind it
    with disk.open("r+b") as file:
        file.seek((10 << 20) + 65536 + 64)
        file.write(b"_BHRfS_M")
    with pytest.warns(RuntimeWarning, match=r"^/dev/sda2 could not be mounted on /home: ") as told:
        guest = cowshed.guest.open(disk, write=True)
    assert len(told) == 1 and told[0].filename == __file__
    with guest:
        assert guest.mounts == [("/dev/sda1", "/")]
        ((device, path, error),) = guest.skipped
        assert (device, path) == ("/dev/sda2", "/home") and isinstance(error, CowshedError)
        assert [str(one) for one in (guest.root / "home").iterdir()] == ["/home/below"]
    with pytest.raises(CowshedError):
        cowshed.guest.open(disk, mounts=[("/dev/sda1", "/"), ("/dev/sda2", "/home")])
    with pytest.raises(CowshedError):
        cowshed.guest.open(disk, root="/dev/sda2")
    # as guestfish -i has it
    argv = [sys.executable, "-m", "cowshed", "guestfish", "--ro", "-a", disk, "-i", "mountpoints"]
    done = subprocess.run(argv, capture_output=True, text=True, stdin=subprocess.DEVNULL)
    assert (done.returncode, done.stdout) == (0, "/dev/sda1: /\n")
    assert done.stderr.startswith("libguestfs: error: mount_ro: ") and "/home: " in done.stderr
    assert done.stderr.endswith("\nguestfish: some filesystems could not be mounted (ignored)\n")
