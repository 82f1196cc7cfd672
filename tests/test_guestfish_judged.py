"""guestfish beside the real one: the same commands on the same disks, each command's output compared with ours."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import judges
from cowshed.cli.guestfish.table import Command, commands, find
from guestfish_beside import ENVIRONMENT, Pair, differences, main_disk, read_lines

#: where we differ on purpose
CHOSEN = {
    # a string ends at the first zero byte there
    "cat /md/copied", "cat /md/up",
    # whose device nodes nobody asked for
    "copy-out /dir $HOST/out",
    # one message is enough
    "download /dir/hello /nope/dl",
}  # fmt: skip

root = pytest.mark.skipif(os.geteuid() != 0, reason="loop devices, and device nodes for the guest, need root")


# ---- before there is a machine

#: a word that stands for an argument of each type
_WORDS = {
    "path": "/a", "device": "/dev/sda", "mountable": "/dev/sda1", "place": "/a", "string": "s", "bytes": "b",
    "int": "1", "int64": "1", "bool": "true", "in": "/etc/hostname", "out": "-", "list": '"a b"', "names": '"a b"',
    "words": "w", "guid": "s",
}  # fmt: skip

#: newer than the release that we are compared with, or of its library alone
_NEWER = ("inspect-get-build-id", "is-launching", "is-ready")

#: they end the session, ask for keys, or have other arguments here
_APART = ("add-domain", "kill-subprocess", "cryptsetup-open", "luks-open", "luks-open-ro", "supported")


def misused(known: Command) -> list[str]:
    """A command with too few and too many arguments, with each of its options, and before `run`."""
    if known.module == "local" or known.name in (*_NEWER, *_APART):
        return []
    fixed = [_WORDS[one.type] for one in known.arguments if not one.optional]
    endless = any(one.type == "words" for one in known.arguments)
    if known.module == "refused":
        return []
    lines = []
    for name in known.names:
        whole = " ".join([name, *fixed])
        if fixed:
            lines.append(name)
        if not endless:
            lines.append(" ".join([name, *["x"] * (len(fixed) + 1)]))
        if known.module != "settings" and name not in ("launch", "run", "shutdown"):
            lines.append(whole)
        if fixed and known.module != "settings":
            lines.append(f"{whole} nosuch:1")
        for one in known.arguments:
            if one.optional:
                word = _WORDS[one.type].replace('"', "")
                lines.append(f"{whole} {one.name}:{word}")
        for one in known.arguments:
            if one.type in ("int", "int64"):
                words = ["99999999999" if other is one else _WORDS[other.type] for other in known.arguments
                         if not other.optional]  # fmt: skip
                lines.append(" ".join([name, *words, *([f"{one.name}:99999999999"] if one.optional else [])]))
    return lines


def test_misused_commands_are_refused_as_there(tmp_path: Path, figures: Any) -> None:
    lines = [line for known in commands() for line in misused(known)]
    same, differ = differences(Pair(tmp_path, []).run(lines, begin=""), lambda command: False)
    assert not differ, "\n".join(differ)
    assert same >= 1000
    figures.add("guestfish: misused commands compared", same)


#: names that the original knows without listing them
_HIDDEN = (
    "add-drive-opts", "btrfs-subvolume-create-opts", "btrfs-subvolume-snapshot-opts", "glob-expand-opts", "grep-opts",
    "is-blockdev-opts", "is-chardev-opts", "is-dir-opts", "is-fifo-opts", "is-file-opts", "is-socket-opts", "mkfs-opts",
    "mkswap-opts", "ntfsresize-opts", "tar-in-opts", "tar-out-opts", "umount-opts", "exit", "q",
)  # fmt: skip


def test_every_command_of_the_original_is_carried_out_or_refused_with_a_reason(figures: Any) -> None:
    told = subprocess.run([judges.need("guestfish"), "-h"], capture_output=True, text=True, check=True).stdout
    rows = [line.split(maxsplit=1) for line in told.splitlines()[1:]]
    names = [name for name, _ in rows if name != "Use"]
    assert len(names) > 600
    known = {name: find(name) for name in (*names, *_HIDDEN)}
    assert not [name for name, one in known.items() if one is None]
    # an alias there is one here, of the same command
    for name, what in rows:
        if what.startswith("alias for '") and name not in ("emacs", "less", "vi"):
            assert known[name] is find(what.split("'")[1]), name
    # nothing else takes their names
    ours = {name for one in commands() for name in one.names}
    assert ours - set(names) - set(_HIDDEN) == set(_NEWER)
    refused = {one.name: one for one in known.values() if one is not None and one.module == "refused"}
    assert all(len(one.help) > 20 for one in refused.values())
    figures.add("guestfish: commands of the original", len(names))
    figures.add("guestfish: of these refused, with the reason", len({name for name in names if find(name) in
                                                                     refused.values()}))  # fmt: skip


#: where we say what is wrong
_CLEARER = (
    "disk-create $HOST/d.qcow2 qcow2 1M preallocation:foo", "disk-create /nope/e.qcow2 qcow2 1M",
    "disk-format $HOST/nosuch", "disk-virtual-size $HOST/nosuch", "disk-has-backing-file $HOST/nosuch",
    "add $HOST/a.qcow2 protocol:nbd",
)  # fmt: skip


def test_what_needs_no_machine_prints_what_the_real_one_prints(tmp_path: Path, figures: Any) -> None:
    found = Pair(tmp_path, []).run(read_lines("guestfish_local_commands.txt"), begin="")
    same, differ = differences(found, lambda command: command in _CLEARER)
    assert not differ, "\n".join(differ)
    assert same >= 250
    figures.add("guestfish: commands without a machine compared", same)


_TOOLS = (
    "virt-cat", "virt-ls", "virt-edit", "virt-inspector", "virt-tail", "virt-copy-in", "virt-copy-out", "virt-tar-in",
    "virt-tar-out", "virt-df", "virt-filesystems",
)  # fmt: skip

#: what each tool refuses, or says, before it looks into a disk
_EACH = (
    "", "--nosuch", "-Z", "-a", "--connect", "--version", "--ver", "-a /nope/x.img", "-a d.img -a /nope/y /x",
    "--version=1",
)  # fmt: skip

_ONE_BY_ONE = """
virt-edit -e
virt-edit -b
virt-edit -a d.img -e s/a/b/
virt-edit /nope/x /y
virt-cat --key
virt-cat --echo-keys=1
virt-cat --keys-from-stdin=x
virt-cat -m
virt-cat -a d.img
virt-cat /nope/x.img /x
virt-ls -a d.img
virt-ls --times -a d.img /
virt-ls --checksum=foo -a d.img /
virt-ls --csv -a d.img /
virt-ls -l --csv -a d.img /
virt-ls -R --uids -a d.img /
virt-ls --csv -h -lR -a d.img /
virt-ls -lR --csv -a /nope/x /
virt-ls /nope/x /
virt-ls --csv=1
virt-df -h --csv -a /nope/x
virt-df -h --csv -a d.img
virt-df --uuid -a /nope/x
virt-df -i -h -a /nope/x
virt-df /nope/x.img
virt-filesystems extra
virt-filesystems /nope/x
virt-filesystems -a d.img relative x
virt-filesystems --csv -l -h -a /nope/x
virt-filesystems --csv -l -h -a d.img
virt-filesystems -l --nosuch
virt-inspector --xpath
virt-inspector -a /nope/x --no-icon
virt-inspector /nope/x
virt-tail -f -a /nope/x /a
virt-tail --f -m x:/ -a /nope/x /a
virt-df -Px -a /nope/x
virt-df -P
virt-df -P 3 -a /nope/x
virt-df --key x -a d.img
virt-df -m /dev/sda -a d.img
virt-df --echo-keys
virt-inspector -m /dev/sda -a d.img
virt-inspector --trace
virt-filesystems --mount x
virt-filesystems --key x -a /nope/x
virt-edit --edit
virt-edit --e x -a /nope/x /a
virt-ls --ti -a d.img /
virt-ls --checksums --uid --extra-stat --time -a d.img /
virt-copy-in --nosuch
virt-copy-in -n -a
virt-copy-out --ro --pipe-error -a /nope/x /a /b
virt-tar-in --rw -N -a d.img
virt-tar-out -f /nope/x --format=
virt-tar-out --progress-bars -a /nope/x /a -
virt-log -m /dev/sda
virt-log --key
virt-log -a /nope/x
guestfish --nosuch
guestfish -Z
guestfish -a
guestfish -a /nope/x
guestfish -d
guestfish -f
guestfish -f /nope.gf
guestfish -m
guestfish -N
guestfish -N nosuch
guestfish --key
guestfish --key bad
guestfish --blocksize=5
guestfish -h nosuch
guestfish --remote=x quit
guestfish -V
guestfish --version
guestfish --fo
guestfish --r
guestfish nosuch
guestfish cat
guestfish run
guestfish -a d.img cat /x
guestfish -a d.img -- cat
guestfish --version=1
guestfish --keys-from-stdin=1
guestfish -- -cat /x
guestfish cat /x : echo no
guestfish -- -cat /x : echo yes
guestfish echo one : echo two
guestfish echo one : nosuch : echo two
"""


def _ours(told: str) -> str:
    """Without a reason where the original only says where to read on; releases and how it was called aside."""
    told = re.sub(r"(\d+\.\d+\.\d+)", "RELEASE", re.sub(r"/usr/bin/(?=virt-|guestfish: )", "", told))
    lacking = (
        r"[\w-]+: (?:error: )?(?:you must specify at least one -a.*|missing file ?names.*|missing directory names)\n"
        r"(?:Please specify at least one file to follow\.\n)?(?=Try )"
    )
    return re.sub(lacking, "", told)


def test_tools_have_the_options_that_the_real_ones_have() -> None:
    for tool in (*_TOOLS, "virt-log"):
        for kind in ("--long-options", "--short-options"):
            told = [
                subprocess.run([*argv, kind], capture_output=True, text=True, check=True).stdout
                for argv in ([judges.need(tool)], [sys.executable, "-m", "cowshed", tool])
            ]
            assert sorted(told[0].split()) == sorted(told[1].split()), (tool, kind)


def test_tools_refuse_what_the_real_ones_refuse(tmp_path: Path, figures: Any) -> None:
    with (tmp_path / "d.img").open("wb") as file:
        file.truncate(1 << 20)
    calls = [f"{tool} {words}".split() for tool in _TOOLS for words in _EACH]
    calls += [line.split() for line in _ONE_BY_ONE.split("\n") if line]
    # nothing is to start a machine, or to ask a libvirt, here
    env = {**ENVIRONMENT, "HOME": str(tmp_path), "LIBGUESTFS_PATH": "/nonexistent"}
    differ = []
    same = 0
    for words in calls:
        outcomes = []
        for argv in ([judges.need(words[0]), *words[1:]], [sys.executable, "-m", "cowshed", *words]):
            done = subprocess.run(
                argv, cwd=tmp_path, env=env, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60
            )
            outcomes.append((done.returncode, _ours(done.stdout), _ours(done.stderr)))
        if "libvirt" in outcomes[0][2]:
            continue
        if outcomes[0] == outcomes[1]:
            same += 1
        else:
            differ.append(f"{words}\n  real: {outcomes[0]!r}\n  ours: {outcomes[1]!r}")
    assert not differ, "\n".join(differ)
    assert same >= 150
    figures.add("guestfish: refused calls of tools compared", same)


# ---- a machine of it, and files of ours


@root
@pytest.mark.timeout(900)
def test_commands_print_what_the_real_ones_print(tmp_path: Path, figures: Any) -> None:
    lines = read_lines("guestfish_commands.txt")
    pair = Pair(tmp_path, [main_disk(tmp_path)])
    same, differ = differences(pair.run(lines), lambda command: command in CHOSEN)
    assert not differ, "\n".join(differ)
    assert same >= 300
    figures.add("guestfish: commands compared", same)
    assert_same_copies(pair.host["real"] / "out/dir", pair.host["ours"] / "out/dir")
    judges.run("e2fsck", "-fn", _volume(pair))


#: where we differ on purpose in the long list
CHOSEN_LONG = {
    # the original's own machine: what it has, what its kernel counts, names and numbers that are made up anew
    "available-all-groups", "drop-caches 0", "mktemp /nope/tmpXXXXXX", "lstat /big", "statvfs /boot", "statvfs /fat",
    # it was mounted for writing: there the journal is open
    "file /dev/sda1", "checksum-device md5 /dev/sda1",
    # nothing need be mounted here
    "inspect-list-applications /dev/VG/root",
    # which words tell that a directory is no file, that nothing is there, or what is wrong with a pattern
    'lxattrlist /nope "etc"', "checksum md5 /dir", "head /dir", "wc-w /dir", "wc-c /dir", "grep hello /dir",
    "is-zero /dir", "equal /dir /dir", "equal /nope /dir/hello", "equal /dir/hello /nope", 'grep "[" /dir/hello',
    "case-sensitive-path /etc/hostname/x", "compress-out gzip /nope $HOST/c.foo", "tar-in $HOST/up /txz",
    "luks-uuid /dev/sda1",
    # what is mounted elsewhere is said before what kind it is
    'mount-vfs "" nosuch /dev/sda1 /etc', 'mount-vfs "" xfs /dev/sda1 /etc',
    # tune2fs wants a fresh check first there; the checksums are counted anew here
    "set-e2uuid /dev/sda1 01234567-0123-0123-0123-0123456789ab", "vfs-uuid /dev/sda1", "set-e2uuid /dev/sda1 bad",
    "set-uuid /dev/sda1 bad", "set-uuid-random /dev/sda1", "set-e2label /dev/sdc X",
    # no mke2fs, parted, sgdisk and sfdisk speak here
    "mkfs ext2 /dev/sdc inode:100", "mkfs ext2 /dev/sdc features:nosuch", "mkfs nosuch /dev/sdc",
    "mkfs ext4 /dev/VG/root", "part-add /dev/sdb p 20480 40959", "part-get-gpt-type /dev/sdb 9",
    "part-get-mbr-part-type /dev/sdb 9", "part-get-mbr-id /dev/sdb 9", "part-list /dev/VG/root",
    "part-add /dev/sda1 p 1 2", "part-expand-gpt /dev/sdb",
    # the first digits of a GUID are no type byte; an MBR has no GUIDs; a disk without a table has no partition
    "part-get-mbr-id /dev/sdb 1", "part-get-gpt-guid /dev/sdb 1", "part-get-gpt-attributes /dev/sdb 1",
    "part-get-disk-guid /dev/sdb", "part-list /dev/sdc", "part-get-parttype /dev/sdc",
}  # fmt: skip


# minutes of an emulated machine
@root
@pytest.mark.torture
@pytest.mark.timeout(3600)
def test_slow_commands_print_what_the_real_ones_print(tmp_path: Path, figures: Any) -> None:
    disks = [main_disk(tmp_path)]
    for number, size in enumerate((32, 16)):
        path = tmp_path / f"empty{number}.img"
        with path.open("wb") as file:
            file.truncate(size << 20)
        disks.append(path)
    found = Pair(tmp_path, disks).run(read_lines("guestfish_commands_long.txt"))
    same, differ = differences(found, lambda command: command in CHOSEN_LONG)
    assert not differ, "\n".join(differ)
    assert same >= 500
    figures.add("guestfish: slow commands compared", same)


@root
@pytest.mark.torture
@pytest.mark.timeout(1800)
def test_commands_of_old_print_what_the_real_ones_print(tmp_path: Path, figures: Any) -> None:
    disks = [main_disk(tmp_path)]
    makers = (
        ("noted", 32, ["mkfs.ext4", "-q", "-F", "-O", "^metadata_csum"]), ("empty", 16, []),
        ("xfs", 300, ["mkfs.xfs", "-q", "-L", "xlab"]), ("iso", 0, []), ("fat", 16, ["mkfs.vfat"]),
    )  # fmt: skip
    for name, size, argv in makers:
        path = tmp_path / f"{name}.img"
        disks.append(path)
        with path.open("wb") as file:
            file.truncate(size << 20)
        if argv:
            judges.run(*argv, path)
    program = [judges.need("genisoimage"), "-quiet", "-J", "-R", "-V", "MYVOL", "-o", tmp_path / "iso.img"]
    subprocess.run([*program, tmp_path / "tree/etc"], check=True, env={**os.environ, "TZ": "America/New_York"})
    found = Pair(tmp_path, disks).run(read_lines("guestfish_commands_old.txt"))
    same, differ = differences(found, lambda command: False)
    assert not differ, "\n".join(differ)
    figures.add("guestfish: commands of old compared", same)
    assert same > 120


def assert_same_copies(real: Path, ours: Path) -> None:
    """What was copied out is the same, device nodes aside."""
    for path in sorted(real.rglob("*")):
        mine = ours / path.relative_to(real)
        if path.is_fifo() or path.is_char_device():
            assert not mine.exists()
        elif path.is_symlink():
            assert os.readlink(path) == os.readlink(mine)
        elif path.is_file():
            assert path.read_bytes() == mine.read_bytes() and path.stat().st_mode == mine.stat().st_mode


def _volume(pair: Pair) -> Path:
    """What we changed, for e2fsck: the bytes of the root volume."""
    from cowshed.guest.session import Session

    out = pair.folder / "root.img"
    with Session(readonly=True) as session:
        session.add(str(pair.disks["ours"][0]), fmt="raw")
        session.run()
        node = session.devices.open("/dev/VG/root")
        with out.open("wb") as file:
            for at in range(0, node.size, 1 << 20):
                file.write(node.read(at, min(1 << 20, node.size - at)))
    return out


@root
@pytest.mark.torture
@pytest.mark.timeout(900)
@pytest.mark.parametrize(
    "call",
    [
        "virt-df -a disk.img -P 2", "virt-ls -a disk.img -lR --csv --uid --extra-stat --time-t --checksums=crc /dir",
        "virt-tar-out -a disk.img /nope -", "virt-copy-out -a disk.img /etc/hostname /nope /tmp/cowshed-none",
        "virt-filesystems -a disk.img", "virt-filesystems -a disk.img -l",
        "virt-filesystems -a disk.img --parts --csv -l",
        "virt-filesystems -a disk.img --all --long --uuid", "virt-filesystems -a disk.img --all --long -h",
        "virt-filesystems -a disk.img --lvs --vgs --pvs -l --no-title", "virt-df -a disk.img", "virt-df -a disk.img -h",
        "virt-df -a disk.img --csv", "virt-df -a disk.img -i", "virt-inspector -a disk.img",
        "virt-ls -a disk.img /dir /etc", "virt-ls -a disk.img -lR /dir",
        "virt-ls -a disk.img -lR --csv --uids --extra-stats --time-t --checksum /dir",
        "virt-cat -a disk.img /etc/hostname /nope",
    ],
)  # fmt: skip
def test_tools_print_what_the_real_ones_print(tmp_path: Path, figures: Any, call: str) -> None:
    disk = main_disk(tmp_path)
    words = call.split()
    outcomes = []
    for program in ([judges.need(words[0])], [sys.executable, "-m", "cowshed", words[0]]):
        done = subprocess.run(
            [*program, *words[1:]], cwd=disk.parent, env={**ENVIRONMENT, "HOME": str(tmp_path)},
            stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=600, check=False,
        )  # fmt: skip
        outcomes.append((done.returncode, done.stdout, done.stderr))
    assert outcomes[0] == outcomes[1]
    figures.add("guestfish: calls of tools compared")
