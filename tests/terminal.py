"""Programs on a terminal, driven as a person would drive them, and programs disturbed while they work."""

from __future__ import annotations

import os
import pty
import select
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any


def until(condition: Callable[[], object], process: subprocess.Popen[Any] | None = None) -> None:
    """Wait for what will be, however busy the machine is, or until the process has ended."""
    deadline = time.monotonic() + 120
    while not condition() and (process is None or process.poll() is None):
        assert time.monotonic() < deadline
        time.sleep(0.001)


def at_work(process: subprocess.Popen[Any], path: Path) -> bool:
    """Has the process the file open, or one below the directory? An interpreter that starts has not."""
    try:
        files = [os.readlink(f"/proc/{process.pid}/fd/{fd}") for fd in os.listdir(f"/proc/{process.pid}/fd")]
    except FileNotFoundError:  # closed meanwhile, or the process has ended
        return False
    return any(Path(file).is_relative_to(path) for file in files)


def on_terminal(
    argv: list[str], turns: list[tuple[bytes, bytes]], environment: dict[str, str], cwd: Path | None = None
) -> tuple[int, str]:
    """Run a program: wait for each text and answer it. Returns its status and all that it printed.

    A Ctrl-C is pressed once the program has come to rest, and again where it stays silent, as a person would: one that
    arrives while CPython's readline runs Python code or draws the line is noticed at the next key only.
    """
    pid, fd = pty.fork()
    if pid == 0:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        if cwd is not None:
            os.chdir(cwd)
        os.environ.update(environment)
        os.execv(argv[0], argv)
    seen = b""
    waiting, silent, last = 0, 0, b""
    deadline = time.monotonic() + 240
    while time.monotonic() < deadline:
        if turns and (at := seen.find(turns[0][0], waiting)) >= 0:
            if turns[0][1] == b"\x03" and select.select([fd], [], [], 0.3)[0]:
                seen += os.read(fd, 4096)
                continue
            waiting = at + len(turns[0][0])
            last = turns.pop(0)[1]
            os.write(fd, last)
        if not select.select([fd], [], [], 1)[0]:
            silent += 1
            if last == b"\x03" and silent % 5 == 0:
                os.write(fd, last)
            continue
        silent = 0
        try:
            data = os.read(fd, 4096)
        except OSError:
            break
        if not data:
            break
        seen += data
    os.close(fd)
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    assert not turns, (turns, seen)
    return code, seen.decode(errors="replace")
