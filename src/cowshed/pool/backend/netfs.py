"""``netfs`` pools: a directory of an NFS, CIFS or GlusterFS server, mounted."""

from __future__ import annotations

from ...errors import ArgumentError, ConfigError, DefinitionError, NoSupportError, OperationError
from ...wire.libvirt.definition import PoolSource
from . import mounts, tools
from .files import FilesBackend
from .fs import mount_options

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from ...wire.libvirt.definition import PoolDef, VolumeDef

#: seconds that a server has for a mount, and for telling that it is still there
MOUNT_TIMEOUT = 60.0
ANSWER_TIMEOUT = 5.0


class NetfsBackend(FilesBackend):
    """A mounted directory of a server. What may wait for the server is given up after a time, for this pool alone."""

    type = "netfs"
    source_formats = ("auto", ("auto", "nfs", "glusterfs", "cifs"))
    foreign_clock = True

    def validate(self, pool: PoolDef) -> None:
        super().validate(pool)
        source = pool.source
        if not source.hosts:
            raise DefinitionError("missing storage pool source host name")
        if not source.directory:
            raise DefinitionError("missing storage pool source path")
        if source.protocol_version and source.format not in ("auto", "nfs", None):
            raise ConfigError(f"storage pool protocol ver unsupported for pool type '{source.format}'")

    def source_key(self, pool: PoolDef) -> object:
        return "netfs", pool.source.hosts[0] if pool.source.hosts else None, pool.source.directory

    def check(self, pool: PoolDef) -> bool:
        source = mounts.mounted(pool.target or "")
        return source is not None and _plain(source) == _plain(_remote(pool))

    def start(self, pool: PoolDef) -> None:
        if self.check(pool):
            return
        kind = pool.source.format or "auto"
        if kind in ("nfs", "glusterfs", "cifs"):
            tools.need(f"mount.{kind}")
        source, target = _remote(pool), pool.target or ""
        extra = mount_options(pool)
        if kind == "glusterfs":
            # FUSE: the kernel's cache would hide what other hosts write
            extra.insert(0, "direct-io-mode=1")
        elif kind == "cifs":
            extra.insert(0, "guest")
        elif pool.source.protocol_version:
            extra.insert(0, f"nfsvers={pool.source.protocol_version}")
        mounts.mount(source, target, None if kind == "auto" else kind, extra, MOUNT_TIMEOUT)

    def stop(self, pool: PoolDef) -> None:
        target = pool.target or ""
        if mounts.mounted(target) is None:
            return
        mounts.unmount(target, lazy=not mounts.alive(target, ANSWER_TIMEOUT))

    def refresh(self, pool: PoolDef) -> None:
        mounts.must_answer(pool, ANSWER_TIMEOUT)
        super().refresh(pool)

    def names(self, pool: PoolDef) -> Iterator[tuple[str, str]]:
        mounts.must_answer(pool, ANSWER_TIMEOUT)
        return super().names(pool)

    def scan(self, pool: PoolDef) -> list[VolumeDef]:
        mounts.must_answer(pool, ANSWER_TIMEOUT)
        return super().scan(pool)

    def volume(self, pool: PoolDef, name: str) -> VolumeDef | None:
        mounts.must_answer(pool, ANSWER_TIMEOUT)
        return super().volume(pool, name)

    def find_sources(self, source: PoolSource | None) -> list[PoolSource]:
        """What a host exports: NFS's by showmount, GlusterFS' by its own command where there is one."""
        if source is None or not source.hosts:
            raise ArgumentError("hostname must be specified for netfs sources")
        host = source.hosts[0]
        kind = source.format or "auto"
        if kind == "cifs":
            raise NoSupportError("pool type 'netfs' does not support source discovery for format 'cifs'")
        showmount, gluster = tools.find("showmount"), tools.find("gluster")
        if kind == "nfs" or (kind == "auto" and gluster is None):
            showmount = tools.need("showmount")["showmount"]
        found = []
        if kind in ("auto", "nfs") and showmount is not None:
            done = tools.run([showmount, "--no-headers", "--exports", host[0]], timeout=MOUNT_TIMEOUT)
            # a path, and who may mount it, which has no blanks
            paths = [line.rsplit(None, 1)[0].strip() for line in done.out.splitlines() if line.strip()]
            found += [_source(host, path, "nfs") for path in paths]
        if kind in ("auto", "glusterfs") and gluster is not None:
            done = tools.run([gluster, f"--remote-host={host[0]}", "volume", "list"], ok=None, timeout=MOUNT_TIMEOUT)
            names = done.out.split() if done.status == 0 else []
            found += [_source(host, name, "glusterfs") for name in names]
        if not found:
            raise OperationError(f"no storage pools were found on host '{host[0]}'")
        return found


def _source(host: tuple[str, int | None], directory: str, kind: str) -> PoolSource:
    source = PoolSource()
    source.hosts = [host]
    source.directory = directory
    source.format = kind
    return source


def _remote(pool: PoolDef) -> str:
    """The server's directory as mount takes it."""
    host = pool.source.hosts[0][0] if pool.source.hosts else ""
    directory = pool.source.directory or ""
    return f"//{host}/{directory}" if pool.source.format == "cifs" else f"{host}:{directory}"


def _plain(remote: str) -> str:
    """The name of a server's directory as it can be compared: programs add and take away slashes."""
    host, colon, directory = remote.partition(":")
    if not colon:
        return "/".join(part for part in remote.split("/") if part)
    return f"{host}:" + "/".join(part for part in directory.split("/") if part)
