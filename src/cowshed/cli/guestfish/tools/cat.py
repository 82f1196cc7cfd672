"""``virt-cat``: files of a guest on standard output."""

from __future__ import annotations

from .common import Tool

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ...output import Output


def main(argv: list[str], out: Output) -> int:
    usage = "display files in a virtual machine: virt-cat -a disk.img file [file ...]"
    return Tool("virt-cat", usage, out, needs="file names", mounts=True).run(argv, work)


def work(tool: Tool) -> int:
    return max(tool.command("download", word, "-") for word in tool.words)
