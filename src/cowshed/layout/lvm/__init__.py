"""LVM2's on-disk metadata, read natively: labels, metadata areas, volume groups, and logical volumes as nodes.

No device-mapper and no root: whatever holds physical volumes (devices, files, disk images) is a `Node`.

    found = scan({"/dev/sdb": node, "/dev/sdc": other})      # scan.py
    group = found.group("vg0")
    with_node = LogicalNode(group, group.volume("root"))     # node.py

Everything read is checked before it is believed: sizes are bounded, references may not run in circles, no two volumes
may own the same extent. What breaks these rules raises `CorruptError`; what is sound but not known here raises
`FeatureError` when its bytes are asked for.
"""

from __future__ import annotations

from .model import LogicalVolume, PhysicalVolume, Segment, VolumeGroup
from .scan import Found, scan

__all__ = ["Found", "LogicalVolume", "PhysicalVolume", "Segment", "VolumeGroup", "scan"]
