"""The scanner against the C library's own getopt_long, called in this process."""

from __future__ import annotations

import ctypes
import ctypes.util
import os
import random
import string
import tempfile
from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import judges
from cowshed.cli.qemu_img import tables
from cowshed.cli.qemu_img.getopt import BadOption, Scanner
from cowshed.cli.qemu_img.tables import Option


class CLong(ctypes.Structure):
    _fields_ = [
        ("name", ctypes.c_char_p),
        ("has_arg", ctypes.c_int),
        ("flag", ctypes.c_void_p),
        ("val", ctypes.c_int),
    ]


def c_library() -> ctypes.CDLL:
    c = ctypes.CDLL(None)
    if not hasattr(c, "gnu_get_libc_version"):
        judges.absent("the GNU C library's getopt_long")
    return c


#: what both scanners report for each call: (option or problem, its value, index), then the operands
Trace = list[tuple[object, ...]]


def with_c(argv: Sequence[str], options: Sequence[Option], *, in_order: bool, silent: bool) -> tuple[Trace, str]:
    c = c_library()
    words = [os.fsencode(word) for word in argv]
    # The library permutes the pointers, which belong to this array.
    vector = (ctypes.c_char_p * (len(words) + 1))(*words, None)
    short = "".join(option.short + (":" if option.metavar else "") for option in options if option.short)
    short = ("+" if in_order else "") + (":" if silent else "") + short
    rows = [(option, CLong(option.long.encode(), bool(option.metavar), None, 1000 + index))
            for index, option in enumerate(options) if option.long]  # fmt: skip
    table = (CLong * (len(rows) + 1))(*(row for _, row in rows), CLong(None, 0, None, 0))
    optind = ctypes.c_int.in_dll(c, "optind")
    optarg = ctypes.c_char_p.in_dll(c, "optarg")
    optind.value = 0
    trace: Trace = []
    with tempfile.TemporaryFile() as file:
        keep = os.dup(2)
        os.dup2(file.fileno(), 2)
        try:
            while True:
                code = c.getopt_long(len(words), vector, short.encode(), table, None)
                if code == -1:
                    break
                if code in (ord("?"), ord(":")):
                    trace.append(("bad", "missing" if code == ord(":") else "unknown", vector[optind.value - 1]))
                    if not silent:
                        trace[-1] = ("bad", trace[-1][2])
                    break
                option = options[code - 1000] if code >= 1000 else next(o for o in options if o.short == chr(code))
                trace.append((option, optarg.value if option.metavar else b"", optind.value))
            else:
                raise AssertionError
            trace.append(("rest", *vector[optind.value : len(words)]) if code == -1 else ())
        finally:
            os.dup2(keep, 2)
            os.close(keep)
        file.seek(0)
        return trace, file.read().decode("utf-8", "surrogateescape")


def with_ours(argv: Sequence[str], options: Sequence[Option], *, in_order: bool, silent: bool) -> tuple[Trace, str]:
    messages: list[str] = []
    scanner = Scanner(argv, options, in_order=in_order, complain=None if silent else messages.append)
    trace: Trace = []
    while True:
        try:
            option = scanner.next()
        except BadOption as bad:
            culprit = os.fsencode(bad.culprit)
            trace.append(("bad", bad.kind, culprit) if silent else ("bad", culprit))
            trace.append(())
            break
        if option is None:
            trace.append(("rest", *map(os.fsencode, scanner.operands)))
            break
        trace.append((option, os.fsencode(scanner.value), scanner.index))
    return trace, "".join(f"{argv[0]}: {message}\n" for message in messages)


def agree(argv: Sequence[str], options: Sequence[Option], *, in_order: bool = False, silent: bool = True) -> None:
    expected = with_c(argv, options, in_order=in_order, silent=silent)
    assert with_ours(argv, options, in_order=in_order, silent=silent) == expected, argv


OPTIONS = tuple(
    Option((short, long, metavar, "", ""))
    for short, long, metavar in (
        ("h", "help", ""),
        ("f", "format", " x"),
        ("F", "", " x"),
        ("q", "", ""),
        ("U", "force-share", ""),
        ("", "force", ""),
        ("", "output", "=x"),
        ("", "object", " x"),
        ("", "outputs", ""),
    )
)

WORDS = (
    "-h", "-f", "-F", "-q", "-U", "-fx", "-qf", "-qfx", "-qU", "-Uqh", "-fh", "-z", "-zq", "-qz", "-", "--", "---",
    "--help", "--hel", "--h", "--help=", "--help=1", "--format", "--format=", "--format=a=b", "--form", "--f", "--fo",
    "--force", "--force-", "--force-share", "--o", "--o=1", "--out", "--output", "--output=1", "--outputs",
    "--outputs=1",
    "--ob", "--ob=--", "--nosuch", "--nosuch=1", "--=", "--=x", "a", "b", "", "é", "-é", "-qé", "--é",
    "-\udcff", "-q-",
    "-q=", "-f=", "-f-", "-:", "-q:", "-;", "-q;", "-W", "-Wx",
)  # fmt: skip


@pytest.mark.parametrize("silent", [True, False])
@pytest.mark.parametrize("in_order", [True, False])
def test_every_pair(silent: bool, in_order: bool) -> None:
    for one in WORDS:
        agree(["cmd", one], OPTIONS, in_order=in_order, silent=silent)
        for two in WORDS:
            agree(["cmd", one, two], OPTIONS, in_order=in_order, silent=silent)


@settings(max_examples=800)
@given(words=st.lists(st.sampled_from(WORDS), max_size=9), in_order=st.booleans(), silent=st.booleans())
def test_any_order(words: list[str], in_order: bool, silent: bool) -> None:
    agree(["cmd", *words], OPTIONS, in_order=in_order, silent=silent)


@settings(max_examples=250)
@given(words=st.lists(st.text(alphabet="-=fqhUFzo:;é a", max_size=6), max_size=6), silent=st.booleans())
def test_any_text(words: list[str], silent: bool) -> None:
    agree(["cmd", *words], OPTIONS, silent=silent)


@pytest.mark.parametrize("command", ["", *tables.COMMANDS])
def test_the_real_tables(command: str) -> None:
    options = tables.options(command)
    rng = random.Random(command)
    words = [f"-{option.short}" for option in options if option.short]
    for option in options:
        words += [f"--{option.long}"[:length] for length in range(3, len(option.long) + 3)]
        words += [f"--{option.long}=x"] if option.long else []
    words += ["a", "b", "--", "-" + "".join(option.short for option in options if not option.metavar)]
    for word in words:
        for silent in (True, False):
            agree(["cmd", word], options, silent=silent)
            agree(["cmd", "x", word, "y"], options, silent=silent)
    for _ in range(300):
        argv = ["cmd", *rng.choices(words, k=rng.randrange(8))]
        agree(argv, options, silent=rng.random() < 0.5, in_order=command == "")


def test_posixly_correct(monkeypatch: pytest.MonkeyPatch) -> None:
    # The C library looks at its own environment, which monkeypatch changes too.
    monkeypatch.setenv("POSIXLY_CORRECT", "1")
    for words in (["a", "-q"], ["-q", "a", "-h"], ["--", "-q"], ["-q", "--", "-h"], ["a", "--", "-h"]):
        agree(["cmd", *words], OPTIONS)


def test_every_letter_that_no_option_has() -> None:
    known = {option.short for option in OPTIONS}
    for letter in string.printable:
        if letter not in known and letter not in "-\0":
            for word in (f"-{letter}", f"-q{letter}", f"-{letter}q", f"-q{letter}q"):
                agree(["cmd", "a", word], OPTIONS, silent=False)
                agree(["cmd", "a", word], OPTIONS, silent=True)
