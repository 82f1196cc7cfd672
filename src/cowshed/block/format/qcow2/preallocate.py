"""Giving clusters their place before they are written: preallocation, of a new qcow2 image and of one that grows."""

from __future__ import annotations

from array import array

from ....errors import CowshedError, NoSpaceError
from ....progress import QUIET
from .l2 import COPIED

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ....progress import Progress
    from ...node import Node
    from .write import Qcow2Node


def preallocate(image: Qcow2Node, start: int, end: int, mode: str, progress: Progress = QUIET) -> None:
    """Give every cluster of guest bytes [start, end) a host cluster; ``mode``: metadata, falloc or full.

    ``progress`` (see Node.resize) advances.

    With a backing file the new subclusters stay unallocated; what a cluster shows already, it shows afterwards.
    """
    data = image.data
    shift = image.cluster_bits
    with image.lock:
        highest = data.size
        position = _whole_cluster(image, start, end)
        while position < end:
            index = position // image.l2_span
            upto = min(end, (index + 1) * image.l2_span)
            try:
                table = image.l2_for_write(index)
            except NoSpaceError as error:
                raise type(error)(f"Allocating clusters failed: {error}", errno=error.errno) from error
            image.touch(table)
            slot = (position - index * image.l2_span) >> shift
            stop = (upto - index * image.l2_span + image.cluster_size - 1) >> shift
            while slot < stop:
                word = slot * image.entry_words
                if table.entries[word]:
                    slot += 1
                    continue
                free = slot
                while free < stop and not table.entries[free * image.entry_words]:
                    free += 1
                if image.has_data_file:
                    host, got = index * image.l2_span + (slot << shift), free - slot
                    image.check_data_offset(host + (got << shift))
                else:
                    try:
                        cluster, got = image.refcounts.allocate(free - slot)
                    except NoSpaceError as error:
                        raise type(error)(f"Allocating clusters failed: {error}", errno=error.errno) from error
                    host = cluster << shift
                if host < data.size and not image.data_file_raw and (mode != "metadata" or not image.extended):
                    # space that had another use before: its old bytes must not show
                    data.write_zeroes(host, min(got << shift, data.size - host), mode == "metadata")
                entries = array("Q", range(host | COPIED, (host | COPIED) + (got << shift), 1 << shift))
                if image.extended:
                    # space is reserved, but nothing is allocated yet, unless the data file must show through;
                    # zero subclusters stay zero
                    for number in range(got):
                        table.entries[2 * (slot + number)] = entries[number]
                        if image.data_file_raw:
                            table.entries[2 * (slot + number) + 1] = 0xFFFFFFFF
                else:
                    table.entries[slot : slot + got] = entries
                highest = max(highest, host + (got << shift))
                slot += got
            if mode != "metadata" and not image.has_data_file:
                _reserve(data, highest, mode, progress)  # before the next table goes behind it
            if image.l2_dirty << shift > 32 << 20:
                _reserve(data, highest, mode, progress)
                image.commit()
            if mode != "full" or not image.has_data_file:  # whose bytes count when they are written, at the end
                progress.at(upto - start)
            position = upto
        _reserve(data, end if image.has_data_file else highest, mode, progress)
        image.commit()


def _reserve(data: Node, end: int, mode: str, progress: Progress) -> None:
    """Make a file at least ``end`` bytes long, with space as ``mode`` says."""
    taken = mode != "metadata" and not getattr(data, "resizable", True)  # devices refuse, whatever is asked of them
    if end <= data.size and not taken:
        return
    try:
        data.resize(end, "off" if mode == "metadata" else mode, progress)
    except CowshedError as error:
        if mode == "metadata":
            raise
        raise type(error)(f"Failed to resize underlying file: {error}", errno=error.errno) from error


def _whole_cluster(image: Qcow2Node, start: int, end: int) -> int:
    """Where whole clusters begin at or after ``start``; the one around ``start`` is filled up if it has no place yet.

    It shows bytes of the disk in front of ``start``, perhaps a backing file's: they are copied up as for any write.
    """
    rest = start & (image.cluster_size - 1)
    if not rest or image.extended:
        return start - rest
    stop = start - rest + image.cluster_size
    index, slot = divmod(start >> image.cluster_bits, image.l2_entries)
    table = image.l2_table(index)
    if table is None or not table.entries[slot]:
        image.write(start, bytes(min(stop, end) - start))
    return stop
