"""The pack that launchers load modules from: used when it is there, and never instead of what the sources say."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import cowshed


class House:
    """A copy of the package, and launchers that run it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.package = folder / "cowshed"
        ignore = shutil.ignore_patterns("*.pack")
        shutil.copytree(Path(cowshed.__file__).parent, self.package, ignore=ignore)
        self.pack = self.package / "__pycache__" / f"links.{sys.implementation.cache_tag}.pack"
        self.links = folder / "bin"
        self.link()

    def link(self) -> None:
        environment = {**os.environ, "PYTHONPATH": str(self.folder)}
        environment.pop("PYTHONDONTWRITEBYTECODE", None)
        argv = [sys.executable, "-m", "cowshed", "links", str(self.links)]
        subprocess.run(argv, env=environment, cwd=self.folder, check=True, capture_output=True)

    def run(self, *argv: str) -> str:
        done = subprocess.run([self.links / "qemu-img", *argv], capture_output=True, text=True)
        return f"{done.returncode} {done.stdout}{done.stderr}"

    def ask(self, code: str) -> str:
        """What ``code`` prints, run where the launcher would begin with its tool."""
        head, _, _ = (self.links / "qemu-img").read_text().partition("from cowshed.cli.main import tool")
        script = self.folder / "ask"
        script.write_text(head + code)
        done = subprocess.run([sys.executable, "-ISXutf8", script], capture_output=True, text=True)
        assert done.stderr == ""
        return done.stdout.strip()


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> House:
    return House(tmp_path_factory.mktemp("house"))


_WHERE = "import cowshed.errors as e; print(type(e.__loader__).__name__, e.__file__, e.__cached__, e.__spec__.parent)"


def test_it_is_used(house: House) -> None:
    folder = house.package
    cached = folder / "__pycache__" / f"errors.{sys.implementation.cache_tag}.pyc"
    assert house.ask(_WHERE) == f"Pack {folder}/errors.py {cached} cowshed"
    assert house.ask("import cowshed.cli; print(cowshed.cli.__path__, cowshed.cli.__name__)").startswith(f"['{folder}")
    assert house.run("info", "a", "b").startswith("1 qemu-img: Expecting one image file name")
    # the code is what the source compiles to, and is found in tracebacks
    lines = house.ask(
        "import traceback\n"
        "from cowshed.errors import HostCallError\n"
        "try: HostCallError('x', 'y')\n"
        "except TypeError: print(traceback.format_exc())"
    )
    assert "super().__init__(f" in lines and f'File "{folder}/errors.py"' in lines


def test_a_changed_source_counts_at_once(house: House) -> None:
    source = house.package / "errors.py"
    before = source.read_bytes()
    status = source.stat()
    try:
        source.write_bytes(before + b"\nNEW = 1\n")
        assert house.ask("import cowshed.errors as e; print(e.NEW, type(e.__loader__).__name__)") == (
            "1 SourceFileLoader"
        )
        source.unlink()
        assert house.ask("try: import cowshed.errors\nexcept ImportError: print('gone')") == "gone"
    finally:
        source.write_bytes(before)
        os.utime(source, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert house.ask(_WHERE).startswith("Pack ")


def test_it_is_made_anew_when_it_must_be(house: House) -> None:
    first = house.pack.stat()
    house.link()
    assert house.pack.stat().st_ino == first.st_ino
    os.truncate(house.pack, first.st_size - 1)
    house.link()
    assert house.pack.stat().st_ino != first.st_ino and house.ask(_WHERE).startswith("Pack ")
    source = house.package / "units.py"
    before = source.read_bytes()
    source.write_bytes(before + b"\nNEW = 1\n")
    house.link()
    shown = house.ask("import cowshed.units as u; print(u.NEW, type(u.__loader__).__name__)")
    assert shown == "1 Pack"
    source.write_bytes(before)
    house.link()
    assert house.ask(_WHERE).startswith("Pack ")


def test_a_pack_that_is_none(house: House) -> None:
    """Empty, cut off anywhere, of another interpreter, a directory: the tools run without it."""
    whole = house.pack.read_bytes()
    size = int(whole.split()[1])
    try:
        for cut in (0, 1, 20, 32, 33, 32 + size // 2, 32 + size, 32 + size + 100, len(whole) - 1):
            house.pack.write_bytes(whole[:cut])
            assert house.run("info", "a", "b").startswith("1 qemu-img: Expecting one image file name"), cut
        house.pack.write_bytes(b"%d " % (sys.hexversion + 1) + whole.split(b" ", 1)[1])
        assert house.ask(_WHERE).startswith("SourceFileLoader ")
        house.pack.write_bytes(whole[:32] + bytes(len(whole) - 32))
        assert house.ask(_WHERE).startswith("SourceFileLoader ")
        house.pack.unlink()
        assert house.run("info", "a", "b").startswith("1 qemu-img: Expecting one image file name")
        house.pack.mkdir()
        house.link()  # can't write it, and makes the launchers all the same
        assert house.run("info", "a", "b").startswith("1 qemu-img: Expecting one image file name")
        assert [path.name for path in house.pack.parent.glob("*.pack*")] == [house.pack.name]
    finally:
        if house.pack.is_dir():
            house.pack.rmdir()
        house.link()
    assert house.ask(_WHERE).startswith("Pack ")


def test_its_descriptor_may_be_closed_and_given_to_others(house: House) -> None:
    code = (
        "import os\n"
        "os.closerange(3, 64)\n"
        "{0}\n"
        "import cowshed.ops.convert as c\n"
        "print(type(c.__loader__).__name__, bool(c.convert))"
    )
    other = f"[os.open({str(house.package / 'errors.py')!r}, os.O_RDONLY) for _ in range(8)]"
    mine = f"[os.open({str(house.pack)!r}, os.O_RDONLY) for _ in range(8)]"
    assert house.ask(code.format("")) == "SourceFileLoader True"
    assert house.ask(code.format(other)) == "SourceFileLoader True"
    assert house.ask(code.format(mine)) == "Pack True"


def test_closed_streams_are_not_the_pack(house: House) -> None:
    shown = house.folder / "shown"
    script = house.folder / "streams"
    head, _, _ = (house.links / "qemu-img").read_text().partition("from cowshed.cli.main import tool")
    script.write_text(
        f"{head}import os\n"
        "from cowshed.cli.main import _standard_streams\n"
        "_standard_streams()\n"
        f"open({str(shown)!r}, 'w').write(str([os.readlink(f'/proc/self/fd/{{n}}') for n in range(3)]))\n"
    )
    line = f'exec "{sys.executable}" -ISXutf8 "{script}" <&- >&- 2>&-'
    assert subprocess.run(["sh", "-c", line]).returncode == 0
    assert ".pack" not in shown.read_text()
