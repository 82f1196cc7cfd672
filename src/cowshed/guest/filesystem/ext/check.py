"""A file system is looked through, without changing it: every inode, what it takes, every name, what bitmaps and counts
say. The order is e2fsck's: inodes and their blocks, directories, how they hang together, references, bitmaps."""

from __future__ import annotations

from array import array

from ....errors import CowshedError
from . import blockmap, xattr
from .allocate import FREE, USED, Allocator
from .directory import KINDS, parse
from .groups import BLOCK_UNINIT, INODE_UNINIT
from .inode import EA_INODE, INDEX, INLINE_DATA, Inode, kind_letter
from .superblock import BIGALLOC, BIT64, DIR_NLINK, ORPHAN_FILE, STATE_ERROR, STATE_VALID

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .filesystem import ExtFileSystem

_RESIZE = 7
#: sentences that are kept of what is wrong
MOST = 100


class Check:
    """One look through a file system. ``problems``: sentences, at most `MOST`; ``count`` of all; ``totals``: only what
    the superblock says in total is wrong, beyond that nothing."""

    def __init__(self, fs: ExtFileSystem) -> None:
        self.fs = fs
        self.sb = fs.sb
        self.problems: list[str] = []
        self.count = 0
        self.totals = False
        #: group -> one byte a block: is it taken?
        self.blocks: dict[int, bytearray] = {}
        #: group -> one byte an inode
        self.inodes: dict[int, bytearray] = {}
        self.links: dict[int, int] = {}
        self.modes: dict[int, int] = {}
        self.found: dict[int, int] = {}
        self.directories: list[int] = []
        self.folders: dict[int, int] = {}
        #: directory -> the one that has its name
        self.above: dict[int, int] = {}
        self.parents: dict[int, int] = {}
        self.shared: dict[int, list[int]] = {}
        self.values: dict[int, int] = {}
        self.value_counts: dict[int, int] = {}

    def wrong(self, text: str) -> None:
        self.count += 1
        if len(self.problems) < MOST:
            self.problems.append(text)

    def run(self) -> Check:
        """Look through all of it; returns itself. Damage is a problem, not an error."""
        sb = self.sb
        if sb.ro_compat & BIGALLOC:
            self.wrong("The file system has clusters (feature bigalloc), which are not checked")
            return self
        self.problems += self.fs.notes
        self.count += len(self.fs.notes)
        for number in range(sb.groups):
            try:
                self._group(number)
            except CowshedError as error:
                self.wrong(str(error))
        for number in self.directories:
            try:
                self._directory(number)
            except CowshedError as error:
                self.wrong(str(error))
        self._connected()
        self._references()
        self._bitmaps()
        return self

    # ---- inodes

    def _claim(self, place: int, count: int, who: str) -> None:
        sb = self.sb
        if place < sb.first_data_block or place + count > sb.blocks:
            self.wrong(f"{who} has illegal block(s) {place}.")
            return
        while count:
            number, at = divmod(place - sb.first_data_block, sb.blocks_per_group)
            states = self._taken(number)
            step = min(count, len(states) - at)
            if any(states[at : at + step]):
                self.wrong(f"Multiply-claimed block(s) in {who}: {place + states[at : at + step].find(USED)}")
            states[at : at + step] = bytes((USED,)) * step
            place += step
            count -= step

    def _taken(self, number: int) -> bytearray:
        states = self.blocks.get(number)
        if states is None:
            states = self.blocks[number] = bytearray(self.sb.group_blocks(number))
        return states

    def _group(self, number: int) -> None:
        sb = self.sb
        group = self.fs.groups[number]
        own = sb.has_super(number) + sb.group_desc_blocks(number)
        if own:
            self._claim(sb.group_first_block(number), own, f"the superblock and descriptors of group {number}")
        for place, count, what in (
            (group.block_bitmap, 1, "the block bitmap"), (group.inode_bitmap, 1, "the inode bitmap"),
            (group.inode_table, sb.inode_table_blocks, "the inode table"),
        ):  # fmt: skip
            self._claim(place, count, f"{what} of group {number}")
        used = self.inodes[number] = bytearray(sb.inodes_per_group)
        folders = 0
        if group.flags & INODE_UNINIT and sb.gdt_csum:
            self.folders[number] = 0
            return
        last = sb.inodes_per_group - (group.unused if sb.gdt_csum else 0)
        each = sb.block_size // sb.inode_size
        reserved = sb.first_inode - 1
        for index in range(last):
            block, at = divmod(index, each)
            if not at:
                data = self.fs.volume.block(
                    group.inode_table + block, "inode table", min(16, sb.inode_table_blocks - block)
                )
            offset = at * sb.inode_size
            ino = number * sb.inodes_per_group + index + 1
            if not any(data[offset + 0x1A : offset + 0x1C]) and ino > reserved:
                continue
            if ino <= reserved:
                used[index] = USED
                if not any(data[offset : offset + sb.inode_size]):
                    continue
            try:
                folders += self._inode(self.fs.inodes[ino], used, index)
            except CowshedError as error:
                used[index] = USED
                self.wrong(str(error))
        self.folders[number] = folders

    def _inode(self, inode: Inode, used: bytearray, index: int) -> int:
        fs, sb = self.fs, self.sb
        ino = inode.number
        used[index] = USED
        if not inode.mode and ino >= sb.first_inode:
            self.wrong(f"Inode {ino} is in use, but it has mode 0.")
            return 0
        who = f"inode {ino}"
        self.modes[ino] = inode.mode
        if inode.nlink:
            self.links[ino] = inode.nlink
        if ino == _RESIZE:
            self._kept(inode)
            return 0
        taken = 0
        if inode.mapped:
            from .mapping import Mapping

            mapping = Mapping(fs, inode)
            for run in mapping.runs:
                self._claim(run.place, run.count, who)
                taken += run.count
            for place in mapping.tree:
                self._claim(place, 1, who)
            taken += len(mapping.tree)
            if mapping.runs and inode.is_dir:
                end = mapping.runs[-1].first + mapping.runs[-1].count
                if inode.size != end * sb.block_size:
                    self.wrong(f"Inode {ino}, i_size is {inode.size}, should be {end * sb.block_size}.")
        sectors = taken * (sb.block_size // 512)
        entries = list(xattr.in_inode(inode))
        if inode.acl:
            sectors += sb.block_size // 512
            if inode.acl in self.shared:
                self.shared[inode.acl].append(ino)
            else:
                self._claim(inode.acl, 1, who)
                self.shared[inode.acl] = [ino]
                outside = list(xattr.in_block(fs.volume, inode))
                for entry in outside:
                    if entry.inode:
                        self.values[entry.inode] = self.values.get(entry.inode, 0) + 1
            entries_of_values = [entry for entry in xattr.in_block(fs.volume, inode) if entry.inode]
            sectors += sum(-(-entry.size // sb.block_size) * (sb.block_size // 512) for entry in entries_of_values)
        for entry in entries:
            if entry.inode:
                self.values[entry.inode] = self.values.get(entry.inode, 0) + 1
                sectors += -(-entry.size // sb.block_size) * (sb.block_size // 512)
        if sectors != inode.sectors:
            self.wrong(f"Inode {ino}, i_blocks is {inode.sectors}, should be {sectors}.")
        if inode.flags & EA_INODE:
            high = inode.ctime // 1_000_000_000 & 0xFFFFFFFF
            self.value_counts[ino] = high << 32 | int.from_bytes(inode.raw[0x24:0x28], "little")
        if inode.is_dir:
            self.directories.append(ino)
            return 1
        return 0

    def _kept(self, inode: Inode) -> None:
        """The resize inode: a double indirect block of blocks kept for descriptors, each a list of its copies."""
        sb = self.sb
        numbers = array("I", inode.block)
        top = numbers[13]
        if not sb.reserved_gdt_blocks and not top:
            return
        self._claim(top, 1, "the resize inode")
        each = sb.block_size // 4
        copies = [number for number in range(1, sb.groups) if sb.has_super(number)]
        first = sb.first_data_block + 1
        table = [0] * each
        good = not any(numbers[:13]) and not numbers[14]
        for index in range(sb.desc_blocks, sb.desc_blocks + sb.reserved_gdt_blocks):
            table[index % each] = first + index
            inner = blockmap.numbers(self.fs.volume.block(first + index, "resize inode"))
            wanted = [first + index + number * sb.blocks_per_group for number in copies]
            good = good and sorted(filter(None, inner)) == wanted
        good = good and list(blockmap.numbers(self.fs.volume.block(top, "resize inode"))) == table
        sectors = (1 + sb.reserved_gdt_blocks * (1 + len(copies))) * (sb.block_size // 512)
        if not good or inode.sectors != sectors:
            self.wrong("Resize inode not valid.")

    # ---- directories

    def _directory(self, ino: int) -> None:
        fs = self.fs
        inode = fs.inodes[ino]
        first = True
        names: set[bytes] = set()
        for name, number, kind in fs.directories.entries(inode):
            if name == b".":
                if number != ino:
                    self.wrong(f"Entry '.' in directory inode {ino} is not a link to itself.")
            elif name == b"..":
                self.parents[ino] = number
            shown = name.decode("utf-8", "backslashreplace")
            if not name or b"/" in name or b"\0" in name:
                self.wrong(f"Entry '{shown}' in directory inode {ino} has illegal characters in its name.")
            if name in names:
                self.wrong(f"Duplicate entry '{shown}' found in directory inode {ino}.")
            names.add(name)
            mode = self.modes.get(number)
            if mode is None or (number not in self.links and number >= self.sb.first_inode):
                self.wrong(f"Entry '{shown}' in directory inode {ino} has deleted/unused inode {number}.")
                continue
            if fs.directories.filetype and (kind >= 8 or KINDS[kind] != kind_letter(mode)):
                self.wrong(f"Entry '{shown}' in directory inode {ino} has an incorrect filetype (was {kind}).")
            self.found[number] = self.found.get(number, 0) + 1
            if mode & 0xF000 == 0x4000 and name not in (b".", b".."):
                if number in self.above:
                    self.wrong(f"Directory inode {number} has more than one name.")
                self.above[number] = ino
            first = False
        if first or not {b".", b".."} <= names:
            self.wrong(f"Directory inode {ino} lacks '.' or '..'.")
        if inode.flags & INDEX and not inode.flags & INLINE_DATA and fs.directories.indexed(inode):
            self._index(inode)

    def _index(self, inode: Inode) -> None:
        """Every name is in the leaf that its hash leads to, and every block is in the index once."""
        fs = self.fs
        directories = fs.directories
        size = self.sb.block_size
        where = f"directory {inode.number}"
        path = directories.path(inode, 0)
        low: int | None = 0
        seen = {0, *(item[0] for item in path)}
        while low is not None:
            logical, at, position = path[-1]
            node = directories.block(inode, logical, True)
            entry = at + 8 * position + 4
            leaf = int.from_bytes(node[entry : entry + 4], "little") & 0x0FFFFFFF
            following = directories.next_hash(inode, path)
            seen |= {item[0] for item in path}
            if leaf in seen:
                self.wrong(f"Problem in HTREE directory inode {inode.number}: block #{leaf} referenced twice")
                return
            seen.add(leaf)
            high = 0xFFFFFFFF if following is None else following & ~1
            goes_on = following is not None and following & 1
            block = directories.block(inode, leaf, True)
            for _, number, _, _, name in parse(block, 0, size, size, where, directories.filetype):
                if not number:
                    continue
                hashed = directories.hash(inode, name)[0]
                if hashed < low & ~1 or hashed > high or (hashed == high and following is not None and not goes_on):
                    self.wrong(f"Problem in HTREE directory inode {inode.number}: block #{leaf} has bad hashes")
                    break
            low = following
        if len(seen) != inode.size // size:
            self.wrong(f"Problem in HTREE directory inode {inode.number}: blocks not referenced")

    def _connected(self) -> None:
        """Each directory is below the root, and says so itself."""
        reached = {self.fs.root}
        for ino in self.directories:
            way = []
            at = ino
            seen = set()
            while at not in reached and at in self.above and at not in seen:
                seen.add(at)
                way.append(at)
                at = self.above[at]
            if at in reached:
                reached.update(way)
            else:
                self.wrong(f"Unconnected directory inode {ino}")
            above = self.above.get(ino, self.fs.root)
            if ino in self.parents and self.parents[ino] != above and at in reached:
                self.wrong(f"'..' in directory inode {ino} is {self.parents[ino]}, should be {above}.")

    def _references(self) -> None:
        sb = self.sb
        special = {sb.journal_inode, sb.u32(0x240), sb.u32(0x244), sb.u32(0x26C)}
        if sb.compat & ORPHAN_FILE:
            special.add(sb.u32(0x280))
        for ino, links in self.links.items():
            counted = self.found.get(ino, 0)
            if ino in self.value_counts:
                if self.value_counts[ino] != self.values.get(ino, 0):
                    self.wrong(
                        f"Extended attribute inode {ino} ref count is {self.value_counts[ino]}, should be "
                        f"{self.values.get(ino, 0)}."
                    )
                continue
            if (ino < sb.first_inode and ino != self.fs.root) or ino in special:
                continue
            if not counted:
                self.wrong(f"Unattached inode {ino}")
            elif links != counted:
                directory = self.modes[ino] & 0xF000 == 0x4000
                if not (directory and links == 1 and sb.ro_compat & DIR_NLINK and counted > 2):
                    self.wrong(f"Inode {ino} ref count is {links}, should be {counted}.")
        for place, who in self.shared.items():
            data = self.fs.volume.block(place, "attributes")
            stored = int.from_bytes(data[4:8], "little")
            if stored != len(who):
                self.wrong(f"Extended attribute block {place} has reference count {stored}, should be {len(who)}.")

    # ---- bitmaps and counts

    def _bitmaps(self) -> None:
        sb = self.sb
        allocator = Allocator(self.fs)
        free_blocks = free_inodes = 0
        for number in range(sb.groups):
            try:
                group = self.fs.groups[number]
                blocks, inodes = allocator.blocks_of(number), allocator.inodes_of(number)
            except CowshedError as error:
                self.wrong(str(error))
                continue
            taken = self._taken(number)
            for what, place, used, unset in (
                ("block", group.block_bitmap, len(blocks), BLOCK_UNINIT),
                ("inode", group.inode_bitmap, len(inodes), INODE_UNINIT),
            ):
                if not (group.flags & unset and sb.gdt_csum):
                    padding = int.from_bytes(self.fs.volume.block(place), "little") >> used
                    if padding != (1 << sb.block_size * 8 - used) - 1:
                        self.wrong(f"Padding at end of {what} bitmap is not set.")
            if not (group.flags & BLOCK_UNINIT and sb.gdt_csum) or taken != blocks:
                self._differ("Block", sb.group_first_block(number), blocks, taken)
            if group.number in self.inodes:
                self._differ("Inode", number * sb.inodes_per_group + 1, inodes, self.inodes[number])
            counted = (
                taken.count(FREE), self.inodes.get(number, inodes).count(FREE), self.folders.get(number, 0)
            )  # fmt: skip
            stored = (group.free_blocks, group.free_inodes, group.directories)
            for what, was, now in zip(
                ("Free blocks count", "Free inodes count", "Directories count"), stored, counted, strict=True
            ):
                if was != now:
                    self.wrong(f"{what} wrong for group #{number} ({was}, counted={now}).")
            free_blocks += counted[0]
            free_inodes += counted[1]
            allocator.block_states.clear()
            allocator.inode_states.clear()
            self.blocks.pop(number, None)
        good = not self.count
        total = sb.u32(0xC) | (sb.u32(0x158) << 32 if sb.incompat & BIT64 else 0)
        if total != free_blocks:
            self.wrong(f"Free blocks count wrong ({total}, counted={free_blocks}).")
        if sb.u32(0x10) != free_inodes:
            self.wrong(f"Free inodes count wrong ({sb.u32(0x10)}, counted={free_inodes}).")
        self.totals = good and bool(self.count)

    def _differ(self, what: str, first: int, stored: bytearray, counted: bytearray) -> None:
        if stored == counted:
            return
        parts = array("Q")
        shown: list[str] = []
        for at, (was, now) in enumerate(zip(stored, counted, strict=True)):
            if bool(was) != bool(now):
                parts.append(first + at)
                if len(shown) < 8:
                    shown.append(f"{'+' if now else '-'}{first + at}")
        more = " ..." if len(parts) > len(shown) else ""
        self.wrong(f"{what} bitmap differences:  {' '.join(shown)}{more}")


def check(fs: ExtFileSystem, *, force: bool = False) -> tuple[int, list[str]]:
    """Do what e2fsck -p does as far as it changes nothing that is damaged: replay the journal, finish what was being
    deleted, check (when it was not clean, or with ``force``), and mark it clean when it is.

    Returns e2fsck's exit code (0 clean, 1 corrected, 4 errors left) and sentences. On a file system opened for reading
    nothing is written.
    """
    sb = fs.sb
    if fs.writable:
        from .commit import settle_replay

        settle_replay(fs)
        _ = fs.writer
        if fs.writer.changed:
            fs.sync()
    # what e2fsck does not do for a file system that is clean and has been mounted few times is not done here, too
    clean = sb.u16(0x3A) & STATE_VALID and not sb.u16(0x3A) & STATE_ERROR
    if clean and not force:
        return 0, []
    found = Check(fs).run()
    if found.count and not found.totals:
        return 4, found.problems
    if not fs.writable:
        return (4, found.problems) if found.count else (0, [])
    if found.count or not clean:
        sb.set(0x3A, sb.u16(0x3A) | STATE_VALID, 2)
        fs.recount = True
        fs.writer.super_changed = True
        fs.sync()
    return (1 if found.count else 0), found.problems
