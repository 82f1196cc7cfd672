"""``virsh … --xpath EXPR [--wrap]``: the nodes of a document that an expression finds. Loaded only for these."""

from __future__ import annotations

from copy import deepcopy

from lxml import etree

from ...errors import PoolError
from .writer import LIBXML2_ATTRIBUTE, LIBXML2_TEXT

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


def select(text: str, expression: str, wrap: bool = False) -> tuple[str, str | None]:
    """(what virsh prints, complaint). ``text`` is a document of ours; the context is its root.

    One node after the other, each with a newline behind it, or with ``wrap`` all in one ``<nodes>``. An expression that
    libxml2 does not take finds nothing; ``complaint`` is its text then, for standard error, None otherwise.
    PoolError: the expression answers with something else than nodes.
    """
    parser = etree.XMLParser(
        encoding="utf-8", remove_blank_text=True, resolve_entities=False, load_dtd=False, no_network=True
    )
    root = etree.fromstring(text.encode(), parser)
    found: Any
    complaint = None
    try:
        found = root.xpath(expression)
    except etree.XPathError as error:
        found, complaint = [], _complaint(error)
    if not isinstance(found, list):
        raise PoolError(f"Incorrect xpath '{expression}'", value=expression)
    if expression.strip() in ("/", ".."):
        # the document itself, which lxml does not hand out
        whole = '<?xml version="1.0" encoding="UTF-8"?>\n' + _dump(root) + "\n"
        return (f"<nodes>\n{whole}\n</nodes>\n" if wrap else whole + "\n"), complaint
    nodes = [node for node in found if not isinstance(node, tuple)]
    if wrap:
        return _dump(_wrapped(nodes)) + "\n", complaint
    return "".join(_shown(node) + "\n" for node in nodes), complaint


def _complaint(error: etree.XPathError) -> str:
    """What libxml2 prints of a bad expression."""
    log: Any = getattr(error, "error_log", None)
    lines = [f"XPath error : {error}"]
    for entry in log or ():
        if "not found" in entry.message:
            lines.insert(0, entry.message.rstrip())
    return "\n".join(lines) + "\n"


def _dump(element: Any) -> str:
    text: str = etree.tostring(element, pretty_print=True, encoding="unicode", with_tail=False)
    return text.rstrip("\n")


def _name(node: Any) -> str:
    name: str = node.attrname
    return name


def _attribute(node: Any) -> tuple[str, str]:
    """An attribute's name as it is written, and its value escaped."""
    space, brace, name = node.attrname.rpartition("}")
    if brace:
        parent = node.getparent()
        prefix = next((known for known, uri in parent.nsmap.items() if uri == space[1:] and known), None)
        name = f"{prefix}:{name}" if prefix else name
    return name, str(node).translate(LIBXML2_ATTRIBUTE)


def _is_attribute(node: Any) -> bool:
    return getattr(node, "is_attribute", False) is True


def _shown(node: Any) -> str:
    if not isinstance(node, str):
        return _dump(node)
    if _is_attribute(node):
        name, value = _attribute(node)
        return f' {name}="{value}"'
    return str(node).translate(LIBXML2_TEXT)


def _wrapped(nodes: list[Any]) -> Any:
    whole: Any = etree.Element("nodes")
    last: Any = None
    node: Any
    for node in nodes:
        if not isinstance(node, str):
            last = deepcopy(node)
            last.tail = None
            whole.append(last)
        elif _is_attribute(node):
            # of attributes with one name the last one stays, in its own place
            name = _name(node)
            whole.attrib.pop(name, None)
            whole.set(name, str(node))
        elif last is not None:
            last.tail = (last.tail or "") + str(node)
        else:
            whole.text = (whole.text or "") + str(node)
    return whole
