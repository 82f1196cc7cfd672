"""What files were given and the device has not yet: whole clusters, in memory or, when they are many, in a temporary
file."""

from __future__ import annotations

import os
from array import array

from ....errors import host_error
from .table import PAGE

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import IO

    from ....block.node import Node
    from .boot import Boot

NONE, ZERO = -1, -2
#: bytes kept in memory
_MEMORY = 16 << 20
_STEP = 4 << 20


class Overlay:
    """Clusters by number: where each stands in the store, `ZERO` for zeroes, `NONE` for what the device has."""

    def __init__(self, node: Node, boot: Boot) -> None:
        self.node = node
        self.boot = boot
        self.size: int = boot.cluster_size
        self.pages: dict[int, array[int]] = {}
        self._slots = 0
        self._memory = bytearray()
        self._file: IO[bytes] | None = None

    def close(self) -> None:
        """Forget everything."""
        self.pages.clear()
        self._slots = 0
        self._memory = bytearray()
        if self._file is not None:
            self._file.close()
            self._file = None

    def _set(self, cluster: int, count: int, slot: int) -> None:
        """The first of ``count`` clusters stands at ``slot``, the others after it (or all are ZERO or NONE)."""
        while count:
            number, at = divmod(cluster, PAGE)
            step = min(count, PAGE - at)
            page = self.pages.get(number)
            if page is None:
                if slot == NONE:
                    cluster, count = cluster + step, count - step
                    continue
                page = self.pages[number] = array("q", [NONE]) * PAGE
            if slot < 0:
                page[at : at + step] = array("q", [slot]) * step
            else:
                page[at : at + step] = array("q", range(slot, slot + step))
                slot += step
            cluster, count = cluster + step, count - step

    def walk(self, cluster: int, count: int) -> Iterator[tuple[int, int, int]]:
        """(first cluster, how many, slot of the first or ZERO or NONE) of runs that lie together."""
        while count:
            number, at = divmod(cluster, PAGE)
            page = self.pages.get(number)
            step = min(count, PAGE - at)
            if page is None:
                yield cluster, step, NONE
            else:
                end = at + step
                while at < end:
                    slot = page[at]
                    begin = at
                    at += 1
                    if slot < 0:
                        while at < end and page[at] == slot:
                            at += 1
                    else:
                        while at < end and page[at] == slot + at - begin:
                            at += 1
                    yield number * PAGE + begin, at - begin, slot
            cluster, count = cluster + step, count - step

    def drop(self, cluster: int, count: int) -> None:
        self._set(cluster, count, NONE)

    def zero(self, cluster: int, count: int) -> None:
        self._set(cluster, count, ZERO)

    def write(self, cluster: int, data: memoryview) -> None:
        """Whole clusters, one after the other. Raises HostError, NoSpaceError."""
        for first, count, slot in list(self.walk(cluster, len(data) // self.size)):
            if slot < 0:
                slot = self._slots
                self._slots += count
                self._put(slot, data[: count * self.size])
                self._set(first, count, slot)
            else:
                self._put(slot, data[: count * self.size])
            data = data[count * self.size :]

    def read_into(self, cluster: int, skip: int, view: memoryview) -> None:
        """Fill ``view`` from clusters that follow each other, from byte ``skip`` of the first on."""
        count = -(-(skip + len(view)) // self.size)
        for first, number, slot in self.walk(cluster, count):
            step = min(number * self.size - skip, len(view))
            part = view[:step]
            if slot == NONE:
                self.node.read_into(self.boot.cluster_at(first) + skip, part)
            elif slot == ZERO:
                part[:] = bytes(step)
            else:
                self._get(slot * self.size + skip, part)
            view = view[step:]
            skip = 0

    def commit(self) -> None:
        """Write everything to the device, in its order there."""
        for number in sorted(self.pages):
            for first, count, slot in self.walk(number * PAGE, PAGE):
                at = self.boot.cluster_at(first)
                length = count * self.size
                if slot == ZERO:
                    self.node.write_zeroes(at, length)
                elif slot != NONE:
                    buffer = memoryview(bytearray(min(length, _STEP)))
                    for start in range(0, length, _STEP):
                        part = buffer[: min(_STEP, length - start)]
                        self._get(slot * self.size + start, part)
                        self.node.write(at + start, part)

    # ---- the store

    def _put(self, slot: int, data: memoryview) -> None:
        at = slot * self.size
        try:
            if self._file is None and at + len(data) > _MEMORY:
                import tempfile

                self._file = tempfile.TemporaryFile(buffering=0)  # noqa: SIM115 (closed with the overlay)
                self._write_all(memoryview(self._memory), 0)
                self._memory = bytearray()
            if self._file is not None:
                self._write_all(data, at)
                return
        except OSError as error:
            raise host_error(error, "Could not keep what is to be written") from error
        if len(self._memory) < at:
            self._memory += bytes(at - len(self._memory))
        self._memory[at : at + len(data)] = data

    def _write_all(self, data: memoryview, at: int) -> None:
        assert self._file is not None
        while data:
            done = os.pwrite(self._file.fileno(), data, at)
            data = data[done:]
            at += done

    def _get(self, at: int, view: memoryview) -> None:
        if self._file is None:
            view[:] = memoryview(self._memory)[at : at + len(view)]
            return
        try:
            while view:
                done = os.preadv(self._file.fileno(), [view], at)
                if not done:
                    raise OSError(5, "")
                view = view[done:]
                at += done
        except OSError as error:
            raise host_error(error, "Could not read what is to be written") from error
