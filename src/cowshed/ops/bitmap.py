"""Persistent dirty bitmaps of an image: added, removed, cleared, switched, merged."""

from __future__ import annotations

from ..errors import CowshedError, UnsupportedError, UsageError
from .access import Opened

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Unpack

    from ..block.facts import Bitmap
    from ..block.node import Node
    from .access import Access, Image

ACTIONS = ("add", "remove", "clear", "enable", "disable", "merge")


def bitmap_list(image: Image, **access: Unpack[Access]) -> list[Bitmap]:
    """The persistent bitmaps of ``image``, in the order in which the image has them."""
    with Opened(image, access, backing=False, no_io=True) as node:
        return node.bitmaps()


def bitmap(
    image: Image,
    name: str,
    actions: Iterable[str | tuple[str, str]],
    *,
    granularity: int | None = None,
    source: Image | None = None,
    source_fmt: str | None = None,
    **access: Unpack[Access],
) -> None:
    """Do ``actions`` with the bitmap ``name`` of ``image``, in the order given.

    ``image``: a name to open (see graph.open_image; its backing file is left alone) or an open writable node. An
    action is one of ``add``, ``remove``, ``clear``, ``enable``, ``disable``, or ``("merge", BITMAP)``, which adds the
    dirty bits of another bitmap of the image, or of the image ``source`` when given. ``granularity``: bytes a bit for
    ``add``; None: the format's choice.

    The first action that fails ends it, what was done before stays. Raises OpenError, UsageError, UnsupportedError,
    CowshedError: the message then begins ``Operation ACTION on bitmap NAME failed``.
    """
    steps = [(step, "") if isinstance(step, str) else step for step in actions]
    for action, _ in steps:
        if action not in ACTIONS:
            raise UsageError(f"there is no bitmap action '{action}'", field="action", value=action, limit=ACTIONS)
    with Opened(image, access, writable=True, backing=False) as node:
        if source is None:
            _perform(node, node, name, steps, granularity)
        else:
            there: Access = {**access, "fmt": source_fmt, "open_options": None, "label": None}
            with Opened(source, there, backing=False) as other:
                _perform(node, other, name, steps, granularity)


def _perform(node: Node, other: Node, name: str, steps: list[tuple[str, str]], granularity: int | None) -> None:
    for action, argument in steps:
        try:
            if action == "add":
                node.bitmap_add(name, granularity or None)
            elif action == "merge":
                node.bitmap_merge(name, other, argument)
            else:
                getattr(node, f"bitmap_{action}")(name)
        except CowshedError as error:
            if isinstance(error, UnsupportedError) and not node.supports_bitmaps:
                error.message = _without_bitmaps(node, name, action, error)
            error.message = f"Operation {action} on bitmap {name} failed: {error.message}"
            error.args = (error.message,)
            raise


def _without_bitmaps(node: Node, name: str, action: str, error: CowshedError) -> str:
    """Why an action failed with an image that can have no bitmaps."""
    if action != "add":
        return f"Dirty bitmap '{name}' not found"
    if "persistent" in error.message:
        return error.message
    # the tool names the node, which has no name but a number
    return f"Can't store persistent bitmaps to #block001: {error.message}"
