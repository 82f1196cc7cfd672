"""Completion, judged by the shell that uses it."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import judges
from cowshed.cli import completion_guest
from cowshed.cli.guestfish.table import names
from cowshed.cli.qemu_img import tables


def script(shell: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "cowshed", "completion", shell], capture_output=True, text=True, check=True
    )
    assert done.stderr == ""
    return done.stdout


@pytest.fixture(scope="module")
def bash(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if shutil.which("bash") is None:
        pytest.skip("no bash here")
    path = tmp_path_factory.mktemp("completion") / "bash"
    path.write_text(script("bash"))
    return path


def completed(bash: Path, cwd: Path, *words: str) -> list[str]:
    """What bash offers for the last of ``words``."""
    function = {"cowshed": "_cowshed", "qemu-img": "_cowshed_tool"}.get(words[0], "_cowshed_guest_tool")
    code = f'source "{bash}"; COMP_WORDS=("$@"); COMP_CWORD=$(( $# - 1 )); {function}; echo "${{COMPREPLY[@]}}"'
    done = subprocess.run(["bash", "-c", code, "bash", *words], capture_output=True, text=True, cwd=cwd, check=True)
    assert done.stderr == ""
    return sorted(done.stdout.split())


def test_bash_reads_it(bash: Path) -> None:
    subprocess.run(["bash", "-n", bash], check=True)


@pytest.mark.parametrize("command", tables.COMMANDS)
def test_every_option_is_offered(command: str, bash: Path, tmp_path: Path) -> None:
    words = {f"-{o.short}" for o in tables.options(command) if o.short}
    words |= {f"--{o.long}" for o in tables.options(command) if o.long}
    assert completed(bash, tmp_path, "qemu-img", command, "-") == sorted(words)
    assert completed(bash, tmp_path, "cowshed", "qemu-img", command, "-") == sorted(words)


def test_commands_values_and_files(bash: Path, tmp_path: Path) -> None:
    (tmp_path / "disk.qcow2").touch()
    for start in (["qemu-img"], ["cowshed", "qemu-img"]):
        assert completed(bash, tmp_path, *start, "co") == ["commit", "compare", "convert"]
        assert completed(bash, tmp_path, *start, "info", "d") == ["disk.qcow2"]
        assert completed(bash, tmp_path, *start, "info", "--output", "=", "j") == ["json"]
        assert completed(bash, tmp_path, *start, "info", "--output", "=") == ["human", "json"]
        assert completed(bash, tmp_path, *start, "info", "-f", "qcow") == ["qcow2"]
        assert completed(bash, tmp_path, *start, "check", "-r", "") == ["all", "leaks"]
        assert completed(bash, tmp_path, *start, "convert", "-T", "write") == ["writeback", "writethrough"]
        assert completed(bash, tmp_path, *start, "rebase", "-b", "d") == ["disk.qcow2"]
        offered = completed(bash, tmp_path, *start, "create", "-f", "qcow2", "-o", "c")
        assert offered == ["cluster_size=", "compat=", "compression_type="]
    assert completed(bash, tmp_path, "cowshed", "q") == ["qemu-img"]
    assert completed(bash, tmp_path, "cowshed", "completion", "") == ["bash", "fish", "zsh"]


def test_fish_and_zsh() -> None:
    text = script("fish")
    assert "complete -c qemu-img -n '__fish_seen_subcommand_from check' -s r -l repair -x -a 'leaks all'\n" in text
    assert script("zsh").endswith(script("bash"))
    for shell in ("fish", "zsh"):
        if shutil.which(shell):
            subprocess.run([shell, "-n"], input=script(shell), text=True, check=True)


def test_unknown_shell() -> None:
    done = subprocess.run([sys.executable, "-m", "cowshed", "completion", "csh"], capture_output=True, text=True)
    assert done.returncode == 1 and done.stderr.startswith("cowshed completion: usage: cowshed completion")


@pytest.mark.parametrize("tool", completion_guest.TOOLS)
def test_every_option_of_the_tools_for_guests_is_offered(tool: str, bash: Path, tmp_path: Path) -> None:
    words = completion_guest.options(tool)
    assert {"--add", "-a", "--help", "--version", "-V"} <= set(words) and len(words) == len(set(words))
    assert completed(bash, tmp_path, tool, "-") == sorted(words)
    assert completed(bash, tmp_path, "cowshed", tool, "--add", "x", "-") == sorted(words)
    (tmp_path / "disk.img").touch()
    for before in (["-a"], ["--add", "="], ["-a", "disk.img"][: 2 if tool != "guestfish" else 1]):
        assert completed(bash, tmp_path, tool, *before, "di") == ["disk.img"]
    assert completed(bash, tmp_path, tool, "--format", "=", "qc") == ["qcow2"]
    # the real tools' own completion asks for these
    if judges.find(tool):
        real = set(judges.run(tool, "--long-options").stdout.split())
        known = {word for word in words if word.startswith("--")}
        assert {"--add", "--domain", "--format", "--version"} <= real & known


def test_commands_of_guestfish_are_offered_where_one_stands(bash: Path, tmp_path: Path) -> None:
    (tmp_path / "part").touch()
    for start in (
        ["guestfish"],
        ["cowshed", "guestfish"],
        ["/usr/bin/guestfish", "--ro", "-a", "disk", "--format", "=", "raw"],
    ):
        assert completed(bash, tmp_path, *start, "part-get-disk") == ["part-get-disk-guid"]
        assert completed(bash, tmp_path, *start, "run", ":", "part-get-disk") == ["part-get-disk-guid"]
        assert completed(bash, tmp_path, *start, "upload", "pa") == ["part"]
        assert completed(bash, tmp_path, *start, "-N", "boot") == ["bootroot", "bootrootlv"]
        assert completed(bash, tmp_path, *start, "-h", "list-file") == ["list-filesystems"]
    assert len(completed(bash, tmp_path, "guestfish", "")) == len(set(names()))


def test_fish_has_them_too() -> None:
    text = script("fish")
    assert "complete -c guestfish -n __fish_use_subcommand -f -a list-filesystems -d 'list filesystems'" in text
    assert "complete -c virt-cat -s a -r -F" in text and "complete -c guestfish -l format -x -a 'raw qcow2" in text
    assert "complete -c cowshed -n '__fish_seen_subcommand_from virt-df' -l human-readable" in text
