"""What the tools beside guestfish have in common: their options, and a session that is ready."""

from __future__ import annotations

import os

from ....errors import CowshedError
from ...output import Stop
from ..fish import Failed
from ..getopt import Misused, Option, take
from ..start import Start, leading_number

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from ...output import Output
    from ..fish import Fish

    Given = list[tuple[str, str | None]]

#: of every tool
OPTIONS = (
    Option("add", "a", True),
    Option("blocksize", "", None),
    Option("connect", "c", True),
    Option("domain", "d", True),
    Option("format", "", None),
    Option("help"),
    Option("verbose", "v"),
    Option("version", "V"),
    Option("", "x"),
)
#: of those that open what is encrypted with a key
KEYS = (Option("echo-keys"), Option("key", "", True), Option("keys-from-stdin"))
#: of those that mount what they are told to
MOUNTS = (Option("mount", "m", True),)
_COMMON = {one.name for one in (*OPTIONS, *KEYS, *MOUNTS)}


def wrapped(argv: list[str], out: Output, mode: str, verb: str, usage: str) -> int:
    """A tool that is one command of guestfish on the system that is found, with all of guestfish's options."""
    from ..main import main

    if "--help" in argv[1:]:
        out.write(f"{usage}\n\nThe options are guestfish's: see guestfish --help.\n")
        return 0
    return main(argv, out, f"virt-{verb}", (mode, "-i", verb))


class Tool:
    """``name``; ``usage``: its arguments, for help; ``options`` beside the common ones; ``readonly``: it changes
    nothing; ``keys``: its options that speak of keys; ``mounts``: it has -m; ``needs``: what its words are, where there
    must be some; ``bare``: it takes no words when its disks are given by options, and no disks without."""

    def __init__(
        self,
        name: str,
        usage: str,
        out: Output,
        *,
        options: tuple[Option, ...] = (),
        readonly: bool = True,
        inspect: bool = True,
        keys: tuple[Option, ...] = KEYS,
        mounts: bool = False,
        needs: str = "",
        bare: bool = False,
    ) -> None:
        self.name = name
        self.usage = usage
        self.out = out
        found = OPTIONS + keys + MOUNTS * mounts + options
        # as getopt has them: in the order of their names
        self.options = tuple(sorted(found, key=lambda one: one.long or "~"))
        self.readonly = readonly
        self.inspect = inspect
        self.needs = needs
        self.bare = bare
        self.own: dict[str, str | None] = {}
        self.many: Given = []
        self.words: list[str] = []
        self.start = Start(out, readonly=readonly, prog=name)

    @property
    def fish(self) -> Fish:
        return self.start.fish

    def _try(self) -> str:
        return f"Try ‘{self.name} --help’ for more information.\n"

    def misused(self, text: str) -> Stop:
        """The command line lacks something: the original says no more than where to read on."""
        self.out.raw(f"{self.name}: {text}\n{self._try()}")
        return Stop(1)

    def fail(self, text: str) -> Stop:
        self.out.raw(f"{self.name}: {text}\n")
        return Stop(1)

    def run(
        self, argv: list[str], work: Callable[[Tool], int], check: Callable[[Tool], None] | None = None
    ) -> int:
        """Parse, open, mount, and do the tool's work; returns the exit status."""
        if argv[1:2] in (["--long-options"], ["--short-options"]):
            # for shells' completion
            long = argv[1] == "--long-options"
            words = [f"--{one.long}" if long else f"-{one.short}" for one in self.options]
            names = [word for word in words if word.strip("-")]
            self.out.write("".join(f"{name}\n" for name in sorted(names)))
            return 0
        try:
            given, self.words = take(self.options, argv[1:], mixed=True)
        except Misused as misused:
            self.out.raw(f"{self.name}: {misused}\n{self._try()}")
            return 1
        if ("help", None) in given:
            self.out.write(f"{self.name}: {self.usage}\n\nOptions:\n")
            for option in self.options:
                shown = "|".join([f"-{option.short}"] * bool(option.short) + [f"--{option.long}"] * bool(option.long))
                self.out.write(f"  {shown}{' value' if option.value else ''}\n")
            return 0
        for name, value in given:
            if name == "P" and leading_number(value or "") is None:
                self.out.raw(f"{self.name}: -P option is not numeric\n")
                return 1
            if name not in _COMMON:
                self.own[name] = value
                self.many.append((name, value))
        try:
            self.start.prepare([one for one in given if one[0] in _COMMON])
            if self.start.done is not None:
                return self.start.done
            self.fish.session.readonly = self.readonly
            if check is not None:
                check(self)
            if self.bare and self.words:
                raise self.misused(
                    f"error: extra argument ‘{self.words[0]}’ on command line.\n"
                    f"Make sure to specify the argument for --format like '--format={self.words[0]}'."
                )
            self._disks()
            if self.needs and not self.words:
                raise self.misused(f"missing {self.needs}")
            self.start.inspector = self.inspect and not self.start.mounts
            self.start.open()
            self.fish.session.run()
            code = work(self)
            self.fish.session.tree.sync()
            return code
        except Failed as failed:
            self.out.raw(f"libguestfs: error: {failed}\n")
            return 1
        except CowshedError as error:
            self.out.raw(f"libguestfs: error: {error}\n")
            return 1
        except Stop as stop:
            return stop.code
        finally:
            self.fish.close()

    def reopen(self) -> None:
        """Forget what was read of the disks, and begin again with the same options. Raises Stop, CowshedError."""
        old = self.fish
        self.start.fish = old.anew()
        old.close()
        self.start.open()
        self.fish.session.run()

    def _disks(self) -> None:
        """Without -a and -d the words begin with disks, or with a domain's name."""
        from ..start import Disk

        if self.start.disks or self.start.domains:
            return
        while self.words and os.path.isfile(self.words[0]) and not self._is_last():
            self.start.disks.append(Disk(self.words.pop(0), None, None))
        if not self.start.disks and self.words and "/" in self.words[0] and not self.bare:
            raise Failed(f"{self.words[0]}: No such file or directory")
        if not self.start.disks:
            raise self.misused("you must specify at least one -a DISK or -d DOMAIN option")

    def _is_last(self) -> bool:
        return len(self.words) == 1 and self.name not in ("virt-df", "virt-filesystems", "virt-inspector")

    def command(self, *words: str) -> int:
        """A command of guestfish; returns the exit status."""
        return 0 if self.fish.run(list(words)) else 1
