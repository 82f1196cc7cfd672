"""Option texts, tables and the creation of images, against the real tool."""

from __future__ import annotations

import os
import shutil
import stat
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import judges
from cowshed.block import registry
from cowshed.block.graph import create_image, creation_table, open_image
from cowshed.block.options import Option, OptionTable, accumulate, escape, split, wants_help
from cowshed.errors import CowshedError, HostError, OptionError, UnsupportedError

# option texts for `create -f qcow2 -o … x 1M`
TEXTS = """
foo
foo=1
cluster_size
cluster_size=x
cluster_size=-1
cluster_size=-0
cluster_size=0xg
cluster_size=1k,cluster_size=64k
cluster_size=99999999999999999999
cluster_size=17E
cluster_size=1.5k
cluster_size=0x10k
cluster_size=4096
cluster_size=4K
refcount_bits
refcount_bits=x
refcount_bits=1k
refcount_bits=
refcount_bits=-1
refcount_bits=3
refcount_bits=128
refcount_bits=0x10
refcount_bits=020
refcount_bits=99999999999999999999
refcount_bits=16,,
lazy_refcounts
lazy_refcounts=yes
lazy_refcounts=true
lazy_refcounts=y
lazy_refcounts=TRUE
lazy_refcounts=1
nolazy_refcounts
lazy_refcounts=on,lazy_refcounts=off
LAZY_REFCOUNTS=on
compat=1.1,compat=0.10
compat=v3
compat
compat=
nocompat
compat=a,,b
 compat=1.1
compat=1.1 ,id=x
preallocation=foo
preallocation=
preallocation=metadata
preallocation=off
=1
a,,b=1
no
id=foo
id=9
size=1M
size=1M,size=2M
size=
size=  5M
nosize
encrypt.foo=1
encrypt.iter-time=5x
extended_l2=on,cluster_size=16k
extended_l2=false,data_file_raw=n
help=1
nohelp
nocow=on
extent_size_hint=1M
extent_size_hint=0
extent_size_hint=5G
backing_fmt=qcow2
backing_file=
""".strip("\n").splitlines()

#: whole command lines of create, run in a directory with base.qcow2 (10M), base.raw (3M) and a directory d
CREATIONS: list[tuple[str, str, dict[str, Any]]] = [
    ("raw", "x", {}),
    ("qcow2", "x", {}),
    ("foo", "x", {"size": 1 << 20}),
    ("bochs", "x", {"size": 1 << 20}),
    ("qcow2", "foo:x", {"size": 1 << 20}),
    ("qcow2", "foo:x", {"size": 1 << 20, "backing": "base.raw"}),
    ("file", "x", {"size": 1 << 20}),
    ("raw", "x", {"size": 0}),
    ("raw", "x", {"size": 1}),
    ("raw", "x", {"size": 513}),
    ("raw", "x", {"size": 7 << 60}),
    ("qcow2", "x", {"size": 7 << 60}),
    ("raw", "", {"size": 1 << 20}),
    ("qcow2", "", {"size": 1 << 20}),
    ("raw", "d", {"size": 1 << 20}),
    ("qcow2", "d", {"size": 1 << 20}),
    ("raw", "nowhere/x", {"size": 1 << 20}),
    ("qcow2", "nowhere/x", {"size": 1 << 20}),
    ("qcow2", "file:x", {"size": 1 << 20}),
    ("qcow2", "a'b,c", {"size": 1 << 20}),
    ("raw", "fifo", {"size": 1 << 20}),
    ("raw", "host_device:base.raw", {"size": 1 << 20}),
    ("raw", "/dev/null", {"size": 1 << 20}),
    ("raw", "/dev/full", {"size": 1 << 20}),
    ("qcow2", 'json:{"driver":"file","filename":"x"}', {"size": 1 << 20}),
    ("raw", "x", {"size": 1 << 20, "options": "nocow=on,preallocation=off,extent_size_hint=1M"}),
    ("raw", "x", {"size": 1 << 20, "options": "nocow"}),
    ("raw", "x", {"size": 1 << 20, "options": "preallocation=metadata"}),
    ("raw", "x", {"size": 1 << 20, "options": "preallocation=zz"}),
    ("raw", "x", {"size": 1 << 20, "options": "preallocation=falloc"}),
    ("raw", "x", {"size": 1 << 20, "options": "preallocation=full"}),
    ("raw", "x", {"size": 1 << 20, "options": "extent_size_hint=9E"}),
    ("raw", "x", {"options": "size=9E"}),
    ("raw", "x", {"options": "size=5k"}),
    ("raw", "x", {"size": 1 << 20, "backing": "base.raw"}),
    ("raw", "x", {"size": 1 << 20, "backing_fmt": "raw"}),
    ("raw", "x", {"size": 1 << 20, "backing": "base.raw", "backing_fmt": "raw"}),
    ("raw", "x", {"size": 1 << 20, "options": "backing_file=y"}),
    ("qcow2", "x", {"backing": "base.qcow2"}),
    ("qcow2", "x", {"backing": "base.raw", "size": 1 << 20}),
    ("qcow2", "x", {"backing": "base.qcow2", "backing_fmt": "qcow2"}),
    ("qcow2", "x", {"backing": "base.qcow2", "backing_fmt": "raw"}),
    ("qcow2", "x", {"backing": "base.raw", "backing_fmt": "qcow2"}),
    ("qcow2", "x", {"backing": "base.raw", "backing_fmt": "foo"}),
    ("qcow2", "x", {"backing": "base.raw", "backing_fmt": "raw", "options": "size=0"}),
    ("qcow2", "x", {"backing": "base.raw", "backing_fmt": "raw", "size": 5 << 20}),
    ("qcow2", "x", {"backing": "missing", "backing_fmt": "qcow2"}),
    ("qcow2", "x", {"backing": "missing", "backing_fmt": "qcow2", "size": 1 << 20}),
    ("qcow2", "x", {"backing": "missing"}),
    ("qcow2", "x", {"backing": "missing", "unsafe": True}),
    ("qcow2", "x", {"backing": "missing", "unsafe": True, "size": 1 << 20}),
    ("qcow2", "x", {"backing": "missing", "backing_fmt": "qcow2", "unsafe": True}),
    ("qcow2", "x", {"backing": "missing", "backing_fmt": "qcow2", "unsafe": True, "size": 1 << 20}),
    ("qcow2", "x", {"backing": "missing", "backing_fmt": "foo", "unsafe": True, "size": 1 << 20}),
    ("qcow2", "x", {"backing": "", "size": 1 << 20}),
    ("qcow2", "x", {"backing": "x", "backing_fmt": "qcow2"}),
    ("qcow2", "x", {"backing": "d", "backing_fmt": "raw"}),
    ("qcow2", "x", {"backing": "foo:bar", "backing_fmt": "raw"}),
    ("qcow2", "x", {"backing_fmt": "qcow2", "size": 1 << 20}),
    ("qcow2", "x", {"options": "backing_file=base.qcow2,backing_fmt=qcow2"}),
    ("qcow2", "x", {"options": "backing_file=base.qcow2,backing_fmt=qcow2", "backing": "d", "backing_fmt": "raw"}),
    ("qcow2", "x", {"options": "backing_file=d,backing_fmt=qcow2", "backing": "base.raw", "backing_fmt": "raw"}),
    ("qcow2", "x", {"backing": "base.qcow2", "options": "backing_fmt=qcow2"}),
    ("qcow2", "x", {"backing": 'json:{"driver":"qcow2","file.filename":"base.qcow2"}', "backing_fmt": "qcow2"}),
    ("qcow2", "x", {"backing": 'json:{"driver":"raw","file.filename":"base.raw","foo":1}', "backing_fmt": "raw"}),
    ("qcow2", "d/x", {"backing": "base.qcow2", "backing_fmt": "qcow2"}),
    ("qcow2", "d/x", {"backing": "../base.qcow2", "backing_fmt": "qcow2", "size": 20 << 20}),
    ("qcow2", "x", {"size": 1 << 20, "options": "data_file=d,,e"}),
    ("qcow2", "x", {"size": 1 << 20, "options": "data_file=nowhere/e"}),
    ("qcow2", "x", {"backing": "q", "backing_fmt": "foo", "options": "zz=1"}),
]


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """A qcow2 image of the judge."""
    judges.need_series("qemu-img")
    path = tmp_path_factory.mktemp("base") / "base.qcow2"
    judges.qemu_img("create", "-q", "-f", "qcow2", str(path), "10M")
    return path.read_bytes()


@pytest.fixture
def rooms(tmp_path: Path, base: bytes) -> tuple[Path, Path]:
    """A directory for the judge and one for us, alike."""

    def furnish(root: Path) -> Path:
        (root / "d").mkdir(parents=True)
        (root / "base.qcow2").write_bytes(base)
        with open(root / "base.raw", "wb") as raw:
            raw.truncate(3 << 20)
        os.mkfifo(root / "fifo")
        return root

    return furnish(tmp_path / "theirs"), furnish(tmp_path / "ours")


def contents(root: Path) -> dict[str, int]:
    """Names and sizes of regular files."""
    return {
        str(path.relative_to(root)): path.stat().st_size
        for path in sorted(root.rglob("*"))
        if stat.S_ISREG(path.lstat().st_mode)
    }


def create_in_both(
    rooms: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch, fmt: str, name: str, given: dict[str, Any]
) -> None:
    theirs, ours = rooms
    argv = ["create", "-f", fmt]
    argv += ["-u"] if given.get("unsafe") else []
    argv += ["-b", given["backing"]] if "backing" in given else []
    argv += ["-F", given["backing_fmt"]] if "backing_fmt" in given else []
    argv += ["-o", given["options"]] if "options" in given else []
    argv += [name, *([str(given["size"])] if "size" in given else [])]
    told = judges.run("qemu-img", *argv, cwd=theirs, ok=[0, 1])

    monkeypatch.chdir(ours)
    out: list[str] = []
    err: list[str] = []
    code = 0
    try:
        create_image(
            name, fmt, announce=lambda text: out.append(text + "\n"),
            warn=lambda text: err.append(f"qemu-img: warning: {text}\n"), trust="all", **given,
        )  # fmt: skip
    except CowshedError as error:
        code = 1
        # this one hint of the real tool has no newline
        newline = "" if (error.hint or "").startswith("Detected format") else "\n"
        err.append(f"qemu-img: {error}\n" + (error.hint + newline if error.hint else ""))
    assert ("".join(out), "".join(err), code) == (told.stdout, told.stderr, told.returncode)
    if code == 0:
        found, wanted = contents(ours), contents(theirs)
        if fmt == "qcow2":
            # where an image ends is the layout's business, as long as it is sound
            if not given.get("unsafe"):
                judges.qemu_img("check", "-q", name, cwd=ours)
            found.pop(name.removeprefix("file:"))
            wanted.pop(name.removeprefix("file:"))
        assert found == wanted


@pytest.mark.parametrize("text", TEXTS)
def test_option_text(text: str, rooms: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch, figures: Any) -> None:
    create_in_both(rooms, monkeypatch, "qcow2", "x", {"size": 1 << 20, "options": text})
    figures.add("create: invocations judged")


@pytest.mark.parametrize(("fmt", "name", "given"), CREATIONS)
def test_creation(
    fmt: str, name: str, given: dict[str, Any], rooms: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch, figures: Any
) -> None:
    create_in_both(rooms, monkeypatch, fmt, name, given)
    figures.add("create: invocations judged")


def test_whole_surface_is_tried() -> None:
    """Every creation option of qcow2 and of files stands in one of the texts above."""
    texts = TEXTS + [given["options"] for _, _, given in CREATIONS if "options" in given]
    tried = {name for text in texts for name, _ in split(text)}
    table = creation_table("qcow2", "x")
    untried = {option.name for option in table} - tried
    assert untried <= {name for name in untried if name.startswith("encrypt")} | {"compression_type"}


@pytest.mark.parametrize("fmt", ["raw", "qcow2", "file"])
@pytest.mark.parametrize("name", [None, "x", "/dev/null"])
def test_help(fmt: str, name: str | None) -> None:
    judges.need_series("qemu-img")
    told = judges.qemu_img("create", "-f", fmt, "-o", "help", *([name] if name else []))
    title = f"Supported {fmt} options:" if name is None else "Supported options:"
    ours = creation_table(fmt, name).help_text(title)
    if name is None:
        ours += (
            "\nThe protocol level may support further options.\n"
            "Specify the target filename to include those options.\n"
        )
    assert ours == told


@pytest.mark.parametrize("fmt", [row.name for row in registry.drivers() if row.kind == "format"])
def test_creation_tables_are_the_judges(fmt: str) -> None:
    """Where a format can be created at all, its options are the real tool's, in name, kind and words."""
    judges.need_series("qemu-img")
    try:
        table = creation_table(fmt)
    except UnsupportedError as error:
        assert str(error) == f"Format driver '{fmt}' does not support image creation"
        return
    told = judges.qemu_img("create", "-f", fmt, "-o", "help")
    assert told.startswith(table.help_text(f"Supported {fmt} options:"))


# -- text forms -------------------------------------------------------------------------------------------------------


def test_splitting() -> None:
    assert split("a=b,c=d") == [("a", "b"), ("c", "d")]
    assert split("a=b,,c,d") == [("a", "b,c"), ("d", "on")]
    assert split("nofoo,x=") == [("foo", "off"), ("x", "")]
    assert split("v,w=1", "file") == [("file", "v"), ("w", "1")]
    assert split("a=1,,,b=2") == [("a", "1,"), ("b", "2")]
    assert split("") == []


@given(st.lists(st.tuples(st.text("abcxyz._-", min_size=1), st.text("ab,=on ", max_size=8))))
def test_what_is_escaped_reads_back(pairs: list[tuple[str, str]]) -> None:
    text = ",".join(f"{name}={escape(value)}" for name, value in pairs)
    # an empty value at the end keeps its name
    assert split(text) == pairs


def test_accumulating() -> None:
    assert accumulate(None, "a=1") == "a=1"
    assert accumulate("a=1", "b=2") == "a=1,b=2"
    assert accumulate(None, "a=1,,") == "a=1,,"
    for text in ("", ",a=1", "a=1,", "a=1,,,"):
        with pytest.raises(OptionError, match="Invalid option list: "):
            accumulate("x=1", text)


def test_asking_for_help() -> None:
    for text in ("help", "?", "a=1,help", "?,a=1", "a=1,?,b"):
        assert wants_help(text)
    for text in (None, "", "help=1", "a=help", "nohelp", "a=,,help"):
        assert not wants_help(text)


# -- tables -----------------------------------------------------------------------------------------------------------

TABLE = OptionTable(
    "test",
    [
        Option("flag", "bool", "A flag", default=False),
        Option("width", "num"),
        Option("room", "size", "Room", default=4096),
        Option("name", "str", "A name"),
    ],
)


def test_values_from_programs() -> None:
    values = TABLE.parse({"flag": True, "width": 7, "room": "4k", "name": Path("a,b")})
    assert dict(values) == {"flag": True, "width": 7, "room": 4096, "name": "a,b"}
    assert values.formatting() == "flag=on width=7 room=4096 name=a,,b"
    assert TABLE.parse({"name": None}) == {}
    assert TABLE.parse({}).filled() == {"flag": False, "room": 4096}
    for bad in ({"flag": 5}, {"room": "x"}, {"room": -1}, {"width": object()}, {"name": object()}, {"none": 1}):
        with pytest.raises(OptionError):
            TABLE.parse(bad)


def test_values_pile_up() -> None:
    values = TABLE.parse("room=1k,flag")
    TABLE.parse("room=2k", values)
    assert values == {"room": 2048, "flag": True}
    other = values.copy()
    other.put("room", None)
    assert "room" in values and "room" not in other and other.texts.keys() == {"flag"}


def test_tables_merge_in_order() -> None:
    below = OptionTable("below", [Option("name", "num"), Option("more", "str")])
    merged = TABLE.merged(below)
    assert [option.name for option in merged] == ["flag", "width", "room", "name", "more"]
    assert merged.get("name") is TABLE.get("name")
    with pytest.raises(ValueError):
        OptionTable("twice", [Option("a", "str"), Option("a", "str")])


def test_help_text() -> None:
    assert TABLE.help_text() == (
        "Supported options:\n  flag=<bool (on/off)>   - A flag\n  name=<str>             - A name\n"
        "  room=<size>            - Room\n  width=<num>\n"
    )


# -- what creation leaves ---------------------------------------------------------------------------------------------


def test_api_creation(tmp_path: Path) -> None:
    values = create_image(tmp_path / "x.qcow2", "qcow2", {"cluster_size": 4096, "lazy_refcounts": True}, size=1 << 20)
    assert values["cluster_size"] == 4096 and values["lazy_refcounts"] is True and values["refcount_bits"] == 16
    judges.qemu_img("check", str(tmp_path / "x.qcow2"))
    create_image(tmp_path / "y.qcow2", "qcow2", backing=str(tmp_path / "x.qcow2"), backing_fmt="qcow2")
    with open_image(tmp_path / "y.qcow2") as node:
        assert node.size == 1 << 20
        assert node.backing is not None and node.backing.cluster_size == 4096
    judges.qemu_img("check", str(tmp_path / "y.qcow2"))


def test_failed_creation_leaves_nothing_new(tmp_path: Path) -> None:
    with pytest.raises(CowshedError):
        create_image(tmp_path / "x", "qcow2", "cluster_size=3", size=1 << 20)
    with pytest.raises(HostError):
        create_image(tmp_path / "x", "qcow2", f"data_file={tmp_path}/no/where", size=1 << 20)
    with pytest.raises(CowshedError, match="too large for file format 'raw'"):
        create_image(tmp_path / "x", "raw", size=7 << 60)
    assert list(tmp_path.iterdir()) == []


def test_creation_over_a_full_disk(tmp_path: Path) -> None:
    """The space runs out in the middle: an error, and nothing left over."""
    if os.geteuid() or shutil.which("mount") is None:
        pytest.skip("needs root for a small tmpfs")
    import subprocess

    small = tmp_path / "small"
    small.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "none", str(small)], capture_output=True).returncode:
        pytest.skip("tmpfs cannot be mounted here")
    try:
        for options in ("preallocation=full", "preallocation=falloc"):
            for fmt in ("raw", "qcow2"):
                with pytest.raises(CowshedError, match="No space left on device"):
                    create_image(small / "x", fmt, options, size=4 << 20)
                assert list(small.iterdir()) == []
    finally:
        subprocess.run(["umount", str(small)], check=True)
