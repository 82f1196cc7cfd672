"""Long work on volumes: what runs, on which volumes, how far; cancelled from anywhere; what the dead left, removed.

    with pool.claim("clone", "copy", BUILD, beside=path, also=(other, "origin", READ)) as claim:
        work(claim.part, progress=claim.watch(progress))     # writes the temporary file claim.part …
        rename_no_replace(claim.part, path)                  # … that gets its name when it is whole

A claim is a file in ``jobs/`` that its process keeps locked as long as it works: whose lock can be had is dead. A
volume claimed with

    BUILD   is being made: every other claim on it is refused ("volume 'V' is still being allocated.")
    WRITE   is being changed or deleted: every other claim is refused ("volume 'V' is still in use.")
    READ    is being read: other readers are let in, BUILD and WRITE are refused ("volume 'V' is still in use.")

The file: one line of JSON that never changes, then a line of numbers of fixed width that the owner writes over.
Checking for conflicts and adding one's own file is one step under ``claims.lock``, held for no longer than that.
"""

from __future__ import annotations

import errno
import os
import time

from ..errors import CancelledError, CowshedError, HostCallError, StateError
from ..progress import QUIET, Progress
from . import locks
from .machine import boot, booted, machine, place
from .record import dump, load

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from typing import Literal

    #: (pool's name, volume's name, how)
    Want = tuple[str, str, Literal["build", "write", "read"]]

BUILD: Literal["build"] = "build"
WRITE: Literal["write"] = "write"
READ: Literal["read"] = "read"

PART_PREFIX = ".cowshed-"
PART_SUFFIX = ".part"

#: seconds between two looks at the cancel file, and between two writes of the figures
_BEAT = 0.25
#: seconds to wait for others who claim something: that takes them no time, unless they were stopped just then
_PATIENCE = 15.0
# armed (0 or 1), phase, phases, done, total
_FIGURES = "{:d} {:04d} {:04d} {:020d} {:020d}\n"
_FIGURES_LENGTH = len(_FIGURES.format(0, 0, 1, 0, 0))
#: no record is longer: two names, paths and numbers
_RECORD_LIMIT = 65536


def is_part(name: str) -> bool:
    """Is that a file that a job is making, or left? Such names are in no list of volumes."""
    return name.startswith(PART_PREFIX) and name.endswith(PART_SUFFIX)


class Job:
    """What is known of one job: of this process or of any other.

    ``id``; ``kind`` ("create", "clone", "upload" …); ``pool`` and ``volume``, the first that it claimed, and
    ``wants``, all of them as (pool, volume, how); ``pid`` (for people: it proves nothing); ``started`` (seconds since
    the epoch); ``done`` of ``total`` in ``phase`` of ``phases``; ``part``, the temporary file, or None; ``extent``,
    where on its device a volume will be that has its name from the start ([start, end) in bytes), or None.
    """

    __slots__ = (
        "armed", "done", "extent", "id", "jobs", "kind", "part", "phase", "phases", "pid", "places", "started", "total",
        "wants",
    )  # fmt: skip

    def __init__(self, jobs: Jobs, id: str) -> None:
        self.jobs = jobs
        self.id = id
        self.kind = ""
        self.wants: list[tuple[str, str, str]] = []
        self.pid = 0
        self.started = 0.0
        self.part: str | None = None
        self.extent: tuple[int, int] | None = None
        self.places: list[str] = []
        self.armed = False
        self.phase = 0
        self.phases = 1
        self.done = 0
        self.total = 0

    def __repr__(self) -> str:
        return f"Job({self.kind} of '{self.volume}' in '{self.pool}', {self.fraction:.0%}, pid {self.pid})"

    @property
    def pool(self) -> str:
        return self.wants[0][0] if self.wants else ""

    @property
    def volume(self) -> str:
        return self.wants[0][1] if self.wants else ""

    @property
    def fraction(self) -> float:
        """0 … 1 over all phases; 0 while nothing is known."""
        part = min(1.0, self.done / self.total) if self.total > 0 else 0.0
        return (self.phase + part) / max(self.phases, 1)

    def cancel(self) -> None:
        """Ask the job to stop. It does within a second, and removes what it made."""
        self.jobs.cancel(self.id)

    def describe(self) -> str:
        """For hints: "clone of 'web1' (process 4711, 40%)"."""
        return f"{self.kind} of '{self.volume}' (process {self.pid}, {self.fraction:.0%})"


class Claim:
    """A job of this process. A context manager: leaving it forgets the job (what it made is its caller's matter, except
    the part, which is removed when it still exists)."""

    __slots__ = ("_cancel", "_fd", "_figures_at", "_last", "_path", "job")

    def __init__(self, job: Job, path: str, fd: int, figures_at: int) -> None:
        self.job = job
        self._path = path
        self._cancel = path + ".cancel"
        self._fd = fd
        self._figures_at = figures_at
        self._last = 0.0

    @property
    def part(self) -> str:
        """The temporary file's path, beside the final name that ``beside`` gave."""
        assert self.job.part is not None
        return self.job.part

    def arm(self) -> None:
        """From now on the BUILD volume itself is unfinished: should this process die, it is deleted.

        For storage where a volume has its own name from the start. To be called when it is certain that the volume is
        ours and was not there before, as close as can be to its making.
        """
        self.job.armed = True
        self._write()

    def disarm(self) -> None:
        """The volume is whole (or gone again)."""
        self.job.armed = False
        self._write()

    def check(self) -> None:
        """Raises CancelledError when somebody asked for that."""
        if self._fd >= 0 and os.path.lexists(self._cancel):
            raise CancelledError("canceled by client")

    def watch(self, progress: Progress = QUIET) -> Progress:
        """A progress that others see too, and through which they cancel; whoever listens to ``progress`` hears it."""

        def listener(work: Progress) -> None:
            now = time.monotonic()
            if now - self._last >= _BEAT or 0 < work.total <= work.done:
                self._last = now
                self.check()
                job = self.job
                job.phase, job.phases, job.done, job.total = work.phase, work.phases, work.done, work.total
                self._write()
            if progress.listener is not None:
                progress.phase, progress.phases, progress.done, progress.total = (
                    work.phase, work.phases, work.done, work.total,
                )  # fmt: skip
                progress.listener(progress)

        return Progress(progress.name, listener, progress.phases)

    def _write(self) -> None:
        if self._fd < 0:
            return
        job = self.job
        top = 10**20 - 1
        figures = (int(job.armed), min(job.phase, 9999), min(job.phases, 9999), min(job.done, top), min(job.total, top))
        try:
            os.pwrite(self._fd, _FIGURES.format(*figures).encode(), self._figures_at)
        except OSError:
            # Figures are for show. "Armed" is not: without it a partial volume would be listed.
            if job.armed:
                raise

    def release(self) -> None:
        """Forget the job, and its part. Idempotent."""
        if self._fd < 0:
            return
        if self.job.pid != os.getpid():  # a fork of the process that works: the claim is still that one's
            os.close(self._fd)
            self._fd = -1
            return
        if self.job.part is not None:
            try:
                os.unlink(self.job.part)
            except OSError:
                pass  # the usual case: it has its name now. What can't be removed is swept by its name later
        fd, self._fd = self._fd, -1
        for path in (self._path, self._cancel):
            try:
                os.unlink(path)
            except OSError:
                pass
        os.close(fd)

    def __enter__(self) -> Claim:
        return self

    def __exit__(self, *args: object) -> None:
        self.release()


class Jobs:
    """The jobs of one state directory (``RUN/storage/cowshed``)."""

    def __init__(self, directory: str) -> None:
        self.state = directory
        self.directory = os.path.join(directory, "jobs")
        self._lock = os.path.join(directory, "claims.lock")
        self._place = ""

    # ---- claiming

    def claim(
        self,
        kind: str,
        wants: Sequence[Want],
        *,
        beside: str | None = None,
        extent: tuple[int, int] | None = None,
        places: Sequence[str] = (),
    ) -> Claim:
        """Claim volumes for a job named ``kind``, all or none. ``beside`` is the final path of a file that will be
        made: the claim has a ``part`` in the same directory then. ``extent``: see `Job`. ``places``: what tells the
        directory of each of ``wants`` from all others, "" where there is none: two pools may have the same.

        Raises StateError in libvirt's words when a volume is taken; the hint says by what. Where no record can be
        written because nothing may be written at all, a job that only reads goes on without one.
        """
        try:
            os.makedirs(self.directory, 0o755, exist_ok=True)
            gate = locks.open_locked(self._lock, timeout=_PATIENCE)
        except OSError as error:
            if error.errno in (errno.EACCES, errno.EROFS, errno.EPERM) and all(how == READ for _, _, how in wants):
                job = Job(self, "")
                job.kind, job.wants, job.pid, job.started = kind, list(wants), os.getpid(), time.time()
                return Claim(job, "", -1, 0)
            raise HostCallError(
                f"cannot record a job in '{self.directory}'", error.errno or errno.EIO, path=self.directory
            ) from error
        if gate is None:
            raise StateError("another process is claiming a volume", hint=f"it holds a lock on '{self._lock}'")
        try:
            for name in os.listdir(self.directory):
                if name[0] == ".":  # somebody died in `_add`: we hold the gate, so nobody is in there now
                    os.unlink(os.path.join(self.directory, name))
            self._check(wants, places)
            return self._add(kind, wants, beside, extent, places)
        finally:
            os.close(gate)

    def _check(self, wants: Sequence[Want], places: Sequence[str]) -> None:
        running = self.running()
        for at, (pool, volume, how) in enumerate(wants):
            place = places[at] if places else ""
            for job in running:
                for their_at, (their_pool, their_volume, their_how) in enumerate(job.wants):
                    if their_volume != volume:
                        continue
                    if their_pool != pool and not (place and job.places[their_at : their_at + 1] == [place]):
                        continue
                    if their_how == BUILD:
                        raise StateError(f"volume '{volume}' is still being allocated.", hint=job.describe())
                    if their_how == WRITE or how != READ:
                        raise StateError(f"volume '{volume}' is still in use.", hint=job.describe())

    def _add(
        self,
        kind: str,
        wants: Sequence[Want],
        beside: str | None,
        extent: tuple[int, int] | None,
        places: Sequence[str],
    ) -> Claim:
        job = Job(self, f"{self._where_and_when()}-{os.urandom(6).hex()}")
        job.kind, job.wants, job.pid, job.started = kind, list(wants), os.getpid(), time.time()
        if beside is not None:
            job.part = os.path.join(os.path.dirname(beside), f"{PART_PREFIX}{job.id}{PART_SUFFIX}")
        facts = {"kind": kind, "wants": job.wants, "pid": job.pid, "started": job.started, "part": job.part}
        if any(places):
            job.places = list(places)
            facts["places"] = job.places
        if extent is not None:
            job.extent = extent
            facts["extent"] = list(extent)
        record = dump(facts)
        path = os.path.join(self.directory, job.id)
        # Others meet the record only under its final name, whole and locked.
        temporary = os.path.join(self.directory, f".{job.id}")
        try:
            # Nobody else's to open: whoever may read a file may lock it too, and a dead job would look alive.
            fd = os.open(temporary, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
            try:
                os.write(fd, record + _FIGURES.format(0, 0, 1, 0, 0).encode())
                if os.fstat(fd).st_size != len(record) + _FIGURES_LENGTH:
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
                locks.take(fd)
                os.rename(temporary, path)
            except BaseException:
                os.unlink(temporary)
                os.close(fd)
                raise
        except OSError as error:
            raise HostCallError(
                f"cannot record a job in '{self.directory}'", error.errno or errno.EIO, path=self.directory
            ) from error
        return Claim(job, path, fd, len(record))

    def _where_and_when(self) -> str:
        """MACHINE-BOOT-PLACE: what tells, long after, whether a part can belong to anybody alive."""
        if not self._place:
            self._place = f"{machine()}-{boot()[:8]}-{place(self.state)}"
        return self._place

    # ---- looking

    def running(self, pool: str | None = None) -> list[Job]:
        """The jobs that run now, of all processes (of one pool), oldest first."""
        found = [job for job, alive in self._records() if alive and (pool is None or _concerns(job, pool))]
        found.sort(key=lambda job: job.started)
        return found

    def _names(self) -> list[str]:
        try:
            return [name for name in os.listdir(self.directory) if name[0] != "." and not name.endswith(".cancel")]
        except OSError:
            return []

    def _records(self) -> Iterable[tuple[Job, bool]]:
        for name in self._names():
            try:
                fd = os.open(os.path.join(self.directory, name), os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
            except OSError:
                continue  # just ended
            try:
                alive = locks.is_locked(fd)
                if os.fstat(fd).st_nlink:
                    job = self._read(name, fd)
                    if job is not None:
                        yield job, alive
            except OSError:
                continue
            finally:
                os.close(fd)

    def _read(self, name: str, fd: int) -> Job | None:
        text = os.pread(fd, _RECORD_LIMIT, 0)
        for _ in range(3):  # figures may be written while we read: two equal readings are one that is whole
            again = os.pread(fd, _RECORD_LIMIT, 0)
            if again == text:
                break
            text = again
        job = Job(self, name)
        try:
            first, _, rest = text.partition(b"\n")
            facts = load(first)
            job.kind = str(facts["kind"])
            job.wants = [(str(pool), str(volume), str(how)) for pool, volume, how in facts["wants"]]
            job.pid = int(facts["pid"])
            job.started = float(facts["started"])
            job.part = None if facts["part"] is None else str(facts["part"])
            if "places" in facts:
                job.places = [str(place) for place in facts["places"]]
            if "extent" in facts:
                start, end = facts["extent"]
                job.extent = int(start), int(end)
            armed, job.phase, job.phases, job.done, job.total = (int(number) for number in rest.split())
            job.armed = bool(armed)
        except (ValueError, KeyError, TypeError):
            return None  # not ours: leave it alone
        return job

    # ---- cancelling

    def cancel(self, id: str) -> None:
        """Ask a job to stop. Raises StateError when no such job runs."""
        if not any(job.id == id for job in self.running()):
            raise StateError(f"no job '{id}' is running")
        path = os.path.join(self.directory, id + ".cancel")
        try:
            os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o644))
        except OSError as error:
            raise HostCallError(f"cannot ask job '{id}' to stop", error.errno or errno.EIO, path=path) from error

    # ---- sweeping

    def sweep(self, pool: str, undo: Callable[[Job], bool] | None = None) -> list[str]:
        """Remove what dead jobs left in ``pool``; one line for people for each. ``undo`` deletes the unfinished volume
        of a job where volumes have no temporary name, and says whether there was one. Callers hold the pool's lock,
        shared at least."""
        notes: list[str] = []
        for job, alive in self._records():
            if not alive and _concerns(job, pool, made=True):
                note = self._bury(job, undo)
                if note:
                    notes.append(note)
        return notes

    def _bury(self, job: Job, undo: Callable[[Job], bool] | None) -> str:
        path = os.path.join(self.directory, job.id)
        try:
            fd = os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
        except OSError:
            return ""
        try:
            # The corpse is ours while we hold its lock; to others it looks alive until it is buried.
            if not locks.take(fd) or not os.fstat(fd).st_nlink:
                return ""
            what = f"{job.kind} of volume '{job.volume}' in pool '{job.pool}' was cut off"
            if job.part is not None:
                try:
                    os.unlink(job.part)
                    what += "; its unfinished file was removed"
                except FileNotFoundError:
                    if job.wants[0][2] == BUILD:
                        what = ""  # before it made a file, or when it had its name: nothing to tell
            elif job.armed:
                if undo is None:
                    return ""
                try:
                    there = undo(job)
                except CowshedError as error:
                    return f"{what}; the unfinished volume could not be removed: {error}"
                what = f"{what}; the unfinished volume was removed" if there else ""
            elif job.wants[0][2] == WRITE and job.kind != "delete":
                what += "; its contents are unfinished"
            else:
                what = ""
            for name in (path + ".cancel", path):
                try:
                    os.unlink(name)
                except FileNotFoundError:
                    pass
            return what
        except OSError:
            return ""  # what can't be removed now is tried again by the next
        finally:
            os.close(fd)

    def sweep_parts(self, directory: str, pool: str) -> list[str]:
        """Remove parts in a pool's directory that no record tells of (the machine was restarted meanwhile).

        Only those that were made on this machine, and certainly by a process that is dead: before the machine was
        last started, or with this state directory and without a record. Others' are left alone.
        """
        try:
            # names first and records afterwards: whoever is in between has renamed its part
            parts = [name for name in os.listdir(directory) if is_part(name)]
        except OSError:
            return []
        notes = []
        known = self.known() if parts else set()
        for name in parts:
            path = os.path.join(directory, name)
            try:
                there = os.lstat(path)
                if not self.is_orphan(name[len(PART_PREFIX) : -len(PART_SUFFIX)], there.st_mtime, known):
                    continue
                if _is_worked_on(path):
                    continue  # its record was taken away: a user's /run goes with the last login
                os.unlink(path)
            except OSError:
                continue
            notes.append(f"an unfinished file of {there.st_size} bytes was removed from pool '{pool}'")
        return notes

    def known(self) -> set[str]:
        """The jobs that have a record. One that can't be read is none: it was cut off with the machine."""
        return {job.id for job, _ in self._records()}

    def is_orphan(self, id: str, made: float, known: set[str]) -> bool:
        """Is what job ``id`` was making (last changed at ``made``) certainly nobody's any more? ``known``: the jobs
        that had a record after it was found."""
        words = id.split("-")
        if id in known or len(words) != 4 or words[0] != machine():
            return False
        if words[1] == boot()[:8]:
            return words[2] == place(self.state)
        return made <= booted() - 60  # else a twin of this machine (a clone has its id) may be at it


def _is_worked_on(path: str) -> bool:
    fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        return locks.is_marked(fd)
    finally:
        os.close(fd)


def _concerns(job: Job, pool: str, made: bool = False) -> bool:
    return any(their_pool == pool and (not made or how != READ) for their_pool, _, how in job.wants) or (
        made and bool(job.wants) and all(how == READ for _, _, how in job.wants) and job.pool == pool
    )
