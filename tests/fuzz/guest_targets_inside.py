"""Fuzz targets of what is inside of guests' file systems: package databases, texts, archives, paths."""

from __future__ import annotations

import contextlib
import io
import os
import random
import sqlite3
import struct
import tarfile
from collections.abc import Callable
from pathlib import Path

from guest_fuzz import Case, Image, Target, mutate, mutate_text, target
from guest_images_small import ext_image
from guest_walks import walk

from cowshed.guest.tree import Tree

# -- packages ----------------------------------------------------------------------------------------------------------


def rpm_header(name: str, size: int = 40) -> bytes:
    """A header of a package, without its magic."""
    store, index = bytearray(), b""
    for tag, kind, value in (
        (1000, 6, name.encode() + b"\0"), (1001, 6, b"1.0\0"), (1002, 6, b"2.el9\0"), (1003, 4, struct.pack(">I", 3)),
        (1004, 9, b"words" * size + b"\0"), (1005, 9, b"x\0"), (1011, 6, b"v\0"), (1022, 6, b"x86_64\0"),
        (1044, 6, b"s.src.rpm\0"),
    ):  # fmt: skip
        store += bytes(-len(store) % 4)
        index += struct.pack(">IIII", tag, kind, len(store), 1)
        store += value
    return struct.pack(">II", len(index) // 16, len(store)) + index + store


def _rpm_sqlite(folder: Path, blobs: list[bytes]) -> bytes:
    path = folder / "rpmdb.sqlite"
    path.unlink(missing_ok=True)
    connection = sqlite3.connect(path)
    connection.execute("CREATE TABLE 'Packages' (hnum INTEGER PRIMARY KEY AUTOINCREMENT, blob BLOB NOT NULL)")
    connection.execute("CREATE TABLE 'Name' (key TEXT NOT NULL, hnum INTEGER NOT NULL, idx INTEGER NOT NULL)")
    connection.execute("CREATE INDEX 'Name_key_idx' ON 'Name'(key)")
    connection.executemany("INSERT INTO Packages (blob) VALUES (?)", [(blob,) for blob in blobs])
    connection.commit()
    connection.close()
    return path.read_bytes()


def _rpm_bdb(_: Path, blobs: list[bytes]) -> bytes:
    """A hash table of one page of pairs, large values on overflow pages."""
    size, pages = 512, []
    items: list[bytes] = [b"\1" + struct.pack("<I", 0), b"\1" + struct.pack("<I", 99)]
    for index, blob in enumerate(blobs, 1):
        items.append(b"\1" + struct.pack("<I", index))
        first = len(pages) + 2
        for at in range(0, len(blob), size - 26):
            part = blob[at : at + size - 26]
            following = len(pages) + 3 if at + size - 26 < len(blob) else 0
            pages.append(struct.pack("<8xIIIHHBB", len(pages) + 2, 0, following, 1, len(part), 0, 7) + part)
        items.append(b"\3\0\0\0" + struct.pack("<II", first, len(blob)))
    place, offsets, data = size, b"", bytearray(size)
    for item in items:
        place -= len(item)
        data[place : place + len(item)] = item
        offsets += struct.pack("<H", place)
    data[:26] = struct.pack("<8xIIIHHBB", 1, 0, 0, len(items), place, 0, 13)
    data[26 : 26 + len(offsets)] = offsets
    meta = struct.pack("<8xIIIIBBBBII", 0, 0x61561, 9, size, 0, 8, 0, 0, 0, len(pages) + 1)
    return b"".join(page.ljust(size, b"\0") for page in (meta, bytes(data), *pages))


def _rpm_ndb(_: Path, blobs: list[bytes]) -> bytes:
    from test_guest_inspect_packages import ndb

    return ndb(list(enumerate(blobs, 1)))


def _rpm(name: str, file: str, make_it: Callable[[Path, list[bytes]], bytes]) -> None:
    @target(name)
    def make(folder: Path) -> Target:
        from cowshed.guest.inspect.packages.rpm import read_rpm
        from test_guest_inspect import Memory

        data = make_it(folder, [rpm_header(f"package{index}", 200 if index == 3 else 4) for index in range(6)])
        assert len(list(read_rpm(Memory({f"/var/lib/rpm/{file}": data})))) == 6
        (folder / file).write_bytes(data)
        image = Image(folder / file)
        unit = 4096 if name != "rpm-bdb" else 512
        places = [(at, min(unit, len(data) - at)) for at in range(0, len(data), unit)]

        def run(seed: int, case: Case) -> None:
            rng = random.Random(seed)
            image.reset()
            mutate(image, rng, [*places, *places[:2]], list(range(len(places))), unit=unit)
            content = {
                f"/var/lib/rpm/{file}": image.read(0, rng.choice((len(data),) * 9 + (rng.randrange(len(data)),)))
            }
            if name == "rpm-sqlite" and seed % 4 == 0:
                content[f"/var/lib/rpm/{file}-wal"] = image.read(0, 3000)
            if case.attempt(lambda: list(read_rpm(Memory(content)))):
                case.count("read")

        return run


_rpm("rpm-sqlite", "rpmdb.sqlite", _rpm_sqlite)
_rpm("rpm-bdb", "Packages", _rpm_bdb)
_rpm("rpm-ndb", "Packages.db", _rpm_ndb)


@target("rpm-header")
def _header(folder: Path) -> Target:
    from cowshed.guest.inspect.packages.rpm import package

    path = folder / "header"
    path.write_bytes(rpm_header("name", 100))
    image = Image(path)

    def run(seed: int, case: Case) -> None:
        rng = random.Random(seed)
        image.reset()
        mutate(image, rng, [(0, 152), (0, 152), (152, image.size - 152)], list(range(1000, 1010)), unit=16)
        case.attempt(lambda: package(image.read(0, image.size), "header"))

    return run


# -- texts of a guest: everything that inspection reads, on a real file system -----------------------------------------

TEXTS: dict[bytes, bytes] = {
    b"/etc/fstab": b"UUID=0a / ext4 defaults 0 1\nLABEL=x /boot ext4 ro 0 0\n/dev/vda1 /usr ext4 defaults 0 0\n"
    b"/dev/mapper/vg-lv /var xfs bind 0 0\n/dev/nvme0n1p3 swap swap sw 0 0\n/dev/disk/by-id/x-part2 /opt\\040x ext4\n",
    b"/etc/os-release": b'NAME="Debian"\nID=debian\nVERSION_ID="12"\nPRETTY_NAME="Debian 12 \\"x\\""\nBUILD_ID=7\n',
    b"/etc/lsb-release": b"DISTRIB_ID=Ubuntu\nDISTRIB_RELEASE=22.04\nDISTRIB_DESCRIPTION='Ubuntu'\n",
    b"/etc/redhat-release": b"CentOS Linux release 7.9.2009 (Core)\n",
    b"/etc/debian_version": b"12.5\n",
    b"/etc/SuSE-release": b"openSUSE 13.2 (x86_64)\nVERSION = 13.2\nPATCHLEVEL = 3\n",
    b"/etc/hostname": b"host.example\n",
    b"/etc/sysconfig/network": b"NETWORKING=yes\nHOSTNAME=host\n",
    b"/var/lib/dpkg/status": b"Package: a\nStatus: install ok installed\nVersion: 1:2.3-4\nArchitecture: all\n"
    b"Description: words\n more\n .\n\nPackage: b\nStatus: install ok installed\nVersion: 1\n",
    b"/lib/apk/db/installed": b"P:musl\nV:1.2-r3\nA:x86_64\nT:words\n\nP:b\nV:1\n",
    b"/var/lib/pacman/local/a-1/desc": b"%NAME%\na\n\n%VERSION%\n1:2-3\n\n%DESC%\nwords\n",
    b"/bin/sh": b"\x7fELF\2\1\1" + bytes(9) + struct.pack("<HH", 3, 62) + bytes(44),
}


@target("inspection")
def _inspection(folder: Path) -> Target:
    from cowshed.guest.devices import Drive
    from cowshed.guest.filesystem import ext
    from cowshed.guest.inspect import SessionGuest, inspect
    from cowshed.guest.inspect.xml import document
    from cowshed.guest.session import Session

    image = Image(ext_image(folder, "ext4-plain"))
    image.read_only = False
    fs = ext.open(image, True)
    tree = Tree()
    tree.mount(fs, "/dev/sda", b"/", False)
    for path in TEXTS:
        tree.mkdirs(path.rpartition(b"/")[0])
    tree.sync()
    tree.close()
    image = Image(image.save(folder / "guest.img"))
    words = (
        b"/dev/sda1",
        b"/dev/sda",
        b"UUID=",
        b"LABEL=",
        b"/../..",
        b"swap",
        b"debian",
        b"centos",
        b"Status:",
        b"ID=",
    )

    def run(seed: int, case: Case) -> None:
        rng = random.Random(seed)
        image.reset()
        image.read_only = False
        fs = ext.open(image, True)
        tree = Tree()
        tree.mount(fs, "/dev/sda", b"/", False)
        for path, text in TEXTS.items():
            kind = rng.randrange(12)
            if path == b"/etc/fstab" or path == b"/bin/sh":
                kind = max(kind, 4)
            if kind == 0:
                continue
            if kind == 1:
                tree.mkdirs(path)
            elif kind == 2:
                tree.symlink(rng.choice((path, b"../../../../x", b"/proc/self/environ", b"/etc/fstab", b".")), path)
            elif kind == 3:
                tree.make(path, rng.choice((0o010644, 0o020644, 0o060644)), rdev=rng.choice((0, 259)))
            else:
                tree.write(path, [text if kind > 9 else mutate_text(text, rng, words)[: 200 << 10]])
        tree.sync()
        tree.close()
        image.read_only = True
        session = Session(readonly=True)
        drive = Drive("guest.img")
        drive._node = image
        session.devices.add(drive)
        session.running = True
        with SessionGuest(session) as guest:
            roots = inspect(guest)
            case.count("roots", len(roots))
            for root in roots:
                case.attempt(root.applications)
                case.attempt(lambda: document(roots))
                _ = root.osinfo, root.package_management, root.filesystems, root.mountpoints

    return run


# -- archives and paths ------------------------------------------------------------------------------------------------


def _archive() -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for name, kind, more in (
            ("./", tarfile.DIRTYPE, {}), ("./dir", tarfile.DIRTYPE, {}), ("./dir/file", tarfile.REGTYPE, {"size": 700}),
            ("./link", tarfile.SYMTYPE, {"linkname": "dir"}), ("./link/inner", tarfile.REGTYPE, {"size": 10}),
            ("./hard", tarfile.LNKTYPE, {"linkname": "./dir/file"}), ("./fifo", tarfile.FIFOTYPE, {}),
            ("./device", tarfile.CHRTYPE, {"devmajor": 5, "devminor": 1}), ("n" * 120, tarfile.REGTYPE, {"size": 3}),
            ("./x", tarfile.REGTYPE, {"size": 1, "pax_headers": {"SCHILY.xattr.user.a": "v", "mtime": "1.5"}}),
        ):  # fmt: skip
            entry = tarfile.TarInfo(name)
            entry.type = kind
            for field, value in more.items():
                setattr(entry, field, value)
            tar.addfile(entry, io.BytesIO(b"x" * entry.size))
    return out.getvalue()


@target("tar-in")
def _tar_in(folder: Path) -> Target:
    from cowshed.guest.archive import tar_in
    from cowshed.guest.filesystem import ext

    image = Image(ext_image(folder, "ext4-plain"))
    sound = _archive()
    names = (
        b"../../x",
        b"/abs",
        b"./link/../x",
        b".",
        b"..",
        b"",
        b"./link",
        b"directory",
        b"./dir/file/x",
        b"long link",
    )
    pax = [
        b"%d %b\n" % (len(one) + 2 + len(str(len(one) + 4)), one)
        for one in (
            b"mtime=inf",
            b"mtime=nan",
            b"mtime=-99999999999",
            b"mtime=9999999999999999999",
            b"size=-100",
            b"size=1e9",
            b"size=99999999999999999999",
            b"path=../../x",
            b"uid=99999999999",
            b"uid=-5",
            b"gid=x",
            b"linkpath=..",
            b"SCHILY.xattr.user.a=value",
            b"SCHILY.xattr.bogus=v",
            b"SCHILY.xattr.=v",
            b"GNU.sparse.size=9",
            b"SCHILY.xattr.user." + b"n" * 300 + b"=v",
            b"SCHILY.xattr.user.b=" + b"v" * 70_000,
            b"hdrcharset=BINARY",
            b"GNU.sparse.map=0,1,x,9",
            b"GNU.sparse.major=1",
            b"path=" + b"n" * 5000,
            b"path=a\0b",
            b"mtime=" + b"9" * 5000,
        )
    ] + [b"999 path=x\n", b"0 x=y\n", b"-5 a=b\n", b"\n", b"5 a\n"]

    def run(seed: int, case: Case) -> None:
        rng = random.Random(seed)
        data = bytearray(sound)
        heads = [at for at in range(0, len(data) - 512, 512) if data[at + 257 : at + 262] == b"ustar"]
        for _ in range(rng.choice((1, 1, 2, 4))):
            at = rng.choice(heads)
            kind = rng.randrange(8)
            if kind == 0:
                data[at : at + 100] = rng.choice(names).ljust(100, b"\0")
            elif kind == 1:
                data[at + 157 : at + 257] = rng.choice(names).ljust(100, b"\0")
            elif kind == 2:
                data[at + 156] = rng.choice(b"0123456789xgLKSMVDNAX\0\xff")
            elif kind == 3:
                # numbers: octal, or base 256
                where, length = rng.choice(((100, 8), (108, 8), (116, 8), (124, 12), (136, 12), (329, 8), (337, 8)))
                data[at + where : at + where + length] = rng.choice(
                    (b"7" * length, b"\x80" + b"\xff" * (length - 1), b"\xff" * length, b"-1".ljust(length, b"\0"),
                     b"\x80" + bytes(length - 4) + b"\1\0\0", rng.randbytes(length), b" " * length)
                )  # fmt: skip
            elif kind == 4:
                data[min(at + rng.randrange(512), len(data) - 1)] = rng.randrange(256)
            elif kind == 5:
                text = rng.choice(pax)
                head = bytearray(sound[:512])
                head[156], head[124:136] = ord("x"), b"%011o\0" % len(text)
                more = head + text + bytes(-len(text) % 512)
                data[at:at] = more
                heads = [one + len(more) * (one >= at) for one in heads] + [at]
            elif kind == 6:
                del data[rng.randrange(len(data)) :]
                heads = [one for one in heads if one + 512 <= len(data)] or [0]
                data += bytes(max(0, 512 - len(data)))
            else:
                other = rng.choice(heads)
                data[at : at + 512] = data[other : other + 512]
        for at in heads:
            if rng.random() < 0.95 and len(data) >= at + 512:
                data[at + 148 : at + 156] = b" " * 8
                data[at + 148 : at + 156] = b"%06o\0 " % sum(data[at : at + 512])
        image.reset()
        image.read_only = False
        fs = ext.open(image, True)
        tree = Tree()
        tree.mount(fs, "/dev/sda", b"/", False)
        into = b"/directory/inner"
        outside = [(name, fs.stat(ino).mtime) for name, ino, _ in fs.entries(fs.root) if name not in (b".", b"..")]

        def work() -> None:
            tar_in(tree, io.BytesIO(data), into, xattrs=seed % 2 == 0)
            tree.sync()

        if case.attempt(work):
            case.count("unpacked")
        tree.discard()
        assert outside == [(n, fs.stat(ino).mtime) for n, ino, _ in fs.entries(fs.root) if n not in (b".", b"..")]
        tree.close()
        image.read_only = True
        fresh = ext.open(image)
        told = Case()
        walk(fresh, told)
        assert not told.errors, told.errors

    return run


@target("paths")
def _paths(folder: Path) -> Target:
    """Strange paths through every verb on a sound file system, which stays sound."""
    from cowshed.guest.filesystem import ext
    from cowshed.guest.path import GuestPath
    from cowshed.guest.search import case_sensitive_path, glob
    from cowshed.guest.session import Session

    image = Image(ext_image(folder, "ext4-plain"))
    pieces = (
        b"", b".", b"..", b"directory", b"inner", b"leaf", b"short link", b"long link", b"loop", b"a", b"b", b"n" * 255,
        b"n" * 256, b"\xff\xfe", b"*", b"[a-", b"{a,b}", b"?", b"\\", b"file 1", b"device", b"\n", b"-rf", b"**",
        b"\0", b"holes",
    )  # fmt: skip

    def run(seed: int, case: Case) -> None:
        rng = random.Random(seed)
        image.reset()
        image.read_only = False
        session = Session()
        session.tree.mount(ext.open(image, True), "/dev/sda", b"/", False)
        tree = session.tree

        def path(pattern: bool = False) -> bytes:
            return b"/" * rng.choice((0, 1, 1, 1, 3)) + b"/".join(
                rng.choices(pieces, k=rng.choice((1, 2, 2, 3, 8) if pattern else (1, 2, 3, 8, 900)))
            )

        def change(job: Callable[[], object]) -> None:
            with session.change():
                job()

        verbs: tuple[Callable[[], object], ...] = (
            lambda: tree.symlink(path() or b"x", path()), lambda: tree.rename(path(), path()),
            lambda: tree.mkdirs(path()),
            lambda: tree.remove(path()), lambda: tree.write(path(), [b"x" * 5000]), lambda: tree.link(path(), path()),
            lambda: tree.unlink(path()), lambda: tree.rmdir(path()), lambda: tree.truncate(path(), rng.choice((0,
            1 << 60))),
            lambda: tree.stat(path()), lambda: tree.names(path()), lambda: glob(tree, path(True)),
            lambda: tree.readlink(path()),
            lambda: case_sensitive_path(tree, path()), lambda: list(tree.walk(tree.resolve(path()))),
            lambda: tree.set_attributes(path(), uid=rng.choice((-1, 1 << 32, 7)), gid=rng.choice((1 << 40, 0))),
            lambda: tree.set_attributes(path(), mtime=rng.choice((-1, 1 << 70, -(1 << 70), 0)), mode=rng.choice((-1,
            1 << 20))),
            lambda: tree.set_xattr(path(), rng.choice((b"", b"user.", b"user.x", b"bogus", b"user." + b"n" * 300)),
            b"v"),
            lambda: tree.write_at(path(), rng.choice((-1, 1 << 63, 1 << 44, 100)), b"data"),
        )  # fmt: skip
        for _ in range(12):
            if case.attempt(lambda: change(rng.choice(verbs))):
                case.count("done")
        here = GuestPath(session, path())
        case.attempt(lambda: (here.exists(), here.parts, here.suffix, here.stem, here.parents, here.parent, repr(here)))
        case.attempt(lambda: list(zip(range(500), here.walk(), strict=False)))
        pattern = os.fsdecode(path(True).replace(b"\0", b"").lstrip(b"/") or b"*")

        def search() -> None:
            # as pathlib: some patterns are the caller's mistake
            with contextlib.suppress(ValueError, NotImplementedError):
                list(zip(range(500), here.glob(pattern), strict=False))

        case.attempt(search)
        tree.close()
        image.read_only = True
        told = Case()
        walk(ext.open(image), told)
        assert not told.errors, told.errors

    return run
