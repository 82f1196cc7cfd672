"""The same command line given to the real qemu-img and to ours: same text on the same stream, same exit status.

    @pytest.fixture
    def arena(tmp_path, figures):
        return Arena(tmp_path, figures)

    def test_info(arena):
        arena.setup("create -q -f qcow2 a.qcow2 1M")          # by the real tool, in the arena's directory
        arena.check("info", "a.qcow2", mask=["disk size"])     # both run there; it must not change
        arena.check("resize", "a.qcow2", "+1M", changes=True)  # each runs in a copy of its own
        arena.check("info", "b", setup=["create -q b 1M"])     # in a directory for this one alone

`check` raises AssertionError with a diff. `check_all` takes a whole campaign, runs it to the end and shows the first
differences. Every distinct command line counts once in the figures that the test run reports.
"""

from __future__ import annotations

import difflib
import os
import re
import shlex
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import judges

#: What may differ for good reason, by name: (pattern, what stands instead). For the ``mask`` of check.
MASKS: dict[str, tuple[str, str]] = {
    # how much of a file is allocated is the file system's business
    "disk size": (r'(?m)^(\s*disk size: |\s*"actual-size": ).*?(,?)$', r"\1N\2"),
    "date": (r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d", "DATE"),
    "date json": (r'"date-(n?sec)": \d+', r'"date-\1": N'),
    "uuid": (r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", "UUID"),
    "cid": (r"(cid\"?: )\d+", r"\1N"),
    "seconds": (r"\d+\.\d{3} seconds", "N seconds"),
    "block": (r"#block\d+", "#blockN"),
}

Mask = Iterable[str | tuple[str, str]]
#: a command line for the real qemu-img (or ``qemu-io …``), as text or as words, or a callable given the directory
Step = str | Sequence[str] | Callable[[Path], object]


class Outcome:
    """What one tool did: ``code``, ``stdout`` and ``stderr`` (or, merged, all in ``stdout``), masked; its ``cwd``."""

    def __init__(self, code: int, stdout: str, stderr: str, cwd: Path) -> None:
        self.code = code
        self.stdout = stdout
        self.stderr = stderr
        self.cwd = cwd

    def text(self) -> str:
        parts = [f"exit status {self.code}\n", "--- stdout\n", self.stdout, "--- stderr\n", self.stderr]
        return "".join(part if part.endswith("\n") or not part else part + "<no newline>\n" for part in parts)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Outcome) and self.text() == other.text()

    __hash__ = None  # type: ignore[assignment]


class Both:
    """The outcomes of a pair of runs, ``real`` and ``ours``."""

    def __init__(self, argv: Sequence[str], real: Outcome, ours: Outcome) -> None:
        self.argv = list(argv)
        self.real = real
        self.ours = ours

    def difference(self) -> str:
        """A diff of the two, empty when they agree."""
        if self.real == self.ours:
            return ""
        lines = difflib.unified_diff(
            self.real.text().splitlines(), self.ours.text().splitlines(), "real", "ours", lineterm="", n=20
        )
        return "\n".join([f"$ qemu-img {shlex.join(self.argv)}", *lines])


class Arena:
    """A directory in which both tools are tried, ``figures`` counting the distinct invocations."""

    def __init__(self, tmp_path: Path, figures: Any = None) -> None:
        self.qemu_img = judges.need_series("qemu-img")
        self.top = tmp_path
        self.dir = tmp_path / "arena"
        self.dir.mkdir(exist_ok=True)
        self.figures = figures
        self._pairs = 0
        self._seen: set[tuple[str, ...]] = set()
        self._link: Path | None = None
        self._prepared: dict[tuple[object, ...], Path] = {}

    # ---- preparation

    def setup(self, *commands: Step) -> Arena:
        """Prepare the directory."""
        self._prepare(self.dir, commands)
        return self

    def _prepare(self, folder: Path, commands: Iterable[Step]) -> None:
        for command in commands:
            if callable(command):
                command(folder)
                continue
            argv = shlex.split(command) if isinstance(command, str) else list(command)
            tool = argv.pop(0) if argv[0] in ("qemu-io", "qemu-img") else "qemu-img"
            judges.run(tool, *argv, cwd=folder)

    def _folder(self, setup: Iterable[Step] | None) -> Path:
        """The arena's directory, or one prepared by ``setup``, which is made once and kept."""
        if setup is None:
            return self.dir
        steps = tuple(step if callable(step) else tuple([step] if isinstance(step, str) else step) for step in setup)
        if steps not in self._prepared:
            folder = self.top / f"arena{len(self._prepared) + 1}"
            folder.mkdir()
            self._prepare(folder, setup)
            self._prepared[steps] = folder
        return self._prepared[steps]

    # ---- trials

    def run(
        self,
        *argv: str,
        setup: Sequence[Step] | None = None,
        changes: bool = False,
        merged: bool = False,
        mask: Mask = (),
        link: bool = False,
        env: dict[str, str] | None = None,
    ) -> Both:
        """Run both. ``changes``: each in its own copy of the directory, else both there, where nothing may change.

        ``merged``: both streams into one file, as with ``2>&1``. ``link``: ours as a process of its own, through the
        launcher that `cowshed links` makes, instead of in this process. ``mask``: names from MASKS, or pairs like them.
        """
        base = self._folder(setup)
        if changes:
            self._pairs += 1
            real_dir = self.top / f"real{self._pairs}"
            ours_dir = self.top / f"ours{self._pairs}"
            for copy in (real_dir, ours_dir):
                subprocess.run(["cp", "-a", "--sparse=always", base, copy], check=True)
        else:
            real_dir = ours_dir = base
        masks = [MASKS[item] if isinstance(item, str) else item for item in mask]
        full = {**os.environ, **(env or {})}
        before = None if changes else _listing(base)
        real = self._process([self.qemu_img], argv, real_dir, merged, masks, full)
        if before is not None and _listing(base) != before:
            raise AssertionError(f"qemu-img {shlex.join(argv)} changes files: say changes=True")
        if link:
            ours = self._process([str(self.link())], argv, ours_dir, merged, masks, full)
        else:
            ours = self._in_process(argv, ours_dir, merged, masks, env or {})
        if before is not None and _listing(base) != before:
            raise AssertionError(f"ours, not the real qemu-img, changes files: {shlex.join(argv)}")
        self._count(argv if setup is None else (base.name, *argv))
        return Both(argv, real, ours)

    def check(self, *argv: str, code: int | None = None, **how: Any) -> Both:
        """Run both (see `run`); raise AssertionError with a diff unless they agree, on status ``code`` if given."""
        both = self.run(*argv, **how)
        difference = both.difference()
        if difference:
            raise AssertionError(difference)
        if code is not None and both.real.code != code:
            raise AssertionError(f"$ qemu-img {shlex.join(argv)}\n{both.real.text()}(expected status {code})")
        self.forget(both)
        return both

    def check_all(self, campaign: Iterable[Sequence[str]], show: int = 8, **how: Any) -> int:
        """`check` every command line and return how many; the first ``show`` differences are in the AssertionError."""
        differences = []
        count = 0
        for argv in campaign:
            count += 1
            both = self.run(*argv, **how)
            difference = both.difference()
            if difference:
                differences.append(difference)
            else:
                self.forget(both)
        if differences:
            shown = "\n\n".join(differences[:show])
            raise AssertionError(f"{len(differences)} of {count} command lines differ\n\n{shown}")
        return count

    def forget(self, both: Both) -> None:
        """Delete the copies of a run with ``changes``; `check` does so when both agree."""
        if both.real.cwd != both.ours.cwd:
            shutil.rmtree(both.real.cwd, ignore_errors=True)
            shutil.rmtree(both.ours.cwd, ignore_errors=True)

    def link(self) -> Path:
        """Our ``qemu-img``, made by `cowshed links`."""
        if self._link is None:
            from cowshed.cli.links import launcher

            self._link = self.top / "bin" / "qemu-img"
            self._link.parent.mkdir()
            self._link.write_text(launcher("qemu-img"))
            self._link.chmod(0o755)
        return self._link

    # ---- below

    def _count(self, argv: Sequence[str]) -> None:
        if tuple(argv) not in self._seen:
            self._seen.add(tuple(argv))
            if self.figures is not None:
                self.figures.add("qemu-img: distinct invocations compared")

    def _process(
        self,
        start: list[str],
        argv: Sequence[str],
        cwd: Path,
        merged: bool,
        masks: list[tuple[str, str]],
        env: dict[str, str],
    ) -> Outcome:
        with tempfile.TemporaryFile() as stdout, tempfile.TemporaryFile() as stderr:
            done = subprocess.run(
                ["qemu-img", *argv],
                executable=start[0],
                cwd=cwd,
                env=env,
                stdin=subprocess.DEVNULL,
                stdout=stdout,
                stderr=stdout if merged else stderr,
                timeout=120,
            )
            return _outcome(done.returncode, stdout, stderr, cwd, masks)

    def _in_process(
        self,
        argv: Sequence[str],
        cwd: Path,
        merged: bool,
        masks: list[tuple[str, str]],
        env: dict[str, str],
    ) -> Outcome:
        from cowshed.cli.main import call
        from cowshed.cli.output import Output

        here = os.getcwd()
        saved = {name: os.environ.get(name) for name in env}
        with tempfile.TemporaryFile() as stdout, tempfile.TemporaryFile() as stderr:
            errors = stdout if merged else stderr
            out = Output("qemu-img", under_link=True, stdout=stdout.fileno(), stderr=errors.fileno())
            os.environ.update(env)
            os.chdir(cwd)
            try:
                code = call("qemu-img", ["qemu-img", *argv], out)
            finally:
                os.chdir(here)
                for name, value in saved.items():
                    if value is None:
                        del os.environ[name]
                    else:
                        os.environ[name] = value
            out.flush()
            return _outcome(code, stdout, stderr, cwd, masks)


def _outcome(code: int, stdout: Any, stderr: Any, cwd: Path, masks: list[tuple[str, str]]) -> Outcome:
    texts = []
    for stream in (stdout, stderr):
        stream.seek(0)
        text = stream.read().decode("utf-8", "surrogateescape")
        for pattern, instead in masks:
            text = re.sub(pattern, instead, text)
        texts.append(text)
    return Outcome(code, texts[0], texts[1], cwd)


def _listing(folder: Path) -> list[tuple[str, int, int, int]]:
    """Name, size, time of change and inode of everything in a directory."""
    with os.scandir(folder) as entries:
        facts = [(entry.name, entry.stat(follow_symlinks=False)) for entry in entries]
    return sorted((name, stat.st_size, stat.st_mtime_ns, stat.st_ino) for name, stat in facts)
