"""Pools' lifecycle: libvirt's table of what is allowed in which state, its words, and several processes at once."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cowshed.cli.output import Output
from cowshed.errors import (
    ConfigError,
    CowshedError,
    DefinitionError,
    DocumentError,
    HostCallError,
    MissingPoolError,
    MissingVolumeError,
    NoSupportError,
    OperationError,
    PoolError,
    ReadOnlyAccessError,
    StateError,
)
from cowshed.pool.host import Host
from cowshed.pool.jobs import READ, WRITE
from cowshed.pool.pool import Pool
from cowshed.pool.store import Lock, Store
from cowshed.wire.libvirt.definition import PoolDef

UUID = "16182fc3-65ac-4a24-90d4-a8819df3b1d9"
OTHER_UUID = "26182fc3-65ac-4a24-90d4-a8819df3b1d9"


class Yard:
    """A tree of state, and a pool "x" in each of the states that the table has."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.host = Host(str(folder))

    def xml(self, name: str = "x", uuid: str | None = UUID, target: str | None = None) -> str:
        said = f"<uuid>{uuid}</uuid>" if uuid else ""
        path = target or str(self.folder / f"dir-{name}")
        return f"<pool type='dir'><name>{name}</name>{said}<target><path>{path}</path></target></pool>"

    def inactive(self) -> Pool:
        pool = self.host.define(self.xml())
        pool.build()
        return pool

    def active(self) -> Pool:
        pool = self.inactive()
        pool.start()
        return pool

    def transient(self) -> Pool:
        return self.host.create(self.xml(), build=True)

    def facts(self) -> dict[str, tuple[bool, bool, bool]]:
        return {p.name: (p.active, p.persistent, p.autostart) for p in Host(str(self.folder)).pools()}


@pytest.fixture
def yard(tmp_path: Path) -> Yard:
    return Yard(tmp_path)


def refused(act: Callable[[], object], text: str, cls: type[CowshedError] = StateError) -> None:
    with pytest.raises(cls) as caught:
        act()
    assert str(caught.value) == text
    assert type(caught.value) is cls


VERBS: dict[str, Callable[[Pool], object]] = {
    "build": lambda pool: pool.build(),
    "start": lambda pool: pool.start(),
    "destroy": lambda pool: pool.destroy(),
    "refresh": lambda pool: pool.refresh(),
    "delete": lambda pool: pool.delete(),
    "undefine": lambda pool: pool.undefine(),
    "autostart": lambda pool: pool.set_autostart(True),
    "volumes": lambda pool: pool.volumes(),
    "volume_names": lambda pool: pool.volume_names(),
    "volume": lambda pool: pool.volume("nosuch"),
}
_WRONG = "Requested operation is not valid: storage pool 'x' is "
#: (verb, state) -> what is said; None: it is done. (active, persistent, autostart) afterwards; None: it is gone
TABLE: dict[tuple[str, str], tuple[str | None, tuple[bool, bool, bool] | None]] = {
    ("build", "inactive"): (None, (False, True, False)),
    ("build", "active"): (_WRONG + "already active", (True, True, False)),
    ("build", "transient"): (_WRONG + "already active", (True, False, False)),
    ("start", "inactive"): (None, (True, True, False)),
    ("start", "active"): (_WRONG + "already active", (True, True, False)),
    ("start", "transient"): (_WRONG + "already active", (True, False, False)),
    ("destroy", "inactive"): (_WRONG + "not active", (False, True, False)),
    ("destroy", "active"): (None, (False, True, False)),
    ("destroy", "transient"): (None, None),
    ("refresh", "inactive"): (_WRONG + "not active", (False, True, False)),
    ("refresh", "active"): (None, (True, True, False)),
    ("refresh", "transient"): (None, (True, False, False)),
    ("delete", "inactive"): (None, (False, True, False)),
    ("delete", "active"): (_WRONG + "still active", (True, True, False)),
    ("delete", "transient"): (_WRONG + "still active", (True, False, False)),
    ("undefine", "inactive"): (None, None),
    ("undefine", "active"): (_WRONG + "still active", (True, True, False)),
    ("undefine", "transient"): (_WRONG + "still active", (True, False, False)),
    ("autostart", "inactive"): (None, (False, True, True)),
    ("autostart", "active"): (None, (True, True, True)),
    ("autostart", "transient"): ("internal error: pool has no config file", (True, False, False)),
    ("volumes", "inactive"): (_WRONG + "not active", (False, True, False)),
    ("volumes", "active"): (None, (True, True, False)),
    ("volume_names", "inactive"): (_WRONG + "not active", (False, True, False)),
    ("volume_names", "transient"): (None, (True, False, False)),
    ("volume", "inactive"): (_WRONG + "not active", (False, True, False)),
    ("volume", "active"): (
        "Storage volume not found: no storage vol with matching name 'nosuch'", (True, True, False)
    ),
}  # fmt: skip


@pytest.mark.parametrize(("verb", "state"), TABLE)
def test_what_is_allowed_in_which_state(yard: Yard, verb: str, state: str) -> None:
    said, after = TABLE[verb, state]
    pool: Pool = getattr(yard, state)()
    if said is None:
        VERBS[verb](pool)
    else:
        with pytest.raises(PoolError) as caught:
            VERBS[verb](pool)
        assert str(caught.value) == said
    facts = yard.facts()
    if after is None:
        assert facts == {}
        gone = f"Storage pool not found: no storage pool with matching uuid '{UUID}' (x)"
        for again in VERBS.values():
            refused(lambda again=again: again(pool), gone, MissingPoolError)  # type: ignore[misc]
    else:
        assert facts["x"] == after
    assert (yard.folder / "dir-x").is_dir() == ((verb, state) != ("delete", "inactive"))


@pytest.mark.parametrize("verb", ["destroy", "undefine", "delete"])
@pytest.mark.parametrize("state", ["inactive", "active"])
def test_a_pool_with_jobs_stays(yard: Yard, verb: str, state: str) -> None:
    pool = yard.active()
    with pool.claim("upload", "v", WRITE):
        if state == "inactive":  # somebody stopped it from outside
            yard.host.store.remove_state("x")
        wrong = {"destroy": "inactive", "undefine": "active", "delete": "active"}[verb] == state
        if wrong:
            with pytest.raises(StateError):
                VERBS[verb](pool)
        else:
            with pytest.raises(PoolError) as caught:
                VERBS[verb](pool)
            assert str(caught.value) == "internal error: pool 'x' has asynchronous jobs running."
            assert f"upload of 'v' (process {os.getpid()}" in str(caught.value.hint)
    if not wrong:
        VERBS[verb](pool)


def test_refresh_does_not_wait_for_jobs(yard: Yard) -> None:
    pool = yard.active()
    with pool.claim("clone", "v", WRITE):
        pool.refresh()
        (yard.folder / "dir-x").rmdir()
        with pytest.raises(HostCallError):
            pool.refresh()
        assert pool.active, "stopped under a job"
        assert pool.state == pool.info().state == "inaccessible"
    with pytest.raises(HostCallError):
        pool.refresh()
    assert not pool.active and pool.persistent


def test_a_transient_pool_whose_refresh_fails_is_gone(yard: Yard) -> None:
    pool = yard.transient()
    (yard.folder / "dir-x").rmdir()
    refused(pool.refresh, f"cannot open directory '{yard.folder}/dir-x': No such file or directory", HostCallError)
    assert yard.facts() == {}
    assert not list((yard.folder / "run/libvirt/storage/cowshed/lock").iterdir())


def test_define_over_an_active_pool_is_for_the_next_start(yard: Yard) -> None:
    pool = yard.active()
    new = str(yard.folder / "elsewhere")
    yard.host.define(yard.xml(target=new))
    assert pool.definition.target == str(yard.folder / "dir-x")
    assert pool.inactive_definition.target == new
    assert f"<path>{new}</path>" in pool.xml(inactive=True)
    assert "<capacity unit='bytes'>0</capacity>" in pool.xml(inactive=True)
    assert "<capacity unit='bytes'>0</capacity>" not in pool.xml()
    pool.destroy()
    assert pool.definition.target == pool.inactive_definition.target == new
    pool.start(build=True)
    assert Path(new).is_dir() and pool.definition.target == new


def test_without_a_new_definition_the_inactive_one_shows_the_figures(yard: Yard) -> None:
    pool = yard.active()
    assert "<mode>0711</mode>" in pool.xml(inactive=True)
    assert pool.inactive_definition.capacity > 0
    kept = (yard.folder / "etc/libvirt/storage/x.xml").read_text()
    assert "<capacity unit='bytes'>0</capacity>" in kept and "permissions" not in kept


def test_a_transient_pool_becomes_persistent(yard: Yard) -> None:
    pool = yard.transient()
    assert not pool.persistent
    yard.host.define(yard.xml())
    assert pool.persistent and pool.active
    pool.set_autostart(True)
    pool.destroy()
    assert not pool.active and pool.autostart
    pool.undefine()
    assert yard.facts() == {} and not list((yard.folder / "etc/libvirt/storage/autostart").iterdir())


def test_create_over_an_inactive_persistent_pool_starts_it(yard: Yard) -> None:
    yard.inactive()
    elsewhere = yard.folder / "elsewhere"
    pool = yard.host.create(yard.xml(target=str(elsewhere)), build=True)
    assert pool.active and pool.persistent
    assert pool.definition.target == str(elsewhere)
    assert pool.inactive_definition.target == str(yard.folder / "dir-x")
    pool.destroy()
    assert pool.definition.target == str(yard.folder / "dir-x")


def test_names_uuids_and_sources_that_are_taken(yard: Yard) -> None:
    host, xml = yard.host, yard.xml
    elsewhere = str(yard.folder / "elsewhere")
    for pool in (yard.active(), None):
        for make in (host.define, host.create):
            taken = f"operation failed: pool 'x' already exists with uuid {UUID}"
            refused(lambda make=make: make(xml(uuid=OTHER_UUID)), taken, OperationError)  # type: ignore[misc]
            refused(
                lambda make=make: make(xml("y", UUID, elsewhere)),  # type: ignore[misc]
                f"operation failed: pool 'x' is already defined with uuid {UUID}", OperationError,
            )  # fmt: skip
            refused(
                lambda make=make: make(xml("y", None, f"{yard.folder}/dir-x")),  # type: ignore[misc]
                "operation failed: Storage source conflict with pool: 'x'", OperationError,
            )  # fmt: skip
            refused(lambda make=make: make(xml(uuid=None, target="/else")), taken, OperationError)  # type: ignore[misc]
        if pool is not None:
            refused(lambda: host.create(xml()), "Requested operation is not valid: pool is already active as 'x'")
            pool.destroy()
    assert list(yard.facts()) == ["x"]
    host.define(xml("y", None))
    assert list(yard.facts()) == ["x", "y"]


def test_an_identical_definition_changes_nothing(yard: Yard) -> None:
    path = yard.folder / "etc/libvirt/storage/x.xml"
    pool = yard.host.define(yard.xml(uuid=None))
    before = path.stat()
    assert yard.host.define(yard.xml(uuid=None)) == pool
    assert yard.host.define(yard.xml(uuid=pool.uuid)) == pool
    pool.start(build=True)
    assert yard.host.define(yard.xml(uuid=None)) == pool
    after = path.stat()
    assert (before.st_ino, before.st_mtime_ns) == (after.st_ino, after.st_mtime_ns)
    with pytest.raises(OperationError):
        yard.host.define(yard.xml(uuid=None, target="/else"))


def test_a_definition_object_is_as_good_as_text(yard: Yard) -> None:
    definition = PoolDef("dir", "x")
    definition.target = str(yard.folder / "dir-x")
    pool = yard.host.define(definition)
    assert definition.uuid is None, "the caller's object is the caller's"
    assert pool.uuid and pool.definition.target == definition.target


@pytest.mark.parametrize(
    ("xml", "cls", "text"),
    [
        ("<pool type='dir'><name>a\nb</name><target><path>/x</path></target></pool>", DocumentError, None),
        ("<pool type='dir'><name>a/b</name><target><path>/x</path></target></pool>", DefinitionError,
         "XML error: name a/b cannot contain '/'"),
        (f"<pool type='dir'><name>{'n' * 300}</name><target><path>/x</path></target></pool>", HostCallError, None),
        (f"<pool type='dir'><name>{'ñ' * 126}</name><target><path>/x</path></target></pool>", HostCallError, None),
        ("<pool type='sheepdog'><name>s</name><source><host name='h'/><name>x</name></source></pool>", PoolError,
         "internal error: missing backend for pool type 10 (sheepdog)"),
        ("<pool type='dir'><name>x</name></pool>", DefinitionError, "XML error: missing storage pool target path"),
    ],
)  # fmt: skip
def test_definitions_that_are_refused(yard: Yard, xml: str, cls: type[PoolError], text: str | None) -> None:
    for make in (yard.host.define, yard.host.create):
        with pytest.raises(cls) as caught:
            make(xml)
        assert text is None or str(caught.value) == text
    assert yard.facts() == {}


@pytest.mark.parametrize("name", ["..", ".", "a b", "-- x", "ü", "n" * 250, ".hidden", "x.xml", "<&>'"])
def test_odd_names(yard: Yard, name: str) -> None:
    definition = PoolDef("dir", name)
    definition.target = str(yard.folder / "odd")
    pool = yard.host.define(definition)
    pool.set_autostart(True)
    pool.start(build=True)
    again = Host(str(yard.folder))
    assert [(p.name, p.active, p.autostart) for p in again.pools()] == [(name, True, True)]
    assert again.warnings == [] and again.pool(name) == pool
    pool.destroy()
    pool.undefine()
    assert yard.facts() == {}
    left = [str(path) for path in (yard.folder / "etc").rglob("*") if not path.is_dir()]
    assert left == []


def test_a_failed_start_leaves_it_inactive(yard: Yard) -> None:
    pool = yard.host.define(yard.xml())
    text = f"cannot open directory '{yard.folder}/dir-x': No such file or directory"
    refused(pool.start, text, HostCallError)
    assert yard.facts()["x"][:2] == (False, True)
    refused(lambda: yard.host.create(yard.xml("t", None)), text.replace("dir-x", "dir-t"), HostCallError)
    assert list(yard.facts()) == ["x"]


def test_lookups(yard: Yard) -> None:
    pool = yard.active()
    host = yard.host
    (yard.folder / "dir-x/v1").write_bytes(b"1" * 1000)
    assert host.pool("x") == host.pool_by_uuid(UUID.upper()) == host.pool_by_target(f"{yard.folder}//dir-x/") == pool
    path = f"{yard.folder}/dir-x/v1"
    for found in (host.volume_by_path(path), host.volume_by_key(path), pool.volume("v1"), *pool.volumes()):
        assert (found.name, found.pool) == ("v1", pool)
    assert pool.volume_names() == [("v1", path)]
    assert pool.info().promised == 1000
    for name in ("nosuch", "", "a/b", "../x", "x\0"):
        refused(
            lambda name=name: host.pool(name),  # type: ignore[misc]
            f"Storage pool not found: no storage pool with matching name '{name}'", MissingPoolError,
        )  # fmt: skip
    missing = "Storage pool not found: no storage pool with matching "
    refused(lambda: host.pool_by_uuid(OTHER_UUID), f"{missing}uuid '{OTHER_UUID}'", MissingPoolError)
    refused(lambda: host.pool_by_target("/no//such"), f"{missing}target path '/no//such' (/no/such)", MissingPoolError)
    missing = "Storage volume not found: no storage vol with matching "
    refused(lambda: host.volume_by_path("nosuch"), f"{missing}path 'nosuch'", MissingVolumeError)
    refused(lambda: host.volume_by_key("nosuch"), f"{missing}key nosuch", MissingVolumeError)
    pool.destroy()
    refused(lambda: host.volume_by_path(path), f"{missing}path '{path}'", MissingVolumeError)
    with pytest.raises(MissingPoolError):
        host.pool_by_target(f"{yard.folder}/dir-x")


def test_sources(yard: Yard) -> None:
    refused(
        lambda: yard.host.find_sources("dir"),
        "this function is not supported by the connection driver: "
        "pool type 'dir' does not support source discovery", NoSupportError,
    )  # fmt: skip
    refused(lambda: yard.host.find_sources("nosuch"), "internal error: unknown storage pool type nosuch", PoolError)
    assert "<pool type='dir' supported='yes'>" in yard.host.capabilities()
    assert "<pool type='sheepdog' supported='no'>" in yard.host.capabilities()


READ_ONLY: dict[str, Callable[[Host], object]] = {
    "virStoragePoolDefineXML": lambda host: host.define("<pool/>"),
    "virStoragePoolCreateXML": lambda host: host.create("<pool/>"),
    "virStoragePoolBuild": lambda host: host.pool("x").build(),
    "virStoragePoolCreate": lambda host: host.pool("x").start(),
    "virStoragePoolDestroy": lambda host: host.pool("x").destroy(),
    "virStoragePoolDelete": lambda host: host.pool("x").delete(),
    "virStoragePoolUndefine": lambda host: host.pool("x").undefine(),
    "virStoragePoolRefresh": lambda host: host.pool("x").refresh(),
    "virStoragePoolSetAutostart": lambda host: host.pool("x").set_autostart(True),
    "virConnectFindStoragePoolSources": lambda host: host.find_sources("logical"),
    "virStorageVolUpload": lambda host: host.pool("x").claim("u", "v", WRITE, function="virStorageVolUpload"),
    "virSecretDefineXML": lambda host: host.secrets.define("<secret/>"),
}


@pytest.mark.parametrize("function", READ_ONLY)
def test_read_only(yard: Yard, function: str) -> None:
    yard.active()
    before = yard.facts()
    host = Host(str(yard.folder), readonly=True)
    refused(
        lambda: READ_ONLY[function](host), f"operation forbidden: read only access prevents {function}",
        ReadOnlyAccessError,
    )  # fmt: skip
    assert host.pool("x").volumes() == [] and yard.facts() == before


def test_autostart_once_after_the_machine_came_up(yard: Yard) -> None:
    for name in ("good", "bad", "off"):
        pool = yard.host.define(yard.xml(name, None))
        if name != "bad":
            pool.build()
        pool.set_autostart(name != "off")
    done = yard.host.autostart()
    assert [name for name, _ in done] == ["bad", "good"]
    assert isinstance(done[0][1], HostCallError) and done[1][1] is None
    assert [name for name, facts in yard.facts().items() if facts[0]] == ["good"]
    yard.host.pool("good").destroy()
    assert yard.host.autostart() == [], "it has been run"
    assert [name for name, _ in yard.host.autostart(force=True)] == ["bad", "good"]


def test_after_a_restart_of_the_machine(yard: Yard, monkeypatch: pytest.MonkeyPatch) -> None:
    """State that outlived it (a user's may lie on a disk) is compared with the storage."""
    yard.active().set_autostart(True)
    gone = yard.host.create(yard.xml("gone", None), build=True)
    yard.host.autostart()
    (yard.folder / "dir-gone").rmdir()
    assert Host(str(yard.folder)).pool("gone").active, "nobody restarted anything"
    monkeypatch.setattr("cowshed.pool.store.boot", lambda: "another")
    host = Host(str(yard.folder))
    assert [(pool.name, pool.active) for pool in host.pools()] == [("x", True)]
    assert host.recovered == ["pool 'gone' is not active any more"]
    host.pool("x").destroy()
    assert host.autostart() == [("x", None)]
    assert Host(str(yard.folder)).recovered == []
    with pytest.raises(MissingPoolError):
        assert gone.active


def test_a_users_directories(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("XDG_CONFIG_HOME", "XDG_RUNTIME_DIR", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    host = Host(session=True)
    assert host.store.config == str(tmp_path / ".config/libvirt/storage")
    assert host.store.state == str(tmp_path / ".cache/libvirt/storage/run")
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "c"))
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path / "r"))
    host = Host(session=True)
    assert host.store.config == str(tmp_path / "c/libvirt/storage")
    assert host.store.state == str(tmp_path / "r/libvirt/storage/run")
    assert host.secrets.folder == str(tmp_path / "c/libvirt/secrets")
    system = Host(session=False)
    assert (system.store.config, system.store.state) == ("/etc/libvirt/storage", "/run/libvirt/storage")


def test_without_the_right_to_write(yard: Yard) -> None:
    """Somebody who may only read lists pools and volumes, and reads volumes."""
    if os.geteuid() != 0:
        pytest.skip("needs root to be somebody else")
    yard.active()
    (yard.folder / "dir-x/v").write_bytes(b"x" * 512)
    for path in [yard.folder, *yard.folder.rglob("*")]:
        path.chmod(0o755 if path.is_dir() else 0o644)
    parents = [path for path in yard.folder.parents if path.stat().st_uid == 0 and path != Path("/")]
    modes = {path: path.stat().st_mode for path in parents}
    child = os.fork()
    if child == 0:
        try:
            for path in parents:
                path.chmod(0o755 | modes[path])
            os.setgroups([])
            os.setgid(65534)
            os.setuid(65534)
            host = Host(str(yard.folder))
            pool = host.pool("x")
            assert [volume.name for volume in pool.volumes()] == ["v"] and pool.info().capacity > 0
            assert host.jobs() == [] and host.pool_by_uuid(UUID) == pool
            try:
                pool.destroy()
            except HostCallError as error:
                assert "Permission denied" in str(error)
            else:
                raise AssertionError
            os._exit(0)
        except BaseException:
            import traceback

            traceback.print_exc()
            os._exit(1)
    assert os.waitpid(child, 0)[1] == 0
    for path, mode in modes.items():
        path.chmod(mode & 0o7777)


# -- several processes -------------------------------------------------------------------------------------------------


def children(work: Callable[[int], None], count: int) -> None:
    pids = []
    for number in range(count):
        pid = os.fork()
        if pid == 0:
            try:
                work(number)
                os._exit(0)
            except BaseException:
                import traceback

                traceback.print_exc()
                os._exit(1)
        pids.append(pid)
    assert [os.waitpid(pid, 0)[1] for pid in pids] == [0] * count


def test_eight_processes_at_once(yard: Yard) -> None:
    """Each does what it likes with pools of its own and shared ones; readers see only whole states."""
    folder = str(yard.folder)
    yard.host.store.prepare()
    deadline = time.monotonic() + 5

    def work(number: int) -> None:
        import random

        dice = random.Random(number)
        host = Host(folder)
        while time.monotonic() < deadline:
            name = dice.choice(["s1", "s2", "s3", f"own{number}"])
            verb = dice.choice(["define", "create", "start", "destroy", "undefine", "autostart", "list", "redefine"])
            try:
                if verb == "define":
                    host.define(yard.xml(name, None))
                elif verb == "redefine":
                    host.define(yard.xml(name, UUID[:-1] + name[-1]))
                elif verb == "create":
                    host.create(yard.xml(name, None), build=True)
                elif verb == "list":
                    for pool in host.pools():
                        try:
                            assert pool.xml().startswith("<pool type='dir'>")
                        except MissingPoolError:
                            pass
                else:
                    pool = host.pool(name)
                    if verb == "start":
                        pool.start(build=True)
                    elif verb == "autostart":
                        pool.set_autostart(dice.random() < 0.5)
                    else:
                        getattr(pool, verb)()
            except (StateError, MissingPoolError, OperationError):
                pass
            except PoolError as error:
                assert str(error) == "internal error: pool has no config file", error
            assert host.warnings == [], host.warnings
            assert host.recovered == []

    children(work, 8)
    host = Host(folder)
    for pool in host.pools():
        assert pool.active or pool.persistent
        assert pool.autostart <= pool.persistent
        if pool.active:
            pool.destroy()
        if pool in host.pools():
            pool.undefine()
    assert host.pools() == [] and host.warnings == []
    left = [path.name for path in yard.folder.rglob("*") if path.is_file() or path.is_symlink()]
    assert sorted(left) == sorted({"definitions.lock", "events", "boot", *(n for n in left if n == "events.old")})


@pytest.mark.parametrize("verb", ["start", "undefine", "claim"])
def test_a_pool_that_goes_while_its_lock_is_waited_for(yard: Yard, monkeypatch: pytest.MonkeyPatch, verb: str) -> None:
    """It was there when it was looked up, and another process undefined it before the lock was had: no file stays."""
    pool = yard.inactive()
    other = Host(str(yard.folder))
    entered = Lock.__enter__

    def late(lock: Lock) -> Lock:
        monkeypatch.setattr(Lock, "__enter__", entered)
        other.pool("x").undefine()
        assert not any((yard.folder / "run").rglob("x.lock")), "the undefining one took it away"
        return entered(lock)

    monkeypatch.setattr(Lock, "__enter__", late)
    if verb == "claim":
        with yard.host.store.claim_lock("x"):
            assert any(yard.folder.rglob("x.lock"))
    else:
        with pytest.raises(MissingPoolError):
            getattr(pool, verb)()
    assert not any(yard.folder.rglob("x.lock")) and yard.host.pools() == []


def test_what_a_dead_process_left_to_be_done_outlives_a_look(yard: Yard) -> None:
    """A claim on a pool that is gone does not take a lock's file with its record."""
    yard.host.store.prepare()
    with yard.host.store.pool_lock("x", "create") as lock:
        path = Path(lock.path)
        record = path.read_bytes()
    path.write_bytes(record)
    with yard.host.store.claim_lock("x") as claim:
        assert claim.stale["verb"] == "create"
    assert path.read_bytes() == record
    with yard.host.store.pool_lock("x", "create"):
        assert path.exists()
    assert not path.exists()


def test_a_pool_of_a_kind_that_is_unknown_here(yard: Yard) -> None:
    """It is another program's: it hinders no other pool, and stays as active as it was."""
    pool = yard.transient()
    store = yard.host.store
    other = "<pool type='rbd'><name>r</name><source><host name='h'/><name>n</name></source></pool>"
    Path(store.state, "r.xml").write_text(f"<poolstate>{other}</poolstate>")
    Path(store.own, "boot").unlink()
    again = Host(str(yard.folder))
    assert again.pool("r").active and again.pool("x").active and again.recovered == []
    pool.create_volume("<volume><name>v</name><capacity>1</capacity></volume>").delete()
    refused(lambda: again.pool("r").volumes(), "internal error: missing backend for pool type 9 (rbd)", PoolError)


def test_a_pool_that_goes_while_others_are_looked_at(yard: Yard, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever looks through all pools doesn't stumble over one that is gone."""
    pool = yard.transient()
    volume = pool.create_volume("<volume><name>v</name><capacity>1</capacity></volume>")
    gone = yard.host.create(yard.xml("a", None, f"{yard.folder}/a"), build=True)
    listed = [gone, *yard.host.pools()]
    monkeypatch.setattr(Host, "pools", lambda self: list(listed))
    gone.destroy()
    host = Host(str(yard.folder))
    assert host.volume_by_path(volume.path).name == "v" and host.pool_by_target(pool.live.target or "").name == "x"
    from cowshed.cli.main import call

    for option in ("--all", "--details", "--uuid"):
        argv = ["virsh", "-c", f"cowshed:///?root={yard.folder}", "pool-list", option]
        assert call("virsh", argv, Output("virsh")) == 0
    volume.delete()


def test_a_pool_that_is_done_while_the_others_are_read(yard: Yard, monkeypatch: pytest.MonkeyPatch) -> None:
    """It was being created when the pools' names were read, and is not any more when that is asked for."""
    other = Host(str(yard.folder))
    definition = other._parsed(yard.xml("other", "12345678-1234-4234-8234-123456789abc", "/one"))
    held = [other.store.pool_lock("other", "create", definition)]
    held[0].__enter__()
    real = Store.names

    def names(self: Store) -> list[str]:
        found = real(self)
        if self is yard.host.store and held:
            other.store.save_state(definition)
            held.pop().__exit__()
        return found

    monkeypatch.setattr(Store, "names", names)
    text = "operation failed: Storage source conflict with pool: 'other'"
    refused(lambda: yard.host.define(yard.xml("mine", None, "/one")), text, OperationError)
    assert not held


def test_only_one_of_eight_gets_it(yard: Yard) -> None:
    """The same name, the same source under eight names, the same start: one succeeds, whoever it is."""
    folder = str(yard.folder)
    won = yard.folder / "won"

    def attempt(what: str, number: int) -> None:
        host = Host(folder)
        try:
            if what == "name":
                host.define(yard.xml("same", None, f"/target{number}"))
            elif what == "source":
                host.define(yard.xml(f"source{number}", None, "/one"))
            elif what == "create":
                host.create(yard.xml(f"t{number}", None, f"{folder}/two"), build=True)
            else:
                host.pool("x").start()
        except (OperationError, StateError):
            return
        with open(won, "a") as file:
            file.write(what + "\n")

    yard.inactive()
    for what in ("name", "source", "create", "start"):
        for _ in range(5):
            won.write_text("")
            children(lambda number, what=what: attempt(what, number), 8)  # type: ignore[misc]
            assert won.read_text() == what + "\n"
            for pool in Host(folder).pools():
                if pool.active:
                    pool.destroy()
                if pool.name != "x" and pool in Host(folder).pools():
                    pool.undefine()


def test_readers_never_miss_a_pool(yard: Yard) -> None:
    """One process moves a pool between transient and persistent; whoever looks finds it every time."""
    folder = str(yard.folder)
    yard.transient()
    stop = yard.folder / "stop"

    def work(number: int) -> None:
        host = Host(folder)
        if number == 0:
            for _ in range(150):
                host.define(yard.xml())
                pool = host.pool("x")
                pool.destroy()
                host.create(yard.xml())
                # what is persistent can only be forgotten while it is inactive
                pool.destroy()
                pool.start()
            stop.touch()
            return
        while not stop.exists():
            assert [pool.name for pool in host.pools()] == ["x"]
            assert host.pool("x").uuid == UUID and host.warnings == []

    children(work, 3)


def test_a_long_verb_of_another_process(yard: Yard, monkeypatch: pytest.MonkeyPatch) -> None:
    """Meanwhile a start is refused in libvirt's words, the state tells, and other pools are not held up."""
    monkeypatch.setattr("cowshed.pool.store._SHORT_PATIENCE", 0.1)
    yard.inactive()
    other = yard.host.define(yard.xml("other", None))
    script = f"""
import time
from cowshed.pool.backend.dir import DirBackend
from cowshed.pool.host import Host
def build(*args, **options):
    print("building", flush=True)
    time.sleep(60)
DirBackend.build = build
Host({str(yard.folder)!r}).pool("x").build()
"""
    process = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None and process.stdout.readline() == "building\n"
        pool = yard.host.pool("x")
        assert pool.state == "building" and not pool.active
        refused(pool.start, _WRONG + "starting up")
        with pytest.raises(StateError) as caught:
            pool.undefine()
        assert caught.value.hint == f"process {process.pid}: build"
        other.start(build=True)
        assert [p.name for p in yard.host.pools()] == ["other", "x"]
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
        if process.stdout is not None:
            process.stdout.close()
    assert yard.host.pool("x").state == "inactive"
    pool.start()


def test_a_reader_may_go_on_where_nothing_can_be_recorded(yard: Yard, monkeypatch: pytest.MonkeyPatch) -> None:
    import errno

    def fail(*args: Any, **options: Any) -> None:
        raise OSError(errno.EROFS, "read-only")

    monkeypatch.setattr("cowshed.pool.jobs.locks.open_locked", fail)
    claims = yard.host.claims
    with claims.claim("download", [("x", "v", READ)]) as claim:
        claim.watch().start(10)
    with pytest.raises(HostCallError):
        claims.claim("upload", [("x", "v", WRITE)])


def test_only_known_kinds_have_a_backend(yard: Yard) -> None:
    """A pool of a kind that libvirt knows and we don't is listed, and stops nobody."""
    folder = yard.folder / "etc/libvirt/storage"
    folder.mkdir(parents=True)
    (folder / "old.xml").write_text(
        f"<pool type='sheepdog'><name>old</name><uuid>{OTHER_UUID}</uuid>"
        "<source><host name='h'/><name>x</name></source></pool>"
    )
    assert [(pool.name, pool.state) for pool in yard.host.pools()] == [("old", "inactive")]
    refused(yard.host.pool("old").start, "internal error: missing backend for pool type 10 (sheepdog)", PoolError)
    yard.active()
    yard.host.pool("old").undefine()
    assert list(yard.facts()) == ["x"]


def test_a_conflicting_format_is_a_config_error(yard: Yard) -> None:
    with pytest.raises(ConfigError):
        yard.host.define(
            "<pool type='dir'><name>x</name><target><path>/x</path></target>"
            "<refresh><volume allocation='bogus'/></refresh></pool>"
        )
