"""The documentation: every command and program in it runs, its links lead somewhere, its generated part is fresh.

Blocks are run in the order of their page, in one directory: ``sh`` must succeed, ``console`` must print what it shows,
``python`` must run, and print what the comments behind its ``print`` say. A block below ``<!-- not run: … -->`` is not
run. Where a page knows no command but qemu-img's, the real one is made to read it as well, and so is the real virsh the
tutorial on pools; blocks below ``<!-- with cowshed only: … -->`` are not for it.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

import judges
from differential import MASKS

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
PAGES = [ROOT / "README.md", *sorted(DOCS.glob("*.md"))]
#: pages whose blocks are for a test of their own
OWN = {"differences.md", "differences-virsh.md", "differences-guestfish.md"}
#: pages that the real qemu-img is made to read too
BOTH = {"tutorial.md", "cookbook.md"}
#: written by `make bench`, which is not for a test to run
MADE = {"bench/RESULTS.md"}
RUN = ("sh", "console", "python")


class Block(NamedTuple):
    line: int
    language: str
    text: str
    run: bool
    heading: str
    ours: bool


def blocks(path: Path) -> Iterator[Block]:
    language, begun, lines, skip, ours, heading = "", 0, [], False, False, ""
    for number, line in enumerate(path.read_text().split("\n"), 1):
        fence = re.match(r"```(\w*)$", line)
        if fence and not begun:
            language, begun, lines = fence[1], number, []
        elif fence:
            yield Block(begun, language, "\n".join(lines) + "\n", language in RUN and not skip, heading, ours)
            begun, skip, ours = 0, False, False
        elif begun:
            lines.append(line)
        elif line.startswith("<!-- not run: "):
            skip = True
        elif line.startswith("<!-- with cowshed only: "):
            ours = True
        elif line.startswith("#"):
            heading = line.lstrip("# ")
    assert not begun, f"{path.name}:{begun}: a block without an end"


def masked(text: str) -> str:
    for name in ("disk size", "date", "seconds", "cid"):
        pattern, shown = MASKS[name]
        text = re.sub(pattern, shown, text)
    return text


#: how pages call the reader's directory; tables are as wide as names are long
HOME = "/home/you"


class Shell:
    """A directory, and the commands that a reader would have: cowshed, python, qemu-img and virsh (``real`` or ours).

    Pools are those of a user without root, below the directory, or those of the daemon at ``uri``.
    """

    def __init__(self, folder: Path, *, real: bool = False, uri: str = "qemu:///session") -> None:
        self.real = real
        self.dir = folder / "work"
        self.dir.mkdir()
        tools = folder / "bin"
        tools.mkdir()
        for name, words in (("python", ""), ("cowshed", "-m cowshed ")):
            (tools / name).write_text(f'#!/bin/sh\nexec "{sys.executable}" {words}"$@"\n')
            (tools / name).chmod(0o755)
        if not real:
            command = [sys.executable, "-m", "cowshed", "links", str(tools)]
            subprocess.run(command, check=True, capture_output=True)
        path = os.pathsep.join([str(tools), os.path.dirname(judges.need("qemu-img")), "/usr/bin", "/bin"])
        home = str(self.dir)
        self.env = {"PATH": path, "HOME": home, "TMPDIR": home, "LC_ALL": "C.UTF-8", "TZ": "UTC", "COLUMNS": "80"}
        self.env["LIBVIRT_DEFAULT_URI"] = uri

    def run(self, *argv: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            argv, cwd=self.dir, env=self.env, text=True, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT, timeout=120,
        )  # fmt: skip

    def sh(self, text: str) -> str:
        done = self.run("bash", "-eu", "-o", "pipefail", "-c", text)
        return "" if done.returncode == 0 else f"exit status {done.returncode}:\n{done.stdout}"

    def console(self, text: str) -> str:
        """Each command after ``$``, its output compared with what stands below it."""
        for part in re.split(r"(?m)^\$ ", text)[1:]:
            lines = part.split("\n")
            count = next(number for number, line in enumerate(lines, 1) if not line.endswith("\\"))
            command, shown = "\n".join(lines[:count]), "\n".join(lines[count:]).rstrip("\n")
            got = self.run("bash", "-c", command).stdout.rstrip("\n")
            if masked(self.placed(got)) != masked(self.placed(shown)):
                return f"$ {command}\n--- shown\n{shown}\n--- printed\n{got}"
        return ""

    def placed(self, text: str) -> str:
        """The text as it would be in the pages' directory."""
        if HOME not in text and str(self.dir) not in text:
            return text
        return re.sub(r" {2,}|-{4,}| +$", " ", text.replace(str(self.dir), HOME), flags=re.MULTILINE)

    def python(self, text: str) -> str:
        done = self.run("python", "-I", "-c", text)
        if done.returncode:
            return f"exit status {done.returncode}:\n{done.stdout}"
        shown = re.findall(r"(?m)^ *print\(.*\)  # (.*)$", text)
        if shown and masked(done.stdout) != masked("\n".join(shown) + "\n"):
            return f"--- shown\n{chr(10).join(shown)}\n--- printed\n{done.stdout}"
        return ""


def follow(path: Path, shell: Shell, figures: Any) -> None:
    """Run the page's blocks; the first that fails ends it, since those after it stand on it."""
    count = 0
    for block in blocks(path):
        if block.run and not (block.ours and shell.real):
            wrong = getattr(shell, block.language)(block.text)
            assert not wrong, f"{path.name}:{block.line} ({block.heading}): {wrong}"
            count += 1
    figures.add("docs: blocks run", count)


@pytest.mark.parametrize("path", [path for path in PAGES if path.name not in OWN], ids=lambda path: path.stem)
def test_page_runs(path: Path, tmp_path: Path, figures: Any) -> None:
    follow(path, Shell(tmp_path), figures)


@pytest.mark.parametrize("name", sorted(BOTH))
def test_the_real_qemu_img_reads_the_page_too(name: str, tmp_path: Path, figures: Any) -> None:
    judges.need_series("qemu-img")
    follow(DOCS / name, Shell(tmp_path, real=True), figures)


def test_the_real_virsh_reads_the_page_too(libvirtd: Any, tmp_path: Path, figures: Any) -> None:
    follow(DOCS / "pools.md", Shell(tmp_path, real=True, uri=libvirtd.uri), figures)


def test_nothing_is_left_out_silently() -> None:
    """What is not run is marked, in few places, and a mark stands above a block that would run."""
    unmarked = [f"{path.name}:{block.line}" for path in PAGES for block in blocks(path) if not block.language]
    assert not unmarked, f"blocks without a language: {unmarked}"
    left = [(path.name, block.line) for path in PAGES for block in blocks(path) if not block.run]
    left = [where for where in left if block_at(*where).language in RUN]
    assert len(left) <= 4, left
    assert sum(path.read_text().count("<!-- not run: ") for path in PAGES) == len(left)


def block_at(name: str, line: int) -> Block:
    path = next(path for path in PAGES if path.name == name)
    return next(block for block in blocks(path) if block.line == line)


@pytest.mark.parametrize("block", list(blocks(DOCS / "differences.md")), ids=lambda block: block.heading)
def test_difference_is_there(block: Block, tmp_path: Path, figures: Any) -> None:
    judges.need_series("qemu-img")
    outcomes = []
    for real in (True, False):
        (tmp_path / str(real)).mkdir()
        done = Shell(tmp_path / str(real), real=real).run("bash", "-c", f"ulimit -v 4000000\n{block.text}")
        outcomes.append((done.returncode, masked(done.stdout)))
    real, ours = outcomes
    assert real != ours, f"no difference any more: {ours}"
    assert "internal error" not in ours[1] and "command not found" not in real[1] + ours[1], outcomes
    figures.add("docs: differences from qemu-img shown")


def test_differences_are_what_the_page_says(tmp_path: Path) -> None:
    """Which of the two keeps the data is what matters."""
    judges.need_series("qemu-img")
    wanted = {
        "`create` over a file that somebody uses": (0, "disk\n"),
        "`dd` with one file as input and output": (0, "precious"),
        "A snapshot that is larger than the disk is now": (0, f"{2 << 20}\n"),
        "Growing a version 2 overlay over a longer backing file": (0, "Image resized.\n"),
        "Applying a snapshot when refcounts are full": (0, ""),
    }
    found = {}
    for number, block in enumerate(blocks(DOCS / "differences.md")):
        if block.heading in wanted:
            (tmp_path / str(number)).mkdir()
            done = Shell(tmp_path / str(number)).run("bash", "-c", block.text)
            found[block.heading] = (done.returncode, done.stdout)
    assert found == wanted


@pytest.mark.parametrize(("page", "least"), [("differences-virsh.md", 21), ("differences-guestfish.md", 7)])
def test_each_difference_has_its_test(page: str, least: int) -> None:
    rows = [line for line in (DOCS / page).read_text().split("\n") if line.startswith("| ")][1:]
    count = 0
    for row in rows:
        cells = [cell.strip() for cell in row.strip("|").split("|")]
        assert len(cells) == 5, row
        if cells[0].startswith("**"):
            continue
        found = re.fullmatch(r"`(test_\w+\.py)::(test_\w+)`", cells[-1])
        assert found, row
        assert f"def {found[2]}(" in (ROOT / "tests" / found[1]).read_text(), f"no such test: {cells[-1]}"
        count += 1
    assert count >= least


def test_promised_sizes_are_for_people(tmp_path: Path) -> None:
    """Under cowshed's own name and at a terminal; programs that read virsh's text get virsh's text."""
    shell = Shell(tmp_path)
    volumes = "; ".join(f"vol-create-as p {name} 3G --allocation 0" for name in "ab")
    assert not shell.sh(f'virsh "pool-create-as p dir --target $PWD/p --build; {volumes}"')
    master, terminal = os.openpty()
    told = {}
    for name, argv in (("cowshed", ["cowshed", "virsh"]), ("virsh", ["virsh"])):
        command = [shutil.which(argv[0], path=shell.env["PATH"]) or "", *argv[1:], "pool-info", "p"]
        done = subprocess.run(command, env=shell.env, stdout=subprocess.PIPE, stderr=terminal, text=True)
        told[name] = done.stdout
    os.close(terminal)
    os.close(master)
    assert "Promised:       6.00 GiB" in told["cowshed"] and "Promised" not in told["virsh"]


def test_virsh_says_who_it_is(tmp_path: Path) -> None:
    shell = Shell(tmp_path)
    done = shell.run("virsh", "--version=long")
    assert done.returncode == 0 and "cowshed" in done.stdout and "9.0.0" in done.stdout
    assert "Using API: cowshed" in shell.run("virsh", "version").stdout


def anchors(path: Path) -> set[str]:
    """The names under which a page's headings can be linked to."""
    inside = False
    found = set()
    for line in path.read_text().split("\n"):
        inside ^= line.startswith("```")
        if line.startswith("#") and not inside:
            text = line.lstrip("#").strip().lower()
            found.add(re.sub(r"[^\w\- ]", "", text).replace(" ", "-"))
    return found


@pytest.mark.parametrize(
    "path", [*PAGES, *sorted((DOCS / "reference").glob("*.md")), ROOT / "CONTRIBUTING.md"], ids=str
)
def test_links_lead_somewhere(path: Path) -> None:
    prose = re.sub(r"(?ms)^```.*?^```$", "", path.read_text())
    for target in re.findall(r"\]\(([^)\s]+)\)", prose):
        if re.match(r"[a-z]+:", target):
            continue
        name, _, anchor = target.partition("#")
        there = (path.parent / name).resolve() if name else path
        if str(there.relative_to(ROOT)) in MADE and not there.exists():
            continue
        assert there.exists(), f"{path.name}: {target}"
        if anchor:
            assert anchor in anchors(there), f"{path.name}: {target}"


def test_the_reference_is_fresh() -> None:
    done = subprocess.run(
        [sys.executable, str(DOCS / "generate.py"), "--check"], capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr


def test_the_readme_promises_no_figures() -> None:
    """A speed in the README is one that stands in bench/RESULTS.md."""
    text = (ROOT / "README.md").read_text()
    results = ROOT / "bench" / "RESULTS.md"
    known = results.read_text() if results.exists() else ""
    for figure in re.findall(r"\b\d+(?:\.\d+)? (?:times|%|MB/s|GB/s|MiB/s|seconds|ms)\b", text):
        assert figure in known, f"README.md says '{figure}'"
