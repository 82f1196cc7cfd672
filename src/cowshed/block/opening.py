"""How an image is opened: the flags, the record that an open node keeps, and what drivers get to open with."""

from __future__ import annotations

from ..errors import CowshedError, OptionError
from . import filename as names
from .locking import ROLE_DATA, image_locks

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Any

    from .node import Node
    from .registry import Driver

    Options = dict[str, Any]


def _silent(text: str) -> None:
    """Nobody listens to warnings."""


class OpenFlags:
    """How an image is opened.

    ``writable``; ``backing``: open the chain; ``cache``: a name in protocol.file.CACHE_MODES; ``force_share``:
    let others write meanwhile (readers only); ``no_io``: facts only, no guest data: no data file, no keys; ``check``:
    open damaged images as they are; ``exclusive``: nobody else may write meanwhile; ``resize``: a raw disk may change
    its size; ``trust``: see trust.py; ``secrets``: bytes by id, or None; ``warn(text)``: hears of dubious things. A
    text that begins with "WARNING" stands as it is, others are for a front end to introduce.
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
        secrets: Mapping[str, bytes] | None = None,
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

    __slots__ = (
        "_opened",
        "_options",
        "_reuse",
        "backing_request",
        "check",
        "driver",
        "flags",
        "no_io",
        "probed",
        "writable",
    )

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
        from .graph import behind, open_child

        try:
            node = open_child(reference, options, None, flags, role)
        except CowshedError as error:
            raise behind(error, "", flags) from error
        self._opened.append(node)
        apply_locks(node, ROLE_DATA, flags)
        return node

    def forget_opened(self) -> None:
        """Close what was opened for a driver whose ``open`` failed."""
        for node in self._opened:
            node.close()


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
