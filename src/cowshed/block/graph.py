"""A name becomes a tree of open nodes: protocol, format, data file, backing chain.

`open_image` is the one door. It parses names (filename.py), recognises formats (registry.py), asks the trust gate
(trust.py) before it opens anything that an image names, takes locks (locking.py), and hands drivers an `OpenContext`
through which they ask for further files. `create_image` is its counterpart for new images (creation.py).
"""

from __future__ import annotations

import os

from ..errors import CowshedError, OpenError, OptionError, ReadOnlyError, UnsupportedError, UsageError
from . import filename as names
from . import registry
from .locking import ROLE_METADATA, ROLE_RAW, ROLE_SLICE
from .opening import OpenContext as OpenContext
from .opening import OpenFlags as OpenFlags
from .opening import Opening as Opening
from .opening import apply_locks

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Any

    from .creation import CreateContext as CreateContext
    from .creation import create_file as create_file
    from .creation import create_image as create_image
    from .creation import create_protocol_file as create_protocol_file
    from .creation import creation_table as creation_table
    from .node import Node
    from .registry import Driver
    from .reopen import reopen as reopen

    Options = dict[str, Any]
    Ref = str | os.PathLike[str] | Mapping[str, Any]

#: images in one backing chain; a longer one is refused
MAX_CHAIN = 200

_RAW_WARNING = (
    "WARNING: Image format was not specified for '{}' and probing guessed raw.\n"
    "         Automatically detecting the format is dangerous for raw images, write operations on block 0 will be "
    "restricted.\n"
    "         Specify the 'raw' format explicitly to remove the restrictions."
)


def open_image(
    ref: Ref,
    *,
    fmt: str | None = None,
    options: Mapping[str, Any] | None = None,
    writable: bool = False,
    backing: bool = True,
    cache: str = "writeback",
    force_share: bool = False,
    no_io: bool = False,
    check: bool = False,
    exclusive: bool = False,
    resize: bool = False,
    trust: str | None = None,
    secrets: Mapping[str, bytes] | None = None,
    warn: Callable[[str], None] | None = None,
    label: str | None = None,
) -> Node:
    """Open an image and what it stands on.

    ``ref``: a path, ``proto:name``, ``json:{…}``, or a mapping of options, nested or dotted (``parse_image_opts``
    makes one of an ``--image-opts`` text). ``fmt``: the format's name, None to recognise it. ``options``: more options
    of the topmost node.

    ``writable``: for writing. ``backing``: with its backing chain. ``cache``: none, writeback, writethrough,
    directsync or unsafe. ``force_share``: let others write meanwhile (for reading only). ``no_io``: for its facts, not
    its data: no data file, no keys. ``check``: as it is, even damaged. ``exclusive``: nobody else may write meanwhile.
    ``resize``: a raw disk may change its size. ``trust``: what the image may name: "all", "local" (None means that) or
    "none", see trust.py. ``secrets``: bytes by id. ``warn``: hears of dubious things. ``label``: how messages call the
    image, ``ref`` by default.

    The node is a context manager; closing it closes all that was opened with it. Raises OpenError ``Could not open
    'LABEL': REASON`` (the reason's own error is its ``__cause__``), and UsageError when the arguments contradict each
    other.
    """
    from .protocol.file import CACHE_MODES
    from .trust import check_policy

    if cache not in CACHE_MODES:
        raise UsageError(f"Invalid cache option: {cache}", field="cache", value=cache, limit=", ".join(CACHE_MODES))
    flags = OpenFlags(
        writable=writable,
        backing=backing,
        cache=cache,
        force_share=force_share,
        no_io=no_io,
        check=check,
        exclusive=exclusive,
        resize=resize,
        trust=check_policy("local" if trust is None else trust),
        secrets=secrets,
        warn=warn,
    )
    name: str | None = None
    given: Options = {}
    if isinstance(ref, (str, os.PathLike)):
        name = os.fspath(ref)
        if not isinstance(name, str):
            raise UsageError("a file name must be text", value=name)
        label = name if label is None else label
    elif isinstance(ref, bytes):
        raise UsageError("a file name must be text", value=ref)
    else:
        given = names.flatten(ref)
        if isinstance(ref, names.ImageOptions):
            label = ref.text if label is None else label
            for text in ref.warnings:
                flags.warn(text)
    if options:
        given.update(names.flatten(options))
    if fmt is not None:
        given["driver"] = fmt
    if force_share and given.get("force-share", "on") not in ("on", True):
        raise UsageError("--force-share/-U conflicts with image options")
    try:
        if force_share and writable:
            raise OptionError("force-share=on can only be used with read-only images", field="force-share")
        node = open_chain(name, given, flags)
        if writable and node.read_only:
            node.close()
            raise ReadOnlyError("Block node is read-only", path=node.filename)
        return node
    except CowshedError as error:
        if label is None and not isinstance(ref, (str, os.PathLike)):
            from ..wire.qdict import compact

            label = "json:" + compact(dict(ref))
        raise open_error(str(label), error) from error


def open_error(label: str, error: CowshedError) -> OpenError:
    """``error`` as the reason why the image ``label`` could not be opened."""
    result = OpenError(
        f"Could not open '{label}': {error}",
        path=error.path if error.path is not None else label,
        layer=error.layer,
        offset=error.offset,
        field=error.field,
        value=error.value,
        limit=error.limit,
        hint=error.hint,
        errno=error.errno,
    )
    result.__cause__ = error
    return result


# -- one image and its chain ----------------------------------------------------------------------------------


def open_chain(name: str | None, options: Options, flags: OpenFlags) -> Node:
    """An image with its backing chain, opened from the top down without recursion."""
    top = node = open_layer(name, options, flags)
    seen: set[str] = set()
    depth = 0
    try:
        while (opening := node.opening) is not None and opening.flags.backing and opening.backing is not None:
            depth += 1
            try:
                below = _open_backing(node, opening, seen, depth)
            except _ChainError as error:
                raise behind(error, "Could not open backing file: ", flags) from error
            except CowshedError as error:
                raise behind(error, "Could not open backing file: " * depth, flags) from error
            if below is None:
                break
            node.children["backing"] = below
            if node.backing_overridden and not flags.no_io:
                node.backing_overridden = below.filename != node.backing_name
                node.filename = names.reported_name(node)
            node = below
        return top
    except BaseException:
        top.close()
        raise


class _ChainError(CowshedError):
    """The chain itself is wrong, not one image of it: said once, not once a layer."""


def behind(error: CowshedError, prefix: str, flags: OpenFlags) -> CowshedError:
    """``error`` with a prefix to its message, for it lies behind another image.

    Under less than full trust nothing that the image says can reach a terminal as more than plain characters.
    """
    if flags.trust != "all":
        from .trust import printable

        error.message = printable(error.message, 4000)
        error.hint = None if error.hint is None else printable(error.hint, 4000)
    error.message = prefix + error.message
    error.args = (error.message,)
    return error


def _open_backing(owner: Node, opening: Opening, seen: set[str], depth: int) -> Node | None:
    options = dict(opening.backing or {})
    reference = options.pop("", None)
    if isinstance(reference, str):
        raise _no_such_node(reference)
    name = backing_path(owner)
    if "file.filename" in options:
        name = None  # the user names another file
    elif name is not None:
        from .trust import check_reference

        check_reference(opening.flags.trust, name, "backing file", owner.filename)
    elif not options:
        return None
    if options:
        owner.backing_overridden = True
    if owner.backing_format:
        options.setdefault("driver", owner.backing_format)
    if depth >= MAX_CHAIN:
        raise _ChainError(f"The backing chain is longer than {MAX_CHAIN} images", path=owner.filename, errno=40)
    for key in _identity(owner):
        if key in seen:
            raise _ChainError(
                f"Backing file '{owner.filename}' creates an infinite loop.", path=owner.filename, errno=40
            )
        seen.add(key)
    flags = opening.flags.derive(writable=False, resize=False)
    return open_layer(name, options, flags)


def _identity(node: Node) -> list[str]:
    """What makes an image the same as one met before in the chain: its file on the host, and how it is read."""
    path = names.path_of(node)
    try:
        status = os.stat(path or "")
    except (OSError, ValueError):
        return []
    windows = []
    below: Node | None = node
    while below is not None and below.is_format:
        windows.append(f"{below.driver}{sorted(below.options.items())}")
        below = below.children.get("file")
    return [f"{status.st_dev}:{status.st_ino} {windows}"]


def backing_path(node: Node) -> str | None:
    """The full name of ``node``'s backing file as the image gives it: relative names seen from the image."""
    if not node.backing_name:
        return None
    return names.combine(names.path_of(node) or "", node.backing_name)


def _no_such_node(name: str) -> OptionError:
    return OptionError(f"Cannot find device='{name}' nor node-name='{name}'", value=name)


# -- one node -------------------------------------------------------------------------------------------------


def _find_driver(options: Options) -> Driver | None:
    """The driver that the options name. Names that are not text are as good as none."""
    name = options.pop("driver", None)
    if not isinstance(name, str):
        return None
    row = registry.find(name)
    if row is None:
        raise OptionError(f"Unknown driver '{name}'", field="driver", value=name)
    return row


def find_protocol(name: str, *, prefixes: bool = True) -> Driver:
    """The protocol driver for a file name: devices by asking the host, others by prefix. Raises OptionError."""
    if names.is_device(name):
        from .protocol.host_device import device_driver

        row = registry.find(device_driver(name))
    else:
        prefix = names.protocol_prefix(name) if prefixes else None
        if prefix is None:
            row = registry.find("file")
        else:
            row = registry.find_prefix(prefix)
            if row is None:
                raise OptionError(f"Unknown protocol '{prefix}'", value=name)
    assert row is not None
    return row


def _load(row: Driver) -> Any:
    if not row.open:
        raise UnsupportedError(f"Driver '{row.name}' is not supported by this version of cowshed", layer=row.name)
    return registry.load(row.open)


def open_layer(name: str | None, options: Options, flags: OpenFlags) -> Node:
    """One image without its backing file: a format on its protocol, or a protocol alone where options say so."""
    if name is not None and name.startswith("json:"):
        for key, value in names.parse_json_name(name).items():
            options.setdefault(key, value)
        name = None
    opening_backing = _backing_options(options, flags)
    row = _find_driver(options)
    if row is not None and row.kind == "protocol":
        node = _open_protocol(row, name, options, flags)
        apply_locks(node, ROLE_RAW, flags)
        return node
    flags = _common_options(options, flags)
    file_options = names.take(options, "file.")
    reference = options.pop("file", None)
    file: Node | None = None
    if name is not None or file_options or isinstance(reference, str):
        file = open_child(reference, file_options, name, flags.derive(check=False), "file")
    probed = row is None
    try:
        if file is None:
            if row is None:
                raise OptionError("Must specify either driver or file", field="driver")
            _load(row)
            raise OptionError('A block device must be specified for "file"', field="file")
        if row is None:
            row = _probe(file)
        return _open_format(row, file, options, flags, probed, opening_backing)
    except BaseException:
        if file is not None:
            file.close()
        raise


def _backing_options(options: Options, flags: OpenFlags) -> Options | None:
    """Take out what the user says about the backing file; None when he wants none."""
    if "backing" in options and options["backing"] in (None, ""):
        if options["backing"] == "":
            flags.warn('Use of "backing": "" is deprecated; use "backing": null instead')
        del options["backing"]
        return None
    return {}


def open_child(reference: Any, options: Options, name: str | None, flags: OpenFlags, role: str) -> Node:
    """The node for a child: a protocol, or with ``driver`` a whole image of its own."""
    if isinstance(reference, str):
        if options or name is not None:
            raise OptionError("Cannot reference an existing block device with additional options or a new filename")
        raise _no_such_node(reference)
    if name is None and not options:
        raise OptionError(f'A block device must be specified for "{role}"', field=role)
    row = registry.find(options["driver"]) if isinstance(options.get("driver"), str) else None
    if row is not None and row.kind != "protocol":
        if name is not None and "filename" in options:
            raise OptionError("Can't specify 'file' and 'filename' options at the same time")
        return open_chain(name, options, flags)
    row = _find_driver(options)
    return _open_protocol(row, name, options, flags)


def _open_protocol(row: Driver | None, name: str | None, options: Options, flags: OpenFlags) -> Node:
    flags = _common_options(options, flags)
    if name is not None and "filename" in options:
        raise OptionError("Can't specify 'file' and 'filename' options at the same time")
    parse = name is not None
    given = options.pop("filename", None)
    if name is None and isinstance(given, str):
        name = given
    if row is None:
        if name is None:
            raise OptionError("Must specify either driver or file", field="driver")
        row = find_protocol(name, prefixes=parse)
    open_protocol = _load(row)
    if parse and name is not None:
        for prefix in row.prefixes:
            name = names.local_path(name, prefix)
    if row.needs_file and not name:
        raise OptionError(f"The '{row.name}' block driver requires a file name", field="filename")
    values = _driver_options(row, options)
    context = OpenContext(flags, row, options)
    node: Node = open_protocol(name, values, context)
    node.opening = Opening(row, flags, values, ROLE_RAW, False)
    node.opening.backing = None
    if options:
        node.close()
        raise OptionError(
            f"Block protocol '{row.name}' doesn't support the option '{names.first_name(options)}'",
            layer=row.name,
            field=names.first_name(options),
        )
    return node


def _common_options(options: Options, flags: OpenFlags) -> OpenFlags:
    """Take out the options that every node has, and change the flags as they say."""
    if not options:
        return flags
    from .generic_options import apply

    return apply(options, flags)


def _driver_options(row: Driver, options: Options) -> Options:
    """Take out the driver's own open options, each in its type."""
    values: Options = {}
    if not options:
        return values
    from .options import Option

    for entry in row.open_options:
        key, _, kind = entry.partition(":")
        if key.endswith("."):
            for inner, value in names.take(options, key).items():
                values[key + inner] = value
        elif key in options:
            value = options.pop(key)
            if value is None:
                continue
            values[key] = Option(key, kind).accept(value)[0] if kind != "str" else value  # type: ignore[arg-type]
    return values


def _probe(file: Node) -> Driver:
    if file.size == 0:
        name = "raw"
    else:
        try:
            head = file.read(0, min(registry.PROBE_SIZE, file.size))
            # a short file is looked at as if it filled its last sector
            head = head.ljust(-(-len(head) // 512) * 512, b"\0")
        except CowshedError as error:
            error.message = f"Could not read image for determining its format: {error.message}"
            error.args = (error.message,)
            raise
        name = registry.probe_bytes(head, file.filename)
    row = registry.find(name)
    if row is None:
        raise OpenError("Could not determine image format: No compatible driver found", path=file.filename)
    return row


def _open_format(
    row: Driver, file: Node, options: Options, flags: OpenFlags, probed: bool, backing: Options | None
) -> Node:
    open_format = _load(row)
    if flags.writable and file.read_only:
        raise ReadOnlyError("Block node is read-only", path=file.filename)
    if row.backing and flags.backing and backing is not None:
        backing = names.take(options, "backing.")
        reference = options.get("backing")
        if isinstance(reference, str):
            backing[""] = options.pop("backing")
    given = {key: options[key] for key in options if key in row.strong or key.startswith(_dotted(row.strong))}
    values = _driver_options(row, options)
    role = ROLE_METADATA
    if row.file_role == registry.RAW:
        role = ROLE_SLICE if values else ROLE_RAW
    apply_locks(file, role, flags)
    context = OpenContext(flags, row, options, probed)
    try:
        node: Node = open_format(file, values, context)
        for child in row.child_roles:
            if child not in node.children:
                context.open_data_file(None, node, child)
    except BaseException:
        context.forget_opened()
        raise
    node.opening = Opening(row, flags, values, role, probed)
    node.options = given
    node.opening.backing = backing if row.backing else None
    # without guest I/O the backing file says nothing about the node
    node.backing_overridden = backing is None and bool(node.backing_name) and not flags.no_io
    if options:
        # the node closes its file; the caller closes it once more, which does nothing
        first = names.first_name(options)
        node.close()
        raise OptionError(
            f"Block format '{row.name}' does not support the option '{first}'", layer=row.name, field=first
        )
    node.filename = names.reported_name(node)
    if probed and row.name == "raw" and not node.read_only:
        flags.warn(_RAW_WARNING.format(file.filename))
    return node


def _dotted(strong: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(name for name in strong if name.endswith("."))


def __getattr__(name: str) -> Any:
    """What has a file of its own, loaded when it is used."""
    if name == "reopen":
        from .reopen import reopen

        return reopen
    if name in ("CreateContext", "create_file", "create_image", "create_protocol_file", "creation_table"):
        from . import creation

        return getattr(creation, name)
    raise AttributeError(name)
