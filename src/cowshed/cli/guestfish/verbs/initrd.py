"""Files in an initrd."""

from __future__ import annotations

import errno
import os

from ....errors import CowshedError
from ....guest.filesystem.base import GuestError
from ..fish import Failed, Fish
from ..table import command
from .read import pieces, shown


@command("initrd-list", "path:path", "list", help="list files in an initrd")
def initrd_list(fish: Fish, path: bytes) -> list[bytes]:
    from ....guest.initrd import names

    try:
        return names(pieces(fish, path))
    except GuestError:
        raise
    except CowshedError as error:
        raise Failed(f"{shown(path)}: {error}") from error


@command(
    "initrd-cat", "initrdpath:path filename:bytes", "buffer", help="list the contents of a single file in an initrd"
)
def initrd_cat(fish: Fish, initrdpath: bytes, filename: bytes) -> bytes:
    from ....guest.initrd import content

    try:
        return content(pieces(fish, initrdpath), filename)
    except GuestError as error:
        step = "read" if error.errno == errno.EISDIR else "open"
        raise Failed(
            f"{step}: {shown(initrdpath)}:{shown(filename)}: {os.strerror(error.errno or errno.EIO)}"
        ) from error
    except CowshedError as error:
        raise Failed(f"{shown(initrdpath)}: {error}") from error
