"""A new volume gets another one's bytes, and the disk gets them while they are copied."""

from __future__ import annotations

import os

from ...ops.convert import convert
from ...progress import Progress
from .making import PLAIN

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ...wire.libvirt.definition import VolumeDef

#: so many bytes are handed to the disk at once
_STEP = 64 << 20


def fill(origin: VolumeDef, part: str, fd: int, fmt: str, progress: Progress) -> None:
    """Copy the disk of ``origin`` into the image ``part``, which is at least as large and reads as zeroes.

    ``fd``: the same file. Raises CowshedError.
    """
    source = origin.target.format or "raw"
    convert(
        origin.target.path or "", part, fmt,
        source_fmt="raw" if source in PLAIN else source, create=False, target_is_zero=True,
        cache="writeback", progress=write_behind(fd, progress), labels=[origin.target.path or "", part],
    )  # fmt: skip


def write_behind(fd: int, progress: Progress) -> Progress:
    """A progress that has what was written so far go to the disk meanwhile.

    A volume gets its name when all of it is on the disk. Left to itself the kernel would begin with that at the end
    only, when everybody waits.
    """
    begun = 0

    def listener(work: Progress) -> None:
        nonlocal begun
        # an image grows as it is written; a raw file has its length from the start
        reached = min(os.fstat(fd).st_size, work.done + _STEP)
        if reached - begun >= _STEP:
            # for pages that are not on the disk yet, this advice begins to write them
            os.posix_fadvise(fd, begun, reached - begun, os.POSIX_FADV_DONTNEED)
            begun = reached
        if progress.listener is not None:
            progress.phase, progress.phases, progress.done, progress.total = (
                work.phase, work.phases, work.done, work.total,
            )  # fmt: skip
            progress.listener(progress)

    if not hasattr(os, "posix_fadvise"):
        return progress
    return Progress(progress.name, listener, progress.phases)
