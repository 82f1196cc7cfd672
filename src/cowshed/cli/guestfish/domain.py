"""``-d NAME``: the disks of a libvirt domain, read from its XML."""

from __future__ import annotations

import os

from ...errors import UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from xml.etree.ElementTree import Element

_SYSTEM = "/etc/libvirt/qemu"
_USER = "~/.config/libvirt/qemu"
#: no domain's document is longer
_LONGEST = 16 << 20


class DomainDisk:
    """``file``: an image or block device; ``fmt`` as the document names it; ``readonly``: the guest may not write."""

    __slots__ = ("file", "fmt", "readonly")

    def __init__(self, file: str, fmt: str | None, readonly: bool) -> None:
        self.file = file
        self.fmt = fmt
        self.readonly = readonly


def disks_of(name: str, connect: str | None = None, *, writable: bool = False, uuid: bool = True) -> list[DomainDisk]:
    """The disks of a domain in the order of its document. The document is a file of that name, or libvirt's own of that
    name or uuid; ``connect`` says whose: qemu:///system, qemu:///session, a test:///FILE, or both without.

    ``writable``: disks will be written, so that a domain that runs is refused. ``uuid``: the name may be one. Raises
    UsageError.
    """
    path = _document(name, connect, uuid)
    domain = _root(path)
    own = domain.findtext("name") or name
    if writable and _runs(own):
        raise UsageError(f"domain ‘{own}’ is running: its disks can't be written meanwhile, only looked at with --ro")
    found = [disk for disk in map(_disk, domain.findall("./devices/disk")) if disk is not None]
    if not found:
        raise UsageError("libvirt domain has no disks")
    return found


def _disk(disk: Element) -> DomainDisk | None:
    """One disk; None for drives that are empty and devices that are no disks. Raises UsageError for what isn't here."""
    if disk.get("device", "disk") in ("cdrom", "floppy"):
        return None
    source = disk.find("source")
    if source is None:
        return None
    target = disk.find("target")
    label = f"the disk ‘{target.get('dev') if target is not None else '?'}’"
    kind = disk.get("type", "file")
    if kind == "volume":
        pool, volume = source.get("pool"), source.get("volume")
        raise UsageError(f"{label} is the volume ‘{volume}’ of the pool ‘{pool}’: find its path with virsh vol-path")
    if kind not in ("file", "block"):
        what = f"{kind} ({source.get('protocol')})" if kind == "network" else kind
        raise UsageError(f"{label} has a source of the type {what}, which isn't opened by way of a domain: give -a URI")
    if source.find("encryption") is not None or disk.find("encryption") is not None:
        raise UsageError(f"{label} is encrypted with a secret of libvirt, which is not asked for: give it with -a")
    file = source.get("file" if kind == "file" else "dev")
    if not file:
        return None
    if not os.path.exists(file):
        raise UsageError(f"{file}: No such file or directory")
    driver = disk.find("driver")
    fmt = driver.get("type") if driver is not None else None
    # libvirt's old way to say: look yourself
    return DomainDisk(file, None if fmt in (None, "auto", "") else fmt, disk.find("readonly") is not None)


def _root(path: str) -> Element:
    from xml.etree import ElementTree

    try:
        with open(path, "rb") as file:
            data = file.read(_LONGEST + 1)
    except OSError as error:
        raise UsageError(f"{path}: {error.strerror}") from error
    if len(data) > _LONGEST or b"<!ENTITY" in data or b"<!DOCTYPE" in data:
        raise UsageError(f"{path}: not a document of libvirt")
    try:
        root = ElementTree.fromstring(data)
    except (ElementTree.ParseError, ValueError, LookupError, RecursionError) as error:
        raise UsageError(f"{path}: not a document of libvirt: {error}") from error
    if root.tag == "domstatus":
        # what libvirt keeps of a domain that runs
        inner = root.find("domain")
        root = root if inner is None else inner
    if root.tag != "domain":
        raise UsageError(f"{path}: not a domain: the document is a <{root.tag}>")
    return root


def _folders(connect: str | None) -> list[str]:
    """Where the definitions of a connection are. Raises UsageError for connections to elsewhere."""
    system, user = _SYSTEM, os.path.expanduser(_USER)
    if not connect:
        return [system, user] if os.geteuid() == 0 else [user, system]
    if connect in ("qemu:///system", "qemu:///system/", "qemu+unix:///system"):
        return [system]
    if connect in ("qemu:///session", "qemu:///session/", "qemu+unix:///session"):
        return [user]
    if connect.startswith("test://"):
        return []
    raise UsageError(f"-c {connect}: definitions of domains are read from this host's files, qemu:///system's or "
                     "qemu:///session's, not from a connection")  # fmt: skip


def _document(name: str, connect: str | None, uuid: bool) -> str:
    if os.path.isfile(name) and ("/" in name or name.endswith(".xml")):
        return name
    folders = _folders(connect)
    if "/" not in name and name:
        for folder in folders:
            path = os.path.join(folder, f"{name}.xml")
            if os.path.isfile(path):
                return path
    wanted = name.replace("-", "").lower() if uuid else ""
    for folder in folders:
        try:
            entries = sorted(os.listdir(folder))
        except OSError:
            continue
        for entry in entries:
            path = os.path.join(folder, entry)
            if entry.endswith(".xml") and wanted and _uuid(path) == wanted:
                return path
    raise UsageError(f"no libvirt domain called ‘{name}’: Domain not found: no domain with matching name '{name}'")


def _uuid(path: str) -> str | None:
    try:
        return (_root(path).findtext("uuid") or "").strip().replace("-", "").lower() or None
    except UsageError:
        return None


def _runs(name: str) -> bool:
    """Has libvirt a record of a running domain of that name?"""
    places = ["/run/libvirt/qemu", "/var/run/libvirt/qemu"]
    runtime = os.environ.get("XDG_RUNTIME_DIR")
    if runtime:
        places.append(os.path.join(runtime, "libvirt/qemu"))
    if "/" in name:
        return False
    return any(os.path.exists(os.path.join(place, f"{name}.xml")) for place in places)
