"""guestfish on a terminal: prompt, history, the Tab key, Ctrl-C and Ctrl-D, progress bars."""

from __future__ import annotations

import os
import pty
import select
import signal
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import judges
import terminal
from cowshed.cli.guestfish.complete import candidates, split
from cowshed.cli.guestfish.fish import Fish
from cowshed.cli.guestfish.interactive import unescape
from cowshed.cli.output import Output

GUESTFISH = [sys.executable, "-m", "cowshed", "guestfish"]


@pytest.fixture(scope="module")
def system(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("system")
    tree = folder / "tree"
    for name in ("etc", "bin", "usr", "var/lib/dpkg", "boot", "lib", "dev", "proc", "a b/it's"):
        (tree / name).mkdir(parents=True)
    (tree / "etc/fstab").write_text("/dev/sda / ext4 defaults 0 1\n")
    (tree / "etc/hostname").write_text("web1\n")
    (tree / "etc/debian_version").write_text("12.5\n")
    (tree / "etc/os-release").write_text('ID=debian\nVERSION_ID="12"\nPRETTY_NAME="Debian GNU/Linux 12 (bookworm)"\n')
    (tree / "etc/Read Me").write_text("blank\n")
    (tree / "a b/it's/deep").write_text("deep\n")
    (tree / "etc/.hidden").write_text("")
    return judges.ext4_image(folder / "disk.img", 128 << 20, tree)


@pytest.fixture
def copy(system: Path, tmp_path: Path) -> Path:
    path = tmp_path / "copy.img"
    subprocess.run(["cp", "--sparse=always", system, path], check=True)
    return path


def on_terminal(words: list[str | Path], turns: list[tuple[bytes, bytes]], home: Path, **more: str) -> tuple[int, str]:
    """Run guestfish on a terminal; see `terminal.on_terminal`. Returns its status and all that it printed."""
    environment = {"HOME": str(home), "TERM": "dumb", "INPUTRC": "/dev/null", **more}
    return terminal.on_terminal([*GUESTFISH, *map(str, words)], turns, environment, home)


def test_a_session(copy: Path, tmp_path: Path) -> None:
    prompt = b"><fs> "
    code, text = on_terminal(
        ["-a", copy, "-i"],
        [
            (b"mounted on /\r\n\r\n><fs> ", b"nosuch\n"), (prompt, b"cat /etc/host\t\n"), (prompt, b"part-get-disk\t"),
            (b"part-get-disk-guid ", b"\x03"), (prompt, b"echo \"a\n"), (b"unterminated double quote", b""),
            (prompt, b"upload -<<END /etc/new\n"), (b"> ", b"one\n"), (b"> ", b"two\n"), (b"> ", b"END\n"),
            (prompt, b"cat /etc/new | tr a-z A-Z\n"), (b"TWO", b""), (prompt, b"<! echo echo inline\n"),
            (b"inline\r\n", b""), (prompt, b"!echo lo''cal\n"), (b"local", b""), (prompt, b"cat '/etc/re\t\n"),
            (b"blank", b""), (prompt, b"help cat\n"), (b"SYNOPSIS", b""), (prompt, b"\x10\x10\n"), (b"blank", b""),
            (prompt, b"\x04"),
        ],
        tmp_path,
    )  # fmt: skip
    assert code == 0
    assert text.startswith("\r\nWelcome to guestfish, the guest filesystem shell for\r\n")
    assert "Operating system: 12.5\r\n/dev/sda mounted on /\r\n\r\n" in text
    assert "nosuch: unknown command\r\n><fs> " in text and "Did you mean" not in text
    assert "cat /etc/hostname \r\nweb1\r\n" in text and "cat '/etc/Read Me' \r\nblank" in text
    assert text.endswith("><fs> \r\n")
    history = tmp_path / ".guestfish"
    assert stat.S_IMODE(history.stat().st_mode) == 0o600
    lines = history.read_text().splitlines()
    assert lines[:2] == ["nosuch", "cat /etc/hostname "] and "part-get-disk-guid " not in lines
    # it is there the next time
    code, text = on_terminal(["--ro"], [(prompt, b"\x10"), (lines[-1].encode(), b"\x15quit\n")], tmp_path)
    assert code == 0 and history.read_text().splitlines()[: len(lines)] == lines


def test_an_interrupted_command_changes_nothing_and_the_shell_goes_on(copy: Path, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    feeder = subprocess.Popen(
        [sys.executable, "-c", "import time; f = open('pipe', 'wb'); f.write(b'x' * (9 << 20)); time.sleep(60)"],
        cwd=tmp_path, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    prompt = b"><fs> "
    try:
        code, text = on_terminal(
            ["-a", copy, "-m", "/dev/sda"],
            [
                (prompt, b"statvfs /\n"), (prompt, b"upload pipe /etc/hostname\n"), (b"/etc/hostname\r\n", b"\x03"),
                (prompt, b"cat /etc/hostname\n"), (b"web1", b""), (prompt, b"statvfs /\n"),
                (prompt, b"!sleep 30\n"), (b"sleep 30\r\n", b"\x03"), (prompt, b"write /after text\n"),
                (prompt, b"cat /after\n"), (b"\r\ntext", b""), (prompt, b"quit\n"),
            ],
            tmp_path,
        )  # fmt: skip
    finally:
        feeder.kill()
        feeder.wait()
    assert code == 0
    parts = [part.split("\r\n><fs>")[0] for part in text.split("statvfs /\r\n")[1:]]
    assert len(parts) == 2 and parts[0] == parts[1] and "bfree:" in parts[0]
    judges.run("e2fsck", "-fn", copy)
    assert judges.run("debugfs", "-R", "cat /etc/hostname", copy).stdout == "web1\n"


def test_ctrl_c_waits_until_changes_are_on_the_disk(copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fish = Fish(Output("guestfish", stdout=os.open(os.devnull, os.O_WRONLY)))
    fish.session.add(str(copy))
    fish.session.run()
    mount = fish.session.mount("/dev/sda")
    write, pressed = mount.fs.sync, []

    def sync() -> None:
        os.kill(os.getpid(), signal.SIGINT)
        pressed.append(fish.pending)
        write()

    monkeypatch.setattr(mount.fs, "sync", sync)
    old = signal.signal(signal.SIGINT, lambda number, frame: fish.interrupted(KeyboardInterrupt()))
    try:
        with pytest.raises(KeyboardInterrupt):
            fish.run(["write", "/f", "whole"])
    finally:
        signal.signal(signal.SIGINT, old)
    assert len(pressed) == 1 and isinstance(pressed[0], KeyboardInterrupt) and fish.pending is None
    fish.close()
    assert judges.run("debugfs", "-R", "cat /f", copy).stdout == "whole"
    judges.run("e2fsck", "-fn", copy)


def test_ctrl_c_is_the_editors_while_it_runs(copy: Path, tmp_path: Path) -> None:
    editor = tmp_path / "editor"
    editor.write_text(
        "#!/bin/sh\ntrap 'echo caught; echo web2 > \"$1\"; exit 0' INT\necho ready\nwhile :; do sleep 0.1; done\n"
    )
    editor.chmod(0o755)
    prompt = b"><fs> "
    code, text = on_terminal(
        ["-a", copy, "-m", "/dev/sda"],
        [(prompt, b"edit /etc/hostname\n"), (b"ready", b"\x03"), (b"caught", b""), (prompt, b"cat /etc/hostname\n"),
         (b"web2", b""), (prompt, b"\x04")],
        tmp_path, EDITOR=f"exec {editor}",
    )  # fmt: skip
    assert code == 0, text


def test_keys_are_typed_unseen_unless_asked_for(tmp_path: Path) -> None:
    disk = tmp_path / "locked"
    with disk.open("wb") as file:
        file.truncate(8 << 20)
    (tmp_path / "key").write_text("sesame")
    judges.run(
        "cryptsetup", "luksFormat", "-q", "--type", "luks1", "--pbkdf-force-iterations", "1000", disk, tmp_path / "key"
    )
    for options, seen in (([], 0), (["--echo-keys"], 1)):
        turns = [
            (b"><fs> ", b"luks-open-ro /dev/sda x\n"), (b'passphrase ("key"): ', b"sesame\n"),
            (b"><fs> ", b"list-dm-devices\n"), (b"/dev/mapper/x", b""), (b"><fs> ", b"luks-close /dev/mapper/x\n"),
            (b"><fs> ", b"luks-open /dev/sda y\n"), (b'passphrase ("key"): ', b"wrong\n"),
            (b"No key available with this passphrase.", b""), (b"><fs> ", b"quit\n"),
        ]  # fmt: skip
        code, text = on_terminal([*options, "--format=raw", "-a", disk], [(b"><fs> ", b"run\n"), *turns], tmp_path)
        assert code == 0 and text.count("sesame") == seen, text


def test_what_the_environment_says_to_the_prompt(tmp_path: Path) -> None:
    code, text = on_terminal(
        [], [(b">\\ ", b"echo hi\n"), (b">\\ ", b"\x04")], tmp_path,
        GUESTFISH_PS1=r"\[\e[1;32m\]fs\x41\101\n>\\ ", GUESTFISH_OUTPUT=r"<out>\e[0m", GUESTFISH_INIT=r"<init\a>",
        GUESTFISH_RESTORE=r"<res>",
    )  # fmt: skip
    assert code == 0 and text.startswith("<init\a>\r\nWelcome")
    assert "fsAA\r\n>\\ echo hi\r\n<out>\x1b[0mhi\r\n" in text and text.endswith("<res>")
    assert unescape(r"\[\]\z\9\x") == "\x01\x02\\z\\9\\x" and unescape("\\") == "\\"


def test_a_shell_for_another_guestfish(copy: Path, tmp_path: Path) -> None:
    """--remote on a terminal: errors leave the server as it is, quit ends it."""
    done = subprocess.run(
        [*GUESTFISH, "--listen", "-a", copy, "-m", "/dev/sda"], capture_output=True, text=True, check=True
    )
    pid = done.stdout[14:].partition(";")[0]
    prompt = b"><fs> "
    code, text = on_terminal(
        [f"--remote={pid}"],
        [(prompt, b"nosuch\n"), (b"unknown command", b""), (prompt, b"cat /etc/hostname\n"), (b"web1", b""),
         (prompt, b"upload -<<E /x\n"), (b"> ", b"there\n"), (b"> ", b"E\n"), (prompt, b"cat /x\n"),
         (b"\r\nthere\r\n", b""),
         (prompt, b"quit\n")],
        tmp_path,
    )  # fmt: skip
    assert code == 0, text
    assert not Path(f"/tmp/.guestfish-{os.geteuid()}/socket-{pid}").exists()


# ---- progress bars


def test_progress_bars_of_long_commands(copy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cowshed.cli.progress.PATIENCE", 0)
    monkeypatch.setattr("cowshed.cli.progress.EVERY", 0)
    master, slave = pty.openpty()
    (tmp_path / "big").write_bytes(os.urandom(20 << 20))
    (tmp_path / "tree").mkdir()
    for number in range(3):
        (tmp_path / f"tree/{number}").write_bytes(b"x" * (5 << 20))
    fish = Fish(Output("guestfish", stdout=os.open(os.devnull, os.O_WRONLY), stderr=slave))
    fish.session.add(str(copy))
    fish.session.run()
    fish.session.mount("/dev/sda")

    def shown(*words: str) -> str:
        text = b""
        assert fish.run(list(words))
        while select.select([master], [], [], 0)[0]:
            text += os.read(master, 65536)
        return text.decode()

    fish.bars = True
    for words in (
        ["upload", f"{tmp_path}/big", "/big"], ["download", "/big", f"{tmp_path}/out"], ["checksum", "md5", "/big"],
        ["copy-in", f"{tmp_path}/tree", "/"], ["copy-out", "/tree", str(tmp_path)], ["cp", "/big", "/copy"],
        ["tar-out", "/tree", f"{tmp_path}/t.tar"], ["tar-in", f"{tmp_path}/t.tar", "/a b"],
    ):  # fmt: skip
        text = shown(*words)
        percents = [float(part.split("%")[0]) for part in text.split("]")[1:] if "%" in part]
        assert len(percents) >= 2 and percents == sorted(percents) and percents[-1] >= 99.5, (words, text)
        assert text.endswith("\r\x1b[K"), (words, text)
    assert (tmp_path / "out").read_bytes() == (tmp_path / "big").read_bytes()
    assert shown("cat", "/etc/hostname") == "" == shown("upload", "/dev/null", "/none")
    # one that fails, and one that is interrupted
    assert not fish.run(["upload", f"{tmp_path}/big", "/nope/big"]) and fish.bar is None
    for bars, interactive in ((False, True), (None, False)):
        fish.bars, fish.interactive = bars, interactive
        while select.select([master], [], [], 0)[0]:
            os.read(master, 65536)
        assert shown("upload", f"{tmp_path}/big", "/big") == ""
    fish.bars, fish.interactive = None, True
    assert "%" in shown("upload", f"{tmp_path}/big", "/big")
    fish.close()
    os.close(master)
    os.close(slave)


# ---- completion


@pytest.fixture
def shell(system: Path) -> Iterator[Fish]:
    fish = Fish(Output("guestfish", stdout=os.open(os.devnull, os.O_WRONLY)), readonly=True)
    fish.session.add(str(system))
    yield fish
    fish.close()


def test_completion_of_commands_options_and_the_hosts_files(shell: Fish, tmp_path: Path) -> None:
    assert candidates(shell, "", "part-get-disk") == ["part-get-disk-guid "]
    assert candidates(shell, "", "PART_get_disk") == ["part-get-disk-guid "]
    assert candidates(shell, "", "-part-get-disk") == ["-part-get-disk-guid "]
    assert (
        candidates(shell, "time ", "part-get-disk")
        == ["part-get-disk-guid "]
        == candidates(shell, "help ", "part-get-disk")
    )
    assert candidates(shell, "help cat ", "") == [] == candidates(shell, "nosuch ", "/")
    (tmp_path / "disk.img").write_text("")
    (tmp_path / "di r").mkdir()
    (tmp_path / ".hidden").write_text("")
    assert candidates(shell, "add ", f"{tmp_path}/di") == [f"'{tmp_path}/di r/", f"{tmp_path}/disk.img "]
    assert candidates(shell, "add ", f'"{tmp_path}/di') == [f'"{tmp_path}/di r/', f'"{tmp_path}/disk.img" ']
    assert candidates(shell, "lcd ", f"{tmp_path}/") == [f"'{tmp_path}/di r/", f"{tmp_path}/disk.img "]
    assert candidates(shell, "upload ", f"{tmp_path}/disk") == [f"{tmp_path}/disk.img "]
    assert candidates(shell, "copy-in ", f"{tmp_path}/disk") == [f"{tmp_path}/disk.img "]
    assert candidates(shell, "add disk.img ", "read") == ["readonly:false ", "readonly:true "]
    assert "format:" in candidates(shell, "add disk.img ", "") and "iface:" in candidates(shell, "add disk.img ", "")
    assert candidates(shell, "add disk.img readonly:true ", "read") == []
    assert candidates(shell, "set-network ", "t") == ["true "]
    # nothing is open yet
    assert candidates(shell, "mount ", "/dev/") == [] == candidates(shell, "cat ", "/e")
    assert candidates(shell, 'echo "', "a") == []


def test_completion_of_devices_and_the_guests_paths(shell: Fish) -> None:
    shell.session.run()
    assert candidates(shell, "mount ", "/dev/s") == ["/dev/sda "]
    shell.session.mount("/dev/sda")
    assert candidates(shell, "cat ", "/etc/h") == ["/etc/hostname "] and candidates(shell, "ls ", "/et") == ["/etc/"]
    assert candidates(shell, "cat ", "/etc/HOST") == ["/etc/hostname "]
    assert candidates(shell, "cat ", "/etc/r") == ["'/etc/Read Me' "] and candidates(shell, "ls ", "/a") == ["'/a b/"]
    assert candidates(shell, "cat ", '"/etc/r') == ['"/etc/Read Me" '] and candidates(shell, "ls ", "'/a b/") == [
        "'/a b/it's/"
    ]
    assert candidates(shell, "cat ", "\"/a b/it's/d") == ['"/a b/it\'s/deep" ']
    assert "/etc/.hidden " in candidates(shell, "cat ", "/etc/.") and "/etc/.hidden " not in candidates(
        shell, "cat ", "/etc/"
    )
    assert candidates(shell, "glob rm ", "/etc/h") == ["/etc/hostname "]
    assert candidates(shell, "copy-out ", "/etc/host") == ["/etc/hostname "]
    assert candidates(shell, "mount /dev/sda ", "/bo") == ["/boot/"]
    assert candidates(shell, "cat ", "/nope/") == [] and candidates(shell, "cat /etc/hostname ", "/e") == []
    shell.guest_paths = False
    assert candidates(shell, "cat ", "/etc/h") == []
    assert split("cat '/a b/c") == ("cat ", "'/a b/c") and split('a "b\\" c" d') == ('a "b\\" c" ', "d")
    assert split("cat ") == ("cat ", "")
