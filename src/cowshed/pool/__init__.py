"""Storage pools and volumes without a daemon: libvirt's model inside the calling process.

    from cowshed import pool

    host = pool.Host()
    images = host.pool("default")
    disk = images.create_volume("<volume><name>web1.qcow2</name>…</volume>")

Names are loaded when they are first used. See docs/pools-design.md for the state on disk and who may do what at once.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ..wire.libvirt.definition import PoolDef, PoolSource, SecretDef, VolumeDef
    from .events import Event
    from .host import Host
    from .jobs import Job
    from .pool import Pool, PoolInfo
    from .secrets import Secret, Secrets
    from .volume import Volume, VolumeInfo

#: public name -> the module that it lives in
_HOMES = {
    "Event": "pool.events",
    "Host": "pool.host",
    "Job": "pool.jobs",
    "Pool": "pool.pool",
    "PoolDef": "wire.libvirt.definition",
    "PoolInfo": "pool.pool",
    "PoolSource": "wire.libvirt.definition",
    "Secret": "pool.secrets",
    "SecretDef": "wire.libvirt.definition",
    "Secrets": "pool.secrets",
    "Volume": "pool.volume",
    "VolumeDef": "wire.libvirt.definition",
    "VolumeInfo": "pool.volume",
}

__all__ = [
    "Event",
    "Host",
    "Job",
    "Pool",
    "PoolDef",
    "PoolInfo",
    "PoolSource",
    "Secret",
    "SecretDef",
    "Secrets",
    "Volume",
    "VolumeDef",
    "VolumeInfo",
]


def __getattr__(name: str) -> object:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module 'cowshed.pool' has no attribute '{name}'")
    value: object = getattr(__import__(f"cowshed.{home}", fromlist=(name,)), name)
    globals()[name] = value  # the next use finds it without asking
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
