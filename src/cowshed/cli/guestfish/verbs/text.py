"""Text in files: head, tail, grep, strings, words counted."""

from __future__ import annotations

import os

from ....guest import lines as text
from ..fish import Failed, Fish
from ..table import command
from .read import pieces

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator


def _lines(fish: Fish, path: bytes, step: str = "") -> Iterator[bytes]:
    return text.lines_of(pieces(fish, path, step))


@command("head", "path:path", "list", help="return first 10 lines of a file")
def head(fish: Fish, path: bytes) -> list[bytes]:
    return list(text.head(_lines(fish, path), 10))


@command("head-n", "nrlines:int path:path", "list", help="return first N lines of a file")
def head_n(fish: Fish, nrlines: int, path: bytes) -> list[bytes]:
    return list(text.head(_lines(fish, path), nrlines))


@command("tail", "path:path", "list", help="return last 10 lines of a file")
def tail(fish: Fish, path: bytes) -> list[bytes]:
    return list(text.tail(_lines(fish, path), 10))


@command("tail-n", "nrlines:int path:path", "list", help="return last N lines of a file")
def tail_n(fish: Fish, nrlines: int, path: bytes) -> list[bytes]:
    if nrlines < 0:
        return list(text.tail(_lines(fish, path), -nrlines, begin=True))
    return list(text.tail(_lines(fish, path), nrlines))


@command("wc-l", "path:path", "int", help="count lines in a file", step="wc -l: ")
def wc_l(fish: Fish, path: bytes) -> int:
    return sum(piece.count(b"\n") for piece in pieces(fish, path, "wc -l: "))


@command("wc-w", "path:path", "int", help="count words in a file", step="wc -w: ")
def wc_w(fish: Fish, path: bytes) -> int:
    total = 0
    inside = False
    for piece in pieces(fish, path, "wc -w: "):
        words = len(piece.split())
        total += words - (inside and words > 0 and not piece[:1].isspace())
        inside = not piece[-1:].isspace()
    return total


@command("wc-c", "path:path", "int", help="count characters in a file", step="wc -c: ")
def wc_c(fish: Fish, path: bytes) -> int:
    return sum(len(piece) for piece in pieces(fish, path, "wc -c: "))


@command("strings", "path:path", "list", help="print the printable strings in a file")
def strings(fish: Fish, path: bytes) -> list[bytes]:
    return list(text.strings(pieces(fish, path)))


@command("strings-e", "encoding:string path:path", "list", help="print the printable strings in a file")
def strings_e(fish: Fish, encoding: str, path: bytes) -> list[bytes]:
    if len(encoding) != 1 or encoding not in "sSblBL":
        raise Failed(f"{encoding}: invalid encoding")
    return list(text.strings(pieces(fish, path), encoding=encoding))


@command("hexdump", "path:path", "string", help="dump a file in hexadecimal")
def hexdump(fish: Fish, path: bytes) -> bytes:
    return b"".join(text.hexdump(pieces(fish, path)))


def _unzipped(source: Iterable[bytes]) -> Iterator[bytes]:
    """The bytes inside of gzip, others as they are."""
    import zlib

    unpacker = None
    first = True
    for piece in source:
        if first:
            first = False
            if piece[:2] == b"\x1f\x8b":
                unpacker = zlib.decompressobj(31)
        if unpacker is None:
            yield piece
            continue
        while piece:
            yield unpacker.decompress(piece)
            piece = unpacker.unused_data
            if unpacker.eof:
                if not piece:
                    break
                unpacker = zlib.decompressobj(31)
            else:
                break


def _grep(
    fish: Fish,
    regex: str,
    path: bytes,
    *,
    extended: bool = False,
    fixed: bool = False,
    insensitive: bool = False,
    compressed: bool = False,
) -> list[bytes]:
    import zlib

    if extended and fixed:
        raise Failed("can't use 'extended' and 'fixed' flags at the same time")
    try:
        match = text.pattern(os.fsencode(regex), extended=extended, fixed=fixed, insensitive=insensitive).search
    except ValueError as error:
        reason = str(error)
        if "unterminated subpattern" in reason:
            reason = "Unmatched ( or \\("
        raise Failed(f"{regex}: grep: {reason}") from error
    source = pieces(fish, path)
    if compressed:
        source = _unzipped(source)
    found: list[bytes] = []
    try:
        for line in text.lines_of(source):
            # a file that holds zero bytes is binary: grep says no more of it than that it matches, and not here
            if b"\0" in line:
                return []
            if match(line):
                found.append(line)
        return found
    except zlib.error as error:
        raise Failed(f"{os.fsdecode(path)}: {error}") from error


_OPTIONS = "[extended:bool] [fixed:bool] [insensitive:bool] [compressed:bool]"


@command("grep grep-opts", f"regex:string path:path {_OPTIONS}", "list", help="return lines matching a pattern")
def grep(
    fish: Fish,
    regex: str,
    path: bytes,
    extended: bool = False,
    fixed: bool = False,
    insensitive: bool = False,
    compressed: bool = False,
) -> list[bytes]:
    return _grep(fish, regex, path, extended=extended, fixed=fixed, insensitive=insensitive, compressed=compressed)


def _variant(name: str) -> None:
    """egrep, fgrep, grepi, zgrep and what they make together: the same with flags set."""
    flags = {
        "extended": "egrep" in name,
        "fixed": "fgrep" in name,
        "insensitive": name.endswith("i"),
        "compressed": name.startswith("z"),
    }

    def run(fish: Fish, regex: str, path: bytes) -> list[bytes]:
        return _grep(fish, regex, path, **flags)

    run.__qualname__ = name
    argument = "pattern" if "fgrep" in name else "regex"
    command(name, f"{argument}:string path:path", "list", help="return lines matching a pattern")(run)


for _name in (
    "egrep",
    "fgrep",
    "grepi",
    "egrepi",
    "fgrepi",
    "zgrep",
    "zegrep",
    "zfgrep",
    "zgrepi",
    "zegrepi",
    "zfgrepi",
):
    _variant(_name)
