"""What a file system supplies: the one interface between a guest's files and the bytes of a device.

Everything is by inode number and by names as bytes; paths, symbolic links and mount points are the business of
tree.py. Times are nanoseconds since the epoch. Errors are `GuestError` with the POSIX number that the kernel would
give; damage is `CorruptError` (errors.py) naming structure, offset and value; what the driver does not know is
`FeatureError`.

A driver reads through a `Node` of the block engine and writes to it only in `sync`: until then what changed is kept in
memory or in a temporary overlay, so that a command either happens as a whole or not at all.
"""

from __future__ import annotations

import errno as _errno
import os

from ...errors import CowshedError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import ClassVar

    from ...block.node import Node


class GuestError(CowshedError):
    """What the kernel would have refused; ``errno`` says why, ``str()`` ends with the C library's text."""

    def __init__(self, number: int, what: str = "", *, hint: str | None = None, path: str | None = None) -> None:
        text = os.strerror(number)
        super().__init__(f"{what}: {text}" if what else text, errno=number, hint=hint, path=path)


class Stat:
    """As struct stat: ``blocks`` in units of 512 bytes, times in nanoseconds (``btime`` None where it is not kept),
    ``rdev`` as major and minor in Linux' 64-bit encoding (os.makedev)."""

    __slots__ = (
        "atime", "blksize", "blocks", "btime", "ctime", "gid", "ino", "mode", "mtime", "nlink", "rdev", "size", "uid",
    )  # fmt: skip

    def __init__(self, ino: int, mode: int) -> None:
        self.ino = ino
        self.mode = mode
        self.nlink = 1
        self.uid = 0
        self.gid = 0
        self.rdev = 0
        self.size = 0
        self.blksize = 4096
        self.blocks = 0
        self.atime = 0
        self.mtime = 0
        self.ctime = 0
        self.btime: int | None = None


class StatVfs:
    """As struct statvfs. ``fsid`` as the kernel makes it of the file system's uuid."""

    __slots__ = ("bavail", "bfree", "blocks", "bsize", "favail", "ffree", "files", "flag", "frsize", "fsid", "namemax")

    def __init__(self) -> None:
        self.bsize = self.frsize = 4096
        self.blocks = self.bfree = self.bavail = 0
        self.files = self.ffree = self.favail = 0
        self.fsid = 0
        self.flag = 0
        self.namemax = 255


class FileSystem:
    """Base of all drivers. ``open(node, writable=…)`` of each driver's module makes one.

    ``kind`` as libblkid names it; ``root`` the root directory's inode; ``label`` and ``uuid`` as blkid shows them.
    """

    kind: ClassVar[str]
    root: int

    def __init__(self, node: Node, *, writable: bool = False) -> None:
        self.node = node
        self.writable = writable
        self.label = ""
        self.uuid = ""
        self.block_size = 4096

    # ---- reading

    def stat(self, ino: int) -> Stat:
        raise NotImplementedError

    def lookup(self, directory: int, name: bytes) -> int | None:
        """The inode behind a name ("." and ".." too), None without one. GuestError ENOTDIR when it is no directory."""
        raise NotImplementedError

    def entries(self, directory: int) -> Iterator[tuple[bytes, int, str]]:
        """(name, inode, kind) of each entry in the directory's order, "." and ".." among them; kind is readdir's
        letter: r d l b c f s, u for unknown. Ends however damaged the directory is (CorruptError)."""
        raise NotImplementedError

    def extents(self, ino: int, offset: int, length: int) -> Iterator[tuple[int, int, int | None]]:
        """Where a range of a file lies, in order, without gaps: (offset, length, offset on the device or None).
        For files whose bytes lie elsewhere (inline) `read` is overridden too."""
        raise NotImplementedError

    def read(self, ino: int, offset: int, length: int) -> bytes:
        """Bytes of a regular file, fewer at its end. Large reads are made of few requests."""
        size = self.stat(ino).size
        length = max(0, min(length, size - offset))
        if not length:
            return b""
        buffer = bytearray(length)
        view = memoryview(buffer)
        for at, count, place in self.extents(ino, offset, length):
            if place is not None:
                self.node.read_into(place, view[at - offset : at - offset + count])
        return bytes(buffer)

    def readlink(self, ino: int) -> bytes:
        raise NotImplementedError

    def xattrs(self, ino: int) -> dict[bytes, bytes]:
        """Extended attributes by full name (b"security.selinux", b"system.posix_acl_access", b"user.x")."""
        return {}

    def statvfs(self) -> StatVfs:
        raise NotImplementedError

    # ---- writing. Times that a change brings with it (ctime, the directory's mtime) are ``now`` nanoseconds

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
        """A new inode of the type in ``mode`` (S_IFREG, S_IFDIR, S_IFLNK with ``target``, S_IFCHR …) under a name;
        returns its number. GuestError EEXIST, ENOSPC, ENAMETOOLONG, EROFS, EMLINK."""
        raise self._refusal("create")

    def link(self, ino: int, directory: int, name: bytes, now: int) -> None:
        raise self._refusal("link")

    def unlink(self, directory: int, name: bytes, now: int) -> None:
        """Take a name away; the inode too when it was the last. EISDIR for directories."""
        raise self._refusal("unlink")

    def rmdir(self, directory: int, name: bytes, now: int) -> None:
        """ENOTEMPTY, ENOTDIR."""
        raise self._refusal("rmdir")

    def rename(self, old: int, old_name: bytes, new: int, new_name: bytes, now: int) -> None:
        """As rename(2), replacing what may be replaced; EINVAL when a directory would become its own child."""
        raise self._refusal("rename")

    def write(self, ino: int, offset: int, data: bytes | memoryview, now: int) -> None:
        """Write into a regular file, which grows where need be."""
        raise self._refusal("write")

    def truncate(self, ino: int, size: int, now: int) -> None:
        raise self._refusal("truncate")

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
        """``mode``: permission bits only."""
        raise self._refusal("set_attributes")

    def set_xattr(self, ino: int, name: bytes, value: bytes, now: int) -> None:
        raise self._refusal("set_xattr")

    def remove_xattr(self, ino: int, name: bytes, now: int) -> None:
        """ENODATA without one."""
        raise self._refusal("remove_xattr")

    def set_label(self, label: str) -> None:
        raise self._refusal("set_label")

    def set_uuid(self, uuid: str) -> None:
        raise self._refusal("set_uuid")

    def sync(self) -> None:
        """Verify what changed and bring it to the device, in an order in which a cut leaves the old state, the new
        one, or one that the journal or ``fsck -p`` mends. Nothing has changed when it raises before its first write."""

    def discard_changes(self) -> None:
        """Forget what `sync` has not written."""

    def close(self) -> None:
        """Without `sync`: what was not synced is lost."""

    def _refusal(self, verb: str) -> GuestError:
        if not self.writable:
            return GuestError(_errno.EROFS)
        return GuestError(_errno.EOPNOTSUPP, hint=f"{verb} is not possible yet on {self.kind}")
