"""One file by two names, and targets that are no files: what is there already is never destroyed unasked."""

from __future__ import annotations

import json
import os
import shlex
import socket
import struct
from pathlib import Path
from typing import Any

import pytest

import judges
from differential import Arena

SETUP = [
    "create -q -f raw a.raw 3M",
    "qemu-io -f raw -c 'write -q -P 7 0 1M' a.raw",
    "create -q -f qcow2 b.qcow2 3M",
    "qemu-io -f qcow2 -c 'write -q -P 8 64k 1M' b.qcow2",
    "create -q -f qcow2 -b b.qcow2 -F qcow2 top.qcow2",
    "qemu-io -f qcow2 -c 'write -q -P 9 0 128k' top.qcow2",
    "create -q -f qcow2 -b b.qcow2 -F qcow2 long.qcow2 6M",
    "qemu-io -f qcow2 -c 'write -q -P 10 4M 1M' long.qcow2",
    "create -q -f qcow2 -b b.qcow2 -F qcow2 short.qcow2 1M",
    "create -q -f raw small.raw 1M",
    "create -q -f raw bigger.raw 5M",
    "qemu-io -f raw -c 'write -q -P 11 2M 3M' bigger.raw",
    "create -q -f qcow2 snap.qcow2 3M",
    "qemu-io -f qcow2 -c 'write -q -P 12 0 1M' snap.qcow2",
    "snapshot -c s1 snap.qcow2",
    "resize -q snap.qcow2 4M",
    "snapshot -c s2 snap.qcow2",
]


#: what `disks` lists though it has no bytes
FILELESS = {"dangling", "dir", "fifo", "sock"}


def names(folder: Path) -> None:
    os.link(folder / "a.raw", folder / "hard")
    os.symlink("a.raw", folder / "soft")
    os.link(folder / "b.qcow2", folder / "hard.qcow2")
    os.symlink("b.qcow2", folder / "soft.qcow2")
    os.symlink("nowhere", folder / "dangling")
    os.mkdir(folder / "dir")
    os.mkfifo(folder / "fifo")


COMMANDS = """
convert -f raw -O raw a.raw a.raw
convert -f raw -O raw a.raw hard
convert -f raw -O raw a.raw soft
convert -f raw -O raw a.raw ./a.raw
convert -f raw -O raw a.raw file:a.raw
convert -f raw -O qcow2 a.raw hard
convert -n -f raw -O raw a.raw hard
convert -n -f raw -O raw a.raw soft
convert -U -f raw -O raw a.raw hard
convert -n -U -f raw -O raw a.raw hard
convert -f raw -O raw 'json:{"driver":"raw","file":{"driver":"file","filename":"a.raw"}}' hard
convert -f qcow2 -O qcow2 b.qcow2 soft.qcow2
convert -f qcow2 -O raw top.qcow2 b.qcow2
convert -f qcow2 -O raw top.qcow2 hard.qcow2
convert -f qcow2 -O qcow2 top.qcow2 soft.qcow2
convert -n -f qcow2 -O qcow2 top.qcow2 soft.qcow2
convert -n -f qcow2 -O qcow2 b.qcow2 top.qcow2
convert -f qcow2 -O qcow2 b.qcow2 top.qcow2
convert -f raw -O raw a.raw b.qcow2 a.raw
convert -f raw -O raw a.raw dir
convert -f raw -O raw a.raw fifo
convert -f raw -O raw a.raw sock
convert -f raw -O raw a.raw dangling
convert -f raw -O raw a.raw dir/
convert -f raw -O raw a.raw none/x
convert -f raw -O raw a.raw ''
convert -n -f raw -O raw a.raw dir
convert -n -f raw -O raw a.raw fifo
convert -n -f raw -O raw a.raw sock
convert -n -f raw -O raw a.raw dangling
convert -f raw -O raw dir x
convert -f raw -O raw sock x
convert -n --target-is-zero -f raw -O raw small.raw a.raw
convert -n --target-is-zero -f raw -O qcow2 small.raw b.qcow2
convert -f qcow2 -O qcow2 -B b.qcow2 -F qcow2 top.qcow2 x
convert -f qcow2 -O qcow2 -B b.qcow2 -F qcow2 long.qcow2 x
convert -f qcow2 -O qcow2 -B b.qcow2 -F qcow2 short.qcow2 x
convert -f qcow2 -O qcow2 -B small.raw -F raw top.qcow2 x
convert -f qcow2 -O qcow2 -B bigger.raw -F raw top.qcow2 x
convert -f qcow2 -O qcow2 -B b.qcow2 -F qcow2 b.qcow2 x
convert -f qcow2 -O qcow2 -B x -F qcow2 top.qcow2 x
convert -f qcow2 -O qcow2 -B b.qcow2 -F qcow2 top.qcow2 b.qcow2
convert -f qcow2 -O qcow2 -B hard.qcow2 -F qcow2 top.qcow2 b.qcow2
convert -f qcow2 -n -O qcow2 -B b.qcow2 -F qcow2 top.qcow2 long.qcow2
convert -l s1 -f qcow2 -O raw snap.qcow2 x
convert -l s2 -f qcow2 -O raw snap.qcow2 x
convert -l s1 -f qcow2 -O raw snap.qcow2 snap.qcow2 x
convert -l s1 -f qcow2 -O raw snap.qcow2 snap.qcow2
convert -l nope -f qcow2 -O raw snap.qcow2 x
convert -l s1 -f raw -O raw a.raw x
convert -f qcow2 -O qcow2 snap.qcow2 b.qcow2 x
commit -f qcow2 top.qcow2
commit -f qcow2 long.qcow2
commit -f qcow2 short.qcow2
commit -f qcow2 -d long.qcow2
commit -f qcow2 -b b.qcow2 long.qcow2
commit -f qcow2 -b hard.qcow2 long.qcow2
commit -f qcow2 -b soft.qcow2 long.qcow2
commit -f qcow2 -b top.qcow2 top.qcow2
commit -f qcow2 -b a.raw top.qcow2
rebase -f qcow2 -b a.raw -F raw top.qcow2
rebase -f qcow2 -b small.raw -F raw top.qcow2
rebase -f qcow2 -b bigger.raw -F raw top.qcow2
rebase -f qcow2 -b small.raw -F raw long.qcow2
rebase -f qcow2 -b bigger.raw -F raw long.qcow2
rebase -f qcow2 -b bigger.raw -F raw short.qcow2
rebase -f qcow2 -b small.raw -F raw short.qcow2
rebase -f qcow2 -b '' long.qcow2
rebase -f qcow2 -b '' short.qcow2
rebase -f qcow2 -b top.qcow2 -F qcow2 top.qcow2
rebase -u -f qcow2 -b top.qcow2 -F qcow2 top.qcow2
rebase -f qcow2 -b hard.qcow2 -F qcow2 top.qcow2
rebase -f qcow2 -b hard.qcow2 -F qcow2 b.qcow2
rebase -u -f qcow2 -b hard.qcow2 -F qcow2 b.qcow2
create -f qcow2 -b b.qcow2 -F qcow2 b.qcow2
create -f qcow2 -b hard.qcow2 -F qcow2 b.qcow2
create -f qcow2 -b ./b.qcow2 -F qcow2 b.qcow2
create -f qcow2 -o data_file=x x 1M
create -f qcow2 -o data_file=a.raw hard 1M
create -f qcow2 -o data_file=a.raw,data_file_raw=on x 3M
create -f raw dir 1M
create -f raw fifo 1M
create -f raw sock 1M
create -f qcow2 sock 1M
create -f raw dangling 1M
create -f qcow2 '' 1M
dd -f raw -O raw if=a.raw of=a.raw
dd -f raw -O raw if=a.raw of=hard bs=1M
dd -f raw -O raw if=a.raw of=soft count=1
dd -f raw -O qcow2 if=a.raw of=hard
dd -f qcow2 -O raw if=top.qcow2 of=b.qcow2 bs=1M
dd -f raw -O raw if=a.raw of=dir
dd -f raw -O raw if=a.raw of=fifo
compare a.raw hard
compare -f qcow2 -F qcow2 b.qcow2 soft.qcow2
compare dir a.raw
bitmap --merge b -b hard.qcow2 -F qcow2 b.qcow2 c
measure -O qcow2 -f qcow2 -l s1 snap.qcow2
"""


def sockets(folder: Path) -> None:
    here = os.getcwd()
    os.chdir(folder)
    try:
        with socket.socket(socket.AF_UNIX) as one:
            one.bind("sock")
    finally:
        os.chdir(here)


def backing(path: Path) -> bytes:
    """The backing file's name in a qcow2 header."""
    with path.open("rb") as file:
        _, _, at, length = struct.unpack(">IIQI", file.read(20))
        file.seek(at)
        return file.read(length)


def disks(folder: Path, other: Path) -> dict[str, object]:
    """What every image shows that is not the same in OTHER, as the real tool reads it; a raw file's bytes."""
    found: dict[str, object] = {}
    for path in sorted(folder.iterdir()):
        twin = other / path.name
        if path.is_file() and twin.is_file() and path.read_bytes() == twin.read_bytes():
            continue
        if not path.is_file():
            found[path.name] = path.lstat().st_mode
            continue
        head = path.read_bytes()[:4]
        if head != b"QFI\xfb":
            found[path.name] = path.read_bytes().rstrip(b"\0"), path.stat().st_size
            continue
        out = folder.parent / "disk.tmp"
        # without the backing file: some of these commands make an image its own
        alone = "json:" + json.dumps(
            {"driver": "qcow2", "backing": None, "file": {"driver": "file", "filename": str(path)}}
        )
        done = judges.run("qemu-img", "convert", alone, "-O", "raw", out, ok=(0, 1))
        check = judges.run("qemu-img", "check", alone, ok=range(256)).returncode
        found[path.name] = (out.read_bytes() if not done.returncode else None), backing(path), check
        out.unlink(missing_ok=True)
    return found


#: Here the real tool destroys what it reads. Ours says so, and every file is as it was.
REFUSED = {
    "dd -f raw -O raw if=a.raw of=a.raw": "'a.raw' is part of the input and would be destroyed",
    "dd -f raw -O raw if=a.raw of=hard bs=1M": "'hard' is part of the input and would be destroyed",
    "dd -f raw -O raw if=a.raw of=soft count=1": "'soft' is part of the input and would be destroyed",
    "dd -f raw -O qcow2 if=a.raw of=hard": "'hard' is part of the input and would be destroyed",
    "dd -f qcow2 -O raw if=top.qcow2 of=b.qcow2 bs=1M": "'b.qcow2' is part of the input and would be destroyed",
    "create -f qcow2 -o data_file=a.raw hard 1M": 'hard: Failed to get shared "resize" lock\n'
    "Is another process using the image [a.raw]?",
    "create -f qcow2 -o data_file=x x 1M": 'x: Failed to get shared "resize" lock\n'
    "Is another process using the image [x]?",
}


@pytest.mark.parametrize("verb", ["convert", "commit", "rebase", "create", "dd", "others"])
def test_nothing_is_lost(tmp_path: Path, figures: Any, verb: str) -> None:
    arena = Arena(tmp_path, figures).setup(*SETUP, names, sockets)
    differences = []
    for line in COMMANDS.splitlines():
        argv = shlex.split(line)
        mine = argv and (argv[0] == verb or (verb == "others" and argv[0] in ("compare", "bitmap", "measure")))
        if not mine:
            continue
        # a process can be stopped when it waits for the other end of a pipe
        both = arena.run(*argv, changes=True, link="fifo" in line)
        if line in REFUSED:
            assert (both.ours.code, both.ours.stderr) == (1, f"qemu-img: {REFUSED[line]}\n"), line
            assert both.difference() or disks(both.real.cwd, both.ours.cwd), f"no longer different: {line}"
            assert not disks(both.ours.cwd, arena.dir).keys() - FILELESS, line
            assert sorted(os.listdir(both.ours.cwd)) == sorted(os.listdir(arena.dir)), line
            arena.forget(both)
            continue
        difference = both.difference()
        real, ours = disks(both.real.cwd, both.ours.cwd), disks(both.ours.cwd, both.real.cwd)
        for name in sorted(real.keys() | ours.keys()):
            if real.get(name) != ours.get(name):
                sizes = [None if item is None else str(item)[-30:] for item in (real.get(name), ours.get(name))]
                difference += f"\n{name} differs: {sizes}"
        if difference:
            differences.append(f"[{line}]\n{difference}")
        arena.forget(both)
    assert not differences, f"{len(differences)} differ\n\n" + "\n\n".join(differences)


def test_zeroes_over_a_backing_file(tmp_path: Path, figures: Any) -> None:
    """--target-is-zero is no licence to let a backing file show through; the real tool does."""
    arena = Arena(tmp_path, figures).setup(*SETUP)
    line = "convert -n --target-is-zero -f raw -O qcow2 small.raw top.qcow2"
    both = arena.run(*shlex.split(line), changes=True)
    assert not both.difference() and both.ours.code == 0
    raw = tmp_path / "shown"
    judges.run("qemu-img", "convert", "-f", "qcow2", "-O", "raw", both.ours.cwd / "top.qcow2", raw)
    assert raw.read_bytes() == bytes(1 << 20) + bytes([8]) * (64 << 10) + bytes((2 << 20) - (64 << 10))
    judges.run("qemu-img", "check", "-f", "qcow2", both.ours.cwd / "top.qcow2")
