"""Is an image's metadata sound, and can it be made so?"""

from __future__ import annotations

from ..errors import UsageError
from ..progress import QUIET
from .access import Opened

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Literal, Unpack

    from ..block.facts import CheckResult
    from ..progress import Progress
    from .access import Access, Image

_FIXES = {None: frozenset[str](), "leaks": frozenset({"leaks"}), "all": frozenset({"leaks", "errors"})}
_OPTIONAL = (
    ("image-end-offset", "image_end_offset"),
    ("corruptions", "corruptions"),
    ("leaks", "leaks"),
    ("corruptions-fixed", "corruptions_fixed"),
    ("leaks-fixed", "leaks_fixed"),
    ("total-clusters", "total_clusters"),
    ("allocated-clusters", "allocated_clusters"),
    ("fragmented-clusters", "fragmented_clusters"),
    ("compressed-clusters", "compressed_clusters"),
)


class CheckReport:
    """What ``check`` found. A check that broke off says why in ``result.error``; its counts mean nothing then.

    ``filename`` and ``format`` of the image. ``repaired``: the result of the pass that repaired something, None when
    nothing was. ``result``: the state of the image now (of a second pass after a repair), its counts of what was
    fixed being those of the repair. See facts.CheckResult; counts are clusters.
    """

    __slots__ = ("filename", "format", "repaired", "result")

    def __init__(self, filename: str, format: str, result: CheckResult, repaired: CheckResult | None = None) -> None:
        self.filename = filename
        self.format = format
        self.result = result
        self.repaired = repaired

    @property
    def verdict(self) -> Literal["clean", "leaks", "corrupt", "unknown"]:
        """``unknown``: the check itself met errors; ``leaks``: nothing but wasted space."""
        result = self.result
        if result.check_errors or result.error is not None:
            return "unknown"
        return "corrupt" if result.corruptions else "leaks" if result.leaks else "clean"

    def to_dict(self, label: str | None = None) -> dict[str, Any]:
        """qemu's ImageCheck, counts that are 0 left out as it does; ``label`` stands for the file name."""
        found: dict[str, Any] = {
            "filename": self.filename if label is None else label,
            "format": self.format,
            "check-errors": self.result.check_errors,
        }
        for key, name in _OPTIONAL:
            value = getattr(self.result, name)
            if value:
                found[key] = value
        return found

    def __repr__(self) -> str:
        return f"<CheckReport {self.filename!r} {self.verdict}>"


def check(
    image: Image,
    repair: Literal["leaks", "all"] | None = None,
    *,
    progress: Progress = QUIET,
    **access: Unpack[Access],
) -> CheckReport:
    """Check the metadata of ``image``, a name to open (see graph.open_image) or an open node.

    ``repair``: "leaks" gives wasted clusters back, "all" mends every error that can be mended. After a repair the
    image is checked once more.

    Raises OpenError; UnsupportedError for formats without a check, or without this repair; HostError.
    """
    if repair not in _FIXES:
        raise UsageError(f"repair must be 'leaks', 'all' or None, not '{repair}'", field="repair", value=repair)
    flags: dict[str, Any] = {"check": True, "writable": repair is not None}
    with Opened(image, access, **flags) as node:
        result = node.check(_FIXES[repair], progress)
        report = CheckReport(node.filename, node.driver, result)
        if result.error is None and (result.leaks_fixed or result.corruptions_fixed):
            again = node.check(_FIXES[None], progress)
            again.leaks_fixed = result.leaks_fixed
            again.corruptions_fixed = result.corruptions_fixed
            report.repaired, report.result = result, again
        return report
