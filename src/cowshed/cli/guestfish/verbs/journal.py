"""systemd's journal in a guest, entry by entry."""

from __future__ import annotations

from ....guest.filesystem.base import GuestError
from ..fish import Failed, Fish
from ..table import command
from .facts import escaped
from .read import HostFailure

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from ....guest.journal.reader import Journal

    Fields = list[tuple[str, str | bytes | int]]


def _journal(fish: Fish, name: str) -> Journal:
    from ....guest.journal.reader import Journal

    found = fish.facts.get("journal")
    if not isinstance(found, Journal):
        raise Failed(f"do_{name}: you must call 'journal-open' first to initialize the journal handle")
    return found


@command("journal-open", "directory:path", help="open the systemd journal")
def journal_open(fish: Fish, directory: bytes) -> None:
    from ....guest.journal.reader import open_directory

    fish.facts.pop("journal", None)
    try:
        fish.facts["journal"] = open_directory(fish.session.tree, directory)
    except GuestError as error:
        raise Failed(f"sd_journal_open_directory: {error}") from error


@command("journal-close", help="close the systemd journal")
def journal_close(fish: Fish) -> None:
    _journal(fish, "journal_close")
    del fish.facts["journal"]


@command("journal-next", "", "bool", help="move to the next journal entry")
def journal_next(fish: Fish) -> bool:
    return _journal(fish, "journal_next").next()


@command("journal-skip", "skip:int64", "int", help="skip forwards or backwards in the journal")
def journal_skip(fish: Fish, skip: int) -> int:
    return _journal(fish, "journal_skip").skip(skip)


@command("journal-get", "", "structs", help="read the current journal entry", internal="internal_journal_get")
def journal_get(fish: Fish) -> Iterator[Fields]:
    journal = _journal(fish, "internal_journal_get")
    try:
        rows = list(journal.fields())
    except GuestError as error:
        raise HostFailure("file receive cancelled by daemon") from error
    return ([("attrname", name), ("attrval", escaped(value))] for name, value in rows)


@command("journal-get-realtime-usec", "", "int", help="get the timestamp of the current journal entry")
def journal_get_realtime_usec(fish: Fish) -> int:
    journal = _journal(fish, "journal_get_realtime_usec")
    try:
        return journal.realtime
    except GuestError as error:
        raise Failed(f"sd_journal_get_realtime_usec: {error}") from error


@command("journal-get-data-threshold", "", "int", help="get the data threshold for reading journal entries")
def journal_get_data_threshold(fish: Fish) -> int:
    return _journal(fish, "journal_get_data_threshold").threshold


@command("journal-set-data-threshold", "threshold:int64", help="set the data threshold for reading journal entries")
def journal_set_data_threshold(fish: Fish, threshold: int) -> None:
    _journal(fish, "journal_set_data_threshold").threshold = threshold & ((1 << 64) - 1)
