"""The packages that are installed, out of the package managers' own databases."""

from __future__ import annotations

from ....errors import CowshedError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from ..access import Files
    from ..application import Application
    from ..root import Root

#: no system has as many
MAX_PACKAGES = 200_000


class PackageError(CowshedError):
    """A package database that can't be read."""


def applications(root: Root) -> list[Application]:
    """The installed packages of a system, sorted by name; none where its package format isn't known here.

    Raises PackageError when there is a database that can't be read as a whole.
    """
    kind = root.package_format
    if kind not in ("rpm", "deb", "apk", "pacman"):
        return []
    files = root.files()
    if files is None:
        return []
    from itertools import islice

    found = list(islice(_reader(kind, files), MAX_PACKAGES + 1))
    if len(found) > MAX_PACKAGES:
        raise PackageError(f"The {kind} database has more than {MAX_PACKAGES} packages", path=root.device)
    return sorted(found, key=lambda one: (one.name, one.epoch, one.version, one.release, one.arch))


def _reader(kind: str, files: Files) -> Iterable[Application]:
    if kind == "deb":
        from .dpkg import read_dpkg

        return read_dpkg(files)
    if kind == "rpm":
        from .rpm import read_rpm

        return read_rpm(files)
    from .others import read_apk, read_pacman

    return read_apk(files) if kind == "apk" else read_pacman(files)
