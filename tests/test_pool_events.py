"""Events: told to other processes, in order, none lost, none half."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from cowshed.pool import events as events_module
from cowshed.pool.events import Events
from cowshed.pool.host import Host


@pytest.fixture
def events(tmp_path: Path) -> Events:
    return Events(str(tmp_path))


def test_a_pools_life(tmp_path: Path) -> None:
    """The events that a real libvirtd was seen to send for the same commands."""
    host = Host(str(tmp_path))
    following = Host(str(tmp_path)).events(timeout=0.3)
    begun = time.time()
    pool = host.define(f"<pool type='dir'><name>e1</name><target><path>{tmp_path}/e1</path></target></pool>")
    pool.build()
    pool.start()
    pool.refresh()
    pool.destroy()
    pool.delete()
    pool.undefine()
    transient = host.create(
        f"<pool type='dir'><name>t</name><target><path>{tmp_path}/t</path></target></pool>", build=True
    )
    transient.destroy()
    expected = [
        ("lifecycle", "e1", "Defined"), ("lifecycle", "e1", "Created"), ("lifecycle", "e1", "Started"),
        ("refresh", "e1", ""), ("lifecycle", "e1", "Stopped"), ("lifecycle", "e1", "Deleted"),
        ("lifecycle", "e1", "Undefined"), ("lifecycle", "t", "Started"), ("lifecycle", "t", "Stopped"),
    ]  # fmt: skip
    for seen in (list(following), list(host.events(since=begun, timeout=0.0))):
        assert [(event.kind, event.name, event.event) for event in seen] == expected
        assert seen[0].uuid == pool.uuid and begun <= seen[0].time <= seen[-1].time <= time.time()
    assert list(host.events(timeout=0.0)) == [], "from now on"
    assert list(host.events(since=time.time(), timeout=0.0)) == []


def test_a_failed_refresh_tells_of_the_stop(tmp_path: Path) -> None:
    host = Host(str(tmp_path))
    pool = host.create(f"<pool type='dir'><name>t</name><target><path>{tmp_path}/t</path></target></pool>", build=True)
    os.rmdir(tmp_path / "t")
    begun = time.time()
    with pytest.raises(Exception, match="cannot open directory"):
        pool.refresh()
    assert [event.event for event in host.events(begun, 0.0)] == ["Stopped"]


def test_another_process_hears_soon(events: Events) -> None:
    script = (
        "import sys, time; from cowshed.pool.events import Events\n"
        "follow = Events(sys.argv[1]).follow(timeout=20); print('ready', flush=True)\n"
        "for event in follow: print(event.name, time.time() - event.time, flush=True)"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", script, os.path.dirname(events.path)], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    try:
        assert process.stdout.readline() == "ready\n"
        for number in range(3):
            events.add("refresh", pool=f"p{number}")
            name, late = process.stdout.readline().split()
            assert name == f"p{number}" and 0 <= float(late) < 20
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


def test_the_file_stays_short_and_nothing_is_lost(events: Events, monkeypatch: pytest.MonkeyPatch) -> None:
    """Writers in eight processes over many changes of the file; a reader that follows gets each event once.

    One that is away for two changes of the file misses what was between: writers go on when the reader has.
    """
    monkeypatch.setattr(events_module, "_LIMIT", 16000)
    monkeypatch.setattr(events_module, "_POLL", 0.001)
    following = events.follow(timeout=60)
    # fewer than one file takes
    turns, another = os.pipe()
    os.write(another, bytes(64))
    pids = []
    for number in range(8):
        pid = os.fork()
        if pid == 0:
            for count in range(60):
                os.read(turns, 1)
                events.add("refresh", pool=f"{number}", text=str(count))
            os._exit(0)
        pids.append(pid)
    seen: dict[str, list[int]] = {}
    for _ in range(8 * 60):
        event = next(following)
        seen.setdefault(event.name, []).append(int(event.text))
        os.write(another, b"\0")
    following.close()
    os.close(turns)
    os.close(another)
    assert [os.waitpid(pid, 0)[1] for pid in pids] == [0] * 8
    assert seen == {str(number): list(range(60)) for number in range(8)}
    assert os.path.getsize(events.path) < 32000 and os.path.getsize(events.path + ".old") < 32000


@pytest.mark.parametrize("rest", [b'{"time": 1, "ki', b"nonsense\n", b"[]\n", b'{"kind": "x"}\n', b"\xff\xfe\n", b"\n"])
def test_damage_hides_no_other_event(events: Events, rest: bytes) -> None:
    events.add("refresh", pool="a")
    with open(events.path, "ab") as file:
        file.write(rest)
    events.add("refresh", pool="b")
    assert [event.name for event in events.follow(0.0, 0.0)] == ["a", "b"]


def test_odd_names(events: Events) -> None:
    names = ["a\nb", "ü", '"', "\udcff", "x" * 1000]
    for name in names:
        events.add("refresh", pool=name)
    assert [event.name for event in events.follow(0.0, 0.0)] == names


def test_nobody_fails_for_an_event(tmp_path: Path) -> None:
    Events(str(tmp_path / "nosuch")).add("refresh", pool="x")
    (tmp_path / "events").mkdir()
    Events(str(tmp_path)).add("refresh", pool="x")
    following = Events(str(tmp_path / "nosuch")).follow(timeout=0.0)
    assert list(following) == []


def test_following_what_is_not_there_yet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(events_module, "_POLL", 0.01)
    folder = tmp_path / "later"
    following: Any = Events(str(folder)).follow(timeout=5)
    folder.mkdir()
    Events(str(folder)).add("refresh", pool="first")
    assert next(following).name == "first"
    os.unlink(folder / "events")
    Events(str(folder)).add("refresh", pool="second")
    assert next(following).name == "second"
