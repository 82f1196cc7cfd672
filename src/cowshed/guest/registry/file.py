"""Hives as files of a guest: opened, and written as a whole or not at all."""

from __future__ import annotations

from .change import Editor
from .hive import Hive

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from ..session import Session
    from ..tree import Tree

#: hives up to here are written beside the old one, which is then replaced; larger ones in their place
_WHOLE = 256 << 20


def _reader(tree: Tree, path: bytes) -> tuple[Callable[[int, int], bytes], int]:
    place = tree.regular(path)
    fs, ino = place.mount.fs, place.number
    return lambda offset, length: fs.read(ino, offset, length), place.stat().size


def open_hive(tree: Tree, path: bytes) -> Editor:
    """The hive in a file of the guest. Raises ForeignError, CorruptError, GuestError."""
    return Editor(Hive(*_reader(tree, path)))


def commit(session: Session, editor: Editor, own: bytes, path: bytes) -> None:
    """Write a hive that came from ``own`` to ``path``; another file's than its own leaves that as it is.

    Its own file is replaced by a whole one, so that a cut leaves the old hive or the new.
    """
    tree = session.tree
    if path != own:
        editor.seal()
        tree.write(path, editor.hive.store.pieces())
        return
    if not editor.changed:
        return
    editor.seal()
    store = editor.hive.store
    if store.size <= _WHOLE:
        session.replace(path, b"".join(store.pieces()))
    else:
        # the base block comes last: it says where the hive ends
        for offset, data in store.changes():
            tree.write_at(path, offset, data)
    editor.written(_reader(tree, path)[0])
