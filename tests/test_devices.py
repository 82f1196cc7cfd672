"""Images on block devices, beside the real tool: the same words, the same status, the same bytes on the device."""

from __future__ import annotations

import os
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import judges
from differential import Arena, Both, Outcome
from layouts import content
from loops import loop_device

MIB = 1 << 20
SIZE = 8 * MIB


class Bench:
    """Two devices, ``dev`` (8 MiB) and ``small`` (1 MiB), and what was on them before each trial."""

    def __init__(self, dev: Path, small: Path, folder: Path) -> None:
        self.devices = (dev, small)
        self.folder = folder
        self.names = {"dev": str(dev), "small": str(small)}

    def fill(self, *contents: bytes) -> None:
        for device, data in zip(self.devices, contents, strict=True):
            with open(device, "r+b") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())

    def now(self) -> list[bytes]:
        return [device.read_bytes() for device in self.devices]


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    folder = tmp_path_factory.mktemp("devices")
    with loop_device(folder / "dev.img", SIZE) as dev, loop_device(folder / "small.img", MIB) as small:
        made = folder / "made"
        made.mkdir()
        data = bytearray(content(1, SIZE))
        data[2 * MIB : 3 * MIB] = bytes(MIB)
        (made / "full.raw").write_bytes(data)
        (made / "half.raw").write_bytes(data[: SIZE // 2])
        (made / "odd.raw").write_bytes(data[: 2 * MIB + 700])
        with open(made / "sparse.raw", "wb") as file:
            file.seek(MIB)
            file.write(data[:MIB])
            file.truncate(SIZE)
        for name in ("full", "half", "sparse"):
            judges.qemu_img("convert", "-f", "raw", "-O", "qcow2", made / f"{name}.raw", made / f"{name}.qcow2")
        yield Bench(dev, small, made)


# what is on the devices before: a name -> how it gets there
def _dirt(bench: Bench) -> list[bytes]:
    return [content(50, SIZE), content(51, MIB)]


def _qcow2(bench: Bench) -> list[bytes]:
    """A qcow2 image in the middle of its life on both devices."""
    found = []
    for size, room, name in (("4M", SIZE, "a"), ("2M", MIB, "b")):
        path = bench.folder / f"{name}.tmp"
        judges.qemu_img("create", "-q", "-f", "qcow2", path, size)
        judges.qemu_io(path, "write -q -P 5 64k 300k", fmt="qcow2")
        judges.qemu_img("snapshot", "-c", "old", path)
        judges.qemu_io(path, "write -q -P 6 100k 64k", "write -q -z 1M 64k", fmt="qcow2")
        found.append(path.read_bytes().ljust(room, b"\xfe"))
        path.unlink()
    return found


def _leaky(bench: Bench) -> list[bytes]:
    found = [bytearray(item) for item in _qcow2(bench)]
    for data in found:
        table = int.from_bytes(data[48:56], "big")
        block = int.from_bytes(data[table : table + 8], "big")
        data[block + 2 * 15 : block + 2 * 16] = b"\0\1"  # a cluster that nobody refers to
    return [bytes(data) for data in found]


def _zeroes(bench: Bench) -> list[bytes]:
    return [bytes(SIZE), bytes(MIB)]


STATES = {"dirt": _dirt, "qcow2": _qcow2, "leaky": _leaky, "zeroes": _zeroes}

#: (state, command line); {dev} and {small} are the devices; files of the directory have no path
CREATE = """
dirt: create -f raw {dev} 4M
dirt: create -f raw {dev} 8M
dirt: create -f raw {dev} 9M
dirt: create -f raw {dev} 1G
dirt: create -f raw -o preallocation=full {dev} 4M
dirt: create -f raw -o preallocation=falloc {dev} 4M
dirt: create -f raw -o preallocation=off {dev} 4M
dirt: create -f raw -o nocow=on {dev} 4M
dirt: create -f qcow2 {dev} 4M
dirt: create -f qcow2 {dev} 1T
dirt: create -f qcow2 -o preallocation=metadata {dev} 4M
dirt: create -f qcow2 -o preallocation=metadata {dev} 64M
dirt: create -f qcow2 -o preallocation=falloc {dev} 4M
dirt: create -f qcow2 -o preallocation=full {dev} 4M
dirt: create -f qcow2 -o preallocation=full {dev} 64M
dirt: create -f qcow2 -o cluster_size=2M {small} 4M
dirt: create -f qcow2 -o cluster_size=512k {small} 4M
dirt: create -f qcow2 -o extended_l2=on {dev} 4M
dirt: create -f qcow2 -b half.qcow2 -F qcow2 {dev}
dirt: create -f qcow2 -o data_file={small} {dev} 1M
dirt: create -f vmdk {dev} 4M
dirt: create -f vmdk {small} 1T
dirt: create -f raw /dev/null 4M
dirt: create -f raw host_device:{dev} 4M
dirt: create -f raw file:{dev} 4M
dirt: create -f host_device {dev} 4M
dirt: create -f file {dev} 4M
dirt: create -q -f raw /dev/mapper/there-is-none 1M
"""

CONVERT = """
dirt: convert -f raw -O raw full.raw {dev}
dirt: convert -n -f raw -O raw full.raw {dev}
dirt: convert -f raw -O raw half.raw {dev}
dirt: convert -n -f raw -O raw half.raw {dev}
dirt: convert -f raw -O raw odd.raw {dev}
dirt: convert -n -f raw -O raw odd.raw {dev}
dirt: convert -f raw -O raw sparse.raw {dev}
dirt: convert -n -f raw -O raw sparse.raw {dev}
dirt: convert -n -S 0 -f raw -O raw sparse.raw {dev}
dirt: convert -S 0 -f raw -O raw sparse.raw {dev}
dirt: convert -S 64k -f raw -O raw full.raw {dev}
zeroes: convert -n --target-is-zero -f raw -O raw sparse.raw {dev}
dirt: convert -n --target-is-zero -f raw -O raw sparse.raw {dev}
dirt: convert -C -f raw -O raw full.raw {dev}
dirt: convert -n -C -f raw -O raw sparse.raw {dev}
dirt: convert -n -W -m 4 -f raw -O raw full.raw {dev}
dirt: convert -n -t none -f raw -O raw full.raw {dev}
dirt: convert -n -t none -f raw -O raw odd.raw {dev}
dirt: convert -t none -T none -f raw -O raw sparse.raw {dev}
dirt: convert -t directsync -f raw -O raw half.raw {dev}
dirt: convert -f qcow2 -O raw sparse.qcow2 {dev}
dirt: convert -n -f qcow2 -O raw sparse.qcow2 {dev}
dirt: convert -f raw -O raw full.raw {small}
dirt: convert -n -f raw -O raw full.raw {small}
dirt: convert -p -n -f raw -O raw full.raw {dev}
dirt: convert -f raw -O raw half.raw half.raw {dev}
dirt: convert -f raw -O raw full.raw full.raw {dev}
dirt: convert -f raw -O raw -o preallocation=full half.raw {dev}
dirt: convert -f raw -O raw -o preallocation=falloc half.raw {dev}
dirt: convert -f raw -O raw -o preallocation=off half.raw {dev}
dirt: convert -f raw -O qcow2 half.raw {dev}
dirt: convert -f raw -O qcow2 full.raw {dev}
dirt: convert -f raw -O qcow2 full.raw {small}
dirt: convert -f raw -O qcow2 sparse.raw {dev}
dirt: convert -f raw -O qcow2 -o preallocation=metadata sparse.raw {dev}
dirt: convert -f raw -O qcow2 -o preallocation=full half.raw {dev}
dirt: convert -c -f raw -O qcow2 sparse.raw {dev}
dirt: convert -c -f raw -O qcow2 full.raw {small}
dirt: convert -W -f raw -O qcow2 half.raw {dev}
dirt: convert -C -f raw -O qcow2 half.raw {dev}
dirt: convert -f raw -O qcow2 -o extended_l2=on sparse.raw {dev}
dirt: convert -f raw -O qcow2 -o cluster_size=4k sparse.raw {dev}
dirt: convert -f raw -O vmdk half.raw {dev}
dirt: convert -O vmdk sparse.raw -f raw {small}
dirt: convert -f raw -O file half.raw out
dirt: convert -f raw -O file {small} out
qcow2: convert -n -f raw -O qcow2 half.raw {dev}
qcow2: convert -n -f raw -O qcow2 full.raw {dev}
qcow2: convert -n -f raw -O raw full.raw {dev}
qcow2: convert -f qcow2 -O raw {dev} out
qcow2: convert -f raw -O raw {dev} out
qcow2: convert {dev} out
qcow2: convert -l old {dev} out
qcow2: convert -f qcow2 -O raw {dev} {small}
qcow2: convert -f qcow2 -O qcow2 {dev} {dev}
dirt: convert -f raw -O raw {dev} {dev}
dirt: convert -n -f raw -O raw {dev} {dev}
dirt: convert -n -f raw -O raw {small} {dev}
dirt: convert -f raw -O raw {small} {dev}
dirt: convert -T none -f raw -O raw {dev} out
dirt: convert -C -f raw -O raw {dev} out
dirt: convert -f host_device -O raw {small} out
dirt: convert -f file -O raw {small} out
dirt: convert -f host_device -O host_device {small} {dev}
dirt: convert -f raw -O raw /dev/null out
dirt: convert -f raw -O raw half.raw /dev/null
dirt: convert -n -f raw -O raw half.raw /dev/null
dirt: convert -n -f raw -O raw /dev/zero {dev}
dirt: dd -f raw -O raw if=half.raw of={dev} bs=64k
dirt: dd -f raw -O raw if=full.raw of={small} bs=64k
dirt: dd -f raw -O raw if={dev} of=out bs=1M count=3 skip=2
dirt: dd -f raw -O qcow2 if=half.raw of={dev} bs=64k
dirt: dd -f raw -O qcow2 if=full.raw of={small} bs=64k
dirt: dd if={small} of={dev} bs=4k
"""

OTHERS = """
qcow2: compare {dev} {dev}
qcow2: compare -f qcow2 -F raw {dev} half.raw
dirt: compare -f raw -F raw {dev} full.raw
dirt: compare -f raw -F raw full.raw {dev}
dirt: compare -s -f raw -F raw full.raw {dev}
zeroes: compare -s -f raw -F raw sparse.raw {dev}
zeroes: compare -f raw -F raw {dev} {small}
dirt: compare -f raw -F raw {dev} {small}
qcow2: check {dev}
qcow2: check -f qcow2 {dev}
qcow2: check -f qcow2 --output json {dev}
qcow2: check -f qcow2 -r all {dev}
qcow2: check {small}
leaky: check {dev}
leaky: check -r leaks {dev}
leaky: check -r all {dev}
leaky: check -r all --output json {small}
dirt: check {dev}
dirt: check -f raw {dev}
qcow2: info {dev}
qcow2: info --output json {dev}
qcow2: info -f raw {dev}
dirt: info {dev}
dirt: info --output json {dev}
dirt: info -f host_device {dev}
dirt: info -f file {dev}
dirt: info host_device:{dev}
dirt: info file:{dev}
dirt: info --image-opts driver=host_device,filename={dev}
dirt: info --image-opts driver=file,filename={dev}
dirt: info --image-opts driver=raw,file.driver=file,file.filename={dev}
dirt: info --image-opts driver=host_device,filename=half.raw
dirt: info --image-opts driver=raw,file.driver=host_device,file.filename={dev},offset=1M,size=2M
dirt: info --image-opts driver=host_cdrom,filename={dev}
dirt: info --image-opts driver=host_device,filename={dev},locking=on
dirt: info -f host_device half.raw
dirt: info /dev/null
dirt: info /dev/zero
dirt: map {dev}
dirt: map --output json {dev}
zeroes: map --output json -f raw {dev}
qcow2: map {dev}
qcow2: map --output json {dev}
qcow2: measure -O qcow2 {dev}
dirt: measure -O qcow2 -f raw {dev}
zeroes: measure -O qcow2 -f raw {dev}
dirt: measure -O raw -f raw {small}
dirt: resize -f raw {dev} 8M
dirt: resize -f raw {dev} 9M
dirt: resize -f raw {dev} +1M
dirt: resize -f raw {dev} 4M
dirt: resize -f raw --shrink {dev} 4M
dirt: resize -f raw --preallocation=full {dev} 9M
dirt: resize -f raw --preallocation=falloc {dev} 9M
dirt: resize -f raw --preallocation=metadata {dev} 9M
dirt: resize -f host_device {dev} 9M
dirt: resize -f host_device --shrink {dev} 4M
dirt: resize -f raw --image-opts driver=raw,file.filename={dev},size=1M 2M
dirt: resize --image-opts driver=raw,file.driver=host_device,file.filename={dev},offset=1M 8M
qcow2: resize {dev} 6M
qcow2: resize -f qcow2 {dev} 100M
qcow2: resize -f qcow2 --preallocation=metadata {dev} 6M
qcow2: resize -f qcow2 --preallocation=falloc {dev} 6M
qcow2: resize -f qcow2 --preallocation=full {dev} 6M
qcow2: resize -f qcow2 --preallocation=metadata {dev} 64M
qcow2: resize -f qcow2 --preallocation=full {dev} 64M
qcow2: resize -f qcow2 --shrink {dev} 2M
qcow2: resize -f qcow2 {small} 64T
qcow2: snapshot -l {small}
qcow2: snapshot -c new {dev}
qcow2: snapshot -a old {dev}
qcow2: snapshot -d old {dev}
qcow2: snapshot -c new {small}
qcow2: amend -f qcow2 -o compat=0.10 {dev}
qcow2: amend -f qcow2 -o refcount_bits=64 {dev}
qcow2: amend -f qcow2 -o lazy_refcounts=on {small}
qcow2: bitmap --add {dev} b
qcow2: bitmap --add --disable -g 64k {small} b
qcow2: rebase -u -f qcow2 -b half.raw -F raw {dev}
qcow2: rebase -f qcow2 -b half.raw -F raw {dev}
dirt: snapshot -l {dev}
"""


#: where ours is told apart from the real tool on purpose: command -> why
BETTER = {
    "create -f vmdk {small} 1T": "the real tool makes an image that it can't open",
    "bitmap --add --disable -g 64k {small} b": "the real tool loses the bitmap and succeeds",
}


def commands(text: str) -> list[str]:
    return [line for line in text.splitlines() if line]


def trial(bench: Bench, arena: Arena, line: str, before: list[bytes]) -> tuple[Both, list[list[bytes]], list[Any]]:
    """Both tools, each on devices with the same content; what is there afterwards, and the file ``out``."""
    argv = shlex.split(line.format(**bench.names))
    outcomes: list[Outcome] = []
    after, outs = [], []
    out = bench.folder / "out"
    masks = [(r'"actual-size": \d+', '"actual-size": N'), (r"disk size: .*", "disk size: N")]
    for real in (True, False):
        bench.fill(*before)
        if real:
            outcome = arena._process([arena.qemu_img], argv, bench.folder, False, masks, dict(os.environ))
        else:
            outcome = arena._in_process(argv, bench.folder, False, masks, {})
        outcomes.append(outcome)
        after.append(bench.now())
        outs.append(out.read_bytes() if out.exists() else None)
        out.unlink(missing_ok=True)
    arena._count(argv)
    return Both(argv, *outcomes), after, outs


def as_image(bench: Bench, data: bytes, fmt: str) -> tuple[str, bytes | None]:
    """What the real tool's check says of a device's content as a FMT image, and the disk that it shows."""
    path, out = bench.folder / "image.tmp", bench.folder / "disk.tmp"
    path.write_bytes(data)
    text = ""
    if fmt == "qcow2":
        done = judges.run("qemu-img", "check", "-U", "-f", fmt, path, ok=range(256))
        text = str(done.returncode)
    done = judges.run("qemu-img", "convert", "-U", "-f", fmt, "-O", "raw", path, out, ok=range(256))
    disk = out.read_bytes() if not done.returncode else None
    out.unlink(missing_ok=True)
    return text, disk


@pytest.mark.parametrize("text", [CREATE, CONVERT, OTHERS], ids=["create", "convert", "others"])
def test_as_the_real_tool(bench: Bench, tmp_path: Path, figures: Any, text: str) -> None:
    arena = Arena(tmp_path, figures)
    states = {name: make(bench) for name, make in STATES.items()}
    differences = []
    lines = commands(text)
    for item in lines:
        state, _, line = item.partition(": ")
        both, after, outs = trial(bench, arena, line, states[state])
        if line in BETTER:
            assert both.ours.code == 1, line
            continue
        difference = both.difference()
        if outs[0] != outs[1]:
            difference += "\nthe files made differ"
        for name, real, ours in zip(("dev", "small"), *after, strict=True):
            if real == ours:
                continue
            fmt = "qcow2" if real[:4] == b"QFI\xfb" else "vmdk" if real[:4] == b"KDMV" else "raw"
            if both.ours.code and fmt == "qcow2" and line.startswith(("create", "convert -f", "convert -c")):
                continue  # a header that never became an image
            if fmt == "raw" or ours[:4] != real[:4]:
                at = next(at for at in range(len(real)) if real[at] != ours[at])
                difference += f"\nthe bytes of {name} differ from {at} on ({both.real.code}, {both.ours.code})"
                continue
            there, mine = as_image(bench, real, fmt), as_image(bench, ours, fmt)
            if mine[0] != there[0] and mine[0] != "0":
                difference += f"\ncheck of {name}: real {there[0]}, ours {mine[0]}"
            if both.ours.code:
                continue  # half made
            if "preallocation=metadata" in line:  # what was on the device shows through with the real tool
                there = there[0], bytes(len(mine[1] or b""))
            if mine[1] != there[1] and "resize" not in line:
                difference += f"\nthe disks that {name} shows differ"
        if difference:
            differences.append(f"[{item}]\n{difference}")
    if differences:
        raise AssertionError(f"{len(differences)} of {len(lines)} differ\n\n" + "\n\n".join(differences))
