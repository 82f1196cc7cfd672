"""cowshed: virtual disk images without root, daemon or appliance.

    import cowshed

    cowshed.create("base.qcow2", "qcow2", size="10G")
    with cowshed.open("base.qcow2", writable=True) as disk:
        disk.write(1 << 20, b"hello")
    cowshed.info("base.qcow2").virtual_size         # 10737418240
    cowshed.convert("base.qcow2", "copy.vmdk", "vmdk")

Names are loaded when they are first used; importing the package loads nothing else. Functions take an image as a path,
``json:{…}`` text, a mapping of options or an open `Node`, raise the errors of `cowshed.errors` (all `CowshedError`),
and open by name no more than the image may name under ``trust`` ("local" unless said otherwise, see block/trust.py).
"""

from __future__ import annotations

__version__ = "0.1.0"

TYPE_CHECKING = False
if TYPE_CHECKING:
    from . import guest as guest
    from . import pool as pool
    from .block.facts import Bitmap, CheckResult, Measure, Snapshot
    from .block.filename import parse_image_opts
    from .block.graph import open_image as open
    from .block.node import COMPRESSED, DATA, ENCRYPTED, HOLE, ZERO, Extent, Node
    from .block.options import Option, OptionTable
    from .block.registry import Driver
    from .block.registry import register as register_driver
    from .block.secret import Secrets
    from .errors import (
        CorruptError,
        CowshedError,
        FeatureError,
        ForeignError,
        FormatError,
        HostError,
        LockError,
        NoSpaceError,
        OpenError,
        OptionError,
        RangeError,
        ReadOnlyError,
        TrustError,
        UnsupportedError,
        UsageError,
    )
    from .ops.amend import amend
    from .ops.bitmap import bitmap, bitmap_list
    from .ops.check import CheckReport, check
    from .ops.commit import commit
    from .ops.compare import Comparison, compare
    from .ops.convert import convert
    from .ops.create import create
    from .ops.info import ImageInfo, info
    from .ops.map import MapEntry
    from .ops.map import map_image as map
    from .ops.measure import measure
    from .ops.rebase import rebase
    from .ops.resize import resize
    from .ops.snapshot import snapshot_apply, snapshot_create, snapshot_delete, snapshot_list
    from .progress import Progress

#: public name -> where it lives: a module below this package, and its name there when that is another
_HOMES = {
    # verbs
    "amend": "ops.amend",
    "bitmap": "ops.bitmap",
    "bitmap_list": "ops.bitmap",
    "check": "ops.check",
    "commit": "ops.commit",
    "compare": "ops.compare",
    "convert": "ops.convert",
    "create": "ops.create",
    "info": "ops.info",
    "map": "ops.map:map_image",
    "measure": "ops.measure",
    "open": "block.graph:open_image",
    "parse_image_opts": "block.filename",
    "rebase": "ops.rebase",
    "register_driver": "block.registry:register",
    "resize": "ops.resize",
    "snapshot_apply": "ops.snapshot",
    "snapshot_create": "ops.snapshot",
    "snapshot_delete": "ops.snapshot",
    "snapshot_list": "ops.snapshot",
    # things
    "Bitmap": "block.facts",
    "CheckReport": "ops.check",
    "CheckResult": "block.facts",
    "Comparison": "ops.compare",
    "Driver": "block.registry",
    "Extent": "block.node",
    "ImageInfo": "ops.info",
    "MapEntry": "ops.map",
    "Measure": "block.facts",
    "Node": "block.node",
    "Option": "block.options",
    "OptionTable": "block.options",
    "Progress": "progress",
    "Secrets": "block.secret",
    "Snapshot": "block.facts",
    # kinds of extents
    "COMPRESSED": "block.node",
    "DATA": "block.node",
    "ENCRYPTED": "block.node",
    "HOLE": "block.node",
    "ZERO": "block.node",
    # errors
    "CorruptError": "errors",
    "CowshedError": "errors",
    "FeatureError": "errors",
    "ForeignError": "errors",
    "FormatError": "errors",
    "HostError": "errors",
    "LockError": "errors",
    "NoSpaceError": "errors",
    "OpenError": "errors",
    "OptionError": "errors",
    "RangeError": "errors",
    "ReadOnlyError": "errors",
    "TrustError": "errors",
    "UnsupportedError": "errors",
    "UsageError": "errors",
}

__all__ = [
    "COMPRESSED",
    "DATA",
    "ENCRYPTED",
    "HOLE",
    "ZERO",
    "Bitmap",
    "CheckReport",
    "CheckResult",
    "Comparison",
    "CorruptError",
    "CowshedError",
    "Driver",
    "Extent",
    "FeatureError",
    "ForeignError",
    "FormatError",
    "HostError",
    "ImageInfo",
    "LockError",
    "MapEntry",
    "Measure",
    "NoSpaceError",
    "Node",
    "OpenError",
    "Option",
    "OptionError",
    "OptionTable",
    "Progress",
    "RangeError",
    "ReadOnlyError",
    "Secrets",
    "Snapshot",
    "TrustError",
    "UnsupportedError",
    "UsageError",
    "amend",
    "bitmap",
    "bitmap_list",
    "check",
    "commit",
    "compare",
    "convert",
    "create",
    "info",
    "map",
    "measure",
    "open",
    "parse_image_opts",
    "rebase",
    "register_driver",
    "resize",
    "snapshot_apply",
    "snapshot_create",
    "snapshot_delete",
    "snapshot_list",
]


def __getattr__(name: str) -> object:
    if name in ("guest", "pool"):  # packages, not names in one
        __import__(f"cowshed.{name}")
        return globals()[name]
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module 'cowshed' has no attribute '{name}'")
    module_name, _, there = home.partition(":")
    module = __import__(f"cowshed.{module_name}", fromlist=(name,))
    value: object = getattr(module, there or name)
    globals()[name] = value  # the next use finds it without asking
    return value


def __dir__() -> list[str]:
    return sorted([*__all__, "__version__"])
