"""Secrets: kept as libvirt keeps them, in its words; judged by a real libvirtd."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import judges
from cowshed.errors import (
    CowshedError,
    InvalidSecretError,
    MissingSecretError,
    PoolError,
    ReadOnlyAccessError,
    StateError,
)
from cowshed.pool.host import Host
from cowshed.pool.secrets import Secret
from libvirtd import Libvirtd

UUID = "0a81f5b2-8403-7b23-c8d6-21ccc2f80d6f"


def document(uuid: str | None = UUID, usage: str | None = "/a", private: bool = False, ephemeral: bool = False) -> str:
    said = f"<uuid>{uuid}</uuid>" if uuid else ""
    used = f"<usage type='volume'><volume>{usage}</volume></usage>" if usage else ""
    words = ("no", "yes")
    return f"<secret ephemeral='{words[ephemeral]}' private='{words[private]}'>{said}{used}</secret>"


def refused(act: Callable[[], object], text: str, cls: type[CowshedError] = PoolError) -> None:
    with pytest.raises(cls) as caught:
        act()
    assert str(caught.value) == text and type(caught.value) is cls


@pytest.fixture
def host(tmp_path: Path) -> Host:
    return Host(str(tmp_path))


def files(host: Host) -> dict[str, int]:
    base = Path(str(host.root))
    return {
        str(path.relative_to(base)): path.stat().st_mode & 0o777
        for path in base.rglob("*")
        if path.suffix in (".xml", ".base64")
    }


def test_a_life(host: Host) -> None:
    secret = host.secrets.define(document())
    assert (secret.uuid, secret.usage_type, secret.usage_id) == (UUID, "volume", "/a")
    assert secret.xml() == (
        f"<secret ephemeral='no' private='no'>\n  <uuid>{UUID}</uuid>\n"
        "  <usage type='volume'>\n    <volume>/a</volume>\n  </usage>\n</secret>\n"
    )
    refused(secret.value, f"Secret not found: secret '{UUID}' does not have a value", MissingSecretError)
    for value in (b"hello", b"", bytes(range(256)) * 40):
        secret.set_value(value)
        assert Host(host.root).secrets.by_uuid(UUID).value() == value
    secret.set_value(b"hello")
    folder = "etc/libvirt/secrets"
    assert files(host) == {f"{folder}/{UUID}.xml": 0o600, f"{folder}/{UUID}.base64": 0o600}
    assert Path(str(host.root), folder, f"{UUID}.base64").read_bytes() == b"aGVsbG8="
    assert Path(str(host.root), folder).stat().st_mode & 0o777 == 0o700
    host.secrets.define(document().replace("</usage>", "</usage><description>new</description>"))
    assert secret.value() == b"hello" and "<description>new</description>" in secret.xml()
    secret.undefine()
    assert files(host) == {} and host.secrets.list() == []
    for gone in (secret.value, secret.xml, secret.undefine, lambda: secret.set_value(b"")):
        refused(gone, f"Secret not found: no secret with matching uuid '{UUID}'", MissingSecretError)
    kinds = [(event.kind, event.event) for event in host.events(0.0, 0.0)]
    assert kinds[0] == ("secret", "Defined") and kinds[1] == ("secret-value", "") and kinds[-1][1] == "Undefined"


def test_lookups(host: Host) -> None:
    first = host.secrets.define(document())
    second = host.secrets.define(document(None, "/b"))
    third = host.secrets.define(document(None, None))
    assert [secret.uuid for secret in host.secrets.list()] == sorted([first.uuid, second.uuid, third.uuid])
    assert host.secrets.by_uuid(UUID.upper().replace("-", "")).uuid == UUID
    assert host.secrets.by_usage("volume", "/b").uuid == second.uuid
    for uuid in ("nosuch", "", "../../x", second.uuid[:-1] + ("0" if second.uuid[-1] != "0" else "1")):
        refused(
            lambda uuid=uuid: host.secrets.by_uuid(uuid),  # type: ignore[misc]
            f"Secret not found: no secret with matching uuid '{uuid}'", MissingSecretError,
        )  # fmt: skip
    for usage in (("volume", "/c"), ("ceph", "/a")):
        refused(
            lambda usage=usage: host.secrets.by_usage(*usage),  # type: ignore[misc]
            f"Secret not found: no secret with matching usage '{usage[1]}'", MissingSecretError,
        )  # fmt: skip


def test_conflicts(host: Host) -> None:
    host.secrets.define(document(private=True))
    define = host.secrets.define
    refused(
        lambda: define(document(usage="/b", private=True)),
        f"internal error: a secret with UUID {UUID} is already defined for use with /a",
    )
    refused(
        lambda: define(document(None)), f"internal error: a secret with UUID {UUID} already defined for use with /a"
    )
    refused(lambda: define(document()), "internal error: cannot change private flag on existing secret")
    define(document(private=True))
    assert len(host.secrets.list()) == 1


def test_private(host: Host) -> None:
    secret = host.secrets.define(document(private=True))
    secret.set_value(b"hidden")
    refused(secret.value, "Invalid secret: secret is private", InvalidSecretError)
    assert secret.use() == b"hidden", "what opens a volume may"


def test_ephemeral(host: Host) -> None:
    """Never on the disk that lasts; its value follows it when that changes."""
    secret = host.secrets.define(document(ephemeral=True))
    secret.set_value(b"v")
    assert set(files(host).values()) == {0o600} and all(name.startswith("run/") for name in files(host))
    assert host.secrets.by_uuid(UUID).ephemeral and host.secrets.by_usage("volume", "/a").value() == b"v"
    assert Path(host.secrets.passing).stat().st_mode & 0o777 == 0o700
    host.secrets.define(document())
    assert all(name.startswith("etc/") for name in files(host)) and len(files(host)) == 2
    assert secret.value() == b"v"
    host.secrets.define(document(ephemeral=True))
    assert all(name.startswith("run/") for name in files(host)) and secret.value() == b"v"
    secret.undefine()
    assert files(host) == {}


def test_what_does_not_fit_is_skipped_and_told(host: Host) -> None:
    host.secrets.define(document())
    folder = Path(host.secrets.folder)
    (folder / "broken.xml").write_text("<secret")
    (folder / "other.xml").write_text(document(None, None))
    assert [secret.uuid for secret in host.secrets.list()] == [UUID]
    assert len(host.warnings) == 2
    assert any("<uuid> does not match secret file name 'other.xml'" in line for line in host.warnings)
    (folder / f"{UUID}.base64").write_text("a")
    with pytest.raises(PoolError, match="invalid base64"):
        host.secrets.by_uuid(UUID).value()


def test_read_only(host: Host) -> None:
    host.secrets.define(document()).set_value(b"v")
    secret = Host(host.root, readonly=True).secrets.by_uuid(UUID)
    calls: dict[str, Callable[[], Any]] = {
        "virSecretGetValue": secret.value,
        "virSecretSetValue": lambda: secret.set_value(b"x"),
        "virSecretUndefine": secret.undefine,
        "virSecretDefineXML": lambda: secret.secrets.define(document()),
    }
    for function, call in calls.items():
        refused(call, f"operation forbidden: read only access prevents {function}", ReadOnlyAccessError)
    assert secret.xml() and host.secrets.by_uuid(UUID).value() == b"v"


def test_killed_anywhere(tmp_path: Path, figures: Any) -> None:
    from test_pool_recovery import die_at

    number = 0
    died = True
    while died:
        number += 1
        folder = tmp_path / str(number)

        def work(folder: Path = folder) -> None:
            secret = Host(str(folder)).secrets.define(document())
            secret.set_value(b"hello")
            Host(str(folder)).secrets.define(document(ephemeral=True))
            secret.undefine()

        died = die_at(number, work)
        figures.add("pools: crash points of secrets tried")
        host = Host(str(folder))
        for secret in host.secrets.list():
            try:
                assert secret.value() == b"hello"
            except MissingSecretError as error:
                assert "does not have a value" in str(error)
        assert host.warnings == [] and len(host.secrets.list()) <= 1
        again: Secret = host.secrets.define(document())
        again.set_value(b"new")
        assert again.value() == b"new" and len(files(host)) == 2
        again.undefine()
        assert files(host) == {}
    assert number > 20


def test_with_a_real_libvirtd(tmp_path: Path) -> None:
    """Each reads what the other wrote; while it lives, we change nothing."""
    judges.need("libvirtd")
    with Libvirtd(tmp_path / "daemon") as daemon:
        root = tmp_path / "root"
        for name in ("etc", "run"):
            (root / name).mkdir(parents=True)
            (root / name / "libvirt").symlink_to(daemon.folder / name)
        host = Host(str(root))
        text = tmp_path / "s.xml"
        text.write_text(document())
        assert daemon.run(["secret-define", str(text)]).code == 0
        assert daemon.run(["secret-set-value", UUID, "aGVsbG8="]).code == 0
        secret = host.secrets.by_uuid(UUID)
        assert secret.value() == b"hello"
        assert secret.xml().strip() == daemon.run(["secret-dumpxml", UUID]).stdout.strip()
        with pytest.raises(StateError, match="the secrets are managed by libvirtd"):
            secret.set_value(b"x")
        written = {path.name: path.read_bytes() for path in (daemon.folder / "etc/secrets").iterdir()}
        daemon.stop()
        secret.set_value(b"hello")
        host.secrets.define(document())
        now = {path.name: path.read_bytes() for path in (daemon.folder / "etc/secrets").iterdir()}
        assert now == written, "byte for byte"
        secret.set_value(b"\0other\xff")
        host.secrets.define(document(None, "/private", private=True))
        host.secrets.define(document(None, "/passing", ephemeral=True))
        daemon.start()
        assert daemon.run(["secret-get-value", UUID]).stdout.strip() == "AG90aGVy/w=="
        listed = daemon.run(["secret-list"]).stdout
        assert "volume /a" in listed and "volume /private" in listed and "volume /passing" not in listed
    assert os.listdir(daemon.folder / "etc/secrets")
