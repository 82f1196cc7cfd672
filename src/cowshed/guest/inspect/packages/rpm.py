"""rpm's databases: which one there is, and the header of each package in it (rpm "Header" format, RPM File Format
"Header Structure"; tags of rpmtag.h)."""

from __future__ import annotations

import struct

from ..application import Application
from . import PackageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from ..access import Files

FOLDERS = ("/usr/lib/sysimage/rpm", "/var/lib/rpm", "/usr/share/rpm")
#: bytes of a database that are read into memory
MAX_DATABASE = 512 << 20
#: of one header: entries, bytes of data
MAX_ENTRIES = 0xFFFF
MAX_DATA = 256 << 20

NAME, VERSION, RELEASE, EPOCH, SUMMARY, DESCRIPTION = 1000, 1001, 1002, 1003, 1004, 1005
VENDOR, PACKAGER, URL, ARCH, SOURCE = 1011, 1015, 1020, 1022, 1044
_TEXTS = (NAME, VERSION, RELEASE, SUMMARY, DESCRIPTION, VENDOR, PACKAGER, URL, ARCH, SOURCE)
_INT32, _STRING, _STRINGS, _I18N = 4, 6, 8, 9


def read_rpm(files: Files) -> Iterator[Application]:
    """The packages of the first database that is there. Raises PackageError when it can't be read."""
    openers: tuple[tuple[str, Callable[[Files, str], Iterator[bytes | memoryview]]], ...] = (
        ("rpmdb.sqlite", _sqlite),
        ("Packages.db", _ndb),
        ("Packages", _bdb),
    )
    for folder in FOLDERS:
        for name, opener in openers:
            path = f"{folder}/{name}"
            size = files.size(path)
            if not size:
                continue
            if size > MAX_DATABASE:
                raise PackageError(f"The rpm database has {size} bytes, too many", path=path, limit=MAX_DATABASE)
            for blob in opener(files, path):
                found = package(blob, path)
                if found is not None:
                    yield found
            return


def _sqlite(files: Files, path: str) -> Iterator[bytes]:
    from .rpm_sqlite import blobs

    return blobs(files.read(path, MAX_DATABASE) or b"", files.read(path + "-wal", MAX_DATABASE) or b"", path)


def _ndb(files: Files, path: str) -> Iterator[memoryview]:
    from .rpm_ndb import blobs

    return blobs(files.read(path, MAX_DATABASE) or b"", path)


def _bdb(files: Files, path: str) -> Iterator[bytes]:
    from .rpm_bdb import blobs

    return blobs(files.read(path, MAX_DATABASE) or b"", path)


def package(blob: bytes | memoryview, path: str) -> Application | None:
    """The package of a header, None for one without a name. Raises PackageError."""
    tags = read_header(blob, path)

    def text(tag: int) -> str:
        value = tags.get(tag, "")
        return value if isinstance(value, str) else ""

    if not text(NAME):
        return None
    epoch = tags.get(EPOCH, 0)
    found = Application(text(NAME), text(VERSION), text(RELEASE), epoch if isinstance(epoch, int) else 0, text(ARCH))
    found.publisher = text(VENDOR)
    found.url = text(URL)
    found.source_package = text(SOURCE)
    found.summary = text(SUMMARY)
    found.description = text(DESCRIPTION)
    return found


def read_header(blob: bytes | memoryview, path: str) -> dict[int, str | int]:
    """The tags used here of a header without its magic: text (the first of several) and 32-bit numbers."""
    view = memoryview(blob)
    if len(view) < 8:
        raise PackageError("An rpm header is cut short", path=path)
    count, length = struct.unpack_from(">II", view)
    if not 0 < count <= MAX_ENTRIES or length > MAX_DATA or 8 + 16 * count + length > len(view):
        raise PackageError(
            f"An rpm header of {count} entries and {length} bytes does not fit its {len(view)} bytes", path=path
        )
    store = view[8 + 16 * count : 8 + 16 * count + length]
    found: dict[int, str | int] = {}
    for at in range(8, 8 + 16 * count, 16):
        tag, kind, offset, items = struct.unpack_from(">IIII", view, at)
        if tag not in _TEXTS and tag != EPOCH:
            continue
        if offset >= length or not items:
            raise PackageError(f"An rpm header's tag {tag} lies outside of it", path=path, offset=offset)
        if kind in (_STRING, _STRINGS, _I18N) and tag != EPOCH:
            # texts are short: look for the end in growing steps
            step = 256
            while True:
                piece = bytes(store[offset : offset + step])
                end = piece.find(b"\0")
                if end >= 0 or len(piece) < step:
                    break
                step *= 4
            if end < 0:
                raise PackageError(f"An rpm header's tag {tag} has no end", path=path, offset=offset)
            found.setdefault(tag, piece[:end].decode("utf-8", "replace"))
        elif kind == _INT32 and tag == EPOCH and offset + 4 <= length:
            found.setdefault(tag, struct.unpack_from(">I", store, offset)[0])
    return found
