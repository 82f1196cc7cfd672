"""qemu-img's command line up to the point where an image is touched: every case also goes to the real tool.

The cases come out of the table of options: each option with good and bad values in every spelling, alone and in random
company, so that texts, exit codes and the order in which mistakes are told are those of the real tool. Where a
command line is fault-free the real tool goes on to fail on an image that is not there, and ours must have come
as far: a stand-in takes the place of the commands here.
"""

from __future__ import annotations

import os
import random
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from cowshed.cli import main as front
from cowshed.cli.output import Output
from cowshed.cli.qemu_img import checks, converters, dispatch, tables, usage
from cowshed.cli.qemu_img.parsed import Parsed
from cowshed.errors import CowshedError
from differential import Arena, Both

REACHED = 99

#: What the real tool says when nothing is wrong with the arguments themselves.
BEYOND = re.compile(
    r"qemu-img: (Could not open '|Unknown file format|Invalid parameter '[^']*'\n(qemu-img: Invalid options|$)"
    r"|\S*: (Unknown file format|Image creation needs a size)|/nonexistent/x: |Parameter ')"
    r"|Formatting '|required size|\{\n"
)

SIZES = ("0", "1", "512", "1k", "4096", "1.5k", "1.5", "0x200", "0x1k", "-1", "", "x", "1Z", "2G", "16M", "8E", "1E")
NUMBERS = (
    "0",
    "1",
    "16",
    "17",
    "0x10",
    "010",
    " 7",
    "+3",
    "-1",
    "",
    "x",
    "7x",
    "256",
    "2147483648",
    "1e3",
    "99999999999999999999",
)
WORDS = ("raw", "qcow2", "nosuch", "")
VALUES: dict[str, tuple[str, ...]] = {
    "text": WORDS,
    "object": (
        "secret,id=a,data=x",
        "secret,id=a",
        "nosuch,id=a",
        "secret",
        "",
        "secret,id=1,data=x",
        "secret,id=b,data=x,what=1",
        "main-loop,id=m",
        "secret,id=c,data=x,file=y",
        "secret,id=d,file=/nonexistent",
        "secret,id=e,data",
        "secret,help",
        "{",
        '{"qom-type": "secret", "id": "j", "data": "x"}',
    ),
    "options": ("size=1", ",", "a=1,", "a,,", "", "nosuch=1", ",a", "a=1,,,"),
    "size": SIZES,
    "unsigned": NUMBERS,
    "coroutines": NUMBERS,
    "sparse": SIZES,
    "snapshot": (
        "s",
        "",
        "snapshot.id=1",
        "snapshot.name=a,snapshot.id=2",
        "snapshot.no=1",
        "snapshot.id",
        "snapshot.id=1,id=2",
    ),
    "snapshot_action": ("s", ""),
    "action": ("m", ""),
    "repair": ("leaks", "all", "", "none", "ALL"),
    "output": ("human", "json", "", "xml"),
    "aio": ("threads", "native", "io_uring", "", "what"),
    "bench_cache": (*converters.CACHE_MODES, "", "what"),
    "preallocation": ("off", "metadata", "falloc", "full", "", "what"),
}
BY_DEST: dict[str, tuple[str, ...]] = {
    "cache": (*converters.CACHE_MODES, "", "what"),
    "src_cache": (*converters.CACHE_MODES, "", "what"),
    "output": ("human", "json", "", "xml"),
}
DD_OPERANDS = (
    "if=nx",
    "of=/nonexistent/x",
    "bs=512",
    "bs=0",
    "bs=2G",
    "bs=x",
    "count=1",
    "count=-1",
    "skip=1",
    "skip=x",
    "what=1",
    "bs",
    "=1",
    "of=",
)
JUNK = (
    "-Z",
    "--nosuch",
    "--nosuch=1",
    "-",
    "--",
    "-Zq",
    "-qZ",
    "--f",
    "--o",
    "--image",
    "--help=1",
    "-é",
    "--object",
    "-f",
    "-\udcff",
)


@pytest.fixture
def arena(tmp_path: Path, figures: Any, monkeypatch: pytest.MonkeyPatch) -> Arena:
    monkeypatch.setattr(dispatch, "load", lambda command: lambda args, out: REACHED)
    monkeypatch.setattr("cowshed.cli.qemu_img.option_help.creation", lambda fmt, filename, out: REACHED)
    monkeypatch.setattr("cowshed.cli.qemu_img.option_help.amendment", lambda fmt, out: REACHED)
    monkeypatch.delenv("POSIXLY_CORRECT", raising=False)
    return Arena(tmp_path, figures)


def differs(both: Both) -> str:
    """As Both.difference, where ours may instead have come as far as the command."""
    real, ours = both.real, both.ours
    for outcome in (real, ours):
        # The help is compared by a test of its own, without the lines that say whose it is.
        if outcome.stdout.startswith("qemu-img version"):
            outcome.stdout = "HELP\n"
        if outcome.stdout.startswith("List of user creatable objects:"):
            outcome.stdout = "OBJECTS\n"
    if ours.code != REACHED:
        return both.difference()
    texts = real.stderr.removeprefix(ours.stderr)
    if ours.stdout.strip() or not real.stderr.startswith(ours.stderr):
        return both.difference()
    if BEYOND.match(texts) or BEYOND.match(real.stdout) or "options" in real.stdout or "does not support" in texts:
        return ""
    return both.difference()


def compare(arena: Arena, campaign: Sequence[Sequence[str]], **how: Any) -> None:
    differences = [text for argv in campaign if (text := differs(arena.run(*argv, **how)))]
    if differences:
        shown = "\n\n".join(differences[:10])
        raise AssertionError(f"{len(differences)} of {len(campaign)} command lines differ\n\n{shown}")


def values(option: tables.Option) -> tuple[str, ...]:
    return BY_DEST.get(option.dest) or VALUES[option.kind]


def spellings(option: tables.Option, value: str | None) -> Iterator[list[str]]:
    """Every way to write an option with a value (None: a flag)."""
    given = [] if value is None else [value]
    if option.short:
        yield [f"-{option.short}", *given]
        if value:
            yield [f"-{option.short}{value}"]
    if option.long:
        yield [f"--{option.long}", *given]
        yield [f"--{option.long[:-1]}", *given]
        if value is not None:
            yield [f"--{option.long}={value}"]


def operands(command: str, count: int) -> list[str]:
    if command == "dd":
        return ["if=nx", "of=/nonexistent/x", "bs=512"][:count]
    if command == "create":
        return ["/nonexistent/x", "1M", "extra"][:count]
    if command == "resize":
        return ["nx", "1M", "extra"][:count]
    return ["nx1", "nx2", "nx3"][:count]


def each_option(command: str) -> Iterator[list[str]]:
    """Every option with every value, in one spelling or another, and once in all; with operands and without."""
    right = {"compare": 2, "convert": 2, "bitmap": 2, "dd": 2, "resize": 2, "create": 2}.get(command, 1)
    for option in tables.options(command):
        if option.kind == "help":
            continue
        for turn, value in enumerate(values(option) if option.metavar else (None,)):
            ways = list(spellings(option, value))
            if turn == 0:
                for words in ways:
                    yield [command, *words, *operands(command, right)]
                    yield [command, *operands(command, right), *words]
            yield [command, *ways[turn % len(ways)]]
            yield [command, *ways[(turn + 1) % len(ways)], *operands(command, right)]
        words = next(spellings(option, None))
        yield [command, *words]
        yield [command, *operands(command, right), *words]


def company(command: str, seed: int, count: int) -> Iterator[list[str]]:
    """Random command lines: several options, operands and rubbish in any order."""
    rng = random.Random(f"{command} {seed}")
    options = [option for option in tables.options(command) if option.kind != "help"]
    for _ in range(count):
        pieces: list[list[str]] = []
        for _ in range(rng.choice((0, 1, 2, 2, 3, 3, 4, 5))):
            option = rng.choice(options)
            pool = values(option) if option.metavar else (None,)
            # Mostly good values, which stand first, so that later mistakes are reached too.
            value = pool[0] if rng.random() < 0.6 else rng.choice(pool)
            pieces.append(rng.choice(list(spellings(option, value))))
        if command == "dd":
            pieces += [[rng.choice(DD_OPERANDS)] for _ in range(rng.choice((0, 1, 2, 2, 3)))]
        else:
            pieces += [[name] for name in operands(command, rng.choice((0, 1, 1, 2, 2, 3)))]
        if rng.random() < 0.15:
            pieces.append([rng.choice(JUNK)])
        if rng.random() < 0.03:
            pieces.append([rng.choice(("-h", "--help", "--hel", "-hq"))])
        rng.shuffle(pieces)
        yield [command, *(word for piece in pieces for word in piece)]


@pytest.mark.parametrize("command", tables.COMMANDS)
def test_each_option_of(command: str, arena: Arena) -> None:
    compare(arena, list(each_option(command)))


@pytest.mark.parametrize("command", tables.COMMANDS)
def test_options_in_company_of(command: str, arena: Arena) -> None:
    compare(arena, list(company(command, 1, 60)))


@pytest.mark.torture
@pytest.mark.parametrize("command", tables.COMMANDS)
@pytest.mark.parametrize("seed", range(2, 12))
def test_more_company_of(command: str, seed: int, arena: Arena) -> None:
    compare(arena, list(company(command, seed, 500)))


@pytest.mark.parametrize("command", tables.COMMANDS)
def test_operand_counts_of(command: str, arena: Arena) -> None:
    campaign = [[command, *operands(command, count)] for count in range(4)]
    campaign += [[command, "--", *operands(command, count)] for count in range(4)]
    campaign += [[command, *operands(command, count), "--"] for count in range(4)]
    compare(arena, campaign)


OBJECTS = (
    "foo,id=1", "foo,help", "help", "?", "help,x", "secret,?", "secret,id=a,data=x,help", "secret,help=1", "",
    "id=a", ",id=a",
    "qom-type=secret,id=a,data=x", "qom-type=secret,qom-type=foo,id=a", "secret,id", "secret,noid", "secret,=x",
    "secret,id=,data=x", "secret,id=a/b,data=x", "secret,id=a.b-c_d,data=x", "secret,id=help,data=x", "secret,foo=1",
    "secret,id=1,foo=2", "secret,id=a,data=x,foo=1,bar=2", "secret,id=a,a=b=c", "secret,id=a,data=x,data=y",
    "secret,id=a,data.x=y",
    "secret,id=a,data=x,1=2", "secret,id=a,data=x,", "secret,id=a,data=x,,y", "secret,id=a,data=", "secret,id=a,file=",
    "secret,id=a,file=f", "secret,id=a,file=/", "secret,id=a,file=f,format=base64", "secret,id=a,data=é",
    "secret,id=a,data,foo",
    "secret,id=a,data=x,format=foo", "secret,id=a,data=x,format=base64", "secret,id=a,data=eA==,format=base64",
    "secret,id=a,data=eA=,format=base64", "secret,id=a,data=e A==,format=base64", "secret,id=a,data=x,iv=q",
    "secret,id=a,data=x,keyid=b", "secret,id=a,data=x,keyid=b,iv=q", "throttle-group,id=t",
    "throttle-group,id=t,foo=1",
    "throttle-group,id=t,x-iops-total=5", "throttle-group,id=t,x-iops-total=a",
    "throttle-group,id=t,limits.iops-total=5",
    "throttle-group,id=1", "throttle-group,help", "main-loop,id=m", "main-loop,id=m,aio-max-batch=a", "main-loop,help",
    "thread-context,help", "[]", "{}", "{", '{"id":"a"}', '{"help":1}', '{"qom-type":1}', '{"qom-type":"foo"}',
    '{"qom-type":"secret"}', '{"qom-type":"secret","id":"1"}', '{"qom-type":"secret","id":"a","data":1}',
    '{"qom-type":"secret","id":"a","data":"x"}', '{"qom-type":"secret","id":"a","data":"x","foo":{}}',
    '{"qom-type":"secret","id":"a","data":"x"',
)  # fmt: skip


def test_objects(arena: Arena) -> None:
    arena.setup(lambda folder: (folder / "f").write_text("pw\n"))
    campaign = [["info", "--object", text] for text in OBJECTS]
    campaign += [["compare", "--object", text, "a"] for text in OBJECTS]
    for one in ("secret,id=a,data=x", "throttle-group,id=a", "main-loop,id=a"):
        for two in ("secret,id=a,data=x", "secret,id=a", "main-loop,id=b", "secret,id=b,keyid=a,data=eA=="):
            campaign.append(["info", "--object", one, "--object", two])
    compare(arena, campaign)


def test_rubbish(arena: Arena) -> None:
    campaign = [[command, word] for command in ("info", "measure", "resize") for word in JUNK]
    campaign += [[command, "nx", word, "nx"] for command in tables.COMMANDS for word in JUNK]
    compare(arena, campaign)


def test_posixly_correct(arena: Arena) -> None:
    campaign = list(company("info", 77, 60)) + list(company("convert", 77, 60))
    compare(arena, campaign, env={"POSIXLY_CORRECT": "1"})


PAIRS = {
    "amend": (["-o", "size=1"], ["-o", "help"], ["-f", "raw"], ["--image-opts"], ["-t", "what"], ["nx"], ["-p"]),
    "bench": (["--image-opts"], ["-f", "raw"], ["-w"], ["--flush-interval=5"], ["--flush-interval=64"], ["nx"]),
    "bitmap": (
        ["--add"], ["--remove"], ["--merge", "s"], ["-g", "1k"], ["-b", "s"], ["-F", "raw"], ["-f", "raw"],
        ["--image-opts"], ["nx"], ["nx", "b"],
    ),
    "check": (["--image-opts"], ["-f", "raw"], ["--output=x"], ["-T", "what"], ["nx"], ["-r", "all"]),
    "commit": (["--image-opts"], ["-f", "raw"], ["-t", "what"], ["nx"], ["-b", "b"], ["-d"]),
    "compare": (["--image-opts"], ["-f", "raw"], ["-F", "raw"], ["-T", "what"], ["nx"], ["nx", "ny"]),
    "convert": (
        ["--skip-broken-bitmaps"], ["-C"], ["-c"], ["-S", "0"], ["--salvage"], ["--target-image-opts"], ["-n"],
        ["-o", "size=1"], ["-o", "help"], ["--target-is-zero"], ["-T", "what"], ["nx"], ["nx", "/nonexistent/x"],
        ["-O", "qcow2"], ["-O", "nosuch"], ["--image-opts"], ["-f", "raw"],
    ),
    "create": (["-f", "qcow2"], ["-o", "help"], ["/nonexistent/x"], ["/nonexistent/x", "y"], ["1", "2", "3"]),
    "dd": (["--image-opts"], ["-f", "raw"], ["if=nx"], ["of=/nonexistent/x"], ["bs=x"], ["count=x"], ["what"]),
    "info": (["--image-opts"], ["-f", "raw"], ["--output=x"], ["nx"], ["--backing-chain"]),
    "map": (["--image-opts"], ["-f", "raw"], ["--output=x"], ["nx"], ["-s", "x"], ["-l", "1"]),
    "measure": (
        ["--image-opts"], ["-f", "raw"], ["--output=x"], ["nx"], ["--size", "1"], ["-l", "s"], ["-l", "snapshot.id=1"],
        ["-O", "raw"], ["-o", "size=1"], ["-U"],
    ),
    "snapshot": (["-l"], ["-a", "s"], ["-c", "s"], ["-d", "s"], ["nx"], ["--image-opts"], ["-q"]),
    "rebase": (["--image-opts"], ["-f", "raw"], ["-t", "what"], ["-T", "what"], ["nx"], ["-u"], ["-b", "b"]),
    "resize": (["--image-opts"], ["-f", "raw"], ["nx"], ["+5G"], ["-5x"], ["--preallocation=what"], ["z"]),
}  # fmt: skip


@pytest.mark.parametrize("command", tables.COMMANDS)
def test_which_mistake_is_told_of_two(command: str, arena: Arena) -> None:
    pieces = PAIRS[command]
    campaign = [[command, *one, *two] for one in pieces for two in pieces if one is not two]
    three = [[command, *one, *two, *pieces[-1]] for one in pieces for two in pieces if one is not two]
    campaign += random.Random(command).sample(three, min(len(three), 40))
    compare(arena, campaign)


def test_before_the_command(arena: Arena) -> None:
    campaign: list[list[str]] = [[], [""], ["nosuch"], ["-"], ["--"], ["--", "info"], ["-x"], ["-xV"], ["-qh"]]
    campaign += [
        ["--nosuch"],
        ["--help=1"],
        ["-T"],
        ["--trace"],
        ["--tr", "x", "info"],
        ["--tr=x", "info"],
        ["--v", "info"],
    ]
    campaign += [
        ["-h"],
        ["--help"],
        ["--h"],
        ["-hV"],
        ["-V"],
        ["--version"],
        ["--ver"],
        ["-VV"],
        ["info", "-V"],
        ["-q", "info"],
    ]
    campaign += [
        ["-T", "x", "-T", "y", "info"],
        ["-T", "x"],
        ["-T", "x", "nosuch"],
        ["-V", "-T", "x"],
        ["-T", "x", "-V"],
    ]
    for text in (
        "foo", "a*", "", "-x", "-", "a,,b", "a,b", "a,nob", "enable=a,enable=b", "enable", "foo,bar=1", "foo,id=1",
        "foo,id=a", "events=/nonexistent", "a,events=/nonexistent", "events=/", "file=/nonexistent/x", "a,file=",
        "foo?", "enable=x,noevents", "events=patterns", "x,events=patterns", "foo,id=",
    ):  # fmt: skip
        campaign.append(["-T", text, "info"])
        campaign.append([f"--trace={text}", "nosuch"])
    arena.setup(lambda folder: (folder / "patterns").write_text("foo\n# no\n\nbar*\n-zz\n  foo \n"))
    compare(arena, campaign)


#: how the description of a parameter or of an option before the command begins
DESCRIBED = re.compile(r"(  '[^']+'|    '-.', +'--\w+')(.*)")


def skeleton(lines: Sequence[str]) -> list[str]:
    """The help without its descriptions: usage, command lines, headings, and what is described under each."""
    kept = []
    for line in lines:
        if match := DESCRIBED.match(line):
            kept.append(match[1])
        elif re.match(r"(usage: .*|.*:|  [a-z]+ .*|)$", line):
            kept.append(line)
    return kept


def descriptions(lines: Sequence[str]) -> list[str]:
    """What is said of each parameter and option, each on one line."""
    found: list[str] = []
    inside = False
    for line in lines:
        if match := DESCRIBED.match(line):
            found.append(match[2].strip())
            inside = True
        elif inside and line.startswith("   "):
            found[-1] += " " + line.strip()
        else:
            inside = False
    return found


def test_help_text(arena: Arena) -> None:
    for argv in (["--help"], ["info", "-h"], ["convert", "--hel"], ["resize", "-h", "x"], ["measure", "--nosuch"]):
        both = arena.run(*argv)
        texts = []
        for outcome in (both.real, both.ours):
            lines = outcome.stdout.split("\n")
            assert re.match(r"qemu-img version 7\.2\.\d+ \(.+\)$", lines[0])
            assert lines[1].startswith("Copyright (c) ")
            formats = next(index for index, line in enumerate(lines) if line.startswith("Supported formats: "))
            # Whose program it is and where to report its bugs is not the same, but stands in the same places.
            assert lines[formats + 1] == "" and lines[formats + 4 :] == [""]
            texts.append(lines[2:formats])
            assert lines[formats].split(": ")[1].split() == sorted(lines[formats].split(": ")[1].split())
        assert skeleton(texts[0]) == skeleton(texts[1])
        # each thing is described, and in words of our own
        real, ours = (descriptions(text) for text in texts)
        assert len(ours) == len(real) > 40
        assert all(len(text.split()) >= 3 for text in ours)
        assert not set(real) & set(ours)
        assert both.real.code == both.ours.code == 0
        assert both.real.stderr == both.ours.stderr


@pytest.mark.parametrize("fmt", ["raw", "qcow2", "vmdk", "nosuch", "bochs", "", "file", "host_device"])
def test_option_help(fmt: str, tmp_path: Path, figures: Any) -> None:
    arena = Arena(tmp_path, figures).setup(lambda folder: (folder / "there").touch())
    for name in ("new", "there", "./a:b", "file:new", "/dev/null", "nosuch:x", ""):
        for words in (["-o", "help"], ["-o", "?"], ["-o", "size=1,help"], ["-o", "a,,help"], ["-o", "x=,,help"]):
            if words[-1] == "x=,,help":
                words, name = [*words, "-ohelp"], f"{name}"
            arena.check("create", "-f", fmt, *words, name)
            arena.check("convert", "-O", fmt, *words, "source", name)
    arena.check("create", "-f", fmt, "-o", "help")
    arena.check("convert", "-O", fmt, "-o", "help")
    arena.check("convert", "-O", fmt, "-o", "help", "source")
    arena.check("amend", "-f", fmt, "-o", "help")
    arena.check("amend", "-f", fmt, "-o", "?", "there")


def test_usage_names_each_option_once() -> None:
    text = usage.help_text()
    for command in tables.COMMANDS:
        line = next(line for line in text.split("\n") if line.startswith(f"  {command} "))
        for option in tables.options(command):
            names = [*([f"-{option.short}"] if option.short else []), *([f"--{option.long}"] if option.long else [])]
            named = sum(len(re.findall(rf"(?<![\w-]){name}(?![\w-])", line)) for name in names)
            assert named == (option.kind != "help" and (command, names[-1]) not in UNNAMED), (command, names)


#: options that the real usage text does not name either
UNNAMED = {
    ("bench", "--image-opts"),
    ("convert", "--skip-broken-bitmaps"),
    ("dd", "--object"),
    ("measure", "--force-share"),
}


def test_table_is_sound() -> None:
    for command in tables.COMMANDS:
        options = tables.options(command)
        for name in ("short", "long"):
            given = [getattr(option, name) for option in options if getattr(option, name)]
            assert len(given) == len(set(given)), command
        args = Parsed(command)
        for option in options:
            assert hasattr(converters, f"convert_{option.kind}"), (command, option)
            if option.kind in ("text", "flag", "off", "size", "unsigned", "aio", "preallocation", "repair", "output"):
                assert hasattr(args, option.dest), (command, option)
        for name, *_ in tables.COMMANDS[command][3]:
            assert hasattr(checks, f"check_{name}"), (command, name)
    used = {option.kind for command in tables.COMMANDS for option in tables.options(command)}
    assert used == {name.removeprefix("convert_") for name in vars(converters) if name.startswith("convert_")}
    named = {name for command in tables.COMMANDS for name, *_ in tables.COMMANDS[command][3]}
    assert named == {name.removeprefix("check_") for name in vars(checks) if name.startswith("check_")}


# ---- what a command line means ---------------------------------------------------------------------------------


def parse(*argv: str) -> Parsed:
    with open(os.devnull, "w") as sink:
        out = Output("qemu-img", stdout=sink.fileno(), stderr=sink.fileno())
        return dispatch.parse(argv[0], list(argv), out)


def test_parsed_convert() -> None:
    args = parse(
        "convert", "-pf", "raw", "a", "-O", "qcow2", "-o", "cluster_size=64k", "b", "-ocompat=v3", "-S", "64k", "-m4",
        "-W", "-r", "1M", "--sal", "-l", "snapshot.id=1,snapshot.name=x,,y", "-t", "none", "c",
    )  # fmt: skip
    assert args.operands == ["a", "b", "c"]
    assert (args.fmt, args.out_fmt, args.options) == ("raw", "qcow2", "cluster_size=64k,compat=v3")
    assert (args.sparse_size, args.coroutines, args.in_order, args.rate_limit) == (65536, 4, False, 1 << 20)
    assert (args.snapshot, args.snapshot_id, args.snapshot_name) == (None, "1", "x,y")
    assert args.progress and args.salvage and args.cache == "none" and args.src_cache is None


def test_parsed_defaults() -> None:
    args = parse("convert", "a", "b")
    assert (args.out_fmt, args.sparse_size, args.coroutines, args.in_order) == ("raw", None, 8, True)
    bench = parse("bench", "a")
    assert (bench.count, bench.depth, bench.buffer_size, bench.step, bench.drain) == (75000, 64, 4096, 0, True)
    create = parse("create", "a", "1.5G")
    assert (create.fmt, create.size) == ("raw", 3 << 29)
    dd = parse("dd", "if=a=b", "of=c", "bs=1M", "count=2")
    assert (dd.input, dd.target, dd.block_size, dd.blocks, dd.skip) == ("a=b", "c", 1 << 20, 2, 0)


def test_parsed_resize() -> None:
    for text, relative, size in (("+5G", 1, 5 << 30), ("-1k", -1, 1024), ("7", 0, 7)):
        args = parse("resize", "a", "--shrink", text)
        assert (args.operands, args.relative, args.size, args.shrink) == (["a"], relative, size, True)


def test_parsed_bitmap_actions_keep_their_order() -> None:
    args = parse("bitmap", "--merge", "x", "--add", "a.qcow2", "--merge=y", "-g", "64k", "b")
    assert args.actions == [("merge", "x"), ("add", ""), ("merge", "y")]
    assert args.granularity == 65536 and args.operands == ["a.qcow2", "b"]


def test_parsed_quiet_silences_progress() -> None:
    assert parse("commit", "-p", "a").progress
    assert not parse("commit", "-p", "-q", "a").progress


def test_parsed_secrets(tmp_path: Path) -> None:
    (tmp_path / "s").write_bytes(b"\xff\n")
    args = parse(
        "info", "--object", "secret,id=a,data=p,,w", "--object", "secret,id=b,format=base64,data=cHc=",
        "--object", f"secret,id=c,file={tmp_path}/s", "x",
    )  # fmt: skip
    assert args.secrets == {"a": b"p,w", "b": b"pw", "c": b"\xff\n"}


# ---- the process around it -------------------------------------------------------------------------------------


@pytest.fixture
def link(tmp_path: Path) -> Path:
    subprocess.run([sys.executable, "-m", "cowshed", "links", tmp_path / "bin"], check=True, capture_output=True)
    return tmp_path / "bin" / "qemu-img"


def test_under_its_own_name(tmp_path: Path, figures: Any) -> None:
    arena = Arena(tmp_path, figures)
    for argv in ([], ["info"], ["info", "--nosuch"], ["convert", "-S", "1"], ["check", "-r", "x", "nx"], ["-xV"]):
        arena.check(*argv, link=True, code=1)
        arena.check(*argv, link=True, merged=True)
        arena.check(*argv, link=True, env={"LC_ALL": "C", "PYTHONPATH": "/nonexistent", "PYTHONSTARTUP": "/x"})


def test_names_that_are_not_text(tmp_path: Path, figures: Any) -> None:
    arena = Arena(tmp_path, figures)
    for name in ("é", "\udcff\udc80", "雪", "a\nb"):
        for env in ({"LC_ALL": "C"}, {"LC_ALL": "C.UTF-8"}, {"LC_ALL": "POSIX", "LANG": ""}):
            arena.check("info", f"--{name}", link=True, env=env, code=1)
            arena.check("dd", name, link=True, env=env, code=1)


def test_as_a_tool_of_cowshed(tmp_path: Path, figures: Any) -> None:
    real = Arena(tmp_path, figures).run("info", "a", "b").real
    done = subprocess.run(
        [sys.executable, "-m", "cowshed", "qemu-img", "info", "a", "b"], capture_output=True, text=True
    )
    assert (done.returncode, done.stdout, done.stderr) == (real.code, real.stdout, real.stderr)


def test_links_are_made_once_and_spare_what_is_not_theirs(tmp_path: Path) -> None:
    def links(folder: Path) -> subprocess.CompletedProcess[str]:
        return subprocess.run([sys.executable, "-m", "cowshed", "links", folder], capture_output=True, text=True)

    target = tmp_path / "bin" / "qemu-img"
    assert links(target.parent).returncode == 0
    first = target.stat()
    assert first.st_mode & 0o111
    again = links(target.parent)
    assert again.returncode == 0 and "up to date" in again.stdout
    assert target.stat().st_ino == first.st_ino
    stale = target.read_text().replace("cowshed.cli.main", "cowshed.cli.gone")
    target.write_text(stale)
    assert links(target.parent).returncode == 0
    assert subprocess.run([target, "--version"], capture_output=True).returncode == 0
    for make in (
        lambda: target.write_text("#!/bin/sh\necho real\n"),
        lambda: target.symlink_to("/bin/true"),
        lambda: target.mkdir(),
    ):
        if target.is_dir():
            target.rmdir()
        else:
            target.unlink()
        make()
        refused = links(target.parent)
        assert refused.returncode == 1 and "left alone" in refused.stderr
    assert target.is_dir()
    assert sorted(os.listdir(target.parent)) == sorted(front.TOOLS)


def test_link_of_an_interpreter_with_blanks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from cowshed.cli.links import launcher

    folder = tmp_path / "it's a place"
    folder.mkdir()
    (folder / "python").symlink_to(os.path.realpath(sys.executable))
    monkeypatch.setattr(sys, "executable", str(folder / "python"))
    target = tmp_path / "qemu-img"
    target.write_text(launcher("qemu-img"))
    target.chmod(0o755)
    done = subprocess.run([target, "info", "a b", "c"], capture_output=True, text=True)
    assert done.stderr.startswith("qemu-img: Expecting one image file name")


def test_reader_that_goes_away_is_no_error(link: Path) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run([link, "--help"], stdout=writer, stderr=subprocess.PIPE, text=True)
    os.close(writer)
    assert (done.returncode, done.stderr) == (0, "")


def test_full_disk_is_told(link: Path) -> None:
    with open("/dev/full", "w") as full:
        done = subprocess.run([link, "--help"], stdout=full, stderr=subprocess.PIPE, text=True)
    assert done.returncode == 1
    assert done.stderr == "qemu-img: could not write to standard output: No space left on device\n"


def test_closed_streams_do_not_become_images(link: Path, tmp_path: Path) -> None:
    script = f'exec "{link}" dd --nosuch >&- 2>&- <&-; '
    assert subprocess.run(["sh", "-c", script]).returncode == 1


def test_interrupt_ends_as_in_c(tmp_path: Path) -> None:
    code = (
        "import sys, time\n"
        "from cowshed.cli import main, output\n"
        "from cowshed.cli.qemu_img import dispatch\n"
        "def run(args, out):\n"
        "    out.write('begun\\n'); out.flush(); time.sleep(60)\n"
        "dispatch.load = lambda command: run\n"
        "sys.argv = ['qemu-img', 'info', 'x']\n"
        "main.tool('qemu-img')\n"
    )
    child = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert child.stdout is not None and child.stdout.readline() == b"begun\n"
    time.sleep(0.05)
    child.send_signal(signal.SIGINT)
    _, stderr = child.communicate(timeout=30)
    assert child.returncode == -signal.SIGINT and stderr == b""


@pytest.mark.parametrize(
    ("failure", "text"),
    [
        (ValueError("two\nlines"), "qemu-img: internal error: ValueError: two lines\n"),
        (MemoryError(), "qemu-img: out of memory\n"),
        (RecursionError("deep"), "qemu-img: internal error: RecursionError: deep\n"),
    ],
)
def test_unexpected_failure_is_one_line(
    failure: Exception, text: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def run(args: Parsed, out: Output) -> int:
        raise failure

    monkeypatch.setattr(dispatch, "load", lambda command: run)
    monkeypatch.delenv("COWSHED_DEBUG", raising=False)
    with open(tmp_path / "err", "w+") as err:
        out = Output("qemu-img", stdout=err.fileno(), stderr=err.fileno())
        assert front.call("qemu-img", ["qemu-img", "info", "x"], out) == 1
    assert (tmp_path / "err").read_text() == text
    monkeypatch.setenv("COWSHED_DEBUG", "1")
    with open(tmp_path / "err", "w+") as err:
        out = Output("qemu-img", stdout=err.fileno(), stderr=err.fileno())
        front.call("qemu-img", ["qemu-img", "info", "x"], out)
    assert ("Traceback" in (tmp_path / "err").read_text()) == (not isinstance(failure, MemoryError))


def test_a_missing_command_breaks_no_other(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    row = tables.COMMANDS["info"]
    monkeypatch.setitem(tables.COMMANDS, "info", ("cowshed.cli.qemu_img.not_there", *row[1:]))
    with open(tmp_path / "err", "w+") as err:
        out = Output("qemu-img", stdout=err.fileno(), stderr=err.fileno())
        assert front.call("qemu-img", ["qemu-img", "info", "x"], out) == 1
        assert front.call("qemu-img", ["qemu-img", "map"], out) == 1
    lines = (tmp_path / "err").read_text().split("\n")
    assert lines[0].startswith("qemu-img: internal error: ModuleNotFoundError")
    assert lines[1] == "qemu-img: Expecting one image file name"


# ---- streams ---------------------------------------------------------------------------------------------------


def streams(tmp_path: Path, steps: Sequence[tuple[str, str]]) -> str:
    path = tmp_path / "both"
    with open(path, "wb", buffering=0) as file:
        out = Output("p", stdout=file.fileno(), stderr=os.dup(file.fileno()))
        for kind, text in steps:
            getattr(out, kind)(*([text] if kind != "flush" else []))
        out.flush()
    return path.read_text()


@pytest.mark.parametrize(
    ("hint", "printed"),
    [
        (None, ""),
        ("Is another process using the image [x]?", "Is another process using the image [x]?\n"),
        ("Detected format of raw.", "Detected format of raw."),
        ("try another day", ""),
    ],
)
def test_hints_that_the_real_tool_gives(hint: str | None, printed: str, tmp_path: Path) -> None:
    with open(tmp_path / "err", "w+") as err:
        Output("p", stderr=err.fileno()).report(CowshedError("no", hint=hint))
    assert (tmp_path / "err").read_text() == f"p: no\n{printed}"


def test_people_at_a_terminal_get_every_hint() -> None:
    for under_link in (False, True):
        leader, follower = os.openpty()
        Output("p", stderr=follower, under_link=under_link).report(CowshedError("no", hint="try another day"))
        os.close(follower)
        text = os.read(leader, 1000)
        os.close(leader)
        assert text == b"p: no\r\n" + (b"" if under_link else b"try another day\r\n")


def test_lines_on_a_terminal_do_not_wait() -> None:
    leader, follower = os.openpty()
    out = Output("p", stdout=follower, stderr=follower)
    out.write("one\ntwo")
    assert out.tty
    out.error("three")
    out.flush()
    os.close(follower)
    text = b""
    while b"two" not in text:
        text += os.read(leader, 1000)
    os.close(leader)
    assert text.replace(b"\r\n", b"\n") == b"one\np: three\ntwo"


def test_stdout_waits_as_in_c(tmp_path: Path) -> None:
    assert streams(tmp_path, [("write", "a\n"), ("error", "b"), ("write", "c\n")]) == "p: b\na\nc\n"
    assert streams(tmp_path, [("write", "a\n"), ("flush", ""), ("error", "b")]) == "a\np: b\n"


@pytest.mark.parametrize("count", [100, 4095, 4096, 4097, 8192, 10000, 300000])
def test_stdout_is_cut_at_blocks_as_in_c(count: int, tmp_path: Path) -> None:
    """The C library itself is the judge: printf of single lines, then something on stderr."""
    lines = [f"{number:09}\n" for number in range(count // 10 + 1)]
    script = "import ctypes, sys\nc = ctypes.CDLL(None)\n"
    script += f"for n in range({len(lines)}): c.printf(b'%09d\\n', n)\n"
    script += "c.dprintf(2, b'p: b\\n')\nc.fflush(None)\n"
    path = tmp_path / "c"
    with open(path, "wb") as file:
        subprocess.run([sys.executable, "-I", "-c", script], stdout=file, stderr=file, check=True)
    assert streams(tmp_path, [*(("write", line) for line in lines), ("error", "b")]) == path.read_text()


# ---- start-up --------------------------------------------------------------------------------------------------


def test_start_up_loads_little() -> None:
    code = (
        "import os, sys, __future__; before = set(sys.modules)\n"
        "from cowshed.cli.qemu_img import dispatch\n"
        "from cowshed.cli.output import Output\n"
        "dispatch.parse('info', ['info', '-f', 'qcow2', '-U', '--output=json', 'x'], Output('qemu-img'))\n"
        "print(*sorted(set(sys.modules) - before))"
    )
    code = f"import sys; sys.path += {sys.path!r}\n{code}"
    done = subprocess.run([sys.executable, "-ISc", code], capture_output=True, text=True, check=True)
    loaded = done.stdout.split()
    assert [name for name in loaded if not name.startswith("cowshed")] in ([], ["errno"])
    assert len(loaded) <= 12, loaded
