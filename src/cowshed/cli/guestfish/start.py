"""What guestfish's options say: disks are added, keys kept, and with some of them the session runs from the start."""

from __future__ import annotations

import os

from ..output import Stop
from .fish import Fish

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ..output import Output

    Given = list[tuple[str, str | None]]


class Disk:
    """A disk as the options give it: ``ref`` an image or URI, ``fmt`` and ``sector`` as they stood before it."""

    def __init__(self, ref: str, fmt: str | None, sector: int | None) -> None:
        self.ref = ref
        self.fmt = fmt
        self.sector = sector


class Start:
    """``done``: the exit status when an option said it all; ``file``: what -f names."""

    def __init__(self, out: Output, *, readonly: bool = False, prog: str = "guestfish") -> None:
        self.out = out
        self.prog = prog
        self.readonly = readonly
        self.disks: list[Disk] = []
        self.domains: list[str] = []
        self.mounts: list[str] = []
        self.new: list[str] = []
        self.keys: list[str] = []
        self.inspector = False
        self.file: str | None = None
        self.done: int | None = None
        self.fish = Fish(out)

    def fail(self, text: str) -> Stop:
        self.out.raw(f"{self.prog}: {text}\n")
        return Stop(1)

    def prepare(self, given: Given) -> None:
        """Take the options in; nothing is opened. Raises Stop."""
        from .help import RELEASE, list_commands, usage

        fmt: str | None = None
        sector: int | None = None
        fish = self.fish
        for name, value in given:
            if name == "add":
                self.disks.append(Disk(value or "", fmt, sector))
            elif name == "format":
                fmt = value or None
            elif name == "blocksize":
                if value not in (None, "", "512", "4096"):
                    raise self.fail(f"--blocksize: invalid block size ‘{value}’: only 512 and 4096 are possible")
                sector = int(value) if value else None
            elif name == "domain":
                self.domains.append(value or "")
            elif name == "file":
                if self.file is not None:
                    raise self.fail("only one -f parameter can be given")
                self.file = value
            elif name == "inspector":
                self.inspector = True
            elif name == "mount":
                self.mounts.append(value or "")
            elif name == "new":
                self.new.append(value or "")
            elif name == "key":
                self.keys.append(value or "")
            elif name == "keys-from-stdin":
                fish.keys_from_stdin = True
            elif name == "ro":
                self.readonly = True
            elif name == "rw":
                self.readonly = False
            elif name == "no-sync":
                fish.no_sync = True
            elif name == "pipe-error":
                fish.pipe_error = True
            elif name in ("listen", "remote", "live"):
                raise self.fail(f"--{name} is not possible yet: each guestfish is a session of its own")
            elif name == "trace":
                fish.facts["trace"] = True
            elif name == "version":
                self.out.write(f"{self.prog} {RELEASE}\n")
                self.done = 0
            elif name == "help":
                usage(self.out)
                self.done = 0
            elif name == "cmd-help":
                self.done = list_commands(self.out, value)
            if self.done is not None:
                return
        for text in self.keys:
            self._key(text)
        fish.readonly = fish.session.readonly = self.readonly

    def _key(self, text: str) -> None:
        """--key ID:key:WORD or ID:file:NAME"""
        parts = text.split(":", 2)
        if len(parts) == 3 and parts[1] == "key":
            self.fish.keys.append((parts[0], parts[2].encode("utf-8", "surrogateescape")))
        elif len(parts) == 3 and parts[1] == "file":
            try:
                with open(parts[2], "rb") as file:
                    self.fish.keys.append((parts[0], file.read(8 << 20).removesuffix(b"\n")))
            except OSError as error:
                raise self.fail(f"{parts[2]}: {error.strerror}") from error
        else:
            raise self.fail(f"selector '{text}': it is ID:key:WORD or ID:file:NAME")

    def open(self) -> None:
        """Add the disks; run, inspect and mount where the options ask for it. Raises Stop, CowshedError."""
        from ...errors import CowshedError

        session = self.fish.session
        try:
            if self.new:
                from .prepared import prepare

                for index, text in enumerate(self.new, 1):
                    prepare(self, text, index)
            for disk in self.disks:
                add_disk(self.fish, disk.ref, fmt=disk.fmt, sector=disk.sector)
            for domain in self.domains:
                from .domain import disks_of

                for path, fmt, readonly in disks_of(domain):
                    session.add(path, fmt=fmt, readonly=readonly or session.readonly)
            if self.inspector or self.mounts or self.new:
                session.run()
            if self.inspector:
                from .inspected import mount_all

                mount_all(self.fish)
            for text in self.mounts:
                self._mount(text)
        except CowshedError as error:
            self.fish.error(str(error))
            raise Stop(1) from error

    def _mount(self, text: str) -> None:
        """-m DEVICE[:PATH[:OPTIONS[:TYPE]]]"""
        parts = [*text.split(":", 3), "", "", ""]
        device, path, options, kind = parts[0], parts[1] or "/", parts[2], parts[3] or None
        readonly = self.readonly or "ro" in options.split(",")
        self.fish.session.mount(device, os.fsencode(path), readonly=readonly, kind=kind)


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
