"""What could lose data: each case is one that would, and must not."""

from __future__ import annotations

import contextlib
import errno
import os
import select
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import judges
from cowshed.block.graph import open_image
from cowshed.errors import CowshedError, HostError, PoolError, StateError
from cowshed.ops.create import create
from cowshed.pool import Host, Pool
from cowshed.pool.backend import making
from cowshed.pool.jobs import BUILD
from cowshed.progress import Progress
from loops import file_system, released

MIB = 1 << 20


def pool_document(name: str, folder: Path) -> str:
    return f"<pool type='dir'><name>{name}</name><target><path>{folder}</path></target></pool>"


def volume_document(name: str, size: int, fmt: str = "raw", allocation: int = 0) -> str:
    return (
        f"<volume><name>{name}</name><allocation>{allocation}</allocation><capacity>{size}</capacity>"
        f"<target><format type='{fmt}'/></target></volume>"
    )


@pytest.fixture
def pool(tmp_path: Path) -> Pool:
    host = Host(root=str(tmp_path / "root"))
    return host.create(pool_document("p", tmp_path / "p"), build=True)


def test_allocating_where_the_file_system_can_not(pool: Pool, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is added is filled with zeroes; what was there stays."""
    volume = pool.create_volume(volume_document("v", MIB))
    Path(volume.path).write_bytes(b"precious" * (MIB // 8))

    def not_here(*args: object) -> None:
        raise HostError("no", errno=errno.EOPNOTSUPP)

    monkeypatch.setattr("cowshed.block.protocol.file.FileNode.preallocate", not_here)
    volume.resize(3 * MIB + 512, allocate=True)
    data = Path(volume.path).read_bytes()
    assert data == b"precious" * (MIB // 8) + bytes(2 * MIB + 512)
    assert os.stat(volume.path).st_blocks * 512 >= 3 * MIB


def test_a_resize_that_fails_leaves_the_length(pool: Pool, monkeypatch: pytest.MonkeyPatch) -> None:
    volume = pool.create_volume(volume_document("v", MIB))
    Path(volume.path).write_bytes(b"precious" * (MIB // 8))

    def full(self: Any, *args: object) -> None:
        os.ftruncate(self.fd, 5 * MIB)  # as far as it came
        raise HostError("no", errno=errno.ENOSPC)

    monkeypatch.setattr("cowshed.block.protocol.file.FileNode.preallocate", full)
    with pytest.raises(CowshedError) as caught:
        volume.resize(9 * MIB, allocate=True)
    assert caught.value.errno == errno.ENOSPC
    assert Path(volume.path).read_bytes() == b"precious" * (MIB // 8)


@pytest.mark.parametrize("way", ["path", "hard link", "symbolic link"])
def test_downloading_a_volume_into_itself(pool: Pool, tmp_path: Path, way: str) -> None:
    volume = pool.create_volume(volume_document("v", MIB))
    Path(volume.path).write_bytes(b"precious" * (MIB // 8))
    target = tmp_path / "target"
    if way == "path":
        target = Path(volume.path)
    elif way == "hard link":
        os.link(volume.path, target)
    else:
        target.symlink_to(volume.path)
    with pytest.raises(PoolError, match="is the volume itself"):
        volume.download(target)
    done = subprocess.run(
        [sys.executable, "-m", "cowshed", "virsh", "-c", f"cowshed:///?root={tmp_path}/root", "vol-download", "v",
         str(target), "p"], capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 1 and "is the volume itself" in done.stderr and "Traceback" not in done.stderr
    assert Path(volume.path).read_bytes() == b"precious" * (MIB // 8)


@pytest.mark.parametrize("name", ["v", "other"])
def test_uploading_a_volume_into_itself(pool: Pool, tmp_path: Path, name: str) -> None:
    """What comes later would be read after it was written over."""
    volume = pool.create_volume(volume_document("v", 4 * MIB))
    data = b"".join(number.to_bytes(8, "big") for number in range(4 * MIB // 8))
    Path(volume.path).write_bytes(data)
    os.link(volume.path, tmp_path / "p/other")
    with pytest.raises(PoolError, match="is the volume itself"):
        volume.upload(tmp_path / "p" / name, offset=512, resize=True)
    assert Path(volume.path).read_bytes() == data


def test_downloading_a_partition_over_its_disk(tmp_path: Path) -> None:
    pool = disk_pool(tmp_path)
    volume = pool.create_volume(partition("disk.img1"))
    before = (tmp_path / "disk.img").read_bytes()
    with pytest.raises(PoolError, match="is the volume itself"):
        volume.download(tmp_path / "disk.img")
    assert (tmp_path / "disk.img").read_bytes() == before


# -- names that files get --------------------------------------------------------------------------------------------


def without_links(monkeypatch: pytest.MonkeyPatch) -> None:
    """A file system that has neither hard links nor a rename that doesn't replace."""

    def link(*args: object, **options: object) -> None:
        raise OSError(errno.EPERM, "no links")

    class Library:
        def renameat2(self, *args: object) -> int:
            import ctypes

            ctypes.set_errno(errno.EINVAL)
            return -1

    monkeypatch.setattr(os, "link", link)
    monkeypatch.setattr("ctypes.CDLL", lambda *args, **options: Library())


def test_publishing_without_links(pool: Pool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    without_links(monkeypatch)
    volume = pool.create_volume(volume_document("v", MIB, "qcow2"))
    judges.run("qemu-img", "check", volume.path)
    (tmp_path / "p/taken").write_bytes(b"precious")
    (tmp_path / "p/part").write_bytes(b"new")
    with pytest.raises(StateError, match="already exists"):
        making.publish(str(tmp_path / "p/part"), str(tmp_path / "p/taken"))
    assert (tmp_path / "p/taken").read_bytes() == b"precious"


@pytest.mark.parametrize("failure", [OSError(errno.EIO, ""), KeyboardInterrupt()])
def test_publishing_fails_half_way(
    pool: Pool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failure: BaseException
) -> None:
    """No empty file stays that looks like a volume."""
    without_links(monkeypatch)

    real = os.rename

    def rename(source: str, target: str) -> None:
        if str(source).endswith(".part"):
            raise failure
        real(source, target)

    monkeypatch.setattr(os, "rename", rename)
    with pytest.raises((PoolError, KeyboardInterrupt)):
        pool.create_volume(volume_document("v", MIB))
    assert os.listdir(tmp_path / "p") == [] and pool.jobs() == []


# -- processes -------------------------------------------------------------------------------------------------------


def test_a_fork_does_not_end_the_claim(pool: Pool, tmp_path: Path) -> None:
    """A child that leaves the context takes neither the record nor the unfinished file away from its parent."""
    path = str(tmp_path / "p/v")
    with pool.claim("create", "v", BUILD, beside=path) as claim:
        Path(claim.part).write_bytes(b"half")
        pid = os.fork()
        if pid == 0:
            claim.release()
            os._exit(0)
        assert os.waitpid(pid, 0)[1] == 0
        assert Path(claim.part).exists() and len(pool.jobs()) == 1
        making.publish(claim.part, path)
    assert Path(path).read_bytes() == b"half" and pool.jobs() == []


@pytest.mark.parametrize("fmt", ["raw", "qcow2"])
def test_the_run_directory_is_emptied_while_a_job_runs(pool: Pool, tmp_path: Path, fmt: str) -> None:
    """As a user's is at the last logout. Whoever comes then leaves the unfinished file to its maker, who finishes."""
    origin = pool.create_volume(volume_document("origin", 2 * MIB))
    Path(origin.path).write_bytes(os.urandom(2 * MIB))
    seen: list[list[str]] = []

    def listener(work: Progress) -> None:
        if seen:
            return
        shutil.rmtree(tmp_path / "root/run")
        other = Host(root=str(tmp_path / "root"))
        again = other.create(pool_document("p", tmp_path / "p"))
        again.refresh()
        seen.append([name for name in os.listdir(tmp_path / "p") if name.endswith(".part")])
        assert [name for name, _ in again.volume_names()] == ["origin"] and other.recovered == []

    # the pool is another one then, so what tells of the new volume fails; the volume is whole
    try:
        pool.clone_volume(volume_document("copy", 0, fmt), origin, progress=Progress(listener=listener))
    except PoolError as error:
        assert "no storage pool" in str(error)
    assert len(seen[0]) == 1
    judges.run("qemu-img", "compare", "-f", "raw", "-F", fmt, origin.path, tmp_path / "p/copy")
    assert sorted(os.listdir(tmp_path / "p")) == ["copy", "origin"]


def test_threads_make_one_volume(pool: Pool) -> None:
    """Several threads and two hosts of one process: one gets it, the others are told."""
    hosts = [pool.host, Host(root=pool.host.root)]
    got: list[str] = []

    def work(number: int) -> None:
        try:
            hosts[number % 2].pool("p").create_volume(volume_document("v", MIB, "qcow2"))
            got.append("made")
        except PoolError as error:
            got.append(type(error).__name__)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert got.count("made") == 1 and set(got) <= {"made", "StateError", "VolumeExistsError"}
    judges.run("qemu-img", "check", pool.volume("v").path)


def test_an_unlucky_clock(pool: Pool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The clock is set far ahead and far back while a volume is made: it is finished, and nobody sweeps it up."""
    import time

    real = time.time
    origin = pool.create_volume(volume_document("origin", MIB))
    jumps = iter([1e9, -1e9, 0])

    def listener(work: Progress) -> None:
        jump = next(jumps, 0)
        monkeypatch.setattr(time, "time", lambda: real() + jump)
        Host(root=str(tmp_path / "root")).pool("p").refresh()

    pool.clone_volume(volume_document("copy", 0, "qcow2"), origin, progress=Progress(listener=listener))
    assert sorted(os.listdir(tmp_path / "p")) == ["copy", "origin"]


# -- what machines have open -----------------------------------------------------------------------------------------


@pytest.fixture
def machine(pool: Pool) -> Iterator[Any]:
    """Open an image as a machine does, for as long as the test lasts. (Of a raw one QEMU's own tools let others
    write beside them; a machine does not.)"""
    with contextlib.ExitStack() as stack:

        def start(path: str, fmt: str) -> None:
            if fmt == "raw":
                stack.enter_context(open_image(path, fmt="raw", writable=True, exclusive=True))
                return
            argv = [judges.need("qemu-io"), "-f", fmt, path]
            process = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
            stack.callback(process.communicate)
            stack.callback(process.kill)
            assert process.stdin is not None and process.stdout is not None
            process.stdin.write(b"read 0 512\n")
            process.stdin.flush()
            assert select.select([process.stdout], [], [], 30)[0]
            assert b"read 512" in process.stdout.readline() + process.stdout.readline()

        yield start


@pytest.mark.parametrize("fmt", ["raw", "qcow2"])
def test_a_machine_has_it_open(pool: Pool, tmp_path: Path, machine: Any, fmt: str) -> None:
    """Nothing is written, moved or copied below a running machine; deleting takes the name, as libvirt does."""
    volume = pool.create_volume(volume_document("v", 4 * MIB, fmt))
    source = tmp_path / "source"
    source.write_bytes(b"x" * 1000)
    machine(volume.path, fmt)
    before = Path(volume.path).read_bytes()
    for verb in (
        lambda: volume.upload(source),
        lambda: volume.upload(source, resize=True, offset=4 * MIB),
        lambda: volume.wipe(),
        lambda: volume.resize(8 * MIB),
        lambda: volume.resize(1 * MIB, shrink=True),
        lambda: pool.clone_volume(volume_document("copy", 0, "qcow2"), volume),
    ):
        with pytest.raises(PoolError, match=r"lock|in use"):
            verb()
        assert Path(volume.path).read_bytes() == before
    assert os.listdir(tmp_path / "p") == ["v"] and pool.jobs() == []
    volume.delete()
    assert os.listdir(tmp_path / "p") == []


@pytest.mark.skipif(os.geteuid() != 0, reason="making a file system's pool needs root")
def test_a_file_system_over_a_running_disk(pool: Pool, tmp_path: Path, machine: Any) -> None:
    judges.need("mkfs.ext4")
    disk = tmp_path / "disk.img"
    disk.write_bytes(b"precious" * MIB)
    machine(str(disk), "raw")
    fs = pool.host.define(
        f"<pool type='fs'><name>f</name><source><device path='{disk}'/><format type='ext4'/></source>"
        f"<target><path>{tmp_path}/f</path></target></pool>"
    )
    with pytest.raises(PoolError, match="lock"):
        fs.build(overwrite=True)
    assert disk.read_bytes() == b"precious" * MIB and not (tmp_path / "f").exists()


def test_a_file_system_on_what_is_no_disk(pool: Pool, tmp_path: Path) -> None:
    """mkfs would wait for a FIFO's other end."""
    judges.need("mkfs.ext4")
    os.mkfifo(tmp_path / "fifo")
    fs = pool.host.define(
        f"<pool type='fs'><name>f</name><source><device path='{tmp_path}/fifo'/><format type='ext4'/></source>"
        f"<target><path>{tmp_path}/f</path></target></pool>"
    )
    for options in ({"overwrite": True}, {"no_overwrite": True}):
        with pytest.raises(PoolError, match=r"cannot format|regular file"):
            fs.build(**options)
    assert not (tmp_path / "f").exists()


# -- links -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("verb", ["upload", "wipe", "resize", "resize of an image"])
def test_a_link_that_is_changed_at_the_last_moment(
    pool: Pool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, verb: str
) -> None:
    """It leads into the pool when it is looked at, and out of it when it is opened."""
    outside = tmp_path / "outside"
    outside.write_bytes(b"precious")
    (tmp_path / "p/in").write_bytes(b"inside")
    (tmp_path / "p/link").symlink_to("in")
    (tmp_path / "source").write_bytes(b"evil")
    if verb == "resize of an image":
        for path in (outside, tmp_path / "p/in"):
            path.unlink()
            create(path, "qcow2", size=MIB // 2)
    volume = pool.volume("link")
    precious = outside.read_bytes()
    from cowshed.pool.backend.files import FilesBackend

    real = FilesBackend._check_writable

    def check(self: Any, *args: Any) -> None:
        real(self, *args)
        (tmp_path / "p/link").unlink()
        (tmp_path / "p/link").symlink_to(outside)

    monkeypatch.setattr(FilesBackend, "_check_writable", check)
    verbs = {
        "upload": lambda: volume.upload(tmp_path / "source"),
        "wipe": lambda: volume.wipe(),
        "resize": lambda: volume.resize(1 << 20),
        "resize of an image": lambda: volume.resize(1 << 20),
    }
    with pytest.raises(StateError, match="leads out of its pool"):
        verbs[verb]()
    assert outside.read_bytes() == precious


# -- disks -----------------------------------------------------------------------------------------------------------


def disk_pool(tmp_path: Path) -> Pool:
    with open(tmp_path / "disk.img", "wb") as file:
        file.truncate(64 * MIB)
    host = Host(root=str(tmp_path / "root"))
    return host.create(
        f"<pool type='disk'><name>dk</name><source><device path='{tmp_path}/disk.img'/><format type='gpt'/></source>"
        "<target><path>/dev</path></target></pool>",
        build=True,
    )


def partition(name: str, size: int = 10 * MIB) -> str:
    return f"<volume><name>{name}</name><capacity>{size}</capacity></volume>"


@pytest.mark.parametrize("moment", ["before", "after"])
def test_a_partition_of_somebody_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, moment: str) -> None:
    """The maker of a partition dies before it is there, or after; another program makes one of the same name before
    anybody of ours comes: that one stays, what was ours goes."""
    pool = disk_pool(tmp_path)
    pid = os.fork()
    if pid == 0:
        from cowshed.pool.backend.disk import DiskBackend

        real = DiskBackend.create_volume

        def create(*args: Any, **options: Any) -> None:
            if moment == "after":
                real(*args, **options)
            os._exit(7)

        monkeypatch.setattr(DiskBackend, "create_volume", create)
        pool.create_volume(partition("disk.img1"))
        os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 7
    if moment == "before":
        from cowshed.layout.partition import read_table

        with open_image(str(tmp_path / "disk.img"), fmt="raw", writable=True) as node:
            table = read_table(node)
            table.add(20 * MIB, 5 * MIB, number=1)
            table.write(node)
    host = Host(root=str(tmp_path / "root"))
    again = host.pool("dk")
    again.refresh()
    assert [name for name, _ in again.volume_names()] == (["disk.img1"] if moment == "before" else [])
    assert (host.recovered != []) == (moment == "after") and host.jobs() == []
    if moment == "before":
        assert again.volume("disk.img1").definition.extents[0][1:] == (20 * MIB, 25 * MIB)


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting needs root")
def test_what_is_mounted_is_not_built_over(tmp_path: Path) -> None:
    """By its device, and by the file below that; nor is a partition of the file written or removed."""
    with file_system("ext4", tmp_path, 16 * MIB) as folder:
        (folder / "f").write_bytes(b"precious" * 1000)
        os.sync()
        image = tmp_path / "ext4.img"
        with open("/proc/self/mountinfo") as mounts:
            device = next(line.split(" - ")[1].split()[1] for line in mounts if line.split()[4] == str(folder))
        host = Host(root=str(tmp_path / "root"))
        documents = {
            "disk": "<pool type='disk'><name>d</name><source><device path='{}'/><format type='gpt'/></source>"
            "<target><path>/dev</path></target></pool>",
            "fs": "<pool type='fs'><name>f</name><source><device path='{}'/><format type='xfs'/></source>"
            f"<target><path>{tmp_path}/f</path></target></pool>",
            "logical": "<pool type='logical'><name>cowshedhazard</name><source><device path='{}'/></source></pool>",
        }
        for kind, source in (("disk", image), ("disk", device), ("fs", image), ("logical", device)):
            if kind != "disk" and not all(map(shutil.which, ("mkfs.xfs", "pvcreate", "vgcreate"))):
                continue
            pool = host.define(documents[kind].format(source))
            before = image.read_bytes()
            with pytest.raises(StateError, match="in use by the kernel"):
                pool.build(overwrite=True)
            if kind == "disk":
                with pytest.raises(StateError, match="in use by the kernel"):
                    pool.delete()
            assert image.read_bytes() == before
            pool.undefine()


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting needs root")
def test_a_partition_that_is_mounted(tmp_path: Path) -> None:
    mount, umount = judges.need("mount"), judges.need("umount")
    judges.need("mkfs.ext4")
    pool = disk_pool(tmp_path)
    volume = pool.create_volume(partition("disk.img1", 16 * MIB))
    with open_image(str(tmp_path / "disk.img"), fmt="raw", writable=True) as node:
        start, end = volume.definition.extents[0][1:]
        (tmp_path / "fs.img").write_bytes(bytes(end - start))
        judges.run("mkfs.ext4", "-q", tmp_path / "fs.img")
        node.write(start, (tmp_path / "fs.img").read_bytes())
    (tmp_path / "mnt").mkdir()
    options = f"loop,offset={start},sizelimit={end - start}"
    done = subprocess.run([mount, "-o", options, tmp_path / "disk.img", tmp_path / "mnt"], capture_output=True)
    if done.returncode:
        judges.absent("loop devices")
    try:
        for verb in (volume.wipe, volume.delete, lambda: volume.upload(tmp_path / "fs.img")):
            with pytest.raises(StateError, match="in use by the kernel"):
                verb()
    finally:
        subprocess.run([umount, tmp_path / "mnt"], check=True)
    released(tmp_path / "disk.img")
    volume.wipe()


# -- mounts ----------------------------------------------------------------------------------------------------------

_MOUNTS = """
import os, subprocess, sys
from pathlib import Path
folder = Path(sys.argv[1])
sys.path[:0] = [sys.argv[2]]
from cowshed.errors import PoolError
from cowshed.pool import Host
from cowshed.pool.backend import mounts
root, target = str(folder / "root"), folder / "mnt"
document = (
    f"<pool type='fs'><name>f</name><source><device path='{folder}/disk.img'/><format type='ext4'/></source>"
    f"<target><path>{target}</path></target></pool>"
)
pool = Host(root=root).define(document)
pool.build(overwrite=True)

# killed between the mount and the state file: whoever comes next takes the mount down again
pid = os.fork()
if pid == 0:
    from cowshed.pool.store import Store
    Store.save_state = lambda *args: os._exit(7)
    pool.start()
    os._exit(1)
assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 7
assert mounts.mounted(str(target)) and not pool.active
host = Host(root=root)
host.pool("f").set_autostart(False)
assert mounts.mounted(str(target)) is None
assert host.recovered == ["pool 'f' was being started when its process died: it was stopped again"], host.recovered

# what somebody else had mounted stays
pool.start()
host.store.remove_state("f")
pid = os.fork()
if pid == 0:
    Store = sys.modules["cowshed.pool.store"].Store
    Store.save_state = lambda *args: os._exit(7)
    pool.start()
    os._exit(1)
assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 7
host.pool("f").set_autostart(False)
assert mounts.mounted(str(target))
pool.start()

# unmounted behind the pool's back: nothing is put below the mount point, and what is there is not the pool's
old = pool.create_volume("<volume><name>old</name><capacity>1024</capacity></volume>")
subprocess.run(["umount", str(target)], check=True)
(target / "old").write_bytes(b"precious")
new = "<volume><name>v</name><capacity>1024</capacity></volume>"
for verb in (lambda: pool.create_volume(new), old.wipe, old.delete, lambda: old.resize(4096), pool.volumes):
    try:
        verb()
        raise SystemExit("done below the mount point")
    except PoolError as error:
        assert "nothing is mounted" in str(error), error
assert pool.state == pool.info().state == "inaccessible"
assert (target / "old").read_bytes() == b"precious" and os.listdir(target) == ["old"] and host.jobs() == []
pool.destroy()
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting needs root")
def test_mounts(tmp_path: Path) -> None:
    judges.need("mkfs.ext4")
    with open(tmp_path / "disk.img", "wb") as file:
        file.truncate(16 * MIB)
    done = subprocess.run(
        [judges.need("unshare"), "-m", sys.executable, "-c", _MOUNTS, str(tmp_path),
         str(Path(__file__).parent.parent / "src")], capture_output=True, text=True,
    )  # fmt: skip
    if "failed to setup loop device" in done.stderr:
        judges.absent("loop devices")
    assert done.returncode == 0, done.stdout + done.stderr
