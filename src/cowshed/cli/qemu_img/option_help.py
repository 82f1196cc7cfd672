"""``-o help``: the options that a format, and where a file is named its protocol, takes for a new or existing image."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ..output import Output


def creation(fmt: str, filename: str | None, out: Output) -> int:
    """Print the options for creating ``filename`` (None: of the format alone). Returns the exit status."""
    from ...block.creation import creation_table
    from ...errors import CowshedError

    try:
        table = creation_table(fmt)  # a format that cannot is told before a protocol that cannot
        if filename is not None:
            table = creation_table(fmt, filename)
    except CowshedError as error:
        out.report(error)
        return 1
    out.write(table.help_text("Supported options:" if filename is not None else f"Supported {fmt} options:"))
    if filename is None:
        out.write(
            "\nThe protocol level may support further options.\n"
            "Specify the target filename to include those options.\n"
        )
    return 0


def amendment(fmt: str, out: Output) -> int:
    """Print the options that can be changed in an image of a format. Returns the exit status."""
    from ...block import registry

    driver = registry.find(fmt)
    if driver is None:
        out.error(f"Unknown file format '{fmt}'")
        return 1
    table = driver.table("amend")
    if table is None:
        out.error(f"Format driver '{fmt}' does not support option amendment")
        return 1
    out.write(table.help_text(f"Amend options for '{fmt}':"))
    return 0
