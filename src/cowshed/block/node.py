"""The one interface of the house: a Node is bytes that a guest, or a format above, can read and write.

Three kinds of node stand behind it:

* a **protocol** node is bytes at a place (a file, a block device): it does I/O itself;
* a **format** node maps guest bytes to bytes of its children (``file``, ``data-file``, ``backing``); it supplies
  mapping and placement, and this module moves the bytes;
* a **filter** node wraps another node.

Guest offsets are offsets in the node's own disk, host offsets are offsets in the child that an extent names.
All offsets and lengths are bytes. Nodes are safe to use from several threads.
"""

from __future__ import annotations

from _thread import RLock

from ..errors import CowshedError, RangeError, ReadOnlyError, UnsupportedError
from ..progress import QUIET

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any, NewType

    from ..progress import Progress
    from .facts import Bitmap, CheckResult, Snapshot
    from .graph import Opening

    GuestOffset = NewType("GuestOffset", int)
    HostOffset = NewType("HostOffset", int)
    Buffer = bytes | bytearray | memoryview

#: Extent kinds
DATA = 1  #: readable at host_offset of node
ZERO = 2  #: reads as zeroes, and this layer says so (host_offset set when a cluster is allocated for it)
HOLE = 3  #: not allocated (in this layer for layer_extents, in the whole chain for extents); reads as zeroes
COMPRESSED = 4  #: ask the owning node's read_into
ENCRYPTED = 5  #: ask the owning node's read_into

KIND_NAMES = {DATA: "data", ZERO: "zero", HOLE: "hole", COMPRESSED: "compressed", ENCRYPTED: "encrypted"}

_ZEROES = bytes(1 << 20)

#: times that a read is done anew because space was reused meanwhile, before it is done with the writers locked out
REREADS = 4

#: Replaced by a new object whenever space that a mapping led to may get other bytes; see `space_reused`. An object
#: and not a number: assigning is one step for every thread, and no two that somebody still holds are the same.
_epoch = object()


def space_reused() -> None:
    """Drivers call this when space that guest bytes were mapped to becomes free for others.

    It is called after the mapping in memory leads there no more, and before anything can be written there. Readers map
    without holding the lock while they read; one that mapped before and reads after it would see foreign bytes.
    """
    global _epoch
    _epoch = object()


def space_epoch() -> object:
    """The time that `space_reused` ends: take it before `extents`, read, and read again when it is another one."""
    return _epoch


class Extent:
    """A run of guest bytes of one kind.

    ``offset`` and ``length``: guest bytes. ``node``: for DATA the node that holds the bytes at ``host_offset``;
    for COMPRESSED and ENCRYPTED the format node to read from at ``offset`` shifted by ``host_offset`` being its own
    guest offset; for ZERO the node of ``host_offset`` when one is allocated, else None. ``owner``: the format node
    whose layer said so. ``depth``: 0 for the node asked, 1 for its backing file, and so on. ``sparse``: a ZERO
    extent that the format has as data, where the file underneath has a hole (preallocated metadata).
    """

    __slots__ = ("depth", "host_offset", "kind", "length", "node", "offset", "owner", "sparse")

    def __init__(
        self,
        offset: int,
        length: int,
        kind: int,
        node: Node | None = None,
        host_offset: int = -1,
        depth: int = 0,
        owner: Node | None = None,
        sparse: bool = False,
    ) -> None:
        self.sparse = sparse
        self.offset = offset
        self.length = length
        self.kind = kind
        self.node = node
        self.host_offset = host_offset
        self.depth = depth
        self.owner = owner

    def __repr__(self) -> str:
        where = "" if self.host_offset < 0 else f" at {self.host_offset:#x}"
        return f"<Extent {self.offset:#x}+{self.length:#x} {KIND_NAMES[self.kind]}{where} depth {self.depth}>"

    def __eq__(self, other: object) -> bool:
        names = ("offset", "length", "kind", "node", "host_offset", "depth")
        return isinstance(other, Extent) and all(getattr(self, name) == getattr(other, name) for name in names)

    __hash__ = None  # type: ignore[assignment]


class Placement:
    """Where guest bytes go: ``length`` bytes from ``offset`` go to ``host_offset`` of ``node``.

    ``head``/``tail``: guest bytes before/after the range that must be copied up around it (they lie at
    ``host_offset - head`` …) before the placement is linked. ``fresh``: newly allocated, invisible until ``link``.
    ``token`` belongs to the driver.
    """

    __slots__ = ("fresh", "head", "host_offset", "length", "node", "offset", "tail", "token")

    def __init__(
        self,
        offset: int,
        length: int,
        node: Node,
        host_offset: int,
        *,
        head: int = 0,
        tail: int = 0,
        fresh: bool = False,
        token: object = None,
    ) -> None:
        self.offset = offset
        self.length = length
        self.node = node
        self.host_offset = host_offset
        self.head = head
        self.tail = tail
        self.fresh = fresh
        self.token = token


def adjoining(placements: list[Placement]) -> Iterator[Placement]:
    """The same bytes in the same places, neighbours that nothing is copied up around in one: for one write."""
    run: Placement | None = None
    for item in placements:
        if run is not None:
            end = run.host_offset + run.length
            follows = run.node is item.node and end == item.host_offset and run.offset + run.length == item.offset
            if follows and not (run.head or run.tail or item.head or item.tail):
                run = Placement(run.offset, run.length + item.length, run.node, run.host_offset)
                continue
            yield run
        run = item
    if run is not None:
        yield run


class Node:
    """Bytes with a size. Subclasses override the hooks of their kind; callers use the public methods.

    Attributes: ``driver`` the driver's name ("qcow2"), ``filename`` as reported to people, ``size`` in bytes,
    ``read_only``, ``children`` by role ("file", "backing", "data-file").
    """

    driver = ""
    is_format = False
    is_filter = False
    #: granularity (bytes) at which write_zeroes and discard can work on metadata alone
    zero_align = 1
    #: True when a write can't tear a neighbour of less than this many bytes
    cluster_size = 0
    #: the driver can tell that freshly created images read as zeroes
    has_zero_init = False
    #: does write_zeroes leave this layer itself saying zero, whatever backing file it gets later
    zeroes_hide_backing = False
    #: does write_compressed work
    supports_compressed = False
    #: can clusters be written only once, whole and compressed
    needs_compressed = False
    #: can this image keep dirty bitmaps
    supports_bitmaps = False
    #: writing past the end makes it longer: a protocol, or a node that a format above keeps its own structures in
    extensible = False
    #: bytes past its end that ``read`` gives as zeroes: formats may map a little beyond the end of a file
    slack = 0

    def __init__(self, filename: str, read_only: bool = True) -> None:
        self.filename = filename
        self.read_only = read_only
        self.children: dict[str, Node] = {}
        self.size = 0
        self.lock = RLock()
        self.closed = False
        #: open options given by the user that change what is read, for the reported file name
        self.options: dict[str, Any] = {}
        #: the backing file's name and format as the image has them (also when it is not opened), None without one
        self.backing_name: str | None = None
        self.backing_format: str | None = None
        #: the user gave another backing file (or none) than the image names
        self.backing_overridden = False
        #: how the graph opened this node, for reopening
        self.opening: Opening | None = None

    # -- the tree -------------------------------------------------------------------------------------------------

    @property
    def file(self) -> Node:
        return self.children["file"]

    @property
    def backing(self) -> Node | None:
        return self.children.get("backing")

    def __enter__(self) -> Node:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    # -- mapping --------------------------------------------------------------------------------------------------

    def layer_extents(self, offset: int, length: int) -> Iterator[Extent]:
        """This layer's own mapping of [offset, offset+length), in order, without gaps. HOLE = ask the backing file."""
        raise NotImplementedError

    def extents(self, offset: int = 0, length: int | None = None) -> Iterator[Extent]:
        """The chain's mapping of [offset, offset+length): in order, without gaps, neighbours merged.

        A DATA extent's ``node`` is a node without mapping of its own (a protocol, or a raw's file), so
        ``node.read_into(host_offset, …)`` gives the bytes. HOLE: allocated nowhere in the chain.
        Raises RangeError when the range leaves the disk.
        """
        if length is None:
            length = self.size - offset
        self._check_range(offset, length)
        last: Extent | None = None
        for extent in self._chain_extents(offset, length):
            if last is None:
                last = extent
            elif (
                last.kind == extent.kind
                and last.depth == extent.depth
                and last.node is extent.node
                and last.owner is extent.owner
                and last.sparse == extent.sparse
                and (
                    last.host_offset + last.length == extent.host_offset
                    if last.host_offset >= 0
                    else extent.host_offset < 0
                )
            ):
                last.length += extent.length
            else:
                yield last
                last = extent
        if last is not None:
            yield last

    def _chain_extents(self, offset: int, length: int) -> Iterator[Extent]:
        backing = self.backing
        for extent in self.layer_extents(offset, length):
            kind = extent.kind
            if kind == HOLE:
                if backing is None:
                    yield extent
                else:
                    yield from _shifted(backing, extent.offset, extent.length, self)
            elif kind == DATA and extent.node is not None and (extent.node.is_format or extent.node.is_filter):
                # a mapping node stands on another one (a format inside a format, a filter): follow it down
                shift = extent.offset - extent.host_offset
                for below in extent.node._chain_extents(extent.host_offset, extent.length):
                    below.offset += shift
                    below.depth = extent.depth
                    below.owner = extent.owner
                    yield below
            else:
                yield extent

    # -- reading --------------------------------------------------------------------------------------------------

    def read(self, offset: int, length: int) -> bytes:
        """``length`` bytes from ``offset``. Raises RangeError outside the disk, HostError, CorruptError."""
        # before memory is taken for it
        if offset < 0 or length < 0 or offset + length > self.size + self.slack:
            self._check_range(offset, length)
        buffer = bytearray(length)
        self.read_into(offset, memoryview(buffer))
        return bytes(buffer)

    def read_into(self, offset: int, view: memoryview) -> None:
        """Fill ``view`` (writable, format "B") with the bytes from ``offset``; same errors as ``read``.

        The bytes are those that were there before a write, zeroing or discard by another thread, or after it.
        """
        view = byte_view(view)
        epoch = _epoch
        try:
            self._read_mapped(offset, view)
        except CowshedError:
            if epoch is _epoch:
                raise
        if epoch is not _epoch:
            self._read_again(offset, view)

    def _read_mapped(self, offset: int, view: memoryview) -> None:
        """Map and read, once. Space may be reused between the one and the other."""
        for extent in self.extents(offset, len(view)):
            start = extent.offset - offset
            part = view[start : start + extent.length]
            kind = extent.kind
            if kind == DATA:
                assert extent.node is not None
                extent.node.read_into(extent.host_offset, part)
            elif kind in (ZERO, HOLE):
                fill_zero(part)
            else:
                assert extent.node is not None
                extent.node.unpack(extent.host_offset, part)

    def _read_again(self, offset: int, view: memoryview) -> None:
        """Space was reused, perhaps between mapping and reading: map and read until it was not."""
        for _ in range(REREADS):
            epoch = _epoch
            try:
                self._read_mapped(offset, view)
            except CowshedError:
                if epoch is _epoch:
                    raise
            if epoch is _epoch:
                return
        # somebody frees space all the time (perhaps elsewhere): with these locks, not here
        self._read_locked(self._chain(), offset, view)

    def _read_locked(self, chain: list[Node], offset: int, view: memoryview) -> None:
        """Read with the lock of every node in ``chain`` held, which writers of any of them need."""
        if chain:
            with chain[0].lock:
                self._read_locked(chain[1:], offset, view)
        else:
            self._read_mapped(offset, view)

    def _chain(self) -> list[Node]:
        """The format and filter nodes that reading goes through, from the top, as writers take their locks."""
        found: list[Node] = []
        todo: list[Node] = [self]
        while todo:
            node = todo.pop(0)
            if (node.is_format or node.is_filter) and node not in found:
                found.append(node)
                todo += node.children.values()
        return found

    def unpack_into(self, offset: int, view: memoryview) -> None:
        """Fill ``view`` with this layer's COMPRESSED or ENCRYPTED guest bytes at ``offset``, as mapped a while ago.

        What is stored otherwise by now is read as it is stored now. Raises what ``read`` raises.
        """
        epoch = _epoch
        try:
            self.unpack(offset, view)
        except CowshedError:
            if epoch is _epoch:
                raise
        if epoch is not _epoch:
            self._read_again(offset, view)

    def unpack(self, offset: int, view: memoryview) -> None:
        """Driver hook: decompress or decrypt guest bytes at ``offset`` into ``view``."""
        raise UnsupportedError(f"Driver '{self.driver}' has no compressed data", path=self.filename)

    # -- writing --------------------------------------------------------------------------------------------------

    def write(self, offset: int, data: Buffer) -> None:
        """Write ``data`` at ``offset``. Raises ReadOnlyError, RangeError, NoSpaceError, HostError."""
        view = byte_view(data)
        self._check_write(offset, len(view))
        if not len(view):
            return
        with self.lock:
            self.before_write(offset, len(view))
            placements = self.place(offset, len(view))
            linked = 0
            try:
                for placement in adjoining(placements):
                    start = placement.offset - offset
                    self._fill(placement, view[start : start + placement.length])
                self.link(placements)
                linked = 1
            finally:
                if not linked:
                    self.unplace(placements)

    def _fill(self, placement: Placement, part: memoryview) -> None:
        """Write one placement's data with its copied-up head and tail, in one request where they are small."""
        node = placement.node
        head, tail = placement.head, placement.tail
        if not head and not tail:
            node.write(placement.host_offset, part)
            return
        limit = 1 << 20
        end = placement.offset + placement.length
        if head + tail + len(part) <= limit:
            buffer = bytearray(head + len(part) + tail)
            view = memoryview(buffer)
            self._read_old(placement.offset - head, view[:head])
            view[head : head + len(part)] = part
            self._read_old(end, view[head + len(part) :])
            node.write(placement.host_offset - head, view)
            return
        for offset, length in ((placement.offset - head, head), (end, tail)):
            while length:
                step = min(length, limit)
                piece = memoryview(bytearray(step))
                self._read_old(offset, piece)
                node.write(placement.host_offset + (offset - placement.offset), piece)
                offset += step
                length -= step
        node.write(placement.host_offset, part)

    def _read_old(self, offset: int, view: memoryview) -> None:
        """What the guest sees now; zeroes past the end of the disk (the last cluster may reach beyond it)."""
        inside = max(0, min(len(view), self.size - offset))
        if inside:
            self.read_into(offset, view[:inside])

    def before_write(self, offset: int, length: int) -> None:
        """Driver hook, called with the lock held before any change to guest data (dirty bitmaps, feature bits)."""

    def place(self, offset: int, length: int) -> list[Placement]:
        """Driver hook: allocate room for guest bytes [offset, offset+length); nothing becomes visible yet."""
        raise UnsupportedError(f"Driver '{self.driver}' cannot write", path=self.filename)

    def link(self, placements: list[Placement]) -> None:
        """Driver hook: make the placements visible."""

    def unplace(self, placements: list[Placement]) -> None:
        """Driver hook: give back what ``place`` allocated, after a failed data write."""

    def write_zeroes(self, offset: int, length: int, unmap: bool = False) -> None:
        """Make [offset, offset+length) read as zeroes; with ``unmap`` the driver may give its space back."""
        self._check_write(offset, length)
        if not length:
            return
        with self.lock:
            self.before_write(offset, length)
            align = self.zero_align
            end = offset + length
            start = (offset + align - 1) // align * align
            # the disk's last, partial cluster counts as whole when the range reaches the end of the disk
            stop = end if end == self.size else end // align * align
            if start >= stop:
                self._zero_by_writing(offset, length)
                return
            if offset < start:
                self._zero_by_writing(offset, start - offset)
            if not self.zero_range(start, stop - start, unmap):
                self._zero_by_writing(start, stop - start)
            if stop < end:
                self._zero_by_writing(stop, end - stop)

    def zero_range(self, offset: int, length: int, unmap: bool) -> bool:
        """Driver hook: zero aligned guest bytes by metadata alone. False: not possible, write zeroes instead."""
        return False

    def _zero_by_writing(self, offset: int, length: int) -> None:
        for extent in list(self.extents(offset, length)):
            if extent.kind in (ZERO, HOLE):
                continue
            position, end = extent.offset, extent.offset + extent.length
            while position < end:
                step = min(end - position, len(_ZEROES))
                self.write(position, memoryview(_ZEROES)[:step])
                position += step

    def discard(self, offset: int, length: int) -> None:
        """Tell the driver that [offset, offset+length) is not needed. Partial clusters at the edges are kept."""
        self._check_write(offset, length)
        with self.lock:
            self.before_write(offset, length)
            align = max(1, self.zero_align)
            end = offset + length
            start = (offset + align - 1) // align * align
            stop = end if end == self.size else end // align * align
            if start < stop:
                self.discard_range(start, stop - start)

    def discard_range(self, offset: int, length: int) -> None:
        """Driver hook: forget aligned guest bytes. The default does nothing, which is always allowed."""

    def write_compressed(self, offset: int, data: Buffer, packed: bytes | None = None) -> None:
        """Store one whole cluster at ``offset`` compressed (``packed``: its compressed form when known)."""
        raise UnsupportedError(
            "Compression not supported for this file format", path=self.filename, layer=self.driver
        )

    def flush(self) -> None:
        """Everything written before is durable when this returns (unless the cache mode says not to care)."""

    def resize(self, size: int, preallocation: str = "off", progress: Progress = QUIET) -> None:
        """Change the disk's size; shrinking drops the end. Raises UnsupportedError, NoSpaceError.

        ``progress``, which the caller has started, advances by the bytes of the disk that were preallocated.
        """
        raise self._cannot("Image format driver does not support resize")

    # -- hooks beyond bytes: a driver overrides what its format can ------------------------------------------------

    def _cannot(self, text: str = "Operation not supported") -> UnsupportedError:
        return UnsupportedError(text, path=self.filename, layer=self.driver)

    def check(self, fix: frozenset[str] = frozenset(), progress: Progress = QUIET) -> CheckResult:
        """Verify the metadata; ``fix`` ⊆ {"leaks", "errors"} repairs. Raises UnsupportedError where there is none."""
        raise self._cannot("This image format does not support checks")

    def snapshots(self) -> list[Snapshot]:
        """The internal snapshots, in table order; empty for formats without any."""
        return []

    def snapshot_create(self, name: str) -> Snapshot:
        raise self._cannot()

    def snapshot_apply(self, ref: str) -> None:
        raise self._cannot()

    def snapshot_delete(self, ref: str) -> None:
        raise self._cannot()

    def snapshot_view(self, ref: str) -> Node:
        """A read-only node of the disk as it was in snapshot ``ref`` (an id or a name; ids first)."""
        raise self._cannot()

    def bitmaps(self) -> list[Bitmap]:
        """The persistent dirty bitmaps; empty for formats without any."""
        return []

    def bitmap_add(self, name: str, granularity: int | None = None, *, enabled: bool = True) -> None:
        raise self._cannot()

    def bitmap_remove(self, name: str) -> None:
        raise self._cannot()

    def bitmap_clear(self, name: str) -> None:
        raise self._cannot()

    def bitmap_enable(self, name: str) -> None:
        raise self._cannot()

    def bitmap_disable(self, name: str) -> None:
        raise self._cannot()

    def bitmap_merge(self, target: str, source: Node, name: str) -> None:
        """Add the dirty bits of ``source``'s bitmap ``name`` to this node's bitmap ``target``."""
        raise self._cannot()

    def change_backing(self, name: str | None, fmt: str | None) -> None:
        """Rewrite the names of the backing file and its format; no data moves. ``None``: no backing file."""
        raise self._cannot()

    def amend(self, options: dict[str, Any], *, force: bool = False, progress: Progress = QUIET) -> None:
        raise self._cannot(f"Format driver '{self.driver}' does not support option amendment")

    def make_empty(self) -> bool:
        """Drop every cluster of this layer, so that all reads fall through; False when the format can't."""
        return False

    def close(self) -> None:
        """Flush (when writable) and release everything; children too. Safe to call twice."""
        if self.closed:
            return
        self.closed = True
        try:
            self.shutdown()
        finally:
            for child in list(self.children.values()):
                child.close()

    def shutdown(self) -> None:
        """Driver hook of ``close``: write out what is dirty. Children are still open."""

    # -- facts ----------------------------------------------------------------------------------------------------

    def allocated_bytes(self) -> int | None:
        """Bytes that the image takes on its storage (st_blocks), None when unknown."""
        file = self.children.get("file")
        return file.allocated_bytes() if file is not None else None

    def format_specific(self) -> dict[str, Any] | None:
        """The driver's part of ``info`` as qemu's JSON names it; None when it has none."""
        return None

    # -- checks ---------------------------------------------------------------------------------------------------

    def _check_range(self, offset: int, length: int) -> None:
        if offset < 0 or length < 0 or offset + length > self.size:
            raise RangeError(
                f"Request [{offset}, {offset + length}) is outside the disk of {self.size} bytes",
                path=self.filename,
                layer=self.driver,
                offset=offset,
                value=length,
            )

    def _check_write(self, offset: int, length: int) -> None:
        if self.read_only:
            raise ReadOnlyError(f"Block node is read-only: '{self.filename}'", path=self.filename, layer=self.driver)
        self._check_range(offset, length)


def _shifted(backing: Node, offset: int, length: int, owner: Node) -> Iterator[Extent]:
    """The backing file's extents one level deeper; what lies past its end reads as zeroes."""
    inside = max(0, min(length, backing.size - offset))
    if inside:
        for extent in backing._chain_extents(offset, inside):
            extent.depth += 1
            yield extent
    if inside < length:
        # past the end of a short backing file: zeroes that belong to the layer above the end
        yield Extent(offset + inside, length - inside, ZERO, None, -1, 1, backing)


def byte_view(data: Buffer) -> memoryview:
    """``data`` as a view of single bytes, whatever the items of the buffer are."""
    view = memoryview(data)
    return view if view.format == "B" and view.ndim == 1 else view.cast("B")


def fill_zero(view: memoryview) -> None:
    """Zero a writable byte view, in big steps."""
    length = len(view)
    if length <= len(_ZEROES):
        view[:] = _ZEROES[:length]
        return
    for start in range(0, length, len(_ZEROES)):
        step = min(len(_ZEROES), length - start)
        view[start : start + step] = _ZEROES[:step]
