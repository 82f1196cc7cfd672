"""Bringing changes to the device in an order that survives a power cut.

1. The dirty mark. 2. Contents, into clusters that nothing leads to yet, and new directories. 3. The new chains in the
FATs. 4. Old chains that go on into new ones. 5. Directory entries: the new and changed ones, 6. then the end of the
old ones. 7. What became free, FSInfo, 8. the boot sector without the mark. Each is durable before the next begins.
A cut leaves the old files or the new ones and at most clusters that are lost, or chains longer than their files:
``fsck.vfat -a`` gives these back. Or, since nothing on FAT changes two sectors at once, what was renamed has both names
(in one sector they change together): ``fsck.vfat -a`` leaves it one of them whole, and of the other an empty file or
directory. The other order would for a moment leave it no name, and then fsck would take it away.
"""

from __future__ import annotations

import struct
from array import array

from ....errors import CorruptError
from ..base import GuestError
from . import directory as dirs
from .boot import FSINFO_LEAD, FSINFO_STRUCT, STATE_DIRTY

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .change import WritableFat
    from .directory import Directory

_SECTOR = 512


def commit(fs: WritableFat) -> None:
    """Verify what changed and write it. Raises CorruptError before anything is written, HostError, NoSpaceError."""
    changed = [one for one in fs._directories.values() if one.before is not None]
    if not (changed or fs.table.before or fs.overlay.pages or fs.new_id is not None or fs.new_label is not None):
        return
    _verify(fs, changed)
    node = fs.node
    _mark(fs, True)
    node.flush()
    fs.overlay.commit()
    for holder in changed:
        _write_parts(fs, holder)
    pages = dict(fs.table.before)
    first, second, last = fs.table.stages()
    for stage in (first, second):
        if _write_fat(fs, pages, stage):
            node.flush()
        pages = stage
    images = [_Image(holder) for holder in changed if holder.before]
    for stage_number in range(1, 5):
        wrote = False
        for image in images:
            wrote |= _write_directory(fs, image, image.stage(stage_number))
        if wrote:
            node.flush()
    _write_fat(fs, pages, last)
    _write_fsinfo(fs)
    node.flush()
    _mark(fs, False)
    node.flush()
    for holder in changed:
        holder.before = None
        holder.fresh.clear()
        holder.removed.clear()
        holder.successors.clear()
    fs.table.committed()
    fs.overlay.close()
    fs.touched.clear()
    fs.new_id = fs.new_label = None


# ---- before


def _verify(fs: WritableFat, changed: list[Directory]) -> None:
    """Every file and directory that changed has a chain of its own that is long enough, and directories say what is
    in memory."""
    runs: list[tuple[int, int, str]] = []
    size = fs.boot.cluster_size
    for ino in fs.touched:
        try:
            entry = fs._entry(ino)
        except GuestError:
            raise _broken(fs, f"inode {ino} has no entry") from None
        if entry.is_directory:
            continue
        chain = fs.table.chain(entry.start) if entry.start else None
        if (chain.length if chain else 0) < -(-entry.size // size):
            raise _broken(fs, f"inode {ino} has fewer clusters than its size of {entry.size} needs")
        if chain is not None:
            runs += [(start, count, f"inode {ino}") for start, count in zip(chain.starts, chain.counts, strict=True)]
    for holder in changed:
        found = {record.slot: (record.text, record.first, record.short) for record in dirs.scan(holder.data)}
        known = {record.slot: (record.text, record.first, record.short) for record in holder.records.values()}
        if found != known:
            raise _broken(fs, f"directory {holder.ino} does not say what it should")
        if not holder.start:
            continue
        chain = fs.table.chain(holder.start)
        places = [
            fs.boot.cluster_at(cluster)
            for start, count in zip(chain.starts, chain.counts, strict=True)
            for cluster in range(start, start + count)
        ]
        if places != [offset for offset, _ in holder.places]:
            raise _broken(fs, f"directory {holder.ino} does not lie where its chain leads")
        runs += [
            (start, count, f"directory {holder.ino}") for start, count in zip(chain.starts, chain.counts, strict=True)
        ]
    runs.sort()
    end, who = 0, ""
    for start, count, name in runs:
        if start < end:
            raise _broken(fs, f"{who} and {name} share cluster {start}")
        end, who = start + count, name


def _broken(fs: WritableFat, why: str) -> CorruptError:
    return CorruptError(f"Nothing was written: {why}", path=fs.node.filename, layer="FAT")


# ---- the boot sector


def _mark(fs: WritableFat, dirty: bool) -> None:
    """Set the dirty bit, or give it the state back that it had when the file system was opened, with a new label
    and volume id if there are any."""
    boot = fs.boot
    sector = bytearray(fs.node.read(0, _SECTOR))
    before = bytes(sector)
    at = boot.record_at
    sector[at + 1] = boot.state | STATE_DIRTY if dirty else boot.state
    places = [0]
    if not dirty and boot.signed:
        if fs.new_id is not None:
            struct.pack_into("<I", sector, at + 3, fs.new_id)
        if fs.new_label is not None:
            sector[at + 7 : at + 18] = fs.new_label
        if boot.backup and (fs.new_id is not None or fs.new_label is not None):
            places = [boot.backup, 0]
    if sector != before:
        for place in places:
            if place:
                backup = bytearray(fs.node.read(place, _SECTOR))
                backup[at + 3 : at + 18] = sector[at + 3 : at + 18]
                fs.node.write(place, backup)
            else:
                fs.node.write(0, sector)


def _write_fsinfo(fs: WritableFat) -> None:
    boot = fs.boot
    if boot.read_fsinfo(fs.node) is None:
        return
    sector = bytearray(fs.node.read(boot.fsinfo, _SECTOR))
    struct.pack_into("<I", sector, 0, FSINFO_LEAD)
    struct.pack_into("<III", sector, 484, FSINFO_STRUCT, fs.table.count_free(), min(fs.table.after, fs.table.limit - 1))
    fs.node.write(boot.fsinfo, sector)


# ---- the FATs


def _write_fat(fs: WritableFat, old: dict[int, array[int]], new: dict[int, array[int]]) -> bool:
    """Write the sectors in which two states of some pages differ, to all FATs that are kept."""
    wrote = False
    table = fs.table
    size = fs.boot.sector_size
    pieces: list[tuple[int, bytes]] = []
    for number in sorted(new):
        if old[number] == new[number]:
            continue
        before, after = table.pack(number, old[number]), table.pack(number, new[number])
        for start, end in _differences(before, after, size):
            pieces.append((number * table.page_bytes + start, after[start:end]))
    for copy in fs.boot.fat_copies():
        for at, data in pieces:
            fs.node.write(copy + at, data)
            wrote = True
    return wrote


def _differences(before: bytes | bytearray, after: bytes | bytearray, size: int) -> list[tuple[int, int]]:
    """(begin, end) of runs of sectors that differ."""
    found: list[tuple[int, int]] = []
    for at in range(0, len(after), size):
        if before[at : at + size] != after[at : at + size]:
            end = min(at + size, len(after))
            if found and found[-1][1] == at:
                found[-1] = (found[-1][0], end)
            else:
                found.append((at, end))
    return found


# ---- directories


def _write_parts(fs: WritableFat, holder: Directory) -> None:
    """The parts of a directory that are new, to which nothing leads yet."""
    assert holder.before is not None
    at = 0
    for offset, length in holder.places:
        if at >= len(holder.before):
            fs.node.write(offset, holder.data[at : at + length])
        at += length


class _Image:
    """The old part of a changed directory on its way from what the device has to what it shall have."""

    def __init__(self, holder: Directory) -> None:
        assert holder.before is not None
        self.holder = holder
        self.now: bytes | bytearray = holder.before
        before, data = holder.before, holder.data
        length = len(before)
        self.final = bytes(data[:length])
        #: slots of long names that cross a sector's end and are new: they come after their short entry
        self.late: set[int] = set()
        for slot in holder.fresh:
            first = holder.records[slot].first
            if first // 16 != slot // 16:
                self.late.update(range(first, slot))
        #: slots that are to go, and those of them in another sector than their short entry: they go after it
        self.leaving: set[int] = set()
        self.last: set[int] = set()
        if any(data[at] == dirs.DELETED and before[at] not in (0, dirs.DELETED) for at in range(0, length, 32)):
            for at in range(0, length, 32):
                if not before[at]:
                    break
                if data[at] == dirs.DELETED != before[at]:
                    self.leaving.add(at // 32)
            for record in dirs.scan(before):
                after = holder.successors.get(record.slot)
                if record.slot not in self.leaving:
                    continue
                if after is not None and after // 16 == record.slot // 16 == record.first // 16:
                    # old and new stand in one sector, which is written as a whole
                    self.leaving.difference_update(range(record.first, record.slot + 1))
                else:
                    self.last.update(one for one in range(record.first, record.slot) if one // 16 != record.slot // 16)

    def stage(self, number: int) -> bytes | bytearray:
        """What the directory says after each of the steps 1 to 4."""
        before = self.holder.before
        assert before is not None
        out = bytearray(self.final)
        for slot in self.leaving if number < 3 else self.last & self.leaving if number == 3 else ():
            out[slot * 32 : slot * 32 + 32] = before[slot * 32 : slot * 32 + 32]
        if number == 1:
            for slot in self.late:
                if slot * 32 < len(out):
                    out[slot * 32] = dirs.DELETED
        return out


def _write_directory(fs: WritableFat, image: _Image, target: bytes | bytearray) -> bool:
    """Write the sectors in which the directory differs from ``target``."""
    if image.now == target:
        return False
    at = 0
    for offset, length in image.holder.places:
        if at >= len(target):
            break
        before, after = image.now[at : at + length], target[at : at + length]
        if before != after:
            for start, end in _differences(before, after, _SECTOR):
                fs.node.write(offset + start, after[start:end])
        at += length
    image.now = target
    return True
