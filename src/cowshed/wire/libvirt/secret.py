"""Secrets' documents: text ⇄ SecretDef."""

from __future__ import annotations

from ...errors import ConfigError, DefinitionError, PoolError
from . import reader
from .common import read_uuid, unknown
from .definition import Element, SecretDef
from .reader import string
from .writer import Writer

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .common import Known

#: type of usage -> the element that names what the secret is for
USAGES = {"volume": "volume", "ceph": "name", "iscsi": "target", "tls": "name", "vtpm": "name"}
# and how libvirt's messages call the two
_WORDS = {
    "volume": ("volume", "volume path"),
    "ceph": ("Ceph", "name"),
    "iscsi": ("iSCSI", "target"),
    "tls": ("TLS", "name"),
    "vtpm": ("vTPM", "name"),
}

_SECRET: Known = (
    ("ephemeral", "private"),
    {
        "uuid": ((), {}),
        "description": ((), {}),
        "usage": (("type",), {"volume": ((), {}), "name": ((), {}), "target": ((), {})}),
    },
)


def parse_secret(text: str | bytes) -> SecretDef:
    """A ``<secret>`` document. DocumentError: not well-formed; PoolError and its kinds: in libvirt's words."""
    root = reader.parse_root(text, reader.SECRET, "secret")
    definition = SecretDef()
    definition.ephemeral = _flag(root, "ephemeral")
    definition.private = _flag(root, "private")
    uuid = string(root, "uuid")
    if uuid is not None:
        definition.uuid = read_uuid(uuid)
        if definition.uuid is None:
            raise PoolError("malformed uuid element", value=uuid)
    definition.description = string(root, "description")
    usage = root.find("usage")
    if usage is not None:
        _usage(usage, definition)
    definition.extra = unknown(root, _SECRET)
    return definition


def _flag(root: Element, name: str) -> bool:
    text = string(root, f"@{name}") or "no"
    if text not in ("yes", "no"):
        raise DefinitionError(f"invalid value of '{name}'", value=text)
    return text == "yes"


def _usage(element: Element, definition: SecretDef) -> None:
    kind = string(element, "@type")
    if kind is None:
        raise DefinitionError("unknown secret usage type")
    if kind == "none":
        return
    if kind not in USAGES:
        raise ConfigError(f"unknown secret usage type {kind}", value=kind)
    definition.usage_type = kind
    definition.usage_id = string(element, USAGES[kind])
    if definition.usage_id is None:
        raise PoolError("{} usage specified, but {} is missing".format(*_WORDS[kind]))


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
