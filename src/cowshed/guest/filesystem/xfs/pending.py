"""File data that waits for `sync`: pieces by their place on the device, in a temporary file once there are many."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import IO

    from ....block.node import Node

_IN_MEMORY = 1 << 24
_STEP = 1 << 20


class Pending:
    """Pieces in the order in which they were written; later ones win. ``source`` -1 stands for zeroes."""

    __slots__ = ("_end", "_file", "runs")

    def __init__(self) -> None:
        self.runs: list[tuple[int, int, int]] = []  # (offset on the device, length, offset in the file)
        self._file: IO[bytes] | None = None
        self._end = 0

    def add(self, offset: int, data: memoryview) -> None:
        if self._file is None:
            import tempfile

            # it lives until `clear`
            self._file = tempfile.SpooledTemporaryFile(_IN_MEMORY)  # noqa: SIM115
        self._file.seek(self._end)
        self._file.write(data)
        last = self.runs[-1] if self.runs else (0, 0, -1)
        if last[2] >= 0 and last[0] + last[1] == offset:
            self.runs[-1] = (last[0], last[1] + len(data), last[2])
        else:
            self.runs.append((offset, len(data), self._end))
        self._end += len(data)

    def zero(self, offset: int, length: int) -> None:
        if length > 0:
            self.runs.append((offset, length, -1))

    @property
    def length(self) -> int:
        """Bytes of all pieces."""
        return sum(length for _, length, _ in self.runs)

    def spans(self, unit: int) -> list[tuple[int, int]]:
        """(offset, length) of what changes, in whole units, ascending and apart from each other."""
        found: list[tuple[int, int]] = []
        for start, length, _ in sorted(self.runs):
            first = start // unit * unit
            end = (start + length + unit - 1) // unit * unit
            if found and found[-1][0] + found[-1][1] >= first:
                before = found.pop()
                first, end = before[0], max(end, before[0] + before[1])
            found.append((first, end - first))
        return found

    def touches(self, offset: int, length: int) -> bool:
        return any(start < offset + length and offset < start + count for start, count, _ in self.runs)

    def lay_over(self, offset: int, view: memoryview) -> None:
        """Put what waits for a range of the device into ``view``, which holds the device's bytes."""
        end = offset + len(view)
        for start, length, source in self.runs:
            first, stop = max(start, offset), min(start + length, end)
            if first < stop:
                part = view[first - offset : stop - offset]
                part[:] = bytes(stop - first) if source < 0 else self._bytes(source + first - start, stop - first)

    def _bytes(self, at: int, length: int) -> bytes:
        assert self._file is not None
        self._file.seek(at)
        return self._file.read(length)

    def write(self, node: Node) -> None:
        for start, length, source in self.runs:
            if source < 0:
                node.write_zeroes(start, length)
                continue
            done = 0
            while done < length:
                step = min(_STEP, length - done)
                node.write(start + done, self._bytes(source + done, step))
                done += step

    def clear(self) -> None:
        self.runs = []
        self._end = 0
        if self._file is not None:
            self._file.close()
            self._file = None
