"""What follows from distribution and version: package format, package manager, libosinfo's short id, where the host's
name is kept."""

from __future__ import annotations

from .release import assignments, lines
from .root import UNKNOWN

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .access import Files
    from .root import Root

_REDHAT = ("rhel", "centos", "rocky", "almalinux", "scientificlinux", "oraclelinux", "redhat-based", "openeuler",
           "kylin", "neokylin")  # fmt: skip
_DEBIAN = ("debian", "ubuntu", "linuxmint", "kalilinux")

_FORMATS = {
    **dict.fromkeys((*_REDHAT, "fedora", "altlinux", "mageia", "mandriva", "meego", "opensuse", "sles", "suse-based",
                     "pldlinux"), "rpm"),
    **dict.fromkeys(_DEBIAN, "deb"),
    "archlinux": "pacman",
    "frugalware": "pacman",
    "gentoo": "ebuild",
    "pardus": "pisi",
    "alpinelinux": "apk",
    "voidlinux": "xbps",
}  # fmt: skip

_MANAGERS = {
    **dict.fromkeys((*_DEBIAN, "altlinux"), "apt"),
    **dict.fromkeys(("opensuse", "sles", "suse-based"), "zypper"),
    "archlinux": "pacman",
    "frugalware": "pacman",
    "gentoo": "portage",
    "pardus": "pisi",
    "mandriva": "urpmi",
    "mageia": "urpmi",
    "alpinelinux": "apk",
    "voidlinux": "xbps",
    "meego": "yum",
    "openeuler": "dnf",
}


def package_format(root: Root) -> str:
    if root.type in ("freebsd", "netbsd", "openbsd"):
        return "pkgsrc" if root.type == "netbsd" else UNKNOWN
    return _FORMATS.get(root.distro, UNKNOWN)


def package_management(root: Root) -> str:
    major = root.version[0]
    if root.distro == "fedora":
        return "dnf" if major >= 22 else "yum"
    if root.distro in _REDHAT and root.distro not in _MANAGERS:
        return "dnf" if major >= 8 else "yum" if major >= 5 else "up2date"
    if root.type == "netbsd":
        return "pkgsrc"
    return _MANAGERS.get(root.distro, UNKNOWN)


def osinfo(root: Root) -> str:
    """The short id, "unknown" where libosinfo has none."""
    major, minor = root.version
    distro = root.distro
    if root.type in ("freebsd", "netbsd", "openbsd"):
        return f"{root.type}{major}.{minor}" if major else UNKNOWN
    if root.type != "linux":
        return UNKNOWN
    if distro == "centos":
        return f"centos{major}" if major >= 8 else "centos7.0" if major == 7 else f"centos{major}.{minor}"
    if distro in ("fedora", "mageia", "rocky", "almalinux", "circle"):
        return f"{distro}{major}"
    if distro == "debian":
        return f"debian{major}" if major >= 4 else f"debian{major}.{minor}"
    if distro == "ubuntu":
        return f"ubuntu{major}.{minor:02}"
    if distro == "sles":
        base = "sled" if "Desktop" in root.product else "sles"
        return f"{base}{major}sp{minor}" if minor else f"{base}{major}"
    if distro == "oraclelinux":
        return f"ol{major}.{minor}"
    if distro in ("archlinux", "gentoo", "voidlinux"):
        return distro
    if distro in ("altlinux", "rhel", "opensuse", "alpinelinux", "mandriva", "scientificlinux", "slackware", "pldlinux",
                  "openeuler", "cirros", "kalilinux", "linuxmint"):  # fmt: skip
        return f"{distro}{major}.{minor}" if major else UNKNOWN
    return UNKNOWN


def hostname(files: Files, root: Root) -> str:
    """The name that the system gives itself at boot."""
    if root.type in ("freebsd", "netbsd"):
        return assignments(files, "/etc/rc.conf").get("hostname") or UNKNOWN
    if root.type == "openbsd":
        return _first(files, "/etc/myname")
    if root.distro == "gentoo":
        given = assignments(files, "/etc/conf.d/hostname")
        return given.get("hostname") or given.get("HOSTNAME") or _first(files, "/etc/hostname")
    if root.distro in ("opensuse", "sles", "suse-based"):
        return _one_of(files, ("/etc/HOSTNAME", "/etc/hostname"))
    name = _one_of(files, ("/etc/hostname", "/etc/HOSTNAME"))
    if name == UNKNOWN:
        name = assignments(files, "/etc/sysconfig/network").get("HOSTNAME") or UNKNOWN
    return name


def _one_of(files: Files, paths: tuple[str, ...]) -> str:
    return next((name for path in paths if (name := _first(files, path)) != UNKNOWN), UNKNOWN)


def _first(files: Files, path: str) -> str:
    """hostname(5): the first line that is neither empty nor a comment."""
    return next((line for line in lines(files, path) if line and not line.startswith("#")), UNKNOWN)
