"""``virt-tar-out``: as guestfish's tar-out, on the system that is found."""

from __future__ import annotations

from .common import Tool

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ...output import Output


def main(argv: list[str], out: Output) -> int:
    usage = "virt-tar-out -a disk.img /dir tarball"
    return Tool("virt-tar-out", usage, out, readonly=True).run(argv, lambda tool: tool.command("tar-out", *tool.words))
