"""``--listen``: a guestfish in the background that carries out what clients send (remote.py has what both agree on)."""

from __future__ import annotations

import fcntl
import os
import select
import signal
import socket
import sys

from ..output import Output, Stop
from .fish import Fish, Left
from .remote import (
    ANSWER,
    BAD,
    ENDED,
    GOOD,
    HEADER,
    IGNORE,
    INSECURE,
    LONGEST,
    MAGIC,
    MOST,
    RemoteError,
    address,
    folder,
    is_ours,
    is_safe,
    receive,
)  # fmt: skip

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from types import FrameType
    from typing import NoReturn

#: seconds that a client may take to say what it wants
PATIENCE = 10.0
_ENDING = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


class Gone(KeyboardInterrupt):
    """The client of the command that runs has left."""


class Ended(BaseException):
    """A signal that ends the server."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


def listen(fish: Fish, prepare: Callable[[], None], *, csh: bool = False) -> int:
    """Start a server and print how clients find it. ``prepare`` is run by it, before it takes commands. Returns the
    exit status; the server itself never returns."""
    fish.out.flush()
    ready, tell = os.pipe()
    pid = os.fork()
    if not pid:
        os.close(ready)
        _serve(fish, prepare, tell)
    os.close(tell)
    try:
        answer = os.read(ready, 1)
    finally:
        os.close(ready)
    if not answer:
        _, status = os.waitpid(pid, 0)
        return max(1, os.waitstatus_to_exitcode(status))
    fish.out.write(f"setenv GUESTFISH_PID {pid}\n" if csh else f"GUESTFISH_PID={pid}; export GUESTFISH_PID\n")
    return 0


def _serve(fish: Fish, prepare: Callable[[], None], tell: int) -> NoReturn:
    """The life of the forked process."""
    code = 1
    path = ""
    try:
        try:
            prepare()
            bound = _bind()
            path = address(os.getpid())
            os.setsid()
            for number in _ENDING:
                signal.signal(number, _handler(fish))
            _become(None)
            os.write(tell, b"1")
            os.close(tell)
            code = _loop(fish, bound)
        except Stop as stop:
            code = stop.code
        except RemoteError as error:
            fish.out.raw(f"guestfish: {error}\n")
        except Ended as ended:
            code = 128 + ended.number
        finally:
            # nothing may come in between any more
            for number in _ENDING:
                signal.signal(number, signal.SIG_IGN)
            if path:
                _unlink(path)
            fish.close()
    except BaseException as error:
        fish.out.raw(f"guestfish: internal error: {type(error).__name__}: {error}\n")
        code = 1
    os._exit(code)


def _unlink(path: str) -> None:
    try:
        os.unlink(path)
    except OSError:
        pass


def _handler(fish: Fish) -> Callable[[int, FrameType | None], None]:
    def ended(number: int, frame: FrameType | None) -> None:
        fish.interrupted(Ended(number))

    return ended


def _bind() -> socket.socket:
    """The socket, in a directory that nobody else gets into. Raises RemoteError."""
    place = folder()
    try:
        os.mkdir(place, 0o700)
    except OSError:
        pass
    if not is_safe(place):
        raise RemoteError(INSECURE.format(place))
    path = address(os.getpid())
    # only a dead process of this number can have left one
    _unlink(path)
    bound = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        bound.bind(path)
        os.chmod(path, 0o600)
        bound.listen(16)
    except OSError as error:
        raise RemoteError(f"{path}: {error.strerror}") from error
    return bound


def _become(streams: list[int] | None) -> None:
    """Make these the standard streams; without, nothing is."""
    if streams is None:
        null = os.open(os.devnull, os.O_RDWR)
        streams = [null, null, null]
    for number, fd in enumerate(streams):
        os.dup2(fd, number, inheritable=True)
    for fd in set(streams):
        os.close(fd)
    # what was read ahead belongs to the one before
    sys.stdin = open(0, encoding="utf-8", errors="surrogateescape", closefd=False)  # noqa: SIM115


def _loop(fish: Fish, bound: socket.socket) -> int:
    while True:
        try:
            connection, _ = bound.accept()
        except OSError:
            # no descriptor left, or the client has gone already
            select.select([], [], [], 0.1)
            continue
        with connection:
            code = _one(fish, connection)
        if code is not None:
            return code


def _one(fish: Fish, connection: socket.socket) -> int | None:
    """Carry out one request; an exit status when it was the last one."""
    streams: list[int] = []
    try:
        connection.settimeout(PATIENCE)
        if not is_ours(connection):
            return None
        words, ignore = _request(connection, streams)
        connection.settimeout(None)
    except (OSError, RemoteError):
        for fd in streams:
            os.close(fd)
        return None
    _become(streams)
    fish.out = Output(fish.out.prog, under_link=fish.out.under_link)
    ended = False
    good = True
    try:
        with _Watch(fish, connection):
            good = fish.run(words)
            fish.settle()
    except Left:
        ended = True
    except Gone:
        # what it had changed is forgotten; it can't be told anything
        return None
    finally:
        fish.out.flush()
        failed = fish.out.failed
        if failed is not None:
            fish.out.raw(f"guestfish: could not write to standard output: {failed.strerror}\n")
        _become(None)
    status = ENDED if ended else GOOD if good and failed is None else BAD
    code = 0 if ended else 1 if not good and not ignore else None
    if code is not None:
        # the disks are whole, and free for others, when the client goes on
        _unlink(address(os.getpid()))
        fish.close()
    try:
        connection.sendall(ANSWER.pack(MAGIC, status))
    except OSError:
        pass
    return code


def _request(connection: socket.socket, streams: list[int]) -> tuple[list[str], bool]:
    """(the words, whether an error doesn't count); the descriptors are added to ``streams``. Raises RemoteError."""
    flags = getattr(socket, "MSG_CMSG_CLOEXEC", 0)
    head, fds, told, _ = socket.recv_fds(connection, HEADER.size, 3, flags)
    streams += fds
    if len(fds) != 3 or told & socket.MSG_CTRUNC:
        raise RemoteError("a request without its three descriptors")
    head += receive(connection, HEADER.size - len(head))
    magic, flags, count, length = HEADER.unpack(head)
    if magic != MAGIC or length > LONGEST or not 0 < count <= MOST:
        raise RemoteError("no request of this version")
    words = receive(connection, length).split(b"\0")
    if words.pop() or len(words) != count:
        raise RemoteError("a request whose words don't add up")
    return [os.fsdecode(word) for word in words], bool(flags & IGNORE)


class _Watch:
    """While a command runs, its client's going away interrupts it."""

    def __init__(self, fish: Fish, connection: socket.socket) -> None:
        self.fish = fish
        self.fd = connection.fileno()
        self.poll = select.poll()
        self.poll.register(self.fd, 0)

    def __enter__(self) -> None:
        signal.signal(signal.SIGIO, self._look)
        fcntl.fcntl(self.fd, fcntl.F_SETOWN, os.getpid())
        fcntl.fcntl(self.fd, fcntl.F_SETFL, fcntl.fcntl(self.fd, fcntl.F_GETFL) | os.O_ASYNC)
        self._look(0, None)

    def __exit__(self, *rest: object) -> None:
        signal.signal(signal.SIGIO, signal.SIG_IGN)

    def _look(self, number: int, frame: FrameType | None) -> None:
        if any(event & (select.POLLHUP | select.POLLERR) for _, event in self.poll.poll(0)):
            self.fish.interrupted(Gone())
