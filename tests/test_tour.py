"""``cowshed tour``: it runs to its end, proves what it says, and leaves nothing behind."""

from __future__ import annotations

import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest

from cowshed.cli import tour
from cowshed.cli.output import Output, Stop

START = [sys.executable, "-c", "from cowshed.cli.main import main; main()", "tour"]


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where temporary files go, which must be empty afterwards."""
    place = tmp_path / "tmp"
    place.mkdir()
    monkeypatch.setenv("TMPDIR", str(place))
    return place


def test_tour(place: Path) -> None:
    done = subprocess.run(START, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "\x1b" not in done.stdout
    for mode in tour.MODES:
        assert f"preallocation={mode} " in done.stdout
    last = done.stdout.strip().splitlines()[-1]
    assert last.startswith("# Verified: 12 disks") and "nothing was left behind" in last
    for command in ("create", "info", "map", "convert", "compare", "snapshot", "resize", "check", "commit"):
        assert f"$ cowshed qemu-img {command} " in done.stdout
    assert "Use the --shrink option" in done.stderr
    assert list(place.iterdir()) == []


def test_colours_for_people(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a terminal it is coloured, and in one window the session reads in order."""
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("NO_COLOR", raising=False)
    leader, follower = pty.openpty()
    with subprocess.Popen(START, stdout=follower, stderr=follower, stdin=subprocess.DEVNULL) as process:
        os.close(follower)
        text = b""
        while True:
            try:
                piece = os.read(leader, 65536)
            except OSError:  # the other end is closed
                break
            if not piece:
                break
            text += piece
    os.close(leader)
    assert process.returncode == 0
    assert b"\x1b[1m$ cowshed qemu-img create" in text
    refused = text.index(b"resize tuesday.qcow2 32M")
    assert refused < text.index(b"Use the --shrink option") < text.index(b"resize --shrink tuesday.qcow2")
    assert list(place.iterdir()) == []


def test_what_is_wrong_is_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """A disk that does not read as it should ends the tour with an error."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.raw").write_bytes(b"x" * 4096)
    shown = tour.Tour(Output("cowshed tour"))
    shown.prove("a.raw", b"x" * 4096)
    with pytest.raises(Stop):
        shown.prove("a.raw", b"x" * 4095 + b"y")
    with pytest.raises(Stop):
        shown.do("info nowhere")
    assert "does not read as it should" in capfd.readouterr().err


def test_interrupted(place: Path) -> None:
    """Ctrl-C in the middle: the temporary directory goes all the same."""
    import signal
    import time

    with subprocess.Popen(START, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        while not list(place.iterdir()):
            time.sleep(0.01)
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=60)
    assert process.returncode == -signal.SIGINT
    assert list(place.iterdir()) == []


def test_interrupted_in_a_command(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A command that is called by the tour ends the tour, and not the process under it."""
    from cowshed.cli.qemu_img import dispatch

    def interrupted(argv: list[str], out: Output) -> int:
        assert list(place.iterdir())
        raise error

    monkeypatch.setattr(dispatch, "main", interrupted)
    monkeypatch.setattr("tempfile.tempdir", None)
    for error in (KeyboardInterrupt(), BrokenPipeError()):
        with pytest.raises(type(error)):
            tour.run([], Output("cowshed tour"))
        assert list(place.iterdir()) == []


def test_arguments() -> None:
    for argv, code in ((["--help"], 0), (["x"], 1)):
        assert subprocess.run([*START, *argv], capture_output=True, timeout=60).returncode == code
