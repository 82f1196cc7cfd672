"""Writing to the log: transactions behind its head, and the record that says that nothing is left to replay
(specification, ch. 15).

A record is seen whole or not at all: each of its basic blocks carries the number of the cycle that wrote it, so a
block that a cut left out shows the number of the cycle before, and whoever looks for the head stops in front of it.
"""

from __future__ import annotations

import errno
import os
import struct

from ...crc32c import crc32c
from ..base import GuestError
from .log import (
    BASIC,
    COMMIT,
    CYCLES,
    IN_FLIGHT,
    MAX_RECORD,
    RECORD_MAGIC,
    SPAN,
    START,
    TRANSACTION_MAGIC,
    UNMOUNT,
    cycle_of,
)
from .stamps import KIND_SHIFT
from .superblock import VERSION_LOGV2

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .log import Log

BUFFER = 0x123C
CHUNK = 128  # bytes a bit of a buffer's map stands for
_TRANSACTION, _LOG = 0x69, 0xAA  # who wrote an operation
_CHECKPOINT = 42  # the type of transaction that the kernel writes
_PIECE = 2048  # bytes of a region: they are not cut in two by the end of a record
_UNMOUNT_MAGIC = 0x556E
_CRC_SIZE = 328  # of the header, as 64-bit machines know it


class Journal:
    """The log's head as a place to write to. GuestError EROFS when this log is not one to go on with.

    ``lsn``: the sequence number that the next transaction gets.
    """

    __slots__ = (
        "_cleared", "_form", "_header_blocks", "_order", "_previous", "_size", "_unit", "_version", "cycle", "log",
        "position", "tail",
    )  # fmt: skip

    def __init__(self, log: Log) -> None:
        newest = log.newest
        hint = "start the guest or mount the file system once before changing it"
        if newest is None:
            raise GuestError(errno.EROFS, "the log of the XFS file system was wiped", hint=hint)
        end = newest.position + newest.blocks
        if end % log.length != log.head or newest.form not in (1, 2):
            raise GuestError(errno.EROFS, "the head of the XFS log is not where its newest record ends", hint=hint)
        superblock = log.superblock
        self.log = log
        self.cycle = newest.cycle + (end >= log.length)
        self.position = log.head
        self._form = newest.form
        self._order = "<" if newest.form == 1 else ">"
        self._previous = newest.position
        self._version = 2 if superblock.versionnum & VERSION_LOGV2 else 1
        # each record is padded to the log's stripe unit
        self._unit = superblock.logsunit if self._version == 2 and superblock.logsunit > 1 else BASIC
        if self._unit % BASIC or self._unit > MAX_RECORD:
            raise GuestError(errno.EROFS, f"the log's stripe unit is {self._unit}", hint=hint)
        #: sequence number of the oldest record that is needed; 0 when none is
        self.tail = 0
        self._size = max(SPAN, self._unit)
        if not log.clean:
            self.tail = newest.tail
            # a recovery takes the number of header blocks of all records from the oldest one
            self._size = next(iter(log.headers())).size
            if self._version == 2 and not SPAN <= self._size <= MAX_RECORD:
                raise GuestError(errno.EROFS, f"the log's records are of {self._size} bytes", hint=hint)
            if self._version == 1:
                self._size = min(max(self._size, 1 << 14), SPAN)
        self._header_blocks = -(-self._size // SPAN) if self._version == 2 else 1
        self._cleared = False

    @property
    def lsn(self) -> int:
        return int(self.cycle << 32 | self.position)

    @property
    def free(self) -> int:
        """Basic blocks between head and tail."""
        if not self.tail:
            return self.log.length
        return ((self.tail & 0xFFFFFFFF) - self.position) % self.log.length

    # ---- transactions

    def needed(self, items: list[list[bytes]]) -> int:
        """Basic blocks that a transaction takes at most."""
        total = sum(12 + len(region) for regions in items for region in regions) + 64
        room = self._room()
        # what does not fit any more leaves a rest in each record
        records = total // (room - _PIECE - 12) + 1
        most = self._header_blocks * BASIC + room
        return records * ((most + self._unit - 1) // self._unit * self._unit // BASIC)

    def commit(self, items: list[list[bytes]]) -> None:
        """Write one transaction; when this returns, it is on the disk. Each item is a list of regions."""
        self._clear_ahead()
        number = int.from_bytes(os.urandom(4), "big") | 1
        header = struct.pack(self._order + "IIII", TRANSACTION_MAGIC, _CHECKPOINT, number, len(items))
        operations = [(START, b""), (0, header)]
        operations += [(0, region) for regions in items for region in regions]
        operations.append((COMMIT, b""))
        tail = self.tail or self.lsn
        room = self._room()
        in_flight = IN_FLIGHT // 4 if self._version == 2 else 128
        parts: list[bytes] = []
        count = length = written = 0
        for flags, region in operations:
            if length + 12 + len(region) > room:
                written += self._write(b"".join(parts), count, tail)
                parts, count, length = [], 0, 0
                if written > in_flight:
                    # a search for the head looks no further back for blocks that are missing
                    self.log.node.flush()
                    written = 0
            parts += (struct.pack(">IIBBH", number, len(region), _TRANSACTION, flags, 0), region)
            count += 1
            length += 12 + len(region)
        self._write(b"".join(parts), count, tail)
        self.log.node.flush()
        self.tail = tail

    def unmount(self) -> None:
        """Say that the log is empty: everything in it is on the disk. Flushes."""
        number = int.from_bytes(os.urandom(4), "big") | 1
        region = struct.pack(self._order + "HHI", _UNMOUNT_MAGIC, 0, 0)
        operation = struct.pack(">IIBBH", number, len(region), _LOG, UNMOUNT, 0)
        self._write(operation + region, 1, self.lsn)
        self.log.node.flush()
        self.tail = 0

    # ---- records

    def _room(self) -> int:
        """Bytes of operations in a record."""
        return min(self._size, MAX_RECORD) - self._header_blocks * BASIC

    def _write(self, payload: bytes, operations: int, tail: int) -> int:
        """One record; returns its basic blocks. It is not flushed."""
        header_blocks, length = self._header_blocks, self.log.length
        total = (header_blocks * BASIC + len(payload) + self._unit - 1) // self._unit * self._unit
        data = bytearray(payload.ljust(total - header_blocks * BASIC, b"\0"))
        head = bytearray(header_blocks * BASIC)
        position, cycle = self.position, self.cycle

        def number(block: int) -> bytes:
            return int(cycle + (position + block >= length)).to_bytes(4, "big")

        struct.pack_into(
            ">IIIIQQIII", head, 0, RECORD_MAGIC, cycle, self._version,
            len(data) if self._version == 2 else len(payload), self.lsn, tail, 0, self._previous, operations,
        )  # fmt: skip
        struct.pack_into(">I16sI", head, 300, self._form, self.log.superblock.uuid, self._size)
        for span in range(1, header_blocks):
            head[span * BASIC : span * BASIC + 4] = number(span)
        for index in range(len(data) // BASIC):
            span, inside = divmod(index, CYCLES)
            at = 44 + inside * 4 if span == 0 else span * BASIC + 4 + inside * 4
            head[at : at + 4] = data[index * BASIC : index * BASIC + 4]
            data[index * BASIC : index * BASIC + 4] = number(header_blocks + index)
        covered = len(data) if self._version == 2 else len(payload)
        crc = crc32c(head[:_CRC_SIZE])
        if self._version == 2:
            for span in range(1, -(-covered // SPAN)):
                crc = crc32c(head[span * BASIC : span * BASIC + 4 + CYCLES * 4], crc)
        crc = crc32c(data[:covered], crc)
        head[32:36] = crc.to_bytes(4, "little")
        self._put(position, bytes(head) + bytes(data))
        self._previous = position
        end = position + total // BASIC
        self.cycle += end >= length
        self.position = end % length
        return total // BASIC

    def _put(self, position: int, raw: bytes) -> None:
        """Basic blocks, around the end of the ring."""
        log = self.log
        first = (log.length - position) * BASIC
        log.node.write(log.start + position * BASIC, raw[:first])
        if len(raw) > first:
            log.node.write(log.start, raw[first:])

    def _clear_ahead(self) -> None:
        """Blocks ahead of the head may come from writes that overtook one that a cut lost: they carry this cycle, and
        would be taken for what follows on the next record."""
        if self._cleared:
            return
        self._cleared = True
        log = self.log
        count = min(IN_FLIGHT, self.free, log.length)
        raw = log.read(self.position, count)
        stale = [
            index
            for index in range(count)
            if cycle_of(raw, index * BASIC) >= self.cycle + (self.position + index >= log.length)
        ]
        for index in stale:
            place = self.position + index
            cycle = self.cycle - 1 + (place >= log.length)
            block = bytearray(BASIC)
            struct.pack_into(
                ">IIIIQQ", block, 0, RECORD_MAGIC, cycle, self._version, 0, cycle << 32 | place % log.length,
                self.tail or self.lsn,
            )  # fmt: skip
            struct.pack_into(">I16s", block, 300, self._form, log.superblock.uuid)
            self._put(place % log.length, bytes(block))
        if stale:
            log.node.flush()

    # ---- items

    def buffer(self, offset: int, length: int, kind: int, pieces: list[tuple[int, bytes]]) -> list[bytes]:
        """The regions of a buffer's item. ``offset`` and ``length`` in bytes of the buffer; ``pieces``: (offset in
        it, bytes), ascending, in whole chunks."""
        bits = 0
        regions = []
        for at, data in pieces:
            if at % CHUNK or len(data) % CHUNK or at + len(data) > length:
                raise ValueError("whole chunks of the buffer only")
            bits |= (1 << len(data) // CHUNK) - 1 << at // CHUNK
            regions += [data[start : start + _PIECE] for start in range(0, len(data), _PIECE)]
        words = (length + CHUNK * 32 - 1) // (CHUNK * 32)
        head = struct.pack(
            f"{self._order}HHHHqI{words}I", BUFFER, len(regions) + 1, kind << KIND_SHIFT, length // BASIC,
            offset // BASIC, words, *(bits >> index * 32 & 0xFFFFFFFF for index in range(words)),
        )  # fmt: skip
        return [head, *regions]
