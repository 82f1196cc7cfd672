"""qemu-img bench: the same announcements and refusals; what it writes is where and what the real tool writes."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest

import judges
from differential import Arena


@pytest.fixture
def arena(tmp_path: Path, figures: Any) -> Arena:
    return Arena(tmp_path, figures).setup(
        lambda folder: (folder / "a.raw").write_bytes(random.Random(4).randbytes(1 << 20)),
        "convert -f raw -O qcow2 a.raw a.qcow2",
    )


def test_reading(arena: Arena) -> None:
    lines = [
        "a.raw",
        "-c 100 -f raw a.raw",
        "-c 100 a.qcow2",
        "-c 0 a.qcow2",
        "-c 3 -s 0 a.qcow2",
        "-c 50 -d 1 -s 512 -S 7k -o 100 a.qcow2",
        "-c 50 -d 3 -s 64k a.qcow2",
        "-c 5 -s 1000 -S 0 a.raw",
        "-c 3 -s 64k -o 1020k a.raw",
        "-c 30 -s 300k a.raw",
        "-c 3 -s 2M a.raw",
        "-c 3 -o 1M a.raw",
        "-c 3 -o 2M a.raw",
        "-c 3 -q a.raw",
        "-c 3 -U a.qcow2",
        "-c 3 -t none a.qcow2",
        "-c 3 -n -t none a.qcow2",
        "-c 3 -i threads a.qcow2",
        "-c 3 --pattern=3 a.qcow2",
        "-c 3 --no-drain a.qcow2",
        "-c 3 --image-opts driver=qcow2,file.filename=a.qcow2",
    ]
    arena.check_all((["bench", *line.split()] for line in lines), mask=["seconds"])


@pytest.mark.parametrize(
    "line",
    [
        "-c 20",
        "-c 20 --pattern=0x55",
        "-c 20 -d 5 --flush-interval=5",
        "-c 23 -d 5 --flush-interval=7 --no-drain",
        "-c 40 -d 1 -s 3000 -S 5000 -o 700 --pattern=200",
        "-c 3 -S 1M --pattern=9 -t none",
        "-c 300 --pattern=17",
        "-c 7 -s 300k --pattern=3",
    ],
)
@pytest.mark.parametrize("fmt", ["raw", "qcow2"])
def test_writing(arena: Arena, fmt: str, line: str) -> None:
    both = arena.run("bench", "-w", "-f", fmt, *line.split(), f"a.{fmt}", changes=True, mask=["seconds"])
    assert not both.difference(), both.difference()
    if both.real.code == 0:
        judges.qemu_img(
            "compare", "-f", fmt, "-F", fmt, both.real.cwd / f"a.{fmt}", both.ours.cwd / f"a.{fmt}"
        )
    if fmt == "qcow2":
        judges.qemu_img("check", both.ours.cwd / "a.qcow2")


def test_mistakes(arena: Arena) -> None:
    lines = [
        "",
        "a.raw a.raw",
        "nofile",
        "-w nofile",
        "-f foo a.raw",
        "-f qcow2 a.raw",
        *(f"-c {text} a.raw" for text in ("-1", "x", "2147483648", "1k")),
        *(f"-d {text} a.raw" for text in ("x", "-2")),
        *(f"-s {text} a.raw" for text in ("x", "4G", "-1")),
        *(f"-S {text} a.raw" for text in ("x", "4G")),
        *(f"-o {text} a.raw" for text in ("x", "8E")),
        "-i foo a.raw",
        "-i native a.raw",
        "-n a.raw",
        "-n nofile",
        "-n --image-opts driver=raw,file.filename=a.raw",
        "-t foo a.raw",
        "--pattern=256 a.raw",
        "--pattern=x a.raw",
        "--flush-interval=5 a.raw",
        "-w --flush-interval=5 a.raw",
        "-w --flush-interval=x a.raw",
        "-w -U -f raw a.raw",
        "--image-opts -f raw a.raw",
        "-z a.raw",
        "-c",
    ]
    arena.check_all((["bench", *line.split()] for line in lines), mask=["seconds"])


def test_what_the_real_tool_does_not_survive(arena: Arena) -> None:
    """No requests at a time, and a disk without any byte: an error instead of a hang and of a crash."""
    (arena.dir / "empty.raw").write_bytes(b"")
    from cowshed.errors import CowshedError
    from cowshed.ops.bench import bench

    with pytest.raises(CowshedError, match="queue depth"):
        bench(arena.dir / "a.raw", depth=0, count=1)
    with pytest.raises(CowshedError, match="Failed request"):
        bench(arena.dir / "empty.raw", count=3)


def test_guessed_raw_is_written_with_care(arena: Arena) -> None:
    arena.check("bench", "-w", "-c", "3", "a.raw", changes=True, mask=["seconds"], code=0)


def test_threads_that_get_no_memory_or_do_not_begin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Requests that nobody sends are not waited for, and fewer threads send them all."""
    import threading

    import cowshed
    from cowshed.ops import bench

    def refuse(*_: object) -> None:
        raise RuntimeError("can't start new thread")

    def poor(size: int) -> bytearray:
        raise MemoryError

    (tmp_path / "a.raw").write_bytes(bytes(1 << 16))
    with cowshed.open(tmp_path / "a.raw", fmt="raw") as node:
        with monkeypatch.context() as patch:
            patch.setattr(bench, "bytearray", poor, raising=False)
            with pytest.raises(MemoryError):
                bench._Run(node, 10, 512, 512, 0, False, 0).go(4, 10)
        monkeypatch.setattr(threading.Thread, "start", refuse)
        run = bench._Run(node, 10, 512, 512, 0, False, 0)
        run.go(4, 10)
        assert not run.left
