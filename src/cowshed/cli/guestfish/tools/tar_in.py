"""``virt-tar-in``: as guestfish's tar-in, on the system that is found."""

from __future__ import annotations

from .common import wrapped

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ...output import Output


def main(argv: list[str], out: Output) -> int:
    return wrapped(argv, out, "--rw", "tar-in", "virt-tar-in -a disk.img tarball /dir")
