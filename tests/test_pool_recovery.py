"""A process that dies at any system call of a verb: no pool is lost, none is half-written, the next goes on.

The child counts what it asks of the system and dies, without any cleaning up, right before its n-th call, until a run
ends by itself.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cowshed.errors import MissingPoolError, PoolError
from cowshed.pool.host import Host
from cowshed.pool.jobs import BUILD

UUID = "16182fc3-65ac-4a24-90d4-a8819df3b1d9"
#: what changes anything, or could
CALLS = (
    "open", "write", "pwrite", "ftruncate", "fsync", "rename", "unlink", "rmdir", "symlink", "mkdir", "close", "fchmod",
    "link", "makedirs",
)  # fmt: skip


def die_at(number: int, work: Callable[[], object]) -> bool:
    """Run ``work`` in a child that dies at its call ``number``; False when it ended before that."""
    pid = os.fork()
    if pid == 0:
        count = [0]

        def counted(call: Callable[..., Any]) -> Callable[..., Any]:
            def wrapper(*args: Any, **options: Any) -> Any:
                count[0] += 1
                if count[0] == number:
                    os._exit(7)
                return call(*args, **options)

            return wrapper

        try:
            for name in CALLS:
                setattr(os, name, counted(getattr(os, name)))
            work()
        except BaseException:
            import traceback

            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    assert code in (0, 7), "the verb failed by itself"
    return code == 7


def xml(folder: Path, target: str = "images") -> str:
    return f"<pool type='dir'><name>x</name><uuid>{UUID}</uuid><target><path>{folder}/{target}</path></target></pool>"


def prepare(folder: Path, state: str) -> None:
    host = Host(str(folder))
    host.store.prepare()
    if state in ("inactive", "active", "autostart"):
        pool = host.define(xml(folder))
        pool.build()
        if state != "inactive":
            pool.start()
        if state == "autostart":
            pool.set_autostart(True)
            pool.destroy()
    elif state == "transient":
        host.create(xml(folder), build=True)
    elif state == "directory":
        (folder / "images").mkdir()


#: verb, state before, what it does, what may be found when it was cut off: (active, persistent, autostart) or None
_Facts = tuple[bool, bool, bool] | None
COURSES: list[tuple[str, str, Callable[[Host, Path], object], set[_Facts]]] = [
    ("define", "nothing", lambda host, folder: host.define(xml(folder)), {None, (False, True, False)}),
    ("define over", "active", lambda host, folder: host.define(xml(folder, "new")), {(True, True, False)}),
    ("keep", "transient", lambda host, folder: host.define(xml(folder)), {(True, False, False), (True, True, False)}),
    ("create", "directory", lambda host, folder: host.create(xml(folder)), {None, (True, False, False)}),
    ("build", "inactive", lambda host, folder: host.pool("x").build(), {(False, True, False)}),
    ("start", "inactive", lambda host, folder: host.pool("x").start(), {(False, True, False), (True, True, False)}),
    ("destroy", "active", lambda host, folder: host.pool("x").destroy(), {(True, True, False), (False, True, False)}),
    ("destroy transient", "transient", lambda host, folder: host.pool("x").destroy(), {(True, False, False), None}),
    ("refresh", "active", lambda host, folder: host.pool("x").refresh(), {(True, True, False)}),
    ("delete", "inactive", lambda host, folder: host.pool("x").delete(), {(False, True, False)}),
    ("autostart", "inactive", lambda host, folder: host.pool("x").set_autostart(True),
     {(False, True, False), (False, True, True)}),
    ("autostart off", "autostart", lambda host, folder: host.pool("x").set_autostart(False),
     {(False, True, False), (False, True, True)}),
    ("undefine", "autostart", lambda host, folder: host.pool("x").undefine(),
     {(False, True, True), (False, True, False), None}),
    ("autostart run", "autostart", lambda host, folder: host.autostart(), {(False, True, True), (True, True, True)}),
]  # fmt: skip


@pytest.mark.parametrize(("verb", "before", "act", "allowed"), COURSES, ids=[course[0] for course in COURSES])
def test_killed_anywhere(
    tmp_path: Path, figures: Any, verb: str, before: str, act: Callable[[Host, Path], object], allowed: set[_Facts]
) -> None:
    seen: set[_Facts] = set()
    number = 0
    died = True
    while died:
        number += 1
        folder = tmp_path / str(number)
        folder.mkdir()
        prepare(folder, before)
        died = die_at(number, lambda: act(Host(str(folder)), folder))  # noqa: B023 - run at once
        figures.add("pools: crash points of lifecycle verbs tried")
        host = Host(str(folder))
        found = {pool.name: (pool.active, pool.persistent, pool.autostart) for pool in host.pools()}
        assert set(found) <= {"x"}
        facts = found.get("x")
        assert facts in allowed, f"after call {number}"
        seen.add(facts)
        assert host.warnings == [], "half-written"
        for pool in host.pools():
            assert pool.uuid == UUID and pool.xml() and pool.xml(inactive=True)
        go_on(folder)
    assert number > 3
    assert seen == allowed, "not every outcome was met: the courses say more than they test"


def go_on(folder: Path) -> None:
    """Whatever happened: the pool can be brought to its end and begun anew, and nothing is left then."""
    host = Host(str(folder))
    for pool in host.pools():
        if pool.active:
            pool.destroy()
    for pool in host.pools():
        pool.undefine()
    pool = host.define(xml(folder))
    assert not pool.autostart, "a link was left over"
    pool.set_autostart(True)
    pool.start(build=True)
    pool.destroy()
    pool.delete()
    pool.undefine()
    left = {path.name for path in folder.rglob("*") if not path.is_dir()}
    assert left <= {"definitions.lock", "autostart.lock", "events", "boot", "autostarted"}


def test_a_stop_that_was_cut_off_is_finished(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The storage is down already, the state says active: whoever comes next finishes it, and says so."""
    prepare(tmp_path, "active")

    def stop(self: object, pool: object) -> None:
        os.rmdir(tmp_path / "images")  # as unmounting would

    from cowshed.pool.backend.dir import DirBackend

    monkeypatch.setattr(DirBackend, "stop", stop)

    def work() -> None:
        monkeypatch.setattr("cowshed.pool.store.Store.remove_state", lambda *args: os._exit(7))
        Host(str(tmp_path)).pool("x").destroy()

    pid = os.fork()
    if pid == 0:
        work()
        os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 7
    host = Host(str(tmp_path))
    pool = host.pool("x")
    assert pool.active and pool.state == "inaccessible"
    with pytest.raises(PoolError) as caught:
        pool.claim("create", "v", BUILD)
    assert str(caught.value) == "Requested operation is not valid: storage pool 'x' is not active"
    assert host.recovered == ["pool 'x' was being stopped when its process died: it is stopped now"]
    assert not pool.active and pool.persistent


def test_full_disks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No room at any write: an error that names the file, and everything as it was."""
    import errno

    prepare(tmp_path, "inactive")
    kept = (tmp_path / "etc/libvirt/storage/x.xml").read_bytes()
    real = os.write

    def full(fd: int, data: Any) -> int:
        if len(data) > 40:
            return real(fd, bytes(data)[:40])  # the last block
        raise OSError(errno.ENOSPC, "full")

    host = Host(str(tmp_path))
    monkeypatch.setattr(os, "write", full)
    for act in (lambda: host.define(xml(tmp_path, "new")), lambda: host.pool("x").start()):
        with pytest.raises(PoolError) as caught:
            act()
        assert str(caught.value).endswith("x.xml': No space left on device") and caught.value.errno == errno.ENOSPC
    with pytest.raises(MissingPoolError):
        host.pool("y")
    monkeypatch.undo()
    assert (tmp_path / "etc/libvirt/storage/x.xml").read_bytes() == kept
    assert [(pool.name, pool.active) for pool in Host(str(tmp_path)).pools()] == [("x", False)]
    assert not list(tmp_path.rglob(".cowshed*"))


def test_a_full_disk_hides_no_pool(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """After a restart something is to be written down; whoever only looks is not bothered when that fails."""
    import errno

    prepare(tmp_path, "active")
    monkeypatch.setattr("cowshed.pool.store.boot", lambda: "another")

    def full(fd: int, data: Any) -> int:
        raise OSError(errno.ENOSPC, "full")

    monkeypatch.setattr(os, "write", full)
    host = Host(str(tmp_path))
    assert [(pool.name, pool.state) for pool in host.pools()] == [("x", "running")] and host.pool("x").uuid == UUID
