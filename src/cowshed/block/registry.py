"""The table of drivers: what exists, how it is recognised and where its code is.

Nothing of a driver is imported before it is used: a row holds dotted paths ("module:name", the module relative to
cowshed.block when it begins with a dot). Third parties add rows through the entry point group ``cowshed.drivers``: an
entry point names a `Driver` object (or a callable that returns one), and is loaded only when a name is asked for that
is not in this table.

A format's ``open`` is called as ``open(file, options, context)`` and a protocol's as ``open(filename, options,
context)``; see graph.OpenContext. ``create(filename, values, context)`` makes an image, see graph.CreateContext;
``measure(values, size, source)`` returns facts.Measure.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Any, Literal

    from .options import OptionTable

#: how much of an image is looked at to tell its format
PROBE_SIZE = 2048

#: what a format's own file is to the image, for locking (see locking.ROLE_*): "metadata", "raw"
METADATA = "metadata"
RAW = "raw"


class Driver:
    """One row. ``kind``: "format" (a disk in a file), "protocol" (bytes at a place) or "filter".

    ``open``, ``create``, ``options`` (creation), ``amend``, ``measure``: dotted paths, "" where the driver can't.
    ``open_options``: what may be given when opening, "name:kind" with the kinds of options.Option; a name that ends
    with a dot stands for everything below it, unparsed. ``child_roles``: files of guest data that options may describe.
    ``probe``: from (first bytes, file name) to a score, 0 for no; the highest score wins. ``prefixes``: the words
    before ":" in names of this protocol. ``compress``: the format has compressed clusters. ``strong``: open options
    that change what is read, so that a file name alone does not stand for the node.
    """

    __slots__ = (
        "amend",
        "backing",
        "child_roles",
        "compress",
        "create",
        "file_role",
        "kind",
        "measure",
        "name",
        "needs_file",
        "open",
        "open_options",
        "options",
        "prefixes",
        "probe",
        "strong",
        "suffixes",
    )

    def __init__(
        self,
        name: str,
        *,
        kind: Literal["format", "protocol", "filter"] = "format",
        open: str = "",
        create: str = "",
        options: str = "",
        amend: str = "",
        measure: str = "",
        open_options: tuple[str, ...] = (),
        backing: bool = False,
        probe: Callable[[bytes, str], int] | None = None,
        prefixes: tuple[str, ...] = (),
        strong: tuple[str, ...] = (),
        suffixes: tuple[str, ...] = (),
        file_role: str = METADATA,
        needs_file: bool = True,
        compress: bool = False,
        child_roles: tuple[str, ...] = (),
    ) -> None:
        self.name = name
        self.kind: Literal["format", "protocol", "filter"] = kind
        self.open = open
        self.create = create
        self.options = options
        self.amend = amend
        self.measure = measure
        self.open_options = open_options
        self.backing = backing
        self.probe = probe
        self.prefixes = prefixes
        self.strong = strong
        self.suffixes = suffixes
        self.file_role = file_role
        self.needs_file = needs_file
        self.compress = compress
        self.child_roles = child_roles

    def __repr__(self) -> str:
        return f"<Driver {self.name} ({self.kind})>"

    def table(self, job: Literal["options", "amend"]) -> OptionTable | None:
        """The option table for creation ("options") or amendment; None where the driver has none."""
        path = getattr(self, job)
        return load(path) if path else None


def load(path: str) -> Any:
    """The object at a dotted path ``module:name``; ``.format.raw:open_raw`` is relative to cowshed.block."""
    module_name, _, name = path.partition(":")
    if module_name.startswith("."):
        module_name = __name__.rpartition(".")[0] + module_name
    module = __import__(module_name, fromlist=(name,))
    return getattr(module, name)


# -- recognising a format by its first bytes: each from its own specification ------------------------------------------


def _magic(magic: bytes, at: int = 0) -> Callable[[bytes, str], int]:
    def probe(head: bytes, filename: str) -> int:
        return 100 if head[at : at + len(magic)] == magic else 0

    return probe


def _qcow(head: bytes, filename: str) -> int:
    return 100 if head[:4] == b"QFI\xfb" and head[4:8] == b"\0\0\0\1" else 0


def _qcow2(head: bytes, filename: str) -> int:
    return 100 if head[:4] == b"QFI\xfb" and len(head) >= 72 and head[4:8] >= b"\0\0\0\2" else 0


def _luks(head: bytes, filename: str) -> int:
    return 100 if head[:6] == b"LUKS\xba\xbe" and head[6:8] == b"\0\1" else 0


def _parallels(head: bytes, filename: str) -> int:
    known = head[:16] in (b"WithoutFreeSpace", b"WithouFreSpacExt")
    return 100 if known and len(head) >= 64 and head[16:20] == b"\2\0\0\0" else 0


def _bochs(head: bytes, filename: str) -> int:
    if len(head) < 512 or head[64:68] not in (b"\0\0\2\0", b"\0\0\1\0"):
        return 0
    fields = (head[:32], head[32:48], head[48:64])
    words = [field.split(b"\0", 1)[0] for field in fields]
    return 100 if words == [b"Bochs Virtual HD Image", b"Redolog", b"Growing"] else 0


def _cloop(head: bytes, filename: str) -> int:
    script = b"#!/bin/sh\n#V2.0 Format\nmodprobe cloop file=$0 && mount -r -t iso9660 /dev/cloop $1\n"
    return 2 if head and head[: len(script)] == script[: len(head)] else 0


def _dmg(head: bytes, filename: str) -> int:
    return 2 if filename.endswith(".dmg") and len(filename) > 4 else 0


def _vmdk(head: bytes, filename: str) -> int:
    """A sparse extent's magic, or a descriptor: comments and blank lines, then the version's line."""
    if head[:4] in (b"KDMV", b"COWD"):
        return 100
    at = 0
    while at < len(head):
        if head[at] == 0x23:  # a comment, up to the end of its line
            at = head.find(b"\n", at)
            if at < 0:
                return 0
            at += 1
        elif head[at] == 0x20:  # a line of nothing but spaces
            while at < len(head) and head[at] == 0x20:
                at += 1
            if head[at : at + 2] == b"\r\n":
                at += 2
            elif head[at : at + 1] == b"\n":
                at += 1
            else:
                return 0
        else:
            line = head[at:].split(b"\n", 1)
            if len(line) == 2 and line[0].removesuffix(b"\r") in (b"version=1", b"version=2", b"version=3"):
                return 100
            return 0
    return 0


def _raw(head: bytes, filename: str) -> int:
    return 1


# -- the table ---------------------------------------------------------------------------------------------------------

_FILE_OPTIONS = (
    "filename:str",
    "locking:str",
    "aio:str",
    "aio-max-batch:num",
    "pr-manager:str",
    "drop-cache:bool",
    "x-check-cache-dropped:bool",
)

_ROWS = (
    Driver(
        "raw",
        open=".format.raw_create:open_raw",
        create=".format.raw_create:create",
        options=".format.raw_create:CREATE",
        measure=".format.raw_create:measure",
        open_options=("offset:size", "size:size"),
        strong=("offset", "size"),
        probe=_raw,
        suffixes=("raw", "img"),
        file_role=RAW,
    ),
    Driver(
        "qcow2",
        open=".format.qcow2.open:open_qcow2",
        create=".format.qcow2.create:create",
        options=".format.qcow2.options:CREATE",
        amend=".format.qcow2.options:AMEND",
        measure=".format.qcow2.measure:measure",
        open_options=(
            "lazy-refcounts:bool",
            "pass-discard-request:bool",
            "pass-discard-snapshot:bool",
            "pass-discard-other:bool",
            "overlap-check:str",
            "overlap-check.template:str",
            "overlap-check.main-header:bool",
            "overlap-check.active-l1:bool",
            "overlap-check.active-l2:bool",
            "overlap-check.refcount-table:bool",
            "overlap-check.refcount-block:bool",
            "overlap-check.snapshot-table:bool",
            "overlap-check.inactive-l1:bool",
            "overlap-check.inactive-l2:bool",
            "overlap-check.bitmap-directory:bool",
            "cache-size:size",
            "l2-cache-size:size",
            "l2-cache-entry-size:size",
            "refcount-cache-size:size",
            "cache-clean-interval:num",
            "encrypt.",
        ),
        strong=("encrypt.",),
        backing=True,
        compress=True,
        child_roles=("data-file",),
        probe=_qcow2,
        suffixes=("qcow2",),
    ),
    Driver(
        "vmdk",
        open=".format.vmdk.node:open_vmdk",
        create=".format.vmdk.create:create",
        options=".format.vmdk.options:CREATE",
        backing=True,
        compress=True,
        probe=_vmdk,
        suffixes=("vmdk",),
    ),
    Driver(
        "qcow",
        open_options=("encrypt.",),
        strong=("encrypt.",),
        backing=True,
        compress=True,
        probe=_qcow,
        suffixes=("qcow",),
    ),
    Driver("vdi", probe=_magic(b"\x7f\x10\xda\xbe", 0x40), suffixes=("vdi",)),
    Driver("vhdx", probe=_magic(b"vhdxfile"), suffixes=("vhdx",)),
    Driver("vpc", open_options=("force_size_calc:str",), probe=_magic(b"conectix"), suffixes=("vhd", "vpc")),
    Driver("qed", backing=True, probe=_magic(b"QED\0"), suffixes=("qed",)),
    Driver(
        "parallels",
        open_options=("prealloc-size:size", "prealloc-mode:str"),
        probe=_parallels,
        suffixes=("hds", "parallels"),
    ),
    Driver(
        "luks",
        open=".format.luks.node:open_luks",
        open_options=("key-secret:str",),
        strong=("key-secret",),
        probe=_luks,
    ),
    Driver("bochs", probe=_bochs),
    Driver("dmg", probe=_dmg, suffixes=("dmg",)),
    Driver("cloop", probe=_cloop),
    Driver(
        "file",
        kind="protocol",
        open=".protocol.file_open:open_file",
        create=".protocol.file_open:create_file",
        options=".protocol.file_options:CREATE",
        open_options=_FILE_OPTIONS,
        prefixes=("file",),
    ),
    Driver(
        "host_device",
        kind="protocol",
        open=".protocol.host_device:open_host_device",
        create=".protocol.host_device:create_on_device",
        options=".protocol.host_device:CREATE",
        open_options=_FILE_OPTIONS,
        prefixes=("host_device",),
    ),
    Driver(
        "host_cdrom",
        kind="protocol",
        open=".protocol.host_device:open_host_cdrom",
        create=".protocol.host_device:create_on_device",
        options=".protocol.host_device:CREATE",
        open_options=_FILE_OPTIONS,
        prefixes=("host_cdrom",),
    ),
    Driver(
        "host_floppy",
        kind="protocol",
        open=".protocol.host_device:open_host_floppy",
        create=".protocol.host_device:create_on_device",
        options=".protocol.host_device:CREATE",
        open_options=_FILE_OPTIONS,
        prefixes=("host_floppy",),
    ),
    Driver(
        "iscsi",
        kind="protocol",
        open=".protocol.iscsi:open_iscsi",
        create=".protocol.iscsi:create_on_unit",
        options=".protocol.iscsi:CREATE",
        open_options=(
            "filename:str",
            "transport:str",
            "portal:str",
            "target:str",
            "user:str",
            "password:str",
            "password-secret:str",
            "lun:num",
            "initiator-name:str",
            "header-digest:str",
            "timeout:num",
        ),
        prefixes=("iscsi",),
        needs_file=False,
    ),
    # known by name, so that a reference to one is told from a spelling mistake; their code is not here yet
    *(
        Driver(name, kind="protocol", prefixes=prefixes, needs_file=False)
        for name, prefixes in (
            ("nbd", ("nbd", "nbd+tcp", "nbd+unix")),
            ("http", ("http",)),
            ("https", ("https",)),
            ("ftp", ("ftp",)),
            ("ftps", ("ftps",)),
            ("ssh", ("ssh",)),
            ("iser", ("iser",)),
            ("rbd", ("rbd",)),
            ("nfs", ("nfs",)),
            ("nvme", ("nvme",)),
            ("gluster", ("gluster", "gluster+tcp", "gluster+unix", "gluster+rdma")),
            ("vvfat", ("fat",)),
            ("null-co", ("null-co",)),
            ("null-aio", ("null-aio",)),
            ("quorum", ()),
        )
    ),
    *(
        Driver(name, kind="filter", prefixes=prefixes)
        for name, prefixes in (
            ("blkdebug", ("blkdebug",)),
            ("blkverify", ("blkverify",)),
            ("blklogwrites", ()),
            ("compress", ()),
            ("copy-before-write", ()),
            ("copy-on-read", ()),
            ("preallocate", ()),
            ("replication", ()),
            ("snapshot-access", ()),
            ("throttle", ()),
        )
    ),
)

_DRIVERS: dict[str, Driver] = {row.name: row for row in _ROWS}
_entry_points_loaded = False


def _load_entry_points() -> None:
    """Third parties' rows; a row never replaces one of the house."""
    global _entry_points_loaded
    if _entry_points_loaded:
        return
    _entry_points_loaded = True
    from importlib.metadata import entry_points

    for point in entry_points(group="cowshed.drivers"):
        if point.name in _DRIVERS:
            continue
        row = point.load()
        if not isinstance(row, Driver):
            row = row()
        _DRIVERS.setdefault(row.name, row)


def find(name: str) -> Driver | None:
    """The driver called ``name``, None when there is none."""
    row = _DRIVERS.get(name)
    if row is None:
        _load_entry_points()
        row = _DRIVERS.get(name)
    return row


def find_prefix(prefix: str) -> Driver | None:
    """The protocol whose names begin with ``prefix`` and a colon."""
    for row in _DRIVERS.values():
        if prefix in row.prefixes:
            return row
    _load_entry_points()
    for row in _DRIVERS.values():
        if prefix in row.prefixes:
            return row
    return None


def register(row: Driver) -> None:
    """Add a driver for this process. Raises ValueError when the name is taken."""
    if row.name in _DRIVERS:
        raise ValueError(f"driver {row.name} exists already")
    _DRIVERS[row.name] = row


def unregister(name: str) -> None:
    """Take away what `register` added."""
    if any(row.name == name for row in _ROWS):
        raise ValueError(f"driver {name} is built in")
    _DRIVERS.pop(name, None)


def drivers() -> Iterator[Driver]:
    """All rows known so far: the house's in their own order, then others."""
    return iter(_DRIVERS.values())


def probe_bytes(head: bytes, filename: str) -> str:
    """The format of an image that begins with ``head`` (up to PROBE_SIZE bytes): the highest score wins."""
    best, score = "", 0
    for row in _DRIVERS.values():
        if row.probe is not None:
            points = row.probe(head, filename)
            if points > score:
                best, score = row.name, points
    return best
