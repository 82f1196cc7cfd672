"""A snapshot inside an image as the thing to read: which one is meant, and a node of it."""

from __future__ import annotations

from ..block.node import Node
from ..errors import CowshedError


class Choice:
    """Which snapshot: ``either``, an id or, when none matches, a name; or ``id`` and ``name``, both to match."""

    __slots__ = ("either", "id", "name")

    def __init__(self, either: str | None = None, id: str | None = None, name: str | None = None) -> None:
        self.either = either
        self.id = id
        self.name = name

    def __bool__(self) -> bool:
        return self.either is not None or self.id is not None or self.name is not None


def view(node: Node, choice: Choice) -> Node:
    """A read-only node of the snapshot; ``node`` must stay open as long.

    Raises CowshedError ``Failed to load snapshot: REASON``.
    """
    if type(node).snapshot_view is Node.snapshot_view:
        raise CowshedError(
            f"Failed to load snapshot: Block format '{node.driver}' used by device '' does not support temporarily "
            "loading internal snapshots",
            path=node.filename, layer=node.driver, errno=95,
        )  # fmt: skip
    try:
        return node.snapshot_view(_find(node, choice))
    except CowshedError as error:
        error.message = f"Failed to load snapshot: {error.message}"
        error.args = (error.message,)
        raise


def _find(node: Node, choice: Choice) -> str:
    """The id of the snapshot that is meant."""
    found = node.snapshots()
    if choice.either is not None:
        for attribute in ("id", "name"):
            for snapshot in found:
                if getattr(snapshot, attribute) == choice.either:
                    return snapshot.id
    else:
        for snapshot in found:
            if choice.id in (None, snapshot.id) and choice.name in (None, snapshot.name):
                return snapshot.id
    raise CowshedError("Can't find snapshot", path=node.filename, layer=node.driver, field="snapshot", errno=2)
