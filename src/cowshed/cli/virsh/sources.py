"""What could become a pool, and what pools can do."""

from __future__ import annotations

from ...errors import CowshedError
from .documents import Markup, read_document
from .parse import Call, Failed

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .session import Session


def _find(session: Session, kind: str, text: str | None) -> None:
    from ...wire.libvirt.sources import format_sources

    try:
        found = session.host.find_sources(kind, text)
    except CowshedError as error:
        raise Failed(f"Failed to find any {kind} pool sources", error) from error
    session.write(format_sources(found, kind))


def find_storage_pool_sources(session: Session, call: Call) -> None:
    text = read_document(call, "srcSpec") if call.text("srcSpec") is not None else None
    _find(session, call.need("type"), text)


def find_storage_pool_sources_as(session: Session, call: Call) -> None:
    host, port, initiator = call.text("host"), call.text("port"), call.text("initiator")
    text = None
    if host is not None:
        xml = Markup().open("source")
        xml.empty("host", name=host, port=port)
        if initiator is not None:
            xml.open("initiator")
            xml.empty("iqn", name=initiator)
            xml.close()
        xml.close()
        text = str(xml)
    _find(session, call.need("type"), text)


def pool_capabilities(session: Session, call: Call) -> None:
    try:
        text = session.host.capabilities()
    except CowshedError as error:
        raise Failed("failed to get storage pool capabilities", error) from error
    session.write(text)
