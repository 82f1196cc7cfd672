"""Bad input from one end to the other: one clear error, exit status 1, and the pool and its directory as they were."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import judges
from libvirtd import Ours, Outcome

MIB = 1 << 20
ROOT = os.geteuid() == 0


def snapshot(*folders: Path) -> dict[str, tuple[object, ...]]:
    """Every entry with what it holds. Locks and logs of our own are no state: an empty lock's file says nothing."""
    found: dict[str, tuple[object, ...]] = {}
    for folder in folders:
        for path in sorted(folder.rglob("*")):
            if "run/libvirt/storage/cowshed" in str(path) and path.parent.name != "jobs":
                continue
            status = path.lstat()
            kind = stat.S_IFMT(status.st_mode)
            body: object = None
            if stat.S_ISREG(kind):
                body = path.read_bytes()
            elif stat.S_ISLNK(kind):
                body = os.readlink(path)
            found[str(path)] = (status.st_mode, status.st_uid, status.st_gid, status.st_nlink, body)
    return found


class Yard:
    """A pool ``p`` with a few volumes, judged after every command."""

    def __init__(self, folder: Path) -> None:
        self.ours = Ours(folder)
        self.folder = folder
        self.target = folder / "p"
        self.outside = folder / "outside"
        self.outside.mkdir()
        (self.outside / "precious").write_bytes(b"precious" * 1000)
        for argv in (
            ["pool-define-as", "p", "dir", "--target", str(self.target)],
            ["pool-build", "p"],
            ["pool-start", "p"],
            ["vol-create-as", "p", "raw", "64k"],
            ["vol-create-as", "p", "qcow", "1M", "--format", "qcow2"],
            ["vol-create-as", "p", "over", "1M", "--format", "qcow2", "--backing-vol", "qcow",
             "--backing-vol-format", "qcow2"],
        ):  # fmt: skip
            done = self.ours.run(argv)
            assert done.code == 0, done.text()
        (self.target / "raw").write_bytes(b"raw data" * 8192)
        (self.target / "out").symlink_to(self.outside / "precious")
        (self.target / "up").symlink_to("../outside/precious")
        (self.target / "dangling").symlink_to(self.outside / "missing")
        (folder / "source").write_bytes(b"evil" * 64)

    def file(self, text: str | bytes, name: str = "doc.xml") -> str:
        path = self.folder / name
        path.write_bytes(text if isinstance(text, bytes) else text.encode("utf-8", "surrogateescape"))
        return str(path)

    def run(self, *argv: str, **options: Any) -> Outcome:
        return self.ours.run(argv, **options)

    def refuses(self, *argv: str, says: str = "", **options: Any) -> str:
        """The one error of a refused command, after which everything is as it was."""
        before = snapshot(self.target, self.outside, self.ours.root)
        done = self.run(*argv, **options)
        shown = " ".join(argv)[:200]
        assert done.code == 1, f"{shown}\n{done.text()[:2000]}"
        assert "Traceback" not in done.stderr + done.stdout, done.stderr[-3000:]
        # what failed, and why: libvirt's two lines
        errors = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
        assert 1 <= len(errors) <= 2 and not done.stdout.strip(), f"{shown}\n{done.text()[:2000]}"
        assert len(done.stderr) < 10_000 + 4 * sum(map(len, argv))
        assert ".part" not in done.stderr or ".part" in shown
        assert says in done.stderr, f"{shown}\n{done.stderr[:2000]}"
        after = snapshot(self.target, self.outside, self.ours.root)
        assert after == before, {
            key: (before.get(key), after.get(key)) for key in {*before, *after} if before.get(key) != after.get(key)
        }
        return done.stderr


@pytest.fixture(scope="module")
def yard(tmp_path_factory: pytest.TempPathFactory) -> Yard:
    return Yard(tmp_path_factory.mktemp("yard"))


# -- names -----------------------------------------------------------------------------------------------------------

NAMES = {
    "slash": "a/b",
    "absolute": "/etc/passwd",
    "up": "..",
    "up and down": "../outside/new",
    "here": ".",
    "newline": "a\nb",
    "carriage return": "a\rb",
    "tab": "a\tb",
    "escape": "a\x1bb",
    "300 bytes": "n" * 300,
    "300 bytes of UTF-8": "ü" * 150,
    "100 KB": "n" * 100_000,
    "not UTF-8": "a\udcffb",
    "ours": ".cowshed-a-b-c-d.part",
    "empty": "",
}


@pytest.mark.parametrize("name", NAMES)
def test_names_of_volumes(yard: Yard, name: str) -> None:
    text = NAMES[name]
    yard.refuses("vol-create-as", "p", text, "1M")
    yard.refuses("vol-create-as", "p", text, "1M", "--format", "qcow2")
    yard.refuses("vol-clone", "raw", text, "p")
    if text:
        for verb in ("vol-delete", "vol-wipe"):
            yard.refuses(verb, text, "p")
        yard.refuses("vol-upload", text, str(yard.folder / "source"), "p")


def test_a_leading_dash_is_a_name(yard: Yard) -> None:
    yard.refuses("vol-create-as", "p", "--rf", "1M")
    done = yard.run("vol-create-as", "p", "--name", "-rf", "1M")
    assert done.code == 0, done.text()
    assert yard.run("vol-delete", "--vol", "-rf", "--pool", "p").code == 0
    assert not (yard.target / "-rf").exists()


@pytest.mark.parametrize("name", [name for name in NAMES if name not in ("here", "up", "ours", "not UTF-8", "tab")])
def test_names_of_pools(yard: Yard, name: str) -> None:
    text = NAMES[name]
    if name in ("carriage return", "escape"):
        pytest.skip("libvirt takes it from an option")
    for verb in ("pool-define-as", "pool-create-as"):
        yard.refuses(verb, text, "dir", "--target", str(yard.folder / "q"))
    assert not (yard.folder / "q").exists()


@pytest.mark.parametrize("name", ["..", ".", "-x", "a\tb", "autostart", "cowshed", "driver.pid"])
def test_odd_names_of_pools_that_are_names(tmp_path: Path, name: str) -> None:
    """What libvirt takes is a pool like any other, and goes without a trace."""
    ours = Ours(tmp_path)
    (tmp_path / "p").mkdir()
    before = sorted(path.name for path in tmp_path.iterdir())
    option = ["--pool", name]
    for argv in (
        ["pool-define-as", "--name", name, "dir", "--target", str(tmp_path / "p")], ["pool-start", *option],
        ["pool-autostart", *option], ["vol-create-as", *option, "v", "1M"], ["vol-list", *option, "--details"],
        ["pool-refresh", *option], ["vol-delete", "v", *option], ["pool-destroy", *option], ["pool-undefine", *option],
    ):  # fmt: skip
        done = ours.run(argv)
        assert done.code == 0, done.text()
    assert sorted(path.name for path in tmp_path.iterdir()) == before and os.listdir(tmp_path / "p") == []
    left = [
        str(path.relative_to(tmp_path)) for path in (tmp_path / "root").rglob("*")
        if not path.is_dir() and path.name not in ("events", "boot") and not path.name.endswith("s.lock")
    ]  # fmt: skip
    assert left == []


# -- documents -------------------------------------------------------------------------------------------------------

_BOMB = "".join(f"<!ENTITY {chr(98 + n)} '{f'&{chr(97 + n)};' * 10}'>" for n in range(20))


def documents(root: str) -> dict[str, str | bytes]:
    """Hostile ones; ``root`` is the name of the document's element."""
    return {
        "entity bomb": f"<!DOCTYPE x [<!ENTITY a 'aaaaaaaaaa'>{_BOMB}]><{root}><name>&u;</name></{root}>",
        "external entity": f"<!DOCTYPE x [<!ENTITY a SYSTEM 'file:///etc/passwd'>]><{root}><name>&a;</name></{root}>",
        "external subset": f"<!DOCTYPE x SYSTEM 'file:///etc/passwd'><{root}/>",
        "depth": f"<{root}>" + "<a>" * 300_000,
        "closed depth": f"<{root}><name>x</name>" + "<a>" * 100_000 + "</a>" * 100_000 + f"</{root}>",
        "100 MB": f"<{root}><name>".encode() + b"a" * (100 * MIB) + f"</name></{root}>".encode(),
        "NUL": f"<{root}><name>a\0b</name></{root}>",
        "NUL by number": f"<{root}><name>a&#0;b</name></{root}>",
        "no UTF-8": b"<" + root.encode() + b"><name>\xff\xfe</name></" + root.encode() + b">",
        "UTF-16 without a word": f"<{root}/>".encode("utf-16-le"),
        "another root": "<domain><name>x</name></domain>",
        "nothing": "",
        "no end": f"<{root}><name>x",
        "image": b"QFI\xfb" + bytes(4096),
    }


COMMANDS = {
    "pool-define": ("pool", ["pool-define", "{}"]),
    "pool-create": ("pool", ["pool-create", "{}", "--build"]),
    "vol-create": ("volume", ["vol-create", "p", "{}"]),
    "vol-create-from": ("volume", ["vol-create-from", "p", "{}", "raw"]),
    "secret-define": ("secret", ["secret-define", "{}"]),
    "find-storage-pool-sources": ("source", ["find-storage-pool-sources", "netfs", "{}"]),
}


@pytest.mark.parametrize("command", COMMANDS)
def test_hostile_documents(yard: Yard, command: str) -> None:
    root, argv = COMMANDS[command]
    for text in documents(root).values():
        path = yard.file(text)
        said = yard.refuses(*(word.format(path) for word in argv))
        assert "root:" not in said
    for path in ("/dev/null", "/nonexistent", "/", str(yard.target), "/proc/self/mem", "/dev/zero"):
        yard.refuses(*(word.format(path) for word in argv))
    if not command.startswith("find"):
        yard.refuses(*(word.format(yard.file(documents(root)["entity bomb"])) for word in argv), "--validate")


# -- sizes -----------------------------------------------------------------------------------------------------------

SIZES = ("18446744073709551616", "17E", "9223372036854775808", "-5M", "1.5G", "1Q", " ", "0x", "9" * 5000)


@pytest.mark.parametrize("size", SIZES, ids=lambda size: size[:20])
def test_sizes_that_overflow(yard: Yard, size: str) -> None:
    for fmt in ("raw", "qcow2"):
        yard.refuses("vol-create-as", "p", "new", "--capacity", size, "--format", fmt)
    yard.refuses("vol-create-as", "p", "new", "1M", "--allocation", size)
    for volume in ("raw", "qcow"):
        yard.refuses("vol-resize", volume, "--capacity", size, "p")
    yard.refuses("vol-resize", "raw", "--capacity", size, "p", "--allocate")
    if not size.startswith("-"):
        yard.refuses("vol-resize", "qcow", "--capacity", size, "p", "--delta")


def test_numbers_that_overflow(yard: Yard) -> None:
    source = str(yard.folder / "source")
    for number in ("18446744073709551616", "9223372036854775807", "99999999999999999999999", "-1", "x", ""):
        for resize in ([], ["--resize"]):
            if number:
                yard.refuses("vol-upload", "raw", source, "p", "--offset", number, *resize)
    for number in ("18446744073709551616", "x", "1K"):
        yard.refuses("vol-upload", "raw", source, "p", "--length", number)
        yard.refuses("vol-download", "raw", str(yard.folder / "copy"), "p", "--offset", number)
        yard.refuses("vol-download", "raw", str(yard.folder / "copy"), "p", "--length", number)
        assert not (yard.folder / "copy").exists()
    yard.refuses("vol-upload", "raw", source, "p", "--length", "10")  # there is more


@pytest.mark.parametrize("element", [
    "<capacity>18446744073709551616</capacity>", "<capacity unit='E'>99</capacity>", "<capacity>-1</capacity>",
    "<capacity unit='parsec'>1</capacity>", "<capacity/>", "<capacity>1 2</capacity>",
    "<capacity>9223372036854775807</capacity><target><format type='qcow2'/></target>",
    "<capacity>1</capacity><allocation unit='YiB'>1</allocation>", "<capacity>1</capacity><allocation>-9</allocation>",
    "<capacity>1</capacity><target><permissions><mode>99999999999999</mode></permissions></target>",
    "<capacity>1</capacity><target><permissions><owner>99999999999</owner></permissions></target>",
    "<capacity>1</capacity><target><permissions><group>-99</group></permissions></target>",
    "<capacity>1M</capacity>",
    "<capacity>1048576</capacity><target><format type='qcow2'/><clusterSize unit='b'>3</clusterSize></target>",
    "<capacity>1048576</capacity><target><format type='qcow2'/><clusterSize unit='E'>15</clusterSize></target>",
    "<capacity>1048576</capacity><target><format type='qcow2'/><compat>9</compat></target>",
    "<capacity>1</capacity><backingStore><path>/nonexistent</path></backingStore>"
    "<target><format type='qcow2'/></target>",
    "<capacity>1</capacity><backingStore><path>new</path></backingStore><target><format type='qcow2'/></target>",
    "<capacity>1</capacity><backingStore><path>{target}/new</path></backingStore>"
    "<target><format type='qcow2'/></target>",
    "<capacity>1</capacity><backingStore><path>qcow</path><format type='nonsense'/></backingStore>"
    "<target><format type='qcow2'/></target>",
])  # fmt: skip
def test_elements_that_overflow(yard: Yard, element: str) -> None:
    text = f"<volume><name>new</name>{element.format(target=yard.target)}</volume>"
    yard.refuses("vol-create", "p", yard.file(text))


@pytest.mark.parametrize("element", [
    "<permissions><mode>77777</mode></permissions>", "<permissions><mode>9</mode></permissions>",
    "<permissions><owner>99999999999</owner></permissions>", "<permissions><group>x</group></permissions>",
])  # fmt: skip
def test_pools_with_numbers_that_overflow(yard: Yard, element: str) -> None:
    text = f"<pool type='dir'><name>q</name><target><path>{yard.folder}/q</path>{element}</target></pool>"
    yard.refuses("pool-define", yard.file(text))
    yard.refuses("pool-create", yard.file(text), "--build")
    assert not (yard.folder / "q").exists()


# -- links and targets -----------------------------------------------------------------------------------------------


def test_links_out_of_the_pool(yard: Yard) -> None:
    source = str(yard.folder / "source")
    for name in ("out", "up"):
        yard.refuses("vol-upload", name, source, "p", says="leads out of its pool")
        yard.refuses("vol-wipe", name, "p", says="leads out of its pool")
        yard.refuses("vol-resize", name, "1M", "p", says="leads out of its pool")
    for name in ("out", "up", "dangling"):
        yard.refuses("vol-create-as", "p", name, "1M")
        yard.refuses("vol-clone", "raw", name, "p")
        yard.refuses("vol-create", "p", yard.file(f"<volume><name>{name}</name><capacity>1</capacity></volume>"))


def test_targets_that_are_no_directories(tmp_path: Path) -> None:
    yard = Yard(tmp_path)
    (tmp_path / "file").write_bytes(b"precious")
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / "broken").symlink_to("nowhere")
    os.mkfifo(tmp_path / "fifo")
    for name in ("file", "loop", "broken", "fifo", "file/below", "nothing"):
        yard.refuses("pool-create-as", "q", "dir", "--target", str(tmp_path / name))
        if name != "nothing":
            yard.refuses("pool-create-as", "q", "dir", "--target", str(tmp_path / name), "--build")
    assert (tmp_path / "file").read_bytes() == b"precious" and not (tmp_path / "nowhere").exists()
    # while it runs its directory is taken away, and another thing put there
    (tmp_path / "p").rename(tmp_path / "elsewhere")
    for what in ("nothing", "file"):
        if what == "file":
            (tmp_path / "p").write_bytes(b"precious")
        elsewhere = snapshot(tmp_path / "elsewhere")
        for argv in (["vol-create-as", "p", "new", "1M"], ["vol-delete", "raw", "p"], ["vol-list", "p"]):
            yard.refuses(*argv)
        assert snapshot(tmp_path / "elsewhere") == elsewhere
    assert (tmp_path / "p").read_bytes() == b"precious"


# -- no room, no right -----------------------------------------------------------------------------------------------

_FULL = """
set -e
mkdir -p "$1/small"
mount -t tmpfs -o size=3M none "$1/small"
exec "$2" "$3" "$1"
"""

_FULL_TARGET = """
import os, subprocess, sys
from pathlib import Path
folder = Path(sys.argv[1])
command = [str(folder / "bin/virsh"), "-c", f"cowshed:///?root={folder}/root"]
def run(*argv):
    return subprocess.run([*command, *argv], capture_output=True, text=True)
def good(*argv):
    done = run(*argv)
    assert done.returncode == 0, (argv, done.stdout, done.stderr)
def facts():
    found = {}
    for path in sorted((folder / "small").rglob("*")):
        if path.is_file() and path.name != "fill" and "/storage/cowshed/" not in str(path):
            found[str(path)] = (path.read_bytes(), path.stat().st_mode)
    jobs = folder / "root/run/libvirt/storage/cowshed/jobs"
    return found, sorted(os.listdir(jobs)) if jobs.exists() else []
def full(*argv):
    before = facts()
    done = run(*argv)
    said = done.stderr
    assert done.returncode == 1 and "Traceback" not in said, (argv, done.stdout, said)
    assert "No space left on device" in said or "Not enough space" in said, (argv, said)
    assert ".cowshed-" not in said.replace("/.cowshed-state", ""), said
    assert 1 <= len([line for line in said.splitlines() if line.startswith("error: ")]) <= 2, said
    assert facts() == before, argv
"""

_TARGET = (
    _FULL_TARGET
    + """
good("pool-define-as", "p", "dir", "--target", str(folder / "small"))
good("pool-start", "p")
good("pool-define-as", "big", "dir", "--target", str(folder / "big"))
good("pool-build", "big"); good("pool-start", "big")
good("vol-create-as", "big", "origin", "8M")
(folder / "big/origin").write_bytes(os.urandom(8 << 20))
good("vol-create-as", "p", "sparse", "8M", "--allocation", "0")
good("vol-create-as", "p", "image", "8M", "--format", "qcow2")
volume = "<volume><name>copy</name><capacity>1</capacity><target><format type='{}'/></target></volume>"
for fmt in ("raw", "qcow2", "vmdk"):
    (folder / f"{fmt}.xml").write_text(volume.format(fmt))
full("vol-create-as", "p", "new", "8M")
full("vol-create-as", "p", "new", "400M", "--format", "qcow2", "--prealloc-metadata", "--allocation", "400M")
for fmt in ("raw", "qcow2", "vmdk"):
    full("vol-create-from", "p", str(folder / f"{fmt}.xml"), "origin", "--inputpool", "big")
full("vol-resize", "sparse", "9M", "p", "--allocate")
full("vol-resize", "sparse", "9M", "p", "--allocate")
target = folder / "small/copy"
full("vol-download", "origin", str(target), "big")
assert not target.exists()
# an upload begins to write before it is known that there is no room: the volume keeps its size
size = (folder / "small/sparse").stat().st_size
done = run("vol-upload", "sparse", str(folder / "big/origin"), "p")
assert done.returncode == 1 and "No space left on device" in done.stderr and "Traceback" not in done.stderr, done.stderr
assert (folder / "small/sparse").stat().st_size == size
good("vol-wipe", "sparse", "p")
good("vol-delete", "sparse", "p")
# not a byte is left
with open(folder / "small/fill", "wb", buffering=0) as file:
    try:
        while True:
            file.write(bytes(4096))
    except OSError:
        pass
full("vol-create-as", "p", "new", "4k")
full("vol-create-as", "p", "new", "1M", "--format", "qcow2")
full("vol-clone", "image", "copy", "p")
assert sorted(os.listdir(folder / "small")) == ["fill", "image"]
good("vol-delete", "image", "p")
"""
)

_STATE = (
    _FULL_TARGET
    + """
good("pool-define-as", "p", "dir", "--target", str(folder / "p"))
good("pool-build", "p")
good("pool-define-as", "q", "dir", "--target", str(folder / "q"))
good("pool-build", "q"); good("pool-start", "q")
good("vol-create-as", "q", "v", "1M")
with open(folder / "small/fill", "wb", buffering=0) as file:
    try:
        while True:
            file.write(bytes(4096))
    except OSError:
        pass
volumes = os.listdir(folder / "q")
for argv in (
    ["pool-define-as", "new", "dir", "--target", str(folder / "new")],
    ["pool-create-as", "new", "dir", "--target", str(folder / "new"), "--build"],
    ["pool-start", "p"],
    ["vol-create-as", "q", "new", "1M"],
    ["vol-clone", "v", "new", "q"],
    ["vol-delete", "v", "q"],
    ["vol-wipe", "v", "q"],
    ["vol-resize", "v", "2M", "q"],
):
    full(*argv)
    assert os.listdir(folder / "q") == volumes
    assert run("pool-list", "--all", "--name").stdout.split() == ["p", "q"]
    assert run("pool-list", "--name").stdout.split() == ["q"]
(folder / "small/fill").unlink()
good("pool-start", "p"); good("vol-delete", "v", "q")
"""
)


@pytest.mark.skipif(not ROOT, reason="mounting needs root")
@pytest.mark.parametrize("part", ["target", "state"])
def test_full(tmp_path: Path, part: str) -> None:
    """A full file system: below the pool, or below configuration and state."""
    Ours(tmp_path)
    if part == "state":
        (tmp_path / "root").rmdir()
        (tmp_path / "root").symlink_to("small/state")
    program = tmp_path / "program.py"
    program.write_text(
        _TARGET if part == "target" else "import os, sys\nos.mkdir(sys.argv[1] + '/small/state')\n" + _STATE
    )
    done = subprocess.run(
        [judges.need("unshare"), "-m", "sh", "-c", _FULL, "sh", str(tmp_path), sys.executable, str(program)],
        capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr


_READ_ONLY = """
set -e
mount --bind "$1" "$1"
mount -o remount,ro,bind "$1"
shift
exec "$@"
"""


@pytest.mark.skipif(not ROOT, reason="mounting needs root")
@pytest.mark.parametrize("part", ["target", "state"])
def test_read_only_file_systems(tmp_path: Path, part: str) -> None:
    yard = Yard(tmp_path)
    place = yard.target if part == "target" else yard.ours.root
    command = yard.ours.command
    yard.ours.command = [judges.need("unshare"), "-m", "sh", "-c", _READ_ONLY, "sh", str(place), *command]
    source = str(tmp_path / "source")
    for argv in (
        ["vol-create-as", "p", "new", "1M"], ["vol-create-as", "p", "new", "1M", "--format", "qcow2"],
        ["vol-clone", "raw", "new", "p"], ["vol-delete", "raw", "p"], ["vol-wipe", "raw", "p"],
        ["vol-upload", "raw", source, "p"], ["vol-resize", "raw", "1M", "p"], ["vol-resize", "qcow", "2M", "p"],
    ):  # fmt: skip
        yard.refuses(*argv, says="Read-only file system")
    if part == "state":
        for argv in (
            ["pool-define-as", "q", "dir", "--target", str(tmp_path / "q")], ["pool-destroy", "p"],
            ["pool-autostart", "p"], ["pool-create-as", "q", "dir", "--target", str(tmp_path), "--build"],
        ):  # fmt: skip
            yard.refuses(*argv, says="Read-only file system")
    # who only looks is not bothered
    for argv in (["pool-list", "--all"], ["vol-list", "p"], ["vol-info", "qcow", "p"], ["pool-dumpxml", "p"]):
        done = yard.run(*argv)
        assert done.code == 0 and not done.stderr, done.text()
    done = yard.run("vol-download", "raw", str(tmp_path / "copy"), "p")
    assert done.code == 0 and (tmp_path / "copy").read_bytes() == b"raw data" * 8192, done.text()


@pytest.mark.skipif(not ROOT, reason="becoming somebody else needs root")
def test_somebody_else(tmp_path: Path) -> None:
    """Without the right to write, by a user who may read it all."""
    yard = Yard(tmp_path)
    for path in (tmp_path, *tmp_path.parents):
        if path.stat().st_mode & 0o055 != 0o055 and str(path) != "/":
            path.chmod(path.stat().st_mode | 0o055)
    for path in tmp_path.rglob("*"):
        if not path.is_symlink():
            path.chmod(path.stat().st_mode | (0o055 if path.is_dir() else 0o044))
    become = "import os, sys; os.setgroups([]); os.setgid(65534); os.setuid(65534); os.execv(sys.argv[1], sys.argv[1:])"
    yard.ours.command = [sys.executable, "-c", become, *yard.ours.command]
    if yard.run("pool-list").code:
        pytest.skip("the interpreter is not for everybody here")
    source = str(tmp_path / "source")
    for argv in (
        ["vol-create-as", "p", "new", "1M"], ["vol-clone", "raw", "new", "p"], ["vol-delete", "raw", "p"],
        ["vol-wipe", "raw", "p"], ["vol-upload", "raw", source, "p"], ["vol-resize", "raw", "1M", "p"],
        ["pool-destroy", "p"], ["pool-define-as", "q", "dir", "--target", str(tmp_path / "q")],
    ):  # fmt: skip
        yard.refuses(*argv, says="Permission denied")


@pytest.mark.skipif(not ROOT, reason="making files immutable needs root")
def test_immutable_files(tmp_path: Path) -> None:
    yard = Yard(tmp_path)
    paths = [str(yard.target / "raw"), str(yard.target / "qcow")]
    if subprocess.run(["chattr", "+i", *paths], capture_output=True).returncode:
        pytest.skip("no immutable files on this file system")
    try:
        for argv in (
            ["vol-delete", "raw", "p"], ["vol-wipe", "raw", "p"], ["vol-resize", "raw", "1M", "p"],
            ["vol-resize", "qcow", "2M", "p"], ["vol-upload", "raw", str(tmp_path / "source"), "p"],
        ):  # fmt: skip
            yard.refuses(*argv, says="Operation not permitted")
    finally:
        subprocess.run(["chattr", "-i", *paths], check=True)
