"""Everything that a reader does with an image, so that bad ones can show what they break.

`exercise(path)` uses an image in every reading way and returns the errors that came out; anything but a CowshedError
escapes. `Prober` does so in a process of its own with bounded memory; run as a program this file is that process.
"""

from __future__ import annotations

import json
import os
import select
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from cowshed.block.graph import open_image
from cowshed.errors import CowshedError
from cowshed.ops.check import check
from cowshed.ops.info import info
from cowshed.ops.map import map_image

#: what is read of a disk, from its beginning and its end
READ = 1 << 20
ENTRIES = 20_000


def exercise(path: str, fmt: str | None = "qcow2") -> dict[str, CowshedError]:
    """Errors by what was tried: "info", "open", "read", "map", "snapshots", "bitmaps", "check"."""
    errors: dict[str, CowshedError] = {}

    def attempt(name: str, job: Any) -> None:
        try:
            job()
        except CowshedError as error:
            errors.setdefault(name, error)

    attempt("info", lambda: info(path, fmt=fmt))
    try:
        node = open_image(path, fmt=fmt)
    except CowshedError as error:
        errors["open"] = error
    else:
        with node:
            attempt("read", lambda: _read(node))
            attempt("map", lambda: _first(map_image(node)))
            attempt("extents", lambda: _first(node.extents()))
            attempt("bitmaps", node.bitmaps)
            attempt("snapshots", lambda: [_view(node, item.id) for item in node.snapshots()[:5]])
    attempt("check", lambda: check(path, fmt=fmt))
    return errors


def disturb(path: str, fmt: str | None = "qcow2") -> dict[str, CowshedError]:
    """Everything that a writer does with an image, as far as it lets him; errors by what was tried."""
    errors: dict[str, CowshedError] = {}
    try:
        node = open_image(path, fmt=fmt, writable=True, resize=True)
    except CowshedError as error:
        return {"open": error}
    jobs: list[tuple[str, Any]] = [
        ("write", lambda: node.write(0, b"\xa5" * min(node.size, 100_000))),
        ("zero", lambda: node.write_zeroes(0, min(node.size, 70_000), unmap=True)),
        ("discard", lambda: node.discard(0, min(node.size, 1 << 17))),
        ("packed", lambda: node.write_compressed(0, bytes(min(node.size, node.cluster_size)))),
        ("flush", lambda: node.flush()),
        ("create", lambda: node.snapshot_create("another")),
        ("end", lambda: node.write(max(0, node.size - 512), b"\xa5" * min(512, node.size))),
        ("apply", lambda: node.snapshot_apply("1")),
        ("delete", lambda: node.snapshot_delete("1")),
        ("grow", lambda: node.resize(min(node.size + (1 << 20), 1 << 40))),
        ("shrink", lambda: node.resize(min(node.size, 1 << 18))),
        ("close", lambda: node.close()),
    ]
    for name, job in jobs:
        try:
            job()
        except CowshedError as error:
            errors[name] = error
    node.read_only = True  # what could not be written out is given up
    try:
        node.close()
    except CowshedError as error:
        errors.setdefault("close", error)
    return errors


def mend(path: str, fmt: str | None = "qcow2") -> dict[str, CowshedError]:
    """Repair; no errors means that the image is sound now."""
    try:
        report = check(path, "all", fmt=fmt)
    except CowshedError as error:
        return {"repair": error}
    if report.verdict != "clean":
        return {"repair": report.result.error or CowshedError(report.verdict)}
    return {}


JOBS = {"read": exercise, "write": disturb, "repair": mend}


def _first(items: Any) -> None:
    for number, _ in enumerate(items):
        if number > ENTRIES:
            return


def _read(node: Any) -> None:
    step = 1 << 16
    for start in (0, max(0, node.size - READ)):
        for offset in range(start, min(node.size, start + READ), step):
            node.read(offset, min(step, node.size - offset))


def _view(node: Any, ref: str) -> None:
    with node.snapshot_view(ref) as view:
        _read(view)
        _first(view.extents())


def told(error: CowshedError) -> dict[str, Any]:
    return {
        "class": type(error).__name__, "text": str(error), "detail": error.detail, "path": error.path,
        "field": error.field, "value": None if error.value is None else str(error.value),
    }  # fmt: skip


class Prober:
    """`exercise` in another process: its address space may grow by ``room`` bytes, an image gets ``limit`` seconds."""

    def __init__(self, room: int = 400 << 20, limit: float = 60) -> None:
        self.room = room
        self.limit = limit
        self.process: subprocess.Popen[bytes] | None = None
        self.worst_seconds = 0.0
        self.worst_bytes = 0

    def __enter__(self) -> Prober:
        return self

    def __exit__(self, *exc: object) -> None:
        self.end()

    def start(self) -> subprocess.Popen[bytes]:
        if self.process is None:
            argv = [sys.executable, os.fspath(Path(__file__)), str(self.room)]
            self.process = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        return self.process

    def end(self) -> int:
        """Kill the process; how it ended. The next image gets another one."""
        process, self.process = self.process, None
        if process is None:
            return 0
        process.kill()
        for pipe in (process.stdin, process.stdout):
            assert pipe is not None
            pipe.close()
        return process.wait()

    def ask(self, path: Path, fmt: str | None = "qcow2", job: str = "read") -> dict[str, Any]:
        """The errors of a job (see JOBS), as `told`, by what was tried.

        A traceback, too much memory or too much time fails the test.
        """
        process = self.start()
        assert process.stdin is not None and process.stdout is not None
        process.stdin.write(json.dumps([job, os.fspath(path), fmt]).encode() + b"\n")
        process.stdin.flush()
        start = time.monotonic()
        if not select.select([process.stdout], [], [], self.limit)[0]:
            self.end()
            raise AssertionError(f"still busy after {self.limit} s")
        line = process.stdout.readline()
        if not line:
            raise AssertionError(f"the reading process died: {self.end()}")
        answer: dict[str, Any] = json.loads(line)
        assert "traceback" not in answer, answer["traceback"]
        self.worst_seconds = max(self.worst_seconds, time.monotonic() - start)
        self.worst_bytes = max(self.worst_bytes, answer["bytes"])
        errors: dict[str, Any] = answer["errors"]
        return errors


def serve(room: int) -> None:
    import resource
    import traceback

    with open("/proc/self/statm") as file:
        size = int(file.read().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (size + room, size + room))
    begin = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for line in sys.stdin:
        job, path, fmt = json.loads(line)
        try:
            answer: dict[str, Any] = {"errors": {name: told(error) for name, error in JOBS[job](path, fmt).items()}}
        except BaseException:
            answer = {"traceback": traceback.format_exc()}
        answer["bytes"] = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - begin) << 10
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    serve(int(sys.argv[1]))
