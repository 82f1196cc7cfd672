"""Elements → XML text, laid out and escaped as libvirt does it (or libxml2, where virsh shows libxml2's)."""

from __future__ import annotations

from .definition import Element

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from .definition import Extra

    Attributes = Iterable[tuple[str, str | int | None]]

# XML 1.0 has no way to write these: they are left out, as libvirt does.
_UNWRITABLE = {code: None for code in range(32) if code not in (9, 10, 13)}
_MARKUP = {ord("<"): "&lt;", ord(">"): "&gt;", ord("&"): "&amp;"}
# A carriage return, or white space in an attribute, that is written as it is comes back as something else.
_TEXT = {**_UNWRITABLE, **_MARKUP, 13: "&#13;", ord('"'): "&quot;", ord("'"): "&apos;"}
_ATTRIBUTE = {**_TEXT, 9: "&#9;", 10: "&#10;"}
LIBXML2_TEXT = {**_UNWRITABLE, **_MARKUP, 13: "&#13;"}
LIBXML2_ATTRIBUTE = {**LIBXML2_TEXT, 9: "&#9;", 10: "&#10;", ord('"'): "&quot;"}


class Writer:
    """Writes a document line by line, two spaces a level; what ``extra`` keeps for an element ends that element.

    A path in ``extra`` is made of the names below the root, with ``[n]`` for the n-th (n > 1) of its name. An Element
    whose name begins with ``@`` is an attribute of the element at that path, its ``text`` the value.
    """

    __slots__ = ("_attribute", "_counts", "_depth", "_extra", "_lines", "_names", "_paths", "_quote", "_text")

    def __init__(self, extra: Extra | None = None, libxml2: bool = False, depth: int = 0) -> None:
        self._quote = '"' if libxml2 else "'"
        self._text = LIBXML2_TEXT if libxml2 else _TEXT
        self._attribute = LIBXML2_ATTRIBUTE if libxml2 else _ATTRIBUTE
        self._lines: list[str] = []
        self._names: list[str] = []
        self._depth = depth
        self._extra: dict[str, list[Element]] = {}
        for path, element in extra or ():
            self._extra.setdefault(path, []).append(element)
        self._paths: list[str] = []
        self._counts: list[dict[str, int]] = []

    def wanted(self, path: str) -> bool:
        """Is something kept for that element, or for one below it? Then it is written even if it says nothing."""
        return any(kept == path or kept.startswith(path + "/") for kept in self._extra)

    def open(self, name: str, attributes: Attributes = ()) -> None:
        """Begin an element that has children. Attributes whose value is None are left out."""
        path = self._enter(name)
        self._lines.append(f"{'  ' * self._depth}<{name}{self._attributes(attributes, path)}>")
        self._names.append(name)
        self._depth += 1
        self._paths.append(path)
        self._counts.append({})

    def close(self) -> None:
        for element in self._extra.get(self._paths[-1], ()):
            if not element.name.startswith("@"):
                self.element(element)
        self._paths.pop()
        self._counts.pop()
        name = self._names.pop()
        self._depth -= 1
        self._lines.append(f"{'  ' * self._depth}</{name}>")

    def leaf(self, name: str, text: str | int | None = None, attributes: Attributes = ()) -> None:
        """An element with text alone, or ``<name/>`` when that is None; nested, if something is kept for it."""
        path = self._enter(name)
        kept = [element for element in self._extra.get(path, ()) if not element.name.startswith("@")]
        head = f"{'  ' * self._depth}<{name}{self._attributes(attributes, path)}"
        if kept and text is None:
            self._lines.append(head + ">")
            self._depth += 1
            for element in kept:
                self.element(element)
            self._depth -= 1
            self._lines.append(f"{'  ' * self._depth}</{name}>")
        elif text is None:
            self._lines.append(head + "/>")
        else:
            self._lines.append(f"{head}>{str(text).translate(self._text)}</{name}>")

    def element(self, element: Element) -> None:
        """An element and all below it, as it is."""
        indent = "  " * self._depth
        head = f"{indent}<{element.name}{self._attributes(element.attributes.items(), None)}"
        if element.children:
            self._lines.append(head + ">")
            self._depth += 1
            for child in element.children:
                self.element(child)
            self._depth -= 1
            self._lines.append(f"{indent}</{element.name}>")
        elif element.text:
            self._lines.append(f"{head}>{element.text.translate(self._text)}</{element.name}>")
        else:
            self._lines.append(head + "/>")

    def text(self) -> str:
        """The document so far; every line ends with a newline."""
        return "\n".join(self._lines) + "\n"

    def _enter(self, name: str) -> str:
        if not self._paths:
            return ""
        count = self._counts[-1][name] = self._counts[-1].get(name, 0) + 1
        step = name if count == 1 else f"{name}[{count}]"
        return f"{self._paths[-1]}/{step}" if self._paths[-1] else step

    def _attributes(self, attributes: Attributes, path: str | None) -> str:
        quote, table = self._quote, self._attribute
        text = "".join(
            f" {name}={quote}{str(value).translate(table)}{quote}" for name, value in attributes if value is not None
        )
        if path is not None and self._extra:
            for kept in self._extra.get(path, ()):
                if kept.name.startswith("@"):
                    text += f" {kept.name[1:]}={quote}{kept.text.translate(table)}{quote}"
        return text


def serialize(element: Element, libxml2: bool = False) -> str:
    """One element and all below it as a document."""
    writer = Writer(libxml2=libxml2)
    writer.element(element)
    return writer.text()
