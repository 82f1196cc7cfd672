"""The error tree: one class a cause; the text carries what the field's tools print, the attributes carry the facts.

    CowshedError
    ├── UsageError            the caller's arguments make no sense
    │   └── OptionError       an option is unknown, or its value is not valid
    ├── HostError             the operating system refused (``errno`` is set)
    │   └── NoSpaceError      the target's file system is full
    ├── OpenError             an image could not be opened (``__cause__`` says why)
    ├── LockError             another process uses the image
    ├── TrustError            an image names something that policy does not let it name
    ├── ReadOnlyError         a write to a node that was opened for reading
    ├── UnsupportedError      the driver cannot do that (``errno`` is ENOTSUP)
    ├── FormatError           bytes on disk break their format's rules
    │   ├── ForeignError      this is not an image of that format
    │   ├── FeatureError      the image needs a feature that is not known here
    │   └── CorruptError      damage: metadata contradicts itself
    ├── RangeError            a request lies outside the disk
    └── PoolError             pools, volumes, secrets: libvirt's internal error (1), or by its cause:
        ├── NoSupportError        this kind of pool can't do that (3)
        ├── ArgumentError         invalid argument (8)
        │   └── FlagsError        an option that can't be given here (8)
        ├── OperationError        operation failed: a name, uuid or source is taken (9)
        ├── DefinitionError       a document that says too little or nonsense (27)
        ├── DocumentError         a document that is not well-formed XML (26)
        ├── SchemaError           a document that its schema refuses (92)
        ├── HostCallError         the operating system refused (38); ``errno`` is set
        ├── MissingPoolError      no such pool (49)
        ├── MissingVolumeError    no such volume (50)
        ├── InvalidSecretError    a secret that may not be read (65)
        ├── MissingSecretError    no such secret (66)
        ├── StateError            not in this state: active, inactive, busy (55)
        ├── ConfigError           unsupported configuration (67)
        ├── ArgumentSupportError  argument unsupported (74)
        ├── ProbeError            a device does not hold what the pool says (75)
        ├── BuiltError            a device holds something already (76)
        ├── TooLargeError        a number that does not fit (82)
        ├── OperationUnsupportedError  this volume can't do that (84)
        ├── VolumeExistsError     the name is taken in its pool (90)
        ├── ReadOnlyAccessError   a change through a read-only connection (29)
        └── CancelledError        the job was cancelled (78)

``str(error)`` is one line, the text that scripts know. ``error.detail`` names file, layer, offset, field and value
as far as they are known, for people; ``error.hint`` says what to do.
"""

from __future__ import annotations

import errno as _errno
import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

#: control characters, which a terminal may take for orders, as escapes
_CONTROLS = {code: f"\\x{code:02x}" for code in (*range(32), *range(127, 160))}


def _quiet(text: str) -> str:
    if text.isprintable():
        return text
    text = text.translate(_CONTROLS)
    try:
        text.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:  # half a pair of UTF-16, as JSON may have it
        text = text.encode("utf-8", "backslashreplace").decode()
    return text


class CowshedError(Exception):
    """Base of every error that cowshed raises on purpose.

    Attributes (None where it does not apply): ``path`` file name, ``layer`` driver or structure, ``offset`` bytes
    into the file, ``field`` its name in the specification, ``value`` what stood there, ``limit`` what is allowed,
    ``hint`` what to do, ``errno`` the matching POSIX number.
    """

    errno: int | None = None

    def __init__(
        self,
        message: str,
        *,
        path: str | None = None,
        layer: str | None = None,
        offset: int | None = None,
        field: str | None = None,
        value: object = None,
        limit: object = None,
        hint: str | None = None,
        errno: int | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.path = path
        self.layer = layer
        self.offset = offset
        self.field = field
        self.value = value
        self.limit = limit
        self.hint = hint
        if errno is not None:
            self.errno = errno

    def __str__(self) -> str:
        return self.message

    @property
    def detail(self) -> str:
        """One line naming file, layer, offset, field, value and limit; empty when none is known."""
        parts = []
        if self.path is not None:
            parts.append(f"file '{self.path}'")
        if self.layer is not None:
            parts.append(self.layer)
        if self.field is not None:
            parts.append(f"field {self.field}")
        if self.offset is not None:
            parts.append(f"at offset {self.offset}")
        text = ", ".join(parts)
        if self.value is not None:
            text += f": {self.value}"
        if self.limit is not None:
            text += f" (allowed: {self.limit})"
        return _quiet(text)


class UsageError(CowshedError):
    errno = _errno.EINVAL


class OptionError(UsageError):
    """An option is unknown or its value is not valid; ``field`` is the option, ``value`` what was given."""


class HostError(CowshedError):
    """The operating system refused; ``errno`` says why. The message ends with the C library's text."""


class NoSpaceError(HostError):
    errno = _errno.ENOSPC


class OpenError(CowshedError):
    errno = _errno.EINVAL


class LockError(CowshedError):
    errno = _errno.EAGAIN


class TrustError(CowshedError):
    errno = _errno.EPERM


class ReadOnlyError(CowshedError):
    errno = _errno.EACCES


class UnsupportedError(CowshedError):
    errno = _errno.ENOTSUP


class FormatError(CowshedError):
    """Its words may quote names that stand on the disk: control characters in them are written as escapes, so that a
    terminal does nothing of what a hostile disk wants. ``verbatim``: the words are those of a tool, which writes what
    stands there, and programs read them."""

    errno = _errno.EINVAL

    def __init__(self, message: str, *, verbatim: bool = False, **facts: Any) -> None:
        super().__init__(message if verbatim else _quiet(message), **facts)


class ForeignError(FormatError):
    pass


class FeatureError(FormatError):
    errno = _errno.ENOTSUP


class CorruptError(FormatError):
    errno = _errno.EIO


class RangeError(CowshedError):
    errno = _errno.EINVAL


class PoolError(CowshedError):
    """``code`` is libvirt's number of the error; ``str()`` is libvirt's text, ``prefix`` and all.

    ``PoolError("x")`` reads "internal error: x". Classes whose prefix is empty take the whole text.
    """

    code = 1
    prefix = "internal error: "

    def __init__(
        self,
        message: str,
        *,
        path: str | None = None,
        field: str | None = None,
        value: object = None,
        hint: str | None = None,
        errno: int | None = None,
    ) -> None:
        super().__init__(self.prefix + message, path=path, field=field, value=value, hint=hint, errno=errno)


class NoSupportError(PoolError):
    code = 3
    prefix = "this function is not supported by the connection driver: "
    errno = _errno.ENOTSUP


class ArgumentError(PoolError):
    code = 8
    prefix = "invalid argument: "
    errno = _errno.EINVAL


class FlagsError(ArgumentError):
    """An option that a function doesn't take, or not with the others: libvirt says that without a prefix."""

    prefix = ""


class OperationError(PoolError):
    code = 9
    prefix = "operation failed: "
    errno = _errno.EEXIST


class DocumentError(PoolError):
    code = 26
    prefix = ""
    errno = _errno.EINVAL


class DefinitionError(PoolError):
    code = 27
    prefix = "XML error: "
    errno = _errno.EINVAL


class SchemaError(PoolError):
    code = 92
    prefix = "XML document failed to validate against schema: "
    errno = _errno.EINVAL


class ReadOnlyAccessError(PoolError):
    code = 29
    prefix = "operation forbidden: "
    errno = _errno.EACCES


class HostCallError(PoolError):
    """``message`` says what was tried; the C library's text follows it."""

    code = 38
    prefix = ""

    def __init__(self, message: str, number: int, *, path: str | None = None, hint: str | None = None) -> None:
        super().__init__(f"{message}: {os.strerror(number)}", path=path, hint=hint, errno=number)


class MissingPoolError(PoolError):
    code = 49
    prefix = "Storage pool not found: "
    errno = _errno.ENOENT


class MissingVolumeError(PoolError):
    code = 50
    prefix = "Storage volume not found: "
    errno = _errno.ENOENT


class StateError(PoolError):
    code = 55
    prefix = "Requested operation is not valid: "
    errno = _errno.EBUSY


class InvalidSecretError(PoolError):
    code = 65
    prefix = "Invalid secret: "
    errno = _errno.EACCES


class MissingSecretError(PoolError):
    code = 66
    prefix = "Secret not found: "
    errno = _errno.ENOENT


class ConfigError(PoolError):
    code = 67
    prefix = "unsupported configuration: "
    errno = _errno.ENOTSUP


class ArgumentSupportError(PoolError):
    code = 74
    prefix = "argument unsupported: "
    errno = _errno.ENOTSUP


class ProbeError(PoolError):
    code = 75
    prefix = "Storage pool probe failed: "
    errno = _errno.EINVAL


class BuiltError(PoolError):
    code = 76
    prefix = "Storage pool already built: "
    errno = _errno.EEXIST


class CancelledError(PoolError):
    code = 78
    prefix = "operation aborted: "
    errno = _errno.ECANCELED


class TooLargeError(PoolError):
    code = 82
    prefix = "numerical overflow: "
    errno = _errno.EOVERFLOW


class OperationUnsupportedError(PoolError):
    code = 84
    prefix = "Operation not supported: "
    errno = _errno.EOPNOTSUPP


class VolumeExistsError(PoolError):
    code = 90
    prefix = ""
    errno = _errno.EEXIST


def strerror(number: int) -> str:
    """The C library's text for an errno (positive)."""
    return os.strerror(number)


def host_error(error: OSError, doing: str, path: str | None = None, offset: int | None = None) -> HostError:
    """Turn an OSError into a HostError whose text is ``doing: strerror`` (``doing`` may be empty)."""
    number = error.errno or _errno.EIO
    cls = NoSpaceError if number in (_errno.ENOSPC, _errno.EDQUOT) else HostError
    text = os.strerror(number)
    return cls(f"{doing}: {text}" if doing else text, path=path, offset=offset, errno=number)


def error_number(error: BaseException) -> int:
    """The POSIX number that stands for an error (EIO when none is known)."""
    number = getattr(error, "errno", None)
    return number if isinstance(number, int) else _errno.EIO
