"""numpy, loaded whole.

It takes a tenth of a second, and a Ctrl-C within comes out as an ImportError that says nothing of Ctrl-C: numpy's parts
are loaded from C, which puts its own error in the place of the one that it met.
"""

from __future__ import annotations

import sys
from _signal import SIGINT, getsignal, signal  # type: ignore[import-not-found]

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import FrameType


def load_numpy() -> None:
    """Call it before ``import numpy``: a Ctrl-C that comes meanwhile takes effect afterwards. Raises what that does."""
    if "numpy" in sys.modules:
        return
    before = getsignal(SIGINT)
    late: list[FrameType | None] = []

    def note(number: int, frame: FrameType | None) -> None:
        late.append(frame)

    try:
        if not callable(before):
            raise ValueError  # nothing of Python's runs then
        signal(SIGINT, note)
    except ValueError:
        # another thread than the main one: Ctrl-C never comes here
        import numpy

        return
    try:
        import numpy  # noqa: F401
    finally:
        signal(SIGINT, before)
    if late:
        before(SIGINT, late[0])
