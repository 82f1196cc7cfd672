"""Names into nodes: what opens, as what, and how it fails, against the real tool; trust, chains, locks, reopening."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import judges
from cowshed.block import registry
from cowshed.block.filename import combine, flatten, parse_image_opts, protocol_prefix
from cowshed.block.graph import MAX_CHAIN, create_image, open_image
from cowshed.block.jsontext import parse_json
from cowshed.block.reopen import reopen
from cowshed.errors import CowshedError, LockError, OpenError, OptionError, TrustError, UsageError

# every name is opened in a directory with the images of `place`
Q = '"driver":"qcow2","file":{"driver":"file","filename":"a.qcow2"}'
R = '"driver":"raw","file":{"driver":"file","filename":"a.raw"}'
F = '"driver":"file","filename":"a.raw"'

NAMES = """
a.raw
a.qcow2
./a.qcow2
file:a.qcow2
file:./a.raw
file:a:b
./a:b
nb:a.raw
missing
d
a.qcow2/x
empty
odd
foo:bar
nothere:
:x
a_b:c
a.b:c
e/ov2.qcow2
/dev/null
/dev/zero
file:/dev/null
file://x
json:
json:1
json:"x"
json:nul
json:[]
json:{}
json: {"file":{"filename":"a.raw"}}
json:{"file":{"filename":"a.raw"}} x
json:{"file":{"filename":"a.raw"},}
json:{'file':{'filename':'a.raw'}}
json:{"driver":"foo"}
json:{"driver":"qcow2"}
json:{"driver":"raw"}
json:{"driver":"file"}
json:{"driver":"file","filename":""}
json:{"driver":"","file.filename":"a.raw"}
json:{"driver":null,"file.filename":"a.qcow2"}
json:{"driver":true,"file.filename":"a.raw"}
json:{"driver":5,"file":{"driver":"file","filename":"a.raw"}}
json:{"filename":"a.raw"}
json:{"file.filename":"a.qcow2"}
json:{"file.filename":"a.raw","foo":1}
json:{"file.filename":"a.raw","file.foo":1}
json:{"file.filename":"a.raw","file":{"filename":"a.qcow2"}}
json:{"a":{"b":{"c":[1,{"d":2}]}},"file.filename":"a.raw"}
json:{"a":[],"file.filename":"a.raw"}
json:{"a":{},"file.filename":"a.raw"}
json:{"file":"a.raw"}
json:{"file":{"filename":"a.raw"}}
json:{"file":{"filename":"nb:a.raw"}}
json:{"file":{"filename":"file:a.raw"}}
json:{"file":{"filename":"json:{}"}}
json:{"driver":"raw","file":null}
json:{"driver":"raw","file":true}
json:{"driver":"raw","file":""}
json:{"driver":"raw","file":{}}
json:{"driver":"raw","file.filename":""}
json:{"driver":"raw","file.filename":null}
json:{"driver":"raw","file.driver":"file","file":{"filename":"a.raw"}}
json:{"driver":"raw","file":{"driver":"file","filename":5}}
json:{"driver":"raw","file":{"driver":"file","filename":"missing"}}
json:{"driver":"raw","file":{"driver":"file","filename":"d"}}
json:{"driver":"raw","file":{"driver":"file","filename":"nb:a.raw"}}
json:{"driver":"raw","file":{"driver":"host_device","filename":"a.raw"}}
json:{"driver":"raw","file":{"driver":"file","filename":"a.raw","x":1, "y":2}}
json:{"driver":"raw","file":{"driver":"file","filename":"a.raw","locking":"off"}}
json:{"driver":"raw","file":{"driver":"file","filename":"a.raw","locking":"zz"}}
json:{"driver":"raw","file":{"driver":"file","filename":"a.raw","aio":"zz"}}
json:{"driver":"raw","file":{"driver":"file","filename":"a.raw","aio":"threads"}}
json:{"driver":"raw","file":{"driver":"file","filename":"a.qcow2"}}
json:{"driver":"file","filename":"a.qcow2"}
json:{"driver":"qcow2","file":{"driver":"raw","file":{"driver":"file","filename":"a.qcow2"}}}
json:{"driver":"raw","file":{"driver":"qcow2","file":{"driver":"file","filename":"a.qcow2"}}}
json:{"driver":"qcow2","file":{"driver":"raw","offset":4096,"file":{"driver":"file","filename":"slice.raw"}}}
json:{"driver":"qcow2","file.filename":"a.raw"}
json:{"driver":"raw","file.filename":"a.raw","backing":"x"}
json:{"driver":"raw","file.filename":"a.raw","backing.driver":"x"}
json:{"driver":"qcow2","file.filename":"a.qcow2","backing":{"driver":"null-co"}}
json:{"driver":"raw","size":1024,"offset":99999999999,"file.filename":"a.raw"}
json:{"driver":"raw","size":102400000000,"file.filename":"a.raw"}
json:{"driver":"raw","file.filename":"a.raw","file.driver":"file","file.node-name":"zz","node-name":"zz"}
json:{"file":{"filename":"a.raw","file":"x"}}
""".strip().splitlines()

#: added to an image's own description, one at a time
MEMBERS_QCOW2 = """
"lazy-refcounts":true
"lazy-refcounts":"on"
"lazy-refcounts":"foo"
"lazy-refcounts":1
"read-only":true
"read-only":null
"read-only":"x"
"read-only":1
"cache-size":"foo"
"cache-size":1048576
"backing":null
"backing":""
"backing":"x"
"node-name":"foo"
"node-name":"#foo"
"node-name":""
"cache":{"direct":true}
"cache.direct":"zz"
"cache.writeback":true
"cache":"none"
"discard":"unmap"
"discard":"x"
"detect-zeroes":"x"
"detect-zeroes":"on"
"detect-zeroes":"unmap"
"detect-zeroes":"unmap","discard":"unmap"
"force-share":true
"auto-read-only":true
"data-file":"x"
"foo":1
"foo":{"a":1}
"foo":[1,2]
"foo":null
"file.locking":"off"
"id":"abc"
""".strip().splitlines()

MEMBERS_RAW = """
"offset":512
"offset":"1k"
"offset":true
"offset":-1
"offset":1.5
"offset":null
"size":1024
"size":"2k","offset":"4k"
"size":1000
"cache":null
"node-name":5
"node-name":"a2345678901234567890123456789012"
"node-name":"a b"
"detect-zeroes":true
"discard":"on"
"discard":"ignore"
"discard":true
""".strip().splitlines()

MEMBERS_FILE = """
"aio":"native"
"aio":"native","cache":{"direct":true}
"aio":"io_uring"
"locking":"on"
"locking":"auto"
"locking":true
"pr-manager":"x"
"drop-cache":"x"
"drop-cache":true
"x-check-cache-dropped":true
"aio-max-batch":5
"aio-max-batch":"x"
"backing":null
"file":"x"
"file.filename":"x"
"offset":1
""".strip().splitlines()

NAMES += [f"json:{{{Q},{member}}}" for member in MEMBERS_QCOW2]
NAMES += [f"json:{{{R},{member}}}" for member in MEMBERS_RAW]
NAMES += [f"json:{{{F},{member}}}" for member in MEMBERS_FILE]

#: what JSON may look like
JSON = """
{
}
[
]
{]
[}
{"a"
{"a":
{"a":1
{"a":1,
{"a":1,}
{"a":1 "b"}
{"a":1]
[1,2
[1,]
[1 2]
[1}
[,1]
{,}
{a:1}
{1:2}
{"a" 1}
{"a":}
{"a":tru}
{"a":truex}
{"a":True}
{"a":"x
{"a":'x
{"a":'x'}
{"a":'x"y'}
{"a":"\\x"}
{"a":"\\u12"}
{"a":"\\u00e9"}
{"a":"\\ud800"}
{"a":"\\ud800\\udc00"}
{"a":"\\udc00\\ud800"}
{"a":"tab\tin"}
{"a":1e5}
{"a":1E+5}
{"a":1.}
{"a":.5}
{"a":-}
{"a":-1}
{"a":-0}
{"a":01}
{"a":-01}
{"a":00}
{"a":1e}
{"a":1e+}
{"a":+1}
{"a":99999999999999999999}
{"a":-99999999999999999999}
{"a":1e999}
{"a":%d}
{"a":@}
{"a":"x"}}
{"a":"x"} {"b":1}
{"a":"x"} garbage
{"a":"x"},
{"a":1,"a":2}
{"a":{"b":1,"b":1}}
{"a":"\udcff"}
{"a":"\udcf8"}
{"a":"\udcc3"}
{"a":"é"}
{"a":"\uffff"}
""".strip().splitlines()

IMAGE_OPTS = """
a.qcow2
driver
driver=
,,
a=b,
=
help
?
id=9,driver=raw
x,driver=raw,
filename=a.qcow2
file.filename=a.qcow2
driver=qcow2,file.filename=a.qcow2
driver=raw,driver=qcow2,file.filename=a.qcow2
driver=qcow2,driver=raw,file.filename=a.qcow2
file.filename=a.qcow2,file=foo
file=foo,file.filename=a.qcow2
file.driver=file
file.driver=file,file.filename=a,,b
driver=file,filename=file:a.raw
driver=file,filename=a.raw
driver=raw,file.filename.x=5,file.filename=a.raw
driver=qcow2,file.filename=a.qcow2,node-name=
driver=qcow2,file.filename=a.qcow2,id=abc
driver=qcow2,file.filename=a.qcow2,lazy-refcounts
driver=qcow2,file.filename=a.qcow2,nolazy-refcounts
driver=qcow2,file.filename=a.qcow2,read-only=on
driver=raw,offset=1k,size=2k,file.filename=a.raw
driver=qcow2,file.filename=a.qcow2,foo
driver=qcow2,file.driver=raw,file.size=1M,file.file.filename=a.qcow2
driver=qcow2,file.driver=raw,file.offset=4096,file.file.filename=slice.raw
""".strip().splitlines()

#: opened with their backing chain
CHAINS = """
e/ov2.qcow2
e/m2.qcow2
e/foo.qcow2
e/json.qcow2
e/badjson.qcow2
e/dir.qcow2
e/wrong.qcow2
e/raw.qcow2
e/file.qcow2
json:{"driver":"qcow2","file.filename":"e/ov2.qcow2","backing":null}
json:{"driver":"qcow2","file.filename":"e/ov2.qcow2","backing":"foo"}
json:{"driver":"qcow2","file.filename":"e/ov2.qcow2","backing.foo":"foo"}
json:{"driver":"qcow2","file.filename":"e/ov2.qcow2","backing":{"driver":"file","filename":"a.raw"}}
json:{"driver":"qcow2","file.filename":"e/ov2.qcow2","backing":{"file":{"filename":"missing"}}}
json:{"driver":"qcow2","file.filename":"e/ov2.qcow2","backing":{"driver":"raw"}}
json:{"driver":"qcow2","file.filename":"e/ov2.qcow2","backing":{"file.locking":"off"}}
json:{"driver":"qcow2","file.filename":"e/ov2.qcow2","backing":{"backing":{"file":{"filename":"a.qcow2"}}}}
json:{"driver":"qcow2","file.filename":"e/base.qcow2","backing":{"driver":"raw"}}
json:{"driver":"qcow2","file.filename":"e/base.qcow2","backing":{"driver":"raw","file":{"filename":"a.raw"}}}
json:{"driver":"qcow2","file":{"driver":"raw","offset":4096,"file":{"driver":"file","filename":"slice.raw"}}}
data.qcow2
json:{"driver":"qcow2","file.filename":"data.qcow2","data-file":"zz"}
json:{"driver":"qcow2","file.filename":"data.qcow2","data-file":{"foo":"x"}}
json:{"driver":"qcow2","file.filename":"data.qcow2","data-file":{"filename":"none"}}
json:{"driver":"qcow2","file.filename":"data.qcow2","data-file":{"filename":"a.raw"}}
json:{"driver":"qcow2","file.filename":"data.qcow2","data-file":{"driver":"raw","file":{"filename":"a.raw"}}}
json:{"driver":"qcow2","file.filename":"a.qcow2","data-file":{"filename":"a.raw"}}
""".strip().splitlines()


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with images of the real tool."""
    judges.need_series("qemu-img")
    root = tmp_path_factory.mktemp("graph")

    def img(*args: str) -> None:
        judges.qemu_img(*args, cwd=root)

    img("create", "-q", "-f", "qcow2", "a.qcow2", "10M")
    img("create", "-q", "-f", "raw", "a.raw", "3M")
    (root / "empty").touch()
    (root / "odd").write_bytes(b"\1" * 700)
    (root / "d").mkdir()
    (root / "e").mkdir()
    img("create", "-q", "-f", "qcow2", "e/base.qcow2", "1M")

    def overlay(name: str, below: str, fmt: str) -> None:
        img("create", "-q", "-u", "-f", "qcow2", "-b", below, "-F", fmt, f"e/{name}", "1M")

    overlay("ov.qcow2", "base.qcow2", "qcow2")
    overlay("ov2.qcow2", "ov.qcow2", "qcow2")
    overlay("m0.qcow2", "missing", "qcow2")
    overlay("m1.qcow2", "m0.qcow2", "qcow2")
    overlay("m2.qcow2", "m1.qcow2", "qcow2")
    overlay("foo.qcow2", "foo:bar", "raw")
    overlay("json.qcow2", 'json:{"driver":"qcow2","file.filename":"a.qcow2"}', "qcow2")
    overlay("badjson.qcow2", "json:{", "raw")
    overlay("dir.qcow2", "../d", "raw")
    overlay("wrong.qcow2", "../a.raw", "qcow2")
    overlay("raw.qcow2", "../a.raw", "raw")
    overlay("file.qcow2", "file:a.qcow2", "qcow2")
    (root / "slice.raw").write_bytes(bytes(4096) + (root / "e/ov2.qcow2").read_bytes())
    img("create", "-q", "-f", "qcow2", "-o", "data_file=data.raw", "data.qcow2", "1M")
    (root / "data.raw").unlink()
    return root


def complaint(error: CowshedError) -> str:
    """An error as a front end prints it."""
    return f"qemu-img: {error}\n" + (f"{error.hint}\n" if error.hint else "")


def judge(place: Path, *args: str) -> subprocess.CompletedProcess[str]:
    return judges.run("qemu-img", *args, cwd=place, ok=range(128))


@pytest.mark.parametrize("name", NAMES)
def test_name_opens_as_the_judge_opens_it(
    name: str, place: Path, monkeypatch: pytest.MonkeyPatch, figures: Any
) -> None:
    told = judge(place, "info", "--output=json", name)
    monkeypatch.chdir(place)
    compare_info(told, name, figures)


@pytest.mark.parametrize("text", IMAGE_OPTS)
def test_image_opts_open_as_the_judge_opens_them(
    text: str, place: Path, monkeypatch: pytest.MonkeyPatch, figures: Any
) -> None:
    told = judge(place, "info", "--output=json", "--image-opts", text)
    monkeypatch.chdir(place)
    compare_info(told, text, figures, parse=True)


def compare_info(
    told: subprocess.CompletedProcess[str], name: str, figures: Any, *, parse: bool = False
) -> None:
    warnings: list[str] = []
    try:
        ref = parse_image_opts(name) if parse else name
        with open_image(ref, label=name, no_io=True, backing=False, warn=warnings.append) as node:
            found = (node.filename, node.driver, -(-node.size // 512) * 512)
    except CowshedError as error:
        ours = complaint(error)
        assert told.returncode == 1, f"ours refuses it: {ours}"
    else:
        assert told.returncode == 0, told.stderr
        facts = json.loads(told.stdout)
        assert found == (facts["filename"], facts["format"], facts["virtual-size"])
        ours = ""
    ours = "".join(f"qemu-img: warning: {text}\n" for text in warnings) + ours
    assert ours == told.stderr
    figures.add("graph: names judged")


@pytest.mark.parametrize("text", JSON)
def test_json_reads_as_the_judge_reads_it(text: str, place: Path) -> None:
    told = judge(place, "info", f"json:{text}").stderr
    marker = "Could not parse the JSON options: "
    try:
        parse_json(text)
    except OptionError as error:
        assert told.split(marker, 1)[-1] == f"{error}\n"
    else:
        assert marker not in told


@pytest.mark.parametrize("name", CHAINS)
def test_chain_opens_as_the_judge_opens_it(
    name: str, place: Path, monkeypatch: pytest.MonkeyPatch, figures: Any
) -> None:
    told = judge(place, "map", "--output=json", name)
    monkeypatch.chdir(place)
    try:
        with open_image(name, trust="all") as node:
            chain = []
            below: Any = node
            while below is not None:
                chain.append(below.driver)
                below = below.backing
    except CowshedError as error:
        assert complaint(error) == told.stderr
    else:
        assert told.returncode == 0, told.stderr
        # an empty chain says at its bottom how deep it is
        deepest = max(entry["depth"] for entry in json.loads(told.stdout))
        assert len(chain) == deepest + 1, chain
    figures.add("graph: names judged")


@pytest.mark.parametrize(
    ("name", "fmt"),
    [
        ("a.raw", "raw"), ("a.raw", "qcow2"), ("a.raw", "foo"), ("a.qcow2", "raw"), ("a.qcow2", "file"),
        ("a.raw", "host_device"), ("missing", "qcow2"), ("missing", "file"), ("file:a.raw", "file"), ("d", "raw"),
        ("foo:bar", "raw"), ("/dev/null", "raw"), ("/dev/null", "host_device"), ("/dev/null", "file"),
        ("host_device:/dev/null", "raw"), ('json:{"driver":"qcow2","file.filename":"a.qcow2"}', "raw"),
        ("", "raw"), ("", "file"),
    ],
)  # fmt: skip
def test_format_given(name: str, fmt: str, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told = judge(place, "info", "--output=json", "-f", fmt, name)
    monkeypatch.chdir(place)
    try:
        with open_image(name, fmt=fmt, no_io=True, backing=False) as node:
            found = (node.filename, node.driver, -(-node.size // 512) * 512)
    except CowshedError as error:
        assert complaint(error) == told.stderr
    else:
        facts = json.loads(told.stdout)
        assert found == (facts["filename"], facts["format"], facts["virtual-size"])


@pytest.mark.parametrize(
    "text",
    [
        "driver=raw,file.filename=w.raw",
        "file.filename=w.raw",
        "driver=raw,file.filename=w.raw,read-only=on",
        "driver=raw,file.filename=w.raw,file.read-only=on",
        "driver=raw,file.filename=w.raw,read-only=off",
        "driver=raw,file.filename=w.raw,force-share=on",
        "driver=raw,file.filename=d",
        "driver=raw,file.filename=missing",
    ],
)
def test_open_for_writing(text: str, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (place / "w.raw").write_bytes(bytes(1 << 20))
    told = judge(place, "resize", "--image-opts", text, "2M")
    monkeypatch.chdir(place)
    said: list[str] = []
    try:
        open_image(parse_image_opts(text), label=text, writable=True, resize=True, warn=said.append).close()
    except CowshedError as error:
        said.append(complaint(error).removesuffix("\n"))
    assert "".join(text + "\n" for text in said) == told.stderr


def test_fifo_is_refused_without_waiting(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    with pytest.raises(OpenError, match=r"'file' driver requires '.*fifo' to be a regular file"):
        open_image(tmp_path / "fifo")


def test_names() -> None:
    assert protocol_prefix("nbd:x") == "nbd"
    assert protocol_prefix("./nbd:x") is None
    assert protocol_prefix("a/b:c") is None
    assert combine("/x/y.qcow2", "z") == "/x/z"
    assert combine("y.qcow2", "z") == "z"
    assert combine("/x/y.qcow2", "/z") == "/z"
    assert combine("/x/y.qcow2", "nbd:z") == "nbd:z"
    assert combine("nbd:y", "z") == "nbd:z"
    assert combine("http://host/dir/y", "z") == "http://host/dir/z"
    assert flatten({"a": {"b": {"c": 1}}, "d": [2, {"e": 3}], "f": {}}) == {
        "a.b.c": 1, "d.0": 2, "d.1.e": 3, "f": {},
    }  # fmt: skip


def test_mapping_and_path_open_too(place: Path) -> None:
    with open_image({"driver": "qcow2", "file": {"driver": "file", "filename": str(place / "a.qcow2")}}) as node:
        assert node.driver == "qcow2"
    with open_image(place / "a.raw", options={"offset": 512}) as node:
        assert node.size == (3 << 20) - 512
    with pytest.raises(OpenError, match=r"Could not open 'json:\{\"driver\": \"raw\"\}'"):
        open_image({"driver": "raw"})
    with pytest.raises(UsageError):
        open_image(b"a.raw")  # type: ignore[arg-type]


def test_error_tells_what_why_and_where(place: Path) -> None:
    with pytest.raises(OpenError) as caught:
        open_image(place / "e/m2.qcow2", trust="all")
    assert caught.value.errno == 2
    assert caught.value.path == str(place / "e/missing")
    assert isinstance(caught.value.__cause__, CowshedError)
    assert str(caught.value).count("Could not open backing file: ") == 3


def test_nothing_stays_open_after_an_error(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(place)
    before = set(os.listdir("/proc/self/fd"))
    for name in NAMES + CHAINS:
        try:
            open_image(name, trust="all").close()
        except CowshedError:
            pass
    assert set(os.listdir("/proc/self/fd")) == before


KEYS = st.sampled_from(
    """driver file filename backing data-file offset size node-name read-only cache aio file.driver file.filename
    file.file.filename backing.driver backing.file.filename file.file lazy-refcounts locking overlap-check cache-size
    discard a . file.""".split()  # noqa: SIM905
)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=6)
    | st.sampled_from(["a.qcow2", "a.raw", "e/ov2.qcow2", "raw", "qcow2", "file", "host_device", "/dev/zero", "d"])
    | st.sampled_from(["on", "", "json:{}", "nbd:x", "a\0b", "\udcff", "512", "1k"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=4),
    max_leaves=6,
)  # fmt: skip


@settings(max_examples=150)
@given(ref=st.dictionaries(KEYS, VALUES, max_size=6), writable=st.booleans())
def test_any_options_open_or_are_refused(ref: dict[str, Any], writable: bool, place: Path) -> None:
    here = os.getcwd()
    os.chdir(place)
    try:
        open_image(ref, no_io=not writable, trust="all").close()
        open_image("json:" + json.dumps(ref), trust="local").close()
    except CowshedError as error:
        assert str(error)
    finally:
        os.chdir(here)


@settings(max_examples=150)
@given(text=st.text(max_size=30) | st.text('{}[]:,"\'\\\\ue0109.-+tfn ', max_size=30))
def test_any_json_is_read_or_refused(text: str) -> None:
    try:
        parse_json(text)
    except OptionError as error:
        assert str(error)


# -- recognising ------------------------------------------------------------------------------------------------------

BOCHS = (
    b"Bochs Virtual HD Image".ljust(32, b"\0") + b"Redolog".ljust(16, b"\0") + b"Growing".ljust(16, b"\0")
    + b"\0\0\2\0" + b"\0\2\0\0"
).ljust(4096, b"\0")  # fmt: skip
CLOOP = b"#!/bin/sh\n#V2.0 Format\nmodprobe cloop file=$0 && mount -r -t iso9660 /dev/cloop $1\n"

HEADS = {
    "zero": bytes(4096),
    "short qcow2": b"QFI\xfb\0\0\0\2" + bytes(60),
    "qcow2 version 2": (b"QFI\xfb\0\0\0\2" + bytes(64)).ljust(4096, b"\0"),
    "qcow2 version 9": (b"QFI\xfb\0\0\0\x09" + bytes(64)).ljust(4096, b"\0"),
    "qcow": b"QFI\xfb\0\0\0\1".ljust(4096, b"\0"),
    "qcow version 0": b"QFI\xfb\0\0\0\0".ljust(4096, b"\0"),
    "vmdk": b"KDMV".ljust(4096, b"\0"),
    "vmdk3": b"COWD".ljust(4096, b"\0"),
    "descriptor": b"# Disk DescriptorFile\nversion=1\nCID=1\n".ljust(4096, b"\n"),
    "descriptor crlf": b"# Disk DescriptorFile\r\nversion=2\r\n".ljust(4096, b"\n"),
    "descriptor blank": b"# x\n   \nversion=3\n".ljust(4096, b"\n"),
    "descriptor empty line": b"# x\n\nversion=3\n".ljust(4096, b"\n"),
    "descriptor 4": b"version=4\n".ljust(4096, b"\n"),
    "descriptor late": b"# x\nfoo=1\nversion=1\n".ljust(4096, b"\n"),
    "descriptor spaces": b" version=1\n".ljust(4096, b"\n"),
    "comment only": b"#" * 4096,
    "vdi": (bytes(64) + b"\x7f\x10\xda\xbe").ljust(4096, b"\0"),
    "vhdx": b"vhdxfile".ljust(4096, b"\0"),
    "vpc": b"conectix".ljust(4096, b"\0"),
    "qed": b"QED\0".ljust(4096, b"\0"),
    "parallels": (b"WithoutFreeSpace" + b"\2\0\0\0").ljust(4096, b"\0"),
    "parallels ext": (b"WithouFreSpacExt" + b"\2\0\0\0").ljust(4096, b"\0"),
    "parallels version 3": (b"WithoutFreeSpace" + b"\3\0\0\0").ljust(4096, b"\0"),
    "luks": b"LUKS\xba\xbe\0\1".ljust(4096, b"\0"),
    "luks2": b"LUKS\xba\xbe\0\2".ljust(4096, b"\0"),
    "bochs": BOCHS,
    "bochs version 1": BOCHS[:64] + b"\0\0\1\0" + BOCHS[68:],
    "bochs version 3": BOCHS[:64] + b"\0\0\3\0" + BOCHS[68:],
    "bochs other": BOCHS.replace(b"Growing", b"Growinx"),
    "cloop": CLOOP.ljust(4096, b"\0"),
    "cloop cut": CLOOP[:40].ljust(4096, b"\0"),
}


@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("suffix", ["img", "dmg"])
def test_formats_are_recognised_as_the_judge_does(head: str, suffix: str, tmp_path: Path) -> None:
    judges.need_series("qemu-img")
    path = tmp_path / f"x.{suffix}"
    path.write_bytes(HEADS[head])
    # the backing format is told before the image would have to be valid; a broken image names its format otherwise
    told = judge(tmp_path, "info", "--output=json", str(path))
    ours = registry.probe_bytes(HEADS[head][:2048].ljust(512, b"\0"), str(path))
    if told.returncode == 0:
        assert json.loads(told.stdout)["format"] == ours
    else:
        assert ours != "raw"
        alone = judge(tmp_path, "info", "-f", ours, str(path))
        assert alone.stderr == told.stderr


def test_unknown_format_is_told(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"QED\0".ljust(4096, b"\0"))
    with pytest.raises(OpenError, match=r"Driver 'qed' is not supported"):
        open_image(tmp_path / "x")


def test_third_party_driver_is_found_by_name(tmp_path: Path) -> None:
    row = registry.Driver(
        "mine", open="cowshed.block.format.raw_create:open_raw", probe=lambda head, name: 200 * (head[:4] == b"MINE")
    )
    registry.register(row)
    try:
        (tmp_path / "x").write_bytes(b"MINE".ljust(4096, b"\0"))
        with open_image(tmp_path / "x") as node:
            assert node.opening is not None and node.opening.driver is row
        with pytest.raises(ValueError):
            registry.register(row)
    finally:
        registry.unregister("mine")
    assert registry.find("mine") is None
    with pytest.raises(ValueError):
        registry.unregister("raw")


def test_entry_points_are_asked_for_unknown_names_only(tmp_path: Path) -> None:
    info = tmp_path / "third-1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: third\nVersion: 1\n")
    (info / "entry_points.txt").write_text("[cowshed.drivers]\nthird = third:ROW\n")
    (tmp_path / "third.py").write_text(
        "from cowshed.block.registry import Driver\n"
        "ROW = Driver('third', open='cowshed.block.format.raw_create:open_raw')\n"
    )
    (tmp_path / "disk").write_bytes(bytes(4096))
    script = (
        "import sys; from cowshed.block.graph import open_image\n"
        "open_image('disk').close(); assert 'third' not in sys.modules\n"
        "open_image('disk', fmt='third').close(); assert 'third' in sys.modules\n"
    )
    env = {**os.environ, "PYTHONPATH": str(tmp_path)}
    import sys

    done = subprocess.run([sys.executable, "-c", script], cwd=tmp_path, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


# -- trust ------------------------------------------------------------------------------------------------------------


def named(tmp_path: Path, below: str, fmt: str = "raw", option: str = "backing_file") -> Path:
    """An image that names ``below``."""
    path = tmp_path / "evil.qcow2"
    judges.qemu_img("create", "-q", "-u", "-f", "qcow2", "-b", below, "-F", fmt, str(path), "1M")
    return path


@pytest.mark.parametrize(
    ("below", "what"),
    [
        ("nbd:localhost:10809", "a 'nbd' address"),
        ("http://localhost/x", "a 'http' address"),
        ('json:{"driver":"file","filename":"/etc/passwd"}', "a description of its own"),
        ("/dev/zero", "not a regular file"),
        ("file:/dev/zero", "not a regular file"),
        ("host_device:/dev/zero", "a 'host_device' address"),
    ],
)
def test_local_trust_keeps_to_regular_files(below: str, what: str, tmp_path: Path) -> None:
    with pytest.raises(OpenError, match=what) as caught:
        open_image(named(tmp_path, below))
    assert isinstance(caught.value.__cause__, TrustError)


def test_names_in_refusals_are_printable(tmp_path: Path) -> None:
    with pytest.raises(OpenError) as caught:
        open_image(named(tmp_path, "nbd:\x1b[2J\udcff" + "x" * 900))
    text = str(caught.value)
    assert text.isprintable() and "\\x1b[2J\\xff" in text and len(text) < 1000


def test_names_in_other_errors_are_printable_too(tmp_path: Path) -> None:
    path = named(tmp_path, "no\x1b[2J\nsuch file")
    with pytest.raises(OpenError) as caught:
        open_image(path)
    assert str(caught.value).isprintable() and "no\\x1b[2J\\x0asuch file" in str(caught.value)
    # under full trust the text is the original's
    with pytest.raises(OpenError) as caught:
        open_image(path, trust="all")
    assert complaint(caught.value) == judges.run("qemu-img", "map", str(path), ok=[1]).stderr


def test_no_trust_opens_the_given_file_only(place: Path, tmp_path: Path) -> None:
    with pytest.raises(OpenError, match="names a file outside of it"):
        open_image(place / "e/ov.qcow2", trust="none")
    with open_image(place / "e/ov.qcow2", trust="none", backing=False) as node:
        assert node.backing is None and node.backing_name == "base.qcow2"
    with open_image(place / "e/base.qcow2", trust="none") as node:
        assert node.backing is None
    judges.qemu_img("create", "-q", "-f", "qcow2", "-o", "data_file=d.raw", "d.qcow2", "1M", cwd=tmp_path)
    with pytest.raises(OpenError, match="Refusing to open the data file"):
        open_image(tmp_path / "d.qcow2", trust="none")
    with open_image(tmp_path / "d.qcow2", trust="none", no_io=True) as node:
        assert node.children.keys() == {"file"}
    with pytest.raises(UsageError):
        open_image(place / "a.raw", trust="some")


def test_what_the_user_names_needs_no_trust(place: Path) -> None:
    ref = {"driver": "qcow2", "file.filename": str(place / "e/ov.qcow2"), "backing.file.filename": "/dev/zero"}
    with open_image({**ref, "backing.driver": "raw"}, trust="none") as node:
        assert node.backing is not None and node.backing.file.driver == "host_device"


def test_data_file_is_a_path_and_nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    judges.qemu_img("create", "-q", "-f", "qcow2", "-o", "data_file=json,,x", "d.qcow2", "1M", cwd=tmp_path)
    raw = (tmp_path / "d.qcow2").read_bytes()
    for name in (b"json:x", b"nbd:1:", b"fat:ab"):
        assert b"json,x" in raw
        (tmp_path / "evil.qcow2").write_bytes(raw.replace(b"json,x", name))
        monkeypatch.chdir(tmp_path)
        with pytest.raises(OpenError, match=f"Could not open '{name.decode()}': No such file"):
            open_image("evil.qcow2", trust="all")


# -- chains -----------------------------------------------------------------------------------------------------------


def chain_of(tmp_path: Path, count: int) -> Path:
    create_image(tmp_path / "0.qcow2", "qcow2", size=1 << 20)
    for number in range(1, count):
        create_image(
            tmp_path / f"{number}.qcow2", "qcow2", size=1 << 20, backing=f"{number - 1}.qcow2", backing_fmt="qcow2",
            unsafe=True,
        )  # fmt: skip
    return tmp_path / f"{count - 1}.qcow2"


def test_long_chain_opens_and_reads(tmp_path: Path) -> None:
    top = chain_of(tmp_path, MAX_CHAIN)
    with open_image(tmp_path / "0.qcow2", writable=True) as node:
        node.write(65536, b"bottom")
    with open_image(top) as node:
        assert node.read(65536, 6) == b"bottom"
        depths = {extent.depth for extent in node.extents() if extent.kind == 1}
        assert depths == {MAX_CHAIN - 1}


def test_too_long_chain_is_refused(tmp_path: Path) -> None:
    with pytest.raises(OpenError, match=f"longer than {MAX_CHAIN} images"):
        open_image(chain_of(tmp_path, MAX_CHAIN + 1))


@pytest.mark.parametrize("length", [1, 2, 3])
def test_loop_is_refused(length: int, tmp_path: Path) -> None:
    for number in range(length):
        create_image(
            tmp_path / f"{number}.qcow2", "qcow2", size=1 << 20, backing=f"./{(number + 1) % length}.qcow2",
            backing_fmt="qcow2", unsafe=True,
        )  # fmt: skip
    with pytest.raises(OpenError, match=r"Backing file '.*0\.qcow2' creates an infinite loop\."):
        open_image(tmp_path / "0.qcow2")


def test_one_file_in_two_places_is_no_loop(tmp_path: Path) -> None:
    """Two windows of one file are two disks."""
    judges.need("qemu-img")
    create_image(tmp_path / "b.qcow2", "qcow2", size=1 << 20)
    base = (tmp_path / "b.qcow2").read_bytes().ljust(1 << 20, b"\0")
    ref = {"driver": "raw", "offset": 0, "size": 1 << 20, "file": {"driver": "file", "filename": "both"}}
    create_image(
        tmp_path / "o.qcow2", "qcow2", size=1 << 20, unsafe=True, backing_fmt="qcow2",
        backing="json:" + json.dumps({"driver": "qcow2", "file": {**ref, "offset": 1 << 20}}),
    )  # fmt: skip
    over = (tmp_path / "o.qcow2").read_bytes().ljust(1 << 20, b"\0")
    (tmp_path / "both").write_bytes(over + base)
    here = os.getcwd()
    os.chdir(tmp_path)
    try:
        with open_image({"driver": "qcow2", "file": ref}, trust="all") as node:
            assert node.backing is not None and node.backing.backing is None
    finally:
        os.chdir(here)


# -- locks and reopening ----------------------------------------------------------------------------------------------


@pytest.fixture
def disk(tmp_path: Path) -> Callable[[str], Path]:
    def make(fmt: str) -> Path:
        path = tmp_path / f"disk.{fmt}"
        create_image(path, fmt, size=1 << 20)
        return path

    return make


def test_writers_keep_others_off(disk: Callable[[str], Path]) -> None:
    path = disk("qcow2")
    with open_image(path, writable=True):
        with pytest.raises(OpenError, match='Failed to get shared "write" lock') as caught:
            open_image(path)
        assert caught.value.hint == f"Is another process using the image [{path}]?"
        assert isinstance(caught.value.__cause__, LockError)
        with pytest.raises(OpenError, match='Failed to get "write" lock'):
            open_image(path, writable=True)
        open_image(path, force_share=True).close()
        open_image(path, no_io=True, force_share=True).close()
        told = judges.run("qemu-img", "map", str(path), ok=[1])
        assert told.stderr == complaint(caught.value)
        unlocked = {"driver": "qcow2", "file": {"driver": "file", "filename": str(path), "locking": "off"}}
        open_image(unlocked).close()
    open_image(path, writable=True).close()
    with pytest.raises(OpenError, match="force-share=on can only be used with read-only images"):
        open_image(path, writable=True, force_share=True)


def test_raw_disks_are_shared(disk: Callable[[str], Path]) -> None:
    path = disk("raw")
    with open_image(path, fmt="raw", writable=True), open_image(path, fmt="raw", writable=True):
        with pytest.raises(OpenError, match='Failed to get shared "write" lock'):
            open_image(path, fmt="raw", exclusive=True)
        with open_image(path, fmt="raw"):
            pass


def test_creating_over_a_used_image_loses_nothing(disk: Callable[[str], Path]) -> None:
    path = disk("qcow2")
    before = path.read_bytes()
    with open_image(path, writable=True):
        for fmt in ("qcow2", "raw"):
            with pytest.raises(LockError, match='lock'):
                create_image(path, fmt, size=1 << 20)
    assert path.read_bytes() == before


@pytest.mark.parametrize("fmt", ["raw", "qcow2"])
def test_reopening_the_base_for_writing(fmt: str, tmp_path: Path, disk: Callable[[str], Path]) -> None:
    base = disk(fmt)
    top = tmp_path / "top.qcow2"
    create_image(top, "qcow2", backing=base.name, backing_fmt=fmt)
    with open_image(top, writable=True) as node:
        old = node.backing
        assert old is not None and old.read_only
        fresh = reopen(old, writable=True, parent=node)
        assert node.backing is fresh and not fresh.read_only and fresh.filename == str(base)
        fresh.write(4096, b"through")
        assert node.read(4096, 7) == b"through"
        if fmt == "qcow2":
            with pytest.raises(OpenError, match="lock"):
                open_image(base)
        fresh = reopen(fresh, writable=False, parent=node)
        assert fresh.read_only
        with pytest.raises(CowshedError):
            fresh.write(0, b"x")
        open_image(base).close()
    with open_image(base) as node:
        assert node.read(4096, 7) == b"through"
    open_image(base, writable=True).close()


def test_reopening_takes_the_data_file_along(tmp_path: Path) -> None:
    create_image(tmp_path / "base.qcow2", "qcow2", {"data_file": tmp_path / "data"}, size=1 << 20)
    create_image(tmp_path / "top.qcow2", "qcow2", backing="base.qcow2", backing_fmt="qcow2")
    before = set(os.listdir("/proc/self/fd"))
    with open_image(tmp_path / "top.qcow2", writable=True) as node:
        assert node.backing is not None
        # somebody holds the data file: all is as it was
        with open_image(tmp_path / "data", fmt="raw", exclusive=True):
            with pytest.raises(LockError):
                reopen(node.backing, writable=True, parent=node)
            assert node.backing.read_only and node.backing.children["data-file"].read_only
            assert node.read(0, 4) == bytes(4)
        fresh = reopen(node.backing, writable=True, parent=node)
        fresh.write(0, b"data")
        assert node.read(0, 4) == b"data"
    assert (tmp_path / "data").read_bytes()[:4] == b"data"
    assert set(os.listdir("/proc/self/fd")) == before
    judges.qemu_img("check", str(tmp_path / "base.qcow2"))


def test_reopening_fails_where_the_base_is_used(tmp_path: Path, disk: Callable[[str], Path]) -> None:
    base = disk("qcow2")
    top = tmp_path / "top.qcow2"
    create_image(top, "qcow2", backing=base.name, backing_fmt="qcow2")
    with open_image(top, writable=True) as node, open_image(base):
        assert node.backing is not None
        with pytest.raises(LockError):
            reopen(node.backing, writable=True, parent=node)
        assert node.backing.read_only
        assert node.read(0, 512) == bytes(512)
    open_image(base, writable=True).close()


# -- writing to guessed raw disks -------------------------------------------------------------------------------------


def test_guessed_raw_disks_cannot_become_another_format(tmp_path: Path, disk: Callable[[str], Path]) -> None:
    path = disk("raw")
    said: list[str] = []
    with open_image(path, writable=True, warn=said.append) as node:
        assert said and said[0].startswith("WARNING: Image format was not specified for '")
        node.write(0, b"boot sector")
        with pytest.raises(CowshedError, match="Operation not permitted"):
            node.write(0, b"QFI\xfb\0\0\0\3" + bytes(504))
        assert node.read(0, 11) == b"boot sector"
    with open_image(path, fmt="raw", writable=True, warn=said.append) as node:
        node.write(0, b"QFI\xfb\0\0\0\3" + bytes(504))
    assert len(said) == 1
