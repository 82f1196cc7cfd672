"""disk pools in plain files, without root; and on block devices with the kernel's own nodes."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import judges
from cowshed.block.filter.slice import SliceNode
from cowshed.block.graph import open_image
from cowshed.errors import (
    ArgumentError,
    BuiltError,
    ConfigError,
    CowshedError,
    HostCallError,
    MissingVolumeError,
    NoSupportError,
    PoolError,
    ProbeError,
    RangeError,
    StateError,
)
from cowshed.pool import Host, Pool
from cowshed.pool.backend import kernel_partitions as kernel
from cowshed.pool.backend.disk import _path_of
from cowshed.pool.jobs import WRITE
from cowshed.wire.libvirt.definition import Device, PoolDef
from loops import loop_device

MIB = 1 << 20


def document(path: Path, label: str, target: str = "/dev") -> str:
    return (
        f"<pool type='disk'><name>dk</name><source><device path='{path}'/><format type='{label}'/></source>"
        f"<target><path>{target}</path></target></pool>"
    )


def volume(name: str, size: int, form: str = "none") -> str:
    return f"<volume><name>{name}</name><capacity>{size}</capacity><target><format type='{form}'/></target></volume>"


def plain(tmp_path: Path, label: str, name: str = "disk.img", size: int = 100 * MIB) -> Pool:
    path = tmp_path / name
    with open(path, "wb") as file:
        file.truncate(size)
    host = Host(root=str(tmp_path / "root"))
    pool = host.define(document(path, label))
    pool.build()
    pool.start()
    return pool


@pytest.mark.parametrize("label", ["gpt", "dos"])
def test_plain_file(tmp_path: Path, label: str) -> None:
    """Volumes are slices: what is uploaded to one lies where the table says, and nowhere else."""
    pool = plain(tmp_path, label)
    path = tmp_path / "disk.img"
    first = pool.create_volume(volume("disk.img1", 5 * MIB))
    second = pool.create_volume(volume("disk.img2", 7 * MIB, "linux-swap"))
    assert first.path == first.key == f"{path}1" and second.type == "block"
    assert second.definition.target.format == "linux-swap"
    data = os.urandom(3 * MIB)
    (tmp_path / "up").write_bytes(data)
    before = path.read_bytes()
    second.upload(str(tmp_path / "up"), offset=MIB)
    extent = second.definition.extents[0]
    after = path.read_bytes()
    start = extent[1] + MIB
    assert after == before[:start] + data + before[start + len(data) :]
    second.download(str(tmp_path / "down"), offset=MIB, length=3 * MIB)
    assert (tmp_path / "down").read_bytes() == data
    second.wipe()
    assert not any(path.read_bytes()[extent[1] : extent[2]])
    listed = judges.run("sfdisk", "-d", path).stdout
    assert f"start= {extent[1] // 512:11d}, size= {(extent[2] - extent[1]) // 512:11d}" in listed
    with pytest.raises(NoSupportError, match="does not support changing of volume capacity"):
        first.resize(6 * MIB)
    first.delete()
    assert [name for name, _ in pool.volume_names()] == ["disk.img2"]
    again = pool.create_volume(volume("disk.img1", MIB))
    assert again.definition.extents[0][1] == first.definition.extents[0][1] if label == "gpt" else True


def test_clone(tmp_path: Path) -> None:
    pool = plain(tmp_path, "gpt")
    first = pool.create_volume(volume("disk.img1", 5 * MIB))
    (tmp_path / "up").write_bytes(os.urandom(5 * MIB))
    first.upload(str(tmp_path / "up"))
    second = pool.clone_volume(volume("disk.img2", 8 * MIB), first)
    second.download(str(tmp_path / "down"), length=5 * MIB)
    assert (tmp_path / "down").read_bytes() == (tmp_path / "up").read_bytes()
    with pytest.raises(CowshedError):
        pool.clone_volume(volume("disk.img3", 0), second, reflink=True)
    assert len(pool.volumes()) == 2


def test_wrong_name_changes_nothing(tmp_path: Path) -> None:
    pool = plain(tmp_path, "dos")
    before = (tmp_path / "disk.img").read_bytes()
    with pytest.raises(ArgumentError, match=r"invalid argument: invalid partition name 'nope', expected 'disk.img1'"):
        pool.create_volume(volume("nope", MIB))
    with pytest.raises(PoolError, match="internal error: no large enough free extent"):
        pool.create_volume(volume("disk.img1", 999 * MIB))
    with pytest.raises(ConfigError, match="unknown volume format type qcow2"):
        pool.create_volume(volume("disk.img1", MIB, "qcow2"))
    with pytest.raises(NoSupportError, match="volume capacity required for this storage pool"):
        pool.create_volume(volume("disk.img1", 0))
    assert (tmp_path / "disk.img").read_bytes() == before


def test_all_of_the_room(tmp_path: Path) -> None:
    """A partition as large as the free extent is made."""
    pool = plain(tmp_path, "gpt")
    start, end = pool.definition.source.devices[0].free_extents[0]
    made = pool.create_volume(volume("disk.img1", end - start))
    assert made.definition.extents[0][1:] == (start, end)
    info = pool.info()
    assert (info.available, info.allocation, info.capacity) == (0, end - start, end)


def test_extended(tmp_path: Path) -> None:
    pool = plain(tmp_path, "dos")
    for number in (1, 2, 3):
        pool.create_volume(volume(f"disk.img{number}", MIB))
    pool.create_volume(volume("disk.img4", 50 * MIB, "extended"))
    for number in (5, 6, 7):
        pool.create_volume(volume(f"disk.img{number}", (number - 3) * MIB))
    with pytest.raises(PoolError, match="internal error: extended partition already exists"):
        pool.create_volume(volume("disk.img8", MIB, "extended"))
    container = pool.volume("disk.img4")
    assert container.definition.allocation == 0 and container.definition.target.format == "extended"
    with pytest.raises(NoSupportError):
        container.download(str(tmp_path / "down"))
    sixth = pool.volume("disk.img6").definition.extents
    pool.volume("disk.img5").delete()
    # those behind move up, as every kernel counts them
    assert pool.volume("disk.img5").definition.extents == sixth
    container.delete()
    assert [name for name, _ in pool.volume_names()] == ["disk.img1", "disk.img2", "disk.img3"]
    judges.run("sfdisk", "--verify", tmp_path / "disk.img")


def test_names_that_move(tmp_path: Path) -> None:
    """Deleting a logical partition gives its name to the next one: nobody who meant the one writes the other."""
    pool = plain(tmp_path, "dos", size=24 * MIB)
    for number in (1, 2, 3):
        pool.create_volume(volume(f"disk.img{number}", MIB))
    pool.create_volume(volume("disk.img4", 16 * MIB, "extended"))
    for number in (5, 6, 7):
        pool.create_volume(volume(f"disk.img{number}", 2 * MIB))
    before = {number: pool.volume(f"disk.img{number}") for number in (4, 5, 6, 7)}
    (tmp_path / "in").write_bytes(b"precious" * 1000)
    before[7].upload(tmp_path / "in")
    with pool.claim("upload", "disk.img6", WRITE):
        for number in (4, 5, 6):
            with pytest.raises(StateError, match=r"volume 'disk.img6' is still in use"):
                before[number].delete()
        pool.volume("disk.img1").delete()
    six = pool.volume("disk.img6").definition
    before[5].delete()
    data = (tmp_path / "disk.img").read_bytes()
    for act in (pool.backend.delete_volume, pool.backend.open_volume):
        # as when another program changes the table between the last look and the act
        with pytest.raises(StateError, match="were changed meanwhile"):
            act(pool.live, six)
    for verb in (before[6].wipe, before[6].delete, lambda: before[6].upload(tmp_path / "in")):
        with pytest.raises(StateError, match=r"volume 'disk.img6' is another one now"):
            verb()
    with pytest.raises(MissingVolumeError):
        before[7].wipe()
    assert (tmp_path / "disk.img").read_bytes() == data
    pool.volume("disk.img6").download(tmp_path / "out", length=8000)
    assert (tmp_path / "out").read_bytes() == b"precious" * 1000
    before[4].delete()
    assert [name for name, _ in pool.volume_names()] == ["disk.img2", "disk.img3"]


def test_formats_that_are_only_recognised(tmp_path: Path) -> None:
    judges.need("parted")
    path = tmp_path / "disk.img"
    for label, name in (("mac", "mac"), ("sun", "sun"), ("bsd", "bsd"), ("dvh", "dvh")):
        path.unlink(missing_ok=True)
        with open(path, "wb") as file:
            file.truncate(50 * MIB)
        host = Host(root=str(tmp_path / f"root-{label}"))
        pool = host.define(document(path, label))
        with pytest.raises(ConfigError, match="can only be recognised"):
            pool.build()
        assert not any(path.read_bytes()[:4096])
        judges.run("parted", "-s", path, "mklabel", name)
        with pytest.raises(ConfigError, match="can only be recognised"):
            pool.start()
        with pytest.raises(BuiltError, match=f"already formatted using '{label}'"):
            pool.build()
        other = host.define(document(path, "gpt").replace(">dk<", ">other<").replace(str(path), str(path) + "/"))
        assert other.name == "other"


def test_refusals(tmp_path: Path) -> None:
    path = tmp_path / "disk.img"
    host = Host(root=str(tmp_path / "root"))
    pool = host.define(document(path, "gpt"))
    with pytest.raises(ArgumentError, match=r"invalid argument: device path .* doesn't exist"):
        pool.start()
    with pytest.raises(ProbeError, match="Failed to create filesystem probe for device"):
        pool.build()
    for attempt in (pool.delete, lambda: pool.build(overwrite=True)):
        with pytest.raises(HostCallError, match=r"Failed to open storage volume with path .*: No such file"):
            attempt()
    path.write_bytes(b"")
    with pytest.raises(ProbeError, match="is unrecognized, requires build"):
        pool.start()
    with pytest.raises(PoolError, match="not possible"):
        pool.build()
    with open(path, "wb") as file:
        file.truncate(50 * MIB)
    judges.run("mkfs.ext4", "-q", "-F", path)
    kept = path.read_bytes()
    with pytest.raises(StateError, match="does not match the expected format 'gpt'"):
        pool.start()
    with pytest.raises(BuiltError, match="forced overwrite is necessary"):
        pool.build()
    assert path.read_bytes() == kept
    pool.build(overwrite=True)
    pool.start()
    with pytest.raises(BuiltError, match="already formatted using 'gpt'"):
        host.define(document(path, "gpt"))
        pool.destroy()
        pool.build()
    pool.delete()
    with pytest.raises(ProbeError):
        pool.start()


def test_a_machine_runs_from_it(tmp_path: Path) -> None:
    """While something has the file open as an image its table can't be changed."""
    pool = plain(tmp_path, "gpt")
    with open_image(str(tmp_path / "disk.img"), fmt="raw", writable=True, exclusive=True):
        other = subprocess.run(
            [sys.executable, "-c",
             "import sys\nfrom cowshed.pool import Host\n"
             f"Host(root={str(tmp_path / 'root')!r}).pool('dk').create_volume({volume('disk.img1', MIB)!r})"],
            capture_output=True, text=True,
        )  # fmt: skip
        assert other.returncode and "lock" in other.stderr
    pool.create_volume(volume("disk.img1", MIB))


def test_two_at_once(tmp_path: Path) -> None:
    """Several processes make and delete partitions of one file: none is lost."""
    plain(tmp_path, "gpt")
    code = (
        "import sys\nfrom cowshed.pool import Host\nfrom cowshed.errors import CowshedError\n"
        f"pool = Host(root={str(tmp_path / 'root')!r}).pool('dk')\nmade = 0\n"
        "while made < 6:\n"
        "    number = len(pool.volume_names()) + 1\n"
        "    try:\n"
        "        pool.create_volume(f'<volume><name>disk.img{number}</name><capacity>1048576</capacity></volume>')\n"
        "        made += 1\n"
        "    except CowshedError as error:\n"
        "        if not any(word in str(error) for word in ('exist', 'being', 'invalid partition name', 'in use')):\n"
        "            raise\n"
    )
    running = [subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.PIPE, text=True) for _ in range(3)]
    for process in running:
        _, complaint = process.communicate(timeout=100)
        assert process.returncode == 0, complaint
    assert len(Host(root=str(tmp_path / "root")).pool("dk").volume_names()) == 18
    assert "No problems found" in judges.run("sgdisk", "-v", tmp_path / "disk.img").stdout


# -- names ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("device", "separator", "name"),
    [("/tmp/x/disk", None, "/tmp/x/disk3"), ("/tmp/x/disk0", None, "/tmp/x/disk0p3"),
     ("/tmp/x/disk", True, "/tmp/x/diskp3"), ("/tmp/x/nvme0n1", None, "/tmp/x/nvme0n1p3"),
     ("/dev/mapper/mpatha", None, "/dev/mapper/mpathap3"), ("/dev/mapper/mpatha", False, "/dev/mapper/mpatha3"),
     ("/dev/mapper/disk1", False, "/dev/mapper/disk1p3")],
)  # fmt: skip
def test_names(device: str, separator: bool | None, name: str) -> None:
    pool = PoolDef("disk", "dk")
    pool.source.devices = [Device(device, separator)]
    pool.target = "/dev"
    assert _path_of(pool, 3) == name


# -- the kernel -------------------------------------------------------------------------------------------------------


@pytest.fixture
def loop(tmp_path: Path) -> Iterator[Path]:
    with loop_device(tmp_path / "disk.img", 100 * MIB) as device:
        yield device
        kernel.remove(str(device), kernel.known(str(device)))


@pytest.mark.parametrize("label", ["gpt", "dos"])
def test_kernel_nodes(tmp_path: Path, loop: Path, label: str) -> None:
    """The kernel knows each partition as soon as it is made, and forgets it when it is deleted."""
    host = Host(root=str(tmp_path / "root"))
    pool = host.define(document(loop, label))
    pool.build()
    pool.start()
    for number in (1, 2, 3):
        made = pool.create_volume(volume(f"{loop.name}p{number}", number * 5 * MIB))
        assert Path(made.path).is_block_device()
        with open(made.path, "rb") as device:
            assert device.seek(0, os.SEEK_END) == made.definition.capacity
    second = pool.volume(f"{loop.name}p2")
    (tmp_path / "up").write_bytes(os.urandom(MIB))
    second.upload(str(tmp_path / "up"))
    assert Path(second.path).read_bytes()[:MIB] == (tmp_path / "up").read_bytes()
    second.delete()
    assert sorted(kernel.known(str(loop))) == [1, 3]
    assert sorted(number for number, *_ in partitions(loop)) == [1, 3]
    pool.destroy()
    # the kernel here reads no tables by itself: starting the pool tells it
    kernel.remove(str(loop), [1, 3])
    pool.start()
    assert sorted(kernel.known(str(loop))) == [1, 3]
    for number, start, size in partitions(loop):
        node = kernel.known(str(loop))[number]
        assert (node.start, node.size) == (start, size)


def partitions(device: Path) -> list[tuple[int, int, int]]:
    """What partx reads from the disk."""
    out = judges.run("partx", "-b", "-g", "-o", "NR,START,SIZE", device).stdout
    return [(int(a), int(b) * 512, int(c)) for a, b, c in (line.split() for line in out.splitlines())]


def test_busy_partition(tmp_path: Path, loop: Path) -> None:
    """One that is mounted is not deleted, and nothing else is forgotten over it."""
    judges.need("mount")
    host = Host(root=str(tmp_path / "root"))
    pool = host.define(document(loop, "dos"))
    pool.build()
    pool.start()
    for number in (1, 2):
        pool.create_volume(volume(f"{loop.name}p{number}", 20 * MIB))
    first = pool.volume(f"{loop.name}p1")
    judges.run("mkfs.ext4", "-q", "-F", first.path)
    (tmp_path / "mnt").mkdir()
    judges.run("mount", first.path, tmp_path / "mnt")
    try:
        before = partitions(loop)
        with pytest.raises(HostCallError, match="cannot take partition"):
            first.delete()
        pool.destroy()
        with pytest.raises(HostCallError, match="cannot take partition"):
            pool.build(overwrite=True)
        assert partitions(loop) == before and sorted(kernel.known(str(loop))) == [1, 2]
    finally:
        judges.run("umount", tmp_path / "mnt")
    judges.run("e2fsck", "-fn", first.path)


# -- slices -----------------------------------------------------------------------------------------------------------


def test_slice(tmp_path: Path) -> None:
    judges.run("qemu-img", "create", "-q", "-f", "qcow2", tmp_path / "d.qcow2", "4M")
    with open_image(str(tmp_path / "d.qcow2"), writable=True) as node:
        node.write(0, b"a" * (4 << 20))
        part = SliceNode(node, 70000, 200000, owned=False)
        assert part.size == 200000
        part.write(10, b"hello")
        part.write_zeroes(1000, 100000)
        part.discard(150000, 1000)
        assert part.read(0, 20) == b"a" * 10 + b"hello" + b"a" * 5
        for offset, length in ((-1, 5), (199999, 2), (200000, 1)):
            with pytest.raises(RangeError):
                part.write(offset, bytes(length))
            with pytest.raises(RangeError):
                part.read(offset, length)
        assert sum(extent.length for extent in part.extents()) == part.size
        assert node.read(0, 70000) == b"a" * 70000 and set(node.read(270000, 1000)) == {ord("a")}
        inner = SliceNode(part, 5, 20, owned=False)
        assert inner.read(5, 5) == b"hello"
        with pytest.raises(RangeError):
            SliceNode(node, 4 << 20, 1)
        part.close()
        assert not node.closed
