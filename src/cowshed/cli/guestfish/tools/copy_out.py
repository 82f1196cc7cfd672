"""``virt-copy-out``: as guestfish's copy-out, on the system that is found."""

from __future__ import annotations

from .common import wrapped

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ...output import Output


def main(argv: list[str], out: Output) -> int:
    return wrapped(argv, out, "--ro", "copy-out", "virt-copy-out -a disk.img /file|dir [/file|dir ...] localdir")
