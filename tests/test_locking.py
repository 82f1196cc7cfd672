"""block/locking.py against live QEMU processes, against another process of ours, and against itself."""

from __future__ import annotations

import errno
import fcntl
import os
import signal
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

import judges
from cowshed.block import locking
from cowshed.block.locking import (
    PERM_ALL,
    PERM_CONSISTENT_READ,
    PERM_RESIZE,
    PERM_WRITE,
    PERM_WRITE_UNCHANGED,
    ROLE_CREATE,
    ROLE_DATA,
    ROLE_METADATA,
    ROLE_RAW,
    ROLE_SLICE,
    FileLocks,
    image_locks,
)
from cowshed.errors import LockError

pytestmark = pytest.mark.skipif(not locking.available(), reason="no open-file-description locks here")

FLOCK = struct.Struct("hhqqi")
NAMES = ["consistent read", "write", "write unchanged", "resize"]


def byte_lock(fd: int, byte: int, kind: int) -> None:
    fcntl.fcntl(fd, fcntl.F_OFD_SETLK, FLOCK.pack(kind, 0, byte, 1, 0))


def state(path: Path) -> tuple[int, int]:
    """The union of everyone's (perm, shared) on PATH, read off the lock bytes by a stranger."""
    fd = os.open(path, os.O_RDWR)
    try:
        perm, shared = 0, PERM_ALL
        for i in range(4):
            for base in (100, 200):
                answer = fcntl.fcntl(fd, fcntl.F_OFD_GETLK, FLOCK.pack(fcntl.F_WRLCK, 0, base + i, 1, 0))
                if FLOCK.unpack(answer)[0] != fcntl.F_UNLCK:
                    if base == 100:
                        perm |= 1 << i
                    else:
                        shared &= ~(1 << i)
        return perm, shared
    finally:
        os.close(fd)


@contextmanager
def opened(path: Path, write: bool = True) -> Iterator[FileLocks]:
    fd = os.open(path, os.O_RDWR if write else os.O_RDONLY)
    try:
        yield FileLocks(fd, str(path))
    finally:
        os.close(fd)


@contextmanager
def live(*argv: str) -> Iterator[None]:
    """A qemu-io that has its image open and waits for commands."""
    with subprocess.Popen(
        [judges.need("qemu-io"), *argv], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1
    ) as process:
        assert process.stdin is not None and process.stdout is not None
        try:
            process.stdin.write("length\n")
            assert process.stdout.readline().strip(), f"qemu-io {argv} did not open its image"
            yield
        finally:
            process.stdin.close()
            process.wait(30)


@pytest.fixture
def image(tmp_path: Path) -> Path:
    path = tmp_path / "disk.qcow2"
    judges.qemu_img("create", "-q", "-f", "qcow2", path, "10M")
    return path


@pytest.fixture
def raw(tmp_path: Path) -> Path:
    path = tmp_path / "disk.raw"
    path.write_bytes(bytes(1 << 20))
    return path


# ---- by itself -------------------------------------------------------------------------------------------


def test_every_pair_of_states(raw: Path, figures) -> None:
    """Two users get along exactly if neither uses what the other does not share; messages name the first."""
    with opened(raw) as one, opened(raw) as two:
        for perm1 in range(16):
            for shared1 in range(16):
                one.apply(perm1, shared1)
                for perm2 in range(16):
                    for shared2 in range(16):
                        denied = perm2 & ~shared1
                        intruding = perm1 & ~shared2
                        before = two.perm, two.shared
                        try:
                            two.apply(perm2, shared2)
                        except LockError as error:
                            assert denied or intruding
                            word = "" if denied else "shared "
                            first = denied or intruding
                            name = NAMES[(first & -first).bit_length() - 1]
                            assert str(error) == f'Failed to get {word}"{name}" lock'
                            assert error.hint == f"Is another process using the image [{raw}]?"
                            assert error.errno == errno.EAGAIN
                            assert (two.perm, two.shared) == before
                        else:
                            assert not denied and not intruding
                            assert (two.perm, two.shared) == (perm2, shared2)
                    figures.add("locking: pairs of states", 16)
                two.release()
                assert state(raw) == (perm1, shared1)
            one.release()
    assert state(raw) == (0, PERM_ALL)


def test_change_keeps_what_both_states_share(raw: Path) -> None:
    with opened(raw) as locks:
        for perm, shared in [(1, 15), (11, 5), (3, 15), (11, 5), (1, 5), (0, 15), (15, 0), (0, 15)]:
            locks.apply(perm, shared)
            assert state(raw) == (perm, shared) == (locks.perm, locks.shared)


def test_failed_change_restores(raw: Path) -> None:
    with opened(raw) as ours, opened(raw) as other:
        other.apply(PERM_CONSISTENT_READ, PERM_ALL & ~PERM_RESIZE)
        ours.apply(PERM_CONSISTENT_READ | PERM_WRITE, PERM_ALL & ~PERM_WRITE)
        before = state(raw)
        with pytest.raises(LockError, match='Failed to get "resize" lock'):
            ours.apply(PERM_ALL, PERM_CONSISTENT_READ)
        assert state(raw) == before
        other.release()
        ours.apply(PERM_ALL, PERM_CONSISTENT_READ)


def test_new_is_taken_before_old_is_dropped(raw: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[tuple[str, int]] = []
    real = fcntl.fcntl

    def spy(fd: int, request: int, arg: bytes) -> bytes:
        kind, _, byte, _, _ = FLOCK.unpack(arg)
        verb = "ask" if request == fcntl.F_OFD_GETLK else "drop" if kind == fcntl.F_UNLCK else "take"
        calls.append((verb, byte))
        return real(fd, request, arg)

    with opened(raw) as locks:
        locks.apply(PERM_CONSISTENT_READ, PERM_ALL)
        monkeypatch.setattr(locking.fcntl, "fcntl", spy)
        locks.apply(PERM_WRITE, PERM_ALL & ~PERM_RESIZE)
        assert calls == [("take", 101), ("take", 203), ("ask", 201), ("ask", 103), ("drop", 100)]


def test_release_is_idempotent_and_survives_a_closed_descriptor(raw: Path) -> None:
    fd = os.open(raw, os.O_RDWR)
    locks = FileLocks(fd, str(raw))
    locks.apply(PERM_ALL, 0)
    os.close(fd)
    assert state(raw) == (0, PERM_ALL)
    locks.release()
    locks.release()
    assert (locks.perm, locks.shared) == (0, PERM_ALL)


def test_transfer_leaves_no_gap(raw: Path) -> None:
    old = os.open(raw, os.O_RDONLY)
    new = os.open(raw, os.O_RDWR)
    try:
        locks = FileLocks(old, str(raw))
        locks.apply(*image_locks(ROLE_METADATA))
        locks.apply(*image_locks(ROLE_METADATA, write=True))
        moved = locks.transfer(new)
        held = state(raw)
        os.close(old)
        old = -1
        assert state(raw) == held == image_locks(ROLE_METADATA, write=True)
        moved.apply(*image_locks(ROLE_METADATA))
        assert state(raw) == image_locks(ROLE_METADATA)
        moved.release()
        assert state(raw) == (0, PERM_ALL)
    finally:
        for fd in (old, new):
            if fd >= 0:
                os.close(fd)


def test_empty_file_and_read_only_descriptor(tmp_path: Path) -> None:
    path = tmp_path / "empty"
    path.touch()
    with opened(path, write=False) as locks:
        locks.apply(PERM_ALL, 0)
        assert state(path) == (PERM_ALL, 0)


def test_file_system_that_refuses(raw: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """ENOLCK after some locks were taken: an error that says so, nothing left behind."""
    real = fcntl.fcntl

    def refuse(fd: int, request: int, arg: bytes) -> bytes:
        kind, _, byte, _, _ = FLOCK.unpack(arg)
        if request == fcntl.F_OFD_SETLK and kind == fcntl.F_RDLCK and byte == 103:
            raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))
        return real(fd, request, arg)

    with opened(raw) as locks:
        monkeypatch.setattr(locking.fcntl, "fcntl", refuse)
        with pytest.raises(LockError) as caught:
            locks.apply(*image_locks(ROLE_METADATA, write=True))
        monkeypatch.undo()
        assert str(caught.value) == "Failed to lock byte 103: No locks available"
        assert caught.value.hint is None
        assert caught.value.errno == errno.ENOLCK
        assert state(raw) == (0, PERM_ALL)


def test_question_that_fails(raw: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = fcntl.fcntl

    def refuse(fd: int, request: int, arg: bytes) -> bytes:
        if request == fcntl.F_OFD_GETLK:
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
        return real(fd, request, arg)

    with opened(raw) as locks:
        monkeypatch.setattr(locking.fcntl, "fcntl", refuse)
        with pytest.raises(LockError) as caught:
            locks.apply(PERM_CONSISTENT_READ, PERM_ALL)
        monkeypatch.undo()
        assert str(caught.value) == 'Failed to get "consistent read" lock: Invalid argument'
        assert caught.value.hint == f"Is another process using the image [{raw}]?"
        assert state(raw) == (0, PERM_ALL)


def test_host_without_such_locks(raw: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(locking, "_SETLK", None)
    monkeypatch.setattr(locking, "_available", None)
    assert not locking.available()
    with opened(raw) as one, opened(raw) as two:
        one.apply(PERM_ALL, 0)
        two.apply(PERM_ALL, 0)
        assert (two.perm, two.shared) == (PERM_ALL, 0)
        assert state(raw) == (0, PERM_ALL)
        one.transfer(two._fd).release()
        two.release()


# ---- two processes of ours -------------------------------------------------------------------------------

HOLDER = """
import os, sys
from cowshed.block.locking import FileLocks
fd = os.open(sys.argv[1], os.O_RDWR)
FileLocks(fd, sys.argv[1]).apply(int(sys.argv[2]), int(sys.argv[3]))
print("held", flush=True)
sys.stdin.read()
"""


@contextmanager
def holder(path: Path, perm: int, shared: int) -> Iterator[subprocess.Popen[str]]:
    with subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(path), str(perm), str(shared)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdin is not None and process.stdout is not None
        try:
            assert process.stdout.readline() == "held\n"
            yield process
        finally:
            process.stdin.close()
            process.wait(30)


def test_two_processes(raw: Path) -> None:
    writer = image_locks(ROLE_METADATA, write=True)
    reader = image_locks(ROLE_METADATA)
    with holder(raw, *writer) as process, opened(raw) as locks:
        for wanted, word in ((writer, ""), (reader, "shared ")):
            with pytest.raises(LockError) as caught:
                locks.apply(*wanted)
            assert str(caught.value) == f'Failed to get {word}"write" lock'
        locks.apply(*image_locks(ROLE_METADATA, force_share=True))
        locks.release()
        # locks end with the process, however it ends
        process.send_signal(signal.SIGKILL)
        process.wait(30)
        locks.apply(*writer)


def test_two_readers(raw: Path) -> None:
    reader = image_locks(ROLE_METADATA)
    with holder(raw, *reader), opened(raw) as locks:
        locks.apply(*reader)
        with pytest.raises(LockError, match='Failed to get "write" lock'):
            locks.apply(*image_locks(ROLE_METADATA, write=True))
        assert (locks.perm, locks.shared) == reader


# ---- against live QEMU -----------------------------------------------------------------------------------


def refused(command: Callable[[], object]) -> str:
    with pytest.raises(LockError) as caught:
        command()
    return f"{caught.value}\n{caught.value.hint}\n"


def qemu_refused(*argv: str) -> str:
    """What qemu-io says when it cannot open, without the words before the lock's own."""
    done = judges.run("qemu-io", "-c", "length", *argv, ok=(1,))
    text = done.stderr.partition(": can't open")[2]
    return text.partition(": ")[2]


def test_qemu_holds_for_writing(image: Path) -> None:
    with live(str(image)), opened(image) as locks:
        for argv, kind in ((["-r"], {}), ([], {"write": True})):
            ours = refused(lambda kind=kind: locks.apply(*image_locks(ROLE_METADATA, **kind)))
            assert ours == qemu_refused(*argv, str(image))
        judges.run("qemu-io", "-r", "-U", "-c", "length", image)
        locks.apply(*image_locks(ROLE_METADATA, force_share=True))
    with opened(image) as locks:
        locks.apply(*image_locks(ROLE_METADATA, write=True))


def test_qemu_holds_for_reading(image: Path) -> None:
    with live("-r", str(image)), opened(image) as locks:
        locks.apply(*image_locks(ROLE_METADATA))
        ours = refused(lambda: locks.apply(*image_locks(ROLE_METADATA, write=True)))
        assert ours == qemu_refused(str(image))


def test_qemu_finds_ours_for_writing(image: Path) -> None:
    with opened(image) as locks:
        locks.apply(*image_locks(ROLE_METADATA, write=True))
        hint = f"Is another process using the image [{image}]?\n"
        assert qemu_refused(str(image)) == f'Failed to get "write" lock\n{hint}'
        assert qemu_refused("-r", str(image)) == f'Failed to get shared "write" lock\n{hint}'
        judges.run("qemu-io", "-r", "-U", "-c", "length", image)
        done = judges.run("qemu-img", "info", image, ok=(1,))
        assert done.stderr.endswith(f"'{image}': Failed to get shared \"write\" lock\n{hint}")
        judges.run("qemu-img", "info", "-U", image)
        locks.release()
        judges.run("qemu-img", "check", "-r", "all", image)


def test_qemu_finds_ours_for_reading(image: Path) -> None:
    with opened(image) as locks:
        locks.apply(*image_locks(ROLE_METADATA))
        judges.run("qemu-img", "check", image)
        done = judges.run("qemu-img", "resize", image, "20M", ok=(1,))
        assert 'Failed to get "write" lock' in done.stderr
        judges.run("qemu-img", "info", image)


@pytest.mark.parametrize("byte", [100, 101, 102, 103, 200, 201, 202, 203])
@pytest.mark.parametrize("write", [False, True])
def test_each_byte_as_qemu_sees_it(image: Path, byte: int, write: bool) -> None:
    """A stranger holds one byte: ours and QEMU agree on whether that stops them, and on the words."""
    fd = os.open(image, os.O_RDWR)
    byte_lock(fd, byte, fcntl.F_RDLCK)
    argv = [*([] if write else ["-r"]), str(image)]
    try:
        with opened(image) as locks:
            try:
                locks.apply(*image_locks(ROLE_METADATA, write=write))
            except LockError as error:
                locks.release()
                assert f"{error}\n{error.hint}\n" == qemu_refused(*argv)
            else:
                locks.release()
                judges.run("qemu-io", "-c", "length", *argv)
    finally:
        os.close(fd)


@pytest.mark.parametrize("byte", [100, 103, 201])
def test_byte_locked_exclusively(image: Path, byte: int) -> None:
    """Not what QEMU does, but other software may: the lock itself is refused then."""
    fd = os.open(image, os.O_RDWR)
    byte_lock(fd, byte, fcntl.F_WRLCK)
    try:
        with opened(image) as locks, pytest.raises(LockError) as caught:
            locks.apply(*image_locks(ROLE_METADATA, write=True))
        assert f"{caught.value}\n" == qemu_refused(str(image))
        assert caught.value.hint is None
    finally:
        os.close(fd)


def test_roles_are_qemus(tmp_path: Path, image: Path, raw: Path) -> None:
    """image_locks gives what a live QEMU holds, for each role and mode."""
    over_raw = tmp_path / "over.qcow2"
    judges.qemu_img("create", "-q", "-f", "qcow2", "-b", raw, "-F", "raw", over_raw)
    over = tmp_path / "top.qcow2"
    judges.qemu_img("create", "-q", "-f", "qcow2", "-b", image, "-F", "qcow2", over)
    data = tmp_path / "guest.data"
    external = tmp_path / "external.qcow2"
    judges.qemu_img("create", "-q", "-f", "qcow2", "-o", f"data_file={data}", external, "1M")
    piece = f"driver=raw,offset=4096,size=4096,file.filename={raw}"

    cases: list[tuple[list[str], dict[Path, tuple[int, int]]]] = [
        ([str(image)], {image: image_locks(ROLE_METADATA, write=True)}),
        (["-r", str(image)], {image: image_locks(ROLE_METADATA)}),
        (["-r", "-U", str(image)], {image: image_locks(ROLE_METADATA, force_share=True)}),
        (["-f", "raw", str(raw)], {raw: image_locks(ROLE_RAW, write=True)}),
        (["-r", "-f", "raw", str(raw)], {raw: image_locks(ROLE_RAW)}),
        (["-r", "-U", "-f", "raw", str(raw)], {raw: image_locks(ROLE_RAW, force_share=True)}),
        ([str(over_raw)], {over_raw: image_locks(ROLE_METADATA, write=True), raw: image_locks(ROLE_RAW)}),
        ([str(over)], {over: image_locks(ROLE_METADATA, write=True), image: image_locks(ROLE_METADATA)}),
        (
            ["-r", "-U", str(over)],
            {p: image_locks(ROLE_METADATA, force_share=True) for p in (over, image)},
        ),
        (
            [str(external)],
            {external: image_locks(ROLE_METADATA, write=True), data: image_locks(ROLE_DATA, write=True)},
        ),
        (["-r", str(external)], {external: image_locks(ROLE_METADATA), data: image_locks(ROLE_DATA)}),
        (["-r", "-U", str(external)], {data: image_locks(ROLE_DATA, force_share=True)}),
        (["--image-opts", piece], {raw: image_locks(ROLE_SLICE, write=True)}),
        (["-r", "--image-opts", piece], {raw: image_locks(ROLE_SLICE)}),
    ]
    for argv, expected in cases:
        with live(*argv):
            for path, locks in expected.items():
                assert state(path) == locks, (argv, path)


def test_convert_lets_nobody_write_its_source(tmp_path: Path, raw: Path) -> None:
    # several times the copy's buffer, so that the rate limit holds it in the middle
    raw.write_bytes(os.urandom(8 << 20))
    for extra, expected in (
        ([], image_locks(ROLE_RAW, exclusive=True)),
        (["-U"], image_locks(ROLE_RAW, exclusive=True, force_share=True)),
    ):
        target = tmp_path / "target.qcow2"
        process = subprocess.Popen(
            [judges.need("qemu-img"), "convert", "-r", "64k", *extra, "-f", "raw", "-O", "qcow2", raw, target]
        )
        try:
            deadline = time.monotonic() + 30
            while not (target.exists() and state(target) == image_locks(ROLE_METADATA, write=True)):
                assert process.poll() is None and time.monotonic() < deadline
                time.sleep(0.01)
            assert state(raw) == expected
        finally:
            process.kill()
            process.wait(30)


def test_create_role_and_info(image: Path) -> None:
    """`create` uses write and resize, sharing all but resize; `info` uses nothing and shares no writing."""
    with opened(image) as locks:
        locks.apply(*image_locks(ROLE_METADATA, no_io=True))
        assert (locks.perm, locks.shared) == (0, PERM_CONSISTENT_READ | PERM_WRITE_UNCHANGED)
        done = judges.run("qemu-img", "create", "-f", "qcow2", image, "1M", ok=(1,))
        assert done.stderr.splitlines()[0].endswith('Failed to get "write" lock')
        judges.run("qemu-img", "info", image)
        locks.apply(*image_locks(ROLE_RAW, no_io=True))
        assert (locks.perm, locks.shared) == (0, PERM_ALL)
        locks.apply(*image_locks(ROLE_CREATE))
        assert (locks.perm, locks.shared) == (PERM_WRITE | PERM_RESIZE, PERM_ALL & ~PERM_RESIZE)
        done = judges.run("qemu-img", "create", "-f", "qcow2", image, "1M", ok=(1,))
        assert done.stderr.splitlines()[0].endswith('Failed to get "resize" lock')
