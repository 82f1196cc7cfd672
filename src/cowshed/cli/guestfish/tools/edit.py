"""``virt-edit``: a guest's file in an editor, or changed by a Perl expression."""

from __future__ import annotations

import os

from ..getopt import Option
from .common import Tool

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ...output import Output


def main(argv: list[str], out: Output) -> int:
    tool = Tool(
        "virt-edit", "edit a file in a virtual machine: virt-edit -a disk.img file [file ...]", out,
        options=(Option("backup", "b", True), Option("edit", "", True), Option("expr", "e", True)), readonly=False,
        needs="file names", mounts=True,
    )  # fmt: skip
    return tool.run(argv, work)


def work(tool: Tool) -> int:
    for word in tool.words:
        path = os.fsencode(word)
        tree = tool.fish.session.tree
        before = tree.read(path)
        expression = tool.own.get("expr", tool.own.get("edit"))
        if expression is not None:
            after = _perl(tool, expression, before)
            if after != before:
                tool.fish.session.replace(path, after)
        elif tool.command("edit", word):
            return 1
        extension = tool.own.get("backup")
        if extension and tree.read(path) != before:
            with tool.fish.session.change():
                tree.write(path + os.fsencode(extension), [before])
    return 0


def _perl(tool: Tool, expression: str, data: bytes) -> bytes:
    import subprocess

    script = 'my $lineno = 0; my $filename = "-"; while (<STDIN>) { $lineno++; ' + expression + "; print STDOUT $_; }"
    try:
        done = subprocess.run(["perl", "-e", script], input=data, stdout=subprocess.PIPE, check=False)
    except OSError as error:
        raise tool.fail(f"perl: {error.strerror}") from error
    if done.returncode:
        raise tool.fail("perl: the expression failed")
    return done.stdout
