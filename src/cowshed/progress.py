"""The one way in which long work reports: a Progress that the work advances and a listener that shows it.

Listeners are callables ``listener(progress)``; they decide themselves how often to show something. A listener may
raise to cancel the work; the work then unwinds as on Ctrl-C.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    Listener = Callable[["Progress"], None]


class Progress:
    """One job: ``done`` of ``total`` units (bytes unless the phase says otherwise) in ``phase`` of ``phases``.

    ``start``/``advance``/``finish`` are called by the work, from one thread at a time. ``fraction`` (0..1) covers
    all phases.
    """

    __slots__ = ("base", "done", "listener", "name", "phase", "phases", "total")

    def __init__(self, name: str = "", listener: Listener | None = None, phases: int = 1) -> None:
        self.name = name
        self.listener = listener
        self.phases = phases
        self.phase = 0
        self.total = 0
        self.done = 0
        self.base = 0.0

    def start(self, total: int, phase: int = 0) -> None:
        """Begin phase number ``phase`` (0-based) with ``total`` units of work."""
        self.total = total
        self.done = 0
        self.phase = phase
        self._tell()

    def advance(self, units: int) -> None:
        self.done += units
        self._tell()

    def at(self, done: int) -> None:
        self.done = done
        self._tell()

    def finish(self) -> None:
        """All phases are done."""
        self.phase = self.phases - 1
        self.done = self.total
        self._tell()

    def _tell(self) -> None:
        if self.listener is not None:
            self.listener(self)

    @property
    def fraction(self) -> float:
        part = 1.0 if self.total <= 0 else min(1.0, self.done / self.total)
        return (self.phase + part) / self.phases


QUIET = Progress()
"""A progress that nobody listens to; the default of every operation."""
