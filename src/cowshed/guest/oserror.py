"""Errors of a guest as pathlib's callers expect them: `FileNotFoundError` and its like, that are `GuestError` too."""

from __future__ import annotations

import errno
import os

from .filesystem.base import GuestError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, Concatenate, ParamSpec, Protocol, TypeVar

    from .session import Session

    class HasSession(Protocol):
        @property
        def session(self) -> Session: ...

    P = ParamSpec("P")
    R = TypeVar("R")
    S = TypeVar("S", bound=HasSession)

#: methods about two paths: the C library's links name the other one first
_TWO = ("rename", "symlink_to", "hardlink_to")
_CLASSES: dict[type[OSError], type[GuestError]] = {}


def os_error(error: GuestError, path: str | None = None, other: str | None = None) -> GuestError:
    """The same error as a `GuestError` that is also the subclass of OSError for its number, with ``filename`` (and
    ``filename2``, where two paths were given), ``errno`` and ``strerror``."""
    if isinstance(error, OSError) or error.errno is None:
        return error
    return _build(error.errno, error.message, error.path or path, other, error.hint)


def _build(number: int, message: str, path: str | None, other: str | None, hint: str | None) -> GuestError:
    builtin = type(OSError(number, ""))
    cls = _CLASSES.get(builtin)
    if cls is None:
        body = {"__doc__": builtin.__doc__, "__module__": __name__, "__reduce__": _reduce}
        cls = _CLASSES[builtin] = type(f"Guest{builtin.__name__}", (GuestError, builtin), body)
    made: Any = cls(number, hint=hint, path=path)
    made.message = message
    made.strerror = os.strerror(number)
    made.filename = path
    made.filename2 = other
    return made  # type: ignore[no-any-return]


def _reduce(error: Any) -> tuple[object, ...]:
    return _build, (error.errno, error.message, error.filename, error.filename2, error.hint)


class Turn:
    """A ``with`` in which a guest is asked something about ``path``: in turn, with errors as `os_error` makes them."""

    __slots__ = ("_path", "_session")

    def __init__(self, session: Session, path: str) -> None:
        self._session = session
        self._path = path

    def __enter__(self) -> None:
        self._session.lock.acquire()

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        self._session.lock.release()
        if isinstance(error, GuestError) and not isinstance(error, OSError):
            raise os_error(error, self._path) from error


def asked(method: Callable[Concatenate[S, P], R]) -> Callable[Concatenate[S, P], R]:
    """A method that asks the guest something: in its turn among threads, with errors as `os_error` makes them."""
    from functools import wraps

    @wraps(method)
    def called(self: S, /, *args: P.args, **kwargs: P.kwargs) -> R:
        with self.session.lock:
            try:
                return method(self, *args, **kwargs)
            except GuestError as error:
                if isinstance(error, OSError):
                    raise
                if error.errno == errno.EINVAL and "\0" in str(self):
                    raise ValueError("embedded null byte") from None
                first, second = str(self), None
                if method.__name__ in _TWO and (args or kwargs):
                    given: Any = args[0] if args else kwargs["target"]
                    second = str(given) if isinstance(given, type(self)) else os.fsdecode(given)
                    if method.__name__ != "rename":
                        first, second = second, first
                raise os_error(error, first, second) from error

    return called
