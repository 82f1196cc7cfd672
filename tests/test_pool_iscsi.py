"""iscsi-direct pools against tgtd; iscsi pools with an iscsiadm that only says what it was asked."""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

import judges
from cowshed.block.graph import open_image
from cowshed.errors import ArgumentError, ConfigError, DefinitionError, HostCallError, MissingSecretError, PoolError
from cowshed.pool import Host
from cowshed.pool.backend import iscsi, tools
from cowshed.wire.libvirt.definition import PoolSource
from iscsi_target import IQN, Target, free_port, running
from loops import loop_device

MIB = 1 << 20
INITIATOR = "iqn.2024-01.org.cowshed:us"


@pytest.fixture
def host(tmp_path: Path) -> Host:
    return Host(root=str(tmp_path / "host"))


@pytest.fixture
def target(tmp_path: Path) -> Iterator[Target]:
    with running(tmp_path) as found:
        yield found


def auth_xml(user: str, secret: str) -> str:
    return f"<auth type='chap' username='{user}'><secret {secret}/></auth>" if user else ""


def direct_xml(
    portal: str, name: str = "d", device: str = IQN, user: str = "", secret: str = "", initiator: str = INITIATOR
) -> str:
    address, _, port = portal.rpartition(":")
    return f"""<pool type='iscsi-direct'><name>{name}</name><source>
        <host name='{address}' port='{port}'/><device path='{device}'/>{auth_xml(user, secret)}
        <initiator><iqn name='{initiator}'/></initiator></source></pool>"""


def kernel_xml(folder: Path, user: str = "", secret: str = "", initiator: str = "") -> str:
    iqn = f"<initiator><iqn name='{initiator}'/></initiator>" if initiator else ""
    return f"""<pool type='iscsi'><name>k</name><source><host name='192.0.2.7'/><device path='{IQN}'/>
        {auth_xml(user, secret)}{iqn}</source><target><path>{folder}</path></target></pool>"""


def secret(host: Host, usage: str, value: bytes) -> str:
    one = host.secrets.define(f"<secret private='yes'><usage type='iscsi'><target>{usage}</target></usage></secret>")
    one.set_value(value)
    return one.uuid


# -- iscsi-direct -----------------------------------------------------------------------------------------------------


def test_units(host: Host, target: Target, tmp_path: Path) -> None:
    """Names, keys and paths as libvirt has them; capacities exact; bytes through upload, download and wipe."""
    path = tmp_path / "d"
    path.write_bytes(os.urandom(6 * MIB))
    target.unit(1, path)
    target.unit(12, path)
    pool = host.create(direct_xml(target.portal))
    key = f"ip-{target.portal}-iscsi-{IQN}-lun-"
    assert pool.volume_names() == [("unit:0:0:0", key + "0"), ("unit:0:0:1", key + "1"), ("unit:0:0:12", key + "12")]
    assert [(v.name, v.definition.capacity) for v in pool.volumes()] == [
        ("unit:0:0:0", 0), ("unit:0:0:1", 6 * MIB), ("unit:0:0:12", 6 * MIB),
    ]  # fmt: skip
    info = pool.info()
    assert (info.capacity, info.allocation, info.available) == (12 * MIB, 12 * MIB, 0)
    volume = pool.volume("unit:0:0:1")
    assert (volume.key, volume.path, volume.type) == (key + "1", key + "1", "network")
    text = volume.xml()
    assert "<volume type='network'>" in text and "<format" not in text and f"{6 * MIB}</capacity>" in text
    assert host.volume_by_key(key + "12").name == "unit:0:0:12"
    volume.download(tmp_path / "out")
    assert (tmp_path / "out").read_bytes() == path.read_bytes()
    data = os.urandom(MIB + 77)
    (tmp_path / "in").write_bytes(data)
    volume.upload(tmp_path / "in", offset=1000)
    assert path.read_bytes()[1000 : 1000 + len(data)] == data
    volume.download(tmp_path / "out", offset=1001, length=5000)
    assert (tmp_path / "out").read_bytes()[:5000] == data[1:5001]
    volume.wipe()
    assert not any(path.read_bytes())
    for doing, text in (
        (lambda: pool.create_volume("<volume><name>x</name><capacity>1</capacity></volume>"), "volume creation"),
        (lambda: volume.resize(9 * MIB), "changing of volume capacity"),
        (lambda: volume.delete(), "does not support vol deletion"),
        (lambda: pool.volume("unit:0:0:99"), "unit:0:0:99"),
        (lambda: pool.volume("other"), "other"),
        (lambda: pool.volume("unit:0:0:0").download(tmp_path / "x"), "not a disk"),
    ):
        with pytest.raises(PoolError, match=text):
            doing()  # type: ignore[no-untyped-call]
    pool.destroy()


def test_chap(host: Host, target: Target, tmp_path: Path) -> None:
    """Credentials come from the host's secrets, by usage and by uuid; wrong ones and none are refused."""
    path = tmp_path / "d"
    path.write_bytes(bytes(MIB))
    target.unit(1, path)
    target.account("bob", "open-sesame-12345")
    good = secret(host, "good", b"open-sesame-12345")
    secret(host, "bad", b"open-sesame-54321")
    for chosen in ("usage='good'", f"uuid='{good}'"):
        pool = host.create(direct_xml(target.portal, user="bob", secret=chosen))
        assert len(pool.volumes()) == 2
        pool.volume("unit:0:0:1").upload(path)
        pool.destroy()
    for user, chosen in (("bob", "usage='bad'"), ("eve", "usage='good'"), ("", "")):
        with pytest.raises(PoolError, match="internal error: Failed to login"):
            host.create(direct_xml(target.portal, user=user, secret=chosen))
    with pytest.raises(MissingSecretError, match="no secret with matching usage 'none'"):
        host.create(direct_xml(target.portal, user="bob", secret="usage='none'"))
    assert host.pools() == []


def test_direct_sources(host: Host, target: Target) -> None:
    target.target(2, "iqn.2024-01.org.cowshed:second")
    name, _, port = target.portal.rpartition(":")
    spec = f"<source><host name='{name}' port='{port}'/><initiator><iqn name='{INITIATOR}'/></initiator></source>"
    found = host.find_sources("iscsi-direct", spec)
    assert sorted(one.devices[0].path for one in found) == [IQN, "iqn.2024-01.org.cowshed:second"]
    assert {(one.hosts[0], one.initiator_iqn) for one in found} == {((name, int(port)), INITIATOR)}
    with pytest.raises(ArgumentError, match="hostname must be specified for iscsi sources"):
        host.find_sources("iscsi-direct", None)
    with pytest.raises(PoolError, match="missing initiator IQN"):
        host.find_sources("iscsi-direct", f"<source><host name='{name}' port='{port}'/></source>")


def test_direct_definitions(host: Host) -> None:
    def pool(inside: str) -> str:
        return f"<pool type='iscsi-direct'><name>x</name><source>{inside}</source></pool>"

    place, device = "<host name='h'/>", f"<device path='{IQN}'/>"
    for inside, text in (
        (device + "<initiator><iqn name='i'/></initiator>", "missing storage pool source host name"),
        (place + device, "missing initiator IQN"),
    ):
        with pytest.raises(PoolError, match=text):
            host.define(pool(inside))


def test_direct_unreachable(host: Host) -> None:
    with free_port() as port:
        portal = f"127.0.0.1:{port}"
        pool = host.define(direct_xml(portal))
        with pytest.raises(PoolError, match=f"internal error: Failed to connect to {portal}: Connection refused"):
            pool.start()
        assert not pool.active
        assert not pool.backend.check(pool.definition)


# -- iscsi by the kernel ----------------------------------------------------------------------------------------------


class Fake:
    """An iscsiadm that notes its arguments and keeps the session and interfaces that it was told to have; and the
    kernel's view of two units."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.log = folder / "log"
        self.log.touch()
        self.sys = folder / "sys"
        self.links = folder / "by-path"
        self.links.mkdir()
        (self.sys / "class/iscsi_transport").mkdir(parents=True)
        base = self.sys / "class/iscsi_session/session5/device/target3:0:0"
        for lun, kind, device in (
            (0, "12", ""),
            (1, "0", "cowshedfake1"),
            (10, "0", "cowshedfake2"),
            (2, "0", "cowshedfake3"),
        ):
            unit = base / f"3:0:0:{lun}"
            unit.mkdir(parents=True)
            (unit / "type").write_text(kind + "\n")
            if device:
                (unit / "block" / device).mkdir(parents=True)
                (self.sys / "class/block" / device).mkdir(parents=True)
                (self.sys / "class/block" / device / "size").write_text(f"{2048 * (lun + 1)}\n")
                if lun != 2:
                    (self.links / f"ip-x-lun-{lun}").symlink_to(f"/dev/{device}")
        script = folder / "iscsiadm"
        script.write_text(f"""#!/bin/sh
printf '%s\\n' "$*" >> {self.log}
case "$*" in
*--login*) [ -e {folder}/refuse ] && {{ echo refused >&2; exit 8; }}; touch {folder}/session ;;
*--logout*) rm {folder}/session ;;
"--mode session") [ -e {folder}/session ] || {{ echo "iscsiadm: No active sessions." >&2; exit 21; }}
  echo "tcp: [4] 192.0.2.9:3260,1 {IQN}:other (non-flash)"; echo "tcp: [5] 192.0.2.7:3260,1 {IQN} (non-flash)" ;;
"--mode iface") echo "default tcp,<empty>,<empty>,<empty>,<empty>"
  [ -e {folder}/iface ] && echo "$(cat {folder}/iface) tcp,<empty>,<empty>,<empty>,{INITIATOR}" ;;
*"--op update --name iface.initiatorname"*) echo "$4" > {folder}/iface ;;
*sendtargets*) echo "192.0.2.7:3260,1 {IQN}"; echo "[fe80::1]:3260,1 {IQN}"; echo "192.0.2.7:3260,1 {IQN}:b" ;;
*"--mode session -r 5 -R"*) [ -e {folder}/fail ] && exit 1 ;;
*"--op update"*) [ -e {folder}/refuse-update ] && exit 7 ;;
esac
exit 0
""")
        script.chmod(0o755)

    def calls(self) -> list[str]:
        found = self.log.read_text().splitlines()
        self.log.write_text("")
        return found


@pytest.fixture
def fake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Fake:
    (tmp_path / "fake").mkdir()
    one = Fake(tmp_path / "fake")
    monkeypatch.setenv("PATH", f"{one.folder}:{os.environ['PATH']}")
    monkeypatch.setattr(iscsi, "SYSFS", str(one.sys))
    monkeypatch.setattr(iscsi, "SETTLE", 0.2)
    return one


def test_kernel_session(host: Host, fake: Fake) -> None:
    """Log in, find the units that have a name in the target directory, log out: libvirt's own command lines."""
    pool = host.define(kernel_xml(fake.links))
    pool.start()
    node = f"--mode node --portal 192.0.2.7:3260,1 --targetname {IQN}"
    calls = fake.calls()
    assert [call for call in calls if call != "--mode session"] == [
        f"{node} --op new", f"{node} --login", "--mode session -r 5 -R",
    ]  # fmt: skip
    assert pool.volume_names() == [
        ("unit:0:0:1", str(fake.links / "ip-x-lun-1")), ("unit:0:0:10", str(fake.links / "ip-x-lun-10")),
    ]  # fmt: skip
    assert pool.info().capacity == (2 + 11) * MIB
    volume = pool.volume("unit:0:0:10")
    one = volume.definition
    assert (one.type, one.key, one.capacity, one.target.format) == ("block", one.target.path, 11 * MIB, "unknown")
    with pytest.raises(PoolError, match="No such file"):
        volume.download(fake.folder / "out")
    fake.calls()
    pool.destroy()
    assert fake.calls()[-1] == f"{node} --logout"
    assert not (fake.folder / "session").exists()


@pytest.mark.parametrize("way", ["kernel", "machine"])
def test_kernel_units_that_are_used(host: Host, fake: Fake, tmp_path: Path, way: str) -> None:
    """Nobody is logged out of a unit that is mounted, or a machine's disk; a refresh that fails does neither."""
    with loop_device(tmp_path / "unit", MIB) as device:
        pool = host.define(kernel_xml(fake.links))
        pool.start()
        unit = fake.sys / "class/iscsi_session/session5/device/target3:0:0/3:0:0:1/block"
        (unit / "cowshedfake1").rename(unit / device.name)
        with contextlib.ExitStack() as using:
            if way == "kernel":
                using.callback(os.close, os.open(device, os.O_RDONLY | os.O_EXCL))
            else:
                using.enter_context(open_image(str(device), fmt="raw", writable=True))
            with pytest.raises(PoolError, match=r"in use by the kernel|lock"):
                pool.destroy()
            assert pool.active
            (fake.folder / "fail").touch()
            with pytest.raises(PoolError):
                pool.refresh()
            (fake.folder / "fail").unlink()
            assert (fake.folder / "session").exists() and not [call for call in fake.calls() if "--logout" in call]
        if not pool.active:
            pool.start()
        pool.destroy()
        assert not (fake.folder / "session").exists()


def test_kernel_session_that_is_there(host: Host, fake: Fake) -> None:
    (fake.folder / "session").touch()
    pool = host.define(kernel_xml(fake.links))
    assert pool.backend.check(pool.inactive_definition)
    pool.start()
    assert not [call for call in fake.calls() if "--login" in call or "--op new" in call]


def test_kernel_chap_and_initiator(host: Host, fake: Fake) -> None:
    """Credentials go to the node's record; the initiator's name to an interface of its own, made once."""
    secret(host, "s", b"pass word")
    pool = host.define(kernel_xml(fake.links, "carol", "usage='s'", INITIATOR))
    pool.start()
    calls = [call for call in fake.calls() if call not in ("--mode session", "--mode iface")]
    at = "--portal 192.0.2.7:3260,1"
    update = f"--mode node {at} --target {IQN} --op update --name node.session.auth."
    name = (fake.folder / "iface").read_text().strip()
    assert name.startswith("libvirt-iface-")
    assert calls == [
        f"--mode node {at} --targetname {IQN} --op new",
        f"{update}authmethod --value CHAP",
        f"{update}username --value carol",
        f"{update}password --value pass word",
        f"--mode iface --interface {name} --op new",
        f"--mode iface --interface {name} --op update --name iface.initiatorname --value {INITIATOR}",
        f"--mode discovery --type sendtargets {at} --interface {name}",
        f"--mode node {at} --targetname {IQN} --login --interface {name}",
        "--mode session -r 5 -R",
    ]
    pool.destroy()
    fake.calls()
    pool.start()
    assert not [call for call in fake.calls() if "--mode iface --interface" in call or "sendtargets" in call]


def test_kernel_failures(host: Host, fake: Fake) -> None:
    """What iscsiadm says is told; a password never is; nothing is tried with a secret that is not there."""
    pool = host.define(kernel_xml(fake.links))
    (fake.folder / "refuse").touch()
    with pytest.raises(PoolError, match=r"Child process \(.*--login\) unexpected exit status 8: refused"):
        pool.start()
    pool.undefine()
    fake.calls()
    with pytest.raises(MissingSecretError):
        host.create(kernel_xml(fake.links, "carol", "usage='none'"))
    assert not [call for call in fake.calls() if "--op" in call]
    secret(host, "s", b"hidden-word")
    (fake.folder / "refuse-update").touch()
    with pytest.raises(PoolError, match=r"Failed to update 'node.session.auth.authmethod' of node mode") as caught:
        host.create(kernel_xml(fake.links, "carol", "usage='s'"))
    assert "hidden" not in str(caught.value)


def test_kernel_sources(host: Host, fake: Fake) -> None:
    found = host.find_sources("iscsi", "<source><host name='192.0.2.7'/></source>")
    assert [one.devices[0].path for one in found] == [IQN, f"{IQN}:b"]
    assert fake.calls() == ["--mode discovery --type sendtargets --portal 192.0.2.7:3260,1 --op nonpersistent"]
    with pytest.raises(ArgumentError, match="hostname must be specified"):
        host.find_sources("iscsi", None)
    with pytest.raises(PoolError, match="Expected exactly 1 host"):
        two = PoolSource()
        two.hosts = [("a", None), ("b", None)]
        host.backend("iscsi").find_sources(two)


def test_kernel_what_is_missing(host: Host, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither tool nor initiator: each is named, and nothing was done."""
    pool = host.define(kernel_xml(tmp_path))
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(tools, "SBIN", ())
    with pytest.raises(HostCallError, match=r"Cannot find 'iscsiadm' in path \(Debian package open-iscsi\)"):
        pool.start()
    with pytest.raises(HostCallError, match="open-iscsi"):
        host.find_sources("iscsi", "<source><host name='192.0.2.7'/></source>")
    script = tmp_path / "iscsiadm"
    script.write_text(f"#!/bin/sh\ntouch {tmp_path}/called\n")
    script.chmod(stat.S_IRWXU)
    monkeypatch.setattr(iscsi, "SYSFS", str(tmp_path / "nosys"))
    if not Path(f"/lib/modules/{os.uname().release}").exists():
        with pytest.raises(HostCallError, match=r"no iSCSI initiator \(module iscsi_tcp\)"):
            pool.start()
        assert not (tmp_path / "called").exists()


def test_kernel_definitions(host: Host, tmp_path: Path) -> None:
    with pytest.raises(DefinitionError, match="missing storage pool source host name"):
        host.define("<pool type='iscsi'><name>x</name><target><path>/dev/disk/by-path</path></target></pool>")
    # as libvirt: a target is asked for when the pool is started
    pool = host.define(
        "<pool type='iscsi'><name>x</name><source><host name='h'/></source>"
        "<target><path>/dev/disk/by-path</path></target></pool>"
    )
    with pytest.raises(PoolError, match="missing source device"):
        pool.start()
    with pytest.raises(ConfigError, match="only supports 'chap'"):
        from cowshed.pool.backend.iscsi_direct import credentials
        from cowshed.wire.libvirt.definition import Auth

        credentials(host, Auth("ceph", "u", secret_usage="x"), "iscsi")


def test_judges() -> None:
    """The judges that these tests stand on are in the table."""
    assert {"tgtd", "tgtadm", "iscsi-ls"} <= set(judges.PACKAGES)
