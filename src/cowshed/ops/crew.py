"""Several threads on one list of jobs: each prepares jobs on its own and stores them when their turn comes."""

from __future__ import annotations

import sys
import threading

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any, Protocol

    class Span(Protocol):
        """What every job says of itself: which bytes it is about."""

        start: int
        end: int

    class Worker(Protocol):
        """What does the jobs: ``prepare`` runs side by side, ``store`` in turn."""

        def buffer(self) -> Any: ...
        def throttle(self, length: int) -> None: ...
        def prepare(self, job: Any, buffer: Any) -> Any: ...
        def store(self, job: Any, prepared: Any) -> None: ...


#: how long a thread that computes may keep the interpreter from one whose request has come back, in seconds
SWITCH = 0.0005


class _Crew:
    """The shared state: who takes the next job, whose turn it is, and what went wrong first."""

    def __init__(self, jobs: Iterator[Span], worker: Worker, ordered: bool) -> None:
        self.jobs = jobs
        self.worker = worker
        self.ordered = ordered
        self.feed = threading.Lock()
        self.changed = threading.Condition()
        self.taken = 0
        self.turn = 0
        self.busy = False
        self.failure: BaseException | None = None

    def work(self) -> None:
        """One thread's life: until the jobs are used up, or somebody failed."""
        worker = self.worker
        buffer = worker.buffer()
        while True:
            failure: BaseException | None = None
            job: Span | None = None
            prepared = None
            with self.feed:
                if self.failure is not None:
                    return
                number = self.taken
                self.taken += 1
                try:
                    job = next(self.jobs, None)
                    if job is not None:
                        worker.throttle(job.end - job.start)
                except BaseException as error:
                    failure = error
            if failure is None:
                if job is None:
                    return
                try:
                    prepared = worker.prepare(job, buffer)
                except BaseException as error:
                    failure = error
            if not self._begin(number):
                return
            try:
                if failure is None:
                    assert job is not None
                    worker.store(job, prepared)
            except BaseException as error:
                failure = error
            finally:
                self._end(number, failure)
            if failure is not None:
                return

    def _begin(self, number: int) -> bool:
        """Wait for the turn of job ``number``, or out of order for anybody's turn; False when somebody failed."""
        with self.changed:
            while self.failure is None and (self.turn != number if self.ordered else self.busy):
                self.changed.wait()
            if self.failure is not None:
                return False
            self.busy = True
            return True

    def _end(self, number: int, failure: BaseException | None) -> None:
        with self.changed:
            if self.failure is None:
                self.failure = failure
            self.busy = False
            self.turn = number + 1
            self.changed.notify_all()


def share_out(jobs: Iterator[Any], worker: Worker, threads: int, *, ordered: bool = True) -> None:
    """Do ``jobs`` with ``threads`` threads, this one among them. Raises what the first job that failed raised."""
    crew = _Crew(jobs, worker, ordered)
    others = [threading.Thread(target=crew.work, name=f"copy-{number}", daemon=True) for number in range(1, threads)]
    interval = sys.getswitchinterval()
    sys.setswitchinterval(SWITCH)
    try:
        for thread in others:
            thread.start()
        try:
            crew.work()
        except BaseException as error:  # Ctrl-C while waiting
            with crew.changed:
                if crew.failure is None:
                    crew.failure = error
                crew.changed.notify_all()
        for thread in others:
            thread.join()
    finally:
        sys.setswitchinterval(interval)
    if crew.failure is not None:
        raise crew.failure
