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
    └── RangeError            a request lies outside the disk

``str(error)`` is one line, the text that scripts know. ``error.detail`` names file, layer, offset, field and value
as far as they are known, for people; ``error.hint`` says what to do.
"""

from __future__ import annotations

import errno as _errno
import os


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
        return text


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
    errno = _errno.EINVAL


class ForeignError(FormatError):
    pass


class FeatureError(FormatError):
    errno = _errno.ENOTSUP


class CorruptError(FormatError):
    errno = _errno.EIO


class RangeError(CowshedError):
    errno = _errno.EINVAL


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
