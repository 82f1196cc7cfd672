"""What a device says it is: kind, label, uuid and version out of its superblock, in libblkid's words.

Nothing but the superblock is read and nothing is replayed, so a damaged or foreign file system can be named too.
"""

from __future__ import annotations

import struct

from .filesystem.table import kind_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ..block.node import Node

#: usages of kinds that are no file systems
_USAGE = {"swap": "other", "crypto_LUKS": "crypto", "jbd": "other"}


def identify(node: Node) -> dict[str, str]:
    """LABEL, UUID, VERSION, BLOCK_SIZE, TYPE and USAGE as far as the kind has them; empty when nothing is known."""
    kind = kind_of(node)
    if not kind:
        return {}
    reader = _READERS.get(kind)
    facts = reader(node) if reader is not None else {}
    facts = {name: value for name, value in facts.items() if value}
    facts["TYPE"] = kind
    facts["USAGE"] = _USAGE.get(kind, "raid" if kind.endswith("_member") else "filesystem")
    return facts


def _uuid(raw: bytes) -> str:
    if not any(raw):
        return ""
    text = raw.hex()
    return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"


def _text(raw: bytes, encoding: str = "utf-8") -> str:
    return raw.split(b"\0")[0].decode(encoding, "surrogateescape")


def _read(node: Node, offset: int, length: int) -> bytes:
    got = node.read(offset, max(0, min(length, node.size - offset)))
    return got + bytes(length - len(got))


def _ext(node: Node) -> dict[str, str]:
    block = _read(node, 1024, 256)
    (log,) = struct.unpack_from("<I", block, 24)
    revision, minor = struct.unpack_from("<I", block, 76)[0], struct.unpack_from("<H", block, 62)[0]
    return {
        "LABEL": _text(block[120:136]),
        "UUID": _uuid(block[104:120]),
        "VERSION": f"{revision}.{minor}",
        "BLOCK_SIZE": str(1024 << log) if log < 7 else "",
    }


def _xfs(node: Node) -> dict[str, str]:
    block = _read(node, 0, 512)
    (sector,) = struct.unpack_from(">H", block, 102)
    return {"LABEL": _text(block[108:120]), "UUID": _uuid(block[32:48]), "BLOCK_SIZE": str(sector)}


def _fat(node: Node) -> dict[str, str]:
    boot = _read(node, 0, 512)
    sector, cluster, reserved, fats, entries, small, fat16 = struct.unpack_from("<HBHBHHxH", boot, 11)
    (large,) = struct.unpack_from("<I", boot, 32)
    wide = not fat16
    at = 64 if wide else 36
    facts = {"BLOCK_SIZE": str(sector), "VERSION": "FAT32"}
    if boot[at + 2] in (0x28, 0x29):
        serial = boot[at + 3 : at + 7]
        facts["UUID"] = f"{serial[3]:02X}{serial[2]:02X}-{serial[1]:02X}{serial[0]:02X}" if any(serial) else ""
    named = boot[at + 7 : at + 18] if boot[at + 2] == 0x29 else b""
    if sector and cluster:
        per_fat = fat16 or struct.unpack_from("<I", boot, 36)[0]
        root = (entries * 32 + sector - 1) // sector
        start = reserved + fats * per_fat
        if not wide:
            count = ((small or large) - start - root) // cluster
            facts["VERSION"] = "FAT12" if count < 4085 else "FAT16"
            where, length = start * sector, entries * 32
        else:
            (first,) = struct.unpack_from("<I", boot, 44)
            where, length = (start + (first - 2) * cluster) * sector, cluster * sector
        listing = _read(node, where, min(length, 1 << 16)) if 0 <= where < node.size else b""
        for entry in range(0, len(listing), 32):
            if not listing[entry]:
                break
            if listing[entry] != 0xE5 and listing[entry + 11] & 0x18 == 0x08 and listing[entry + 11] != 0x0F:
                named = listing[entry : entry + 11]
                break
        else:
            named = b"" if listing else named
    label = named.rstrip(b" \0").decode("cp850", "replace")
    facts["LABEL"] = "" if label == "NO NAME" else label
    return facts


def _swap(node: Node) -> dict[str, str]:
    block = _read(node, 1024, 44)
    version = "1" if block[:4] in (b"\1\0\0\0", b"\0\0\0\1") else "0"
    if version == "0":
        return {"VERSION": version}
    return {"LABEL": _text(block[28:44]), "UUID": _uuid(block[12:28]), "VERSION": version}


def _luks(node: Node) -> dict[str, str]:
    head = _read(node, 0, 512)
    (version,) = struct.unpack_from(">H", head, 6)
    label = _text(head[24:72]) if version == 2 else ""
    return {"LABEL": label, "UUID": _text(head[168:208]), "VERSION": str(version)}


def _lvm(node: Node) -> dict[str, str]:
    from ..layout.lvm.label import read_label

    label = read_label(node)
    return {} if label is None else {"UUID": label.uuid, "VERSION": "LVM2 001"}


def _iso(node: Node) -> dict[str, str]:
    block = _read(node, 0x8000, 2048)
    made = block[830:846] if block[830:846].strip(b"0\0 ") else block[813:829]
    stamp = made.decode("ascii", "replace")
    uuid = ""
    if stamp.strip("\0 ") and len(stamp) == 16:
        uuid = "-".join((stamp[:4], stamp[4:6], stamp[6:8], stamp[8:10], stamp[10:12], stamp[12:14], stamp[14:16]))
    label = block[40:72].rstrip(b" \0").decode("utf-8", "surrogateescape")
    return {"LABEL": label, "UUID": uuid, "VERSION": "Joliet Extension" if _joliet(node) else "", "BLOCK_SIZE": "2048"}


def _joliet(node: Node) -> bool:
    for sector in range(17, 24):
        block = _read(node, sector * 2048, 96)
        if block[1:6] != b"CD001" or block[0] == 255:
            return False
        if block[0] == 2 and block[88:91] in (b"%/@", b"%/C", b"%/E"):
            return True
    return False


def _btrfs(node: Node) -> dict[str, str]:
    block = _read(node, 0x10000, 0x22C)
    return {"LABEL": _text(block[299:555]), "UUID": _uuid(block[32:48]), "BLOCK_SIZE": "4096"}


def _ntfs(node: Node) -> dict[str, str]:
    boot = _read(node, 0, 512)
    (sector,) = struct.unpack_from("<H", boot, 11)
    return {"UUID": boot[72:80][::-1].hex().upper(), "BLOCK_SIZE": str(sector)}


def _squashfs(node: Node) -> dict[str, str]:
    head = _read(node, 0, 32)
    (block,) = struct.unpack_from("<I", head, 12)
    return {"VERSION": "{}.{}".format(*struct.unpack_from("<HH", head, 28)), "BLOCK_SIZE": str(block)}


_READERS = {
    "ext2": _ext, "ext3": _ext, "ext4": _ext, "xfs": _xfs, "vfat": _fat, "swap": _swap, "crypto_LUKS": _luks,
    "LVM2_member": _lvm, "iso9660": _iso, "btrfs": _btrfs, "ntfs": _ntfs, "squashfs": _squashfs,
}  # fmt: skip
