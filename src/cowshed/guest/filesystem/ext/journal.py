"""The journal, for reading (kernel documentation, 3.6 "Journal (jbd2)"): what a dirty one says that blocks hold.

Replay goes over the log twice: which transactions are whole and what they revoke, then the newest version of each
block. Checksums of versions 2 and 3, 64-bit tags, revoke records and escaped blocks are known; an external journal and
fast commits are refused by name.
"""

from __future__ import annotations

import struct
import zlib

from ....errors import CorruptError, FeatureError
from .crc import crc32c

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .filesystem import ExtFileSystem

MAGIC = 0xC03B3998
MAGIC_BYTES = MAGIC.to_bytes(4, "big")
DESCRIPTOR, COMMIT, SUPER_V1, SUPER_V2, REVOKE = 1, 2, 3, 4, 5
HEADER = struct.Struct(">III")

COMPAT_CHECKSUM = 0x1
INCOMPAT_REVOKE = 0x1
INCOMPAT_64BIT = 0x2
INCOMPAT_ASYNC_COMMIT = 0x4
INCOMPAT_CSUM_V2 = 0x8
INCOMPAT_CSUM_V3 = 0x10
INCOMPAT_FAST_COMMIT = 0x20

ESCAPE, SAME_UUID, DELETED, LAST = 1, 2, 4, 8
_FC_HEAD = 0x0009


#: bits of each byte the other way round
_MIRROR = bytes(int(f"{byte:08b}"[::-1], 2) for byte in range(256))


def _sum_be(total: int, data: bytes) -> int:
    """Go on with a CRC-32 that takes the highest bit first, by way of the one that takes the lowest first."""
    return zlib.crc32(data.translate(_MIRROR), total)


def _finish_be(total: int) -> int:
    return int(f"{total ^ 0xFFFFFFFF:032b}"[::-1], 2)


class Journal:
    """The journal's superblock and where its blocks are.

    ``start``: first block of the log when it is dirty, 0 when it is empty; ``sequence`` of the next transaction;
    ``first`` and ``length`` (blocks) of the log's ring; ``fast`` blocks at its end are for fast commits.
    """

    def __init__(self, fs: ExtFileSystem) -> None:
        self.fs = fs
        self.block_size = fs.sb.block_size
        number = fs.sb.journal_inode
        if not number:
            raise FeatureError(
                "The journal is on another device (external journal)", layer="ext", hint="replay it with e2fsck"
            )
        inode = fs.inodes[number]
        if not inode.is_file or not inode.nlink:
            raise self._wrong("its inode", f"mode {inode.mode:#o}")
        self.runs = list(fs.runs(inode))
        self.total = inode.size // self.block_size
        mapped = sum(run.count for run in self.runs)
        if self.total < 2 or mapped < self.total or self.runs[0].first:
            raise self._wrong("i_size", inode.size)
        self._run = self.runs[0]
        raw = self.raw = bytearray(self.read(0)[:1024])
        magic, kind, _ = HEADER.unpack_from(raw)
        if magic != MAGIC or kind not in (SUPER_V1, SUPER_V2):
            raise self._wrong("h_magic", f"{magic:#010x}")
        size, maxlen, self.first, self.sequence, self.start = struct.unpack_from(">5I", raw, 0xC)
        if size != self.block_size:
            raise self._wrong("s_blocksize", size)
        if maxlen > self.total or maxlen < 2:
            raise self._wrong("s_maxlen", maxlen)
        self.compat = self.incompat = 0
        self.seed = 0
        if kind == SUPER_V2:
            self.compat, self.incompat = struct.unpack_from(">2I", raw, 0x24)
        unknown = self.incompat & ~0x3F
        if unknown:
            raise FeatureError(f"The journal needs features that are not known: {unknown:#x}", layer="ext journal")
        self.sums = bool(self.incompat & (INCOMPAT_CSUM_V2 | INCOMPAT_CSUM_V3))
        if self.sums:
            stored = int.from_bytes(raw[0xFC:0x100], "big")
            if stored != self.checksum():
                raise self._wrong("s_checksum", f"{stored:#010x} instead of {self.checksum():#010x}")
            self.seed = crc32c(0xFFFFFFFF, raw[0x30:0x40])
        self.fast = 0
        if self.incompat & INCOMPAT_FAST_COMMIT:
            self.fast = int.from_bytes(raw[0x54:0x58], "big") or 256
        self.end = maxlen - self.fast
        if not 1 <= self.first < self.end or self.start >= maxlen or (self.start and self.start < self.first):
            raise self._wrong("s_start", self.start)

    def checksum(self) -> int:
        return crc32c(0xFFFFFFFF, bytes(self.raw[:0xFC]) + b"\0\0\0\0" + bytes(self.raw[0x100:1024]))

    def place(self, block: int) -> int:
        """The device's block of a block of the journal."""
        run = self._run
        if not run.first <= block < run.first + run.count:
            for run in self.runs:
                if run.first <= block < run.first + run.count:
                    break
            else:
                raise self._wrong("block", block)
            self._run = run
        return run.place + block - run.first

    def store(self) -> None:
        """Write the journal's superblock; what changes of it, and its checksum, is in its first sector."""
        struct.pack_into(">2I", self.raw, 0x18, self.sequence, self.start)
        if self.sums:
            self.raw[0xFC:0x100] = self.checksum().to_bytes(4, "big")
        self.fs.node.write(self.place(0) * self.block_size, self.raw)

    def read(self, block: int) -> bytes:
        return self.fs.node.read(self.place(block) * self.block_size, self.block_size)

    def _wrong(self, field: str, value: object) -> CorruptError:
        return CorruptError(
            f"ext journal: {field} is {value}", layer="ext journal", field=field, value=value,
            hint="e2fsck can repair it",
        )  # fmt: skip

    @property
    def tag_size(self) -> int:
        if self.incompat & INCOMPAT_CSUM_V3:
            return 16
        size = 14 if self.incompat & INCOMPAT_CSUM_V2 else 12
        return size if self.incompat & INCOMPAT_64BIT else size - 4

    def tags(self, data: bytes) -> list[tuple[int, int, int]]:
        """(block, flags, checksum) of a descriptor block's tags."""
        found = []
        size = self.tag_size
        at = 12
        end = len(data) - (4 if self.sums else 0)
        high = self.incompat & INCOMPAT_64BIT
        while at + size <= end:
            if self.incompat & INCOMPAT_CSUM_V3:
                block, flags, upper, checksum = struct.unpack_from(">4I", data, at)
            else:
                block, checksum, flags = struct.unpack_from(">IHH", data, at)
                upper = int.from_bytes(data[at + 8 : at + 12], "big") if high else 0
            if high:
                block |= upper << 32
            found.append((block, flags, checksum))
            at += size
            if not flags & SAME_UUID:
                at += 16
            if flags & LAST:
                break
        return found

    def tail_ok(self, data: bytes) -> bool:
        """Is the checksum at the end of a descriptor or revoke block right?"""
        if not self.sums:
            return True
        return self.tail_sum(data) == int.from_bytes(data[-4:], "big")

    def tail_sum(self, data: bytes | bytearray) -> int:
        return crc32c(self.seed, bytes(data[:-4]) + b"\0\0\0\0")

    def commit_ok(self, data: bytes) -> bool:
        if not self.sums:
            return True
        stored = int.from_bytes(data[16:20], "big")
        return self.commit_sum(data) == stored

    def commit_sum(self, data: bytes | bytearray) -> int:
        return crc32c(self.seed, bytes(data[:16]) + b"\0\0\0\0" + bytes(data[20:]))

    def data_sum(self, sequence: int, data: bytes) -> int:
        """The checksum of a block of the log, as its tag has it (all 32 bits)."""
        return crc32c(crc32c(self.seed, sequence.to_bytes(4, "big")), data)

    def replay(self) -> dict[int, bytes]:
        """The blocks of the file system as the whole transactions in the log have them; sets ``sequence`` to the
        number after the last of them. Raises CorruptError when a block of a whole transaction is damaged."""
        if not self.start:
            return {}
        transactions, revoked = self._scan()
        found: dict[int, tuple[int, int, int, int]] = {}
        for sequence, blocks in transactions:
            for block, flags, checksum, at in blocks:
                since = revoked.get(block)
                if since is not None and since >= sequence:
                    continue
                found[block] = (at, flags, checksum, sequence)
        for block, since in revoked.items():
            if block in found and found[block][3] <= since:
                del found[block]
        out: dict[int, bytes] = {}
        for block, (at, flags, checksum, sequence) in found.items():
            if block >= self.fs.sb.blocks:
                raise self._wrong("blocknr", block)
            data = self.read(at)
            if self.sums:
                summed = self.data_sum(sequence, data)
                if not self.incompat & INCOMPAT_CSUM_V3:
                    summed &= 0xFFFF
                if summed != checksum:
                    raise self._wrong("checksum of block", f"{block}: {checksum:#x} instead of {summed:#x}")
            out[block] = MAGIC_BYTES + data[4:] if flags & ESCAPE else data
        self._refuse_fast_commit()
        return out

    def _scan(self) -> tuple[list[tuple[int, list[tuple[int, int, int, int]]]], dict[int, int]]:
        """The whole transactions: (sequence, [(block, flags, checksum, where in the log)]); and what was revoked."""
        at = self.start
        sequence = self.sequence
        transactions = []
        revoked: dict[int, int] = {}
        blocks: list[tuple[int, int, int, int]] = []
        revoking: set[int] = set()
        left = self.end - self.first
        # checksums of version 1: one for all of a transaction, in its commit block; with asynchronous commits nothing
        # else tells whether what is before that block was written
        whole = bool(self.compat & COMPAT_CHECKSUM) and not self.sums
        total = 0
        while left > 0:
            data = self.read(at)
            magic, kind, number = HEADER.unpack_from(data)
            if magic != MAGIC or number != sequence:
                break
            left -= 1
            at = self.after(at)
            if kind == DESCRIPTOR:
                if not self.tail_ok(data):
                    break
                if whole:
                    total = _sum_be(total, data)
                for block, flags, checksum in self.tags(data):
                    blocks.append((block, flags, checksum, at))
                    if whole and left > 0:
                        total = _sum_be(total, self.read(at))
                    at = self.after(at)
                    left -= 1
                if left < 0:
                    break
            elif kind == REVOKE:
                if not self.tail_ok(data):
                    break
                used = int.from_bytes(data[12:16], "big")
                size = 8 if self.incompat & INCOMPAT_64BIT else 4
                if used < 16 or used > len(data):
                    raise self._wrong("r_count", used)
                for place in range(16, used - size + 1, size):
                    revoking.add(int.from_bytes(data[place : place + size], "big"))
            elif kind == COMMIT:
                if not self.commit_ok(data):
                    break
                if whole and data[12:14] == b"\1\4" and int.from_bytes(data[16:20], "big") != _finish_be(total):
                    break
                total = 0
                transactions.append((sequence, blocks))
                for block in revoking:
                    revoked[block] = sequence
                blocks, revoking = [], set()
                sequence = sequence + 1 & 0xFFFFFFFF
            else:
                break
        self.sequence = sequence
        return transactions, revoked

    def after(self, block: int) -> int:
        return block + 1 if block + 1 < self.end else self.first

    def _refuse_fast_commit(self) -> None:
        if not self.fast:
            return
        # the block at the end of the log's ring is left out, as the kernel leaves it out
        data = self.read(self.end + 1)
        tag, length, features, transaction = struct.unpack_from("<HHII", data)
        if tag == _FC_HEAD and length == 8 and transaction == self.sequence and not features:
            raise FeatureError(
                "The journal holds fast commits (feature fast_commit), which are not replayed", layer="ext journal",
                hint="let e2fsck or a mount replay the journal",
            )  # fmt: skip
