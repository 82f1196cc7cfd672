"""What a copy has to do: ranges of the target, decided from the sources' extents alone, put together in jobs.

Nothing is read here. Zeroes and holes are told apart by what the target shows where nothing is written: `Policy`
says so.
"""

from __future__ import annotations

from ..block.node import COMPRESSED, ENCRYPTED, HOLE, ZERO
from ..errors import CowshedError, HostError, error_number, strerror

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from ..block.node import Extent, Node

SECTOR = 512
BLOCK = 4096

# what to do with a range of the target
COPY = 0  #: read the source, write what is not zero
CLEAR = 1  #: make the target read as zeroes
KEEP = 2  #: reads as zeroes already, nothing to do
BELOW = 3  #: the target's backing file shows it already


class Part:
    """One source: ``length`` bytes of ``node`` from its byte ``skip``, at ``start`` of the target.

    What lies past the end of the node reads as zeroes.
    """

    __slots__ = ("length", "node", "skip", "start")

    def __init__(self, node: Node, start: int, length: int, skip: int = 0) -> None:
        self.node = node
        self.start = start
        self.length = length
        self.skip = skip


def parts_of(nodes: Iterable[Node]) -> list[Part]:
    """The sources one behind the other."""
    parts = []
    start = 0
    for node in nodes:
        parts.append(Part(node, start, node.size))
        start += node.size
    return parts


class Piece:
    """A range of the target, ``length`` bytes at ``offset``, and where its bytes come from: ``node``'s at
    ``host_offset``. ``kind`` as in Extent: ZERO and HOLE need no node, COMPRESSED and ENCRYPTED bytes are asked of
    their format. ``verb`` says what is to be done with it."""

    __slots__ = ("host_offset", "kind", "length", "node", "offset", "verb")

    def __init__(self, verb: int, offset: int, length: int, kind: int, node: Node | None, host_offset: int) -> None:
        self.verb = verb
        self.offset = offset
        self.length = length
        self.kind = kind
        self.node = node
        self.host_offset = host_offset

    def cut(self, length: int) -> Piece:
        """Take ``length`` bytes off the front, and return them."""
        front = Piece(self.verb, self.offset, length, self.kind, self.node, self.host_offset)
        self.offset += length
        self.length -= length
        if self.host_offset >= 0:
            self.host_offset += length
        return front


class Job:
    """A range of the target, [start, end), that is dealt with as one: COPY from ``pieces``, or CLEAR.

    ``heavy``: reading it takes processor time. ``failure``: (offset, error) where its source could not be read.
    """

    __slots__ = ("end", "failure", "heavy", "pieces", "start", "verb")

    def __init__(self, verb: int, start: int, end: int) -> None:
        self.verb = verb
        self.start = start
        self.end = end
        self.pieces: list[Piece] = []
        self.heavy = False
        self.failure: tuple[int, CowshedError] | None = None

    def cut(self, end: int) -> None:
        """Forget what lies from ``end`` on."""
        self.end = max(self.start, end)
        self.pieces = [piece for piece in self.pieces if piece.offset < end]


class Policy:
    """How to copy.

    ``sparse``: bytes; runs of at least so many zeroes are left out of the target (0: every byte is written).
    ``reads_zero``: what is not written to the target reads as zeroes. ``backed``: the target stands on a backing
    file of ``backing_size`` bytes, so that only what the sources' own layer holds is copied. ``compress``: write
    compressed clusters. ``offload``: let the kernel copy between files. ``share``: let the file system share the
    blocks of the source's file with the target's where it can. ``salvage``: unreadable sectors become zeroes.
    ``fine``: clusters of the target are in place, so that zeroes are left out within them too. ``ordered``: the target
    is written front to back. ``threads``: at most so many. ``rate``: bytes a second, 0 for
    no limit.
    """

    __slots__ = (
        "backed",
        "backing_size",
        "compress",
        "fine",
        "offload",
        "ordered",
        "rate",
        "reads_zero",
        "salvage",
        "share",
        "sparse",
        "threads",
    )

    def __init__(
        self,
        *,
        sparse: int = BLOCK,
        reads_zero: bool = False,
        backed: bool = False,
        backing_size: int = 0,
        compress: bool = False,
        fine: bool = False,
        offload: bool = False,
        share: bool = False,
        salvage: bool = False,
        ordered: bool = True,
        threads: int = 8,
        rate: int = 0,
    ) -> None:
        self.sparse = sparse
        self.reads_zero = reads_zero and not backed
        self.backed = backed
        self.backing_size = backing_size
        self.compress = compress
        self.fine = fine
        self.offload = offload
        self.share = share
        self.salvage = salvage
        self.ordered = ordered
        self.threads = threads
        self.rate = rate


def pieces(parts: Sequence[Part], policy: Policy) -> Iterator[Piece]:
    """Every range of the target with what is to be done there, in order and without gaps."""
    for part in parts:
        shift = part.start - part.skip
        backing = part.node.backing if policy.backed else None
        below = backing.size + shift if backing is not None else 0
        inside = max(0, min(part.length, part.node.size - part.skip))
        for extent in _mapped(part, inside):
            kind = extent.kind
            piece = Piece(COPY, extent.offset + shift, extent.length, kind, extent.node, extent.host_offset)
            if kind in (ZERO, HOLE):
                piece.node, piece.host_offset = None, -1
                if policy.backed:
                    yield from _backed_zeroes(piece, extent.depth, below, policy)
                    continue
                piece.verb = COPY if not policy.sparse else KEEP if policy.reads_zero else CLEAR
            elif policy.backed and extent.depth:
                piece.verb = BELOW
            yield piece
        if inside < part.length:
            piece = Piece(COPY, part.start + inside, part.length - inside, ZERO, None, -1)
            if policy.backed:
                yield from _backed_zeroes(piece, 0, 0, policy)
            else:
                piece.verb = COPY if not policy.sparse else KEEP if policy.reads_zero else CLEAR
                yield piece


def _mapped(part: Part, inside: int) -> Iterator[Extent]:
    """The extents of ``inside`` bytes of a part. Raises HostError naming the offset where the mapping breaks off."""
    offset = part.skip
    try:
        if inside:
            for extent in part.node.extents(part.skip, inside):
                yield extent
                offset = extent.offset + extent.length
    except CowshedError as error:
        number = error_number(error)
        raise HostError(
            f"error while reading block status at offset {offset + part.start - part.skip}: {strerror(number)}",
            path=error.path, layer=error.layer, offset=error.offset, field=error.field, value=error.value, errno=number,
        ) from error  # fmt: skip


def _backed_zeroes(piece: Piece, depth: int, below: int, policy: Policy) -> Iterator[Piece]:
    """Zeroes where the target stands on a backing file; ``below``: where the source's own backing file ends."""
    if depth:
        # the source's backing file says so, and the target's is trusted to say the same as far as both reach
        stop = min(below, policy.backing_size) - piece.offset
        if stop > 0:
            front = piece.cut(min(stop, piece.length))
            front.verb = BELOW
            yield front
    stop = policy.backing_size - piece.offset
    if stop > 0 and piece.length:
        front = piece.cut(min(stop, piece.length))
        front.verb = CLEAR if policy.sparse else COPY
        yield front
    if piece.length:
        piece.verb = KEEP
        yield piece


def whole_grains(source: Iterable[Piece], grain: int) -> Iterator[Piece]:
    """Where one grain of the target holds several pieces and one of them is to be copied, all of them are.

    Pieces never straddle the edge of such a grain. ``grain``: bytes, a power of two.
    """
    waiting: list[Piece] = []  # pieces of a grain that is not complete yet
    inside = grain - 1
    for piece in source:
        while piece.length:
            at = piece.offset & inside
            if not waiting and not at and piece.length >= grain:
                yield piece.cut(piece.length & ~inside)
                continue
            waiting.append(piece.cut(min(piece.length, grain - at)))
            last = waiting[-1]
            if not (last.offset + last.length) & inside:
                yield from _grain(waiting)
                waiting = []
    yield from _grain(waiting)


def _grain(found: list[Piece]) -> list[Piece]:
    if any(piece.verb == COPY for piece in found):
        for piece in found:
            piece.verb = COPY
    return found


def bridged(source: Iterable[Piece], gap: int) -> Iterator[Piece]:
    """Copy zeroes of at most ``gap`` bytes along with the data on both sides, which costs less than two requests."""
    waiting: Piece | None = None
    copying = False
    for piece in source:
        if waiting is not None:
            if piece.verb == COPY:
                waiting.verb = COPY
            yield waiting
            waiting = None
        if piece.verb == KEEP and copying and piece.length <= gap:
            waiting = piece
            copying = False
        else:
            copying = piece.verb == COPY
            yield piece
    if waiting is not None:
        yield waiting


def jobs(source: Iterable[Piece], chunk: int, clear_chunk: int) -> Iterator[Job]:
    """Put pieces together in jobs that end at multiples of ``chunk``, zeroes at most at ``clear_chunk``."""
    job: Job | None = None
    limit = 0
    for piece in source:
        verb = piece.verb
        if verb == COPY:
            heavy = piece.kind in (COMPRESSED, ENCRYPTED)
            while piece.length:
                offset = piece.offset
                if job is None or offset != job.end or offset >= limit:
                    if job is not None:
                        yield job
                    job = Job(COPY, offset, offset)
                    limit = offset // chunk * chunk + chunk
                job.heavy |= heavy
                part = piece.cut(min(piece.length, limit - offset))
                job.pieces.append(part)
                job.end += part.length
        elif verb == CLEAR:
            if job is not None:
                yield job
                job = None
            while piece.length:
                part = piece.cut(min(piece.length, clear_chunk))
                yield Job(CLEAR, part.offset, part.offset + part.length)
    if job is not None:
        yield job
