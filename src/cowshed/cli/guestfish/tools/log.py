"""``virt-log``: what a guest has logged, from systemd's journal or from its text files."""

from __future__ import annotations

import time

from .common import Tool

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ....guest.journal.reader import Journal
    from ...output import Output

#: where systemd keeps its journal, and where others write
_JOURNAL = b"/var/log/journal"
_FILES = (b"/var/log/syslog", b"/var/log/messages")
_PRIORITIES = ("emerg", "alert", "crit", "err", "warning", "notice", "info", "debug")


def main(argv: list[str], out: Output) -> int:
    return Tool("virt-log", "display log files from a virtual machine: virt-log -a disk.img", out).run(argv, work)


def work(tool: Tool) -> int:
    from ....guest.journal.reader import open_directory

    if tool.words:
        raise tool.fail("extra arguments on the command line")
    tree = tool.fish.session.tree
    if tree.exists(_JOURNAL):
        journal = open_directory(tree, _JOURNAL)
        try:
            while journal.next():
                tool.out.write(line_of(journal))
        finally:
            for why in journal.skipped[:20]:
                tool.out.raw(f"{tool.name}: {why}\n")
        return 0
    for path in _FILES:
        if tree.exists(path):
            for piece in tree.chunks(tree.regular(path)):
                tool.out.write(piece.decode("utf-8", "surrogateescape"))
            return 0
    return 0


def line_of(journal: Journal) -> str:
    """An entry in one line: when, who with its process, how urgent, what."""
    fields: dict[bytes, bytes] = {}
    for name, value in journal.fields():
        fields.setdefault(name, value)
    try:
        parts = [time.strftime("%b %d %H:%M:%S", time.localtime(journal.realtime // 10**6))]
    except (OverflowError, OSError, ValueError):
        # a year that no clock has
        parts = [str(journal.realtime // 10**6)]
    who = fields.get(b"SYSLOG_IDENTIFIER", fields.get(b"_COMM"))
    process = fields.get(b"_PID")
    if who is not None or process is not None:
        parts.append(_text(who or b"") + (f"[{_text(process)}]" if process is not None else ""))
    first = fields.get(b"PRIORITY", b"6")[:1]
    parts.append(f"{_PRIORITIES[int(first)] if first in (b'0', b'1', b'2', b'3', b'4', b'5', b'7') else 'info'}:")
    message = fields.get(b"MESSAGE")
    if message is not None:
        # text ends at a zero byte there too
        parts.append(_text(message.partition(b"\0")[0]))
    return " ".join(parts) + "\n"


def _text(value: bytes) -> str:
    return value.decode("utf-8", "surrogateescape")
