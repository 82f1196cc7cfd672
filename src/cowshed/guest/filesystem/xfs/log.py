"""The log: where it begins and ends, its records, and the transactions in them (specification, ch. 15).

Positions and lengths are in basic blocks of 512 bytes from the start of the log, which is a ring. Every basic block
begins with the number of the cycle that wrote it: where the number falls, the newest record ends (the head). The
newest record names the oldest one that is still needed (the tail).
"""

from __future__ import annotations

import struct

from ....errors import CorruptError, FeatureError
from ...crc32c import crc32c
from .store import damaged

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from ....block.node import Node
    from .superblock import Superblock

RECORD_MAGIC = 0xFEEDBABE
TRANSACTION_MAGIC = 0x5452414E
BASIC = 512
CYCLES = 64  # cycle numbers a header keeps: it covers 32 KiB
SPAN = CYCLES * BASIC
MAX_RECORD = 256 * 1024
#: what may be in flight at once: eight buffers of the largest size
IN_FLIGHT = 8 * MAX_RECORD // BASIC
_BUFFERS = 8
_LAST = 32  # basic blocks before the head that are read for the last record of a clean log
MAX_ITEM = 1 << 24  # bytes of one item that are believed

START, COMMIT, CONTINUE, WAS_CONTINUED, END, UNMOUNT = 0x01, 0x02, 0x04, 0x08, 0x10, 0x20

_HEADER = struct.Struct(">IIIIQQIII")


class Record:
    """The header of one log record."""

    __slots__ = ("blocks", "crc", "cycle", "data_length", "form", "header_blocks", "lsn", "operations", "position",
                 "size", "tail", "uuid")  # fmt: skip

    def __init__(self, raw: bytes, position: int, where: int) -> None:
        magic, self.cycle, version, self.data_length, self.lsn, self.tail, _, _, self.operations = _HEADER.unpack_from(
            raw
        )
        self.crc = int.from_bytes(raw[32:36], "little")
        self.form = int.from_bytes(raw[300:304], "big")
        self.uuid = raw[304:320]
        size = self.size = int.from_bytes(raw[320:324], "big")
        self.position = position
        if magic != RECORD_MAGIC:
            raise damaged("log record", where, "magic", hex(magic), hex(RECORD_MAGIC))
        if not version & 3 or version & ~3:
            raise FeatureError(
                f"XFS log records of version {version} are not known here", layer="log record", offset=where + 8,
                field="h_version", value=version,
            )  # fmt: skip
        if self.data_length > MAX_RECORD:
            raise damaged("log record", where, "h_len", self.data_length, f"at most {MAX_RECORD}")
        self.header_blocks = 1
        if version & 2 and size > SPAN:
            if size > MAX_RECORD:
                raise damaged("log record", where, "h_size", size, f"at most {MAX_RECORD}")
            self.header_blocks = (size + SPAN - 1) // SPAN
        self.blocks = self.header_blocks + (self.data_length + BASIC - 1) // BASIC
        if self.lsn >> 32 != self.cycle or self.lsn & 0xFFFFFFFF != position:
            raise damaged("log record", where, "h_lsn", hex(self.lsn), hex(self.cycle << 32 | position))


class Transaction:
    """What was committed at once: ``items``, each a list of regions; ``lsn`` of the record that it began in.
    ``order`` is struct's sign for the byte order of the host that wrote it."""

    __slots__ = ("bytes", "header", "items", "lsn", "order", "wanted")

    def __init__(self, lsn: int, order: str) -> None:
        self.lsn = lsn
        self.order = order
        self.header = b""
        self.items: list[list[bytes]] = []
        self.wanted = 0
        self.bytes = 0

    def add(self, data: bytes, where: int) -> None:
        if len(self.header) < 16 and not self.items:
            if not self.header and int.from_bytes(data[:4], "little" if self.order == "<" else "big") not in (
                TRANSACTION_MAGIC,
            ):
                raise damaged("log transaction", where, "th_magic", data[:4].hex(), hex(TRANSACTION_MAGIC))
            self.header += data
            if len(self.header) > 16:
                raise damaged("log transaction", where, "length of header", len(self.header), 16)
            return
        if not self.items or len(self.items[-1]) == self.wanted:
            if len(data) < 4:
                raise damaged("log item", where, "length", len(data), "at least 4")
            self.wanted = int(struct.unpack_from(self.order + "H", data, 2)[0])
            if not 0 < self.wanted <= 4096:
                raise damaged("log item", where, "number of regions", self.wanted, "1 to 4096")
            self.items.append([data])
        else:
            self.items[-1].append(data)

    def go_on(self, data: bytes, where: int) -> None:
        """More of the region that the record before ended in."""
        if not self.items:
            self.add(data, where)
            return
        regions = self.items[-1]
        regions[-1] += data
        if len(regions[-1]) > MAX_ITEM:
            raise damaged("log item", where, "length", len(regions[-1]), f"at most {MAX_ITEM}")


class Log:
    """The log of a file system; reads only. CorruptError, FeatureError."""

    def __init__(self, node: Node, superblock: Superblock) -> None:
        self.node = node
        self.superblock = superblock
        start = superblock.block_offset(superblock.logstart, superblock.logblocks)
        if start < 0:
            raise damaged("superblock", 48, "logstart", hex(superblock.logstart), "blocks that exist")
        self.start = start
        self.length = superblock.logblocks << superblock.blocklog - 9
        self.head = 0
        self.tail = 0
        self.clean = True
        self.newest: Record | None = None
        self._find()

    # ---- reading

    def read(self, position: int, count: int) -> bytes:
        """Basic blocks, around the end of the ring."""
        first = min(count, self.length - position)
        raw = self.node.read(self.start + position * BASIC, first * BASIC)
        if first < count:
            raw += self.node.read(self.start, (count - first) * BASIC)
        return raw

    def where(self, position: int) -> int:
        """Bytes into the device."""
        return self.start + position % self.length * BASIC

    def _cycle(self, position: int) -> int:
        return cycle_of(self.node.read(self.start + position * BASIC, 8), 0)

    # ---- the ends

    def _find(self) -> None:
        length = self.length
        first, last = self._cycle(0), self._cycle(length - 1)
        if not first:
            # never written, or only its zeroes are left: nothing to replay, as the kernel sees it
            if last:
                raise damaged("log", self.start, "cycle of the first block", 0, "one or more")
            return
        if first == last:
            head, stop = length, last - 1
        else:
            low, high = 0, length - 1
            while high - low > 1:
                middle = (low + high) // 2
                if self._cycle(middle) == last:
                    high = middle
                else:
                    low = middle
            head, stop = high, last
        if self._is_unmounted(head):
            return
        head = self._before_holes(head, stop)
        newest = self._last_record(head)
        if newest is None:
            return
        if newest.blocks != (head - newest.position) % length and newest.position + newest.blocks != head:
            # the last one is not whole: it was being written when the machine stopped
            head = newest.position
            newest = self._last_record(head)
            if newest is None:
                return
        self._settle(head, newest)

    def _is_unmounted(self, head: int) -> bool:
        """Ends the record that says that the log is empty at ``head``? Nothing was in flight when it was written: no
        block before it can be missing, and none has to be looked at."""
        count = min(head, max(_LAST, min(self.superblock.logsunit, MAX_RECORD) // BASIC))
        raw = self.read(head - count, count)
        at = len(raw)
        while (at := raw.rfind(b"\xfe\xed\xba\xbe", 0, at + 3)) >= 0:
            if at % BASIC == 0:
                break
        else:
            return False
        position = head - count + at // BASIC
        newest = Record(raw[at : at + BASIC], position, self.where(position))
        if position + newest.blocks != head or not self._says_unmounted(newest):
            return False
        self.head = self.tail = head % self.length
        self.newest = newest
        return True

    def _says_unmounted(self, record: Record) -> bool:
        return record.operations == 1 and record.data_length >= 12 and bool(self._data(record)[9] & UNMOUNT)

    def _before_holes(self, head: int, stop: int) -> int:
        """Writes finish in any order: the head is before the first block of those in flight that was not written."""
        scan = min(IN_FLIGHT, self.length)
        if head < scan:
            begin = self.length - (scan - head)
            found = self._first_of_cycle(max(begin, head), self.length, stop - 1)
            if found >= 0:
                return found
        found = self._first_of_cycle(max(0, head - scan), head, stop)
        return head if found < 0 else found

    def _first_of_cycle(self, begin: int, end: int, cycle: int) -> int:
        if begin >= end:
            return -1
        raw = self.node.read(self.start + begin * BASIC, (end - begin) * BASIC)
        # the lowest byte of each block's first word tells most apart: the cycle's, or that of a header's magic
        wanted = (cycle & 0xFF, RECORD_MAGIC & 0xFF)
        for index, low in enumerate(raw[3::BASIC]):
            if low in wanted and cycle_of(raw, index * BASIC) == cycle:
                return begin + index
        return -1

    def _last_record(self, head: int) -> Record | None:
        """The record whose header is the nearest before ``head``."""
        step = IN_FLIGHT
        end, left = head or self.length, self.length
        while left > 0:
            begin = max(0, end - step, end - left)
            raw = self.node.read(self.start + begin * BASIC, (end - begin) * BASIC)
            at = len(raw)
            while True:
                at = raw.rfind(b"\xfe\xed\xba\xbe", 0, at + 3)
                if at < 0:
                    break
                if at % BASIC == 0:
                    return Record(raw[at : at + BASIC], begin + at // BASIC, self.where(begin + at // BASIC))
            left -= end - begin
            end = begin or self.length
        return None

    def _settle(self, head: int, newest: Record) -> None:
        """Take the newest record for the end unless it, or one of the last written before, is torn."""
        for _ in range(_BUFFERS + 1):
            self.head = head % self.length
            self.newest = newest
            if self._says_unmounted(newest):
                self.clean = True
                self.tail = self.head
                return
            self.clean = False
            tail = newest.tail
            self.tail = tail & 0xFFFFFFFF
            if self.tail >= self.length:
                raise damaged("log record", self.where(newest.position), "h_tail_lsn", hex(tail), "one in the log")
            torn = self._first_torn()
            if torn is None:
                return
            head = torn
            found = self._last_record(head)
            if found is None or found.position == newest.position:
                break
            newest = found
        raise damaged("log", self.start, "number of torn records", "more", _BUFFERS)

    def _first_torn(self) -> int | None:
        """Position of the first torn record of the last few; CorruptError when an older one is damaged."""
        positions = []
        torn = -1
        for record in self.headers():
            positions.append(record.position)
            if torn < 0 and not self._whole(record):
                torn = len(positions) - 1
        if torn < 0:
            return None
        if len(positions) - torn > _BUFFERS:
            raise damaged("log record", self.where(positions[torn]), "h_crc", "not that of its bytes")
        return positions[torn]

    def headers(self) -> Iterator[Record]:
        """The records from tail to head."""
        position = self.tail
        done = 0
        distance = (self.head - self.tail) % self.length or self.length
        while done < distance:
            record = Record(self.read(position, 1), position, self.where(position))
            if record.uuid != self.superblock.uuid and record.uuid != self.superblock.metadata_uuid:
                raise damaged(
                    "log record", self.where(position), "h_fs_uuid", record.uuid.hex(), self.superblock.uuid.hex()
                )
            if done + record.blocks > distance:
                raise damaged("log record", self.where(position), "h_len", record.data_length, "before the head")
            yield record
            done += record.blocks
            position = (position + record.blocks) % self.length

    def _whole(self, record: Record) -> bool:
        """Is the checksum right? Version 4 does not insist on one."""
        if not self.superblock.v5:
            return True
        raw = self.read(record.position, record.blocks)
        data = raw[record.header_blocks * BASIC :][: record.data_length]
        spans = (record.data_length + SPAN - 1) // SPAN
        # the header's structure is four bytes longer on 64-bit machines
        for size in (328, 324):
            crc = crc32c(raw[36:size], crc32c(bytes(4), crc32c(raw[:32])))
            for index in range(1, spans):
                crc = crc32c(raw[index * BASIC : index * BASIC + 4 + CYCLES * 4], crc)
            if crc32c(data, crc) == record.crc:
                return True
        return False

    # ---- contents

    def _data(self, record: Record) -> bytes:
        """A record's data; the first four bytes of each block, which hold its cycle, are put back from the headers."""
        raw = self.read(record.position, record.blocks)
        data = bytearray(raw[record.header_blocks * BASIC :])
        for index in range(len(data) // BASIC):
            span, inside = divmod(index, CYCLES)
            if span >= record.header_blocks:
                break
            at = 44 + inside * 4 if span == 0 else span * BASIC + 4 + inside * 4
            data[index * BASIC : index * BASIC + 4] = raw[at : at + 4]
        return bytes(data[: record.data_length])

    def transactions(self) -> Iterator[Transaction]:
        """The committed transactions, in the order of their commits."""
        open_ones: dict[int, Transaction] = {}
        for record in self.headers():
            if record.form not in (1, 2):
                raise FeatureError(
                    f"XFS log records of format {record.form} are not known here", layer="log record",
                    offset=self.where(record.position), field="h_fmt", value=record.form,
                )  # fmt: skip
            order = "<" if record.form == 1 else ">"
            data = self._data(record)
            where = self.where(record.position)
            at = 0
            for _ in range(record.operations):
                if at + 12 > len(data):
                    raise damaged("log record", where, "h_num_logops", record.operations, "what fits")
                tid, length, client, flags = struct.unpack_from(">IIBB", data, at)
                at += 12
                if client not in (0x69, 0xAA):
                    raise damaged("log operation", where, "oh_clientid", hex(client), "0x69 or 0xaa")
                if at + length > len(data):
                    raise damaged("log operation", where, "oh_len", length, f"at most {len(data) - at}")
                region = data[at : at + length]
                at += length
                if flags & START:
                    open_ones[tid] = Transaction(record.lsn, order)
                    continue
                transaction = open_ones.get(tid)
                if transaction is None:
                    continue  # it began before the tail: what it changed is on the disk
                if flags & COMMIT:
                    del open_ones[tid]
                    yield transaction
                elif flags & UNMOUNT:
                    del open_ones[tid]
                elif not region:
                    continue
                elif flags & WAS_CONTINUED:
                    transaction.go_on(region, where)
                else:
                    transaction.add(region, where)


def cycle_of(raw: bytes, at: int) -> int:
    """The cycle that wrote a basic block: its first word, or the second of a record's header."""
    value = int.from_bytes(raw[at : at + 4], "big")
    return value if value != RECORD_MAGIC else int.from_bytes(raw[at + 4 : at + 8], "big")


def refuse_unfinished(what: str) -> CorruptError:
    """The error for an operation that only the kernel can finish."""
    return CorruptError(
        f"XFS log: {what} was not finished", layer="log", hint="mount the file system once to finish it"
    )
