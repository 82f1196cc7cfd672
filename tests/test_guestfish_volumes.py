"""guestfish's commands on volume groups: held against what a real one of release 1.48 printed, and judged by lvm2.

`guestfish_volume_commands.txt` is the record of a session of the real one (lvm2 2.03.16, under TCG, some minutes) on
five empty disks: ``> COMMAND`` and the lines that it printed. uuids are masked; what depends on the order in which
devices became active, and on how long lvm2's own remarks in its metadata are, is left out.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import judges
from cowshed.guest.session import Session
from cowshed.guest.volumes import Volumes
from cowshed.layout.lvm.draft import Refusal
from guestfish_beside import ENVIRONMENT

RECORD = Path(__file__).parent / "guestfish_volume_commands.txt"
MIB = 1 << 20
#: the disks of the record, in MiB
DISKS = (600, 60, 60, 20, 1.5)
_LEFT_OUT = re.compile(r"^  (lv_kernel_minor|[pv][vg]_mda_free): .*\n", re.MULTILINE)
_UUID = re.compile(r"(?<=uuid: )\w{32}|\w{6}(-\w{4}){5}-\w{6}")


def blocks(text: str) -> list[tuple[str, list[str]]]:
    """(command, what it printed) of a session in which each command was announced."""
    found: list[tuple[str, list[str]]] = []
    text = re.sub(r"^\S+:\d+: (?=libguestfs: )", "", text, flags=re.MULTILINE)
    for part in ("\n" + text).split("\n### ")[1:]:
        command, _, rest = part.partition("\n")
        rest = _UUID.sub("UUID", _LEFT_OUT.sub("", rest + "\n")).rstrip("\n")
        records = re.findall(r"\{\n(.*?)\n\}", rest, re.DOTALL)
        # the order of records is that of activation
        found.append((command, sorted(records) if records else rest.splitlines()))
    return found


def record() -> list[tuple[str, list[str]]]:
    return blocks(re.sub(r"^> ", "### ", RECORD.read_text(), flags=re.MULTILINE))


def session(folder: Path, commands: list[str], *tool: str, env: dict[str, str] | None = None) -> str:
    """What a guestfish prints on new disks, each command announced, errors where they happen."""
    words = []
    for number, size in enumerate(DISKS):
        path = folder / f"{number}.img"
        with path.open("wb") as file:
            file.truncate(int(size * MIB))
        words += ["-a", str(path)]
    lines = ["run"]
    for command in commands:
        announced = command.replace("'", '"')
        lines += [f"echo '### {announced}'", f"-{command}"]
    script = folder / "script"
    script.write_text("\n".join(lines) + "\n")
    done = subprocess.run(
        [*tool, *words, "-f", str(script)], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=3000,
        env={**os.environ, **(env or {})}, check=False,
    )  # fmt: skip
    return done.stdout


def commands() -> list[str]:
    """The record's commands as they were given: quotes are single ones."""
    return [command.replace('"', "'") for command, _ in record()]


OURS = (sys.executable, "-m", "cowshed", "guestfish")


def test_commands_print_what_the_real_ones_printed(tmp_path: Path, figures: pytest.FixtureRequest) -> None:
    said = record()
    ours = blocks(session(tmp_path, commands(), *OURS))
    assert [command for command, _ in ours] == [command for command, _ in said]
    wrong = [(command, theirs, mine) for (command, theirs), (_, mine) in zip(said, ours, strict=True) if theirs != mine]
    assert not wrong, "\n".join(f"{command}\n  real {theirs}\n  ours {mine}" for command, theirs, mine in wrong)
    assert len(said) > 200
    figures.add("guestfish: commands on volume groups compared", len(said))  # type: ignore[attr-defined]


@pytest.mark.torture
def test_the_record_is_what_the_real_one_prints(tmp_path: Path) -> None:
    """The same commands by the real guestfish, now."""
    judges.need("guestfish")
    said = record()
    theirs = blocks(session(tmp_path, commands(), "guestfish", env=ENVIRONMENT))
    assert theirs == said


def full(text: str) -> list[tuple[str, list[str]]]:
    return [one for one in blocks(text) if one[0].endswith("-full")]


@pytest.mark.torture
def test_the_real_one_takes_our_disks(tmp_path: Path) -> None:
    """A disk that we divided, with a file system on a volume: a real guestfish reads the same of it, and goes on."""
    judges.need("guestfish")
    disk = tmp_path / "disk.img"
    with disk.open("wb") as file:
        file.truncate(200 * MIB)
    made = """run
part-init /dev/sda gpt
part-add /dev/sda p 2048 204799
part-add /dev/sda p 204800 -2048
vgcreate one '/dev/sda1 /dev/sda2'
lvcreate root one 50
lvcreate-free data one 40
lvresize /dev/one/root 70
mkfs ext4 /dev/one/root
mount /dev/one/root /
write /hello "made by us"
umount-all
lvrename /dev/one/data store
vgrename one eins
"""
    look = "run\n" + "".join(f"echo '### {verb}-full'\n{verb}-full\n" for verb in ("pvs", "vgs", "lvs"))
    more = look + (
        "mount-ro /dev/eins/root /\ncat /hello\numount-all\ne2fsck /dev/eins/root forceall:true correct:false\n"
        "lvcreate real eins 9\nlvremove /dev/eins/store\n"
    )

    def run(text: str, *tool: str) -> str:
        done = subprocess.run(
            [*tool, "-a", str(disk)], input=text, capture_output=True, text=True, timeout=900, env=ENVIRONMENT,
            check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        return done.stdout

    run(made, *OURS)
    ours = full(run(look, *OURS))
    # pvs-full has the appliance's own names for disks, in the order in which its kernel found them
    theirs = re.sub(r"(?<=pv_name: /dev/sd)[a-z]", "a", run(more, "guestfish"))
    assert "made by us" in theirs
    assert full(theirs) == ours
    assert run("run\nlvs\n", *OURS) == "/dev/eins/real\n/dev/eins/root\n"


# ---- what is ours alone


@pytest.fixture
def disk(tmp_path: Path) -> Path:
    path = tmp_path / "disk.img"
    with path.open("wb") as file:
        file.truncate(200 * MIB)
    return path


def ours(text: str, *words: str | Path) -> tuple[int, str, str]:
    done = subprocess.run([*OURS, *map(str, words)], input=text, capture_output=True, text=True, check=False)
    return done.returncode, done.stdout, re.sub(r"^\S+:\d+: (?=libguestfs: )", "", done.stderr, flags=re.MULTILINE)


def test_mounted_volumes_are_renamed_and_grown_and_kept(disk: Path) -> None:
    code, out, err = ours(
        """run
vgcreate VG /dev/sda
lvcreate LV VG 40
mkfs ext4 /dev/VG/LV
mount /dev/VG/LV /
write /x hello
lvrename /dev/VG/LV other
vgrename VG group
mountpoints
lvcreate beside group 8
lvresize /dev/group/other 100
blockdev-getsize64 /dev/group/other
cat /x
write /y more
-lvresize /dev/group/other 40
-lvremove /dev/group/other
-lvremove /dev/group
-vgremove group
-lvm-remove-all
-pvremove /dev/sda
lvs
umount-all
mount /dev/group/other /
cat /y
umount-all
lvm-remove-all
lvs
vgs
pvs
list-filesystems
""",
        "-a", disk,
    )  # fmt: skip
    assert code == 0, err
    assert out == (
        "/dev/group/other: /\n104857600\nhello\n/dev/group/beside\n/dev/group/other\nmore\n/dev/sda: unknown\n"
    )
    kept = "contains a filesystem in use.\n"
    assert [line for line in err.splitlines(True) if kept in line] == [
        "libguestfs: error: lvresize:   Logical volume group/other " + kept,
        "libguestfs: error: lvremove:   Logical volume group/other " + kept,
        "libguestfs: error: lvremove:   Logical volume group/other " + kept,
        "libguestfs: error: vgremove:   Logical volume group/other " + kept,
        "libguestfs: error: lvm_remove_all: lvremove: /dev/group/other:   Logical volume group/other " + kept,
    ]


def test_a_physical_volume_is_no_larger_than_its_device(disk: Path) -> None:
    code, _, err = ours("run\npvcreate /dev/sda\npvresize-size /dev/sda 500M\n", "-a", disk)
    assert code == 1
    assert "/dev/sda: the device has no more than 409600 sectors." in err


def test_readonly_sessions_change_nothing(disk: Path) -> None:
    before = disk.read_bytes()
    code, out, err = ours("run\nvgcreate VG /dev/sda\nlvcreate LV VG 40\nlvs\nvgmeta VG\n", "--ro", "-a", disk)
    assert code == 0, err
    assert out.startswith("/dev/VG/LV\n") and 'id = "' in out
    assert disk.read_bytes() == before


def test_what_is_unlocked_is_used(tmp_path: Path) -> None:
    """A volume whose LUKS is open, and one that is a physical volume's place."""
    path = tmp_path / "disk.img"
    with path.open("wb") as file:
        file.truncate(100 * MIB)
    with Session() as guest:
        guest.add(str(path), fmt="raw", readonly=False)
        guest.run()
        volumes = Volumes(guest)
        volumes.create_group("VG", ["/dev/sda"])
        volumes.create("LV", "VG", size=40 * MIB)
        node = guest.devices.open("/dev/VG/LV")
        guest.devices.mapped["/dev/mapper/open"] = node, "/dev/VG/LV"
        with pytest.raises(Refusal, match="Logical volume VG/LV is used by another device"):
            volumes.remove("/dev/VG/LV")
        with pytest.raises(Refusal, match="device is an LV"):
            volumes.create_physical("/dev/VG/LV")
        volumes.rename_group("VG", "new")
        assert guest.devices.mapped["/dev/mapper/open"] == (node, "/dev/new/LV")
        del guest.devices.mapped["/dev/mapper/open"]
        volumes.remove("/dev/new/LV")
        assert guest.devices.volumes() == []


def test_filters_and_uuids(disk: Path) -> None:
    code, out, err = ours(
        """run
part-init /dev/sda mbr
part-add /dev/sda p 2048 100000
part-add /dev/sda p 100001 -1
vgcreate one /dev/sda1
vgcreate two /dev/sda2
lvcreate x one 4
lvm-set-filter /dev/sda2
vgs
lvm-set-filter /dev/sda
vgs
lvm-clear-filter
-vgchange-uuid-all
vg-activate-all false
pvchange-uuid-all
vgchange-uuid-all
vg-activate-all true
mkfs ext2 /dev/one/x
mount /dev/one/x /
-lvm-set-filter /dev/sda2
""",
        "-a", disk,
    )  # fmt: skip
    assert code == 0, err
    assert out == "two\none\ntwo\n"
    assert err == (
        "libguestfs: error: vgchange_uuid_all:   Volume group has active logical volumes\n"
        "libguestfs: error: lvm_set_filter: vgchange -an:   Logical volume one/x contains a filesystem in use.\n"
    )


@pytest.mark.parametrize(
    ("kind", "parts", "holds"),
    [
        ("lv", [(65536, 1073611264)], {"/dev/VG/LV": "unknown"}),
        ("lv:/dev/a/b:100M:gpt", [(65536, 104727040)], {"/dev/a/b": "unknown"}),
        ("lvfs:/dev/a/b:ext4:300M:gpt", [(65536, 314442240)], {"/dev/a/b": "ext4"}),
        ("bootroot", [(32768, 134217728), (134250496, 939459072)], {"/dev/sda1": "ext2", "/dev/sda2": "ext2"}),
        ("bootroot:ext3:ext4:200M:50M", [(32768, 52428800), (52461568, 157221376)],
         {"/dev/sda1": "ext3", "/dev/sda2": "ext4"}),
        ("bootrootlv", [(32768, 134217728), (134250496, 939459072)], {"/dev/sda1": "ext2", "/dev/VG/LV": "ext2"}),
    ],
)  # fmt: skip
def test_prepared_disks(kind: str, parts: list[tuple[int, int]], holds: dict[str, str], tmp_path: Path) -> None:
    """As the real one divides them: the figures of defaults are its own."""
    path = tmp_path / "new.img"
    code, out, err = ours("part-list /dev/sda\nlist-filesystems\nvgs-full\n", "-N", f"{path}={kind}")
    assert code == 0, err
    starts = [int(word) for word in re.findall(r"part_start: (\d+)", out)]
    sizes = [int(word) for word in re.findall(r"part_size: (\d+)", out)]
    assert list(zip(starts, sizes, strict=True)) == parts
    assert dict(line.split(": ") for line in out.splitlines() if line.startswith("/dev/")) == holds
    if "lv" in kind:
        assert "vg_free_count: 0" in out and "vg_seqno: 2" in out


def test_prepared_disks_that_are_not_known(tmp_path: Path) -> None:
    for kind, text in (
        ("nosuch", "no such prepared disk image known.\nUse 'guestfish -N help' to list possible values"),
        ("lv:VG", "incorrect format for LV name, use '/dev/VG/LV'"),
        ("lv:/dev/VG", "incorrect format for LV name, use '/dev/VG/LV'"),
        ("lv:a:b:c:d", "too many parameters"),
    ):
        code, _, err = ours("", "-N", f"{tmp_path}/new.img={kind}")
        assert code == 1 and text in err
        assert not (tmp_path / "new.img").exists()
    code, out, _ = ours("", "-N", "help")
    assert code == 0
    for kind in ("disk", "part", "fs", "lv", "lvfs", "bootroot", "bootrootlv"):
        assert f"guestfish -N {kind} " in out


def test_every_change_is_seen_at_once_by_lvm2s_own_words(disk: Path) -> None:
    """vgmeta is text of the same grammar, with the group's newest number."""
    from cowshed.layout.lvm.model import read_groups
    from cowshed.layout.lvm.text import parse

    code, out, err = ours(
        "run\nvgcreate VG /dev/sda\nlvcreate LV VG 40\nlvresize /dev/VG/LV 60\nvgmeta VG\n", "-a", disk
    )
    assert code == 0, err
    (group,) = read_groups(parse(out))
    assert (group.name, group.seqno, group.volumes["LV"].extents) == ("VG", 3, 15)


def test_what_lies_below_a_mounted_volume_is_not_overwritten(tmp_path: Path) -> None:
    """The disk, the partition and the volume of what is mounted: each command that would end it is refused."""
    built = [
        "part-disk /dev/sda mbr", "pvcreate /dev/sda1", "vgcreate vg /dev/sda1", "lvcreate lv vg 100",
        "mkfs ext4 /dev/vg/lv", "mount /dev/vg/lv /", "write /kept text",
    ]  # fmt: skip
    refused = [
        f"{verb} {device}"
        for device in ("/dev/sda", "/dev/sda1", "/dev/vg/lv")
        for verb in ("mkfs ext4", "mkfs vfat", "mke2fs", "mkswap", "wipefs", "blkdiscard", "scrub-device")
    ]
    refused += ["part-del /dev/sda 1", "part-init /dev/sda gpt", "part-disk /dev/sda gpt", "lvremove /dev/vg/lv"]
    told = [lines for _, lines in blocks(session(tmp_path, [*built, *refused, "cat /kept"], *OURS))]
    assert not any(told[: len(built)]), told
    for command, lines in zip(refused, told[len(built) :], strict=False):
        assert lines and lines[0].startswith("libguestfs: error: "), (command, lines)
    assert told[-1] == ["text"]
    with Session(readonly=True) as after:
        after.add(str(tmp_path / "0.img"), fmt="raw")
        after.run()
        assert after.devices.list_filesystems() == [("/dev/vg/lv", "ext4")]


def test_mounted_partitions_keep_their_names(tmp_path: Path) -> None:
    """Logical ones would get other numbers, or go with the extended one that they are in."""
    built = [
        "part-init /dev/sda mbr", "part-add /dev/sda e 2048 200000", "part-add /dev/sda l 4096 40000",
        "part-add /dev/sda l 45056 120000", "part-add /dev/sda l 122880 190000", "mkfs ext4 /dev/sda6",
        "mount /dev/sda6 /", "write /kept text",
    ]  # fmt: skip
    refused = ["part-del /dev/sda 5", "part-del /dev/sda 1", "part-del /dev/sda 6"]
    rest = ["part-del /dev/sda 7", "list-partitions", "cat /kept"]
    told = [lines for _, lines in blocks(session(tmp_path, [*built, *refused, *rest], *OURS))]
    assert not any(told[: len(built)]), told
    for lines in told[len(built) : -3]:
        assert lines == ["libguestfs: error: part_del: /dev/sda6: device is in use"]
    assert told[-3:] == [[], ["/dev/sda1", "/dev/sda5", "/dev/sda6"], ["text"]]
