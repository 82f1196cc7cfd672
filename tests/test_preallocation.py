"""Preallocation takes long: it tells how far it is, and Ctrl-C leaves what the real tool leaves."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

import judges
from cowshed.ops.create import create
from cowshed.ops.resize import resize
from cowshed.progress import Progress
from differential import Arena
from terminal import until

MIB = 1 << 20

MODES = [("raw", "full"), ("qcow2", "full"), ("qcow2", "metadata"), ("qcow2", "falloc")]


class Listener:
    def __init__(self) -> None:
        self.seen: list[float] = []

    def __call__(self, progress: Progress) -> None:
        self.seen.append(progress.fraction)

    def judge(self, least: int) -> None:
        assert len(self.seen) >= least and len(set(self.seen)) >= least
        assert self.seen == sorted(self.seen)
        assert self.seen[0] == 0.0 and self.seen[-1] == 1.0


@pytest.mark.parametrize(("fmt", "mode"), MODES)
def test_progress(tmp_path: Path, fmt: str, mode: str) -> None:
    options = {"preallocation": mode}
    if fmt == "qcow2":
        options["cluster_size"] = "4k"  # several L2 tables
    listener = Listener()
    create(tmp_path / "x", fmt, options, size="10M", progress=Progress("create", listener))
    listener.judge(5)
    listener = Listener()
    resize(tmp_path / "x", "+8M", fmt=fmt, preallocation=mode, progress=Progress("resize", listener))  # type: ignore[arg-type]
    listener.judge(4)


def test_progress_with_a_data_file(tmp_path: Path) -> None:
    listener = Listener()
    options = {"preallocation": "full", "data_file": str(tmp_path / "data")}
    create(tmp_path / "x", "qcow2", options, size="10M", progress=Progress("create", listener))
    listener.judge(5)


START = """
import sys
from cowshed.cli import main, progress
progress.PATIENCE = progress.EVERY = 0
sys.argv = sys.argv[1:]
main.tool("qemu-img") if sys.argv[0] == "qemu-img" else main.main()
"""


def at_a_terminal(cwd: Path, *argv: str) -> bytes:
    """What a command prints on standard error when that is a terminal."""
    leader, follower = os.openpty()
    process = subprocess.Popen(
        [sys.executable, "-c", START, *argv], cwd=cwd, stdout=subprocess.DEVNULL, stderr=follower
    )
    os.close(follower)
    text = b""
    while True:
        try:
            piece = os.read(leader, 65536)
        except OSError:
            break
        if not piece:
            break
        text += piece
    os.close(leader)
    assert process.wait() == 0, text
    return text


def test_the_bar(tmp_path: Path) -> None:
    create_ = ("create", "-f", "raw", "-o", "preallocation=full", "x", "40M")
    resize_ = ("resize", "-f", "raw", "--preallocation=full", "x", "+40M")
    for argv in (create_, resize_):
        text = at_a_terminal(tmp_path, "cowshed", "qemu-img", *argv)
        assert text.count(b"\r[#") >= 5 and b"40 MiB" in text
        assert text.endswith(b"\r\x1b[K")  # it has gone
        assert at_a_terminal(tmp_path, "cowshed", "qemu-img", argv[0], "-q", *argv[1:]) == b""
        assert at_a_terminal(tmp_path, "qemu-img", *argv) == b""


@pytest.mark.parametrize("fmt", ["raw", "qcow2"])
@pytest.mark.parametrize("command", ["create", "resize"])
def test_interrupted(tmp_path: Path, fmt: str, command: str) -> None:
    """Ctrl-C in the middle of the zeroes: the signal ends the process, and as much is left as with the real tool."""
    arena = Arena(tmp_path)
    states = []
    path = arena.dir / "x"
    for tool in (arena.qemu_img, str(arena.link())):
        for _ in range(20):
            path.unlink(missing_ok=True)
            argv = ["create", "-q", "-f", fmt, "-o", "preallocation=full", "x", "1536M"]
            if command == "resize":
                judges.qemu_img("create", "-q", "-f", fmt, path, "64M")
                judges.qemu_io(path, "write -q -P 7 0 64M", fmt=fmt)
                argv = ["resize", "-q", "-f", fmt, "--preallocation=full", "x", "1600M"]
            process = subprocess.Popen([tool, *argv], cwd=arena.dir, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
            until(lambda: path.exists() and path.stat().st_blocks >= (128 * MIB) >> 9, process)
            process.send_signal(signal.SIGINT)
            out, err = process.communicate(timeout=120)
            # on a busy machine it may be done before this process sees that it has begun
            if process.returncode and path.stat().st_blocks < (1500 * MIB) >> 9:
                break
        else:
            raise AssertionError("it was never in the middle")
        assert process.returncode == -signal.SIGINT, (tool, out, err)
        assert out == err == b""
        state: list[object] = [path.stat().st_size]
        if fmt == "qcow2":
            state = [judges.run("qemu-img", "check", "-f", fmt, path, ok=range(256)).returncode]
        if fmt == "raw" or command == "resize":
            info = judges.qemu_img("info", "-f", fmt, path)
            state += [line for line in info.splitlines() if line.startswith("virtual size")]
        if command == "resize":
            judges.qemu_io(path, "read -q -P 7 0 64M", fmt=fmt)
        states.append(state)
    path.unlink()
    if fmt == "qcow2":
        assert states[1].pop(0) == 0 and states[0].pop(0) in (0, 3)  # the real tool leaks what it had taken
    assert states[1] == states[0]
