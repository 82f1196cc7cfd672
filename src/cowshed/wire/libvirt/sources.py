"""``<source>`` of a pool: read, written, and as the list that a search for sources answers with."""

from __future__ import annotations

from ...errors import ConfigError, DefinitionError
from . import reader
from .common import choice, number, sanitize, unknown_format
from .definition import Device, Element, PoolSource
from .kinds import KINDS
from .reader import string

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from .common import Known
    from .writer import Writer

_NAME: Known = (("name",), {})
SOURCE: Known = (
    (),
    {
        "host": (("name", "port"), {}),
        "device": (("path", "part_separator"), {"freeExtent": (("start", "end"), {})}),
        "dir": (("path",), {}),
        "adapter": (
            ("type", "name", "parent", "managed", "wwnn", "wwpn", "parent_wwnn", "parent_wwpn", "parent_fabric_wwn"),
            {"parentaddr": (("unique_id",), {"address": (("domain", "bus", "slot", "function"), {})})},
        ),
        "name": ((), {}),
        "initiator": ((), {"iqn": _NAME}),
        "format": (("type",), {}),
        "auth": (("type", "username"), {"secret": (("type", "uuid", "usage"), {})}),
        "vendor": _NAME,
        "product": _NAME,
        "protocol": (("ver",), {}),
    },
)


def read_source(element: Element, pool_type: str) -> PoolSource:
    """A ``<source>`` element. DefinitionError, ConfigError: in libvirt's words."""
    kind = KINDS[pool_type]
    source = PoolSource()
    source.name = string(element, "name")
    if pool_type == "rbd" and source.name is None:
        raise DefinitionError("element 'name' is mandatory for RBD pool")
    if kind.formats:
        source.format = string(element, "format", "@type") or kind.default
        if source.format not in kind.formats:
            raise unknown_format("pool", source.format or "")
    for host in element.find_all("host"):
        source.hosts.append(_host(host))
    source.initiator_iqn = string(element, "initiator", "iqn", "@name")
    for device in element.find_all("device"):
        path = device.attributes.get("path")
        if path is None:
            raise DefinitionError("missing storage pool source device path")
        separator = choice(device, "part_separator", ("yes", "no"))
        source.devices.append(Device(path, None if separator is None else separator == "yes"))
    directory = string(element, "dir", "@path")
    if directory is None and pool_type == "gluster":
        directory = "/"
    source.directory = sanitize(directory) if directory is not None else None
    adapter = element.find("adapter")
    if adapter is not None:
        from .adapter import read_adapter

        source.adapter = read_adapter(adapter)
    auth = element.find("auth")
    if auth is not None:
        from .auth import read_auth

        source.auth = read_auth(auth)
        if not source.auth.type:
            raise ConfigError("storage pool missing auth type")
    source.protocol_version = string(element, "protocol", "@ver")
    if pool_type != "netfs":
        source.protocol_version = None
    elif source.protocol_version is not None and source.format not in ("auto", "nfs"):
        raise ConfigError(f"storage pool protocol ver unsupported for pool type '{source.format}'")
    source.vendor = string(element, "vendor", "@name")
    source.product = string(element, "product", "@name")
    return source


def _host(element: Element) -> tuple[str, int | None]:
    name = element.attributes.get("name")
    if name is None:
        raise DefinitionError("missing storage pool host name")
    text = element.attributes.get("port")
    if text is None:
        return name, None
    port = number(text, signed=True)
    if port is None or not -(1 << 31) <= port < 1 << 31:
        raise DefinitionError(
            f"Invalid value for attribute 'port' in element 'host': '{text}'. Expected integer value", value=text
        )
    return name, port or None


def write_source(writer: Writer, source: PoolSource, pool_type: str, figures: bool = True) -> None:
    """``<source>`` with what a pool of that type uses. ``figures``: with the free extents of its devices."""
    kind = KINDS[pool_type]
    used = kind.source
    writer.open("source")
    if "host" in used:
        for name, port in source.hosts:
            writer.leaf("host", None, (("name", name), ("port", port)))
    if "device" in used:
        for device in source.devices:
            separator = None if device.part_separator is None else "yes" if device.part_separator else "no"
            attributes = (("path", device.path), ("part_separator", separator))
            if figures and device.free_extents:
                writer.open("device", attributes)
                for start, end in device.free_extents:
                    writer.leaf("freeExtent", None, (("start", start), ("end", end)))
                writer.close()
            else:
                writer.leaf("device", None, attributes)
    if "dir" in used and source.directory is not None:
        writer.leaf("dir", None, (("path", source.directory),))
    if "adapter" in used and source.adapter is not None:
        writer.element(source.adapter)
    if "name" in used and source.name is not None:
        writer.leaf("name", source.name)
    if "initiator" in used and source.initiator_iqn is not None:
        writer.open("initiator")
        writer.leaf("iqn", None, (("name", source.initiator_iqn),))
        writer.close()
    if kind.formats and source.format is not None:
        writer.leaf("format", None, (("type", source.format),))
    if source.auth is not None:
        from .auth import write_auth

        write_auth(writer, source.auth)
    if source.vendor is not None:
        writer.leaf("vendor", None, (("name", source.vendor),))
    if source.product is not None:
        writer.leaf("product", None, (("name", source.product),))
    if source.protocol_version is not None:
        writer.leaf("protocol", None, (("ver", source.protocol_version),))
    writer.close()


def parse_source(text: str | bytes, pool_type: str) -> PoolSource:
    """A document whose root is ``<source>``: what a search for sources is told to look at.

    Nothing of it is required here; each type of pool asks for what its search needs.
    """
    return read_source(reader.parse_root(text, reader.SOURCE, "source"), pool_type)


def format_sources(sources: Iterable[PoolSource], pool_type: str) -> str:
    """``<sources>`` with all of them."""
    from .writer import Writer

    writer = Writer()
    writer.open("sources")
    for source in sources:
        write_source(writer, source, pool_type)
    writer.close()
    return writer.text()
