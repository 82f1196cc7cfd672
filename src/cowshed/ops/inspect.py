"""What a file is and what it names, without opening anything but the file itself.

For images from somebody else, before a tool that follows names gets to see them. Signatures are looked for at all
places at which formats have them, not only where a probe looks, since a file may be several things at once.
"""

from __future__ import annotations

import os

from ..block import registry
from ..block.filename import combine, protocol_prefix
from ..block.graph import open_image
from ..errors import OpenError
from .info import ImageInfo, snapshot_dict

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from ..block.node import Node

#: signatures that no driver's probe looks for: (what, offset in the file, or from its end where negative, bytes)
_OTHERS = (
    ("MBR boot sector or partition table", 510, b"\x55\xaa"),
    ("GPT partition table", 512, b"EFI PART"),
    ("GPT partition table (4096-byte sectors)", 4096, b"EFI PART"),
    ("ISO 9660 file system", 0x8001, b"CD001"),
    ("ext2/3/4 file system", 0x438, b"\x53\xef"),
    ("XFS file system", 0, b"XFSB"),
    ("btrfs file system", 0x10040, b"_BHRfS_M"),
    ("NTFS file system", 3, b"NTFS    "),
    ("LVM physical volume", 0x218, b"LVM2 001"),
    ("swap space", 4086, b"SWAPSPACE2"),
    ("VHD footer (vpc)", -512, b"conectix"),
    ("gzip data", 0, b"\x1f\x8b"),
    ("xz data", 0, b"\xfd7zXZ\0"),
    ("zstd data", 0, b"\x28\xb5\x2f\xfd"),
    ("bzip2 data", 0, b"BZh"),
    ("ZIP archive", 0, b"PK\3\4"),
    ("tar archive", 257, b"ustar"),
    ("ELF program", 0, b"\x7fELF"),
)
#: what no disk begins with; the rest a disk may well hold, and is no reason for suspicion
_FOREIGN = (
    "VHD footer (vpc)", "gzip data", "xz data", "zstd data", "bzip2 data", "ZIP archive", "tar archive", "ELF program",
)  # fmt: skip
_CONTENT = frozenset(what for what, *_ in _OTHERS if what not in _FOREIGN)
#: bytes of a text descriptor that are looked through for the names of extents
_DESCRIPTOR = 64 << 10
_NAMED = (b"RW ", b"RDONLY ", b"NOACCESS ")


class Reference:
    """A name that stands in the image. ``role``: "backing file", "data file" or "extent"; ``name`` as it stands
    there; ``format`` that the image gives for it, or None; ``path``: where it would be looked for; ``kind``: "file",
    "network", "description" (``json:``) or "protocol"; ``remarks``: what is dubious about it."""

    __slots__ = ("format", "kind", "name", "path", "remarks", "role")

    def __init__(self, role: str, name: str, owner: str, format: str | None = None, *, literal: bool = False) -> None:
        self.role = role
        self.name = name
        self.format = format
        prefix = None if literal else protocol_prefix(name)
        self.kind = "file"
        if prefix == "json":
            self.kind = "description"
        elif prefix is not None and prefix != "file":
            row = registry.find_prefix(prefix)
            self.kind = "network" if row is not None and not row.needs_file else "protocol"
        # names of data files and extents are seen from the working directory, those of backing files from the image
        self.path = name if literal else combine(owner, name)
        self.remarks: list[str] = []
        if self.kind == "network":
            self.remarks.append("leads to the network")
        elif self.kind == "description":
            self.remarks.append("describes how to open something, and may open anything")
        elif self.kind == "protocol":
            self.remarks.append(f"asks for the protocol '{prefix}'")
        elif name.startswith(("/", "file:/")):
            self.remarks.append("is an absolute path")
        elif ".." in name.split("/"):
            self.remarks.append("leaves the directory")
        if name.startswith(("/dev/", "/proc/", "/sys/", "/etc/")):
            self.remarks.append("is a device or a file of the system")
        if not name.isprintable():
            self.remarks.append("holds control characters")

    def to_dict(self) -> dict[str, Any]:
        found: dict[str, Any] = {"role": self.role, "name": self.name, "kind": self.kind, "path": self.path}
        if self.format is not None:
            found["format"] = self.format
        found["remarks"] = list(self.remarks)
        return found


class Inspection:
    """What was found. ``size`` and ``allocated``: bytes of the file; ``format``: the one that a probe takes it for;
    ``signatures``: all that match; ``info``: an ImageInfo, None where the image can't be opened; ``references``;
    ``warnings``: lines for people."""

    __slots__ = ("allocated", "filename", "format", "info", "references", "signatures", "size", "warnings")

    def __init__(self, filename: str, size: int, allocated: int | None) -> None:
        self.filename = filename
        self.size = size
        self.allocated = allocated
        self.format = "raw"
        self.signatures: list[str] = []
        self.info: ImageInfo | None = None
        self.references: list[Reference] = []
        self.warnings: list[str] = []

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        found: dict[str, Any] = {
            "filename": self.filename,
            "file-size": self.size,
            "allocated-size": self.allocated,
            "format": self.format,
            "signatures": list(self.signatures),
        }
        info = self.info
        if info is not None:
            found["virtual-size"] = info.virtual_size
            found["cluster-size"] = info.cluster_size
            found["encrypted"] = info.encrypted
            found["dirty"] = info.dirty
            found["snapshots"] = [snapshot_dict(item) for item in info.snapshots]
            if info.format_specific is not None:
                found["header"] = info.format_specific["data"]
        found["references"] = [item.to_dict() for item in self.references]
        found["warnings"] = list(self.warnings)
        return found


def inspect(filename: str | os.PathLike[str]) -> Inspection:
    """Look at ``filename``, a path on this host. No other file is opened, nothing is locked against others.

    Raises OpenError when the file itself can't be read; what is wrong with its content stands in the result.
    """
    path = os.fspath(filename)
    driver = "host_device" if _is_block(path) else "file"
    with open_image({"driver": driver, "filename": path}, force_share=True, trust="none", label=path) as file:
        found = Inspection(path, file.size, file.allocated_bytes())
        head = file.read(0, min(registry.PROBE_SIZE, file.size))
        head += bytes(-len(head) % 512)
        found.format = registry.probe_bytes(head, path) if file.size else "raw"
        _signatures(file, head, found)
        _names_in_text(file, head, found)
    _facts(found)
    _doubts(found)
    return found


def _is_block(path: str) -> bool:
    try:
        return os.stat(path).st_mode & 0o170000 == 0o060000
    except (OSError, ValueError):
        return False


def _signatures(file: Node, head: bytes, found: Inspection) -> None:
    for row in registry.drivers():
        if row.probe is not None and row.name != "raw" and row.probe(head, found.filename) > 0:
            found.signatures.append(row.name)
    for what, offset, magic in _OTHERS:
        at = offset if offset >= 0 else file.size + offset
        if 0 <= at <= file.size - len(magic) and file.read(at, len(magic)) == magic:
            found.signatures.append(what)


def _names_in_text(file: Node, head: bytes, found: Inspection) -> None:
    """The extents that a VMDK descriptor in text names; a sparse extent's own descriptor names only itself."""
    if found.format != "vmdk" or head[:4] in (b"KDMV", b"COWD"):
        return
    text = file.read(0, min(_DESCRIPTOR, file.size))
    for line in text.split(b"\n"):
        parts = line.strip().split(b'"')
        if line.lstrip().startswith(_NAMED) and len(parts) >= 3:
            found.references.append(Reference("extent", os.fsdecode(parts[1]), found.filename, literal=True))


def _facts(found: Inspection) -> None:
    """What the format's own header says."""
    try:
        with open_image(
            found.filename, fmt=found.format, backing=False, no_io=True, force_share=True, trust="none"
        ) as node:
            info = found.info = ImageInfo(node)
    except OpenError as error:
        cause = error.__cause__
        detail = error.detail
        where = f" ({detail})" if detail else ""
        found.warnings.append(f"cannot be opened as {found.format}: {cause or error}{where}")
        return
    if info.backing_filename is not None:
        reference = Reference("backing file", info.backing_filename, found.filename, info.backing_format)
        if info.backing_format is None:
            reference.remarks.append("has no format, so that it would be guessed from its content")
        found.references.append(reference)
    data = info.format_specific["data"] if info.format_specific is not None else {}
    if isinstance(data.get("data-file"), str):
        found.references.append(Reference("data file", data["data-file"], found.filename, literal=True))
    for extent in data.get("extents") or ():
        name = extent.get("filename")
        if isinstance(name, str) and name != found.filename:
            found.references.append(Reference("extent", name, found.filename, literal=True))


def _doubts(found: Inspection) -> None:
    """What a careful person would want to know."""
    tell = found.warnings.append
    strange = [what for what in found.signatures if what != found.format and what not in _CONTENT]
    if found.format != "raw" and strange:
        tell(f"is {found.format} to a probe, but also looks like {', '.join(strange)}")
    elif strange:
        tell(f"looks like {', '.join(strange)}, which is read as raw bytes here")
    if found.format == "raw" and found.size and not any(what in _CONTENT for what in found.signatures):
        tell("has no signature that is known: it is raw, encrypted, empty or something else")
    if not found.size:
        tell("is empty")
    for item in found.references:
        for remark in item.remarks:
            tell(f"the {item.role} {remark}")
    info = found.info
    if info is None:
        return
    data = info.format_specific["data"] if info.format_specific is not None else {}
    if info.dirty:
        tell("was not closed properly; its reference counts may be wrong")
    if data.get("corrupt") is True:
        tell("is marked as corrupt and opens for reading only")
    if info.backing_filename is not None and info.full_backing_filename in (found.filename, info.filename):
        tell("names itself as its backing file")
    if any(not item.name.isprintable() for item in info.snapshots):
        tell("the name of a snapshot holds control characters")
    if any(item.get("flags") and "in-use" in item["flags"] for item in data.get("bitmaps") or ()):
        tell("has a bitmap that was not stored properly and can't be trusted")
