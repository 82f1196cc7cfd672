"""getopt_long as the GNU C library behaves: one scanner for every qemu-img command line.

Operands and options mix (unless POSIXLY_CORRECT is set or ``in_order`` asked), long options may be shortened
as long as they stay unique, values follow after ``=`` or as the next argument, short options cluster, ``--`` ends the
options. Error texts name ``argv[index - 1]`` at the time of the error, an index into the permuted vector, which is
not always the argument that is wrong; so the permutation itself is part of the interface.
"""

from __future__ import annotations

import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from .tables import Option


class BadOption(Exception):
    """``kind`` is "missing" (its argument) or "unknown"; ``culprit`` the argument that messages name."""

    def __init__(self, kind: str, culprit: str) -> None:
        super().__init__(kind, culprit)
        self.kind = kind
        self.culprit = culprit


class Scanner:
    """Walks ``argv`` (whose first item is the program or command name); call ``next`` until it returns None.

    ``value``: the argument of the option just returned. ``operands``: what is left, once ``next`` returned None.
    ``complain`` is called with the C library's own message for a mistake; None where the program keeps it silent.
    """

    __slots__ = ("_cluster", "_complain", "_first", "_in_order", "_last", "argv", "index", "options", "value")

    def __init__(
        self,
        argv: Sequence[str],
        options: Sequence[Option],
        *,
        in_order: bool = False,
        complain: Callable[[str], None] | None = None,
    ) -> None:
        self.argv = list(argv)
        self.index = 1
        self.value = ""
        self.options = options
        self._in_order = in_order or "POSIXLY_CORRECT" in os.environ
        self._complain = complain
        self._cluster = ""  # what is left of a cluster of short options
        self._first = 1  # argv[first:last] are operands that options were moved in front of
        self._last = 1

    @property
    def operands(self) -> list[str]:
        return self.argv[self.index :]

    def next(self) -> Option | None:
        """The next option, or None at the end. Raises BadOption."""
        self.value = ""
        if not self._cluster:
            arg = self._advance()
            if arg is None:
                return None
            if arg.startswith("--"):
                return self._long(arg[2:])
            # Short options are bytes to the C library, also where they are part of a character.
            self._cluster = arg[1:] if arg.isascii() else os.fsencode(arg)[1:].decode("ascii", "surrogateescape")
        return self._short()

    def _advance(self) -> str | None:
        """Move on to the next argument that holds options and return it; None at the end."""
        argv, end = self.argv, len(self.argv)
        if not self._in_order:
            self._gather()
            while self.index < end and not _is_option(argv[self.index]):
                self.index += 1
            self._last = self.index
        if self.index < end and argv[self.index] == "--":
            self.index += 1
            self._gather()
            self._last = self.index = end
        if self.index == end:
            if self._first != self._last:
                self.index = self._first
            return None
        return argv[self.index] if _is_option(argv[self.index]) else None

    def _gather(self) -> None:
        """Move the options just read in front of the operands passed over."""
        first, last, index = self._first, self._last, self.index
        if first == last:
            if last != index:
                self._first = index
        elif last != index:
            self.argv[first:index] = self.argv[last:index] + self.argv[first:last]
            self._first = first + index - last
        self._last = index

    def _bad(self, kind: str, message: str) -> BadOption:
        if self._complain is not None:
            self._complain(message)
        return BadOption(kind, self.argv[self.index - 1])

    def _long(self, text: str) -> Option:
        name, equals, value = text.partition("=")
        self.index += 1
        found = None
        rivals: list[Option] = []
        for option in self.options:
            if option.long == name and name:
                found, rivals = option, []
                break
            if option.long.startswith(name) and option.long:
                if found is None:
                    found = option
                else:
                    rivals.append(option)
        if rivals and found is not None:
            names = " ".join(f"'--{option.long}'" for option in (found, *rivals))
            raise self._bad("unknown", f"option '--{text}' is ambiguous; possibilities: {names}")
        if found is None:
            raise self._bad("unknown", f"unrecognized option '--{text}'")
        if equals:
            if not found.metavar:
                raise self._bad("unknown", f"option '--{found.long}' doesn't allow an argument")
            self.value = value
        elif found.metavar:
            if self.index == len(self.argv):
                raise self._bad("missing", f"option '--{found.long}' requires an argument")
            self.value = self.argv[self.index]
            self.index += 1
        return found

    def _short(self) -> Option:
        letter, self._cluster = self._cluster[0], self._cluster[1:]
        if not self._cluster:
            self.index += 1
        for option in self.options:
            if option.short == letter:
                break
        else:
            raise self._bad("unknown", f"invalid option -- '{letter}'")
        if option.metavar:
            if self._cluster:
                self.value = os.fsdecode(self._cluster.encode("ascii", "surrogateescape"))
                self._cluster = ""
                self.index += 1
            elif self.index == len(self.argv):
                raise self._bad("missing", f"option requires an argument -- '{letter}'")
            else:
                self.value = self.argv[self.index]
                self.index += 1
        return option


def _is_option(arg: str) -> bool:
    return len(arg) > 1 and arg[0] == "-"
