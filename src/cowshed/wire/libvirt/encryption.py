"""``<encryption>`` of a volume: its format, the secrets that open it, and for LUKS the cipher."""

from __future__ import annotations

from ...errors import ConfigError, DefinitionError
from .auth import read_secret_reference
from .common import choice, number
from .definition import Element, Encryption
from .reader import string
from .writer import Writer

FORMATS = ("default", "qcow", "luks", "luks2")
ENGINES = ("qemu", "librbd")
_KNOWN = ("secret", "cipher", "ivgen")


def read_encryption(element: Element) -> Encryption:
    """The element in libvirt's form, what is unknown at its end. DefinitionError, ConfigError: in libvirt's words."""
    kind = string(element, "@format")
    if kind is None:
        raise DefinitionError("unknown volume encryption format")
    if kind not in FORMATS:
        raise ConfigError(f"unknown volume encryption format type {kind}", value=kind)
    attributes = {"format": kind}
    engine = choice(element, "engine", ENGINES)
    if engine is not None:
        attributes["engine"] = engine
    children = []
    secrets: list[tuple[str, str | None, str | None]] = []
    for secret in element.find_all("secret"):
        secret_type = string(secret, "@type")
        if secret_type is None:
            raise DefinitionError("unknown volume encryption secret type")
        if secret_type != "passphrase":
            raise ConfigError(f"unknown volume encryption secret type {secret_type}", value=secret_type)
        uuid, usage = read_secret_reference(secret)
        secrets.append((secret_type, uuid, usage))
    if kind in ("luks", "luks2"):
        children += _cipher(element)
    attributes.update((name, value) for name, value in element.attributes.items() if name not in ("format", "engine"))
    children += (child for child in element.children if child.name not in _KNOWN)
    return Encryption(kind, secrets, Element("encryption", attributes, children))


def _cipher(element: Element) -> list[Element]:
    found = []
    cipher, ivgen = element.find("cipher"), element.find("ivgen")
    if cipher is not None:
        name = string(cipher, "@name")
        if name is None:
            raise DefinitionError("cipher info missing 'name' attribute")
        text = cipher.attributes.get("size")
        if text is None:
            raise DefinitionError("Missing required attribute 'size' in element 'cipher'")
        size = number(text)
        if size is None or size >= 1 << 32:
            raise DefinitionError(
                f"Invalid value for attribute 'size' in element 'cipher': '{text}'. Expected non-negative integer value"
            )
        found.append(_named("cipher", cipher, {"name": name, "size": str(size)}, ("mode", "hash")))
    if ivgen is not None:
        if cipher is None:
            raise DefinitionError("ivgen element found, but cipher is missing")
        name = string(ivgen, "@name")
        if name is None:
            raise DefinitionError("missing ivgen info name string")
        found.append(_named("ivgen", ivgen, {"name": name}, ("hash",)))
    return found


def _named(name: str, element: Element, attributes: dict[str, str], more: tuple[str, ...]) -> Element:
    for attribute in more:
        value = string(element, "@" + attribute)
        if value is not None:
            attributes[attribute] = value
    return Element(name, attributes)


def write_encryption(writer: Writer, encryption: Encryption) -> None:
    element = encryption.element
    rest = {} if element is None else {key: value for key, value in element.attributes.items() if key != "format"}
    writer.open("encryption", (("format", encryption.format), *rest.items()))
    for secret_type, uuid, usage in encryption.secrets:
        writer.leaf("secret", None, (("type", secret_type), ("uuid", uuid), ("usage", usage)))
    if element is not None:
        for child in element.children:
            writer.element(child)
    writer.close()
