"""A new volume gets another one's bytes, and the disk gets them while they are copied."""

from __future__ import annotations

from ...ops.convert import convert
from ...progress import Progress
from ..writeback import write_behind
from .making import PLAIN

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ...wire.libvirt.definition import VolumeDef


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
