"""URIs, and the set of pools that each of them means."""

from __future__ import annotations

import os

from ...errors import ArgumentError, PoolError
from ...pool.host import Host

#: the drivers whose storage is this machine's own
_DRIVERS = ("qemu", "kvm", "storage", "secret", "lxc", "xen", "ch")


class Complaint(PoolError):
    """libvirt's words without a beginning of their own."""

    prefix = ""


def default_uri() -> str:
    """What is connected to when nobody says."""
    return os.environ.get("LIBVIRT_DEFAULT_URI") or ("qemu:///system" if os.geteuid() == 0 else "qemu:///session")


def open_host(uri: str | None, readonly: bool) -> Host:
    """The host of a URI (None: the default). Raises PoolError."""
    text = uri or default_uri()
    scheme, colon, rest = text.partition(":")
    if not colon or "//" not in rest:
        if not scheme.replace("+", "").replace("-", "").isalnum() or " " in text:
            raise PoolError(f"Unable to parse URI {text}", value=text)
        raise Complaint(f"no connection driver available for URI '{text}' does not include a driver name", value=text)
    authority, _, path = rest.removeprefix("//").partition("/")
    path, _, query = path.partition("?")
    driver, _, transport = scheme.partition("+")
    if driver == "cowshed":
        return _own(text, authority, path, query, readonly)
    if driver not in _DRIVERS:
        hint = "cowshed has qemu:///system, qemu:///session and cowshed:///?root=DIR"
        raise Complaint(f"no connection driver available for {text}", value=text, hint=hint)
    if authority or transport not in ("", "unix"):
        why = "cowshed has this machine's storage only"
        raise Complaint(f"no connection driver available for {text}: {why}", value=text)
    if path not in ("system", "session"):
        raise PoolError(f"unexpected {driver.upper()} URI path '/{path}', try {driver}:///system", value=text)
    if path == "session":
        return Host(readonly=readonly, session=True)
    if os.geteuid() != 0 and not (readonly and os.access("/etc/libvirt/storage", os.R_OK | os.X_OK)):
        # there is no daemon that could do it for us
        raise Complaint(
            f"{text} needs root: cowshed works in this process, as the user that calls it",
            value=text,
            hint=f"{driver}:///session has pools of your own",
        )
    return Host(readonly=readonly, session=False)


def _own(text: str, authority: str, path: str, query: str, readonly: bool) -> Host:
    root: str | None = None
    for part in query.split("&") if query else ():
        name, _, value = part.partition("=")
        if name != "root" or not value:
            raise ArgumentError(f"unknown parameter '{name}' in URI {text}", value=text)
        root = value
        if "%" in value:
            from urllib.parse import unquote

            root = unquote(value, errors="surrogateescape")
    if authority or path not in ("", "system", "session") or (root is not None and path):
        known = "cowshed:///system, cowshed:///session or cowshed:///?root=DIR"
        raise ArgumentError(f"URI {text} is not {known}", value=text)
    if root is not None:
        if not os.path.isdir(root):
            raise ArgumentError(f"'{root}' in URI {text} is no directory", value=root)
        return Host(root=os.path.abspath(root), readonly=readonly)
    return Host(readonly=readonly, session=None if not path else path == "session")
