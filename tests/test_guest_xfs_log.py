"""Dirty logs: what is read from the image is what the kernel shows after it has replayed a copy."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import random
import shutil
import struct
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

import judges
import xfs_images as images
from conftest import Figures
from cowshed.errors import CorruptError
from cowshed.guest.filesystem.base import GuestError
from cowshed.guest.filesystem.xfs.replay import Intent

LOG_FLUSH, NO_LOG_FLUSH = 1, 2

CASES = [
    (1, LOG_FLUSH, ()),
    (2, NO_LOG_FLUSH, ()),
    (3, LOG_FLUSH, ("-m", "rmapbt=1,reflink=1")),
    (4, LOG_FLUSH, ("-b", "size=1024", "-n", "size=8192")),
    (5, NO_LOG_FLUSH, ("-m", "bigtime=0,inobtcount=0,finobt=0,reflink=0", "-i", "sparse=0,size=1024")),
    (6, LOG_FLUSH, ("-d", "su=64k,sw=2,agcount=2", "-l", "su=256k,size=70m")),
    (7, LOG_FLUSH, ("-i", "nrext64=1", "-s", "size=4096")),
]


def shut_down(root: Path, flag: int) -> None:
    handle = os.open(root, os.O_RDONLY)
    try:
        fcntl.ioctl(handle, images.GOINGDOWN, struct.pack("I", flag))
    finally:
        os.close(handle)


class Work:
    """Random changes below a directory."""

    def __init__(self, seed: int) -> None:
        self.chance = random.Random(seed)
        self.count = 0
        self.clones = True

    def __call__(self, root: Path, steps: int) -> None:
        chance = self.chance
        files: list[Path] = []
        folders = [root]
        for _ in range(steps):
            self.count += 1
            number = self.count
            path = chance.choice(folders) / f"n{number}-{'y' * chance.randrange(80)}"
            action = chance.randrange(13)
            if action < 3 or not files:
                path.write_bytes(chance.randbytes(chance.choice((0, 10, 5000, 30_000))))
                files.append(path)
            elif action == 3:
                path.mkdir()
                folders.append(path)
            elif action == 4:
                os.unlink(files.pop(chance.randrange(len(files))))
            elif action == 5:
                index = chance.randrange(len(files))
                os.rename(files[index], path)
                files[index] = path
            elif action == 6:
                value = chance.randbytes(chance.choice((3, 300, 3000, 9000)))
                os.setxattr(chance.choice(files), f"user.a{chance.randrange(20)}", value)
            elif action == 7:
                os.symlink("s" * chance.choice((5, 500, 1000)), path)
            elif action == 8:
                os.truncate(chance.choice(files), chance.randrange(60_000))
            elif action == 9:
                os.chmod(chance.choice(files), chance.randrange(0o1000))
            elif action == 10 and self.clones:
                source = chance.choice(files)
                with contextlib.suppress(OSError), open(source, "rb") as old, open(path, "wb") as new:
                    fcntl.ioctl(new.fileno(), images.FICLONE, old.fileno())
                files.append(path)
            elif action == 11:
                with open(chance.choice(files), "r+b") as file:
                    file.seek(chance.randrange(100_000))
                    file.write(chance.randbytes(5000))
                    if chance.random() < 0.3:
                        os.fsync(file.fileno())
            else:
                with open(chance.choice(files), "r+b") as file:
                    images.fallocate(file.fileno(), 3, 4096 * chance.randrange(4), 4096)
        if chance.random() < 0.5:
            self.many(root)

    def many(self, root: Path) -> None:
        """A directory that grows through its shapes and shrinks; whole chunks of inodes come and go."""
        folder = root / f"many{self.count}"
        folder.mkdir()
        for index in range(800):
            (folder / f"n{index}").touch()
        for index in range(0, 800, 2):
            os.unlink(folder / f"n{index}")
        if self.chance.random() < 0.5:
            shutil.rmtree(folder)


@pytest.mark.parametrize(("seed", "flag", "options"), CASES)
def test_dirty_images(seed: int, flag: int, options: tuple[str, ...], tmp_path: Path, figures: Figures) -> None:
    image = images.make(tmp_path / "disk", 400 << 20, *options)
    copy, mount = tmp_path / "copy", tmp_path / "mnt"
    work = Work(seed)
    with images.mounted(image, mount) as root:
        work(root, 100)
    dirty = 0
    for turn in range(3):
        with images.mounted(image, mount) as root:
            folder = root / f"turn{turn}"
            folder.mkdir()
            work(folder, work.chance.choice((20, 300, 1500)))
            if work.chance.random() < 0.6:
                os.sync()
                work(folder, 100)
            shut_down(root, flag)
        images.copied(image, copy)
        before = image.stat()
        with images.mounted(copy, mount) as root:
            wanted = images.kernel_facts(root)
        with images.opened(image) as system:
            dirty += system.dirty  # type: ignore[attr-defined]
            figures.add("xfs: files compared after a replay", images.compare(system, wanted))
            assert system.statvfs().bfree > 0
        assert image.stat().st_mtime_ns == before.st_mtime_ns
    assert dirty
    figures.add("xfs: dirty logs replayed", dirty)


def calm(root: Path, chance: random.Random, steps: int) -> None:
    """Changes that leave nothing behind which only the kernel can finish."""
    for number in range(steps):
        path = root / f"c{number}-{'z' * chance.randrange(60)}"
        action = chance.randrange(6)
        if action == 0:
            path.mkdir()
            (path / "f").write_bytes(b"x" * chance.randrange(9000))
        elif action == 1:
            os.symlink("t" * chance.choice((5, 700)), path)
        elif action == 2:
            path.write_bytes(b"y")
            for index in range(8):
                os.setxattr(path, f"user.{index}", b"v" * chance.choice((10, 400, 3000)))
            os.chmod(path, 0o600)
            os.rename(path, root / f"renamed-{number}")
        else:
            path.write_bytes(chance.randbytes(chance.choice((0, 5, 5000, 50_000))))


def repair_finds_nothing(image: Path) -> None:
    done = judges.run("xfs_repair", "-n", image, ok=(0, 1))
    assert done.returncode == 0, done.stdout + done.stderr


def kernel_messages() -> list[str]:
    """What the kernel's XFS says, where its messages can be read."""
    done = subprocess.run(["dmesg"], capture_output=True, text=True)
    return [line for line in done.stdout.splitlines() if "XFS (loop" in line]


@contextlib.contextmanager
def quietly_mounted(image: Path, folder: Path, *fine: str) -> Iterator[Path]:
    """Mounted by the kernel, which has nothing to complain of but what is ``fine``."""
    words = ("metadata", "lsn", "corrupt", "unknown buffer", "bad ", "verif", "error")
    before = set(kernel_messages())
    with images.mounted(image, folder) as root:
        yield root
        # other tests' devices are none of ours
        ours = f"XFS (loop{os.minor(os.stat(root).st_dev)})"
        told = [line for line in kernel_messages() if line not in before and ours in line]
        told = [line for line in told if not any(text in line for text in fine)]
        assert not [line for line in told if any(word in line.lower() for word in words)], told


#: how a guest was killed: among new files, while removed ones were still to be freed, or when that was done
KINDS = ("settled", "calm", "busy")
KILLED = [(*case, KINDS[number % 3]) for number, case in enumerate([*CASES[:5], CASES[6]])]
CAMPAIGN = [(100 + number, *CASES[number % 7][1:], KINDS[number % 2]) for number in range(42)]


@pytest.mark.parametrize(
    ("seed", "flag", "options", "kind"),
    [*KILLED, *(pytest.param(*case, marks=pytest.mark.torture) for case in CAMPAIGN)],
)
def test_a_dirty_log_is_gone_on_with(
    seed: int, flag: int, options: tuple[str, ...], kind: str, tmp_path: Path, figures: Figures
) -> None:
    """A change of a disk whose guest was killed: nothing of the guest's is lost, and the change is there."""
    image = images.make(tmp_path / "disk", 400 << 20, *options)
    copy, mount = tmp_path / "copy", tmp_path / "mnt"
    work = Work(seed)
    work.clones = kind != "settled"  # they leave blocks set aside
    with images.mounted(image, mount) as root:
        (root / "config").write_bytes(b"old\n" * 50)
        work(root, 60)
    with images.mounted(image, mount) as root:
        (root / "t").mkdir()
        if kind == "calm":
            calm(root / "t", work.chance, 200)
            os.sync()
            (root / "u").mkdir()
            calm(root / "u", work.chance, 200)
        else:
            work(root / "t", 300)
            if kind == "settled":
                os.sync()
                work(root / "t", 300)
                images.settle(root)
        shut_down(root, flag)
    images.copied(image, copy)
    with images.mounted(copy, mount) as root:
        wanted = images.kernel_facts(root)
    for number in range(2):
        with images.opened(image, writable=True) as system:
            assert number or system.dirty  # type: ignore[attr-defined]
            ino = system.lookup(system.root, b"config")
            assert ino is not None
            system.write(ino, 4 * number, b"NEW\n", 10**18)
            system.set_attributes(ino, 10**18, mode=0o600 + number)
            shown = images.our_facts(system)
            system.sync()
            assert images.our_facts(system) == shown
            dirty = system.dirty  # type: ignore[attr-defined]
        with images.opened(image) as system:
            assert images.our_facts(system) == shown
            assert system.dirty == dirty  # type: ignore[attr-defined]
    if kind == "calm" and "size=8192" not in options:
        assert not dirty
    if not dirty:
        repair_finds_nothing(image)
    figures.add("xfs: dirty logs gone on with", 1)
    figures.add("xfs: of these left clean", int(not dirty))
    with quietly_mounted(image, mount) as root:
        found = images.kernel_facts(root)
    assert found == shown
    assert sorted(found) == sorted(wanted)
    for path, facts in wanted.items():
        assert path == b"config" or found[path] == facts, path
    repair_finds_nothing(image)


def test_promised_mappings(tmp_path: Path) -> None:
    """A file whose blocks the log has promised to move is read as it will be, and not changed."""
    image = images.make(tmp_path / "disk", 300 << 20)
    with images.mounted(image, tmp_path / "mnt") as root:
        (root / "moved").write_bytes(b"m" * 20_000)
        (root / "other").write_bytes(b"o" * 20_000)
    with images.opened(image, writable=True) as system:
        moved, other = (system.lookup(system.root, name) for name in (b"moved", b"other"))
        assert moved is not None and other is not None
        # as if a promise to unmap its second block had been found
        system._intents[moved] = [Intent(moved, None, 1, 1, 2)]  # type: ignore[attr-defined]
        assert system.read(moved, 0, 9000) == b"m" * 4096 + bytes(4096) + b"m" * 808
        for attempt in (
            lambda: system.write(moved, 0, b"x", 0),
            lambda: system.truncate(moved, 0, 0),
            lambda: system.set_attributes(moved, 0, mode=0o600),
            lambda: system.set_xattr(moved, b"user.x", b"1", 0),
        ):
            with pytest.raises(GuestError, match="not made yet") as refused:
                attempt()
            assert refused.value.errno == errno.EROFS and "mount" in (refused.value.hint or "")
        assert not system.fits(moved, 10) and system.fits(other, 10)  # type: ignore[attr-defined]
        system.write(other, 0, b"x", 0)


def test_a_torn_last_record_is_left_out(tmp_path: Path) -> None:
    """Bytes of the newest record are lost: what the kernel shows is what went before."""
    image = images.make(tmp_path / "disk", 300 << 20)
    copy, mount = tmp_path / "copy", tmp_path / "mnt"
    with images.mounted(image, mount) as root:
        for turn in range(6):
            (root / f"file{turn}").touch()
            handle = os.open(root / f"file{turn}", os.O_RDONLY)
            os.fsync(handle)
            os.close(handle)
        shut_down(root, NO_LOG_FLUSH)
    with images.opened(image) as system:
        from cowshed.guest.filesystem.xfs.log import Log

        log = Log(system.node, system.superblock)  # type: ignore[attr-defined]
        records = list(log.headers())
        assert len(records) > 3
        last = records[-1]
        at = log.where(last.position + last.header_blocks) + 40
    for change in (1, 2):
        images.flip(images.copied(image, copy), at)
        images.copied(copy, tmp_path / "other")
        with images.mounted(copy, mount) as root:
            wanted = images.kernel_facts(root)
        with images.opened(tmp_path / "other") as system:
            images.compare(system, wanted)
        at = log.where(records[-2].position + records[-2].header_blocks) + 40 if change == 1 else at
    # far from the end, it is damage
    early = Work(3)
    with images.mounted(tmp_path / "other", mount) as root:
        for _ in range(30):
            early(root / "more" if (root / "more").exists() else root, 3)
            os.sync()
        shut_down(root, LOG_FLUSH)
    with images.opened(tmp_path / "other") as system:
        log = Log(system.node, system.superblock)  # type: ignore[attr-defined]
        records = list(log.headers())
    if len(records) > 12:
        images.copied(tmp_path / "other", copy)
        images.flip(copy, log.where(records[0].position + records[0].header_blocks) + 40)
        with pytest.raises(CorruptError, match="log record"), images.opened(copy):
            pass
