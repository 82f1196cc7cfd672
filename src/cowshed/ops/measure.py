"""How large an image file will be, before it is made."""

from __future__ import annotations

from ..errors import CowshedError, OptionError, UnsupportedError, UsageError
from .access import Opened
from .snapshot_source import Choice, view

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from ..block.facts import Measure
    from ..block.node import Node
    from ..block.secret import Secrets
    from .access import Access, Image


def measure(
    fmt: str = "raw",
    options: Mapping[str, object] | str | None = None,
    *,
    size: int | None = None,
    source: Image | None = None,
    snapshot: Choice | str | None = None,
    source_fmt: str | None = None,
    force_share: bool = False,
    trust: str | None = None,
    secrets: Secrets | None = None,
    label: str | None = None,
    warn: Callable[[str], None] | None = None,
) -> Measure:
    """Bytes that an image of format ``fmt``, made with the creation ``options``, will need; see facts.Measure.

    Either for an empty disk of ``size`` bytes, or for converting ``source`` (or its ``snapshot``, an id or a name).
    ``source_fmt`` and the rest say how the source is opened.

    Raises UsageError, OptionError, UnsupportedError where the driver can't tell, OpenError.
    """
    if (size is None) == (source is None):
        raise UsageError("Either --size N or one filename must be specified.")
    if source is None:
        return _ask(fmt, options, size, None, warn)
    access: Access = {"fmt": source_fmt, "force_share": force_share, "label": label}
    access["trust"], access["secrets"], access["warn"] = trust, secrets, warn
    choice = snapshot if isinstance(snapshot, Choice) else Choice(snapshot)
    with Opened(source, access) as node:
        if not choice:
            return _ask(fmt, options, None, node, warn)
        shown = view(node, choice)
        # as large as convert makes it
        return _ask(fmt, options, max(node.size, shown.size), shown, warn)


def _ask(
    fmt: str,
    options: Mapping[str, object] | str | None,
    size: int | None,
    node: Node | None,
    warn: Callable[[str], None] | None,
) -> Measure:
    """Have the driver of ``fmt`` work it out."""
    from ..block import registry

    row = registry.find(fmt)
    if row is None:
        raise OptionError(f"Unknown file format '{fmt}'", field="format", value=fmt)
    table = row.table("options")
    if table is None or not row.create:
        raise UnsupportedError(f"Format driver '{fmt}' does not support image creation", layer=fmt)
    protocol = registry.find("file")
    assert protocol is not None
    below = protocol.table("options")
    if below is not None:
        table = table.merged(below)
    try:
        values = table.parse(options, warn=warn)
    except CowshedError as error:
        if error.hint is None:
            error.hint = ""
        error.add_note(f"Invalid options for file format '{fmt}'")
        raise
    if not row.measure:
        raise UnsupportedError(f"Block driver '{fmt}' does not support size measurement", layer=fmt)
    found: Measure = registry.load(row.measure)(values.filled(), size, node)
    return found
