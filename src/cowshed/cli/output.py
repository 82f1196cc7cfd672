"""Standard output and standard error as a C program has them.

Standard output is kept until a block is full, until ``flush`` or until the end; on a terminal until the end of
the line. Standard error is written at once. So where both go to one file, their order is the one that scripts and
recorded outputs of the C tools know: an error stands before text that was printed earlier but not flushed.
"""

from __future__ import annotations

import os
from errno import EAGAIN, EPIPE

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NoReturn

    from ..errors import CowshedError

# Written at the latest when so much is kept: larger than C's block, but cut as C's when stderr comes in between.
_KEEP = 256 << 10

# This one comes without a newline at its end.
_UNENDED = "Detected format of "

#: how the hints begin that the C tool prints too
HINTS = (
    _UNENDED,
    "Could not open backing image.",
    "Identifiers consist of letters",
    "Is another process using the image [",
    "Optional suffix k, M, G, T, P or E means",
    "This option is only supported for image creation",
    "To replay the log, run:",
    "Try --skip-broken-bitmaps",
    "Try block-dirty-bitmap-remove to delete this bitmap from disk",
    "You can force-remove this extra metadata with qemu-img check -r all",
    "You can use 'qemu-img rebase' instead.",
)


class Stop(Exception):
    """Ends a command with exit status ``code``; whatever there was to print has been printed."""

    def __init__(self, code: int) -> None:
        super().__init__(code)
        self.code = code


def _encode(text: str) -> bytes:
    try:
        return os.fsencode(text)
    except UnicodeEncodeError:
        # A locale that lacks a character, or a lone surrogate out of a JSON text: keep every byte that is one.
        return b"".join(
            bytes((ord(char) - 0xDC00,)) if 0xDC80 <= ord(char) <= 0xDCFF else char.encode("utf-8", "replace")
            for char in text
        )


class Output:
    """Both streams of one run of a tool.

    ``prog``: the name that begins every message. ``under_link``: called by the tool's own name, where output is a
    machine interface; otherwise a person called ``cowshed TOOL``. ``failed``: why standard output could not be written,
    or None; a reader that went away (EPIPE) is no failure.
    """

    __slots__ = ("_block", "_fd", "_gone", "_kept", "_lines", "_parts", "_stderr", "failed", "prog", "under_link")

    def __init__(self, prog: str, *, under_link: bool = False, stdout: int = 1, stderr: int = 2) -> None:
        self.prog = prog
        self.under_link = under_link
        self.failed: OSError | None = None
        self._fd = stdout
        self._stderr = stderr
        self._parts: list[bytes] = []
        self._kept = 0
        self._gone = False
        self._block = 0
        self._lines = False

    # ---- standard output

    @property
    def fd(self) -> int:
        """The descriptor that it goes to; `flush` before somebody else writes to it."""
        return self._fd

    def write(self, text: str) -> None:
        """Print ``text`` on standard output; no newline is added."""
        if not self._block:
            self._look()
        data = _encode(text)
        self._parts.append(data)
        self._kept += len(data)
        if self._kept >= _KEEP or (self._lines and b"\n" in data):
            self._drain()

    def flush(self) -> None:
        """Write what is kept; where the C tool calls fflush, and at the end."""
        self._drain(everything=True)

    @property
    def tty(self) -> bool:
        """Whether standard output is a terminal."""
        if not self._block:
            self._look()
        return self._lines

    # ---- standard error

    @property
    def watched(self) -> bool:
        """Whether standard error is a terminal."""
        return self._isatty(self._stderr)

    def raw(self, text: str) -> None:
        """Print ``text`` on standard error as it is."""
        if self._kept:
            self._drain()
        try:
            _write_all(self._stderr, _encode(text))
        except OSError:
            pass

    def error(self, text: str, hint: str = "") -> None:
        """Print ``PROG: TEXT`` and then ``hint`` as it is (it brings its own newlines)."""
        self.raw(f"{self.prog}: {text}\n{hint}")

    def warning(self, text: str, hint: str = "") -> None:
        self.raw(f"{self.prog}: warning: {text}\n{hint}")

    def report(self, error: CowshedError, prefix: str = "") -> None:
        """Print an error of the house, and its hint where the C tool prints one.

        Other hints are for people: they are printed when one is there to read them, on a terminal and not under a
        link's name.
        """
        hint = error.hint or ""
        if hint and not hint.startswith(HINTS) and (self.under_link or not self._isatty(self._stderr)):
            hint = ""
        if hint and not hint.endswith("\n") and not hint.startswith(_UNENDED):
            hint += "\n"
        self.error(f"{prefix}{error}", hint)

    def usage(self, text: str) -> NoReturn:
        """Print a mistake in the arguments and where to read more; raises Stop(1)."""
        self.error(text, "Try 'qemu-img --help' for more information\n")
        raise Stop(1)

    # ---- below

    @staticmethod
    def _isatty(fd: int) -> bool:
        try:
            return os.isatty(fd)
        except OSError:
            return False

    def _look(self) -> None:
        self._block = 4096
        try:
            self._lines = os.isatty(self._fd)
            size = os.fstat(self._fd).st_blksize
            self._block = size if 0 < size < 8192 else 8192
        except OSError:
            pass

    def _drain(self, *, everything: bool = False) -> None:
        """Write what is kept, as far as C would have written it by now: whole lines or whole blocks."""
        data = b"".join(self._parts)
        if everything:
            count = len(data)
        elif self._lines:
            count = data.rfind(b"\n") + 1
        else:
            count = max(0, (len(data) - 1) // self._block * self._block)
        rest = data[count:]
        self._parts = [rest] if rest else []
        self._kept = len(rest)
        if not count or self._gone:
            return
        try:
            _write_all(self._fd, data[:count])
        except OSError as error:
            self._gone = True
            if error.errno != EPIPE:
                self.failed = error


def _write_all(fd: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        try:
            view = view[os.write(fd, view) :]
        except OSError as error:
            if error.errno != EAGAIN:
                raise
            # Somebody made the terminal or pipe non-blocking; wait rather than lose text.
            import select

            poll = select.poll()
            poll.register(fd, select.POLLOUT)
            poll.poll()
