"""Wiping: the passes of each algorithm, as scrub(1) documents them, written over what a volume holds.

A pass is on the disk before the next one begins. Holes of a sparse file hold nothing: they are left, so a sparse
volume stays one and wiping needs no space. Space that a file has and reads as zeroes is written too, for what was there
before may be in it: zeroing a range of a file takes nothing off the disk. Only ``zero`` gives the space back at the end
where the volume was sparse, as libvirt's does; the zeroes are on the disk by then.
"""

from __future__ import annotations

import os
import struct

from ..block.node import DATA
from ..errors import ArgumentError, ArgumentSupportError, PoolError
from ..progress import QUIET

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from ..block.node import Node
    from ..progress import Progress

    #: bytes to repeat, None for random ones
    Pass = bytes | None

RANDOM: Pass = None

_GUTMANN: tuple[Pass, ...] = (
    *(RANDOM,) * 4,
    b"\x55", b"\xaa", b"\x92\x49\x24", b"\x49\x24\x92", b"\x24\x92\x49",
    *(bytes([value * 0x11]) for value in range(16)),
    b"\x92\x49\x24", b"\x49\x24\x92", b"\x24\x92\x49",
    b"\x6d\xb6\xdb", b"\xb6\xdb\x6d", b"\xdb\x6d\xb6",
    *(RANDOM,) * 4,
)  # fmt: skip

#: algorithm → its passes, and whether the last one is read back and compared
ALGORITHMS: dict[str, tuple[tuple[Pass, ...], bool]] = {
    "zero": ((b"\0",), False),
    "nnsa": ((RANDOM, RANDOM, b"\0"), True),
    "dod": ((RANDOM, b"\0", b"\xff"), True),
    "bsi": ((b"\xff", b"\xfe", b"\xfd", b"\xfb", b"\xf7", b"\xef", b"\xdf", b"\xbf", b"\x7f"), False),
    "gutmann": (_GUTMANN, False),
    "schneier": ((b"\0", b"\xff", *(RANDOM,) * 5), False),
    "pfitzner7": ((RANDOM,) * 7, False),
    "pfitzner33": ((RANDOM,) * 33, False),
    "random": ((RANDOM,), False),
}

#: bytes written at once: a multiple of the length of every pattern
STEP = 3 << 20

# linux/fiemap.h: start, length, flags, mapped extents, room for extents; an extent's logical start, length and flags
_FIEMAP = 0xC020660B
_MAP = struct.Struct("=QQIII4x")
_MAPPED = struct.Struct("=Q8xQ16xI12x")
_SYNC = 1
_LAST = 1
_ROOM = 512


def check_algorithm(algorithm: str) -> None:
    """Raises ArgumentSupportError for ``trim``, ArgumentError for what is no algorithm at all."""
    if algorithm == "trim":
        raise ArgumentSupportError("'trim' algorithm not supported", field="algorithm", value=algorithm)
    if algorithm not in ALGORITHMS:
        raise ArgumentError(f"unknown wiping algorithm '{algorithm}'", field="algorithm", value=algorithm)


def wipe(node: Node, algorithm: str, progress: Progress = QUIET) -> None:
    """Write every pass of ``algorithm`` over the data of ``node``. ``progress`` is in bytes over all passes.

    Raises what `check_algorithm` raises, HostError where the storage fails, and PoolError when what is read back
    for verification is not what was written.
    """
    check_algorithm(algorithm)
    passes, verify = ALGORITHMS[algorithm]
    held = sum(length for _, length in _pieces(node))
    allocated = node.allocated_bytes()
    sparse = allocated is not None and allocated < node.size
    progress.start(held * (len(passes) + verify))
    done = 0
    for pattern in passes:
        repeated = None if pattern is None else memoryview(pattern * (STEP // len(pattern) + 1))
        for offset, length in _pieces(node):
            if repeated is None:
                node.write(offset, os.urandom(length))
            else:
                assert pattern is not None
                phase = offset % len(pattern)
                node.write(offset, repeated[phase : phase + length])
            done += length
            progress.at(done)
        node.flush()
    last = passes[-1]
    if verify and last is not None:
        _verify(node, last, progress, done)
    if algorithm == "zero" and sparse:
        for offset, length in list(_extents(node)):
            node.write_zeroes(offset, length, unmap=True)
        node.flush()


def _extents(node: Node) -> Iterator[tuple[int, int]]:
    """(offset, length) of all that has space on the disk; of what holds data where the file system can't say that."""
    fd = getattr(node, "fd", -1)
    if fd >= 0:
        mapped = _mapped(fd, node.size)
        if mapped is not None:
            return iter(mapped)
    return ((extent.offset, extent.length) for extent in node.extents() if extent.kind == DATA)


def _mapped(fd: int, size: int) -> list[tuple[int, int]] | None:
    """The ranges of a file that have space on the disk, whether they were written or not, neighbours as one; None
    where that isn't told."""
    import fcntl

    found: list[tuple[int, int]] = []
    at = 0
    while at < size:
        answer = bytearray(_MAP.pack(at, size - at, _SYNC, 0, _ROOM) + bytes(_MAPPED.size * _ROOM))
        try:
            fcntl.ioctl(fd, _FIEMAP, answer)
        except OSError:
            return None
        count = min(_MAP.unpack_from(answer)[3], _ROOM)
        before, last = at, True
        for place in range(count):
            start, length, flags = _MAPPED.unpack_from(answer, _MAP.size + place * _MAPPED.size)
            end = min(start + length, size)
            start = max(start, at)
            if found and found[-1][0] + found[-1][1] == start:
                start = found.pop()[0]
            if start < end:
                found.append((start, end - start))
            at = max(at, end)
            last = bool(flags & _LAST)
        if last or at == before:
            break
    return found


def _pieces(node: Node) -> Iterator[tuple[int, int]]:
    """(offset, length) of what holds data, in pieces of at most STEP bytes."""
    for offset, length in _extents(node):
        end = offset + length
        while offset < end:
            step = min(STEP, end - offset)
            yield offset, step
            offset += step


def _verify(node: Node, pattern: bytes, progress: Progress, done: int) -> None:
    fd = getattr(node.children.get("file", node), "fd", -1)
    if fd >= 0:
        try:
            os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)  # what is compared comes from the storage
        except OSError:
            pass
    expected = pattern * STEP  # of one byte: no algorithm compares another
    for offset, length in _pieces(node):
        if not expected.startswith(node.read(offset, length)):
            raise PoolError(
                f"verification of '{node.filename}' failed: what was written between {offset} and {offset + length} "
                "does not read back", path=node.filename,
            )  # fmt: skip
        done += length
        progress.at(done)
