"""Where the bytes of a disk are: the allocation of a chain, layer by layer.

The chain view that reading uses (Node.extents) hides what a layer only says (a hole in the file under a cluster that is
allocated, an allocated cluster under zeroes); here the layers are asked one by one.
"""

from __future__ import annotations

from ..block.node import COMPRESSED, DATA, ENCRYPTED, HOLE, Node
from ..errors import RangeError
from .access import Opened

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Unpack

    from .access import Access, Image


class MapEntry:
    """``length`` guest bytes from ``start`` that are alike.

    ``depth``: the layer that decides, 0 for the image itself, 1 for its backing file … ``present``: allocated in
    that layer. ``zero``: reads as zeroes. ``data``: the layer has data there (with ``zero``: space, but not written
    yet). ``offset``: where the bytes start in the file ``node`` (None: not mapped to bytes of a file, or nowhere).
    ``compressed``: stored packed.
    """

    __slots__ = ("compressed", "data", "depth", "length", "node", "offset", "present", "start", "zero")

    def __init__(
        self,
        start: int,
        length: int,
        depth: int,
        present: bool,
        zero: bool,
        data: bool,
        node: Node | None = None,
        offset: int | None = None,
        compressed: bool = False,
    ) -> None:
        self.start = start
        self.length = length
        self.depth = depth
        self.present = present
        self.zero = zero
        self.data = data
        self.node = node
        self.offset = offset
        self.compressed = compressed

    @property
    def filename(self) -> str | None:
        """The file that holds the bytes, None where there is none."""
        return self.node.filename if self.node is not None else None

    def __repr__(self) -> str:
        words = [word for word in ("present", "zero", "data", "compressed") if getattr(self, word)]
        where = "" if self.offset is None else f" at {self.offset:#x} of {self.filename!r}"
        return f"<MapEntry {self.start:#x}+{self.length:#x} {' '.join(words) or 'nothing'}{where} depth {self.depth}>"


def map_image(
    image: Image, *, start: int = 0, length: int | None = None, **access: Unpack[Access]
) -> Iterator[MapEntry]:
    """The entries of [start, start+length) (to the end by default), in order, without gaps, like neighbours merged.

    ``image``: a name to open (see graph.open_image) or an open node. What lies past the end of the disk is left out.
    Entries come as they are found, so that a map of any size takes little memory.

    Raises OpenError, RangeError for negative arguments, CorruptError.
    """
    if start < 0 or (length is not None and length < 0):
        raise RangeError("A map starts at a byte >= 0 and has a length >= 0", offset=start, value=length)
    with Opened(image, access) as node:
        end = node.size if length is None else min(node.size, start + length)
        if start < end:
            yield from _merged(_entries(node, start, end))


def _merged(entries: Iterator[MapEntry]) -> Iterator[MapEntry]:
    last: MapEntry | None = None
    for entry in entries:
        if last is None:
            last = entry
            continue
        if (
            entry.zero == last.zero
            and entry.data == last.data
            and entry.present == last.present
            and entry.depth == last.depth
            and entry.node is last.node
            and entry.compressed == last.compressed
            and (last.offset + last.length == entry.offset if last.offset is not None else entry.offset is None)
        ):
            last.length += entry.length
        else:
            yield last
            last = entry
    if last is not None:
        yield last


def _entries(top: Node, start: int, end: int) -> Iterator[MapEntry]:
    """Walk down the chain wherever a layer leaves the answer to its backing file."""
    work: list[tuple[Node, int, Iterator[MapEntry]]] = [(top, 0, _layer(top, 0, start, end))]
    while work:
        node, depth, entries = work[-1]
        backing = node.backing
        for entry in entries:
            if entry.present or entry.zero or backing is None:
                yield entry
                continue
            # not allocated here, and within the backing file
            stop = entry.start + entry.length
            work.append((backing, depth + 1, _layer(backing, depth + 1, entry.start, stop)))
            break
        else:
            work.pop()


def _layer(node: Node, depth: int, start: int, end: int) -> Iterator[MapEntry]:
    """One layer's entries; a run that is neither present nor zero is the backing file's to answer."""
    backing = node.backing
    edge = end if backing is None else backing.size  # past the end of a shorter backing file there are zeroes
    holey = _holey(node)
    for extent in node.layer_extents(start, end - start):
        kind, at, length = extent.kind, extent.offset, extent.length
        file = extent.node
        where = extent.host_offset if extent.host_offset >= 0 else None
        if kind == DATA:
            if holey and file is not None and where is not None:
                yield from _sparse(file, where, at, length, depth)
            else:
                yield MapEntry(at, length, depth, True, False, True, file, where)
        elif kind in (COMPRESSED, ENCRYPTED):
            yield MapEntry(at, length, depth, True, False, True, compressed=kind == COMPRESSED)
        elif kind != HOLE:
            yield MapEntry(at, length, depth, True, True, False, file, where)
        else:
            inside = max(0, min(length, edge - at)) if backing is not None else 0
            if inside:
                yield MapEntry(at, inside, depth, False, False, False, file, where)
            if inside < length:
                past = where + inside if where is not None else None
                yield MapEntry(at + inside, length - inside, depth, False, True, False, file, past)


def _holey(node: Node) -> bool:
    """May clusters of this image lie in holes of its file, as after preallocation=metadata?"""
    sparse = getattr(node, "sparse_data", None)
    return sparse is not None and "data-file" not in node.children and bool(sparse())


def _sparse(file: Node, where: int, at: int, length: int, depth: int) -> Iterator[MapEntry]:
    """Clusters in a file with holes: what lies in a hole is allocated, but reads as zeroes."""
    shift = at - where
    inside = max(0, min(length, file.size - where))
    if inside:
        for below in file.layer_extents(where, inside):
            yield MapEntry(
                below.offset + shift, below.length, depth, True, below.kind != DATA, True, file, below.offset
            )
    if inside < length:
        yield MapEntry(at + inside, length - inside, depth, True, True, True, file, where + inside)
