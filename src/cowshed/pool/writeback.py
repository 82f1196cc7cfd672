"""What a long job writes goes to the disk while it is written."""

from __future__ import annotations

import os

from ..progress import Progress

#: so many bytes are handed to the disk at once
_STEP = 64 << 20


def write_behind(fd: int, progress: Progress, base: int = 0) -> Progress:
    """A progress that has what was written so far go to the disk meanwhile. ``fd``: the file that is written from
    ``base`` on.

    A job has ended when all of it is on the disk. Left to itself the kernel would begin with that at the end only, when
    everybody waits.
    """
    begun = base

    def listener(work: Progress) -> None:
        nonlocal begun
        # what is done of a disk is, in an image, less where it had zeroes
        reached = min(os.fstat(fd).st_size, base + work.done)
        if reached - begun >= _STEP:
            # for pages that are not on the disk yet, this advice begins to write them
            os.posix_fadvise(fd, begun, reached - begun, os.POSIX_FADV_DONTNEED)
            begun = reached
        if progress.listener is not None:
            progress.phase, progress.phases, progress.done, progress.total = (
                work.phase, work.phases, work.done, work.total,
            )  # fmt: skip
            progress.listener(progress)

    if fd < 0 or not hasattr(os, "posix_fadvise"):
        return progress
    return Progress(progress.name, listener, progress.phases)
