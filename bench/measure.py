"""One run of a command, measured: wall clock, CPU and peak memory of it and of nothing else."""

from __future__ import annotations

import os
import statistics
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Run:
    """Seconds of wall clock and of CPU (user + system), peak resident set in bytes, exit code."""

    wall: float
    cpu: float
    rss: int
    code: int


class Failed(Exception):
    """A measured command did not end as it should have."""


def run(argv: Sequence[str], output: Path, expect: Sequence[int] = (0,)) -> Run:
    """Run ARGV with its output going to the file OUTPUT. Raises Failed on an exit code not in EXPECT.

    wait4 gives the child's own times. Its peak memory there starts at its parent's, so that is taken from /proc
    while it runs.
    """
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC
    actions = [
        (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
        (os.POSIX_SPAWN_OPEN, 1, str(output), flags, 0o644),
        (os.POSIX_SPAWN_DUP2, 1, 2),
    ]
    start = time.perf_counter()
    pid = os.posix_spawn(argv[0], list(argv), os.environ, file_actions=actions)
    watch = _Watch(pid)
    _, status, usage = os.wait4(pid, 0)
    wall = time.perf_counter() - start
    peak = watch.end()
    code = os.waitstatus_to_exitcode(status)
    if code not in expect:
        tail = output.read_text(errors="replace")[-2000:]
        raise Failed(f"exit {code} from {' '.join(argv)}\n{tail}")
    return Run(wall, usage.ru_utime + usage.ru_stime, peak or usage.ru_maxrss * 1024, code)


class _Watch(threading.Thread):
    """Reads a process's high-water mark every 10 ms; the last one counts, since the mark starts anew with exec."""

    def __init__(self, pid: int) -> None:
        super().__init__(daemon=True)
        self.path = f"/proc/{pid}/status"
        self.peak = 0
        self.over = threading.Event()
        self.start()

    def run(self) -> None:
        while not self.over.wait(0.01):
            try:
                text = Path(self.path).read_text()
            except OSError:
                return
            for line in text.splitlines():
                if line.startswith("VmHWM:"):
                    self.peak = int(line.split()[1]) * 1024

    def end(self) -> int:
        self.over.set()
        self.join()
        return self.peak


def median(runs: Sequence[Run], what: str) -> float:
    return float(statistics.median(getattr(one, what) for one in runs))


def ratio(ours: Sequence[Run], theirs: Sequence[Run], what: str) -> float:
    """The median over the pairs that ran one after the other: load that comes and goes hits both."""
    pairs = zip(ours, theirs, strict=True)
    return float(statistics.median(getattr(a, what) / max(getattr(b, what), 1e-9) for a, b in pairs))
