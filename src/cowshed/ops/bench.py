"""How fast requests to an image go: a row of equal requests, several at a time."""

from __future__ import annotations

from ..block.protocol.file import CACHE_MODES
from ..errors import CowshedError, OpenError, UsageError, error_number, strerror
from .access import Opened

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Unpack

    from ..block.node import Node
    from .access import Access, Image

#: more requests than this are not kept in flight: each takes a thread
MAX_THREADS = 32


def bench(
    image: Image,
    *,
    count: int = 75000,
    depth: int = 64,
    buffer_size: int = 4096,
    step: int = 0,
    offset: int = 0,
    write: bool = False,
    pattern: int = 0,
    flush_interval: int = 0,
    drain: bool = True,
    aio: str | None = None,
    announce: Callable[[], None] | None = None,
    **access: Unpack[Access],
) -> float:
    """Send ``count`` requests of ``buffer_size`` bytes and return the seconds that they took.

    The first is at ``offset``, each next one ``step`` bytes on (0: ``buffer_size``), from the start again behind the
    end of the disk. ``depth``: how many may be under way at once. ``write``: write bytes of ``pattern`` instead of
    reading. ``flush_interval``: flush after so many requests (0: never), with ``drain`` when all of them are done.
    ``aio``: "threads", "native" or "io_uring"; this package has only threads, but refuses what the others refuse.
    ``announce`` is called when the image is open.

    Raises UsageError, OpenError, and CowshedError ``Failed request: REASON``.
    """
    if depth < 1 and count:
        raise UsageError("Invalid queue depth specified", field="depth", value=depth, limit="at least 1")
    with Opened(image, access, writable=write) as node:
        cache = CACHE_MODES[access.get("cache", "writeback")]
        if aio == "native" and not cache.direct:
            label = access.get("label") or node.filename
            raise OpenError(
                f"Could not open '{label}': aio=native was specified, but it requires cache.direct=on, which was not "
                "specified.",
                path=node.filename, field="aio", value=aio,
            )  # fmt: skip
        if announce is not None:
            announce()
        run = _Run(node, count, buffer_size, step or buffer_size, offset, write, pattern)
        from time import perf_counter

        start = perf_counter()
        try:
            if flush_interval and not drain:
                run.flush_every = flush_interval
            while run.left:
                before = run.left
                run.go(depth, min(before, flush_interval) if flush_interval and drain else before)
                if flush_interval and drain and before - run.left == flush_interval:
                    node.flush()
        except CowshedError as error:
            number = error_number(error)
            text = f"Failed request: {strerror(number)}"
            raise CowshedError(
                text, path=error.path, layer=error.layer, offset=error.offset, errno=number
            ) from error
        return perf_counter() - start


class _Run:
    """The requests still to be sent: ``left`` of them, the next one at ``offset``.

    ``flush_every``: whoever takes the last of so many requests also flushes, while the others go on.
    """

    def __init__(
        self, node: Node, count: int, size: int, step: int, offset: int, write: bool, pattern: int
    ) -> None:
        self.node = node
        self.left = count
        self.flush_every = 0
        self.sent = 0
        self.goal = 0
        self.size = size
        self.step = step
        self.offset = offset
        self.write = write
        self.pattern = bytes([pattern]) * size
        self.failure: CowshedError | MemoryError | None = None

    def go(self, depth: int, count: int) -> None:
        """Send ``count`` requests and wait for them."""
        crew = min(depth, count, MAX_THREADS)
        self.goal = self.left - count
        if crew == 1:
            self._work(None)
        else:
            import threading

            lock = threading.Lock()
            threads: list[threading.Thread] = []
            try:
                for _ in range(crew):
                    thread = threading.Thread(target=self._work, args=(lock,), daemon=True)
                    thread.start()
                    threads.append(thread)
            except RuntimeError:
                pass  # the host has no more threads for us: fewer will do
            if not threads:
                self._work(None)
            for thread in threads:
                thread.join()
        if self.failure is not None:
            raise self.failure

    def _next(self) -> tuple[int, bool] | None:
        """Where the next request goes, and whether to flush after it."""
        if self.left <= self.goal or self.failure is not None:
            return None
        self.left -= 1
        self.sent += 1
        at = self.offset
        end = self.node.size
        self.offset += self.step
        if self.offset >= end > 0:
            self.offset %= end
        return at, bool(self.flush_every) and not self.sent % self.flush_every

    def _work(self, lock: object) -> None:
        try:
            view = memoryview(bytearray(self.size))
        except MemoryError as error:
            self.failure = error
            return
        node = self.node
        while True:
            if lock is None:
                taken = self._next()
            else:
                with lock:  # type: ignore[attr-defined]
                    taken = self._next()
            if taken is None:
                return
            at, flush = taken
            try:
                if at + self.size > node.size:
                    raise CowshedError("Input/output error", path=node.filename, offset=at, errno=5)
                if self.write:
                    node.write(at, self.pattern)
                else:
                    node.read_into(at, view)
                if flush:
                    node.flush()
            except CowshedError as error:
                self.failure = error
                return
