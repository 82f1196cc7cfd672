"""Parameters of a file system, as tune2fs sets them, and files' attribute flags, as chattr sets them."""

from __future__ import annotations

import errno

from ....errors import OptionError
from ..base import GuestError
from .inode import APPEND, EXTENTS, IMMUTABLE, JOURNAL_DATA
from .superblock import BIT64

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .filesystem import ExtFileSystem

#: letters of lsattr and chattr
LETTERS = {
    "s": 0x1, "u": 0x2, "c": 0x4, "S": 0x8, "i": 0x10, "a": 0x20, "d": 0x40, "A": 0x80, "Z": 0x100, "X": 0x400,
    "E": 0x800, "I": 0x1000, "j": 0x4000, "t": 0x8000, "D": 0x10000, "T": 0x20000, "h": 0x40000, "e": 0x80000,
    "V": 0x100000, "x": 0x2000000, "N": 0x10000000, "P": 0x20000000, "F": 0x40000000,
}  # fmt: skip
#: those that can be changed
CHANGEABLE = "aAcdDeijPsStTu"
_ONLY_DIRECTORIES = LETTERS["D"] | LETTERS["T"] | LETTERS["P"]
BEHAVIORS = {"continue": 1, "remount-ro": 2, "panic": 3}


def tune(
    fs: ExtFileSystem,
    now: int,
    *,
    max_mounts: int | None = None,
    mounts: int | None = None,
    errors: str | None = None,
    gid: int | None = None,
    uid: int | None = None,
    interval: int | None = None,
    reserved_percent: float | None = None,
    reserved_blocks: int | None = None,
    last_mounted: str | None = None,
) -> None:
    """Change parameters; `sync` brings them to the device. ``errors``: a word of `BEHAVIORS`; ``interval`` in seconds.

    Raises OptionError in tune2fs' words, with nothing changed.
    """
    sb = fs.sb
    for value in (max_mounts, mounts):
        if value is not None and not -1 <= value <= 16000:
            raise OptionError(f"tune2fs: bad mounts count - {value}", field="mounts", value=value)
    for name, value in (("group", gid), ("user", uid)):
        if value is not None and not 0 <= value <= 0xFFFF:
            raise OptionError(f"tune2fs: bad gid/uid - {value}", field=name, value=value)
    if interval is not None and not 0 <= interval <= 0xFFFFFFFF:
        raise OptionError(f"tune2fs: bad interval - {interval}", field="interval", value=interval)
    if errors is not None and errors not in BEHAVIORS:
        raise OptionError(f"invalid errorbehavior parameter: {errors}", field="errors", value=errors)
    if reserved_percent is not None:
        if not 0 <= reserved_percent <= 50:
            raise OptionError(
                f"tune2fs: bad reserved block ratio - {reserved_percent}", field="reserved", value=reserved_percent
            )
        reserved_blocks = int(sb.blocks * reserved_percent / 100) if reserved_blocks is None else reserved_blocks
    if reserved_blocks is not None and not 0 <= reserved_blocks <= sb.blocks // 2:
        raise OptionError(
            f"tune2fs: reserved blocks count is too big ({reserved_blocks})", field="reserved", value=reserved_blocks
        )
    place = None if last_mounted is None else last_mounted.encode("utf-8", "surrogateescape")
    if place is not None and (len(place) > 64 or b"\0" in place):
        raise OptionError("the last mounted directory has at most 64 bytes", field="last_mounted", value=last_mounted)
    writer = fs.writer
    if max_mounts is not None:
        sb.set(0x36, (max_mounts or -1) & 0xFFFF, 2)
    if mounts is not None:
        sb.set(0x34, mounts & 0xFFFF, 2)
    if errors is not None:
        sb.set(0x3C, BEHAVIORS[errors], 2)
    if uid is not None:
        sb.set(0x50, uid, 2)
    if gid is not None:
        sb.set(0x52, gid, 2)
    if interval is not None:
        sb.set(0x44, interval)
    if reserved_blocks is not None:
        sb.set(8, reserved_blocks & 0xFFFFFFFF)
        if sb.incompat & BIT64:
            sb.set(0x154, reserved_blocks >> 32)
    if place is not None:
        sb.raw[0x88:0xC8] = place.ljust(64, b"\0")
    writer.noted(now)
    writer.super_changed = True


def attributes(fs: ExtFileSystem, number: int) -> str:
    """The letters of a file's flags, sorted. GuestError EOPNOTSUPP for what has none."""
    inode = fs.inodes.live(number)
    if not (inode.is_file or inode.is_dir):
        raise GuestError(errno.EOPNOTSUPP)
    return "".join(sorted(letter for letter, bit in LETTERS.items() if inode.flags & bit))


def set_attributes(fs: ExtFileSystem, number: int, letters: str, now: int, *, clear: bool = False) -> None:
    """Set or clear flags as FS_IOC_SETFLAGS does. GuestError EPERM on immutable files unless just that is taken away,
    EOPNOTSUPP for what the file system can't do."""
    inode = fs.inodes.live(number)
    if not (inode.is_file or inode.is_dir):
        raise GuestError(errno.EOPNOTSUPP)
    wanted = 0
    for letter in letters:
        if letter not in CHANGEABLE:
            raise GuestError(errno.EOPNOTSUPP)
        wanted |= LETTERS[letter]
    new = inode.flags & ~wanted if clear else inode.flags | wanted
    if not inode.is_dir:
        new = new & ~_ONLY_DIRECTORIES | inode.flags & _ONLY_DIRECTORIES
    if new == inode.flags:
        return
    if inode.flags & IMMUTABLE and new & IMMUTABLE:
        raise GuestError(errno.EPERM)
    if (new ^ inode.flags) & EXTENTS:
        raise GuestError(errno.EOPNOTSUPP, hint="the kind of a file's mapping is not changed")
    if new & ~inode.flags & JOURNAL_DATA and not fs.sb.journal_inode:
        raise GuestError(errno.EOPNOTSUPP)
    writer = fs.writer
    assert not (new ^ inode.flags) & ~(IMMUTABLE | APPEND | wanted)
    inode.flags = new
    inode.ctime = writer.noted(now)
    writer.touch(inode)


def set_generation(fs: ExtFileSystem, number: int, generation: int, now: int) -> None:
    """As FS_IOC_SETVERSION does: 32 bits that NFS tells old from new files by. GuestError ENOTTY where checksums are
    seeded with it, as the kernel has it."""
    if fs.sb.metadata_csum:
        raise GuestError(errno.ENOTTY)
    inode = fs.inodes.live(number)
    inode.generation = generation
    inode.ctime = fs.writer.noted(now)
    fs.writer.touch(inode)
