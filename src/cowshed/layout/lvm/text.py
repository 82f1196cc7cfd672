"""The text that LVM2 keeps its metadata in: ``name { … }`` sections, ``name = value`` and comments.

Values are integers, floating point numbers, strings in double or single quotes, and lists ``[ … ]`` of these. The same
grammar serves lvm.conf and backups of metadata.
"""

from __future__ import annotations

import re

from ...errors import CorruptError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import TypeAlias

    Scalar: TypeAlias = int | float | str
    Value: TypeAlias = "Scalar | list[Scalar] | Section"

#: sections within sections; LVM2 itself needs four
MAX_DEPTH = 16
#: bytes of one text; lvm2's own limit is the size of the metadata area, 1 MiB by default
MAX_TEXT = 32 << 20

_TOKEN = re.compile(
    r"""(?:\s++|\#[^\n]*+)*+(?:
        (?P<string>"(?:[^"\\]++|\\.)*+") |
        (?P<raw>'[^']*+') |
        (?P<mark>[{}\[\],=]) |
        (?P<word>[^\s{}\[\],="'\#]+)
    )""",
    re.VERBOSE | re.DOTALL,
)
_BLANK = re.compile(r"(?:\s++|#[^\n]*+)*+")
_INTEGER = re.compile(r"[+-]?\d{1,20}")
_FLOAT = re.compile(r"[+-]?(\d+\.\d*|\.\d+)")
_ESCAPE = re.compile(r"\\(.)", re.DOTALL)


class Section(dict[str, "Value"]):
    """One ``{ … }``: values and sections by name, in the text's order; getters check kinds.

    ``name``: for messages. All getters raise CorruptError.
    """

    __slots__ = ("name",)

    def __init__(self, name: str) -> None:
        super().__init__()
        self.name = name

    def wrong(self, key: str, value: object, wanted: str) -> CorruptError:
        return CorruptError(
            f"LVM2 metadata: '{key}' in '{self.name}' is not {wanted}", layer="lvm2", field=key, value=value
        )

    def integer(self, key: str, default: int | None = None, *, least: int = 0, most: int = (1 << 63) - 1) -> int:
        """A number between ``least`` and ``most``."""
        value = self.get(key, default)
        if not isinstance(value, int):
            raise self.wrong(key, value, "a number")
        if not least <= value <= most:
            raise self.wrong(key, value, f"between {least} and {most}")
        return value

    def string(self, key: str, default: str | None = None) -> str:
        value = self.get(key, default)
        if not isinstance(value, str):
            raise self.wrong(key, value, "a string")
        return value

    def strings(self, key: str) -> list[str]:
        """A list of strings; one that is not there is empty."""
        value = self.get(key, [])
        if isinstance(value, str):
            return [value]
        if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
            raise self.wrong(key, value, "a list of strings")
        return [item for item in value if isinstance(item, str)]

    def values_of(self, key: str) -> list[Scalar]:
        value = self.get(key)
        if not isinstance(value, list):
            raise self.wrong(key, value, "a list")
        return value

    def section(self, key: str) -> Section:
        """The section ``key``; one that is not there is empty."""
        value = self.get(key)
        if value is None:
            return Section(f"{self.name}/{key}")
        if not isinstance(value, Section):
            raise self.wrong(key, value, "a section")
        return value

    def sections(self) -> list[tuple[str, Section]]:
        return [(key, value) for key, value in self.items() if isinstance(value, Section)]


def parse(text: str) -> Section:
    """The whole text as one nameless section. Raises CorruptError with the offset at which it stops making sense."""
    if len(text) > MAX_TEXT:
        raise CorruptError("LVM2 metadata: the text is too long", layer="lvm2", value=len(text), limit=MAX_TEXT)
    return _Parser(text).parse()


class _Parser:
    __slots__ = ("at", "kind", "text", "token")

    def __init__(self, text: str) -> None:
        self.text = text
        self.at = 0
        self.kind = ""
        self.token = ""

    def _fail(self, why: str) -> CorruptError:
        return CorruptError(f"LVM2 metadata: {why} at offset {self.at} of the text", layer="lvm2", offset=self.at)

    def _next(self) -> bool:
        match = _TOKEN.match(self.text, self.at)
        if match is None:
            rest = _BLANK.match(self.text, self.at)
            if rest is not None and rest.end() == len(self.text):
                self.kind, self.token = "", ""
                return False
            raise self._fail("unreadable characters")
        self.at = match.end()
        self.kind = str(match.lastgroup)
        self.token = match[self.kind]
        return True

    def _expect(self, mark: str) -> None:
        if not self._next() or self.kind != "mark" or self.token != mark:
            raise self._fail(f"'{mark}' expected")

    def parse(self) -> Section:
        root = Section("")
        stack = [root]
        while True:
            if not self._next():
                if len(stack) > 1:
                    raise self._fail("a section does not end")
                return root
            if self.kind == "mark" and self.token == "}":
                stack.pop()
                if not stack:
                    raise self._fail("a section ends that has not begun")
                continue
            if self.kind == "mark":
                raise self._fail("a name expected")
            key = self._unquoted()
            here = stack[-1]
            if key in here:
                raise self._fail(f"'{key[:128]}' stands twice")
            if not self._next() or self.kind != "mark" or self.token not in "{=":
                raise self._fail("'=' or '{' expected")
            if self.token == "=":
                here[key] = self._value()
                continue
            if len(stack) > MAX_DEPTH:
                raise self._fail("sections are nested too deep")
            inner = Section(f"{here.name}/{key}" if here.name else key)
            here[key] = inner
            stack.append(inner)

    def _unquoted(self) -> str:
        if self.kind == "string":
            return _ESCAPE.sub(r"\1", self.token[1:-1])
        return self.token[1:-1] if self.kind == "raw" else self.token

    def _value(self) -> Scalar | list[Scalar]:
        if not self._next():
            raise self._fail("a value expected")
        if self.kind != "mark":
            return self._scalar()
        if self.token != "[":
            raise self._fail("a value expected")
        items: list[Scalar] = []
        while True:
            if not self._next():
                raise self._fail("a list does not end")
            if self.kind == "mark":
                if self.token == "]":
                    return items
                raise self._fail("a list's item expected")
            items.append(self._scalar())
            if not self._next() or self.kind != "mark" or self.token not in ",]":
                raise self._fail("',' or ']' expected")
            if self.token == "]":
                return items

    def _scalar(self) -> Scalar:
        if self.kind != "word":
            return self._unquoted()
        if _INTEGER.fullmatch(self.token):
            return int(self.token)
        if _FLOAT.fullmatch(self.token):
            return float(self.token)
        return self.token
