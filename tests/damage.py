"""Damaged qcow2 images: small sound ones of every feature, made by the real tool, and what can be wrong with them.

`bases(directory)` makes the sound images; `Anatomy` says where their structures are; `CASES` names the damages.
"""

from __future__ import annotations

import random
import shutil
import struct
from collections.abc import Callable
from pathlib import Path

import judges
from layouts import content, qemu_io

COPIED = 1 << 63
PACKED = 1 << 62
OFFSET = 0x00FFFFFFFFFFFE00

BASES: dict[str, str] = {
    "plain": "cluster_size=64k",
    "v2": "cluster_size=64k,compat=0.10",
    "small": "cluster_size=512",
    "narrow": "cluster_size=4k,refcount_bits=1",
    "wide": "cluster_size=4k,refcount_bits=64",
    "extended": "cluster_size=16k,extended_l2=on",
    "zstd": "cluster_size=64k,compression_type=zstd",
    "snapshots": "cluster_size=4k",
    "bitmaps": "cluster_size=4k",
    "data": "cluster_size=64k,data_file={dir}/data.bin",
    "lazy": "cluster_size=64k,lazy_refcounts=on",
    "backed": "cluster_size=64k,backing_file={dir}/base.raw,backing_fmt=raw",
}
SIZE = 1 << 20


def bases(directory: Path) -> dict[str, Path]:
    """The sound images, by name."""
    (directory / "base.raw").write_bytes(content(5, SIZE))
    (directory / "fill").write_bytes(content(6, 1 << 16, packable=True))
    paths = {}
    for name, options in BASES.items():
        path = paths[name] = directory / f"{name}.qcow2"
        size = SIZE if name != "small" else SIZE // 8
        argv = ["create", "-q", "-f", "qcow2", "-o", options.format(dir=directory), path]
        judges.qemu_img(*argv, *([] if name == "backed" else [str(size)]))
        cluster = 512 if name == "small" else 4096 if name in ("narrow", "wide", "snapshots", "bitmaps") else 65536
        cluster = 16384 if name == "extended" else cluster
        if name == "bitmaps":
            judges.qemu_img("bitmap", "--add", "-g", "4k", path, "first")
            judges.qemu_img("bitmap", "--add", path, "second")
        commands = [f"write -q -P 17 0 {cluster * 2}", f"write -q -z {cluster * 3} {cluster}"]
        commands += [f"write -q -P 18 {cluster * 5 + 512 * (cluster > 512)} 512"]
        if name not in ("data", "small"):
            commands += [f"write -q -c -s {directory / 'fill'} {cluster * at} {cluster}" for at in (6, 7)]
        qemu_io(path, commands)
        if name == "snapshots":
            judges.qemu_img("snapshot", "-c", "one", path)
            qemu_io(path, [f"write -q -P 19 0 {cluster}"])
            judges.qemu_img("snapshot", "-c", "two", path)
    return paths


class Anatomy:
    """Where the structures of a sound image are; offsets in bytes."""

    def __init__(self, path: Path) -> None:
        self.raw = raw = path.read_bytes()
        (
            _, self.version, _, _, self.cluster_bits, self.size, _, self.l1_size, self.l1, self.table,
            self.table_clusters, self.nb_snapshots, self.snapshots,
        ) = struct.unpack_from(">4sIQIIQIIQQIIQ", raw)  # fmt: skip
        self.cluster = 1 << self.cluster_bits
        self.length = len(raw)
        self.extensions = struct.unpack_from(">I", raw, 100)[0] if self.version > 2 else 72
        self.block = self.u64(self.table) & OFFSET
        self.l2 = self.u64(self.l1) & OFFSET
        self.bitmaps = self.extension(0x23852875)

    def u64(self, at: int) -> int:
        return int(struct.unpack_from(">Q", self.raw, at)[0])

    def extension(self, kind: int) -> int:
        """Where the extension's header is, 0 when there is none."""
        at = self.extensions
        while at + 8 <= self.cluster:
            number, length = struct.unpack_from(">II", self.raw, at)
            if number == kind:
                return at
            if number == 0:
                return 0
            at += 8 + (length + 7) // 8 * 8
        return 0


Patch = tuple[int, bytes]
Damage = Callable[[Anatomy], list[Patch]]


#: what takes either tool seconds: tables as long as they may be
HEAVY = ("plain l1_size=0x400000", "snapshots 65536", "snapshot l1_size=0x400000")


class Case:
    """One damage: to which base, what, and the field that our error's detail names ("": the image still opens)."""

    def __init__(self, name: str, base: str, damage: Damage, field: str = "") -> None:
        self.name = name
        self.base = base
        self.damage = damage
        self.field = field
        self.heavy = name in HEAVY

    def make(self, sound: Path, path: Path) -> Path:
        shutil.copyfile(sound, path)
        with open(path, "r+b") as file:
            for offset, data in self.damage(Anatomy(sound)):
                file.seek(offset)
                file.write(data)
        return path


def at(offset: int, data: bytes) -> Damage:
    """The damage of writing ``data`` at a fixed place."""
    return lambda _: [(offset, data)]


def u8(value: int) -> bytes:
    return bytes([value])


def u16(value: int) -> bytes:
    return struct.pack(">H", value)


def u32(value: int) -> bytes:
    return struct.pack(">I", value)


def u64(value: int) -> bytes:
    return struct.pack(">Q", value)


def _header() -> list[Case]:
    """One field of the header set to each of several impossible values."""
    cases: list[Case] = []

    def field(name: str, offset: int, size: int, *values: int, base: str = "plain", says: str | None = None) -> None:
        for value in values:
            data = u8(value) if size == 1 else u32(value) if size == 4 else u64(value)
            cases.append(Case(f"{base} {name}={value:#x}", base, at(offset, data), name if says is None else says))

    high = 1 << 63
    field("magic", 0, 4, 0, 0x514649FA, says="magic")
    field("version", 4, 4, 0, 4, 0xFFFFFFFF)
    field("backing_file_offset", 8, 8, 65537, 1 << 32, high, (1 << 64) - 1)
    for offset, length in ((104, 8), (200, 1023), (65530, 10), (300, 5), (65536, 1)):
        cases.append(Case(f"backing name of {length} at {offset}", "plain", at(8, u64(offset) + u32(length))))
    for length in (1024, 65535, 0x7FFFFFFF, 0xFFFFFFFF):
        cases.append(Case(f"backing name of {length}", "plain", at(8, u64(600) + u32(length)), "backing_file_size"))
    field("cluster_bits", 20, 4, 0, 1, 8, 22, 31, 32, 63, 64, 0xFFFFFFFF)
    field("cluster_bits", 20, 4, 9, 15, 17, 21, says="")
    field("size", 24, 8, high, (1 << 64) - 1, high - 1, 1 << 62, 1 << 50, says="")
    field("size", 24, 8, 0, 1, 511, SIZE - 1, SIZE + 1, SIZE + 512, 1 << 29, says="")
    field("size", 24, 8, (1 << 29) + 1, says="l1_size")
    field("crypt_method", 32, 4, 3, 0xFFFFFFFF)
    field("crypt_method", 32, 4, 1, 2, says="")
    field("l1_size", 36, 4, 0)
    field("l1_size", 36, 4, 2, 8192, 4 << 20, says="")
    field("l1_size", 36, 4, (4 << 20) + 1, 0x7FFFFFFF, 0xFFFFFFFF, says="l1_table size")
    field("l1_table_offset", 40, 8, 1, 512, 65535, 0x30001, (1 << 64) - 1, high - 1, says="l1_table offset")
    field("l1_table_offset", 40, 8, 0, 0x10000, 0x20000, 1 << 40, 1 << 62, high - 65536, says="")
    field("refcount_table_offset", 48, 8, 1, 65535, (1 << 64) - 1, says="refcount_table offset")
    field("refcount_table_offset", 48, 8, 0, 0x30000, 1 << 40, 1 << 62, says="")
    field("refcount_table_clusters", 56, 4, 0)
    field("refcount_table_clusters", 56, 4, 129, 0x7FFFFFFF, 0xFFFFFFFF, says="refcount_table size")
    field("refcount_table_clusters", 56, 4, 2, 128, says="")
    field("nb_snapshots", 60, 4, 1, 2, 65536, says="")
    field("nb_snapshots", 60, 4, 65537, 0x7FFFFFFF, 0xFFFFFFFF, says="snapshots size")
    field("snapshots_offset", 64, 8, 1, 511, (1 << 64) - 1, says="snapshots offset")
    field("snapshots_offset", 64, 8, 1 << 40, 0x10000, says="")
    for bit in (5, 6, 31, 32, 63):
        field("incompatible_features", 72, 8, 1 << bit)
    field("incompatible_features", 72, 8, (1 << 64) - 1, says="compression_type")
    field("incompatible_features", 72, 8, 1, 2, 3, 16, 4, says="")
    field("incompatible_features", 72, 8, 8, says="compression_type")
    field("incompatible_features", 72, 8, 16, base="small", says="cluster_bits")
    field("compatible_features", 80, 8, 2, 1 << 63, (1 << 64) - 1, says="")
    field("autoclear_features", 88, 8, 1, 2, 4, 1 << 63, (1 << 64) - 1, says="")
    field("refcount_order", 96, 4, 7, 8, 32, 0xFFFFFFFF)
    field("refcount_order", 96, 4, 0, 6, says="")
    field("header_length", 100, 4, 0, 1, 72, 103, 65537, 0xFFFFFFFF)
    field("header_length", 100, 4, 104, 105, 108, 111, 113, 120, 65536, 65528, says="")
    field("compression_type", 104, 1, 1, 2, 255)
    field("compression_type", 104, 1, 0, 2, 255, base="zstd")
    field("version", 4, 4, 0xFFFFFFFF, base="v2")
    field("cluster_bits", 20, 4, 0xFFFFFFFF, base="v2")
    return cases


def _extensions() -> list[Case]:
    """The header's extensions."""
    cases = []

    def put(name: str, *items: tuple[int, int, bytes], base: str = "plain", field: str = "") -> None:
        data = b"".join(u32(kind) + u32(length) + body + bytes(-len(body) % 8) for kind, length, body in items)
        cases.append(Case(f"{base} extension {name}", base, lambda a: [(a.extensions, data + bytes(8))], field))

    def feature(name: str, text: bytes) -> None:
        table = u32(0x6803F857) + u32(48) + b"\0\x28" + text.ljust(46, b"\0") + bytes(8)
        damage: Damage = lambda a: [(72, u64(1 << 40)), (a.extensions, table)]  # noqa: E731
        cases.append(Case(f"unknown feature {name}", "plain", damage, "incompatible_features"))

    put("too long", (0x1234, 0xFFFFFFFF, b""), field="extension 0x1234 length")
    put("past the cluster", (0x1234, 65536, b""), field="extension 0x1234 length")
    put("past the cluster, signed", (0x1234, 0x80000000, b""), field="extension 0x1234 length")
    put("unknown", (0x1234, 11, b"hello world"))
    put("backing format 16", (0xE2792ACA, 16, b"x" * 16), field="backing format length")
    put("backing format 4096", (0xE2792ACA, 4096, b"x" * 4096), field="backing format length")
    put("backing format unknown", (0xE2792ACA, 7, b"nothing"), base="backed")
    put("backing format empty", (0xE2792ACA, 0, b""), base="backed")
    put("features odd", (0x6803F857, 49, b"\0\5" + b"n" * 47))
    put("features huge", (0x6803F857, 48 * 600, (b"\0\x3f" + b"n" * 46) * 600))
    put("data file unasked", (0x44415441, 4, b"else"))
    put("crypto unasked", (0x0537BE77, 16, u64(65536) + u64(512)), field="")
    put("crypto short", (0x0537BE77, 8, u64(65536)), field="")
    put("twice", (0xE2792ACA, 3, b"raw"), (0xE2792ACA, 5, b"qcow2"))
    feature("with a name", b"telepathy")
    feature("with control characters", b"\x1b[31m\r\n\xff".ljust(46, b"x"))
    endless = (u32(9) + u32(0)) * ((65536 - 112) // 8)
    cases.append(Case("no end of extensions", "plain", lambda a: [(a.extensions, endless)]))
    cases.append(Case("data file bit without a name", "plain", lambda a: [(72, u64(4))]))
    cases.append(Case("data file gone", "data", lambda a: [(a.extension(0x44415441) + 8, b"/nowhere")]))
    return cases


def _bitmaps() -> list[Case]:
    cases = []

    def ext(name: str, at: int, data: bytes) -> None:
        cases.append(Case(f"bitmaps {name}", "bitmaps", lambda a: [(a.bitmaps + at, data)]))

    ext("extension of 23", 4, u32(23))
    ext("extension of 32", 4, u32(32))
    ext("none", 8, u32(0))
    ext("65536", 8, u32(65536))
    ext("3", 8, u32(3))
    ext("all ones", 8, u32(0xFFFFFFFF))
    ext("reserved", 12, u32(1))
    ext("directory of 0", 16, u64(0))
    ext("directory of 8", 16, u64(8))
    ext("directory huge", 16, u64(1 << 40))
    ext("directory 2^64-1", 16, u64((1 << 64) - 1))
    ext("directory unaligned", 24, u64(4097))
    ext("directory far", 24, u64(1 << 40))
    ext("directory at header", 24, u64(0))

    def entry(name: str, at: int, data: bytes) -> None:
        cases.append(Case(f"bitmap entry {name}", "bitmaps", lambda a: [(a.u64(a.bitmaps + 24) + at, data)]))

    entry("table unaligned", 0, u64(4097))
    entry("table far", 0, u64(1 << 50))
    entry("table at header", 0, u64(0))
    entry("table of 0", 8, u32(0))
    entry("table huge", 8, u32(0xFFFFFFFF))
    entry("reserved flags", 12, u32(1 << 31))
    entry("in use", 12, u32(1))
    entry("extra data incompatible", 12, u32(4))
    entry("type 2", 16, u8(2))
    entry("granularity 2^8", 17, u8(8))
    entry("granularity 2^32", 17, u8(32))
    entry("granularity 2^255", 17, u8(255))
    entry("no name", 18, u16(0))
    entry("name of 65535", 18, u16(65535))
    entry("name of 1024", 18, u16(1024))
    entry("extra huge", 20, u32(0xFFFFFFFF))
    entry("extra 8", 20, u32(8))
    return cases


def _tables() -> list[Case]:
    """L1, L2, refcount and snapshot tables full of nonsense."""
    cases = []
    nonsense = {
        "unaligned": 0x30200 | COPIED,
        "odd": 0x50001 | COPIED,
        "at the header": COPIED,
        "far": (1 << 40) | COPIED,
        "farthest": OFFSET | COPIED,
        "all ones": (1 << 64) - 1,
        "reserved bits": 0x7F00000000050000,
    }
    for what, value in nonsense.items():
        data, plain = u64(value), u64(value & ~COPIED)
        for base in ("plain", "small"):
            cases.append(Case(f"L1 entry {what}, {base}", base, lambda a, data=data: [(a.l1, data)]))
        for base in ("plain", "extended", "backed"):
            cases.append(Case(f"L2 entry {what}, {base}", base, lambda a, data=data: [(a.l2, data)]))
        cases.append(Case(f"refcount table entry {what}", "plain", lambda a, data=plain: [(a.table, data)]))
    cases += [
        Case("L1 points at the L1", "plain", lambda a: [(a.l1, u64(a.l1 | COPIED))]),
        Case("L1 points at the refcount table", "plain", lambda a: [(a.l1, u64(a.table | COPIED))]),
        Case("L1 points at the refcount block", "plain", lambda a: [(a.l1, u64(a.block | COPIED))]),
        Case("L1 points at data", "plain", lambda a: [(a.l1, u64((a.u64(a.l2) & OFFSET) | COPIED))]),
        Case("L1 without COPIED", "plain", lambda a: [(a.l1, u64(a.l2))]),
        Case("two L1 entries, one table", "small", lambda a: [(a.l1 + 8, u64(a.u64(a.l1)))]),
        Case("L2 points at the L2", "plain", lambda a: [(a.l2, u64(a.l2 | COPIED))]),
        Case("L2 points at the L1", "plain", lambda a: [(a.l2, u64(a.l1 | COPIED))]),
        Case("L2 points at the refcount block", "plain", lambda a: [(a.l2, u64(a.block | COPIED))]),
        Case("L2 twice the same", "plain", lambda a: [(a.l2 + 8, u64(a.u64(a.l2)))]),
        Case("L2 without COPIED", "plain", lambda a: [(a.l2, u64(a.u64(a.l2) & ~COPIED))]),
        Case("L2 zero flag, v2", "v2", lambda a: [(a.l2, u64(a.u64(a.l2) | 1))]),
        Case("L2 zero, unaligned", "plain", lambda a: [(a.l2, u64(0x50201 | COPIED))]),
        Case("L2 packed and COPIED", "plain", lambda a: [(a.l2 + 48, u64(a.u64(a.l2 + 48) | COPIED))]),
        Case("L2 packed, garbage", "plain", lambda a: [((a.u64(a.l2 + 48) & 0xFFFFFFFF), b"\xff" * 64)]),
        Case("L2 packed, garbage, zstd", "zstd", lambda a: [((a.u64(a.l2 + 48) & 0xFFFFFFFF), b"\xff" * 64)]),
        Case("L2 packed, short", "plain", lambda a: [(a.l2 + 48, u64(a.u64(a.l2 + 48) & ~(0xFF << 54)))]),
        Case("L2 packed, far", "plain", lambda a: [(a.l2, u64(PACKED | (1 << 50) | 12345))]),
        Case("L2 packed, longest", "plain", lambda a: [(a.l2, u64(PACKED | (0xFF << 54) | 0x50001))]),
        Case("L2 packed, at the header", "plain", lambda a: [(a.l2, u64(PACKED))]),
        Case("L2 packed, all ones", "plain", lambda a: [(a.l2, u64((1 << 63) - 1))]),
        Case("L2 full of ones", "plain", lambda a: [(a.l2, b"\xff" * a.cluster)]),
        Case("L2 full of noise", "plain", lambda a: [(a.l2, random.Random(1).randbytes(a.cluster))]),
        Case("L2 full of noise, extended", "extended", lambda a: [(a.l2, random.Random(2).randbytes(a.cluster))]),
        Case("L2 full of noise, small", "small", lambda a: [(a.l2, random.Random(3).randbytes(a.cluster))]),
        Case("subclusters both", "extended", lambda a: [(a.l2 + 8, b"\xff" * 8)]),
        Case("subclusters without cluster", "extended", lambda a: [(a.l2, u64(0) + u64(0xFFFFFFFF))]),
        Case("subclusters of a packed one", "extended", lambda a: [(a.l2 + 6 * 16 + 8, u64(0xFFFFFFFF))]),
        Case("subclusters zero flag", "extended", lambda a: [(a.l2, u64(a.u64(a.l2) | 1))]),
        Case("refcount table empty", "plain", lambda a: [(a.table, bytes(a.cluster))]),
        Case("refcount table noise", "plain", lambda a: [(a.table, random.Random(4).randbytes(a.cluster))]),
        Case("refcount block empty", "plain", lambda a: [(a.block, bytes(a.cluster))]),
        Case("refcount block full", "plain", lambda a: [(a.block, b"\xff" * a.cluster)]),
        Case("refcount block noise", "plain", lambda a: [(a.block, random.Random(5).randbytes(a.cluster))]),
        Case("refcount block noise, narrow", "narrow", lambda a: [(a.block, random.Random(6).randbytes(a.cluster))]),
        Case("refcount block noise, wide", "wide", lambda a: [(a.block, random.Random(7).randbytes(a.cluster))]),
        Case("refcount block is the table", "plain", lambda a: [(a.table, u64(a.table))]),
        Case("refcount block is the header", "small", lambda a: [(a.table + 8, u64(a.block))]),
        Case("refcounts one too many", "plain", lambda a: [(a.block, u16(2))]),
        Case("refcounts one too few", "plain", lambda a: [(a.block, u16(0))]),
        Case("refcounts leak", "plain", lambda a: [(a.block + 2 * 100, u16(1))]),
    ]
    for where, size, values, name in (
        (0, 8, (0, 1, 511, 1 << 40, 1 << 62, (1 << 64) - 1), "l1_table_offset"),
        (8, 4, (0, 1, 4 << 20, (4 << 20) + 1, 0xFFFFFFFF), "l1_size"),
        (12, 2, (0, 65535), "id_str_size"),
        (14, 2, (0, 65535), "name_size"),
        (32, 4, (0xFFFFFFFF,), "vm_state_size"),
        (36, 4, (0, 8, 15, 16, 1024, 1025, 0xFFFFFFFF), "extra_data_size"),
        (48, 8, (0, 1, 1 << 30, 1 << 62, (1 << 64) - 1), "disk_size"),
    ):
        for value in values:
            data = {2: u16, 4: u32, 8: u64}[size](value)
            damage: Damage = lambda a, at=where, data=data: [(a.snapshots + at, data)]  # noqa: E731
            cases.append(Case(f"snapshot {name}={value:#x}", "snapshots", damage))
    cases += [
        Case("snapshot table noise", "snapshots", lambda a: [(a.snapshots, random.Random(8).randbytes(400))]),
        Case("snapshot names with escapes", "snapshots", lambda a: [(a.snapshots + 40 + 24 + 1, b"\x1b\n\xff")]),
        Case("snapshots more than there are", "snapshots", lambda a: [(60, u32(5))]),
        Case("snapshots 65536", "snapshots", lambda a: [(60, u32(65536))]),
        Case("snapshot L1 points anywhere", "snapshots", lambda a: [(a.u64(a.snapshots), u64(0x1001 | COPIED))]),
    ]
    return cases


CASES: list[Case] = [*_header(), *_extensions(), *_bitmaps(), *_tables()]
