"""Partition tables, GPT and MBR: read, changed and written natively, on any node of the block engine.

    table = read_table(node)                     # GptTable or MbrTable; ForeignError when there is none
    part = table.add(table.place(size), size)    # in memory
    table.write(node)                            # durable; a cut leaves the old table or the new one
"""

from __future__ import annotations

from ...errors import CowshedError, ForeignError, UsageError
from .table import EXTENDED, LOGICAL, PRIMARY, Partition, Space, Table

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ...block.node import Node
    from .geometry import Geometry

__all__ = [
    "EXTENDED", "LOGICAL", "PRIMARY", "Partition", "Space", "Table", "create_table", "read_table", "sector_size_of",
]  # fmt: skip


def sector_size_of(node: Node) -> int:
    """The logical sector size of what a node stands on: a device's own, 512 for everything else."""
    while True:
        sector = getattr(node, "sector", 512) if node.driver == "host_device" else 512
        if isinstance(sector, int) and sector != 512:
            return sector
        below = node.children.get("file")
        if below is None:
            return 512
        node = below


def read_table(node: Node, sector_size: int | None = None, geometry: Geometry | None = None) -> Table:
    """The partition table on ``node``.

    ``sector_size``: bytes; None: the device's, or what a GPT on it was made for. ``geometry``: what the disk says of
    its cylinders. Raises ForeignError when there is none, CorruptError naming field and offset when it is damaged
    beyond what its second copy can mend (``table.problems`` tells what was mended).
    """
    from .mbr import plausible, read_mbr

    sizes = [sector_size] if sector_size is not None else [sector_size_of(node)]
    if sector_size is None:
        sizes += [size for size in (512, 4096) if size not in sizes]
    sector0 = node.read(0, min(sizes[0], node.size))
    magic = sector0[510:512] == b"\x55\xaa"
    protective = magic and any(sector0[at] == 0xEE for at in range(450, 510, 16))
    if protective or not magic:
        from .gpt import read_gpt

        fault: CowshedError | None = None
        for size in sizes:
            try:
                return read_gpt(node, size, geometry, node.read(0, size) if node.size >= size else None)
            except ForeignError as error:
                fault = fault or error
            except CowshedError as error:
                fault = error
                break
        # a protective entry alone, without any trace of a GPT, is an MBR of one partition
        if fault is not None and not (isinstance(fault, ForeignError) and protective):
            raise fault
    if not plausible(sector0):
        raise ForeignError("no partition table", layer="mbr", field="signature", offset=510)
    return read_mbr(node, sizes[0], geometry, sector0)


def create_table(
    label: str,
    node: Node,
    *,
    sector_size: int | None = None,
    geometry: Geometry | None = None,
    entries: int = 128,
    identifier: str | None = None,
) -> Table:
    """An empty table of the kind ``label`` ("gpt"; "dos", "msdos" or "mbr") for ``node``, which only `Table.write`
    changes. Boot code stays; the headers of a GPT that was there go. Raises UsageError.

    ``entries``: of a GPT. ``identifier``: the disk's GUID or eight-digit signature, random when None.
    """
    sector = sector_size if sector_size is not None else sector_size_of(node)
    if sector < 512 or sector & (sector - 1) or sector > 1 << 16 or node.size < sector:
        raise UsageError(f"sectors of {sector} bytes are not possible here", field="sector_size", value=sector)
    sector0 = node.read(0, sector)
    if sector0[512:520] == b"EFI PART":
        # the header of a table for smaller sectors
        sector0 = sector0[:512] + bytes(8) + sector0[520:]
    if label == "gpt":
        from .gpt import GptTable

        table = GptTable.create(node.size, sector, entries=entries, geometry=geometry, guid=identifier)
        table.sector0 = table.protective_mbr(sector0)
        table.fresh = True
        return table
    if label in ("dos", "msdos", "mbr"):
        from .mbr import MbrTable

        made = MbrTable.create(node.size, sector, geometry=geometry, identifier=identifier)
        made.sector0 = sector0
        made.fresh = True
        return made
    raise UsageError(f"partition tables of the kind '{label}' can't be made", field="label", value=label)
