"""Growing, shrinking and emptying a qcow2 disk.

The header's size changes last when growing (everything behind it is ready then) and first when shrinking.
"""

from __future__ import annotations

from array import array

from ....errors import CowshedError, RangeError
from ....progress import QUIET
from ...node import DATA, HOLE, ZERO, space_reused
from . import header as hd
from .bitmap_store import refuse_inconsistent, resize_bitmaps
from .l2 import L1_OFFSET_MASK, runs
from .preallocate import preallocate
from .rebuild import Rebuild

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ....progress import Progress
    from .write import Qcow2Node

PREALLOCATIONS = ("off", "metadata", "falloc", "full")


def check_size(image: Qcow2Node, size: int, preallocation: str = "off", *, version: int) -> None:
    """Can the disk have ``size`` bytes, in an image of this ``version``? Raises CowshedError; nothing is changed."""
    if preallocation not in PREALLOCATIONS:
        raise CowshedError(f"Unsupported preallocation mode '{preallocation}'", path=image.filename, errno=95)
    if size % 512 or size < 0:
        raise CowshedError(
            "The new size must be a multiple of 512",
            path=image.filename,
            layer="qcow2",
            field="size",
            value=size,
            errno=22,
        )
    if image.failed is not None:
        raise image.failed
    if image.header.nb_snapshots and version < 3:
        raise CowshedError("Can't resize a v2 image which has snapshots", path=image.filename, layer="qcow2", errno=95)
    if size < image.size and preallocation != "off":
        raise CowshedError(
            "Preallocation can't be used for shrinking an image", path=image.filename, layer="qcow2", errno=22
        )
    needed = hd.l1_entries_for(size, image.cluster_bits, image.extended)
    if needed * 8 > hd.MAX_L1_BYTES:
        raise RangeError(
            "Failed to grow the L1 table: File too large", path=image.filename, layer="qcow2",
            field="size", value=size, limit=f"an L1 table of {hd.MAX_L1_BYTES} bytes", errno=27,
            hint="an image with larger clusters can be larger",
        )  # fmt: skip
    if image.header.extension(hd.EXT_BITMAPS) is not None and image.tracker is None:
        refuse_inconsistent(image)


def resize(image: Qcow2Node, size: int, preallocation: str = "off", progress: Progress = QUIET) -> None:
    """Change the virtual size to ``size`` bytes (whole sectors). Raises CowshedError; the old size then stands.

    An external data file gets the disk's size. One that must show the disk by itself (data_file_raw) and was made
    longer than the disk keeps its length and bytes when the disk grows over them.
    """
    check_size(image, size, preallocation, version=image.header.version)
    needed = hd.l1_entries_for(size, image.cluster_bits, image.extended)
    if image.header.extension(hd.EXT_BITMAPS) is not None:
        image.before_write(0, 0)  # starts the tracker
        if image.tracker is not None:
            image.tracker.resize(size)
        if size > image.size:
            resize_bitmaps(image, size)
    image.commit()
    if size < image.size:
        _shrink(image, size)
        if image.header.extension(hd.EXT_BITMAPS) is not None:
            resize_bitmaps(image, size)
    elif size > image.size:
        _grow(image, size, preallocation, needed, progress)
    elif image.has_data_file and not image.data_file_raw and image.data.size != size:
        image.data.resize(size)


def _grow(image: Qcow2Node, size: int, preallocation: str, needed: int, progress: Progress) -> None:
    old = image.size
    if image.data_file_raw and preallocation == "off":
        preallocation = "metadata"  # as at creation
    if needed > len(image.l1):
        _grow_l1(image, needed)
    image.size = size
    try:
        # what was behind the end must not show: the rest of the last cluster, and what a longer backing file has there
        cluster_end = min(size, -(-old // image.cluster_size) * image.cluster_size)
        backing = image.backing
        visible = min(size, backing.size) if backing is not None else 0
        stop = max(cluster_end, visible)
        # … but for a data file that shows the disk by itself: what is there is the disk's
        hidden = stop > old and not image.data_file_raw
        if hidden and any(extent.kind not in (ZERO, HOLE) for extent in image.extents(old, stop - old)):
            image.write_zeroes(old, stop - old)
        if preallocation != "off":
            preallocate(image, old, size, preallocation, progress)
        elif image.has_data_file and image.data.size != size:
            image.data.resize(size)
        image.commit()
        image.file.flush()
    except BaseException:
        image.size = old
        image.forget_tables()
        image.load_l1()
        raise
    image.header.size = size
    image.write_header_fixed()
    image.file.flush()


def _grow_l1(image: Qcow2Node, entries: int) -> None:
    """Move the L1 table to a bigger place."""
    clusters = -(-entries * 8 // image.cluster_size)
    first, _ = image.refcounts.allocate(clusters, whole=True)
    image.commit()
    table = array("Q", image.l1)
    table.extend([0] * (entries - len(table)))
    offset = first << image.cluster_bits
    try:
        image.file.write_zeroes(offset, clusters << image.cluster_bits)
        image.write_table(offset, table)
        image.file.flush()
    except CowshedError as error:
        image.refcounts.release(first, clusters)
        image.commit()
        raise type(error)(
            f"Failed to grow the L1 table: {error}", path=error.path, layer=error.layer, offset=error.offset,
            errno=error.errno,
        ) from error  # fmt: skip
    header = image.header
    old_offset, old_entries = header.l1_table_offset, header.l1_size
    header.l1_table_offset, header.l1_size = offset, entries
    image.write_header_fixed()
    image.file.flush()
    image.l1 = table
    image.metadata_clusters.update(range(first, first + clusters))
    if old_entries:
        old_first = old_offset >> image.cluster_bits
        image.refcounts.release(old_first, (old_offset + old_entries * 8 - 1 >> image.cluster_bits) - old_first + 1)
        image.commit()


def _shrink(image: Qcow2Node, size: int) -> None:
    header = image.header
    needed = hd.l1_entries_for(size, image.cluster_bits, image.extended)
    header.size = image.size = size
    image.write_header_fixed()
    image.file.flush()
    start = -(-size // image.cluster_size) * image.cluster_size
    index, rest = divmod(start, image.l2_span)
    if rest and index < len(image.l1) and image.l1[index] & L1_OFFSET_MASK:
        _drop_slots(image, index, rest >> image.cluster_bits)
        index += 1
    elif rest:
        index += 1
    # entries behind the disk's end may belong to a saved machine state only in snapshots, never in the active table
    for number in range(max(index, needed), len(image.l1)):
        entry = image.l1[number]
        if entry & L1_OFFSET_MASK:
            _drop_slots(image, number, 0)
            where = image.l1[number] & L1_OFFSET_MASK
            image.l1[number] = 0
            image.l1_dirty.add(number)
            table = image.l2.pop(number, None)
            if table is not None and table.dirty:
                image.l2_dirty -= 1
            image.refcounts.release(where >> image.cluster_bits, 1, discard=True)
            if len(image.refcounts.pending) > 65536:
                image.commit()
    image.commit()
    if image.has_data_file:
        if image.data.size != size:
            image.data.resize(size)
    else:
        truncate_file(image)


def _drop_slots(image: Qcow2Node, index: int, first: int) -> None:
    """Forget the L2 entries from slot ``first`` of table ``index`` on, and their clusters.

    A table that goes away as a whole (first == 0) is not rewritten.
    """
    if first:
        table = image.l2_for_write(index)
    else:
        found = image.l2_table(index)
        assert found is not None
        table = found
    words = image.entry_words
    entries = table.entries[first * words :]
    if image.extended:
        entries = entries[::2]
    for at, count, kind, host in runs(entries, image.cluster_size, image.has_data_file):
        if kind in (DATA, ZERO) and host >= 0:
            if not image.has_data_file:
                if host & (image.cluster_size - 1):
                    raise image._unaligned(host, index, first + at, kind)
                image.refcounts.release(host >> image.cluster_bits, count, discard=True)
        elif kind not in (HOLE, ZERO):
            for entry in entries[at : at + count]:
                image._free_entry(entry, discard=True)
    if first:
        table.entries[first * words :] = array("Q", bytes((len(table.entries) - first * words) * 8))
        image.touch(table)


def truncate_file(image: Qcow2Node) -> None:
    """Cut the file behind the last cluster that has references."""
    refcounts = image.refcounts
    last = 0
    for index in range(len(refcounts.table) - 1, -1, -1):
        block = refcounts.block(index)
        if block is None or not any(block.values):
            continue
        slot = max(number for number, value in enumerate(block.values) if value)
        last = index * refcounts.per_block + slot
        break
    end = (last + 1) << image.cluster_bits
    if last and end < image.file.size:
        image.file.flush()
        space_reused()
        image.file.resize(end)


def make_empty(image: Qcow2Node) -> bool:
    """Drop every guest cluster, so that all reads fall through to the backing file."""
    rebuild = Rebuild(image)
    header = image.header
    rebuild.add_tree(image.l1, -1)
    rebuild.free_area(header.l1_table_offset, header.l1_size * 8)
    offset = rebuild.put_table(array("Q", bytes(len(image.l1) * 8)))

    def switch() -> None:
        header.l1_table_offset = offset

    rebuild.finish(switch)
    if image.has_data_file and not image.data_file_raw:
        image.data.discard(0, min(image.data.size, image.size))
    truncate_file(image)
    return True
