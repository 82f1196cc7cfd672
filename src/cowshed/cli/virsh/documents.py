"""XML that commands read from files, and that they make of their options."""

from __future__ import annotations

import os

from .parse import Call, Failed

#: no document of libvirt's is longer; a file that is longer is none
LONGEST = 10 << 20

_SCHEMAS = "/usr/share/libvirt/schemas"


def read_document(call: Call, option: str = "file") -> str:
    """The text of the file that an option names. Raises Failed."""
    path = call.need(option)
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        raise Failed(f"Failed to open file '{path}': {error.strerror}") from error
    parts = []
    left = LONGEST + 1
    try:
        while left > 0 and (data := os.read(fd, min(left, 1 << 20))):
            parts.append(data)
            left -= len(data)
        if left <= 0:
            raise OSError(75, os.strerror(75))
    except OSError as error:
        raise Failed(f"Failed to read file '{path}': {error.strerror}") from error
    finally:
        os.close(fd)
    return b"".join(parts).decode("utf-8", "surrogateescape")


def validate(text: str, kind: str) -> None:
    """Hold a document against libvirt's schema, ``kind`` being storagepool, storagevol or secret. Raises SchemaError
    when it does not fit, or when the schemas are not installed; what is no XML is left to the reader to complain of."""
    from lxml import etree

    from ...errors import SchemaError

    path = os.path.join(os.environ.get("COWSHED_SCHEMAS", _SCHEMAS), f"{kind}.rng")
    if not os.path.exists(path):
        raise SchemaError(f"Unable to validate doc against {path}\nno such file", hint="libvirt's schemas are needed")
    parser = etree.XMLParser(resolve_entities=False, load_dtd=False, no_network=True)
    try:
        document = etree.fromstring(text.encode("utf-8", "surrogateescape"), parser)
    except etree.XMLSyntaxError:
        return
    schema = etree.RelaxNG(etree.parse(path))
    if not schema.validate(document):
        lines = "\n".join(entry.message for entry in schema.error_log)
        raise SchemaError(f"Unable to validate doc against {path}\n{lines}\n")


class Markup:
    """Lines of XML, indented by two blanks; values are escaped."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self._open: list[str] = []

    def __str__(self) -> str:
        return "".join(line + "\n" for line in self.lines)

    def open(self, name: str, /, **attributes: str | None) -> Markup:
        self._line(f"<{name}{_attributes(attributes)}>")
        self._open.append(name)
        return self

    def close(self) -> None:
        name = self._open.pop()
        self._line(f"</{name}>")

    def empty(self, name: str, /, **attributes: str | None) -> None:
        self._line(f"<{name}{_attributes(attributes)}/>")

    def leaf(self, name: str, text: str) -> None:
        self._line(f"<{name}>{_text(text)}</{name}>")

    def _line(self, text: str) -> None:
        self.lines.append("  " * len(self._open) + text)


def _attributes(attributes: dict[str, str | None]) -> str:
    return "".join(f" {name}='{_text(value)}'" for name, value in attributes.items() if value is not None)


def _text(text: str) -> str:
    from .shell import escape

    return escape(text)
