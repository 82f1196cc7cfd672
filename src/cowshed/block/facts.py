"""What drivers tell about an image: the results of check, measure, snapshot and bitmap questions, as plain objects."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ..errors import CowshedError


class CheckResult:
    """The outcome of ``check``. Counts are clusters unless said otherwise.

    ``messages``: the lines to print, in order, as ``(stream, text)`` with stream "out", "err", or "report" for a line
    on the error stream that the program's name begins. ``error``: why the check could not be finished, else None.
    ``image_end_offset``: bytes, None when unknown. ``total_clusters`` etc. are 0 when the format doesn't count them.
    """

    __slots__ = (
        "allocated_clusters",
        "check_errors",
        "compressed_clusters",
        "corruptions",
        "corruptions_fixed",
        "error",
        "fragmented_clusters",
        "image_end_offset",
        "leaks",
        "leaks_fixed",
        "messages",
        "total_clusters",
    )

    def __init__(self) -> None:
        self.corruptions = 0
        self.leaks = 0
        self.check_errors = 0
        self.corruptions_fixed = 0
        self.leaks_fixed = 0
        self.image_end_offset: int | None = None
        self.total_clusters = 0
        self.allocated_clusters = 0
        self.fragmented_clusters = 0
        self.compressed_clusters = 0
        self.messages: list[tuple[str, str]] = []
        self.error: CowshedError | None = None

    def tell(self, text: str, stream: str = "err") -> None:
        self.messages.append((stream, text))


class Snapshot:
    """One internal snapshot. ``vm_state_size`` bytes; ``date_sec``/``date_nsec`` since the epoch;
    ``vm_clock_nsec`` guest run time; ``disk_size`` bytes; ``icount`` None unless recorded."""

    __slots__ = ("date_nsec", "date_sec", "disk_size", "icount", "id", "name", "vm_clock_nsec", "vm_state_size")

    def __init__(
        self,
        id: str,
        name: str,
        *,
        vm_state_size: int = 0,
        date_sec: int = 0,
        date_nsec: int = 0,
        vm_clock_nsec: int = 0,
        disk_size: int = 0,
        icount: int | None = None,
    ) -> None:
        self.id = id
        self.name = name
        self.vm_state_size = vm_state_size
        self.date_sec = date_sec
        self.date_nsec = date_nsec
        self.vm_clock_nsec = vm_clock_nsec
        self.disk_size = disk_size
        self.icount = icount


class Bitmap:
    """One persistent dirty bitmap: ``granularity`` bytes a bit; ``flags`` ⊆ {"in-use", "auto"}."""

    __slots__ = ("flags", "granularity", "name")

    def __init__(self, name: str, granularity: int, flags: list[str]) -> None:
        self.name = name
        self.granularity = granularity
        self.flags = flags


class Measure:
    """Bytes that an image file will need: ``required`` for the data at hand, ``fully_allocated`` at worst,
    ``bitmaps`` for persistent bitmaps when they would be copied (None: not supported)."""

    __slots__ = ("bitmaps", "fully_allocated", "required")

    def __init__(self, required: int, fully_allocated: int, bitmaps: int | None = None) -> None:
        self.required = required
        self.fully_allocated = fully_allocated
        self.bitmaps = bitmaps
