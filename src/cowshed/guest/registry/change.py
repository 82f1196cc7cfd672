"""Hives are changed: keys and values added and removed, and all of it brought into a file at once.

New cells lie in bins behind the last one; cells that nobody needs any more are marked free where they are. Everything
is in memory until file.py writes it.
"""

from __future__ import annotations

import errno
import struct
import time
from bisect import insort

from ..filesystem.base import GuestError
from .hive import BASE, INLINE, LATIN_KEY, LATIN_VALUE, MAX_DATA, NONE, SEGMENT, Hive, checksum
from .text import folded, hashed, hint, order, stored

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

#: keys in one list; longer ones become lists of lists
_LIST = 511
#: Windows' bounds of names, in letters
_KEY_NAME = 255
_VALUE_NAME = 16383
_ROOM = 0x7FFFE000
#: 1601 to 1970, in units of 100 ns
_EPOCH = 116444736000000000


class Editor:
    """Changes to a hive. ``hive`` reads them as if they were in the file; ``changed``: there are some."""

    def __init__(self, hive: Hive) -> None:
        self.hive = hive
        #: where the free rest of the last new bin begins and ends
        self._free = (0, 0)
        self.changed = False
        self._listings: dict[int, _Listing] = {}

    # ---- cells

    def _allocate(self, data: bytes) -> int:
        """A new cell with that data; returns its handle."""
        size = len(data) + 4 + 7 & ~7
        start, end = self._free
        if end - start < size:
            start, end = self._bin(size)
        store = self.hive.store
        store.write(start, struct.pack("<i", -size) + data + bytes(size - 4 - len(data)))
        self._free = (start + size, end)
        if end > start + size:
            store.write(start + size, struct.pack("<i", end - start - size))
        self.changed = True
        return start

    def _bin(self, size: int) -> tuple[int, int]:
        """A new bin that has room for a cell; what is left of the one before stays a free cell."""
        hive = self.hive
        length = size + 32 + BASE - 1 & ~(BASE - 1)
        start = hive.end
        if start + length > _ROOM:
            raise GuestError(errno.ENOSPC)
        hive.store.grow(start + length)
        hive.store.write(
            start, struct.pack("<4sIIQQI", b"hbin", start - BASE, length, 0, _now(), 0) + bytes(length - 32)
        )
        hive.end = start + length
        return start + 32, start + length

    def _release(self, handle: int) -> None:
        """Mark a cell as free."""
        size = int.from_bytes(self.hive.store.read(handle, 4), "little", signed=True)
        if size < 0:
            self.hive.store.write(handle, struct.pack("<i", -size))
            self.changed = True

    def _patch(self, handle: int, at: int, data: bytes) -> None:
        """Change bytes of a cell's data."""
        self.hive.store.write(handle + 4 + at, data)
        self.changed = True

    def _word(self, handle: int, at: int, value: int) -> None:
        self._patch(handle, at, value.to_bytes(4, "little"))

    # ---- keys

    def add_child(self, parent: int, name: str) -> int:
        """A new key below another; returns its handle. GuestError EEXIST, EINVAL for a name that can't be one."""
        hive = self.hive
        above = hive.node(parent)
        if not name or len(name) > _KEY_NAME or "\\" in name or "\0" in name:
            raise GuestError(errno.EINVAL)
        listing = self._listing(parent)
        if folded(name) in listing.names:
            raise GuestError(errno.EEXIST)
        raw, latin = stored(name)
        security = int.from_bytes(above[44:48], "little")
        node = bytearray(76)
        node[:4] = b"nk" + (LATIN_KEY if latin else 0).to_bytes(2, "little")
        struct.pack_into("<QIIIIIIIII", node, 4, _now(), 0, parent - BASE, 0, 0, NONE, NONE, 0, NONE, security)
        struct.pack_into("<I", node, 48, NONE)
        struct.pack_into("<HH", node, 72, len(raw), 0)
        made = self._allocate(bytes(node) + raw)
        self._share(security, 1)
        listing.add(name, made)
        self._relist(parent, listing)
        wide = max(int.from_bytes(above[52:54], "little"), 2 * len(name))
        self._patch(parent, 52, min(wide, 0xFFFF).to_bytes(2, "little"))
        return made

    def _listing(self, parent: int) -> _Listing:
        found = self._listings.get(parent)
        if found is None:
            found = self._listings[parent] = _Listing(self.hive, parent)
        return found

    def _relist(self, parent: int, listing: _Listing) -> None:
        """Bring a key's changed list of children into cells, into those it has as far as they are large enough."""
        for leaf in listing.leaves:
            if leaf.changed:
                mark = listing.mark + len(leaf.rows).to_bytes(2, "little")
                leaf.cell = self._renew(leaf.cell, mark + b"".join(row.stored for row in leaf.rows))
                leaf.changed = False
        for cell in listing.gone:
            self._release(cell)
        listing.gone = []
        cells = [leaf.cell - BASE for leaf in listing.leaves]
        top, place = listing.top, NONE
        if len(cells) > 1:
            listing.top = self._renew(top, struct.pack(f"<2sH{len(cells)}I", b"ri", len(cells), *cells))
            place = listing.top - BASE
        else:
            if top:
                self._release(top)
                listing.top = 0
            if cells:
                place = cells[0]
        self._word(parent, 20, sum(len(leaf.rows) for leaf in listing.leaves))
        self._word(parent, 28, place)
        self._patch(parent, 4, _now().to_bytes(8, "little"))

    def _renew(self, cell: int, data: bytes) -> int:
        """Put data into a cell, or where it is too small into another with room for more."""
        if cell:
            held = -int.from_bytes(self.hive.store.read(cell, 4), "little", signed=True) - 4
            if held >= len(data):
                self._patch(cell, 0, data)
                return cell
            self._release(cell)
        return self._allocate(data + bytes(len(data) // 4))

    def _share(self, place: int, by: int) -> None:
        """One key more or less has a security descriptor; one that none has leaves the chain of them."""
        if place == NONE:
            return
        cell = self.hive.cell(BASE + place, b"sk", 20)
        before, after, count = struct.unpack_from("<III", cell, 4)
        count += by
        if count > 0:
            self._word(BASE + place, 12, count & 0xFFFFFFFF)
            return
        for handle, at, other in ((before, 8, after), (after, 4, before)):
            if handle != place:
                self.hive.cell(BASE + handle, b"sk", 20)
                self._word(BASE + handle, at, other)
        self._release(BASE + place)

    def delete(self, handle: int) -> None:
        """Remove a key with all below it. GuestError EINVAL for the root."""
        hive = self.hive
        hive.node(handle)
        if handle == hive.root:
            raise GuestError(errno.EINVAL)
        parent = hive.parent(handle)
        children = hive.children(parent)
        if handle not in children:
            raise GuestError(errno.EINVAL)
        # everything is looked at before anything is changed
        doomed: list[int] = []
        seen = {handle}
        todo = [handle]
        while todo:
            one = todo.pop()
            doomed.append(one)
            for below in hive.children(one):
                if below in seen or below == hive.root or below == parent:
                    raise GuestError(errno.ELOOP)
                hive.node(below)
                seen.add(below)
                todo.append(below)
        cells = [cell for one in doomed for cell in self._cells(one)]
        shared = [int.from_bytes(hive.node(one)[44:48], "little") for one in doomed]
        listing = self._listing(parent)
        listing.remove(handle)
        self._relist(parent, listing)
        for one in doomed:
            self._listings.pop(one, None)
        for place in shared:
            self._share(place, -1)
        for cell in cells:
            self._release(cell)

    def _cells(self, handle: int) -> list[int]:
        """The cells that one key alone has: itself, its lists, values and class."""
        hive = self.hive
        data = hive.node(handle)
        cells = [handle, *hive.lists(handle), *self._value_cells(handle)]
        place, length = int.from_bytes(data[48:52], "little"), int.from_bytes(data[74:76], "little")
        if place != NONE and length:
            hive.raw(BASE + place)
            cells.append(BASE + place)
        return cells

    def _value_cells(self, handle: int) -> list[int]:
        """The cells of a key's values and of the list of them."""
        hive = self.hive
        values = hive.values(handle)
        cells = [cell for one in values for cell in (one, *self._data_cells(one))]
        if values:
            cells.append(BASE + int.from_bytes(hive.node(handle)[40:44], "little"))
        return cells

    def _data_cells(self, value: int) -> list[int]:
        hive = self.hive
        length, place = struct.unpack_from("<II", hive.value(value), 4)
        if length & INLINE or not length:
            return []
        held = hive.raw(BASE + place)
        cells = [BASE + place]
        if length > SEGMENT and held[:2] == b"db" and hive.minor > 3:
            cells += [BASE + int.from_bytes(held[4:8], "little"), *hive.segments(held)]
        return cells

    # ---- values

    def set_value(self, handle: int, key: str, kind: int, data: bytes) -> None:
        """Give a key a value of that name, instead of the one it has, or as its last."""
        hive = self.hive
        node = hive.node(handle)
        if len(key) > _VALUE_NAME or len(data) > MAX_DATA or not 0 <= kind <= NONE:
            raise GuestError(errno.EINVAL)
        values = hive.values(handle)
        old = hive.find_value(handle, key)
        gone = [old, *self._data_cells(old)] if old else []
        name, latin = stored(key)
        length, place = len(data), NONE
        if len(data) <= 4:
            length |= INLINE
            place = int.from_bytes(data.ljust(4, b"\0"), "little")
        elif len(data) <= SEGMENT or hive.minor <= 3:
            place = self._allocate(data) - BASE
        else:
            parts = [self._allocate(data[at : at + SEGMENT]) for at in range(0, len(data), SEGMENT)]
            spots = self._allocate(b"".join((one - BASE).to_bytes(4, "little") for one in parts))
            place = self._allocate(struct.pack("<2sHII", b"db", len(parts), spots - BASE, 0)) - BASE
        made = self._allocate(
            struct.pack("<2sHIIIHH", b"vk", len(name), length, place, kind, LATIN_VALUE if latin else 0, 0) + name
        )
        if old:
            values[values.index(old)] = made
        else:
            values.append(made)
        had = BASE + int.from_bytes(node[40:44], "little") if values[1:] or old else 0
        listed = self._renew(had, struct.pack(f"<{len(values)}I", *(one - BASE for one in values)))
        self._word(handle, 36, len(values))
        self._word(handle, 40, listed - BASE)
        longest, largest = struct.unpack_from("<II", node, 60)
        self._word(handle, 60, max(longest, 2 * len(key)))
        self._word(handle, 64, max(largest, len(data)))
        self._patch(handle, 4, _now().to_bytes(8, "little"))
        for cell in gone:
            self._release(cell)

    # ---- to the file

    def seal(self) -> None:
        """Write the base block of the changed hive into the store; nothing when nothing changed."""
        if not self.changed:
            return
        hive = self.hive
        block = bytearray(hive.store.read(0, BASE))
        number = max(struct.unpack_from("<II", block, 4)) + 1 & 0xFFFFFFFF
        struct.pack_into("<IIQ", block, 4, number, number, _now())
        struct.pack_into("<I", block, 40, hive.end - BASE)
        struct.pack_into("<I", block, 508, checksum(bytes(block)))
        hive.store.write(0, bytes(block))

    def written(self, read: Callable[[int, int], bytes] | None = None) -> None:
        """The file has all changes; ``read`` where it is another one now."""
        self.hive.store.written(read)
        self.changed = False


class _Row:
    """A key in a list: what it is sorted by, its handle, its bytes there."""

    __slots__ = ("handle", "name", "order", "stored")

    def __init__(self, name: str, handle: int, lettered: bool) -> None:
        self.order = order(name)
        self.name = folded(name)
        self.handle = handle
        self.stored = (handle - BASE).to_bytes(4, "little") + (hint(name) if lettered else hashed(name))


class _Leaf:
    """A cell of a list, 0 while it has none, and its rows."""

    __slots__ = ("cell", "changed", "rows")

    def __init__(self, cell: int, rows: list[_Row]) -> None:
        self.cell = cell
        self.rows = rows
        self.changed = False


class _Listing:
    """The children of a key: ``leaves`` of their list, ``top`` the cell above them where there are several, ``gone``
    the cells that are no longer needed."""

    def __init__(self, hive: Hive, parent: int) -> None:
        lettered = hive.minor < 5
        self.mark = b"lf" if lettered else b"lh"
        self._lettered = lettered
        rows = [_Row(hive.name(one), one, lettered) for one in hive.children(parent)]
        self.names = {row.name for row in rows}
        cells = hive.lists(parent)
        self.top = cells.pop(0) if len(cells) > 1 else 0
        self.leaves: list[_Leaf] = []
        self.gone: list[int] = []
        counts = [int.from_bytes(hive.raw(cell, 4)[2:4], "little") for cell in cells]
        for cell, count in zip(cells, counts, strict=True):
            leaf = _Leaf(cell, rows[:count])
            # lists of another kind are written anew as a whole
            leaf.changed = hive.raw(cell, 4)[:2] != self.mark
            self.leaves.append(leaf)
            del rows[:count]

    def add(self, name: str, handle: int) -> None:
        row = _Row(name, handle, self._lettered)
        if not self.leaves:
            self.leaves.append(_Leaf(0, []))
        number = next(
            (at for at, leaf in enumerate(self.leaves) if leaf.rows and leaf.rows[-1].order > row.order),
            len(self.leaves) - 1,
        )
        leaf = self.leaves[number]
        insort(leaf.rows, row, key=lambda one: one.order)
        leaf.changed = True
        self.names.add(row.name)
        if len(leaf.rows) > _LIST:
            half = len(leaf.rows) // 2
            other = _Leaf(0, leaf.rows[half:])
            other.changed = True
            del leaf.rows[half:]
            self.leaves.insert(number + 1, other)

    def remove(self, handle: int) -> None:
        for leaf in list(self.leaves):
            for row in leaf.rows:
                if row.handle == handle:
                    leaf.rows.remove(row)
                    leaf.changed = True
                    self.names.discard(row.name)
                    if not leaf.rows:
                        self.leaves.remove(leaf)
                        if leaf.cell:
                            self.gone.append(leaf.cell)
                    return


def _now() -> int:
    return time.time_ns() // 100 + _EPOCH
