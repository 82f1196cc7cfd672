"""Pools from documents, and from options."""

from __future__ import annotations

from ...errors import CowshedError
from .documents import Markup, read_document
from .parse import Call, Failed
from .pool_verbs import building

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .session import Session


def pool_define(session: Session, call: Call) -> None:
    path = call.need("file")
    text = read_document(call)
    try:
        if call.flag("validate"):
            from ...wire.libvirt.schema import validate

            validate(text, "storagepool")
        pool = session.host.define(text)
    except CowshedError as error:
        raise Failed(f"Failed to define pool from {path}", error) from error
    session.extra(f"Pool {pool.name} defined from {path}\n")


def pool_create(session: Session, call: Call) -> None:
    path = call.need("file")
    call.exclusive("overwrite", "no-overwrite")
    text = read_document(call)
    try:
        pool = session.host.create(text, build=call.flag("build"), **building(call))
    except CowshedError as error:
        raise Failed(f"Failed to create pool from {path}", error) from error
    session.extra(f"Pool {pool.name} created from {path}\n")


def pool_define_as(session: Session, call: Call) -> None:
    name, text = pool_document(call)
    if call.flag("print-xml"):
        session.write(text)
        return
    try:
        session.host.define(text)
    except CowshedError as error:
        raise Failed(f"Failed to define pool {name}", error) from error
    session.extra(f"Pool {name} defined\n")


def pool_create_as(session: Session, call: Call) -> None:
    call.exclusive("overwrite", "no-overwrite")
    name, text = pool_document(call)
    if call.flag("print-xml"):
        session.write(text)
        return
    try:
        session.host.create(text, build=call.flag("build"), **building(call))
    except CowshedError as error:
        raise Failed(f"Failed to create pool {name}", error) from error
    session.extra(f"Pool {name} created\n")


def pool_document(call: Call) -> tuple[str, str]:
    """(name, document) of a pool that is described by options. Raises Failed."""
    call.exclusive("secret-usage", "secret-uuid")
    name, kind = call.need("name"), call.need("type")
    given = {option.name: call.text(option.name) for option in call.command.options if option.kind == "string"}
    host, path, device = given["source-host"], given["source-path"], given["source-dev"]
    xml = Markup().open("pool", type=kind)
    xml.leaf("name", name)
    adapters = given["adapter-name"], given["adapter-wwnn"] and given["adapter-wwpn"]
    sources = host, path, device, given["source-name"], given["source-format"], given["source-initiator"]
    if any(sources) or any(adapters):
        xml.open("source")
        if host:
            xml.empty("host", name=host)
        if path:
            xml.empty("dir", path=path)
        if device:
            xml.empty("device", path=device)
        if given["source-initiator"]:
            xml.open("initiator")
            xml.empty("iqn", name=given["source-initiator"])
            xml.close()
        _adapter(xml, given)
        _auth(xml, given)
        if given["source-format"]:
            xml.empty("format", type=given["source-format"])
        if given["source-name"]:
            xml.leaf("name", given["source-name"])
        if given["source-protocol-ver"]:
            xml.empty("protocol", ver=given["source-protocol-ver"])
        xml.close()
    if given["target"]:
        xml.open("target")
        xml.leaf("path", given["target"])
        xml.close()
    xml.close()
    return name, str(xml)


def _adapter(xml: Markup, given: dict[str, str | None]) -> None:
    if given["adapter-wwnn"] and given["adapter-wwpn"]:
        parents: dict[str, str | None] = {}
        if given["adapter-parent"]:
            parents["parent"] = given["adapter-parent"]
        elif given["adapter-parent-wwnn"] and given["adapter-parent-wwpn"]:
            parents["parent_wwnn"] = given["adapter-parent-wwnn"]
            parents["parent_wwpn"] = given["adapter-parent-wwpn"]
        elif given["adapter-parent-fabric-wwn"]:
            parents["parent_fabric_wwn"] = given["adapter-parent-fabric-wwn"]
        wwns = {"wwnn": given["adapter-wwnn"], "wwpn": given["adapter-wwpn"]}
        xml.empty("adapter", **{"type": "fc_host", **parents, **wwns})
    elif given["adapter-name"]:
        xml.empty("adapter", type="scsi_host", name=given["adapter-name"])


def _auth(xml: Markup, given: dict[str, str | None]) -> None:
    secret = given["secret-usage"] or given["secret-uuid"]
    if given["auth-type"] and given["auth-username"] and secret:
        xml.open("auth", type=given["auth-type"], username=given["auth-username"])
        xml.empty("secret", **{"usage" if given["secret-usage"] else "uuid": secret})
        xml.close()
