"""A cut at any point of a change leaves the old tree or the new one, for us and for the kernel that replays the log."""

from __future__ import annotations

import errno
import os
import random
import re
import shutil
import struct
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest

import judges
import xfs_images as images
from conftest import Figures
from cowshed.block.filter.record import FLUSH, Log, RecordNode
from cowshed.block.graph import open_image
from cowshed.errors import HostError
from cowshed.guest.filesystem import xfs
from cowshed.guest.filesystem.base import FileSystem, GuestError
from cowshed.guest.filesystem.xfs.journal import Journal
from crash import workspace
from crash_states import Disk, states
from test_guest_xfs_log import LOG_FLUSH, Work, calm, quietly_mounted, repair_finds_nothing, shut_down

NOW = 1_900_000_000 * 10**9
ACL = struct.pack("<I", 2) + b"".join(
    struct.pack("<HHI", tag, perm, ident & 0xFFFFFFFF)
    for tag, perm, ident in [(1, 7, -1), (2, 6, 1000), (4, 5, -1), (16, 7, -1), (32, 0, -1)]
)


def populate(root: Path) -> None:
    chance = random.Random(5)
    (root / "config").write_bytes(b"ONBOOT=no\n" * 20)
    os.setxattr(root / "config", "security.selinux", b"system_u:object_r:net_conf_t:s0\0")
    (root / "odd").write_bytes(chance.randbytes(23_457))
    (root / "many").touch()
    os.setxattr(root / "many", "system.posix_acl_access", ACL)
    for index in range(20):
        os.setxattr(root / "many", f"user.{index}", chance.randbytes(100))
    os.setxattr(root / "many", "user.big", chance.randbytes(9_000))
    (root / "folder").mkdir()
    for index in range(20):
        (root / "folder" / f"file{index}").write_bytes(b"content %d\n" % index)


def change(system: FileSystem) -> None:
    def find(path: bytes) -> int:
        ino: int | None = system.root
        for part in path.split(b"/"):
            assert ino is not None
            ino = system.lookup(ino, part)
        assert ino is not None
        return ino

    config, many, odd = find(b"config"), find(b"many"), find(b"odd")
    system.truncate(config, 0, NOW)
    system.write(config, 0, b"ONBOOT=yes\n" * 30, NOW)
    system.set_xattr(config, b"security.selinux", b"system_u:object_r:etc_t:s0\0", NOW)
    system.write(odd, 3000, b"patch" * 1800, NOW)
    system.truncate(odd, 20_000, NOW)
    system.set_attributes(many, NOW, mode=0o640)
    system.set_xattr(many, b"user.7", b"z" * 100, NOW)
    system.set_xattr(many, b"user.big", bytes(range(250)) * 36, NOW)
    for index in range(0, 20, 3):
        system.set_attributes(find(b"folder/file%d" % index), NOW, mode=0o700, uid=index)
    system.set_label("changed")


def seen(image: Path) -> tuple[images.Facts, str]:
    with images.opened(image) as system:
        return images.our_facts(system), system.label


def recorded(image: Path, what: Callable[[FileSystem], None]) -> Log:
    log = Log(1 << 30)
    with open_image(str(image), fmt="raw", writable=True) as node:
        system = xfs.open(RecordNode(node, log), True)
        what(system)
        system.sync()
        system.close()
    return log


def to_the_end(image: Path) -> None:
    """The log's head goes near the end of the ring."""
    with open_image(str(image), fmt="raw", writable=True) as node:
        journal = Journal(xfs.open(node, True).log)
        # the change's records are cut in two by it
        while journal.log.length - journal.position > max(40, journal.log.superblock.logsunit * 3 // 1024):
            journal.unmount()


def dirty(root: Path) -> None:
    (root / "t").mkdir()
    calm(root / "t", random.Random(4), 60)


def removals(root: Path) -> None:
    """Files, attributes and chunks of inodes have come and gone, and nothing is left to do."""
    work = Work(12)
    work.clones = False
    (root / "t").mkdir()
    work(root / "t", 200)
    images.settle(root)


def opened_and_removed(root: Path) -> None:
    dirty(root)
    with open(root / "gone", "wb") as file:
        file.write(b"x" * 5000)
        os.unlink(root / "gone")
        shut_down(root, LOG_FLUSH)


CASES = {
    "clean": ((), None),
    "inodes of 2048": (("-i", "size=2048"), None),
    "sectors of 4096": (("-s", "size=4096"), None),
    "small blocks": (("-b", "size=1024", "-m", "rmapbt=1"), None),
    "log stripes": (("-l", "su=64k"), None),
    "around the end": ((), to_the_end),
    "around the end, log stripes": (("-l", "su=64k"), to_the_end),
    "dirty": ((), dirty),
    "dirty, inodes of 1024": (("-i", "size=1024"), dirty),
    "dirty, removals": (("-m", "rmapbt=1"), removals),
    "left dirty": ((), opened_and_removed),
}


def prepared(folder: Path, name: str) -> Path:
    options, first = CASES[name]
    # what mkfs.xfs makes by itself is larger: each state is a copy
    image = images.make(folder / "disk", 32 << 20, "--unsupported", "-f", *options)
    with images.mounted(image, folder / "mnt") as root:
        populate(root)
    if first is to_the_end:
        to_the_end(image)
    elif first is not None:
        with images.mounted(image, folder / "mnt") as root:
            first(root)
            if first is not opened_and_removed:
                shut_down(root, LOG_FLUSH)
    return image


def budget(usual: int) -> int:
    return usual * 10 if os.environ.get("COWSHED_TORTURE") else usual


def some(names: Iterable[str], usual: tuple[str, ...]) -> list[Any]:
    return [name if name in usual else pytest.param(name, marks=pytest.mark.torture) for name in names]


@pytest.mark.parametrize(
    "name", some(CASES, ("clean", "inodes of 2048", "around the end", "dirty, removals", "left dirty"))
)
def test_old_or_new(name: str, figures: Figures) -> None:
    folder = workspace()
    try:
        image = prepared(folder, name)
        before = image.read_bytes()
        old = seen(image)
        log = recorded(image, change)
        new = seen(image)
        assert old[0] != new[0] and (old[1], new[1]) == ("", "changed")
        with images.opened(image) as system:
            assert system.dirty == (name == "left dirty")  # type: ignore[attr-defined]
        with images.mounted(image, folder / "mnt") as root:
            assert images.kernel_facts(root) == new[0]
        repair_finds_nothing(image)

        def mask(tree: tuple[images.Facts, str]) -> object:
            # a log that stays dirty gets no file data
            hidden = slice(11, 12) if name == "left dirty" else slice(0)
            return {path: (*facts[: hidden.start or 12], *facts[12:]) for path, facts in tree[0].items()}, tree[1]

        disk = Disk(folder / "state", before)
        durable = 0
        met = set()
        found = []
        for state in states(log.events, budget(16), 7):
            while durable < state.durable:
                if log.events[durable].kind != FLUSH:
                    disk.apply(log.events[durable], log, None)
                durable += 1
            disk.begin()
            for number in sorted(state.part):
                disk.apply(log.events[number], log, state.part[number])
            content = disk.content()
            if content not in met:
                met.add(content)
                copy = folder / "copy"
                copy.write_bytes(content)
                ours = seen(copy)
                assert mask(ours) in (mask(old), mask(new)), state
                # file data in a log is nothing that each kernel knows
                with quietly_mounted(copy, folder / "mnt", "nknown buffer type", "no buf ops") as root:
                    kernels = images.kernel_facts(root)
                assert kernels == ours[0], state
                done = judges.run("xfs_db", "-r", "-c", "sb 0", "-c", "p fname", copy).stdout
                assert done.split(chr(34))[1].split("\\")[0] == ours[1], done
                repair_finds_nothing(copy)
                found.append(mask(ours) == mask(new))
            disk.rollback()
        disk.close()
        assert not found[0] and found[-1]
        figures.add("xfs: states after a cut, old or new", len(found))
    finally:
        shutil.rmtree(folder)


def test_much_data_goes_first(figures: Figures) -> None:
    """More than a little is written in place: a cut may leave any of its sectors, under the old size and times."""
    folder = workspace()
    try:
        image = images.make(folder / "disk", 32 << 20, "--unsupported", "-f")
        data = random.Random(1).randbytes(3 << 20)
        with images.mounted(image, folder / "mnt") as root:
            populate(root)
            (root / "large").write_bytes(data)
        before = image.read_bytes()
        old = seen(image)
        wanted = bytes(byte ^ 0xFF for byte in data[: 2 << 20])

        def write(system: FileSystem) -> None:
            ino = system.lookup(system.root, b"large")
            assert ino is not None
            system.truncate(ino, 0, NOW)
            system.write(ino, 0, wanted, NOW)

        log = recorded(image, write)
        new = seen(image)
        judged = 0
        for state in states(log.events, budget(8), 3):
            disk = Disk(folder / "state", before)
            for number in range(state.durable):
                if log.events[number].kind != FLUSH:
                    disk.apply(log.events[number], log, None)
            for number in sorted(state.part):
                disk.apply(log.events[number], log, state.part[number])
            disk.close()
            ours = seen(folder / "state")
            with images.mounted(folder / "state", folder / "mnt") as root:
                assert images.kernel_facts(root) == ours[0]
                now = (root / "large").read_bytes()
            for path, facts in ours[0].items():
                if path != b"large":
                    assert facts == old[0][path] == new[0][path]
            ends = (old[0][b"large"], new[0][b"large"])
            assert ours[0][b"large"][:11] in [end[:11] for end in ends]
            for at in range(0, len(now), 512):
                assert now[at : at + 512] in (data[at : at + 512], wanted[at : at + 512])
            repair_finds_nothing(folder / "state")
            judged += 1
        assert judged > 4
        figures.add("xfs: states after a cut, much data", judged)
    finally:
        shutil.rmtree(folder)


def test_more_than_the_log_holds(figures: Figures) -> None:
    """Several transactions, each brought to its places before the next; a dirty log refuses before anything happens."""
    folder = workspace()
    try:
        image = images.make(folder / "disk", 32 << 20, "--unsupported", "-f", "-b", "size=1024")
        with images.mounted(image, folder / "mnt") as root:
            for index in range(5000):
                (root / f"f{index}").touch()

        def change_all(system: FileSystem) -> None:
            for name, ino, _ in list(system.entries(system.root)):
                if name not in (b".", b".."):
                    system.set_attributes(ino, NOW, mode=0o600, uid=7)

        log = recorded(image, change_all)
        assert sum(event.kind == FLUSH for event in log.events) > 6
        with images.mounted(image, folder / "mnt") as root:
            for index in range(5000):
                facts = os.stat(root / f"f{index}")
                assert (facts.st_mode & 0o7777, facts.st_uid) == (0o600, 7)
            (root / "one").touch()
            shut_down(root, LOG_FLUSH)
        before = image.read_bytes()
        with images.opened(image, writable=True) as system:
            change_all(system)
            with pytest.raises(GuestError, match="too full"):
                system.sync()
        assert image.read_bytes() == before
        with images.mounted(image, folder / "mnt") as root:
            assert len(os.listdir(root)) == 5001
        repair_finds_nothing(image)
    finally:
        shutil.rmtree(folder)


def test_a_write_that_fails(tmp_path: Path) -> None:
    """Wherever the device gives up, old or new is on it, and nothing more is changed."""
    from test_guest_xfs_hostile import Memory

    class Failing(Memory):
        left = 0

        def write(self, offset: int, data: Any) -> None:
            self.left -= 1
            if self.left < 0:
                raise HostError("the disk is gone", errno=errno.EIO)
            super().write(offset, data)

    image = prepared(tmp_path, "clean")
    raw = image.read_bytes()

    def facts(node: Memory) -> tuple[images.Facts, str]:
        system = xfs.open(node)
        return images.our_facts(system), system.label

    old = facts(Memory(raw))
    found = []
    for count in range(100):
        node = Failing(raw)
        node.left = count
        system = xfs.open(node, True)
        change(system)
        try:
            system.sync()
        except HostError:
            system.discard_changes()
            with pytest.raises(GuestError) as refused:
                system.set_attributes(system.root, NOW, mode=0)
            assert refused.value.errno == errno.EROFS
            found.append(facts(Memory(bytes(node.raw))))
        else:
            break
    new = facts(Memory(bytes(node.raw)))
    assert new != old and 5 < len(found) < 50
    # the log's records are the first writes
    turn = found.index(new)
    assert 0 < turn < 4 and found == [old] * turn + [new] * (len(found) - turn)


def test_stale_records_ahead_are_cleared(figures: Figures) -> None:
    """A write of the log that was lost while later ones were not: the head is before the hole, and what lies behind it
    must not come back when the hole is written."""
    folder = workspace()
    try:
        image = images.make(folder / "disk", 32 << 20, "--unsupported", "-f")
        with images.mounted(image, folder / "mnt") as root:
            populate(root)
        with images.mounted(image, folder / "mnt") as root:
            for turn in range(12):
                handle = os.open(root / f"turn{turn}", os.O_CREAT | os.O_RDWR)
                os.fsync(handle)
                os.close(handle)
            shut_down(root, 2)
        with images.opened(image) as system:
            log = system.log  # type: ignore[attr-defined]
            records = list(log.headers())
        assert len(records) > 6
        # both ways to lose a record: its blocks are of the cycle before, or its bytes are not what they should be
        for number, lost in enumerate((records[-5], records[-4])):
            state = folder / f"state{number}"
            raw = bytearray(image.read_bytes())
            at = log.where(lost.position)
            if number:
                raw[at + 512 + 40] ^= 0xFF
            else:
                raw[at : at + lost.blocks * 512] = bytes(lost.blocks * 512)
            state.write_bytes(raw)
            shutil.copyfile(state, folder / "copy")
            with images.mounted(folder / "copy", folder / "mnt") as root:
                wanted = images.kernel_facts(root)
            assert b"turn11" not in wanted
            assert seen(state)[0] == wanted
            with images.opened(state, writable=True) as system:
                ino = system.lookup(system.root, b"config")
                assert ino is not None
                system.set_attributes(ino, NOW, mode=0o600)
                shown = images.our_facts(system)
                # a cut right behind the transaction: what follows it counts
                system.replay.unfinished.append("the test")  # type: ignore[attr-defined]
                system.sync()
            assert seen(state)[0] == shown
            with images.mounted(state, folder / "mnt") as root:
                assert images.kernel_facts(root) == shown
            repair_finds_nothing(state)
    finally:
        shutil.rmtree(folder)


def test_the_log_as_its_printer_sees_it() -> None:
    folder = workspace()
    try:
        image = prepared(folder, "log stripes")
        with images.opened(image) as system:
            head = system.log.head  # type: ignore[attr-defined]
        recorded(image, change)
        assert "<CLEAN>" in judges.run("xfs_logprint", "-t", image).stdout
        done = judges.run("xfs_logprint", "-s", str(head), image)
        assert "bad" not in done.stdout.lower() and not done.stderr
        operations = re.findall(r"Oper \((\d+)\): .*clientid: (\w+) +flags: (\w+)", done.stdout)
        assert operations[0] == ("0", "TRANS", "START")
        assert operations[-1][1:] == ("TRANS", "COMMIT")
        # one cluster of inodes or two, the attributes' leaf and value, file data, the superblock
        assert done.stdout.count("BUF:") >= 6
    finally:
        shutil.rmtree(folder)


V4 = {
    "plain": (),
    "no ftype, inodes of 256": ("-n", "ftype=0", "-i", "size=256"),
    "log of version 1": ("-l", "version=1"),
    "no lazy counters": ("-l", "lazy-count=0"),
    "blocks of 512": ("-b", "size=512", "-n", "size=4096"),
    "log stripes": ("-l", "su=32k"),
}


@pytest.mark.parametrize("name", some(V4, ("plain", "log of version 1")))
def test_version_4(name: str, figures: Figures) -> None:
    """This kernel does not mount it: what our own replay shows of each state, and what xfs_repair says of the end."""
    from test_guest_xfs_read import v4_tree

    folder = workspace()
    try:
        proto, _ = v4_tree(folder, 200)
        image = images.make(
            folder / "disk", 32 << 20, "--unsupported", "-f", "-m", "crc=0", *V4[name], "-p", str(proto)
        )
        with images.opened(image) as system:
            target = system.lookup(system.root, b"file4096")
        sets = ["attr_set -v 20 short", "attr_set -v 200 leaf", "attr_set -v 9000 remote"]
        judges.run("xfs_db", "-x", "-c", f"inode {target}", *(x for each in sets for x in ("-c", each)), image)
        before = image.read_bytes()
        old = seen(image)

        def change_v4(system: FileSystem) -> None:
            one = system.lookup(system.root, b"file5000")
            assert one is not None and target is not None
            system.truncate(one, 0, NOW)
            system.write(one, 0, b"new content " * 300, NOW)
            system.set_attributes(one, NOW, mode=0o600, uid=7, gid=70_000)
            system.set_xattr(target, b"user.leaf", b"L" * 200, NOW)
            system.set_xattr(target, b"user.remote", b"R" * 9000, NOW)
            folder = system.lookup(system.root, b"dir100")
            assert folder is not None
            for number, (child, ino, _) in enumerate(list(system.entries(folder))):
                if child not in (b".", b"..") and number % 9 == 0:
                    system.set_attributes(ino, NOW, mode=0o444)
            system.set_label("changed")

        log = recorded(image, change_v4)
        new = seen(image)
        assert old != new and new[1] == "changed"
        repair_finds_nothing(image)
        printed = judges.run("xfs_db", "-r", "-c", f"inode {new[0][b'file5000'][0]}", "-c", "print core", image).stdout
        assert "core.size = 3600\n" in printed and "core.uid = 7\n" in printed and "core.gid = 70000\n" in printed
        assert "<CLEAN>" in judges.run("xfs_logprint", "-t", image).stdout
        met, found = set(), []
        for state in states(log.events, budget(10), 7):
            disk = Disk(folder / "state", before)
            for number in range(state.durable):
                if log.events[number].kind != FLUSH:
                    disk.apply(log.events[number], log, None)
            for number in sorted(state.part):
                disk.apply(log.events[number], log, state.part[number])
            content = disk.content()
            disk.close()
            if content in met:
                continue
            met.add(content)
            ours = seen(folder / "state")
            assert ours in (old, new), state
            found.append(ours == new)
            # a dirty log is gone on with, and cleaned
            recorded(folder / "state", change_v4)
            assert seen(folder / "state") == new
            repair_finds_nothing(folder / "state")
        assert True in found and False in found
        figures.add("xfs: states after a cut, version 4", len(found))
    finally:
        shutil.rmtree(folder)
