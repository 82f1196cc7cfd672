"""guestfish's commands for ext file systems print what the real one printed for them."""

from __future__ import annotations

import subprocess
from pathlib import Path

import judges
from guestfish_beside import ENVIRONMENT
from test_guest_ext import clean, image


def _fish(script: str, *disks: Path) -> tuple[str, list[str]]:
    """What is printed, and the errors without where they are from."""
    import sys

    argv = [sys.executable, "-m", "cowshed", "guestfish", *(word for disk in disks for word in ("-a", str(disk)))]
    done = subprocess.run(argv, input=f"run\n{script}", capture_output=True, text=True, env=ENVIRONMENT)
    return done.stdout, done.stderr.replace("*stdin*:", "\0").split("\0")[1:]


def _texts(errors: list[str]) -> list[str]:
    return [error.partition("libguestfs: error: ")[2].rstrip("\n") for error in errors]


def test_parameters(tmp_path: Path) -> None:
    path = image(tmp_path / "disk.img", 200 << 20, "-t", "ext4", "-L", "lab")
    empty = tmp_path / "empty.img"
    empty.write_bytes(bytes(4 << 20))
    out, errors = _fish(
        "tune2fs /dev/sda maxmountcount:20 mountcount:3 intervalbetweenchecks:90000 group:5 user:6 "
        "reservedblockscount:777 lastmounteddirectory:/foo errorbehavior:remount-ro\n"
        "tune2fs-l /dev/sda\n-tune2fs /dev/sda errorbehavior:bad\n-tune2fs /dev/sda reservedblockscount:999999999\n"
        "-tune2fs /dev/sda maxmountcount:-1\n-tune2fs /dev/sdb maxmountcount:3\n-tune2fs-l /dev/sdb\n",
        path,
        empty,
    )
    rows = dict(line.split(": ", 1) for line in out.splitlines())
    assert rows["Filesystem volume name"] == "lab"
    assert rows["Last mounted on"] == "/foo"
    assert rows["Errors behavior"] == "Remount read-only"
    assert rows["Check interval"] == "90000 (1 day, 1:00:00)"
    assert rows["Reserved blocks uid"] == "6 (user unknown)"
    assert rows["Reserved block count"] == "777"
    assert _texts(errors) == [
        "tune2fs: invalid errorbehavior parameter: bad",
        "tune2fs: /dev/sda: tune2fs: reserved blocks count is too big (999999999)",
        "tune2fs: maxmountcount cannot be negative",
        "tune2fs: /dev/sdb: tune2fs: Bad magic number in super-block while trying to open /dev/sdb",
        "tune2fs_l: tune2fs: Bad magic number in super-block while trying to open /dev/sdb",
    ]
    clean(path)


def test_attributes(tmp_path: Path) -> None:
    path = image(tmp_path / "disk.img", 64 << 20, "-t", "ext4")
    out, errors = _fish(
        "mount /dev/sda /\ntouch /f\nmkdir /d\nln-s /f /l\nget-e2attrs /f\nset-e2attrs /f aiu\nget-e2attrs /f\n"
        "-set-e2attrs /f d\n-write /f foo\n-set-e2attrs /f a clear:true\nset-e2attrs /f i clear:true\n"
        "-set-e2attrs /f aa\n-get-e2attrs /nosuch\n-get-e2attrs /l\nset-e2attrs /d AcdDsSTj\nget-e2attrs /d\n"
        "-zerofree /dev/sda\n",
        path,
    )
    assert out.split() == ["e", "aeiu", "ADSTcdejs"]
    assert _texts(errors) == [
        "set_e2attrs: chattr: /f: chattr: Operation not permitted while setting flags on /sysroot/f",
        "internal_write: open: /f: Operation not permitted",
        "set_e2attrs: chattr: /f: chattr: Operation not permitted while setting flags on /sysroot/f",
        "set_e2attrs: duplicate file attribute 'a'",
        "get_e2attrs: lsattr: /nosuch: lsattr: No such file or directory while trying to stat /sysroot/nosuch",
        "get_e2attrs: lsattr: /l: lsattr: Operation not supported While reading flags on /sysroot/l",
        "zerofree: /dev/sda: zerofree: filesystem /dev/sda is mounted rw",
    ]
    clean(path)


def test_making_growing_and_checking(tmp_path: Path) -> None:
    path = tmp_path / "disk.img"
    path.write_bytes(b"")
    with open(path, "r+b") as file:
        file.truncate(100 << 20)
    out, errors = _fish(
        "-mke2fs /dev/sda fstype:ext9\n-mke2fs /dev/sda blocksize:1000\n-mke2fs /dev/sda blockspergroup:100\n"
        "-mke2fs /dev/sda inodesize:100\n-mke2fs /dev/sda bytesperinode:100\n-mke2fs /dev/sda creatoros:foo\n"
        "-mke2fs /dev/sda reservedblockspercentage:60\n-mke2fs /dev/sda journalsize:90 fstype:ext4\n"
        "mke2fs /dev/sda fstype:ext4 blockscount:60000 label:new uuid:11111111-2222-3333-4444-555555555555\n"
        "resize2fs-size /dev/sda 80M\n-resize2fs-size /dev/sda 1000\n-resize2fs-size /dev/sda 400M\n"
        "resize2fs /dev/sda\nzerofree /dev/sda\nfsck ext4 /dev/sda\n-e2fsck /dev/sda\n"
        "-e2fsck /dev/sda correct:true forceall:true\n"
        "e2fsck /dev/sda correct:true\ne2fsck-f /dev/sda\nmount /dev/sda /\nzero-free-space /\nfsck ext4 /dev/sda\n"
        "-e2fsck-f /dev/sda\n",
        path,
    )
    assert out == "0\n0x8\n"
    assert _texts(errors) == [
        "mke2fs: ext9: not a valid extended filesystem type",
        "mke2fs: /dev/sda: mke2fs: invalid block size - 1000",
        "mke2fs: /dev/sda: mke2fs: blocks per group must be multiple of 8",
        "mke2fs: /dev/sda: mke2fs: invalid inode size 100 (min 128/max 1024)",
        "mke2fs: /dev/sda: mke2fs: invalid inode ratio 100 (min 1024/max 67108864)",
        "mke2fs: /dev/sda: mke2fs: unknown os - foo",
        "mke2fs: /dev/sda: mke2fs: invalid reserved blocks percent - 60",
        "mke2fs: /dev/sda: Total journal size too big for filesystem.",
        "resize2fs_size: 1000: size must be a round number of kilobytes",
        "resize2fs_size: The containing partition (or device) is only 102400 (1k) blocks.\n"
        "You requested a new size of 409600 blocks.",
        "e2fsck: e2fsck: need terminal for interactive repairs",
        "e2fsck: only one of the options 'correct', 'forceall' may be specified",
        "e2fsck_f: /dev/sda is mounted.\ne2fsck: Cannot continue, aborting.",
    ]
    clean(path)
    told = judges.run("dumpe2fs", "-h", path).stdout
    assert "Block count:              102400" in told
    judges.run("debugfs", "-w", "-R", "sif <2> links_count 99", path)
    judges.run("debugfs", "-w", "-R", "ssv state 0", path)
    out, errors = _fish("fsck ext4 /dev/sda\n-e2fsck-f /dev/sda\n", path)
    assert out == "0x4\n"
    assert "Inode 2 ref count is 99, should be 3." in errors[0]
