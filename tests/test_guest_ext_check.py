"""The check finds nothing where e2fsck finds nothing, and something where e2fsck finds something."""

from __future__ import annotations

import os
import random
import subprocess
from pathlib import Path

import pytest

import judges
from cowshed.errors import CowshedError
from cowshed.guest.filesystem.ext.check import Check, check
from test_guest_ext import clean, image, mounted, opened

LAYOUTS = {
    "ext2": ("-t", "ext2", "-b", "1024"),
    "ext3": ("-t", "ext3", "-b", "4096"),
    "ext4": ("-t", "ext4", "-b", "1024", "-O", "ea_inode,large_dir"),
    "inline": ("-t", "ext4", "-O", "inline_data,metadata_csum_seed"),
    "maps": ("-t", "ext4", "-O", "^extent,^64bit"),
    "uninit_bg": ("-t", "ext4", "-O", "^metadata_csum,uninit_bg"),
    "meta_bg": ("-t", "ext4", "-O", "meta_bg,^resize_inode"),
    "orphan_file": ("-t", "ext4", "-O", "orphan_file"),
    "small inodes": ("-t", "ext4", "-I", "128"),
    "no journal": ("-t", "ext4", "-O", "^has_journal,^filetype"),
}


def _work(path: Path) -> None:
    with mounted(path) as top:
        folder = top / "many"
        folder.mkdir()
        for number in range(700):
            (folder / f"file-{number}-{'n' * (number % 50)}").write_bytes(b"x" * number)
        for number in range(0, 700, 3):
            (folder / f"file-{number}-{'n' * (number % 50)}").unlink()
        for number in range(5):
            (top / f"folder-{number}" / "below").mkdir(parents=True)
            os.symlink("t" * (50 + number * 5), top / f"link-{number}")
            os.link(folder / "file-1-n", top / f"hard-{number}")
        big = top / "big"
        with open(big, "wb") as file:
            for number in range(300):
                file.seek(number * 9000)
                file.write(b"y" * 3000)
        for number in range(4):
            os.setxattr(top / f"folder-{number}", b"user.a", b"v" * 600)
            os.setxattr(big, b"user.%d" % number, b"w" * 100)
        os.mknod(top / "device", 0o20600, os.makedev(1, 3))
        os.mkfifo(top / "fifo")


@pytest.mark.parametrize("layout", LAYOUTS)
def test_nothing_is_found_in_what_the_kernel_wrote(layout: str, tmp_path: Path) -> None:
    path = image(tmp_path / "disk.img", 48 << 20, *LAYOUTS[layout])
    _work(path)
    clean(path)
    with opened(path) as fs:
        found = Check(fs).run()
        assert (found.problems, found.count) == ([], 0)
        assert check(fs, force=True) == (0, [])


#: what debugfs is told to do, and what is said about it
DAMAGE = {
    "sif <2> links_count 99": "Inode 2 ref count is 99, should be",
    "sif /big links_count 3": "ref count is 3, should be 1.",
    "sif /big blocks 4": "i_blocks is 4, should be",
    "sif /many size 2048": "i_size is 2048, should be",
    "clri /folder-1": "deleted/unused inode",
    "freei /big": "Inode bitmap differences",
    "freeb 3000 50": "Block bitmap differences",
    "setb 16000 20": "Block bitmap differences",
    "unlink /folder-2": "Unconnected directory",
    "unlink /big": "Unattached inode",
    "ln /folder-1 /another": "has more than one name",
    "ssv free_blocks_count 77": "Free blocks count wrong (77",
    "ssv free_inodes_count 77": "Free inodes count wrong (77",
    "set_bg 1 free_blocks_count 5": "Free blocks count wrong for group #1 (5",
    "set_bg 0 used_dirs_count 77": "Directories count wrong for group #0 (77",
    "sif /big file_acl 9": "Multiply-claimed block(s)",
    "sif /link-0 mode 0100777": "incorrect filetype",
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_damage_is_found(damage: str, tmp_path: Path) -> None:
    path = image(tmp_path / "disk.img", 48 << 20, "-t", "ext4", "-b", "1024")
    _work(path)
    if damage.startswith("set_bg"):
        subprocess.run(
            [judges.need("debugfs"), "-w", "-f", "-", path],
            input=f"{damage}\nset_bg {damage.split()[1]} checksum calc\n",
            capture_output=True, text=True,
        )  # fmt: skip
    else:
        judges.run("debugfs", "-w", "-R", damage, path)
    done = subprocess.run([judges.need("e2fsck"), "-fn", path], capture_output=True, text=True)
    # wrong totals are mended by the way, without -n
    assert done.returncode & 4 or damage.startswith("ssv")
    before = path.read_bytes()
    with opened(path) as fs:
        code, problems = check(fs, force=True)
    assert code == 4
    assert any(DAMAGE[damage] in problem for problem in problems), problems
    if not damage.startswith("ssv"):
        with opened(path, writable=True) as fs:
            assert check(fs, force=True)[0] == 4
        assert path.read_bytes() == before


def test_totals_are_corrected(tmp_path: Path) -> None:
    path = image(tmp_path / "disk.img", 48 << 20, "-t", "ext4")
    judges.run("debugfs", "-w", "-R", "ssv free_blocks_count 77", path)
    with opened(path, writable=True) as fs:
        assert check(fs) == (0, [])
        code, problems = check(fs, force=True)
        assert code == 1 and len(problems) == 1
        assert check(fs, force=True) == (0, [])
    clean(path)


def test_one_that_was_not_unmounted(tmp_path: Path) -> None:
    path = image(tmp_path / "disk.img", 48 << 20, "-t", "ext2")
    judges.run("debugfs", "-w", "-R", "ssv state 0", path)
    with opened(path, writable=True) as fs:
        assert check(fs) == (0, [])
    clean(path)
    assert "Filesystem state:         clean" in judges.run("dumpe2fs", "-h", path).stdout


def test_random_damage_ends(tmp_path: Path) -> None:
    """Whatever is there, the check ends; and where e2fsck finds nothing, nothing is found."""
    path = image(
        tmp_path / "disk.img", 16 << 20, "-t", "ext4", "-O", "^metadata_csum,^64bit", "-b", "1024", "-N", "1500"
    )
    _work(path)
    whole = path.read_bytes()
    used = [at for at in range(1024, len(whole), 1024) if any(whole[at : at + 1024])]
    rng = random.Random(3)
    agreed = damaged = 0
    for _ in range(25):
        data = bytearray(whole)
        at = rng.choice(used[:400]) + rng.randrange(0, 1020, 4)
        data[at : at + 4] = rng.choice((b"\xff\xff\xff\xff", b"\0\0\0\0", b"\1\0\0\0"))
        path.write_bytes(data)
        done = subprocess.run([judges.need("e2fsck"), "-fn", path], capture_output=True, text=True)
        try:
            with opened(path) as fs:
                code = check(fs, force=True)[0]
        except CowshedError:
            code = 8
        if done.returncode:
            damaged += 1
            agreed += bool(code)
        else:
            assert not code, (at, data[at : at + 4])
    assert agreed >= damaged * 0.8, (agreed, damaged)
