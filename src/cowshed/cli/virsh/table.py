"""The commands: where they are found, and what is known of each.

An option's kind is ``bool``, ``int``, ``string``, ``data`` (a string that help shows in angle brackets), ``argv``
(takes all further words) or ``alias`` (its help is the name it stands for, or ``NAME=VALUE``), followed by ``!`` when
it must be given, by ``-`` when a word without its name never becomes its value, and by ``+`` when libvirt has no such
option and only people are told of it.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    OptionRow = tuple[str, str, str]
    Row = tuple[str, str, str, str, tuple[OptionRow, ...]]

#: keyword -> name of the group, in the order of help
GROUPS = {
    "host": "Host and Hypervisor",
    "secret": "Secret",
    "pool": "Storage Pool",
    "volume": "Storage Volume",
    "virsh": "Virsh itself",
}


class Option:
    """``name``, ``kind`` and the rest of what the module says; ``help``."""

    __slots__ = ("help", "kind", "name", "ours", "positional", "required")

    def __init__(self, row: OptionRow) -> None:
        self.name = row[0]
        self.kind = row[1].rstrip("!-+")
        self.required = "!" in row[1]
        self.ours = "+" in row[1]
        self.positional = self.kind not in ("bool", "alias") and "-" not in row[1]
        self.help = row[2]


class Command:
    """``module``: where its handler is, a function named as the command with underscores."""

    __slots__ = ("description", "module", "name", "options", "summary")

    def __init__(self, row: Row) -> None:
        self.name, self.module, self.summary, self.description, options = row
        self.options = [Option(option) for option in options]


def rows(group: str) -> tuple[Row, ...]:
    """The rows of a group, in the order of help; of the hidden commands for ""."""
    if group == "pool":
        from . import table_pool

        return table_pool.ROWS
    if group == "volume":
        from . import table_volume

        return table_volume.ROWS
    from . import table_rest

    found = {"secret": table_rest.SECRET, "host": table_rest.HOST, "virsh": table_rest.VIRSH, "": table_rest.HIDDEN}
    return found[group]


def find(name: str) -> Command | None:
    """The command of that name."""
    if name.startswith(("pool-", "find-")):
        groups: tuple[str, ...] = ("pool",)
    elif name.startswith("vol-"):
        groups = ("volume",)
    else:
        groups = ("secret", "host", "virsh", "")
    for group in groups:
        for row in rows(group):
            if row[0] == name:
                return Command(row)
    return None


def names() -> Iterator[str]:
    """The names of all commands that help shows."""
    for group in GROUPS:
        for row in rows(group):
            yield row[0]
