"""Text of a guest's files, line by line, without ever holding more of it than a line: head, tail, grep, strings."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    import re
    from collections.abc import Iterable, Iterator

#: a longer line is given in pieces: it is no text
LONGEST = 16 << 20


def lines_of(pieces: Iterable[bytes]) -> Iterator[bytes]:
    """Lines without their newline."""
    kept = b""
    for piece in pieces:
        parts = (kept + piece).split(b"\n")
        kept = parts.pop()
        yield from parts
        while len(kept) > LONGEST:
            yield kept[:LONGEST]
            kept = kept[LONGEST:]
    if kept:
        yield kept


def head(lines: Iterable[bytes], count: int) -> Iterator[bytes]:
    """The first ``count`` lines; all but the last ones when it is negative."""
    if count >= 0:
        for index, line in enumerate(lines):
            if index >= count:
                return
            yield line
        return
    from collections import deque

    kept: deque[bytes] = deque()
    for line in lines:
        kept.append(line)
        if len(kept) > -count:
            yield kept.popleft()


def tail(lines: Iterable[bytes], count: int, *, begin: bool = False) -> Iterator[bytes]:
    """The last ``count`` lines, or with ``begin`` all from line ``count`` on (from 1)."""
    if begin:
        for index, line in enumerate(lines, 1):
            if index >= count:
                yield line
        return
    from collections import deque

    yield from deque(lines, max(0, count))


def pattern(
    text: bytes, *, extended: bool = False, fixed: bool = False, insensitive: bool = False
) -> re.Pattern[bytes]:
    """A POSIX regular expression, basic or extended, or fixed text, as one of Python's. Raises ValueError."""
    import re

    flags = re.IGNORECASE if insensitive else 0
    try:
        return re.compile(re.escape(text) if fixed else _translated(text, extended), flags)
    except re.error as error:
        raise ValueError(str(error)) from error


_CLASSES = {
    b"alpha": b"a-zA-Z", b"digit": b"0-9", b"alnum": b"a-zA-Z0-9", b"upper": b"A-Z", b"lower": b"a-z",
    b"space": rb" \t\n\r\f\v", b"blank": rb" \t", b"punct": rb"!-/:-@\[-`{-~", b"xdigit": b"0-9A-Fa-f",
    b"cntrl": rb"\x00-\x1f\x7f", b"print": rb"\x20-\x7e", b"graph": rb"\x21-\x7e",
}  # fmt: skip


def _translated(text: bytes, extended: bool) -> bytes:
    found = bytearray()
    at, end = 0, len(text)
    fresh = True  # where a repetition has nothing to repeat, it is itself in basic expressions
    while at < end:
        char = text[at : at + 1]
        at += 1
        begins, fresh = fresh, False
        if char == b"[":
            at = _bracket(text, at, found)
        elif char == b"\\":
            following = text[at : at + 1]
            at += 1
            if not extended and following in (b"(", b")", b"{", b"}", b"|", b"+", b"?"):
                found += following
                fresh = following in (b"(", b"|")
            elif following in (b"w", b"W", b"s", b"S", b"b", b"B") or following.isdigit():
                found += b"\\" + following
            elif following in (b"<", b">"):
                found += b"\\b"
            elif following:
                found += _escape(following)
            else:
                raise ValueError("Trailing backslash")
        elif not extended and char in (b"(", b")", b"{", b"}", b"|", b"+", b"?"):
            found += _escape(char)
        elif char == b"*" and begins:
            found += rb"\*"
        elif char == b"^" and not extended and not begins:
            found += rb"\^"
        elif char == b"$" and not extended and at < end and text[at : at + 2] not in (rb"\)", rb"\|"):
            found += rb"\$"
        elif char == b"$":
            found += rb"\Z"
        else:
            found += char
            fresh = char in (b"^", b"(", b"|")
    return bytes(found)


def _escape(char: bytes) -> bytes:
    import re

    return re.escape(char)


def _bracket(text: bytes, at: int, found: bytearray) -> int:
    """A bracket expression, from behind the bracket; returns where it ends."""
    found += b"["
    if text[at : at + 1] == b"^":
        found += b"^"
        at += 1
    first = True
    while True:
        char = text[at : at + 1]
        if not char:
            raise ValueError("Unmatched [, [^, [:, [., or [=")
        if char == b"]" and not first:
            found += b"]"
            return at + 1
        first = False
        if text[at : at + 2] == b"[:":
            stop = text.find(b":]", at)
            name = _CLASSES.get(text[at + 2 : stop]) if stop > 0 else None
            if name is None:
                raise ValueError("Invalid character class name")
            found += name
            at = stop + 2
            continue
        found += char if char == b"-" else _escape(char)
        at += 1


def strings(pieces: Iterable[bytes], *, encoding: str = "s", least: int = 4) -> Iterator[bytes]:
    """Runs of at least ``least`` printable characters: s 7-bit, S 8-bit, b and l 16-bit, B and L 32-bit."""
    import re

    width = {"s": 1, "S": 1, "b": 2, "l": 2, "B": 4, "L": 4}[encoding]
    char = rb"[\x20-\x7e\t]" if encoding != "S" else rb"[\x20-\x7e\t\x80-\xff]"
    zeroes = b"\\x00" * (width - 1)
    unit = char + zeroes if encoding in "lL" else zeroes + char
    finder = re.compile(b"(?:" + unit + b"){%d,}" % least)
    kept = b""
    for piece in pieces:
        data = kept + piece
        stop = 0
        kept_from = None
        for match in finder.finditer(data):
            if match.end() > len(data) - width and len(match.group()) < LONGEST:
                kept_from = match.start()
                break
            yield _narrow(match.group(), width, encoding)
            stop = match.end()
        kept = data[kept_from:] if kept_from is not None else data[max(stop, len(data) - width * least) :]
    for match in finder.finditer(kept):
        yield _narrow(match.group(), width, encoding)


def _narrow(data: bytes, width: int, encoding: str) -> bytes:
    if width == 1:
        return data
    return data[::width] if encoding in "lL" else data[width - 1 :: width]


def hexdump(pieces: Iterable[bytes]) -> Iterator[bytes]:
    """As hexdump -C: 16 bytes a line, ``*`` for lines that repeat, the length at the end."""
    offset = 0
    kept = b""
    before: bytes | None = None
    starred = False
    table = bytes(byte if 32 <= byte < 127 else 0x2E for byte in range(256))

    def line(row: bytes) -> bytes:
        pairs = [f"{byte:02x}" for byte in row]
        left, right = " ".join(pairs[:8]), " ".join(pairs[8:])
        text = row.translate(table)
        return f"{offset:08x}  {left:<23}  {right:<23}  |".encode() + text + b"|\n"

    for piece in pieces:
        data = kept + piece
        whole = len(data) & ~15
        for at in range(0, whole, 16):
            row = data[at : at + 16]
            if row == before:
                if not starred:
                    yield b"*\n"
                    starred = True
            else:
                yield line(row)
                starred = False
            before = row
            offset += 16
        kept = data[whole:]
    if kept:
        yield line(kept)
        offset += len(kept)
    if offset:
        yield f"{offset:08x}\n".encode()
