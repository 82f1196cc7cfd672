"""Looking at files: ls, cat, stat and what is like them."""

from __future__ import annotations

import stat as _stat

from ....guest.filesystem.base import GuestError
from ..fish import Failed, Fish
from ..table import command

TYPE_CHECKING = False
if TYPE_CHECKING:


    Fields = list[tuple[str, str | bytes | int]]

#: no command returns more than this in one message
LARGEST = 1 << 30


def shown(path: bytes) -> str:
    return path.decode("utf-8", "surrogateescape")


def whole(fish: Fish, path: bytes, *, verb: str = "") -> bytes:
    """All bytes of a file, for commands that return them."""
    tree = fish.session.tree
    place = tree.resolve(path)
    stat = place.stat()
    if _stat.S_ISDIR(stat.mode):
        raise Failed(f"{verb}{shown(path)}: Is a directory")
    if not _stat.S_ISREG(stat.mode):
        raise Failed(f"{verb}{shown(path)}: not a regular file")
    if stat.size > LARGEST:
        raise Failed(f"{shown(path)}: the file is too large to be returned whole: use download")
    return b"".join(tree.chunks(place))


@command("ls", "directory:path", "list", help="list the files in a directory", internal="ls0")
def ls(fish: Fish, directory: bytes) -> list[bytes]:
    try:
        return fish.session.tree.names(directory)
    except GuestError as error:
        raise Failed(f"opendir: {error}") from error


@command("cat", "path:path", "string", help="list the contents of a file", internal="download")
def cat(fish: Fish, path: bytes) -> bytes:
    return whole(fish, path)


@command("read-file", "path:path", "buffer", help="read a file", internal="read_file")
def read_file(fish: Fish, path: bytes) -> bytes:
    return whole(fish, path)
