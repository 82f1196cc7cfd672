"""From nodes to volume groups: labels, then every metadata area, then the newest text of each group."""

from __future__ import annotations

from ...errors import CorruptError, CowshedError, HostError
from .label import Label, read_area, read_label
from .model import PhysicalVolume, VolumeGroup, read_groups
from .text import parse

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

    from ...block.node import Node

#: metadata areas on one device: a label has room for no more than this many
MAX_AREAS = 32


class Found:
    """What `scan` saw. ``labels``: by the caller's name of the device; ``groups``; ``orphans``: devices with a label
    that no group names; ``twins``: uuids that two devices have; ``nodes``: what was looked at; ``warnings``: damaged
    copies that a newer or equal one stands in for, and the like."""

    __slots__ = ("groups", "labels", "nodes", "orphans", "twins", "warnings")

    def __init__(self) -> None:
        self.labels: dict[str, Label] = {}
        self.groups: list[VolumeGroup] = []
        self.nodes: dict[str, Node] = {}
        self.orphans: list[str] = []
        self.twins: set[str] = set()
        self.warnings: list[str] = []

    def group(self, name: str) -> VolumeGroup | None:
        """The group of that name (or uuid); raises CorruptError when two have it."""
        found = [group for group in self.groups if name in (group.name, group.uuid)]
        if len(found) > 1:
            raise CorruptError(f"LVM2: {len(found)} volume groups are called '{name}'", layer="lvm2", value=name)
        return found[0] if found else None


def scan(nodes: Mapping[str, Node], *, strict: bool = True) -> Found:
    """Find physical volumes among ``nodes`` (by any names) and read the groups that they make up.

    A damaged copy of the metadata is passed over as long as another is whole; the highest seqno wins. Nodes without a
    label are ignored. With ``strict`` raises CorruptError when nothing but damaged or senseless copies was found, and
    HostError when a node can't be read; without, they are no more than warnings.
    """
    found = Found()
    found.nodes = dict(nodes)
    devices: dict[str, str] = {}
    newest: dict[str, VolumeGroup] = {}
    damaged: CowshedError | None = None
    read: set[str] = set()
    for path, node in nodes.items():
        try:
            label = read_label(node)
        except (CorruptError, HostError) as error:
            if strict and isinstance(error, HostError):
                raise
            damaged = error
            found.warnings.append(f"{path}: {error}")
            continue
        if label is None:
            continue
        if label.uuid in devices:
            found.twins.add(label.uuid)
            found.warnings.append(f"{path}: the same physical volume as {devices[label.uuid]}")
            continue
        found.labels[path] = label
        devices[label.uuid] = path
        for area in label.metadata[:MAX_AREAS]:
            try:
                copy = read_area(node, area)
                if copy.text is None or copy.ignored or copy.text in read:
                    continue
                groups = read_groups(parse(copy.text))
                read.add(copy.text)
            except (CorruptError, HostError) as error:
                damaged = error
                found.warnings.append(f"{path}: {error}")
                continue
            for group in groups:
                known = newest.get(group.uuid)
                if known is None or group.seqno > known.seqno:
                    newest[group.uuid] = group
                elif group.seqno == known.seqno:
                    found.warnings.append(f"{path}: another text of volume group '{group.name}' has the same seqno")
    if strict and damaged is not None and not newest:
        raise damaged
    owned: set[str] = set()
    for group in newest.values():
        for pv in group.physical.values():
            _attach(group, pv, devices, found, nodes)
            owned.add(pv.uuid)
        found.groups.append(group)
    found.orphans = [path for path, label in found.labels.items() if label.uuid not in owned]
    return found


def _attach(
    group: VolumeGroup, pv: PhysicalVolume, devices: Mapping[str, str], found: Found, nodes: Mapping[str, Node]
) -> None:
    path = devices.get(pv.uuid)
    if path is None:
        group.warnings.append(f"the physical volume {pv.uuid} ({pv.device}) is missing")
        return
    end = pv.pe_start + pv.extents * group.extent_size
    if end > nodes[path].size:
        group.warnings.append(f"{path} is smaller than the physical volume {pv.uuid} is said to be")
    pv.path = path
    pv.node = nodes[path]
