"""What can be asked of each type of pool, as libvirt's ``<storagepoolCapabilities>``."""

from __future__ import annotations

from .kinds import KINDS, PARTITION_TYPES, Kind
from .writer import Writer

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Container, Mapping


def format_capabilities(supported: Container[str], kinds: Mapping[str, Kind] = KINDS) -> str:
    """The document: every kind of pool, which of them are ``supported``, their formats and their volumes'."""
    writer = Writer()
    writer.open("storagepoolCapabilities")
    for name, kind in kinds.items():
        writer.open("pool", (("type", name), ("supported", "yes" if name in supported else "no")))
        if kind.formats:
            _options(writer, "poolOptions", kind.default, "sourceFormatType", kind.formats)
        if kind.volume_formats:
            values = kind.volume_formats
            if name == "rbd":
                values = ()
            elif values is not PARTITION_TYPES:
                values = ("none", *values)
            _options(writer, "volOptions", kind.volume_default, "targetFormatType", values)
        writer.close()
    writer.close()
    return writer.text()


def _options(writer: Writer, name: str, default: str | None, enum: str, values: tuple[str, ...]) -> None:
    writer.open(name)
    writer.leaf("defaultFormat", None, (("type", default),))
    writer.open("enum", (("name", enum),))
    for value in values:
        writer.leaf("value", value)
    writer.close()
    writer.close()
