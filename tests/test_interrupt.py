"""Somebody interferes while work goes on: Ctrl-C, and a source that is cut off by another process."""

from __future__ import annotations

import functools
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import judges
from terminal import at_work, until

#: what Ctrl-C ends: (command line, the images that must show afterwards what they showed)
INTERRUPTED = {
    "convert": ("convert -f raw -O qcow2 -o cluster_size=4k src new", ()),
    "commit": ("commit -f qcow2 top", ("top",)),
    "rebase": ("rebase -f qcow2 -b other -F qcow2 top", ("top",)),
    "create": ("create -f qcow2 -o preallocation=full,cluster_size=4k new 64M", ()),
    "resize": ("resize -f qcow2 --preallocation=full top +64M", ()),
    "snapshot": ("snapshot -c one base", ("base",)),
}


@pytest.fixture
def launcher(tmp_path: Path) -> Path:
    command = [sys.executable, "-m", "cowshed", "links", tmp_path / "bin"]
    subprocess.run(command, check=True, capture_output=True)
    return tmp_path / "bin" / "qemu-img"


@pytest.mark.parametrize("command", INTERRUPTED)
def test_ctrl_c(tmp_path: Path, launcher: Path, command: str) -> None:
    line, steady = INTERRUPTED[command]
    images = tmp_path / "images"
    images.mkdir()
    (images / "src").write_bytes(random.Random(1).randbytes(64 << 20))
    for step in (
        "convert -O qcow2 -o cluster_size=4k src base",
        "create -q -f qcow2 -o cluster_size=4k -b base -F qcow2 top",
        "create -q -f qcow2 -o cluster_size=4k other 64M",
    ):
        judges.run("qemu-img", *step.split(), cwd=images)
    judges.run("qemu-io", "-f", "qcow2", "-c", "write -q -P 5 0 48M", "top", cwd=images)
    rng = random.Random(2)
    took = 0.0
    killed = 0
    for number in range(16):
        if number > 3 and (killed or took < 0.1):
            break
        work = tmp_path / "work"
        shutil.rmtree(work, ignore_errors=True)
        subprocess.run(["cp", "-a", images, work], check=True)
        process = subprocess.Popen([launcher, *line.split()], cwd=work, stdout=subprocess.DEVNULL)
        until(functools.partial(at_work, process, work), process)
        start = time.monotonic()
        if number:
            time.sleep(rng.uniform(0, took))
            process.send_signal(signal.SIGINT)
        code = process.wait(timeout=120)
        if code == 0:
            spent = time.monotonic() - start
            took = min(took or spent, spent)
        killed += code == -signal.SIGINT
        assert code in ((0, -signal.SIGINT) if number else (0,))
        assert set(os.listdir(work)) - set(os.listdir(images)) <= {"new"}
        for path in work.iterdir():
            with path.open("rb") as file:
                if file.read(4) == b"QFI\xfb":
                    judges.run("qemu-img", "check", "-f", "qcow2", path, ok=(0, 3))
                else:
                    assert path.name in ("new", "src")
        for name in steady:
            both = ("compare", "-f", "qcow2", "-F", "qcow2", images / name, work / name)
            judges.run("qemu-img", *both)
    assert killed or took < 0.1


_WHILE_NUMPY_LOADS = """
import os, signal, sys

class Look:
    def find_spec(self, name, path=None, target=None):
        if name == "numpy.core._multiarray_umath" or name == "numpy._core._multiarray_umath":
            os.kill(os.getpid(), signal.SIGINT)
        return None

sys.meta_path.insert(0, Look())
from cowshed.arrays import load_numpy
try:
    load_numpy()
except KeyboardInterrupt:
    import numpy
    print("numpy" in sys.modules, numpy.arange(3).sum(), signal.getsignal(signal.SIGINT) is signal.default_int_handler)
"""


def test_ctrl_c_while_numpy_loads() -> None:
    done = subprocess.run([sys.executable, "-c", _WHILE_NUMPY_LOADS], capture_output=True, text=True)
    assert (done.stdout, done.stderr) == ("True 3 True\n", "")


@pytest.mark.parametrize("fmt", ["raw", "qcow2"])
@pytest.mark.parametrize("more", [(), ("-W",), ("-C",)], ids=lambda more: "".join(more) or "plain")
def test_a_source_that_shrinks(tmp_path: Path, launcher: Path, fmt: str, more: tuple[str, ...]) -> None:
    """What another process cuts off is an error or reads as zeroes; nothing hangs, what was there is copied."""
    content = random.Random(3).randbytes(24 << 20)
    (tmp_path / "plain").write_bytes(content)
    judges.run("qemu-img", "convert", "-f", "raw", "-O", fmt, tmp_path / "plain", tmp_path / "src")
    argv = ["convert", "-r", "8M", *more, "-f", fmt, "-O", "raw", "src", "new"]
    process = subprocess.Popen([launcher, *argv], cwd=tmp_path, stderr=subprocess.PIPE, text=True)
    new = tmp_path / "new"
    until(lambda: new.exists() and new.stat().st_blocks << 9 > 1 << 17, process)
    os.truncate(tmp_path / "src", 1 << 20)
    _, errors = process.communicate(timeout=120)
    assert process.returncode in (0, 1)
    assert "internal error" not in errors and "Traceback" not in errors
    assert bool(errors) == bool(process.returncode)
    copied = new.read_bytes()
    assert len(copied) == len(content)
    shown = len(copied.rstrip(b"\0"))
    assert shown > 1 << 16 and copied[:shown] == content[:shown]
