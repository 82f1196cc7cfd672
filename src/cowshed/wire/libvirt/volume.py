"""Volumes' documents: text ⇄ VolumeDef."""

from __future__ import annotations

from ...errors import ConfigError, DefinitionError
from . import reader
from .common import (
    PERMISSIONS,
    SIZE,
    WHOLE,
    number,
    read_permissions,
    scaled,
    unknown,
    unknown_format,
    write_permissions,
)  # fmt: skip
from .definition import Element, Timestamps, VolumeDef, VolumeTarget
from .kinds import KINDS
from .reader import string
from .writer import Writer

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .common import Known

TYPES = ("file", "block", "dir", "network", "netdir", "ploop")
#: what a qcow2 image can be asked for, in the order in which it is written
FEATURES = ("lazy_refcounts", "extended_l2")

_TIMES: Known = ((), {"atime": ((), {}), "mtime": ((), {}), "ctime": ((), {}), "btime": ((), {})})
_TARGET: Known = (
    (),
    {
        "path": ((), {}),
        "format": (("type",), {}),
        "permissions": PERMISSIONS,
        "timestamps": _TIMES,
        "encryption": WHOLE,
        "compat": ((), {}),
        "nocow": ((), {}),
        "clusterSize": SIZE,
        "features": ((), {name: ((), {}) for name in FEATURES}),
    },
)
_VOLUME: Known = (
    ("type",),
    {
        "name": ((), {}),
        "key": ((), {}),
        "source": ((), {"device": (("path",), {"extent": (("start", "end"), {})})}),
        "capacity": SIZE,
        "allocation": SIZE,
        "physical": SIZE,
        "target": _TARGET,
        "backingStore": _TARGET,
    },
)


def parse_volume(text: str | bytes, pool_type: str, cloning: bool = False) -> VolumeDef:
    """A ``<volume>`` document for a pool of that type.

    What only a look at the disk can tell (``<physical>``, extents, timestamps) is not taken. ``<capacity>`` must be
    there, unless a backing store says it, or the volume that is being cloned (``cloning``).
    DocumentError: not well-formed; DefinitionError, ConfigError, ArgumentError, TooLargeError: in libvirt's words.
    """
    root = reader.parse_root(text, reader.VOLUME, "volume")
    kind = KINDS[pool_type]
    name = string(root, "name")
    if name is None:
        raise DefinitionError("missing volume name element")
    volume_type = string(root, "@type") or "file"
    if volume_type not in TYPES:
        raise ConfigError(f"unknown volume type '{volume_type}'", value=volume_type)
    definition = VolumeDef(name, volume_type, string(root, "key"))
    backing = root.find("backingStore")
    path = string(backing, "path")
    if backing is not None and path is not None:
        definition.backing = VolumeTarget(path, _format(backing, kind.volume_formats, kind.volume_default))
        definition.backing.permissions = read_permissions(backing.find("permissions"))
    _sizes(root, definition, cloning)
    target = root.find("target")
    if target is None:
        target = Element("target")
    _target(definition.target, target, kind.volume_formats, kind.volume_default)
    definition.extra = unknown(root, _VOLUME)
    features = target.find("features")
    if features is not None and not definition.target.features:
        # asks for nothing, and yet is written
        definition.extra.append(("target", Element("features")))
    return definition


def _format(element: Element, formats: tuple[str, ...], default: str | None) -> str | None:
    if not formats:
        return None
    text = string(element, "format", "@type")
    if text is None:
        return default
    if text not in formats:
        raise unknown_format("volume", text)
    return text


def _sizes(root: Element, definition: VolumeDef, cloning: bool) -> None:
    text = string(root, "capacity")
    if text is not None:
        definition.capacity = scaled(text, string(root, "capacity", "@unit"), "malformed capacity element")
    elif not cloning and definition.backing is None:
        raise DefinitionError("missing capacity element")
    text = string(root, "allocation")
    if text is not None:
        definition.allocation = scaled(text, string(root, "allocation", "@unit"), "malformed capacity element")
        definition.has_allocation = True
    else:
        definition.allocation = definition.capacity


def _target(found: VolumeTarget, element: Element, formats: tuple[str, ...], default: str | None) -> None:
    found.path = string(element, "path")
    found.format = _format(element, formats, default)
    found.permissions = read_permissions(element.find("permissions"))
    encryption = element.find("encryption")
    if encryption is not None:
        from .encryption import read_encryption

        found.encryption = read_encryption(encryption)
    compat = string(element, "compat")
    if compat is not None:
        parts = compat.split(".", 1)
        if len(parts) != 2 or any((number(part) or 0) >= 1 << 32 or number(part) is None for part in parts):
            raise DefinitionError("forbidden characters in 'compat' attribute", value=compat)
    found.compat = compat
    found.nocow = element.find("nocow") is not None
    text = string(element, "clusterSize")
    if text is not None:
        message = f"Invalid value '{text}' for element or attribute './target/clusterSize'"
        found.cluster_size = scaled(text, string(element, "clusterSize", "@unit"), message) or None
    features = element.find("features")
    if features is not None:
        found.compat = compat or "1.1"
        asked = [child.name for child in features.children]
        for name in asked:
            if name not in FEATURES:
                raise ConfigError(f"unsupported feature {name}", value=name)
        found.features = [name for name in FEATURES if name in asked]


def format_volume(definition: VolumeDef, libxml2: bool = False) -> str:
    """The document, in libvirt's layout, or with libxml2's quoting, in which virsh shows the volume of a clone."""
    writer = Writer(definition.extra, libxml2)
    writer.open("volume", (("type", definition.type),))
    writer.leaf("name", definition.name)
    if definition.key is not None:
        writer.leaf("key", definition.key)
    if definition.extents or writer.wanted("source"):
        _write_extents(writer, definition.extents)
    writer.leaf("capacity", definition.capacity, (("unit", "bytes"),))
    writer.leaf("allocation", definition.allocation, (("unit", "bytes"),))
    if definition.physical:
        writer.leaf("physical", definition.physical, (("unit", "bytes"),))
    _write_target(writer, "target", definition.target)
    if definition.backing is not None:
        _write_target(writer, "backingStore", definition.backing)
    writer.close()
    return writer.text()


def _write_extents(writer: Writer, extents: list[tuple[str, int, int]]) -> None:
    writer.open("source")
    current = None
    for device, start, end in extents:
        if device != current:
            if current is not None:
                writer.close()
            writer.open("device", (("path", device),))
            current = device
        writer.leaf("extent", None, (("start", start), ("end", end)))
    if current is not None:
        writer.close()
    writer.close()


def _write_target(writer: Writer, name: str, target: VolumeTarget) -> None:
    writer.open(name)
    if target.path is not None:
        writer.leaf("path", target.path)
    if target.format is not None:
        writer.leaf("format", None, (("type", target.format),))
    write_permissions(writer, target.permissions, f"{name}/permissions")
    if target.timestamps is not None:
        _write_times(writer, target.timestamps)
    if target.encryption is not None:
        from .encryption import write_encryption

        write_encryption(writer, target.encryption)
    if target.compat is not None:
        writer.leaf("compat", target.compat)
    if target.cluster_size:
        writer.leaf("clusterSize", target.cluster_size, (("unit", "B"),))
    if target.features:
        writer.open("features")
        for feature in FEATURES:
            if feature in target.features:
                writer.leaf(feature)
        writer.close()
    writer.close()


def _write_times(writer: Writer, times: Timestamps) -> None:
    writer.open("timestamps")
    for name in ("atime", "mtime", "ctime", "btime"):
        value = getattr(times, name)
        if value is None and name != "btime":
            continue
        seconds, nanoseconds = divmod(value or 0, 1_000_000_000)
        writer.leaf(name, f"{seconds}.{nanoseconds:09}" if nanoseconds else seconds)
    writer.close()
