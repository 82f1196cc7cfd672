"""Directories as ``ls -la`` prints them, with numbers for owners."""

from __future__ import annotations

import os
import stat as _stat
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ...guest.filesystem.base import Stat
    from ...guest.tree import Place, Tree

#: what is older, or from the future, shows its year instead of the time
_RECENT = 31556952 // 2


def listing(tree: Tree, path: bytes, *, context: bool = False) -> bytes:
    """The lines of a directory with its total, or the line of a file; links are followed. Raises GuestError."""
    place = tree.resolve(path)
    if not _stat.S_ISDIR(place.stat().mode):
        return _table(tree, [(place.path, place)], context)
    entries: list[tuple[bytes, Place]] = [(b".", place), (b"..", place.parent or place)]
    for name in tree.names(path):
        child = tree.child(place, name)
        if child is not None:
            entries.append((name, child))
    total = sum(child.stat().blocks for _, child in entries)
    return b"total %d\n" % ((total + 1) // 2) + _table(tree, entries, context)


def _table(tree: Tree, entries: list[tuple[bytes, Place]], context: bool) -> bytes:
    rows = []
    now = int(time.time())
    for name, place in entries:
        stat = place.stat()
        if _stat.S_ISLNK(stat.mode):
            name = name + b" -> " + place.mount.fs.readlink(place.number)
        xattrs = place.mount.fs.xattrs(place.number)
        mark = " "
        if b"security.selinux" in xattrs:
            mark = "."
        if b"system.posix_acl_access" in xattrs or b"system.posix_acl_default" in xattrs:
            mark = "+"
        label = xattrs.get(b"security.selinux", b"?").rstrip(b"\0").decode("utf-8", "surrogateescape")
        rows.append((stat, _stat.filemode(stat.mode), mark, label, name))
    marked = any(row[2] != " " for row in rows)
    links = max(len(str(row[0].nlink)) for row in rows)
    users = max(len(str(row[0].uid)) for row in rows)
    groups = max(len(str(row[0].gid)) for row in rows)
    labels = max(len(row[3]) for row in rows)
    devices = [row[0].rdev for row in rows if _stat.S_ISCHR(row[0].mode) or _stat.S_ISBLK(row[0].mode)]
    minors = max((len(str(os.minor(rdev))) for rdev in devices), default=0)
    majors = max((len(str(os.major(rdev))) for rdev in devices), default=0)
    sizes = [len(str(row[0].size)) for row in rows if not (_stat.S_ISCHR(row[0].mode) or _stat.S_ISBLK(row[0].mode))]
    width = max([*sizes, majors + 2 + minors if devices else 0])
    lines = []
    for stat, mode, mark, label, name in rows:
        if _stat.S_ISCHR(stat.mode) or _stat.S_ISBLK(stat.mode):
            size = f"{os.major(stat.rdev):>{width - minors - 2}}, {os.minor(stat.rdev):>{minors}}"
        else:
            size = f"{stat.size:>{width}}"
        parts = [
            mode + (mark if marked else ""),
            f"{stat.nlink:>{links}}",
            f"{stat.uid:>{users}}",
            f"{stat.gid:>{groups}}",
        ]
        if context:
            parts.append(f"{label:<{labels}}")
        parts += [size, _when(stat, now)]
        lines.append(" ".join(parts).encode("utf-8", "surrogateescape") + b" " + name + b"\n")
    return b"".join(lines)


def _when(stat: Stat, now: int) -> str:
    seconds = stat.mtime // 10**9
    try:
        parts = time.localtime(seconds)
    except (OverflowError, OSError, ValueError):
        return str(seconds)
    if now - _RECENT < seconds <= now:
        return time.strftime("%b %e %H:%M", parts)
    return time.strftime("%b %e  %Y", parts)
