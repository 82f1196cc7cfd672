"""The crash harness: what may a power cut leave behind, and can it be lived with?

A `Run` performs an operation on images whose files are wrapped by the ``record`` filter, so that every write, zeroed
range, discard, change of length and flush is known, in order. `states` (crash_states.py) makes from that log what a
disk may hold when the power goes: everything up to the last flush, and of what came after it any part: each prefix,
any subset (all of them where they are few, a seeded sample where they are many), single writes torn between their
512-byte sectors.
`Judge` materialises each state, asks the real ``qemu-img check`` (exit 0, or 3 for leaks, is well), reads the disk and
compares it with what the guest may rightly expect: every byte flushed before the cut; old or new, sector by sector,
where it wrote since.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import judges
from cowshed.block.filter.record import FLUSH, Log, RecordNode
from cowshed.block.graph import open_image
from cowshed.block.node import Node
from cowshed.errors import CowshedError
from crash_states import SECTOR, Disk, State, states


def workspace() -> Path:
    """A new directory for images, in memory where there is room for them."""
    shared = Path("/dev/shm")
    return Path(tempfile.mkdtemp(prefix="cowshed-crash-", dir=shared if os.access(shared, os.W_OK) else None))


# -- what the guest may expect ----------------------------------------------------------------------------------------


class Guest:
    """What a guest did to one disk and what it was promised, along the log.

    ``marks``: (number of events in the log, content) where everything so far is promised to be durable. ``actions``:
    (number of events when it began, offset, data) of each write; a whole other content, bytes, where an operation
    replaces it at once. ``snapshots``: name -> Held. ``tracked``: name of a dirty bitmap -> (what the disk
    showed when it was made, the number of events when it is no longer kept).
    """

    def __init__(self, path: Path, fmt: str) -> None:
        self.path = path
        self.fmt = fmt
        self.content = b""
        self.marks: list[tuple[int, bytes]] = []
        self.actions: list[tuple[int, int, bytes]] = []
        self.others: list[tuple[int, bytes]] = []
        self.snapshots: dict[str, Held] = {}
        self.tracked: dict[str, tuple[bytes, int]] = {}

    def expected(self, durable: int, cut: int) -> Expected:
        """What to expect where the first ``durable`` events are durable, and none from number ``cut`` on was made."""
        at = max(number for number, (events, _) in enumerate(self.marks) if events <= durable)
        since, content = self.marks[at]
        pending = [(offset, data) for start, offset, data in self.actions if since <= start <= cut]
        others = [other for start, other in self.others if since <= start <= cut]
        held = [
            (name, item.content, item.since <= durable and (item.leaving is None or item.leaving > cut))
            for name, item in self.snapshots.items()
            if item.start <= cut and (item.gone is None or item.gone > durable)
        ]
        tracked = {name: before for name, (before, until) in self.tracked.items() if cut < until}
        return Expected(content, pending, others, held, tracked)


class Held:
    """One snapshot: its content, and the numbers of events between which it is coming, there, leaving, gone."""

    def __init__(self, content: bytes, start: int, since: int) -> None:
        self.content = content
        self.start = start
        self.since = since
        self.leaving: int | None = None
        self.gone: int | None = None


class Expected:
    """The contents that a disk may have: ``content`` with any sectors of ``pending`` writes, or one of ``others``."""

    def __init__(
        self,
        content: bytes,
        pending: list[tuple[int, bytes]],
        others: list[bytes],
        snapshots: list[tuple[str, bytes, bool]],
        tracked: dict[str, bytes],
    ) -> None:
        self.content = content
        self.pending = pending
        self.others = others
        self.snapshots = snapshots
        self.tracked = tracked
        self._sectors: dict[int, list[tuple[int, bytes]]] | None = None

    def fault(self, found: bytes) -> str | None:
        """Why ``found`` can't be; None when it can."""
        if found == self.content or found in self.others:
            return None
        if self.others:
            sizes = [len(item) for item in (self.content, *self.others)]
            return f"{len(found)} bytes are none of the {len(sizes)} contents ({sizes} bytes): {self._where(found)}"
        if len(found) != len(self.content):
            return f"the disk has {len(found)} bytes instead of {len(self.content)}"
        if self._sectors is None:
            self._sectors = {}
            for offset, data in self.pending:
                for sector in range(offset // SECTOR, (offset + len(data) - 1) // SECTOR + 1):
                    self._sectors.setdefault(sector, []).append((offset, data))
        for start in range(0, len(found), 1 << 16):
            if found[start : start + (1 << 16)] == self.content[start : start + (1 << 16)]:
                continue
            for at in range(start, min(start + (1 << 16), len(found)), SECTOR):
                piece = found[at : at + SECTOR]
                if piece != self.content[at : at + SECTOR] and not self._possible(at, piece):
                    wanted = _digest(self.content[at : at + SECTOR])
                    return f"guest sector at {at:#x} holds {_digest(piece)}, not {wanted}"
        return None

    def _possible(self, at: int, piece: bytes) -> bool:
        """May the sector at ``at`` hold ``piece``: the old bytes with some of the pending writes, in order?"""
        assert self._sectors is not None
        could = {self.content[at : at + SECTOR]}
        for offset, data in self._sectors.get(at // SECTOR, ()):
            low, high = max(at, offset), min(at + SECTOR, offset + len(data))
            part = data[low - offset : high - offset]
            could |= {old[: low - at] + part + old[high - at :] for old in could}
        return piece in could

    def _where(self, found: bytes) -> str:
        for at in range(0, len(found), SECTOR):
            if found[at : at + SECTOR] != self.content[at : at + SECTOR]:
                return f"differs from the old one at {at:#x}"
        return "is a part of the old one"


def _digest(piece: bytes) -> str:
    return "zeroes" if not any(piece) else f"{piece[:4].hex()}…{hashlib.blake2b(piece, digest_size=3).hexdigest()}"


# -- recording --------------------------------------------------------------------------------------------------------


class Run:
    """One operation on recorded images.

    ``folder``: where the images are. `record` names those whose changes count and keeps a copy of how they are;
    `guest` follows a disk. Use `guest_write` … and `promise` inside ``with run.recording():``.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.log = Log(1 << 30)
        self.before: dict[str, bytes] = {}
        #: recorded files that are no images of their own
        self.parts: set[str] = set()
        self.guests: list[Guest] = []

    def record(self, *names: str, part: bool = False) -> None:
        """``part``: files that belong to an image, and are not to be checked by themselves."""
        for name in names:
            path = self.folder / name
            self.before[name] = path.read_bytes() if path.exists() else b""
            if part:
                self.parts.add(name)

    def guest(self, name: str, fmt: str, content: bytes) -> Guest:
        """Follow the disk of image ``name``, which holds ``content``."""
        guest = Guest(self.folder / name, fmt)
        guest.content = content
        guest.marks.append((len(self.log.events), content))
        self.guests.append(guest)
        return guest

    @contextlib.contextmanager
    def recording(self) -> Iterator[None]:
        """Whatever opens or makes one of the recorded files in here gets it wrapped."""
        from cowshed.block.protocol import file_open

        known = {os.path.realpath(self.folder / name): name for name in self.before}

        def wrapped(function: Any) -> Any:
            def call(filename: str, *args: Any) -> Node:
                node: Node = function(filename, *args)
                name = known.get(os.path.realpath(filename))
                return node if name is None else RecordNode(node, self.log, name)

            return call

        with (
            mock.patch.object(file_open, "open_file", wrapped(file_open.open_file)),
            mock.patch.object(file_open, "create_file", wrapped(file_open.create_file)),
        ):
            yield

    # what the guest does

    def write(self, guest: Guest, node: Node, offset: int, data: bytes) -> None:
        guest.actions.append((len(self.log.events), offset, data))
        node.write(offset, data)
        guest.content = guest.content[:offset] + data + guest.content[offset + len(data) :]

    def zero(self, guest: Guest, node: Node, offset: int, length: int, unmap: bool = False) -> None:
        guest.actions.append((len(self.log.events), offset, bytes(length)))
        node.write_zeroes(offset, length, unmap)
        guest.content = guest.content[:offset] + bytes(length) + guest.content[offset + length :]

    def discard(self, guest: Guest, node: Node, offset: int, length: int) -> None:
        start = len(self.log.events)
        node.discard(offset, length)
        data = node.read(offset, length)
        # a driver may keep what is discarded, make it zeroes, or show what lies below
        guest.actions.append((start, offset, data))
        guest.content = guest.content[:offset] + data + guest.content[offset + length :]

    def flush(self, guest: Guest, node: Node) -> None:
        node.flush()
        self.promise(guest)

    def replace(self, guest: Guest, content: bytes) -> None:
        """An operation begins that replaces the whole content at once; `promise` when it is done."""
        guest.others.append((len(self.log.events), content))
        guest.content = content

    def promise(self, guest: Guest) -> None:
        """What the guest sees now is durable."""
        guest.marks.append((len(self.log.events), guest.content))


# -- judging -----------------------------------------------------------------------------------------------------------


class Verdicts:
    """What came out: ``states`` judged, those that were ``same`` as one before, ``read`` by the real tool, faults."""

    def __init__(self) -> None:
        self.states = 0
        self.same = 0
        self.read = 0
        self.leaks = 0
        self.faults: list[str] = []


class Judge:
    """Judges the states of one `Run`.

    ``sample``: every so many states the disk is read by the real tool as well, written to again and repaired.
    """

    def __init__(self, run: Run, fmt: str, *, budget: int, seed: int = 1, sample: int = 8, stop_at: int = 3) -> None:
        self.run = run
        self.fmt = fmt
        self.budget = budget
        self.seed = seed
        self.sample = sample
        self.stop_at = stop_at
        self.verdicts = Verdicts()
        self.folder = workspace()
        #: files that stay as they are (backing files that nothing writes to)
        for path in run.folder.iterdir():
            if path.name not in run.before and path.is_file():
                shutil.copy(path, self.folder / path.name)

    def __enter__(self) -> Judge:
        return self

    def __exit__(self, *exc: object) -> None:
        shutil.rmtree(self.folder)

    def judge(self) -> Verdicts:
        """Judge the states of the log up to the budget, or to the first few faults."""
        # names that images give of their data files are relative to the working directory
        with contextlib.chdir(self.folder):
            return self._judge()

    def _judge(self) -> Verdicts:
        run = self.run
        events = run.log.events
        disks = {name: Disk(self.folder / name, content) for name, content in run.before.items()}
        try:
            made: set[int] = set()
            seen: set[tuple[object, ...]] = set()
            durable = -1
            for state in states(events, self.budget, self.seed):
                if state.durable != durable:
                    durable = state.durable
                    self._advance(disks, durable, made)
                for disk in disks.values():
                    disk.begin()
                for number in sorted(state.part):
                    event = events[number]
                    disks[event.name].apply(event, run.log, state.part[number])
                expected = [guest.expected(state.durable, state.cut) for guest in run.guests]
                if self._new(disks, expected, seen):
                    self._judge_state(state, expected)
                else:
                    self.verdicts.same += 1
                for disk in disks.values():
                    disk.rollback()
                if len(self.verdicts.faults) >= self.stop_at:
                    break
        finally:
            for disk in disks.values():
                disk.close()
        return self.verdicts

    def _advance(self, disks: dict[str, Disk], durable: int, made: set[int]) -> None:
        """Make every event that a flush among the first ``durable`` events covers."""
        events = self.run.log.events
        last: dict[str, int] = {}
        for number in range(durable):
            if events[number].kind == FLUSH:
                last[events[number].name] = number
        for number in range(durable):
            event = events[number]
            if event.kind != FLUSH and number not in made and number < last.get(event.name, -1):
                disks[event.name].apply(event, self.run.log)
                made.add(number)

    @staticmethod
    def _new(disks: dict[str, Disk], expected: list[Expected], seen: set[tuple[object, ...]]) -> bool:
        """Is this not the same bytes with the same promises as a state before?"""
        key: list[object] = []
        for wanted in expected:
            key += [id(wanted.content), len(wanted.pending), len(wanted.others), len(wanted.tracked)]
            key += [(name, needed) for name, _, needed in wanted.snapshots]
        for disk in disks.values():
            content = disk.content()
            key += [len(content), hash(content)]
        found = tuple(key)
        if found in seen:
            return False
        seen.add(found)
        return True

    # -- one state ------------------------------------------------------------------------------------------------

    def _judge_state(self, state: State, expected: list[Expected]) -> None:
        verdicts = self.verdicts
        verdicts.states += 1
        faults: list[str] = []
        jobs = []
        for name in self.run.before:
            if name in self.run.parts:
                continue
            path = self.folder / name
            if self._dirty(path):
                path = self._recovered(path)
            jobs.append((path, _start(path.parent, "check", "-U", "-f", self.fmt, path)))
        contents = []
        try:
            for guest, wanted in zip(self.run.guests, expected, strict=True):
                path = self.folder / guest.path.name
                contents.append(self._read(path, guest, wanted, faults))
        finally:
            for path, job in jobs:
                out = job.communicate()[0]
                if job.returncode == 3:
                    verdicts.leaks += 1
                elif job.returncode:
                    faults.append(f"qemu-img check {path.name}: exit {job.returncode}: {out.strip()[:400]}")
        if verdicts.states % self.sample == 0 and not faults:
            verdicts.read += 1
            for guest, content in zip(self.run.guests, contents, strict=True):
                self._second_opinion(guest, content, faults)
            if len(self.run.before) - len(self.run.parts) == 1:
                self._live_on(faults)
        for fault in faults:
            verdicts.faults.append(f"{state}: {fault}")

    def _dirty(self, path: Path) -> bool:
        """Is it a qcow2 image whose dirty bit is set, so that its counts are not to be trusted as they are?"""
        with open(path, "rb") as file:
            head = file.read(80)
        return head[:4] == b"QFI\xfb" and head[4:8] == b"\0\0\0\3" and bool(head[79] & 1)

    def _recovered(self, path: Path) -> Path:
        """A copy that the real tool has opened for writing, as QEMU does after the cut."""
        folder = self.folder / "recovered"
        folder.mkdir(exist_ok=True)
        for item in self.folder.iterdir():
            if item.is_file():
                shutil.copy(item, folder / item.name)
        judges.run("qemu-io", "-f", self.fmt, "-c", "flush", folder / path.name, ok=(0, 1), cwd=folder)
        return folder / path.name

    def _read(self, path: Path, guest: Guest, wanted: Expected, faults: list[str]) -> bytes:
        try:
            with open_image(str(path), fmt=guest.fmt, force_share=True) as node:
                content = node.read(0, node.size)
                fault = wanted.fault(content)
                if fault is not None:
                    faults.append(f"{path.name}: {fault}")
                if guest.snapshots:
                    self._read_snapshots(path, node, wanted, faults)
                if wanted.tracked:
                    self._read_bitmaps(path, node, wanted, content, faults)
                return content
        except CowshedError as error:
            faults.append(f"{path.name} can't be read: {error} ({error.detail})")
            return b""

    def _read_snapshots(self, path: Path, node: Node, wanted: Expected, faults: list[str]) -> None:
        names = [item.name for item in node.snapshots()]
        known = {name: content for name, content, _ in wanted.snapshots}
        for name, _, needed in wanted.snapshots:
            if needed and name not in names:
                faults.append(f"{path.name}: snapshot {name} is lost")
        for name in names:
            if name not in known:
                faults.append(f"{path.name}: snapshot {name} should not be there")
                continue
            with node.snapshot_view(name) as view:
                if view.read(0, view.size) != known[name]:
                    faults.append(f"{path.name}: snapshot {name} does not show what it showed")

    def _read_bitmaps(self, path: Path, node: Node, wanted: Expected, content: bytes, faults: list[str]) -> None:
        """A bitmap that passes for valid must have a bit for everything that changed since it was made."""
        from cowshed.block.format.qcow2.bitmap_store import current, load_bits

        entries = {entry.name: entry for entry in current(node).entries}  # type: ignore[arg-type]
        for item in node.bitmaps():
            before = wanted.tracked.get(item.name)
            if before is None or "in-use" in item.flags or "auto" not in item.flags:
                continue
            bits = load_bits(node, entries[item.name])  # type: ignore[arg-type]
            for at in range(0, len(content), item.granularity):
                number = at // item.granularity
                changed = content[at : at + item.granularity] != before[at : at + item.granularity]
                if changed and not bits[number // 8] >> number % 8 & 1:
                    faults.append(f"{path.name}: bitmap {item.name} knows nothing of the change at {at:#x}")
                    return

    def _second_opinion(self, guest: Guest, content: bytes, faults: list[str]) -> None:
        """The real tool must read what we read."""
        path = self.folder / guest.path.name
        raw = self.folder / "opinion.raw"
        done = judges.run("qemu-img", "convert", "-U", "-f", guest.fmt, "-O", "raw", path, raw, ok=(0, 1))
        if done.returncode:
            faults.append(f"qemu-img convert {path.name}: {done.stderr.strip()}")
        elif raw.read_bytes() != content:
            faults.append(f"qemu-img reads {path.name} differently from us")
        raw.unlink(missing_ok=True)

    def _live_on(self, faults: list[str]) -> None:
        """Life goes on: the image is opened and written to again; nothing but leaks may come of it."""
        folder = self.folder / "later"
        folder.mkdir(exist_ok=True)
        for item in self.folder.iterdir():
            if item.is_file():
                shutil.copy(item, folder / item.name)
        for guest in self.run.guests:
            path = folder / guest.path.name
            if guest.path.name not in self.run.before:
                continue
            try:
                with contextlib.chdir(folder), open_image(str(path), fmt=guest.fmt, writable=True) as node:
                    data = bytes([0xE5]) * min(3 * max(node.cluster_size, SECTOR), node.size)
                    for offset in (0, (node.size - len(data)) // SECTOR * SECTOR // 2):
                        node.write(offset, data)
                        node.flush()
                        if node.read(offset, len(data)) != data:
                            faults.append(f"{path.name}: what is written after the cut is not read back")
            except CowshedError as error:
                faults.append(f"{path.name}: not writable after the cut: {error}")
                continue
            done = judges.run("qemu-img", "check", "-f", guest.fmt, path, ok=range(256), cwd=folder)
            if done.returncode not in (0, 3):
                faults.append(f"after the cut and new writes: qemu-img check {path.name}: {done.stdout[:400]}")
            if done.returncode == 3:
                judges.run("qemu-img", "check", "-q", "-r", "leaks", "-f", guest.fmt, path, cwd=folder)


def _start(folder: Path, *args: str | Path) -> subprocess.Popen[str]:
    argv = [judges.need("qemu-img"), *(str(arg) for arg in args)]
    return subprocess.Popen(
        argv, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL, text=True, cwd=folder
    )
