"""Image names: plain paths, ``proto:rest``, ``json:{…}``, option texts; how they combine and how they are shown.

Options that describe a tree of nodes are kept flat here, as dotted names: ``{"file.filename": "a.qcow2"}``.
"""

from __future__ import annotations

import os

from ..errors import OptionError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from .node import Node

    Options = dict[str, Any]


def protocol_prefix(name: str) -> str | None:
    """The word before the first ":" when no "/" comes before it; None for a plain path."""
    for at, char in enumerate(name):
        if char == ":":
            return name[:at]
        if char == "/":
            return None
    return None


def is_device(name: str) -> bool:
    """Does the host know ``name`` as a character or block device? (Its first 2 KiB don't tell its protocol.)"""
    try:
        mode = os.stat(name).st_mode
    except (OSError, ValueError):
        return False
    return mode & 0o170000 in (0o020000, 0o060000)


def local_path(name: str, prefix: str = "file") -> str:
    """``name`` without its protocol prefix; what is left is never taken for another prefix."""
    start = prefix + ":"
    if not name.startswith(start):
        return name
    rest = name[len(start) :]
    return f"./{rest}" if protocol_prefix(rest) is not None else rest


def combine(base: str, name: str) -> str:
    """``name`` as seen from the directory of ``base``. Absolute names and names with a protocol stand alone."""
    if not name or name.startswith("/") or protocol_prefix(name) is not None:
        return name
    prefix = protocol_prefix(base)
    start = len(prefix) + 1 if prefix is not None else 0
    return base[: max(base.rfind("/") + 1, start)] + name


# -- options ------------------------------------------------------------------------------------------------------


def flatten(options: Mapping[str, Any]) -> Options:
    """Nested options as dotted names. Nested members win over dotted ones of the same name."""
    flat: Options = {}
    nested: Options = {}
    for name, value in options.items():
        if isinstance(value, (dict, list, tuple)) and value:
            _flatten(name, value, nested)
        else:
            flat[name] = value
    flat.update(nested)
    return flat


def _flatten(name: str, value: Any, into: Options) -> None:
    todo = [(name, value)]
    while todo:  # nesting may go deep
        name, value = todo.pop()
        if isinstance(value, dict) and value:
            todo += [(f"{name}.{key}", inner) for key, inner in reversed(value.items())]
        elif isinstance(value, (list, tuple)) and value:
            todo += [(f"{name}.{index}", value[index]) for index in range(len(value) - 1, -1, -1)]
        else:
            into[name] = value


def take(options: Options, prefix: str) -> Options:
    """Remove the options below ``prefix`` ("file.") and return them without it."""
    below = {name[len(prefix) :]: options.pop(name) for name in list(options) if name.startswith(prefix)}
    return below


def first_name(options: Options) -> str:
    """The option that a message names when several are wrong: the first in qemu's order."""
    if len(options) == 1:
        return next(iter(options))
    from ..wire.qdict import ordered

    return ordered(options)[0][0]


def parse_json_name(name: str) -> Options:
    """The flat options of a ``json:{…}`` name. Raises OptionError."""
    from .jsontext import parse_json

    try:
        value = parse_json(name[len("json:") :])
    except OptionError as error:
        raise OptionError(f"Could not parse the JSON options: {error}", path=name) from None
    if not isinstance(value, dict):
        raise OptionError("Invalid JSON object given", path=name)
    return flatten(value)


class ImageOptions(dict[str, "Any"]):
    """The flat options of an ``--image-opts`` text. ``warnings``: what is to be said when they are used."""

    __slots__ = ("text", "warnings")

    def __init__(self, text: str) -> None:
        super().__init__()
        self.text = text
        self.warnings: list[str] = []


def parse_image_opts(text: str) -> ImageOptions:
    """The options of an ``--image-opts`` text, to open an image by; a first value without a name is ``file``.

    Raises OptionError.
    """
    from .options import items

    options = ImageOptions(text)
    for at, (name, value, alone) in enumerate(items(text, "file")):
        if alone is not None:
            options.warnings.append(
                f"short-form boolean option '{alone}' deprecated\nPlease use {name}={value} instead"
            )
        if name == "id" and at == 0 and not _is_identifier(value):
            raise OptionError(
                "Parameter 'id' expects an identifier",
                field="id",
                value=value,
                hint="Identifiers consist of letters, digits, '-', '.', '_', starting with a letter.",
            )
        options[name] = value
    return options


def _is_identifier(text: str) -> bool:
    return (
        text[:1].isascii()
        and text[:1].isalpha()
        and all(char.isascii() and (char.isalnum() or char in "-._") for char in text)
    )


def check_node_name(name: str, taken: set[str]) -> None:
    """Raises OptionError when ``name`` is not valid or taken; else takes it."""
    if not _is_identifier(name):
        raise OptionError(f"Invalid node-name: '{name}'", field="node-name", value=name)
    if len(name) > 31:
        raise OptionError("Node name too long", field="node-name", value=name, limit=31)
    if name in taken:
        raise OptionError(f"Duplicate nodes with node-name='{name}'", field="node-name", value=name)
    taken.add(name)


# -- what a node is called ----------------------------------------------------------------------------------------


def path_of(node: Node) -> str | None:
    """The path or address of the protocol node below ``node``, None where there is none."""
    below: Node | None = node
    while below is not None and (below.is_format or below.is_filter):
        below = below.children.get("file")
    return below.filename if below is not None else None


def describe(node: Node) -> Options:
    """The nested options that would open ``node`` again."""
    described: Options = {"driver": node.driver}
    described.update(node.options)
    for role, child in node.children.items():
        if role != "backing":
            described[role] = describe(child)
    if node.backing_overridden:
        described["backing"] = None if node.backing is None else describe(node.backing)
    if not node.is_format and not node.is_filter:
        described["filename"] = node.filename
    return described


def reported_name(node: Node) -> str:
    """The name by which ``node`` is known: a path where that says all, else ``json:{…}``."""
    if not node.is_format and not node.is_filter:
        return node.filename
    file = node.children.get("file")
    plain = (
        file is not None
        and not file.is_format
        and not file.is_filter
        and not node.options
        and not node.backing_overridden
    )
    if plain and file is not None:
        return file.filename
    from ..wire.qdict import compact

    return "json:" + compact(describe(node))
