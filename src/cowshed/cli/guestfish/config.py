"""libguestfs-tools.conf: whether disks are opened read-only unless --rw says otherwise.

The files are in libconfig's format: settings ``name = value;`` with scalars, strings, arrays, lists and groups. Only
``read_only`` means something; all else must be well-formed.
"""

from __future__ import annotations

import os

#: no configuration is longer
_LONGEST = 1 << 20
_DEEPEST = 64
_NAME = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_*")


class Malformed(Exception):
    """A configuration that can't be read; the text names the file and the line."""


def files() -> list[str]:
    """The files that count, the most important one last."""
    home = os.environ.get("HOME", "")
    found = ["/etc/libguestfs-tools.conf"]
    for folder in reversed((os.environ.get("XDG_CONFIG_DIRS") or "/etc/xdg").split(":")):
        found.append(os.path.join(folder, "libguestfs/libguestfs-tools.conf"))
    if home:
        found.append(os.path.join(home, ".libguestfs-tools.rc"))
    own = os.environ.get("XDG_CONFIG_HOME") or (os.path.join(home, ".config") if home else "")
    if own:
        found.append(os.path.join(own, "libguestfs/libguestfs-tools.conf"))
    return found


def read_only() -> bool:
    """What the files say; False where none says anything. Raises Malformed."""
    answer = False
    for path in files():
        try:
            with open(path, "rb") as file:
                data = file.read(_LONGEST + 1)
        except OSError:
            continue
        settings = _Parser(path, data[:_LONGEST].decode("utf-8", "surrogateescape")).settings("")
        found = settings.get("read_only")
        if isinstance(found, bool):
            answer = found
    return answer


class _Parser:
    """One file."""

    def __init__(self, path: str, text: str) -> None:
        self.path = path
        self.text = text
        self.at = 0
        self.deep = 0

    def wrong(self, what: str = "syntax error") -> Malformed:
        line = self.text.count("\n", 0, self.at) + 1
        return Malformed(f"{self.path}: line {line}: error parsing configuration file: {what}")

    def peek(self) -> str:
        """The next character that isn't blank or comment, "" at the end."""
        text = self.text
        while self.at < len(text):
            char = text[self.at]
            if char in " \t\r\n\f\v":
                self.at += 1
            elif char == "#" or text.startswith("//", self.at):
                # libconfig wants one that ends
                self.at = text.find("\n", self.at)
                if self.at < 0:
                    self.at = len(text)
                    raise self.wrong()
            elif text.startswith("/*", self.at):
                stop = text.find("*/", self.at + 2)
                self.at = len(text) if stop < 0 else stop + 2
            else:
                return char
        return ""

    def settings(self, end: str) -> dict[str, object]:
        """``name = value`` up to ``end``."""
        found: dict[str, object] = {}
        while True:
            char = self.peek()
            if char == end:
                self.at += len(end)
                return found
            if not char.isascii() or not (char.isalpha() or char == "*"):
                raise self.wrong()
            start = self.at
            while self.at < len(self.text) and self.text[self.at] in _NAME:
                self.at += 1
            name = self.text[start : self.at]
            if self.peek() not in ("=", ":"):
                raise self.wrong()
            self.at += 1
            value = self.value()
            if name in found:
                raise self.wrong("duplicate setting name")
            found[name] = value
            if self.peek() in (";", ","):
                self.at += 1

    def value(self) -> object:
        char = self.peek()
        self.deep += 1
        if not char or self.deep > _DEEPEST:
            raise self.wrong()
        try:
            if char == "{":
                self.at += 1
                return self.settings("}")
            if char in "[(":
                return self.several("]" if char == "[" else ")")
            if char == '"':
                return self.string()
            return self.scalar()
        finally:
            self.deep -= 1

    def several(self, end: str) -> list[object]:
        self.at += 1
        found: list[object] = []
        while self.peek() != end:
            if found:
                if self.peek() != ",":
                    raise self.wrong()
                self.at += 1
            found.append(self.value())
        self.at += 1
        return found

    def string(self) -> str:
        start = self.at
        while self.peek() == '"':
            self.at += 1
            while self.text[self.at : self.at + 1] not in ('"', ""):
                self.at += 2 if self.text[self.at] == "\\" else 1
            if self.at >= len(self.text):
                raise self.wrong()
            self.at += 1
        return self.text[start : self.at]

    def scalar(self) -> object:
        start = self.at
        while self.at < len(self.text) and (self.text[self.at] in _NAME or self.text[self.at] in "+."):
            self.at += 1
        word = self.text[start : self.at].lower()
        if word in ("true", "false"):
            return word == "true"
        try:
            return float(int(word.rstrip("l"), 0)) if not any(one in word for one in ".") else float(word)
        except ValueError:
            try:
                return float(word)
            except ValueError:
                self.at = start
                raise self.wrong() from None
