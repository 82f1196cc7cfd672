"""The bytes of a hive: read page by page, with changes kept in memory until they are written."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

PAGE = 4096
#: pages read that are kept
_KEPT = 2048


class Store:
    """``read(offset, length)`` gives what is in the file, ``size`` is its length, with what was appended."""

    def __init__(self, read: Callable[[int, int], bytes], size: int) -> None:
        self._file = read
        self._file_size = size
        self.size = size
        self._kept: dict[int, bytes] = {}
        self.changed: dict[int, bytearray] = {}

    def _page(self, number: int) -> bytes | bytearray:
        page: bytes | bytearray | None = self.changed.get(number)
        if page is not None:
            return page
        kept = self._kept.get(number)
        if kept is None:
            start = number * PAGE
            there = max(0, min(PAGE, self._file_size - start))
            kept = self._file(start, there) if there else b""
            kept += bytes(PAGE - len(kept))
            if len(self._kept) >= _KEPT:
                del self._kept[next(iter(self._kept))]
            self._kept[number] = kept
        return kept

    def read(self, offset: int, length: int) -> bytes:
        """Bytes within ``size``; the caller has checked that."""
        first, last = offset // PAGE, (offset + length - 1) // PAGE
        if first == last or length <= 0:
            start = offset - first * PAGE
            return bytes(self._page(first)[start : start + length])
        data = b"".join(self._page(number) for number in range(first, last + 1))
        start = offset - first * PAGE
        return data[start : start + length]

    def write(self, offset: int, data: bytes) -> None:
        done = 0
        while done < len(data):
            number, start = divmod(offset + done, PAGE)
            page = self.changed.get(number)
            if page is None:
                page = self.changed[number] = bytearray(self._page(number))
                self._kept.pop(number, None)
            count = min(PAGE - start, len(data) - done)
            page[start : start + count] = data[done : done + count]
            done += count

    def grow(self, size: int) -> None:
        self.size = max(self.size, size)

    def pieces(self) -> Iterator[bytes]:
        """All bytes from the begin, for a file of its own."""
        for at in range(0, self.size, PAGE * 64):
            yield self.read(at, min(PAGE * 64, self.size - at))

    def changes(self) -> Iterator[tuple[int, bytes]]:
        """(offset, bytes) of what changed, the first page last."""
        pages = sorted(self.changed)
        for number in [*(one for one in pages if one), *(one for one in pages if not one)]:
            yield number * PAGE, bytes(self.changed[number][: max(0, self.size - number * PAGE)])

    def written(self, read: Callable[[int, int], bytes] | None = None) -> None:
        """The file has all changes now; ``read`` where it is another one."""
        self._file = read or self._file
        self._file_size = self.size
        for number, page in self.changed.items():
            if len(self._kept) < _KEPT:
                self._kept[number] = bytes(page)
        self.changed = {}
