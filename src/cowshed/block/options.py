"""Options as the field's tools write them: ``cluster_size=64k,lazy_refcounts=on``.

An option is declared once, in its driver's `OptionTable`; parsing, help, the ``Formatting …`` line and documentation
come from there. The text form is a list of ``name=value`` separated by commas; a comma inside a value is doubled.
A name alone means ``on``; a name alone with ``no`` before it means ``off`` for what follows the ``no``.
"""

from __future__ import annotations

from ..errors import OptionError
from ..units import UnitsError, parse_size, parse_unsigned

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping
    from typing import Any, Literal

    Kind = Literal["size", "num", "bool", "str"]
    Warn = Callable[[str], None]

_SIZE_HINT = (
    "Optional suffix k, M, G, T, P or E means kilo-, mega-, giga-, tera-, peta-\nand exabytes, respectively."
)
_TRUE = ("on", "yes", "true", "y")
_FALSE = ("off", "no", "false", "n")
_KIND_HELP = {"size": "size", "num": "num", "bool": "bool (on/off)", "str": "str"}


class Option:
    """One declared option.

    ``kind``: "size" (bytes, suffixes allowed), "num" (unsigned below 2**64), "bool" or "str". ``default``: the value
    when none is given, in the option's own type; None for none. ``choices``: the values that the driver takes, for
    completion and documentation; the driver itself refuses others, since its wording differs.
    """

    __slots__ = ("choices", "default", "help", "kind", "name")

    def __init__(
        self,
        name: str,
        kind: Kind,
        help: str = "",
        default: int | bool | str | None = None,
        choices: tuple[str, ...] = (),
    ) -> None:
        self.name = name
        self.kind: Kind = kind
        self.help = help
        self.default = default
        self.choices = choices

    @property
    def default_text(self) -> str | None:
        """The default as text, None when there is none."""
        if self.default is None:
            return None
        if isinstance(self.default, bool):
            return "on" if self.default else "off"
        return str(self.default)

    def parse(self, text: str, warn: Warn | None = None) -> int | bool | str:
        """The value of ``text``. Raises OptionError; ``warn`` hears of deprecated spellings."""
        if self.kind == "str":
            return text
        if self.kind == "bool":
            return parse_bool(self.name, text)
        if self.kind == "size":
            return parse_size_option(self.name, text, warn)
        return parse_number(self.name, text)

    def accept(self, value: object, warn: Warn | None = None) -> tuple[int | bool | str, str]:
        """The (value, text) of a value given by a program rather than as text. Raises OptionError."""
        if isinstance(value, str):
            return self.parse(value, warn), value
        if isinstance(value, bool):
            text = "on" if value else "off"
            return self.parse(text, warn), text
        if isinstance(value, (int, float)):
            text = format(value, ".17g") if isinstance(value, float) else str(value)
            return self.parse(text, warn), text
        if hasattr(value, "__fspath__") and self.kind == "str":
            text = str(value.__fspath__())
            return text, text
        raise OptionError(
            f"Invalid parameter type for '{self.name}', expected: {_TYPE_WORDS[self.kind]}",
            field=self.name,
            value=value,
        )

    def help_line(self) -> str:
        """``  name=<kind>         - what it is``, as the tools list it."""
        left = f"  {self.name}=<{_KIND_HELP[self.kind]}>"
        return f"{left:<24} - {self.help}" if self.help else left


_TYPE_WORDS = {"size": "integer", "num": "integer", "bool": "boolean", "str": "string"}


def parse_bool(name: str, text: str) -> bool:
    """``on``/``yes``/``true``/``y`` or ``off``/``no``/``false``/``n``. Raises OptionError."""
    if text in _TRUE:
        return True
    if text in _FALSE:
        return False
    raise OptionError(f"Parameter '{name}' expects 'on' or 'off'", field=name, value=text)


def parse_size_option(name: str, text: str, warn: Warn | None = None) -> int:
    """A size in bytes with the tools' suffixes. Raises OptionError."""
    try:
        return parse_size(text, warn)
    except UnitsError as error:
        if error.reason == "range":
            message = f"Value '{text}' is out of range for parameter '{name}'"
            raise OptionError(message, field=name, value=text) from None
        raise OptionError(
            f"Parameter '{name}' expects a non-negative number below 2^64", field=name, value=text, hint=_SIZE_HINT
        ) from None


def parse_number(name: str, text: str) -> int:
    """A whole number; a minus sign wraps it below 2**64, as in C. Raises OptionError."""
    try:
        return parse_unsigned(text)
    except UnitsError as error:
        if error.reason == "range":
            raise OptionError(f"Value '{text}' is too large for parameter '{name}'", field=name, value=text) from None
        raise OptionError(f"Parameter '{name}' expects a number", field=name, value=text) from None


class OptionValues(dict[str, "Any"]):
    """Options that were given, by name, each in its own type; ``texts`` keeps them as they were written.

    A name given twice has its last value. `filled` adds the defaults.
    """

    __slots__ = ("table", "texts")

    def __init__(self, table: OptionTable) -> None:
        super().__init__()
        self.table = table
        self.texts: dict[str, str] = {}

    def put(self, name: str, value: object, warn: Warn | None = None) -> None:
        """Set one option; None takes it away. Raises OptionError when it is unknown or the value is not valid."""
        option = self.table.get(name)
        if option is None:
            raise OptionError(f"Invalid parameter '{name}'", field=name, value=value)
        if value is None:
            self.drop(name)
        else:
            self[name], self.texts[name] = option.accept(value, warn)

    def drop(self, name: str) -> None:
        self.pop(name, None)
        self.texts.pop(name, None)

    def copy(self) -> OptionValues:
        other = OptionValues(self.table)
        other.update(self)
        other.texts.update(self.texts)
        return other

    def filled(self) -> dict[str, Any]:
        """What was given and, where the table has one, the default of everything else: a new plain dict."""
        values = {option.name: option.default for option in self.table if option.default is not None}
        values.update(self)
        return values

    def formatting(self) -> str:
        """``name=value …`` in the table's order, defaults included, as the ``Formatting`` line shows it."""
        parts = []
        for option in self.table:
            name = option.name
            if name in self:
                if option.kind in ("size", "num"):
                    number = self[name]
                    # shown as the signed 64-bit number that the tools print
                    text = str(number - (1 << 64) if number >> 63 else number)
                else:
                    text = self.texts[name]
            else:
                default = option.default_text
                if default is None:
                    continue
                text = default
            if option.kind == "str":
                text = escape(text)
            parts.append(f"{name}={text}")
        return " ".join(parts)


class OptionTable:
    """The options of one driver for one job, in the order in which they are shown."""

    __slots__ = ("_by_name", "driver")

    def __init__(self, driver: str, options: Iterable[Option]) -> None:
        self.driver = driver
        self._by_name: dict[str, Option] = {}
        for option in options:
            if option.name in self._by_name:
                raise ValueError(f"option {option.name} is declared twice for {driver}")
            self._by_name[option.name] = option

    def __iter__(self) -> Iterator[Option]:
        return iter(self._by_name.values())

    def __len__(self) -> int:
        return len(self._by_name)

    def __contains__(self, name: object) -> bool:
        return name in self._by_name

    def get(self, name: str) -> Option | None:
        return self._by_name.get(name)

    def merged(self, below: OptionTable) -> OptionTable:
        """This table, and after it what only ``below`` (the protocol's) has."""
        return OptionTable(self.driver, [*self, *(option for option in below if option.name not in self._by_name)])

    def parse(
        self,
        given: str | Mapping[str, object] | None,
        values: OptionValues | None = None,
        warn: Warn | None = None,
    ) -> OptionValues:
        """Options from text or from a mapping, onto ``values`` when given. Raises OptionError.

        In a mapping values may be of the option's own type or text; None stands for an option not given.
        """
        result = OptionValues(self) if values is None else values
        if given is None:
            return result
        if isinstance(given, str):
            for name, text in split(given):
                # every option group may carry an id, which names the group and is not an option
                if name != "id":
                    result.put(name, text, warn)
        else:
            for name, value in given.items():
                result.put(name, value, warn)
        return result

    def help_text(self, title: str | None = None) -> str:
        """``title`` (default ``Supported options:``) and a line for each option, sorted by name."""
        lines = [title or "Supported options:"]
        lines += [option.help_line() for option in sorted(self, key=lambda option: option.name)]
        return "\n".join(lines) + "\n"


def split(text: str, implied: str | None = None) -> list[tuple[str, str]]:
    """The (name, value) pairs of an option text, in order. ``implied``: the name of a first value without one."""
    return [(name, value) for name, value, _ in items(text, implied)]


def items(text: str, implied: str | None = None) -> Iterator[tuple[str, str, str | None]]:
    """As `split`, with the text of an item that stands alone (``on``, ``noon``, ``help``), None for ``name=value``."""
    at, end = 0, len(text)
    while at < end:
        stop = at
        while stop < end and text[stop] not in "=,":
            stop += 1
        alone = None
        if stop < end and text[stop] == "=":
            name = text[at:stop]
            value, at = _value(text, stop + 1)
        elif at == 0 and implied is not None:
            name = implied
            value, at = _value(text, at)
        else:
            name, value = text[at:stop], "on"
            alone = name
            if name.startswith("no"):
                name, value = name[2:], "off"
            at = stop
        yield name, value, alone
        at += 1  # the comma


def _value(text: str, at: int) -> tuple[str, int]:
    """The value that begins at ``at``, its doubled commas made single, and the index of the comma that ends it."""
    parts = []
    while True:
        comma = text.find(",", at)
        if comma < 0:
            parts.append(text[at:])
            return "".join(parts), len(text)
        if text[comma : comma + 2] != ",,":
            parts.append(text[at:comma])
            return "".join(parts), comma
        parts.append(text[at : comma + 1])
        at = comma + 2


def escape(text: str) -> str:
    """A value as it is written in an option text: commas doubled."""
    return text.replace(",", ",,")


def accumulate(so_far: str | None, text: str) -> str:
    """Join the texts of several ``-o``. Raises OptionError ``Invalid option list: …``."""
    trailing = len(text) - len(text.rstrip(","))
    if not text or text.startswith(",") or trailing % 2:
        raise OptionError(f"Invalid option list: {text}", value=text)
    return text if so_far is None else f"{so_far},{text}"


def wants_help(text: str | None) -> bool:
    """Does an item of an option text ask for help: ``help`` or ``?``, standing alone?"""
    return any(alone in ("help", "?") for _, _, alone in items(text or ""))
