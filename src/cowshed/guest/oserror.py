"""Errors of a guest as pathlib's callers expect them: `FileNotFoundError` and its like, that are `GuestError` too."""

from __future__ import annotations

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
                second = kwargs.get("target", args[0] if args else None)
                raise os_error(error, str(self), str(second) if type(second) is type(self) else None) from error

    return called
