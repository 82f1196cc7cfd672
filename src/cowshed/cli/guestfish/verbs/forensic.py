"""What a device's file system holds, by inodes and blocks, without mounting it."""

from __future__ import annotations

import os
import stat as _stat

from ....errors import CowshedError
from ....guest.filesystem.base import GuestError
from ..fish import Failed, Fish
from ..table import command
from .device import opened
from .read import HostFailure, put

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import TypeVar

    from ....guest.filesystem.base import FileSystem
    from ....guest.forensic import Found

    Fields = list[tuple[str, str | bytes | int]]
    T = TypeVar("T")

_KINDS = {
    _stat.S_IFREG: "r", _stat.S_IFDIR: "d", _stat.S_IFLNK: "l", _stat.S_IFBLK: "b", _stat.S_IFCHR: "c",
    _stat.S_IFIFO: "f", _stat.S_IFSOCK: "s",
}  # fmt: skip


def _on(fish: Fish, device: str, name: str, what: Callable[[FileSystem], T]) -> T:
    """Something with a device's file system, as it is mounted or opened for this."""
    from ....guest.filesystem.table import kind_of, open_filesystem

    node = opened(fish, device, name)
    mounted = fish.session.mounted(device)
    if mounted is None and not kind_of(node):
        raise Failed("tsk_fs_open_img: Cannot determine file system type")
    fs = mounted or open_filesystem(node)
    try:
        return what(fs)
    finally:
        if mounted is None:
            fs.close()


def _entry(found: Found) -> Fields:
    stat = found.stat
    fields: Fields = [
        ("tsk_inode", stat.ino),
        ("tsk_type", _KINDS.get(_stat.S_IFMT(stat.mode), "u")),
        ("tsk_size", stat.size),
        ("tsk_name", found.name),
        ("tsk_flags", 1),
    ]
    for name, when in (
        ("atime", stat.atime),
        ("mtime", stat.mtime),
        ("ctime", stat.ctime),
        ("crtime", stat.btime or 0),
    ):
        seconds, rest = divmod(when, 10**9)
        fields += [(f"tsk_{name}_sec", seconds), (f"tsk_{name}_nsec", rest)]
    return [*fields, ("tsk_nlink", stat.nlink), ("tsk_link", found.target), ("tsk_spare1", 0)]


@command(
    "filesystem-walk",
    "device:mountable",
    "structs",
    help="walk through the filesystem content",
    internal="internal_filesystem_walk",
)
def filesystem_walk(fish: Fish, device: str) -> list[Fields]:
    from ....guest.forensic import walk

    return _on(fish, device, "internal_filesystem_walk", lambda fs: [_entry(found) for found in walk(fs)])


@command(
    "find-inode",
    "device:mountable inode:int64",
    "structs",
    help="search the entries associated to the given inode",
    internal="internal_find_inode",
)
def find_inode(fish: Fish, device: str, inode: int) -> list[Fields]:
    from ....guest.forensic import walk

    return _on(
        fish,
        device,
        "internal_find_inode",
        lambda fs: [_entry(found) for found in walk(fs) if found.stat.ino == inode],
    )


@command(
    "download-inode",
    "device:mountable inode:int64 filename:out",
    help="download a file to the local machine given its inode",
)
def download_inode(fish: Fish, device: str, inode: int, filename: str) -> None:
    from ....guest.forensic import content

    def run(fs: FileSystem) -> None:
        pieces = content(fs, inode)
        try:
            # nothing is written for an inode that nobody has
            first = next(pieces, b"")
        except GuestError as error:
            raise Failed(f"{inode}: {os.strerror(error.errno or 0)}") from error
        except CowshedError as error:
            raise Failed(f"{inode}: {error}") from error
        put(fish, filename, _joined(first, pieces))

    _on(fish, device, "download_inode", run)


def _joined(first: bytes, rest: Iterator[bytes]) -> Iterator[bytes]:
    yield first
    yield from rest


@command(
    "download-blocks",
    "device:mountable start:int64 stop:int64 filename:out [unallocated:bool]",
    help="download the given data units from the disk",
)
def download_blocks(fish: Fish, device: str, start: int, stop: int, filename: str, unallocated: bool = False) -> None:
    from ....guest.forensic import blocks

    if start < 0 or stop < 0:
        raise HostFailure("download_blocks: addresses are negative")
    if stop <= start:
        raise Failed("stopping address must greater than starting address")
    _on(
        fish,
        device,
        "download_blocks",
        lambda fs: put(fish, filename, blocks(fs, start, stop, unallocated=unallocated)),
    )
