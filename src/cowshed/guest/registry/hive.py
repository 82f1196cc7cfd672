"""A hive of the Windows registry (REGF): keys ("nodes"), their children and values.

A base block of 4096 bytes, then bins of cells; a cell begins with its size, negative while it is in use. Keys are nk
cells, values vk cells, lists of keys lf, lh, li and, for long ones, ri cells of those. Handles are a cell's offset
in the file, as hivex has them. Every offset and count is checked against its cell before it is believed.
"""

from __future__ import annotations

import errno
import struct

from ...errors import CorruptError, ForeignError
from ..filesystem.base import GuestError
from .store import Store
from .text import folded, shown

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

BASE = 4096
NONE = 0xFFFFFFFF
#: bit of a value's length: its data lies where the offset would
INLINE = 0x80000000
LATIN_KEY = 0x20
LATIN_VALUE = 1
#: what Windows lets be below one key, and as a value's data
MAX_VALUES = 1 << 20
MAX_CHILDREN = 1 << 22
MAX_DATA = 1 << 28
#: data in one segment of a db cell
SEGMENT = 16344
_STRINGS = (1, 2, 6)


def checksum(block: bytes) -> int:
    """Of a base block: the exclusive or of its first 127 words, with 0 and -1 left to mean nothing."""
    value = 0
    for (word,) in struct.iter_unpack("<I", block[:508]):
        value ^= word
    return {0: 1, NONE: NONE - 1}.get(value, value)


class Hive:
    """``read(offset, length)`` gives bytes of the file, ``size`` is its length.

    Raises ForeignError when it is no hive, CorruptError. Handles that are none are GuestError EINVAL.
    """

    def __init__(self, read: Callable[[int, int], bytes], size: int) -> None:
        self.store = Store(read, size)
        if size < BASE + 32:
            raise ForeignError("not a hive of the registry: it is too short")
        block = self.store.read(0, BASE)
        if block[:4] != b"regf":
            raise ForeignError("not a hive of the registry")
        self.major, self.minor = struct.unpack_from("<II", block, 20)
        if self.major != 1:
            raise ForeignError(f"hives of version {self.major}.{self.minor} are not known")
        if int.from_bytes(block[508:512], "little") != checksum(block):
            raise _wrong("checksum", block[508:512].hex(), "of the base block")
        first, second = struct.unpack_from("<II", block, 4)
        #: it was not written to its end: Windows would replay its logs first
        self.dirty = first != second
        root, bins = struct.unpack_from("<II", block, 36)
        if bins % BASE or bins > size - BASE:
            raise _wrong("hive bins data size", bins, "beyond the file")
        self.end = BASE + bins
        self.root: int = BASE + root
        self.node(self.root)

    # ---- cells

    def cell(self, handle: int, mark: bytes, least: int) -> bytes:
        """The data of a cell in use that begins with ``mark``. Raises GuestError EINVAL."""
        data = self.raw(handle)
        if not data.startswith(mark) or len(data) < least:
            raise GuestError(errno.EINVAL)
        return data

    def raw(self, handle: int, most: int = MAX_DATA) -> bytes:
        """The data of a cell in use. Raises GuestError EINVAL."""
        if handle % 8 or not BASE + 32 <= handle <= self.end - 8:
            raise GuestError(errno.EINVAL)
        size = -int.from_bytes(self.store.read(handle, 4), "little", signed=True)
        if size < 8 or handle + size > self.end:
            raise GuestError(errno.EINVAL)
        return self.store.read(handle + 4, min(size - 4, most))

    def node(self, handle: int) -> bytes:
        """The nk cell of a handle."""
        data = self.cell(handle, b"nk", 76)
        if 76 + int.from_bytes(data[72:74], "little") > len(data):
            raise _wrong("name length", handle, "beyond the cell")
        return data

    def value(self, handle: int) -> bytes:
        """The vk cell of a handle."""
        data = self.cell(handle, b"vk", 20)
        if 20 + int.from_bytes(data[2:4], "little") > len(data):
            raise _wrong("name length", handle, "beyond the cell")
        return data

    # ---- nodes

    def name(self, handle: int) -> str:
        data = self.node(handle)
        flags, length = int.from_bytes(data[2:4], "little"), int.from_bytes(data[72:74], "little")
        return shown(data[76 : 76 + length], bool(flags & LATIN_KEY))

    def parent(self, handle: int) -> int:
        """GuestError EFAULT for the root, which has none."""
        data = self.node(handle)
        found = BASE + int.from_bytes(data[16:20], "little")
        try:
            self.node(found)
        except GuestError as error:
            raise GuestError(errno.EFAULT) from error
        if handle == self.root:
            raise GuestError(errno.EFAULT)
        return found

    def children(self, handle: int) -> list[int]:
        """The handles of the keys below, in their order."""
        data = self.node(handle)
        count = int.from_bytes(data[20:24], "little")
        if not count:
            return []
        if count > MAX_CHILDREN:
            raise _wrong("number of subkeys", count, "more than there can be")
        found = list(self._listed(BASE + int.from_bytes(data[28:32], "little"), True))
        if len(found) != count:
            raise _wrong("number of subkeys", count, f"the list has {len(found)}")
        if len(set(found)) != count:
            raise _wrong("subkey", handle, "a key is listed twice")
        return found

    def _listed(self, handle: int, whole: bool) -> Iterator[int]:
        data = self.raw(handle)
        mark, count = data[:2], int.from_bytes(data[2:4], "little")
        width = {b"lf": 8, b"lh": 8, b"li": 4, b"ri": 4}.get(mark)
        if width is None or 4 + count * width > len(data) or (mark == b"ri" and not whole):
            raise _wrong("list of subkeys", handle, "no list, or longer than its cell")
        for at in range(4, 4 + count * width, width):
            below = BASE + int.from_bytes(data[at : at + 4], "little")
            if mark == b"ri":
                yield from self._listed(below, False)
            else:
                yield below

    def lists(self, handle: int) -> list[int]:
        """The cells that a key's list of children is made of."""
        data = self.node(handle)
        place = int.from_bytes(data[28:32], "little")
        if place == NONE or not int.from_bytes(data[20:24], "little"):
            return []
        cells = [BASE + place]
        top = self.raw(cells[0])
        if top[:2] == b"ri":
            count = min(int.from_bytes(top[2:4], "little"), (len(top) - 4) // 4)
            cells += [BASE + int.from_bytes(top[at : at + 4], "little") for at in range(4, 4 + 4 * count, 4)]
        return cells

    def child(self, handle: int, name: str) -> int:
        """The key of that name below, 0 without one."""
        wanted = folded(name)
        return next((one for one in self.children(handle) if folded(self.name(one)) == wanted), 0)

    # ---- values

    def values(self, handle: int) -> list[int]:
        """The handles of a key's values, in their order."""
        data = self.node(handle)
        count = int.from_bytes(data[36:40], "little")
        if not count:
            return []
        cell = self.raw(BASE + int.from_bytes(data[40:44], "little"))
        if count > MAX_VALUES or count * 4 > len(cell):
            raise _wrong("number of values", count, "more than the list has")
        return [BASE + one for (one,) in struct.iter_unpack("<I", cell[: 4 * count])]

    def find_value(self, handle: int, key: str) -> int:
        """The value of that name, 0 without one; the default value has the name ""."""
        wanted = folded(key)
        return next((one for one in self.values(handle) if folded(self.key(one)) == wanted), 0)

    def key(self, handle: int) -> str:
        data = self.value(handle)
        length, flags = int.from_bytes(data[2:4], "little"), int.from_bytes(data[16:18], "little")
        return shown(data[20 : 20 + length], bool(flags & LATIN_VALUE))

    def kind(self, handle: int) -> int:
        """The type of a value's data: 1 string, 2 to be expanded, 3 binary, 4 a word, 7 strings …"""
        return int.from_bytes(self.value(handle)[12:16], "little")

    def data(self, handle: int) -> bytes:
        """A value's data."""
        cell = self.value(handle)
        length, place = struct.unpack_from("<II", cell, 4)
        if length & INLINE:
            length &= ~INLINE
            if length > 4:
                raise _wrong("data length", length, "more than lies in the cell")
            return cell[8 : 8 + length]
        if not length:
            return b""
        if length > MAX_DATA:
            raise _wrong("data length", length, "more than there can be")
        held = self.raw(BASE + place)
        if len(held) >= length and not (length > SEGMENT and held[:2] == b"db" and self.minor > 3):
            return held[:length]
        if held[:2] != b"db":
            raise _wrong("data length", length, "more than the cell has")
        return self._segments(held, length)

    def segments(self, held: bytes) -> list[int]:
        """The cells of the segments of a db cell."""
        count = int.from_bytes(held[2:4], "little")
        places = self.raw(BASE + int.from_bytes(held[4:8], "little"))
        if count * 4 > len(places):
            raise _wrong("number of segments", count, "more than the list has")
        return [BASE + one for (one,) in struct.iter_unpack("<I", places[: 4 * count])]

    def _segments(self, held: bytes, length: int) -> bytes:
        parts = []
        left = length
        for place in self.segments(held):
            part = self.raw(place, SEGMENT)[:left]
            parts.append(part)
            left -= len(part)
        if left:
            raise _wrong("data length", length, "more than its segments have")
        return b"".join(parts)

    def string(self, handle: int) -> str:
        """A value's data as text, up to its end mark. GuestError EINVAL when its type is no string."""
        if self.kind(handle) not in _STRINGS:
            raise GuestError(errno.EINVAL)
        return text_of(self.data(handle))


def text_of(data: bytes) -> str:
    """UTF-16 up to its end mark. GuestError EILSEQ, EINVAL for half a letter."""
    for at in range(0, len(data) - 1, 2):
        if not data[at] and not data[at + 1]:
            data = data[:at]
            break
    try:
        return data.decode("utf-16-le")
    except UnicodeDecodeError as error:
        raise GuestError(errno.EINVAL if len(data) % 2 else errno.EILSEQ) from error


def _wrong(field: str, value: object, why: str) -> CorruptError:
    return CorruptError(
        f"the hive is damaged: {field} is {value}: {why}", layer="hive", field=field, value=str(value),
        hint="nothing was changed",
    )  # fmt: skip
