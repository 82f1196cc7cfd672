"""Extended attributes are set and taken away: in the inode while there is room, then in a block, big ones in inodes
of their own where the file system has that (ea_inode)."""

from __future__ import annotations

import errno
import struct

from ..base import GuestError
from . import xattr
from .content import store_content
from .crc import crc32c
from .inode import EA_INODE, EXTENTS, Inode
from .mapping import empty
from .superblock import EA_INODE as FEATURE_EA_INODE
from .superblock import EXT_ATTR
from .superblock import EXTENTS as FEATURE_EXTENTS
from .xattr import BLOCK_HEADER, ENTRY, MAGIC, Entry

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .write import Writer

_PREFIXES = ((b"user.", 1), (b"trusted.", 4), (b"security.", 6), (b"system.", 7))
ACLS = {b"system.posix_acl_access": 2, b"system.posix_acl_default": 3}
#: what the kernel takes as a value
LARGEST = 65536


def split(name: bytes) -> tuple[int, bytes]:
    """(index, rest) of a full name. GuestError EOPNOTSUPP, ERANGE."""
    if name in ACLS:
        return ACLS[name], b""
    for prefix, index in _PREFIXES:
        if name.startswith(prefix):
            rest = name[len(prefix) :]
            if index == 7 or not rest:
                break
            if len(rest) > 255:
                raise GuestError(errno.ERANGE)
            return index, rest
    raise GuestError(errno.EOPNOTSUPP)


def _hash(entry: Entry, words: bytes) -> int:
    """e_hash of an entry in a block: of its name, then of its value's words."""
    value = 0
    for byte in entry.name:
        value = (value << 5 ^ value >> 27 ^ byte) & 0xFFFFFFFF
    for (word,) in struct.iter_unpack("<I", words):
        value = (value << 16 ^ value >> 16 ^ word) & 0xFFFFFFFF
    return value


def _padded(value: bytes) -> bytes:
    return value + bytes(-len(value) % 4)


class AttributeWriter:
    """Changes of inodes' attributes."""

    def __init__(self, writer: Writer) -> None:
        self.writer = writer
        self.fs = writer.fs
        self.sb = writer.sb

    # ---- layout

    def _need(self, entries: list[Entry]) -> int:
        return sum(
            16 + (len(entry.name) + 3 & ~3) + (0 if entry.inode else len(entry.value) + 3 & ~3) for entry in entries
        )

    def room_in_inode(self, inode: Inode) -> int:
        """Bytes that entries and their values may take in the inode."""
        if not inode.extra:
            return 0
        return max(0, len(inode.raw) - 128 - inode.extra - 8)

    def put_inode(self, inode: Inode, entries: list[Entry]) -> None:
        """These attributes are in the inode, and no others."""
        raw = inode.raw
        start = 128 + inode.extra
        if not inode.extra:
            return
        raw[start:] = bytes(len(raw) - start)
        if entries:
            raw[start : start + 4] = MAGIC.to_bytes(4, "little")
            self._lay(raw, start + 4, start + 4, entries, False)
        self.writer.touch(inode)

    def _lay(self, data: bytearray, start: int, base: int, entries: list[Entry], hashed: bool) -> None:
        at = start
        end = len(data)
        for entry in entries:
            offset = 0
            value = _padded(entry.value)
            if not entry.inode and value:
                end -= len(value)
                data[end : end + len(value)] = value
                offset = end - base
            if entry.inode:
                # the hash is that of the value's own hash
                words = self._value_hash(entry).to_bytes(4, "little")
                entry.hash = _hash(entry, words)
            else:
                entry.hash = _hash(entry, value) if hashed else 0
            ENTRY.pack_into(data, at, len(entry.name), entry.index, offset, entry.inode, entry.size, entry.hash)
            data[at + 16 : at + 16 + len(entry.name)] = entry.name
            at += 16 + (len(entry.name) + 3 & ~3)

    def _value_hash(self, entry: Entry) -> int:
        return int.from_bytes(self.fs.inodes[entry.inode].raw[8:12], "little")

    def _put_block(self, inode: Inode, entries: list[Entry]) -> None:
        """These attributes are in the inode's block, and no others; a shared block is left to the others."""
        volume = self.fs.volume
        size = self.sb.block_size
        shared = self._shared(inode)
        if not entries:
            self.drop_block(inode)
            return
        if shared or not inode.acl:
            place, _ = self.writer.allocator.allocate(self.writer.goal(inode), 1)
            self.drop_block(inode)
            inode.acl = place
            inode.sectors += size // 512
            volume.fresh(place)
            if not self.sb.compat & EXT_ATTR:
                self.sb.set_features(compat=EXT_ATTR)
                self.writer.super_changed = True
        data = volume.change(inode.acl, "attributes")
        data[:] = bytes(size)
        entries.sort(key=lambda entry: entry.key)
        self._lay(data, 32, 0, entries, True)
        total = 0
        for entry in entries:
            if not entry.hash:
                total = 0
                break
            total = (total << 16 ^ total >> 16 ^ entry.hash) & 0xFFFFFFFF
        BLOCK_HEADER.pack_into(data, 0, MAGIC, 1, 1, total, 0)
        self._sum(inode.acl, data)
        self.writer.touch(inode)

    def _sum(self, number: int, data: bytearray) -> None:
        if self.sb.metadata_csum:
            data[16:20] = xattr.block_checksum(self.fs.volume, number, data).to_bytes(4, "little")

    def drop_block(self, inode: Inode) -> None:
        """The inode has no block of attributes any more."""
        if not inode.acl:
            return
        volume = self.fs.volume
        references = BLOCK_HEADER.unpack_from(volume.block(inode.acl, "attributes"))[1]
        if references > 1:
            data = volume.change(inode.acl, "attributes")
            struct.pack_into("<I", data, 4, references - 1)
            self._sum(inode.acl, data)
        else:
            self.writer.allocator.free(inode.acl, 1)
        inode.acl = 0
        inode.sectors -= self.sb.block_size // 512
        self.writer.touch(inode)

    def drop_all(self, inode: Inode) -> None:
        """The inode goes away, and what its attributes take."""
        values = [entry.inode for entry in xattr.in_inode(inode) if entry.inode]
        if inode.acl:
            # the last one that refers to the block gives its values up, too
            if not self._shared(inode):
                values += [entry.inode for entry in xattr.in_block(self.fs.volume, inode) if entry.inode]
            self.drop_block(inode)
        for number in values:
            self._refer(number, -1)

    # ---- values in inodes

    def _store_value(self, parent: Inode, value: bytes) -> int:
        """A new inode that holds a value."""
        writer = self.writer
        number = writer.allocator.allocate_inode(parent.number, False)
        inode = writer.fresh_inode(number, 0o100600, 0, 0, parent.ctime)
        uses_extents = bool(self.sb.incompat & FEATURE_EXTENTS)
        inode.flags = EA_INODE | (EXTENTS if uses_extents else 0)
        inode.block = empty(uses_extents)
        inode.nlink = 1
        inode.size = len(value)
        writer.touch(inode)
        store_content(writer, inode, value)
        seed = self.sb.seed or crc32c(0xFFFFFFFF, self.sb.uuid)
        # the hash is where the access time would be, the count of references where the others would
        inode.atime = _seconds(crc32c(seed, value))
        inode.ctime = 0
        inode.mtime = 0
        inode.raw[0x24:0x28] = (1).to_bytes(4, "little")
        inode.raw[0x84:0x90] = bytes(12) if inode.extra >= 16 else inode.raw[0x84:0x90]
        writer.touch(inode)
        writer.flush_inode(inode)
        return number

    def _refer(self, number: int, by: int) -> None:
        """More or fewer references to a value's inode."""
        inode = self.fs.inodes[number]
        if not inode.flags & EA_INODE:
            return
        high = inode.ctime // 1_000_000_000 & 0xFFFFFFFF
        count = (high << 32 | int.from_bytes(inode.raw[0x24:0x28], "little")) + by
        if count > 0:
            inode.ctime = _seconds(count >> 32)
            inode.raw[0x24:0x28] = (count & 0xFFFFFFFF).to_bytes(4, "little")
            self.writer.touch(inode)
        else:
            self.writer.release(inode, 10**9)

    def _charged(self, size: int) -> int:
        """Sectors that a value in an inode of its own counts for in the one that it belongs to."""
        return -(-size // self.sb.block_size) * (self.sb.block_size // 512)

    def taken(self, inode: Inode) -> int:
        """Sectors that an inode's attributes take."""
        found = self.sb.block_size // 512 if inode.acl else 0
        for entry in (*xattr.in_inode(inode), *xattr.in_block(self.fs.volume, inode)):
            if entry.inode:
                found += self._charged(entry.size)
        return found

    def _shared(self, inode: Inode) -> bool:
        """Do other inodes have the same block of attributes?"""
        if not inode.acl:
            return False
        return int(BLOCK_HEADER.unpack_from(self.fs.volume.block(inode.acl, "attributes"))[1]) > 1

    # ---- changing

    def set(self, inode: Inode, index: int, name: bytes, value: bytes | None) -> bool:
        """Set an attribute, or take it away (``value`` None): was it there? GuestError ENOSPC."""
        if value is not None and len(value) > LARGEST:
            raise GuestError(errno.E2BIG)
        inside = xattr.in_inode(inode)
        outside = xattr.in_block(self.fs.volume, inode)
        old = next((entry for entry in (*inside, *outside) if (entry.index, entry.name) == (index, name)), None)
        shared = self._shared(inode)
        others = [entry.inode for entry in outside if entry.inode and entry is not old] if shared else []
        was_out = old in outside
        before = inode.acl
        kept_in = [entry for entry in inside if entry is not old]
        kept_out = [entry for entry in outside if entry is not old]
        if value is None:
            if old is None:
                return False
            if len(kept_in) != len(inside):
                self.put_inode(inode, kept_in)
            else:
                self._put_block(inode, kept_out)
        else:
            new = Entry(index, name, value)
            room = self.room_in_inode(inode)
            most = self.sb.block_size - 36
            if self._need([*kept_in, new]) <= room:
                kept_in.append(new)
            elif self._need([*kept_out, new]) <= most:
                kept_out.append(new)
            elif self.sb.incompat & FEATURE_EA_INODE and len(value) > 32:
                new = Entry(index, name, b"", self._store_value(inode, value), len(value))
                inode.sectors += self._charged(len(value))
                if self._need([*kept_in, new]) <= room:
                    kept_in.append(new)
                elif self._need([*kept_out, new]) <= most:
                    kept_out.append(new)
                else:
                    raise GuestError(errno.ENOSPC)
            else:
                raise GuestError(errno.ENOSPC)
            if len(kept_in) != len(inside) or any(a is not b for a, b in zip(kept_in, inside, strict=True)):
                self.put_inode(inode, kept_in)
            if len(kept_out) != len(outside) or any(a is not b for a, b in zip(kept_out, outside, strict=True)):
                self._put_block(inode, kept_out)
        if inode.acl != before:
            # a copy of a shared block refers to the values as well
            for number in others:
                self._refer(number, 1)
        if old is not None and old.inode:
            inode.sectors -= self._charged(old.size)
            if not (was_out and shared):
                self._refer(old.inode, -1)
        return old is not None


def _seconds(value: int) -> int:
    """A time whose field on the disk is this number."""
    return ((value + (1 << 31) & 0xFFFFFFFF) - (1 << 31)) * 1_000_000_000


def acl_stored(value: bytes) -> tuple[bytes | None, int | None]:
    """An ACL as system calls have it (version 2) as it is stored (None: it says no more than a mode), and the
    permission bits that go with it. GuestError EINVAL."""
    if len(value) < 4 or value[:4] != b"\2\0\0\0" or (len(value) - 4) % 8:
        raise GuestError(errno.EINVAL)
    out = [b"\1\0\0\0"]
    mode: dict[int, int] = {}
    last = -1
    named = False
    for tag, permissions, number in struct.iter_unpack("<HHI", value[4:]):
        order = (1, 2, 4, 8, 0x10, 0x20).index(tag) if tag in (1, 2, 4, 8, 0x10, 0x20) else -1
        if order < last or permissions & ~7 or (order == last and tag not in (2, 8)) or order < 0:
            raise GuestError(errno.EINVAL)
        last = order
        if tag in (2, 8):
            named = True
            out.append(struct.pack("<HHI", tag, permissions, number))
        else:
            mode[tag] = permissions
            out.append(struct.pack("<HH", tag, permissions))
    if not mode:
        return None, None
    if not {1, 4, 0x20} <= mode.keys() or (named and 0x10 not in mode):
        raise GuestError(errno.EINVAL)
    bits = mode[1] << 6 | mode.get(0x10, mode[4]) << 3 | mode[0x20]
    return (b"".join(out) if named or 0x10 in mode else None), bits


def acl_with_mode(stored: bytes, mode: int, *, mask: bool = False) -> tuple[bytes, int]:
    """A stored ACL after chmod: owner, mask (else group) and others have the mode's bits. With ``mask`` as on
    creation: what the ACL gives less is taken from the mode too. Returns the ACL and the permission bits."""
    out = bytearray(stored)
    at = 4
    places: dict[int, int] = {}
    while at + 4 <= len(out):
        tag = int.from_bytes(out[at : at + 2], "little")
        places[tag] = at
        at += 8 if tag in (2, 8) else 4
    bits = 0
    group = 0x10 if 0x10 in places else 4
    for tag, shift in ((1, 6), (group, 3), (0x20, 0)):
        if tag in places:
            place = places[tag]
            value = mode >> shift & 7
            if mask:
                value &= int.from_bytes(out[place + 2 : place + 4], "little")
            out[place + 2 : place + 4] = value.to_bytes(2, "little")
            bits |= value << shift
    return bytes(out), bits
