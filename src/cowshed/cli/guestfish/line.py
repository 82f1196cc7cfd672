"""Lines of guestfish: words and quotes, comments, the signs before a command, and what follows a bar."""

from __future__ import annotations

from .arguments import Refused

_ESCAPES = {"a": 7, "b": 8, "f": 12, "n": 10, "r": 13, "t": 9, "v": 11, '"': 34, "\\": 92}
_SPACE = " \t\n"


class Line:
    """``words``; ``ignore``: begins with -, an error doesn't count; ``pipe``: the host's command that reads the output;
    ``shell``: a command of the host; ``inline``: one whose output is commands."""

    __slots__ = ("ignore", "inline", "pipe", "shell", "words")

    def __init__(self) -> None:
        self.words: list[str] = []
        self.ignore = False
        self.pipe: str | None = None
        self.shell: str | None = None
        self.inline: str | None = None


def parse(text: str) -> Line:
    """The line's parts; without words for blank lines and comments. Raises Refused."""
    line = Line()
    text = text.strip(_SPACE)
    if not text or text.startswith("#"):
        return line
    while text.startswith("-"):
        line.ignore = True
        text = text[1:].lstrip(_SPACE)
    if not text:
        # a hyphen alone is before a command without a name
        line.words.append("")
        return line
    if text.startswith("!"):
        line.shell = text[1:]
        return line
    if text.startswith("<!"):
        line.inline = text[2:]
        return line
    at, end = 0, len(text)
    while at < end:
        if text[at] in _SPACE:
            at += 1
            continue
        if text[at] == "|":
            line.pipe = text[at + 1 :].strip(_SPACE)
            break
        if text[at] == '"' and line.words:
            word, at = _double(text, at + 1)
        elif text[at] == "'" and line.words:
            stop = text.find("'", at + 1)
            if stop < 0:
                raise Refused("unterminated single quote")
            word, at = text[at + 1 : stop], stop + 1
        else:
            word, at = _bare(text, at)
            if word.startswith("~") and line.words:
                import os

                word = os.path.expanduser(word)
            line.words.append(word)
            continue
        if at < end and text[at] not in _SPACE:
            raise Refused("command arguments not separated by whitespace")
        line.words.append(word)
    return line


def _bare(text: str, at: int) -> tuple[str, int]:
    """A word up to a blank; quotes within it hold blanks and stay."""
    start, end = at, len(text)
    quote = ""
    while at < end:
        char = text[at]
        if quote:
            if char == quote:
                quote = ""
        elif char in "'\"":
            quote = char
        elif char in _SPACE or (char == "|" and at == start):
            break
        at += 1
    if quote:
        raise Refused(f"unterminated {'single' if quote == chr(39) else 'double'} quote")
    return text[start:at], at


def _double(text: str, at: int) -> tuple[str, int]:
    """A word in double quotes, from behind the first one: (its text, where it ends)."""
    found = bytearray()
    end, start = len(text), at
    while True:
        if at >= end:
            raise Refused("unterminated double quote")
        char = text[at]
        if char == '"':
            return found.decode("utf-8", "surrogateescape"), at + 1
        if char != "\\":
            found += char.encode("utf-8", "surrogateescape")
            at += 1
            continue
        following = text[at + 1 : at + 2]
        if following in _ESCAPES and following:
            found.append(_ESCAPES[following])
            at += 2
        elif following and following in "01234567":
            digits = text[at + 1 : at + 4]
            if len(digits) < 3 or any(one not in "01234567" for one in digits) or not 0 < int(digits, 8) < 256:
                raise Refused(f"invalid escape sequence in string (starting at offset {at - start})")
            found.append(int(digits, 8))
            at += 4
        elif following == "x":
            digits = text[at + 2 : at + 4]
            hexadecimal = len(digits) == 2 and all(one in "0123456789abcdefABCDEF" for one in digits)
            if not hexadecimal or not int(digits, 16):
                raise Refused(f"invalid escape sequence in string (starting at offset {at - start})")
            found.append(int(digits, 16))
            at += 4
        else:
            raise Refused(f"invalid escape sequence in string (starting at offset {at - start})")
