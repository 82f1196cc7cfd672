"""Package databases beside their own tools: dpkg-query, rpm with SQLite and Berkeley DB; ndb, apk, pacman; damage."""

from __future__ import annotations

import random
import sqlite3
import struct
import subprocess
import time
import zlib
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import judges
from cowshed.guest.inspect.application import Application
from cowshed.guest.inspect.packages import PackageError
from cowshed.guest.inspect.packages.dpkg import paragraphs, read_dpkg
from cowshed.guest.inspect.packages.others import read_apk, read_pacman
from cowshed.guest.inspect.packages.rpm import MAX_DATABASE, package, read_header, read_rpm
from test_guest_inspect import Memory

SPEC = """
Name: {name}
Version: {version}
Release: {release}
{epoch}
Summary: {summary}
License: MIT
{noarch}
{url}
{vendor}
%description
{description}
%files
%changelog
{changelog}
"""

#: name, version, release, epoch, noarch, summary, vendor
WANTED = [
    ("alpha", "1.0", "1", 0, True, "The first", "Example Ltd."),
    ("beta-libs", "2.3.4~rc1", "5.el9", 3, False, "Libraries of beta, größer", ""),
    ("c", "0", "0", 0, True, "c", ""),
    ("delta-with-a-long-name", "20240101git", "100.fc43", 12, True, "A long one", "Example Ltd."),
]


def built(folder: Path) -> Path:
    """A SQLite database of rpm's own with the packages of WANTED."""
    db = folder / "db"
    judges.run("rpm", "--dbpath", str(db), "--initdb")
    paths = []
    for name, version, release, epoch, noarch, summary, vendor in WANTED:
        spec = folder / f"{name}.spec"
        # the longest has a changelog that fills many overflow pages
        long = "\n\n".join(
            f"* Mon Jan 01 2024 A B <a@b> - {index}\n- {random.Random(index).randbytes(60).hex()}"
            for index in range(900 if name.startswith("delta") else 0)
        )
        spec.write_text(
            SPEC.format(
                name=name,
                version=version,
                release=release,
                epoch=f"Epoch: {epoch}" if epoch else "",
                noarch="BuildArch: noarch" if noarch else "",
                url="URL: https://example.org/" + name,
                vendor=f"Vendor: {vendor}" if vendor else "",
                summary=summary,
                description=f"About {name}.\n\nTwo paragraphs.",
                changelog=long,
            )
        )
        judges.run("rpmbuild", "-bb", "-D", f"_topdir {folder}", "-D", f"dbpath {db}", str(spec), timeout=120)
    paths = sorted(str(path) for path in folder.glob("RPMS/*/*.rpm"))
    assert len(paths) == len(WANTED)
    judges.run("rpm", "--dbpath", str(db), "-i", "--justdb", "--nodeps", "--ignorearch", *paths)
    return db


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    judges.need("rpmbuild")
    return built(tmp_path_factory.mktemp("rpm"))


QUERY = r"%{NAME}\t%|EPOCH?{%{EPOCH}}:{0}|\t%{VERSION}\t%{RELEASE}\t%{ARCH}\t%{URL}\t%{SOURCERPM}\t%{SUMMARY}\n"


def judged(db: Path, *options: str) -> list[str]:
    out = judges.run("rpm", "--dbpath", str(db), *options, "-qa", "--qf", QUERY).stdout
    return sorted(out.splitlines())


def rows(found: list[Application]) -> list[str]:
    return sorted(
        f"{one.name}\t{one.epoch}\t{one.version}\t{one.release}\t{one.arch}\t{one.url}\t{one.source_package}\t{one.summary}"
        for one in found
    )


def of(**files: bytes) -> list[Application]:
    return list(read_rpm(Memory({f"/var/lib/rpm/{name}": data for name, data in files.items()})))


def sqlite_files(db: Path) -> dict[str, bytes]:
    return {name: (db / name).read_bytes() for name in ("rpmdb.sqlite", "rpmdb.sqlite-wal") if (db / name).exists()}


def headers(db: Path) -> list[tuple[int, bytes]]:
    with sqlite3.connect(db / "rpmdb.sqlite") as connection:
        return list(connection.execute("SELECT hnum, blob FROM Packages"))


def test_rpm_sqlite(database: Path) -> None:
    found = of(**sqlite_files(database))
    assert rows(found) == judged(database)
    assert len(found) == len(WANTED)
    by_name = {one.name: one for one in found}
    for name, version, release, epoch, noarch, summary, vendor in WANTED:
        one = by_name[name]
        assert (one.version, one.release, one.epoch, one.summary) == (version, release, epoch, summary)
        assert one.description == f"About {name}.\n\nTwo paragraphs."
        assert one.publisher == vendor
        assert (one.arch == "noarch") == noarch


def test_rpm_sqlite_with_a_write_ahead_log(tmp_path: Path, database: Path) -> None:
    copy = tmp_path / "rpmdb.sqlite"
    copy.write_bytes((database / "rpmdb.sqlite").read_bytes())
    connection = sqlite3.connect(copy)
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("PRAGMA wal_autocheckpoint=0")
    connection.execute("DELETE FROM Packages WHERE hnum=(SELECT min(hnum) FROM Packages)")
    connection.commit()
    # as a guest that was cut off leaves it: the deletion stands in the log alone
    files = sqlite_files(tmp_path)
    connection.close()
    assert files["rpmdb.sqlite-wal"]
    assert len(of(**files)) == len(WANTED) - 1


def bdb(folder: Path, database: Path, *, order: str = "1234", page: int = 4096) -> bytes:
    """The same packages in a hash table made by Berkeley DB itself."""
    lines = ["VERSION=3", "format=bytevalue", "type=hash", f"db_lorder={order}", f"db_pagesize={page}", "HEADER=END"]
    pack = "<I" if order == "1234" else ">I"
    lines += [" " + struct.pack(pack, 0).hex(), " " + struct.pack(pack, 99).hex()]
    for number, blob in headers(database):
        lines += [" " + struct.pack(pack, number).hex(), " " + blob.hex()]
    lines.append("DATA=END\n")
    folder.mkdir(exist_ok=True)
    subprocess.run(
        [judges.need("db5.3_load"), "-h", str(folder), "Packages"], input="\n".join(lines), text=True, check=True,
        timeout=60,
    )  # fmt: skip
    return (folder / "Packages").read_bytes()


@pytest.mark.parametrize("order", ["1234", "4321"])
@pytest.mark.parametrize("page", [512, 4096, 65536])
def test_rpm_berkeley_db(tmp_path: Path, database: Path, order: str, page: int) -> None:
    data = bdb(tmp_path / "bdb", database, order=order, page=page)
    assert rows(of(Packages=data)) == judged(database)
    if order == "1234" and page == 4096:
        assert judged(tmp_path / "bdb", "-D", "_db_backend bdb_ro") == judged(database)


def ndb(blobs: list[tuple[int, bytes]]) -> bytes:
    """rpm's ndb, as its format says; no tool here writes one."""
    slots, body = b"", b""
    for number, blob in blobs:
        part = struct.pack("<4sIII", b"BlbS", number, 1, len(blob)) + blob
        padded = -(-(len(part) + 12) // 16) * 16
        part = part.ljust(padded - 12, b"\0")
        part += struct.pack("<II4s", zlib.adler32(part), len(blob), b"BlbE")
        slots += struct.pack("<4sIII", b"Slot", number, (4096 + len(body)) // 16, padded // 16)
        body += part
    slots += struct.pack("<4sIII", b"Slot", 0, 0, 0) * ((4096 - 32 - len(slots)) // 16)
    return struct.pack("<4sIIIIIII", b"RpmP", 0, 1, 1, len(blobs) + 1, 0, 0, 0) + slots + body


def test_rpm_ndb(database: Path) -> None:
    data = ndb(headers(database))
    assert rows(of(**{"Packages.db": data})) == judged(database)


def test_damaged_databases_are_refused(tmp_path: Path, database: Path) -> None:
    good = {
        "rpmdb.sqlite": (database / "rpmdb.sqlite").read_bytes(),
        "Packages.db": ndb(headers(database)),
        "Packages": bdb(tmp_path / "bdb", database),
    }
    dice = random.Random(7)
    outcomes = {True: 0, False: 0}
    begun = time.process_time()
    for name, data in good.items():
        for _ in range(150):
            broken = bytearray(data)
            # most of the damage where the structure is
            for _ in range(dice.choice((1, 4, 40))):
                broken[dice.randrange(dice.choice((200, len(broken))))] = dice.randrange(256)
            try:
                of(**{name: bytes(broken[: dice.choice((len(broken), dice.randrange(len(broken))))])})
                outcomes[True] += 1
            except PackageError as error:
                outcomes[False] += 1
                assert error.path == f"/var/lib/rpm/{name}"
    assert outcomes[False] > 50 and outcomes[True] > 5
    assert time.process_time() - begun < 60


def test_sqlite_traps(tmp_path: Path) -> None:
    """A view that never ends, tables that are programs, rows that are larger than the database."""
    for sql in (
        "CREATE VIEW Packages AS WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x+1 FROM n) SELECT x AS blob FROM n",
        "CREATE VIRTUAL TABLE Packages USING fts5(blob)",
        "CREATE TABLE other(x)",
        "CREATE TABLE Packages(blob AS (zeroblob(20000000)), y)",
    ):
        path = tmp_path / "trap"
        path.unlink(missing_ok=True)
        with sqlite3.connect(path) as connection:
            connection.execute(sql)
            if "y)" in sql:
                connection.executemany("INSERT INTO Packages(y) VALUES(?)", [(index,) for index in range(3)])
        connection.close()
        begun = time.process_time()
        with pytest.raises(PackageError):
            of(**{"rpmdb.sqlite": path.read_bytes()})
        assert time.process_time() - begun < 20


def test_too_large_a_database() -> None:
    class Large(Memory):
        def size(self, path: str) -> int:
            return MAX_DATABASE + 1 if path.endswith("rpmdb.sqlite") else 0

    with pytest.raises(PackageError, match="too many"):
        list(read_rpm(Large({})))


def test_bdb_chain_that_bites_its_tail(tmp_path: Path, database: Path) -> None:
    data = bytearray(bdb(tmp_path / "bdb", database))
    pages = [at for at in range(0, len(data), 4096) if data[at + 25] == 7]
    assert len(pages) > 3
    for at in pages:
        struct.pack_into("<I", data, at + 16, at // 4096)
    with pytest.raises(PackageError, match="chain"):
        of(Packages=bytes(data))


@settings(max_examples=300, deadline=None)
@given(data=st.data())
def test_any_header(data: st.DataObject) -> None:
    count = data.draw(st.integers(0, 4))
    body = b"name\0" + data.draw(st.binary(max_size=40))
    blob = struct.pack(">II", data.draw(st.one_of(st.just(count), st.integers(0, 2**32 - 1))), len(body))
    for _ in range(count):
        blob += struct.pack(
            ">IIII",
            data.draw(st.sampled_from([1000, 1001, 1003, 1004, 1005, 5])),
            data.draw(st.sampled_from([4, 6, 8, 9, 7])),
            data.draw(st.integers(0, 50)),
            data.draw(st.integers(0, 3)),
        )
    try:
        read_header(blob + body, "x")
        package(blob + body, "x")
    except PackageError:
        pass


# -- the others -------------------------------------------------------------------------------------------------------


def test_dpkg_of_this_machine() -> None:
    """All packages of a real status file, as dpkg-query shows them."""
    shown = judges.run(
        "dpkg-query", "-W", "-f",
        "${Package}\\t${Version}\\t${Architecture}\\t${Homepage}\\t${source:Package}\\t${db:Status-Status}"
        "\\t${binary:Synopsis}\\n",
    ).stdout.splitlines()  # fmt: skip
    wanted = set()
    for line in shown:
        name, version, arch, home, source, status, summary = line.split("\t")
        if status == "installed":
            wanted.add((name, version, arch, home, source, summary.rstrip()))
    found = set()
    for one in read_dpkg(Memory({"/var/lib/dpkg/status": Path("/var/lib/dpkg/status").read_bytes()})):
        version = (f"{one.epoch}:" if one.epoch else "") + one.version + (f"-{one.release}" if one.release else "")
        found.add((one.name, version, one.arch, one.url, one.source_package or one.name, one.summary))
    zero_epoch = {(row[0], row[1].removeprefix("0:"), *row[2:]) for row in wanted}
    assert len(found) > 100
    assert found == zero_epoch


def test_dpkg_details() -> None:
    text = b"""Package: gone
Status: deinstall ok config-files
Version: 1

Package: b
Status: install ok installed
Version: 2:1.0-beta-3
Description: short
 long line
 .
 and another

no field
Version
Package:

"""
    (one,) = read_dpkg(Memory({"/var/lib/dpkg/status": text}))
    assert (one.name, one.epoch, one.version, one.release) == ("b", 2, "1.0-beta", "3")
    assert (one.summary, one.description) == ("short", "long line\n.\nand another")
    (two,) = read_dpkg(Memory({"/var/lib/dpkg/status.d/c": b"Package: c\nVersion: 7\n"}))
    assert (two.name, two.version, two.release) == ("c", "7", "")
    assert [name for name, _ in two.fields()][:6] == [
        "app2_name", "app2_display_name", "app2_epoch", "app2_version", "app2_release", "app2_arch",
    ]  # fmt: skip


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=300))
def test_any_status_file(data: bytes) -> None:
    list(paragraphs(data))
    list(read_dpkg(Memory({"/var/lib/dpkg/status": b"Package: a\nVersion: " + data})))
    list(read_apk(Memory({"/lib/apk/db/installed": b"P:a\nV:" + data})))
    list(read_pacman(Memory({"/var/lib/pacman/local/a-1/desc": b"%NAME%\na\n\n%VERSION%\n" + data})))


def test_apk() -> None:
    text = b"""C:Q1abc=
P:musl
V:1.2.4-r2
A:x86_64
T:the musl c library (libc) implementation
U:https://musl.libc.org/
o:musl
m:Some One <one@example.org>

P:zlib
V:1.2.13-r1
A:x86_64
"""
    one, two = read_apk(Memory({"/lib/apk/db/installed": text}))
    assert (one.name, one.version, one.release, one.arch) == ("musl", "1.2.4", "r2", "x86_64")
    assert one.url == "https://musl.libc.org/"
    assert repr(two) == "<Application zlib 0:1.2.13-r1 x86_64>"


def test_pacman() -> None:
    text = b"%NAME%\nvim\n\n%VERSION%\n2:9.0.1-3\n\n%BASE%\nvim\n\n%DESC%\nVi Improved\n\n%URL%\nhttps://v\n\n%ARCH%\nx86_64\n"
    (one,) = read_pacman(
        Memory({"/var/lib/pacman/local/vim-2:9.0.1-3/desc": text, "/var/lib/pacman/local/ALPM_DB_VERSION": b"9\n"})
    )
    assert (one.name, one.epoch, one.version, one.release, one.arch) == ("vim", 2, "9.0.1", "3", "x86_64")
    assert (one.summary, one.url) == ("Vi Improved", "https://v")
