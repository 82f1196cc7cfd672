"""``virt-tar-out``: as guestfish's tar-out, on the system that is found."""

from __future__ import annotations

from .common import wrapped

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ...output import Output


def main(argv: list[str], out: Output) -> int:
    return wrapped(argv, out, "--ro", "tar-out", "virt-tar-out -a disk.img /dir tarball")
