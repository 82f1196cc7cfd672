"""Where version 5 structures keep their checksum, the log's sequence number, their owner's uuid, and what the log calls
them (specification, ch. 14 and 15)."""

from __future__ import annotations

from ...crc32c import crc32c

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .superblock import Superblock

#: kinds of buffers in the log
KIND_NONE, KIND_DINODE, KIND_ATTR_LEAF, KIND_ATTR_REMOTE, KIND_SUPERBLOCK, KIND_PLAIN = 0, 8, 16, 17, 18, 19
KIND_SHIFT = 11
#: buffers without a magic, which a recovery takes as they are (bitmaps of a realtime device, by their origin)
PLAIN_KINDS = frozenset((19, 20))


class Stamp:
    """Offsets of checksum, sequence number (-1: it stays as it is) and uuid; ``kind`` of buffer."""

    __slots__ = ("crc_at", "kind", "lsn_at", "uuid_at")

    def __init__(self, crc_at: int, lsn_at: int, uuid_at: int, kind: int = KIND_NONE) -> None:
        self.crc_at = crc_at
        self.lsn_at = lsn_at
        self.uuid_at = uuid_at
        self.kind = kind


_SHORT_TREE = Stamp(52, 24, 32)
_DIRECTORY = Stamp(4, 16, 24)
_HASHED = Stamp(12, 24, 32)
_INODE = Stamp(100, 112, 160, KIND_DINODE)
_BY_MAGIC = {
    b"BMA3": Stamp(64, 32, 40), b"AB3B": _SHORT_TREE, b"AB3C": _SHORT_TREE, b"IAB3": _SHORT_TREE,
    b"FIB3": _SHORT_TREE, b"RMB3": _SHORT_TREE, b"R3FC": _SHORT_TREE, b"XAGF": Stamp(216, 208, 64),
    b"XAGI": Stamp(312, 320, 296), b"XAFL": Stamp(32, 24, 8), b"XSLM": Stamp(12, 48, 16), b"XDB3": _DIRECTORY,
    b"XDD3": _DIRECTORY, b"XDF3": _DIRECTORY, b"XFSB": Stamp(224, 240, 32, KIND_SUPERBLOCK),
    b"XARM": Stamp(12, -1, 16, KIND_ATTR_REMOTE),
}  # fmt: skip
_BY_DA_MAGIC = {
    b"\x3d\xf1": _HASHED, b"\x3d\xff": _HASHED, b"\x3e\xbe": _HASHED,
    b"\x3b\xee": Stamp(12, 24, 32, KIND_ATTR_LEAF),
}  # fmt: skip
DIRECTORY_MAGICS = frozenset((b"XDB3", b"XDD3", b"XDF3"))


def stamp_of(raw: bytes | bytearray) -> Stamp | None:
    """The stamp of a version 5 structure, None for what has none. Inodes are told by their magic."""
    found = _BY_MAGIC.get(bytes(raw[:4])) or _BY_DA_MAGIC.get(bytes(raw[8:10]))
    if found is None and raw[:2] == b"IN":
        return _INODE
    return found


def stamped(raw: bytes, superblock: Superblock, lsn: int) -> bytes:
    """A structure with a sequence number and the checksum that follows from it; as it is in version 4."""
    stamp = stamp_of(raw) if superblock.v5 else None
    if stamp is None:
        return raw
    block = bytearray(raw)
    if stamp.lsn_at >= 0:
        block[stamp.lsn_at : stamp.lsn_at + 8] = lsn.to_bytes(8, "big")
    block[stamp.crc_at : stamp.crc_at + 4] = bytes(4)
    block[stamp.crc_at : stamp.crc_at + 4] = crc32c(block).to_bytes(4, "little")
    return bytes(block)
