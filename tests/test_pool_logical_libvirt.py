"""logical and iSCSI pools beside the real libvirtd's: definitions, errors, and an empty volume group's whole life.

The kernel of the machine may lack device-mapper; what libvirt can do without it is compared.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

import judges
from cowshed.pool.backend import logical
from iscsi_target import IQN, running
from libvirtd import Libvirtd, Ranch
from test_lvm import Lvm
from test_lvm import lvm as lvm  # the fixture


def group(number: int) -> str:
    """A name that no other run of these tests has: ours looks at all devices of the machine."""
    return f"cowshed{os.getpid():07d}vg{number}"


@pytest.fixture
def sides(lvm: Lvm, tmp_path: Path, figures: object, monkeypatch: pytest.MonkeyPatch) -> Iterator[Ranch]:
    """Each side has two of the loop devices, and a volume group name of its own."""
    for name, value in lvm.env.items():
        monkeypatch.setenv(name, value)
    with Libvirtd(tmp_path / "daemon", dict(lvm.env)) as daemon:
        (tmp_path / "both").mkdir()
        ranch = Ranch(tmp_path / "both", daemon, figures)
        for number, side in enumerate(("real", "ours")):
            ranch.words[side] |= {
                "{dev0}": lvm.devices[number * 2],
                "{dev1}": lvm.devices[number * 2 + 1],
                "{vg}": group(number),
            }
        yield ranch


def test_life_of_a_group(sides: Ranch, lvm: Lvm) -> None:
    sides.check_all(
        [
            "pool-define-as lv logical --source-dev {dev0} --source-name {vg} --target /dev/{vg}",
            "pool-dumpxml lv",
            "pool-start lv",
            "pool-build lv",
            "pool-build lv",
            "pool-start lv",
            "pool-start lv",
            "pool-info lv",
            "pool-dumpxml lv",
            "vol-list lv",
            "pool-refresh lv",
            "vol-info nothing lv",
            "pool-delete lv",
            "pool-undefine lv",
            "pool-define-as other logical --source-dev {dev0} --source-name else",
            "pool-destroy lv",
            "pool-delete lv",
            "pool-start lv",
            "pool-undefine lv",
        ]
    )
    assert lvm.report("vgs", "vg_name") == []


def test_definitions(sides: Ranch) -> None:
    for number, source in enumerate(
        (
            "<source/>",
            "<source><name>{vg}</name><format type='lvm2'/></source>",
            "<source><name>{vg}</name><format type='unknown'/></source>",
            "<source><name>{vg}</name><format type='zfs'/></source>",
            "<source><device path='{dev0}'/><device path='{dev1}'/><name>{vg}</name></source>"
            "<target><path>/x</path></target>",
        )
    ):
        sides.file(f"{number}.xml", f"<pool type='logical'><name>p{number}</name>{source}</pool>")
        sides.check("pool-define", f"{{dir}}/{number}.xml")
        sides.check("pool-dumpxml", f"p{number}")


def test_several_devices(sides: Ranch, lvm: Lvm) -> None:
    text = "<source><device path='{dev0}'/><device path='{dev1}'/><name>{vg}</name></source>"
    sides.file("p.xml", f"<pool type='logical'><name>p</name>{text}</pool>")
    judges.run("mkfs.ext4", "-q", "-F", lvm.devices[1])
    judges.run("mkfs.ext4", "-q", "-F", lvm.devices[3])
    sides.check_all(
        ["pool-define {dir}/p.xml", "pool-build p", "pool-build p --no-overwrite", "pool-start p", "pool-info p"]
    )


@pytest.mark.skipif(logical.has_mapper(), reason="this kernel has device-mapper")
def test_volumes_that_are_not_active(sides: Ranch, lvm: Lvm) -> None:
    """The figures count what inactive volumes take; we list them, which libvirt does not."""
    for number, device in enumerate(lvm.devices[::2]):
        lvm("vgcreate", group(number), device)
        lvm.lvcreate("-n", "v", "-L", "8M", group(number))
    sides.check("pool-define-as", "lv", "logical", "--source-dev", "{dev0}", "--source-name", "{vg}")
    real, ours = sides.both("pool-start", "lv")
    assert ours.code == 0
    if real.code == 0:
        sides.check("pool-info", "lv")
    assert " v " in sides.ours.run(["vol-list", "lv"]).stdout


def test_sources(sides: Ranch, lvm: Lvm) -> None:
    lvm("vgcreate", group(0), lvm.devices[0])
    real, ours = sides.both("find-storage-pool-sources", "logical")
    body = real.stdout.partition("<sources>\n")[2].partition("</sources>")[0]
    assert body.count("<source>") == 1 and real.code == ours.code == 0
    plain = ours.stdout.replace(lvm.devices[0], "{dev0}").replace(group(0), "{vg}")
    assert body in plain


def test_iscsi_direct(sides: Ranch, tmp_path: Path) -> None:
    """As libvirt's, but for the sector that it does not count and what we can do besides."""
    with running(tmp_path) as target:
        path = tmp_path / "unit"
        path.write_bytes(bytes(4 << 20))
        target.unit(1, path)
        host, _, port = target.portal.rpartition(":")
        sides.file(
            "d.xml",
            f"<pool type='iscsi-direct'><name>d</name><source><host name='{host}' port='{port}'/><device path='{IQN}'/>"
            "<initiator><iqn name='iqn.2024-01.org.cowshed:us'/></initiator></source></pool>",
        )
        sector = [("4193792", "4194304")]
        sides.check("pool-define", "{dir}/d.xml")
        if "missing backend" in sides.both("pool-start", "d")[0].stderr:
            judges.absent("libvirt's iscsi-direct backend (Debian package libvirt-daemon-driver-storage-iscsi-direct)")
        sides.check_all(
            [
                "pool-info d", "vol-list d", "vol-list d --details", "vol-path unit:0:0:1 d", "vol-key unit:0:0:1 d",
                "vol-delete unit:0:0:1 d", "vol-create-as d x 1M", "vol-info unit:0:0:1 d", "pool-refresh d",
                "vol-resize unit:0:0:1 100M d", "vol-info unit:0:0:7 d",
            ]
        )  # fmt: skip
        sides.check("vol-dumpxml", "unit:0:0:1", "d", mask=sector)
        sides.check("pool-dumpxml", "d", mask=sector)
        sides.check("pool-destroy", "d")


def test_iscsi_definitions(sides: Ranch) -> None:
    host, device = "<host name='h'/>", f"<device path='{IQN}'/>"
    initiator = "<initiator><iqn name='iqn.2024-01.org.cowshed:us'/></initiator>"
    auth = "<auth type='chap' username='u'><secret usage='s'/></auth>"
    for kind in ("iscsi", "iscsi-direct"):
        for number, source in enumerate(
            (host, device, host + device, host + device + initiator, host + device + initiator + auth)
        ):
            name = f"{kind}{number}"
            sides.file(
                "p.xml",
                f"<pool type='{kind}'><name>{name}</name><source>{source}</source>"
                "<target><path>/dev/disk/by-path</path></target></pool>",
            )
            sides.check("pool-define", "{dir}/p.xml")
            sides.check("pool-dumpxml", name)
            sides.both("pool-undefine", name)
