"""``virt-copy-out``: as guestfish's copy-out, on the system that is found."""

from __future__ import annotations

from .common import Tool

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ...output import Output


def main(argv: list[str], out: Output) -> int:
    usage = "virt-copy-out -a disk.img /file|dir [/file|dir ...] localdir"
    return Tool("virt-copy-out", usage, out, readonly=True).run(
        argv, lambda tool: tool.command("copy-out", *tool.words)
    )
