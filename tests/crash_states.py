"""The states that a power cut may leave of recorded files, and files that can be put into them. See crash.py."""

from __future__ import annotations

import os
import random
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from cowshed.block.filter.record import DISCARD, FLUSH, RESIZE, WRITE, ZERO, Event, Log

SECTOR = 512


class State:
    """What is on the disks: the first ``durable`` events of each file, and ``part`` of the others.

    ``part``: event number -> None (all of it) or the set of its sectors that were made.
    """

    __slots__ = ("cut", "durable", "part")

    def __init__(self, durable: int, cut: int, part: dict[int, frozenset[int] | None]) -> None:
        self.durable = durable
        self.cut = cut
        self.part = part

    def __repr__(self) -> str:
        torn = {number: sorted(part) for number, part in self.part.items() if part is not None}
        made = sorted(self.part)
        return f"<cut after {self.durable} events, before {self.cut}; of those pending made {made}, torn {torn}>"


class Epoch:
    """All states between two neighbouring flushes. ``pending``: numbers of the events that may be made or not."""

    def __init__(self, events: Sequence[Event], durable: int, cut: int) -> None:
        self.durable = durable
        self.cut = cut
        last: dict[str, int] = {}
        for number in range(durable):
            if events[number].kind == FLUSH:
                last[events[number].name] = number
        self.pending = [
            number
            for number in range(cut)
            if events[number].kind != FLUSH and number > last.get(events[number].name, -1)
        ]


def epochs(events: Sequence[Event]) -> list[Epoch]:
    ends = [number for number, event in enumerate(events) if event.kind == FLUSH] + [len(events)]
    result = []
    durable = 0
    for end in ends:
        result.append(Epoch(events, durable, end))
        durable = end + 1
    return result


def sectors_of(event: Event) -> int:
    """How many sectors a change touches; 1 for one that can't be torn."""
    if event.kind not in (WRITE, ZERO):
        return 1
    return (event.offset + event.length - 1) // SECTOR - event.offset // SECTOR + 1


def candidates(events: Sequence[Event], epoch: Epoch, rng: random.Random) -> Iterator[State]:
    """The epoch's states, the telling ones first, without end when they are many."""
    pending = epoch.pending
    count = len(pending)

    def state(part: dict[int, frozenset[int] | None]) -> State:
        return State(epoch.durable, epoch.cut, part)

    def whole(numbers: Iterable[int]) -> State:
        return state(dict.fromkeys(numbers))

    yield whole(())
    if not count:
        return
    yield whole(pending)
    tearable = [number for number in pending if sectors_of(events[number]) > 1]
    if count <= 4:
        for mask in range(1, (1 << count) - 1):
            yield whole(number for at, number in enumerate(pending) if mask >> at & 1)
    else:
        singles = [whole([number]) for number in pending]
        dropped = [whole(other for other in pending if other != number) for number in pending]
        prefixes = [whole(pending[:length]) for length in range(2, count - 1)]
        for group in zip(_spread(prefixes, rng), _spread(dropped, rng), _spread(singles, rng), strict=False):
            yield from group
        yield from dropped + singles + prefixes
    for number in tearable:
        length = sectors_of(events[number])
        others = dict.fromkeys(other for other in pending if other != number)
        if length <= 3:
            for mask in range(1, (1 << length) - 1):
                yield state({**others, number: frozenset(at for at in range(length) if mask >> at & 1)})
        else:
            half = rng.randrange(1, length)
            yield state({**others, number: frozenset(range(half))})
            yield state({**others, number: frozenset(range(half, length))})
            yield state({**others, number: frozenset(at for at in range(length) if rng.random() < 0.5)})
    if count <= 4 and not tearable:
        return
    while True:
        share = rng.choice((0.2, 0.5, 0.8))
        part: dict[int, frozenset[int] | None] = {}
        for number in pending:
            if rng.random() < share:
                length = sectors_of(events[number])
                torn = length > 1 and rng.random() < 0.3
                part[number] = frozenset(at for at in range(length) if rng.random() < 0.5) if torn else None
        yield state(part)


def _spread(items: list[State], rng: random.Random) -> list[State]:
    items = items[:]
    rng.shuffle(items)
    return items


def states(events: Sequence[Event], budget: int, seed: int) -> Iterator[State]:
    """Up to ``budget`` states of a log, taken in turn from all its epochs, in the order of the epochs."""
    rng = random.Random(seed)
    found = epochs(events)
    sources = [candidates(events, epoch, rng) for epoch in found]
    taken: list[list[State]] = [[] for _ in found]
    open_sources = list(range(len(found)))
    left = budget
    while open_sources and left > 0:
        for index in open_sources[:]:
            state = next(sources[index], None)
            if state is None:
                open_sources.remove(index)
                continue
            taken[index].append(state)
            left -= 1
            if left <= 0:
                break
    for group in taken:
        yield from group


# -- materialising ----------------------------------------------------------------------------------------------------


class Disk:
    """One file at a state of the log; moves on with the durable events, and takes pending ones back."""

    def __init__(self, path: Path, content: bytes) -> None:
        self.fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o644)
        self.size = len(content)
        os.pwrite(self.fd, content, 0)
        self.undo: list[tuple[int, bytes]] | None = None
        self.old_size = 0

    def close(self) -> None:
        os.close(self.fd)

    def begin(self) -> None:
        self.undo = []
        self.old_size = self.size

    def rollback(self) -> None:
        assert self.undo is not None
        self._set_size(max(self.old_size, self.size))
        for offset, data in reversed(self.undo):
            os.pwrite(self.fd, data, offset)
        self._set_size(self.old_size)
        self.undo = None

    def _set_size(self, size: int) -> None:
        if size != self.size:
            os.ftruncate(self.fd, size)
            self.size = size

    def _keep(self, offset: int, length: int) -> None:
        if self.undo is not None and offset < self.old_size:
            self.undo.append((offset, os.pread(self.fd, min(length, self.old_size - offset), offset)))

    def apply(self, event: Event, log: Log, part: frozenset[int] | None = None) -> None:
        """Make an event, or only some of its sectors."""
        if event.kind == RESIZE:
            if event.length < self.size:
                self._keep(event.length, self.size - event.length)
            self._set_size(event.length)
            return
        offset, end = event.offset, event.offset + event.length
        if event.kind == DISCARD:
            end = min(end, self.size)
        if end <= offset:
            return
        data = log.data(event) if event.kind == WRITE else bytes(end - offset)
        self._keep(offset, end - offset)
        if part is None:
            pieces = [(offset, end)]
        else:
            first = offset // SECTOR
            pieces = [
                (max(offset, (first + at) * SECTOR), min(end, (first + at + 1) * SECTOR)) for at in sorted(part)
            ]
        for low, high in pieces:
            os.pwrite(self.fd, data[low - offset : high - offset], low)
            self.size = max(self.size, high)

    def content(self) -> bytes:
        return os.pread(self.fd, self.size, 0)
