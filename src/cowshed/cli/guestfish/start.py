"""What guestfish's options say: disks are added, keys kept, and with some of them the session runs from the start."""

from __future__ import annotations

import os

from ...errors import UsageError
from ..output import Stop
from .fish import Fish

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from ..output import Output


class Disk:
    """A disk as the options give it: ``ref`` an image or URI, ``fmt`` and ``sector`` as they stood before it."""

    def __init__(self, ref: str, fmt: str | None, sector: int | None) -> None:
        self.ref = ref
        self.fmt = fmt
        self.sector = sector


class Start:
    """``done``: the exit status when an option said it all; ``file``: what -f names; ``listens``: with --listen."""

    def __init__(self, out: Output, *, readonly: bool = False, prog: str = "guestfish") -> None:
        self.out = out
        self.prog = prog
        self.readonly = readonly
        self.disks: list[Disk] = []
        self.domains: list[str] = []
        self.mounts: list[str] = []
        self.new: list[str] = []
        self.inspector = False
        self.connect: str | None = None
        self.file: str | None = None
        self.listens = False
        self.csh = False
        self.done: int | None = None
        self.fish = Fish(out, prog=prog)
        self._format: str | None = None
        self._sector: str | None = None
        self._unused: set[str] = set()
        self._asked_readonly = False

    def fail(self, text: str) -> Stop:
        self.out.raw(f"{self.prog}: {text}\n")
        return Stop(1)

    def prepare(self, given: Iterable[tuple[str, str | None]]) -> None:
        """Take the options in, one after the other, up to one that says it all; nothing is opened. Raises Stop."""
        for name, value in given:
            self._option(name, value)
            if self.done is not None:
                return
        for unused in ("format", "blocksize"):
            if unused in self._unused:
                raise self.fail(f"--{unused} parameter must appear before -a parameter")
        self.fish.readonly = self.fish.session.readonly = self.readonly

    def _option(self, name: str, value: str | None) -> None:
        fish = self.fish
        if name == "add":
            self._add(value or "")
        elif name in ("format", "blocksize"):
            setattr(self, "_format" if name == "format" else "_sector", value or None)
            self._unused.add(name)
        elif name == "domain":
            self.domains.append(value or "")
        elif name == "connect":
            self.connect = value
        elif name == "file":
            if self.file is not None:
                raise self.fail("only one -f parameter can be given")
            self.file = value
        elif name == "inspector":
            self.inspector = True
        elif name == "mount":
            self.mounts.append(value or "")
        elif name == "new":
            if value in ("help", "list"):
                self._told("prepared", None)
            self.new.append(value or "")
        elif name == "key":
            self._key(value or "")
        elif name == "keys-from-stdin":
            fish.keys_from_stdin = True
        elif name == "echo-keys":
            fish.echo_keys = True
        elif name in ("ro", "rw"):
            if name == "rw" and self._asked_readonly:
                raise self.fail("cannot mix --ro and --rw options")
            self._asked_readonly = self.readonly = name == "ro"
        elif name == "no-sync":
            fish.no_sync = True
        elif name == "no-dest-paths":
            fish.guest_paths = False
        elif name == "D":
            fish.guest_paths = False
            self.out.raw(f"{self.prog}: warning: -D option is deprecated, use --no-dest-paths instead\n")
        elif name == "pipe-error":
            fish.pipe_error = True
        elif name in ("progress-bars", "no-progress-bars"):
            fish.bars = name == "progress-bars"
        elif name in ("x", "trace"):
            fish.facts["trace"] = True
        elif name == "verbose":
            fish.facts["verbose"] = True
        elif name == "listen":
            self.listens = True
        elif name == "csh":
            self.csh = True
        elif name == "remote":
            self._remote(value)
        elif name == "live":
            raise self.fail("libguestfs live support was removed in libguestfs 1.48")
        else:
            self._told(name, value)

    def _told(self, name: str, value: str | None) -> None:
        """Options that print something and end."""
        from .help import RELEASE, list_commands, usage

        if name == "version":
            self.out.write(f"{self.prog} {RELEASE}\n")
            self.done = 0
        elif name == "help":
            usage(self.out)
            self.done = 0
        elif name == "prepared":
            from .prepared import help_text

            self.out.write(help_text())
            self.done = 0
        elif name == "cmd-help":
            self.done = list_commands(self.out, value)
        elif name in ("long-options", "short-options"):
            from .main import OPTIONS

            if name == "long-options":
                hidden = ("long-options", "short-options", "")
                self.out.write("".join(f"--{one.long}\n" for one in OPTIONS if one.long not in hidden))
            else:
                letters = "".join(one.short for one in OPTIONS)
                order = sorted(letters, key=lambda one: (one.lower(), one.isupper()))
                self.out.write("".join(f"-{one}\n" for one in order))
            self.done = 0

    def _add(self, ref: str) -> None:
        """-a: a local file has to be there when it is named."""
        sector: int | None = None
        if self._sector is not None:
            sector = leading_number(self._sector)
            if sector is None:
                raise self.fail("--blocksize option is not numeric")
            if sector not in (0, 512, 4096):
                # told when the disks are added
                sector = -1
        path = ref[7:] if ref.startswith("file://") else ref
        if ("://" not in path and not path.startswith("json:")) or ref.startswith("file://"):
            try:
                os.close(os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK))
            except OSError as error:
                raise self.fail(f"access: {path}: {error.strerror}") from error
        self.disks.append(Disk(ref, self._format, sector or None))
        self._unused.clear()

    def _remote(self, value: str | None) -> None:
        from .remote import Remote, RemoteError, given_pid

        try:
            pid = given_pid(value)
        except RemoteError as error:
            raise self.fail(str(error)) from error
        self.fish.remote = Remote(pid) if pid else None

    def _key(self, text: str) -> None:
        """--key ID:key:WORD or ID:file:NAME; clevis is known, but can't be asked."""
        parts = text.split(":")
        wrong = f"selector '{text}': "
        if not text:
            raise self.fail(wrong + "missing ID")
        if len(parts) < 2:
            raise self.fail(wrong + "missing TYPE")
        name, kind, values = parts[0], parts[1], parts[2:]
        needs = {"key": "KEY_STRING", "file": "FILENAME", "clevis": ""}
        if kind not in needs:
            raise self.fail(wrong + "invalid TYPE")
        if kind == "clevis" and values:
            raise self.fail(wrong + "too many fields")
        if kind != "clevis" and len(values) != 1:
            raise self.fail(wrong + f"missing {needs[kind]}, or too many fields")
        self.fish.selectors.append((name, kind, "".join(values)))

    def legacy(self, words: list[str]) -> None:
        """-i with names behind it: of disks that are there, or with a slash; else of domains."""
        for word in words:
            if "/" in word or os.path.exists(word):
                self.disks.append(Disk(word, self._format, None))
            else:
                self.domains.append(word)

    def open(self) -> None:
        """Add the disks; run, inspect and mount where the options ask for it. Raises Stop."""
        from ...errors import CowshedError

        session = self.fish.session
        try:
            if self.new:
                from .prepared import prepare

                for index, text in enumerate(self.new, 1):
                    prepare(self, text, index)
            for disk in self.disks:
                if disk.sector == -1:
                    raise UsageError("blocksize parameter is invalid")
                add_disk(self.fish, disk.ref, fmt=disk.fmt, sector=disk.sector)
            for domain in self.domains:
                from .domain import disks_of

                for found in disks_of(domain, self.connect, writable=not session.readonly):
                    session.add(found.file, fmt=found.fmt, readonly=found.readonly or session.readonly)
            if self.inspector or self.mounts or self.new:
                session.run()
            if self.inspector:
                from .inspected import mount_all

                mount_all(self.fish, self.prog)
            for text in self.mounts:
                self._mount(text)
        except CowshedError as error:
            self.fish.error(str(error))
            raise Stop(1) from error

    def _mount(self, text: str) -> None:
        """-m DEVICE[:PATH[:OPTIONS[:TYPE]]]"""
        from ...errors import CowshedError

        parts = [*text.split(":", 3), "", "", ""]
        device, path, options, kind = parts[0], parts[1] or "/", parts[2], parts[3] or None
        readonly = self.readonly or "ro" in options.split(",")
        try:
            self.fish.session.mount(device, os.fsencode(path), readonly=readonly, kind=kind)
        except CowshedError as error:
            self.fish.error(f"mount_options: mount_options_stub: {error}")
            prog = self.prog
            lines = [
                f"‘{device}’ could not be mounted.",
                f"Check mount(8) man page to ensure options ‘{options or ('ro' if self.readonly else '')}’",
                "are supported by the filesystem that is being mounted.",
            ]
            lines += ["Did you mean to mount one of these filesystems?"]
            rows = self.fish.session.devices.list_filesystems()
            lines += [f"\t{name} ({kind})" for name, kind in rows if kind != "swap"]
            self.out.raw("".join(f"{prog}: {line}\n" for line in lines))
            raise Stop(1) from error


def leading_number(text: str) -> int | None:
    """What scanf's %d finds at the beginning of a text."""
    text = text.lstrip(" \t\n\v\f\r")
    sign = -1 if text.startswith("-") else 1
    digits = text[1:] if text[:1] in ("-", "+") else text
    digits = digits[: len(digits) - len(digits.lstrip("0123456789"))]
    return sign * int(digits[:18]) if digits else None


def add_disk(
    fish: Fish,
    ref: str,
    *,
    fmt: str | None = None,
    sector: int | None = None,
    readonly: bool | None = None,
    label: str | None = None,
) -> None:
    """Add an image after looking whether it is there, in guestfish's words. Raises CowshedError."""
    from ...guest.filesystem.base import GuestError

    if ref.startswith("file://"):
        ref = ref[7:]
    if "://" not in ref and not ref.startswith("json:"):
        try:
            os.stat(ref)
        except OSError as error:
            raise GuestError(error.errno or 2, ref) from error
    fish.session.add(ref, fmt=fmt, sector=sector, readonly=readonly, label=label)
