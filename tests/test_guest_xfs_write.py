"""Changes in place on XFS: xfs_repair finds nothing, and the kernel shows what was written and all else as it was."""

from __future__ import annotations

import errno
import hashlib
import os
import random
import stat
import struct
import subprocess
from pathlib import Path

import pytest

import judges
import xfs_images as images
from cowshed.errors import CowshedError
from cowshed.guest.filesystem.base import FileSystem, GuestError

NOW = 1_700_000_000_123_456_789


def repair_finds_nothing(image: Path) -> None:
    done = subprocess.run([judges.need("xfs_repair"), "-n", image], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def walk(system: FileSystem, path: str) -> int:
    ino = system.root
    for part in path.split("/"):
        found = system.lookup(ino, part.encode())
        assert found is not None, path
        ino = found
    return ino


def populate(root: Path) -> None:
    chance = random.Random(5)
    (root / "config").write_bytes(b"ONBOOT=no\n" * 20)
    os.setxattr(root / "config", "security.selinux", b"system_u:object_r:net_conf_t:s0\0")
    os.chown(root / "config", 10, 20)
    os.chmod(root / "config", 0o640)
    (root / "odd").write_bytes(chance.randbytes(123_457))
    (root / "empty").touch()
    with open(root / "reserved", "wb") as file:
        file.write(b"start")
        file.flush()
        os.fsync(file.fileno())
        images.fallocate(file.fileno(), 1, 0, 100_000)
    with open(root / "sparse", "wb") as file:
        file.truncate(200_000)
        file.seek(40_960)
        file.write(b"island")
    with open(root / "fragmented", "wb") as file:
        images.fallocate(file.fileno(), 0, 0, 6_000_000)
        for index in range(300):
            file.seek(index * 16384)
            file.write(chance.randbytes(4096))
    (root / "plain").write_bytes(chance.randbytes(5000))
    (root / "listed").write_bytes(b"with a list")
    entries = [(1, 7, -1), (2, 6, 1000), (4, 5, -1), (16, 7, -1), (32, 0, -1)]
    acl = struct.pack("<I", 2) + b"".join(struct.pack("<HHI", t, p, i & 0xFFFFFFFF) for t, p, i in entries)
    os.setxattr(root / "listed", "system.posix_acl_access", acl)
    (root / "many").touch()
    for index in range(60):
        os.setxattr(root / "many", f"user.{index}", chance.randbytes(100))
    os.setxattr(root / "many", "user.big", chance.randbytes(20_000))
    (root / "folder").mkdir()
    os.symlink("plain", root / "link")


VARIANTS = [
    ("v5", ()),
    ("legacy times", ("-m", "bigtime=0,reflink=0", "-i", "nrext64=0")),
    ("rmapbt", ("-m", "rmapbt=1")),
    ("small blocks", ("-b", "size=1024", "-i", "size=512")),
    ("inodes of 2048", ("-i", "size=2048", "-s", "size=4096")),
]


@pytest.fixture(scope="module", params=VARIANTS, ids=[name for name, _ in VARIANTS])
def image(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("xfs")
    options = [o for o in request.param[1] if o != "nrext64=0"]
    if options and options[-1] == "-i":
        options.pop()
    path = images.make(folder / "disk", 300 << 20, *options)
    with images.mounted(path, folder / "mnt") as root:
        populate(root)
    return path


@pytest.fixture
def disk(image: Path, tmp_path: Path) -> Path:
    path = tmp_path / "disk"
    images.copied(image, path)
    return path


def kernel(disk: Path) -> images.Facts:
    with images.mounted(disk, disk.parent / "mnt") as root:
        return images.kernel_facts(root)


def digest(data: bytes) -> str:
    return hashlib.sha1(data).hexdigest()


def unchanged(before: images.Facts, after: images.Facts, *but: bytes) -> None:
    assert sorted(before) == sorted(after)
    for path in before:
        if path not in but:
            assert before[path] == after[path], path


def test_edits(disk: Path) -> None:
    before = kernel(disk)
    chance = random.Random(9)
    longer = b"ONBOOT=yes\n" * 30
    patch = chance.randbytes(9000)
    with images.opened(disk, writable=True) as system:
        block = system.block_size
        config = walk(system, "config")
        assert system.fits(config, len(longer)) and system.fits(config, 0)
        assert not system.fits(config, 1 << 20)
        system.truncate(config, 0, NOW)
        system.write(config, 0, longer, NOW)
        assert system.read(config, 0, 1 << 20) == longer
        odd = walk(system, "odd")
        old = system.read(odd, 0, 1 << 20)
        system.write(odd, 3000, patch, NOW)
        wanted = old[:3000] + patch + old[12_000:]
        assert system.read(odd, 0, 1 << 20) == wanted
        assert system.read(odd, 2999, 3) == wanted[2999:3002]
        plain = walk(system, "plain")
        first = system.read(plain, 0, 1 << 20)
        system.truncate(plain, 100, NOW)
        system.truncate(plain, 4500, NOW)
        assert system.read(plain, 0, 1 << 20) == first[:100] + bytes(4400)
        system.write(plain, 4600, b"end", NOW)
        sparse = walk(system, "sparse")
        system.write(sparse, 40_960, b"ISLAND", NOW)
        system.truncate(sparse, 100_000, NOW)
        system.truncate(sparse, 5_000_000, NOW)
        with pytest.raises(GuestError) as refused:
            system.write(sparse, 0, b"x", NOW)
        assert refused.value.errno == errno.EOPNOTSUPP and refused.value.hint
        with pytest.raises(GuestError) as refused:
            system.write(walk(system, "empty"), 0, b"x", NOW)
        assert refused.value.errno == errno.EOPNOTSUPP
        shown = images.our_facts(system)
        system.sync()
        assert images.our_facts(system) == shown
    repair_finds_nothing(disk)
    after = kernel(disk)
    assert shown == after
    unchanged(before, after, b"config", b"odd", b"plain", b"sparse")
    for path, content in (
        (b"config", longer), (b"odd", wanted), (b"plain", first[:100] + bytes(4500) + b"end"),
        (b"sparse", bytes(40_960) + b"ISLAND" + bytes(5_000_000 - 40_966)),
    ):  # fmt: skip
        assert after[path][6] == len(content) and after[path][11] == digest(content)
        assert after[path][9] == NOW and after[path][10] == NOW
        assert after[path][:6] == before[path][:6] and after[path][12] == before[path][12]
        assert after[path][8] == before[path][8], block


def test_reserved_blocks(disk: Path) -> None:
    before = kernel(disk)
    with images.opened(disk, writable=True) as system:
        ino = walk(system, "reserved")
        rmapbt = system.superblock.features_ro_compat & 2  # type: ignore[attr-defined]
        if rmapbt:
            # marking blocks as written changes the reverse mappings too
            assert not system.fits(ino, 50_000)
            with pytest.raises(GuestError):
                system.write(ino, 50_000, b"x", NOW)
            return
        assert system.fits(ino, 50_000)
        data = random.Random(1).randbytes(20_001)
        system.write(ino, 30_001, data, NOW)
        wanted = b"start" + bytes(30_001 - 5) + data
        assert system.read(ino, 0, 1 << 20) == wanted
        system.sync()
        assert system.read(ino, 0, 1 << 20) == wanted
        other = walk(system, "fragmented")
        assert not system.fits(other, 6_000_000)  # its extents are in a tree
    repair_finds_nothing(disk)
    after = kernel(disk)
    unchanged(before, after, b"reserved")
    assert after[b"reserved"][11] == digest(wanted)


def test_attributes(disk: Path) -> None:
    before = kernel(disk)
    with images.opened(disk, writable=True) as system:
        config, listed, many = walk(system, "config"), walk(system, "listed"), walk(system, "many")
        system.set_attributes(config, NOW, mode=0o4755, uid=1000, gid=2_000_000_000, atime=5, mtime=-1_000_000_000)
        system.set_xattr(config, b"security.selinux", b"system_u:object_r:etc_t:s0\0", NOW)
        system.set_xattr(config, b"user.new", b"n", NOW)
        system.set_attributes(listed, NOW, mode=0o604)
        big = bytes(range(250)) * 80
        system.set_xattr(many, b"user.7", b"z" * 100, NOW)
        system.set_xattr(many, b"user.big", big, NOW)
        with pytest.raises(GuestError):
            system.set_xattr(many, b"user.7", b"z" * 101, NOW)
        with pytest.raises(GuestError) as missing:
            system.remove_xattr(many, b"user.none", NOW)
        assert missing.value.errno == errno.ENODATA
        system.set_attributes(walk(system, "folder"), NOW, mode=0o700, mtime=NOW)
        system.set_label("ROOTFS")
        shown = images.our_facts(system)
        system.sync()
    repair_finds_nothing(disk)
    after = kernel(disk)
    for path, facts in after.items():
        assert shown[path] == facts, path
    unchanged(before, after, b"config", b"listed", b"many", b"folder")
    assert after[b"config"][1:10] == (
        stat.S_IFREG | 0o4755, 1, 1000, 2_000_000_000, 0, 200, *before[b"config"][7:9], -1_000_000_000,
    )  # fmt: skip
    assert after[b"config"][12] == {b"security.selinux": b"system_u:object_r:etc_t:s0\0", b"user.new": b"n"}
    assert after[b"many"][12][b"user.big"] == big  # type: ignore[index]
    with images.opened(disk) as system:
        assert system.label == "ROOTFS"


def test_chmod_as_the_kernel(disk: Path) -> None:
    other = disk.with_name("other")
    images.copied(disk, other)
    with images.mounted(other, disk.parent / "mnt") as root:
        os.chmod(root / "listed", 0o640)
        os.chmod(root / "config", 0o6775)
        os.chown(root / "config", 1, 2)
        os.removexattr(root / "config", "security.selinux")
    with images.opened(disk, writable=True) as system:
        system.set_attributes(walk(system, "listed"), NOW, mode=0o640)
        system.set_attributes(walk(system, "config"), NOW, mode=0o6775)
        system.set_attributes(walk(system, "config"), NOW, uid=1, gid=2)
        system.remove_xattr(walk(system, "config"), b"security.selinux", NOW)
        system.sync()
    repair_finds_nothing(disk)
    ours, theirs = kernel(disk), kernel(other)
    for path in (b"listed", b"config"):
        assert ours[path][:10] == theirs[path][:10] and ours[path][11:] == theirs[path][11:]


def test_nothing_without_sync(disk: Path) -> None:
    raw = hashlib.sha1(disk.read_bytes()).digest()
    with images.opened(disk, writable=True) as system:
        config = walk(system, "config")
        old = system.stat(config)
        system.write(config, 0, b"changed", NOW)
        system.set_attributes(config, NOW, mode=0)
        system.discard_changes()
        assert system.stat(config).mode == old.mode and system.stat(config).mtime == old.mtime
        assert system.read(config, 0, 7) == b"ONBOOT="
        system.write(config, 0, b"changed", NOW)
    assert hashlib.sha1(disk.read_bytes()).digest() == raw
    with images.opened(disk) as system, pytest.raises(GuestError) as refused:
        system.write(walk(system, "config"), 0, b"x", NOW)
    assert refused.value.errno == errno.EROFS


def test_random_edits(disk: Path) -> None:
    """Writes and truncations in any order: as the same on bytes in memory."""
    chance = random.Random(11)
    with images.opened(disk, writable=True) as system:
        names = ["config", "odd", "plain", "reserved", "fragmented"]
        model = {name: bytearray(system.read(walk(system, name), 0, 1 << 24)) for name in names}
        done = 0
        for step in range(200):
            name = chance.choice(names)
            ino, content = walk(system, name), model[name]
            if chance.random() < 0.3:
                size = chance.randrange(len(content) + 5000)
                system.truncate(ino, size, NOW + step)
                del content[size:]
                content.extend(bytes(size - len(content)))
            else:
                offset = chance.randrange(len(content) + 2000)
                data = chance.randbytes(chance.choice((1, 500, 5000, 20_000)))
                try:
                    system.write(ino, offset, data, NOW + step)
                except GuestError as error:
                    assert error.errno == errno.EOPNOTSUPP
                    continue
                content.extend(bytes(max(0, offset - len(content))))
                content[offset : offset + len(data)] = data
            done += 1
            if chance.random() < 0.05:
                system.sync()
            if step % 20 == 0:
                for each in names:
                    assert system.read(walk(system, each), 0, 1 << 24) == model[each], (step, each)
        system.sync()
        assert done > 60
    repair_finds_nothing(disk)
    after = kernel(disk)
    for name in names:
        assert after[name.encode()][11] == digest(bytes(model[name])), name


def test_clones_are_refused(tmp_path: Path) -> None:
    import fcntl

    disk = images.make(tmp_path / "disk", 300 << 20, "-m", "reflink=1")
    with images.mounted(disk, tmp_path / "mnt") as root:
        (root / "a").write_bytes(b"x" * 10_000)
        with open(root / "a", "rb") as source, open(root / "b", "wb") as target:
            fcntl.ioctl(target.fileno(), images.FICLONE, source.fileno())
    with images.opened(disk, writable=True) as system:
        for name in ("a", "b"):
            assert not system.fits(walk(system, name), 10)
            with pytest.raises(GuestError) as refused:
                system.write(walk(system, name), 0, b"y", NOW)
            assert refused.value.errno == errno.EOPNOTSUPP and "shares" in str(refused.value)


def test_allocation_is_refused(disk: Path) -> None:
    with images.opened(disk, writable=True) as system:
        root = system.root
        for attempt in (
            lambda: system.create(root, b"new", stat.S_IFREG | 0o644, 0, 0, NOW),
            lambda: system.unlink(root, b"plain", NOW),
            lambda: system.rename(root, b"plain", root, b"x", NOW),
            lambda: system.link(walk(system, "plain"), root, b"x", NOW),
            lambda: system.rmdir(root, b"folder", NOW),
        ):
            with pytest.raises(GuestError) as refused:
                attempt()
            assert refused.value.errno == errno.EOPNOTSUPP and refused.value.hint
        with pytest.raises(CowshedError):
            system.write(walk(system, "folder"), 0, b"x", NOW)
