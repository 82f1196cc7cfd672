"""Pools' documents: text ⇄ PoolDef, and the files in which a pool is kept."""

from __future__ import annotations

from ...errors import ConfigError, DefinitionError, DocumentError, NoSupportError
from . import reader
from .common import PERMISSIONS, SIZE, choice, read_permissions, read_uuid, sanitize, unknown, write_permissions
from .definition import Element, PoolDef, PoolSource
from .header import header
from .kinds import KINDS
from .reader import string
from .sources import SOURCE, read_source, write_source

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .common import Known
    from .definition import Extra
    from .writer import Writer

# what libvirt knows of extensions: type -> (prefix that it writes, namespace)
_EXTENSIONS = {
    "fs": ("fs", "http://libvirt.org/schemas/storagepool/fs/1.0"),
    "netfs": ("fs", "http://libvirt.org/schemas/storagepool/fs/1.0"),
    "rbd": ("rbd", "http://libvirt.org/schemas/storagepool/rbd/1.0"),
}

_POOL: Known = (
    ("type",),
    {
        "name": ((), {}),
        "uuid": ((), {}),
        "capacity": SIZE,
        "allocation": SIZE,
        "available": SIZE,
        "features": ((), {"cow": (("state",), {})}),
        "source": SOURCE,
        "target": ((), {"path": ((), {}), "permissions": PERMISSIONS}),
        "refresh": ((), {"volume": (("allocation",), {})}),
    },
)


def parse_pool(text: str | bytes) -> PoolDef:
    """A ``<pool>`` document. Its figures (capacity and so on, free extents) are not taken: a refresh finds them.

    DocumentError: not well-formed; DefinitionError, ConfigError, NoSupportError: in libvirt's words.
    """
    return read_pool(reader.parse_root(text, reader.POOL, "pool"))


def read_pool(root: Element) -> PoolDef:
    """As ``parse_pool``, for an element."""
    pool_type = choice(root, "type", tuple(KINDS), required=True)
    assert pool_type is not None
    kind = KINDS[pool_type]
    element = root.find("source")
    if element is not None:
        source = read_source(element, pool_type)
    else:
        source = PoolSource()
        source.format = kind.default
    name = string(root, "name")
    if name is None and "name" in kind.source:
        name = source.name
    if name is None:
        raise DefinitionError("missing pool source name element")
    if "/" in name:
        raise DefinitionError(f"name {name} cannot contain '/'", value=name)
    definition = PoolDef(pool_type, name)
    definition.source = source
    uuid = string(root, "uuid")
    if uuid is not None:
        definition.uuid = read_uuid(uuid)
        if definition.uuid is None:
            raise DefinitionError("malformed uuid element", value=uuid)
    _features(root, definition)
    _require(definition)
    if not kind.network:
        _target(root, definition)
    definition.refresh_allocation = string(root, "refresh", "volume", "@allocation")
    if definition.refresh_allocation not in (None, "default", "capacity"):
        raise ConfigError(
            f"unknown storage pool volume refresh allocation type {definition.refresh_allocation}",
            value=definition.refresh_allocation,
        )
    definition.extra = _extension(root, pool_type)
    if "\n" in name:
        raise DocumentError("invalid char in name: \n", value=name)
    return definition


def _features(root: Element, definition: PoolDef) -> None:
    features = root.find("features")
    cow = features.find("cow") if features is not None else None
    if cow is None:
        return
    state = choice(cow, "state", ("yes", "no"))
    if state is None:
        return
    if definition.type not in ("dir", "fs"):
        raise NoSupportError("cow feature may only be used for 'fs' and 'dir' pools")
    definition.cow = state == "yes"


def _require(definition: PoolDef) -> None:
    """What a pool of its type can't be without."""
    source, needs = definition.source, KINDS[definition.type].needs
    if "host" in needs and not source.hosts:
        raise DefinitionError("missing storage pool source host name")
    if "dir" in needs and source.directory is None:
        raise DefinitionError("missing storage pool source path")
    if "name" in needs and source.name is None:
        source.name = definition.name
    if "adapter" in needs and source.adapter is None:
        raise DefinitionError("missing storage pool source adapter")
    if "device" in needs and not source.devices:
        raise DefinitionError("missing storage pool source device name")
    if "initiator" in needs and source.initiator_iqn is None:
        raise ConfigError("missing initiator IQN")


def _target(root: Element, definition: PoolDef) -> None:
    kind = KINDS[definition.type]
    path = string(root, "target", "path") if kind.target is None else f"{kind.target}{definition.source.name}"
    if path is None:
        raise DefinitionError("missing storage pool target path")
    definition.target = sanitize(path)
    target = root.find("target")
    if target is not None:
        definition.permissions = read_permissions(target.find("permissions"))


def _extension(root: Element, pool_type: str) -> Extra:
    """All that is not known. libvirt's own extension gets the prefix that libvirt writes, declared at the root."""
    found = unknown(root, _POOL)
    if pool_type not in _EXTENSIONS:
        return found
    prefix, namespace = _EXTENSIONS[pool_type]
    wanted = "config_opts" if pool_type == "rbd" else "mount_opts"
    options: list[Element] = []
    rest: list[Element] = []
    others: Extra = []
    used = {name[6:] for name, value in root.attributes.items() if name.startswith("xmlns:") and value == namespace}
    for path, element in found:
        before, _, name = element.name.partition(":")
        if not path and before == "@xmlns" and name in used:
            continue
        ours = before in used or element.attributes.get(f"xmlns:{before}") == namespace
        if path or name != wanted or not ours:
            others.append((path, element))
            continue
        for child in element.children:
            renamed = _renamed(child, before, prefix)
            if renamed.name == f"{prefix}:option":
                options.append(_option(renamed, pool_type))
            else:
                rest.append(renamed)
    if not options and not rest:
        return others
    declaration = Element(f"@xmlns:{prefix}", text=namespace)
    return [("", declaration), ("", Element(f"{prefix}:{wanted}", {}, options + rest)), *others]


def _option(element: Element, pool_type: str) -> Element:
    name = element.attributes.get("name")
    if pool_type != "rbd":
        if name is None:
            raise DefinitionError("no fs mount option name specified")
        return Element(element.name, {"name": name})
    if not name:
        raise DefinitionError(f"{'no' if name is None else 'empty'} rbd option name specified")
    value = element.attributes.get("value")
    if not value:
        raise DefinitionError(f"{'no' if value is None else 'empty'} rbd option value specified for name '{name}'")
    return Element(element.name, {"name": name, "value": value})


def _renamed(element: Element, old: str, new: str) -> Element:
    name = f"{new}:{element.name[len(old) + 1 :]}" if element.name.startswith(old + ":") else element.name
    attributes = {key: value for key, value in element.attributes.items() if key != f"xmlns:{old}"}
    return Element(name, attributes, [_renamed(child, old, new) for child in element.children], element.text)


def format_pool(definition: PoolDef, inactive: bool = False) -> str:
    """The document. ``inactive``: as it is kept, the figures 0 and without free extents."""
    from .writer import Writer

    writer = Writer(definition.extra)
    write_pool(writer, definition, inactive)
    return writer.text()


def write_pool(writer: Writer, definition: PoolDef, inactive: bool = False) -> None:
    writer.open("pool", (("type", definition.type),))
    writer.leaf("name", definition.name)
    if definition.uuid is not None:
        writer.leaf("uuid", definition.uuid)
    for name in ("capacity", "allocation", "available"):
        writer.leaf(name, 0 if inactive else getattr(definition, name), (("unit", "bytes"),))
    if definition.cow is not None or writer.wanted("features"):
        writer.open("features")
        if definition.cow is not None:
            writer.leaf("cow", None, (("state", "yes" if definition.cow else "no"),))
        writer.close()
    write_source(writer, definition.source, definition.type, figures=not inactive)
    if not KINDS[definition.type].network or writer.wanted("target"):
        writer.open("target")
        if definition.target is not None:
            writer.leaf("path", definition.target)
        write_permissions(writer, definition.permissions, "target/permissions")
        writer.close()
    if definition.refresh_allocation is not None or writer.wanted("refresh"):
        writer.open("refresh")
        if definition.refresh_allocation is not None:
            writer.leaf("volume", None, (("allocation", definition.refresh_allocation),))
        writer.close()
    writer.close()


def format_pool_file(definition: PoolDef) -> str:
    """As a persistent pool is kept: libvirt's warning, then the inactive form."""
    return header("pool-edit", definition.name, definition.uuid) + format_pool(definition, inactive=True)


def format_pool_state(definition: PoolDef) -> str:
    """As an active pool is kept: libvirt's warning, then ``<poolstate>`` around the inactive form."""
    from .writer import Writer

    writer = Writer(definition.extra, depth=1)
    write_pool(writer, definition, inactive=True)
    return f"{header('pool-edit', definition.name, definition.uuid)}<poolstate>\n{writer.text()}</poolstate>\n"


def parse_pool_state(text: str | bytes) -> PoolDef:
    """What ``format_pool_state`` wrote, or libvirt did."""
    root = reader.parse_root(text, reader.POOL, "poolstate")
    pool = root.find("pool")
    if pool is None:
        raise DefinitionError("missing pool element in poolstate")
    return read_pool(pool)
