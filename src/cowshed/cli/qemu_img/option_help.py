"""``-o help``: the options that a format, and where a file is named its protocol, takes for a new or existing image."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ...block.options import OptionTable
    from ..output import Output


def creation(fmt: str, filename: str | None, out: Output) -> int:
    """Print the options for creating ``filename`` (None: of the format alone). Returns the exit status."""
    from ...block import registry

    driver = registry.find(fmt)
    if driver is None:
        out.error(f"Unknown file format '{fmt}'")
        return 1
    table: OptionTable | None = driver.table("options")
    if table is None:
        out.error(f"Format driver '{fmt}' does not support image creation")
        return 1
    if filename is None:
        out.write(table.help_text(f"Supported {fmt} options:"))
        out.write(
            "\nThe protocol level may support further options.\n"
            "Specify the target filename to include those options.\n"
        )
        return 0
    from ...block.filename import is_device, protocol_prefix

    prefix = protocol_prefix(filename)
    if prefix is not None:
        protocol = registry.find_prefix(prefix)
    else:
        protocol = registry.find("host_device" if is_device(filename) else "file")
    if protocol is None:
        out.error(f"Unknown protocol '{prefix}'")
        return 1
    below = protocol.table("options")
    if below is None:
        out.error(f"Protocol driver '{protocol.name}' does not support image creation")
        return 1
    out.write(table.merged(below).help_text("Supported options:"))
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
