"""Upload and download: the bytes of a volume's file from and to files, pipes and file objects."""

from __future__ import annotations

import errno
import os
import stat

from ..block.node import DATA
from ..errors import ArgumentError, HostCallError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import BinaryIO

    from ..block.node import Node
    from ..progress import Progress

#: bytes moved at a time: they are still in the processor's cache when written
STEP = 512 << 10
_ZEROES = memoryview(bytes(STEP))


def download(
    node: Node,
    target: BinaryIO | str | os.PathLike[str],
    *names: str,
    offset: int,
    length: int,
    sparse: bool,
    progress: Progress,
) -> None:
    """Copy ``length`` bytes (0: all there are) from ``offset`` to ``target``; nothing where ``offset`` is past the end.

    ``names``: files and devices that the bytes come from, which a path must not name. Raises ArgumentError when it
    does, HostCallError when the target can't be made or written, HostError when the source can't be read.
    """
    rest = max(0, node.size - offset)
    count = min(length, rest) if length else rest
    progress.start(count)
    if isinstance(target, (str, os.PathLike)):
        path = os.fspath(target)
        try:
            fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o666)
        except (OSError, ValueError) as error:
            raise HostCallError(f"cannot create {path}", _number(error), path=path) from error
        with open(fd, "wb", buffering=0) as file:
            empty(fd, path, *names)
            _download(node, file, offset, count, sparse and stat.S_ISREG(os.fstat(fd).st_mode), progress)
    else:
        _download(node, target, offset, count, sparse and target.seekable(), progress)


def empty(fd: int, path: str, *names: str) -> None:
    """Empty the file that is to be written. Raises ArgumentError when it is one of ``names``, by whatever name: what
    is to be read would be gone before the first byte; HostCallError when it can't be emptied."""
    try:
        there = os.fstat(fd)
        for name in names:
            try:
                source = os.stat(name)
            except (OSError, ValueError):
                continue
            if (source.st_dev, source.st_ino) == (there.st_dev, there.st_ino):
                raise ArgumentError(f"'{path}' is the volume itself", field="file", value=path)
        if stat.S_ISREG(there.st_mode):
            os.ftruncate(fd, 0)
    except OSError as error:
        raise HostCallError(f"cannot create {path}", _number(error), path=path) from error


def _download(node: Node, file: BinaryIO, offset: int, count: int, sparse: bool, progress: Progress) -> None:
    if not count:
        return
    buffer = memoryview(bytearray(min(STEP, count)))
    done = 0
    hole = False
    try:
        for extent in node.extents(offset, count):
            hole = extent.kind != DATA
            if hole and sparse:
                file.seek(extent.length, os.SEEK_CUR)
                done += extent.length
                progress.at(done)
                continue
            for at, step in _steps(extent.offset, extent.length):
                view = _ZEROES[:step]
                if not hole:
                    view = buffer[:step]
                    node.read_into(at, view)
                _write(file, view)
                done += step
                progress.at(done)
        if hole and sparse:
            end = file.tell()
            if file.seek(0, os.SEEK_END) < end:
                file.truncate(end)
            if file.seek(0, os.SEEK_END) < end:  # io.BytesIO only ever makes itself shorter
                file.seek(end - 1)
                _write(file, _ZEROES[:1])
            file.seek(end)
    except OSError as error:
        raise HostCallError("cannot write to stream", _number(error)) from error


def _write(file: BinaryIO, view: memoryview) -> None:
    while view:
        written = file.write(view)
        if written is None:
            raise OSError(errno.EAGAIN, os.strerror(errno.EAGAIN))
        view = view[written:]


def upload(
    node: Node,
    source: BinaryIO | str | os.PathLike[str],
    name: str,
    *,
    offset: int,
    length: int,
    sparse: bool,
    limit: int | None,
    progress: Progress,
) -> None:
    """Copy all of ``source`` to ``offset``; at most ``length`` bytes where that is not 0.

    ``limit``: how long the volume's file may become, if it is not that long already; None: as long as it takes.

    Nothing is written when it is known beforehand that it does not fit. Raises ArgumentError when it goes beyond the
    ``limit`` of the volume called ``name``, HostCallError when it is longer than ``length`` or can't
    be read, HostError when the volume can't be written.
    """
    if isinstance(source, (str, os.PathLike)):
        path = os.fspath(source)
        try:
            fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except (OSError, ValueError) as error:
            raise HostCallError(f"cannot read {path}", _number(error), path=path) from error
        with open(fd, "rb", buffering=0) as file:
            upload(node, file, name, offset=offset, length=length, sparse=sparse, limit=limit, progress=progress)
        return
    fd, begin = _real_file(source)
    try:
        if fd < 0:
            _from_stream(node, source, _Bound(node, name, offset, length, limit), progress)
            return
        there = os.fstat(fd)
        total = max(0, there.st_size - begin)
        mine = file_of(node)
        if mine >= 0 and os.path.sameopenfile(fd, mine):
            # what is to be read further on would be written over before
            raise ArgumentError(f"'{node.filename}' is the volume itself", field="file", value=node.filename)
        if length and total > length:
            raise _too_long()
        if total and offset + total > node.size:
            if limit is not None and offset + total > limit:
                raise _no_room(max(node.size, limit), name, offset, total)
            node.resize(offset + total)
        progress.start(total)
        _from_file(node, fd, begin, offset, total, sparse, progress)
        source.seek(begin + total)
    except OSError as error:
        raise HostCallError("cannot read from stream", _number(error)) from error


def file_of(node: Node) -> int:
    """The descriptor of the one file that a raw disk is; -1 where there is none."""
    fd: int = getattr(node.children.get("file", node), "fd", -1)
    return fd


def _from_file(node: Node, fd: int, begin: int, offset: int, total: int, sparse: bool, progress: Progress) -> None:
    buffer = memoryview(bytearray(min(STEP, total or 1)))
    done = 0
    for start, span, data in _spans(fd, begin, total, sparse):
        if not data:
            node.write_zeroes(offset + start - begin, span, unmap=True)
            done += span
            progress.at(done)
            continue
        for at, step in _steps(start, span):
            view = buffer[:step]
            got = os.preadv(fd, [view], at)
            while 0 < got < step:
                more = os.preadv(fd, [view[got:]], at + got)
                if not more:
                    break
                got += more
            if got < step:
                raise OSError(errno.EIO, "")  # it became shorter: nobody knows what was meant
            node.write(offset + at - begin, view)
            done += step
            progress.at(done)


def _spans(fd: int, begin: int, total: int, sparse: bool) -> Iterator[tuple[int, int, bool]]:
    """(offset, length, is data) of a file; all of it is data where nobody asks for holes, or it can't say."""
    end = begin + total
    at = begin
    while sparse and at < end:
        try:
            data = min(os.lseek(fd, at, os.SEEK_DATA), end)
        except OSError as error:
            if error.errno != errno.ENXIO:
                break
            data = end
        if data > at:
            yield at, data - at, False
        if data < end:
            hole = min(os.lseek(fd, data, os.SEEK_HOLE), end)
            yield data, hole - data, True
            data = hole
        at = data
    if at < end:
        yield at, end - at, True


class _Bound:
    """Where bytes of unknown number go, and how many may come."""

    def __init__(self, node: Node, name: str, offset: int, length: int, limit: int | None) -> None:
        self.node = node
        self.name = name
        self.offset = offset
        self.length = length
        self.limit = limit
        self.done = 0

    def write(self, view: memoryview) -> None:
        """Write what fits; the error comes after that, as it does for anybody who writes to something full."""
        over: Exception | None = None
        if self.length and self.done + len(view) > self.length:
            over = _too_long()
            view = view[: self.length - self.done]
        at = self.offset + self.done
        if self.limit is not None:
            most = max(self.node.size, self.limit)
            if at + len(view) > most:
                over = _no_room(most, self.name, self.offset, None)
                view = view[: max(0, most - at)]
        if len(view) and at + len(view) > self.node.size:
            self.node.resize(at + len(view))
        self.node.write(at, view) if len(view) else None
        self.done += len(view)
        if over is not None:
            raise over


def _from_stream(node: Node, source: BinaryIO, bound: _Bound, progress: Progress) -> None:
    progress.start(bound.length)
    while True:
        data = source.read(STEP)
        if data is None:
            raise OSError(errno.EAGAIN, os.strerror(errno.EAGAIN))
        if not data:
            return
        bound.write(memoryview(data))
        progress.at(bound.done)


def _real_file(source: BinaryIO) -> tuple[int, int]:
    """(descriptor, position) of a file object that stands for a regular file; (-1, 0) for any other."""
    try:
        fd = source.fileno()
        if stat.S_ISREG(os.fstat(fd).st_mode) and type(source).__module__ in ("_io", "io", "tempfile"):
            return fd, source.tell()
    except (OSError, AttributeError, ValueError):
        pass
    return -1, 0


def _steps(offset: int, length: int) -> Iterator[tuple[int, int]]:
    return ((offset + at, min(STEP, length - at)) for at in range(0, length, STEP))


def _too_long() -> HostCallError:
    return HostCallError("cannot write to stream", errno.ENOSPC, hint="there is more than the length that was given")


def _no_room(most: int, name: str, offset: int, total: int | None) -> ArgumentError:
    room = max(0, most - offset)
    much = "more" if total is None else f"{total} bytes"
    return ArgumentError(
        f"{much} to upload at offset {offset}, but volume '{name}' of {most} bytes has room for {room} there",
        field="length", value=total, hint="resize the volume first, or allow the upload to make it longer",
    )  # fmt: skip


def _number(error: BaseException) -> int:
    found = getattr(error, "errno", None)
    return found if isinstance(found, int) else errno.EINVAL
