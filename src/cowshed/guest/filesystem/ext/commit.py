"""Bringing changes to the device so that a cut leaves the old state, the new one, or what replay mends.

With a journal: new data goes to blocks that nothing refers to yet; then the superblock says that there may be
something to replay, the transaction is written to the log (what it overwrites of files as well, while there is room),
the journal's superblock makes it valid in one sector, the blocks go to their places, the journal is empty again.
Without one: the file system is marked as not clean while what nothing refers to is written first, then the rest; after
a write that failed nothing more is changed.
"""

from __future__ import annotations

import struct

from ....errors import CorruptError, ReadOnlyError
from . import blockmap, extents, journal
from .allocate import FREE, FREED, FRESH
from .inode import EXTENTS, Inode
from .journal import HEADER, Journal
from .superblock import BIT64, HAS_JOURNAL, OFFSET, STATE_VALID, Superblock

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from .filesystem import ExtFileSystem
    from .room import Room
    from .write import Writer


def commit(fs: ExtFileSystem, writer: Writer) -> None:
    """Write everything that changed. Nothing has been written when it raises before its first write."""
    if fs.node.read_only:
        raise ReadOnlyError(f"Block node is read-only: '{fs.node.filename}'", path=fs.node.filename)
    sb = fs.sb
    writer.flush()
    _verify(fs, writer)
    if not sb.compat & HAS_JOURNAL or not sb.journal_inode:
        _count(fs, writer)
        _without_journal(fs, writer)
    else:
        log = settle_replay(fs)
        assert log is not None
        _count(fs, writer)
        room = _with_journal(fs, writer, log)
        if room is not None:
            _settle(fs, writer)
            room.give_back()
            commit(fs, writer)
    _settle(fs, writer)


def _settle(fs: ExtFileSystem, writer: Writer) -> None:
    """What changed is on the device."""
    fs.volume.settle()
    writer.spool.close()
    writer.allocator.settle()
    writer.mappings.clear()
    fs.inodes.changed.clear()
    writer.super_changed = False
    fs.recount = False


def _home(fs: ExtFileSystem) -> tuple[int, int]:
    return OFFSET // fs.block_size, OFFSET % fs.block_size


def _count(fs: ExtFileSystem, writer: Writer) -> None:
    """The superblock's counts and times, into its block."""
    sb = fs.sb
    allocator = writer.allocator
    blocks = (sb.u32(0x0C) | (sb.u32(0x158) << 32 if sb.incompat & BIT64 else 0)) + allocator.free_blocks
    inodes = sb.u32(0x10) + allocator.free_inodes
    if fs.recount or blocks < 0 or inodes < 0:
        blocks = sum(fs.groups[number].free_blocks for number in range(sb.groups))
        inodes = sum(fs.groups[number].free_inodes for number in range(sb.groups))
    sb.set(0x0C, blocks & 0xFFFFFFFF)
    if sb.incompat & BIT64:
        sb.set(0x158, blocks >> 32)
    sb.set(0x10, inodes)
    allocator.free_blocks = allocator.free_inodes = 0
    seconds = writer.now // 1_000_000_000
    if seconds > 0:
        sb.set(0x30, seconds & 0xFFFFFFFF)
        sb.raw[0x274] = seconds >> 32 & 0xFF
    _put_super(fs)


def _put_super(fs: ExtFileSystem) -> None:
    """As it will be stored, but for what `_write_super` makes up for."""
    block, at = _home(fs)
    fs.volume.change(block, "superblock")[at : at + 1024] = fs.sb.pack()


def _wrong(what: str, value: object) -> CorruptError:
    return CorruptError(
        f"ext: a change was not written, {what} would be wrong", layer="ext", value=value,
        hint="please report this; e2fsck shows whether the file system was damaged before",
    )  # fmt: skip


def _verify(fs: ExtFileSystem, writer: Writer) -> None:
    """What changed is read again as others will read it: counts, inodes, mappings, their blocks in the bitmaps."""
    sb = fs.sb
    allocator = writer.allocator
    for number in allocator.changed_blocks:
        states = allocator.block_states[number]
        if states.count(FREE) + states.count(FREED) != fs.groups[number].free_blocks:
            raise _wrong(f"the count of free blocks in group {number}", fs.groups[number].free_blocks)
    for number in allocator.changed_inodes:
        states = allocator.inode_states[number]
        if states.count(FREE) + states.count(FREED) != fs.groups[number].free_inodes:
            raise _wrong(f"the count of free inodes in group {number}", fs.groups[number].free_inodes)
    for number, mapping in writer.mappings.items():
        inode = mapping.inode
        if number not in fs.inodes.changed:
            continue
        block, at = fs.inodes.place(number)
        stored = Inode(number, fs.volume.block(block)[at : at + sb.inode_size], sb.block_size)
        stored.seed = inode.seed
        if (stored.size, stored.mode, stored.nlink) != (inode.size, inode.mode, inode.nlink):
            raise _wrong(f"inode {number}", stored.size)
        total = 0
        for run in mapping.runs:
            total += run.count
            _used(fs, writer, run.place, run.count, number)
        for place in mapping.tree:
            _used(fs, writer, place, 1, number)
        if inode.mapped:
            again = sum(run.count for run in _walk(fs, stored))
            if again != total:
                raise _wrong(f"the mapping of inode {number}", again)
            taken = (total + len(mapping.tree)) * (sb.block_size // 512) + writer.attributes.taken(inode)
            if taken != stored.sectors:
                raise _wrong(f"the space that inode {number} takes", stored.sectors)


def _walk(fs: ExtFileSystem, inode: Inode) -> Iterator[extents.Run]:
    return (extents.runs if inode.flags & EXTENTS else blockmap.runs)(fs.volume, inode)


def _used(fs: ExtFileSystem, writer: Writer, place: int, count: int, number: int) -> None:
    sb = fs.sb
    while count:
        group, at = divmod(place - sb.first_data_block, sb.blocks_per_group)
        states = writer.allocator.blocks_of(group)
        part = states[at : at + count]
        if FREE in part or FREED in part:
            raise _wrong(f"a block of inode {number} would be free", place)
        place += len(part)
        count -= len(part)


# ---- data


def _data(fs: ExtFileSystem, writer: Writer, limit: int) -> dict[int, bytes]:
    """Write the data that goes to fresh blocks; what overwrites others is returned by block while it is no more than
    ``limit`` blocks, and written too when it is."""
    sb = fs.sb
    size = sb.block_size
    old: list[tuple[int, int]] = []
    blocks = 0
    for offset, length, _ in writer.spool.pieces():
        first, end = offset // size, -(-(offset + length) // size)
        at = first
        while at < end:
            group, within = divmod(at - sb.first_data_block, sb.blocks_per_group)
            states = writer.allocator.blocks_of(group)
            stop = min(within + end - at, len(states))
            begin = within
            fresh = states[within] == FRESH
            while within < stop and (states[within] == FRESH) == fresh:
                within += 1
            count = within - begin
            if not fresh:
                old.append((at, count))
                blocks += count
            at += count
    kept: dict[int, bytes] = {}
    journaled = blocks <= limit
    if journaled:
        for at, count in old:
            for block in range(at, at + count):
                if block not in kept:
                    data = bytearray(size)
                    fs.volume.read_into(block * size, memoryview(data))
                    kept[block] = bytes(data)
    for offset, piece in writer.spool.data():
        _write_except(fs, offset, piece, old if journaled else [])
    return kept


def _write_except(fs: ExtFileSystem, offset: int, piece: bytes | memoryview, left_out: list[tuple[int, int]]) -> None:
    from bisect import bisect_right

    size = fs.block_size
    view = memoryview(piece)
    end = offset + len(view)
    at = offset
    # both are in order of place
    index = max(0, bisect_right(left_out, (offset // size, 1 << 62)) - 1)
    for first, count in left_out[index:]:
        low, high = first * size, (first + count) * size
        if high <= at:
            continue
        if low >= end:
            break
        if low > at:
            fs.node.write(at, view[at - offset : low - offset])
        at = max(at, high)
    if at < end:
        fs.node.write(at, view[at - offset :])


def _write_blocks(fs: ExtFileSystem, blocks: Mapping[int, bytes | bytearray]) -> None:
    """Blocks to their places, neighbours in one request."""
    size = fs.block_size
    numbers = sorted(blocks)
    at = 0
    while at < len(numbers):
        end = at + 1
        while end < len(numbers) and numbers[end] == numbers[at] + end - at and end - at < 1024:
            end += 1
        data = b"".join(blocks[number] for number in numbers[at:end])
        start = numbers[at] * size
        if not at and numbers[0] == 0:
            # the first 1024 bytes are the boot loader's: written only by who changes them
            start, data = OFFSET, data[OFFSET:]
        fs.node.write(start, data)
        at = end


def _write_super(fs: ExtFileSystem) -> None:
    """The superblock as it is in memory, each sector a step for itself; its block in memory becomes what is stored."""
    for offset, data in fs.sb.steps(fs.node.read(OFFSET, 1024)):
        fs.node.write(offset, data)
    block, at = _home(fs)
    fs.volume.change(block, "superblock")[at : at + 1024] = fs.sb.raw


def _mark(fs: ExtFileSystem, *, recover: bool = False, dirty: bool = False) -> None:
    """The superblock on the device says that there may be something to replay, or that it is not clean."""
    stored = fs.node.read(OFFSET, 1024)
    marked = Superblock(stored)
    if recover:
        marked.set_recover(True)
    if dirty:
        marked.set(0x3A, marked.u16(0x3A) & ~STATE_VALID, 2)
    for offset, data in marked.steps(stored):
        fs.node.write(offset, data)


# ---- with a journal


def settle_replay(fs: ExtFileSystem) -> Journal | None:
    """What was replayed in memory goes to its places; the journal is empty then. None without one."""
    if not fs.sb.compat & HAS_JOURNAL or not fs.sb.journal_inode:
        return None
    log = fs.journal
    if log is None:
        log = fs.journal = Journal(fs)
    if not log.start and not fs.volume.replayed:
        return log
    if fs.volume.replayed:
        home, at = _home(fs)
        newer = fs.volume.replayed.get(home)
        _write_blocks(fs, {number: data for number, data in fs.volume.replayed.items() if number != home})
        if newer is not None:
            for offset, data in Superblock(newer[at : at + 1024]).steps(fs.node.read(OFFSET, 1024)):
                fs.node.write(offset, data)
        fs.node.flush()
    log.start = 0
    # numbers that a transaction cut short may have used are not used again
    log.sequence = log.sequence + 1 & 0xFFFFFFFF
    log.store()
    fs.node.flush()
    fs.volume.replayed.clear()
    return log


def _prepare_log(fs: ExtFileSystem, log: Journal) -> None:
    """Features of the journal as the kernel sets them for this file system; the log is empty."""
    if HEADER.unpack_from(log.raw)[1] != journal.SUPER_V2:
        return
    wanted = log.incompat
    if fs.sb.incompat & BIT64:
        wanted |= journal.INCOMPAT_64BIT
    if fs.sb.metadata_csum and not wanted & journal.INCOMPAT_CSUM_V3:
        wanted = wanted & ~journal.INCOMPAT_CSUM_V2 | journal.INCOMPAT_CSUM_V3
        log.compat &= ~journal.COMPAT_CHECKSUM
        log.raw[0x50] = 4
    log.incompat = wanted
    struct.pack_into(">2I", log.raw, 0x24, log.compat, wanted)
    log.sums = bool(wanted & (journal.INCOMPAT_CSUM_V2 | journal.INCOMPAT_CSUM_V3))
    if log.sums:
        from .crc import crc32c

        log.seed = crc32c(0xFFFFFFFF, log.raw[0x30:0x40])


def _per_descriptor(log: Journal) -> int:
    return (log.block_size - 12 - (4 if log.sums else 0) - 16) // log.tag_size


def _transaction(log: Journal, blocks: dict[int, bytes | bytearray], now: int) -> list[bytes]:
    """The blocks of the log that make one transaction."""
    size = log.block_size
    sequence = log.sequence
    each = _per_descriptor(log)
    numbers = sorted(blocks)
    out: list[bytes] = []
    for start in range(0, len(numbers), each):
        part = numbers[start : start + each]
        descriptor = bytearray(size)
        HEADER.pack_into(descriptor, 0, journal.MAGIC, journal.DESCRIPTOR, sequence)
        at = 12
        contents: list[bytes] = []
        for index, number in enumerate(part):
            data = bytes(blocks[number])
            flags = journal.SAME_UUID if index else 0
            if index + 1 == len(part):
                flags |= journal.LAST
            if data[:4] == journal.MAGIC_BYTES:
                data = bytes(4) + data[4:]
                flags |= journal.ESCAPE
            summed = log.data_sum(sequence, data) if log.sums else 0
            if log.incompat & journal.INCOMPAT_CSUM_V3:
                high = number >> 32 if log.incompat & journal.INCOMPAT_64BIT else 0
                struct.pack_into(">4I", descriptor, at, number & 0xFFFFFFFF, flags, high, summed)
            else:
                struct.pack_into(">IHH", descriptor, at, number & 0xFFFFFFFF, summed & 0xFFFF, flags)
                if log.incompat & journal.INCOMPAT_64BIT:
                    struct.pack_into(">I", descriptor, at + 8, number >> 32)
            at += log.tag_size
            if not index:
                descriptor[at : at + 16] = log.raw[0x30:0x40]
                at += 16
            contents.append(data)
        if log.sums:
            descriptor[-4:] = log.tail_sum(descriptor).to_bytes(4, "big")
        out.append(bytes(descriptor))
        out += contents
    record = bytearray(size)
    HEADER.pack_into(record, 0, journal.MAGIC, journal.COMMIT, sequence)
    seconds, nanoseconds = divmod(max(now, 0), 1_000_000_000)
    struct.pack_into(">QI", record, 0x30, seconds, nanoseconds)
    if log.sums:
        record[16:20] = log.commit_sum(record).to_bytes(4, "big")
    out.append(bytes(record))
    return out


def _sorted(fs: ExtFileSystem, writer: Writer) -> tuple[dict[int, bytes | bytearray], dict[int, bytes | bytearray]]:
    """Changed blocks but for the superblock's: what nothing of the old state refers to, which needs no journal, and
    all others."""
    allocator = writer.allocator
    home, _ = _home(fs)
    new: dict[int, bytes | bytearray] = {}
    others: dict[int, bytes | bytearray] = {}
    for number, data in fs.volume.dirty.items():
        if number != home:
            fresh = number in allocator.unborn or allocator.is_fresh(number)
            (new if fresh else others)[number] = data
    return new, others


def _capacity(log: Journal) -> int:
    """Blocks that one transaction may have."""
    room: int = log.end - log.first - 1
    return room - room // _per_descriptor(log) - 2


def _with_journal(fs: ExtFileSystem, writer: Writer, log: Journal) -> Room | None:
    """One transaction; the room that the journal was given for it, if that was needed."""
    sb = fs.sb
    node = fs.node
    volume = fs.volume
    _prepare_log(fs, log)
    home, at = _home(fs)
    new, blocks = _sorted(fs, writer)
    made: Room | None = None
    if len(blocks) + 1 > _capacity(log):
        from .room import Room

        made = Room(fs, writer)
        # what the longer journal changes itself comes on top
        more = (len(blocks) - _capacity(log)) * 17 // 16 + 256
        taken = made.take(more)
        _count(fs, writer)
        if not taken:
            _without_journal(fs, writer)
            return None
        new, blocks = _sorted(fs, writer)
        assert fs.journal is not None
        log = fs.journal
        _prepare_log(fs, log)
        if len(blocks) + 1 > _capacity(log):
            raise _wrong("the length of the journal", len(blocks))
    room = _capacity(log)
    data = _data(fs, writer, min(room - len(blocks) - 1, (64 << 20) // fs.block_size))
    _write_blocks(fs, new)
    node.flush()
    _mark(fs, recover=True)
    sb.set_recover(True)
    sb.steps(node.read(OFFSET, 1024))
    volume.change(home, "superblock")[at : at + 1024] = sb.raw
    blocks.update(data)
    contents = _transaction(log, {**blocks, home: volume.dirty[home]}, writer.now)
    if log.first + len(contents) < log.end:
        # what may be there from before is no transaction
        contents.append(bytes(fs.block_size))
    index = 0
    while index < len(contents):
        place = log.place(log.first + index)
        count = 1
        while index + count < len(contents) and count < 1024 and log.place(log.first + index + count) == place + count:
            count += 1
        node.write(place * fs.block_size, b"".join(contents[index : index + count]))
        index += count
    node.flush()
    log.start = log.first
    log.store()
    node.flush()
    # from here on the new state is what there is
    _write_blocks(fs, blocks)
    _write_super(fs)
    node.flush()
    log.start = 0
    log.sequence = log.sequence + 1 & 0xFFFFFFFF
    log.store()
    node.flush()
    sb.set_recover(False)
    _write_super(fs)
    node.flush()
    return made


# ---- without


def _without_journal(fs: ExtFileSystem, writer: Writer) -> None:
    try:
        _in_order(fs, writer)
    except BaseException:
        # bitmaps may be ahead of inodes: what they call free would be given to a second file
        fs.writable = False
        raise


def _in_order(fs: ExtFileSystem, writer: Writer) -> None:
    sb = fs.sb
    node = fs.node
    volume = fs.volume
    clean = sb.u16(0x3A) & STATE_VALID
    _mark(fs, dirty=True)
    node.flush()
    _data(fs, writer, 0)
    home, _ = _home(fs)
    others = {number: data for number, data in volume.dirty.items() if number != home}
    first = {number: data for number, data in others.items() if writer.allocator.is_fresh(number)}
    rest = {number: data for number, data in others.items() if number not in first}
    _write_blocks(fs, first)
    node.flush()
    # names that lead to nothing are taken away by e2fsck -p, directories without a name are not: inodes that go away
    # and directories that grow come before names, new inodes after them
    early, late = _inode_tables(fs)
    _write_blocks(fs, early)
    node.flush()
    _write_blocks(fs, {number: data for number, data in rest.items() if number not in late})
    node.flush()
    _write_blocks(fs, {number: volume.dirty[number] for number in late})
    node.flush()
    if clean:
        sb.set(0x3A, sb.u16(0x3A) | STATE_VALID, 2)
    _write_super(fs)
    node.flush()


def _inode_tables(fs: ExtFileSystem) -> tuple[dict[int, bytearray], set[int]]:
    """Blocks of inode tables that changed: as they are on the device but for inodes that go away and directories that
    were there before; and the numbers of all of them."""
    size = fs.block_size
    early: dict[int, bytearray] = {}
    late: set[int] = set()
    for number, inode in fs.inodes.changed.items():
        block, at = fs.inodes.place(number)
        late.add(block)
        if block not in early:
            early[block] = bytearray(fs.node.read(block * size, size))
        was = early[block][at : at + 2]
        if not inode.nlink or (inode.is_dir and any(was)):
            early[block][at : at + fs.sb.inode_size] = fs.volume.dirty[block][at : at + fs.sb.inode_size]
    return early, late
