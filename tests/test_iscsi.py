"""The iscsi protocol against tgtd, beside the real qemu-img's driver."""

from __future__ import annotations

import json
import os
import random
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

import judges
from cowshed.block.graph import open_image
from cowshed.block.protocol import iscsi, libiscsi
from cowshed.block.protocol.libiscsi import Session
from cowshed.errors import CowshedError, HostError, OpenError, OptionError, UnsupportedError
from iscsi_target import IQN, Target, free_port, running

MIB = 1 << 20
INITIATOR = "iqn.2024-01.org.cowshed:tests"


@pytest.fixture
def target(tmp_path: Path) -> Iterator[Target]:
    with running(tmp_path) as found:
        yield found


def disk(path: Path, size: int = 8 * MIB) -> Path:
    path.write_bytes(random.Random(size).randbytes(size))
    return path


def cowshed(*argv: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "cowshed", "qemu-img", *argv], capture_output=True, text=True, timeout=120
    )


def test_reads_and_writes(target: Target, tmp_path: Path) -> None:
    """Any range, aligned or not: what the file behind the unit holds is the judge."""
    path = disk(tmp_path / "d")
    target.unit(1, path)
    model = bytearray(path.read_bytes())
    rng = random.Random(5)
    with open_image(target.url(1), fmt="raw", writable=True) as node:
        assert node.size == 8 * MIB
        assert node.read(0, node.size) == model
        for _ in range(60):
            length = rng.choice((1, 511, 512, 513, 4096, 70001, 3 * MIB))
            offset = rng.choice((0, 512, rng.randrange(node.size), node.size - length))
            offset = max(0, min(offset, node.size - length))
            what = rng.randrange(4)
            if what == 0:
                assert node.read(offset, length) == model[offset : offset + length]
            elif what == 1:
                node.write_zeroes(offset, length)
                model[offset : offset + length] = bytes(length)
            else:
                data: bytes | bytearray | memoryview = rng.randbytes(length)
                if what == 2:
                    data = memoryview(bytearray(data))
                node.write(offset, data)
                model[offset : offset + length] = data
        node.flush()
        assert node.read(0, node.size) == model
        with pytest.raises(CowshedError, match="outside"):
            node.read(node.size - 1, 2)
    assert path.read_bytes() == model


def test_thin_unit(target: Target, tmp_path: Path) -> None:
    """A thin unit tells what is unmapped, and gives space back."""
    path = tmp_path / "thin"
    with open(path, "wb") as file:
        file.truncate(16 * MIB)
        file.seek(4 * MIB)
        file.write(os.urandom(MIB))
    target.unit(1, path, params="thin_provisioning=1")
    content = path.read_bytes()
    with open_image(target.url(1), fmt="raw", writable=True) as node:
        extents = list(node.extents())
        assert node.read(0, node.size) == content
        for extent in extents:
            if extent.kind != 1:
                assert not any(content[extent.offset : extent.offset + extent.length])
        before = os.stat(path).st_blocks
        node.discard(4 * MIB, MIB)
        node.flush()
        assert os.stat(path).st_blocks < before


def test_large_blocks(target: Target, tmp_path: Path) -> None:
    path = disk(tmp_path / "d", 3 * MIB)
    target.unit(1, path, "--blocksize", "4096")
    model = bytearray(path.read_bytes())
    with open_image(target.url(1), fmt="raw", writable=True) as node:
        node.write(4095, b"abc")
        model[4095:4098] = b"abc"
        node.write(10000, bytes(100000))
        model[10000:110000] = bytes(100000)
        node.write_zeroes(200001, 50000)
        model[200001:250001] = bytes(50000)
        assert node.read(0, node.size) == model
        assert node.read(4097, 3) == model[4097:4100]
    assert path.read_bytes() == model


def test_as_qemu_img_sees_it(target: Target, tmp_path: Path) -> None:
    """info, map and convert through the front end: the same figures and bytes as the real tool's driver gives."""
    path = tmp_path / "img.qcow2"
    judges.qemu_img("create", "-q", "-f", "qcow2", path, "20M")
    judges.qemu_io(path, "write -P 7 1M 3M")
    with open(path, "r+b") as file:
        file.truncate(8 * MIB)
    target.unit(1, path)
    url = target.url(1)
    ours = cowshed("info", "--output=json", url)
    assert ours.returncode == 0, ours.stderr
    facts, theirs = json.loads(ours.stdout), json.loads(judges.qemu_img("info", "--output=json", url))
    for key in ("virtual-size", "format", "cluster-size", "format-specific"):
        assert facts[key] == theirs[key], key
    out = tmp_path / "out.raw"
    done = cowshed("convert", "-O", "raw", url, str(out))
    assert done.returncode == 0, done.stderr
    assert judges.qemu_img("compare", "-F", "qcow2", "-f", "raw", out, path).startswith("Images are identical")


def test_images_on_a_unit(target: Target, tmp_path: Path) -> None:
    """create and convert onto a unit: what the real tool reads there is right."""
    path = disk(tmp_path / "d")
    target.unit(1, path)
    url = target.url(1)
    done = cowshed("create", "-f", "qcow2", url, "20M")
    assert done.returncode == 0, done.stderr
    with open_image(url, fmt="qcow2", writable=True) as node:
        node.write(5 * MIB + 3, b"here")
    assert json.loads(judges.qemu_img("info", "--output=json", url))["virtual-size"] == 20 * MIB
    judges.qemu_img("check", "-f", "qcow2", url)
    out = tmp_path / "out"
    judges.qemu_img("convert", "-O", "raw", url, out)
    assert out.read_bytes() == bytes(5 * MIB + 3) + b"here" + bytes(15 * MIB - 7)
    raw = disk(tmp_path / "raw", 3 * MIB)
    done = cowshed("convert", "-n", "-f", "raw", "-O", "raw", str(raw), url)
    assert done.returncode == 0, done.stderr
    assert path.read_bytes()[: 3 * MIB] == raw.read_bytes()
    done = cowshed("create", "-f", "raw", url, "20M")
    assert done.returncode == 1 and "Cannot grow" in done.stderr
    assert path.stat().st_size == 8 * MIB


def test_chap(target: Target, tmp_path: Path) -> None:
    """The right password opens it: in the address, as options, as a secret; a wrong one and none are refused."""
    path = disk(tmp_path / "d", MIB)
    target.unit(1, path)
    target.account("alice", "correct-horse-battery")
    good = f"iscsi://alice%correct-horse-battery@{target.portal}/{IQN}/1"
    with open_image(good, fmt="raw") as node:
        assert node.read(0, 512) == path.read_bytes()[:512]
    options = {"transport": "tcp", "portal": target.portal, "target": IQN, "lun": 1, "user": "alice"}
    with open_image(
        {"driver": "raw", "file": {"driver": "iscsi", **options, "password-secret": "s"}},
        secrets={"s": b"correct-horse-battery"},
    ) as node:
        assert node.size == MIB
    for bad in (f"iscsi://alice%wrong-horse-battery@{target.portal}/{IQN}/1", target.url(1)):
        with pytest.raises(OpenError, match="iSCSI: Failed to connect to LUN : Failed to log in to target"):
            open_image(bad, fmt="raw")
        assert judges.run("qemu-img", "info", bad, ok=(1,)).returncode == 1
    with pytest.raises(OpenError, match="no password"):
        open_image({"driver": "raw", "file": {"driver": "iscsi", **options}})


def test_sessions(target: Target, tmp_path: Path) -> None:
    """Discovery, the list of units, and what is no disk."""
    for lun in (1, 3, 200):
        target.unit(lun, disk(tmp_path / f"d{lun}", MIB))
    target.target(2, "iqn.2024-01.org.cowshed:other")
    with Session(target.portal, INITIATOR) as session:
        found = session.targets()
    assert sorted(name for name, _ in found) == [IQN, "iqn.2024-01.org.cowshed:other"]
    assert all(portal.startswith(target.portal) for _, portals in found for portal in portals)
    listed = judges.run("iscsi-ls", f"iscsi://{target.portal}").stdout
    assert all(name in listed for name, _ in found)
    with Session(target.portal, INITIATOR, IQN) as session:
        assert session.luns() == [0, 1, 3, 200]
        assert session.capacity(1) == (2048, 512, False)
        assert session.inquiry(0)[0] & 0x1F == 0x0C
        session.close()
        with pytest.raises(HostError, match="closed"):
            session.inquiry(0)
    with pytest.raises(OpenError, match="not a disk"):
        open_image(target.url(0), fmt="raw")
    with pytest.raises(OpenError, match="iSCSI: Failed to connect to LUN : SENSE KEY:ILLEGAL_REQUEST"):
        open_image(target.url(77), fmt="raw")
    with pytest.raises(OpenError, match="iSCSI: Failed to connect to LUN : Failed to log in to target"):
        open_image(target.url(1, "iqn.2024-01.org.cowshed:none"), fmt="raw")


def test_many_units(target: Target, tmp_path: Path) -> None:
    """More units than the first report has room for."""
    path = disk(tmp_path / "d", MIB)
    for lun in range(1, 40):
        target.unit(lun, path)
    with Session(target.portal, INITIATOR, IQN) as session:
        assert session.luns() == list(range(40))


def test_read_only_unit(target: Target, tmp_path: Path) -> None:
    target.unit(1, disk(tmp_path / "d", MIB), params="readonly=1")
    with open_image(target.url(1), fmt="raw") as node:
        assert node.size == MIB
    with pytest.raises(OpenError, match="write protected"):
        open_image(target.url(1), fmt="raw", writable=True)


def test_nobody_answers() -> None:
    with (
        free_port() as port,
        pytest.raises(OpenError, match=f"LUN : Failed to connect to 127.0.0.1:{port}: Connection refused"),
    ):
        open_image(f"iscsi://127.0.0.1:{port}/{IQN}/1")


def test_silent_server_is_not_waited_for() -> None:
    """Something that accepts and says nothing: an error when the timeout is over."""
    held: list[socket.socket] = []
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()
        server.settimeout(20)

        def accept() -> None:
            for _ in range(2):
                try:
                    held.append(server.accept()[0])
                except OSError:
                    return

        thread = threading.Thread(target=accept, daemon=True)
        thread.start()
        with pytest.raises(HostError, match="Failed to"):
            Session(f"127.0.0.1:{server.getsockname()[1]}", INITIATOR, IQN, timeout=2)
        for one in held:
            one.close()
    thread.join(5)


@pytest.mark.parametrize(
    "name, text",
    [
        ("iscsi:nonsense", "Failed to parse URL"),
        ("iscsi://host", "Failed to parse URL"),
        ("iscsi://host/iqn", "Failed to parse URL"),
        ("iscsi://host/iqn/x", "Failed to parse URL"),
        ("iscsi://host:99999/iqn/1", "Failed to parse URL"),
        ("iscsi://[::1/iqn/1", "Failed to parse URL"),
        ("iscsi:///iqn/1", "Failed to parse URL"),
    ],
)
def test_bad_addresses(name: str, text: str) -> None:
    with pytest.raises(OpenError, match=text):
        open_image(name)


@pytest.mark.parametrize(
    "options, text",
    [
        ({"portal": "h", "target": "t"}, "Parameter 'transport' is missing"),
        ({"transport": "tcp", "target": "t"}, "Parameter 'portal' is missing"),
        ({"transport": "tcp", "portal": "h"}, "Parameter 'target' is missing"),
        ({"transport": "iser", "portal": "h", "target": "t"}, "RDMA"),
        ({"transport": "tcp", "portal": "h", "target": "t", "header-digest": "md5"}, "header-digest"),
        ({"transport": "tcp", "portal": "h", "target": "t", "lun": 1 << 20}, "Invalid LUN"),
        (
            {"transport": "tcp", "portal": "h", "target": "t", "user": "u", "password": "p", "password-secret": "s"},
            "mutually exclusive",
        ),
    ],
)
def test_bad_options(options: dict[str, object], text: str) -> None:
    with pytest.raises(OpenError, match=text):
        open_image({"driver": "raw", "file": {"driver": "iscsi", **options}})


def test_addresses() -> None:
    assert iscsi.parse_url("//u%p%q@[fe80::1]:99/iqn.x:y/7") == {
        "user": "u", "password": "p%q", "portal": "[fe80::1]:99", "target": "iqn.x:y", "lun": "7",
    }  # fmt: skip
    assert iscsi.parse_url("iscsi://h/t/0") == {"portal": "h", "target": "t", "lun": "0"}
    assert libiscsi.split_portal("h") == ("h", 3260)
    with pytest.raises(OptionError):
        iscsi.parse_url("//h/t/-1")


def test_without_the_library(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is missing is named, with its package."""
    monkeypatch.setattr(libiscsi, "_library", None)
    monkeypatch.setattr(libiscsi, "_NAMES", ("libiscsi-that-is-not-there.so.1",))
    with pytest.raises(UnsupportedError, match=r"libiscsi \(Debian package libiscsi7\)"):
        Session("127.0.0.1:1", INITIATOR, IQN)
