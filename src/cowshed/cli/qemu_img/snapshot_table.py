"""The table of internal snapshots, as ``snapshot -l`` and ``info`` print it."""

from __future__ import annotations

from time import localtime, strftime

from ...wire.human import size

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from ...block.facts import Snapshot

_HEAD = f"{'ID':<10}{'TAG':<17}{'VM SIZE':>8}{'DATE':>20}{'VM CLOCK':>13}{'ICOUNT':>11}\n"


def table(snapshots: Iterable[Snapshot]) -> str:
    """The table with its title; columns are as wide as their bytes in UTF-8, as C pads them."""
    lines = ["Snapshot list:\n", _HEAD]
    for item in snapshots:
        seconds, nano = divmod(item.vm_clock_nsec, 1_000_000_000)
        clock = f"{seconds // 3600:02}:{seconds // 60 % 60:02}:{seconds % 60:02}.{nano // 1_000_000:03}"
        date = strftime("%Y-%m-%d %H:%M:%S", localtime(item.date_sec))
        icount = "" if item.icount is None else item.icount
        name = f"{_wide(item.id, 9)} {_wide(item.name, 16)}"
        lines.append(f"{name} {size(item.vm_state_size):>8}{date:>20}{clock:>13}{icount:>11}\n")
    return "".join(lines)


def _wide(text: str, width: int) -> str:
    return text + " " * (width - len(text.encode("utf-8", "surrogateescape")))
