"""What a guest's path says without asking the guest: pathlib's pure part.

Paths are absolute. They are kept as bytes; text that is no UTF-8 is shown with surrogate escapes, as by `os.fsdecode`.
"""

from __future__ import annotations

import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pathlib import PurePath, PurePosixPath
    from typing import Self, TypeAlias

    from .session import Session

    #: what can be joined: text, bytes, paths of this or of another guest, pathlib's pure paths
    Segment: TypeAlias = str | bytes | PurePath | "GuestName"


def raw_of(segment: Segment) -> bytes:
    """Raises TypeError for what is no path."""
    return segment._raw if isinstance(segment, GuestName) else os.fsencode(segment)


class GuestName:
    """An absolute path in the tree of ``session``. A segment that begins with a slash starts anew, as pathlib has it;
    a relative one begins at /."""

    __slots__ = ("_raw", "session")

    def __init__(self, session: Session, *segments: Segment) -> None:
        path = b""
        for segment in segments:
            raw = raw_of(segment)
            path = raw if raw.startswith(b"/") else path + b"/" + raw
        self.session = session
        self._raw = b"/" + b"/".join(part for part in path.split(b"/") if part not in (b"", b"."))

    def with_segments(self, *segments: Segment) -> Self:
        """Another path of the same guest."""
        return type(self)(self.session, *segments)

    def __bytes__(self) -> bytes:
        return self._raw

    def __str__(self) -> str:
        return os.fsdecode(self._raw)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({str(self)!r})"

    def as_posix(self) -> str:
        return str(self)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, GuestName) and other.session is self.session and other._raw == self._raw

    def __hash__(self) -> int:
        return hash((id(self.session), self._raw))

    def _order(self) -> list[bytes]:
        return self._raw.split(b"/")

    def __lt__(self, other: GuestName) -> bool:
        return self._order() < other._order() if isinstance(other, GuestName) else NotImplemented

    def __le__(self, other: GuestName) -> bool:
        return self._order() <= other._order() if isinstance(other, GuestName) else NotImplemented

    def __gt__(self, other: GuestName) -> bool:
        return self._order() > other._order() if isinstance(other, GuestName) else NotImplemented

    def __ge__(self, other: GuestName) -> bool:
        return self._order() >= other._order() if isinstance(other, GuestName) else NotImplemented

    def __truediv__(self, other: Segment) -> Self:
        try:
            return self.with_segments(self, other)
        except TypeError:
            return NotImplemented

    def joinpath(self, *others: Segment) -> Self:
        return self.with_segments(self, *others)

    # ---- parts

    @property
    def pure(self) -> PurePosixPath:
        """The same text as one of pathlib's pure paths."""
        from pathlib import PurePosixPath

        return PurePosixPath(str(self))

    @property
    def parts(self) -> tuple[str, ...]:
        return self.pure.parts

    @property
    def drive(self) -> str:
        return ""

    @property
    def root(self) -> str:
        return "/"

    @property
    def anchor(self) -> str:
        return "/"

    @property
    def name(self) -> str:
        return os.fsdecode(self._raw.rpartition(b"/")[2])

    @property
    def suffix(self) -> str:
        return self.pure.suffix

    @property
    def suffixes(self) -> list[str]:
        return self.pure.suffixes

    @property
    def stem(self) -> str:
        return self.pure.stem

    @property
    def parent(self) -> Self:
        return self.with_segments(self._raw.rpartition(b"/")[0] or b"/")

    @property
    def parents(self) -> tuple[Self, ...]:
        found: list[Self] = []
        at = self
        while at._raw != b"/":
            at = at.parent
            found.append(at)
        return tuple(found)

    def with_name(self, name: str) -> Self:
        """Raises ValueError for what is no name, and for /."""
        return self.with_segments(self.pure.with_name(name))

    def with_stem(self, stem: str) -> Self:
        return self.with_segments(self.pure.with_stem(stem))

    def with_suffix(self, suffix: str) -> Self:
        return self.with_segments(self.pure.with_suffix(suffix))

    # ---- one path and another

    def is_absolute(self) -> bool:
        return True

    def absolute(self) -> Self:
        return self

    def is_relative_to(self, other: Segment) -> bool:
        return self.pure.is_relative_to(os.fsdecode(raw_of(other)))

    def relative_to(self, other: Segment, *, walk_up: bool = False) -> PurePosixPath:
        """The way from there to here. Raises ValueError when this is not below, without ``walk_up``."""
        from pathlib import PurePosixPath

        there = os.fsdecode(raw_of(other))
        if not walk_up or self.is_relative_to(there):
            return self.pure.relative_to(there)
        base, up = PurePosixPath(there), 0
        while not self.pure.is_relative_to(base):
            if base.name == ".." or base == base.parent:
                raise ValueError(f"{str(self)!r} is not in the subpath of {there!r}")
            base, up = base.parent, up + 1
        return PurePosixPath(*[".."] * up, self.pure.relative_to(base))

    def match(self, pattern: str, *, case_sensitive: bool | None = None) -> bool:
        """Does the end of the path match, or all of it a pattern that begins with a slash? ``**`` is as ``*``."""
        pure = self.pure
        if case_sensitive is False:
            return type(pure)(str(pure).lower()).match(pattern.lower())
        return pure.match(pattern)

    def full_match(self, pattern: str, *, case_sensitive: bool | None = None) -> bool:
        """Does the whole path match? ``**`` is any number of names."""
        from .pathwalk import full_match

        return full_match(self._raw, os.fsencode(pattern), case_sensitive is not False)
