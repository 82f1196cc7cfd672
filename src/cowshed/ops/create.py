"""A new image."""

from __future__ import annotations

from ..block.creation import create_image
from ..block.options import parse_size_option
from ..progress import QUIET

TYPE_CHECKING = False
if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Mapping
    from typing import Any

    from ..block.secret import Secrets
    from ..progress import Progress


def create(
    filename: str | os.PathLike[str],
    fmt: str = "raw",
    options: Mapping[str, object] | str | None = None,
    *,
    size: int | str | None = None,
    backing: str | None = None,
    backing_fmt: str | None = None,
    unsafe: bool = False,
    announce: Callable[[str], None] | None = None,
    secrets: Secrets | None = None,
    trust: str | None = None,
    warn: Callable[[str], None] | None = None,
    progress: Progress = QUIET,
) -> dict[str, Any]:
    """Make the image ``filename`` in format ``fmt``; an existing file of that name is replaced.

    ``options``: the creation options of the format and of the file's protocol, as a mapping or as the text that
    ``-o`` takes. ``size``: of the disk, bytes or text with a suffix; that of the backing file when None. ``backing``
    and ``backing_fmt``: the image that shows where the new one has nothing of its own, its name as it will stand in
    the image, so relative to the image's directory. ``unsafe``: don't look whether the backing file is there.
    ``announce`` is called with one line of what will be made, before anything is written. ``progress`` tells of
    preallocation, which may take long. Returns all options in force, by name.

    Raises OptionError, UnsupportedError, HostError, LockError, TrustError; an image that could not be completed is
    removed.
    """
    if isinstance(size, str):
        size = parse_size_option("size", size)
    return create_image(
        filename,
        fmt,
        options,
        size=size,
        backing=backing,
        backing_fmt=backing_fmt,
        unsafe=unsafe,
        announce=announce,
        secrets=secrets,
        trust=trust,
        warn=warn,
        progress=progress,
    )
