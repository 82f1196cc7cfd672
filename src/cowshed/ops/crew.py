"""Several threads on one list of jobs: each prepares jobs on its own and stores them when their turn comes."""

from __future__ import annotations

import sys
import threading
from _thread import allocate_lock
from time import monotonic, sleep

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any, Protocol

    class Span(Protocol):
        """What every job says of itself: which bytes it is about."""

        start: int
        end: int

    class Worker(Protocol):
        """What does the jobs: ``throttle`` gives the seconds to wait before so many bytes, ``prepare`` runs side by
        side, ``store`` in turn."""

        def buffer(self) -> Any: ...
        def throttle(self, length: int) -> float: ...
        def prepare(self, job: Any, buffer: Any) -> Any: ...
        def store(self, job: Any, prepared: Any) -> None: ...


#: how long a thread that computes may keep the interpreter from one whose request has come back, in seconds
SWITCH = 0.0005
#: how often one who waits for a rate looks whether all is over, in seconds
PAUSE = 0.1


class _Crew:
    """The shared state: who takes the next job, whose turn it is, and what went wrong first.

    Turns are handed on through bare locks, a ring of them, job ``n`` waiting for lock ``n`` modulo their number: that
    is one call for each side, where a condition variable takes a dozen.
    """

    def __init__(self, jobs: Iterator[Span], worker: Worker, ordered: bool, threads: int) -> None:
        self.jobs = jobs
        self.worker = worker
        self.ordered = ordered
        self.feed = allocate_lock()
        # no job waits for a lock that an earlier one still waits for: there are as many as threads, and one more
        self.turns = [allocate_lock() for _ in range(threads + 1)]
        for lock in self.turns[1:] if ordered else ():
            lock.acquire()
        self.taken = 0
        self.failure: BaseException | None = None

    def _pause(self, seconds: float) -> None:
        """Wait, but not when all is over: it may be for minutes."""
        end = monotonic() + seconds if seconds > 0 else 0
        while end and self.failure is None and (rest := end - monotonic()) > 0:
            sleep(min(rest, PAUSE))

    def work(self) -> None:
        """One thread's life: until the jobs are used up, or somebody failed."""
        worker = self.worker
        try:
            buffer = worker.buffer()
        except BaseException as error:  # there is no memory for it, and perhaps for none of the others
            with self.feed:
                self.failure = self.failure or error
            return
        turns = self.turns
        while True:
            failure: BaseException | None = None
            job: Span | None = None
            prepared = None
            with self.feed:
                if self.failure is not None:
                    return
                number = self.taken
                try:
                    job = next(self.jobs, None)
                    if job is None:
                        return
                    self._pause(worker.throttle(job.end - job.start))
                except BaseException as error:
                    failure = error
                self.taken += 1
            if job is not None and failure is None:
                try:
                    prepared = worker.prepare(job, buffer)
                except BaseException as error:
                    failure = error
            mine, next_ = (number % len(turns), (number + 1) % len(turns)) if self.ordered else (0, 0)
            turns[mine].acquire()
            try:
                if self.failure is None:
                    if failure is not None:
                        self.failure = failure
                    else:
                        worker.store(job, prepared)
            except BaseException as error:
                self.failure = error
            finally:
                turns[next_].release()
            if self.failure is not None:
                return


def share_out(jobs: Iterator[Any], worker: Worker, threads: int, *, ordered: bool = True) -> None:
    """Do ``jobs`` with ``threads`` threads. Raises what the first job that failed raised.

    The calling thread only waits: Ctrl-C, which comes to the main thread alone, then never meets a job half done. The
    jobs under way are finished first; a second Ctrl-C does not wait for them. Where the host has fewer threads for us
    those do it all, and the calling one itself where it has none.
    """
    crew = _Crew(jobs, worker, ordered, threads)
    members: list[threading.Thread] = []
    interval = sys.getswitchinterval()
    sys.setswitchinterval(SWITCH)
    try:
        started = 0
        try:
            for number in range(threads):
                thread = threading.Thread(target=crew.work, name=f"crew-{number}", daemon=True)
                members.append(thread)
                thread.start()
                started += 1
        except (RuntimeError, MemoryError):
            pass  # the host has no more threads for us, or no room for their stacks: fewer will do
        except BaseException as error:
            crew.failure = error
        if not started and crew.failure is None:
            crew.work()
        for thread in members:
            # one that Ctrl-C met as it began may not be marked as alive yet: it sees the failure and does nothing
            if not thread.is_alive():
                continue
            try:
                thread.join()
            except BaseException as error:
                if crew.failure is not None:
                    raise
                crew.failure = error
                thread.join()
    finally:
        sys.setswitchinterval(interval)
    if crew.failure is not None:
        raise crew.failure
