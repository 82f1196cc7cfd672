"""Hives of the Windows registry."""

from __future__ import annotations

import errno
import os

from ....errors import CowshedError, ForeignError
from ....guest.filesystem.base import GuestError
from ..fish import Failed, Fish
from ..table import command
from .read import regular

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import TypeVar

    from ....guest.registry.change import Editor

    T = TypeVar("T")
    Rows = list[list[tuple[str, str | bytes | int]]]


class _Opened:
    """``path`` it came from; ``writable`` as it was asked for."""

    def __init__(self, editor: Editor, path: bytes, writable: bool) -> None:
        self.editor = editor
        self.path = path
        self.writable = writable


def _handle(fish: Fish, name: str) -> _Opened:
    found = fish.facts.get("hive")
    if not isinstance(found, _Opened):
        raise Failed(f"do_{name}: you must call 'hivex-open' first to initialize the hivex handle")
    return found


def _asked(fish: Fish, name: str, what: Callable[[Editor], T], *, write: bool = False) -> T:
    opened = _handle(fish, name)
    if write and not opened.writable:
        raise Failed(f"failed: {os.strerror(errno.EROFS)}")
    try:
        return what(opened.editor)
    except CowshedError as error:
        raise Failed(f"failed: {error}") from error


@command(
    "hivex-open",
    "filename:path [verbose:bool] [debug:bool] [write:bool] [unsafe:bool]",
    help="open a Windows Registry hive file",
)
def hivex_open(
    fish: Fish, filename: bytes, verbose: bool = False, debug: bool = False, write: bool = False, unsafe: bool = False
) -> None:
    from ....guest.registry.file import open_hive

    fish.facts.pop("hive", None)
    regular(fish, filename, "hivex failed to open ")
    shown = filename.decode("utf-8", "surrogateescape")
    try:
        editor = open_hive(fish.session.tree, filename)
    except (ForeignError, GuestError) as error:
        raise Failed(f"hivex failed to open {shown}: {os.strerror(errno.EINVAL)} ({error})") from error
    except CowshedError as error:
        raise Failed(f"hivex failed to open {shown}: {error}") from error
    if write and editor.hive.dirty and not unsafe:
        raise Failed(
            f"hivex failed to open {shown}: Windows did not write it to its end, and would replay its logs over "
            "what is changed here (start Windows once, or say unsafe:true)"
        )
    fish.facts["hive"] = _Opened(editor, filename, write)


@command("hivex-close", help="close the current hivex handle")
def hivex_close(fish: Fish) -> None:
    _handle(fish, "hivex_close")
    del fish.facts["hive"]


@command("hivex-root", "", "int", help="return the root node of the hive")
def hivex_root(fish: Fish) -> int:
    return _asked(fish, "hivex_root", lambda editor: editor.hive.root)


@command("hivex-node-name", "nodeh:int64", "string", help="return the name of the node")
def hivex_node_name(fish: Fish, nodeh: int) -> str:
    return _asked(fish, "hivex_node_name", lambda editor: editor.hive.name(nodeh))


@command("hivex-node-children", "nodeh:int64", "structs", help="return list of nodes which are subkeys of node")
def hivex_node_children(fish: Fish, nodeh: int) -> Rows:
    found = _asked(fish, "hivex_node_children", lambda editor: editor.hive.children(nodeh))
    return [[("hivex_node_h", one)] for one in found]


@command("hivex-node-get-child", "nodeh:int64 name:string", "int", help="return the named child of node")
def hivex_node_get_child(fish: Fish, nodeh: int, name: str) -> int:
    return _asked(fish, "hivex_node_get_child", lambda editor: editor.hive.child(nodeh, name))


@command("hivex-node-parent", "nodeh:int64", "int", help="return the parent of node")
def hivex_node_parent(fish: Fish, nodeh: int) -> int:
    return _asked(fish, "hivex_node_parent", lambda editor: editor.hive.parent(nodeh))


@command("hivex-node-values", "nodeh:int64", "structs", help="return list of values attached to node")
def hivex_node_values(fish: Fish, nodeh: int) -> Rows:
    found = _asked(fish, "hivex_node_values", lambda editor: editor.hive.values(nodeh))
    return [[("hivex_value_h", one)] for one in found]


@command("hivex-node-get-value", "nodeh:int64 key:string", "int", help="return the named value")
def hivex_node_get_value(fish: Fish, nodeh: int, key: str) -> int:
    return _asked(fish, "hivex_node_get_value", lambda editor: editor.hive.find_value(nodeh, key))


@command("hivex-value-key", "valueh:int64", "string", help="return the key field from the (key, datatype, data) tuple")
def hivex_value_key(fish: Fish, valueh: int) -> str:
    return _asked(fish, "hivex_value_key", lambda editor: editor.hive.key(valueh))


@command("hivex-value-type", "valueh:int64", "int", help="return the data type from the (key, datatype, data) tuple")
def hivex_value_type(fish: Fish, valueh: int) -> int:
    return _asked(fish, "hivex_value_type", lambda editor: editor.hive.kind(valueh))


@command(
    "hivex-value-value", "valueh:int64", "buffer", help="return the data field from the (key, datatype, data) tuple"
)
def hivex_value_value(fish: Fish, valueh: int) -> bytes:
    return _asked(fish, "hivex_value_value", lambda editor: editor.hive.data(valueh))


@command("hivex-value-string", "valueh:int64", "string", help="return the data field as a UTF-8 string")
def hivex_value_string(fish: Fish, valueh: int) -> str:
    return _asked(fish, "hivex_value_string", lambda editor: editor.hive.string(valueh))


@command("hivex-value-utf8", "valueh:int64", "string", help="return the data field as a UTF-8 string")
def hivex_value_utf8(fish: Fish, valueh: int) -> str:
    return hivex_value_string(fish, valueh)


@command("hivex-node-add-child", "parent:int64 name:string", "int", help="add a child node")
def hivex_node_add_child(fish: Fish, parent: int, name: str) -> int:
    return _asked(fish, "hivex_node_add_child", lambda editor: editor.add_child(parent, name), write=True)


@command("hivex-node-delete-child", "nodeh:int64", help="delete a node (recursively)")
def hivex_node_delete_child(fish: Fish, nodeh: int) -> None:
    _asked(fish, "hivex_node_delete_child", lambda editor: editor.delete(nodeh), write=True)


@command(
    "hivex-node-set-value", "nodeh:int64 key:string t:int64 val:bytes", help="set or replace a single value in a node"
)
def hivex_node_set_value(fish: Fish, nodeh: int, key: str, t: int, val: bytes) -> None:
    _asked(fish, "hivex_node_set_value", lambda editor: editor.set_value(nodeh, key, t, val), write=True)


@command("hivex-commit", "filename:bytes", help="commit (write) changes back to the hive")
def hivex_commit(fish: Fish, filename: bytes) -> None:
    from ....guest.registry.file import commit

    opened = _handle(fish, "hivex_commit")
    if not opened.writable:
        raise Failed(f"commit failed: {os.strerror(errno.EROFS)}")
    if filename and filename != opened.path:
        fish.check_paths_of("hivex_commit", filename)
    commit(fish.session, opened.editor, opened.path, filename or opened.path)
