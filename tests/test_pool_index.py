"""The index of a pool's files: never stale, never in the way, fast."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cowshed.pool.backend import probe as probing
from cowshed.pool.backend.probe import RAW, Facts, probe
from cowshed.pool.host import Host
from cowshed.pool.index import Index
from cowshed.pool.pool import Pool

QCOW2 = b"QFI\xfb\0\0\0\3" + bytes(12) + b"\0\0\0\x10" + (7 << 20).to_bytes(8, "big") + bytes(72)
SECOND = 1_000_000_000


@pytest.fixture
def pool() -> Iterator[Pool]:
    memory = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    with tempfile.TemporaryDirectory(dir=memory) as folder:
        host = Host(root=f"{folder}/root")
        made = host.define(f"<pool type='dir'><name>p</name><target><path>{folder}/p</path></target></pool>")
        made.build()
        made.start()
        yield made


def facts_of(pool: Pool) -> dict[str, tuple[str | None, int]]:
    known = [volume.definition for volume in pool.volumes()]
    return {volume.name: (volume.target.format, volume.capacity) for volume in known}


def settle() -> None:
    time.sleep(0.06)


def test_only_what_changed_is_opened(pool: Pool, monkeypatch: Any) -> None:
    folder = Path(pool.live.target or "")
    for number in range(300):
        (folder / f"v{number}").write_bytes(QCOW2 if number % 2 else b"x" * number)
    settle()
    probed: list[int] = []
    monkeypatch.setattr(probing, "probe", lambda fd, size: probed.append(fd) or probe(fd, size))
    first = facts_of(pool)
    assert len(probed) == 300
    probed.clear()
    assert facts_of(pool) == first
    assert probed == []
    (folder / "v7").write_bytes(b"not any more")
    os.unlink(folder / "v8")
    os.rename(folder / "v9", folder / "v10")
    second = facts_of(pool)
    assert second.pop("v7") == ("raw", 12)
    assert second.pop("v10") == ("qcow2", 7 << 20)
    assert len(probed) == 2
    assert second == {name: facts for name, facts in first.items() if name not in ("v7", "v8", "v9", "v10")}


def test_changed_within_a_tick(pool: Pool) -> None:
    """A file that is rewritten, at the same length and with its times set back, as fast as can be: never stale."""
    path = Path(pool.live.target or "") / "v"
    other = QCOW2[:24] + (9 << 20).to_bytes(8, "big") + QCOW2[32:]
    deadline = time.monotonic() + 1
    while time.monotonic() < deadline:
        for content, capacity in ((QCOW2, 7 << 20), (other, 9 << 20)):
            with open(path, "r+b" if path.exists() else "wb") as file:
                file.write(content)
            os.utime(path, ns=(SECOND, SECOND))
            index = pool.backend.index(pool.live)  # type: ignore[attr-defined]
            assert facts_of(pool) == {"v": ("qcow2", capacity)}
            index.load()


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_against_a_model(pool: Pool, data: st.DataObject) -> None:
    """Files come, change, move and go between listings; each listing is what a listing without an index says."""
    folder = Path(pool.live.target or "")
    contents = st.sampled_from(
        [b"", b"x", b"y", QCOW2, QCOW2[:-1], b"KDMV\1" + bytes(100), b"LUKS\xba\xbe\0\1" + bytes(300)]
    )
    names = st.sampled_from(["a", "b", "c", "\udcff", "\N{SNOWMAN}"])
    for _ in range(data.draw(st.integers(1, 6))):
        verb = data.draw(st.sampled_from(["write", "append", "remove", "rename", "swap", "settle", "list"]))
        name, other = folder / data.draw(names), folder / data.draw(names)
        if verb == "write":
            name.write_bytes(data.draw(contents))
        elif verb == "append" and name.exists():
            with open(name, "ab") as file:
                file.write(b"more")
        elif verb == "remove":
            name.unlink(missing_ok=True)
        elif verb == "rename" and name.exists():
            os.rename(name, other)
        elif verb == "swap" and name.exists() and other.exists() and name != other:
            os.rename(name, folder / "x")
            os.rename(other, name)
            os.rename(folder / "x", other)
        elif verb == "settle":
            settle()
        with_index = facts_of(pool)
        index = Path(pool.host.index_folder) / "p"
        kept = index.read_bytes() if index.exists() else None
        index.unlink(missing_ok=True)
        assert facts_of(pool) == with_index
        if kept is not None:
            index.write_bytes(kept)


@pytest.mark.parametrize("patient", [False, True])
def test_bad_files_are_ignored(pool: Pool, patient: bool) -> None:
    folder = Path(pool.live.target or "")
    for number in range(20):
        (folder / f"v{number}").write_bytes(QCOW2 if number % 2 else b"x")
    settle()
    first = facts_of(pool)
    path = Path(pool.host.index_folder) / "p"
    good = path.read_bytes()
    bad = [b"", b"x", good[:-1], good + b"x", good[:20], b"\0" * len(good), b"{}", os.urandom(len(good))]
    bad += [good[:at] + bytes([good[at] ^ 255]) + good[at + 1 :] for at in range(0, len(good), 37)]
    for content in bad:
        path.write_bytes(content)
        assert facts_of(pool) == first
        index = Index(str(path), patient=patient)
        index.load()
    path.unlink(missing_ok=True)
    path.mkdir()
    assert facts_of(pool) == first
    path.rmdir()
    path.symlink_to("/nosuch/x")
    assert facts_of(pool) == first


def test_a_clock_that_is_not_ours(tmp_path: Path) -> None:
    """On a server's file system a file is believed when it has looked the same for two seconds of our time."""
    file = tmp_path / "v"
    file.write_bytes(b"x")
    status = os.stat(file)
    index = Index(str(tmp_path / "index"), patient=True)

    def again() -> None:
        nonlocal index
        index.save()
        index = Index(str(tmp_path / "index"), patient=True)
        index.load()

    start = time.time_ns() + 100 * SECOND
    for at, known in ((0, False), (1, False), (3, True)):
        index.put("v", status, RAW, start + at * SECOND)
        again()
        assert (index.get("v", status) is not None) == known
    index = Index(str(tmp_path / "other"), patient=False)
    for age, known in ((SECOND // 1000, False), (SECOND, True), (-SECOND, False)):
        index.put("v", status, RAW, status.st_ctime_ns + age)
        index.save()
        loaded = Index(str(tmp_path / "other"))
        loaded.load()
        assert (loaded.get("v", status) is not None) == known
        (tmp_path / "other").unlink(missing_ok=True)
        index = Index(str(tmp_path / "other"))


@settings(max_examples=300)
@given(
    st.binary(max_size=5000),
    st.sampled_from([b"", QCOW2[:8], b"QFI\xfb\0\0\0\1", b"QED\0", b"KDMV\1\0\0\0", b"conectix"]),
)
def test_probing_never_fails(data: bytes, magic: bytes) -> None:
    """Whatever is in a file, there are facts, and they survive being packed."""
    with tempfile.TemporaryFile() as file:
        file.write(magic + data)
        file.flush()
        facts = probe(file.fileno(), len(magic + data))
    again = Facts.unpack(facts.pack())
    assert [getattr(again, name) for name in Facts.__slots__] == [getattr(facts, name) for name in Facts.__slots__]


def test_ten_thousand(pool: Pool, figures: Any) -> None:
    folder = pool.live.target or ""
    for number in range(10_000):
        with open(f"{folder}/v{number:05}", "wb") as file:
            file.write(QCOW2 if number % 2 else b"x")
    settle()
    code = """
import sys, time
began = time.process_time()
from cowshed.pool.backend import probe as module
probed = 0
def probe(fd, size, probe=module.probe):
    global probed
    probed += 1
    return probe(fd, size)
module.probe = probe
from cowshed.pool.host import Host
pool = Host(root=sys.argv[1]).pool("p")
assert len(pool.volume_names()) == 10_000
named = time.process_time()
volumes = pool.volumes()
assert len(volumes) == 10_000 and volumes[1].definition.capacity == 7 << 20
print(named - began, time.process_time() - named, probed)
"""
    command = [sys.executable, "-c", code, str(Path(folder).parent / "root")]
    spent = []
    for _ in range(4):
        text = subprocess.run(command, check=True, capture_output=True, text=True).stdout
        spent.append(tuple(map(float, text.split())))
    assert [count for *_, count in spent] == [10_000, 0, 0, 0]
    names, cold, warm = min(t for t, *_ in spent), spent[0][1], min(t for _, t, _ in spent[1:])
    figures.add("pool index: 10 000 names, milliseconds", round(names * 1000))
    figures.add("pool index: 10 000 volumes cold, milliseconds", round(cold * 1000))
    figures.add("pool index: 10 000 volumes warm, milliseconds", round(warm * 1000))
    # of the processor's: other work may share the machine
    assert names < 1.5
    assert warm < 1.5
