"""``cowshed inspect``: facts, names and doubts; and that nothing but the file is opened."""

from __future__ import annotations

import json
import os
import re
import struct
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import judges
from cowshed.errors import CowshedError, OpenError
from cowshed.ops.inspect import inspect


def make(folder: Path, *argv: str) -> None:
    judges.run("qemu-img", *argv, cwd=folder)


def cowshed(folder: Path, *argv: str, tool: tuple[str, ...] = ()) -> subprocess.CompletedProcess[str]:
    start = [*tool, sys.executable, "-c", "from cowshed.cli.main import main; main()"]
    return subprocess.run([*start, *argv], cwd=folder, capture_output=True, text=True, timeout=60)


def test_sound_images(tmp_path: Path) -> None:
    """The facts are those of the real tool, for every format that can be made here."""
    make(tmp_path, "create", "-q", "-f", "qcow2", "-o", "cluster_size=4k,extended_l2=off", "a.qcow2", "1G")
    make(tmp_path, "snapshot", "-c", "before", "a.qcow2")
    make(tmp_path, "create", "-q", "-f", "vmdk", "a.vmdk", "10M")
    make(tmp_path, "create", "-q", "-f", "raw", "a.raw", "10M")
    for name in ("a.qcow2", "a.vmdk", "a.raw"):
        found = inspect(tmp_path / name)
        real = json.loads(judges.qemu_img("info", "--output=json", tmp_path / name))
        assert found.format == real["format"]
        assert found.info is not None and found.info.virtual_size == real["virtual-size"]
        assert found.size == (tmp_path / name).stat().st_size
        assert found.references == []
        assert (found.format == "raw") == bool(found.warnings)
    assert [item["name"] for item in inspect(tmp_path / "a.qcow2").to_dict()["snapshots"]] == ["before"]


@pytest.mark.parametrize("fmt", ["qcow", "vdi", "vhdx", "vpc", "qed", "parallels", "luks"])
def test_formats_without_a_driver(tmp_path: Path, fmt: str) -> None:
    """Their signature is known, and they are not taken for raw."""
    argv = ["-o", "key-secret=s,iter-time=10", "--object", "secret,id=s,data=x"] if fmt == "luks" else []
    make(tmp_path, "create", "-q", "-f", fmt, *argv, "a", "10M")
    found = inspect(tmp_path / "a")
    assert found.format == fmt and fmt in found.signatures


@pytest.mark.parametrize(
    ("backing", "kind", "remark"),
    [
        ("base", "file", None),
        ("../base", "file", "leaves the directory"),
        ("/abs/base", "file", "is an absolute path"),
        ("/dev/sda", "file", "is a device or a file of the system"),
        ("nbd://host/x", "network", "leads to the network"),
        ("https://host/x", "network", "leads to the network"),
        ("json:{}", "description", "describes how to open something, and may open anything"),
        ("strange:x", "protocol", "asks for the protocol 'strange'"),
        ("a\x1b[2Jb", "file", "holds control characters"),
    ],
)
def test_backing_names(tmp_path: Path, backing: str, kind: str, remark: str | None) -> None:
    make(tmp_path, "create", "-q", "-f", "qcow2", "-u", "-b", backing, "-F", "raw", "a", "1M")
    found = inspect(tmp_path / "a")
    (reference,) = found.references
    assert (reference.role, reference.name, reference.format, reference.kind) == ("backing file", backing, "raw", kind)
    assert (remark in reference.remarks) if remark else not reference.remarks
    shown = cowshed(tmp_path, "inspect", "a")
    assert shown.returncode == 0 and "\x1b" not in shown.stdout
    if remark:
        assert f"warning: the backing file {remark}" in shown.stdout


def test_other_names(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    make(tmp_path, "create", "-q", "-f", "qcow2", "-o", "data_file=sub/../d.raw", "a", "1M")
    (reference,) = inspect(tmp_path / "a").references
    assert (reference.role, reference.name) == ("data file", "sub/../d.raw")
    (tmp_path / "b.vmdk").write_text(
        '# Disk DescriptorFile\nversion=1\nCID=1\nparentCID=ffffffff\ncreateType="monolithicFlat"\n'
        'RW 2 FLAT "/etc/passwd" 0\nRW 2 FLAT "plain-flat.vmdk" 0\n'
    )
    found = inspect(tmp_path / "b.vmdk")
    assert [item.name for item in found.references] == ["/etc/passwd", "plain-flat.vmdk"]
    assert "the extent is a device or a file of the system" in found.warnings
    assert any("cannot be opened as vmdk" in text for text in found.warnings)


def test_no_format_for_the_backing_file(tmp_path: Path) -> None:
    make(tmp_path, "create", "-q", "-f", "qcow2", "-u", "-b", "base", "-F", "raw", "a", "1M")
    data = (tmp_path / "a").read_bytes()
    at = data.index(struct.pack(">I", 0xE2792ACA))
    (tmp_path / "a").write_bytes(data[:at] + struct.pack(">I", 0x12345678) + data[at + 4 :])
    assert any("has no format" in text for text in inspect(tmp_path / "a").warnings)


def test_several_things_at_once(tmp_path: Path) -> None:
    """A qcow2 image that is an ISO and a VHD as well, and a raw one that begins a tar archive."""
    make(tmp_path, "create", "-q", "-f", "qcow2", "a", "1M")
    with open(tmp_path / "a", "r+b") as file:
        file.seek(0x8001)
        file.write(b"CD001")
        file.seek(0, os.SEEK_END)
        file.write(b"conectix".ljust(512, b"\0"))
    found = inspect(tmp_path / "a")
    assert {"qcow2", "ISO 9660 file system", "VHD footer (vpc)"} <= set(found.signatures)
    assert any("also looks like VHD footer" in text for text in found.warnings)
    (tmp_path / "b").write_bytes(b"\0" * 257 + b"ustar" + b"\0" * 4096)
    assert any("looks like tar archive" in text for text in inspect(tmp_path / "b").warnings)


def test_states(tmp_path: Path) -> None:
    make(tmp_path, "create", "-q", "-f", "qcow2", "a", "1M")
    plain = (tmp_path / "a").read_bytes()
    for bit, word in ((1, "not closed properly"), (2, "marked as corrupt"), (0x100, "cannot be opened as qcow2")):
        (tmp_path / "a").write_bytes(plain[:72] + struct.pack(">Q", bit) + plain[80:])
        assert any(word in text for text in inspect(tmp_path / "a").warnings), bit
    (tmp_path / "e").touch()
    assert inspect(tmp_path / "e").warnings == ["is empty"]


WATCHED = """
import os, sys
sys.addaudithook(
    lambda event, args: event in ("open", "socket.connect", "subprocess.Popen", "os.system")
    and os.write(2, f"{event} {args[0]!r}\\n".encode())
)
from cowshed.cli.main import main
main()
"""


def test_nothing_else_is_opened(tmp_path: Path) -> None:
    """By the interpreter's account: the file, and Python's own modules."""
    os.mkfifo(tmp_path / "pipe")  # opening it would hang
    make(tmp_path, "create", "-q", "-f", "qcow2", "-u", "-b", "pipe", "-F", "raw", "a.qcow2", "1M")
    make(tmp_path, "create", "-q", "-f", "qcow2", "-o", "data_file=d.raw", "b.qcow2", "1M")
    (tmp_path / "c.vmdk").write_text('# Disk DescriptorFile\nversion=1\nCID=1\nparentCID=2\nRW 2 FLAT "pipe" 0\n')
    for name in ("a.qcow2", "b.qcow2", "c.vmdk"):
        done = subprocess.run(
            [sys.executable, "-B", "-c", WATCHED, "inspect", name],
            cwd=tmp_path, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        events = set(done.stderr.splitlines())
        opened = {line for line in events if not re.search(r"\.(py|pyc|so)'$", line)}
        # /dev/null is where locks are tried out
        assert opened - {"open '/dev/null'"} == {f"open {name!r}"}, opened


def test_arguments(tmp_path: Path) -> None:
    make(tmp_path, "create", "-q", "-f", "qcow2", "a", "1M")
    assert cowshed(tmp_path, "inspect", "a").stdout.startswith("file: ")
    facts = json.loads(cowshed(tmp_path, "inspect", "--output=json", "a").stdout)
    assert facts["format"] == "qcow2" and facts["virtual-size"] == 1 << 20 and facts["warnings"] == []
    assert [
        item["filename"] for item in json.loads(cowshed(tmp_path, "inspect", "--output", "json", "a", "a").stdout)
    ] == ["a", "a"]
    for argv in ([], ["--output=xml", "a"], ["--nope", "a"], ["nope"], ["."]):
        done = cowshed(tmp_path, "inspect", *argv)
        assert done.returncode == 1 and done.stderr.startswith("cowshed inspect: "), argv
    assert "usage:" in cowshed(tmp_path, "inspect", "--help").stdout


SAMPLE: list[bytes] = []


@given(data=st.data())
def test_no_image_is_too_strange(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    """Bytes of the header changed, and the file cut off, at random: a verdict every time."""
    folder = tmp_path_factory.getbasetemp()
    if not SAMPLE:
        make(folder, "create", "-q", "-f", "qcow2", "-u", "-b", "x", "-F", "raw", "sample", "1G")
        SAMPLE.append((folder / "sample").read_bytes())
    image = bytearray(SAMPLE[0])
    for at, value in data.draw(st.lists(st.tuples(st.integers(0, 200), st.integers(0, 255)), max_size=6)):
        image[at] = value
    length = data.draw(st.integers(0, 1024) | st.just(len(image)))
    path = folder / "mutant"
    path.write_bytes(image[:length])
    try:
        found = inspect(path)
    except CowshedError as error:
        assert isinstance(error, OpenError)
    else:
        json.dumps(found.to_dict())
