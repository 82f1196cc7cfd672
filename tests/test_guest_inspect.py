"""What inspection says of systems: release files of each distribution, fstab, architectures, on ext4 and in memory."""

from __future__ import annotations

import struct
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import judges
from cowshed.guest.inspect import Root, SessionGuest, inspect
from cowshed.guest.inspect.elf import architecture
from cowshed.guest.inspect.xml import document
from cowshed.guest.session import Session


class Memory:
    """Files of a dict; a directory is what has names below it, or a name that ends with a slash."""

    def __init__(self, content: dict[str, bytes]) -> None:
        self.content = content

    def kind(self, path: str) -> str:
        if path in self.content:
            return "f"
        below = path.rstrip("/") + "/"
        return "d" if any(name.startswith(below) for name in self.content) else ""

    def read(self, path: str, limit: int = 1 << 20) -> bytes | None:
        data = self.content.get(path)
        return None if data is None else data[:limit]

    def size(self, path: str) -> int:
        return len(self.content.get(path, b""))

    def names(self, path: str) -> list[str]:
        below = path.rstrip("/") + "/"
        return sorted({name[len(below) :].split("/")[0] for name in self.content if name.startswith(below)} - {""})


class Disks:
    """A guest of file systems in memory: device -> (kind, tags, content)."""

    def __init__(self, devices: dict[str, tuple[str, dict[str, str], dict[str, bytes]]]) -> None:
        self.devices = devices

    def filesystems(self) -> list[tuple[str, str]]:
        return [(name, kind) for name, (kind, _, _) in self.devices.items()]

    def canonical(self, device: str) -> str:
        return device

    def exists(self, device: str) -> bool:
        return device in self.devices

    def disks(self) -> list[str]:
        return sorted({name.rstrip("0123456789") for name in self.devices if name.startswith("/dev/sd")})

    def tags(self, device: str) -> dict[str, str]:
        return self.devices[device][1] if device in self.devices else {}

    def tagged(self, tag: str, value: str) -> str | None:
        return next((name for name, (_, tags, _) in self.devices.items() if tags.get(tag) == value), None)

    def files(self, mounts: list[tuple[str, str]]) -> Memory | None:
        content: dict[str, bytes] = {}
        for index, (path, device) in enumerate(mounts):
            if device not in self.devices:
                if not index:
                    return None
                continue
            for name, data in self.devices[device][2].items():
                content[path.rstrip("/") + name] = data
        return Memory(content)


def elf(machine: int, bits: int = 64, little: bool = True) -> bytes:
    head = b"\x7fELF" + bytes((bits // 32, 1 if little else 2, 1)) + bytes(9)
    return head + struct.pack("<HH" if little else ">HH", 3, machine) + bytes(44)


BASE = {"/etc/fstab": b"/dev/vda1 / ext4 defaults 1 1\n", "/bin/bash": elf(62), "/etc/hosts": b""}


def root_of(content: dict[str, bytes]) -> Root:
    (root,) = inspect(Disks({"/dev/sda1": ("ext4", {}, {**BASE, **content})}))
    return root


def release(**values: str) -> bytes:
    return "".join(f'{name}="{value}"\n' for name, value in values.items()).encode()


OS = "/etc/os-release"
#: files -> distro, major, minor, product, package format, package management, osinfo
SYSTEMS: dict[str, tuple[dict[str, bytes], tuple[str, int, int, str, str, str, str]]] = {
    "debian 12": (
        {OS: release(PRETTY_NAME="Debian GNU/Linux 12 (bookworm)", ID="debian", VERSION_ID="12"),
         "/etc/debian_version": b"12.5\n"},
        ("debian", 12, 5, "12.5", "deb", "apt", "debian12"),
    ),
    "debian testing": (
        {OS: release(PRETTY_NAME="Debian GNU/Linux trixie/sid", ID="debian"), "/etc/debian_version": b"trixie/sid\n"},
        ("debian", 0, 0, "trixie/sid", "deb", "apt", "debian0.0"),
    ),
    "debian 3.1": ({"/etc/debian_version": b"3.1\n"}, ("debian", 3, 1, "3.1", "deb", "apt", "debian3.1")),
    "ubuntu 22.04": (
        {OS: release(PRETTY_NAME="Ubuntu 22.04.3 LTS", ID="ubuntu", VERSION_ID="22.04", ID_LIKE="debian"),
         "/etc/lsb-release": b'DISTRIB_ID=Ubuntu\nDISTRIB_RELEASE=22.04\nDISTRIB_DESCRIPTION="Ubuntu 22.04.3 LTS"\n',
         "/etc/debian_version": b"bookworm/sid\n"},
        ("ubuntu", 22, 4, "Ubuntu 22.04.3 LTS", "deb", "apt", "ubuntu22.04"),
    ),
    "ubuntu 10.10": (
        {"/etc/lsb-release": b'DISTRIB_ID=Ubuntu\nDISTRIB_RELEASE=10.10\nDISTRIB_DESCRIPTION="Ubuntu 10.10"\n',
         "/etc/debian_version": b"squeeze/sid\n"},
        ("ubuntu", 10, 10, "Ubuntu 10.10", "deb", "apt", "ubuntu10.10"),
    ),
    "fedora 43": (
        {OS: release(NAME="Fedora Linux", ID="fedora", VERSION_ID="43", PRETTY_NAME="Fedora Linux 43 (Server Edition)"),
         "/etc/redhat-release": b"Fedora release 43 (Forty Three)\n"},
        ("fedora", 43, 0, "Fedora Linux 43 (Server Edition)", "rpm", "dnf", "fedora43"),
    ),
    "fedora 14": (
        {"/etc/redhat-release": b"Fedora release 14 (Laughlin)\n"},
        ("fedora", 14, 0, "Fedora release 14 (Laughlin)", "rpm", "yum", "fedora14"),
    ),
    "centos 6": (
        {"/etc/centos-release": b"CentOS release 6.10 (Final)\n",
         "/etc/redhat-release": b"CentOS release 6.10 (Final)\n"},
        ("centos", 6, 10, "CentOS release 6.10 (Final)", "rpm", "yum", "centos6.10"),
    ),
    "centos 7": (
        {OS: release(NAME="CentOS Linux", ID="centos", VERSION_ID="7", PRETTY_NAME="CentOS Linux 7 (Core)"),
         "/etc/centos-release": b"CentOS Linux release 7.9.2009 (Core)\n",
         "/etc/redhat-release": b"CentOS Linux release 7.9.2009 (Core)\n"},
        ("centos", 7, 9, "CentOS Linux release 7.9.2009 (Core)", "rpm", "yum", "centos7.0"),
    ),
    "centos 8": (
        {OS: release(ID="centos", VERSION_ID="8", PRETTY_NAME="CentOS Linux 8"),
         "/etc/centos-release": b"CentOS Linux release 8.4.2105\n"},
        ("centos", 8, 4, "CentOS Linux release 8.4.2105", "rpm", "dnf", "centos8"),
    ),
    "centos stream 10": (
        {OS: release(ID="centos", VERSION_ID="10", PRETTY_NAME="CentOS Stream 10 (Coughlan)"),
         "/etc/centos-release": b"CentOS Stream release 10 (Coughlan)\n"},
        ("centos", 10, 0, "CentOS Stream release 10 (Coughlan)", "rpm", "dnf", "centos10"),
    ),
    "rhel 5": (
        {"/etc/redhat-release": b"Red Hat Enterprise Linux Server release 5.11 (Tikanga)\n"},
        ("rhel", 5, 11, "Red Hat Enterprise Linux Server release 5.11 (Tikanga)", "rpm", "yum", "rhel5.11"),
    ),
    "rhel 9": (
        {OS: release(ID="rhel", VERSION_ID="9.3", PRETTY_NAME="Red Hat Enterprise Linux 9.3 (Plow)")},
        ("rhel", 9, 3, "Red Hat Enterprise Linux 9.3 (Plow)", "rpm", "dnf", "rhel9.3"),
    ),
    "rocky 9": (
        {OS: release(ID="rocky", VERSION_ID="9.4", PRETTY_NAME="Rocky Linux 9.4 (Blue Onyx)")},
        ("rocky", 9, 4, "Rocky Linux 9.4 (Blue Onyx)", "rpm", "dnf", "rocky9"),
    ),
    "almalinux 8": (
        {OS: release(ID="almalinux", VERSION_ID="8.9", PRETTY_NAME="AlmaLinux 8.9 (Midnight Oncilla)")},
        ("almalinux", 8, 9, "AlmaLinux 8.9 (Midnight Oncilla)", "rpm", "dnf", "almalinux8"),
    ),
    "oracle 6": (
        {"/etc/oracle-release": b"Oracle Linux Server release 6.10\n",
         "/etc/redhat-release": b"Red Hat Enterprise Linux Server release 6.10 (Santiago)\n"},
        ("oraclelinux", 6, 10, "Oracle Linux Server release 6.10", "rpm", "yum", "ol6.10"),
    ),
    "opensuse leap": (
        {OS: release(ID="opensuse-leap", VERSION_ID="15.5", PRETTY_NAME="openSUSE Leap 15.5")},
        ("opensuse", 15, 5, "openSUSE Leap 15.5", "rpm", "zypper", "opensuse15.5"),
    ),
    "opensuse 11.4": (
        {"/etc/SuSE-release": b"openSUSE 11.4 (x86_64)\nVERSION = 11.4\nCODENAME = Celadon\n"},
        ("opensuse", 11, 4, "openSUSE 11.4 (x86_64)", "rpm", "zypper", "opensuse11.4"),
    ),
    "sles 11": (
        {"/etc/SuSE-release": b"SUSE Linux Enterprise Server 11 (x86_64)\nVERSION = 11\nPATCHLEVEL = 4\n"},
        ("sles", 11, 4, "SUSE Linux Enterprise Server 11 (x86_64)", "rpm", "zypper", "sles11sp4"),
    ),
    "sles 15": (
        {OS: release(ID="sles", VERSION_ID="15.4", PRETTY_NAME="SUSE Linux Enterprise Server 15 SP4")},
        ("sles", 15, 4, "SUSE Linux Enterprise Server 15 SP4", "rpm", "zypper", "sles15sp4"),
    ),
    "arch": (
        {OS: release(ID="arch", PRETTY_NAME="Arch Linux", BUILD_ID="rolling"), "/etc/arch-release": b""},
        ("archlinux", 0, 0, "Arch Linux", "pacman", "pacman", "archlinux"),
    ),
    "alpine": (
        {OS: release(ID="alpine", VERSION_ID="3.18.4", PRETTY_NAME="Alpine Linux v3.18"),
         "/etc/alpine-release": b"3.18.4\n"},
        ("alpinelinux", 3, 18, "Alpine Linux v3.18", "apk", "apk", "alpinelinux3.18"),
    ),
    "gentoo": (
        {"/etc/gentoo-release": b"Gentoo Base System release 2.14\n"},
        ("gentoo", 2, 14, "Gentoo Base System release 2.14", "ebuild", "portage", "gentoo"),
    ),
    "nobody's": (
        {OS: release(ID="selfmade", VERSION_ID="1.0", PRETTY_NAME="Self made")},
        ("unknown", 0, 0, "unknown", "unknown", "unknown", "unknown"),
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", SYSTEMS)
def test_release(name: str) -> None:
    content, wanted = SYSTEMS[name]
    root = root_of(content)
    assert (
        root.distro, *root.version, root.product, root.package_format, root.package_management, root.osinfo
    ) == wanted  # fmt: skip
    assert (root.type, root.arch, root.device) == ("linux", "x86_64", "/dev/sda1")


@pytest.mark.parametrize(
    ("content", "name"),
    [
        ({"/etc/hostname": b"# said\n\nweb1.example\n", **SYSTEMS["debian 12"][0]}, "web1.example"),
        ({"/etc/sysconfig/network": b"NETWORKING=yes\nHOSTNAME=c6.example\n", **SYSTEMS["centos 6"][0]}, "c6.example"),
        ({"/etc/hostname": b"c7\n", "/etc/sysconfig/network": b"HOSTNAME=old\n", **SYSTEMS["centos 7"][0]}, "c7"),
        ({"/etc/HOSTNAME": b"s11.example\n", **SYSTEMS["sles 11"][0]}, "s11.example"),
        ({"/etc/conf.d/hostname": b'# x\nhostname="g"\n', **SYSTEMS["gentoo"][0]}, "g"),
        (SYSTEMS["debian 12"][0], "unknown"),
    ],
)
def test_hostname(content: dict[str, bytes], name: str) -> None:
    assert root_of(content).hostname == name


@pytest.mark.parametrize(
    ("head", "name"),
    [
        (elf(62), "x86_64"),
        (elf(3, 32), "i386"),
        (elf(183), "aarch64"),
        (elf(40, 32), "arm"),
        (elf(21, 64, False), "ppc64"),
        (elf(21), "ppc64le"),
        (elf(20, 32, False), "ppc"),
        (elf(22, 64, False), "s390x"),
        (elf(22, 32, False), "s390"),
        (elf(43, 64, False), "sparc64"),
        (elf(50), "ia64"),
        (elf(243), "riscv64"),
        (elf(258), "loongarch64"),
        (elf(9999), None),
        (b"\x7fELF", None),
        (b"#!/bin/sh\n" * 4, None),
        (b"", None),
    ],
)
def test_architecture(head: bytes, name: str | None) -> None:
    assert architecture(head) == name


def test_the_machine_itself() -> None:
    import platform

    assert architecture(Path("/bin/ls").read_bytes()[:64]) == platform.machine()


FSTAB = rb"""
# <file system> <mount point> <type> <options> <dump> <pass>
UUID=0aaa / ext4 errors=remount-ro 0 1
LABEL=BOOT /boot ext4 defaults 0 2
PARTUUID=77-03 /srv/my\040data xfs defaults 0 0
PARTLABEL="home" /home/ xfs defaults 0 0
/dev/mapper/my--vg-var--log /var/log ext4 defaults 0 0
/dev/my-vg/opt /opt ext4 defaults 0 0
/dev/disk/by-uuid/0bbb /usr/local ext4 defaults 0 0
/dev/disk/by-label/my\x20data /data ext4 defaults 0 0
/dev/vdb1 /mnt/two ext4 defaults 0 0
/dev/xvda5 swap swap sw 0 0
UUID=0ccc none swap sw 0 0
UUID=dead /gone ext4 defaults 0 0
/dev/cdrom /media/cdrom iso9660 ro 0 0
/srv /export none bind 0 0
nfs.example:/x /nfs nfs defaults 0 0
proc /proc proc defaults 0 0
tmpfs /tmp tmpfs defaults 0 0
/dev/vda9 /../../etc ext4 defaults 0 0
short
"""


def test_fstab() -> None:
    empty: dict[str, bytes] = {}
    disks = Disks(
        {
            "/dev/sda1": ("ext4", {"LABEL": "BOOT"}, {"/vmlinuz": b""}),
            "/dev/sda2": ("ext4", {"UUID": "0aaa"}, {**BASE, "/etc/fstab": FSTAB, **SYSTEMS["debian 12"][0]}),
            "/dev/sda3": ("xfs", {"PARTUUID": "77-03"}, empty),
            "/dev/sda4": ("xfs", {"PARTLABEL": "home"}, empty),
            "/dev/sda5": ("swap", {}, empty),
            "/dev/sda6": ("swap", {"UUID": "0ccc"}, empty),
            "/dev/sda7": ("ext4", {"UUID": "0bbb"}, empty),
            "/dev/sda8": ("ext4", {"LABEL": "my data"}, empty),
            "/dev/sdb1": ("ext4", {}, empty),
            "/dev/my-vg/var-log": ("ext4", {}, empty),
            "/dev/my-vg/opt": ("ext4", {}, empty),
        }
    )
    (root,) = inspect(disks)
    assert root.device == "/dev/sda2"
    assert root.mounts == [
        ("/", "/dev/sda2"),
        ("/boot", "/dev/sda1"),
        ("/srv/my data", "/dev/sda3"),
        ("/home", "/dev/sda4"),
        ("/var/log", "/dev/my-vg/var-log"),
        ("/opt", "/dev/my-vg/opt"),
        ("/usr/local", "/dev/sda7"),
        ("/data", "/dev/sda8"),
        ("/mnt/two", "/dev/sdb1"),
    ]
    assert root.swaps == ["/dev/sda5", "/dev/sda6"]
    assert root.mountpoints[-1] == ("/", "/dev/sda2")
    assert root.filesystems[:3] == ["/dev/sda6", "/dev/sda5", "/dev/sdb1"]


def test_several_roots_and_other_systems() -> None:
    disks = Disks(
        {
            "/dev/sda1": ("ext4", {}, {**BASE, **SYSTEMS["fedora 43"][0]}),
            "/dev/sda2": ("xfs", {}, {**BASE, **SYSTEMS["centos 7"][0], "/etc/fstab": b""}),
            "/dev/sda3": ("ext4", {}, {"/home/me/notes": b""}),
            "/dev/sdb1": ("vfat", {}, {"/WINDOWS/system32/cmd.exe": b""}),
            "/dev/sdc1": ("ufs", {}, {"/etc/fstab": b"", "/etc/freebsd-update.conf": b"",
                                      "/etc/motd": b"FreeBSD 13.2-RELEASE\n", "/etc/rc.conf": b'hostname="bsd"\n',
                                      "/bin/ls": elf(62)}),
        }
    )  # fmt: skip
    found = inspect(disks)
    assert [(root.device, root.type, root.distro, root.version) for root in found] == [
        ("/dev/sda1", "linux", "fedora", (43, 0)),
        ("/dev/sda2", "linux", "centos", (7, 9)),
        ("/dev/sdb1", "windows", "windows", (0, 0)),
        ("/dev/sdc1", "freebsd", "freebsd", (13, 2)),
    ]
    assert found[1].mounts == [("/", "/dev/sda2")]
    assert (found[3].hostname, found[3].osinfo) == ("bsd", "freebsd13.2")


def build(folder: Path, content: dict[str, bytes], links: dict[str, str] | None = None) -> Path:
    tree = folder / "tree"
    for name, data in content.items():
        place = tree / name.lstrip("/")
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(data)
    for name, target in (links or {}).items():
        place = tree / name.lstrip("/")
        place.parent.mkdir(parents=True, exist_ok=True)
        place.symlink_to(target)
    return judges.ext4_image(folder / "disk.img", 16 << 20, tree)


def test_on_a_disk(tmp_path: Path) -> None:
    """The system of the transcripts: an ext4 with /bin a link into /usr, and links that lead round in circles."""
    image = build(
        tmp_path,
        {
            "/usr/lib/os-release": release(ID="debian", VERSION_ID="12", PRETTY_NAME="Debian GNU/Linux 12 (bookworm)"),
            "/etc/debian_version": b"12.5\n",
            "/etc/hostname": b"phony.example\n",
            "/etc/fstab": b"/dev/vda / ext4 defaults 0 1\n",
            "/usr/bin/bash": elf(62),
            "/var/lib/dpkg/status": b"Package: a\nStatus: install ok installed\nVersion: 1:2-3\nArchitecture: all\n",
        },
        {
            "/bin": "usr/bin",
            "/etc/os-release": "../usr/lib/os-release",
            "/etc/HOSTNAME": "HOSTNAME",
            "/etc/centos-release": "../../../../../../etc/hostname",
        },
    )
    with Session(readonly=True) as session:
        session.add(str(image), fmt="raw")
        session.run()
        with SessionGuest(session) as guest:
            (root,) = inspect(guest)
            assert root.device == "/dev/sda"
            assert (root.distro, root.version, root.product, root.arch) == ("debian", (12, 5), "12.5", "x86_64")
            assert root.hostname == "phony.example"
            assert [repr(one) for one in root.applications()] == ["<Application a 1:2-3 all>"]
            text = document([root])
    top = ET.fromstring(text)
    assert top.tag == "operatingsystems"
    system = top[0]
    assert [child.tag for child in system] == [
        "root", "name", "arch", "distro", "product_name", "major_version", "minor_version", "package_format",
        "package_management", "hostname", "osinfo", "mountpoints", "filesystems", "applications",
    ]  # fmt: skip
    assert system.findtext("osinfo") == "debian12"
    assert system.findtext("filesystems/filesystem/type") == "ext4"
    assert system.find("mountpoints/mountpoint").attrib == {"dev": "/dev/sda"}  # type: ignore[union-attr]
    assert system.findtext("applications/application/epoch") == "1"


@settings(max_examples=150, deadline=None)
@given(
    st.dictionaries(
        st.sampled_from(
            [OS, "/etc/fstab", "/etc/redhat-release", "/etc/debian_version", "/etc/SuSE-release", "/etc/lsb-release",
             "/etc/hostname", "/etc/sysconfig/network", "/bin/bash", "/etc/motd", "/netbsd", "/bsd", "/etc/release",
             "/etc/centos-release", "/etc/alpine-release"]
        ),
        st.one_of(
            st.binary(max_size=200),
            st.lists(
                st.sampled_from(["ID=", "debian", "centos", "VERSION_ID=", '"', "9" * 30, ".", "\n", " / ", "/dev/sda1",
                                 "/dev/mapper/a-b", "UUID=x", " swap ", "\\040", "\\777", "release ", "\0", "CentOS"]),
                max_size=30,
            ).map(lambda words: "".join(words).encode()),
        ),
    )
)  # fmt: skip
def test_any_content_ends_in_an_answer(content: dict[str, bytes]) -> None:
    for root in inspect(Disks({"/dev/sda1": ("ext4", {}, {**BASE, **content})})):
        ET.fromstring(document([root], applications=False))
        assert root.mounts
