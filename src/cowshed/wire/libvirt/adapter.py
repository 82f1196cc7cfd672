"""``<adapter>`` of a scsi pool: a SCSI host by name or by the PCI address of its parent, or an FC host by its WWNs."""

from __future__ import annotations

from ...errors import DefinitionError, PoolError
from .common import choice, number
from .definition import Element
from .reader import string

_HEX = frozenset("0123456789abcdefABCDEF")


def read_adapter(element: Element) -> Element | None:
    """The element in libvirt's form; None when it says nothing. DefinitionError in libvirt's words."""
    kind = choice(element, "type", ("scsi_host", "fc_host"))
    name = element.attributes.get("name")
    if kind == "fc_host":
        return _fc_host(element)
    if kind == "scsi_host":
        return _scsi_host(element, name)
    if any(attribute in element.attributes for attribute in ("wwnn", "wwpn", "parent")):
        raise DefinitionError("Use of 'wwnn', 'wwpn', and 'parent' attributes requires use of the adapter 'type'")
    if element.find("parentaddr") is not None:
        raise DefinitionError("Use of 'parentaddr' element requires use of the adapter 'type'")
    if name is None:
        return None
    return Element("adapter", {"type": "scsi_host", "name": name})


def _fc_host(element: Element) -> Element:
    found = {"type": "fc_host"}
    parent = element.attributes.get("parent")
    if parent is not None:
        found["parent"] = parent
    managed = choice(element, "managed", ("yes", "no"))
    if managed is not None:
        found["managed"] = managed
    for attribute in ("parent_wwnn", "parent_wwpn", "parent_fabric_wwn", "wwnn", "wwpn"):
        value = element.attributes.get(attribute)
        if value is not None:
            found[attribute] = value
    if "wwnn" not in found or "wwpn" not in found:
        raise DefinitionError("'wwnn' and 'wwpn' must be specified for adapter type 'fchost'")
    for attribute in ("wwnn", "wwpn"):
        _check_wwn(found[attribute])
    if "parent_wwnn" in found and "parent_wwpn" not in found:
        raise DefinitionError(
            f"when providing parent_wwnn='{found['parent_wwnn']}', the parent_wwpn must also be provided"
        )
    if "parent_wwpn" in found and "parent_wwnn" not in found:
        raise DefinitionError(
            f"when providing parent_wwpn='{found['parent_wwpn']}', the parent_wwnn must also be provided"
        )
    for attribute in ("parent_wwnn", "parent_wwpn", "parent_fabric_wwn"):
        if attribute in found:
            _check_wwn(found[attribute])
    return Element("adapter", found)


def _check_wwn(text: str) -> None:
    digits = text[2:] if text.startswith("0x") else text
    if len(digits) != 16 or not _HEX.issuperset(digits):
        raise PoolError(f"Malformed wwn: {text}", value=text)


def _scsi_host(element: Element, name: str | None) -> Element:
    parent = element.find("parentaddr")
    if parent is None:
        if name is None:
            raise DefinitionError("Either 'name' or 'parent' must be specified for the 'scsi_host' adapter")
        return Element("adapter", {"type": "scsi_host", "name": name})
    if name is not None:
        raise DefinitionError("Both 'name' and 'parent' cannot be specified for the 'scsi_host' adapter")
    address = parent.find("address")
    if address is None:
        raise DefinitionError("Missing scsi_host PCI address element")
    place = _pci(address)
    unique = number(string(parent, "@unique_id") or "", signed=True)
    if unique is None or not 0 <= unique < 1 << 31:
        raise DefinitionError("Missing or invalid scsi adapter 'unique_id' value")
    return Element(
        "adapter",
        {"type": "scsi_host"},
        [Element("parentaddr", {"unique_id": str(unique)}, [Element("address", place)])],
    )


def _pci(element: Element) -> dict[str, str]:
    """domain, bus, slot and function, each with its own width."""
    values = []
    for name in ("domain", "bus", "slot", "function"):
        text = element.attributes.get(name)
        hexadecimal = name == "function" or (text or "")[:2] in ("0x", "0X")
        value = 0 if text is None else number(text, 16 if hexadecimal else 8 if text[:1] == "0" else 10)
        if value is None or value >= 1 << 32:
            raise DefinitionError(
                f"Invalid value for attribute '{name}' in element 'address': '{text}'. "
                "Expected non-negative integer value"
            )
        values.append(value)
    domain, bus, slot, function = values
    for name, value, most in (("bus", bus, 0xFF), ("slot", slot, 0x1F)):
        if value > most:
            raise DefinitionError(f"Invalid PCI address {name}='0x{value:x}', must be <= 0x{most:X}")
    return {
        "domain": f"0x{domain:04x}",
        "bus": f"0x{bus:02x}",
        "slot": f"0x{slot:02x}",
        "function": f"0x{function:x}",
    }
