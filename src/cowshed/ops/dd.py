"""Copy a range of a disk, in blocks, into a new image: every byte of it is written, zeroes as well."""

from __future__ import annotations

import os

from ..errors import CowshedError, HostError, NoSpaceError, OptionError, UsageError, error_number, strerror
from ..progress import QUIET
from .access import Opened
from .copy import Copier
from .plan import Part, Policy

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from ..block.node import Node
    from ..block.secret import Secrets
    from ..progress import Progress
    from .access import Access, Image


class _BlockCopier(Copier):
    """A Copier whose errors read as dd's do."""

    def failed(self, doing: str, offset: int, error: CowshedError) -> CowshedError:
        number = error_number(error)
        image = "from input" if doing == "reading" else "to output"
        cls = NoSpaceError if isinstance(error, NoSpaceError) else HostError
        return cls(
            f"error while {doing} {image} image file: {strerror(number)}",
            path=error.path, layer=error.layer, offset=offset, field=error.field, value=error.value, errno=number,
        )  # fmt: skip


def dd(
    source: Image,
    target: str | os.PathLike[str],
    fmt: str = "raw",
    *,
    block_size: int = 512,
    blocks: int | None = None,
    skip: int = 0,
    source_fmt: str | None = None,
    force_share: bool = False,
    trust: str | None = None,
    secrets: Secrets | None = None,
    label: str | None = None,
    progress: Progress = QUIET,
    warn: Callable[[str], None] | None = None,
) -> bool:
    """Write blocks ``skip`` to ``blocks`` (to the end when None) of the source's disk to a new image ``target``.

    ``block_size``: bytes. As in qemu-img, ``blocks`` counts from the start of the disk, not from ``skip``. Returns
    False when ``skip`` leads past the end of what is to be copied; the new disk is empty then. ``source_fmt`` and the
    rest say how the source is opened.

    Raises UsageError when both are one file, OpenError, OptionError, UnsupportedError, HostError, NoSpaceError.
    """
    from ..block.graph import create_file, creation_table

    name = os.fspath(target)
    from_access: Access = {"fmt": source_fmt, "force_share": force_share, "label": label}
    to_access: Access = {"fmt": fmt, "label": name}
    for access in (from_access, to_access):
        access["trust"], access["secrets"], access["warn"] = trust, secrets, warn
    with Opened(source, from_access) as node:
        try:
            table = creation_table(fmt, name)
        except OptionError as error:
            if error.field == "format":
                raise OptionError("Unknown file format", field="format", value=fmt) from None
            raise
        stop = node.size if blocks is None else min(node.size, blocks * block_size)
        start = skip * block_size
        size = max(0, stop - start)
        _refuse_itself(node, name)
        values = table.parse(None)
        values.put("size", size)
        try:
            create_file(name, fmt, values, secrets=secrets, warn=warn)
        except CowshedError as error:
            error.message = f"{name}: error while creating output image: {error.message}"
            error.args = (error.message,)
            raise
        with Opened(name, to_access, writable=True) as made:
            if size:
                policy = Policy(sparse=0, share=True)
                _BlockCopier([Part(node, 0, size, start)], made, policy, progress=progress).run()
            made.flush()
    return start <= stop


def _refuse_itself(node: Node, target: str) -> None:
    """The new image must not take the place of a file that is being read."""
    below: list[Node] = [node]
    while below:
        item = below.pop()
        below += item.children.values()
        fd = getattr(item, "fd", -1)
        try:
            if fd >= 0 and os.path.samestat(os.fstat(fd), os.stat(target)):
                raise UsageError(f"'{target}' is part of the input and would be destroyed", path=target)
        except (OSError, ValueError):
            continue
