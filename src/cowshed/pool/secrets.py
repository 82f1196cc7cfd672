"""Secrets: passphrases and passwords that pools and volumes name by uuid or usage, kept as libvirt keeps them.

    CONFIG/secrets/UUID.xml       the definition (0600)
    CONFIG/secrets/UUID.base64    the value (0600)

An ephemeral secret is in neither: it is kept below RUN, which the machine forgets when it is restarted.
"""

from __future__ import annotations

import os

from ..errors import (
    CowshedError,
    InvalidSecretError,
    MissingSecretError,
    PoolError,
    StateError,
)
from . import locks
from .store import call_error, names, read, remove, replace

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ..wire.libvirt.definition import SecretDef
    from .host import Host


class Secret:
    """One secret. ``uuid``, ``usage_type`` (None, or "volume", "ceph", "iscsi", "tls", "vtpm"), ``usage_id``,
    ``ephemeral``, ``private``: of when it was looked up."""

    def __init__(self, secrets: Secrets, definition: SecretDef) -> None:
        assert definition.uuid is not None
        self.secrets = secrets
        self.uuid = definition.uuid
        self.definition = definition

    def __repr__(self) -> str:
        return f"Secret({self.uuid}, {self.usage_type}, {self.usage_id!r})"

    @property
    def usage_type(self) -> str | None:
        return self.definition.usage_type

    @property
    def usage_id(self) -> str | None:
        return self.definition.usage_id

    @property
    def ephemeral(self) -> bool:
        return self.definition.ephemeral

    @property
    def private(self) -> bool:
        return self.definition.private

    def xml(self) -> str:
        """Raises MissingSecretError when it is gone."""
        from ..wire.libvirt.secret import format_secret

        return format_secret(self.secrets.by_uuid(self.uuid).definition)

    def value(self) -> bytes:
        """The value, for people: raises InvalidSecretError for a private secret, ReadOnlyAccessError,
        MissingSecretError when it is gone or has no value."""
        self.secrets.host.check_access("virSecretGetValue")
        if self.secrets.by_uuid(self.uuid).private:
            raise InvalidSecretError("secret is private")
        return self.use()

    def use(self) -> bytes:
        """The value, for this program's own use: private ones too. Raises MissingSecretError."""
        return self.secrets._value(self.secrets.by_uuid(self.uuid).definition)

    def set_value(self, value: bytes) -> None:
        """Raises MissingSecretError when it is gone; ReadOnlyAccessError; StateError when libvirt's daemon runs."""
        self.secrets._set_value(self.uuid, value)

    def undefine(self) -> None:
        """Forget it and its value. Raises as `set_value`."""
        self.secrets._undefine(self.uuid)


class Secrets:
    """The secrets of a `Host`."""

    def __init__(self, host: Host) -> None:
        self.host = host
        self.folder = os.path.join(host.config, "secrets")
        state = os.path.join(host.run, "secrets")
        #: where libvirt's daemon has its pid file, and we our ephemeral secrets
        self.state = os.path.join(state, "run") if host.session and host.root is None else state
        self.passing = os.path.join(self.state, "cowshed")

    # ---- looking

    def list(self) -> list[Secret]:
        """All of them, by uuid. Files that can't be read as a secret are left out, and told in ``host.warnings``."""
        found = {}
        for folder in (self.folder, self.passing):
            for name in names(folder):
                definition = self._load(folder, name)
                if definition is not None:
                    found[name] = Secret(self, definition)
        return [found[name] for name in sorted(found)]

    def by_uuid(self, uuid: str) -> Secret:
        """Raises MissingSecretError."""
        from ..wire.libvirt.common import read_uuid

        wanted = read_uuid(uuid)
        for folder in (self.folder, self.passing) if wanted else ():
            definition = self._load(folder, wanted or "")
            if definition is not None:
                return Secret(self, definition)
        raise MissingSecretError(f"no secret with matching uuid '{uuid}'")

    def by_usage(self, usage_type: str, usage_id: str) -> Secret:
        """Raises MissingSecretError."""
        for secret in self.list():
            if (secret.usage_type, secret.usage_id) == (usage_type, usage_id):
                return secret
        raise MissingSecretError(f"no secret with matching usage '{usage_id}'")

    def _load(self, folder: str, uuid: str) -> SecretDef | None:
        from ..wire.libvirt.secret import parse_secret

        path = os.path.join(folder, uuid + ".xml")
        try:
            data = read(path)
            if data is None:
                return None
            definition = parse_secret(data)
        except (CowshedError, OSError) as error:
            self.host.store.warn(path, str(error))
            return None
        if definition.uuid != uuid:
            self.host.store.warn(path, f"<uuid> does not match secret file name '{uuid}.xml'")
            return None
        return definition

    # ---- changing

    def define(self, xml: str | SecretDef) -> Secret:
        """A new secret, or a new definition for the one of that uuid; its value stays.

        Raises PoolError when uuid and usage contradict what is there; what parsing raises.
        """
        from ..wire.libvirt.secret import format_secret, parse_secret

        self._check_change("virSecretDefineXML")
        new = parse_secret(xml if isinstance(xml, str | bytes) else format_secret(xml))
        with self._changing():
            others = self.list()
            old = next((secret for secret in others if secret.uuid == new.uuid), None)
            if old is not None:
                if (old.usage_type, old.usage_id) != (new.usage_type, new.usage_id):
                    raise PoolError(f"a secret with UUID {old.uuid} is already defined for use with {old.usage_id}")
                if old.private and not new.private:
                    raise PoolError("cannot change private flag on existing secret")
            elif new.usage_type is not None:
                for secret in others:
                    if (secret.usage_type, secret.usage_id) == (new.usage_type, new.usage_id):
                        raise PoolError(
                            f"a secret with UUID {secret.uuid} already defined for use with {secret.usage_id}"
                        )
            if new.uuid is None:
                from .host import new_uuid

                new.uuid = new_uuid()
            if old is None:
                self._remove(new.uuid)  # values that somebody died over
            elif old.ephemeral != new.ephemeral:
                value = self._read_value(old.definition)
                if value is not None:
                    self._write_value(new, value)
            self._write(self._path(new, ".xml"), format_secret(new).encode("utf-8", "surrogateescape"))
            self._remove(new.uuid, self.folder if new.ephemeral else self.passing)
        self.host.log.add("secret", pool=new.usage_id or "", uuid=new.uuid, event="Defined")
        return Secret(self, new)

    def _set_value(self, uuid: str, value: bytes) -> None:
        self._check_change("virSecretSetValue")
        with self._changing():
            self._write_value(self.by_uuid(uuid).definition, value)
        self.host.log.add("secret-value", uuid=uuid)

    def _undefine(self, uuid: str) -> None:
        self._check_change("virSecretUndefine")
        with self._changing():
            definition = self.by_uuid(uuid).definition
            self._remove(uuid)
        self.host.log.add("secret", pool=definition.usage_id or "", uuid=uuid, event="Undefined")

    def _check_change(self, function: str) -> None:
        self.host.check_access(function)
        pid = locks.pid_file_holder(os.path.join(self.state, "driver.pid"))
        if pid is not None:
            whose = f"libvirtd (process {pid})" if pid else "libvirtd"
            raise StateError(
                f"the secrets are managed by {whose}",
                hint="stop it (libvirtd or virtsecretd) to change secrets without it, or change them through it",
            )
        self.host.store.prepare()

    def _changing(self) -> _Changing:
        return _Changing(self)

    def _path(self, definition: SecretDef, end: str) -> str:
        return os.path.join(self.passing if definition.ephemeral else self.folder, f"{definition.uuid}{end}")

    def _write(self, path: str, data: bytes) -> None:
        try:
            os.makedirs(os.path.dirname(path), 0o700, exist_ok=True)
            replace(path, data)
        except OSError as error:
            raise call_error("cannot create secret file", path, error) from error

    def _write_value(self, definition: SecretDef, value: bytes) -> None:
        from binascii import b2a_base64

        self._write(self._path(definition, ".base64"), b2a_base64(value, newline=False))

    def _read_value(self, definition: SecretDef) -> bytes | None:
        from binascii import Error, a2b_base64

        path = self._path(definition, ".base64")
        try:
            text = read(path)
            return None if text is None else a2b_base64(text)
        except OSError as error:
            raise call_error("cannot read secret file", path, error) from error
        except Error as error:
            raise PoolError(f"invalid base64 in '{path}'", path=path) from error

    def _value(self, definition: SecretDef) -> bytes:
        value = self._read_value(definition)
        if value is None:
            raise MissingSecretError(f"secret '{definition.uuid}' does not have a value")
        return value

    def _remove(self, uuid: str, *folders: str) -> None:
        """From ``folders``, or everywhere."""
        for folder in folders or (self.folder, self.passing):
            # the value first: without its definition nobody would find it any more
            for end in (".base64", ".xml"):
                path = os.path.join(folder, uuid + end)
                try:
                    if os.path.lexists(path):
                        remove(path)
                except OSError as error:
                    raise call_error("cannot unlink", path, error) from error


class _Changing:
    """One at a time changes secrets."""

    __slots__ = ("fd", "path")

    def __init__(self, secrets: Secrets) -> None:
        self.path = os.path.join(secrets.passing, "lock")
        self.fd = -1

    def __enter__(self) -> None:
        try:
            os.makedirs(os.path.dirname(self.path), 0o700, exist_ok=True)
            fd = locks.open_locked(self.path, timeout=15.0)
        except OSError as error:
            raise call_error("cannot lock", self.path, error) from error
        if fd is None:
            raise StateError("another process is changing the secrets")
        self.fd = fd

    def __exit__(self, *args: object) -> None:
        os.close(self.fd)
