"""Finding things on a tree: patterns, spellings, sums."""

from __future__ import annotations

import errno
import stat as _stat

from .filesystem.base import GuestError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from .tree import Place, Tree

_MAGIC = b"*?["


def glob(tree: Tree, pattern: bytes, *, slash: bool = False) -> list[bytes]:
    """The paths that match a shell pattern, sorted; ``slash``: directories with a slash behind. Names that begin with
    a dot match only a pattern that does. Braces are alternatives, as with GLOB_BRACE."""
    found: list[bytes] = []
    for one in braces(pattern):
        here = sorted(_glob(tree, one))
        found += here
    if slash:
        found = [_slashed(tree, path) for path in found]
    return found


def _slashed(tree: Tree, path: bytes) -> bytes:
    try:
        if not path.endswith(b"/") and _stat.S_ISDIR(tree.stat(path).mode):
            return path + b"/"
    except GuestError:
        pass
    return path


def braces(pattern: bytes, limit: int = 4096) -> list[bytes]:
    """``a{b,c}d`` -> ``abd``, ``acd``."""
    todo: list[bytes] = [pattern]
    done: list[bytes] = []
    while todo:
        one = todo.pop()
        cut = _brace(one)
        if cut is None or len(todo) + len(done) > limit:
            done.append(one)
            continue
        start, parts, end = cut
        todo += [one[:start] + part + one[end:] for part in reversed(parts)]
    return done


def _brace(text: bytes) -> tuple[int, list[bytes], int] | None:
    start = text.find(b"{")
    while start >= 0:
        depth, parts, begun = 0, [], start + 1
        for at in range(start, len(text)):
            char = text[at]
            if char == 0x7B:
                depth += 1
            elif char == 0x2C and depth == 1:
                parts.append(text[begun:at])
                begun = at + 1
            elif char == 0x7D:
                depth -= 1
                if not depth:
                    parts.append(text[begun:at])
                    return (start, parts, at + 1) if text[start : at + 1] != b"{}" else None
        start = text.find(b"{", start + 1)
    return None


def _glob(tree: Tree, pattern: bytes) -> Iterator[bytes]:
    parts = [part for part in pattern.split(b"/") if part]
    trailing = pattern.endswith(b"/") and bool(parts)
    paths = [b""]
    for part in parts:
        following: list[bytes] = []
        if any(char in part for char in _MAGIC):
            matches = matcher(part)
            for path in paths:
                try:
                    names = tree.names(path or b"/")
                except GuestError:
                    continue
                following += [path + b"/" + name for name in names if matches(name)]
        else:
            name = part.replace(b"\\", b"")
            for path in paths:
                try:
                    there = tree.find(path + b"/" + name, follow=False).ino is not None
                except GuestError:
                    there = False
                if there:
                    following.append(path + b"/" + name)
        paths = following
    for path in paths:
        if trailing:
            try:
                if _stat.S_ISDIR(tree.stat(path).mode):
                    yield path + b"/"
            except GuestError:
                pass
        else:
            yield path or b"/"


def matcher(pattern: bytes) -> Callable[[bytes], bool]:
    """Does a name match a shell pattern (``*``, ``?``, ``[…]``)?"""
    import fnmatch
    import re

    plain = pattern.replace(b"[^", b"[!")
    compiled = re.compile(fnmatch.translate(plain.decode("latin-1")), re.DOTALL)
    hidden = pattern.startswith(b".")

    def matches(name: bytes) -> bool:
        if name.startswith(b".") and not hidden:
            return False
        return compiled.match(name.decode("latin-1")) is not None

    return matches


def case_sensitive_path(tree: Tree, path: bytes) -> bytes:
    """The path as the guest spells it, found without regard to case. The last name may be missing.

    Raises GuestError ENOENT, ENOTDIR.
    """
    found = b""
    parts = [part for part in path.split(b"/") if part]
    for index, part in enumerate(parts):
        names = tree.names(found or b"/")
        if part in names:
            found += b"/" + part
            continue
        lowered = part.decode("utf-8", "surrogateescape").casefold()
        same = [name for name in names if name.decode("utf-8", "surrogateescape").casefold() == lowered]
        if not same and index < len(parts) - 1:
            raise GuestError(errno.ENOENT, (found + b"/" + part).decode("utf-8", "surrogateescape"))
        found += b"/" + (same[0] if same else part)
    return found or b"/"


def disk_usage(tree: Tree, place: Place) -> int:
    """Bytes allocated to all that is below, each inode once, as du counts them."""
    seen: set[tuple[int, int]] = set()
    total = 0
    for found in tree.walk(place):
        if found.stat.nlink > 1 and not found.is_dir:
            key = (id(found.place.mount), found.stat.ino)
            if key in seen:
                continue
            seen.add(key)
        total += found.stat.blocks * 512
    return total


def checksum(kind: str, pieces: Iterable[bytes]) -> str:
    """md5, sha1, sha224, sha256, sha384, sha512 as hexadecimal digits; crc as POSIX cksum counts it."""
    if kind == "crc":
        return str(_cksum(pieces))
    import hashlib

    digest = hashlib.new(kind, usedforsecurity=False)
    for piece in pieces:
        digest.update(piece)
    return digest.hexdigest()


def _cksum(pieces: Iterable[bytes]) -> int:
    """POSIX cksum: CRC-32 with its bits the other way round, over the bytes and then their number."""
    import zlib

    # zlib's CRC takes the lowest bit first: with the bits of every byte turned round it is the same polynomial
    turned = bytes(int(f"{byte:08b}"[::-1], 2) for byte in range(256))
    crc, total = 0xFFFFFFFF, 0
    for piece in pieces:
        # zlib inverts at both ends; undo it, for POSIX begins with zero
        crc = zlib.crc32(piece.translate(turned), crc)
        total += len(piece)
    length = bytearray()
    while total:
        length.append(total & 255)
        total >>= 8
    crc = zlib.crc32(bytes(length).translate(turned), crc)
    return int(f"{crc & 0xFFFFFFFF:032b}"[::-1], 2)
