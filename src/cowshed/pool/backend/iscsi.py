"""``iscsi`` pools: the units of a remote target as disks of this machine, by the kernel's initiator and iscsiadm.

A machine without them is served by ``iscsi-direct``. Volumes are found in sysfs, and called as the links in the pool's
target directory (/dev/disk/by-path) call them; a unit that has no link there is not listed.
"""

from __future__ import annotations

import errno
import os
import re
import secrets
import time

from ...errors import ArgumentError, CowshedError, DefinitionError, HostCallError, PoolError
from ...wire.libvirt.definition import PoolSource, VolumeDef
from . import tools
from .base import Backend
from .devices import first_line, must_be_idle, must_be_unused, take_facts
from .iscsi_direct import credentials, of_target, portal, source_key

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ...block.node import Node
    from ...wire.libvirt.definition import PoolDef

#: where the kernel tells of itself (tests put another tree here)
SYSFS = "/sys"
#: seconds to wait for the links of units that have just appeared
SETTLE = 10.0
_DISK, _CDROM = "0", "5"
_SESSION = re.compile(r"^tcp:\s+\[(\S+)\]\s+\S+\s+(\S+)")
_TARGET = re.compile(r"^\s*(\S+)\s+(\S+)\s*$")
_SCSI_ID = ("/lib/udev/scsi_id", "/usr/lib/udev/scsi_id")


class IscsiBackend(Backend):
    """One session of the kernel's initiator."""

    type = "iscsi"

    # ---- the pool

    def validate(self, pool: PoolDef) -> None:
        if not pool.source.hosts:
            raise DefinitionError("missing storage pool source host name")
        if not pool.target:
            raise DefinitionError("missing storage pool target path")

    def source_key(self, pool: PoolDef) -> object:
        return source_key(pool.source)

    def check(self, pool: PoolDef) -> bool:
        _check_source(pool)
        return tools.find("iscsiadm") is not None and _session(pool) is not None

    def start(self, pool: PoolDef) -> None:
        """Log in. Raises HostCallError when iscsiadm or the kernel's initiator are missing, before anything changes;
        MissingSecretError, ConfigError for credentials; PoolError when iscsiadm fails."""
        _check_source(pool)
        program = tools.need("iscsiadm")["iscsiadm"]
        _need_initiator()
        login = credentials(self.host, pool.source.auth, "iscsi") if pool.source.auth is not None else None
        if _session(pool) is not None:
            return
        target = pool.source.devices[0].path
        at = portal(pool.source) + ",1"
        node = [program, "--mode", "node", "--portal", at]
        done = tools.run([*node, "--targetname", target, "--op", "new"], ok=None)
        if done.status:
            raise PoolError(f"{program} failed new mode for target '{target}' with status '{done.status}'")
        if login is not None:
            for name, value in (
                ("node.session.auth.authmethod", "CHAP"),
                ("node.session.auth.username", login[0]),
                ("node.session.auth.password", login[1].decode("utf-8", "surrogateescape")),
            ):
                argv = [*node, "--target", target, "--op", "update", "--name", name, "--value", value]
                if tools.run(argv, ok=None).status:  # its arguments are not for everyone to read
                    raise PoolError(f"Failed to update '{name}' of node mode for target '{target}'")
        _connect(program, pool, "--login")

    def stop(self, pool: PoolDef) -> None:
        """Log out. Raises StateError, PoolError while a unit is mounted or a machine's disk: logging out would take it
        from below them, whatever they have not written yet."""
        _check_source(pool)
        program = tools.need("iscsiadm")["iscsiadm"]
        session = _session(pool)
        if session is None:
            return
        for _, device, _ in _units(session):
            must_be_unused(device)
        _connect(program, pool, "--logout")

    def refresh(self, pool: PoolDef) -> None:
        """Have the kernel look for units again, and add up what they are."""
        _check_source(pool)
        program = tools.need("iscsiadm")["iscsiadm"]
        session = _need_session(pool)
        tools.run([program, "--mode", "session", "-r", session, "-R"])
        deadline = time.monotonic() + SETTLE
        while True:
            units = _units(session)
            links = _links(pool.target or "")
            if all(device in links for _, device, _ in units) or time.monotonic() > deadline:
                break
            time.sleep(0.1)
        pool.capacity = pool.allocation = sum(_size(device) for _, device, _ in units if device in links)
        pool.available = 0

    def find_sources(self, source: PoolSource | None) -> list[PoolSource]:
        if source is None or not source.hosts:
            raise ArgumentError("hostname must be specified for iscsi sources")
        if len(source.hosts) != 1:
            raise PoolError("Expected exactly 1 host for the storage pool")
        program = tools.need("iscsiadm")["iscsiadm"]
        names = _discover(program, portal(source) + ",1", source.initiator_iqn)
        return [of_target(source, name) for name in names]

    # ---- volumes

    def scan(self, pool: PoolDef) -> list[VolumeDef]:
        links = _links(pool.target or "")
        return [
            _describe(name, device, links[device]) for name, device, _ in _units(_need_session(pool)) if device in links
        ]

    def open_volume(self, pool: PoolDef, volume: VolumeDef, *, writable: bool = False) -> Node:
        from ...block.graph import open_image

        if writable:
            must_be_idle(volume.target.path or "")
        try:
            return open_image(volume.target.path or "", fmt="raw", writable=writable)
        except CowshedError as error:
            raise PoolError(str(error), path=error.path, errno=error.errno) from error


def _check_source(pool: PoolDef) -> None:
    if len(pool.source.hosts) != 1:
        raise PoolError("Expected exactly 1 host for the storage pool")
    if not pool.source.hosts[0][0]:
        raise PoolError("missing source host")
    if len(pool.source.devices) != 1 or not pool.source.devices[0].path:
        raise PoolError("missing source device")


def _need_initiator() -> None:
    """Raises HostCallError when the kernel has no initiator over TCP, and none to load."""
    if os.path.isdir(f"{SYSFS}/class/iscsi_transport"):
        return
    release = os.uname().release
    for name in ("modules.dep", "modules.builtin"):
        try:
            with open(f"/lib/modules/{release}/{name}", encoding="utf-8", errors="replace") as file:
                if any("/iscsi_tcp.ko" in line.partition(":")[0] for line in file):
                    return
        except OSError:
            continue
    raise HostCallError(
        "the kernel has no iSCSI initiator (module iscsi_tcp)",
        errno.ENODEV,
        hint="a pool of type iscsi-direct does without",
    )


# -- iscsiadm ----------------------------------------------------------------------------------------------------------


def _session(pool: PoolDef) -> str | None:
    """The number of our session with the target, None when there is none."""
    target = pool.source.devices[0].path
    done = tools.run(["iscsiadm", "--mode", "session"], ok=None)
    for line in done.out.splitlines():
        match = _SESSION.match(line)
        if match and match[2] == target:
            return match[1]
    return None


def _need_session(pool: PoolDef) -> str:
    session = _session(pool)
    if session is None:
        raise PoolError(f"cannot find iscsiadm session: {pool.source.devices[0].path}")
    return session


def _connect(program: str, pool: PoolDef, action: str) -> None:
    at = portal(pool.source) + ",1"
    argv = [program, "--mode", "node", "--portal", at, "--targetname", pool.source.devices[0].path, action]
    initiator = pool.source.initiator_iqn
    if initiator:
        interface = _interface(program, initiator)
        if interface is None:
            interface = _make_interface(program, initiator)
            # iscsiadm knows no record of a target for an interface that it has not discovered it by
            _send_targets(program, at, interface, persist=True)
        argv += ["--interface", interface]
    tools.run(argv)


def _interface(program: str, initiator: str) -> str | None:
    """iscsiadm's name for the interface that has ``initiator`` as its own name; None without one."""
    done = tools.run([program, "--mode", "iface"], ok=None)
    if done.status:
        return None
    for line in done.out.splitlines():
        name, _, fields = line.partition(" ")
        parts = fields.split(",", 4)
        if len(parts) == 5 and parts[4].strip() == initiator:
            return name
    return None


def _make_interface(program: str, initiator: str) -> str:
    name = f"libvirt-iface-{secrets.token_hex(4)}"
    done = tools.run([program, "--mode", "iface", "--interface", name, "--op", "new"], ok=None)
    if done.status:
        raise PoolError(f"Failed to run command '{program}' to create new iscsi interface")
    update = ["--op", "update", "--name", "iface.initiatorname", "--value", initiator]
    tools.run([program, "--mode", "iface", "--interface", name, *update], ok=None)
    if _interface(program, initiator) != name:
        raise PoolError(f"Failed to update iscsi interface with IQN '{initiator}'")
    return name


def _discover(program: str, at: str, initiator: str | None) -> list[str]:
    interface = None
    if initiator:
        interface = _interface(program, initiator) or _make_interface(program, initiator)
    return _send_targets(program, at, interface, persist=False)


def _send_targets(program: str, at: str, interface: str | None, *, persist: bool) -> list[str]:
    argv = [program, "--mode", "discovery", "--type", "sendtargets", "--portal", at]
    if interface is not None:
        argv += ["--interface", interface]
    if not persist:
        argv += ["--op", "nonpersistent"]
    matches = (_TARGET.match(line) for line in tools.run(argv).out.splitlines())
    return list(dict.fromkeys(match[2] for match in matches if match))


# -- sysfs -------------------------------------------------------------------------------------------------------------


def _units(session: str) -> list[tuple[str, str, str]]:
    """(volume name, device path, sysfs directory) of each disk of a session, in order."""
    base = f"{SYSFS}/class/iscsi_session/session{session}/device"
    found = []
    try:
        targets = [name for name in os.listdir(base) if name.startswith("target")]
    except OSError as error:
        raise HostCallError(f"Failed to opendir path '{base}'", error.errno or errno.EIO, path=base) from error
    for target in targets:
        for address in _listed(f"{base}/{target}"):
            parts = address.split(":")
            if len(parts) != 4 or not all(part.isdigit() for part in parts):
                continue
            folder = f"{base}/{target}/{address}"
            if first_line(f"{folder}/type") not in (_DISK, _CDROM):
                continue
            blocks = _listed(f"{folder}/block")
            if blocks:
                numbers = tuple(int(part) for part in parts)
                found.append((numbers, f"unit:{numbers[1]}:{numbers[2]}:{numbers[3]}", f"/dev/{blocks[0]}", folder))
    found.sort()
    return [(name, device, folder) for _, name, device, folder in found]


def _links(folder: str) -> dict[str, str]:
    """Devices by what they really are -> their name in the pool's target directory (/dev: themselves)."""
    if os.path.normpath(folder) == "/dev":
        return {f"/dev/{name}": f"/dev/{name}" for name in _listed("/dev")}
    found: dict[str, str] = {}
    for name in _listed(folder):
        path = os.path.join(folder, name)
        if os.path.islink(path):
            found.setdefault(os.path.realpath(path), path)
    return found


def _listed(folder: str) -> list[str]:
    try:
        return sorted(os.listdir(folder))
    except OSError:
        return []


def _size(device: str) -> int:
    sectors = first_line(f"{SYSFS}/class/block/{os.path.basename(device)}/size")
    return int(sectors) * 512 if sectors.isdigit() else 0


def _key(device: str, path: str) -> str:
    """The unit's serial number where udev's scsi_id gives one, else its path."""
    program = next((each for each in _SCSI_ID if os.access(each, os.X_OK)), None)
    if program is not None and os.path.exists(device):
        argv = [program, "--replace-whitespace", "--whitelisted", "--device", device]
        said = tools.run(argv, ok=None).out.strip()
        if said:
            return said
    return path


def _describe(name: str, device: str, path: str) -> VolumeDef:
    volume = VolumeDef(name, "block", _key(device, path))
    volume.capacity = volume.allocation = _size(device)
    volume.has_allocation = True
    volume.physical = volume.capacity
    volume.target.path = path
    volume.target.format = _table(device)
    try:
        status = os.stat(device)
    except OSError:
        return volume
    take_facts(volume.target, status)
    return volume


def _table(device: str) -> str:
    """The partition table on a device, "unknown" where there is none or it can't be read."""
    from ...block.graph import open_image
    from ...layout.signature import table

    try:
        with open_image(device, fmt="raw", force_share=True) as node:
            return table(node) or "unknown"
    except CowshedError:
        return "unknown"
