"""Free blocks are made zeroes."""

from __future__ import annotations

from .allocate import FREE, Allocator

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from .filesystem import ExtFileSystem


def free_runs(fs: ExtFileSystem) -> Iterator[tuple[int, int]]:
    """(first, count) of free blocks that lie together within a group, in order. Raises CorruptError."""
    sb = fs.sb
    allocator = Allocator(fs)
    for number in range(sb.groups):
        if not fs.groups[number].free_blocks:
            continue
        states = allocator.blocks_of(number)
        first = sb.group_first_block(number)
        at = states.find(FREE)
        while at >= 0:
            end = states.find(1, at)
            end = len(states) if end < 0 else end
            yield first + at, end - at
            at = states.find(FREE, end)
        allocator.block_states.clear()


def zero_free(fs: ExtFileSystem) -> int:
    """Zero every free block; returns how many. A journal is replayed first. What is to be written must have been.

    Raises CorruptError when a bitmap is damaged, ReadOnlyError.
    """
    from .commit import settle_replay

    settle_replay(fs)
    total = 0
    for place, count in free_runs(fs):
        fs.node.write_zeroes(place * fs.block_size, count * fs.block_size, True)
        total += count
    fs.node.flush()
    fs.volume.drop_cache()
    return total
