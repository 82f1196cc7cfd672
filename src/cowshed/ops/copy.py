"""The bulk engine: guest bytes of one or more sources go to a target, in extents and big buffers.

`plan` decides what is to be done; zeroes and holes are never read. Data moves in jobs of at most a chunk: read into a
reused buffer, searched for zeroes, written in runs. One thread does that as fast as the page cache gives, and several
would spend a fifth more of the processors on it. Where it has to wait for the storage, or where it costs processor time
(clusters are packed or unpacked), more threads help: each reads a job of its own while another one writes, and they
take turns at the target so that it is written in order.
"""

from __future__ import annotations

import errno
import fcntl
import os
import struct
from time import monotonic, perf_counter, sleep, thread_time

from ..block.node import COMPRESSED, DATA, ENCRYPTED
from ..errors import CowshedError, HostError, NoSpaceError, UnsupportedError, error_number, strerror
from ..progress import QUIET
from .plan import BLOCK, CLEAR, COPY, SECTOR, bridged, jobs, pieces, whole_grains
from .sparse import is_zero, power_below, split

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from typing import Any

    from ..block.node import Node, Placement
    from ..progress import Progress
    from .plan import Job, Part, Piece, Policy

#: bytes of a job: there should be few, for threads take turns at them
CHUNK = 2 << 20
#: bytes moved at a time where nothing else is done with them: they are still in the processor's cache when written
STEP = 512 << 10
#: bytes that one thread copies before it is seen whether others could help; they take longer to start than so much
ALONE = 16 << 20
#: they can, where it waited for more than this share of the time, and for the storage at least so many times
WAITED = 0.25
WAITS = 8
#: zeroes are asked for in pieces of this size, so that progress shows and Ctrl-C works on slow devices
CLEAR_CHUNK = 1 << 30
#: zeroes between data are read and written with it up to this length; the search for zeroes finds them again
GAP = 16 << 10
#: what failed is named by its place in steps of this size from where its extent begins, as the tools name it
REPORT = 2 << 20

_FICLONERANGE = 0x4020940D  # linux/fs.h
_CLONE_RANGE = struct.Struct("=qQQQ")


class Copier:
    """Copies ``parts`` to ``target`` as ``policy`` says; `run` does it.

    ``warn`` is called with the text of each warning. The target must be at least as large as the parts together.
    """

    def __init__(
        self,
        parts: Sequence[Part],
        target: Node,
        policy: Policy,
        *,
        progress: Progress = QUIET,
        warn: Callable[[str], None] | None = None,
    ) -> None:
        self.parts = parts
        self.target = target
        self.policy = policy
        self.progress = progress
        self.warn = warn
        cluster = target.cluster_size
        unit = target.zero_align
        #: zeroes are looked for in blocks of this size; 0: not at all
        self.grain = 0
        if policy.compress:
            self.grain = cluster if policy.sparse else 0
        elif policy.sparse:
            self.grain = power_below(max(policy.sparse, SECTOR))
            if not policy.fine:
                # leaving out part of a cluster saves nothing
                self.grain = max(self.grain, unit)
        #: jobs begin and end at multiples of this where they can
        self.align = cluster if policy.compress else unit if not policy.fine else 1
        self.crew = min(policy.threads, processors())
        self.chunk = max(CHUNK, self.align, cluster)
        # runs of zeroes that must be long to count are looked for in whole jobs
        whole = max(cluster, self.grain) > STEP or policy.compress or (self.grain and policy.sparse > self.grain)
        self._step = 0 if whole else STEP
        self._marks: Iterator[tuple[int, int]] | None = None
        self._mark: tuple[int, int] | None = None
        # a first sector that is looked at before it is written can't go past the one who looks
        direct = target.is_format and not getattr(target, "guard_first_sector", False)
        self._share = policy.share and direct
        self._asked = False
        self._offload = policy.offload and direct
        self._clock = 0.0
        self._owed = 0
        # qcow2 with a data file: there is no place for compressed clusters
        self._refuse = policy.compress and not target.supports_compressed and "data-file" in target.children
        policy.compress = policy.compress and target.supports_compressed

    def run(self) -> None:
        """Do it. Raises HostError or NoSpaceError naming the byte at which reading or writing failed."""
        if self.progress.listener is not None:
            total = self._count()
            if total:
                self.progress.start(total)
        # where zeroes need no room a new file gets it as it is written
        reserve = None
        if self.policy.reads_zero and not self.policy.fine and not self.policy.compress:
            reserve = getattr(_file_below(self.target), "reserve_ahead", None)
        if reserve is not None:
            reserve(True)
        try:
            self._copy()
        finally:
            if reserve is not None:
                reserve(False)

    def _copy(self) -> None:
        todo = jobs(self._pieces(), self.chunk, CLEAR_CHUNK)
        buffer = self.buffer()
        alone = _Alone()
        for job in todo:
            if job.verb == COPY and self.crew > 1 and (job.heavy or self.policy.compress or alone.waits(job)):
                from .crew import share_out

                del buffer
                share_out(_chained(job, todo), self, self.crew, ordered=self.policy.ordered)
                return
            wait = self.throttle(job.end - job.start)
            if wait > 0:
                sleep(wait)
            if self._step and not job.heavy and len(job.pieces) == 1 and not (self._share or self._offload):
                self._stream(job, buffer)
            else:
                self.store(job, self.prepare(job, buffer))

    def _stream(self, job: Job, buffer: memoryview) -> None:
        """Both halves of a job in small steps."""
        piece = job.pieces[0]
        read = piece.node.read_into if piece.node is not None else None
        at, end = job.start, job.end
        shift = piece.host_offset - at
        while at < end:
            stop = min(end, (at // STEP + 1) * STEP)
            view = buffer[: stop - at]
            try:
                if read is None:
                    view[:] = bytes(len(view))
                else:
                    read(at + shift, view)
            except CowshedError:
                # what can't be read, and what is done about it, the whole way finds out
                job.start = at
                piece.cut(at - piece.offset)
                self.store(job, self.prepare(job, buffer))
                return
            try:
                self._store_plain(at, view)
            except CowshedError as error:
                raise self.failed("writing", at, error) from error
            at = stop
        if self.progress.listener is not None:
            self._tell(end)

    def _pieces(self) -> Iterator[Piece]:
        found = pieces(self.parts, self.policy)
        if self.align > 1:
            return whole_grains(found, self.align)
        if self.policy.reads_zero and 0 < self.policy.sparse <= BLOCK:
            return bridged(found, GAP)
        return found

    def buffer(self) -> memoryview:
        """A buffer for one thread's jobs."""
        return memoryview(bytearray(self.chunk))

    # -- first half of a job: read, and pack. Any thread, any order --------------------------------------------------

    def prepare(self, job: Job, buffer: memoryview) -> Any:
        """Read a job's data into ``buffer``; returns what `store` needs."""
        if job.verb == CLEAR:
            return None
        if (self._share or self._offload) and all(piece.kind == DATA for piece in job.pieces):
            if self._share and not self._asked:
                self._asked = True
                self._share = can_clone(_descriptor(job.pieces[0].node), _descriptor(_file_below(self.target)))
            if self._share or self._offload:
                return None
        view = buffer[: job.end - job.start]
        try:
            self._fill(job, view)
        except _UnreadableError as error:
            # what lies before is stored all the same
            whole = self.target.cluster_size if self.policy.compress else 1
            job.cut(error.at // whole * whole)
            job.failure = error.at, error.reason
            view = view[: job.end - job.start]
        return self._packed(job, view) if self.policy.compress else view

    def _fill(self, job: Job, view: memoryview) -> None:
        start = job.start
        for piece in job.pieces:
            at = piece.offset - start
            part = view[at : at + piece.length]
            node = piece.node
            try:
                if node is None:
                    part[:] = bytes(piece.length)
                elif piece.kind in (COMPRESSED, ENCRYPTED):
                    node.unpack_into(piece.host_offset, part)
                else:
                    node.read_into(piece.host_offset, part)
            except CowshedError as error:
                self._unreadable(piece, part, error)

    def _unreadable(self, piece: Piece, view: memoryview, error: CowshedError) -> None:
        """Reading failed: go on in smaller steps to find the first place that does, and salvage what there is."""
        node = piece.node
        assert node is not None
        packed = piece.kind in (COMPRESSED, ENCRYPTED)
        read = node.unpack_into if packed else node.read_into
        step = SECTOR if self.policy.salvage else node.cluster_size if packed else piece.length
        offset, end = piece.offset, piece.offset + piece.length
        while offset < end:
            stop = min(offset // step * step + step, end)
            part = view[offset - piece.offset : stop - piece.offset]
            try:
                read(piece.host_offset + offset - piece.offset, part)
            except CowshedError as failure:
                if not self.policy.salvage:
                    raise _UnreadableError(offset, failure) from failure
                if self.warn is not None:
                    self.warn(f"error while reading offset {offset}: {strerror(error_number(failure))}")
                part[:] = bytes(len(part))
            offset = stop

    def _packed(self, job: Job, view: memoryview) -> list[tuple[int, memoryview, bytes | None]]:
        """Compress whole clusters: (offset, bytes, compressed bytes or None where they don't get smaller).

        Clusters of zeroes are left out, or have no bytes where the target must be told.
        """
        size = self.target.cluster_size
        compress = self.target.codec.compress  # type: ignore[attr-defined]
        done: list[tuple[int, memoryview, bytes | None]] = []
        for at in range(0, len(view), size):
            part = view[at : at + size]
            if self.grain and is_zero(part):
                if not self.policy.reads_zero:
                    done.append((job.start + at, part[:0], None))
                continue
            whole = part
            if len(part) < size:  # the disk ends within a cluster
                whole = memoryview(bytearray(size))
                whole[: len(part)] = part
            done.append((job.start + at, part, compress(whole, size)))
        return done

    # -- second half: write. One thread at a time --------------------------------------------------------------------

    def store(self, job: Job, prepared: Any) -> None:
        """Write what `prepare` made. Raises what went wrong in either half."""
        try:
            if self._refuse and job.verb == COPY:
                raise UnsupportedError(strerror(errno.ENOTSUP), path=self.target.filename, layer=self.target.driver)
            if job.verb == CLEAR:
                self.target.write_zeroes(job.start, job.end - job.start, True)
            elif prepared is None:
                self._store_by_kernel(job)
            elif self.policy.compress:
                self._store_packed(prepared)
            else:
                self._store_pieces(job, prepared)
        except _UnwritableError as error:
            raise self.failed("writing", error.at, error.reason) from error.reason
        except CowshedError as error:
            raise self.failed("writing", job.start, error) from error
        if self.progress.listener is not None:
            self._tell(job.end)
        if job.failure is not None:
            if self._mark is not None:  # the step that failed counts as done
                self._tell(self._mark[0])
            raise self.failed("reading", job.failure[0], job.failure[1]) from job.failure[1]

    def _store_pieces(self, job: Job, view: memoryview) -> None:
        """Write a job's data. Where runs of zeroes must be long to count, they count by themselves in each piece."""
        start = job.start
        if self.policy.sparse > BLOCK and len(job.pieces) > 1:
            for piece in job.pieces[1:]:
                if not piece.offset % self.align:
                    self._store_plain(start, view[start - job.start : piece.offset - job.start])
                    start = piece.offset
        self._store_plain(start, view[start - job.start :])

    def _store_plain(self, start: int, view: memoryview) -> None:
        target = self.target
        if not self.grain:
            target.write(start, view)
            return
        for low, high, data in split(view, start, self.grain, self.policy.sparse):
            if data:
                target.write(start + low, view[low:high])
            elif not self.policy.reads_zero:
                target.write_zeroes(start + low, high - low, True)

    def _store_packed(self, clusters: list[tuple[int, memoryview, bytes | None]]) -> None:
        """Compressed clusters in as few requests as they make, between those that must be written plain."""
        target = self.target
        size = target.cluster_size
        run: list[tuple[int, bytes]] = []
        for offset, view, packed in clusters:
            if packed is not None:
                run.append((offset, packed))
                continue
            if run:
                self._write_packed(run)
                run = []
            try:
                if len(view):
                    target.write(offset, view)
                else:
                    target.write_zeroes(offset, min(size, target.size - offset), True)
            except CowshedError as error:
                raise _UnwritableError(offset, error) from error
        if run:
            self._write_packed(run)

    def _write_packed(self, run: list[tuple[int, bytes]]) -> None:
        """Store a run of compressed clusters, or as many of them as there is room for."""
        write: Callable[[list[tuple[int, bytes]]], None] = self.target.write_packed  # type: ignore[attr-defined]
        try:
            write(run)
            return
        except NoSpaceError:
            pass  # one by one until it happens again
        for item in run:
            try:
                write([item])
            except CowshedError as error:
                raise _UnwritableError(item[0], error) from error

    def _store_by_kernel(self, job: Job) -> None:
        """Let the kernel move the data; what it refuses goes the ordinary way, and so does all that follows."""
        view: memoryview | None = None
        for piece in job.pieces:
            if (self._share or self._offload) and self._kernel(piece):
                continue
            if view is None:
                view = self.buffer()
            part = view[: piece.length]
            assert piece.node is not None
            try:
                try:
                    piece.node.read_into(piece.host_offset, part)
                except CowshedError as error:
                    self._unreadable(piece, part, error)
            except _UnreadableError as error:
                job.failure = error.at, error.reason
                job.cut(error.at)
                return
            self._store_plain(piece.offset, part)

    def _kernel(self, piece: Piece) -> bool:
        """Have the kernel fill a piece of the target; False when it can't, once and for all."""
        target = self.target
        source = _descriptor(piece.node)
        if source < 0:
            self._share = self._offload = False
            return False
        with target.lock:
            target.before_write(piece.offset, piece.length)
            placements = target.place(piece.offset, piece.length)
            linked = False
            try:
                for placement in placements:
                    self._fill_by_kernel(piece, source, placement)
                target.link(placements)
                linked = True
            finally:
                if not linked:
                    target.unplace(placements)
        return True

    def _fill_by_kernel(self, piece: Piece, source: int, placement: Placement) -> None:
        """Fill one placement, by the kernel as far as it goes."""
        sink = placement.node
        fd = _descriptor(sink)
        at = piece.host_offset + placement.offset - piece.offset
        if fd >= 0 and not placement.head and not placement.tail and (self._share or self._offload):
            # what the kernel fills is not told to who reserves room, and would be given back as if it were not written
            sink.reserve_ahead(False)  # type: ignore[attr-defined]
            try:
                (_clone if self._share else _copy_range)(source, at, fd, placement.host_offset, placement.length)
                return
            except OSError:
                # what can be done about it, and what can't, the ordinary way finds out: zeroes need no room there
                self._share = self._offload = False
            finally:
                # also when it broke off half way: what lies behind the end must be known to read as zeroes
                sink.refresh()  # type: ignore[attr-defined]
        assert piece.node is not None
        self.target._fill(placement, memoryview(piece.node.read(at, placement.length)))

    # -- progress and failures ----------------------------------------------------------------------------------

    def _count(self) -> int:
        """How much there is to do, in bytes; asked only when somebody listens, for it walks all extents once more."""
        found = pieces(self.parts, self.policy)
        self._marks = self._milestones()
        self._mark = next(self._marks, None)
        return sum(piece.length for piece in found if piece.verb == COPY)

    def _milestones(self) -> Iterator[tuple[int, int]]:
        """Where progress is told, (offset in the target, bytes done): at the steps in which the tools move data."""
        done = 0
        for piece in pieces(self.parts, self.policy):
            if piece.verb != COPY:
                continue
            packed = piece.kind in (COMPRESSED, ENCRYPTED) and piece.node is not None
            step = piece.node.cluster_size if packed and piece.node is not None else REPORT
            for at in range(step, piece.length, step):
                yield piece.offset + at, done + at
            done += piece.length
            yield piece.offset + piece.length, done

    def _tell(self, end: int) -> None:
        """All that lies before ``end`` is done (out of order: some of it is)."""
        if self._marks is None:
            self.progress.total = self._count()
        while self._mark is not None and self._mark[0] <= end:
            self.progress.at(self._mark[1])
            self._mark = next(self._marks or iter(()), None)

    def failed(self, doing: str, offset: int, error: CowshedError) -> CowshedError:
        """The error that names the request of the tools' size in which ``offset`` lies."""
        begin = offset
        step = self.target.cluster_size if self.policy.compress else REPORT
        for piece in pieces(self.parts, self.policy):
            if piece.offset <= offset < piece.offset + piece.length:
                if piece.kind == DATA:
                    begin = piece.offset + (offset - piece.offset) // step * step
                break
        number = error_number(error)
        cls = NoSpaceError if isinstance(error, NoSpaceError) else HostError
        return cls(
            f"error while {doing} at byte {begin}: {strerror(number)}",
            path=error.path,
            layer=error.layer,
            offset=offset,
            field=error.field,
            value=error.value,
            errno=number,
        )

    def throttle(self, length: int) -> float:
        """How many seconds to wait until ``length`` more bytes are allowed."""
        if not self.policy.rate:
            return 0.0
        now = monotonic()
        if not self._clock:
            self._clock = now
        wait = self._clock + self._owed / self.policy.rate - now
        self._owed += length
        return wait


class _UnreadableError(Exception):
    """The source can't be read at ``at`` (bytes of the target)."""

    def __init__(self, at: int, reason: CowshedError) -> None:
        super().__init__(at, reason)
        self.at = at
        self.reason = reason


class _UnwritableError(_UnreadableError):
    """The target can't be written at ``at``."""


class _Alone:
    """One thread at its copying: would another one help it?"""

    __slots__ = ("began", "busy", "copied", "waited")

    def __init__(self) -> None:
        self.copied = 0
        self.waited = 0
        self.began, self.busy = perf_counter(), thread_time()

    def waits(self, job: Job) -> bool:
        """Has it spent much of its time waiting for the storage? Asked before each job, answered every `ALONE` bytes.

        Time in which others had the processor is no such time: it would be theirs with more threads too.
        """
        self.copied += job.end - job.start
        if self.copied <= ALONE:
            return False
        self.copied = 0
        now, busy = perf_counter(), thread_time()
        elapsed, worked = now - self.began, busy - self.busy
        self.began, self.busy = now, busy
        if elapsed - worked <= elapsed * WAITED:
            return False
        import resource

        waited, self.waited = self.waited, resource.getrusage(resource.RUSAGE_THREAD).ru_nvcsw
        return self.waited - waited >= WAITS


def _chained(first: Job, rest: Iterator[Job]) -> Iterator[Job]:
    yield first
    yield from rest


def processors() -> int:
    """How many processors this process may use."""
    try:
        return len(os.sched_getaffinity(0))
    except (AttributeError, OSError):
        return os.cpu_count() or 1


def _file_below(node: Node) -> Node | None:
    """The node that guest data of ``node`` goes to in the end, None where there is none or several."""
    while node.is_format or node.is_filter:
        below = node.children.get("data-file") or node.children.get("file")
        if below is None:
            return None
        node = below
    return node


def _descriptor(node: Node | None) -> int:
    """The descriptor of a file's node, -1 where there is none."""
    return int(getattr(node, "fd", -1))


def can_clone(source: int, sink: int) -> bool:
    """Can the file system let two files share blocks? Asked with a range that no file system takes."""
    if source < 0 or sink < 0:
        return False
    try:
        _clone(source, 1, sink, 1, 1)
    except OSError as error:
        return error.errno == errno.EINVAL
    return True


def _clone(source: int, at: int, sink: int, to: int, length: int) -> None:
    fcntl.ioctl(sink, _FICLONERANGE, _CLONE_RANGE.pack(source, at, length, to))


def _copy_range(source: int, at: int, sink: int, to: int, length: int) -> None:
    while length:
        count = os.copy_file_range(source, sink, length, at, to)
        if not count:  # the source ends here: what follows reads as zeroes, which only the ordinary way writes
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        at += count
        to += count
        length -= count
