"""Secrets' documents: text ⇄ SecretDef."""

from __future__ import annotations

from ...errors import DefinitionError
from . import reader
from .common import choice, read_uuid, unknown
from .definition import Element, SecretDef
from .header import header
from .reader import string
from .writer import Writer

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .common import Known

#: type of usage -> the element that names what the secret is for
USAGES = {"volume": "volume", "ceph": "name", "iscsi": "target", "tls": "name", "vtpm": "name"}

_SECRET: Known = (
    ("ephemeral", "private"),
    {
        "uuid": ((), {}),
        "description": ((), {}),
        "usage": (("type",), {"volume": ((), {}), "name": ((), {}), "target": ((), {})}),
    },
)


def parse_secret(text: str | bytes) -> SecretDef:
    """A ``<secret>`` document. DocumentError: not well-formed; DefinitionError: in libvirt's words."""
    root = reader.parse_root(text, reader.SECRET, "secret")
    definition = SecretDef()
    definition.ephemeral = choice(root, "ephemeral", ("yes", "no")) == "yes"
    definition.private = choice(root, "private", ("yes", "no")) == "yes"
    uuid = string(root, "uuid")
    if uuid is not None:
        definition.uuid = read_uuid(uuid)
        if definition.uuid is None:
            raise DefinitionError("malformed uuid element", value=uuid)
    definition.description = string(root, "description")
    usage = root.find("usage")
    if usage is not None:
        _usage(usage, definition)
    definition.extra = unknown(root, _SECRET)
    return definition


def _usage(element: Element, definition: SecretDef) -> None:
    kind = choice(element, "type", ("none", *USAGES), required=True)
    if kind is None or kind == "none":
        return
    definition.usage_type = kind
    definition.usage_id = string(element, USAGES[kind])
    if definition.usage_id is None:
        raise DefinitionError(f"{kind} usage specified, but {USAGES[kind]} is missing")


def format_secret(definition: SecretDef) -> str:
    """The document."""
    writer = Writer(definition.extra)
    words = ("no", "yes")
    writer.open("secret", (("ephemeral", words[definition.ephemeral]), ("private", words[definition.private])))
    if definition.uuid is not None:
        writer.leaf("uuid", definition.uuid)
    if definition.description is not None:
        writer.leaf("description", definition.description)
    if definition.usage_type is not None:
        writer.open("usage", (("type", definition.usage_type),))
        if definition.usage_id is not None:
            writer.leaf(USAGES[definition.usage_type], definition.usage_id)
        writer.close()
    writer.close()
    return writer.text()


def format_secret_file(definition: SecretDef) -> str:
    """As a secret is kept: libvirt's warning, then the document."""
    return header("secret-edit", definition.uuid) + format_secret(definition)
