"""guestfish beside the real one: one session of it, some hundred commands, each command's output compared with ours."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import judges

COMMANDS = (Path(__file__).parent / "guestfish_commands.txt").read_text().splitlines()

#: where we differ on purpose: command -> what ours is
CHOSEN = {
    # a string ends at the first zero byte there
    "cat /md/copied": None,
    "cat /md/up": None,
    # whose device nodes nobody asked for
    "copy-out /dir $HOST/out": None,
    # one message is enough
    "download /dir/hello /nope/dl": None,
}

BUILD = """\
run
mkfs ext4 /dev/sda1 label:BOOT
pvcreate /dev/sda2
vgcreate VG /dev/sda2
lvcreate root VG 128
lvcreate swap VG 32
mkfs ext4 /dev/VG/root label:ROOT
mkswap /dev/VG/swap label:SWAP
set-uuid /dev/VG/root 01234567-0123-0123-0123-012345678902
mount /dev/VG/root /
tar-in tree.tar /
umount-all
sync
!cp --sparse=always disk.img ours.img
"""


def tree(folder: Path) -> None:
    """What the commands are about."""
    for name in ("etc", "dir/sub", "bin", "boot"):
        (folder / name).mkdir(parents=True)
    (folder / "etc/hostname").write_text("web.example\n")
    (folder / "etc/fstab").write_text("/dev/VG/root / ext4 defaults 0 1\n/dev/sda1 /boot ext4 defaults 0 2\n")
    os.utime(folder / "etc/fstab", (1577934245, 1577934245))
    (folder / "etc/passwd").write_text("root:x:0:0:root:/root:/bin/bash\ndaemon:x:1:1::/:/bin/false\nbin:x:2:2::/:\n")
    (folder / "etc/lnk").symlink_to("passwd")
    (folder / "abs").symlink_to("/etc")
    (folder / "dir/up").symlink_to("../../../../etc/hostname")
    (folder / "dir/lines").write_text("".join(f"line {number}\n" for number in range(1, 31)))
    (folder / "dir/b c").write_text("x")
    (folder / "dir/a").touch()
    (folder / "dir/sub/rand").write_bytes(os.urandom(300000))
    (folder / "dir/hello").write_text("Hello World\nhello again\nnothing\n")
    subprocess.run(["gzip", "-nk", folder / "dir/hello"], check=True)
    shutil.copy("/bin/true", folder / "bin/true")
    os.mkfifo(folder / "dir/fifo")
    os.mknod(folder / "dir/null", 0o20644, os.makedev(1, 3))


def split(text: str) -> dict[int, str]:
    parts = re.split(r"@@@ (\d+)\n", text)
    return {int(parts[at]): parts[at + 1] for at in range(1, len(parts) - 1, 2)}


def plain(command: str, text: str) -> str:
    """Without what is the appliance's own: its disk, its place for the guest, its clock, the order of its hashes."""
    text = re.sub(r"^[^\n:]*\.gf:\d+: ", "", text, flags=re.MULTILINE)
    text = re.sub(r"/dev/sd[bc](?=\d|\b)", "/dev/sda", text)
    text = re.sub(r"\b8:(16|32)\b", "8:0", text)
    text = re.sub(r"\bsd[bc]1\b", "sda1", text)
    text = re.sub(r"([acm]time\S*): \d+", r"\1: T", text)
    text = re.sub(r"[A-Z][a-z][a-z] [ \d]\d (\d\d:\d\d| \d{4}) ", "DATE ", text)
    text = text.replace("/sysroot/", "/")
    verb = command.split()[0]
    if verb in ("ls0", "find0"):
        return "\n".join(sorted(text.split("\0")))
    if verb == "readdir":
        return "\n".join(sorted(re.findall(r"\{\n(.*?)\}", text, re.DOTALL)))
    if verb == "checksums-out":
        return "\n".join(sorted(text.split("\n")))
    return text


# minutes of an emulated machine
@pytest.mark.torture
@pytest.mark.timeout(1200)
@pytest.mark.skipif(os.geteuid() != 0, reason="device nodes for the guest are made by root")
def test_commands_print_what_the_real_ones_print(tmp_path: Path) -> None:
    guestfish = judges.need("guestfish")
    tree(tmp_path / "tree")
    subprocess.run(["tar", "-C", tmp_path / "tree", "-cf", tmp_path / "tree.tar", "."], check=True)
    disk = tmp_path / "disk.img"
    with disk.open("wb") as file:
        file.truncate(256 << 20)
    table = "label: dos\nlabel-id: 0x7607baf6\nstart=2048, size=102400, type=83\nstart=104448, type=8e\n"
    judges.run("sfdisk", "-q", disk, input=table)
    folders = {}
    for name in ("real", "ours"):
        host = folders[name] = tmp_path / name
        (host / "out").mkdir(parents=True)
        (host / "indir/sub").mkdir(parents=True)
        (host / "indir/one").write_text("one\n")
        (host / "indir/sub/two").write_text("two\n")
        (host / "indir/link").symlink_to("one")
        (host / "up").write_text("uploaded\n")
        shutil.copy("/bin/true", host / "disk.img")
        lines = []
        for number, command in enumerate(COMMANDS):
            lines += [f"echo @@@ {number}", f"-{command.replace('$HOST', str(host))}"]
        (tmp_path / f"{name}.gf").write_text((BUILD if name == "real" else "run\n") + "\n".join(lines) + "\n")
    env = {
        **os.environ, "LIBGUESTFS_BACKEND": "direct", "LIBGUESTFS_BACKEND_SETTINGS": "force_tcg", "LC_ALL": "C.UTF-8",
        "TZ": "UTC",
    }  # fmt: skip
    with (tmp_path / "real.out").open("wb") as told:
        subprocess.run(
            [guestfish, "-a", disk, "-f", "real.gf"], cwd=tmp_path, stdout=told, stderr=told,
            stdin=subprocess.DEVNULL, env=env, timeout=1100, check=False,
        )  # fmt: skip
    real_text = (tmp_path / "real.out").read_text(errors="surrogateescape")
    if "@@@ 0" not in real_text:
        judges.absent(f"guestfish's appliance does not start here: {real_text[-300:]}")
    with (tmp_path / "ours.out").open("wb") as told:
        subprocess.run(
            [sys.executable, "-m", "cowshed", "guestfish", "-a", "ours.img", "-f", "ours.gf"], cwd=tmp_path,
            stdout=told, stderr=told, stdin=subprocess.DEVNULL, env=env, timeout=300, check=False,
        )  # fmt: skip
    real = split(real_text.replace(str(folders["real"]), "$HOST"))
    ours = split((tmp_path / "ours.out").read_text(errors="surrogateescape").replace(str(folders["ours"]), "$HOST"))
    assert len(real) == len(COMMANDS), f"the real one ended after command {max(real)}: {real[max(real)]}"
    differ = []
    same = 0
    for number, command in enumerate(COMMANDS):
        theirs, mine = plain(command, real[number]), plain(command, ours.get(number, "(nothing)"))
        if theirs == mine:
            same += 1
        elif command not in CHOSEN:
            differ.append(f"{command}\n  real: {theirs[:600]!r}\n  ours: {mine[:600]!r}")
    assert not differ, "\n".join(differ)
    assert same >= 300
    assert_same_copies(folders["real"] / "out/dir", folders["ours"] / "out/dir")
    judges.run("e2fsck", "-fn", _volume(tmp_path))


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


def _volume(folder: Path) -> Path:
    """What we changed, for e2fsck: the bytes of the root volume."""
    out = folder / "root.img"
    from cowshed.guest.session import Session

    with Session(readonly=True) as session:
        session.add(str(folder / "ours.img"), fmt="raw")
        session.run()
        node = session.devices.open("/dev/VG/root")
        with out.open("wb") as file:
            for at in range(0, node.size, 1 << 20):
                file.write(node.read(at, min(1 << 20, node.size - at)))
    return out
