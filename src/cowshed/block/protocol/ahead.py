"""Room for a new file that is written front to back, reserved in big steps before the data comes.

ext4 accounts for every block as it is written, and looks for room for it when it goes to the disk. A stretch that is
reserved before (fallocate(2) with FALLOC_FL_KEEP_SIZE) is found in one step: that saves a tenth of the processor time
of a copy, and the file lies in fewer pieces. What is reserved and then not written is given back, so that in the end
the file takes the room that its data takes. Until then it reads as zeroes, or lies behind the end of the file.
A file in which somebody else has reserved room keeps that: nothing is reserved there, nor given back.
"""

from __future__ import annotations

import errno
import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

#: bytes written one behind the other before more of them are expected, so that scattered ones cost nothing
LEAST = 1 << 20
#: bytes reserved at once
MOST = 16 << 20
#: so many times as much must be free: who reserves the last room takes it from somebody, if only for a moment
PLENTY = 16
#: where it pays: others make room when data goes to the disk only (XFS), do not pack what is reserved (btrfs), or ask a
#: server
FILE_SYSTEMS = frozenset(("ext4",))


class Ahead:
    """Reserves room in the file ``fd``.

    ``reserve`` and ``punch`` do it and undo it, of an offset and a length in bytes, and raise OSError.
    Writes that come one at a time are told to `before`; whoever began it calls `give_back` in the end.
    """

    __slots__ = ("end", "fd", "mark", "over", "punch", "reserve", "run")

    def __init__(self, fd: int, reserve: Callable[[int, int], None], punch: Callable[[int, int], None]) -> None:
        self.fd = fd
        self.reserve = reserve
        self.punch = punch
        self.mark = 0  # where the next write is expected
        self.end = 0  # where the reserved room ends
        self.run = 0  # bytes written one behind the other
        self.over: bool | None = None  # it doesn't pay here, or there is no room; None: not asked yet

    def before(self, offset: int, length: int, size: int) -> None:
        """``length`` bytes are about to be written at ``offset`` of the file, which has ``size`` bytes."""
        if offset < self.mark:
            return  # a format's own structures
        if offset > self.mark:
            self.give_back()
            self.run = 0
        self.mark = offset + length
        self.run += length
        if self.mark <= self.end or self.run < LEAST or self.over:
            return
        if self.over is None:
            self.over = file_system(self.fd) not in FILE_SYSTEMS
        start = max(offset, self.end)
        end = start + min(self.run, MOST)
        if self.mark < size:
            end = min(end, size)
        end = max(end, self.mark)
        try:
            room = os.fstatvfs(self.fd)
            self.over = self.over or room.f_bavail * room.f_frsize < (end - start) * PLENTY
            if self.over:
                return
            self.end = end  # also when it breaks off half way
            self.reserve(start, end - start)
        except OSError:
            self.give_back()
            self.over = True

    def give_back(self) -> bool:
        """Free what was reserved and not written; False when there is nothing."""
        start, end = self.mark, self.end
        self.end = 0
        if end <= start:
            return False
        try:
            size = os.fstat(self.fd).st_size
            self._punch_holes(start, min(end, size))
            if end > size:
                os.ftruncate(self.fd, size)  # there is no other way to free what lies behind the end
        except OSError:
            pass  # it is room, not data
        return True

    def _punch_holes(self, start: int, end: int) -> None:
        """Free what is only reserved, which counts as a hole: somebody may have written there who wasn't told to
        `before`. Blocks are reserved whole, and the one that the last write ended in is data."""
        block = os.fstatvfs(self.fd).f_frsize or 4096
        start, end = (-(-at // block) * block for at in (start, end))
        while start < end:
            try:
                data = min(os.lseek(self.fd, start, os.SEEK_DATA), end)
            except OSError as error:
                if error.errno != errno.ENXIO:  # else there is none up to the end of the file
                    raise
                data = end
            if data > start:
                self.punch(start, data - start)
            if data == end:
                return
            start = os.lseek(self.fd, data, os.SEEK_HOLE)


def is_all_data(fd: int) -> bool:
    """Is there data in all the room that a file takes? Not so where somebody reserved some of it, or nobody can say.

    What is reserved twice can't be told apart any more when it is given back. A file that takes more than `MOST` bytes
    is not looked through.
    """
    try:
        status = os.fstat(fd)
        rest = status.st_blocks * 512
        if rest > MOST:
            return False
        block = os.fstatvfs(fd).f_frsize or 4096
        at = 0
        while rest > 0 and at < status.st_size:
            start = os.lseek(fd, at, os.SEEK_DATA)
            at = os.lseek(fd, start, os.SEEK_HOLE)
            rest -= -(-at // block) * block - start // block * block
    except OSError:  # there is no more data
        return False
    return rest <= 0


def file_system(fd: int) -> str:
    """What kind of file system (as mount(8) calls it) a file lies on; empty when nobody knows."""
    device = os.fstat(fd).st_dev
    name = f"{os.major(device)}:{os.minor(device)}"
    try:
        with open("/proc/self/mountinfo", encoding="utf-8", errors="replace") as lines:
            for line in lines:
                fields = line.split()
                if fields[2] == name:
                    return fields[fields.index("-") + 1]
    except (OSError, ValueError, IndexError):
        pass
    return ""
