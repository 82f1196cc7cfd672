"""Whole guests for tests: disks with partitions, LVM and file systems, made by the real tools.

LVM is used without device-mapper: lvm2 writes its metadata, and the file systems are made where it says that the
volumes lie, through loop devices with an offset.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import judges
from loops import released

MIB = 1 << 20
CONFIG = "TYPE=Ethernet\nBOOTPROTO=dhcp\nNAME=ens3\nDEVICE=ens3\nONBOOT=no\n"

_LVM_CONFIG = """
global {{ activation = 0 use_lvmpolld = 0 locking_dir = "{lvm}/lock" }}
activation {{ udev_sync = 0 udev_rules = 0 monitoring = 0 }}
devices {{
  global_filter = [ "a|^{device}$|", "r|.*|" ] use_devicesfile = 0 obtain_device_list_from_udev = 0
  external_device_info_source = "none" scan = [ "/dev" ]
}}
backup {{ backup = 0 archive = 0 }}
"""


@contextlib.contextmanager
def window(path: Path, offset: int, size: int) -> Iterator[str]:
    """A loop device of a part of a file."""
    losetup = judges.need("losetup")
    argv = [losetup, "--find", "--show", "-o", str(offset), "--sizelimit", str(size), str(path)]
    done = subprocess.run(argv, capture_output=True, text=True)
    if done.returncode:
        judges.absent(f"loop devices, which need root ({done.stderr.strip()})")
    device = done.stdout.strip()
    try:
        yield device
    finally:
        subprocess.run([losetup, "--detach", device], check=True)
        released(path, "-o", str(offset))


@contextlib.contextmanager
def mounted(path: Path, offset: int, size: int, folder: Path, *options: str) -> Iterator[Path]:
    """A file system in a part of a file, mounted on ``folder``, which is made."""
    folder.mkdir(exist_ok=True)
    with window(path, offset, size) as device:
        subprocess.run([judges.need("mount"), *options, device, folder], check=True)
        try:
            yield folder
        finally:
            subprocess.run([judges.need("umount"), folder], check=True)


class Place:
    """Where a file system lies on the disk: ``offset`` and ``size`` in bytes."""

    def __init__(self, offset: int, size: int) -> None:
        self.offset = offset
        self.size = size


def logical_volumes(
    folder: Path, disk: Path, physical: Place, group: str, volumes: dict[str, str]
) -> dict[str, Place]:
    """Make a part of a disk a volume group with linear volumes, {name: size or share as lvcreate takes it}, and say
    where they lie."""
    lvm = folder / "lvm"
    (lvm / "lock").mkdir(parents=True)
    environment = {**os.environ, "LVM_SYSTEM_DIR": str(lvm), "LVM_SUPPRESS_FD_WARNINGS": "1", "LC_ALL": "C"}
    with window(disk, physical.offset, physical.size) as device:
        (lvm / "lvm.conf").write_text(_LVM_CONFIG.format(lvm=lvm, device=device))

        def run(*argv: str) -> str:
            done = subprocess.run(
                [judges.need("lvm"), *argv], env=environment, capture_output=True, text=True, check=False
            )
            assert done.returncode == 0, (argv, done.stdout, done.stderr)
            return done.stdout

        run("pvcreate", "-q", device)
        run("vgcreate", "-q", group, device)
        for name, size in volumes.items():
            run("lvcreate", "-q", "-an", "-Zn", "-Wn", "-n", name, "-l" if "%" in size else "-L", size, group)
        report = json.loads(run("pvs", "--reportformat", "json", "--units", "b", "--nosuffix", "-o", "pe_start"))
        start = int(report["report"][0]["pv"][0]["pe_start"])
        columns = "lv_name,lv_size,seg_start_pe,seg_pe_ranges,vg_extent_size"
        report = json.loads(
            run("lvs", "--segments", "--reportformat", "json", "--units", "b", "--nosuffix", "-o", columns)
        )
    found = {}
    for row in report["report"][0]["seg"]:
        first = int(row["seg_pe_ranges"].rpartition(":")[2].split("-")[0])
        extent = int(row["vg_extent_size"])
        found[row["lv_name"]] = Place(physical.offset + start + first * extent, int(row["lv_size"]))
    return found


class Centos:
    """A disk as CentOS 7 installs it: /boot on the first partition, root and swap in the volume group ``centos``.

    ``disk`` is the raw file; ``places`` where boot, root and swap lie on it.
    """

    def __init__(self, folder: Path, *, megabytes: int = 1400, root_kind: str = "xfs") -> None:
        self.folder = folder
        self.disk = folder / "centos.img"
        self.root_kind = root_kind
        with open(self.disk, "wb") as file:
            file.truncate(megabytes * MIB)
        boot = Place(MIB, 330 * MIB)
        physical = Place(331 * MIB, (megabytes - 331) * MIB)
        judges.need("sfdisk")
        layout = f"label: dos\nstart={2048}, size={boot.size // 512}, type=83, bootable\n"
        layout += f"start={physical.offset // 512}, size={physical.size // 512}, type=8e\n"
        subprocess.run(
            [judges.need("sfdisk"), "-q", "--no-reread", "--no-tell-kernel", self.disk],
            input=layout, text=True, check=True, capture_output=True,
        )  # fmt: skip
        volumes = {"swap": "128M", "root": "100%FREE"}
        self.places = {"boot": boot, **logical_volumes(folder, self.disk, physical, "centos", volumes)}
        self._make("boot", "xfs")
        self._make("root", root_kind)
        swap = self.places["swap"]
        with window(self.disk, swap.offset, swap.size) as device:
            subprocess.run([judges.need("mkswap"), "-q", "-L", "", device], check=True, capture_output=True)
        self.uuid = self._uuid("boot")

    def _make(self, name: str, kind: str) -> None:
        place = self.places[name]
        # as the kernel of CentOS 7 can mount it
        old = {"xfs": ["-f", "-q", "-m", "crc=1,finobt=0,rmapbt=0,reflink=0,bigtime=0,inobtcount=0", "-i", "sparse=0"]}
        with window(self.disk, place.offset, place.size) as device:
            judges.run(f"mkfs.{kind}", *old.get(kind, ["-q", "-F"]), device)

    def _uuid(self, name: str) -> str:
        place = self.places[name]
        argv = [judges.need("blkid"), "-p", "-s", "UUID", "-o", "value", "-O", str(place.offset), "-S", str(place.size)]
        return subprocess.run([*argv, self.disk], capture_output=True, text=True, check=True).stdout.strip()

    @contextlib.contextmanager
    def mount(self, name: str = "root", *options: str) -> Iterator[Path]:
        """Let the kernel mount one of the file systems."""
        place = self.places[name]
        if self.root_kind == "xfs" or name == "boot":
            options = ("-o", "nouuid", *options)
        with mounted(self.disk, place.offset, place.size, self.folder / f"mnt-{name}", *options) as folder:
            yield folder

    def fill(self) -> Centos:
        """What inspection looks for, and what people edit."""
        with self.mount("boot") as boot:
            (boot / "vmlinuz-3.10.0-1160.el7.x86_64").write_bytes(os.urandom(1 << 16))
            (boot / "grub2").mkdir()
            (boot / "grub2/grub.cfg").write_text("set default=0\n")
        with self.mount() as root:
            for name in ("etc/sysconfig/network-scripts", "boot", "bin", "usr/lib", "var/lib/rpm", "root", "home/user"):
                (root / name).mkdir(parents=True)
            shutil.copy("/bin/true", root / "bin/bash")
            shutil.copy("/bin/true", root / "bin/ls")
            for name, text in {
                "etc/centos-release": "CentOS Linux release 7.9.2009 (Core)\n",
                "usr/lib/os-release": 'NAME="CentOS Linux"\nVERSION="7 (Core)"\nID="centos"\nID_LIKE="rhel fedora"\n'
                'VERSION_ID="7"\nPRETTY_NAME="CentOS Linux 7 (Core)"\n',
                "etc/fstab": "/dev/mapper/centos-root /                       xfs     defaults        0 0\n"
                f"UUID={self.uuid} /boot                   xfs     defaults        0 0\n"
                "/dev/mapper/centos-swap swap                    swap    defaults        0 0\n",
                "etc/hostname": "web1.example\n",
                "etc/passwd": "root:x:0:0:root:/root:/bin/bash\n",
                "etc/sysconfig/network-scripts/ifcfg-ens3": CONFIG,
            }.items():
                (root / name).write_text(text)
            for link, target in (("redhat-release", "centos-release"), ("system-release", "centos-release")):
                (root / "etc" / link).symlink_to(target)
            (root / "etc/os-release").symlink_to("../usr/lib/os-release")
            edited = root / "etc/sysconfig/network-scripts/ifcfg-ens3"
            os.chmod(edited, 0o640)
            os.chown(edited, 0, 10)
            os.setxattr(edited, "security.selinux", b"system_u:object_r:net_conf_t:s0\0")
            os.setxattr(edited, "user.note", b"kept")
        return self

    def converted(self, fmt: str = "qcow2") -> Path:
        """The disk as an image of another format, by the real tool."""
        target = self.disk.with_suffix(f".{fmt}")
        subprocess.run([judges.need("qemu-img"), "convert", "-f", "raw", "-O", fmt, self.disk, target], check=True)
        return target

    def back(self, image: Path) -> None:
        """Make the disk what the image is, by the real tool: for the kernel and fsck to look at."""
        subprocess.run([judges.need("qemu-img"), "convert", "-O", "raw", image, self.disk], check=True)

    def check(self, name: str = "root") -> None:
        """The file system's own checker finds nothing."""
        place = self.places[name]
        tool: Callable[..., Any] = judges.need
        argv = [tool("xfs_repair"), "-n"] if self.root_kind == "xfs" or name == "boot" else [tool("e2fsck"), "-fn"]
        with window(self.disk, place.offset, place.size) as device:
            done = subprocess.run([*argv, device], capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
