"""What files are: stat, is-file, attributes, sums."""

from __future__ import annotations

import errno
import os
import stat as _stat

from ....guest.filesystem.base import GuestError
from ..fish import Failed, Fish
from ..table import command
from .read import pieces, put, regular, shown

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from ....guest.tree import Place

    Fields = list[tuple[str, str | bytes | int]]


def device_number(fish: Fish, device: str) -> int:
    """The number that the kernel would give a device: disks are 8:16n+partition, volumes 253:n."""
    devices = fish.session.devices
    stem = device.rstrip("0123456789")
    disks = devices.disks()
    if stem in disks:
        index = disks.index(stem)
        return os.makedev(
            (8, 65, 66, 67, 68, 69, 70, 71)[index // 16 % 8], index % 16 * 16 + int(device[len(stem) :] or 0)
        )
    names = devices.volumes()
    return os.makedev(253, names.index(device) if device in names else 0)


def stat_fields(fish: Fish, place: Place, *, nanoseconds: bool) -> Fields:
    """struct stat, or statns with nanoseconds."""
    stat = place.stat()
    pre = "st_" if nanoseconds else ""
    fields: Fields = [(f"{pre}dev", device_number(fish, place.mount.device))]
    for name in ("ino", "mode", "nlink", "uid", "gid", "rdev", "size", "blksize", "blocks"):
        fields.append((pre + name, getattr(stat, name)))
    for name in ("atime", "mtime", "ctime"):
        seconds, rest = divmod(getattr(stat, name), 10**9)
        if nanoseconds:
            fields += [(f"st_{name}_sec", seconds), (f"st_{name}_nsec", rest)]
        else:
            fields.append((name, seconds))
    if nanoseconds:
        fields += [(f"st_spare{index}", 0) for index in range(1, 7)]
    return fields


@command("stat", "path:path", "struct", help="get file information", internal="statns")
def stat(fish: Fish, path: bytes) -> Fields:
    return stat_fields(fish, fish.session.tree.resolve(path), nanoseconds=False)


@command("lstat", "path:path", "struct", help="get file information for a symbolic link", internal="lstatns")
def lstat(fish: Fish, path: bytes) -> Fields:
    return stat_fields(fish, fish.session.tree.resolve(path, follow=False), nanoseconds=False)


@command("statns", "path:path", "struct", help="get file information")
def statns(fish: Fish, path: bytes) -> Fields:
    return stat_fields(fish, fish.session.tree.resolve(path), nanoseconds=True)


@command("lstatns", "path:path", "struct", help="get file information for a symbolic link")
def lstatns(fish: Fish, path: bytes) -> Fields:
    return stat_fields(fish, fish.session.tree.resolve(path, follow=False), nanoseconds=True)


def _many(fish: Fish, path: bytes, names: list[bytes], nanoseconds: bool) -> Iterator[Fields]:
    tree = fish.session.tree
    above = tree.directory(path)
    for name in names:
        place = tree.child(above, name) if name and b"/" not in name else None
        if place is not None:
            yield stat_fields(fish, place, nanoseconds=nanoseconds)
            continue
        # a name that isn't there is told by an inode of -1
        pre = "st_" if nanoseconds else ""
        fields: Fields = [(f"{pre}dev", 0), (f"{pre}ino", -1)]
        fields += [(pre + one, 0) for one in ("mode", "nlink", "uid", "gid", "rdev", "size", "blksize", "blocks")]
        if nanoseconds:
            for one in ("atime", "mtime", "ctime"):
                fields += [(f"st_{one}_sec", 0), (f"st_{one}_nsec", 0)]
            fields += [(f"st_spare{index}", 0) for index in range(1, 7)]
        else:
            fields += [(one, 0) for one in ("atime", "mtime", "ctime")]
        yield fields


@command(
    "lstatlist", "path:path names:list", "structs", help="lstat on multiple files", internal="internal_lstatnslist"
)
def lstatlist(fish: Fish, path: bytes, names: list[bytes]) -> Iterator[Fields]:
    return _many(fish, path, names, False)


@command(
    "lstatnslist", "path:path names:list", "structs", help="lstat on multiple files", internal="internal_lstatnslist"
)
def lstatnslist(fish: Fish, path: bytes, names: list[bytes]) -> Iterator[Fields]:
    return _many(fish, path, names, True)


@command("statvfs", "path:path", "struct", help="get file system statistics", step="statvfs: ")
def statvfs(fish: Fish, path: bytes) -> Fields:
    found = fish.session.tree.statvfs(path)
    names = ("bsize", "frsize", "blocks", "bfree", "bavail", "files", "ffree", "favail", "fsid", "flag", "namemax")
    fields: Fields = [(name, getattr(found, name)) for name in names]
    # printed as signed numbers
    return [(name, value - (1 << 64) if isinstance(value, int) and value >> 63 else value) for name, value in fields]


@command("exists", "path:path", "bool", help="test if file or directory exists")
def exists(fish: Fish, path: bytes) -> bool:
    return fish.session.tree.exists(path)


def _is(fish: Fish, path: bytes, kind: int, follow: bool) -> bool:
    try:
        return _stat.S_IFMT(fish.session.tree.stat(path, follow).mode) == kind
    except GuestError as error:
        if error.errno in (errno.ENOENT, errno.ENOTDIR):
            return False
        raise


@command("is-file is-file-opts", "path:path [followsymlinks:bool]", "bool", help="test if a regular file")
def is_file(fish: Fish, path: bytes, followsymlinks: bool = False) -> bool:
    return _is(fish, path, _stat.S_IFREG, followsymlinks)


@command("is-dir is-dir-opts", "path:path [followsymlinks:bool]", "bool", help="test if a directory")
def is_dir(fish: Fish, path: bytes, followsymlinks: bool = False) -> bool:
    return _is(fish, path, _stat.S_IFDIR, followsymlinks)


@command("is-blockdev is-blockdev-opts", "path:path [followsymlinks:bool]", "bool", help="test if block device")
def is_blockdev(fish: Fish, path: bytes, followsymlinks: bool = False) -> bool:
    return _is(fish, path, _stat.S_IFBLK, followsymlinks)


@command("is-chardev is-chardev-opts", "path:path [followsymlinks:bool]", "bool", help="test if character device")
def is_chardev(fish: Fish, path: bytes, followsymlinks: bool = False) -> bool:
    return _is(fish, path, _stat.S_IFCHR, followsymlinks)


@command("is-fifo is-fifo-opts", "path:path [followsymlinks:bool]", "bool", help="test if FIFO (named pipe)")
def is_fifo(fish: Fish, path: bytes, followsymlinks: bool = False) -> bool:
    return _is(fish, path, _stat.S_IFIFO, followsymlinks)


@command("is-socket is-socket-opts", "path:path [followsymlinks:bool]", "bool", help="test if socket")
def is_socket(fish: Fish, path: bytes, followsymlinks: bool = False) -> bool:
    return _is(fish, path, _stat.S_IFSOCK, followsymlinks)


@command("is-symlink", "path:path", "bool", help="test if symbolic link")
def is_symlink(fish: Fish, path: bytes) -> bool:
    return _is(fish, path, _stat.S_IFLNK, False)


@command("is-zero", "path:path", "bool", help="test if a file contains all zero bytes", step="open: ")
def is_zero(fish: Fish, path: bytes) -> bool:
    return all(piece.count(0) == len(piece) for piece in pieces(fish, path, "open: "))


@command("filesize", "file:path", "int", help="return the size of the file in bytes")
def filesize(fish: Fish, file: bytes) -> int:
    return fish.session.tree.stat(file).size


@command("equal", "file1:path file2:path", "bool", help="test if two files have equal contents")
def equal(fish: Fish, file1: bytes, file2: bytes) -> bool:
    first, second = regular(fish, file1), regular(fish, file2)
    if first.stat().size != second.stat().size:
        return False
    tree = fish.session.tree
    return all(one == other for one, other in zip(tree.chunks(first), tree.chunks(second), strict=True))


SUMS = ("crc", "md5", "sha1", "sha224", "sha256", "sha384", "sha512")


def check_sum(kind: str) -> None:
    if kind not in SUMS:
        raise Failed(f"unknown checksum type, expecting {'|'.join(SUMS)}")


@command("checksum", "csumtype:string path:path", "string", help="compute MD5, SHAx or CRC checksum of file")
def checksum(fish: Fish, csumtype: str, path: bytes) -> str:
    from ....guest.search import checksum as count

    check_sum(csumtype)
    return count(csumtype, pieces(fish, path))


@command(
    "checksums-out",
    "csumtype:string directory:path sumsfile:out",
    help="compute MD5, SHAx or CRC checksum of files in a directory",
)
def checksums_out(fish: Fish, csumtype: str, directory: bytes, sumsfile: str) -> None:
    from ....guest.search import checksum as count

    check_sum(csumtype)
    tree = fish.session.tree
    place = tree.directory(directory)

    def lines() -> Iterator[bytes]:
        for found in tree.walk(place):
            if _stat.S_ISREG(found.stat.mode):
                yield f"{count(csumtype, tree.chunks(found.place))}  ./".encode() + found.path + b"\n"

    put(fish, sumsfile, lines())


def escaped(value: bytes) -> str:
    """Bytes as structures show them: those that C's char has as negative numbers with all the digits of an int."""
    return "".join(_ESCAPED[byte] for byte in value)


_ESCAPED = [
    chr(byte) if 32 <= byte < 127 else f"\\x{byte:02x}" if byte < 128 else f"\\xffffff{byte:02x}" for byte in range(256)
]


def _xattrs(fish: Fish, path: bytes, follow: bool) -> list[Fields]:
    found = fish.session.tree.xattrs(path, follow)
    return [[("attrname", name), ("attrval", escaped(found[name]))] for name in sorted(found)]


@command(
    "getxattrs", "path:path", "structs", help="list extended attributes of a file or directory", step="listxattr: "
)
def getxattrs(fish: Fish, path: bytes) -> list[Fields]:
    return _xattrs(fish, path, True)


@command(
    "lgetxattrs", "path:path", "structs", help="list extended attributes of a file or directory", step="listxattr: "
)
def lgetxattrs(fish: Fish, path: bytes) -> list[Fields]:
    return _xattrs(fish, path, False)


def _xattr(fish: Fish, path: bytes, name: str, follow: bool) -> bytes:
    try:
        found = fish.session.tree.xattrs(path, follow)
    except GuestError as error:
        raise Failed(f"getxattr: {os.strerror(error.errno or errno.EIO)}") from error
    value = found.get(os.fsencode(name))
    if value is None:
        raise Failed("getxattr: No data available")
    return value


@command("getxattr", "path:path name:string", "buffer", help="get a single extended attribute")
def getxattr(fish: Fish, path: bytes, name: str) -> bytes:
    return _xattr(fish, path, name, True)


@command("lgetxattr", "path:path name:string", "buffer", help="get a single extended attribute")
def lgetxattr(fish: Fish, path: bytes, name: str) -> bytes:
    return _xattr(fish, path, name, False)


@command(
    "lxattrlist", "path:path names:list", "structs", help="lgetxattr on multiple files", internal="internal_lxattrlist"
)
def lxattrlist(fish: Fish, path: bytes, names: list[bytes]) -> Iterator[Fields]:
    tree = fish.session.tree
    above = tree.directory(path)
    for name in names:
        place = tree.child(above, name) if name and b"/" not in name else None
        if place is None:
            yield [("attrname", ""), ("attrval", "")]
            continue
        found = place.mount.fs.xattrs(place.number)
        yield [("attrname", ""), ("attrval", f"{len(found)}\\x00")]
        for key in sorted(found):
            yield [("attrname", key), ("attrval", escaped(found[key]))]


@command("file", "path:place", "string", help="determine file type")
def file(fish: Fish, path: str) -> str:
    from ..magic import describe
    from .device import opened

    tree = fish.session.tree
    if path.startswith("/dev/"):
        node = opened(fish, path, "file")
        return describe(node.read(0, min(node.size, 1 << 20)))
    raw = os.fsencode(path)
    fish.check_paths_of("file", raw)
    try:
        place = tree.resolve(raw, follow=False)
    except GuestError as error:
        raise Failed(f"lstat: {error}") from error
    stat = place.stat()
    kinds = {
        _stat.S_IFDIR: "directory",
        _stat.S_IFCHR: "character device",
        _stat.S_IFBLK: "block device",
        _stat.S_IFIFO: "FIFO",
        _stat.S_IFLNK: "symbolic link",
        _stat.S_IFSOCK: "socket",
    }
    kind = kinds.get(_stat.S_IFMT(stat.mode))
    if kind is not None:
        return kind
    fs, number = place.mount.fs, place.number
    return describe(fs.read(number, 0, 1 << 20), stat.mode, lambda offset, length: fs.read(number, offset, length))


@command("zfile", "meth:string path:path", "string", help="determine file type inside a compressed file")
def zfile(fish: Fish, meth: str, path: bytes) -> str:
    """Nothing is in a file that isn't there, or isn't packed so."""
    import bz2
    import zlib

    from ..magic import describe

    if meth not in ("gzip", "compress", "bzip2"):
        raise Failed("unknown method")
    tree = fish.session.tree
    try:
        head = b"".join(tree.chunks(tree.regular(path), 0, 1 << 20))
    except GuestError:
        return describe(b"")
    if head[:2] == b"\x1f\x9d" and meth != "bzip2":
        raise Failed("what compress(1) packed is not unpacked here")
    try:
        unpacker = bz2.BZ2Decompressor() if meth == "bzip2" else zlib.decompressobj(31)
        return describe(unpacker.decompress(head, 1 << 20))
    except (OSError, zlib.error):
        return describe(b"")


@command("file-architecture", "filename:path", "string", help="detect the architecture of a binary file")
def file_architecture(fish: Fish, filename: bytes) -> str:
    from ..magic import architecture

    try:
        place = fish.session.tree.resolve(filename)
    except GuestError as error:
        raise Failed(f"lstat: {error}") from error
    plain = _stat.S_ISREG(place.stat().mode)
    found = architecture(place.mount.fs.read(place.number, 0, 4096)) if plain else None
    if found is None:
        raise Failed(f"unknown architecture: {shown(filename)}")
    return found


def _df(fish: Fish, human: bool) -> str:
    rows = []
    for mount in fish.session.tree.mounts:
        found = mount.fs.statvfs()
        total, free, room = (count * found.frsize for count in (found.blocks, found.bfree, found.bavail))
        used = total - free
        share = "-" if not used + room else f"{-(-used * 100 // (used + room))}%"
        path = "/sysroot" + shown(mount.path).rstrip("/")
        name = mount.device
        if name.count("/") == 3:
            from ....guest.devices import mapper_name

            _, _, group, volume = name.split("/")
            name = f"/dev/mapper/{mapper_name(group, volume)}"
        if human:
            cells = [name, human_size(total), human_size(used), human_size(room), share, path]
        else:
            cells = [name, *(str(-(-count // 1024)) for count in (total, used, room)), share, path]
        rows.append(cells)
    header = ["Filesystem", "Size" if human else "1K-blocks", "Used", "Avail" if human else "Available", "Use%"]
    floors = (14, 5, 4 if human else 5, 5, 4)
    widths = [
        max([floor, len(name), *(len(row[at]) for row in rows)])
        for at, (floor, name) in enumerate(zip(floors, header, strict=True))
    ]
    lines = []
    for row in [[*header, "Mounted on"], *rows]:
        right = " ".join(f"{cell:>{width}}" for cell, width in zip(row[1:5], widths[1:], strict=True))
        lines.append(f"{row[0]:<{widths[0]}} {right} {row[5]}\n")
    return "".join(lines)


def human_size(count: int) -> str:
    """As df -h: rounded up, one digit behind the point below ten."""
    if count < 1024:
        return str(count)
    power = 0
    while count >= 1024 ** (power + 1) and power < 6:
        power += 1
    unit = 1024**power
    tenths = -(-count * 10 // unit)
    if tenths < 100:
        return f"{tenths // 10}.{tenths % 10}{'KMGTPE'[power - 1]}"
    whole = -(-count // unit)
    return f"{whole}{'KMGTPE'[power - 1]}"


@command("df", "", "string", help="report file system disk space usage")
def df(fish: Fish) -> str:
    return _df(fish, False)


@command("df-h", "", "string", help="report file system disk space usage (human readable)")
def df_h(fish: Fish) -> str:
    return _df(fish, True)
