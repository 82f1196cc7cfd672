"""``virt-inspector``: what systems are on the disks, as XML."""

from __future__ import annotations

import os

from ....errors import CowshedError
from ....guest.identity import identify
from ..getopt import Option
from ..verbs.inspection import roots
from .common import Tool

TYPE_CHECKING = False
if TYPE_CHECKING:
    from xml.etree.ElementTree import Element

    from ....guest.inspect.root import Root
    from ...output import Output

_OPTIONS = (Option("no-applications"), Option("no-icon"), Option("xpath", "", True))


def main(argv: list[str], out: Output) -> int:
    usage = "display information about a virtual machine: virt-inspector -a disk.img"
    return Tool("virt-inspector", usage, out, options=_OPTIONS, inspect=False).run(argv, work, check)


def check(tool: Tool) -> None:
    """Raises Stop for what is not here."""
    if "xpath" in tool.own:
        raise tool.fail("--xpath is not part of cowshed; instead: xmllint --xpath QUERY FILE")


def work(tool: Tool) -> int:
    from xml.etree import ElementTree

    found = roots(tool.fish)
    if not found:
        raise tool.fail("no operating system was found on this disk")
    top = ElementTree.Element("operatingsystems")
    for root in found:
        _describe(tool, ElementTree.SubElement(top, "operatingsystem"), root)
    ElementTree.indent(top, "  ")
    text = ElementTree.tostring(top, encoding="unicode", short_empty_elements=True)
    tool.out.write(f'<?xml version="1.0"?>\n{text.replace(" />", "/>")}\n')
    return 0


def _describe(tool: Tool, element: object, root: Root) -> None:
    from xml.etree.ElementTree import Element, SubElement

    assert isinstance(element, Element)

    def say(name: str, value: str) -> None:
        if value and value != "unknown":
            SubElement(element, name).text = _clean(value)

    SubElement(element, "root").text = root.device
    say("name", root.type)
    say("arch", root.arch)
    say("distro", root.distro)
    say("product_name", root.product)
    say("product_variant", root.variant)
    say("major_version", str(root.version[0]))
    say("minor_version", str(root.version[1]))
    say("package_format", root.package_format)
    say("package_management", root.package_management)
    say("hostname", root.hostname)
    say("build_id", root.build_id)
    say("osinfo", root.osinfo)
    points = SubElement(element, "mountpoints")
    for path, device in sorted(root.mountpoints):
        SubElement(points, "mountpoint", dev=device).text = _clean(path)
    systems = SubElement(element, "filesystems")
    for device in sorted(root.filesystems):
        row = SubElement(systems, "filesystem", dev=device)
        facts = identify(tool.fish.session.devices.open(device))
        for name, key in (("type", "TYPE"), ("label", "LABEL"), ("uuid", "UUID")):
            if facts.get(key):
                SubElement(row, name).text = _clean(facts[key])
    if "no-applications" not in tool.own:
        _applications(element, root)
    if "no-icon" not in tool.own:
        import base64

        data = _icon(tool, root)
        if data:
            text = base64.b64encode(data).decode()
            # as libxml2 writes it
            lines = [text[at : at + 72] for at in range(0, len(text), 72)]
            SubElement(element, "icon").text = "\r\n".join(lines)


def _applications(element: Element, root: Root) -> None:
    from xml.etree.ElementTree import SubElement

    applications = SubElement(element, "applications")
    for application in root.applications():
        row = SubElement(applications, "application")
        for name, value in application.fields(2):
            name = name.removeprefix("app2_")
            if value and not name.startswith("spare") and not (name == "epoch" and value == "0"):
                SubElement(row, name).text = _clean(value)


def _icon(tool: Tool, root: Root) -> bytes:
    """A large one that the distribution brings, read through what the system would mount, as far as that can be."""
    from ....guest.inspect.icon import icon

    session = tool.fish.session
    try:
        for path, device in sorted(root.mounts, key=lambda mount: (len(mount[0]), mount[0])):
            try:
                session.mount(device, os.fsencode(path), readonly=True)
            except CowshedError:
                if path == "/":
                    return b""
        return icon(session.tree, root, favicon=False, high=True)
    except CowshedError:
        # damaged: the rest of the system is still worth telling
        return b""
    finally:
        session.umount_all()


def _clean(text: str) -> str:
    """Without the characters that XML can't hold."""
    return "".join(
        char if char in "\t\n" or (char >= " " and not 0xD800 <= ord(char) < 0xE000) else "\ufffd" for char in text
    )
