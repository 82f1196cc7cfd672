"""How many bytes a qcow2 file will need, before it is made.

The metadata counted is that of a fully allocated disk, so the figure for a sparse one is a little above what it takes.
"""

from __future__ import annotations

from ....errors import OptionError
from ...facts import Measure
from ...node import COMPRESSED, DATA
from . import header as hd
from .create import PREALLOCATIONS

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from ...node import Node


def measure(values: dict[str, Any], size: int | None, source: Node | None) -> Measure:
    """Bytes for a disk of ``size``, or for the data of ``source``, with creation options ``values``.

    Both: the disk is that much longer than the source.

    Raises OptionError for options that make no image, and for a disk that is too large for them.
    """
    shape = _Shape(values)
    given = (source.size if size is None and source is not None else size) or 0
    cluster = 1 << shape.cluster_bits
    disk = -(-given // cluster) * cluster
    if hd.l1_entries_for(disk, shape.cluster_bits, shape.extended) * 8 > hd.MAX_L1_BYTES:
        raise OptionError(
            "The image size is too large (try using a larger cluster size)", layer="qcow2", field="size", value=disk
        )
    if values.get("preallocation") in ("falloc", "full"):
        data = disk
    elif source is None:
        data = 0
    elif values.get("backing_file") is not None:
        # what the source shares with the new backing file is not known: assume nothing
        data = disk
    else:
        data = _data(source, cluster)
    whole = disk + metadata_size(disk, shape.cluster_bits, shape.refcount_order, shape.extended)
    bitmaps = None
    if source is not None and shape.version >= 3 and source.supports_bitmaps:
        bitmaps = _bitmaps(source, cluster)
    return Measure(whole - disk + data, whole, bitmaps)


class _Shape:
    """What of the creation options decides about size. Others are not looked at here, even where create would."""

    __slots__ = ("cluster_bits", "extended", "refcount_order", "version")

    def __init__(self, values: dict[str, Any]) -> None:
        def refuse(text: str, field: str) -> OptionError:
            return OptionError(text, layer="qcow2", field=field, value=values.get(field))

        if values.get("encrypt.format") == "luks" and values.get("encrypt.key-secret") is None:
            raise refuse("Parameter 'encrypt.key-secret' is required for cipher", "encrypt.key-secret")
        self.extended = bool(values.get("extended_l2"))
        cluster = values.get("cluster_size", 65536)
        if cluster < 512 or cluster > 2 << 20 or cluster & (cluster - 1):
            raise refuse("Cluster size must be a power of two between 512 and 2048k", "cluster_size")
        self.cluster_bits = cluster.bit_length() - 1
        if self.extended and self.cluster_bits < 14:
            raise refuse(
                "Extended L2 entries are only supported with cluster sizes of at least 16384 bytes", "cluster_size"
            )
        compat = values.get("compat")
        if compat not in (None, "0.10", "1.1"):
            raise refuse(f"Invalid compatibility level: '{compat}'", "compat")
        self.version = 2 if compat == "0.10" else 3
        bits = values.get("refcount_bits", 16)
        if not bits or bits > 64 or bits & (bits - 1):
            raise refuse("Refcount width must be a power of two and may not exceed 64 bits", "refcount_bits")
        if bits != 16 and self.version < 3:
            raise refuse(
                "Different refcount widths than 16 bits require compatibility level 1.1 or above "
                "(use compat=1.1 or greater)",
                "refcount_bits",
            )
        self.refcount_order = bits.bit_length() - 1
        preallocation = values.get("preallocation") or "off"
        if preallocation not in PREALLOCATIONS:
            raise refuse(f"invalid parameter value: {preallocation}", "preallocation")


def _data(source: Node, cluster: int) -> int:
    """Bytes of the clusters that hold any data of ``source``."""
    total = 0
    counted = 0  # everything below is in the sum
    for extent in source.extents():
        if extent.kind not in (DATA, COMPRESSED):
            continue
        start = max(extent.offset // cluster * cluster, counted)
        end = -(-(extent.offset + extent.length) // cluster) * cluster
        if end > start:
            total += end - start
            counted = end
    return total


def metadata_size(disk: int, cluster_bits: int, refcount_order: int, extended: bool) -> int:
    """Bytes of header, tables and refcounts for a disk of ``disk`` bytes (whole clusters), all of it allocated."""
    cluster = 1 << cluster_bits
    entry = 16 if extended else 8
    l2_entries = _up(disk >> cluster_bits, cluster // entry)
    l1_entries = _up(l2_entries * entry >> cluster_bits, cluster // 8)
    tables = cluster + l2_entries * entry + l1_entries * 8
    clusters = (tables + disk) >> cluster_bits
    per_block = cluster * 8 >> refcount_order
    blocks = table = 0
    while True:  # the refcount structures count themselves
        more = -(-(clusters + blocks + table) // per_block)
        wider = -(-more // (cluster // 8))
        if (more, wider) == (blocks, table):
            return tables + ((blocks + table) << cluster_bits)
        blocks, table = more, wider


def _bitmaps(source: Node, cluster: int) -> int:
    """Bytes for copies of the source's persistent bitmaps: data, tables and the directory."""
    total = directory = 0
    for bitmap in source.bitmaps():
        if "in-use" in bitmap.flags:
            continue
        bits = -(-source.size // bitmap.granularity)
        data = _up(-(-bits // 8), cluster)
        total += data + _up(data // cluster * 8, cluster)
        directory += _up(24 + len(bitmap.name.encode("utf-8", "surrogateescape")), 8)
    return total + _up(directory, cluster)


def _up(value: int, unit: int) -> int:
    return -(-value // unit) * unit
