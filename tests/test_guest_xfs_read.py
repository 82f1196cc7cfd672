"""XFS as mkfs.xfs makes it and the kernel fills it: every file, attribute and byte is what the kernel shows."""

from __future__ import annotations

import os
import random
import re
import subprocess
from pathlib import Path

import pytest

import judges
import xfs_images as images
from conftest import Figures
from cowshed.errors import FeatureError
from cowshed.guest.filesystem import xfs
from cowshed.guest.filesystem.xfs.attribute import PARENT, attributes

VARIANTS = {
    "default": (),
    "centos7": ("-m", "finobt=0,rmapbt=0,reflink=0,bigtime=0,inobtcount=0", "-i", "sparse=0"),
    "no-finobt": ("-m", "finobt=0,inobtcount=0,reflink=0"),
    "rmapbt": ("-m", "rmapbt=1,reflink=1"),
    "legacy-times": ("-m", "bigtime=0,inobtcount=0"),
    "nrext64": ("-i", "nrext64=1"),
    "inodes-1024": ("-i", "size=1024"),
    "inodes-2048": ("-i", "size=2048,maxpct=0"),
    "directories-8192": ("-n", "size=8192"),
    "directories-65536": ("-n", "size=65536", "-b", "size=1024"),
    "blocks-1024": ("-b", "size=1024"),
    "blocks-2048": ("-b", "size=2048", "-d", "agcount=6"),
    "blocks-16384": ("-b", "size=16384"),
    "blocks-65536": ("-b", "size=65536"),
    "sectors-4096": ("-s", "size=4096", "-d", "agcount=2"),
    "log-stripes": ("-d", "su=64k,sw=2,agcount=2", "-l", "su=64k,size=70m"),
}


@pytest.mark.parametrize("name", VARIANTS)
def test_kernel_shows_the_same(name: str, tmp_path: Path, figures: Figures) -> None:
    image = images.make(tmp_path / "disk", 400 << 20, *VARIANTS[name], "-L", "label-" + name[:6])
    with images.mounted(image, tmp_path / "mnt") as root:
        images.fill(root, seed=len(name))
    with images.mounted(image, tmp_path / "mnt") as root:
        wanted = images.kernel_facts(root)
        space = os.statvfs(root)
    with images.opened(image) as system:
        count = images.compare(system, wanted)
        figures.add("xfs: files compared with the kernel", count)
        found = system.statvfs()
        assert system.label == "label-" + name[:6]
        done = judges.run("xfs_db", "-r", "-c", "uuid", image)
        assert done.stdout.split()[-1] == system.uuid
        for field in ("bsize", "frsize", "blocks", "bfree", "bavail", "files", "ffree", "favail", "namemax"):
            assert getattr(found, field) == getattr(space, "f_" + field), field


def test_hundred_thousand_names(tmp_path: Path) -> None:
    image = images.make(tmp_path / "disk", 600 << 20, "-b", "size=1024")
    names = {f"{index:x}-{'n' * (index % 40)}".encode() for index in range(100_000)}
    with images.mounted(image, tmp_path / "mnt") as root:
        (root / "many").mkdir()
        (root / "one").touch()
        for name in names:
            os.link(root / "one", os.fsencode(root) + b"/many/" + name)
        gone = set(random.Random(3).sample(sorted(names), 20_000))
        for name in gone:
            os.unlink(os.fsencode(root) + b"/many/" + name)
    with images.opened(image) as system:
        folder = system.lookup(system.root, b"many")
        assert folder is not None
        one = system.lookup(system.root, b"one")
        assert {name for name, _, _ in system.entries(folder)} == names - gone | {b".", b".."}
        for name in random.Random(4).sample(sorted(names), 3000):
            assert system.lookup(folder, name) == (None if name in gone else one)
        assert system.lookup(folder, b"no such name") is None
        assert system.lookup(folder, b"..") == system.root


# ---- version 4, which not every kernel mounts: filled by mkfs.xfs and xfs_db


#: lengths of symbolic links
LINKS = (10, 150, 157, 400, 1023)


def v4_tree(
    folder: Path, most: int = 3000, links: tuple[int, ...] = LINKS
) -> tuple[Path, dict[bytes, bytes]]:
    """A prototype of mkfs.xfs and the contents of its files by path."""
    chance = random.Random(8)
    lines = ["/none", "0 0", "d--755 0 0"]
    contents: dict[bytes, bytes] = {}
    for size in (0, 1, 4096, 5000, 300_000):
        data = chance.randbytes(size)
        (folder / f"s{size}").write_bytes(data)
        lines.append(f"file{size} -u-640 {size % 1000} 7 {folder}/s{size}")
        contents[b"file%d" % size] = data
    (folder / "empty").touch()
    for count in (1, 10, 100, most):
        lines.append(f"dir{count} d--750 1 2")
        for index in range(count):
            lines.append(f"name-{index}-{'y' * (index % 50)} ---600 0 0 {folder}/empty")
            contents[b"dir%d/name-%d-%s" % (count, index, b"y" * (index % 50))] = b""
        lines.append("$")
    for length in links:
        lines.append(f"link{length} l--777 0 0 {'t' * length}")
    lines += ["char c--600 0 0 5 1", "block b--600 0 0 8 17", "fifo p--600 0 0", "$"]
    (folder / "proto").write_text("\n".join(lines) + "\n")
    return folder / "proto", contents


V4 = {
    "plain": (),
    "ftype": ("-n", "ftype=1"),
    "no-ftype": ("-n", "ftype=0", "-i", "size=256"),
    "blocks-512": ("-b", "size=512", "-n", "size=4096"),
    "attr-1": ("-i", "attr=1,projid32bit=0", "-l", "lazy-count=0"),
    "log-1": ("-l", "version=1"),
    "case-insensitive": ("-n", "version=ci"),
    "case-insensitive-5": ("-n", "version=ci"),
}


@pytest.mark.parametrize("name", V4)
def test_version_4(name: str, tmp_path: Path) -> None:
    # with checksums, this mkfs writes a long link's block without its header; xfs_repair complains of it too
    links = LINKS[:3] if name.endswith("-5") else LINKS
    proto, contents = v4_tree(tmp_path, links=links)
    image = images.make(
        tmp_path / "disk", 300 << 20, "-m", f"crc={int(name.endswith('-5'))}", *V4[name], "-p", str(proto)
    )
    with images.opened(image) as system:
        target = system.lookup(system.root, b"file5000")
    sets = [("short", 20), ("leaf", 200), ("big", 3000), ("remote", 30_000)]
    for index in range(1, 150):
        sets.append((f"many-{index:03}", index))
    commands = [x for key, size in sets for x in ("-c", f"attr_set -v {size} {key}")]
    commands += ["-c", "attr_set -r -v 9 rooted", "-c", "attr_set -s -v 8 secure"]
    with_attributes = name != "attr-1"  # xfs_db 6.1 crashes when it sets some there
    if with_attributes:
        judges.run("xfs_db", "-x", "-c", f"inode {target}", *commands, image)
    with images.opened(image) as system:
        found = images.our_facts(system)
        shown = {path: facts for path, facts in found.items() if facts[1] >> 12 == 0o10}  # type: ignore[operator]
        assert sorted(shown) == sorted(contents)
        for path, data in contents.items():
            ino = shown[path][0]
            assert system.read(ino, 0, 1 << 20) == data  # type: ignore[arg-type]
        for length in links:
            assert found[b"link%d" % length][11] == b"t" * length
        assert found[b"block"][5] == os.makedev(8, 17)
        assert found[b"file300000"][1:5] == (0o104640, 1, 0, 7)
        xattrs = found[b"file5000"][12]
        assert not with_attributes or xattrs == {
            **{b"user." + key.encode(): b"v" * size for key, size in sets},
            b"trusted.rooted": b"v" * 9,
            b"security.secure": b"v" * 8,
        }
        if "ci" in "".join(V4[name]):
            folder = system.lookup(system.root, b"DIR3000")
            assert folder == found[b"dir3000"][0]
            assert system.lookup(folder, b"NAME-7-YYYYYYY") == found[b"dir3000/name-7-yyyyyyy"][0]  # type: ignore
        else:
            assert system.lookup(system.root, b"DIR3000") is None
        # the same numbers that xfs_db reads
        out = judges.run("xfs_db", "-r", "-c", f"inode {target}", "-c", "print core", image).stdout
        facts = dict(re.findall(r"^core\.(\w+) = (\S+)", out, re.MULTILINE))
        assert int(facts["size"]) == 5000 and int(facts["nblocks"]) * system.block_size == found[b"file5000"][8] * 512  # type: ignore


def test_features_that_are_not_known(tmp_path: Path) -> None:
    image = images.make(tmp_path / "disk", 300 << 20)
    for bit, word in ((0x200, "zoned"), (0x400, "zone_gaps"), (0x100, "metadir"), (0x40000000, "0x40000000")):
        subprocess.run(
            [judges.need("xfs_db"), "-x", "-c", "sb 0", "-c", f"write -d features_incompat {bit | 3:#x}", image],
            check=True, capture_output=True,
        )  # fmt: skip
        with pytest.raises(FeatureError, match=word), images.opened(image):
            pass


def test_external_log(tmp_path: Path) -> None:
    other = tmp_path / "other"
    with open(other, "wb") as file:
        file.truncate(100 << 20)
    image = images.make(tmp_path / "disk", 300 << 20, "-f", "-l", f"logdev={other},size=70m")
    with pytest.raises(FeatureError, match="external log"), images.opened(image):
        pass


def test_realtime_device(tmp_path: Path) -> None:
    """What lies on another device is refused by name, everything else is read."""
    other = tmp_path / "other"
    with open(other, "wb") as file:
        file.truncate(100 << 20)
    proto, contents = v4_tree(tmp_path, 20)
    image = images.make(tmp_path / "disk", 300 << 20, "-f", "-r", f"rtdev={other}", "-p", str(proto))
    with images.opened(image) as system:
        away = system.lookup(system.root, b"file5000")
        assert system.superblock.rblocks  # type: ignore[attr-defined]
    judges.run("xfs_db", "-x", "-c", f"inode {away}", "-c", "write core.realtime 1", image)
    with images.opened(image) as system:
        assert away is not None and system.stat(away).size == 5000
        with pytest.raises(FeatureError, match=f"inode {away}.*realtime device"):
            system.read(away, 0, 10)
        ino = system.lookup(system.root, b"file4096")
        assert ino is not None and system.read(ino, 0, 5000) == contents[b"file4096"]


def test_parents_and_exchanges(tmp_path: Path) -> None:
    """Features younger than this mkfs.xfs, known to the kernel: attributes that name the parents are not shown, and
    stay when others change."""
    image = images.make(tmp_path / "disk", 300 << 20)
    judges.run("xfs_db", "-x", "-c", "sb 0", "-c", "write -d features_incompat 0xeb", image)
    with images.mounted(image, tmp_path / "mnt") as root:
        images.fill(root, names=300)
    with images.mounted(image, tmp_path / "mnt") as root:
        wanted = images.kernel_facts(root)
    with images.opened(image, writable=True) as system:
        images.compare(system, wanted)
        folder = system.lookup(system.root, b"files")
        assert folder is not None
        ino = system.lookup(folder, b"small")
        assert ino is not None
        inode = system.inode(ino)  # type: ignore[attr-defined]
        parents = [row.value for row in attributes(system.store, inode, None) if row.flags & PARENT]  # type: ignore
        assert len(parents) == 2 and not system.xattrs(ino)
        system.set_xattr(ino, b"user.new", b"1", 10**18)
        system.write(ino, 0, b"HELLO", 10**18)
        system.sync()
        system.remove_xattr(ino, b"user.new", 10**18)
        system.sync()
        inode = system.inode(ino)  # type: ignore[attr-defined]
        assert parents == [row.value for row in attributes(system.store, inode, None) if row.flags & PARENT]  # type: ignore
        shown = images.our_facts(system)
    with images.mounted(image, tmp_path / "mnt") as root:
        assert images.kernel_facts(root) == shown
        (root / "links" / "hard").unlink()  # the kernel finds what it takes away


def test_imports_are_light() -> None:
    heavy = ("dataclasses", "typing", "re", "json", "argparse", "logging", "numpy", "tempfile")
    code = (
        "import sys; before = set(sys.modules); import cowshed.guest.filesystem.xfs.filesystem; "
        f"print([m for m in {heavy} if m in sys.modules and m not in before])"
    )
    import sys

    done = subprocess.run([sys.executable, "-I", "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
    assert xfs.open.__doc__
