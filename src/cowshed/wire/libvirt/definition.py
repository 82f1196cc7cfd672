"""What libvirt's storage documents say, as plain objects: pools, volumes and their parts.

Shapes follow libvirt's formatstorage page and its RelaxNG schemas; sizes are bytes. Absent values are None, absent
lists are empty. ``extra`` keeps what the schema allows, or somebody put there, and this program has no use for: it
is written back where it stood.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    #: (path of the parent below the root, as "target/permissions" or ""; the element)
    Extra = list[tuple[str, "Element"]]


class Element:
    """One XML element: ``name`` (with its prefix, as written), ``attributes``, ``children`` and ``text``.

    ``text`` is the character data of an element without children; mixed content is not kept (no document of libvirt's
    has any). Namespace declarations are attributes like any other.
    """

    __slots__ = ("attributes", "children", "name", "text")

    def __init__(
        self,
        name: str,
        attributes: dict[str, str] | None = None,
        children: list[Element] | None = None,
        text: str = "",
    ) -> None:
        self.name = name
        self.attributes = attributes if attributes is not None else {}
        self.children = children if children is not None else []
        self.text = text

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Element):
            return NotImplemented
        mine = self.name, self.attributes, self.children, self.text
        return mine == (other.name, other.attributes, other.children, other.text)

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"Element({self.name!r}, {self.attributes!r}, {self.children!r}, {self.text!r})"

    def find(self, name: str) -> Element | None:
        """The first child of that name."""
        for child in self.children:
            if child.name == name:
                return child
        return None

    def find_all(self, name: str) -> Iterator[Element]:
        """All children of that name."""
        return (child for child in self.children if child.name == name)


class _Record:
    """Equality and a readable repr for classes that are nothing but their slots."""

    __slots__ = ()

    def _names(self) -> list[str]:
        return [name for cls in type(self).__mro__ for name in getattr(cls, "__slots__", ())]

    def __eq__(self, other: object) -> bool:
        if type(other) is not type(self):
            return NotImplemented
        return all(getattr(self, name) == getattr(other, name) for name in self._names())

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        known = ", ".join(f"{name}={getattr(self, name)!r}" for name in self._names() if getattr(self, name))
        return f"{type(self).__name__}({known})"


class Permissions(_Record):
    """``<permissions>``: ``mode`` (octal in the document), ``owner`` and ``group`` (-1: nobody chose), ``label``."""

    __slots__ = ("group", "label", "mode", "owner")

    def __init__(self, mode: int | None = None, owner: int = -1, group: int = -1, label: str | None = None) -> None:
        self.mode = mode
        self.owner = owner
        self.group = group
        self.label = label


class Auth(_Record):
    """``<auth type= username=>`` and the secret that it names by ``uuid`` or ``usage``."""

    __slots__ = ("secret_type", "secret_usage", "secret_uuid", "type", "username")

    def __init__(
        self,
        type: str,
        username: str,
        secret_type: str | None = None,
        secret_uuid: str | None = None,
        secret_usage: str | None = None,
    ) -> None:
        self.type = type
        self.username = username
        self.secret_type = secret_type
        self.secret_uuid = secret_uuid
        self.secret_usage = secret_usage


class Device(_Record):
    """``<device path= part_separator=>`` with the free extents, (start, end) in bytes, that a disk pool reports."""

    __slots__ = ("free_extents", "part_separator", "path")

    def __init__(
        self, path: str, part_separator: bool | None = None, free_extents: list[tuple[int, int]] | None = None
    ) -> None:
        self.path = path
        self.part_separator = part_separator
        self.free_extents = free_extents if free_extents is not None else []


class PoolSource(_Record):
    """``<source>`` of a pool: where its storage comes from. ``hosts`` are (name, port or None); ``adapter`` is kept
    as it was written; ``protocol_version`` is NFS's."""

    __slots__ = (
        "adapter", "auth", "devices", "directory", "format", "hosts", "initiator_iqn", "name", "product",
        "protocol_version", "vendor",
    )  # fmt: skip

    def __init__(self) -> None:
        self.hosts: list[tuple[str, int | None]] = []
        self.devices: list[Device] = []
        self.directory: str | None = None
        self.adapter: Element | None = None
        self.name: str | None = None
        self.auth: Auth | None = None
        self.format: str | None = None
        self.initiator_iqn: str | None = None
        self.vendor: str | None = None
        self.product: str | None = None
        self.protocol_version: str | None = None


class PoolDef(_Record):
    """``<pool type=>``. ``target`` is the path volumes appear under; ``cow`` is the ``<features>`` element's answer;
    ``refresh_allocation`` is ``<refresh><volume allocation=>``."""

    __slots__ = (
        "allocation", "available", "capacity", "cow", "extra", "name", "permissions", "refresh_allocation", "source",
        "target", "type", "uuid",
    )  # fmt: skip

    def __init__(self, type: str, name: str, uuid: str | None = None) -> None:
        self.type = type
        self.name = name
        self.uuid = uuid
        self.capacity = 0
        self.allocation = 0
        self.available = 0
        self.cow: bool | None = None
        self.source = PoolSource()
        self.target: str | None = None
        self.permissions: Permissions | None = None
        self.refresh_allocation: str | None = None
        self.extra: Extra = []


class Timestamps(_Record):
    """Nanoseconds since the epoch; None is not known (a ``btime`` of None is written as 0)."""

    __slots__ = ("atime", "btime", "ctime", "mtime")

    def __init__(
        self, atime: int | None = None, mtime: int | None = None, ctime: int | None = None, btime: int | None = None
    ) -> None:
        self.atime = atime
        self.mtime = mtime
        self.ctime = ctime
        self.btime = btime


class Encryption(_Record):
    """``<encryption format=>``, kept whole: ``secrets`` are (type, uuid, usage) with None for what is absent."""

    __slots__ = ("element", "format", "secrets")

    def __init__(
        self,
        format: str,
        secrets: list[tuple[str, str | None, str | None]] | None = None,
        element: Element | None = None,
    ) -> None:
        self.format = format
        self.secrets = secrets if secrets is not None else []
        self.element = element


class VolumeTarget(_Record):
    """``<target>`` or ``<backingStore>`` of a volume. ``features`` are names such as ``lazy_refcounts``."""

    __slots__ = (
        "cluster_size", "compat", "encryption", "features", "format", "nocow", "path", "permissions", "timestamps",
    )  # fmt: skip

    def __init__(self, path: str | None = None, format: str | None = None) -> None:
        self.path = path
        self.format = format
        self.permissions: Permissions | None = None
        self.timestamps: Timestamps | None = None
        self.compat: str | None = None
        self.nocow = False
        self.cluster_size: int | None = None
        self.features: list[str] = []
        self.encryption: Encryption | None = None


class VolumeDef(_Record):
    """``<volume>``. ``type`` is file, block, dir, network, netdir or ploop; ``extents`` are (device, start, end).
    ``data``: the file that has an image's data where that is another one; documents have no word for it."""

    __slots__ = (
        "allocation", "backing", "capacity", "data", "extents", "extra", "has_allocation", "key", "name", "physical",
        "target", "type",
    )  # fmt: skip

    def __init__(self, name: str, type: str = "file", key: str | None = None) -> None:
        self.name = name
        self.type = type
        self.key = key
        self.capacity = 0
        self.allocation = 0
        #: was ``<allocation>`` given? Without it all of the capacity is allocated
        self.has_allocation = False
        self.physical: int | None = None
        self.extents: list[tuple[str, int, int]] = []
        self.target = VolumeTarget()
        self.backing: VolumeTarget | None = None
        self.data: str | None = None
        self.extra: Extra = []


class SecretDef(_Record):
    """``<secret ephemeral= private=>``. ``usage_type`` is None, volume, ceph, iscsi, tls or vtpm."""

    __slots__ = ("description", "ephemeral", "extra", "private", "usage_id", "usage_type", "uuid")

    def __init__(self, uuid: str | None = None) -> None:
        self.uuid = uuid
        self.ephemeral = False
        self.private = False
        self.description: str | None = None
        self.usage_type: str | None = None
        self.usage_id: str | None = None
        self.extra: Extra = []
