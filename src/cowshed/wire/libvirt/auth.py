"""``<auth>`` and the way a document names a secret: by its uuid or by its usage."""

from __future__ import annotations

from ...errors import ConfigError, DefinitionError
from .common import read_uuid
from .definition import Auth, Element
from .reader import string
from .writer import Writer

AUTH_TYPES = ("none", "chap", "ceph")


def read_auth(element: Element) -> Auth:
    """``<auth>``; its ``type`` is empty when the document has none."""
    username = string(element, "@username")
    if username is None:
        raise DefinitionError("missing username for auth")
    kind = string(element, "@type")
    if kind is not None and kind not in AUTH_TYPES:
        raise ConfigError(f"unknown auth type '{kind}'", value=kind)
    secret = element.find("secret")
    if secret is None:
        raise DefinitionError("Missing <secret> element in auth")
    uuid, usage = read_secret_reference(secret)
    return Auth(
        kind if kind is not None and kind != "none" else "", username, secret.attributes.get("type"), uuid, usage
    )


def write_auth(writer: Writer, auth: Auth) -> None:
    writer.open("auth", (("type", auth.type), ("username", auth.username)))
    writer.leaf("secret", None, (("type", auth.secret_type), ("uuid", auth.secret_uuid), ("usage", auth.secret_usage)))
    writer.close()


def read_secret_reference(element: Element) -> tuple[str | None, str | None]:
    """(uuid, usage) of a ``<secret>`` that is only named; one of them is None."""
    uuid = element.attributes.get("uuid")
    usage = element.attributes.get("usage")
    if uuid is None and usage is None:
        raise DefinitionError("missing secret uuid or usage attribute")
    if uuid is not None and usage is not None:
        raise DefinitionError("either secret uuid or usage expected")
    if uuid is None:
        return None, usage
    found = read_uuid(uuid)
    if found is None:
        raise DefinitionError(f"invalid secret uuid '{uuid}'", value=uuid)
    return found, None
