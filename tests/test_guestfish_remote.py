"""guestfish --listen and --remote: one server, many clients, and what becomes of both when the other one goes away."""

from __future__ import annotations

import array
import os
import re
import signal
import socket
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

import judges
from cowshed.cli.guestfish import remote, server

GUESTFISH = [sys.executable, "-m", "cowshed", "guestfish"]


def run(*words: str | Path, env: dict[str, str] | None = None, input: bytes | None = None) -> tuple[int, str, str]:
    done = subprocess.run(
        [*GUESTFISH, *map(str, words)], env={**os.environ, **(env or {})}, input=input, capture_output=True,
        stdin=subprocess.DEVNULL if input is None else None, timeout=60, check=False,
    )  # fmt: skip
    return done.returncode, done.stdout.decode(), done.stderr.decode()


class Server:
    """One that listens, and how it is asked."""

    def __init__(self, *options: str | Path) -> None:
        code, out, err = run("--listen", *options)
        assert (code, err) == (0, ""), err
        assert out.startswith("GUESTFISH_PID=") and out.endswith("; export GUESTFISH_PID\n")
        self.pid = int(out[14:].partition(";")[0])
        self.socket = Path(remote.address(self.pid))

    def __call__(self, *words: str | Path, input: bytes | None = None) -> tuple[int, str, str]:
        return run(f"--remote={self.pid}", "--", *words, input=input)

    def lives(self) -> bool:
        """Nobody waits for a process whose parent has gone: it may be dead and still there."""
        try:
            text = Path(f"/proc/{self.pid}/stat").read_text()
        except FileNotFoundError:
            return False
        return text.rpartition(")")[2].split()[0] != "Z"

    def wait(self) -> None:
        end = time.monotonic() + 120
        while self.lives():
            assert time.monotonic() < end
            time.sleep(0.02)
        assert not self.socket.exists()


@pytest.fixture
def servers() -> Iterator[list[Server]]:
    made: list[Server] = []
    yield made
    for one in made:
        if one.lives():
            os.kill(one.pid, signal.SIGTERM)
            one.wait()


@pytest.fixture
def disk(tmp_path: Path) -> Path:
    (tmp_path / "tree/etc").mkdir(parents=True)
    (tmp_path / "tree/etc/hostname").write_text("web1\n")
    return judges.ext4_image(tmp_path / "disk.img", 32 << 20, tmp_path / "tree")


#: run by a shell with the real guestfish and with ours; $1 is a disk
PARITY = r"""
exec 2>>errors
say() { echo "== $*"; "$@"; echo "[$?]"; }
start() { eval "$(guestfish --listen)"; test -S /tmp/.guestfish-$(id -u)/socket-$GUESTFISH_PID && echo there; }
gone() { i=0; while test $i -lt 1000 && test -e $1; do i=$((i + 1)); sleep 0.03; done; test -e $1 || echo gone; }
start
say guestfish --remote echo hello 'a b' 'c\n' '"q"'
say guestfish --remote -- -nosuch : echo on
printf 'echo x | tr x y\n!echo local\n<! echo echo inline\n-cat\n# nothing\n\necho z\n' | say guestfish --remote
say guestfish --remote get-network
say guestfish --remote set-network true
say guestfish --remote get-network
say guestfish --remote=$GUESTFISH_PID echo by number
say guestfish --remote help cat >/dev/null
printf 'echo from a file\n-list-devices\n' >s.gf
say guestfish --remote -f s.gf
say guestfish --remote setenv FOO bar
say guestfish --remote exit
gone /tmp/.guestfish-$(id -u)/socket-$GUESTFISH_PID
start
say guestfish --remote nosuch
gone /tmp/.guestfish-$(id -u)/socket-$GUESTFISH_PID
start; one=$GUESTFISH_PID
start; two=$GUESTFISH_PID
say guestfish --remote=$one set-identifier first
say guestfish --remote=$two set-identifier second
say guestfish --remote=$one get-identifier
say guestfish --remote get-identifier
say guestfish --remote=$one -- - quit
say guestfish --remote quit
guestfish --csh --listen | sed 's/[0-9]*$//' ; rm -f none
for pid in $(ls /tmp/.guestfish-$(id -u) | sed 's/.*-//'); do
    kill -0 $pid 2>/dev/null && test "$(readlink /proc/$pid/cwd)" = "$(pwd)" && kill $pid &&
        sleep 0.2 && rm -f /tmp/.guestfish-$(id -u)/socket-$pid
done
"""


def test_a_course_beside_the_real_program(tmp_path: Path) -> None:
    judges.need("guestfish")
    found = {}
    for who, argv in (("real", [judges.need("guestfish")]), ("ours", GUESTFISH)):
        place = tmp_path / who
        (place / "bin").mkdir(parents=True)
        words = " ".join(f"'{word}'" for word in argv)
        (place / "bin/guestfish").write_text(f'#!/bin/sh\nexec {words} "$@"\n')
        (place / "bin/guestfish").chmod(0o755)
        env = {**os.environ, "PATH": f"{place}/bin:{os.environ['PATH']}", "LC_ALL": "C.UTF-8", "HOME": str(tmp_path)}
        env["LIBGUESTFS_BACKEND"] = "direct"
        done = subprocess.run(
            ["sh", "-c", PARITY], cwd=place, env=env, stdin=subprocess.DEVNULL, capture_output=True, text=True,
            timeout=250, check=False,
        )  # fmt: skip
        errors = (place / "errors").read_text().replace(str(judges.find("guestfish")), "guestfish")
        numbers = re.compile(r"(--remote=|socket-)\d+")
        found[who] = tuple(numbers.sub(r"\1PID", text).split("\n") for text in (done.stdout, errors))
    assert found["ours"][0] == found["real"][0]
    assert found["ours"][1] == found["real"][1]
    assert "[0]" in found["ours"][0] and "gone" in found["ours"][0]


def test_a_session_over_many_clients(servers: list[Server], disk: Path, tmp_path: Path) -> None:
    ask = Server("-a", disk, "-m", "/dev/sda")
    servers.append(ask)
    assert ask.lives()  # it was not waited for
    for fd in (0, 1, 2):
        assert os.readlink(f"/proc/{ask.pid}/fd/{fd}") == "/dev/null"
    assert os.getsid(ask.pid) == ask.pid and stat.S_IMODE(os.stat(remote.folder()).st_mode) == 0o700
    assert ask("cat", "/etc/hostname") == (0, "web1\n\n", "")
    assert ask("upload", "-", "/up", input=b"by standard input\n") == (0, "", "")
    script = b"upload -<<END /here\none\ntwo\nEND\ncat /here | tr a-z A-Z\ncat /up\n"
    assert run(f"--remote={ask.pid}", input=script) == (0, "ONE\nTWO\n\nby standard input\n\n", "")
    assert ask("-cat", "/nope", ":", "echo", "still") == (
        0, "still\n", "libguestfs: error: download: /nope: No such file or directory\n",
    )  # fmt: skip
    (tmp_path / "s.gf").write_text("write /f text\ncat /f\n")
    assert run(f"--remote={ask.pid}", "-f", tmp_path / "s.gf") == (0, "text\n", "")
    # an editor works where the client is
    (tmp_path / "ed").write_text('#!/bin/sh\nsed -i s/web1/web2/ "$1"; echo edited\n')
    (tmp_path / "ed").chmod(0o755)
    assert ask("setenv", "EDITOR", tmp_path / "ed", ":", "edit", "/etc/hostname") == (0, "edited\n", "")
    # somebody who doesn't read all of it
    done = subprocess.run(
        f"{' '.join(GUESTFISH)} --remote={ask.pid} -- help --list | head -1", shell=True, capture_output=True,
        timeout=60, check=False,
    )  # fmt: skip
    assert done.stdout == b"    Command              Description\n"
    # what was done is on the disk though the server goes on
    assert run("--ro", "-a", disk, "-m", "/dev/sda", "cat", "/etc/hostname")[1] == "web2\n\n"
    assert ask("exit") == (0, "", "")
    ask.wait()
    code, out, err = ask("echo")
    assert (code, out) == (1, "") and err.endswith("guestfish: remote: looks like the server is not running\n")
    judges.run("e2fsck", "-fn", disk)


def test_an_error_ends_the_server_and_frees_the_disk(servers: list[Server], disk: Path) -> None:
    ask = Server("-a", disk, "-m", "/dev/sda")
    servers.append(ask)
    assert run("-a", disk, "run")[0] == 1  # it is locked
    code, out, err = ask("cat", "/nope")
    assert (code, out, err) == (1, "", "libguestfs: error: download: /nope: No such file or directory\n")
    # at once: the server has let go of it before it answered
    assert run("-a", disk, "run")[0] == 0
    ask.wait()


def test_a_disk_that_is_not_there(tmp_path: Path) -> None:
    for words in (["-a", tmp_path / "nope"], ["-i"], ["-m", "/dev/sda"]):
        code, out, err = run("--listen", *words)
        assert (code, out) == (1, "") and err


def interrupted(ask: Server, disk: Path, number: signal.Signals) -> None:
    client = subprocess.Popen([*GUESTFISH, f"--remote={ask.pid}", "upload", "-", "/big"], stdin=subprocess.PIPE)
    assert client.stdin is not None
    try:
        # more than any pipe holds: the server is in the middle of it
        client.stdin.write(b"x" * (4 << 20))
        client.stdin.flush()
        client.send_signal(number)
        assert client.wait(120) == -number
    finally:
        client.stdin.close()
        client.kill()


def test_a_client_that_is_killed_changes_nothing(servers: list[Server], disk: Path) -> None:
    ask = Server("-a", disk, "-m", "/dev/sda")
    servers.append(ask)
    before = ask("statvfs", "/")
    for number in (signal.SIGKILL, signal.SIGINT, signal.SIGTERM):
        interrupted(ask, disk, number)
        assert ask("exists", "/big") == (0, "false\n", "")
        assert ask("statvfs", "/") == before
    assert ask("write", "/after", "text", ":", "cat", "/after") == (0, "text\n", "")
    assert ask("exit")[0] == 0
    ask.wait()
    judges.run("e2fsck", "-fn", disk)


def test_a_server_that_is_terminated_leaves_a_whole_disk(servers: list[Server], disk: Path) -> None:
    ask = Server("-a", disk, "-m", "/dev/sda")
    servers.append(ask)
    assert ask("write", "/f", "text")[0] == 0
    client = subprocess.Popen(
        [*GUESTFISH, f"--remote={ask.pid}", "upload", "-", "/big"], stdin=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert client.stdin is not None and client.stderr is not None
    client.stdin.write(b"x" * (4 << 20))
    client.stdin.flush()
    os.kill(ask.pid, signal.SIGTERM)
    assert client.stderr.read() == b"guestfish: remote: the server went away before the command was done\n"
    assert client.wait(120) == 1
    client.stderr.close()
    try:
        client.stdin.close()
    except BrokenPipeError:
        pass
    ask.wait()
    assert run("-a", disk, "-m", "/dev/sda", "ls", "/") == (0, "etc\nf\nlost+found\n", "")
    judges.run("e2fsck", "-fn", disk)


def header(magic: bytes = remote.MAGIC, flags: int = 0, words: int = 1, length: int = 0) -> bytes:
    return remote.HEADER.pack(magic, flags, words, length)


def test_what_is_no_request_is_left_alone(servers: list[Server]) -> None:
    ask = Server()
    servers.append(ask)
    null = os.open(os.devnull, os.O_RDWR)
    streams = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [null] * 3).tobytes())]
    cases: list[tuple[list[bytes], list[tuple[int, int, bytes]]]] = [
        ([b""], []), ([b"x"], []), ([header() + b"\0"], []), ([header(b"cwf0") + b"\0"], streams),
        ([header(length=remote.LONGEST + 1)], streams), ([header(words=remote.MOST + 1)], streams),
        ([header(words=2, length=2), b"a\0"], streams), ([header(words=1, length=1), b"a"], streams),
        ([header(words=0)], streams), ([header(length=5), b"echo"], streams), ([header()[:7]], streams),
        ([header(length=0xFFFFFFFF, words=0xFFFFFFFF)], streams),
    ]  # fmt: skip
    for parts, extra in cases:
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(str(ask.socket))
            if parts[0]:
                client.sendmsg(parts[:1], extra)
            for part in parts[1:]:
                client.sendall(part)
            client.shutdown(socket.SHUT_WR)
            client.settimeout(60)
            try:
                assert client.recv(100) == b"", parts
            except ConnectionResetError:
                pass  # it went without reading all
    os.close(null)
    # nothing of theirs is still open there, and it answers
    assert len(os.listdir(f"/proc/{ask.pid}/fd")) <= 6
    assert ask("echo", "here") == (0, "here\n", "")


def test_the_directory_of_somebody_else_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place = tmp_path / "sockets"
    for module in (remote, server):
        monkeypatch.setattr(module, "folder", lambda: str(place))
    monkeypatch.setattr(server, "address", lambda pid: str(place / f"socket-{pid}"))
    monkeypatch.setattr(remote, "address", lambda pid: str(place / f"socket-{pid}"))

    def refused() -> None:
        with pytest.raises(remote.RemoteError, match="is not a directory or has insecure owner or permissions"):
            server._bind()

    place.write_text("a file")
    refused()
    place.unlink()
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir(0o700)
    place.symlink_to(elsewhere)
    refused()
    # a client doesn't follow it either, whatever waits there
    bound = socket.socket(socket.AF_UNIX)
    bound.bind(str(elsewhere / f"socket-{os.getpid()}"))
    bound.listen()
    with pytest.raises(remote.RemoteError, match="insecure"):
        remote.Remote(os.getpid()).call(["echo"], stdin=0, stdout=1)
    bound.close()
    place.unlink()
    place.mkdir(0o755)
    place.chmod(0o755)
    refused()
    place.chmod(0o700)
    if os.geteuid() == 0:
        os.chown(place, 1, -1)
        refused()
        os.chown(place, 0, -1)
    (place / f"socket-{os.getpid()}").write_text("left by a dead one")
    bound = server._bind()
    assert stat.S_IMODE((place / f"socket-{os.getpid()}").stat().st_mode) == 0o600
    bound.close()


def test_a_command_that_is_too_long_is_not_sent() -> None:
    with pytest.raises(remote.RemoteError, match="too long"):
        remote.Remote(1).call(["x" * (remote.LONGEST + 1)], stdin=0, stdout=1)
