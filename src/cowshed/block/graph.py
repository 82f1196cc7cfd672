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
from .locking import ROLE_DATA, ROLE_METADATA, ROLE_RAW, ROLE_SLICE, image_locks

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
    from .secret import Secrets

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


def _silent(text: str) -> None:
    """Nobody listens to warnings."""


class OpenFlags:
    """How an image is opened.

    ``writable``; ``backing``: open the backing chain; ``cache``: a name in protocol.file.CACHE_MODES; ``force_share``:
    let others write meanwhile (readers only); ``no_io``: facts only, no guest data: no data file, no keys; ``check``:
    open damaged images as they are; ``exclusive``: nobody else may write meanwhile; ``resize``: a raw disk may change
    its size; ``trust``: see trust.py; ``secrets``: bytes by id, or None; ``warn(text)``: hears of dubious things. A text that
    begins with "WARNING" stands as it is, others are for a front end to introduce.
    """

    __slots__ = (
        "backing",
        "cache",
        "check",
        "exclusive",
        "force_share",
        "no_io",
        "node_names",
        "resize",
        "secrets",
        "trust",
        "warn",
        "writable",
    )

    def __init__(
        self,
        *,
        writable: bool = False,
        backing: bool = True,
        cache: str = "writeback",
        force_share: bool = False,
        no_io: bool = False,
        check: bool = False,
        exclusive: bool = False,
        resize: bool = False,
        trust: str = "local",
        secrets: Secrets | None = None,
        warn: Callable[[str], None] | None = None,
    ) -> None:
        self.writable = writable
        self.backing = backing
        self.cache = cache
        self.force_share = force_share
        self.no_io = no_io
        self.check = check
        self.exclusive = exclusive
        self.resize = resize
        self.trust = trust
        self.secrets = secrets
        self.warn = warn or _silent
        self.node_names: set[str] = set()

    def derive(self, **changes: Any) -> OpenFlags:
        """A copy with some flags changed."""
        other = OpenFlags.__new__(OpenFlags)
        for name in OpenFlags.__slots__:
            setattr(other, name, getattr(self, name))
        for name, value in changes.items():
            setattr(other, name, value)
        return other


class Opening:
    """How the graph opened a node: enough to open it again with another access mode."""

    __slots__ = ("backing", "driver", "flags", "options", "probed", "role")

    def __init__(self, driver: Driver, flags: OpenFlags, options: Options, role: int, probed: bool) -> None:
        self.driver = driver
        self.flags = flags
        self.options = options
        self.role = role
        self.probed = probed
        #: user's options for the backing file ("backing." taken off), None when he wants none
        self.backing: Options | None = {}


class OpenContext:
    """What a driver's ``open`` gets beside its file and options.

    ``flags``: see OpenFlags; ``writable``, ``no_io``, ``check`` are its words. ``probed``: the format was guessed.
    Whatever the context opened is closed again when the driver's ``open`` raises.
    """

    __slots__ = ("_opened", "_options", "_reuse", "backing_request", "check", "driver", "flags", "no_io", "probed", "writable")

    def __init__(
        self,
        flags: OpenFlags,
        driver: Driver,
        options: Options,
        probed: bool = False,
        reuse: dict[str, Node] | None = None,
    ) -> None:
        self.flags = flags
        self.writable = flags.writable
        self.no_io = flags.no_io
        self.check = flags.check
        self.driver = driver
        self.probed = probed
        self._options = options
        self._opened: list[Node] = []
        self._reuse = reuse or {}
        self.backing_request: tuple[str | None, str | None] | None = None

    def secret(self, id: str) -> bytes:
        """The value of the secret called ``id``. Raises OptionError when there is none."""
        from .secret import lookup

        return lookup(self.flags.secrets, id)

    def open_backing(self, name: str | None, fmt: str | None, owner: Node) -> None:
        """Say which backing file ``owner`` names (None for none) and in which format (None: to be probed).

        Call it for every image of a format that knows backing files. The graph opens the chain after the driver's
        ``open`` has returned, puts it into ``owner.children["backing"]``, and sets ``owner.backing_name`` and
        ``owner.backing_format`` in any case.
        """
        owner.backing_name = name
        owner.backing_format = fmt
        self.backing_request = (name, fmt)

    def open_data_file(self, name: str | None, owner: Node, role: str = "data-file") -> Node | None:
        """Open a file of guest data that the image ``owner`` names, as its child ``role``; None with ``no_io``.

        ``name`` is a path on this host as it stands, relative to the working directory: no protocol, no ``json:``.
        The user's options (``data-file.filename=…``) come first. ``name`` None: the image has no such file. The
        caller puts the node into ``owner.children``. Raises OptionError, TrustError, HostError.
        """
        options = names.take(self._options, role + ".")
        reference = self._options.pop(role, None)
        if self.no_io:
            return None
        if role in self._reuse:
            return self._reuse[role]
        given = bool(options) or isinstance(reference, str)
        if name is None:
            if given:
                raise OptionError(
                    f"'{role}' can only be set for images with an external data file", path=owner.filename, field=role
                )
            return None
        if not given:
            from .trust import check_reference

            check_reference(self.flags.trust, name, role.replace("-", " "), owner.filename, literal=True)
            options = {"driver": "file", "filename": name}
        flags = self.flags.derive(resize=False)
        node = _open_child(reference, options, None, flags, role)
        self._opened.append(node)
        apply_locks(node, ROLE_DATA, flags)
        return node

    def forget_opened(self) -> None:
        """Close what was opened for a driver whose ``open`` failed."""
        for node in self._opened:
            node.close()


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
    secrets: Secrets | None = None,
    warn: Callable[[str], None] | None = None,
    label: str | None = None,
) -> Node:
    """Open an image and what it stands on.

    ``ref``: a path, ``proto:name``, ``json:{…}``, or a mapping of options, nested or dotted (``parse_image_opts``
    makes one of an ``--image-opts`` text). ``fmt``: the format's name, None to recognise it. ``options``: more options
    of the topmost node. ``label``: how messages call the image (default: ``ref``). The rest: see OpenFlags; ``trust``
    None means "local".

    Raises OpenError ``Could not open 'LABEL': REASON`` (the reason's own error is its ``__cause__``), and UsageError
    when the arguments contradict each other.
    """
    from .trust import check_policy

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
    else:
        given = names.flatten(ref)
        if label is None:
            label = given["filename"] if isinstance(given.get("filename"), str) else given.get("file.filename", "")
    if options:
        given.update(names.flatten(options))
    if fmt is not None:
        given["driver"] = fmt
    if force_share and given.get("force-share", "on") not in ("on", True):
        raise UsageError("--force-share/-U conflicts with image options")
    try:
        node = _open(name, given, flags)
        if writable and node.read_only:
            node.close()
            raise ReadOnlyError("Block node is read-only", path=node.filename)
        return node
    except CowshedError as error:
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


# -- one image and its chain ------------------------------------------------------------------------------------------


def _open(name: str | None, options: Options, flags: OpenFlags) -> Node:
    """An image with its backing chain, opened from the top down without recursion."""
    top = node = open_layer(name, options, flags)
    seen: set[str] = set()
    depth = 0
    try:
        while (opening := node.opening) is not None and opening.flags.backing and opening.backing is not None:
            depth += 1
            try:
                below = _open_backing(node, opening, seen, depth)
            except CowshedError as error:
                raise _behind(error, "Could not open backing file: " * depth) from error
            if below is None:
                break
            node.children["backing"] = below
            node = below
        return top
    except BaseException:
        top.close()
        raise


def _behind(error: CowshedError, prefix: str) -> CowshedError:
    """``error`` with a prefix to its message, for it lies behind another image."""
    error.message = prefix + error.message
    error.args = (error.message,)
    return error


def _open_backing(owner: Node, opening: Opening, seen: set[str], depth: int) -> Node | None:
    options = dict(opening.backing or {})
    reference = options.pop("", None)
    if isinstance(reference, str):
        raise _no_such_node(reference)
    name = owner.backing_name
    if owner.backing_format and "driver" not in options:
        implied = owner.backing_format
    else:
        implied = None
    if "file.filename" in options:
        name = None  # the user names another file
    elif name:
        name = backing_path(owner)
        from .trust import check_reference

        check_reference(opening.flags.trust, name or "", "backing file", owner.filename)
    elif not options:
        return None
    if options:
        owner.backing_overridden = True
    if implied is not None:
        options["driver"] = implied
    if depth >= MAX_CHAIN:
        raise CowshedError(f"The backing chain is longer than {MAX_CHAIN} images", path=owner.filename, errno=40)
    for key in _identity(owner):
        if key in seen:
            raise CowshedError(
                f"Backing file '{owner.filename}' creates an infinite loop.", path=owner.filename, errno=40
            )
        seen.add(key)
    flags = opening.flags.derive(writable=False, resize=False)
    return open_layer(name, options, flags)


def _identity(node: Node) -> list[str]:
    """What makes an image the same as one met before in the chain: its file on the host, and how it is read."""
    path = names.path_of(node)
    if path is None or node.driver == "raw":
        return []
    try:
        status = os.stat(path)
    except (OSError, ValueError):
        return []
    return [f"{node.driver} {status.st_dev}:{status.st_ino} {sorted(node.options.items())}"]


def backing_path(node: Node) -> str | None:
    """The full name of ``node``'s backing file as the image gives it: relative names seen from the image."""
    if not node.backing_name:
        return None
    return names.combine(names.path_of(node) or "", node.backing_name)


def _no_such_node(name: str) -> OptionError:
    return OptionError(f"Cannot find device='{name}' nor node-name='{name}'", value=name)


# -- one node ---------------------------------------------------------------------------------------------------------


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
        raise UnsupportedError(f"Driver '{row.name}' is not supported", layer=row.name)
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
        file = _open_child(reference, file_options, name, flags.derive(check=False), "file")
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


def _open_child(reference: Any, options: Options, name: str | None, flags: OpenFlags, role: str) -> Node:
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
        return _open(name, options, flags)
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
        except CowshedError as error:
            raise _behind(error, "Could not read image for determining its format: ") from error
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
    except BaseException:
        context.forget_opened()
        raise
    node.opening = Opening(row, flags, values, role, probed)
    node.options = given
    if not row.backing or backing is None:
        node.opening.backing = None
        node.backing_overridden = row.backing and backing is None
    else:
        node.opening.backing = backing
    if options:
        # the node closes its file; the caller closes it once more, which does nothing
        first = names.first_name(options)
        node.close()
        raise OptionError(f"Block format '{row.name}' does not support the option '{first}'", layer=row.name, field=first)
    node.filename = names.reported_name(node)
    if probed and row.name == "raw" and not node.read_only:
        flags.warn(_RAW_WARNING.format(file.filename))
    return node


def _dotted(strong: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(name for name in strong if name.endswith("."))


# -- locks and access modes ---------------------------------------------------------------------------------------------


def apply_locks(node: Node, role: int, flags: OpenFlags) -> None:
    """Take the locks for using ``node``'s file in ``role``, beside those that it has. Raises LockError."""
    while node.is_format or node.is_filter:
        node = node.children["file"]
    locks = getattr(node, "locks", None)
    if locks is None:
        return
    perm, shared = image_locks(
        role,
        write=flags.writable and not node.read_only,
        resize=flags.resize,
        exclusive=flags.exclusive,
        no_io=flags.no_io,
        force_share=flags.force_share,
    )
    locks.apply(locks.perm | perm, locks.shared & shared)


def reopen(node: Node, *, writable: bool, parent: Node | None = None) -> Node:
    """``node`` again with another access mode, without a moment in which its files are unlocked.

    For the base of ``commit``, which is opened as a backing file and then written. The old node is spent: use the one
    returned, which has taken over its children (the backing chain stays as it is), and has its place below
    ``parent``. Raises HostError, LockError, OpenError; the old node is then in force.
    """
    opening = node.opening
    if opening is None:
        raise UsageError("this node was not opened by name", path=node.filename)
    flags = opening.flags.derive(writable=writable)
    moved: list[Node] = []
    try:
        for role, child in node.children.items():
            if role != "backing":
                _change_access(child, writable, opening.role if role == "file" else ROLE_DATA, flags)
                moved.append(child)
        if not node.children:
            _change_access(node, writable, opening.role, flags)
            opening.flags = flags
            return node
        node.flush()
        context = OpenContext(flags, opening.driver, {}, opening.probed, reuse=node.children)
        fresh: Node = _load(opening.driver)(node.file, dict(opening.options), context)
    except BaseException:
        for child in moved:
            _change_access(child, not writable, opening.role, opening.flags)
        raise
    for name in ("filename", "options", "backing_overridden", "backing_name", "backing_format"):
        setattr(fresh, name, getattr(node, name))
    fresh.opening = Opening(opening.driver, flags, opening.options, opening.role, opening.probed)
    fresh.opening.backing = opening.backing
    for role, child in node.children.items():
        fresh.children.setdefault(role, child)
    node.closed = True
    if parent is not None:
        for role, child in parent.children.items():
            if child is node:
                parent.children[role] = fresh
    return fresh


def _change_access(node: Node, writable: bool, role: int, flags: OpenFlags) -> None:
    """Reopen the files below a child with another access mode, locks first."""
    chain = [node]
    while node.is_format or node.is_filter:
        node = node.children["file"]
        chain.append(node)
    change = getattr(node, "reopen", None)
    if change is None:
        raise UnsupportedError(f"The {node.driver} driver does not support changing the access mode", path=node.filename)
    perm, shared = image_locks(role, write=writable, exclusive=flags.exclusive, no_io=flags.no_io)
    change(writable, perm, shared)
    for above in chain:
        above.read_only = not writable


def __getattr__(name: str) -> Any:
    """Creation has a file of its own, loaded when it is used."""
    if name in ("CreateContext", "create_file", "create_image", "create_protocol_file", "creation_table"):
        from . import creation

        return getattr(creation, name)
    raise AttributeError(name)
