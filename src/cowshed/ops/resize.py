"""A disk of another size."""

from __future__ import annotations

from ..errors import UnsupportedError, UsageError
from ..progress import QUIET
from .access import Opened

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Literal, Unpack

    from ..progress import Progress
    from .access import Access, Image

_LIMIT = 1 << 63


class ShrinkError(UsageError):
    """The disk would become smaller, and nobody said that it may; ``detail`` has the sizes, ``hint`` the danger."""


def resize(
    image: Image,
    size: int | str,
    *,
    relative: int = 0,
    shrink: bool = False,
    preallocation: Literal["off", "metadata", "falloc", "full"] = "off",
    progress: Progress = QUIET,
    **access: Unpack[Access],
) -> int:
    """Give ``image``, a name to open (see graph.open_image) or an open node, another size; the new size in bytes.

    ``size``: bytes, or text with a suffix; a text that begins with ``+`` or ``-`` is a change of the present size,
    as are bytes with ``relative`` 1 or -1. ``shrink``: agree that what lies beyond a smaller size is lost.
    ``preallocation``: what is done about the space that is added (see the format's creation options), of
    which ``progress`` tells.

    Raises OpenError, UsageError for a size that is none, ShrinkError, UnsupportedError, NoSpaceError.
    """
    if isinstance(size, str):
        from ..block.options import parse_size_option

        if size[:1] in ("+", "-"):
            relative = 1 if size[0] == "+" else -1
            size = size[1:]
        size = parse_size_option("size", size)
    with Opened(image, access, writable=True, resize=True) as node:
        current = (node.size + 511) // 512 * 512
        total = current + relative * size if relative else size
        if not 0 < total < _LIMIT:
            raise UsageError("New image size must be positive", path=node.filename, field="size", value=total)
        if preallocation != "off" and total <= current:
            raise UsageError("Preallocation can only be used for growing images", path=node.filename, value=total)
        if total < current and not shrink:
            raise ShrinkError(
                "Use the --shrink option to perform a shrink operation.",
                path=node.filename,
                field="size",
                value=total,
                limit=f"at least {current}",
                hint="Shrinking an image will delete all data beyond the shrunken image's end. Before performing "
                "such an operation, make sure there is no important data there.",
            )
        if not getattr(node, "resizable", True) and preallocation == "off" and total != current:
            raise UnsupportedError("Cannot resize device files", path=node.filename, layer=node.driver)
        if preallocation != "off":
            progress.start(total - current)
        node.resize(total, preallocation, progress)
        return node.size
