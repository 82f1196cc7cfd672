"""Checking and repairing qcow2 images: seeded damage against the real tool, and what a repair must never do."""

from __future__ import annotations

import os
import random
import shutil
import struct
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import judges
from cowshed.block.facts import CheckResult
from cowshed.block.format.qcow2 import census
from cowshed.block.graph import open_image
from cowshed.ops.check import CheckReport, check
from crash import Run, workspace
from crash_states import Disk, states
from damage import BASES, COPIED, OFFSET, PACKED, bases
from differential import Arena, Both

WAYS: tuple[tuple[str, ...], ...] = ((), ("-r", "leaks"), ("-r", "all"))


@pytest.fixture(scope="module")
def sound() -> Iterator[dict[str, Path]]:
    folder = workspace()
    yield bases(folder)
    shutil.rmtree(folder)


# -- damage ------------------------------------------------------------------------------------------------------------


class Patient:
    """An image file that is being damaged; offsets in bytes."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.file = path.open("r+b")
        self.cluster_bits = self.number(20, 4)
        self.cluster = 1 << self.cluster_bits
        self.version = self.number(4, 4)
        self.bits = 1 << self.number(96, 4) if self.version > 2 else 16
        self.extended = self.version > 2 and bool(self.number(72, 8) & 16)
        self.l1 = self.number(40, 8)
        self.l1_size = self.number(36, 4)
        self.table = self.number(48, 8)
        self.length = path.stat().st_size
        self.l2 = [entry & OFFSET for entry in self.words(self.l1, self.l1_size) if entry & OFFSET]
        entries = self.words(self.table, self.number(56, 4) * self.cluster // 8)
        self.blocks = [entry & OFFSET for entry in entries if entry]

    def number(self, offset: int, size: int) -> int:
        self.file.seek(offset)
        return int.from_bytes(self.file.read(size), "big")

    def words(self, offset: int, count: int) -> list[int]:
        return [self.number(offset + 8 * index, 8) for index in range(count)]

    def put(self, offset: int, value: int, size: int = 8) -> None:
        self.file.seek(offset)
        self.file.write(value.to_bytes(size, "big"))

    def count(self, cluster: int, value: int) -> None:
        """Set a 16-bit reference count."""
        assert self.bits == 16
        self.put(self.blocks[0] + 2 * cluster, value, 2)

    def close(self) -> Path:
        self.file.close()
        return self.path


def wild(rng: random.Random, patient: Patient) -> int:
    """A table entry that is likely to be wrong."""
    clusters = patient.length // patient.cluster
    place = rng.randrange(clusters + 3) * patient.cluster
    return rng.choice(
        [
            0, place, place | COPIED, place | 1, place | COPIED | 1, place | PACKED, rng.getrandbits(64),
            place | COPIED | rng.choice([512, 1024, 2, 256]), place | PACKED | rng.getrandbits(61),
            rng.getrandbits(56) | COPIED, clusters * patient.cluster | COPIED, rng.choice([1, 2, COPIED, PACKED]),
            PACKED
            | rng.randrange(patient.length)
            | rng.randrange(1 << patient.cluster_bits - 8) << 70 - patient.cluster_bits,
            place | COPIED | 1 << rng.choice([56, 61]), (1 << 64) - 1,
        ]
    )  # fmt: skip


def hurt(patient: Patient, rng: random.Random) -> None:
    """Do one damage to tables, counts, flags, snapshots or the file's length."""
    kind = rng.randrange(12)
    if kind == 0:
        patient.put(patient.l1 + 8 * rng.randrange(patient.l1_size), wild(rng, patient))
    elif kind < 6 and patient.l2:
        table = rng.choice(patient.l2)
        entries = patient.words(table, patient.cluster // 8)
        used = [index for index, entry in enumerate(entries) if entry] or [0]
        at = rng.choice(used) if rng.random() < 0.7 else rng.randrange(len(entries))
        value = entries[at] ^ 1 << rng.randrange(64) if rng.random() < 0.3 else wild(rng, patient)
        if patient.extended and rng.random() < 0.3:
            value = rng.choice([rng.getrandbits(64), 0xFFFFFFFF, 0xFFFFFFFF << 32, 1 << 32 | 1])
        patient.put(table + 8 * at, value)
    elif kind < 9 and patient.blocks:
        described = max(1, patient.length // patient.cluster * patient.bits // 8)
        at = rng.choice(patient.blocks) + rng.randrange(min(patient.cluster, described))
        patient.put(at, rng.choice([0, 1, 2, 3, rng.randrange(256)]), 1)
    elif kind == 9 and rng.random() < 0.4:
        place = rng.randrange(patient.length // patient.cluster) * patient.cluster
        patient.put(patient.table + 8 * rng.randrange(3), rng.choice([0, place, place | 1, place | 512, 1 << 40]))
    elif kind == 10 and patient.number(60, 4):
        snapshots = patient.number(64, 8)
        if rng.random() < 0.5:
            patient.put(snapshots, wild(rng, patient) & (1 << 50) - 1)
        else:
            patient.put(snapshots + rng.randrange(60), rng.choice([0, 1, 255]), 1)
    elif kind == 11 and rng.random() < 0.3:
        patient.file.truncate(rng.randrange(patient.length // 2, patient.length))


def damaged(source: Path, path: Path, seed: int) -> Path:
    rng = random.Random(f"{source.name} {seed}")
    shutil.copyfile(source, path)
    patient = Patient(path)
    for _ in range(rng.choice([1, 1, 2, 3])):
        hurt(patient, rng)
    return patient.close()


# -- the same findings -------------------------------------------------------------------------------------------------

#: where the real tool gives up its own repair, or leaves it half done, ours may do better
REAL_GIVES_UP = ("Preventing invalid write", "Marking image as corrupt", "still broken", "Cannot allocate memory")


def excused(both: Both, argv: tuple[str, ...]) -> bool:
    """May the two differ? Only a repair may, and only where what it leaves is no worse than what the real one left."""
    real, ours = both.real.stdout + both.real.stderr, both.ours.stdout + both.ours.stderr
    if not argv:
        return False
    real_after = judges.run("qemu-img", "check", both.real.cwd / "x", ok=range(256)).returncode
    ours_after = judges.run("qemu-img", "check", both.ours.cwd / "x", ok=range(256)).returncode
    gave_up = any(text in real for text in REAL_GIVES_UP) or real_after in (1, 2)
    quiet = "qcow2_free_clusters failed" in real and ours.splitlines() == [
        line for line in real.splitlines() if "qcow2_free_clusters failed" not in line
    ]
    rank = {0: 0, 3: 1, 2: 2}
    return (gave_up or quiet) and rank.get(ours_after, 3) <= rank.get(real_after, 3)


@pytest.mark.parametrize("base", BASES)
def test_damage_is_told_and_mended_as_by_the_real_tool(
    base: str, sound: dict[str, Path], tmp_path: Path, figures: Any
) -> None:
    arena = Arena(tmp_path, figures)
    faults = []
    for seed in range(6 if os.environ.get("COWSHED_TORTURE") != "1" else 200):
        damaged(sound[base], arena.dir / "x", seed)
        for argv in WAYS:
            # the real repair loses all snapshots of an image that has bitmaps too
            both = arena.run("check", "-f", "qcow2", *argv, "x", changes=True)
            if both.difference() and not excused(both, argv):
                faults.append(f"seed {seed}\n{both.difference()}")
            figures.add("qcow2 check: damaged images compared")
            arena.forget(both)
    assert not faults, f"{len(faults)} differ\n" + "\n\n".join(faults[:3])


@pytest.mark.parametrize("base", [name for name in BASES if name != "narrow"])
def test_vectorised_walk_finds_the_same(
    base: str, sound: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Big images go another way through the same rules (where counts overflow, lines may come in another order)."""

    def facts(result: CheckResult) -> list[object]:
        names = [name for name in CheckResult.__slots__ if name != "error"]
        return [str(result.error), *(getattr(result, name) for name in names)]

    for seed in range(100, 125):
        path = damaged(sound[base], tmp_path / "x", seed)
        for repair in (None, "all"):
            found = []
            for entries in (census.BULK_ENTRIES, -1):
                copy = tmp_path / f"copy{entries}"
                shutil.copyfile(path, copy)
                monkeypatch.setattr(census, "BULK_ENTRIES", entries)
                report = check(str(copy), repair, fmt="qcow2")  # type: ignore[arg-type]
                again = check(str(copy), fmt="qcow2")
                found.append((facts(report.repaired or report.result), facts(report.result), facts(again.result)))
                monkeypatch.undo()
            assert found[0] == found[1], f"seed {seed}, repair {repair}"
            assert (tmp_path / "copy-1").read_bytes() == (tmp_path / f"copy{census.BULK_ENTRIES}").read_bytes()


# -- repairs that the real tool can't, or does with harm ---------------------------------------------------------------


def content_of(path: Path) -> bytes:
    with tempfile.NamedTemporaryFile(dir=path.parent) as raw:
        judges.qemu_img("convert", "-f", "qcow2", "-O", "raw", path, raw.name)
        return Path(raw.name).read_bytes()


def make(folder: Path, options: str = "", size: str = "4M", *commands: str) -> Path:
    path = folder / "x"
    judges.qemu_img("create", "-q", "-f", "qcow2", *(["-o", options] if options else []), path, size)
    if commands:
        judges.qemu_io(path, *commands, fmt="qcow2")
    return path


WRITES = ("write -P 1 0 192k", "write -P 2 1M 100k", "write -z 2M 128k")


def table_unaligned(patient: Patient) -> None:
    patient.put(patient.table, patient.blocks[0] | 512)


def table_reserved(patient: Patient) -> None:
    patient.put(patient.table, patient.blocks[0] | 1)


def table_wild(patient: Patient) -> None:
    patient.put(patient.table + 24, 1 << 62)


def table_gone(patient: Patient) -> None:
    patient.put(patient.table, 0)


def blocks_shared(patient: Patient) -> None:
    patient.put(patient.table + 8, patient.blocks[0])


def data_in_block(patient: Patient) -> None:
    patient.put(patient.l2[0] + 8 * 60, patient.blocks[0] | COPIED)


def counts_zero(patient: Patient) -> None:
    for cluster in range(8):
        patient.count(cluster, 0)


def counts_low_high(patient: Patient) -> None:
    patient.count(5, 0)
    patient.count(6, 9)
    patient.count(3, 2)


REFCOUNT_DAMAGE: tuple[Callable[[Patient], None], ...] = (
    table_unaligned, table_reserved, table_wild, table_gone, blocks_shared, counts_zero, counts_low_high,
)  # fmt: skip


@pytest.mark.parametrize("damage", REFCOUNT_DAMAGE, ids=lambda damage: damage.__name__)
@pytest.mark.parametrize("options", ["", "cluster_size=512", "extended_l2=on", "compat=0.10"])
def test_broken_counts_cost_no_data(damage: Callable[[Patient], None], options: str, tmp_path: Path) -> None:
    path = make(tmp_path, options, "4M", *WRITES)
    before = content_of(path)
    patient = Patient(path)
    damage(patient)
    patient.close()
    report = check(str(path), "all", fmt="qcow2")
    assert report.verdict == "clean"
    judges.qemu_img("check", path)
    assert content_of(path) == before
    # and it goes on being sound when it is written to
    judges.qemu_io(path, "write -P 7 3M 500k", "write -P 8 0 64k", fmt="qcow2")
    judges.qemu_img("check", path)


def test_rebuild_keeps_off_what_a_cut_file_lost(tmp_path: Path) -> None:
    """Entries that point behind the end of a truncated file point into it again once a repair has made it longer."""
    path = make(tmp_path, "cluster_size=4k", "4M", "write -P 1 0 400k", "write -P 2 1M 400k")
    before = content_of(path)
    patient = Patient(path)
    patient.file.truncate(patient.length - 20 * 4096)
    patient.count(3, 0)
    patient.close()
    check(str(path), "all", fmt="qcow2")
    assert check(str(path), fmt="qcow2").verdict == "clean"
    judges.qemu_img("check", path)
    after = content_of(path)
    lost = [at for at in range(0, len(before), 4096) if before[at : at + 4096] != after[at : at + 4096]]
    assert len(lost) <= 20 and not any(any(after[at : at + 4096]) for at in lost)


def test_snapshots_beside_bitmaps_outlive_a_repair(tmp_path: Path) -> None:
    path = make(tmp_path, "", "4M", *WRITES)
    judges.qemu_img("snapshot", "-c", "kept", path)
    judges.qemu_img("bitmap", "--add", path, "b")
    patient = Patient(path)
    patient.count(patient.length // patient.cluster - 1, 3)
    patient.close()
    report = check(str(path), "all", fmt="qcow2")
    assert report.repaired is not None and report.verdict == "clean"
    assert "kept" in judges.qemu_img("snapshot", "-l", path)
    assert "name: b" in judges.qemu_img("info", path)
    judges.qemu_img("check", path)


def test_leaked_space_is_given_back(tmp_path: Path) -> None:
    path = make(tmp_path, "", "64M", "write -P 1 0 8M")
    patient = Patient(path)
    for slot in range(64, 128):
        patient.put(patient.l2[0] + 8 * slot, 0)
    patient.close()
    before = path.stat().st_blocks
    report = check(str(path), "leaks", fmt="qcow2")
    assert report.result.leaks_fixed == 64
    # but for what the file system takes to tell where the rest is
    assert path.stat().st_blocks <= before - 64 * 128 + 128
    judges.qemu_img("check", path)


def test_what_a_damaged_entry_lost_is_not_punched(tmp_path: Path) -> None:
    """Clusters that seem leaked because a table entry is broken lose their count, but not their bytes."""
    path = make(tmp_path, "", "64M", "write -P 1 0 8M")
    patient = Patient(path)
    table = patient.l2[0]
    patient.put(patient.l1, 1 << 40 | COPIED)
    patient.close()
    data = path.read_bytes()
    report = check(str(path), "leaks", fmt="qcow2")
    assert report.result.leaks_fixed == 129
    assert path.read_bytes()[table : table + 65536] == data[table : table + 65536]
    patient = Patient(path)
    patient.put(patient.l1, table | COPIED)
    patient.close()
    check(str(path), "all", fmt="qcow2")
    assert content_of(path) == bytes([1]) * (8 << 20) + bytes(56 << 20)
    judges.qemu_img("check", path)


# -- marks -------------------------------------------------------------------------------------------------------------


def test_corrupt_mark_goes_with_the_last_corruption(tmp_path: Path) -> None:
    path = make(tmp_path, "", "4M", *WRITES)
    patient = Patient(path)
    patient.put(72, 2)
    patient.put(patient.l2[0] + 8, patient.number(patient.l2[0] + 8, 8) | 2)
    patient.close()
    assert check(str(path), "all", fmt="qcow2").verdict == "corrupt"
    assert Patient(path).number(72, 8) == 2
    patient = Patient(path)
    patient.put(patient.l2[0] + 8, patient.number(patient.l2[0] + 8, 8) & ~2)
    patient.close()
    assert check(str(path), "leaks", fmt="qcow2").verdict == "clean"
    assert Patient(path).number(72, 8) == 0


def test_dirty_images_are_mended_when_opened_for_writing(tmp_path: Path) -> None:
    path = make(tmp_path, "lazy_refcounts=on", "4M", *WRITES)
    before = content_of(path)
    patient = Patient(path)
    patient.put(72, 1)
    for cluster in range(5, 9):
        patient.count(cluster, 0)
    patient.close()
    with open_image(str(path), fmt="qcow2", writable=True) as node:
        node.write(3 << 20, b"x" * 65536)
    assert Patient(path).number(72, 8) == 0
    judges.qemu_img("check", path)
    after = content_of(path)
    assert after[: 3 << 20] == before[: 3 << 20] and after[3 << 20 :][:65536] == b"x" * 65536


# -- power cuts --------------------------------------------------------------------------------------------------------


CUTS: tuple[Callable[[Patient], None], ...] = (
    counts_low_high, counts_zero, table_gone, table_unaligned, blocks_shared, data_in_block,
)  # fmt: skip


@pytest.mark.parametrize("damage", CUTS, ids=lambda damage: damage.__name__)
@pytest.mark.parametrize("kind", ["plain", "snapshot", "table"])
def test_a_cut_repair_can_be_done_again(damage: Callable[[Patient], None], kind: str, figures: Any) -> None:
    """After a power cut at any moment of a repair, the next repair mends the image, and no guest byte is lost."""
    folder = workspace()
    try:
        path = make(folder, "cluster_size=4k", "1M", "write -P 1 0 100k", "write -P 2 200k 100k")
        if kind != "plain":
            judges.qemu_img("snapshot", "-c", "s", path)
            judges.qemu_io(path, "write -P 3 50k 20k", fmt="qcow2")
        before = content_of(path)
        patient = Patient(path)
        damage(patient)
        if kind == "table":  # the snapshot table has to be written anew as well
            patient.put(patient.number(64, 8) + 36, 8, 4)
            size = patient.number(patient.number(64, 8) + 12, 2)
            patient.put(patient.number(64, 8) + 12, size, 2)
        patient.close()
        run = Run(folder)
        run.record("x")
        with run.recording():
            check(str(path), "all", fmt="qcow2")
        copy = folder / "cut"
        disk = Disk(copy, run.before["x"])
        made: set[int] = set()
        durable = -1
        for state in states(run.log.events, 150, 1):
            if state.durable != durable:
                durable = state.durable
                last = max((n for n in range(durable) if run.log.events[n].kind == "flush"), default=-1)
                for number in range(last):
                    if number not in made and run.log.events[number].kind != "flush":
                        disk.apply(run.log.events[number], run.log)
                        made.add(number)
            disk.begin()
            for number in sorted(state.part):
                disk.apply(run.log.events[number], run.log, state.part[number])
            trial = folder / "trial"
            trial.write_bytes(disk.content())
            if damage is not data_in_block:
                assert content_of(trial) == before, state
            check(str(trial), "all", fmt="qcow2")
            end = judges.run("qemu-img", "check", trial, ok=(0, 3))
            assert damage is data_in_block or content_of(trial) == before, (state, end.stdout)
            figures.add("qcow2 check: cut repairs judged")
            disk.rollback()
        disk.close()
    finally:
        shutil.rmtree(folder)


# -- speed and memory --------------------------------------------------------------------------------------------------


def measured(*argv: str) -> tuple[str, int]:
    """Run our qemu-img in a process of its own: its output, and its greatest memory in KiB."""
    code = (
        "import sys\n"
        "from cowshed.cli.main import call\n"
        "from cowshed.cli.output import Output\n"
        "out = Output('qemu-img')\n"
        "code = call('qemu-img', ['qemu-img', *sys.argv[1:]], out)\n"
        "out.flush()\n"
        # the kernel's own mark of this program: rusage would begin with what the test's process had
        "peak = next(line.split()[1] for line in open('/proc/self/status') if line.startswith('VmHWM'))\n"
        "print('numpy' in sys.modules, peak, file=sys.stderr)\n"
        "sys.exit(code)\n"
    )
    done = subprocess.run([sys.executable, "-c", code, *argv], capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode in (0, 2, 3), done.stderr
    numpy, peak = done.stderr.split()[-2:]
    return f"numpy={numpy}\n{done.stdout}", int(peak)


def test_small_images_are_checked_without_numpy(tmp_path: Path) -> None:
    text, _ = measured("check", str(make(tmp_path, "", "1G", *WRITES)))
    assert text.startswith("numpy=False\nNo errors")


def test_a_mapped_tebibyte_fits_into_little_memory() -> None:
    folder = workspace()
    try:
        path = make(folder, "preallocation=metadata", "1T")
        text, peak = measured("check", str(path))
        assert text == "numpy=True\n" + judges.qemu_img("check", path)
        assert peak < 300 << 10, f"{peak} KiB"
    finally:
        shutil.rmtree(folder)


def test_lines_told_are_bounded(sound: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = make(tmp_path, "cluster_size=512", "4M", "write 0 1M")
    patient = Patient(path)
    patient.put(patient.l1, 1 << 40)
    for index in range(1, patient.l1_size):
        patient.put(patient.l1 + 8 * index, 1 << 41)
    patient.close()
    everything: CheckReport = check(str(path), fmt="qcow2")
    monkeypatch.setattr(census, "MESSAGES", 50)
    bounded: CheckReport = check(str(path), fmt="qcow2")
    assert len(bounded.result.messages) == 51
    assert bounded.result.messages[:50] == everything.result.messages[:50]
    for name in ("leaks", "corruptions"):
        assert getattr(bounded.result, name) == getattr(everything.result, name)


def test_a_file_far_bigger_than_what_it_holds(tmp_path: Path) -> None:
    """A sparse file of very many clusters costs what it refers to, not what it could hold."""
    path = make(tmp_path, "cluster_size=512", "4M", "write 0 1M")
    try:
        os.truncate(path, 8 << 40)
    except OSError:
        pytest.skip("the file system has no files of 8 TiB")
    text, peak = measured("check", str(path))
    assert "No errors were found" in text
    assert peak < 300 << 10, f"{peak} KiB"


def test_struct_of_a_written_snapshot_table(tmp_path: Path) -> None:
    """A snapshot table with entries too short for version 3 is completed."""
    path = make(tmp_path, "", "4M", *WRITES)
    judges.qemu_img("snapshot", "-c", "one", path)
    patient = Patient(path)
    table = patient.number(64, 8)
    patient.file.seek(table)
    raw = patient.file.read(200)
    id_size, name_size, extra = struct.unpack_from(">HH", raw, 12) + struct.unpack_from(">I", raw, 36)
    names = raw[40 + extra : 40 + extra + id_size + name_size]
    patient.file.seek(table + 36)
    patient.file.write(struct.pack(">I", 0) + names)
    patient.close()
    assert check(str(path), fmt="qcow2").result.corruptions == 1
    report = check(str(path), "all", fmt="qcow2")
    assert report.verdict == "clean" and report.result.corruptions_fixed == 1
    judges.qemu_img("check", path)
    assert "one" in judges.qemu_img("snapshot", "-l", path)
    judges.qemu_img("snapshot", "-a", "one", path)


@pytest.mark.parametrize("victim", ["header", "L1 table", "refcount table", "refcount block", "snapshot table"])
def test_a_repair_writes_no_table_over_other_metadata(victim: str, tmp_path: Path) -> None:
    """An L1 entry that points to other metadata: an "entry" mended there would destroy it. As the real tool."""
    make(tmp_path, "cluster_size=4096", "4M", *WRITES)
    path = tmp_path / "x"
    judges.qemu_img("snapshot", "-c", "one", path)
    patient = Patient(path)
    unaligned = 512 if victim == "header" else 0  # the header's own cluster can't be named otherwise
    where = {
        "header": 512,
        "L1 table": patient.l1,
        "refcount table": patient.table,
        "refcount block": patient.blocks[0],
        "snapshot table": patient.number(64, 8),
    }[victim]
    last = where - unaligned + patient.cluster - 8  # nothing is there
    assert patient.number(last, 8) == 0
    patient.put(last, 0x10200 | 1)  # a cluster of zeroes whose place can't be
    patient.put(patient.l1 + 8, where | COPIED)
    patient.close()
    before = path.read_bytes()
    mine, theirs = tmp_path / "ours", tmp_path / "real"
    for copy in (mine, theirs):
        shutil.copy(path, copy)
    real = judges.run("qemu-img", "check", "-f", "qcow2", "-r", "all", theirs, ok=(0, 1, 2, 3))
    told = [line for line in (real.stdout + real.stderr).splitlines() if "Preventing invalid write" in line]
    with open_image(str(mine), fmt="qcow2", writable=True, check=True) as node:
        result = node.check(frozenset({"leaks", "errors"}))
    begin = where & -patient.cluster
    after = bytearray(mine.read_bytes()[begin : begin + patient.cluster])
    if victim == "header":
        after[72:80] = before[72:80]  # the mark that the image is corrupt
    ours = [text for _, text in result.messages if "Preventing invalid write" in text]
    assert ours == [line.removeprefix("qemu-img: ") for line in told]
    assert ours
    assert bytes(after) == before[begin : begin + patient.cluster]
