"""Volumes of a dir pool: made, cloned, resized, deleted; judged by the real qemu-img; hostile names and sizes."""

from __future__ import annotations

import errno
import json
import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import judges
from cowshed.errors import (
    ArgumentError,
    CancelledError,
    ConfigError,
    CowshedError,
    HostCallError,
    MissingVolumeError,
    NoSupportError,
    OperationError,
    PoolError,
    ReadOnlyAccessError,
    StateError,
    VolumeExistsError,
)
from cowshed.ops.create import create
from cowshed.pool.host import Host
from cowshed.pool.pool import Pool
from cowshed.progress import Progress
from cowshed.wire.libvirt.definition import Permissions, VolumeDef, VolumeTarget

MIB = 1 << 20


@pytest.fixture
def pool(tmp_path: Path) -> Iterator[Pool]:
    made = make_pool(tmp_path, "p")
    yield made
    assert made.host.jobs() == []
    assert [name for name in os.listdir(tmp_path / "p") if name.startswith(".cowshed-")] == []


def make_pool(folder: Path, name: str) -> Pool:
    host = Host(root=str(folder / "root"))
    made = host.define(f"<pool type='dir'><name>{name}</name><target><path>{folder}/{name}</path></target></pool>")
    made.build()
    made.start()
    return made


def define(name: str, size: int = MIB, fmt: str | None = None, allocation: int | None = None) -> VolumeDef:
    volume = VolumeDef(name)
    volume.capacity = size
    volume.target.format = fmt
    if allocation is not None:
        volume.allocation, volume.has_allocation = allocation, True
    return volume


def info(path: str, fmt: str | None = None) -> dict[str, Any]:
    command = [judges.need("qemu-img"), "info", "--output=json", *(["-f", fmt] if fmt else []), path]
    found: dict[str, Any] = json.loads(subprocess.run(command, check=True, capture_output=True).stdout)
    return found


def judge(*argv: str) -> None:
    done = subprocess.run([judges.need("qemu-img"), *argv], capture_output=True, text=True, check=False)
    assert done.returncode == 0, (argv, done.stdout, done.stderr)


def fill(path: str, fmt: str, *writes: tuple[int, int]) -> None:
    for offset, length in writes:
        command = [judges.need("qemu-io"), "-f", fmt, "-c", f"write -P {offset % 251 + 1} {offset} {length}", path]
        subprocess.run(command, check=True, capture_output=True)


# -- creating ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [0, 1, 511, 1000001, 10 * MIB])
def test_raw(pool: Pool, size: int) -> None:
    for number, (allocation, held) in enumerate(((None, size), (0, 0), (size // 2, size // 2))):
        volume = pool.create_volume(define(f"r{number}", size, "raw", allocation))
        now = volume.definition
        assert (now.capacity, now.target.format, now.type, now.key) == (size, "raw", "file", volume.path)
        assert held <= now.allocation <= held + 4096
        assert os.stat(volume.path).st_mode & 0o777 == 0o600
        with open(volume.path, "rb") as file:
            assert not any(file.read())


def test_more_allocation_than_capacity(pool: Pool) -> None:
    assert pool.create_volume(define("big", MIB, "raw", 2 * MIB)).info().capacity == 2 * MIB


@pytest.mark.parametrize("cluster", [None, 512, 131072, 2 * MIB])
@pytest.mark.parametrize(("compat", "features"), [(None, []), ("0.10", []), ("1.1", []), (None, ["lazy_refcounts"])])
def test_qcow2(pool: Pool, compat: str | None, features: list[str], cluster: int | None) -> None:
    wanted = define("q", 10 * MIB, "qcow2")
    wanted.target.compat, wanted.target.features, wanted.target.cluster_size = compat, features, cluster
    volume = pool.create_volume(wanted)
    facts = info(volume.path)
    data = facts["format-specific"]["data"]
    assert (facts["format"], facts["virtual-size"]) == ("qcow2", 10 * MIB)
    assert data["compat"] == (compat or ("1.1" if features else "0.10"))
    assert data.get("lazy-refcounts", False) == bool(features)
    assert facts["cluster-size"] == (cluster or 65536)
    now = volume.definition
    assert now.target.compat == (None if data["compat"] == "0.10" else "1.1")
    assert (now.target.features, now.target.cluster_size) == (features, cluster or 65536)
    judge("check", "-q", volume.path)


def test_preallocated(pool: Pool) -> None:
    for allocation, held in ((0, False), (None, True)):
        volume = pool.create_volume(define(f"q{allocation}", 10 * MIB, "qcow2", allocation), prealloc_metadata=True)
        judge("check", "-q", volume.path)
        assert (volume.info().allocation >= 10 * MIB) == held
    for fmt, text in (
        ("raw", "metadata preallocation is not supported for raw volumes"),
        ("vmdk", "metadata preallocation only available with qcow2"),
    ):
        with pytest.raises(ConfigError) as caught:
            pool.create_volume(define("x", MIB, fmt), prealloc_metadata=True)
        assert str(caught.value) == f"unsupported configuration: {text}"
    wanted = define("over", MIB, "qcow2")
    wanted.backing = VolumeTarget(f"{pool.live.target}/q0", "qcow2")
    with pytest.raises(ConfigError, match="metadata preallocation conflicts with backing store"):
        pool.create_volume(wanted, prealloc_metadata=True)


def test_other_formats(pool: Pool) -> None:
    assert info(pool.create_volume(define("v.vmdk", 10 * MIB, "vmdk")).path)["format"] == "vmdk"
    iso = pool.create_volume(define("v.iso", 10 * MIB, "iso"))
    assert (iso.definition.target.format, iso.info().capacity) == ("raw", 10 * MIB)
    folder = pool.create_volume(define("d", 0, "dir"))
    assert (folder.definition.type, folder.info().capacity, folder.info().allocation) == ("dir", 0, 0)
    for fmt in ("nosuch", "none", "luks", "parallels"):
        with pytest.raises(ConfigError) as caught:
            pool.create_volume(define("x", MIB, fmt))
        assert str(caught.value) == f"unsupported configuration: unknown volume format type {fmt}"
    for fmt in ("vdi", "vpc", "qed", "qcow", "bochs", "ploop"):
        with pytest.raises(ConfigError, match=f"creating volumes of format '{fmt}' is not supported"):
            pool.create_volume(define("x", MIB, fmt))
    assert len(pool.volume_names()) == 3


def test_backing(pool: Pool) -> None:
    base = pool.create_volume(define("base", 10 * MIB, "qcow2"))
    fill(base.path, "qcow2", (0, 65536), (5 * MIB, 4096))
    wanted = define("top", 0, "qcow2")
    wanted.backing = VolumeTarget(base.path, "qcow2")
    top = pool.create_volume(wanted)
    judge("compare", base.path, top.path)
    assert top.info().capacity == 10 * MIB
    now = top.definition
    assert now.backing is not None
    assert (now.backing.path, now.backing.format) == (base.path, "qcow2")
    assert now.backing.permissions == base.definition.target.permissions
    assert [volume.name for volume in base.children()] == ["top"]

    wanted = define("relative", 12 * MIB, "qcow2")
    wanted.backing = VolumeTarget("base", "qcow2")
    relative = pool.create_volume(wanted)
    assert info(relative.path)["backing-filename"] == "base"
    assert relative.definition.backing is not None
    assert relative.definition.backing.path == base.path

    with pytest.raises(StateError, match="is the backing file of 'relative' of pool 'p', 'top' of pool 'p'"):
        base.delete()
    wanted = define("x", MIB, "qcow2")
    wanted.backing = VolumeTarget("/nowhere/x", "raw")
    with pytest.raises(HostCallError) as caught:
        pool.create_volume(wanted)
    assert str(caught.value) == "inaccessible backing store volume /nowhere/x: No such file or directory"
    wanted.target.format = "raw"
    with pytest.raises(NoSupportError, match="backing storage not supported for raw volumes"):
        pool.create_volume(wanted)
    base.delete(force=True)
    assert [name for name, _ in pool.volume_names()] == ["relative", "top"]


def test_overlays_in_another_pool_count(pool: Pool, tmp_path: Path) -> None:
    base = pool.create_volume(define("base", MIB, "qcow2"))
    other = make_pool(tmp_path, "other")
    wanted = define("top", MIB, "qcow2")
    wanted.backing = VolumeTarget(base.path, "qcow2")
    other.create_volume(wanted)
    with pytest.raises(StateError, match="'top' of pool 'other'"):
        base.delete()
    other.destroy()
    # its directory is there, and its volumes are wanted when it is started again
    with pytest.raises(StateError, match="'top' of pool 'other'"):
        base.delete()
    other.undefine()
    base.delete()


@pytest.mark.parametrize(
    "name", ["file:{}", 'json:{{"driver": "qcow2", "file": {{"driver": "file", "filename": "{}"}}}}', "file:base"]
)
def test_overlays_that_name_it_otherwise_count(pool: Pool, name: str) -> None:
    base = pool.create_volume(define("base", MIB, "qcow2"))
    folder = Path(base.path).parent
    create(folder / "top", "qcow2", size=MIB, backing=name.format(base.path), backing_fmt="qcow2", unsafe=True)
    with pytest.raises(StateError, match="'top' of pool 'p'"):
        base.delete()
    pool.volume("top").delete()
    base.delete()


@pytest.mark.parametrize("name", ["{}/data", "data"])
def test_the_file_of_an_images_data_is_kept(pool: Pool, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    folder = Path(pool.live.target or "")
    monkeypatch.chdir(folder)
    create(folder / "disk", "qcow2", {"data_file": name.format(folder)}, size=MIB)
    for _ in range(2):  # from the file, and from what is known of it
        with pytest.raises(StateError, match="volume 'data' is the backing file of 'disk' of pool 'p'"):
            pool.volume("data").delete()
        assert pool.volumes()
    pool.volume("disk").delete()
    pool.volume("data").delete()


def test_permissions(pool: Pool) -> None:
    wanted = define("v", MIB, "qcow2")
    mine = os.geteuid()
    owner = 1234 if mine == 0 else mine
    wanted.target.permissions = Permissions(0o644, owner, os.getegid())
    status = os.stat(pool.create_volume(wanted).path)
    assert (status.st_mode & 0o777, status.st_uid, status.st_gid) == (0o644, owner, os.getegid())
    wanted.name, wanted.target.permissions = "w", Permissions(None, 1 << 33, -1)
    with pytest.raises(HostCallError, match="unable to set owner"):
        pool.create_volume(wanted)
    assert [name for name, _ in pool.volume_names()] == ["v"]


def test_names(pool: Pool) -> None:
    path = f"{pool.live.target}"
    for name, text in (
        ("a/b", "volume name 'a/b' cannot contain '/'"), ("", "volume name cannot be empty"),
        (".", f"volume target path '{path}/.' already exists"),
        ("..", f"volume target path '{path}/..' already exists"),
        ("/etc/passwd", "volume name '/etc/passwd' cannot contain '/'"),
        ("a\0b", "cannot contain control characters"), ("a\nb", "cannot contain control characters"),
        ("\x1b[2J", "cannot contain control characters"), ("\udcff", "is not valid UTF-8"),
        ("x" * 256, "File name too long"),
        ("\N{SNOWMAN}" * 86, "File name too long"), (".cowshed-1-2-3-4.part", "is reserved"),
    ):  # fmt: skip
        for fmt in ("raw", "qcow2", "dir"):
            with pytest.raises(PoolError) as caught:
                pool.create_volume(define(name, MIB, fmt))
            assert text in str(caught.value)
            assert str(caught.value).isprintable()
    for name in ("-rf", " ", "a b", "\N{SNOWMAN}", "x" * 255, "<&>\"'", "%s", "a:b", "json:{}", ".hidden"):
        for fmt in ("raw", "qcow2"):
            volume = pool.create_volume(define(name, MIB, fmt))
            assert pool.volume_names() == [(name, f"{path}/{name}")]
            assert volume.definition.target.format == fmt
            volume.resize(2 * MIB)
            copy = pool.clone_volume(define("copy", 0, "qcow2"), volume)
            assert copy.info().capacity == 2 * MIB
            copy.delete()
            volume.delete()
    assert pool.volume_names() == []


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(name=st.text(max_size=300))
def test_any_name_is_made_or_refused(pool: Pool, name: str) -> None:
    try:
        volume = pool.create_volume(define(name, 0, "raw"))
    except PoolError as error:
        assert str(error).isprintable()
        assert pool.volume_names() == []
        return
    assert [found for found, _ in pool.volume_names()] == [name]
    volume.delete()


@pytest.mark.parametrize("size", [1 << 62, (1 << 63) - 1, 1 << 63, (1 << 64) - 1, 1 << 64, 1 << 80, -1])
@pytest.mark.parametrize("fmt", ["raw", "qcow2", "vmdk"])
def test_sizes_that_overflow(pool: Pool, fmt: str, size: int) -> None:
    with pytest.raises(PoolError) as caught:
        pool.create_volume(define("v", size, fmt, 0))
    assert ".cowshed-" not in str(caught.value)
    if fmt == "raw" and 0 <= size < 1 << 64:
        assert str(caught.value) == f"cannot extend file '{pool.live.target}/v': File too large"
    assert pool.volume_names() == []


def test_refusals(pool: Pool, tmp_path: Path) -> None:
    pool.create_volume(define("v"))
    with pytest.raises(VolumeExistsError, match=r"^storage volume 'v' exists already$"):
        pool.create_volume(define("v"))
    with pytest.raises(PoolError, match=r"^internal error: storage volume name 'v' already in use\.$"):
        pool.clone_volume(define("v"), pool.volume("v"))
    wanted = define("e")
    from cowshed.wire.libvirt.definition import Encryption

    wanted.target.encryption = Encryption("luks")
    with pytest.raises(ConfigError, match="creating encrypted volumes is not supported"):
        pool.create_volume(wanted)
    wanted = define("f", MIB, "qcow2")
    wanted.target.compat, wanted.target.features = "0.10", ["lazy_refcounts"]
    with pytest.raises(ConfigError, match=r"lazy_refcounts not supported with compat level 0\.10"):
        pool.create_volume(wanted)
    wanted = define("g", MIB, "qcow2")
    wanted.target.cluster_size = 1000
    with pytest.raises(PoolError, match="Cluster size must be a power of two between 512 and 2048k"):
        pool.create_volume(wanted)
    reader = Host(root=str(tmp_path / "root"), readonly=True).pool("p")
    for verb in (
        lambda: reader.create_volume(define("x")), lambda: reader.volume("v").delete(),
        lambda: reader.volume("v").resize(2 * MIB), lambda: reader.volume("v").wipe(),
        lambda: reader.volume("v").upload("/dev/null"), lambda: reader.clone_volume(define("x"), reader.volume("v")),
    ):  # fmt: skip
        with pytest.raises(ReadOnlyAccessError):
            verb()
    assert reader.volume("v").info().capacity == MIB
    pool.destroy()
    with pytest.raises(StateError, match="storage pool 'p' is not active"):
        pool.create_volume(define("x"))


def test_never_stale(pool: Pool) -> None:
    volume = pool.create_volume(define("v", MIB, "raw", 0))
    assert volume.info().capacity == MIB
    listed = pool.volume("v")
    with open(volume.path, "r+b") as file:
        file.truncate(3 * MIB)
        file.write(b"x")
    assert (listed.info().capacity, listed.info().allocation > 0) == (3 * MIB, True)
    os.unlink(volume.path)
    with pytest.raises(MissingVolumeError):
        volume.info()
    with pytest.raises(MissingVolumeError):
        volume.delete()


# -- cloning -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("target", ["raw", "qcow2", "vmdk"])
@pytest.mark.parametrize("source", ["raw", "qcow2", "vmdk"])
def test_clone(pool: Pool, tmp_path: Path, source: str, target: str) -> None:
    size = 9 * MIB + 512
    origin = pool.create_volume(define("origin", size, source, 0))
    fill(origin.path, source, (0, 512), (MIB, 3 * MIB), (8 * MIB, MIB + 512))
    other = make_pool(tmp_path, "other")
    seen: list[float] = []
    for home, more in ((pool, 0), (other, 0), (pool, 2 * MIB)):
        wanted = define(f"copy{more}", size + more if more else 1, target, 0)
        copy = home.clone_volume(wanted, origin, progress=Progress(listener=lambda work: seen.append(work.fraction)))
        assert (copy.info().capacity, copy.definition.target.format) == (size + more, target)
        judge("compare", "-f", source, "-F", target, origin.path, copy.path)
        if target == "qcow2":
            judge("check", "-q", copy.path)
        if target == "raw":
            assert copy.info().allocation < 6 * MIB
    assert seen == sorted(seen) or len(set(seen)) > 1
    assert seen[-1] == 1.0


def test_clone_of_an_overlay_stands_by_itself(pool: Pool) -> None:
    base = pool.create_volume(define("base", 4 * MIB, "qcow2"))
    fill(base.path, "qcow2", (0, MIB))
    wanted = define("top", 4 * MIB, "qcow2")
    wanted.backing = VolumeTarget(base.path, "qcow2")
    top = pool.create_volume(wanted)
    fill(top.path, "qcow2", (2 * MIB, MIB))
    again = define("copy", 0, "qcow2")
    again.backing = VolumeTarget(base.path, "qcow2")
    copy = pool.clone_volume(again, top)
    assert copy.definition.backing is None
    judge("compare", top.path, copy.path)
    again.name = "other"
    again.backing = VolumeTarget("/elsewhere", "qcow2")
    with pytest.raises(PoolError, match=r"a different backing store cannot be specified\."):
        pool.clone_volume(again, top)


def test_clone_of_strange_origins(pool: Pool, tmp_path: Path) -> None:
    folder = pool.create_volume(define("d", 0, "dir"))
    with pytest.raises(NoSupportError, match="does not support volume creation from an existing volume"):
        pool.clone_volume(define("x"), folder)
    judge("create", "-q", "-f", "vdi", str(tmp_path / "p" / "v.vdi"), "1M")
    with pytest.raises(PoolError):
        pool.clone_volume(define("x"), pool.volume("v.vdi"))
    (tmp_path / "p" / "bad.qcow2").write_bytes(b"QFI\xfb\0\0\0\3" + bytes(2000))
    with pytest.raises(PoolError):
        pool.clone_volume(define("x", MIB, "qcow2"), pool.volume("bad.qcow2"))
    assert {name for name, _ in pool.volume_names()} == {"d", "v.vdi", "bad.qcow2"}


def test_reflink(pool: Pool) -> None:
    origin = pool.create_volume(define("origin", MIB, "qcow2"))
    with pytest.raises(ArgumentError) as caught:
        pool.clone_volume(define("x", 0, "qcow2"), origin, reflink=True)
    assert str(caught.value) == "unsupported flags (0x2) in function storageBackendCreateQemuImg"
    raw = pool.create_volume(define("raw", MIB, "raw"))
    try:
        pool.clone_volume(define("shared", 0, "raw"), raw, reflink=True)
    except HostCallError as error:
        assert str(error) == f"failed to clone files from '{raw.path}': Operation not supported"
        assert {name for name, _ in pool.volume_names()} == {"origin", "raw"}


def test_cancel(pool: Pool) -> None:
    origin = pool.create_volume(define("origin", 64 * MIB, "raw", 0))
    with open(origin.path, "r+b") as file:
        for _ in range(64):
            file.write(os.urandom(MIB))

    def listener(work: Progress) -> None:
        if work.done > 4 * MIB:
            raise CancelledError("canceled by client")

    for fmt in ("raw", "qcow2"):
        with pytest.raises(CancelledError):
            pool.clone_volume(define("copy", 0, fmt, 0), origin, progress=Progress(listener=listener))
    assert [name for name, _ in pool.volume_names()] == ["origin"]


def test_claims(pool: Pool) -> None:
    origin = pool.create_volume(define("origin", 4 * MIB))
    seen: list[str] = []

    def listener(work: Progress) -> None:
        if seen:
            return
        seen.append("")
        assert [job.kind for job in pool.jobs()] == ["clone"]
        assert [name for name, _ in pool.volume_names()] == ["origin"], "what is being made is not listed"
        for verb in (origin.delete, lambda: origin.resize(8 * MIB), origin.wipe, lambda: origin.upload("/dev/null")):
            with pytest.raises(StateError, match=r"volume 'origin' is still in use\."):
                verb()
        with pytest.raises(StateError, match=r"volume 'copy' is still being allocated\."):
            pool.create_volume(define("copy"))
        with pytest.raises(PoolError, match=r"pool 'p' has asynchronous jobs running\."):
            pool.destroy()
        origin.download(os.devnull)

    pool.clone_volume(define("copy", 0, "qcow2"), origin, progress=Progress(listener=listener))
    assert seen
    pool.volume("copy").delete()


# -- resizing and deleting ---------------------------------------------------------------------------------------------


def test_resize_raw(pool: Pool) -> None:
    volume = pool.create_volume(define("v", 8 * MIB, "raw", 0))
    volume.resize(9000001)
    assert volume.info().capacity == 9000001
    volume.resize(MIB, delta=True)
    volume.resize(MIB, delta=True, shrink=True)
    assert volume.info().capacity == 9000001
    with pytest.raises(ArgumentError) as caught:
        volume.resize(3 * MIB)
    assert str(caught.value) == (
        "invalid argument: Can't shrink capacity below current capacity unless shrink flag explicitly specified"
    )
    volume.resize(3 * MIB, shrink=True)
    volume.resize(4 * MIB, allocate=True)
    assert (volume.info().capacity, volume.info().allocation) == (4 * MIB, 4 * MIB)
    with pytest.raises(ArgumentError) as caught:
        volume.resize(MIB, shrink=True)
    assert str(caught.value) == "invalid argument: can't shrink capacity below existing allocation"
    with pytest.raises(HostCallError) as failed:
        volume.resize(900 << 40)
    assert str(failed.value) == f"Failed to truncate file '{volume.path}': File too large"
    with pytest.raises(OperationError, match="Not enough space left in storage pool"):
        volume.resize(900 << 40, allocate=True)
    with pytest.raises(ArgumentError, match=r"^capacity in virStorageVolResize cannot be zero without"):
        volume.resize(0)
    for size in (1 << 63, 1 << 64, 1 << 100, -5):
        with pytest.raises(ArgumentError):
            volume.resize(size)
    assert volume.info().capacity == 4 * MIB


def test_resize_images(pool: Pool) -> None:
    volume = pool.create_volume(define("v", 8 * MIB, "qcow2", 0))
    fill(volume.path, "qcow2", (0, 65536))
    for size, shrink, result in ((16 * MIB, False, 16 * MIB), (9000001, True, 9000448), (20 << 30, False, 20 << 30)):
        volume.resize(size, shrink=shrink)
        assert info(volume.path)["virtual-size"] == volume.info().capacity == result
        judge("check", "-q", volume.path)
    with pytest.raises(PoolError, match="Operation not supported: preallocate is only supported for raw type volume"):
        volume.resize(21 << 30, allocate=True)
    vmdk = pool.create_volume(define("v.vmdk", 8 * MIB, "vmdk"))
    with pytest.raises(PoolError, match="Image format driver does not support resize"):
        vmdk.resize(16 * MIB)


def test_delete(pool: Pool, tmp_path: Path) -> None:
    volume = pool.create_volume(define("v"))
    with pytest.raises(ArgumentError) as caught:
        volume.delete(delete_snapshots=True)
    assert str(caught.value) == "unsupported flags (0x2) in function virStorageBackendVolDeleteLocal"
    twin = tmp_path / "twin"
    with open(volume.path, "r+b") as file:
        file.write(b"secret" * 1000)
    os.link(volume.path, twin)
    volume.delete(zeroed=True)
    assert twin.stat().st_size == MIB
    assert not any(twin.read_bytes())
    folder = pool.create_volume(define("d", 0, "dir"))
    Path(folder.path, "x").touch()
    with pytest.raises(HostCallError) as failed:
        folder.delete()
    assert str(failed.value) == f"cannot remove directory '{folder.path}': Directory not empty"
    Path(folder.path, "x").unlink()
    folder.delete()
    assert pool.volume_names() == []


# -- what goes wrong ---------------------------------------------------------------------------------------------------


def test_name_taken_meanwhile(pool: Pool) -> None:
    """Somebody who knows nothing of us makes a file of that name while the volume is made: it stays as it is."""
    origin = pool.create_volume(define("origin", MIB))
    path = Path(f"{pool.live.target}/copy")

    def listener(work: Progress) -> None:
        if not path.exists():
            path.write_bytes(b"mine")

    with pytest.raises(StateError, match="already exists"):
        pool.clone_volume(define("copy", 0, "qcow2"), origin, progress=Progress(listener=listener))
    assert path.read_bytes() == b"mine"


@pytest.mark.parametrize("fmt", ["raw", "qcow2", "vmdk"])
def test_no_space(pool: Pool, fmt: str) -> None:
    """A file that can't grow any more: what was begun is gone."""
    origin = pool.create_volume(define("origin", 8 * MIB, "qcow2"))
    fill(origin.path, "qcow2", (0, 8 * MIB))
    old = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4 * MIB, old[1]))
    try:
        with pytest.raises(CowshedError) as caught:
            pool.clone_volume(define("copy", 0, fmt, 0), origin)
        assert caught.value.errno == errno.EFBIG
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, old)
        signal.signal(signal.SIGXFSZ, handler)
    assert [name for name, _ in pool.volume_names()] == ["origin"]


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting needs root")
def test_full_disk(tmp_path: Path) -> None:
    """The file system is full: nothing is left, and the error says so."""
    code = """
import os, subprocess, sys
subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8M", "none", sys.argv[1]], check=True)
from cowshed.pool.host import Host
from cowshed.errors import CowshedError
from cowshed.wire.libvirt.definition import VolumeDef
host = Host(root=sys.argv[2])
pool = host.define(f"<pool type='dir'><name>p</name><target><path>{sys.argv[1]}</path></target></pool>")
pool.start()
def define(name, fmt, size, allocation=None):
    volume = VolumeDef(name); volume.capacity = size; volume.target.format = fmt
    if allocation is not None:
        volume.allocation, volume.has_allocation = allocation, True
    return volume
source = pool.create_volume(define("source", "raw", 5 << 20))
with open(source.path, "r+b") as file:
    file.write(os.urandom(5 << 20))
for fmt in ("raw", "qcow2", "vmdk"):
    try:
        pool.clone_volume(define("copy", fmt, 0, 0), source)
        raise SystemExit("there was room")
    except CowshedError as error:
        assert error.errno == 28, repr(error)
        assert ".cowshed-" not in str(error), error
    assert os.listdir(sys.argv[1]) == ["source"], os.listdir(sys.argv[1])
for fmt in ("raw", "qcow2"):
    try:
        pool.create_volume(define("big", fmt, 20 << 20), prealloc_metadata=fmt == "qcow2")
        raise SystemExit("there was room")
    except CowshedError as error:
        assert error.errno == 28, repr(error)
    assert os.listdir(sys.argv[1]) == ["source"]
assert host.jobs() == []
"""
    target = tmp_path / "full"
    target.mkdir()
    command = ["unshare", "-m", sys.executable, "-c", code, str(target), str(tmp_path / "root")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("verb", ["create", "clone"])
def test_killed(pool: Pool, tmp_path: Path, verb: str, figures: Any) -> None:
    """kill -9 while it is made: not listed, and swept up by whoever comes next."""
    origin = pool.create_volume(define("origin", 48 * MIB, "raw", 0))
    with open(origin.path, "r+b") as file:
        for _ in range(48):
            file.write(os.urandom(MIB))
    code = """
import sys
from cowshed.pool.host import Host
pool = Host(root=sys.argv[1]).pool("p")
document = "<volume><name>v</name><capacity unit='M'>64</capacity><target><format type='qcow2'/></target></volume>"
print("go", flush=True)
while True:
    if sys.argv[2] == "clone":
        pool.clone_volume(document, pool.volume("origin"))
    else:
        pool.create_volume(document, prealloc_metadata=True)
    pool.volume("v").delete()
"""
    for attempt in range(8):
        child = subprocess.Popen(
            [sys.executable, "-c", code, str(tmp_path / "root"), verb], stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        assert child.stdout is not None and child.stderr is not None
        assert child.stdout.readline() == b"go\n", child.stderr.read()
        time.sleep(0.01 + attempt * 0.013)
        child.kill()
        child.communicate()
        for name, path in pool.volume_names():
            if name != "origin":
                judge("check", "-q", path)
        pool.refresh()
        names = {name for name, _ in pool.volume_names()}
        assert set(os.listdir(tmp_path / "p")) == names
        assert pool.jobs() == []
        if "v" in names:
            pool.volume("v").delete()
        figures.add("pool volume: makers killed")
