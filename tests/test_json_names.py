"""Malformed ``json:`` names, beside the real tool: a fixed list, and mutants of good ones."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest

from differential import Arena

GOOD = '{"driver":"raw","file":{"driver":"file","filename":"a.raw"}}'

MALFORMED = [
    "", " ", "{", "}", "{}", "{ }", "[", "]", "[]", "[1]", "{ x", "{x}", '{"', '{"x', '{"x"', '{"x"}', '{"x":',
    '{"x":}',
    '{"x":1', '{"x":1,', '{"x":1,}', '{"x" 1}', '{"x"=1}', '{x:1}', "{'x':1}", "{'x:1}", '{"x":1 "y":2}',
    '{"x":1;"y":2}',
    '{"x":1}}', '{"x":1}]', '{"x":1} {', '{"x":1} x', '{"x":1}\n', '{"x":1}\n\n{"y":2}', '{"x":1}#', '{,"x":1}',
    '{"x"::1}',
    '{"x":,}', '{1:1}', '{null:1}', '{true:1}', '{[]:1}', '{{}:1}', '{"x":[}', '{"x":[1}', '{"x":{]}', '{"x":[1,]}',
    '{"x":[,1]}', '{"x":[1 2]}', "null", "true", "1", '"x"', "1 2", "x", "X", "tru", "{tru:1}", '{"x":tru}',
    '{"x":True}', '{"x":nul}', '{"x":NaN}', '{"x":Infinity}', '{"x":-}', '{"x":+1}', '{"x":01}', '{"x":-01}',
    '{"x":1.}',
    '{"x":.5}', '{"x":1e}', '{"x":1e+}', '{"x":1.5e}', '{"x":0x10}', '{"x":1x}', '{"x":1a1}', '{"x":--1}', '{"x":1-}',
    '{"x":1_000}', '{"x":"\\q"}', '{"x":"\\u12"}', '{"x":"\\u12g4"}', '{"x":"\\ud800"}', '{"x":"\\udc00"}',
    '{"x":"\\ud800\\u0041"}', '{"x":"\\ud83d\\ude00"}', '{"x":"\\uffff"}', '{"x":"\\ufdd0"}', '{"x":"\\u0000"}',
    '{"x":"\\', '{"x":"\\"', '{"x":"\\"}', '{"x":"a\tb"}', '{"x":"a\nb"}', '{"x":"\x7f"}', '{"x":"\udcff"}',
    '{"x":"\udcc3"}', '{"x":"é"}', '{"é":1}', "{é:1}", '{"x":"\udced\udca0\udc80"}', '{"x":"\udcc0\udc80"}', "\ufeff{}",
    '{"driver":"raw","driver":"raw"}', '{"file":{"a":1,"a":2}}', '{"x":1,"x":1}', '{"":1}', '{"":1,"":2}',
    '{"x":"%s%n%%d"}',
    '{"%s":%s}', "%s", "{%d}", '{"x":%p}', '{"x":%i64}', "/* */{}", "//\n{}", "{\t\r\n\f}", "{\v}", "\x01", "{\x01}",
    "[" * 1024, "[" * 1025, "{" * 1024, "{" * 1025, '{"x":' * 300 + "1" + "}" * 300, '{"x":' * 1023 + "1" + "}" * 1023,
    '{"x":' * 1024 + "1" + "}" * 1024, '{"x":' * 1025 + "1" + "}" * 1025,
    '{"x":' + "[" * 1022 + "1" + "]" * 1022 + "}", '{"x":' + "[" * 1024 + "1" + "]" * 1024 + "}",
    '{"x":' + "[" * 255 + "]" * 255 + "}", '{"x":' + "[" * 257 + "]" * 257 + "}",
    '{"x":"' + "y" * 70000, '{"x":"' + "y" * 70000 + '"}x',
    '{"x":1}' * 3, "{} {}", "[] []", "1]", "{]", "[}", '{"a":1]', ",", ":", '"', "'", "'x'", "-", "1.5", "1e5",
    '{"x":"y}',
]  # fmt: skip

#: good as JSON; what becomes of the numbers
NUMBERS = [
    "0", "-0", "-1", "1", "512", "511", "1.0", "1e3", "1.5", "512.0", "9223372036854775807", "9223372036854775808",
    "-9223372036854775808", "-9223372036854775809", "18446744073709551615", "18446744073709551616", "1e400", "-1e400",
    "1e-400", "1" + "0" * 50, "1" + "0" * 400, "0.1", "1E5", "1e+5", "0e0", "-0.0", "5e-324", "2.2250738585072014e-308",
    "123456789.123456789", "1e15", "1e16", "1e17", "1e18", "1e19", "100000000000000000000", '"512"', '"1k"', '"x"',
    "null",
    "true", "[512]", '{"x":1}',
]  # fmt: skip


@pytest.fixture
def arena(tmp_path: Path, figures: Any) -> Arena:
    return Arena(tmp_path, figures).setup("create -q a.raw 1M", "create -q -f qcow2 b.qcow2 1M")


def test_malformed(arena: Arena) -> None:
    arena.check_all((["info", "json:" + text] for text in MALFORMED), mask=["disk size"])


def test_numbers(arena: Arena) -> None:
    lines = []
    for number in NUMBERS:
        for field in ("offset", "size"):
            text = f'json:{{"driver":"raw","{field}":{number},"file":{{"driver":"file","filename":"a.raw"}}}}'
            lines.append(["info", "--output", "json", text])
    arena.check_all(lines, mask=["disk size"])


def test_mutants(arena: Arena) -> None:
    """One or two characters of a good name are taken out, put in or doubled."""
    rng = random.Random(7)
    letters = "{}[]:,\"'\\ \t\n0159-+.eEtrufalsn/u"
    lines = []
    for _ in range(250):
        text = list(GOOD)
        for _ in range(rng.choice((1, 1, 2))):
            at = rng.randrange(len(text))
            match rng.randrange(4):
                case 0:
                    del text[at]
                case 1:
                    text.insert(at, rng.choice(letters))
                case 2:
                    text[at] = rng.choice(letters)
                case _:
                    del text[at:]
                    if not text:
                        text = ["{"]
        lines.append(["info", "json:" + "".join(text)])
    arena.check_all(lines, mask=["disk size"])
