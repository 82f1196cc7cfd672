"""``-d NAME``: the disks of a libvirt domain, read from its XML."""

from __future__ import annotations

import os

from ...errors import UsageError

_FOLDERS = ("/etc/libvirt/qemu", "~/.config/libvirt/qemu")


def disks_of(name: str) -> list[tuple[str, str | None, bool]]:
    """(file, format, read-only) of each disk of a domain: its XML is a file of that name, or libvirt's own under that
    name or uuid. Raises UsageError."""
    from xml.etree import ElementTree

    path = _document(name)
    try:
        domain = ElementTree.parse(path).getroot()
    except (OSError, ElementTree.ParseError) as error:
        raise UsageError(f"no libvirt domain called ‘{name}’: {error}") from error
    found = []
    for disk in domain.findall("./devices/disk"):
        source = disk.find("source")
        if source is None or disk.get("device") in ("cdrom", "floppy"):
            continue
        file = source.get("file") or source.get("dev")
        if not file:
            continue
        driver = disk.find("driver")
        found.append((file, driver.get("type") if driver is not None else None, disk.find("readonly") is not None))
    if not found:
        raise UsageError("libvirt domain has no disks")
    return found


def _document(name: str) -> str:
    if os.path.isfile(name) and ("/" in name or name.endswith(".xml")):
        return name
    if "/" not in name:
        for folder in _FOLDERS:
            path = os.path.join(os.path.expanduser(folder), f"{name}.xml")
            if os.path.isfile(path):
                return path
    for folder in _FOLDERS:
        folder = os.path.expanduser(folder)
        try:
            entries = sorted(os.listdir(folder))
        except OSError:
            continue
        for entry in entries:
            path = os.path.join(folder, entry)
            if entry.endswith(".xml") and _uuid(path) == name:
                return path
    raise UsageError(f"no libvirt domain called ‘{name}’: Domain not found: no domain with matching name '{name}'")


def _uuid(path: str) -> str | None:
    from xml.etree import ElementTree

    try:
        return ElementTree.parse(path).getroot().findtext("uuid")
    except (OSError, ElementTree.ParseError):
        return None
