"""Extended attributes of all shapes: in the inode, in leaves, below a tree, values apart (specification, ch. 19)."""

from __future__ import annotations

import struct

from .fork import Fork
from .inode import FORMAT_LOCAL
from .store import damaged

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from .inode import Inode
    from .store import Store

LOCAL = 0x1
ROOT = 0x2
SECURE = 0x4
PARENT = 0x8
INCOMPLETE = 0x80
MAX_VALUE = 65536
MAX_DEPTH = 5
_ACLS = {b"SGI_ACL_FILE": b"system.posix_acl_access", b"SGI_ACL_DEFAULT": b"system.posix_acl_default"}


class Attribute:
    """One attribute as stored. ``value_at``: the device's (offset, length) of each piece of the value, in order;
    ``checksum_at`` is the structure that covers them, "inode" or "leaf" or "remote"."""

    __slots__ = ("flags", "holder", "name", "value", "value_at")

    def __init__(self, name: bytes, flags: int, value: bytes, value_at: list[tuple[int, int]], holder: str) -> None:
        self.name = name
        self.flags = flags
        self.value = value
        self.value_at = value_at
        self.holder = holder


def kernel_names(attribute: Attribute) -> list[tuple[bytes, bytes]]:
    """(name, value) under which the kernel shows an attribute to root; an ACL has two."""
    name, flags = attribute.name, attribute.flags
    if flags & PARENT:
        return []
    if flags & ROOT:
        found = []
        if name in _ACLS:
            acl = acl_value(attribute.value)
            if acl is not None:
                found.append((_ACLS[name], acl))
        found.append((b"trusted." + name, attribute.value))
        return found
    return [((b"security." if flags & SECURE else b"user.") + name, attribute.value)]


def acl_value(raw: bytes) -> bytes | None:
    """A stored access control list as the kernel's system.posix_acl_… attributes have it; None when it is none."""
    count = int.from_bytes(raw[:4], "big")
    if len(raw) < 4 or len(raw) != 4 + count * 12:
        return None
    parts = [(2).to_bytes(4, "little")]
    for tag, ident, perm, _ in struct.iter_unpack(">IIHH", raw[4:]):
        if tag not in (2, 8):  # ACL_USER and ACL_GROUP alone have an id
            ident = 0xFFFFFFFF
        parts.append(struct.pack("<HHI", tag & 0xFFFF, perm, ident))
    return b"".join(parts)


def attributes(store: Store, inode: Inode, fork: Fork | None) -> Iterator[Attribute]:
    """All attributes of an inode, in the order in which they are stored. ``fork`` is None for those in the inode."""
    if not inode.attr_fork:
        return
    if inode.aformat == FORMAT_LOCAL:
        yield from _short(inode)
        return
    assert fork is not None
    if not fork.starts:
        return
    seen: set[int] = set()
    number = 0
    what = f"attributes of inode {inode.ino}"
    # down the left edge of the tree, then along the leaves
    for _ in range(MAX_DEPTH + 2):
        raw, offset = _block(store, inode, fork, number, what)
        if raw[8:10] not in (b"\x3e\xbe", b"\xfe\xbe"):
            break
        if number in seen:
            raise damaged(what, offset, "block", number, "one not met before")
        seen.add(number)
        header = 64 if store.superblock.v5 else 16
        count = int.from_bytes(raw[header - 8 : header - 6] if store.superblock.v5 else raw[12:14], "big")
        if not 1 <= count <= (len(raw) - header) // 8:
            raise damaged(what, offset, "count", count, f"1 to {(len(raw) - header) // 8}")
        number = int.from_bytes(raw[header + 4 : header + 8], "big")
    else:
        raise damaged(what, inode.offset, "depth", "more", MAX_DEPTH)
    while True:
        if number in seen:
            raise damaged(what, offset, "forw", number, "a block not met before")
        seen.add(number)
        yield from _leaf(store, inode, fork, raw, offset, what)
        number = int.from_bytes(raw[0:4], "big")
        if not number:
            return
        raw, offset = _block(store, inode, fork, number, what)


def _short(inode: Inode) -> Iterator[Attribute]:
    raw = inode.attr_fork
    base = inode.offset + inode.core + (inode.forkoff << 3)
    what = f"attributes of inode {inode.ino}"
    size, count = raw[0] << 8 | raw[1], raw[2]
    if not 4 <= size <= len(raw):
        raise damaged(what, base, "totsize", size, f"4 to {len(raw)}")
    at = 4
    for _ in range(count):
        if at + 3 > size:
            raise damaged(what, base + at, "count", count, "what fits")
        name_length, length, flags = raw[at : at + 3]
        start = at + 3 + name_length
        if start + length > size or not name_length:
            raise damaged(what, base + at, "namelen", name_length, "what fits")
        if not flags & INCOMPLETE:
            yield Attribute(raw[at + 3 : start], flags, raw[start : start + length], [(base + start, length)], "inode")
        at = start + length


def _block(store: Store, inode: Inode, fork: Fork, number: int, what: str) -> tuple[bytes, int]:
    place = fork.at(number)
    if place is None:
        raise damaged(what, inode.offset, "block", number, "one that is mapped")
    offset = store.superblock.block_offset(place[0])
    raw = store.read(offset, store.superblock.blocksize)
    magic = raw[8:10]
    if store.superblock.v5:
        if magic not in (b"\x3b\xee", b"\x3e\xbe"):
            raise damaged(what, offset, "magic", magic.hex(), "3bee or 3ebe")
        store.verify(raw, offset, 12, what)
        store.check_identity(raw, offset, 16, 32, what)
        store.check_owner(raw, offset, 48, inode.ino, what)
    elif magic not in (b"\xfb\xee", b"\xfe\xbe"):
        raise damaged(what, offset, "magic", magic.hex(), "fbee or febe")
    return raw, offset


def _leaf(store: Store, inode: Inode, fork: Fork, raw: bytes, offset: int, what: str) -> Iterator[Attribute]:
    v5 = store.superblock.v5
    header = 80 if v5 else 32
    if raw[8:10] not in (b"\x3b\xee", b"\xfb\xee"):
        raise damaged(what, offset, "magic", raw[8:10].hex(), "that of a leaf")
    count = int.from_bytes(raw[56:58] if v5 else raw[12:14], "big")
    if count > (len(raw) - header) // 8:
        raise damaged(what, offset, "count", count, f"at most {(len(raw) - header) // 8}")
    floor = header + count * 8
    for index in range(count):
        _, at, flags, _ = struct.unpack_from(">IHBB", raw, header + index * 8)
        if not floor <= at <= len(raw) - 4:
            raise damaged(what, offset + header + index * 8, "nameidx", at, f"{floor} to {len(raw) - 4}")
        if flags & LOCAL:
            length, name_length = struct.unpack_from(">HB", raw, at)
            start = at + 3 + name_length
            if start + length > len(raw):
                raise damaged(what, offset + at, "valuelen", length, "what fits")
            if not flags & INCOMPLETE:
                yield Attribute(
                    raw[at + 3 : start], flags, raw[start : start + length], [(offset + start, length)], "leaf"
                )
            continue
        if at + 9 > len(raw):
            raise damaged(what, offset + at, "nameidx", at, "room for a name")
        block, length, name_length = struct.unpack_from(">IIB", raw, at)
        if at + 9 + name_length > len(raw):
            raise damaged(what, offset + at, "namelen", name_length, "what fits")
        if flags & INCOMPLETE:
            continue
        if length > MAX_VALUE:
            raise damaged(what, offset + at, "valuelen", length, f"at most {MAX_VALUE}")
        value, places = _remote(store, inode, fork, block, length)
        yield Attribute(raw[at + 9 : at + 9 + name_length], flags, value, places, "remote")


def _remote(store: Store, inode: Inode, fork: Fork, block: int, length: int) -> tuple[bytes, list[tuple[int, int]]]:
    """A value in blocks of its own; in version 5 each of them has a header."""
    superblock = store.superblock
    size = superblock.blocksize
    what = f"attribute value of inode {inode.ino}"
    pieces = []
    places = []
    done = 0
    while done < length:
        place = fork.at(block)
        if place is None:
            raise damaged(what, inode.offset, "block", block, "one that is mapped")
        offset = superblock.block_offset(place[0])
        raw = store.read(offset, size)
        start = 0
        if superblock.v5:
            if raw[:4] != b"XARM":
                raise damaged(what, offset, "magic", raw[:4].hex(), "XARM")
            store.verify(raw, offset, 12, what)
            store.check_identity(raw, offset, 40, 16, what)
            store.check_owner(raw, offset, 32, inode.ino, what)
            at, count = struct.unpack_from(">II", raw, 4)
            if at != done or count != min(length - done, size - 56):
                raise damaged(
                    what, offset, "offset and bytes", f"{at}+{count}", f"{done}+{min(length - done, size - 56)}"
                )
            start = 56
        piece = raw[start : start + length - done]
        pieces.append(piece)
        places.append((offset + start, len(piece)))
        done += len(piece)
        block += 1
    return b"".join(pieces), places
