"""virt-inspector's document: everything that inspection found, as XML."""

from __future__ import annotations

from xml.sax.saxutils import escape, quoteattr

from .root import UNKNOWN

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from .application import Application
    from .root import Root

#: characters that XML 1.0 has no form for
_BARE = dict.fromkeys(
    (*(code for code in range(32) if code not in (9, 10, 13)), 0xFFFE, 0xFFFF, *range(0xD800, 0xE000))
)


def document(roots: Iterable[Root], *, applications: bool = True) -> str:
    """The whole document, two spaces a level. Raises what reading a package database raises."""
    rows = ['<?xml version="1.0"?>', "<operatingsystems>"]
    for root in roots:
        rows.append("  <operatingsystem>")
        rows.extend("    " + row for row in _system(root, applications))
        rows.append("  </operatingsystem>")
    rows.append("</operatingsystems>")
    return "\n".join(rows) + "\n"


def _element(name: str, value: str, attributes: str = "") -> str:
    return f"<{name}{attributes}>{escape(value.translate(_BARE))}</{name}>"


def _attribute(name: str, value: str) -> str:
    return f" {name}={quoteattr(value.translate(_BARE))}"


def _system(root: Root, applications: bool) -> Iterator[str]:
    yield _element("root", root.device)
    for name, value in (
        ("name", root.type),
        ("arch", root.arch),
        ("distro", root.distro),
        ("product_name", root.product),
        ("product_variant", root.variant),
    ):
        if value != UNKNOWN:
            yield _element(name, value)
    yield _element("major_version", str(root.version[0]))
    yield _element("minor_version", str(root.version[1]))
    for name, value in (
        ("package_format", root.package_format),
        ("package_management", root.package_management),
        ("hostname", root.hostname),
        ("build_id", root.build_id),
        ("osinfo", root.osinfo),
    ):
        if value != UNKNOWN:
            yield _element(name, value)
    yield "<mountpoints>"
    for path, device in sorted(root.mounts, key=lambda mount: (len(mount[0]), mount[0])):
        yield "  " + _element("mountpoint", path, _attribute("dev", device))
    yield "</mountpoints>"
    yield "<filesystems>"
    kinds = dict(root.guest.filesystems())
    for device in sorted(root.filesystems):
        yield f"  <filesystem{_attribute('dev', device)}>"
        kind, tags = kinds.get(device, ""), root.guest.tags(device)
        for name, value in (("type", kind), ("label", tags.get("LABEL", "")), ("uuid", tags.get("UUID", ""))):
            if value:
                yield "    " + _element(name, value)
        yield "  </filesystem>"
    yield "</filesystems>"
    if applications:
        yield "<applications>"
        for one in root.applications():
            yield "  <application>"
            yield from ("    " + row for row in _application(one))
            yield "  </application>"
        yield "</applications>"


def _application(one: Application) -> Iterator[str]:
    yield _element("name", one.name)
    for name, value in (
        ("display_name", one.display_name),
        ("epoch", str(one.epoch) if one.epoch else ""),
        ("version", one.version),
        ("release", one.release),
        ("arch", one.arch),
        ("install_path", one.install_path),
        ("publisher", one.publisher),
        ("url", one.url),
        ("source_package", one.source_package),
        ("summary", one.summary),
        ("description", one.description),
    ):
        if value:
            yield _element(name, value)
