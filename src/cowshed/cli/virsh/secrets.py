"""The commands on secrets."""

from __future__ import annotations

import os

from ...errors import CowshedError
from .documents import read_document
from .parse import Call, Failed
from .text import table

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ...pool.secrets import Secret
    from .session import Session

#: the longest value that libvirt keeps
_LONGEST = 65536


def find_secret(session: Session, call: Call) -> Secret:
    """The secret that --secret names. Raises Failed."""
    from .session import checked_uuid

    name = call.need("secret")
    try:
        return session.host.secrets.by_uuid(checked_uuid(name, "virSecretLookupByUUIDString"))
    except CowshedError as error:
        raise Failed(f"failed to get secret '{name}'", error) from error


def secret_define(session: Session, call: Call) -> None:
    path = call.need("file")
    text = read_document(call)
    try:
        if call.flag("validate"):
            from ...wire.libvirt.schema import validate

            validate(text, "secret")
        secret = session.host.secrets.define(text)
    except CowshedError as error:
        raise Failed(f"Failed to set attributes from {path}", error) from error
    session.extra(f"Secret {secret.uuid} created\n")


def secret_dumpxml(session: Session, call: Call) -> None:
    from .pool_verbs import show_document

    show_document(session, call, find_secret(session, call).xml())


def secret_list(session: Session, call: Call) -> None:
    try:
        secrets = session.host.secrets.list()
    except CowshedError as error:
        raise Failed("Failed to list node secrets", error) from error
    lines = []
    for secret in secrets:
        if call.flag("ephemeral") != call.flag("no-ephemeral") and call.flag("ephemeral") != secret.ephemeral:
            continue
        if call.flag("private") != call.flag("no-private") and call.flag("private") != secret.private:
            continue
        usage = f"{secret.usage_type} {secret.usage_id}" if secret.usage_type else "Unused"
        lines.append((secret.uuid, usage))
    session.write(table(("UUID", "Usage"), sorted(lines), quiet=session.quiet))


def secret_get_value(session: Session, call: Call) -> None:
    value = find_secret(session, call).value()
    if call.flag("plain"):
        # bytes of any kind: past the text of standard output
        session.out.flush()
        view = memoryview(value)
        while view:
            view = view[os.write(1, view) :]
    else:
        from base64 import b64encode

        session.write(b64encode(value).decode())


def secret_set_value(session: Session, call: Call) -> None:
    given = [name for name in ("file", "base64") if name in call.values]
    if len(given) > 1:
        raise Failed("Options --file and --base64 are mutually exclusive")
    call.exclusive("plain", "base64")
    call.exclusive("interactive", "file", "base64")
    call.exclusive("interactive", "base64")
    secret = find_secret(session, call)
    encoded, path = call.text("base64"), call.text("file")
    if encoded is None and path is None and not call.flag("interactive"):
        raise Failed("Input secret value is missing")
    if encoded is not None:
        session.error("Passing secret value as command-line argument is insecure!")
        value = os.fsencode(encoded)
    elif path is not None:
        value = _read(path)
    else:
        value = _ask(session)
    if not call.flag("plain") and not call.flag("interactive"):
        from base64 import b64decode

        try:
            value = b64decode(value, validate=False)
        except ValueError as error:
            raise Failed("Invalid base64 data") from error
    try:
        secret.set_value(value)
    except CowshedError as error:
        raise Failed("Failed to set secret value", error) from error
    session.extra("Secret value set\n")


def _read(path: str) -> bytes:
    try:
        with open(path, "rb") as file:
            value = file.read(_LONGEST + 1)
    except OSError as error:
        raise Failed(f"Failed to open file '{path}': {error.strerror}") from error
    if len(value) > _LONGEST:
        raise Failed(f"Failed to read file '{path}': {os.strerror(75)}")
    return value


def _ask(session: Session) -> bytes:
    session.write("Enter new value for secret:")
    session.out.flush()
    from getpass import getpass

    try:
        return os.fsencode(getpass(""))
    except EOFError:
        raise Failed("Failed to read secret") from None


def secret_undefine(session: Session, call: Call) -> None:
    secret = find_secret(session, call)
    name = call.need("secret")
    try:
        secret.undefine()
    except CowshedError as error:
        raise Failed(f"Failed to delete secret {name}", error) from error
    session.extra(f"Secret {name} deleted\n")
