"""rpm's SQLite database: a table Packages of (hnum, blob)."""

from __future__ import annotations

import sqlite3

from . import PackageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

MAX_BLOB = 256 << 20
#: steps of SQLite's machine, in thousands, before a database is taken for a trap
MAX_STEPS = 200_000


def blobs(data: bytes, log: bytes, path: str) -> Iterator[bytes]:
    """The headers. ``log``: the write-ahead log beside it, b"" without one. Raises PackageError."""
    try:
        yield from _rows(data, log)
    except (sqlite3.Error, sqlite3.Warning, OverflowError, ValueError, MemoryError) as error:
        raise PackageError(f"The rpm database can't be read: {error}", path=path, layer="sqlite") from error


def _rows(data: bytes, log: bytes) -> Iterator[bytes]:
    if data[:16] != b"SQLite format 3\0":
        raise sqlite3.DatabaseError("file is not a database")
    if log:
        # what the log holds counts: SQLite replays it, on a copy
        import tempfile
        from pathlib import Path

        with tempfile.TemporaryDirectory(prefix="cowshed-") as folder:
            copy = Path(folder, "rpmdb.sqlite")
            copy.write_bytes(data)
            Path(folder, "rpmdb.sqlite-wal").write_bytes(log)
            connection = sqlite3.connect(copy)
            try:
                yield from _select(connection, len(data) + len(log))
            finally:
                connection.close()
        return
    # read and write version 1: the journal's mode says nothing about a database that is in memory
    connection = sqlite3.connect(":memory:")
    try:
        connection.deserialize(data[:18] + b"\1\1" + data[20:])
        yield from _select(connection, len(data) + len(log))
    finally:
        connection.close()


def _select(connection: sqlite3.Connection, room: int) -> Iterator[bytes]:
    # a column may be computed: what is stored is no larger than the file
    left = [MAX_STEPS]

    def spend() -> int:
        left[0] -= 1
        return left[0] < 0

    connection.text_factory = bytes
    connection.set_progress_handler(spend, 1000)
    connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, MAX_BLOB)
    connection.execute("PRAGMA trusted_schema=OFF")
    connection.execute("PRAGMA cell_size_check=ON")
    kind = connection.execute("SELECT type, sql FROM sqlite_master WHERE name='Packages'").fetchone()
    # a view or a virtual table could be anything
    if kind is None or kind[0] != b"table" or b"virtual" in bytes(kind[1] or b"")[:40].lower():
        raise sqlite3.DatabaseError("no table Packages")
    connection.text_factory = _no_text
    for (blob,) in connection.execute("SELECT blob FROM Packages"):
        if isinstance(blob, bytes):
            room -= len(blob)
            if room < 0:
                raise sqlite3.DatabaseError("more than the file holds")
            yield blob


def _no_text(data: bytes) -> None:
    """A header is a blob."""
