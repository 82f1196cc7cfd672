"""New images: options are merged and checked, the backing file gives its size, then the format's driver writes.

`create_image` is what ``create`` does; `create_file` is the part of it that ``convert`` needs as well.
"""

from __future__ import annotations

import os

from ..errors import CowshedError, OptionError, UnsupportedError, error_number
from ..progress import QUIET
from . import registry
from .filename import combine, local_path
from .graph import find_protocol
from .locking import ROLE_CREATE, ROLE_METADATA, ROLE_RAW, image_locks

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Any

    from ..progress import Progress
    from .node import Node
    from .options import OptionTable, OptionValues
    from .registry import Driver

_EFBIG = 27
#: formats whose options the original reads a second time before it writes, warning of the same spellings again
_READ_TWICE = ("raw", "qcow2", "vdi", "vhdx", "vpc", "qed", "parallels", "luks", "qcow")


class CreateContext:
    """What a driver's ``create`` gets beside the file name and the values.

    ``secrets``: bytes by id, or None; ``warn(text)``; ``values``: all creation options, those of the protocol too.
    ``progress`` has been started and advances by the bytes of the disk that are preallocated (see Node.resize).
    Files made through the context that the driver leaves open are closed at the end, and taken away again when the
    driver's ``create`` raises.
    """

    __slots__ = ("_made", "driver", "progress", "secrets", "values", "warn")

    def __init__(
        self,
        driver: Driver,
        values: Mapping[str, Any],
        secrets: Mapping[str, bytes] | None = None,
        warn: Callable[[str], None] | None = None,
        progress: Progress = QUIET,
    ) -> None:
        self.driver = driver
        self.progress = progress
        self.values = values
        self.secrets = secrets
        self.warn = warn or (lambda text: None)
        self._made: dict[str, Node] = {}

    def create_file(
        self, filename: str, size: int = 0, preallocation: str = "off", protocol: Driver | None = None
    ) -> Node:
        """The image's own file: made or emptied, ``size`` bytes long, open for writing and locked.

        ``protocol``: what makes it, instead of what its name says.
        Raises HostError, LockError (nothing is lost then), OptionError.
        """
        node = create_protocol_file(
            filename,
            size,
            self.values,
            preallocation=preallocation,
            role=ROLE_RAW if self.driver.file_role == registry.RAW else ROLE_METADATA,
            progress=self.progress,
            protocol=protocol,
        )
        self._made[filename] = node
        return node

    def create_data_file(self, filename: str, owner: str) -> Node:
        """A file of guest data beside the image ``owner``; an existing one is emptied."""
        node = create_protocol_file(filename, 0, self.values, role=ROLE_CREATE)
        self._made[filename] = node
        return node

    def discard_file(self, filename: str) -> None:
        """Close and remove a file that this context made."""
        node = self._made.pop(filename, None)
        if node is not None:
            node.close()
            if node.driver == "file":
                from .protocol.file_open import remove

                remove(node.filename)

    def secret(self, id: str) -> bytes:
        """The value of the secret called ``id``. Raises OptionError when there is none."""
        from .secret import lookup

        return lookup(self.secrets, id)

    def finish(self, failed: bool) -> None:
        """Close what is still open; after a failure remove it."""
        for filename in list(self._made):
            if failed:
                self.discard_file(filename)
            else:
                self._made.pop(filename).close()


def create_protocol_file(
    filename: str,
    size: int = 0,
    values: Mapping[str, Any] | None = None,
    *,
    preallocation: str = "off",
    role: int = ROLE_CREATE,
    progress: Progress = QUIET,
    protocol: Driver | None = None,
) -> Node:
    """Make or empty the file that ``filename`` names, and return it open for writing.

    ``values``: the protocol's creation options (nocow, extent_size_hint …). ``role``: locking.ROLE_*, taken before
    anything of an existing file is lost. ``progress``: see Node.resize.
    ``protocol``: the row of its driver, instead of the one that its name says.

    Raises OptionError for an unknown protocol, HostError, LockError.
    """
    row = protocol or find_protocol(filename)
    if not row.create:
        raise UnsupportedError(f"Protocol driver '{row.name}' does not support image creation", path=filename)
    path = filename
    for prefix in row.prefixes:
        path = local_path(path, prefix)
    perm, shared = image_locks(role, write=True)
    create_perm, create_shared = image_locks(ROLE_CREATE)
    node: Node = registry.load(row.create)(
        path, size, dict(values or {}), preallocation, perm | create_perm, shared & create_shared, progress
    )
    return node


def creation_table(fmt: str, filename: str | None = None) -> OptionTable:
    """The creation options of a format; with a file name those of its protocol too. Raises OptionError."""
    row = registry.find(fmt)
    if row is None:
        raise OptionError(f"Unknown file format '{fmt}'", field="format", value=fmt)
    protocol = None if filename is None else find_protocol(filename)
    table = row.table("options")
    if table is None or not row.create:
        raise UnsupportedError(f"Format driver '{fmt}' does not support image creation", layer=fmt)
    if protocol is None:
        return table
    below = protocol.table("options")
    if below is None:
        raise UnsupportedError(f"Protocol driver '{protocol.name}' does not support image creation", path=filename)
    return table.merged(below)


def create_file(
    filename: str,
    fmt: str,
    values: OptionValues,
    *,
    secrets: Mapping[str, bytes] | None = None,
    warn: Callable[[str], None] | None = None,
    progress: Progress = QUIET,
) -> None:
    """Have the driver of ``fmt`` make the image; ``values`` come from the format's `creation_table`.

    Raises whatever the driver raises; files that it made are gone then.
    """
    row = registry.find(fmt)
    if row is None or not row.create:
        raise UnsupportedError(f"Format driver '{fmt}' does not support image creation", layer=fmt)
    context = CreateContext(row, values.filled(), secrets, warn, progress)
    failed = False  # Ctrl-C leaves what there is
    try:
        if row.kind == "protocol":
            context.create_file(filename, _sectors(values.get("size", 0)), values.get("preallocation", "off"), row)
        else:
            registry.load(row.create)(filename, values.filled(), context)
    except Exception as error:
        failed = True
        if not isinstance(error, CowshedError) or error_number(error) != _EFBIG:
            raise
        advice = " (try using a larger cluster size)" if "cluster_size" in values.table else ""
        raise CowshedError(
            f"The image size is too large for file format '{fmt}'{advice}",
            path=filename, layer=fmt, field="size", value=values.get("size"), errno=_EFBIG,
        ) from error  # fmt: skip
    finally:
        context.finish(failed)


def _sectors(size: int) -> int:
    return (size + 511) // 512 * 512


def create_image(
    filename: str | os.PathLike[str],
    fmt: str = "raw",
    options: Mapping[str, object] | str | None = None,
    *,
    size: int | None = None,
    backing: str | None = None,
    backing_fmt: str | None = None,
    unsafe: bool = False,
    announce: Callable[[str], None] | None = None,
    secrets: Mapping[str, bytes] | None = None,
    trust: str | None = None,
    warn: Callable[[str], None] | None = None,
    progress: Progress = QUIET,
) -> dict[str, Any]:
    """Make a new image (an existing file of that name is replaced).

    ``options``: the format's and protocol's creation options, as a mapping or as an option text. ``size``: of the disk
    in bytes; the backing file's when None. ``unsafe``: don't look at the backing file. ``announce`` is called with the
    ``Formatting …`` line before anything is written. ``progress`` tells of preallocation. Returns all options in
    force, by name.

    Raises OptionError, UnsupportedError, HostError, LockError …, all with ``FILENAME: `` before their message.
    """
    filename = os.fspath(filename)
    try:
        values = _settle(filename, fmt, options, size, backing, backing_fmt, unsafe, secrets, trust, warn)
        if announce is not None:
            announce(f"Formatting '{filename}', fmt={fmt} {values.formatting()}")
        if warn is not None and fmt in _READ_TWICE:
            table = values.table
            texts = {option.name: values.texts[option.name] for option in table if option.name in values}
            table.parse(texts, warn=warn)
        if values.get("preallocation", "off") != "off":
            progress.start(values.get("size", 0))
        create_file(filename, fmt, values, secrets=secrets, warn=warn, progress=progress)
        return values.filled()
    except CowshedError as error:
        error.message = f"{filename}: {error.message}"
        error.args = (error.message,)
        raise


def put_backing(values: OptionValues, fmt: str, backing: str | None, backing_fmt: str | None) -> None:
    """Add the backing file and its format, given beside the options of format ``fmt``, to them. Raises OptionError."""
    for name, value, what in (
        ("backing_file", backing, "Backing file"),
        ("backing_fmt", backing_fmt, "Backing file format"),
    ):
        if value is not None:
            if name not in values.table:
                raise OptionError(f"{what} not supported for file format '{fmt}'", field=name, value=value)
            values.put(name, value)


def _settle(
    filename: str,
    fmt: str,
    options: Mapping[str, object] | str | None,
    size: int | None,
    backing: str | None,
    backing_fmt: str | None,
    unsafe: bool,
    secrets: Mapping[str, bytes] | None,
    trust: str | None,
    warn: Callable[[str], None] | None,
) -> OptionValues:
    """The options of a new image, complete and consistent."""
    table = creation_table(fmt, filename)
    values = table.parse(options, warn=warn)
    if size is not None:
        if "size" in values:
            raise OptionError("The image size must be specified only once", field="size", value=values["size"])
        values.put("size", size)
    put_backing(values, fmt, backing, backing_fmt)
    below: str | None = values.get("backing_file")
    if below is not None and not below:
        raise OptionError("Expected backing file name, got empty string", field="backing_file", value="")
    if below == filename:
        raise OptionError(
            "Error: Trying to create an image with the same filename as the backing file",
            field="backing_file", value=below,
        )  # fmt: skip
    driver: str | None = values.get("backing_fmt")
    if below is not None:
        if not unsafe:
            _look_at_backing(filename, below, driver, values, secrets, trust, warn)
        elif driver is None:
            raise OptionError("Backing file specified without backing format", field="backing_fmt")
    if values.get("size") is None:
        raise OptionError("Image creation needs a size parameter", field="size")
    return values


def _look_at_backing(
    filename: str,
    below: str,
    driver: str | None,
    values: OptionValues,
    secrets: Mapping[str, bytes] | None,
    trust: str | None,
    warn: Callable[[str], None] | None,
) -> None:
    """Open the backing file: it must be there, its format must be known, and it gives the size when none is given."""
    from .graph import open_chain
    from .opening import OpenFlags

    flags = OpenFlags(no_io=True, force_share=True, secrets=secrets, warn=warn, trust=trust or "local")
    try:
        node = open_chain(combine(filename, below), {} if driver is None else {"driver": driver}, flags)
    except CowshedError as error:
        error.hint = "Could not open backing image."
        raise
    with node:
        if driver is None:
            raise OptionError(
                "Backing file specified without backing format",
                field="backing_fmt", hint=f"Detected format of {node.driver}.",
            )  # fmt: skip
        if values.get("size") is None:
            values.put("size", node.size)
