"""Kinds of pools: what the ``type`` attribute names, and the module that knows it."""

from __future__ import annotations

from ...errors import PoolError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ..host import Host
    from .base import Backend

_Type = type  # the parameters below are named after the attribute

#: all types of libvirt's, in the order of its capabilities -> the module here that has it, or None
KINDS: dict[str, str | None] = {
    "dir": "dir",
    "fs": "fs",
    "netfs": "netfs",
    "logical": "logical",
    "disk": "disk",
    "iscsi": "iscsi",
    "iscsi-direct": "iscsi_direct",
    "scsi": None,
    "mpath": None,
    "rbd": None,
    "sheepdog": None,
    "gluster": None,
    "zfs": None,
    "vstorage": None,
}


def backend_class(type: str) -> type[Backend]:
    """The class that serves pools of that type. Raises PoolError when there is none."""
    if type not in KINDS:
        raise PoolError(f"unknown storage pool type {type}")
    module_name = KINDS[type]
    if module_name is not None:
        from .base import Backend

        try:
            module = __import__(f"{__package__}.{module_name}", fromlist=("Backend",))
        except ModuleNotFoundError as error:
            if error.name != f"{__package__}.{module_name}":
                raise
            module = None
        for value in vars(module).values() if module is not None else ():
            if isinstance(value, _Type) and issubclass(value, Backend) and vars(value).get("type") == type:
                return value
    number = list(KINDS).index(type)
    raise PoolError(f"missing backend for pool type {number} ({type})")


def supported(type: str) -> bool:
    """Is there a backend for pools of that type?"""
    try:
        backend_class(type)
    except PoolError:
        return False
    return True


def make(host: Host, type: str) -> Backend:
    """A backend of that type for ``host``. Raises PoolError when there is none."""
    return backend_class(type)(host)
