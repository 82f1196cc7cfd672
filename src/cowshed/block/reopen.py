"""Another access mode for an open image: the base of ``commit`` is read first and written later."""

from __future__ import annotations

from ..errors import UnsupportedError, UsageError
from .locking import ROLE_DATA, image_locks
from .opening import OpenContext, OpenFlags, Opening
from .registry import load

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .node import Node


def reopen(node: Node, *, writable: bool, parent: Node | None = None, resize: bool = False) -> Node:
    """``node`` again with another access mode, without a moment in which its files are unlocked.

    For the base of ``commit``, which is opened as a backing file and then written. The old node is spent: use the one
    returned, which has taken over its children (the backing chain stays as it is), and has its place below
    ``parent``. ``resize``: a raw disk may change its size. Raises HostError, LockError and what the driver's open
    raises; the old node is then in force.
    """
    opening = node.opening
    if opening is None:
        raise UsageError("this node was not opened by name", path=node.filename)
    flags = opening.flags.derive(writable=writable, resize=resize)
    if not node.read_only:
        node.flush()
    moved: list[tuple[Node, int]] = []
    try:
        for name, child in node.children.items():
            if name != "backing":
                role = opening.role if name == "file" else ROLE_DATA
                _change_access(child, writable, role, flags)
                moved.append((child, role))
        if not node.children:
            _change_access(node, writable, opening.role, flags)
            opening.flags = flags
            return node
        context = OpenContext(flags, opening.driver, {}, opening.probed, reuse=node.children)
        fresh: Node = load(opening.driver.open)(node.file, dict(opening.options), context)
    except BaseException:
        for child, role in moved:
            _change_access(child, not writable, role, opening.flags)
        raise
    for name in ("filename", "options", "backing_overridden", "backing_name", "backing_format"):
        setattr(fresh, name, getattr(node, name))
    fresh.opening = Opening(opening.driver, flags, opening.options, opening.role, opening.probed)
    fresh.opening.backing = opening.backing
    for name, child in node.children.items():
        fresh.children.setdefault(name, child)
    node.closed = True
    if parent is not None:
        for name, child in parent.children.items():
            if child is node:
                parent.children[name] = fresh
    return fresh


def _change_access(node: Node, writable: bool, role: int, flags: OpenFlags) -> None:
    """Reopen the files below a child with another access mode, locks first."""
    chain = [node]
    while node.is_format or node.is_filter:
        node = node.children["file"]
        chain.append(node)
    change = getattr(node, "reopen", None)
    if change is None:
        raise UnsupportedError(
            f"The {node.driver} driver does not support changing the access mode", path=node.filename
        )
    perm, shared = image_locks(
        role, write=writable, resize=flags.resize, exclusive=flags.exclusive, no_io=flags.no_io
    )
    change(writable, perm, shared)
    for above in chain:
        above.read_only = not writable
