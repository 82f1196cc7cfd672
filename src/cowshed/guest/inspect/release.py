"""Which distribution and release: os-release(5) and the files that were there before it."""

from __future__ import annotations

import re

from .access import SMALL

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from .access import Files
    from .root import Root

#: ID of os-release -> the name that inspection gives
_IDS = {
    "almalinux": "almalinux",
    "alpine": "alpinelinux",
    "altlinux": "altlinux",
    "arch": "archlinux",
    "centos": "centos",
    "cirros": "cirros",
    "coreos": "coreos",
    "debian": "debian",
    "fedora": "fedora",
    "frugalware": "frugalware",
    "gentoo": "gentoo",
    "kali": "kalilinux",
    "kylin": "kylin",
    "linuxmint": "linuxmint",
    "mageia": "mageia",
    "neokylin": "neokylin",
    "ol": "oraclelinux",
    "openEuler": "openeuler",
    "openmandriva": "mandriva",
    "opensuse": "opensuse",
    "pardus": "pardus",
    "pld": "pldlinux",
    "rhel": "rhel",
    "rocky": "rocky",
    "scientific": "scientificlinux",
    "slackware": "slackware",
    "sled": "sles",
    "sles": "sles",
    "sles_sap": "sles",
    "ubuntu": "ubuntu",
    "void": "voidlinux",
}

#: releases of which os-release says the major number only, while another file says more
_MAJOR_ONLY = ("debian", "centos")

_VERSION = re.compile(r"(\d{1,9})(?:\.(\d{1,9}))?")


def identify(files: Files, root: Root) -> None:
    """Fill in distribution, version, product name and build id."""
    for test in (_os_release, _lsb_release, _redhat, _debian, _suse, _others):
        if test(files, root):
            return


def lines(files: Files, path: str) -> list[str]:
    """The lines of a small text file, stripped; empty without one."""
    data = files.read(path, SMALL)
    return [] if data is None else [line.strip() for line in data.decode("utf-8", "replace").splitlines()]


def assignments(files: Files, path: str) -> dict[str, str]:
    """NAME=value of a file of shell assignments, quotes and their escapes undone; the first of a name counts."""
    found: dict[str, str] = {}
    for line in lines(files, path):
        name, equals, value = line.partition("=")
        if equals and not line.startswith("#"):
            found.setdefault(name.strip(), _unquoted(value.strip()))
    return found


def _unquoted(value: str) -> str:
    if len(value) >= 2 and value[0] == value[-1] and value[0] in "\"'":
        inside = value[1:-1]
        return re.sub(r'\\(["$`\\])', r"\1", inside) if value[0] == '"' else inside
    return value


def _set_version(root: Root, text: str) -> bool:
    found = _VERSION.search(text)
    if found is None:
        return False
    root.version = (int(found[1]), int(found[2] or 0))
    return True


def _os_release(files: Files, root: Root) -> bool:
    values: dict[str, str] = {}
    for path in ("/etc/os-release", "/usr/lib/os-release"):
        values = assignments(files, path)
        if values.get("ID"):
            break
    name = values.get("ID", "")
    distro = "opensuse" if name.startswith("opensuse") else _IDS.get(name)
    root.build_id = values.get("BUILD_ID") or root.build_id
    if distro is None:
        return False
    root.version = (0, 0)
    _set_version(root, values.get("VERSION_ID", ""))
    if distro in _MAJOR_ONLY and not root.version[1]:
        better = _debian if distro == "debian" else _redhat
        if better(files, root) and root.distro == distro:
            return True
    root.distro = distro
    root.product = values.get("PRETTY_NAME") or root.product
    return True


def _lsb_release(files: Files, root: Root) -> bool:
    values = assignments(files, "/etc/lsb-release")
    distro = {
        "Ubuntu": "ubuntu", "LinuxMint": "linuxmint", "Mageia": "mageia", "ManjaroLinux": None, "CoreOS": "coreos",
    }.get(values.get("DISTRIB_ID", ""))  # fmt: skip
    if distro is None:
        return False
    root.distro = distro
    root.product = values.get("DISTRIB_DESCRIPTION") or root.product
    _set_version(root, values.get("DISTRIB_RELEASE", ""))
    return True


#: in this order: clones also have the file of the one that they are made of
_RELEASE_FILES: tuple[tuple[str, tuple[tuple[str, str], ...]], ...] = (
    ("/etc/oracle-release", (("Oracle Linux", "oraclelinux"), ("Enterprise Linux", "oraclelinux"))),
    ("/etc/enterprise-release", (("Enterprise Linux", "oraclelinux"),)),
    ("/etc/centos-release", (("CentOS", "centos"),)),
    ("/etc/rocky-release", (("Rocky Linux", "rocky"),)),
    ("/etc/almalinux-release", (("AlmaLinux", "almalinux"),)),
    (
        "/etc/redhat-release",
        (
            ("Fedora", "fedora"),
            ("Red Hat", "rhel"),
            ("CentOS", "centos"),
            ("Rocky Linux", "rocky"),
            ("AlmaLinux", "almalinux"),
            ("Scientific Linux", "scientificlinux"),
            ("Oracle Linux", "oraclelinux"),
            ("Mageia", "mageia"),
            ("", "redhat-based"),
        ),
    ),
)


def _redhat(files: Files, root: Root) -> bool:
    for path, names in _RELEASE_FILES:
        text = next(iter(lines(files, path)), "")
        if not text:
            continue
        for begin, distro in names:
            if text.startswith(begin):
                root.distro = distro
                root.product = text
                _set_version(root, text.partition("release")[2])
                return True
    return False


def _debian(files: Files, root: Root) -> bool:
    text = next(iter(lines(files, "/etc/debian_version")), "")
    if not text:
        return False
    root.distro = "debian"
    root.product = text
    # "trixie/sid" has no number: what os-release said, if anything, stays
    _set_version(root, text)
    return True


def _suse(files: Files, root: Root) -> bool:
    text = lines(files, "/etc/SuSE-release")
    if not text or not text[0]:
        return False
    root.product = text[0]
    if text[0].startswith("openSUSE"):
        root.distro = "opensuse"
        _set_version(root, text[0])
    elif text[0].startswith("SUSE Linux Enterprise"):
        root.distro = "sles"
        values = assignments(files, "/etc/SuSE-release")
        major, minor = (re.match(r"\d{1,9}", values.get(name, "")) for name in ("VERSION", "PATCHLEVEL"))
        root.version = (int(major[0]) if major else 0, int(minor[0]) if minor else 0)
    else:
        root.distro = "suse-based"
        _set_version(root, text[0])
    return True


#: (file, distribution, what stands before the release in the product's name)
_SIMPLE = (
    ("/etc/alpine-release", "alpinelinux", "Alpine Linux "),
    ("/etc/altlinux-release", "altlinux", ""),
    ("/etc/arch-release", "archlinux", ""),
    ("/etc/gentoo-release", "gentoo", ""),
    ("/etc/mageia-release", "mageia", ""),
    ("/etc/mandriva-release", "mandriva", ""),
    ("/etc/meego-release", "meego", ""),
    ("/etc/pardus-release", "pardus", ""),
    ("/etc/frugalware-release", "frugalware", ""),
    ("/etc/pld-release", "pldlinux", ""),
    ("/etc/slackware-version", "slackware", ""),
    ("/etc/ttylinux-target", "ttylinux", ""),
    ("/etc/cirros/version", "cirros", "CirrOS "),
    ("/etc/br-version", "buildroot", "Buildroot "),
)


def _others(files: Files, root: Root) -> bool:
    for path, distro, before in _SIMPLE:
        if files.kind(path) == "f":
            root.distro = distro
            text = next(iter(lines(files, path)), "")
            root.product = before + text if text else root.product
            _set_version(root, text)
            return True
    return False


_BSD: tuple[tuple[str, str, Callable[[Files], bool]], ...] = (
    ("freebsd", "/etc/freebsd-update.conf", lambda files: True),
    ("netbsd", "/netbsd", lambda files: bool(files.read("/etc/release", SMALL))),
    ("openbsd", "/bsd", lambda files: files.kind("/etc/motd") == "f"),
)


def identify_bsd(files: Files) -> tuple[str, str, tuple[int, int]] | None:
    """(type, product name, version) of a BSD's root file system."""
    if files.kind("/etc/fstab") != "f":
        return None
    for kind, mark, check in _BSD:
        if files.kind(mark) == "f" and check(files):
            text = next(iter(lines(files, "/etc/release" if kind == "netbsd" else "/etc/motd")), "")
            found = _VERSION.search(text)
            return kind, text or "unknown", (int(found[1]), int(found[2] or 0)) if found else (0, 0)
    return None
