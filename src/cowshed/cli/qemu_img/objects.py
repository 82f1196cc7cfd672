"""``--object``: what is wrong with one is told while the command line is read, before later options are looked at.

``secret`` is the object that images need; the others here tune a program with an event loop, and are checked and
then of no consequence.
"""

from __future__ import annotations

from ..output import Stop

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from ..output import Output
    from .parsed import Parsed

_LIMITS = ("x-bps", "x-iops")
_THROTTLE = tuple(
    f"{what}-{way}{part}"
    for what in _LIMITS
    for way in ("read", "total", "write")
    for part in ("-max-length", "-max", "")
)
#: type -> its properties as help lists them
TYPES = {
    "main-loop": ("aio-max-batch=<int>", "thread-pool-max=<int>", "thread-pool-min=<int>"),
    "secret": (
        "data=<string>",
        "file=<string>",
        "format=<QCryptoSecretFormat>",
        "iv=<string>",
        "keyid=<string>",
    ),
    "thread-context": ("cpu-affinity=<int>", "node-affinity=<int>"),
    "throttle-group": (
        "limits=<ThrottleLimits>",
        *(f"{name}=<int>" for name in sorted((*_THROTTLE, "x-iops-size"), key=lambda name: f"{name}=")),
    ),
}

_LETTERS = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
_NAME = _LETTERS + "0123456789-_"
_BASE64 = _LETTERS + "0123456789+/=\n"


class _Bad(Exception):
    """What is wrong with an object; ``hint`` follows on lines of its own."""

    def __init__(self, text: str, hint: str = "") -> None:
        super().__init__(text)
        self.hint = hint


def define(text: str, args: Parsed, out: Output, failure: int) -> None:
    """Check one --object and note a secret in ``args.secrets``. Raises Stop, with ``failure`` when it is wrong."""
    try:
        values, asks = _read(text)
        if asks:
            _help(values.get("qom-type"), out)
            raise Stop(0)
        _check(values)
        name = values["id"]
        if name in args.object_ids:
            raise _Bad(f"attempt to add duplicate property '{name}' to object (type 'container')")
        if values["qom-type"] == "secret":
            from ...block.secret import Secrets

            content = _secret(values, args.secrets or {}, args.object_ids)
            args.secrets = args.secrets if args.secrets is not None else Secrets()
            args.secrets[name] = content
        elif values["qom-type"] == "main-loop" and "main-loop" in args.object_ids.values():
            raise _Bad("only one main-loop instance allowed")
        args.object_ids[name] = values["qom-type"]
    except _Bad as bad:
        out.error(str(bad), bad.hint)
        raise Stop(failure) from None


def _help(kind: object, out: Output) -> None:
    if isinstance(kind, str) and kind in TYPES:
        out.write(f"{kind} options:\n" + "".join(f"  {line}\n" for line in TYPES[kind]))
    else:
        out.write("List of user creatable objects:\n" + "".join(f"  {name}\n" for name in sorted(TYPES)))


def _read(text: str) -> tuple[dict[str, Any], bool]:
    """The properties of an object in either spelling, and whether help is asked for."""
    if text.startswith("{"):
        from ...block.jsontext import parse_json
        from ...errors import OptionError

        try:
            return parse_json(text), False
        except OptionError as error:
            raise _Bad(str(error)) from None
    values: dict[str, Any] = {}
    asks = False
    at = 0
    while at < len(text):
        end = min(index for index in (text.find("=", at), text.find(",", at), len(text)) if index >= 0)
        name = text[at:end]
        if name and text[end : end + 1] != "=":
            if name in ("help", "?"):
                asks = True
                at = end + 1
                continue
            if at:
                raise _Bad(f"Expected '=' after parameter '{name}'")
            name, end = "qom-type", -1
        if not all(part and part[0] in _LETTERS and not part.strip(_NAME) for part in name.split(".")):
            raise _Bad(f"Invalid parameter '{name}'")
        at = end + 1
        value = ""
        while True:
            comma = text.find(",", at)
            if comma < 0:
                comma = len(text)
            value += text[at:comma]
            at = comma + 1
            if text[at : at + 1] != ",":
                break
            value += ","
            at += 1
        values[name] = value
    return values, asks


def _check(values: dict[str, Any]) -> None:
    """Type, id and the names of the properties."""
    for name in ("qom-type", "id"):
        if name not in values:
            raise _Bad(f"Parameter '{name}' is missing")
        if not isinstance(values[name], str):
            raise _Bad(f"Invalid parameter type for '{name}', expected: string")
        if name == "qom-type" and values[name] not in TYPES:
            raise _Bad(f"Parameter 'qom-type' does not accept value '{values[name]}'")
    known = dict(line.split("=") for line in TYPES[values["qom-type"]])
    for name, kind in known.items():
        value = values.get(name)
        if kind == "<string>" and value is not None and not isinstance(value, str):
            raise _Bad(f"Invalid parameter type for '{name}', expected: string")
        if kind == "<int>" and isinstance(value, str) and not value.removeprefix("-").isdecimal():
            raise _Bad(f"Parameter '{name}' expects integer")
        if kind == "<QCryptoSecretFormat>" and value not in (None, "raw", "base64"):
            raise _Bad(f"Parameter '{name}' does not accept value '{value}'")
    strange = {name.split(".")[0]: name for name in values if name not in known and name not in ("qom-type", "id")}
    strange.pop("limits", None)
    if strange:
        from ...wire.qdict import ordered

        first, name = ordered(strange)[0]
        raise _Bad(f"Parameters '{first}.*' are unexpected" if "." in name else f"Parameter '{first}' is unexpected")
    name = values["id"]
    if not (name and name[0] in _LETTERS and not name.strip(_NAME + ".")):
        raise _Bad(
            "Parameter 'id' expects an identifier",
            "Identifiers consist of letters, digits, '-', '.', '_', starting with a letter.\n",
        )


def _secret(values: dict[str, Any], known: dict[str, bytes], objects: dict[str, str]) -> bytes:
    """The bytes of a secret."""
    import os

    path, data = values.get("file"), values.get("data")
    if path is not None and data is not None:
        raise _Bad("'file' and 'data' are mutually exclusive")
    if path is not None:
        doing = "Failed to open file"
        try:
            with open(path, "rb") as file:
                doing = "Error reading file"
                content = file.read()
        except OSError as error:
            if error.strerror == os.strerror(21):
                doing = "Error reading file"
            raise _Bad(f"Unable to read {path}: {doing} “{path}”: {error.strerror}") from None
    elif data is not None:
        content = os.fsencode(data)
    else:
        raise _Bad("Either 'file' or 'data' must be provided")
    key = values.get("keyid")
    if key is not None:
        if key in objects and key not in known:
            raise _Bad(f"Object with id '{key}' is not a secret")
        if key not in known:
            raise _Bad(f"No secret with id '{key}'")
        if len(known[key]) != 32:
            raise _Bad("Key should be 32 bytes in length")
        raise _Bad(f"Secret '{values['id']}' is encrypted with '{key}', and cowshed cannot decrypt secrets yet")
    if values.get("format") != "base64":
        return content
    text = content.decode("latin-1")
    import binascii

    try:
        if any(char not in _BASE64 for char in text):
            raise binascii.Error
        digits = text.replace("\n", "")
        # Of a last group that is not whole, nothing counts.
        return binascii.a2b_base64(digits[: len(digits) // 4 * 4])
    except binascii.Error:
        raise _Bad("Base64 data contains invalid characters") from None
