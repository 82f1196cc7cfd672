"""How a command is declared, and how one is found by its name.

    @command("mkdir-mode", "path:path mode:int", help="create a directory with a particular mode")
    def mkdir_mode(fish: Fish, path: bytes, mode: int) -> None: ...

The second text has the arguments in their order, ``name:type``, optional ones in brackets behind them; for what the
types become see arguments.py. ``result`` says how what the function returns is printed (printers.py).
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Any, TypeVar

    Handler = TypeVar("Handler", bound=Callable[..., Any])

#: the modules below verbs/, those that short scripts need first
MODULES = (
    "disk", "read", "write", "local", "facts", "text", "copy", "archive", "partition", "volume", "group", "logical",
    "filesystem", "device", "inspection", "settings", "ext", "rights", "initrd", "journal", "hive", "erase", "forensic",
    "iso", "swap", "handle", "refused",
)  # fmt: skip


#: what usage says of an optional argument's value
_VALUES = {"bool": "true|false", "int": "N", "int64": "N"}


class Argument:
    """``name`` and ``type``; ``optional``: given as NAME:VALUE behind the others."""

    __slots__ = ("name", "optional", "type")

    def __init__(self, text: str) -> None:
        self.optional = text.startswith("[")
        self.name, _, self.type = text.strip("[]").partition(":")

    @property
    def keyword(self) -> str:
        """Its name as a parameter of the function."""
        return self.name if self.name.isidentifier() and self.name not in ("from", "type") else f"{self.name}_"


class Command:
    """``names``: its own first, then aliases. ``rest``: the last argument takes all further words. ``internal``: what
    error messages call it. ``local``: it works before `run`. ``misuse``: what is said of a wrong number of arguments,
    where that isn't its usage; ``{}`` stands for its name. ``instead``: of one that is refused, what to do."""

    __slots__ = (
        "arguments", "handler", "help", "instead", "internal", "local", "misuse", "module", "names", "result", "step",
    )  # fmt: skip

    def __init__(
        self,
        names: tuple[str, ...],
        arguments: list[Argument],
        result: str,
        help: str,
        internal: str,
        step: str,
        local: bool,
        handler: Callable[..., Any],
        misuse: str,
        instead: str,
    ) -> None:
        self.names = names
        self.instead = instead
        self.misuse = misuse
        self.arguments = arguments
        self.result = result
        self.help = help
        self.internal = internal
        self.step = step
        self.local = local
        self.handler = handler
        self.module = handler.__module__.rpartition(".")[2]

    @property
    def name(self) -> str:
        return self.names[0]

    @property
    def usage(self) -> str:
        words = [self.name]
        for argument in self.arguments:
            if argument.optional:
                words.append(f"[{argument.name}:{_VALUES.get(argument.type, '..')}]")
            elif argument.type == "words":
                words.append(f"[{argument.name} ...]")
            else:
                words.append(argument.name)
        return " ".join(words)


#: by name in small letters
_COMMANDS: dict[str, Command] = {}
_loaded: list[str] = []


def command(
    names: str,
    arguments: str = "",
    result: str = "none",
    *,
    help: str,
    internal: str | None = None,
    step: str = "",
    local: bool = False,
    misuse: str = "",
    instead: str = "",
) -> Callable[[Handler], Handler]:
    """Declare the function below as a command; ``names``: its name and its aliases, separated by blanks."""

    def take(handler: Handler) -> Handler:
        all_names = tuple(names.split())
        made = Command(
            all_names,
            [Argument(word) for word in arguments.split()],
            result,
            help,
            internal or all_names[0].replace("-", "_"),
            step,
            local,
            handler,
            misuse,
            instead,
        )
        for name in all_names:
            known = _COMMANDS.setdefault(name.lower(), made)
            if known.handler.__qualname__ != handler.__qualname__:
                raise AssertionError(f"the command {name} is declared twice")
            _COMMANDS[name.lower()] = made
        return handler

    return take


def find(name: str) -> Command | None:
    """The command of that name; underscores count as hyphens, capitals as small letters.

    Loads no more modules than it takes.
    """
    name = name.replace("_", "-").lower()
    while name not in _COMMANDS:
        rest = [module for module in MODULES if module not in _loaded]
        if not rest:
            return None
        _loaded.append(rest[0])
        __import__(f"cowshed.cli.guestfish.verbs.{rest[0]}")
    return _COMMANDS[name]


def commands() -> Iterator[Command]:
    """Every command, sorted by name."""
    find("")
    return iter(sorted(set(_COMMANDS.values()), key=lambda one: one.name))


def names() -> list[str]:
    """All names of commands, aliases too, sorted."""
    find("")
    return sorted(name for known in set(_COMMANDS.values()) for name in known.names)
