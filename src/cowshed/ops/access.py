"""How every operation gets its image: a name that it opens and closes itself, or a node that the caller has open."""

from __future__ import annotations

from ..block.graph import open_image
from ..block.node import Node
from ..errors import CowshedError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Any, TypedDict

    from ..block.graph import Ref
    from ..block.secret import Secrets

    Image = Ref | Node

    class Access(TypedDict, total=False):
        """How an image is opened by name: see graph.open_image, whose ``options`` are ``open_options`` here. Of no
        consequence for a node that is open already."""

        fmt: str | None
        open_options: Mapping[str, Any] | None
        cache: str
        force_share: bool
        trust: str | None
        secrets: Secrets | None
        warn: Callable[[str], None] | None
        label: str | None


class Opened:
    """A context manager around an image: opens what is a name, and closes only what it opened."""

    __slots__ = ("node", "own")

    def __init__(self, image: Image, access: Access, **flags: Any) -> None:
        """``flags``: what the operation itself demands of graph.open_image (``writable``, ``backing`` …)."""
        self.own = not isinstance(image, Node)
        if isinstance(image, Node):
            self.node: Node = image
        else:
            given: dict[str, Any] = {**access, **flags}
            if "open_options" in given:
                given["options"] = given.pop("open_options")
            self.node = open_image(image, **given)

    def __enter__(self) -> Node:
        return self.node

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        if not self.own:
            return
        if kind is None:
            self.node.close()
            return
        try:
            self.node.close()
        except CowshedError:
            pass  # the first error is the one to tell
