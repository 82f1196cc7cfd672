"""logical pools through the public API, judged by lvm2 on loop devices without device-mapper."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import judges
from cowshed.errors import (
    BuiltError,
    ConfigError,
    HostCallError,
    OperationError,
    PoolError,
    StateError,
)
from cowshed.pool import Host
from cowshed.pool.backend import logical, tools
from cowshed.pool.pool import Pool
from cowshed.wire.libvirt.definition import Device, PoolDef, PoolSource
from test_lvm import LAYOUTS, MIB, Judged, Lvm, cow_store
from test_lvm import lvm as lvm  # the fixture


@pytest.fixture
def host(tmp_path: Path, lvm: Lvm, monkeypatch: pytest.MonkeyPatch) -> Iterator[Host]:
    """A host whose lvm2 sees our loop devices alone."""
    for name, value in lvm.env.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(logical, "block_devices", lambda: list(lvm.devices))
    yield Host(root=str(tmp_path / "host"))


def definition(devices: list[str], group: str = "vg", name: str = "p") -> PoolDef:
    pool = PoolDef("logical", name)
    pool.source.name = group
    pool.source.devices = [Device(path) for path in devices]
    return pool


def volume_xml(name: str, size: int, allocation: int | None = None, backing: str = "") -> str:
    given = "" if allocation is None else f"<allocation>{allocation}</allocation>"
    below = f"<backingStore><path>{backing}</path></backingStore>" if backing else ""
    return f"<volume><name>{name}</name><capacity>{size}</capacity>{given}{below}</volume>"


def started(host: Host, lvm: Lvm, layout: str = "linear") -> Pool:
    LAYOUTS[layout](lvm)
    pool = host.define(definition(lvm.devices))
    pool.start()
    return pool


def test_defaults(host: Host) -> None:
    """As libvirt: the group is called as the pool, the volumes are in /dev/GROUP, whatever target was given."""
    pool = host.define("<pool type='logical'><name>x</name><source/><target><path>/dev/other</path></target></pool>")
    text = pool.xml()
    assert "<name>x</name>" in text.split("<source>")[1] and "<format type='lvm2'/>" in text
    assert "<path>/dev/x</path>" in text


@pytest.mark.parametrize(
    "layout", ["linear", "striped 3", "snapshots", "raid1", "mirror", "reduced", "wrapped", "zero"]
)
def test_figures(layout: str, host: Host, lvm: Lvm) -> None:
    """Capacity, free space and volumes are lvm2's own figures."""
    pool = started(host, lvm, layout)
    judged = Judged(lvm)
    row = judged.group("vg")
    info = pool.info()
    assert (info.capacity, info.available) == (int(row["vg_size"]), int(row["vg_free"]))
    assert info.allocation == info.capacity - info.available
    visible = {row["lv_name"]: row for row in judged.lvs if not row["lv_name"].startswith("[")}
    assert [name for name, _ in pool.volume_names()] == sorted(visible)
    for volume in pool.volumes():
        one = volume.definition
        assert (one.key, one.allocation, one.type) == (
            visible[one.name]["lv_uuid"], int(visible[one.name]["lv_size"]), "block",
        )  # fmt: skip
        assert one.target.path == f"/dev/vg/{one.name}"
        origin = visible[one.name]["origin"]
        assert (one.backing.path if one.backing is not None else None) == (f"/dev/vg/{origin}" if origin else None)
        if origin:
            assert one.capacity == int(visible[origin]["lv_size"]) > 0
        else:
            assert one.capacity == one.allocation


def test_extents(host: Host, lvm: Lvm) -> None:
    """Each segment's share of each device, from the first extent of its data."""
    pool = started(host, lvm, "striped extended")
    unit = 512 << 10
    d0, d1, d2, d3 = lvm.devices
    found = pool.volume("s").definition.extents
    assert sum(end - start for _, start, end in found) == 16 * unit
    assert found[:2] == [(d0, 0, 4 * unit), (d1, 0, 4 * unit)]
    assert [device for device, _, _ in found] == [d0, d1, d0, d1, d2, d3]
    assert f"<device path='{d0}'>" in pool.volume("s").xml()


def test_plain_files_without_tools(host: Host, lvm: Lvm, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Physical volumes that are files: figures, volumes and bytes; changes say what is in the way."""
    LAYOUTS["striped 2"](lvm)
    judged = Judged(lvm)
    copies = [str(shutil.copy(path, tmp_path / f"copy{number}")) for number, path in enumerate(lvm.files)]
    pool = host.define(definition(copies))
    pool.start()
    assert pool.info().capacity == int(judged.group("vg")["vg_size"])
    pool.volume("s").download(tmp_path / "out")
    assert (tmp_path / "out").read_bytes() == judged.content("vg", "s")
    data = os.urandom(MIB)
    (tmp_path / "in").write_bytes(data)
    pool.volume("s").upload(tmp_path / "in", offset=4096)
    pool.volume("s").download(tmp_path / "out")
    assert (tmp_path / "out").read_bytes()[4096 : 4096 + MIB] == data
    with pytest.raises(HostCallError, match=r"cannot change physical volumes on .*: Block device required"):
        pool.create_volume(volume_xml("new", MIB))
    with pytest.raises(HostCallError, match="Block device required"):
        pool.volume("s").delete()
    pool.destroy()
    with pytest.raises(HostCallError, match="Block device required"):
        pool.build()
    with pytest.raises(HostCallError, match="Block device required"):
        pool.delete()
    monkeypatch.setenv("PATH", "/nowhere")
    monkeypatch.setattr(tools, "SBIN", ())
    pool.start()
    for doing in (lambda: pool.create_volume(volume_xml("n", MIB)), lambda: pool.volume("s").delete()):
        with pytest.raises(HostCallError, match=r"Cannot find 'lv.*Debian package lvm2"):
            doing()
    assert [name for name, _ in pool.volume_names()] == ["a", "s"]


def test_start_errors(host: Host, lvm: Lvm) -> None:
    """libvirt's words for a group that is not there, or not where the pool says."""
    missing = host.define(definition(lvm.devices[:1], "none", "m"))
    with pytest.raises(ConfigError, match="unsupported configuration: cannot find logical volume group name 'none'"):
        missing.start()
    lvm("vgcreate", "vg", lvm.devices[1])
    other = host.define(definition(lvm.devices[3:], "vg", "o"))
    with pytest.raises(ConfigError, match="cannot find any matching source devices for logical volume group 'vg'"):
        other.start()
    anywhere = host.define(definition([], "vg", "any"))
    anywhere.start()
    assert anywhere.active
    with pytest.raises(OperationError, match="Storage source conflict with pool: 'o'"):
        host.define(definition(lvm.devices[3:], "other", "o2"))


def test_partly_named_devices(host: Host, lvm: Lvm) -> None:
    """A pool that names one device of a group that spans several is whole all the same."""
    LAYOUTS["across"](lvm)
    pool = host.define(definition(lvm.devices[1:2]))
    pool.start()
    assert pool.info().capacity == int(Judged(lvm).group("vg")["vg_size"])
    assert pool.volume("a").definition.capacity == 60 * MIB


def test_build_and_delete(host: Host, lvm: Lvm) -> None:
    """pool-build makes what lvm2 finds sound; it takes nothing that holds something; pool-delete undoes it."""
    pool = host.define(definition(lvm.devices[:2]))
    pool.build()
    assert [row["vg_name"] for row in lvm.report("vgs", "vg_name")] == ["vg"]
    lvm("vgck", "vg")
    with pytest.raises(BuiltError, match=f"Device '{lvm.devices[0]}' already formatted using 'LVM2_member'"):
        pool.build()
    other = host.define(definition(lvm.devices[2:3], "v2", "q"))
    judges.run("mkfs.ext4", "-q", "-F", lvm.devices[2])
    with pytest.raises(BuiltError, match="does not match the expected format 'LVM2_member', forced overwrite"):
        other.build()
    other.build(overwrite=True)
    assert len(lvm.report("vgs", "vg_name")) == 2
    # the second device is taken: nothing of the first stays behind
    half = host.define(definition([lvm.devices[3], lvm.devices[0]], "v3", "h"))
    with pytest.raises(PoolError, match=r"internal error: Child process \(.*pvcreate --yes .*unexpected exit status 5"):
        half.build(overwrite=True)
    assert lvm.devices[3] not in [row["pv_name"] for row in lvm.report("pvs", "pv_name")]
    pool.start()
    pool.create_volume(volume_xml("v", MIB))
    pool.destroy()
    pool.delete()
    assert [row["vg_name"] for row in lvm.report("vgs", "vg_name")] == ["v2"]
    assert [row["pv_name"] for row in lvm.report("pvs", "pv_name")] == [lvm.devices[2]]


def test_create_and_delete(host: Host, lvm: Lvm, tmp_path: Path) -> None:
    """Volumes without device-mapper: made inactive by lvcreate, cleared, filled, cloned and removed."""
    pool = started(host, lvm)
    volume = pool.create_volume(volume_xml("new", 5 * MIB + 1))
    row = next(row for row in Judged(lvm).lvs if row["lv_name"] == "new")
    assert (volume.key, volume.definition.capacity) == (row["lv_uuid"], int(row["lv_size"]))
    assert volume.definition.capacity == 11 * (512 << 10)
    volume.download(tmp_path / "out")
    assert not any((tmp_path / "out").read_bytes()[: 4 * MIB])
    data = os.urandom(5 * MIB)
    (tmp_path / "in").write_bytes(data)
    volume.upload(tmp_path / "in")
    clone = pool.clone_volume(volume_xml("copy", MIB), volume)
    clone.download(tmp_path / "out")
    assert (tmp_path / "out").read_bytes()[: len(data)] == data
    volume.wipe()
    volume.download(tmp_path / "out")
    assert not any((tmp_path / "out").read_bytes())
    lvm("vgck", "vg")
    with pytest.raises(PoolError):
        pool.create_volume(volume_xml("new", MIB))
    with pytest.raises(PoolError, match=r"internal error: Child process \(.*lvcreate .*unexpected exit status 5"):
        pool.create_volume(volume_xml("huge", 1 << 40))
    with pytest.raises(PoolError, match="changing of volume capacity"):
        volume.resize(20 * MIB)
    with pytest.raises(PoolError, match="virStorageBackendLogicalDeleteVol"):
        volume.delete(zeroed=True)
    volume.delete()
    clone.delete()
    assert "new" not in [row["lv_name"] for row in lvm.report("lvs", "lv_name")]
    assert [name for name, _ in pool.volume_names()] == ["a", "b-with.odd+name"]


@pytest.mark.parametrize("moment", ["before", "during", "after"])
@pytest.mark.parametrize("verb", ["create", "clone"])
def test_a_volume_of_somebody_else(
    host: Host, lvm: Lvm, monkeypatch: pytest.MonkeyPatch, verb: str, moment: str
) -> None:
    """The maker of a volume dies before it is there, or before it is whole, or when it is; another program makes one
    of that name before anybody of ours comes: that one stays, what was unfinished goes."""
    pool = started(host, lvm)
    origin = pool.volume("a")
    pid = os.fork()
    if pid == 0:
        real = tools.run

        def run(argv: list[str], **options: Any) -> Any:
            name = os.path.basename(argv[0])
            if (name, moment) in (("lvcreate", "before"), ("lvchange", "during")):
                os._exit(7)
            return real(argv, **options)

        monkeypatch.setattr(tools, "run", run)
        if verb == "create":
            pool.create_volume(volume_xml("new", MIB))
        else:
            pool.clone_volume(volume_xml("new", MIB), origin)
        os._exit(7)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 7
    if moment == "before":
        lvm("lvcreate", "-an", "-Zn", "-Wn", "-L1M", "-n", "new", "vg", *logical._NO_MAPPER)
    again = Host(root=host.root).pool("p")
    again.refresh()
    rows = {row["lv_name"]: row["lv_tags"] for row in lvm.report("lvs", "lv_name,lv_tags")}
    assert ("new" in rows) == (moment != "during") and not any(rows.values())
    assert (again.host.recovered != []) == (moment == "during") and again.host.jobs() == []


def test_unfinished_volumes_without_a_record(host: Host, lvm: Lvm, monkeypatch: pytest.MonkeyPatch) -> None:
    """lvcreate went on after its caller and the record were gone, or the machine was restarted: what is certainly
    nobody's goes, what may be another's stays."""
    pool = started(host, lvm)
    machine, boot, place = host.claims._where_and_when().split("-")
    for name, tag in {
        "gone": f"cowshed-{machine}-{boot}-{place}-000000000001",
        "elsewhere": f"cowshed-{machine}-{boot}-ffffffff-000000000002",
        "foreign": f"cowshed-ffffffffffff-{boot}-{place}-000000000003",
        "twin": f"cowshed-{machine}-00000000-{place}-000000000004",
        "other": "cowshed-other",
        "whole": f"cowshed-{machine}-{boot}-{place}-000000000005",
    }.items():
        lvm("lvcreate", "-an", "-Zn", "-Wn", "-L1M", "-n", name, "--addtag", tag, "vg", *logical._NO_MAPPER)
    real = host.claims.known

    def known() -> set[str]:
        lvm("lvchange", "--deltag", f"cowshed-{machine}-{boot}-{place}-000000000005", "vg/whole", *logical._NO_MAPPER)
        return real()

    monkeypatch.setattr(host.claims, "known", known)  # one is finished while we look
    pool.refresh()
    assert host.recovered == ["the unfinished volume 'gone' was removed from pool 'p'"]
    left = {"a", "b-with.odd+name", "elsewhere", "foreign", "twin", "other", "whole"}
    assert {name for name, _ in pool.volume_names()} == left


def test_an_interrupted_lvcreate(host: Host, lvm: Lvm, monkeypatch: pytest.MonkeyPatch) -> None:
    """lvm2 had made the volume when we were interrupted: it goes again; one that was there before stays."""
    pool = started(host, lvm)
    real = tools.run

    def run(argv: list[str], **options: Any) -> Any:
        done = real(argv, **options)
        if os.path.basename(argv[0]) == "lvcreate":
            raise KeyboardInterrupt
        return done

    monkeypatch.setattr(tools, "run", run)
    with pytest.raises(KeyboardInterrupt):
        pool.create_volume(volume_xml("new", MIB))
    assert [name for name, _ in pool.volume_names()] == ["a", "b-with.odd+name"] and pool.jobs() == []


def test_an_origin_is_kept_for_its_snapshots(host: Host, lvm: Lvm) -> None:
    """lvm2 would remove them along with it."""
    pool = started(host, lvm, "snapshots")
    base = pool.volume("base")
    before = [name for name, _ in pool.volume_names()]
    snapshots = [volume.name for volume in base.children()]
    assert "s1" in snapshots
    with pytest.raises(StateError, match=r"is the backing file of '.*' of pool 'p'"):
        base.delete()
    assert [name for name, _ in pool.volume_names()] == before
    base.delete(force=True)
    assert [name for name, _ in pool.volume_names()] == [name for name in before if name not in ("base", *snapshots)]


def test_another_group_of_that_name(host: Host, lvm: Lvm) -> None:
    """Deleting the pool removes the group on the devices that it names, and no other."""
    LAYOUTS["two groups"](lvm)
    pool = host.define(definition(lvm.devices[2:], "one"))
    with pytest.raises(ConfigError, match="cannot find any matching source devices"):
        pool.delete()
    assert [row["vg_name"] for row in lvm.report("vgs", "vg_name")] == ["one", "two"]


@pytest.mark.skipif(logical.has_mapper(), reason="this kernel has device-mapper")
def test_snapshots_need_device_mapper(host: Host, lvm: Lvm) -> None:
    pool = started(host, lvm)
    before = lvm.report("vgs", "vg_seqno")
    for xml in (volume_xml("s", MIB, backing="/dev/vg/a"), volume_xml("s", 8 * MIB, allocation=MIB)):
        with pytest.raises(HostCallError, match="device-mapper is not available in the kernel"):
            pool.create_volume(xml)
    assert lvm.report("vgs", "vg_seqno") == before


def test_snapshot_download(host: Host, lvm: Lvm, tmp_path: Path) -> None:
    """A snapshot's own view, through the pool; nothing may be written to it or to its origin."""
    pool = started(host, lvm, "snapshots")
    pool.volume("base").download(tmp_path / "base")
    expected = bytearray((tmp_path / "base").read_bytes())
    expected[3 * 4096 : 4 * 4096] = b"x" * 4096
    store = cow_store([(3, 2)], 4096, {2: b"x" * 4096})
    with lvm.open(writable=True) as found:
        segment = found.groups[0].volumes["s1"].segments[0]
        pv = segment.areas[0].volume
        assert pv.node is not None  # type: ignore[union-attr]
        pv.node.write(pv.pe_start + segment.areas[0].start * (512 << 10), store)  # type: ignore[union-attr]
    pool.volume("s1").download(tmp_path / "out")
    assert (tmp_path / "out").read_bytes() == expected
    for name in ("base", "s1"):
        with pytest.raises(PoolError, match="can't be written without device-mapper"):
            pool.volume(name).upload(tmp_path / "base")


def test_sources(host: Host, lvm: Lvm) -> None:
    LAYOUTS["two groups"](lvm)
    found = {source.name: source for source in host.find_sources("logical")}
    assert sorted(str(name) for name in found) == ["one", "two"]
    assert [device.path for device in found["two"].devices] == lvm.devices[2:]
    assert found["one"].format == "lvm2"
    some = PoolSource()
    some.devices = [Device(lvm.devices[2]), Device(lvm.devices[3])]
    assert [one.name for one in host.backend("logical").find_sources(some)] == ["two"]


def test_block_devices(lvm: Lvm) -> None:
    """What a scan of the machine looks at: our loop devices, among whatever else there is."""
    assert set(lvm.devices) <= set(logical.block_devices())


def test_damaged_group(host: Host, lvm: Lvm) -> None:
    pool = started(host, lvm)
    for path in lvm.files:
        with open(path, "r+b") as file:
            file.seek(4096 + 20)
            file.write(b"!")
    with pytest.raises(PoolError, match="checksum is wrong"):
        pool.volumes()


def test_tools(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Tools: where they are found, how failures, signals and slowness are told."""
    assert tools.run(["/bin/sh", "-c", "cat; echo err >&2"], input="in").out == "in"
    with pytest.raises(PoolError) as caught:
        tools.run(["/bin/sh", "-c", "echo no >&2; exit 3"])
    text = "internal error: Child process (/bin/sh -c 'echo no >&2; exit 3') unexpected exit status 3: no"
    assert str(caught.value).rstrip("\n") == text
    with pytest.raises(PoolError, match=r"unexpected fatal signal 9$"):
        tools.run(["/bin/sh", "-c", "kill -9 $$"])
    with pytest.raises(PoolError, match=r"did not end within 0.2 seconds"):
        tools.run(["/bin/sh", "-c", "sleep 60 & sleep 60"], timeout=0.2)
    with pytest.raises(HostCallError, match="cannot execute binary /nowhere/x: No such file"):
        tools.run(["/nowhere/x"])
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(tools, "SBIN", ())
    with pytest.raises(HostCallError, match=r"Cannot find 'lvcreate', 'mount' in path \(Debian package lvm2, mount\)"):
        tools.need("lvcreate", "mount")
    script = tmp_path / "lvcreate"
    script.write_text("#!/bin/sh\necho $LC_ALL\n")
    script.chmod(0o755)
    assert tools.run(["lvcreate"]).out == "C\n"


def test_states(host: Host, lvm: Lvm) -> None:
    pool = started(host, lvm)
    with pytest.raises(StateError):
        pool.start()
    assert pool.backend.check(pool.definition)
    pool.refresh()
    pool.destroy()
    pool.undefine()
    assert host.pools() == []
