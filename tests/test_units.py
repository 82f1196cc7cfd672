"""Sizes and numbers against the real tool: `create` in a directory that is not there tells what it understood."""

from __future__ import annotations

import random
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

import judges
from cowshed.units import UnitsError, parse_integer, parse_size, parse_unsigned

CASES = (
    "0", "1", "010", "00", "+5", " +5", "\t7", "5 ", "+ 5", "--5", "-0", "-5", "0x", "0x1", "0X1F", "0x1.8", "0x1.8k",
    "0x1p3", "1.k", "1.", ".5k", ".", ".k", "1.5k", "1.5", "1.0", "1.00000000000000000000000000001", "1.5e1k", "1.0e0",
    "1.5E", "1.5e", "1.e", "1.E", "0.5b", "1.0b", "1b", "1B", "1KiB", "1Ki", "1kk", "0xk", "0x1E", "0x1b", "0x1 k",
    "0x1K", "0x0k", "0x-1", "-0x1", "1-", "9223372036854775807", "9223372036854775808", "18446744073709551615",
    "18446744073709551616", "-18446744073709551616", "184467440737095516160k", "18014398509481984k",
    "1.99999999999999999999k", "0.0001k", "0.00048828125k", "0.000488281249k", "1.nank", "1.infk", "inf",
    "nan", "", " ",
    "k", "1,000", "1_0", "1.5.5k", "1.5kk", "1.-5k", "1.+5k", "1. 5k", "1.0x8k", "1.5ek", "1.5e+k", "1.5e-1k", "٣",
    "1.5\nk", "0b1", "0o7", "00x1", "0.5E", "0.5EE", "7.999999999999999999E", "15.9999999999999999999E",
    "0x8000000000000000", "0xffffffffffffffff", "0x10000000000000000", "0x10000000000000000x", "18446744073709551616x",
    "18446744073709551616k", "18446744073709551616.5", "1k", "1K", "1m", "1M", "1g", "1G", "1t", "1T", "1p",
    "1P", "1e",
    "0.999999999999999999999999G", "0000000000000000000000000000001k", "0x0000000000000000000000000000000001",
    "1é", "1\udcff",
)  # fmt: skip

PIECES = (
    "0", "1", "9", "5", "7", "00", "18446744073709551615", "18446744073709551616", "9223372036854775807", ".",
    ".5", ".99",
    ".0", "x", "0x", "X", "k", "K", "m", "G", "t", "P", "e", "E", "b", "B", "+", "-", " ", "e5", "q", "a", "f", "ffff",
)  # fmt: skip


def judged(text: str) -> tuple[object, bool]:
    """What the real tool makes of a size: (bytes, "range" or "invalid"), and whether it warned."""
    done = judges.run("qemu-img", "create", "-f", "raw", "/nonexistent/x", "--", text, ok=(1,))
    warned = f"qemu-img: warning: Using a multiplier suffix on hex numbers is deprecated: {text}\n" in done.stderr
    size = re.search(r"size=(\d+)\n", done.stdout)
    if size:
        return int(size[1]), warned
    return "range" if "Must be between 0 and 9223372036854775807" in done.stderr else "invalid", warned


def ours(text: str) -> tuple[object, bool]:
    warnings: list[str] = []
    try:
        size: object = parse_size(text, warnings.append)
        if isinstance(size, int) and size > 0x7FFFFFFFFFFFFFFF:
            size = "range"  # beyond what create takes
    except UnitsError as error:
        size = error.reason
    return size, warnings == [f"Using a multiplier suffix on hex numbers is deprecated: {text}"]


def test_sizes(figures: object) -> None:
    judges.need_series("qemu-img")
    assert {text: ours(text) for text in CASES} == {text: judged(text) for text in CASES}


def test_sizes_at_random() -> None:
    judges.need_series("qemu-img")
    rng = random.Random(7)
    texts = ["".join(rng.choices(PIECES, k=rng.choice((1, 2, 2, 3, 3, 4, 5)))) for _ in range(400)]
    texts += [
        f"{rng.randrange(1 << rng.randrange(1, 64))}.{rng.randrange(10**12)}{rng.choice('kMGTPE')}" for _ in range(200)
    ]
    for text in texts:
        assert ours(text) == judged(text), text


@given(st.integers(0, (1 << 64) - 1))
def test_plain_numbers(number: int) -> None:
    assert parse_size(str(number)) == parse_size(hex(number)) == number


@given(st.integers(0, 1 << 34), st.integers(0, 2))
def test_suffixes_are_powers_of_1024(number: int, power: int) -> None:
    assert parse_size(f"{number}{'bkm'[power]}") == parse_size(f"{number}{'BKM'[power]}") == number * 1024**power


@given(st.text(max_size=12))
def test_any_text_is_a_size_or_an_error(text: str) -> None:
    for parse in (parse_size, parse_integer, parse_unsigned):
        try:
            parse(text)
        except UnitsError as error:
            assert error.value == text and text in str(error)


def test_long_texts_are_quick() -> None:
    for text in ("9" * 200000, "0" * 200000 + "1", "0x" + "f" * 200000, "1." + "9" * 200000 + "k", " " * 200000 + "1"):
        try:
            parse_size(text)
        except UnitsError:
            pass
        try:
            parse_integer(text)
        except UnitsError:
            pass


@pytest.mark.parametrize(
    ("text", "number"),
    [("7", 7), (" +7", 7), ("-7", -7), ("0x1F", 31), ("017", 15), ("0", 0), ("-0x10", -16), ("9" * 100, None)],
)
def test_integers(text: str, number: int | None) -> None:
    value = parse_integer(text)
    assert value == number if number is not None else value > 1 << 64


@pytest.mark.parametrize("text", ["", " ", "-", "08", "0x", "0xg", "1k", "1 ", "1.0", "x", "+-1", "0b1"])
def test_not_integers(text: str) -> None:
    with pytest.raises(UnitsError) as caught:
        parse_integer(text)
    assert caught.value.reason == "invalid"


def test_unsigned_wraps() -> None:
    assert parse_unsigned("-1") == (1 << 64) - 1
    assert parse_unsigned("18446744073709551615") == (1 << 64) - 1
    for text in ("18446744073709551616", "-18446744073709551616"):
        with pytest.raises(UnitsError) as caught:
            parse_unsigned(text)
        assert caught.value.reason == "range"
