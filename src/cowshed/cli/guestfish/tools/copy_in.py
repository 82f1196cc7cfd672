"""``virt-copy-in``: as guestfish's copy-in, on the system that is found."""

from __future__ import annotations

from .common import wrapped

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ...output import Output


def main(argv: list[str], out: Output) -> int:
    return wrapped(argv, out, "--rw", "copy-in", "virt-copy-in -a disk.img file|dir [file|dir ...] /destination")
