"""What is on a device? File systems, partition tables and containers by their signatures.

The names are those that libblkid gives. A signature says what somebody wrote there, not that it is whole: the field
notes at each row say where it stands. Nothing is followed and at most a few sectors are read.
"""

from __future__ import annotations

import struct

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from ..block.node import Node

#: what a signature stands for
FILESYSTEM = "filesystem"
TABLE = "partition table"
CONTAINER = "container"


class Signature:
    """One find: ``name`` as libblkid says it, ``kind``, and the ``offset`` in bytes at which its mark stands: zeroes
    there take it away, though others may be found then."""

    __slots__ = ("kind", "name", "offset")

    def __init__(self, name: str, kind: str, offset: int) -> None:
        self.name = name
        self.kind = kind
        self.offset = offset

    def __repr__(self) -> str:
        return f"Signature({self.name!r}, {self.kind!r}, {self.offset})"


class _Window:
    """Reads of a node, short ones at its end made up with zeroes; the beginning is read once."""

    def __init__(self, node: Node) -> None:
        self.node = node
        self.size = node.size
        self.head = bytes(node.read(0, min(0x12000, self.size)))

    def at(self, offset: int, length: int) -> bytes:
        if offset + length <= len(self.head):
            return self.head[offset : offset + length]
        if offset < 0 or offset >= self.size:
            return bytes(length)
        data = bytes(self.node.read(offset, min(length, self.size - offset)))
        return data + bytes(length - len(data))


#: name -> where its magic stands, and what it is
_FILESYSTEMS: dict[str, tuple[tuple[int, bytes], ...]] = {
    "xfs": ((0, b"XFSB"),),
    "btrfs": ((0x10040, b"_BHRfS_M"),),
    "ntfs": ((3, b"NTFS    "),),
    "exfat": ((3, b"EXFAT   "),),
    "iso9660": ((0x8001, b"CD001"),),
    "udf": ((0x8001, b"BEA01"), (0x8801, b"NSR02"), (0x8801, b"NSR03")),
    "squashfs": ((0, b"hsqs"),),
    "erofs": ((0x400, b"\xe2\xe1\xf5\xe0"),),
    "f2fs": ((0x400, b"\x10\x20\xf5\xf2"),),
    "reiserfs": tuple(
        (at + 52, magic) for at in (0x2000, 0x10000) for magic in (b"ReIsErFs", b"ReIsEr2Fs", b"ReIsEr3Fs")
    ),
    "jfs": ((0x8000, b"JFS1"),),
    "hfsplus": ((0x400, b"H+"), (0x400, b"HX")),
    "hfs": ((0x400, b"BD"),),
    "ocfs2": tuple((at, b"OCFSV2") for at in (0x400, 0x800, 0x1000, 0x2000)),
    "gfs2": ((0x10000, b"\x01\x16\x19\x70\0\0\0\x01"),),
    "nilfs2": ((0x406, b"\x34\x34"),),
    "cramfs": ((0, b"\x45\x3d\xcd\x28"), (0, b"\x28\xcd\x3d\x45")),
    "romfs": ((0, b"-rom1fs-"),),
    "ufs": tuple((at + 0x55C, magic) for at in (0x2000, 0x10000) for magic in (b"\x54\x19\x01\0", b"\x19\x01\x54\x19")),
    "vmfs": ((0x200000, b"\x5e\xf1\xab\x2f"),),
}
_PAGES = (0x1000, 0x2000, 0x4000, 0x8000, 0x10000)
_CONTAINERS: dict[str, tuple[tuple[int, bytes], ...]] = {
    "crypto_LUKS": ((0, b"LUKS\xba\xbe"),),
    "swap": tuple((page - 10, mark) for page in _PAGES for mark in (b"SWAPSPACE2", b"SWAP-SPACE")),
    "vmfs_member": ((0x100000, b"\x0d\xd0\x01\xc0"),),
    "bcache": ((0x1018, bytes.fromhex("c68573f64e1a45ca8265f57f48ba6d81")),),
}  # fmt: skip


def signatures(node: Node) -> list[Signature]:
    """Everything that is recognised on ``node``, containers first, then file systems, then partition tables."""
    window = _Window(node)
    found = []
    for name, offset in _members(window):
        found.append(Signature(name, CONTAINER, offset))
    for table, kind in ((_CONTAINERS, CONTAINER), (_FILESYSTEMS, FILESYSTEM)):
        for name, places in table.items():
            for offset, magic in places:
                if window.at(offset, len(magic)) == magic:
                    found.append(Signature(name, kind, offset))
                    break
    for probe in (_ext, _fat):
        name_or_none = probe(window)
        if name_or_none is not None:
            found.append(Signature(*name_or_none))
    found += _tables(window, bool(found))
    return found


def whole(node: Node) -> Signature | None:
    """What the device as a whole is: the first find that is no partition table, else that table, else None."""
    found = signatures(node)
    return next((one for one in found if one.kind != TABLE), found[0] if found else None)


def table(node: Node) -> str | None:
    """The partition table's kind in libvirt's words (dos, gpt, mac, bsd, sun, dvh), None without one."""
    return next((one.name for one in signatures(node) if one.kind == TABLE), None)


def _members(window: _Window) -> list[tuple[str, int]]:
    """Parts of something bigger: LVM2 physical volumes, MD members, ZFS members."""
    found = []
    for sector in range(4):  # LVM2: the label stands in one of the first four sectors
        at = sector * 512
        if window.at(at, 8) == b"LABELONE" and window.at(at + 24, 8) == b"LVM2 001":
            found.append(("LVM2_member", at))
            break
    md = struct.pack("<I", 0xA92B4EFC)
    places = [0, 0x1000]
    if window.size >= 0x20000:
        # version 1.0 lies 8 to 12 KiB before the end, 0.90 in the last whole 64 KiB but one
        places += [(window.size // 512 - 16 & ~7) * 512, (window.size & ~0xFFFF) - 0x10000]
    for at in places:
        if window.at(at, 4) == md:
            found.append(("linux_raid_member", at))
            break
    # ZFS: the uberblocks of the first label, 1 KiB or more apart
    for at in range(0x20000, 0x40000, 0x4000):
        if window.at(at, 8) in (b"\x0c\xb1\xba\0\0\0\0\0", b"\0\0\0\0\0\xba\xb1\x0c"):
            found.append(("zfs_member", at))
            break
    return found


# ext superblock (kernel's ext4 documentation, "Super Block"): features that only an ext4 driver takes
_EXT4_INCOMPAT = 0x0040 | 0x0080 | 0x0100 | 0x0200 | 0x0400 | 0x1000 | 0x2000 | 0x4000 | 0x8000 | 0x10000 | 0x20000
_EXT4_RO = 0x0008 | 0x0010 | 0x0020 | 0x0040 | 0x0100 | 0x0200 | 0x0400 | 0x2000 | 0x8000 | 0x10000


def _ext(window: _Window) -> tuple[str, str, int] | None:
    if window.at(0x438, 2) != b"\x53\xef":
        return None
    compat, incompat, ro_compat = struct.unpack("<III", window.at(0x45C, 12))
    if incompat & 0x0008:
        return "jbd", CONTAINER, 0x438
    if incompat & _EXT4_INCOMPAT or ro_compat & _EXT4_RO:
        return "ext4", FILESYSTEM, 0x438
    return ("ext3" if compat & 0x0004 else "ext2"), FILESYSTEM, 0x438


def _fat(window: _Window) -> tuple[str, str, int] | None:
    """FAT by the names that its boot sector gives, or by fields that make sense together (Microsoft's fatgen103)."""
    boot = window.at(0, 512)
    if boot[510:] != b"\x55\xaa" or boot[3:11] in (b"NTFS    ", b"EXFAT   "):
        return None
    # where it says so: zeroes there take the name away, and zeroes over the jump what is left
    named = 82 if boot[82:87] == b"FAT32" else 54 if boot[54:57] == b"FAT" else 0
    sector, cluster, reserved, fats = struct.unpack("<HBHB", boot[11:17])
    sane = (
        sector in (512, 1024, 2048, 4096)
        and cluster
        and not cluster & (cluster - 1)
        and reserved
        and fats in (1, 2)
        and (boot[21] == 0xF0 or boot[21] >= 0xF8)
    )
    return ("vfat", FILESYSTEM, named) if sane and (named or boot[0] in (0xE9, 0xEB)) else None


def _tables(window: _Window, other: bool) -> list[Signature]:
    for sector in (512, 4096):
        if window.at(sector, 8) == b"EFI PART":
            return [Signature("gpt", TABLE, sector)]
    if window.size >= 1024 and window.at(window.size - 512, 8) == b"EFI PART":
        return [Signature("gpt", TABLE, window.size - 512)]
    probes: tuple[tuple[str, Callable[[], bool], int], ...] = (
        ("dvh", lambda: window.at(0, 4) == b"\x0b\xe5\xa9\x41", 0),
        ("sun", lambda: window.at(508, 2) == b"\xda\xbe", 508),
        ("mac", lambda: window.at(0, 2) == b"ER" and window.at(512, 2) == b"PM", 0),
        ("bsd", lambda: window.at(64, 4) == b"\x57\x45\x56\x82", 64),
        ("bsd", lambda: window.at(512, 4) == b"\x57\x45\x56\x82", 512),
        ("dos", lambda: not other and _looks_like_mbr(window.at(0, 512)), 510),
    )
    return [Signature(name, TABLE, at) for name, probe, at in probes if probe()][:1]


def _looks_like_mbr(sector: bytes) -> bool:
    """A boot sector with the mark at its end whose four entries are active, inactive or empty."""
    return sector[510:] == b"\x55\xaa" and all(sector[at] in (0, 0x80) for at in range(446, 510, 16))
