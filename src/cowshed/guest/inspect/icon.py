"""The icon of an operating system, from the files that it is mounted with."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ..tree import Tree
    from .root import Root

_PNG = b"\x89PNG\r\n\x1a\n"
#: no icon is longer: what a guest gives is bounded before it is read
_LONGEST = 1 << 20
_FAVICON = b"/etc/favicon.png"
_PIXMAPS = b"/usr/share/pixmaps/"
_ICONS = b"/usr/share/icons/"
#: distribution -> (file, is it large and with an alpha channel)
_FILES = {
    "fedora": (_ICONS + b"hicolor/96x96/apps/fedora-logo-icon.png", True),
    "rhel": (_PIXMAPS + b"redhat/shadowman-transparent.png", True),
    "debian": (_PIXMAPS + b"debian-logo.png", True),
    "ubuntu": (_ICONS + b"gnome/24x24/places/ubuntu-logo.png", False),
    "opensuse": (_ICONS + b"hicolor/24x24/apps/distributor.png", False),
    "mageia": (_ICONS + b"mageia.png", True),
}
_LIKE = {"centos": "rhel", "scientificlinux": "rhel", "oraclelinux": "rhel", "redhat-based": "rhel"}


def icon(tree: Tree, root: Root, *, favicon: bool = True, high: bool = False) -> bytes:
    """A PNG image, b"" where none is found: /etc/favicon.png, else what the distribution brings. ``high``: large ones
    with an alpha channel only, as far as is known. Raises CorruptError, HostError of what lies below."""
    name, large = _FILES.get(_LIKE.get(root.distro, root.distro), (b"", False))
    for path in (_FAVICON if favicon else b"", name if large or not high else b""):
        found = _png(tree, path) if path else b""
        if found:
            return found
    return b""


def _png(tree: Tree, path: bytes) -> bytes:
    from ..filesystem.base import GuestError

    try:
        place = tree.regular(path)
        if place.stat().size > _LONGEST:
            return b""
        data = b"".join(tree.chunks(place))
    except GuestError:
        return b""
    return data if data.startswith(_PNG) else b""
