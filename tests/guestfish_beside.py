"""One session of the real guestfish and one of ours, with the same commands on copies of the same disks.

The real one starts a small virtual machine, here under TCG: some 30 s of one core, and from then on 0.05 to 0.5 s a
command. So disks are made without it, and as many commands as possible share one session.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterable
from pathlib import Path

import guest_images
import judges
from guest_images import MIB, Place

ENVIRONMENT = {
    **os.environ, "LIBGUESTFS_BACKEND": "direct", "LIBGUESTFS_BACKEND_SETTINGS": "force_tcg", "LC_ALL": "C.UTF-8",
    "TZ": "UTC",
}  # fmt: skip

UUID = "01234567-0123-0123-0123-012345678902"
NOTHING = "(nothing: the session had ended)"


def tree(folder: Path) -> None:
    """What the commands are about: files of all kinds, and what makes them a Debian."""
    for name in ("etc", "dir/sub", "bin", "boot", "lib", "usr", "root", "var/lib/dpkg"):
        (folder / name).mkdir(parents=True)
    for name, text in {
        "etc/hostname": "web.example\n",
        "etc/fstab": "/dev/VG/root / ext4 defaults 0 1\n/dev/sda1 /boot ext4 defaults 0 2\n",
        "etc/passwd": "root:x:0:0:root:/root:/bin/bash\ndaemon:x:1:1::/:/bin/false\nbin:x:2:2::/:\n",
        "etc/debian_version": "12.5\n",
        "etc/os-release": 'ID=debian\nVERSION_ID="12"\nPRETTY_NAME="Debian GNU/Linux 12 (bookworm)"\n',
        "var/lib/dpkg/status": "Package: bash\nStatus: install ok installed\nMaintainer: Some One <one@example.org>\n"
        "Architecture: amd64\nVersion: 5.2.15-2+b7\nHomepage: https://example.org/bash\nSource: bash (5.2.15-2)\n"
        "Description: a shell\n that reads commands\n .\n and runs them.\n\n"
        "Package: gone\nStatus: deinstall ok config-files\nArchitecture: amd64\nVersion: 1.0\n\n"
        "Package: zlib1g\nStatus: install ok installed\nArchitecture: amd64\nVersion: 1:1.2.13.dfsg-1\n\n",
        "dir/lines": "".join(f"line {number}\n" for number in range(1, 31)),
        "dir/b c": "x",
        "dir/a": "",
        "dir/hello": "Hello World\nhello again\nnothing\n",
        "dir/script": "#!/bin/sh\necho hello\n",
        "dir/x.json": '{"a": [1, 2, {"b": null}]}\n',
        "dir/x.xml": '<?xml version="1.0" encoding="UTF-8"?>\n<a><b/></a>\n',
        "dir/latin": "",
        "dir/crlf": "one\r\ntwo\r\n",
        "dir/utf8": "gr\u00fc\u00df dich\n",
    }.items():
        (folder / name).write_bytes(text.encode())
    os.utime(folder / "etc/fstab", (1577934245, 1577934245))
    (folder / "dir/latin").write_bytes(b"gr\xfc\xdf dich\n")
    (folder / "dir/png").write_bytes(
        b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR\0\0\0\x10\0\0\0\x20\x08\x02\0\0\0" + bytes(16)
    )  # fmt: skip
    (folder / "dir/data").write_bytes(bytes(range(256)) * 4)
    (folder / "etc/lnk").symlink_to("passwd")
    (folder / "abs").symlink_to("/etc")
    (folder / "dir/up").symlink_to("../../../../etc/hostname")
    (folder / "dir/sub/rand").write_bytes(os.urandom(300000))
    os.utime(folder / "dir/hello", (1600000000, 1600000000))
    for packer in ("gzip", "xz"):
        subprocess.run([packer, "-nk" if packer == "gzip" else "-k", folder / "dir/hello"], check=True)
    subprocess.run(["tar", "-C", folder / "dir", "-cf", folder / "dir/x.tar", "hello"], check=True)
    shutil.copy("/bin/true", folder / "bin/true")
    shutil.copy("/bin/true", folder / "bin/ls")
    os.mkfifo(folder / "dir/fifo")
    os.mknod(folder / "dir/null", 0o20644, os.makedev(1, 3))


def main_disk(folder: Path) -> Path:
    """A disk with /boot on the first partition, root and swap on LVM behind it, and the tree on root."""
    tree(folder / "tree")
    disk = folder / "disk.img"
    with disk.open("wb") as file:
        file.truncate(256 * MIB)
    table = "label: dos\nlabel-id: 0x7607baf6\nstart=2048, size=102400, type=83\nstart=104448, type=8e\n"
    judges.run("sfdisk", "-q", "--no-reread", "--no-tell-kernel", disk, input=table)
    volumes = {"root": "128M", "swap": "32M"}
    places = guest_images.logical_volumes(folder, disk, Place(51 * MIB, 205 * MIB), "VG", volumes)
    places["boot"] = Place(MIB, 50 * MIB)
    makers = {
        "boot": ("mkfs.ext4", "-q", "-F", "-L", "BOOT"),
        "root": ("mkfs.ext4", "-q", "-F", "-L", "ROOT", "-U", UUID, "-d", folder / "tree"),
        "swap": ("mkswap", "-q", "-L", "SWAP"),
    }
    for name, argv in makers.items():
        with guest_images.window(disk, places[name].offset, places[name].size) as device:
            judges.run(*argv, device)
    return disk


def host_folder(folder: Path) -> Path:
    """What commands take from the host, and where they put what they give it."""
    (folder / "out").mkdir(parents=True)
    (folder / "indir/sub").mkdir(parents=True)
    (folder / "indir/one").write_text("one\n")
    (folder / "indir/sub/two").write_text("two\n")
    (folder / "indir/link").symlink_to("one")
    (folder / "up").write_text("uploaded\n")
    (folder / "b64").write_text("SGVsbG8K\n")
    shutil.copy("/bin/true", folder / "disk.img")
    return folder


def copy(disk: Path, to: Path) -> Path:
    subprocess.run(["cp", "--sparse=always", disk, to], check=True)
    return to


def script(path: Path, commands: Iterable[str], host: Path, begin: str = "") -> Path:
    """A script that says before each command which one it is, and goes on after those that fail."""
    lines = [begin] if begin else []
    for number, command in enumerate(commands):
        lines += [f"echo @@@ {number}", f"-{command.replace('$HOST', str(host))}"]
    path.write_text("\n".join(lines) + "\n")
    return path


def split(text: str) -> dict[int, str]:
    parts = re.split(r"@@@ (\d+)\n", text)
    return {int(parts[at]): parts[at + 1] for at in range(1, len(parts) - 1, 2)}


class Pair:
    """Both sessions: ``host`` the folders that commands see as $HOST, ``disks`` each side's own copies."""

    def __init__(self, folder: Path, disks: list[Path]) -> None:
        self.folder = folder
        self.host = {name: host_folder(folder / name) for name in ("real", "ours")}
        self.disks = {
            name: [copy(disk, folder / f"{name}{number}.img") for number, disk in enumerate(disks)]
            for name in ("real", "ours")
        }

    def run(self, commands: list[str], begin: str = "run") -> list[tuple[str, str, str]]:
        """[(command, what the real one printed, what ours printed)…]"""
        programs = {"real": [judges.need("guestfish")], "ours": [sys.executable, "-m", "cowshed", "guestfish"]}
        said: dict[str, dict[int, str]] = {}
        for name, program in programs.items():
            text = self._session(name, program, commands, begin)
            if name == "real" and commands and "@@@ 0\n" not in text:
                judges.absent(f"guestfish's appliance does not start here: {text[-300:]}")
            said[name] = split(text.replace(str(self.host[name]), "$HOST"))
        assert len(said["real"]) == len(commands), f"the real one ended early: {sorted(said['real'].items())[-1]}"
        return [
            (command, said["real"][number], said["ours"].get(number, NOTHING))
            for number, command in enumerate(commands)
        ]

    def _session(self, name: str, program: list[str], commands: list[str], begin: str) -> str:
        lines = script(self.folder / f"{name}.gf", commands, self.host[name], begin)
        argv = [*program, *(word for disk in self.disks[name] for word in ("-a", str(disk))), "-f", lines.name]
        told = self.folder / f"{name}.out"
        with told.open("wb") as file:
            subprocess.run(
                argv, cwd=self.folder, stdout=file, stderr=file, stdin=subprocess.DEVNULL,
                env={**ENVIRONMENT, "HOME": str(self.folder)}, timeout=1500, check=False,
            )  # fmt: skip
        return told.read_text(errors="surrogateescape")


def plain(command: str, text: str) -> str:
    """Without what is the appliance's own: its names for the disks in errors, its place for the guest, its clock, the
    order of its hashes."""
    text = re.sub(r"^[^\n:]*\.gf:\d+: ", "", text, flags=re.MULTILINE)
    lines = text.split("\n")
    if any(line.startswith("libguestfs: error: ") for line in lines):
        text = re.sub(r"/dev/sd[a-e](?=\d|\b)", "/dev/sdX", text)
    text = re.sub(r"^PART_ENTRY_DISK: 8:\d+$", "PART_ENTRY_DISK: 8:N", text, flags=re.MULTILINE)
    text = re.sub(r"^DEVNAME: /dev/sd[a-e]", "DEVNAME: /dev/sdX", text, flags=re.MULTILINE)
    # 8:0 to 8:79, as device numbers
    text = re.sub(r"^( *(?:st_)?dev: )2(?:0[4-9]|1[0-2])\d$", r"\1DISK", text, flags=re.MULTILINE)
    text = re.sub(r"([acm]time\S*): \d+", r"\1: T", text)
    text = re.sub(r"[A-Z][a-z][a-z] [ \d]\d (\d\d:\d\d| \d{4}) ", "DATE ", text)
    text = text.replace("/sysroot/", "/")
    verb = command.split()[0]
    if verb in ("ls0", "find0"):
        return "\n".join(sorted(text.split("\0")))
    if verb == "readdir":
        return "\n".join(sorted(re.findall(r"\{\n(.*?)\}", text, re.DOTALL)))
    if verb in ("checksums-out", "inspect-get-mountpoints"):
        return "\n".join(sorted(text.split("\n")))
    if verb in ("df", "df-h"):
        rows = [line.split() for line in re.sub(r"/dev/sd[a-e]", "/dev/sdX", text).split("\n")]
        return "\n".join(" ".join(row) for row in rows if row and row[0] not in ("/dev/root", "/dev", "shmfs", "tmpfs"))
    if verb in ("ll", "llz") and text.startswith("total") and command.split()[1] in ("/", "/..", "/dir/.."):
        # above the guest's root is the appliance's own
        rows = [line.split() for line in text.split("\n")[1:]]
        return "\n".join(" ".join(row) for row in rows if row[-1:] != [".."])
    return text


def differences(
    found: list[tuple[str, str, str]],
    chosen: Callable[[str], bool],
    normal: Callable[[str, str], str] = plain,
) -> tuple[int, list[str]]:
    """(how many were the same, what differs and is not ``chosen`` to)."""
    same = 0
    differ = []
    for command, real, ours in found:
        theirs, mine = normal(command, real), normal(command, ours)
        if theirs == mine:
            same += 1
        elif not chosen(command):
            differ.append(f"{command}\n  real: {theirs[:900]!r}\n  ours: {mine[:900]!r}")
    return same, differ


def read_lines(name: str) -> list[str]:
    """A list of commands beside this file; what stands behind # on a line of its own is for people."""
    lines = (Path(__file__).parent / name).read_text().splitlines()
    return [line for line in lines if line and not line.startswith("#")]
