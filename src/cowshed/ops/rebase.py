"""Another backing file under an image, which shows the same as before."""

from __future__ import annotations

import os
from errno import ENOSPC

from ..block import registry
from ..block.filename import combine, path_of
from ..block.graph import open_image
from ..block.node import COMPRESSED, DATA, ENCRYPTED, HOLE, ZERO, Extent
from ..errors import CowshedError, HostError, NoSpaceError, OpenError, OptionError, UsageError, error_number, strerror
from ..progress import QUIET
from .access import Opened
from .sparse import is_zero

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any, Unpack

    from ..block.node import Node
    from ..progress import Progress
    from .access import Access, Image

#: bytes compared at a time
CHUNK = 1 << 20
#: ranges of the image looked up before the first of them is worked on (working changes its tables)
AHEAD = 1024


def rebase(
    image: Image,
    backing: str | None,
    *,
    backing_fmt: str | None = None,
    unsafe: bool = False,
    backing_cache: str = "writeback",
    progress: Progress = QUIET,
    **access: Unpack[Access],
) -> None:
    """Put ``backing`` (in format ``backing_fmt``) below ``image``; None or an empty name: nothing.

    ``image``: a name to open (see graph.open_image) or an open writable node, which is left with its old chain until
    it is opened again. ``backing``: its name as it will stand in the image, so relative to the image's directory.
    What the old backing chain shows and the new one does not is written into the image first, in whole clusters.
    ``unsafe``: only change the name; for a backing file that was moved, or that is known to be the same.

    Raises OpenError, OptionError for a format that does not exist or is missing, NoSpaceError and HostError when
    copying fails (the image has its old backing file then, and shows what it showed), UnsupportedError.
    """
    backing = backing or None
    with Opened(image, access, writable=True, **({"backing": False} if unsafe else {})) as node:
        if backing_fmt is not None and registry.find(backing_fmt) is None:
            raise OptionError(f"Invalid format name: '{backing_fmt}'", field="backing_fmt", value=backing_fmt)
        if unsafe:
            _change(node, backing, backing_fmt)
            return
        below: Node | None = None
        try:
            if backing is not None:
                below = _open_new(node, backing, backing_fmt, backing_cache, access)
                if backing_fmt is None:
                    raise _cannot(node, backing, "backing format must be specified")
            _Rebase(node, below, progress).run()
            node.flush()
        finally:
            if below is not None:
                below.close()
        _change(node, backing, backing_fmt)


def _open_new(node: Node, name: str, fmt: str | None, cache: str, access: Access) -> Node:
    there: dict[str, Any] = {key: access[key] for key in ("trust", "secrets", "warn") if key in access}
    try:
        return open_image(combine(path_of(node) or "", name), fmt=fmt, cache=cache, **there)
    except OpenError as error:
        raise OpenError(
            f"Could not open new backing file '{name}': {error.__cause__ or error}",
            path=error.path,
            hint=error.hint,
            errno=error.errno,
        ) from error


def _change(node: Node, name: str | None, fmt: str | None) -> None:
    if name is not None and fmt is None:
        raise _cannot(node, name, "backing format must be specified")
    try:
        node.change_backing(name, fmt if name is not None else None)
        node.flush()
    except CowshedError as error:
        number = error_number(error)
        reason = "No space left in the file header" if number == ENOSPC else strerror(number)
        raise _cannot(node, name or "", reason, error) from error


def _cannot(node: Node, name: str, reason: str, cause: CowshedError | None = None) -> CowshedError:
    cls = UsageError if cause is None else type(cause)
    return cls(
        f"Could not change the backing file to '{name}': {reason}",
        path=node.filename,
        layer=node.driver,
        field="backing file",
        value=name,
        errno=None if cause is None else cause.errno,
    )


class _Rebase:
    """Writes into ``node`` what its present backing chain shows and ``new`` does not."""

    def __init__(self, node: Node, new: Node | None, progress: Progress) -> None:
        self.node = node
        self.old = node.backing
        self.new = new
        self.progress = progress
        #: whole clusters (or subclusters) are written: parts of one would be filled up from the old chain anyway
        self.grain = max(node.zero_align, 512)
        self.chunk = max(CHUNK, self.grain)
        self.files: dict[int, object] = {}

    def run(self) -> None:
        size = self.node.size
        self.progress.start(size)
        offset = 0
        while offset < size:
            holes: list[tuple[int, int]] = []
            for extent in self.node.layer_extents(offset, size - offset):
                offset = extent.offset + extent.length
                if extent.kind == HOLE:
                    holes.append((extent.offset, offset))
                    if len(holes) >= AHEAD:
                        break
            for start, end in holes:
                for low, high in self._suspects(start, end):
                    self._settle(low, high)
            self.progress.at(offset)
        self.progress.finish()

    def _suspects(self, start: int, end: int) -> Iterator[tuple[int, int]]:
        """Ranges within which the two chains may differ, in whole grains as far as [start, end) has them."""
        grain = self.grain
        low = high = start
        for at, stop in self._unlike(start, end):
            at, stop = max(start, at // grain * grain), min(end, -(-stop // grain) * grain)
            if at > high:
                if low < high:
                    yield low, high
                low = at
            high = max(high, stop)
        if low < high:
            yield low, high

    def _unlike(self, start: int, end: int) -> Iterator[tuple[int, int]]:
        """Ranges that are not known to be the same from where their bytes are."""
        left, right = _chain(self.old, start, end), _chain(self.new, start, end)
        one, other = next(left), next(right)
        at = start
        while True:
            stop = min(one.offset + one.length, other.offset + other.length)
            if not self._same(one, other, at):
                yield at, stop
            at = stop
            if at == end:
                return
            if at == one.offset + one.length:
                one = next(left)
            if at == other.offset + other.length:
                other = next(right)

    def _same(self, one: Extent, other: Extent, at: int) -> bool:
        if one.kind in (ZERO, HOLE) or other.kind in (ZERO, HOLE):
            return one.kind in (ZERO, HOLE) and other.kind in (ZERO, HOLE)
        if one.kind != other.kind or one.kind not in (DATA, COMPRESSED, ENCRYPTED):
            return False
        places = one.host_offset - one.offset == other.host_offset - other.offset
        return places and self._file(one.node) == self._file(other.node)

    def _file(self, node: Node | None) -> object:
        """The same for two nodes that stand on one file: device and inode, or else the node itself."""
        found = self.files.get(id(node))
        if found is None:
            found = node
            path = path_of(node) if node is not None else None
            if path is not None and node is not None:
                try:
                    status = os.stat(path)
                    found = (node.driver, status.st_dev, status.st_ino)
                except (OSError, ValueError):
                    pass  # not a file of this host
            self.files[id(node)] = found
        return found

    def _settle(self, start: int, end: int) -> None:
        """Compare [start, end) byte for byte, and write the grains that differ."""
        grain, step = self.grain, self.chunk
        while start < end:
            stop = min(end, start // step * step + step)
            old = self._read(self.old, start, stop, "old")
            new = self._read(self.new, start, stop, "new")
            if old != new:
                view = memoryview(old)
                for low, high in _differing(old, new, -start % grain, grain):
                    self._write(start + low, view[low:high])
            start = stop
            self.progress.at(start)

    def _read(self, node: Node | None, start: int, stop: int, which: str) -> bytearray:
        buffer = bytearray(stop - start)
        inside = min(stop, node.size) - start if node is not None else 0
        if node is not None and inside > 0:
            try:
                node.read_into(start, memoryview(buffer)[:inside])
            except CowshedError as error:
                raise _host_error(f"error while reading from {which} backing file", error) from error
        return buffer

    def _write(self, offset: int, view: memoryview) -> None:
        try:
            if is_zero(view) and self.node.zeroes_hide_backing:
                self.node.write_zeroes(offset, len(view))
            else:
                self.node.write(offset, view)
        except CowshedError as error:
            raise _host_error("Error while writing to COW image", error) from error


def _host_error(doing: str, error: CowshedError) -> HostError:
    number = error_number(error)
    cls = NoSpaceError if isinstance(error, NoSpaceError) else HostError
    return cls(f"{doing}: {strerror(number)}", path=error.path, layer=error.layer, offset=error.offset, errno=number)


def _chain(node: Node | None, start: int, end: int) -> Iterator[Extent]:
    """The extents of [start, end) of a chain; without one, and past its end, zeroes."""
    inside = max(start, min(end, node.size)) if node is not None else start
    if node is not None and inside > start:
        yield from node.extents(start, inside - start)
    if inside < end:
        yield Extent(inside, end - inside, ZERO)


def _differing(old: bytearray, new: bytearray, phase: int, grain: int) -> Iterator[tuple[int, int]]:
    """Runs of grains in which two buffers of one length differ; the first ends at ``phase`` unless that is 0."""
    length = len(old)
    begin = -1
    at = 0
    while at < length:
        stop = min(length, phase or grain) if not at else min(length, at + grain)
        if old[at:stop] != new[at:stop]:
            if begin < 0:
                begin = at
        elif begin >= 0:
            yield begin, at
            begin = -1
        at = stop
    if begin >= 0:
        yield begin, length
