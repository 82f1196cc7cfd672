"""The disks that were added and what they divide into: /dev/sda, /dev/sda1, /dev/VG/LV, each a Node when asked for."""

from __future__ import annotations

import errno

from ..block.filter.slice import SliceNode
from ..errors import CowshedError, ForeignError, HostError
from .filesystem.base import GuestError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping
    from typing import Any

    from ..block.node import Node
    from ..layout.lvm.model import LogicalVolume
    from ..layout.lvm.node import LogicalNode
    from ..layout.lvm.scan import Found
    from ..layout.partition import Partition, Table

#: MBR types and GPT types that hold no file system: extended partitions, Windows' dynamic disks and reserve
_HOLLOW_MBR = (0x05, 0x0F, 0x42, 0x85)
_HOLLOW_GPT = (
    "5808C8AA-7E8F-42E0-85D2-E1E90434CFB3",
    "AF9B60A0-1431-4F62-BC68-3311714A69AD",
    "E3C9E316-0B5C-4DB8-817D-F92DF00215AE",
)


def letters(index: int) -> str:
    """0 -> a, 25 -> z, 26 -> aa: how the kernel counts disks."""
    text = ""
    index += 1
    while index:
        index, rest = divmod(index - 1, 26)
        text = chr(97 + rest) + text
    return text


class Drive:
    """One disk: how it was added, and its node once it is open.

    ``ref``: what `open_image` takes; ``writable``: changes go to the image, otherwise they are forgotten at the end;
    ``sector``: bytes of a logical sector.
    """

    def __init__(
        self,
        ref: str | Mapping[str, Any],
        *,
        fmt: str | None = None,
        writable: bool = False,
        label: str | None = None,
        sector: int | None = None,
        secrets: Mapping[str, bytes] | None = None,
    ) -> None:
        self.ref = ref
        self.fmt = fmt
        self.writable = writable
        self.label = label
        self.sector = sector
        self.secrets = secrets
        self.path = ""
        self._node: Node | None = None
        self._table: Table | None = None
        self._read = False

    @property
    def node(self) -> Node:
        """The open disk. Raises OpenError."""
        if self._node is None:
            from ..block.graph import open_image

            # somebody else may be using what is only looked at; two file systems on one disk would wreck it
            node = open_image(
                self.ref,
                fmt=self.fmt,
                writable=self.writable,
                force_share=not self.writable,
                exclusive=self.writable,
                secrets=self.secrets,
                warn=lambda text: None,
            )
            if not self.writable:
                from .scratch import ScratchNode

                node = ScratchNode(node)
            self._node = node
        return self._node

    @property
    def sector_size(self) -> int:
        from ..layout.partition import sector_size_of

        return self.sector or sector_size_of(self.node)

    def table(self) -> Table:
        """Its partition table. Raises ForeignError without one, CorruptError."""
        from ..layout.partition import read_table

        if self._table is None:
            self._table = read_table(self.node, self.sector)
        return self._table

    def partitions(self) -> list[Partition]:
        """Its partitions, none when there is no table that can be read."""
        from .filesystem.table import kind_of

        if self._table is None and not self._read:
            self._read = True
            try:
                # a file system over the whole disk may begin like a table: the kernel believes the file system
                if not self._plain(kind_of(self.node)):
                    self.table()
            except CowshedError as error:
                if not isinstance(error, ForeignError):
                    return []
        return self._table.partitions if self._table is not None else []

    def divided(self) -> bool:
        """Is it divided into partitions, or meant to be (an empty GPT)?"""
        from ..layout.partition import read_table
        from .filesystem.table import kind_of

        if self.partitions():
            return True
        try:
            return not self._plain(kind_of(self.node)) and read_table(self.node, self.sector).label == "gpt"
        except CowshedError:
            return False

    @staticmethod
    def _plain(kind: str) -> bool:
        return bool(kind) and kind not in ("iso9660", "LVM2_member", "linux_raid_member", "swap")

    def forget(self) -> None:
        """The table has changed."""
        self._table = None
        self._read = False

    def close(self) -> None:
        if self._node is not None:
            self._node.close()
            self._node = None


class Devices:
    """All devices of a session. Names are text and always begin with /dev/."""

    def __init__(self) -> None:
        self.drives: list[Drive] = []
        self._nodes: dict[str, Node] = {}
        self._found: Found | None = None
        #: nodes of logical volumes by uuid: they stay while the groups around them change
        self._logical: dict[str, LogicalNode] = {}
        #: what LVM may see: names of disks and partitions; None: everything
        self.filter: list[str] | None = None
        #: devices opened under a name of their own (/dev/mapper/NAME), and the device that each came from
        self.mapped: dict[str, tuple[Node, str]] = {}
        #: files of the guest that are mounted, as /dev/loopN, and the device that each is on
        self.loops: dict[str, tuple[Node, str]] = {}
        #: called with the node of each volume group member that is opened
        self.active: Callable[[str], bool] = lambda name: True
        #: called with old and new names of volumes that are open
        self.renamed: Callable[[dict[str, str]], None] = lambda names: None

    def add(self, drive: Drive) -> str:
        """The drive gets the next name, which is returned."""
        drive.path = f"/dev/sd{letters(len(self.drives))}"
        self.drives.append(drive)
        return drive.path

    # ---- names

    def disks(self) -> list[str]:
        return [drive.path for drive in self.drives]

    def partitions(self) -> list[str]:
        return [f"{drive.path}{part.number}" for drive in self.drives for part in drive.partitions()]

    def volumes(self) -> list[str]:
        """The logical volumes that can be seen, sorted."""
        return sorted(f"/dev/{lv.group.name}/{lv.name}" for lv in self._visible())

    def _visible(self) -> Iterator[LogicalVolume]:
        for group in self.lvm().groups:
            if self.active(group.name):
                for lv in group.volumes.values():
                    if lv.visible and not lv.type.endswith("-pool"):
                        yield lv

    def canonical(self, name: str) -> str:
        """The name that a device is listed by: /dev/hda and /dev/vda are /dev/sda, /dev/mapper/VG-LV is /dev/VG/LV."""
        if name.startswith(("/dev/hd", "/dev/vd")):
            return "/dev/sd" + name[7:]
        if name.startswith("/dev/mapper/") and name not in self.mapped:
            for lv in self._visible():
                if name[12:] == mapper_name(lv.group.name, lv.name):
                    return f"/dev/{lv.group.name}/{lv.name}"
        if name.startswith("/dev/disk/guestfs/"):
            label, digits = name[18:], ""
            while label:
                for drive in self.drives:
                    if drive.label == label:
                        return drive.path + digits
                if not label[-1].isdigit():
                    break
                label, digits = label[:-1], label[-1] + digits
        return name

    def exists(self, name: str) -> bool:
        """Is there a device of that name? Opens nothing that it need not."""
        try:
            self.open(name)
        except GuestError:
            return False
        return True

    # ---- nodes

    def drive(self, name: str) -> Drive:
        """The disk of that name. Raises GuestError ENOENT."""
        name = self.canonical(name)
        for drive in self.drives:
            if drive.path == name:
                return drive
        raise GuestError(errno.ENOENT, name)

    def part(self, name: str) -> tuple[Drive, int]:
        """The disk and number of a partition's name. Raises GuestError ENOENT, EINVAL for a whole disk's name."""
        name = self.canonical(name)
        stem = name.rstrip("0123456789")
        drive = self.drive(stem)
        if stem == name:
            raise GuestError(errno.EINVAL, name)
        if len(name) - len(stem) > 9:  # a guest's fstab may say anything
            raise GuestError(errno.ENOENT, name)
        return drive, int(name[len(stem) :])

    def open(self, name: str) -> Node:
        """The node of a device. Raises GuestError ENOENT, OpenError."""
        name = self.canonical(name)
        node = self._nodes.get(name)
        if node is None:
            node = self._nodes[name] = self._make(name)
        return node

    def _make(self, name: str) -> Node:
        if name in self.mapped:
            return self.mapped[name][0]
        if name in self.loops:
            return self.loops[name][0]
        stem = name.rstrip("0123456789")
        for drive in self.drives:
            if drive.path == name:
                return drive.node
            if drive.path == stem:
                for part in drive.partitions():
                    if name[len(stem) :] == str(part.number):
                        return SliceNode(drive.node, part.start, part.size, owned=False)
        if name.count("/") == 3:
            for lv in self._visible():
                if name == f"/dev/{lv.group.name}/{lv.name}":
                    return self._volume(lv)
        raise GuestError(errno.ENOENT, name)

    def _volume(self, lv: LogicalVolume) -> Node:
        from ..errors import UnsupportedError
        from ..layout.lvm.node import LogicalNode

        writable = all(pv.node is not None and not pv.node.read_only for pv in lv.group.physical.values())
        try:
            made = LogicalNode(lv, writable=writable)
        except UnsupportedError:
            # mirrors, snapshots and their origins are read; writing to them says why it is refused
            made = LogicalNode(lv)
        known = self._logical.get(lv.uuid)
        if known is not None and known.exceptions is made.exceptions is None and known.read_only == made.read_only:
            # somebody may have it mounted
            known.follow(lv)
            return known
        self._logical[lv.uuid] = made
        return made

    # ---- LUKS

    def unlock(self, device: str, name: str, words: Iterable[bytes], *, readonly: bool = False) -> str:
        """Open what is encrypted on a device as /dev/mapper/NAME, with the first of ``words`` that fits.

        Raises GuestError EEXIST, EBUSY when it is open under another name, ForeignError when it is not LUKS,
        CowshedError (EPERM) when no word fits.
        """
        from ..block.format.luks.node import open_volume

        path = f"/dev/mapper/{name}"
        if path in self.mapped:
            raise GuestError(errno.EEXIST, path)
        device = self.canonical(device)
        if any(source == device for _, source in self.mapped.values()):
            # what is mounted from both would be two drivers on the same bytes
            raise GuestError(errno.EBUSY, device)
        below = self.open(device)
        # a view of its own, so that locking it again closes nothing else
        view = SliceNode(below, 0, below.size, owned=False)
        self.mapped[path] = (open_volume(view, words, writable=not readonly and not below.read_only), device)
        self._found = None
        return path

    def lock(self, path: str) -> None:
        """Close what `unlock` opened. Raises GuestError ENOENT."""
        if path not in self.mapped:
            raise GuestError(errno.ENOENT, path)
        node, _ = self.mapped.pop(path)
        self._nodes.pop(path, None)
        self._found = None
        node.close()

    def parents(self, name: str) -> list[Drive]:
        """The disks that a device's bytes are on."""
        below = self.below(name)
        return [drive for drive in self.drives if drive.path in below]

    def below(self, name: str) -> set[str]:
        """The devices that a device's bytes are on, itself among them."""
        name = self.canonical(name)
        if name in self.mapped:
            return {name} | self.below(self.mapped[name][1])
        if name in self.loops:
            return {name} | self.below(self.loops[name][1])
        stem = name.rstrip("0123456789")
        found = {drive.path for drive in self.drives if drive.path in (name, stem)}
        if found:
            return {name} | found
        lv = self.volume(name)
        paths = {pv.path for pv in lv.group.physical.values() if pv.path is not None}
        return {name}.union(*(self.below(path) for path in paths))

    # ---- LVM

    def lvm(self) -> Found:
        """The volume groups on all devices that LVM may see; read once, until something changes."""
        if self._found is None:
            from ..layout.lvm import scan

            names = [name for name in self.bare() if self._seen(name)]
            self._found = scan({name: self.open(name) for name in names}, strict=False)
        return self._found

    def _seen(self, name: str) -> bool:
        return self.filter is None or name in self.filter or name.rstrip("0123456789") in self.filter

    def regroup(self) -> None:
        """Volume groups have changed: look again. Nodes of volumes stay, and so does what is mounted from them, under
        the names that these have now."""
        old = {f"/dev/{node.filename}": uuid for uuid, node in self._logical.items()}
        self._nodes = {name: node for name, node in self._nodes.items() if node.driver != "lvm2"}
        self._found = None
        now: dict[str, str] = {}
        for group in self.lvm().groups:
            for lv in group.volumes.values():
                if lv.uuid in self._logical:
                    now[lv.uuid] = f"/dev/{group.name}/{lv.name}"
                    try:
                        self._volume(lv)
                    except CowshedError:
                        # what can't be opened any more says why when it is asked for
                        del self._logical[lv.uuid]
        names = {name: now[uuid] for name, uuid in old.items() if now.get(uuid, name) != name}
        if names:
            self.mapped = {path: (node, names.get(source, source)) for path, (node, source) in self.mapped.items()}
            self.renamed(names)

    def volume(self, name: str) -> LogicalVolume:
        """The logical volume of that device name. Raises GuestError ENOENT."""
        name = self.canonical(name)
        for lv in self._visible():
            if name == f"/dev/{lv.group.name}/{lv.name}":
                return lv
        raise GuestError(errno.ENOENT, name)

    def bare(self) -> list[str]:
        """What can hold a file system or a physical volume, LVs aside: disks without partitions, then partitions, then
        what was unlocked."""
        whole = [drive.path for drive in self.drives if not drive.partitions()]
        return whole + self.partitions() + list(self.mapped)

    def forget(self) -> None:
        """Tables or volume groups may have changed: look again when asked."""
        self._nodes = {}
        self._found = None
        for drive in self.drives:
            drive.forget()

    # ---- what is on them

    def list_filesystems(self) -> list[tuple[str, str]]:
        """(device, kind) of what holds a file system or could: disks without partitions, partitions, unlocked devices,
        then LVs. Members of something bigger, and containers still locked, are left out; "unknown" is listed, also for
        a volume with a physical volume missing."""
        from .filesystem.table import kind_of

        whole = [drive.path for drive in self.drives if not drive.partitions()]
        parts = [
            f"{drive.path}{part.number}"
            for drive in self.drives
            for part in drive.partitions()
            if part.type not in _HOLLOW_MBR and part.type not in _HOLLOW_GPT
        ]
        rows = []
        for name in (*whole, *parts, *self.mapped, *self.volumes()):
            try:
                kind = kind_of(self.open(name))
            except HostError:
                kind = ""
            if kind.endswith("_member") or kind == "crypto_LUKS":
                continue
            rows.append((name, kind or "unknown"))
        return rows

    def close(self) -> None:
        for node in self._nodes.values():
            if node.driver == "slice":
                node.close()
        for logical in self._logical.values():
            logical.close()
        self._nodes = {}
        self._logical = {}
        for node, _ in self.mapped.values():
            node.close()
        self.mapped = {}
        for drive in self.drives:
            drive.close()


def mapper_name(group: str, volume: str) -> str:
    """How device-mapper calls a logical volume: hyphens doubled, one between."""
    return f"{group.replace('-', '--')}-{volume.replace('-', '--')}"
