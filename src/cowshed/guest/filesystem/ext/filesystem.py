"""ext2, ext3 and ext4 as a `FileSystem`: reading here, changes are made by write.py, which is loaded for them."""

from __future__ import annotations

import errno

from ....errors import CorruptError, FeatureError
from ..base import FileSystem, GuestError, Stat, StatVfs
from . import blockmap, extents, superblock, xattr
from .crc import crc32c
from .directory import Directories
from .extents import Run
from .groups import Groups
from .inode import EA_INODE, ENCRYPT, EXTENTS, INLINE_DATA, Inode, Inodes
from .volume import Volume

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from ....block.node import Node
    from .journal import Journal
    from .mapping import Mapping
    from .write import Writer

#: bytes that one step of a big read takes
_INLINE = 60


class ExtFileSystem(FileSystem):
    """One ext2, ext3 or ext4 file system on ``node``.

    ``sb`` is its `Superblock`; ``notes`` are sentences about damage that was got round (a superblock or group
    descriptors read from their copies). Raises ForeignError where there is none, FeatureError for features that are
    not known (named) and, when writing, for those that can't be kept up, CorruptError for damage.
    """

    kind: str  # type: ignore[misc]
    root = 2

    def __init__(self, node: Node, *, writable: bool = False) -> None:
        super().__init__(node, writable=writable)
        self.journal: Journal | None = None
        #: the superblock's counts may be old ones: a journal was replayed, or it was not unmounted
        self.recount = False
        self._writer: Writer | None = None
        self._load()

    def _load(self) -> None:
        self.sb, self.notes = superblock.load(self.node)
        self.sb.refuse_unknown()
        if self.writable:
            self.sb.refuse_writing()
            if self.notes:
                raise CorruptError(self.notes[0], layer="ext superblock", hint="e2fsck can repair it")
            there = self.node.size // self.sb.block_size
            if self.sb.blocks > there:
                raise CorruptError(
                    f"The file system has {self.sb.blocks} blocks and its device {there}; it is not written to",
                    layer="ext superblock", field="s_blocks_count", value=self.sb.blocks, limit=there,
                    hint="the device is cut short, or e2fsck can repair it",
                )  # fmt: skip
        self._arrange()
        self.journal = None
        self.recount = not self.sb.u16(0x3A) & superblock.STATE_VALID
        # a copy of the superblock does not know whether there is something to replay
        if self.sb.compat & superblock.HAS_JOURNAL and (self.sb.incompat & superblock.RECOVER or self.notes):
            self.recount = True
            self._replay()
        if self.writable and self.sb.u16(0x3A) & superblock.STATE_ERROR:
            raise CorruptError(
                "The file system is marked as having errors; it is not written to", layer="ext superblock",
                field="s_state", value=self.sb.u16(0x3A), hint="e2fsck can repair it",
            )  # fmt: skip

    def _arrange(self) -> None:
        """What follows from the superblock."""
        sb = self.sb
        self.kind = sb.kind
        self.block_size = sb.block_size
        self.label = bytes(sb.raw[0x78:0x88]).split(b"\0")[0].decode("utf-8", "surrogateescape")
        text = sb.uuid.hex()
        self.uuid = f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}" if any(sb.uuid) else ""
        self.volume = Volume(self.node, sb)
        self.groups = Groups(self.volume, self.notes)
        self.inodes = Inodes(self.volume, self.groups)
        self.directories = Directories(self)
        #: where the blocks of directories that were searched are
        self._maps: dict[int, Mapping] = {}

    def _replay(self) -> None:
        """Bring what a dirty journal has newer into the picture; nothing is written."""
        from .journal import Journal

        journal = self.journal = Journal(self)
        blocks = journal.replay()
        if not blocks:
            return
        home = superblock.OFFSET // self.block_size
        newer = blocks.get(home)
        if newer is not None:
            at = superblock.OFFSET % self.block_size
            found = superblock.Superblock(newer[at : at + superblock.SIZE])
            found.verify()
            if (found.block_size, found.blocks_per_group, found.inodes_per_group) != (
                self.sb.block_size, self.sb.blocks_per_group, self.sb.inodes_per_group,
            ):  # fmt: skip
                raise CorruptError("ext journal: its superblock is of another file system", layer="ext journal")
            self.sb = found
            self._arrange()
        self.volume.add_replayed(blocks)
        self.groups.forget()
        self.inodes.forget()
        self.directories.forget()

    # ---- mapping

    def runs(self, inode: Inode, first: int = 0, end: int = extents.END) -> Iterator[Run]:
        """The runs of an inode's blocks that reach into [first, end) blocks."""
        if self._writer is not None:
            mapping = self._writer.mappings.get(inode.number)
            if mapping is not None:
                return mapping.within(first, end)
        if inode.flags & EXTENTS:
            return extents.runs(self.volume, inode, first, end)
        return blockmap.runs(self.volume, inode, first, end)

    def place(self, inode: Inode, logical: int) -> int | None:
        """The block on the device of one block of a file."""
        if self._writer is not None:
            mapping = self._writer.mapping(inode)
        else:
            known = self._maps.get(inode.number)
            if known is None:
                from .mapping import Mapping

                if len(self._maps) >= 64:
                    self._maps.clear()
                known = self._maps[inode.number] = Mapping(self, inode)
            mapping = known
        for run in mapping.within(logical, logical + 1):
            if not run.unwritten:
                return run.place + logical - run.first
        return None

    def extents(self, ino: int, offset: int, length: int) -> Iterator[tuple[int, int, int | None]]:
        inode = self.inodes[ino]
        if not inode.mapped:
            if length:
                yield offset, length, None
            return
        size = self.block_size
        end = offset + length
        at = offset
        for run in self.runs(inode, offset // size, -(-end // size)):
            if run.unwritten:
                continue
            start = max(at, run.first * size)
            stop = min(end, (run.first + run.count) * size)
            if stop <= start:
                continue
            if start > at:
                yield at, start - at, None
            yield start, stop - start, run.place * size + start - run.first * size
            at = stop
        if at < end:
            yield at, end - at, None

    # ---- reading

    def stat(self, ino: int) -> Stat:
        return self.inodes.live(ino).stat(self.block_size)

    def _directory(self, ino: int) -> Inode:
        inode = self.inodes.live(ino)
        if not inode.is_dir:
            raise GuestError(errno.ENOTDIR)
        return inode

    def lookup(self, directory: int, name: bytes) -> int | None:
        inode = self._directory(directory)
        if len(name) > 255:
            raise GuestError(errno.ENAMETOOLONG)
        found = self.directories.lookup(inode, name)
        return found[0] if found is not None else None

    def entries(self, directory: int) -> Iterator[tuple[bytes, int, str]]:
        return self.directories.listing(self._directory(directory))

    def read(self, ino: int, offset: int, length: int) -> bytes:
        inode = self.inodes.live(ino)
        if inode.is_dir:
            raise GuestError(errno.EISDIR)
        if not inode.is_file:
            raise GuestError(errno.EINVAL)
        return self.content(inode, offset, length)

    def content(self, inode: Inode, offset: int, length: int) -> bytes:
        """The bytes of any inode that has content."""
        if inode.flags & ENCRYPT:
            raise FeatureError(f"Inode {inode.number} is encrypted (feature encrypt)", layer="ext")
        length = max(0, min(length, inode.size - offset))
        if not length:
            return b""
        if inode.flags & INLINE_DATA:
            data = inode.block + (xattr.inline_data(inode) if inode.size > _INLINE else b"")
            if len(data) < inode.size:
                raise CorruptError(
                    f"ext inode {inode.number}: {inode.size} bytes are inline, {len(data)} are there",
                    layer=f"inode {inode.number}", field="i_size", value=inode.size, limit=len(data),
                )  # fmt: skip
            return data[offset : offset + length]
        buffer = bytearray(length)
        view = memoryview(buffer)
        for at, count, place in self.extents(inode.number, offset, length):
            if place is not None:
                self.volume.read_into(place, view[at - offset : at - offset + count])
        return bytes(buffer)

    def readlink(self, ino: int) -> bytes:
        inode = self.inodes.live(ino)
        if not inode.is_link:
            raise GuestError(errno.EINVAL)
        if inode.flags & ENCRYPT:
            raise FeatureError(f"Symbolic link {ino} is encrypted (feature encrypt)", layer="ext")
        if inode.fast_link:
            return inode.block[: inode.size].split(b"\0")[0]
        if inode.size > max(4096, self.block_size):
            raise CorruptError(
                f"ext inode {ino}: a symbolic link of {inode.size} bytes", layer=f"inode {ino}", field="i_size",
                value=inode.size, limit=self.block_size,
            )  # fmt: skip
        return self.content(inode, 0, inode.size).split(b"\0")[0]

    def xattrs(self, ino: int) -> dict[bytes, bytes]:
        return xattr.shown(self.volume, self.inodes.live(ino), self.attribute_value)

    def attribute_value(self, entry: xattr.Entry) -> bytes:
        """The value of an attribute that is in an inode of its own (feature ea_inode)."""
        inode = self.inodes.live(entry.inode)
        where = f"attribute inode {entry.inode}"
        if not inode.flags & EA_INODE or not inode.is_file or inode.size != entry.size:
            raise CorruptError(
                f"ext {where}: it is not the value of an attribute of {entry.size} bytes", layer=where,
                field="i_size", value=inode.size, limit=entry.size, hint="e2fsck can repair it",
            )  # fmt: skip
        value = self.content(inode, 0, inode.size)
        stored = int.from_bytes(inode.raw[8:12], "little")
        # values of Lustre's making have no hash, but a number that leads back
        if stored != crc32c(self.sb.seed or crc32c(0xFFFFFFFF, self.sb.uuid), value) and entry.hash:
            raise CorruptError(
                f"ext {where}: the hash is {stored:#010x}, another than that of its bytes", layer=where,
                field="hash", value=f"{stored:#010x}", hint="e2fsck can repair it",
            )  # fmt: skip
        return value

    def statvfs(self) -> StatVfs:
        from .usage import statvfs

        return statvfs(self)

    # ---- writing

    @property
    def writer(self) -> Writer:
        """Where changes are gathered. GuestError EROFS when the file system was opened for reading."""
        if self._writer is None:
            if not self.writable:
                raise GuestError(errno.EROFS)
            from .write import Writer

            self._maps.clear()
            self._writer = Writer(self)
            self._writer.prepare()
        return self._writer

    def create(
        self,
        directory: int,
        name: bytes,
        mode: int,
        uid: int,
        gid: int,
        now: int,
        *,
        rdev: int = 0,
        target: bytes = b"",
    ) -> int:
        from .names import create

        return create(self.writer, directory, name, mode, uid, gid, now, rdev, target)

    def link(self, ino: int, directory: int, name: bytes, now: int) -> None:
        from .names import link

        link(self.writer, ino, directory, name, now)

    def unlink(self, directory: int, name: bytes, now: int) -> None:
        from .names import unlink

        unlink(self.writer, directory, name, now)

    def rmdir(self, directory: int, name: bytes, now: int) -> None:
        from .names import rmdir

        rmdir(self.writer, directory, name, now)

    def rename(self, old: int, old_name: bytes, new: int, new_name: bytes, now: int) -> None:
        from .names import rename

        rename(self.writer, old, old_name, new, new_name, now)

    def write(self, ino: int, offset: int, data: bytes | memoryview, now: int) -> None:
        from .content import write

        write(self.writer, ino, offset, data, now)

    def truncate(self, ino: int, size: int, now: int) -> None:
        from .content import truncate

        truncate(self.writer, ino, size, now)

    def set_attributes(
        self,
        ino: int,
        now: int,
        *,
        mode: int | None = None,
        uid: int | None = None,
        gid: int | None = None,
        atime: int | None = None,
        mtime: int | None = None,
    ) -> None:
        from .attributes import set_attributes

        set_attributes(self.writer, ino, now, mode, uid, gid, atime, mtime)

    def set_xattr(self, ino: int, name: bytes, value: bytes, now: int) -> None:
        from .attributes import set_xattr

        set_xattr(self.writer, ino, name, value, now)

    def remove_xattr(self, ino: int, name: bytes, now: int) -> None:
        from .attributes import remove_xattr

        remove_xattr(self.writer, ino, name, now)

    def set_label(self, label: str) -> None:
        from .identity import set_label

        set_label(self, self.writer, label)

    def set_uuid(self, uuid: str) -> None:
        from .identity import set_uuid

        set_uuid(self, self.writer, uuid)

    # ---- state

    def sync(self) -> None:
        writer = self._writer
        if writer is None or not writer.changed:
            return
        from .commit import commit

        commit(self, writer)

    def discard_changes(self) -> None:
        writer = self._writer
        if writer is None:
            return
        self._writer = None
        writer.spool.close()
        if writer.changed or writer.allocator.changed_groups:
            self._load()

    def close(self) -> None:
        if self._writer is not None:
            self._writer.spool.close()
            self._writer = None
