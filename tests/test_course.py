"""The commands of a virtualisation course, as they are taught, in one session: after each, both tools said the same.

The session runs twice: once going on with the images that the real tool made, and once with ours. So each tool works
on what the other left, all the way.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path

import pytest

import cowshed
import judges
from differential import Arena
from verbs import arena, check_of, guest_of, lines

__all__ = ["arena"]  # a fixture

MASKS = ["disk size", "date", "date json"]

SESSION = """
create -f qcow2 -o ?
create -f qcow2 -o help
create -f raw -o ?
create -f qcow2 -o size=10G disk.qcow2
info disk.qcow2
info --output=json disk.qcow2
check disk.qcow2
create -f raw disk.raw 10G
info disk.raw
create -f qcow2 -o backing_file=base.raw over.qcow2
create -f qcow2 -o backing_file=base.raw,backing_fmt=raw over.qcow2
create -f qcow2 -b base.raw -F raw second.qcow2
create -f qcow2 -o backing_file=over.qcow2,backing_fmt=qcow2 top.qcow2
info over.qcow2
info --backing-chain top.qcow2
info --backing-chain --output=json top.qcow2
map top.qcow2
map --output=json top.qcow2
convert -O qcow2 base.raw copy.qcow2
convert -f raw -O qcow2 base.raw copy.qcow2
convert -f qcow2 -O raw copy.qcow2 copy.raw
convert -f qcow2 -O vmdk copy.qcow2 copy.vmdk
convert -c -f qcow2 -O qcow2 copy.qcow2 small.qcow2
compare base.raw copy.qcow2
compare copy.raw copy.qcow2
compare base.raw disk.qcow2
resize disk.qcow2 +5G
info disk.qcow2
resize disk.qcow2 12G
resize --shrink disk.qcow2 12G
resize disk.qcow2 -2G
resize --shrink disk.qcow2 -2G
resize -f raw disk.raw +5G
info disk.qcow2
snapshot -c first disk.qcow2
snapshot -c second disk.qcow2
snapshot -l disk.qcow2
info disk.qcow2
snapshot -a first disk.qcow2
snapshot -d first disk.qcow2
snapshot -d first disk.qcow2
snapshot -l disk.qcow2
check disk.qcow2
commit over.qcow2
rebase -b base.raw top.qcow2
rebase -b base.raw -F raw top.qcow2
info --backing-chain top.qcow2
commit top.qcow2
map top.qcow2
rebase -u -b moved.raw -F raw second.qcow2
info second.qcow2
info --backing-chain second.qcow2
rebase -u -b base.raw -F raw second.qcow2
info --backing-chain second.qcow2
check over.qcow2
check top.qcow2
measure -O qcow2 base.raw
measure --size 10G -O qcow2
"""


def prepare(folder: Path) -> None:
    """A raw base with data between holes."""
    with open(folder / "base.raw", "wb") as file:
        file.truncate(64 << 20)
        for index in range(8):
            file.seek(index * (7 << 20))
            file.write(hashlib.sha256(bytes([index])).digest() * (20 << 10))


@pytest.mark.parametrize("goes_on", ["real", "ours"])
def test_session(arena: Arena, goes_on: str) -> None:
    arena.setup(prepare)
    written = {
        # what a guest would write meanwhile
        "create -f qcow2 -o backing_file=over.qcow2,backing_fmt=qcow2 top.qcow2": [
            ("over.qcow2", "write -P 11 1M 300k"), ("top.qcow2", "write -P 12 2M 1M"),
            ("second.qcow2", "write -P 13 5M 1M"),
        ],
        "snapshot -c first disk.qcow2": [("disk.qcow2", "write -P 14 0 1M")],
        "info --backing-chain top.qcow2": [("top.qcow2", "write -P 15 20M 64k")],
    }  # fmt: skip
    for line, argv in zip(SESSION.strip().splitlines(), lines(SESSION), strict=True):
        both = arena.run(*argv, changes=True, mask=MASKS)
        assert not both.difference(), both.difference()
        for name, command in written.get(line, ()):
            for outcome in (both.real, both.ours):
                judges.qemu_io(outcome.cwd / name, command, fmt="qcow2")
        kept, other = (both.real, both.ours) if goes_on == "real" else (both.ours, both.real)
        before, arena.dir = arena.dir, kept.cwd
        for gone in (before, other.cwd):
            shutil.rmtree(gone)
    for name in ("disk.qcow2", "over.qcow2", "top.qcow2", "second.qcow2", "copy.qcow2", "small.qcow2"):
        assert check_of(arena.dir, name)[0] == 0, name


def test_preallocation_modes(arena: Arena) -> None:
    """The four modes, and how much space each takes: ours no more than a few blocks beside the real tool's."""
    for size, modes in (("10G", ("off", "metadata")), ("300M", ("off", "metadata", "falloc", "full"))):
        for mode in modes:
            argv = ["create", "-f", "qcow2", "-o", f"preallocation={mode}", f"{mode}.qcow2", size]
            both = arena.run(*argv, changes=True)
            assert not both.difference(), both.difference()
            facts = []
            for outcome in (both.real, both.ours):
                text = judges.qemu_img("info", "--output=json", outcome.cwd / f"{mode}.qcow2")
                facts.append(json.loads(text))
                assert check_of(outcome.cwd, f"{mode}.qcow2")[0] == 0
            real, ours = facts
            assert real["virtual-size"] == ours["virtual-size"]
            assert abs(real["actual-size"] - ours["actual-size"]) <= 256 << 10, (mode, size, real, ours)
            real_file, ours_file = (outcome.cwd / f"{mode}.qcow2" for outcome in (both.real, both.ours))
            assert abs(real_file.stat().st_size - ours_file.stat().st_size) <= 256 << 10, (mode, size)
            arena.forget(both)
    for mode in ("off", "falloc", "full"):
        argv = ["create", "-f", "raw", "-o", f"preallocation={mode}", f"{mode}.raw", "300M"]
        both = arena.run(*argv, changes=True)
        assert not both.difference(), both.difference()
        real_stat, ours_stat = ((outcome.cwd / f"{mode}.raw").stat() for outcome in (both.real, both.ours))
        assert real_stat.st_size == ours_stat.st_size
        assert abs(real_stat.st_blocks - ours_stat.st_blocks) * 512 <= 64 << 10
        arena.forget(both)


def test_a_base_and_its_overlays(arena: Arena) -> None:
    """A read-only base with two overlays: what one writes, neither the base nor the other shows."""
    arena.setup(prepare)
    base = arena.dir / "base.raw"
    digest = hashlib.sha256(base.read_bytes()).digest()
    base.chmod(0o444)
    for name in ("one", "two"):
        arena.check("create", "-f", "qcow2", "-b", "base.raw", "-F", "raw", f"{name}.qcow2", changes=True)
        arena.setup(f"create -q -f qcow2 -b base.raw -F raw {name}.qcow2")
    with cowshed.open(str(arena.dir / "one.qcow2"), writable=True) as disk:
        disk.write(1 << 20, b"\x77" * (1 << 20))
    assert hashlib.sha256(base.read_bytes()).digest() == digest
    assert hashlib.sha256(guest_of(arena.dir, "two.qcow2")).digest() == digest
    one = bytearray(base.read_bytes())
    one[1 << 20 : 2 << 20] = b"\x77" * (1 << 20)
    assert guest_of(arena.dir, "one.qcow2") == one
