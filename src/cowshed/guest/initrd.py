"""What a kernel's initial RAM file system holds: cpio archives (newc), one behind the other, packed or not.

As linux/Documentation/driver-api/early-userspace/buffer-format has it: an archive ends with TRAILER!!!, zeros may
follow, and then another may come, each packed on its own. Boot loaders' microcode comes so before the rest.
"""

from __future__ import annotations

import errno
import stat as _stat

from ..errors import CorruptError, FeatureError
from .filesystem.base import GuestError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Protocol

    class Unpacker(Protocol):
        @property
        def eof(self) -> bool: ...
        @property
        def unused_data(self) -> bytes: ...
        def decompress(self, data: bytes, /) -> bytes: ...


_MAGICS = (b"070701", b"070702")
_HEADER = 110
_TRAILER = b"TRAILER!!!"
_STEP = 1 << 18
_NAME_MAX = 4096
#: what a file that is shown may have
_LARGEST = 1 << 30
#: names that are held at once
_MOST = 1 << 20


class Member:
    """``name`` as it is stored, without a leading slash; ``mode`` with its type; ``size`` in bytes."""

    __slots__ = ("ino", "mode", "name", "nlink", "size")

    def __init__(self, name: bytes, mode: int, size: int, ino: tuple[int, int, int], nlink: int) -> None:
        self.name = name
        self.mode = mode
        self.size = size
        self.ino = ino
        self.nlink = nlink


class _Source:
    """Bytes of a file, taken in the order they come, with what was taken too much put back."""

    def __init__(self, chunks: Iterator[bytes]) -> None:
        self._chunks = chunks
        self._held = b""

    def take(self, count: int) -> bytes:
        """Up to ``count`` bytes, fewer at the end only."""
        while len(self._held) < count:
            piece = next(self._chunks, b"")
            if not piece:
                break
            self._held += piece
        data, self._held = self._held[:count], self._held[count:]
        return data

    def some(self) -> bytes:
        """What is at hand, b"" at the end."""
        data = self._held[:_STEP] or next(self._chunks, b"")
        if self._held:
            self._held = self._held[len(data) :]
        elif len(data) > _STEP:
            self._held, data = data[_STEP:], data[:_STEP]
        return data

    def back(self, data: bytes) -> None:
        self._held = data + self._held

    def peek(self, count: int) -> bytes:
        data = self.take(count)
        self.back(data)
        return data

    def skip(self, count: int) -> bool:
        """Pass over bytes; False when there are not as many."""
        while count:
            data = self.take(min(count, _STEP))
            if not data:
                return False
            count -= len(data)
        return True

    def skip_zeros(self) -> None:
        while data := self.some():
            rest = data.lstrip(b"\0")
            if rest:
                self.back(rest)
                return


def _gzip() -> Unpacker:
    import zlib

    return zlib.decompressobj(31)


def _bzip2() -> Unpacker:
    import bz2

    return bz2.BZ2Decompressor()


def _lzma() -> Unpacker:
    import lzma

    return lzma.LZMADecompressor(memlimit=512 << 20)


def _zstd() -> Unpacker:
    import zstandard

    return zstandard.ZstdDecompressor(max_window_size=1 << 30).decompressobj()


class _Lz4:
    """LZ4 in the form that ``lz4 -l`` writes and kernels read: blocks of up to 8 MiB, each behind its length."""

    eof = False
    unused_data = b""

    def __init__(self) -> None:
        self._held = b""
        self._begun = False

    def decompress(self, data: bytes, /) -> bytes:
        from .lz4 import unpack

        self._held += data
        out = []
        while len(self._held) >= 4:
            length = int.from_bytes(self._held[:4], "little")
            if length == 0x184C2102:
                # the mark, again where frames were joined
                self._held = self._held[4:]
                continue
            if not 0 < length <= (8 << 20) + (8 << 20) // 255 + 16:
                raise ValueError(f"a block of {length} bytes")
            if len(self._held) < 4 + length:
                break
            out.append(unpack(self._held[4 : 4 + length], 8 << 20))
            self._held = self._held[4 + length :]
        return b"".join(out)


#: how packed data begins -> (name, what unpacks it, None where nothing does)
_PACKERS: tuple[tuple[bytes, str, Callable[[], Unpacker] | None], ...] = (
    (b"\x1f\x8b", "gzip", _gzip),
    (b"BZh", "bzip2", _bzip2),
    (b"\xfd7zXZ\0", "xz", _lzma),
    (b"\x5d\0\0", "lzma", _lzma),
    (b"\x28\xb5\x2f\xfd", "zstd", _zstd),
    (b"\x02\x21\x4c\x18", "lz4", _Lz4),
    (b"\x89LZO", "lzo", None),
)


def _unpacked(source: _Source, name: str, make: Callable[[], Unpacker]) -> Iterator[bytes]:
    """One packed stream; what follows it stays in ``source``."""
    unpacker = make()
    while not unpacker.eof:
        data = source.some()
        if not data:
            if name != "lz4":
                raise _damaged(f"its {name} data ends too early")
            return
        try:
            out = unpacker.decompress(data)
        except Exception as error:  # each library has an error of its own
            raise _damaged(f"its {name} data is damaged: {error}") from error
        if out:
            yield out
    source.back(unpacker.unused_data)


def _damaged(why: str) -> CorruptError:
    return CorruptError(f"not an initrd that can be read: {why}", layer="initrd")


def members(chunks: Iterator[bytes]) -> Iterator[tuple[Member, Callable[[], Iterator[bytes]]]]:
    """Each member and what gives its bytes, good until the next is asked for. Raises CorruptError, FeatureError."""
    source = _Source(chunks)
    first = True
    while True:
        source.skip_zeros()
        head = source.peek(6)
        if not head:
            if first:
                raise _damaged("it is empty")
            return
        if head in _MAGICS:
            yield from _archive(source)
        else:
            packer = next((one for one in _PACKERS if head.startswith(one[0])), None)
            if packer is None:
                raise _damaged("it is neither a cpio archive (newc) nor packed in a way that is known")
            _, name, make = packer
            if make is None:
                raise FeatureError(f"archives packed with {name} can't be read", layer="initrd")
            inner = _Source(_unpacked(source, name, make))
            inner.skip_zeros()
            while inner.peek(6):
                if inner.peek(6) not in _MAGICS:
                    raise _damaged(f"its {name} data holds no cpio archive (newc)")
                yield from _archive(inner)
                inner.skip_zeros()
        first = False


def _archive(source: _Source) -> Iterator[tuple[Member, Callable[[], Iterator[bytes]]]]:
    """The members up to the trailer."""
    while True:
        header = source.take(_HEADER)
        if not header:
            raise _damaged("an archive has no end")
        if len(header) < _HEADER or header[:6] not in _MAGICS:
            raise _damaged("a member's header is damaged")
        try:
            fields = [int(header[at : at + 8], 16) for at in range(6, _HEADER, 8)]
        except ValueError:
            raise _damaged("a member's header holds no numbers") from None
        ino, mode, _, _, nlink, _, size, major, minor, _, _, length, _ = fields
        if not 0 < length <= _NAME_MAX:
            raise _damaged(f"a member's name has {length} bytes")
        raw = source.take(length)
        padded = source.skip(-(_HEADER + length) % 4)
        name = raw.rstrip(b"\0")
        if len(raw) < length or (not padded and name != _TRAILER):
            raise _damaged("it ends within a member's name")
        if name == _TRAILER:
            return
        left = size

        def content() -> Iterator[bytes]:
            nonlocal left
            while left:
                data = source.take(min(left, _STEP))
                if not data:
                    raise _damaged("it ends within a member")
                left -= len(data)
                yield data

        yield Member(name.lstrip(b"/") or b".", mode, size, (major, minor, ino), nlink), content
        if not source.skip(left) or not source.skip(-size % 4):
            raise _damaged("it ends within a member")


def _plain(name: bytes) -> bytes:
    while name.startswith(b"./"):
        name = name[2:].lstrip(b"/")
    return name


def names(chunks: Iterator[bytes]) -> list[bytes]:
    """The names in an initrd, in its order."""
    found = []
    for member, _ in members(chunks):
        found.append(member.name)
        if len(found) > _MOST:
            raise _damaged(f"it has more than {_MOST} members")
    return found


def content(chunks: Iterator[bytes], wanted: bytes) -> bytes:
    """The bytes of one file; of several of that name the last one's, which is what the kernel has in the end.

    Raises GuestError ENOENT, EISDIR, EINVAL for what is neither file nor directory, EFBIG.
    """
    found: bytes | None = None
    key: tuple[int, int, int] | None = None
    for member, pieces in members(chunks):
        # of hard links the last one alone has the bytes
        if _stat.S_ISREG(member.mode) and member.nlink > 1 and member.ino == key and member.size:
            found = _whole(member, pieces)
        if member.name != wanted and _plain(member.name) != wanted:
            continue
        key = member.ino if member.nlink > 1 else None
        if _stat.S_ISDIR(member.mode):
            raise GuestError(errno.EISDIR)
        if not _stat.S_ISREG(member.mode):
            # what a link leads to is another file, devices have no bytes
            raise GuestError(errno.ENOENT if _stat.S_ISLNK(member.mode) else errno.EINVAL)
        found = _whole(member, pieces)
    if found is None:
        raise GuestError(errno.ENOENT)
    return found


def _whole(member: Member, pieces: Callable[[], Iterator[bytes]]) -> bytes:
    if member.size > _LARGEST:
        raise GuestError(errno.EFBIG)
    return b"".join(pieces())
