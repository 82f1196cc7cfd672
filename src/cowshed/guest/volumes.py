"""Volume groups of a session changed: physical volumes, groups and logical volumes made, resized, renamed, removed.

    volumes = Volumes(session)
    volumes.create_physical("/dev/sda1")
    volumes.create_group("VG", ["/dev/sda1"])
    volumes.create("LV", "VG", size=100 << 20)

Each method is one change, planned wholly before the first byte is written, and what devices there are follows at once.
What is refused raises `Refusal` with lvm2's own text.
"""

from __future__ import annotations

import errno
import time

from ..layout.lvm import write
from ..layout.lvm.draft import Draft, Refusal, check_changeable, new_uuid
from ..layout.lvm.model import PhysicalVolume, VolumeGroup
from ..layout.lvm.names import group_trouble, volume_trouble
from ..layout.lvm.node import LogicalNode
from ..layout.lvm.writer import shown, stored
from .filesystem.base import GuestError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ..block.node import Node
    from ..layout.lvm.label import Label
    from ..layout.lvm.model import LogicalVolume
    from .session import Session

#: names below /dev that are taken before any group is made
_TAKEN = frozenset((
    "autofs", "block", "bsg", "bus", "char", "console", "core", "cpu_dma_latency", "disk", "fd", "full", "hpet",
    "input", "kmsg", "log", "loop-control", "mapper", "mem", "net", "null", "nvram", "port", "ppp", "psaux", "ptmx",
    "pts", "random", "rtc", "rtc0", "shm", "snapshot", "stderr", "stdin", "stdout", "tty", "uinput", "urandom", "vcs",
    "vcsa", "vfio", "vga_arbiter", "vhost-net", "virtio-ports", "watchdog", "zero",
))  # fmt: skip
_HEAD = 4096
#: who wrote a text, as the text says it
_PROGRAM = "cowshed"


class Volumes:
    """``session``: whose devices they are; several threads hold its ``lock`` around a call. Names of devices as
    everywhere: /dev/sda1, /dev/VG/LV."""

    def __init__(self, session: Session) -> None:
        self.session = session
        self.devices = session.devices

    # ---- what is there

    def group(self, name: str) -> VolumeGroup:
        """Raises Refusal when there is none of that name."""
        found = self.devices.lvm().group(name)
        if found is None:
            raise Refusal(f'Volume group "{name}" not found\n  Cannot process volume group {name}')
        return found

    def owner(self, device: str) -> tuple[VolumeGroup, PhysicalVolume] | None:
        """The group that a device is a physical volume of."""
        for group in self.devices.lvm().groups:
            for pv in group.physical.values():
                if pv.path == device:
                    return group, pv
        return None

    def users(self, device: str) -> str:
        """What keeps a device: "filesystem", "device" or nothing."""
        if any(mount.device == device for mount in self.session.tree.mounts):
            return "filesystem"
        return "device" if any(source == device for _, source in self.devices.mapped.values()) else ""

    def _check_unused(self, lv: LogicalVolume) -> None:
        use = self.users(f"/dev/{lv.group.name}/{lv.name}")
        if use == "filesystem":
            raise Refusal(f"Logical volume {lv.group.name}/{lv.name} contains a filesystem in use.")
        if use:
            raise Refusal(f"Logical volume {lv.group.name}/{lv.name} is used by another device.")

    def text(self, name: str) -> bytes:
        """A group's metadata as lvm2's backups show them to people."""
        group = self.group(name)
        return shown(group.name, group.section, f"vgcfgbackup {name}", int(time.time()), _PROGRAM)

    # ---- writing

    def _draft(self, name: str) -> Draft:
        group = self.group(name)
        if any(pv.uuid in self.devices.lvm().twins for pv in group.physical.values()):
            raise Refusal(f"Cannot update volume group {name} with duplicate PV devices.")
        return Draft.of(group)

    def _members(self, group: VolumeGroup) -> list[tuple[Node, Label]]:
        labels = self.devices.lvm().labels
        return [
            (pv.node, labels[pv.path])
            for pv in group.physical.values()
            if pv.node is not None and pv.path is not None and pv.path in labels
        ]

    def _save(self, draft: Draft, what: str) -> None:
        """Bring a draft to the devices, and look at them anew."""
        now = int(time.time())
        text = stored(draft.name, draft.section, f"Write from guestfish: {what}.", now, _PROGRAM)
        try:
            write.commit(self._members(draft.group), text)
        finally:
            self.devices.regroup()

    # ---- physical volumes

    def _check_device(self, device: str) -> Node:
        """Is the device one that lvm2 would look at? Its node. Raises Refusal, GuestError ENOENT."""
        devices = self.devices
        name = devices.canonical(device)
        node = devices.open(name)
        if node.driver == "lvm2":
            raise Refusal(f"Cannot use {name}: device is an LV")
        if name in devices.disks() and devices.drive(name).divided():
            raise Refusal(f"Cannot use {name}: device is partitioned")
        if self.users(name):
            lines = [f"Can't open {name} exclusively.  Mounted filesystem?"] * 2
            if name in devices.disks():
                lines += [f"Error opening device {name} for reading at 0 length 512.", lines[0]]
            lines += [f"Error opening device {name} for reading at 0 length 4096."]
            raise Refusal("\n  ".join([*lines, f"Cannot use {name}: device has a signature"]))
        return node

    def _check_physical(self, device: str) -> Node:
        """Can a physical volume be made of the device? Its node. Raises Refusal, GuestError ENOENT."""
        node = self._check_device(device)
        if node.size < write.LEAST:
            raise Refusal(f"Cannot use {self.devices.canonical(device)}: device is too small (pv_min_size)")
        return node

    def create_physical(self, device: str) -> None:
        """Make a device a physical volume; what else it held is wiped. Raises Refusal, GuestError."""
        name = self.devices.canonical(device)
        node = self._check_physical(name)
        owner = self.owner(name)
        label = self.devices.lvm().labels.get(name)
        if owner is not None:
            raise Refusal(
                f'Can\'t initialize physical volume "{name}" of volume group "{owner[0].name}" without -ff\n'
                f"  {name}: physical volume not initialized."
            )
        if label is not None and label.flags & 1:
            raise Refusal(
                f"PV {name} is used by a VG but its metadata is missing.\n"
                f"  Can't initialize PV '{name}' without -ff.\n  {name}: physical volume not initialized."
            )
        try:
            write.initialise(node, new_uuid())
        finally:
            self.devices.forget()
            self.devices.regroup()

    def remove_physical(self, device: str) -> None:
        """Take a physical volume's label away; a device without one stays as it is. Raises Refusal, GuestError."""
        name = self.devices.canonical(device)
        node = self._check_device(name)
        owner = self.owner(name)
        if owner is not None:
            group = owner[0].name
            raise Refusal(
                f'WARNING: PV {name} is used by VG {group}.\nReally WIPE LABELS from physical volume "{name}" of '
                f'volume group "{group}" [y/n]? [n]\n  {name}: physical volume label not removed.'
            )
        if name in self.devices.lvm().labels:
            try:
                write.erase(node)
            finally:
                self.devices.regroup()

    def resize_physical(self, device: str, size: int | None = None) -> None:
        """A physical volume has ``size`` bytes from now on, None: as many as its device. Raises Refusal, GuestError."""
        name = self.devices.canonical(device)
        node = self._check_device(name)
        if name not in self.devices.lvm().labels:
            raise Refusal(f'Failed to find physical volume "{name}".')
        whole = node.size // 512 * 512
        lead = ""
        if size is not None and size != whole:
            lead = f"WARNING: {name}: Pretending size is {size // 512} not {whole // 512} sectors.\n  "
            if size > whole:
                raise Refusal(f"{lead}{name}: the device has no more than {whole // 512} sectors.")
            if size < write.LEAST:
                raise Refusal(f"{lead}Size must exceed minimum of {write.LEAST // 512} sectors on PV {name}.")
        size = whole if size is None else size
        owner = self.owner(name)
        if owner is not None:
            draft = self._draft(owner[0].name)
            try:
                draft.resize_physical(owner[1].name, size)
            except Refusal as refusal:
                raise Refusal(f"{lead}{refusal}") from refusal
            self._save(draft, f"pvresize {name}")
        try:
            write.relabel(node, size=size)
            node.flush()
        finally:
            self.devices.regroup()

    def renew_physical(self, device: str) -> None:
        """Give a physical volume another uuid. Raises Refusal when its group has active volumes, GuestError."""
        name = self.devices.canonical(device)
        node = self.devices.open(name)
        if name not in self.devices.lvm().labels:
            raise Refusal(f'Failed to find physical volume "{name}".')
        owner = self.owner(name)
        if owner is None:
            write.relabel(node, uuid=new_uuid())
            node.flush()
            self.devices.regroup()
            return
        if self._active(owner[0]):
            raise Refusal(
                f"Volume group containing {name} has active logical volumes\n  Physical volume {name} not changed"
            )
        draft = self._draft(owner[0].name)
        uuid = draft.renew_physical(owner[1].name)
        # the label goes first: the old text then misses a device, and the new one is on the way
        write.relabel(node, uuid=uuid)
        node.flush()
        self._save(draft, f"pvchange -u {name}")

    # ---- volume groups

    def _active(self, group: VolumeGroup) -> bool:
        return self.devices.active(group.name) and any(lv.visible for lv in group.volumes.values())

    def _taken(self, name: str) -> bool:
        """Is there something of that name below /dev?"""
        path = f"/dev/{name}"
        if name in _TAKEN or path in (*self.devices.disks(), *self.devices.partitions()):
            return True
        found = self.devices.lvm().group(name)
        return found is not None and self._active(found)

    def _check_name(self, name: str) -> None:
        trouble = group_trouble(name)
        if trouble:
            raise Refusal(f'{trouble}\n  New volume group name "{name}" is invalid.')
        if self._taken(name):
            raise Refusal(f"/dev/{name}: already exists in filesystem")

    def create_group(self, name: str, devices: list[str]) -> None:
        """Make a volume group of physical volumes; devices that are none become some. Raises Refusal, GuestError."""
        name = name.removeprefix("/dev/")
        self._check_name(name)
        if self.devices.lvm().group(name) is not None:
            raise Refusal(f"A volume group called {name} already exists.")
        members: list[PhysicalVolume] = []
        fresh: list[tuple[Node, str]] = []
        names = [self.devices.canonical(device) for device in devices]
        for device in names:
            if names.count(device) > 1:
                raise Refusal(
                    f"Failed to find cached info for PV {device}.\n  PV {device} cannot be added to VG {name}."
                )
            owner = self.owner(device)
            if owner is not None:
                raise Refusal(
                    f"Physical volume '{device}' is already in volume group '{owner[0].name}'\n"
                    f"  Unable to add physical volume '{device}' to volume group '{owner[0].name}'\n"
                    f"  {device}: physical volume not initialized."
                )
            node = self.devices.open(device)
            label = self.devices.lvm().labels.get(device)
            if label is not None and label.flags & 1:
                raise Refusal(f"PV {device} is used by a VG but its metadata is missing.")
            if label is None:
                try:
                    self._check_physical(device)
                except Refusal as refusal:
                    if self.users(device):
                        raise
                    raise Refusal(f"{refusal}\n  Command requires all devices to be found.") from refusal
            pv = PhysicalVolume("", label.uuid if label is not None else new_uuid())
            pv.device = pv.path = device
            pv.node = node
            pv.size = (node.size if label is None else min(node.size, label.device_size or node.size)) // 512 * 512
            pv.pe_start = label.data[0].offset if label is not None and label.data else write.DATA_START
            members.append(pv)
            if label is None:
                fresh.append((node, pv.uuid))
        drives = [drive for device in devices for drive in self.devices.parents(device)]
        sizes = list(dict.fromkeys(drive.sector_size for drive in drives))
        if len(sizes) > 1:
            raise Refusal(f"Devices have inconsistent logical block sizes ({sizes[0]} and {sizes[1]}).")
        draft = Draft.new(name, members)
        try:
            for node, uuid in fresh:
                write.initialise(node, uuid)
        finally:
            self.devices.forget()
            self.devices.regroup()
        self._save(draft, f"vgcreate {name} {' '.join(str(pv.path) for pv in members)}")
        write.mark([pv.node for pv in members if pv.node is not None])
        self.devices.regroup()

    def remove_group(self, name: str) -> None:
        """Remove a group with all its volumes. Raises Refusal when one of these is used."""
        name = name.removeprefix("/dev/")
        if not name:
            raise Refusal('Volume group name "" has invalid characters.\n  Cannot process volume group ')
        group = self.group(name)
        self._check_removable(group)
        try:
            write.clear(self._members(group))
        finally:
            self.devices.regroup()

    def _check_removable(self, group: VolumeGroup) -> None:
        check_changeable(group)
        for lv in group.volumes.values():
            self._check_unused(lv)

    def rename_group(self, name: str, new: str) -> None:
        """Rename a group, also while its volumes are mounted. Raises Refusal."""
        name, new = name.removeprefix("/dev/"), new.removeprefix("/dev/")
        self._check_name(new)
        draft = self._draft(name)
        if self.devices.lvm().group(new) is not None:
            raise Refusal(f'New VG name "{new}" already exists')
        draft.rename(new)
        self._save(draft, f"vgrename {name} {new}")

    def renew_group(self, name: str) -> None:
        """Give a group another uuid. Raises Refusal when it has active volumes."""
        if self._active(self.group(name)):
            raise Refusal("Volume group has active logical volumes")
        draft = self._draft(name)
        draft.renew_uuid()
        self._save(draft, f"vgchange -u {name}")

    # ---- logical volumes

    def create(self, name: str, group: str, *, size: int | None = None, percent: int = 100) -> None:
        """Make a linear volume of ``size`` bytes, rounded up to whole extents, or of ``percent`` of the free ones,
        rounded down. What it would show of old signatures is wiped. Raises Refusal."""
        plan, name = self._named(name, group)
        if size is None:
            extents = plan.share(percent, up=False)
            if not extents:
                raise Refusal("Calculated size of logical volume is 0 extents. Needs to be larger.")
        else:
            extents = plan.extents(size)
        plan.create(name, extents, int(time.time()))
        with LogicalNode(plan.volume(name), writable=True) as node:
            node.write(0, bytes(min(_HEAD, node.size)))
            write.wipe_signatures(node)
        self._save(plan, f"lvcreate {name} {plan.name}")

    def _named(self, name: str, group: str) -> tuple[Draft, str]:
        group = group.removeprefix("/dev/")
        plain = name.removeprefix("/dev/")
        first, slash, rest = plain.partition("/")
        if slash:
            if first != group:
                raise Refusal(f'Inconsistent volume group names given: "{first}" and "{group}"')
            plain = rest
        trouble = volume_trouble(plain)
        if trouble:
            raise Refusal(f'Logical volume name "{plain}" is invalid.' if trouble == "invalid" else trouble)
        draft = self._draft(group)
        _check_length(group, plain)
        return draft, plain

    def _found(self, device: str) -> LogicalVolume:
        """The volume of a device's name. Raises GuestError ENOENT, Refusal for devices of other kinds."""
        name = self.devices.canonical(device)
        try:
            # its bytes need not be readable
            return self.devices.volume(name)
        except GuestError as error:
            self.devices.open(name)
            raise Refusal(f'"{device}": Invalid path for Logical Volume.') from error

    def resize(self, device: str, *, size: int | None = None, less: int = 0, percent: int = 0) -> None:
        """Give a volume ``size`` bytes, rounded up to whole extents; or ``less`` fewer, rounded down; or ``percent``
        of the free extents more, rounded up. A mounted one may grow. Raises Refusal, GuestError ENOENT."""
        lv = self._found(device)
        draft = self._draft(lv.group.name)
        unit = lv.group.extent_size
        if less:
            if less // unit >= lv.extents:
                raise Refusal(f"Unable to reduce {lv.group.name}/{lv.name} below 1 extent.")
            extents = lv.extents - less // unit
        elif size is None:
            extents = lv.extents + draft.share(percent, up=True)
        else:
            extents = draft.extents(size)
        if extents == lv.extents:
            return
        if extents < lv.extents:
            self._check_unused(lv)
        if draft.resize(lv.name, extents):
            self._save(draft, f"lvresize {lv.group.name}/{lv.name}")

    def rename(self, device: str, new: str) -> None:
        """Rename a volume (/dev/VG/LV or VG/LV) to a name, with or without its group, also while it is mounted.

        Raises Refusal.
        """
        group, _, name = device.removeprefix("/dev/").partition("/")
        if not name:
            if device.startswith("/dev/"):
                raise Refusal(
                    f'"{device}": Invalid path for Logical Volume.\n  Please provide a valid volume group name'
                )
            raise Refusal(f'Path required for Logical Volume "{device}".\n  Please provide a valid volume group name')
        first, slash, rest = new.removeprefix("/dev/").partition("/")
        if slash and first != group:
            raise Refusal(f'Logical volume names must have the same volume group ("{group}" or "{first}")')
        plain = rest if slash else first
        trouble = volume_trouble(plain)
        if trouble:
            raise Refusal(f'New logical volume name "{plain}" is invalid' if trouble == "invalid" else trouble)
        if len(plain) > 125 - len(group):
            raise Refusal(f'New logical volume name "{plain}" may not exceed {125 - len(group)} characters.')
        _check_length(group, plain)
        if plain == name:
            raise Refusal("Old and new logical volume names must differ")
        draft = self._draft(group)
        draft.rename_volume(name, plain)
        self._save(draft, f"lvrename {group}/{name} {plain}")

    def remove(self, device: str) -> None:
        """Remove a volume, or all of a group by its name /dev/VG. Raises Refusal when one is used, GuestError."""
        name = self.devices.canonical(device)
        found = self.devices.lvm().group(name.removeprefix("/dev/")) if name.startswith("/dev/") else None
        if found is not None and name.count("/") == 2 and self._active(found):
            doomed = [lv for lv in found.volumes.values() if lv.visible]
        else:
            if not name.startswith("/dev/"):
                raise GuestError(errno.ENOENT, device)
            try:
                doomed = [self.devices.volume(name)]
            except GuestError as error:
                self.devices.open(name)
                stem = name.removeprefix("/dev/")
                raise Refusal(f'Volume group "{stem}" not found\n  Cannot process volume group {stem}') from error
        draft = self._draft(doomed[0].group.name)
        for lv in doomed:
            self._check_unused(lv)
            for snapshot in lv.snapshots:
                self._check_unused(snapshot)
        for lv in doomed:
            if lv.name in draft.group.volumes:
                draft.remove(lv.name)
        self._save(draft, f"lvremove {name}")

    # ---- all

    def remove_all(self) -> None:
        """Remove all volumes, groups and physical volumes: nothing when one of them is used. Raises Refusal."""
        found = self.devices.lvm()
        for group in found.groups:
            for lv in group.volumes.values():
                try:
                    self._check_unused(lv)
                except Refusal as refusal:
                    raise Refusal(f"lvremove: /dev/{group.name}/{lv.name}:   {refusal}") from refusal
        for group in found.groups:
            try:
                self._check_removable(group)
            except Refusal as refusal:
                raise Refusal(f"vgremove: {group.name}:   {refusal}") from refusal
        try:
            for group in found.groups:
                write.clear(self._members(group))
            for path in found.labels:
                write.erase(found.nodes[path])
        finally:
            self.devices.regroup()


def _check_length(group: str, name: str) -> None:
    """device-mapper's names have no more than 127 characters, with what lvm2 puts between."""
    length = len(group) + len(name) + 3
    if length > 127:
        raise Refusal(f'Internal error: LV name "{group}/{name}" length {length} is not supported.')
