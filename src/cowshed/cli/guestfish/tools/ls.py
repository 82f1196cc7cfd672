"""``virt-ls``: names in a guest's directories, long and recursive listings."""

from __future__ import annotations

import os
import stat as _stat
import time

from ..getopt import Option
from .common import Tool

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ...output import Output

_OPTIONS = (
    Option("checksum", "", None),
    Option("checksums", "", None),
    Option("csv"),
    Option("extra-stat"),
    Option("extra-stats"),
    Option("human-readable", "h"),
    Option("long", "l"),
    Option("recursive", "R"),
    Option("time"),
    Option("time-days"),
    Option("time-relative"),
    Option("time-t"),
    Option("times"),
    Option("uid"),
    Option("uids"),
)
#: other names of the same
_OTHERS = {"checksums": "checksum", "extra-stat": "extra-stats", "time": "times", "uid": "uids"}


def main(argv: list[str], out: Output) -> int:
    usage = "list files in a virtual machine: virt-ls -a disk.img dir [dir ...]"
    tool = Tool("virt-ls", usage, out, options=_OPTIONS, needs="directory names", mounts=True)
    return tool.run(argv, work, check)


#: they say more of each file, which lists with it only
_DETAILS = ("checksum", "csv", "extra-stats", "time-days", "time-relative", "time-t", "times", "uids")


def check(tool: Tool) -> None:
    """Raises Stop for options that do not go together."""
    own = tool.own
    for name in own.keys() & _OTHERS.keys():
        own[_OTHERS[name]] = own.pop(name)
    if not ("long" in own and "recursive" in own) and any(name in own for name in _DETAILS):
        more = "For more information, read the virt-ls(1) man page."
        raise tool.fail(f"used a flag which can only be combined with -lR mode\n{more}")
    if "human-readable" in own and "csv" in own:
        raise tool.fail("you cannot use -h and --csv options together.")


def work(tool: Tool) -> int:
    own = tool.own
    code = 0
    for word in tool.words:
        if "recursive" in own and "long" in own:
            _long(tool, word)
        elif "recursive" in own:
            code |= tool.command("find", word)
        elif "long" in own:
            code |= tool.command("ll", word)
        else:
            code |= tool.command("ls", word)
    return code


def _long(tool: Tool, word: str) -> None:
    """One line an entry: type, mode, size, what options add, checksum, path, target."""
    from ..verbs.facts import device_number

    own = tool.own
    tree = tool.fish.session.tree
    place = tree.directory(os.fsencode(word))
    top = os.fsencode(word).rstrip(b"/")
    kind = own["checksum"] or "md5" if "checksum" in own else None
    for found in tree.walk(place):
        stat = found.stat
        letter = {
            _stat.S_IFDIR: "d", _stat.S_IFREG: "-", _stat.S_IFLNK: "l", _stat.S_IFCHR: "c", _stat.S_IFBLK: "b",
            _stat.S_IFIFO: "p", _stat.S_IFSOCK: "s",
        }.get(_stat.S_IFMT(stat.mode), "u")  # fmt: skip
        cells = [letter, f"{stat.mode & 0o7777:04o}"]
        cells.append(_human(stat.size) if "human-readable" in own else str(stat.size))
        if "uids" in own:
            cells += [f"{stat.uid:4}", f"{stat.gid:4}"]
        if "times" in own or own.keys() & {"time-t", "time-relative", "time-days"}:
            cells += [_when(own, getattr(stat, name)) for name in ("atime", "mtime", "ctime")]
        if "extra-stats" in own:
            device = device_number(tool.fish, found.place.mount.device)
            cells += [_device(device), str(stat.ino), str(stat.nlink), _device(stat.rdev), str(stat.blocks)]
        if kind is not None:
            from ....guest.search import checksum

            cells.append(checksum(kind, tree.chunks(found.place)) if letter == "-" else "")
        path = (top + b"/" + found.path if found.path else top or b"/").decode("utf-8", "surrogateescape")
        target = ""
        if letter == "l":
            target = found.place.mount.fs.readlink(found.place.number).decode("utf-8", "surrogateescape")
        if "csv" in own:
            cells += [path, target] if target else [path]
            # numbers are as wide there as in columns
            row = [cell if cell.strip().isdigit() else _quoted(cell) for cell in cells]
            tool.out.write(",".join(row) + "\n")
            continue
        widths = {0: 1, 1: 4}
        line = " ".join(f"{cell:>{widths.get(at, 10)}}" if at != 0 else cell for at, cell in enumerate(cells))
        tool.out.write(f"{line} {path}{' -> ' + target if target else ''}\n")


def _device(number: int) -> str:
    return f"{os.major(number)}:{os.minor(number)}"


def _quoted(text: str) -> str:
    if any(char in text for char in ' ",\n'):
        return '"' + text.replace('"', '""') + '"'
    return text


def _human(count: int) -> str:
    from ..verbs.facts import human_size

    return human_size(count)


def _when(own: dict[str, str | None], stamp: int) -> str:
    seconds = stamp // 10**9
    if "time-t" in own:
        return str(seconds)
    if "time-relative" in own:
        return str(int(time.time()) - seconds)
    if "time-days" in own:
        return str((int(time.time()) - seconds) // 86400)
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(seconds))
