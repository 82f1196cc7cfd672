"""Extended attributes, for reading (kernel documentation, 4.6): in the inode, in a block, in inodes of their own."""

from __future__ import annotations

import struct

from ....errors import CorruptError
from .crc import crc32c

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from .inode import Inode
    from .volume import Volume

MAGIC = 0xEA020000
ENTRY = struct.Struct("<BBHIII")
BLOCK_HEADER = struct.Struct("<IIIII12x")
PREFIXES = {
    0: b"", 1: b"user.", 2: b"system.posix_acl_access", 3: b"system.posix_acl_default", 4: b"trusted.",
    6: b"security.", 7: b"system.", 8: b"system.richacl",
}  # fmt: skip
#: bytes of a value that is in an inode of its own
VALUE_MAX = 1 << 24

_ACL = struct.Struct("<HH")
_ACL_ID = struct.Struct("<HHI")


class Entry:
    """One attribute as it is stored. ``value``: its bytes; for one in an inode, that inode's number is ``inode``."""

    __slots__ = ("hash", "index", "inode", "name", "size", "value")

    def __init__(self, index: int, name: bytes, value: bytes, inode: int = 0, size: int = 0, hashed: int = 0) -> None:
        self.index = index
        self.name = name
        self.value = value
        self.inode = inode
        self.size = size or len(value)
        self.hash = hashed

    @property
    def key(self) -> tuple[int, int, bytes]:
        """The order of attributes in a block."""
        return self.index, len(self.name), self.name


def parse(data: bytes | bytearray, start: int, values: int, where: str) -> list[Entry]:
    """The entries from ``start`` on, whose values are at offsets from ``values``."""
    found = []
    at = start
    size = len(data)
    while at + 4 <= size and data[at : at + 4] != b"\0\0\0\0":
        if at + 16 > size:
            raise _wrong(where, "e_name_len", data[at])
        length, index, offset, inode, value_size, hashed = ENTRY.unpack_from(data, at)
        name = bytes(data[at + 16 : at + 16 + length])
        at += 16 + (length + 3 & ~3)
        if at > size:
            raise _wrong(where, "e_name_len", length)
        if inode:
            if value_size > VALUE_MAX:
                raise _wrong(where, "e_value_size", value_size)
            found.append(Entry(index, name, b"", inode, value_size, hashed))
            continue
        begin = values + offset
        if value_size and (offset > size or begin + value_size > size or begin < at):
            raise _wrong(where, "e_value_offs", offset)
        found.append(Entry(index, name, bytes(data[begin : begin + value_size]), 0, value_size, hashed))
    return found


def in_inode(inode: Inode) -> list[Entry]:
    """The attributes in the inode itself."""
    start = 128 + inode.extra
    raw = inode.raw
    if not inode.extra or start + 4 > len(raw) or int.from_bytes(raw[start : start + 4], "little") != MAGIC:
        return []
    return parse(raw, start + 4, start + 4, f"attributes in inode {inode.number}")


def block_checksum(volume: Volume, number: int, data: bytes | bytearray) -> int:
    crc = crc32c(volume.sb.seed, number.to_bytes(8, "little"))
    return crc32c(crc, bytes(data[:16]) + b"\0\0\0\0" + bytes(data[20:]))


def in_block(volume: Volume, inode: Inode) -> list[Entry]:
    """The attributes in the inode's block of them."""
    if not inode.acl:
        return []
    where = f"attribute block of inode {inode.number}"
    data = volume.block(inode.acl, where)
    magic, references, blocks, _, checksum = BLOCK_HEADER.unpack_from(data)
    if magic != MAGIC:
        raise _wrong(where, "h_magic", f"{magic:#x}")
    if blocks != 1:
        raise _wrong(where, "h_blocks", blocks)
    if not references:
        raise _wrong(where, "h_refcount", references)
    if volume.sb.metadata_csum and checksum != block_checksum(volume, inode.acl, data):
        raise _wrong(where, "h_checksum", f"{checksum:#010x}")
    return parse(data, 32, 0, where)


def shown(volume: Volume, inode: Inode, value_of: Callable[[Entry], bytes]) -> dict[bytes, bytes]:
    """All attributes as the kernel shows them; ``value_of`` reads those that are in inodes of their own."""
    found: dict[bytes, bytes] = {}
    for entry in (*in_inode(inode), *in_block(volume, inode)):
        prefix = PREFIXES.get(entry.index)
        if prefix is None or (entry.index == 7 and entry.name == b"data"):
            continue
        name = prefix if entry.index in (2, 3) else prefix + entry.name
        if name in found:
            continue
        value = value_of(entry) if entry.inode else entry.value
        if entry.index in (2, 3):
            value = acl_shown(value, inode.number)
        found[name] = value
    return found


def acl_shown(value: bytes, number: int = 0) -> bytes:
    """A stored ACL (version 1, ids only where there are any) as system calls have it (version 2)."""
    if len(value) < 4 or value[:4] != b"\1\0\0\0":
        raise _wrong(f"ACL of inode {number}", "a_version", value[:4].hex())
    out = [b"\2\0\0\0"]
    at = 4
    while at < len(value):
        if at + 4 > len(value):
            raise _wrong(f"ACL of inode {number}", "e_tag", value[at:].hex())
        tag, permissions = _ACL.unpack_from(value, at)
        if tag in (2, 8):
            if at + 8 > len(value):
                raise _wrong(f"ACL of inode {number}", "e_id", value[at:].hex())
            out.append(value[at : at + 8])
            at += 8
        elif tag in (1, 4, 0x10, 0x20):
            out.append(_ACL_ID.pack(tag, permissions, 0xFFFFFFFF))
            at += 4
        else:
            raise _wrong(f"ACL of inode {number}", "e_tag", tag)
    return b"".join(out)


def inline_data(inode: Inode) -> bytes:
    """The bytes of inline data beyond the 60 in i_block."""
    for entry in in_inode(inode):
        if entry.index == 7 and entry.name == b"data":
            return entry.value
    return b""


def _wrong(where: str, field: str, value: object) -> CorruptError:
    return CorruptError(
        f"ext {where}: {field} is {value}", layer=where, field=field, value=value, hint="e2fsck can repair it"
    )
