"""guestfish: access control lists, capabilities, initrds, journals, hives, loops, scrubbing, inodes and blocks."""

from __future__ import annotations

import ctypes
import gzip
import json
import lzma
import os
import random
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import judges
from cowshed.errors import CorruptError
from cowshed.guest import acl, capability, forensic, initrd
from cowshed.guest.erase import SIGNATURE, free_runs, scrub_file, trim
from cowshed.guest.filesystem.base import GuestError
from cowshed.guest.filesystem.table import open_filesystem
from cowshed.guest.journal.file import JournalFile
from cowshed.guest.journal.reader import Journal
from cowshed.guest.loop import mount_loop
from cowshed.guest.lz4 import unpack
from cowshed.guest.registry.change import Editor
from cowshed.guest.session import Session
from guestfish_beside import ENVIRONMENT, Pair, differences, read_lines
from test_guest_registry import empty_hive, opened, saved

REMOTE = "/usr/lib/systemd/systemd-journal-remote"


# ---- access control lists and capabilities, beside the libraries that guestfish's appliance calls


def library(name: str) -> Any:
    try:
        return ctypes.CDLL(name, use_errno=True)
    except OSError:
        judges.absent(f"{name} (its Debian package is the one that getfacl and getcap need)")


def told(lib: Any, kind: str, text: str) -> str:
    """The text that the library makes of what it understood; "" when it did not."""
    parse, show, free = (getattr(lib, f"{kind}_{verb}") for verb in ("from_text", "to_text", "free"))
    parse.restype = show.restype = ctypes.c_void_p
    parse.argtypes, show.argtypes, free.argtypes = [ctypes.c_char_p], [ctypes.c_void_p] * 2, [ctypes.c_void_p]
    made = parse(text.encode())
    if not made:
        return ""
    shown = show(made, None)
    out = ctypes.string_at(shown).decode()
    free(shown)
    free(made)
    return out


def test_access_control_lists_are_read_as_libacl_reads_them() -> None:
    lib = library("libacl.so.1")
    pick = random.Random(1)
    for _ in range(3000):
        entries = []
        for _ in range(pick.choice([1, 2, 3, 4, 6])):
            tag = pick.choice(
                ["u", "user", "g", "group", "m", "mask", "o", "other", *(["x"] if pick.random() < 0.1 else [])]
            )
            who = pick.choice(["", "70000", "99999", "0x11170", "0300000"]) if tag[0] in "ug" else ""
            perm = "".join(
                pick.choices("rwx-", k=pick.choice([1, 2, 3, 3, 3, *([0, 4] if pick.random() < 0.05 else [])]))
            )
            entries.append(f"{tag}:{who}:{perm}" if tag[0] not in "mo" or pick.random() < 0.5 else f"{tag}:{perm}")
        text = pick.choice([",", " ", "\n", ", ", " ,", "\n\n"]).join(entries)
        try:
            rows = acl.parse(text.encode())
        except acl.AclError:
            assert not told(lib, "acl", text), text
            continue
        assert acl.text_of(sorted(rows, key=lambda one: (one.tag, one.ident))) == told(lib, "acl", text), text
        assert acl.text_of(acl.unpack(acl.pack(rows))) == acl.text_of(
            sorted(rows, key=lambda one: (one.tag, one.ident))
        )


def test_capabilities_are_read_as_libcap_reads_them() -> None:
    lib = library("libcap.so.2")
    pick = random.Random(2)
    names = [*capability.NAMES, "all", "41", "63", "5", "0x3", "07", "CAP_KILL"]
    for _ in range(3000):
        clauses = []
        for _ in range(pick.choice([0, 1, 1, 2, 3, 5])):
            who = ",".join(
                pick.choices([*names, "64", "bad"] if pick.random() < 0.05 else names, k=pick.choice([0, 1, 1, 2, 9]))
            )
            what = "".join(
                pick.choice("=+-" if not at else "+-") + "".join(pick.choices("eip", k=pick.choice([0, 1, 1, 2])))
                for at in range(pick.choice([1, 1, 2]))
            )
            clauses.append(who + what)
        text = pick.choice([" ", "  ", "\n"]).join(clauses)
        try:
            caps = capability.parse(text)
        except capability.CapabilityError:
            assert not told(lib, "cap", text), text
            continue
        assert capability.text_of(caps) == told(lib, "cap", text), text
        try:
            assert capability.text_of(capability.unpack(capability.pack(caps))) == capability.text_of(
                [flags if flags & 6 else 0 for flags in caps]
            )
        except GuestError:
            held = [flags for flags in caps if flags & 6]
            assert any(flags & 1 for flags in caps) and not all(flags & 1 for flags in held)


@pytest.mark.parametrize("value", [b"", b"\2\0\0\0x", b"\1\0\0\0" + bytes(8), b"\2\0\0\0\3\0\7\0\0\0\0\0"])
def test_lists_that_are_none_are_refused(value: bytes) -> None:
    with pytest.raises(GuestError):
        acl.unpack(value)


# ---- a guest


@pytest.fixture
def disk(tmp_path: Path) -> Path:
    source = tmp_path / "source"
    (source / "dir/sub").mkdir(parents=True)
    (source / "dir/f").write_text("file\n")
    (source / "dir/big").write_bytes(random.Random(3).randbytes(300000))
    (source / "dir/link").symlink_to("f")
    inner = tmp_path / "inner"
    (inner / "in").mkdir(parents=True)
    (inner / "in/side").write_text("inside\n")
    judges.ext4_image(source / "small.img", 4 << 20, inner)
    return judges.ext4_image(tmp_path / "disk.img", 32 << 20, source)


def running(disk: Path) -> Session:
    session = Session()
    session.add(str(disk), fmt="raw")
    session.run()
    session.mount("/dev/sda")
    return session


def test_a_file_of_the_guest_is_mounted_and_changed(disk: Path, tmp_path: Path) -> None:
    with running(disk) as session:
        tree = session.tree
        with session.change():
            tree.mkdir(b"/mnt")
        mount = mount_loop(session, b"/small.img", b"/mnt")
        assert mount.device == "/dev/loop0" and tree.read(b"/mnt/in/side") == b"inside\n"
        with session.change():
            tree.write(b"/mnt/in/new", [b"x" * 100000])
            tree.mkdir(b"/again")
        # the same file system, not another driver on the same bytes
        assert mount_loop(session, b"/small.img", b"/again").fs is mount.fs
        with session.change():
            tree.write(b"/again/in/second", [b"y" * 100000])
        assert set(tree.names(b"/mnt/in")) >= {b"new", b"second", b"side"}
        session.umount("/again")
        with pytest.raises(GuestError, match="busy"):
            session.umount("/dev/sda")
        session.umount("/mnt")
        with pytest.raises(GuestError, match="Invalid"):
            mount_loop(session, b"/dir/f", b"/mnt")
        (tmp_path / "out.img").write_bytes(tree.read(b"/small.img"))
    judges.run("e2fsck", "-fn", disk)
    judges.run("e2fsck", "-fn", tmp_path / "out.img")
    assert "new" in judges.run("debugfs", "-R", "ls -p /in", tmp_path / "out.img").stdout


def test_what_is_scrubbed_is_gone_from_the_disk(disk: Path) -> None:
    secret = random.Random(3).randbytes(300000)[5000:5100]
    assert secret in disk.read_bytes()
    with running(disk) as session, session.change():
        scrub_file(session.tree, b"/dir/big")
    data = disk.read_bytes()
    assert secret not in data and data.count(SIGNATURE) == 1
    judges.run("e2fsck", "-fn", disk)


def test_only_what_is_free_is_trimmed(disk: Path) -> None:
    """What a trim gives back is what e2fsprogs call free; the holes that it leaves hold nothing."""
    with running(disk) as session:
        fs = session.tree.mounts[0].fs
        size = fs.block_size
        free = {at // size + one for at, count in free_runs(fs) for one in range(count // size)}
        given = trim(fs)
        assert given == len(free) * size
        with pytest.raises(GuestError, match="Read-only"):
            trim(open_filesystem(session.devices.open("/dev/sda")))
    listed: set[int] = set()
    for line in judges.run("dumpe2fs", disk).stdout.splitlines():
        if line.startswith("  Free blocks: "):
            for part in line[15:].split(", "):
                first, _, last = part.partition("-")
                if first:
                    listed |= set(range(int(first), int(last or first) + 1))
    assert free == listed
    judges.run("e2fsck", "-fn", disk)


def test_inodes_and_blocks_are_those_of_the_sleuth_kit(disk: Path) -> None:
    fls, icat, blkls = judges.need("fls"), judges.need("icat"), judges.need("blkls")

    def kit(*argv: str) -> bytes:
        return subprocess.run(argv, capture_output=True, timeout=60, check=True).stdout

    with running(disk) as session:
        fs = session.tree.mounts[0].fs
        rows = {(found.stat.ino, found.name.decode()) for found in forensic.walk(fs)}
        theirs = {(int(ino), name) for kind, ino, name in (
            (line.split()[0], line.split()[1].rstrip(":"), line.split("\t")[1])
            for line in kit(fls, "-rpu", str(disk)).decode().splitlines()) if kind != "V/V"}  # fmt: skip
        assert rows - {(fs.root, ".")} == theirs
        for ino, name in rows:
            if name != "dir/link":
                assert b"".join(forensic.content(fs, ino)) == kit(icat, str(disk), str(ino)), name
        assert b"".join(forensic.blocks(fs, 100, 300)) == kit(blkls, "-e", str(disk), "100-300")
        # the kit takes bitmaps that are not initialised yet for empty ones: what is free is judged by dumpe2fs, above
        last = fs.node.size // fs.block_size - 1
        free = b"".join(fs.node.read(at, count) for at, count in free_runs(fs))
        assert b"".join(forensic.blocks(fs, 0, last, unallocated=True)) == free
        first, count = next(
            (at // fs.block_size, count // fs.block_size) for at, count in free_runs(fs) if count > 9999
        )
        argv = (blkls, "-A", str(disk), f"{first + 3}-{first + count - 5}")
        found = b"".join(forensic.blocks(fs, first + 3, first + count - 5, unallocated=True))
        assert found == kit(*argv) and len(found) == (count - 7) * fs.block_size
        with pytest.raises(GuestError):
            next(forensic.content(fs, 0))


# ---- initrds


def archive(folder: Path, form: str = "newc") -> bytes:
    names = sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))
    argv = [judges.need("cpio"), "--quiet", "-o", "-H", form]
    done = subprocess.run(argv, cwd=folder, input="\n".join(names).encode(), capture_output=True, check=True)
    return done.stdout


def pieces(data: bytes) -> Any:
    return (data[at : at + 77] for at in range(0, len(data), 77))


@pytest.fixture
def content(tmp_path: Path) -> Path:
    folder = tmp_path / "content"
    (folder / "bin").mkdir(parents=True)
    (folder / "init").write_bytes(b"#!/bin/sh\n" + bytes(70000))
    (folder / "bin/sh").write_text("shell\n")
    os.link(folder / "bin/sh", folder / "bin/ash")
    (folder / "bin/link").symlink_to("sh")
    (folder / "a b").write_text("")
    os.mkfifo(folder / "fifo")
    return folder


@pytest.mark.parametrize("packer", ["", "gzip", "bzip2", "xz", "lzma", "zstd", "lz4"])
def test_archives_are_read_however_they_are_packed(content: Path, packer: str) -> None:
    plain = archive(content)
    early = content.parent / "early/kernel/x86/microcode"
    early.mkdir(parents=True)
    (early / "GenuineIntel.bin").write_bytes(bytes(range(256)) * 9)
    data = plain
    if packer:
        argv = [
            judges.need(packer),
            "-qc",
            *(["-l"] if packer == "lz4" else []),
            *(["--check=crc32"] if packer == "xz" else []),
        ]
        data = subprocess.run(argv, input=plain, capture_output=True, check=True).stdout
    names = subprocess.run([judges.need("cpio"), "--quiet", "-it"], input=plain, capture_output=True, check=True).stdout
    whole = archive(content.parent / "early") + data
    found = initrd.names(pieces(whole))
    assert found[-len(names.splitlines()) :] == names.splitlines() and found[0] == b"kernel"
    assert initrd.content(pieces(whole), b"init") == (content / "init").read_bytes()
    assert initrd.content(pieces(whole), b"kernel/x86/microcode/GenuineIntel.bin") == bytes(range(256)) * 9
    assert initrd.content(pieces(whole), b"bin/sh") == initrd.content(pieces(whole), b"bin/ash") == b"shell\n"
    for name, why in ((b"bin", "Is a directory"), (b"bin/link", "No such"), (b"fifo", "Invalid"), (b"nope", "No such")):
        with pytest.raises(GuestError, match=why):
            initrd.content(pieces(whole), name)


def test_archives_that_are_none_end_in_an_error(content: Path) -> None:
    plain = archive(content)
    packed = gzip.compress(plain)
    half = packed[: len(packed) // 2]
    damaged = [b"", b"nothing of that kind", plain[:200], half, packed[:40], archive(content, "odc")]
    damaged += [gzip.compress(b"no archive"), lzma.compress(plain)[:100], b"\x02\x21\x4c\x18" + b"\xff" * 4]
    for bad in damaged:
        with pytest.raises(CorruptError):
            initrd.names(pieces(bad))
    pick = random.Random(5)
    for _ in range(300):
        bad = bytearray(plain if pick.random() < 0.5 else packed)
        for _ in range(3):
            bad[pick.randrange(len(bad))] = pick.randrange(256)
        try:
            initrd.names(pieces(bytes(bad)))
        except CorruptError:
            pass


@pytest.mark.parametrize("data", [b"", b"\x10", b"\xf0\xff\xff", b"\x0f\1\0", b"\x14a\0\0", b"\x14a\5\0\x10"])
def test_lz4_that_is_damaged_is_refused(data: bytes) -> None:
    with pytest.raises(ValueError, match=r"end|begin"):
        unpack(data, 1 << 20)


# ---- journals


def exported(count: int, pick: random.Random, *, start: int = 0) -> str:
    """Entries as systemd-journal-remote takes them in."""
    out = []
    for number in range(start, start + count):
        out += [
            f"__REALTIME_TIMESTAMP={1700000000000000 + number * 1000}", f"__MONOTONIC_TIMESTAMP={1000 + number}",
            "_BOOT_ID=11111111111111111111111111111111", f"MESSAGE=message {number} grüße", f"PRIORITY={number % 8}",
            f"SYSLOG_IDENTIFIER=prog{number % 5}", f"_PID={number}",
        ]  # fmt: skip
        if number % 10 == 0:
            out.append("LONG=" + pick.choice("abc") * pick.choice([600, 5000, 70000]))
        out.append("")
    return "\n".join(out) + "\n"


def journal_file(folder: Path, name: str, text: str, **settings: str) -> Path:
    path = folder / name
    (folder / "export").write_text(text)
    judges.run(REMOTE, "--split-mode=none", "-o", path, folder / "export", env=settings)
    return path


def opened_journal(*paths: Path) -> Journal:
    return Journal([JournalFile(reader(path), path.stat().st_size, path.name) for path in paths])


def reader(path: Path) -> Any:
    def read(offset: int, length: int) -> bytes:
        with path.open("rb") as file:
            return os.pread(file.fileno(), length, offset)

    return read


def told_by_journalctl(folder: Path) -> list[dict[str, Any]]:
    done = judges.run("journalctl", "-D", folder, "-o", "json", "--all", "--no-pager")
    return [json.loads(line) for line in done.stdout.splitlines()]


@pytest.mark.parametrize(
    "settings",
    [{}, {"SYSTEMD_JOURNAL_COMPACT": "0"}, {"SYSTEMD_JOURNAL_COMPRESS": "LZ4"}, {"SYSTEMD_JOURNAL_COMPRESS": "XZ"},
     {"SYSTEMD_JOURNAL_KEYED_HASH": "0", "SYSTEMD_JOURNAL_COMPACT": "0"}],
    ids=["zstd-compact", "regular", "lz4", "xz", "unkeyed"],
)  # fmt: skip
def test_journals_say_what_journalctl_says(tmp_path: Path, settings: dict[str, str]) -> None:
    journal_file(tmp_path, "a.journal", exported(300, random.Random(6)), **settings)
    # another machine's, of the same time
    journal_file(tmp_path, "b.journal", exported(100, random.Random(7), start=150).replace("1111", "2222"), **settings)
    journal = opened_journal(tmp_path / "a.journal", tmp_path / "b.journal")
    rows = []
    while journal.next():
        rows.append((journal.realtime, sorted(journal.fields())))
    theirs = [
        (
            int(row["__REALTIME_TIMESTAMP"]),
            sorted((name.encode(), value.encode()) for name, value in row.items() if not name.startswith("__")),
        )
        for row in told_by_journalctl(tmp_path)
    ]
    assert len(rows) == 400 and [row for row, _ in rows] == [row for row, _ in theirs]
    assert sorted(rows) == sorted(theirs)
    # backwards it is the same, and past the ends it stays
    back = [rows[-1]]
    while journal.previous():
        back.append((journal.realtime, sorted(journal.fields())))
    assert back == rows[::-1]
    assert journal.skip(399) == 399 and journal.skip(5) == 0 and journal.realtime == rows[-1][0]
    assert journal.skip(-10) == 10 and journal.skip(0) == 0 and not journal.skipped


def test_damaged_journals_end(tmp_path: Path) -> None:
    path = journal_file(tmp_path, "a.journal", exported(200, random.Random(8)))
    data = path.read_bytes().rstrip(b"\0")
    data += bytes(-len(data) % 8 + 8)
    pick = random.Random(9)
    ended = read = 0
    for _ in range(150):
        bad = bytearray(data)
        for _ in range(pick.choice([1, 4, 30])):
            bad[pick.randrange(200 if pick.random() < 0.3 else len(bad))] = pick.choice([0, 255, pick.randrange(256)])
        if pick.random() < 0.3:
            del bad[pick.randrange(len(bad)) :]
        raw = bytes(bad)
        try:
            journal = Journal([JournalFile(lambda at, count, raw=raw: raw[at : at + count], len(raw))])
        except (CorruptError, Exception) as error:
            assert type(error).__name__ in ("CorruptError", "FeatureError"), error
            ended += 1
            continue
        for _ in range(300):
            if not journal.next():
                break
            list(journal.fields())
            read += 1
    assert ended > 5 and read > 1000


# ---- virt-log


def logged(number: int, *fields: str) -> str:
    when = f"__REALTIME_TIMESTAMP={1700000000123456 + number * 1000000}\n__MONOTONIC_TIMESTAMP={1000 + number}\n"
    return when + "_BOOT_ID=11111111111111111111111111111111\n" + "\n".join(fields) + "\n\n"


ENTRIES = [
    ("MESSAGE=plain", "_HOSTNAME=web", "SYSLOG_IDENTIFIER=prog", "_PID=12", "PRIORITY=6"),
    ("MESSAGE=other", "SYSLOG_IDENTIFIER=prog", "SYSLOG_PID=77", "_PID=12", "PRIORITY=3"),
    ("MESSAGE=name of the program", "_COMM=comm", "_PID=13", "PRIORITY=0"),
    ("MESSAGE=nothing else",),
    ("MESSAGE=grüße", "SYSLOG_IDENTIFIER=kernel", "_TRANSPORT=kernel", "PRIORITY=4"),
    ("SYSLOG_IDENTIFIER=silent", "_PID=5", "PRIORITY=1"),
    ("MESSAGE=x", "SYSLOG_IDENTIFIER=id", "_COMM=comm", "_PID=5", "PRIORITY=12"),
    ("MESSAGE=empty", "SYSLOG_IDENTIFIER=", "_PID=", "PRIORITY="),
]

#: what virt-log of 1.48.2 prints of them
LINES = """\
Nov 14 22:13:20 prog[12] info: plain
Nov 14 22:13:21 prog[12] err: other
Nov 14 22:13:22 comm[13] emerg: name of the program
Nov 14 22:13:23 info: nothing else
Nov 14 22:13:24 kernel warning: grüße
Nov 14 22:13:25 silent[5] alert:
Nov 14 22:13:26 id[5] alert: x
Nov 14 22:13:27 [] info: empty
"""


def logging_guest(folder: Path, *, journal: bool) -> Path:
    source = folder / "guest"
    for name in ("etc", "bin", "usr", "boot", "lib", "root", "var/lib/dpkg", "var/log"):
        (source / name).mkdir(parents=True)
    (source / "etc/os-release").write_text('ID=debian\nVERSION_ID="12"\nPRETTY_NAME="Debian GNU/Linux 12 (bookworm)"\n')
    (source / "etc/debian_version").write_text("12.5\n")
    (source / "etc/fstab").write_text("/dev/sda / ext4 defaults 0 1\n")
    (source / "var/log/syslog").write_text("line one\nline two\n")
    (source / "var/log/messages").write_text("elsewhere\n")
    if journal:
        text = "".join(logged(number, *fields) for number, fields in enumerate(ENTRIES))
        log = source / "var/log/journal/0123456789abcdef0123456789abcdef"
        log.mkdir(parents=True)
        journal_file(folder, "system.journal", text).rename(log / "system.journal")
    return judges.ext4_image(folder / "guest.img", 48 << 20, source)


def log_of(program: list[str], disk: Path) -> str:
    return subprocess.run(
        [*program, "-a", disk], env=ENVIRONMENT, capture_output=True, timeout=600, check=True
    ).stdout.decode()


@pytest.mark.parametrize("journal", [True, False])
def test_virt_log_prints_the_journal_or_a_text(tmp_path: Path, journal: bool) -> None:
    disk = logging_guest(tmp_path, journal=journal)
    text = LINES if journal else "line one\nline two\n"
    assert log_of([sys.executable, "-m", "cowshed", "virt-log"], disk) == text


@pytest.mark.torture
@pytest.mark.timeout(600)
def test_virt_log_prints_what_the_real_one_prints(tmp_path: Path) -> None:
    judges.need("guestfish")  # its machine
    assert log_of([judges.need("virt-log")], logging_guest(tmp_path, journal=True)) == LINES


# ---- beside the real one


def values_of(hive: Path) -> list[str]:
    found = opened(hive.read_bytes())
    lines = []
    for one in found.values(found.root):
        lines += [f"hivex-value-key {one}", f"hivex-value-type {one}", f"hivex-value-value {one}"]
        if found.kind(one) in (1, 2):
            lines.append(f"hivex-value-string {one}")
    return lines


def more_disks(folder: Path) -> tuple[list[Path], list[str]]:
    """A guest on the first disk, an empty one, one with a table of partitions; and the commands."""
    source = folder / "source"
    for name in ("boot", "dir/sub", "win", "var/log/journal/0123456789abcdef0123456789abcdef"):
        (source / name).mkdir(parents=True)
    (source / "dir/f").write_text("f\n")
    (source / "dir/ln").symlink_to("f")
    content = folder / "content"
    (content / "bin").mkdir(parents=True)
    (content / "init").write_text("init\n")
    (content / "bin/sh").write_text("#!/bin/sh\n")
    (content / "bin/ash").symlink_to("sh")
    (content / "a b").write_text("x\n")
    (source / "boot/gz").write_bytes(gzip.compress(archive(content)))
    data = empty_hive()
    editor = Editor(opened(data))
    editor.add_child(editor.hive.root, "Software")
    for name, kind, value in (("", 1, "default\0".encode("utf-16-le")), ("name", 2, "%x%\0".encode("utf-16-le")),
                              ("num", 4, b"\2\1\0\0"), ("bin", 3, bytes(range(40)))):  # fmt: skip
        editor.set_value(editor.hive.root, name, kind, value)
    hive = source / "win/h1.hive"
    hive.write_bytes(saved(editor, data))
    log = source / "var/log/journal/0123456789abcdef0123456789abcdef"
    journal_file(folder, "system.journal", exported(3, random.Random(1), start=1)).rename(log / "system.journal")
    root = judges.ext4_image(folder / "root.img", 60 << 20, source)
    disk, empty, table = folder / "disk.img", folder / "empty.img", folder / "table.img"
    for path, size in ((disk, 64 << 20), (empty, 20 << 20), (table, 64 << 20)):
        with path.open("wb") as file:
            file.truncate(size)
    judges.run("sfdisk", "-q", disk, input="label: gpt\nstart=2048, size=122880\n")
    with disk.open("r+b") as file:
        file.seek(1 << 20)
        file.write(root.read_bytes())
    judges.run("sfdisk", "-q", table, input="label: gpt\nstart=2048, size=20480\nstart=22528, size=32768\n")
    judges.run("mkfs.vfat", "--offset=22528", table, "16384")
    lines = []
    for line in read_lines("guestfish_commands_more.txt"):
        lines += values_of(hive) if line == "@values" else [line]
    return [disk, empty, table], lines


#: where ours does what is refused or silently left there
CHOSEN = {
    # partitions that are not there
    "part-set-gpt-attributes /dev/sdc 9 1",
    # FAT's volume number
    "set-uuid /dev/sdc2 1234-5678", "set-uuid-random /dev/sdc2",
}  # fmt: skip


@pytest.mark.torture
@pytest.mark.timeout(1800)
def test_commands_print_what_the_real_ones_print(tmp_path: Path, figures: Any) -> None:
    """Under TCG: minutes."""
    disks, lines = more_disks(tmp_path)
    pair = Pair(tmp_path, disks)
    for host in pair.host.values():
        judges.ext4_image(host / "small.img", 4 << 20, tmp_path / "content")
    same, differ = differences(pair.run(["mount /dev/sda1 /", *lines]), lambda command: command in CHOSEN)
    assert not differ, "\n".join(differ)
    figures.add("guestfish: rights, initrds, journals, hives compared", same)
    assert same > 250
