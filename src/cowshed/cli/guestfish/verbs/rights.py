"""Who may do what with a file, beyond its mode: access control lists, capabilities."""

from __future__ import annotations

import errno
import os

from ....guest.filesystem.base import GuestError
from ..fish import Failed, Fish
from ..table import command
from .read import shown

_KINDS = {"access": False, "default": True}


def _default(acltype: str) -> bool:
    if acltype not in _KINDS:
        raise Failed(f"invalid acltype parameter: {acltype}")
    return _KINDS[acltype]


def _supported(fish: Fish, path: bytes) -> None:
    """File systems without extended attributes say so. Raises Failed."""
    if fish.session.tree.resolve(path).mount.fs.kind in ("vfat", "iso9660"):
        raise Failed(f"{shown(path)}: {os.strerror(errno.EOPNOTSUPP)}")


@command("acl-get-file", "path:path acltype:string", "string", help="get the POSIX ACL attached to a file")
def acl_get_file(fish: Fish, path: bytes, acltype: str) -> str:
    from ....guest import acl

    default = _default(acltype)
    _supported(fish, path)
    return acl.get(fish.session.tree, path, default=default)


@command("acl-set-file", "path:path acltype:string acl:bytes", help="set the POSIX ACL attached to a file")
def acl_set_file(fish: Fish, path: bytes, acltype: str, acl: bytes) -> None:
    from ....guest.acl import AclError, put

    default = _default(acltype)
    try:
        # the text is judged before the file is looked for
        put(fish.session.tree, path, acl, default=default)
    except GuestError as error:
        if error.errno == errno.EOPNOTSUPP:
            raise Failed(f"{shown(path)}: {os.strerror(errno.EOPNOTSUPP)}") from error
        raise
    except AclError as error:
        raise Failed(f"could not parse acl string: {shown(acl)}: acl_from_text: {error}") from error


@command("acl-delete-def-file", "dir:path", help="delete the default POSIX ACL of a directory")
def acl_delete_def_file(fish: Fish, dir: bytes) -> None:
    from ....guest.acl import forget_default

    forget_default(fish.session.tree, dir)


@command("cap-get-file", "path:path", "string", help="get the Linux capabilities attached to a file")
def cap_get_file(fish: Fish, path: bytes) -> str:
    from ....guest.capability import get

    _supported(fish, path)
    try:
        return get(fish.session.tree, path)
    except GuestError as error:
        raise Failed(f"{shown(path)}: {os.strerror(error.errno or errno.EIO)}") from error


@command("cap-set-file", "path:path cap:string", help="set the Linux capabilities attached to a file")
def cap_set_file(fish: Fish, path: bytes, cap: str) -> None:
    from ....guest.capability import CapabilityError, put

    try:
        put(fish.session.tree, path, cap)
    except CapabilityError as error:
        raise Failed(f"could not parse cap string: {cap}: cap_from_text: {error}") from error
