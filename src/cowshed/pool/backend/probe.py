"""What a file in a pool is, from its first bytes: format, capacity, backing file by name, features.

Recognises what libvirt's own probe recognises, and no more, for a volume's format decides what happens to its bytes.
Each layout is read from its format's specification. Nothing but the file given is ever opened, at most a few
kilobytes are read, and nothing here raises for what is in it: an image that lies gets the facts that its header
states, as libvirt shows them, and the engine refuses it when it is used.
"""

from __future__ import annotations

import os
import struct

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

#: formats that a volume can be said to have, in libvirt's words
FORMATS = (
    "none", "raw", "dir", "bochs", "cloop", "dmg", "iso", "vpc", "vdi", "fat", "vhd", "ploop", "cow", "qcow", "qcow2",
    "qed", "vmdk", "luks",
)  # fmt: skip

HEAD = 4096
#: a descriptor inside a vmdk is looked at this far
_DESCRIPTOR = 20 * 512
_MAX_NAME = 1023
_ISO_AT = 32769


class Facts:
    """What a header says. ``capacity`` None: as large as the file (less ``payload`` bytes before the data).

    ``backing``: the backing file as the image names it, undecoded; None without one. ``backing_format``: as the image
    says, None when it says nothing. ``data``: the file that has the image's data, where that is another one.
    ``encryption``: "qcow" or "luks". ``compat``: "1.1" or None.
    """

    __slots__ = (
        "backing", "backing_format", "capacity", "cluster_size", "compat", "data", "encryption", "features", "format",
        "payload",
    )  # fmt: skip

    def __init__(
        self,
        format: str = "raw",
        capacity: int | None = None,
        backing: str | None = None,
        backing_format: str | None = None,
        compat: str | None = None,
        features: tuple[str, ...] = (),
        cluster_size: int | None = None,
        encryption: str | None = None,
        payload: int = 0,
        data: str | None = None,
    ) -> None:
        self.format = format
        self.capacity = capacity
        self.backing = backing
        self.backing_format = backing_format
        self.compat = compat
        self.features = features
        self.cluster_size = cluster_size
        self.encryption = encryption
        self.payload = payload
        self.data = data

    def pack(self) -> list[object] | int:
        """The same as JSON has it; 0 for a raw file."""
        if self is RAW:
            return 0
        return [getattr(self, name) for name in _FIELDS]

    @classmethod
    def unpack(cls, packed: object) -> Facts:
        """The Facts that `pack` packed. Raises ValueError for anything else."""
        if packed == 0 and type(packed) is int:
            return RAW
        if not isinstance(packed, list) or len(packed) != len(_FIELDS):
            raise ValueError
        for value, kinds in zip(packed, _KINDS, strict=True):
            if type(value) not in kinds:
                raise ValueError
        packed[5] = tuple(packed[5])
        if not all(type(feature) is str for feature in packed[5]):
            raise ValueError
        return cls(*packed)


_FIELDS = (
    "format", "capacity", "backing", "backing_format", "compat", "features", "cluster_size", "encryption", "payload",
    "data",
)  # fmt: skip
_TEXT = (str, type(None))
_NUMBER = (int, type(None))
_KINDS: tuple[tuple[type, ...], ...] = (
    (str,), _NUMBER, _TEXT, _TEXT, _TEXT, (list, tuple), _NUMBER, _TEXT, (int,), _TEXT,
)  # fmt: skip

RAW = Facts()
DIRECTORY = Facts("dir", 0)
PLOOP = Facts("ploop", 0)


def probe(fd: int, size: int) -> Facts:
    """The facts of the open regular file ``fd`` of ``size`` bytes. Raises OSError when it can't be read."""
    head = os.pread(fd, HEAD, 0)
    known = _BY_MAGIC.get(head[:4])
    if known is not None:
        facts = known(head, fd)
        if facts is not None:
            return facts
    elif head[64:72] == b"\x7f\x10\xda\xbe\1\0\1\0" and len(head) >= 376:
        return Facts("vdi", int.from_bytes(head[368:376], "little"))
    if size > _ISO_AT + 5 and os.pread(fd, 5, _ISO_AT) == b"CD001":
        return Facts("iso")
    return RAW


def _text(data: bytes) -> str:
    return data.split(b"\0", 1)[0].decode("utf-8", "surrogateescape")


def _number(head: bytes, at: int, length: int = 8, order: str = "big") -> int | None:
    field = head[at : at + length]
    return int.from_bytes(field, order) if len(field) == length else None  # type: ignore[arg-type]


def _name(fd: int, offset: int | None, length: int | None) -> str | None:
    """A backing file's name inside an image; None where it can't be one."""
    if not offset or not length or length > _MAX_NAME or offset >= 1 << 32:
        return None
    data = os.pread(fd, length, offset)
    return _text(data) or None if len(data) == length else None


def _qcow(head: bytes, fd: int) -> Facts | None:
    version = _number(head, 4, 4)
    if version == 1:
        facts = Facts("qcow", _number(head, 24))
        if _number(head, 36, 4):
            facts.encryption = "qcow"
        facts.backing = _name(fd, _number(head, 8), _number(head, 16, 4))
        return facts
    if version not in (2, 3):
        return None
    from ...block.format.qcow2 import header as qcow2

    facts = Facts("qcow2")
    if len(head) < qcow2.V2.size:
        return facts
    _, _, name_at, name_length, bits, facts.capacity, crypt, *_ = qcow2.V2.unpack_from(head)
    if 9 <= bits <= 21:
        facts.cluster_size = 1 << bits
    facts.encryption = {1: "qcow", 2: "luks"}.get(crypt)
    start = qcow2.V2.size
    if version == 3:
        if len(head) < qcow2.V2.size + qcow2.V3.size:
            return facts
        incompatible, compatible, _, _, start = qcow2.V3.unpack_from(head, qcow2.V2.size)
        facts.compat = "1.1"
        if compatible & qcow2.COMPAT_LAZY_REFCOUNTS:
            facts.features = ("lazy_refcounts",)
        if incompatible & qcow2.INCOMPAT_EXTENDED_L2:
            facts.features = (*facts.features, "extended_l2")
        if incompatible & qcow2.INCOMPAT_DATA_FILE:
            facts.data = _extension(head, start, qcow2.EXT_DATA_FILE)
    facts.backing = _name(fd, name_at, name_length)
    if facts.backing is not None:
        name = _extension(head, start, qcow2.EXT_BACKING_FORMAT)
        facts.backing_format = name if name in FORMATS else None
    return facts


def _extension(head: bytes, at: int, wanted: int) -> str | None:
    """The text of a header extension (interop/qcow2, "Header extensions")."""
    from ...block.format.qcow2 import header as qcow2

    while at + 8 <= len(head):
        kind, length = struct.unpack_from(">II", head, at)
        at += 8
        if kind == qcow2.EXT_END:
            break
        if kind == wanted:
            return _text(head[at : at + length]) or None
        at += (length + 7) & ~7
    return None


def _qed(head: bytes, fd: int) -> Facts | None:
    facts = Facts("qed", _number(head, 48, 8, "little"))
    features = _number(head, 16, 8, "little") or 0
    if features & 1:
        facts.backing = _name(fd, _number(head, 56, 4, "little"), _number(head, 60, 4, "little"))
        facts.backing_format = "raw" if features & 4 else None
    return facts


def _vmdk(head: bytes, fd: int) -> Facts | None:
    if _number(head, 4, 4, "little") not in (1, 2, 3):
        return None
    sectors = _number(head, 12, 8, "little")
    facts = Facts("vmdk", None if sectors is None else sectors * 512)
    for line in os.pread(fd, _DESCRIPTOR, 512).split(b"\0", 1)[0].splitlines():
        if line.startswith(b'parentFileNameHint="'):
            facts.backing = _text(line[20:].rstrip().removesuffix(b'"')) or None
            facts.backing_format = "vmdk"
    return facts


def _vpc(head: bytes, fd: int) -> Facts | None:
    if head[:8] != b"conectix" or _number(head, 12, 4) != 0x10000:
        return None
    return Facts("vpc", _number(head, 48))


def _cow(head: bytes, fd: int) -> Facts | None:
    if _number(head, 4, 4) != 2:
        return None
    return Facts("cow", _number(head, 1036), _text(head[8:1032]) or None)


def _luks(head: bytes, fd: int) -> Facts | None:
    """A volume in a LUKS header is a raw one that is encrypted."""
    if head[:8] != b"LUKS\xba\xbe\0\1":
        return None
    return Facts(encryption="luks", payload=(_number(head, 104, 4) or 0) * 512)


def _ploop(head: bytes, fd: int) -> Facts | None:
    return Facts("ploop") if head[:20] == b"WithouFreSpacExt\2\0\0\0" else None


_BY_MAGIC: dict[bytes, Callable[[bytes, int], Facts | None]] = {
    b"QFI\xfb": _qcow,
    b"QED\0": _qed,
    b"KDMV": _vmdk,
    b"cone": _vpc,
    b"OOOM": _cow,
    b"LUKS": _luks,
    b"With": _ploop,
}
