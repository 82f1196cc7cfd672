"""``virt-tail``: the end of a guest's files, and with -f what is added to them."""

from __future__ import annotations

import os

from ....guest.lines import lines_of, tail
from ..getopt import Option
from .common import Tool

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ...output import Output


def main(argv: list[str], out: Output) -> int:
    tool = Tool(
        "virt-tail", "follow (tail) files in a virtual machine: virt-tail -a disk.img file [file ...]", out,
        options=(Option("follow", "f"),), needs="file names",
    )  # fmt: skip
    return tool.run(argv, work)


def work(tool: Tool) -> int:
    import time

    sizes: dict[str, int] = {}
    while True:
        for word in tool.words:
            tree = tool.fish.session.tree
            place = tree.regular(os.fsencode(word))
            size = place.stat().size
            if size == sizes.get(word):
                continue
            tool.out.write(f"--- {word} ---\n")
            if word not in sizes or size < sizes[word]:
                for line in tail(lines_of(tree.chunks(place)), 10):
                    tool.out.write(line.decode("utf-8", "surrogateescape") + "\n")
            else:
                for piece in tree.chunks(place, sizes[word]):
                    tool.out.write(piece.decode("utf-8", "surrogateescape"))
            sizes[word] = size
        tool.out.flush()
        if "follow" not in tool.own:
            return 0
        time.sleep(5)
        # what the guest wrote meanwhile is seen by looking anew
        mounts = [(mount.device, mount.path) for mount in tool.fish.session.tree.mounts]
        tool.fish.session.tree.close()
        tool.fish.session.devices.close()
        tool.fish.session.devices.forget()
        for device, path in mounts:
            tool.fish.session.mount(device, path)
