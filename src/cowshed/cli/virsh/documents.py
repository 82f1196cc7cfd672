"""XML that commands read from files, and that they make of their options."""

from __future__ import annotations

import os

from .parse import Call, Failed

#: no document of libvirt's is longer; a file that is longer is none
LONGEST = 10 << 20


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
        self._line(f"<{name}>{escape(text)}</{name}>")

    def _line(self, text: str) -> None:
        self.lines.append("  " * len(self._open) + text)


def _attributes(attributes: dict[str, str | None]) -> str:
    return "".join(f" {name}='{escape(value)}'" for name, value in attributes.items() if value is not None)


def escape(text: str) -> str:
    """For XML, in an attribute or between tags."""
    for char, entity in (("&", "&amp;"), ("<", "&lt;"), (">", "&gt;"), ("'", "&apos;"), ('"', "&quot;")):
        text = text.replace(char, entity)
    return text
