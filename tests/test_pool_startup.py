"""What short commands load: start-up is most of what they take."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from libvirtd import Ours

#: of the standard library, beside what a bare interpreter has: C modules that cost next to nothing, and the XML parser
ALLOWED = {
    "__future__", "_blake2", "_struct", "atexit", "errno", "fcntl", "gc", "pyexpat", "pyexpat.errors", "pyexpat.model",
    "struct", "zlib",
}  # fmt: skip

_COURSE = (
    "pool-list", "pool-info p", "vol-create-as p new 1M", "vol-list p", "vol-list p --details", "vol-info v p",
    "vol-path v p", "vol-delete v p", "pool-dumpxml p",
)  # fmt: skip


@pytest.fixture(scope="module")
def ours(tmp_path_factory: pytest.TempPathFactory) -> Ours:
    folder = tmp_path_factory.mktemp("startup")
    side = Ours(folder)
    (folder / "p").mkdir()
    course = f"pool-define-as p dir --target {folder}/p; pool-start p; vol-create-as p v 1M; "
    course += "vol-create-as p q 1M --format qcow2; vol-list p --details"
    assert side.run([course]).code == 0
    return side


@pytest.mark.parametrize("line", _COURSE)
def test_a_short_command_loads_little(ours: Ours, line: str) -> None:
    program = (
        "import os, sys; before = set(sys.modules)\n"
        f"sys.path += {[str(Path(__file__).parent.parent / 'src')]!r}\n"
        "from cowshed.cli.output import Output\n"
        "from cowshed.cli.main import call\n"
        "out = Output('virsh')\n"
        "code = call('virsh', sys.argv, out)\n"
        "out.flush()\n"
        "print(*sorted(set(sys.modules) - before), file=sys.stderr)\n"
        "sys.exit(code)"
    )
    argv = [sys.executable, "-ISXutf8", "-c", program, *ours.command[1:], *line.split()]
    done = subprocess.run(argv, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    loaded = done.stderr.splitlines()[-1].split()
    assert "cowshed.pool.host" in loaded
    assert {name for name in loaded if not name.startswith("cowshed")} <= ALLOWED
    assert len(loaded) < 90
