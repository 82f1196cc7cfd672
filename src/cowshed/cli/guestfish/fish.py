"""A running guestfish: its session, how lines are carried out, and how what goes wrong is told."""

from __future__ import annotations

import os
from _signal import SIGINT, getsignal, signal  # type: ignore[import-not-found]

from ...errors import CowshedError
from ...guest.session import Session
from .arguments import Refused, bind
from .line import Line, parse
from .printers import PRINTERS
from .table import Command, find

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Any

    from ...guest.inspect.access import SessionGuest
    from ...guest.inspect.root import Root
    from ..output import Output
    from ..progress import Bar
    from .remote import Remote
    from .verbs.local import Handler


#: LUKS takes no longer key files
_LONGEST_KEY = 8 << 20


class Failed(Exception):
    """A command could not be carried out; the text is what follows the command's name in the message, where it is
    ``named`` there: what the host lacks stands alone."""

    named = True


class Foreign(Failed):
    """The same, told under the name of another command: of the one that did a part of the work."""

    named = False

    def __init__(self, internal: str, text: str) -> None:
        super().__init__(f"{internal}: {text}")


class Left(Exception):
    """quit was typed."""


class Yielded:
    """While another program has the terminal, Ctrl-C is for that one: a context manager."""

    __slots__ = ("_old",)

    def __enter__(self) -> None:
        self._old = getsignal(SIGINT)
        if callable(self._old):
            # not ignored: what is started would inherit that
            signal(SIGINT, lambda number, frame: None)

    def __exit__(self, *rest: object) -> None:
        if callable(self._old):
            signal(SIGINT, self._old)


class Fish:
    """``where``: what begins messages about a script's line ("FILE:LINE: "); ``ended``: how the last command that
    counts went."""

    def __init__(self, out: Output, *, readonly: bool = False, prog: str = "guestfish") -> None:
        self.out = out
        self.program = prog
        self.session = Session(readonly=readonly)
        self.readonly = readonly
        self.interactive = False
        self.where = ""
        self.first = True
        self.pipe_error = False
        self.no_sync = False
        #: the server that commands go to instead of being carried out here
        self.remote: Remote | None = None
        #: what interrupts as soon as changes are on the disk
        self.pending: BaseException | None = None
        self.ignore = False
        #: commands are read from standard input, so that they can't have it themselves
        self.from_stdin = False
        self.facts: dict[str, object] = {}
        self.lines: Iterator[str] | None = None
        self.count = 0
        self.inactive: set[str] = set()
        #: (device, uuid or "all"; key, file or clevis; the key or the file's name) as --key gives them
        self.selectors: list[tuple[str, str, str]] = []
        self.keys_from_stdin = False
        self.echo_keys = False
        #: completion may look into the guest
        self.guest_paths = True
        #: progress bars: None where a person types
        self.bars: bool | None = None
        #: the one that is shown
        self.bar: Bar | None = None
        self.guest: SessionGuest | None = None
        self.roots: list[Root] | None = None
        #: of events, as `event` registers them
        self.handlers: list[Handler] = []

    def anew(self) -> Fish:
        """One with nothing opened yet, to which the same was said."""
        other = Fish(self.out, readonly=self.readonly, prog=self.program)
        other.facts = self.facts
        other.selectors = self.selectors
        other.keys_from_stdin = self.keys_from_stdin
        other.echo_keys = self.echo_keys
        return other

    # ---- telling

    def error(self, text: str) -> None:
        """``libguestfs: error: TEXT``."""
        self.out.raw(f"{self.where}libguestfs: error: {text}\n")

    def say(self, text: str) -> None:
        """What is wrong with the command line itself."""
        if self.bar is not None:
            self.bar.clear()
        self.out.raw(f"{text}\n")

    # ---- running

    def script(self, lines: Iterator[str], name: str = "") -> bool:
        """Carry out lines until one fails that counts. ``name``: of the file they come from."""
        self.lines = lines
        for text in lines:
            self.count += 1
            if name:
                self.where = f"{name}:{self.count}: "
            if not self.run_line(text.rstrip("\n")):
                return False
        return True

    def run_line(self, text: str) -> bool:
        """Carry out one line; False when it failed and that counts."""
        try:
            line = parse(text)
        except Refused as refused:
            self.say(f"{self.prog()}: {refused}")
            return text.lstrip().startswith("-")
        if line.shell is not None:
            self.out.flush()
            return os.waitstatus_to_exitcode(os.system(line.shell)) == 0 or line.ignore
        if line.inline is not None:
            return self._inline(line.inline) or line.ignore
        if not line.words:
            return True
        self.ignore = line.ignore
        return self.run_words(line) or line.ignore

    def prog(self) -> str:
        return self.program

    def keys(self, device: str, uuid: str) -> list[bytes]:
        """The keys that were given for a device, or for all; their files are read now. Raises HostError."""
        fit = (self.session.devices.canonical(device), uuid.lower(), "all")
        return [
            self._word(kind, value)
            for name, kind, value in self.selectors
            if kind != "clevis" and (self.session.devices.canonical(name) in fit or name.lower() in fit)
        ]

    @staticmethod
    def _word(kind: str, value: str) -> bytes:
        if kind == "key":
            return value.encode("utf-8", "surrogateescape")
        try:
            with open(value, "rb") as file:
                return file.read(_LONGEST_KEY).removesuffix(b"\n")
        except OSError as error:
            from ...errors import host_error

            raise host_error(error, value, value) from error

    # ---- interrupting

    def interrupted(self, reason: BaseException) -> None:
        """For signal handlers: raise ``reason``, but not between the writes of a change."""
        if self.session.tree.settling:
            self.pending = reason
        else:
            raise reason

    def settle(self) -> None:
        """Raise what came in while changes were being written."""
        reason, self.pending = self.pending, None
        if reason is not None:
            raise reason

    def _inline(self, shell: str) -> bool:
        import subprocess

        self.out.flush()
        done = subprocess.run(shell, shell=True, stdout=subprocess.PIPE, check=False)
        if done.returncode:
            why = f"signal {-done.returncode}" if done.returncode < 0 else f"status {done.returncode}"
            self.say(f"guestfish: what stands behind <! ended with {why}")
            return False
        return all(self.run_line(one) for one in os.fsdecode(done.stdout).splitlines())

    def run_words(self, line: Line) -> bool:
        """Carry out a command, with its output to a pipe where one follows."""
        if line.pipe is None:
            return self.run(line.words)
        import subprocess

        from ..output import Output

        self.out.flush()
        reader = subprocess.Popen(line.pipe, shell=True, stdin=subprocess.PIPE)
        assert reader.stdin is not None
        outer = self.out
        self.out = Output(outer.prog, under_link=outer.under_link, stdout=reader.stdin.fileno())
        try:
            good = self.run(line.words)
            self.out.flush()
        finally:
            self.out = outer
            try:
                reader.stdin.close()
            except BrokenPipeError:
                pass
            with Yielded():
                status = reader.wait()
        if status and self.pipe_error:
            return False
        return good

    def run(self, words: list[str]) -> bool:
        """Carry out one command given as words. Prints what it returns, or what went wrong."""
        if self.remote is not None:
            from .remote import forward

            return forward(self, self.remote, words)
        name, rest = words[0], words[1:]
        known = find(name)
        if known is None:
            self.say(f"{name}: unknown command")
            if self.first and not self.interactive:
                self.say(
                    "Did you mean to open a disk image?  guestfish -a disk.img\n"
                    "For a list of commands:             guestfish -h\n"
                    "For complete documentation:         man guestfish"
                )
            return False
        self.first = False
        if self.facts.get("trace"):
            shown = " ".join(f'"{word}"' for word in rest)
            self.out.raw(f"libguestfs: trace: {known.internal} {shown}\n".replace(" \n", "\n"))
        try:
            self.carry_out(known, rest, name)
            return True
        except Refused as refused:
            if str(refused):
                self.say(str(refused))
        except Failed as failed:
            self.error(f"{known.internal}: {failed}" if failed.named else str(failed))
        except CowshedError as error:
            self.report(known, error)
        except OSError as error:
            text = error.strerror or str(error)
            self.error(f"{error.filename}: {text}" if error.filename else text)
        return False

    def report(self, known: Command, error: CowshedError) -> None:
        # what is refused here and not there had better say why
        why = f" ({error.hint})" if error.hint else ""
        self.error(f"{known.internal}: {known.step}{error}{why}")

    def carry_out(self, known: Command, words: list[str], called: str = "") -> None:
        """Run a command, ``called`` so, and print its result: all it writes is one change.

        Raises Refused, Failed, CowshedError.
        """
        values, given = bind(self, known, words, called)
        if not known.local:
            self.need_running()
        if any(one.type in ("path", "paths") for one in known.arguments):
            self.check_paths(known, values)
        if self.bars or (self.bars is None and self.interactive):
            from .bars import Watched

            with Watched(self, known, values):
                self._do(known, values, given)
        else:
            self._do(known, values, given)
        self.out.flush()
        self.settle()

    def _do(self, known: Command, values: list[Any], given: dict[str, Any]) -> None:
        with self.session.change():
            result = known.handler(self, *values, **given)
            printer: Callable[..., None] = PRINTERS[known.result]
            printer(self.out, result)

    def need_running(self, internal: str = "") -> None:
        """``internal``: the command that messages name instead of the one that was given."""
        if not self.session.running:
            text = "call launch before using this function\n(in guestfish, don't forget to use the 'run' command)"
            raise Foreign(internal, text) if internal else Failed(text)

    def check_paths(self, known: Command, values: list[object]) -> None:
        """What every command on paths wants first."""
        if not self.session.tree.mounts:
            raise Failed(f"{known.internal}_stub: you must call 'mount' first to mount the root filesystem")
        for argument, value in zip(known.arguments, values, strict=False):
            if argument.type == "path" and isinstance(value, bytes) and not value.startswith(b"/"):
                raise Failed(f"{known.internal}_stub: path must start with a / character")

    def need_root(self, internal: str) -> None:
        """For commands whose paths are not told by their types."""
        if not self.session.tree.mounts:
            raise Failed(f"{internal}_stub: you must call 'mount' first to mount the root filesystem")

    def check_paths_of(self, internal: str, path: bytes) -> None:
        """The same for one path."""
        self.need_root(internal)
        if not path.startswith(b"/"):
            raise Failed(f"{internal}_stub: path must start with a / character")

    def drive_letter(self, letter: str) -> str:
        """Where the file system of a Windows guest's drive is mounted, without a slash at the end. Raises Refused."""
        if not self.roots:
            why = 'you must inspect the guest ("-i" option or run "inspect-os" command)'
            raise Refused(f"guestfish: to use Windows drive letters, {why}")
        known = find("inspect-get-drive-mappings")
        assert known is not None
        drives: dict[str, str] = {}
        for root in self.roots:
            drives.update((name.lower(), device) for name, device in known.handler(self, root.device))
        if not drives:
            raise Refused("guestfish: to use Windows drive letters, this must be a Windows guest")
        device = drives.get(letter.lower())
        if device is None:
            raise Refused(f"guestfish: drive '{letter}:' not found.")
        for mount in self.session.tree.mounts:
            if mount.device == device:
                return os.fsdecode(mount.path).rstrip("/")
        raise Refused(f"guestfish: to access '{letter}:', mount {device} first")

    def spelled(self, path: str) -> str:
        """A path whose names are in the case that the guest has. Raises Foreign, Failed."""
        from ...guest.filesystem.base import GuestError
        from ...guest.search import case_sensitive_path

        if not self.session.tree.mounts:
            text = "case_sensitive_path_stub: you must call 'mount' first to mount the root filesystem"
            raise Foreign("case_sensitive_path", text)
        if not path.startswith("/"):
            raise Foreign("case_sensitive_path", "case_sensitive_path_stub: path must start with a / character")
        try:
            return case_sensitive_path(self.session.tree, os.fsencode(path)).decode("utf-8", "surrogateescape")
        except GuestError as error:
            name = str(error).rpartition(": ")[0].rpartition("/")[2]
            what = f"{name}: not found" if error.errno == 2 else f"chdir: {name}: {os.strerror(error.errno or 5)}"
            raise Foreign("case_sensitive_path", what) from error

    # ---- what several commands need

    def heredoc(self, mark: str) -> bytes:
        """The lines that follow up to ``mark``. Raises Refused where they end before."""
        found: list[bytes] = []
        for text in self.lines or ():
            self.count += 1
            if text.rstrip("\n") == mark:
                return b"".join(found)
            found.append(os.fsencode(text if text.endswith("\n") else text + "\n"))
        raise Refused(f"guestfish: end of input reached without finding '{mark}'")

    def close(self) -> None:
        if self.guest is not None:
            self.guest.close()
        self.session.close()
