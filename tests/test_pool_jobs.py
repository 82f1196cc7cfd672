"""Jobs: who may do what with a volume at once, seen and cancelled from anywhere, and what the dead leave."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from cowshed.errors import CancelledError, HostCallError, PoolError, StateError, VolumeExistsError
from cowshed.pool import jobs as jobs_module
from cowshed.pool import locks
from cowshed.pool.host import Host
from cowshed.pool.jobs import BUILD, READ, WRITE, Jobs, is_part
from cowshed.pool.pool import Pool
from cowshed.progress import Progress

ALLOCATED = "Requested operation is not valid: volume 'v' is still being allocated."
IN_USE = "Requested operation is not valid: volume 'v' is still in use."


@pytest.fixture
def jobs(tmp_path: Path) -> Jobs:
    return Jobs(str(tmp_path / "state"))


@pytest.fixture
def pool(tmp_path: Path) -> Pool:
    host = Host(str(tmp_path))
    return host.create(
        f"<pool type='dir'><name>x</name><target><path>{tmp_path}/images</path></target></pool>", build=True
    )


@pytest.mark.parametrize(
    ("first", "second", "said"),
    [
        (BUILD, BUILD, ALLOCATED), (BUILD, WRITE, ALLOCATED), (BUILD, READ, ALLOCATED),
        (WRITE, BUILD, IN_USE), (WRITE, WRITE, IN_USE), (WRITE, READ, IN_USE),
        (READ, BUILD, IN_USE), (READ, WRITE, IN_USE), (READ, READ, None),
    ],
)  # fmt: skip
def test_conflicts(jobs: Jobs, first: Any, second: Any, said: str | None) -> None:
    with jobs.claim("clone", [("p", "other", BUILD), ("p", "v", first)]) as claim:
        others = Jobs(jobs.state)
        for wants in ([("p", "v", second)], [("q", "w", BUILD), ("p", "v", second)]):
            if said is None:
                others.claim("again", wants).release()
                continue
            with pytest.raises(StateError) as caught:
                others.claim("again", wants)
            assert str(caught.value) == said
            assert caught.value.hint == f"clone of 'other' (process {os.getpid()}, 0%)"
        for free in (("p", "w", BUILD), ("q", "v", WRITE), ("v", "p", BUILD)):
            others.claim("free", [free]).release()  # type: ignore[list-item]
        assert [job.id for job in others.running()] == [claim.job.id]
    others.claim("again", [("p", "v", second)]).release()
    assert os.listdir(jobs.directory) == []


@pytest.mark.parametrize("way", ["link", "same"])
def test_two_pools_of_one_directory(pool: Pool, tmp_path: Path, way: str) -> None:
    """A volume that is in use is in use, whatever its pool is called."""
    other = tmp_path / "images"
    if way == "link":
        other = tmp_path / "other"
        other.symlink_to("images")
    document = f"<pool type='dir'><name>y</name><target><path>{other}/./</path></target></pool>"
    twin = pool.host.create(document)
    volume = pool.create_volume("<volume><name>v</name><capacity>4096</capacity></volume>")
    with pool.claim("upload", "v", WRITE), pytest.raises(StateError, match="volume 'v' is still in use"):
        twin.volume("v").delete()
    with (
        pool.claim("create", "w", BUILD, beside=volume.path),
        pytest.raises(StateError, match="volume 'w' is still being allocated"),
    ):
        twin.create_volume("<volume><name>w</name><capacity>4096</capacity></volume>")
    with pool.claim("upload", "v", WRITE):
        twin.create_volume("<volume><name>w</name><capacity>4096</capacity></volume>")
    twin.volume("v").delete()


def test_nobody_else_can_lock_what_we_lock(pool: Pool) -> None:
    """Whoever may read a file may have a read lock on it, for ever."""
    own = Path(pool.host.store.own)
    with pool.claim("upload", "v", WRITE):
        files = [path for path in own.rglob("*") if path.is_file() and path.name != "boot"]
        assert {path.parent.name for path in files} >= {"jobs", "lock", "cowshed"}
        assert [path for path in files if path.stat().st_mode & 0o077] == []
    daemon = Path(pool.host.store.state, "driver.pid")
    daemon.write_text("1\n")
    with open(daemon) as file:
        assert locks.take(file.fileno(), locks.SHARED)
        assert pool.host.store.owner() is None


def test_a_stopped_process_holds_nobody_for_ever(pool: Pool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cowshed.pool.jobs._PATIENCE", 0.05)
    pool.create_volume("<volume><name>v</name><capacity>4096</capacity></volume>")
    with open(os.path.join(pool.host.store.own, "claims.lock"), "r+b") as file:
        assert locks.take(file.fileno())
        with pytest.raises(StateError, match="another process is claiming a volume"):
            pool.volume("v").wipe()
    pool.volume("v").wipe()


def test_what_others_see(jobs: Jobs) -> None:
    heard: list[tuple[int, int]] = []
    mine = Progress("clone", lambda work: heard.append((work.done, work.total)), phases=2)
    begun = time.time()
    with jobs.claim("clone", [("p", "new", BUILD), ("q", "old", READ)], beside="/images/new") as claim:
        work = claim.watch(mine)
        work.start(1000, phase=1)
        claim._last = 0.0
        work.advance(500)
        job = Jobs(jobs.state).running()[0]
        assert (job.kind, job.pool, job.volume, job.pid) == ("clone", "p", "new", os.getpid())
        assert (job.done, job.total, job.phase, job.phases, job.fraction) == (500, 1000, 1, 2, 0.75)
        assert job.part == claim.part and job.part.startswith("/images/.cowshed-") and is_part(job.part[8:])
        assert begun <= job.started <= time.time()
        assert Jobs(jobs.state).running("q") and not Jobs(jobs.state).running("r")
    assert heard == [(0, 1000), (500, 1000)]
    assert Jobs(jobs.state).running() == []


def test_figures_are_written_a_few_times_a_second(jobs: Jobs, monkeypatch: pytest.MonkeyPatch) -> None:
    written = []
    real = os.pwrite
    with jobs.claim("wipe", [("p", "v", WRITE)]) as claim:
        monkeypatch.setattr(os, "pwrite", lambda *args: (written.append(args), real(*args)))
        work = claim.watch()
        begun = time.monotonic()
        work.start(10**9)
        for _ in range(100_000):
            work.advance(1)
        spent = time.monotonic() - begun
    assert 1 <= len(written) <= 2 + 4 * spent


def test_cancelling(jobs: Jobs) -> None:
    with jobs.claim("wipe", [("p", "v", WRITE)]) as claim:
        work = claim.watch()
        work.start(100)
        Jobs(jobs.state).running()[0].cancel()
        with pytest.raises(CancelledError) as caught:
            for _ in range(200):
                work.advance(0)
                time.sleep(0.01)
        assert str(caught.value) == "operation aborted: canceled by client"
        id = claim.job.id
    assert os.listdir(jobs.directory) == []
    with pytest.raises(StateError):
        jobs.cancel(id)


WORKER = """
import sys, time
from cowshed.pool.jobs import *
from cowshed.pool.host import Host
pool = Host(sys.argv[1]).pool("x")
kind, how, name, leave = sys.argv[2:6]
path = f"{sys.argv[1]}/images/{name}"
claim = pool.claim(kind, name, how, beside=path if how == BUILD and "armed" not in leave else None)
if leave == "part":
    open(claim.part, "wb").write(b"unfinished")
elif leave == "named":
    open(claim.part, "wb").close()
    __import__("os").rename(claim.part, f"{sys.argv[1]}/images/{name}")
elif leave == "armed":
    open(f"{sys.argv[1]}/images/{name}", "wb").close()
    claim.arm()
elif leave == "disarmed":
    claim.arm()
    open(f"{sys.argv[1]}/images/{name}", "wb").close()
    claim.disarm()
claim.watch().start(100)
print("ready", flush=True)
time.sleep(60)
"""


def dead(folder: Path, *arguments: str) -> None:
    """A job of another process, which is killed in the middle of it."""
    process = subprocess.Popen([sys.executable, "-c", WORKER, str(folder), *arguments], stdout=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stdout.readline() == b"ready\n"
    host = Host(str(folder))
    assert [job.pid for job in host.jobs()] == [process.pid]
    with pytest.raises(StateError):
        host.pool("x").claim("delete", arguments[2], WRITE)
    with pytest.raises(PoolError, match="has asynchronous jobs running"):
        host.pool("x").destroy()
    assert host.recovered == []
    process.send_signal(signal.SIGKILL)
    process.wait()
    process.stdout.close()


@pytest.mark.parametrize(
    ("arguments", "note", "left"),
    [
        (("create", BUILD, "v", "part"),
         "create of volume 'v' in pool 'x' was cut off; its unfinished file was removed", []),
        (("create", BUILD, "v", "nothing"), None, []),
        (("create", BUILD, "v", "named"), None, ["v"]),
        (("create", BUILD, "v", "armed"),
         "create of volume 'v' in pool 'x' was cut off; the unfinished volume was removed", []),
        (("create", BUILD, "v", "disarmed"), None, ["v"]),
        (("wipe", WRITE, "old", "nothing"),
         "wipe of volume 'old' in pool 'x' was cut off; its contents are unfinished", []),
        (("delete", WRITE, "old", "nothing"), None, []),
        (("download", READ, "old", "nothing"), None, []),
    ],
)  # fmt: skip
def test_the_dead_are_buried(
    pool: Pool, tmp_path: Path, arguments: tuple[str, ...], note: str | None, left: list[str]
) -> None:
    (tmp_path / "images/old").write_bytes(b"x")
    dead(tmp_path, *arguments)
    host = Host(str(tmp_path))
    assert host.jobs() == []
    assert [name for name, _ in host.pool("x").volume_names()] == sorted(
        ["old", *left] if arguments[3] != "armed" else ["old", "v"]
    ), "no part is listed"
    host.pool("x").claim("create", "w", BUILD).release()
    assert host.recovered == ([note] if note else [])
    assert sorted(os.listdir(tmp_path / "images")) == sorted(["old", *left])
    assert os.listdir(host.claims.directory) == []
    assert [event.text for event in host.events(0.0, 0.0) if event.kind == "recovered"] == host.recovered
    host.pool("x").destroy()


def test_what_stood_there_before_is_never_removed(pool: Pool, tmp_path: Path) -> None:
    """A job that died before it made anything of its own."""
    (tmp_path / "images/v").write_bytes(b"precious")
    dead(tmp_path, "create", BUILD, "v", "nothing")
    pool.refresh()
    assert (tmp_path / "images/v").read_bytes() == b"precious"


def test_what_can_not_be_removed_is_tried_again(pool: Pool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dead(tmp_path, "create", BUILD, "v", "part")
    real = os.unlink

    def unlink(path: Any, *args: Any, **options: Any) -> None:
        if is_part(os.path.basename(path)):
            raise OSError(errno.EIO, "broken")
        real(path, *args, **options)

    monkeypatch.setattr(os, "unlink", unlink)
    pool.claim("create", "w", BUILD).release()
    assert len(os.listdir(pool.host.claims.directory)) == 1
    monkeypatch.undo()
    pool.claim("create", "w", BUILD).release()
    assert os.listdir(pool.host.claims.directory) == [] == os.listdir(tmp_path / "images")


def test_parts_without_a_record(pool: Pool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    images = tmp_path / "images"
    claims = pool.host.claims
    machine, boot, place = claims._where_and_when().split("-")
    long_ago = time.time() - time.clock_gettime(time.CLOCK_BOOTTIME) - 1000

    def part(words: str, old: bool = True) -> str:
        path = images / f".cowshed-{words}.part"
        path.write_bytes(b"123")
        if old:
            os.utime(path, (long_ago, long_ago))
        return path.name

    gone = [part(f"{machine}-{boot}-{place}-000000000001", old=False), part(f"{machine}-00000000-{place}-000000000002"),
            part(f"{machine}-00000000-ffffffff-000000000003"),
            part(f"{machine}-00000000-{place}-000000000008")]  # fmt: skip
    Path(claims.directory).mkdir()
    (Path(claims.directory) / f"{machine}-00000000-{place}-000000000008").touch()  # its record was cut off
    kept = [
        part(f"ffffffffffff-{boot}-{place}-000000000004"),  # of another machine
        part(f"ffffffffffff-00000000-{place}-000000000005"),
        part(f"{machine}-{boot}-ffffffff-000000000006"),  # of another tree of state, perhaps alive
        part(f"{machine}-00000000-{place}-000000000007", old=False),  # written since we came up: a twin's
        part("somebody-elses"), part("x"),
    ]  # fmt: skip
    with pool.claim("create", "v", BUILD, beside=f"{images}/v") as claim:
        Path(claim.part).write_bytes(b"alive")
        pool.refresh()
        assert sorted(os.listdir(images)) == sorted([*kept, os.path.basename(claim.part)])
        Path(claim.part).rename(images / "v")
    assert len(pool.host.recovered) == len(gone)
    assert pool.host.recovered[0] == "an unfinished file of 3 bytes was removed from pool 'x'"
    assert pool.volume_names() == [("v", f"{images}/v")]
    pool.refresh()
    assert sorted(os.listdir(images)) == sorted([*kept, "v"])


def test_a_failure_removes_the_part(pool: Pool, tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), pool.claim("create", "v", BUILD, beside=f"{tmp_path}/images/v") as claim:
        Path(claim.part).write_bytes(b"unfinished")
        raise ZeroDivisionError
    assert os.listdir(tmp_path / "images") == [] == os.listdir(pool.host.claims.directory)


def test_no_room_for_a_record(jobs: Jobs, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(fd: int, data: bytes) -> int:
        raise OSError(errno.ENOSPC, "full")

    def cut(fd: int, data: bytes, real: Any = os.write) -> int:
        return int(real(fd, data[:10]))

    for write in (fail, cut):
        monkeypatch.setattr(os, "write", write)
        with pytest.raises(HostCallError) as caught:
            jobs.claim("wipe", [("p", "v", WRITE)])
        assert caught.value.errno == errno.ENOSPC
        assert os.listdir(jobs.directory) == []
    monkeypatch.undo()
    jobs.claim("wipe", [("p", "v", WRITE)]).release()


def test_what_is_not_ours_is_left_alone(jobs: Jobs) -> None:
    os.makedirs(jobs.directory)
    for name, text in (("notes", "hello"), ("list", "[1]\n"), ("short", '{"kind": "x"}\n0 0 0 0 0\n')):
        Path(jobs.directory, name).write_text(text)
    Path(jobs.directory, ".half").write_text('{"kind"')  # somebody died before it had its name
    jobs.claim("wipe", [("p", "v", WRITE)]).release()
    assert jobs.running() == [] and jobs.sweep("p") == []
    assert sorted(os.listdir(jobs.directory)) == ["list", "notes", "short"]


def test_killed_anywhere(tmp_path: Path, figures: Any) -> None:
    """At every system call of claiming, working and releasing: the next may claim, and nothing is left."""
    from test_pool_recovery import die_at

    images = tmp_path / "images"
    images.mkdir()
    number = 0
    died = True
    jobs = Jobs(str(tmp_path / "state"))

    def work() -> None:
        with Jobs(jobs.state).claim("create", [("p", "v", BUILD)], beside=str(images / "v")) as claim:
            os.close(os.open(claim.part, os.O_CREAT | os.O_WRONLY))
            claim.watch().start(0)
            os.rename(claim.part, images / "v")

    while died:
        number += 1
        died = die_at(number, work)
        figures.add("pools: crash points of jobs tried")
        assert jobs.running() == []
        jobs.sweep("p")
        jobs.claim("create", [("p", "v", BUILD)]).release()
        assert os.listdir(jobs.directory) == [] and os.listdir(images) in ([], ["v"])
        (images / "v").unlink(missing_ok=True)
    assert number > 8


def test_eight_claim_the_same(tmp_path: Path) -> None:
    """No two ever hold what excludes, with deaths in between; a record is never seen half-written."""
    state = str(tmp_path / "state")
    inside = tmp_path / "inside"
    deadline = time.monotonic() + 4
    pids = []
    for number in range(8):
        pid = os.fork()
        if pid == 0:
            try:
                import random

                dice = random.Random(number)
                jobs = Jobs(state)
                while time.monotonic() < deadline:
                    how = dice.choice([BUILD, WRITE, READ])
                    try:
                        claim = jobs.claim("x", [("p", dice.choice("vw"), how)])
                    except StateError:
                        jobs.sweep("p")
                        continue
                    mark = f"{inside}-{claim.job.volume}"
                    if how != READ:
                        os.close(os.open(mark, os.O_CREAT | os.O_EXCL))
                        claim.watch().start(5)
                        assert claim.job.id in [job.id for job in jobs.running()]
                        os.unlink(mark)
                    else:
                        assert not os.path.exists(mark)
                    if number % 2 and dice.random() < 0.05:
                        os._exit(0)  # dies holding it
                    claim.release()
                os._exit(0)
            except BaseException:
                import traceback

                traceback.print_exc()
                os._exit(1)
        pids.append(pid)
    assert [os.waitpid(pid, 0)[1] for pid in pids] == [0] * 8
    jobs = Jobs(state)
    jobs.sweep("p")
    assert jobs.running() == [] and os.listdir(jobs.directory) == []


def test_threads_exclude_each_other_too(jobs: Jobs) -> None:
    got: list[str] = []
    tried = threading.Barrier(4)

    def work() -> None:
        try:
            with jobs.claim("x", [("p", "v", WRITE)]):
                got.append("claimed")
                tried.wait(60)
        except StateError:
            got.append("refused")
            tried.wait(60)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(got) == ["claimed", "refused", "refused", "refused"]


def test_volumes_that_have_their_name_from_the_start(
    pool: Pool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on partitions: what a dead process was making is deleted; what was there, or is whole, never."""
    from cowshed.pool.backend.files import FilesBackend

    monkeypatch.setattr(FilesBackend, "files", False)
    (tmp_path / "images/old").write_bytes(b"precious")
    with pytest.raises(VolumeExistsError):
        pool.claim("create", "old", BUILD)
    for ending in ("finish", "die"):
        pid = os.fork()
        if pid == 0:
            claim = pool.claim("create", ending, BUILD)
            (tmp_path / "images" / ending).write_bytes(b"half")
            if ending == "finish":
                claim.release()
            os._exit(0)
        assert os.waitpid(pid, 0)[1] == 0
    assert sorted(os.listdir(tmp_path / "images")) == ["die", "finish", "old"]
    pool.refresh()
    assert sorted(os.listdir(tmp_path / "images")) == ["finish", "old"]
    assert pool.host.recovered == ["create of volume 'die' in pool 'x' was cut off; the unfinished volume was removed"]


def test_two_pools_claimed_crosswise(pool: Pool, tmp_path: Path) -> None:
    """Both ways at once, while a third changes both: nobody waits for ever."""
    host = pool.host
    other = host.create(
        f"<pool type='dir'><name>a</name><target><path>{tmp_path}/other</path></target></pool>", build=True
    )
    failed: list[BaseException] = []

    def work(first: Pool, second: Pool) -> None:
        try:
            for number in range(60):
                mine = f"{threading.get_ident()}-{number}"
                first.claim("clone", mine, BUILD, also=(second, "origin", READ)).release()
                second.refresh()
        except BaseException as error:
            failed.append(error)

    threads = [threading.Thread(target=work, args=pair) for pair in ((pool, other), (other, pool), (pool, pool))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert not failed and not any(thread.is_alive() for thread in threads)


def test_names_of_the_machine_are_no_secrets() -> None:
    text = Path("/etc/machine-id").read_text() if Path("/etc/machine-id").exists() else "none"
    assert jobs_module.machine() not in text and len(jobs_module.machine()) == 12
