"""A disk whose changes are forgotten: what is written goes to a temporary file, and nothing below is ever touched."""

from __future__ import annotations

import os

from ..block.node import DATA, Extent, Node, byte_view

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from ..block.node import Buffer

_BLOCK = 4096
_PER_CHUNK = 256
_CHUNK = _BLOCK * _PER_CHUNK


class _Store(Node):
    """The temporary file, unlinked from the start; made when it is first written."""

    driver = "file"

    def __init__(self, size: int) -> None:
        super().__init__("(temporary)", read_only=False)
        self.size = size
        self.fd = -1

    def read_into(self, offset: int, view: memoryview) -> None:
        done = os.preadv(self.fd, [view], offset) if self.fd >= 0 else 0
        if done < len(view):
            view[done:] = bytes(len(view) - done)

    def write(self, offset: int, data: Buffer) -> None:
        if self.fd < 0:
            import tempfile

            handle, name = tempfile.mkstemp(prefix="cowshed-")
            os.unlink(name)
            self.fd = handle
        view = byte_view(data)
        while view:
            done = os.pwrite(self.fd, view, offset)
            view = view[done:]
            offset += done

    def shutdown(self) -> None:
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1


class ScratchNode(Node):
    """``file`` as it is, with changes on top that are gone when this is closed. Closing it closes ``file``."""

    driver = "scratch"
    is_filter = True

    def __init__(self, file: Node) -> None:
        super().__init__(file.filename, read_only=False)
        self.children["file"] = file
        self.size = file.size
        self._store = _Store(file.size)
        #: chunk -> bits of its blocks that are in the store
        self._written: dict[int, int] = {}

    def _runs(self, offset: int, length: int) -> Iterator[tuple[int, int, bool]]:
        """(offset, length, is it in the store) over a range, neighbours merged within a chunk."""
        end = offset + length
        if not self._written:
            if length:
                yield offset, length, False
            return
        while offset < end:
            chunk = offset // _CHUNK
            stop = min(end, (chunk + 1) * _CHUNK)
            mask = self._written.get(chunk, 0)
            if not mask:
                yield offset, stop - offset, False
                offset = stop
                continue
            while offset < stop:
                block = (offset % _CHUNK) // _BLOCK
                here = bool(mask >> block & 1)
                while block < _PER_CHUNK and bool(mask >> block & 1) == here:
                    block += 1
                until = min(stop, chunk * _CHUNK + block * _BLOCK)
                yield offset, until - offset, here
                offset = until

    def layer_extents(self, offset: int, length: int) -> Iterator[Extent]:
        for start, count, stored in self._runs(offset, length):
            if stored:
                yield Extent(start, count, DATA, self._store, start, 0, self)
            else:
                for extent in self.file.extents(start, count):
                    extent.owner = self
                    yield extent

    def read_into(self, offset: int, view: memoryview) -> None:
        view = byte_view(view)
        self._check_range(offset, len(view))
        if not self._written:
            self.file.read_into(offset, view)
            return
        with self.lock:
            for start, count, stored in self._runs(offset, len(view)):
                part = view[start - offset : start - offset + count]
                (self._store if stored else self.file).read_into(start, part)

    def write(self, offset: int, data: Buffer) -> None:
        view = byte_view(data)
        self._check_write(offset, len(view))
        if not view:
            return
        with self.lock:
            end = offset + len(view)
            first, last = offset // _BLOCK, (end - 1) // _BLOCK
            if offset % _BLOCK:
                self._bring(first)
            if end % _BLOCK and (last != first or not offset % _BLOCK):
                self._bring(last)
            self._store.write(offset, view)
            for block in range(first, last + 1):
                chunk, bit = divmod(block, _PER_CHUNK)
                self._written[chunk] = self._written.get(chunk, 0) | 1 << bit

    def _bring(self, block: int) -> None:
        """Copy a block up, of which only a part will be written."""
        chunk, bit = divmod(block, _PER_CHUNK)
        if self._written.get(chunk, 0) >> bit & 1:
            return
        start = block * _BLOCK
        self._store.write(start, self.file.read(start, min(_BLOCK, self.size - start)))

    def write_zeroes(self, offset: int, length: int, unmap: bool = False) -> None:
        self._check_write(offset, length)
        while length:
            count = min(length, 1 << 20)
            self.write(offset, bytes(count))
            offset += count
            length -= count

    def discard(self, offset: int, length: int) -> None:
        self._check_write(offset, length)

    def flush(self) -> None:
        """Nothing here outlives the process."""

    def shutdown(self) -> None:
        self._store.close()
