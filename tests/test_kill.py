"""kill -9 at any moment: the real command, and a process that writes. Part of the torture."""

from __future__ import annotations

import random
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

import judges
from crash import Expected
from test_crash import MIB, QCOW2, Format, Scene

#: processes killed for one command
KILLS = 60

#: what the real command is killed at: (command line, images whose disks must show what they showed)
KILLED = {
    "convert": (("convert", "-f", "qcow2", "-O", "qcow2", "-o", "cluster_size=4k", "x", "new"), ("x",)),
    "convert -c": (("convert", "-c", "-f", "qcow2", "-O", "qcow2", "x", "new"), ("x",)),
    "commit": (("commit", "-f", "qcow2", "x"), ("x",)),
    "rebase": (("rebase", "-f", "qcow2", "-b", "other", "-F", "qcow2", "x"), ("x",)),
    "snapshot create": (("snapshot", "-c", "three", "x"), ("x",)),
    "snapshot delete": (("snapshot", "-d", "one", "x"), ("x",)),
    "amend": (("amend", "-f", "qcow2", "-o", "refcount_bits=64", "x"), ("x",)),
    "resize": (("resize", "-f", "qcow2", "x", "+500G"), ()),
    "check -r": (("check", "-f", "qcow2", "-r", "all", "x"), ("x",)),
}


def shown(folder: Path, name: str) -> bytes:
    """What the real tool reads."""
    raw = folder / "shown.raw"
    judges.qemu_img("convert", "-f", "qcow2", "-O", "raw", folder / name, raw)
    content = raw.read_bytes()
    raw.unlink()
    return content


@pytest.mark.torture
@pytest.mark.parametrize("command", KILLED)
def test_kill(command: str, figures: Any) -> None:
    """The real command dies at any moment: the images are sound, and show what they showed."""
    argv, steady = KILLED[command]
    form = Format("qcow2", "cluster_size=4k", 48 * MIB, *QCOW2)
    scene = Scene(form, 1)
    folder, work = scene.folder, scene.folder / "work"
    rng = random.Random()
    try:
        subprocess.run([sys.executable, "-m", "cowshed", "links", folder / "bin"], check=True, capture_output=True)
        scene.image("base")
        scene.image("other")
        scene.image("x", backing=None if command.startswith(("snapshot", "amend")) else "base", fill=0.4)
        if command.startswith("snapshot"):
            snapshot_two(scene)
        images = [path for path in folder.iterdir() if path.is_file()]
        before = {name: shown(folder, name) for name in steady}
        took = 0.0
        killed = 0
        for number in range(KILLS):
            shutil.rmtree(work, ignore_errors=True)
            work.mkdir()
            for path in images:
                shutil.copy(path, work)
            start = time.monotonic()
            process = subprocess.Popen([folder / "bin" / "qemu-img", *argv], cwd=work, stdout=subprocess.DEVNULL)
            if number:
                time.sleep(rng.uniform(0.03, took))
                process.kill()
            code = process.wait()
            took = max(took, time.monotonic() - start)
            assert code == (-9 if code else 0) if number else code == 0
            killed += code == -9
            for path in work.iterdir():
                if path.name == "new" and path.read_bytes()[:4] != b"QFI\xfb":
                    continue  # the command did not come as far as making an image
                judges.run("qemu-img", "check", "-f", "qcow2", path, ok=(0, 3))
            for name in steady:
                assert shown(work, name) == before[name], f"{name} after {command} was killed"
        figures.add("crash torture: commands killed", killed)
        assert killed
    finally:
        shutil.rmtree(folder)


def snapshot_two(scene: Scene) -> None:
    """Two snapshots, with writes between them."""
    from cowshed.ops.snapshot import snapshot_create

    for name in ("one", "two"):
        snapshot_create(scene.path("x"), name, fmt=scene.form.driver)
        with scene.open("x") as node:
            for _ in range(200):
                offset, length = scene.span(node)
                node.write(offset, scene.rng.randbytes(length))


WRITER = """
import random, sys
from cowshed.block.graph import open_image
rng = random.Random(int(sys.argv[2]))
node = open_image(sys.argv[1], writable=True)
print("open", flush=True)
while True:
    for _ in range(rng.randrange(1, 9)):
        offset = rng.randrange(node.size // 512) * 512
        length = min(rng.choice((512, 4096, 65536, 300000)), node.size - offset)
        seed = rng.getrandbits(31)
        print("write", offset, length, seed, flush=True)
        node.write(offset, random.Random(seed).randbytes(length))
    node.flush()
    print("flush", flush=True)
"""


@pytest.mark.torture
@pytest.mark.parametrize("options", ["cluster_size=4k", "cluster_size=512", "extended_l2=on", "lazy_refcounts=on"])
def test_kill_a_writer(options: str, figures: Any) -> None:
    """A writing process dies: every write that was flushed, and every sector before it, is there."""
    form = Format("qcow2", options, 8 * MIB, *QCOW2)
    scene = Scene(form, 2)
    rng = random.Random()
    try:
        content = bytearray(scene.image("x"))
        for _ in range(KILLS):
            seed = rng.getrandbits(31)
            argv = [sys.executable, "-c", WRITER, scene.path("x"), str(seed)]
            process = subprocess.Popen(argv, stdout=subprocess.PIPE, text=True)
            assert process.stdout is not None and process.stdout.readline() == "open\n"
            time.sleep(rng.uniform(0, 0.3))
            process.kill()
            writes: list[tuple[int, bytes]] = []
            flushed = 0
            for line in process.stdout:
                if line.startswith("write ") and line.endswith("\n"):
                    offset, length, number = map(int, line.split()[1:])
                    writes.append((offset, random.Random(number).randbytes(length)))
                elif line == "flush\n":
                    flushed = len(writes)
            process.wait()
            for offset, data in writes[:flushed]:
                content[offset : offset + len(data)] = data
            path = scene.folder / "x"
            with open(path, "rb") as file:
                dirty = file.read(80)[79] & 1
            if dirty:
                judges.run("qemu-io", "-f", "qcow2", "-c", "flush", path)
            judges.run("qemu-img", "check", "-f", "qcow2", path, ok=(0, 3))
            found = shown(scene.folder, "x")
            fault = Expected(bytes(content), writes[flushed:], [], [], {}).fault(found)
            assert fault is None, fault
            content = bytearray(found)
            figures.add("crash torture: writers killed")
    finally:
        shutil.rmtree(scene.folder)
