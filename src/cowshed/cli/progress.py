"""Listeners of `cowshed.progress`: qemu's line, the line on a signal, and a live bar for people at a terminal."""

from __future__ import annotations

import sys

from ..progress import Progress

TYPE_CHECKING = False
if TYPE_CHECKING:
    import signal
    from types import FrameType
    from typing import Any

    from .output import Output
else:
    import _signal as signal  # the signal module itself makes enumerations of everything, which takes its time

#: an addition that is meant to be exactly one step is no more than that
ROUNDING = 1e-9
#: seconds of work before a bar appears, and between its changes
PATIENCE = 0.5
EVERY = 0.1


class Reporter:
    """Shows how far one command is: a context manager around its work.

    ``wanted``: -p was given. Then qemu's line is printed on standard output, from 0 to 100 and a newline at the end,
    also when the command fails. Without -p the same line goes to standard error whenever SIGUSR1 (or SIGINFO) comes.
    Where a person called cowshed by its own name and looks at a terminal, there is a bar instead.
    """

    def __init__(
        self,
        out: Output,
        wanted: bool,
        *,
        quiet: bool = False,
        name: str = "",
        phases: int = 1,
        step: float = 1.0,
        silent: bool = False,
    ) -> None:
        """``step``: the line is printed again when more than so many per cent have been added.

        ``silent``: the tool's command never says how far it is; signals then do what they do to any program.
        """
        self.out = out
        self.wanted = wanted
        self.step = step
        self.progress = Progress(name, None, phases)
        self.silent = silent
        self.asked = False
        self.percent = 0.0
        self._printed = 0.0
        self._old: dict[int, Any] = {}
        self._bar: Bar | None = None
        if not out.under_link and not quiet and sys.stderr is not None and sys.stderr.isatty():
            self._bar = Bar(out)
            self.wanted = False
        if self.wanted or self._bar is not None:
            self.progress.listener = self._hear

    def __enter__(self) -> Progress:
        if self.wanted:
            self._line()
        elif not self.silent:
            for name in ("SIGUSR1", "SIGINFO"):
                number = getattr(signal, name, None)
                if number is not None:
                    try:
                        self._old[number] = signal.signal(number, self._signal)
                    except ValueError:  # not the main thread: a library's caller keeps its handlers
                        break
        return self.progress

    def __exit__(self, kind: object, *rest: object) -> None:
        for number, handler in self._old.items():
            signal.signal(number, handler)
        self.clear()
        if self.wanted:
            self.out.write("\n")
            self.out.flush()

    def complete(self) -> None:
        """Print 100 per cent, as commands do that say so once more at their end."""
        self.percent = 100.0
        if self.wanted:
            self._line()

    def clear(self) -> None:
        """Take the bar away: text follows."""
        if self._bar is not None:
            self._bar.clear()

    def _hear(self, progress: Progress) -> None:
        self.percent = percent = progress.fraction * 100
        if self.wanted:
            if percent > self._printed + self.step + ROUNDING or percent >= 100.0:
                self._line()
        elif self._bar is not None:
            self._bar.show(progress)
        if self.asked:
            self.asked = False
            self.out.raw(f"    ({percent:3.2f}/100%)\n")

    def _line(self) -> None:
        self._printed = self.percent
        self.out.write(f"    ({self.percent:3.2f}/100%)\r")
        self.out.flush()

    def _signal(self, number: int, frame: FrameType | None) -> None:
        # listening costs the work something, so it begins with the first signal
        self.asked = True
        self.progress.listener = self._hear


class Bar:
    """One line on a terminal's standard error: how far, how fast, how long still."""

    def __init__(self, out: Output) -> None:
        from time import monotonic

        self.out = out
        self.now = monotonic
        self.began = monotonic()
        self.next = self.began + PATIENCE
        self.shown = False

    def show(self, progress: Progress) -> None:
        now = self.now()
        if now < self.next:
            return
        self.next = now + EVERY
        self.shown = True
        import shutil

        from ..wire.human import size

        part = progress.fraction
        spent = now - self.began
        text = f" {part * 100:5.1f} %"
        if progress.phases == 1 and progress.total > 1 << 20:
            text += f"  {size(progress.done)} of {size(progress.total)}, {size(int(progress.done / spent))}/s"
        if part > 0.01:
            text += f", {duration(spent / part - spent)} left"
        width = max(10, min(40, shutil.get_terminal_size().columns - len(text) - 3))
        full = int(part * width)
        self.out.raw(f"\r[{'#' * full}{'.' * (width - full)}]{text}\x1b[K")

    def clear(self) -> None:
        if self.shown:
            self.out.raw("\r\x1b[K")


def duration(seconds: float) -> str:
    """``8 s``, ``2:05 min``, ``3:10 h``."""
    whole = int(seconds + 0.5)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60}:{whole % 60:02} min"
    return f"{whole // 3600}:{whole % 3600 // 60:02} h"
