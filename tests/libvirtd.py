"""A real libvirtd to judge ours by, and the same virsh command line given to both.

    def test_lifecycle(ranch):
        ranch.check("pool-define-as", "images", "dir", "--target", "{dir}/images")
        ranch.check("pool-build", "images")
        ranch.check("pool-info", "images", mask=["figures"])

`Libvirtd` runs the daemon in a mount namespace of its own, over scratch directories, so it neither sees nor touches
this machine's libvirt. `Ranch` gives each side a directory (the names are of one length, since tables are as wide as
what stands in them) and compares exit status, standard output and standard error. ``{dir}`` in an argument is the
side's directory, and ``words`` has more of its kind. UUIDs are compared by the order in which they appear.
"""

from __future__ import annotations

import difflib
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import judges

#: What may differ for good reason, by name: (pattern, what stands instead). For the ``mask`` of check.
MASKS: dict[str, tuple[str, str]] = {
    # how full this machine's file system is
    "figures": (
        r"(?m)^((?:Capacity|Allocation|Available): +|  <(?:capacity|allocation|available) unit='bytes'>)[^<\n]*",
        r"\1N",
    ),
    # … in the table of all pools
    "table": (r"(?m)^( .* (?:yes|no) +(?:yes|no) +)\d[\d.]* .*$", r"\1N"),
    "allocation": (r"(?m)^(Allocation: +|  <(?:allocation|physical) unit='bytes'>)[^<\n]*", r"\1N"),
    "seconds": (r"\(Time: [0-9.]+ ms\)", "(Time: N ms)"),
}
_ALWAYS = [
    # when a file was touched
    (re.compile(r"<([abcm]time)>[0-9.]+</"), r"<\1>T</"),
]
_UUID = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")

_START = """
set -e
mount --make-rprivate /
# what other tests have mounted at this moment is theirs to unmount
awk '$(NF - 1) ~ "^/dev/loop" { print $5 }' /proc/self/mountinfo | while read -r place; do umount "$place" || true; done
mkdir -p /etc/libvirt /run/libvirt /var/lib/libvirt /var/cache/libvirt /var/log/libvirt
mount --bind "$1/etc" /etc/libvirt
mount --bind "$1/run" /run/libvirt
mount --bind "$1/lib" /var/lib/libvirt
mount --bind "$1/cache" /var/cache/libvirt
mount --bind "$1/log" /var/log/libvirt
exec "$2" -f "$1/libvirtd.conf" -p "$1/libvirtd.pid"
"""


class Outcome:
    """What one virsh did: ``code``, ``stdout``, ``stderr``, masked."""

    def __init__(self, code: int, stdout: str, stderr: str) -> None:
        self.code = code
        self.stdout = stdout
        self.stderr = stderr

    def text(self) -> str:
        parts = [f"exit status {self.code}\n", "--- stdout\n", self.stdout, "--- stderr\n", self.stderr]
        return "".join(part if part.endswith("\n") or not part else part + "<no newline>\n" for part in parts)


class Libvirtd:
    """The daemon, in ``folder``. A context manager; needs root. ``environment`` is more of it for the daemon."""

    def __init__(self, folder: Path, environment: dict[str, str] | None = None) -> None:
        self.virsh = judges.need("virsh")
        self.daemon = judges.need("libvirtd")
        judges.need("unshare")
        if os.geteuid() != 0:
            judges.absent("libvirtd must be started by root")
        self.folder = folder
        self.extra = environment or {}
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def uri(self) -> str:
        return f"qemu:///system?socket={self.folder}/run/libvirt-sock"

    def __enter__(self) -> Libvirtd:
        for name in ("etc", "run", "lib", "cache", "log"):
            (self.folder / name).mkdir(parents=True, exist_ok=True)
        for name in ("qemu.conf", "libvirt.conf"):
            (self.folder / "etc" / name).touch()
        (self.folder / "libvirtd.conf").write_text(
            'auth_unix_rw = "none"\nauth_unix_ro = "none"\n'
            f'log_outputs = "2:file:{self.folder}/daemon.log"\nhost_uuid = "6f9bd4b0-3c1a-4d5e-8d0e-4f2a9c6d7e11"\n'
        )
        self.start()
        return self

    def start(self) -> None:
        """Start the daemon and wait until it answers."""
        with open(self.folder / "output", "ab") as output:
            self.process = subprocess.Popen(
                ["unshare", "-m", "sh", "-c", _START, "libvirtd", str(self.folder), self.daemon],
                stdin=subprocess.DEVNULL, stdout=output, stderr=output,
                env={**os.environ, "LC_ALL": "C", **self.extra},
            )  # fmt: skip
        deadline = time.monotonic() + 60
        while True:
            if self.process.poll() is not None or time.monotonic() > deadline:
                text = (self.folder / "output").read_text(errors="replace")
                self.stop()
                raise AssertionError(f"libvirtd did not start:\n{text}")
            if self.run(["pool-list"]).code == 0:
                return
            time.sleep(0.05)

    def stop(self, number: int = signal.SIGTERM) -> None:
        if self.process is not None:
            self.process.send_signal(number)
            try:
                self.process.wait(20)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
            self.process = None

    def __exit__(self, *args: object) -> None:
        self.stop()

    def run(self, argv: Sequence[str], **options: Any) -> Outcome:
        """Run the real virsh with ``argv`` on this daemon."""
        return run([self.virsh, "-c", self.uri, *argv], **options)

    def inside(self, argv: Sequence[str], **options: Any) -> Outcome:
        """Run any program where the daemon's mounts are seen."""
        assert self.process is not None
        place = [f"--wdns={options['cwd']}"] if "cwd" in options else []
        return run(["nsenter", "-m", *place, "-t", str(self.process.pid), "--", *argv], **options)


def run(argv: Sequence[str], *, cwd: Path | None = None, input: str = "", env: dict[str, str] | None = None) -> Outcome:
    home = str(cwd or "/nonexistent")
    done = subprocess.run(
        list(argv), cwd=cwd, input=input, capture_output=True, text=True, errors="surrogateescape", timeout=120,
        env={"PATH": judges.SEARCH, "LC_ALL": "C.UTF-8", "TERM": "dumb", "HOME": home, **(env or {})},
    )  # fmt: skip
    return Outcome(done.returncode, done.stdout, done.stderr)


class Ours:
    """Our virsh, under the tool's own name, on a tree of its own below ``folder``."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        links = folder / "bin"
        subprocess.run([sys.executable, "-m", "cowshed", "links", str(links)], check=True, capture_output=True)
        self.virsh = links / "virsh"
        self.root = folder / "root"
        self.root.mkdir()

        self.command = [str(self.virsh), "-c", f"cowshed:///?root={self.root}"]

    def run(self, argv: Sequence[str], **options: Any) -> Outcome:
        return run([*self.command, *argv], **options)


class Ranch:
    """A directory for each side, ``real`` and ``ours``; ``figures`` counts the distinct invocations."""

    def __init__(self, folder: Path, daemon: Libvirtd, figures: Any = None) -> None:
        self.daemon = daemon
        self.ours = Ours(folder)
        self.figures = figures
        self.folders = {"real": folder / "real", "ours": folder / "ours"}
        #: side -> what stands for a word in braces there: names that must differ, such as those of devices
        self.words: dict[str, dict[str, str]] = {}
        for side, path in self.folders.items():
            path.mkdir()
            self.words[side] = {"{dir}": str(path)}
        self._seen: set[tuple[str, ...]] = set()
        self.known: dict[str, dict[str, int]] = {"real": {}, "ours": {}}

    def setup(self, prepare: Callable[[Path], object]) -> None:
        """Prepare both directories alike."""
        for folder in self.folders.values():
            prepare(folder)

    def file(self, name: str, text: str | bytes) -> None:
        """The same file on both sides, words in braces filled in."""
        for side, folder in self.folders.items():
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(
                text if isinstance(text, bytes) else self._filled(text, side).encode(errors="surrogateescape")
            )

    def both(
        self,
        *argv: str,
        mask: Iterable[str | tuple[str, str]] = (),
        input: str = "",
        env: dict[str, str] | None = None,
    ) -> tuple[Outcome, Outcome]:
        """The two outcomes, masked: (real, ours)."""
        masks = [MASKS[item] if isinstance(item, str) else item for item in mask]
        done = []
        for side, folder in self.folders.items():
            here = [self._filled(item, side) for item in argv]
            command = [self.daemon.virsh, "-c", self.daemon.uri] if side == "real" else self.ours.command
            # where the daemon's mounts are: so are ours, and both end with it
            outcome = self.daemon.inside([*command, *here], cwd=folder, input=input, env=env)
            for name in ("stdout", "stderr"):
                setattr(outcome, name, self._masked(getattr(outcome, name), side, masks))
            done.append(outcome)
        if argv not in self._seen and self.figures is not None:
            self._seen.add(argv)
            self.figures.add("virsh: distinct invocations compared with a real libvirtd")
        return done[0], done[1]

    def _filled(self, text: str, side: str) -> str:
        for word, value in self.words[side].items():
            text = text.replace(word, value)
        return text

    def _masked(self, text: str, side: str, masks: list[tuple[str, str]]) -> str:
        known = self.known[side]
        for word, value in self.words[side].items():
            text = text.replace(value, word)
        text = _UUID.sub(lambda found: f"UUID-{known.setdefault(found[0], len(known)):031d}", text)
        for pattern, instead in _ALWAYS:
            text = pattern.sub(instead, text)
        for pattern, instead in masks:
            text = re.sub(pattern, instead, text)
        return text

    def difference(self, *argv: str, **options: Any) -> str:
        """A diff of what the two do, empty when they agree."""
        real, ours = self.both(*argv, **options)
        if real.text() == ours.text():
            return ""
        lines = difflib.unified_diff(
            real.text().splitlines(), ours.text().splitlines(), "real", "ours", lineterm="", n=20
        )
        return "\n".join([f"$ virsh {shlex.join(argv)}", *lines])

    def check(self, *argv: str, **options: Any) -> None:
        """Both do the same, or AssertionError with a diff."""
        text = self.difference(*argv, **options)
        if text:
            raise AssertionError(text)

    def check_all(self, commands: Iterable[str | Sequence[str]], **options: Any) -> None:
        """A whole course of commands, to its end; then the first differences."""
        wrong = []
        for command in commands:
            argv = shlex.split(command) if isinstance(command, str) else list(command)
            text = self.difference(*argv, **options)
            if text:
                wrong.append(text)
        if wrong:
            raise AssertionError(f"{len(wrong)} differ:\n" + "\n\n".join(wrong[:12]))
