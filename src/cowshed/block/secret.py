"""Secrets: passphrases and keys, named by id, that images ask for. They never stand in an image or in a message."""

from __future__ import annotations

from ..errors import OptionError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping


class Secrets(dict[str, bytes]):
    """Bytes by id."""

    __slots__ = ()

    def __repr__(self) -> str:
        return f"<Secrets {', '.join(sorted(self))}>"


def lookup(secrets: Mapping[str, bytes] | None, id: str) -> bytes:
    """The value of the secret called ``id``. Raises OptionError when there is none."""
    if secrets is None or id not in secrets:
        raise OptionError(f"No secret with id '{id}'", field="secret", value=id)
    return secrets[id]
