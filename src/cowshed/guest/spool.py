"""Bytes that are not where they belong yet: in memory while they are few, in a file without a name beyond."""

from __future__ import annotations

from bisect import bisect_right

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import BinaryIO

#: bytes that are kept in memory
IN_MEMORY = 64 << 20


class Spool:
    """Ranges of bytes of a device or of a file, the newest data of each. ``in_memory``: bytes kept without a file."""

    def __init__(self, in_memory: int = IN_MEMORY) -> None:
        self._limit = in_memory
        self._starts: list[int] = []
        self._parts: list[tuple[int, int]] = []  # (length, where in the store)
        self._memory = bytearray()
        self._file: BinaryIO | None = None
        self._end = 0

    def __bool__(self) -> bool:
        return bool(self._starts)

    def write(self, offset: int, data: bytes | memoryview) -> None:
        length = len(data)
        if not length:
            return
        at = self._end
        if self._file is None and at + length > self._limit:
            import tempfile

            self._file = tempfile.TemporaryFile(buffering=0)  # noqa: SIM115
            assert self._file is not None
            self._put(0, memoryview(self._memory))
            self._memory = bytearray()
        if self._file is None:
            self._memory += data
        else:
            self._put(at, memoryview(data))
        self._end += length
        self.drop(offset, length)
        index = bisect_right(self._starts, offset)
        if index and self._starts[index - 1] + self._parts[index - 1][0] == offset:
            before, place = self._parts[index - 1]
            if place + before == at:
                self._parts[index - 1] = (before + length, place)
                return
        self._starts.insert(index, offset)
        self._parts.insert(index, (length, at))

    def _put(self, at: int, view: memoryview) -> None:
        import os

        assert self._file is not None
        while view:
            done = os.pwrite(self._file.fileno(), view, at)
            at += done
            view = view[done:]

    def drop(self, offset: int, length: int) -> None:
        """Forget what was written to a range."""
        starts, parts = self._starts, self._parts
        end = offset + length
        index = bisect_right(starts, offset)
        if index and starts[index - 1] + parts[index - 1][0] > offset:
            index -= 1
        last = index
        keep: list[tuple[int, int, int]] = []
        while last < len(starts) and starts[last] < end:
            start, (size, place) = starts[last], parts[last]
            if start < offset:
                keep.append((start, offset - start, place))
            if start + size > end:
                keep.append((end, start + size - end, place + end - start))
            last += 1
        if last > index:
            starts[index:last] = [item[0] for item in keep]
            parts[index:last] = [(item[1], item[2]) for item in keep]

    def _get(self, place: int, length: int) -> bytes | memoryview:
        if self._file is None:
            return bytes(self._memory[place : place + length])
        import os

        return os.pread(self._file.fileno(), length, place)

    def pieces(self, offset: int = 0, length: int = 1 << 62) -> Iterator[tuple[int, int, int]]:
        """(offset, length, where in the store) of what was written in a range, in order."""
        end = offset + length
        index = bisect_right(self._starts, offset)
        if index and self._starts[index - 1] + self._parts[index - 1][0] > offset:
            index -= 1
        while index < len(self._starts) and self._starts[index] < end:
            start = self._starts[index]
            size, place = self._parts[index]
            low, high = max(start, offset), min(start + size, end)
            yield low, high - low, place + low - start
            index += 1

    def data(self, step: int = 8 << 20) -> Iterator[tuple[int, bytes | memoryview]]:
        """All of it, in order of place."""
        for offset, length, place in self.pieces():
            for at in range(0, length, step):
                yield offset + at, self._get(place + at, min(step, length - at))

    def patch(self, offset: int, view: memoryview) -> None:
        """Put what was written over bytes that were read from the device."""
        for start, length, place in self.pieces(offset, len(view)):
            done = 0
            while done < length:
                data = self._get(place + done, length - done)
                view[start - offset + done : start - offset + done + len(data)] = data
                done += len(data)

    def close(self) -> None:
        if self._file is not None:
            self._file.close()
        self._file = None
        self._memory = bytearray()
        self._starts, self._parts, self._end = [], [], 0
