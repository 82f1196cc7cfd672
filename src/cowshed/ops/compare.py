"""Do two images show the same disk, whatever their formats?

What both sides call zeroes is never read, and neither are bytes that both find at the same place of the same file.
The rest is read in jobs that several threads share, in order, so that the first difference is the one that is found.
"""

from __future__ import annotations

import os

from ..block.node import COMPRESSED, DATA, ENCRYPTED, HOLE, ZERO
from ..errors import CowshedError, HostError, error_number, strerror
from ..progress import QUIET
from .access import Opened
from .sparse import SECTOR, ZEROES

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Literal, Unpack

    from ..block.node import Extent, Node
    from ..progress import Progress
    from .access import Access, Image

    Verdict = Literal["identical", "size", "status", "content"]

#: bytes of each side that are compared at a time
CHUNK = 512 << 10
#: progress is told in steps of this size, as the tools tell it
REPORT = 2 << 20
#: disks with less to read than this are compared by one thread
ALONE = 8 << 20


class Comparison:
    """What came out. ``verdict``: "identical", or how the images differ: in "content" at byte ``offset`` (the sector
    that differs), and in strict mode in "size", or in the "status" (allocation) of what begins at ``offset``.
    ``sizes``: bytes of both disks; a larger disk may be identical where its rest is zeroes.
    ``tail``: the part that only one of them has was reached.
    """

    __slots__ = ("offset", "sizes", "tail", "verdict")

    def __init__(self, verdict: Verdict, sizes: tuple[int, int], offset: int | None = None) -> None:
        self.verdict: Verdict = verdict
        self.sizes = sizes
        self.offset = offset
        common = min(sizes)
        self.tail = sizes[0] != sizes[1] and (offset is None or offset >= common)

    def __bool__(self) -> bool:
        return self.verdict == "identical"

    def __repr__(self) -> str:
        return f"<Comparison {self.verdict}{'' if self.offset is None else f' at {self.offset}'}>"


class UnreadableError(HostError):
    """One of the images could not be read."""


def compare(
    first: Image,
    second: Image,
    *,
    second_fmt: str | None = None,
    strict: bool = False,
    threads: int = 8,
    progress: Progress = QUIET,
    labels: tuple[str, str] | None = None,
    **access: Unpack[Access],
) -> Comparison:
    """Compare the disks of two images; see `Comparison`.

    ``strict``: sizes and the allocation of every range must agree too. ``second_fmt``: the second image's format.
    ``labels``: how messages call the images. Raises OpenError; UnreadableError ``Error while reading offset N of FILE:
    REASON``.
    """
    other = access.copy()
    other["fmt"] = second_fmt
    names = labels or (_name(first), _name(second))
    if labels is not None:
        access["label"], other["label"] = labels
    with Opened(first, access) as one, Opened(second, other) as two:
        return _Comparer(one, two, names, strict, threads, progress).run()


def _name(image: Image) -> str:
    return os.fspath(image) if isinstance(image, (str, os.PathLike)) else str(getattr(image, "filename", ""))


class _Side:
    """A readable range of one disk; ``node`` None: zeroes. ``key``: where on the host it is, None when unknown."""

    __slots__ = ("host_offset", "key", "node", "packed")

    def __init__(self, extent: Extent | None, key: tuple[int, int] | None) -> None:
        zero = extent is None or extent.kind in (ZERO, HOLE)
        self.node: Node | None = None if extent is None or zero else extent.node
        self.host_offset = -1 if extent is None or zero else extent.host_offset - extent.offset
        self.packed = extent is not None and extent.kind in (COMPRESSED, ENCRYPTED)
        self.key = key


class _Job:
    """[start, end) of both disks, in ranges ``(start, end, side of the first, side of the second)``."""

    __slots__ = ("end", "heavy", "ranges", "start")

    def __init__(self, start: int) -> None:
        self.start = start
        self.end = start
        self.ranges: list[tuple[int, int, _Side, _Side]] = []
        self.heavy = False


class _Found(Exception):
    """How the first difference ends the work."""

    def __init__(self, offset: int) -> None:
        super().__init__(offset)
        self.offset = offset


class _Comparer:
    """One comparison at work; `prepare` and `store` are the two halves of a job, as crew.share_out wants them."""

    def __init__(
        self, first: Node, second: Node, names: tuple[str, str], strict: bool, threads: int, progress: Progress
    ) -> None:
        self.nodes = (first, second)
        self.names = names
        self.strict = strict
        self.threads = threads
        self.progress = progress
        self.sizes = (first.size, second.size)
        self.end = max(self.sizes)
        self._keys: dict[int, tuple[int, int] | None] = {}
        self._alive: list[Node] = []
        self._marks: Iterator[int] | None = None
        self._mark: int | None = None

    def run(self) -> Comparison:
        end = self.end
        differs: int | None = None
        if self.strict:
            if self.sizes[0] != self.sizes[1]:
                return Comparison("size", self.sizes)
            differs = _first_status_difference(*self.nodes)
            if differs is not None:
                end = differs
        if self.progress.listener is not None and self.end:
            self.progress.start(self.end)
        try:
            self._compare(self._jobs(end))
        except _Found as found:
            return Comparison("content", self.sizes, found.offset)
        if differs is not None:
            return Comparison("status", self.sizes, differs)
        if self.progress.listener is not None and self.end:
            self._tell(self.end)
        return Comparison("identical", self.sizes)

    def _compare(self, jobs: Iterator[_Job]) -> None:
        from .copy import processors

        crew = min(self.threads, processors())
        buffer = self.buffer()
        read = 0
        for job in jobs:
            self.store(job, self.prepare(job, buffer))
            read += job.end - job.start
            if crew > 1 and read >= ALONE:
                from .crew import share_out

                share_out(jobs, self, crew)

    # -- what to compare -----------------------------------------------------------------------------------------------

    def _jobs(self, end: int) -> Iterator[_Job]:
        job: _Job | None = None
        for start, stop, one, two in self._ranges(end):
            if one.node is None and two.node is None:
                continue
            if one.key is not None and one.key == two.key and one.host_offset == two.host_offset:
                continue
            while start < stop:
                if job is not None and (start - job.start >= CHUNK or start != job.end):
                    yield job
                    job = None
                if job is None:
                    job = _Job(start)
                upto = min(stop, job.start + CHUNK)
                job.ranges.append((start, upto, one, two))
                job.end = start = upto
        if job is not None:
            yield job

    def _ranges(self, end: int) -> Iterator[tuple[int, int, _Side, _Side]]:
        """Both disks' extents side by side, cut where either has an edge."""
        sides = [self._sides(node, end) for node in self.nodes]
        low, one = next(sides[0])
        high, two = next(sides[1])
        at = 0
        while at < end:
            stop = min(low, high)
            if stop > at:
                yield at, stop, one, two
                at = stop
            if at >= end:
                return
            if low == stop:
                low, one = next(sides[0])
            if high == stop:
                high, two = next(sides[1])

    def _sides(self, node: Node, end: int) -> Iterator[tuple[int, _Side]]:
        """One disk's ranges up to ``end`` as (where it ends, what it is); past the disk's own end there are zeroes."""
        inside = min(end, node.size)
        if inside:
            for extent in node.extents(0, inside):
                yield extent.offset + extent.length, _Side(extent, self._key(extent))
        yield max(end, 1), _Side(None, None)

    def _key(self, extent: Extent) -> tuple[int, int] | None:
        """Which file of the host a range of plain data is in."""
        node = extent.node
        if extent.kind != DATA or node is None:
            return None
        known = id(node)
        if known not in self._keys:
            fd = getattr(node, "fd", -1)
            status = os.fstat(fd) if fd >= 0 else None
            self._keys[known] = None if status is None else (status.st_dev, status.st_ino)
            self._alive.append(node)
        return self._keys[known]

    # -- a job ---------------------------------------------------------------------------------------------------------

    def buffer(self) -> tuple[bytearray, bytearray]:
        """Room for one thread's jobs."""
        return bytearray(CHUNK), bytearray(CHUNK)

    def prepare(self, job: _Job, buffers: tuple[bytearray, bytearray]) -> int | CowshedError | None:
        """The offset of the first sector of a job that differs, or why it could not be read."""
        ours, theirs = buffers
        with memoryview(ours) as left, memoryview(theirs) as right:
            for start, stop, one, two in job.ranges:
                low, high = start - job.start, stop - job.start
                failure: UnreadableError | None = None
                for which, side, buffer in ((0, one, left), (1, two, right)):
                    if side.node is None:
                        continue
                    try:
                        self._read(which, side, start, buffer[low:high])
                    except UnreadableError as error:
                        # a difference before the place that can't be read comes first
                        failure = error
                        assert error.offset is not None
                        high = error.offset - job.start
                view = (left if two.node is None else right)[low:high]
                plain = one.node is not None and two.node is not None
                known, at = (ours, low) if plain else (ZEROES, 0)
                if not known.startswith(view, at):  # compares buffers of any kind without a copy
                    return start + _first_difference(known, at, view)
                if failure is not None:
                    return failure
        return None

    def _read(self, which: int, side: _Side, start: int, view: memoryview) -> None:
        assert side.node is not None
        read = side.node.unpack_into if side.packed else side.node.read_into
        try:
            read(side.host_offset + start, view)
        except CowshedError:
            self._read_slowly(which, side, start, view)

    def _read_slowly(self, which: int, side: _Side, start: int, view: memoryview) -> None:
        """Reading failed: find the cluster that can't be read."""
        node = side.node
        assert node is not None
        read = node.unpack_into if side.packed else node.read_into
        step = node.cluster_size if side.packed and node.cluster_size else len(view)
        at = start
        end = start + len(view)
        while at < end:
            stop = min(at // step * step + step, end)
            try:
                read(side.host_offset + at, view[at - start : stop - start])
            except CowshedError as error:
                number = error_number(error)
                raise UnreadableError(
                    f"Error while reading offset {at} of {self.names[which]}: {strerror(number)}",
                    path=error.path, layer=error.layer, offset=at, field=error.field, value=error.value, errno=number,
                ) from error  # fmt: skip
            at = stop

    def store(self, job: _Job, found: int | CowshedError | None) -> None:
        """Take note of a job's outcome, in the order of the disk. Raises what ends the work."""
        if self.progress.listener is not None:
            self._tell(job.end if found is None else (found.offset or 0) if isinstance(found, CowshedError) else found)
        if isinstance(found, CowshedError):
            raise found
        if found is not None:
            raise _Found(found)

    def _tell(self, end: int) -> None:
        """All before ``end`` is the same."""
        self.progress.total = self.end
        if self._marks is None:
            self._marks = self._milestones()
            self._mark = next(self._marks, None)
        while self._mark is not None and self._mark <= end:
            self.progress.at(self._mark)
            self._mark = next(self._marks, None)

    def _milestones(self) -> Iterator[int]:
        """Where progress is told: at the steps in which the tools compare."""
        for start, stop, one, two in self._ranges(self.end):
            if one.node is not None or two.node is not None:
                steps = [side.node.cluster_size for side in (one, two) if side.packed and side.node is not None]
                yield from range(start + min([REPORT, *steps]), stop, min([REPORT, *steps]))
            yield stop

    def throttle(self, length: int) -> float:
        """Nothing bounds the rate of a comparison."""
        return 0.0


def _first_difference(known: bytes | bytearray, at: int, view: memoryview) -> int:
    """The sector of ``view`` in which it first differs from ``known`` at ``at``; it does differ."""
    low, high = 0, len(view)
    while high - low > SECTOR:
        middle = low + max(SECTOR, (high - low) // 2 // SECTOR * SECTOR)
        if known.startswith(view[low:middle], at + low):
            low = middle
        else:
            high = middle
    return low


# -- strict mode -------------------------------------------------------------------------------------------------------


def _first_status_difference(first: Node, second: Node) -> int | None:
    """Where the allocation of two disks of one size first differs.

    As the tools see it, a range that reaches the end of the disk differs from one that does not.
    """
    iterators = [_statuses(first), _statuses(second)]
    low = high = at = 0
    one = two = 0
    size = first.size
    while at < size:
        if low == at:
            low, one = next(iterators[0])
        if high == at:
            high, two = next(iterators[1])
        if one != two:
            return at
        at = min(low, high)
    return None


def _statuses(node: Node) -> Iterator[tuple[int, int]]:
    """(end, flags) of ranges that lie together and are alike."""
    from .map import map_image

    size = node.size
    # an image is asked one slice of an L2 table at a time, so a run ends there at the latest
    span = getattr(node, "l2_span", 0)
    if span:
        span = span // node.cluster_size * min(node.cluster_size, 64 << 10)
    for entry in map_image(node):
        stop = entry.start + entry.length
        flags = entry.present | entry.zero << 1 | entry.data << 2 | (entry.offset is not None) << 3
        if stop == size:
            last = size - 1
            begin = last // span * span if span else entry.start
            if entry.compressed:
                begin = max(begin, last // node.cluster_size * node.cluster_size)
            if begin > entry.start:
                yield begin, flags
            flags |= 16
        yield stop, flags
