"""One run of virsh: its connection, what it prints, and the running of commands."""

from __future__ import annotations

import os
import sys

from ...errors import CowshedError
from .parse import Call, Failed

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ...pool.host import Host
    from ...pool.pool import Pool
    from ...pool.volume import Volume
    from ...progress import Progress
    from ..output import Output
    from ..progress import Reporter

#: length of a uuid as text
_UUID = 36


class Session:
    """``uri`` is the one asked for, None for the default; ``interactive`` until quit."""

    def __init__(self, out: Output) -> None:
        self.out = out
        self.uri: str | None = None
        self.readonly = False
        self.quiet = False
        self.timing = False
        self.interactive = False
        self.log: int | None = None
        self.debug = 4
        self._host: Host | None = None
        self._told = 0

    # ---- what is printed

    def write(self, text: str) -> None:
        self.out.write(text)

    def extra(self, text: str) -> None:
        """What --quiet leaves out."""
        if not self.quiet:
            self.out.write(text)

    def error(self, text: str) -> None:
        self._record("ERROR", text)
        self.out.flush()
        self.out.raw(f"error: {text}\n")

    def warning(self, text: str) -> None:
        self._record("WARNING", text)
        self.out.flush()
        self.out.raw(f"warning: {text}\n")

    def report(self, cause: BaseException) -> None:
        """Print an error of the layers below, and its hint for people."""
        if isinstance(cause, OSError):
            self.error(os.strerror(cause.errno) if cause.errno else str(cause))
            return
        self.error(str(cause))
        hint = getattr(cause, "hint", None)
        if hint and self.for_people:
            self.out.raw(f"hint: {hint}\n")

    @property
    def for_people(self) -> bool:
        """Is this cowshed called by its own name, by somebody who looks at a terminal?"""
        return not self.out.under_link and os.isatty(2)

    def _record(self, level: str, text: str) -> None:
        if self.log is None:
            return
        import time

        stamp = time.strftime("%Y.%m.%d %H:%M:%S", time.gmtime())
        for line in text.split("\n"):
            os.write(self.log, os.fsencode(f"[{stamp} virsh {os.getpid()}] {level} {line}\n"))

    def open_log(self, path: str) -> None:
        """Failed when it can't be opened."""
        try:
            self.log = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o644)
        except OSError:
            raise Failed("failed to open the log file. check the log file path") from None

    # ---- the connection

    @property
    def host(self) -> Host:
        """Raises Failed when there is no connection to be had."""
        if self._host is None:
            self.connect()
        assert self._host is not None
        return self._host

    def connect(self) -> None:
        """Make the connection that ``uri`` and ``readonly`` say. Raises Failed."""
        from .connection import open_host

        self._host = None
        try:
            self._host = open_host(self.uri, self.readonly)
        except CowshedError as error:
            raise Failed("failed to connect to the hypervisor", error) from error
        self._told = 0

    def tell_recovered(self) -> None:
        """What was found unfinished and put in order is told once."""
        if self._host is None:
            return
        lines = [*self._host.recovered, *self._host.warnings]
        for line in lines[self._told :]:
            self.warning(line)
        self._told = len(lines)

    # ---- finding what a command is about

    def pool(self, call: Call, option: str = "pool", *, by_name: bool = True, by_uuid: bool = True) -> Pool:
        """The pool that an option names. Raises Failed."""
        name = call.need(option)
        error: CowshedError | None = None
        if by_uuid and len(name.encode("utf-8", "surrogateescape")) == _UUID:
            try:
                return self.host.pool_by_uuid(checked_uuid(name, "virStoragePoolLookupByUUIDString"))
            except CowshedError as found:
                error = found
        if by_name:
            try:
                return self.host.pool(name)
            except CowshedError as found:
                error = found
        raise Failed(f"failed to get pool '{name}'", error)

    def volume(
        self, call: Call, option: str = "vol", pool_option: str | None = "pool", *, by_name: bool = True
    ) -> Volume:
        """The volume that an option names, by its name in a pool, or its key or path. Raises Failed."""
        name = call.need(option)
        pool_name = call.text(pool_option) if pool_option is not None else None
        pool: Pool | None = None
        if pool_option is not None and pool_name is not None:
            pool = self.pool(call, pool_option)
            if not pool.active:
                raise Failed(f"pool '{pool_name}' is not active")
        try:
            if pool is not None and by_name:
                from ...errors import MissingVolumeError

                try:
                    return pool.volume(name)
                except MissingVolumeError:
                    pass
            found = self.any_volume(name)
        except CowshedError as error:
            text = f"failed to get vol '{name}'"
            if pool is None and pool_option is not None:
                text += f", specifying --{pool_option} might help"
            raise Failed(text, error) from error
        if pool is not None and found.pool.name != pool.name:
            raise Failed(f"Requested volume '{name}' is not in pool '{pool.name}'")
        return found

    def any_volume(self, name: str) -> Volume:
        """By key, or by path. Raises MissingVolumeError."""
        from ...errors import MissingVolumeError

        try:
            return self.host.volume_by_key(name)
        except MissingVolumeError:
            return self.host.volume_by_path(name)

    def working(self, name: str) -> Reporter | Unseen:
        """A context manager around long work: a person at a terminal sees how far it is."""
        if self.quiet or sys.stderr is None or not sys.stderr.isatty():
            return Unseen(name)
        from ..progress import Reporter

        return Reporter(self.out, False, name=name, silent=True)

    # ---- running commands

    def run(self, calls: list[Call]) -> bool:
        """Run them one after the other. Returns whether the last one succeeded."""
        done = True
        for call in calls:
            if self.timing:
                import time

                before = time.monotonic()
            try:
                self._handle(call)
                done = True
            except Failed as failed:
                done = False
                if failed.text:
                    self.error(failed.text)
                if failed.cause is not None:
                    self.report(failed.cause)
            except (CowshedError, OSError) as error:
                if isinstance(error, BrokenPipeError):
                    raise
                done = False
                self.report(error)
            self.tell_recovered()
            if call.command.name in ("quit", "exit"):
                break
            if self.timing:
                self.write(f"\n(Time: {(time.monotonic() - before) * 1000:.3f} ms)\n\n")
            else:
                self.extra("\n")
        return done

    def _handle(self, call: Call) -> None:
        name = f"{__package__}.{call.command.module}"
        function = call.command.name.replace("-", "_")
        getattr(__import__(name, fromlist=(function,)), function)(self, call)


class Unseen:
    """A context manager around work that nobody watches (the reporter's module takes a moment to load)."""

    __slots__ = ("name",)

    def __init__(self, name: str) -> None:
        self.name = name

    def __enter__(self) -> Progress:
        from ...progress import Progress

        return Progress(self.name)

    def __exit__(self, *rest: object) -> None:
        pass


def checked_uuid(text: str, function: str) -> str:
    """Raises PoolError in libvirt's words when this is no uuid."""
    from ...wire.libvirt.common import read_uuid
    from .connection import Complaint

    uuid = read_uuid(text)
    if uuid is None:
        raise Complaint(f"uuidstr in {function} must be a valid UUID")
    return text
