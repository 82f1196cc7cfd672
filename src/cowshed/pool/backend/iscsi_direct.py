"""``iscsi-direct`` pools: the units of a remote target, reached in user space through libiscsi; no root, no devices.

Unlike libvirt's, a unit's capacity is exact (libvirt counts one sector too few), and units can be uploaded to and
downloaded from.
"""

from __future__ import annotations

import contextlib

from ...errors import ArgumentError, ConfigError, DefinitionError, PoolError
from ...wire.libvirt.definition import Device, PoolSource, VolumeDef
from .base import Backend
from .devices import translated

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from ...block.node import Node
    from ...block.protocol.libiscsi import Session
    from ...wire.libvirt.definition import Auth, PoolDef
    from ..host import Host

PORT = 3260
_DISK = 0


class IscsiDirectBackend(Backend):
    """The units of one target."""

    type = "iscsi-direct"

    # ---- the pool

    def validate(self, pool: PoolDef) -> None:
        if not pool.source.hosts:
            raise DefinitionError("missing storage pool source host name")
        if not pool.source.devices:
            raise DefinitionError("missing storage pool source device name")
        if not pool.source.initiator_iqn:
            raise DefinitionError("missing initiator IQN")

    def source_key(self, pool: PoolDef) -> object:
        return source_key(pool.source)

    def check(self, pool: PoolDef) -> bool:
        try:
            with self._session(pool):
                return True
        except PoolError:
            return False

    def start(self, pool: PoolDef) -> None:
        """The target must answer and let us in."""
        with self._session(pool):
            pass

    def refresh(self, pool: PoolDef) -> None:
        with self._session(pool) as session:
            pool.capacity = sum(_capacity(session, lun) for lun in session.luns())
        pool.allocation = pool.capacity
        pool.available = 0

    def find_sources(self, source: PoolSource | None) -> list[PoolSource]:
        """The targets that a portal tells of. Raises ArgumentError without a host, PoolError without an initiator."""
        if source is None or not source.hosts:
            raise ArgumentError("hostname must be specified for iscsi sources")
        if len(source.hosts) != 1:
            raise PoolError("Expected exactly 1 host for the storage pool")
        if not source.initiator_iqn:
            raise PoolError("missing initiator IQN")
        with self._opened(source, None) as session:
            return [of_target(source, name) for name, _ in session.targets()]

    # ---- volumes

    def scan(self, pool: PoolDef) -> list[VolumeDef]:
        with self._session(pool) as session:
            return [_describe(pool, lun, _capacity(session, lun)) for lun in session.luns()]

    def names(self, pool: PoolDef) -> Iterable[tuple[str, str]]:
        with self._session(pool) as session:
            return [(f"unit:0:0:{lun}", _path(pool, lun)) for lun in session.luns()]

    def volume(self, pool: PoolDef, name: str) -> VolumeDef | None:
        lun = _lun(name)
        if lun is None:
            return None
        with self._session(pool) as session:
            return _describe(pool, lun, _capacity(session, lun)) if lun in session.luns() else None

    def open_volume(self, pool: PoolDef, volume: VolumeDef, *, writable: bool = False) -> Node:
        from ...block.protocol.iscsi import IscsiNode

        lun = _lun(volume.name)
        if lun is None:
            raise PoolError(f"'{volume.name}' is no unit of an iSCSI target")
        with contextlib.ExitStack() as stack:
            session = stack.enter_context(self._session(pool))
            with translated():
                node = IscsiNode(_path(pool, lun), session, lun, writable=writable)
            held = stack.pop_all()
            node.on_close = held.close
            return node

    # ---- sessions

    def _session(self, pool: PoolDef) -> contextlib.AbstractContextManager[Session]:
        source = pool.source
        if len(source.hosts) != 1:
            raise PoolError("Expected exactly 1 host for the storage pool")
        if len(source.devices) != 1 or not source.devices[0].path:
            raise PoolError("missing source device")
        return self._opened(source, source.devices[0].path)

    @contextlib.contextmanager
    def _opened(self, source: PoolSource, target: str | None) -> Iterator[Session]:
        with translated():
            from ...block.protocol.libiscsi import Session

            user, password = None, None
            if source.auth is not None and target is not None:
                user, password = credentials(self.host, source.auth, "iscsi-direct")
            with Session(portal(source), source.initiator_iqn or "", target, user=user, password=password) as session:
                yield session


def source_key(source: PoolSource) -> object:
    """What two iSCSI pools must not share: host, target and our own name."""
    if not source.hosts or not source.devices:
        return None
    host, port = source.hosts[0]
    return "iscsi", host, port or PORT, source.devices[0].path, source.initiator_iqn


def of_target(source: PoolSource, name: str) -> PoolSource:
    """A target that the portal of ``source`` has told of."""
    found = PoolSource()
    found.hosts = list(source.hosts)
    found.devices = [Device(name)]
    found.initiator_iqn = source.initiator_iqn
    return found


def portal(source: PoolSource) -> str:
    """The address of the pool's target, "host:port"."""
    host, port = source.hosts[0]
    return f"[{host}]:{port or PORT}" if ":" in host else f"{host}:{port or PORT}"


def credentials(host: Host, auth: Auth, kind: str) -> tuple[str, bytes]:
    """Name and password for CHAP, from the host's secrets. Raises ConfigError, MissingSecretError."""
    if auth.type != "chap":
        raise ConfigError(f"{kind} pool only supports 'chap' auth type", field="auth", value=auth.type)
    if auth.secret_uuid is not None:
        secret = host.secrets.by_uuid(auth.secret_uuid)
    elif auth.secret_usage is not None:
        secret = host.secrets.by_usage("iscsi", auth.secret_usage)
    else:
        raise ConfigError(f"the credentials of the {kind} pool name no secret", field="auth")
    return auth.username, secret.use()


def _path(pool: PoolDef, lun: int) -> str:
    return f"ip-{portal(pool.source)}-iscsi-{pool.source.devices[0].path}-lun-{lun}"


def _lun(name: str) -> int | None:
    number = name.removeprefix("unit:0:0:")
    return int(number) if number != name and number.isascii() and number.isdigit() and len(number) < 6 else None


def _capacity(session: Session, lun: int) -> int:
    """Bytes of a unit; 0 for what is no disk, such as the target's controller."""
    inquiry = session.inquiry(lun)
    if not inquiry or inquiry[0] & 0x1F != _DISK:
        return 0
    blocks, size, _ = session.capacity(lun)
    return blocks * size


def _describe(pool: PoolDef, lun: int, capacity: int) -> VolumeDef:
    path = _path(pool, lun)
    volume = VolumeDef(f"unit:0:0:{lun}", "network", path)
    volume.capacity = volume.allocation = capacity
    volume.has_allocation = True
    volume.target.path = path
    return volume
