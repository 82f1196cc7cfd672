"""``virt-tar-in``: as guestfish's tar-in, on the system that is found."""

from __future__ import annotations

from .common import Tool

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ...output import Output


def main(argv: list[str], out: Output) -> int:
    usage = "virt-tar-in -a disk.img data.tar /destination"
    return Tool("virt-tar-in", usage, out, readonly=False).run(argv, lambda tool: tool.command("tar-in", *tool.words))
