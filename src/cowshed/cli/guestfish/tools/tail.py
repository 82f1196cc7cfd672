"""``virt-tail``: a guest's files, and what is added to them from then on."""

from __future__ import annotations

import os

from ..getopt import Option
from .common import Tool

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ...output import Output

#: seconds until the disks are looked at again
_PAUSE = 2


def main(argv: list[str], out: Output) -> int:
    tool = Tool(
        "virt-tail", "follow (tail) files in a virtual machine: virt-tail -a disk.img file [file ...]", out,
        # as tail has it: it always follows
        options=(Option("follow", "f"),), needs="file names", mounts=True,
    )  # fmt: skip
    return tool.run(argv, work)


def work(tool: Tool) -> int:
    """Until none of the files is there, or somebody interrupts."""
    follower = Follower(tool)
    if not follower.look():
        raise tool.fail("error: none of the files were found in the disk image")
    try:
        follower.follow()
    except KeyboardInterrupt:
        # how it is ended
        return 0
    tool.out.write(f"{tool.name}: all files deleted, exiting\n")
    return 0


class Follower:
    """What was shown of each file: all of it at first, then what stands behind, all again of one that got shorter."""

    def __init__(self, tool: Tool) -> None:
        self.tool = tool
        self._shown: dict[str, int] = {}
        self._last: str | None = None

    def follow(self) -> None:
        """Show what is added until none of the files is there. Raises Stop, CowshedError."""
        import time

        there = True
        while there:
            self.tool.out.flush()
            time.sleep(_PAUSE)
            # what the guest wrote meanwhile is seen by looking anew
            self.tool.reopen()
            there = self.look() > 0

    def look(self) -> int:
        """Show what is new; how many of the files there are."""
        from ....guest.filesystem.base import GuestError

        tree = self.tool.fish.session.tree
        there = 0
        for word in self.tool.words:
            try:
                place = tree.regular(os.fsencode(word))
            except GuestError:
                self._shown.pop(word, None)
                continue
            there += 1
            size, begin = place.stat().size, self._shown.get(word, 0)
            self._shown[word] = size
            if size == begin:
                continue
            if word != self._last:
                self.tool.out.write(f"\n\n--- {word} ---\n\n")
                self._last = word
            for piece in tree.chunks(place, begin if begin < size else 0):
                self.tool.out.write(piece.decode("utf-8", "surrogateescape"))
        return there
