"""What cowshed's virsh has of its own: connections, completion, editing, and `cowshed pools`."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import terminal

VIRSH = [sys.executable, "-m", "cowshed", "virsh"]


class Place:
    """A set of pools of the test's own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.uri = f"cowshed:///?root={folder}"

    def run(self, *words: str, **environment: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*VIRSH, "-c", self.uri, *words], capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=60,
            env={**os.environ, "LC_ALL": "C.UTF-8", **environment},
        )  # fmt: skip

    def ok(self, *words: str, **environment: str) -> str:
        done = self.run(*words, **environment)
        assert done.returncode == 0 and not done.stderr, (words, done)
        return done.stdout

    def pools(self, *words: str) -> subprocess.CompletedProcess[str]:
        argv = [sys.executable, "-m", "cowshed", "pools", "-c", self.uri, *words]
        return subprocess.run(argv, capture_output=True, text=True, timeout=60)


@pytest.fixture
def place(tmp_path: Path) -> Place:
    place = Place(tmp_path)
    place.ok(f"pool-define-as p dir --target {tmp_path}/p; pool-build p; pool-start p; vol-create-as p one 1M")
    return place


def test_connections(place: Place) -> None:
    for uri, text in [
        ("bogus:///x", "no connection driver available for bogus:///x"),
        ("qemu+ssh://host/system", "no connection driver available for qemu+ssh://host/system"),
        ("qemu:///nowhere", "internal error: unexpected QEMU URI path '/nowhere', try qemu:///system"),
        ("cowshed:///?root=/nonexistent", "invalid argument: '/nonexistent'"),
        ("cowshed:///?rot=/", "invalid argument: unknown parameter 'rot'"),
    ]:
        done = subprocess.run([*VIRSH, "-c", uri, "pool-list"], capture_output=True, text=True)
        lines = done.stderr.splitlines()
        assert done.returncode == 1 and lines[0] == "error: failed to connect to the hypervisor", done
        assert lines[1].startswith(f"error: {text}"), done
    # the environment names a connection, which --connect goes before
    for name in ("VIRSH_DEFAULT_CONNECT_URI", "LIBVIRT_DEFAULT_URI"):
        done = subprocess.run(
            [*VIRSH, "pool-list", "--name"], capture_output=True, text=True, env={**os.environ, name: place.uri}
        )
        assert done.stdout.split() == ["p"], (name, done)
        assert place.ok("uri", **{name: "bogus:///"}) == f"{place.uri}\n\n"
    assert place.run("list").stderr.startswith("error: command 'list' is not part of cowshed")
    assert place.run("connect bogus:///; pool-list").returncode == 1


def test_read_only(place: Place) -> None:
    for words in (
        ["pool-destroy", "p"], ["pool-define-as", "q", "dir", "--target", "/q"], ["vol-delete", "one", "p"],
        ["vol-create-as", "p", "two", "1M"], ["vol-download", "one", str(place.folder / "x"), "p"],
    ):  # fmt: skip
        done = place.run("-r", *words)
        assert done.returncode == 1 and "operation forbidden: read only access prevents vir" in done.stderr, done
    assert place.ok("-r", "vol-list", "p").split()[-1] == f"{place.folder}/p/one"
    assert not (place.folder / "x").exists()


def test_completion(place: Place) -> None:
    def completed(*words: str) -> list[str]:
        done = place.run("-q", "complete", "--", *words)
        lines = done.stdout.splitlines()
        return lines if len(lines) == 1 else lines[1:]

    assert completed("pool-na") == ["pool-name"]
    assert completed("pool-info", "") == ["p"]
    assert completed("vol-info", "--pool", "p", "o") == ["one"]
    assert completed("vol-info", "one", "--b") == ["--bytes"]
    assert completed("vol-delete", f"{place.folder}/p/") == [f"{place.folder}/p/one"]
    assert completed("pool-start", "") == []
    place.ok("pool-destroy", "p")
    assert completed("pool-start", "") == ["p"]
    assert completed("vol-list", "") == []
    assert completed("vol-cr") == ["vol-create", "vol-create-as", "vol-create-from"]


def test_pool_edit(place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "scratch").mkdir()
    monkeypatch.setenv("TMPDIR", str(tmp_path / "scratch"))
    assert place.ok("pool-edit", "p", EDITOR="true") == "Pool p XML configuration not changed.\n\n"
    assert place.ok("pool-edit", "p", EDITOR="sed -i 's,/p<,/q<,'") == "Pool p XML configuration edited.\n\n"
    assert f"<path>{tmp_path}/q</path>" in place.ok("pool-dumpxml", "--inactive", "p")
    assert f"<path>{tmp_path}/p</path>" in place.ok("pool-dumpxml", "p")
    before = place.ok("pool-dumpxml", "--inactive", "p")
    broken = place.run("pool-edit", "p", EDITOR="sed -i s,path,paht,g")
    assert broken.returncode == 1 and "error: XML error: " in broken.stderr
    failed = place.run("pool-edit", "p", EDITOR="false")
    assert failed.returncode == 1 and "unexpected exit status 1" in failed.stderr
    assert place.ok("pool-dumpxml", "--inactive", "p") == before
    assert not os.listdir(tmp_path / "scratch")


def test_pool_edit_asks_again(place: Place, tmp_path: Path) -> None:
    """On a terminal a document that is refused comes back to the editor."""
    editor = tmp_path / "editor"
    script = [
        "#!/bin/sh",
        f"echo x >> {tmp_path}/runs",
        'sed -i "s,</path>,</path><!-- -->,;s,<name>p<,<name>/<," "$1"',
        f'[ $(wc -l < {tmp_path}/runs) -lt 3 ] || sed -i "s,<name>/<,<name>p<," "$1"',
    ]
    editor.write_text("\n".join(script) + "\n")
    editor.chmod(0o755)
    text = on_terminal([*VIRSH, "-c", place.uri, "pool-edit", "p"], [(b"[y,n,f,?]: ", b"?"), (b"[y,n,f,?]: ", b"f"),
                       (b"[y,n,f,?]: ", b"y"), (b"[y,n,f,?]: ", b"y")], {"EDITOR": str(editor)})  # fmt: skip
    assert "y - yes, start editor again" in text and "Pool p XML configuration edited." in text, text
    assert (tmp_path / "runs").read_text() == "x\nx\nx\n"


def on_terminal(argv: list[str], turns: list[tuple[bytes, bytes]], environment: dict[str, str]) -> str:
    """All that a program printed on a terminal; see `terminal.on_terminal`."""
    return terminal.on_terminal(argv, turns, environment)[1]


def test_shell_on_a_terminal(place: Place, tmp_path: Path) -> None:
    """History, completion by Tab, Ctrl-C at the prompt and in a command, and the end of input."""
    home = tmp_path / "home"
    home.mkdir()
    text = on_terminal(
        [*VIRSH, "-c", place.uri],
        [
            (b"virsh # ", b"pool-na\t"),
            (b"pool-name ", b"\x03"),
            (b"virsh # ", b"vol-list \t\n"),
            (b"one", b""),
            (b"virsh # ", b"pool-event --event lifecycle --timeout 30\n"),
            (b"lifecycle --timeout 30\r\n", b""),
            (b"", b"\x03"),
            (b"events received: 0", b""),
            (b"virsh # ", b"echo still here\n"),
            (b"virsh # ", b"\x04"),
        ],
        {"HOME": str(home), "TERM": "dumb", "XDG_CACHE_HOME": ""},
    )
    assert "still here" in text
    assert "vol-list p" in (home / ".cache/libvirt/virsh/history").read_text()


def test_events_of_other_processes(place: Place) -> None:
    watcher = subprocess.Popen(
        [*VIRSH, "-c", place.uri, "pool-event", "--event", "lifecycle", "--loop", "--timeout", "200", "--timestamp"],
        stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert watcher.stdout is not None
    try:
        terminal.until(lambda: terminal.at_work(watcher, place.folder / "run/libvirt/storage/cowshed/events"), watcher)
        place.ok("pool-destroy p; pool-start p")
        out = watcher.stdout.readline() + watcher.stdout.readline()
        watcher.send_signal(signal.SIGINT)
        out += watcher.communicate(timeout=60)[0]
    finally:
        watcher.kill()
        watcher.wait()
    lines = out.splitlines()
    assert watcher.returncode == 0
    stamp = r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d{3}\+0000: "
    assert re.fullmatch(f"{stamp}event 'lifecycle' for storage pool p: Stopped", lines[0]), out
    assert re.fullmatch(f"{stamp}event 'lifecycle' for storage pool p: Started", lines[1]), out
    assert lines[2:] == ["event loop interrupted", "events received: 2", ""]
    late = place.run("pool-event", "--event", "lifecycle", "--timeout", "1")
    assert (late.returncode, late.stdout) == (1, "event loop timed out\nevents received: 0\n\n")


def test_pools_autostart_jobs_and_unit(place: Place) -> None:
    place.ok("pool-autostart p; pool-destroy p")
    started = place.pools("autostart", "--force")
    assert (started.returncode, started.stdout) == (0, "Pool p started\n"), started
    assert place.pools("autostart").stdout == ""
    place.ok("pool-destroy", "p")
    (place.folder / "p/one").unlink()
    (place.folder / "p").rmdir()
    failed = place.pools("autostart", "--force")
    assert failed.returncode == 1 and "Failed to start pool p: cannot open directory" in failed.stderr
    assert place.pools("jobs").stdout.split()[:6] == ["Job", "Kind", "Pool", "Volume", "Done", "Process"]
    missing = place.pools("cancel", "x")
    assert missing.returncode == 1 and "no job 'x' is running" in missing.stderr
    unit = place.pools("unit").stdout
    assert re.search(r"(?m)^ExecStart=/\S+( -m cowshed)? pools -c qemu:///system autostart$", unit)
    assert place.pools("nonsense").returncode == 1


def test_a_job_is_seen_and_cancelled(place: Place) -> None:
    place.ok("vol-create-as p big 64M")
    pipe = place.folder / "pipe"
    os.mkfifo(pipe)
    job = subprocess.Popen(
        [*VIRSH, "-c", place.uri, "vol-upload", "big", str(pipe), "p"],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    id = None
    with open(pipe, "wb", buffering=0) as source:
        source.write(b"x" * 4096)
        deadline = time.monotonic() + 120
        while id is None and time.monotonic() < deadline:
            found = re.search(r"(?m)^ (\S+) +upload +p +big +\d+% +(\d+)$", place.pools("jobs").stdout)
            id = found[1] if found and int(found[2]) == job.pid else None
        assert id is not None
        busy = place.run("vol-delete", "big", "p")
        assert busy.returncode == 1 and "volume 'big' is still in use." in busy.stderr
        assert "has asynchronous jobs running" in place.run("pool-destroy", "p").stderr
        # a refresh waits for nobody
        place.ok("pool-refresh", "p")
        assert place.pools("cancel", id).returncode == 0
        with contextlib.suppress(BrokenPipeError):
            for _ in range(12):
                source.write(b"y" * (4 << 20))
                time.sleep(0.1)
    out, err = job.communicate(timeout=30)
    assert job.returncode == 1 and re.match("error: cannot (upload|send data) to volume big\nerror: ", err), (out, err)
    place.ok("vol-delete", "big", "p")


def test_options_of_our_own(place: Place) -> None:
    place.ok("vol-create-as p top 1M --format qcow2 --backing-vol one --backing-vol-format raw")
    refused = place.run("vol-delete", "one", "p")
    assert refused.returncode == 1 and "'top' of pool 'p'" in refused.stderr
    place.ok("vol-delete", "one", "p", "--force")
    source = place.folder / "source"
    source.write_bytes(b"x" * 2_000_000)
    place.ok("vol-create-as p small 1M")
    longer = place.run("vol-upload", "small", str(source), "p")
    assert longer.returncode == 1 and longer.stderr.startswith("error: cannot ")
    place.ok("vol-upload", "small", str(source), "p", "--resize")
    assert (place.folder / "p/small").read_bytes()[:2_000_000] == source.read_bytes()


def test_tables_and_terminals_of_few_characters(place: Place) -> None:
    place.ok("vol-create-as", "p", "é漢字", "1M")
    assert " é漢字   " in place.ok("vol-list", "p")
    plain = place.ok("vol-list", "p", LC_ALL="C")
    assert r" \xc3\xa9\xe6\xbc\xa2\xe5\xad\x97   " in plain
