"""``virt-copy-in``: as guestfish's copy-in, on the system that is found."""

from __future__ import annotations

from .common import Tool

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ...output import Output


def main(argv: list[str], out: Output) -> int:
    usage = "virt-copy-in -a disk.img file|dir [file|dir ...] /destination"
    return Tool("virt-copy-in", usage, out, readonly=False).run(argv, lambda tool: tool.command("copy-in", *tool.words))
