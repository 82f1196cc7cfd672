"""What a superblock says, in the fields and the words of tune2fs -l."""

from __future__ import annotations

import time

from .superblock import (
    BIGALLOC,
    BIT64,
    COMPAT_NAMES,
    CSUM_SEED,
    DIR_INDEX,
    INCOMPAT_NAMES,
    MMP,
    RO_COMPAT_NAMES,
    STATE_ERROR,
    STATE_VALID,
    Superblock,
)

#: errors behaviour by its number in s_errors
ERRORS = {1: "Continue", 2: "Remount read-only", 3: "Panic"}
_SYSTEMS = ("Linux", "Hurd", "Masix", "FreeBSD", "Lites")
_OPTIONS = (
    (0x1, "debug"), (0x2, "bsdgroups"), (0x4, "user_xattr"), (0x8, "acl"), (0x10, "uid16"), (0x100, "nobarrier"),
    (0x200, "block_validity"), (0x400, "discard"), (0x800, "nodelalloc"),
)  # fmt: skip
_MODES = {0x20: "journal_data", 0x40: "journal_data_ordered", 0x60: "journal_data_writeback"}
_HASHES = ("legacy", "half_md4", "tea", "legacy_unsigned", "half_md4_unsigned", "tea_unsigned", "siphash")
#: where e2fsprogs calls a feature otherwise than libblkid and the kernel
_RENAMED = {"exclude_bitmap": "snapshot_bitmap"}


def _features(sb: Superblock) -> str:
    found = []
    for bits, names, letter in (
        (sb.compat, COMPAT_NAMES, "C"), (sb.incompat, INCOMPAT_NAMES, "I"), (sb.ro_compat, RO_COMPAT_NAMES, "R")
    ):  # fmt: skip
        for number in range(32):
            if bits >> number & 1:
                name = names.get(1 << number, f"FEATURE_{letter}{number}")
                found.append(_RENAMED.get(name, name))
    return " ".join(found) or "(none)"


def _uuid(data: bytes | bytearray) -> str:
    text = data.hex()
    return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"


def _text(data: bytes | bytearray) -> str:
    return bytes(data).split(b"\0")[0].decode("utf-8", "surrogateescape")


def _date(seconds: int) -> str:
    return time.asctime(time.gmtime(seconds))


def _interval(seconds: int) -> str:
    if not seconds:
        return "<none>"
    parts = []
    for length, word in ((2592000, "month"), (604800, "week"), (86400, "day")):
        number, seconds = divmod(seconds, length)
        if number:
            parts.append(f"{number} {word}{'s' if number != 1 else ''}")
    if seconds:
        parts.append(f"{seconds // 3600}:{seconds // 60 % 60:02d}:{seconds % 60:02d}")
    return ", ".join(parts)


def _written(kilobytes: int) -> str:
    for bits, shift, unit in ((13, 0, "kB"), (23, 10, "MB"), (33, 20, "GB")):
        if kilobytes < 1 << bits:
            return f"{kilobytes + (1 << shift >> 1) >> shift} {unit}"
    return f"{kilobytes + (1 << 29) >> 30} TB"


def _mount_options(bits: int) -> str:
    names = [name for bit, name in _OPTIONS if bits & bit]
    if bits & 0x60:
        names.append(_MODES[bits & 0x60])
    return " ".join(names) or "(none)"


def _errors(sb: Superblock, rows: list[tuple[str, str]]) -> None:
    """What the kernel noted of errors, the first and the last."""
    if sb.u32(0x194):
        rows.append(("FS Error count", str(sb.u32(0x194))))
    for word, at, stamp in (("First", 0x198, 0x276), ("Last", 0x1CC, 0x277)):
        seconds = sb.u32(at) | sb.raw[stamp] << 32
        if not seconds:
            continue
        # the last one's fields come in another order
        inode, block, name, line = (4, 8, 16, 48) if word == "First" else (4, 12, 20, 8)
        rows += [
            (f"{word} error time", _date(seconds)),
            (f"{word} error function", _text(sb.raw[at + name : at + name + 32])),
            (f"{word} error line #", str(sb.u32(at + line))),
            (f"{word} error inode #", str(sb.u32(at + inode))),
            (f"{word} error block #", str(int.from_bytes(sb.raw[at + block : at + block + 8], "little"))),
        ]


def describe(sb: Superblock) -> list[tuple[str, str]]:
    """(field, value) in tune2fs' order; times are UTC."""
    raw = sb.raw

    def wide(low: int, high: int) -> int:
        return sb.u32(low) | (sb.u32(high) << 32 if sb.incompat & BIT64 else 0)

    def stamp(low: int, high: int) -> str:
        seconds = sb.u32(low) | raw[high] << 32
        return _date(seconds) if seconds else "n/a"

    flags = [
        name
        for bit, name in ((1, "signed_directory_hash"), (2, "unsigned_directory_hash"), (4, "test_filesystem"))
        if sb.u32(0x160) & bit
    ]
    state = sb.u16(0x3A)
    cluster = sb.block_size * sb.cluster_ratio
    system = sb.u32(0x48)
    rows = [
        ("Filesystem volume name", _text(raw[0x78:0x88]) or "<none>"),
        ("Last mounted on", _text(raw[0x88:0xC8]) or "<not available>"),
        ("Filesystem UUID", _uuid(raw[0x68:0x78]) if any(raw[0x68:0x78]) else "<none>"),
        ("Filesystem magic number", f"0x{sb.u16(0x38):04X}"),
        ("Filesystem revision #", f"{sb.revision} ({'dynamic' if sb.revision else 'original'})"),
        ("Filesystem features", _features(sb)),
        ("Filesystem flags", "".join(f"{name} " for name in flags) or "(none)"),
        ("Default mount options", _mount_options(sb.u32(0x100))),
    ]
    if raw[0x200]:
        rows.append(("Mount options", _text(raw[0x200:0x240])))
    rows += [
        (
            "Filesystem state",
            ("clean" if state & STATE_VALID else "not clean") + (" with errors" if state & STATE_ERROR else ""),
        ),
        ("Errors behavior", ERRORS.get(sb.u16(0x3C), "Unknown (continue)")),
        ("Filesystem OS type", _SYSTEMS[system] if system < len(_SYSTEMS) else "unknown"),
        ("Inode count", str(sb.inodes)),
        ("Block count", str(sb.blocks)),
        ("Reserved block count", str(wide(8, 0x154))),
    ]
    if sb.u32(0x248):
        rows.append(("Overhead clusters", str(sb.u32(0x248))))
    rows += [
        ("Free blocks", str(wide(0xC, 0x158))),
        ("Free inodes", str(sb.u32(0x10))),
        ("First block", str(sb.first_data_block)),
        ("Block size", str(sb.block_size)),
        ("Cluster size" if sb.ro_compat & BIGALLOC else "Fragment size", str(cluster)),
    ]
    if sb.incompat & BIT64:
        rows.append(("Group descriptor size", str(sb.u16(0xFE))))
    if sb.u16(0xCE):
        rows.append(("Reserved GDT blocks", str(sb.u16(0xCE))))
    rows += [
        ("Blocks per group", str(sb.blocks_per_group)),
        ("Clusters per group" if sb.ro_compat & BIGALLOC else "Fragments per group", str(sb.u32(0x24))),
        ("Inodes per group", str(sb.inodes_per_group)),
        ("Inode blocks per group", str(sb.inode_table_blocks)),
    ]
    for name, value in (
        ("First meta block group", sb.u32(0x104)),
        ("RAID stride", sb.u16(0x164)),
        ("RAID stripe width", sb.u32(0x170)),
        ("Flex block group size", 1 << raw[0x174] if raw[0x174] else 0),
    ):
        if value:
            rows.append((name, str(value)))
    if sb.u32(0x108):
        rows.append(("Filesystem created", stamp(0x108, 0x276 - 1)))
    interval = sb.u32(0x44)
    rows += [
        ("Last mount time", stamp(0x2C, 0x275)),
        ("Last write time", stamp(0x30, 0x274)),
        ("Mount count", str(sb.u16(0x34))),
        ("Maximum mount count", str(int.from_bytes(raw[0x36:0x38], "little", signed=True))),
        ("Last checked", _date(sb.u32(0x40) | raw[0x277] << 32)),
        ("Check interval", f"{interval} ({_interval(interval)})"),
    ]
    if interval:
        rows.append(("Next check after", _date(sb.u32(0x40) + interval)))
    written = int.from_bytes(raw[0x178:0x180], "little")
    if written:
        rows.append(("Lifetime writes", _written(written)))
    for word, at in (("uid", 0x50), ("gid", 0x52)):
        kind = "user" if word == "uid" else "group"
        rows.append((f"Reserved blocks {word}", f"{sb.u16(at)} ({kind} unknown)"))
    if sb.revision:
        rows += [("First inode", str(sb.first_inode)), ("Inode size", str(sb.inode_size))]
    for name, value in (("Required extra isize", sb.u16(0x15C)), ("Desired extra isize", sb.u16(0x15E))):
        if value:
            rows.append((name, str(value)))
    if any(raw[0xD0:0xE0]):
        rows.append(("Journal UUID", _uuid(raw[0xD0:0xE0])))
    if sb.u32(0xE0):
        rows.append(("Journal inode", str(sb.u32(0xE0))))
    if sb.u32(0xE4):
        rows.append(("Journal device", f"0x{sb.u32(0xE4):04x}"))
    if sb.u32(0xE8):
        rows.append(("First orphan inode", str(sb.u32(0xE8))))
    if sb.compat & DIR_INDEX or raw[0xFC]:
        rows.append(("Default directory hash", _HASHES[raw[0xFC]] if raw[0xFC] < len(_HASHES) else str(raw[0xFC])))
    if any(raw[0xEC:0xFC]):
        rows.append(("Directory Hash Seed", _uuid(raw[0xEC:0xFC])))
    if raw[0xFD]:
        rows.append(("Journal backup", "inode blocks" if raw[0xFD] == 1 else f"type {raw[0xFD]}"))
    _errors(sb, rows)
    if sb.incompat & MMP:
        rows.append(("MMP block number", str(int.from_bytes(raw[0x168:0x170], "little"))))
        rows.append(("MMP update interval", str(sb.u16(0x166))))
    for name, at in (("User", 0x240), ("Group", 0x244), ("Project", 0x26C)):
        if sb.u32(at):
            rows.append((f"{name} quota inode", str(sb.u32(at))))
    if sb.metadata_csum:
        rows.append(("Checksum type", "crc32c" if raw[0x175] == 1 else "unknown"))
        rows.append(("Checksum", f"0x{sb.u32(0x3FC):08x}"))
    if sb.incompat & CSUM_SEED:
        rows.append(("Checksum seed", f"0x{sb.u32(0x270):08x}"))
    if sb.u32(0x280):
        rows.append(("Orphan file inode", str(sb.u32(0x280))))
    return rows
