"""What a dirty log says, laid over the device in memory (specification, ch. 15, "log recovery").

Two passes, as the kernel does it: the first collects the buffers whose logging was cancelled (their blocks were freed
and may hold file data by now), the second applies buffers, new inode chunks and inodes, each only where version 5's
sequence numbers say that the device's copy is older. Quota records are not applied, nobody reads them here.
"""

from __future__ import annotations

import struct

from ....errors import FeatureError
from .fork import Fork
from .inode import CORE_V2, CORE_V3, FLAG2_BIGTIME
from .log import refuse_unfinished
from .space import has_copies
from .stamps import DIRECTORY_MAGICS, KIND_SHIFT, PLAIN_KINDS, stamp_of
from .store import SECTOR, damaged

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from .log import Log, Transaction
    from .store import Store

EFI, EFD, IUNLINK, INODE, BUFFER, DQUOT, QUOTAOFF, ICREATE = (
    0x1236,
    0x1237,
    0x1238,
    0x123B,
    0x123C,
    0x123D,
    0x123E,
    0x123F,
)
RUI, RUD, CUI, CUD, BUI, BUD, ATTRI, ATTRD, XMI, XMD = range(0x1240, 0x124A)
#: what was promised -> what it is called; the number that follows stands for "done"
PROMISES = {
    EFI: "blocks to free", RUI: "reverse mappings to update", CUI: "counts of shared blocks to update",
    BUI: "mappings to make", ATTRI: "attributes to change", XMI: "files to exchange",
}  # fmt: skip
_QUOTAS = frozenset((DQUOT, QUOTAOFF))
LOG_INCOMPAT_XATTRS = 0x1
# flags of a buffer's item
INODE_BUFFER, CANCEL = 0x1, 0x2
QUOTA_BUFFERS = 0x4 | 0x8 | 0x10
CHUNK = 128  # bytes a bit of a buffer's map stands for
MAX_BUFFER = 65536
_LEAST_LIMIT = 1 << 17
_MOST_LIMIT = 1 << 22
# fields of an inode's item
DATA_LOCAL, DATA_EXTENTS, DATA_ROOT, DEVICE = 0x2, 0x4, 0x8, 0x10
ATTR_LOCAL, ATTR_EXTENTS, ATTR_ROOT = 0x40, 0x80, 0x100
_DATA_FORK = DATA_LOCAL | DATA_EXTENTS | DATA_ROOT
_ATTR_FORK = ATTR_LOCAL | ATTR_EXTENTS | ATTR_ROOT


class Intent:
    """A mapping that was promised and not made: see `Fork.insert_runs`."""

    __slots__ = ("attributes", "block", "count", "ino", "start", "unwritten")

    def __init__(self, ino: int, block: int | None, start: int, count: int, flags: int) -> None:
        self.ino = ino
        self.block = block
        self.start = start
        self.count = count
        self.attributes = bool(flags >> 31 & 1)
        self.unwritten = bool(flags >> 30 & 1)

    def apply(self, fork: Fork) -> None:
        fork.insert_runs(self.start, self.start + self.count, self.block, self.unwritten)


class Replay:
    """One recovery. ``intents``: mappings to make yet, by inode, in order; ``structures``: offset -> length of what
    was replayed; ``unfinished``: kinds of promises that are not kept yet, in words; ``whole`` is False when something
    was not replayed because nobody reads it here."""

    def __init__(self, store: Store, log: Log) -> None:
        self.store = store
        self.log = log
        self.superblock = store.superblock
        self.intents: dict[int, list[Intent]] = {}
        self.structures: dict[int, int] = {}
        self.unfinished: list[str] = []
        self.whole = True
        self._cancelled: dict[tuple[int, int], int] = {}
        #: sectors that a log may change: no real one comes near
        self._limit = min(max(_LEAST_LIMIT, 4 * log.length), _MOST_LIMIT)
        self._touched: set[int] = set()  # offsets of buffers and inodes that were applied before
        #: (kind of intent, id) -> (regions, byte order)
        self._pending: dict[tuple[int, int], tuple[list[bytes], str]] = {}

    def run(self) -> None:
        """Raises CorruptError for a log that makes no sense, FeatureError for items that are not known."""
        unknown = self.superblock.features_log_incompat & ~LOG_INCOMPAT_XATTRS
        if unknown:
            raise FeatureError(
                "XFS log needs features that are not known here", layer="superblock", offset=220,
                field="features_log_incompat", value=hex(unknown),
            )  # fmt: skip
        for transaction in self.log.transactions():
            for item, regions in _items(transaction):
                if item == BUFFER:
                    buffer = _Buffer(transaction, regions, self)
                    if buffer.flags & CANCEL:
                        key = (buffer.block, buffer.length)
                        self._cancelled[key] = self._cancelled.get(key, 0) + 1
        for transaction in self.log.transactions():
            self._commit(transaction)
        self._finish()

    def _commit(self, transaction: Transaction) -> None:
        # buffers and new chunks come first: the inodes go into them
        later: list[tuple[int, list[bytes]]] = []
        cancels: list[_Buffer] = []
        lists: list[_Buffer] = []
        order = transaction.order
        for item, regions in _items(transaction):
            if item == BUFFER:
                buffer = _Buffer(transaction, regions, self)
                if buffer.flags & CANCEL:
                    cancels.append(buffer)
                elif buffer.flags & INODE_BUFFER:
                    lists.append(buffer)
                else:
                    self._buffer(buffer, transaction.lsn)
            elif item == ICREATE:
                self._create(regions[0])
            else:
                later.append((item, regions))
        for item, regions in later:
            if item == INODE:
                self._inode(regions, transaction)
            elif item in PROMISES:
                self._pending[item, _ident(regions, order, 8)] = regions, order
            elif item - 1 in PROMISES:
                self._pending.pop((item - 1, _ident(regions, order, 8)), None)
            elif item in _QUOTAS:
                self.whole = False
            elif item != IUNLINK:
                raise FeatureError(
                    f"XFS log items of type {item:#x} are not known here", layer="log item", field="type",
                    value=hex(item),
                )  # fmt: skip
        for buffer in lists:
            self._unlinked(buffer)
        for buffer in cancels:
            key = (buffer.block, buffer.length)
            left = self._cancelled.get(key, 0)
            if left > 1:
                self._cancelled[key] = left - 1
            else:
                self._cancelled.pop(key, None)

    # ---- buffers

    def _buffer(self, buffer: _Buffer, lsn: int) -> None:
        if (buffer.block, buffer.length) in self._cancelled:
            return
        if buffer.flags & QUOTA_BUFFERS:
            self.whole = False
            return
        offset = buffer.block * SECTOR
        raw = self.store.read(offset, buffer.length * SECTOR)
        plain = buffer.flags >> KIND_SHIFT in PLAIN_KINDS
        if not plain and offset not in self._touched and self.superblock.v5 and self._is_newer(raw, lsn):
            return
        changed = bytearray(raw)
        for at, data in buffer.pieces():
            if at + len(data) > len(changed):
                raise damaged("log item of a buffer", offset, "map", at + len(data), f"at most {len(changed)}")
            changed[at : at + len(data)] = data
            if plain:
                first, end = (offset + at) // SECTOR, (offset + at + len(data) + SECTOR - 1) // SECTOR
                self.store.file_sectors.update(range(first, end))
        self._touched.add(offset)
        self._lay(offset, raw, changed)
        if not plain and self.superblock.v5:
            self._note(offset, changed)

    def _note(self, offset: int, raw: bytearray) -> None:
        """A structure was replayed: it is to get its checksum when it is written."""
        superblock = self.superblock
        length = len(raw)
        stamp = stamp_of(raw)
        if stamp is None:
            self.whole = False
        elif raw[:2] == b"IN":
            for at in range(0, length, superblock.inodesize):
                self.structures[offset + at] = superblock.inodesize
        else:
            # a directory's block of several parts has one checksum and an item for each part
            of_directory = bytes(raw[:4]) in DIRECTORY_MAGICS or bytes(raw[8:10]) in (b"\x3d\xf1", b"\x3d\xff")
            if (of_directory and length != superblock.dirblock) or (
                superblock.dirblklog and raw[8:10] == b"\x3e\xbe" and length != superblock.dirblock
            ):
                self.whole = False
            self.structures[offset] = length

    def _unlinked(self, buffer: _Buffer) -> None:
        """Of inodes, a buffer holds but the list of those that no name leads to."""
        if (buffer.block, buffer.length) in self._cancelled:
            return
        superblock = self.superblock
        offset = buffer.block * SECTOR
        size = superblock.inodesize
        raw = self.store.read(offset, buffer.length * SECTOR)
        changed = bytearray(raw)
        for at, data in buffer.pieces():
            for start in range(at // size * size, min(at + len(data), len(raw)), size):
                field = start + 96
                if at <= field and field + 4 <= at + len(data) and field + 4 <= len(raw):
                    changed[field : field + 4] = data[field - at : field - at + 4]
                    if changed[field : field + 4] != raw[field : field + 4]:
                        self.structures[offset + start] = size
        self._lay(offset, raw, changed)

    def _is_newer(self, raw: bytes, lsn: int) -> bool:
        """Does the device's copy hold what the log would bring, or more?"""
        stamp = stamp_of(raw)
        if stamp is None or stamp.lsn_at < 0 or raw[:2] == b"IN":
            return False
        uuid = raw[stamp.uuid_at : stamp.uuid_at + 16]
        wanted = self.superblock.uuid if raw[:4] == b"XFSB" else self.superblock.metadata_uuid
        found = int.from_bytes(raw[stamp.lsn_at : stamp.lsn_at + 8], "big")
        return uuid == wanted and found not in (0, (1 << 64) - 1) and found >= lsn

    def _create(self, raw: bytes) -> None:
        """A chunk of new inodes, free as yet."""
        if len(raw) < 28:
            raise damaged("log item of new inodes", self.log.start, "length", len(raw), 28)
        group, block, count, size, length, generation = struct.unpack_from(">6I", raw, 4)
        superblock = self.superblock
        offset = superblock.block_offset(group << superblock.agblklog | block, length)
        if (
            offset < 0
            or size != superblock.inodesize
            or count != length << superblock.inopblog
            or count > max(64, superblock.inopblock)
        ):
            raise damaged("log item of new inodes", self.log.start, "blocks", f"{group}/{block}+{length}", "a chunk")
        first = (group << superblock.agblklog | block) << superblock.inopblog
        # the buffers of a cancelled chunk may have any of the sizes that the kernel reads inodes in
        sector = offset // SECTOR
        whole = length << superblock.blocklog - 9
        if any(sector <= place < sector + whole for place, _ in self._cancelled):
            return
        chunk = bytearray()
        for index in range(count):
            inode = bytearray(size)
            inode[0:2] = b"IN"
            inode[4] = 3 if superblock.v5 else 2
            inode[92:96] = generation.to_bytes(4, "big")
            inode[96:100] = b"\xff" * 4
            if superblock.v5:
                inode[152:160] = (first + index).to_bytes(8, "big")
                inode[160:176] = superblock.metadata_uuid
            chunk += inode
        self._lay(offset, b"", chunk)
        self.structures.update(dict.fromkeys(range(offset, offset + len(chunk), size), size))
        self._touched.update(range(offset, offset + len(chunk), size))

    # ---- inodes

    def _inode(self, regions: list[bytes], transaction: Transaction) -> None:
        order = transaction.order
        head = regions[0]
        if len(head) == 56:
            fields, _, _, _, ino, device, block, length, inside = struct.unpack_from(order + "IHHIQI12xqii", head, 4)
        elif len(head) == 52:  # written by a 32-bit machine
            fields, _, _, ino, device, block, length, inside = struct.unpack_from(order + "IHHQI12xqii", head, 4)
        else:
            raise damaged("log item of an inode", self.log.start, "length", len(head), 56)
        what = f"log item of inode {ino}"
        superblock = self.superblock
        if (block, length) in self._cancelled:
            return
        offset = superblock.inode_offset(ino)
        size = superblock.inodesize
        if offset < 0 or offset != block * SECTOR + inside:
            raise damaged(what, self.log.start, "ilf_blkno", block, f"{offset // SECTOR}, where the inode is")
        if len(regions) < 2:
            raise damaged(what, self.log.start, "number of regions", len(regions), "2 or more")
        core = regions[1]
        if len(core) not in (CORE_V2 - 4, CORE_V2, CORE_V3):
            raise damaged(what, self.log.start, "length of the core", len(core), f"{CORE_V2 - 4} or {CORE_V3}")
        raw = bytearray(self.store.read(offset, size))
        if raw[:2] != b"IN":
            raise damaged(f"inode {ino}", offset, "magic", raw[:2].hex(), "494e")
        if offset not in self._touched and self._is_later(bytes(raw), core, transaction, what):
            return
        self._touched.add(offset)
        kept = raw[96:100]
        disk = _disk_core(core, order, what, self.log.start)
        raw[: len(disk)] = disk
        raw[96:100] = kept
        start = CORE_V3 if raw[4] == 3 else CORE_V2
        split = raw[82] << 3
        data_room = min(split or size, size - start)
        if fields & DEVICE:
            raw[start : start + 4] = device.to_bytes(4, "big")
        index = 2
        for mine, root, at, room in (
            (fields & _DATA_FORK, fields & DATA_ROOT, start, data_room),
            (fields & _ATTR_FORK, fields & ATTR_ROOT, start + split, size - start - split if split else 0),
        ):
            if not mine:
                continue
            if index >= len(regions):
                raise damaged(what, self.log.start, "number of regions", len(regions), f"more than {index}")
            fork = regions[index]
            index += 1
            if root:
                fork = self._tree_root(fork, room, what)
            if len(fork) > room:
                raise damaged(what, self.log.start, "length of a fork", len(fork), f"at most {room}")
            raw[at : at + len(fork)] = fork
        self._lay_inode(offset, raw)

    def _is_later(self, raw: bytes, core: bytes, transaction: Transaction, what: str) -> bool:
        """Was the device's inode written after this item?"""
        if raw[4] >= 3:
            found = int.from_bytes(raw[112:120], "big")
            return found not in (0, (1 << 64) - 1) and found > transaction.lsn
        # before version 5, each write counted in a number of 16 bits
        written = int.from_bytes(raw[30:32], "big")
        logged = struct.unpack_from(transaction.order + "H", core, 30)[0]
        return bool(logged < written and not (written == 0xFFFF and logged < 0x7FFF))

    def _tree_root(self, raw: bytes, room: int, what: str) -> bytes:
        """The root of an extent tree is logged as a whole block, and kept in the inode without its header."""
        header = 72 if self.superblock.v5 else 24
        if len(raw) < header + 16:
            raise damaged(what, self.log.start, "length of a tree's root", len(raw), f"at least {header + 16}")
        count = int.from_bytes(raw[6:8], "big")
        logged = (len(raw) - header) // 16
        fits = (room - 4) // 16
        if count > min(logged, fits):
            raise damaged(what, self.log.start, "number of records in a tree's root", count, min(logged, fits))
        root = bytearray(4 + fits * 16)
        root[0:4] = raw[4:8]
        root[4 : 4 + count * 8] = raw[header : header + count * 8]
        pointers = header + logged * 8
        root[4 + fits * 8 : 4 + fits * 8 + count * 8] = raw[pointers : pointers + count * 8]
        return bytes(root)

    def _lay_inode(self, offset: int, raw: bytearray) -> None:
        first = offset // SECTOR * SECTOR
        end = (offset + len(raw) + SECTOR - 1) // SECTOR * SECTOR
        old = self.store.read(first, end - first)
        sectors = bytearray(old)
        sectors[offset - first : offset - first + len(raw)] = raw
        self._lay(first, old, sectors)
        self.structures[offset] = len(raw)

    def _lay(self, offset: int, old: bytes, new: bytearray) -> None:
        """The sectors that are others than before; a few bytes in the log can speak of many on the device."""
        for at in range(0, len(new), SECTOR):
            piece = new[at : at + SECTOR]
            if old[at : at + SECTOR] != piece:
                self.store.lay(offset + at, piece, replayed=True)
        if len(self.store.overlay) > self._limit:
            raise damaged("log", self.log.start, "number of changed sectors", "more", self._limit)

    # ---- the end

    def _finish(self) -> None:
        for (item, _), (regions, order) in self._pending.items():
            if PROMISES[item] not in self.unfinished:
                self.unfinished.append(PROMISES[item])
            if item == XMI:
                raise refuse_unfinished("an exchange of two files' contents")
            if item == ATTRI and self.superblock.features_log_incompat & LOG_INCOMPAT_XATTRS:
                raise refuse_unfinished("a change of extended attributes")
            if item == BUI:
                self._mappings(regions[0], order)

    def remains(self) -> list[str]:
        """What is left to the kernel, in words. CorruptError where a group's headers or trees are damaged: reading
        files does not need them."""
        found = list(self.unfinished)
        if self._has_unlinked():
            found.append("removed files to free")
        if has_copies(self.store):
            found.append("blocks for copies on write to free")
        if not self.whole:
            found.append("quotas or blocks of a kind that is not known here")
        return found

    def _mappings(self, raw: bytes, order: str) -> None:
        count = struct.unpack_from(order + "I", raw, 4)[0]
        if len(raw) < 16 + count * 32:
            raise damaged("log item of a mapping", self.log.start, "bui_nextents", count, (len(raw) - 16) // 32)
        for index in range(count):
            ino, block, start, length, flags = struct.unpack_from(order + "QQQII", raw, 16 + index * 32)
            if flags & 0xFF not in (1, 2) or self.superblock.block_offset(block, max(1, length)) < 0:
                raise damaged("log item of a mapping", self.log.start, "me_flags", hex(flags), "1 or 2")
            intent = Intent(ino, block if flags & 0xFF == 1 else None, start, length, flags)
            self.intents.setdefault(ino, []).append(intent)

    def _has_unlinked(self) -> bool:
        """Is a file without a name kept until it is closed, in any group?"""
        superblock = self.superblock
        for group in range(superblock.agcount):
            offset = (group * superblock.agblocks << superblock.blocklog) + 2 * superblock.sectsize
            if self.store.read(offset + 40, 256) != b"\xff" * 256:
                return True
        return False


class _Buffer:
    """A buffer's item: ``block`` and ``length`` in sectors of 512 bytes."""

    __slots__ = ("bitmap", "block", "flags", "length", "regions")

    def __init__(self, transaction: Transaction, regions: list[bytes], replay: Replay) -> None:
        head = regions[0]
        at = replay.log.start
        if len(head) < 24:
            raise damaged("log item of a buffer", at, "length", len(head), "at least 24")
        order = transaction.order
        self.flags, self.length, self.block, words = struct.unpack_from(order + "HHqI", head, 4)
        if not 0 < self.length <= MAX_BUFFER // SECTOR or len(head) < 20 + words * 4:
            raise damaged("log item of a buffer", at, "blf_len", self.length, f"1 to {MAX_BUFFER // SECTOR}")
        if not 0 <= self.block <= (replay.superblock.size >> 9) - self.length:
            raise damaged("log item of a buffer", at, "blf_blkno", self.block, "one of the device")
        bits = 0
        for index, word in enumerate(struct.unpack_from(f"{order}{words}I", head, 20)):
            bits |= word << index * 32
        self.bitmap = bits
        self.regions = regions

    def pieces(self) -> Iterator[tuple[int, bytes]]:
        """(offset in the buffer, bytes): each region is a run of set bits, shorter when the writer cut it."""
        bits = self.bitmap
        bit = 0
        for region in self.regions[1:]:
            rest = bits >> bit
            if not rest:
                return
            bit += (rest & -rest).bit_length() - 1
            rest = bits >> bit
            run = (~rest & rest + 1).bit_length() - 1
            run = min(run, len(region) // CHUNK)
            yield bit * CHUNK, region[: run * CHUNK]
            bit += max(run, 1)


def _items(transaction: Transaction) -> Iterator[tuple[int, list[bytes]]]:
    for regions in transaction.items:
        yield struct.unpack_from(transaction.order + "H", regions[0])[0], regions


def _ident(regions: list[bytes], order: str, at: int) -> int:
    if len(regions[0]) < at + 8:
        raise damaged("log item", 0, "length", len(regions[0]), f"at least {at + 8}")
    return int(struct.unpack_from(order + "Q", regions[0], at)[0])


def _disk_core(core: bytes, order: str, what: str, where: int) -> bytes:
    """An inode's core as the log has it, in its host's byte order, turned into the device's."""
    if struct.unpack_from(order + "H", core)[0] != 0x494E:
        raise damaged(what, where, "di_magic", core[:2].hex(), "494e")
    v3 = core[4] == 3
    if v3 and len(core) < CORE_V3:
        raise damaged(what, where, "length of the core", len(core), CORE_V3)
    flags2 = struct.unpack_from(order + "Q", core, 120)[0] if v3 else 0
    times = "QQQ" if flags2 & FLAG2_BIGTIME else "iiiiii"
    form = "HHBBHIIIHH" + ("Q" if v3 else "6sH") + times + "QQIIHBBIHHI"
    if v3:
        form += "IIQQQI12s" + ("Q" if flags2 & FLAG2_BIGTIME else "ii") + "Q16s"
    return struct.pack(">" + form, *struct.unpack_from(order + form, core))
