"""What an overlay changed goes down into its backing file, or into an image further down the chain."""

from __future__ import annotations

import os

from ..block.filename import combine, path_of, protocol_prefix
from ..block.graph import backing_path, reopen
from ..block.node import HOLE, ZERO
from ..errors import HostError, NoSpaceError, UsageError, error_number, strerror
from ..progress import QUIET
from .access import Opened
from .copy import Copier
from .plan import CLEAR, COPY, Part, Piece, Policy

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Unpack

    from ..block.node import Node
    from ..progress import Progress
    from .access import Access, Image


class _Commit(Copier):
    """Copies what the ``depth`` uppermost layers say, zeroes included, as they say it."""

    def __init__(self, top: Node, depth: int, base: Node, rate: int, progress: Progress) -> None:
        super().__init__([Part(top, 0, top.size)], base, Policy(sparse=0, rate=rate), progress=progress)
        self.depth = depth

    def _pieces(self) -> Iterator[Piece]:
        for extent in self.parts[0].node.extents():
            if extent.depth >= self.depth:
                continue
            kind = extent.kind
            if kind in (ZERO, HOLE):
                yield Piece(CLEAR, extent.offset, extent.length, kind, None, -1)
            else:
                yield Piece(COPY, extent.offset, extent.length, kind, extent.node, extent.host_offset)


def commit(
    image: Image,
    base: str | None = None,
    *,
    drop: bool = False,
    rate_limit: int = 0,
    progress: Progress = QUIET,
    **access: Unpack[Access],
) -> None:
    """Write what ``image`` and the layers below it changed since ``base`` into ``base``.

    ``image``: a name to open (see graph.open_image) or an open writable node. ``base``: the backing file's name as
    the chain has it, or a path that means the same; the image's own backing file when None. A base that is smaller
    grows. Then the image is emptied, since it reads the same from its backing file, unless ``drop`` (the caller will
    not use it any more) or a ``base`` is given: layers between the two show other contents afterwards.
    ``rate_limit``: bytes a second, 0 for no limit.

    The base is durable before anything of the image is dropped. Raises OpenError, UsageError where there is no such
    base, NoSpaceError and HostError when the copy fails; the image is then whole, and to be committed again.
    """
    with Opened(image, access, writable=True) as top:
        depth, parent, found = _find_base(top, base, access.get("label") or top.filename)
        target = reopen(found, writable=True, parent=parent, resize=True)
        if target.size < top.size:
            target.resize(top.size)
        try:
            _Commit(top, depth, target, rate_limit, progress).run()
            target.flush()
        except HostError as error:
            number = error_number(error)
            kind = NoSpaceError if isinstance(error, NoSpaceError) else HostError
            raise kind(f"Block job failed: {strerror(number)}", path=target.filename, errno=number) from error
        if base is None and not drop and top.make_empty():
            top.flush()
        progress.finish()


def _find_base(top: Node, name: str | None, label: str) -> tuple[int, Node, Node]:
    """(depth below ``top``, the layer above, the layer) of the image called ``name``, the next one for None."""
    if name is None:
        if top.backing is None:
            raise UsageError("Image does not have a backing file", path=top.filename)
        return 1, top, top.backing
    depth, parent = 1, top
    while (below := parent.backing) is not None:
        if _means(parent, name):
            return depth, parent, below
        depth, parent = depth + 1, below
    raise UsageError(f"Did not find '{name}' in the backing chain of '{label}'", path=top.filename, value=name)


def _means(parent: Node, name: str) -> bool:
    """Does ``name``, seen from the image ``parent``, mean its backing file?"""
    full = backing_path(parent) or ""
    if protocol_prefix(name) is not None or protocol_prefix(full) is not None:
        return name in (parent.backing_name, full)
    seen = combine(path_of(parent) or "", name)
    try:
        return os.path.realpath(seen, strict=True) == os.path.realpath(full, strict=True)
    except (OSError, ValueError):
        return False
