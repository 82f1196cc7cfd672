"""How a new ext2, ext3 or ext4 file system is laid out: its options become its superblock, as mke2fs 1.47 makes it."""

from __future__ import annotations

import os
import struct

from ....errors import OptionError
from . import superblock
from .crc import crc32c
from .superblock import Superblock

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NoReturn

_BASE = ("ext_attr", "resize_inode", "dir_index", "filetype", "sparse_super", "large_file")
FEATURES = {
    "ext2": _BASE,
    "ext3": (*_BASE, "has_journal"),
    "ext4": (
        *_BASE, "has_journal", "extent", "huge_file", "flex_bg", "metadata_csum", "64bit", "dir_nlink", "extra_isize",
    ),
}  # fmt: skip
_POSSIBLE = {
    *FEATURES["ext4"], "uninit_bg", "inline_data", "ea_inode", "metadata_csum_seed", "large_dir",
}  # fmt: skip
FIRST = 11
SYSTEMS = {"linux": 0, "hurd": 1, "masix": 2, "freebsd": 3, "lites": 4}


def _bits(features: set[str]) -> tuple[int, int, int]:
    found = []
    for names in (superblock.COMPAT_NAMES, superblock.INCOMPAT_NAMES, superblock.RO_COMPAT_NAMES):
        bits = 0
        for bit, name in names.items():
            if name in features:
                bits |= bit
        found.append(bits)
    return found[0], found[1], found[2]


def _journal_blocks(blocks: int, size: int) -> int:
    """How long mke2fs makes the journal of a file system of so many blocks; 0 when it is too small for one."""
    if blocks < 2048:
        return 0
    for limit, length in (
        (32768, 1024), (256 * 1024, 4096), (512 * 1024, 8192), (4096 * 1024, 16384), (8192 * 1024, 32768),
        (16384 * 1024, 65536), (32768 * 1024, 131072),
    ):  # fmt: skip
        if blocks < limit:
            return length
    return 262144


class Options:
    """What `mkfs.make` was asked for; None where it was not."""

    def __init__(self) -> None:
        self.kind = "ext2"
        self.block_size: int | None = None
        self.size = 0
        self.label = ""
        self.uuid: str | None = None
        self.features = ""
        self.inode_size: int | None = None
        self.inode_ratio: int | None = None
        self.inodes: int | None = None
        self.reserved_percent = 5.0
        self.journal_blocks: int | None = None
        self.journal_megabytes: int | None = None
        self.blocks_per_group: int | None = None
        self.flex_groups: int | None = None
        self.stride = 0
        self.stripe_width = 0
        self.most_blocks: int | None = None
        self.last_mounted = ""
        self.creator = "linux"
        self.test = False
        self.now = 0


def _wrong(name: str, value: object, text: str) -> NoReturn:
    raise OptionError(text, field=name, value=value)


def _identity(uuid: str | None) -> bytes:
    """The 16 bytes of a uuid; "clear" is none, "random", "time" and None are new ones."""
    if uuid in ("clear", "null"):
        return bytes(16)
    if uuid in (None, "random", "time"):
        data = bytearray(os.urandom(16))
        data[6] = data[6] & 0x0F | 0x40
        data[8] = data[8] & 0x3F | 0x80
        return bytes(data)
    assert uuid is not None
    try:
        found = bytes.fromhex(uuid.replace("-", ""))
    except ValueError:
        found = b""
    if len(found) != 16:
        _wrong("uuid", uuid, f"could not parse UUID: {uuid}")
    return found


class Geometry:
    """``features`` by name, ``size`` of a block and of an inode, ``blocks``, and ``sb``, the superblock that they give.

    Raises OptionError in mke2fs' words.
    """

    def __init__(self, options: Options, room: int) -> None:
        self.options = options
        kind, size = options.kind, options.size
        if kind not in FEATURES:
            _wrong("kind", kind, f"{kind}: not a valid extended filesystem type")
        self.now = options.now
        wanted = set(FEATURES[kind])
        for item in filter(None, options.features.replace(" ", ",").split(",")):
            name = {"extents": "extent", "gdt_csum": "uninit_bg"}.get(item.lstrip("^+-"), item.lstrip("^+-"))
            if name == "none":
                wanted.clear()
            elif name not in _POSSIBLE:
                _wrong("features", name, f"features {name}: this feature can't be made")
            elif item[0] in "^-":
                wanted.discard(name)
            else:
                wanted.add(name)
        if "metadata_csum" in wanted:
            wanted.discard("uninit_bg")
        if "64bit" in wanted and "extent" not in wanted:
            wanted.discard("64bit")
        self.features = wanted
        small = size < 512 << 20
        self.size = options.block_size or (1024 if small else 4096)
        if self.size not in (1024, 2048, 4096, 8192, 16384, 32768, 65536):
            _wrong("block_size", self.size, f"mke2fs: invalid block size - {self.size}")
        if size > room:
            _wrong("size", size, f"size {size}: the device is smaller")
        self.blocks = size // self.size
        if self.blocks < 64:
            _wrong("size", size, "Not enough space to build proposed filesystem while setting up superblock")
        if self.blocks >> 32 and "64bit" not in wanted:
            _wrong("size", size, f"size {size}: it is too big without the feature 64bit")
        self.per_group = options.blocks_per_group or min(self.size * 8, 65528)
        if self.per_group % 8:
            _wrong("blocks_per_group", self.per_group, "mke2fs: blocks per group must be multiple of 8")
        if not 256 <= self.per_group <= min(self.size * 8, 65528):
            _wrong("blocks_per_group", self.per_group, "mke2fs: blocks per group count out of range")
        self.flex = 4
        if options.flex_groups is not None:
            if options.flex_groups < 1 or options.flex_groups & (options.flex_groups - 1):
                _wrong("flex_groups", options.flex_groups, "mke2fs: flex_bg size must be a power of 2")
            self.flex = options.flex_groups.bit_length() - 1
        self.inode_size = options.inode_size or 256
        if self.inode_size < 128 or self.inode_size > self.size or self.inode_size & (self.inode_size - 1):
            _wrong(
                "inode_size", self.inode_size,
                f"mke2fs: invalid inode size {self.inode_size} (min 128/max {self.size})",
            )  # fmt: skip
        ratio = options.inode_ratio or (8192 if size < 3 << 20 else 4096 if small else 16384)
        if not 1024 <= ratio <= 4 << 24:
            _wrong("inode_ratio", ratio, f"mke2fs: invalid inode ratio {ratio} (min 1024/max 67108864)")
        ratio = max(ratio, self.size)
        if not 0 <= options.reserved_percent <= 50:
            _wrong(
                "reserved_percent", options.reserved_percent,
                f"mke2fs: invalid reserved blocks percent - {options.reserved_percent:g}",
            )  # fmt: skip
        self.label = options.label.encode("utf-8", "surrogateescape")
        if len(self.label) > 16:
            _wrong("label", options.label, f"label {options.label}: it has at most 16 bytes")
        self.uuid = _identity(options.uuid)
        self.place = options.last_mounted.encode("utf-8", "surrogateescape")[:64]
        if options.creator.lower() not in SYSTEMS:
            _wrong("creator", options.creator, f"mke2fs: unknown os - {options.creator}")
        if options.most_blocks is not None and options.most_blocks <= self.blocks:
            _wrong(
                "most_blocks", options.most_blocks,
                "The resize maximum must be greater than the filesystem size.",
            )  # fmt: skip
        self.inode_count = options.inodes or size // ratio
        if self.inode_count * self.inode_size // self.size >= self.blocks:
            _wrong(
                "inodes", self.inode_count,
                f"mke2fs: inode_size ({self.inode_size}) * inodes_count ({self.inode_count}) too big for a\n"
                f"\tfilesystem with {self.blocks} blocks, specify higher inode_ratio (-i)\n"
                "\tor lower inode count (-N).",
            )  # fmt: skip
        self.journal_blocks = 0
        if "has_journal" in wanted:
            self.journal_blocks = options.journal_blocks or _journal_blocks(self.blocks, self.size)
            if options.journal_megabytes is not None:
                self.journal_blocks = (options.journal_megabytes << 20) // self.size
            if self.journal_blocks and not 1024 <= self.journal_blocks <= 10240000:
                _wrong(
                    "journal_blocks", self.journal_blocks,
                    f"The requested journal size is {self.journal_blocks} blocks; it must be\n"
                    "between 1024 and 10240000 filesystem blocks.  Aborting.",
                )  # fmt: skip
            if self.journal_blocks > self.blocks // 2:
                _wrong("journal_blocks", self.journal_blocks, "Total journal size too big for filesystem.")
        self.sb = self._super()

    def _super(self) -> Superblock:
        size = self.size
        first = 1 if size == 1024 else 0
        # a count of 16 bits holds a group's free blocks
        per_group = self.per_group
        desc = 64 if "64bit" in self.features else 32
        while True:
            groups = -(-(self.blocks - first) // per_group)
            each = -(-self.inode_count // groups)
            per_block = size // self.inode_size
            each = max(per_block, -(-each // per_block) * per_block, 16)
            each = min(-(-each // 8) * 8, min(size * 8, 65528))
            table = -(-each * self.inode_size // size)
            desc_blocks = -(-groups * desc // size)
            spare = self._spare(desc_blocks, first, per_group, desc)
            # the last group must have room for what belongs into it, and a little more
            rest = (self.blocks - first) % per_group
            own = 2 + table + 1 + desc_blocks + spare
            if rest and rest < own + 50 and groups > 1:
                self.blocks -= rest
                continue
            if own + 16 > min(per_group, self.blocks - first):
                _wrong("size", self.blocks * size, f"size {self.blocks * size}: there is no room for the inodes")
            break
        raw = bytearray(1024)
        seconds = self.now // 10**9
        compat, incompat, ro_compat = _bits(self.features)
        count = self.blocks
        reserved = int(count * self.options.reserved_percent / 100)
        struct.pack_into("<5I", raw, 0, groups * each, count & 0xFFFFFFFF, reserved & 0xFFFFFFFF, 0, 0)
        log = size.bit_length() - 11
        struct.pack_into("<6I", raw, 0x14, first, log, log, per_group, per_group, each)
        struct.pack_into("<II", raw, 0x2C, 0, seconds & 0xFFFFFFFF)
        struct.pack_into("<HhHHHH", raw, 0x34, 0, -1, superblock.MAGIC, 1, 1, 0)
        system = SYSTEMS[self.options.creator.lower()]
        struct.pack_into("<4I", raw, 0x40, seconds & 0xFFFFFFFF, 0, system, 1)
        struct.pack_into("<HHIHH", raw, 0x50, 0, 0, FIRST, self.inode_size, 0)
        struct.pack_into("<3I", raw, 0x5C, compat, incompat, ro_compat)
        raw[0x68:0x78] = self.uuid
        raw[0x78:0x88] = self.label.ljust(16, b"\0")
        raw[0x88:0xC8] = self.place.ljust(64, b"\0")
        raw[0xCE:0xD0] = spare.to_bytes(2, "little")
        raw[0xEC:0xFC] = os.urandom(16)
        raw[0xFC] = 1
        if desc == 64:
            raw[0xFE:0x100] = (64).to_bytes(2, "little")
            struct.pack_into("<II", raw, 0x150, count >> 32, reserved >> 32)
        struct.pack_into("<II", raw, 0x100, 0x0C, 0)
        raw[0x108:0x10C] = (seconds & 0xFFFFFFFF).to_bytes(4, "little")
        if self.inode_size > 128:
            struct.pack_into("<HH", raw, 0x15C, 32, 32)
        raw[0x160] = 5 if self.options.test else 1
        struct.pack_into("<H", raw, 0x164, self.options.stride)
        struct.pack_into("<I", raw, 0x170, self.options.stripe_width)
        if "flex_bg" in self.features:
            raw[0x174] = self.flex
        if "metadata_csum" in self.features:
            raw[0x175] = 1
            if "metadata_csum_seed" in self.features:
                raw[0x270:0x274] = crc32c(0xFFFFFFFF, self.uuid).to_bytes(4, "little")
        return Superblock(bytes(raw))

    def _spare(self, desc_blocks: int, first: int, per_group: int, desc: int) -> int:
        """Blocks kept for descriptors of a file system grown a thousandfold."""
        if "resize_inode" not in self.features:
            return 0
        most = min(self.options.most_blocks or self.blocks * 1024, 0xFFFFFFFF)
        groups = -(-(most - first) // per_group)
        return max(0, min(-(-groups * desc // self.size) - desc_blocks, self.size // 4))
