# ruff: noqa: E501 - command lines are easier to read unbroken
"""What virsh makes of its command line, beside the real one: help, mistakes, quotes, lists and its own commands.

The real virsh talks to libvirt's test driver, which needs no daemon; nothing here depends on what pools there are.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import judges
from cowshed.cli.output import Output, Stop
from cowshed.cli.virsh import table
from cowshed.cli.virsh.main import main

COMMANDS = [*table.names(), "complete"]


class Both:
    """The same words to the real virsh and to ours."""

    def __init__(self, folder: Path, figures: Any) -> None:
        self.real = judges.need("virsh")
        self.folder = folder
        self.figures = figures
        self.root = folder / "root"
        self.root.mkdir()
        self.seen: set[tuple[str, ...]] = set()

    def ours(self, argv: list[str]) -> tuple[int, str, str]:
        out, err = self.folder / "out", self.folder / "err"
        with open(out, "wb") as stdout, open(err, "wb") as stderr:
            output = Output("virsh", under_link=True, stdout=stdout.fileno(), stderr=stderr.fileno())
            try:
                code = main(["virsh", *argv], output)
            except Stop as stop:
                code = stop.code
            output.flush()
        return code, out.read_text(errors="surrogateescape"), err.read_text(errors="surrogateescape")

    def differ(self, *words: str, options: tuple[str, ...] = (), connect: bool = True) -> str:
        here = os.getcwd()
        os.chdir(self.folder)
        try:
            done = subprocess.run(
                [self.real, *(["-c", "test:///default"] if connect else []), *options, *words],
                capture_output=True, text=True, errors="surrogateescape", stdin=subprocess.DEVNULL, timeout=60,
                env={"PATH": judges.SEARCH, "LC_ALL": "C.UTF-8", "HOME": str(self.folder)},
            )  # fmt: skip
            real = (done.returncode, done.stdout, done.stderr)
            connection = ["-c", f"cowshed:///?root={self.root}"] if connect else []
            ours = self.ours([*connection, *options, *words])
        finally:
            os.chdir(here)
        key = (*options, "|", *words)
        if key not in self.seen:
            self.seen.add(key)
            self.figures.add("virsh: invocations compared")
        return "" if ours == real else f"virsh {(*options, *words)}\nreal: {real}\nours: {ours}\n"


@pytest.fixture
def both(tmp_path: Path, figures: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[Both]:
    for name in ("LIBVIRT_DEFAULT_URI", "VIRSH_DEFAULT_CONNECT_URI", "LANG", "LC_CTYPE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("LC_ALL", "C.UTF-8")
    monkeypatch.setenv("HOME", str(tmp_path))
    yield Both(tmp_path, figures)


def judge(wrong: list[str]) -> None:
    wrong = [text for text in wrong if text]
    assert not wrong, f"{len(wrong)} differ:\n" + "\n".join(wrong[:15])


@pytest.mark.parametrize("group", ["pool", "volume", "secret", "virsh"])
def test_help_of_groups(both: Both, group: str) -> None:
    judge([both.differ("help", group), both.differ("help", table.GROUPS[group])])


def test_help_of_commands(both: Both) -> None:
    judge([both.differ("help", name) for name in COMMANDS])
    judge([both.differ(name, "--help") for name in COMMANDS])
    judge([both.differ("help", "--command", name, "more", "--any") for name in COMMANDS[::10]])


def mistakes(name: str) -> Iterator[list[str]]:
    """Command lines that no command takes; none of them gets as far as doing anything."""
    command = table.find(name)
    assert command is not None
    words = [option for option in command.options if option.kind not in ("bool", "alias", "argv")]
    many = any(option.kind == "argv" for option in command.options)
    yield [name, "--no-such-option"]
    yield [name, "--no-such-option", "--help"]
    yield [name, "--help=x"]
    yield [name, "x", "--", "--no-such-option", *["y"] * 25, *(["--also"] if many else [])]
    if any(option.required for option in words):
        yield [name]
        yield [name, "--"]
    if not many:
        yield [name, *["word"] * 40]
        yield [name, *["word"] * len([option for option in words if option.positional]), "--one-more"]
        yield [name, *["word"] * len([option for option in words if option.positional]), "last"]
    for option in command.options:
        if option.ours:
            continue
        dashed = f"--{option.name}"
        if option.kind == "bool":
            yield [name, f"{dashed}=1"]
            yield [name, dashed, dashed]
        elif option.kind not in ("alias", "argv"):
            yield [name, dashed]
            yield [name, dashed, "a", dashed, "b"]
            yield [name, f"{dashed}=a", *["word"] * 40]
            if option.required and len([one for one in words if one.required]) > 1:
                yield [name, dashed, "a"]
                yield [name, f"{dashed}=a"]
        if len(option.name) > 3 and not any(other.name == option.name[:-1] for other in command.options):
            yield [name, dashed[:-1], "a", "--no-such-option"]


@pytest.mark.parametrize("name", [name for name in COMMANDS if name not in ("help", "echo", "complete", "find-storage-pool-sources", "find-storage-pool-sources-as")])
def test_mistakes(both: Both, name: str) -> None:
    judge([both.differ(*words) for words in mistakes(name)])


@pytest.mark.parametrize("name", ["help", "echo", "find-storage-pool-sources", "find-storage-pool-sources-as"])
def test_mistakes_of_the_odd_ones(both: Both, name: str) -> None:
    # help takes whatever it does not know; what it then lists is more in the real one
    judge([both.differ(*words) for words in mistakes(name) if name != "help" or (len(words) == 2 and words[1] == "--command")])


LINES = [
    "", " ", ";", ";;", "# all", "#", "echo", "echo a", "echo a; echo b", "echo a;; echo b;", " echo a ;echo b", "echo a # b",
    "echo a#b", "echo #", "echo '#'", "echo a;# echo b", "echo a\n# b\necho c", "echo \"a b\" 'c  d' e\\ f\\n", "echo \"g\\\"h\\n\"",
    "echo \"a", "echo 'a", "echo a\\", "echo 'a\\'", "echo 'a\\", "echo \"a\\", "echo \"'\" '\"'", "echo a\"b\"c'd'e", "echo \"\" a", "echo '' ''",
    "echo \\# \\; \\'", "echo a\\\nb", "echo a \\\n b", "echo\ta\tb", "echo a\rb", "'echo' x", "\"echo\" x", "e\\cho x", "nosuch", "nosuch x; echo a", "echo a; nosuch", "nosuch; alsonot",
    "Echo a", "echo a;nosuch;", "pool-li", "pool-info", "pool-info;echo a", "echo a; pool-info", "pool-info nosuch; echo a", "echo a; pool-info nosuch", "pool-info ''", "pool-info --pool=",
    "echo --shell a 'b c'", "echo --xml '<a>'", "echo -- --shell", "echo -- -- a", "echo a --", "echo -- a --xml", "echo --string a b", "echo --string=a --string=b", "echo --str a", "echo --str=a b", "echo --hi", "echo --hi=x", "echo --hi a",
    "echo - -a -- b", "echo ---a", "echo --=a", "echo --_a", "echo a; quit; echo b", "exit; nosuch", "quit", "exit", "quit x", "pwd", "pwd x", "cd", "cd /", "cd / /", "cd --dir=/x",
    "help nosuch", "help --nosuch nosuch", "help help", "help pool-list pool-info", "help --command", "echo é 漢字", "echo é; nosuché", "uri x", "version --nosuch", "connect a b", "connect --name", "complete pool-na", "complete nosuch", "complete pool-name --", "complete vol-cl", "complete cd --",
    "pool-event --list", "pool-event", "pool-event --event x", "pool-event --event lifecycle --timeout 0", "pool-event --event lifecycle --timeout x", "pool-event --event lifecycle --timeout -1", "pool-event --event lifecycle --timeout 99999999", "pool-event --event lifecycle --timeout 9999999999999", "pool-event --event ''", "secret-event --list", "secret-event", "secret-event --event x",
    "pool-list --details --name", "pool-list --details --uuid", "pool-list --all --inactive", "pool-list --type nosuch", "pool-list --type dir,nosuch", "pool-list --type dir,,fs", "pool-list --type ,", "pool-list --type ''",
    "pool-name x", "pool-uuid nosuch", "pool-name dfe224cb-28fb-8dd0-c4b2-64eb3f0f4567", "pool-name dfe224cb-28fb-8dd0-c4b2-64eb3f0f456x", "pool-info dfe224cb-28fb-8dd0-c4b2-64eb3f0f4567",
    "pool-define /nosuch", "pool-define /", "pool-create /nosuch", "pool-create /nosuch --overwrite --no-overwrite", "pool-start nosuch --overwrite --no-overwrite", "vol-info x nosuch", "vol-info x", "vol-key x", "vol-path x", "vol-name x", "vol-pool x", "vol-list nosuch", "vol-delete x", "vol-clone x y", "vol-dumpxml x",
    "vol-upload x y --offset z", "vol-upload x y --length z", "vol-upload x y --offset -1", "vol-download x y --offset 1M", "vol-download x y --length ' 1'", "vol-resize x 1M", "vol-wipe x", "vol-create nosuch /nosuch", "vol-create-from nosuch a b", "vol-create-as nosuch a 1",
    "secret-dumpxml x", "secret-get-value x", "secret-undefine x", "pool-destroy nosuch", "pool-refresh nosuch", "pool-build nosuch", "pool-delete nosuch", "pool-undefine nosuch", "pool-autostart nosuch", "pool-dumpxml nosuch", "pool-edit nosuch",
]  # fmt: skip


def test_lines(both: Both) -> None:
    judge([both.differ(line) for line in LINES])


@pytest.mark.parametrize("option", ["-q", "-r"])
def test_lines_with_options(both: Both, option: str) -> None:
    # read only, the test driver is asked for less than it is here
    judge([both.differ(line, options=(option,)) for line in LINES if "r" not in option or "vol-" not in line])


def test_words(both: Both) -> None:
    """Commands that come as words of their own: no quotes, no lists."""
    lines = [
        ["echo", "a;b"], ["echo", "a", ";", "echo", "b"], ["echo", "'a'"], ["echo", "a\\"], ["#", "echo"], ["#a", "x"], ["echo", "#", "a"], ["echo", ""], ["", "x"], ["echo", "--shell", "a b", "c", "d'e", ""],
        ["echo", "--xml", "<a&b'\">"], ["echo", "--shell", "--xml", "<a&b'\">"], ["echo", "--split", "a,b,,c", "d"], ["echo", "--split", ",", ""], ["echo", "--split", "--shell", "a b,c"], ["echo", "--err", "x", "y"], ["echo", "--err", "--shell", "x y"],
        ["pool-info", ""], ["pool-list", "--type="], ["vol-info", "", "x"], ["vol-info", "x", ""], ["cd", ""], ["pwd", "-x"], ["echo", "a\nb"], ["echo", "--shell", "a\nb"], ["echo", *(chr(code) for code in range(32, 127))], ["echo", "--shell", *(f"a{chr(code)}b" for code in range(32, 127))], ["echo", "--xml", *(chr(code) for code in range(32, 127))],
        ["pool-list", "--all", "--", "x"], ["pool-info", "--", "--x"], ["pool-info", "--bytes", "--", "a", "b"],
    ]  # fmt: skip
    judge([both.differ(*words) for words in lines])


def test_print_xml(both: Both) -> None:
    """Documents made of options."""
    every = [option.name for option in (table.find("pool-define-as") or pytest.fail()).options if option.kind == "string"]
    lines = [["a", kind] for kind in ("dir", "fs", "disk", "nosuch")]
    lines += [["a", "dir", f"--{name}", "x"] for name in every]
    lines += [["a", "dir", "--source-host", "h", f"--{name}", "x"] for name in every if name != "source-host"]
    lines += [["a", "dir", *(["w"] * count)] for count in range(1, 10)]
    lines += [["a", "dir", "-", "-", "-", "-", "/x"], ["--type", "dir", "x"], ["--name=x", "dir"], ["a", "dir", "--target", ""]]
    auth = ["--auth-type", "chap", "--auth-username", "u"]
    lines += [["a", "iscsi", "--source-host", "h", *auth, *more] for more in ([], ["--secret-uuid", "s"], ["--secret-usage", "s"], ["--secret-usage", "s", "--secret-uuid", "b"])]
    wwn = ["--adapter-wwnn", "1", "--adapter-wwpn", "2"]
    parents = [["--adapter-parent", "p"], ["--adapter-parent-wwnn", "3"], ["--adapter-parent-wwpn", "4"], ["--adapter-parent-fabric-wwn", "5"], ["--adapter-name", "n"]]
    lines += [["a", "scsi", *wwn, *(word for at, parent in enumerate(parents) if bits >> at & 1 for word in parent)] for bits in range(32)]
    judge([both.differ(verb, *line, "--print-xml") for line in lines for verb in ("pool-define-as", "pool-create-as")])


SIZES = ["0", "1", "+1", " 1", "1k", "1K", "1kb", "1KB", "1kB", "1KiB", "1kib", "1Ki", "1b", "1B", "1byte", "1bytes", "1Bytes", "1M", "1mib", "3G", "2T", "2P", "1E", "15E", "16E", "16EB", "18EB", "19EB", "1Z", "1 k", "1.5M", "0x10", "-1", "-0", "abc", "k", "+", "", "99999999999999999999", "18446744073709551615", "18446744073709551616", "1kk", "1iB", "1bit", "1\u00e9", "010"]  # fmt: skip


def test_sizes(both: Both) -> None:
    """Sizes, in a document that is only printed; both sides have a pool of that name by then."""
    both.ours(["-c", f"cowshed:///?root={both.root}", f"pool-define-as default-pool dir --target {both.folder}/p; pool-build default-pool; pool-start default-pool"])
    judge([both.differ("vol-create-as", "default-pool", "n", size, "--print-xml") for size in SIZES])
    judge([both.differ("vol-create-as", "default-pool", "n", "7", "--allocation", size, "--print-xml") for size in SIZES])
    judge([both.differ("vol-create-as", "default-pool", "n", "7", "--format", kind, "--print-xml") for kind in ("qcow2", "x y", "a")])
    judge([both.differ("vol-create-as", "default-pool", "n", "7", "--backing-vol", "none", "--print-xml"), both.differ("vol-info", "x", "default-pool")])


def test_global_options(both: Both) -> None:
    lines = [
        ["-x"], ["--xx"], ["--connect"], ["-c"], ["-d"], ["-d", "x", "echo", "a"], ["-d", "9", "echo", "a"], ["--debug=x", "echo"], ["--debug", "7", "echo", "a"], ["--deb", "4", "echo", "a"], ["-e", "^", "echo", "a"], ["-e", "ab", "echo"], ["-e", "^]", "echo", "a"], ["-e", "^a", "echo", "a"], ["-e", "x", "echo", "a"], ["-e", "", "echo"], ["-e", "^1", "echo"],
        ["-k", "x", "echo"], ["-k", "-1", "echo"], ["-k", "3", "echo", "a"], ["-k", "0x10", "echo", "a"], ["-k", "010", "echo", "a"], ["-k", "3x", "echo"], ["-k", "99999999999", "echo"], ["-K", "-3", "echo"], ["-K", "x", "echo"], ["-K3", "echo", "a"], ["--keep", "3", "echo"], ["--keepalive-i", "x"], ["--keepalive-count=-1", "echo"], ["--keepalive-interval", "x"], ["--keepalive-interval"],
        ["--quiet=3"], ["--version=short"], ["--version=foo"], ["-v"], ["-vlong"], ["--ver"], ["--v"], ["-l"], ["--log"], ["-qx"], ["--", "echo", "a"], ["-q", "echo", "a"], ["-q", "--", "echo", "a"], ["nosuch"], ["-l", "/nosuch/x", "echo", "a"], ["echo", "-q"], ["-t", "nosuch"], ["--timing=1"], ["-", "a"], ["-qq", "echo", "a"], ["-q", "-", "x"], ["-c", ": :", "echo", "a"], ["-c", "bogus", "echo", "a"], ["--c", "bogus", "echo", "a"], ["-cbogus", "echo", "a"], ["--connect=bogus", "echo", "a"], ["echo", "a"], ["help", "nosuch"], ["quit"], ["-r", "quit"], ["-q", "quit"],
    ]  # fmt: skip
    judge([both.differ(*words, connect=False) for words in lines])


@pytest.mark.parametrize("text", ["echo a\necho b\n", "", "pool-info x\n", "quit\necho z\n", "cd /nosuch\ncd /\npwd\ncd\n", "#c\n\n  \necho 1; echo 2\n", "nosuch\n", "echo 'a\n", "echo a\\\n", "echo a", "help cd\nexit"])
@pytest.mark.parametrize("options", [[], ["-q"], ["-r"]])
def test_shell(both: Both, tmp_path: Path, figures: Any, text: str, options: list[str]) -> None:
    """Commands from a pipe: the prompt, what was read, what came of it."""
    import sys

    sides = [
        [both.real, "-c", "test:///default", *options],
        [sys.executable, "-m", "cowshed", "virsh", "-c", f"cowshed:///?root={both.root}", *options],
    ]
    done = [
        subprocess.run(argv, input=text, capture_output=True, text=True, timeout=60, cwd=tmp_path, env={"PATH": judges.SEARCH, "LC_ALL": "C.UTF-8", "HOME": str(tmp_path)})
        for argv in sides
    ]
    figures.add("virsh: invocations compared")
    assert [(one.returncode, one.stdout, one.stderr) for one in done[1:]] == [(done[0].returncode, done[0].stdout, done[0].stderr)]
