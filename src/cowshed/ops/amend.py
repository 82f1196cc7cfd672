"""Other options for an image that exists."""

from __future__ import annotations

from ..errors import OptionError, UnsupportedError
from ..progress import QUIET
from .access import Opened

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Unpack

    from ..block.node import Node
    from ..block.options import OptionTable, OptionValues
    from ..progress import Progress
    from .access import Access, Image


def amend(
    image: Image,
    options: Mapping[str, object] | str,
    *,
    force: bool = False,
    progress: Progress = QUIET,
    **access: Unpack[Access],
) -> None:
    """Change ``options`` (a mapping, or the text that ``-o`` takes) of ``image``.

    ``image``: a name to open (see graph.open_image) or an open writable node. ``force``: allow what may make the
    image unreadable (the last key of an encrypted one).

    Raises OpenError; UnsupportedError for formats whose images can't be changed; OptionError for an option that is
    unknown, can only be given at creation, or has a value that this image can't have.
    """
    with Opened(image, access, writable=True, resize=True) as node:
        node.amend(dict(amendment(node, options)), force=force, progress=progress)
        progress.finish()


def amendment(node: Node, options: Mapping[str, object] | str) -> OptionValues:
    """The options read and checked as far as their names and types go. Raises UnsupportedError, OptionError."""
    table = amendment_table(node)
    try:
        return table.parse(options)
    except OptionError as error:
        if _fit_for_creation(node, table, options):
            error.hint = "This option is only supported for image creation"
        raise


def amendment_table(node: Node) -> OptionTable:
    """What can be amended in images of this format. Raises UnsupportedError."""
    table = node.opening.driver.table("amend") if node.opening is not None else None
    if table is None:
        raise UnsupportedError(
            f"Format driver '{node.driver}' does not support option amendment", path=node.filename, layer=node.driver
        )
    return table


def _fit_for_creation(node: Node, table: OptionTable, options: Mapping[str, object] | str) -> bool:
    """Would all the options do for a new image?"""
    creation = node.opening.driver.table("options") if node.opening is not None else None
    if creation is None:
        return False
    try:
        table.merged(creation).parse(options)
    except OptionError:
        return False
    return True
