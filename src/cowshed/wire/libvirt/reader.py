"""XML text → Element: well-formed, small, and without a document type declaration; anything else is refused.

Expat does the reading, because it is in the standard library and starts at once. What libvirt says of a broken document
is libxml2's text, so only a document that is refused is read again by libxml2 (through lxml) for its words.
"""

from __future__ import annotations

from pyexpat import ExpatError, ParserCreate

from ...errors import DefinitionError, DocumentError
from .definition import Element

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NoReturn

#: as many bytes as virsh reads of a file; libvirt's own documents have a few KiB
LARGEST = 10 << 20
#: libxml2's limits of what it takes without being told that the document is huge
DEEPEST = 256
#: a document of ours has some dozens; each costs some hundred bytes of memory
MOST_ELEMENTS = 200_000

POOL = "(storage_pool_definition)"
SOURCE = "(storage_source_specification)"
VOLUME = "(storage_volume_definition)"
SECRET = "(definition_of_secret)"


class _Refused(Exception):
    """Raised inside expat's callbacks; ``str()`` is our own text."""


class _Builder:
    """Expat's callbacks, and the tree that they make."""

    __slots__ = ("count", "pieces", "root", "stack")

    def __init__(self) -> None:
        self.root: Element | None = None
        self.stack: list[Element] = []
        self.pieces: list[list[str]] = []
        self.count = 0

    def start(self, name: str, attributes: dict[str, str]) -> None:
        self.count += 1
        if self.count > MOST_ELEMENTS:
            raise _Refused(f"more than {MOST_ELEMENTS} elements")
        if len(self.stack) >= DEEPEST:
            raise _Refused(f"Excessive depth in document: {DEEPEST}")
        element = Element(name, attributes)
        if self.stack:
            self.stack[-1].children.append(element)
        else:
            self.root = element
        self.stack.append(element)
        self.pieces.append([])

    def end(self, name: str) -> None:
        element = self.stack.pop()
        text = "".join(self.pieces.pop())
        # between children stands only the layout
        element.text = text if not element.children or not text.isspace() else ""

    def data(self, text: str) -> None:
        if self.pieces:
            self.pieces[-1].append(text)

    def declaration(self, version: str, encoding: str | None, standalone: int) -> None:
        if not version.startswith("1."):
            raise _Refused(f"Unsupported version '{version}'")

    def doctype(self, *_: object) -> None:
        raise _Refused("a document type declaration is not allowed")


def parse(text: str | bytes, label: str) -> Element:
    """The root of a document. ``label`` names the kind of document in the error, one of this module's constants.

    A ``str`` was decoded already: what its XML declaration says of an encoding is not looked at. DocumentError: not
    well-formed, not of a known encoding, larger than ``LARGEST``, nested too deeply, or with a document type
    declaration (entities, their bombs, and files of others can't be named without one).
    """
    encoding = None
    if isinstance(text, str):
        encoding = "utf-8"
        if len(text) > LARGEST:
            raise DocumentError(f"{label}: larger than {LARGEST} bytes")
        try:
            data = text.encode("utf-8", "surrogateescape")
        except UnicodeEncodeError:
            data = text.encode("utf-8", "surrogatepass")
    else:
        data = text
    if len(data) > LARGEST:
        raise DocumentError(f"{label}: larger than {LARGEST} bytes")
    nul = data.find(b"\0")
    if nul >= 0:
        _explain(data[:nul], label, encoding, "a NUL byte")
    builder = _Builder()
    parser = ParserCreate(encoding)
    parser.buffer_text = True
    parser.StartElementHandler = builder.start
    parser.EndElementHandler = builder.end
    parser.CharacterDataHandler = builder.data
    parser.XmlDeclHandler = builder.declaration
    parser.StartDoctypeDeclHandler = builder.doctype
    try:
        parser.Parse(data, True)
    except _Refused as error:
        if "type declaration" in str(error):
            raise DocumentError(f"{label}:{parser.CurrentLineNumber}: {error}") from None
        _explain(data, label, encoding, str(error))
    except (ExpatError, LookupError, ValueError) as error:
        _explain(data, label, encoding, str(error))
    assert builder.root is not None
    return builder.root


def parse_root(text: str | bytes, label: str, name: str) -> Element:
    """As ``parse``, for a document whose root must be ``name`` (DefinitionError when it is another)."""
    root = parse(text, label)
    if local_name(root) != name:
        raise DefinitionError(f"expecting root element of '{name}', not '{local_name(root)}'")
    return root


def local_name(root: Element) -> str:
    """A root's name without its prefix, if that is declared."""
    prefix, colon, name = root.name.partition(":")
    return name if colon and f"xmlns:{prefix}" in root.attributes else root.name


def string(element: Element | None, *path: str) -> str | None:
    """XPath's ``string(./a/b/@c)``, as libvirt asks: None for what is absent and for what is empty.

    ``path`` are child names; one that begins with ``@`` is an attribute and comes last.
    """
    for step in path:
        if element is None:
            return None
        if step.startswith("@"):
            return element.attributes.get(step[1:]) or None
        element = element.find(step)
    if element is None:
        return None
    if not element.children:
        return element.text or None
    return "".join(_texts(element)) or None


def _texts(element: Element) -> list[str]:
    found = [element.text]
    for child in element.children:
        found += _texts(child)
    return found


def _explain(data: bytes, label: str, encoding: str | None, own: str) -> NoReturn:
    """Raise the DocumentError of a document that was refused: in libxml2's words when it refuses it too."""
    from .complaint import complaint

    raise DocumentError(complaint(data, label, encoding) or f"{label}: {own}")
