"""qemu's JSON and human sizes: order of members, layout and escapes as the real tool prints them."""

from __future__ import annotations

import json
import os
import random
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import judges
from cowshed.wire import human
from cowshed.wire.qdict import bucket, compact, ordered, pretty, quoted

SECRET = ("--object", "secret,id=s,data=x")


@pytest.fixture(scope="module")
def texts(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """JSON that the real tool prints about images of every kind."""
    judges.need_series("qemu-img")
    folder = tmp_path_factory.mktemp("images")
    found: list[str] = []

    def tool(*argv: str) -> None:
        judges.run("qemu-img", *argv, cwd=folder)

    def ask(*argv: str, ok: tuple[int, ...] = (0, 3)) -> None:
        found.append(judges.run("qemu-img", *argv, "--output=json", cwd=folder, ok=ok).stdout)

    tool("create", "-q", "-f", "raw", "raw", "1M")
    tool("create", "-q", "-f", "qcow2", "v3", "10M")
    tool("create", "-q", "-f", "qcow2", "-o", "compat=v2", "v2", "10M")
    tool("create", "-q", "-f", "qcow2", "-o", "data_file=ext,data_file_raw=on,lazy_refcounts=on", "data", "1M")
    tool("create", "-q", "-f", "qcow2", "-b", "v3", "-F", "qcow2", "overlay")
    tool("create", "-q", "-f", "qcow2", "-o", "extended_l2=on,compression_type=zstd", "sub", "1M")
    tool(
        "create",
        "-q",
        *SECRET,
        "-f",
        "qcow2",
        "-o",
        "encrypt.format=luks,encrypt.key-secret=s,encrypt.iter-time=10",
        "enc",
        "1M",
    )
    tool("create", "-q", *SECRET, "-f", "luks", "-o", "key-secret=s,iter-time=10", "luks", "1M")
    for fmt in ("vmdk", "vdi", "vhdx", "vpc", "qed", "parallels", "qcow"):
        tool("create", "-q", "-f", fmt, fmt, "3M")
    tool("create", "-q", "-f", "vmdk", "-o", "subformat=twoGbMaxExtentFlat", "flat", "1M")
    tool("bitmap", "--add", "--disable", "v3", "b0")
    tool("bitmap", "--add", "-g", "32k", "v3", "b1")
    tool("snapshot", "-c", "one", "v3")
    tool("snapshot", "-c", "two", "v3")
    judges.qemu_io(folder / "v3", "write 0 3M", fmt="qcow2")
    for name in sorted(os.listdir(folder)):
        if name not in ("ext", "flat-f001.vmdk"):
            ask("info", name)
    ask("info", "--backing-chain", "overlay")
    for name in ("v3", "v2", "overlay", "qed", "vdi", "sub"):
        ask("check", name)
    for fmt in ("raw", "qcow2"):
        ask("measure", "-O", fmt, "v3")
        ask("measure", "-O", fmt, "--size", "1G")
    blob = bytearray((folder / "v2").read_bytes())
    blob += bytes(65536)
    (folder / "leaky").write_bytes(blob)
    ask("check", "leaky", ok=(0, 2, 3))
    ask("check", "-r", "all", "leaky", ok=(0, 2, 3))
    ask("info", 'json:{"driver":"raw","offset":0,"size":512,"file":{"driver":"file","filename":"v3","aio":"threads"}}')
    return found


def ties(value: Any) -> list[dict[str, Any]]:
    """The dictionaries in which two members share a bucket, so that their order is their history."""
    if isinstance(value, dict):
        here = [value] if len({bucket(name) for name in value}) < len(value) else []
        return here + [tie for member in value.values() for tie in ties(member)]
    return [tie for item in value for tie in ties(item)] if isinstance(value, list) else []


def shuffled(value: Any, rng: random.Random) -> Any:
    if isinstance(value, dict):
        return {name: shuffled(value[name], rng) for name in rng.sample(list(value), len(value))}
    return [shuffled(item, rng) for item in value] if isinstance(value, list) else value


def test_the_real_tools_texts(texts: list[str], figures: Any) -> None:
    rng = random.Random(1)
    for text in texts:
        value = json.loads(text)
        assert not ties(value)
        assert pretty(shuffled(value, rng)) + "\n" == text
    figures.add("qdict: JSON texts of the real tool reproduced", len(texts))


def test_order_in_a_json_name(texts: list[str]) -> None:
    name = json.loads(texts[-1])["filename"]
    assert name.startswith("json:") and "json:" + compact(json.loads(name[5:])) == name


def test_ties_come_newest_first() -> None:
    found: dict[int, list[str]] = {}
    for number in range(3000):
        found.setdefault(bucket(f"k{number}"), []).append(f"k{number}")
    names = next(names for names in found.values() if len(names) > 2)
    assert [name for name, _ in ordered(dict.fromkeys(names))] == names[::-1]


PIECES = [bytes([byte]) for byte in range(1, 256) if byte != 0x2F] + [
    "é".encode(), "€".encode(), "😀".encode(), "\U0010fffd".encode(), b"\xc0\x80", b"\xc1\xbf", b"\xe0\x80\x80",
    b"\xed\xa0\x80",
    b"\xef\xbf\xbe", b"\xef\xbf\xbf", b"\xef\xb7\x90", b"\xf4\x90\x80\x80", b"\xf8\x88\x80\x80\x80",
    b"\xf8\xa0\x80\x80\x80",
    b"\xfc\x84\x80\x80\x80\x80", b"\xe2\x82", b"\xf0\x9f\x98", b"\xf0\x9f\xbf\xbf", b"\xdf\xbf",
    b"\xef\xb7\xaf", b"\xef\xb7\xb0",
]  # fmt: skip


def test_names_of_any_bytes(tmp_path: Path) -> None:
    judges.need_series("qemu-img")
    rng = random.Random(3)
    for _ in range(60):
        name = (b"./" + b"".join(rng.choices(PIECES, k=70)))[:250]
        path = os.fsencode(tmp_path) + b"/" + name
        with open(path, "wb") as file:
            file.truncate(512)
        text = judges.run("qemu-img", "info", "-f", "raw", "--output=json", os.fsdecode(name), cwd=tmp_path).stdout
        line = next(line for line in text.split("\n") if '"filename"' in line)
        assert line == f'    "filename": {quoted(os.fsdecode(name))},'
        os.unlink(path)


@given(st.text(alphabet=st.characters(exclude_categories=("Cs",)), max_size=40))
def test_escapes_are_json(text: str) -> None:
    literal = quoted(text)
    assert literal.isascii()
    read = json.loads(literal)
    for got, char in zip(read, text, strict=True):
        assert got == char or got == "\ufffd"


def test_layout_of_empty_things() -> None:
    assert pretty({"b": []}) == '{\n    "b": [\n    ]\n}'
    assert pretty({"a": {}}) == '{\n    "a": {\n    }\n}'
    assert compact([{"b": []}, {"a": {}}]) == '[{"b": []}, {"a": {}}]'
    assert (
        pretty([1, True, False, None, 0.5, "x"]) == '[\n    1,\n    true,\n    false,\n    null,\n    0.5,\n    "x"\n]'
    )
    with pytest.raises(TypeError):
        pretty({"a": object()})


def test_human_sizes(tmp_path: Path) -> None:
    judges.need_series("qemu-img")
    rng = random.Random(5)
    sizes = {0, 1, 999, 1000, 1023, 1024}
    for power in range(10, 63, 10):
        for edge in (1, 9.995, 99.95, 999, 999.4, 999.5, 1000, 1023):
            sizes |= {int(edge * (1 << power)) + step for step in (-1, 0, 1)}
    sizes |= {rng.randrange(1 << rng.randrange(1, 63)) for _ in range(60)}
    for size in sorted(size for size in sizes if size < (1 << 63) - 512):
        # A window into nothing: no file system bounds its size, which shows as it is.
        text = judges.run(
            "qemu-img", "info", "--image-opts", f"driver=null-co,size={size}", ok=(0, 1), cwd=tmp_path
        ).stdout
        line = re.search(r"virtual size: (.*)", text)
        if line is None:
            continue
        shown = int(line[1].split("(")[1].split()[0])
        assert line[1] == human.size_and_bytes(shown)
        assert human.size_and_bytes(size) == f"{human.size(size)} ({size} bytes)"
