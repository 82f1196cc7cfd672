"""What the tools beside guestfish have in common: their options, and a session that is ready."""

from __future__ import annotations

import os

from ....errors import CowshedError
from ...output import Stop
from ..fish import Failed
from ..getopt import Misused, Option, take
from ..start import Start

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from ...output import Output
    from ..fish import Fish

    Given = list[tuple[str, str | None]]

OPTIONS = (
    Option("add", "a", True),
    Option("blocksize", "", None),
    Option("connect", "c", True),
    Option("domain", "d", True),
    Option("echo-keys"),
    Option("format", "", None),
    Option("help"),
    Option("key", "", True),
    Option("keys-from-stdin"),
    Option("mount", "m", True),
    Option("verbose", "v"),
    Option("version", "V"),
    Option("trace", "x"),
)


class Tool:
    """``name``; ``usage``: its arguments, for help; ``options`` beside the common ones; ``readonly``: it changes
    nothing; ``needs``: what its words are, where there must be some; ``bare``: it takes no words when its
    disks are given by options, and no disks without."""

    def __init__(
        self,
        name: str,
        usage: str,
        out: Output,
        *,
        options: tuple[Option, ...] = (),
        readonly: bool = True,
        inspect: bool = True,
        needs: str = "",
        bare: bool = False,
    ) -> None:
        self.name = name
        self.usage = usage
        self.out = out
        self.options = OPTIONS + options
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
            names = sorted(f"--{one.long}" if long else f"-{one.short}" for one in self.options if long or one.short)
            self.out.write("".join(f"{name}\n" for name in names))
            return 0
        try:
            given, self.words = take(self.options, argv[1:], mixed=True)
        except Misused as misused:
            self.out.raw(f"{self.name}: {misused}\n{self._try()}")
            return 1
        common = {one.long for one in OPTIONS}
        if ("help", None) in given:
            self.out.write(f"{self.name}: {self.usage}\n\nOptions:\n")
            for option in self.options:
                short = f"-{option.short}|" if option.short else ""
                self.out.write(f"  {short}--{option.long}{' value' if option.value else ''}\n")
            return 0
        for name, value in given:
            if name not in common:
                self.own[name] = value
                self.many.append((name, value))
        try:
            self.start.prepare([one for one in given if one[0] in common])
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
